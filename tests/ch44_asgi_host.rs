//! Chapter 44: hosting ASGI. A real server in front, a real `python3` behind, and between them the
//! applications of tests/python/raw_asgi.py. Without `python3` the tests say so, and pass.
#![cfg(unix)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use glasshouse::gateway::asgi::Asgi;
use glasshouse::http::server::{Running, Server, Settings};
use glasshouse::python::asgi_host::PythonAsgi;
use glasshouse::python::lane::push_frame;
use glasshouse::python::worker::{Pool, PythonSpec, StartError};
use glasshouse::websocket::session::{SessionSettings, WebSockets};
use support::client::{Answer, Client};
use support::has_python;
use support::watchdog::{Watchdog, watchdog};
use support::websocket::{BINARY, CLOSE, PING, PONG, Peer, TEXT};

/// A server with Python behind it.
struct House {
    address: SocketAddr,
    pool: Arc<Pool>,
    running: Option<Running>,
    _dog: Watchdog,
}

fn spec(name: &str) -> PythonSpec {
    let python = PathBuf::from("python3");
    let application = format!("tests.python.raw_asgi:{name}");
    PythonSpec { python, graceful_timeout: ms(1000), ..PythonAsgi::spec(&application) }
}

/// `None` without an interpreter.
fn house() -> Option<House> {
    house_with(spec("app"))
}

#[track_caller]
fn house_with(spec: PythonSpec) -> Option<House> {
    if !has_python() {
        return None;
    }
    let dog = watchdog(60, "a hosted application");
    let pool = Pool::start(spec).unwrap_or_else(|error| panic!("{error}"));
    let pool = Arc::new(pool);
    let mut settings = Settings { port: 0, ..Settings::default() };
    settings.graceful_timeout = ms(200);
    let server = Server::bind(settings).expect("a free port");
    let address = server.address();
    let asgi = Asgi::start(Arc::new(PythonAsgi::new(Arc::clone(&pool))), address);
    let asgi = Arc::new(asgi.expect("no lifespan, no failure").below("/shop"));
    let handler = WebSockets::new(asgi, SessionSettings::default());
    let running = Some(server.start(Arc::new(handler)));
    Some(House { address, pool, running, _dog: dog })
}

impl Drop for House {
    fn drop(&mut self) {
        self.running.take().map(Running::stop);
        self.pool.stop();
    }
}

impl House {
    #[track_caller]
    fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        Client::ask(self.address, request)
    }

    #[track_caller]
    fn get(&self, target: &str) -> Answer {
        self.ask(get(target))
    }

    #[track_caller]
    fn wait_for_a_successor(&self, before: &[u32]) {
        let began = Instant::now();
        loop {
            let pids = self.pool.pids();
            if pids.len() == before.len() && pids.iter().any(|pid| !before.contains(pid)) {
                return;
            }
            assert!(began.elapsed() < ms(10_000), "{pids:?} serve, as {before:?} before");
            thread::sleep(ms(20));
        }
    }

    /// What the application has noted, once there is something.
    #[track_caller]
    fn notes(&self, limit: Duration) -> String {
        let began = Instant::now();
        loop {
            let notes = self.get("/notes").text();
            if notes != "[]" {
                return notes;
            }
            assert!(began.elapsed() < limit, "nothing was noted within {limit:?}");
            thread::sleep(ms(10));
        }
    }
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn post(target: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {target} HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {length}\r\n\r\n{body}")
}

/// A file that no other test uses.
fn scrap(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("glasshouse_{name}_{}", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}

/// Memory that a process has in use, in bytes.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let digits = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    digits.unwrap_or_default() * 1024
}

// What the application is told.

