//! Chapter 11: the response. RFC 9110, section 15; RFC 9112, sections 4, 6 and 7.
//!
//! An answer must say where it ends. How it does so depends on four things:
//!
//! ```text
//!  status 101, 204, 304, or the answer to HEAD    no body follows, whatever the fields say
//!  status 205                                     no body either, but Content-Length: 0 says so
//!  the length is known                            Content-Length: 42
//!  unknown, and the client speaks HTTP/1.1        Transfer-Encoding: chunked
//!  unknown, and the client speaks HTTP/1.0        the end of the connection is the end
//! ```
//!
//! The application gives status, fields and body. The fields in the lower half of this picture
//! belong to the server, for only the server knows which line of the table applies:
//!
//! ```text
//!  HTTP/1.1 200 OK                        CR LF
//!  Content-Type: text/plain               CR LF    the application's
//!  Date: Sat, 21 Nov 2026 09:00:00 GMT    CR LF    the server's
//!  Server: glasshouse                     CR LF
//!  Content-Length: 5                      CR LF
//!                                         CR LF
//!  hello
//! ```

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read, Write};

use crate::http::date::HttpDate;
use crate::http::headers::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, FieldValue, Headers, SERVER, TRAILER,
    TRANSFER_ENCODING, Token, UPGRADE,
};
use crate::http::request::{Method, RequestHead, Version};

/// A status code. RFC 9110, section 15.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Status(u16);

impl Status {
    /// Go on, send the body.
    pub const CONTINUE: Status = Status(100);
    /// From here on this connection speaks another protocol.
    pub const SWITCHING_PROTOCOLS: Status = Status(101);
    /// All is well.
    pub const OK: Status = Status(200);
    /// Done, and there is nothing to say about it.
    pub const NO_CONTENT: Status = Status(204);
    /// Done; clear the form that it came from.
    pub const RESET_CONTENT: Status = Status(205);
    /// It has another address now.
    pub const MOVED_PERMANENTLY: Status = Status(301);
    /// The request breaks a rule.
    pub const BAD_REQUEST: Status = Status(400);
    /// Nothing is there.
    pub const NOT_FOUND: Status = Status(404);
    /// Something is there, but not for this method.
    pub const METHOD_NOT_ALLOWED: Status = Status(405);
    /// The client was too slow.
    pub const REQUEST_TIMEOUT: Status = Status(408);
    /// The body is too long.
    pub const CONTENT_TOO_LARGE: Status = Status(413);
    /// The request target is too long.
    pub const URI_TOO_LONG: Status = Status(414);
    /// We cannot do what the Expect field asks.
    pub const EXPECTATION_FAILED: Status = Status(417);
    /// The fields are too many or too long.
    pub const FIELDS_TOO_LARGE: Status = Status(431);
    /// Our own fault.
    pub const INTERNAL_SERVER_ERROR: Status = Status(500);
    /// We do not know this method or coding.
    pub const NOT_IMPLEMENTED: Status = Status(501);
    /// Too busy; try again later.
    pub const SERVICE_UNAVAILABLE: Status = Status(503);
    /// We do not speak this version.
    pub const VERSION_NOT_SUPPORTED: Status = Status(505);

    /// The status with this code, if it is one: 100 to 599.
    pub fn new(code: u16) -> Option<Status> {
        (100..=599).contains(&code).then_some(Status(code))
    }

    /// The three digits.
    pub fn code(self) -> u16 {
        self.0
    }

    /// The words for humans that go with the code; empty for codes that nobody registered.
    pub fn reason(self) -> &'static str {
        match REASONS.binary_search_by_key(&self.0, |&(code, _)| code) {
            Ok(at) => REASONS.get(at).map_or("", |&(_, reason)| reason),
            Err(_) => "",
        }
    }

    /// True where no body may follow. RFC 9112, section 6.3, rule 1.
    /// And for 205: RFC 9110, section 15.3.6.
    pub fn forbids_body(self) -> bool {
        matches!(self.0, 100..=199 | 204 | 205 | 304)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", self.0, self.reason())
    }
}

