//! Chapter 36: the access log. RFC 8259, section 7; RFC 3339, section 5.6; POSIX, `write`.
//!
//! One line for each request, whatever the request holds. Four ways to write it:
//!
//! ```text
//!  short     [12:44:12] 127.0.0.1 "GET / HTTP/1.1" 200 42 0.75ms
//!  common    127.0.0.1 - - [21/Nov/2026:12:44:12 +0000] "GET / HTTP/1.1" 200 42
//!  combined  the same, and then "the page that led here" "the client's own name"
//!  json      {"time":"2026-11-21T12:44:12.103Z","client":"127.0.0.1", ... }
//! ```
//!
//! And one way for a line to leave, so that no request waits for whoever reads the log:
//!
//! ```text
//!  thread ──┐  a lock, a copy      ┌───────────┐  at most 20 ms later     whole lines,
//!  thread ──┼─────────────────────►│  queue    │────► one writer ───────► at most 4 KB a write
//!  thread ──┘                      │  (1 MB)   │
//!                                  └───────────┘  when it is full: drop the line, count it
//! ```

use std::ffi::OsStr;
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::http::connection::{CloseReason, Observer};
use crate::http::date::HttpDate;
use crate::http::exchange::Exchange;
use crate::http::headers::{FieldValue, Token};
use crate::http::refusal::Refusal;
use crate::http::request::Version;
use crate::http::response::Status;
use crate::socket::lobby::Guest;
use crate::websocket::conversation::Closed;
use crate::websocket::session::SessionObserver;

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// No line for a request, unless something went wrong with it; then as `Short`.
    None,
    /// For a person at a terminal. The time is that of UTC, without the day.
    Short,
    /// As Apache's `common`. It has no place for the reason of a failure, and none for a note.
    Common,
    /// As Apache's `combined`: `Common`, the `Referer` and the `User-Agent`.
    Combined,
    /// A JSON object a line, for programs.
    Json,
}

impl Format {
    /// Each format with its word, as a command line takes it.
    pub const WORDS: &[(&str, Format)] = &[
        ("none", Format::None),
        ("short", Format::Short),
        ("common", Format::Common),
        ("combined", Format::Combined),
        ("json", Format::Json),
    ];

    /// The format with this word.
    pub fn parse(word: &str) -> Option<Format> {
        Format::WORDS.iter().find(|(own, _)| *own == word).map(|(_, format)| *format)
    }
}

/// Whether to use colour: only where a person looks, and not if that person has set `NO_COLOR`.
/// An empty one counts as not set (no-color.org).
pub fn wants_colour(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

/// What is known of one request when it is over.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// When its head was complete, or when it was refused.
    pub time: SystemTime,
    /// Who sent it.
    pub client: IpAddr,
    /// The number of its connection.
    pub connection: u64,
    /// What it asked for; `None` if that could not be read.
    pub asked: Option<Asked<'a>>,
    /// The status of the answer; `None` if there was nobody left to answer.
    pub status: Option<Status>,
    /// Bytes of the answer's body; `None` if nobody counted them.
    pub bytes: Option<u64>,
    /// From the complete head to the end of the answer.
    pub duration: Option<Duration>,
    /// What went wrong, if something did.
    pub trouble: Option<Trouble<'a>>,
}

/// The parts of a request that a log shows. They may hold any bytes.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a [u8],
    /// The request target.
    pub target: &'a [u8],
    /// The version, as `HTTP/1.1`.
    pub version: &'static str,
    /// The `Referer` field. RFC 9110, section 10.1.3.
    pub referer: Option<&'a [u8]>,
    /// The `User-Agent` field. RFC 9110, section 10.1.5.
    pub user_agent: Option<&'a [u8]>,
}

/// What went wrong with a request.
#[derive(Debug, Clone)]
pub struct Trouble<'a> {
    /// A sentence without its full stop. It may hold any bytes.
    pub problem: &'a str,
    /// The rule that was broken; `None` if the client went away, which it may.
    pub rule: Option<&'static str>,
    /// Whether the answer has begun and lacks its end.
    pub is_cut: bool,
}

/// Room for most lines, in bytes.
const LINE_ROOM: usize = 256;

