//! Chapter 34: the session. The ASGI specification 3.0: WebSocket 2.5; RFC 6455, sections 4.2.2
//! and 7.4.
//!
//! A gateway for WebSockets. The client asks, the application decides, and the answer 101 is sent
//! when it has accepted, and not before:
//!
//! ```text
//!                          Asked      Denying    Open       Refused       Over
//!  receive()               connect,   error      message,   disconnect    error
//!                          error                 disconn.   then Over
//!  accept                  101, Open  error      error      OSError       OSError
//!  send                    error      error      a message  OSError       OSError
//!  close                   403        error      a close    OSError       OSError
//!  http.response.start     Denying    error      error      OSError       OSError
//!  http.response.body      error      its piece  error      OSError       OSError
//!  it returns              500        500        1000       -             -
//!  it fails, it panics     500        500        1011       -             -
//! ```
//!
//! The application runs on the thread of its connection, so an idle WebSocket is one thread. While
//! it waits in `receive`, it is this thread that reads, and pings are answered. While it is away
//! and computes, nobody would. So there is a steward, who lends a thread to read to those whose
//! application stays away for long.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::gateway::asgi::{
    Asgi, AsgiError, Conversation, Emit, Event, HttpScope, Payload, Receive, Remote, Scope,
};
use crate::gateway::wsgi::Exception;
use crate::http::exchange::{Exchange, Handler, Link};
use crate::http::headers::Headers;
use crate::http::refusal::Refusal;
use crate::http::response::{Status, declared_length};
use crate::socket::lobby::Guest;
use crate::socket::wire::Wire;
use crate::websocket::conversation::{self, Closed, Prepared, SendError, Sender, WebSocket};
use crate::websocket::frame::{CloseCode, Role};
use crate::websocket::handshake::{Handshake, HandshakeError, OriginPolicy, wants_websocket};
use crate::websocket::message::{FrameSeen, Message, Observer, show_frames};

/// What can be set.
#[derive(Debug, Clone, Default)]
pub struct SessionSettings {
    /// Which pages may open a WebSocket here.
    pub origins: OriginPolicy,
    /// How long messages may be, and how long each side waits.
    pub messages: conversation::Settings,
}

/// Sees what becomes of WebSockets, to log it or to show it. Called on the threads of the
/// connections: it must be quick, and it must not panic.
pub trait SessionObserver: Send + Sync {
    /// A client wants to open a WebSocket.
    fn asked(&self, _exchange: &Exchange) {}
    /// It may not, and this is the status of the answer.
    fn refused(&self, _exchange: &Exchange, _status: Status) {}
    /// It may.
    fn accepted(&self, _exchange: &Exchange, _subprotocol: Option<&str>) {}
    /// The WebSocket has ended.
    fn closed(&self, _exchange: &Exchange, _closed: &Closed) {}
    /// Asked once for each WebSocket: who wants to see each of its frames, in both directions?
    fn frames(&self, _guest: &Guest) -> Option<Observer> {
        None
    }
}

/// Nobody watches.
impl SessionObserver for () {}

/// A gateway that opens WebSockets, and leaves all other requests to that of `asgi.rs`.
pub struct WebSockets {
    /// The gateway for requests. It holds the application, which is the same for both.
    pub asgi: Arc<Asgi>,
    settings: SessionSettings,
    observer: Arc<dyn SessionObserver>,
    steward: Arc<Steward>,
}

impl WebSockets {
    /// A gateway to the application behind `asgi`.
    pub fn new(asgi: Arc<Asgi>, settings: SessionSettings) -> WebSockets {
        WebSockets { asgi, settings, observer: Arc::new(()), steward: Arc::default() }
    }

    /// The same with an observer.
    pub fn observed_by(mut self, observer: Arc<dyn SessionObserver>) -> WebSockets {
        self.observer = observer;
        self
    }
}

impl Handler for WebSockets {
    fn handle(&self, exchange: &mut Exchange) -> io::Result<()> {
        if !wants_websocket(&exchange.head) {
            return self.asgi.handle(exchange);
        }
        self.observer.asked(exchange);
        let result = self.serve(exchange);
        if !exchange.has_switched_protocols() {
            // Without an answer so far it will be this one.
            let status = exchange.status().unwrap_or(Status::INTERNAL_SERVER_ERROR);
            self.observer.refused(exchange, status);
        }
        result
    }
}