/// The codes of the registry that RFC 9110, section 16.2.1 founded, in order; 418 is there too,
/// but without its words.
const REASONS: &[(u16, &str)] = &[
    (100, "Continue"),
    (101, "Switching Protocols"),
    (102, "Processing"),
    (103, "Early Hints"),
    (200, "OK"),
    (201, "Created"),
    (202, "Accepted"),
    (203, "Non-Authoritative Information"),
    (204, "No Content"),
    (205, "Reset Content"),
    (206, "Partial Content"),
    (207, "Multi-Status"),
    (208, "Already Reported"),
    (226, "IM Used"),
    (300, "Multiple Choices"),
    (301, "Moved Permanently"),
    (302, "Found"),
    (303, "See Other"),
    (304, "Not Modified"),
    (305, "Use Proxy"),
    (307, "Temporary Redirect"),
    (308, "Permanent Redirect"),
    (400, "Bad Request"),
    (401, "Unauthorized"),
    (402, "Payment Required"),
    (403, "Forbidden"),
    (404, "Not Found"),
    (405, "Method Not Allowed"),
    (406, "Not Acceptable"),
    (407, "Proxy Authentication Required"),
    (408, "Request Timeout"),
    (409, "Conflict"),
    (410, "Gone"),
    (411, "Length Required"),
    (412, "Precondition Failed"),
    (413, "Content Too Large"),
    (414, "URI Too Long"),
    (415, "Unsupported Media Type"),
    (416, "Range Not Satisfiable"),
    (417, "Expectation Failed"),
    (418, "I'm a teapot"),
    (421, "Misdirected Request"),
    (422, "Unprocessable Content"),
    (423, "Locked"),
    (424, "Failed Dependency"),
    (425, "Too Early"),
    (426, "Upgrade Required"),
    (428, "Precondition Required"),
    (429, "Too Many Requests"),
    (431, "Request Header Fields Too Large"),
    (451, "Unavailable For Legal Reasons"),
    (500, "Internal Server Error"),
    (501, "Not Implemented"),
    (502, "Bad Gateway"),
    (503, "Service Unavailable"),
    (504, "Gateway Timeout"),
    (505, "HTTP Version Not Supported"),
    (506, "Variant Also Negotiates"),
    (507, "Insufficient Storage"),
    (508, "Loop Detected"),
    (510, "Not Extended"),
    (511, "Network Authentication Required"),
];

/// An answer, as an application makes it.
pub struct Response {
    /// Its status.
    pub status: Status,
    /// Its fields, without those that belong to the server.
    pub headers: Headers,
    /// What follows the head.
    pub body: Body,
}

/// The body of an answer.
pub enum Body {
    /// All of it, in memory.
    Whole(Cow<'static, [u8]>),
    /// A source that is read piece by piece. What it returns from one `read` is sent before the
    /// next `read`, so a slow source is seen as it comes.
    Stream {
        /// How much it will give, if that is known.
        length: Option<u64>,
        /// Where it comes from.
        source: Box<dyn Read + Send>,
    },
}

/// Streams move through a buffer of this size: one copy in, one copy out.
const BLOCK: usize = 256 * 1024;

impl Response {
    /// An answer with no fields and an empty body.
    pub fn new(status: Status) -> Response {
        Response { status, headers: Headers::new(), body: Body::Whole(Cow::Borrowed(b"")) }
    }

    /// An answer of plain text.
    pub fn text(status: Status, text: impl Into<Cow<'static, str>>) -> Response {
        Response::typed(status, FieldValue::constant("text/plain; charset=utf-8"), text.into())
    }

    /// A page.
    pub fn html(status: Status, html: impl Into<Cow<'static, str>>) -> Response {
        Response::typed(status, FieldValue::constant("text/html; charset=utf-8"), html.into())
    }

