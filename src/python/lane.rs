//! Chapter 41: lanes. A connection to another process, in frames, for one request at a time.
//!
//! ```text
//!   a frame:     kind: u8    length: u32, big-endian    payload
//!
//!   a lane:      taken ──► send R ──► read H, D, E ──► given back        idle, for the next thread
//!                  │                       │
//!                  └── dropped ◄───────────┘                             closed: nobody wants the rest
//! ```
//!
//! Who uses a lane waits for the answer; between requests it lies idle. The kernel keeps what
//! waits: requests of several lanes queue up before a worker, and a worker that writes faster than
//! it is read sleeps.
//!
//! This chapter needs Unix: a lane is a Unix socket.
#![cfg(unix)]

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// The kinds of frames that all workers know: those of any worker, and then those of a request,
/// whatever the contract of its application. A host may add its own.
pub mod kind {
    /// On the control line: the worker is ready.
    pub const READY: u8 = b'+';
    /// On the control line: why it cannot start. On a lane: the application has failed.
    pub const FAILED: u8 = b'!';
    /// On a lane: end, when all has been answered. There is no answer.
    pub const QUIT: u8 = b'Q';
    /// On a lane: are you there? The answer is the same.
    pub const PING: u8 = b'?';

    /// On a lane, to the worker: a request. Its whole body follows, in one frame.
    pub const REQUEST: u8 = b'R';
    /// To the worker: a request whose body is asked for, piece by piece.
    pub const STREAMED_REQUEST: u8 = b'S';
    /// To the worker: a piece of the body.
    pub const BODY: u8 = b'B';
    /// From it: the application waits for a piece of the body.
    pub const WANTS: u8 = b'N';
    /// From it: status and fields of the answer.
    pub const HEAD: u8 = b'H';
    /// From it: a piece of the answer.
    pub const DATA: u8 = b'D';
    /// From it: the last piece.
    pub const END: u8 = b'E';
}

/// The bytes in front of each payload: its kind, and its length.
pub const PREFIX: usize = 5;

/// Appends a frame to `out`.
///
/// # Errors
/// If the length of the payload does not fit in 32 bits.
pub fn push_frame(out: &mut Vec<u8>, kind: u8, payload: &[u8]) -> io::Result<()> {
    push_prefix(out, kind, payload)?;
    out.extend_from_slice(payload);
    Ok(())
}

fn push_prefix(out: &mut Vec<u8>, kind: u8, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(|_| ErrorKind::InvalidInput)?;
    out.push(kind);
    out.extend_from_slice(&length.to_be_bytes());
    Ok(())
}

/// Why a request got no answer from a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No worker was free in time.
    Busy,
    /// The worker has ended, or has said something that makes no sense.
    Died,
    /// The worker gave no sign of life, and was killed.
    Hung,
}

impl Fault {
    /// The status for it, if the head of the answer has not been sent. RFC 9110, sections 15.6.3
    /// to 15.6.5.
    pub fn status(self) -> &'static str {
        match self {
            Fault::Busy => "503 Service Unavailable",
            Fault::Died => "502 Bad Gateway",
            Fault::Hung => "504 Gateway Timeout",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Fault::Busy => "no Python worker was free in time",
            Fault::Died => "the Python worker ended before its answer was complete",
            Fault::Hung => "the Python worker gave no sign of life, and was replaced",
        })
    }
}

impl std::error::Error for Fault {}

/// How often whoever waits looks around.
pub const TICK: Duration = Duration::from_millis(100);

/// The health of a worker: what its lanes see of it, and what they are told about it.
pub struct Health {
    /// Times are kept in milliseconds since then.
    born: Instant,
    /// When it last gave a sign of life, or was given something to do.
    progress: AtomicU64,
    /// It waits for a client, and so its silence is not its fault.
    excused: AtomicBool,
    /// Until then it is given nothing more to do: it is probably dead, and not yet buried.
    suspect_until: AtomicU64,
    /// It has no future, for this reason.
    over: OnceLock<Fault>,
}

