//! Chapter 23: forms with files.

mod support;

use glasshouse::http::headers::FieldError;
use glasshouse::http::request::Parse;
use glasshouse::web::multipart::{
    Event, MultipartError, MultipartLimits, MultipartParser, clean_file_name,
};
use std::time::{Duration, Instant};
use support::form_cases::{FORM, XX, file_form, named_form};
use support::mutator::Mutator;
use support::watchdog::watchdog;

/// A part as a test sees it: its name, the file's name, the data.
type Seen = (String, Option<String>, Vec<u8>);
type Outcome = Result<Vec<Seen>, MultipartError>;

/// Parses what arrives in steps: the first `steps[0]` bytes, then `steps[1]` bytes in all, ...
fn parse_in_steps(
    content_type: &str,
    body: &[u8],
    steps: impl Iterator<Item = usize>,
    limits: &MultipartLimits,
) -> Outcome {
    let mut parser = MultipartParser::new(content_type.as_bytes(), limits.clone())?;
    let mut seen: Vec<Seen> = Vec::new();
    let mut start = 0;
    for end in steps {
        while let Parse::Complete { value, used } = parser.advance(&body[start..end])? {
            match value {
                Event::Part(part) => seen.push((part.name, part.file_name, Vec::new())),
                Event::Data => {
                    let (_, _, data) = seen.last_mut().expect("data belongs to a part");
                    data.extend_from_slice(&body[start..start + used]);
                }
                Event::Skipped | Event::PartEnd => {}
            }
            start += used;
        }
        assert!(end - start < parser.longest(), "that was all it can need at once");
    }
    parser.finish()?;
    Ok(seen)
}

fn parse_whole(content_type: &str, body: &[u8]) -> Outcome {
    let limits = MultipartLimits::default();
    parse_in_steps(content_type, body, [body.len()].into_iter(), &limits)
}

fn parse_byte_by_byte(content_type: &str, body: &[u8]) -> Outcome {
    let limits = MultipartLimits::default();
    parse_in_steps(content_type, body, 1..=body.len(), &limits)
}

/// Parses it as it would arrive, so many bytes more at each step.
fn parse_in_reads(content_type: &str, body: &[u8], most: usize) -> Outcome {
    let steps = (most..body.len()).step_by(most).chain([body.len()]);
    parse_in_steps(content_type, body, steps, &MultipartLimits::default())
}

/// Parses `body` whole, byte by byte, and in two pieces cut at every offset.
#[track_caller]
fn parse_every_way(content_type: &str, body: &[u8]) -> Outcome {
    let shown = body.escape_ascii();
    let limits = MultipartLimits::default();
    let whole = parse_whole(content_type, body);
    let bytes = parse_byte_by_byte(content_type, body);
    assert_eq!(whole, bytes, "byte by byte: {shown}");
    for cut in 0..body.len() {
        let steps = [cut, body.len()].into_iter();
        let pieces = parse_in_steps(content_type, body, steps, &limits);
        assert_eq!(whole, pieces, "cut at {cut}: {shown}");
    }
    whole
}

#[track_caller]
fn parts(body: &[u8]) -> Vec<Seen> {
    let outcome = parse_every_way(XX, body);
    outcome.unwrap_or_else(|error| panic!("{error:?}: {}", body.escape_ascii()))
}

#[track_caller]
fn error(body: &[u8]) -> MultipartError {
    match parse_every_way(XX, body) {
        Err(error) => error,
        Ok(parts) => panic!("{parts:?}: {}", body.escape_ascii()),
    }
}

fn part(name: &str, file_name: Option<&str>, data: &[u8]) -> Seen {
    let file_name = file_name.map(str::to_string);
    (name.to_string(), file_name, data.to_vec())
}

#[test]
fn a_form_is_read_into_its_parts() {
    let want =
        vec![part("who", None, b"Ada"), part("photo", Some("me.jpg"), b"\xff\xd8\r\n--X\r\n")];
    assert_eq!(parts(FORM), want);
}

