//! The site: small pages that show what the server does. It may use every chapter above it.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Read};
use std::thread;
use std::time::Duration;

use crate::http::exchange::Exchange;
use crate::http::headers::{ALLOW, CONTENT_TYPE, FieldValue, Headers, Token};
use crate::http::request::{Method, TargetForm, Version};
use crate::http::response::{Body, Response, Status};
use crate::http::url::decoded_path;

/// One page, or one family of pages.
struct Page {
    /// The first segment of its path.
    name: &'static str,
    /// Whether a second segment follows, as in `/sleep/2/`.
    takes_argument: bool,
    /// The methods it allows, as they stand in `Allow`.
    methods: &'static str,
    view: fn(&mut Exchange, &str) -> io::Result<()>,
}

const READ: &str = "GET, HEAD, OPTIONS";
const WRITE: &str = "POST, PUT, OPTIONS";

const PAGES: &[Page] = &[
    Page { name: "", takes_argument: false, methods: READ, view: home },
    Page { name: "wire", takes_argument: false, methods: READ, view: wire },
    Page { name: "echo", takes_argument: false, methods: WRITE, view: echo },
    Page { name: "count", takes_argument: false, methods: WRITE, view: count },
    Page { name: "stream", takes_argument: false, methods: READ, view: stream },
    Page { name: "sleep", takes_argument: true, methods: READ, view: sleep },
    Page { name: "bytes", takes_argument: true, methods: READ, view: bytes },
    Page { name: "status", takes_argument: true, methods: READ, view: status },
    Page { name: "panic", takes_argument: false, methods: READ, view: panics },
    Page { name: "healthz", takes_argument: false, methods: READ, view: healthz },
];

/// Answers every request to the site.
///
/// # Errors
/// Those of reading the request body and of writing the answer.
pub fn site(exchange: &mut Exchange) -> io::Result<()> {
    if let Method::Other(_) | Method::Connect | Method::Trace = exchange.head.method {
        return plain(exchange, Status::NOT_IMPLEMENTED, "This server does not know that method.");
    }
    if exchange.head.target.form == TargetForm::Asterisk {
        return allow(exchange, Status::NO_CONTENT, "GET, HEAD, POST, PUT, OPTIONS");
    }
    let Ok(path) = decoded_path(exchange.head.target.path()) else {
        return plain(exchange, Status::BAD_REQUEST, "The path is not percent-encoded UTF-8.");
    };
    let segments: Vec<&str> = path.split('/').collect();
    let (name, argument) = match segments.as_slice() {
        ["", name] | ["", name, ""] => (*name, None),
        ["", name, argument] | ["", name, argument, ""] => (*name, Some(*argument)),
        _ => return not_found(exchange),
    };
    let fits = |page: &&Page| page.name == name && page.takes_argument == argument.is_some();
    let Some(page) = PAGES.iter().find(fits) else {
        return not_found(exchange);
    };
    let method = exchange.head.method.as_str();
    if !page.methods.split(", ").any(|allowed| allowed == method) {
        return allow(exchange, Status::METHOD_NOT_ALLOWED, page.methods);
    }
    if exchange.head.method == Method::Options {
        return allow(exchange, Status::NO_CONTENT, page.methods);
    }
    if !path.ends_with('/') && page.name != "healthz" {
        let query = exchange.head.target.query().map_or(String::new(), |query| format!("?{query}"));
        return redirect(exchange, &format!("{}/{query}", exchange.head.target.path()));
    }
    (page.view)(exchange, argument.unwrap_or_default())
}

fn not_found(exchange: &mut Exchange) -> io::Result<()> {
    plain(exchange, Status::NOT_FOUND, "Nothing is here. The list of pages is at / .")
}

fn plain(exchange: &mut Exchange, status: Status, text: &str) -> io::Result<()> {
    exchange.respond(Response::text(status, format!("{text}\n")))
}

fn allow(exchange: &mut Exchange, status: Status, methods: &'static str) -> io::Result<()> {
    let text = if status.forbids_body() { String::new() } else { format!("Allowed: {methods}\n") };
    let response = Response::text(status, text);
    exchange.respond(response.with(ALLOW, FieldValue::constant(methods)))
}

fn redirect(exchange: &mut Exchange, location: &str) -> io::Result<()> {
    match FieldValue::new(location.as_bytes()) {
        Ok(location) => {
            let text = "It moved to the same address with a slash at its end.\n";
            let response = Response::text(Status::MOVED_PERMANENTLY, text);
            exchange.respond(response.with(Token::constant("Location"), location))
        }
        Err(_) => not_found(exchange),
    }
}

fn home(exchange: &mut Exchange, _: &str) -> io::Result<()> {
    const PAGE: &str = include_str!("../../templates/home.html");
    exchange.respond(Response::html(Status::OK, PAGE))
}

