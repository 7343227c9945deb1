//! Chapter 17: ASGI. Applications behind the gateway, and clients on real sockets in front of it.

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use glasshouse::gateway::asgi::{
    Application, Asgi, AsgiError, Emit, Event, HttpScope, PIECE, Payload, Receive, Scope, State,
};
use glasshouse::gateway::wsgi::{self, Chunks, Environ, Exception, StartResponse, Wsgi};
use glasshouse::http::connection::{CloseReason, Http, Limits, Observer};
use glasshouse::http::exchange::{Exchange, Handler};
use glasshouse::http::headers::Headers;
use glasshouse::http::response::ResponseError;
use glasshouse::socket::listener::Listener;
use glasshouse::socket::lobby::{Deadlines, Guest, Lobby};
use glasshouse::socket::pool::{PoolSize, ThreadPool};
use support::client::{Client, eq_text};
use support::mutator::Mutator;
use support::watchdog::{Watchdog, watchdog};

/// A server with one handler behind it.
struct House {
    address: SocketAddr,
    pool: ThreadPool,
    log: Arc<Log>,
    _dog: Watchdog,
}

/// What an observer hears: of each request why it failed, of each connection why it ended.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
}

impl Observer for Log {
    fn exchanged(&self, exchange: &Exchange) {
        let failure = exchange.failure().map(|refusal| refusal.to_string());
        let line = failure.unwrap_or(FINE.to_string());
        self.lines.lock().expect("the log").push(line);
    }

    fn ended(&self, _: &Guest, reason: CloseReason) {
        self.lines.lock().expect("the log").push(reason.to_string());
    }
}

type Called = Result<(), Exception>;

/// A closure needs these bounds spelt out for it.
fn app<F>(function: F) -> Arc<dyn Application>
where
    F: Fn(&Scope, &mut dyn Receive, &mut dyn Emit) -> Called + Send + Sync + 'static,
{
    Arc::new(function)
}

/// The same for an application that knows one kind of scope.
fn http<F>(function: F) -> Arc<dyn Application>
where
    F: Fn(&HttpScope, &mut dyn Receive, &mut dyn Emit) -> Called + Send + Sync + 'static,
{
    app(move |scope, receive, send| match scope {
        Scope::Http(scope) => function(scope, receive, send),
        _ => Err("I know requests only".into()),
    })
}

fn serve(application: Arc<dyn Application>) -> House {
    let gateway = |bound| Arc::new(Asgi::start(application, bound).expect("it starts")) as _;
    serve_handler(gateway, Deadlines::default())
}

fn serve_handler(
    handler: impl FnOnce(SocketAddr) -> Arc<dyn Handler>,
    deadlines: Deadlines,
) -> House {
    let listener = Listener::bind("127.0.0.1", 0).expect("a free port");
    let (address, log) = (listener.address(), Arc::new(Log::default()));
    let http = Http {
        handler: handler(address),
        observer: log.clone(),
        limits: Limits::default(),
        keep_alive: true,
        stop: listener.stop(),
        tap: None,
    };
    let size = PoolSize { start: 2, cap: 8, ..PoolSize::default() };
    let lobby = Arc::new(Lobby::new(deadlines, size.cap));
    let pool = ThreadPool::start(listener, lobby, size, Arc::new(http));
    let _dog = watchdog(60, "an ASGI application");
    House { address, pool, log, _dog }
}

impl House {
    fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Sends one request on a connection of its own; everything that comes back, without `Date`.
    #[track_caller]
    fn ask(&self, request: &str) -> String {
        let mut client = self.client();
        client.send(request);
        client.all()
    }

    /// Lets all connections end. What the observer has heard.
    #[track_caller]
    fn end(self) -> Vec<String> {
        assert!(self.pool.stop(Duration::from_secs(20)), "somebody stays");
        std::mem::take(&mut *self.log.lines.lock().expect("the log"))
    }
}

