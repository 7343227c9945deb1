//! The programs as processes: their command line, their log, their signals, their workers, and what
//! they believe of a proxy. The pages are in `tests/site.rs`.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::client::Client;
use support::has_python;
use support::process::Process;
use support::server::Server;
use support::watchdog::watchdog;
use support::websocket::{BINARY, PING, PONG, Peer, frame, handshake};

const PLAIN: &str = env!("CARGO_BIN_EXE_glasshouse");
const WSGI: &str = env!("CARGO_BIN_EXE_wsgi");
const ASGI_HTTP: &str = env!("CARGO_BIN_EXE_asgi_http");
const ASGI_WS: &str = env!("CARGO_BIN_EXE_asgi_ws");
const ALL: [&str; 3] = [WSGI, ASGI_HTTP, ASGI_WS];

const LIMIT: Duration = Duration::from_secs(20);

/// Nothing of the environment of these tests reaches a program.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for name in ["HOST", "PORT", "WEB_CONCURRENCY", "NO_COLOR", "SERVER_PROTOCOL"] {
        command.env_remove(name);
    }
    command
}

/// Runs a program to its end: its exit code, standard output, standard error.
fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.stdin(Stdio::null()).output().expect("the program");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn run_flags(program: &str, flags: &[&str]) -> (Option<i32>, String, String) {
    run(command(program).args(flags))
}

fn address(server: &Server) -> SocketAddr {
    server.address().parse().expect("an address")
}

/// One request on a connection of its own, with these fields; the text of the answer's body.
#[track_caller]
fn get(server: &Server, path: &str, fields: &str) -> String {
    let mut client = Client::connect(address(server));
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n"));
    let answer = client.answer().expect("an answer");
    String::from_utf8_lossy(&answer.body).into_owned()
}

// The command line.

#[test]
fn help_is_help_and_no_error() {
    let _dog = watchdog(30, "--help");
    for program in [WSGI, ASGI_HTTP, ASGI_WS, PLAIN] {
        let (code, out, err) = run_flags(program, &["--help"]);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        for flag in ["--host", "--port", "--threads", "--workers", "--wire", "--uploads"] {
            assert!(out.contains(flag), "{flag} is not in\n{out}");
        }
        let has_ws = program == ASGI_WS || program == PLAIN;
        assert_eq!(out.contains("--ws-origin"), has_ws, "{out}");
        let name = program.rsplit('/').next().expect("a name");
        assert!(out.contains(&format!("Usage: {name} [APPLICATION] [--flag")), "{out}");
    }
}

#[test]
fn help_for_a_reader_who_goes_away_is_no_error() {
    let _dog = watchdog(30, "--help | head -1");
    let mut command = command(WSGI);
    command.arg("--help").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program");
    drop(child.stdout.take());
    let mut err = String::new();
    let errors = child.stderr.as_mut().expect("standard error");
    errors.read_to_string(&mut err).expect("text");
    assert_eq!((child.wait().expect("the end").code(), err.as_str()), (Some(0), ""));
}

