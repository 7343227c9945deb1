//! Chapter 16: WSGI. Applications behind the gateway, and clients on real sockets in front of it.

mod support;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use glasshouse::gateway::wsgi::{
    Application, Chunks, Environ, Exception, FileWrapper, Iterable, StartResponse, Wsgi, WsgiError,
};
use glasshouse::http::connection::{CloseReason, Http, Limits, Observer};
use glasshouse::http::exchange::Exchange;
use glasshouse::http::headers::FieldError;
use glasshouse::http::response::ResponseError;
use glasshouse::socket::listener::Listener;
use glasshouse::socket::lobby::{Deadlines, Guest, Lobby};
use glasshouse::socket::pool::{PoolSize, ThreadPool};
use support::bytes::eq_bytes;
use support::client::{Client, eq_text};
use support::mutator::Mutator;
use support::watchdog::{Watchdog, watchdog};

/// A server with one application behind it.
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
        let line = failure.unwrap_or("no failure".to_string());
        self.lines.lock().expect("the log").push(line);
    }

    fn ended(&self, _: &Guest, reason: CloseReason) {
        self.lines.lock().expect("the log").push(reason.to_string());
    }
}

/// A closure needs these bounds spelt out for it, or its lifetimes are guessed wrongly.
fn app<F>(function: F) -> Arc<dyn Application>
where
    F: for<'a> Fn(Environ<'a>, StartResponse<'a>) -> Chunks<'a> + Send + Sync + 'static,
{
    Arc::new(function)
}

fn serve(application: Arc<dyn Application>) -> House {
    serve_with(application, "127.0.0.1", 8, Deadlines::default())
}

fn serve_with(
    application: Arc<dyn Application>,
    host: &str,
    cap: usize,
    deadlines: Deadlines,
) -> House {
    let listener = Listener::bind(host, 0).expect("a free port");
    let (address, log) = (listener.address(), Arc::new(Log::default()));
    let http = Http {
        handler: Arc::new(Wsgi::new(application, address)),
        observer: log.clone(),
        limits: Limits::default(),
        keep_alive: true,
        stop: listener.stop(),
        tap: None,
    };
    let size = PoolSize { start: 2, cap, ..PoolSize::default() };
    let lobby = Arc::new(Lobby::new(deadlines, cap));
    let pool = ThreadPool::start(listener, lobby, size, Arc::new(http));
    let _dog = watchdog(60, "a WSGI application");
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

fn list(chunks: &[&str]) -> Chunks<'static> {
    let chunks: Vec<Vec<u8>> = chunks.iter().map(|chunk| chunk.as_bytes().to_vec()).collect();
    Ok(Box::new(chunks.into_iter()))
}