/// One request to one application: what came back, and what was logged about it.
#[track_caller]
fn ask(application: Arc<dyn Application>, request: &str) -> (String, String) {
    let house = serve(application);
    let answer = house.ask(request);
    (answer, house.end().remove(0))
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const FINE: &str = "no failure";
const FAILED: &str = "HTTP/1.1 500 Internal Server Error\r\n";

/// The answer to [`GET`] or [`HEAD`], with this line about its length and this body.
fn ok(framing: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nServer: glasshouse\r\n{framing}\r\nConnection: close\r\n\r\n{body}")
}

fn why(problem: impl ToString) -> String {
    format!(
        "500 Internal Server Error: the application failed: {} (RFC 9110, section 15.6.1)",
        problem.to_string()
    )
}

fn start(status: u16, fields: &[(&str, &str)]) -> Event {
    let mut headers = Headers::new();
    for (name, value) in fields {
        headers.try_push(name, value).expect("a good field");
    }
    Event::HttpResponseStart { status, headers }
}

fn piece(body: &str) -> Event {
    Event::HttpResponseBody { body: body.into(), more_body: true }
}

fn last(body: &str) -> Event {
    Event::HttpResponseBody { body: body.into(), more_body: false }
}

/// The whole request body, from its events.
fn read_body(receive: &mut dyn Receive) -> Result<Vec<u8>, Exception> {
    let mut whole = Vec::new();
    loop {
        match receive.receive()? {
            Event::HttpRequest { body, more_body } => {
                whole.extend(body);
                if !more_body {
                    return Ok(whole);
                }
            }
            other => return Err(format!("{} in the body", other.name()).into()),
        }
    }
}

#[test]
fn a_function_of_ten_lines_is_an_application() {
    fn hello(scope: &Scope, _: &mut dyn Receive, send: &mut dyn Emit) -> Result<(), Exception> {
        let Scope::Http(scope) = scope else {
            return Err("only requests".into());
        };
        let mut headers = Headers::new();
        headers.try_push("Content-Type", "text/plain")?;
        send.send(Event::HttpResponseStart { status: 200, headers })?;
        let body = [b"Hello, ", scope.query_string(), b"!\n"].concat();
        send.send(Event::HttpResponseBody { body, more_body: false })
    }
    let request = "GET /?Ada HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let (answer, log) = ask(Arc::new(hello), request);
    let wanted = ok("Content-Length: 12", "Hello, Ada!\n")
        .replace("Server:", "Content-Type: text/plain\r\nServer:");
    eq_text(&wanted, &answer);
    assert_eq!(log, FINE);
}

/// One application, behind both gateways. What it answers depends on the path.
struct Both;

impl Both {
    fn status(path: &str) -> (u16, &'static str) {
        match path {
            "/missing" => (404, "404 Not Found"),
            "/none" => (204, "204 No Content"),
            _ => (200, "200 OK"),
        }
    }

    fn body(path: &str, input: Vec<u8>) -> Vec<Vec<u8>> {
        match path {
            "/empty" => vec![],
            "/parts" => vec![b"in ".to_vec(), b"".to_vec(), b"parts".to_vec(), input],
            _ => vec![[path.as_bytes(), b" ", &input].concat()],
        }
    }

    const FIELDS: &[(&str, &str)] = &[("Content-Type", "text/plain"), ("Set-Cookie", "a=1")];
}

impl wsgi::Application for Both {
    fn call<'a>(&self, mut environ: Environ<'a>, start_response: StartResponse<'a>) -> Chunks<'a> {
        let mut input = Vec::new();
        environ.input.read_to_end(&mut input)?;
        let path = environ.path().unwrap_or_default();
        start_response.call(Both::status(path).1, Both::FIELDS)?;
        Ok(Box::new(Both::body(path, input).into_iter()))
    }
}

impl Application for Both {
    fn call(&self, scope: &Scope, receive: &mut dyn Receive, send: &mut dyn Emit) -> Called {
        let Scope::Http(scope) = scope else {
            return Err("I know requests only".into());
        };
        let input = read_body(receive)?;
        send.send(start(Both::status(&scope.path).0, Both::FIELDS))?;
        let chunks = Both::body(&scope.path, input);
        // Where WSGI has the length of a list, ASGI has `more_body`.
        if let [body] = &chunks[..] {
            let body = body.clone();
            return send.send(Event::HttpResponseBody { body, more_body: false });
        }
        for body in chunks {
            send.send(Event::HttpResponseBody { body, more_body: true })?;
        }
        send.send(last(""))
    }
}

#[test]
fn both_gateways_give_the_same_bytes() {
    let through_asgi = serve(Arc::new(Both));
    let gateway = |bound| Arc::new(Wsgi::new(Arc::new(Both), bound)) as _;
    let through_wsgi = serve_handler(gateway, Deadlines::default());
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /caf%C3%A9?q HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /missing HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /parts HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /parts HTTP/1.0\r\n\r\n",
        "GET /none HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /empty HTTP/1.1\r\nHost: a\r\n\r\n",
        "HEAD /empty HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
        "HEAD /parts HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST /parts HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let answer = |house: &House| {
            let mut client = house.client();
            client.send(request);
            client.finish();
            client.all()
        };
        eq_text(&answer(&through_wsgi), &answer(&through_asgi));
    }
}

/// What an application sees of one request's scope.
#[track_caller]
fn scope(request: &str) -> Vec<String> {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let house = serve(http(move |scope, _, send| {
        let mut seen = vec![
            format!("http_version {}", scope.http_version()),
            format!("method {}", scope.head.method.as_str()),
            format!("path {}", scope.path),
            format!("raw_path {}", scope.raw_path().escape_ascii()),
            format!("query_string {}", scope.query_string().escape_ascii()),
            format!("server {}", scope.server),
            format!("client {}", scope.client.ip()),
        ];
        for (name, value) in scope.headers() {
            seen.push(format!("{name}: {}", value.escape_ascii()));
        }
        tell.lock().expect("a listener").send(seen)?;
        send.send(start(204, &[]))?;
        send.send(last(""))
    }));
    house.ask(request);
    let port = house.address.port();
    let seen: Vec<String> = told.recv().expect("a scope");
    seen.into_iter().map(|line| line.replace(&format!(":{port}"), ":8000")).collect()
}

#[test]
fn the_scope_says_what_the_request_says() {
    let seen = scope(
        "POST /a%20b/caf%C3%A9?x=%41&y HTTP/1.1\r\nAccept: b\r\nHost: example.org\r\nACCEPT: a\r\n\
         X_Y: \u{e9}\r\nConnection: close\r\n\r\n",
    );
    let wanted = [
        "http_version 1.1",
        "method POST",
        "path /a b/café",
        "raw_path /a%20b/caf%C3%A9",
        "query_string x=%41&y",
        "server 127.0.0.1:8000",
        "client 127.0.0.1",
        // In the order they came, in lower case, and nothing is joined.
        "accept: b",
        "host: example.org",
        "accept: a",
        "x_y: \\xc3\\xa9",
        "connection: close",
    ];
    assert_eq!(seen, wanted);
}