#[test]
fn the_version_is_that_of_the_package() {
    let _dog = watchdog(30, "--version");
    for program in ALL {
        let version = format!("glasshouse {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(run_flags(program, &["--version"]), (Some(0), version, String::new()));
    }
}

#[test]
fn a_wrong_flag_ends_with_advice() {
    let _dog = watchdog(30, "wrong flags");
    for (flags, words) in [
        (&["--prot", "8000"][..], "There is no flag \"--prot\". Perhaps you mean --port?"),
        (&["--port", "80000"], "--port takes a number from 0 to 65535; not \"80000\"."),
        (&["--threads", "0"], "--threads takes a number from 1 to 12000; not \"0\"."),
        (&["--ws-origin", "http://a"], "--ws-origin is a flag of asgi_ws only."),
        (&["--host"], "--host needs a value: a host name or an address, without a port."),
    ] {
        let (code, out, err) = run_flags(WSGI, flags);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{flags:?}");
        assert_eq!(err, format!("{words}\nTry --help.\n"));
    }
}

#[test]
fn server_protocol_chooses_one_of_three() {
    let _dog = watchdog(60, "SERVER_PROTOCOL");
    let (code, out, err) = run(command(PLAIN).env("SERVER_PROTOCOL", "bad"));
    assert_eq!((code, out.as_str()), (Some(2), ""));
    let three = "SERVER_PROTOCOL is one of wsgi, asgi_http, asgi_ws; not \"bad\".";
    assert_eq!(err, format!("{three}\nTry --help.\n"));
    for name in ["", "wsgi", "asgi_http", "asgi_ws"] {
        let mut command = command(PLAIN);
        let flags = ["--port", "0"];
        let process = Process::spawn(command.args(flags).env("SERVER_PROTOCOL", name));
        assert!(process.until(LIMIT, |lines| !lines.is_empty()));
        let chosen = if name.is_empty() { "wsgi" } else { name };
        let line = process.lines().remove(0);
        assert!(line.contains(&format!("/ ({chosen}, 1 worker,")), "{line}");
    }
}

#[test]
fn a_port_that_is_taken_ends_with_advice() {
    let _dog = watchdog(30, "a taken port");
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = holder.local_addr().expect("an address").port().to_string();
    for workers in ["1", "2"] {
        let (code, _, err) = run_flags(WSGI, &["--port", &port, "--workers", workers]);
        assert_eq!(code, Some(1));
        assert!(err.contains(&format!("127.0.0.1:{port} is taken")), "{err}");
        assert!(err.contains("--port 8001") && !err.contains("http://"), "{err}");
    }
}

#[test]
fn what_is_wrong_with_the_site_is_said_once_and_before_it_is_served() {
    let _dog = watchdog(30, "a missing folder");
    for workers in ["1", "3"] {
        let flags = ["--port", "0", "--static", "/nothing/here", "--workers", workers];
        let (code, _, err) = run_flags(ASGI_HTTP, &flags);
        assert_eq!(code, Some(1));
        assert_eq!(err.matches("/nothing/here").count(), 1, "{err}");
        assert!(!err.contains("http://"), "{err}");
    }
}

// The log.

#[test]
fn each_request_is_one_line_on_stderr() {
    let _dog = watchdog(30, "the access log");
    let server = Server::start(WSGI, &[]);
    get(&server, "/healthz?a=%1b\"", "");
    let line = server.wait_for("/healthz");
    let (time, rest) = line.split_at(11);
    let shape: String = time.chars().map(|it| if it.is_ascii_digit() { '0' } else { it }).collect();
    assert_eq!(shape, "[00:00:00] ");
    let rest = rest.strip_suffix("ms").expect("a time");
    let (rest, took) = rest.rsplit_once(' ').expect("a time");
    assert_eq!(rest, r#"127.0.0.1 "GET /healthz?a=%1b\" HTTP/1.1" 200 3"#);
    assert!(took.parse::<f64>().is_ok(), "{line}");
    // Standard error is no terminal here, so there is no colour.
    assert!(!server.lines().join("").contains('\u{1b}'));
}

#[test]
fn the_format_of_the_log_can_be_chosen() {
    let _dog = watchdog(60, "--access-log");
    for (format, piece) in [
        ("json", "\"target\":\"/healthz\""),
        ("common", "+0000] \"GET /healthz HTTP/1.1\" 200 3"),
        ("combined", "\"GET /healthz HTTP/1.1\" 200 3 \"-\" \"-\""),
    ] {
        let server = Server::start(WSGI, &["--access-log", format]);
        get(&server, "/healthz", "");
        server.wait_for(piece);
        get(&server, "/panic/", "");
        server.wait_for("the application panicked");
    }
    let server = Server::start(WSGI, &["--access-log", "none"]);
    get(&server, "/healthz", "");
    get(&server, "/panic/", "");
    server.wait_for("the application panicked");
    assert!(!server.lines().join("\n").contains("/healthz"));
}

// Signals.

#[test]
fn sigterm_lets_a_request_finish_and_ends_with_0() {
    let _dog = watchdog(60, "SIGTERM");
    for program in ALL {
        for workers in ["1", "2"] {
            let server = Server::start(program, &["--workers", workers]);
            let mut client = Client::connect(address(&server));
            client.send("GET /sleep/0.5/ HTTP/1.1\r\nHost: a\r\n\r\n");
            thread::sleep(Duration::from_millis(200));
            let (code, printed) = server.stop();
            assert_eq!(code, Some(0), "{printed}");
            assert!(printed.contains("stopping: requests that have begun may finish"));
            assert!(printed.contains("\"GET /sleep/0.5/ HTTP/1.1\" 200"), "{printed}");
            assert_eq!(client.answer().map(|answer| answer.status), Some(200));
        }
    }
}

#[test]
fn a_second_signal_waits_for_nobody() {
    let _dog = watchdog(60, "two signals");
    for workers in ["1", "2"] {
        let server = Server::start(WSGI, &["--workers", workers]);
        let mut client = Client::connect(address(&server));
        client.send("GET /sleep/60/ HTTP/1.1\r\nHost: a\r\n\r\n");
        thread::sleep(Duration::from_millis(200));
        let began = Instant::now();
        server.process().signal("INT");
        server.wait_for("once more to stop at once");
        let (code, printed) = server.stop();
        assert_eq!(code, Some(0));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(client.all(), "");
        assert!(printed.contains("\nstopping at once"), "{printed}");
    }
}

#[test]
fn a_second_signal_waits_for_no_python_either() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(60, "two signals for Python");
    let server = Server::start(WSGI, &["tests.python.stays:application"]);
    assert_eq!(get(&server, "/", ""), "Hello, world!\n");
    let began = Instant::now();
    server.process().signal("INT");
    server.wait_for("once more to stop at once");
    thread::sleep(Duration::from_millis(300));
    assert!(!server.process().ended(), "a thread keeps the worker from ending");
    let (code, printed) = server.stop();
    assert_eq!(code, Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(printed.contains("\nstopping at once"), "{printed}");
}

#[test]
#[cfg(unix)]
fn a_file_that_may_not_grow_costs_an_upload_and_not_the_server() {
    let _dog = watchdog(60, "ulimit -f");
    let part = "Content-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
    let body = format!("--x\r\n{part}{}\r\n--x--\r\n", "a".repeat(1 << 20));
    let upload = format!(
        "POST /upload/ HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=x\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    for workers in ["1", "2"] {
        let mut shell = command("sh");
        shell.args(["-c", "ulimit -f 100; exec \"$0\" \"$@\"", WSGI]);
        let mut process = Process::spawn(shell.args(["--port", "0", "--workers", workers]));
        let port = |lines: &[String]| lines.iter().find_map(|line| support::server::port_in(line));
        assert!(process.until(LIMIT, |lines| port(lines).is_some()), "{:?}", process.lines());
        let address = ([127, 0, 0, 1], port(&process.lines()).expect("a port")).into();
        for _ in 0..2 {
            let mut client = Client::connect(address);
            client.send(&upload);
            // RFC 4918, section 11.5.
            assert_eq!(client.answer().map(|answer| answer.status), Some(507));
        }
        process.signal("TERM");
        assert_eq!(process.finish(LIMIT), Some(Some(0)), "{:?}", process.lines());
    }
}

#[test]
fn the_graceful_timeout_bounds_the_wait() {
    let _dog = watchdog(30, "--graceful-timeout");
    for workers in ["1", "2"] {
        let flags = ["--graceful-timeout", "0.3", "--workers", workers];
        let server = Server::start(WSGI, &flags);
        let mut client = Client::connect(address(&server));
        client.send("GET /sleep/60/ HTTP/1.1\r\nHost: a\r\n\r\n");
        thread::sleep(Duration::from_millis(200));
        // Whoever is between two requests is not cut, and not counted.
        let mut idle = Client::connect(address(&server));
        idle.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(idle.answer().map(|answer| answer.status), Some(200));
        let began = Instant::now();
        let (code, printed) = server.stop();
        assert_eq!(code, Some(0));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(printed.contains("\nunfinished requests, cut after 0.3 s: 1"), "{printed}");
    }
}

#[test]
fn a_signal_right_behind_the_greeting_ends_it_as_any_other() {
    let _dog = watchdog(60, "an early signal");
    for workers in ["1", "2"] {
        for _ in 0..10 {
            let mut command = command(WSGI);
            let flags = ["--port", "0", "--workers", workers];
            command.args(flags).stdin(Stdio::null()).stderr(Stdio::piped());
            let mut server = command.spawn().expect("the program");
            // A shell that is ready before the greeting is there: to start one takes too long.
            let mut shell = Command::new("sh");
            let kill = ["-c", "read line; kill -s TERM \"$0\"", &server.id().to_string()];
            let mut killer = shell.args(kill).stdin(Stdio::piped()).spawn().expect("a shell");
            let mut told = killer.stdin.take().expect("its input");
            let mut printed = BufReader::new(server.stderr.take().expect("its output"));
            let mut line = String::new();
            printed.read_line(&mut line).expect("the greeting");
            told.write_all(b"now\n").expect("a shell that listens");
            printed.read_to_string(&mut line).expect("the rest");
            let code = server.wait().expect("its end").code();
            assert_eq!(code, Some(0), "{line}");
            // No worker ends by a signal without a word about the reason.
            let count = |words: &str| line.matches(words).count();
            assert_eq!(count("SIGKILL"), count("was still starting: killed"), "{line}");
            assert!(killer.wait().expect("its end").success());
        }
    }
}

#[test]
#[cfg(unix)]
fn at_the_end_nobody_waits_for_whoever_should_read_the_log() {
    use std::os::{fd::OwnedFd, unix::net::UnixStream};
    let _dog = watchdog(60, "a log that nobody reads");
    for workers in ["1", "2"] {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let copy = theirs.try_clone().expect("a copy");
        let mut command = command(WSGI);
        command.args(["--port", "0", "--workers", workers]).stdin(Stdio::null());
        let mut server = command.stderr(OwnedFd::from(copy)).spawn().expect("the program");
        let mut lines = BufReader::new(ours).lines();
        let (mut ready, wanted) = (0, if workers == "1" { 0 } else { 2 });
        assert!(lines.next().is_some_and(|line| line.is_ok_and(|line| line.contains("http://"))));
        while ready < wanted {
            let line = lines.next().expect("more").expect("a line");
            ready += usize::from(line.contains("is ready"));
        }
        theirs.set_nonblocking(true).expect("a socket");
        while (&theirs).write(&[b'x'; 512]).is_ok() {}
        while (&theirs).write(b"x").is_ok() {}
        theirs.set_nonblocking(false).expect("a socket");
        signal("TERM", server.id());
        let began = Instant::now();
        let end = loop {
            match server.try_wait().expect("a child") {
                Some(end) => break end.code(),
                None if began.elapsed() > LIMIT => {
                    let _ = server.kill();
                    break server.wait().expect("its end").code();
                }
                None => thread::sleep(Duration::from_millis(10)),
            }
        };
        assert_eq!(end, Some(0), "{workers} workers");
    }
}

// WebSockets.

#[test]
fn a_websocket_echoes_answers_pings_and_hears_1001_at_the_end() {
    let _dog = watchdog(60, "asgi_ws");
    for workers in ["1", "2"] {
        let server = Server::start(ASGI_WS, &["--workers", workers]);
        let mut peer = Peer::open(address(&server), "/ws/echo/");
        peer.text("hello");
        peer.hears("hello");
        peer.send(BINARY, [0, 255]);
        assert_eq!(peer.frame(), Some((BINARY, vec![0, 255])));
        peer.send(PING, "are you there?");
        assert_eq!(peer.frame(), Some((PONG, b"are you there?".to_vec())));
        server.wait_for("127.0.0.1 WebSocket accept \"/ws/echo/\"");
        let end = thread::spawn(move || peer.end().0);
        let (code, printed) = server.stop();
        assert_eq!((code, end.join().expect("a code")), (Some(0), 1001));
        assert!(printed.contains("WebSocket close \"/ws/echo/\" 1001"), "{printed}");
        assert!(printed.contains("\"GET /ws/echo/ HTTP/1.1\" 101"), "{printed}");
    }
}

#[test]
fn flags_say_who_may_open_a_websocket_and_how_long_a_message_may_be() {
    let _dog = watchdog(30, "--ws-origin");
    let flags = ["--ws-origin", "https://friend.example", "--ws-max-message", "1000"];
    let server = Server::start(ASGI_WS, &flags);
    for (origin, status) in [("https://friend.example", "101"), ("https://foe.example", "403")] {
        let mut client = Client::connect(address(&server));
        client.send(handshake("/ws/echo/", &format!("Origin: {origin}\r\n")));
        let mut line = String::new();
        BufReader::new(&client.stream).read_line(&mut line).expect("a line");
        assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{line}");
    }
    server.wait_for("WebSocket refuse \"/ws/echo/\" 403 Forbidden");
    let mut peer = Peer::open(address(&server), "/ws/echo/");
    peer.raw(&frame(BINARY, &[0; 1001]));
    assert_eq!(peer.end().0, 1009);
}

// Workers.

/// The pid of each worker that has said that it is ready, the newest last.
fn workers(lines: &[String]) -> Vec<u32> {
    let pid = |line: &String| {
        let (_, rest) = line.strip_suffix(") is ready")?.split_once("(pid ")?;
        rest.parse().ok()
    };
    lines.iter().filter_map(pid).collect()
}

fn wait_for_workers(server: &Server, count: usize) -> Vec<u32> {
    let began = Instant::now();
    while workers(&server.lines()).len() < count && began.elapsed() < LIMIT {
        thread::sleep(Duration::from_millis(5));
    }
    workers(&server.lines())
}

fn signal(name: &str, pid: u32) {
    let mut shell = Command::new("sh");
    let status = shell.args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()]).status();
    assert!(status.expect("a shell").success());
}

