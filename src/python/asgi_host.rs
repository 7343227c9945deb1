//! Chapter 44: hosting ASGI. The ASGI specification 3.0, with the application in another process.
//!
//! ASGI's events are made for this: each is a value, and a value can be put into a frame. A request
//! keeps one lane and the thread of its connection. A WebSocket speaks in both directions at once,
//! so it has a second thread:
//!
//! ```text
//!   a request                                    a WebSocket
//!     R or S     scope                  ──►        W          scope                     ──►
//!     N          receive()              ◄──        A, F, or an answer                   ◄──
//!     B          http.request           ──►        T, Y       websocket.receive         ──►
//!     C          http.disconnect        ──►        C          websocket.disconnect      ──►
//!     H          http.response.start    ◄──        T, Y, C    websocket.send, .close    ◄──
//!     D, E       http.response.body     ◄──        E          it has returned           ◄──
//!     !          it has failed          ◄──        !          it has failed             ◄──
//! ```
//!
//! One worker serves many lanes: while one application waits, its event loop runs the others.
#![cfg(unix)]

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::gateway::asgi::{
    Application, AsgiError, Emit, Event, HttpScope, Payload, Receive, Remote, Scope,
};
use crate::gateway::wsgi::Exception;
use crate::http::body::Framing;
use crate::http::headers::{CONTENT_TYPE, EXPECT, FieldValue, Headers, RETRY_AFTER, Token};
use crate::http::request::Method;
use crate::python::lane::kind::{self, BODY, DATA, END, HEAD, WANTS};
use crate::python::lane::{Fault, Lane, LaneWriter};
use crate::python::worker::{Pool, PythonSpec};
use crate::python::wsgi_host::{COLLECTED, Collected};
use crate::websocket::frame::CloseCode;
use crate::websocket::session::is_over;

/// The worker's program.
const SCRIPT: &str = include_str!("asgi_worker.py");

// The frames of this host, besides those of a request. To the worker:
const WEBSOCKET: u8 = b'W';
// From it:
const ACCEPT: u8 = b'A';
const REFUSE: u8 = b'F';
// In both directions:
const TEXT: u8 = b'T';
const BYTES: u8 = b'Y';
const CLOSE: u8 = b'C';

/// How often we look whether the client is still there, while the application is silent.
const GLANCE: Duration = Duration::from_millis(500);

/// How long we wait for the client alone, and then for the worker alone, while either may be next.
const TURN: Duration = Duration::from_millis(20);

/// An ASGI application that lives in Python workers.
pub struct PythonAsgi {
    pool: Arc<Pool>,
}

impl PythonAsgi {
    /// The settings for an application such as `main:app`.
    pub fn spec(application: &str) -> PythonSpec {
        PythonSpec { many_at_once: true, ..PythonSpec::new(application, SCRIPT) }
    }

    /// The application in the workers of this pool, which was started by such settings.
    pub fn new(pool: Arc<Pool>) -> PythonAsgi {
        PythonAsgi { pool }
    }
}

impl Application for PythonAsgi {
    fn call(
        &self,
        scope: &Scope,
        receive: &mut dyn Receive,
        send: &mut dyn Emit,
    ) -> Result<(), Exception> {
        match scope {
            Scope::Http(scope) => self.answer(scope, receive, send),
            Scope::WebSocket(scope, subprotocols) => {
                self.converse(scope, subprotocols, receive, send)
            }
            // Each worker keeps the lifespan of its own application: they come and go.
            Scope::Lifespan => Err(AsgiError::NotAnAnswer("lifespan.startup").into()),
        }
    }
}

impl PythonAsgi {
    fn answer(
        &self,
        scope: &HttpScope,
        receive: &mut dyn Receive,
        send: &mut dyn Emit,
    ) -> Result<(), Exception> {
        let collected = collect(scope, receive)?;
        let block = block(scope, &[]);
        match collected.deliver(&self.pool, &block) {
            Ok(lane) => Call::new(lane, scope, receive, send, collected).listen().map(drop),
            Err(fault) => apologize(fault, send),
        }
    }

