//! Chapter 22: forms, cookies, JSON.

mod support;

use glasshouse::http::headers::{FieldError, FieldValue, Headers};
use glasshouse::http::url::{Query, UrlError};
use glasshouse::web::form::{
    COOKIE, CookieError, Cookies, FormError, FormLimits, SET_COOKIE, SameSite, SetCookie,
    read_form, to_json,
};
use glasshouse::web::template::{Context, Value};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};
use std::thread;
use std::time::Duration;
use support::mutator::Mutator;

// Forms.

/// Gives its bytes in two pieces, or one at a time if the cut is 0.
struct Pieces<'a> {
    bytes: &'a [u8],
    cut: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let piece = if self.cut == 0 { 1 } else { self.cut };
        let most = piece.min(self.bytes.len()).min(out.len());
        let (now, later) = self.bytes.split_at(most);
        out[..most].copy_from_slice(now);
        self.bytes = later;
        self.cut = if self.cut == 0 { 0 } else { usize::MAX };
        Ok(most)
    }
}

/// Reads a form whole, byte by byte, and cut at every offset.
#[track_caller]
fn form(bytes: &[u8]) -> Query {
    let limits = FormLimits::default();
    let whole = read_form(&mut &bytes[..], &limits).expect("a form within its limits");
    for cut in 0..bytes.len() {
        let pieces = read_form(&mut Pieces { bytes, cut }, &limits).expect("the same form");
        assert_eq!(whole, pieces, "{}: cut at {cut}", bytes.escape_ascii());
    }
    whole
}

#[track_caller]
fn check_form(bytes: &[u8], want: &[(&str, &str)]) {
    let form = form(bytes);
    let got: Vec<(&str, &str)> = form.iter().collect();
    assert_eq!(got, want, "{}", bytes.escape_ascii());
}

#[test]
fn a_form_is_pairs_in_order() {
    check_form(b"name=Ada+L.&tag=a&tag=b", &[("name", "Ada L."), ("tag", "a"), ("tag", "b")]);
    check_form(b"", &[]);
    check_form(b"&a&=b&&c=", &[("a", ""), ("", "b"), ("c", "")]);
}

#[test]
fn a_form_is_read_as_browsers_write_it() {
    check_form(b"a=%2B+%26%3D%0D%0A%E2%82%AC", &[("a", "+ &=\r\n\u{20ac}")]);
    check_form(b"a=100%&b=%zz;c=1", &[("a", "100%"), ("b", "%zz;c=1")]);
}

#[test]
fn a_form_is_utf_8_whatever_it_says() {
    check_form(b"_charset_=iso-8859-1&a=%E9", &[("_charset_", "iso-8859-1"), ("a", "\u{fffd}")]);
    check_form(b"a=\xc3\xa9&b=\xe9", &[("a", "\u{e9}"), ("b", "\u{fffd}")]);
    check_form(b"\xef\xbb\xbfa=1", &[("\u{feff}a", "1")]);
    check_form(b"a=\0%00", &[("a", "\0\0")]);
}

#[test]
fn a_form_over_its_bytes_is_refused_and_read_no_further() {
    let limits = FormLimits { bytes: 10, ..FormLimits::default() };
    assert!(read_form(&mut &b"a=45678910"[..], &limits).is_ok());
    for text in [&b"a=456789101"[..], &[b'&'; 100_000]] {
        let mut source = text;
        let error = read_form(&mut source, &limits).expect_err("it is too long");
        assert!(matches!(error, FormError::TooLong), "{error:?}");
        assert_eq!(text.len() - source.len(), 11);
    }
    let endless = read_form(&mut io::repeat(b'a'), &FormLimits::default());
    assert!(matches!(endless, Err(FormError::TooLong)), "{endless:?}");
    let none = FormLimits { bytes: 0, fields: 0 };
    assert!(read_form(&mut &b""[..], &none).is_ok());
    assert!(matches!(read_form(&mut &b"a"[..], &none), Err(FormError::TooLong)));
    let all = FormLimits { bytes: usize::MAX, ..none };
    let error = read_form(&mut &b"a"[..], &all).expect_err("no field is allowed");
    assert!(matches!(error, FormError::Pairs(UrlError::TooManyPairs)), "{error:?}");
}

