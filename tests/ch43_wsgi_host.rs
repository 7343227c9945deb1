//! Chapter 43: hosting WSGI. The applications are `tests/python/probe.py`, which has a path for
//! each question, and `validated.py`. Without `python3` the tests say so, and pass.
#![cfg(unix)]

mod support;

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use glasshouse::gateway::wsgi::{Application, Chunks, Environ, StartResponse, Wsgi};
use glasshouse::http::server::{Running, Server, Settings};
use glasshouse::python::worker::{Pool, PythonSpec, SIGNALS, StartError, serve_until};
use glasshouse::python::wsgi_host::PythonWsgi;
use glasshouse::socket::system::Shutdown;
use support::client::{Answer, Client};
use support::has_python;
use support::process::Process;
use support::watchdog::watchdog;

const LIMIT: Duration = Duration::from_secs(20);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A server for an application, and its workers.
struct House {
    address: SocketAddr,
    pool: Arc<Pool>,
    _running: Running,
}

fn spec(application: &str) -> PythonSpec {
    let application = format!("tests.python.{application}");
    PythonSpec { python: PathBuf::from("python3"), ..PythonWsgi::spec(&application) }
}

impl House {
    #[track_caller]
    fn open(spec: PythonSpec) -> House {
        let pool = Pool::start(spec).unwrap_or_else(|error| panic!("{error}"));
        let pool = Arc::new(pool);
        let server = Server::bind(Settings { port: 0, ..Settings::default() }).expect("a port");
        let address = server.address();
        let gateway = Wsgi::new(Arc::new(PythonWsgi::new(Arc::clone(&pool))), address);
        House { address, pool, _running: server.start(Arc::new(gateway)) }
    }

    fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// The answer to a GET on a connection of its own.
    #[track_caller]
    fn get(&self, target: &str) -> Answer {
        self.ask("GET", target)
    }

    #[track_caller]
    fn ask(&self, method: &str, target: &str) -> Answer {
        let mut client = self.client();
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        client.answer_to(method).expect("an answer")
    }

    /// All bytes of an answer, also if it is cut.
    #[track_caller]
    fn raw(&self, target: &str) -> String {
        let mut client = self.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        client.all()
    }

    #[track_caller]
    fn pid(&self) -> String {
        self.get("/pid").text()
    }
}

/// The house that most tests share, with one worker.
fn house() -> Option<&'static House> {
    static HOUSE: OnceLock<House> = OnceLock::new();
    has_python().then(|| HOUSE.get_or_init(|| House::open(spec("probe:application"))))
}

fn lives(pid: &str) -> bool {
    let sent = Command::new("sh").args(["-c", &format!("kill -0 {pid} 2>/dev/null")]).status();
    sent.is_ok_and(|status| status.success())
}

#[track_caller]
fn soon(what: &str, done: impl Fn() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < limit, "still not: {what}");
        thread::sleep(ms(5));
    }
}

// What the application is told.

#[test]
fn both_sides_of_the_contract_pass_pythons_own_examiner() {
    if !has_python() {
        return;
    }
    let house = House::open(spec("validated"));
    for query in ["", "?lazy"] {
        let mut client = house.client();
        let body = "Content-Length: 4\r\n\r\nbody";
        client.send(format!("POST /a/b{query} HTTP/1.1\r\nHost: x\r\nX-A: b\r\n{body}"));
        let answer = client.answer().expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "valid body"));
    }
    assert_eq!(house.get("/").text(), "valid ");
}

#[test]
fn the_environ_says_what_was_asked() {
    let Some(house) = house() else { return };
    let mut client = house.client();
    let head = "Host: example.org\r\nX-Dup: a\r\nX-Dup: b\r\nX_Under: spoofed\r\n\
        Content-Type: text/x\r\nContent-Length: 2\r\nCookie: a=1\r\nCookie: b=2\r\n\r\nhi";
    client.send(format!("POST /environ/%2F?a=%20b HTTP/1.1\r\n{head}"));
    let text = client.answer().expect("an answer").text();
    let port = house.address.port();
    for line in [
        "REQUEST_METHOD='POST'",
        "SCRIPT_NAME=''",
        "PATH_INFO='/environ//'",
        "QUERY_STRING='a=%20b'",
        "CONTENT_TYPE='text/x'",
        "CONTENT_LENGTH='2'",
        "SERVER_PROTOCOL='HTTP/1.1'",
        "SERVER_NAME='127.0.0.1'",
        &format!("SERVER_PORT='{port}'"),
        "REMOTE_ADDR='127.0.0.1'",
        "HTTP_HOST='example.org'",
        "HTTP_X_DUP='a, b'",
        "HTTP_COOKIE='a=1; b=2'",
        "wsgi.version=(1, 0)",
        "wsgi.url_scheme='http'",
        "wsgi.multithread=False",
        "wsgi.multiprocess=True",
        "wsgi.run_once=False",
        "wsgi.input_terminated=True",
    ] {
        assert!(text.lines().any(|own| own == line), "no {line} in\n{text}");
    }
    assert!(!text.contains("spoofed") && !text.contains("HTTP_CONTENT"), "{text}");
}

