//! Chapter 36: the access log. Lines as data first, then the queue, then a whole server.

mod support;

use std::ffi::OsStr;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use glasshouse::gateway::asgi::{Asgi, Emit, Event, Receive, Scope};
use glasshouse::gateway::wsgi::Exception;
use glasshouse::http::connection::{CloseReason, Observer};
use glasshouse::http::exchange::Exchange;
use glasshouse::http::headers::{Headers, UPGRADE};
use glasshouse::http::refusal::Refusal;
use glasshouse::http::response::{Response, Status};
use glasshouse::http::server::{Running, Server, Settings};
use glasshouse::running::access_log::{
    AccessLog, Asked, Entry, Format, Several, Trouble, wants_colour,
};
use glasshouse::socket::lobby::{Deadlines, Guest, Lobby};
use glasshouse::websocket::session::{SessionSettings, WebSockets};
use support::client::{Client, eq_text};
use support::mutator::Mutator;
use support::watchdog::watchdog;
use support::websocket::{CLOSE, Peer, close, frame};

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// 10 October 2000, 13:55:36.042: the moment of the example in Apache's manual.
fn moment() -> SystemTime {
    UNIX_EPOCH + ms(971_186_136_042)
}

fn asked(target: &[u8]) -> Asked<'_> {
    Asked { method: b"GET", target, version: "HTTP/1.0", referer: None, user_agent: None }
}

/// A good request for this target.
fn entry(target: &[u8]) -> Entry<'_> {
    Entry {
        time: moment(),
        client: IpAddr::from([127, 0, 0, 1]),
        connection: 7,
        asked: Some(asked(target)),
        status: Some(Status::OK),
        bytes: Some(2326),
        duration: Some(Duration::from_micros(759)),
        trouble: None,
    }
}

fn failed(status: Status, problem: &str) -> Entry<'_> {
    let trouble = Trouble { problem, rule: Some("RFC 9112, section 2.2"), is_cut: false };
    Entry { status: Some(status), trouble: Some(trouble), ..entry(b"/a") }
}

fn line(entry: &Entry, format: Format) -> String {
    String::from_utf8(entry.line(format, false)).expect("ASCII")
}

// The formats.

#[test]
fn each_format_has_its_word() {
    let words: Vec<&str> = Format::WORDS.iter().map(|(word, _)| *word).collect();
    assert_eq!(words, ["none", "short", "common", "combined", "json"]);
    for (word, format) in Format::WORDS {
        assert_eq!(Format::parse(word), Some(*format));
    }
    for word in ["", "Short", "short ", "apache"] {
        assert_eq!(Format::parse(word), None, "{word:?}");
    }
}

#[test]
fn a_short_line_says_when_who_what_and_how() {
    let want = "[13:55:36] 127.0.0.1 \"GET /a HTTP/1.0\" 200 2326 0.75ms\n";
    eq_text(want, &line(&entry(b"/a"), Format::Short));
    let slow = Entry {
        duration: Some(Duration::from_micros(61_005_009)),
        bytes: Some(0),
        client: "2001:db8::1".parse().expect("an address"),
        ..entry(b"/a")
    };
    let want = "[13:55:36] 2001:db8::1 \"GET /a HTTP/1.0\" 200 0 61005.00ms\n";
    eq_text(want, &line(&slow, Format::Short));
}

#[test]
fn common_and_combined_are_as_apache_writes_them() {
    let mut entry = entry(b"/apache_pb.gif");
    let common = "127.0.0.1 - - [10/Oct/2000:13:55:36 +0000] \"GET /apache_pb.gif HTTP/1.0\" 200 ";
    eq_text(&format!("{common}2326\n"), &line(&entry, Format::Common));
    eq_text(&format!("{common}2326 \"-\" \"-\"\n"), &line(&entry, Format::Combined));
    entry.asked = Some(Asked {
        referer: Some(b"http://www.example.com/start.html"),
        user_agent: Some(b"Mozilla/4.08 [en] (Win98; I ;Nav)"),
        ..asked(b"/apache_pb.gif")
    });
    let fields = "\"http://www.example.com/start.html\" \"Mozilla/4.08 [en] (Win98; I ;Nav)\"";
    eq_text(&format!("{common}2326 {fields}\n"), &line(&entry, Format::Combined));
    for bytes in [Some(0), None] {
        entry.bytes = bytes;
        eq_text(&format!("{common}-\n"), &line(&entry, Format::Common));
    }
}

