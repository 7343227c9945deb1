//! Chapter 35: consumers. The ASGI specification 3.0: WebSocket 2.5, from the application's side.
//!
//! A view answers once. A consumer lives as long as its WebSocket does, so it is a value with
//! methods, and each connection has one of its own:
//!
//! ```text
//!   a client wants to come in      connect(knock)              accept, or refuse
//!   it says something              receive(text, channel)      any number of times,
//!                                  receive_binary(bytes, ..)   in any order
//!   it has gone                    disconnect(code)            once
//!
//!                 ┌── channel ──► one client        from any thread, at any time
//!   application ──┤
//!                 └── group ────► many clients      and a slow one holds up nobody
//! ```
//!
//! No method waits for the client to speak, so nothing here looks like an event loop either. The
//! thread of the connection waits, inside of [`Receive::receive`].

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::gateway::asgi::{
    Application, AsgiError, Emit, Event, HttpScope, Payload, Receive, Remote, Scope,
};
use crate::gateway::wsgi::Exception;
use crate::http::headers::Headers;
use crate::http::request::Method;
use crate::http::response::{Body, Response};
use crate::http::url::{Query, QueryLimits, UrlError};
use crate::web::router::{Found, Parameters, Route, Router, path};
use crate::websocket::frame::CloseCode;
use crate::websocket::handshake::HandshakeError;
use crate::websocket::session::is_over;

/// The application's side of one WebSocket. One is made when a client asks for it, and dropped when
/// the WebSocket has ended. All its methods are called on one thread, one after the other.
pub trait WebSocketConsumer: Send {
    /// A client wants to come in: accept it, or refuse it. Nothing can be sent before.
    ///
    /// # Errors
    /// What [`Knock::refuse`] returns. Any other error answers 500.
    fn connect(&mut self, knock: Knock) -> Connected {
        knock.accept()
    }

    /// A text message has come, whole.
    ///
    /// # Errors
    /// An error ends the WebSocket with code 1011. But if it says that the client has gone, it is
    /// no mistake of the consumer's, and may be passed on with `?`.
    fn receive(&mut self, text: String, channel: &Channel) -> Result<(), Exception> {
        let _ = text;
        channel.close(CloseCode::UNSUPPORTED.0, "no text is expected here")
    }

    /// A binary message has come, whole.
    ///
    /// # Errors
    /// As [`WebSocketConsumer::receive`].
    fn receive_binary(&mut self, bytes: Vec<u8>, channel: &Channel) -> Result<(), Exception> {
        let _ = bytes;
        channel.close(CloseCode::UNSUPPORTED.0, "no bytes are expected here")
    }

    /// The WebSocket has ended, with this code: 1005 if there was none, 1006 if the connection was
    /// lost. Called once if [`WebSocketConsumer::connect`] has returned a channel, whoever has
    /// ended it; not after a panic.
    fn disconnect(&mut self, code: u16) {
        let _ = code;
    }
}

/// What connecting leads to: the way to the client, or why there is none.
pub type Connected = Result<Channel, Exception>;

/// A client at the door.
pub struct Knock<'a> {
    /// The request that it came with.
    pub scope: &'a HttpScope,
    /// What the route's parameters stand for.
    pub parameters: Parameters,
    /// The subprotocols that it speaks, the one it likes best first.
    pub subprotocols: &'a [String],
    send: &'a mut dyn Emit,
}

impl Knock<'_> {
    /// Lets it in.
    ///
    /// # Errors
    /// If it has gone.
    pub fn accept(self) -> Connected {
        self.accept_with(None, Headers::new())
    }

    /// Lets it in with one of its subprotocols, or with fields of our own, such as a cookie.
    ///
    /// # Errors
    /// If it has gone, has not offered this subprotocol, or may not be sent one of these fields.
    pub fn accept_with(self, subprotocol: Option<&str>, headers: Headers) -> Connected {
        let subprotocol = subprotocol.map(str::to_string);
        self.send.send(Event::WebsocketAccept { subprotocol, headers })?;
        let remote = self.send.share().ok_or("this gateway shares no WebSocket")?;
        Ok(Channel::new(remote))
    }

    /// Sends it away with this status, from 200 to 599, and some words. A page cannot see either:
    /// a browser tells its script only that there is no WebSocket. To say more, accept and close.
    ///
    /// # Errors
    /// Always: this is how [`WebSocketConsumer::connect`] ends without a channel.
    pub fn refuse(self, status: u16, words: &str) -> Connected {
        let mut headers = Headers::new();
        headers.try_push("Content-Type", "text/plain; charset=utf-8")?;
        let body = format!("{words}\n").into_bytes();
        self.send.send(Event::HttpResponseStart { status, headers })?;
        self.send.send(Event::HttpResponseBody { body, more_body: false })?;
        Err(Refused.into())
    }

    /// The pairs of the query.
    ///
    /// # Errors
    /// If there are too many.
    pub fn query(&self) -> Result<Query, UrlError> {
        let query = self.scope.head.target.query().unwrap_or_default();
        Query::parse(query, &QueryLimits::default())
    }
}

