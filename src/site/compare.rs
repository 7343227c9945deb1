//! One request, three ways to see it: as bytes, as a call of WSGI, as events of ASGI.
//!
//! Nothing on that page is made up. The visitor's own request is written out again and served twice
//! by a whole server, small enough for one connection: once through each gateway. In front of the
//! application stands a `Recorder` that notes what it sees and passes it on.
//!
//! ```text
//!   the request's bytes ─► Http ─► Wsgi or Asgi ─► Recorder ─► App
//!            └─ wire view                             └─ notes
//! ```

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::gateway::asgi::{self, Asgi, Emit, Event, HttpScope, Receive, Scope};
use crate::gateway::wsgi::{self, Chunks, Environ, Exception, Iterable, StartResponse, Wsgi};
use crate::http::connection::{Http, Limits, Observer};
use crate::http::exchange::Handler;
use crate::http::headers::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use crate::http::request::Version;
use crate::socket::listener::Listener;
use crate::socket::lobby::{Deadlines, Lobby};
use crate::socket::pool::Service;
use crate::socket::wire::Tap;
use crate::web::app::{App, HttpRequest, WebError};
use crate::web::template::Context;

/// Bytes of a request body that are read for this page, and characters of one that are shown.
const MOST: usize = 4096;

/// Answers a request through both gateways, and tells what happened, for a template. `bound` is
/// the address of the server that got the request, which may be one of many processes.
///
/// # Errors
/// If the body cannot be read, or the system has no sockets left.
pub fn compare(
    request: &mut HttpRequest,
    app: &Arc<App>,
    bound: SocketAddr,
    is_one_of_many: bool,
) -> Result<Context, WebError> {
    let mut body = Vec::new();
    request.take(MOST as u64).read_to_end(&mut body)?;
    let text = as_sent(request, &body);
    let notes = Arc::new(Mutex::new(Notes::default()));
    let recorder = Arc::new(Recorder { app: Arc::clone(app), notes: Arc::clone(&notes) });
    let take = || std::mem::take(&mut *notes.lock().unwrap_or_else(PoisonError::into_inner));

    let gateway = Wsgi::new(Arc::clone(&recorder) as _, bound).in_many_processes(is_one_of_many);
    let by_wsgi = serve_once(&text, request.peer, Arc::new(gateway))?;
    let wsgi = take();
    let gateway = Arc::new(Asgi::start(recorder, bound).map_err(io::Error::other)?);
    let by_asgi = serve_once(&text, request.peer, gateway)?;
    let asgi = take();

    Ok(Context::new()
        .with("method", request.head.method.as_str())
        .with("target", request.head.target.raw.as_str())
        .with("wire", blocks(&by_wsgi.wire))
        .with("wsgi", wsgi.to_context(&by_wsgi.answer))
        .with("asgi", asgi.to_context(&by_asgi.answer))
        .with("same", without_date(&by_wsgi.answer) == without_date(&by_asgi.answer)))
}

/// The lines of the wire view, `#1 <- ch 7 request     GET / ...`, in blocks of one direction and one
/// chapter.
fn blocks(wire: &str) -> Vec<Context> {
    const LABEL: usize = "#1 <- ".len();
    const TEXT: usize = LABEL + 17;
    let mut blocks: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in wire.lines() {
        let (label, text) = line.split_at_checked(TEXT).unwrap_or((line, ""));
        match blocks.last_mut() {
            Some((last, lines)) if *last == label => lines.push(text),
            _ => blocks.push((label, vec![text])),
        }
    }
    let context = |(label, lines): (&str, Vec<&str>)| {
        let (arrow, chapter) = label.split_at_checked(LABEL).unwrap_or((label, ""));
        Context::new()
            .with("arrow", arrow.trim_start_matches("#1").trim())
            .with("chapter", chapter.trim())
            .with("number", chapter.split(' ').nth(1))
            .with("lines", lines)
    };
    blocks.into_iter().map(context).collect()
}

