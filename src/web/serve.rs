//! Chapter 27: serving an application. PEP 3333 and ASGI, from the application's side.
//!
//! An application is a function from a request to a response. What stands between it and a socket
//! is put around it in layers, and none of them knows what is inside:
//!
//! ```text
//!   socket ─► server ─► Wsgi ─► environ, start_response ─┐
//!                                                        ├─► timing ─► headers ─► App
//!   socket ─► server ─► Asgi ─► scope, receive, send ────┘
//! ```
//!
//! The answers are the same, byte by byte, whichever way is taken. A test holds us to that.

use std::borrow::Cow;
use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use crate::gateway::asgi::{self, Asgi, Emit, Event, Receive, Scope};
use crate::gateway::wsgi::{self, Chunks, Environ, Exception, FileWrapper, Iterable};
use crate::gateway::wsgi::{StartResponse, Wsgi, native};
use crate::http::body::BodyError;
use crate::http::exchange::Handler;
use crate::http::headers::{CONTENT_LENGTH, FieldValue, Token};
use crate::http::request::{Method, RequestHead};
use crate::http::response::Body;
use crate::http::server::{Running, Server, Settings};
use crate::web::app::{App, HttpRequest, HttpResponse, Next};

/// Middleware: says how long each answer took, on stderr and to the browser's developer tools.
/// The time to send a stream is not in it: it is sent afterwards.
pub fn request_timing(request: HttpRequest, next: Next) -> HttpResponse {
    let began = Instant::now();
    let mut response = next.run(request);
    let took = began.elapsed();
    let line = format!("Request took {:.6} seconds.\n", took.as_secs_f64());
    let _ = io::stderr().write_all(line.as_bytes());
    // In milliseconds. W3C Server Timing, section 2.
    let timing = format!("app;dur={:.3}", took.as_secs_f64() * 1000.0);
    add_unless_there(&mut response, Token::constant("Server-Timing"), &timing);
    response
}

/// Middleware: three fields that make browsers more careful. A view may have set its own.
pub fn security_headers(request: HttpRequest, next: Next) -> HttpResponse {
    let mut response = next.run(request);
    for (name, value) in CAREFUL {
        add_unless_there(&mut response, *name, value);
    }
    response
}

const CAREFUL: &[(Token, &str)] = &[
    // Text is text, even if it looks like a script.
    (Token::constant("X-Content-Type-Options"), "nosniff"),
    // No other site may lay our page under its own buttons.
    (Token::constant("X-Frame-Options"), "DENY"),
    // Other sites are not told which page linked to them.
    (Token::constant("Referrer-Policy"), "same-origin"),
];

/// For values of our own making, which are all valid.
fn add_unless_there(response: &mut HttpResponse, name: Token, value: &str) {
    if response.headers.contains(name) {
        return;
    }
    if let Ok(value) = FieldValue::new(value.as_bytes()) {
        response.headers.push(name, value);
    }
}

/// Streams leave in blocks of this size, in bytes.
const BLOCK: usize = 256 * 1024;

/// Prepares a response for a gateway: a length that only we know becomes a field, and a body that
/// nobody may see is dropped before it is read.
fn settle(mut response: HttpResponse, head: &RequestHead) -> HttpResponse {
    let is_head = head.method == Method::Head;
    let length = match &response.body {
        // The gateway sees the length of a whole body by itself, unless we take the body away.
        Body::Whole(bytes) => is_head.then_some(bytes.len() as u64),
        Body::Stream { length, .. } => *length,
    };
    if let Some(length) = length {
        add_unless_there(&mut response, CONTENT_LENGTH, &length.to_string());
    }
    if is_head || response.status.forbids_body() {
        response.body = Body::Whole(Cow::Borrowed(b""));
    }
    response
}

/// The application behind WSGI: environ in, `start_response` and an iterable out.
impl wsgi::Application for App {
    fn call<'a>(&self, mut environ: Environ<'a>, start_response: StartResponse<'a>) -> Chunks<'a> {
        let (head, peer) = (Arc::clone(environ.head()), environ.peer());
        let response = settle(self.respond(&head, peer, &mut environ.input), &head);
        let fields = response.headers.iter();
        let fields: Vec<(&str, Cow<str>)> =
            fields.map(|(name, value)| (name.as_str(), native(value.as_bytes()))).collect();
        let fields: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (*name, value.as_ref())).collect();
        start_response.call(&status_line(&response), &fields)?;
        Ok(match response.body {
            // A row of one chunk, so the gateway knows the length.
            Body::Whole(bytes) => Box::new(Some(bytes.into_owned()).into_iter()),
            Body::Stream { source, .. } => Box::new(FileWrapper::new(source, BLOCK)),
        })
    }
}

/// PEP 3333 wants words behind the code, and some codes have none. The server sends its own.
fn status_line(response: &HttpResponse) -> String {
    match response.status.reason() {
        "" => format!("{} Unregistered", response.status.code()),
        reason => format!("{} {reason}", response.status.code()),
    }
}

