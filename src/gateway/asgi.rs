//! Chapter 17: ASGI. The ASGI specification 3.0: HTTP and WebSocket 2.5, Lifespan 2.0.
//!
//! WSGI is one call for one answer. That does not fit a conversation. ASGI's contract is a call
//! with a description, the scope, and two handles: one to receive events, one to send them.
//!
//! ```text
//!   server                                            application
//!     │  call(scope, receive, send)                        │
//!     │ ──────────────────────────────────────────────────►│
//!     │            receive() = http.request   more_body    │   the body, piece by piece
//!     │ ◄─────────────────────────────────────────────────►│
//!     │            send(http.response.start)               │   kept, not yet sent
//!     │ ◄──────────────────────────────────────────────────│
//!     │            send(http.response.body)   more_body    │   on its way when send returns
//!     │ ◄──────────────────────────────────────────────────│
//!     │            receive() = http.disconnect             │
//!     │ ◄─────────────────────────────────────────────────►│
//! ```
//!
//! In Python the two handles are coroutines: while one application waits, an event loop runs
//! others on the same thread. Here they are calls that block. The contract is the same.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::gateway::wsgi::{Exception, reached};
use crate::http::exchange::{Exchange, Handler};
use crate::http::headers::{HOST, Headers};
use crate::http::refusal::Refusal;
use crate::http::request::{Method, RequestHead, Version};
use crate::http::response::{ResponseError, SERVER_FIELDS, Status, declared_length};
use crate::http::url::{UrlError, decoded_path};

/// An application. The same one is called by many threads at once.
pub trait Application: Send + Sync {
    /// Called once for each scope: once for each request, on the thread of its connection, and
    /// once for the life of the server, on a thread of its own. An application that does not know
    /// a scope returns an error at once.
    ///
    /// # Errors
    /// An exception becomes 500 if no head has been sent; otherwise the answer is cut. So does a
    /// panic, and a return before the answer is complete.
    fn call(
        &self,
        scope: &Scope,
        receive: &mut dyn Receive,
        send: &mut dyn Emit,
    ) -> Result<(), Exception>;
}

/// A function is an application, as in Python.
impl<F> Application for F
where
    F: Fn(&Scope, &mut dyn Receive, &mut dyn Emit) -> Result<(), Exception> + Send + Sync,
{
    fn call(
        &self,
        scope: &Scope,
        receive: &mut dyn Receive,
        send: &mut dyn Emit,
    ) -> Result<(), Exception> {
        self(scope, receive, send)
    }
}

/// The handle for what comes to the application.
pub trait Receive {
    /// Waits for the next event. After the request body there is only one more to come:
    /// [`Event::HttpDisconnect`], when the answer is complete or the client has gone.
    ///
    /// # Errors
    /// A request body that breaks a rule, or comes too slowly.
    fn receive(&mut self) -> Result<Event, Exception>;

    /// Whether the client has hung up, for an application that waits for something else. Does not
    /// wait to find out.
    fn has_hung_up(&mut self) -> bool {
        false
    }

    /// Waits until there is something to receive, but not longer than this, for an application
    /// that waits for something else too. False if the time was over first.
    fn wait(&mut self, _limit: Duration) -> bool {
        true
    }
}

/// The handle for what the application has to say.
pub trait Emit {
    /// Sends an event. A piece of the body has been given to the operating system when this
    /// returns: a slow client makes a slow `send`, and not a full memory.
    ///
    /// # Errors
    /// [`AsgiError`] if the event does not fit here; an I/O error if the client has gone.
    fn send(&mut self, event: Event) -> Result<(), Exception>;

    /// A second handle to the same conversation, for other threads. `None` if it belongs to one
    /// thread, as the answer to a request does.
    fn share(&self) -> Option<Arc<dyn Remote>> {
        None
    }
}

/// A handle that any thread may keep, and use at any time. When the conversation is over, or has
/// not begun, its calls are errors.
pub trait Remote: Send + Sync {
    /// Sends an event as [`Emit::send`] does: a slow client makes a slow call.
    ///
    /// # Errors
    /// Those of [`Emit::send`].
    fn send(&self, event: Event) -> Result<(), Exception>;

