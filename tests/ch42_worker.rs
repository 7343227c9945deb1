//! Chapter 42: workers. The pool is tried with a worker of a few lines, which does what a frame
//! tells it: echo, sleep, loop, die. Without `python3` the tests say so, and pass.
#![cfg(unix)]

mod support;

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use glasshouse::python::lane::{Fault, Lane};
use glasshouse::python::worker::{Pool, PythonSpec, StartError};
use support::has_python;
use support::watchdog::watchdog;

const SCRIPT: &str = r#"
import os, select, signal, socket, struct, sys, time

def frame(kind, payload=b""):
    return kind + struct.pack(">I", len(payload)) + payload

name, path = sys.argv[1:3]
control = socket.socket(fileno=os.dup(0))
if name == "broken" or name.startswith("/") and not os.path.exists(name):
    control.sendall(frame(b"!", b"NameError: name 'aplication' is not defined\n"))
    sys.exit(1)
if name == "ends":
    sys.exit(3)
if name == "sleeps":
    time.sleep(30)
door = socket.socket(socket.AF_UNIX)
door.bind(path)
door.listen(64)
lanes, opened = [door, control], 0
control.sendall(frame(b"+"))
while True:
    for ready in select.select(lanes, [], [])[0]:
        if ready is door:
            lanes.append(door.accept()[0])
            opened += 1
            continue
        prefix = ready.recv(5, socket.MSG_WAITALL)
        if len(prefix) < 5:
            lanes.remove(ready)
            if ready is control:
                sys.exit()
            continue
        kind = prefix[:1]
        payload = ready.recv(int.from_bytes(prefix[1:], "big"), socket.MSG_WAITALL)
        if kind == b"Q" and name != "stays":
            sys.exit()
        elif kind == b"?" and name != "deaf":
            ready.sendall(frame(b"?"))
        elif kind == b"E":
            ready.sendall(frame(b"E", payload))
        elif kind == b"P":
            ready.sendall(frame(b"P", b"%d %d" % (os.getpid(), opened)))
        elif kind == b"S":
            time.sleep(float(payload))
            ready.sendall(frame(b"S"))
        elif kind == b"G":
            ready.sendall(frame(b"G", b"%d" % (os.getpgrp() - os.getpid())))
        elif kind == b"H":
            ready.sendall(frame(b"H", b"half of it")[:8])
            os.kill(os.getpid(), signal.SIGSTOP)
        elif kind == b"L":
            while True:
                pass
        elif kind == b"X":
            os._exit(1)
"#;

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn spec(name: &str) -> PythonSpec {
    PythonSpec { python: PathBuf::from("python3"), ..PythonSpec::new(name, SCRIPT) }
}

#[track_caller]
fn start(spec: PythonSpec) -> Pool {
    Pool::start(spec).unwrap_or_else(|error| panic!("{error}"))
}

fn ask(lane: &mut Lane, kind: u8, payload: &[u8]) -> Result<Vec<u8>, Fault> {
    lane.send(&[(kind, payload)])?;
    let mut answer = Vec::new();
    assert_eq!(lane.read(&mut answer)?, kind);
    Ok(answer)
}

/// A question on a lane of its own, which is given back.
fn ask_once(pool: &Pool, kind: u8, payload: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut lane = pool.lane()?;
    let answer = ask(&mut lane, kind, payload)?;
    lane.give_back();
    Ok(answer)
}

/// The process id of the worker that answers, and how many lanes have been opened to it.
fn who(pool: &Pool) -> (u32, u32) {
    let limit = Instant::now() + Duration::from_secs(10);
    let answer = loop {
        match ask_once(pool, b'P', b"") {
            Ok(answer) => break answer,
            // Python may take longer to start than the short timeouts of some tests.
            Err(fault) => assert!(Instant::now() < limit, "{fault}"),
        }
    };
    let text = String::from_utf8(answer).expect("digits");
    let (pid, opened) = text.split_once(' ').expect("two numbers");
    (pid.parse().expect("digits"), opened.parse().expect("digits"))
}

fn lives(pid: u32) -> bool {
    let sent = Command::new("sh").args(["-c", &format!("kill -0 {pid} 2>/dev/null")]).status();
    sent.is_ok_and(|status| status.success())
}

#[track_caller]
fn soon(what: &str, done: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < limit, "still not: {what}");
        thread::sleep(ms(5));
    }
}

// Lanes.