impl Entry<'_> {
    /// The line, with its line feed. All before that is printable ASCII, but for the colour of the
    /// status. Empty if this format has no line for it.
    pub fn line(&self, format: Format, colour: bool) -> Vec<u8> {
        if format == Format::None && !self.is_fault() {
            return Vec::new();
        }
        let mut line = Vec::with_capacity(LINE_ROOM);
        match format {
            Format::None | Format::Short => self.push_short(&mut line, colour),
            Format::Common => self.push_common(&mut line),
            Format::Combined => self.push_combined(&mut line),
            Format::Json => self.push_json(&mut line),
        }
        line.push(b'\n');
        line
    }

    /// A client that goes away is nobody's fault.
    fn is_fault(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.rule.is_some())
    }

    fn push_short(&self, line: &mut Vec<u8>, colour: bool) {
        push_clock_and_client(line, self.time, self.client);
        self.push_request_line(line);
        line.push(b' ');
        let paint = self.status.filter(|_| colour).map(colours);
        line.extend_from_slice(paint.unwrap_or_default());
        push_number(line, self.status.map(status_code), b"-");
        line.extend_from_slice(if paint.is_some() { b"\x1b[0m " } else { b" " });
        push_number(line, self.bytes, b"-");
        line.push(b' ');
        match self.duration.map(microseconds) {
            Some(us) => {
                push_decimal(line, us / 1000, 1);
                line.push(b'.');
                push_decimal(line, us % 1000 / 10, 2);
                line.extend_from_slice(b"ms");
            }
            None => line.push(b'-'),
        }
        let Some(trouble) = &self.trouble else { return };
        line.extend_from_slice(if trouble.is_cut { b", cut: " } else { b": " });
        push_escaped(line, trouble.problem.as_bytes());
        if let Some(rule) = trouble.rule {
            line.extend_from_slice(format!(" ({rule})").as_bytes());
        }
    }

    // LogFormat "%h %l %u %t \"%r\" %>s %b" common        Apache httpd, mod_log_config
    fn push_common(&self, line: &mut Vec<u8>) {
        push_client(line, self.client);
        let date = Date::of(self.time);
        for piece in [" - - [", date.day(), "/", date.month(), "/", date.year(), ":", date.clock()]
        {
            line.extend_from_slice(piece.as_bytes());
        }
        line.extend_from_slice(b" +0000] ");
        self.push_request_line(line);
        line.push(b' ');
        push_number(line, self.status.map(status_code), b"-");
        line.push(b' ');
        push_number(line, self.bytes.filter(|bytes| *bytes > 0), b"-");
    }

    // LogFormat "... \"%{Referer}i\" \"%{User-agent}i\"" combined
    fn push_combined(&self, line: &mut Vec<u8>) {
        self.push_common(line);
        let asked = self.asked.as_ref();
        for field in [asked.and_then(|it| it.referer), asked.and_then(|it| it.user_agent)] {
            line.extend_from_slice(b" \"");
            push_escaped(line, field.unwrap_or(b"-"));
            line.push(b'"');
        }
    }

    /// What could not be read is a dash.
    fn push_request_line(&self, line: &mut Vec<u8>) {
        let Some(asked) = &self.asked else { return line.extend_from_slice(b"\"-\"") };
        line.push(b'"');
        push_escaped(line, asked.method);
        line.push(b' ');
        push_escaped(line, asked.target);
        line.push(b' ');
        line.extend_from_slice(asked.version.as_bytes());
        line.push(b'"');
    }

    fn push_json(&self, line: &mut Vec<u8>) {
        push_json_start(line, self.time, self.client, self.connection);
        let asked = self.asked.as_ref();
        push_json_text(line, "method", asked.map(|it| it.method));
        push_json_text(line, "target", asked.map(|it| it.target));
        push_json_text(line, "version", asked.map(|it| it.version.as_bytes()));
        push_name(line, "status");
        push_number(line, self.status.map(status_code), b"null");
        push_name(line, "bytes");
        push_number(line, self.bytes, b"null");
        push_name(line, "duration_ms");
        let duration = self.duration.map(microseconds);
        push_number(line, duration.map(|us| us / 1000), b"null");
        if let Some(us) = duration {
            line.push(b'.');
            push_decimal(line, us % 1000, 3);
        }
        push_json_text(line, "referer", asked.and_then(|it| it.referer));
        push_json_text(line, "user_agent", asked.and_then(|it| it.user_agent));
        if let Some(trouble) = &self.trouble {
            push_json_text(line, "problem", Some(trouble.problem.as_bytes()));
            push_json_text(line, "rule", trouble.rule.map(str::as_bytes));
            push_name(line, "cut");
            line.extend_from_slice(if trouble.is_cut { b"true" } else { b"false" });
        }
        line.push(b'}');
    }
}