#[test]
fn the_host_in_the_target_wins_over_the_field() {
    let seen = scope("GET http://b:8/p HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(seen[7..], ["host: b:8", "connection: close"]);
    let seen = scope("GET http://b/ HTTP/1.0\r\nAccept: x\r\n\r\n");
    assert_eq!(seen[7..], ["host: b", "accept: x"]);
    let seen = scope("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(seen[0], "http_version 1.0");
    assert_eq!(seen.len(), 7, "{seen:?}");
}

#[test]
fn behind_a_proxy_the_path_begins_with_the_root_path() {
    for root in ["", "/shop"] {
        let application = http(|scope, _, send| {
            send.send(start(200, &[]))?;
            send.send(last(&format!("{} {} {}", scope.root_path, scope.path, scope.path_info())))
        });
        let gateway =
            |bound| Arc::new(Asgi::start(application, bound).expect("it starts").below(root)) as _;
        let answer = serve_handler(gateway, Deadlines::default()).ask(GET);
        assert!(answer.ends_with(&format!("\r\n\r\n{root} {root}/ /")), "{answer}");
    }
}

#[test]
fn a_path_that_is_no_text_is_refused() {
    for path in ["/%zz", "/%ff", "/%00"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let (answer, _) = ask(Arc::new(Both), &request);
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    }
}

/// Answers with what it receives: the length of each piece of the body, and whether more follows.
fn pieces() -> Arc<dyn Application> {
    http(|_, receive, send| {
        let mut text = String::new();
        loop {
            let Event::HttpRequest { body, more_body } = receive.receive()? else {
                return Err("no request".into());
            };
            assert!(body.capacity() < body.len() + 64, "{} of room", body.capacity());
            text += &format!("{}{}", body.len(), if more_body { "+" } else { "." });
            if !more_body {
                break;
            }
        }
        send.send(start(200, &[]))?;
        send.send(last(&text))
    })
}

#[test]
fn the_body_comes_in_events() {
    let post = |fields: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n\r\n{body}")
    };
    let got =
        |request: &str| ask(pieces(), request).0.split_once("\r\n\r\n").unwrap().1.to_string();
    assert_eq!(got(GET), "0.");
    assert_eq!(got(&post("Content-Length: 0", "")), "0.");
    assert_eq!(got(&post("Content-Length: 5", "hello, not this")), "5.");
    let chunked = post("Transfer-Encoding: chunked", "2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n");
    assert_eq!(got(&chunked), "2+3+0.");
}

#[test]
fn a_long_body_comes_in_pieces_of_at_most_64_kib() {
    let length = 1_000_000;
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    let house = serve(pieces());
    let mut client = house.client();
    client.send(request + &"x".repeat(length));
    let text = client.answer().expect("an answer").text();
    let lengths = text.trim_end_matches('.').split('+').map(|part| part.parse().expect("a length"));
    let lengths: Vec<usize> = lengths.collect();
    assert!(PIECE == 65_536 && lengths.iter().all(|length| *length <= PIECE), "{text}");
    assert_eq!(lengths.iter().sum::<usize>(), length);
}

#[test]
fn a_broken_body_is_an_error_and_a_hang_up_is_an_event() {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let house = serve(http(move |scope, receive, send| {
        if scope.path == "/early" {
            send.send(start(200, &[]))?;
            send.send(piece("early"))?;
        }
        let seen = loop {
            match receive.receive() {
                Ok(Event::HttpRequest { more_body: true, .. }) => {}
                Ok(event) => break event.name().to_string(),
                Err(error) => break error.to_string(),
            }
        };
        tell.lock().expect("a listener").send(seen)?;
        Ok(())
    }));
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na";
    let answer = house.ask(&format!("{head}bad"));
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert_eq!(told.recv().unwrap(), "the data of a chunk is not followed by CRLF");
    let mut client = house.client();
    client.send(head);
    drop(client);
    assert_eq!(told.recv().unwrap(), "http.disconnect");
    // Whoever hangs up on an answer that it has not read resets the connection.
    let mut client = house.client();
    client.send(head.replace(" / ", " /early "));
    client.stream.peek(&mut [0]).expect("an answer");
    drop(client);
    assert_eq!(told.recv().unwrap(), "http.disconnect");
    // None of this was the application's fault.
    let log = house.end();
    assert!(log.iter().all(|line| !line.contains("500 ")), "{log:?}");
}

#[test]
fn nothing_is_sent_before_the_first_piece() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let house = serve(http(move |_, _, send| {
        send.send(start(200, &[]))?;
        wait.lock().expect("a signal").recv()?;
        send.send(last("whole"))
    }));
    let mut client = house.client();
    client.send(GET);
    assert_eq!(client.within(Duration::from_millis(50)), "");
    go.send(()).expect("the application waits");
    eq_text(&ok("Content-Length: 5", "whole"), &client.all());
}

