//! Chapter 3: the lobby. Each guest here is a real socket on 127.0.0.1. The tests play both the
//! guest's own thread and the watchman, so that each moment is theirs to choose.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use glasshouse::socket::lobby::{Deadlines, Guest, Lobby, Phase};
use support::watchdog::watchdog;

const WAITS: [Phase; 5] = [Phase::Fresh, Phase::Head, Phase::Idle, Phase::Body, Phase::Lingering];

const LONG: Duration = Duration::from_secs(60);

/// A lobby for two threads, both busy: nobody is at the door.
fn full_house() -> Lobby {
    let deadlines = Deadlines { grace: Duration::from_millis(60), ..Deadlines::default() };
    let lobby = Lobby::new(deadlines, 2);
    lobby.door.threads.store(2, Ordering::SeqCst);
    lobby
}

/// A connection: the client's end, and the guest it became.
fn visitor(lobby: &Lobby) -> (TcpStream, Arc<Guest>) {
    let door = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = door.local_addr().expect("the address of the door");
    let client = TcpStream::connect(address).expect("a connection");
    let (stream, peer) = door.accept().expect("the other end of it");
    (client, lobby.enter(stream, peer))
}

/// The guest's own thread: reads once, and says what came, how the wait ended, and when.
fn read_once(guest: &Arc<Guest>) -> JoinHandle<(usize, Result<(), Phase>, Instant)> {
    let guest = Arc::clone(guest);
    thread::spawn(move || {
        let count = (&*guest.stream).read(&mut [0; 16]).expect("no error");
        (count, guest.end_wait(), Instant::now())
    })
}