#[test]
fn a_lane_that_is_given_back_is_used_again_and_one_that_is_dropped_is_closed() {
    if !has_python() {
        return;
    }
    let pool = start(spec("any"));
    let (pid, opened) = who(&pool);
    assert_eq!(who(&pool), (pid, opened));
    drop(pool.lane());
    assert_eq!(who(&pool), (pid, opened + 1));
}

// The choice of a worker.

#[test]
fn the_worker_with_least_to_do_is_chosen() {
    if !has_python() {
        return;
    }
    let pool = start(PythonSpec { workers: 2, ..spec("any") });
    assert_eq!(pool.pids().into_iter().collect::<HashSet<u32>>().len(), 2);
    let mut slow = pool.lane().expect("a worker");
    let busy = String::from_utf8(ask(&mut slow, b'P', b"").expect("alive")).expect("digits");
    slow.send(&[(b'S', b"0.5")]).expect("a worker");
    for _ in 0..20 {
        assert!(!busy.starts_with(&who(&pool).0.to_string()));
    }
    assert_eq!(slow.read(&mut Vec::new()), Ok(b'S'));
}

#[test]
fn a_request_queues_up_behind_short_ones_and_not_behind_a_long_one() {
    if !has_python() {
        return;
    }
    let pool = start(spec("any"));
    let mut first = pool.lane().expect("a worker");
    // It was given something to do just now.
    let second = pool.lane().expect("a worker");
    drop(second);
    first.send(&[(b'S', b"0.4")]).expect("a worker");
    thread::sleep(ms(50));
    let began = Instant::now();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| pool.lane().map(|_| began.elapsed()));
        assert_eq!(first.read(&mut Vec::new()), Ok(b'S'));
        drop(first);
        let waited = waiting.join().expect("no panic").expect("a worker");
        assert!(waited >= ms(250), "it did not wait: {waited:?}");
    });
}

#[test]
fn who_waits_too_long_for_a_worker_is_told_that_all_are_busy() {
    if !has_python() {
        return;
    }
    let pool = start(PythonSpec { timeout: ms(300), ..spec("any") });
    let mut lane = pool.lane().expect("a worker");
    lane.send(&[(b'E', b"")]).expect("a worker");
    // The client of this one takes its time.
    lane.excuse(true);
    thread::sleep(ms(20));
    assert_eq!(pool.lane().map(drop), Err(Fault::Busy));
}

// Failures.

#[test]
fn a_worker_that_ends_is_replaced_and_its_lanes_fail() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(20, "a replacement");
    let pool = start(spec("any"));
    let before = who(&pool).0;
    let mut other = pool.lane().expect("a worker");
    assert_eq!(ask_once(&pool, b'X', b""), Err(Fault::Died));
    assert_eq!(ask(&mut other, b'E', b""), Err(Fault::Died));
    let after = who(&pool).0;
    assert_ne!(before, after);
}

#[test]
fn one_that_ends_young_again_and_again_is_started_less_and_less_often() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(30, "many replacements");
    let pool = start(spec("any"));
    let began = Instant::now();
    for _ in 0..4 {
        assert_eq!(ask_once(&pool, b'X', b""), Err(Fault::Died));
        who(&pool);
    }
    // 100, 200, 400 and 800 ms.
    assert!(began.elapsed() >= ms(1500), "{:?}", began.elapsed());
}

#[test]
fn a_worker_without_a_sign_of_life_is_killed_at_the_timeout_and_replaced() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(20, "an endless loop");
    let pool = start(PythonSpec { timeout: ms(500), ..spec("any") });
    let before = who(&pool).0;
    let began = Instant::now();
    assert_eq!(ask_once(&pool, b'L', b""), Err(Fault::Hung));
    assert!((ms(450)..ms(2000)).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_ne!(who(&pool).0, before);
    assert!(!lives(before));
}

#[test]
fn a_worker_that_stops_in_the_middle_of_a_frame_is_killed_too() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(20, "half a frame");
    for many_at_once in [false, true] {
        let pool = start(PythonSpec { timeout: ms(500), many_at_once, ..spec("any") });
        let before = who(&pool).0;
        assert_eq!(ask_once(&pool, b'H', b""), Err(Fault::Hung));
        assert_ne!(who(&pool).0, before);
    }
}

