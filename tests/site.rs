//! The whole program from outside: the real binaries, asked by a real client. The pages that need
//! more than a look are in `tests/site_pages.rs`.

mod support;

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use support::client::Client;
use support::server::Server;
use support::watchdog::watchdog;
use ureq::{Agent, Body, http::Response};

const WSGI: &str = env!("CARGO_BIN_EXE_wsgi");
const ASGI_HTTP: &str = env!("CARGO_BIN_EXE_asgi_http");
const ASGI_WS: &str = env!("CARGO_BIN_EXE_asgi_ws");
const ALL: [&str; 3] = [WSGI, ASGI_HTTP, ASGI_WS];

fn start(flags: &[&str]) -> Server {
    Server::start(WSGI, flags)
}

/// A client that keeps its connections, reports every status, and follows no redirect.
fn agent() -> Agent {
    let config = Agent::config_builder();
    let config = config.http_status_as_error(false).max_redirects(0);
    config.timeout_global(Some(Duration::from_secs(20))).build().new_agent()
}

fn url(server: &Server, path: &str) -> String {
    format!("http://{}{path}", server.address())
}

#[track_caller]
fn get(server: &Server, path: &str) -> Response<Body> {
    agent().get(url(server, path)).call().expect("an answer")
}

#[track_caller]
fn get_text(server: &Server, path: &str) -> (u16, String) {
    let mut answer = get(server, path);
    let text = answer.body_mut().read_to_string().expect("text");
    (answer.status().as_u16(), text)
}

fn field<'a>(answer: &'a Response<Body>, name: &str) -> &'a str {
    let value = answer.headers().get(name);
    value.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn raw(server: &Server, request: &str) -> Client {
    let address = server.address().parse().expect("an address");
    let mut client = Client::connect(address);
    client.send(request);
    client
}

// The pages.

#[test]
fn the_first_page_is_always_the_same_bytes() {
    let _dog = watchdog(30, "/");
    let server = start(&[]);
    let (status, first) = get_text(&server, "/");
    assert_eq!(status, 200);
    assert!(first.starts_with("<!doctype html>"));
    assert_eq!(get_text(&server, "/"), (200, first));
    assert_eq!(field(&get(&server, "/"), "content-type"), "text/html; charset=utf-8");
}

#[test]
fn the_wire_page_shows_the_visitor_its_own_request() {
    let _dog = watchdog(30, "/wire/");
    let server = start(&[]);
    let asked = agent().get(url(&server, "/wire/")).header("X-Mine", "<b>&\"");
    let mut answer = asked.call().expect("an answer");
    let page = answer.body_mut().read_to_string().expect("a page");
    assert!(page.contains("GET /wire/ HTTP/1.1"));
    assert!(page.contains("x-mine: &lt;b&gt;&amp;"), "{page}");
    assert!(!page.contains("<b>&"), "what a visitor sends is no HTML");
    assert!(!page.contains("{{"), "every place is filled");
}

#[test]
fn echo_gives_the_same_bytes_back() {
    let _dog = watchdog(30, "/echo/");
    let server = start(&[]);
    let agent = agent();
    for length in [0, 1, 5000, 1_000_000] {
        let bytes: Vec<u8> = (0..length).map(|at: u32| (at * 7 % 256) as u8).collect();
        let sent = agent.post(url(&server, "/echo/")).send(&bytes[..]);
        let echoed = sent.expect("an answer").body_mut().read_to_vec();
        assert!(echoed.expect("a body") == bytes, "{length} bytes");
    }
    // A reader of unknown length is sent in chunks.
    let source = ureq::SendBody::from_owned_reader(&b"in chunks"[..]);
    let mut answer = agent.put(url(&server, "/echo/")).send(source).expect("an answer");
    assert_eq!(answer.body_mut().read_to_string().expect("text"), "in chunks");
}

#[test]
fn count_answers_the_length_of_any_body() {
    let _dog = watchdog(60, "/count/");
    let server = start(&["--max-body", "5000000"]);
    for (length, want) in [(0, "0\n"), (5_000_000, "5000000\n")] {
        let sent = agent().post(url(&server, "/count/")).send(vec![b'x'; length]);
        let answer = sent.expect("an answer").body_mut().read_to_string();
        assert_eq!(answer.expect("a number"), want);
    }
    let mut big =
        raw(&server, "POST /count/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5000001\r\n\r\n");
    assert_eq!(big.answer().map(|answer| answer.status), Some(413));
}

#[test]
fn the_stream_arrives_line_by_line() {
    let _dog = watchdog(30, "/stream/");
    for program in ALL {
        let server = Server::start(program, &[]);
        let began = Instant::now();
        let answer = get(&server, "/stream/");
        assert_eq!(field(&answer, "transfer-encoding"), "chunked");
        let lines = BufReader::new(answer.into_body().into_reader()).lines();
        for (at, line) in lines.enumerate() {
            assert_eq!(line.expect("a line"), format!("line {} of 5", at + 1));
            let seconds = began.elapsed().as_secs_f64() - at as f64;
            assert!((-0.05..0.9).contains(&seconds), "line {at} {seconds} s late");
        }
    }
}

