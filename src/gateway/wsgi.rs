//! Chapter 16: WSGI. PEP 3333.
//!
//! A server should not care how an application is written, nor an application which server runs
//! it. Python's answer to that is a contract of one call, and this is the same contract in Rust:
//!
//! ```text
//!   server                                              application
//!     │  call(environ, start_response)                       │
//!     │─────────────────────────────────────────────────────►│
//!     │            environ.input.read(...)                   │   as often as it likes
//!     │◄────────────────────────────────────────────────────►│
//!     │            start_response("200 OK", fields)          │   kept, not yet sent
//!     │◄─────────────────────────────────────────────────────│
//!     │  an iterable of chunks                               │
//!     │◄─────────────────────────────────────────────────────│
//!     │  next_chunk()   the head leaves with the first chunk │
//!     │◄────────────────────────────────────────────────────►│   until it ends
//!     │  close()        exactly once, whatever has happened  │
//!     │─────────────────────────────────────────────────────►│
//! ```

use std::borrow::Cow;
use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind, LineWriter, Read, Stderr, Write};
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::http::exchange::{Exchange, Handler};
use crate::http::headers::{
    CONTENT_LENGTH, CONTENT_TYPE, FieldError, FieldValue, Headers, Token, UPGRADE,
};
use crate::http::refusal::Refusal;
use crate::http::request::{Method, RequestHead, Version};
use crate::http::response::{ResponseError, SERVER_FIELDS, Status, declared_length};
use crate::http::url::percent_decode;
use crate::socket::lobby::Guest;

/// What an application raises when something goes wrong. Any error turns into one with `?`.
pub type Exception = Box<dyn Error + Send + Sync>;

/// What a call gives back: the body, which may use what the call was given, or an exception.
pub type Chunks<'a> = Result<Box<dyn Iterable + 'a>, Exception>;

/// An application. The same one is called by many threads at once.
pub trait Application: Send + Sync {
    /// Called once for each request, on the thread of its connection. `'a` is the time of this
    /// request: until its end the environ may be read and chunks may be asked for.
    ///
    /// # Errors
    /// An exception becomes 500 if no head has been sent; otherwise the answer is cut. So does a
    /// panic.
    fn call<'a>(&self, environ: Environ<'a>, start_response: StartResponse<'a>) -> Chunks<'a>;
}

/// A function is an application, as in Python.
impl<F> Application for F
where
    F: for<'a> Fn(Environ<'a>, StartResponse<'a>) -> Chunks<'a> + Send + Sync,
{
    fn call<'a>(&self, environ: Environ<'a>, start_response: StartResponse<'a>) -> Chunks<'a> {
        self(environ, start_response)
    }
}

/// The body of an answer: chunks that are made when they are asked for. Each chunk is sent before
/// the next one is asked for.
pub trait Iterable {
    /// The next chunk, or `None` at the end. An empty chunk sends nothing, not even the head.
    fn next_chunk(&mut self) -> Option<Result<Vec<u8>, Exception>>;

    /// How many chunks there will be, if that is known: what `len()` says in Python. The length of
    /// a single chunk is the length of the body.
    fn chunks(&self) -> Option<usize> {
        None
    }

    /// Called exactly once, after the last chunk was sent or when the gateway gives up: because
    /// the client has gone, or something has failed. Not all chunks may have been asked for.
    fn close(&mut self) {}
}

/// Any iterator over chunks will do: a list of one, `vec![body].into_iter()`, is the usual one.
impl<I: Iterator<Item = Vec<u8>>> Iterable for I {
    fn next_chunk(&mut self) -> Option<Result<Vec<u8>, Exception>> {
        self.next().map(Ok)
    }

    fn chunks(&self) -> Option<usize> {
        let (least, most) = self.size_hint();
        most.filter(|most| *most == least)
    }
}

/// `wsgi.file_wrapper`: a source, block by block. It is dropped, and so closed, at the end.
pub struct FileWrapper<R> {
    source: R,
    block: usize,
}

