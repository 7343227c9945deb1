//! Chapter 40: the fault lab. Each attack holds on our server, and is seen to fail on another.

mod support;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use glasshouse::gateway::asgi::Asgi;
use glasshouse::http::connection::Observer;
use glasshouse::http::server::{Running, Server, Settings};
use glasshouse::running::lab::{ATTACKS, Attack, Lab, LabError, Verdict, own_address};
use glasshouse::socket::lobby::Deadlines;
use glasshouse::socket::pool::PoolSize;
use glasshouse::socket::wire::chapter_of;
use glasshouse::web::app::App;
use glasshouse::websocket::base64;
use glasshouse::websocket::consumer::{EchoConsumer, ProtocolRouter, ws_path};
use glasshouse::websocket::session::{SessionSettings, WebSockets};
use glasshouse::websocket::sha1::Sha1;
use support::client::field;
use support::watchdog::watchdog;

fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// What the lab tells, for a test to read.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<u8>>>);

impl Write for Notes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panics").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Notes {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no writer panics").clone()).expect("text")
    }
}

fn attack(name: &str) -> &'static Attack {
    let found = ATTACKS.iter().find(|attack| attack.name == name);
    found.unwrap_or_else(|| panic!("there is no attack {name}"))
}

/// Connections of a large attack: more than our threads, and than a backlog that is not lengthened.
const CROWD: usize = 150;

/// Runs an attack, with clocks that are right for a test. What was seen, and what was told. A busy
/// machine is no bad server: only `falls_late` asks how soon something comes.
#[track_caller]
fn attacked(name: &str, address: SocketAddr, patience: u64, soon: u64) -> (Verdict, String) {
    let notes = Notes::default();
    let mut lab = Lab::new(&address.to_string(), Box::new(notes.clone())).expect("our own port");
    (lab.pace, lab.crowd) = (ms(50), CROWD);
    (lab.patience, lab.soon) = (ms(patience), ms(soon));
    let verdict = lab.run(attack(name)).expect("somebody listens");
    (verdict, notes.text())
}

/// Our own server: short deadlines, and fewer threads than the lab has connections.
#[track_caller]
fn serve() -> Running {
    let deadlines = Deadlines {
        head: ms(600),
        keep_alive: ms(2000),
        linger: ms(200),
        tick: ms(5),
        ..Deadlines::default()
    };
    let threads = PoolSize { cap: 8, ..PoolSize::default() };
    let settings = Settings { port: 0, deadlines, threads, ..Settings::default() };
    let server = Server::bind(settings).expect("a free port");
    let pages = App::new()
        .get("healthz", |_| "ok\n")
        .get("bytes/1000000/", |_| ".".repeat(1_000_000))
        .post("echo/", |_| "never asked\n");
    let site = ProtocolRouter::new(pages).with(ws_path("ws/echo/", EchoConsumer::new));
    let asgi = Asgi::start(Arc::new(site), server.address()).expect("it starts");
    let gateway = WebSockets::new(Arc::new(asgi), SessionSettings::default());
    server.observed_by(Arc::new(Quiet)).start(Arc::new(gateway))
}

/// Nobody needs to read what was refused here.
struct Quiet;

impl Observer for Quiet {}

/// The server must hold, and the text of the attack must have these words in it.
#[track_caller]
fn holds(name: &str, words: &[&str]) {
    let running = serve();
    let (verdict, told) = attacked(name, running.address, 24_000, 10_000);
    assert_eq!(verdict, Verdict::Held, "{told}");
    for line in told.lines() {
        assert!(line.len() <= 80, "too long for a terminal: {line}");
    }
    for word in words {
        assert!(told.contains(word), "not told: {word}\n{told}");
    }
    assert!(running.stop(), "somebody had to be cut");
}

/// This careless server must fall, and this must be seen.
#[track_caller]
fn falls(name: &str, careless: fn(TcpStream), patience: u64, want: &str) {
    let address = careless_server(move |stream| drop(thread::spawn(move || careless(stream))));
    falls_at(name, address, patience, want);
}

