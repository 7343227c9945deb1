//! Chapter 25: static files.

mod support;

use glasshouse::http::date::HttpDate;
use glasshouse::http::headers::{FieldValue, Headers, Token};
use glasshouse::http::request::{HeadLimits, HeadParser, Parse, RequestHead};
use glasshouse::http::response::{Body, Response, ResponseError, ResponseWriter};
use glasshouse::http::url::decoded_path;
use glasshouse::web::files::{
    Coding, Decision, Facts, FileError, Found, StaticFiles, decide, relative_path,
};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::mutator::Mutator;

// Requests, facts and files to test with.

fn request(start: &str, fields: &[&str]) -> RequestHead {
    let fields: String = fields.iter().map(|line| format!("{line}\r\n")).collect();
    let text = format!("{start} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    match HeadParser::new(HeadLimits::default()).advance(text.as_bytes()) {
        Ok(Parse::Complete { value, .. }) => value,
        other => panic!("{text}: {other:?}"),
    }
}

fn get(fields: &[&str]) -> RequestHead {
    request("GET /static/a.txt", fields)
}

/// The moment that RFC 9110 takes for its examples: Sun, 06 Nov 1994 08:49:37 GMT.
const WRITTEN: u64 = 784_111_777;
const TAG: &str = "\"3e8-ae1b981c3a4d715\"";

/// A file of 1,000 bytes, written in the middle of that second.
fn facts() -> Facts {
    Facts {
        size: 1000,
        modified: UNIX_EPOCH + Duration::new(WRITTEN, 123_456_789),
        content_type: "text/plain; charset=utf-8",
        coding: Coding::Plain,
    }
}

fn at(seconds: u64) -> HttpDate {
    HttpDate::from(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn now() -> HttpDate {
    at(WRITTEN + 60)
}

fn decision(fields: &[&str]) -> Decision {
    decide(&get(fields), &facts(), now())
}

#[track_caller]
fn check(fields: &[&str], want: Decision) {
    assert_eq!(decision(fields), want, "{fields:?}");
}

fn headers_of(decision: Decision, facts: &Facts) -> String {
    let headers = decision.headers(facts, now(), FieldValue::constant("no-cache"));
    names(&headers)
}

fn names(headers: &Headers) -> String {
    let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    names.join(" ")
}

fn field(response: &Response, name: &'static str) -> String {
    let value = response.headers.get(Token::constant(name));
    let value = value.map(|value| value.as_str().expect("text").to_string());
    value.unwrap_or_default()
}

/// The folder `www` in a folder of its own, removed at the end of the test.
struct Folder {
    outside: PathBuf,
    root: PathBuf,
}

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("glasshouse files {} {count}", std::process::id());
        let outside = std::env::temp_dir().join(name);
        let root = outside.join("www");
        fs::create_dir_all(&root).expect("a temporary folder");
        Folder { outside, root }
    }

    fn with(self, name: &str, content: impl AsRef<[u8]>) -> Folder {
        let place = self.root.join(name);
        fs::create_dir_all(place.parent().expect("a folder above")).expect("a folder");
        fs::write(place, content).expect("a file");
        self
    }

    fn files(&self) -> StaticFiles {
        StaticFiles::new(&self.root).expect("the folder is there")
    }

    fn get(&self, path: &str, fields: &[&str]) -> Response {
        let target = path.replace(' ', "%20").replace('é', "%C3%A9");
        self.files().respond(&request(&format!("GET /static/{target}"), fields), path)
    }

    fn error(&self, path: &str) -> FileError {
        let as_folder = path.ends_with('/');
        match self.files().find(path, as_folder, false) {
            Err(error) => error,
            Ok(_) => panic!("{path} was found"),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.outside);
    }
}

fn content(response: Response) -> Vec<u8> {
    match response.body {
        Body::Whole(bytes) => bytes.into_owned(),
        Body::Stream { mut source, .. } => {
            let mut bytes = Vec::new();
            source.read_to_end(&mut bytes).expect("a readable file");
            bytes
        }
    }
}

fn send(head: &RequestHead, response: Response) -> (String, Result<(), ResponseError>) {
    let mut out = Vec::new();
    let result = response.send(&mut ResponseWriter::new(head, true), &mut out);
    (String::from_utf8_lossy(&out).into_owned(), result)
}

fn set_modified(place: &Path, time: SystemTime) {
    let file = OpenOptions::new().write(true).open(place).expect("a file");
    file.set_modified(time).expect("a new time");
}

#[cfg(unix)]
fn link(to: impl AsRef<Path>, place: impl AsRef<Path>) {
    std::os::unix::fs::symlink(to, place).expect("a link");
}

#[cfg(unix)]
fn make_fifo(place: &Path) {
    let status = std::process::Command::new("mkfifo").arg(place).status();
    assert!(status.expect("mkfifo runs").success());
}

// Which file.

#[test]
fn a_plain_path_stays_what_it_is() {
    for path in ["a", "a/b.txt", "a b/é.txt", "a..b/c.", "C:", "....".trim_start_matches('.')] {
        assert_eq!(relative_path(path), Ok(PathBuf::from(path)), "{path}");
    }
    assert_eq!(relative_path("a/b/"), Ok(PathBuf::from("a/b")));
}

