//! Chapter 25: static files. RFC 9110, sections 8.8, 13, 14 and 17.3.
//!
//! A stranger names a file, and we send it. Two questions must be kept apart. The first is about
//! the file system: which file, and may it be seen at all?
//!
//! ```text
//!   docs/a.txt          the path, decoded once by the caller
//!   "docs" "a.txt"      its segments: not empty, no dot in front, no \ and no NUL
//!   /srv/www/docs/...   the true place, all links followed: still below the root?
//!   a regular file      looked at before it is opened, and once more when it is open
//! ```
//!
//! The second is about the client: what does it have already, and which part does it want? That
//! needs no file system, only the request and some [`Facts`] about the file:
//!
//! ```text
//!   If-Match, or else If-Unmodified-Since        another version than expected?    412
//!   If-None-Match, or else If-Modified-Since     the version that you have?        304
//!   Range, if If-Range does not forbid it        one part                          206
//!                                                a part that does not exist        416
//!   otherwise                                    everything                        200
//! ```

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::http::date::HttpDate;
use crate::http::headers::{ALLOW, CONTENT_TYPE, FieldValue, Headers, Token};
use crate::http::request::{Method, RequestHead, Target};
use crate::http::response::{Body, Response, Status};

/// A folder whose files everybody may read.
///
/// It trusts those who can write into the folder: they can exchange a file between our look and
/// our opening. Never let it be the folder that uploads go to.
#[derive(Debug, Clone)]
pub struct StaticFiles {
    root: PathBuf,
    cache_control: FieldValue<'static>,
}

impl StaticFiles {
    /// The files below `root`. Links in its own path are followed now, once.
    ///
    /// # Errors
    /// If there is no such folder, or it may not be entered.
    pub fn new(root: impl AsRef<Path>) -> io::Result<StaticFiles> {
        let root = fs::canonicalize(root)?;
        // The dot is inside: it tells whether this is a folder, and whether we may enter it.
        fs::metadata(root.join("."))?;
        // It does not mean "store nothing". It means: store it, and ask us before each use. With an
        // ETag the question is cheap, and nobody ever sees an old file.
        let cache_control = FieldValue::constant("no-cache");
        Ok(StaticFiles { root, cache_control })
    }

    /// The same files with another `Cache-Control`, such as `max-age=31536000, immutable` for
    /// files that get a new name whenever they change.
    pub fn cache_control(mut self, value: FieldValue<'static>) -> StaticFiles {
        self.cache_control = value;
        self
    }

    /// The answer for the file at `path`: decoded, below the place where the folder is mounted,
    /// without a slash in front. `head.target` is what the client wrote for it.
    pub fn respond(&self, head: &RequestHead, path: &str) -> Response {
        let answer = self.answer(head, path);
        answer.unwrap_or_else(|error| error.response())
    }

    fn answer(&self, head: &RequestHead, path: &str) -> Result<Response, FileError> {
        if !matches!(head.method, Method::Get | Method::Head) {
            return Err(FileError::Method);
        }
        let as_folder = path.ends_with('/') || head.target.path().ends_with('/');
        let found = self.find(path, as_folder, accepts_gzip(&head.headers))?;
        let Found::File(file, facts) = found else {
            return Ok(redirect(&head.target));
        };
        let now = HttpDate::now();
        let decision = decide(head, &facts, now);
        let (first, length) = match decision {
            Decision::Whole => (0, facts.size),
            Decision::Part { first, last } => (first, last - first + 1),
            _ => (0, 0),
        };
        Ok(Response {
            status: decision.status(),
            headers: decision.headers(&facts, now, self.cache_control),
            body: body(file, first, length, head.method == Method::Head)?,
        })
    }