fn status_code(status: Status) -> u64 {
    u64::from(status.code())
}

/// What makes a terminal write in the colour of this class: green, cyan, yellow, red.
fn colours(status: Status) -> &'static [u8] {
    match status.code() {
        ..300 => b"\x1b[32m",
        300..400 => b"\x1b[36m",
        400..500 => b"\x1b[33m",
        _ => b"\x1b[31m",
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn push_number(line: &mut Vec<u8>, number: Option<u64>, nothing: &[u8]) {
    match number {
        Some(number) => push_decimal(line, number, 1),
        None => line.extend_from_slice(nothing),
    }
}

/// By hand, as in dates: there is a line for each request, and `write!` takes several times as
/// long. At least so many digits, with zeros in front.
fn push_decimal(line: &mut Vec<u8>, mut number: u64, least: usize) {
    let start = line.len();
    while number > 0 || line.len() < start + least {
        line.push(b'0' + (number % 10) as u8);
        number /= 10;
    }
    if let Some(digits) = line.get_mut(start..) {
        digits.reverse();
    }
}

fn push_client(line: &mut Vec<u8>, client: IpAddr) {
    let IpAddr::V4(client) = client else {
        return line.extend_from_slice(client.to_string().as_bytes());
    };
    for (at, octet) in client.octets().into_iter().enumerate() {
        line.extend_from_slice(if at == 0 { b"" } else { b"." });
        push_decimal(line, u64::from(octet), 1);
    }
}

/// `[12:44:12] 127.0.0.1 `. The time of day needs no calendar.
fn push_clock_and_client(line: &mut Vec<u8>, time: SystemTime, client: IpAddr) {
    let seconds = HttpDate::from(time).seconds();
    for (mark, number) in
        [(b'[', seconds / 3600 % 24), (b':', seconds / 60 % 60), (b':', seconds % 60)]
    {
        line.push(mark);
        push_decimal(line, number, 2);
    }
    line.extend_from_slice(b"] ");
    push_client(line, client);
    line.push(b' ');
}

/// Copies the start of a text that needs no escape, and returns the rest: mostly nothing.
fn push_plain<'a>(line: &mut Vec<u8>, text: &'a [u8]) -> &'a [u8] {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    let end = text.iter().position(|byte| !is_plain(byte)).unwrap_or(text.len());
    let (plain, rest) = text.split_at(end);
    line.extend_from_slice(plain);
    rest
}

/// As Apache writes it: all but printable ASCII is escaped. So are the quotation mark, which would
/// end the text, and the backslash, which would begin an escape.
fn push_escaped(line: &mut Vec<u8>, text: &[u8]) {
    for &byte in push_plain(line, text) {
        match byte {
            b'"' | b'\\' => line.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => line.push(byte),
            0x08 => line.extend_from_slice(b"\\b"),
            b'\t' => line.extend_from_slice(b"\\t"),
            b'\n' => line.extend_from_slice(b"\\n"),
            0x0b => line.extend_from_slice(b"\\v"),
            b'\r' => line.extend_from_slice(b"\\r"),
            _ => line.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
}

fn push_json_start(line: &mut Vec<u8>, time: SystemTime, client: IpAddr, connection: u64) {
    line.extend_from_slice(b"{\"time\":\"");
    push_timestamp(line, time);
    line.extend_from_slice(b"\",\"client\":\"");
    push_client(line, client);
    line.extend_from_slice(b"\",\"connection\":");
    push_decimal(line, connection, 1);
}

fn push_name(line: &mut Vec<u8>, name: &str) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
}

// string = quotation-mark *char quotation-mark        RFC 8259, section 7
fn push_json_text(line: &mut Vec<u8>, name: &str, text: Option<&[u8]>) {
    push_name(line, name);
    let Some(text) = text else { return line.extend_from_slice(b"null") };
    line.push(b'"');
    // RFC 8259, section 8.1: JSON is UTF-8. Bytes that are not become U+FFFD.
    for letter in String::from_utf8_lossy(push_plain(line, text)).chars() {
        match letter {
            '"' | '\\' => line.extend_from_slice(&[b'\\', letter as u8]),
            ' '..='~' => line.push(letter as u8),
            // Whoever reads the JSON gets the letter itself, and a terminal only its number.
            _ => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    line.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                }
            }
        }
    }
    line.push(b'"');
}

/// A moment as `HttpDate` writes it: `Sat, 21 Nov 2026 12:44:12 GMT`, always 29 places.
struct Date(String);