    /// An answer whose body comes from a reader.
    pub fn stream(length: Option<u64>, source: Box<dyn Read + Send>) -> Response {
        let body = Body::Stream { length, source };
        Response { body, ..Response::new(Status::OK) }
    }

    fn typed(status: Status, kind: FieldValue, text: Cow<'static, str>) -> Response {
        let bytes = match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Response { body: Body::Whole(bytes), ..Response::new(status) }.with(CONTENT_TYPE, kind)
    }

    /// The same answer with one more field.
    pub fn with(mut self, name: Token, value: FieldValue) -> Response {
        self.headers.push(name, value);
        self
    }

    /// Sends all of it.
    ///
    /// # Errors
    /// Those of the writer, and those of the source, as [`ResponseError::Source`].
    pub fn send(
        self,
        writer: &mut ResponseWriter,
        out: &mut impl Write,
    ) -> Result<(), ResponseError> {
        match self.body {
            Body::Whole(bytes) => {
                writer.start(out, self.status, &self.headers, Some(bytes.len() as u64))?;
                writer.write(out, &bytes)?;
            }
            Body::Stream { length, source } => {
                writer.start(out, self.status, &self.headers, length)?;
                if !writer.swallows_body() {
                    copy_stream(source, writer, out)?;
                }
            }
        }
        writer.finish(out)
    }
}

fn copy_stream(
    mut source: Box<dyn Read + Send>,
    writer: &mut ResponseWriter,
    out: &mut impl Write,
) -> Result<(), ResponseError> {
    let mut block = vec![0; BLOCK];
    writer.flush(out)?;
    loop {
        match source.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(count) => writer.write(out, block.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(writer.fail(ResponseError::Source(error.kind()))),
        }
        writer.flush(out)?;
    }
}

/// Writes one answer in the order the protocol wants: head, body, end.
///
/// It holds the decisions that the request has made already, and needs no socket.
#[derive(Debug)]
pub struct ResponseWriter {
    version: Version,
    answers_head: bool,
    keep_alive: bool,
    state: State,
    body_sent: u64,
}

/// Where an answer has got to, and how its body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    /// So many bytes are still owed.
    Length(u64),
    Chunked,
    UntilClose,
    /// No body may be sent: what the application writes is thrown away.
    Bodiless,
    Finished,
    /// The wire or the source has failed. A part is missing now, so nothing may follow it.
    Failed(ResponseError),
}

impl ResponseWriter {
    /// A writer for the answer to `head`. It says `Connection: close` unless `keep_alive`.
    pub fn new(head: &RequestHead, keep_alive: bool) -> ResponseWriter {
        let (answers_head, state) = (head.method == Method::Head, State::Waiting);
        ResponseWriter { version: head.version, answers_head, keep_alive, state, body_sent: 0 }
    }

    /// A writer for an answer to something that could not be read as a request.
    pub fn for_no_request() -> ResponseWriter {
        let (version, state) = (Version::Http11, State::Waiting);
        ResponseWriter { version, answers_head: false, keep_alive: false, state, body_sent: 0 }
    }

    /// Whether the connection may be used again after this answer.
    pub fn keeps_alive(&self) -> bool {
        self.keep_alive
    }

    /// Decides that the connection ends after this answer. Works until the head is written.
    pub fn close_after(&mut self) {
        self.keep_alive = false;
    }

    /// Whether the head has been written, or a part of it: from then on the status cannot change.
    pub fn has_started(&self) -> bool {
        self.state != State::Waiting
    }

    /// Whether the whole answer has been written.
    pub fn has_finished(&self) -> bool {
        self.state == State::Finished
    }

    /// Whether a write has failed: nobody is there to read on.
    pub fn has_lost_peer(&self) -> bool {
        matches!(self.state, State::Failed(ResponseError::Wire(_)))
    }

    /// How many bytes of the body have been written, without the lines around chunks: for logs.
    pub fn body_sent(&self) -> u64 {
        self.body_sent
    }