impl<R: Read> FileWrapper<R> {
    /// Wraps a source. Each chunk has at most `block` bytes.
    pub fn new(source: R, block: usize) -> FileWrapper<R> {
        FileWrapper { source, block: block.max(1) }
    }
}

impl<R: Read> Iterable for FileWrapper<R> {
    fn next_chunk(&mut self) -> Option<Result<Vec<u8>, Exception>> {
        let mut chunk = vec![0; self.block];
        loop {
            match self.source.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => {
                    chunk.truncate(count);
                    return Some(Ok(chunk));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}

/// What an application is told about a request. It is a view of the request head: a value is made
/// when it is asked for.
///
/// Strings are what PEP 3333 calls native: each character stands for one byte, U+00E9 for 0xE9.
/// [`Environ::path`] has the path as real text. Nothing of the process's own environment is here.
pub struct Environ<'a> {
    /// `wsgi.input`: the request body. It ends where the body ends (`wsgi.input_terminated`), and
    /// fails if the body breaks a rule.
    pub input: Input<'a>,
    head: Arc<RequestHead>,
    path_info: Vec<u8>,
    guest: Arc<Guest>,
    client: SocketAddr,
    scheme: &'static str,
    gateway: &'a Wsgi,
    many_threads: bool,
    added: Vec<(String, String)>,
}

type Find = for<'e> fn(&'e Environ) -> Cow<'e, str>;

/// The variables that every request has, and how each is found. PEP 3333, "environ Variables".
const VARIABLES: &[(&str, Find)] = &[
    ("REQUEST_METHOD", |environ| environ.head.method.as_str().into()),
    ("SCRIPT_NAME", |environ| environ.gateway.script_name.as_str().into()),
    ("PATH_INFO", |environ| native(&environ.path_info)),
    ("QUERY_STRING", |environ| environ.head.target.query().unwrap_or_default().into()),
    ("SERVER_NAME", |environ| server_name(environ.server().ip()).into()),
    ("SERVER_PORT", |environ| environ.server().port().to_string().into()),
    ("SERVER_PROTOCOL", |environ| protocol(environ.head.version).into()),
    ("REMOTE_ADDR", |environ| environ.peer().ip().to_string().into()),
    ("REMOTE_PORT", |environ| environ.peer().port().to_string().into()),
    ("wsgi.version", |_| "(1, 0)".into()),
    ("wsgi.url_scheme", |environ| environ.scheme.into()),
    ("wsgi.multithread", |environ| python_bool(environ.many_threads).into()),
    ("wsgi.multiprocess", |environ| python_bool(environ.gateway.many_processes).into()),
    ("wsgi.run_once", |_| python_bool(false).into()),
    ("wsgi.input_terminated", |_| python_bool(true).into()),
];

/// Two fields have a variable of their own, without `HTTP_`. RFC 3875, sections 4.1.2 and 4.1.3.
const OWN_NAMES: &[(&str, Token)] =
    &[("CONTENT_TYPE", CONTENT_TYPE), ("CONTENT_LENGTH", CONTENT_LENGTH)];

/// Bytes as a native string.
pub fn native(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => Cow::Borrowed(text),
        _ => Cow::Owned(bytes.iter().map(|&byte| char::from(byte)).collect()),
    }
}

// server-name = hostname / ipv4-address / ( "[" ipv6-address "]" )        RFC 3875, section 4.1.14
fn server_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
    }
}