    /// Opens the file at `path`, or its compressed form if `gzip` allows it and there is one.
    ///
    /// `as_folder` says that the client wrote a slash at the end.
    ///
    /// # Errors
    /// Every [`FileError`] except the one about the method.
    pub fn find(&self, path: &str, as_folder: bool, gzip: bool) -> Result<Found, FileError> {
        let mut name = relative_path(path)?;
        let (mut place, mut seen) = self.locate(&name)?;
        match (seen.is_dir(), as_folder) {
            (true, false) => return Ok(Found::Folder),
            (true, true) => {
                name.push("index.html");
                (place, seen) = self.locate(&name)?;
            }
            (false, true) => return Err(FileError::Missing),
            (false, false) => {}
        }
        if !seen.is_file() {
            return Err(FileError::NotRegular);
        }
        let (place, coding) = choose_coding(place, &seen, gzip);
        let (file, opened) = open_regular(&place)?;
        let facts = Facts {
            size: opened.len(),
            modified: opened.modified()?,
            content_type: content_type(&name),
            coding,
        };
        Ok(Found::File(file, facts))
    }

    /// The true place of a name, with all links followed.
    fn locate(&self, name: &Path) -> Result<(PathBuf, Metadata), FileError> {
        let place = fs::canonicalize(self.root.join(name))?;
        // This compares whole segments: /srv/www-private does not start with /srv/www.
        if !place.starts_with(&self.root) {
            return Err(FileError::Outside);
        }
        let seen = fs::symlink_metadata(&place)?;
        Ok((place, seen))
    }
}

/// What stands at a path.
#[derive(Debug)]
pub enum Found {
    /// A file, open, and what there is to know about it.
    File(File, Facts),
    /// A folder, asked for without its slash.
    Folder,
}

/// Turns a decoded path into one that cannot lead upwards. An empty path is the root itself.
///
/// # Errors
/// [`FileError::EmptySegment`], [`FileError::Hidden`], [`FileError::ForbiddenByte`].
// RFC 9110, section 17.3: attacks based on file and path names
pub fn relative_path(path: &str) -> Result<PathBuf, FileError> {
    let mut relative = PathBuf::new();
    if path.is_empty() {
        return Ok(relative);
    }
    for segment in path.strip_suffix('/').unwrap_or(path).split('/') {
        if segment.is_empty() {
            return Err(FileError::EmptySegment);
        }
        // One rule for `.`, for `..` and for `.git`.
        if segment.starts_with('.') {
            return Err(FileError::Hidden);
        }
        // What separates on another system, or what ends a name inside the operating system.
        if segment.contains(['\\', '\0']) || cfg!(windows) && segment.contains(':') {
            return Err(FileError::ForbiddenByte);
        }
        relative.push(segment);
    }
    Ok(relative)
}

/// `style.css.gz` beside `style.css` is sent in its place, if it is not older.
fn choose_coding(place: PathBuf, seen: &Metadata, gzip: bool) -> (PathBuf, Coding) {
    let mut packed = place.clone().into_os_string();
    packed.push(".gz");
    let written = |file: &Metadata| file.modified().ok();
    let is_fresh = |other: Metadata| other.is_file() && written(&other) >= written(seen);
    // A link is not followed, so this stays inside the root.
    let exists = fs::symlink_metadata(&packed).is_ok_and(is_fresh);
    match (exists, gzip) {
        (true, true) => (packed.into(), Coding::Gzip),
        (true, false) => (place, Coding::PlainOfTwo),
        (false, _) => (place, Coding::Plain),
    }
}

/// Opens a file, and nothing else: to open a FIFO is to wait for its writer, and to open a device
/// may do anything. So whoever calls this has looked before.
fn open_regular(place: &Path) -> Result<(File, Metadata), FileError> {
    let mut options = OpenOptions::new();
    do_not_wait(options.read(true));
    let file = options.open(place)?;
    // Something else may have taken its place since the look. What is open stays what it is.
    let opened = file.metadata()?;
    if !opened.is_file() {
        return Err(FileError::NotRegular);
    }
    Ok((file, opened))
}