impl Date {
    fn of(time: SystemTime) -> Date {
        Date(HttpDate::from(time).to_string())
    }

    fn day(&self) -> &str {
        self.0.get(5..7).unwrap_or_default()
    }

    fn month(&self) -> &str {
        self.0.get(8..11).unwrap_or_default()
    }

    fn year(&self) -> &str {
        self.0.get(12..16).unwrap_or_default()
    }

    fn clock(&self) -> &str {
        self.0.get(17..25).unwrap_or_default()
    }
}

// date-time = full-date "T" full-time        RFC 3339, section 5.6
fn push_timestamp(line: &mut Vec<u8>, time: SystemTime) {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let date = Date::of(time);
    line.extend_from_slice(date.year().as_bytes());
    line.push(b'-');
    let month = MONTHS.find(date.month()).unwrap_or_default() / 3 + 1;
    push_decimal(line, month as u64, 2);
    for piece in ["-", date.day(), "T", date.clock(), "."] {
        line.extend_from_slice(piece.as_bytes());
    }
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    push_decimal(line, u64::from(since.subsec_millis()), 3);
    line.push(b'Z');
}

/// The log. Its lines leave on a thread of its own.
pub struct AccessLog {
    format: Format,
    colour: bool,
    queue: Arc<Queue>,
}

impl AccessLog {
    /// A log that is written to `out`. Only [`Format::Short`] has colour.
    ///
    /// # Errors
    /// If the system has no thread to give.
    pub fn new(format: Format, colour: bool, out: Box<dyn Write + Send>) -> io::Result<AccessLog> {
        let queue = Arc::new(Queue::default());
        let taken = Arc::clone(&queue);
        let writer = move || Printer { out, format, is_torn: false, lost: 0 }.run(&taken);
        thread::Builder::new().name("access log".to_string()).spawn(writer)?;
        Ok(AccessLog { format, colour, queue })
    }

    /// A line about something that is no request, such as `WebSocket accept "/chat/"`. What it
    /// says may hold any bytes. Only `short` and `json` have a place for it.
    pub fn note(&self, client: IpAddr, connection: u64, what: &str, target: &str, detail: &str) {
        let (time, client) = (SystemTime::now(), client.to_canonical());
        let mut line = Vec::with_capacity(LINE_ROOM);
        match self.format {
            Format::None | Format::Common | Format::Combined => return,
            Format::Short => {
                push_clock_and_client(&mut line, time, client);
                push_escaped(&mut line, what.as_bytes());
                line.extend_from_slice(b" \"");
                push_escaped(&mut line, target.as_bytes());
                line.extend_from_slice(if detail.is_empty() { b"\"" } else { b"\" " });
                push_escaped(&mut line, detail.as_bytes());
            }
            Format::Json => {
                push_json_start(&mut line, time, client, connection);
                push_json_text(&mut line, "event", Some(what.as_bytes()));
                push_json_text(&mut line, "target", Some(target.as_bytes()));
                push_json_text(&mut line, "detail", Some(detail.as_bytes()));
                line.push(b'}');
            }
        }
        line.push(b'\n');
        self.queue.push(&line);
    }

    /// Waits until all lines so far have been written. Returns false if they are stuck: a second
    /// is all that a log may ask of a program that wants to end.
    pub fn flush(&self) -> bool {
        self.queue.flush()
    }
}

/// Nothing is lost at the end, as long as somebody reads.
impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
        self.queue.close();
    }
}

/// Called on the threads of the connections. None of this waits for whoever reads the log.
impl Observer for AccessLog {
    fn exchanged(&self, exchange: &Exchange) {
        // Not even the clock is read for a line that nobody wants.
        if self.format == Format::None && exchange.failure().is_none() {
            return;
        }
        let duration = exchange.began.elapsed();
        let now = SystemTime::now();
        let head = &exchange.head;
        let field = |name| head.headers.get(name).map(FieldValue::as_bytes);
        let asked = Asked {
            method: head.method.as_str().as_bytes(),
            target: head.target.raw.as_bytes(),
            version: if head.version == Version::Http10 { "HTTP/1.0" } else { "HTTP/1.1" },
            referer: field(Token::constant("Referer")),
            user_agent: field(Token::constant("User-Agent")),
        };
        let entry = Entry {
            time: now.checked_sub(duration).unwrap_or(now),
            client: exchange.client.ip().to_canonical(),
            connection: exchange.link.guest.number,
            asked: Some(asked),
            status: exchange.status(),
            bytes: Some(exchange.body_sent()),
            duration: Some(duration),
            trouble: trouble(exchange),
        };
        self.queue.push(&entry.line(self.format, self.colour));
    }

