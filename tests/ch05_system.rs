//! Chapter 5: the system. A signal is for a whole process, so each test that needs one starts this
//! test program once more, as a child that runs only its helper.
#![cfg(unix)]

mod support;

use std::env;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use glasshouse::socket::system::{BACKLOG, Shutdown, Signal, descriptor_limit, lengthen_backlog};
use support::process::Process;
use support::watchdog::watchdog;

const LIMIT: Duration = Duration::from_secs(5);

/// Runs a helper of this file in a process of its own, after some words of shell.
fn child(helper: &str, before: &str) -> Process {
    let own = env::current_exe().expect("the path of this test program");
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{before} exec \"$0\" \"$@\"")).arg(own);
    shell.args(["--exact", helper, "--ignored", "--nocapture"]);
    Process::spawn(shell.env("CHILD", "1").stdout(Stdio::null()))
}

/// The helpers do nothing when somebody runs all ignored tests.
fn is_child() -> bool {
    env::var_os("CHILD").is_some()
}

fn say(line: &str) {
    let _ = io::stderr().write_all(format!("\n{line}\n").as_bytes());
}

fn wait_for(child: &Process, line: &str) {
    let said = |lines: &[String]| lines.iter().any(|heard| heard == line);
    assert!(child.until(LIMIT, said), "no {line:?} in {:?}", child.lines());
}

/// What happens without this chapter.
#[test]
fn a_process_that_has_no_handler_dies_of_the_signal() {
    let _dog = watchdog(10, "a process that has no handler dies of the signal");
    let mut child = child("helper_without_a_handler", "");
    wait_for(&child, "ready");
    child.signal("TERM");
    assert_eq!(child.finish(LIMIT), Some(None));
}

#[test]
#[ignore = "a part of other tests"]
fn helper_without_a_handler() {
    if is_child() {
        say("ready");
        thread::sleep(2 * LIMIT);
    }
}

#[test]
fn both_signals_reach_a_thread_that_waits_and_are_told_apart() {
    let _dog = watchdog(10, "both signals reach a thread that waits and are told apart");
    let mut child = child("helper_waits_twice", "");
    wait_for(&child, "ready");
    child.signal("TERM");
    wait_for(&child, "first Terminate");
    child.signal("INT");
    wait_for(&child, "second Interrupt");
    assert_eq!(child.finish(LIMIT), Some(Some(7)), "its own exit code");
}

#[test]
fn the_same_signal_is_reported_each_time() {
    let _dog = watchdog(10, "the same signal is reported each time");
    let mut child = child("helper_waits_twice", "");
    wait_for(&child, "ready");
    child.signal("INT");
    wait_for(&child, "first Interrupt");
    child.signal("INT");
    wait_for(&child, "second Interrupt");
    assert_eq!(child.finish(LIMIT), Some(Some(7)));
}

#[test]
#[ignore = "a part of other tests"]
fn helper_waits_twice() {
    if is_child() {
        let shutdown = Shutdown::on_signals().expect("a pair of sockets");
        say("ready");
        say(&format!("first {:?}", shutdown.wait()));
        say(&format!("second {:?}", shutdown.wait()));
        std::process::exit(7);
    }
}

#[test]
fn a_signal_before_the_wait_is_not_lost() {
    let _dog = watchdog(10, "a signal before the wait is not lost");
    let mut child = child("helper_waits_late", "");
    wait_for(&child, "ready");
    child.signal("INT");
    wait_for(&child, "Interrupt");
    assert_eq!(child.finish(LIMIT), Some(Some(0)));
}

#[test]
#[ignore = "a part of other tests"]
fn helper_waits_late() {
    if is_child() {
        let shutdown = Shutdown::on_signals().expect("a pair of sockets");
        say("ready");
        thread::sleep(Duration::from_millis(200));
        say(&format!("{:?}", shutdown.wait()));
    }
}

#[test]
fn a_hangup_is_told_to_who_wants_to_know() {
    let _dog = watchdog(10, "a hangup is told to who wants to know");
    let mut child = child("helper_wants_to_know", "");
    wait_for(&child, "ready");
    child.signal("HUP");
    wait_for(&child, "Hangup");
    child.signal("TERM");
    assert_eq!(child.finish(LIMIT), Some(None), "nobody asked for this one, so it is deadly");
}

#[test]
#[ignore = "a part of other tests"]
fn helper_wants_to_know() {
    if is_child() {
        let shutdown = Shutdown::on(&[Signal::Hangup]).expect("a pair of sockets");
        say("ready");
        say(&format!("{:?}", shutdown.wait()));
        thread::sleep(2 * LIMIT);
    }
}

