//! Chapter 9: the body. RFC 9112, sections 6 and 7.
//!
//! After the head comes the body, and after the body the next request. Whoever is wrong about where
//! the body ends takes a part of it for a request that nobody sent. An attacker who can make two
//! programs on the way disagree about that end hides one request inside another: request
//! smuggling. So the head must say it in exactly one way:
//!
//! ```text
//!   Content-Length: 8 CRLF CRLF             name=Ada             8 bytes
//!   Transfer-Encoding: chunked CRLF CRLF    8 CRLF name=Ada CRLF 0 CRLF CRLF
//!   neither                                 nothing
//! ```
//!
//! A chunked body is a row of chunks, each with its size before it. The reader goes through these
//! states; the last chunk is the one of size 0:
//!
//! ```text
//!   5;note=x CR LF    hello    CR LF    0 CR LF    Checked: yes CR LF    CR LF
//!   ChunkSize         Data     ChunkEnd ChunkSize  Trailers ...........  -> Finished
//! ```
//!
//! Nothing is ever allocated by a length that the client declares: the caller brings the memory,
//! and only as much as has arrived is stored in it.

use crate::http::headers::{CONTENT_LENGTH, TRANSFER_ENCODING, field_line, find_control};
use crate::http::headers::{FieldError, Headers, Token};
use crate::http::request::{RequestHead, Version};
use std::fmt;
use std::io::{self, BufRead};

/// How the end of the body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// The body has this many bytes.
    Length(u64),
    /// The body says it itself, chunk by chunk.
    Chunked,
}

impl Framing {
    /// Reads the framing of a request from its head.
    ///
    /// Errors: [`BodyError::BothFramings`], [`BodyError::ChunkedInHttp10`],
    /// [`BodyError::UnknownCoding`], [`BodyError::ChunkedNotAlone`],
    /// [`BodyError::ManyContentLengths`], [`BodyError::InvalidContentLength`] and
    /// [`BodyError::TooLarge`]. After each of them the connection must be closed.
    // RFC 9112, section 6.3
    pub fn of(head: &RequestHead) -> Result<Framing, BodyError> {
        let mut codings = head.headers.get_all(TRANSFER_ENCODING);
        let Some(coding) = codings.next() else {
            return Framing::by_length(&head.headers);
        };
        // RFC 9112, section 6.1: a server may refuse both headers together; we always do.
        if head.headers.contains(CONTENT_LENGTH) {
            return Err(BodyError::BothFramings);
        }
        // The same section: chunked in HTTP/1.0 is faulty framing.
        if head.version == Version::Http10 {
            return Err(BodyError::ChunkedInHttp10);
        }
        // RFC 9110, section 5.6.1 has us ignore empty list members. Here we do not: some programs
        // read `chunked,` as chunked and some do not, so it is refused.
        let chunked = |bytes: &[u8]| bytes.eq_ignore_ascii_case(b"chunked");
        if chunked(coding.as_bytes()) && codings.next().is_none() {
            return Ok(Framing::Chunked);
        }
        match head.headers.members(TRANSFER_ENCODING).next() {
            Some(first) if !chunked(first) => Err(BodyError::UnknownCoding),
            _ => Err(BodyError::ChunkedNotAlone),
        }
    }

    // Content-Length = 1*DIGIT        RFC 9110, section 8.6
    fn by_length(headers: &Headers) -> Result<Framing, BodyError> {
        let mut lengths = headers.get_all(CONTENT_LENGTH);
        let Some(length) = lengths.next() else {
            return Ok(Framing::None);
        };
        // Two lengths, even equal ones: RFC 9112, section 6.3 lets us refuse, and we do.
        if lengths.next().is_some() {
            return Err(BodyError::ManyContentLengths);
        }
        let digits = length.as_bytes();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(BodyError::InvalidContentLength);
        }
        // What needs more than 64 bits is over any limit.
        let length = number(digits, 10).ok_or(BodyError::TooLarge)?;
        Ok(Framing::Length(length))
    }
}

/// A number in that base without sign or space; `None` if it is none or needs more than 64 bits.
fn number(digits: &[u8], base: u32) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let mut value: u64 = 0;
    for byte in digits {
        let digit = char::from(*byte).to_digit(base)?;
        value = value.checked_mul(base.into())?.checked_add(digit.into())?;
    }
    Some(value)
}

