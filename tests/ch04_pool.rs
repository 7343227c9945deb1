//! Chapter 4: the pool. Real pools on 127.0.0.1, each closed and counted at the end of its test.

mod support;

use std::env;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::panic::resume_unwind;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use glasshouse::socket::listener::Listener;
use glasshouse::socket::lobby::{Deadlines, Guest, Lobby, Phase};
use glasshouse::socket::pool::{PoolSize, Service, ThreadPool};
use support::process::Process;
use support::watchdog::watchdog;

/// Sends back each byte. Before that, `s` sleeps 200 ms, `p` panics, and `x` wishes the house to
/// close; after that, `b` stays busy until its client has gone.
#[derive(Default)]
struct Parrot {
    /// How many guests are being served now.
    now: AtomicUsize,
    /// How many that were at the most.
    most: AtomicUsize,
    /// Somebody has sent an `x`.
    enough: AtomicBool,
}

impl Service for Parrot {
    fn serve(&self, guest: &Arc<Guest>, lobby: &Arc<Lobby>) {
        let _served = Served::new(self);
        let mut stream = &*guest.stream;
        let mut phase = Phase::Fresh;
        while let Some(byte) = next_byte(guest, lobby, phase) {
            match byte {
                // Like `panic!`, but without the message on stderr.
                b'p' => resume_unwind(Box::new("the client asked for it")),
                b's' => thread::sleep(Duration::from_millis(200)),
                b'x' => self.enough.store(true, Ordering::SeqCst),
                _ => {}
            }
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            if byte == b'b' {
                let _ = stream.read(&mut [0]);
                return;
            }
            phase = Phase::Idle;
        }
    }

    fn turn_away(&self, guest: &Arc<Guest>, _lobby: &Arc<Lobby>) {
        let _ = (&*guest.stream).write_all(b"!");
        resume_unwind(Box::new("not even this one harms the pool"));
    }
}

struct Served<'a>(&'a Parrot);

impl Served<'_> {
    fn new(parrot: &Parrot) -> Served<'_> {
        let now = parrot.now.fetch_add(1, Ordering::SeqCst) + 1;
        parrot.most.fetch_max(now, Ordering::SeqCst);
        Served(parrot)
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

fn next_byte(guest: &Arc<Guest>, lobby: &Arc<Lobby>, phase: Phase) -> Option<u8> {
    match phase {
        Phase::Idle => lobby.begin_idle(guest, lobby.after(lobby.deadlines.keep_alive)),
        _ => guest.begin_wait(phase, lobby.after(lobby.deadlines.head)),
    }
    let mut byte = [0];
    let count = (&*guest.stream).read(&mut byte);
    // Even if somebody has ended the wait: what had arrived is answered.
    let _ = guest.end_wait();
    matches!(count, Ok(1)).then_some(byte[0])
}

/// Long limits: in each test only those strike that it has made short.
fn deadlines() -> Deadlines {
    Deadlines {
        keep_alive: Duration::from_secs(60),
        head: Duration::from_secs(60),
        queue: Duration::from_secs(60),
        grace: Duration::from_millis(100),
        tick: Duration::from_millis(20),
        ..Deadlines::default()
    }
}

struct House {
    address: SocketAddr,
    lobby: Arc<Lobby>,
    pool: ThreadPool,
    parrot: Arc<Parrot>,
}

impl House {
    fn open(start: usize, cap: usize, deadlines: Deadlines) -> House {
        let listener = Listener::bind("127.0.0.1", 0).expect("a free port");
        let address = listener.address();
        let lobby = Arc::new(Lobby::new(deadlines, cap));
        let parrot = Arc::new(Parrot::default());
        let stack = 128 * 1024;
        let size = PoolSize { start, cap, stack };
        let pool = ThreadPool::start(listener, Arc::clone(&lobby), size, parrot.clone());
        let house = House { address, lobby, pool, parrot };
        eventually("the first thread", || house.threads() > 0);
        house
    }

    fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// A client that has been answered once, with this byte.
    fn client(&self, byte: u8) -> TcpStream {
        let mut client = self.connect();
        assert_eq!(ask(&mut client, byte), Some(byte));
        client
    }

    fn connect(&self) -> TcpStream {
        visit(self.address)
    }

    /// Nobody needed to be cut, and nobody is left.
    fn close(&self) {
        assert!(self.pool.stop(Duration::from_secs(2)));
        assert_eq!((self.threads(), self.lobby.len()), (0, 0));
    }
}

fn visit(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).expect("a connection");
    let patience = Some(Duration::from_secs(3));
    client.set_read_timeout(patience).expect("a timeout");
    client
}

