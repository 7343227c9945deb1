//! Chapter 14: the connection. A whole house with one thread pool: bytes in, bytes out.

mod support;

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use glasshouse::http::connection::{CloseReason, Http, Limits, Observer};
use glasshouse::http::exchange::{DRAIN, Exchange, Link};
use glasshouse::http::headers::{ALLOW, FieldValue, Headers, UPGRADE};
use glasshouse::http::refusal::Refusal;
use glasshouse::http::request::Method;
use glasshouse::http::response::{Response, Status};
use glasshouse::socket::listener::Listener;
use glasshouse::socket::lobby::{Deadlines, Guest, Lobby};
use glasshouse::socket::pool::{PoolSize, ThreadPool};
use glasshouse::socket::wire::Tap;
use support::client::{Answer, Client, eq_text};
use support::watchdog::{Watchdog, watchdog};
use support::wire_cases::wire_cases;

/// A server of this chapter, and what its observer has seen.
struct House {
    address: SocketAddr,
    pool: ThreadPool,
    lobby: Arc<Lobby>,
    events: Events,
    shown: Shared,
    _dog: Watchdog,
}

/// What a test may want otherwise.
struct Plan {
    deadlines: Deadlines,
    limits: Limits,
    cap: usize,
    keep_alive: bool,
    wire_view: bool,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            deadlines: Deadlines { linger: ms(200), tick: ms(5), ..Deadlines::default() },
            limits: Limits::default(),
            cap: 16,
            keep_alive: true,
            wire_view: false,
        }
    }
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

impl House {
    fn open() -> House {
        House::planned(Plan::default())
    }

    fn hurried(change: impl FnOnce(&mut Deadlines)) -> House {
        let mut plan = Plan::default();
        change(&mut plan.deadlines);
        House::planned(plan)
    }

    fn planned(plan: Plan) -> House {
        let name = thread::current().name().unwrap_or("a test").to_string();
        let dog = watchdog(60, &name);
        let listener = Listener::bind("127.0.0.1", 0).expect("a free port");
        let (address, stop) = (listener.address(), listener.stop());
        let (events, shown) = (Events::default(), Shared::default());
        let tap = plan.wire_view.then(|| Arc::new(Tap::new(Box::new(shown.clone()))));
        let http = Http {
            handler: Arc::new(pages),
            observer: Arc::new(events.clone()),
            limits: plan.limits,
            keep_alive: plan.keep_alive,
            stop,
            tap,
        };
        let lobby = Arc::new(Lobby::new(plan.deadlines, plan.cap));
        let size = PoolSize { cap: plan.cap, ..PoolSize::default() };
        let pool = ThreadPool::start(listener, Arc::clone(&lobby), size, Arc::new(http));
        House { address, pool, lobby, events, shown, _dog: dog }
    }

    fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Sends all of it and says that nothing more will come; all that comes back.
    fn send(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.client();
        client.send(bytes);
        client.finish();
        client.all()
    }

    /// Waits until everybody has left; what the observer has seen.
    fn seen(&self) -> Vec<String> {
        while !self.lobby.is_empty() {
            thread::sleep(ms(2));
        }
        self.events.0.lock().expect("no panic while held").clone()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.pool.stop(ms(100));
    }
}