#[test]
fn two_workers_answer_at_one_address_and_say_who_they_are() {
    let _dog = watchdog(60, "--workers 2");
    let server = Server::start(WSGI, &["--workers", "2"]);
    let pids = wait_for_workers(&server, 2);
    let mut seen = Vec::new();
    let began = Instant::now();
    while seen.len() < 2 && began.elapsed() < LIMIT {
        let json = get(&server, "/trends/", "Accept: application/json\r\n");
        let (_, rest) = json.split_once("\"process\": ").expect("a process");
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let pid: u32 = digits.parse().expect("a number");
        assert!(pids.contains(&pid), "{pid} is none of {pids:?}");
        if !seen.contains(&pid) {
            seen.push(pid);
        }
    }
    assert_eq!(seen.len(), 2);
    let page = get(&server, "/trends/", "");
    assert!(page.contains("2 workers serve this site"), "{page}");
    let environ = get(&server, "/compare/", "");
    assert!(environ.contains("<code>wsgi.multiprocess</code> True"), "{environ}");
    let greetings = server.lines().iter().filter(|line| line.contains("http://")).count();
    assert_eq!(greetings, 1);
}

#[test]
fn a_worker_that_is_killed_is_replaced_and_leaves_no_zombie() {
    let _dog = watchdog(60, "kill -9");
    for program in [WSGI, ASGI_WS] {
        let server = Server::start(program, &["--workers", "2"]);
        let before = wait_for_workers(&server, 2);
        signal("KILL", before[0]);
        let after = wait_for_workers(&server, 3);
        assert_eq!(after.len(), 3);
        for _ in 0..20 {
            assert_eq!(get(&server, "/healthz", ""), "ok\n");
        }
        assert!(!std::path::Path::new(&format!("/proc/{}", before[0])).exists());
        let supervisor = server.process().id();
        let (code, printed) = server.stop();
        assert_eq!(code, Some(0), "{printed}");
        for pid in after.iter().chain([&supervisor]) {
            let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            assert!(state.is_empty() || state.contains(") Z"), "{pid} lives: {state}");
            assert!(*pid == supervisor || state.is_empty(), "{pid} is a zombie");
        }
    }
}