    /// Leaves an event to be sent, and never waits.
    ///
    /// # Errors
    /// Those of [`Emit::send`]; [`ErrorKind::WouldBlock`] if too much waits for this client
    /// already. Then nothing of the event is sent.
    fn post(&self, event: Event) -> Result<(), Exception>;

    /// Ends the conversation at once and without a word, for who is too slow to hear one.
    fn cut(&self);
}

/// What a call is about.
pub enum Scope {
    /// One request.
    Http(HttpScope),
    /// One WebSocket, with the subprotocols that the client offers.
    WebSocket(HttpScope, Vec<String>),
    /// The life of the server, from start to stop.
    Lifespan,
}

/// The description of a request. What the client sent is in `head`.
pub struct HttpScope {
    /// Method, target, version and fields.
    pub head: Arc<RequestHead>,
    /// `path`: percent-decoded, as text. It begins with `root_path`.
    pub path: String,
    /// `root_path`: where a proxy shows the application, such as `/shop`. Mostly empty.
    pub root_path: String,
    /// `scheme`: `http` or `https`. That of a WebSocket is `ws` where that of a request is `http`.
    pub scheme: &'static str,
    /// `client`: who asks.
    pub client: SocketAddr,
    /// `server`: the address at which the client has reached the server.
    pub server: SocketAddr,
    /// `state`: a copy of what the application left there when the server started.
    pub state: State,
}

/// What an application wants to find again in each request.
pub type State = BTreeMap<String, String>;

impl HttpScope {
    /// `http_version`
    pub fn http_version(&self) -> &'static str {
        match self.head.version {
            Version::Http10 => "1.0",
            Version::Http11 => "1.1",
        }
    }

    /// The path below `root_path`: what WSGI calls `PATH_INFO`.
    pub fn path_info(&self) -> &str {
        self.path.strip_prefix(&self.root_path).unwrap_or(&self.path)
    }

    /// `raw_path`: the path as it was sent, without the query.
    pub fn raw_path(&self) -> &[u8] {
        self.head.target.path().as_bytes()
    }

    /// `query_string`: what follows the question mark, still encoded.
    pub fn query_string(&self) -> &[u8] {
        self.head.target.query().unwrap_or_default().as_bytes()
    }

    /// `headers`: all fields, in order, with their names in lower case.
    pub fn headers(&self) -> Vec<(String, &[u8])> {
        let (fields, mut headers) = (&self.head.headers, Vec::new());
        // RFC 9112, section 3.2.2: the host in the target wins over the field.
        let host = self.head.host.as_bytes();
        if !fields.contains(HOST) && !host.is_empty() {
            headers.push(("host".to_string(), host));
        }
        for (name, value) in fields.iter() {
            let value = if name == HOST { host } else { value.as_bytes() };
            headers.push((name.as_str().to_ascii_lowercase(), value));
        }
        headers
    }
}

/// One event, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A piece of the request body, of at most [`PIECE`] bytes.
    HttpRequest {
        /// The bytes.
        body: Vec<u8>,
        /// Whether more will come.
        more_body: bool,
    },
    /// The client has gone, or the answer is complete.
    HttpDisconnect,
    /// Status and fields of the answer.
    HttpResponseStart {
        /// The status code.
        status: u16,
        /// The fields. Those that belong to the server, such as `Transfer-Encoding`, are dropped.
        headers: Headers,
    },
    /// A piece of the answer's body.
    HttpResponseBody {
        /// The bytes.
        body: Vec<u8>,
        /// Whether more will come.
        more_body: bool,
    },
    /// A client wants to open a WebSocket.
    WebsocketConnect,
    /// The application opens it, with one of the subprotocols that were offered, or none.
    WebsocketAccept {
        /// The subprotocol.
        subprotocol: Option<String>,
        /// Fields for the answer to the handshake.
        headers: Headers,
    },
    /// A whole message has come.
    WebsocketReceive(Payload),
    /// A whole message goes.
    WebsocketSend(Payload),
    /// The WebSocket has ended, with this code and reason.
    WebsocketDisconnect(u16, String),
    /// The application refuses the WebSocket, or ends it, with this code and reason.
    WebsocketClose(u16, String),
    /// The server is about to serve.
    LifespanStartup,
    /// The application is ready, and wants to find this in each scope.
    LifespanStartupComplete(State),
    /// The application cannot run, and says why.
    LifespanStartupFailed(String),
    /// The server has ended its last connection.
    LifespanShutdown,
    /// The application has put all away.
    LifespanShutdownComplete,
    /// It could not, and says why.
    LifespanShutdownFailed(String),
}