fn python_bool(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// The address at which this client has reached us. One that is bound to all of them is none.
pub fn reached(bound: SocketAddr, guest: &Guest) -> SocketAddr {
    if !bound.ip().is_unspecified() {
        return bound;
    }
    guest.stream.local_addr().unwrap_or(bound)
}

impl Environ<'_> {
    /// The value of a variable, or `None` if there is none of that name.
    pub fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        if let Some((_, value)) = self.added.iter().rev().find(|(key, _)| key == name) {
            return Some(Cow::Borrowed(value));
        }
        if let Some((_, find)) = VARIABLES.iter().find(|(key, _)| *key == name) {
            return Some(find(self));
        }
        if let Some((_, token)) = OWN_NAMES.iter().find(|(key, _)| *key == name) {
            return self.head.headers.get(*token).map(|value| native(value.as_bytes()));
        }
        self.field(name.strip_prefix("HTTP_")?)
    }

    /// Sets a variable, as middleware does for the application behind it.
    pub fn set(&mut self, name: &str, value: &str) {
        self.added.push((name.to_string(), value.to_string()));
    }

    /// All variables with their values, as an application in another process needs them.
    pub fn variables(&self) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
        let fixed = VARIABLES.iter().map(|(name, _)| *name);
        let fixed = fixed.chain(OWN_NAMES.iter().map(|(name, _)| *name)).chain(["HTTP_HOST"]);
        let mut names: Vec<Cow<'_, str>> = fixed.map(Cow::Borrowed).collect();
        for (name, _) in self.head.headers.iter().filter(|(name, _)| has_variable(*name)) {
            names.push("HTTP_".chars().chain(variable_name(name)).collect());
        }
        names.extend(self.added.iter().map(|(name, _)| Cow::Borrowed(name.as_str())));
        names.sort_unstable();
        names.dedup();
        names.into_iter().filter_map(|name| self.get(&name).map(|value| (name, value))).collect()
    }

    /// The path as text, if its bytes are UTF-8.
    pub fn path(&self) -> Option<&str> {
        std::str::from_utf8(&self.path_info).ok()
    }

    /// The request as the server has read it.
    pub fn head(&self) -> &Arc<RequestHead> {
        &self.head
    }

    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.client
    }

    /// The address at which the client has reached the server.
    pub fn server(&self) -> SocketAddr {
        reached(self.gateway.bound, &self.guest)
    }

    /// `wsgi.errors`: the server's log. A line is written when it is complete.
    pub fn errors(&self) -> LineWriter<Stderr> {
        LineWriter::new(io::stderr())
    }

    /// All values of a field, joined as PEP 3333 joins them: cookies are one list with `;`.
    fn field(&self, name: &str) -> Option<Cow<'_, str>> {
        let host = &self.head.host;
        if name == "HOST" && !host.is_empty() {
            // RFC 9112, section 3.2.2: the host in the target wins over the field.
            return Some(Cow::Borrowed(host));
        }
        let separator = if name == "COOKIE" { "; " } else { ", " };
        let mut joined: Option<Cow<'_, str>> = None;
        for (field, value) in self.head.headers.iter() {
            if has_variable(field) && variable_name(field).eq(name.chars()) {
                let value = native(value.as_bytes());
                joined = Some(match joined {
                    Some(first) => first + separator + value,
                    None => value,
                });
            }
        }
        joined
    }
}

/// `X_Real_IP` and `X-Real-IP` would become the same variable, and so a client could set what only
/// a proxy may set. A name with an underscore gets no variable, as in nginx.
fn has_variable(name: Token) -> bool {
    let own = OWN_NAMES.iter().any(|(_, token)| *token == name);
    !own && !name.as_str().contains('_')
}

/// `CONTENT_LANGUAGE` for `Content-Language`, letter by letter.
fn variable_name(name: Token) -> impl Iterator<Item = char> {
    let upper = |letter: char| if letter == '-' { '_' } else { letter.to_ascii_uppercase() };
    name.as_str().chars().map(upper)
}

/// What an application can do to its exchange while the call lasts. Behind it the exchange's own
/// lifetime stays hidden: the handles below need only one.
trait Channel {
    fn read(&self, out: &mut [u8]) -> io::Result<usize>;
    fn has_body_here(&self) -> bool;
    fn announce(
        &self,
        head: Result<ResponseHead, WsgiError>,
        exc_info: Option<Exception>,
    ) -> Result<(), Exception>;
    fn write(&self, bytes: &[u8]) -> Result<(), Exception>;
}