/// Sends a byte and returns the one that comes back. `None` is the end of the connection.
fn ask(client: &mut TcpStream, byte: u8) -> Option<u8> {
    let _ = client.write_all(&[byte]);
    hear(client)
}

fn hear(client: &mut TcpStream) -> Option<u8> {
    let mut answer = [0];
    match client.read(&mut answer) {
        Ok(0) => None,
        Ok(_) => Some(answer[0]),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => hear(client),
        Err(error) => panic!("neither an answer nor the end: {error}"),
    }
}

/// Fails if it does not come true within 3 s.
fn eventually(what: &str, is_true: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_true() {
        assert!(began.elapsed() < Duration::from_secs(3), "never: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A service may hold files and locks: it must not outlive the stop until the watchman wakes up.
#[test]
fn the_service_is_dropped_with_the_pool_and_not_at_the_next_round() {
    let _dog = watchdog(30, "a service that goes");
    let deadlines = Deadlines { tick: Duration::from_secs(60), ..deadlines() };
    let House { pool, parrot, .. } = House::open(2, 4, deadlines);
    assert!(pool.stop(Duration::from_secs(10)));
    drop(pool);
    eventually("nobody else has the service", || Arc::strong_count(&parrot) == 1);
}

#[test]
fn the_first_threads_are_as_many_as_asked_for() {
    let _dog = watchdog(10, "the first threads are as many as asked for");
    let house = House::open(5, 9, deadlines());
    eventually("five at the door", || house.lobby.door.waiting.load(Ordering::SeqCst) == 5);
    assert_eq!(house.threads(), 5);
    house.close();
}

#[test]
fn a_start_above_the_cap_is_the_cap_and_a_cap_of_none_is_one() {
    let _dog = watchdog(10, "a start above the cap is the cap and a cap of none is one");
    for (start, cap, threads) in [(8, 3, 3), (0, 2, 1), (1, 0, 1)] {
        let house = House::open(start, cap, deadlines());
        thread::sleep(Duration::from_millis(50));
        assert_eq!(house.threads(), threads, "start {start}, cap {cap}");
        house.close();
    }
}

#[test]
fn the_pool_grows_with_its_guests_and_shrinks_to_its_start() {
    let _dog = watchdog(10, "the pool grows with its guests and shrinks to its start");
    let house = House::open(2, 32, deadlines());
    let busy: Vec<TcpStream> = (0..20).map(|_| house.client(b'b')).collect();
    assert!((20..=23).contains(&house.threads()), "{}", house.threads());
    drop(busy);
    eventually("two threads", || house.threads() == 2);
    assert!(house.lobby.is_empty());
    house.close();
}

#[test]
fn the_pool_never_grows_above_its_cap() {
    let _dog = watchdog(10, "the pool never grows above its cap");
    let house = House::open(1, 4, deadlines());
    let mut clients: Vec<TcpStream> = (0..16).map(|_| house.connect()).collect();
    for client in &mut clients {
        client.write_all(b"s").expect("a byte is sent");
    }
    for client in &mut clients {
        assert_eq!(hear(client), Some(b's'));
        assert!(house.threads() <= 4);
    }
    assert_eq!(house.parrot.most.load(Ordering::SeqCst), 4);
    house.close();
}

/// Whoever leaves the door sends for a thread, and so does a watchman who comes by in that moment.
#[test]
fn one_thread_too_many_does_not_make_the_house_full() {
    let _dog = watchdog(30, "one thread too many does not make the house full");
    let tick = Duration::from_micros(1);
    let house = House::open(1, 2, Deadlines { tick, ..deadlines() });
    for _ in 0..2_000 {
        house.client(b'q');
        assert!(house.threads() <= 2);
    }
    house.close();
}

#[test]
fn no_newcomer_waits_for_the_watchman_while_threads_can_be_made() {
    let _dog = watchdog(10, "no newcomer waits for the watchman while threads can be made");
    let tick = Duration::from_secs(4);
    let house = House::open(1, 64, Deadlines { tick, ..deadlines() });
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let began = Instant::now();
                    house.client(b'q');
                    assert!(began.elapsed() < Duration::from_secs(2), "asleep at the door");
                }
            });
        }
    });
    house.close();
}

#[test]
fn two_hundred_panics_leave_the_pool_whole() {
    let _dog = watchdog(10, "two hundred panics leave the pool whole");
    let house = House::open(4, 8, deadlines());
    for _ in 0..200 {
        assert_eq!(ask(&mut house.connect(), b'p'), None);
    }
    eventually("nobody is left", || house.lobby.is_empty());
    assert!((4..=8).contains(&house.threads()), "{}", house.threads());
    house.client(b'q');
    house.close();
}

