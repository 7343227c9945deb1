//! Pages for trying the server itself: they give back, count, stream, wait, fail.

use std::io::{self, Read};
use std::thread;
use std::time::Duration;

use crate::http::headers::{CONTENT_TYPE, FieldValue};
use crate::http::request::{Method, Version};
use crate::http::response::{Body, Status};
use crate::web::app::{
    App, HttpRequest, HttpResponse, IntoResponse, NotFoundResponse, PlainTextResponse,
    TemplateResponse, WebError, view,
};
use crate::web::router::path;
use crate::web::template::Context;

/// The application with these pages.
pub fn with_workshop(app: App) -> App {
    app.get("wire/", wire)
        .with_route(path("echo/", view(echo)).method(Method::Post).method(Method::Put))
        .with_route(path("count/", view(count)).method(Method::Post).method(Method::Put))
        .get("stream/", |_| stream(Duration::from_secs(1)))
        .get("sleep/<str:seconds>/", sleep)
        .get("bytes/<int:length>/", bytes)
        .get("status/<int:code>/", status)
        .get("panic/", panics)
        .get("healthz", |_| "ok\n")
}

/// Reads all of the body before the answer begins, so that a broken body gets its error.
///
/// # Errors
/// Those of the body.
pub fn echo(mut request: HttpRequest) -> Result<HttpResponse, WebError> {
    let mut body = Vec::new();
    request.read_to_end(&mut body)?;
    let mut response = HttpResponse::new(Status::OK);
    response.body = Body::Whole(body.into());
    Ok(response.with(CONTENT_TYPE, FieldValue::constant("application/octet-stream")))
}

/// Reads any body without keeping it.
fn count(mut request: HttpRequest) -> Result<String, WebError> {
    let mut block = vec![0; 256 * 1024];
    let mut total = 0_u64;
    loop {
        match request.read(&mut block)? {
            0 => return Ok(format!("{total}\n")),
            count => total += count as u64,
        }
    }
}

/// Lines with a pause between them. Each leaves as soon as it is there.
struct Lines {
    next: u32,
    pause: Duration,
}

const LINES: u32 = 5;

impl Read for Lines {
    /// A whole line, at each call: whoever reads has room for that.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.next > LINES {
            return Ok(0);
        }
        if self.next > 1 {
            thread::sleep(self.pause);
        }
        let line = format!("line {} of {LINES}\n", self.next);
        self.next += 1;
        line.as_bytes().read(out)
    }
}

/// Five lines, sent in chunks.
pub fn stream(pause: Duration) -> HttpResponse {
    let response = HttpResponse::stream(None, Box::new(Lines { next: 1, pause }));
    response.with(CONTENT_TYPE, FieldValue::constant("text/plain; charset=utf-8"))
}

/// Holds its thread for some seconds, as a slow database would.
fn sleep(request: HttpRequest) -> HttpResponse {
    const MOST: f64 = 60.0;
    let seconds = request.parameters.get("seconds").parse::<f64>();
    match seconds.ok().filter(|seconds| (0.0..=MOST).contains(seconds)) {
        Some(seconds) => {
            thread::sleep(Duration::from_secs_f64(seconds));
            format!("Slept for {seconds} seconds.\n").into_response(request.app)
        }
        None => NotFoundResponse("A number of seconds from 0 to 60 goes here.\n")
            .into_response(request.app),
    }
}

/// So many bytes, made while they are sent.
fn bytes(request: HttpRequest) -> HttpResponse {
    let length = request.parameters.int("length");
    let source = io::repeat(b'.').take(length);
    let response = HttpResponse::stream(Some(length), Box::new(source));
    response.with(CONTENT_TYPE, FieldValue::constant("application/octet-stream"))
}

fn status(request: HttpRequest) -> HttpResponse {
    let code = u16::try_from(request.parameters.int("code")).ok();
    let status = code.and_then(Status::new).filter(|status| status.code() >= 200);
    match status {
        Some(status) if status.forbids_body() => HttpResponse::new(status),
        Some(status) => {
            let text = PlainTextResponse(format!("{status}\n"));
            (status, text).into_response(request.app)
        }
        None => {
            NotFoundResponse("A status from 200 to 599 goes here.\n").into_response(request.app)
        }
    }
}

/// Shows that a bug in one view hurts nobody else.
#[allow(clippy::panic)]
fn panics(_: HttpRequest) -> HttpResponse {
    panic!("the view /panic/ panics, as it was asked to");
}

/// The visitor's own request, a line at a time, with its bytes and what they mean.
fn wire(request: HttpRequest) -> TemplateResponse<&'static str> {
    let head = request.head;
    let version = if head.version == Version::Http10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let first = format!("{} {} {version}", head.method.as_str(), head.target.raw);
    let mut rows = vec![row(first.as_bytes(), "The request line: method, target, version.")];
    for (name, value) in head.headers.iter() {
        let line = [name.as_str().as_bytes(), b": ", value.as_bytes()].concat();
        rows.push(row(&line, meaning(name.as_str())));
    }
    rows.push(row(b"", "The empty line: the head ends here."));
    let context = Context::new().with("rows", rows).with("peer", request.peer.to_string());
    TemplateResponse("wire.html", context.with("here", "/wire/"))
}

/// One line of the request: the text, its bytes in hexadecimal, and a note.
fn row(line: &[u8], note: &str) -> Context {
    let bytes: Vec<String> = line.iter().chain(b"\r\n").map(|byte| format!("{byte:02x}")).collect();
    Context::new().with("text", visible(line)).with("bytes", bytes.join(" ")).with("note", note)
}

fn visible(line: &[u8]) -> String {
    let mut text = String::new();
    for &byte in line {
        match byte {
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text += &format!("\\x{byte:02x}"),
        }
    }
    text
}

/// What can be said about the most common fields. The names are in lower case.
const MEANINGS: &[(&str, &str)] = &[
    ("accept", "The kinds of content that the client can use, best first."),
    ("accept-encoding", "The compressions that the client understands."),
    ("accept-language", "The languages that the reader prefers."),
    ("cache-control", "What caches on the way may do."),
    ("connection", "What shall happen with this connection afterwards."),
    ("cookie", "What the server asked the client to remember."),
    ("host", "Who is asked: one address can be home to many sites."),
    ("if-modified-since", "Answer only if it has changed since then."),
    ("origin", "The site whose page made this request."),
    ("referer", "The page that led here. The spelling error is older than the web."),
    ("upgrade-insecure-requests", "The client would prefer an encrypted connection."),
    ("user-agent", "The client's name for itself."),
];

fn meaning(name: &str) -> &'static str {
    let name = name.to_ascii_lowercase();
    match MEANINGS.iter().find(|(known, _)| *known == name) {
        Some((_, meaning)) => meaning,
        None if name.starts_with("sec-") => "Set by the browser itself: no script can change it.",
        None => "A field: its name, a colon, its value.",
    }
}
