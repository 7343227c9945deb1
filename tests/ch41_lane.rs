//! Chapter 41: lanes. The worker at the other end is a few lines of this file: it says what a test
//! wants to be heard. No Python is needed.
#![cfg(unix)]

mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use glasshouse::python::lane::{Fault, Health, Keeper, Lane, Line, PREFIX, TICK, push_frame};
use support::watchdog::watchdog;

/// Keeps the worker's end of a lane, and counts.
#[derive(Default)]
struct Desk {
    health: Health,
    put_away: Mutex<Vec<Line>>,
    released: AtomicUsize,
}

impl Keeper for Desk {
    fn health(&self) -> &Health {
        &self.health
    }

    fn put_away(&self, line: Line) {
        self.put_away.lock().expect("no panic").push(line);
    }

    fn release(&self) {
        self.released.fetch_add(1, Ordering::SeqCst);
    }
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A lane, and the worker's end of it.
fn lane(largest: usize) -> (Lane, Arc<Desk>, UnixStream) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::SeqCst);
    let name = format!("glasshouse-lane-{}-{number}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let door = UnixListener::bind(&path).expect("a door");
    let line = Line::open(&path, largest).expect("a line");
    let (theirs, _) = door.accept().expect("it has connected");
    fs::remove_file(path).expect("it is there");
    let desk = Arc::new(Desk::default());
    (Lane::new(line, Arc::clone(&desk) as Arc<dyn Keeper>), desk, theirs)
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_frame(&mut bytes, kind, payload).expect("short enough");
    bytes
}

/// Reads a frame at the worker's end.
fn hear(theirs: &mut UnixStream) -> Option<(u8, Vec<u8>)> {
    let mut prefix = [0; PREFIX];
    theirs.read_exact(&mut prefix).ok()?;
    let [kind, length @ ..] = prefix;
    let mut payload = vec![0; u32::from_be_bytes(length) as usize];
    theirs.read_exact(&mut payload).ok()?;
    Some((kind, payload))
}

/// Sends each frame back, until the lane ends.
fn echo(mut theirs: UnixStream) {
    while let Some((kind, payload)) = hear(&mut theirs) {
        if theirs.write_all(&frame(kind, &payload)).is_err() {
            return;
        }
    }
}

// Frames.

#[test]
fn a_frame_is_its_kind_its_length_and_its_payload() {
    let mut bytes = frame(b'R', b"abc");
    push_frame(&mut bytes, b'E', b"").expect("short enough");
    assert_eq!(bytes, b"R\0\0\0\x03abcE\0\0\0\0");
}

#[test]
fn what_goes_out_comes_back_whatever_its_size() {
    let _dog = watchdog(30, "echo");
    let (mut lane, _desk, theirs) = lane(usize::MAX);
    thread::spawn(move || echo(theirs));
    let mut answer = Vec::new();
    for size in [0, 1, 5, 16_379, 16_380, 16_384, 100_000, 3_000_000] {
        let payload = vec![b'x'; size];
        let frames: [(u8, &[u8]); 2] = [(b'D', b"in front"), (b'E', &payload)];
        lane.send(&frames).expect("alive");
        for (kind, payload) in frames {
            assert_eq!(lane.read(&mut answer), Ok(kind), "{size} bytes");
            assert!(answer == payload, "{size} bytes");
        }
    }
}

#[test]
fn a_frame_may_come_byte_by_byte_or_together_with_others() {
    let (mut lane, _desk, mut theirs) = lane(40_000);
    let frames: [(u8, &[u8]); 4] =
        [(b'D', b"one"), (b'D', b"two"), (b'D', &[b'3'; 40_000]), (b'E', b"four")];
    let bytes: Vec<u8> = frames.iter().flat_map(|(kind, text)| frame(*kind, text)).collect();
    let worker = thread::spawn(move || {
        for byte in frame(b'D', b"drop by drop") {
            theirs.write_all(&[byte]).expect("it reads");
            thread::sleep(ms(1));
        }
        // Two frames, and a part of the prefix of a third.
        let (some, rest) = bytes.split_at(2 * (PREFIX + 3) + 4);
        let (more, rest) = rest.split_at(20_000);
        for part in [some, more, rest] {
            theirs.write_all(part).expect("it reads");
            thread::sleep(TICK * 2);
        }
    });
    let mut payload = Vec::new();
    assert_eq!(lane.read(&mut payload), Ok(b'D'));
    assert_eq!(payload, b"drop by drop");
    for (kind, text) in frames {
        assert_eq!(lane.read(&mut payload), Ok(kind));
        assert!(payload == text, "{kind}");
    }
    worker.join().expect("no panic");
}

