//! The load client. On a small machine it takes its processor time from the server it measures, so
//! it must cost little, and the same for everyone. A few threads (one per processor) each own some
//! connections and go round them: take the answer due here, send the next request, step on.
//!
//! ```text
//!   connection   1        2        3        1        2 ...
//!                read     read     read     read     read
//!                write    write    write    write    write
//! ```
//!
//! The sockets are blocking. While a thread waits for one answer, all its other connections have a
//! request under way; when it wakes, theirs are mostly there, and it runs round without sleeping:
//! one `read` and one `write` a request. A thread per connection would add a sleep and a wake to
//! each request, as much as the server's own work, and hide the server behind them. Non-blocking
//! sockets without an event queue (std has none) would burn the server's time on empty reads.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// The large body, in bytes: 1 GB as 2 to the power of 30.
pub const BODY: usize = 1 << 30;

/// Large bodies move in blocks of this many bytes.
pub const BLOCK: usize = 256 << 10;

/// The longest that one `read` or `write` may wait; longer is an error, so that no run hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of an answer's beginning that tell its status.
const STATUS: usize = "HTTP/1.1 200".len();

/// What a connection asks for, again and again.
#[derive(Clone, Copy, PartialEq)]
pub enum Work {
    /// `GET /healthz`, `depth` requests in one write, on a connection that stays open.
    Get { depth: usize },
    /// `GET /healthz` on a new connection for each request.
    Connect,
    /// So many bytes to `/count/`, on a new connection.
    Upload { size: usize },
    /// [`BODY`] bytes from `/bytes/`, on a new connection.
    Download,
    /// A small urlencoded form to `/forms/cookie/`, which reads it and answers without a page.
    Form,
    /// A file of [`BODY`] bytes in a multipart form to `/forms/`, which writes it to a file and
    /// does not keep it, on a new connection.
    Multipart,
    /// `depth` binary messages of `size` bytes in one write, to `/ws/echo/`.
    Echo { size: usize, depth: usize },
}

/// The body of [`Work::Form`].
const FORM: &str = "name=Ada+Lovelace&born=1815&drink=tea&notes=The+first+program%2C+on+paper";

/// What stands before and after the file of [`Work::Multipart`]. The page shows the field: so the
/// form was read to its end.
const PART: &str =
    "--cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"big\"\r\n\r\n";
const PARTS_END: &str = "\r\n--cut\r\nContent-Disposition: form-data; name=\"end\"\r\n\r\n\
                         reached\r\n--cut--\r\n";

impl Work {
    /// The head that asks for it, once.
    fn head(self, host: SocketAddr) -> String {
        let close = "Connection: close\r\n";
        let (line, more) = match self {
            Work::Get { .. } => ("GET /healthz".to_string(), String::new()),
            Work::Connect => ("GET /healthz".to_string(), close.to_string()),
            Work::Upload { size } => {
                ("POST /count/".to_string(), format!("{close}Content-Length: {size}\r\n"))
            }
            Work::Download => (format!("GET /bytes/{BODY}/"), close.to_string()),
            Work::Form => {
                let kind = "Content-Type: application/x-www-form-urlencoded";
                let length = FORM.len();
                (
                    "POST /forms/cookie/".to_string(),
                    format!("{kind}\r\nContent-Length: {length}\r\n"),
                )
            }
            Work::Multipart => {
                let kind = "Content-Type: multipart/form-data; boundary=cut";
                let length = PART.len() + BODY + PARTS_END.len();
                let more = format!("{close}{kind}\r\nContent-Length: {length}\r\n");
                ("POST /forms/".to_string(), more)
            }
            // RFC 6455, section 1.3: the example's key.
            Work::Echo { .. } => {
                let more = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
                ("GET /ws/echo/".to_string(), more.to_string())
            }
        };
        format!("{line} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nAccept: */*\r\n{more}\r\n")
    }

    /// Requests in one write.
    pub fn depth(self) -> usize {
        match self {
            Work::Get { depth } | Work::Echo { depth, .. } => depth,
            _ => 1,
        }
    }

