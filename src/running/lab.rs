//! Chapter 40: the fault lab. Ten attacks on your own server. RFC 9112, section 11, and
//! RFC 6455, section 10.
//!
//! ```text
//!   0.00 s  -> what the attack sends        then a good request, which must be served soon;
//!   0.05 s  <- what the server does         then the verdict, and the line that has stopped it
//! ```
//!
//! Each attack is a real one, made small. It goes to this machine only, and it ends by itself. What
//! it waits for it learns from what it sees: it knows none of the server's deadlines.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::request::Parse;
use crate::socket::system::descriptor_limit;
use crate::socket::wire::chapter_of;
use crate::websocket::frame::{Close, FrameHeader, Mask, Opcode, Role};
use crate::websocket::handshake::{check_answer, client_request, new_key};

/// One attack.
pub struct Attack {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it does, and what for.
    pub tries: &'static str,
    /// The file that stops it.
    pub file: &'static str,
    /// The rule of that file which does it.
    pub rule: &'static str,
    /// A line of that file: where the rule is kept.
    pub line: &'static str,
    run: fn(&mut Lab) -> io::Result<Verdict>,
}

/// All of them.
#[rustfmt::skip] // a table
pub const ATTACKS: &[Attack] = &[
    Attack { name: "silent", run: silent, file: "src/socket/lobby.rs",
        tries: "connects and says nothing, to keep a thread waiting for ever",
        rule: "Every wait has a deadline, and one thread watches them all.",
        line: "if is_wait(phase) && deadline <= now {" },
    Attack { name: "half-request", run: half_request, file: "src/http/connection.rs",
        tries: "sends half a head and ends: does the server wait for the rest?",
        rule: "An end inside a head is an end, and never a request.",
        line: "(None, true) => NoHead::Over(CloseReason::PeerLost)," },
    Attack { name: "slowloris", run: slowloris, file: "src/http/connection.rs",
        tries: "sends many heads, a byte at a time, so that no read times out",
        rule: "A head has one deadline. Sending slowly does not move it.",
        line: "let deadline = *deadline.get_or_insert_with(|| link.lobby.after(head));" },
    Attack { name: "idle-hoard", run: idle_hoard, file: "src/socket/lobby.rs",
        tries: "asks once on many connections and keeps them: is a thread left?",
        rule: "When no thread is free for a newcomer, whoever is idle longest must go.",
        line: "for phase in [Phase::Idle, Phase::Head, Phase::Fresh] {" },
    Attack { name: "smuggle", run: smuggle, file: "src/http/body.rs",
        tries: "hides a second request in a body with two lengths, past a proxy",
        rule: "Two lengths are an error. Whoever believes the other sees another request.",
        line: "return Err(BodyError::BothFramings);" },
    Attack { name: "unread-413", run: unread_413, file: "src/http/exchange.rs",
        tries: "sends a body that nobody wants: does the refusal get lost?",
        rule: "After an early answer we read on for a moment, so that no reset destroys it.",
        line: "if self.wait(Phase::Lingering, deadline)? == 0 {" },
    Attack { name: "rst", run: reset, file: "src/http/connection.rs",
        tries: "asks for a megabyte and vanishes, to kill whoever writes it",
        rule: "A connection that fails ends alone, as one value that is returned.",
        line: "Err(reason) => return reason," },
    Attack { name: "storm", run: storm, file: "src/socket/system.rs",
        tries: "opens a connection for each request, to break the door",
        rule: "The queue at the door is long enough for a crowd.",
        line: "pub const BACKLOG: u16 = 1024;" },
    Attack { name: "ws-bomb", run: ws_bomb, file: "src/websocket/message.rs",
        tries: "announces a frame of four exabytes: does the server make room?",
        rule: "A length is judged when it is declared, and room is made for what is there.",
        line: "Ok(length) if length <= self.limit.saturating_sub(self.filled) => length," },
    Attack { name: "ws-fragments", run: ws_fragments, file: "src/websocket/message.rs",
        tries: "sends one message in 500,000 pieces: does the joining get slow?",
        rule: "A piece is appended to those before it, and none is looked at twice.",
        line: "target.extend_from_slice(bytes);" },
];

