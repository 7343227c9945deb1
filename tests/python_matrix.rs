//! Real frameworks behind the finished programs. `.ci/run` makes a virtual environment with them,
//! and names its interpreter in `GLASSHOUSE_PYTHON`:
//!
//! ```text
//! GLASSHOUSE_PYTHON=venv/bin/python3 cargo test --test python_matrix -- --ignored
//! ```
#![cfg(unix)]

mod support;

use std::env;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::client::{Answer, Client, field};
use support::process::Process;
use support::server::port_in;

const LIMIT: Duration = Duration::from_secs(30);

/// A program that hosts an application of `tests/python/`.
struct Hosted {
    address: SocketAddr,
    process: Process,
}

impl Hosted {
    /// `None`, and a line that says so, if there is no interpreter to test with.
    #[track_caller]
    fn start(program: &str, application: &str) -> Option<Hosted> {
        let Some(python) = env::var_os("GLASSHOUSE_PYTHON") else {
            println!("skipped: GLASSHOUSE_PYTHON names no interpreter");
            return None;
        };
        let environment =
            std::path::Path::new(&python).ancestors().nth(2).expect("VENV/bin/python3");
        let environment = environment.canonicalize().expect("a virtual environment");
        let mut command = Command::new(program);
        command.args([application, "--port", "0"]).stdout(Stdio::null());
        command.env("VIRTUAL_ENV", environment).env("PYTHONDONTWRITEBYTECODE", "1");
        let name = program.rsplit('/').next().unwrap_or_default();
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).expect("a folder for a database");
        command.env("GLASSHOUSE_DJANGO", folder);
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python"));
        let process = Process::spawn(&mut command);
        process.until(LIMIT, |lines| lines.iter().any(|line| port_in(line).is_some()));
        let lines = process.lines();
        let port = lines.iter().find_map(|line| port_in(line));
        let port = port.unwrap_or_else(|| panic!("no address in\n{}", lines.join("\n")));
        Some(Hosted { address: SocketAddr::from(([127, 0, 0, 1], port)), process })
    }

    fn wsgi(application: &str) -> Option<Hosted> {
        Hosted::start(env!("CARGO_BIN_EXE_wsgi"), application)
    }

    /// One request on a connection of its own. `head` holds more lines, each with its end.
    #[track_caller]
    fn ask(&self, method: &str, target: &str, head: &str, body: &[u8]) -> Answer {
        let mut client = Client::connect(self.address);
        let length = format!("Content-Length: {}\r\n", body.len());
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{head}{length}\r\n"));
        client.send(body);
        client.answer_to(method).expect("an answer")
    }

    #[track_caller]
    fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, "", b"")
    }

    /// Posts a list in JSON, longer than what is collected before a worker is chosen, to a view that
    /// adds it up. Every framework reads such a body in its own way.
    #[track_caller]
    fn adds_up(&self, target: &str) {
        let ones = format!("[{}1]", "1, ".repeat(199_999));
        let answer =
            self.ask("POST", target, "Content-Type: application/json\r\n", ones.as_bytes());
        assert!(answer.text().contains("200000"), "{}", answer.text());
    }

    /// A form with one file of so many bytes.
    #[track_caller]
    fn upload(&self, target: &str, size: usize) -> Answer {
        let mut body = b"--edge\r\nContent-Disposition: form-data; name=\"file\"; \
            filename=\"a.bin\"\r\nContent-Type: application/octet-stream\r\n\r\n"
            .to_vec();
        body.extend(vec![b'f'; size]);
        body.extend(b"\r\n--edge--\r\n");
        let head = "Content-Type: multipart/form-data; boundary=edge\r\n";
        self.ask("POST", target, head, &body)
    }
}

/// `name=value` of the cookie with this name.
fn cookie(answer: &Answer, name: &str) -> String {
    let fields = answer.head.split("\r\n").filter_map(|line| line.strip_prefix("Set-Cookie: "));
    let cookies = fields.filter_map(|value| value.split(';').next());
    let mut named = cookies.filter(|cookie| cookie.starts_with(&format!("{name}=")));
    named.next().unwrap_or_else(|| panic!("no {name} in {}", answer.head)).to_string()
}

