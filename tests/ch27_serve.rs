//! Chapter 27: serving an application. The same application behind both gateways, on real sockets.

mod support;

use std::fs;
use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use glasshouse::http::headers::{FieldValue, Token};
use glasshouse::http::response::{Body, Status};
use glasshouse::http::server::{Running, Settings};
use glasshouse::socket::lobby::Deadlines;
use glasshouse::web::app::{App, AppSettings, HtmlResponse, HttpRequest, HttpResponse};
use glasshouse::web::app::{JsonResponse, NotFoundResponse, RedirectResponse, TemplateResponse};
use glasshouse::web::app::{TestClient, WebError, set_cookie};
use glasshouse::web::files::StaticFiles;
use glasshouse::web::form::SetCookie;
use glasshouse::web::serve::{AsgiServer, WsgiServer, request_timing, security_headers};
use glasshouse::web::template::{Context, Templates};
use glasshouse::web::upload::Spool;
use support::client::{Client, eq_text};
use support::process::Process;
use support::server::port_in;
use support::watchdog::watchdog;

type Outcome = Result<HttpResponse, WebError>;

/// A source that gives these pieces, one a read, and then fails if it shall.
struct Pieces(Vec<&'static [u8]>, Option<&'static str>);

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return self.1.map_or(Ok(0), |words| Err(io::Error::other(words)));
        }
        let piece = self.0.remove(0);
        out[..piece.len()].copy_from_slice(piece);
        Ok(piece.len())
    }
}

