//! Hosted frameworks, by ASGI. They need an interpreter that has them, so these tests are run by
//! name: `GLASSHOUSE_PYTHON=venv/bin/python3 cargo test --test python_matrix_asgi -- --ignored`,
//! after `venv/bin/pip install fastapi python-multipart django channels`.
#![cfg(unix)]

mod support;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use glasshouse::gateway::asgi::Asgi;
use glasshouse::http::server::{Running, Server, Settings};
use glasshouse::python::asgi_host::PythonAsgi;
use glasshouse::python::worker::Pool;
use glasshouse::websocket::session::{SessionSettings, WebSockets};
use support::client::{Answer, Client, field};
use support::watchdog::{Watchdog, watchdog};
use support::websocket::Peer;

struct House {
    address: SocketAddr,
    pool: Arc<Pool>,
    running: Option<Running>,
    _dog: Watchdog,
}

/// `None`, and a line that says so, if there is no interpreter to test with.
#[track_caller]
fn house(application: &str) -> Option<House> {
    let Some(python) = std::env::var_os("GLASSHOUSE_PYTHON") else {
        println!("skipped: GLASSHOUSE_PYTHON names no interpreter");
        return None;
    };
    let dog = watchdog(100, application);
    let mut spec = PythonAsgi::spec(&format!("tests.python.{application}"));
    spec.python = PathBuf::from(python);
    let pool = Pool::start(spec).unwrap_or_else(|error| panic!("{error}"));
    let pool = Arc::new(pool);
    let server = Server::bind(Settings { port: 0, ..Settings::default() }).expect("a free port");
    let address = server.address();
    let asgi = Asgi::start(Arc::new(PythonAsgi::new(Arc::clone(&pool))), address);
    let asgi = Arc::new(asgi.expect("no lifespan, no failure"));
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
        self.ask(format!("GET {target} HTTP/1.1\r\nHost: example.org\r\n\r\n"))
    }

    #[track_caller]
    fn post(&self, target: &str, fields: &str, body: &str) -> Answer {
        let length = body.len();
        self.ask(format!(
            "POST {target} HTTP/1.1\r\nHost: example.org\r\n{fields}Content-Length: {length}\r\n\r\n\
             {body}"
        ))
    }

    /// Asks again and again until the answer has this text.
    #[track_caller]
    fn wait_for(&self, target: &str, text: &str) {
        let began = Instant::now();
        loop {
            let answer = self.get(target).text();
            if answer.contains(text) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(3), "{text} is not in {answer}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
#[ignore = "needs FastAPI"]
fn matrix_fastapi() {
    let Some(house) = house("fastapi_app:app") else { return };
    assert_eq!(house.get("/").text(), r#"{"greeting":"hello"}"#);
    assert_eq!(house.get("/items/7").text(), r#"{"number":7}"#);
    let answer = house.get("/items/seven");
    assert_eq!(answer.status, 422);
    assert!(answer.text().contains("int_parsing"), "{}", answer.text());
    let item = r#"{"name":"pen","price":1.5}"#;
    assert_eq!(house.post("/items", JSON, item).text(), item);
    // A background task, which runs when the answer is complete.
    house.wait_for("/done", r#"["pen"]"#);
    assert_eq!(house.post("/items", JSON, r#"{"name":"pen"}"#).status, 422);
    let ones = format!("[{}1]", "1, ".repeat(199_999));
    assert_eq!(house.post("/sums", JSON, &ones).text(), r#"{"sum":200000}"#);
    assert!(house.get("/docs").text().contains("swagger-ui"));
    assert!(house.get("/openapi.json").text().contains(r#""/items/{number}""#));
}

#[test]
#[ignore = "needs FastAPI"]
fn matrix_fastapi_streams() {
    let Some(house) = house("fastapi_app:app") else { return };
    let answer = house.get("/numbers");
    assert!(answer.says("Transfer-Encoding: chunked"), "{}", answer.head);
    assert_eq!(answer.text(), "data: 0\n\ndata: 1\n\ndata: 2\n\n");
    let mut client = Client::connect(house.address);
    client.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n");
    client.up_to("data: tick\n\n");
    drop(client);
    house.wait_for("/done", "closed");
}

#[test]
#[ignore = "needs FastAPI"]
fn matrix_fastapi_websocket() {
    let Some(house) = house("fastapi_app:app") else { return };
    let mut peer = Peer::open(house.address, "/ws/ada");
    peer.text("hello");
    peer.hears("ada: hello");
    assert_eq!(peer.close(4000, "bye"), 4000);
    house.wait_for("/done", "4000");
    // There is no such route.
    assert!(Peer::ask(house.address, "/nowhere", "").head().starts_with("HTTP/1.1 403 "));
}

#[test]
#[ignore = "needs Starlette and python-multipart"]
fn matrix_starlette() {
    let Some(house) = house("starlette_app:app") else { return };
    let answer = house.get("/cookie");
    assert_eq!(answer.text(), "none");
    assert!(answer.head.contains("set-cookie: taste=sweet"), "{}", answer.head);
    let sweet = "GET /cookie HTTP/1.1\r\nHost: a\r\nCookie: taste=sweet\r\n\r\n";
    assert_eq!(house.ask(sweet).text(), "sweet");
    let answer = house.get("/away");
    assert_eq!((answer.status, field(&answer.head, "location")), (307, Some("/cookie")));
    assert_eq!(house.get("/below/inner").text(), "http://example.org/below/inner");
    assert_eq!(house.get("/wrong").text(), "Internal Server Error");
    assert_eq!(house.get("/nowhere").status, 404);
    let content = "x".repeat(300_000);
    let form = format!(
        "--cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n\
         {content}\r\n--cut--\r\n"
    );
    let answer =
        house.post("/upload", "Content-Type: multipart/form-data; boundary=cut\r\n", &form);
    assert_eq!(answer.text(), r#"{"name":"a.txt","size":300000}"#);
}

#[test]
#[ignore = "needs Starlette"]
fn matrix_starlette_websocket() {
    let Some(house) = house("starlette_app:app") else { return };
    let mut peer = Peer::ask(house.address, "/echo", "Sec-WebSocket-Protocol: json\r\n");
    let head = peer.head();
    assert!(head.contains("Sec-WebSocket-Protocol: json\r\n"), "{head}");
    peer.text(r#"{"a": 1}"#);
    peer.hears(r#"{"a":1}"#);
    assert_eq!(peer.end(), (4001, "done".to_string()));
    assert!(Peer::ask(house.address, "/private", "").head().starts_with("HTTP/1.1 403 "));
}

/// The value of a cookie that an answer sets.
fn cookie(answer: &Answer, name: &str) -> String {
    let start = format!("{name}=");
    let mut values = answer.head.split("\r\n").filter_map(|line| line.split_once(": "));
    let value = values.find_map(|(_, value)| value.strip_prefix(&start));
    let value = value.unwrap_or_else(|| panic!("no {name} in {}", answer.head));
    value.split(';').next().unwrap_or_default().to_string()
}

#[test]
#[ignore = "needs Django"]
fn matrix_django_admin_login() {
    let Some(house) = house("django_asgi:application") else { return };
    assert_eq!(house.get("/hello/").text(), "http example.org /hello/\n");
    let form = house.get("/admin/login/");
    assert_eq!(form.status, 200);
    let csrf = cookie(&form, "csrftoken");
    let text = form.text();
    let (_, token) = text.split_once("name=\"csrfmiddlewaretoken\" value=\"").expect("a token");
    let token = token.split('"').next().unwrap_or_default();
    let fields = format!(
        "Cookie: csrftoken={csrf}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Origin: http://example.org\r\n"
    );
    let body = format!("csrfmiddlewaretoken={token}&username=ada&password=lovelace&next=/admin/");
    let answer = house.post("/admin/login/?next=/admin/", &fields, &body);
    assert_eq!((answer.status, field(&answer.head, "Location")), (302, Some("/admin/")));
    let session = cookie(&answer, "sessionid");
    let request =
        format!("GET /admin/ HTTP/1.1\r\nHost: example.org\r\nCookie: sessionid={session}\r\n\r\n");
    let page = house.ask(request);
    assert_eq!(page.status, 200);
    assert!(page.text().contains("Site administration"), "{}", page.text());
}

#[test]
#[ignore = "needs Django and Channels"]
fn matrix_channels_group_chat() {
    let Some(house) = house("django_asgi:channels") else { return };
    let mut ada = Peer::open(house.address, "/ws/chat/one/");
    let mut bob = Peer::open(house.address, "/ws/chat/one/");
    let mut other = Peer::open(house.address, "/ws/chat/two/");
    ada.text(r#"{"text": "hello"}"#);
    ada.hears(r#"{"text": "hello"}"#);
    bob.hears(r#"{"text": "hello"}"#);
    assert!(other.is_quiet(Duration::from_millis(100)));
    assert_eq!(bob.close(4000, ""), 4000);
    ada.hears(r#"{"text": "somebody has left: 4000"}"#);
    let mut shouter = Peer::open(house.address, "/ws/shout/");
    shouter.text("hello");
    shouter.hears("HELLO");
    assert!(Peer::ask(house.address, "/ws/chat/closed/", "").head().starts_with("HTTP/1.1 403 "));
    assert_eq!(house.get("/hello/").status, 200);
}