#[test]
fn no_path_leads_up() {
    use FileError::*;
    let cases = [
        ("..", Hidden),
        ("../a", Hidden),
        ("a/../b", Hidden),
        ("a/..", Hidden),
        ("a/./b", Hidden),
        (".", Hidden),
        ("....//etc", Hidden),
        ("..;/etc", Hidden),
        (".git/config", Hidden),
        ("a/.htpasswd", Hidden),
        ("/", EmptySegment),
        ("//", EmptySegment),
        ("/etc/passwd", EmptySegment),
        ("a//b", EmptySegment),
        ("a//", EmptySegment),
        ("a\\..\\b", ForbiddenByte),
        ("\\etc", ForbiddenByte),
        ("a.txt\0.html", ForbiddenByte),
    ];
    for (path, error) in cases {
        assert_eq!(relative_path(path), Err(error), "{path}");
    }
}

#[test]
fn every_spelling_of_the_way_to_the_passwords_is_404() {
    let folder = Folder::new().with("a.txt", "a");
    fs::write(folder.outside.join("passwd"), "secret").expect("a file outside");
    let spellings = [
        "../passwd",
        "%2e%2e/passwd",
        "..%2fpasswd",
        "%2e%2e%2fpasswd",
        "..%5cpasswd",
        "..%255cpasswd",
        "%252e%252e%252fpasswd",
        "/passwd",
        "%2fpasswd",
        "....//passwd",
        "..;/passwd",
        "./../passwd",
        "a.txt/../../passwd",
        "..\\passwd",
        "file:///passwd",
        "C:/passwd",
        "passwd",
    ];
    for spelling in spellings {
        let path = decoded_path(spelling).expect("valid coding");
        let head = request(&format!("GET /static/{spelling}"), &[]);
        let response = folder.files().respond(&head, &path);
        assert_eq!(response.status.code(), 404, "{spelling}");
    }
}

#[test]
fn a_refusal_does_not_say_why() {
    let folder = Folder::new().with(".secret", "x").with("docs/a", "");
    let head = get(&[]);
    let mut answers = Vec::new();
    for path in [".secret", "nothing", "docs/", "docs/a/", "..", "a\\b"] {
        let (text, result) = send(&head, folder.files().respond(&head, path));
        assert_eq!(result, Ok(()));
        let without_date = text.lines().filter(|line| !line.starts_with("Date:"));
        answers.push(without_date.collect::<Vec<_>>().join("\n"));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(answers[0].starts_with("HTTP/1.1 404 Not Found\n"));
    assert!(answers[0].ends_with("\n404 Not Found"));
}

#[test]
fn the_root_must_be_a_folder() {
    let folder = Folder::new().with("a.txt", "a");
    assert!(StaticFiles::new(&folder.root).is_ok());
    assert!(StaticFiles::new(folder.root.join("a.txt")).is_err());
    assert!(StaticFiles::new(folder.root.join("nothing")).is_err());
}

#[test]
#[cfg(unix)]
fn the_root_must_be_a_folder_that_may_be_entered() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new().with("a.txt", "a");
    let allow = |mode| fs::set_permissions(&folder.root, fs::Permissions::from_mode(mode));
    allow(0o600).expect("it is ours");
    if folder.root.join("a.txt").exists() {
        println!("skipped: root may enter every folder");
    } else {
        let error = StaticFiles::new(&folder.root).expect_err("it is closed");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
    allow(0o700).expect("it is ours");
}

#[test]
fn names_may_hold_spaces_and_letters_of_every_language() {
    let folder = Folder::new().with("a b/Grüße é.txt", "found");
    let response = folder.files().respond(&get(&[]), "a b/Grüße é.txt");
    assert_eq!(response.status.code(), 200);
    assert_eq!(content(response), b"found");
}

#[test]
fn a_name_of_300_letters_is_not_found_and_no_fault_of_ours() {
    let folder = Folder::new();
    assert_eq!(folder.error(&"a".repeat(300)), FileError::Missing);
    assert_eq!(folder.error(&"a/".repeat(4000)), FileError::Missing);
}

#[cfg(unix)]
#[test]
fn a_link_may_stay_inside_and_not_lead_out() {
    let folder = Folder::new().with("real/a.txt", "inside");
    fs::write(folder.outside.join("passwd"), "secret").expect("a file outside");
    link("real/a.txt", folder.root.join("near.txt"));
    link("../passwd", folder.root.join("far.txt"));
    link("/etc", folder.root.join("etc"));
    link("loop", folder.root.join("loop"));
    link("nothing", folder.root.join("dangling"));
    assert_eq!(content(folder.get("near.txt", &[])), b"inside");
    assert_eq!(folder.error("far.txt"), FileError::Outside);
    assert_eq!(folder.error("etc/passwd"), FileError::Outside);
    assert_eq!(folder.error("etc/"), FileError::Outside);
    assert_eq!(folder.error("loop"), FileError::Missing);
    assert_eq!(folder.error("dangling"), FileError::Missing);
}

#[cfg(unix)]
#[test]
fn a_link_into_a_folder_with_a_longer_name_is_refused() {
    let folder = Folder::new();
    fs::create_dir(folder.outside.join("www-private")).expect("a folder");
    fs::write(folder.outside.join("www-private/a.txt"), "secret").expect("a file");
    link("../www-private/a.txt", folder.root.join("a.txt"));
    assert_eq!(folder.error("a.txt"), FileError::Outside);
}

#[cfg(unix)]
#[test]
fn the_root_itself_may_be_a_link() {
    let folder = Folder::new().with("a.txt", "a");
    link("www", folder.outside.join("current"));
    let files = StaticFiles::new(folder.outside.join("current")).expect("a folder");
    assert_eq!(files.respond(&get(&[]), "a.txt").status.code(), 200);
}

/// What `work` returns, or a panic after ten seconds.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    let result = receiver.recv_timeout(Duration::from_secs(10));
    result.expect("an answer within ten seconds")
}

