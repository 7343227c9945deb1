//! The site behind both gateways: the same answers, and pages that do what they say.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use glasshouse::site::contents::parts;
use glasshouse::site::figures::SECONDS;
use support::client::{Answer, Client, field};
use support::process::Process;
use support::server::{Server, port_in};
use support::watchdog::watchdog;

const WSGI: &str = env!("CARGO_BIN_EXE_wsgi");
const ASGI_HTTP: &str = env!("CARGO_BIN_EXE_asgi_http");
const BOTH: [&str; 2] = [WSGI, ASGI_HTTP];

const HTML: &str = "text/html; charset=utf-8";

#[track_caller]
fn ask(port: u16, method: &str, target: &str, fields: &[&str], body: &[u8]) -> Answer {
    let address = ([127, 0, 0, 1], port).into();
    let mut client = Client::connect(address);
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: example.org\r\n");
    for line in fields {
        head += &format!("{line}\r\n");
    }
    if !body.is_empty() {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    client.send([head.as_bytes(), b"\r\n", body].concat());
    let answer = client.answer_to(method);
    answer.unwrap_or_else(|| panic!("no answer to {method} {target}"))
}

#[track_caller]
fn get(server: &Server, target: &str) -> Answer {
    ask(server.port, "GET", target, &[], b"")
}

const FORM: &str = "Content-Type: application/x-www-form-urlencoded";
const MULTIPART: &str = "Content-Type: multipart/form-data; boundary=XX";
const JSON: &str = "Accept: application/json";

/// A form with these files (field, file name, content) and these fields (name, value).
fn multipart(files: &[(&str, &str, &[u8])], fields: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file, content) in files {
        let head = format!("name=\"{name}\"; filename=\"{file}\"\r\nContent-Type: text/plain");
        body.extend(format!("--XX\r\nContent-Disposition: form-data; {head}\r\n\r\n").as_bytes());
        body.extend([content, b"\r\n".as_slice()].concat());
    }
    for (name, value) in fields {
        let part = format!("form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend(format!("--XX\r\nContent-Disposition: {part}").as_bytes());
    }
    [&body, b"--XX--\r\n".as_slice()].concat()
}

/// A folder of the test's own, which ends with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("gh-test-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    fn text(&self) -> &str {
        self.0.to_str().expect("a path of text")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The names of what is in a folder, hidden ones too.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<String> =
        entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

// One site, two gateways.

type Request = (&'static str, &'static str, Vec<&'static str>, Vec<u8>);

fn without_body() -> Vec<Request> {
    let plain = |method, target| (method, target, vec![], vec![]);
    let with = |target, field| ("GET", target, vec![field], vec![]);
    let mut requests = Vec::new();
    for target in [
        "/",
        "/book/",
        "/book/7/",
        "/wire/",
        "/compare/",
        "/compare/?name=Ada&error=1",
        "/compare/html/",
        "/compare/stream/",
        "/compare/nothing/",
        "/trends/?still=1",
        "/websocket/",
        "/chat/",
        "/upload/",
        "/forms/",
        "/template/",
        "/template/?name=%3Cb%3E",
        "/routes/",
        "/html/?name=%3Cb%3E",
        "/json/?name=%22%3C",
        "/json/?error=1",
        "/healthz",
        "/bytes/0/",
        "/bytes/100000/",
        "/status/200/",
        "/status/204/",
        "/status/205/",
        "/status/304/",
        "/status/418/",
        "/status/599/",
        "/status/100/",
        "/sleep/0/",
        "/sleep/x/",
        "/panic/",
        "/static/style.css",
        "/static/icon.svg",
        "/favicon.ico",
        "/static/nothing",
        "/static/",
        "/static/../base.html",
        "/static/%2e%2e/base.html",
        "/nothing/",
        "//",
        "/%zz/",
        "/%ff",
        "/wire",
        "/sleep/1",
        "/forms?a=1",
        "/\\evil.example",
        "/?a=%ff&&=",
        "http://example.org/healthz",
    ] {
        requests.push(plain("GET", target));
    }
    for target in
        ["/", "/json/", "/bytes/9000000000000/", "/stream/", "/static/style.css", "/nothing/"]
    {
        requests.push(plain("HEAD", target));
    }
    for target in ["/", "/echo/", "/upload/", "/nothing/", "*"] {
        requests.push(plain("OPTIONS", target));
    }
    for (method, target) in [
        ("POST", "/"),
        ("PUT", "/upload/"),
        ("DELETE", "/healthz"),
        ("PATCH", "/echo/"),
        ("GET", "/echo/"),
        ("BREW", "/"),
        ("TRACE", "/"),
        ("get", "/"),
        ("POST", "/forms/"),
        ("POST", "/upload/"),
        ("GET", "/forms/cookie/"),
    ] {
        requests.push(plain(method, target));
    }
    requests.extend([
        with("/static/style.css", "Range: bytes=0-9"),
        with("/static/style.css", "Range: bytes=-10"),
        with("/static/style.css", "Range: bytes=9999999-"),
        with("/static/style.css", "If-None-Match: *"),
        with("/static/style.css", "If-Match: \"nothing\""),
        with("/static/style.css", "If-Modified-Since: Fri, 31 Dec 2100 23:59:59 GMT"),
        with("/forms/", "Cookie: drink=tea; other=\"<b>\"; broken"),
        with("/trends/", JSON),
        with("/wire/", "X-Mine: <b>&\""),
        with("/healthz", "Connection: close"),
    ]);
    requests
}

fn with_body() -> Vec<Request> {
    let upload =
        multipart(&[("a", "a.txt", b"one"), ("b", "../b<b>.txt", b"")], &[("n", "<b>&\"")]);
    let post = |target, field, body: &[u8]| ("POST", target, vec![field], body.to_vec());
    let mut as_json = post("/upload/", MULTIPART, &upload);
    as_json.2.push(JSON);
    vec![
        post("/echo/", "Content-Type: text/plain", b"\0\xff\r\n<b>"),
        ("PUT", "/echo/", vec![], vec![b'x'; 200_000]),
        post("/count/", "Content-Type: text/plain", &[b'x'; 300_000]),
        ("POST", "/echo/", vec!["Transfer-Encoding: gzip"], vec![]),
        post("/echo/", "Content-Type: a", b"a"),
        post("/forms/", FORM, b"name=Ada&words=%3Cb%3E&tag=a&tag=b&&=x"),
        post("/forms/", FORM, b""),
        post("/forms/", FORM, "a&".repeat(1_001).as_bytes()),
        post("/forms/", "Content-Type: text/plain", b"name=Ada"),
        post("/forms/cookie/", FORM, b"drink=tea"),
        post("/forms/cookie/", FORM, b"drink="),
        post("/forms/cookie/", FORM, b"drink=a%0d%0aSet-Cookie:+b=c"),
        post("/upload/", MULTIPART, &upload),
        as_json,
        post("/upload/", MULTIPART, &upload[..upload.len() - 20]),
        post("/upload/", MULTIPART, &multipart(&[], &[("only", "text")])),
        post("/upload/", "Content-Type: multipart/form-data", &upload),
        post("/compare/echo/", FORM, b"text=hello"),
        post("/healthz", FORM, b"a=b"),
    ]
}

/// What may differ: the time, and on some pages numbers of ports, of processes and of stored files.
fn comparable(target: &str, answer: &Answer) -> String {
    let lines = answer.head.split("\r\n").filter(|line| !line.starts_with("Server-Timing: "));
    let head: Vec<&str> = lines.collect();
    let text = format!("{}\n\n{}", head.join("\n"), answer.text());
    if !["/wire", "/compare", "/trends", "/upload"].iter().any(|start| target.starts_with(start)) {
        return text;
    }
    let mut out = String::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let digits = word.chars().any(|c| c.is_ascii_digit());
        let token = word.len() == 17 && word[..16].chars().all(|c| c.is_ascii_hexdigit());
        if digits || token {
            out.push('0');
            out += word.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
        } else {
            out += word;
        }
    }
    // Spans of time: 0.3 ms, 1 s.
    out.replace("0.0", "0").replace(" ms", " s").replace("0 s or more", "under 0 s")
}

#[test]
fn nobody_can_tell_from_the_answers_which_gateway_gave_them() {
    let _dog = watchdog(60, "both gateways");
    for flags in [&[][..], &["--debug"]] {
        let (wsgi, asgi) = (Server::start(WSGI, flags), Server::start(ASGI_HTTP, flags));
        let mut requests = without_body();
        requests.extend(with_body());
        assert!(requests.len() > 90, "{}", requests.len());
        for (method, target, fields, body) in &requests {
            let [one, other] = [&wsgi, &asgi].map(|server| {
                let answer = ask(server.port, method, target, fields, body);
                // Commands in the pages lead to this server.
                let own = format!("127.0.0.1:{}", server.port);
                comparable(target, &answer).replace(&own, "127.0.0.1:8000")
            });
            assert_eq!(one, other, "{method} {target} {fields:?} {flags:?}");
        }
    }
}

#[test]
fn every_page_is_whole_in_debug_mode_where_a_missing_name_is_an_error() {
    let _dog = watchdog(30, "--debug");
    let server = Server::start(WSGI, &["--debug"]);
    let routes = get(&server, "/routes/").text();
    let mut pages = 0;
    for line in routes.lines() {
        let Some((_, rest)) = line.split_once("<td><a href=\"") else { continue };
        let target = rest.split('"').next().expect("a link");
        if ["/stream/", "/panic/"].contains(&target) {
            continue;
        }
        let answer = get(&server, target);
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        assert!(!answer.text().contains("{{ ") || target == "/template/", "{target}");
        pages += usize::from(answer.says(&format!("Content-Type: {HTML}")));
    }
    assert_eq!(pages, 12);
    server.wait_for("Request took ");
}

#[test]
fn a_browser_that_asks_for_an_icon_gets_that_of_the_pages() {
    let _dog = watchdog(30, "/favicon.ico");
    let server = Server::start(WSGI, &[]);
    let icon = get(&server, "/favicon.ico");
    assert_eq!((icon.status, icon.text()), (200, get(&server, "/static/icon.svg").text()));
    assert!(icon.says("Content-Type: image/svg+xml"), "{}", icon.head);
}

#[test]
fn without_debug_mode_a_request_leaves_no_line() {
    let _dog = watchdog(30, "no lines");
    let server = Server::start(WSGI, &[]);
    let answer = get(&server, "/");
    assert!(
        field(&answer.head, "Server-Timing").is_some_and(|value| value.starts_with("app;dur="))
    );
    assert_eq!(server.lines().len(), 1, "{:?}", server.lines());
    assert!(!get(&server, "/nothing/").text().contains("These were tried"));
}

#[test]
fn every_answer_is_careful_and_every_page_has_a_policy() {
    let _dog = watchdog(30, "fields");
    let server = Server::start(ASGI_HTTP, &[]);
    for target in ["/", "/upload/", "/healthz", "/static/style.css", "/nothing/", "/panic/"] {
        let answer = get(&server, target);
        for line in ["X-Content-Type-Options: nosniff", "X-Frame-Options: DENY"] {
            assert!(answer.says(line), "{target}: {}", answer.head);
        }
        let policy = field(&answer.head, "Content-Security-Policy").unwrap_or_default();
        let is_page = answer.says(&format!("Content-Type: {HTML}"));
        assert_eq!(is_page, policy.starts_with("default-src 'self';"), "{target}");
        // What the policy forbids is not there either.
        let text = answer.text();
        let inline =
            text.contains("<style") || text.contains(" style=") || text.contains("<script>");
        assert!(!inline && !text.contains(" onclick="), "{target}");
    }
}

/// A name that would like to be more than a name.
const EVIL: &str = "<b>&\"'";
const EVIL_ENCODED: &str = "%3Cb%3E%26%22%27";

#[test]
fn no_page_shows_what_a_stranger_typed_as_html() {
    let _dog = watchdog(30, "escaping");
    let server = Server::start(WSGI, &["--debug"]);
    let query = format!("name={EVIL_ENCODED}&still={EVIL_ENCODED}&{EVIL_ENCODED}=1");
    let fields = [
        &format!("X-Evil: {EVIL}")[..],
        &format!("Cookie: {EVIL}={EVIL}; drink={EVIL}"),
        &format!("User-Agent: {EVIL}"),
    ];
    let mut pages = 0;
    for path in [
        "/",
        "/book/",
        "/book/7/",
        "/wire/",
        "/compare/",
        "/compare/html/",
        "/trends/",
        "/websocket/",
        "/chat/",
        "/upload/",
        "/forms/",
        "/template/",
        "/routes/",
        "/html/",
        "/nothing/",
        "/nothing/<b>&",
        "/status/<b>&/",
        "/sleep/<b>&/",
    ] {
        let answer = ask(server.port, "GET", &format!("{path}?{query}"), &fields, b"");
        let is_page = answer.says(&format!("Content-Type: {HTML}"));
        assert!(!is_page || !answer.text().contains("<b>&"), "{path}: {}", answer.text());
        pages += usize::from(is_page);
    }
    assert_eq!(pages, 14);
    let form = format!("{EVIL_ENCODED}={EVIL_ENCODED}");
    let upload = multipart(&[("<b>&", "<b>&.txt", b"<b>&")], &[("<b>&'", EVIL)]);
    for (target, kind, body) in [
        ("/forms/", FORM, form.as_bytes()),
        ("/compare/echo/", FORM, EVIL.as_bytes()),
        ("/upload/", MULTIPART, &upload),
    ] {
        let answer = ask(server.port, "POST", target, &[kind], body);
        assert_eq!((answer.status, answer.text().contains("<b>&")), (200, false), "{target}");
        assert!(answer.text().contains("&lt;b&gt;&amp;"), "{target}: {}", answer.text());
    }
}

// The pages.

#[test]
fn the_first_page_has_the_whole_table_of_contents() {
    let _dog = watchdog(30, "/");
    let contents = include_str!("../src/lib.rs");
    let chapters: Vec<_> = parts().into_iter().flat_map(|part| part.chapters).collect();
    assert_eq!(chapters.len(), contents.matches("; // chapter ").count());
    let page = get(&Server::start(WSGI, &[]), "/").text();
    for chapter in chapters {
        assert!(Path::new(&chapter.file).is_file(), "{}", chapter.file);
        assert!(!chapter.explains.is_empty(), "README.md says nothing about {}", chapter.file);
        assert!(page.contains(&format!("<code>{}</code>", chapter.file)), "{}", chapter.file);
    }
}

#[test]
fn a_request_is_compared_in_all_three_forms() {
    let _dog = watchdog(30, "/compare/");
    for program in BOTH {
        let server = Server::start(program, &[]);
        let page = get(&server, "/compare/?name=Ada").text().replace("&quot;", "\"");
        for words in [
            "GET /compare/?name=Ada HTTP/1.1\\r\\n",
            "Host: example.org\\r\\n",
            "HTTP/1.1 200 OK\\r\\n",
            "<code>QUERY_STRING</code> name=Ada",
            "<code>HTTP_HOST</code> example.org",
            "<code>start_response()</code> \"200 OK\", [(\"Content-Type\", \"application/json\")]",
            "<code>chunk</code> \"{\\\"greeting\\\": \\\"Hello, Ada!\\\"",
            "<code>close()</code>",
            "<code>query_string</code> b\"name=Ada\"",
            "http.response.start: status 200, headers [(\"Content-Type\", \"application/json\")]",
            "http.response.body: body \"{\\\"greeting\\\"",
            "The two answers are the same, byte by byte.",
        ] {
            assert!(page.contains(words), "{words}\nis not in\n{page}");
        }
        let port = server.port.to_string();
        assert!(page.contains(&format!("<code>SERVER_PORT</code> {port}")), "{page}");
    }
}

#[test]
fn a_body_is_compared_too_and_a_stream_stays_one() {
    let _dog = watchdog(30, "/compare/echo/");
    let server = Server::start(WSGI, &[]);
    let chunked = ["Transfer-Encoding: chunked", FORM];
    let mut client = Client::connect(server.address().parse().expect("an address"));
    let head =
        format!("POST /compare/echo/ HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", chunked.join("\r\n"));
    client.send(head + "2\r\nte\r\n8\r\nxt=hello\r\n0\r\n\r\n");
    let answer = client.answer().expect("an answer");
    let page = answer.text().replace("&quot;", "\"");
    assert!(page.contains("receive()</code> http.request: body \"text=hello\", more_body false"));
    assert!(page.contains("Content-Length: 10\\r\\n"), "{page}");
    let page = get(&server, "/compare/stream/").text();
    assert_eq!(page.matches("<code>chunk</code>").count(), 5);
    assert_eq!(page.matches("more_body true").count(), 5);
    assert!(page.contains("Transfer-Encoding: chunked\\r\\n"));
    let big = ask(server.port, "POST", "/compare/echo/", &[FORM], &[b'x'; 100_000]);
    assert_eq!((big.status, big.text().contains("more_body false")), (200, true));
}

#[test]
fn a_failed_request_of_a_script_is_answered_in_json() {
    let _dog = watchdog(30, "/json/");
    let server = Server::start(WSGI, &[]);
    let answer = get(&server, "/json/?name=Ada&error=1");
    assert_eq!(answer.status, 500);
    assert!(answer.says("Content-Type: application/json"));
    assert_eq!(answer.text(), "{\"error\": \"You asked for this.\", \"name\": \"Ada\"}");
    assert_eq!(get(&server, "/json/").text().matches("Hello, visitor!").count(), 1);
}

#[test]
fn a_cookie_is_set_shown_and_removed() {
    let _dog = watchdog(30, "/forms/");
    let server = Server::start(ASGI_HTTP, &[]);
    let set = ask(server.port, "POST", "/forms/cookie/", &[FORM], b"drink=tea");
    assert_eq!((set.status, field(&set.head, "Location")), (303, Some("/forms/")));
    let cookie = field(&set.head, "Set-Cookie").expect("a cookie");
    assert_eq!(cookie, "drink=tea; Path=/forms/; Max-Age=86400; HttpOnly; SameSite=Lax");
    let shown = ask(server.port, "GET", "/forms/", &["Cookie: drink=tea"], b"").text();
    assert!(shown.contains("you drink <strong>tea</strong>") && shown.contains("selected>tea"));
    let removed = ask(server.port, "POST", "/forms/cookie/", &[FORM], b"drink=");
    assert!(field(&removed.head, "Set-Cookie").is_some_and(|field| field.contains("1970")));
    assert!(get(&server, "/forms/").text().contains("remembers nothing"));
}

#[test]
fn the_template_page_shows_its_source_and_what_became_of_it() {
    let _dog = watchdog(30, "/template/");
    let page = get(&Server::start(WSGI, &[]), "/template/?name=Ada").text();
    assert!(page.contains("{{ name|upper }}") && page.contains("Hello, ADA!"), "{page}");
}

// Uploads.

#[test]
fn an_upload_is_kept_under_a_name_of_ours_and_told_about() {
    let _dog = watchdog(30, "/upload/");
    for (program, name) in [(WSGI, "kept-w"), (ASGI_HTTP, "kept-a")] {
        let folder = Folder::new(name);
        let server = Server::start(program, &["--uploads", folder.text()]);
        let content = [&b"\0\r\n--X"[..], &[b'x'; 300_000]].concat();
        let files = [("a", "../../evil.txt", &content[..]), ("b", "empty.txt", b"")];
        let body = multipart(&files, &[("note", "two\nlines")]);
        let answer = ask(server.port, "POST", "/upload/", &[MULTIPART, JSON], &body);
        assert_eq!((answer.status, field(&answer.head, "Vary")), (200, Some("Accept")));
        let text = answer.text();
        let kept: Vec<String> =
            names(&folder.0).into_iter().filter(|name| name != ".spool").collect();
        assert_eq!(kept.len(), 2, "{kept:?}");
        for name in &kept {
            assert!(
                name.starts_with("upload-") && text.contains(&format!("\"stored\": \"{name}\""))
            );
        }
        let read = |name: &String| fs::read(folder.0.join(name)).expect("a file");
        assert!(kept.iter().any(|name| read(name) == content));
        for words in [
            "\"name\": \"evil.txt\"",
            "\"size\": 300006",
            "\"type\": \"text/plain\"",
            "{\"field\": \"note\", \"size\": 9, \"value\": \"two\\nlines\"}",
        ] {
            assert!(text.contains(words), "{words}\nis not in\n{text}");
        }
        let page = get(&server, "/upload/").text();
        assert!(kept.iter().all(|name| page.contains(name)), "{page}");
        // Nothing is left of what was not whole, or not kept.
        let cut = ask(server.port, "POST", "/upload/", &[MULTIPART], &body[..1000]);
        assert_eq!(cut.status, 400);
        let spool = names(&folder.0.join(".spool"));
        assert!(spool.iter().all(|name| name.ends_with(".live")), "{spool:?}");
        assert_eq!(server.stop().0, Some(0));
        assert_eq!(names(&folder.0).len(), 3, "they outlive the server");
    }
}

#[test]
fn a_form_without_a_file_is_422_and_still_told_about() {
    let _dog = watchdog(30, "422");
    let server = Server::start(WSGI, &[]);
    assert!(get(&server, "/upload/").text().contains("A whole form may have 16 MiB ("));
    let body = multipart(&[("a", "", b"")], &[("note", "hello")]);
    let answer = ask(server.port, "POST", "/upload/", &[MULTIPART], &body);
    assert_eq!(answer.status, 422);
    assert!(answer.text().contains("nothing to keep") && answer.text().contains("<td>hello</td>"));
}

#[test]
fn only_the_newest_and_only_so_many_are_listed() {
    let _dog = watchdog(30, "many uploads");
    let folder = Folder::new("many");
    let server = Server::start(WSGI, &["--uploads", folder.text()]);
    let files: Vec<(&str, &str, &[u8])> = (0..60).map(|_| ("a", "a.txt", &b"x"[..])).collect();
    let fields: Vec<(&str, &str)> = (0..150).map(|_| ("n", "v")).collect();
    let answer =
        ask(server.port, "POST", "/upload/", &[MULTIPART], &multipart(&files, &fields)).text();
    assert_eq!(answer.matches("<td>a.txt</td>").count(), 60);
    assert_eq!(answer.matches("<td>v</td>").count(), 100);
    assert!(answer.contains("And 50 fields more."));
    assert_eq!(get(&server, "/upload/").text().matches("<code>upload-").count(), 20);
    std::thread::sleep(Duration::from_millis(20));
    let last = ask(server.port, "POST", "/upload/", &[MULTIPART], &multipart(&files[..1], &[]));
    let stored = last.text().split("<code>upload-").nth(1).map(|rest| rest[..18].to_string());
    let page = get(&server, "/upload/").text();
    let first = page.split("<code>upload-").nth(1).map(|rest| rest[..18].to_string());
    assert_eq!(first, stored);
}

/// Starts a program in another folder, with another folder for temporary things.
fn start_in(program: &str, folder: &Path, temporary: &Path) -> (Process, u16) {
    let mut command = Command::new(program);
    command.args(["--port", "0"]).current_dir(folder).env("TMPDIR", temporary);
    let process = Process::spawn(command.stdout(Stdio::null()));
    process
        .until(Duration::from_secs(20), |lines| lines.iter().any(|line| port_in(line).is_some()));
    let port = process.lines().iter().find_map(|line| port_in(line));
    (process, port.expect("an address"))
}

#[test]
fn the_temporary_folder_is_private_and_gone_afterwards_and_any_folder_will_do() {
    let _dog = watchdog(30, "a temporary folder");
    for (program, name) in [(WSGI, "tmp-w"), (ASGI_HTTP, "tmp-a")] {
        let folder = Folder::new(name);
        let (mut process, port) = start_in(program, &folder.0, &folder.0);
        let [own] = &names(&folder.0)[..] else { panic!("{:?}", names(&folder.0)) };
        assert!(own.starts_with("glasshouse-"), "{own}");
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(folder.0.join(own)).expect("a folder").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let upload = multipart(&[("a", "a.txt", b"x")], &[]);
        assert_eq!(ask(port, "POST", "/upload/", &[MULTIPART], &upload).status, 200);
        for target in ["/", "/static/style.css"] {
            assert_eq!(ask(port, "GET", target, &[], b"").status, 200, "{target}");
        }
        process.signal("TERM");
        assert_eq!(process.finish(Duration::from_secs(20)), Some(Some(0)));
        assert_eq!(names(&folder.0), Vec::<String>::new());
    }
}

#[test]
fn paper_which_does_not_scroll_shows_whole_lines() {
    let sheet = include_str!("../templates/static/style.css");
    let (_, print) = sheet.split_once("@media print").expect("rules for paper");
    assert!(print.contains("pre") && print.contains("white-space: pre-wrap"), "{print}");
}

#[test]
fn templates_and_static_files_can_come_from_another_folder() {
    let _dog = watchdog(30, "--templates, --static");
    let folder = Folder::new("own");
    fs::write(folder.0.join("routes.html"), "mine: {{ routes|length }}").expect("a file");
    let own = ["--templates", folder.text(), "--static", folder.text(), "--debug"];
    let server = Server::start(WSGI, &own);
    assert!(get(&server, "/routes/").text().starts_with("mine: "));
    assert!(get(&server, "/").text().contains("<h1>"), "the others are still there");
    assert_eq!(get(&server, "/static/routes.html").text(), "mine: {{ routes|length }}");
    fs::write(folder.0.join("routes.html"), "changed").expect("a file");
    assert_eq!(get(&server, "/routes/").text(), "changed");
    let nowhere = folder.0.join("nowhere");
    let file = folder.0.join("routes.html");
    for (flag, folder, told) in [
        ("--static", &nowhere, "Name the folder with --static DIR."),
        ("--templates", &nowhere, "nowhere: "),
        ("--uploads", &file, "--uploads takes a folder; "),
    ] {
        let output = Command::new(WSGI).args(["--port", "0", flag]).arg(folder).output();
        let output = output.expect("the program");
        assert_eq!(output.status.code(), Some(1), "{flag}");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        let place = format!("{}: ", folder.display());
        assert!(words.contains(&place) && words.contains(told), "{words}");
    }
}

// Figures.

#[test]
fn the_server_s_own_traffic_can_be_seen_as_it_happens() {
    let _dog = watchdog(30, "/trends/");
    for program in BOTH {
        let server = Server::start(program, &[]);
        for _ in 0..5 {
            get(&server, "/healthz");
        }
        get(&server, "/nothing/");
        get(&server, "/panic/");
        let mut wrong = Client::connect(server.address().parse().expect("an address"));
        wrong.send("GET / HTTP/1.1\n\n");
        assert_eq!(wrong.answer().map(|answer| answer.status), Some(400));
        server.wait_for("\"-\" 400 - -: a line ends in LF without CR");
        // A request is counted when its answer has left.
        std::thread::sleep(Duration::from_millis(200));
        let data = ask(server.port, "GET", "/trends/", &[JSON], b"");
        assert_eq!(field(&data.head, "Cache-Control"), Some("no-store"));
        let pid = server.process().id();
        for words in [
            format!("\"process\": {pid}"),
            "\"requests\": 7".to_string(),
            "\"refused\": 1".to_string(),
            "{\"count\": 5, \"name\": \"2xx\"}".to_string(),
            "{\"count\": 1, \"name\": \"5xx\"}".to_string(),
        ] {
            assert!(data.text().contains(&words), "{words}: {}", data.text());
        }
        let page = get(&server, "/trends/").text();
        assert!(page.contains(&format!("<dd>{pid}</dd>")) && page.contains("trends.js"), "{page}");
        assert_eq!(page.matches("</rect>").count(), SECONDS);
        assert!(page.contains("<p id=\"away\" role=\"status\"></p>"), "for when it is not there");
        assert!(!get(&server, "/trends/?still=1").text().contains("trends.js"));
    }
}