/// The application behind ASGI: events in, events out.
impl asgi::Application for App {
    fn call(
        &self,
        scope: &Scope,
        receive: &mut dyn Receive,
        send: &mut dyn Emit,
    ) -> Result<(), Exception> {
        let Scope::Http(scope) = scope else {
            return Err("this application knows requests only".into());
        };
        let mut body = EventBody { receive, piece: Cursor::default(), more_body: true };
        let response = self.respond(&scope.head, scope.client, &mut body);
        let HttpResponse { status, headers, body } = settle(response, &scope.head);
        send.send(Event::HttpResponseStart { status: status.code(), headers })?;
        let last = match body {
            Body::Whole(bytes) => bytes.into_owned(),
            Body::Stream { source, .. } => {
                let mut chunks = FileWrapper::new(source, BLOCK);
                while let Some(chunk) = chunks.next_chunk() {
                    send.send(Event::HttpResponseBody { body: chunk?, more_body: true })?;
                }
                Vec::new()
            }
        };
        send.send(Event::HttpResponseBody { body: last, more_body: false })
    }
}

/// The request body, from `http.request` events.
struct EventBody<'a> {
    receive: &'a mut dyn Receive,
    piece: Cursor<Vec<u8>>,
    more_body: bool,
}

impl Read for EventBody<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.piece.read(out)?;
            if count > 0 || out.is_empty() || !self.more_body {
                return Ok(count);
            }
            match self.receive.receive().map_err(into_io_error)? {
                Event::HttpRequest { body, more_body } => {
                    (self.piece, self.more_body) = (Cursor::new(body), more_body);
                }
                // The client has gone in the middle of it.
                _ => return Err(BodyError::CutShort.into()),
            }
        }
    }
}

/// An exception that was an I/O error stays one, with what it carries.
fn into_io_error(exception: Exception) -> io::Error {
    match exception.downcast::<io::Error>() {
        Ok(error) => *error,
        Err(other) => io::Error::other(other),
    }
}

/// A server for an application behind WSGI.
///
/// ```no_run
/// use glasshouse::web::app::{App, HtmlResponse, HttpRequest};
/// use glasshouse::web::serve::WsgiServer;
///
/// fn main() -> std::io::Result<()> {
///     let app = App::new()
///         .get("", |_| HtmlResponse("<h1>Hello!</h1>"))
///         .get("hello/<str:name>/", |request: HttpRequest| {
///             format!("Hello, {}!", request.parameters.get("name"))
///         });
///     WsgiServer::new("127.0.0.1:8000", app).serve_forever()
/// }
/// ```
pub struct WsgiServer {
    settings: Settings,
    app: App,
    address: String,
}

impl WsgiServer {
    /// A server for this address, such as `127.0.0.1:8000`, with the default settings. Port 0
    /// means any free one.
    pub fn new(address: &str, app: App) -> WsgiServer {
        WsgiServer { settings: Settings::default(), app, address: address.to_string() }
    }

    /// The same with these settings; the address stays.
    pub fn with_settings(mut self, settings: Settings) -> WsgiServer {
        self.settings = settings;
        self
    }

    /// Starts to serve, on threads of its own, and returns.
    ///
    /// # Errors
    /// If the address cannot be bound; the error says what to do.
    pub fn start(self) -> io::Result<Running> {
        let server = bind(&self.address, self.settings)?;
        let gateway = Wsgi::new(Arc::new(self.app), server.address());
        Ok(server.start(Arc::new(gateway)))
    }

    /// Serves until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// If the address cannot be bound; the error says what to do.
    pub fn serve_forever(self) -> io::Result<()> {
        let server = bind(&self.address, self.settings)?;
        let gateway = Wsgi::new(Arc::new(self.app), server.address());
        announce_and_serve(server, Arc::new(gateway))
    }
}

/// A server for an application behind ASGI.
pub struct AsgiServer {
    settings: Settings,
    app: App,
    address: String,
}

impl AsgiServer {
    /// A server for this address, such as `127.0.0.1:8000`, with the default settings. Port 0
    /// means any free one.
    pub fn new(address: &str, app: App) -> AsgiServer {
        AsgiServer { settings: Settings::default(), app, address: address.to_string() }
    }

    /// The same with these settings; the address stays.
    pub fn with_settings(mut self, settings: Settings) -> AsgiServer {
        self.settings = settings;
        self
    }

    /// Starts to serve, on threads of its own, and returns.
    ///
    /// # Errors
    /// If the address cannot be bound; the error says what to do.
    pub fn start(self) -> io::Result<Running> {
        let server = bind(&self.address, self.settings)?;
        let gateway = Asgi::start(Arc::new(self.app), server.address());
        Ok(server.start(Arc::new(gateway.map_err(io::Error::other)?)))
    }

    /// Serves until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// If the address cannot be bound; the error says what to do.
    pub fn serve_forever(self) -> io::Result<()> {
        let server = bind(&self.address, self.settings)?;
        let gateway = Asgi::start(Arc::new(self.app), server.address());
        announce_and_serve(server, Arc::new(gateway.map_err(io::Error::other)?))
    }
}

/// `[::1]:8000` has colons in its host, so the last one counts.
fn bind(address: &str, settings: Settings) -> io::Result<Server> {
    let parts = address.rsplit_once(':');
    let Some((host, Ok(port))) = parts.map(|(host, port)| (host, port.parse())) else {
        let advice = format!("{address:?} is no address with a port; write it as 127.0.0.1:8000");
        return Err(io::Error::new(ErrorKind::InvalidInput, advice));
    };
    let host = host.trim_matches(['[', ']']).to_string();
    Server::bind(Settings { host, port, ..settings }).map_err(io::Error::other)
}

fn announce_and_serve(server: Server, gateway: Arc<dyn Handler>) -> io::Result<()> {
    let line = format!("Serving http://{}/ until Ctrl-C.\n", server.address());
    let _ = io::stderr().write_all(line.as_bytes());
    server.serve_until_signal(gateway)
}