impl Attack {
    /// The chapter that stops it, as the wire view would name it.
    pub fn chapter(&self) -> String {
        let name = self.file.rsplit('/').next().unwrap_or(self.file);
        chapter_of(name.trim_end_matches(".rs"))
    }
}

/// How an attack has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The server did what it should.
    Held,
    /// It did not, and this is what was seen.
    Fell(String),
    /// It does not have what this attack needs.
    NotThere(&'static str),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Verdict::Held => write!(f, "The server held."),
            Verdict::Fell(seen) => write!(f, "The server FELL: {seen}."),
            Verdict::NotThere(what) => write!(f, "No attack: {what}."),
        }
    }
}

fn expect(good: bool, seen: impl Into<String>) -> Verdict {
    if good { Verdict::Held } else { Verdict::Fell(seen.into()) }
}

/// Why there was no attack.
#[derive(Debug)]
pub enum LabError {
    /// The target is no address with a port.
    NotAnAddress(String),
    /// The target is not this machine.
    NotHere(SocketAddr),
    /// There is no connection to the target.
    Unreachable(SocketAddr, io::Error),
}

impl fmt::Display for LabError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            LabError::NotAnAddress(text) => write!(f, "{text:?} is no address with a port."),
            LabError::NotHere(at) => write!(f, "{at} is not this machine: we attack nobody else."),
            LabError::Unreachable(at, error) => write!(f, "Nobody listens at {at} ({error})."),
        }
    }
}

impl std::error::Error for LabError {}

/// Reads an address of this machine, such as `127.0.0.1:8000`. No name but `localhost` is known, so
/// that nothing need be looked up, and no byte leaves this machine.
///
/// # Errors
/// [`LabError::NotAnAddress`] and [`LabError::NotHere`].
pub fn own_address(text: &str) -> Result<SocketAddr, LabError> {
    let address = text.trim_start_matches("http://").trim_end_matches('/');
    let address = address.replace("localhost", "127.0.0.1").parse();
    let address: SocketAddr = address.map_err(|_| LabError::NotAnAddress(text.to_string()))?;
    if address.ip().is_loopback() { Ok(address) } else { Err(LabError::NotHere(address)) }
}

/// Where the attacks take place.
pub struct Lab {
    target: SocketAddr,
    out: Box<dyn Write>,
    /// Whether `out` can show colours.
    pub colours: bool,
    /// The time between two looks at many connections, and between two bytes of a slow head.
    pub pace: Duration,
    /// How long the server may keep one connection waiting. Longer than its own deadlines, or it
    /// cannot hold. A whole attack is given up after three times as long.
    pub patience: Duration,
    /// How long anybody may wait for what should take no time.
    pub soon: Duration,
    /// How many connections the large attacks open. More than the server has threads is best, and
    /// the system must allow this program so many.
    pub crowd: usize,
    began: Instant,
}

impl Lab {
    /// A lab that attacks `target`, and tells `out` what happens.
    ///
    /// # Errors
    /// Those of [`own_address`].
    pub fn new(target: &str, out: Box<dyn Write>) -> Result<Lab, LabError> {
        const CROWD: usize = 600;
        const OTHER_FILES: usize = 32;
        let room = descriptor_limit().unwrap_or(256).saturating_sub(OTHER_FILES);
        let (target, began) = (own_address(target)?, Instant::now());
        let [pace, patience, soon] = [1000, 20_000, 2500].map(Duration::from_millis);
        let crowd = room.clamp(1, CROWD);
        Ok(Lab { target, out, colours: false, pace, patience, soon, crowd, began })
    }