#[test]
fn with_one_thread_there_is_one_guest_at_a_time() {
    let _dog = watchdog(10, "with one thread there is one guest at a time");
    let house = House::open(1, 1, deadlines());
    let mut clients: Vec<TcpStream> = (0..5).map(|_| house.connect()).collect();
    for client in &mut clients {
        client.write_all(b"q").expect("a byte is sent");
    }
    for client in &mut clients {
        assert_eq!(hear(client), Some(b'q'));
        assert_eq!(hear(client), None, "it must make room for the next");
    }
    assert_eq!(house.parrot.most.load(Ordering::SeqCst), 1);
    house.close();
}

#[test]
fn with_one_thread_a_silent_guest_goes_after_its_grace() {
    let _dog = watchdog(10, "with one thread a silent guest goes after its grace");
    let house = House::open(1, 1, deadlines());
    let began = Instant::now();
    let mut silent = house.connect();
    let mut second = house.connect();
    assert_eq!(ask(&mut second, b'q'), Some(b'q'));
    assert!(began.elapsed() >= Duration::from_millis(99));
    assert!(began.elapsed() < Duration::from_millis(1500));
    assert_eq!(hear(&mut silent), None);
    house.close();
}

#[test]
fn at_the_cap_the_longest_idle_guest_goes_for_a_newcomer() {
    let _dog = watchdog(10, "at the cap the longest idle guest goes for a newcomer");
    // The watchman must not help here.
    let tick = Duration::from_secs(5);
    let house = House::open(1, 3, Deadlines { tick, ..deadlines() });
    let mut longest = house.client(b'q');
    thread::sleep(Duration::from_millis(5));
    let mut second = house.client(b'q');
    // Its answer is here, but its thread must have gone to wait as well.
    thread::sleep(Duration::from_millis(100));
    // Two are idle, and the third thread is at the door. It serves this newcomer, so somebody
    // else must come to the door.
    let newcomer = house.client(b'b');
    assert_eq!(hear(&mut longest), None);
    eventually("the thread of the longest at the door", || {
        house.lobby.door.waiting.load(Ordering::SeqCst) == 1
    });
    assert_eq!(ask(&mut second, b'q'), Some(b'q'));
    assert_eq!(house.threads(), 3);
    drop(newcomer);
    house.close();
}

#[test]
fn two_hundred_idle_guests_do_not_lock_newcomers_out() {
    let _dog = watchdog(10, "two hundred idle guests do not lock newcomers out");
    let house = House::open(2, 8, deadlines());
    let began = Instant::now();
    let hoard: Vec<TcpStream> = (0..200).map(|_| house.client(b'q')).collect();
    assert!(house.lobby.len() <= 8);
    assert!(began.elapsed() < Duration::from_secs(3));
    drop(hoard);
    house.close();
}

#[test]
fn a_full_house_turns_a_newcomer_away_after_the_queue_time_and_not_before() {
    let _dog =
        watchdog(10, "a full house turns a newcomer away after the queue time and not before");
    let queue = Duration::from_millis(300);
    let house = House::open(1, 2, Deadlines { queue, ..deadlines() });
    let first = house.client(b'b');
    let began = Instant::now();
    let second = house.client(b'b');
    assert_eq!(hear(&mut house.connect()), Some(b'!'));
    assert!(began.elapsed() >= queue, "{:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_millis(1500));
    assert_eq!(house.threads(), 3, "one is lent");
    // As soon as somebody leaves, the lent thread is one too many.
    drop(first);
    eventually("two threads", || house.threads() == 2);
    house.client(b'q');
    drop(second);
    house.close();
}

#[test]
fn a_newcomer_waits_for_a_place_that_becomes_free() {
    let _dog = watchdog(10, "a newcomer waits for a place that becomes free");
    let house = House::open(1, 2, deadlines());
    let busy = [house.client(b'b'), house.client(b'b')];
    let mut newcomer = house.connect();
    newcomer.write_all(b"q").expect("a byte is sent");
    thread::sleep(Duration::from_millis(100));
    let [first, second] = busy;
    drop(first);
    assert_eq!(hear(&mut newcomer), Some(b'q'));
    drop(second);
    house.close();
}

#[test]
fn a_house_without_free_descriptors_goes_on_and_can_be_closed() {
    let _dog = watchdog(10, "a house without free descriptors goes on and can be closed");
    let (mut house, address) = small_house();
    let hoard: Vec<TcpStream> = (0..60).map(|_| visit(address)).collect();
    for _ in 0..5 {
        assert_eq!(ask(&mut visit(address), b'q'), Some(b'q'));
    }
    assert!(complaints(&house) > 0, "48 descriptors were enough");
    assert_eq!(ask(&mut visit(address), b'x'), Some(b'x'));
    assert_eq!(house.finish(Duration::from_secs(5)), Some(Some(0)));
    drop(hoard);
}

/// This test program once more, with 48 descriptors, to run only `helper_a_small_house`.
fn small_house() -> (Process, SocketAddr) {
    let own = env::current_exe().expect("the path of this test program");
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 48; exec \"$0\" \"$@\""]).arg(own);
    shell.args(["--exact", "helper_a_small_house", "--ignored", "--nocapture"]);
    let house = Process::spawn(shell.env("SMALL_HOUSE", "1").stdout(Stdio::null()));
    let address_in = |lines: &[String]| lines.iter().find_map(|line| line.parse().ok());
    house.until(Duration::from_secs(5), |lines| address_in(lines).is_some());
    let address = address_in(&house.lines()).expect("the address of the house");
    (house, address)
}