/// A WebSocket message is text or bytes, never both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// `text`
    Text(String),
    /// `bytes`
    Bytes(Vec<u8>),
}

impl Event {
    /// The event's `type`, as the specification writes it.
    pub fn name(&self) -> &'static str {
        match self {
            Event::HttpRequest { .. } => "http.request",
            Event::HttpDisconnect => "http.disconnect",
            Event::HttpResponseStart { .. } => "http.response.start",
            Event::HttpResponseBody { .. } => "http.response.body",
            Event::WebsocketConnect => "websocket.connect",
            Event::WebsocketAccept { .. } => "websocket.accept",
            Event::WebsocketReceive(_) => "websocket.receive",
            Event::WebsocketSend(_) => "websocket.send",
            Event::WebsocketDisconnect(..) => "websocket.disconnect",
            Event::WebsocketClose(..) => "websocket.close",
            Event::LifespanStartup => "lifespan.startup",
            Event::LifespanStartupComplete(_) => "lifespan.startup.complete",
            Event::LifespanStartupFailed(_) => "lifespan.startup.failed",
            Event::LifespanShutdown => "lifespan.shutdown",
            Event::LifespanShutdownComplete => "lifespan.shutdown.complete",
            Event::LifespanShutdownFailed(_) => "lifespan.shutdown.failed",
        }
    }
}

/// The longest body of an `http.request` event, in bytes.
pub const PIECE: usize = 64 * 1024;

/// How far an answer has come.
enum Answer {
    /// Nothing has been sent.
    Waiting,
    /// The start has been sent. It goes out with the first piece of the body, so that a single
    /// piece can be given its length.
    Started(Status, Headers),
    /// A piece has gone out, and more will follow.
    Sending,
    /// The last piece has gone out.
    Finished,
}

/// One request on its way through the gateway.
pub struct Conversation<'e> {
    /// The request, and the way back.
    pub exchange: &'e mut Exchange,
    answer: Answer,
    body_ended: bool,
}

