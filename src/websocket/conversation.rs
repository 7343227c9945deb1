//! Chapter 33: the conversation. RFC 6455, sections 5.5, 7 and 10.
//!
//! Both sides speak whenever they like. So reading and writing are two halves that share a socket:
//!
//! ```text
//!            ┌──── WebSocket: the reading side, one owner ────┐
//!  socket ──►│ bytes ──► Assembler ──► message ──► receive    │
//!    │       └──────────────┬───────┬─────────────────────────┘
//!    │                      ▼ pong  ▼ close
//!    │       ┌──────── Sender: many clones, turn by turn ─────┐
//!  socket ◄──│ a frame, or several, in one write ◄── send     │
//!            └────────────────────────────────────────────────┘
//! ```
//!
//! How it ends, and the code that its owner is told:
//!
//! ```text
//!  the other side sends a close   we send it back, end TCP first     its code, or 1005
//!  we send a close                wait for the answer, end TCP       the code of the answer
//!  it breaks a rule               a close with the rule's code       1006, and the rule
//!  it is silent, or never reads   nothing more can be said           1006
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::request::Parse;
use crate::socket::lobby::{Guest, NEVER, Phase};
use crate::socket::wire::Direction;
use crate::websocket::frame::{Close, CloseCode, FrameHeader, Mask, Opcode, Role};
use crate::websocket::message::{Assembler, Event, FrameSeen, Message, MessageError, Observer};

/// How much a conversation may cost, and how long each side waits.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes of the longest message that is taken; a longer one is refused with 1009.
    pub message: usize,
    /// After so much silence we ask with a ping whether anybody is there.
    pub ping_interval: Duration,
    /// How long we wait after a ping for any sign of life.
    pub pong_patience: Duration,
    /// How long we wait for the answer to our close.
    pub close_patience: Duration,
    /// How long we go on reading after the end, so that our close is not lost.
    pub linger: Duration,
    /// How long a write may make no progress at all.
    pub write_patience: Duration,
    /// Bytes that may wait to be sent after [`Sender::post`]. Who falls further behind is too slow.
    pub queue_bytes: usize,
    /// Messages that may wait to be sent after [`Sender::post`].
    pub queue_messages: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            message: 16 * 1024 * 1024,
            ping_interval: Duration::from_secs(20),
            pong_patience: Duration::from_secs(20),
            close_patience: Duration::from_secs(10),
            linger: Duration::from_secs(1),
            write_patience: Duration::from_secs(10),
            queue_bytes: 1024 * 1024,
            queue_messages: 1024,
        }
    }
}

/// All that a conversation begins with.
pub struct Opening {
    /// The connection, after the handshake.
    pub stream: Arc<TcpStream>,
    /// Which end of it we are.
    pub role: Role,
    /// Bytes that came behind the handshake: they are the first frames.
    pub early: Vec<u8>,
    /// Limits and times.
    pub settings: Settings,
    /// Our entry in the lobby, so that a server that stops can wake us.
    pub guest: Option<Arc<Guest>>,
    /// Who looks at each frame.
    pub observer: Option<Observer>,
}

impl Opening {
    /// A conversation on `stream` and nothing else.
    pub fn new(stream: Arc<TcpStream>, role: Role) -> Opening {
        let (settings, early) = (Settings::default(), Vec::new());
        Opening { stream, role, early, settings, guest: None, observer: None }
    }
}

/// Why a conversation is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The code in the other side's close; 1005 if it gave none; 1006 if there was no close.
    pub code: CloseCode,
    /// The reason in the other side's close.
    pub reason: String,
    /// Both sides have sent a close.
    pub clean: bool,
    /// The rule that the other side broke, if that was the end.
    pub fault: Option<MessageError>,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.fault {
            Some(fault) => write!(f, "closed with {}: {fault}", fault.close_code()),
            None if self.clean => write!(f, "closed with {} {:?}", self.code, self.reason),
            None => write!(f, "lost"),
        }
    }
}

impl std::error::Error for Closed {}

