//! Chapter 1: the listener. Everything happens on real sockets of 127.0.0.1.

mod support;

use glasshouse::socket::listener::{Arrival, BindError, Listener};
use std::collections::HashSet;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use support::process::Process;
use support::watchdog::watchdog;

/// A listener on a port of the system's choice.
fn any_port() -> Listener {
    Listener::bind("127.0.0.1", 0).expect("127.0.0.1 has a free port")
}

/// The next guest; anything else ends the test.
fn guest(listener: &Listener) -> (TcpStream, SocketAddr) {
    match listener.accept() {
        Arrival::Guest(stream, peer) => (stream, peer),
        other => panic!("a guest was expected, not {other:?}"),
    }
}

fn connect(listener: &Listener) -> TcpStream {
    TcpStream::connect(listener.address()).expect("the listener takes connections")
}

// Binding an address.

#[test]
fn port_0_gives_a_real_port() {
    let _dog = watchdog(5, "port 0");
    let listener = any_port();
    assert_ne!(listener.address().port(), 0);
    let at_socket = listener.socket().local_addr().expect("it is bound");
    assert_eq!(listener.address(), at_socket);
    connect(&listener);
}

#[test]
fn a_name_is_as_good_as_an_address() {
    let _dog = watchdog(5, "localhost");
    let listener = Listener::bind("localhost", 0).expect("localhost is this machine");
    assert!(listener.address().ip().is_loopback());
}

#[test]
fn a_taken_port_is_named_with_advice() {
    let first = any_port();
    let port = first.address().port();
    let error = Listener::bind("127.0.0.1", port).err();
    assert_eq!(error, Some(BindError::InUse(format!("127.0.0.1:{port}"))));
    assert_eq!(
        error.map(|error| error.to_string()),
        Some(format!(
            "127.0.0.1:{port} is taken: another program listens there, perhaps a second copy of \
             this one. Stop it, or choose another port (0 means any free one)."
        ))
    );
}

#[test]
fn an_address_of_another_machine_is_not_ours() {
    // RFC 5737: 192.0.2.0/24 is for documentation, so no machine has it.
    let error = Listener::bind("192.0.2.1", 8000).err();
    let expected = BindError::NotOurs("192.0.2.1:8000".to_string());
    assert_eq!(error, Some(expected.clone()));
    assert_eq!(
        expected.to_string(),
        "192.0.2.1:8000 is not an address of this machine. Try 127.0.0.1, or 0.0.0.0 for all."
    );
}

#[test]
fn a_port_for_administrators_is_named_with_advice() {
    let error = BindError::NotAllowed("127.0.0.1:80".to_string());
    assert_eq!(
        error.to_string(),
        "127.0.0.1:80 is not allowed for this user. Choose a port of 1024 or above."
    );
    // Who may use port 1 depends on the user and the machine; if we may not, this is what we hear.
    match Listener::bind("127.0.0.1", 1) {
        Ok(_) | Err(BindError::InUse(_)) => {}
        Err(error) => assert_eq!(error, BindError::NotAllowed("127.0.0.1:1".to_string())),
    }
}

#[test]
fn any_other_error_is_told_in_the_systems_words() {
    // A zero byte ends a name for the system, so the standard library does not even ask it.
    let Some(BindError::Other(address, cause)) = Listener::bind("no\0name", 8000).err() else {
        panic!("this name cannot be bound");
    };
    assert_eq!(address, "no\0name:8000");
    let error = BindError::Other("example:8000".to_string(), cause.clone());
    assert_eq!(error.to_string(), format!("example:8000 cannot be bound: {cause}."));
}

#[test]
fn an_address_with_colons_is_shown_in_brackets() {
    // RFC 3849: 2001:db8::/32 is for documentation. Without IPv6 the error is another one.
    let error = Listener::bind("2001:db8::1", 8000).err();
    let text = error.expect("this address is nobody's").to_string();
    assert!(text.starts_with("[2001:db8::1]:8000 "), "{text}");
}

#[test]
fn a_socket_that_listens_already_is_taken_over() {
    let _dog = watchdog(5, "a socket from elsewhere");
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("it is bound");
    let listener = Listener::from_bound(socket).expect("it has an address");
    assert_eq!(listener.address(), address);
    let client = connect(&listener);
    let (_stream, peer) = guest(&listener);
    assert_eq!(Some(peer), client.local_addr().ok());
}

// Waiting for guests.

#[test]
fn a_guest_comes_with_the_address_of_its_peer() {
    let _dog = watchdog(5, "one guest");
    let listener = any_port();
    let mut client = connect(&listener);
    let (mut stream, peer) = guest(&listener);
    assert_eq!(Some(peer), client.local_addr().ok());
    stream.write_all(b"welcome").expect("the guest listens");
    let mut heard = [0; 7];
    client.read_exact(&mut heard).expect("the server talks");
    assert_eq!(&heard, b"welcome");
}

