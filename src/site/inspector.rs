//! The page `/websocket/` shows frames bit by bit. A script in a browser cannot see a frame, only
//! messages. So the server tells, over a second WebSocket:
//!
//! ```text
//!   page ── 1 ──► /ws/frames/                 {"token": "5f3a90cc12de7b04"}
//!   page ── 2 ──► /ws/echo/?watch=5f3a...     any messages
//!   page ◄─ 3 ─── /ws/frames/                 one report for each frame of the second one
//! ```
//!
//! Nobody can guess a token, so nobody sees the frames of others. RFC 6455, section 5.2.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::gateway::asgi::Payload;
use crate::http::exchange::Exchange;
use crate::http::response::Status;
use crate::http::url::{Query, QueryLimits};
use crate::socket::lobby::Guest;
use crate::socket::wire::Direction;
use crate::web::form::to_json;
use crate::web::value::{Context, Value};
use crate::websocket::consumer::{Channel, Connected, Knock, WebSocketConsumer};
use crate::websocket::conversation::Closed;
use crate::websocket::message::{FrameSeen, Observer};
use crate::websocket::session::SessionObserver;
use crate::websocket::sha1::hex;

/// The only address whose frames can be watched. Reports are frames too: with a chain of watchers,
/// each watched by the one before, they would be reported inside of each other until the stack is
/// full.
const WATCHED: &str = "/ws/echo/";

/// Who watches whom. It stands in front of another observer, such as a log, and passes on what it is
/// told. Only the question who wants to see frames it answers alone.
pub struct Inspector {
    next: Arc<dyn SessionObserver>,
    by_token: Mutex<BTreeMap<String, Watcher>>,
}

/// Somebody who may be told of one connection.
struct Watcher {
    channel: Channel,
    /// The connection that has brought the token last.
    connection: Option<u64>,
}

/// Called for every WebSocket on this server, so it costs little where nobody watches.
impl SessionObserver for Inspector {
    fn asked(&self, exchange: &Exchange) {
        self.next.asked(exchange);
        let target = &exchange.head.target;
        let is_watched = target.path().ends_with(WATCHED);
        let query = target.query().filter(|_| is_watched).unwrap_or_default();
        let Ok(query) = Query::parse(query, &QueryLimits::default()) else { return };
        let Some(token) = query.get("watch") else { return };
        if let Some(watcher) = self.by_token().get_mut(token) {
            watcher.connection = Some(exchange.link.guest.number);
        }
    }

    fn refused(&self, exchange: &Exchange, status: Status) {
        self.next.refused(exchange, status);
        // The connection can go on, and ask for another address.
        let number = Some(exchange.link.guest.number);
        for watcher in self.by_token().values_mut().filter(|one| one.connection == number) {
            watcher.connection = None;
        }
    }

    fn accepted(&self, exchange: &Exchange, subprotocol: Option<&str>) {
        self.next.accepted(exchange, subprotocol);
    }

    fn closed(&self, exchange: &Exchange, closed: &Closed) {
        self.next.closed(exchange, closed);
    }

    fn frames(&self, guest: &Guest) -> Option<Observer> {
        let by_token = self.by_token();
        let is_meant = |watcher: &&Watcher| watcher.connection == Some(guest.number);
        let channel = by_token.values().find(is_meant)?.channel.clone();
        Some(Arc::new(move |seen: &FrameSeen| {
            if channel.post(Payload::Text(report(seen))).is_err() {
                // It is too slow, or gone. A list of frames with holes would be no list of frames.
                channel.cut();
            }
        }))
    }
}

impl Inspector {
    /// An inspector in front of this observer.
    pub fn new(next: Arc<dyn SessionObserver>) -> Inspector {
        Inspector { next, by_token: Mutex::default() }
    }

    fn by_token(&self) -> MutexGuard<'_, BTreeMap<String, Watcher>> {
        self.by_token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A frame in JSON, its bytes in hexadecimal: the header, and the beginning of the payload as it
/// was on the wire and without the mask.
pub fn report(seen: &FrameSeen) -> String {
    let mut header = Vec::new();
    seen.header.encode(&mut header);
    let way = if seen.direction == Direction::In { "in" } else { "out" };
    to_json(&Value::from(
        Context::new()
            .with("way", way)
            .with("header", hex(&header))
            .with("wire", hex(&seen.masked()))
            .with("payload", hex(&seen.payload))
            .with("length", seen.header.length),
    ))
}

/// `/ws/frames/`: gives out a token, and is told what becomes of it.
pub struct FramesConsumer {
    inspector: Arc<Inspector>,
    token: String,
}

impl FramesConsumer {
    /// A new one, with a token of its own.
    pub fn new(inspector: &Arc<Inspector>) -> FramesConsumer {
        // Random keys from the system; the standard library gives no other random numbers.
        let token = format!("{:016x}", RandomState::new().build_hasher().finish());
        FramesConsumer { inspector: Arc::clone(inspector), token }
    }
}

impl WebSocketConsumer for FramesConsumer {
    fn connect(&mut self, knock: Knock) -> Connected {
        let channel = knock.accept()?;
        let watcher = Watcher { channel: channel.clone(), connection: None };
        self.inspector.by_token().insert(self.token.clone(), watcher);
        let context = Context::new().with("token", self.token.as_str());
        channel.post(Payload::Text(to_json(&Value::from(context))))?;
        Ok(channel)
    }
}

/// Also after a panic.
impl Drop for FramesConsumer {
    fn drop(&mut self) {
        self.inspector.by_token().remove(&self.token);
    }
}