#[test]
fn a_single_piece_leaves_in_one_write_with_its_head() {
    let house = serve(Arc::new(Both));
    let mut stream = TcpStream::connect(house.address).expect("a connection");
    let mut block = [0; 4096];
    for _ in 0..200 {
        stream.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
        let count = stream.read(&mut block).expect("an answer");
        assert!(block[..count].ends_with(b"\r\n\r\n/x "), "{count} bytes came first");
    }
}

#[test]
fn each_piece_is_on_the_wire_when_send_returns() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let house = serve(http(move |_, _, send| {
        let wait = wait.lock().expect("a signal");
        send.send(start(200, &[]))?;
        for text in ["one", "two"] {
            send.send(piece(text))?;
            wait.recv()?;
        }
        // The last one too: some applications go on working after it.
        send.send(last("end"))?;
        wait.recv()?;
        Ok(())
    }));
    let mut client = house.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    for text in ["3\r\none\r\n", "3\r\ntwo\r\n", "3\r\nend\r\n0\r\n\r\n"] {
        client.up_to(text);
        go.send(()).expect("the application waits");
    }
}

#[test]
fn head_gets_the_same_head_as_get_and_no_body() {
    for texts in [&["whole"][..], &["in ", "parts"], &["", "late"]] {
        let respond = move || {
            http(move |_, _, send| {
                send.send(start(200, &[]))?;
                let (end, pieces) = texts.split_last().expect("a piece");
                for text in pieces {
                    send.send(piece(text))?;
                }
                send.send(last(end))
            })
        };
        let (get, _) = ask(respond(), GET);
        let (head, log) = ask(respond(), HEAD);
        let (wanted, _) = get.split_once("\r\n\r\n").expect("a head");
        eq_text(&format!("{wanted}\r\n\r\n"), &head);
        assert_eq!(log, FINE);
    }
    // An empty answer to HEAD says nothing about the length for GET.
    let empty = http(|_, _, send| {
        send.send(start(200, &[]))?;
        send.send(last(""))
    });
    assert!(!ask(empty, HEAD).0.contains("Content-Length"));
}

/// Sends these events, and returns what the first wrong one was answered with.
#[track_caller]
fn sending(events: Vec<Event>) -> (String, String) {
    ask(http(move |_, _, send| events.iter().try_for_each(|event| send.send(event.clone()))), GET)
}

#[test]
fn wrong_orders_are_errors_with_a_name() {
    let fresh = || start(200, &[]);
    for (events, error) in [
        (vec![], AsgiError::NoAnswer),
        (vec![fresh()], AsgiError::NoAnswer),
        (vec![last("x")], AsgiError::BodyBeforeStart),
        (vec![fresh(), fresh()], AsgiError::StartedTwice),
        (vec![start(99, &[])], AsgiError::StatusOutOfRange),
        (vec![start(101, &[])], AsgiError::StatusOutOfRange),
        (vec![start(600, &[])], AsgiError::StatusOutOfRange),
        (vec![start(200, &[("Content-Length", "x")])], AsgiError::Answer(ResponseError::BadLength)),
        (vec![Event::HttpDisconnect], AsgiError::NotAnAnswer("http.disconnect")),
        (
            vec![fresh(), Event::WebsocketSend(Payload::Text("x".into()))],
            AsgiError::NotAnAnswer("websocket.send"),
        ),
        (
            vec![Event::LifespanShutdownComplete],
            AsgiError::NotAnAnswer("lifespan.shutdown.complete"),
        ),
    ] {
        let (answer, log) = sending(events);
        assert!(answer.starts_with(FAILED), "{error}: {answer}");
        assert_eq!(log, why(error));
    }
}

#[test]
fn an_error_after_the_first_piece_cuts_the_answer() {
    let cut = ok("Transfer-Encoding: chunked", "4\r\nhalf\r\n");
    for (event, error) in [
        (None, AsgiError::EndMissing),
        (Some(start(200, &[])), AsgiError::StartedTwice),
        (Some(Event::WebsocketConnect), AsgiError::NotAnAnswer("websocket.connect")),
    ] {
        let mut events = vec![start(200, &[]), piece("half")];
        events.extend(event);
        let (answer, log) = sending(events);
        eq_text(&cut, &answer);
        assert_eq!(log, why(error));
    }
    let (answer, log) = ask(
        http(|_, _, send| {
            send.send(start(200, &[]))?;
            send.send(piece("half"))?;
            Err("no luck".into())
        }),
        GET,
    );
    eq_text(&cut, &answer);
    assert_eq!(log, why("no luck"));
}

#[test]
fn an_error_after_the_end_leaves_the_answer_whole() {
    for late in [last("x"), piece(""), start(200, &[])] {
        let (answer, log) = sending(vec![start(200, &[]), last("whole"), late]);
        eq_text(&ok("Content-Length: 5", "whole"), &answer);
        assert!(log.starts_with("500 "), "{log}");
    }
}

#[test]
fn an_error_before_the_first_piece_is_a_clean_500() {
    for started in [false, true] {
        let (answer, log) = ask(
            http(move |_, _, send| {
                if started {
                    send.send(start(200, &[]))?;
                }
                Err("no luck".into())
            }),
            GET,
        );
        assert!(answer.starts_with(FAILED), "{answer}");
        assert!(!answer.contains("no luck"), "{answer}");
        assert_eq!(log, why("no luck"));
    }
    let (answer, log) = ask(http(|_, _, _| panic!("as it was asked to")), GET);
    assert!(answer.starts_with(FAILED), "{answer}");
    assert!(log.contains("the application panicked"), "{log}");
}

