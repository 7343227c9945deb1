//! Chapter 23: forms with files. RFC 7578, and RFC 2046, section 5.1.
//!
//! A form that holds a file is sent in parts, and the parts are kept apart by a line that occurs in
//! none of them. To find that line sounds easy. But it arrives cut in two, the file holds half of
//! it a thousand times, and nobody says how long anything is. A reader who waits for the whole form
//! needs as much memory as the client likes, and one who searches twice needs as much time.
//!
//! ```text
//!   Content-Type: multipart/form-data; boundary=XX      says which line it is
//!
//!   for old mail programs                               preamble: ignored
//!   CR LF --XX CR LF                                    delimiter
//!   Content-Disposition: form-data; name="who" CR LF    the head of a part
//!   CR LF
//!   Ada                                                 its data
//!   CR LF --XX CR LF                                    delimiter; this CR LF is no data
//!   Content-Disposition: form-data; name="photo"; filename="me.jpg" CR LF
//!   CR LF
//!   any bytes, CR LF and --XX among them
//!   CR LF --XX-- CR LF                                  the last delimiter
//!   anything                                            epilogue: ignored
//! ```
//!
//! [`MultipartParser`] is shown bytes and says what they are. It keeps none of them but the head of
//! a part, and touches neither a socket nor a disk.

use crate::http::headers::{CONTENT_TYPE, FieldError, Headers, Token, field_line};
use crate::http::request::Parse;
use crate::http::response::Status;
use std::fmt;
use std::io::BufRead;

/// How much a form may hold. What is over a limit is answered with 413, a long boundary with 400.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultipartLimits {
    /// Bytes of the boundary. RFC 2046, section 5.1.1 allows 70.
    pub boundary: usize,
    /// Number of parts: each costs far more than the few bytes that it takes to send.
    pub parts: usize,
    /// Number of parts that are files: whoever keeps them pays for each.
    pub files: usize,
    /// Bytes in the head of one part, with its line ends: it is held in memory.
    pub part_head: usize,
    /// Number of fields in the head of one part. Browsers send two.
    pub part_fields: usize,
    /// Bytes of a file name; a longer one is cut, not refused.
    pub file_name: usize,
}

impl Default for MultipartLimits {
    fn default() -> MultipartLimits {
        MultipartLimits {
            boundary: 70,
            parts: 1_000,
            files: 100,
            part_head: 8 * 1024,
            part_fields: 16,
            file_name: 100,
        }
    }
}

/// What the head of a part says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The name of the form's field.
    pub name: String,
    /// The client's name for the file, cleaned: see [`clean_file_name`]. `None` if it is no file.
    pub file_name: Option<String>,
    /// The `Content-Type`, as the client claims it.
    pub content_type: Option<String>,
    /// All fields. A `Content-Transfer-Encoding` is among them and changes nothing: senders must
    /// not encode (RFC 7578, section 4.7), so data is taken as it comes.
    pub headers: Headers,
}

const CONTENT_DISPOSITION: Token<'static> = Token::constant("Content-Disposition");

impl Part {
    // RFC 7578, section 4.2: a part must have this field, its type and its name.
    fn new(headers: Headers, limits: &MultipartLimits) -> Result<Part, MultipartError> {
        let mut dispositions: Vec<_> = headers.get_all(CONTENT_DISPOSITION).collect();
        let (Some(disposition), true) = (dispositions.pop(), dispositions.is_empty()) else {
            return Err(MultipartError::Disposition);
        };
        let (kind, parameters) = parameters(disposition.as_bytes())?;
        if !kind.eq_ignore_ascii_case(b"form-data") {
            return Err(MultipartError::Disposition);
        }
        let name = find(&parameters, "name")?.ok_or(MultipartError::MissingName)?;
        // The same section forbids `filename*`: to us it is one more parameter that nobody reads.
        let file_name = find(&parameters, "filename")?.map(unescape);
        let content_type = headers.get(CONTENT_TYPE);
        Ok(Part {
            name: unescape(name),
            file_name: file_name.map(|name| clean_file_name(&name, limits.file_name)),
            content_type: content_type.map(|value| text(value.as_bytes())),
            headers,
        })
    }
}