#[cfg(unix)]
#[test]
fn a_fifo_or_a_device_is_refused_without_waiting() {
    let folder = Folder::new();
    make_fifo(&folder.root.join("fifo"));
    let socket = std::os::unix::net::UnixListener::bind(folder.root.join("socket"));
    socket.expect("a socket");
    let files = folder.files();
    in_time(move || {
        for name in ["fifo", "socket"] {
            let found = files.find(name, false, false);
            assert_eq!(found.err(), Some(FileError::NotRegular), "{name}");
        }
        let devices = StaticFiles::new("/dev").expect("every Unix has /dev");
        let found = devices.find("null", false, false);
        assert_eq!(found.err(), Some(FileError::NotRegular));
    });
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
#[test]
fn a_fifo_that_takes_the_place_of_a_file_between_look_and_opening_does_not_block() {
    let folder = Folder::new().with("file", "a").with("x", "a");
    make_fifo(&folder.root.join("fifo"));
    let done = Arc::new(AtomicBool::new(false));
    let swapper = {
        let (root, done) = (folder.root.clone(), Arc::clone(&done));
        thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                for name in ["fifo", "file"] {
                    fs::hard_link(root.join(name), root.join("next")).expect("a second name");
                    fs::rename(root.join("next"), root.join("x")).expect("a new x");
                }
            }
        })
    };
    let files = folder.files();
    in_time(move || {
        let (mut served, mut refused) = (0, 0);
        while served < 1_000 || refused < 1_000 {
            match files.find("x", false, false) {
                Ok(Found::File(file, facts)) => {
                    assert!(file.metadata().expect("facts").is_file() && facts.size == 1);
                    served += 1;
                }
                Err(FileError::NotRegular) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
    });
    done.store(true, Ordering::Relaxed);
    swapper.join().expect("the other thread is fine");
}

#[cfg(unix)]
#[test]
fn a_file_that_we_may_not_read_is_not_found() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new().with("a.txt", "secret");
    let place = folder.root.join("a.txt");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o000)).expect("new permissions");
    if File::open(&place).is_ok() {
        return; // The administrator may read everything.
    }
    assert_eq!(folder.error("a.txt"), FileError::Missing);
}

#[test]
fn a_shortage_of_ours_is_not_called_not_found() {
    for number in [5, 12, 23, 24] {
        let error = io::Error::from_raw_os_error(number);
        assert_eq!(FileError::from(error), FileError::Failed, "{number}");
    }
    let missing = io::Error::from(io::ErrorKind::NotFound);
    assert_eq!(FileError::from(missing), FileError::Missing);
    assert_eq!(FileError::Failed.response().status.code(), 503);
}

#[test]
fn a_folder_is_sent_to_its_slash_and_then_shows_its_index() {
    let folder = Folder::new().with("docs/index.html", "<p>").with("index.html", "<h1>");
    let response = folder.get("docs", &[]);
    assert_eq!(response.status.code(), 301);
    assert_eq!(field(&response, "Location"), "./docs/");
    let response = folder.get("docs/", &[]);
    assert_eq!(field(&response, "Content-Type"), "text/html; charset=utf-8");
    assert_eq!(content(response), b"<p>");
    assert_eq!(content(folder.get("", &[])), b"<h1>");
    let root = folder.files().respond(&request("GET /static", &[]), "");
    assert_eq!(field(&root, "Location"), "./static/");
}

#[test]
fn a_redirect_keeps_the_query_and_stays_on_this_host() {
    let folder = Folder::new().with("docs/index.html", "").with("a b/x", "");
    let location = |target: &str, path: &str| {
        let head = request(&format!("GET {target}"), &[]);
        field(&folder.files().respond(&head, path), "Location")
    };
    assert_eq!(location("/docs?a=1&b=%20", "docs"), "./docs/?a=1&b=%20");
    assert_eq!(location("/a%20b", "a b"), "./a%20b/");
    assert_eq!(location("//evil.example/docs", "docs"), "./docs/");
    assert_eq!(location("//docs", "docs"), "./docs/");
    assert_eq!(location("http://evil.example/docs", "docs"), "./docs/");
}

