//! Chapter 15: the server. From its settings to its end, on real sockets.

mod support;

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use glasshouse::http::connection::Observer;
use glasshouse::http::exchange::Exchange;
use glasshouse::http::response::{Response, Status};
use glasshouse::http::server::{Running, Server, Settings};
use glasshouse::socket::listener::{BindError, Listener};
use glasshouse::socket::lobby::Deadlines;
use glasshouse::socket::pool::PoolSize;
use support::client::Client;
use support::process::Process;
use support::watchdog::watchdog;

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Settings for a test: any free port, and a watchman who walks often.
fn settings() -> Settings {
    Settings {
        port: 0,
        deadlines: Deadlines { tick: ms(5), linger: ms(200), ..Deadlines::default() },
        ..Settings::default()
    }
}

fn with_cap(cap: usize) -> Settings {
    Settings { threads: PoolSize { cap, ..PoolSize::default() }, ..settings() }
}

#[track_caller]
fn serve(settings: Settings) -> Running {
    let server = Server::bind(settings).expect("a free port");
    server.start(Arc::new(pages))
}

fn pages(exchange: &mut Exchange) -> io::Result<()> {
    match exchange.head.target.path() {
        "/sleep/" => thread::sleep(ms(300)),
        "/long-sleep/" => thread::sleep(ms(3000)),
        "/forge/" => {
            return Err(io::Error::other("bad\n127.0.0.1:1 all is well \x1b[2K\u{9b}2K"));
        }
        _ => {}
    }
    let mut body = String::new();
    exchange.read_to_string(&mut body)?;
    exchange.respond(Response::text(Status::OK, body))
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// The status of the answer to one GET on a connection of its own.
#[track_caller]
fn status(running: &Running, path: &str) -> u16 {
    let mut client = Client::connect(running.address);
    client.send(get(path));
    client.answer().expect("an answer").status
}

// Settings.

#[test]
fn the_defaults_are_the_documented_ones() {
    let settings = Settings::default();
    let seconds = Duration::from_secs;
    assert_eq!((settings.host.as_str(), settings.port), ("127.0.0.1", 8000));
    let threads = settings.threads;
    assert_eq!((threads.start, threads.cap, threads.stack), (8, 512, 262_144));
    assert_eq!(PoolSize::LARGEST_CAP, 12_000);
    let times = settings.deadlines;
    assert_eq!((times.head, times.body), (seconds(10), seconds(10)));
    assert_eq!((times.body_rate, times.keep_alive), (1024, seconds(5)));
    assert_eq!((times.linger, times.write), (ms(500), seconds(10)));
    assert_eq!((times.grace, times.queue, times.tick), (ms(300), seconds(10), ms(100)));
    let head = settings.limits.head;
    assert_eq!((head.line, head.head), (8192, 16_384));
    assert_eq!((head.fields, head.empty_lines), (100, 64));
    let body = settings.limits.body;
    assert_eq!((body.body, body.chunk_line, body.trailers), (16_777_216, 256, 8192));
    assert_eq!(settings.graceful_timeout, seconds(30));
    assert!(!settings.wire_view);
}

#[test]
fn a_server_is_bound_before_it_serves() {
    let _dog = watchdog(20, "bind, connect, start");
    let server = Server::bind(settings()).expect("a free port");
    assert_ne!(server.address().port(), 0);
    // Who comes before the start waits in the kernel's queue.
    let mut client = Client::connect(server.address());
    client.send(get("/"));
    let running = server.start(Arc::new(pages));
    assert_eq!(client.answer().map(|answer| answer.status), Some(200));
    assert!(running.stop());
}

#[test]
fn a_server_at_a_door_of_somebody_else_has_its_address() {
    let _dog = watchdog(20, "a door of somebody else");
    let door = Listener::bind("127.0.0.1", 0).expect("a free port");
    let address = door.address();
    let running = Server::at(door, with_cap(0)).start(Arc::new(pages));
    assert_eq!((running.address, running.lobby.door.cap), (address, 1));
    assert_eq!(status(&running, "/"), 200);
    assert!(running.stop());
}

#[test]
fn a_port_that_is_taken_is_an_error_with_advice() {
    let first = Server::bind(settings()).expect("a free port");
    let port = first.address().port();
    let second = Server::bind(Settings { port, ..settings() });
    let error = second.map(|_| ()).expect_err("it is taken");
    assert_eq!(error, BindError::InUse(format!("127.0.0.1:{port}")));
    assert!(error.to_string().contains("choose another port"), "{error}");
}

#[test]
fn the_cap_is_kept_in_its_range() {
    let _dog = watchdog(20, "caps");
    for (wanted, cap) in [(0, 1), (1, 1), (3, 3), (usize::MAX, PoolSize::LARGEST_CAP)] {
        let running = serve(with_cap(wanted));
        assert_eq!(running.lobby.door.cap, cap);
        assert_eq!(status(&running, "/"), 200);
        assert!(running.stop());
    }
}

#[test]
fn with_one_thread_each_connection_carries_one_request() {
    let _dog = watchdog(20, "caps of 1 and 2");
    for (cap, closes) in [(1, true), (2, false)] {
        let running = serve(with_cap(cap));
        let mut client = Client::connect(running.address);
        client.send(get("/"));
        let answer = client.answer().expect("an answer");
        assert_eq!(answer.says("Connection: close"), closes);
        client.send(get("/"));
        assert_eq!(client.answer().is_some(), !closes);
        drop(client);
        assert!(running.stop());
    }
}

#[test]
fn limits_and_deadlines_are_the_ones_that_were_set() {
    let _dog = watchdog(20, "limits");
    let mut settings = settings();
    settings.limits.body.body = 3;
    settings.limits.head.line = 40;
    settings.deadlines.head = ms(100);
    let running = serve(settings);
    let post =
        |length| format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\nabcd");
    let long = get(&format!("/{}", "x".repeat(40)));
    for (request, want) in [(post(3), 200), (post(4), 413), (long, 414), ("GET".into(), 408)] {
        let mut client = Client::connect(running.address);
        client.send(&request);
        let answer = client.answer().expect("an answer");
        assert_eq!(answer.status, want, "{request}");
    }
    assert!(running.stop());
}

#[test]
fn many_clients_at_a_time_are_all_answered() {
    let _dog = watchdog(60, "40 clients");
    let running = serve(with_cap(64));
    thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                let mut client = Client::connect(running.address);
                for _ in 0..25 {
                    client.send(get("/"));
                    assert_eq!(client.answer().map(|answer| answer.status), Some(200));
                }
            });
        }
    });
    assert!(running.stop());
}

