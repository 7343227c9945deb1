//! Chapter 11: the response.

mod support;

use glasshouse::http::date::HttpDate;
use glasshouse::http::headers::{CONTENT_LENGTH, DATE, FieldValue, Headers, SERVER, Token};
use glasshouse::http::request::{HeadLimits, HeadParser, Parse, RequestHead};
use glasshouse::http::response::{Body, Response, ResponseError, ResponseWriter, Status};
use std::borrow::Cow;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Arc, Mutex};
use support::bytes::eq_bytes;
use support::mutator::Mutator;

/// A request, said as `GET 1.1`.
fn request(asks: &str) -> RequestHead {
    let (method, version) = asks.split_once(' ').expect("a method and a version");
    let text = format!("{method} / HTTP/{version}\r\nHost: a\r\n\r\n");
    match HeadParser::new(HeadLimits::default()).advance(text.as_bytes()) {
        Ok(Parse::Complete { value, .. }) => value,
        other => panic!("{asks}: {other:?}"),
    }
}

/// A writer for the answer to that request, on a connection that stays open.
fn writer(asks: &str) -> ResponseWriter {
    ResponseWriter::new(&request(asks), true)
}

/// The same bytes with `now` in the place of the date, which must be one of the last few seconds.
fn undated(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(bytes.to_vec()).expect("an answer of text");
    let Some((before, rest)) = text.split_once("\r\nDate: ") else {
        return text.into_bytes();
    };
    let (date, after) = rest.split_once("\r\n").expect("a line end");
    let date = HttpDate::parse(date).expect("a date").seconds();
    assert!(HttpDate::now().seconds() - date < 10, "{before}: an old date");
    format!("{before}\r\nDate: now\r\n{after}").into_bytes()
}

/// What the answer to that request is on the wire, and how sending it went.
fn send(asks: &str, response: Response) -> (Vec<u8>, Result<(), ResponseError>) {
    let mut out = Vec::new();
    let result = response.send(&mut writer(asks), &mut out);
    (undated(&out), result)
}

/// The same for an answer that must go well.
#[track_caller]
fn sent(asks: &str, response: Response) -> Vec<u8> {
    let (bytes, result) = send(asks, response);
    assert_eq!(result, Ok(()));
    bytes
}

#[track_caller]
fn status(code: u16) -> Status {
    Status::new(code).expect("a status")
}

/// Fields from lines of `Name: value`.
fn fields(lines: &[&str]) -> Headers {
    let mut headers = Headers::new();
    for line in lines {
        let (name, value) = line.split_once(": ").expect("a field line");
        headers.try_push(name, value).expect("a valid field");
    }
    headers
}

fn hello() -> Response {
    Response::text(Status::OK, "hello")
}

// The status.

#[test]
fn a_status_is_a_number_from_100_to_599() {
    for code in [0, 99, 600, 999, u16::MAX] {
        assert_eq!(Status::new(code), None, "{code}");
    }
    for code in [100, 299, 599] {
        assert_eq!(status(code).code(), code);
    }
}

#[test]
fn every_status_with_a_name_has_its_number() {
    for (status, code) in [
        (Status::CONTINUE, 100),
        (Status::SWITCHING_PROTOCOLS, 101),
        (Status::OK, 200),
        (Status::NO_CONTENT, 204),
        (Status::RESET_CONTENT, 205),
        (Status::MOVED_PERMANENTLY, 301),
        (Status::BAD_REQUEST, 400),
        (Status::NOT_FOUND, 404),
        (Status::METHOD_NOT_ALLOWED, 405),
        (Status::REQUEST_TIMEOUT, 408),
        (Status::CONTENT_TOO_LARGE, 413),
        (Status::URI_TOO_LONG, 414),
        (Status::EXPECTATION_FAILED, 417),
        (Status::FIELDS_TOO_LARGE, 431),
        (Status::INTERNAL_SERVER_ERROR, 500),
        (Status::NOT_IMPLEMENTED, 501),
        (Status::SERVICE_UNAVAILABLE, 503),
        (Status::VERSION_NOT_SUPPORTED, 505),
    ] {
        assert_eq!(status.code(), code);
    }
}

/// The registry of status codes, as of 2026: 104 is in it only for a time, 306 is unused.
const REGISTRY: &[u16] = &[
    100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304,
    305, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415,
    416, 417, 418, 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 500, 501, 502, 503, 504, 505,
    506, 507, 508, 510, 511,
];