#[test]
fn a_folder_without_an_index_is_not_listed() {
    let folder = Folder::new().with("docs/a.txt", "").with("odd/index.html/x", "");
    assert_eq!(folder.get("docs/", &[]).status.code(), 404);
    assert_eq!(folder.error("odd/"), FileError::NotRegular);
    assert_eq!(folder.error("docs/a.txt/"), FileError::Missing);
}

// What answer.

#[test]
fn an_etag_changes_with_each_fact() {
    assert_eq!(facts().etag(), TAG);
    let longer = Facts { size: 1001, ..facts() };
    let modified = facts().modified + Duration::from_nanos(1);
    let later = Facts { modified, ..facts() };
    let packed = Facts { coding: Coding::Gzip, ..facts() };
    for other in [longer, later, packed] {
        assert_ne!(other.etag(), TAG);
    }
    let ancient = Facts { modified: UNIX_EPOCH - Duration::from_secs(1), ..facts() };
    assert_eq!(ancient.etag(), "\"3e8-0\"");
}

#[test]
fn without_conditions_all_is_sent() {
    check(&[], Decision::Whole);
    let fields =
        "ETag Cache-Control Last-Modified Content-Type X-Content-Type-Options Accept-Ranges";
    assert_eq!(headers_of(Decision::Whole, &facts()), fields);
}

#[test]
fn a_file_from_the_future_was_modified_now() {
    let modified = UNIX_EPOCH + Duration::from_secs(WRITTEN + 1000);
    let facts = Facts { modified, ..facts() };
    let headers = Decision::Whole.headers(&facts, now(), FieldValue::constant("no-cache"));
    let value = headers.get(Token::constant("Last-Modified")).expect("a date");
    assert_eq!(value.as_str(), Some("Sun, 06 Nov 1994 08:50:37 GMT"));
}

#[test]
fn if_match_wants_the_same_bytes() {
    let fails = Decision::PreconditionFailed;
    check(&[&format!("If-Match: {TAG}")], Decision::Whole);
    check(&["If-Match: *"], Decision::Whole);
    check(&[&format!("If-Match: \"a\", {TAG}")], Decision::Whole);
    check(&[&format!("If-Match: \"a,b\",,\t{TAG} ,")], Decision::Whole);
    check(&["If-Match: \"a\"", &format!("If-Match: {TAG}")], Decision::Whole);
    check(&["If-Match: \"a\""], fails);
    check(&[&format!("If-Match: W/{TAG}")], fails);
    check(&["If-Match:"], fails);
    check(&["If-Match: garbage"], fails);
    check(&["If-Match: \"*\""], fails);
    // A tag inside a tag is no tag.
    check(&[&format!("If-Match: \"a{}", &TAG[1..])], fails);
}

#[test]
fn if_unmodified_since_counts_without_if_match_only() {
    let fails = Decision::PreconditionFailed;
    check(&["If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT"], Decision::Whole);
    check(&["If-Unmodified-Since: Sunday, 06-Nov-94 08:49:36 GMT"], fails);
    check(&["If-Unmodified-Since: yesterday"], Decision::Whole);
    let both = ["If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT", "If-Match: *"];
    check(&both, Decision::Whole);
    let twice = ["If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT"; 2];
    check(&twice, Decision::Whole);
}

#[test]
fn if_none_match_is_satisfied_with_similar_bytes() {
    let has_it = Decision::NotModified;
    check(&[&format!("If-None-Match: {TAG}")], has_it);
    check(&[&format!("If-None-Match: W/{TAG}")], has_it);
    check(&["If-None-Match: *"], has_it);
    check(&[&format!("If-None-Match: \"a\",W/\"b\" , {TAG}")], has_it);
    check(&["If-None-Match: \"a\"", &format!("If-None-Match: {TAG}")], has_it);
    check(&["If-None-Match: \"a\", \"b\""], Decision::Whole);
    check(&["If-None-Match: *, \"a\""], Decision::Whole);
    check(&[&format!("If-None-Match: w/{TAG}")], Decision::Whole);
    check(&[&format!("If-None-Match: {}", TAG.trim_matches('"'))], Decision::Whole);
}

#[test]
fn if_modified_since_counts_without_if_none_match_only() {
    let same = "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT";
    check(&[same], Decision::NotModified);
    check(&["If-Modified-Since: Mon, 07 Nov 1994 08:49:37 GMT"], Decision::NotModified);
    check(&["If-Modified-Since: Sun Nov  6 08:49:36 1994"], Decision::Whole);
    check(&["If-Modified-Since: yesterday"], Decision::Whole);
    check(&[same, same], Decision::Whole);
    check(&[same, "If-None-Match: \"a\""], Decision::Whole);
    check(&[same, "If-None-Match: garbage"], Decision::Whole);
}