#[test]
fn a_form_over_its_fields_is_refused() {
    let limits = FormLimits::default();
    let fits = read_form(&mut "a&".repeat(1_000).as_bytes(), &limits).expect("a thousand fields");
    assert_eq!(fits.len(), 1_000);
    let error = read_form(&mut "a&".repeat(1_001).as_bytes(), &limits).expect_err("one more");
    assert!(matches!(error, FormError::Pairs(UrlError::TooManyPairs)), "{error:?}");
}

#[test]
fn an_error_of_the_body_comes_back_unchanged() {
    struct Slow;
    impl Read for Slow {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(ErrorKind::TimedOut, "too slow"))
        }
    }
    let mut source = b"a=1".chain(Slow);
    let error = read_form(&mut source, &FormLimits::default()).expect_err("the body broke");
    assert_eq!(error.to_string(), "the form could not be read: too slow");
    let FormError::Source(error) = error else { panic!("{error:?}") };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

/// Writes a form as browsers do. Nothing of the reader is used for it.
fn write_form(pairs: &[(String, String)]) -> String {
    let encode = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b' ' => "+".to_string(),
                b'*' | b'-' | b'.' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                    char::from(byte).to_string()
                }
                _ => format!("%{byte:02X}"),
            })
            .collect()
    };
    let pair = |(name, value): &(String, String)| format!("{}={}", encode(name), encode(value));
    pairs.iter().map(pair).collect::<Vec<_>>().join("&")
}

#[test]
fn a_hundred_thousand_forms_come_back_as_they_were_typed() {
    let mut mutator = Mutator::new(20);
    for _ in 0..50_000 {
        let mut text = |seed: &[u8]| String::from_utf8_lossy(&mutator.mutate(seed)).into_owned();
        let pairs = [(text(b"na&me="), text(b"Ada L.+%41")), (text(b""), text(b"\xc3\xa9;\r\n"))];
        let sent = write_form(&pairs);
        let read = read_form(&mut sent.as_bytes(), &FormLimits::default()).expect("two fields");
        let read: Vec<(String, String)> =
            read.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        assert_eq!(read, pairs, "{sent}");
    }
    let limits = FormLimits { bytes: 64, fields: 4 };
    for _ in 0..50_000 {
        let mutant = mutator.mutate(b"name=Ada+L%2E&tag=%C3%A9&tag=b&&=%zz");
        match read_form(&mut &mutant[..], &limits) {
            Ok(form) => assert!(form.len() <= 4 && mutant.len() <= 64),
            Err(FormError::TooLong) => assert!(mutant.len() > 64),
            Err(FormError::Pairs(_)) => assert!(mutant.iter().filter(|b| **b == b'&').count() > 3),
            Err(error) => panic!("{error}"),
        }
    }
}

// Cookies that come.

#[track_caller]
fn cookies(fields: &[&[u8]]) -> Cookies {
    let mut headers = Headers::new();
    for field in fields {
        headers.push(COOKIE, FieldValue::new(field).expect("a field value"));
    }
    Cookies::of(&headers)
}

#[track_caller]
fn check_cookies(field: &[u8], want: &[(&str, &str)]) {
    let cookies = cookies(&[field]);
    let got: Vec<(&str, &str)> = cookies.iter().collect();
    assert_eq!(got, want, "{}", field.escape_ascii());
}

#[test]
fn cookies_are_read_in_their_order() {
    check_cookies(b"theme=dark; seen=3", &[("theme", "dark"), ("seen", "3")]);
    check_cookies(b"a=1;b=2;  c=3\t; d = 4 ", &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]);
    check_cookies(b"a=b=c; d=", &[("a", "b=c"), ("d", "")]);
    check_cookies(b"", &[]);
    let two = cookies(&[b"a=1; b=2", b"a=3"]);
    assert_eq!((two.get("a"), two.get("b"), two.get("c")), (Some("1"), Some("2"), None));
    assert_eq!(two.get("A"), None);
    assert_eq!(two.iter().count(), 3);
    assert_eq!(Cookies::of(&Headers::new()), Cookies::default());
}

#[test]
fn quotes_around_a_value_are_not_part_of_it() {
    check_cookies(b"a=\"b c\"; d=\"\"", &[("a", "b c"), ("d", "")]);
    check_cookies(
        b"a=\"; b=\"c; d=e\"; f=g\"h\"",
        &[("a", "\""), ("b", "\"c"), ("d", "e\""), ("f", "g\"h\"")],
    );
}

