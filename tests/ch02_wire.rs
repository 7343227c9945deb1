//! Chapter 2: the wire. One end of a real connection is a `Wire`, the other a plain socket.

mod support;

use glasshouse::socket::wire::{Direction, Tap, Wire, chapter_of};
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use support::process::Process;
use support::watchdog::watchdog;

const MB: usize = 1 << 20;

/// Two connected sockets.
fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let far = TcpStream::connect(address).expect("it listens");
    far.set_nodelay(true).expect("a connected socket");
    (listener.accept().expect("somebody has connected").0, far)
}

/// A wire, and the peer at its far end.
fn wire_with_patience(milliseconds: u64) -> (Wire, TcpStream) {
    let (near, far) = sockets();
    let wire = Wire::new(Arc::new(near), Duration::from_millis(milliseconds));
    (wire.expect("a connected socket"), far)
}

fn wire() -> (Wire, TcpStream) {
    wire_with_patience(2000)
}

/// Bytes in which a lost, doubled or moved piece shows.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

fn send(peer: &mut TcpStream, bytes: &[u8]) {
    peer.write_all(bytes).expect("the wire is open");
}

/// Waits until the kernel holds at least so many bytes for the wire, and takes none.
fn arrived(wire: &Wire, count: usize) {
    let mut look = vec![0; count];
    loop {
        match wire.stream().peek(&mut look) {
            Ok(here) if here == count => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn fill_up_to(wire: &mut Wire, count: usize) {
    while wire.buffered().len() < count {
        assert_ne!(wire.fill().expect("the peer has sent it"), 0);
    }
}

// Input.

#[test]
fn any_split_of_the_bytes_reads_alike() {
    let dog = watchdog(10, "splits");
    let message = bytes(3000);
    for size in [1, 2, 3, 7, 100, 2047, 2048, 2049, 3000] {
        dog.state("pieces", &format!("of {size} bytes"));
        let (mut wire, mut peer) = wire();
        let pieces = message.clone();
        let sender = thread::spawn(move || {
            for piece in pieces.chunks(size) {
                send(&mut peer, piece);
            }
        });
        while wire.fill().expect("no error on the way") > 0 {}
        assert_eq!(wire.buffered(), message);
        sender.join().expect("the sender does not panic");
    }
}

#[test]
fn two_halves_of_a_line_make_the_line_wherever_it_is_cut() {
    let _dog = watchdog(5, "halves");
    let line = b"GET / HTTP/1.1\r\n";
    for cut in 0..=line.len() {
        let (mut wire, mut peer) = wire();
        send(&mut peer, &line[..cut]);
        fill_up_to(&mut wire, cut);
        send(&mut peer, &line[cut..]);
        fill_up_to(&mut wire, line.len());
        assert_eq!(wire.buffered(), line);
    }
}

#[test]
fn what_is_consumed_is_gone_and_the_rest_stays() {
    let _dog = watchdog(5, "consume");
    let (mut wire, mut peer) = wire();
    assert_eq!(wire.buffered(), b"");
    send(&mut peer, b"first second third");
    fill_up_to(&mut wire, 18);
    wire.consume(6);
    assert_eq!(wire.buffered(), b"second third");
    wire.consume(7);
    assert_eq!(wire.buffered(), b"third");
    wire.consume(1000); // more than there is
    assert_eq!(wire.buffered(), b"");
    send(&mut peer, b"rubbish");
    fill_up_to(&mut wire, 7);
    wire.discard();
    assert_eq!(wire.buffered(), b"");
    send(&mut peer, b"again");
    fill_up_to(&mut wire, 5);
    assert_eq!(wire.buffered(), b"again");
}

#[test]
fn what_is_left_over_survives_the_next_fill() {
    let _dog = watchdog(5, "left over bytes");
    let (mut wire, mut peer) = wire();
    let message = bytes(4000);
    send(&mut peer, &message[..2048]);
    fill_up_to(&mut wire, 2048); // the buffer is full to its last byte
    wire.consume(2000);
    send(&mut peer, &message[2048..]);
    fill_up_to(&mut wire, 2000); // 48 old bytes and the new ones
    assert_eq!(wire.buffered(), &message[2000..]);
}

#[test]
fn the_buffer_grows_with_what_has_arrived() {
    let _dog = watchdog(5, "growth");
    let (mut wire, mut peer) = wire();
    let message = bytes(10_000);
    send(&mut peer, &message);
    arrived(&wire, 10_000);
    // All of it is there, and still each step takes no more than the buffer held before.
    let counts: Vec<usize> = (0..4).map(|_| wire.fill().expect("it is there")).collect();
    assert_eq!(counts, [2048, 2048, 4096, 1808]);
    assert_eq!(wire.buffered(), message);
}

#[test]
fn a_wire_that_shrinks_starts_small_again() {
    let _dog = watchdog(5, "shrink");
    let (mut wire, mut peer) = wire();
    send(&mut peer, &bytes(10_000));
    fill_up_to(&mut wire, 10_000);
    wire.shrink(); // not now: somebody still wants these
    assert_eq!(wire.buffered(), bytes(10_000));
    wire.discard();
    wire.shrink();
    send(&mut peer, &bytes(10_000));
    arrived(&wire, 10_000);
    assert_eq!(wire.fill().expect("it is there"), 2048);
}

#[test]
fn a_large_buffer_is_filled_from_the_socket_and_a_small_one_from_the_wire() {
    let _dog = watchdog(5, "two kinds of readers");
    let (mut wire, mut peer) = wire();
    let message = bytes(50_000);
    send(&mut peer, &message);
    arrived(&wire, 50_000);
    let mut small = [0; 100];
    assert_eq!(wire.read(&mut small).expect("it is there"), 100);
    assert_eq!(small, message[..100]);
    // The wire has read on, so that the next small read costs no system call.
    assert_eq!(wire.buffered(), &message[100..2048]);
    let mut large = vec![0; 60_000];
    assert_eq!(wire.read(&mut large).expect("the wire's own first"), 1948);
    assert_eq!(large[..1948], message[100..2048]);
    assert_eq!(wire.read(&mut large).expect("the rest at once"), 47_952);
    assert_eq!(large[..47_952], message[2048..]);
}

#[test]
fn a_wire_can_be_read_line_by_line() {
    let _dog = watchdog(5, "lines");
    let (wire, mut peer) = wire();
    thread::spawn(move || {
        for byte in b"one\r\ntwo\r\nthree" {
            send(&mut peer, &[*byte]);
        }
    });
    let lines: Vec<String> = wire.lines().map_while(Result::ok).collect();
    assert_eq!(lines, ["one", "two", "three"]);
}

#[test]
fn the_end_of_the_stream_is_0_however_one_asks() {
    let _dog = watchdog(5, "end of file");
    let (mut wire, mut peer) = wire();
    send(&mut peer, b"bye");
    drop(peer);
    fill_up_to(&mut wire, 3);
    wire.discard();
    assert_eq!(wire.fill().expect("an end is no error"), 0);
    assert_eq!(wire.fill_without_sleep().expect("no error"), Some(0));
    assert_eq!(wire.read(&mut [0; 10]).expect("no error"), 0);
    assert_eq!(wire.read(&mut [0; 5000]).expect("no error"), 0);
    assert_eq!(wire.fill_buf().expect("no error"), b"");
}

#[test]
fn a_reset_is_an_error_and_no_end() {
    let _dog = watchdog(5, "reset");
    let (mut wire, peer) = wire();
    wire.write_all(b"never read").expect("gathered");
    wire.flush().expect("the peer is there");
    let _ = peer.peek(&mut [0]); // it has arrived
    drop(peer); // to close with bytes unread is to say: I have lost them
    let error = wire.fill().expect_err("the connection is broken");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    wire.write_all(b"anybody?").expect("gathered");
    let error = wire.flush().expect_err("nobody is there");
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

// Yield before you sleep.

#[test]
fn a_fill_without_sleep_gives_what_is_there_or_none() {
    let _dog = watchdog(5, "without sleep");
    let (mut wire, mut peer) = wire();
    assert_eq!(wire.fill_without_sleep().expect("no error"), None);
    send(&mut peer, b"here");
    arrived(&wire, 4);
    assert_eq!(wire.fill_without_sleep().expect("no error"), Some(4));
    assert_eq!(wire.buffered(), b"here");
}

#[test]
fn a_glance_sees_what_has_come_and_takes_nothing() {
    let _dog = watchdog(5, "a glance");
    let (mut wire, mut peer) = wire();
    assert_eq!(wire.glance(Duration::ZERO).expect("no error"), None);
    let began = Instant::now();
    assert_eq!(wire.glance(Duration::from_millis(30)).expect("no error"), None);
    assert!(began.elapsed() >= Duration::from_millis(25), "after {:?}", began.elapsed());
    send(&mut peer, b"here");
    arrived(&wire, 4);
    assert_eq!(wire.glance(Duration::ZERO).expect("no error"), Some(1));
    assert_eq!(wire.fill().expect("no error"), 4);
    assert_eq!(wire.glance(Duration::ZERO).expect("no error"), None);
    drop(peer);
    // This waits for the end, though the glance before it did not.
    assert_eq!(wire.fill().expect("no error"), 0);
    assert_eq!(wire.glance(Duration::ZERO).expect("no error"), Some(0));
    assert_eq!(wire.glance(Duration::from_secs(60)).expect("no error"), Some(0));
}

#[test]
fn a_fill_without_sleep_tries_for_as_long_as_a_nap_costs() {
    let _dog = watchdog(5, "as long as a nap");
    let (mut wire, _peer) = wire();
    let begin = Instant::now();
    assert_eq!(wire.fill_without_sleep().expect("no error"), None);
    assert!(begin.elapsed() >= Duration::from_micros(40));
}

/// True if a read of this socket waits for bytes: here, until a time limit ends it.
fn sleeps_in_reads(wire: &Wire) -> bool {
    let limit = Duration::from_millis(20);
    let set = |limit| wire.stream().set_read_timeout(limit);
    set(Some(limit)).expect("a connected socket");
    let begin = Instant::now();
    let error = wire.stream().peek(&mut [0]).expect_err("nothing was sent");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    set(None).expect("a connected socket");
    begin.elapsed() > limit / 2
}

#[test]
fn after_a_fill_without_sleep_a_fill_sleeps_again() {
    let _dog = watchdog(5, "asleep again");
    let (mut wire, mut peer) = wire();
    assert_eq!(wire.fill_without_sleep().expect("no error"), None);
    assert!(!sleeps_in_reads(&wire));
    let sender = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        send(&mut peer, b"late");
        peer
    });
    assert_eq!(wire.fill().expect("no error"), 4);
    assert!(sleeps_in_reads(&wire));
    // The same for a reader that goes past the buffer.
    wire.discard();
    let mut peer = sender.join().expect("no panic");
    assert_eq!(wire.fill_without_sleep().expect("no error"), None);
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        send(&mut peer, b"later");
    });
    assert_eq!(wire.read(&mut [0; 5000]).expect("no error"), 5);
}