fn pieces(pieces: &[&'static [u8]], failure: Option<&'static str>) -> Box<dyn Read + Send> {
    Box::new(Pieces(pieces.to_vec(), failure))
}

fn echo(mut request: HttpRequest) -> io::Result<HttpResponse> {
    let mut body = Vec::new();
    request.read_to_end(&mut body)?;
    let mut response = HttpResponse::new(Status::OK);
    response.body = Body::Whole(body.into());
    Ok(response)
}

/// A view that is not careful with its errors.
fn careless(mut request: HttpRequest) -> String {
    let mut body = String::new();
    request.read_to_string(&mut body).expect("a body");
    body
}

fn form(mut request: HttpRequest) -> Result<String, WebError> {
    let form = request.form()?;
    let fields: Vec<String> = form.fields.iter().map(|(k, v)| format!("{k}={v}\n")).collect();
    let names = |file: &glasshouse::web::upload::UploadedFile| {
        format!("{} {} {}\n", file.field, file.file_name, file.size)
    };
    let files: Vec<String> = form.files.iter().map(names).collect();
    Ok(fields.concat() + &files.concat())
}

fn cookie(_: HttpRequest) -> Outcome {
    let cookie = SetCookie::new("theme", "dark");
    set_cookie(HttpResponse::text(Status::OK, "sweet"), &cookie)
}

fn latin(_: HttpRequest) -> HttpResponse {
    let value = FieldValue::new(b"caf\xc3\xa9 \xff").expect("obs-text");
    HttpResponse::text(Status::OK, "").with(Token::constant("X-Latin"), value)
}

fn short(_: HttpRequest) -> HttpResponse {
    let ten = FieldValue::constant("10");
    HttpResponse::text(Status::OK, "four").with(Token::constant("Content-Length"), ten)
}

fn settings_of(debug: bool, spool: Option<Spool>) -> AppSettings {
    let templates = Templates::in_memory(debug).with("page.html", "<p>{{ name }}</p>\n");
    let templates: Option<Box<dyn glasshouse::web::template::TemplateEngine>> =
        Some(Box::new(templates.with("bad.html", "{% if %}")));
    AppSettings { templates, spool, debug, ..AppSettings::default() }
}

/// An application with a view for each kind of answer.
fn site(settings: AppSettings) -> App {
    let page = |_: HttpRequest| HtmlResponse("<!doctype html>\n<title>Hello</title>\n");
    let sized = |_: HttpRequest| HttpResponse::stream(Some(6), pieces(&[b"one", b"two"], None));
    let open = |_: HttpRequest| HttpResponse::stream(None, pieces(&[b"one", b"two"], None));
    let broken = |_: HttpRequest| HttpResponse::stream(None, pieces(&[b"one"], Some("disk")));
    let never = |_: HttpRequest| HttpResponse::stream(None, pieces(&[], Some("disk")));
    App::new()
        .with_settings(settings)
        .get("", page)
        .get("hello/<str:name>/", |request: HttpRequest| {
            format!("Hello, {}!\n", request.parameters.get("name"))
        })
        .get("query/", |request: HttpRequest| -> Result<String, WebError> {
            Ok(request.query()?.get("a").unwrap_or("nothing").to_string())
        })
        .get("json/", |_| JsonResponse(Context::new().with("a", 1)))
        .get("template/", |_| TemplateResponse("page.html", Context::new().with("name", "<Ada>")))
        .get("bad-template/", |_| TemplateResponse("bad.html", Context::new()))
        .get("status/<int:code>/", |request: HttpRequest| {
            (request.parameters.int("code") as u16, "so it is\n")
        })
        .get("missing/", |_| NotFoundResponse("No such book.\n"))
        .get("moved/", |_| RedirectResponse("/hello/you/"))
        .get("forged/", |_| RedirectResponse("/\r\nSet-Cookie: a=b"))
        .get("cookie/", cookie)
        .get("latin/", latin)
        .get("short/", short)
        .get("sized/", sized)
        .get("open/", open)
        .get("broken/", broken)
        .get("never/", never)
        .get("nothing/", |_| HttpResponse::new(Status::NO_CONTENT))
        .get("endless/", |_| HttpResponse::stream(None, Box::new(io::repeat(b'x'))))
        .get("endless-304/", |_| {
            let stream = HttpResponse::stream(None, Box::new(io::repeat(b'x')));
            (304, stream)
        })
        .get("panic/", |_| -> &'static str { panic!("a secret of the view") })
        .get("file-error/", |_| fs::read_to_string("/no/such/secret"))
        .route("echo/", echo)
        .route("careless/", careless)
        .post("form/", form)
        .put("thing/", |_| "put\n")
        .delete("thing/", |_| (204, ""))
}

/// The same application behind both.
struct Both {
    wsgi: Running,
    asgi: Running,
}

impl Both {
    fn start(make: impl Fn() -> App) -> Both {
        Both::with(make, |settings| settings)
    }

    fn with(make: impl Fn() -> App, change: impl Fn(Settings) -> Settings) -> Both {
        let ms = Duration::from_millis;
        let deadlines = Deadlines { tick: ms(5), linger: ms(200), ..Deadlines::default() };
        let settings = change(Settings { deadlines, ..Settings::default() });
        let wsgi = WsgiServer::new("127.0.0.1:0", make()).with_settings(settings.clone());
        let asgi = AsgiServer::new("127.0.0.1:0", make()).with_settings(settings);
        let wsgi = wsgi.start().expect("a free port");
        Both { wsgi, asgi: asgi.start().expect("a free port") }
    }

    /// The answer to these bytes, after which the client sends nothing more. It must be the same.
    #[track_caller]
    fn ask(&self, request: &str) -> String {
        let mut answers = [&self.wsgi, &self.asgi].map(|running| {
            let mut client = Client::connect(running.address);
            client.send(request);
            client.finish();
            client.all()
        });
        eq_text(&answers[0], &answers[1]);
        std::mem::take(&mut answers[0])
    }

    fn stop(self) {
        assert!(self.wsgi.stop() && self.asgi.stop());
    }
}

fn get(target: &str) -> String {
    bare("GET", target)
}

fn bare(method: &str, target: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
}

fn with_body(target: &str, fields: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n{body}")
}

fn posted(target: &str, kind: &str, body: &str) -> String {
    let fields = format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
    with_body(target, &fields, body)
}

fn chunked(target: &str, chunks: &str) -> String {
    with_body(target, "Transfer-Encoding: chunked\r\n", chunks)
}

fn upload(body: &str) -> String {
    posted("/form/", "multipart/form-data; boundary=XX", body)
}

const PART: &str = "--XX\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\n\r\n";

/// What is asked, and the status of the answer.
fn requests() -> Vec<(u16, String)> {
    let urlencoded = "application/x-www-form-urlencoded";
    let many = "a&".repeat(1001);
    let long_trailer = format!("0\r\nX-A: {}\r\n\r\n", "a".repeat(9000));
    vec![
        (200, get("/")),
        (200, bare("HEAD", "/")),
        (204, bare("OPTIONS", "/")),
        (204, bare("OPTIONS", "*")),
        (405, bare("POST", "/")),
        (405, bare("TRACE", "/")),
        (405, bare("BREW", "/")),
        (200, get("http://a/hello/Ada/")),
        (200, get("/hello/Ada%20L/?x=1")),
        (200, get("/hello/%C3%A9/")),
        (301, get("/hello/Ada?x=%0d%0a")),
        (404, get("/\\evil.example/deep")),
        (404, get("/hello//")),
        (404, get("/nowhere/%3Cscript%3E")),
        (404, bare("CONNECT", "a:443")),
        (400, get("/%00")),
        (400, get("/%ff")),
        (400, get("/%zz")),
        (200, get("/query/?a=%41")),
        (400, get(&format!("/query/?{many}"))),
        (200, get("/json/")),
        (200, get("/template/")),
        (500, get("/bad-template/")),
        (201, get("/status/201/")),
        (299, get("/status/299/")),
        (500, get("/status/199/")),
        (500, get("/status/600/")),
        (404, get("/missing/")),
        (303, get("/moved/")),
        (500, get("/forged/")),
        (200, get("/cookie/")),
        (200, get("/latin/")),
        (200, bare("HEAD", "/latin/")),
        (200, get("/short/")),
        (200, get("/sized/")),
        (200, bare("HEAD", "/sized/")),
        (200, get("/open/")),
        (200, get("/open/").replace("HTTP/1.1", "HTTP/1.0")),
        (200, get("/broken/")),
        (500, get("/never/")),
        (204, get("/nothing/")),
        (200, bare("HEAD", "/endless/")),
        (304, get("/endless-304/")),
        (500, get("/panic/")),
        (500, get("/file-error/")),
        (200, bare("PUT", "/thing/")),
        (204, bare("DELETE", "/thing/")),
        (405, bare("GET", "/thing/")),
        (200, get("/static/a.txt")),
        (206, get("/static/a.txt").replace("Host", "Range: bytes=1-2\r\nHost")),
        (200, bare("HEAD", "/static/a.txt")),
        (405, bare("POST", "/static/a.txt")),
        (404, get("/static/../Cargo.toml")),
        (404, get("/static/%2e%2e/Cargo.toml")),
        (200, posted("/form/", urlencoded, "a=1&b=%20&a=2")),
        (413, posted("/form/", urlencoded, &many)),
        (415, posted("/form/", "text/plain", "a=1")),
        (415, with_body("/form/", "", "")),
        (200, upload(&format!("{PART}hello\r\n--XX--\r\n"))),
        (400, upload(&format!("{PART}hello"))),
        (400, upload("--XX\r\n\r\n")),
        (200, chunked("/echo/", "3\r\nabc\r\n0\r\n\r\n")),
        (200, with_body("/echo/", "Content-Length: 0\r\n", "")),
        // A body that breaks a rule: read by a careful view, by a careless one, as a form.
        (400, chunked("/echo/", "3\r\nabcd\r\n0\r\n\r\n")),
        (400, chunked("/careless/", "3\r\nabcd\r\n0\r\n\r\n")),
        (400, chunked("/echo/", "fffffffffffffffff\r\n")),
        (400, with_body("/echo/", "Content-Length: 9\r\n", "cut")),
        (400, with_body("/careless/", "Content-Length: 9\r\n", "cut")),
        (400, upload(PART).replace("Content-Length: ", "Content-Length: 1")),
        (431, chunked("/echo/", &long_trailer)),
        (413, chunked("/echo/", "ffffffff\r\n")),
        (413, with_body("/echo/", "Content-Length: 99999999999\r\n", "")),
        (417, with_body("/echo/", "Expect: tea\r\nContent-Length: 3\r\n", "abc")),
        // What is no request at all.
        (400, "GET / HTTP/1.1\r\n\r\n".to_string()),
        (400, "GET / HTTP/1.1\nHost: a\n\n".to_string()),
        (505, "GET / HTTP/2.0\r\n\r\n".to_string()),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(9000))),
        // Three in a row on one connection.
        (200, format!("{0}{0}{0}", get("/json/").replace("Connection: close\r\n", ""))),
    ]
}