/// The reading side of a conversation. It has one owner, and may move to another thread.
pub struct WebSocket {
    line: Arc<Line>,
    assembler: Assembler,
    guest: Option<Arc<Guest>>,
    /// `input[start..end]` has been received and not yet taken: parts of a frame header, or frames
    /// behind a message that has been delivered.
    input: Vec<u8>,
    start: usize,
    end: usize,
    /// The last read filled its buffer, so the next gets a larger one.
    busy: bool,
    /// So many waits begin without an offer to run first: nobody took the last one.
    no_takers: u32,
    /// The read timeout that the socket has now.
    timeout: Duration,
    heard: Instant,
    pinged: Option<Instant>,
    asked_to_leave: bool,
    ended: Option<Closed>,
}

/// How a wait for more bytes ended, if not with the end of the conversation.
enum Waited {
    Bytes,
    TimeIsUp,
}

/// Room for input while nothing comes, and while much comes, in bytes.
const SMALL_INPUT: usize = 2 * 1024;
const LARGE_INPUT: usize = 64 * 1024;

/// A turn that others have taken lasts longer than this.
const NOBODY: Duration = Duration::from_micros(2);

/// Waits that begin without an offer, after one that nobody took.
const SELDOM: u32 = 64;

/// How often we look for the answer to our close when the house has ended our reading.
const NAP: Duration = Duration::from_millis(20);