#[test]
fn after_four_misses_a_wire_tries_only_seldom() {
    let _dog = watchdog(5, "misses");
    let (mut wire, mut peer) = wire();
    for _ in 0..4 {
        assert_eq!(wire.fill_without_sleep().expect("no error"), None);
    }
    send(&mut peer, b"a");
    arrived(&wire, 1);
    // The byte is there. These calls do not look.
    let mut skipped = 0;
    while wire.fill_without_sleep().expect("no error").is_none() {
        skipped += 1;
    }
    assert_eq!(skipped, 27);
    // The 28th looked, found it, and hope is back.
    for _ in 0..4 {
        send(&mut peer, b"b");
        arrived(&wire, 1);
        assert_eq!(wire.fill_without_sleep().expect("no error"), Some(1));
    }
}

// Output.

#[test]
fn gathered_writes_leave_in_one_piece() {
    let _dog = watchdog(5, "one piece");
    let (mut wire, mut peer) = wire();
    for piece in ["HTTP/1.1 200 OK\r\n", "Content-Length: 2\r\n", "\r\n", "ok"] {
        wire.write_all(piece.as_bytes()).expect("gathered");
    }
    peer.set_nonblocking(true).expect("a connected socket");
    let early = peer.read(&mut [0; 10]).expect_err("nothing has left yet");
    assert_eq!(early.kind(), ErrorKind::WouldBlock);
    peer.set_nonblocking(false).expect("a connected socket");
    wire.flush().expect("the peer is there");
    let mut heard = [0; 1000];
    let count = peer.read(&mut heard).expect("one read");
    assert_eq!(heard[..count], *b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
}

#[test]
fn a_wire_does_not_wait_for_more_to_send() {
    let (wire, _peer) = wire();
    assert!(wire.stream().nodelay().expect("a connected socket"));
}

#[test]
fn much_output_leaves_without_a_flush_and_in_order() {
    let _dog = watchdog(5, "64 KiB");
    let (mut wire, mut peer) = wire();
    let message = bytes(100_000);
    for piece in message.chunks(30_000) {
        wire.write_all(piece).expect("the peer is there");
    }
    // 30,000 and 30,000 were gathered; 30,000 more would not fit, and took them along.
    let mut heard = vec![0; 90_000];
    peer.read_exact(&mut heard).expect("sent without a flush");
    assert_eq!(heard, message[..90_000]);
    wire.flush().expect("the peer is there");
    peer.read_exact(&mut heard[..10_000]).expect("the rest");
    assert_eq!(heard[..10_000], message[90_000..]);
}

#[test]
fn output_goes_first_before_a_wait() {
    let _dog = watchdog(5, "who waits for whom");
    let (mut wire, mut peer) = wire();
    thread::spawn(move || {
        let mut question = [0; 5];
        for answer in [b"one", b"two"] {
            peer.read_exact(&mut question).expect("a question");
            send(&mut peer, answer);
        }
    });
    wire.write_all(b"next?").expect("gathered, and not flushed");
    fill_up_to(&mut wire, 3);
    wire.discard();
    wire.write_all(b"next?").expect("gathered, and not flushed");
    let mut answer = [0; 5000];
    assert_eq!(wire.read(&mut answer).expect("an answer"), 3);
}

#[test]
fn after_finish_sending_the_peer_reads_the_rest_and_then_0() {
    let _dog = watchdog(5, "half closed");
    let (mut wire, mut peer) = wire();
    wire.write_all(b"the last words").expect("gathered");
    wire.finish_sending().expect("the peer is there");
    let mut heard = String::new();
    peer.read_to_string(&mut heard).expect("an end");
    assert_eq!(heard, "the last words");
    // Only one direction is closed.
    send(&mut peer, b"and mine");
    fill_up_to(&mut wire, 8);
}

// Slow peers.

/// Sends 32 MB to a reader that rests before each of its first 4 MB pieces.
fn to_a_slow_reader(mut wire: Wire, mut peer: TcpStream, rests: &'static [u64]) {
    let message = bytes(32 * MB);
    let expected = message.clone();
    let reader = thread::spawn(move || {
        let mut heard = vec![0; expected.len()];
        let mut rests = rests.iter();
        for part in heard.chunks_mut(4 * MB) {
            let rest = rests.next().copied().unwrap_or_default();
            thread::sleep(Duration::from_millis(rest));
            peer.read_exact(part).expect("the writer goes on");
        }
        assert!(heard == expected, "what arrived is not what was sent");
    });
    let (gathered, large) = message.split_at(1000);
    wire.write_all(gathered).expect("gathered");
    wire.write_all(large).expect("a slow peer is not a dead one");
    wire.flush().expect("a slow peer is not a dead one");
    reader.join().expect("all of it has arrived");
}

#[test]
fn a_large_write_reaches_a_slow_reader_whole() {
    let _dog = watchdog(10, "slow reader");
    let (wire, peer) = wire_with_patience(400);
    // Each rest is within our patience; all together are not.
    to_a_slow_reader(wire, peer, &[320; 6]);
}

#[test]
fn a_large_write_after_a_fill_without_sleep_arrives_whole_too() {
    let _dog = watchdog(10, "slow reader, socket non-blocking");
    let (mut wire, peer) = wire_with_patience(400);
    assert_eq!(wire.fill_without_sleep().expect("no error"), None);
    to_a_slow_reader(wire, peer, &[100, 100]);
}

fn to_a_peer_that_never_reads(mut wire: Wire, _peer: TcpStream) {
    let message = bytes(32 * MB);
    let begin = Instant::now();
    let error = wire.write_all(&message).expect_err("nobody takes 32 MB");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let waited = begin.elapsed();
    assert!(waited >= Duration::from_millis(200), "{waited:?}");
    assert!(waited < Duration::from_millis(1500), "{waited:?}");
}

#[test]
fn a_peer_that_never_reads_exhausts_our_patience() {
    let _dog = watchdog(5, "nobody reads");
    let (wire, peer) = wire_with_patience(200);
    to_a_peer_that_never_reads(wire, peer);
}

#[test]
fn our_patience_is_the_same_after_a_fill_without_sleep() {
    let _dog = watchdog(5, "nobody reads, socket non-blocking");
    let (mut wire, peer) = wire_with_patience(200);
    assert_eq!(wire.fill_without_sleep().expect("no error"), None);
    // Fill the kernel's buffers first, so that our very first write moves nothing.
    let mut quiet = 0;
    while quiet < 10 {
        match wire.stream().as_ref().write(&[0; 10_000]) {
            Ok(_) => quiet = 0,
            Err(_) => quiet += 1,
        }
        thread::sleep(Duration::from_millis(u64::from(quiet > 0)));
    }
    to_a_peer_that_never_reads(wire, peer);
}

/// Ctrl-Z and `fg`: on Linux a `send` that waits then ends with EINTR.
#[test]
fn an_interrupted_write_goes_on() {
    let own = std::env::current_exe().expect("the path of this test program");
    let mut command = Command::new(own);
    command
        .args(["--exact", "helper_interrupted", "--ignored", "--nocapture"])
        .env("INTERRUPTED", "1");
    let mut process = Process::spawn(command.stdout(Stdio::null()));
    let writes = |lines: &[String]| lines.iter().any(|line| line == "writing");
    assert!(process.until(Duration::from_secs(5), writes));
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(50));
        process.signal("STOP");
        process.signal("CONT");
    }
    let ended = process.finish(Duration::from_secs(10));
    let said = process.lines();
    assert_eq!(ended, Some(Some(0)), "{}", said.join("\n"));
    assert!(said.iter().any(|line| line == "written"));
}

