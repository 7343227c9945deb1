//! Chapter 14: the connection. RFC 9112, section 9.
//!
//! One connection carries many requests, one after the other. This file is the loop:
//!
//! ```text
//!        ┌───────────────────────────────────────────────────────────┐
//!        ▼                                                           │ both sides agree, and
//!   wait for a head ──────────► exchange: read, handle, answer ──────┘ all has been read
//!        │ 400 408 414 431 505               │
//!        ▼                                   ▼
//!   ── answer, say Connection: close, stop sending, read a little more, close ──
//! ```
//!
//! After an error in the framing nobody knows where the next request begins. So each refusal is
//! the last answer on its connection.

use std::fmt;
use std::io::{self, BufRead, Write};
use std::sync::Arc;

use crate::http::body::BodyLimits;
use crate::http::exchange::{Exchange, Handler, Link};
use crate::http::headers::CONNECTION;
use crate::http::refusal::Refusal;
use crate::http::request::{HeadLimits, HeadParser, Parse, RequestHead, Version};
use crate::http::response::{ResponseWriter, Status};
use crate::socket::listener::Stop;
use crate::socket::lobby::{Guest, Lobby, Phase};
use crate::socket::pool::Service;
use crate::socket::wire::{Tap, Wire};

/// How much one client may send.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Of a request head.
    pub head: HeadLimits,
    /// Of a request body.
    pub body: BodyLimits,
}

/// Sees what happens on all connections, to log it or to count it. Called on the threads of the
/// connections: it must be quick, and it must not panic.
pub trait Observer: Send + Sync {
    /// A connection has been accepted.
    fn opened(&self, _guest: &Guest) {}
    /// A request has been dealt with, well or not.
    fn exchanged(&self, _exchange: &Exchange) {}
    /// Something that cannot be read as a request has been refused.
    fn refused(&self, _guest: &Guest, _refusal: &Refusal) {}
    /// A connection ends.
    fn ended(&self, _guest: &Guest, _reason: CloseReason) {}
}

/// HTTP/1.1, spoken on the pool's threads.
pub struct Http {
    /// Who answers.
    pub handler: Arc<dyn Handler>,
    /// Who watches.
    pub observer: Arc<dyn Observer>,
    /// How much a client may send.
    pub limits: Limits,
    /// Whether a connection may carry more than one request.
    pub keep_alive: bool,
    /// Set when the server is about to end.
    pub stop: Stop,
    /// The wire view, if it is on.
    pub tap: Option<Arc<Tap>>,
}

impl Service for Http {
    fn serve(&self, guest: &Arc<Guest>, lobby: &Arc<Lobby>) {
        self.observer.opened(guest);
        let reason = match self.link(guest, lobby) {
            Ok(link) => self.converse(link),
            Err(_) => CloseReason::PeerLost,
        };
        self.observer.ended(guest, reason);
    }

    fn turn_away(&self, guest: &Arc<Guest>, lobby: &Arc<Lobby>) {
        self.observer.opened(guest);
        let reason = match self.link(guest, lobby) {
            Ok(link) => self.refuse(link, &Refusal::full_house()),
            Err(_) => CloseReason::PeerLost,
        };
        self.observer.ended(guest, reason);
    }
}

impl Http {
    fn link(&self, guest: &Arc<Guest>, lobby: &Arc<Lobby>) -> io::Result<Link> {
        let mut wire = Wire::new(Arc::clone(&guest.stream), lobby.deadlines.write)?;
        if let Some(tap) = &self.tap {
            wire.attach(Arc::clone(tap), guest.number);
        }
        let (guest, lobby) = (Arc::clone(guest), Arc::clone(lobby));
        Ok(Link { wire, guest, lobby, asked_to_leave: None })
    }

    /// All requests of one connection, in order. RFC 9112, section 9.3.2.
    fn converse(&self, mut link: Link) -> CloseReason {
        let mut parser = HeadParser::new(self.limits.head.clone());
        let mut waits_in = Phase::Fresh;
        loop {
            let head = match next_head(&mut link, &mut parser, waits_in) {
                Ok(head) => head,
                Err(NoHead::Over(reason)) => return reason,
                Err(NoHead::Refused(refusal)) => return self.refuse(link, &refusal),
            };
            link = match self.exchange(link, head) {
                Ok(link) => link,
                Err(reason) => return reason,
            };
            waits_in = Phase::Idle;
        }
    }

    /// One request. Gives the link back if it can carry another.
    fn exchange(&self, link: Link, head: RequestHead) -> Result<Link, CloseReason> {
        let wanted = wants_keep_alive(&head) && link.asked_to_leave.is_none();
        let keep_alive = self.keep_alive && wanted && !self.stop.is_asked();
        let mut exchange = Exchange::new(link, head, &self.limits.body, keep_alive);
        exchange.run(&*self.handler);
        self.observer.exchanged(&exchange);
        if exchange.has_switched_protocols() {
            // Nobody but the other protocol knows how its connections end.
            let _ = exchange.link.wire.flush();
            return Err(CloseReason::SwitchedProtocols);
        }
        if exchange.leaves_link_usable() {
            return Ok(exchange.link);
        }
        Err(close(&mut exchange))
    }