/// Browsers write these three bytes of a name so, and no other; `100%25.txt` is meant as it is.
// HTML Standard, section 4.10.21.8: escape a multipart form data name
fn unescape(name: &[u8]) -> String {
    let name = text(name).replace("%22", "\"");
    name.replace("%0D", "\r").replace("%0A", "\n")
}

/// What we dare to show of a client's file name: at most `most` bytes of the last part of its path,
/// without control characters and those that turn the direction of writing. It may be empty.
///
/// It is text. Whoever makes a path of it has missed the point.
pub fn clean_file_name(name: &str, most: usize) -> String {
    // With one of these, `photo\u{202e}gpj.exe` is shown as photoexe.jpg.
    const TURNS: &str =
        "\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}";
    // Some browsers have sent whole paths (RFC 7578, section 4.2), with either slash.
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut clean = last.replace(|c: char| c.is_control() || TURNS.contains(c), "");
    while clean.len() > most {
        clean.pop();
    }
    match clean.as_str() {
        "." | ".." => String::new(),
        _ => clean,
    }
}

/// The parameters of a field value: names, and values without their quotes.
type Parameters<'a> = Vec<(Token<'a>, Vec<u8>)>;

/// What stands before the first `;`, and the parameters after it.
// parameters = *( OWS ";" OWS [ parameter ] )        RFC 9110, section 5.6.6
// parameter  = parameter-name "=" parameter-value
fn parameters(value: &[u8]) -> Result<(&[u8], Parameters<'_>), MultipartError> {
    let (first, mut rest) = split_before(value, b';');
    let mut found = Parameters::new();
    while let [b';', after @ ..] = rest {
        rest = after.trim_ascii_start();
        if matches!(rest, [] | [b';', ..]) {
            continue;
        }
        let (name, after) = split_before(rest, b'=');
        let name = Token::new(name).map_err(|_| MultipartError::Parameter)?;
        let (value, after) = match after {
            [b'=', b'"', quoted @ ..] => unquote(quoted)?,
            [b'=', plain @ ..] => {
                let (plain, after) = split_before(plain, b';');
                (plain.trim_ascii().to_vec(), after)
            }
            _ => return Err(MultipartError::Parameter),
        };
        found.push((name, value));
        rest = after.trim_ascii_start();
    }
    match rest {
        [] => Ok((first.trim_ascii(), found)),
        _ => Err(MultipartError::Parameter),
    }
}

fn split_before(bytes: &[u8], separator: u8) -> (&[u8], &[u8]) {
    let at = bytes.iter().position(|byte| *byte == separator);
    bytes.split_at(at.unwrap_or(bytes.len()))
}

/// The text up to the closing quote, and what follows it.
///
/// A backslash escapes a quote or a backslash, as curl writes them. Any other backslash is one:
/// `C:\me.jpg` is what an old browser sends.
fn unquote(quoted: &[u8]) -> Result<(Vec<u8>, &[u8]), MultipartError> {
    let mut plain = Vec::new();
    let mut rest = quoted;
    loop {
        let (byte, after) = match rest {
            [] => return Err(MultipartError::Parameter),
            [b'"', after @ ..] => return Ok((plain, after)),
            [b'\\', byte @ (b'"' | b'\\'), after @ ..] | [byte, after @ ..] => (byte, after),
        };
        plain.push(*byte);
        rest = after;
    }
}

/// The value of the parameter of that name. Two of one name are refused: the next program might
/// take the other one.
fn find<'a>(
    parameters: &'a Parameters<'_>,
    name: &'static str,
) -> Result<Option<&'a [u8]>, MultipartError> {
    let name = Token::constant(name);
    let mut values = parameters.iter().filter(|(other, _)| *other == name);
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(MultipartError::Parameter),
        (value, None) => Ok(value.map(|(_, value)| value.as_slice())),
    }
}

/// What is no UTF-8 becomes U+FFFD, as in a query.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What the next bytes of a form are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// They belong to no part, or to a head that is not complete.
    Skipped,
    /// They end the head of this part.
    Part(Part),
    /// They are data of the part.
    Data,
    /// They are the delimiter after the part.
    PartEnd,
}