#[test]
fn a_path_is_bytes_in_a_native_string_and_so_is_a_field() {
    let Some(house) = house() else { return };
    let answer = house.get("/caf%C3%A9");
    assert_eq!(answer.text(), "/café");
    let mut client = house.client();
    client.send("GET /caf%C3%A9 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut bytes = Vec::new();
    client.stream.read_to_end(&mut bytes).expect("an answer");
    let field = b"X-Path: /caf\xC3\xA9\r\n";
    assert!(bytes.windows(field.len()).any(|part| part == field));
}

#[test]
fn a_nul_in_the_path_never_becomes_a_variable_of_its_own() {
    let Some(house) = house() else { return };
    let answer = house.get("/environ/%00REMOTE_USER%00admin");
    assert_eq!(answer.status, 400);
    assert_eq!(house.get("/pid").status, 200);
}

/// Middleware, which knows who the visitor is.
struct Doorkeeper(PythonWsgi);

impl Application for Doorkeeper {
    fn call<'a>(&self, mut environ: Environ<'a>, start_response: StartResponse<'a>) -> Chunks<'a> {
        environ.set("REMOTE_USER", "ada");
        environ.set("SCRIPT_NAME", "/shop");
        environ.set("wsgi.url_scheme", "https");
        self.0.call(environ, start_response)
    }
}

#[test]
fn what_our_own_middleware_sets_arrives_too() {
    let Some(house) = house() else { return };
    let server = Server::bind(Settings { port: 0, ..Settings::default() }).expect("a port");
    let address = server.address();
    let keeper = Doorkeeper(PythonWsgi::new(Arc::clone(&house.pool)));
    let running = server.start(Arc::new(Wsgi::new(Arc::new(keeper), address)));
    let mut client = Client::connect(address);
    client.send("GET /environ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let text = client.answer().expect("an answer").text();
    for line in ["REMOTE_USER='ada'", "SCRIPT_NAME='/shop'", "wsgi.url_scheme='https'"] {
        assert!(text.lines().any(|own| own == line), "no {line} in\n{text}");
    }
    running.stop();
}

// The body of the request.

/// 5 MB that do not repeat in blocks.
fn upload() -> Vec<u8> {
    (0..5_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn sha256(bytes: &[u8]) -> String {
    let script = "import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())";
    let mut command = Command::new("python3");
    command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("python3");
    child.stdin.take().expect("a pipe").write_all(bytes).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8(output.stdout).expect("digits").trim().to_string()
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(size) {
        out.extend(format!("{:x}\r\n", chunk.len()).bytes());
        out.extend_from_slice(chunk);
        out.extend(b"\r\n");
    }
    out.extend(b"0\r\n\r\n");
    out
}

#[test]
fn a_body_arrives_whole_with_a_length_and_in_chunks() {
    let Some(house) = house() else { return };
    let _dog = watchdog(30, "uploads");
    let body = upload();
    for size in [0, 1, 131_072, 131_073, 300_000, body.len()] {
        let body = &body[..size];
        let sum = sha256(body);
        let mut client = house.client();
        client.send(format!("POST /hash HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"));
        client.send(body);
        let text = client.answer().expect("an answer").text();
        assert_eq!(text, format!("{size} {sum} {size} b''"));
        client.send("POST /hash HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(chunked(body, 70_001));
        let text = client.answer().expect("an answer").text();
        assert_eq!(text, format!("{size} {sum} None b''"));
    }
}

#[test]
fn lines_can_be_read_from_a_collected_body_and_from_a_pulled_one() {
    let Some(house) = house() else { return };
    for expect in ["", "Expect: 100-continue\r\n"] {
        let mut client = house.client();
        let head = format!("Host: x\r\n{expect}Content-Length: 9");
        client.send(format!("POST /lines HTTP/1.1\r\n{head}\r\n\r\n"));
        if !expect.is_empty() {
            assert_eq!(client.answer().expect("a word").status, 100);
        }
        client.send("one\ntwo\nx");
        let text = client.answer().expect("an answer").text();
        assert_eq!(text, r"[b'one\n', b'two\n', b'x']");
    }
}

#[test]
fn a_client_that_waits_hears_continue_only_when_the_application_reads() {
    let Some(house) = house() else { return };
    let head = "Host: x\r\nExpect: 100-continue\r\nContent-Length: 200000\r\n\r\n";
    let mut client = house.client();
    client.send(format!("POST /refuses HTTP/1.1\r\n{head}"));
    assert_eq!(client.answer().expect("an answer").status, 403);
    let mut client = house.client();
    client.send(format!("POST /hash HTTP/1.1\r\n{head}"));
    assert_eq!(client.answer().expect("a word").status, 100);
    client.send(vec![b'u'; 200_000]);
    assert!(client.answer().expect("an answer").text().starts_with("200000 "));
}

#[test]
fn a_client_that_sends_its_body_slowly_does_not_hold_the_worker() {
    let Some(house) = house() else { return };
    let mut slow = house.client();
    slow.send("POST /hash HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nthr");
    for _ in 0..5 {
        assert_eq!(house.get("/empty").status, 200);
    }
    slow.send("ee!");
    assert!(slow.answer().expect("an answer").text().starts_with("6 "));
}

#[test]
fn a_body_that_nobody_reads_does_not_stop_the_answer() {
    let Some(house) = house() else { return };
    let _dog = watchdog(20, "an unread body");
    let mut client = house.client();
    client.send("POST /ignore HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n");
    let mut writer = client.stream.try_clone().expect("a descriptor");
    let writing = thread::spawn(move || writer.write_all(&upload()).is_ok());
    let answer = client.answer().expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (200, 3_000_000));
    assert!(answer.says("Connection: close"));
    let _ = writing.join();
}

#[test]
fn an_application_may_answer_while_it_reads() {
    let Some(house) = house() else { return };
    let _dog = watchdog(20, "an echo");
    let body = upload();
    let mut client = house.client();
    client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n");
    let mut writer = client.stream.try_clone().expect("a descriptor");
    let sent = body.clone();
    let writing = thread::spawn(move || writer.write_all(&sent).is_ok());
    assert!(client.answer().expect("an answer").body == body);
    assert!(writing.join().expect("no panic"));
}

#[test]
fn a_read_without_a_size_gives_the_whole_body_in_large_pieces() {
    let Some(house) = house() else { return };
    let _dog = watchdog(20, "a whole body");
    let body = upload();
    let mut client = house.client();
    client.send("POST /whole HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n");
    client.send(&body);
    let text = client.answer().expect("an answer").text();
    let (sum, asked) = text.split_once(' ').expect("two words");
    assert_eq!(sum, sha256(&body));
    // It would be 611 times if Python did it in its own way.
    assert!(asked.parse::<usize>().expect("a number") < 300, "{asked}");
}

#[test]
fn a_piece_that_was_sent_ahead_is_neither_lost_nor_taken_for_a_request() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(30, "pieces ahead");
    let house = House::open(spec("probe:application"));
    let body = upload();
    let mut client = house.client();
    client.send("POST /sips HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n");
    client.send(&body);
    assert_eq!(client.answer().expect("an answer").text(), sha256(&body));
    // Wherever it is cut, each piece of this one is an environ.
    let body = "REQUEST_METHOD\0REQUEST_METHOD\0PATH_INFO\0PATH_INFO\0".repeat(20_000);
    for _ in 0..5 {
        let mut client = house.client();
        client.send("POST /tastes HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
        client.send(&body[..1_000_000]);
        assert_eq!(client.answer().expect("an answer").text(), "REQ");
        // The worker is not done with that one yet.
        assert_eq!(house.get("/empty").status, 200);
    }
    assert_eq!(house.get("/calls").text(), "12");
}

/// The server reads ahead, but only what is here. And the worker's silence is the client's.
#[test]
fn a_client_that_falls_silent_hears_what_is_answered_so_far() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(20, "a silent client");
    let house = House::open(PythonSpec { timeout: ms(700), ..spec("probe:application") });
    let mut client = house.client();
    client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 400000\r\n\r\n");
    for half in 1..=2 {
        client.send(vec![b'u'; 200_000]);
        let (mut seen, mut room) = (0, vec![0; 65536]);
        // Of the first half, three reads of 64 KB have all that they want.
        while seen < if half == 1 { 3 * 65536 } else { 400_000 - 3 * 65536 } {
            let count = client.stream.read(&mut room).expect("the answer so far");
            assert!(count > 0, "the answer ends after {seen} bytes of half {half}");
            seen += room[..count].iter().filter(|byte| **byte == b'u').count();
        }
        // Longer than a worker may be silent without a reason.
        thread::sleep(ms(1500));
    }
}

#[test]
fn a_body_that_ends_too_early_is_refused_after_pieces_that_were_here() {
    let Some(house) = house() else { return };
    let mut client = house.client();
    client.send("POST /hash HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n");
    client.send(vec![b'u'; 600_000]);
    client.stream.shutdown(std::net::Shutdown::Write).expect("an open socket");
    assert_eq!(client.answer().expect("an answer").status, 400);
    assert_eq!(house.get("/empty").status, 200);
}

#[test]
fn a_body_that_breaks_a_rule_is_refused_and_the_worker_goes_on() {
    let Some(house) = house() else { return };
    let mut client = house.client();
    client.send("POST /hash HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(format!("30000\r\n{}\r\nnonsense\r\n", "x".repeat(0x30000)));
    assert_eq!(client.answer().expect("an answer").status, 400);
    assert_eq!(house.get("/empty").status, 200);
}

// The head of the answer.

#[test]
fn an_answer_of_one_piece_or_of_a_list_has_a_length() {
    let Some(house) = house() else { return };
    for target in ["/several", "/several?tuple"] {
        let answer = house.get(target);
        assert!(answer.says("Content-Length: 13"), "{}", answer.head);
        assert_eq!(answer.text(), "one two three");
    }
    assert!(house.get("/large").says("Content-Length: 1000000"));
    assert_eq!(house.get("/large").body, vec![b'z'; 1_000_000]);
    assert_eq!(house.get("/large?own").body, vec![b'z'; 1_000_000]);
    assert!(house.get("/empty").says("Content-Length: 0"));
    let pieces = house.get("/pieces");
    assert!(pieces.says("Transfer-Encoding: chunked") && pieces.body.len() == 800_000);
}

#[test]
fn start_response_may_be_called_late_and_empty_chunks_send_nothing() {
    let Some(house) = house() else { return };
    assert_eq!(house.get("/late").text(), "ab");
}

#[test]
fn start_response_never_or_twice_is_500() {
    let Some(house) = house() else { return };
    assert_eq!(house.get("/never").status, 500);
    assert_eq!(house.get("/twice").status, 500);
}

#[test]
fn exc_info_replaces_a_head_that_has_not_been_sent_and_cuts_one_that_has() {
    let Some(house) = house() else { return };
    let replaced = house.get("/replaced");
    assert_eq!((replaced.status, replaced.text().as_str()), (503, "replaced by this"));
    let cut = house.raw("/too-late");
    assert!(cut.contains("begun") && !cut.contains("never sent"), "{cut}");
    assert!(!cut.ends_with("0\r\n\r\n"), "{cut}");
}

#[test]
fn an_exception_is_500_before_the_head_and_a_cut_after_it() {
    let Some(house) = house() else { return };
    assert_eq!(house.get("/raises").status, 500);
    let cut = house.raw("/raises-later");
    assert!(cut.contains("half") && !cut.ends_with("0\r\n\r\n"), "{cut}");
    assert_eq!(house.get("/empty").status, 200);
}

#[test]
fn a_line_end_or_a_nul_in_a_field_is_500_and_never_a_field() {
    let Some(house) = house() else { return };
    for path in ["/crlf", "/nul"] {
        let answer = house.get(path);
        assert_eq!(answer.status, 500, "{path}");
        assert!(!answer.head.contains("X-"), "{}", answer.head);
    }
    assert_eq!(house.get("/told").text(), "4");
}

#[test]
fn a_status_must_have_a_code_and_words() {
    let Some(house) = house() else { return };
    assert_eq!(house.get("/status?404+Not+Here").status, 404);
    for wrong in ["200", "abc", "100+Continue", "2000+OK", ""] {
        assert_eq!(house.get(&format!("/status?{wrong}")).status, 500, "{wrong}");
    }
}

#[test]
fn fields_about_the_connection_are_left_out_and_others_may_come_twice() {
    let Some(house) = house() else { return };
    let answer = house.get("/hop");
    assert_eq!(answer.text(), "hop");
    assert!(answer.says("X-Kept: yes"), "{}", answer.head);
    assert_eq!(answer.head.matches("yes").count(), 1, "{}", answer.head);
    let answer = house.get("/cookies");
    assert!(answer.says("Set-Cookie: a=1") && answer.says("Set-Cookie: b=2"), "{}", answer.head);
}

#[test]
fn head_204_and_304_have_no_body_and_head_has_the_length_of_get() {
    let Some(house) = house() else { return };
    for target in ["/large", "/several", "/pieces", "/endless", "/late", "/huge"] {
        let mut client = house.client();
        client.send(format!("HEAD {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let answer = client.answer_to("HEAD").expect("an answer");
        assert_eq!(answer.status, 200, "{target}");
        client.send("GET /empty HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.answer().expect("nothing in between").status, 200, "{target}");
    }
    assert!(house.ask("HEAD", "/large").says("Content-Length: 1000000"));
    // The one to GET may be longer.
    assert!(!house.ask("HEAD", "/empty").head.contains("Content-Length"));
    for (target, status) in [("/no-content", 204), ("/not-modified", 304)] {
        let mut client = house.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(client.answer().expect("an answer").status, status);
        client.send("GET /empty HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.answer().expect("nothing in between").status, 200, "{target}");
    }
}

#[test]
fn pieces_that_nobody_would_see_are_not_waited_for() {
    if !has_python() {
        return;
    }
    let house = House::open(spec("probe:application"));
    let began = Instant::now();
    house.ask("HEAD", "/silent");
    for status in ["204+No+Content", "304+Not+Modified"] {
        house.get(&format!("/silent?{status}"));
    }
    assert_eq!(house.get("/empty").status, 200);
    assert!(began.elapsed() < ms(4000), "{:?}", began.elapsed());
}

#[test]
fn what_is_written_comes_before_what_is_returned() {
    let Some(house) = house() else { return };
    assert_eq!(house.get("/write").text(), "written, twice, and returned");
}

// Closing.

#[test]
fn a_failure_behind_the_declared_length_does_not_reach_the_next_answer() {
    if !has_python() {
        return;
    }
    let house = House::open(spec("probe:application"));
    for target in ["/declared?fails", "/declared?more", "/declared"].repeat(5) {
        let answer = house.get(target);
        assert_eq!((answer.status, &*answer.text()), (200, "whole"), "{target}");
    }
}

#[test]
fn close_is_called_whether_the_answer_is_complete_or_fails() {
    if !has_python() {
        return;
    }
    let house = House::open(spec("probe:application"));
    for target in ["/closes?one", "/closes", "/closes-after-failure", "/no-content", "/huge"] {
        house.raw(target);
        soon(target, || house.get("/was-closed").text() == "1");
    }
    house.ask("HEAD", "/huge");
    soon("HEAD", || house.get("/was-closed").text() == "1");
}

#[test]
fn a_client_that_leaves_ends_the_generator_and_frees_the_worker() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(30, "a client that leaves");
    let house = House::open(spec("probe:application"));
    let mut client = house.client();
    client.send("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n");
    client.up_to("xxxx");
    drop(client);
    assert_eq!(house.get("/was-closed").text(), "1");
}

#[test]
fn a_wrapped_file_is_sent_and_closed() {
    let Some(house) = house() else { return };
    let source = fs::read("tests/python/probe.py").expect("it is there");
    assert!(house.get("/file").body == source);
    assert_eq!(house.get("/file-was-closed").text(), "[True]");
}

// Slow clients.

/// How much the kernel keeps for somebody who reads nothing, in bytes.
fn kept_by_the_kernel() -> usize {
    let door = TcpListener::bind("127.0.0.1:0").expect("a port");
    let _deaf = TcpStream::connect(door.local_addr().expect("a port")).expect("a connection");
    let (mut stream, _) = door.accept().expect("it has connected");
    stream.set_nonblocking(true).expect("an open socket");
    let mut kept = 0;
    while let Ok(count) = stream.write(&[0; 65536]) {
        kept += count;
    }
    kept
}

#[test]
fn a_slow_client_costs_a_thread_and_not_a_worker() {
    let Some(house) = house() else { return };
    // More than the kernel keeps, and less than we keep besides.
    let long = format!("/large?{}", kept_by_the_kernel() + 600_000);
    for target in ["/large", "/pieces", &long] {
        let mut slow: Vec<Client> = (0..3).map(|_| house.client()).collect();
        for client in &mut slow {
            client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        }
        // They read nothing, and the only worker answers all the same.
        for _ in 0..5 {
            assert_eq!(house.get("/empty").status, 200);
        }
        for client in &mut slow {
            assert!(client.answer().expect("an answer").body.len() >= 800_000);
        }
    }
}

#[test]
fn a_hundred_megabytes_for_a_slow_client_do_not_fill_the_memory() {
    if !has_python() || !cfg!(target_os = "linux") {
        return;
    }
    let _dog = watchdog(60, "a slow download");
    let house = House::open(spec("probe:application"));
    let resident = |pid: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
        line.split_whitespace().next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
    };
    let (own, worker) = (std::process::id().to_string(), house.pid());
    let before = (resident(&own), resident(&worker));
    let mut client = house.client();
    client.send("GET /huge HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    thread::sleep(ms(500));
    let (mut block, mut count, mut most) = (vec![0; 1 << 20], 0, (0, 0));
    while let Ok(read @ 1..) = client.stream.read(&mut block) {
        count += read;
        if count >> 22 != (count - read) >> 22 {
            most = (resident(&own).max(most.0), resident(&worker).max(most.1));
            thread::sleep(ms(5));
        }
    }
    assert!(count > 100 << 20, "{count}");
    // In KB. Other tests of this process run at the same time.
    assert!(most.0 < before.0 + 40_000, "server: {before:?}, {most:?}");
    assert!(most.1 < before.1 + 8_000, "worker: {before:?}, {most:?}");
}

// The worker's surroundings.

#[test]
fn standard_input_is_empty_and_there_is_no_second_thread() {
    let Some(house) = house() else { return };
    assert_eq!(house.get("/prints").text(), "''");
    assert_eq!(house.get("/threads").text(), "1");
}

#[test]
fn an_application_may_fork_and_its_copy_holds_nothing_open() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(20, "forks");
    let house = House::open(spec("probe:application"));
    let began = Instant::now();
    assert_eq!(house.raw("/fork").matches("forked").count(), 1);
    let answer = house.raw("/forgotten-fork");
    assert!(answer.ends_with("forked") && answer.matches("forked").count() == 1, "{answer}");
    assert_eq!(house.get("/dies?/dev/null").status, 502);
    assert!(began.elapsed() < ms(1400), "the copy kept the connection: {:?}", began.elapsed());
    assert_eq!(house.get("/pid").status, 200);
}

// Failures of a worker.

#[test]
fn a_delivered_request_is_never_sent_twice() {
    if !has_python() {
        return;
    }
    let house = House::open(PythonSpec { workers: 2, ..spec("probe:application") });
    let file = env::temp_dir().join(format!("glasshouse-wsgi-host-{}", std::process::id()));
    let answer = house.get(&format!("/dies?{}", file.display()));
    assert!(answer.status == 502 && !answer.head.contains("Retry-After"), "{}", answer.head);
    assert_eq!(fs::read_to_string(&file).expect("it was called"), "once ");
    fs::remove_file(file).expect("it is there");
    assert_eq!(house.get("/exits").status, 502);
    assert_eq!(house.get("/pid").status, 200);
}

#[test]
fn a_killed_worker_is_502_for_its_request_and_soon_replaced() {
    if !has_python() {
        return;
    }
    let house = House::open(spec("probe:application"));
    let before = house.pid();
    let mut client = house.client();
    client.send("GET /sleep?5 HTTP/1.1\r\nHost: x\r\n\r\n");
    thread::sleep(ms(100));
    let kill = format!("kill -KILL {before}");
    assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
    assert_eq!(client.answer().expect("an answer").status, 502);
    assert_ne!(house.pid(), before);
}

#[test]
fn a_worker_killed_in_the_middle_of_an_upload_is_502() {
    if !has_python() {
        return;
    }
    let house = House::open(spec("probe:application"));
    let before = house.pid();
    let mut client = house.client();
    client.send("POST /hash HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nsome");
    thread::sleep(ms(200));
    let kill = format!("kill -KILL {before}");
    assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
    thread::sleep(ms(200));
    client.send("more");
    assert_eq!(client.answer().expect("an answer").status, 502);
}

#[test]
fn workers_killed_while_they_had_nothing_to_do_cost_no_request() {
    if !has_python() {
        return;
    }
    let house = House::open(PythonSpec { workers: 2, ..spec("probe:application") });
    let before: Vec<String> = house.pool.pids().iter().map(u32::to_string).collect();
    // So that a lane lies idle.
    assert_eq!(house.get("/pid").status, 200);
    let kill = format!("kill -KILL {}", before.join(" "));
    assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
    soon("both are dead", || before.iter().all(|pid| !lives(pid)));
    let answer = house.get("/pid");
    assert_eq!(answer.status, 200);
    assert!(!before.contains(&answer.text()));
}

#[test]
fn who_finds_no_free_worker_in_time_may_come_again() {
    if !has_python() {
        return;
    }
    let house = House::open(PythonSpec { timeout: ms(500), ..spec("probe:application") });
    let mut slow = house.client();
    slow.send("POST /hash HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nsome");
    thread::sleep(ms(100));
    let answer = house.get("/empty");
    assert_eq!(answer.text(), "503 Service Unavailable\n\nno Python worker was free in time\n");
    for field in ["Content-Type: text/plain; charset=utf-8", "Retry-After: 1"] {
        assert!(answer.says(field), "{}", answer.head);
    }
}

/// It holds its worker, and from outside it looks like a loop without an end.
#[test]
fn a_stream_that_falls_silent_is_cut_at_the_timeout() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(30, "a silent stream");
    let house = House::open(PythonSpec { timeout: ms(700), ..spec("probe:application") });
    // As long as the client takes nothing, the silence is its own.
    for (words, pause) in [(1, 0), (2_000_000, 1500)] {
        house.pid();
        let began = Instant::now();
        let mut client = house.client();
        client.send(format!("GET /silent/{words} HTTP/1.1\r\nHost: x\r\n\r\n"));
        thread::sleep(ms(pause));
        let text = client.all();
        assert!(text.len() > 5 * words && !text.contains("late"), "{}", text.len());
        // The last chunk is missing.
        assert!(!text.ends_with("0\r\n\r\n"), "{words}");
        let time = ms(pause + 500)..ms(pause + 3000);
        assert!(time.contains(&began.elapsed()), "{words}: {:?}", began.elapsed());
    }
}

#[test]
fn an_endless_loop_is_504_at_the_timeout_and_the_worker_replaced() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(30, "an endless loop");
    let house = House::open(PythonSpec { timeout: ms(700), ..spec("probe:application") });
    for size in [0, 200_000] {
        let before = house.pid();
        let began = Instant::now();
        let mut client = house.client();
        client.send(format!("POST /loop HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"));
        client.send(vec![b'u'; size]);
        assert_eq!(client.answer().expect("an answer").status, 504, "{size}");
        assert!((ms(600)..ms(3000)).contains(&began.elapsed()), "{:?}", began.elapsed());
        assert_ne!(house.pid(), before);
        assert!(!lives(&before));
    }
}

#[test]
fn a_lack_of_memory_is_500() {
    if !has_python() || !cfg!(target_os = "linux") {
        return;
    }
    let house = House::open(spec("probe:application"));
    assert_eq!(house.get("/memory").status, 500);
    assert_eq!(house.get("/pid").status, 200);
}

// The start.

#[test]
fn an_application_is_a_name_a_factory_or_the_default_of_its_module() {
    if !has_python() {
        return;
    }
    for application in ["probe", "probe:application", "probe:make_app()"] {
        let house = House::open(spec(application));
        assert_eq!(house.get("/empty").status, 200, "{application}");
    }
    for application in ["plain_app", "probe:wrapped"] {
        Pool::start(spec(application)).unwrap_or_else(|error| panic!("{application}: {error}"));
    }
}

#[test]
fn what_cannot_be_served_is_explained_at_the_start() {
    if !has_python() {
        return;
    }
    // Python's own words come with a traceback, and ours without.
    for (application, is_ours, expected) in [
        ("nomodule:app", false, "ModuleNotFoundError: No module named 'tests.python.nomodule'"),
        ("probe:nothing", false, "has no attribute 'nothing'"),
        ("probe:asgi", true, "is an async callable, for ASGI: serve it with asgi_http or asgi_ws."),
        ("probe:site", true, "is an async callable, for ASGI: serve it with asgi_http or asgi_ws."),
        ("probe:number", true, "is 5, which cannot be called."),
        ("probe:raises()", false, "TypeError"),
        ("probe:leaves()", false, "SystemExit: 7"),
        ("probe:make_app", true, "if it makes an application, say tests.python.probe:make_app()"),
        ("probe:make_maker()", true, "it does not take environ and start_response"),
    ] {
        match Pool::start(spec(application)).map(drop) {
            Err(StartError::Application(text)) => {
                assert!(text.contains(expected), "{application}: {text}");
                assert_eq!(text.contains("Traceback"), !is_ours, "{application}: {text}");
            }
            other => panic!("{application}: {other:?}"),
        }
    }
}

// A whole program: signals, output, and its end.

#[test]
#[ignore = "a part of other tests"]
fn helper_house() {
    let Ok(application) = env::var("CHILD") else { return };
    let spec = PythonSpec { graceful_timeout: ms(5000), workers: 2, ..spec(&application) };
    let pool = match Pool::start(spec) {
        Ok(pool) => Arc::new(pool),
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            std::process::exit(1);
        }
    };
    let signals = Shutdown::on(&SIGNALS).expect("signals");
    let server = Server::bind(Settings { port: 0, ..Settings::default() }).expect("a port");
    let _ = writeln!(io::stderr(), "\naddress {}", server.address());
    let _ = writeln!(io::stderr(), "folder {}", pool.folder().display());
    let gateway = Wsgi::new(Arc::new(PythonWsgi::new(Arc::clone(&pool))), server.address());
    serve_until(signals, server, Arc::new(gateway), &pool);
    std::process::exit(0);
}

struct Program {
    process: Process,
    address: SocketAddr,
}

impl Program {
    fn command(application: &str) -> Process {
        let own = env::current_exe().expect("the path of this test program");
        let mut command = Process::in_one(&own);
        command.args(["--exact", "helper_house", "--ignored", "--nocapture"]);
        // Python by itself does not look into the current folder then.
        command.env("PYTHONSAFEPATH", "1");
        Process::spawn(command.env("CHILD", application))
    }

    fn start() -> Program {
        let process = Program::command("probe:application");
        let address = |lines: &[String]| {
            lines.iter().find_map(|line| line.strip_prefix("address ")?.parse().ok())
        };
        let has_folder = |lines: &[String]| lines.iter().any(|line| line.starts_with("folder "));
        assert!(process.until(LIMIT, has_folder), "{:?}", process.lines());
        let address = address(&process.lines()).expect("just seen");
        Program { process, address }
    }

    fn folder(&self) -> PathBuf {
        let lines = self.process.lines();
        lines.iter().find_map(|line| line.strip_prefix("folder ")).expect("just seen").into()
    }

    #[track_caller]
    fn get(&self, target: &str) -> Answer {
        let mut client = Client::connect(self.address);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        client.answer().expect("an answer")
    }
}

#[test]
fn what_the_application_prints_is_seen_and_a_traceback_too() {
    if !has_python() {
        return;
    }
    let program = Program::start();
    program.get("/prints");
    // A client that has gone is no failure of the application.
    let mut client = Client::connect(program.address);
    client.send("POST /hash HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nsome");
    thread::sleep(ms(100));
    drop(client);
    let mut client = Client::connect(program.address);
    client.send("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n");
    client.up_to("xxxx");
    drop(client);
    // Nor is a copy of the worker that has done its part.
    program.get("/forgotten-fork");
    thread::sleep(ms(200));
    program.get("/raises");
    for text in ["a line for standard output", "a line for wsgi.errors", "the database is away"] {
        let has = |lines: &[String]| lines.iter().any(|line| line.contains(text));
        assert!(program.process.until(LIMIT, has), "{text}: {:?}", program.process.lines());
    }
    let lines = program.process.lines();
    assert_eq!(lines.iter().filter(|line| line.contains("Traceback")).count(), 1, "{lines:?}");
}

#[test]
fn an_import_error_shows_the_traceback_once_and_the_exit_code_is_1() {
    if !has_python() {
        return;
    }
    let mut process = Program::command("nomodule:app");
    assert_eq!(process.finish(LIMIT), Some(Some(1)));
    let lines = process.lines();
    let count = lines.iter().filter(|line| line.contains("Traceback")).count();
    assert_eq!(count, 1, "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("ModuleNotFoundError")), "{lines:?}");
}

#[test]
fn a_stop_lets_requests_finish_and_leaves_nothing_behind() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(30, "a stop");
    let mut program = Program::start();
    let (pid, folder) = (program.get("/pid").text(), program.folder());
    let mut client = Client::connect(program.address);
    client.send("GET /sleep?0.7 HTTP/1.1\r\nHost: x\r\n\r\n");
    thread::sleep(ms(200));
    let began = Instant::now();
    program.process.signal("TERM");
    assert_eq!(client.answer().expect("an answer").status, 200);
    assert_eq!(program.process.finish(LIMIT), Some(Some(0)));
    // The workers have not waited to be killed.
    assert!(began.elapsed() < ms(4000), "{:?}", began.elapsed());
    assert!(!lives(&pid) && !folder.exists());
}

#[test]
fn a_second_signal_ends_all_at_once() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(30, "an impatient stop");
    let mut program = Program::start();
    let pid = program.get("/pid").text();
    let mut client = Client::connect(program.address);
    client.send("GET /sleep?20 HTTP/1.1\r\nHost: x\r\n\r\n");
    thread::sleep(ms(200));
    let began = Instant::now();
    program.process.signal("TERM");
    thread::sleep(ms(100));
    program.process.signal("INT");
    assert_eq!(program.process.finish(LIMIT), Some(Some(0)));
    assert!(began.elapsed() < ms(4000) && !lives(&pid), "{:?}", began.elapsed());
}

#[test]
fn sighup_replaces_the_workers_and_loses_no_request() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(30, "a replacement");
    let program = Program::start();
    let before = program.get("/pid").text();
    let mut client = Client::connect(program.address);
    client.send("GET /sleep?0.7 HTTP/1.1\r\nHost: x\r\n\r\n");
    thread::sleep(ms(200));
    program.process.signal("HUP");
    soon("the old worker ends", || {
        assert_eq!(program.get("/pid").status, 200);
        !lives(&before)
    });
    assert_eq!(client.answer().expect("an answer").status, 200);
}

#[test]
fn a_terminal_that_closes_is_no_wish_for_new_workers() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(30, "a terminal that closes");
    let mut command = Command::new(env::current_exe().expect("the path of this test program"));
    command.args(["--exact", "helper_house", "--ignored", "--nocapture"]);
    command.env("CHILD", "probe:application").stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("itself");
    let mut lines = BufReader::new(child.stderr.take().expect("it was asked for")).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line.starts_with("folder ")));
    // Nobody reads any more.
    drop(lines);
    let hang_up = format!("kill -HUP {}", child.id());
    assert!(Command::new("sh").args(["-c", &hang_up]).status().expect("a shell").success());
    assert_eq!(child.wait().expect("its end").code(), Some(0));
}