/// A folder of this test's own, removed at the end.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("gh24-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn whole_site(folder: &Folder, debug: bool) -> App {
    fs::write(folder.0.join("a.txt"), "abc\n").expect("a file");
    let spool = Spool::open(&folder.0.join("spool")).expect("a folder");
    let files = StaticFiles::new(&folder.0).expect("a folder");
    site(settings_of(debug, Some(spool)))
        .files("static/", files)
        .get("<str:any>/deep/", |_| "any\n")
}

// The same application behind both gateways.

#[test]
fn both_gateways_give_the_same_answers_byte_by_byte() {
    let _dog = watchdog(60, "both gateways");
    for debug in [false, true] {
        let folder = Folder::new(if debug { "debug" } else { "same" });
        let both = Both::start(|| whole_site(&folder, debug).middleware(security_headers));
        let requests = requests();
        assert!(requests.len() >= 40, "{}", requests.len());
        for (status, request) in requests {
            let answer = both.ask(&request);
            let begins = answer.starts_with(&format!("HTTP/1.1 {status} "));
            assert!(begins, "{}\n{answer}", request.escape_debug());
            assert!(debug || !answer.contains("secret"), "{answer}");
        }
        both.stop();
    }
}

#[test]
fn the_answer_to_head_has_the_fields_of_the_answer_to_get() {
    let _dog = watchdog(20, "HEAD");
    let folder = Folder::new("head");
    let both = Both::start(|| whole_site(&folder, false));
    for target in ["/", "/hello/Ada/", "/missing/", "/sized/", "/static/a.txt", "/nothing/"] {
        let whole = both.ask(&get(target));
        let (head, _) = whole.split_once("\r\n\r\n").expect("a head");
        eq_text(&format!("{head}\r\n\r\n"), &both.ask(&bare("HEAD", target)));
    }
    both.stop();
}