/// Says what the bytes of a form are, however they arrive.
#[derive(Debug)]
pub struct MultipartParser {
    limits: MultipartLimits,
    /// CR LF, two dashes, the boundary.
    delimiter: Vec<u8>,
    state: State,
    parts: usize,
    files: usize,
    headers: Headers,
    head_bytes: usize,
    /// How far the unfinished line of a head has been searched for its end.
    seen: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The first delimiter may stand here without its CRLF.
    Start,
    Preamble,
    /// After a boundary: two dashes, or else the line ends.
    Boundary,
    LineEnd,
    Head,
    Data,
    Epilogue,
}

impl MultipartParser {
    /// A parser for the body that comes with this `Content-Type`.
    ///
    /// Errors: [`MultipartError::NotMultipart`], [`MultipartError::MissingBoundary`],
    /// [`MultipartError::Boundary`] and [`MultipartError::Parameter`].
    pub fn new(
        content_type: &[u8],
        limits: MultipartLimits,
    ) -> Result<MultipartParser, MultipartError> {
        let (kind, parameters) = parameters(content_type)?;
        if !kind.eq_ignore_ascii_case(b"multipart/form-data") {
            return Err(MultipartError::NotMultipart);
        }
        let boundary = find(&parameters, "boundary")?.ok_or(MultipartError::MissingBoundary)?;
        // RFC 2046, section 5.1.1 has a shorter list of characters. Some clients use others.
        let allowed = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        let length = 1..=limits.boundary;
        if !length.contains(&boundary.len())
            || !boundary.iter().all(allowed)
            || boundary.ends_with(b" ")
        {
            return Err(MultipartError::Boundary);
        }
        Ok(MultipartParser {
            limits,
            delimiter: [b"\r\n--", boundary].concat(),
            state: State::Start,
            parts: 0,
            files: 0,
            headers: Headers::new(),
            head_bytes: 0,
            seen: 0,
        })
    }

    /// Looks at the next bytes and says what the first of them are.
    ///
    /// `Complete` tells it of the first `used` bytes, which the caller then drops. After `Partial`
    /// the caller comes back with the same bytes and more. They are never many: a delimiter, or one
    /// line of a head.
    pub fn advance(&mut self, input: &[u8]) -> Result<Parse<Event>, MultipartError> {
        if input.is_empty() {
            return Ok(Parse::Partial);
        }
        match self.state {
            State::Start => Ok(self.read_start(input)),
            State::Preamble | State::Data => Ok(self.read_data(input)),
            State::Boundary | State::LineEnd => self.read_delimiter_end(input),
            State::Head => self.read_head(input),
            State::Epilogue => Ok(skip(input.len())),
        }
    }

    /// The most bytes that it can need at once: a line of a head with its end, or a delimiter.
    pub fn longest(&self) -> usize {
        self.limits.part_head.max(self.delimiter.len()).saturating_add(2)
    }

    /// Call it when no more bytes come. Error: [`MultipartError::Truncated`].
    pub fn finish(&self) -> Result<(), MultipartError> {
        if self.state == State::Epilogue { Ok(()) } else { Err(MultipartError::Truncated) }
    }

    // multipart-body = [preamble CRLF] dash-boundary transport-padding CRLF
    //                  body-part *encapsulation close-delimiter transport-padding
    //                  [CRLF epilogue]        RFC 2046, section 5.1.1
    fn read_start(&mut self, input: &[u8]) -> Parse<Event> {
        let dash_boundary = self.delimiter.get(2..).unwrap_or_default();
        if input.starts_with(dash_boundary) {
            self.state = State::Boundary;
            return skip(dash_boundary.len());
        }
        if dash_boundary.starts_with(input) {
            return Parse::Partial;
        }
        self.state = State::Preamble;
        self.read_data(input)
    }

    /// Data, or the preamble: everything up to the next delimiter.
    fn read_data(&mut self, input: &[u8]) -> Parse<Event> {
        let (inside, end) = match self.state {
            State::Data => (Event::Data, Event::PartEnd),
            _ => (Event::Skipped, Event::Skipped),
        };
        match self.find_delimiter(input) {
            (0, false) => Parse::Partial,
            (0, true) => {
                self.state = State::Boundary;
                complete(end, self.delimiter.len())
            }
            (before, _) => complete(inside, before),
        }
    }