/// True when the reading side is open and empty: a read would sleep.
fn still_open(guest: &Guest) -> bool {
    guest.stream.set_nonblocking(true).expect("non-blocking");
    let result = (&*guest.stream).read(&mut [0]);
    guest.stream.set_nonblocking(false).expect("blocking");
    result.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn a_slow_sender_beats_a_read_timeout() {
    let _dog = watchdog(5, "a byte every 20 ms against a timeout of 200 ms");
    let (mut client, guest) = visitor(&full_house());
    let patience = Some(Duration::from_millis(200));
    guest.stream.set_read_timeout(patience).expect("a timeout");
    let began = Instant::now();
    let sender = thread::spawn(move || {
        for _ in 0..25 {
            thread::sleep(Duration::from_millis(20));
            client.write_all(b"a").expect("a byte is sent");
        }
    });
    let mut head = Vec::new();
    (&*guest.stream).read_to_end(&mut head).expect("the timeout never strikes");
    assert_eq!(head.len(), 25);
    assert!(began.elapsed() >= Duration::from_millis(500));
    sender.join().expect("the sender");
}

#[test]
fn a_slow_sender_does_not_beat_the_lobby() {
    let _dog = watchdog(5, "a byte every 20 ms against a deadline of 100 ms");
    let lobby = full_house();
    let (mut client, guest) = visitor(&lobby);
    let sender = thread::spawn(move || {
        while client.write_all(b"a").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let began = Instant::now();
    let deadline = lobby.after(Duration::from_millis(100));
    let served = Arc::clone(&guest);
    let server = thread::spawn(move || {
        loop {
            served.begin_wait(Phase::Head, deadline);
            let count = (&*served.stream).read(&mut [0; 16]).expect("no error");
            if let Err(why) = served.end_wait() {
                return why;
            }
            assert_eq!(count, 1, "the client has not gone");
        }
    });
    while !server.is_finished() {
        lobby.end_late_waits();
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(server.join().expect("the server"), Phase::Late);
    assert!(began.elapsed() >= Duration::from_millis(100));
    assert!(began.elapsed() < Duration::from_millis(1000));
    lobby.cut_all();
    sender.join().expect("the sender");
}

#[test]
fn each_phase_is_remembered() {
    let _dog = watchdog(5, "each phase is remembered");
    let lobby = full_house();
    let (_client, guest) = visitor(&lobby);
    assert_eq!(guest.phase(), Phase::Busy);
    for phase in WAITS {
        guest.begin_wait(phase, lobby.after(LONG));
        assert_eq!(guest.phase(), phase);
        assert_eq!(guest.end_wait(), Ok(()));
        assert_eq!(guest.phase(), Phase::Busy);
    }
}

#[test]
fn a_wait_ends_at_its_deadline_and_no_other_wait_does() {
    let _dog = watchdog(5, "five waits, one after the other");
    for phase in WAITS {
        let lobby = full_house();
        let (_client, late) = visitor(&lobby);
        let (_other_client, other) = visitor(&lobby);
        other.begin_wait(phase, lobby.after(LONG));
        let began = Instant::now();
        late.begin_wait(phase, lobby.after(Duration::from_millis(40)));
        let own_thread = read_once(&late);
        while !own_thread.is_finished() {
            lobby.end_late_waits();
            thread::sleep(Duration::from_millis(2));
        }
        let (count, result, ended) = own_thread.join().expect("the guest's thread");
        assert_eq!((count, result), (0, Err(Phase::Late)), "{phase:?}");
        // The lobby counts whole milliseconds.
        let waited = ended - began;
        assert!(waited >= Duration::from_millis(39), "{phase:?} {waited:?}");
        assert_eq!(other.phase(), phase);
        assert!(still_open(&other));
    }
}

#[test]
fn a_busy_guest_is_never_touched() {
    let _dog = watchdog(5, "a busy guest is never touched");
    let lobby = full_house();
    let (mut client, guest) = visitor(&lobby);
    guest.begin_wait(Phase::Head, lobby.after(Duration::ZERO));
    assert_eq!(guest.end_wait(), Ok(()));
    thread::sleep(Duration::from_millis(5));
    lobby.end_late_waits();
    lobby.close_idle();
    assert!(!lobby.show_one_out());
    assert_eq!((guest.phase(), lobby.in_a_request()), (Phase::Busy, 1));
    assert!(still_open(&guest));
    client.write_all(b"more").expect("the rest of the request");
    let mut rest = [0; 4];
    (&*guest.stream).read_exact(&mut rest).expect("all of it");
    assert_eq!(&rest, b"more");
}

#[test]
fn an_endless_deadline_is_no_deadline() {
    let _dog = watchdog(5, "an endless deadline is no deadline");
    let lobby = full_house();
    let (_client, guest) = visitor(&lobby);
    guest.begin_wait(Phase::Idle, lobby.after(Duration::MAX));
    lobby.end_late_waits();
    assert_eq!(guest.phase(), Phase::Idle);
}

#[test]
fn idle_goes_before_head_and_head_before_fresh() {
    let _dog = watchdog(5, "idle goes before head and head before fresh");
    let lobby = full_house();
    let begun = [Phase::Fresh, Phase::Head, Phase::Idle];
    let visitors = begun.map(|phase| {
        let (client, guest) = visitor(&lobby);
        let span = match phase {
            Phase::Idle => lobby.deadlines.keep_alive,
            _ => lobby.deadlines.head,
        };
        guest.begin_wait(phase, lobby.after(span));
        (client, guest)
    });
    thread::sleep(lobby.deadlines.grace + Duration::from_millis(5));
    let phases = || [0, 1, 2].map(|at: usize| visitors[at].1.phase());
    let gone = Phase::ShownOut;
    assert!(lobby.show_one_out());
    assert_eq!(phases(), [Phase::Fresh, Phase::Head, gone]);
    assert!(lobby.show_one_out());
    assert_eq!(phases(), [Phase::Fresh, gone, gone]);
    assert!(lobby.show_one_out());
    assert_eq!(phases(), [gone, gone, gone]);
    assert!(!lobby.show_one_out(), "nobody is shown out twice");
}

#[test]
fn the_longest_waiter_goes_first() {
    let _dog = watchdog(5, "the longest waiter goes first");
    for phase in [Phase::Idle, Phase::Head, Phase::Fresh] {
        let lobby = full_house();
        let (_one, newer) = visitor(&lobby);
        let (_two, longest) = visitor(&lobby);
        // Both in the order of arrival and in the lobby's map `newer` is the first.
        longest.begin_wait(phase, lobby.after(Duration::from_secs(5)));
        newer.begin_wait(phase, lobby.after(Duration::from_secs(6)));
        assert!(lobby.show_one_out());
        assert_eq!(longest.phase(), Phase::ShownOut);
        assert_eq!(newer.phase(), phase);
    }
}

#[test]
fn a_fresh_guest_is_shown_out_only_after_its_grace() {
    let _dog = watchdog(5, "a fresh guest is shown out only after its grace");
    let lobby = full_house();
    let (_client, guest) = visitor(&lobby);
    guest.begin_wait(Phase::Fresh, lobby.after(lobby.deadlines.head));
    let began = Instant::now();
    while !lobby.show_one_out() {
        assert!(began.elapsed() < Duration::from_secs(2), "never shown out");
        thread::sleep(Duration::from_millis(1));
    }
    assert!(began.elapsed() >= lobby.deadlines.grace - Duration::from_millis(1));
    assert_eq!(guest.phase(), Phase::ShownOut);
}

#[test]
fn who_sends_a_body_or_has_just_been_answered_is_not_shown_out() {
    let _dog = watchdog(5, "who sends a body or has just been answered is not shown out");
    let lobby = full_house();
    let (_one, uploads) = visitor(&lobby);
    let (_two, lingers) = visitor(&lobby);
    uploads.begin_wait(Phase::Body, lobby.after(Duration::ZERO));
    lingers.begin_wait(Phase::Lingering, lobby.after(Duration::ZERO));
    assert!(!lobby.show_one_out());
    assert!(still_open(&uploads) && still_open(&lingers));
}

#[test]
fn who_is_shown_out_wakes_at_once() {
    let _dog = watchdog(5, "a read that somebody ends");
    let lobby = full_house();
    let (_client, guest) = visitor(&lobby);
    guest.begin_wait(Phase::Idle, lobby.after(LONG));
    let own_thread = read_once(&guest);
    thread::sleep(Duration::from_millis(30));
    let began = Instant::now();
    assert!(lobby.show_one_out());
    let (count, result, ended) = own_thread.join().expect("the guest's thread");
    assert_eq!((count, result), (0, Err(Phase::ShownOut)));
    assert!(ended - began < Duration::from_millis(200));
}

#[test]
fn what_had_arrived_is_still_read_after_being_shown_out() {
    let _dog = watchdog(5, "what had arrived is still read after being shown out");
    let lobby = full_house();
    let (mut client, guest) = visitor(&lobby);
    guest.begin_wait(Phase::Idle, lobby.after(LONG));
    client.write_all(b"GET /").expect("the start of a request");
    // On loopback a written byte has arrived as soon as it can be peeked at.
    guest.stream.peek(&mut [0]).expect("it has arrived");
    assert!(lobby.show_one_out());
    assert_eq!(guest.end_wait(), Err(Phase::ShownOut));
    let mut all = Vec::new();
    (&*guest.stream).read_to_end(&mut all).expect("then the end");
    assert_eq!(all, b"GET /");
}

#[test]
fn of_the_guest_and_an_outsider_exactly_one_ends_the_wait() {
    const ROUNDS: usize = 10_000;
    let _dog = watchdog(30, "10,000 races");
    let lobby = full_house();
    let (_client, guest) = visitor(&lobby);
    let [begun, ended, tried] = [(); 3].map(|()| AtomicUsize::new(0));
    let (mut own, mut outside) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                wait_for(&begun, round);
                match round % 4 {
                    0 => wait_for(&ended, round),
                    _ => hold_back(round / 40),
                }
                outside.push(lobby.show_one_out());
                tried.store(round, Ordering::SeqCst);
            }
        });
        for round in 1..=ROUNDS {
            guest.begin_wait(Phase::Idle, lobby.after(LONG));
            begun.store(round, Ordering::SeqCst);
            match round % 4 {
                1 => wait_for(&tried, round),
                _ => hold_back(round),
            }
            own.push(guest.end_wait().is_ok());
            ended.store(round, Ordering::SeqCst);
            wait_for(&tried, round);
        }
    });
    // In half of the rounds one side lets the other go first, so the winner is known.
    let wins = own.iter().filter(|won| **won).count();
    assert!((ROUNDS / 4..=3 * ROUNDS / 4).contains(&wins), "{wins}");
    let same = own.iter().zip(&outside).filter(|(own, out)| own == out);
    assert_eq!(same.count(), 0, "rounds with two winners, or with none");
}

