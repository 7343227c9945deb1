//! Chapter 28: SHA-1. RFC 3174, and FIPS 180-4, sections 5 and 6.
//!
//! A digest is a short number that is computed from all bytes of a message. Another message has
//! another digest, as far as chance decides. SHA-1 makes 160 bits, whatever the length. It cuts the
//! message into blocks of 64 bytes and stirs one after the other into five words of 32 bits:
//!
//! ```text
//!   message   [ 64 bytes ][ 64 bytes ][ the rest, 80, zeros, length in bits ]
//!                  |           |            |
//!   start ----> 80 rounds -> 80 rounds -> 80 rounds ----> digest, 20 bytes
//! ```
//!
//! One round takes one word W and moves all five words one place on:
//!
//! ```text
//!   new a = (a, turned 5 to the left) + mix(b, c, d) + e + W + K        + is modulo 2^32
//!   new b = a
//!   new c = b, turned 30 to the left
//!   new d = c
//!   new e = d
//! ```
//!
//! SHA-1 no longer protects a signature: two different files with one digest were shown in 2017.
//! WebSocket prescribes it, and needs no such protection: RFC 6455, section 10.8.

/// The digest of a message that arrives in pieces. It needs the same small memory for any length.
#[derive(Debug, Clone)]
pub struct Sha1 {
    state: [u32; 5],
    /// The beginning of a block that is not yet whole.
    block: [u8; BLOCK],
    /// How many bytes of it are there: always fewer than `BLOCK`.
    filled: usize,
    /// The length of the message so far, in bytes.
    length: u64,
}

/// Bytes that are worked on together.
const BLOCK: usize = 64;

/// The five words before the first block. Read each word's bytes from the right: 01 23 45 67 up to
/// ef, back down to 10, and f0 e1 d2 c3. Nothing is hidden in such numbers. RFC 3174, section 6.1.
const START: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

impl Default for Sha1 {
    fn default() -> Sha1 {
        Sha1::new()
    }
}

impl Sha1 {
    /// The beginning, before the first byte.
    pub fn new() -> Sha1 {
        Sha1 { state: START, block: [0; BLOCK], filled: 0, length: 0 }
    }

    /// The digest of a message that is there as a whole.
    pub fn of(message: &[u8]) -> [u8; 20] {
        let mut sha1 = Sha1::new();
        sha1.update(message);
        sha1.finish()
    }

    /// Takes the next piece of the message. Where it is cut makes no difference.
    pub fn update(&mut self, piece: &[u8]) {
        self.length = self.length.wrapping_add(piece.len() as u64);
        let mut rest = piece;
        if self.filled > 0 {
            let room = self.block.get_mut(self.filled..).unwrap_or_default();
            let count = room.len().min(rest.len());
            let (taken, after) = rest.split_at(count);
            room[..count].copy_from_slice(taken);
            (self.filled, rest) = (self.filled + count, after);
            if self.filled < BLOCK {
                return;
            }
            stir(&mut self.state, &self.block);
        }
        while let Some((block, after)) = rest.split_first_chunk::<BLOCK>() {
            stir(&mut self.state, block);
            rest = after;
        }
        self.block[..rest.len()].copy_from_slice(rest);
        self.filled = rest.len();
    }

    /// Adds the padding and gives the digest.
    // RFC 3174, section 4: a bit 1, then zeros up to the last 64 bits of a block, then the length
    // of the message in bits.
    pub fn finish(mut self) -> [u8; 20] {
        let bits = self.length.wrapping_mul(8);
        // 9 bytes must fit behind the message: 0x80 and the length. Else it takes one block more.
        let blocks = if self.filled + 9 <= BLOCK { 1 } else { 2 };
        let zeros = blocks * BLOCK - self.filled - 9;
        self.update(&[0x80]);
        self.update(&[0; BLOCK][..zeros]);
        self.update(&bits.to_be_bytes());
        let mut digest = [0; 20];
        for (four, word) in digest.chunks_exact_mut(4).zip(self.state) {
            four.copy_from_slice(&word.to_be_bytes());
        }
        digest
    }
}

/// Eighty rounds with the words of one block.
// RFC 3174, section 6.1, steps a to e
fn stir(state: &mut [u32; 5], block: &[u8; BLOCK]) {
    let words = schedule(block);
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    for (twenty, (mix, constant)) in words.chunks_exact(20).zip(STAGES) {
        for word in twenty {
            let sum = a.rotate_left(5).wrapping_add(mix(b, c, d)).wrapping_add(e);
            let first = sum.wrapping_add(*word).wrapping_add(constant);
            (a, b, c, d, e) = (first, a, b.rotate_left(30), c, d);
        }
    }
    // The old state is added. Without it, the rounds could be run backwards to it.
    for (word, stirred) in state.iter_mut().zip([a, b, c, d, e]) {
        *word = word.wrapping_add(stirred);
    }
}

/// The sixteen words of the block, first byte highest, and 64 more that are made of them.
fn schedule(block: &[u8; BLOCK]) -> [u32; 80] {
    let mut words = [0; 80];
    for (word, four) in words.iter_mut().zip(block.chunks_exact(4)) {
        *word = four.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
    for t in 16..80 {
        let sum = words[t - 3] ^ words[t - 8] ^ words[t - 14] ^ words[t - 16];
        words[t] = sum.rotate_left(1);
    }
    words
}

/// What a round does with b, c and d.
type Mix = fn(u32, u32, u32) -> u32;

/// Four stages of twenty rounds: how each mixes, and the constant K that it adds.
// RFC 3174, section 5. The constants are the square roots of 2, 3, 5 and 10, times 2^30.
const STAGES: [(Mix, u32); 4] = [
    (choose, 0x5a82_7999),   // rounds 0 to 19
    (parity, 0x6ed9_eba1),   // rounds 20 to 39
    (majority, 0x8f1b_bcdc), // rounds 40 to 59
    (parity, 0xca62_c1d6),   // rounds 60 to 79
];

/// Where b has a 1, the bit of c; where it has a 0, the bit of d.
fn choose(b: u32, c: u32, d: u32) -> u32 {
    (b & c) | (!b & d)
}

/// 1 where one or three of them have a 1.
fn parity(b: u32, c: u32, d: u32) -> u32 {
    b ^ c ^ d
}

/// 1 where at least two of them have a 1.
fn majority(b: u32, c: u32, d: u32) -> u32 {
    (b & c) | (b & d) | (c & d)
}

/// Bytes as people write them: two digits each, lower case.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
    text
}