    fn converse(
        &self,
        scope: &HttpScope,
        subprotocols: &[String],
        receive: &mut dyn Receive,
        send: &mut dyn Emit,
    ) -> Result<(), Exception> {
        // The worker takes it for granted. ASGI WebSocket, Connect.
        receive.receive()?;
        let block = block(scope, subprotocols);
        let lane = match self.pool.deliver(&[(WEBSOCKET, &block)]) {
            Ok(lane) => lane,
            Err(fault) => return apologize(fault, send),
        };
        let nothing = Collected::Whole(Vec::new());
        let Some(mut lane) = Call::new(lane, scope, receive, send, nothing).listen()? else {
            return Ok(());
        };
        let remote = send.share().ok_or("this gateway shares no WebSocket")?;
        let writer = lane.writer()?;
        let over = Arc::new(AtomicBool::new(false));
        let speaker = Speaker { lane, remote, over: Arc::clone(&over) };
        let builder = thread::Builder::new().name("speaker".to_string()).stack_size(64 * 1024);
        let speaker = builder.spawn(move || speaker.speak())?;
        let heard = pass_on(receive, writer, &over, self.pool.spec().timeout);
        let spoken = speaker.join().unwrap_or_else(|_| Err("a thread has panicked".into()));
        heard.and(spoken)
    }
}

fn collect(scope: &HttpScope, receive: &mut dyn Receive) -> Result<Collected, Exception> {
    let length = match Framing::of(&scope.head)? {
        Framing::None | Framing::Length(0) => return Ok(Collected::Whole(Vec::new())),
        Framing::Length(length) => length,
        Framing::Chunked => 0,
    };
    // RFC 9110, section 10.1.1: to read is to ask for the body, and the application may refuse.
    if scope.head.headers.contains(EXPECT) || length > COLLECTED as u64 {
        return Ok(Collected::Part(Vec::new()));
    }
    let mut collected = Vec::new();
    while collected.len() <= COLLECTED {
        match receive.receive()? {
            Event::HttpRequest { body, more_body } => {
                collected.extend_from_slice(&body);
                if !more_body {
                    return Ok(Collected::Whole(collected));
                }
            }
            // The application will be told what there was, and that there is no more to come.
            _ => break,
        }
    }
    Ok(Collected::Part(collected))
}

/// The scope as a block: texts with a NUL behind each. None of them can hold one: the parsers of the
/// request refuse it.
fn block(scope: &HttpScope, subprotocols: &[String]) -> Vec<u8> {
    let (root_path, scheme) = (&scope.root_path, scope.scheme);
    let mut block = Vec::with_capacity(512);
    // To a Vec nothing can fail.
    let _ = write!(block, "{}\0{}\0", subprotocols.join(","), scope.head.method.as_str());
    let _ = write!(block, "{}\0{root_path}\0{scheme}\0{}\0", scope.path, scope.http_version());
    for address in [scope.client, scope.server] {
        let _ = write!(block, "{}\0{}\0", address.ip(), address.port());
    }
    push_texts(&mut block, scope.raw_path(), scope.query_string());
    for (name, value) in scope.headers() {
        push_texts(&mut block, name.as_bytes(), value);
    }
    block
}

fn push_texts(block: &mut Vec<u8>, one: &[u8], other: &[u8]) {
    block.extend_from_slice(one);
    block.push(0);
    block.extend_from_slice(other);
    block.push(0);
}

/// The answer if no worker gives one. RFC 9110, sections 15.6.3 to 15.6.5.
fn apologize(fault: Fault, send: &mut dyn Emit) -> Result<(), Exception> {
    let mut headers = Headers::new();
    headers.push(CONTENT_TYPE, FieldValue::constant("text/plain; charset=utf-8"));
    if fault == Fault::Busy {
        // RFC 9110, section 10.2.3, in seconds.
        headers.push(RETRY_AFTER, FieldValue::constant("1"));
    }
    let status = fault.status().split(' ').next().unwrap_or_default().parse()?;
    let body = format!("{}\n\n{fault}.\n", fault.status()).into_bytes();
    send.send(Event::HttpResponseStart { status, headers })?;
    send.send(Event::HttpResponseBody { body, more_body: false })
}

/// A request, or a WebSocket that is not open yet: one thread listens to the worker.
struct Call<'a> {
    lane: Lane,
    receive: &'a mut dyn Receive,
    answer: Answer<'a>,
    /// What has been read of the body, and not given to the worker.
    collected: Vec<u8>,
    body_ended: bool,
    /// The application waits for the body.
    is_asked: bool,
    /// The worker knows that the client has hung up.
    hung_up: bool,
}

/// What goes to the client.
struct Answer<'a> {
    send: &'a mut dyn Emit,
    /// Status and fields, until there is a piece of the body to go with them.
    head: Option<(u16, Headers)>,
    has_started: bool,
    /// The head is all that was asked for.
    is_head: bool,
}