/// The request as bytes. A body that came in chunks is whole by now, and gets a length.
fn as_sent(request: &HttpRequest, body: &[u8]) -> Vec<u8> {
    let head = request.head;
    let version = if head.version == Version::Http10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let mut text =
        format!("{} {} {version}\r\n", head.method.as_str(), head.target.raw).into_bytes();
    for (name, value) in head.headers.iter() {
        if ![CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING].contains(&name) {
            text.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
    }
    if !body.is_empty() {
        text.extend(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    [&text, b"\r\n".as_slice(), body].concat()
}

/// What came out of a server that served one request.
struct Served {
    /// The answer, byte by byte.
    answer: String,
    /// What its wire view has printed.
    wire: String,
}

/// A server without threads, on a connection to ourselves. All of the request is in the kernel
/// before it begins, and so is the end of the stream; the answer is small enough to wait there.
fn serve_once(text: &[u8], peer: SocketAddr, handler: Arc<dyn Handler>) -> io::Result<Served> {
    let listener = Listener::from_bound(TcpListener::bind("127.0.0.1:0")?)?;
    let mut client = TcpStream::connect(listener.address())?;
    let patience = Some(Duration::from_secs(5));
    client.set_read_timeout(patience)?;
    // A head may be longer than what the kernel keeps, if --limit-request-head allows it.
    client.set_write_timeout(patience)?;
    client.write_all(text)?;
    client.shutdown(Shutdown::Write)?;
    let stream = accept_from(&listener, client.local_addr()?)?;
    let shown = Screen::default();
    let server = Http {
        handler,
        observer: Arc::new(Nobody),
        limits: Limits::default(),
        keep_alive: true,
        stop: listener.stop(),
        tap: Some(Arc::new(Tap::new(Box::new(shown.clone())))),
    };
    let lobby = Arc::new(Lobby::new(Deadlines::default(), 2));
    let guest = lobby.enter(stream, peer);
    server.serve(&guest, &lobby);
    lobby.leave(&guest);
    drop(guest);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer)?;
    Ok(Served { answer: String::from_utf8_lossy(&answer).into_owned(), wire: shown.text() })
}

/// Our own connection, and not that of somebody who found the port in this moment.
fn accept_from(listener: &Listener, own: SocketAddr) -> io::Result<TcpStream> {
    loop {
        let (stream, peer) = listener.socket().accept()?;
        if peer == own {
            return Ok(stream);
        }
    }
}

struct Nobody;

impl Observer for Nobody {}

/// Where the wire view prints.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Screen {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the application was told, and what was said after that.
#[derive(Default)]
struct Notes {
    /// The environ, or the scope.
    description: Vec<(String, String)>,
    steps: Vec<(String, String)>,
}

const START_RESPONSE: &str = "start_response()";

impl Notes {
    fn add(notes: &Mutex<Notes>, name: &str, detail: String) {
        let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.steps.push((name.to_string(), detail));
    }

    fn to_context(&self, answer: &str) -> Context {
        let pair = |(name, value): &(String, String)| {
            let value = match name.as_str() {
                START_RESPONSE => announced(answer),
                _ => value.clone(),
            };
            Context::new().with("name", name.as_str()).with("value", value)
        };
        let description: Vec<Context> = self.description.iter().map(pair).collect();
        let steps: Vec<Context> = self.steps.iter().map(pair).collect();
        Context::new().with("description", description).with("steps", steps)
    }
}

/// What `start_response` was given. Its handle belongs to the gateway, so we read it off the head
/// that the gateway wrote: the server's own fields begin with `Date`.
fn announced(answer: &str) -> String {
    let mut lines = answer.split("\r\n");
    let status = lines.next().and_then(|line| line.split_once(' ')).map_or("", |(_, rest)| rest);
    let fields = lines.take_while(|line| !line.is_empty() && !line.starts_with("Date: "));
    let pairs = fields.filter_map(|line| line.split_once(": "));
    let pairs: Vec<String> = pairs.map(|(name, value)| format!("({name:?}, {value:?})")).collect();
    format!("{status:?}, [{}]", pairs.join(", "))
}

fn without_date(answer: &str) -> Vec<&str> {
    answer.split("\r\n").filter(|line| !line.starts_with("Date: ")).collect()
}

/// Bytes as text in quotes.
fn quoted(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let start: String = text.chars().take(MOST).collect();
    let more = if start.len() < text.len() { " ..." } else { "" };
    format!("{start:?}{more}")
}

/// An application that notes what it is told and what it says, and leaves the work to another.
struct Recorder {
    app: Arc<App>,
    notes: Arc<Mutex<Notes>>,
}

impl wsgi::Application for Recorder {
    fn call<'a>(&self, environ: Environ<'a>, start_response: StartResponse<'a>) -> Chunks<'a> {
        let variables = environ.variables().into_iter();
        let variables = variables.map(|(name, value)| (name.into(), value.into())).collect();
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).description = variables;
        let chunks = wsgi::Application::call(&*self.app, environ, start_response)?;
        Notes::add(&self.notes, START_RESPONSE, String::new());
        Ok(Box::new(NotedChunks { chunks, notes: Arc::clone(&self.notes) }))
    }
}

struct NotedChunks<'a> {
    chunks: Box<dyn Iterable + 'a>,
    notes: Arc<Mutex<Notes>>,
}