impl Default for Health {
    fn default() -> Health {
        Health {
            born: Instant::now(),
            progress: AtomicU64::new(0),
            excused: AtomicBool::new(false),
            suspect_until: AtomicU64::new(0),
            over: OnceLock::new(),
        }
    }
}

impl Health {
    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// It lives; or it is given something to do, and its time begins.
    pub fn shows_life(&self) {
        self.progress.store(self.now(), Ordering::Relaxed);
    }

    /// How long it has been silent. `None` while it waits for a client.
    pub fn silence(&self) -> Option<Duration> {
        let since = self.now().saturating_sub(self.progress.load(Ordering::Relaxed));
        let excused = self.excused.load(Ordering::Relaxed);
        (!excused).then_some(Duration::from_millis(since))
    }

    /// Whether it now waits for a client.
    pub fn excuse(&self, excused: bool) {
        self.shows_life();
        self.excused.store(excused, Ordering::Relaxed);
    }

    /// It has been killed, or has been seen to be dead. The first reason counts; true for that one.
    pub fn end(&self, reason: Fault) -> bool {
        self.over.set(reason).is_ok()
    }

    /// Whether it may be given something to do.
    pub fn is_trusted(&self) -> bool {
        self.over.get().is_none() && self.suspect_until.load(Ordering::Relaxed) <= self.now()
    }

    /// Why a lane has ended. Its worker may still be dying: it would take a request, and lose it.
    fn fault(&self) -> Fault {
        let soon = self.now().saturating_add(TICK.as_millis() as u64);
        self.suspect_until.store(soon, Ordering::Relaxed);
        self.over.get().copied().unwrap_or(Fault::Died)
    }
}

/// Whoever keeps the worker at the other end of a lane.
pub trait Keeper: Send + Sync {
    /// The worker's health.
    fn health(&self) -> &Health;

    /// The line of a lane that has been given back, for the next request.
    fn put_away(&self, line: Line);

    /// A request is over, whatever has become of its lane.
    fn release(&self);
}

/// The use of a worker, for one request. Dropping it closes the connection, by which the worker
/// learns that nobody wants the rest of its answer.
pub struct Lane {
    line: Option<Line>,
    keeper: Arc<dyn Keeper>,
    /// Another thread writes to it too.
    shared: bool,
}

impl Lane {
    /// A lane that uses this line.
    pub fn new(line: Line, keeper: Arc<dyn Keeper>) -> Lane {
        Lane { line: Some(line), keeper, shared: false }
    }

    /// Sends frames, in one write. As long as this fails for a request, the worker has not got all
    /// of it, and so has not begun with it.
    ///
    /// # Errors
    /// The worker has died, or hung and was killed.
    pub fn send(&mut self, frames: &[(u8, &[u8])]) -> Result<(), Fault> {
        let Some(line) = &mut self.line else { return Err(Fault::Died) };
        let mut begun = Begun::new(frames).map_err(|_| Fault::Died)?;
        let health = self.keeper.health();
        loop {
            let over = health.over.get().copied();
            match line.send_some(&mut begun) {
                Ok(true) => return Ok(()),
                Ok(false) => over.map_or(Ok(()), Err)?,
                Err(_) => return Err(health.fault()),
            }
        }
    }

    /// Waits for a frame. Returns its kind; the payload replaces what is in `payload`.
    ///
    /// # Errors
    /// The worker has died, or hung and was killed.
    pub fn read(&mut self, payload: &mut Vec<u8>) -> Result<u8, Fault> {
        loop {
            if let Some(kind) = self.read_within(TICK, payload)? {
                return Ok(kind);
            }
        }
    }