#[test]
fn one_bad_cookie_does_not_hide_the_others() {
    check_cookies(
        b"junk; =x; a=1;; ; =; b=\xff; \xe9=1; c=\xc3\xa9",
        &[("a", "1"), ("c", "\u{e9}")],
    );
}

#[test]
fn a_strange_space_does_not_make_a_trusted_name() {
    for name in ["\u{2000}__Host-a", "\u{a0}__Host-a", "\u{85}__Host-a", "__host-a"] {
        let field = format!("{name}=evil; __Host-a=good");
        assert_eq!(cookies(&[field.as_bytes()]).get("__Host-a"), Some("good"), "{name:?}");
    }
}

#[test]
fn only_so_many_cookies_are_read() {
    let field = "a=;".repeat(Cookies::MOST - 1);
    assert_eq!(cookies(&[field.as_bytes(), b"b=1; c=2", b"d=3"]).iter().count(), Cookies::MOST);
    assert_eq!(cookies(&[field.as_bytes(), b"junk; b=1; c=2"]).get("b"), Some("1"));
    assert_eq!(cookies(&[field.as_bytes(), b"b=1; c=2"]).get("c"), None);
}

#[test]
fn a_hundred_thousand_broken_cookies_hide_no_other() {
    let mut mutator = Mutator::new(2020);
    for _ in 0..100_000 {
        let mutant = mutator.mutate(b"a=1; b=\"x y\"; c=\xc3\xa9; =; d");
        let field = [b"first=1; ", &mutant[..], b"; last=2"].concat();
        // A control byte is refused long before, with the field.
        let Ok(value) = FieldValue::new(&field) else { continue };
        let mut headers = Headers::new();
        headers.push(COOKIE, value);
        let cookies = Cookies::of(&headers);
        assert_eq!((cookies.get("first"), cookies.get("last")), (Some("1"), Some("2")));
        for (name, value) in cookies.iter() {
            assert!(!name.is_empty() && !name.contains([';', '=']) && !value.contains(';'));
        }
    }
}

// Cookies that go.

#[track_caller]
fn field(cookie: &SetCookie) -> String {
    cookie.to_field().expect("a cookie")
}

#[test]
fn a_cookie_is_careful_unless_told_otherwise() {
    assert_eq!(SET_COOKIE.as_str(), "Set-Cookie");
    let mut cookie = SetCookie::new("seen", "3");
    assert_eq!(field(&cookie), "seen=3; Path=/; HttpOnly; SameSite=Lax");
    cookie.max_age = Some(Duration::from_secs(3600));
    cookie.path = "/a b,c".to_string();
    cookie.domain = Some("example.org".to_string());
    (cookie.secure, cookie.http_only, cookie.same_site) = (true, false, SameSite::None);
    let all = "seen=3; Path=/a b,c; Max-Age=3600; Domain=example.org; Secure; SameSite=None";
    assert_eq!(field(&cookie), all);
    cookie.same_site = SameSite::Strict;
    assert!(field(&cookie).ends_with("; Secure; SameSite=Strict"));
}

#[test]
fn a_cookie_lives_as_long_as_it_should() {
    let mut cookie = SetCookie::new("a", "");
    for (age, says) in [
        (Duration::from_millis(1), "a=; Path=/; Max-Age=1; HttpOnly; SameSite=Lax"),
        (Duration::from_millis(2_999), "a=; Path=/; Max-Age=2; HttpOnly; SameSite=Lax"),
        (Duration::MAX, "a=; Path=/; Max-Age=34560000; HttpOnly; SameSite=Lax"),
    ] {
        cookie.max_age = Some(age);
        assert_eq!(field(&cookie), says);
    }
    cookie.max_age = Some(Duration::ZERO);
    let gone = "a=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; SameSite=Lax";
    assert_eq!(field(&cookie), gone);
}