    fn refused(&self, guest: &Guest, refusal: &Refusal) {
        let (problem, rule) = (refusal.problem.as_str(), Some(refusal.rule));
        let entry = Entry {
            time: SystemTime::now(),
            client: guest.peer.ip().to_canonical(),
            connection: guest.number,
            asked: None,
            status: Some(refusal.status),
            bytes: None,
            duration: None,
            trouble: Some(Trouble { problem, rule, is_cut: false }),
        };
        self.queue.push(&entry.line(self.format, self.colour));
    }
}

/// A WebSocket may last for hours, and the line of its request is written when it has ended. These
/// are written when they happen, with the names of ASGI's events.
impl SessionObserver for AccessLog {
    fn asked(&self, exchange: &Exchange) {
        self.note_session(exchange, "connect", "");
    }

    fn refused(&self, exchange: &Exchange, status: Status) {
        self.note_session(exchange, "refuse", &status.to_string());
    }

    fn accepted(&self, exchange: &Exchange, subprotocol: Option<&str>) {
        self.note_session(exchange, "accept", subprotocol.unwrap_or_default());
    }

    fn closed(&self, exchange: &Exchange, closed: &Closed) {
        let why = match &closed.fault {
            Some(fault) => format!("{}: {fault}", fault.close_code()),
            None => format!("{} {}", closed.code, closed.reason),
        };
        self.note_session(exchange, "close", why.trim_end());
    }
}

impl AccessLog {
    fn note_session(&self, exchange: &Exchange, what: &str, detail: &str) {
        let (client, target) = (exchange.client.ip(), exchange.head.target.raw.as_str());
        let what = format!("WebSocket {what}");
        self.note(client, exchange.link.guest.number, &what, target, detail);
    }
}

fn trouble(exchange: &Exchange) -> Option<Trouble<'_>> {
    let is_cut = exchange.has_started() && !exchange.has_finished();
    if let Some(refusal) = exchange.failure() {
        return Some(Trouble { problem: &refusal.problem, rule: Some(refusal.rule), is_cut });
    }
    // Perhaps the client went away, and perhaps a stop has cut it off.
    let gone = Trouble { problem: "the connection broke", rule: None, is_cut };
    exchange.has_lost_client().then_some(gone)
}

/// Lines on their way to the writer.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// For the writer: there is something to do.
    filled: Condvar,
    /// For those who want to end: something has been written.
    emptied: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// Whole lines.
    lines: Vec<u8>,
    /// Lines for which there was no room.
    lost: u64,
    /// Bytes of all lines that ever came in.
    taken: u64,
    /// Bytes of all lines that have been written, or given up.
    done: u64,
    is_urgent: bool,
    is_closed: bool,
}

impl Queue {
    /// If nobody reads, so many bytes wait. What comes then is lost: a request must not wait for it.
    const ROOM: usize = 1024 * 1024;
    /// So many bytes are written at once, without waiting for more.
    const PLENTY: usize = 128 * 1024;
    /// The first line waits so long for others: to wake the writer for each would cost more than
    /// all else.
    const GATHER: Duration = Duration::from_millis(20);
    /// How long an end waits for the last lines.
    const PATIENCE: Duration = Duration::from_secs(1);

    /// A panic inside the lock can only leave whole lines behind, so a poisoned one is still good.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        let before = waiting.lines.len();
        let after = before + line.len();
        if after > Queue::ROOM {
            waiting.lost += 1;
            return;
        }
        waiting.lines.extend_from_slice(line);
        waiting.taken += line.len() as u64;
        drop(waiting);
        // Not for each line: it is a call of the system.
        if before == 0 || before < Queue::PLENTY && after >= Queue::PLENTY {
            self.filled.notify_one();
        }
    }

    /// Waits for lines. Gives them, and the number of those that were lost behind them; `None` at
    /// the end.
    fn next(&self) -> Option<(Vec<u8>, u64)> {
        let empty = |waiting: &mut Waiting| waiting.lines.is_empty() && !waiting.is_closed;
        let waiting = self.filled.wait_while(self.lock(), empty);
        let waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        let few = |waiting: &mut Waiting| {
            waiting.lines.len() < Queue::PLENTY && !waiting.is_urgent && !waiting.is_closed
        };
        let gathered = self.filled.wait_timeout_while(waiting, Queue::GATHER, few);
        let (mut waiting, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        waiting.is_urgent = false;
        if waiting.lines.is_empty() {
            return None;
        }
        Some((mem::take(&mut waiting.lines), mem::take(&mut waiting.lost)))
    }

    /// The writer is done with so many bytes.
    fn done(&self, count: usize) {
        self.lock().done += count as u64;
        self.emptied.notify_all();
    }

    fn flush(&self) -> bool {
        let mut waiting = self.lock();
        let goal = waiting.taken;
        waiting.is_urgent = true;
        self.filled.notify_one();
        let missing = |waiting: &mut Waiting| waiting.done < goal;
        let ended = self.emptied.wait_timeout_while(waiting, Queue::PATIENCE, missing);
        let (waiting, _) = ended.unwrap_or_else(PoisonError::into_inner);
        waiting.done >= goal
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.filled.notify_one();
    }
}