#[test]
fn a_frame_longer_than_allowed_ends_the_lane() {
    let (mut lane, _desk, mut theirs) = lane(10);
    let both = [frame(b'E', b"0123456789"), frame(b'E', b"0123456789a")].concat();
    theirs.write_all(&both).expect("it reads");
    assert_eq!(lane.read(&mut Vec::new()), Ok(b'E'));
    assert_eq!(lane.read(&mut Vec::new()), Err(Fault::Died));
}

// Waiting.

#[test]
fn a_read_within_a_time_loses_nothing_when_the_time_is_over() {
    let (mut lane, _desk, mut theirs) = lane(100);
    let mut payload = Vec::new();
    assert_eq!(lane.read_within(ms(20), &mut payload), Ok(None));
    let bytes = frame(b'E', b"after it");
    let (some, rest) = bytes.split_at(3);
    theirs.write_all(some).expect("it reads");
    let rest = rest.to_vec();
    let worker = thread::spawn(move || {
        thread::sleep(ms(200));
        theirs.write_all(&rest).expect("it reads");
    });
    // A frame that has begun is waited for.
    assert_eq!(lane.read_within(ms(20), &mut payload), Ok(Some(b'E')));
    assert_eq!(payload, b"after it");
    worker.join().expect("no panic");
}

#[test]
fn each_frame_is_a_sign_of_life_and_who_waits_for_a_client_owes_none() {
    let (mut lane, desk, mut theirs) = lane(100);
    thread::sleep(ms(50));
    assert!(desk.health.silence().is_some_and(|silence| silence >= ms(50)));
    theirs.write_all(&frame(b'H', b"")).expect("it reads");
    assert_eq!(lane.read(&mut Vec::new()), Ok(b'H'));
    assert!(desk.health.silence().is_some_and(|silence| silence < ms(50)));
    lane.excuse(true);
    thread::sleep(ms(50));
    assert_eq!(desk.health.silence(), None);
    drop(lane);
    assert!(desk.health.silence().is_some_and(|silence| silence < ms(50)));
}

#[test]
fn who_waits_for_a_worker_that_was_killed_is_told_so_though_another_process_holds_the_lane() {
    let _dog = watchdog(10, "a worker without an end");
    let (mut waiting, desk, theirs) = lane(100);
    let (mut writing, other, _theirs) = lane(100);
    let killer = thread::spawn(move || {
        thread::sleep(ms(50));
        assert!(desk.health.end(Fault::Hung) && other.health.end(Fault::Hung));
        // The first reason counts.
        assert!(!desk.health.end(Fault::Died));
    });
    assert_eq!(waiting.read(&mut Vec::new()), Err(Fault::Hung));
    assert_eq!(waiting.read_within(ms(10), &mut Vec::new()), Err(Fault::Hung));
    // More than the kernel takes, of somebody who reads nothing.
    assert_eq!(writing.send(&[(b'B', &vec![0; 4 << 20])]), Err(Fault::Hung));
    killer.join().expect("no panic");
    drop(theirs);
}

#[test]
fn what_a_worker_said_before_its_end_is_heard() {
    let (mut lane, desk, mut theirs) = lane(100);
    theirs.write_all(&frame(b'E', b"last words")).expect("it reads");
    desk.health.end(Fault::Died);
    assert_eq!(lane.read(&mut Vec::new()), Ok(b'E'));
    assert_eq!(lane.read(&mut Vec::new()), Err(Fault::Died));
}

#[test]
fn a_worker_that_ends_in_the_middle_of_a_frame_has_died() {
    let _dog = watchdog(10, "a part of a frame");
    let whole = frame(b'E', b"last words");
    for cut in [1, PREFIX, whole.len() - 1] {
        let (mut lane, _desk, mut theirs) = lane(100);
        theirs.write_all(&whole[..cut]).expect("it reads");
        drop(theirs);
        assert_eq!(lane.read(&mut Vec::new()), Err(Fault::Died), "{cut} bytes");
        assert_eq!(lane.send(&[(b'B', b"more")]), Err(Fault::Died), "{cut} bytes");
    }
}

// The end of a lane.