impl WebSockets {
    fn serve(&self, exchange: &mut Exchange) -> io::Result<()> {
        let handshake = match Handshake::read(&exchange.head, &self.settings.origins) {
            Ok(handshake) => handshake,
            Err(error) => return exchange.respond(error.response()),
        };
        let scope = match self.asgi.scope(exchange) {
            Ok(scope) => {
                let scheme = if scope.scheme == "https" { "wss" } else { "ws" };
                Scope::WebSocket(HttpScope { scheme, ..scope }, handshake.offered.clone())
            }
            Err(error) => return exchange.respond(Refusal::from(error).response()),
        };
        let call = RefCell::new(Call {
            gateway: self,
            conversation: Conversation::new(exchange),
            handshake,
            has_heard_connect: false,
            stage: Stage::Asked,
            session: None,
        });
        let (mut receive, mut send) = (Handle { call: &call }, Handle { call: &call });
        let application = self.asgi.application();
        let run = || application.call(&scope, &mut receive, &mut send);
        // Also after a panic the client shall hear why this is the end.
        let result = catch_unwind(AssertUnwindSafe(run));
        call.into_inner().end(result.unwrap_or_else(|_| Err(SessionError::Panicked.into())))
    }
}

/// How far a WebSocket has come, as its application sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The application has to decide.
    Asked,
    /// It has begun to answer as if this were a request.
    Denying,
    /// It has accepted.
    Open,
    /// There is no WebSocket, and it has not heard so yet.
    Refused,
    /// It has heard the disconnect.
    Over,
}

/// One call of the application.
struct Call<'e> {
    gateway: &'e WebSockets,
    /// For an answer without a WebSocket: the same as for any request.
    conversation: Conversation<'e>,
    handshake: Handshake,
    /// The application has taken `websocket.connect`.
    has_heard_connect: bool,
    stage: Stage,
    /// Once it has accepted.
    session: Option<Arc<Session>>,
}