/// The request body, as `wsgi.input` gives it. `BufReader` adds `readline`.
pub struct Input<'a> {
    channel: &'a dyn Channel,
}

impl Input<'_> {
    /// Whether the next read does not wait, as [`Exchange::has_body_here`] says.
    pub fn is_ready(&self) -> bool {
        self.channel.has_body_here()
    }
}

impl Read for Input<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.channel.read(out)
    }
}

/// The callable with which an application announces its answer.
#[derive(Clone, Copy)]
pub struct StartResponse<'a> {
    channel: &'a dyn Channel,
}

/// The callable that `start_response` returns, for applications that push. Each write is sent at
/// once. The chunks of the iterable come after it.
pub struct WriteCallable<'a> {
    channel: &'a dyn Channel,
}

impl<'a> StartResponse<'a> {
    /// Announces status and fields. They are kept until the first chunk that is not empty.
    ///
    /// # Errors
    /// A [`WsgiError`]: the rule that is broken, or that it was called before.
    pub fn call(
        &self,
        status: &str,
        fields: &[(&str, &str)],
    ) -> Result<WriteCallable<'a>, Exception> {
        self.channel.announce(ResponseHead::parse(status, fields), None)?;
        Ok(WriteCallable { channel: self.channel })
    }

    /// Announces another answer, because something has failed. If the head has gone out already,
    /// it is too late, and `exc_info` comes back as the error.
    ///
    /// # Errors
    /// As [`StartResponse::call`], or `exc_info`.
    pub fn call_after_error(
        &self,
        status: &str,
        fields: &[(&str, &str)],
        exc_info: Exception,
    ) -> Result<WriteCallable<'a>, Exception> {
        self.channel.announce(ResponseHead::parse(status, fields), Some(exc_info))?;
        Ok(WriteCallable { channel: self.channel })
    }
}

impl Write for WriteCallable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.channel.write(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Status and fields, checked.
struct ResponseHead {
    status: Status,
    headers: Headers,
}

impl ResponseHead {
    fn parse(status: &str, fields: &[(&str, &str)]) -> Result<ResponseHead, WsgiError> {
        let status = parse_status(status)?;
        let mut headers = Headers::new();
        for (name, value) in fields {
            let token = Token::new(name.as_bytes()).map_err(WsgiError::Field)?;
            if token == UPGRADE || SERVER_FIELDS.contains(&token) {
                return Err(WsgiError::HopByHop((*name).to_string()));
            }
            let value = latin_1(value).ok_or(WsgiError::NotLatin1((*name).to_string()))?;
            headers.push(token, FieldValue::new(&value).map_err(WsgiError::Field)?);
        }
        declared_length(&headers).map_err(WsgiError::Answer)?;
        Ok(ResponseHead { status, headers })
    }
}

/// "404 Not Found": three digits, one space, words. PEP 3333, "The start_response() Callable". We
/// send our own words for the code: RFC 9112, section 4 wants clients to ignore them.
fn parse_status(text: &str) -> Result<Status, WsgiError> {
    let wrong = || WsgiError::Status(text.to_string());
    let (digits, words) = text.split_once(' ').ok_or_else(wrong)?;
    let trimmed = !words.is_empty() && words.trim_ascii() == words;
    if digits.len() != 3 || !trimmed || words.contains(|letter: char| letter.is_ascii_control()) {
        return Err(wrong());
    }
    let code = digits.parse().ok().and_then(Status::new).ok_or_else(wrong)?;
    if code.code() < 200 { Err(wrong()) } else { Ok(code) }
}

/// A native string as bytes; `None` if a character is none of the first 256.
fn latin_1(text: &str) -> Option<Cow<'_, [u8]>> {
    if text.is_ascii() {
        return Some(Cow::Borrowed(text.as_bytes()));
    }
    text.chars().map(|character| u8::try_from(character).ok()).collect()
}

/// One request on its way through the gateway. The application and the gateway use it in turn.
struct Conversation<'e> {
    exchange: RefCell<&'e mut Exchange>,
    announcement: RefCell<Announcement>,
}

