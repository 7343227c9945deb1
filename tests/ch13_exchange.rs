//! Chapter 13: the exchange. One request over a pair of sockets, with any handler behind it.

mod support;

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use glasshouse::http::body::{BodyError, BodyLimits};
use glasshouse::http::exchange::{DRAIN, Exchange, Handler, Link};
use glasshouse::http::headers::{FieldValue, Headers, UPGRADE};
use glasshouse::http::request::{HeadLimits, HeadParser, Parse};
use glasshouse::http::response::{Response, Status};
use glasshouse::socket::lobby::{Deadlines, Lobby, Phase};
use glasshouse::socket::wire::Wire;
use support::client::{Client, eq_text};
use support::watchdog::{Watchdog, watchdog};

/// One exchange, ready to run, and the client at the other end of its wire.
struct Stage {
    client: Client,
    exchange: Exchange,
    watchman: Watchman,
    _dog: Watchdog,
}

/// Walks through the lobby, as the pool's watchman does, until it is dropped.
struct Watchman {
    over: Arc<AtomicBool>,
}

impl Watchman {
    fn of(lobby: &Arc<Lobby>) -> Watchman {
        let over = Arc::new(AtomicBool::new(false));
        let (lobby, seen) = (Arc::clone(lobby), Arc::clone(&over));
        thread::spawn(move || {
            while !seen.load(Ordering::SeqCst) {
                lobby.end_late_waits();
                thread::sleep(Duration::from_millis(5));
            }
        });
        Watchman { over }
    }
}

impl Drop for Watchman {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The client sends `request` at once; its head is read here.
#[track_caller]
fn stage(request: &str) -> Stage {
    stage_with(request, Deadlines::default(), BodyLimits::default())
}

#[track_caller]
fn stage_with(request: &str, deadlines: Deadlines, limits: BodyLimits) -> Stage {
    let dog = watchdog(20, request.lines().next().unwrap_or_default());
    let door = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut client = Client::connect(door.local_addr().expect("an address"));
    let (stream, peer) = door.accept().expect("the client");
    let lobby = Arc::new(Lobby::new(deadlines, 8));
    let guest = lobby.enter(stream, peer);
    let stream = Arc::clone(&guest.stream);
    let mut wire = Wire::new(stream, lobby.deadlines.write).expect("an open socket");
    client.send(request);
    let mut parser = HeadParser::new(HeadLimits::default());
    let head = loop {
        wire.fill().expect("more of the head");
        if let Parse::Complete { value, used } =
            parser.advance(wire.buffered()).expect("a good head")
        {
            wire.consume(used);
            break value;
        }
    };
    let watchman = Watchman::of(&lobby);
    let link = Link { wire, guest, lobby, asked_to_leave: None };
    let exchange = Exchange::new(link, head, &limits, true);
    Stage { client, exchange, watchman, _dog: dog }
}

impl Stage {
    fn run(&mut self, handler: impl Handler) {
        self.exchange.run(&handler);
    }

    /// Ends the server's side. What the client got, without `Date`.
    fn received(mut self) -> String {
        let _ = self.exchange.link.wire.flush();
        drop(self.exchange);
        drop(self.watchman);
        self.client.all()
    }