impl Call<'_> {
    fn receive(&mut self) -> Result<Event, Exception> {
        if !self.has_heard_connect {
            self.has_heard_connect = true;
            return Ok(Event::WebsocketConnect);
        }
        let (code, reason) = match (self.stage, &self.session) {
            // Nothing can come before the answer, and the answer is the application's to give.
            (Stage::Asked | Stage::Denying, _) => return Err(SessionError::NotAccepted.into()),
            (Stage::Over, _) => return Err(SessionError::AfterDisconnect.into()),
            (Stage::Open, Some(session)) => match session.next() {
                Ok(Message::Text(text)) => {
                    return Ok(Event::WebsocketReceive(Payload::Text(text)));
                }
                Ok(Message::Binary(bytes)) => {
                    return Ok(Event::WebsocketReceive(Payload::Bytes(bytes)));
                }
                Err(closed) => (closed.code, closed.reason),
            },
            _ => (CloseCode::LOST, String::new()),
        };
        self.stage = Stage::Over;
        Ok(Event::WebsocketDisconnect(code.0, reason))
    }

    fn send(&mut self, event: Event) -> Result<(), Exception> {
        use Event::{HttpResponseBody, HttpResponseStart};
        use Event::{WebsocketAccept, WebsocketClose, WebsocketSend};
        match (self.stage, event) {
            (Stage::Asked, WebsocketAccept { subprotocol, headers }) => {
                self.accept(subprotocol.as_deref(), &headers)
            }
            (Stage::Asked, WebsocketClose(..)) => self.refuse(),
            (
                Stage::Asked | Stage::Denying,
                event @ (HttpResponseStart { .. } | HttpResponseBody { .. }),
            ) => self.deny(event),
            (Stage::Asked | Stage::Denying, WebsocketSend(_)) => {
                Err(SessionError::NotAccepted.into())
            }
            (Stage::Denying, WebsocketAccept { .. } | WebsocketClose(..)) => {
                Err(SessionError::Denied.into())
            }
            (Stage::Open, WebsocketAccept { .. }) => Err(SessionError::AcceptedTwice.into()),
            (Stage::Open, event) => match &self.session {
                Some(session) => session.send(event),
                None => Err(over()),
            },
            (Stage::Refused | Stage::Over, _) => Err(over()),
            (_, other) => Err(AsgiError::NotAnAnswer(other.name()).into()),
        }
    }

    /// The moment at which the connection changes its protocol.
    fn accept(&mut self, subprotocol: Option<&str>, headers: &Headers) -> Result<(), Exception> {
        let fields = self.handshake.fields(subprotocol, headers).map_err(SessionError::Accept)?;
        declared_length(headers).map_err(AsgiError::Answer)?;
        let gateway = self.gateway;
        // No mistake of the application's is left: if this fails, the client has gone.
        let Ok(session) = gateway.open(self.conversation.exchange, &fields) else {
            self.conversation.exchange.lose_client();
            self.stage = Stage::Refused;
            return Err(over());
        };
        gateway.observer.accepted(self.conversation.exchange, subprotocol);
        self.stage = Stage::Open;
        self.session = Some(session);
        Ok(())
    }

    /// The specification: a close in place of an accept is answered with 403.
    fn refuse(&mut self) -> Result<(), Exception> {
        let refusal = Refusal {
            status: Status::new(403).unwrap_or(Status::BAD_REQUEST),
            problem: "the application does not open this WebSocket".to_string(),
            rule: "RFC 6455, section 4.2.2",
            module: "session",
        };
        self.stage = Stage::Refused;
        Ok(self.conversation.exchange.respond(refusal.response())?)
    }

    /// The extension "WebSocket Denial Response": an answer of the application's own.
    fn deny(&mut self, event: Event) -> Result<(), Exception> {
        self.conversation.send(event)?;
        let whole = self.conversation.end().is_ok();
        self.stage = if whole { Stage::Refused } else { Stage::Denying };
        Ok(())
    }

    /// The application has returned, with or without success.
    fn end(self, result: Result<(), Exception>) -> io::Result<()> {
        let Some(session) = &self.session else {
            let undecided = match self.stage {
                Stage::Asked => Err(SessionError::NotDecided.into()),
                Stage::Denying => self.conversation.end().map_err(Exception::from),
                _ => Ok(()),
            };
            return result.and(undecided).map_err(io::Error::other);
        };
        // Whoever fails because its client has gone has not failed.
        let result = match result {
            Err(error) if is_over(&error) && session.has_ended() => Ok(()),
            other => other,
        };
        let code = if result.is_ok() { CloseCode::NORMAL } else { CloseCode::INTERNAL_ERROR };
        self.gateway.steward.leave(session);
        let closed = session.finish(code);
        self.gateway.observer.closed(self.conversation.exchange, &closed);
        result.map_err(io::Error::other)
    }
}

/// Both handles speak to one call.
struct Handle<'c, 'e> {
    call: &'c RefCell<Call<'e>>,
}

impl Receive for Handle<'_, '_> {
    fn receive(&mut self) -> Result<Event, Exception> {
        self.call.borrow_mut().receive()
    }

    fn has_hung_up(&mut self) -> bool {
        let mut call = self.call.borrow_mut();
        // Who reads for an application that is away knows it. Nobody else may touch the socket.
        let known = call.session.as_ref().map(|session| session.desk().over);
        known.unwrap_or_else(|| call.conversation.exchange.has_hung_up())
    }
}

impl Emit for Handle<'_, '_> {
    fn send(&mut self, event: Event) -> Result<(), Exception> {
        self.call.borrow_mut().send(event)
    }

    /// Only a WebSocket that is open can be shared: the decision belongs to one thread.
    fn share(&self) -> Option<Arc<dyn Remote>> {
        let session = self.call.borrow().session.clone()?;
        Some(session)
    }
}

