//! The site's WebSockets, on the real program: what the consumers say, the pages that use them, and
//! the client for the terminal.

mod support;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::client::Client;
use support::server::Server;
use support::watchdog::watchdog;
use support::websocket::{BINARY, PING, PONG, Peer, TEXT, close};

const ASGI_WS: &str = env!("CARGO_BIN_EXE_asgi_ws");
const OTHERS: [&str; 2] = [env!("CARGO_BIN_EXE_wsgi"), env!("CARGO_BIN_EXE_asgi_http")];

#[track_caller]
fn open(server: &Server, target: &str) -> Peer {
    Peer::open(server.address().parse().expect("an address"), target)
}

/// The next message, which must be text.
#[track_caller]
fn heard(peer: &mut Peer) -> String {
    let (opcode, payload) = peer.frame().expect("a frame");
    assert_eq!(opcode, TEXT, "{}", payload.escape_ascii());
    String::from_utf8(payload).expect("text")
}

#[track_caller]
fn page(server: &Server, target: &str) -> String {
    let mut client = Client::connect(server.address().parse().expect("an address"));
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let answer = client.answer().expect("an answer");
    assert_eq!(answer.status, 200, "{target}");
    answer.text()
}

/// A server that keeps its uploads in a folder of the test's own. Both end with it.
struct Kept {
    server: Server,
    folder: PathBuf,
}