    /// Runs one attack, and tells what happens while it happens. However the attack goes, somebody
    /// else must be served after it.
    ///
    /// # Errors
    /// [`LabError::Unreachable`].
    pub fn run(&mut self, attack: &Attack) -> Result<Verdict, LabError> {
        self.began = Instant::now();
        self.connect().map_err(|error| LabError::Unreachable(self.target, error))?;
        self.print(&format!("{}: {}\n", attack.name, attack.tries));
        let verdict = match (attack.run)(self) {
            Ok(Verdict::Held) => self.others("afterwards"),
            other => other,
        };
        let verdict = verdict.unwrap_or_else(|error| {
            Verdict::Fell(match error.kind() {
                ErrorKind::TimedOut => format!("it made us wait for more than {:?}", self.patience),
                ErrorKind::ConnectionRefused => "nobody listens there any more".to_string(),
                ErrorKind::UnexpectedEof => "it hung up before its answer was whole".to_string(),
                _ => error.to_string(),
            })
        });
        let colour = if verdict == Verdict::Held { "\x1b[32m" } else { "\x1b[31m" };
        let (on, off) = if self.colours { (colour, "\x1b[0m") } else { ("", "") };
        self.print(&format!("\n{on}{verdict}{off}"));
        if let Verdict::NotThere(_) = verdict {
            return Ok(verdict);
        }
        self.print(&format!("What stops it: {}, {}", attack.chapter(), attack.file));
        self.print(&format!("  {}\n  {}", attack.rule, attack.line));
        Ok(verdict)
    }

    /// Whoever reads this may have gone. Then the attack goes on.
    fn print(&mut self, text: &str) {
        let _ = writeln!(self.out, "{text}");
        let _ = self.out.flush();
    }

    /// One line, with the seconds since the attack began.
    fn say(&mut self, text: &str) {
        let seconds = self.began.elapsed().as_secs_f64();
        self.print(&format!("  {seconds:5.2} s  {text}"));
    }

    fn connect(&self) -> io::Result<Client> {
        if self.began.elapsed() > self.patience * 3 {
            return Err(ErrorKind::TimedOut.into());
        }
        let stream = TcpStream::connect_timeout(&self.target, self.patience)?;
        stream.set_nodelay(true)?;
        let began = Instant::now();
        Ok(Client { stream, began, until: began + self.patience })
    }

    /// Many connections, and the same on each. Who is turned away so early shows it later.
    fn connect_crowd(&self, request: &[u8]) -> io::Result<Vec<Client>> {
        let mut crowd = Vec::new();
        for _ in 0..self.crowd {
            let mut client = self.connect()?;
            let _ = client.write_all(request);
            crowd.push(client);
        }
        Ok(crowd)
    }

    /// The whole answer, which ends with the connection.
    fn hear(&mut self, client: &mut Client) -> io::Result<Heard> {
        let heard = client.hear()?;
        let (line, end) = (first_line(&heard.bytes), if heard.reset { "reset" } else { "closed" });
        self.say(&format!("<- {line}; {end} after {}", time(heard.took)));
        Ok(heard)
    }

    /// What a good client sees meanwhile.
    fn others(&mut self, when: &str) -> io::Result<Verdict> {
        let mut client = self.connect()?;
        client.write_all(GOOD_REQUEST)?;
        let heard = client.hear()?;
        let seen = format!("{} after {}", first_line(&heard.bytes), time(heard.took));
        self.say(&format!("   {when} somebody else asks: {seen}"));
        let good = is_served(&heard.bytes) && heard.took < self.soon;
        Ok(expect(good, format!("somebody else got {seen}")))
    }
}

const GOOD_REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n";

/// Whatever an application answers, it has been asked. A 5xx is the server's own trouble.
// status-line = HTTP-version SP status-code SP [ reason-phrase ]        RFC 9112, section 4
fn is_served(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 ") && matches!(answer.get(9), Some(b'2'..=b'4'))
}

fn first_line(answer: &[u8]) -> String {
    match answer.split(|&byte| byte == b'\r').next() {
        None | Some([]) => "not a word".to_string(),
        Some(line) => line.get(..60).unwrap_or(line).escape_ascii().to_string(),
    }
}

fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1000.0),
        seconds => format!("{seconds:.2} s"),
    }
}

/// One connection to the server. Whatever comes and however slowly: at this moment it is over.
struct Client {
    stream: TcpStream,
    began: Instant,
    until: Instant,
}

/// What came until the end.
struct Heard {
    bytes: Vec<u8>,
    reset: bool,
    /// From the connection's beginning to its end.
    took: Duration,
}