/// The way to one client. Clones lead to the same one, and any thread may use them. When the client
/// has gone, every call is an error that [`is_over`] knows.
#[derive(Clone)]
pub struct Channel {
    number: u64,
    remote: Arc<dyn Remote>,
}

impl Channel {
    /// A channel to the client behind this handle.
    pub fn new(remote: Arc<dyn Remote>) -> Channel {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        Channel { number: NUMBERS.fetch_add(1, Ordering::Relaxed), remote }
    }

    /// Sends text. Waits as long as a slow client makes it wait.
    ///
    /// # Errors
    /// If the client has gone.
    pub fn send_text(&self, text: impl Into<String>) -> Result<(), Exception> {
        self.remote.send(Event::WebsocketSend(Payload::Text(text.into())))
    }

    /// Sends bytes. Waits as long as a slow client makes it wait.
    ///
    /// # Errors
    /// If the client has gone.
    pub fn send_bytes(&self, bytes: impl Into<Vec<u8>>) -> Result<(), Exception> {
        self.remote.send(Event::WebsocketSend(Payload::Bytes(bytes.into())))
    }

    /// Leaves a message to be sent, and does not wait.
    ///
    /// # Errors
    /// If the client has gone, or is so slow that too much waits for it already: then the error is
    /// an I/O error of the kind `WouldBlock`, and this message is not sent.
    pub fn post(&self, message: Payload) -> Result<(), Exception> {
        self.remote.post(Event::WebsocketSend(message))
    }

    /// Ends the WebSocket with 1000, with a code of our own from 3000 to 4999, or with another one
    /// of RFC 6455, section 7.4. Of the reason 123 bytes are sent. `disconnect` follows.
    ///
    /// # Errors
    /// If it has ended already, or the code may not be sent.
    pub fn close(&self, code: u16, reason: &str) -> Result<(), Exception> {
        self.remote.send(Event::WebsocketClose(code, reason.to_string()))
    }

    /// Ends the WebSocket at once. The client is told nothing, and hears 1006.
    pub fn cut(&self) {
        self.remote.cut();
    }
}

/// Channels that hear the same. Clones are the same group.
///
/// A consumer joins when it has accepted, and leaves in `disconnect`. If it forgets to, because it
/// panicked, the group forgets its channel as soon as a message cannot be left there.
#[derive(Clone, Default)]
pub struct Group {
    members: Arc<Mutex<BTreeMap<u64, Channel>>>,
}

impl Group {
    /// A group without members.
    pub fn new() -> Group {
        Group::default()
    }

    /// Adds a channel. One that is there already is not added twice.
    pub fn join(&self, channel: &Channel) {
        self.members().insert(channel.number, channel.clone());
    }

