//! Chapter 6: headers. RFC 9110, section 5, and RFC 9112, section 5.
//!
//! Every message carries a list of named values: who is asked, how long the body is, what the
//! client can read. The list looks harmless. But a name with a space in it, or a value with a line
//! end in it, is read one way by one program and another way by the next, and in that gap one
//! request hides inside another. So names and values are types here: whoever holds a [`Token`] or a
//! [`FieldValue`] holds bytes that were checked once and need no second look.
//!
//! ```text
//!   Content-Type :   text/html; a="b"     CR LF
//!   |            |OWS|                |OWS|
//!   field-name   colon  field-value       line end
//!   a token, no space   any text and tabs, no other control byte
//! ```
//!
//! [`Headers`] keeps the fields in the order they came. All bytes lie in one buffer, and a span
//! tells where each field's name ends and where its value ends:
//!
//! ```text
//!   buffer   Hostexample.orgAccept*/*Accepttext/html
//!   spans    0..4..15       15..21.24 24..30....39
//! ```

use std::fmt;

/// A name made of token characters: a field name, a method, a list member. Never empty.
///
/// Two tokens are equal if they differ only in the case of ASCII letters, as field names do
/// (RFC 9110, section 5.1). Compare [`Token::as_str`] where case matters.
#[derive(Clone, Copy)]
pub struct Token<'a>(&'a [u8]);

impl<'a> Token<'a> {
    /// Checks `name`. Errors: [`FieldError::EmptyName`], [`FieldError::NameByte`].
    // token = 1*tchar        RFC 9110, section 5.6.2
    pub fn new(name: &'a [u8]) -> Result<Token<'a>, FieldError> {
        if name.is_empty() {
            return Err(FieldError::EmptyName);
        }
        if !name.iter().all(|byte| is(*byte, TCHAR)) {
            return Err(FieldError::NameByte);
        }
        Ok(Token(name))
    }

    /// A token of our own, checked while the program is compiled.
    pub const fn constant(name: &'static str) -> Token<'static> {
        let bytes = name.as_bytes();
        assert!(!bytes.is_empty(), "a token holds at least one character");
        let mut at = 0;
        while at < bytes.len() {
            assert!(is(bytes[at], TCHAR), "not a token character");
            at += 1;
        }
        Token(bytes)
    }

    /// The bytes of the token.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The token as it was written.
    pub fn as_str(self) -> &'a str {
        // Token characters are ASCII, so the conversion always succeeds.
        std::str::from_utf8(self.0).unwrap_or_default()
    }
}

impl PartialEq for Token<'_> {
    fn eq(&self, other: &Token<'_>) -> bool {
        self.0.eq_ignore_ascii_case(other.0)
    }
}

impl Eq for Token<'_> {}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A field's value, without the whitespace around it. It may be empty.
///
/// It holds no CR, no LF, no NUL and no other control byte except HTAB, so no value can end its
/// line early. Bytes from 0x80 up are allowed and have no meaning of their own (obs-text).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FieldValue<'a>(&'a [u8]);

impl<'a> FieldValue<'a> {
    /// Trims the whitespace around `value` and checks the rest. Error: [`FieldError::ValueByte`].
    // field-value   = *field-content        RFC 9110, section 5.5
    // field-content = field-vchar [ 1*( SP / HTAB / field-vchar ) field-vchar ]
    // field-vchar   = VCHAR / obs-text
    pub fn new(value: &'a [u8]) -> Result<FieldValue<'a>, FieldError> {
        let value = trim_whitespace(value);
        let mut rest = value;
        while let Some(at) = find_control(rest) {
            let Some((b'\t', after)) = rest.get(at..).and_then(<[u8]>::split_first) else {
                return Err(FieldError::ValueByte);
            };
            rest = after;
        }
        Ok(FieldValue(value))
    }

    /// A value of our own, checked while the program is compiled.
    pub const fn constant(value: &'static str) -> FieldValue<'static> {
        let bytes = value.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            assert!(!is(bytes[at], CONTROL), "a control byte in a field value");
            at += 1;
        }
        if !bytes.is_empty() {
            let (first, last) = (bytes[0], bytes[bytes.len() - 1]);
            assert!(first != b' ' && last != b' ', "a space around a field value");
        }
        FieldValue(bytes)
    }

    /// The bytes of the value.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The value as text, or `None` if it is not UTF-8.
    pub fn as_str(self) -> Option<&'a str> {
        std::str::from_utf8(self.0).ok()
    }

    /// The members of a comma-separated list, trimmed; empty members are skipped.
    ///
    /// A comma always separates, also inside a quoted string. That is right for lists of tokens,
    /// such as `Connection`, and wrong for lists that may quote.
    // #element = [ element ] *( OWS "," OWS [ element ] )        RFC 9110, section 5.6.1
    pub fn members(self) -> impl Iterator<Item = &'a [u8]> {
        let parts = self.0.split(|byte| *byte == b',');
        parts.map(trim_whitespace).filter(|part| !part.is_empty())
    }
}