#[test]
fn every_registered_status_has_words_and_no_other_has() {
    let mut seen = Vec::new();
    for code in 100..=599 {
        let reason = status(code).reason();
        assert_eq!(!reason.is_empty(), REGISTRY.contains(&code), "{code}");
        assert!(reason.is_empty() || !seen.contains(&reason), "{code}");
        assert!(reason.is_ascii(), "{code}");
        seen.push(reason);
    }
    assert_eq!(Status::NOT_FOUND.to_string(), "404 Not Found");
    assert_eq!(status(511).reason(), "Network Authentication Required");
}

#[test]
fn only_five_kinds_of_answers_have_no_body() {
    for code in 100..=599 {
        let bodiless = code < 200 || [204, 205, 304].contains(&code);
        assert_eq!(status(code).forbids_body(), bodiless, "{code}");
    }
}

// The whole answer.

#[test]
fn a_whole_answer_says_its_length() {
    let want = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nDate: now\r\n\
                Server: glasshouse\r\nContent-Length: 5\r\n\r\nhello";
    eq_bytes(want.as_bytes(), &sent("GET 1.1", hello()));
    let want = "HTTP/1.1 404 Not Found\r\nContent-Type: text/html; charset=utf-8\r\nX: 1\r\nX: 2\r\n\
                Date: now\r\nServer: glasshouse\r\nContent-Length: 0\r\n\r\n";
    let response = Response::html(Status::NOT_FOUND, String::new())
        .with(Token::constant("X"), FieldValue::constant("1"))
        .with(Token::constant("X"), FieldValue::constant("2"));
    eq_bytes(want.as_bytes(), &sent("POST 1.1", response));
}

#[test]
fn a_status_without_words_keeps_its_space() {
    let want = "HTTP/1.1 299 \r\nDate: now\r\nServer: glasshouse\r\nContent-Length: 0\r\n\r\n";
    eq_bytes(want.as_bytes(), &sent("GET 1.1", Response::new(status(299))));
}

#[test]
fn a_date_and_a_server_of_the_application_are_kept() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let response = Response::new(Status::OK)
        .with(DATE, FieldValue::constant(date))
        .with(SERVER, FieldValue::constant("mine"));
    let mut out = Vec::new();
    assert_eq!(response.send(&mut writer("GET 1.1"), &mut out), Ok(()));
    let want = "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: mine\r\n\
                Content-Length: 0\r\n\r\n";
    eq_bytes(want.as_bytes(), &out);
}

// Streams.

/// What happened, in order: pieces written, `flush`, and whatever a source notes.
type Events = Arc<Mutex<Vec<String>>>;

fn note(events: &Events, event: impl Into<String>) {
    events.lock().expect("no panic").push(event.into());
}

/// A place to write to that notes each write and each flush.
struct Recorder(Events);

impl Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        note(&self.0, text.lines().next().unwrap_or_default());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        note(&self.0, "flush");
        Ok(())
    }
}

/// A source that gives these pieces or errors, one for each `read`, and then its end.
struct Script {
    events: Events,
    steps: Vec<io::Result<&'static str>>,
}

impl Read for Script {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        note(&self.events, "read");
        if self.steps.is_empty() {
            return Ok(0);
        }
        let piece = self.steps.remove(0)?;
        out[..piece.len()].copy_from_slice(piece.as_bytes());
        Ok(piece.len())
    }
}

fn script(events: &Events, steps: Vec<io::Result<&'static str>>) -> Box<Script> {
    Box::new(Script { events: Arc::clone(events), steps })
}

#[test]
fn a_stream_is_sent_piece_by_piece() {
    let events = Events::default();
    let source = script(&events, vec![Ok("one\n"), Ok("two\n")]);
    let mut out = Recorder(Arc::clone(&events));
    let response = Response::stream(None, source);
    assert_eq!(response.send(&mut writer("GET 1.0"), &mut out), Ok(()));
    let events = events.lock().expect("no panic").join(", ");
    let want = "HTTP/1.1 200 OK, flush, read, one, flush, read, two, flush, read";
    eq_bytes(want.as_bytes(), events.as_bytes());
}