impl WebSockets {
    /// Answers 101, and takes the connection over.
    fn open(&self, exchange: &mut Exchange, fields: &Headers) -> io::Result<Arc<Session>> {
        let link = exchange.switch_protocols(fields)?;
        let stream = Arc::clone(link.wire.stream());
        let early = link.wire.buffered().to_vec();
        let observer = self.frame_observer(link);
        // A new one has no buffers: nobody will read with it, and there may be ten thousand.
        link.wire = Wire::new(Arc::clone(&stream), link.lobby.deadlines.write)?;
        let opening = conversation::Opening {
            stream: Arc::clone(&stream),
            role: Role::Server,
            early,
            settings: conversation::Settings {
                write_patience: link.lobby.deadlines.write,
                ..self.settings.messages.clone()
            },
            guest: Some(Arc::clone(&link.guest)),
            observer,
        };
        let number = link.guest.number;
        let session = Arc::new(Session::new(number, stream, WebSocket::open(opening)?));
        self.steward.enter(&session);
        Ok(session)
    }

    /// The wire view sees all frames; so does whoever the observer sends.
    fn frame_observer(&self, link: &Link) -> Option<Observer> {
        let shown = link.wire.tap().map(|tap| show_frames(tap, link.guest.number));
        match (shown, self.observer.frames(&link.guest)) {
            (Some(one), Some(other)) => Some(Arc::new(move |seen: &FrameSeen| {
                one(seen);
                other(seen);
            })),
            (one, other) => one.or(other),
        }
    }
}

/// An open WebSocket, as all threads see it that have to do with it: that of the connection, those
/// that send, the steward, and the stand-in.
struct Session {
    number: u64,
    stream: Arc<TcpStream>,
    sender: Sender,
    /// Locked by whoever reads, for as long as the reading takes.
    reader: Mutex<WebSocket>,
    /// Whether the application has dealt quickly with the message before this one.
    is_quick: AtomicBool,
    desk: Mutex<Desk>,
    /// Told when something on the desk has changed.
    news: Condvar,
}

/// What the application and its stand-in must know of each other.
struct Desk {
    /// Since when the application has been away. `None` while it waits for a message.
    away: Option<Instant>,
    /// Somebody reads in its place.
    has_stand_in: bool,
    /// It has been given a message before.
    has_heard: bool,
    /// What has been read for it meanwhile.
    inbox: VecDeque<Message>,
    /// Nothing more will come.
    over: bool,
}

/// An application that needs less time than this for a message is quick: what it answers may wait
/// for the next answer and leave together with it, if the next message is here already.
const QUICK: Duration = Duration::from_millis(1);

impl Session {
    fn new(number: u64, stream: Arc<TcpStream>, reader: WebSocket) -> Session {
        let (away, inbox) = (Some(Instant::now()), VecDeque::new());
        let desk = Desk { away, has_stand_in: false, has_heard: false, inbox, over: false };
        Session {
            number,
            stream,
            sender: reader.sender(),
            reader: Mutex::new(reader),
            is_quick: AtomicBool::new(false),
            desk: Mutex::new(desk),
            news: Condvar::new(),
        }
    }

    /// The next message for the application.
    fn next(&self) -> Result<Message, Closed> {
        let mut desk = self.desk();
        let is_quick = desk.away.is_some_and(|since| since.elapsed() < QUICK);
        // What it did before the first message says nothing about messages.
        self.is_quick.store(is_quick && desk.has_heard, Ordering::Relaxed);
        desk.has_heard = true;
        desk.away = None;
        // A stand-in will find a message, or see that nobody needs it any more.
        while desk.has_stand_in && desk.inbox.is_empty() {
            desk = self.wait(desk);
        }
        let read_before = desk.inbox.pop_front();
        drop(desk);
        let message = match read_before {
            Some(message) => Ok(message),
            None => self.reader().receive(),
        };
        self.desk().away = Some(Instant::now());
        message
    }

    /// Reads for an application that is away.
    fn stand_in(&self) {
        // What it has said may still wait for what it wants to say next.
        let _ = self.sender.flush();
        loop {
            let found = self.reader().poll(GLANCE);
            let mut desk = self.desk();
            desk.over = found.is_err();
            if let Ok(Some(message)) = found {
                desk.inbox.push_back(message);
                self.news.notify_all();
            }
            if desk.away.is_none() || !desk.has_use_for_stand_in() {
                return;
            }
        }
    }