impl fmt::Debug for FieldValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// The fields of a message, in order. A name may occur more than once.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    buffer: Vec<u8>,
    spans: Vec<Span>,
}

/// The first field makes room for an answer's fields. The many of a browser double it once or twice.
const FIRST_BYTES: usize = 256;
const FIRST_FIELDS: usize = 8;

/// One field: its name is `start..name_end` of the buffer, its value `name_end..value_end`.
#[derive(Clone, PartialEq, Eq)]
struct Span {
    start: usize,
    name_end: usize,
    value_end: usize,
}

impl Headers {
    /// An empty list. It allocates nothing before the first field.
    pub fn new() -> Headers {
        Headers::default()
    }

    /// Adds a field at the end, beside any field of the same name.
    pub fn push(&mut self, name: Token<'_>, value: FieldValue<'_>) {
        if self.spans.is_empty() {
            self.buffer.reserve(FIRST_BYTES);
            self.spans.reserve(FIRST_FIELDS);
        }
        let start = self.buffer.len();
        self.buffer.extend_from_slice(name.0);
        let name_end = self.buffer.len();
        self.buffer.extend_from_slice(value.0);
        let value_end = self.buffer.len();
        self.spans.push(Span { start, name_end, value_end });
    }

    /// Adds a field whose parts are plain text, as an application has them.
    ///
    /// A name or value that could break the message is an error, never written: this is what makes
    /// header injection impossible.
    pub fn try_push(&mut self, name: &str, value: &str) -> Result<(), FieldError> {
        self.push(Token::new(name.as_bytes())?, FieldValue::new(value.as_bytes())?);
        Ok(())
    }

    /// Removes every field of that name and adds this one at the end.
    pub fn set(&mut self, name: Token<'_>, value: FieldValue<'_>) {
        self.remove(name);
        self.push(name, value);
    }

    /// Removes every field of that name.
    pub fn remove(&mut self, name: Token<'_>) {
        if !self.contains(name) {
            return;
        }
        let mut kept = Headers::new();
        for (other, value) in self.iter() {
            if other != name {
                kept.push(other, value);
            }
        }
        *self = kept;
    }