impl WebSocket {
    /// Begins a conversation.
    ///
    /// # Errors
    /// If the socket refuses its options, as one does whose peer has gone.
    pub fn open(opening: Opening) -> io::Result<WebSocket> {
        let Opening { stream, role, early, settings, guest, observer } = opening;
        // Whoever had the socket before may have left it non-blocking.
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(settings.write_patience / WAITS))?;
        let assembler = Assembler::new(role, settings.message, observer.clone());
        let end = early.len();
        Ok(WebSocket {
            line: Arc::new(Line::new(stream, role, settings, observer)),
            assembler,
            guest,
            input: early,
            start: 0,
            end,
            busy: false,
            no_takers: 0,
            timeout: Duration::ZERO,
            heard: Instant::now(),
            pinged: None,
            asked_to_leave: false,
            ended: None,
        })
    }

    /// The sending side, for any thread.
    pub fn sender(&self) -> Sender {
        Sender { line: Arc::clone(&self.line) }
    }

    /// Waits for the next message. Pings are answered meanwhile, and sent when it is too quiet.
    ///
    /// # Errors
    /// The conversation is over; each later call says so again.
    pub fn receive(&mut self) -> Result<Message, Closed> {
        loop {
            if let Some(message) = self.listen(None)? {
                return Ok(message);
            }
        }
    }

    /// As [`WebSocket::receive`], but waits no longer than `patience`: `None` if no message has
    /// come. Whoever computes for long can have another thread call it, so that pings are answered.
    ///
    /// # Errors
    /// As [`WebSocket::receive`].
    pub fn poll(&mut self, patience: Duration) -> Result<Option<Message>, Closed> {
        self.listen(Instant::now().checked_add(patience))
    }

    /// Ends the conversation from our side, waits for the other side's close, and ends TCP. What
    /// still comes is thrown away.
    pub fn close(&mut self, code: CloseCode, reason: &str) -> Closed {
        // If a close has gone before this one, then that one is waited for.
        let _ = self.line.close(code, reason);
        loop {
            if let Err(closed) = self.listen(None) {
                return closed;
            }
        }
    }

    fn listen(&mut self, until: Option<Instant>) -> Result<Option<Message>, Closed> {
        if let Some(closed) = &self.ended {
            return Err(closed.clone());
        }
        loop {
            let input = self.input.get(self.start..self.end).unwrap_or_default();
            let (used, event) = match self.assembler.take(input) {
                Ok(taken) => taken,
                Err(error) => return Err(self.fail(error)),
            };
            self.start += used;
            match event {
                Some(Event::Message(message)) => {
                    let more = self.has_another_message();
                    // After our close nobody is interested any more. RFC 6455, section 1.4.
                    if self.line.deliver(more) {
                        return Ok(Some(message));
                    }
                }
                Some(Event::Ping(payload)) => self.line.pong(&payload),
                Some(Event::Pong) => {}
                Some(Event::Close(close)) => return Err(self.answer_close(close)),
                None => match self.wait(until)? {
                    Waited::Bytes => {}
                    Waited::TimeIsUp => return Ok(None),
                },
            }
        }
    }

    /// Whether another whole message has arrived: then its answer can leave with this one's.
    fn has_another_message(&self) -> bool {
        let input = self.input.get(self.start..self.end).unwrap_or_default();
        match FrameHeader::parse(input, self.line.role) {
            Ok(Parse::Complete { value, used }) => {
                let arrived = (input.len() - used) as u64;
                value.fin && !value.opcode.is_control() && value.length <= arrived
            }
            _ => false,
        }
    }

    /// Waits for bytes. All that must happen while nothing comes happens here.
    fn wait(&mut self, until: Option<Instant>) -> Result<Waited, Closed> {
        loop {
            let state = self.line.flush();
            if state == State::Lost {
                return Err(self.lose());
            }
            if state == State::Open && self.asked_to_leave {
                let _ = self.line.close(CloseCode::GOING_AWAY, "the server stops");
                continue;
            }
            let (now, due) = (Instant::now(), self.due(state));
            if due <= now {
                if state != State::Open || self.pinged.is_some() {
                    return Err(self.lose());
                }
                // RFC 6455, section 5.5.2: a ping is also a way to find out who is still there.
                self.line.ping();
                self.pinged = Some(now);
                continue;
            }
            let end = until.map_or(due, |until| until.min(due));
            if end <= now {
                return Ok(Waited::TimeIsUp);
            }
            self.offer_turn();
            match self.read(end - now) {
                // A socket whose reading side is shut down no longer waits: we must.
                Ok(0) if self.asked_to_leave => thread::sleep(NAP),
                Ok(0) => return Err(self.lose()),
                Ok(_) => {
                    (self.heard, self.pinged) = (Instant::now(), None);
                    return Ok(Waited::Bytes);
                }
                // Time is up, or a poster has made the socket non-blocking for a moment.
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.busy = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(self.lose()),
            }
        }
    }

    /// When silence has lasted too long.
    fn due(&self, state: State) -> Instant {
        let settings = &self.line.settings;
        match (state, self.pinged) {
            // A server that stops does not wait long for an answer.
            (State::Closing(since), _) if self.asked_to_leave => since + settings.linger,
            (State::Closing(since), _) => since + settings.close_patience,
            (_, Some(pinged)) => pinged + settings.pong_patience,
            (_, None) => self.heard + settings.ping_interval,
        }
    }

    /// Yields before we sleep, as a wire does: others may be about to send what we wait for. But an
    /// offer that comes back at once was for nobody, and then sleeping at once is better.
    fn offer_turn(&mut self) {
        if self.no_takers > 0 {
            self.no_takers -= 1;
            return;
        }
        let began = Instant::now();
        thread::yield_now();
        if began.elapsed() < NOBODY {
            self.no_takers = SELDOM;
        }
    }

    /// Reads once, into the message under way if that is long.
    fn read(&mut self, wait: Duration) -> io::Result<usize> {
        // Each change costs a call of the system, so an eighth more or less is good enough.
        if self.timeout.abs_diff(wait) > wait / 8 {
            self.timeout = wait.max(Duration::from_millis(1));
            self.line.stream.set_read_timeout(Some(self.timeout))?;
        }
        let waits = self.guest.as_ref().filter(|_| !self.asked_to_leave);
        if let Some(guest) = waits {
            guest.begin_wait(Phase::Staying, NEVER);
        }
        let mut stream = &*self.line.stream;
        let direct = self.start == self.end;
        let result = match self.assembler.room().filter(|_| direct) {
            Some(room) => {
                // What is read in place needs no large buffer, and is not copied out of it.
                self.busy &= room.len() < LARGE_INPUT / 2;
                let result = stream.read(room);
                if let Ok(count) = result {
                    self.assembler.took(count);
                }
                result
            }
            None => {
                make_room(&mut self.input, &mut self.start, &mut self.end, self.busy);
                let room = self.input.get_mut(self.end..).unwrap_or_default();
                let result = stream.read(room);
                if let Ok(count) = result {
                    self.busy = count == room.len() || (self.busy && count > SMALL_INPUT);
                    self.end += count;
                }
                result
            }
        };
        if waits.is_some_and(|guest| guest.end_wait().is_err()) {
            self.asked_to_leave = true;
        }
        result
    }

    /// The other side has sent its close, and sends no more. We send its code back, unless ours
    /// went first. RFC 6455, section 5.5.1.
    fn answer_close(&mut self, close: Close) -> Closed {
        let _ = self.line.close(close.code, "");
        self.finish();
        self.end(Closed { code: close.code, reason: close.reason, clean: true, fault: None })
    }

    /// RFC 6455, section 7.1.7: say why, end TCP, and read no further frame.
    fn fail(&mut self, error: MessageError) -> Closed {
        let _ = self.line.close(error.close_code(), &error.to_string());
        self.finish();
        let (code, reason) = (CloseCode::LOST, String::new());
        self.end(Closed { code, reason, clean: false, fault: Some(error) })
    }

    fn lose(&mut self) -> Closed {
        let (code, reason) = (CloseCode::LOST, String::new());
        self.end(Closed { code, reason, clean: false, fault: None })
    }

    fn end(&mut self, closed: Closed) -> Closed {
        self.line.lose();
        self.input = Vec::new();
        (self.start, self.end) = (0, 0);
        self.ended = Some(closed.clone());
        closed
    }

    /// Ends TCP: the server first, the client when the server has. RFC 6455, section 7.1.1. Bytes
    /// that nobody reads make the kernel reset the connection, and a reset can destroy our close
    /// before the other side has read it. So we read on, for a moment, however much it is.
    fn finish(&mut self) {
        let line = &self.line;
        if line.role == Role::Server {
            let _ = line.stream.shutdown(Shutdown::Write);
        }
        let deadline = Instant::now() + line.settings.linger;
        let mut scrap = vec![0; LARGE_INPUT / 4];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || line.stream.set_read_timeout(Some(left)).is_err() {
                return;
            }
            match (&*line.stream).read(&mut scrap) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

/// A reading side that goes without a word leaves nobody behind who could hear an answer.
impl Drop for WebSocket {
    fn drop(&mut self) {
        self.line.lose();
    }
}

/// What has not been taken, a part of a frame header, moves to the front. The rest is room. A quiet
/// conversation has a small buffer: there may be ten thousand of them.
fn make_room(input: &mut Vec<u8>, start: &mut usize, end: &mut usize, busy: bool) {
    input.copy_within(*start..*end, 0);
    (*start, *end) = (0, *end - *start);
    let size = if busy { LARGE_INPUT } else { SMALL_INPUT };
    if input.len() != size {
        input.truncate(*end);
        input.shrink_to(size);
        input.resize(size, 0);
    }
}

/// The sending side of a conversation. Clones send on the same one, from any thread: frames never
/// mix, and whoever comes first is served first.
#[derive(Clone)]
pub struct Sender {
    line: Arc<Line>,
}

impl Sender {
    /// Sends a message, and returns when the system has taken all of it: a slow reader makes its
    /// sender slow.
    ///
    /// # Errors
    /// [`SendError::Closed`], or [`SendError::Lost`]: also if nothing could be written for the
    /// write patience, and then the conversation is over.
    pub fn send(&self, message: &Message) -> Result<(), SendError> {
        self.line.send(self.line.open()?, message.opcode(), message.payload())
    }

    /// As [`Sender::send`], for an answer that need not leave before the next one: while another
    /// whole message has already arrived, it waits until [`WebSocket::receive`] has handed out the
    /// last of them and is called again, or anybody sends or flushes. So a hundred answers leave
    /// in one write. Use it where that moment is near; not before a long computation.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub fn answer(&self, message: &Message) -> Result<(), SendError> {
        let (opcode, payload) = (message.opcode(), message.payload());
        let mut outbox = self.line.open()?;
        if !outbox.more || outbox.gathered.len() + payload.len() > GATHER {
            return self.line.send(outbox, opcode, payload);
        }
        let header = self.line.encode(&mut outbox.gathered, opcode, payload);
        drop(outbox);
        self.line.observe(header, payload);
        Ok(())
    }

    /// Sends what [`Sender::answer`] has kept.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub fn flush(&self) -> Result<(), SendError> {
        self.line.flush();
        self.line.open().map(drop)
    }

    /// Sends without ever waiting: what the system does not take at once is queued, and a thread
    /// writes it that lives only as long as the queue. For one message to many: who is slow holds
    /// nobody up.
    ///
    /// # Errors
    /// As [`Sender::send`], and [`SendError::Full`]: this one is too slow, and the message is not
    /// sent. It is for the caller to decide whether to go on without it.
    pub fn post(&self, prepared: &Prepared) -> Result<(), SendError> {
        let (frame, header) = self.line.own_frame(prepared);
        let mut outbox = self.line.open()?;
        let settings = &self.line.settings;
        let full = outbox.queued.0 >= settings.queue_messages
            || outbox.queued.1 + frame.len() > settings.queue_bytes.max(frame.len());
        if full {
            return Err(SendError::Full);
        }
        outbox.queued.0 += 1;
        outbox.queued.1 += frame.len();
        outbox.queue.push_back(frame);
        // Whoever is writing looks at the queue when it has finished.
        let turn = match outbox.is_taken() {
            true => None,
            false => Some(self.line.take_turn(outbox)?),
        };
        self.line.observe(header, prepared.payload());
        turn.map_or(Ok(()), Turn::write_without_wait)
    }

    /// Sends a close, which is the last frame: later sends fail. It waits for nothing but its turn.
    /// The reading side hears the answer, and ends the conversation.
    ///
    /// # Errors
    /// [`SendError::InvalidCode`], or as [`Sender::send`].
    pub fn close(&self, code: CloseCode, reason: &str) -> Result<(), SendError> {
        self.line.close(code, reason)
    }
}