    /// How many bytes stand before the next delimiter, and whether it is complete. Bytes at the end
    /// that may be the beginning of one count as one.
    fn find_delimiter(&self, input: &[u8]) -> (usize, bool) {
        for start in (0..input.len()).step_by(BLOCK) {
            let end = input.len().min(start + BLOCK);
            // One that begins in the block may go on behind it.
            let seen = input.get(start..end + 2);
            if seen.is_some_and(|seen| !may_begin_delimiter(seen)) {
                continue;
            }
            let mut at = start;
            while let Some(found) = input.get(at..end).and_then(find_return) {
                at += found;
                let candidate = input.get(at..).unwrap_or_default();
                let compared = candidate.len().min(self.delimiter.len());
                if candidate.get(..compared) == self.delimiter.get(..compared) {
                    return (at, compared == self.delimiter.len());
                }
                // A delimiter has one CR, its first byte. So none begins inside the bytes that
                // were compared here, and no byte is compared twice.
                at += 1;
            }
        }
        (input.len(), false)
    }

    // delimiter         = CRLF "--" boundary        RFC 2046, section 5.1.1
    // close-delimiter   = delimiter "--"
    // transport-padding = *LWSP-char
    fn read_delimiter_end(&mut self, input: &[u8]) -> Result<Parse<Event>, MultipartError> {
        match input {
            [b'-', b'-', ..] if self.state == State::Boundary => {
                self.state = State::Epilogue;
                Ok(skip(2))
            }
            [b'-'] if self.state == State::Boundary => Ok(Parse::Partial),
            [b'\r', b'\n', ..] if self.parts == self.limits.parts => {
                Err(MultipartError::TooManyParts)
            }
            [b'\r', b'\n', ..] => {
                self.parts += 1;
                self.state = State::Head;
                Ok(skip(2))
            }
            [b'\r'] => Ok(Parse::Partial),
            [b' ' | b'\t', ..] => {
                self.state = State::LineEnd;
                Ok(skip(1))
            }
            // RFC 2046, section 5.1.1: the boundary must not occur in the data. This one does.
            _ => Err(MultipartError::AfterBoundary),
        }
    }

    /// One line of the head of a part.
    fn read_head(&mut self, input: &[u8]) -> Result<Parse<Event>, MultipartError> {
        let room = self.limits.part_head.saturating_sub(self.head_bytes);
        let Some(end) = self.line_end(input.get(..room).unwrap_or(input))? else {
            if input.len() > room {
                return Err(MultipartError::HeadTooLong);
            }
            return Ok(Parse::Partial);
        };
        let used = end + 2;
        self.head_bytes += used;
        self.seen = 0;
        let line = input.get(..end).unwrap_or_default();
        if line.is_empty() {
            return Ok(complete(Event::Part(self.finish_head()?), used));
        }
        let (name, value) = field_line(line).map_err(MultipartError::Field)?;
        if self.headers.len() == self.limits.part_fields {
            return Err(MultipartError::TooManyFields);
        }
        self.headers.push(name, value);
        Ok(skip(used))
    }

    /// Where the CRLF of the first line stands, if it has arrived.
    fn line_end(&mut self, input: &[u8]) -> Result<Option<usize>, MultipartError> {
        let Some(found) = input.get(self.seen..).and_then(find_return) else {
            self.seen = input.len();
            return Ok(None);
        };
        self.seen += found;
        match input.get(self.seen + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(Some(self.seen)),
            Some(_) => Err(MultipartError::Field(FieldError::ValueByte)),
        }
    }

    fn finish_head(&mut self) -> Result<Part, MultipartError> {
        let part = Part::new(std::mem::take(&mut self.headers), &self.limits)?;
        if part.file_name.is_some() {
            if self.files == self.limits.files {
                return Err(MultipartError::TooManyFiles);
            }
            self.files += 1;
        }
        self.head_bytes = 0;
        self.state = State::Data;
        Ok(part)
    }
}

fn complete(value: Event, used: usize) -> Parse<Event> {
    Parse::Complete { value, used }
}