#[test]
fn the_length_is_kept_or_the_error_has_a_name() {
    let declare = |text| vec![start(200, &[("Content-Length", "5")]), piece("who"), last(text)];
    let (answer, log) = sending(declare("le"));
    eq_text(&ok("Content-Length: 5", "whole"), &answer);
    assert_eq!(log, FINE);
    let (answer, log) = sending(declare(""));
    eq_text(&ok("Content-Length: 5", "who"), &answer);
    assert_eq!(log, why(AsgiError::Answer(ResponseError::TooShort(2))));
    let (answer, log) = sending(declare("lesome"));
    eq_text(&ok("Content-Length: 5", "whole"), &answer);
    assert_eq!(log, why(AsgiError::Answer(ResponseError::TooLong)));
}

#[test]
fn fields_about_the_connection_are_dropped() {
    let fields =
        &[("transfer-encoding", "gzip"), ("Connection", "keep-alive"), ("Keep-Alive", "timeout=9")];
    let (answer, log) = sending(vec![start(200, fields), last("whole")]);
    eq_text(&ok("Content-Length: 5", "whole"), &answer);
    assert_eq!(log, FINE);
}

/// An application that says by a channel which events it receives after the request body.
fn listener() -> (Arc<dyn Application>, Receiver<&'static str>) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let application = http(move |scope, receive, send| {
        read_body(receive)?;
        let tell = tell.lock().expect("a listener");
        if scope.path == "/first" {
            send.send(start(200, &[]))?;
            send.send(last("first"))?;
        }
        tell.send("waits")?;
        tell.send(receive.receive()?.name())?;
        tell.send(receive.receive()?.name())?;
        if scope.path != "/first" {
            send.send(start(200, &[]))?;
            send.send(last("late"))?;
        }
        Ok(())
    });
    (application, told)
}

#[test]
fn after_the_answer_there_is_only_a_disconnect() {
    let (application, told) = listener();
    let house = serve(application);
    let mut client = house.client();
    client.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().expect("an answer").text(), "first");
    let seen: Vec<&str> = told.iter().take(3).collect();
    assert_eq!(seen, ["waits", "http.disconnect", "http.disconnect"]);
    // The connection is as good as before.
    client.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().expect("an answer").text(), "first");
}

#[test]
fn a_hang_up_is_told_to_an_application_that_waits_for_it() {
    let (application, told) = listener();
    let house = serve(application);
    let mut client = house.client();
    client.send(GET);
    assert_eq!(told.recv(), Ok("waits"));
    assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "the client is still there");
    drop(client);
    assert_eq!(told.recv(), Ok("http.disconnect"));
    assert_eq!(told.recv(), Ok("http.disconnect"));
    assert_eq!(house.end()[0], FINE);
}

#[test]
fn a_server_that_stops_does_not_wait_for_a_client_that_stays() {
    let (application, told) = listener();
    let house = serve(application);
    let mut client = house.client();
    client.send(GET);
    assert_eq!(told.recv(), Ok("waits"));
    // Not before the thread waits: an application that computes may finish in peace.
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(house.end()[0], FINE);
    assert_eq!(told.recv(), Ok("http.disconnect"));
    assert!(client.all().ends_with("\r\n\r\nlate"));
}

#[test]
fn a_client_that_has_sent_all_it_will_send_can_still_be_answered() {
    let (application, told) = listener();
    let house = serve(application);
    let mut client = house.client();
    client.send(GET);
    assert_eq!(told.recv(), Ok("waits"));
    client.stream.shutdown(Shutdown::Write).expect("an open socket");
    assert_eq!(told.recv(), Ok("http.disconnect"));
    assert!(client.all().ends_with("\r\n\r\nlate"));
}

#[test]
fn a_next_request_is_no_hang_up_and_is_not_lost() {
    let (application, told) = listener();
    let house = serve(application);
    let mut client = house.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(told.recv(), Ok("waits"));
    client.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "the client is still there");
    client.finish();
    assert_eq!(client.answer().expect("an answer").text(), "late");
    assert_eq!(client.answer().expect("an answer").text(), "first");
}

#[test]
fn whoever_waits_for_something_else_can_look_whether_the_client_is_there() {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let application = http(move |_, receive, send| {
        receive.receive()?;
        tell.lock().expect("a listener").send(receive.has_hung_up())?;
        while !receive.has_hung_up() {
            thread::sleep(Duration::from_millis(5));
        }
        tell.lock().expect("a listener").send(true)?;
        send.send(start(200, &[]))?;
        send.send(last("late"))
    });
    let house = serve(application);
    let mut client = house.client();
    client.send(GET);
    assert_eq!(told.recv(), Ok(false));
    assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "the client is still there");
    client.stream.shutdown(Shutdown::Write).expect("an open socket");
    assert_eq!(told.recv(), Ok(true));
    assert!(client.all().ends_with("\r\n\r\nlate"));
}