/// One message for many: its frame is made once.
#[derive(Clone)]
pub struct Prepared {
    opcode: Opcode,
    /// The frame as a server sends it.
    frame: Arc<[u8]>,
    /// The length of its header.
    header: usize,
}

impl Prepared {
    /// Makes the frame of a message.
    pub fn new(message: &Message) -> Prepared {
        let (opcode, payload) = (message.opcode(), message.payload());
        let mut frame = Vec::with_capacity(FrameHeader::LONGEST + payload.len());
        frame_header(opcode, payload, None).encode(&mut frame);
        let header = frame.len();
        frame.extend_from_slice(payload);
        Prepared { opcode, frame: frame.into(), header }
    }

    fn payload(&self) -> &[u8] {
        self.frame.get(self.header..).unwrap_or_default()
    }
}

/// Why a message was not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendError {
    /// A close has been sent, and nothing may follow it.
    Closed,
    /// The connection is lost, or the conversation over.
    Lost,
    /// Too much waits to be sent.
    Full,
    /// No close frame may carry this code.
    InvalidCode(CloseCode),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            SendError::Closed => write!(f, "a close has been sent"),
            SendError::Lost => write!(f, "the connection is lost"),
            SendError::Full => write!(f, "too much waits to be sent"),
            SendError::InvalidCode(code) => write!(f, "close code {code} may not be sent"),
        }
    }
}

