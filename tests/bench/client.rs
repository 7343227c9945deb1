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

/// Every answer must begin so.
const GOOD: &[u8] = b"HTTP/1.1 200";

/// What a connection asks for, again and again.
#[derive(Clone, Copy, PartialEq)]
pub enum Work {
    /// `GET /healthz`, `depth` requests in one write, on a connection that stays open.
    Get { depth: usize },
    /// `GET /healthz` on a new connection for each request.
    Connect,
    /// [`BODY`] bytes to `/count/`, on a new connection.
    Upload,
    /// [`BODY`] bytes from `/bytes/`, on a new connection.
    Download,
}

impl Work {
    /// The head that asks for it, once.
    fn head(self, host: SocketAddr) -> String {
        let close = "Connection: close\r\n";
        let (line, more) = match self {
            Work::Get { .. } => ("GET /healthz".to_string(), String::new()),
            Work::Connect => ("GET /healthz".to_string(), close.to_string()),
            Work::Upload => {
                ("POST /count/".to_string(), format!("{close}Content-Length: {BODY}\r\n"))
            }
            Work::Download => (format!("GET /bytes/{BODY}/"), close.to_string()),
        };
        format!("{line} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nAccept: */*\r\n{more}\r\n")
    }

    /// Requests in one write.
    pub fn depth(self) -> usize {
        if let Work::Get { depth } = self { depth } else { 1 }
    }
}

/// What an answer to this work looks like from this server.
struct Answer {
    /// The whole answer, or its head where the body is the large one.
    start: Vec<u8>,
    /// Bytes of the whole answer; every later one must have as many.
    length: usize,
}

/// Asks once and looks closely; later answers are only compared by status and length.
fn learn(address: SocketAddr, work: Work) -> Result<Answer, String> {
    let head = work.head(address);
    let (mut start, length) = ask(address, work, head.as_bytes())
        .map_err(|error| format!("{address} gave no answer to learn from: {error}"))?;
    let text = String::from_utf8_lossy(&start);
    let good = match work {
        Work::Get { .. } | Work::Connect => whole_length(&text) == Some(length),
        Work::Upload => text.contains(&format!("\n{BODY}")),
        Work::Download => length > BODY,
    };
    if !good || !start.starts_with(GOOD) {
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
        let stays_open = matches!(work, Work::Get { .. });
        let whole = stays_open && whole_length(&String::from_utf8_lossy(&start)) == Some(length);
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
        let request = work.head(address).repeat(work.depth()).into_bytes();
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
            Work::Get { depth } => vec![0; self.answer.length * depth],
            Work::Connect => vec![0; 4096],
            Work::Upload | Work::Download => vec![0; BLOCK],
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
            None => connection.insert(connect(self.address)?),
        };
        send(stream, self.work, &self.request)
    }

    /// Takes what is due, and looks at status and length.
    fn finish(&self, connection: &mut Option<TcpStream>, buffer: &mut [u8]) -> io::Result<()> {
        let Some(stream) = connection else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        if let Work::Get { .. } = self.work {
            // An answer longer than the learned one shows too: the next begins at a wrong place.
            stream.read_exact(buffer)?;
            return buffer.chunks(self.answer.length).try_for_each(good_status);
        }
        let mut length = 0;
        loop {
            // The status stays at the front; what follows it is overwritten by the next read.
            let read = stream.read(&mut buffer[GOOD.len().min(length)..])?;
            length += read;
            if read == 0 {
                break;
            }
        }
        *connection = None;
        good_status(buffer)?;
        if length != self.answer.length {
            let wrong = format!("an answer of {length} bytes instead of {}", self.answer.length);
            return Err(io::Error::other(wrong));
        }
        Ok(())
    }
}

fn good_status(answer: &[u8]) -> io::Result<()> {
    if answer.starts_with(GOOD) {
        return Ok(());
    }
    let start = answer[..answer.len().min(40)].escape_ascii();
    Err(io::Error::other(format!("an answer that begins \"{start}\"")))
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
    if work == Work::Upload {
        let block = vec![b'x'; BLOCK];
        for _ in 0..BODY / BLOCK {
            stream.write_all(&block)?;
        }
    }
    Ok(())
}