/// The pages of this house.
fn pages(exchange: &mut Exchange) -> io::Result<()> {
    match exchange.head.target.path() {
        "/panic/" => panic!("on purpose"),
        "/error/" => Err(io::Error::other("on purpose")),
        "/nothing/" => Ok(()),
        "/ignore/" => exchange.respond(Response::text(Status::OK, "ignored\n")),
        "/cut/" => {
            exchange.start(Status::OK, &Headers::new(), None)?;
            exchange.write_body(b"half")?;
            Err(io::Error::other("no more"))
        }
        "/cut-unsent/" => {
            exchange.start(Status::OK, &Headers::new(), None)?;
            panic!("before a byte of it was sent")
        }
        "/big/" => exchange.respond(Response::text(Status::OK, "x".repeat(1_000_000))),
        "/sleep/" => {
            thread::sleep(ms(300));
            exchange.respond(Response::text(Status::OK, "slept\n"))
        }
        "/shout/" => {
            let mut headers = Headers::new();
            headers.push(UPGRADE, FieldValue::constant("shout"));
            shout(exchange.switch_protocols(&headers)?);
            Ok(())
        }
        "/read-only/" if exchange.head.method != Method::Get => {
            let answer = Response::text(Status::METHOD_NOT_ALLOWED, "");
            exchange.respond(answer.with(ALLOW, FieldValue::constant("GET")))
        }
        _ => {
            let mut body = Vec::new();
            exchange.read_to_end(&mut body)?;
            let method = exchange.head.method.as_str();
            let target = exchange.head.target.raw.clone();
            let text = format!("{method} {target} {}\n", body.escape_ascii());
            exchange.respond(Response::text(Status::OK, text))
        }
    }
}

/// One round in another protocol: what came is given back in capitals. `!` is too much for it.
fn shout(link: &mut Link) {
    let mut block = [0; 64];
    let count = link.wire.read(&mut block).unwrap_or(0);
    assert_ne!(&block[..count], b"!", "another protocol that panics");
    let _ = link.wire.write_all(&block[..count].to_ascii_uppercase());
}

/// An observer that writes down what it is told.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    fn note(&self, guest: &Guest, what: &str) {
        let line = format!("#{} {what}", guest.number);
        self.0.lock().expect("no panic while held").push(line);
    }
}

impl Observer for Events {
    fn opened(&self, guest: &Guest) {
        self.note(guest, "opened");
    }

    fn exchanged(&self, exchange: &Exchange) {
        let status = exchange.status().map_or(0, Status::code);
        let raw = &exchange.head.target.raw;
        self.note(&exchange.link.guest, &format!("exchanged {raw} {status}"));
    }

    fn refused(&self, guest: &Guest, refusal: &Refusal) {
        self.note(guest, &format!("refused {}", refusal.status.code()));
    }

    fn ended(&self, guest: &Guest, reason: CloseReason) {
        self.note(guest, &format!("ended {reason:?}"));
    }
}

/// Where the wire view goes.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic while held").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn post(path: &str, fields: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

/// The answer of the last page above, as it stands on the wire without its date.
fn ok(text: &str, connection: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nServer: glasshouse\r\n\
         Content-Length: {}\r\n{connection}\r\n{text}",
        text.len()
    )
}

const CLOSE: &str = "Connection: close\r\n";

#[track_caller]
fn status_of(received: &str) -> u16 {
    let code = received.get(9..12).and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("no answer: {}", received.escape_default()))
}

fn answers_in(received: &str) -> usize {
    received.matches("HTTP/1.1 ").count()
}

// How long a connection lives. RFC 9112, section 9.3.