impl Conversation<'_> {
    /// A conversation that nothing has been said in.
    pub fn new(exchange: &mut Exchange) -> Conversation<'_> {
        Conversation { exchange, answer: Answer::Waiting, body_ended: false }
    }

    /// The next event for the application.
    ///
    /// # Errors
    /// Those of [`Receive::receive`].
    pub fn receive(&mut self) -> Result<Event, Exception> {
        if matches!(self.answer, Answer::Finished) {
            return Ok(Event::HttpDisconnect);
        }
        if self.body_ended {
            self.exchange.wait_for_hang_up();
            return Ok(Event::HttpDisconnect);
        }
        let mut body = vec![0; PIECE.min(self.exchange.expected_bytes())];
        let count = match self.exchange.read(&mut body) {
            Ok(count) => count,
            // A client that hangs up is an event, not an error of the application.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Ok(Event::HttpDisconnect);
            }
            Err(_) if self.exchange.has_lost_client() => return Ok(Event::HttpDisconnect),
            Err(error) => return Err(error.into()),
        };
        body.truncate(count);
        // An application may keep a thousand pieces of one byte each.
        body.shrink_to_fit();
        let more_body = !self.exchange.has_read_body();
        self.body_ended = !more_body;
        Ok(Event::HttpRequest { body, more_body })
    }

    /// Takes an event from the application.
    ///
    /// # Errors
    /// Those of [`Emit::send`].
    pub fn send(&mut self, event: Event) -> Result<(), Exception> {
        match (&self.answer, event) {
            (Answer::Waiting, Event::HttpResponseStart { status, headers }) => {
                self.answer = started(status, headers)?;
                Ok(())
            }
            (_, Event::HttpResponseStart { .. }) => Err(AsgiError::StartedTwice.into()),
            (Answer::Waiting, Event::HttpResponseBody { .. }) => {
                Err(AsgiError::BodyBeforeStart.into())
            }
            // The specification lets a server ignore it. It is a mistake all the same.
            (Answer::Finished, Event::HttpResponseBody { .. }) => {
                Err(AsgiError::AfterTheEnd.into())
            }
            (_, Event::HttpResponseBody { body, more_body }) => {
                self.send_body(&body, more_body).map_err(named)
            }
            (_, other) => Err(AsgiError::NotAnAnswer(other.name()).into()),
        }
    }

    fn send_body(&mut self, body: &[u8], more_body: bool) -> io::Result<()> {
        if let Answer::Started(status, headers) = &self.answer {
            // The answer to HEAD may be empty where the answer to GET is not.
            let length = match body.len() as u64 {
                _ if more_body => None,
                0 if self.exchange.head.method == Method::Head => None,
                length => Some(length),
            };
            self.exchange.start(*status, headers, length)?;
        }
        self.answer = if more_body { Answer::Sending } else { Answer::Finished };
        if more_body {
            return self.exchange.write_body(body);
        }
        self.exchange.finish_with(body)?;
        Ok(())
    }

    /// Called when the application has returned.
    ///
    /// # Errors
    /// [`AsgiError::NoAnswer`] or [`AsgiError::EndMissing`].
    pub fn end(&self) -> Result<(), AsgiError> {
        match self.answer {
            Answer::Finished => Ok(()),
            Answer::Sending => Err(AsgiError::EndMissing),
            Answer::Waiting | Answer::Started(..) => Err(AsgiError::NoAnswer),
        }
    }
}

/// Checks status and fields. The fields that belong to the server are dropped: the specification
/// says so of `Transfer-Encoding`, and applications set `Connection: keep-alive` by habit.
fn started(status: u16, mut headers: Headers) -> Result<Answer, AsgiError> {
    let status = Status::new(status).filter(|status| status.code() >= 200);
    let status = status.ok_or(AsgiError::StatusOutOfRange)?;
    for name in SERVER_FIELDS {
        headers.remove(*name);
    }
    declared_length(&headers).map_err(AsgiError::Answer)?;
    Ok(Answer::Started(status, headers))
}

/// If an application has broken a rule of the answer, the error names it.
fn named(error: io::Error) -> Exception {
    match error.downcast::<ResponseError>() {
        Ok(error) => AsgiError::Answer(error).into(),
        Err(error) => error.into(),
    }
}

/// Both handles speak to one conversation.
struct Handle<'c, 'e> {
    conversation: &'c RefCell<Conversation<'e>>,
}

impl Receive for Handle<'_, '_> {
    fn receive(&mut self) -> Result<Event, Exception> {
        self.conversation.borrow_mut().receive()
    }

    fn has_hung_up(&mut self) -> bool {
        self.conversation.borrow_mut().exchange.has_hung_up()
    }

    fn wait(&mut self, limit: Duration) -> bool {
        // If it fails, the next read says so, and why.
        self.conversation.borrow_mut().exchange.wait_for_body(limit).unwrap_or(true)
    }
}

impl Emit for Handle<'_, '_> {
    fn send(&mut self, event: Event) -> Result<(), Exception> {
        self.conversation.borrow_mut().send(event)
    }
}

/// The gateway: makes a handler of an application, and keeps its lifespan.
pub struct Asgi {
    application: Arc<dyn Application>,
    bound: SocketAddr,
    root_path: String,
    state: State,
    lifespan: Option<Lifespan>,
}