#[test]
#[ignore = "a part of other tests"]
fn helper_a_small_house() {
    if env::var_os("SMALL_HOUSE").is_none() {
        return;
    }
    let house = House::open(4, 64, deadlines());
    let _ = io::stderr().write_all(format!("\n{}\n", house.address).as_bytes());
    while !house.parrot.enough.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(5));
    }
    house.close();
}

fn complaints(house: &Process) -> usize {
    let lines = house.lines();
    let about_room = |line: &&String| line.contains("Too many open files");
    lines.iter().filter(about_room).count()
}

#[test]
fn a_stop_waits_for_the_busy_and_sends_the_idle_home() {
    let _dog = watchdog(10, "a stop waits for the busy and sends the idle home");
    let house = House::open(2, 8, deadlines());
    let mut idle = house.client(b'q');
    let mut fresh = house.connect();
    eventually("both are in", || house.lobby.len() == 2);
    let mut busy = house.connect();
    busy.write_all(b"s").expect("a byte is sent");
    eventually("all are in", || house.lobby.len() == 3);
    let began = Instant::now();
    house.close();
    assert!(began.elapsed() < Duration::from_millis(1000));
    assert_eq!(hear(&mut busy), Some(b's'), "its request had begun");
    for client in [&mut busy, &mut idle, &mut fresh] {
        assert_eq!(hear(client), None);
    }
    assert!(TcpStream::connect(house.address).is_err(), "the door is open");
}

#[test]
fn a_stop_cuts_after_its_grace() {
    let _dog = watchdog(10, "a stop cuts after its grace");
    let house = House::open(2, 8, deadlines());
    let mut busy = house.client(b'b');
    let began = Instant::now();
    assert!(!house.pool.stop(Duration::from_millis(150)));
    assert!(began.elapsed() >= Duration::from_millis(150));
    assert!(began.elapsed() < Duration::from_millis(1000));
    assert_eq!(hear(&mut busy), None);
    assert_eq!((house.threads(), house.lobby.len()), (0, 0));
}

#[test]
fn a_stop_wakes_many_who_wait_at_the_door() {
    let _dog = watchdog(10, "a stop wakes many who wait at the door");
    let house = House::open(64, 64, deadlines());
    eventually("64 at the door", || house.lobby.door.waiting.load(Ordering::SeqCst) == 64);
    let began = Instant::now();
    house.close();
    assert!(began.elapsed() < Duration::from_millis(1000));
    // Asking twice does no harm.
    house.close();
}

#[test]
fn a_stop_of_a_full_house_lets_nobody_else_in() {
    let _dog = watchdog(10, "a stop of a full house lets nobody else in");
    let queue = Duration::from_millis(200);
    let house = House::open(1, 2, Deadlines { queue, ..deadlines() });
    let mut busy = [house.connect(), house.connect()];
    for client in &mut busy {
        client.write_all(b"s").expect("a byte is sent");
    }
    eventually("both are in", || house.lobby.len() == 2);
    let mut newcomer = house.connect();
    house.close();
    assert_eq!(busy.each_mut().map(hear), [Some(b's'), Some(b's')]);
    assert_eq!(hear(&mut newcomer), None);
}

#[test]
#[ignore = "exercise 4.3"]
fn exercise_4_3_a_full_house_complains_at_most_once_a_second() {
    let _dog = watchdog(10, "exercise 4 3 a full house complains at most once a second");
    let (house, address) = small_house();
    let began = Instant::now();
    let hoard: Vec<TcpStream> = (0..200).map(|_| visit(address)).collect();
    while began.elapsed() < Duration::from_millis(900) {
        assert_eq!(ask(&mut visit(address), b'q'), Some(b'q'));
    }
    assert!((1..=2).contains(&complaints(&house)), "{}", complaints(&house));
    drop(hoard);
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