#[test]
#[ignore = "run by an_interrupted_write_goes_on"]
fn helper_interrupted() {
    if std::env::var_os("INTERRUPTED").is_none() {
        return;
    }
    let (mut wire, mut peer) = wire();
    let message = bytes(32 * MB);
    let reader = thread::spawn(move || {
        thread::sleep(Duration::from_millis(400));
        io::copy(&mut peer, &mut io::sink()).expect("an end")
    });
    eprintln!("writing");
    wire.write_all(&message).expect("it goes on");
    wire.finish_sending().expect("the peer is there");
    assert_eq!(reader.join().expect("no panic"), 32 * MB as u64);
    eprintln!("written");
}

// The wire view.

/// What a tap has printed; each element is one write.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<String>>>);

impl Paper {
    fn tap(&self) -> Arc<Tap> {
        Arc::new(Tap::new(Box::new(self.clone())))
    }

    fn text(&self) -> String {
        self.0.lock().expect("no writer panics").concat()
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8(bytes.to_vec()).expect("the tap prints text");
        self.0.lock().expect("no writer panics").push(text);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The number that the table of contents gives to a module.
fn number_of(module: &str) -> &'static str {
    let contents = include_str!("../src/lib.rs");
    let (_, rest) = contents
        .split_once(&format!("pub mod {module}; // chapter "))
        .expect("it is in the table of contents");
    rest.lines().next().expect("a number")
}

#[test]
fn the_view_shows_each_line_escaped_and_with_its_chapter() {
    let _dog = watchdog(5, "the view");
    let (paper, (mut wire, mut peer)) = (Paper::default(), wire());
    assert!(wire.tap().is_none());
    wire.attach(paper.tap(), 7);
    assert!(wire.tap().is_some());
    send(&mut peer, b"caf\xc3\xa9\t\\\r\nend\x00");
    fill_up_to(&mut wire, 13);
    wire.discard();
    wire.explain("listener");
    wire.write_all(b"yes\n").expect("gathered");
    wire.flush().expect("the peer is there");
    let (wire_, listener) = (number_of("wire"), number_of("listener"));
    let expected = [
        format!("#7 <- ch {wire_} wire        caf\\xc3\\xa9\\t\\\\\\r\\n\n"),
        format!("#7 <- ch {wire_} wire        end\\x00\n"),
        format!("#7 -> ch {listener} listener    yes\\n\n"),
    ];
    assert_eq!(paper.text(), expected.concat());
}

#[test]
fn a_module_without_a_chapter_is_shown_by_its_name() {
    assert_eq!(chapter_of("wire"), format!("ch {} wire", number_of("wire")));
    assert_eq!(chapter_of("figures"), "figures");
    assert_eq!(chapter_of("nobody"), "nobody");
}

#[test]
fn pieces_of_one_line_are_shown_as_one_line() {
    let _dog = watchdog(5, "pieces");
    let (paper, (mut wire, mut peer)) = (Paper::default(), wire());
    wire.attach(paper.tap(), 1);
    for piece in ["HTTP/1.1", " ", "200", " ", "OK"] {
        wire.write_all(piece.as_bytes()).expect("gathered");
    }
    assert_eq!(paper.text(), "");
    send(&mut peer, b"hello");
    fill_up_to(&mut wire, 5); // flushes
    for _ in 0..5 {
        wire.consume(1);
    }
    wire.write_all(b"x").expect("gathered"); // the direction changes
    let tag = format!("ch {} wire       ", number_of("wire"));
    let expected = format!("#1 -> {tag} HTTP/1.1 200 OK\n#1 <- {tag} hello\n");
    assert_eq!(paper.text(), expected);
    drop(wire);
    assert_eq!(paper.text(), format!("{expected}#1 -> {tag} x\n"));
}

#[test]
fn bytes_that_go_past_the_buffer_are_shown_too() {
    let _dog = watchdog(5, "past the buffer");
    let (paper, (mut wire, mut peer)) = (Paper::default(), wire());
    wire.attach(paper.tap(), 1);
    send(&mut peer, b"one\ntwo\n");
    arrived(&wire, 8);
    assert_eq!(wire.read(&mut [0; 5000]).expect("it is there"), 8);
    drop(wire);
    let lines: Vec<String> = paper.text().lines().map(str::to_string).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].ends_with(" one\\n") && lines[1].ends_with(" two\\n"));
}