#[test]
fn a_slow_body_is_answered_with_408_behind_both() {
    let _dog = watchdog(20, "slow bodies");
    let quick = |mut settings: Settings| {
        settings.deadlines.body = Duration::from_millis(150);
        settings
    };
    let both = Both::with(|| site(settings_of(false, None)), quick);
    for target in ["/echo/", "/careless/", "/form/"] {
        let kind = "application/x-www-form-urlencoded";
        let request = posted(target, kind, "a=1").replace("Length: 3", "Length: 9");
        let answers = [&both.wsgi, &both.asgi].map(|running| {
            let mut client = Client::connect(running.address);
            client.send(&request);
            client.all()
        });
        eq_text(&answers[0], &answers[1]);
        assert!(answers[0].starts_with("HTTP/1.1 408 "), "{target}: {}", answers[0]);
    }
    both.stop();
}

#[test]
fn a_body_over_the_limit_is_answered_with_413_behind_both() {
    let _dog = watchdog(20, "long bodies");
    let small = |mut settings: Settings| {
        settings.limits.body.body = 10;
        settings
    };
    let both = Both::with(|| site(settings_of(false, None)), small);
    for target in ["/echo/", "/careless/"] {
        let declared = both.ask(&posted(target, "text/plain", "eleven byte"));
        assert!(declared.starts_with("HTTP/1.1 413 "), "{declared}");
        let counted = both.ask(&chunked(target, "6\r\nsix by\r\n6\r\nsix by\r\n0\r\n\r\n"));
        assert!(counted.starts_with("HTTP/1.1 413 "), "{counted}");
    }
    both.stop();
}

