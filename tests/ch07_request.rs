//! Chapter 7: the request head.

mod support;

use glasshouse::http::headers::{FieldError, Token};
use glasshouse::http::request::{
    HeadError, HeadLimits, HeadParser, Method, Parse, RequestHead, TargetForm, Version,
};
use support::mutator::Mutator;
use support::wire_cases::wire_cases;

type Outcome = Result<Parse<RequestHead>, HeadError>;

/// Parses what arrives in steps: the first `steps[0]` bytes, then `steps[1]` bytes in all, ...
fn parse_in_steps(bytes: &[u8], steps: impl Iterator<Item = usize>) -> Outcome {
    let mut parser = HeadParser::new(HeadLimits::default());
    let mut last = Ok(Parse::Partial);
    for end in steps {
        last = parser.advance(&bytes[..end]);
        if !matches!(last, Ok(Parse::Partial)) {
            break;
        }
    }
    last
}

fn parse(bytes: &[u8]) -> Outcome {
    parse_in_steps(bytes, [bytes.len()].into_iter())
}

fn parse_byte_by_byte(bytes: &[u8]) -> Outcome {
    parse_in_steps(bytes, 1..=bytes.len())
}

/// Parses `bytes` whole, byte by byte, and in two pieces cut at every offset.
#[track_caller]
fn parse_every_way(name: &str, bytes: &[u8]) -> Outcome {
    let whole = parse(bytes);
    assert_eq!(whole, parse_byte_by_byte(bytes), "{name}: byte by byte");
    for cut in 0..bytes.len() {
        let pieces = parse_in_steps(bytes, [cut, bytes.len()].into_iter());
        assert_eq!(whole, pieces, "{name}: cut at {cut}");
    }
    whole
}

#[track_caller]
fn head(text: &str) -> RequestHead {
    match parse_every_way(text, text.as_bytes()) {
        Ok(Parse::Complete { value, used }) if used == text.len() => value,
        other => panic!("{}: {other:?}", text.escape_default()),
    }
}

#[track_caller]
fn error(text: &str) -> HeadError {
    match parse_every_way(text, text.as_bytes()) {
        Err(error) => error,
        other => panic!("{}: {other:?}", text.escape_default()),
    }
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: field\r\n\r\n")
}

#[test]
fn a_request_is_read_into_its_parts() {
    let head = head("POST /a/b?c=%20d HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n\r\n");
    assert_eq!(head.method, Method::Post);
    assert_eq!(head.target.form, TargetForm::Origin);
    assert_eq!(head.target.raw, "/a/b?c=%20d");
    assert_eq!(head.target.path(), "/a/b");
    assert_eq!(head.target.query(), Some("c=%20d"));
    assert_eq!(head.version, Version::Http11);
    assert_eq!(head.host, "example.org");
    assert_eq!(head.headers.len(), 2);
}