#[test]
fn a_guest_that_has_gone_still_has_an_address() {
    let dog = watchdog(5, "a guest that has gone");
    let listener = any_port();
    let client = connect(&listener);
    let address = client.local_addr().expect("it is connected");
    drop(client);
    let (mut stream, peer) = guest(&listener);
    assert_eq!(peer, address);
    // Bytes for a peer that has closed are answered with a reset. After that the socket no longer
    // knows its peer, and `peer_addr().unwrap()` would have ended the program.
    dog.state("guest", "waiting for the reset");
    while stream.peer_addr().is_ok() {
        let _ = stream.write(b"anybody?");
        thread::sleep(Duration::from_millis(1));
    }
    // The broken connection was this guest's own affair.
    connect(&listener);
    guest(&listener);
}

#[test]
fn guests_wait_in_the_backlog_in_their_order() {
    let _dog = watchdog(5, "the backlog");
    let listener = any_port();
    // Nobody calls `accept` yet. The kernel answers for us.
    let mut clients = Vec::new();
    for number in 0..100_u8 {
        let mut client = connect(&listener);
        client.write_all(&[number]).expect("the kernel takes it");
        clients.push(client);
    }
    for (number, client) in (0..100).zip(&clients) {
        let (mut stream, peer) = guest(&listener);
        assert_eq!(Some(peer), client.local_addr().ok());
        let mut first = [0];
        stream.read_exact(&mut first).expect("it was sent long ago");
        assert_eq!(first, [number]);
    }
}

#[test]
fn several_threads_share_one_door() {
    let _dog = watchdog(10, "many clients, four acceptors");
    let listener = Arc::new(any_port());
    let stop = listener.stop();
    let acceptors: Vec<_> = (0..4)
        .map(|_| {
            let listener = Arc::clone(&listener);
            thread::spawn(move || {
                let mut served = Vec::new();
                while let Arrival::Guest(mut stream, peer) = listener.accept() {
                    stream.write_all(b"one").expect("the client waits for an answer");
                    served.push(peer);
                }
                served
            })
        })
        .collect();
    let mut clients = HashSet::new();
    for _ in 0..300 {
        let mut client = connect(&listener);
        clients.insert(client.local_addr().expect("it is connected"));
        let mut heard = String::new();
        client.read_to_string(&mut heard).expect("an answer");
        assert_eq!(heard, "one", "each guest is given to one thread only");
    }
    stop.ask();
    let served: Vec<SocketAddr> = acceptors
        .into_iter()
        .flat_map(|thread| thread.join().expect("no acceptor panics"))
        .collect();
    assert_eq!(served.len(), 300);
    assert_eq!(served.into_iter().collect::<HashSet<_>>(), clients);
}

// Stopping.

#[test]
fn a_stop_wakes_every_thread_that_waits() {
    let dog = watchdog(5, "eight acceptors");
    let listener = Arc::new(any_port());
    let acceptors: Vec<_> = (0..8)
        .map(|_| {
            let listener = Arc::clone(&listener);
            thread::spawn(move || listener.accept())
        })
        .collect();
    thread::sleep(Duration::from_millis(50)); // now they all sleep
    let stop = listener.stop();
    assert!(!stop.is_asked());
    stop.ask();
    assert!(stop.is_asked());
    for (number, thread) in acceptors.into_iter().enumerate() {
        dog.state("acceptor", &format!("number {number} is waited for"));
        let arrival = thread.join().expect("no acceptor panics");
        assert!(matches!(arrival, Arrival::Stopped), "{arrival:?}");
    }
}

#[test]
fn after_a_stop_nobody_is_let_in() {
    let _dog = watchdog(5, "after the stop");
    let listener = any_port();
    let stop = listener.stop();
    stop.ask();
    stop.ask(); // twice does no harm
    assert!(matches!(listener.accept(), Arrival::Stopped));
    assert!(matches!(listener.accept(), Arrival::Stopped));
    // Elsewhere the port stays open until the process drops the listener.
    if cfg!(target_os = "linux") {
        let error = TcpStream::connect(listener.address()).expect_err("the door is closed");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_stop_resets_those_who_still_wait_in_the_backlog() {
    let _dog = watchdog(5, "the backlog after the stop");
    let listener = any_port();
    let mut client = connect(&listener);
    listener.stop().ask();
    let error = client.read(&mut [0]).expect_err("nobody will serve it");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(matches!(listener.accept(), Arrival::Stopped));
}

#[test]
fn after_a_stop_the_port_can_be_bound_again() {
    let _dog = watchdog(5, "the same port twice");
    let first = any_port();
    let address = first.address();
    let _client = connect(&first);
    let _served = guest(&first);
    first.stop().ask();
    drop(first);
    let second = Listener::bind("127.0.0.1", address.port());
    assert_eq!(second.map(|second| second.address()), Ok(address));
}

// A socket that others use too.

/// Two listeners at one socket, as two processes would have them.
fn two_at_one_door() -> (Listener, Listener) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let second = socket.try_clone().expect("a descriptor");
    let share = |socket| Listener::shared(socket).expect("it has an address");
    (share(socket), share(second))
}

#[test]
#[cfg(target_os = "linux")]
fn a_stop_leaves_a_shared_socket_to_the_others() {
    let _dog = watchdog(5, "a stop at a shared socket");
    let (ours, others) = two_at_one_door();
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..8).map(|_| scope.spawn(|| ours.accept())).collect();
        thread::sleep(Duration::from_millis(50));
        ours.stop().ask();
        for thread in waiting {
            assert!(matches!(thread.join(), Ok(Arrival::Stopped)));
        }
    });
    let client = connect(&ours);
    let (_stream, peer) = guest(&others);
    assert_eq!(Some(peer), client.local_addr().ok());
}