#[test]
fn a_worker_that_waits_for_a_client_is_not_killed() {
    if !has_python() {
        return;
    }
    let pool = start(PythonSpec { timeout: ms(300), ..spec("any") });
    let mut lane = pool.lane().expect("a worker");
    lane.excuse(true);
    assert_eq!(ask(&mut lane, b'S', b"0.8"), Ok(Vec::new()));
    lane.excuse(false);
    assert_eq!(ask(&mut lane, b'S', b"0.8"), Err(Fault::Hung));
}

#[test]
fn an_event_loop_that_answers_no_ping_is_killed_and_one_that_does_may_take_its_time() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(20, "pings");
    let many = PythonSpec { many_at_once: true, timeout: ms(1200), ..spec("any") };
    let pool = start(many.clone());
    let before = who(&pool).0;
    thread::sleep(ms(2500));
    assert_eq!(who(&pool).0, before);
    assert_eq!(ask_once(&pool, b'L', b""), Err(Fault::Hung));
    assert_ne!(who(&pool).0, before);
    let deaf = start(PythonSpec { application: "deaf".to_string(), ..many });
    let before = who(&deaf).0;
    soon("the deaf one is replaced", || who(&deaf).0 != before);
}

// The start.

#[test]
fn an_application_that_cannot_be_imported_is_reported_in_pythons_own_words() {
    if !has_python() {
        return;
    }
    let error = Pool::start(PythonSpec { workers: 2, ..spec("broken") }).map(drop);
    match error {
        Err(StartError::Application(text)) => {
            assert_eq!(text, "NameError: name 'aplication' is not defined\n");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_worker_that_ends_or_sleeps_instead_of_starting_is_an_error_and_not_tried_again() {
    if !has_python() {
        return;
    }
    let ended = Pool::start(spec("ends")).map(drop);
    assert!(matches!(ended, Err(StartError::Ended(status)) if status.code() == Some(3)));
    let slow = PythonSpec { start_timeout: ms(200), ..spec("sleeps") };
    assert!(matches!(Pool::start(slow).map(drop), Err(StartError::Slow(_))));
    let none = PythonSpec { python: PathBuf::from("/no/such/python3"), ..spec("any") };
    let error = Pool::start(none).map(drop).expect_err("no interpreter");
    assert!(error.to_string().starts_with("/no/such/python3 cannot be run"), "{error}");
}

#[test]
fn a_worker_is_not_in_the_group_that_a_terminal_interrupts() {
    if !has_python() {
        return;
    }
    // It leads a group of its own.
    assert_eq!(ask_once(&start(spec("any")), b'G', b""), Ok(b"0".to_vec()));
}

#[test]
#[ignore = "a part of another test"]
fn helper_names_its_interpreter() {
    let _ =
        writeln!(std::io::stdout(), "python {}", PythonSpec::new("any", SCRIPT).python.display());
}

#[test]
fn the_interpreter_is_that_of_the_virtual_environment_if_one_is_active() {
    let own = std::env::current_exe().expect("the path of this test program");
    for (active, expected) in
        [(Some("/no/venv"), "/no/venv/bin/python3"), (Some(""), "python3"), (None, "python3")]
    {
        let mut command = Command::new(&own);
        command.args(["--exact", "helper_names_its_interpreter", "--ignored", "--nocapture"]);
        match active {
            Some(folder) => command.env("VIRTUAL_ENV", folder),
            None => command.env_remove("VIRTUAL_ENV"),
        };
        let said = String::from_utf8(command.output().expect("it runs").stdout).expect("text");
        let line = format!("python {expected}");
        assert!(said.lines().any(|own| own == line), "{said}");
    }
}

// The end.

#[test]
fn a_stop_waits_for_requests_and_leaves_neither_a_process_nor_a_folder() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(20, "a stop");
    let pool = Arc::new(start(PythonSpec { workers: 2, ..spec("any") }));
    let mut lane = pool.lane().expect("a worker");
    lane.send(&[(b'S', b"0.3")]).expect("a worker");
    let pids = pool.pids();
    let folder = pool.folder().to_path_buf();
    let mode = fs::metadata(&folder).expect("the folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let stopper = Arc::clone(&pool);
    let stopped = thread::spawn(move || stopper.stop());
    assert_eq!(lane.read(&mut Vec::new()), Ok(b'S'));
    drop(lane);
    stopped.join().expect("no panic");
    assert!(pids.iter().all(|pid| !lives(*pid)));
    assert!(!folder.exists());
    assert_eq!(pool.lane().map(drop), Err(Fault::Busy));
}

#[test]
fn whoever_does_not_wait_for_the_end_of_a_worker_has_it_killed() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(20, "an impatient stop");
    let pool = start(spec("stays"));
    let (pids, began) = (pool.pids(), Instant::now());
    pool.stop_unless(|| began.elapsed() >= ms(300));
    assert!((ms(300)..ms(5000)).contains(&began.elapsed()), "after {:?}", began.elapsed());
    assert!(pids.iter().all(|pid| !lives(*pid)));
}

#[test]
fn all_workers_are_replaced_one_by_one_while_a_request_finishes_on_its_own() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(30, "a replacement of all");
    let pool = start(PythonSpec { workers: 2, ..spec("any") });
    let before: HashSet<u32> = pool.pids().into_iter().collect();
    let mut lane = pool.lane().expect("a worker");
    lane.send(&[(b'S', b"1")]).expect("a worker");
    pool.replace_all();
    let after: HashSet<u32> = pool.pids().into_iter().collect();
    assert!(before.is_disjoint(&after) && after.len() == 2, "{before:?} {after:?}");
    assert_eq!(lane.read(&mut Vec::new()), Ok(b'S'));
    drop(lane);
    soon("the old ones end", || before.iter().all(|pid| !lives(*pid)));
}

/// Two watches look after one number for a moment. Whatever the old one starts then, leaves.
#[test]
fn a_worker_that_dies_while_it_is_replaced_has_one_successor_and_not_two() {
    if !has_python() {
        return;
    }
    let _dog = watchdog(60, "replacements of the dying");
    let pool = start(PythonSpec { first_pause: ms(1), ..spec("any") });
    for delay in [0, 5, 10, 20, 40, 60] {
        let before = pool.pids();
        thread::scope(|scope| {
            scope.spawn(|| pool.replace_all());
            thread::sleep(ms(delay));
            let _ = ask_once(&pool, b'X', b"");
        });
        soon("the others have left", || {
            thread::sleep(ms(150));
            pool.pids().len() == 1 && before.iter().all(|pid| !lives(*pid))
        });
        thread::sleep(ms(200));
        assert_eq!(pool.pids().len(), 1, "after {delay} ms");
    }
}

#[test]
fn if_the_successor_does_not_start_those_who_serve_stay() {
    if !has_python() {
        return;
    }
    let file = std::env::temp_dir().join(format!("glasshouse-worker-{}", std::process::id()));
    fs::write(&file, "").expect("a temporary file");
    let pool = start(spec(file.to_str().expect("a path")));
    let before = pool.pids();
    fs::remove_file(&file).expect("it is there");
    pool.replace_all();
    assert_eq!(pool.pids(), before);
    assert_eq!(vec![who(&pool).0], before);
}

#[test]
fn the_folder_of_a_server_that_was_killed_is_removed_by_the_next_one() {
    if !has_python() {
        return;
    }
    let living = start(spec("any"));
    let folder = |name: &str| {
        let name = format!("glasshouse_python_{name}{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).expect("a folder");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("its owner");
        folder
    };
    let (dead, young) = (folder("dead"), folder("young"));
    drop(UnixDatagram::bind(dead.join("alive")).expect("a socket"));
    let _next = start(spec("any"));
    assert!(!dead.exists() && young.exists() && living.folder().exists());
    fs::remove_dir_all(young).expect("it is there");
}

/// After a rush there are as many lanes as there were requests at once.
#[test]
#[ignore = "exercise 42.3"]
fn exercise_42_3_at_most_sixteen_lanes_lie_idle() {
    if !has_python() {
        panic!("this exercise needs python3");
    }
    let _dog = watchdog(20, "lanes that lie idle");
    let pool = start(PythonSpec { many_at_once: true, ..spec("any") });
    // Ours, and the one for pings, which the pool opens when it first looks.
    while who(&pool).1 < 2 {
        thread::sleep(ms(5));
    }
    let rush = || {
        let mut lanes: Vec<Lane> = (0..20).map(|_| pool.lane().expect("a worker")).collect();
        for lane in &mut lanes {
            assert_eq!(ask(lane, b'E', b""), Ok(Vec::new()));
        }
        lanes.into_iter().for_each(Lane::give_back);
    };
    rush();
    let before = who(&pool).1;
    rush();
    assert_eq!(who(&pool).1, before + 4);
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
