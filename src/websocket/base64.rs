//! Chapter 29: Base64. RFC 4648, section 4.
//!
//! A field value is text, and a digest is 20 bytes of any kind. Base64 writes bytes with 64
//! harmless characters. A character then carries 6 bits, so 3 bytes become 4 characters:
//!
//! ```text
//!   bytes         'M' 4d              'a' 61              'n' 6e
//!   bits       0 1 0 0 1 1 0 1     0 1 1 0 0 0 0 1     0 1 1 0 1 1 1 0
//!   in sixes   0 1 0 0 1 1|0 1     0 1 1 0|0 0 0 1     0 1|1 0 1 1 1 0
//!   numbers        19            22              5              46
//!   text           'T'           'W'            'F'             'u'
//! ```
//!
//! One byte left over needs two characters, two need three; `=` fills the group of four. The bits
//! that the last character has and the bytes do not need are zero.

use std::fmt;

/// What the numbers 0 to 63 are written as. RFC 4648, section 4, table 1.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Writes the bytes as Base64, with padding and without line ends.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut bits: u32 = 0;
        for at in 0..3 {
            bits = bits << 8 | u32::from(group.get(at).copied().unwrap_or(0));
        }
        // n bytes need n + 1 characters.
        for at in 0..4 {
            let six = bits >> (18 - 6 * at) & 63;
            let digit = if at <= group.len() { ALPHABET[six as usize] } else { b'=' };
            text.push(char::from(digit));
        }
    }
    text
}

/// Reads Base64. There is one text for each sequence of bytes, and no other is accepted.
///
/// # Errors
/// Every [`Base64Error`].
pub fn decode(text: &[u8]) -> Result<Vec<u8>, Base64Error> {
    let digits = match text {
        [digits @ .., b'=', b'='] | [digits @ .., b'='] => digits,
        digits => digits,
    };
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    // A queue of bits: characters add six on the right, bytes leave on the left.
    let (mut bits, mut count) = (0u32, 0);
    for digit in digits {
        bits = bits << 6 | u32::from(number(*digit)?);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    // RFC 4648, section 3.2: padding must be there.
    if text.len() % 4 != 0 {
        return Err(Base64Error::Length);
    }
    if bits != 0 {
        return Err(Base64Error::UnusedBits);
    }
    Ok(bytes)
}

fn number(digit: u8) -> Result<u8, Base64Error> {
    match (NUMBERS[usize::from(digit)], digit) {
        (NONE, b'=') => Err(Base64Error::Padding),
        (NONE, b'\r' | b'\n') => Err(Base64Error::LineEnd),
        (NONE, _) => Err(Base64Error::ForeignCharacter),
        (number, _) => Ok(number),
    }
}

/// In [`NUMBERS`]: this byte is not in the alphabet.
const NONE: u8 = 0xff;

/// The alphabet the other way around.
static NUMBERS: [u8; 256] = numbers();

const fn numbers() -> [u8; 256] {
    let mut table = [NONE; 256];
    let mut number = 0;
    while number < ALPHABET.len() {
        table[ALPHABET[number] as usize] = number as u8;
        number += 1;
    }
    table
}

/// What is wrong with a text that should be Base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base64Error {
    /// The length is not a multiple of four.
    Length,
    /// A `=` stands before the end, or there are more than two.
    Padding,
    /// A character is not in the alphabet.
    ForeignCharacter,
    /// A line ends in it; mail needs that, HTTP does not.
    LineEnd,
    /// The last character has bits that no byte needs, and they are not zero.
    UnusedBits,
}

impl Base64Error {
    /// The rule that is broken.
    pub fn rule(&self) -> &'static str {
        match self {
            Base64Error::Length | Base64Error::Padding => "RFC 4648, section 3.2",
            Base64Error::ForeignCharacter => "RFC 4648, section 3.3",
            Base64Error::LineEnd => "RFC 4648, section 3.1",
            Base64Error::UnusedBits => "RFC 4648, section 3.5",
        }
    }
}

impl fmt::Display for Base64Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Base64Error::Length => "the length is not a multiple of four",
            Base64Error::Padding => "a = stands where no padding may be",
            Base64Error::ForeignCharacter => "a character is not one of the 64",
            Base64Error::LineEnd => "there is a line end in it",
            Base64Error::UnusedBits => "the last character has bits that belong to no byte",
        })
    }
}

impl std::error::Error for Base64Error {}