fn skip(used: usize) -> Parse<Event> {
    complete(Event::Skipped, used)
}

/// Data is searched in blocks of so many bytes.
const BLOCK: usize = 256;

/// Whether `CR LF -` stands somewhere in these bytes.
///
/// A loop that can be left at any byte must take one byte after the other. This one has no way out,
/// so the compiler lets one instruction compare sixteen.
fn may_begin_delimiter(bytes: &[u8]) -> bool {
    let threes = bytes.iter().zip(bytes.iter().skip(1)).zip(bytes.iter().skip(2));
    threes.fold(false, |found, ((a, b), c)| found | ((*a == b'\r') & (*b == b'\n') & (*c == b'-')))
}

/// Where the first CR stands.
///
/// `skip_until` is the standard library's fast search for one byte, many bytes in one step; on a
/// slice it cannot fail.
fn find_return(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let skipped = rest.skip_until(b'\r').unwrap_or_default();
    let (last, before) = bytes.get(..skipped)?.split_last()?;
    (*last == b'\r').then_some(before.len())
}

/// What is wrong with a form, and the status that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MultipartError {
    /// The `Content-Type` is not `multipart/form-data`. 415.
    NotMultipart,
    /// The `Content-Type` names no boundary. 400.
    MissingBoundary,
    /// The boundary is empty, too long, or holds a byte that is not visible ASCII. 400.
    Boundary,
    /// A parameter is not `name=value`, its quote is not closed, or it is there twice. 400.
    Parameter,
    /// After a boundary the line goes on. 400.
    AfterBoundary,
    /// The body ends before the last boundary. 400.
    Truncated,
    /// A field in the head of a part is wrong. 400.
    Field(FieldError),
    /// A part has not exactly one `Content-Disposition`, or another than `form-data`. 400.
    Disposition,
    /// A part has no name. 400.
    MissingName,
    /// The head of a part is longer than [`MultipartLimits::part_head`]. 413.
    HeadTooLong,
    /// The head of a part has more fields than [`MultipartLimits::part_fields`]. 413.
    TooManyFields,
    /// There are more parts than [`MultipartLimits::parts`]. 413.
    TooManyParts,
    /// There are more files than [`MultipartLimits::files`]. 413.
    TooManyFiles,
}

impl MultipartError {
    /// The rule that is broken.
    pub fn rule(&self) -> &'static str {
        use MultipartError::*;
        match self {
            NotMultipart => "RFC 9110, section 15.5.16",
            MissingBoundary => "RFC 7578, section 4.1",
            Boundary | AfterBoundary | Truncated => "RFC 2046, section 5.1.1",
            Parameter => "RFC 9110, section 5.6.6",
            Field(error) => error.rule(),
            Disposition | MissingName => "RFC 7578, section 4.2",
            HeadTooLong | TooManyFields | TooManyParts | TooManyFiles => {
                "RFC 9110, section 15.5.14"
            }
        }
    }

    /// The status to answer with.
    pub fn status(&self) -> Status {
        use MultipartError::*;
        let code = match self {
            HeadTooLong | TooManyFields | TooManyParts | TooManyFiles => 413,
            NotMultipart => 415,
            _ => 400,
        };
        Status::new(code).unwrap_or(Status::INTERNAL_SERVER_ERROR)
    }
}

impl fmt::Display for MultipartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use MultipartError::*;
        f.write_str(match self {
            NotMultipart => "the body is not multipart/form-data",
            MissingBoundary => "the Content-Type names no boundary",
            Boundary => "the boundary is not 1 to 70 visible characters",
            Parameter => "a parameter is not written name=value, once and with its quotes",
            AfterBoundary => "a line goes on after its boundary",
            Truncated => "the form ends before its last boundary",
            Field(error) => return write!(f, "in the head of a part, {error}"),
            Disposition => "a part needs exactly one Content-Disposition: form-data",
            MissingName => "a part has no name",
            HeadTooLong => "the head of a part is too long",
            TooManyFields => "the head of a part has too many fields",
            TooManyParts => "the form has too many parts",
            TooManyFiles => "the form has too many files",
        })
    }
}

impl std::error::Error for MultipartError {}