impl<'a> Call<'a> {
    fn new(
        lane: Lane,
        scope: &HttpScope,
        receive: &'a mut dyn Receive,
        send: &'a mut dyn Emit,
        collected: Collected,
    ) -> Call<'a> {
        let body_ended = matches!(collected, Collected::Whole(_));
        let collected = collected.into_part();
        let is_head = scope.head.method == Method::Head;
        let answer = Answer { send, head: None, has_started: false, is_head };
        Call { lane, receive, answer, collected, body_ended, is_asked: false, hung_up: false }
    }

    /// Does what the worker says, until the answer is complete; then there is no lane any more. An
    /// accepted WebSocket gets it back. On every other way out the lane is dropped, which tells the
    /// worker that nobody listens.
    fn listen(mut self) -> Result<Option<Lane>, Exception> {
        let mut payload = Vec::new();
        loop {
            // It may also answer before the client has sent anything.
            if self.is_asked && (!self.collected.is_empty() || self.receive.wait(TURN)) {
                self.is_asked = false;
                self.give_body()?;
            }
            let kind = match self.next_frame(&mut payload) {
                Ok(Some(kind)) => kind,
                Ok(None) => continue,
                Err(fault) if !self.answer.has_started => {
                    return apologize(fault, self.answer.send).map(|()| None);
                }
                Err(fault) => return Err(fault.into()),
            };
            match kind {
                WANTS => self.is_asked = true,
                HEAD => self.answer.head = Some(parse_head(&payload)?),
                // Nobody would see the rest, and it may have no end.
                DATA if self.answer.is_head && self.answer.has_started => {
                    return self.answer.say(Vec::new(), false).map(|()| None);
                }
                DATA => self.answer.say(std::mem::take(&mut payload), true)?,
                END => {
                    // First: who hears the answer may ask again before `say` returns.
                    self.lane.give_back();
                    return self.answer.say(payload, false).map(|()| None);
                }
                ACCEPT => {
                    self.answer.send.send(parse_accept(&payload)?)?;
                    return Ok(Some(self.lane));
                }
                REFUSE => {
                    let refusal = Event::WebsocketClose(CloseCode::NORMAL.0, String::new());
                    return self.answer.send.send(refusal).map(|()| None);
                }
                kind::FAILED => {
                    self.lane.give_back();
                    return Err(String::from_utf8_lossy(&payload).into());
                }
                _ => return Err(Fault::Died.into()),
            }
        }
    }

    /// Waits for the worker. A client that hangs up meanwhile may still read: so this is an event
    /// for the application, and not the end. If it does not read either, sending will fail.
    fn next_frame(&mut self, payload: &mut Vec<u8>) -> Result<Option<u8>, Fault> {
        if self.is_asked {
            return self.lane.read_within(TURN, payload);
        }
        loop {
            if let Some(kind) = self.lane.read_within(GLANCE, payload)? {
                return Ok(Some(kind));
            }
            if !self.hung_up && self.receive.has_hung_up() {
                self.tell_hang_up()?;
            }
        }
    }

    fn tell_hang_up(&mut self) -> Result<(), Fault> {
        self.hung_up = true;
        self.lane.send(&[(CLOSE, &CloseCode::LOST.0.to_be_bytes())])
    }

    /// `N`: the application waits for the body.
    fn give_body(&mut self) -> Result<(), Exception> {
        // The end is on its way already.
        if self.body_ended || self.hung_up {
            return Ok(());
        }
        let event = match std::mem::take(&mut self.collected) {
            body if body.is_empty() => self.receive.receive()?,
            body => Event::HttpRequest { body, more_body: true },
        };
        // If the worker has gone, the next read says so, and why.
        let _ = match event {
            Event::HttpRequest { body, more_body } if more_body => self.lane.send(&[(BODY, &body)]),
            Event::HttpRequest { body, .. } => {
                self.body_ended = true;
                let frames: &[(u8, &[u8])] = &[(BODY, &body), (BODY, b"")];
                self.lane.send(frames.get(usize::from(body.is_empty())..).unwrap_or(frames))
            }
            _ => self.tell_hang_up(),
        };
        Ok(())
    }
}

impl Answer<'_> {
    /// `D` and `E`: a piece of the answer's body, behind its head if that is still here.
    fn say(&mut self, body: Vec<u8>, more_body: bool) -> Result<(), Exception> {
        if let Some((status, headers)) = self.head.take() {
            self.has_started = true;
            self.send.send(Event::HttpResponseStart { status, headers })?;
        }
        self.send.send(Event::HttpResponseBody { body, more_body })
    }
}

/// `H`: the status, and then the fields.
fn parse_head(payload: &[u8]) -> Result<(u16, Headers), Exception> {
    let (status, headers) = parse_fields(payload)?;
    Ok((status.parse()?, headers))
}