#[test]
#[ignore = "needs GLASSHOUSE_PYTHON"]
fn matrix_flask_by_wsgi() {
    let Some(flask) = Hosted::wsgi("flask_app:app") else { return };
    assert_eq!(flask.get("/hello/caf%C3%A9").text(), "Hello, café!\n");
    let first = flask.get("/count");
    assert_eq!(first.text(), "1");
    let session = format!("Cookie: {}\r\n", cookie(&first, "session"));
    assert_eq!(flask.ask("GET", "/count", &session, b"").text(), "2");
    let answer = flask.upload("/upload", 3_000_000).text();
    assert!(answer.contains("\"size\":3000000") && answer.contains("a.bin"), "{answer}");
    flask.adds_up("/sums");
    let head = "Content-Type: application/x-www-form-urlencoded\r\n";
    assert_eq!(flask.ask("POST", "/form", head, b"name=Ada").text().trim(), r#"{"name":"Ada"}"#);
    let stream = flask.get("/stream");
    assert!(stream.says("Transfer-Encoding: chunked") && stream.text().ends_with("line 999\n"));
    assert_eq!(flask.get("/error").status, 500);
    assert_eq!(flask.get("/missing").status, 404);
    assert_eq!(flask.ask("HEAD", "/hello/x", "", b"").status, 200);
    let file = flask.get("/file");
    let tag = field(&file.head, "ETag").expect("a tag").to_string();
    assert!(file.text().starts_with("\"\"\"Flask"));
    let again = flask.ask("GET", "/file", &format!("If-None-Match: {tag}\r\n"), b"");
    assert_eq!(again.status, 304);
    let seen = |lines: &[String]| lines.iter().any(|line| line.contains("on purpose"));
    assert!(flask.process.until(LIMIT, seen), "no traceback in the log");
}

#[test]
#[ignore = "needs GLASSHOUSE_PYTHON"]
fn matrix_a_flask_factory_by_wsgi() {
    let Some(flask) = Hosted::wsgi("flask_app:create_app()") else { return };
    assert_eq!(flask.get("/hello/you").text(), "Hello, you!\n");
}

#[test]
#[ignore = "needs GLASSHOUSE_PYTHON"]
fn matrix_pyramid_by_wsgi() {
    let Some(pyramid) = Hosted::wsgi("pyramid_app:make_app()") else { return };
    assert_eq!(pyramid.get("/hello/you").text(), "Hello, you!\n");
    let head = "Content-Type: application/json\r\n";
    assert_eq!(pyramid.ask("POST", "/sums", head, b"[1, 2, 3]").text(), r#"{"sum": 6}"#);
    pyramid.adds_up("/sums");
    assert_eq!(pyramid.get("/none").status, 404);
}

#[test]
#[ignore = "needs GLASSHOUSE_PYTHON"]
fn matrix_django_and_its_admin_by_wsgi() {
    let Some(django) = Hosted::wsgi("django_app:application") else { return };
    try_django(&django);
}

/// The same for both contracts: pages, an upload, and the way into the admin.
fn try_django(django: &Hosted) {
    assert_eq!(django.get("/hello/you/").text(), "Hello, you!\n");
    assert!(django.get("/stream/").text().ends_with("line 999\n"));
    assert!(django.get("/file/").text().starts_with("\"\"\"Django"));
    let answer = django.upload("/upload/", 3_000_000).text();
    assert_eq!(answer, r#"{"name": "a.bin", "size": 3000000}"#);
    django.adds_up("/sums/");
    assert!(django.get("/admin/").head.contains("Location: /admin/login/"));
    let form = django.get("/admin/login/?next=/admin/");
    let csrf = cookie(&form, "csrftoken");
    let text = form.text();
    let token = text.split("csrfmiddlewaretoken\" value=\"").nth(1).and_then(|t| t.get(..64));
    let token = token.unwrap_or_else(|| panic!("no token in {text}"));
    let head = format!(
        "Cookie: {csrf}\r\nOrigin: http://localhost\r\n\
        Content-Type: application/x-www-form-urlencoded\r\n"
    );
    let body = format!("csrfmiddlewaretoken={token}&username=admin&password=password&next=/admin/");
    let answer = django.ask("POST", "/admin/login/", &head, body.as_bytes());
    assert_eq!(answer.status, 302, "{}", answer.text());
    let session = format!("Cookie: {}\r\n", cookie(&answer, "sessionid"));
    let admin = django.ask("GET", "/admin/", &session, b"");
    assert!(admin.status == 200 && admin.text().contains("Site administration"));
}