#[test]
fn too_few_descriptors_are_said_once() {
    let _dog = watchdog(60, "ulimit -n");
    let mut cases = vec![(WSGI, "--workers=1", "", 68), (WSGI, "--workers=2", "", 68)];
    if has_python() {
        // Each guest of theirs has a lane too, and each WebSocket two ends of it.
        cases.push((WSGI, "tests.python.hello:application", "--threads=400", 34));
        cases.push((ASGI_WS, "tests.python.raw_asgi:app", "--threads=400", 22));
    }
    for (program, argument, threads, most) in cases {
        let mut process = with_descriptors(100, program, &[argument, threads]);
        let warning = format!("open files for {most} only: raise `ulimit -n`, or take");
        let warned = |lines: &[String]| lines.iter().any(|line| line.contains(&warning));
        assert!(process.until(LIMIT, warned), "{:?}", process.lines());
        process.signal("TERM");
        assert_eq!(process.finish(LIMIT), Some(Some(0)));
        let warnings = process.lines().iter().filter(|line| line.contains("ulimit -n")).count();
        assert_eq!(warnings, 1);
    }
}

#[test]
fn who_asks_for_no_number_of_threads_has_as_many_as_there_are_descriptors_for() {
    let _dog = watchdog(60, "ulimit -n");
    if !has_python() {
        return;
    }
    let mut process = with_descriptors(100, WSGI, &["tests.python.hello:application"]);
    let greeted = |lines: &[String]| lines.iter().any(|line| line.contains("up to 34 threads"));
    assert!(process.until(LIMIT, greeted), "{:?}", process.lines());
    process.signal("TERM");
    assert_eq!(process.finish(LIMIT), Some(Some(0)));
    assert!(!process.lines().concat().contains("ulimit"), "{:?}", process.lines());
}