#[test]
fn the_boundary_is_taken_from_the_content_type_as_it_is() {
    let seventy = "B".repeat(70);
    let cases = [
        ("multipart/form-data; boundary=XX", "XX"),
        ("multipart/form-data; boundary=\"XX\"", "XX"),
        ("Multipart/Form-Data ;charset=utf-8;; BOUNDARY=xX ; a=b;", "xX"),
        ("multipart/form-data; boundary=X", "X"),
        ("multipart/form-data; boundary=\"a b\"", "a b"),
        ("multipart/form-data; boundary=\"'()+_,-./:=?\"", "'()+_,-./:=?"),
        ("multipart/form-data; boundary=----=_Part_1.2", "----=_Part_1.2"),
        ("multipart/form-data; boundary=*****", "*****"),
        (&format!("multipart/form-data; boundary={seventy}"), &seventy),
    ];
    for (content_type, boundary) in cases {
        let body = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--{boundary}--"
        );
        let want = Ok(vec![part("a", None, b"1")]);
        assert_eq!(parse_every_way(content_type, body.as_bytes()), want, "{content_type}");
    }
    let other_case = parse_every_way("multipart/form-data; boundary=xx", FORM);
    assert_eq!(other_case, Err(MultipartError::Truncated));
}

#[test]
fn a_content_type_without_a_good_boundary_is_refused() {
    use MultipartError::*;
    let long = format!("multipart/form-data; boundary={}", "B".repeat(71));
    let cases = [
        ("", NotMultipart),
        ("text/plain; boundary=XX", NotMultipart),
        ("multipart/mixed; boundary=XX", NotMultipart),
        ("multipart/form-data", MissingBoundary),
        ("multipart/form-data; charset=utf-8", MissingBoundary),
        ("multipart/form-data; boundary=", Boundary),
        ("multipart/form-data; boundary=\"\"", Boundary),
        ("multipart/form-data; boundary=\"XX \"", Boundary),
        ("multipart/form-data; boundary=\"X\tX\"", Boundary),
        ("multipart/form-data; boundary=é", Boundary),
        (&long, Boundary),
        ("multipart/form-data; boundary=\"XX", Parameter),
        ("multipart/form-data; boundary=\"XX\"X", Parameter),
        ("multipart/form-data; boundary=XX; boundary=XX", Parameter),
        ("multipart/form-data; bound ary=XX", Parameter),
        ("multipart/form-data; =XX", Parameter),
    ];
    for (content_type, error) in cases {
        assert_eq!(parse_whole(content_type, FORM), Err(error), "{content_type}");
    }
}

#[test]
fn a_delimiter_is_found_across_every_cut_and_nothing_else_is_one() {
    let data: &[&[u8]] = &[
        b"",
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\r\r\r\r",
        b"-",
        b"--",
        b"\r\n--",
        b"\r\n--X",
        b"\r\n--XY",
        b"\r\n-\r\n--X\r\n--x\r\n--xx\r\n",
        b"\r\r\n--X\r\n\r\n--X",
        b"--XX",
        b"--XX--",
        b"q--XX\r\nq",
        b"\n--XX\r\n\r--XX\r\n",
        b"\r\n --XX",
        b"\r\n- -XX",
        b"\r\n--\rXX\r\n--X\0X",
    ];
    for data in data {
        assert_eq!(parts(&file_form(data)), [part("f", Some("n"), data)]);
        let zz = [b"zz", *data, b"zz"].concat();
        assert_eq!(parts(&file_form(&zz)), [part("f", Some("n"), &zz)]);
    }
}

#[test]
fn what_stands_around_the_parts_is_ignored() {
    let want = [part("f", Some("n"), b"data")];
    let form = file_form(b"data");
    let before: &[&[u8]] = &[b"", b"\r\n", b"junk\r\n", b"--X\r\n", b"\r\r\n", b"a--XX\r\n\r\n"];
    let after: &[&[u8]] = &[b"", b"junk", b"\r\n--XX\r\nContent", b"\r\n--XX--\r\n", b"--"];
    for (before, after) in before.iter().flat_map(|b| after.iter().map(move |a| (b, a))) {
        let body = [before, form.as_slice(), after].concat();
        assert_eq!(parts(&body), want);
    }
    let text = String::from_utf8(form).expect("ASCII");
    assert_eq!(parts(text.trim_end().as_bytes()), want, "no line end at the end");
    let padded = text.replacen("--XX\r\n", "--XX \t  \r\n", 1);
    assert_eq!(parts(padded.as_bytes()), want);
    assert_eq!(parts(b"--XX--\r\n"), [], "a form without a part");
}

#[test]
fn a_line_that_goes_on_after_its_boundary_is_refused() {
    for rest in ["Y\r\n", "-\r\n", " --\r\n", "\r\r\n", "\n", " \n", "-x"] {
        let body = format!("--XX{rest}Content-Disposition: form-data; name=a\r\n\r\n1\r\n--XX--");
        assert_eq!(error(body.as_bytes()), MultipartError::AfterBoundary, "{rest:?}");
        let inside = file_form(format!("x\r\n--XX{rest}").as_bytes());
        assert_eq!(error(&inside), MultipartError::AfterBoundary, "{rest:?}");
    }
    assert_eq!(error(b"--XX -"), MultipartError::AfterBoundary);
}

