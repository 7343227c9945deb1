//! Chapter 21: forms with files. RFC 7578, and RFC 2046, section 5.1.
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
//! [`MultipartParser`] takes bytes and says what they are. [`MultipartReader`] brings it bytes.
//! [`FormData`] puts values into memory and files into a [`Spool`], a folder that forgets them
//! unless somebody keeps them.

use crate::http::body::BodyError;
use crate::http::headers::{CONTENT_TYPE, FieldError, Headers, Token, field_line};
use crate::http::refusal::Refusal;
use crate::http::request::Parse;
use crate::http::response::Status;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much a form may hold. What is over a limit is answered with 413, a long boundary with 400.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultipartLimits {
    /// Bytes of the boundary. RFC 2046, section 5.1.1 allows 70.
    pub boundary: usize,
    /// Number of parts: each costs far more than the few bytes that it takes to send.
    pub parts: usize,
    /// Number of parts that are files: each is a file on our disk, if only for a moment.
    pub files: usize,
    /// Bytes in the head of one part, with its line ends: it is held in memory.
    pub part_head: usize,
    /// Number of fields in the head of one part. Browsers send two.
    pub part_fields: usize,
    /// Bytes of all names, file names, types and values together: they are held in memory.
    pub memory: usize,
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
            memory: 1024 * 1024,
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
/// It is text. Whoever makes a path of it has missed the point; see [`UploadedFile::keep`].
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

/// What is no UTF-8 becomes U+FFFD, as in chapter 8.
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
        let mut at = 0;
        while let Some(found) = input.get(at..).and_then(find_return) {
            at += found;
            let candidate = input.get(at..).unwrap_or_default();
            let compared = candidate.len().min(self.delimiter.len());
            if candidate.get(..compared) == self.delimiter.get(..compared) {
                return (at, compared == self.delimiter.len());
            }
            // A delimiter has one CR, its first byte. So none begins inside the bytes that were
            // compared here, and no byte is compared twice.
            at += 1;
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

/// Reads the parts of a form from a source of bytes, with one buffer for all of them.
#[derive(Debug)]
pub struct MultipartReader<R> {
    source: R,
    parser: MultipartParser,
    buffer: Vec<u8>,
    /// The bytes that the parser has not used yet.
    unused: Range<usize>,
    /// The bytes that the last event is about.
    used: Range<usize>,
    inside: bool,
}

/// The bytes that are read, and written to a file, in one step.
const BUFFER: usize = 256 * 1024;

impl<R: Read> MultipartReader<R> {
    /// A reader of the form that comes with this `Content-Type`. Errors: as for
    /// [`MultipartParser::new`].
    pub fn new(
        source: R,
        content_type: &[u8],
        limits: MultipartLimits,
    ) -> Result<MultipartReader<R>, MultipartError> {
        let parser = MultipartParser::new(content_type, limits)?;
        // Whatever is not used at once must fit: a line of a head with its end, or a delimiter.
        let needed = parser.limits.part_head.max(parser.delimiter.len());
        Ok(MultipartReader {
            source,
            buffer: vec![0; BUFFER.max(needed.saturating_add(2))],
            parser,
            unused: 0..0,
            used: 0..0,
            inside: false,
        })
    }

    /// The head of the next part. `None` after the last one, when the source has been read to its
    /// end. What is left of the part before is skipped.
    pub fn next_part(&mut self) -> Result<Option<Part>, MultipartError> {
        self.inside = false;
        loop {
            match self.step()? {
                None => return Ok(None),
                Some(Event::Part(part)) => {
                    self.inside = true;
                    return Ok(Some(part));
                }
                Some(_) => {}
            }
        }
    }

    /// The next bytes of the part, or `None` at its end.
    pub fn read_data(&mut self) -> Result<Option<&[u8]>, MultipartError> {
        while self.inside {
            match self.step()? {
                Some(Event::Data) => return Ok(self.buffer.get(self.used.clone())),
                Some(Event::Skipped) => {}
                _ => self.inside = false,
            }
        }
        Ok(None)
    }

    fn step(&mut self) -> Result<Option<Event>, MultipartError> {
        loop {
            let unused = self.buffer.get(self.unused.clone()).unwrap_or_default();
            if let Parse::Complete { value, used } = self.parser.advance(unused)? {
                let end = self.unused.start + used;
                self.used = self.unused.start..end;
                self.unused.start = end;
                return Ok(Some(value));
            }
            if self.fill()? == 0 {
                self.parser.finish()?;
                return Ok(None);
            }
        }
    }

    /// Moves the few bytes that are left to the front, and reads more behind them.
    fn fill(&mut self) -> Result<usize, MultipartError> {
        if self.unused.start > 0 {
            self.buffer.copy_within(self.unused.clone(), 0);
            self.unused = 0..self.unused.len();
        }
        let room = self.buffer.get_mut(self.unused.end..).unwrap_or_default();
        loop {
            match self.source.read(room) {
                Ok(count) => {
                    let count = count.min(room.len());
                    self.unused.end += count;
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(MultipartError::from_source(error)),
            }
        }
    }
}

/// A form: what was typed, in memory, and what was uploaded, in files. Both in the order sent.
#[derive(Debug, Default)]
pub struct FormData {
    /// Name and value of each field that is no file. A name may occur more than once.
    pub fields: Vec<(String, String)>,
    /// The files. An input that was left empty, so without name and content, is not among them.
    pub files: Vec<UploadedFile>,
}

const ANY_BYTES: &str = "application/octet-stream";

impl FormData {
    /// Reads a whole form to the end of `source`. After an error nothing of it is left anywhere.
    ///
    /// Errors: every [`MultipartError`].
    pub fn read(
        source: impl Read,
        content_type: &[u8],
        spool: &Spool,
        limits: &MultipartLimits,
    ) -> Result<FormData, MultipartError> {
        let mut reader = MultipartReader::new(source, content_type, limits.clone())?;
        let mut form = FormData::default();
        let mut memory = limits.memory;
        while let Some(part) = reader.next_part()? {
            spend(&mut memory, part.name.len())?;
            let Some(file_name) = part.file_name else {
                let mut value = Vec::new();
                while let Some(data) = reader.read_data()? {
                    spend(&mut memory, data.len())?;
                    value.extend_from_slice(data);
                }
                form.fields.push((part.name, text(&value)));
                continue;
            };
            // RFC 7578, section 4.4: a file without a type is any bytes.
            let content_type = part.content_type.unwrap_or_else(|| ANY_BYTES.to_string());
            spend(&mut memory, file_name.len() + content_type.len())?;
            let file = spool.store(part.name, file_name, content_type, &mut reader)?;
            if file.size > 0 || !file.file_name.is_empty() {
                form.files.push(file);
            }
        }
        Ok(form)
    }
}

fn spend(memory: &mut usize, bytes: usize) -> Result<(), MultipartError> {
    let left = memory.checked_sub(bytes);
    *memory = left.ok_or(MultipartError::ValuesTooLong)?;
    Ok(())
}

/// A file of a form. It is removed when this value is dropped, unless it was kept.
#[derive(Debug)]
pub struct UploadedFile {
    /// The name of the form's field.
    pub field: String,
    /// The client's name for it, cleaned: text to show, never a path. May be empty.
    pub file_name: String,
    /// The client's word for what it is.
    pub content_type: String,
    /// Its length in bytes.
    pub size: u64,
    path: PathBuf,
    id: String,
    /// While there is a file, its owner is alive.
    _owner: Arc<Owner>,
}

impl UploadedFile {
    /// Where it is, for as long as this value lives.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it into `folder`, under a name of ours, and returns its new path.
    ///
    /// The name owes nothing to the client: no folder, no ending that a server would trust.
    ///
    /// Error: that of the system, and the file is removed. `folder` must be on the file system of
    /// the spool: only there does a file appear whole or not at all.
    pub fn keep(self, folder: &Path) -> io::Result<PathBuf> {
        let kept = folder.join(format!("upload-{}", self.id));
        fs::rename(&self.path, &kept)?;
        Ok(kept)
    }
}

impl Drop for UploadedFile {
    fn drop(&mut self) {
        // One that was kept is not here any more.
        let _ = fs::remove_file(&self.path);
    }
}

/// A folder for files that are arriving. Several processes may share it. Its clones are the same.
///
/// ```text
///   spool-5f3a90cc12de7b04.live      our lock: a socket that this process has bound
///   spool-5f3a90cc12de7b04-17.part   our 17th file
///   spool-90b2cc07714ea3d5-2.part    of another process: its lock tells whether it is alive
/// ```
#[derive(Debug, Clone)]
pub struct Spool(Arc<Owner>);

/// One user of a spool folder.
#[derive(Debug)]
struct Owner {
    folder: PathBuf,
    token: String,
    files: AtomicU64,
    _lock: lock::Lock,
}

impl Spool {
    /// Opens the folder, makes it if need be, and removes what dead processes have left in it.
    ///
    /// Error: that of the system. A path of more than about 75 bytes is too long for a lock.
    pub fn open(folder: &Path) -> io::Result<Spool> {
        fs::create_dir_all(folder)?;
        // Random keys from the system; the standard library gives no other random numbers.
        let token = format!("{:016x}", RandomState::new().build_hasher().finish());
        // No sweeper may see a lock before it is held, so it gets its name afterwards.
        let unnamed = folder.join(format!("spool-{token}.new"));
        let lock = lock::take(&unnamed)?;
        fs::rename(&unnamed, lock_path(folder, &token))?;
        let owner =
            Owner { folder: folder.to_path_buf(), token, files: AtomicU64::new(1), _lock: lock };
        sweep(folder)?;
        Ok(Spool(Arc::new(owner)))
    }

    /// Writes the rest of a part into a new file, piece by piece as it arrives.
    fn store<R: Read>(
        &self,
        field: String,
        file_name: String,
        content_type: String,
        reader: &mut MultipartReader<R>,
    ) -> Result<UploadedFile, MultipartError> {
        let number = self.0.files.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number}", self.0.token);
        let path = self.0.folder.join(format!("spool-{id}.part"));
        let failed = |error: io::Error| MultipartError::Spool(error.kind());
        // `create_new`: what is there already is not ours.
        let mut disk = File::create_new(&path).map_err(failed)?;
        // From here on it is removed, whatever happens.
        let mut file = UploadedFile {
            field,
            file_name,
            content_type,
            size: 0,
            path,
            id,
            _owner: Arc::clone(&self.0),
        };
        while let Some(data) = reader.read_data()? {
            disk.write_all(data).map_err(failed)?;
            file.size = file.size.saturating_add(data.len() as u64);
        }
        Ok(file)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = fs::remove_file(lock_path(&self.folder, &self.token));
    }
}

fn lock_path(folder: &Path, token: &str) -> PathBuf {
    folder.join(format!("spool-{token}.live"))
}

/// Removes every file with a name of ours whose owner is dead.
///
/// A process has its lock before its first file and until after its last one, so the order here,
/// first the file's name and then the lock, never meets a living owner without a lock.
fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(token) = name.to_str().and_then(owner_of) else {
            continue;
        };
        if !lock::is_held(&lock_path(folder, token)) {
            // It may be gone: others sweep too.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// The token in `spool-TOKEN.live` or `spool-TOKEN-NUMBER.part`; `None` for a name not of ours.
fn owner_of(name: &str) -> Option<&str> {
    let (token, rest) = name.strip_prefix("spool-")?.split_at_checked(16)?;
    let is_token = token.bytes().all(|byte| byte.is_ascii_hexdigit());
    let middle = rest.strip_suffix(".part").unwrap_or_default();
    let number = middle.strip_prefix('-').unwrap_or_default();
    let is_part = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_token && (is_part || rest == ".live")).then_some(token)
}

/// A lock that the kernel opens when its process dies, whatever it dies of.
///
/// A process id in the file's name would not do: ids are used again, and in a container each start
/// has the same one.
#[cfg(unix)]
mod lock {
    use std::io::{self, ErrorKind};
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;

    pub type Lock = UnixDatagram;

    pub fn take(path: &Path) -> io::Result<Lock> {
        UnixDatagram::bind(path)
    }

    /// Nobody answers at the socket of a dead process. In doubt it is held.
    pub fn is_held(path: &Path) -> bool {
        let answer = UnixDatagram::unbound().and_then(|socket| socket.connect(path));
        !matches!(
            answer.map_err(|error| error.kind()),
            Err(ErrorKind::ConnectionRefused | ErrorKind::NotFound)
        )
    }
}

/// Without such sockets nothing is ever swept.
#[cfg(not(unix))]
mod lock {
    pub type Lock = std::fs::File;

    pub fn take(path: &std::path::Path) -> std::io::Result<Lock> {
        Lock::create(path)
    }

    pub fn is_held(_path: &std::path::Path) -> bool {
        true
    }
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
    /// Names and values are longer than [`MultipartLimits::memory`]. 413.
    ValuesTooLong,
    /// The body itself broke off or broke a rule. The status of that error.
    Body(BodyError),
    /// A file could not be written. 507 if the disk is full, else 500.
    Spool(ErrorKind),
}

impl MultipartError {
    /// The reader of chapter 9 puts its own error into an `io::Error`, and here it comes out again.
    fn from_source(error: io::Error) -> MultipartError {
        MultipartError::Body(match error.downcast::<BodyError>() {
            Ok(error) => error,
            Err(error) => BodyError::Source(error.kind()),
        })
    }

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
            HeadTooLong | TooManyFields | TooManyParts => "RFC 9110, section 15.5.14",
            TooManyFiles | ValuesTooLong => "RFC 9110, section 15.5.14",
            Body(error) => error.rule(),
            Spool(_) => "RFC 4918, section 11.5",
        }
    }

    /// The status to answer with.
    pub fn status(&self) -> Status {
        use MultipartError::*;
        let code = match self {
            HeadTooLong | TooManyFields | TooManyParts | TooManyFiles | ValuesTooLong => 413,
            NotMultipart => 415,
            Body(BodyError::Source(ErrorKind::TimedOut)) => 408,
            Body(error) => Refusal::from(error.clone()).status.code(),
            Spool(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => 507,
            // The system lets no file of ours grow so long.
            Spool(ErrorKind::FileTooLarge) => 507,
            Spool(_) => 500,
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
            ValuesTooLong => "the names and values of the form are too long in all",
            Body(error) => return error.fmt(f),
            Spool(kind) => return write!(f, "an uploaded file could not be stored: {kind}"),
        })
    }
}

impl std::error::Error for MultipartError {}