#[test]
fn a_json_line_is_one_object() {
    let want = "{\"time\":\"2000-10-10T13:55:36.042Z\",\"client\":\"127.0.0.1\",\"connection\":7,\
                \"method\":\"GET\",\"target\":\"/a\",\"version\":\"HTTP/1.0\",\"status\":200,\
                \"bytes\":2326,\"duration_ms\":0.759,\"referer\":null,\"user_agent\":null}\n";
    eq_text(want, &line(&entry(b"/a"), Format::Json));
    let refused = Entry {
        asked: None,
        bytes: None,
        duration: None,
        ..failed(Status::BAD_REQUEST, "a line ends in LF without CR")
    };
    let want = "{\"time\":\"2000-10-10T13:55:36.042Z\",\"client\":\"127.0.0.1\",\"connection\":7,\
                \"method\":null,\"target\":null,\"version\":null,\"status\":400,\"bytes\":null,\
                \"duration_ms\":null,\"referer\":null,\"user_agent\":null,\
                \"problem\":\"a line ends in LF without CR\",\
                \"rule\":\"RFC 9112, section 2.2\",\"cut\":false}\n";
    eq_text(want, &line(&refused, Format::Json));
}

#[test]
fn the_reason_of_a_failure_is_in_its_line() {
    let refused = Entry {
        asked: None,
        bytes: None,
        duration: None,
        ..failed(Status::BAD_REQUEST, "a line ends in LF without CR")
    };
    let want = "[13:55:36] 127.0.0.1 \"-\" 400 - -: a line ends in LF without CR \
                (RFC 9112, section 2.2)\n";
    eq_text(want, &line(&refused, Format::Short));
    let want = "127.0.0.1 - - [10/Oct/2000:13:55:36 +0000] \"-\" 400 - \"-\" \"-\"\n";
    eq_text(want, &line(&refused, Format::Combined));
    let mut cut = failed(Status::OK, "no more");
    cut.trouble.as_mut().expect("one").is_cut = true;
    let want = "[13:55:36] 127.0.0.1 \"GET /a HTTP/1.0\" 200 2326 0.75ms, cut: no more \
                (RFC 9112, section 2.2)\n";
    eq_text(want, &line(&cut, Format::Short));
    assert!(line(&cut, Format::Json).ends_with("\"cut\":true}\n"));
    let trouble = Trouble { problem: "the client went away", rule: None, is_cut: false };
    let gone = Entry { status: None, trouble: Some(trouble), ..entry(b"/a") };
    let want = "[13:55:36] 127.0.0.1 \"GET /a HTTP/1.0\" - 2326 0.75ms: the client went away\n";
    eq_text(want, &line(&gone, Format::Short));
    assert_eq!(line(&gone, Format::None), "", "nobody's fault");
}

#[test]
fn none_says_only_what_went_wrong() {
    assert_eq!(line(&entry(b"/a"), Format::None), "");
    let failed = failed(Status::INTERNAL_SERVER_ERROR, "the application panicked");
    eq_text(&line(&failed, Format::Short), &line(&failed, Format::None));
}

#[test]
fn every_day_of_a_leap_year_has_its_date() {
    for day in 0..366 {
        let time = UNIX_EPOCH + Duration::from_secs(951_782_400 + day * 86_400 + 3661);
        let entry = Entry { time, ..entry(b"/") };
        let (common, json) = (line(&entry, Format::Common), line(&entry, Format::Json));
        let date = &common[15..35];
        let number = "JanFebMarAprMayJunJulAugSepOctNovDec".find(&date[3..6]).expect("a month");
        let want =
            format!("{}-{:02}-{}T{}.000Z", &date[7..11], number / 3 + 1, &date[..2], &date[12..]);
        assert_eq!(&json[9..33], want, "{common}");
    }
    let last = line(
        &Entry { time: UNIX_EPOCH + Duration::from_secs(951_782_399), ..entry(b"/") },
        Format::Json,
    );
    assert!(last.contains("\"2000-02-28T23:59:59.000Z\""), "{last}");
}

// Colour.

#[test]
fn only_the_status_of_a_short_line_has_colour() {
    for (code, colour) in [(200, 32), (304, 36), (404, 33), (500, 31)] {
        let entry = Entry { status: Status::new(code), ..entry(b"/") };
        let coloured = String::from_utf8(entry.line(Format::Short, true)).expect("ASCII");
        assert!(
            coloured.contains(&format!("\" \x1b[{colour}m{code}\x1b[0m 2326 ")),
            "{coloured:?}"
        );
        for format in [Format::Common, Format::Combined, Format::Json] {
            assert_eq!(entry.line(format, true), entry.line(format, false));
        }
    }
}

#[test]
fn colour_is_for_a_person_who_has_not_refused_it() {
    assert!(wants_colour(true, None));
    assert!(wants_colour(true, Some(OsStr::new(""))));
    assert!(!wants_colour(true, Some(OsStr::new("1"))));
    assert!(!wants_colour(false, None));
}