    /// Whether a body given to [`ResponseWriter::write`] would be thrown away.
    pub fn swallows_body(&self) -> bool {
        self.state == State::Bodiless
    }

    /// Writes the head. `length` is the length of the body to come, if it is known; a
    /// Content-Length among `headers` says the same.
    ///
    /// # Errors
    /// [`ResponseError::AlreadyStarted`], or the rule that `status` or `headers` break; nothing has
    /// been written then. Or an error of `out`.
    pub fn start(
        &mut self,
        out: &mut impl Write,
        status: Status,
        headers: &Headers,
        length: Option<u64>,
    ) -> Result<(), ResponseError> {
        if self.has_started() {
            return Err(ResponseError::AlreadyStarted);
        }
        // RFC 9110, section 15.2: after a 1xx the client waits for the answer itself, but for 101,
        // and to HTTP/1.0 none may be sent.
        let switches = status == Status::SWITCHING_PROTOCOLS && self.version == Version::Http11;
        if status.code() < 200 && !switches {
            return Err(ResponseError::NotFinal(status));
        }
        if let Some(name) = SERVER_FIELDS.iter().find(|name| headers.contains(**name)) {
            return Err(ResponseError::ServerField(name.as_str()));
        }
        let length = declared_length(headers)?.or(length);
        let framing = self.choose_framing(status, length);
        if framing == State::UntilClose {
            self.keep_alive = false;
        }
        // Built in memory and written at once: a head is some ten small pieces.
        let mut text = Vec::with_capacity(HEAD_ROOM);
        push_status_line(&mut text, status);
        for (name, value) in headers.iter().filter(|(name, _)| *name != CONTENT_LENGTH) {
            push_field(&mut text, name, value.as_bytes());
        }
        if !headers.contains(DATE) {
            let date = HttpDate::now().to_string();
            push_field(&mut text, DATE, date.as_bytes());
        }
        if !headers.contains(SERVER) {
            push_field(&mut text, SERVER, b"glasshouse");
        }
        self.push_framing(&mut text, status, length);
        self.push_connection(&mut text, status, headers.contains(UPGRADE));
        text.extend_from_slice(b"\r\n");
        self.put(out, &text)?;
        self.state = framing;
        Ok(())
    }

    /// The table at the top of this file.
    fn choose_framing(&self, status: Status, length: Option<u64>) -> State {
        match (length, self.version) {
            _ if status.forbids_body() || self.answers_head => State::Bodiless,
            (Some(length), _) => State::Length(length),
            (None, Version::Http11) => State::Chunked,
            (None, Version::Http10) => State::UntilClose,
        }
    }

    /// The answer to HEAD carries the same fields here as the answer to GET would.
    fn push_framing(&self, text: &mut Vec<u8>, status: Status, length: Option<u64>) {
        match (length, self.version) {
            _ if status == Status::RESET_CONTENT => push_field(text, CONTENT_LENGTH, b"0"),
            // RFC 9110, section 8.6: no Content-Length in 1xx and 204. In 304 it would be that of
            // the 200 answer, which we do not know.
            _ if status.forbids_body() => {}
            (Some(length), _) => {
                text.extend_from_slice(b"Content-Length: ");
                push_decimal(text, length);
                text.extend_from_slice(b"\r\n");
            }
            (None, Version::Http11) => push_field(text, TRANSFER_ENCODING, b"chunked"),
            (None, Version::Http10) => {}
        }
    }

    fn push_connection(&self, text: &mut Vec<u8>, status: Status, upgrade: bool) {
        let persistence: &[u8] = match (self.keep_alive, self.version) {
            _ if status == Status::SWITCHING_PROTOCOLS => b"",
            (false, _) => b"close",
            (true, Version::Http10) => b"keep-alive",
            // RFC 9112, section 9.3: in HTTP/1.1 this needs no saying.
            (true, Version::Http11) => b"",
        };
        // RFC 9110, section 7.8: whoever sends Upgrade names it in Connection too.
        match (persistence, upgrade) {
            (b"", false) => {}
            (b"", true) => push_field(text, CONNECTION, b"Upgrade"),
            (_, false) => push_field(text, CONNECTION, persistence),
            (_, true) => push_field(text, CONNECTION, &[persistence, b", Upgrade"].concat()),
        }
    }