#[test]
fn the_scope_says_what_the_client_has_sent() {
    let Some(house) = house() else { return };
    let answer = house.ask(
        "GET /scope/caf%C3%A9%2Fx?q=%20&r HTTP/1.1\r\nHost: a\r\nX-Dup: 1\r\nX-Dup: 2\r\n\
         X_Under: 3\r\n\r\n",
    );
    let text = answer.text();
    for part in [
        r#""type": "'http'""#,
        r#""asgi": "{'version': '3.0', 'spec_version': '2.5'}""#,
        r#""http_version": "'1.1'""#,
        r#""method": "'GET'""#,
        r#""scheme": "'http'""#,
        r#""path": "'/shop/scope/caf\u00e9/x'""#,
        r#""raw_path": "b'/scope/caf%C3%A9%2Fx'""#,
        r#""query_string": "b'q=%20&r'""#,
        r#""root_path": "'/shop'""#,
        "[(b'host', b'a'), (b'x-dup', b'1'), (b'x-dup', b'2'), (b'x_under', b'3')]",
        r#""client": "('127.0.0.1', "#,
        r#""extensions": "{}""#,
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let port = house.address.port();
    assert!(text.contains(&format!(r#""server": "('127.0.0.1', {port})""#)), "{text}");
    assert!(!text.contains("subprotocols"), "{text}");
}

#[test]
fn each_request_has_its_own_copy_of_the_lifespans_state() {
    let Some(house) = house() else { return };
    assert_eq!(house.get("/state").text(), "green");
    // The first request has painted its own copy red.
    assert_eq!(house.get("/state").text(), "green");
}

#[test]
fn an_application_without_a_lifespan_is_served() {
    let Some(house) = house_with(spec("plain")) else { return };
    assert_eq!(house.get("/").text(), "Hello, world!\n");
    let began = Instant::now();
    drop(house);
    // Nobody waits for what it would have to say about the end.
    assert!(began.elapsed() < ms(5000), "{:?}", began.elapsed());
}

#[test]
fn a_factory_is_called() {
    let Some(house) = house_with(spec("make_app()")) else { return };
    assert_eq!(house.get("/").text(), "Hello, world!\n");
}

#[test]
fn the_lifespan_hears_of_the_end() {
    let Some(house) = house() else { return };
    let path = scrap("farewell");
    house.get(&format!("/farewell?{}", path.display()));
    drop(house);
    assert_eq!(fs::read_to_string(&path).expect("a farewell"), "put away");
    let _ = fs::remove_file(path);
}

/// Why this application cannot be served.
fn complaint(application: &str) -> String {
    let python = PathBuf::from("python3");
    match Pool::start(PythonSpec { python, ..PythonAsgi::spec(application) }) {
        Err(StartError::Application(text)) => text,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{application} starts"),
    }
}

#[test]
fn what_cannot_be_imported_is_shown_by_pythons_own_traceback() {
    if !has_python() {
        return;
    }
    let text = complaint("no_such_module:app");
    assert!(text.starts_with("Traceback (most recent call last):\n"), "{text}");
    assert!(text.contains("ModuleNotFoundError: No module named 'no_such_module'"), "{text}");
    let text = complaint("tests.python.raw_asgi:nope");
    assert!(text.contains("AttributeError: module"), "{text}");
}

#[test]
fn a_startup_that_fails_says_why() {
    if has_python() {
        assert_eq!(complaint("tests.python.raw_asgi:failing").trim(), "no database");
    }
}

#[test]
fn whoever_has_confused_the_programs_is_told_which_one_to_take() {
    if !has_python() {
        return;
    }
    let text = complaint("tests.python.raw_asgi:wsgi");
    assert!(text.ends_with("is a WSGI application: the program for those is `wsgi`"), "{text}");
    let text = complaint("tests.python.raw_asgi:make_app");
    assert!(text.contains("say tests.python.raw_asgi:make_app()"), "{text}");
    let text = complaint("tests.python.raw_asgi");
    assert!(text.contains("MODULE:CALLABLE"), "{text}");
    let text = complaint("json:loads");
    assert!(text.contains("does not take scope, receive and send"), "{text}");
}

#[test]
fn the_application_finds_an_empty_standard_input_and_may_start_processes() {
    let Some(house) = house() else { return };
    assert_eq!(house.get("/print").text(), "''");
    assert_eq!(house.get("/child").text(), "42\n");
}

// Answers.

#[test]
fn a_single_piece_has_a_length_and_several_are_chunks() {
    let Some(house) = house() else { return };
    let answer = house.get("/pieces?one");
    assert!(answer.says("Content-Length: 3"), "{}", answer.head);
    let answer = house.get("/pieces?one%20&two");
    assert!(answer.says("Transfer-Encoding: chunked"), "{}", answer.head);
    assert_eq!(answer.text(), "one%20two");
    // It comes in several frames, and is one piece all the same.
    for own in ["", "?content-length", "?Content-Length"] {
        let answer = house.get(&format!("/unread{own}"));
        assert!(answer.says("Content-Length: 3000000") || answer.says("content-length: 3000000"));
        assert_eq!(answer.body.len(), 3_000_000);
    }
    assert_eq!(house.get("/unread?more").body.len(), 3_000_001);
}

#[test]
fn answers_to_head_and_304_have_no_body() {
    let Some(house) = house() else { return };
    let mut client = Client::connect(house.address);
    client.send("HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.answer_to("HEAD").expect("an answer");
    assert!(head.says("Content-Length: 14"), "{}", head.head);
    client.send("HEAD /empty?200 HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.answer_to("HEAD").expect("an answer").head.to_lowercase();
    // The one to GET may be longer.
    assert!(!head.contains("content-length"), "{head}");
    // On the same connection: a body would be taken for this answer.
    for status in [304, 204, 200] {
        client.send(get(&format!("/empty?{status}")));
        assert_eq!(client.answer().expect("an answer").status, status);
    }
}

#[test]
fn a_stream_without_an_end_ends_for_head_with_its_first_piece() {
    let Some(house) = house() else { return };
    let _dog = watchdog(20, "an endless HEAD");
    let mut client = Client::connect(house.address);
    client.send("HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer_to("HEAD").expect("an answer").status, 200);
    client.send(get("/hello"));
    assert_eq!(client.answer().expect("the next answer").status, 200);
    assert_eq!(
        house.notes(ms(1000)),
        r#"["OSError: the client has gone, http.disconnect", "finally"]"#
    );
}

#[test]
fn a_field_that_would_forge_another_is_an_error_and_not_left_out() {
    let Some(house) = house() else { return };
    assert_eq!(house.get("/crlf").status, 500);
    assert_eq!(house.get("/nul").status, 500);
    assert_eq!(house.get("/hello").status, 200);
}

#[test]
fn a_failure_before_the_body_is_500_and_one_in_the_middle_cuts_the_answer() {
    let Some(house) = house() else { return };
    for page in ["/raise", "/unprintable", "/start", "/twice", "/nothing", "/cancel"] {
        assert_eq!(house.get(page).status, 500, "{page}");
    }
    let mut client = Client::connect(house.address);
    client.send(get("/late"));
    let all = client.all();
    // Without the last chunk nobody can take it for whole.
    assert!(all.ends_with("\r\n\r\n4\r\nhalf\r\n"), "{all}");
}

#[test]
fn an_application_may_go_on_when_its_answer_is_complete() {
    let Some(house) = house() else { return };
    let mut client = Client::connect(house.address);
    client.send(get("/background"));
    assert_eq!(client.answer().expect("an answer").text(), "done");
    // The lane is free for the next request, long before the call has ended.
    client.send(get("/hello"));
    assert_eq!(client.answer().expect("an answer").status, 200);
    assert_eq!(house.notes(ms(2000)), r#"["afterwards"]"#);
    // What it sends then is not taken for the answer to another request.
    assert_eq!(house.get("/again").text(), "once");
    thread::sleep(ms(200));
    assert_eq!(house.get("/hello").status, 200);
    // It may go on even if its worker is told to end.
    let path = scrap("background");
    assert_eq!(house.get(&format!("/background?{}", path.display())).text(), "done");
    drop(house);
    assert_eq!(fs::read_to_string(&path).expect("a note"), "afterwards");
    let _ = fs::remove_file(path);
}

// Request bodies.

#[test]
fn a_body_arrives_whole_by_a_length_and_by_chunks() {
    let Some(house) = house() else { return };
    let abc = "3 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad 1";
    assert_eq!(house.ask(post("/sum", "", "abc")).text(), abc);
    let a = "1 ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb 1";
    assert_eq!(house.ask(post("/sum", "", "a")).text(), a);
    let body = "0123456789abcdef".repeat(5 * 1024 * 1024 / 16);
    let by_length = house.ask(post("/sum", "", &body)).text();
    let mut chunked =
        "POST /sum HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_string();
    for piece in body.as_bytes().chunks(100_000) {
        let text = String::from_utf8_lossy(piece);
        chunked += &format!("{:x}\r\n{text}\r\n", piece.len());
    }
    let by_chunks = house.ask(chunked + "0\r\n\r\n").text();
    assert!(by_length.starts_with("5242880 "), "{by_length}");
    let without_events = |text: &str| text.rsplit_once(' ').map(|(sum, _)| sum.to_string());
    assert_eq!(without_events(&by_length), without_events(&by_chunks));
}

#[test]
fn a_client_that_waits_for_100_gets_it_when_the_application_reads() {
    let Some(house) = house() else { return };
    let expect = |target| {
        format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        )
    };
    let mut client = Client::connect(house.address);
    client.send(expect("/sum"));
    assert_eq!(client.answer().expect("a first answer").status, 100);
    client.send("abc");
    assert!(client.answer().expect("a second").text().starts_with("3 ba7816bf"));
    // This one never reads.
    let mut client = Client::connect(house.address);
    client.send(expect("/hello"));
    assert_eq!(client.answer().expect("an answer").status, 200);
}

#[test]
fn a_body_that_nobody_reads_does_not_hold_up_the_answer() {
    let Some(house) = house() else { return };
    let mut client = Client::connect(house.address);
    let head = "POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n";
    // The rest of the body will never come.
    client.send(head.to_string() + &"x".repeat(10_000));
    let answer = client.answer().expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (200, 3_000_000));
    assert!(answer.says("Connection: close"), "{}", answer.head);
}

#[test]
fn a_body_that_breaks_a_rule_is_the_clients_fault() {
    let Some(house) = house() else { return };
    let long = "x".repeat(200_000);
    let answer = house.ask(format!(
        "POST /sum HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n30d40\r\n{long}\r\nno\r\n"
    ));
    assert_eq!(answer.status, 400);
    assert_eq!(house.get("/hello").status, 200);
}

// Who leaves, who waits, and who is slow.

#[test]
fn receive_waits_behind_the_body_until_the_answer_is_complete() {
    let Some(house) = house() else { return };
    assert_eq!(house.get("/after").text(), "waited");
    assert_eq!(house.notes(ms(1000)), r#"["http.disconnect"]"#);
}

#[test]
fn an_early_answer_does_not_wait_for_a_client_that_has_fallen_silent() {
    let Some(house) = house() else { return };
    let _dog = watchdog(20, "an early answer");
    for fields in [
        "Content-Length: 300000",
        "Transfer-Encoding: chunked",
        "Content-Length: 7\r\nExpect: 100-continue",
    ] {
        let mut client = Client::connect(house.address);
        let part = if fields.ends_with("chunked") {
            "5\r\nhello\r\n".repeat(30_000)
        } else {
            String::new()
        };
        client.send(format!("POST /early HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{part}"));
        let began = Instant::now();
        let mut answer = client.answer().expect("an answer");
        if answer.status == 100 {
            answer = client.answer().expect("an answer behind the 100");
        }
        assert_eq!((answer.status, answer.text().as_str()), (403, "no"), "{fields}");
        assert!(began.elapsed() < ms(3000), "{fields}: after {:?}", began.elapsed());
    }
}

#[test]
fn what_was_collected_is_given_although_the_client_has_fallen_silent() {
    let Some(house) = house() else { return };
    let _dog = watchdog(20, "a collected piece");
    let mut client = Client::connect(house.address);
    // One byte more than is collected, and nothing behind it.
    let chunk = format!("20001\r\n{}", "x".repeat(0x20001));
    client.send(format!(
        "POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"
    ));
    let answer = client.answer().expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "131073"));
}

#[test]
fn a_client_that_leaves_ends_the_wait_of_a_silent_application() {
    let Some(house) = house() else { return };
    let mut client = Client::connect(house.address);
    client.send(get("/leave"));
    thread::sleep(ms(100));
    drop(client);
    assert_eq!(house.notes(ms(1000)), r#"["http.disconnect"]"#);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_body_is_an_event() {
    let Some(house) = house() else { return };
    for pieces in [1, 4] {
        let mut client = Client::connect(house.address);
        client.send("POST /drain HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
        client.send("x".repeat(pieces * 60_000));
        thread::sleep(ms(100));
        drop(client);
        assert_eq!(house.notes(ms(1000)), r#"["http.disconnect"]"#);
    }
}

#[test]
fn a_client_that_leaves_ends_a_stream_with_an_oserror() {
    let Some(house) = house() else { return };
    // The second one sends more than the client takes: it is asleep in `send` then.
    for (ticks, pause) in [(1, 0), (200_000, 700)] {
        let mut client = Client::connect(house.address);
        client.send(get(&format!("/stream?{ticks}")));
        client.up_to("tick\n");
        thread::sleep(ms(pause));
        drop(client);
        let notes = house.notes(ms(1000));
        let wanted = r#"["OSError: the client has gone, http.disconnect", "finally"]"#;
        assert_eq!(notes, wanted, "{ticks}");
    }
}

#[test]
fn an_application_that_gives_no_answer_to_a_client_that_left_has_not_failed() {
    let Some(house) = house() else { return };
    let mut client = Client::connect(house.address);
    client.send(get("/leave"));
    // It reads on, so that there is somebody to see it.
    client.finish();
    assert_eq!(client.answer().expect("an answer").status, 499);
}

#[test]
fn a_client_that_says_no_more_may_still_listen() {
    let Some(house) = house() else { return };
    let mut client = Client::connect(house.address);
    client.send(get("/slow"));
    client.finish();
    assert_eq!(client.answer().expect("an answer").text(), "slow");
}

#[test]
fn a_slow_client_makes_a_slow_send_and_no_full_memory() {
    let Some(house) = house() else { return };
    let pids = house.pool.pids();
    let before = resident(pids[0]);
    let mut client = Client::connect(house.address);
    client.send("GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.up_to("\r\n\r\n");
    thread::sleep(ms(1000));
    // The same worker answers others meanwhile.
    let sent: usize = house.get("/notes").text().trim_matches(['[', ']']).parse().expect("a count");
    assert!(sent < 100, "{sent} of 400 pieces were sent to nobody");
    assert!(resident(pids[0]) < before + (8 << 20), "the worker has grown");
    let mut sink = vec![0; 1 << 20];
    let mut count = 0;
    loop {
        match client.stream.read(&mut sink).expect("more") {
            0 => break,
            some => count += some,
        }
    }
    // With the lines around the chunks it is more than what was sent; a little has come before.
    assert!(count >= 99_990_000, "{count}");
    assert!(resident(pids[0]) < before + (8 << 20), "the worker has grown");
}

#[test]
fn one_worker_lets_many_requests_wait_at_the_same_time() {
    let Some(house) = house() else { return };
    let began = Instant::now();
    let mut clients: Vec<Client> = (0..16).map(|_| Client::connect(house.address)).collect();
    for client in &mut clients {
        client.send(get("/slow"));
    }
    for client in &mut clients {
        assert_eq!(client.answer().expect("an answer").text(), "slow");
    }
    // One after the other it would be eight seconds.
    assert!(began.elapsed() < ms(4000), "{:?}", began.elapsed());
}

// Workers that die, or hang.

#[test]
fn the_worker_that_has_least_to_do_is_chosen() {
    let Some(house) = house_with(PythonSpec { workers: 2, ..spec("app") }) else { return };
    let mut client = Client::connect(house.address);
    client.send(get("/stream"));
    client.up_to("tick\n");
    let first = house.get("/pid").text();
    for _ in 0..10 {
        assert_eq!(house.get("/pid").text(), first);
    }
    let other = house.pool.pids().into_iter().find(|pid| pid.to_string() != first);
    // Now both have one request, and the first of them has two with ours.
    let mut second = Client::connect(house.address);
    second.send(get("/stream"));
    second.up_to("tick\n");
    drop(client);
    let other = other.expect("two workers").to_string();
    let began = Instant::now();
    while house.get("/pid").text() != other {
        assert!(began.elapsed() < ms(3000), "it is still counted as busy");
        thread::sleep(ms(20));
    }
}

#[test]
fn a_request_that_kills_its_worker_is_answered_502_and_never_sent_again() {
    let Some(house) = house_with(PythonSpec { workers: 2, ..spec("app") }) else { return };
    let path = scrap("deaths");
    let answer = house.get(&format!("/die?{}", path.display()));
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("the Python worker ended"), "{}", answer.text());
    assert!(!answer.head.contains("Retry-After"), "{}", answer.head);
    thread::sleep(ms(300));
    assert_eq!(fs::read_to_string(&path).expect("a note"), "x");
    let _ = fs::remove_file(path);
    assert_eq!(house.get("/exit").status, 502);
    assert_eq!(house.get("/hello").status, 200);
}

#[test]
fn a_dead_worker_is_replaced() {
    let Some(house) = house() else { return };
    let before = house.get("/pid").text();
    let mut kill = Command::new("sh");
    let _ = kill.args(["-c", "kill -9 \"$0\"", &before]).status();
    // A request that it was still given is answered 502. The next one waits for the successor.
    let began = Instant::now();
    let answer = loop {
        let answer = house.get("/pid");
        if answer.status == 200 {
            break answer;
        }
        assert!(began.elapsed() < ms(3000), "{}", answer.text());
    };
    assert_ne!(answer.text(), before);
}

#[test]
fn a_worker_killed_in_the_middle_of_an_upload_is_502() {
    let Some(house) = house() else { return };
    let before = house.get("/pid").text();
    let mut client = Client::connect(house.address);
    client.send("POST /sum HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nsome");
    thread::sleep(ms(200));
    let mut kill = Command::new("sh");
    let _ = kill.args(["-c", "kill -9 \"$0\"", &before]).status();
    thread::sleep(ms(200));
    client.send("more");
    assert_eq!(client.answer().expect("an answer").status, 502);
}

#[test]
fn a_blocked_event_loop_is_noticed_and_replaced() {
    let timeout = ms(1000);
    let Some(house) = house_with(PythonSpec { timeout, workers: 2, ..spec("app") }) else { return };
    for page in ["/block", "/loop"] {
        let (before, began) = (house.pool.pids(), Instant::now());
        let mut stuck = Client::connect(house.address);
        stuck.send(get(page));
        thread::sleep(ms(200));
        // The other worker has less to do.
        assert_eq!(house.get("/hello").status, 200);
        let answer = stuck.answer().expect("an answer");
        assert_eq!(answer.status, 504, "{}", answer.text());
        assert!(began.elapsed() < ms(4000), "{:?}", began.elapsed());
        house.wait_for_a_successor(&before);
    }
}

#[test]
fn an_application_may_wait_longer_than_a_worker_may_be_silent() {
    let Some(house) = house_with(PythonSpec { timeout: ms(400), ..spec("app") }) else { return };
    // It waits for 700 ms, and its worker says that it is there.
    assert_eq!(house.get("/after").text(), "waited");
}

#[test]
fn who_finds_no_worker_may_come_again() {
    let Some(house) = house() else { return };
    house.pool.stop();
    let answer = house.get("/hello");
    assert_eq!(answer.text(), "503 Service Unavailable\n\nno Python worker was free in time.\n");
    for field in ["Content-Type: text/plain; charset=utf-8", "Retry-After: 1"] {
        assert!(answer.says(field), "{}", answer.head);
    }
    // A WebSocket too.
    let head = Peer::ask(house.address, "/echo", "").head();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
}

#[test]
fn workers_are_replaced_while_they_serve() {
    let Some(house) = house() else { return };
    let before = house.get("/pid").text();
    let mut client = Client::connect(house.address);
    client.send(get("/slow"));
    thread::sleep(ms(100));
    house.pool.replace_all();
    assert_ne!(house.get("/pid").text(), before);
    assert_eq!(client.answer().expect("an answer").text(), "slow");
}

/// A worker without a server that listens at this path, and its control line.
fn lone_worker(path: &Path) -> (Child, UnixStream) {
    let (mut control, theirs) = UnixStream::pair().expect("a pair");
    let mut command = Command::new("python3");
    command.args(["-c", include_str!("../src/python/asgi_worker.py")]);
    command.arg("tests.python.raw_asgi:app").arg(path).stderr(Stdio::piped());
    // Then Python by itself does not look into the current folder.
    command.env("PYTHONSAFEPATH", "1");
    let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn().expect("python3");
    let mut ready = [0; 5];
    control.read_exact(&mut ready).expect("a word");
    assert_eq!(&ready, b"+\0\0\0\0");
    (child, control)
}

/// A lane to it, with a request.
fn lone_lane(path: &Path, page: &str) -> UnixStream {
    let mut lane = UnixStream::connect(path).expect("a lane");
    let mut frames = Vec::new();
    let addresses = "127.0.0.1\x001\x00127.0.0.1\x002";
    let block = format!("\0GET\0{page}\0\0http\x001.1\0{addresses}\0{page}\0\0");
    push_frame(&mut frames, b'R', block.as_bytes()).expect("a frame");
    push_frame(&mut frames, b'B', b"").expect("a frame");
    lane.write_all(&frames).expect("an open lane");
    lane
}

#[test]
fn a_worker_ends_with_its_server_even_out_of_an_endless_loop() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(60, "a worker without a server");
    let path = scrap("door");
    let (mut child, control) = lone_worker(&path);
    let _lane = lone_lane(&path, "/loop");
    thread::sleep(ms(200));
    assert!(matches!(child.try_wait(), Ok(None)));
    drop(control);
    let began = Instant::now();
    let _ = child.wait();
    assert!(began.elapsed() < ms(1000), "{:?}", began.elapsed());
    let _ = fs::remove_file(path);
}

#[test]
fn the_log_has_a_traceback_for_each_failure_and_none_for_a_client_that_has_gone() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(60, "a log");
    let path = scrap("log");
    let (child, _control) = lone_worker(&path);
    let mut lane = lone_lane(&path, "/stream");
    lane.read_exact(&mut [0; 20]).expect("a head and a tick");
    drop(lane);
    let mut lane = lone_lane(&path, "/raise");
    lane.read_exact(&mut [0; 20]).expect("a word");
    thread::sleep(ms(200));
    lane.write_all(b"Q\0\0\0\0").expect("an open lane");
    let output = child.wait_with_output().expect("its end");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("ValueError: before the head"), "{text}");
    assert_eq!(text.matches("Traceback").count(), 1, "{text}");
    assert!(output.status.success());
    let _ = fs::remove_file(path);
}

// WebSockets.

#[test]
fn a_hosted_websocket_echoes_text_and_bytes_of_any_length() {
    let Some(house) = house() else { return };
    let mut peer = Peer::open(house.address, "/echo");
    peer.text("h\u{e9}llo");
    peer.hears("h\u{e9}llo");
    let long = vec![7; 300 * 1024];
    peer.send(BINARY, &long);
    assert_eq!(peer.frame(), Some((BINARY, long)));
    peer.send(TEXT, "");
    peer.hears("");
    peer.send(PING, "are you there?");
    assert_eq!(peer.frame(), Some((PONG, b"are you there?".to_vec())));
    assert_eq!(peer.close(4000, "bye"), 4000);
    assert_eq!(house.notes(ms(1000)), r#"[[4000, "bye"]]"#);
}

#[test]
fn the_scope_of_a_websocket_differs_in_a_few_names() {
    let Some(house) = house() else { return };
    let mut peer = Peer::open(house.address, "/scope");
    let (_, text) = peer.frame().expect("a scope");
    let text = String::from_utf8_lossy(&text);
    for part in [
        r#""type": "'websocket'""#,
        r#""scheme": "'ws'""#,
        r#""path": "'/shop/scope'""#,
        r#""subprotocols": "[]""#,
        r#""extensions": "{'websocket.http.response': {}}""#,
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!text.contains("method"), "{text}");
}

#[test]
fn the_application_chooses_a_subprotocol_and_adds_fields() {
    let Some(house) = house() else { return };
    let mut peer = Peer::ask(house.address, "/echo", "Sec-WebSocket-Protocol: chat, superchat\r\n");
    let head = peer.head();
    assert!(head.contains("\r\nSec-WebSocket-Protocol: superchat\r\n"), "{head}");
    assert!(head.contains("\r\nx-state: green\r\n"), "{head}");
}

#[test]
fn messages_that_come_together_are_answered_in_order() {
    let Some(house) = house() else { return };
    let mut peer = Peer::open(house.address, "/echo");
    let all: Vec<u8> = (0..500).flat_map(|n| support::websocket::frame(TEXT, &text(n))).collect();
    peer.raw(&all);
    for number in 0..500 {
        assert_eq!(peer.frame(), Some((TEXT, text(number))));
    }
}

fn text(number: u32) -> Vec<u8> {
    format!("message {number}").into_bytes()
}

#[test]
fn the_end_of_a_websocket_has_a_code_for_both_sides() {
    let Some(house) = house() else { return };
    let end = |word: &str| {
        let mut peer = Peer::open(house.address, "/echo");
        peer.text(word);
        peer.end()
    };
    assert_eq!(end("close"), (3001, "enough".to_string()));
    assert_eq!(house.notes(ms(1000)), r#"[[3001, ""]]"#);
    assert_eq!(end("return"), (1000, String::new()));
    assert_eq!(end("raise"), (1011, String::new()));
    // The client vanishes.
    drop(Peer::open(house.address, "/echo"));
    assert_eq!(house.notes(ms(2000)), r#"[[1006, ""]]"#);
    // The worker does.
    assert_eq!(end("die"), (1011, String::new()));
}

#[test]
fn an_application_that_only_talks_learns_by_an_oserror_that_nobody_listens() {
    let Some(house) = house() else { return };
    let mut peer = Peer::open(house.address, "/push");
    peer.hears("tick");
    drop(peer);
    // There is one more event, and no other behind it.
    let wanted = [
        "OSError: the WebSocket has ended",
        "websocket.disconnect",
        "RuntimeError: websocket.disconnect was the last event",
    ];
    assert_eq!(house.notes(ms(1000)), format!("{wanted:?}"));
}

#[test]
fn a_websocket_that_is_not_accepted_gets_an_answer() {
    let Some(house) = house() else { return };
    let answer = |page| Peer::ask(house.address, page, "Connection: close\r\n").head();
    assert!(answer("/refuse").starts_with("HTTP/1.1 403 "));
    assert_eq!(house.notes(ms(1000)), r#"["websocket.disconnect"]"#);
    let mut peer = Peer::ask(house.address, "/deny", "");
    let head = peer.head();
    assert!(head.starts_with("HTTP/1.1 402 "), "{head}");
    assert!(head.contains("\r\nx-why: money\r\n"), "{head}");
    assert_eq!(house.notes(ms(1000)), r#"["websocket.disconnect"]"#);
    assert!(answer("/silent").starts_with("HTTP/1.1 500 "));
    assert!(answer("/early").starts_with("HTTP/1.1 500 "));
}

#[test]
fn a_client_that_leaves_before_the_decision_is_an_event() {
    let Some(house) = house() else { return };
    let peer = Peer::ask(house.address, "/undecided", "");
    thread::sleep(ms(100));
    drop(peer);
    assert_eq!(house.notes(ms(1500)), r#"["websocket.disconnect"]"#);
}

#[test]
fn an_application_that_does_not_receive_makes_its_client_wait() {
    let Some(house) = house() else { return };
    let pids = house.pool.pids();
    let before = resident(pids[0]);
    let mut peer = Peer::open(house.address, "/deaf");
    let mut stream = peer.stream.try_clone().expect("a second handle");
    let writer = thread::spawn(move || {
        let frame = support::websocket::frame(BINARY, &vec![0; 200_000]);
        for _ in 0..200 {
            stream.write_all(&frame).expect("an open WebSocket");
        }
    });
    thread::sleep(ms(1000));
    assert!(resident(pids[0]) < before + (16 << 20), "40 MB wait in the worker");
    peer.hears("200");
    writer.join().expect("the writer");
}

/// Without an end to it, each such client would hold two threads for as long as the application
/// likes.
#[test]
fn what_a_client_has_left_behind_need_not_be_taken_for_ever() {
    let Some(house) = house_with(PythonSpec { timeout: ms(500), ..spec("app") }) else { return };
    let mut peer = Peer::open(house.address, "/stone_deaf");
    let text = vec![b'x'; 100_000];
    for _ in 0..18 {
        assert!(peer.send(BINARY, &text));
    }
    peer.send(CLOSE, 1000_u16.to_be_bytes());
    drop(peer);
    let began = Instant::now();
    let running = house.running.as_ref().expect("it runs");
    while !running.lobby.is_empty() {
        assert!(began.elapsed() < ms(5000), "the connection is still held");
        thread::sleep(ms(20));
    }
}

#[test]
fn one_worker_has_sixty_websockets_open() {
    let Some(house) = house() else { return };
    let mut peers: Vec<Peer> = (0..60).map(|_| Peer::open(house.address, "/echo")).collect();
    for round in 0..3 {
        for peer in &mut peers {
            peer.text(&format!("round {round}"));
        }
        for peer in &mut peers {
            peer.hears(&format!("round {round}"));
        }
    }
}

#[test]
#[ignore = "exercise 44.3"]
fn exercise_44_3_a_websocket_whose_worker_dies_hears_1012() {
    let Some(house) = house() else { panic!("there is no python3 here") };
    let end = |word: &str| {
        let mut peer = Peer::open(house.address, "/echo");
        peer.text(word);
        peer.end().0
    };
    assert_eq!(end("raise"), 1011);
    assert_eq!(end("die"), 1012);
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