#[track_caller]
fn falls_at(name: &str, address: SocketAddr, patience: u64, want: &str) {
    let (verdict, told) = attacked(name, address, patience, patience);
    must_fall(verdict, &told, want);
}

/// The same, for a server that does the right thing too late.
#[track_caller]
fn falls_late(name: &str, careless: fn(TcpStream), want: &str) {
    let address = careless_server(move |stream| drop(thread::spawn(move || careless(stream))));
    let (verdict, told) = attacked(name, address, 20_000, 100);
    must_fall(verdict, &told, want);
}

#[track_caller]
fn must_fall(verdict: Verdict, told: &str, want: &str) {
    let Verdict::Fell(seen) = verdict else { panic!("{verdict}\n{told}") };
    assert!(seen.contains(want), "{seen}\n{told}");
    assert!(told.contains(&format!("The server FELL: {seen}.\n")), "{told}");
}

// Careless servers, as they are written in an afternoon.

fn careless_server(mut serve: impl FnMut(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            serve(stream);
        }
    });
    address
}

const WAITING: &str = "it made us wait for more than 300ms";

/// Up to an empty line; `None` at the end.
fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.extend(byte),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";

/// Waits for every head as long as it takes, and keeps every connection.
fn patient(mut stream: TcpStream) {
    while let Some(head) = head(&mut stream) {
        let _ = stream.write_all(OK);
        if head.contains("Connection: close") {
            return;
        }
    }
    // "The rest will come."
    thread::sleep(ms(30_000));
}

/// Takes the end of the input for the end of a head.
fn hasty(mut stream: TcpStream) {
    head(&mut stream);
    let _ = stream.write_all(OK);
}

/// Looks for the end of its input now and then.
fn dozing(mut stream: TcpStream) {
    head(&mut stream);
    thread::sleep(ms(300));
}

/// "Come back later", to everybody.
fn overworked(mut stream: TcpStream) {
    if head(&mut stream).is_some() {
        let _ = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    }
}

/// Answers 413 and hangs up, with the body still unread.
fn abrupt(mut stream: TcpStream) {
    if head(&mut stream).is_some() {
        thread::sleep(ms(50));
        let _ = stream.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n");
    }
}

/// Sends a byte now and then, without end.
fn dribbling(mut stream: TcpStream) {
    while stream.write_all(b"x").is_ok() {
        thread::sleep(ms(20));
    }
}

/// Sends as much as it can, without end.
fn endless(mut stream: TcpStream) {
    while stream.write_all(&[b'x'; 4096]).is_ok() {}
}

/// Opens the WebSocket that was asked for.
fn upgrade(stream: &mut TcpStream) -> bool {
    let Some(head) = head(stream) else { return false };
    let key = field(&head, "Sec-WebSocket-Key").expect("a key");
    let mut sha1 = Sha1::new();
    sha1.update(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes());
    let accept = base64::encode(&sha1.finish());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).is_ok()
}

/// Waits for all bytes that a frame has announced.
fn trusting(mut stream: TcpStream) {
    if upgrade(&mut stream) {
        let _ = io::copy(&mut stream, &mut io::sink());
    }
}

/// Takes the first frame for the whole message.
fn short_sighted(mut stream: TcpStream) {
    if upgrade(&mut stream) && stream.read_exact(&mut [0; 7]).is_ok() {
        let _ = stream.write_all(&[0x82, 1, b'a']);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = io::copy(&mut stream, &mut io::sink());
    }
}

/// Says how much will come, and hangs up in the middle.
fn half_an_echo(mut stream: TcpStream) {
    if upgrade(&mut stream) && stream.read_exact(&mut vec![0; 3_500_000]).is_ok() {
        let _ = stream.write_all(&[0x82, 126, 1, 0, b'a']);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = io::copy(&mut stream, &mut io::sink());
    }
}

/// Answers every handshake with the same 101, as a copied example would.
fn parrot(mut stream: TcpStream) {
    head(&mut stream);
    let _ = stream.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
          Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    );
    let _ = io::copy(&mut stream, &mut io::sink());
}