/// The other end of the queue: a thread that may be stuck without harm.
struct Printer {
    out: Box<dyn Write + Send>,
    format: Format,
    /// Whether the last write ended in the middle of a line.
    is_torn: bool,
    /// Lines of whose loss nobody has been told yet.
    lost: u64,
}

impl Printer {
    /// POSIX, `write`: up to PIPE_BUF bytes go into a pipe in one piece, also if other processes
    /// write to it. On Linux it is 4,096.
    const ONE_PIECE: usize = 4096;

    fn run(mut self, queue: &Queue) {
        while let Some((lines, lost)) = queue.next() {
            // Of those before these lines, if it could not be said then.
            self.tell_of_losses();
            let mut rest = lines.as_slice();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(first_piece(rest));
                let unsent = self.print(piece);
                self.lost += unsent.iter().filter(|byte| **byte == b'\n').count() as u64;
                rest = after;
            }
            self.lost += lost;
            self.tell_of_losses();
            let _ = self.out.flush();
            queue.done(lines.len());
        }
    }

    fn tell_of_losses(&mut self) {
        if self.lost == 0 {
            return;
        }
        let mut line = Vec::new();
        let is_json = self.format == Format::Json;
        line.extend_from_slice(if is_json { b"{\"time\":\"" } else { b"# " });
        push_timestamp(&mut line, SystemTime::now());
        let end = if is_json {
            format!("\",\"lost_lines\":{}}}\n", self.lost)
        } else {
            format!(" {} lines of this log are lost: nobody read it\n", self.lost)
        };
        line.extend_from_slice(end.as_bytes());
        if self.print(&line).is_empty() {
            self.lost = 0;
        }
    }

    /// Writes whole lines, and first the end of one that was cut. Returns what is unsent.
    fn print<'a>(&mut self, lines: &'a [u8]) -> &'a [u8] {
        if self.is_torn && !self.send(b"\n").is_empty() {
            return lines;
        }
        let unsent = self.send(lines);
        let sent = lines.get(..lines.len() - unsent.len()).unwrap_or_default();
        self.is_torn = sent.last().is_some_and(|last| *last != b'\n');
        unsent
    }

    fn send<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.out.write(rest) {
                Ok(count) if count > 0 => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The pipe is full, and somebody who shares it has made it non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_millis(10));
                }
                _ => break,
            }
        }
        rest
    }
}

/// How many bytes the first lines have that go out in one piece: at least one line.
fn first_piece(lines: &[u8]) -> usize {
    let is_end = |byte: &u8| *byte == b'\n';
    let window = lines.get(..Printer::ONE_PIECE).unwrap_or(lines);
    let last = window.iter().rposition(is_end);
    last.or_else(|| lines.iter().position(is_end)).map_or(lines.len(), |at| at + 1)
}

/// Several observers as one. Each is told everything, in this order.
pub struct Several(pub Vec<Arc<dyn Observer>>);

impl Observer for Several {
    fn opened(&self, guest: &Guest) {
        for observer in &self.0 {
            observer.opened(guest);
        }
    }

    fn exchanged(&self, exchange: &Exchange) {
        for observer in &self.0 {
            observer.exchanged(exchange);
        }
    }

    fn refused(&self, guest: &Guest, refusal: &Refusal) {
        for observer in &self.0 {
            observer.refused(guest, refusal);
        }
    }

    fn ended(&self, guest: &Guest, reason: CloseReason) {
        for observer in &self.0 {
            observer.ended(guest, reason);
        }
    }
}