#[test]
fn conditions_are_asked_in_their_order() {
    let missed = "If-Match: \"a\"";
    let has_it = "If-None-Match: *";
    let part = "Range: bytes=0-0";
    check(&[part, has_it, missed], Decision::PreconditionFailed);
    check(&[part, has_it, "If-Match: *"], Decision::NotModified);
    check(&["Range: bytes=5000-", has_it], Decision::NotModified);
    check(&[part, "If-None-Match: \"a\""], Decision::Part { first: 0, last: 0 });
}

#[test]
fn a_304_has_the_fields_for_the_cache_and_no_others() {
    let has_it = Decision::NotModified;
    assert_eq!(headers_of(has_it, &facts()), "ETag Cache-Control");
    let of_two = Facts { coding: Coding::PlainOfTwo, ..facts() };
    assert_eq!(headers_of(has_it, &of_two), "ETag Cache-Control Vary");
    assert_eq!(headers_of(Decision::PreconditionFailed, &facts()), "");
}

/// Range, size of the file, first and last byte of the part.
const PARTS: &[(&str, u64, u64, u64)] = &[
    ("bytes=0-0", 1000, 0, 0),
    ("bytes=0-499", 1000, 0, 499),
    ("bytes=500-", 1000, 500, 999),
    ("bytes=-1", 1000, 999, 999),
    ("bytes=-1000", 1000, 0, 999),
    ("bytes=-5000", 1000, 0, 999),
    ("bytes=999-5000", 1000, 999, 999),
    ("bytes=0-99999999999999999999999", 1000, 0, 999),
    ("bytes=-99999999999999999999999", 1000, 0, 999),
    ("BYTES=0000-0001", 1000, 0, 1),
    ("bytes=0-", 1, 0, 0),
    ("bytes=5-6", u64::MAX, 5, 6),
    ("bytes=-1", u64::MAX, u64::MAX - 1, u64::MAX - 1),
];

#[test]
fn one_range_is_one_part() {
    for &(range, size, first, last) in PARTS {
        let facts = Facts { size, ..facts() };
        let got = decide(&get(&[&format!("Range: {range}")]), &facts, now());
        assert_eq!(got, Decision::Part { first, last }, "{range}");
        let headers = got.headers(&facts, now(), FieldValue::constant("no-cache"));
        let value = headers.get(Token::constant("Content-Range")).expect("it is there");
        let want = format!("bytes {first}-{last}/{size}");
        assert_eq!(value.as_str(), Some(want.as_str()));
    }
}

#[test]
fn a_range_behind_the_end_is_416_and_tells_the_size() {
    let sizes = [("1000-", 1000), ("1000-1001", 1000), ("-0", 1000), ("0-", 0), ("0-0", 0)];
    for (range, size) in sizes {
        let facts = Facts { size, ..facts() };
        let got = decide(&get(&[&format!("Range: bytes={range}")]), &facts, now());
        assert_eq!(got, Decision::Unsatisfiable, "{range}");
        assert_eq!(headers_of(got, &facts), "Content-Range");
    }
    check(&["Range: bytes=99999999999999999999999-"], Decision::Unsatisfiable);
}

#[test]
fn a_range_that_is_malformed_or_manifold_is_ignored() {
    let ignored = [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-4",
        "bytes=+1-2",
        "bytes=1-+2",
        "bytes=--1",
        "bytes=1-2-3",
        "bytes 0-1",
        "bytes=0x0-1",
        "bytes=0 -1",
        "bytes==0-1",
        "lines=0-1",
        "bytes=\u{661}-2",
        "bytes=0-1,3-4",
        "bytes=0-,0-,0-",
        "bytes=0-1,",
        "bytes=1.0-2",
    ];
    for range in ignored {
        check(&[&format!("Range: {range}")], Decision::Whole);
    }
    check(&["Range: bytes=0-1", "Range: bytes=0-1"], Decision::Whole);
    let empty = Facts { size: 0, ..facts() };
    let suffix = decide(&get(&["Range: bytes=-5"]), &empty, now());
    assert_eq!(suffix, Decision::Whole);
}

#[test]
fn a_range_cut_at_any_offset_is_a_range_or_is_ignored() {
    let range = "bytes=12-345";
    for end in 0..=range.len() {
        let want = match &range[..end] {
            "bytes=12-" => Decision::Part { first: 12, last: 999 },
            "bytes=12-34" => Decision::Part { first: 12, last: 34 },
            "bytes=12-345" => Decision::Part { first: 12, last: 345 },
            _ => Decision::Whole,
        };
        check(&[&format!("Range: {}", &range[..end])], want);
    }
}

#[test]
fn range_is_for_get_only() {
    let head = request("HEAD /a", &["Range: bytes=0-1"]);
    assert_eq!(decide(&head, &facts(), now()), Decision::Whole);
    let head = request("HEAD /a", &["Range: bytes=0-1", "If-None-Match: *"]);
    assert_eq!(decide(&head, &facts(), now()), Decision::NotModified);
}