    /// Takes a channel out.
    pub fn leave(&self, channel: &Channel) {
        self.members().remove(&channel.number);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.members().len()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Leaves a message for every member, and never waits. A member that is too slow is cut off,
    /// and one that has gone is forgotten. Returns how many are left. All of them hear all
    /// broadcasts in the same order.
    pub fn broadcast(&self, message: &Payload) -> usize {
        let mut members = self.members();
        members.retain(|_, member| {
            let posted = member.post(message.clone()).is_ok();
            if !posted {
                // It hears nothing of this message, and must not go on as if nothing had happened.
                member.cut();
            }
            posted
        });
        members.len()
    }

    /// The lock is held while a message is left with each member, which takes no time: nobody
    /// waits for a client there. A panic of another thread leaves the map whole.
    fn members(&self) -> MutexGuard<'_, BTreeMap<u64, Channel>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Groups by name, such as the rooms of a chat.
#[derive(Clone, Default)]
pub struct Groups {
    by_name: Arc<Mutex<BTreeMap<String, Group>>>,
}

impl Groups {
    /// No groups yet.
    pub fn new() -> Groups {
        Groups::default()
    }

    /// The group of this name. It is made when it is asked for, and forgotten when it is empty and
    /// nobody holds it any more: strangers choose the names, and memory must not grow with them.
    pub fn get(&self, name: &str) -> Group {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.retain(|_, group| Arc::strong_count(&group.members) > 1 || !group.is_empty());
        by_name.entry(name.to_string()).or_default().clone()
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Makes a consumer for each client.
pub type MakeConsumer = Box<dyn Fn() -> Box<dyn WebSocketConsumer> + Send + Sync>;

/// A route to a consumer: `ws_path("ws/echo/", EchoConsumer::new)`. Patterns are those of chapter
/// 18, and `make` is called once for each client.
///
/// # Panics
/// If the pattern is malformed, with the place of the caller.
#[track_caller]
pub fn ws_path<F, C>(pattern: &str, make: F) -> Route<MakeConsumer>
where
    F: Fn() -> C + Send + Sync + 'static,
    C: WebSocketConsumer + 'static,
{
    path(pattern, Box::new(move || Box::new(make())))
}

/// Joins an application for requests and consumers for WebSockets into one application.
pub struct ProtocolRouter {
    requests: Box<dyn Application>,
    consumers: Router<MakeConsumer>,
}

impl ProtocolRouter {
    /// This application, which is also told of the server's life, and no consumers yet.
    pub fn new(requests: impl Application + 'static) -> ProtocolRouter {
        ProtocolRouter { requests: Box::new(requests), consumers: Router::default() }
    }

    /// Adds a consumer.
    pub fn with(mut self, route: Route<MakeConsumer>) -> ProtocolRouter {
        self.consumers.add(route);
        self
    }

    fn has_consumer_at(&self, path: &str) -> bool {
        matches!(self.consumers.find(&Method::Get, path), Found::View(..))
    }
}

/// Where a consumer is, an ordinary request is answered 426. RFC 9110, section 15.5.22.
fn ask_to_upgrade(send: &mut dyn Emit) -> Result<(), Exception> {
    let Response { status, headers, body } = HandshakeError::NoUpgrade.response();
    let body = if let Body::Whole(text) = body { text.into_owned() } else { Vec::new() };
    send.send(Event::HttpResponseStart { status: status.code(), headers })?;
    send.send(Event::HttpResponseBody { body, more_body: false })
}

impl Application for ProtocolRouter {
    fn call(
        &self,
        scope: &Scope,
        receive: &mut dyn Receive,
        send: &mut dyn Emit,
    ) -> Result<(), Exception> {
        let (scope, subprotocols) = match scope {
            Scope::WebSocket(scope, subprotocols) => (scope, subprotocols),
            Scope::Http(http) if self.has_consumer_at(http.path_info()) => {
                return ask_to_upgrade(send);
            }
            _ => return self.requests.call(scope, receive, send),
        };
        let Event::WebsocketConnect = receive.receive()? else {
            return Err("a WebSocket begins with websocket.connect".into());
        };
        let parameters = Parameters::default();
        let mut knock = Knock { scope, parameters, subprotocols, send };
        let connected = match self.consumers.find(&Method::Get, scope.path_info()) {
            Found::View(make, parameters) => {
                knock.parameters = parameters;
                let mut consumer = make();
                let connected = consumer.connect(knock);
                if let Ok(channel) = &connected {
                    return converse(&mut *consumer, receive, channel);
                }
                connected
            }
            Found::NeedsSlash => knock.refuse(404, "There is a WebSocket with a slash behind it."),
            _ => knock.refuse(404, "There is no WebSocket at this address."),
        };
        match connected {
            Err(error) if error.is::<Refused>() => Ok(()),
            other => other.map(drop),
        }
    }
}

/// Tells the consumer what comes, until nothing more will come.
fn converse(
    consumer: &mut dyn WebSocketConsumer,
    receive: &mut dyn Receive,
    channel: &Channel,
) -> Result<(), Exception> {
    loop {
        let done = match receive.receive() {
            Ok(Event::WebsocketReceive(Payload::Text(text))) => consumer.receive(text, channel),
            Ok(Event::WebsocketReceive(Payload::Bytes(bytes))) => {
                consumer.receive_binary(bytes, channel)
            }
            Ok(Event::WebsocketDisconnect(code, _)) => {
                consumer.disconnect(code);
                return Ok(());
            }
            Ok(other) => Err(AsgiError::NotAnAnswer(other.name()).into()),
            Err(error) => Err(error),
        };
        match done {
            // It wanted to send, and there is nobody any more. The disconnect is on its way.
            Err(error) if !is_over(&error) => {
                consumer.disconnect(CloseCode::INTERNAL_ERROR.0);
                return Err(error);
            }
            _ => {}
        }
    }
}

/// Says the same again, whatever it hears: the smallest consumer that does something.
#[derive(Default)]
pub struct EchoConsumer;

impl EchoConsumer {
    /// A new one.
    pub fn new() -> EchoConsumer {
        EchoConsumer
    }
}

impl WebSocketConsumer for EchoConsumer {
    fn receive(&mut self, text: String, channel: &Channel) -> Result<(), Exception> {
        channel.send_text(text)
    }

    fn receive_binary(&mut self, bytes: Vec<u8>, channel: &Channel) -> Result<(), Exception> {
        channel.send_bytes(bytes)
    }
}

/// What [`Knock::refuse`] returns. It is no mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "the consumer does not let this client in")
    }
}

impl Error for Refused {}
