//! Chapter 2: the wire. One connection's bytes, in and out.
//!
//! ```text
//!            ┌────────── input ──────────┐
//!  socket ──►│ consumed │ buffered │ room │──► parsers look at `buffered`, then `consume`
//!            └──────────┴──────────┴──────┘
//!  socket ◄──│ output, gathered          │◄── answers are `write`n, and leave in one piece
//!            └───────────────────────────┘
//! ```
//!
//! TCP carries a stream of bytes, not messages. One `read` may return half a request, or three.
//! One `write` may take only a part of what it is given. Both may be interrupted. The wire hides
//! none of that from its reader, and all of it from the rest of the server.

use std::io::{self, BufRead, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How much room a quiet connection keeps for input: most requests fit.
const SMALL_BUFFER: usize = 2 * 1024;

/// Gathered output is sent when it is this long, even if more may follow.
const GATHER: usize = 64 * 1024;

/// The patience of a write is cut into so many waits. A call that moved some bytes before it
/// waited is progress, so a peer that has stopped reading is noticed at most one wait late.
const WAITS: u32 = 4;

/// The bytes of one connection.
pub struct Wire {
    stream: Arc<TcpStream>,
    /// `input[start..end]` has been received and not yet consumed.
    input: Vec<u8>,
    start: usize,
    end: usize,
    output: Vec<u8>,
    turns: Turns,
    view: Option<View>,
}

impl Wire {
    /// Wraps a connected socket. A write that makes no progress for `write_patience` fails with
    /// [`ErrorKind::TimedOut`].
    ///
    /// # Errors
    /// If the socket refuses its options, as one does whose peer has gone.
    pub fn new(stream: Arc<TcpStream>, write_patience: Duration) -> io::Result<Wire> {
        // Without this the kernel holds a short answer back, in the hope of more to send with it.
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(write_patience / WAITS))?;
        Ok(Wire {
            stream,
            input: Vec::new(),
            start: 0,
            end: 0,
            output: Vec::new(),
            turns: Turns::default(),
            view: None,
        })
    }

    /// What has been received and not yet consumed.
    pub fn buffered(&self) -> &[u8] {
        self.input.get(self.start..self.end).unwrap_or_default()
    }

    /// Waits for more input and appends it to [`Wire::buffered`]. Returns how many bytes came;
    /// 0 means that the peer will send no more. The caller bounds how much it lets pile up.
    ///
    /// # Errors
    /// Those of the socket, and of sending what was gathered: output always goes first, because
    /// the peer may be waiting for it.
    pub fn fill(&mut self) -> io::Result<usize> {
        self.flush()?;
        self.make_room();
        let count = receive(&self.stream, &mut self.turns, &mut self.input[self.end..])?;
        self.end += count;
        Ok(count)
    }

    /// Like [`Wire::fill`], but gives up instead of going to sleep: `None` means that nothing
    /// has come yet.
    ///
    /// # Errors
    /// As [`Wire::fill`].
    pub fn fill_without_sleep(&mut self) -> io::Result<Option<usize>> {
        self.flush()?;
        if !self.turns.worth_trying() {
            return Ok(None);
        }
        self.make_room();
        self.turns.set_non_blocking(&self.stream, true)?;
        let (began, mut tries) = (Instant::now(), 0);
        while tries < Turns::TRIES || began.elapsed() < Turns::NAP {
            tries += 1;
            match (&*self.stream).read(&mut self.input[self.end..]) {
                Ok(count) => {
                    self.turns.hit();
                    self.end += count;
                    return Ok(Some(count));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.turns.missed();
        Ok(None)
    }

    /// Looks at the socket, without taking anything: how many of the next bytes are there, one at
    /// most. As with [`Wire::fill`], 0 is the end. `None` if nothing has come in this time, which
    /// may be none at all.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn glance(&mut self, limit: Duration) -> io::Result<Option<usize>> {
        self.turns.set_non_blocking(&self.stream, limit.is_zero())?;
        if !limit.is_zero() {
            self.stream.set_read_timeout(Some(limit))?;
        }
        let seen = self.stream.peek(&mut [0]);
        if !limit.is_zero() {
            self.stream.set_read_timeout(None)?;
        }
        match seen {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Throws away what is buffered.
    pub fn discard(&mut self) {
        self.consume(self.end - self.start);
    }

    /// Gives back the memory that a busy moment needed. Call it before a long wait.
    pub fn shrink(&mut self) {
        if self.start == self.end && self.input.len() > SMALL_BUFFER {
            self.input = Vec::new();
            (self.start, self.end) = (0, 0);
        }
        if self.output.is_empty() && self.output.capacity() > SMALL_BUFFER {
            self.output = Vec::new();
        }
    }

    /// Tells the peer that nothing more will come. What is gathered is sent first.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn finish_sending(&mut self) -> io::Result<()> {
        self.flush()?;
        self.stream.shutdown(Shutdown::Write)
    }

    /// The socket itself, for those who must act on it from outside.
    pub fn stream(&self) -> &Arc<TcpStream> {
        &self.stream
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.end < self.input.len() {
            return;
        }
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        } else {
            // Full of bytes that nobody has consumed: twice the room, and never more than that.
            self.input.resize((self.input.len() * 2).max(SMALL_BUFFER), 0);
        }
    }
}

/// Input. A reader with a large buffer of its own gets the bytes from the socket directly.
impl Read for Wire {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.start < self.end || out.len() < SMALL_BUFFER {
            let count = self.fill_buf()?.read(out)?;
            self.consume(count);
            return Ok(count);
        }
        self.flush()?;
        let count = receive(&self.stream, &mut self.turns, out)?;
        if let Some(view) = &mut self.view {
            view.show(Direction::In, out.get(..count).unwrap_or_default());
        }
        Ok(count)
    }
}

impl BufRead for Wire {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.fill()?;
        }
        Ok(self.buffered())
    }

    fn consume(&mut self, count: usize) {
        let count = count.min(self.end - self.start);
        let end = self.start + count;
        if let Some(view) = &mut self.view {
            view.show(Direction::In, self.input.get(self.start..end).unwrap_or_default());
        }
        self.start = end;
    }
}

