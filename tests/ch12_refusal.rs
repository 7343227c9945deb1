//! Chapter 12: the refusal.

mod support;

use glasshouse::http::body::{BodyError, BodyLimits, BodyReader, Framing};
use glasshouse::http::headers::{FieldError, RETRY_AFTER};
use glasshouse::http::refusal::Refusal;
use glasshouse::http::request::{HeadError, HeadLimits, HeadParser, Parse};
use glasshouse::http::response::{Body, ResponseWriter, Status};
use glasshouse::socket::wire::chapter_of;
use std::io::{self, ErrorKind};
use support::bytes::eq_bytes;
use support::wire_cases::{wire_case, wire_cases};

// The table.

/// Every error of a head with the status of its answer.
fn head_errors() -> Vec<(HeadError, u16)> {
    use HeadError::*;
    vec![
        (BareLineFeed, 400),
        (BareCarriageReturn, 400),
        (ControlByte, 400),
        (SpeaksTls, 400),
        (TooManyEmptyLines, 400),
        (RequestLineTooLong, 414),
        (RequestLineParts, 400),
        (MethodNotToken, 400),
        (TargetByte, 400),
        (Fragment, 400),
        (TargetForm, 400),
        (ForeignScheme, 400),
        (Userinfo, 400),
        (EmptyAuthority, 400),
        (AsteriskForm, 400),
        (AuthorityForm, 400),
        (MalformedVersion, 400),
        (UnsupportedVersion, 505),
        (FieldLineTooLong, 431),
        (HeadTooLong, 431),
        (TooManyFields, 431),
        (Field(FieldError::SpaceBeforeColon), 400),
        (MissingHost, 400),
        (ManyHosts, 400),
        (InvalidHost, 400),
    ]
}

/// Every error of a body with the status of its answer.
fn body_errors() -> Vec<(BodyError, u16)> {
    use BodyError::*;
    vec![
        (BothFramings, 400),
        (ChunkedInHttp10, 400),
        (UnknownCoding, 501),
        (ChunkedNotAlone, 400),
        (ManyContentLengths, 400),
        (InvalidContentLength, 400),
        (TooLarge, 413),
        (InvalidChunkSize, 400),
        (ChunkSizeTooLong, 400),
        (InvalidExtension, 400),
        (ChunkLineTooLong, 400),
        (ExtensionsTooLong, 400),
        (ChunkWithoutEnd, 400),
        (ChunkedBareLineFeed, 400),
        (ChunkedBareReturn, 400),
        (ChunkedControlByte, 400),
        (Trailer(FieldError::MissingColon), 400),
        (TrailersTooLong, 431),
        (CutShort, 400),
        // Its comment names no status: when the source has failed, nobody is left to answer.
        (Source(ErrorKind::ConnectionReset), 400),
    ]
}

/// The variants of an enum in that source, each with the status that its comment names.
fn documented(source: &str, name: &str) -> Vec<(String, Option<u16>)> {
    let (_, rest) = source.split_once(&format!("pub enum {name} {{\n")).expect("the enum");
    let (variants, _) = rest.split_once("\n}\n").expect("its end");
    let (mut found, mut status) = (Vec::new(), None);
    for line in variants.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("///") {
            let is_status = |word: &str| word.len() == 3 && word.parse::<u16>().is_ok();
            let mut words = words.split([' ', '.', ',']);
            let named = words.find(|word| is_status(word));
            status = status.or(named.and_then(|word| word.parse().ok()));
        } else {
            let end = line.find(['(', ',']).expect("a variant");
            found.push((line[..end].to_string(), status.take()));
        }
    }
    found
}

/// The name of an error without what it carries.
fn variant(error: &impl std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    text.split('(').next().unwrap_or_default().to_string()
}

#[test]
fn each_head_error_has_the_status_its_comment_names() {
    let comments = documented(include_str!("../src/http/request.rs"), "HeadError");
    assert_eq!(comments.len(), head_errors().len());
    for ((name, comment), (error, code)) in comments.iter().zip(head_errors()) {
        assert_eq!(*name, variant(&error), "the table is in another order");
        assert_eq!(*comment, Some(code), "the comment of {name}");
        assert_eq!(Refusal::from(error).status.code(), code, "{name}");
    }
}