/// How much a body may hold. A client must not make the server read or remember without end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyLimits {
    /// Bytes of content. The default fits a form with a few pictures.
    pub body: u64,
    /// Bytes in the line before a chunk, without its line end: a size is at most 16, the rest are
    /// extensions, which nobody uses.
    pub chunk_line: usize,
    /// Bytes of all trailer lines; and again as many bytes of all chunk extensions. Without it a
    /// sender of tiny chunks could keep the server busy with bytes that count as no content.
    pub trailers: usize,
}

impl Default for BodyLimits {
    fn default() -> BodyLimits {
        BodyLimits { body: 16 * 1024 * 1024, chunk_line: 256, trailers: 8 * 1024 }
    }
}

/// Reads one body from a source of bytes and stops at its end.
#[derive(Debug)]
pub struct BodyReader {
    limits: BodyLimits,
    state: State,
    chunked: bool,
    received: u64,
    extension_bytes: usize,
    trailer_bytes: usize,
    line: Vec<u8>,
    trailers: Headers,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    ChunkSize,
    /// This many bytes of the body or chunk are still to come: one at least.
    Data(u64),
    ChunkEnd,
    Trailers,
    Finished,
    Failed(BodyError),
}

impl BodyReader {
    /// A reader for the body after a head with that framing.
    ///
    /// Error: [`BodyError::TooLarge`], so that a body over the limit is refused before it is sent.
    pub fn new(framing: Framing, limits: BodyLimits) -> Result<BodyReader, BodyError> {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Finished,
            Framing::Length(length) if length > limits.body => return Err(BodyError::TooLarge),
            Framing::Length(length) => State::Data(length),
            Framing::Chunked => State::ChunkSize,
        };
        let chunked = framing == Framing::Chunked;
        Ok(BodyReader { limits, state, chunked, ..BodyReader::empty() })
    }

    /// A reader for a body that is not there.
    pub fn empty() -> BodyReader {
        BodyReader {
            limits: BodyLimits::default(),
            state: State::Finished,
            chunked: false,
            received: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            line: Vec::new(),
            trailers: Headers::new(),
        }
    }

    /// Fills the front of `out` with content and returns how many bytes; 0 is the end of the body.
    ///
    /// It takes no byte after the body from `source`. The end of `source` inside the body is
    /// [`BodyError::CutShort`], never an end. After an error every later call returns the same
    /// error. An empty `out` reads nothing and returns 0.
    pub fn read(&mut self, source: &mut impl BufRead, out: &mut [u8]) -> Result<usize, BodyError> {
        if out.is_empty() {
            return Ok(0);
        }
        let result = self.read_content(source, out);
        if let Err(error) = &result {
            self.state = State::Failed(error.clone());
        }
        result
    }

    /// Whether the whole body, with its trailers, has been read.
    pub fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    /// The fields after the last chunk; complete once [`BodyReader::is_finished`].
    ///
    /// They are never merged into the head: a `Host` or `Content-Length` in a trailer says nothing,
    /// so none needs to be forbidden (RFC 9110, section 6.5.1).
    pub fn trailers(&self) -> &Headers {
        &self.trailers
    }

    /// The bytes of content read so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The bytes of content still to come; `None` if only the body itself will tell.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Finished => Some(0),
            State::Data(left) if !self.chunked => Some(left),
            _ => None,
        }
    }

    // chunked-body = *chunk last-chunk trailer-section CRLF        RFC 9112, section 7.1
    // chunk        = chunk-size [ chunk-ext ] CRLF chunk-data CRLF
    fn read_content(
        &mut self,
        source: &mut impl BufRead,
        out: &mut [u8],
    ) -> Result<usize, BodyError> {
        loop {
            self.state = match &self.state {
                State::Finished => return Ok(0),
                State::Failed(error) => return Err(error.clone()),
                State::Data(left) => return self.read_data(source, out, *left),
                State::ChunkSize => self.read_chunk_size(source)?,
                State::ChunkEnd => {
                    expect(source, b'\r', BodyError::ChunkWithoutEnd)?;
                    expect(source, b'\n', BodyError::ChunkWithoutEnd)?;
                    State::ChunkSize
                }
                State::Trailers => self.read_trailer(source)?,
            }
        }
    }

    fn read_data(
        &mut self,
        source: &mut impl BufRead,
        out: &mut [u8],
        left: u64,
    ) -> Result<usize, BodyError> {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
        let room = out.get_mut(..most).unwrap_or_default();
        let count = retry(|| source.read(room))?;
        if count == 0 {
            return Err(BodyError::CutShort);
        }
        let moved = count as u64;
        self.received = self.received.saturating_add(moved);
        self.state = match left.saturating_sub(moved) {
            0 if self.chunked => State::ChunkEnd,
            0 => State::Finished,
            left => State::Data(left),
        };
        Ok(count)
    }

    // chunk-size = 1*HEXDIG        RFC 9112, section 7.1
    fn read_chunk_size(&mut self, source: &mut impl BufRead) -> Result<State, BodyError> {
        self.read_line(source, self.limits.chunk_line, BodyError::ChunkLineTooLong)?;
        let digits = self.line.iter().take_while(|byte| byte.is_ascii_hexdigit());
        let (size, extension) = self.line.split_at(digits.count());
        if size.len() > 16 {
            return Err(BodyError::ChunkSizeTooLong);
        }
        let size = number(size, 16).ok_or(BodyError::InvalidChunkSize)?;
        check_extension(extension)?;
        self.extension_bytes = self.extension_bytes.saturating_add(extension.len());
        if self.extension_bytes > self.limits.trailers {
            return Err(BodyError::ExtensionsTooLong);
        }
        match self.received.checked_add(size) {
            _ if size == 0 => Ok(State::Trailers),
            Some(total) if total <= self.limits.body => Ok(State::Data(size)),
            _ => Err(BodyError::TooLarge),
        }
    }

    // trailer-section = *( field-line CRLF )        RFC 9112, section 7.1.2
    fn read_trailer(&mut self, source: &mut impl BufRead) -> Result<State, BodyError> {
        let room = self.limits.trailers.saturating_sub(self.trailer_bytes);
        self.read_line(source, room, BodyError::TrailersTooLong)?;
        if self.line.is_empty() {
            return Ok(State::Finished);
        }
        let (name, value) = field_line(&self.line).map_err(BodyError::Trailer)?;
        self.trailers.push(name, value);
        self.trailer_bytes = self.trailer_bytes.saturating_add(self.line.len() + 2);
        Ok(State::Trailers)
    }

    /// Reads one line of at most `limit` bytes into `self.line`, without its CRLF.
    ///
    /// Lines between chunks are a few bytes long, so they are read one byte at a time. As in a
    /// head, only CRLF ends a line. RFC 9112, section 2.2 lets a lone LF end a start line or a
    /// field, but no chunk line: an erratum that asked for it (7633) was rejected.
    fn read_line(
        &mut self,
        source: &mut impl BufRead,
        limit: usize,
        too_long: BodyError,
    ) -> Result<(), BodyError> {
        self.line.clear();
        loop {
            match next_byte(source)? {
                b'\r' => return expect(source, b'\n', BodyError::ChunkedBareReturn),
                b'\n' => return Err(BodyError::ChunkedBareLineFeed),
                b'\t' => self.line.push(b'\t'),
                byte if find_control(&[byte]).is_some() => {
                    return Err(BodyError::ChunkedControlByte);
                }
                byte => self.line.push(byte),
            }
            if self.line.len() > limit {
                return Err(too_long);
            }
        }
    }
}