    /// Writes a piece of the body. An empty piece writes nothing: an empty chunk would be the end.
    ///
    /// # Errors
    /// [`ResponseError::NotStarted`]; [`ResponseError::TooLong`] after the declared length has
    /// been written and more was given; or an error of `out`.
    pub fn write(&mut self, out: &mut impl Write, bytes: &[u8]) -> Result<(), ResponseError> {
        match self.state {
            State::Waiting | State::Finished => return Err(ResponseError::NotStarted),
            State::Failed(error) => return Err(error),
            State::Bodiless => {}
            _ if bytes.is_empty() => {}
            State::Length(left) => {
                let fitting = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                self.put_body(out, bytes.get(..fitting).unwrap_or_default())?;
                self.state = State::Length(left - fitting as u64);
                if fitting < bytes.len() {
                    return Err(ResponseError::TooLong);
                }
            }
            State::Chunked => {
                // chunk = chunk-size CRLF chunk-data CRLF        RFC 9112, section 7.1
                self.put(out, format!("{:x}\r\n", bytes.len()).as_bytes())?;
                self.put_body(out, bytes)?;
                self.put(out, b"\r\n")?;
            }
            State::UntilClose => self.put_body(out, bytes)?,
        }
        Ok(())
    }

    /// Ends the answer. After it, another answer may follow on the same connection.
    ///
    /// # Errors
    /// [`ResponseError::NotStarted`]; [`ResponseError::TooShort`] if less was written than
    /// declared: then only closing the connection tells the client that something is missing.
    pub fn finish(&mut self, out: &mut impl Write) -> Result<(), ResponseError> {
        match self.state {
            State::Waiting => return Err(ResponseError::NotStarted),
            State::Failed(error) => return Err(error),
            State::Length(left) if left > 0 => return Err(ResponseError::TooShort(left)),
            // last-chunk = 1*("0") [ chunk-ext ] CRLF, an empty trailer section, CRLF
            State::Chunked => self.put(out, b"0\r\n\r\n")?,
            _ => {}
        }
        self.state = State::Finished;
        Ok(())
    }

    fn put_body(&mut self, out: &mut impl Write, bytes: &[u8]) -> Result<(), ResponseError> {
        self.put(out, bytes)?;
        self.body_sent += bytes.len() as u64;
        Ok(())
    }

    /// A write that fails may have sent a part: how much, nobody knows.
    fn put(&mut self, out: &mut impl Write, bytes: &[u8]) -> Result<(), ResponseError> {
        out.write_all(bytes).map_err(|error| self.fail(error.into()))
    }

    /// Sends what has been written so far.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn flush(&mut self, out: &mut impl Write) -> Result<(), ResponseError> {
        out.flush().map_err(|error| self.fail(error.into()))
    }

    /// From now on each call returns `error`, also to an application that does not look at it.
    fn fail(&mut self, error: ResponseError) -> ResponseError {
        self.state = State::Failed(error);
        error
    }
}

/// The fields by which one connection is managed. An application that sets one of them would
/// contradict what the server does. RFC 9110, section 7.6.1; PEP 3333 forbids them too.
pub const SERVER_FIELDS: &[Token] = &[
    CONNECTION,
    TRANSFER_ENCODING,
    Token::constant("Keep-Alive"),
    Token::constant("Proxy-Connection"),
    Token::constant("TE"),
    TRAILER,
];

/// The length that the application itself has declared.
///
/// # Errors
/// [`ResponseError::BadLength`].
pub fn declared_length(headers: &Headers) -> Result<Option<u64>, ResponseError> {
    let mut found = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let digits = value.as_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        match (digits.and_then(|digits| digits.parse().ok()), found) {
            (Some(length), None) => found = Some(length),
            _ => return Err(ResponseError::BadLength),
        }
    }
    Ok(found)
}