impl Client {
    fn time_left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }

    fn hear(&mut self) -> io::Result<Heard> {
        /// The longest answer that is read, in bytes.
        const MOST: u64 = 1 << 20;
        let mut bytes = Vec::new();
        let end = Read::by_ref(self).take(MOST).read_to_end(&mut bytes);
        let reset = match end {
            Ok(count) if count as u64 == MOST => {
                return Err(io::Error::other("there is no end of its answer"));
            }
            Ok(_) => false,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
            Err(error) => return Err(error),
        };
        Ok(Heard { bytes, reset, took: self.began.elapsed() })
    }
}

/// A time limit of a socket is for one call. Set before each, to what is left, it is for all.
impl Read for Client {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.time_left()?)?;
        self.stream.read(out).map_err(late)
    }
}

impl Write for Client {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.time_left()?)?;
        self.stream.write(bytes).map_err(late)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Some systems call a time that is over "would block".
fn late(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}

// RFC 9110, section 15.5.9: a server may answer 408 to silence, or close without a word.
fn silent(lab: &mut Lab) -> io::Result<Verdict> {
    let mut client = lab.connect()?;
    lab.say("-> a connection, and not a byte; now we wait");
    lab.hear(&mut client)?;
    Ok(Verdict::Held)
}

// RFC 9112, section 8: a request that is cut short is answered with an error, or not at all.
fn half_request(lab: &mut Lab) -> io::Result<Verdict> {
    let mut client = lab.connect()?;
    client.write_all(b"GET / HTTP/1.1\r\nHost: l")?;
    client.stream.shutdown(Shutdown::Write)?;
    lab.say("-> GET / HTTP/1.1\\r\\nHost: l, and the end");
    let heard = lab.hear(&mut client)?;
    if heard.took > lab.soon {
        return Ok(Verdict::Fell("it waited for somebody who had ended".to_string()));
    }
    let taken = heard.bytes.starts_with(b"HTTP/1.1 2");
    Ok(expect(!taken, "it took half a request for a whole one"))
}

fn slowloris(lab: &mut Lab) -> io::Result<Verdict> {
    let crowd = lab.connect_crowd(b"GET / HTTP/1.1\r\nX-Slow: ")?;
    let (count, pace) = (crowd.len(), lab.pace);
    lab.say(&format!("-> {count} heads have begun; now a byte more for each, every {pace:?}"));
    outlast(lab, crowd, b"a")
}

fn idle_hoard(lab: &mut Lab) -> io::Result<Verdict> {
    let (mut crowd, mut slowest) = (Vec::new(), Duration::ZERO);
    for _ in 0..lab.crowd {
        let (mut client, mut start) = (lab.connect()?, [0; 12]);
        client.write_all(b"GET /healthz HTTP/1.1\r\nHost: lab\r\n\r\n")?;
        client.read_exact(&mut start)?;
        if !is_served(&start) {
            return Ok(Verdict::Fell(format!("one of them got {}", first_line(&start))));
        }
        slowest = slowest.max(client.began.elapsed());
        crowd.push(client);
    }
    let seen = format!("{} answers, the slowest after {}", crowd.len(), time(slowest));
    lab.say(&format!("-> {} connections, a request on each, and all stay", crowd.len()));
    lab.say(&format!("<- {seen}"));
    if slowest > lab.soon {
        return Ok(Verdict::Fell(seen));
    }
    outlast(lab, crowd, b"")
}

/// Looks after many connections until the server has closed them all, and feeds each a `drip` now
/// and then. Meanwhile others must be served.
fn outlast(lab: &mut Lab, crowd: Vec<Client>, drip: &[u8]) -> io::Result<Verdict> {
    let (began, mut open) = (Instant::now(), Vec::new());
    for client in crowd {
        client.stream.set_nonblocking(true)?;
        open.push((client.stream, String::new()));
    }
    while !open.is_empty() && began.elapsed() < lab.patience {
        thread::sleep(lab.pace);
        let mut ended: BTreeMap<String, usize> = BTreeMap::new();
        open.retain_mut(|(stream, words)| {
            let over = is_over(stream, drip, words);
            if over {
                let words = if words.is_empty() { "without a word" } else { words };
                *ended.entry(words.to_string()).or_default() += 1;
            }
            !over
        });
        for (words, count) in ended {
            lab.say(&format!("<- {count} closed: {words}"));
        }
        if !open.is_empty() {
            let verdict = lab.others(&format!("{} are open;", open.len()))?;
            if verdict != Verdict::Held {
                return Ok(verdict);
            }
        }
    }
    Ok(expect(open.is_empty(), format!("{} connections are still open", open.len())))
}