/// Extensions are ignored, but what stands there must look like one.
// chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )
//                                                        RFC 9112, section 7.1.1
fn check_extension(extension: &[u8]) -> Result<(), BodyError> {
    if extension.is_empty() {
        return Ok(());
    }
    let rest = extension.trim_ascii_start();
    // `5 5` or `5g` is no extension, but a size that others may read in another way.
    let Some((b';', name)) = rest.split_first() else {
        return Err(BodyError::InvalidChunkSize);
    };
    match name.trim_ascii_start().first() {
        Some(first) if Token::new(&[*first]).is_ok() => Ok(()),
        _ => Err(BodyError::InvalidExtension),
    }
}

fn next_byte(source: &mut impl BufRead) -> Result<u8, BodyError> {
    let byte = match retry(|| source.fill_buf().map(|bytes| bytes.first().copied()))? {
        Some(byte) => byte,
        None => return Err(BodyError::CutShort),
    };
    source.consume(1);
    Ok(byte)
}

fn expect(source: &mut impl BufRead, byte: u8, error: BodyError) -> Result<(), BodyError> {
    if next_byte(source)? == byte { Ok(()) } else { Err(error) }
}

/// Calls again while a signal interrupts the call.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> Result<T, BodyError> {
    loop {
        match call() {
            Ok(value) => return Ok(value),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(BodyError::Source(error.kind())),
        }
    }
}