/// Spins at first, for then both sides go on at the same moment.
fn wait_for(counter: &AtomicUsize, value: usize) {
    let mut turns = 0;
    while counter.load(Ordering::SeqCst) < value {
        turns += 1;
        if turns > 200 {
            thread::yield_now();
        }
        std::hint::spin_loop();
    }
}

/// A few nanoseconds more or less, so that each side is sometimes the first.
fn hold_back(round: usize) {
    for _ in 0..round % 40 {
        std::hint::spin_loop();
    }
}

#[test]
fn a_guest_that_becomes_idle_before_a_full_house_makes_the_longest_waiter_go() {
    let _dog =
        watchdog(5, "a guest that becomes idle before a full house makes the longest waiter go");
    let lobby = full_house();
    let (_one, first) = visitor(&lobby);
    let (_two, second) = visitor(&lobby);
    first.begin_wait(Phase::Idle, lobby.after(Duration::from_secs(4)));
    lobby.begin_idle(&second, lobby.after(Duration::from_secs(5)));
    assert_eq!(first.phase(), Phase::ShownOut);
    assert_eq!(second.phase(), Phase::Idle);
}

#[test]
fn a_guest_that_becomes_idle_alone_before_a_full_house_goes_itself() {
    let _dog = watchdog(5, "a guest that becomes idle alone before a full house goes itself");
    let lobby = full_house();
    let (_client, guest) = visitor(&lobby);
    lobby.begin_idle(&guest, lobby.after(LONG));
    let count = (&*guest.stream).read(&mut [0]).expect("no error");
    assert_eq!((count, guest.end_wait()), (0, Err(Phase::ShownOut)));
}