fn with_descriptors(limit: usize, program: &str, arguments: &[&str]) -> Process {
    let mut command = command("sh");
    let line = format!("ulimit -n {limit}; exec \"$0\" --port 0 \"$@\"");
    command.args(["-c", &line, program]);
    command.args(arguments.iter().filter(|argument| !argument.is_empty()));
    Process::spawn(&mut command)
}

#[test]
fn sighup_replaces_the_workers_and_nobody_notices() {
    let _dog = watchdog(60, "SIGHUP");
    let server = Server::start(ASGI_HTTP, &["--workers", "2"]);
    wait_for_workers(&server, 2);
    server.process().signal("HUP");
    while workers(&server.lines()).len() < 4 {
        assert_eq!(get(&server, "/healthz", ""), "ok\n");
    }
    for _ in 0..20 {
        assert_eq!(get(&server, "/healthz", ""), "ok\n");
    }
    assert_eq!(server.stop().0, Some(0));
}

#[test]
fn workers_share_a_temporary_folder_that_ends_with_the_last_of_them() {
    let _dog = watchdog(60, "uploads of workers");
    let place = std::env::temp_dir().join(format!("programs-{}", std::process::id()));
    fs::create_dir_all(&place).expect("a folder");
    let mut command = command(WSGI);
    command.args(["--port", "0", "--workers", "2"]).env("TMPDIR", &place);
    let process = Process::spawn(&mut command);
    assert!(
        process.until(LIMIT, |lines| lines.iter().filter(|it| it.contains("ready")).count() == 2)
    );
    let folders = || fs::read_dir(&place).expect("a folder").count();
    assert_eq!(folders(), 1);
    let port = process.lines().iter().find_map(|line| support::server::port_in(line));
    let port = port.expect("a port");
    let body = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n\
                hello\r\n--x--\r\n";
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("the server");
    let head = format!(
        "POST /upload/ HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=x\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    client.write_all(head.as_bytes()).expect("sent");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 2") || answer.starts_with("HTTP/1.1 3"), "{answer}");
    for _ in 0..20 {
        let mut client = Client::connect(([127, 0, 0, 1], port).into());
        client.send("GET /upload/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let page = client.all();
        assert!(page.contains("<code>upload-"), "each worker knows it\n{page}");
    }
    let mut process = process;
    process.signal("TERM");
    assert_eq!(process.finish(LIMIT), Some(Some(0)));
    assert_eq!(folders(), 0);
    fs::remove_dir(&place).expect("an empty folder");
}