impl Asgi {
    /// Starts the application: its lifespan begins on a thread of its own. Returns when it is
    /// ready. An application that raises an error instead does not want lifespan events, and is
    /// served without. `bound` is the address that the server is bound to.
    ///
    /// # Errors
    /// [`AsgiError::StartupFailed`], with the application's own words.
    pub fn start(application: Arc<dyn Application>, bound: SocketAddr) -> Result<Asgi, AsgiError> {
        let (lifespan, state) = match Lifespan::begin(Arc::clone(&application))? {
            Some((lifespan, state)) => (Some(lifespan), state),
            None => (None, State::new()),
        };
        Ok(Asgi { application, bound, root_path: String::new(), state, lifespan })
    }

    /// The same behind a proxy that shows the application under a path, such as `/shop`, and takes
    /// that path away before it asks us.
    pub fn below(mut self, root_path: &str) -> Asgi {
        self.root_path = root_path.to_string();
        self
    }

    /// Tells the application that the last connection has ended, and waits until it has put all
    /// away, but no longer than `patience`. Returns what went wrong, if something did.
    pub fn shut_down(&self, patience: Duration) -> Option<String> {
        self.lifespan.as_ref()?.end(patience)
    }

    /// Describes a request to the application.
    ///
    /// # Errors
    /// If its path cannot be decoded.
    pub fn scope(&self, exchange: &Exchange) -> Result<HttpScope, UrlError> {
        let head = Arc::clone(&exchange.head);
        let path = self.root_path.clone() + &decoded_path(head.target.path())?;
        Ok(HttpScope {
            head,
            path,
            root_path: self.root_path.clone(),
            scheme: exchange.scheme,
            client: exchange.client,
            server: reached(self.bound, &exchange.link.guest),
            state: self.state.clone(),
        })
    }

    /// Who is asked, here and by other gateways.
    pub fn application(&self) -> &dyn Application {
        &*self.application
    }
}

impl Handler for Asgi {
    fn handle(&self, exchange: &mut Exchange) -> io::Result<()> {
        let scope = match self.scope(exchange) {
            Ok(scope) => Scope::Http(scope),
            // There is no `path` that the application could be told.
            Err(error) => return exchange.respond(Refusal::from(error).response()),
        };
        let conversation = RefCell::new(Conversation::new(exchange));
        let mut receive = Handle { conversation: &conversation };
        let mut send = Handle { conversation: &conversation };
        self.application.call(&scope, &mut receive, &mut send).map_err(io::Error::other)?;
        conversation.into_inner().end().map_err(io::Error::other)
    }
}

/// The life of the application, on a thread of its own: it waits there for the shutdown.
struct Lifespan {
    to_application: Mutex<Sender<Event>>,
    from_application: Mutex<Receiver<Event>>,
}

/// What the application has been told of its life.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Waiting,
    Starting,
    Running,
    Stopping,
    Over,
}

/// The application's side of it.
struct LifespanHandle<'a> {
    events: &'a Receiver<Event>,
    answers: &'a Sender<Event>,
    stage: &'a Cell<Stage>,
}

impl Receive for LifespanHandle<'_> {
    fn receive(&mut self) -> Result<Event, Exception> {
        let event = self.events.recv()?;
        let startup = event == Event::LifespanStartup;
        self.stage.set(if startup { Stage::Starting } else { Stage::Stopping });
        Ok(event)
    }
}

impl Emit for LifespanHandle<'_> {
    fn send(&mut self, event: Event) -> Result<(), Exception> {
        use Event::{LifespanShutdownComplete, LifespanShutdownFailed};
        use Event::{LifespanStartupComplete, LifespanStartupFailed};
        let next = match (self.stage.get(), &event) {
            (Stage::Starting, LifespanStartupComplete(_)) => Stage::Running,
            (Stage::Starting, LifespanStartupFailed(_)) => Stage::Over,
            (Stage::Stopping, LifespanShutdownComplete | LifespanShutdownFailed(_)) => Stage::Over,
            _ => return Err(AsgiError::NotAnAnswer(event.name()).into()),
        };
        self.stage.set(next);
        Ok(self.answers.send(event)?)
    }
}