fn healthz(exchange: &mut Exchange, _: &str) -> io::Result<()> {
    exchange.respond(Response::text(Status::OK, "ok\n"))
}

/// Reads all of the body before the answer begins, so that a broken body gets its error.
fn echo(exchange: &mut Exchange, _: &str) -> io::Result<()> {
    let mut body = Vec::new();
    exchange.read_to_end(&mut body)?;
    let mut response = Response::new(Status::OK);
    response.body = Body::Whole(Cow::Owned(body));
    let kind = FieldValue::constant("application/octet-stream");
    exchange.respond(response.with(CONTENT_TYPE, kind))
}

/// Reads any body without keeping it.
fn count(exchange: &mut Exchange, _: &str) -> io::Result<()> {
    let mut block = vec![0; 256 * 1024];
    let mut total = 0_u64;
    loop {
        match exchange.read(&mut block)? {
            0 => break,
            count => total += count as u64,
        }
    }
    plain(exchange, Status::OK, &total.to_string())
}

/// A line each second. Its length is not known at the start, so it is sent in chunks.
fn stream(exchange: &mut Exchange, _: &str) -> io::Result<()> {
    const LINES: u32 = 5;
    let mut headers = Headers::new();
    headers.push(CONTENT_TYPE, FieldValue::constant("text/plain; charset=utf-8"));
    exchange.start(Status::OK, &headers, None)?;
    for line in 1..=LINES {
        if line > 1 {
            thread::sleep(Duration::from_secs(1));
        }
        exchange.write_body(format!("line {line} of {LINES}\n").as_bytes())?;
    }
    exchange.finish()
}

/// Holds its thread for some seconds, as a slow database would.
fn sleep(exchange: &mut Exchange, seconds: &str) -> io::Result<()> {
    const MOST: f64 = 60.0;
    match seconds.parse::<f64>() {
        Ok(number) if (0.0..=MOST).contains(&number) => {
            thread::sleep(Duration::from_secs_f64(number));
            plain(exchange, Status::OK, &format!("Slept for {number} seconds."))
        }
        _ => plain(exchange, Status::NOT_FOUND, "A number of seconds from 0 to 60 goes here."),
    }
}

/// So many bytes, made while they are sent.
fn bytes(exchange: &mut Exchange, length: &str) -> io::Result<()> {
    let Ok(length) = length.parse::<u64>() else {
        return plain(exchange, Status::NOT_FOUND, "A number of bytes goes here.");
    };
    let source = io::repeat(b'.').take(length);
    let response = Response::stream(Some(length), Box::new(source));
    let kind = FieldValue::constant("application/octet-stream");
    exchange.respond(response.with(CONTENT_TYPE, kind))
}

fn status(exchange: &mut Exchange, code: &str) -> io::Result<()> {
    let status = code.parse().ok().and_then(Status::new);
    match status.filter(|status| status.code() >= 200) {
        Some(status) if status.forbids_body() => exchange.respond(Response::new(status)),
        Some(status) => plain(exchange, status, &status.to_string()),
        None => plain(exchange, Status::NOT_FOUND, "A status from 200 to 599 goes here."),
    }
}

/// Shows that a bug in one view hurts nobody else.
#[allow(clippy::panic)]
fn panics(_: &mut Exchange, _: &str) -> io::Result<()> {
    panic!("the view /panic/ panics, as it was asked to");
}

/// The visitor's own request, a line at a time, with its bytes and what they mean.
fn wire(exchange: &mut Exchange, _: &str) -> io::Result<()> {
    const PAGE: &str = include_str!("../../templates/wire.html");
    let head = &exchange.head;
    let version = if head.version == Version::Http10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let first = format!("{} {} {version}", head.method.as_str(), head.target.raw);
    let mut rows = row(first.as_bytes(), "The request line: method, target, version.");
    for (name, value) in head.headers.iter() {
        let line = [name.as_str().as_bytes(), b": ", value.as_bytes()].concat();
        rows += &row(&line, meaning(name.as_str()));
    }
    rows += &row(b"", "The empty line: the head ends here.");
    let peer = exchange.link.guest.peer.to_string();
    let page = PAGE.replace("{{ rows }}", &rows).replace("{{ peer }}", &peer);
    exchange.respond(Response::html(Status::OK, page))
}

/// One line of the request as HTML: the text, its bytes in hexadecimal, and a note.
fn row(line: &[u8], note: &str) -> String {
    let mut hexadecimal = String::new();
    for byte in line.iter().chain(b"\r\n") {
        let _ = write!(hexadecimal, "{byte:02x} ");
    }
    let text = escape(&visible(line));
    format!(
        "<li><code class=\"line\">{text}<b>\\r\\n</b></code>\
         <p>{note}</p><code class=\"bytes\">{}</code></li>\n",
        hexadecimal.trim_end()
    )
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

fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}
