//! Chapter 8: what is in a URL. RFC 3986, and the WHATWG URL Standard for queries.
//!
//! A target can only hold some of the ASCII characters, and some of those have a meaning. Every
//! other byte is written as `%` and two hexadecimal digits. Decoding it looks trivial, and is where
//! path traversal begins: the order of the steps decides what a path means.
//!
//! ```text
//!   /caf%C3%A9/a%2Fb?name=Ada+L%26&x     the target
//!   /caf%C3%A9/a%2Fb                     its path: everything before the first ?
//!   /café/a/b                            decoded, once: %2F is a slash now
//!   name=Ada+L%26&x                      its query: split at & and = first,
//!   ("name", "Ada L&") ("x", "")         then decoded, + is a space
//! ```
//!
//! Decode once, and check afterwards. Who checks first misses `%2e%2e`; who decodes twice makes
//! `..` out of `%252e%252e`.

use std::fmt;

/// Decodes `%41` to `A` and leaves all other bytes as they are; `+` too.
///
/// Error: [`UrlError::BadPercent`].
// pct-encoded = "%" HEXDIG HEXDIG        RFC 3986, section 2.1
pub fn percent_decode(text: &str) -> Result<Vec<u8>, UrlError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            decoded.push(*first);
            rest = after;
            continue;
        }
        let (byte, after) = hex_pair(after).ok_or(UrlError::BadPercent)?;
        decoded.push(byte);
        rest = after;
    }
    Ok(decoded)
}

/// The byte that two hexadecimal digits name, and what follows them.
fn hex_pair(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let ([high, low], rest) = bytes.split_first_chunk::<2>()?;
    Some((hex_digit(*high)? << 4 | hex_digit(*low)?, rest))
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Encodes every byte that is no letter, no digit and none of `kept`.
pub fn percent_encode(text: &str, kept: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.extend(['%', digit(byte >> 4), digit(byte & 0xf)]);
        }
    }
    encoded
}

// Upper case, as RFC 3986, section 2.1, asks of whoever encodes.
fn digit(half: u8) -> char {
    char::from(if half < 10 { b'0' + half } else { b'A' + half - 10 })
}

/// The path as an application wants it: decoded once, and text.
///
/// Errors: [`UrlError::BadPercent`], [`UrlError::NotUtf8`], and [`UrlError::Nul`], because a file
/// name ends at a NUL for the operating system and does not for us.
pub fn decoded_path(path: &str) -> Result<String, UrlError> {
    let bytes = percent_decode(path)?;
    if bytes.contains(&0) {
        return Err(UrlError::Nul);
    }
    String::from_utf8(bytes).map_err(|_| UrlError::NotUtf8)
}

/// The normal form of a path: `.` and `..` are carried out, and nothing is above `/`.
///
/// Call it with a decoded path, or `%2e%2e` stays what it is.
///
/// | path | normal form |
/// |---|---|
/// | `/a/./b/../c` | `/a/c` |
/// | `/a/b/..` | `/a/` |
/// | `/../../etc` | `/etc` |
/// | `/a//b` | `/a//b` |
// RFC 3986, section 5.2.4
pub fn remove_dot_segments(path: &str) -> String {
    let mut output: Vec<&str> = Vec::new();
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            // The first segment is the empty text before the first slash; it stays.
            ".." if output.len() > 1 => {
                output.pop();
            }
            ".." => {}
            other => output.push(other),
        }
        // `/a/..` names the folder, and a folder ends in a slash.
        if is_last && matches!(segment, "." | "..") {
            output.push("");
        }
    }
    output.join("/")
}

/// How much a query may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryLimits {
    /// Number of pairs: each costs memory far above the byte or two that it takes to send.
    pub pairs: usize,
}

impl Default for QueryLimits {
    fn default() -> QueryLimits {
        QueryLimits { pairs: 1_000 }
    }
}

/// The pairs of a query or of a form, in order. A name may occur more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads `name=value&name=value`.
    ///
    /// It is forgiving where browsers are (WHATWG URL Standard, section 5.1): a `%` without two
    /// digits is a percent sign, bytes that are no UTF-8 become U+FFFD, a name without `=` has an
    /// empty value, empty parts are skipped. The one error is [`UrlError::TooManyPairs`].
    pub fn parse(text: &str, limits: &QueryLimits) -> Result<Query, UrlError> {
        let mut pairs = Vec::new();
        for part in text.split('&') {
            if part.is_empty() {
                continue;
            }
            if pairs.len() == limits.pairs {
                return Err(UrlError::TooManyPairs);
            }
            // Split first: an encoded & or = is data, and a decoded one would be a separator.
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            pairs.push((form_decode(name), form_decode(value)));
        }
        Ok(Query { pairs })
    }

    /// The value of the first pair of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.iter().find(|(other, _)| *other == name)?;
        Some(value)
    }

    /// The values of all pairs of that name, in order.
    pub fn get_all(&self, name: &str) -> impl Iterator<Item = &str> {
        let same_name = self.iter().filter(move |(other, _)| *other == name);
        same_name.map(|(_, value)| value)
    }

    /// All pairs, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

fn form_decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let pair = if *first == b'%' { hex_pair(after) } else { None };
        let (byte, after) = match (first, pair) {
            (_, Some((byte, after))) => (byte, after),
            (b'+', None) => (b' ', after),
            (byte, None) => (*byte, after),
        };
        decoded.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// What is wrong with a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UrlError {
    /// A `%` is not followed by two hexadecimal digits.
    BadPercent,
    /// The decoded path is not UTF-8.
    NotUtf8,
    /// The decoded path holds a NUL.
    Nul,
    /// There are more pairs than [`QueryLimits::pairs`].
    TooManyPairs,
}

impl UrlError {
    /// The rule that is broken.
    pub fn rule(&self) -> &'static str {
        match self {
            UrlError::BadPercent => "RFC 3986, section 2.1",
            UrlError::NotUtf8 => "RFC 3986, section 2.5",
            UrlError::Nul => "RFC 3986, section 7.3",
            UrlError::TooManyPairs => "RFC 9110, section 17.5",
        }
    }
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UrlError::BadPercent => "a % is not followed by two hexadecimal digits",
            UrlError::NotUtf8 => "the path is not UTF-8",
            UrlError::Nul => "the path holds a NUL",
            UrlError::TooManyPairs => "there are too many pairs of name and value",
        })
    }
}

impl std::error::Error for UrlError {}