#[test]
fn each_body_error_has_the_status_its_comment_names() {
    let comments = documented(include_str!("../src/http/body.rs"), "BodyError");
    assert_eq!(comments.len(), body_errors().len());
    for ((name, comment), (error, code)) in comments.iter().zip(body_errors()) {
        assert_eq!(*name, variant(&error), "the table is in another order");
        if !matches!(error, BodyError::Source(_)) {
            assert_eq!(*comment, Some(code), "the comment of {name}");
        }
        assert_eq!(Refusal::from(error).status.code(), code, "{name}");
    }
}

/// Reads a request as the server does, and refuses it as the server does.
fn refuse(bytes: &[u8]) -> Option<Refusal> {
    let (head, used) = match HeadParser::new(HeadLimits::default()).advance(bytes) {
        Ok(Parse::Complete { value, used }) => (value, used),
        Ok(Parse::Partial) => return None,
        Err(error) => return Some(Refusal::from(error)),
    };
    let body =
        Framing::of(&head).and_then(|framing| BodyReader::new(framing, BodyLimits::default()));
    let mut body = match body {
        Ok(body) => body,
        Err(error) => return Some(Refusal::from(error)),
    };
    let mut rest = &bytes[used..];
    let mut room = [0; 64];
    loop {
        match body.read(&mut rest, &mut room) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => return Some(Refusal::from(error)),
        }
    }
}

#[test]
fn each_invalid_wire_case_gets_the_status_it_expects() {
    let cases = wire_cases("tests/wire/invalid");
    assert!(cases.len() > 100, "only {} cases", cases.len());
    for (name, case) in cases {
        let refusal = refuse(&case.bytes).unwrap_or_else(|| panic!("{name} is not refused"));
        let (status, _) = case.expect.split_once(' ').expect("a status and a name");
        assert_eq!(refusal.status.code().to_string(), status, "{name}");
    }
    for (name, case) in wire_cases("tests/wire/valid") {
        assert_eq!(refuse(&case.bytes), None, "{name}");
    }
}

// The answer.

/// Every refusal there is.
fn every_refusal() -> Vec<Refusal> {
    let heads = head_errors().into_iter().map(|(error, _)| Refusal::from(error));
    let bodies = body_errors().into_iter().map(|(error, _)| Refusal::from(error));
    let mut all: Vec<Refusal> = heads.chain(bodies).collect();
    all.extend([
        Refusal::slow_head(),
        Refusal::slow_body(),
        Refusal::full_house(),
        Refusal::unknown_expectation(),
        Refusal::application_failed("disk 7 is full"),
    ]);
    all
}

/// The whole answer on the wire, without its date.
fn answer(refusal: &Refusal) -> String {
    let (mut out, mut writer) = (Vec::new(), ResponseWriter::for_no_request());
    assert_eq!(refusal.response().send(&mut writer, &mut out), Ok(()));
    let text = String::from_utf8(out).expect("text");
    let (before, rest) = text.split_once("\r\nDate: ").expect("a date");
    let (_, after) = rest.split_once("\r\n").expect("a line end");
    format!("{before}\r\n{after}")
}

#[test]
fn an_answer_names_the_problem_the_rule_and_the_chapter() {
    let body = "400 Bad Request\n\nA line ends in LF without CR.\n\
                The rule: RFC 9112, section 2.2.\nExplained in: TUTORIAL.md, ch 7 request.\n";
    let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
                Server: glasshouse\r\nContent-Length: 121\r\nConnection: close\r\n\r\n";
    let refusal = refuse(&wire_case("tests/wire/invalid/bare-lf-in-field.http").bytes);
    let refusal = refusal.expect("a refusal");
    eq_bytes([head, body].concat().as_bytes(), answer(&refusal).as_bytes());
}

#[test]
fn every_refusal_has_a_rule_and_a_chapter_in_its_answer() {
    for refusal in every_refusal() {
        let text = answer(&refusal);
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        let lines: Vec<&str> = body.lines().collect();
        let [title, "", problem, rule, chapter] = lines[..] else {
            panic!("{refusal}: {body}");
        };
        assert_eq!(head.lines().next(), Some(format!("HTTP/1.1 {title}").as_str()));
        assert_eq!(title, refusal.status.to_string());
        if refusal.status != Status::INTERNAL_SERVER_ERROR {
            let (first, rest) = problem.split_at(1);
            let sentence = format!("{}{rest}", first.to_lowercase());
            let same = sentence.eq_ignore_ascii_case(&format!("{}.", refusal.problem));
            assert!(same && first != first.to_lowercase(), "{problem}");
        }
        assert_eq!(rule, format!("The rule: {}.", refusal.rule));
        assert!(refusal.rule.starts_with("RFC ") && refusal.rule.contains(", section "), "{rule}");
        let named = chapter_of(refusal.module);
        assert!(named.starts_with("ch "), "{} is in no chapter", refusal.module);
        assert_eq!(chapter, format!("Explained in: TUTORIAL.md, {named}."));
    }
}