impl Iterable for NotedChunks<'_> {
    fn next_chunk(&mut self) -> Option<Result<Vec<u8>, Exception>> {
        let chunk = self.chunks.next_chunk();
        if let Some(Ok(bytes)) = &chunk {
            Notes::add(&self.notes, "chunk", quoted(bytes));
        }
        chunk
    }

    fn chunks(&self) -> Option<usize> {
        self.chunks.chunks()
    }

    fn close(&mut self) {
        Notes::add(&self.notes, "close()", String::new());
        self.chunks.close();
    }
}

impl asgi::Application for Recorder {
    fn call(
        &self,
        scope: &Scope,
        receive: &mut dyn Receive,
        send: &mut dyn Emit,
    ) -> Result<(), Exception> {
        if let Scope::Http(scope) = scope {
            let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
            notes.description = described(scope);
        }
        let mut receive = NotedReceive { receive, notes: &self.notes };
        let mut send = NotedSend { send, notes: &self.notes };
        asgi::Application::call(&*self.app, scope, &mut receive, &mut send)
    }
}

struct NotedReceive<'a> {
    receive: &'a mut dyn Receive,
    notes: &'a Mutex<Notes>,
}

impl Receive for NotedReceive<'_> {
    fn receive(&mut self) -> Result<Event, Exception> {
        let event = self.receive.receive()?;
        Notes::add(self.notes, "receive()", told(&event));
        Ok(event)
    }
}

struct NotedSend<'a> {
    send: &'a mut dyn Emit,
    notes: &'a Mutex<Notes>,
}

impl Emit for NotedSend<'_> {
    fn send(&mut self, event: Event) -> Result<(), Exception> {
        Notes::add(self.notes, "send()", told(&event));
        self.send.send(event)
    }
}

/// The scope as the ASGI specification names its keys: ASGI 3.0, HTTP Connection Scope.
fn described(scope: &HttpScope) -> Vec<(String, String)> {
    let bytes = |bytes: &[u8]| format!("b{}", quoted(bytes));
    let headers = scope.headers();
    let headers = headers.iter().map(|(name, value)| format!("(b{name:?}, {})", bytes(value)));
    let pairs = [
        ("type", "\"http\"".to_string()),
        ("http_version", format!("{:?}", scope.http_version())),
        ("method", format!("{:?}", scope.head.method.as_str())),
        ("path", format!("{:?}", scope.path)),
        ("raw_path", bytes(scope.raw_path())),
        ("query_string", bytes(scope.query_string())),
        ("client", format!("({:?}, {})", scope.client.ip().to_string(), scope.client.port())),
        ("server", format!("({:?}, {})", scope.server.ip().to_string(), scope.server.port())),
        ("headers", format!("[{}]", headers.collect::<Vec<_>>().join(", "))),
    ];
    pairs.map(|(name, value)| (name.to_string(), value)).into()
}

fn told(event: &Event) -> String {
    let name = event.name();
    match event {
        Event::HttpRequest { body, more_body } | Event::HttpResponseBody { body, more_body } => {
            format!("{name}: body {}, more_body {more_body}", quoted(body))
        }
        Event::HttpResponseStart { status, headers } => {
            let mut fields = Vec::new();
            for (name, value) in headers.iter() {
                fields.push(format!("({:?}, {})", name.as_str(), quoted(value.as_bytes())));
            }
            format!("{name}: status {status}, headers [{}]", fields.join(", "))
        }
        _ => name.to_string(),
    }
}