#[test]
fn a_known_method_is_known_and_any_token_is_a_method() {
    for name in [
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "DELETE",
        "OPTIONS",
        "TRACE",
        "PATCH",
        "get",
        "GeT",
        "BREW",
        "M!#$%&'*+-.^_`|~09",
    ] {
        let head = head(&format!("{name} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(head.method.as_str(), name);
        let known = name.len() < 8 && name != "BREW" && name == name.to_uppercase();
        assert_eq!(!matches!(head.method, Method::Other(_)), known, "{name}");
    }
}

#[test]
fn a_higher_minor_version_is_read_as_1_1() {
    for minor in 1..=9 {
        let head = head(&format!("GET / HTTP/1.{minor}\r\nHost: a\r\n\r\n"));
        assert_eq!(head.version, Version::Http11);
    }
    assert_eq!(head("GET / HTTP/1.0\r\n\r\n").version, Version::Http10);
}

#[test]
fn the_absolute_form_overrides_the_host_field() {
    let cases = [
        ("http://b/x?y", "b", "/x", Some("y")),
        ("HTTP://b:80", "b:80", "/", None),
        ("http://b?y=/z", "b", "/", Some("y=/z")),
        ("http://[::1]:8000/", "[::1]:8000", "/", None),
    ];
    for (target, host, path, query) in cases {
        let head = head(&get(target));
        assert_eq!(head.target.form, TargetForm::Absolute);
        assert_eq!(head.target.raw, target);
        assert_eq!(head.host, host);
        assert_eq!(head.target.path(), path);
        assert_eq!(head.target.query(), query);
    }
    assert_eq!(head(&get("/")).host, "field");
}

#[test]
fn connect_names_the_host_it_wants() {
    let head = head("CONNECT b:443 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(head.target.form, TargetForm::Authority);
    assert_eq!((head.host.as_str(), head.target.path()), ("b:443", ""));
    for target in ["/", "b", "b:", ":443", "http://b:443/", "*"] {
        let text = format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(error(&text), HeadError::AuthorityForm, "{target}");
    }
}

#[test]
fn options_may_ask_about_the_whole_server() {
    let head = head("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(head.target.form, TargetForm::Asterisk);
    assert_eq!((head.target.path(), head.target.query()), ("*", None));
}

#[test]
fn a_target_may_hold_what_browsers_send() {
    let target = "/?<>\"{}|^`\\";
    assert_eq!(head(&get(target)).target.raw, target);
    // Malformed percent-encoding is a matter of the next chapter.
    assert_eq!(head(&get("/%zz%")).target.path(), "/%zz%");
}

#[test]
fn every_byte_of_a_target_is_judged() {
    for byte in 0..=255u8 {
        let mut bytes = b"GET /".to_vec();
        bytes.push(byte);
        bytes.extend(b" HTTP/1.1\r\nHost: a\r\n\r\n");
        let allowed = byte.is_ascii_graphic() && byte != b'#';
        assert_eq!(parse(&bytes).is_ok(), allowed, "byte {byte:#04x}");
    }
}

#[test]
fn a_host_is_a_name_or_an_address_with_an_optional_port() {
    for host in ["a", "A-1.b", "127.0.0.1", "[::1]", "[::1]:80", "a:", "a:65535", "", "a%2d", "a_b"]
    {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(head(&text).host, host);
    }
    for host in [
        "a b", "a/b", "a@b", "a:b", "a:65536", ":80", "::1", "[::1", "[a]", "a%2", "[]", "a%2g",
        "a%g2",
    ] {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(error(&text), HeadError::InvalidHost, "{host}");
    }
}

#[test]
fn a_request_line_is_refused_for_its_first_fault() {
    let cases = [
        ("GET  HTTP/1.1", HeadError::RequestLineParts),
        (" / HTTP/1.1", HeadError::RequestLineParts),
        // The `http` here is not the scheme.
        ("GET a/b?c=http://d HTTP/1.1", HeadError::TargetForm),
        ("GET gopher+x-1.0://b HTTP/1.1", HeadError::ForeignScheme),
    ];
    for (line, expected) in cases {
        assert_eq!(error(&format!("{line}\r\nHost: a\r\n\r\n")), expected, "{line}");
    }
}

#[test]
fn a_second_host_is_refused() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n";
    assert_eq!(error(text), HeadError::ManyHosts);
}

#[test]
fn only_http_1_1_needs_a_host() {
    assert_eq!(error("GET / HTTP/1.1\r\n\r\n"), HeadError::MissingHost);
    assert_eq!(head("GET / HTTP/1.0\r\n\r\n").host, "");
}

#[test]
fn every_valid_case_is_read_in_every_way() {
    for (name, case) in wire_cases("tests/wire/valid") {
        let outcome = parse_every_way(&name, &case.bytes);
        let Ok(Parse::Complete { value: head, used }) = outcome else {
            panic!("{name}: {outcome:?}");
        };
        let expect: Vec<&str> = case.expect.splitn(3, ' ').collect();
        assert_eq!(expect[1..], [head.method.as_str(), &head.target.raw], "{name}");
        for cut in 0..used {
            let shorter = parse(&case.bytes[..cut]);
            assert_eq!(shorter, Ok(Parse::Partial), "{name}: cut at {cut}");
        }
    }
}

#[test]
fn every_invalid_head_is_refused_for_its_reason_in_every_way() {
    let names: Vec<String> = every_error().iter().map(|error| format!("{error:?}")).collect();
    let mut refused = 0;
    for (name, case) in wire_cases("tests/wire/invalid") {
        let expect = case.expect.split_once(' ').map_or("", |(_, error)| error).to_string();
        match parse_every_way(&name, &case.bytes) {
            Err(error) => {
                assert_eq!(format!("{error:?}"), expect, "{name}");
                refused += 1;
            }
            Ok(_) => assert!(!names.contains(&expect), "{name}: was not refused"),
        }
    }
    assert!(refused >= 60, "only {refused} invalid heads");
}

/// One of each kind of error. A new one must be added here and below.
fn every_error() -> Vec<HeadError> {
    use HeadError::*;
    let field_errors = [
        FieldError::EmptyName,
        FieldError::NameByte,
        FieldError::SpaceBeforeColon,
        FieldError::MissingColon,
        FieldError::FoldedLine,
    ];
    let mut errors: Vec<HeadError> = field_errors.into_iter().map(Field).collect();
    errors.extend([
        BareLineFeed,
        BareCarriageReturn,
        ControlByte,
        SpeaksTls,
        TooManyEmptyLines,
        RequestLineTooLong,
        RequestLineParts,
        MethodNotToken,
        TargetByte,
        Fragment,
        TargetForm,
        ForeignScheme,
        Userinfo,
        EmptyAuthority,
        AsteriskForm,
        AuthorityForm,
        MalformedVersion,
        UnsupportedVersion,
        FieldLineTooLong,
        HeadTooLong,
        TooManyFields,
        MissingHost,
        ManyHosts,
        InvalidHost,
    ]);
    errors
}

/// The test of an error that no file in `tests/wire/invalid` shows.
fn named_test(error: &HeadError) -> Option<&'static str> {
    use HeadError::*;
    match error {
        RequestLineTooLong => Some("a_request_line_over_the_limit_is_refused_at_once"),
        FieldLineTooLong => Some("a_field_line_over_the_limit_is_refused_at_once"),
        HeadTooLong => Some("a_head_over_the_limit_is_refused_at_once"),
        BareLineFeed | BareCarriageReturn | ControlByte | SpeaksTls | TooManyEmptyLines => None,
        RequestLineParts | MethodNotToken | TargetByte | Fragment | TargetForm => None,
        ForeignScheme | Userinfo | EmptyAuthority | AsteriskForm | AuthorityForm => None,
        MalformedVersion | UnsupportedVersion | TooManyFields | Field(_) => None,
        MissingHost | ManyHosts | InvalidHost => None,
    }
}

#[test]
fn every_error_has_a_case_or_a_test() {
    let cases = wire_cases("tests/wire/invalid");
    for error in every_error() {
        let shown = match named_test(&error) {
            Some(test) => include_str!("ch07_request.rs").contains(&format!("fn {test}()")),
            None => cases.iter().any(|(_, case)| {
                let (_, name) = case.expect.split_once(' ').unwrap_or_default();
                name == format!("{error:?}")
            }),
        };
        assert!(shown, "{error:?} is never shown");
        assert!(error.rule().starts_with("RFC "), "{error:?}");
        let text = error.to_string();
        assert!(!text.is_empty() && !text.ends_with('.'), "{error:?}");
    }
}

#[test]
fn a_fault_is_reported_as_soon_as_its_byte_arrives() {
    let cases: &[(&[u8], HeadError)] = &[
        (b"\n", HeadError::BareLineFeed),
        (b"GET / HTTP/1.1\n", HeadError::BareLineFeed),
        (b"GET /\r ", HeadError::BareCarriageReturn),
        (b"\x16", HeadError::SpeaksTls),
        (b"\r\n\x16", HeadError::ControlByte),
        (b"GET\t", HeadError::ControlByte),
        (b"GET / HTTP/1.1\r\nA: \x01", HeadError::ControlByte),
    ];
    for (bytes, error) in cases {
        assert_eq!(parse_every_way("fault", bytes), Err(error.clone()));
    }
}

/// The limit holds: `before` + n bytes + `after` is read for n = `most`, and refused with one more
/// byte, before `after` arrives.
#[track_caller]
fn check_limit(before: &str, most: usize, after: &str, error: HeadError) {
    let fits = format!("{before}{}{after}", "a".repeat(most));
    let outcome = parse(fits.as_bytes());
    assert!(matches!(outcome, Ok(Parse::Complete { .. })), "{outcome:?}");
    assert_eq!(outcome, parse_byte_by_byte(fits.as_bytes()));
    let too_long = format!("{before}{}", "a".repeat(most + 1));
    assert_eq!(parse(too_long.as_bytes()), Err(error.clone()));
    assert_eq!(parse_byte_by_byte(too_long.as_bytes()), Err(error.clone()));
    let far_too_long = format!("{before}{}{after}", "a".repeat(most * 9));
    assert_eq!(parse(far_too_long.as_bytes()), Err(error));
}

#[test]
fn a_request_line_over_the_limit_is_refused_at_once() {
    let after = " HTTP/1.1\r\nHost: a\r\n\r\n";
    let most = 8192 - "GET / HTTP/1.1".len();
    let fits = format!("GET /{}{after}", "a".repeat(most));
    assert!(matches!(parse(fits.as_bytes()), Ok(Parse::Complete { .. })));
    let error = HeadError::RequestLineTooLong;
    let too_long = format!("GET /{}{after}", "a".repeat(most + 1));
    assert_eq!(parse(too_long.as_bytes()), Err(error.clone()));
    assert_eq!(parse_byte_by_byte(too_long.as_bytes()), Err(error.clone()));
    // Also a method that never ends.
    assert_eq!(parse(&[b'G'; 8192]), Ok(Parse::Partial));
    assert_eq!(parse(&[b'G'; 8193]), Err(error));
}

#[test]
fn a_field_line_over_the_limit_is_refused_at_once() {
    let before = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
    check_limit(before, 8192 - 3, "\r\n\r\n", HeadError::FieldLineTooLong);
}

#[test]
fn a_head_over_the_limit_is_refused_at_once() {
    let field = format!("X: {}\r\n", "v".repeat(6000));
    let before = format!("GET / HTTP/1.1\r\nHost: a\r\n{field}{field}X: ");
    let most = 16 * 1024 - before.len();
    check_limit(&before, most, "\r\n\r\n", HeadError::HeadTooLong);
    // Empty lines before the request line have a limit of their own.
    check_limit(&format!("\r\n\r\n{before}"), most, "\r\n\r\n", HeadError::HeadTooLong);
}

#[test]
fn a_hundred_fields_are_read_and_no_more() {
    let mut text = String::from("GET / HTTP/1.1\r\nHost: a\r\n");
    text += &"X: v\r\n".repeat(99);
    assert_eq!(head(&format!("{text}\r\n")).headers.len(), 100);
    assert_eq!(error(&format!("{text}X: v\r\n")), HeadError::TooManyFields);
}

#[test]
fn a_few_empty_lines_before_a_request_are_skipped() {
    for lines in 0..=32 {
        head(&format!("{}{}", "\r\n".repeat(lines), get("/")));
    }
    let flood = "\r\n".repeat(33);
    assert_eq!(error(&flood), HeadError::TooManyEmptyLines);
    assert_eq!(parse_every_way("empty lines", b"\r\n\r\n"), Ok(Parse::Partial));
}

#[test]
fn what_follows_a_head_is_left_for_the_next() {
    let first = get("/first");
    let second = get("/second");
    let both = format!("{first}{second}GET");
    let mut input = both.as_bytes();
    let mut parser = HeadParser::new(HeadLimits::default());
    for target in ["/first", "/second"] {
        let Ok(Parse::Complete { value, used }) = parser.advance(input) else {
            panic!("{target} is not complete");
        };
        assert_eq!(value.target.raw, target);
        assert_eq!(
            value.headers.get(Token::constant("Host")).map(|v| v.as_bytes()),
            Some(&b"field"[..])
        );
        input = &input[used..];
    }
    assert_eq!(parser.advance(input), Ok(Parse::Partial));
}

#[test]
fn a_second_head_is_read_like_the_first() {
    let first = get("/first");
    for folder in ["tests/wire/valid", "tests/wire/invalid"] {
        for (name, case) in wire_cases(folder) {
            let mut parser = HeadParser::new(HeadLimits::default());
            let input = [first.as_bytes(), &case.bytes].concat();
            let Ok(Parse::Complete { used, .. }) = parser.advance(&input) else {
                panic!("{name}: the first head is not complete");
            };
            assert_eq!(parser.advance(&input[used..]), parse(&case.bytes), "{name}");
        }
    }
}

#[test]
fn a_hundred_thousand_broken_heads_break_nothing() {
    let valid = wire_cases("tests/wire/valid");
    let mut mutator = Mutator::new(7);
    for round in 0..100_000 {
        let (name, case) = &valid[round % valid.len()];
        let mutant = mutator.mutate(&case.bytes);
        let whole = parse(&mutant);
        if round % 20 == 0 {
            let shown = mutant.escape_ascii();
            assert_eq!(whole, parse_byte_by_byte(&mutant), "{name}: {shown}");
        }
        let Ok(Parse::Complete { value, used }) = whole else {
            continue;
        };
        assert!(used <= mutant.len() && value.headers.len() <= 100);
        assert!(!value.target.path().is_empty() || value.method == Method::Connect);
    }
}

#[test]
#[ignore = "exercise 7.2"]
fn exercise_7_2_a_host_of_more_than_255_bytes_is_refused() {
    // The longest name that the domain name system has (RFC 1035, section 2.3.4).
    let text = |length| format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(length));
    assert_eq!(head(&text(255)).host.len(), 255);
    assert_eq!(error(&text(256)), HeadError::InvalidHost);
}

#[test]
#[ignore = "exercise 7.4"]
fn exercise_7_4_a_method_of_more_than_20_letters_is_refused() {
    let line = |length| format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(length));
    assert_eq!(head(&line(20)).method.as_str().len(), 20);
    assert_eq!(error(&line(21)), HeadError::MethodNotToken);
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