#[test]
fn the_folder_of_a_supervisor_is_no_orphan_while_all_its_workers_are_dead() {
    let _dog = watchdog(60, "a supervisor without workers");
    let place = std::env::temp_dir().join(format!("programs-alone-{}", std::process::id()));
    fs::create_dir_all(&place).expect("a folder");
    let start = |workers: &str, ready: &str, count: usize| {
        let mut command = command(WSGI);
        command.args(["--port", "0", "--workers", workers]).env("TMPDIR", &place);
        let process = Process::spawn(&mut command);
        let is_ready = |lines: &[String]| lines.iter().filter(|it| it.contains(ready)).count();
        assert!(process.until(LIMIT, |lines| is_ready(lines) == count));
        process
    };
    let supervisor = start("2", "is ready", 2);
    let entry = fs::read_dir(&place).expect("a folder").next().expect("its folder");
    let own = entry.expect("its folder").path();
    // It replaces nobody now.
    supervisor.signal("STOP");
    workers(&supervisor.lines()).into_iter().for_each(|pid| signal("KILL", pid));
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(120);
    let folder = fs::File::open(&own).expect("its folder");
    folder.set_modified(long_ago).expect("our own folder");
    let neighbour = start("1", "Glasshouse: http", 1);
    assert!(own.exists());
    supervisor.signal("CONT");
    for mut process in [supervisor, neighbour] {
        process.signal("TERM");
        assert_eq!(process.finish(LIMIT), Some(Some(0)));
    }
    fs::remove_dir(&place).expect("an empty folder");
}