    /// Every answer must begin so.
    fn good(self) -> &'static [u8; STATUS] {
        match self {
            Work::Form => b"HTTP/1.1 303",
            _ => b"HTTP/1.1 200",
        }
    }

    /// Whether a connection is used again.
    fn stays_open(self) -> bool {
        matches!(self, Work::Get { .. } | Work::Form | Work::Echo { .. })
    }

    /// What is sent again and again.
    fn request(self, host: SocketAddr) -> Vec<u8> {
        match self {
            Work::Echo { size, .. } => frame(size, Some([0x37, 0xfa, 0x21, 0x3d])),
            Work::Form => [self.head(host).as_bytes(), FORM.as_bytes()].concat(),
            _ => self.head(host).into_bytes(),
        }
    }
}

/// A binary message of `size` bytes in one frame. RFC 6455, section 5.2.
fn frame(size: usize, key: Option<[u8; 4]>) -> Vec<u8> {
    let mut frame = vec![0x82];
    let masked = if key.is_some() { 0x80 } else { 0 };
    match size {
        0..=125 => frame.push(masked | size as u8),
        126..=65_535 => {
            frame.push(masked | 126);
            frame.extend((size as u16).to_be_bytes());
        }
        _ => {
            frame.push(masked | 127);
            frame.extend((size as u64).to_be_bytes());
        }
    }
    frame.extend(key.iter().flatten());
    let key = key.unwrap_or_default();
    frame.extend((0..size).map(|at| b'a' ^ key[at % 4]));
    frame
}

/// By how many bytes answers to the same request may differ: `Server-Timing` tells a time.
const SLACK: usize = 16;

/// What an answer to this work looks like from this server.
struct Answer {
    /// The whole answer, or its head where the body is the large one.
    start: Vec<u8>,
    /// Bytes of the whole answer; every later one must have as many, but for [`SLACK`].
    length: usize,
}

impl Answer {
    /// Its last bytes, from the end of the head on: they are the same each time.
    fn tail(&self) -> &[u8] {
        let head = self.start.windows(4).position(|end| end == b"\r\n\r\n").unwrap_or(0);
        &self.start[head.max(self.start.len().saturating_sub(SLACK))..]
    }
}

/// Asks once and looks closely; later answers are only compared by status and length.
fn learn(address: SocketAddr, work: Work) -> Result<Answer, String> {
    if let Work::Echo { size, .. } = work {
        let start = frame(size, None);
        return Ok(Answer { length: start.len(), start });
    }
    let head = String::from_utf8_lossy(&work.request(address)).into_owned();
    let (mut start, length) = ask(address, work, head.as_bytes())
        .map_err(|error| format!("{address} gave no answer to learn from: {error}"))?;
    let text = String::from_utf8_lossy(&start);
    let good = match work {
        Work::Get { .. } | Work::Connect | Work::Form => whole_length(&text) == Some(length),
        Work::Upload { size } => text.contains(&format!("\n{size}")),
        Work::Download => length > BODY,
        Work::Multipart => text.contains("reached"),
        Work::Echo { .. } => true,
    };
    if !good || !start.starts_with(work.good()) {
        let [asked, got] = [&head, &*text].map(|text| text.lines().next().unwrap_or_default());
        return Err(format!("{address} answered {asked:?} with {got:?}, {length} bytes in all"));
    }
    if work == Work::Download {
        let end = text.find("\r\n\r\n").map_or(0, |end| end + 4);
        start.truncate(end);
    }
    Ok(Answer { start, length })
}

/// The answer's beginning, and its length.
fn ask(address: SocketAddr, work: Work, head: &[u8]) -> io::Result<(Vec<u8>, usize)> {
    let mut stream = connect(address)?;
    send(&mut stream, work, head)?;
    let (mut start, mut length) = (Vec::new(), 0);
    let mut buffer = vec![0; BLOCK];
    loop {
        let read = stream.read(&mut buffer)?;
        length += read;
        if start.len() < BLOCK {
            start.extend_from_slice(&buffer[..read]);
        }
        let whole =
            work.stays_open() && whole_length(&String::from_utf8_lossy(&start)) == Some(length);
        if read == 0 || whole {
            return Ok((start, length));
        }
    }
}