#[test]
#[cfg(target_os = "linux")]
fn a_nap_ends_no_wait_and_is_not_handed_down_to_the_guest() {
    let _dog = watchdog(5, "several naps");
    let (listener, _) = two_at_one_door();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| guest(&listener));
        thread::sleep(Duration::from_millis(600));
        assert!(!waiting.is_finished(), "nobody has come");
        let _client = connect(&listener);
        let (stream, _) = waiting.join().expect("a guest");
        assert_eq!(stream.read_timeout().ok(), Some(None));
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_shared_socket_that_somebody_has_shut_down_is_a_stop() {
    let _dog = watchdog(5, "a stop from elsewhere");
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let second = socket.try_clone().expect("a descriptor");
    let owner = Listener::from_bound(second).expect("it has an address");
    let listener = Listener::shared(socket).expect("it has an address");
    owner.stop().ask();
    assert!(matches!(listener.accept(), Arrival::Stopped));
    assert!(listener.stop().is_asked(), "all who ask shall know");
}

// When the system has no descriptor left.

#[test]
fn without_a_descriptor_accept_waits_longer_each_time() {
    in_a_small_process("helper_no_room");
}

#[test]
fn a_stop_needs_no_free_descriptor() {
    in_a_small_process("helper_stop_without_descriptors");
}

/// Runs one helper below, in a process that may open only 40 files.
fn in_a_small_process(helper: &str) {
    let own = std::env::current_exe().expect("the path of this test program");
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 40; exec \"$0\" \"$@\" 1>&2"])
        .arg(own)
        .args(["--exact", helper, "--ignored", "--nocapture"])
        .env("SMALL_PROCESS", "1");
    let mut process = Process::spawn(command.stdout(Stdio::null()));
    let ended = process.finish(Duration::from_secs(10));
    let said = process.lines();
    assert_eq!(ended, Some(Some(0)), "{}", said.join("\n"));
    // A helper with another name would be no test at all, and green.
    let ran = said.iter().any(|line| line.contains("1 passed"));
    assert!(ran, "{}", said.join("\n"));
}

/// Opens files until the system refuses. `None` outside of a small process, where that would take
/// long and disturb the other tests.
fn all_descriptors() -> Option<Vec<File>> {
    std::env::var_os("SMALL_PROCESS")?;
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    Some(files)
}

#[test]
#[ignore = "run by without_a_descriptor_accept_waits_longer_each_time"]
fn helper_no_room() {
    let listener = any_port();
    let Some(mut files) = all_descriptors() else {
        return;
    };
    files.pop();
    let _client = connect(&listener); // takes the last descriptor
    let no_room = || {
        let begin = Instant::now();
        let arrival = listener.accept();
        assert!(matches!(arrival, Arrival::NoRoom(_)), "{arrival:?}");
        begin.elapsed()
    };
    for least in [5, 10, 20, 40, 80, 160, 160] {
        let pause = no_room();
        assert!(pause >= Duration::from_millis(least), "{pause:?}");
    }
    // One descriptor is free again, and the guest has waited in the backlog.
    files.pop();
    let _guest = guest(&listener);
    // A success forgets the failures: the next pause is a short one.
    let pause = no_room();
    assert!(pause < Duration::from_millis(120), "{pause:?}");
}

#[test]
#[ignore = "run by a_stop_needs_no_free_descriptor"]
fn helper_stop_without_descriptors() {
    let listener = Arc::new(any_port());
    let asleep = Arc::clone(&listener);
    let acceptor = thread::spawn(move || asleep.accept());
    thread::sleep(Duration::from_millis(50)); // now it sleeps
    let Some(_files) = all_descriptors() else {
        listener.stop().ask();
        return;
    };
    listener.stop().ask();
    let arrival = acceptor.join().expect("the acceptor does not panic");
    assert!(matches!(arrival, Arrival::Stopped), "{arrival:?}");
}

// Exercises.

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}

#[test]
#[ignore = "exercise 1.3"]
fn exercise_1_3_a_dropped_listener_lets_nobody_in() {
    let _dog = watchdog(5, "exercise 1.3");
    let listener = any_port();
    let address = listener.address();
    let stop = listener.stop();
    drop(listener);
    let error = TcpStream::connect(address).expect_err("nobody will ever accept this");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(stop.is_asked());
}