// Behind a proxy.

#[test]
fn a_proxy_that_is_trusted_speaks_for_its_clients() {
    let _dog = watchdog(60, "X-Forwarded-For");
    let fields = "X-Forwarded-For: 203.0.113.9, 198.51.100.7\r\nX-Forwarded-Proto: https\r\n\
                  X-Forwarded-Host: shop.example\r\n";
    let standard = "Forwarded: for=203.0.113.9, for=198.51.100.7;proto=https;host=shop.example\r\n";
    for program in [WSGI, ASGI_WS] {
        let server = Server::start(program, &["--forwarded-allow-ips", "127.0.0.1"]);
        for fields in [fields, standard] {
            let page = get(&server, "/wire/", fields);
            assert!(page.contains("198.51.100.7"), "{page}");
        }
        server.wait_for("] 198.51.100.7 \"GET /wire/");
        if program == ASGI_WS {
            drop(Peer::ask(address(&server), "/ws/echo/", fields));
            server.wait_for("] 198.51.100.7 WebSocket accept \"/ws/echo/\"");
        }
    }
}

#[test]
fn nobody_else_can_pretend_to_be_somebody_else() {
    let _dog = watchdog(60, "a forged X-Forwarded-For");
    let server = Server::start(WSGI, &[]);
    let forged = "X-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\n\
                  X_Forwarded_For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n";
    let page = get(&server, "/wire/", forged);
    assert!(page.contains("127.0.0.1"));
    let line = server.wait_for("GET /wire/");
    assert!(line.contains("] 127.0.0.1 "), "{line}");
}

// Other applications than the site.

#[test]
fn a_folder_is_served_by_all_three() {
    let _dog = watchdog(60, "static:");
    for program in ALL {
        for workers in ["1", "2"] {
            let server = Server::start(program, &["static:templates/static", "--workers", workers]);
            let style = get(&server, "/style.css", "");
            assert_eq!(style, include_str!("../templates/static/style.css"));
            server.wait_for("templates/static has no index.html: / is not found");
            // The site and its WebSockets are elsewhere.
            assert!(get(&server, "/trends/", "").contains("404"));
            let mut client = Client::connect(address(&server));
            client.send(handshake("/ws/echo/", ""));
            assert_eq!(client.answer().expect("an answer").status, 404);
            assert_eq!(server.stop().0, Some(0));
        }
        let (code, _, err) = run_flags(program, &["static:/nothing/here", "--port", "0"]);
        assert_eq!(code, Some(1), "{err}");
        assert!(err.contains("/nothing/here"), "{err}");
    }
}