/// An application that always answers with these fields and chunks.
fn respond(
    fields: &'static [(&'static str, &'static str)],
    chunks: &'static [&'static str],
) -> Arc<dyn Application> {
    app(move |_, start_response| {
        start_response.call("200 OK", fields)?;
        list(chunks)
    })
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const FINE: &str = "no failure";
const PLAIN: &[(&str, &str)] = &[("Content-Type", "text/plain")];

/// The answer to [`GET`] or [`HEAD`], with these lines about its length and this body.
fn ok(framing: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nServer: glasshouse\r\n{framing}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

const FAILED: &str = "HTTP/1.1 500 Internal Server Error\r\n";

fn why(problem: &str) -> String {
    format!(
        "500 Internal Server Error: the application failed: {problem} (RFC 9110, section 15.6.1)"
    )
}

#[test]
fn a_function_of_ten_lines_is_an_application() {
    fn hello<'a>(environ: Environ<'a>, start_response: StartResponse<'a>) -> Chunks<'a> {
        start_response.call("200 OK", &[("Content-Type", "text/plain")])?;
        let body = format!("Hello, {}!\n", environ.get("QUERY_STRING").unwrap_or_default());
        Ok(Box::new(vec![body.into_bytes()].into_iter()))
    }
    let request = "GET /?Ada HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let (answer, log) = ask(Arc::new(hello), request);
    eq_text(&ok("Content-Length: 12", "Hello, Ada!\n"), &answer);
    assert_eq!(log, FINE);
}

/// Answers with all variables, a line each.
fn environ_app<'a>(environ: Environ<'a>, start_response: StartResponse<'a>) -> Chunks<'a> {
    start_response.call("200 OK", PLAIN)?;
    let mut lines = Vec::new();
    for (name, value) in environ.variables() {
        assert_eq!(environ.get(&name).as_deref(), Some(&*value));
        lines.push(format!("{name}={value}\n"));
    }
    Ok(Box::new(vec![lines.concat().into_bytes()].into_iter()))
}

/// The variables that the application sees, without those that are always the same.
#[track_caller]
fn environ(request: &str) -> Vec<String> {
    let house = serve(Arc::new(environ_app));
    let answer = house.ask(request);
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let port = house.address.port();
    let always = [
        "REMOTE_ADDR=127.0.0.1",
        "SCRIPT_NAME=",
        "SERVER_NAME=127.0.0.1",
        &format!("SERVER_PORT={port}"),
        "wsgi.input_terminated=True",
        "wsgi.multiprocess=False",
        "wsgi.multithread=True",
        "wsgi.run_once=False",
        "wsgi.url_scheme=http",
        "wsgi.version=(1, 0)",
    ];
    let (same, other): (Vec<&str>, Vec<&str>) =
        body.lines().partition(|line| always.contains(line));
    assert_eq!(same, always);
    let others = other.into_iter().filter(|line| !line.starts_with("REMOTE_PORT="));
    others.map(str::to_string).collect()
}

#[test]
fn the_environ_says_what_the_request_says() {
    let told = environ(
        "POST /a%20b/caf%C3%A9?x=%41&y HTTP/1.1\r\nHost: example.org:81\r\nX-Two: 1\r\n\
         Cookie: a=1\r\nContent-Type: text/html\r\nx-two: 2\r\nCookie: b=2\r\nX_Real_IP: 6.6.6.6\r\n\
         Content-Length: 0\r\nConnection: close\r\n\r\n",
    );
    let wanted = [
        "CONTENT_LENGTH=0",
        "CONTENT_TYPE=text/html",
        "HTTP_CONNECTION=close",
        "HTTP_COOKIE=a=1; b=2",
        "HTTP_HOST=example.org:81",
        "HTTP_X_TWO=1, 2",
        // A native string: one character for each byte.
        "PATH_INFO=/a b/caf\u{c3}\u{a9}",
        "QUERY_STRING=x=%41&y",
        "REQUEST_METHOD=POST",
        "SERVER_PROTOCOL=HTTP/1.1",
    ];
    assert_eq!(told, wanted);
}

#[test]
fn the_host_in_the_target_wins_over_the_field() {
    let told = environ("GET http://b:8/p HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(told.contains(&"HTTP_HOST=b:8".to_string()), "{told:?}");
    assert!(told.contains(&"PATH_INFO=/p".to_string()), "{told:?}");
}

#[test]
fn a_request_of_http_1_0_needs_no_host() {
    let told = environ("GET / HTTP/1.0\r\n\r\n");
    let wanted = ["PATH_INFO=/", "QUERY_STRING=", "REQUEST_METHOD=GET", "SERVER_PROTOCOL=HTTP/1.0"];
    assert_eq!(told, wanted);
    let told = environ("GET http://b/ HTTP/1.0\r\n\r\n");
    assert_eq!(told[0], "HTTP_HOST=b");
}

#[test]
fn the_server_name_is_an_address_that_can_be_reached() {
    for (host, name) in [("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")] {
        let house = serve_with(Arc::new(environ_app), host, 8, Deadlines::default());
        let to = if name.starts_with('[') { "[::1]" } else { name };
        let stream = TcpStream::connect(format!("{to}:{}", house.address.port()));
        let Ok(stream) = stream else {
            println!("no IPv6 here");
            continue;
        };
        let mut client = Client::of(stream);
        client.send("GET / HTTP/1.0\r\n\r\n");
        let answer = client.all();
        assert!(answer.contains(&format!("\nSERVER_NAME={name}\n")), "{host}: {answer}");
    }
}

#[test]
fn one_thread_is_not_called_many() {
    let house = serve_with(Arc::new(environ_app), "127.0.0.1", 1, Deadlines::default());
    assert!(house.ask(GET).contains("\nwsgi.multithread=False\n"));
}

#[test]
fn middleware_can_set_what_the_application_sees() {
    let outer = app(|mut environ, start_response| {
        environ.set("SCRIPT_NAME", "/shop");
        environ.set("glasshouse.user", "Ada");
        assert_eq!(environ.get("SCRIPT_NAME").as_deref(), Some("/shop"));
        environ_app(environ, start_response)
    });
    let (answer, _) = ask(outer, GET);
    assert!(answer.contains("\nSCRIPT_NAME=/shop\n"), "{answer}");
    assert!(answer.contains("\nglasshouse.user=Ada\n"), "{answer}");
}

#[test]
fn a_path_that_cannot_be_decoded_is_refused() {
    let (answer, _) =
        ask(Arc::new(environ_app), "GET /%zz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.contains("RFC 3986"), "{answer}");
}

/// Reads the whole body, line by line, and answers with the number of lines and bytes.
fn count<'a>(environ: Environ<'a>, start_response: StartResponse<'a>) -> Chunks<'a> {
    let (mut lines, mut bytes) = (0, 0);
    for line in BufReader::new(environ.input).split(b'\n') {
        lines += 1;
        bytes += line?.len();
    }
    start_response.call("200 OK", PLAIN)?;
    list(&[&format!("{lines} lines, {bytes} bytes\n")])
}

#[test]
fn the_input_ends_where_the_body_ends() {
    let post = |fields: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n\r\n{body}")
    };
    let (answer, _) = ask(Arc::new(count), &post("Content-Length: 5", "a\nbc\nnot this"));
    assert!(answer.ends_with("\r\n\r\n2 lines, 3 bytes\n"), "{answer}");
    let (answer, _) = ask(
        Arc::new(count),
        &post("Transfer-Encoding: chunked", "2\r\na\n\r\n3\r\nbc\n\r\n0\r\n\r\n"),
    );
    assert!(answer.ends_with("\r\n\r\n2 lines, 3 bytes\n"), "{answer}");
    let (answer, _) = ask(Arc::new(count), GET);
    assert!(answer.ends_with("\r\n\r\n0 lines, 0 bytes\n"), "{answer}");
}

#[test]
fn the_input_is_ready_if_a_read_need_not_wait() {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let house = serve(app(move |mut environ, start_response| {
        tell.lock().expect("a listener").send(environ.input.is_ready())?;
        while !environ.input.is_ready() {
            thread::sleep(Duration::from_millis(1));
        }
        let mut out = [0; 9];
        let count = environ.input.read(&mut out)?;
        tell.lock().expect("a listener").send(environ.input.is_ready())?;
        start_response.call("200 OK", PLAIN)?;
        list(&[&String::from_utf8_lossy(&out[..count])])
    }));
    let mut client = house.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nConnection: close\r\n\r\n");
    assert!(!told.recv().expect("its word"));
    client.send("here");
    assert!(client.all().ends_with("here"));
    assert!(!told.recv().expect("its word"));
}

#[test]
fn a_broken_body_is_an_error_and_not_an_end() {
    let house = serve(Arc::new(count));
    let mut client = house.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf");
    client.finish();
    let answer = client.all();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    let broken = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab";
    assert!(house.ask(broken).starts_with("HTTP/1.1 400 Bad Request\r\n"));
    // It is the client's fault, and the log says so.
    let mut log = house.end();
    log.retain(|line| line.contains("(RFC "));
    assert_eq!(log.len(), 2);
    assert!(log.iter().all(|line| line.starts_with("400 ")), "{log:?}");
}

/// What becomes of an application that uses `start_response` as the closure does, and then gives
/// one chunk, `body`.
#[track_caller]
fn starting<F>(start: F) -> (String, String)
where
    F: Fn(StartResponse) -> Result<(), Exception> + Send + Sync + 'static,
{
    ask(
        app(move |_, start_response| {
            start(start_response)?;
            list(&["body"])
        }),
        GET,
    )
}

#[test]
fn start_response_must_be_called() {
    let (answer, log) = starting(|_| Ok(()));
    assert!(answer.starts_with(FAILED), "{answer}");
    assert_eq!(log, why(&WsgiError::NotCalled.to_string()));
    // The same without a body.
    let (answer, log) = ask(app(|_, _| list(&[])), GET);
    assert!(answer.starts_with(FAILED), "{answer}");
    assert_eq!(log, why(&WsgiError::NotCalled.to_string()));
}

#[test]
fn start_response_must_not_be_called_twice() {
    let (answer, log) = starting(|start_response| {
        start_response.call("200 OK", PLAIN)?;
        start_response.call("201 Created", PLAIN)?;
        Ok(())
    });
    assert!(answer.starts_with(FAILED), "{answer}");
    assert_eq!(log, why(&WsgiError::CalledTwice.to_string()));
}

#[test]
fn a_faulty_call_is_a_call_too() {
    let (answer, log) = starting(|start_response| {
        assert!(start_response.call("200", PLAIN).is_err());
        start_response.call("200 OK", PLAIN)?;
        Ok(())
    });
    assert!(answer.starts_with(FAILED), "{answer}");
    assert_eq!(log, why(&WsgiError::CalledTwice.to_string()));
    // Whoever swallows the error has announced nothing.
    let (answer, log) = starting(|start_response| {
        assert!(start_response.call("200", PLAIN).is_err());
        Ok(())
    });
    assert!(answer.starts_with(FAILED), "{answer}");
    assert_eq!(log, why(&WsgiError::NotCalled.to_string()));
}

#[test]
fn with_an_exception_the_head_can_be_replaced_until_it_has_gone() {
    let (answer, log) = starting(|start_response| {
        start_response.call("200 OK", &[("X-First", "1")])?;
        start_response.call_after_error("503 Busy", PLAIN, "the database is busy".into())?;
        Ok(())
    });
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(!answer.contains("X-First"), "{answer}");
    assert_eq!(log, FINE);
}

#[test]
fn after_the_head_has_gone_the_exception_comes_back() {
    let (answer, log) = starting(|start_response| {
        start_response.call("200 OK", PLAIN)?.write_all(b"half")?;
        start_response.call_after_error("500 Oh", PLAIN, "the database is gone".into())?;
        unreachable!("the call above fails");
    });
    // The answer is cut: the last chunk is missing.
    eq_text(&ok("Transfer-Encoding: chunked", "4\r\nhalf\r\n"), &answer);
    assert_eq!(log, why("the database is gone"));
}

#[test]
fn a_status_is_three_digits_a_space_and_words() {
    for status in [
        "200",
        "200OK",
        "200 ",
        "200  OK",
        " 200 OK",
        "200 OK ",
        "20 OK",
        "2000 OK",
        "+20 OK",
        "abc OK",
        "100 Continue",
        "199 Low",
        "600 High",
        "200 OK\r\nX: 1",
        "200 O\u{0}K",
        "",
    ] {
        let (answer, log) = starting(move |start_response| {
            start_response.call(status, PLAIN)?;
            Ok(())
        });
        assert!(answer.starts_with(FAILED), "{status:?}: {answer}");
        assert_eq!(log, why(&WsgiError::Status(status.to_string()).to_string()));
    }
    // Our words are sent in place of the application's.
    for (status, line) in [("404 Nothing here", "404 Not Found"), ("299 Odd", "299 ")] {
        let (answer, log) = starting(move |start_response| {
            start_response.call(status, PLAIN)?;
            Ok(())
        });
        assert!(answer.starts_with(&format!("HTTP/1.1 {line}\r\n")), "{answer}");
        assert_eq!(log, FINE);
    }
}

#[test]
fn a_field_that_would_break_the_answer_is_refused_by_name() {
    let hop = |name: &str| WsgiError::HopByHop(name.to_string());
    for (name, value, error) in [
        ("Connection", "close", hop("Connection")),
        ("transfer-encoding", "chunked", hop("transfer-encoding")),
        ("Keep-Alive", "5", hop("Keep-Alive")),
        ("TE", "trailers", hop("TE")),
        ("Trailer", "X", hop("Trailer")),
        ("Upgrade", "h2c", hop("Upgrade")),
        ("X Y", "1", WsgiError::Field(FieldError::NameByte)),
        ("", "1", WsgiError::Field(FieldError::EmptyName)),
        ("X", "1\r\nSet-Cookie: a", WsgiError::Field(FieldError::ValueByte)),
        ("X", "1\n2", WsgiError::Field(FieldError::ValueByte)),
        ("X", "\u{0}", WsgiError::Field(FieldError::ValueByte)),
        ("X", "\u{20ac}", WsgiError::NotLatin1("X".to_string())),
        ("Content-Length", "4 bytes", WsgiError::Answer(ResponseError::BadLength)),
        ("Content-Length", "+4", WsgiError::Answer(ResponseError::BadLength)),
    ] {
        let (answer, log) = starting(move |start_response| {
            start_response.call("200 OK", &[(name, value)])?;
            Ok(())
        });
        assert!(answer.starts_with(FAILED), "{name:?}: {answer}");
        assert!(!answer.contains("Set-Cookie"), "{answer}");
        assert_eq!(log, why(&error.to_string()));
    }
}

#[test]
fn a_native_string_is_sent_as_bytes() {
    let house = serve(app(|_, start_response| {
        start_response.call("200 OK", &[("X", "caf\u{e9} \u{c3}\u{a9}")])?;
        list(&[])
    }));
    let mut stream = TcpStream::connect(house.address).expect("a connection");
    stream.write_all(GET.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let wanted = b"\r\nX: caf\xe9 \xc3\xa9\r\n";
    assert!(answer.windows(wanted.len()).any(|part| part == wanted));
}

#[test]
fn date_and_server_are_added_if_they_are_missing() {
    let (answer, _) = starting(|start_response| {
        let date = "Tue, 15 Nov 1994 08:12:31 GMT";
        start_response.call("200 OK", &[("date", date), ("Server", "own")])?;
        Ok(())
    });
    eq_text(
        "HTTP/1.1 200 OK\r\nServer: own\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody",
        // The helper drops each `Date`, and fails to drop a second one only if it is malformed.
        &answer.replace("date: Tue, 15 Nov 1994 08:12:31 GMT\r\n", ""),
    );
}

/// Chunks that are made by functions, and a counter that is raised by `close`.
struct Scripted {
    chunks: std::vec::IntoIter<Step>,
    known: Option<usize>,
    closed: Arc<AtomicUsize>,
}

type Step = Box<dyn FnOnce() -> Result<Vec<u8>, Exception> + Send>;

impl Iterable for Scripted {
    fn next_chunk(&mut self) -> Option<Result<Vec<u8>, Exception>> {
        self.chunks.next().map(|step| step())
    }

    fn chunks(&self) -> Option<usize> {
        self.known
    }

    fn close(&mut self) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

fn gives(text: &'static str) -> Step {
    Box::new(move || Ok(text.as_bytes().to_vec()))
}

fn fails(text: &'static str) -> Step {
    Box::new(move || Err(text.into()))
}

/// One request to an application that answers 200 with these fields and steps. Its answer, its log
/// line, and how often `close` was called.
#[track_caller]
fn scripted(
    request: &str,
    fields: &'static [(&'static str, &'static str)],
    steps: Vec<Step>,
) -> (String, String, usize) {
    let closed = Arc::new(AtomicUsize::new(0));
    let (steps, counter) = (Mutex::new(Some(steps)), Arc::clone(&closed));
    let application = app(move |_, start_response| {
        start_response.call("200 OK", fields)?;
        let steps = steps.lock().expect("steps").take().unwrap_or_default();
        let (chunks, closed) = (steps.into_iter(), Arc::clone(&counter));
        let known = None;
        Ok(Box::new(Scripted { chunks, known, closed }))
    });
    let (answer, log) = ask(application, request);
    (answer, log, closed.load(Ordering::SeqCst))
}

#[test]
fn an_error_before_the_first_byte_is_a_clean_500() {
    let (answer, log, closed) =
        scripted(GET, PLAIN, vec![gives(""), gives(""), fails("no luck"), gives("x")]);
    assert!(answer.starts_with(FAILED), "{answer}");
    assert!(!answer.contains("no luck"), "{answer}");
    assert_eq!((log, closed), (why("no luck"), 1));
}

#[test]
fn an_error_after_the_first_byte_cuts_the_answer() {
    let (answer, log, closed) = scripted(GET, PLAIN, vec![gives("half"), fails("no luck")]);
    eq_text(&ok("Transfer-Encoding: chunked", "4\r\nhalf\r\n"), &answer);
    assert_eq!((log, closed), (why("no luck"), 1));
}

#[test]
fn an_empty_body_has_the_length_0() {
    for steps in [vec![], vec![gives("")], vec![gives(""), gives("")]] {
        let (answer, log, closed) = scripted(GET, PLAIN, steps);
        eq_text(&ok("Content-Length: 0", ""), &answer);
        assert_eq!((log.as_str(), closed), (FINE, 1));
    }
}

#[test]
fn a_single_chunk_gives_the_body_its_length_and_several_do_not() {
    let (answer, _) = ask(respond(PLAIN, &["whole"]), GET);
    eq_text(&ok("Content-Length: 5", "whole"), &answer);
    let (answer, _) = ask(respond(PLAIN, &["in ", "", "parts"]), GET);
    eq_text(&ok("Transfer-Encoding: chunked", "3\r\nin \r\n5\r\nparts\r\n0\r\n\r\n"), &answer);
    let old = "GET / HTTP/1.0\r\n\r\n";
    let (answer, _) = ask(respond(PLAIN, &["in ", "parts"]), old);
    assert!(answer.ends_with("Connection: close\r\n\r\nin parts"), "{answer}");
    assert!(!answer.contains("Content-Length"), "{answer}");
}

#[test]
fn a_single_chunk_leaves_in_one_piece_with_its_head() {
    let house = serve(app(|_, start_response| {
        start_response.call("200 OK", PLAIN)?;
        list(&["whole"])
    }));
    let mut stream = TcpStream::connect(house.address).expect("a connection");
    let mut block = [0; 4096];
    for _ in 0..200 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
        let count = stream.read(&mut block).expect("an answer");
        assert!(block[..count].ends_with(b"\r\n\r\nwhole"), "{count} bytes came first");
    }
}

#[test]
fn answers_to_pipelined_requests_come_in_order() {
    let house = serve(app(|environ, start_response| {
        start_response.call("200 OK", PLAIN)?;
        list(&[environ.path().unwrap_or_default()])
    }));
    let mut requests = String::new();
    for number in 0..50 {
        requests += &format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let mut client = house.client();
    client.send(requests);
    for number in 0..50 {
        assert_eq!(client.answer().expect("an answer").text(), format!("/{number}"));
    }
}

#[test]
fn each_chunk_is_on_the_wire_before_the_next_is_asked_for() {
    let (go, wait) = channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let patient = move |text: &'static str| -> Step {
        let wait = Arc::clone(&wait);
        Box::new(move || {
            wait.lock().expect("a signal").recv()?;
            Ok(text.as_bytes().to_vec())
        })
    };
    let steps = Mutex::new(vec![patient("one"), patient("two"), patient("")]);
    let house = serve(app(move |_, start_response| {
        start_response.call("200 OK", PLAIN)?;
        let steps = std::mem::take(&mut *steps.lock().expect("steps"));
        let closed = Arc::new(AtomicUsize::new(0));
        let chunks = steps.into_iter();
        Ok(Box::new(Scripted { chunks, known: None, closed }))
    }));
    let mut client = house.client();
    client.send(GET);
    assert_eq!(client.within(Duration::from_millis(50)), "", "before the first chunk");
    for size in ["3\r\none\r\n", "3\r\ntwo\r\n"] {
        go.send(()).expect("the application waits");
        // It comes although the application is now waiting inside of `next_chunk`.
        client.up_to(size);
    }
    go.send(()).expect("the application waits");
    client.up_to("0\r\n\r\n");
}

/// Waits in `close` until it is told to go on.
struct SlowClose {
    body: Option<Vec<u8>>,
    wait: Arc<Mutex<Receiver<()>>>,
}

impl Iterable for SlowClose {
    fn next_chunk(&mut self) -> Option<Result<Vec<u8>, Exception>> {
        self.body.take().map(Ok)
    }

    fn chunks(&self) -> Option<usize> {
        Some(1)
    }

    fn close(&mut self) {
        let _ = self.wait.lock().expect("a signal").recv();
    }
}

#[test]
fn close_comes_after_the_last_byte_has_gone() {
    let (go, wait) = channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let house = serve(app(move |_, start_response| {
        start_response.call("200 OK", PLAIN)?;
        let (body, wait) = (Some(b"whole".to_vec()), Arc::clone(&wait));
        Ok(Box::new(SlowClose { body, wait }))
    }));
    let mut client = house.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().expect("an answer").text(), "whole");
    go.send(()).expect("close waits");
}

#[test]
fn a_body_shorter_than_its_length_closes_and_is_logged() {
    let short: &[(&str, &str)] = &[("Content-Length", "9")];
    let head =
        "HTTP/1.1 200 OK\r\nServer: glasshouse\r\nContent-Length: 9\r\nConnection: close\r\n\r\n";
    let named = why(&WsgiError::Answer(ResponseError::TooShort(4)).to_string());
    let (answer, log, closed) = scripted(GET, short, vec![gives("who"), gives("le")]);
    eq_text(&format!("{head}whole"), &answer);
    assert_eq!((log, closed), (named.clone(), 1));
    let (answer, log) = ask(
        app(move |_, start_response| {
            start_response.call("200 OK", short)?;
            list(&["whole"])
        }),
        // Even if the client would like to stay.
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    eq_text(&format!("{}whole", head.replace("Connection: close\r\n", "")), &answer);
    assert_eq!(log, named);
    assert!(log.contains("PEP 3333, Handling the Content-Length Header"));
}

#[test]
fn a_body_longer_than_its_length_is_truncated_and_logged() {
    let long: &[(&str, &str)] = &[("Content-Length", "3")];
    let wanted = "HTTP/1.1 200 OK\r\nServer: glasshouse\r\nContent-Length: 3\r\n\r\nwho";
    let named = why(&WsgiError::Answer(ResponseError::TooLong).to_string());
    for chunks in [&["whole"][..], &["who", "le"], &["wh", "ole"]] {
        let (answer, log) = ask(
            app(move |_, start_response| {
                start_response.call("200 OK", long)?;
                list(chunks)
            }),
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        );
        eq_text(wanted, &answer);
        assert_eq!(log, named, "{chunks:?}");
    }
    // An empty chunk after the last byte is not too much.
    let (_, log, _) = scripted(GET, long, vec![gives("who"), gives("")]);
    assert_eq!(log, FINE);
}

#[test]
fn head_gets_the_same_head_as_get_and_no_body() {
    for chunks in [&["whole"][..], &["in ", "parts"]] {
        for fields in [PLAIN, &[("Content-Length", "8"), ("Content-Type", "a/b")]] {
            let (get, _) = ask(respond(fields, chunks), GET);
            let (head, log) = ask(respond(fields, chunks), HEAD);
            let (wanted, _) = get.split_once("\r\n\r\n").expect("a head");
            eq_text(&format!("{wanted}\r\n\r\n"), &head);
            assert_eq!(log, FINE);
        }
    }
}

#[test]
fn an_endless_body_does_not_hold_up_the_answer_to_head() {
    let (answer, log) = ask(
        app(|_, start_response| {
            start_response.call("200 OK", PLAIN)?;
            Ok(Box::new(std::iter::repeat_with(|| b"on and on ".to_vec())))
        }),
        HEAD,
    );
    eq_text(&ok("Transfer-Encoding: chunked", ""), &answer);
    assert_eq!(log, FINE);
    // An application that gives no body to HEAD says nothing about the length for GET.
    let (answer, _) = scripted_head_without_body();
    assert!(!answer.contains("Content-Length"), "{answer}");
}

fn scripted_head_without_body() -> (String, String) {
    let (answer, log, _) = scripted(HEAD, PLAIN, vec![]);
    (answer, log)
}

#[test]
fn a_status_without_body_has_none() {
    for (status, line) in [("204 Empty", "204 No Content"), ("304 Same", "304 Not Modified")] {
        let (answer, log) = starting(move |start_response| {
            start_response.call(status, &[("Content-Length", "4")])?;
            Ok(())
        });
        let wanted = format!("HTTP/1.1 {line}\r\nServer: glasshouse\r\nConnection: close\r\n\r\n");
        eq_text(&wanted, &answer);
        assert_eq!(log, FINE);
    }
}

#[test]
fn what_is_written_goes_at_once_and_before_the_chunks() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let house = serve(app(move |_, start_response| {
        let mut out = start_response.call("200 OK", PLAIN)?;
        out.write_all(b"")?;
        out.write_all(b"pushed")?;
        wait.lock().expect("a signal").recv()?;
        list(&["pulled"])
    }));
    let mut client = house.client();
    client.send(GET);
    client.up_to("6\r\npushed\r\n");
    go.send(()).expect("the application waits");
    eq_text("6\r\npulled\r\n0\r\n\r\n", &client.all());
    assert_eq!(house.end()[0], FINE);
}

/// Goes on as long as it is asked.
struct Endless {
    asked: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
}

impl Iterable for Endless {
    fn next_chunk(&mut self) -> Option<Result<Vec<u8>, Exception>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Some(Ok(vec![b'.'; 100_000]))
    }

    fn close(&mut self) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

/// An endless answer, and the counters of its chunks and closes.
fn endless() -> (Arc<dyn Application>, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (asked, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counters = (Arc::clone(&asked), Arc::clone(&closed));
    let application = app(move |_, start_response| {
        start_response.call("200 OK", PLAIN)?;
        let (asked, closed) = (Arc::clone(&counters.0), Arc::clone(&counters.1));
        Ok(Box::new(Endless { asked, closed }))
    });
    (application, asked, closed)
}

#[test]
fn a_client_that_hangs_up_is_no_failure_of_the_application() {
    let (application, _, closed) = endless();
    let house = serve(application);
    let mut client = house.client();
    client.send(GET);
    client.up_to("....");
    drop(client);
    assert_eq!(house.end(), [FINE, "the client went away"]);
    assert_eq!(closed.load(Ordering::SeqCst), 1);
}

#[test]
fn a_client_that_does_not_read_stops_the_chunks_and_is_cut_in_the_end() {
    let (application, asked, closed) = endless();
    let deadlines = Deadlines { write: Duration::from_millis(300), ..Deadlines::default() };
    let house = serve_with(application, "127.0.0.1", 8, deadlines);
    let mut client = house.client();
    client.send(GET);
    client.up_to("....");
    assert_eq!(house.end(), [FINE, "the client went away"]);
    assert_eq!(closed.load(Ordering::SeqCst), 1);
    // What the kernel takes is a few megabytes; then the application is asked no more.
    let asked = asked.load(Ordering::SeqCst);
    assert!(asked < 500, "{asked} chunks were made for nobody");
}

#[test]
fn a_write_to_a_client_that_has_gone_is_an_error_that_the_application_sees() {
    let (told, heard) = channel();
    let told = Mutex::new(told);
    let house = serve(app(move |_, start_response| {
        let mut out = start_response.call("200 OK", PLAIN)?;
        loop {
            if let Err(error) = out.write_all(&[b'.'; 100_000]) {
                told.lock().expect("a listener").send(error.to_string())?;
                // Whatever it makes of it, the client has gone first.
                return Err("I give up".into());
            }
        }
    }));
    let mut client = house.client();
    client.send(GET);
    client.up_to("....");
    drop(client);
    heard.recv().expect("an error");
    assert_eq!(house.end(), [FINE, "the client went away"]);
}

struct Panicking {
    closed: Arc<AtomicUsize>,
}

impl Iterable for Panicking {
    fn next_chunk(&mut self) -> Option<Result<Vec<u8>, Exception>> {
        panic!("next_chunk panics, as it was asked to");
    }

    fn close(&mut self) {
        self.closed.fetch_add(1, Ordering::SeqCst);
        panic!("close panics, as it was asked to");
    }
}

#[test]
fn a_panic_is_a_500_and_close_is_called_all_the_same() {
    let closed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&closed);
    let house = serve(app(move |environ, start_response| {
        assert!(environ.path() != Some("/early"), "as it was asked to");
        start_response.call("200 OK", PLAIN)?;
        if environ.path() == Some("/fine") {
            return list(&["fine"]);
        }
        let closed = Arc::clone(&counter);
        Ok(Box::new(Panicking { closed }))
    }));
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(house.ask(&get("/early")).starts_with(FAILED));
    // Here close panics while the first panic unwinds.
    assert!(house.ask(&get("/late")).starts_with(FAILED));
    assert_eq!(closed.load(Ordering::SeqCst), 1);
    assert!(house.ask(&get("/fine")).ends_with("fine"));
    let log = house.end();
    assert!(log[0].contains("the application panicked"), "{log:?}");
}

/// A source that counts how often it is dropped.
struct Source {
    left: usize,
    dropped: Arc<AtomicUsize>,
}

impl Read for Source {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = out.len().min(self.left).min(70_000);
        out[..count].fill(b'f');
        self.left -= count;
        Ok(count)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_file_wrapper_sends_its_source_and_closes_it() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&dropped);
    let (answer, log) = ask(
        app(move |_, start_response| {
            start_response.call("200 OK", &[("Content-Length", "3000000")])?;
            let (left, dropped) = (3_000_000, Arc::clone(&counter));
            Ok(Box::new(FileWrapper::new(Source { left, dropped }, 65_536)))
        }),
        GET,
    );
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    eq_bytes(&vec![b'f'; 3_000_000], body.as_bytes());
    assert_eq!((log.as_str(), dropped.load(Ordering::SeqCst)), (FINE, 1));
}

/// A source that is interrupted at first, gives three bytes, and fails.
struct Failing(u8);

impl Read for Failing {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0 += 1;
        match self.0 {
            1 => Err(io::ErrorKind::Interrupted.into()),
            2 => (&b"abc"[..]).read(out),
            _ => Err(io::Error::other("the disk is broken")),
        }
    }
}

#[test]
fn a_file_wrapper_goes_on_after_a_signal_and_passes_an_error_on() {
    let mut wrapper = FileWrapper::new(Failing(0), 8);
    let first = wrapper.next_chunk().expect("a chunk").expect("no error");
    eq_bytes(b"abc", &first);
    let error = wrapper.next_chunk().expect("an error").expect_err("an error");
    assert_eq!(error.to_string(), "the disk is broken");
}

#[test]
fn every_error_names_its_rule_in_a_sentence() {
    for (error, rule) in [
        (WsgiError::CalledTwice, "PEP 3333, The start_response() Callable"),
        (WsgiError::NotCalled, "PEP 3333, The start_response() Callable"),
        (WsgiError::Status("x".into()), "PEP 3333, The start_response() Callable"),
        (WsgiError::NotLatin1("X".into()), "PEP 3333, Unicode Issues"),
        (WsgiError::HopByHop("TE".into()), "PEP 3333, Other HTTP Features"),
        (WsgiError::Field(FieldError::ValueByte), "RFC 9110, section 5.5"),
        (WsgiError::Answer(ResponseError::TooLong), "PEP 3333, Handling the Content-Length Header"),
        (WsgiError::Answer(ResponseError::AlreadyStarted), "RFC 9112, section 2.1"),
    ] {
        assert_eq!(error.rule(), rule);
        let text = error.to_string();
        assert!(text.ends_with(&format!(" ({rule})")), "{text}");
    }
}

/// What a client can make of the bytes of one answer.
#[derive(Debug, PartialEq)]
enum Reading {
    Nothing,
    Cut { status: u16, body: Vec<u8> },
    Whole { status: u16, body: Vec<u8> },
}

/// Reads one answer strictly. Bytes behind a whole answer, or a chunk that is none, are a panic.
fn read_strictly(bytes: &[u8]) -> Reading {
    if bytes.is_empty() {
        return Reading::Nothing;
    }
    let head_end = bytes.windows(4).position(|part| part == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let status = head[9..12].parse().expect("a status");
    let rest = &bytes[head_end..];
    if let Some(length) = support::client::field(&head, "Content-Length") {
        let length: usize = length.parse().expect("a length");
        assert!(rest.len() <= length, "bytes behind the end: {head}");
        let body = rest.to_vec();
        return match rest.len() == length {
            true => Reading::Whole { status, body },
            false => Reading::Cut { status, body },
        };
    }
    if support::client::field(&head, "Transfer-Encoding").is_none() {
        assert!(rest.is_empty(), "a body that must not be: {head}");
        return Reading::Whole { status, body: vec![] };
    }
    let (mut rest, mut body) = (rest, Vec::new());
    loop {
        let Some(line) = rest.windows(2).position(|part| part == b"\r\n") else {
            assert!(rest.is_empty(), "half a chunk line: {}", rest.escape_ascii());
            return Reading::Cut { status, body };
        };
        let size = std::str::from_utf8(&rest[..line]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        let data = &rest[line + 2..];
        assert_eq!(&data[size..size + 2], b"\r\n", "behind a chunk");
        body.extend_from_slice(&data[..size]);
        rest = &data[size + 2..];
        if size == 0 {
            assert!(rest.is_empty(), "bytes behind the end");
            return Reading::Whole { status, body };
        }
    }
}

/// What one random application was let do, and has given.
#[derive(Default)]
struct Deeds {
    /// Bytes that were accepted, or yielded.
    given: Vec<u8>,
    /// Iterables that were returned, and calls of their `close`.
    returned: usize,
    closed: usize,
}

/// An application whose every step is chosen by chance.
struct Chance<'a> {
    dice: Mutator,
    start_response: StartResponse<'a>,
    deeds: Arc<Mutex<Deeds>>,
    steps: usize,
    known: Option<usize>,
}

impl Chance<'_> {
    /// One call of `start_response`, good or bad. Its error may be passed on, or swallowed.
    fn start(&mut self) -> Result<(), Exception> {
        let status = ["200 OK", "200 OK", "404 Gone", "204 None", "99 Bad", "200\r\n"];
        let status = status[self.dice.below(status.len())];
        let fields: [&[(&str, &str)]; 6] = [
            &[],
            &[("Content-Type", "text/plain")],
            &[("Content-Length", "7")],
            &[("Content-Length", "x")],
            &[("Connection", "close")],
            &[("X", "\n")],
        ];
        let fields = fields[[0, 0, 1, 1, 2, 2, 3, 4, 5][self.dice.below(9)]];
        let called = match self.dice.below(3) {
            0 => self.start_response.call_after_error(status, fields, "chance".into()),
            _ => self.start_response.call(status, fields),
        };
        match called {
            Ok(mut out) => {
                for _ in 0..self.dice.below(3) {
                    let bytes = self.bytes();
                    self.give(&bytes);
                    out.write_all(&bytes)?;
                }
                Ok(())
            }
            Err(error) if self.dice.below(2) == 0 => Err(error),
            Err(_) => Ok(()),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = [0, 0, 1, 3, 7, 500][self.dice.below(6)];
        (0..length).map(|_| b'a' + self.dice.below(26) as u8).collect()
    }

    fn give(&mut self, bytes: &[u8]) {
        self.deeds.lock().expect("deeds").given.extend_from_slice(bytes);
    }
}

impl Iterable for Chance<'_> {
    fn next_chunk(&mut self) -> Option<Result<Vec<u8>, Exception>> {
        self.steps = self.steps.checked_sub(1)?;
        if self.dice.below(8) == 0 {
            return Some(Err("chance".into()));
        }
        if self.dice.below(6) == 0 {
            if let Err(error) = self.start() {
                return Some(Err(error));
            }
        }
        let bytes = self.bytes();
        self.give(&bytes);
        Some(Ok(bytes))
    }

    fn chunks(&self) -> Option<usize> {
        self.known
    }

    fn close(&mut self) {
        self.deeds.lock().expect("deeds").closed += 1;
    }
}

#[test]
fn ten_thousand_applications_of_chance_give_whole_or_cut_answers() {
    let deeds = Arc::new(Mutex::new(Deeds::default()));
    let shared = Arc::clone(&deeds);
    let house = serve(app(move |mut environ, start_response| {
        let seed = environ.path().unwrap_or_default()[1..].parse()?;
        let (mut dice, deeds) = (Mutator::new(seed), Arc::clone(&shared));
        // Seeds that lie close together begin alike.
        (0..20).for_each(|_| _ = dice.below(2));
        if dice.below(4) == 0 {
            environ.input.read_to_end(&mut Vec::new())?;
        }
        let steps = dice.below(5);
        // What it says about its chunks is true, as it must be.
        let known = (dice.below(2) == 0).then_some(steps);
        let mut chance = Chance { dice, start_response, deeds, steps, known };
        for _ in 0..[1, 1, 1, 1, 0, 2][chance.dice.below(6)] {
            chance.start()?;
        }
        chance.deeds.lock().expect("deeds").returned = 1;
        Ok(Box::new(chance))
    }));
    let (mut whole, mut cut, mut failed) = (0, 0, 0);
    for seed in 0..10_000 {
        *deeds.lock().expect("deeds") = Deeds::default();
        let mut stream = TcpStream::connect(house.address).expect("a connection");
        let method = if seed % 10 == 0 { "HEAD" } else { "GET" };
        let request =
            format!("{method} /{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", seed * 2);
        stream.write_all(request.as_bytes()).expect("sent");
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
        let deeds = deeds.lock().expect("deeds");
        assert_eq!(deeds.closed, deeds.returned, "{seed}: calls of close");
        if method == "HEAD" {
            continue;
        }
        match read_strictly(&bytes) {
            Reading::Nothing => panic!("{seed}: no answer at all: {failure}"),
            Reading::Whole { status: 500, .. } => {
                assert!(failure.starts_with("500 "), "{seed}: {failure}");
                failed += 1;
            }
            Reading::Whole { status, body } if failure == FINE => {
                let given = if status == 204 { &[][..] } else { &deeds.given };
                eq_bytes(given, &body);
                whole += 1;
            }
            Reading::Whole { body, .. } | Reading::Cut { body, .. } => {
                assert!(failure.starts_with("500 "), "{seed}: {failure}");
                assert!(deeds.given.starts_with(&body), "{seed}");
                cut += 1;
            }
        }
    }
    println!("{whole} whole, {cut} cut, {failed} failed");
    assert!(whole > 1_000 && cut > 500 && failed > 1_000, "{whole} {cut} {failed}");
}

#[test]
#[ignore = "exercise 16.3"]
fn exercise_16_3_a_client_cannot_set_http_proxy() {
    let told = environ(
        "GET / HTTP/1.1\r\nHost: a\r\nProxy: b\r\npROXY: c\r\nX-Proxy: d\r\n\
         Connection: close\r\n\r\n",
    );
    let proxies: Vec<&String> = told.iter().filter(|line| line.contains("PROXY")).collect();
    assert_eq!(proxies, ["HTTP_X_PROXY=d"]);
}

#[test]
#[ignore = "exercise 16.4"]
fn exercise_16_4_a_tab_in_a_field_is_refused() {
    let (answer, log) = starting(|start_response| {
        start_response.call("200 OK", &[("X", "one\ttwo")])?;
        Ok(())
    });
    assert!(answer.starts_with(FAILED), "{answer}");
    assert_eq!(log, why(&WsgiError::Field(FieldError::ValueByte).to_string()));
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