// No request can forge a line.

#[test]
fn what_is_not_printable_is_escaped_as_apache_does() {
    let raw = b"\"\\\x08\n\r\t\x0b\0\x1b[2K\x7f\xc2\x9b\xff \xc3\xa9";
    let want = "\\\"\\\\\\b\\n\\r\\t\\v\\x00\\x1b[2K\\x7f\\xc2\\x9b\\xff \\xc3\\xa9";
    let text = line(&entry(raw), Format::Common);
    eq_text(&format!("\"GET {want} HTTP/1.0\" 200 2326\n"), &text[43..]);
    let failed = String::from_utf8_lossy(raw).into_owned();
    let text = line(&failed_with(&failed), Format::Short);
    assert!(is_one_printable_line(text.as_bytes()), "{text:?}");
}

fn failed_with(problem: &str) -> Entry<'_> {
    failed(Status::INTERNAL_SERVER_ERROR, problem)
}

#[test]
fn no_text_ends_its_quotation_marks() {
    let forged = b"/ HTTP/1.1\" 200 1\n127.0.0.1 - - [x] \"GET /admin";
    for format in [Format::Short, Format::Common, Format::Combined] {
        let text = line(&entry(forged), format);
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        // A reader that knows the two escapes finds the request whole.
        let start = text.find('"').expect("a request") + 1;
        let end = closing_mark(&text[start..]);
        assert!(text[start..start + end].ends_with("GET /admin HTTP/1.0"), "{text}");
    }
}

/// The place of the first quotation mark that no backslash escapes.
fn closing_mark(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            '"' if !escaped => return at,
            _ => escaped = letter == '\\' && !escaped,
        }
    }
    panic!("no end: {text}");
}

fn is_one_printable_line(line: &[u8]) -> bool {
    let printable = |text: &[u8]| text.iter().all(|byte| matches!(byte, b' '..=b'~'));
    line.split_last().is_some_and(|(last, text)| *last == b'\n' && printable(text))
}

#[test]
fn a_hundred_thousand_mutants_are_a_printable_line_each() {
    const RAW: &[u8] = b"/a?q=\"\\\"\x1b[31m\xc2\x85\xe2\x80\xae\xf0\x9f\x98\x80 \x7f\r\n127.0.0.1";
    let mut mutator = Mutator::new(25);
    for round in 0..100_000 {
        let mutants: [Vec<u8>; 4] = std::array::from_fn(|_| mutator.mutate(RAW));
        let [target, referer, agent, problem] = &mutants;
        let problem = String::from_utf8_lossy(problem);
        let asked = Asked {
            referer: (round % 3 > 0).then_some(referer.as_slice()),
            user_agent: Some(agent),
            ..asked(target)
        };
        let entry = Entry { asked: Some(asked), ..failed_with(&problem) };
        let (_, format) = Format::WORDS[round % Format::WORDS.len()];
        let line = entry.line(format, false);
        assert!(is_one_printable_line(&line), "{}", line.escape_ascii());
        if format == Format::Json {
            let members = json(&line[..line.len() - 1]);
            let members = members.unwrap_or_else(|| panic!("no JSON: {}", line.escape_ascii()));
            let find = |name: &str| members.iter().find(|(own, _)| own == name).expect(name);
            assert_eq!(find("target").1, Json::Text(String::from_utf8_lossy(target).into()));
            assert_eq!(find("problem").1, Json::Text(problem.into()));
            assert_eq!(find("status").1, Json::Other("500".to_string()));
        }
    }
}

/// A value of a flat JSON object.
#[derive(Debug, PartialEq)]
enum Json {
    Text(String),
    /// A number, `true`, `false` or `null`.
    Other(String),
}

/// Reads an object without spaces, strictly: RFC 8259 allows no control character in a string and
/// no half of a surrogate pair.
fn json(text: &[u8]) -> Option<Vec<(String, Json)>> {
    let mut rest = std::str::from_utf8(text).ok()?.strip_prefix('{')?;
    let mut members = Vec::new();
    loop {
        let name = json_text(&mut rest)?;
        rest = rest.strip_prefix(':')?;
        let value = if rest.starts_with('"') {
            Json::Text(json_text(&mut rest)?)
        } else {
            let end = rest.find([',', '}'])?;
            let value = &rest[..end];
            let is_number = value.starts_with(|c: char| c.is_ascii_digit())
                && value.parse::<f64>().is_ok()
                && (value == "0" || value.starts_with("0.") || !value.starts_with('0'));
            (is_number || ["true", "false", "null"].contains(&value)).then_some(())?;
            rest = &rest[end..];
            Json::Other(value.to_string())
        };
        members.push((name, value));
        match rest.split_at_checked(1)? {
            (",", more) => rest = more,
            ("}", "") => return Some(members),
            _ => return None,
        }
    }
}