#[test]
fn a_stream_is_not_read_where_no_body_follows() {
    for (asks, code) in
        [("HEAD 1.1", 200), ("HEAD 1.0", 200), ("GET 1.1", 204), ("GET 1.1", 205), ("GET 1.0", 304)]
    {
        let events = Events::default();
        let source = script(&events, vec![Err(ErrorKind::Other.into())]);
        let mut response = Response::stream(Some(7), source);
        response.status = status(code);
        sent(asks, response);
        assert!(events.lock().expect("no panic").is_empty(), "{asks} {code}");
    }
}

#[test]
fn an_interrupted_source_goes_on() {
    let steps = vec![Ok("one"), Err(ErrorKind::Interrupted.into()), Ok("two")];
    let source = script(&Events::default(), steps);
    let bytes = sent("GET 1.1", Response::stream(Some(6), source));
    assert!(bytes.ends_with(b"Content-Length: 6\r\n\r\nonetwo"));
}

#[test]
fn a_source_that_fails_leaves_the_answer_without_an_end() {
    let failed = Err(ResponseError::Source(ErrorKind::BrokenPipe));
    let steps = vec![Ok("one"), Err(ErrorKind::BrokenPipe.into())];
    let response = Response::stream(None, script(&Events::default(), steps));
    let (mut out, mut writer) = (Vec::new(), writer("GET 1.1"));
    assert_eq!(response.send(&mut writer, &mut out), failed);
    assert!(out.ends_with(b"\r\n\r\n3\r\none\r\n"));
    // Nor does anybody give it one later: half an answer must not look like a whole one.
    let before = out.len();
    assert_eq!(writer.write(&mut out, b"two"), failed);
    assert_eq!(writer.finish(&mut out), failed);
    assert_eq!((out.len(), writer.has_finished()), (before, false));
}

// The head.

/// One row of the table at the top of response.rs, for one kind of request.
struct Row {
    asks: &'static str,
    code: u16,
    length: Option<u64>,
    /// The lines after `Server`, and the body, if the application writes `hello`.
    end: &'static str,
}

const fn row(asks: &'static str, code: u16, length: Option<u64>, end: &'static str) -> Row {
    Row { asks, code, length, end }
}