/// A FIFO opens at once with this flag. The standard library passes flags on, but does not name
/// them. What it lacks is `openat`, which would let us walk down from the root without looking back.
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn do_not_wait(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    const O_NONBLOCK: i32 = if cfg!(target_os = "linux") { 0o4000 } else { 4 };
    options.custom_flags(O_NONBLOCK);
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn do_not_wait(_options: &mut OpenOptions) {}

/// Files up to this size are read at once, in bytes: head and body then leave in one write.
const SMALL: usize = 64 * 1024;

fn body(mut file: File, first: u64, length: u64, is_head: bool) -> Result<Body, FileError> {
    if first > 0 {
        file.seek(SeekFrom::Start(first))?;
    }
    match usize::try_from(length) {
        Ok(size) if size <= SMALL && !is_head => {
            let mut bytes = vec![0; size];
            // If it has become shorter: nothing is sent yet, so the client can be told.
            let whole = file.read_exact(&mut bytes).map_err(|_| FileError::Failed);
            whole.map(|()| Body::Whole(bytes.into()))
        }
        _ => Ok(Body::Stream {
            length: Some(length),
            // A file that grows meanwhile must not give more than was announced.
            source: Box::new(file.take(length)),
        }),
    }
}

/// The page of a folder links to `style.css`, and a browser looks for it behind the last slash.
fn redirect(target: &Target) -> Response {
    let last = target.path().rsplit('/').next().unwrap_or_default();
    // Relative, and with a dot in front. `//evil.example` would be another host.
    let location = match target.query() {
        Some(query) => format!("./{last}/?{query}"),
        None => format!("./{last}/"),
    };
    let mut response = Response::new(Status::MOVED_PERMANENTLY);
    put(&mut response.headers, LOCATION, &location);
    response
}

/// For texts of our own making, which hold no control byte.
fn put(headers: &mut Headers, name: Token, text: &str) {
    if let Ok(value) = FieldValue::new(text.as_bytes()) {
        headers.push(name, value);
    }
}

const ACCEPT_ENCODING: Token = Token::constant("Accept-Encoding");
const ACCEPT_RANGES: Token = Token::constant("Accept-Ranges");
const CACHE_CONTROL: Token = Token::constant("Cache-Control");
const CONTENT_ENCODING: Token = Token::constant("Content-Encoding");
const CONTENT_RANGE: Token = Token::constant("Content-Range");
const ETAG: Token = Token::constant("ETag");
const IF_MATCH: Token = Token::constant("If-Match");
const IF_MODIFIED_SINCE: Token = Token::constant("If-Modified-Since");
const IF_NONE_MATCH: Token = Token::constant("If-None-Match");
const IF_RANGE: Token = Token::constant("If-Range");
const IF_UNMODIFIED_SINCE: Token = Token::constant("If-Unmodified-Since");
const LAST_MODIFIED: Token = Token::constant("Last-Modified");
const LOCATION: Token = Token::constant("Location");
const NOSNIFF: Token = Token::constant("X-Content-Type-Options");
const RANGE: Token = Token::constant("Range");
const VARY: Token = Token::constant("Vary");

/// All that a decision needs to know about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its length in bytes.
    pub size: u64,
    /// When it was last written.
    pub modified: SystemTime,
    /// The value of `Content-Type`.
    pub content_type: &'static str,
    /// Whether it is compressed.
    pub coding: Coding,
}

/// In which form a file is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As it is. There is no other form.
    Plain,
    /// As it is, though there is a compressed form for those who can read it.
    PlainOfTwo,
    /// Compressed beforehand.
    Gzip,
}

impl Facts {
    /// The version of the file as a name, in quotes.
    ///
    /// Every write sets the time, so the same name should mean the same bytes. It fails if a file
    /// is written twice, with the same length, within one tick of the file system's clock (some
    /// milliseconds on Linux), or if somebody sets the time back.
    // entity-tag = [ "W/" ] DQUOTE *etagc DQUOTE        RFC 9110, section 8.8.3
    pub fn etag(&self) -> String {
        let since = self.modified.duration_since(UNIX_EPOCH);
        let nanoseconds = since.unwrap_or_default().as_nanos();
        // RFC 9110, section 8.8.3.3: two codings of one file are two versions.
        let form = match self.coding {
            Coding::Gzip => "-gz",
            Coding::Plain | Coding::PlainOfTwo => "",
        };
        format!("\"{:x}-{nanoseconds:x}{form}\"", self.size)
    }

    /// RFC 9110, section 8.8.2.1: never later than `now`, even if a file claims to be.
    pub fn last_modified(&self, now: HttpDate) -> HttpDate {
        HttpDate::from(self.modified).min(now)
    }
}