#[test]
fn sleep_takes_its_time() {
    let _dog = watchdog(30, "/sleep/");
    let server = start(&[]);
    let began = Instant::now();
    let slept = get_text(&server, "/sleep/0.2/");
    assert_eq!(slept, (200, "Slept for 0.2 seconds.\n".to_string()));
    assert!(began.elapsed() >= Duration::from_millis(200));
    for nonsense in ["61", "-1", "NaN", "inf", "x"] {
        assert_eq!(get_text(&server, &format!("/sleep/{nonsense}/")).0, 404);
    }
}

#[test]
fn bytes_are_as_many_as_asked_for() {
    let _dog = watchdog(60, "/bytes/");
    let server = start(&[]);
    for length in [0_u64, 1, 3_000_000] {
        let answer = get(&server, &format!("/bytes/{length}/"));
        assert_eq!(field(&answer, "content-length"), length.to_string());
        let mut body = answer.into_body().into_reader();
        let read = std::io::copy(&mut body, &mut std::io::sink());
        assert_eq!(read.expect("all of it"), length);
    }
    // HEAD costs nothing, however much GET would send.
    let head = agent().head(url(&server, "/bytes/9000000000000/")).call();
    assert_eq!(field(&head.expect("an answer"), "content-length"), "9000000000000");
    assert_eq!(get_text(&server, "/bytes/x/").0, 404);
}

#[test]
fn each_status_can_be_seen() {
    let _dog = watchdog(30, "/status/");
    let server = start(&[]);
    for code in [200, 204, 304, 404, 418, 503, 599] {
        let (status, text) = get_text(&server, &format!("/status/{code}/"));
        assert_eq!(status, code);
        assert_eq!(text.is_empty(), code == 204 || code == 304, "{text}");
    }
    for nonsense in ["100", "600", "99999", "x"] {
        assert_eq!(get_text(&server, &format!("/status/{nonsense}/")).0, 404);
    }
}

#[test]
fn a_page_that_panics_is_500_and_the_next_page_works() {
    let _dog = watchdog(30, "/panic/");
    let server = start(&["--threads", "2"]);
    for _ in 0..5 {
        let (status, text) = get_text(&server, "/panic/");
        assert_eq!(status, 500);
        assert!(text.contains("It is not your fault") && !text.contains("as it was asked to"));
        assert_eq!(get_text(&server, "/healthz"), (200, "ok\n".to_string()));
    }
    server.wait_for("\"GET /panic/ HTTP/1.1\" 500");
    let line = server.wait_for("the application panicked");
    assert!(line.contains("/panic/"), "{line}");
}

#[test]
fn what_is_not_there_is_404_and_what_is_not_allowed_405() {
    let _dog = watchdog(30, "404, 405, 501");
    let server = start(&[]);
    let paths = ["/nothing/", "/sleep/", "/echo/1/", "/a/b/c/", "//a/", "/bytes/1/2/", "/healthz/"];
    for path in paths {
        assert_eq!(get_text(&server, path).0, 404, "{path}");
    }
    let posted = agent().post(url(&server, "/")).send_empty().expect("an answer");
    assert_eq!(posted.status(), 405);
    assert_eq!(field(&posted, "allow"), "GET, HEAD, OPTIONS");
    let got = get(&server, "/echo/");
    assert_eq!((got.status().as_u16(), field(&got, "allow")), (405, "OPTIONS, POST, PUT"));
    for method in ["BREW", "TRACE", "get"] {
        let mut client = raw(&server, &format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.answer().map(|answer| answer.status), Some(501), "{method}");
    }
    assert_eq!(get_text(&server, "/%ff/").0, 400);
}

#[test]
fn a_page_without_its_slash_is_sent_to_the_slash() {
    let _dog = watchdog(30, "redirects");
    let server = start(&[]);
    for path in ["/wire", "/sleep/1"] {
        let answer = get(&server, path);
        assert_eq!(answer.status(), 301);
        let last = path.rsplit('/').next().expect("a segment");
        assert_eq!(field(&answer, "location"), format!("./{last}/"));
    }
}

#[test]
fn options_names_the_methods() {
    let _dog = watchdog(30, "OPTIONS");
    let server = start(&[]);
    for (target, allow) in [("/", "GET, HEAD, OPTIONS"), ("/echo/", "OPTIONS, POST, PUT")] {
        let mut client = raw(&server, &format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let answer = client.answer().expect("an answer");
        assert_eq!(answer.status, 204);
        assert!(answer.says(&format!("Allow: {allow}")), "{answer:?}");
    }
    let mut client = raw(&server, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().map(|answer| answer.status), Some(204));
}

#[test]
fn the_wire_view_goes_to_stderr() {
    let _dog = watchdog(30, "--wire");
    let server = start(&["--wire"]);
    get_text(&server, "/healthz");
    server.wait_for(r"#1 <- ch 7 request     GET /healthz HTTP/1.1\r\n");
    server.wait_for(r"#1 -> ch 11 response   ok\n");
}