/// Head and body together, once the head is there and declares a length.
fn whole_length(answer: &str) -> Option<usize> {
    let head = answer.find("\r\n\r\n")? + 4;
    let fields = answer[..head].to_ascii_lowercase();
    let declared = fields.split("\r\ncontent-length:").nth(1)?;
    let body: usize = declared.lines().next()?.trim().parse().ok()?;
    Some(head + body)
}

/// What came of driving a client for a while.
#[derive(Default)]
pub struct Tally {
    /// Whole, good answers.
    pub done: u64,
    /// Answers that were missing, short or not 200.
    pub errors: u64,
    /// What was wrong with the first of them.
    pub reason: Option<String>,
    /// Nanoseconds from request to answer, where a thread has a single connection.
    pub latencies: Vec<u64>,
}

impl Tally {
    fn fail(&mut self, error: &io::Error) {
        self.errors += 1;
        self.reason.get_or_insert(error.to_string());
    }

    /// Adds another: a thread beside this one, or a slice after it.
    pub fn add(&mut self, other: Tally) {
        self.done += other.done;
        self.errors += other.errors;
        self.reason = self.reason.take().or(other.reason);
        self.latencies.extend(other.latencies);
    }
}

/// Connections to one server, all doing the same work.
pub struct Client {
    plan: Plan,
    /// `None`: not open yet, or closed after its answer.
    connections: Vec<Option<TcpStream>>,
}

/// What the threads of a client share.
struct Plan {
    address: SocketAddr,
    work: Work,
    request: Vec<u8>,
    answer: Answer,
}

impl Client {
    /// Learns the answer. The first request on a connection opens it.
    pub fn open(address: SocketAddr, work: Work, connections: usize) -> Result<Client, String> {
        let answer = learn(address, work)?;
        let request = work.request(address).repeat(work.depth());
        let connections = (0..connections).map(|_| None).collect();
        Ok(Client { plan: Plan { address, work, request, answer }, connections })
    }

    /// The whole answer that was learned, or its head where the body is the large one.
    pub fn answer(&self) -> &[u8] {
        &self.plan.answer.start
    }

    /// Keeps every connection busy for `time`, then waits for the answers still due.
    pub fn drive(&mut self, time: Duration) -> Tally {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let share = self.connections.len().div_ceil(processors);
        let (plan, end) = (&self.plan, Instant::now() + time);
        let mut all = Tally::default();
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for share in self.connections.chunks_mut(share) {
                threads.push(scope.spawn(move || plan.go_round(share, end)));
            }
            for thread in threads {
                all.add(thread.join().expect("a client thread does not panic"));
            }
        });
        all
    }

    /// One request on each connection in turn; a failed one is counted and passed over.
    pub fn ask_each(&mut self) -> Tally {
        let mut tally = Tally::default();
        let mut buffer = self.plan.buffer();
        for connection in &mut self.connections {
            let begun = self.plan.begin(connection);
            match begun.and_then(|()| self.plan.finish(connection, &mut buffer)) {
                Ok(()) => tally.done += 1,
                Err(error) => tally.fail(&error),
            }
        }
        tally
    }
}

impl Plan {
    fn buffer(&self) -> Vec<u8> {
        match self.work {
            Work::Connect => vec![0; 4096],
            Work::Upload { .. } | Work::Download | Work::Multipart => vec![0; BLOCK],
            stays => vec![0; self.answer.length * stays.depth() + SLACK],
        }
    }

    /// One thread's part. An error ends it and closes its connections; the next slice opens new ones.
    fn go_round(&self, share: &mut [Option<TcpStream>], end: Instant) -> Tally {
        let mut tally = Tally::default();
        if let Err(error) = self.rounds(share, end, &mut tally) {
            tally.fail(&error);
            share.fill_with(|| None);
        }
        tally
    }

