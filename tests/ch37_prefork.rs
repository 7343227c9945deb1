//! Chapter 37: many processes. Each test starts this test program once more as a supervisor, which
//! runs one helper of this file; its workers are the same program with the same arguments, so they
//! run the same helper.
#![cfg(unix)]

mod support;

use std::collections::HashSet;
use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use glasshouse::http::exchange::Exchange;
use glasshouse::http::response::{Response, Status};
use glasshouse::http::server::{Complaints, Settings};
use glasshouse::running::prefork::{Staff, Supervisor, VARIABLE, Worker};
use glasshouse::socket::listener::Listener;
use support::client::Client;
use support::process::Process;
use support::watchdog::watchdog;

const LIMIT: Duration = Duration::from_secs(20);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

// The program that is started.

/// A number that a test gives its supervisor.
fn given(name: &str, otherwise: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn say(line: &str) {
    let _ = io::stderr().write_all(format!("\n{line}\n").as_bytes());
}

#[test]
#[ignore = "a part of other tests"]
fn helper_house() {
    if env::var_os("CHILD").is_none() {
        return;
    }
    let grace = ms(given("GRACE", 5000));
    match Worker::from_environment() {
        Ok(Some(worker)) => {
            fall_ill();
            let settings = Settings { graceful_timeout: grace, ..Settings::default() };
            let served = worker.serve(settings, Arc::new(pages), Arc::new(Complaints));
            assert!(served.is_ok());
        }
        Ok(None) => {
            let listener = Listener::bind("127.0.0.1", 0).expect("a free port");
            say(&format!("address {}", listener.address()));
            let staff = Staff {
                workers: given("WORKERS", 2) as usize,
                start_timeout: ms(given("START", 10_000)),
                patience: ms(given("PATIENCE", 10_000)),
                young: ms(given("YOUNG", 1000)),
                first_pause: ms(given("PAUSE", 100)),
                longest_pause: ms(8 * given("PAUSE", 100)),
                graceful_timeout: grace,
            };
            let supervisor = Supervisor::new(listener, staff).expect("its own path");
            supervisor.run();
            say("over");
        }
        Err(error) => say(&error.to_string()),
    }
    // Not back into the test harness, which would print on a line that nobody listens to.
    std::process::exit(0);
}

/// What can be wrong with a worker before it serves.
fn fall_ill() {
    match env::var("ILL").as_deref() {
        Ok("dies") => std::process::exit(3),
        Ok("sleeps") => thread::sleep(ms(5000)),
        Ok("yawns") => thread::sleep(ms(500)),
        // Healthy as long as this file is there.
        Ok(file) if !std::path::Path::new(file).exists() => std::process::exit(4),
        _ => {}
    }
}

fn pages(exchange: &mut Exchange) -> io::Result<()> {
    match exchange.head.target.path() {
        "/sleep/" => thread::sleep(ms(1000)),
        "/long-sleep/" => thread::sleep(ms(8000)),
        "/print/" => println!("a word from the application"),
        "/abort/" => std::process::abort(),
        _ => {}
    }
    exchange.respond(Response::text(Status::OK, std::process::id().to_string()))
}

// A house, and those who come to it.

struct House {
    process: Process,
    address: SocketAddr,
}

impl House {
    /// Starts a supervisor with these words in its environment, and waits for its address.
    fn open(given: &[(&str, &str)]) -> House {
        let own = env::current_exe().expect("the path of this test program");
        let mut command = Process::in_one(&own);
        command.args(["--exact", "helper_house", "--ignored", "--nocapture"]).env("CHILD", "1");
        let process = Process::spawn(command.envs(given.iter().copied()));
        let address = |lines: &[String]| {
            lines.iter().find_map(|line| line.strip_prefix("address ")?.parse().ok())
        };
        assert!(process.until(LIMIT, |lines| address(lines).is_some()), "{:?}", process.lines());
        let address = address(&process.lines()).expect("just seen");
        House { process, address }
    }

    fn open_with_workers(count: usize) -> House {
        let house = House::open(&[("WORKERS", &count.to_string())]);
        house.wait_for(count, "is ready");
        house
    }

    /// Waits until so many lines hold this text.
    #[track_caller]
    fn wait_for(&self, count: usize, text: &str) {
        let enough = |lines: &[String]| self.count(lines, text) >= count;
        let came = self.process.until(LIMIT, enough);
        assert!(came, "not {count} times {text:?} in {:#?}", self.process.lines());
    }

    fn count(&self, lines: &[String], text: &str) -> usize {
        lines.iter().filter(|line| line.contains(text)).count()
    }

    fn said(&self, text: &str) -> usize {
        self.count(&self.process.lines(), text)
    }

    /// The process that answers a request on a new connection.
    fn ask(&self, path: &str) -> Option<u32> {
        ask(self.address, path)
    }

    /// The processes that answer, once there are so many of them.
    #[track_caller]
    fn answering(&self, count: usize) -> HashSet<u32> {
        let mut seen = HashSet::new();
        let began = Instant::now();
        while seen.len() < count && began.elapsed() < LIMIT {
            seen.extend(self.ask("/"));
        }
        assert_eq!(seen.len(), count);
        seen
    }

    #[track_caller]
    fn ends_well(mut self) -> Vec<String> {
        let code = self.process.finish(LIMIT);
        let lines = self.process.lines();
        assert_eq!(code, Some(Some(0)), "{lines:#?}");
        assert!(lines.iter().any(|line| line == "over"), "{lines:#?}");
        lines
    }

    #[track_caller]
    fn stop(self) -> Vec<String> {
        self.process.signal("TERM");
        self.ends_well()
    }
}

fn ask(address: SocketAddr, path: &str) -> Option<u32> {
    let mut client = Client::of(TcpStream::connect(address).ok()?);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    let answer = client.answer()?;
    answer.text().parse().ok().filter(|_| answer.status == 200)
}

fn signal(name: &str, process: u32) {
    let line = format!("kill -s {name} {process}");
    let status = Command::new("sh").args(["-c", &line]).stderr(Stdio::null()).status();
    status.expect("a shell");
}

/// Clients that ask again and again until they are told to stop.
struct Load {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    lost: Arc<AtomicUsize>,
    clients: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(address: SocketAddr, clients: usize, keep_alive: bool) -> Load {
        let (over, answered, lost) = (Arc::default(), Arc::default(), Arc::default());
        let mut load = Load { over, answered, lost, clients: Vec::new() };
        for _ in 0..clients {
            let over = Arc::clone(&load.over);
            let (answered, lost) = (Arc::clone(&load.answered), Arc::clone(&load.lost));
            load.clients.push(thread::spawn(move || {
                let mut client = None;
                while !over.load(Ordering::SeqCst) {
                    let came = match keep_alive {
                        true => ask_and_stay(address, &mut client),
                        false => ask(address, "/").is_some(),
                    };
                    let count = if came { &answered } else { &lost };
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }));
        }
        load
    }

    fn wait_for(&self, count: usize) {
        let goal = self.answered.load(Ordering::SeqCst) + count;
        while self.answered.load(Ordering::SeqCst) < goal {
            thread::sleep(ms(1));
        }
    }

    /// How many were answered, and how many were not.
    fn end(self) -> (usize, usize) {
        self.over.store(true, Ordering::SeqCst);
        self.clients.into_iter().for_each(|client| drop(client.join()));
        (self.answered.load(Ordering::SeqCst), self.lost.load(Ordering::SeqCst))
    }
}

/// Stays on one connection until an answer says that it was the last.
fn ask_and_stay(address: SocketAddr, client: &mut Option<Client>) -> bool {
    let open = client.take().or_else(|| TcpStream::connect(address).ok().map(Client::of));
    let Some(mut open) = open else {
        return false;
    };
    open.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let Some(answer) = open.answer() else {
        return false;
    };
    if !answer.says("Connection: close") {
        *client = Some(open);
    }
    answer.status == 200
}

// Many workers, one door.

#[test]
fn several_processes_answer_at_one_address() {
    let _dog = watchdog(30, "several processes answer at one address");
    let house = House::open_with_workers(3);
    let workers = house.answering(3);
    assert!(!workers.contains(&house.process.id()), "the supervisor serves nobody");
    house.stop();
}

#[test]
fn a_guest_who_comes_before_the_first_worker_is_ready_is_served_later() {
    let _dog = watchdog(30, "an early guest");
    let house = House::open(&[]);
    assert!(house.ask("/").is_some());
    house.stop();
}

#[test]
fn what_a_worker_prints_comes_out_of_the_supervisor() {
    let _dog = watchdog(30, "what a worker prints");
    let house = House::open_with_workers(2);
    assert!(house.ask("/print/").is_some());
    house.wait_for(1, "a word from the application");
    house.stop();
}

#[test]
fn a_variable_that_no_supervisor_has_set_is_an_error_with_advice() {
    let _dog = watchdog(30, "a variable that no supervisor has set");
    let own = env::current_exe().expect("the path of this test program");
    let mut command = Process::in_one(&own);
    command.args(["--exact", "helper_house", "--ignored", "--nocapture"]).env("CHILD", "1");
    let mut child = Process::spawn(command.env(VARIABLE, "1"));
    assert_eq!(child.finish(LIMIT), Some(Some(0)));
    let advice = format!("{VARIABLE} is set, but no supervisor has started this process");
    assert!(child.lines().iter().any(|line| line.starts_with(&advice)), "{:?}", child.lines());
}

// Workers that die, and workers that hang.

#[test]
fn a_worker_that_is_killed_is_replaced_while_the_others_go_on() {
    let _dog = watchdog(60, "a worker that is killed");
    const CLIENTS: usize = 4;
    let house = House::open(&[("YOUNG", "0")]);
    house.wait_for(2, "is ready");
    let victim = house.answering(2).into_iter().next().expect("two of them");
    let load = Load::start(house.address, CLIENTS, false);
    load.wait_for(200);
    let began = Instant::now();
    signal("KILL", victim);
    house.wait_for(3, "is ready");
    println!("from SIGKILL to the successor's READY: {:?}", began.elapsed());
    load.wait_for(200);
    let (answered, lost) = load.end();
    println!("{answered} requests answered, {lost} lost");
    assert!(lost <= CLIENTS, "one for each client at the most, not {lost}");
    assert!(!house.answering(2).contains(&victim));
    assert_eq!(house.said("signal: 9 (SIGKILL)"), 1);
    house.stop();
}

#[test]
fn a_worker_that_aborts_takes_nobody_with_it() {
    let _dog = watchdog(30, "a worker that aborts");
    let house = House::open(&[("YOUNG", "0")]);
    house.wait_for(2, "is ready");
    assert_eq!(house.ask("/abort/"), None);
    assert!(house.ask("/").is_some());
    house.wait_for(3, "is ready");
    house.stop();
}

#[test]
fn workers_that_die_young_are_replaced_more_and_more_slowly() {
    let _dog = watchdog(30, "workers that die young");
    let house = House::open(&[("WORKERS", "1"), ("ILL", "dies"), ("PAUSE", "50")]);
    house.wait_for(6, "died young");
    let lines = house.process.lines();
    let pauses = lines.iter().filter_map(|line| line.split_once("the next one in "));
    let pauses: Vec<&str> = pauses.map(|(_, pause)| pause).take(6).collect();
    assert_eq!(pauses, ["50ms", "100ms", "200ms", "400ms", "400ms", "400ms"]);
    assert_eq!(house.said("exit status: 3"), house.said("died young"));
    house.stop();
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_killed() {
    let _dog = watchdog(30, "a worker that is not ready");
    let house = House::open(&[("WORKERS", "1"), ("ILL", "sleeps"), ("START", "300")]);
    house.wait_for(2, "is not ready after 300ms: killed");
    house.stop();
}

#[test]
fn a_worker_that_hangs_is_replaced() {
    let _dog = watchdog(30, "a worker that hangs");
    let house = House::open(&[("PATIENCE", "2000"), ("YOUNG", "0")]);
    house.wait_for(2, "is ready");
    let victim = house.answering(2).into_iter().next().expect("two of them");
    // Stopped, not ended: it is there, and does nothing any more.
    signal("STOP", victim);
    house.wait_for(3, "is ready");
    assert_eq!(house.said("gives no sign of life after 2s: killed"), 1);
    assert!(!house.answering(2).contains(&victim));
    thread::sleep(ms(2500));
    assert_eq!(house.said("is ready"), 3, "the healthy ones are left alone");
    house.stop();
}

#[test]
fn a_pause_of_all_processes_is_no_sign_of_death() {
    let _dog = watchdog(30, "a pause of all");
    let house = House::open(&[("PATIENCE", "2000")]);
    house.wait_for(2, "is ready");
    let everybody: Vec<u32> = house.answering(2).into_iter().chain([house.process.id()]).collect();
    everybody.iter().for_each(|process| signal("STOP", *process));
    thread::sleep(ms(3000));
    everybody.iter().rev().for_each(|process| signal("CONT", *process));
    thread::sleep(ms(500));
    assert_eq!(house.said("killed"), 0, "{:#?}", house.process.lines());
    house.stop();
}

#[test]
fn nothing_is_left_of_twenty_dead_workers() {
    let _dog = watchdog(60, "twenty dead workers");
    let house = House::open(&[("YOUNG", "0")]);
    house.wait_for(2, "is ready");
    let supervisor = house.process.id();
    let before = (descriptors(supervisor), threads(supervisor));
    for round in 0..20 {
        signal("KILL", house.ask("/").expect("an answer"));
        house.wait_for(3 + round, "is ready");
    }
    // A thread that has just heard the end of its worker may still be about to end itself; so may
    // one that had written a line when we looked first.
    let now = || (descriptors(supervisor), threads(supervisor));
    let is_more = || now().0 > before.0 || now().1 > before.1;
    let began = Instant::now();
    while is_more() && began.elapsed() < ms(2000) {
        thread::sleep(ms(5));
    }
    assert!(!is_more(), "{:?} and before {before:?}", now());
    assert_eq!(states_of_children(supervisor).len(), 2);
    assert!(!states_of_children(supervisor).contains(&'Z'), "a zombie");
    house.stop();
}

fn descriptors(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
}

fn threads(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/task")).map_or(0, Iterator::count)
}

/// The letter of the state of each child, as the kernel tells it.
fn states_of_children(process: u32) -> Vec<char> {
    let mut states = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // pid (name) state parent ...
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let mut words = rest.split(' ');
        let (state, parent) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        if parent == process.to_string() {
            states.extend(state.chars());
        }
    }
    states
}

// The end.

#[test]
fn a_stop_answers_all_requests_that_have_begun() {
    let _dog = watchdog(30, "a stop");
    let house = House::open_with_workers(2);
    let address = house.address;
    let clients: Vec<_> = (0..20).map(|_| thread::spawn(move || ask(address, "/sleep/"))).collect();
    thread::sleep(ms(500));
    house.process.signal("TERM");
    house.wait_for(1, "stopping");
    thread::sleep(ms(20));
    assert!(TcpStream::connect(address).is_err(), "the door is closed for newcomers");
    // The kernel may have given all clients to one of the two, and then the other has ended.
    assert!(house.said("has ended") < 2, "somebody is still at work");
    let answers: Vec<_> = clients.into_iter().filter_map(|client| client.join().ok()?).collect();
    assert_eq!(answers.len(), 20);
    let lines = house.ends_well();
    assert!(lines.iter().any(|line| line.ends_with("has ended: exit status: 0")), "{lines:#?}");
}

#[test]
fn a_stop_of_an_idle_house_takes_no_time() {
    let _dog = watchdog(30, "a stop of an idle house");
    let house = House::open_with_workers(2);
    let mut idle = Client::connect(house.address);
    idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(idle.answer().is_some());
    let began = Instant::now();
    house.stop();
    println!("from SIGTERM to the end: {:?}", began.elapsed());
    assert!(began.elapsed() < ms(3000), "no nap, no keep-alive: {:?}", began.elapsed());
}

#[test]
fn ctrl_c_reaches_all_processes_and_stops_them_gracefully() {
    let _dog = watchdog(30, "Ctrl-C");
    let house = House::open_with_workers(2);
    let address = house.address;
    let client = thread::spawn(move || ask(address, "/sleep/"));
    thread::sleep(ms(300));
    // As a terminal does it: each process of the group gets the signal.
    let workers = house.answering(2);
    workers.iter().for_each(|worker| signal("INT", *worker));
    house.process.signal("INT");
    assert!(client.join().expect("a client").is_some());
    house.ends_well();
}

#[test]
fn a_second_signal_ends_all_at_once() {
    let _dog = watchdog(30, "a second signal");
    let house = House::open(&[("GRACE", "30000")]);
    house.wait_for(2, "is ready");
    let mut client = Client::connect(house.address);
    client.send("GET /long-sleep/ HTTP/1.1\r\nHost: a\r\n\r\n");
    thread::sleep(ms(100));
    house.process.signal("INT");
    house.wait_for(1, "stopping: requests");
    let began = Instant::now();
    house.process.signal("INT");
    house.ends_well();
    assert!(began.elapsed() < ms(5000), "after {:?}", began.elapsed());
    assert_eq!(client.all(), "");
}

#[test]
fn who_is_not_done_in_time_is_cut() {
    let _dog = watchdog(30, "a graceful timeout");
    let house = House::open(&[("GRACE", "200")]);
    house.wait_for(2, "is ready");
    let mut client = Client::connect(house.address);
    client.send("GET /long-sleep/ HTTP/1.1\r\nHost: a\r\n\r\n");
    thread::sleep(ms(100));
    house.stop();
    assert_eq!(client.all(), "");
}

#[test]
fn workers_do_not_outlive_their_supervisor() {
    let _dog = watchdog(30, "workers without a supervisor");
    let mut house = House::open_with_workers(2);
    let address = house.address;
    let client = thread::spawn(move || ask(address, "/sleep/"));
    thread::sleep(ms(300));
    house.process.signal("KILL");
    assert!(client.join().expect("a client").is_some(), "the request that had begun is answered");
    // The output ends when the last process that has it ends.
    assert_eq!(house.process.finish(LIMIT), Some(None), "ended by a signal");
    // A process that ends closes its output first and its door a moment later.
    let began = Instant::now();
    while TcpStream::connect(address).is_ok() {
        assert!(began.elapsed() < LIMIT, "somebody still holds the door");
        thread::sleep(ms(5));
    }
}

#[test]
fn a_worker_that_gets_sigterm_itself_leaves_and_is_replaced() {
    let _dog = watchdog(30, "SIGTERM to a worker");
    let house = House::open_with_workers(1);
    let worker = house.ask("/").expect("an answer");
    let address = house.address;
    let client = thread::spawn(move || ask(address, "/sleep/"));
    thread::sleep(ms(300));
    signal("TERM", worker);
    house.wait_for(2, "is ready");
    assert_eq!(client.join().expect("a client"), Some(worker));
    assert_ne!(house.ask("/"), Some(worker));
    assert_eq!(house.said("died young"), 0);
    house.stop();
}

// Replacing all of them.

#[test]
fn a_reload_under_load_loses_no_request() {
    let _dog = watchdog(120, "a reload under load");
    for keep_alive in [false, true] {
        let house = House::open_with_workers(2);
        let old = house.answering(2);
        let load = Load::start(house.address, 4, keep_alive);
        load.wait_for(1000);
        house.process.signal("HUP");
        house.wait_for(4, "is ready");
        house.wait_for(2, "has ended: exit status: 0");
        load.wait_for(1000);
        let (answered, lost) = load.end();
        println!("keep-alive {keep_alive}: {answered} requests answered, {lost} lost");
        assert_eq!(lost, 0);
        assert!(house.answering(2).is_disjoint(&old), "all are new");
        house.stop();
    }
}

#[test]
fn a_slow_client_between_two_requests_is_not_cut_by_a_reload() {
    let _dog = watchdog(30, "a slow client");
    let house = House::open_with_workers(1);
    let mut slow = Client::connect(house.address);
    slow.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let old = slow.answer().expect("an answer").text();
    house.process.signal("HUP");
    house.wait_for(2, "is ready");
    house.wait_for(1, "leaves");
    thread::sleep(ms(500));
    slow.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let last = slow.answer().expect("an answer");
    assert_eq!(last.text(), old);
    assert!(last.says("Connection: close"));
    house.stop();
}

#[test]
fn a_reload_keeps_the_old_workers_when_the_new_ones_do_not_start() {
    let _dog = watchdog(30, "a reload that fails");
    let file = env::temp_dir().join(format!("glasshouse-prefork-{}", std::process::id()));
    std::fs::write(&file, "healthy").expect("a file");
    let house = House::open(&[("ILL", file.to_str().expect("a plain name"))]);
    house.wait_for(2, "is ready");
    let old = house.answering(2);
    std::fs::remove_file(&file).expect("the file");
    house.process.signal("HUP");
    house.wait_for(1, "the successor does not start: those who serve now stay");
    assert_eq!(house.answering(2), old);
    std::fs::write(&file, "healthy again").expect("a file");
    house.process.signal("HUP");
    house.wait_for(4, "is ready");
    house.wait_for(2, "has ended: exit status: 0");
    assert!(house.answering(2).is_disjoint(&old));
    house.stop();
    let _ = std::fs::remove_file(&file);
}

#[test]
fn a_stop_in_the_middle_of_a_reload_is_a_stop() {
    let _dog = watchdog(30, "a stop in the middle of a reload");
    let house = House::open(&[("ILL", "yawns")]);
    house.wait_for(2, "is ready");
    house.process.signal("HUP");
    house.wait_for(1, "replacing");
    thread::sleep(ms(100));
    let lines = house.stop();
    assert_eq!(lines.iter().filter(|line| line.contains("is ready")).count(), 2);
    let ended = lines.iter().filter(|line| line.contains("has ended")).count();
    assert_eq!(ended, 3, "the two, and the candidate: {lines:#?}");
}

#[test]
fn a_worker_that_dies_while_its_successor_starts_is_not_missed() {
    let _dog = watchdog(30, "a death in the middle of a reload");
    let house = House::open(&[("ILL", "yawns"), ("WORKERS", "1")]);
    house.wait_for(1, "is ready");
    let old = house.ask("/").expect("an answer");
    house.process.signal("HUP");
    house.wait_for(1, "replacing");
    thread::sleep(ms(100));
    signal("KILL", old);
    house.wait_for(2, "is ready");
    assert_eq!((house.said("does not start"), house.said("died young")), (0, 0));
    assert!(house.ask("/").is_some());
    assert_eq!(house.stop().iter().filter(|line| line.contains("has ended")).count(), 2);
}

#[test]
fn a_terminal_that_closes_is_no_wish_to_begin_anew() {
    let _dog = watchdog(30, "a terminal that closes");
    let own = env::current_exe().expect("the path of this test program");
    let mut command = Command::new(own);
    command.args(["--exact", "helper_house", "--ignored", "--nocapture"]).env("CHILD", "1");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("itself");
    let mut lines = BufReader::new(child.stderr.take().expect("it was asked for")).lines();
    let ready = lines.by_ref().map_while(Result::ok).filter(|line| line.contains("is ready"));
    assert_eq!(ready.take(2).count(), 2);
    // Nobody reads any more.
    drop(lines);
    signal("HUP", child.id());
    assert_eq!(child.wait().expect("its end").code(), Some(0));
}

// Exercises.

#[test]
#[ignore = "exercise 37.4"]
fn exercise_37_4_a_house_in_which_no_worker_ever_starts_gives_up() {
    let _dog = watchdog(20, "exercise 37 4 a house in which no worker ever starts gives up");
    let mut house = House::open(&[("ILL", "dies"), ("PAUSE", "10")]);
    let code = house.process.finish(ms(3000));
    assert_eq!(code, Some(Some(1)), "{:#?}", house.process.lines());
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
