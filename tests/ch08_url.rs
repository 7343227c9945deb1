//! Chapter 8: what is in a URL.

mod support;

use glasshouse::http::url::{
    Query, QueryLimits, UrlError, decoded_path, percent_decode, percent_encode, remove_dot_segments,
};
use support::bytes::eq_bytes;
use support::mutator::Mutator;

fn query(text: &str) -> Query {
    Query::parse(text, &QueryLimits::default()).expect("a query within its limits")
}

#[track_caller]
fn check_pairs(text: &str, want: &[(&str, &str)]) {
    let query = query(text);
    let got: Vec<(&str, &str)> = query.iter().collect();
    assert_eq!(got, want, "{text}");
}

#[test]
fn percent_and_two_digits_are_one_byte() {
    eq_bytes(b"a b+c\xc3\xa9\0", &percent_decode("a%20b+c%C3%a9%00").expect("valid"));
    for byte in 0..=255u8 {
        eq_bytes(&[byte], &percent_decode(&format!("%{byte:02x}")).expect("lower case"));
        eq_bytes(&[byte], &percent_decode(&format!("%{byte:02X}")).expect("upper case"));
    }
}

#[test]
fn a_percent_without_two_digits_is_refused() {
    for text in ["%", "%4", "a%", "%zz", "%4g", "%%41", "% 41", "%+1", "%-1", "%0\u{e9}"] {
        assert_eq!(percent_decode(text), Err(UrlError::BadPercent), "{text}");
    }
}

#[test]
fn what_is_encoded_is_decoded_to_itself() {
    let every_letter: String =
        (0..=0x17fu16).filter_map(|code| char::from_u32(code.into())).collect();
    for kept in [&b""[..], b"/", b"-._~"] {
        let encoded = percent_encode(&every_letter, kept);
        eq_bytes(every_letter.as_bytes(), &percent_decode(&encoded).expect("valid"));
        let others = encoded.bytes().filter(|byte| !byte.is_ascii_alphanumeric() && *byte != b'%');
        eq_bytes(&others.collect::<Vec<_>>(), kept);
    }
    assert_eq!(percent_encode("a/\u{e9}\n%", b"/"), "a/%C3%A9%0A%25");
}

#[test]
fn a_path_is_decoded_once() {
    assert_eq!(decoded_path("/caf%C3%A9").as_deref(), Ok("/caf\u{e9}"));
    assert_eq!(decoded_path("/%252e%252e").as_deref(), Ok("/%2e%2e"));
    assert_eq!(decoded_path("/a+b").as_deref(), Ok("/a+b"));
}

#[test]
fn a_path_that_is_no_text_is_refused() {
    assert_eq!(decoded_path("/%ff"), Err(UrlError::NotUtf8));
    // Two bytes for one slash: no UTF-8, and an old way around a check for slashes.
    assert_eq!(decoded_path("/%c0%af"), Err(UrlError::NotUtf8));
    assert_eq!(decoded_path("/a%00.png"), Err(UrlError::Nul));
    assert_eq!(decoded_path("/%"), Err(UrlError::BadPercent));
}

#[test]
fn dots_are_carried_out() {
    // The last two lines are the examples of RFC 3986, section 5.2.4.
    let cases = [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/b/.", "/a/b/"),
        ("/a/..", "/"),
        ("/.", "/"),
        ("/...", "/..."),
        ("/.a/..b", "/.a/..b"),
        ("/a//b", "/a//b"),
        ("/a/b/c/./../../g", "/a/g"),
        ("/mid/content=5/../6", "/mid/6"),
    ];
    for (path, normal) in cases {
        assert_eq!(remove_dot_segments(path), normal, "{path}");
    }
}

#[test]
fn nothing_is_above_the_root() {
    for path in ["/..", "/../", "/../../..", "/a/../..", "/./.."] {
        assert_eq!(remove_dot_segments(path), "/", "{path}");
    }
    assert_eq!(remove_dot_segments("/../../etc/passwd"), "/etc/passwd");
}

#[test]
fn a_hidden_climb_is_seen_after_decoding() {
    for path in ["/a/%2e%2e/%2e%2e/etc", "/.%2e/a/.%2E/etc", "/%2E./etc"] {
        let decoded = decoded_path(path).expect("a valid path");
        assert_eq!(remove_dot_segments(&decoded), "/etc", "{path}");
    }
}