impl Lifespan {
    /// Starts the application. `None` if it wants no lifespan events.
    fn begin(application: Arc<dyn Application>) -> Result<Option<(Lifespan, State)>, AsgiError> {
        let (to_application, events) = channel();
        let (answers, from_application) = channel();
        let run = move || {
            let stage = Cell::new(Stage::Waiting);
            let mut receive = LifespanHandle { events: &events, answers: &answers, stage: &stage };
            let mut send = LifespanHandle { events: &events, answers: &answers, stage: &stage };
            // Whatever it returns: its ends of the channels go with it, and that is noticed.
            let _ = application.call(&Scope::Lifespan, &mut receive, &mut send);
        };
        if let Err(error) = thread::Builder::new().name("lifespan".into()).spawn(run) {
            return Err(AsgiError::StartupFailed(error.to_string()));
        }
        // If nobody listens any more, nobody will answer either.
        let _ = to_application.send(Event::LifespanStartup);
        let state = match from_application.recv() {
            Ok(Event::LifespanStartupComplete(state)) => state,
            Ok(Event::LifespanStartupFailed(reason)) => {
                return Err(AsgiError::StartupFailed(reason));
            }
            _ => return Ok(None),
        };
        let to_application = Mutex::new(to_application);
        let from_application = Mutex::new(from_application);
        Ok(Some((Lifespan { to_application, from_application }, state)))
    }

    fn end(&self, patience: Duration) -> Option<String> {
        let sender = self.to_application.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = self.from_application.lock().unwrap_or_else(PoisonError::into_inner);
        // An application that has ended already has nothing to put away.
        sender.send(Event::LifespanShutdown).ok()?;
        match receiver.recv_timeout(patience) {
            Ok(Event::LifespanShutdownFailed(reason)) => Some(reason),
            Err(RecvTimeoutError::Timeout) => Some("the application took too long".to_string()),
            _ => None,
        }
    }
}

/// What an application can do wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AsgiError {
    /// A body was sent before `http.response.start`.
    BodyBeforeStart,
    /// `http.response.start` was sent twice.
    StartedTwice,
    /// A body was sent after its last piece.
    AfterTheEnd,
    /// This event is no answer to the scope, or not at this time.
    NotAnAnswer(&'static str),
    /// The status is not from 200 to 599.
    StatusOutOfRange,
    /// The application returned before it had sent a piece of the body.
    NoAnswer,
    /// The application returned before it had sent the last piece of the body.
    EndMissing,
    /// The body does not fit the fields.
    Answer(ResponseError),
    /// The application could not start.
    StartupFailed(String),
}

impl AsgiError {
    /// The rule that is broken: a part of the ASGI specification, by its heading.
    pub fn rule(&self) -> &'static str {
        match self {
            AsgiError::BodyBeforeStart | AsgiError::StartedTwice => "ASGI HTTP, Response Start",
            AsgiError::NoAnswer | AsgiError::StatusOutOfRange => "ASGI HTTP, Response Start",
            AsgiError::AfterTheEnd | AsgiError::EndMissing => "ASGI HTTP, Response Body",
            AsgiError::NotAnAnswer(_) => "ASGI, Events",
            AsgiError::Answer(error) => error.rule(),
            AsgiError::StartupFailed(_) => "ASGI Lifespan, Startup Failed",
        }
    }
}

impl fmt::Display for AsgiError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            AsgiError::BodyBeforeStart => {
                write!(f, "http.response.body was sent before http.response.start")?;
            }
            AsgiError::StartedTwice => write!(f, "http.response.start was sent twice")?,
            AsgiError::AfterTheEnd => write!(f, "http.response.body was sent after the last one")?,
            AsgiError::NotAnAnswer(name) => write!(f, "the event {name} is no answer here")?,
            AsgiError::StatusOutOfRange => write!(f, "the status is not from 200 to 599")?,
            AsgiError::NoAnswer => write!(f, "the application returned without an answer")?,
            AsgiError::EndMissing => {
                write!(f, "the application returned in the middle of its answer")?;
            }
            AsgiError::Answer(error) => error.fmt(f)?,
            AsgiError::StartupFailed(reason) => {
                write!(f, "the application could not start: {reason}")?;
            }
        }
        write!(f, " ({})", self.rule())
    }
}

impl Error for AsgiError {}