/// Sends pieces without end; what `send` says in the end.
fn endless() -> (Arc<dyn Application>, Receiver<(usize, String)>) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let application = http(move |_, _, send| {
        send.send(start(200, &[]))?;
        let text = ".".repeat(100_000);
        for sent in 0.. {
            if let Err(error) = send.send(piece(&text)) {
                let io = error.downcast_ref::<std::io::Error>().map(|error| error.kind());
                tell.lock().expect("a listener").send((sent, format!("{io:?}")))?;
                return Err(error);
            }
        }
        Ok(())
    });
    (application, told)
}

#[test]
fn send_to_a_client_that_has_gone_is_an_io_error_and_no_failure() {
    let (application, told) = endless();
    let house = serve(application);
    let mut client = house.client();
    client.send(GET);
    client.up_to("....");
    drop(client);
    let (_, error) = told.recv().expect("an error");
    assert!(["Some(BrokenPipe)", "Some(ConnectionReset)"].contains(&&*error), "{error}");
    assert_eq!(house.end(), [FINE, "the client went away"]);
}

#[test]
fn a_slow_client_makes_send_wait() {
    let (application, told) = endless();
    let gateway = |bound| Arc::new(Asgi::start(application, bound).expect("it starts")) as _;
    let deadlines = Deadlines { write: Duration::from_millis(300), ..Deadlines::default() };
    let house = serve_handler(gateway, deadlines);
    let mut client = house.client();
    client.send(GET);
    client.up_to("....");
    let (sent, error) = told.recv().expect("an error");
    assert_eq!(error, "Some(TimedOut)");
    assert!(sent < 500, "{sent} pieces were taken for a client that does not read");
    assert_eq!(house.end(), [FINE, "the client went away"]);
}