#[test]
fn if_range_gives_the_part_of_the_same_file_only() {
    let part = Decision::Part { first: 0, last: 1 };
    let ask = |value: &str| decision(&["Range: bytes=0-1", &format!("If-Range: {value}")]);
    assert_eq!(ask(TAG), part);
    assert_eq!(ask("Sun, 06 Nov 1994 08:49:37 GMT"), part);
    let others = [
        "\"a\"",
        &format!("W/{TAG}"),
        &format!("{TAG}, {TAG}"),
        "*",
        "",
        "Sun, 06 Nov 1994 08:49:36 GMT",
        "Sun, 06 Nov 1994 08:49:38 GMT",
        "garbage",
    ];
    for value in others {
        assert_eq!(ask(value), Decision::Whole, "{value}");
    }
    // Out of range, but of another file: all of the new one.
    check(&["Range: bytes=5000-", "If-Range: \"a\""], Decision::Whole);
}

#[test]
fn a_date_proves_nothing_while_its_second_lasts() {
    let fields = ["Range: bytes=0-1", "If-Range: Sun, 06 Nov 1994 08:49:37 GMT"];
    let part = Decision::Part { first: 0, last: 1 };
    assert_eq!(decide(&get(&fields), &facts(), at(WRITTEN)), Decision::Whole);
    assert_eq!(decide(&get(&fields), &facts(), at(WRITTEN + 1)), part);
}

// Both together.

#[test]
fn a_file_is_answered_like_this() {
    let folder = Folder::new().with("a.txt", "hello, world\n");
    set_modified(&folder.root.join("a.txt"), facts().modified);
    let head = get(&["Range: bytes=7-11"]);
    let mut response = folder.files().respond(&head, "a.txt");
    response.headers.push(Token::constant("Date"), FieldValue::constant("now"));
    let (text, result) = send(&head, response);
    assert_eq!(result, Ok(()));
    let want = "HTTP/1.1 206 Partial Content\r\n\
                ETag: \"d-ae1b981c3a4d715\"\r\n\
                Cache-Control: no-cache\r\n\
                Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                Content-Type: text/plain; charset=utf-8\r\n\
                X-Content-Type-Options: nosniff\r\n\
                Accept-Ranges: bytes\r\n\
                Content-Range: bytes 7-11/13\r\n\
                Date: now\r\n\
                Server: glasshouse\r\n\
                Content-Length: 5\r\n\
                \r\n\
                world";
    support::bytes::eq_bytes(want.as_bytes(), text.as_bytes());
}

#[test]
fn every_method_but_get_and_head_is_405() {
    let folder = Folder::new().with("a.txt", "a");
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get", "PROPFIND"] {
        let head = request(&format!("{method} /static/a.txt"), &["Range: bytes=0-0"]);
        let response = folder.files().respond(&head, "a.txt");
        assert_eq!(response.status.code(), 405, "{method}");
        assert_eq!(field(&response, "Allow"), "GET, HEAD");
    }
}

#[test]
fn head_has_the_fields_of_get_and_no_body() {
    for size in [0, 1, 100_000] {
        let folder = Folder::new().with("a.txt", vec![b'x'; size]);
        let answer = |method: &str| {
            let head = request(&format!("{method} /static/a.txt"), &[]);
            let mut response = folder.files().respond(&head, "a.txt");
            response.headers.push(Token::constant("Date"), FieldValue::constant("now"));
            send(&head, response).0
        };
        let (get, head) = (answer("GET"), answer("HEAD"));
        assert_eq!(get[..get.len() - size], head, "{size}");
        assert!(head.contains(&format!("Content-Length: {size}\r\n")), "{head}");
    }
}