// The end.

#[test]
fn a_stop_waits_for_the_busy_sends_the_idle_home_and_refuses_the_new() {
    let _dog = watchdog(20, "a graceful stop");
    let running = serve(settings());
    let address = running.address;
    let mut idle = Client::connect(address);
    idle.send(get("/"));
    assert!(idle.answer().is_some());
    let mut silent = Client::connect(address);
    let mut busy = Client::connect(address);
    busy.send(get("/sleep/"));
    let mut begun = Client::connect(address);
    begun.send("GET / HTT");
    thread::sleep(ms(100));
    let stop = thread::spawn(move || running.stop());
    assert_eq!((idle.all(), silent.all()), (String::new(), String::new()));
    let refused = TcpStream::connect(address).map(|_| ());
    assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::ConnectionRefused));
    // A head that has begun may be finished, and is the last.
    begun.send("P/1.1\r\nHost: a\r\n\r\n");
    let last = begun.answer().expect("an answer");
    assert!(last.status == 200 && last.says("Connection: close"));
    assert_eq!(busy.answer().map(|answer| answer.status), Some(200));
    assert!(stop.join().expect("the stop"), "nobody had to be cut");
}

#[test]
fn who_is_not_done_in_time_is_cut() {
    let _dog = watchdog(20, "a stop that cuts");
    let running = serve(Settings { graceful_timeout: ms(100), ..settings() });
    let mut client = Client::connect(running.address);
    client.send(get("/long-sleep/"));
    thread::sleep(ms(50));
    let began = Instant::now();
    assert!(!running.stop(), "somebody had to be cut");
    assert!(began.elapsed() < ms(2500), "after {:?}", began.elapsed());
    assert_eq!(client.all(), "");
}

#[test]
fn a_second_stop_cuts_those_who_wait_for_their_client() {
    let _dog = watchdog(20, "a second stop");
    let running = serve(settings());
    let mut client = Client::connect(running.address);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhel");
    thread::sleep(ms(50));
    let lobby = Arc::clone(&running.lobby);
    let began = Instant::now();
    let stop = thread::spawn(move || running.stop());
    thread::sleep(ms(50));
    assert!(!lobby.is_empty(), "the upload may go on");
    lobby.cut_all();
    let _ = stop.join();
    assert!(began.elapsed() < ms(3000), "after {:?}", began.elapsed());
    assert!(!client.all().contains("200 OK"));
}

// What the log says.

#[test]
fn an_observer_of_ones_own_takes_the_place_of_the_complaints() {
    #[derive(Default)]
    struct Counter(AtomicUsize);
    impl Observer for Counter {
        fn exchanged(&self, _: &Exchange) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let _dog = watchdog(5, "an observer of ones own takes the place of the complaints");
    let counter = Arc::new(Counter::default());
    let server = Server::bind(settings()).expect("a free port");
    let running = server.observed_by(counter.clone()).start(Arc::new(pages));
    assert_eq!((status(&running, "/"), status(&running, "/forge/")), (200, 500));
    running.stop();
    assert_eq!(counter.0.load(Ordering::SeqCst), 2);
}

#[test]
fn a_failure_is_one_line_of_the_log_whatever_it_holds() {
    const NAME: &str = "a_failure_is_one_line_of_the_log_whatever_it_holds";
    // A test cannot read its own stderr, so it runs itself once more.
    if std::env::var_os("CHILD").is_some() {
        let running = serve(settings());
        assert_eq!(status(&running, "/forge/"), 500);
        running.stop();
        return;
    }
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", NAME, "--nocapture"]).env("CHILD", "1");
    let mut child = Process::spawn(command.stdout(Stdio::null()));
    assert_eq!(child.finish(Duration::from_secs(20)), Some(Some(0)));
    let lines = child.lines();
    let told: Vec<&String> = lines.iter().filter(|line| line.contains("500 Internal")).collect();
    assert_eq!(told.len(), 1, "{lines:?}");
    let (_, rest) = told[0].split_once(' ').expect("a peer, and what happened");
    let want = "500 Internal Server Error: the application failed: \
                bad?127.0.0.1:1 all is well ?[2K?2K (RFC 9110, section 15.6.1)";
    assert_eq!(rest, want);
}

// Exercises.

#[test]
#[ignore = "exercise 15.2"]
fn exercise_15_2_a_watchman_without_a_pause_gets_one() {
    let mut settings = settings();
    settings.deadlines.tick = Duration::ZERO;
    let running = serve(settings);
    assert_eq!(running.lobby.deadlines.tick, ms(10));
    running.stop();
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