/// The name of an event that must come, and what is sent then.
type Reaction = (&'static str, fn() -> Event);

/// The lifespan of an application that follows this script: what it answers to each event.
fn living(script: &'static [Reaction]) -> Arc<dyn Application> {
    app(move |scope, receive, send| {
        if !matches!(scope, Scope::Lifespan) {
            return Err("only lifespan here".into());
        }
        for (expected, answer) in script {
            assert_eq!(receive.receive()?.name(), *expected);
            send.send(answer())?;
        }
        Ok(())
    })
}

const BOUND: &str = "127.0.0.1:8000";
const PATIENCE: Duration = Duration::from_secs(10);

fn begin(application: Arc<dyn Application>) -> Result<Asgi, AsgiError> {
    Asgi::start(application, BOUND.parse().expect("an address"))
}

#[test]
fn a_lifespan_goes_from_startup_to_shutdown() {
    let asgi = begin(living(&[
        ("lifespan.startup", || Event::LifespanStartupComplete(State::new())),
        ("lifespan.shutdown", || Event::LifespanShutdownComplete),
    ]));
    assert_eq!(asgi.expect("it starts").shut_down(PATIENCE), None);
}

#[test]
fn startup_ends_before_the_first_request_is_served() {
    let began = Instant::now();
    let asgi = begin(living(&[("lifespan.startup", || {
        thread::sleep(Duration::from_millis(100));
        Event::LifespanStartupComplete(State::new())
    })]));
    assert!(began.elapsed() >= Duration::from_millis(100));
    // It has ended by itself: there is nothing to put away.
    assert_eq!(asgi.expect("it starts").shut_down(PATIENCE), None);
}

#[test]
fn an_application_that_cannot_start_says_why() {
    let asgi = begin(living(&[("lifespan.startup", || {
        Event::LifespanStartupFailed("no database".to_string())
    })]));
    let error = asgi.err().expect("it does not start");
    assert_eq!(error, AsgiError::StartupFailed("no database".to_string()));
    assert_eq!(
        error.to_string(),
        "the application could not start: no database (ASGI Lifespan, Startup Failed)"
    );
}

#[test]
fn an_application_without_lifespan_is_served_all_the_same() {
    let raises = |scope: &Scope, _: &mut dyn Receive, _: &mut dyn Emit| match scope {
        Scope::Lifespan => Err("I know requests only".into()),
        _ => Ok(()),
    };
    let panics = |scope: &Scope, receive: &mut dyn Receive, _: &mut dyn Emit| {
        assert!(!matches!(scope, Scope::Lifespan), "as it was asked to");
        receive.receive()?;
        Ok(())
    };
    let returns = |_: &Scope, _: &mut dyn Receive, _: &mut dyn Emit| Ok(());
    for application in [app(raises), app(panics), app(returns)] {
        let asgi = begin(application).expect("it starts");
        assert_eq!(asgi.shut_down(PATIENCE), None);
    }
}

#[test]
fn a_shutdown_that_fails_or_hangs_is_reported() {
    const READY: Reaction = ("lifespan.startup", || Event::LifespanStartupComplete(State::new()));
    let asgi = begin(living(&[
        READY,
        ("lifespan.shutdown", || Event::LifespanShutdownFailed("still busy".to_string())),
    ]));
    assert_eq!(asgi.unwrap().shut_down(PATIENCE), Some("still busy".to_string()));
    let asgi = begin(living(&[
        READY,
        ("lifespan.shutdown", || {
            thread::sleep(Duration::from_millis(400));
            Event::LifespanShutdownComplete
        }),
    ]));
    let late = asgi.unwrap().shut_down(Duration::from_millis(50));
    assert_eq!(late, Some("the application took too long".to_string()));
}

#[test]
fn in_a_lifespan_too_wrong_orders_have_a_name() {
    let (tell, told): (Sender<String>, _) = channel();
    let tell = Mutex::new(tell);
    let asgi = begin(app(move |_, receive, send| {
        let wrong = |send: &mut dyn Emit, event: Event| {
            let error = send.send(event).expect_err("a wrong event").to_string();
            tell.lock().expect("a listener").send(error).expect("a listener");
        };
        let ready = || Event::LifespanStartupComplete(State::new());
        wrong(send, ready());
        receive.receive()?;
        assert!(!receive.has_hung_up(), "there is no client");
        wrong(send, Event::LifespanShutdownComplete);
        wrong(send, last("x"));
        send.send(ready())?;
        wrong(send, ready());
        receive.receive()?;
        wrong(send, ready());
        send.send(Event::LifespanShutdownComplete)?;
        wrong(send, Event::LifespanShutdownComplete);
        Ok(())
    }));
    assert_eq!(asgi.expect("it starts").shut_down(PATIENCE), None);
    let seen: Vec<String> = told.iter().collect();
    let name = |name| AsgiError::NotAnAnswer(name).to_string();
    let wanted = [
        name("lifespan.startup.complete"),
        name("lifespan.shutdown.complete"),
        name("http.response.body"),
        name("lifespan.startup.complete"),
        name("lifespan.startup.complete"),
        name("lifespan.shutdown.complete"),
    ];
    assert_eq!(seen, wanted);
}

#[test]
fn each_request_has_a_copy_of_the_state() {
    let house = serve(app(|scope, receive, send| match scope {
        Scope::Http(scope) => {
            let mut state = scope.state.clone();
            let seen = state.insert("greeting".to_string(), "changed".to_string());
            send.send(start(200, &[]))?;
            send.send(last(&seen.unwrap_or_default()))
        }
        _ => {
            receive.receive()?;
            let state = BTreeMap::from([("greeting".to_string(), "hello".to_string())]);
            send.send(Event::LifespanStartupComplete(state))?;
            receive.receive()?;
            send.send(Event::LifespanShutdownComplete)
        }
    }));
    for _ in 0..3 {
        assert!(house.ask(GET).ends_with("\r\n\r\nhello"));
    }
}

#[test]
fn every_error_names_its_rule_in_a_sentence() {
    for (error, rule) in [
        (AsgiError::BodyBeforeStart, "ASGI HTTP, Response Start"),
        (AsgiError::StartedTwice, "ASGI HTTP, Response Start"),
        (AsgiError::NoAnswer, "ASGI HTTP, Response Start"),
        (AsgiError::StatusOutOfRange, "ASGI HTTP, Response Start"),
        (AsgiError::AfterTheEnd, "ASGI HTTP, Response Body"),
        (AsgiError::EndMissing, "ASGI HTTP, Response Body"),
        (AsgiError::NotAnAnswer("x"), "ASGI, Events"),
        (AsgiError::Answer(ResponseError::TooLong), "RFC 9112, section 6.3"),
        (AsgiError::StartupFailed("x".into()), "ASGI Lifespan, Startup Failed"),
    ] {
        assert_eq!(error.rule(), rule);
        let text = error.to_string();
        let sentence = text.strip_suffix(&format!(" ({rule})"));
        assert!(sentence.is_some_and(|sentence| sentence.contains(' ')), "{text}");
    }
}

#[test]
fn every_event_has_the_name_of_the_specification() {
    let text = || Payload::Text(String::new());
    for (event, name) in [
        (Event::HttpRequest { body: vec![], more_body: false }, "http.request"),
        (Event::HttpDisconnect, "http.disconnect"),
        (start(200, &[]), "http.response.start"),
        (last(""), "http.response.body"),
        (Event::WebsocketConnect, "websocket.connect"),
        (Event::WebsocketAccept { subprotocol: None, headers: Headers::new() }, "websocket.accept"),
        (Event::WebsocketReceive(text()), "websocket.receive"),
        (Event::WebsocketSend(text()), "websocket.send"),
        (Event::WebsocketDisconnect(1005, String::new()), "websocket.disconnect"),
        (Event::WebsocketClose(1000, String::new()), "websocket.close"),
        (Event::LifespanStartup, "lifespan.startup"),
        (Event::LifespanStartupComplete(State::new()), "lifespan.startup.complete"),
        (Event::LifespanStartupFailed(String::new()), "lifespan.startup.failed"),
        (Event::LifespanShutdown, "lifespan.shutdown"),
        (Event::LifespanShutdownComplete, "lifespan.shutdown.complete"),
        (Event::LifespanShutdownFailed(String::new()), "lifespan.shutdown.failed"),
    ] {
        assert_eq!(event.name(), name);
    }
}

/// What a client can make of the bytes of one answer: status, body, and whether it is whole. Bytes
/// behind a whole answer, or a chunk that is none, are a panic.
fn read_strictly(bytes: &[u8]) -> (u16, Vec<u8>, bool) {
    let head_end = bytes.windows(4).position(|part| part == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let status = head[9..12].parse().expect("a status");
    let mut rest = &bytes[head_end..];
    if let Some(length) = support::client::field(&head, "Content-Length") {
        let length: usize = length.parse().expect("a length");
        assert!(rest.len() <= length, "bytes behind the end: {head}");
        return (status, rest.to_vec(), rest.len() == length);
    }
    if support::client::field(&head, "Transfer-Encoding").is_none() {
        assert!(rest.is_empty(), "a body that must not be: {head}");
        return (status, vec![], true);
    }
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|part| part == b"\r\n") {
        let size = std::str::from_utf8(&rest[..line]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        let data = &rest[line + 2..];
        assert_eq!(&data[size..size + 2], b"\r\n", "behind a chunk");
        body.extend_from_slice(&data[..size]);
        rest = &data[size + 2..];
        if size == 0 {
            assert!(rest.is_empty(), "bytes behind the end");
            return (status, body, true);
        }
    }
    assert!(rest.is_empty(), "half a chunk line: {}", rest.escape_ascii());
    (status, body, false)
}

/// Sends and receives by chance. What was given to `send` is kept in `given`.
fn by_chance(
    dice: &mut Mutator,
    receive: &mut dyn Receive,
    send: &mut dyn Emit,
    given: &Mutex<Vec<u8>>,
) -> Called {
    for _ in 0..dice.below(7) {
        let text = ["", "", "a", "bc", "1234567", &"x".repeat(500)][dice.below(6)].to_string();
        let fields: &[(&str, &str)] = match dice.below(6) {
            0 => &[("Content-Length", "7")],
            1 => &[("Content-Length", "x")],
            2 => &[("Connection", "close"), ("Transfer-Encoding", "x")],
            _ => &[],
        };
        let event = match dice.below(12) {
            0..4 => start([200, 200, 200, 204, 404, 99][dice.below(6)], fields),
            4..8 => piece(&text),
            8..10 => last(&text),
            10 => Event::WebsocketConnect,
            // A disconnect is waited for, so only the body is received.
            _ => {
                read_body(receive)?;
                continue;
            }
        };
        let before = given.lock().expect("bytes").len();
        if let Event::HttpResponseBody { body, .. } = &event {
            given.lock().expect("bytes").extend(body);
        }
        match send.send(event) {
            Err(error) if dice.below(2) == 0 => return Err(error),
            // What does not fit the length is sent as far as it fits; another wrong piece, not at all.
            Err(error) if error.to_string().contains("er than its Content-Length") => {}
            Err(_) => given.lock().expect("bytes").truncate(before),
            Ok(()) => {}
        }
    }
    if dice.below(8) == 0 { Err("chance".into()) } else { Ok(()) }
}

#[test]
fn ten_thousand_applications_of_chance_give_whole_or_cut_answers() {
    let given = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&given);
    let house = serve(http(move |scope, receive, send| {
        let mut dice = Mutator::new(scope.path[1..].parse()?);
        // Seeds that lie close together begin alike.
        (0..20).for_each(|_| _ = dice.below(2));
        by_chance(&mut dice, receive, send, &shared)
    }));
    let (mut whole, mut cut, mut failed) = (0, 0, 0);
    for seed in 0..10_000 {
        given.lock().expect("bytes").clear();
        let mut stream = TcpStream::connect(house.address).expect("a connection");
        let method = if seed % 10 == 0 { "HEAD" } else { "GET" };
        let path = seed * 2;
        let request = format!("{method} /{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        // Nothing more will come, so that nobody waits for the body.
        stream.shutdown(Shutdown::Write).expect("an open socket");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("an end");
        // After a failure the server waits until we hang up too.
        drop(stream);
        let mut log = loop {
            thread::yield_now();
            let mut lines = house.log.lines.lock().expect("the log");
            if lines.len() == 2 {
                break std::mem::take(&mut *lines);
            }
        };
        let failure = log.remove(0);
        assert!(!failure.contains("panicked"), "{seed}: {failure}");
        if method == "HEAD" {
            continue;
        }
        let given = given.lock().expect("bytes");
        let (status, body, is_whole) = read_strictly(&bytes);
        assert!(failure == FINE || failure.starts_with("500 "), "{seed}: {failure}");
        assert!(is_whole || failure != FINE, "{seed}: cut, and nobody says why");
        match (is_whole, status) {
            (true, 500) => failed += 1,
            (true, 204) => whole += 1,
            (true, _) => {
                assert!(given.starts_with(&body), "{seed}: {}", body.escape_ascii());
                whole += 1;
            }
            (false, _) => {
                assert!(given.starts_with(&body), "{seed}: {}", body.escape_ascii());
                cut += 1;
            }
        }
    }
    println!("{whole} whole, {cut} cut, {failed} failed");
    assert!(whole > 500 && cut > 500 && failed > 1_000, "{whole} {cut} {failed}");
}

#[test]
#[ignore = "exercise 17.2"]
fn exercise_17_2_a_startup_that_hangs_is_given_up() {
    let asgi = begin(living(&[("lifespan.startup", || {
        thread::sleep(Duration::from_millis(1500));
        Event::LifespanStartupComplete(State::new())
    })]));
    match asgi.err() {
        Some(AsgiError::StartupFailed(_)) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
#[ignore = "exercise 17.4"]
fn exercise_17_4_an_empty_first_piece_sends_nothing() {
    let (answer, log) = ask(
        http(|_, _, send| {
            send.send(start(200, &[]))?;
            send.send(piece(""))?;
            Err("no luck".into())
        }),
        GET,
    );
    assert!(answer.starts_with(FAILED), "{answer}");
    assert_eq!(log, why("no luck"));
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