impl std::error::Error for SendError {}

/// What both sides of a conversation share.
struct Line {
    stream: Arc<TcpStream>,
    role: Role,
    settings: Settings,
    observer: Option<Observer>,
    /// The source of masking keys: std seeds it from the system's randomness.
    keys: RandomState,
    masked: AtomicU64,
    outbox: Mutex<Outbox>,
    /// Told when a turn ends.
    turns: Condvar,
}

/// What waits to be written, and whose turn it is. Its lock is never held while writing.
struct Outbox {
    state: State,
    /// Whole frames that leave with the next turn.
    gathered: Vec<u8>,
    /// There is a pong among them, and somebody waits for it.
    ponged: bool,
    /// The reading side has another whole message.
    more: bool,
    queue: VecDeque<Arc<[u8]>>,
    /// Messages and bytes that were posted and are not written yet.
    queued: (usize, usize),
    /// A thread takes care of the queue.
    has_writer: bool,
    /// Turns that were asked for, and turns that are over.
    asked: u64,
    over: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Open,
    /// Our close has been asked for; nothing may be sent behind it.
    Closing(Instant),
    Lost,
}

impl Outbox {
    fn is_taken(&self) -> bool {
        self.has_writer || self.asked != self.over
    }
}

/// Gathered answers leave when they have so many bytes, even if more may follow.
const GATHER: usize = 64 * 1024;