#[test]
fn every_byte_of_a_cookie_is_judged() {
    for byte in 0..=127u8 {
        let odd = format!("a{}b", char::from(byte));
        let value = SetCookie::new("n", &odd).to_field();
        let good = byte.is_ascii_graphic() && !b"\",;\\".contains(&byte);
        assert_eq!(value.is_ok(), good, "value, byte {byte:#04x}");
        let name = SetCookie::new(&odd, "v").to_field();
        let good = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        assert_eq!(name.is_ok(), good, "name, byte {byte:#04x}");
        let path = SetCookie { path: format!("/{odd}"), ..SetCookie::new("n", "v") }.to_field();
        let good = byte == b' ' || byte.is_ascii_graphic() && byte != b';';
        assert_eq!(path.is_ok(), good, "path, byte {byte:#04x}");
        let domain =
            SetCookie { domain: Some(format!("{odd}.org")), ..SetCookie::new("n", "v") }.to_field();
        let good = byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        assert_eq!(domain.is_ok(), good, "domain, byte {byte:#04x}");
    }
}

#[test]
fn a_cookie_that_would_break_out_is_refused_for_its_reason() {
    use CookieError::*;
    let base = SetCookie::new("n", "v");
    let text = |text: &str| text.to_string();
    for (cookie, error) in [
        (SetCookie::new("", "v"), Name(FieldError::EmptyName)),
        (SetCookie::new("n; Domain=evil", "v"), Name(FieldError::NameByte)),
        (SetCookie::new("n=m", "v"), Name(FieldError::NameByte)),
        (SetCookie::new("n\u{e9}", "v"), Name(FieldError::NameByte)),
        (SetCookie::new("n", "v; Domain=evil"), Value),
        (SetCookie::new("n", "v\r\nSet-Cookie: evil=1"), Value),
        (SetCookie::new("n", "\"v\""), Value),
        (SetCookie::new("n", "\u{e9}"), Value),
        (SetCookie { path: text("/; Domain=evil"), ..base.clone() }, Path),
        (SetCookie { path: text("/\r\n"), ..base.clone() }, Path),
        (SetCookie { path: text("/\u{e9}"), ..base.clone() }, Path),
        (SetCookie { path: text("a/"), ..base.clone() }, Path),
        (SetCookie { path: text(""), ..base.clone() }, Path),
        (SetCookie { domain: Some(text("a; Path=/")), ..base.clone() }, Domain),
        (SetCookie { domain: Some(text("a\r\n")), ..base.clone() }, Domain),
        (SetCookie { domain: Some(text("")), ..base.clone() }, Domain),
        (SetCookie { same_site: SameSite::None, ..base.clone() }, NotSecure),
        (SetCookie::new("n", &"v".repeat(4096)), TooLong),
    ] {
        assert_eq!(cookie.to_field(), Err(error), "{cookie:?}");
    }
    assert!(SetCookie::new("n", &"v".repeat(4095)).to_field().is_ok());
}

#[test]
fn a_name_with_a_prefix_keeps_its_promise() {
    let cookie = |name: &str| SetCookie { secure: true, ..SetCookie::new(name, "v") };
    for name in ["__Host-a", "__host-a", "__Secure-a", "__SECURE-", "__Host-"] {
        assert!(cookie(name).to_field().is_ok(), "{name}");
        let plain = SetCookie::new(name, "v").to_field();
        assert_eq!(plain, Err(CookieError::NotSecure), "{name}");
    }
    let domain = Some("example.org".to_string());
    let (path, host) = ("/a".to_string(), Err(CookieError::HostPrefix));
    for name in ["__Host-a", "__hOST-a"] {
        assert_eq!(SetCookie { domain: domain.clone(), ..cookie(name) }.to_field(), host);
        assert_eq!(SetCookie { path: path.clone(), ..cookie(name) }.to_field(), host);
    }
    assert!(SetCookie { domain, path, ..cookie("__Secure-a") }.to_field().is_ok());
    for name in ["__Hos", "_", "a__Host-", "__Host"] {
        assert!(SetCookie::new(name, "v").to_field().is_ok(), "{name}");
    }
}

/// Reads a Set-Cookie field as RFC 6265, section 5.2 tells browsers to.
fn browser_reads(field: &str) -> SetCookie {
    let mut parts = field.split(';');
    let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).expect("a pair");
    let mut cookie = SetCookie { http_only: false, ..SetCookie::new(name.trim(), value.trim()) };
    for part in parts {
        let (attribute, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim();
        match attribute.trim().to_ascii_lowercase().as_str() {
            "path" => cookie.path = value.to_string(),
            "domain" => cookie.domain = Some(value.to_string()),
            "max-age" => {
                cookie.max_age = Some(Duration::from_secs(value.parse().expect("seconds")));
            }
            "expires" => cookie.max_age = Some(Duration::ZERO),
            "secure" => cookie.secure = true,
            "httponly" => cookie.http_only = true,
            "samesite" => {
                cookie.same_site = match value {
                    "Strict" => SameSite::Strict,
                    "Lax" => SameSite::Lax,
                    _ => SameSite::None,
                }
            }
            other => panic!("the attribute {other} was slipped in"),
        }
    }
    cookie
}