#[test]
fn http_1_1_stays_and_http_1_0_goes_unless_told_otherwise() {
    let house = House::open();
    for (version, field, stays, said) in [
        ("1.1", "", true, ""),
        ("1.1", "Connection: keep-alive\r\n", true, ""),
        ("1.1", "Connection: close\r\n", false, CLOSE),
        ("1.1", "Connection: foo, Close\r\n", false, CLOSE),
        ("1.1", "Connection: keep-alive, close\r\n", false, CLOSE),
        ("1.1", "Connection: foo\r\nConnection: close\r\n", false, CLOSE),
        ("1.0", "", false, CLOSE),
        ("1.0", "Connection: Keep-Alive\r\n", true, "Connection: keep-alive\r\n"),
        ("1.0", "Connection: keep-alive, close\r\n", false, CLOSE),
    ] {
        let request = format!("GET / HTTP/{version}\r\nHost: a\r\n{field}\r\n");
        let mut client = house.client();
        client.send(&request);
        let first = client.answer().expect("an answer");
        let want = ok("GET / \n", said);
        eq_text(&want, &format!("{}{}", first.head, first.text()));
        client.send(&request);
        assert_eq!(client.answer().is_some(), stays, "{request}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_and_at_once() {
    let house = House::open();
    let mut client = house.client();
    let requests = [
        get("/1"),
        post("/2", "Content-Length: 5\r\n", "hello"),
        post("/3", "Transfer-Encoding: chunked\r\n", "1\r\na\r\n0\r\n\r\n"),
        get("/4"),
    ];
    client.send(requests.concat());
    let texts = ["GET /1 \n", "POST /2 hello\n", "POST /3 a\n", "GET /4 \n"];
    let want: String = texts.iter().map(|text| ok(text, "")).collect();
    // One read is enough: the answers were gathered, and sent when nothing was left to read.
    let mut block = [0; 4096];
    let count = client.stream.read(&mut block).expect("the answers");
    let got = support::client::without_date(&String::from_utf8_lossy(&block[..count]));
    eq_text(&want, &got);
}

#[test]
fn a_bad_request_between_good_ones_is_the_last() {
    let house = House::open();
    let bad = "GET / HTTP/1.1\r\nHost : a\r\n\r\n";
    let received = house.send([get("/1"), bad.to_string(), get("/2")].concat());
    assert!(received.starts_with(&ok("GET /1 \n", "")), "{received}");
    let rest = &received[ok("GET /1 \n", "").len()..];
    assert_eq!((status_of(rest), answers_in(rest)), (400, 1));
    assert_eq!(
        house.seen(),
        ["#1 opened", "#1 exchanged /1 200", "#1 refused 400", "#1 ended Refused(Status(400))"]
    );
}

#[test]
fn nothing_after_connection_close_is_answered() {
    let house = House::open();
    let last = format!("GET /1 HTTP/1.1\r\nHost: a\r\n{CLOSE}\r\n");
    let received = house.send(last + &get("/2"));
    eq_text(&ok("GET /1 \n", CLOSE), &received);
    assert_eq!(house.seen().last().map(String::as_str), Some("#1 ended Agreed"));
}

#[test]
fn a_client_that_has_finished_sending_still_gets_its_answers() {
    let house = House::open();
    let received = house.send(get("/1") + &get("/2"));
    eq_text(&(ok("GET /1 \n", "") + &ok("GET /2 \n", "")), &received);
    assert_eq!(house.seen().last().map(String::as_str), Some("#1 ended PeerClosed"));
}

#[test]
fn a_head_that_is_cut_gets_no_answer() {
    let house = House::open();
    assert_eq!(house.send("GET / HTTP/1.1\r\nHost:"), "");
    assert_eq!(house.seen(), ["#1 opened", "#1 ended PeerLost"]);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_an_answer_is_lost() {
    let house = House::open();
    let mut client = house.client();
    // More than the kernel keeps for a client that does not read.
    client.send(get("/big/").repeat(40));
    client.stream.read_exact(&mut [0; 9]).expect("the beginning of an answer");
    drop(client);
    assert_eq!(house.seen().last().map(String::as_str), Some("#1 ended PeerLost"));
}

#[test]
fn the_answer_to_head_is_followed_by_the_next_answer() {
    let house = House::open();
    let received = house.send("HEAD /1 HTTP/1.1\r\nHost: a\r\n\r\n".to_string() + &get("/2"));
    let head = ok("HEAD /1 \n", "").replace("HEAD /1 \n", "");
    eq_text(&(head + &ok("GET /2 \n", "")), &received);
}

#[test]
fn a_house_for_one_request_a_connection_says_so() {
    let house = House::planned(Plan { keep_alive: false, cap: 1, ..Plan::default() });
    for _ in 0..3 {
        eq_text(&ok("GET /1 \n", CLOSE), &house.send(get("/1") + &get("/2")));
    }
}

// Every case in tests/wire, against the whole of parts I and II.

/// Sends a case in one piece or byte by byte.
fn play(house: &House, bytes: &[u8], whole: bool) -> Client {
    let mut client = house.client();
    if whole {
        client.send(bytes);
    } else {
        // Not all could be sent if the server refuses early; then what it says counts.
        let _ = bytes.iter().all(|byte| client.send([*byte]));
    }
    client
}

#[test]
fn every_valid_case_is_answered_whole_and_byte_by_byte() {
    let house = House::open();
    for (name, case) in wire_cases("tests/wire/valid") {
        for whole in [true, false] {
            let mut client = play(&house, &case.bytes, whole);
            client.finish();
            let answer = client.answer().expect("an answer");
            let expect: Vec<&str> = case.expect.splitn(3, ' ').collect();
            assert_eq!(answer.status.to_string(), expect[0], "{name}");
            let start = format!("{} {} ", expect[1], expect[2]);
            assert!(answer.text().starts_with(&start), "{name}: {answer:?}");
            assert_eq!(client.answer(), None, "{name}: more than one answer");
        }
    }
}

#[test]
fn every_invalid_case_is_refused_and_hides_no_request() {
    let house = House::open();
    let cases = wire_cases("tests/wire/invalid");
    thread::scope(|scope| {
        for part in cases.chunks(cases.len().div_ceil(4)) {
            let house = &house;
            scope.spawn(move || {
                for (name, case) in part {
                    refused(house, name, case);
                }
            });
        }
    });
    let seen = house.seen();
    let hidden = seen.iter().find(|line| line.contains("/hidden"));
    assert_eq!(hidden, None);
}

fn refused(house: &House, name: &str, case: &support::wire_cases::WireCase) {
    for whole in [true, false] {
        let mut client = play(house, &case.bytes, whole);
        client.send(get("/hidden"));
        let Some(answer) = client.answer() else {
            panic!("{name}: no answer");
        };
        let status = case.expect.split(' ').next().unwrap_or_default();
        assert_eq!(answer.status.to_string(), status, "{name}");
        assert!(answer.says("Connection: close"), "{name}: {answer:?}");
        assert!(answer.text().contains("The rule: RFC "), "{name}");
        assert_eq!(client.answer(), None, "{name}: a second answer");
    }
}

// Each status that the server itself can give.

#[test]
fn each_refusal_can_be_reached() {
    let mut plan = Plan::default();
    plan.deadlines.head = ms(100);
    plan.limits.body.body = 1000;
    let house = House::planned(plan);
    let long = "x".repeat(9000);
    for (request, status, rule) in [
        ("GET /\r\n\r\n".to_string(), 400, "RFC 9112, section 3"),
        (get("/")[..20].to_string(), 408, "RFC 9110, section 15.5.9"),
        (post("/", "Content-Length: 1001\r\n", ""), 413, "RFC 9110, section 15.5.14"),
        (get(&format!("/{long}")), 414, "RFC 9112, section 3"),
        (post("/", "Expect: tea\r\n", ""), 417, "RFC 9110, section 10.1.1"),
        (get(&format!("/ HTTP/1.1\r\nX: {long}")), 431, "RFC 6585, section 5"),
        (get("/error/"), 500, "RFC 9110, section 15.6.1"),
        (post("/", "Transfer-Encoding: gzip\r\n", ""), 501, "RFC 9112, section 6.1"),
        ("GET / HTTP/2.0\r\n\r\n".to_string(), 505, "RFC 9110, section 15.6.6"),
    ] {
        let mut client = house.client();
        client.send(request);
        let answer = client.answer().expect("an answer");
        assert_eq!(answer.status, status);
        assert!(answer.text().contains(rule), "{}", answer.text());
        assert!(answer.says("Connection: close"), "{status}");
        assert_eq!(client.answer(), None);
    }
}

#[test]
fn a_405_of_the_handler_keeps_the_connection() {
    let house = House::open();
    let received = house.send(post("/read-only/", "", "") + &get("/2"));
    assert_eq!((status_of(&received), answers_in(&received)), (405, 2));
    assert!(received.contains("\r\nAllow: GET\r\n"));
}

#[test]
fn a_full_house_answers_503_and_says_when_to_try_again() {
    let house = House::planned(Plan {
        cap: 1,
        deadlines: Deadlines {
            queue: ms(50),
            tick: ms(5),
            linger: ms(100),
            ..Deadlines::default()
        },
        ..Plan::default()
    });
    let mut busy = house.client();
    busy.send(get("/sleep/"));
    thread::sleep(ms(50));
    let mut other = house.client();
    other.send(get("/"));
    let answer = other.answer().expect("an answer");
    assert_eq!(answer.status, 503);
    assert!(answer.says("Retry-After: 2") && answer.says("Connection: close"));
    assert_eq!(busy.answer().map(|answer| answer.status), Some(200));
    drop((busy, other));
    let seen = house.seen();
    let seen: Vec<&String> = seen.iter().filter(|line| line.starts_with("#2 ")).collect();
    assert_eq!(seen, ["#2 opened", "#2 refused 503", "#2 ended Refused(Status(503))"]);
}

// Time.

#[test]
fn a_slow_head_is_408_however_steadily_it_comes() {
    let house = House::hurried(|deadlines| deadlines.head = ms(150));
    let mut client = house.client();
    client.send(get("/1"));
    assert_eq!(client.answer().map(|answer| answer.status), Some(200));
    // Also the second request of a connection has one deadline for its whole head.
    let began = Instant::now();
    let mut writer = client.stream.try_clone().expect("the same socket");
    let sender = thread::spawn(move || {
        for byte in get(&"/".repeat(100)).bytes() {
            if writer.write_all(&[byte]).is_err() {
                break;
            }
            thread::sleep(ms(10));
        }
    });
    let answer = client.answer().expect("an answer");
    assert_eq!(answer.status, 408);
    assert!(began.elapsed() < ms(1000), "{:?}", began.elapsed());
    sender.join().expect("the sender");
    drop(client);
    let ended = "#1 ended Refused(Status(408))".to_string();
    assert_eq!(house.seen().last(), Some(&ended));
}

#[test]
fn silent_connections_are_closed_without_a_word() {
    // One that never said anything, and one between two requests: each has a deadline of its own.
    for (head, keep_alive, request, answer) in [
        (ms(100), ms(60_000), String::new(), String::new()),
        (ms(60_000), ms(100), get("/1"), ok("GET /1 \n", "")),
    ] {
        let house = House::hurried(|deadlines| {
            deadlines.head = head;
            deadlines.keep_alive = keep_alive;
        });
        let mut client = house.client();
        client.send(request);
        eq_text(&answer, &client.all());
        drop(client);
        assert_eq!(house.seen().last().map(String::as_str), Some("#1 ended Silent"));
    }
}

#[test]
fn empty_lines_do_not_make_a_silent_connection_last() {
    let house = House::hurried(|deadlines| {
        deadlines.head = ms(100);
        deadlines.keep_alive = ms(100);
    });
    // One that never asks, and one between two requests. Each gap is far below the limit.
    for (request, answer) in [(String::new(), String::new()), (get("/1"), ok("GET /1 \n", ""))] {
        let mut client = house.client();
        client.send(request);
        for byte in b"\r\n".repeat(25) {
            thread::sleep(ms(15));
            client.send([byte]);
        }
        client.send(get("/2"));
        client.finish();
        eq_text(&answer, &client.all());
    }
    let seen = house.seen();
    assert_eq!(seen.iter().filter(|line| line.ends_with("ended Silent")).count(), 2);
}

#[test]
fn a_slow_body_is_408() {
    let house = House::hurried(|deadlines| deadlines.body = ms(150));
    for trickle in [false, true] {
        let mut client = house.client();
        client.send(post("/", "Content-Length: 999\r\n", "start"));
        let mut writer = client.stream.try_clone().expect("the same socket");
        let sender = thread::spawn(move || {
            for _ in 0..40 {
                if trickle && writer.write_all(b"x").is_err() {
                    break;
                }
                thread::sleep(ms(10));
            }
        });
        let answer = client.answer().expect("an answer");
        assert_eq!(answer.status, 408);
        assert!(answer.text().contains("The request body came too slowly."));
        sender.join().expect("the sender");
    }
}

// Bodies that nobody reads.

#[test]
fn a_small_body_that_nobody_reads_is_skipped() {
    let house = House::open();
    let first = post("/ignore/", "Content-Length: 5\r\n", "GET /");
    let chunked = post("/ignore/", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n");
    let received = house.send(first + &chunked + &get("/3"));
    let ignored = ok("ignored\n", "");
    eq_text(&format!("{ignored}{ignored}{}", ok("GET /3 \n", "")), &received);
}

#[test]
fn a_large_body_that_nobody_reads_ends_the_connection() {
    let house = House::open();
    let fields = format!("Content-Length: {}\r\n", DRAIN + 1);
    let body = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
    let mut client = house.client();
    client.send(post("/ignore/", &fields, &body));
    eq_text(&ok("ignored\n", CLOSE), &client.all());
}

#[test]
fn a_413_arrives_at_a_client_that_goes_on_sending() {
    let mut plan = Plan::default();
    plan.limits.body.body = 1000;
    let house = House::planned(plan);
    let megabyte = "x".repeat(1024 * 1024);
    for fields in ["Content-Length: 1048576\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut client = house.client();
        client.send(post("/", fields, "100000\r\n"));
        client.send(&megabyte);
        let answer = client.answer().expect("an answer");
        assert_eq!(answer.status, 413);
        assert!(answer.text().contains("The body is larger than this server allows."));
    }
}

#[test]
fn a_stray_line_end_does_not_destroy_the_last_answer() {
    let house = House::open();
    let mut client = house.client();
    client.send("GET /big/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    // Most of the answer is still in the kernel when this arrives: nobody has read it yet.
    thread::sleep(ms(50));
    client.send("\r\n");
    thread::sleep(ms(300));
    assert_eq!(client.answer().expect("a whole answer").body.len(), 1_000_000);
}

#[test]
fn a_body_cut_short_is_an_error_for_the_handler() {
    let house = House::open();
    let received = house.send(post("/", "Content-Length: 9\r\n", "hel"));
    assert_eq!((status_of(&received), answers_in(&received)), (400, 1));
    assert!(received.contains("The connection ended inside the body."));
    assert!(!received.contains("hel\n"));
}

#[test]
fn a_100_comes_before_the_body_and_the_connection_goes_on() {
    let house = House::open();
    let mut client = house.client();
    client.send(post("/1", "Expect: 100-continue\r\nContent-Length: 5\r\n", ""));
    let first = client.answer().expect("an answer");
    assert_eq!((first.status, first.head.as_str()), (100, "HTTP/1.1 100 Continue\r\n\r\n"));
    client.send("hello");
    let second = client.answer().expect("an answer");
    assert_eq!(second.text(), "POST /1 hello\n");
    client.send(get("/2"));
    assert_eq!(client.answer().map(|answer| answer.status), Some(200));
}

// Handlers that fail.

#[test]
fn a_handler_that_panics_answers_500_and_harms_nobody_else() {
    let house = House::planned(Plan { cap: 2, ..Plan::default() });
    for _ in 0..20 {
        for path in ["/panic/", "/error/", "/nothing/"] {
            let received = house.send(get(path));
            assert_eq!(status_of(&received), 500, "{path}");
            assert!(received.contains("\r\nConnection: close\r\n"));
        }
    }
    assert_eq!(status_of(&house.send(get("/"))), 200);
}

#[test]
fn an_answer_that_is_cut_has_no_last_chunk_and_loses_no_other() {
    let house = House::open();
    let received = house.send(get("/1") + &get("/cut/") + &get("/2"));
    assert!(received.starts_with(&ok("GET /1 \n", "")));
    assert!(received.ends_with("\r\n\r\n4\r\nhalf\r\n"), "{received}");
    // The same when nothing of the second answer was sent yet: the first one is whole all the same.
    let received = house.send(get("/1") + &get("/cut-unsent/"));
    assert!(received.starts_with(&ok("GET /1 \n", "")), "{received}");
    assert!(!received.ends_with("0\r\n\r\n"));
    let seen = house.seen();
    assert_eq!(seen.iter().filter(|line| line.ends_with("ended AnswerCut")).count(), 2);
}

// Another protocol.

const SHOUT: &str =
    "GET /shout/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\n";

#[test]
fn another_protocol_gets_the_bytes_that_came_with_the_request() {
    let house = House::open();
    let received = house.send(format!("{SHOUT}hello"));
    let want = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: shout\r\nServer: glasshouse\r\n\
                Connection: Upgrade\r\n\r\nHELLO";
    eq_text(want, &received);
    let want = ["#1 opened", "#1 exchanged /shout/ 101", "#1 ended SwitchedProtocols"];
    assert_eq!(house.seen(), want);
}

#[test]
fn the_end_of_another_protocol_that_panics_is_seen() {
    let house = House::open();
    house.send(format!("{SHOUT}!"));
    assert_eq!(house.seen().last().map(String::as_str), Some("#1 ended SwitchedProtocols"));
}

// Those who watch.

#[test]
fn the_observer_sees_everything_in_order() {
    let house = House::open();
    let mut client = house.client();
    client.send(get("/1"));
    let _: Option<Answer> = client.answer();
    client.send(post("/2", "Content-Length: 2\r\nConnection: close\r\n", "ab"));
    client.all();
    drop(client);
    let want = ["#1 opened", "#1 exchanged /1 200", "#1 exchanged /2 200", "#1 ended Agreed"];
    assert_eq!(house.seen(), want);
}

#[test]
fn every_reason_says_why() {
    for (reason, words) in [
        (CloseReason::PeerClosed, "the client closed it"),
        (CloseReason::PeerLost, "the client went away"),
        (CloseReason::Silent, "nothing came for too long"),
        (CloseReason::ShownOut, "others needed its place"),
        (CloseReason::Agreed, "Connection: close was said"),
        (CloseReason::Refused(Status::BAD_REQUEST), "refused with 400 Bad Request"),
        (CloseReason::AnswerCut, "the answer could not be finished"),
        (CloseReason::SwitchedProtocols, "it went on in another protocol"),
    ] {
        assert_eq!(reason.to_string(), words);
    }
}

#[test]
fn the_wire_view_shows_which_chapter_gives_each_line_its_meaning() {
    let house = House::planned(Plan { wire_view: true, ..Plan::default() });
    let mut client = house.client();
    client.send(post(
        "/",
        "Expect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n",
        "",
    ));
    client.answer();
    client.send("hello");
    client.all();
    drop(client);
    house.seen();
    let shown = house.shown.0.lock().expect("no panic while held").clone();
    let shown = String::from_utf8_lossy(&shown).into_owned();
    let lines: Vec<&str> = shown.lines().filter(|line| !line.contains(" Date: ")).collect();
    let want = [
        r"#1 <- ch 7 request     POST / HTTP/1.1\r\n",
        r"#1 <- ch 7 request     Host: a\r\n",
        r"#1 <- ch 7 request     Expect: 100-continue\r\n",
        r"#1 <- ch 7 request     Content-Length: 5\r\n",
        r"#1 <- ch 7 request     Connection: close\r\n",
        r"#1 <- ch 7 request     \r\n",
        r"#1 -> ch 13 exchange   HTTP/1.1 100 Continue\r\n",
        r"#1 -> ch 13 exchange   \r\n",
        r"#1 <- ch 9 body        hello",
        r"#1 -> ch 11 response   HTTP/1.1 200 OK\r\n",
        r"#1 -> ch 11 response   Content-Type: text/plain; charset=utf-8\r\n",
        r"#1 -> ch 11 response   Server: glasshouse\r\n",
        r"#1 -> ch 11 response   Content-Length: 13\r\n",
        r"#1 -> ch 11 response   Connection: close\r\n",
        r"#1 -> ch 11 response   \r\n",
        r"#1 -> ch 11 response   POST / hello\n",
    ];
    assert_eq!(lines, want);
}

#[test]
fn the_wire_view_shows_what_was_refused() {
    let house = House::planned(Plan { wire_view: true, ..Plan::default() });
    house.send("GET /\r\nHost: a\r\n\r\n");
    house.seen();
    let shown = house.shown.0.lock().expect("no panic while held").clone();
    let shown = String::from_utf8_lossy(&shown).into_owned();
    let want = "#1 <- ch 7 request     GET /\\r\\n\n\
                #1 <- ch 7 request     Host: a\\r\\n\n\
                #1 <- ch 7 request     \\r\\n\n\
                #1 -> ch 11 response   HTTP/1.1 400 Bad Request\\r\\n\n";
    assert!(shown.starts_with(want), "{shown}");
}

// Stopping.

#[test]
fn a_stop_lets_a_request_finish_and_the_idle_go() {
    let house = House::open();
    let mut idle = house.client();
    idle.send(get("/1"));
    assert!(idle.answer().is_some());
    let mut busy = house.client();
    busy.send(get("/sleep/") + &get("/2"));
    thread::sleep(ms(100));
    let began = Instant::now();
    assert!(house.pool.stop(ms(5000)), "nobody had to be cut");
    assert!(began.elapsed() < ms(3000));
    assert_eq!(idle.all(), "");
    // The one that was busy when the stop came may finish; the next says that it is the last.
    let want = ok("slept\n", "") + &ok("GET /2 \n", CLOSE);
    eq_text(&want, &busy.all());
    let refused = std::net::TcpStream::connect(house.address);
    assert_eq!(
        refused.map(|_| ()).map_err(|error| error.kind()),
        Err(ErrorKind::ConnectionRefused)
    );
}

#[test]
fn a_newcomer_takes_the_place_of_a_head_that_is_not_whole() {
    let house = House::planned(Plan { cap: 1, ..Plan::default() });
    let mut slow = house.client();
    slow.send(&get("/")[..9]);
    thread::sleep(ms(50));
    let mut other = house.client();
    other.send(get("/"));
    assert_eq!(slow.answer().map(|answer| answer.status), Some(503));
    drop(slow);
    assert_eq!(other.answer().map(|answer| answer.status), Some(200));
}

#[test]
fn a_newcomer_takes_the_place_of_one_who_only_waits() {
    let house = House::planned(Plan { cap: 2, ..Plan::default() });
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = house.client();
        client.send(get("/"));
        assert_eq!(client.answer().map(|answer| answer.status), Some(200));
        clients.push(client);
    }
    drop(clients);
    let seen = house.seen();
    assert!(seen.iter().any(|line| line.ends_with("ended ShownOut")), "{seen:?}");
}

// Exercises.

#[test]
#[ignore = "exercise 14.2"]
fn exercise_14_2_a_connection_carries_at_most_a_hundred_requests() {
    let house = House::open();
    let mut client = house.client();
    for number in 1..=100 {
        client.send(get("/"));
        let answer = client.answer().expect("an answer");
        assert_eq!(answer.says("Connection: close"), number == 100, "{number}");
    }
    assert_eq!(client.answer(), None);
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