/// Whether the server has ended this connection. If not, one drip more.
fn is_over(stream: &mut TcpStream, drip: &[u8], words: &mut String) -> bool {
    let mut answer = [0; 512];
    // Not for ever: there may be no end of what it says.
    for _ in 0..64 {
        match stream.read(&mut answer) {
            Ok(0) => return true,
            Ok(count) => {
                let said = answer.get(..count).unwrap_or_default();
                // The rest of an answer to a good request is no last word.
                if said.starts_with(b"HTTP/") {
                    *words = first_line(said);
                }
            }
            // After its last word, the server need not listen any more.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return words.is_empty() && stream.write_all(drip).is_err();
            }
            Err(_) => return true,
        }
    }
    false
}

// RFC 9112, sections 6.1 and 11.2: refused, or answered and closed. Never two answers.
fn smuggle(lab: &mut Lab) -> io::Result<Verdict> {
    let mut client = lab.connect()?;
    client.write_all(
        b"POST /echo/ HTTP/1.1\r\nHost: lab\r\nContent-Length: 6\r\n\
          Transfer-Encoding: chunked\r\n\r\n\
          0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n",
    )?;
    lab.say("-> POST /echo/, Content-Length: 6, Transfer-Encoding: chunked");
    lab.say("-> 0\\r\\n\\r\\nGET /hidden ... Is the G in the body, or not?");
    let heard = lab.hear(&mut client)?;
    let starts = |part: &&[u8]| part.starts_with(b"HTTP/1.1 ") && part.ends_with(b" ");
    let answers = heard.bytes.windows(13).filter(starts).count();
    Ok(expect(answers < 2, format!("one request was sent, and {answers} were answered")))
}

// RFC 9112, section 9.6: closing with unread bytes resets the connection, and that can destroy an
// answer that the client has not read.
fn unread_413(lab: &mut Lab) -> io::Result<Verdict> {
    let mut client = lab.connect()?;
    let head = b"POST /echo/ HTTP/1.1\r\nHost: lab\r\nContent-Length: 1099511627776\r\n\r\n";
    let sent = client.write_all(&[head.as_slice(), &vec![b'x'; 4 << 20]].concat());
    lab.say("-> POST /echo/ with Content-Length: 1099511627776, and 4 MiB of it");
    let heard = lab.hear(&mut client)?;
    // A reset that comes behind a good end shows itself a moment later, and only to a writer.
    thread::sleep(Duration::from_millis(50));
    let reset = sent.is_err() || heard.reset || client.write_all(b"x").is_err();
    let end = if reset { "a reset behind it" } else { "no reset behind it" };
    lab.say(&format!("<- {end}"));
    let seen = format!("{}, and {end}", first_line(&heard.bytes));
    // RFC 9110, section 15.5.14
    Ok(expect(heard.bytes.starts_with(b"HTTP/1.1 413 ") && !reset, seen))
}

fn reset(lab: &mut Lab) -> io::Result<Verdict> {
    const TIMES: usize = 200;
    for _ in 0..TIMES {
        let mut client = lab.connect()?;
        client.write_all(b"GET /bytes/1000000/ HTTP/1.1\r\nHost: lab\r\n\r\n")?;
        // A socket that is closed with unread bytes sends a reset.
        client.read_exact(&mut [0])?;
    }
    lab.say(&format!("-> {TIMES} requests for a megabyte, each dropped after its first byte"));
    Ok(Verdict::Held)
}

fn storm(lab: &mut Lab) -> io::Result<Verdict> {
    let began = Instant::now();
    let crowd = lab.connect_crowd(GOOD_REQUEST)?;
    lab.say(&format!("-> {} connections, and a request on each", lab.crowd));
    let mut answered = 0;
    // Each is let go as soon as it has its answer, as a good client does.
    for mut client in crowd {
        answered += usize::from(client.hear().is_ok_and(|heard| is_served(&heard.bytes)));
    }
    let took = began.elapsed();
    let seen = format!("{answered} of {} were answered, within {}", lab.crowd, time(took));
    lab.say(&format!("<- {seen}"));
    Ok(expect(answered == lab.crowd && took < lab.soon, seen))
}