#[test]
fn a_guest_may_be_idle_while_somebody_stands_at_the_door_or_can_be_made() {
    let _dog = watchdog(5, "a guest may be idle while somebody stands at the door or can be made");
    let lobby = full_house();
    let (_client, guest) = visitor(&lobby);
    lobby.door.waiting.store(1, Ordering::SeqCst);
    lobby.begin_idle(&guest, lobby.after(LONG));
    assert_eq!(guest.end_wait(), Ok(()));
    lobby.door.waiting.store(0, Ordering::SeqCst);
    lobby.door.threads.store(1, Ordering::SeqCst);
    lobby.begin_idle(&guest, lobby.after(LONG));
    assert_eq!(guest.end_wait(), Ok(()));
    // One of two threads, but the system gives no more.
    lobby.door.refused.store(true, Ordering::SeqCst);
    lobby.begin_idle(&guest, lobby.after(LONG));
    assert_eq!(guest.end_wait(), Err(Phase::ShownOut));
}

#[test]
fn at_closing_time_those_go_who_are_not_inside_a_request() {
    let _dog = watchdog(5, "at closing time those go who are not inside a request");
    let lobby = full_house();
    let visitors = WAITS.map(|phase| {
        let (client, guest) = visitor(&lobby);
        guest.begin_wait(phase, lobby.after(LONG));
        (client, guest)
    });
    thread::sleep(lobby.deadlines.grace + Duration::from_millis(5));
    assert_eq!(lobby.in_a_request(), 2, "one in its head, and one in its body");
    lobby.close_idle();
    let after = visitors.each_ref().map(|(_, guest)| guest.phase());
    let gone = Phase::ShownOut;
    assert_eq!(after, [gone, Phase::Head, gone, Phase::Body, Phase::Lingering]);
}

#[test]
fn who_has_come_to_stay_goes_only_at_closing_time() {
    let _dog = watchdog(5, "who has come to stay goes only at closing time");
    let lobby = full_house();
    let (_client, guest) = visitor(&lobby);
    guest.begin_wait(Phase::Staying, 0);
    assert!(!lobby.show_one_out());
    lobby.end_late_waits();
    assert_eq!(guest.end_wait(), Ok(()));
    guest.begin_wait(Phase::Staying, 0);
    lobby.close_idle();
    assert_eq!(guest.end_wait(), Err(Phase::ShownOut));
}

#[test]
fn in_the_end_everybody_is_cut() {
    let _dog = watchdog(5, "in the end everybody is cut");
    let lobby = full_house();
    let (mut busy_client, busy) = visitor(&lobby);
    let (mut idle_client, idle) = visitor(&lobby);
    idle.begin_wait(Phase::Idle, lobby.after(LONG));
    lobby.cut_all();
    for client in [&mut busy_client, &mut idle_client] {
        let patience = Some(Duration::from_secs(2));
        client.set_read_timeout(patience).expect("a timeout");
        assert_eq!(client.read(&mut [0]).expect("no error"), 0);
    }
    assert!((&*busy.stream).write_all(b"too late").is_err());
}

#[test]
fn who_leaves_is_forgotten_and_its_socket_closes() {
    let _dog = watchdog(5, "who leaves is forgotten and its socket closes");
    let lobby = full_house();
    let (mut client, guest) = visitor(&lobby);
    let (_other_client, other) = visitor(&lobby);
    assert_eq!((guest.number, other.number, lobby.len()), (1, 2, 2));
    lobby.leave(&guest);
    assert_eq!(lobby.len(), 1);
    drop(guest);
    let patience = Some(Duration::from_secs(2));
    client.set_read_timeout(patience).expect("a timeout");
    assert_eq!(client.read(&mut [0]).expect("no error"), 0);
    lobby.leave(&other);
    assert!(lobby.is_empty());
}

#[test]
#[ignore = "exercise 3.3"]
fn exercise_3_3_closing_time_spares_a_newcomer_in_its_grace() {
    let _dog = watchdog(5, "exercise 3 3 closing time spares a newcomer in its grace");
    let lobby = full_house();
    let (_client, guest) = visitor(&lobby);
    guest.begin_wait(Phase::Fresh, lobby.after(lobby.deadlines.head));
    lobby.close_idle();
    assert_eq!(guest.phase(), Phase::Fresh);
    thread::sleep(lobby.deadlines.grace + Duration::from_millis(5));
    lobby.close_idle();
    assert_eq!(guest.phase(), Phase::ShownOut);
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