#[test]
fn long_lines_and_long_pieces_are_cut_and_say_so() {
    let paper = Paper::default();
    let mut long = vec![b'a'; 150];
    long.push(b'\n');
    paper.tap().show(1, Direction::Out, "nobody", &long);
    let label = format!("#1 -> {:<16}", "nobody");
    let cut = format!("{label} {} ... 51 bytes more\n", "a".repeat(100));
    assert_eq!(paper.text(), cut);

    let paper = Paper::default();
    let many = "line\n".repeat(50);
    paper.tap().show(1, Direction::In, "nobody", many.as_bytes());
    let text = paper.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 41);
    assert!(lines[39].ends_with(" line\\n"));
    assert!(lines[40].ends_with(" ... 50 bytes more"));
}

#[test]
fn each_piece_is_printed_in_one_write() {
    let paper = Paper::default();
    let tap = paper.tap();
    thread::scope(|scope| {
        for number in 0..4 {
            let tap = &tap;
            scope.spawn(move || {
                for _ in 0..50 {
                    tap.show(number, Direction::In, "nobody", b"one\ntwo\nthree\n");
                }
            });
        }
    });
    let writes = paper.0.lock().expect("no writer panics");
    assert_eq!(writes.len(), 200);
    for text in writes.iter() {
        let connection = &text[..2];
        assert_eq!(text.matches(connection).count(), 3, "{text}");
    }
}

#[test]
fn without_a_tap_nothing_is_shown() {
    let _dog = watchdog(5, "no tap");
    let (paper, (mut seen, mut seen_peer)) = (Paper::default(), wire());
    let (mut hidden, mut hidden_peer) = wire();
    seen.attach(paper.tap(), 1);
    for (wire, peer) in [(&mut seen, &mut seen_peer), (&mut hidden, &mut hidden_peer)] {
        send(peer, b"hello\n");
        fill_up_to(wire, 6);
        wire.discard();
        wire.flush().expect("the peer is there");
    }
    drop(hidden);
    assert_eq!(paper.text().lines().count(), 1);
}

// Exercises.

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}

#[test]
#[ignore = "exercise 2.3"]
fn exercise_2_3_what_was_gathered_leaves_when_the_wire_is_dropped() {
    let _dog = watchdog(5, "exercise 2.3");
    let (mut wire, mut peer) = wire();
    wire.write_all(b"do not forget me").expect("gathered");
    drop(wire);
    let mut heard = String::new();
    peer.read_to_string(&mut heard).expect("an end");
    assert_eq!(heard, "do not forget me");
}