    /// Like [`Lane::read`], but gives up if no byte of a frame comes in this time.
    ///
    /// # Errors
    /// The worker has died, or hung and was killed.
    pub fn read_within(
        &mut self,
        limit: Duration,
        payload: &mut Vec<u8>,
    ) -> Result<Option<u8>, Fault> {
        let Some(line) = &mut self.line else { return Err(Fault::Died) };
        let health = self.keeper.health();
        // First: what it said before its end is here already.
        let over = health.over.get().copied();
        match line.read(Some(limit), payload) {
            // A process that it has left behind may still hold the other end.
            Ok(None) => over.map_or(Ok(None), Err),
            Ok(Some(kind)) => {
                health.shows_life();
                Ok(Some(kind))
            }
            // The other thread may have cut it.
            Err(_) if self.shared => Err(health.over.get().copied().unwrap_or(Fault::Died)),
            Err(_) => Err(health.fault()),
        }
    }

    /// Whether the worker now waits for a client: for the rest of a body, or because the client
    /// takes the answer slowly. Its silence is then not its fault.
    pub fn excuse(&self, excused: bool) {
        self.keeper.health().excuse(excused);
    }

    /// A second end for another thread to write with. A lane of two threads is never
    /// used again.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn writer(&mut self) -> io::Result<LaneWriter> {
        self.shared = true;
        let line = self.line.as_ref().ok_or(ErrorKind::NotConnected)?;
        let line = Line::of(line.stream.try_clone()?, line.largest);
        Ok(LaneWriter { line, keeper: Arc::clone(&self.keeper) })
    }

    /// Puts the lane away for the next request. The answer must have been read to its end.
    pub fn give_back(mut self) {
        // A lane of two threads may have a writer that does not know that it is over.
        if self.shared || !self.line.as_ref().is_some_and(Line::is_empty) {
            return;
        }
        if let Some(line) = self.line.take() {
            self.keeper.put_away(line);
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            let _ = line.stream.shutdown(Shutdown::Both);
        }
        self.keeper.health().excuse(false);
        self.keeper.release();
    }
}

/// The writing end of a lane, for another thread.
pub struct LaneWriter {
    line: Line,
    keeper: Arc<dyn Keeper>,
}

impl LaneWriter {
    /// Sends frames, in one write.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn send(&mut self, frames: &[(u8, &[u8])]) -> io::Result<()> {
        self.line.send(frames)
    }

    /// Like [`LaneWriter::send`], but asks while the worker takes nothing whether anybody still wants
    /// it. If not, the lane is cut, for half a frame may be in it.
    ///
    /// # Errors
    /// Those of the socket, and if nobody wants it.
    pub fn send_while(
        &mut self,
        frames: &[(u8, &[u8])],
        mut is_wanted: impl FnMut() -> bool,
    ) -> io::Result<()> {
        let mut begun = Begun::new(frames)?;
        while !self.line.send_some(&mut begun)? {
            if !is_wanted() {
                self.cut();
                return Err(ErrorKind::ConnectionAborted.into());
            }
        }
        Ok(())
    }

    /// As [`Lane::excuse`].
    pub fn excuse(&self, excused: bool) {
        self.keeper.health().excuse(excused);
    }

    /// Ends the lane, for both ends: whoever reads from it is woken.
    pub fn cut(&self) {
        let _ = self.line.stream.shutdown(Shutdown::Both);
    }
}

/// A connection to a worker, and what has come by it.
pub struct Line {
    stream: UnixStream,
    /// Bytes in one frame. Memory grows by what arrives, never by what is announced.
    largest: usize,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The read timeout that is set.
    timeout: Option<Duration>,
}

/// Frames on their way. The last payload may be long, and is not copied.
struct Begun<'a> {
    front: Vec<u8>,
    last: &'a [u8],
    sent: usize,
}