#[test]
fn a_client_that_hangs_up_is_seen_as_a_broken_body_and_nothing_else() {
    let _dog = watchdog(20, "hanging up");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let both = Both::start(|| {
        let seen = Arc::clone(&seen);
        App::new().post("", move |mut request: HttpRequest| {
            let error = io::copy(&mut request, &mut io::sink()).expect_err("it is cut");
            let error = WebError::from(error);
            let is_body = matches!(error, WebError::Body(_));
            seen.lock().expect("no panic").push((is_body, error.status().code()));
            error
        })
    });
    for (before, running) in [&both.wsgi, &both.asgi].into_iter().enumerate() {
        let mut client = Client::connect(running.address);
        client.send(with_body("/", "Content-Length: 9\r\n", "cut"));
        drop(client);
        while seen.lock().expect("no panic").len() == before {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    both.stop();
    assert_eq!(*seen.lock().expect("no panic"), [(true, 400), (true, 400)]);
}

/// Gives a piece and waits for leave to give the next.
struct Gate(Arc<Mutex<u32>>);

impl Read for Gate {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while *self.0.lock().expect("no panic") == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        *self.0.lock().expect("no panic") -= 1;
        out[0] = b'x';
        Ok(1)
    }
}

#[test]
fn a_piece_of_a_stream_is_sent_before_the_next_is_asked_for() {
    let _dog = watchdog(20, "streams");
    let leave = Arc::new(Mutex::new(0));
    let both = Both::start(|| {
        let leave = Arc::clone(&leave);
        App::new().get("", move |_| {
            HttpResponse::stream(None, Box::new(Gate(Arc::clone(&leave)).take(2)))
        })
    });
    for running in [&both.wsgi, &both.asgi] {
        let mut client = Client::connect(running.address);
        client.send(get("/"));
        *leave.lock().expect("no panic") = 1;
        client.up_to("1\r\nx\r\n");
        *leave.lock().expect("no panic") = 1;
        assert_eq!(client.all(), "1\r\nx\r\n0\r\n\r\n");
    }
    both.stop();
}

/// Endless, and counts its ends.
struct Endless(Arc<Mutex<u32>>);

impl Read for Endless {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        out.fill(b'x');
        Ok(out.len())
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        *self.0.lock().expect("no panic") += 1;
    }
}

#[test]
fn a_stream_ends_when_its_client_goes() {
    let _dog = watchdog(20, "endless streams");
    let ends = Arc::new(Mutex::new(0));
    let both = Both::start(|| {
        let ends = Arc::clone(&ends);
        App::new()
            .get("", move |_| HttpResponse::stream(None, Box::new(Endless(Arc::clone(&ends)))))
    });
    for running in [&both.wsgi, &both.asgi] {
        let mut client = Client::connect(running.address);
        client.send(get("/"));
        client.up_to("xxx");
    }
    both.stop();
    assert_eq!(*ends.lock().expect("no panic"), 2);
}

// Middleware.

#[test]
fn the_timing_is_a_duration_in_milliseconds() {
    let app = App::new()
        .get("", |_| {
            std::thread::sleep(Duration::from_millis(20));
            "slept"
        })
        .middleware(request_timing);
    let response = TestClient::new(&app).get("/");
    let timing = response.field("Server-Timing").expect("a field").to_string();
    let took: f64 = timing.strip_prefix("app;dur=").expect("a duration").parse().expect("a number");
    assert!((20.0..2000.0).contains(&took), "{timing}");
}