impl Kept {
    fn start(name: &str, flags: &[&str]) -> Kept {
        let folder = std::env::temp_dir().join(format!("gh-ws-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let text = folder.to_str().expect("a path of text");
        Kept { server: Server::start(ASGI_WS, &[&["--uploads", text], flags].concat()), folder }
    }

    /// What is kept, and what is still arriving.
    fn files(&self) -> Vec<String> {
        let mut names = Vec::new();
        for folder in [&self.folder, &self.folder.join(".spool")] {
            for entry in fs::read_dir(folder).expect("a folder") {
                let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
                if name != ".spool" && !name.ends_with(".live") {
                    names.push(name);
                }
            }
        }
        names
    }

    /// Waits until a file arrives, or none does any more.
    #[track_caller]
    fn wait_for_files(&self, count: usize) {
        let start = Instant::now();
        while self.files().len() != count {
            assert!(start.elapsed() < Duration::from_secs(10), "{:?}", self.files());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn the_echo_says_the_same_again() {
    let _dog = watchdog(30, "/ws/echo/");
    let server = Server::start(ASGI_WS, &[]);
    let mut peer = open(&server, "/ws/echo/");
    peer.text("Hello");
    peer.hears("Hello");
    peer.send(BINARY, b"\0\xff");
    assert_eq!(peer.frame(), Some((BINARY, b"\0\xff".to_vec())));
    peer.send(PING, b"?");
    assert_eq!(peer.frame(), Some((PONG, b"?".to_vec())));
    assert_eq!(peer.close(1000, "enough"), 1000);
}

// Uploads.

/// Bytes that repeat nowhere near, and their SHA-1 as `sha1sum` prints it.
fn content() -> Vec<u8> {
    (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

const CONTENT_SHA1: &str = "f0a79276302cd35347cfe6b10254e3d9d724990c";

#[test]
fn an_upload_is_told_about_while_it_comes_and_kept_with_its_sha1() {
    let _dog = watchdog(60, "/ws/upload/");
    let kept = Kept::start("kept", &[]);
    let content = content();
    let mut peer = open(&kept.server, "/ws/upload/");
    peer.text(&format!("{} ../../<b>evil</b>.txt", content.len()));
    assert_eq!(heard(&mut peer), "{\"received\": 0, \"size\": 3000000}");
    let mut last = String::new();
    for piece in content.chunks(700_000) {
        peer.send(BINARY, piece);
        last = heard(&mut peer);
        assert!(last.contains("\"size\": 3000000"), "{last}");
    }
    let [name] = &kept.files()[..] else { panic!("{:?}", kept.files()) };
    assert!(name.starts_with("upload-"), "{name}");
    assert_eq!(
        last,
        format!(
            "{{\"name\": \"b\\u003e.txt\", \"received\": 3000000, \"sha1\": \"{CONTENT_SHA1}\", \
             \"size\": 3000000, \"stored\": \"{name}\"}}"
        )
    );
    assert!(fs::read(kept.folder.join(name)).expect("a file") == content);
    assert!(page(&kept.server, "/upload/").contains(CONTENT_SHA1));
    // A second file on the same WebSocket, without a byte.
    peer.text("0 empty");
    assert!(heard(&mut peer).contains("\"sha1\": \"da39a3ee5e6b4b0d3255bfef95601890afd80709\""));
    assert_eq!(peer.close(1000, ""), 1000);
    assert_eq!(kept.files().len(), 2);
}

#[test]
fn nothing_is_left_of_an_upload_that_is_not_whole() {
    let _dog = watchdog(60, "half uploads");
    let kept = Kept::start("half", &[]);
    for leave in 0..4 {
        let mut peer = open(&kept.server, "/ws/upload/");
        peer.text("1000 half.txt");
        peer.send(BINARY, [b'x'; 999]);
        heard(&mut peer);
        assert!(heard(&mut peer).contains("999"));
        kept.wait_for_files(1);
        match leave {
            0 => assert_eq!(peer.close(1000, ""), 1000),
            1 => drop(peer),
            2 => {
                peer.send(BINARY, b"12");
                let (code, reason) = peer.end();
                assert_eq!((code, reason.contains("1000 bytes")), (1008, true), "{reason}");
            }
            _ => {
                peer.text("1 another.txt");
                assert_eq!(peer.end().0, 1008);
            }
        }
        kept.wait_for_files(0);
    }
}

#[test]
fn an_upload_that_is_too_long_is_refused_before_its_first_byte() {
    let _dog = watchdog(30, "a long upload");
    let kept = Kept::start("long", &["--max-body", "1000"]);
    let mut peer = open(&kept.server, "/ws/upload/");
    peer.text("1001 long.txt");
    let (code, reason) = peer.end();
    assert_eq!(
        (code, reason.as_str()),
        (1009, "a file may have 1000 bytes, and this one has 1001 bytes")
    );
    let usual = Kept::start("usual", &[]);
    assert!(page(&usual.server, "/upload/").contains("A file may have 16 MiB ("));
    let mut peer = open(&usual.server, "/ws/upload/");
    peer.text("16777217 long.txt");
    let words = "a file may have 16 MiB, and this one has 16777217 bytes";
    assert_eq!(peer.end(), (1009, words.to_string()));
    for (words, code) in [("+5 a", 1008), ("five a", 1008), ("", 1008), ("-1", 1008)] {
        let mut peer = open(&kept.server, "/ws/upload/");
        peer.text(words);
        assert_eq!(peer.end().0, code, "{words:?}");
    }
    let mut peer = open(&kept.server, "/ws/upload/");
    peer.send(BINARY, b"bytes of what?");
    assert_eq!(peer.end().0, 1008);
    assert_eq!(kept.files(), Vec::<String>::new());
}

#[test]
fn the_page_knows_the_sha1_of_files_that_came_by_form_too() {
    let _dog = watchdog(30, "/upload/");
    let kept = Kept::start("form", &[]);
    fs::write(kept.folder.join("upload-by-hand"), "abc").expect("a file");
    // RFC 3174, section 7.3: its first example.
    let abc = "a9993e364706816aba3e25717850c26c9cd0d89d";
    assert!(page(&kept.server, "/upload/").contains(abc));
    // It is computed once: what is in the file later is not looked at.
    fs::write(kept.folder.join("upload-by-hand"), "abd").expect("a file");
    assert!(page(&kept.server, "/upload/").contains(abc));
    // Nobody can make it read for minutes: what is very long stays without. This one is all holes.
    let long = fs::File::create(kept.folder.join("upload-long")).expect("a file");
    long.set_len(1 << 40).expect("a file system with holes");
    let began = std::time::Instant::now();
    assert!(page(&kept.server, "/upload/").contains("upload-long"));
    assert!(began.elapsed() < std::time::Duration::from_secs(5));
}

// The chat.

#[test]
fn two_visitors_of_a_room_hear_each_other_and_nobody_else() {
    let _dog = watchdog(30, "/ws/chat/");
    let server = Server::start(ASGI_WS, &[]);
    let mut ada = open(&server, "/ws/chat/a%20room/?name=Ada");
    ada.hears("{\"notice\": \"Ada has come. In the room now: 1.\"}");
    let mut bob = open(&server, "/ws/chat/a%20room/?name=Bob");
    bob.hears("{\"notice\": \"Bob has come. In the room now: 2.\"}");
    ada.hears("{\"notice\": \"Bob has come. In the room now: 2.\"}");
    let mut other = open(&server, "/ws/chat/another/?name=Cleo");
    other.hears("{\"notice\": \"Cleo has come. In the room now: 1.\"}");
    ada.text("  <b>Hello</b>, \"Bob\"!\n");
    let said =
        "{\"name\": \"Ada\", \"text\": \"\\u003cb\\u003eHello\\u003c/b\\u003e, \\\"Bob\\\"!\"}";
    ada.hears(said);
    bob.hears(said);
    ada.text(" ");
    ada.text(&"x".repeat(501));
    ada.hears("{\"notice\": \"That was too long: 500 characters at a time.\"}");
    drop(ada);
    bob.hears("{\"notice\": \"Ada has gone. In the room now: 1.\"}");
    assert!(other.is_quiet(Duration::from_millis(100)));
}

#[test]
fn a_newcomer_hears_the_last_messages_and_no_more_than_that() {
    let _dog = watchdog(30, "history");
    let server = Server::start(ASGI_WS, &[]);
    let mut ada = open(&server, "/ws/chat/a/?name=Ada");
    heard(&mut ada);
    for number in 0..25 {
        ada.text(&format!("number {number}"));
        heard(&mut ada);
    }
    let mut bob = open(&server, "/ws/chat/a/?name=Bob");
    for number in 5..25 {
        bob.hears(&format!("{{\"name\": \"Ada\", \"text\": \"number {number}\"}}"));
    }
    assert!(heard(&mut bob).contains("Bob has come"));
}

#[test]
fn a_name_that_is_none_is_told_why() {
    let _dog = watchdog(30, "names");
    let server = Server::start(ASGI_WS, &[]);
    let long = "x".repeat(31);
    for target in [
        "/ws/chat/a/",
        "/ws/chat/a/?name=+",
        "/ws/chat/a/?name=%00",
        // Behind this one, letters go from right to left; the next has no width.
        "/ws/chat/a/?name=adA%E2%80%AE",
        "/ws/chat/a/?name=Ada%E2%80%8B",
        &format!("/ws/chat/a/?name={long}"),
        &format!("/ws/chat/{long}/?name=Ada"),
        &format!("/ws/chat/a/?name=Ada{}", "&x".repeat(1000)),
    ] {
        let mut peer = open(&server, target);
        peer.text("Hello");
        let (code, reason) = peer.end();
        let words = "a name has 1 to 30 visible characters, and that of a room too";
        assert_eq!((code, reason.as_str()), (1008, words), "{target}");
    }
}

#[test]
fn empty_rooms_are_forgotten_and_full_ones_never() {
    let _dog = watchdog(60, "rooms");
    let server = Server::start(ASGI_WS, &[]);
    let mut ada = open(&server, "/ws/chat/first/?name=Ada");
    heard(&mut ada);
    for number in 0..150 {
        let mut peer = open(&server, &format!("/ws/chat/room{number}/?name=Bob"));
        assert!(heard(&mut peer).contains("has come"));
        assert_eq!(peer.close(1000, ""), 1000);
    }
    let mut peers = Vec::new();
    loop {
        let mut peer = open(&server, &format!("/ws/chat/full{}/?name=Bob", peers.len()));
        let (opcode, payload) = peer.frame().expect("a frame");
        if opcode != TEXT {
            assert!(payload.ends_with(b"there are too many rooms now"));
            break;
        }
        peers.push(peer);
    }
    assert_eq!(peers.len(), 99);
    open(&server, "/ws/chat/first/?name=Bob");
    assert!(heard(&mut ada).contains("Bob has come. In the room now: 2."));
}

// The figures.

#[test]
fn the_figures_come_each_second_to_all_members() {
    let _dog = watchdog(30, "/ws/trends/");
    let server = Server::start(ASGI_WS, &[]);
    let mut one = open(&server, "/ws/trends/");
    let first = heard(&mut one);
    assert!(first.contains(&format!("\"process\": {}", server.process().id())), "{first}");
    assert!(first.contains("\"requests\": 0,"), "{first}");
    page(&server, "/healthz");
    let mut other = open(&server, "/ws/trends/");
    heard(&mut other);
    let began = Instant::now();
    for peer in [&mut one, &mut other] {
        let next = heard(peer);
        assert!(next.contains("\"requests\": 1,") && next.contains("\"seconds\": ["), "{next}");
    }
    heard(&mut one);
    let took = began.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(5)).contains(&took), "{took:?}");
    one.text("faster!");
    // A push may still be on its way.
    while let Some((TEXT, _)) = one.frame() {}
    // How long a WebSocket was open is no time of an answer.
    assert_eq!(
        page(&server, "/trends/?still=1")
            .matches("<th scope=\"row\">1 s or more</th><td>0</td>")
            .count(),
        1
    );
    // The thread that tells goes with the last member, and comes back with the next.
    drop(other);
    let threads = || {
        let tasks = format!("/proc/{}/task", server.process().id());
        let names = fs::read_dir(tasks).ok()?.flatten();
        let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
        Some(names.filter_map(name).filter(|name| name.trim() == "trends").count())
    };
    let start = Instant::now();
    while threads().is_some_and(|count| count > 0) {
        assert!(start.elapsed() < Duration::from_secs(10), "the thread stays");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut again = open(&server, "/ws/trends/");
    heard(&mut again);
    heard(&mut again);
}

// Frames.

/// The value of a name in a line of JSON that holds texts and numbers.
fn value<'a>(json: &'a str, name: &str) -> &'a str {
    let (_, rest) = json.split_once(&format!("\"{name}\": ")).expect("a name");
    rest.split([',', '}']).next().expect("a value").trim_matches('"')
}

#[test]
fn each_frame_of_the_echo_is_reported_to_who_has_the_token() {
    let _dog = watchdog(30, "/ws/frames/");
    let server = Server::start(ASGI_WS, &[]);
    let mut watcher = open(&server, "/ws/frames/");
    let greeting = heard(&mut watcher);
    let token = value(&greeting, "token");
    assert_eq!(token.len(), 16, "{greeting}");
    let mut peer = open(&server, &format!("/ws/echo/?watch={token}"));
    // RFC 6455, section 5.7: a masked "Hello".
    peer.raw(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    peer.hears("Hello");
    watcher.hears(
        "{\"header\": \"818537fa213d\", \"length\": 5, \"payload\": \"48656c6c6f\", \
         \"way\": \"in\", \"wire\": \"7f9f4d5158\"}",
    );
    watcher.hears(
        "{\"header\": \"8105\", \"length\": 5, \"payload\": \"48656c6c6f\", \
         \"way\": \"out\", \"wire\": \"48656c6c6f\"}",
    );
    // The same section: a fragmented "Hel" + "lo", with a ping between.
    peer.raw(b"\x01\x83\0\0\0\0Hel\x89\x80\0\0\0\0\x80\x82\0\0\0\0lo");
    let mut headers = Vec::new();
    for _ in 0..5 {
        headers.push(value(&heard(&mut watcher), "header").to_string());
    }
    for header in ["018300000000", "898000000000", "808200000000", "8a00", "8105"] {
        assert!(headers.iter().any(|seen| seen == header), "{header}: {headers:?}");
    }
    assert_eq!(peer.frame(), Some((PONG, vec![])));
    peer.hears("Hello");
    // Of a long payload the beginning is reported, and its true length.
    peer.send(BINARY, vec![7; 70_000]);
    let long = heard(&mut watcher);
    assert_eq!((value(&long, "length"), value(&long, "payload").len()), ("70000", 250));
    assert_eq!(value(&long, "header"), "82ff000000000001117037fa213d");
    heard(&mut watcher);
    peer.frame();
    peer.send(support::websocket::CLOSE, close(1000, "enough"));
    assert_eq!(value(&heard(&mut watcher), "payload"), "03e8656e6f756768");
    assert_eq!(value(&heard(&mut watcher), "header"), "8802");
    assert_eq!(watcher.close(1000, ""), 1000);
}

#[test]
fn nobody_is_watched_without_the_token_or_anywhere_else() {
    let _dog = watchdog(30, "tokens");
    let server = Server::start(ASGI_WS, &[]);
    let mut watcher = open(&server, "/ws/frames/");
    let greeting = heard(&mut watcher);
    let token = value(&greeting, "token");
    for target in ["/ws/echo/", "/ws/echo/?watch=", "/ws/echo/?watch=0000000000000000"] {
        let mut peer = open(&server, target);
        peer.text("secret");
        peer.hears("secret");
    }
    // Reports of reports would have no end.
    let mut second = open(&server, &format!("/ws/frames/?watch={token}"));
    heard(&mut second);
    open(&server, &format!("/ws/chat/a/?name=Ada&watch={token}")).text("secret");
    // Nor does a refused one say anything about what else its connection asks for.
    let mut client = Client::connect(server.address().parse().expect("an address"));
    let target = format!("/ws/echo/?watch={token}");
    client.send(support::websocket::handshake(&target, "Origin: http://evil\r\n"));
    assert_eq!(client.answer().expect("an answer").status, 403);
    client.send(support::websocket::handshake("/ws/echo/", ""));
    assert!(client.up_to("\r\n\r\n").starts_with("HTTP/1.1 101 "));
    client.send(support::websocket::frame(TEXT, b"secret"));
    assert!(watcher.is_quiet(Duration::from_millis(200)));
    // A watcher that has gone is no reason to end.
    let mut peer = open(&server, &format!("/ws/echo/?watch={token}"));
    assert_eq!(watcher.close(1000, ""), 1000);
    for _ in 0..3 {
        peer.text("Hello");
        peer.hears("Hello");
    }
}

// The pages.

#[test]
fn the_pages_use_websockets_where_there_are_some_and_say_so_where_there_are_none() {
    let _dog = watchdog(30, "pages");
    let server = Server::start(ASGI_WS, &["--debug"]);
    for (target, has) in [
        ("/", "<a href=\"/websocket/\">"),
        ("/routes/", "<code>/ws/echo/</code>"),
        ("/websocket/", "websocket.js"),
        ("/chat/", "chat.js"),
        ("/upload/", "id=\"by-websocket\""),
        ("/trends/", " data-live"),
    ] {
        let text = page(&server, target);
        assert!(text.contains(has), "{target}");
        assert!(!text.contains("no WebSockets on this server"), "{target}");
    }
    for script in ["websocket", "chat", "upload", "trends"] {
        page(&server, &format!("/static/{script}.js"));
    }
    for program in OTHERS {
        let server = Server::start(program, &["--debug"]);
        for target in ["/websocket/", "/chat/", "/upload/"] {
            let text = page(&server, target);
            assert!(text.contains("no WebSockets on this server"), "{target}");
            assert!(text.contains("cargo run --bin asgi_ws"), "{target}");
        }
        assert!(!page(&server, "/trends/").contains(" data-live"));
    }
}

// The terminal.

/// What the client prints, given this input.
fn talk(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(ASGI_WS);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program");
    let mut stdin = child.stdin.take().expect("its input");
    // One that has ended already does not want it.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().expect("its output")
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_client_prints_the_answers_to_what_is_piped_into_it() {
    let _dog = watchdog(60, "--connect");
    let server = Server::start(ASGI_WS, &[]);
    let url = |path: &str| format!("ws://{}{path}", server.address());
    let output = talk(&["--connect", &url("/ws/echo/")], b"Hello\r\nand\x1b[2J good-bye\n\xff\0");
    let said = "Hello\nand\\u{1b}[2J good-bye\n2 bytes: ff00\n";
    assert_eq!(words(&output.stdout), said, "{}", words(&output.stderr));
    assert_eq!((output.status.code(), words(&output.stderr)), (Some(0), String::new()));
    let many: String = (0..5_000).map(|number| format!("line {number}\n")).collect();
    let output = talk(&["--connect", &url("/ws/echo/")], many.as_bytes());
    assert_eq!((output.status.code(), words(&output.stdout)), (Some(0), many));
    let output = talk(&["--connect", &url("/ws/echo/"), "--wire"], b"Hello\n");
    let wire = words(&output.stderr);
    for line in [
        "-> ch 30 handshake  GET /ws/echo/ HTTP/1.1\\r\\n",
        "<- ch 31 frame      fin text, 5 bytes: Hello",
    ] {
        assert!(wire.contains(line), "{wire}");
    }
}

#[test]
fn the_client_says_what_went_wrong() {
    let _dog = watchdog(60, "--connect");
    let server = Server::start(ASGI_WS, &[]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = free.local_addr().expect("a port").to_string();
    drop(free);
    for (url, says) in [
        (format!("ws://{nobody}/"), "Is the server running"),
        (format!("ws://{}/nothing/", server.address()), "404 Not Found\n\nThere is no WebSocket"),
        (format!("ws://{}/ws/upload/", server.address()), "closed with 1008 \"say the size"),
    ] {
        let output = talk(&["--connect", &url], b"Hello\n");
        let error = words(&output.stderr);
        assert!(error.starts_with(&format!("{url}: ")) && error.contains(says), "{error}");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{error}");
    }
}

#[test]
fn the_client_does_not_take_every_answer_for_a_websocket() {
    let _dog = watchdog(60, "--connect");
    for (answer, says) in [
        ("", "hung up before it had answered"),
        ("SSH-2.0-OpenSSH\r\n\r\n", "not one of HTTP/1.1"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            "not belong to our key",
        ),
        ("HTTP/1.1 500 \x1b[2J\r\n\r\nno\x1b[2J", "500 Internal Server Error\n\nno\\u{1b}[2J"),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("ws://{}/", listener.local_addr().expect("a port"));
        let server = std::thread::spawn(move || {
            use std::io::Read;
            let (mut stream, _) = listener.accept().expect("the client");
            let mut request = [0; 1024];
            let count = stream.read(&mut request).expect("a request");
            assert!(request[..count].starts_with(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:"));
            stream.write_all(answer.as_bytes()).expect("the client");
        });
        let output = talk(&["--connect", &url], b"");
        server.join().expect("the server");
        let error = words(&output.stderr);
        assert!(error.contains(says), "{error:?}");
        assert_eq!(output.status.code(), Some(1));
    }
}