#[test]
fn a_folder_is_served_where_nobody_can_write() {
    let _dog = watchdog(60, "static: without a temporary folder");
    for workers in ["1", "2"] {
        let mut command = command(ASGI_WS);
        command.args(["static:templates/static", "--port", "0", "--workers", workers]);
        let process = Process::spawn(command.env("TMPDIR", "/nothing/here"));
        let address =
            |lines: &[String]| lines.iter().find_map(|line| support::server::port_in(line));
        assert!(process.until(LIMIT, |lines| address(lines).is_some()), "{:?}", process.lines());
        let port = address(&process.lines()).expect("a port");
        let mut client = Client::connect(([127, 0, 0, 1], port).into());
        client.send("GET /style.css HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(client.answer().expect("an answer").status, 200);
    }
}

#[test]
fn an_application_in_python_is_served_by_its_program() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(60, "python");
    let server = Server::start(WSGI, &["tests.python.hello:application", "--workers", "2"]);
    assert_eq!(get(&server, "/", ""), "Hello, world!\n");
    let greeting = server.lines().into_iter().find(|line| line.contains("http://"));
    let greeting = greeting.expect("a greeting");
    let what = "(wsgi tests.python.hello:application, 2 workers, up to 512 threads, pid ";
    assert!(greeting.contains(what), "{greeting}");
    server.wait_for("127.0.0.1 \"GET / HTTP/1.1\" 200 14 ");
    assert_eq!(server.stop().0, Some(0));
    let server = Server::start(ASGI_WS, &["tests.python.raw_asgi:app"]);
    let mut peer = Peer::open(address(&server), "/echo");
    peer.text("hello");
    peer.hears("hello");
    // The second request in a packet waits until its client leaves. The first answer does not.
    let mut client = Client::connect(address(&server));
    client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\nGET /leave HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().expect("the first answer").text(), "Hello, world!\n");
    drop(client);
    assert_eq!(server.stop().0, Some(0));
}

#[test]
#[cfg(unix)]
fn a_variable_that_leads_nowhere_is_found_in_the_words() {
    let _dog = watchdog(60, "variables");
    let python = "tests.python.hello:application";
    for (variable, application, words) in [
        ("TMPDIR", None, "a temporary folder in /nowhere: "),
        ("TMPDIR", Some(python), "a temporary folder in /nowhere: "),
        ("VIRTUAL_ENV", Some(python), "\nVIRTUAL_ENV is set in the environment, and was followed."),
    ] {
        let mut command = command(WSGI);
        command.args(["--port", "0"]).args(application).env(variable, "/nowhere");
        let (code, _, err) = run(&mut command);
        assert_eq!(code, Some(1), "{err}");
        assert!(err.contains(words), "{err}");
    }
}

#[test]
fn an_application_that_cannot_be_served_ends_the_program_with_the_reason() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(60, "no application");
    for (program, application, reason) in [
        (WSGI, "tests.python.nothing:app", "No module named 'tests.python.nothing'"),
        (ASGI_WS, "no/such:app", "Modules were looked for in /"),
        (WSGI, "tests.python.hello:nothing", "has no attribute 'nothing'"),
        (WSGI, "tests.python.raw_asgi:app", "serve it with asgi_http or asgi_ws"),
        (WSGI, "platform:node", "if it makes an application, say platform:node()"),
        (WSGI, "textwrap:dedent", "it does not take environ and start_response"),
        (ASGI_WS, "tests.python.hello:application", "`wsgi`"),
    ] {
        let (code, _, err) = run_flags(program, &[application, "--port", "0"]);
        assert_eq!(code, Some(1), "{err}");
        assert!(err.contains(reason), "{err}");
        assert!(!err.contains("http://"), "{err}");
        assert!(!err.contains("importlib"), "a traceback begins with what its reader wrote: {err}");
    }
}