    /// Ends the WebSocket, unless it has ended already. Returns how it has ended.
    fn finish(&self, code: CloseCode) -> Closed {
        let mut desk = self.desk();
        desk.away = None;
        while desk.has_stand_in {
            desk = self.wait(desk);
        }
        drop(desk);
        self.reader().close(code, "")
    }

    /// Whether nothing can be sent any more.
    fn has_ended(&self) -> bool {
        self.sender.flush().is_err()
    }

    /// Somebody who wanted to see the frames may have panicked under this lock and the next. What
    /// they guard is whole all the same.
    fn reader(&self) -> MutexGuard<'_, WebSocket> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'d>(&self, desk: MutexGuard<'d, Desk>) -> MutexGuard<'d, Desk> {
        self.news.wait(desk).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    /// Messages that are read for an application that is away, and their bytes. Then it is the
    /// client's turn to wait: nobody reads, and the connection fills up.
    const INBOX: usize = 16;
    const INBOX_BYTES: usize = 1024 * 1024;

    fn has_use_for_stand_in(&self) -> bool {
        let bytes: usize = self.inbox.iter().map(|message| message.payload().len()).sum();
        !self.over && self.inbox.len() < Desk::INBOX && bytes < Desk::INBOX_BYTES
    }
}

/// The application's own thread sends this way, and all others too.
impl Remote for Session {
    fn send(&self, event: Event) -> Result<(), Exception> {
        match event {
            Event::WebsocketSend(payload) if self.is_quick.load(Ordering::Relaxed) => {
                self.sender.answer(&to_message(payload)).map_err(exception)
            }
            Event::WebsocketSend(payload) => {
                self.sender.send(&to_message(payload)).map_err(exception)
            }
            Event::WebsocketClose(code, reason) => {
                self.sender.close(CloseCode(code), &reason).map_err(exception)
            }
            other => Err(AsgiError::NotAnAnswer(other.name()).into()),
        }
    }

    fn post(&self, event: Event) -> Result<(), Exception> {
        match event {
            Event::WebsocketSend(payload) => {
                self.sender.post(&Prepared::new(&to_message(payload))).map_err(exception)
            }
            other => Err(AsgiError::NotAnAnswer(other.name()).into()),
        }
    }

    fn cut(&self) {
        // Whoever reads or writes sees it, and does the rest.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn to_message(payload: Payload) -> Message {
    match payload {
        Payload::Text(text) => Message::Text(text),
        Payload::Bytes(bytes) => Message::Binary(bytes),
    }
}

fn exception(error: SendError) -> Exception {
    match error {
        SendError::InvalidCode(code) => SessionError::CloseCode(code).into(),
        SendError::Full => io::Error::new(ErrorKind::WouldBlock, error).into(),
        SendError::Closed | SendError::Lost => over(),
    }
}

/// The error of a call that comes too late, because the WebSocket has ended. The specification
/// wants a kind of `OSError`.
fn over() -> Exception {
    io::Error::new(ErrorKind::BrokenPipe, SessionError::Over).into()
}

/// Whether an exception says that the WebSocket has ended: a client that goes away is nobody's
/// mistake, and whoever was about to send can stop.
pub fn is_over(exception: &Exception) -> bool {
    let error = exception.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.and_then(|error| error.downcast_ref()) == Some(&SessionError::Over)
}

/// Looks after those whose application is away, on one thread while there are WebSockets, and on
/// none otherwise.
#[derive(Default)]
struct Steward {
    roll: Mutex<Roll>,
}

#[derive(Default)]
struct Roll {
    is_walking: bool,
    sessions: BTreeMap<u64, Arc<Session>>,
}

/// How often the steward walks.
const TICK: Duration = Duration::from_millis(250);
/// An application that has been away for so long gets a stand-in.
const AWAY: Duration = Duration::from_secs(1);
/// A stand-in looks this often whether the application is back.
const GLANCE: Duration = Duration::from_millis(100);

impl Steward {
    fn enter(self: &Arc<Steward>, session: &Arc<Session>) {
        let mut roll = self.roll();
        roll.sessions.insert(session.number, Arc::clone(session));
        if roll.is_walking {
            return;
        }
        let steward = Arc::clone(self);
        let thread = thread::Builder::new().name("steward".into()).stack_size(STACK);
        // Without it all works but the pings of those who are away. The next one tries again.
        roll.is_walking = thread.spawn(move || steward.walk()).is_ok();
    }

    fn leave(&self, session: &Session) {
        self.roll().sessions.remove(&session.number);
    }

    fn walk(&self) {
        loop {
            thread::sleep(TICK);
            let mut roll = self.roll();
            if roll.sessions.is_empty() {
                roll.is_walking = false;
                return;
            }
            for session in roll.sessions.values() {
                let mut desk = session.desk();
                let is_long_away = desk.away.is_some_and(|since| since.elapsed() >= AWAY);
                if is_long_away && !desk.has_stand_in && desk.has_use_for_stand_in() {
                    desk.has_stand_in = true;
                    drop(desk);
                    lend(StandIn { session: Arc::clone(session) });
                }
            }
        }
    }

    fn roll(&self) -> MutexGuard<'_, Roll> {
        self.roll.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of stack for threads that do little.
const STACK: usize = 64 * 1024;

/// A thread that reads for somebody. When it goes, however that happens, the desk knows.
struct StandIn {
    session: Arc<Session>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.session.desk().has_stand_in = false;
        self.session.news.notify_all();
    }
}

fn lend(stand_in: StandIn) {
    let thread = thread::Builder::new().name("stand-in".into()).stack_size(STACK);
    // If the system refuses the thread, the steward asks again a moment later.
    let _ = thread.spawn(move || stand_in.session.stand_in());
}

/// What an application can do wrong with a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionError {
    /// It waits for a message, or sends one, and has not accepted.
    NotAccepted,
    /// It has accepted already.
    AcceptedTwice,
    /// What it has put into the answer cannot be there.
    Accept(HandshakeError),
    /// It has begun to refuse with an answer of its own.
    Denied,
    /// It has returned and has neither accepted nor refused.
    NotDecided,
    /// It has panicked.
    Panicked,
    /// No close frame may carry this code.
    CloseCode(CloseCode),
    /// The WebSocket has ended. It comes inside of an [`io::Error`].
    Over,
    /// It has received the disconnect, which is the last event.
    AfterDisconnect,
}

impl SessionError {
    /// The rule that is broken: a part of the ASGI specification, by its heading, or of an RFC.
    pub fn rule(&self) -> &'static str {
        match self {
            SessionError::NotAccepted | SessionError::NotDecided => "ASGI WebSocket, Connect",
            SessionError::AcceptedTwice => "ASGI WebSocket, Accept",
            SessionError::Accept(error) => error.rule(),
            SessionError::Denied => "ASGI WebSocket Denial Response",
            SessionError::Panicked => "ASGI, Error Handling",
            SessionError::CloseCode(_) => "RFC 6455, section 7.4",
            SessionError::Over => "ASGI WebSocket, Send",
            SessionError::AfterDisconnect => "ASGI WebSocket, Disconnect",
        }
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            SessionError::NotAccepted => write!(f, "the WebSocket has not been accepted yet")?,
            SessionError::AcceptedTwice => write!(f, "websocket.accept was sent twice")?,
            SessionError::Accept(error) => error.fmt(f)?,
            SessionError::Denied => write!(f, "the WebSocket is being refused with an answer")?,
            SessionError::NotDecided => {
                write!(f, "the application returned and had neither accepted nor refused")?;
            }
            SessionError::Panicked => write!(f, "the application panicked")?,
            SessionError::CloseCode(code) => write!(f, "close code {code} may not be sent")?,
            SessionError::Over => write!(f, "the WebSocket has ended")?,
            SessionError::AfterDisconnect => {
                write!(f, "websocket.disconnect was the last event, and has been received")?;
            }
        }
        write!(f, " ({})", self.rule())
    }
}

impl Error for SessionError {}