#[test]
fn a_hundred_thousand_cookies_say_what_they_were_told_to_say() {
    let mut mutator = Mutator::new(202_020);
    let mut sent = 0;
    for round in 0..100_000u64 {
        let mut text = |seed: &str, often: u64| match round % often {
            0 => String::from_utf8_lossy(&mutator.mutate(seed.as_bytes())).into_owned(),
            _ => seed.to_string(),
        };
        let cookie = SetCookie {
            name: text("__Host-id", 2),
            value: text("v; Domain=x", 3).replace(if round % 2 == 0 { "; " } else { "" }, ""),
            max_age: (round % 5 != 0).then(|| Duration::from_secs(round % 5 - 1)),
            path: text("/", 5),
            domain: (round % 7 == 0).then(|| text("example.org", 7)),
            secure: round % 11 != 0,
            http_only: round % 2 == 0,
            same_site: [SameSite::Strict, SameSite::Lax, SameSite::None][round as usize % 3],
        };
        let Ok(field) = cookie.to_field() else { continue };
        sent += 1;
        let value = FieldValue::new(field.as_bytes()).expect("a field value");
        assert_eq!(value.as_bytes(), field.as_bytes());
        let mut read = browser_reads(&field);
        // A browser trims the space at the end of a path.
        if read.path == cookie.path.trim_end() {
            read.path.clone_from(&cookie.path);
        }
        assert_eq!(read, cookie, "{field}");
        let back = format!("{}={}", read.name, read.value);
        assert_eq!(cookies(&[back.as_bytes()]).get(&cookie.name), Some(cookie.value.as_str()));
    }
    assert!(sent > 10_000, "only {sent}");
}

#[test]
fn every_error_names_its_rule_in_a_sentence() {
    use CookieError::*;
    let name = Name(FieldError::EmptyName);
    for error in [name, Value, TooLong, Path, Domain, HostPrefix, NotSecure] {
        assert!(error.rule().contains(", section "), "{error:?}");
        assert!(error.to_string().contains("cookie"), "{error:?}");
    }
    let source = FormError::Source(io::Error::other("gone"));
    for error in [FormError::TooLong, FormError::Pairs(UrlError::TooManyPairs), source] {
        assert!(error.rule().starts_with("RFC "), "{error:?}");
        assert!(error.to_string().contains(' '), "{error:?}");
    }
}

// JSON.

#[test]
fn every_kind_of_value_has_its_json() {
    for (value, json) in [
        (Value::Nothing, "null"),
        (Value::from(true), "true"),
        (Value::from(false), "false"),
        (Value::from(0), "0"),
        (Value::from(i64::MIN), "-9223372036854775808"),
        (Value::from(i64::MAX), "9223372036854775807"),
        (Value::from("Ada"), "\"Ada\""),
        (Value::Safe("<b>".to_string()), "\"\\u003cb\\u003e\""),
        (Value::List(Vec::new()), "[]"),
        (Value::Map(BTreeMap::new()), "{}"),
        (Value::from(vec![1, 2]), "[1, 2]"),
        (Value::from(vec![vec![0; 0], vec![1], vec![0; 0]]), "[[], [1], []]"),
        (Value::from(vec!["[", "{"]), "[\"[\", \"{\"]"),
        (Value::from(Context::new().with("b", 1).with("a", "x")), "{\"a\": \"x\", \"b\": 1}"),
        (Value::from(Context::new().with("", vec![Context::new()])), "{\"\": [{}]}"),
        (
            Value::from(Context::new().with("\"}", Context::new().with("<", 1))),
            "{\"\\\"}\": {\"\\u003c\": 1}}",
        ),
    ] {
        assert_eq!(to_json(&value), json);
    }
}