/// What `start_response` has been told.
enum Announcement {
    /// It has not been called.
    Missing,
    /// A head that has not been sent yet.
    Ready(ResponseHead),
    /// It has been called. The head has been sent, or was faulty.
    Spent,
}

impl Channel for Conversation<'_> {
    fn read(&self, out: &mut [u8]) -> io::Result<usize> {
        self.exchange.borrow_mut().read(out)
    }

    fn has_body_here(&self) -> bool {
        self.exchange.borrow_mut().has_body_here()
    }

    fn announce(
        &self,
        head: Result<ResponseHead, WsgiError>,
        exc_info: Option<Exception>,
    ) -> Result<(), Exception> {
        let mut announcement = self.announcement.borrow_mut();
        match (exc_info, &*announcement) {
            (Some(exc_info), _) if self.exchange.borrow().has_started() => return Err(exc_info),
            (Some(_), _) | (None, Announcement::Missing) => {}
            (None, _) => return Err(WsgiError::CalledTwice.into()),
        }
        // A faulty call is a call too: after it only one with an exception is allowed.
        *announcement = Announcement::Spent;
        *announcement = Announcement::Ready(head?);
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> Result<(), Exception> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.send_head(None)?;
        self.exchange.borrow_mut().write_body(bytes).map_err(named)
    }
}

impl Conversation<'_> {
    /// Sends the head if it has not been sent. `length` is that of the whole body, if it is known.
    fn send_head(&self, length: Option<u64>) -> Result<(), Exception> {
        let mut exchange = self.exchange.borrow_mut();
        if exchange.has_started() {
            return Ok(());
        }
        match self.announcement.replace(Announcement::Spent) {
            Announcement::Ready(head) => {
                exchange.start(head.status, &head.headers, length).map_err(named)
            }
            _ => Err(WsgiError::NotCalled.into()),
        }
    }

    /// Asks for chunks and sends each before it asks for the next.
    fn send_body(&self, iterable: Box<dyn Iterable + '_>) -> Result<(), Exception> {
        let mut body = Closing { iterable };
        let single = body.iterable.chunks() == Some(1);
        while let Some(chunk) = body.iterable.next_chunk() {
            let chunk = chunk?;
            if single && !chunk.is_empty() {
                self.send_head(Some(chunk.len() as u64))?;
                return self.finish_with(&chunk);
            }
            self.write(&chunk)?;
            if self.wants_no_body() {
                // The chunks may have no end, and nobody would see them.
                break;
            }
        }
        // The answer to HEAD may be empty where the answer to GET is not: then say no length.
        let is_head = self.exchange.borrow().head.method == Method::Head;
        self.send_head(if is_head { None } else { Some(0) })?;
        self.finish_with(&[])
    }

    /// Whether the head has been sent, and no body may follow it.
    fn wants_no_body(&self) -> bool {
        let exchange = self.exchange.borrow();
        let is_head = exchange.head.method == Method::Head;
        exchange.status().is_some_and(|status| is_head || status.forbids_body())
    }

    fn finish_with(&self, last: &[u8]) -> Result<(), Exception> {
        self.exchange.borrow_mut().finish_with(last).map_err(named)
    }
}

/// If an application has broken a rule of the answer, the error names it.
fn named(error: io::Error) -> Exception {
    match error.downcast::<ResponseError>() {
        Ok(error) => WsgiError::Answer(error).into(),
        Err(error) => error.into(),
    }
}

/// Calls `close` when it goes, whichever way the gateway is left: at the end, by an error, or
/// because a panic unwinds.
struct Closing<'a> {
    iterable: Box<dyn Iterable + 'a>,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        // A second panic, while the first unwinds, would end the whole process.
        let _ = catch_unwind(AssertUnwindSafe(|| self.iterable.close()));
    }
}

/// The gateway: makes a handler of an application.
pub struct Wsgi {
    application: Arc<dyn Application>,
    bound: SocketAddr,
    script_name: String,
    many_processes: bool,
}