    /// Refuses what could not be read as a request, and ends the connection.
    fn refuse(&self, mut link: Link, refusal: &Refusal) -> CloseReason {
        self.observer.refused(&link.guest, refusal);
        link.wire.explain("response");
        let mut writer = ResponseWriter::for_no_request();
        let sent = refusal.response().send(&mut writer, &mut link.wire);
        if sent.is_err() || link.linger().is_err() {
            return CloseReason::PeerLost;
        }
        CloseReason::Refused(refusal.status)
    }
}

/// Ends a connection after its last answer. RFC 9112, section 9.6.
fn close(exchange: &mut Exchange) -> CloseReason {
    if exchange.has_lost_client() {
        return CloseReason::PeerLost;
    }
    if !exchange.has_finished() {
        // The missing end is how the client learns that the answer is not whole. But the answers
        // before it are whole, and must not be lost.
        let _ = exchange.link.linger();
        return CloseReason::AnswerCut;
    }
    // Also when we have read all that we know of: one more byte may be in the kernel by now.
    match (exchange.link.linger(), exchange.failure()) {
        (Err(_), _) => CloseReason::PeerLost,
        (Ok(()), Some(refusal)) => CloseReason::Refused(refusal.status),
        (Ok(()), None) => CloseReason::Agreed,
    }
}

/// RFC 9112, section 9.3: HTTP/1.1 stays unless told to close, HTTP/1.0 closes unless asked to
/// stay.
fn wants_keep_alive(head: &RequestHead) -> bool {
    let mut stays = head.version == Version::Http11;
    for option in head.headers.members(CONNECTION) {
        if option.eq_ignore_ascii_case(b"close") {
            return false;
        }
        stays = stays || option.eq_ignore_ascii_case(b"keep-alive");
    }
    stays
}

/// Why there is no next request.
enum NoHead {
    Over(CloseReason),
    Refused(Refusal),
}

/// Reads until a head is complete. `waits_in` is the phase while no byte of it has come.
fn next_head(
    link: &mut Link,
    parser: &mut HeadParser,
    waits_in: Phase,
) -> Result<RequestHead, NoHead> {
    link.wire.explain("request");
    let (mut silence, mut deadline) = (None, None);
    loop {
        match parser.advance(link.wire.buffered()) {
            Ok(Parse::Complete { value, used }) => {
                link.wire.consume(used);
                return Ok(value);
            }
            Ok(Parse::Partial) => {}
            Err(error) => {
                link.wire.discard();
                return Err(NoHead::Refused(Refusal::from(error)));
            }
        }
        // RFC 9112, section 2.2: some clients send an empty line after a body. It begins nothing.
        let begun = link.wire.buffered().iter().any(|byte| !b"\r\n".contains(byte));
        let count = match begun {
            true => {
                // One deadline for the whole head: sending slowly does not move it.
                let head = link.lobby.deadlines.head;
                let deadline = *deadline.get_or_insert_with(|| link.lobby.after(head));
                link.wait(Phase::Head, deadline)
            }
            false => wait_for_first_byte(link, waits_in, &mut silence),
        };
        match count {
            Ok(0) => return Err(why_no_head(link, begun)),
            Ok(_) => {}
            Err(_) => return Err(NoHead::Over(CloseReason::PeerLost)),
        }
    }
}

fn wait_for_first_byte(
    link: &mut Link,
    phase: Phase,
    deadline: &mut Option<u64>,
) -> io::Result<usize> {
    let mut patience = link.lobby.deadlines.head;
    if phase == Phase::Idle {
        if let Some(count) = link.wire.fill_without_sleep()? {
            return Ok(count);
        }
        link.wire.shrink();
        patience = link.lobby.deadlines.keep_alive;
    }
    // An empty line now and then does not move it.
    let deadline = *deadline.get_or_insert_with(|| link.lobby.after(patience));
    link.wait(phase, deadline)
}

/// The end came instead of a head. It matters whose doing it was, and what had come before.
fn why_no_head(link: &Link, begun: bool) -> NoHead {
    match (link.asked_to_leave, begun) {
        (None, false) => NoHead::Over(CloseReason::PeerClosed),
        (None, true) => NoHead::Over(CloseReason::PeerLost),
        (Some(Phase::ShownOut), false) => NoHead::Over(CloseReason::ShownOut),
        (Some(_), false) => NoHead::Over(CloseReason::Silent),
        (Some(Phase::ShownOut), true) => NoHead::Refused(Refusal::full_house()),
        (Some(_), true) => NoHead::Refused(Refusal::slow_head()),
    }
}

/// Why a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed it between two requests.
    PeerClosed,
    /// The client went away inside a request, or could not be written to.
    PeerLost,
    /// Nothing came for too long.
    Silent,
    /// Others needed its place.
    ShownOut,
    /// The client or the server said `Connection: close`.
    Agreed,
    /// A request was refused with this status, or failed with it after its answer.
    Refused(Status),
    /// An answer had begun and could not be finished.
    AnswerCut,
    /// It went on in another protocol, and that has ended.
    SwitchedProtocols,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            CloseReason::PeerClosed => write!(f, "the client closed it"),
            CloseReason::PeerLost => write!(f, "the client went away"),
            CloseReason::Silent => write!(f, "nothing came for too long"),
            CloseReason::ShownOut => write!(f, "others needed its place"),
            CloseReason::Agreed => write!(f, "Connection: close was said"),
            CloseReason::Refused(status) => write!(f, "refused with {status}"),
            CloseReason::AnswerCut => write!(f, "the answer could not be finished"),
            CloseReason::SwitchedProtocols => write!(f, "it went on in another protocol"),
        }
    }
}