/// Finds out in the end that this is too much.
fn late(mut stream: TcpStream) {
    if upgrade(&mut stream) {
        thread::sleep(ms(500));
        let _ = stream.write_all(&[0x88, 2, 3, 0xf1]);
    }
}

/// Joins the pieces right, but takes its time.
fn slow_joiner(mut stream: TcpStream) {
    if upgrade(&mut stream) && stream.read_exact(&mut vec![0; 3_500_000]).is_ok() {
        thread::sleep(ms(1000));
        let length = 500_000_u64.to_be_bytes();
        let _ = stream.write_all(&[&[0x82, 127], &length[..], &[b'a'; 500_000]].concat());
        let _ = stream.shutdown(Shutdown::Write);
        let _ = io::copy(&mut stream, &mut io::sink());
    }
}

// The attacks: each holds on our server, and is seen to fall on another.

#[test]
fn silent_is_stopped_by_a_deadline() {
    let _dog = watchdog(60, "silent");
    holds(
        "silent",
        &["<- not a word; closed after ", "afterwards somebody else asks: HTTP/1.1 200"],
    );
    falls("silent", patient, 300, WAITING);
}

#[test]
fn half_request_is_stopped_by_seeing_the_end() {
    let _dog = watchdog(60, "half-request");
    holds("half-request", &["<- not a word; closed after "]);
    falls("half-request", patient, 300, WAITING);
    falls_late("half-request", dozing, "it waited for somebody who had ended");
    falls("half-request", hasty, 8000, "it took half a request for a whole one");
}

#[test]
fn slowloris_is_stopped_by_a_deadline_for_the_whole_head() {
    let _dog = watchdog(60, "slowloris");
    falls("slowloris", overworked, 8000, "somebody else got HTTP/1.1 503 Service Unavailable");
    // 8 threads and 150 heads: some must go early, so that others can be served.
    holds("slowloris", &["are open; somebody else asks: HTTP/1.1 200 OK", " 408 ", " 503 "]);
    falls("slowloris", patient, 2000, "150 connections are still open");
}

#[test]
fn idle_hoard_is_stopped_by_showing_the_idle_out() {
    let _dog = watchdog(60, "idle-hoard");
    holds("idle-hoard", &["<- 150 answers, the slowest after ", " closed: without a word"]);
    falls("idle-hoard", patient, 2000, "150 connections are still open");
    falls("idle-hoard", overworked, 8000, "one of them got HTTP/1.1 503");
    // A pool of four threads, and each belongs to one connection as long as it stays.
    let (busy, most) = (Arc::new(AtomicUsize::new(0)), 4);
    let four = careless_server(move |stream| {
        while busy.load(Ordering::SeqCst) >= most {
            thread::sleep(ms(1));
        }
        busy.fetch_add(1, Ordering::SeqCst);
        let busy = Arc::clone(&busy);
        thread::spawn(move || {
            patient(stream);
            busy.fetch_sub(1, Ordering::SeqCst);
        });
    });
    falls_at("idle-hoard", four, 300, WAITING);
}

#[test]
fn smuggle_is_stopped_by_refusing_two_lengths() {
    let _dog = watchdog(60, "smuggle");
    holds("smuggle", &["<- HTTP/1.1 400 Bad Request; closed after "]);
    falls("smuggle", patient, 8000, "one request was sent, and 3 were answered");
}

#[test]
fn unread_413_is_stopped_by_reading_on_for_a_moment() {
    let _dog = watchdog(60, "unread-413");
    holds("unread-413", &["<- HTTP/1.1 413 Content Too Large; closed", "<- no reset behind it"]);
    falls("unread-413", abrupt, 8000, "HTTP/1.1 413 Content Too Large, and a reset behind it");
    falls("unread-413", patient, 300, WAITING);
    falls("unread-413", hasty, 8000, "HTTP/1.1 200 OK, and ");
}