#[test]
fn a_file_that_may_not_grow_is_an_error_and_no_death() {
    let _dog = watchdog(10, "a file that may not grow is an error and no death");
    let mut child = child("helper_fills_a_file", "ulimit -f 8;");
    wait_for(&child, "FileTooLarge");
    wait_for(&child, "and its own child dies: true");
    assert_eq!(child.finish(LIMIT), Some(Some(0)));
}

#[test]
#[ignore = "a part of other tests"]
fn helper_fills_a_file() {
    if is_child() {
        let _shutdown = Shutdown::on_signals().expect("a pair of sockets");
        let name = format!("too-long-{}", std::process::id());
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let result = std::fs::write(&path, vec![b'x'; 100_000]);
        let _ = std::fs::remove_file(&path);
        say(&format!("{:?}", result.expect_err("8 blocks are less").kind()));
        // A program that we start knows nothing of our handler, and is used to die.
        let status = Command::new("sh").args(["-c", "kill -s XFSZ $$"]).status();
        say(&format!("and its own child dies: {}", status.expect("a shell").code().is_none()));
    }
}

#[test]
fn a_thousand_signals_that_nobody_waits_for_do_no_harm() {
    let _dog = watchdog(10, "a thousand signals that nobody waits for do no harm");
    let mut child = child("helper_is_showered", "");
    wait_for(&child, "still here");
    assert_eq!(child.finish(LIMIT), Some(Some(0)));
}

#[test]
#[ignore = "a part of other tests"]
fn helper_is_showered() {
    if is_child() {
        let shutdown = Shutdown::on_signals().expect("a pair of sockets");
        let shower = format!("for i in $(seq 1000); do kill -s TERM {}; done", std::process::id());
        let status = Command::new("sh").args(["-c", &shower]).status();
        assert!(status.expect("a shell").success());
        assert_eq!(shutdown.wait(), Signal::Terminate);
        say("still here");
    }
}

#[test]
fn the_longer_backlog_holds_more_than_the_standard_one() {
    let _dog = watchdog(10, "the longer backlog holds more than the standard one");
    const BURST: usize = 300;
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn");
    let most: usize = most.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let standard = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let longer = TcpListener::bind("127.0.0.1:0").expect("a free port");
    lengthen_backlog(&longer).expect("no error");
    if most < BURST {
        println!("this kernel allows {most} at the most: nothing to compare");
        return;
    }
    assert!(burst(&standard, BURST).len() < BURST);
    assert_eq!(burst(&longer, BURST).len(), BURST);
    assert!(usize::from(BACKLOG) > BURST);
}

/// Connects until the queue is full or so many are in it. Nobody accepts.
fn burst(door: &TcpListener, most: usize) -> Vec<TcpStream> {
    let address = door.local_addr().expect("the address of the door");
    let patience = Duration::from_millis(300);
    let clients = (0..most).map_while(|_| TcpStream::connect_timeout(&address, patience).ok());
    clients.collect()
}

#[test]
fn a_door_with_a_longer_backlog_is_still_a_door() {
    let _dog = watchdog(10, "a door with a longer backlog is still a door");
    let door = TcpListener::bind("127.0.0.1:0").expect("a free port");
    lengthen_backlog(&door).expect("no error");
    let early = burst(&door, 1);
    lengthen_backlog(&door).expect("no error");
    let late = burst(&door, 1);
    for client in early.iter().chain(&late) {
        let (_, peer) = door.accept().expect("a guest");
        assert_eq!(peer, client.local_addr().expect("its address"));
    }
}

#[test]
fn the_limit_of_descriptors_is_the_one_of_ulimit() {
    let _dog = watchdog(10, "the limit of descriptors is the one of ulimit");
    if descriptor_limit().is_none() {
        println!("this system does not tell");
        return;
    }
    let mut child = child("helper_tells_its_limit", "ulimit -n 123;");
    wait_for(&child, "Some(123)");
    assert_eq!(child.finish(LIMIT), Some(Some(0)));
}

#[test]
#[ignore = "a part of other tests"]
fn helper_tells_its_limit() {
    if is_child() {
        say(&format!("{:?}", descriptor_limit()));
    }
}

#[test]
#[ignore = "exercise 5.3"]
fn exercise_5_3_ctrl_backslash_asks_for_an_end_too() {
    let _dog = watchdog(10, "exercise 5 3 ctrl backslash asks for an end too");
    let mut child = child("helper_waits_twice", "");
    wait_for(&child, "ready");
    child.signal("QUIT");
    wait_for(&child, "first Quit");
    child.signal("INT");
    wait_for(&child, "second Interrupt");
    assert_eq!(child.finish(LIMIT), Some(Some(7)));
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
