//! Breaks good bytes in many small ways, the same ways in every run.

/// Pieces that parsers have stumbled over.
const NASTY: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\t",
    b" ",
    b"  ",
    b":",
    b",",
    b";",
    b"%",
    b"%00",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"0\r\n\r\n",
    b"ffffffffffffffff",
    b"10000000000000000",
    b"18446744073709551616",
    b"-1",
    b"+5",
    b"0x5",
    b"HTTP/1.1",
    b"HTTP/2.0",
    b"HTTP/1.0",
    b"GET / HTTP/1.1\r\n",
    b"Host: a\r\n",
    b"Host:\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b" folded\r\n",
    b";a=\"\r\n\"",
    b"http://",
    b"http://a:1/",
    b"*",
    b"[::1]",
    b"\xe2\x84\xaa",
];

/// A source of mutations. Equal seeds give equal mutations.
pub struct Mutator {
    state: u64,
}

impl Mutator {
    pub fn new(seed: u64) -> Mutator {
        // The generator stays at 0 for ever if it starts there.
        Mutator { state: seed | 1 }
    }

    /// A copy of `bytes` with one to four changes.
    pub fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut mutant = bytes.to_vec();
        for _ in 0..1 + self.below(4) {
            self.change(&mut mutant);
        }
        mutant
    }

    /// A number from 0 up to and without `limit`; 0 if `limit` is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        // xorshift64 of George Marsaglia, 2003.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) as usize % limit.max(1)
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let start = self.below(bytes.len());
        let end = (start + self.below(16)).min(bytes.len());
        match self.below(6) {
            0 if !bytes.is_empty() => bytes[start] ^= 1 << self.below(8),
            1 => bytes.truncate(start),
            2 => drop(bytes.drain(start..end)),
            3 => {
                let slice = bytes[start..end].to_vec();
                bytes.splice(start..start, slice);
            }
            4 => {
                let piece = NASTY[self.below(NASTY.len())];
                bytes.splice(start..end, piece.iter().copied());
            }
            _ => {
                let piece = NASTY[self.below(NASTY.len())];
                bytes.splice(start..start, piece.iter().copied());
            }
        }
    }
}