impl<'a> Begun<'a> {
    fn new(frames: &[(u8, &'a [u8])]) -> io::Result<Begun<'a>> {
        let Some(((kind, last), others)) = frames.split_last() else {
            return Err(ErrorKind::InvalidInput.into());
        };
        let mut front = Vec::with_capacity(1024);
        for (kind, payload) in others {
            push_frame(&mut front, *kind, payload)?;
        }
        push_prefix(&mut front, *kind, last)?;
        Ok(Begun { front, last, sent: 0 })
    }
}

impl Line {
    /// Bytes that are read at once. A longer payload goes past the buffer.
    const BUFFER: usize = 16 * 1024;

    /// Connects to the worker that listens there. No frame of it may have more bytes than `largest`.
    ///
    /// # Errors
    /// If nobody listens there, or there is no descriptor left.
    pub fn open(path: &Path, largest: usize) -> io::Result<Line> {
        let stream = UnixStream::connect(path)?;
        stream.set_write_timeout(Some(TICK))?;
        Ok(Line::of(stream, largest))
    }

    fn of(stream: UnixStream, largest: usize) -> Line {
        Line { stream, largest, buffer: Vec::new(), start: 0, end: 0, timeout: None }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Sends frames, in one write.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn send(&mut self, frames: &[(u8, &[u8])]) -> io::Result<()> {
        let mut begun = Begun::new(frames)?;
        while !self.send_some(&mut begun)? {}
        Ok(())
    }

    /// True when all is sent; false if the other end took nothing for a while.
    fn send_some(&mut self, begun: &mut Begun) -> io::Result<bool> {
        loop {
            let more = begun.sent.saturating_sub(begun.front.len());
            let front = begun.front.get(begun.sent..).unwrap_or_default();
            let last = begun.last.get(more..).unwrap_or_default();
            if front.is_empty() && last.is_empty() {
                return Ok(true);
            }
            match self.stream.write_vectored(&[IoSlice::new(front), IoSlice::new(last)]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => begun.sent += count,
                Err(error) if is_timeout(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads a frame, and returns its kind; the payload replaces what is in `payload`. `None` if not
    /// even the first byte came in this time.
    ///
    /// # Errors
    /// Those of the socket, and if the frame is too long.
    pub fn read(
        &mut self,
        limit: Option<Duration>,
        payload: &mut Vec<u8>,
    ) -> io::Result<Option<u8>> {
        while self.end - self.start < PREFIX {
            self.fill(limit)?;
            if self.is_empty() {
                return Ok(None);
            }
        }
        let prefix = self.buffer.get(self.start..self.start + PREFIX);
        let Some(&[kind, a, b, c, d]) = prefix else { return Err(ErrorKind::InvalidData.into()) };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > self.largest {
            return Err(io::Error::new(ErrorKind::InvalidData, "a frame is too long"));
        }
        self.start += PREFIX;
        let count = length.min(self.end - self.start);
        payload.clear();
        let here = self.buffer.get(self.start..self.start + count);
        payload.extend_from_slice(here.unwrap_or_default());
        self.start += count;
        while payload.len() < length {
            // It keeps what it has when the time is over, and grows the vector as bytes arrive.
            let rest = (length - payload.len()) as u64;
            match (&self.stream).take(rest).read_to_end(payload) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Err(error) if !is_timeout(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(Some(kind))
    }

    /// Waits for more bytes. If none came in this time, there are no more than before.
    fn fill(&mut self, limit: Option<Duration>) -> io::Result<()> {
        if self.timeout != limit {
            self.stream.set_read_timeout(limit)?;
            self.timeout = limit;
        }
        self.make_room();
        // Whoever is to answer goes first: often the answer is here before we would sleep.
        thread::yield_now();
        match self.stream.read(self.buffer.get_mut(self.end..).unwrap_or_default()) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.end += count;
                Ok(())
            }
            Err(error) if is_timeout(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Moves what is left to the front.
    fn make_room(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = vec![0; Line::BUFFER];
        }
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
    }
}

/// A read or write that has waited long enough, or was interrupted.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