/// What is wrong with a body, and the status that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyError {
    /// The head has both `Content-Length` and `Transfer-Encoding`. 400.
    BothFramings,
    /// A request of HTTP/1.0 has a `Transfer-Encoding`. 400.
    ChunkedInHttp10,
    /// The body is encoded in a way this server does not know. 501.
    UnknownCoding,
    /// The `Transfer-Encoding` begins with `chunked` and goes on, or is empty. 400.
    ChunkedNotAlone,
    /// There is more than one `Content-Length`. 400.
    ManyContentLengths,
    /// The `Content-Length` is not made of digits only. 400.
    InvalidContentLength,
    /// The body is larger than [`BodyLimits::body`]. 413.
    TooLarge,
    /// A chunk size is missing, or something else than an extension follows it. 400.
    InvalidChunkSize,
    /// A chunk size has more than 16 digits; leading zeros count. 400.
    ChunkSizeTooLong,
    /// A chunk extension has no name. 400.
    InvalidExtension,
    /// The line before a chunk is longer than [`BodyLimits::chunk_line`]. 400.
    ChunkLineTooLong,
    /// All chunk extensions together are longer than [`BodyLimits::trailers`]. 400.
    ExtensionsTooLong,
    /// The data of a chunk is not followed by CRLF. 400.
    ChunkWithoutEnd,
    /// A line between chunks ends in LF without CR. 400.
    ChunkedBareLineFeed,
    /// In a line between chunks a CR is not followed by LF. 400.
    ChunkedBareReturn,
    /// A line between chunks holds a control byte. 400.
    ChunkedControlByte,
    /// A trailer field is wrong. 400.
    Trailer(FieldError),
    /// All trailers together are longer than [`BodyLimits::trailers`]. 431.
    TrailersTooLong,
    /// The connection ended inside the body. 400, if anybody still listens.
    CutShort,
    /// The source of the bytes failed, for example because it took too long.
    Source(io::ErrorKind),
}

impl BodyError {
    /// The rule that is broken.
    pub fn rule(&self) -> &'static str {
        use BodyError::*;
        match self {
            BothFramings | ChunkedInHttp10 | UnknownCoding => "RFC 9112, section 6.1",
            ChunkedNotAlone | ManyContentLengths => "RFC 9112, section 6.3",
            InvalidContentLength => "RFC 9110, section 8.6",
            TooLarge => "RFC 9110, section 15.5.14",
            InvalidChunkSize | ChunkSizeTooLong | ChunkWithoutEnd => "RFC 9112, section 7.1",
            InvalidExtension | ChunkLineTooLong | ExtensionsTooLong => "RFC 9112, section 7.1.1",
            ChunkedBareLineFeed | ChunkedBareReturn | ChunkedControlByte => "RFC 9112, section 2.2",
            Trailer(error) => error.rule(),
            TrailersTooLong => "RFC 6585, section 5",
            CutShort | Source(_) => "RFC 9112, section 8",
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use BodyError::*;
        f.write_str(match self {
            BothFramings => "there is a Content-Length beside a Transfer-Encoding",
            ChunkedInHttp10 => "a request of HTTP/1.0 has a Transfer-Encoding",
            UnknownCoding => "this server knows no transfer coding but chunked",
            ChunkedNotAlone => "the Transfer-Encoding is not exactly chunked",
            ManyContentLengths => "there is more than one Content-Length",
            InvalidContentLength => "the Content-Length is not made of digits only",
            TooLarge => "the body is larger than this server allows",
            InvalidChunkSize => "a chunk size is not a hexadecimal number",
            ChunkSizeTooLong => "a chunk size has more than 16 digits",
            InvalidExtension => "a chunk extension has no name",
            ChunkLineTooLong => "the line before a chunk is too long",
            ExtensionsTooLong => "the chunk extensions are too long in all",
            ChunkWithoutEnd => "the data of a chunk is not followed by CRLF",
            ChunkedBareLineFeed => "a line between chunks ends in LF without CR",
            ChunkedBareReturn => "in a line between chunks a CR is not followed by LF",
            ChunkedControlByte => "a line between chunks holds a control byte",
            Trailer(error) => return write!(f, "in a trailer, {error}"),
            TrailersTooLong => "the trailers are too long in all",
            CutShort => "the connection ended inside the body",
            Source(kind) => return write!(f, "the body could not be read: {kind}"),
        })
    }
}

impl std::error::Error for BodyError {}

impl From<BodyError> for io::Error {
    fn from(error: BodyError) -> io::Error {
        let kind = match &error {
            BodyError::CutShort => io::ErrorKind::UnexpectedEof,
            BodyError::Source(kind) => *kind,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}