#[test]
fn a_form_cut_short_anywhere_is_truncated() {
    let end = FORM.len() - "\r\n".len();
    for cut in 0..end {
        let outcome = parse_whole(XX, &FORM[..cut]);
        assert_eq!(outcome, Err(MultipartError::Truncated), "cut at {cut}");
    }
    for cut in end..=FORM.len() {
        assert!(parse_whole(XX, &FORM[..cut]).is_ok(), "cut at {cut}");
    }
}

#[test]
fn names_are_read_as_browsers_and_curl_write_them() {
    let cases = [
        // Browsers: three bytes are escaped, all others are UTF-8.
        (r#"form-data; name="a"; filename="b.txt""#, "a", Some("b.txt")),
        (r#"form-data; name="a%22b"; filename="c%22d.txt""#, "a\"b", Some("c\"d.txt")),
        (r#"form-data; name="a%0D%0Ab"; filename="c%0D%0Ad""#, "a\r\nb", Some("cd")),
        (r#"form-data; name="100%25"; filename="%41%2F""#, "100%25", Some("%41%2F")),
        (r#"form-data; name="é€😀"; filename="über€.txt""#, "é€😀", Some("über€.txt")),
        (r#"form-data; name="a;b"; filename="c; name=d""#, "a;b", Some("c; name=d")),
        // curl: a backslash before a quote or a backslash.
        (r#"form-data; name="a\"b"; filename="c\\d\"e""#, "a\"b", Some("d\"e")),
        (r#"form-data; name="a\b""#, "a\\b", None),
        // Old ones: a whole path, no quotes, odd spaces, other order.
        (r#"form-data; name="a"; filename="C:\x\me.jpg""#, "a", Some("me.jpg")),
        ("form-data; name=a; filename=b.txt", "a", Some("b.txt")),
        ("form-data ;  filename=\"b\" ;name=\"a\" ; ", "a", Some("b")),
        ("FORM-DATA; NAME=a; FileName=b; size=3", "a", Some("b")),
        // RFC 7578, section 4.2 forbids it; it says nothing.
        ("form-data; name=a; filename*=UTF-8''%e2%82%ac", "a", None),
        ("form-data; name=a; filename*=UTF-8''x; filename=y", "a", Some("y")),
        (r#"form-data; name="""#, "", None),
        (r#"form-data; name="a"; filename="""#, "a", Some("")),
    ];
    for (disposition, name, file_name) in cases {
        assert_eq!(parts(&named_form(disposition)), [part(name, file_name, b"v")]);
    }
    let mut latin1 = named_form(r#"form-data; name="?"; filename="?""#);
    latin1.iter_mut().filter(|byte| **byte == b'?').for_each(|byte| *byte = 0xe9);
    assert_eq!(parts(&latin1), [part("\u{fffd}", Some("\u{fffd}"), b"v")]);
}

#[test]
fn a_file_name_is_cleaned_before_anybody_sees_it() {
    let cases = [
        ("me.jpg", "me.jpg"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\evil.txt", "evil.txt"),
        ("C:\\a/b\\c.txt", "c.txt"),
        ("/", ""),
        ("a/", ""),
        (".", ""),
        ("..", ""),
        ("a/..", ""),
        ("\0..\r\n", ""),
        ("...", "..."),
        (".htaccess", ".htaccess"),
        ("a\0b\t\x1b[31m\x7f\u{9b}c", "ab[31mc"),
        ("photo\u{202e}gpj.exe", "photogpj.exe"),
        ("%2e%2e%2fa", "%2e%2e%2fa"),
        ("<script>.html", "<script>.html"),
    ];
    for (name, clean) in cases {
        assert_eq!(clean_file_name(name, 100), clean, "{name:?}");
    }
    assert_eq!(clean_file_name(&"x".repeat(101), 100), "x".repeat(100));
    assert_eq!(clean_file_name(&"€".repeat(50), 100), "€".repeat(33), "no half character");
}

#[test]
fn a_bad_head_of_a_part_is_refused_for_its_reason() {
    use MultipartError::*;
    let cases = [
        ("Content-Type: text/plain\r\n\r\n", Disposition),
        ("\r\n", Disposition),
        ("Content-Disposition: attachment; name=a\r\n\r\n", Disposition),
        ("Content-Disposition:\r\n\r\n", Disposition),
        (
            "Content-Disposition: form-data; name=a\r\ncontent-disposition: form-data; name=b\r\n\r\n",
            Disposition,
        ),
        ("Content-Disposition: form-data\r\n\r\n", MissingName),
        ("Content-Disposition: form-data; filename=a\r\n\r\n", MissingName),
        ("Content-Disposition: form-data; name\r\n\r\n", Parameter),
        ("Content-Disposition: form-data; name=\"a\r\n\r\n", Parameter),
        ("Content-Disposition: form-data; name=\"a; filename=\"b\"\r\n\r\n", Parameter),
        ("Content-Disposition: form-data; name=a; name=a\r\n\r\n", Parameter),
        ("Content-Disposition: form-data; name=a; filename=b; FILENAME=c\r\n\r\n", Parameter),
        ("Content-Disposition form-data\r\n\r\n", Field(FieldError::MissingColon)),
        ("Content-Disposition : form-data\r\n\r\n", Field(FieldError::SpaceBeforeColon)),
        (" Content-Disposition: form-data\r\n\r\n", Field(FieldError::FoldedLine)),
        ("X: a\r\n folded: b\r\n\r\n", Field(FieldError::FoldedLine)),
        (": a\r\n\r\n", Field(FieldError::EmptyName)),
        ("X@: a\r\n\r\n", Field(FieldError::NameByte)),
        ("X: a\0\r\n\r\n", Field(FieldError::ValueByte)),
        ("X: a\nY: b\r\n\r\n", Field(FieldError::ValueByte)),
        ("X: a\rY: b\r\n\r\n", Field(FieldError::ValueByte)),
        ("--XX--\r\n", Field(FieldError::MissingColon)),
    ];
    for (head, want) in cases {
        let body = format!("--XX\r\n{head}v\r\n--XX--\r\n");
        assert_eq!(error(body.as_bytes()), want, "{head:?}");
    }
}

/// The same form is read with this limit, and refused with one less.
#[track_caller]
fn check_limit(body: &[u8], limits: [MultipartLimits; 2], error: MultipartError) {
    let [fits, one_less] = limits;
    for steps in [vec![body.len()], (1..=body.len()).collect()] {
        let read = parse_in_steps(XX, body, steps.iter().copied(), &fits);
        assert!(read.is_ok(), "{read:?}");
        let refused = parse_in_steps(XX, body, steps.into_iter(), &one_less);
        assert_eq!(refused, Err(error.clone()));
    }
    assert_eq!(error.status().code(), 413);
}

#[test]
fn parts_and_files_are_counted() {
    let limits = |parts, files| MultipartLimits { parts, files, ..Default::default() };
    let field = "--XX\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n";
    let file = "--XX\r\nContent-Disposition: form-data; name=a; filename=b\r\n\r\n\r\n";
    let body = format!("{}{}--XX--", field.repeat(3), file.repeat(2));
    let parts = [limits(5, 2), limits(4, 2)];
    check_limit(body.as_bytes(), parts, MultipartError::TooManyParts);
    let files = [limits(5, 2), limits(5, 1)];
    check_limit(body.as_bytes(), files, MultipartError::TooManyFiles);
    // As many as nobody sends by hand: refused as soon as the limit is passed.
    let flood = format!("{}--XX--", field.repeat(100_000));
    let refused = parse_whole(XX, flood.as_bytes());
    assert_eq!(refused, Err(MultipartError::TooManyParts));
    let thousand = format!("{}--XX--", field.repeat(1000));
    assert_eq!(parse_whole(XX, thousand.as_bytes()).map(|parts| parts.len()), Ok(1000));
}

#[test]
fn the_head_of_a_part_is_bounded() {
    let head = "Content-Disposition: form-data; name=a\r\nX: y\r\nLong: value\r\n\r\n";
    let part = format!("--XX\r\n{head}v\r\n");
    let body = format!("{part}{part}--XX--");
    let limits = |part_head| MultipartLimits { part_head, ..Default::default() };
    let limits = [limits(head.len()), limits(head.len() - 1)];
    check_limit(body.as_bytes(), limits, MultipartError::HeadTooLong);
    let limits = |part_fields| MultipartLimits { part_fields, ..Default::default() };
    let limits = [limits(3), limits(2)];
    check_limit(body.as_bytes(), limits, MultipartError::TooManyFields);
    let endless = [b"--XX\r\nX: ".as_slice(), &[b'h'; 1 << 20]].concat();
    assert_eq!(parse_whole(XX, &endless), Err(MultipartError::HeadTooLong));
}

#[test]
fn a_search_takes_as_long_as_the_data_is_long() {
    let _dog = watchdog(60, "a search that is not linear");
    let near_misses: &[&[u8]] = &[
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n--",
        b"\r\n--Tortur",
        b"\r\n--TortureC",
        b"\r\n--Torture\r",
        b"-",
    ];
    let content_type = "multipart/form-data; boundary=TortureB";
    for near_miss in near_misses {
        let data = near_miss.repeat(2 * 1024 * 1024 / near_miss.len());
        let head = b"--TortureB\r\nContent-Disposition: form-data; name=f\r\n\r\n";
        let body = [head, data.as_slice(), b"\r\n--TortureB--"].concat();
        let began = Instant::now();
        let read = parse_in_reads(content_type, &body, 10_000);
        let took = began.elapsed();
        assert!(read == Ok(vec![part("f", None, &data)]), "{}", near_miss.escape_ascii());
        println!("{:20} {took:?}", near_miss.escape_ascii().to_string());
        assert!(took < Duration::from_secs(10), "{} took {took:?}", near_miss.escape_ascii());
    }
}

#[test]
fn a_hundred_thousand_broken_forms_break_nothing() {
    let valid = [
        FORM.to_vec(),
        file_form(b"\r\n--X\r\n\r\n--XY"),
        [b"preamble\r\n", FORM, b"epilogue"].concat(),
        named_form(r#"form-data; name="a\"b%22"; filename="C:\x""#),
    ];
    let pieces: [&[u8]; 5] = [b"\r\n--XX\r\n", b"\r\n--XX--", b"--XX", b"\"", b"; name="];
    let mut mutator = Mutator::new(23);
    for round in 0..100_000 {
        let mut mutant = mutator.mutate(&valid[round % valid.len()]);
        if round % 3 == 0 {
            let at = mutator.below(mutant.len());
            let piece = pieces[mutator.below(pieces.len())];
            mutant.splice(at..at, piece.iter().copied());
        }
        let whole = parse_whole(XX, &mutant);
        if round % 20 == 0 {
            let shown = mutant.escape_ascii();
            assert_eq!(whole, parse_byte_by_byte(XX, &mutant), "{shown}");
        }
        for (_, file_name, data) in whole.into_iter().flatten() {
            assert!(data.len() <= mutant.len());
            let name = file_name.unwrap_or_default();
            assert!(!name.contains(['/', '\\', '\0', '\r', '\n']) && name.len() <= 100);
        }
    }
}

#[test]
fn every_error_names_its_rule_and_its_status() {
    use MultipartError::*;
    let errors = [
        (NotMultipart, 415),
        (MissingBoundary, 400),
        (Boundary, 400),
        (Parameter, 400),
        (AfterBoundary, 400),
        (Truncated, 400),
        (Field(FieldError::MissingColon), 400),
        (Disposition, 400),
        (MissingName, 400),
        (HeadTooLong, 413),
        (TooManyFields, 413),
        (TooManyParts, 413),
        (TooManyFiles, 413),
    ];
    for (error, status) in errors {
        assert_eq!(error.status().code(), status, "{error:?}");
        assert!(error.rule().starts_with("RFC "), "{error:?}");
        let text = error.to_string();
        assert!(!text.is_empty() && !text.ends_with('.'), "{error:?}");
    }
}

#[test]
#[ignore = "exercise 23.2"]
fn exercise_23_2_a_file_name_that_is_cut_keeps_its_ending() {
    let long = format!("{}.jpeg", "x".repeat(200));
    assert_eq!(clean_file_name(&long, 100), format!("{}.jpeg", "x".repeat(95)));
    let euros = format!("{}.txt", "€".repeat(30));
    assert_eq!(clean_file_name(&euros, 20), "€€€€€.txt", "no half character");
    // What follows the last dot may be longer than all there is room for.
    let all_ending = format!("a.{}", "x".repeat(200));
    assert_eq!(clean_file_name(&all_ending, 100).len(), 100);
    assert_eq!(clean_file_name(&"x".repeat(200), 100), "x".repeat(100));
}

#[test]
#[ignore = "exercise 23.4"]
fn exercise_23_4_a_boundary_holds_only_the_characters_of_the_rfc() {
    let content_type = |c: char| format!("multipart/form-data; boundary=\"a{c}b\"");
    for c in ' '..='~' {
        let allowed = c.is_ascii_alphanumeric() || " '()+_,-./:=?".contains(c);
        let parser = MultipartParser::new(content_type(c).as_bytes(), MultipartLimits::default());
        assert_eq!(parser.is_ok(), allowed, "{c:?}");
    }
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