/// A payload up to this length is copied behind its header; a longer one is written from where it
/// is.
const COPIED: usize = 4 * 1024;

impl Line {
    fn new(
        stream: Arc<TcpStream>,
        role: Role,
        settings: Settings,
        observer: Option<Observer>,
    ) -> Line {
        let outbox = Outbox {
            state: State::Open,
            gathered: Vec::new(),
            ponged: false,
            more: false,
            queue: VecDeque::new(),
            queued: (0, 0),
            has_writer: false,
            asked: 0,
            over: 0,
        };
        Line {
            stream,
            role,
            settings,
            observer,
            keys: RandomState::new(),
            masked: AtomicU64::new(0),
            outbox: Mutex::new(outbox),
            turns: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<MutexGuard<'_, Outbox>, SendError> {
        let outbox = self.lock();
        match outbox.state {
            State::Open => Ok(outbox),
            State::Closing(_) => Err(SendError::Closed),
            State::Lost => Err(SendError::Lost),
        }
    }

    /// Waits for its turn, sends all that waits to be sent, and this behind it.
    fn send(
        self: &Arc<Line>,
        outbox: MutexGuard<'_, Outbox>,
        opcode: Opcode,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let mut turn = self.take_turn(outbox)?;
        if self.role == Role::Client || payload.len() <= COPIED {
            let header = self.encode(&mut turn.bytes, opcode, payload);
            self.observe(header, payload);
            return turn.write(&[]);
        }
        let header = frame_header(opcode, payload, None);
        header.encode(&mut turn.bytes);
        self.observe(header, payload);
        turn.write(payload)
    }

    /// The close is the last frame: from here on nobody else gets a turn.
    // RFC 6455, section 5.5.1: "MUST NOT send any more data frames after sending a Close frame"
    fn close(self: &Arc<Line>, code: CloseCode, reason: &str) -> Result<(), SendError> {
        let close = Close { code, reason: reason.to_string() };
        let payload = close.encode().map_err(|_| SendError::InvalidCode(code))?;
        let mut outbox = self.open()?;
        outbox.state = State::Closing(Instant::now());
        self.send(outbox, Opcode::Close, &payload)
    }

    /// A pong leaves with the next write. The other side may ask faster than it reads, so what
    /// waits here has a bound.
    // RFC 6455, section 5.5.3
    fn pong(self: &Arc<Line>, payload: &[u8]) {
        let Ok(mut outbox) = self.open() else { return };
        if outbox.gathered.len() > GATHER {
            let _ = self.send(outbox, Opcode::Pong, payload);
            return;
        }
        outbox.ponged = true;
        let header = self.encode(&mut outbox.gathered, Opcode::Pong, payload);
        drop(outbox);
        self.observe(header, payload);
    }

    fn ping(&self) {
        let Ok(mut outbox) = self.open() else { return };
        let header = self.encode(&mut outbox.gathered, Opcode::Ping, &[]);
        drop(outbox);
        self.observe(header, &[]);
    }

    /// Sends what is gathered. If somebody is writing it leaves behind that: the reading side must
    /// not stand still because a writer does, or two such sides wait for each other for ever.
    fn flush(self: &Arc<Line>) -> State {
        let mut outbox = self.lock();
        let state = outbox.state;
        outbox.more = false;
        if state != State::Open || outbox.gathered.is_empty() || outbox.is_taken() {
            return state;
        }
        match self.take_turn(outbox).and_then(|turn| turn.write(&[])) {
            Ok(()) => state,
            Err(_) => State::Lost,
        }
    }

    /// A message is handed out. Returns whether anybody still wants it.
    fn deliver(self: &Arc<Line>, more: bool) -> bool {
        let mut outbox = self.lock();
        if outbox.ponged {
            // The application may now compute for long, and a pong shall not wait for it.
            drop(outbox);
            self.flush();
            outbox = self.lock();
        }
        outbox.more = more;
        outbox.state == State::Open
    }

    /// Nothing more can be sent. Whoever waits for a turn hears of it at once.
    fn lose(&self) {
        let mut outbox = self.lock();
        if outbox.state != State::Lost {
            outbox.state = State::Lost;
            (outbox.gathered, outbox.queue) = (Vec::new(), VecDeque::new());
            let _ = self.stream.shutdown(Shutdown::Both);
            self.turns.notify_all();
        }
    }

    /// Waits until all who asked before have had their turn. Takes with it what is gathered and
    /// what is queued.
    fn take_turn<'l>(
        self: &'l Arc<Line>,
        mut outbox: MutexGuard<'l, Outbox>,
    ) -> Result<Turn, SendError> {
        let ticket = outbox.asked;
        outbox.asked += 1;
        while outbox.over != ticket && outbox.state != State::Lost {
            outbox = self.turns.wait(outbox).unwrap_or_else(PoisonError::into_inner);
        }
        if outbox.state == State::Lost {
            return Err(SendError::Lost);
        }
        let mut bytes = std::mem::take(&mut outbox.gathered);
        let mut queued = (0, 0);
        for frame in outbox.queue.drain(..) {
            bytes.extend_from_slice(&frame);
            queued = (queued.0 + 1, queued.1 + frame.len());
        }
        outbox.ponged = false;
        Ok(Turn { line: Arc::clone(self), bytes, queued, sent: false })
    }