#[test]
fn a_lane_is_put_away_only_if_it_is_given_back_with_nothing_left_in_it() {
    let (mut used, desk, mut theirs) = lane(100);
    theirs.write_all(&frame(b'E', b"")).expect("it reads");
    assert_eq!(used.read(&mut Vec::new()), Ok(b'E'));
    used.give_back();
    assert_eq!(desk.put_away.lock().expect("no panic").len(), 1);
    assert_eq!(desk.released.load(Ordering::SeqCst), 1);

    let (mut dropped, desk, mut theirs) = lane(100);
    let _writer = dropped.writer().expect("a descriptor");
    drop(dropped);
    assert_eq!(theirs.read(&mut [0]).expect("its end"), 0);
    assert_eq!(desk.released.load(Ordering::SeqCst), 1);

    // An answer of a worker that has said too much would be taken for that of the next request.
    let (mut late, desk, mut theirs) = lane(100);
    theirs.write_all(&[frame(b'E', b""), frame(b'E', b"")].concat()).expect("it reads");
    assert_eq!(late.read(&mut Vec::new()), Ok(b'E'));
    late.give_back();
    assert!(desk.put_away.lock().expect("no panic").is_empty());
    assert_eq!(theirs.read(&mut [0]).expect("its end"), 0);
}

#[test]
fn a_worker_whose_lane_has_ended_is_not_trusted_for_a_while() {
    let (mut lane, desk, theirs) = lane(100);
    assert!(desk.health.is_trusted());
    drop(theirs);
    assert_eq!(lane.read(&mut Vec::new()), Err(Fault::Died));
    assert!(!desk.health.is_trusted());
    let began = Instant::now();
    while !desk.health.is_trusted() {
        assert!(began.elapsed() < TICK * 10, "it never is");
        thread::sleep(ms(5));
    }
    desk.health.end(Fault::Died);
    assert!(!desk.health.is_trusted());
}

#[test]
fn one_thread_reads_a_lane_while_another_writes_and_either_can_end_it() {
    let _dog = watchdog(20, "two threads");
    let (mut lane, desk, theirs) = lane(100);
    thread::spawn(move || echo(theirs));
    let mut writer = lane.writer().expect("a descriptor");
    writer.excuse(true);
    assert_eq!(desk.health.silence(), None);
    let reader = thread::spawn(move || {
        let (mut payload, mut count) = (Vec::new(), 0);
        while lane.read(&mut payload).is_ok() {
            count += 1;
        }
        // It would be in use at both ends.
        lane.give_back();
        count
    });
    for _ in 0..100 {
        writer.send(&[(b'E', b"there")]).expect("a worker");
    }
    thread::sleep(ms(100));
    writer.cut();
    assert_eq!(reader.join().expect("it ends"), 100);
    // A client that has gone says nothing about the worker.
    assert!(desk.health.is_trusted());
    assert!(desk.put_away.lock().expect("no panic").is_empty());
}

#[test]
fn a_writer_asks_who_wants_what_is_not_taken_and_cuts_the_lane_if_nobody_does() {
    let (mut lane, _desk, mut theirs) = lane(100);
    let mut writer = lane.writer().expect("a descriptor");
    // More than the kernel takes.
    let long = vec![b'x'; 4 << 20];
    let worker = thread::spawn(move || {
        thread::sleep(ms(300));
        (hear(&mut theirs), theirs)
    });
    let mut asked = 0;
    let is_wanted = || {
        asked += 1;
        true
    };
    writer.send_while(&[(b'B', &long)], is_wanted).expect("somebody wants it");
    let (heard, _theirs) = worker.join().expect("no panic");
    assert!(asked > 0 && heard.is_some_and(|heard| heard == (b'B', long.clone())));
    let error = writer.send_while(&[(b'B', &long)], || false).expect_err("nobody does");
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    assert_eq!(lane.read_within(ms(10), &mut Vec::new()), Err(Fault::Died));
}

/// A worker is out of step if an application has written to the lane itself.
#[test]
#[ignore = "exercise 41.3"]
fn exercise_41_3_a_kind_that_is_no_visible_letter_ends_the_lane() {
    for kind in [0, b'\n', b' ', 0x80] {
        let (mut lane, _desk, mut theirs) = lane(100);
        theirs.write_all(&frame(kind, b"")).expect("it reads");
        assert_eq!(lane.read(&mut Vec::new()), Err(Fault::Died), "{kind}");
    }
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