fn json_text(rest: &mut &str) -> Option<String> {
    let mut letters = rest.strip_prefix('"')?.chars();
    let mut units = Vec::new();
    loop {
        match letters.next()? {
            '"' => break,
            '\\' => match letters.next()? {
                mark @ ('"' | '\\' | '/') => units.push(mark as u16),
                'u' => {
                    let digits = letters.as_str().get(..4)?;
                    units.push(u16::from_str_radix(digits, 16).ok()?);
                    letters = letters.as_str()[4..].chars();
                }
                _ => return None,
            },
            '\0'..='\x1f' => return None,
            letter => units.extend_from_slice(letter.encode_utf16(&mut [0; 2])),
        }
    }
    *rest = letters.as_str();
    String::from_utf16(&units).ok()
}

// The way of a line.

/// What has been written, one item for each write.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<Vec<u8>>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn writes(&self) -> Vec<Vec<u8>> {
        self.0.lock().expect("no panic").clone()
    }

    fn text(&self) -> String {
        String::from_utf8(self.writes().concat()).expect("ASCII")
    }
}

fn log_into(out: impl Write + Send + 'static, format: Format) -> Arc<AccessLog> {
    Arc::new(AccessLog::new(format, false, Box::new(out)).expect("a thread"))
}

/// Somebody to write about, and the other end of the connection. The address is as a listener at
/// `::` sees it, and stands in no line like this.
fn guest() -> (Arc<Guest>, TcpStream) {
    let door = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let client = TcpStream::connect(door.local_addr().expect("an address")).expect("the door");
    let (stream, peer) = door.accept().expect("the client");
    let peer = format!("[::ffff:127.0.0.1]:{}", peer.port()).parse().expect("an address");
    (Lobby::new(Deadlines::default(), 1).enter(stream, peer), client)
}

#[test]
fn a_note_is_a_line_with_the_same_care() {
    let (guest, _client) = guest();
    let shared = Shared::default();
    let log = log_into(shared.clone(), Format::Short);
    log.note(guest.peer.ip(), guest.number, "WebSocket accepted", "/chat/?room=\"1\"", "");
    log.note(
        guest.peer.ip(),
        guest.number,
        "WebSocket closed",
        "/chat/",
        "1000, bye\n[00:00:00] 10.0.0.1 forged",
    );
    assert!(log.flush());
    let text = shared.text();
    let lines: Vec<&str> = text.lines().map(|line| &line[11..]).collect();
    let want = [
        "127.0.0.1 WebSocket accepted \"/chat/?room=\\\"1\\\"\"",
        "127.0.0.1 WebSocket closed \"/chat/\" 1000, bye\\n[00:00:00] 10.0.0.1 forged",
    ];
    assert_eq!(lines, want);
    let shared = Shared::default();
    let log = log_into(shared.clone(), Format::Json);
    log.note(guest.peer.ip(), guest.number, "WebSocket closed", "/chat/", "\u{9b}2K");
    drop(log);
    let members = json(shared.text().trim_end().as_bytes()).expect("JSON");
    assert_eq!(members[3], ("event".to_string(), Json::Text("WebSocket closed".to_string())));
    assert_eq!(members[5], ("detail".to_string(), Json::Text("\u{9b}2K".to_string())));
    for format in [Format::None, Format::Common, Format::Combined] {
        let shared = Shared::default();
        log_into(shared.clone(), format).note(
            guest.peer.ip(),
            guest.number,
            "no place",
            "/",
            "for it",
        );
        assert_eq!(shared.text(), "", "{format:?}");
    }
}

#[test]
fn a_line_is_written_soon_and_a_flush_writes_it_now() {
    let (guest, _client) = guest();
    let shared = Shared::default();
    let log = log_into(shared.clone(), Format::Short);
    assert!(log.flush(), "nothing is written already");
    let lines = || shared.text().lines().count();
    // A busy machine may let us wait, but hardly ten times.
    let now = (1..=10).any(|turn| {
        let began = Instant::now();
        log.note(guest.peer.ip(), guest.number, "now", "/", "");
        assert!(log.flush());
        assert_eq!(lines(), turn);
        began.elapsed() < ms(90)
    });
    assert!(now);
    let soon = |count: usize| {
        (0..10).any(|_| {
            // The writer sleeps now. The line that wakes it waits a little for what follows.
            thread::sleep(ms(50));
            let before = (lines(), shared.writes().len());
            for _ in 0..count {
                log.note(guest.peer.ip(), guest.number, "soon", "/", "");
                thread::sleep(ms(5));
            }
            thread::sleep(ms(250));
            (lines(), shared.writes().len()) == (before.0 + count, before.1 + 1)
        })
    };
    assert!(soon(1) && soon(2));
}