#[test]
fn security_fields_stand_on_every_answer_and_a_view_may_set_its_own() {
    let folder = Folder::new("careful");
    let own = |_: HttpRequest| {
        let framed = FieldValue::constant("SAMEORIGIN");
        HttpResponse::text(Status::OK, "").with(Token::constant("x-frame-options"), framed)
    };
    let app = whole_site(&folder, false).get("own/", own).middleware(security_headers);
    let client = TestClient::new(&app);
    for target in ["/", "/nowhere/", "/panic/", "/moved/", "/static/a.txt", "/own/"] {
        let response = client.get(target);
        let names = ["X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy"];
        for name in names {
            let lines = response.headers.iter().filter(|(own, _)| own.as_str() == name);
            let lines = lines.count() + usize::from(name == names[1] && target == "/own/");
            assert_eq!(lines, 1, "{target} {name}");
        }
    }
    assert_eq!(client.get("/").field("X-Frame-Options"), Some("DENY"));
    assert_eq!(client.get("/own/").field("X-Frame-Options"), Some("SAMEORIGIN"));
    assert_eq!(client.get("/").field("Referrer-Policy"), Some("same-origin"));
}

// The servers.

#[test]
fn an_address_needs_a_port_and_a_port_must_be_free() {
    let _dog = watchdog(20, "addresses");
    for address in ["127.0.0.1", "localhost:http", "127.0.0.1:70000", ""] {
        let error = WsgiServer::new(address, App::new()).serve_forever().expect_err(address);
        assert!(error.to_string().contains("write it as 127.0.0.1:8000"), "{error}");
        assert!(AsgiServer::new(address, App::new()).serve_forever().is_err());
    }
    let first = WsgiServer::new("127.0.0.1:0", App::new()).start().expect("a free port");
    let taken = first.address.to_string();
    let error = AsgiServer::new(&taken, App::new()).start().map(|_| ()).expect_err("it is taken");
    assert!(error.to_string().contains("choose another port"), "{error}");
    assert!(first.stop());
}

/// What the next test starts as a process of its own. Otherwise it does nothing.
#[test]
fn forever() {
    let app = App::new().get("", |_| "Hello!\n");
    match std::env::var("SERVE_FOREVER").as_deref() {
        Ok("wsgi") => WsgiServer::new("127.0.0.1:0", app).serve_forever().expect("a free port"),
        Ok("asgi") => AsgiServer::new("127.0.0.1:0", app).serve_forever().expect("a free port"),
        _ => {}
    }
}

#[test]
fn both_servers_say_where_they_are_serve_and_stop_at_a_signal() {
    let _dog = watchdog(60, "serving forever");
    for which in ["wsgi", "asgi"] {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "forever", "--nocapture"]).env("SERVE_FOREVER", which);
        let mut process = Process::spawn(command.stdout(Stdio::null()));
        let limit = Duration::from_secs(20);
        process.until(limit, |lines| lines.iter().any(|line| port_in(line).is_some()));
        let port = process.lines().iter().find_map(|line| port_in(line)).expect("an address");
        let mut client = Client::connect(([127, 0, 0, 1], port).into());
        client.send(get("/"));
        assert_eq!(client.answer().expect("an answer").text(), "Hello!\n");
        process.signal("TERM");
        assert_eq!(process.finish(limit), Some(Some(0)), "{which}");
    }
}

// Exercises.

#[test]
#[ignore = "exercise 27.2"]
fn exercise_27_2_other_sites_cannot_reach_the_window_of_a_page() {
    let app = App::new().get("", |_| "page").middleware(security_headers);
    let response = TestClient::new(&app).get("/");
    assert_eq!(response.field("Cross-Origin-Opener-Policy"), Some("same-origin"));
}

#[test]
#[ignore = "exercise 27.4"]
fn exercise_27_4_a_port_alone_is_an_address_of_this_machine() {
    let server = WsgiServer::new(":0", App::new().get("", |_| "Hello!\n"));
    let running = server.start().expect("a free port");
    assert!(running.address.ip().is_loopback(), "{}", running.address);
    assert!(running.stop());
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
