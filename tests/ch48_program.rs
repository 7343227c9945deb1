//! Chapter 48: the program. First the temporary folder, in places of the tests' own. Then the client
//! of the terminal, with servers that answer late, never, or without end. Last the program: this test
//! program is started once more, and runs one helper of this file.
#![cfg(unix)]

mod support;

use std::env;
use std::fs;
use std::io::{self, BufReader, Cursor, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use glasshouse::gateway::asgi::Asgi;
use glasshouse::gateway::wsgi::Exception;
use glasshouse::http::server::{Running, Server, Settings};
use glasshouse::running::command_line::{Command, Config, Protocol, WebSocketUrl, parse};
use glasshouse::site::program::serve;
use glasshouse::site::temporary::{SPOOL, TemporaryFolder};
use glasshouse::site::terminal::{converse, open};
use glasshouse::web::app::App;
use glasshouse::web::upload::Spool;
use glasshouse::websocket::consumer::{
    Channel, Connected, EchoConsumer, Knock, ProtocolRouter, WebSocketConsumer, ws_path,
};
use glasshouse::websocket::session::{SessionSettings, WebSockets};
use support::Gone;
use support::client::{Answer, Client};
use support::process::Process;
use support::server::port_in;
use support::watchdog::watchdog;
use support::websocket::handshake;

const LIMIT: Duration = Duration::from_secs(20);

fn seconds(range: std::ops::Range<u64>) -> std::ops::Range<Duration> {
    Duration::from_secs(range.start)..Duration::from_secs(range.end)
}

/// A place like /tmp, of a test's own.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = env::temp_dir().join(format!("gh47-{}-{name}", process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Place(path)
    }

    fn folder(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir(&path).expect("a folder");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("our own folder");
        path
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("a folder").flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Makes it two minutes old: no program is still starting there.
fn age(folder: &Path) {
    let long_ago = SystemTime::now() - Duration::from_secs(120);
    let folder = fs::File::open(folder).expect("a folder");
    folder.set_modified(long_ago).expect("our own folder");
}

fn name_of(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

// The temporary folder.

#[test]
fn the_folder_is_private_and_ends_with_its_value() {
    let place = Place::new("private");
    let folder = TemporaryFolder::within(&place.0).expect("a folder");
    fs::write(folder.path.join("upload"), "x").expect("a file");
    let mode = fs::metadata(&folder.path).expect("a folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let other = TemporaryFolder::within(&place.0).expect("a folder");
    assert_ne!(folder.path, other.path);
    drop((folder, other));
    assert_eq!(place.names(), Vec::<String>::new());
}

#[test]
fn whatever_is_there_already_is_not_taken() {
    let place = Place::new("taken");
    fs::write(place.0.join("a file"), "").expect("a file");
    let theirs = place.folder("theirs", 0o777);
    symlink(&theirs, place.0.join("a link")).expect("a link");
    symlink(place.0.join("nowhere"), place.0.join("a link to nowhere")).expect("a link");
    let before = place.names();
    for name in &before {
        let made = TemporaryFolder::make(place.0.join(name)).map_err(|error| error.kind());
        assert_eq!(made.err(), Some(io::ErrorKind::AlreadyExists), "{name}");
    }
    assert_eq!(place.names(), before);
}

#[test]
fn the_folder_of_the_living_stays_and_that_of_the_dead_goes() {
    let place = Place::new("lives");
    let living = TemporaryFolder::within(&place.0).expect("a folder");
    let _spool = Spool::open(&living.path.join(SPOOL)).expect("a spool");
    let dead = TemporaryFolder::within(&place.0).expect("a folder");
    fs::create_dir(dead.path.join(SPOOL)).expect("a folder");
    // What a killed program leaves: the name of a socket, and nobody behind it.
    let lock = dead.path.join(SPOOL).join("spool-0123456789abcdef.live");
    drop(UnixDatagram::bind(lock).expect("a short path"));
    fs::write(dead.path.join("upload-1"), "a visitor's").expect("a file");
    [&living, &dead].into_iter().for_each(|folder| age(&folder.path));
    let third = TemporaryFolder::within(&place.0).expect("a folder");
    let mut left = [&living, &third].map(|folder| name_of(&folder.path));
    left.sort();
    assert_eq!(place.names(), left);
}

#[test]
fn nothing_is_removed_that_is_not_ours_or_may_be_in_use() {
    let place = Place::new("others");
    for (name, mode) in [
        ("glasshouse-0badcafe", 0o755), // ours are closed to others
        ("glasshouse-notes", 0o700),    // no name of ours
        ("glasshouse-0000000", 0o700),
        ("glasshouse-00000000x", 0o700),
        ("target", 0o700),
    ] {
        age(&place.folder(name, mode));
    }
    symlink(place.0.join("target"), place.0.join("glasshouse-00c0ffee")).expect("a link");
    fs::write(place.0.join("glasshouse-0000f11e"), "a file").expect("a file");
    age(&place.0.join("glasshouse-0000f11e"));
    // Somebody may be about to open a spool in it.
    place.folder("glasshouse-0000beef", 0o700);
    let stranger = place.folder("glasshouse-5a5a5a5a", 0o700);
    age(&stranger);
    // Only root may give a folder away.
    if chown(&stranger, Some(12_345), None).is_err() {
        fs::remove_dir(&stranger).expect("our own folder");
    }
    let before = place.names();
    drop(TemporaryFolder::within(&place.0).expect("a folder"));
    assert_eq!(place.names(), before);
    assert_eq!(fs::read_dir(place.0.join("target")).expect("a folder").count(), 0);
}

// The client of the terminal.

/// What a server of these tests does when it hears something.
#[derive(Clone)]
enum Mood {
    Late,
    Deaf,
    Hostile,
}

impl WebSocketConsumer for Mood {
    fn receive(&mut self, text: String, channel: &Channel) -> Result<(), Exception> {
        match self {
            Mood::Late => {
                thread::sleep(Duration::from_secs(1));
                channel.send_text(text)
            }
            Mood::Deaf => Ok(()),
            Mood::Hostile => channel.close(1008, "not \x1b[2J you"),
        }
    }
}

/// Says something ten times a second, and remembers how it ended.
struct Chatter(Arc<Mutex<Sender<u16>>>);

impl WebSocketConsumer for Chatter {
    fn connect(&mut self, knock: Knock) -> Connected {
        let channel = knock.accept()?;
        let own = channel.clone();
        thread::spawn(move || {
            while own.send_text("and then").is_ok() {
                thread::sleep(Duration::from_millis(100));
            }
        });
        Ok(channel)
    }

    fn disconnect(&mut self, code: u16) {
        let _ = self.0.lock().expect("no panic while held").send(code);
    }
}

/// A server with all of them, and the codes with which chatters end.
fn moods() -> (Running, Receiver<u16>) {
    let (tell, codes) = mpsc::channel();
    let tell = Arc::new(Mutex::new(tell));
    let site = ProtocolRouter::new(App::new())
        .with(ws_path("echo/", EchoConsumer::new))
        .with(ws_path("late/", || Mood::Late))
        .with(ws_path("deaf/", || Mood::Deaf))
        .with(ws_path("hostile/", || Mood::Hostile))
        .with(ws_path("chatter/", move || Chatter(Arc::clone(&tell))));
    let server = Server::bind(Settings { port: 0, ..Settings::default() }).expect("a port");
    let asgi = Asgi::start(Arc::new(site), server.address()).expect("no lifespan");
    let gateway = WebSockets::new(Arc::new(asgi), SessionSettings::default());
    (server.start(Arc::new(gateway)), codes)
}

fn url(address: SocketAddr, target: &str) -> WebSocketUrl {
    let (host, port) = (address.ip().to_string(), address.port());
    WebSocketUrl { authority: address.to_string(), host, port, target: target.to_string() }
}

/// How it ended, what was printed, and how long it took.
fn talk(address: SocketAddr, target: &str, lines: &[u8]) -> (Result<(), String>, String, Duration) {
    let socket = open(&url(address, target), &Config::new(Protocol::AsgiWs)).expect("a WebSocket");
    let (mut out, began) = (Vec::new(), Instant::now());
    let ended = converse(socket, Cursor::new(lines.to_vec()), &mut out);
    (ended, String::from_utf8(out).expect("text"), began.elapsed())
}

#[test]
fn each_line_is_a_message_and_each_message_a_line() {
    let _dog = watchdog(30, "the echo");
    let (running, _) = moods();
    let (ended, printed, _) = talk(running.address, "/echo/", b"Hello\r\n\n\xff\x00\nno line end");
    assert_eq!(printed, "Hello\n\n2 bytes: ff00\nno line end\n");
    assert_eq!(ended, Ok(()));
}

#[test]
fn a_late_answer_is_waited_for_and_one_that_never_comes_only_so_long() {
    let _dog = watchdog(60, "late and deaf");
    let (running, _) = moods();
    let (ended, printed, took) = talk(running.address, "/late/", b"Hello\n");
    assert_eq!((ended, printed.as_str()), (Ok(()), "Hello\n"));
    assert!(seconds(1..9).contains(&took), "{took:?}");
    let (ended, printed, took) = talk(running.address, "/deaf/", b"Hello\n");
    assert_eq!((ended, printed.as_str()), (Ok(()), ""));
    assert!(seconds(2..9).contains(&took), "{took:?}");
}

#[test]
fn whoever_never_stops_talking_is_left_after_ten_seconds() {
    let _dog = watchdog(60, "a chatter");
    let (running, codes) = moods();
    let (ended, printed, took) = talk(running.address, "/chatter/", b"");
    assert_eq!((ended, codes.recv_timeout(LIMIT)), (Ok(()), Ok(1000)));
    assert!(printed.matches("and then\n").count() > 20, "{printed}");
    assert!(seconds(10..19).contains(&took), "{took:?}");
}

#[test]
fn a_reader_that_has_gone_is_no_error_and_the_server_hears_of_it() {
    let _dog = watchdog(30, "| head -1");
    let (running, codes) = moods();
    let config = Config::new(Protocol::AsgiWs);
    let socket = open(&url(running.address, "/chatter/"), &config).expect("a WebSocket");
    // The input is still open, and nothing comes.
    let (_typist, input) = UnixStream::pair().expect("a pair");
    assert_eq!(converse(socket, BufReader::new(input), &mut Gone), Ok(()));
    assert_eq!(codes.recv_timeout(LIMIT), Ok(1001));
}

#[test]
fn a_server_that_closes_with_a_complaint_is_quoted() {
    let _dog = watchdog(30, "hostile");
    let (running, _) = moods();
    let (ended, printed, _) = talk(running.address, "/hostile/", b"Hello\n");
    let words = ended.expect_err("1008 is no good end");
    assert!(words.contains("1008") && words.contains("you"), "{words}");
    assert_eq!(printed, "");
}

#[test]
fn an_answer_that_comes_byte_by_byte_has_one_deadline() {
    let _dog = watchdog(60, "a head that drips");
    let door = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = door.local_addr().expect("a port");
    let dripping = thread::spawn(move || {
        let (mut stream, _) = door.accept().expect("the client");
        while stream.write_all(b"a").is_ok() {
            thread::sleep(Duration::from_millis(200));
        }
    });
    let began = Instant::now();
    let opened = open(&url(address, "/"), &Config::new(Protocol::AsgiWs));
    assert_eq!(opened.err(), Some("no answer within 10 s".to_string()));
    assert!(seconds(10..19).contains(&began.elapsed()), "{:?}", began.elapsed());
    dripping.join().expect("its end");
}

// The program.

#[test]
#[ignore = "a part of other tests"]
fn helper_program() {
    let Ok(flags) = env::var("FLAGS") else { return };
    // Of the environment it knows one variable: others may be set where the tests run.
    let known = |name: &str| env::var_os(name).filter(|_| name == "SERVER_PROTOCOL");
    let Ok(Command::Serve(config)) = parse(None, flags.split_whitespace(), known) else { return };
    let code = match serve(*config) {
        Ok(()) => 0,
        Err(problem) => {
            let _ = io::stderr().write_all(format!("\n{problem}\n").as_bytes());
            1
        }
    };
    process::exit(code);
}

/// Starts the program, with `place` for temporary things, and in that folder.
fn start(place: &Place, protocol: &str, flags: &str) -> Process {
    let mut command = Process::in_one(&env::current_exe().expect("the path of this test program"));
    command.args(["--exact", "helper_program", "--ignored", "--nocapture"]);
    command.env("FLAGS", flags).env("SERVER_PROTOCOL", protocol).env("TMPDIR", &place.0);
    Process::spawn(command.current_dir(&place.0))
}

/// The same at a free port, and waits for its greeting.
fn greeted(place: &Place, protocol: &str) -> (Process, SocketAddr) {
    let process = start(place, protocol, "--port 0");
    let port = |lines: &[String]| lines.iter().find_map(|line| port_in(line));
    assert!(process.until(LIMIT, |lines| port(lines).is_some()), "{:?}", process.lines());
    let port = port(&process.lines()).expect("just seen");
    (process, ([127, 0, 0, 1], port).into())
}

#[track_caller]
fn ask(address: SocketAddr, request: &str) -> Answer {
    let mut client = Client::connect(address);
    client.send(request);
    client.answer().expect("an answer")
}

#[test]
fn the_same_site_stands_behind_three_contracts_and_in_any_folder() {
    let _dog = watchdog(60, "three contracts");
    let place = Place::new("three");
    let mut seen = Vec::new();
    for (protocol, websocket) in [("wsgi", 404), ("asgi_http", 404), ("asgi_ws", 101)] {
        let (_process, address) = greeted(&place, protocol);
        assert_eq!(ask(address, &handshake("/ws/echo/", "")).status, websocket, "{protocol}");
        for target in ["/", "/json/", "/static/style.css", "/nowhere/"] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let answer = ask(address, &request);
            assert_eq!(answer.status, if target == "/nowhere/" { 404 } else { 200 });
            // The first page has links to WebSockets where there are some.
            if target != "/" {
                seen.push((target, answer.text()));
            }
        }
    }
    assert_eq!((&seen[..3], &seen[..3]), (&seen[3..6], &seen[6..]));
}

#[test]
fn after_the_end_nothing_is_left() {
    let _dog = watchdog(60, "the end");
    let place = Place::new("end");
    for protocol in ["wsgi", "asgi_ws"] {
        let (mut process, address) = greeted(&place, protocol);
        let body = "--x\r\nContent-Disposition: form-data; name=\"a\"; filename=\"a\"\r\n\r\n\
                    hello\r\n--x--\r\n";
        let fields = "Host: a\r\nContent-Type: multipart/form-data; boundary=x\r\n";
        let length = body.len();
        let head = format!("POST /upload/ HTTP/1.1\r\n{fields}Content-Length: {length}\r\n\r\n");
        assert_eq!(ask(address, &(head + body)).status, 200);
        let [own] = &place.names()[..] else { panic!("{:?}", place.names()) };
        let kept = fs::read_dir(place.0.join(own)).expect("its folder").flatten();
        assert_eq!(kept.filter(|entry| name_of(&entry.path()).starts_with("upload-")).count(), 1);
        process.signal("TERM");
        assert_eq!(process.finish(LIMIT), Some(Some(0)));
        let line = "\"POST /upload/ HTTP/1.1\" 200";
        assert!(process.lines().iter().any(|it| it.contains(line)), "{:?}", process.lines());
        assert_eq!(place.names(), Vec::<String>::new());
    }
}

#[test]
fn what_is_wrong_is_said_once_without_a_greeting_and_nothing_is_left() {
    let _dog = watchdog(60, "wrong flags");
    let place = Place::new("wrong");
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = holder.local_addr().expect("a port").port();
    let long = "x".repeat(200);
    for (flags, words) in [
        ("--port 0 --static /nothing/here", "/nothing/here: "),
        ("--port 0 --templates /nothing/here", "/nothing/here: No such file"),
        ("--port 0 --uploads /dev/null/here", "/dev/null/here: "),
        (&format!("--port 0 --uploads {long}"), "/.spool: "),
        ("--port 0 static:/nothing/here", "/nothing/here: "),
        (&format!("--port {taken}"), " is taken"),
    ] {
        let mut process = start(&place, "asgi_ws", flags);
        assert_eq!(process.finish(LIMIT), Some(Some(1)), "{flags}");
        let printed = process.lines().join("\n");
        assert_eq!(printed.matches(words).count(), 1, "{printed}");
        assert!(!printed.contains("http://"), "{printed}");
        let _ = fs::remove_dir_all(place.0.join(&long));
        assert_eq!(place.names(), Vec::<String>::new(), "{flags}");
    }
}

#[test]
fn what_a_killed_program_has_left_is_removed_by_the_next() {
    let _dog = watchdog(60, "kill -9");
    let place = Place::new("killed");
    let (living, _) = greeted(&place, "wsgi");
    let first = place.names();
    let (killed, _) = greeted(&place, "asgi_ws");
    killed.signal("KILL");
    drop(killed);
    assert_eq!(place.names().len(), 2);
    place.names().iter().for_each(|name| age(&place.0.join(name)));
    let (next, _) = greeted(&place, "wsgi");
    let left = place.names();
    assert_eq!((left.len(), left.contains(&first[0])), (2, true), "{left:?}");
    for mut process in [living, next] {
        process.signal("TERM");
        assert_eq!(process.finish(LIMIT), Some(Some(0)));
    }
    assert_eq!(place.names(), Vec::<String>::new());
}

// Exercises.

#[test]
#[ignore = "exercise 48.3"]
fn exercise_48_3_a_folder_of_uploads_where_everybody_may_write_is_refused() {
    let place = Place::new("open");
    let mut config = Config::new(Protocol::Wsgi);
    config.settings.port = 0;
    // So that it comes back in any case.
    config.static_files = Some("/nothing/here".into());
    config.uploads = Some(place.folder("closed", 0o755));
    let problem = serve(config.clone()).expect_err("no static files");
    assert!(problem.contains("/nothing/here"), "{problem}");
    config.uploads = Some(place.folder("open", 0o777));
    let problem = serve(config).expect_err("everybody may write");
    assert!(problem.contains("open: everybody may write"), "{problem}");
}

#[test]
#[ignore = "exercise 48.4"]
fn exercise_48_4_bytes_can_be_typed() {
    let _dog = watchdog(30, "hex");
    let (running, _) = moods();
    let lines = b"hex 00ff\nhex 0\nhex +f\nhexagon\nhex 4a5b\n";
    let (ended, printed, _) = talk(running.address, "/echo/", lines);
    assert_eq!(printed, "2 bytes: 00ff\nhex 0\nhex +f\nhexagon\n2 bytes: 4a5b\n");
    assert_eq!(ended, Ok(()));
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