#[test]
fn lines_of_many_threads_are_whole_and_none_is_lost_at_the_end() {
    let (guest, _client) = guest();
    let shared = Shared::default();
    let log = log_into(shared.clone(), Format::Short);
    thread::scope(|scope| {
        for thread in 0..8 {
            let (log, guest) = (&log, &guest);
            scope.spawn(move || {
                for turn in 0..1000 {
                    log.note(
                        guest.peer.ip(),
                        guest.number,
                        "t",
                        &format!("/{thread}/{turn}"),
                        &"x".repeat(turn % 80),
                    );
                }
            });
        }
    });
    drop(log);
    let writes = shared.writes();
    for write in &writes {
        assert!(write.len() <= 4096 && write.ends_with(b"\n"), "{}", write.escape_ascii());
    }
    let text = shared.text();
    let mut seen: Vec<&str> =
        text.lines().map(|line| line.split('"').nth(1).expect("it")).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 8000);
    assert!(writes.len() < 1000, "{} writes", writes.len());
}

#[test]
fn a_line_that_is_longer_than_a_piece_goes_alone_and_whole() {
    let (guest, _client) = guest();
    let shared = Shared::default();
    let log = log_into(shared.clone(), Format::Short);
    for length in [10, 20_000, 10] {
        log.note(guest.peer.ip(), guest.number, "note", &"x".repeat(length), "");
    }
    drop(log);
    let lengths: Vec<usize> = shared.writes().iter().map(|write| write.len() / 1000).collect();
    assert_eq!(lengths, [0, 20, 0]);
    let has_ended = (0..1000).any(|_| {
        thread::sleep(ms(5));
        Arc::strong_count(&shared.0) == 1
    });
    assert!(has_ended, "the writer outlives its log");
}