/// `A`: the subprotocol, or nothing, and then the fields.
fn parse_accept(payload: &[u8]) -> Result<Event, Exception> {
    let (subprotocol, headers) = parse_fields(payload)?;
    let subprotocol = Some(subprotocol).filter(|name| !name.is_empty());
    Ok(Event::WebsocketAccept { subprotocol, headers })
}

/// A text, then names and values, with a NUL behind each. A field that could not be sent as it is,
/// such as one with a line end, is an error, and not left out. RFC 9110, section 5.5.
fn parse_fields(payload: &[u8]) -> Result<(String, Headers), Exception> {
    let mut texts = payload.split(|byte| *byte == 0);
    let first = String::from_utf8(texts.next().unwrap_or_default().to_vec())?;
    let mut headers = Headers::new();
    while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
        headers.push(Token::new(name)?, FieldValue::new(value)?);
    }
    Ok((first, headers))
}

/// The connection's own thread: tells the worker what the client says, until the client has gone.
/// If the worker does not take it, the client has to wait. What a client has left behind need not
/// be taken for ever: `patience` is for that.
fn pass_on(
    receive: &mut dyn Receive,
    mut writer: LaneWriter,
    over: &AtomicBool,
    patience: Duration,
) -> Result<(), Exception> {
    let result = loop {
        let (kind, payload) = match receive.receive() {
            Ok(Event::WebsocketReceive(Payload::Text(text))) => (TEXT, text.into_bytes()),
            Ok(Event::WebsocketReceive(Payload::Bytes(bytes))) => (BYTES, bytes),
            Ok(Event::WebsocketDisconnect(code, reason)) => {
                over.store(true, Ordering::SeqCst);
                (CLOSE, [&code.to_be_bytes(), reason.as_bytes()].concat())
            }
            Ok(other) => break Err(AsgiError::NotAnAnswer(other.name()).into()),
            Err(error) => break Err(error),
        };
        let since = Instant::now();
        let is_wanted = || {
            let has_left = kind == CLOSE || receive.has_hung_up();
            let is_wanted = since.elapsed() < patience || !has_left;
            if !is_wanted {
                over.store(true, Ordering::SeqCst);
            }
            is_wanted
        };
        // If the worker has gone, the other thread knows it too, and is saying goodbye.
        let _ = writer.send_while(&[(kind, &payload)], is_wanted);
        if kind == CLOSE {
            break Ok(());
        }
    };
    // The worker still reads what has been written. The application may take its time.
    writer.cut();
    result
}

/// The second thread of a WebSocket: tells the client what the worker says. The codes at its end are
/// those of RFC 6455, section 7.4.1.
struct Speaker {
    lane: Lane,
    remote: Arc<dyn Remote>,
    /// The client has gone, and the lane ends for this reason.
    over: Arc<AtomicBool>,
}

impl Speaker {
    /// A WebSocket may be silent for long. But now and then we look whether its worker lives.
    const LONG: Duration = Duration::from_secs(60);

    fn speak(mut self) -> Result<(), Exception> {
        let result = self.pass_on();
        let code = if result.is_ok() { CloseCode::NORMAL } else { CloseCode::INTERNAL_ERROR };
        // If it has ended already, there is nobody to tell.
        let _ = self.remote.send(Event::WebsocketClose(code.0, String::new()));
        result
    }

    fn pass_on(&mut self) -> Result<(), Exception> {
        let mut payload = Vec::new();
        loop {
            let kind = match self.lane.read_within(Speaker::LONG, &mut payload) {
                Ok(None) => continue,
                Ok(Some(kind)) => kind,
                Err(_) if self.over.load(Ordering::SeqCst) => return Ok(()),
                Err(fault) => return Err(fault.into()),
            };
            let event = match kind {
                TEXT => {
                    let text = String::from_utf8(std::mem::take(&mut payload))?;
                    Event::WebsocketSend(Payload::Text(text))
                }
                BYTES => Event::WebsocketSend(Payload::Bytes(std::mem::take(&mut payload))),
                CLOSE => parse_close(&payload)?,
                END => return Ok(()),
                kind::FAILED => return Err(String::from_utf8_lossy(&payload).into()),
                _ => return Err(Fault::Died.into()),
            };
            match self.remote.send(event) {
                // The other thread will tell the worker.
                Err(error) if is_over(&error) => return Ok(()),
                other => other?,
            }
        }
    }
}

fn parse_close(payload: &[u8]) -> Result<Event, Exception> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return Err(Fault::Died.into());
    };
    let reason = String::from_utf8_lossy(reason).into_owned();
    Ok(Event::WebsocketClose(u16::from_be_bytes(*code), reason))
}