#[rustfmt::skip]
const TABLE: &[Row] = &[
    row("GET 1.1", 204, None, "\r\n"),
    row("GET 1.1", 204, Some(5), "\r\n"),
    row("GET 1.0", 204, Some(5), "Connection: keep-alive\r\n\r\n"),
    row("GET 1.1", 304, None, "\r\n"),
    row("GET 1.1", 304, Some(5), "\r\n"),
    row("GET 1.0", 304, None, "Connection: keep-alive\r\n\r\n"),
    row("GET 1.1", 205, None, "Content-Length: 0\r\n\r\n"),
    row("GET 1.1", 205, Some(5), "Content-Length: 0\r\n\r\n"),
    row("GET 1.0", 205, None, "Content-Length: 0\r\nConnection: keep-alive\r\n\r\n"),
    row("HEAD 1.1", 205, Some(5), "Content-Length: 0\r\n\r\n"),
    row("HEAD 1.1", 200, Some(5), "Content-Length: 5\r\n\r\n"),
    row("HEAD 1.1", 200, None, "Transfer-Encoding: chunked\r\n\r\n"),
    row("HEAD 1.0", 200, Some(5), "Content-Length: 5\r\nConnection: keep-alive\r\n\r\n"),
    row("HEAD 1.0", 200, None, "Connection: keep-alive\r\n\r\n"),
    row("GET 1.1", 200, Some(5), "Content-Length: 5\r\n\r\nhello"),
    row("GET 1.9", 200, Some(5), "Content-Length: 5\r\n\r\nhello"),
    row("GET 1.0", 200, Some(5), "Content-Length: 5\r\nConnection: keep-alive\r\n\r\nhello"),
    row("GET 1.1", 200, None, "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    row("GET 1.9", 500, None, "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    row("GET 1.0", 200, None, "Connection: close\r\n\r\nhello"),
];

#[test]
fn each_row_of_the_framing_table_holds_for_each_version() {
    for row in TABLE {
        let (mut out, mut writer) = (Vec::new(), writer(row.asks));
        let status = status(row.code);
        let start = writer.start(&mut out, status, &Headers::new(), row.length);
        let write = writer.write(&mut out, b"hello");
        assert_eq!((start, write), (Ok(()), Ok(())), "{}", row.asks);
        assert_eq!(writer.finish(&mut out), Ok(()));
        let head = format!("HTTP/1.1 {status}\r\nDate: now\r\nServer: glasshouse\r\n");
        eq_bytes([head.as_str(), row.end].concat().as_bytes(), &undated(&out));
        assert!(writer.has_started() && writer.has_finished());
        // Only the end of the connection can end the last kind.
        let until_close = row.end.starts_with("Connection: close");
        assert_eq!(writer.keeps_alive(), !until_close, "{}", row.asks);
    }
}

#[test]
fn the_answer_to_head_has_the_fields_of_the_answer_to_get() {
    for (version, length) in [("1.1", Some(5)), ("1.1", None), ("1.0", Some(5))] {
        let answer = |method| {
            let source = Box::new(&b"hello"[..]);
            sent(&format!("{method} {version}"), Response::stream(length, source))
        };
        let get = answer("GET");
        let end = get.windows(4).position(|four| four == b"\r\n\r\n");
        eq_bytes(&get[..end.expect("the end of a head") + 4], &answer("HEAD"));
    }
}

#[test]
fn an_answer_on_the_way_to_the_answer_is_refused() {
    let refused = [
        ("GET 1.1", 100),
        ("GET 1.1", 102),
        ("GET 1.1", 103),
        ("GET 1.1", 199),
        ("GET 1.0", 100),
        ("GET 1.0", 101),
    ];
    for (asks, code) in refused {
        let (bytes, result) = send(asks, Response::new(status(code)));
        eq_bytes(b"", &bytes);
        assert_eq!(result, Err(ResponseError::NotFinal(status(code))), "{asks}");
    }
}

#[test]
fn a_field_of_the_server_is_refused_and_nothing_is_written() {
    for name in [
        "Connection",
        "connection",
        "Transfer-Encoding",
        "Keep-Alive",
        "Proxy-Connection",
        "TE",
        "trailer",
    ] {
        let (mut out, mut writer) = (Vec::new(), writer("GET 1.1"));
        let mut response = hello();
        response.headers.try_push(name, "close").expect("a valid field");
        let Err(ResponseError::ServerField(named)) = response.send(&mut writer, &mut out) else {
            panic!("{name} was not refused");
        };
        assert!(named.eq_ignore_ascii_case(name));
        eq_bytes(b"", &out);
        // The writer is as it was, so the mistake can still be answered.
        let status = Status::INTERNAL_SERVER_ERROR;
        assert_eq!(Response::new(status).send(&mut writer, &mut out), Ok(()));
        assert!(out.starts_with(b"HTTP/1.1 500 "));
    }
}

#[test]
fn a_length_of_the_application_is_one_decimal_number() {
    for (value, length) in
        [("5", "5"), ("0005", "5"), ("0", "0"), ("18446744073709551615", "18446744073709551615")]
    {
        let (mut out, mut writer) = (Vec::new(), writer("GET 1.1"));
        let headers = fields(&[&format!("content-length: {value}")]);
        // It wins over the length that the caller believes in.
        assert_eq!(writer.start(&mut out, Status::OK, &headers, Some(77)), Ok(()));
        let want = format!(
            "HTTP/1.1 200 OK\r\nDate: now\r\nServer: glasshouse\r\nContent-Length: {length}\r\n\r\n"
        );
        eq_bytes(want.as_bytes(), &undated(&out));
    }
    for values in [
        &["-1"][..],
        &["+5"],
        &["5,5"],
        &["5 5"],
        &["0x5"],
        &["5.0"],
        &["five"],
        &["\u{661}"],
        &["18446744073709551616"],
        &["5", "5"],
        &["5", "6"],
    ] {
        let lines: Vec<String> =
            values.iter().map(|value| format!("Content-Length: {value}")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (mut out, mut writer) = (Vec::new(), writer("GET 1.1"));
        let result = writer.start(&mut out, Status::OK, &fields(&lines), None);
        assert_eq!(result, Err(ResponseError::BadLength), "{lines:?}");
        eq_bytes(b"", &out);
    }
    let empty = Response::new(Status::OK).with(CONTENT_LENGTH, FieldValue::constant(""));
    assert_eq!(send("GET 1.1", empty).1, Err(ResponseError::BadLength));
}

#[test]
fn a_second_answer_is_refused() {
    let (mut out, mut writer) = (Vec::new(), writer("GET 1.1"));
    assert_eq!(hello().send(&mut writer, &mut out), Ok(()));
    let first = out.clone();
    let again = hello().send(&mut writer, &mut out);
    assert_eq!(again, Err(ResponseError::AlreadyStarted));
    eq_bytes(&first, &out);
}

#[test]
fn a_switch_of_protocols_says_upgrade_and_nothing_else() {
    let headers = fields(&["Upgrade: websocket"]);
    let want = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nDate: now\r\n\
                Server: glasshouse\r\nConnection: Upgrade\r\n\r\n";
    for keep_alive in [true, false] {
        let mut writer = ResponseWriter::new(&request("GET 1.1"), keep_alive);
        let mut out = Vec::new();
        let status = Status::SWITCHING_PROTOCOLS;
        assert_eq!(writer.start(&mut out, status, &headers, Some(5)), Ok(()));
        assert_eq!(writer.finish(&mut out), Ok(()));
        eq_bytes(want.as_bytes(), &undated(&out));
    }
}

#[test]
fn the_connection_field_says_what_will_happen() {
    let cases = [
        ("GET 1.1", true, None, ""),
        ("GET 1.1", false, None, "Connection: close\r\n"),
        ("GET 1.0", true, None, "Connection: keep-alive\r\n"),
        ("GET 1.0", false, None, "Connection: close\r\n"),
        ("GET 1.1", true, Some("Upgrade: h2c"), "Connection: Upgrade\r\n"),
        ("GET 1.1", false, Some("Upgrade: h2c"), "Connection: close, Upgrade\r\n"),
        ("GET 1.0", true, Some("Upgrade: h2c"), "Connection: keep-alive, Upgrade\r\n"),
    ];
    for (asks, keep_alive, upgrade, line) in cases {
        let mut writer = ResponseWriter::new(&request(asks), true);
        if !keep_alive {
            writer.close_after();
        }
        let mut response = Response::new(Status::OK);
        response.headers = fields(upgrade.as_slice());
        let mut out = Vec::new();
        assert_eq!(response.send(&mut writer, &mut out), Ok(()));
        let upgrade = upgrade.map_or(String::new(), |line| format!("{line}\r\n"));
        let want = format!(
            "HTTP/1.1 200 OK\r\n{upgrade}Date: now\r\nServer: glasshouse\r\nContent-Length: 0\r\n{line}\r\n"
        );
        eq_bytes(want.as_bytes(), &undated(&out));
        assert_eq!(writer.keeps_alive(), keep_alive);
    }
}

#[test]
fn what_was_no_request_gets_an_answer_and_no_second_one() {
    let (mut out, mut writer) = (Vec::new(), ResponseWriter::for_no_request());
    let response = Response { status: Status::BAD_REQUEST, ..hello() };
    assert_eq!(response.send(&mut writer, &mut out), Ok(()));
    let want = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nDate: now\r\n\
                Server: glasshouse\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    eq_bytes(want.as_bytes(), &undated(&out));
    assert!(!writer.keeps_alive() && !writer.has_lost_peer());
    assert_eq!(writer.body_sent(), 5);
}

// The body.

/// What is written after the head when the application gives these pieces, and the first error.
fn pieces(
    asks: &str,
    length: Option<u64>,
    pieces: &[&str],
) -> (Vec<u8>, Result<(), ResponseError>) {
    let (mut out, mut writer) = (Vec::new(), writer(asks));
    assert_eq!(writer.start(&mut out, Status::OK, &Headers::new(), length), Ok(()));
    out.clear();
    let mut result = Ok(());
    for piece in pieces {
        result = result.and(writer.write(&mut out, piece.as_bytes()));
    }
    let end = writer.finish(&mut out);
    (out, result.and(end))
}

#[test]
fn each_piece_of_an_unknown_length_is_a_chunk() {
    let long = "x".repeat(0x1a5);
    let (bytes, result) = pieces("GET 1.1", None, &["hello", "\r\n", &long]);
    let want = format!("5\r\nhello\r\n2\r\n\r\n\r\n1a5\r\n{long}\r\n0\r\n\r\n");
    eq_bytes(want.as_bytes(), &bytes);
    assert_eq!(result, Ok(()));
}

#[test]
fn a_writer_counts_the_body_and_not_what_is_around_it() {
    for (asks, length, want) in [
        ("GET 1.1", None, 11),
        ("GET 1.1", Some(11), 11),
        ("GET 1.0", None, 11),
        ("HEAD 1.1", None, 0),
    ] {
        let (mut writer, mut out) = (writer(asks), Vec::new());
        writer.start(&mut out, Status::OK, &Headers::new(), length).expect("a head");
        assert_eq!(writer.body_sent(), 0, "{asks}");
        for piece in ["hello", " ", "world"] {
            writer.write(&mut out, piece.as_bytes()).expect("a piece");
        }
        writer.finish(&mut out).expect("an end");
        assert_eq!(writer.body_sent(), want, "{asks}");
    }
    let (mut writer, mut out) = (writer("GET 1.1"), Vec::new());
    writer.start(&mut out, Status::OK, &Headers::new(), Some(4)).expect("a head");
    assert_eq!(writer.write(&mut out, b"hello"), Err(ResponseError::TooLong));
    assert_eq!(writer.body_sent(), 4, "only what fits is sent");
}

#[test]
fn an_empty_piece_is_not_sent() {
    let (bytes, result) = pieces("GET 1.1", None, &["", "hello", "", "world", ""]);
    eq_bytes(b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n", &bytes);
    assert_eq!(result, Ok(()));
    let nothing = pieces("GET 1.1", None, &[]);
    assert_eq!(nothing, (b"0\r\n\r\n".to_vec(), Ok(())));
}

#[test]
fn a_body_that_is_too_short_is_an_error() {
    for (given, missing) in [(&["he", "l"][..], 2), (&["hell"], 1), (&[], 5), (&[""], 5)] {
        let (_, result) = pieces("GET 1.1", Some(5), given);
        assert_eq!(result, Err(ResponseError::TooShort(missing)), "{given:?}");
    }
}

#[test]
fn a_body_that_is_too_long_is_cut_and_an_error() {
    for given in
        [&["hello world"][..], &["hello", " world"], &["hell", "o world", "!"], &["hello", "", "w"]]
    {
        let (bytes, result) = pieces("GET 1.1", Some(5), given);
        eq_bytes(b"hello", &bytes);
        assert_eq!(result, Err(ResponseError::TooLong), "{given:?}");
    }
    assert_eq!(pieces("GET 1.1", Some(0), &["x"]), (vec![], Err(ResponseError::TooLong)));
}

#[test]
fn the_body_of_a_response_may_differ_from_its_length_too() {
    let declare = |length| hello().with(CONTENT_LENGTH, FieldValue::constant(length));
    let (bytes, result) = send("GET 1.1", declare("3"));
    assert!(bytes.ends_with(b"Content-Length: 3\r\n\r\nhel"));
    assert_eq!(result, Err(ResponseError::TooLong));
    let (bytes, result) = send("GET 1.1", declare("7"));
    assert!(bytes.ends_with(b"Content-Length: 7\r\n\r\nhello"));
    assert_eq!(result, Err(ResponseError::TooShort(2)));
    // The answer to HEAD may say the length of a body that nobody has made.
    let mut response = declare("7");
    response.body = Body::Whole(Cow::Borrowed(b""));
    assert!(sent("HEAD 1.1", response).ends_with(b"Content-Length: 7\r\n\r\n"));
}

#[test]
fn a_body_outside_of_an_answer_is_refused() {
    let (mut out, mut writer) = (Vec::new(), writer("GET 1.1"));
    assert!(!writer.has_started() && !writer.has_finished());
    assert_eq!(writer.write(&mut out, b"x"), Err(ResponseError::NotStarted));
    assert_eq!(writer.finish(&mut out), Err(ResponseError::NotStarted));
    eq_bytes(b"", &out);
    assert_eq!(hello().send(&mut writer, &mut out), Ok(()));
    let whole = out.clone();
    assert_eq!(writer.write(&mut out, b"x"), Err(ResponseError::NotStarted));
    eq_bytes(&whole, &out);
}

/// A wire that takes this many bytes and then fails.
struct Failing(usize);

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.0);
        self.0 -= count;
        match count {
            0 => Err(ErrorKind::TimedOut.into()),
            count => Ok(count),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn after_a_failed_write_nothing_more_is_sent() {
    let failed = Err(ResponseError::Wire(ErrorKind::TimedOut));
    let mut whole = Vec::new();
    assert_eq!(
        Response::stream(None, Box::new(&b"hello"[..])).send(&mut writer("GET 1.1"), &mut whole),
        Ok(())
    );
    for room in 0..whole.len() {
        let mut writer = writer("GET 1.1");
        let response = Response::stream(None, Box::new(&b"hello"[..]));
        assert_eq!(response.send(&mut writer, &mut Failing(room)), failed, "{room}");
        // A part of a head may be out: a second head behind it would be read as its fields.
        let mut out = Vec::new();
        let again = hello().send(&mut writer, &mut out);
        assert_eq!(again, Err(ResponseError::AlreadyStarted), "{room}");
        assert_eq!(writer.write(&mut out, b"more"), failed, "{room}");
        assert_eq!(writer.finish(&mut out), failed, "{room}");
        eq_bytes(b"", &out);
        assert!(!writer.has_finished() && writer.has_lost_peer());
    }
}

// The errors.

const ERRORS: &[(ResponseError, &str, &str)] = &[
    (ResponseError::AlreadyStarted, "RFC 9112, section 2.1", "the answer has begun already"),
    (ResponseError::NotStarted, "RFC 9112, section 2.1", "a body was written outside of an answer"),
    (
        ResponseError::NotFinal(Status::CONTINUE),
        "RFC 9110, section 15.2",
        "the status 100 cannot be the answer to this request",
    ),
    (
        ResponseError::ServerField("TE"),
        "RFC 9110, section 7.6.1",
        "the field TE belongs to the server, not to the application",
    ),
    (
        ResponseError::BadLength,
        "RFC 9110, section 8.6",
        "the Content-Length is not one decimal number",
    ),
    (ResponseError::TooLong, "RFC 9112, section 6.3", "the body is longer than its Content-Length"),
    (
        ResponseError::TooShort(7),
        "RFC 9112, section 6.3",
        "the body is 7 bytes shorter than its Content-Length",
    ),
    (
        ResponseError::Source(ErrorKind::NotFound),
        "RFC 9112, section 8",
        "the source of the body failed: entity not found",
    ),
    (
        ResponseError::Wire(ErrorKind::TimedOut),
        "RFC 9112, section 8",
        "the answer could not be sent: timed out",
    ),
];

#[test]
fn every_error_names_its_rule_in_a_sentence() {
    for (error, rule, sentence) in ERRORS {
        assert_eq!(error.rule(), *rule);
        assert_eq!(error.to_string(), *sentence);
    }
}

#[test]
fn every_error_can_pass_for_one_of_input_and_output() {
    for (error, _, sentence) in ERRORS {
        let as_io = io::Error::from(*error);
        match error {
            ResponseError::Source(kind) | ResponseError::Wire(kind) => {
                assert_eq!(as_io.kind(), *kind);
            }
            _ => {
                assert_eq!(as_io.kind(), ErrorKind::InvalidInput);
                assert_eq!(as_io.to_string(), *sentence);
            }
        }
    }
}

// Header injection.

#[test]
fn no_line_end_gets_into_a_head() {
    let start = "HTTP/1.1 200 OK\r\n";
    let end = "Date: now\r\nServer: glasshouse\r\nContent-Length: 0\r\n\r\n";
    let mut mutator = Mutator::new(11);
    let mut accepted = 0;
    for _ in 0..100_000 {
        let name = mutator.mutate(b"X-Name");
        let value = mutator.mutate(b"/next?name=Ada");
        let (name, value) = (String::from_utf8_lossy(&name), String::from_utf8_lossy(&value));
        let mut response = Response::new(Status::OK);
        let pushed = response.headers.try_push(&name, &value);
        let smuggles = format!("{name}{value}").contains(['\r', '\n', '\0']);
        assert!(pushed.is_err() || !smuggles, "{name:?}: {value:?}");
        let (bytes, result) = send("GET 1.1", response);
        if pushed.is_err() {
            eq_bytes(format!("{start}{end}").as_bytes(), &bytes);
        } else if result.is_ok() {
            let value = value.trim_matches([' ', '\t']);
            let want = format!("{start}{name}: {value}\r\n{end}");
            eq_bytes(want.as_bytes(), &bytes);
            accepted += 1;
        }
    }
    assert!(accepted > 10_000, "only {accepted} fields were tried");
}

#[test]
#[ignore = "exercise 11.2"]
fn exercise_11_2_a_405_without_allow_is_refused() {
    let (bytes, result) = send("GET 1.1", Response::new(Status::METHOD_NOT_ALLOWED));
    eq_bytes(b"", &bytes);
    assert!(result.is_err());
    let mut response = Response::new(Status::METHOD_NOT_ALLOWED);
    response.headers = fields(&["Allow: GET, HEAD"]);
    assert_eq!(send("GET 1.1", response).1, Ok(()));
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