/// How a GET or HEAD for a file is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// 200: all of it.
    Whole,
    /// 206: the bytes from `first` to `last`. Both are sent.
    Part {
        /// The first byte, counted from 0.
        first: u64,
        /// The last byte. It is in the file.
        last: u64,
    },
    /// 304: the client has it already.
    NotModified,
    /// 412: the file is not the one that the client means.
    PreconditionFailed,
    /// 416: no byte of the range is in the file.
    Unsatisfiable,
}

/// Decides, in the order of RFC 9110, section 13.2.2. A tag says more than a date, so where there
/// is a tag the date is not asked.
pub fn decide(head: &RequestHead, facts: &Facts, now: HttpDate) -> Decision {
    let headers = &head.headers;
    let tag = facts.etag();
    let modified = facts.last_modified(now);
    let is_expected = if headers.contains(IF_MATCH) {
        lists_tag(headers, IF_MATCH, &tag)
    } else {
        date(headers, IF_UNMODIFIED_SINCE, now).is_none_or(|date| modified <= date)
    };
    if !is_expected {
        return Decision::PreconditionFailed;
    }
    let is_news = if headers.contains(IF_NONE_MATCH) {
        !lists_tag(headers, IF_NONE_MATCH, &tag)
    } else {
        date(headers, IF_MODIFIED_SINCE, now).is_none_or(|date| modified > date)
    };
    if !is_news {
        return Decision::NotModified;
    }
    // RFC 9110, section 14.2: Range means something for GET only.
    if head.method != Method::Get || !range_applies(headers, &tag, modified, now) {
        return Decision::Whole;
    }
    match only(headers, RANGE) {
        Some(value) => part(value, facts.size).unwrap_or(Decision::Whole),
        None => Decision::Whole,
    }
}

impl Decision {
    /// The status that says so.
    pub fn status(self) -> Status {
        let code = match self {
            Decision::Whole => 200,
            Decision::Part { .. } => 206,
            Decision::NotModified => 304,
            Decision::PreconditionFailed => 412,
            Decision::Unsatisfiable => 416,
        };
        Status::new(code).unwrap_or(Status::INTERNAL_SERVER_ERROR)
    }

    /// The fields of the answer.
    pub fn headers(self, facts: &Facts, now: HttpDate, cache_control: FieldValue) -> Headers {
        let mut headers = Headers::new();
        match self {
            Decision::PreconditionFailed => return headers,
            Decision::Unsatisfiable => {
                let range = format!("bytes */{}", facts.size);
                put(&mut headers, CONTENT_RANGE, &range);
                return headers;
            }
            _ => {}
        }
        // RFC 9110, section 15.4.5: a 304 has these of the 200, and no more than it needs.
        put(&mut headers, ETAG, &facts.etag());
        headers.push(CACHE_CONTROL, cache_control);
        if facts.coding != Coding::Plain {
            headers.push(VARY, FieldValue::constant("Accept-Encoding"));
        }
        if self == Decision::NotModified {
            return headers;
        }
        let modified = facts.last_modified(now).to_string();
        put(&mut headers, LAST_MODIFIED, &modified);
        put(&mut headers, CONTENT_TYPE, facts.content_type);
        // A browser must not guess: a text that looks like a page would run its scripts.
        headers.push(NOSNIFF, FieldValue::constant("nosniff"));
        headers.push(ACCEPT_RANGES, FieldValue::constant("bytes"));
        if facts.coding == Coding::Gzip {
            headers.push(CONTENT_ENCODING, FieldValue::constant("gzip"));
        }
        if let Decision::Part { first, last } = self {
            let range = format!("bytes {first}-{last}/{}", facts.size);
            put(&mut headers, CONTENT_RANGE, &range);
        }
        headers
    }
}

/// The value of a field that may occur once. A second one makes it mean nothing.
fn only<'a>(headers: &'a Headers, name: Token) -> Option<FieldValue<'a>> {
    let mut values = headers.get_all(name);
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// A condition without a valid date is ignored: RFC 9110, sections 13.1.3 and 13.1.4.
fn date(headers: &Headers, name: Token, now: HttpDate) -> Option<HttpDate> {
    let text = only(headers, name)?.as_str()?;
    HttpDate::parse_at(text, now).ok()
}