/// A pipe that nobody reads, until the gate opens.
struct Stuck {
    gate: Arc<Mutex<()>>,
    out: Shared,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _open = self.gate.lock().expect("no panic");
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_log_that_nobody_reads_stops_no_request_and_says_what_it_lost() {
    let _dog = watchdog(60, "a log that nobody reads");
    let (gate, shared) = (Arc::new(Mutex::new(())), Shared::default());
    let closed = gate.lock().expect("no panic");
    let log = log_into(Stuck { gate: Arc::clone(&gate), out: shared.clone() }, Format::Common);
    let running = serve(&log);
    let mut client = Client::connect(running.address);
    // With a target of 8,000 bytes, three megabytes of log.
    let request = get(&format!("/{}", "x".repeat(8000)));
    for _ in 0..400 {
        client.send(&request);
        assert_eq!(client.answer().map(|answer| answer.status), Some(200));
    }
    assert!(running.stop());
    let began = Instant::now();
    assert!(!log.flush(), "it is stuck");
    assert!(began.elapsed() < ms(2000));
    drop(closed);
    assert!(log.flush());
    drop(log);
    let text = shared.text();
    let lines: Vec<&str> = text.lines().collect();
    let (last, good) = lines.split_last().expect("lines");
    let lost: usize = last.split(' ').nth(2).expect("a number").parse().expect("a number");
    assert_eq!(good.len() + lost, 400, "{last}");
    assert!(lost > 100, "{last}");
    assert!(
        last.starts_with("# 2") && last.ends_with(" lines of this log are lost: nobody read it")
    );
}

/// Takes a little, then fails, then waits, then takes all: a full disk, and a pipe.
struct Moody {
    out: Shared,
    turn: usize,
}

impl Write for Moody {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.turn += 1;
        match self.turn {
            1 => self.out.write(&bytes[..20]),
            2 | 11 => Err(ErrorKind::Interrupted.into()),
            3 => Err(ErrorKind::StorageFull.into()),
            5 => Ok(0),
            4..7 => Err(ErrorKind::BrokenPipe.into()),
            7 | 9 => Err(ErrorKind::WouldBlock.into()),
            _ => self.out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn half_a_line_is_ended_before_the_next_one() {
    let (guest, _client) = guest();
    let shared = Shared::default();
    let log = log_into(Moody { out: shared.clone(), turn: 0 }, Format::Short);
    for note in ["first", "second", "third", "fourth"] {
        log.note(guest.peer.ip(), guest.number, note, "/", "");
        assert!(log.flush());
    }
    drop(log);
    let text = shared.text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].len() == 20 && lines[0].ends_with("127.0.0.1"), "{text}");
    assert!(lines[1].ends_with(" 2 lines of this log are lost: nobody read it"), "{text}");
    assert!(lines[2].ends_with("third \"/\"") && lines[3].ends_with("fourth \"/\""), "{text}");
    assert_eq!(lines.len(), 4, "{text}");
}

// A whole server.

fn serve(log: &Arc<AccessLog>) -> Running {
    let deadlines =
        Deadlines { head: ms(100), tick: ms(5), linger: ms(200), ..Deadlines::default() };
    let server = Server::bind(Settings { port: 0, deadlines, ..Settings::default() });
    let server = server.expect("a free port").observed_by(Arc::<AccessLog>::clone(log));
    server.start(Arc::new(pages))
}

fn pages(exchange: &mut Exchange) -> io::Result<()> {
    match exchange.head.target.path() {
        "/panic/" => panic!("on purpose"),
        "/forge/" => Err(io::Error::other("bad\n127.0.0.1 all is well \x1b[2K\u{9b}2K")),
        "/cut/" => {
            exchange.start(Status::OK, &Headers::new(), None)?;
            exchange.write_body(b"half")?;
            Err(io::Error::other("no more"))
        }
        "/pieces/" => {
            exchange.start(Status::OK, &Headers::new(), None)?;
            exchange.write_body(b"one")?;
            exchange.finish_with(b"two")
        }
        "/shout/" => {
            let mut headers = Headers::new();
            headers.try_push(UPGRADE.as_str(), "shout").expect("a field");
            exchange.switch_protocols(&headers)?.wire.write_all(b"HELLO")
        }
        "/proxy/" => {
            exchange.client = "[::ffff:198.51.100.7]:0".parse::<SocketAddr>().expect("an address");
            exchange.respond(Response::text(Status::OK, "for another"))
        }
        "/sleep/" => {
            thread::sleep(ms(50));
            exchange.respond(Response::text(Status::OK, "slept"))
        }
        _ => {
            let mut body = String::new();
            exchange.read_to_string(&mut body)?;
            exchange.respond(Response::text(Status::OK, "hello"))
        }
    }
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// Sends each on a connection of its own, one after the other; the log's lines.
fn lines_of(format: Format, requests: &[&str]) -> Vec<String> {
    let _dog = watchdog(60, "a server with a log");
    let shared = Shared::default();
    let log = log_into(shared.clone(), format);
    let running = serve(&log);
    for request in requests {
        let mut client = Client::connect(running.address);
        client.send(request);
        client.finish();
        client.all();
    }
    running.stop();
    assert!(log.flush());
    shared.text().lines().map(str::to_string).collect()
}

/// The line without what is different each time: its clock and its duration.
fn timeless(line: &str) -> String {
    let (clock, rest) = line.split_at(11);
    assert!(clock.starts_with('[') && clock.ends_with("] "), "{line}");
    let mut words: Vec<&str> = rest.split(' ').collect();
    for word in &mut words {
        let number = word.trim_end_matches([':', ',']).strip_suffix("ms");
        if number.is_some_and(|number| number.parse::<f64>().is_ok()) {
            *word = if word.ends_with("ms") { "TIME" } else { "TIME:" };
        }
    }
    words.join(" ")
}

#[test]
fn each_request_has_a_line_and_each_connection_may_have_many() {
    let post = "POST /b?c=d HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc";
    let three = [get("/1"), get("/pieces/"), "HEAD /3 HTTP/1.1\r\nHost: a\r\n\r\n".to_string()];
    let lines = lines_of(Format::Short, &[post, &three.concat(), &get("/proxy/")]);
    let lines: Vec<String> = lines.iter().map(|line| timeless(line)).collect();
    let want = [
        "127.0.0.1 \"POST /b?c=d HTTP/1.0\" 200 5 TIME",
        "127.0.0.1 \"GET /1 HTTP/1.1\" 200 5 TIME",
        "127.0.0.1 \"GET /pieces/ HTTP/1.1\" 200 6 TIME",
        "127.0.0.1 \"HEAD /3 HTTP/1.1\" 200 0 TIME",
        // Of the client, and not of the proxy that has asked for it.
        "198.51.100.7 \"GET /proxy/ HTTP/1.1\" 200 11 TIME",
    ];
    assert_eq!(lines, want);
}

#[test]
fn what_went_wrong_is_said_in_the_line() {
    let requests = ["/panic/", "/forge/", "/cut/"].map(get);
    let requests = requests.each_ref().map(String::as_str);
    let lines = lines_of(Format::Short, &requests);
    let lines: Vec<String> = lines.iter().map(|line| timeless(line)).collect();
    let rule = "(RFC 9110, section 15.6.1)";
    let starts = "127.0.0.1 \"GET";
    let want = [
        format!("{starts} /panic/ HTTP/1.1\" 500 180 TIME: the application panicked {rule}"),
        format!(
            "{starts} /forge/ HTTP/1.1\" 500 180 TIME: the application failed: \
             bad\\n127.0.0.1 all is well \\x1b[2K\\xc2\\x9b2K {rule}"
        ),
        format!(
            "{starts} /cut/ HTTP/1.1\" 200 4 TIME: cut: the application failed: no more {rule}"
        ),
    ];
    assert_eq!(lines, want);
    assert_eq!(lines_of(Format::None, &requests).len(), 3);
    assert_eq!(lines_of(Format::None, &[&get("/")]).len(), 0);
}

#[test]
fn what_could_not_be_read_has_its_line_too() {
    let _dog = watchdog(30, "refusals");
    let shared = Shared::default();
    let log = log_into(shared.clone(), Format::Short);
    let running = serve(&log);
    for request in ["GET /\n\n", "GET / HTTP/1.1\r\nHost"] {
        let mut client = Client::connect(running.address);
        client.send(request);
        // The second is never finished, and too late after 100 ms.
        client.all();
    }
    running.stop();
    log.flush();
    let text = shared.text();
    let lines: Vec<&str> = text.lines().map(|line| &line[11..]).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with("127.0.0.1 \"-\" 400 - -: "), "{text}");
    let slow = "127.0.0.1 \"-\" 408 - -: the request head did not arrive in time \
                (RFC 9110, section 15.5.9)";
    assert_eq!(lines[1], slow);
}

#[test]
fn a_conversation_in_another_protocol_has_its_line_at_its_end() {
    let request =
        "GET /shout/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\n";
    let lines = lines_of(Format::Short, &[request]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(timeless(&lines[0]), "127.0.0.1 \"GET /shout/ HTTP/1.1\" 101 0 TIME");
}

#[test]
fn a_websocket_has_a_line_for_each_thing_that_happens_to_it() {
    let _dog = watchdog(30, "WebSockets with a log");
    let application = |scope: &Scope, receive: &mut dyn Receive, send: &mut dyn Emit| {
        let Scope::WebSocket(scope, _) = scope else {
            return Err(Exception::from("WebSockets only"));
        };
        if scope.path == "/no/" {
            return send.send(Event::WebsocketClose(1000, String::new()));
        }
        let subprotocol = (scope.path == "/chat/").then(|| "chat".to_string());
        send.send(Event::WebsocketAccept { subprotocol, headers: Headers::new() })?;
        (0..2).try_for_each(|_| receive.receive().map(drop))
    };
    let shared = Shared::default();
    let log = log_into(shared.clone(), Format::Short);
    let server = Server::bind(Settings { port: 0, ..Settings::default() }).expect("a free port");
    let asgi = Asgi::start(Arc::new(application), server.address()).expect("it starts");
    let gateway = WebSockets::new(Arc::new(asgi), SessionSettings::default());
    let gateway = gateway.observed_by(Arc::<AccessLog>::clone(&log));
    let running = server.start(Arc::new(gateway));
    for (target, bytes) in [
        ("/chat/", frame(CLOSE, &close(4001, "b\u{fc}e"))),
        ("/plain/", frame(CLOSE, &close(1000, ""))),
        // No frame may have this opcode.
        ("/plain/", frame(3, b"")),
        ("/no/", Vec::new()),
    ] {
        let mut peer = Peer::ask(running.address, target, "Sec-WebSocket-Protocol: chat\r\n");
        peer.raw(&bytes);
        peer.finish();
        peer.rest();
    }
    running.stop();
    log.flush();
    let text = shared.text();
    let mut lines: Vec<&str> = text.lines().map(|line| &line[11..]).collect();
    // The client sees the end before it is written down.
    lines.sort_unstable();
    let want = [
        "accept \"/chat/\" chat",
        "accept \"/plain/\"",
        "accept \"/plain/\"",
        "close \"/chat/\" 4001 b\\xc3\\xbce",
        "close \"/plain/\" 1000",
        "close \"/plain/\" 1002: opcode 3 has no meaning",
        "connect \"/chat/\"",
        "connect \"/no/\"",
        "connect \"/plain/\"",
        "connect \"/plain/\"",
        "refuse \"/no/\" 403 Forbidden",
    ];
    assert_eq!(lines, want.map(|rest| format!("127.0.0.1 WebSocket {rest}")));
}

#[test]
fn json_lines_of_a_server_can_be_read_and_their_time_is_the_beginning() {
    let before = SystemTime::now();
    let request =
        "GET /sleep/ HTTP/1.1\r\nHost: a\r\nUser-Agent: caf\u{e9} \\\r\nReferer: http://b/\r\n\r\n";
    let lines = lines_of(Format::Json, &[request, "GET\r\n\r\n"]);
    assert_eq!(lines.len(), 2);
    let good = json(lines[0].as_bytes()).expect("JSON");
    let names: Vec<&str> = good.iter().map(|(name, _)| name.as_str()).collect();
    let known = [
        "time",
        "client",
        "connection",
        "method",
        "target",
        "version",
        "status",
        "bytes",
        "duration_ms",
        "referer",
        "user_agent",
    ];
    assert_eq!(names, known);
    assert_eq!(good[10].1, Json::Text("caf\u{e9} \\".to_string()));
    let Json::Other(duration) = &good[8].1 else { panic!("{good:?}") };
    let duration: f64 = duration.parse().expect("a number");
    assert!((50.0..5000.0).contains(&duration), "{duration}");
    let Json::Text(time) = &good[0].1 else { panic!("{good:?}") };
    let seconds = before.duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let begun = (0..60).any(|later| {
        let entry =
            Entry { time: UNIX_EPOCH + Duration::from_secs(seconds + later), ..entry(b"/") };
        line(&entry, Format::Json)[9..28] == time[..19]
    });
    assert!(begun, "{time}");
    let bad = json(lines[1].as_bytes()).expect("JSON");
    assert_eq!(bad[6].1, Json::Other("400".to_string()));
    assert_eq!(bad[3].1, Json::Other("null".to_string()));
    assert!(bad.iter().any(|(name, _)| name == "rule"), "{bad:?}");
}

#[test]
fn mutated_requests_leave_one_line_for_each_answer() {
    let _dog = watchdog(60, "mutants at a server");
    let shared = Shared::default();
    let log = log_into(shared.clone(), Format::Combined);
    let running = serve(&log);
    let raw = b"GET /a?b=\"\\ HTTP/1.1\r\nHost: a\r\nUser-Agent: \xc2\x9b\xff\"\\\r\nReferer: \x80\r\nConnection: close\r\n\r\n";
    let (mut mutator, mut answers) = (Mutator::new(2525), 0);
    for _ in 0..500 {
        let mut client = Client::connect(running.address);
        client.send(mutator.mutate(raw));
        client.finish();
        answers += client.all().matches("\r\nServer: glasshouse\r\n").count();
    }
    running.stop();
    log.flush();
    let text = shared.text();
    assert!(text.lines().all(|line| is_one_printable_line(format!("{line}\n").as_bytes())));
    assert_eq!(text.lines().count(), answers);
    assert!(answers >= 400, "{answers}");
}

/// Counts what it is told.
#[derive(Default)]
struct Counter(Mutex<[usize; 4]>);

impl Counter {
    fn count(&self, at: usize) {
        self.0.lock().expect("no panic")[at] += 1;
    }
}

impl Observer for Counter {
    fn opened(&self, _: &Guest) {
        self.count(0);
    }

    fn exchanged(&self, _: &Exchange) {
        self.count(1);
    }

    fn refused(&self, _: &Guest, _: &Refusal) {
        self.count(2);
    }

    fn ended(&self, _: &Guest, _: CloseReason) {
        self.count(3);
    }
}

#[test]
fn several_observers_are_told_the_same() {
    let _dog = watchdog(30, "several observers");
    let shared = Shared::default();
    let log = log_into(shared.clone(), Format::Short);
    let counters = [(); 2].map(|()| Arc::new(Counter::default()));
    let all: Vec<Arc<dyn Observer>> = vec![
        Arc::<Counter>::clone(&counters[0]),
        Arc::<AccessLog>::clone(&log),
        Arc::<Counter>::clone(&counters[1]),
    ];
    let server = Server::bind(Settings { port: 0, ..Settings::default() }).expect("a free port");
    let running = server.observed_by(Arc::new(Several(all))).start(Arc::new(pages));
    let mut client = Client::connect(running.address);
    client.send([get("/1"), get("/2"), "GET\r\n\r\n".to_string()].concat());
    client.all();
    drop(client);
    running.stop();
    for counter in counters {
        assert_eq!(*counter.0.lock().expect("no panic"), [1, 2, 1, 1]);
    }
    log.flush();
    assert_eq!(shared.text().lines().count(), 3);
}

// Exercises.

#[test]
#[ignore = "exercise 36.3"]
fn exercise_36_3_the_value_of_a_token_is_not_in_the_log() {
    for format in [Format::Short, Format::Combined, Format::Json] {
        let text = line(&entry(b"/reset/?user=ada&token=s3cret&next=/"), format);
        assert!(text.contains("/reset/?user=ada&token=...&next=/"), "{text}");
        let text = line(&entry(b"/reset/?token=s3cret"), format);
        assert!(text.contains("/reset/?token=...") && !text.contains("s3cret"), "{text}");
        let text = line(&entry(b"/token/"), format);
        assert!(text.contains("/token/"), "{text}");
    }
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