#[test]
fn rst_is_stopped_by_expecting_it() {
    let _dog = watchdog(60, "rst");
    holds("rst", &["afterwards somebody else asks: HTTP/1.1 200 OK"]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    // One `?` too many: the first client that vanishes takes the server with it.
    thread::spawn(move || -> io::Result<()> {
        loop {
            let (mut stream, _) = listener.accept()?;
            if head(&mut stream).is_some() {
                let answer = [OK, &vec![b'.'; 20_000_000]].concat();
                stream.write_all(&answer)?;
            }
        }
    });
    let (verdict, told) = attacked("rst", address, 8000, 8000);
    assert!(matches!(verdict, Verdict::Fell(_)), "{told}");
    assert!(TcpStream::connect(address).is_err(), "it is gone\n{told}");
}

#[test]
fn storm_is_stopped_by_a_long_queue_at_the_door() {
    let _dog = watchdog(60, "storm");
    holds("storm", &["<- 150 of 150 were answered, within "]);
    let busy = Arc::new(AtomicUsize::new(0));
    let impolite = careless_server(move |stream| {
        if busy.fetch_add(1, Ordering::SeqCst) > 8 {
            busy.fetch_sub(1, Ordering::SeqCst);
            return; // hangs up
        }
        let busy = Arc::clone(&busy);
        thread::spawn(move || {
            thread::sleep(ms(10));
            patient(stream);
            busy.fetch_sub(1, Ordering::SeqCst);
        });
    });
    falls_at("storm", impolite, 2000, " of 150 were answered");
}

#[test]
fn ws_bomb_is_stopped_before_a_byte_is_stored() {
    let _dog = watchdog(60, "ws-bomb");
    holds("ws-bomb", &["<- HTTP/1.1 101 Switching Protocols", "<- close 1009 "]);
    falls("ws-bomb", trusting, 300, WAITING);
    falls_late("ws-bomb", late, "it waited for the bytes");
    falls("ws-bomb", parrot, 8000, "the answer does not belong to our key");
}

#[test]
fn ws_fragments_are_joined_in_one_place() {
    let _dog = watchdog(60, "ws-fragments");
    holds("ws-fragments", &["<- a binary frame of 500000 bytes; closed after "]);
    falls("ws-fragments", short_sighted, 8000, "a binary frame of 1 bytes; closed after ");
    falls("ws-fragments", half_an_echo, 8000, "it hung up before its answer was whole");
    falls_late("ws-fragments", slow_joiner, "a binary frame of 500000 bytes; closed after ");
}

#[test]
fn without_a_websocket_there_is_no_attack_on_it() {
    let _dog = watchdog(60, "no WebSocket");
    let address = careless_server(|stream| drop(thread::spawn(move || patient(stream))));
    for name in ["ws-bomb", "ws-fragments"] {
        let (verdict, told) = attacked(name, address, 8000, 8000);
        assert!(matches!(verdict, Verdict::NotThere(_)), "{told}");
        assert!(told.contains("No attack: no WebSocket at /ws/echo/; "), "{told}");
    }
}

// The lab itself.

#[test]
fn an_attack_ends_whatever_the_server_does() {
    let _dog = watchdog(60, "servers without an end");
    falls("silent", dribbling, 300, WAITING);
    falls("silent", endless, 20_000, "there is no end of its answer");
    falls("slowloris", endless, 20_000, "there is no end of its answer");
    // Each connection alone is in time, but all together are not.
    let began = Instant::now();
    falls("rst", slow_but_sure, 100, "it made us wait for more than 100ms");
    assert!(began.elapsed() < ms(5000), "after {:?}", began.elapsed());
}

fn slow_but_sure(mut stream: TcpStream) {
    if head(&mut stream).is_some() {
        thread::sleep(ms(60));
        let _ = stream.write_all(OK);
    }
}

#[test]
fn each_line_stands_once_in_its_file() {
    let root = env!("CARGO_MANIFEST_DIR");
    for attack in ATTACKS {
        let chapter = attack.chapter();
        assert!(chapter.starts_with("ch "), "{chapter} is not in the table of contents");
        let path = format!("{root}/{}", attack.file);
        let text = std::fs::read_to_string(&path).expect("the chapter's file");
        let count = text.lines().filter(|line| line.trim() == attack.line).count();
        assert_eq!(count, 1, "{}: {path} has not this line once: {}", attack.name, attack.line);
    }
}

#[test]
fn what_is_told_can_be_read_from_top_to_bottom() {
    let _dog = watchdog(60, "the text of an attack");
    let running = serve();
    let (_, told) = attacked("smuggle", running.address, 24_000, 10_000);
    let chapter = chapter_of("body");
    let want = format!(
        "smuggle: {}

  TIME s  -> POST /echo/, Content-Length: 6, Transfer-Encoding: chunked
  TIME s  -> 0\\r\\n\\r\\nGET /hidden ... Is the G in the body, or not?
  TIME s  <- HTTP/1.1 400 Bad Request; closed after TIME ms
  TIME s     afterwards somebody else asks: HTTP/1.1 200 OK after TIME ms

The server held.
What stops it: {chapter}, src/http/body.rs
  {}
  return Err(BodyError::BothFramings);
",
        attack("smuggle").tries,
        attack("smuggle").rule
    );
    let timeless: Vec<String> = told.lines().map(without_times).collect();
    support::client::eq_text(&want, &(timeless.join("\n") + "\n"));
    running.stop();
}

/// A figure with a point in it is a time.
fn without_times(line: &str) -> String {
    let words = line.split(' ').map(|word| match word.parse::<f64>() {
        Ok(_) if word.contains('.') => "TIME",
        _ => word,
    });
    let line = words.collect::<Vec<&str>>().join(" ");
    line.replacen("   TIME", "  TIME", 1)
}

#[test]
fn colours_are_there_only_if_they_are_wanted() {
    let _dog = watchdog(60, "colours");
    let running = serve();
    let notes = Notes::default();
    let target = running.address.to_string();
    let mut lab = Lab::new(&target, Box::new(notes.clone())).expect("our own port");
    lab.run(attack("smuggle")).expect("somebody listens");
    assert!(!notes.text().contains('\x1b'));
    lab.colours = true;
    lab.run(attack("smuggle")).expect("somebody listens");
    assert!(notes.text().contains("\x1b[32mThe server held.\x1b[0m\n"));
    running.stop();
}

#[test]
fn only_this_machine_is_attacked() {
    for (text, want) in [
        ("127.0.0.1:8000", "127.0.0.1:8000"),
        ("127.1.2.3:80", "127.1.2.3:80"),
        ("[::1]:8000", "[::1]:8000"),
        ("localhost:8000", "127.0.0.1:8000"),
        ("http://localhost:8000/", "127.0.0.1:8000"),
    ] {
        assert_eq!(
            own_address(text).map(|address| address.to_string()).ok().as_deref(),
            Some(want)
        );
    }
    for text in ["192.0.2.1:80", "0.0.0.0:8000", "[2001:db8::1]:80", "[::ffff:192.0.2.1]:80"] {
        let error = own_address(text).expect_err("another machine");
        assert!(matches!(error, LabError::NotHere(_)), "{text}: {error}");
        assert!(error.to_string().contains("attack nobody else"), "{error}");
    }
    for text in ["", "8000", "127.0.0.1", "example.org:80", "localhost.example.org:80"] {
        let error = own_address(text).expect_err("no address");
        assert!(matches!(error, LabError::NotAnAddress(_)), "{text}: {error}");
    }
}

#[test]
fn a_lab_without_a_server_says_so() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let free = free.expect("a port that was free").to_string();
    let notes = Notes::default();
    let mut lab = Lab::new(&free, Box::new(notes.clone())).expect("our own port");
    let error = lab.run(attack("silent")).expect_err("nobody is there");
    assert!(matches!(error, LabError::Unreachable(..)));
    assert!(error.to_string().starts_with(&format!("Nobody listens at {free} (")), "{error}");
    assert_eq!(notes.text(), "");
}

// Exercises.

#[test]
#[ignore = "exercise 40.2"]
fn exercise_40_2_the_lab_knows_two_hosts() {
    let _dog = watchdog(20, "two-hosts");
    holds("two-hosts", &[" 400 "]);
    falls("two-hosts", patient, 8000, "200 OK");
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