/// Whether a list of tags names this one. `W/"a"` promises similar bytes only. That is enough to
/// keep a copy, and not enough to change a part of it.
// If-None-Match = "*" / #entity-tag        RFC 9110, section 13.1.2
fn lists_tag(headers: &Headers, name: Token, tag: &str) -> bool {
    let weak_counts = name == IF_NONE_MATCH;
    for value in headers.get_all(name) {
        let mut rest = value.as_bytes();
        if rest == b"*" {
            return true;
        }
        while let Some((is_weak, opaque, after)) = next_tag(rest) {
            if opaque == tag.as_bytes() && (weak_counts || !is_weak) {
                return true;
            }
            rest = after;
        }
    }
    false
}

/// The first tag of a list: whether it is weak, its text in quotes, and what follows. A tag may
/// hold commas, so splitting the list at its commas would be wrong.
fn next_tag(mut list: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    while let [b' ' | b'\t' | b',', rest @ ..] = list {
        list = rest;
    }
    let (is_weak, list) = match list.strip_prefix(b"W/") {
        Some(rest) => (true, rest),
        None => (false, list),
    };
    let inside = list.strip_prefix(b"\"")?;
    let end = inside.iter().position(|byte| *byte == b'"')?;
    let (opaque, after) = list.split_at_checked(end + 2)?;
    Some((is_weak, opaque, after))
}

/// A client that goes on with an old download must not get the end of a new file.
// If-Range = entity-tag / HTTP-date        RFC 9110, section 13.1.5
fn range_applies(headers: &Headers, tag: &str, modified: HttpDate, now: HttpDate) -> bool {
    if !headers.contains(IF_RANGE) {
        return true;
    }
    let same_tag = only(headers, IF_RANGE).is_some_and(|value| value.as_bytes() == tag.as_bytes());
    // A date proves the version only after its second is over. The client's half of the proof is
    // that its copy was sent after that second, too: RFC 9110, section 8.8.2.2.
    same_tag || modified < now && date(headers, IF_RANGE, now) == Some(modified)
}

/// What a Range asks for, or `None` if it is to be ignored: a mistake, an unknown unit, or more
/// than one part. RFC 9110, section 14.2 lets a server ignore any Range. Many parts of one file
/// are much work for a short request, and few clients ask for them.
// ranges-specifier = range-unit "=" range-set        RFC 9110, section 14.1.1
fn part(value: FieldValue, size: u64) -> Option<Decision> {
    let (unit, set) = value.as_str()?.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.split_once('-')?;
    if first.is_empty() {
        return suffix(position(last)?, size);
    }
    let first = position(first)?;
    let last = match last {
        "" => u64::MAX,
        digits => position(digits)?,
    };
    if first > last {
        return None;
    }
    match size.checked_sub(1) {
        Some(end) if first <= end => {
            let last = last.min(end);
            Some(Decision::Part { first, last })
        }
        _ => Some(Decision::Unsatisfiable),
    }
}

/// The last bytes of a file: all of them, if it has fewer.
// suffix-range = "-" suffix-length        RFC 9110, section 14.1.1
fn suffix(length: u64, size: u64) -> Option<Decision> {
    if length == 0 {
        return Some(Decision::Unsatisfiable);
    }
    // Of an empty file it is everything, and no Content-Range can say that: `None`.
    let last = size.checked_sub(1)?;
    let first = size.saturating_sub(length);
    Some(Decision::Part { first, last })
}

/// Digits only. A number beyond 64 bits is beyond the end of every file.
fn position(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// Whether the client names gzip, and not with the weight 0, which means "anything but this".
// Accept-Encoding = #( codings [ weight ] )        RFC 9110, section 12.5.3
fn accepts_gzip(headers: &Headers) -> bool {
    headers.members(ACCEPT_ENCODING).any(|member| {
        let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let is_gzip = parts.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"gzip"));
        let is_zero = |weight: &[u8]| weight.iter().all(|byte| b"qQ=0.".contains(byte));
        is_gzip && !parts.any(is_zero)
    })
}