    fn encode(&self, out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) -> FrameHeader {
        let key = match self.role {
            Role::Server => None,
            Role::Client => Some(self.new_key()),
        };
        let header = frame_header(opcode, payload, key);
        header.encode(out);
        let start = out.len();
        out.extend_from_slice(payload);
        if let (Some(key), Some(new)) = (key, out.get_mut(start..)) {
            Mask::new(key).apply(new);
        }
        header
    }

    /// RFC 6455, section 5.3: nobody may be able to foretell the next key. SipHash with a secret
    /// key, over a counter, is such a source.
    fn new_key(&self) -> [u8; 4] {
        let number = self.keys.hash_one(self.masked.fetch_add(1, Ordering::Relaxed));
        (number as u32).to_be_bytes()
    }

    /// A prepared frame as this side must send it.
    fn own_frame(&self, prepared: &Prepared) -> (Arc<[u8]>, FrameHeader) {
        if self.role == Role::Server {
            let header = frame_header(prepared.opcode, prepared.payload(), None);
            return (Arc::clone(&prepared.frame), header);
        }
        let mut frame = Vec::new();
        let header = self.encode(&mut frame, prepared.opcode, prepared.payload());
        (frame.into(), header)
    }

    fn observe(&self, header: FrameHeader, payload: &[u8]) {
        if let Some(observer) = &self.observer {
            observer(&FrameSeen::new(Direction::Out, header, payload));
        }
    }
}

/// We send each message in one frame: fragments are for those who do not know its length yet.
fn frame_header(opcode: Opcode, payload: &[u8], key: Option<[u8; 4]>) -> FrameHeader {
    FrameHeader { fin: true, opcode, key, length: payload.len() as u64 }
}

/// The right to write. It ends when this is dropped, whatever happened: also after a panic.
struct Turn {
    line: Arc<Line>,
    /// What was waiting to be sent.
    bytes: Vec<u8>,
    /// The part of it that was posted, as in [`Outbox`].
    queued: (usize, usize),
    sent: bool,
}

