//! Chapter 19: values in a page.

mod support;

use glasshouse::web::value::{Context, Unfit, Value, escape, url_encode};
use std::cmp::Ordering;
use std::collections::BTreeMap;

fn values() -> [(Value, bool, Option<&'static str>, usize); 14] {
    let one = BTreeMap::from([("a".to_string(), Value::Nothing)]);
    [
        // the value, whether it counts as true, its text, its length
        (Value::Nothing, false, Some(""), 0),
        (Value::Bool(true), true, Some("true"), 0),
        (Value::Bool(false), false, Some("false"), 0),
        (Value::Integer(-3), true, Some("-3"), 0),
        (Value::Integer(0), false, Some("0"), 0),
        (Value::Float(0.5), true, Some("0.5"), 0),
        (Value::Float(-0.0), false, Some("-0"), 0),
        (Value::from("é<"), true, Some("é<"), 2),
        (Value::from(""), false, Some(""), 0),
        (Value::Safe("<b>".to_string()), true, Some("<b>"), 3),
        (Value::List(vec![Value::Nothing]), true, None, 1),
        (Value::List(Vec::new()), false, None, 0),
        (Value::Map(one), true, None, 1),
        (Value::Map(BTreeMap::new()), false, None, 0),
    ]
}

// Values.

#[test]
fn usual_rust_types_become_values() {
    let context = Context::new()
        .with("some", Some(7_u64))
        .with("none", None::<String>)
        .with("size", 8_usize)
        .with("big", u64::MAX)
        .with("text", "t".to_string())
        .with("truth", true)
        .with("half", 0.5)
        .with("list", vec![1, 2])
        .with("map", Context::new().with("a", 1_i64));
    for (name, want) in [
        ("some", Value::Integer(7)),
        ("none", Value::Nothing),
        ("size", Value::Integer(8)),
        ("big", Value::Integer(i64::MAX)),
        ("text", Value::Text("t".to_string())),
        ("truth", Value::Bool(true)),
        ("half", Value::Float(0.5)),
        ("list", Value::List(vec![Value::Integer(1), Value::Integer(2)])),
        ("map", Value::Map(BTreeMap::from([("a".to_string(), Value::Integer(1))]))),
    ] {
        assert_eq!(context.get(name), Some(&want), "{name}");
    }
    assert_eq!(context.get("nobody"), None);
}

#[test]
fn a_name_that_is_there_already_gets_the_new_value() {
    let mut context = Context::new().with("a", 1).with("a", 2);
    assert_eq!(context.get("a"), Some(&Value::Integer(2)));
    context.set("a", "x");
    assert_eq!(context.get("a"), Some(&Value::from("x")));
}

#[test]
fn each_value_answers_the_questions_of_a_page() {
    for (value, truth, text, length) in values() {
        assert_eq!(value.is_true(), truth, "{value:?}");
        assert_eq!(value.text().ok().as_deref(), text, "{value:?}");
        assert_eq!(value.length(), length, "{value:?}");
        let number = matches!(value, Value::Integer(_) | Value::Float(_));
        assert_eq!(value.number().is_some(), number, "{value:?}");
    }
}

#[test]
fn a_list_is_no_text_and_says_so() {
    let list = Value::from(vec![1]);
    let error = Unfit { wanted: "text or a number", found: "a list" };
    assert_eq!(list.text(), Err(error.clone()));
    assert_eq!(error.to_string(), "text or a number was expected, but here is a list");
    let map = Value::from(Context::new());
    assert_eq!(map.text().map_err(|error| error.found), Err("a map"));
}

#[test]
fn values_of_one_kind_compare_and_others_do_not() {
    use Ordering::{Equal, Greater, Less};
    let text = Value::from;
    let safe = |html: &str| Value::Safe(html.to_string());
    for (left, right, want) in [
        (Value::Nothing, Value::Nothing, Some(Equal)),
        (Value::Bool(false), Value::Bool(true), Some(Less)),
        (Value::Integer(3), Value::Float(3.0), Some(Equal)),
        (Value::Integer(3), Value::Integer(2), Some(Greater)),
        // As floats the two are the same number.
        (Value::Integer(i64::MAX), Value::Integer(i64::MAX - 1), Some(Greater)),
        (text("a"), safe("b"), Some(Less)),
        (text("a"), text("a"), Some(Equal)),
        (Value::Integer(3), text("3"), None),
        (Value::Nothing, Value::Bool(false), None),
        (Value::Float(f64::NAN), Value::Float(f64::NAN), None),
        (Value::List(Vec::new()), Value::List(Vec::new()), None),
    ] {
        assert_eq!(left.compare(&right), want, "{left:?} {right:?}");
        let turned = want.map(Ordering::reverse);
        assert_eq!(right.compare(&left), turned, "{right:?} {left:?}");
    }
}

#[test]
fn a_value_of_any_depth_is_dropped_on_a_small_stack() {
    let work = || {
        for inside in [
            |value| Value::List(vec![value]),
            |value| Value::from(Context::new().with("a", value).with("b", "x")),
        ] {
            let mut value = Value::Nothing;
            for _ in 0..20_000 {
                value = inside(value);
            }
            assert!(value.is_true());
        }
    };
    let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(work);
    thread.expect("a thread").join().expect("no panic");
}

// The way into a page.

const ATTACKS: &[&str] = &[
    "<script>alert(1)</script>",
    "\" onmouseover=\"alert(1)",
    "' onmouseover='alert(1)",
    "</title></textarea><img src=x onerror=alert(1)>",
    "&lt;script&gt;",
    "&#60;script&#62;",
    "\u{212a}<\0>\u{feff}'\u{2028}\"&",
];

#[test]
fn no_attack_ends_its_element_or_its_attribute() {
    for attack in ATTACKS {
        let mut shown = escape(attack);
        for entity in ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"] {
            shown = shown.replace(entity, "");
        }
        assert!(!shown.contains(['<', '>', '&', '"', '\'']), "{attack} became {shown}");
    }
}

#[test]
fn an_escaped_text_shows_the_text() {
    assert_eq!(escape("5 > 4 & é"), "5 &gt; 4 &amp; é");
    assert_eq!(
        escape("<a href='#'>\"R&amp;D\""),
        "&lt;a href=&#39;#&#39;&gt;&quot;R&amp;amp;D&quot;"
    );
    // What a browser does with the five.
    for attack in ATTACKS {
        let mut read = escape(attack);
        for (entity, character) in
            [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")]
        {
            read = read.replace(entity, character);
        }
        assert_eq!(read, *attack);
    }
}

#[test]
fn an_address_keeps_a_value_in_one_piece() {
    assert_eq!(url_encode("a b/é&"), "a%20b%2F%C3%A9%26");
    for attack in ATTACKS {
        let encoded = url_encode(attack);
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte);
        assert!(encoded.bytes().all(good), "{encoded}");
        let decoded = glasshouse::http::url::percent_decode(&encoded).expect("it is encoded");
        assert_eq!(decoded, attack.as_bytes());
    }
}

// Exercises.

#[test]
#[ignore = "exercise 19.2"]
fn exercise_19_2_a_control_character_is_shown_as_a_sign() {
    assert_eq!(escape("a\0b\u{1b}[31m\u{7f}"), "a\u{fffd}b\u{fffd}[31m\u{fffd}");
    assert_eq!(escape("two\r\nlines\tand \u{e9}"), "two\r\nlines\tand \u{e9}");
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