#[test]
fn each_kind_of_trouble_has_its_status() {
    let cases = [
        (Refusal::slow_head(), 408, "lobby"),
        (Refusal::slow_body(), 408, "lobby"),
        (Refusal::full_house(), 503, "pool"),
        (Refusal::unknown_expectation(), 417, "exchange"),
        (Refusal::application_failed("x"), 500, "exchange"),
        (Refusal::from(HeadError::Field(FieldError::EmptyName)), 400, "headers"),
        (Refusal::from(HeadError::ManyHosts), 400, "request"),
        (Refusal::from(BodyError::CutShort), 400, "body"),
    ];
    for (refusal, code, module) in cases {
        assert_eq!((refusal.status.code(), refusal.module), (code, module), "{refusal}");
    }
}

#[test]
fn only_a_full_house_says_when_to_come_again() {
    for refusal in every_refusal() {
        let retry =
            refusal.response().headers.get(RETRY_AFTER).map(|value| value.as_bytes().to_vec());
        let full = refusal.status == Status::SERVICE_UNAVAILABLE;
        assert_eq!(retry, full.then(|| b"2".to_vec()), "{refusal}");
    }
}

#[test]
fn an_answer_repeats_nothing_of_the_request() {
    let requests = [
        "<SCRIPT> / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET <script> HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://<script>/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / <script>\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: <script>\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n<script>: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: <script>\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: <script>\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n<script>\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n<script>: \r\n\r\n",
    ];
    for request in requests {
        let refusal = refuse(request.as_bytes()).unwrap_or_else(|| panic!("{request}"));
        let text = answer(&refusal).to_lowercase();
        assert!(!text.contains("script"), "{text}");
        assert!(text.contains("content-type: text/plain"), "{text}");
    }
}

#[test]
fn a_500_tells_the_client_nothing_of_its_cause() {
    let cause = "no such table: users in /var/db/people.sqlite";
    for refusal in
        [Refusal::application_failed(cause), Refusal::from_handler(&io::Error::other(cause))]
    {
        let body = "500 Internal Server Error\n\n\
                    The server could not answer this. It is not your fault; the log has more.\n\
                    The rule: RFC 9110, section 15.6.1.\n";
        let Body::Whole(bytes) = refusal.response().body else {
            panic!("{refusal} is a stream");
        };
        assert!(bytes.starts_with(body.as_bytes()));
        assert!(!answer(&refusal).contains("users"));
        assert!(refusal.to_string().contains(cause), "the log says it");
    }
}

#[test]
fn a_timeout_inside_the_application_is_not_blamed_on_the_client() {
    for kind in [ErrorKind::TimedOut, ErrorKind::NotFound, ErrorKind::UnexpectedEof] {
        let refusal = Refusal::from_handler(&kind.into());
        assert_eq!(refusal.status, Status::INTERNAL_SERVER_ERROR, "{kind}");
    }
}

// The line for the log.

#[test]
fn a_refusal_is_one_line_in_the_log() {
    let refusal = Refusal::from(HeadError::MissingHost);
    let want = "400 Bad Request: a request of HTTP/1.1 needs a Host field (RFC 9112, section 3.2)";
    eq_bytes(want.as_bytes(), refusal.to_string().as_bytes());
    let forged =
        Refusal::application_failed("no page \"a\r\n200 OK\0\u{1b}[2J\u{7f}\u{9b}m\u{e9}\"");
    let want =
        "500 Internal Server Error: no page \"a??200 OK??[2J??m\u{e9}\" (RFC 9110, section 15.6.1)";
    eq_bytes(want.as_bytes(), forged.to_string().as_bytes());
}

#[test]
#[ignore = "exercise 12.2"]
fn exercise_12_2_no_refusal_may_be_kept_by_a_cache() {
    for refusal in every_refusal() {
        let text = answer(&refusal);
        assert!(text.contains("\r\nCache-Control: no-store\r\n"), "{text}");
    }
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