fn content_type(name: &Path) -> &'static str {
    let extension = name.extension().unwrap_or_default();
    for (content_type, extensions) in TYPES {
        let is_known = |known: &&str| extension.eq_ignore_ascii_case(known);
        if extensions.iter().any(is_known) {
            return content_type;
        }
    }
    "application/octet-stream"
}

/// Text without a charset is read as whatever the reader likes, so ours says UTF-8.
const TYPES: &[(&str, &[&str])] = &[
    ("text/html; charset=utf-8", &["html", "htm"]),
    ("text/css; charset=utf-8", &["css"]),
    ("text/javascript; charset=utf-8", &["js", "mjs"]),
    ("text/plain; charset=utf-8", &["txt"]),
    ("text/markdown; charset=utf-8", &["md"]),
    ("text/csv; charset=utf-8", &["csv"]),
    ("text/xml; charset=utf-8", &["xml"]),
    ("application/json", &["json", "map"]),
    ("application/manifest+json", &["webmanifest"]),
    ("application/wasm", &["wasm"]),
    ("application/pdf", &["pdf"]),
    ("application/zip", &["zip"]),
    ("application/gzip", &["gz"]),
    ("image/svg+xml", &["svg"]),
    ("image/png", &["png"]),
    ("image/jpeg", &["jpg", "jpeg"]),
    ("image/gif", &["gif"]),
    ("image/webp", &["webp"]),
    ("image/vnd.microsoft.icon", &["ico"]),
    ("font/woff2", &["woff2"]),
    ("audio/mpeg", &["mp3"]),
    ("video/mp4", &["mp4"]),
    ("video/webm", &["webm"]),
];

/// Why a file is not sent. The client hears one answer for most of these, so that nobody can learn
/// what is there and hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileError {
    /// The method is neither GET nor HEAD. 405.
    Method,
    /// Two slashes stand side by side. 404.
    EmptySegment,
    /// A segment begins with a dot. 404.
    Hidden,
    /// A segment holds a `\` or a NUL, or on Windows a `:`. 404.
    ForbiddenByte,
    /// A link leads out of the folder. 404.
    Outside,
    /// It is a folder, a FIFO, a socket or a device. 404.
    NotRegular,
    /// There is no such file or folder, or we may not read it. 404.
    Missing,
    /// We have no descriptor or no memory left, the disk fails, or the file became shorter while it
    /// was read. 503.
    Failed,
}

impl FileError {
    /// The status of the answer.
    pub fn status(&self) -> Status {
        match self {
            FileError::Method => Status::METHOD_NOT_ALLOWED,
            FileError::Failed => Status::SERVICE_UNAVAILABLE,
            _ => Status::NOT_FOUND,
        }
    }

    /// The rule that is broken.
    pub fn rule(&self) -> &'static str {
        match self {
            FileError::Method => "RFC 9110, section 15.5.6",
            FileError::Missing => "RFC 9110, section 15.5.5",
            FileError::Failed => "RFC 9110, section 15.6.4",
            _ => "RFC 9110, section 17.3",
        }
    }

    /// The answer. It does not say which of the reasons for a 404 it was.
    pub fn response(&self) -> Response {
        let status = self.status();
        let response = Response::text(status, format!("{status}\n"));
        match self {
            FileError::Method => response.with(ALLOW, FieldValue::constant("GET, HEAD")),
            _ => response,
        }
    }
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> FileError {
        // EIO, ENOMEM, ENFILE, EMFILE: the same numbers on every Unix.
        match error.raw_os_error() {
            Some(5 | 12 | 23 | 24) => FileError::Failed,
            _ => FileError::Missing,
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileError::Method => "a file can only be read, with GET or HEAD",
            FileError::EmptySegment => "the path has an empty segment",
            FileError::Hidden => "a segment of the path begins with a dot",
            FileError::ForbiddenByte => "the path holds a backslash or a NUL",
            FileError::Outside => "a link leads out of the folder",
            FileError::NotRegular => "this is not a regular file",
            FileError::Missing => "there is no such file, or it may not be read",
            FileError::Failed => "the file cannot be read at the moment",
        })
    }
}

impl std::error::Error for FileError {}