#[test]
fn a_number_is_a_number_of_json() {
    for (number, json) in [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (0.1, "0.1"),
        (-2.5, "-2.5"),
        (100.0, "100.0"),
        (1e300, "1e300"),
        (-1.5e-300, "-1.5e-300"),
        (f64::MAX, "1.7976931348623157e308"),
        (f64::from_bits(1), "5e-324"),
        (f64::INFINITY, "null"),
        (f64::NEG_INFINITY, "null"),
        (f64::NAN, "null"),
    ] {
        assert_eq!(to_json(&Value::from(number)), json);
    }
}

#[test]
fn a_text_in_json_cannot_end_the_script_around_it() {
    let text = "</script><!--<script>&\u{2028}\u{2029}";
    let json = to_json(&Value::from(text));
    assert!(!json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{json}");
    assert_eq!(read_json(&json), Value::from(text));
    let named = to_json(&Value::from(Context::new().with(text, 1)));
    assert!(!named.contains('<'), "{named}");
}

#[test]
fn every_character_of_a_text_comes_back() {
    for start in (0..=0x10_ffff).step_by(0x1000) {
        let text: String = (start..start + 0x1000).filter_map(char::from_u32).collect();
        let json = to_json(&Value::from(text.as_str()));
        assert!(!json.contains(|character: char| character.is_ascii_control()), "{start:#x}");
        assert_eq!(read_json(&json), Value::from(text), "{start:#x}");
    }
    assert_eq!(to_json(&Value::from("\"\\/\n\t\0\u{7f}")), r#""\"\\/\n\u0009\u0000\u007f""#);
}

/// `[[[...]]]`, so many levels.
fn nested(levels: usize) -> Value {
    let mut value = Value::Nothing;
    for level in 0..levels {
        value = match level % 2 {
            0 => Value::List(vec![value]),
            _ => Value::Map(BTreeMap::from([("a".to_string(), value)])),
        };
    }
    value
}

#[test]
fn a_value_of_any_depth_fits_on_a_small_stack() {
    let small = |work: fn()| {
        let thread = thread::Builder::new().stack_size(256 * 1024).spawn(work);
        thread.expect("a thread").join().expect("it ends well");
    };
    small(|| {
        let value = nested(100_000);
        let json = to_json(&value);
        assert_eq!(json.matches(['[', '{']).count(), 100_000);
        assert!(json.ends_with("]}]}"), "the last brackets");
        drop(value);
    });
    // What a program can reasonably have is also dropped there.
    small(|| assert_eq!(to_json(&nested(200)).len(), 4 + 100 * 2 + 100 * 7));
}

/// A value of up to some levels. Text and numbers are odd ones.
fn any_value(mutator: &mut Mutator, levels: usize) -> Value {
    let text = |mutator: &mut Mutator| {
        String::from_utf8_lossy(&mutator.mutate(b"a\"\\\xe2\x80\xa8</")).into_owned()
    };
    match mutator.below(if levels == 0 { 5 } else { 7 }) {
        0 => Value::Nothing,
        1 => Value::Bool(mutator.below(2) == 0),
        2 => Value::Integer(mutator.below(usize::MAX) as i64 >> mutator.below(64)),
        3 => {
            let bits = (mutator.below(usize::MAX) as u64) << 11 ^ mutator.below(usize::MAX) as u64;
            let number = f64::from_bits(bits);
            if number.is_finite() { Value::Float(number) } else { Value::Nothing }
        }
        4 => Value::Text(text(mutator)),
        5 => {
            let count = mutator.below(4);
            Value::List((0..count).map(|_| any_value(mutator, levels - 1)).collect())
        }
        _ => {
            let count = mutator.below(4);
            let item = |_| (text(mutator), any_value(mutator, levels - 1));
            Value::Map((0..count).map(item).collect())
        }
    }
}

#[test]
fn ten_thousand_values_come_back_from_their_json() {
    let mut mutator = Mutator::new(8259);
    for _ in 0..10_000 {
        let value = any_value(&mut mutator, 4);
        let json = to_json(&value);
        assert_eq!(read_json(&json), value, "{json}");
        assert!(!json.contains(['\n', '<', '\u{2028}']), "{json}");
    }
}

/// Reads JSON by the grammar of RFC 8259, and nothing more. Panics where it is broken.
fn read_json(json: &str) -> Value {
    let mut rest = json;
    let value = json_value(&mut rest);
    assert_eq!(rest, "", "something follows in {json}");
    value
}

fn json_value(rest: &mut &str) -> Value {
    for (word, value) in
        [("null", Value::Nothing), ("true", Value::Bool(true)), ("false", Value::Bool(false))]
    {
        if eat(rest, word) {
            return value;
        }
    }
    if rest.starts_with('"') {
        return Value::Text(json_text(rest));
    }
    if eat(rest, "[") {
        let mut items = Vec::new();
        while !eat(rest, "]") {
            assert!(items.is_empty() || eat(rest, ", "), "no comma before {rest}");
            items.push(json_value(rest));
        }
        return Value::List(items);
    }
    if eat(rest, "{") {
        let mut items = BTreeMap::new();
        while !eat(rest, "}") {
            assert!(items.is_empty() || eat(rest, ", "), "no comma before {rest}");
            let name = json_text(rest);
            assert!(eat(rest, ": "), "no colon before {rest}");
            items.insert(name, json_value(rest));
        }
        return Value::Map(items);
    }
    json_number(rest)
}

fn eat(rest: &mut &str, text: &str) -> bool {
    match rest.strip_prefix(text) {
        Some(after) => {
            *rest = after;
            true
        }
        None => false,
    }
}

// number = [ minus ] int [ frac ] [ exp ]        RFC 8259, section 6
fn json_number(rest: &mut &str) -> Value {
    let end = rest.find([',', ']', '}']).unwrap_or(rest.len());
    let (number, after) = rest.split_at(end);
    *rest = after;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = number.split_once('e').unwrap_or((number, "0"));
    let (int, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let int = int.strip_prefix('-').unwrap_or(int);
    let exponent = exponent.strip_prefix('-').unwrap_or(exponent);
    assert!(digits(int) && digits(fraction) && digits(exponent), "{number} is no number");
    assert!(int == "0" || !int.starts_with('0'), "{number} begins with a zero");
    match number.contains(['.', 'e']) {
        true => Value::Float(number.parse().expect("a number")),
        false => Value::Integer(number.parse().expect("an integer")),
    }
}

fn json_text(rest: &mut &str) -> String {
    assert!(eat(rest, "\""), "no text in {rest}");
    let mut text = String::new();
    loop {
        let mut characters = rest.chars();
        let character = characters.next().expect("the end of a text");
        *rest = characters.as_str();
        match character {
            '"' => return text,
            '\\' if eat(rest, "u") => {
                let mut units = vec![json_unit(rest)];
                if (0xd800..0xdc00).contains(&units[0]) && eat(rest, "\\u") {
                    units.push(json_unit(rest));
                }
                text += &String::from_utf16(&units).expect("no half of a pair");
            }
            '\\' if eat(rest, "n") => text.push('\n'),
            '\\' if eat(rest, "\\") => text.push('\\'),
            '\\' => {
                assert!(eat(rest, "\""), "an unknown escape before {rest}");
                text.push('"');
            }
            '\0'..='\x1f' => panic!("a bare control character"),
            other => text.push(other),
        }
    }
}

fn json_unit(rest: &mut &str) -> u16 {
    let (digits, after) = rest.split_at(4);
    *rest = after;
    u16::from_str_radix(digits, 16).expect("four digits")
}

#[test]
#[ignore = "exercise 22.2"]
fn exercise_22_2_a_cookie_for_a_whole_top_level_domain_is_refused() {
    let domain =
        |name: &str| SetCookie { domain: Some(name.to_string()), ..SetCookie::new("n", "v") };
    for name in ["org", ".org", "org.", "."] {
        assert_eq!(domain(name).to_field(), Err(CookieError::Domain), "{name}");
    }
    for name in ["example.org", ".example.org", "a.b.example.org"] {
        assert!(domain(name).to_field().is_ok(), "{name}");
    }
}

#[test]
#[ignore = "exercise 22.4"]
fn exercise_22_4_json_is_ascii_only() {
    assert_eq!(to_json(&Value::from("caf\u{e9}")), "\"caf\\u00e9\"");
    assert_eq!(to_json(&Value::from("\u{1f980}!")), "\"\\ud83e\\udd80!\"");
    assert_eq!(to_json(&Value::from("\u{ffff}\u{10000}")), "\"\\uffff\\ud800\\udc00\"");
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