    fn failure(&self) -> String {
        self.exchange.failure().map(|refusal| refusal.to_string()).unwrap_or_default()
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK_HI: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n\
                     Server: glasshouse\r\nContent-Length: 3\r\n\r\nhi\n";

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

fn hi(exchange: &mut Exchange) -> io::Result<()> {
    exchange.respond(Response::text(Status::OK, "hi\n"))
}

/// Reads all of the body, and answers with it.
fn echo(exchange: &mut Exchange) -> io::Result<()> {
    let mut body = String::new();
    exchange.read_to_string(&mut body)?;
    exchange.respond(Response::text(Status::OK, body))
}

#[track_caller]
fn status_of(received: &str) -> u16 {
    let code = received.get(9..12).and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("no answer: {}", received.escape_default()))
}

// What the application gives is what the client gets.

#[test]
fn the_answer_is_what_the_handler_gives() {
    let mut stage = stage(GET);
    stage.run(hi);
    assert!(!stage.exchange.has_switched_protocols());
    assert_eq!(stage.exchange.status(), Some(Status::OK));
    assert_eq!(stage.exchange.body_sent(), 3);
    assert!(stage.exchange.has_finished() && stage.exchange.leaves_link_usable());
    eq_text(OK_HI, &stage.received());
}

#[test]
fn a_body_is_read_from_the_exchange() {
    let chunked = "Transfer-Encoding: chunked\r\n";
    for request in
        [post("Content-Length: 5\r\n", "hello"), post(chunked, "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")]
    {
        let mut stage = stage(&request);
        stage.run(echo);
        assert!(stage.exchange.leaves_link_usable());
        assert!(stage.received().ends_with("\r\n\r\nhello"), "{request}");
    }
}

#[test]
fn a_piece_of_an_answer_is_on_its_way_before_the_next_is_made() {
    let mut stage = stage(GET);
    let mut other_end = Client::of(stage.client.stream.try_clone().expect("the same socket"));
    let handler = move |exchange: &mut Exchange| {
        exchange.start(Status::OK, &Headers::new(), None)?;
        exchange.write_body(b"one")?;
        let seen = other_end.up_to("one\r\n");
        assert!(seen.ends_with("\r\n\r\n3\r\none\r\n"), "{}", seen.escape_default());
        exchange.write_body(b"two")?;
        exchange.finish()
    };
    stage.run(Once::new(handler));
    eq_text("3\r\ntwo\r\n0\r\n\r\n", &stage.received());
}

/// A handler that may change what it owns: a test calls it once.
struct Once<F>(std::sync::Mutex<F>);

impl<F: FnMut(&mut Exchange) -> io::Result<()> + Send> Once<F> {
    fn new(handler: F) -> Once<F> {
        Once(std::sync::Mutex::new(handler))
    }
}

impl<F: FnMut(&mut Exchange) -> io::Result<()> + Send> Handler for Once<F> {
    fn handle(&self, exchange: &mut Exchange) -> io::Result<()> {
        (self.0.lock().expect("one call"))(exchange)
    }
}

#[test]
fn the_last_piece_is_on_its_way_before_the_handler_returns() {
    let mut stage = stage(GET);
    let mut other_end = Client::of(stage.client.stream.try_clone().expect("the same socket"));
    stage.run(Once::new(move |exchange: &mut Exchange| {
        exchange.start(Status::OK, &Headers::new(), None)?;
        exchange.finish_with(b"all")?;
        assert!(exchange.has_finished());
        assert!(other_end.up_to("0\r\n\r\n").ends_with("\r\n\r\n3\r\nall\r\n0\r\n\r\n"));
        Ok(())
    }));
    assert_eq!(stage.failure(), "");
}

#[test]
fn an_exchange_knows_how_far_it_has_come() {
    for (fields, body, expected) in [
        ("", "", [0, 0, 0]),
        ("Content-Length: 5\r\n", "hello", [5, 2, 0]),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", [usize::MAX, usize::MAX, 0]),
    ] {
        let mut stage = stage(&post(fields, body));
        stage.run(|exchange: &mut Exchange| {
            assert_eq!(exchange.has_read_body(), body.is_empty(), "{fields}");
            let before = exchange.expected_bytes();
            let _ = exchange.read(&mut [0; 3])?;
            let within = exchange.expected_bytes();
            exchange.read_to_end(&mut Vec::new())?;
            assert_eq!([before, within, exchange.expected_bytes()], expected, "{fields}");
            assert!(exchange.has_read_body() && !exchange.has_started());
            exchange.start(Status::OK, &Headers::new(), Some(3))?;
            assert!(exchange.has_started() && !exchange.has_finished());
            exchange.write_body(b"hi\n")
        });
        assert_eq!(stage.failure(), "");
        assert!(stage.exchange.has_finished() && !stage.exchange.has_lost_client());
    }
}

#[test]
fn the_answer_to_head_has_no_body() {
    let mut stage = stage("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    stage.run(hi);
    eq_text(OK_HI.trim_end_matches("hi\n"), &stage.received());
}

// What the application leaves undone.

#[test]
fn no_answer_an_error_and_a_panic_are_each_500() {
    type Bad = fn(&mut Exchange) -> io::Result<()>;
    let bad: [(Bad, &str); 3] = [
        (|_| Ok(()), "the application gave no answer"),
        (|_| Err(io::Error::other("secret")), "secret"),
        (|_| panic!("on purpose"), "the application panicked"),
    ];
    for (handler, cause) in bad {
        let mut stage = stage(GET);
        stage.run(handler);
        assert!(stage.failure().contains(cause), "{}", stage.failure());
        assert!(!stage.exchange.leaves_link_usable());
        let received = stage.received();
        assert_eq!(status_of(&received), 500);
        assert!(received.contains("\r\nConnection: close\r\n"));
        // What went wrong inside is for the log, not for the client.
        assert!(!received.contains(cause));
    }
}

#[test]
fn an_answer_that_is_cut_has_no_last_chunk() {
    let mut stage = stage(GET);
    stage.run(|exchange: &mut Exchange| {
        exchange.start(Status::OK, &Headers::new(), None)?;
        exchange.write_body(b"half")?;
        Err(io::Error::other("no more"))
    });
    assert!(!stage.exchange.has_finished() && !stage.exchange.leaves_link_usable());
    assert!(stage.received().ends_with("\r\n\r\n4\r\nhalf\r\n"));
}

#[test]
fn an_answer_left_open_is_ended() {
    let mut stage = stage(GET);
    stage.run(|exchange: &mut Exchange| {
        exchange.start(Status::OK, &Headers::new(), None)?;
        exchange.write_body(b"all")?;
        Ok(())
    });
    assert!(stage.exchange.has_finished() && stage.exchange.leaves_link_usable());
    assert!(stage.received().ends_with("3\r\nall\r\n0\r\n\r\n"));
}

#[test]
fn an_answer_shorter_than_it_said_is_not_whole() {
    let mut stage = stage(GET);
    stage.run(|exchange: &mut Exchange| {
        exchange.start(Status::OK, &Headers::new(), Some(9))?;
        exchange.write_body(b"short")?;
        Ok(())
    });
    assert!(!stage.exchange.has_finished() && !stage.exchange.leaves_link_usable());
    assert!(stage.failure().contains("4 bytes shorter"));
}

#[test]
fn an_error_after_a_whole_answer_ends_the_connection() {
    let mut stage = stage(GET);
    stage.run(|exchange: &mut Exchange| {
        hi(exchange)?;
        Err(io::Error::other("too late"))
    });
    assert!(stage.exchange.has_finished() && !stage.exchange.leaves_link_usable());
    assert!(stage.failure().contains("too late"));
    eq_text(OK_HI, &stage.received());
}

#[test]
fn a_second_answer_is_an_error_and_sends_nothing() {
    let mut stage = stage(GET);
    stage.run(|exchange: &mut Exchange| {
        hi(exchange)?;
        let second = exchange.respond(Response::text(Status::NOT_FOUND, "hi\n"));
        assert_eq!(second.map(|_| ()).map_err(|error| error.kind()), Err(ErrorKind::InvalidInput));
        Ok(())
    });
    assert_eq!(stage.exchange.status(), Some(Status::OK));
    eq_text(OK_HI, &stage.received());
}

// 100-continue.

const EXPECT: &str = "Expect: 100-continue\r\nContent-Length: 5\r\n";

#[test]
fn a_100_is_sent_when_the_body_is_asked_for_and_once() {
    let mut stage = stage(&post(EXPECT, ""));
    let mut other_end = Client::of(stage.client.stream.try_clone().expect("the same socket"));
    let client = thread::spawn(move || {
        let first = other_end.answer();
        for piece in ["h", "el", "lo"] {
            other_end.send(piece);
            thread::sleep(ms(5));
        }
        first
    });
    stage.run(echo);
    let first = client.join().expect("the client").expect("an answer");
    assert_eq!((first.status, first.head.as_str()), (100, "HTTP/1.1 100 Continue\r\n\r\n"));
    let received = stage.received();
    assert_eq!(status_of(&received), 200);
    assert!(received.ends_with("\r\n\r\nhello"));
}

#[test]
fn a_body_that_nobody_asks_for_gets_no_100_and_ends_the_connection() {
    let mut stage = stage(&post(EXPECT, ""));
    stage.run(hi);
    assert!(!stage.exchange.leaves_link_usable());
    let received = stage.received();
    assert_eq!(status_of(&received), 200);
    assert!(received.contains("\r\nConnection: close\r\n"));
}

#[test]
fn where_nothing_is_to_be_read_no_100_is_needed() {
    let mut stage = stage(&post("Expect: 100-continue\r\nContent-Length: 0\r\n", ""));
    stage.run(echo);
    assert_eq!(status_of(&stage.received()), 200);
    let mut stage = self::stage(&post(EXPECT, ""));
    stage.run(|exchange: &mut Exchange| {
        assert_eq!(exchange.read(&mut [])?, 0);
        hi(exchange)
    });
    assert_eq!(status_of(&stage.received()), 200);
}

#[test]
fn a_client_that_sends_already_gets_no_100() {
    // The rest comes later, and still no word is needed.
    let mut stage = stage(&post(EXPECT, "he"));
    let mut other_end = Client::of(stage.client.stream.try_clone().expect("the same socket"));
    let client = thread::spawn(move || {
        thread::sleep(ms(30));
        other_end.send("llo");
    });
    stage.run(echo);
    client.join().expect("the client");
    assert!(stage.exchange.leaves_link_usable());
    let received = stage.received();
    assert_eq!(status_of(&received), 200);
    assert!(received.ends_with("\r\n\r\nhello"));
}

#[test]
fn a_100_never_goes_to_http_1_0() {
    let request = format!("POST / HTTP/1.0\r\n{EXPECT}\r\n");
    let mut stage = stage(&request);
    let mut other_end = Client::of(stage.client.stream.try_clone().expect("the same socket"));
    let client = thread::spawn(move || {
        let early = other_end.within(ms(50));
        other_end.send("hello");
        early
    });
    stage.run(echo);
    assert_eq!(client.join().expect("the client"), "");
    assert_eq!(status_of(&stage.received()), 200);
}

#[test]
fn a_100_never_follows_the_answer() {
    let mut stage = stage(&post(EXPECT, ""));
    let mut other_end = Client::of(stage.client.stream.try_clone().expect("the same socket"));
    let client = thread::spawn(move || {
        thread::sleep(ms(30));
        other_end.send("hello");
    });
    stage.run(|exchange: &mut Exchange| {
        exchange.start(Status::OK, &Headers::new(), Some(5))?;
        let mut body = Vec::new();
        exchange.read_to_end(&mut body)?;
        exchange.write_body(&body)?;
        exchange.finish()
    });
    client.join().expect("the client");
    let received = stage.received();
    assert_eq!(status_of(&received), 200);
    assert!(!received.contains("100 Continue"));
}

#[test]
fn an_unknown_expectation_is_417_and_in_http_1_0_it_is_nothing() {
    let fields = "Expect: tea, 100-continue\r\nContent-Length: 5\r\n";
    let mut stage = stage(&post(fields, "hello"));
    stage.run(hi);
    let received = stage.received();
    assert_eq!(status_of(&received), 417);
    assert!(received.contains("RFC 9110, section 10.1.1"));

    let mut old = self::stage(&format!("POST / HTTP/1.0\r\n{fields}\r\nhello"));
    old.run(echo);
    assert_eq!(status_of(&old.received()), 200);
}

// Bodies that break a rule.

#[test]
fn a_broken_body_gets_the_status_of_its_rule() {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let limits = BodyLimits { body: 8, ..BodyLimits::default() };
    for (request, error) in [
        (post(chunked, "zz\r\n"), BodyError::InvalidChunkSize),
        (post(chunked, "9\r\nmuch"), BodyError::TooLarge),
    ] {
        let mut stage = stage_with(&request, Deadlines::default(), limits.clone());
        stage.run(echo);
        assert!(stage.failure().contains(&error.to_string()));
        let received = stage.received();
        let status = if error == BodyError::TooLarge { 413 } else { 400 };
        assert_eq!(status_of(&received), status, "{request}");
        assert!(received.contains(error.rule()));
    }
}

#[test]
fn an_impossible_body_is_refused_before_any_handler_is_called() {
    let both = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n";
    for (fields, status) in [
        (both, 400),
        ("Content-Length: 99999999999\r\n", 413),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
    ] {
        let mut stage = stage(&post(fields, ""));
        assert!(stage.exchange.failure().is_some());
        let called = AtomicBool::new(false);
        stage.run(|exchange: &mut Exchange| {
            called.store(true, Ordering::SeqCst);
            hi(exchange)
        });
        assert!(!called.into_inner(), "{fields}");
        assert!(!stage.exchange.leaves_link_usable());
        assert_eq!(status_of(&stage.received()), status);
    }
}

/// Bytes that were sent are here in a moment.
#[track_caller]
fn soon_here(exchange: &mut Exchange) {
    soon(|| exchange.has_body_here());
}

#[track_caller]
fn soon(mut is_so: impl FnMut() -> bool) {
    let limit = Instant::now() + ms(5000);
    while !is_so() {
        assert!(Instant::now() < limit, "still nothing");
        thread::sleep(ms(1));
    }
}

#[test]
fn a_body_is_here_if_the_next_read_need_not_wait() {
    let Stage { mut client, mut exchange, watchman: _watchman, _dog } =
        stage("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n");
    assert!(!exchange.has_body_here());
    for part in ["abc", "def"] {
        client.send(part);
        soon_here(&mut exchange);
        // In the socket, and then in the buffer.
        for byte in part.bytes() {
            assert!(exchange.has_body_here());
            let mut out = [0];
            assert_eq!(exchange.read(&mut out).expect("a byte"), 1);
            assert_eq!(out, [byte]);
        }
        assert!(!exchange.has_body_here());
    }
    // The next request is no body.
    client.send("GET");
    thread::sleep(ms(20));
    assert!(!exchange.has_body_here());
}

#[test]
fn of_a_chunked_body_or_one_that_was_cut_nothing_is_here() {
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc";
    let mut waiting = stage(chunked);
    assert!(!waiting.exchange.has_body_here());
    let mut cut = stage("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n");
    drop(cut.client);
    thread::sleep(ms(20));
    assert!(!cut.exchange.has_body_here());
    let error = cut.exchange.read(&mut [0; 9]).expect_err("it was cut");
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn a_body_cut_short_is_an_error_and_never_an_end() {
    let mut stage = stage(&post("Content-Length: 9\r\n", "hel"));
    stage.client.finish();
    let mut seen = Vec::new();
    stage.run(Once::new(|exchange: &mut Exchange| {
        let mut body = Vec::new();
        for _ in 0..2 {
            let result = exchange.read_to_end(&mut body);
            seen.push(result.map_err(|error| error.kind()));
        }
        assert_eq!(body, b"hel");
        // A handler that looks away gives no answer of its own either.
        Ok(())
    }));
    assert_eq!(seen, [Err(ErrorKind::UnexpectedEof); 2]);
    let received = stage.received();
    assert_eq!(status_of(&received), 400);
    assert!(received.contains("The connection ended inside the body."));
}

#[test]
fn a_body_error_in_the_middle_of_an_answer_cuts_it() {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let mut stage = stage(&post(chunked, "2\r\nhe\r\nzz\r\n"));
    stage.run(|exchange: &mut Exchange| {
        exchange.start(Status::OK, &Headers::new(), None)?;
        let mut piece = [0; 9];
        loop {
            match exchange.read(&mut piece)? {
                0 => return exchange.finish(),
                count => exchange.write_body(&piece[..count])?,
            }
        }
    });
    assert!(stage.received().ends_with("\r\n\r\n2\r\nhe\r\n"));
}

#[test]
fn a_client_that_breaks_off_is_lost_and_no_failure() {
    let Stage { mut client, mut exchange, watchman: _watchman, _dog } = stage(&post(EXPECT, ""));
    let leaves = thread::spawn(move || {
        // It goes without reading the 100: its kernel resets the connection.
        client.stream.peek(&mut [0]).expect("the 100");
        client.send("he");
    });
    exchange.run(&echo);
    leaves.join().expect("the client");
    assert!(exchange.has_lost_client() && !exchange.leaves_link_usable());
    assert!(exchange.failure().is_none());
}

// Clients that wait.

/// Waits as one does whose answer may take long. Whether the client has hung up, and what it has
/// sent meanwhile.
fn stay(exchange: &mut Exchange) -> (bool, usize) {
    exchange.wait_for_hang_up();
    (exchange.has_hung_up(), exchange.link.wire.buffered().len())
}

#[test]
fn a_client_that_hangs_up_is_noticed_and_its_next_request_kept() {
    let Stage { mut client, mut exchange, watchman: _watchman, _dog } = stage(GET);
    assert!(!exchange.has_hung_up());
    client.send(GET);
    soon(|| exchange.link.wire.glance(Duration::ZERO).is_ok_and(|count| count == Some(1)));
    assert!(!exchange.has_hung_up());
    client.finish();
    assert_eq!(stay(&mut exchange), (true, GET.len()));
    assert!(!exchange.has_lost_client(), "it may still read");
}

#[test]
fn nobody_has_hung_up_whose_body_is_here() {
    for (fields, body) in [
        ("Content-Length: 5\r\n", "hello"),
        ("Transfer-Encoding: chunked\r\n", "1\r\nx\r\n0\r\n\r\n"),
    ] {
        let mut stage = stage(&post(fields, body));
        stage.client.finish();
        thread::sleep(ms(20));
        assert!(!stage.exchange.has_hung_up(), "{body:?}");
        let mut read = Vec::new();
        stage.exchange.read_to_end(&mut read).expect("a body");
        assert!(stage.exchange.has_hung_up(), "{body:?}");
    }
}

#[test]
fn a_wait_for_the_body_ends_with_its_time_or_with_a_byte_and_counts() {
    let deadlines = Deadlines { body: ms(150), ..Deadlines::default() };
    let mut stage =
        stage_with(&post("Content-Length: 5\r\n", ""), deadlines, BodyLimits::default());
    stage.client.send("h");
    let waited =
        |stage: &mut Stage, limit| stage.exchange.wait_for_body(ms(limit)).expect("a socket");
    assert!(waited(&mut stage, 5000), "it has sent a byte");
    assert_eq!(stage.exchange.read(&mut [0; 9]).expect("the byte"), 1);
    assert!(!waited(&mut stage, 20), "it is silent");
    let began = Instant::now();
    while !waited(&mut stage, 20) {
        assert!(began.elapsed() < ms(5000), "the time of a body has passed");
    }
    let error = stage.exchange.read(&mut [0; 9]).expect_err("too slow");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[test]
fn a_client_that_sends_too_much_is_not_waited_for() {
    let Stage { mut client, mut exchange, watchman: _watchman, _dog } = stage(GET);
    let sender = thread::spawn(move || {
        client.send(vec![b'x'; DRAIN as usize]);
        client
    });
    let (hung_up, kept) = stay(&mut exchange);
    assert_eq!((hung_up, kept as u64), (false, DRAIN));
    drop(sender.join().expect("the client"));
}

#[test]
fn a_stop_ends_the_wait_and_what_is_read_after_it() {
    let mut stage = stage(&post("Content-Length: 5\r\n", ""));
    let lobby = Arc::clone(&stage.exchange.link.lobby);
    let stop = thread::spawn(move || {
        thread::sleep(ms(50));
        lobby.close_idle();
    });
    stage.run(|exchange: &mut Exchange| {
        exchange.wait_for_hang_up();
        echo(exchange)
    });
    stop.join().expect("the one who stops");
    assert_eq!(status_of(&stage.received()), 503);
}

// Slow bodies.

fn hurried() -> Deadlines {
    Deadlines { body: ms(150), ..Deadlines::default() }
}

/// Runs `echo`. The status, and how long it took.
fn echo_slowly(
    request: &str,
    deadlines: Deadlines,
    rest: impl Fn(&mut Client) + Send + Sync,
) -> (u16, Duration) {
    let mut stage = stage_with(request, deadlines, BodyLimits::default());
    let mut other_end = Client::of(stage.client.stream.try_clone().expect("the same socket"));
    let began = Instant::now();
    let took = thread::scope(|scope| {
        scope.spawn(|| rest(&mut other_end));
        stage.run(echo);
        began.elapsed()
    });
    (status_of(&stage.received()), took)
}

#[test]
fn a_body_that_stops_coming_is_408() {
    let (status, took) = echo_slowly(&post("Content-Length: 9\r\n", "hel"), hurried(), |_| {});
    assert_eq!(status, 408);
    assert!(took >= ms(140), "after {took:?}");
    let request = post("Content-Length: 9\r\n", "hel");
    let mut stage = stage_with(&request, hurried(), BodyLimits::default());
    let error = stage.exchange.read_to_end(&mut Vec::new()).expect_err("too slow");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[test]
fn half_a_chunk_line_is_not_waited_for_without_end() {
    for start in ["5", "5\r", "5\r\nhello\r", "5;x=", "0\r\nA: b"] {
        let request = post("Transfer-Encoding: chunked\r\n", start);
        let (status, _) = echo_slowly(&request, hurried(), |_| {});
        assert_eq!(status, 408, "{}", start.escape_default());
    }
}

#[test]
fn a_byte_now_and_then_is_no_progress() {
    // Each gap is short enough, and the rate of 40 bytes a second is not.
    let (status, took) = echo_slowly(&post("Content-Length: 99\r\n", ""), hurried(), |client| {
        for _ in 0..40 {
            client.send("x");
            thread::sleep(ms(25));
        }
    });
    assert_eq!(status, 408);
    assert!(took < ms(900), "after {took:?}");
}

#[test]
fn a_steady_body_may_take_longer_than_the_longest_gap() {
    let deadlines = Deadlines { body: ms(500), body_rate: 100, ..Deadlines::default() };
    let (status, took) = echo_slowly(&post("Content-Length: 100\r\n", ""), deadlines, |client| {
        for _ in 0..10 {
            thread::sleep(ms(60));
            client.send("0123456789");
        }
    });
    assert_eq!(status, 200);
    assert!(took > ms(550), "after {took:?}");
}

#[test]
fn a_body_may_have_no_rate_at_all() {
    let deadlines = Deadlines { body_rate: 0, ..Deadlines::default() };
    let (status, _) = echo_slowly(&post("Content-Length: 5\r\n", "hello"), deadlines, |_| {});
    assert_eq!(status, 200);
}

#[test]
fn the_time_of_the_application_is_not_charged_to_the_client() {
    let deadlines = Deadlines { body: ms(400), ..Deadlines::default() };
    let mut stage =
        stage_with(&post("Content-Length: 4\r\n", "ab"), deadlines, BodyLimits::default());
    let mut other_end = Client::of(stage.client.stream.try_clone().expect("the same socket"));
    stage.run(Once::new(|exchange: &mut Exchange| {
        let mut two = [0; 2];
        exchange.read_exact(&mut two)?;
        thread::sleep(ms(600));
        let late = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(ms(60));
                other_end.send("cd");
            });
            exchange.read_exact(&mut two)
        });
        late?;
        hi(exchange)
    }));
    assert_eq!(stage.failure(), "");
    assert_eq!(status_of(&stage.received()), 200);
}

// Afterwards.

#[test]
fn a_small_body_that_nobody_read_is_no_part_of_the_next_request() {
    let mut stage = stage(&post("Content-Length: 5\r\n", "helloGET /next"));
    stage.run(hi);
    assert!(stage.exchange.leaves_link_usable());
    assert_eq!(stage.exchange.link.wire.buffered(), b"GET /next");
}

#[test]
fn a_large_body_that_nobody_read_ends_the_connection_and_says_so() {
    for (length, ends) in [(DRAIN, false), (DRAIN + 1, true)] {
        let mut stage = stage(&post(&format!("Content-Length: {length}\r\n"), "start"));
        let mut other_end = Client::of(stage.client.stream.try_clone().expect("the same socket"));
        let rest = vec![b'x'; length as usize - "start".len()];
        let sender = thread::spawn(move || other_end.send(rest));
        stage.run(hi);
        assert_eq!(!stage.exchange.leaves_link_usable(), ends, "{length}");
        assert_eq!(stage.received().contains("\r\nConnection: close\r\n"), ends, "{length}");
        sender.join().expect("the client");
    }
}

#[test]
fn a_chunked_body_that_nobody_read_is_drained_only_so_far() {
    let mut stage = stage(&post("Transfer-Encoding: chunked\r\n", ""));
    let mut other_end = Client::of(stage.client.stream.try_clone().expect("the same socket"));
    thread::scope(|scope| {
        scope.spawn(move || {
            let chunk = format!("2000\r\n{}\r\n", "x".repeat(0x2000));
            for _ in 0..10 {
                other_end.send(&chunk);
            }
            other_end.send("0\r\n\r\n");
        });
        stage.run(hi);
        assert!(!stage.exchange.leaves_link_usable());
        drop(stage);
    });
}

#[test]
fn a_broken_body_that_nobody_read_ends_the_connection() {
    for (fields, body) in
        [("Transfer-Encoding: chunked\r\n", "zz\r\nGET /next"), ("Content-Length: 9\r\n", "hel")]
    {
        let mut stage = stage(&post(fields, body));
        stage.client.finish();
        stage.run(hi);
        assert!(!stage.exchange.leaves_link_usable(), "{fields}");
    }
}

#[test]
fn lingering_reads_on_for_a_moment_so_that_the_answer_arrives() {
    let deadlines = Deadlines { linger: ms(10_000), ..Deadlines::default() };
    let mut stage =
        stage_with(&post("Content-Length: 5000000\r\n", ""), deadlines, BodyLimits::default());
    stage.run(|_: &mut Exchange| panic!("on purpose"));
    let mut other_end = Client::of(stage.client.stream.try_clone().expect("the same socket"));
    let client = thread::spawn(move || {
        for _ in 0..500 {
            assert!(other_end.send([b'x'; 10_000]), "the server still reads");
        }
        let received = other_end.all();
        let _ = other_end.stream.shutdown(std::net::Shutdown::Both);
        received
    });
    let began = Instant::now();
    stage.exchange.link.linger().expect("no reset");
    assert!(began.elapsed() < ms(5000));
    assert_eq!(status_of(&client.join().expect("the client")), 500);
}

#[test]
fn lingering_hears_out_a_client_that_sends_slowly() {
    let deadlines = Deadlines { linger: ms(400), ..Deadlines::default() };
    let mut stage =
        stage_with(&post("Content-Length: 5000000\r\n", ""), deadlines, BodyLimits::default());
    stage.run(|_: &mut Exchange| panic!("on purpose"));
    let mut other_end = Client::of(stage.client.stream.try_clone().expect("the same socket"));
    let client = thread::spawn(move || {
        for _ in 0..20 {
            thread::sleep(ms(50));
            assert!(other_end.send([b'x'; 100]), "the server still reads");
        }
        status_of(&other_end.all())
    });
    let began = Instant::now();
    stage.exchange.link.linger().expect("no reset");
    let took = began.elapsed();
    assert!(took >= ms(1300) && took < ms(8000), "after {took:?}");
    assert_eq!(client.join().expect("the client"), 500);
}

#[test]
fn lingering_ends_with_a_client_that_does_nothing() {
    let deadlines = Deadlines { linger: ms(100), ..Deadlines::default() };
    let mut stage = stage_with(GET, deadlines, BodyLimits::default());
    stage.run(hi);
    let began = Instant::now();
    stage.exchange.link.linger().expect("an open socket");
    let took = began.elapsed();
    assert!(took >= ms(90) && took < ms(5000), "after {took:?}");
    assert_eq!(stage.exchange.link.asked_to_leave, Some(Phase::Late));
}

#[test]
fn lingering_ends_with_a_client_that_never_stops_sending() {
    let deadlines = Deadlines { body: ms(100), ..Deadlines::default() };
    let mut stage = stage_with(GET, deadlines, BodyLimits::default());
    stage.run(hi);
    let mut other_end = Client::of(stage.client.stream.try_clone().expect("the same socket"));
    let client = thread::spawn(move || while other_end.send([b'x'; 10_000]) {});
    // He can only end a wait, and here nobody waits.
    stage.watchman.over.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let _ = stage.exchange.link.linger();
    let took = began.elapsed();
    assert!(took >= ms(90) && took < ms(5000), "after {took:?}");
    drop(stage);
    client.join().expect("the client meets a closed socket");
}

// Another protocol.

fn upgrade() -> Headers {
    let mut headers = Headers::new();
    headers.push(UPGRADE, FieldValue::constant("shout"));
    headers
}

/// Sends back what it gets, in capitals, until the end.
fn shout(link: &mut Link) {
    let mut block = [0; 64];
    while let Ok(count @ 1..) = link.wire.read(&mut block) {
        let _ = link.wire.write_all(&block[..count].to_ascii_uppercase());
        let _ = link.wire.flush();
    }
}

const SHOUT: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\n";

#[test]
fn another_protocol_gets_the_bytes_that_came_with_the_request() {
    let mut stage = stage(&format!("{SHOUT}hello "));
    let mut other_end = Client::of(stage.client.stream.try_clone().expect("the same socket"));
    other_end.send("world");
    other_end.finish();
    stage.run(|exchange: &mut Exchange| {
        shout(exchange.switch_protocols(&upgrade())?);
        Ok(())
    });
    assert!(stage.exchange.has_switched_protocols());
    assert_eq!(stage.exchange.status(), Some(Status::SWITCHING_PROTOCOLS));
    let want = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: shout\r\nServer: glasshouse\r\n\
                Connection: Upgrade\r\n\r\nHELLO WORLD";
    eq_text(want, &stage.received());
}

#[test]
fn the_answer_101_does_not_wait_for_the_other_protocol() {
    let mut stage = stage(SHOUT);
    let mut other_end = Client::of(stage.client.stream.try_clone().expect("the same socket"));
    stage.run(Once::new(move |exchange: &mut Exchange| {
        exchange.switch_protocols(&upgrade())?;
        assert_eq!(other_end.answer().map(|answer| answer.status), Some(101));
        Ok(())
    }));
    assert_eq!(stage.failure(), "");
}

#[test]
fn a_switch_that_cannot_work_sends_nothing() {
    let old = "GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\n";
    let with_body = post("Upgrade: shout\r\nContent-Length: 5\r\n", "hello");
    let other = Headers::new();
    for (request, headers) in [(SHOUT, &other), (old, &upgrade()), (with_body.as_str(), &upgrade())]
    {
        let mut stage = stage(request);
        let headers = headers.clone();
        stage.run(move |exchange: &mut Exchange| {
            exchange.switch_protocols(&headers).map(|_| panic!("never switched"))
        });
        assert_eq!(status_of(&stage.received()), 500, "{}", request.escape_default());
    }
}

// Exercises.

#[test]
#[ignore = "exercise 13.2"]
fn exercise_13_2_a_get_with_a_body_is_refused() {
    let mut stage = stage("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    stage.run(hi);
    assert_eq!(status_of(&stage.received()), 400);
}

#[test]
#[ignore = "exercise 13.4"]
fn exercise_13_4_every_answer_says_how_long_it_took() {
    let mut stage = stage(GET);
    stage.run(hi);
    let received = stage.received();
    let line = received.split("\r\n").find_map(|line| line.strip_prefix("Server-Timing: app;dur="));
    assert!(line.is_some_and(|value| value.parse::<f64>().is_ok()));
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