/// Output. Small pieces are gathered; [`Write::flush`], or a wait for input, sends them.
impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(view) = &mut self.view {
            view.show(Direction::Out, bytes);
        }
        if self.output.len() + bytes.len() <= GATHER {
            self.output.extend_from_slice(bytes);
        } else {
            self.send_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(view) = &mut self.view {
            view.print();
        }
        if self.output.is_empty() { Ok(()) } else { self.send_all(&[]) }
    }
}

impl Wire {
    /// Sends what is gathered, and `more` after it, without copying `more`.
    fn send_all(&mut self, more: &[u8]) -> io::Result<()> {
        let output = std::mem::take(&mut self.output);
        let result = self.send_both(&output, more);
        self.output = output;
        self.output.clear();
        if result.is_err() {
            // A part of it may have left, and nothing may follow half an answer.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        result
    }

    /// Not `write_all`: the socket may be non-blocking (then we make it wait), and a slow peer
    /// is not a dead one: any progress starts the patience anew.
    fn send_both(&mut self, first: &[u8], second: &[u8]) -> io::Result<()> {
        let total = first.len() + second.len();
        let mut sent = 0;
        let mut waits = 0;
        while sent < total {
            let rest = [
                IoSlice::new(first.get(sent..).unwrap_or_default()),
                IoSlice::new(second.get(sent.saturating_sub(first.len())..).unwrap_or_default()),
            ];
            match (&*self.stream).write_vectored(&rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    sent += count;
                    waits = 0;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // A socket that does not block has not waited: that is no lost patience.
                    waits += u32::from(!self.turns.non_blocking);
                    if waits == WAITS {
                        return Err(ErrorKind::TimedOut.into());
                    }
                    self.turns.set_non_blocking(&self.stream, false)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Reads once, asleep if need be.
fn receive(stream: &TcpStream, turns: &mut Turns, out: &mut [u8]) -> io::Result<usize> {
    let mut stream = stream;
    loop {
        match stream.read(out) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                turns.set_non_blocking(stream, false)?;
            }
            result => return result,
        }
    }
}

/// Decides whether it pays to let others run for a moment instead of going to sleep.
///
/// Sleeping and waking cost more than answering a short request. The next one is often there by
/// the time the other threads have had their turn, or before a nap would have been over.
#[derive(Default)]
struct Turns {
    non_blocking: bool,
    /// Tries in a row that found nothing; from [`Turns::ENOUGH`] on, the skipped ones count too.
    misses: u32,
}

impl Turns {
    /// The least number of tries before the thread goes to sleep after all.
    const TRIES: u32 = 8;
    /// The shortest time before it does: about what it costs to fall asleep and be woken.
    const NAP: Duration = Duration::from_micros(40);
    /// Misses in a row after which we no longer try each time.
    const ENOUGH: u32 = 4;
    /// Then only one time in so many: trying costs time when the peer is slow.
    const SELDOM: u32 = 32;

    fn worth_trying(&mut self) -> bool {
        if self.misses < Turns::ENOUGH {
            return true;
        }
        self.misses = self.misses.wrapping_add(1);
        self.misses % Turns::SELDOM == 0
    }

    fn hit(&mut self) {
        self.misses = 0;
    }

    fn missed(&mut self) {
        self.misses = self.misses.saturating_add(1);
    }

    fn set_non_blocking(&mut self, stream: &TcpStream, wanted: bool) -> io::Result<()> {
        if self.non_blocking != wanted {
            stream.set_nonblocking(wanted)?;
            self.non_blocking = wanted;
        }
        Ok(())
    }
}

/// Which way bytes pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the peer to us.
    In,
    /// From us to the peer.
    Out,
}

/// Prints what passes, a line at a time: the wire view. Input is shown when it is consumed.
pub struct Tap {
    out: Mutex<Box<dyn Write + Send>>,
}

/// One wire's place at the tap.
struct View {
    tap: Arc<Tap>,
    connection: u64,
    module: &'static str,
    direction: Direction,
    /// Bytes that belong together and are not printed yet: they come in pieces of any size.
    pending: Vec<u8>,
}

impl Wire {
    /// Shows all that passes on this wire to `tap`, under the number of this connection.
    pub fn attach(&mut self, tap: Arc<Tap>, connection: u64) {
        let (module, direction, pending) = ("wire", Direction::In, Vec::new());
        self.view = Some(View { tap, connection, module, direction, pending });
    }

    /// The tap, for those who have more to show than bytes.
    pub fn tap(&self) -> Option<Arc<Tap>> {
        self.view.as_ref().map(|view| Arc::clone(&view.tap))
    }

    /// Names the module that gives the next bytes their meaning.
    pub fn explain(&mut self, module: &'static str) {
        if let Some(view) = &mut self.view {
            view.print();
            view.module = module;
        }
    }
}

impl View {
    /// Pieces are joined until the direction changes or the socket is used: a line that was
    /// written in five pieces is still one line.
    fn show(&mut self, direction: Direction, bytes: &[u8]) {
        if self.direction != direction || self.pending.len() > GATHER {
            self.print();
        }
        self.direction = direction;
        self.pending.extend_from_slice(bytes);
    }

    fn print(&mut self) {
        if !self.pending.is_empty() {
            self.tap.show(self.connection, self.direction, self.module, &self.pending);
            self.pending.clear();
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.print();
    }
}

impl Tap {
    /// Bytes of one line that are shown before it is cut.
    const LINE: usize = 100;
    /// Lines of one piece that are shown before it is cut.
    const LINES: usize = 40;

    /// A tap that prints to `out`.
    pub fn new(out: Box<dyn Write + Send>) -> Tap {
        Tap { out: Mutex::new(out) }
    }

    /// Prints `bytes`, one line for each line feed in it. The text is built whole and written
    /// once, so that lines of several threads do not mix.
    pub fn show(&self, connection: u64, direction: Direction, module: &str, bytes: &[u8]) {
        let arrow = if direction == Direction::In { "<-" } else { "->" };
        let label = format!("#{connection} {arrow} {:<16} ", chapter_of(module));
        let mut text = String::new();
        let mut left = bytes.len();
        for line in bytes.split_inclusive(|&byte| byte == b'\n').take(Tap::LINES) {
            left -= line.len();
            text += &label;
            for &byte in line.iter().take(Tap::LINE) {
                push_escaped(&mut text, byte);
            }
            if line.len() > Tap::LINE {
                text += &format!(" ... {} bytes more", line.len() - Tap::LINE);
            }
            text.push('\n');
        }
        if left > 0 {
            text += &format!("{label}... {left} bytes more\n");
        }
        // A thread that panicked while printing left no half-done state behind: go on.
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = out.write_all(text.as_bytes());
    }
}

fn push_escaped(text: &mut String, byte: u8) {
    match byte {
        b'\r' => text.push_str("\\r"),
        b'\n' => text.push_str("\\n"),
        b'\t' => text.push_str("\\t"),
        b'\\' => text.push_str("\\\\"),
        b' '..=b'~' => text.push(char::from(byte)),
        _ => text.push_str(&format!("\\x{byte:02x}")),
    }
}

/// "ch 2 wire" for the module `wire`. The number comes from the table of contents, so that it is
/// right even when chapters move.
pub fn chapter_of(module: &str) -> String {
    const CONTENTS: &str = include_str!("../lib.rs");
    let entry = format!("mod {module};");
    let line = CONTENTS.lines().find(|line| line.contains(&entry));
    match line.and_then(|line| line.split_once("// chapter ")) {
        Some((_, number)) => format!("ch {} {module}", number.trim()),
        None => module.to_string(),
    }
}
