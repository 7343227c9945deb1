//! Chapter 6: headers.

mod support;

use glasshouse::http::headers::{
    CONNECTION, CONTENT_LENGTH, FieldError, FieldValue, HOST, Headers, Token, field_line,
    find_control,
};
use support::bytes::eq_bytes;
use support::mutator::Mutator;

fn token(name: &str) -> Token<'_> {
    Token::new(name.as_bytes()).expect("a valid token")
}

fn value(text: &str) -> FieldValue<'_> {
    FieldValue::new(text.as_bytes()).expect("a valid value")
}

fn headers(fields: &[(&str, &str)]) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in fields {
        headers.try_push(name, value).expect("a valid field");
    }
    headers
}

fn listed(headers: &Headers) -> String {
    let mut lines = String::new();
    for (name, value) in headers.iter() {
        lines += &format!("{}: {}\n", name.as_str(), value.as_str().unwrap_or("?"));
    }
    lines
}

#[test]
fn a_token_is_made_of_token_characters_only() {
    for byte in 0..=255u8 {
        // tchar        RFC 9110, section 5.6.2
        let allowed = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        assert_eq!(Token::new(&[b'X', byte]).is_ok(), allowed, "byte {byte:#04x}");
    }
}

#[test]
fn an_empty_token_is_refused() {
    assert_eq!(Token::new(b""), Err(FieldError::EmptyName));
}

#[test]
fn field_names_have_no_case_and_keep_the_one_they_came_in() {
    assert_eq!(token("hOsT"), HOST);
    assert_ne!(token("Hosts"), HOST);
    assert_eq!(token("hOsT").as_str(), "hOsT");
    eq_bytes(b"hOsT", token("hOsT").as_bytes());
}

/// Whether it panics. In a constant that would be an error of the compiler.
fn panics<T>(make: impl FnOnce() -> T + std::panic::UnwindSafe) -> bool {
    std::panic::catch_unwind(make).is_err()
}

#[test]
fn a_constant_is_checked_like_anything_else() {
    for name in ["", " ", "a ", ":a", "a:b", "X-A\r", "caf\u{e9}"] {
        assert!(panics(|| Token::constant(name)), "{name:?}");
    }
    assert_eq!(Token::constant("X-A"), token("X-A"));
    for text in ["\0", "a\rb", "\na", "ab\x7f", " a", "a ", " "] {
        assert!(panics(|| FieldValue::constant(text)), "{text:?}");
    }
    for text in ["", "a", "a b"] {
        assert_eq!(FieldValue::constant(text), value(text));
    }
}

#[test]
fn a_value_cannot_end_its_line() {
    for text in ["a\r\nX: b", "a\nb", "a\rb", "a\0b", "a\x01b", "a\x7fb", "a\x0bb", "a\n"] {
        assert_eq!(
            FieldValue::new(text.as_bytes()),
            Err(FieldError::ValueByte),
            "{}",
            text.escape_default()
        );
    }
}

#[test]
fn every_byte_of_a_value_is_judged_at_every_place() {
    for byte in 0..=255u8 {
        let allowed = byte == b'\t' || !byte.is_ascii_control();
        for place in 1..24 {
            let mut text = [b'v'; 25];
            text[place] = byte;
            assert_eq!(FieldValue::new(&text).is_ok(), allowed, "{byte:#04x} at {place}");
        }
    }
}

#[test]
fn whitespace_around_a_value_is_no_part_of_it() {
    eq_bytes(b"a \t b", value(" \t a \t b\t ").as_bytes());
    eq_bytes(b"", value(" \t ").as_bytes());
    // A no-break space is not whitespace here.
    eq_bytes(b"\xa0a", FieldValue::new(b"\xa0a").expect("obs-text").as_bytes());
}

#[test]
fn a_value_that_is_not_utf8_has_no_text() {
    let latin1 = FieldValue::new(b"caf\xe9").expect("obs-text is allowed");
    assert_eq!(latin1.as_str(), None);
    assert_eq!(value("caf\u{e9}").as_str(), Some("caf\u{e9}"));
}

#[test]
fn fields_keep_their_order_and_may_repeat() {
    let fields = headers(&[("Accept", "a"), ("Host", "h"), ("ACCEPT", "b")]);
    eq_bytes(b"Accept: a\nHost: h\nACCEPT: b\n", listed(&fields).as_bytes());
    assert_eq!(fields.get(token("accept")), Some(value("a")));
    let all: Vec<FieldValue> = fields.get_all(token("accept")).collect();
    assert_eq!(all, [value("a"), value("b")]);
    assert_eq!(fields.get(CONTENT_LENGTH), None);
    assert!(fields.contains(HOST) && !fields.contains(CONTENT_LENGTH));
    assert_eq!((fields.len(), fields.is_empty()), (3, false));
}