#[test]
fn workers_end_with_a_killed_server_even_out_of_an_endless_loop() {
    if !has_python() || !cfg!(target_os = "linux") {
        return;
    }
    let _dog = watchdog(30, "orphans");
    let mut program = Program::start();
    let mut pids = vec![program.get("/pid").text()];
    let mut client = Client::connect(program.address);
    client.send("GET /loop HTTP/1.1\r\nHost: x\r\n\r\n");
    thread::sleep(ms(200));
    pids.push(program.get("/pid").text());
    program.process.signal("KILL");
    assert_eq!(program.process.finish(LIMIT), Some(None));
    soon("the workers end", || pids.iter().all(|pid| !lives(pid)));
    let _ = fs::remove_dir_all(program.folder());
}

#[test]
fn ctrl_c_is_for_the_server_and_not_for_the_workers() {
    let Some(house) = house() else { return };
    let pid = house.pid();
    let interrupt = format!("kill -INT {pid}");
    assert!(Command::new("sh").args(["-c", &interrupt]).status().expect("a shell").success());
    assert_eq!(house.pid(), pid);
    assert_eq!(house.pool.pids().len(), 1);
}

#[test]
#[ignore = "exercise 43.3"]
fn exercise_43_3_the_target_is_there_as_it_was_sent() {
    let Some(house) = house() else { panic!("this exercise needs python3") };
    let text = house.get("/environ/a%2Fb?x=%20").text();
    let line = "REQUEST_URI='/environ/a%2Fb?x=%20'";
    assert!(text.lines().any(|own| own == line), "{text}");
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