impl Turn {
    fn write(mut self, more: &[u8]) -> Result<(), SendError> {
        self.sent = write_both(&self.line.stream, &self.bytes, more).is_ok();
        if self.sent { Ok(()) } else { Err(SendError::Lost) }
    }

    /// Writes what the system takes at once, and leaves the rest to a thread.
    fn write_without_wait(mut self) -> Result<(), SendError> {
        // The flag is one for both directions. A reader may see it, and then tries again.
        let stream = Arc::clone(&self.line.stream);
        let written = stream.set_nonblocking(true).and_then(|()| write_some(&stream, &self.bytes));
        let restored = stream.set_nonblocking(false);
        let (Ok(count), Ok(())) = (written, restored) else {
            return Err(SendError::Lost);
        };
        if count == self.bytes.len() {
            self.sent = true;
            return Ok(());
        }
        self.bytes.drain(..count);
        let line = Arc::clone(&self.line);
        line.lock().has_writer = true;
        let rest = move || {
            let line = Arc::clone(&self.line);
            if self.write(&[]).is_ok() {
                write_queue(&line);
            }
        };
        // Without a thread the turn is dropped, half a frame is left, and the conversation over.
        writer_thread().spawn(rest).map(drop).map_err(|_| SendError::Lost)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.sent {
            // A part of a frame may have left, and nothing may follow half a frame.
            self.line.lose();
        }
        let mut outbox = self.line.lock();
        outbox.over += 1;
        outbox.queued.0 -= self.queued.0;
        outbox.queued.1 -= self.queued.1;
        // A small buffer is used again. A large one goes.
        self.bytes.clear();
        if outbox.gathered.capacity() == 0 && self.bytes.capacity() <= SMALL_INPUT {
            outbox.gathered = std::mem::take(&mut self.bytes);
        }
        // While the reading side has another message, what is gathered leaves with its answer.
        let waits = !outbox.queue.is_empty() || !(outbox.gathered.is_empty() || outbox.more);
        let next = waits && !outbox.has_writer && outbox.state == State::Open;
        outbox.has_writer |= next;
        // Telling nobody would cost a call of the system all the same.
        if outbox.asked != outbox.over {
            self.line.turns.notify_all();
        }
        drop(outbox);
        if next {
            let line = Arc::clone(&self.line);
            if writer_thread().spawn(move || write_queue(&line)).is_err() {
                self.line.lose();
            }
        }
    }
}

fn writer_thread() -> thread::Builder {
    thread::Builder::new().name("websocket writer".into()).stack_size(64 * 1024)
}

/// Writes until nothing waits any more.
fn write_queue(line: &Arc<Line>) {
    loop {
        let mut outbox = line.lock();
        let waits = !outbox.queue.is_empty() || !outbox.gathered.is_empty();
        if !waits || outbox.state == State::Lost {
            outbox.has_writer = false;
            return;
        }
        let written = line.take_turn(outbox).and_then(|turn| turn.write(&[]));
        if written.is_err() {
            return;
        }
    }
}

/// The patience of a write is cut into so many waits. A call that moved some bytes before it waited
/// is progress, so a peer that has stopped reading is noticed at most one wait late.
const WAITS: u32 = 4;

/// Writes both, without joining them.
fn write_both(mut stream: &TcpStream, first: &[u8], second: &[u8]) -> io::Result<()> {
    let total = first.len() + second.len();
    let (mut sent, mut waits) = (0, 0);
    while sent < total {
        let rest = first.get(sent..).unwrap_or_default();
        let more = second.get(sent.saturating_sub(first.len())..).unwrap_or_default();
        let written = match more.is_empty() {
            true => stream.write(rest),
            false => stream.write_vectored(&[IoSlice::new(rest), IoSlice::new(more)]),
        };
        match written {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => (sent, waits) = (sent + count, 0),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                waits += 1;
                if waits == WAITS {
                    return Err(ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes what a non-blocking socket takes, and returns how much that was.
fn write_some(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        match stream.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