/// Any key will do for an attack. This one is from RFC 6455, section 5.7.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

const NO_WEBSOCKET: Verdict =
    Verdict::NotThere("no WebSocket at /ws/echo/; `cargo run --bin asgi_ws` has one");

/// A WebSocket at `/ws/echo/`, if the server has one.
fn open_websocket(lab: &mut Lab) -> io::Result<Option<Client>> {
    let (mut client, key) = (lab.connect()?, new_key());
    let request = client_request("lab", "/ws/echo/", &key, &[]);
    client.write_all(&request.map_err(io::Error::other)?)?;
    let mut head = Vec::new();
    let mut byte = [0];
    // One byte at a time, to take nothing of what comes behind the head.
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16_384 && client.read(&mut byte)? == 1 {
        head.extend(byte);
    }
    lab.say("-> GET /ws/echo/, to open a WebSocket");
    lab.say(&format!("<- {}", first_line(&head)));
    if is_served(&head) {
        return Ok(None);
    }
    check_answer(&head, &key, &[]).map_err(io::Error::other)?;
    Ok(Some(client))
}

/// The frame at the front of what came, if it is whole.
fn first_frame(bytes: &[u8]) -> Option<(Opcode, &[u8])> {
    let parsed = FrameHeader::parse(bytes, Role::Client);
    let Ok(Parse::Complete { value, used }) = parsed else { return None };
    let end = used.checked_add(usize::try_from(value.length).ok()?)?;
    Some((value.opcode, bytes.get(used..end)?))
}

// RFC 6455, section 10.4: a limit on the size of a frame belongs to every implementation.
fn ws_bomb(lab: &mut Lab) -> io::Result<Verdict> {
    let Some(mut client) = open_websocket(lab)? else { return Ok(NO_WEBSOCKET) };
    let (opcode, mut bomb) = (Opcode::Binary, Vec::new());
    FrameHeader { fin: true, opcode, key: Some(KEY), length: 1 << 62 }.encode(&mut bomb);
    client.write_all(&bomb)?;
    lab.say("-> the header of a frame of 4,611,686,018,427,387,904 bytes");
    let heard = client.hear()?;
    let close = match first_frame(&heard.bytes) {
        Some((Opcode::Close, payload)) => Close::parse(payload).ok(),
        _ => None,
    };
    let words = close.map(|close| format!("close {} {:?}", close.code.0, close.reason));
    lab.say(&format!("<- {}", words.as_deref().unwrap_or("no close frame")));
    lab.say(&format!("<- closed after {}", time(heard.took)));
    Ok(expect(heard.took < lab.soon, "it waited for the bytes"))
}

// RFC 6455, section 5.4: a message may have any number of frames.
fn ws_fragments(lab: &mut Lab) -> io::Result<Verdict> {
    const PIECES: usize = 500_000;
    let Some(mut client) = open_websocket(lab)? else { return Ok(NO_WEBSOCKET) };
    let mut frames = Vec::new();
    for place in 1..=PIECES {
        let opcode = if place == 1 { Opcode::Binary } else { Opcode::Continuation };
        let (fin, mut piece) = (place == PIECES, *b"a");
        FrameHeader { fin, opcode, key: Some(KEY), length: 1 }.encode(&mut frames);
        Mask::new(KEY).apply(&mut piece);
        frames.extend(piece);
    }
    let close = FrameHeader { fin: true, opcode: Opcode::Close, key: Some(KEY), length: 0 };
    close.encode(&mut frames);
    let began = Instant::now();
    client.write_all(&frames)?;
    lab.say(&format!("-> one message in {PIECES} frames of one byte, and a close frame"));
    let heard = client.hear()?;
    let took = began.elapsed();
    let Some((opcode, echo)) = first_frame(&heard.bytes) else {
        return Err(ErrorKind::UnexpectedEof.into());
    };
    let seen = format!("a {opcode} frame of {} bytes; closed after {}", echo.len(), time(took));
    lab.say(&format!("<- {seen}"));
    let whole = opcode == Opcode::Binary && echo == b"a".repeat(PIECES);
    Ok(expect(whole && took < lab.soon, seen))
}