#[test]
fn the_normal_form_of_a_normal_form_is_itself() {
    let mut mutator = Mutator::new(8);
    let pieces = ["/", "/.", "/..", "/a", "/..b", "/"];
    for _ in 0..10_000 {
        let mut path = String::from("/");
        for _ in 0..mutator.below(8) {
            path += pieces[mutator.below(pieces.len())];
        }
        let normal = remove_dot_segments(&path);
        assert!(normal.starts_with('/'), "{path}");
        assert_eq!(remove_dot_segments(&normal), normal, "{path}");
        let climbs = normal.split('/').any(|segment| segment == ".." || segment == ".");
        assert!(!climbs, "{path} became {normal}");
    }
}

#[test]
fn a_query_is_pairs_in_order() {
    check_pairs("a=1&b=2&a=3", &[("a", "1"), ("b", "2"), ("a", "3")]);
    check_pairs("a&b=&=c&=", &[("a", ""), ("b", ""), ("", "c"), ("", "")]);
    check_pairs("a=b=c", &[("a", "b=c")]);
    check_pairs("&&a&", &[("a", "")]);
    check_pairs("", &[]);
}

#[test]
fn a_name_finds_its_first_value_or_all() {
    let query = query("a=1&b=2&a=3");
    assert_eq!(query.get("a"), Some("1"));
    assert_eq!(query.get("A"), None);
    let all: Vec<&str> = query.get_all("a").collect();
    assert_eq!(all, ["1", "3"]);
    assert_eq!(query.len(), 3);
    assert!(!query.is_empty() && Query::default().is_empty());
}

#[test]
fn a_plus_is_a_space_and_an_encoded_plus_is_a_plus() {
    check_pairs("a+b=c+%2B+d", &[("a b", "c + d")]);
}

#[test]
fn an_encoded_separator_is_data() {
    check_pairs("a%26b=c%3Dd%26e", &[("a&b", "c=d&e")]);
}

#[test]
fn a_query_forgives_what_browsers_forgive() {
    check_pairs("a=100%&b=%zz", &[("a", "100%"), ("b", "%zz")]);
    check_pairs("a=%ff%C3%A9", &[("a", "\u{fffd}\u{e9}")]);
}

#[test]
fn a_query_has_at_most_as_many_pairs_as_its_limit() {
    let limits = QueryLimits { pairs: 3 };
    assert!(Query::parse("&a&&b&c&", &limits).is_ok());
    assert_eq!(Query::parse("a&b&c&d", &limits), Err(UrlError::TooManyPairs));
    let parse = |count| Query::parse(&"a&".repeat(count), &QueryLimits::default());
    assert_eq!(parse(1_000).map(|query| query.len()), Ok(1_000));
    assert_eq!(parse(1_001), Err(UrlError::TooManyPairs));
}

#[test]
fn every_error_names_its_rule_in_a_sentence() {
    use UrlError::*;
    for error in [BadPercent, NotUtf8, Nul, TooManyPairs] {
        assert!(error.rule().starts_with("RFC "), "{error:?}");
        assert!(error.to_string().contains(' '), "{error:?}");
    }
}

#[test]
fn a_hundred_thousand_broken_urls_break_nothing() {
    let mut mutator = Mutator::new(88);
    for _ in 0..100_000 {
        let mutant = mutator.mutate(b"/a/%2e%2e/caf%C3%A9?x=1&y=%zz+%26&&=");
        let text = String::from_utf8_lossy(&mutant);
        if let Ok(path) = decoded_path(&text) {
            assert!(!path.contains('\0') && path.len() <= text.len());
            assert!(remove_dot_segments(&path).len() <= path.len() + 1);
        }
        assert!(query(&text).len() <= text.len());
    }
}

#[test]
#[ignore = "exercise 8.2"]
fn exercise_8_2_a_semicolon_separates_pairs_too() {
    // As HTML 4 recommended, so that & need not be written &amp; in a page.
    check_pairs("a=1;b=2&c", &[("a", "1"), ("b", "2"), ("c", "")]);
}

#[test]
#[ignore = "exercise 8.4"]
fn exercise_8_4_an_encoded_slash_in_a_path_is_refused() {
    assert_eq!(decoded_path("/a%2Fb"), Err(UrlError::BadPercent));
    assert_eq!(decoded_path("/a%2fb"), Err(UrlError::BadPercent));
    assert_eq!(decoded_path("/a%252Fb").as_deref(), Ok("/a%2Fb"));
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