    fn rounds(
        &self,
        share: &mut [Option<TcpStream>],
        end: Instant,
        tally: &mut Tally,
    ) -> io::Result<()> {
        let mut buffer = self.buffer();
        let alone = share.len() == 1;
        let mut sent = Instant::now();
        for connection in share.iter_mut() {
            self.begin(connection)?;
        }
        let mut over = false;
        while !over {
            over = Instant::now() >= end;
            for connection in share.iter_mut() {
                self.finish(connection, &mut buffer)?;
                tally.done += self.work.depth() as u64;
                if alone {
                    tally.latencies.push(sent.elapsed().as_nanos() as u64);
                    sent = Instant::now();
                }
                if !over {
                    self.begin(connection)?;
                }
            }
        }
        Ok(())
    }

    /// Opens the connection if need be, and asks.
    fn begin(&self, connection: &mut Option<TcpStream>) -> io::Result<()> {
        let stream = match connection {
            Some(stream) => stream,
            None => connection.insert(self.open()?),
        };
        send(stream, self.work, &self.request)
    }

    fn open(&self) -> io::Result<TcpStream> {
        let mut stream = connect(self.address)?;
        if let Work::Echo { .. } = self.work {
            stream.write_all(self.work.head(self.address).as_bytes())?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                answer.extend(byte);
            }
            if !answer.starts_with(b"HTTP/1.1 101") {
                return Err(io::Error::other("the handshake was refused"));
            }
        }
        Ok(stream)
    }

    /// Takes what is due, and looks at status and length.
    fn finish(&self, connection: &mut Option<TcpStream>, buffer: &mut [u8]) -> io::Result<()> {
        let Some(stream) = connection else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        if let Work::Echo { .. } = self.work {
            let whole = buffer.len() - SLACK;
            stream.read_exact(&mut buffer[..whole])?;
            let mut answers = buffer[..whole].chunks(self.answer.length);
            let good = answers.all(|answer| answer == self.answer.start);
            return if good { Ok(()) } else { Err(io::Error::other("another message")) };
        }
        if self.work.stays_open() {
            let (expected, mut filled) = (buffer.len() - SLACK, 0);
            while filled + SLACK < expected || !buffer[..filled].ends_with(self.answer.tail()) {
                match stream.read(&mut buffer[filled..])? {
                    0 => return Err(io::Error::other(format!("{filled} bytes and no end"))),
                    read => filled += read,
                }
            }
            return self.check_status(buffer);
        }
        let mut length = 0;
        loop {
            // The status stays at the front; what follows it is overwritten by the next read.
            let read = stream.read(&mut buffer[STATUS.min(length)..])?;
            length += read;
            if read == 0 {
                break;
            }
        }
        *connection = None;
        self.check_status(buffer)?;
        if length.abs_diff(self.answer.length) > SLACK {
            let wrong = format!("an answer of {length} bytes instead of {}", self.answer.length);
            return Err(io::Error::other(wrong));
        }
        Ok(())
    }

    fn check_status(&self, answer: &[u8]) -> io::Result<()> {
        if answer.starts_with(self.work.good()) {
            return Ok(());
        }
        let start = answer[..answer.len().min(40)].escape_ascii();
        Err(io::Error::other(format!("an answer that begins \"{start}\"")))
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn send(stream: &mut TcpStream, work: Work, request: &[u8]) -> io::Result<()> {
    stream.write_all(request)?;
    let (before, size, after) = match work {
        Work::Upload { size } => ("", size, ""),
        Work::Multipart => (PART, BODY, PARTS_END),
        _ => return Ok(()),
    };
    stream.write_all(before.as_bytes())?;
    let block = vec![b'x'; BLOCK];
    for _ in 0..size / BLOCK {
        stream.write_all(&block)?;
    }
    stream.write_all(after.as_bytes())
}