#[test]
fn each_part_of_a_file_is_the_part_that_was_asked() {
    let mut bytes = Vec::new();
    while bytes.len() < 200_000 {
        bytes.extend_from_slice(format!("{} ", bytes.len()).as_bytes());
    }
    let folder = Folder::new().with("a.bin", &bytes);
    let end = bytes.len() - 1;
    let parts =
        [(0, end), (0, 0), (end, end), (65_535, 65_536), (1, 65_536), (1, 65_537), (7, end)];
    for (first, last) in parts {
        let response = folder.get("a.bin", &[&format!("Range: bytes={first}-{last}")]);
        assert_eq!(response.status.code(), 206);
        assert!(content(response) == bytes[first..=last], "{first}-{last}");
    }
    assert!(content(folder.get("a.bin", &[])) == bytes);
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_is_no_whole_answer() {
    let folder = Folder::new().with("a.bin", vec![b'x'; 100_000]);
    let head = get(&[]);
    let response = folder.files().respond(&head, "a.bin");
    let file = OpenOptions::new().write(true).open(folder.root.join("a.bin"));
    file.expect("the file").set_len(70_000).expect("shorter");
    let (_, result) = send(&head, response);
    assert_eq!(result, Err(ResponseError::TooShort(30_000)));
}

#[test]
fn a_file_that_grows_while_it_is_sent_gives_what_was_announced() {
    let folder = Folder::new().with("a.bin", vec![b'x'; 100_000]);
    let head = get(&[]);
    let response = folder.files().respond(&head, "a.bin");
    let file = OpenOptions::new().append(true).open(folder.root.join("a.bin"));
    file.expect("the file").write_all(b"more").expect("longer");
    let (text, result) = send(&head, response);
    assert_eq!(result, Ok(()));
    assert!(text.ends_with("xxx") && text.contains("Content-Length: 100000\r\n"));
}

#[test]
fn a_file_that_is_replaced_while_it_is_sent_is_sent_as_it_was() {
    let folder = Folder::new().with("a.bin", vec![b'x'; 100_000]).with("b", "new");
    let response = folder.get("a.bin", &[]);
    fs::rename(folder.root.join("b"), folder.root.join("a.bin")).expect("replaced");
    assert!(content(response) == vec![b'x'; 100_000]);
    assert_eq!(content(folder.get("a.bin", &[])), b"new");
}

#[test]
fn a_changed_file_is_sent_again() {
    let folder = Folder::new().with("a.txt", "old");
    let tag = field(&folder.get("a.txt", &[]), "ETag");
    let condition = format!("If-None-Match: {tag}");
    let unchanged = folder.get("a.txt", &[&condition]);
    assert_eq!(unchanged.status.code(), 304);
    assert_eq!(field(&unchanged, "ETag"), tag);
    let folder = folder.with("a.txt", "new");
    set_modified(&folder.root.join("a.txt"), facts().modified);
    let changed = folder.get("a.txt", &[&condition]);
    assert_eq!(content(changed), b"new");
}

#[test]
fn the_type_follows_the_name_and_is_not_guessed() {
    let cases = [
        ("a.html", "text/html; charset=utf-8"),
        ("a.CSS", "text/css; charset=utf-8"),
        ("a.min.js", "text/javascript; charset=utf-8"),
        ("a.svg", "image/svg+xml"),
        ("a.jpeg", "image/jpeg"),
        ("a.html.unknown", "application/octet-stream"),
        ("html", "application/octet-stream"),
        ("a.", "application/octet-stream"),
    ];
    for (name, content_type) in cases {
        let response = Folder::new().with(name, "<p>").get(name, &[]);
        assert_eq!(field(&response, "Content-Type"), content_type, "{name}");
        assert_eq!(field(&response, "X-Content-Type-Options"), "nosniff");
    }
}

#[test]
fn the_cache_rule_can_be_chosen() {
    let folder = Folder::new().with("a.css", "");
    assert_eq!(field(&folder.get("a.css", &[]), "Cache-Control"), "no-cache");
    let files = folder.files().cache_control(FieldValue::constant("max-age=60"));
    let response = files.respond(&get(&[]), "a.css");
    assert_eq!(field(&response, "Cache-Control"), "max-age=60");
}

/// A text and its compressed form, as far as this chapter can tell.
fn two_forms() -> Folder {
    Folder::new().with("a.css", "plain").with("a.css.gz", "packed")
}

#[test]
fn a_compressed_form_is_sent_to_those_who_read_it() {
    let folder = two_forms();
    let packed = folder.get("a.css", &["Accept-Encoding: br, GZIP;q=0.8"]);
    assert_eq!(field(&packed, "Content-Encoding"), "gzip");
    assert_eq!(field(&packed, "Vary"), "Accept-Encoding");
    assert_eq!(field(&packed, "Content-Type"), "text/css; charset=utf-8");
    let plain = folder.get("a.css", &[]);
    assert_eq!(field(&plain, "Content-Encoding"), "");
    assert_eq!(field(&plain, "Vary"), "Accept-Encoding");
    assert_ne!(field(&plain, "ETag"), field(&packed, "ETag"));
    assert_eq!(content(packed), b"packed");
    assert_eq!(content(plain), b"plain");
    let archive = folder.get("a.css.gz", &["Accept-Encoding: gzip"]);
    assert_eq!(field(&archive, "Content-Type"), "application/gzip");
    assert_eq!(field(&archive, "Content-Encoding") + &field(&archive, "Vary"), "");
}

#[test]
fn a_coding_with_the_weight_0_is_not_accepted() {
    let folder = two_forms();
    for refused in ["gzip;q=0", "gzip ; Q=0.000", "br", "identity", "", "gzipped", "gzip;q=0, br"] {
        let response = folder.get("a.css", &[&format!("Accept-Encoding: {refused}")]);
        assert_eq!(content(response), b"plain", "{refused}");
    }
    for accepted in ["gzip", "br , gzip;q=0.001", "gzip;q=1.0"] {
        let response = folder.get("a.css", &[&format!("Accept-Encoding: {accepted}")]);
        assert_eq!(content(response), b"packed", "{accepted}");
    }
}

#[test]
fn a_compressed_form_that_is_older_is_not_sent() {
    let folder = two_forms();
    set_modified(&folder.root.join("a.css.gz"), facts().modified);
    let response = folder.get("a.css", &["Accept-Encoding: gzip"]);
    assert_eq!(field(&response, "Vary"), "");
    assert_eq!(content(response), b"plain");
}

#[cfg(unix)]
#[test]
fn a_compressed_form_that_is_a_link_is_not_followed() {
    let folder = Folder::new().with("a.css", "plain");
    fs::write(folder.outside.join("secret"), "secret").expect("a file outside");
    link("../secret", folder.root.join("a.css.gz"));
    let response = folder.get("a.css", &["Accept-Encoding: gzip"]);
    assert_eq!(content(response), b"plain");
}

// Noise.

#[test]
fn a_hundred_thousand_broken_paths_lead_nowhere_else() {
    let folder = Folder::new().with("docs/a b.txt", "inside").with("index.html", "inside");
    fs::write(folder.outside.join("passwd"), "secret").expect("a file outside");
    let files = folder.files();
    let seeds =
        ["docs/a b.txt", "../passwd", "docs/../../passwd", "docs/%2e%2e/passwd", "docs/", ""];
    let mut mutator = Mutator::new(22);
    let mut found = 0;
    for round in 0..100_000 {
        let mutant = mutator.mutate(seeds[round % seeds.len()].as_bytes());
        let text = String::from_utf8_lossy(&mutant);
        let path = decoded_path(&text).unwrap_or(text.into_owned());
        if let Ok(relative) = relative_path(&path) {
            let climbs = |part: &str| part.starts_with('.') || part.is_empty();
            let relative = relative.to_str().expect("text");
            assert!(!relative.contains(['\\', '\0']), "{path:?}");
            assert!(relative.is_empty() || !relative.split('/').any(climbs), "{path:?}");
        }
        let response = files.respond(&get(&[]), &path);
        match response.status.code() {
            200 => {
                found += 1;
                assert_eq!(content(response), b"inside", "{path:?}");
            }
            301 => assert!(field(&response, "Location").starts_with("./"), "{path:?}"),
            404 => {}
            other => panic!("{path:?}: {other}"),
        }
    }
    assert!(found > 100, "{found}");
}

#[test]
fn a_hundred_thousand_broken_conditions_break_nothing() {
    let seeds = [
        ("Range", "bytes=12-345"),
        ("Range", "bytes=-500"),
        ("If-Range", TAG),
        ("If-Range", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("If-Match", "\"a\", W/\"b\", \"3e8-ae1b981c3a4d715\""),
        ("If-None-Match", "\"a,b\",W/\"3e8-ae1b981c3a4d715\""),
        ("If-Modified-Since", "Sunday, 06-Nov-94 08:49:37 GMT"),
        ("If-Unmodified-Since", "Sun Nov  6 08:49:37 1994"),
    ];
    let mut mutator = Mutator::new(222);
    let mut counts = [0; 5];
    for round in 0..100_000 {
        let (name, value) = seeds[round % seeds.len()];
        let mut head = get(&[]);
        let mutant = mutator.mutate(value.as_bytes());
        let Ok(value) = FieldValue::new(&mutant) else {
            continue;
        };
        head.headers.push(Token::new(name.as_bytes()).expect("a name"), value);
        if name == "If-Range" {
            head.headers.push(Token::constant("Range"), FieldValue::constant("bytes=0-9"));
        }
        let size = mutator.below(600) as u64;
        let facts = Facts { size: [size, 1000][round % 2], ..facts() };
        let decision = decide(&head, &facts, now());
        if let Decision::Part { first, last } = decision {
            assert!(first <= last && last < facts.size, "{value:?}");
        }
        let headers = decision.headers(&facts, now(), FieldValue::constant("no-cache"));
        let has_range = headers.contains(Token::constant("Content-Range"));
        assert_eq!(has_range, matches!(decision.status().code(), 206 | 416));
        counts[[200, 206, 304, 412, 416]
            .iter()
            .position(|c| *c == decision.status().code())
            .expect("known")] += 1;
    }
    assert!(counts.iter().all(|count| *count > 20), "{counts:?}");
}

#[test]
fn every_error_names_its_rule_in_a_sentence() {
    use FileError::*;
    for (error, section) in [
        (Method, "15.5.6"),
        (EmptySegment, "17.3"),
        (Hidden, "17.3"),
        (ForbiddenByte, "17.3"),
        (Outside, "17.3"),
        (NotRegular, "17.3"),
        (Missing, "15.5.5"),
        (Failed, "15.6.4"),
    ] {
        assert_eq!(error.rule(), format!("RFC 9110, section {section}"), "{error:?}");
        assert!(error.to_string().contains(' '), "{error:?}");
        let code = error.response().status.code();
        assert!([404, 405, 503].contains(&code), "{error:?}");
    }
}

#[test]
#[ignore = "exercise 25.2"]
fn exercise_25_2_one_name_with_a_dot_is_for_everybody() {
    let path = ".well-known/security.txt";
    assert_eq!(relative_path(path), Ok(PathBuf::from(path)));
    for path in [".well-known/.git", ".well-known-not/a", "..well-known", ".git"] {
        assert_eq!(relative_path(path), Err(FileError::Hidden), "{path}");
    }
}

#[test]
#[ignore = "exercise 25.4"]
fn exercise_25_4_the_old_name_of_gzip_is_accepted() {
    let response = two_forms().get("a.css", &["Accept-Encoding: x-gzip"]);
    assert_eq!(content(response), b"packed");
    let response = two_forms().get("a.css", &["Accept-Encoding: x-gzip;q=0"]);
    assert_eq!(content(response), b"plain");
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