    /// The value of the first field of that name.
    pub fn get(&self, name: Token<'_>) -> Option<FieldValue<'_>> {
        let (_, value) = self.iter().find(|(other, _)| *other == name)?;
        Some(value)
    }

    /// The values of all fields of that name, in order.
    pub fn get_all(&self, name: Token<'_>) -> impl Iterator<Item = FieldValue<'_>> {
        let same_name = self.iter().filter(move |(other, _)| *other == name);
        same_name.map(|(_, value)| value)
    }

    /// The list members of all fields of that name, in order; see [`FieldValue::members`].
    ///
    /// Several lines of one list field mean the same as one line with commas:
    /// RFC 9110, section 5.3.
    pub fn members(&self, name: Token<'_>) -> impl Iterator<Item = &[u8]> {
        self.get_all(name).flat_map(FieldValue::members)
    }

    /// Whether a field of that name is present.
    pub fn contains(&self, name: Token<'_>) -> bool {
        self.get(name).is_some()
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Token<'_>, FieldValue<'_>)> {
        self.spans.iter().map(|span| {
            let name = self.buffer.get(span.start..span.name_end);
            let value = self.buffer.get(span.name_end..span.value_end);
            (Token(name.unwrap_or_default()), FieldValue(value.unwrap_or_default()))
        })
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Removes all fields and keeps the memory.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.spans.clear();
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Reads one field line, without its line end.
///
/// Errors: every [`FieldError`]. A line that starts with whitespace is refused. It once continued
/// the line before it (obs-fold), and programs disagree about what it means:
/// RFC 9112, section 5.2.
// field-line = field-name ":" OWS field-value OWS        RFC 9112, section 5
pub fn field_line(line: &[u8]) -> Result<(Token<'_>, FieldValue<'_>), FieldError> {
    let name_end = line.iter().position(|byte| !is(*byte, TCHAR));
    let Some((name, rest)) = name_end.and_then(|at| line.split_at_checked(at)) else {
        return Err(FieldError::MissingColon);
    };
    match rest {
        [b':', ..] if name.is_empty() => Err(FieldError::EmptyName),
        [b':', value @ ..] => Ok((Token(name), FieldValue::new(value)?)),
        [b' ' | b'\t', ..] if name.is_empty() => Err(FieldError::FoldedLine),
        // RFC 9112, section 5.1: whitespace here has led to holes in routing, so it is refused.
        [b' ' | b'\t', after @ ..] if trim_whitespace(after).first() == Some(&b':') => {
            Err(FieldError::SpaceBeforeColon)
        }
        _ if !rest.contains(&b':') => Err(FieldError::MissingColon),
        _ => Err(FieldError::NameByte),
    }
}

/// Where the first control byte stands: 0x00 to 0x1F (so HTAB, LF and CR too) or 0x7F.
///
/// Most bytes of a head are not control bytes, so eight of them are looked at in one step.
pub fn find_control(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let mut skipped = 0;
    while let Some((eight, after)) = rest.split_first_chunk::<8>() {
        let marks = control_marks(u64::from_le_bytes(*eight));
        if marks != 0 {
            return Some(skipped + marks.trailing_zeros() as usize / 8);
        }
        rest = after;
        skipped += 8;
    }
    let at = rest.iter().position(|byte| is(*byte, CONTROL))?;
    Some(skipped + at)
}

/// Marks the control bytes among the eight of `word` by their top bits; the lowest mark is exact.
///
/// A byte below 0x80, minus 0x20, gets a top bit only if it was below 0x20. A DEL, turned into 0,
/// gets one when 1 is taken away. A byte from 0x80 up had the bit before: `& !` masks it out. A
/// subtraction that borrows takes 1 from the next higher byte too, so a mark may be wrong, but only
/// above a true one.
fn control_marks(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const TOP: u64 = 0x80 * EACH;
    let below_space = word.wrapping_sub(0x20 * EACH) & !word;
    let delete = word ^ (0x7F * EACH);
    let is_delete = delete.wrapping_sub(EACH) & !delete;
    (below_space | is_delete) & TOP
}

/// Removes SP and HTAB at both ends. `str::trim` would remove line ends and form feeds as well.
// OWS = *( SP / HTAB )        RFC 9110, section 5.6.3
fn trim_whitespace(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The byte may stand in a token.
const TCHAR: u8 = 1;
/// The byte is a control byte.
const CONTROL: u8 = 2;

/// What each of the 256 bytes may be: a set of the bits above.
static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte: u8 = 0;
    while byte < 128 {
        if byte.is_ascii_alphanumeric() {
            table[byte as usize] |= TCHAR;
        }
        if byte.is_ascii_control() {
            table[byte as usize] |= CONTROL;
        }
        byte += 1;
    }
    // tchar = these, DIGIT and ALPHA        RFC 9110, section 5.6.2
    let marks = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] |= TCHAR;
        at += 1;
    }
    table
}

const fn is(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldError {
    /// Nothing stands before the colon.
    EmptyName,
    /// A name holds a byte that is no token character.
    NameByte,
    /// Whitespace stands between the name and the colon.
    SpaceBeforeColon,
    /// A field line has no colon.
    MissingColon,
    /// A field line starts with whitespace.
    FoldedLine,
    /// A value holds a control byte other than HTAB.
    ValueByte,
}

impl FieldError {
    /// The rule that is broken.
    pub fn rule(&self) -> &'static str {
        match self {
            FieldError::EmptyName | FieldError::NameByte => "RFC 9110, section 5.1",
            FieldError::SpaceBeforeColon => "RFC 9112, section 5.1",
            FieldError::MissingColon => "RFC 9112, section 5",
            FieldError::FoldedLine => "RFC 9112, section 5.2",
            FieldError::ValueByte => "RFC 9110, section 5.5",
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FieldError::EmptyName => "a field has no name",
            FieldError::NameByte => "a field name holds a byte that is not a token character",
            FieldError::SpaceBeforeColon => "whitespace stands before the colon of a field",
            FieldError::MissingColon => "a field line has no colon",
            FieldError::FoldedLine => "a field line starts with whitespace",
            FieldError::ValueByte => "a field value holds a control byte",
        })
    }
}

impl std::error::Error for FieldError {}

/// `Allow`: RFC 9110, section 10.2.1.
pub const ALLOW: Token<'static> = Token::constant("Allow");
/// `Connection`: RFC 9110, section 7.6.1.
pub const CONNECTION: Token<'static> = Token::constant("Connection");
/// `Content-Length`: RFC 9110, section 8.6.
pub const CONTENT_LENGTH: Token<'static> = Token::constant("Content-Length");
/// `Content-Type`: RFC 9110, section 8.3.
pub const CONTENT_TYPE: Token<'static> = Token::constant("Content-Type");
/// `Date`: RFC 9110, section 6.6.1.
pub const DATE: Token<'static> = Token::constant("Date");
/// `Expect`: RFC 9110, section 10.1.1.
pub const EXPECT: Token<'static> = Token::constant("Expect");
/// `Host`: RFC 9110, section 7.2.
pub const HOST: Token<'static> = Token::constant("Host");
/// `Retry-After`: RFC 9110, section 10.2.3.
pub const RETRY_AFTER: Token<'static> = Token::constant("Retry-After");
/// `Server`: RFC 9110, section 10.2.4.
pub const SERVER: Token<'static> = Token::constant("Server");
/// `Trailer`: RFC 9110, section 6.6.2.
pub const TRAILER: Token<'static> = Token::constant("Trailer");
/// `Transfer-Encoding`: RFC 9112, section 6.1.
pub const TRANSFER_ENCODING: Token<'static> = Token::constant("Transfer-Encoding");
/// `Upgrade`: RFC 9110, section 7.8.
pub const UPGRADE: Token<'static> = Token::constant("Upgrade");