impl Wsgi {
    /// `bound` is the address that the server is bound to.
    pub fn new(application: Arc<dyn Application>, bound: SocketAddr) -> Wsgi {
        Wsgi { application, bound, script_name: String::new(), many_processes: false }
    }

    /// The same behind a proxy that shows the application under a path, such as `/shop`, and takes
    /// that path away before it asks us: `SCRIPT_NAME`.
    pub fn below(mut self, root_path: &str) -> Wsgi {
        self.script_name = root_path.to_string();
        self
    }

    /// The same as one of several processes that serve the application: `wsgi.multiprocess`.
    pub fn in_many_processes(mut self, many: bool) -> Wsgi {
        self.many_processes = many;
        self
    }
}

impl Handler for Wsgi {
    fn handle(&self, exchange: &mut Exchange) -> io::Result<()> {
        let head = Arc::clone(&exchange.head);
        let path_info = match percent_decode(head.target.path()) {
            Ok(path) => path,
            // There is no PATH_INFO that the application could be told.
            Err(error) => return exchange.respond(Refusal::from(error).response()),
        };
        let guest = Arc::clone(&exchange.link.guest);
        let (client, scheme) = (exchange.client, exchange.scheme);
        let many_threads = exchange.link.lobby.door.cap > 1;
        let conversation = Conversation {
            exchange: RefCell::new(exchange),
            announcement: RefCell::new(Announcement::Missing),
        };
        let input = Input { channel: &conversation };
        let environ = Environ {
            input,
            head,
            path_info,
            guest,
            client,
            scheme,
            gateway: self,
            many_threads,
            added: Vec::new(),
        };
        let start_response = StartResponse { channel: &conversation };
        let iterable = self.application.call(environ, start_response);
        let outcome = iterable.and_then(|iterable| conversation.send_body(iterable));
        outcome.map_err(io::Error::other)
    }
}

/// What an application can do wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WsgiError {
    /// `start_response` was called a second time, without an exception.
    CalledTwice,
    /// A body was given, or has ended, and no call of `start_response` had succeeded.
    NotCalled,
    /// The status is not three digits from 200 to 599, a space and words.
    Status(String),
    /// The value of this field has a character that is none of the first 256.
    NotLatin1(String),
    /// This field is about one connection, and so the server's business.
    HopByHop(String),
    /// A field is wrong.
    Field(FieldError),
    /// The body does not fit the head.
    Answer(ResponseError),
}

impl WsgiError {
    /// The rule that is broken.
    pub fn rule(&self) -> &'static str {
        match self {
            WsgiError::CalledTwice | WsgiError::NotCalled | WsgiError::Status(_) => {
                "PEP 3333, The start_response() Callable"
            }
            WsgiError::NotLatin1(_) => "PEP 3333, Unicode Issues",
            WsgiError::HopByHop(_) => "PEP 3333, Other HTTP Features",
            WsgiError::Field(error) => error.rule(),
            WsgiError::Answer(
                ResponseError::BadLength | ResponseError::TooLong | ResponseError::TooShort(_),
            ) => "PEP 3333, Handling the Content-Length Header",
            WsgiError::Answer(error) => error.rule(),
        }
    }
}

impl fmt::Display for WsgiError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            WsgiError::CalledTwice => write!(f, "start_response was called twice")?,
            WsgiError::NotCalled => write!(f, "start_response was not called before the body")?,
            WsgiError::Status(status) => {
                write!(f, "the status {status:?} is not three digits, a space and words")?;
            }
            WsgiError::NotLatin1(name) => {
                write!(f, "the field {name:?} has a character above U+00FF")?;
            }
            WsgiError::HopByHop(name) => {
                write!(f, "the field {name:?} belongs to the server, not to the application")?;
            }
            WsgiError::Field(error) => error.fmt(f)?,
            WsgiError::Answer(error) => error.fmt(f)?,
        }
        write!(f, " ({})", self.rule())
    }
}

impl Error for WsgiError {}