#[test]
fn set_leaves_one_field_of_that_name() {
    let mut fields = headers(&[("Accept", "a"), ("Host", "h"), ("ACCEPT", "b")]);
    fields.set(token("accept"), value("c"));
    let all: Vec<FieldValue> = fields.get_all(token("Accept")).collect();
    assert_eq!(all, [value("c")]);
    assert_eq!(fields.get(HOST), Some(value("h")));
}

#[test]
fn remove_takes_every_field_of_that_name() {
    let mut fields = headers(&[("Accept", "a"), ("Host", "h"), ("ACCEPT", "b")]);
    fields.remove(token("accept"));
    eq_bytes(b"Host: h\n", listed(&fields).as_bytes());
    assert_eq!(fields, headers(&[("Host", "h")]));
    fields.clear();
    assert!(fields.is_empty());
    assert_eq!(fields, Headers::new());
}

#[test]
fn fields_are_shown_with_their_bytes_escaped() {
    let mut fields = headers(&[("Host", "h")]);
    fields.push(token("A"), FieldValue::new(b"\"\t\xe9").expect("obs-text"));
    assert_eq!(format!("{fields:?}"), r#"[("Host", "h"), ("A", "\"\t\xe9")]"#);
}

#[test]
fn several_lines_of_a_list_are_one_list() {
    let fields = headers(&[("Connection", "a, ,close ,"), ("connection", "\tb")]);
    let members: Vec<&[u8]> = fields.members(CONNECTION).collect();
    assert_eq!(members, [&b"a"[..], b"close", b"b"]);
}

#[test]
fn an_application_cannot_inject_a_field() {
    let mut fields = Headers::new();
    assert_eq!(fields.try_push("Location", "/\r\nSet-Cookie: a=b"), Err(FieldError::ValueByte));
    assert_eq!(fields.try_push("A: b\r\nC", "d"), Err(FieldError::NameByte));
    assert!(fields.is_empty());
}

#[test]
fn a_field_line_is_a_name_a_colon_and_a_value() {
    let (name, value) = field_line(b"X-A:\t a:b: c ").expect("a valid line");
    assert_eq!(name.as_str(), "X-A");
    eq_bytes(b"a:b: c", value.as_bytes());
}

#[test]
fn every_broken_field_line_is_refused_for_its_reason() {
    let cases: &[(&str, FieldError)] = &[
        (": v", FieldError::EmptyName),
        ("X(A): v", FieldError::NameByte),
        ("X A: v", FieldError::NameByte),
        ("X-A : v", FieldError::SpaceBeforeColon),
        ("X-A\t: v", FieldError::SpaceBeforeColon),
        ("X-A", FieldError::MissingColon),
        ("X A", FieldError::MissingColon),
        ("", FieldError::MissingColon),
        (" X-A: v", FieldError::FoldedLine),
        ("\tv", FieldError::FoldedLine),
        ("X-A: a\rb", FieldError::ValueByte),
    ];
    for (line, error) in cases {
        let got = field_line(line.as_bytes());
        assert_eq!(got, Err(error.clone()), "{}", line.escape_default());
    }
}

#[test]
fn every_error_names_its_rule_in_a_sentence() {
    use FieldError::*;
    for error in [EmptyName, NameByte, SpaceBeforeColon, MissingColon, FoldedLine, ValueByte] {
        assert!(error.rule().starts_with("RFC 91"), "{error:?}");
        assert!(error.to_string().contains("field"), "{error:?}");
    }
}

#[test]
fn the_first_control_byte_is_found_wherever_it_stands() {
    let mut mutator = Mutator::new(6);
    for _ in 0..20_000 {
        let mut bytes = Vec::new();
        for _ in 0..mutator.below(40) {
            // Mostly text, with the bytes around the borders of the class.
            let odd = [0x00, 0x1f, 0x20, 0x7e, 0x7f, 0x80, 0x9f, 0xa0, 0xff];
            let is_odd = mutator.below(12) == 0;
            bytes.push(if is_odd { odd[mutator.below(odd.len())] } else { b'a' });
        }
        let slow = bytes.iter().position(u8::is_ascii_control);
        assert_eq!(find_control(&bytes), slow, "{}", bytes.escape_ascii());
    }
}

#[test]
#[ignore = "exercise 6.2"]
fn exercise_6_2_a_name_with_an_underscore_is_refused() {
    // CGI, and so WSGI, turns `-` into `_`: there X_A and X-A would be the same field.
    assert_eq!(field_line(b"X_A: v"), Err(FieldError::NameByte));
    assert!(field_line(b"X-A: v_w").is_ok());
}

#[test]
#[ignore = "exercise 6.4"]
fn exercise_6_4_set_keeps_the_place_of_the_field() {
    let mut fields = headers(&[("Accept", "a"), ("Host", "h"), ("ACCEPT", "b")]);
    fields.set(token("Accept"), value("c"));
    fields.set(token("Date"), value("d"));
    eq_bytes(b"Accept: c\nHost: h\nDate: d\n", listed(&fields).as_bytes());
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