/// Room for most heads, in bytes, so that the text seldom has to move.
const HEAD_ROOM: usize = 512;

// status-line = HTTP-version SP status-code SP [ reason-phrase ]        RFC 9112, section 4
fn push_status_line(text: &mut Vec<u8>, status: Status) {
    text.extend_from_slice(b"HTTP/1.1 ");
    push_decimal(text, u64::from(status.code()));
    text.push(b' ');
    text.extend_from_slice(status.reason().as_bytes());
    text.extend_from_slice(b"\r\n");
}

fn push_field(text: &mut Vec<u8>, name: Token, value: &[u8]) {
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(b": ");
    text.extend_from_slice(value);
    text.extend_from_slice(b"\r\n");
}

/// The digits come out last one first. (`write!` does the same, by a longer way.)
fn push_decimal(text: &mut Vec<u8>, mut number: u64) {
    let start = text.len();
    loop {
        text.push(b'0' + (number % 10) as u8);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    if let Some(digits) = text.get_mut(start..) {
        digits.reverse();
    }
}

/// What an application can do wrong with its answer, and what can go wrong on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseError {
    /// The head has been written already.
    AlreadyStarted,
    /// A body needs a head before it, and nothing may follow the end.
    NotStarted,
    /// This status is a step on the way to an answer, not an answer.
    NotFinal(Status),
    /// This field belongs to the server.
    ServerField(&'static str),
    /// The Content-Length is not one decimal number.
    BadLength,
    /// The body is longer than its Content-Length.
    TooLong,
    /// The body is shorter than its Content-Length, by so many bytes.
    TooShort(u64),
    /// The source of the body failed.
    Source(io::ErrorKind),
    /// The peer cannot be written to any more.
    Wire(io::ErrorKind),
}

impl ResponseError {
    /// The rule that was broken, where one was.
    pub fn rule(&self) -> &'static str {
        match self {
            ResponseError::AlreadyStarted | ResponseError::NotStarted => "RFC 9112, section 2.1",
            ResponseError::NotFinal(_) => "RFC 9110, section 15.2",
            ResponseError::ServerField(_) => "RFC 9110, section 7.6.1",
            ResponseError::BadLength => "RFC 9110, section 8.6",
            ResponseError::TooLong | ResponseError::TooShort(_) => "RFC 9112, section 6.3",
            ResponseError::Source(_) | ResponseError::Wire(_) => "RFC 9112, section 8",
        }
    }
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            ResponseError::AlreadyStarted => write!(f, "the answer has begun already"),
            ResponseError::NotStarted => write!(f, "a body was written outside of an answer"),
            ResponseError::NotFinal(status) => {
                write!(f, "the status {} cannot be the answer to this request", status.code())
            }
            ResponseError::ServerField(name) => {
                write!(f, "the field {name} belongs to the server, not to the application")
            }
            ResponseError::BadLength => write!(f, "the Content-Length is not one decimal number"),
            ResponseError::TooLong => write!(f, "the body is longer than its Content-Length"),
            ResponseError::TooShort(missing) => {
                write!(f, "the body is {missing} bytes shorter than its Content-Length")
            }
            ResponseError::Source(kind) => write!(f, "the source of the body failed: {kind}"),
            ResponseError::Wire(kind) => write!(f, "the answer could not be sent: {kind}"),
        }
    }
}

impl std::error::Error for ResponseError {}

impl From<io::Error> for ResponseError {
    fn from(error: io::Error) -> ResponseError {
        ResponseError::Wire(error.kind())
    }
}

impl From<ResponseError> for io::Error {
    fn from(error: ResponseError) -> io::Error {
        match error {
            ResponseError::Wire(kind) | ResponseError::Source(kind) => kind.into(),
            _ => io::Error::new(io::ErrorKind::InvalidInput, error),
        }
    }
}
