//! Chapter 33: the conversation.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use glasshouse::http::request::Parse;
use glasshouse::socket::lobby::{Deadlines, Lobby, Phase};
use glasshouse::socket::wire::Direction;
use glasshouse::websocket::conversation::{
    Closed, Opening, Prepared, SendError, Sender, Settings, WebSocket,
};
use glasshouse::websocket::frame::{CloseCode, FrameError, FrameHeader, Mask, Opcode, Role};
use glasshouse::websocket::message::{FrameSeen, Message, MessageError, Observer};
use support::mutator::Mutator;
use support::watchdog::watchdog;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const SHORT: Duration = Duration::from_millis(60);

/// A frame as a client sends it.
fn frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    FrameHeader { fin, opcode, key: Some(KEY), length: payload.len() as u64 }.encode(&mut out);
    let mut payload = payload.to_vec();
    Mask::new(KEY).apply(&mut payload);
    [out, payload].concat()
}

fn text(payload: &str) -> Vec<u8> {
    frame(true, Opcode::Text, payload.as_bytes())
}

fn ping(payload: &[u8]) -> Vec<u8> {
    frame(true, Opcode::Ping, payload)
}

fn close(code: u16) -> Vec<u8> {
    frame(true, Opcode::Close, &code.to_be_bytes())
}

fn said(text: &str) -> Message {
    Message::Text(text.to_string())
}

/// Both ends of a connection.
fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let theirs = TcpStream::connect(address).expect("a connection");
    let (ours, _) = listener.accept().expect("the same connection");
    theirs.set_nodelay(true).expect("an open socket");
    theirs.set_read_timeout(Some(Duration::from_secs(20))).expect("an open socket");
    (ours, theirs)
}

/// A client that sends what it is told to, and reads frame by frame.
struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What has come to the peer.
type Frame = (Opcode, Vec<u8>);

impl Peer {
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server reads");
    }

    /// The next frame; `None` at the end.
    #[track_caller]
    fn next(&mut self) -> Option<Frame> {
        loop {
            let parsed = FrameHeader::parse(&self.buffer, Role::Client).expect("a good frame");
            if let Parse::Complete { value, used } = parsed {
                assert!(value.fin, "we send whole messages");
                let end = used + value.length as usize;
                if self.buffer.len() >= end {
                    let payload = self.buffer[used..end].to_vec();
                    self.buffer.drain(..end);
                    return Some((value.opcode, payload));
                }
            }
            let mut block = [0; 65536];
            match self.stream.read(&mut block) {
                Ok(0) => {
                    assert!(self.buffer.is_empty(), "half a frame: {:?}", self.buffer);
                    return None;
                }
                Ok(count) => self.buffer.extend_from_slice(&block[..count]),
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[track_caller]
    fn expect(&mut self, opcode: Opcode, payload: impl AsRef<[u8]>) {
        assert_eq!(self.next(), Some((opcode, payload.as_ref().to_vec())));
    }

    /// A close with that code, and then the end.
    #[track_caller]
    fn expect_close(&mut self, code: u16) {
        match self.next() {
            Some((Opcode::Close, payload)) => {
                assert_eq!(payload.first_chunk(), Some(&code.to_be_bytes()));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(self.next(), None, "the close is the last frame");
    }

    /// Whether anything comes in a short time.
    fn is_quiet(&mut self) -> bool {
        self.stream.set_read_timeout(Some(SHORT)).expect("an open socket");
        let result = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(Duration::from_secs(20))).expect("an open socket");
        result.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

fn open(settings: Settings) -> (WebSocket, Peer) {
    let (ours, theirs) = sockets();
    let opening = Opening { settings, ..Opening::new(Arc::new(ours), Role::Server) };
    let socket = WebSocket::open(opening).expect("an open socket");
    (socket, Peer { stream: theirs, buffer: Vec::new() })
}

/// Times that a test can wait for.
fn quick() -> Settings {
    Settings {
        ping_interval: SHORT,
        pong_patience: SHORT,
        close_patience: SHORT,
        linger: Duration::from_secs(60), // only for a house that stops
        write_patience: Duration::from_millis(200),
        ..Settings::default()
    }
}

/// Sends all messages back, until the end.
fn echo(mut socket: WebSocket) -> Closed {
    let sender = socket.sender();
    loop {
        match socket.receive() {
            Ok(message) => drop(sender.send(&message)),
            Err(closed) => return closed,
        }
    }
}

fn lost() -> Closed {
    Closed { code: CloseCode::LOST, reason: String::new(), clean: false, fault: None }
}

fn clean(code: u16, reason: &str) -> Closed {
    Closed { code: CloseCode(code), reason: reason.to_string(), clean: true, fault: None }
}

// Messages.

#[test]
fn messages_go_both_ways() {
    let _dog = watchdog(20, "echo");
    let (socket, mut peer) = open(Settings::default());
    let server = thread::spawn(|| echo(socket));
    peer.send(text("Hello"));
    peer.expect(Opcode::Text, "Hello");
    for size in [0, 125, 126, 65535, 65536, 1 << 20] {
        let payload = vec![b'x'; size];
        let frame = frame(true, Opcode::Binary, &payload);
        thread::scope(|scope| {
            let mut stream = peer.stream.try_clone().expect("the same socket");
            scope.spawn(move || stream.write_all(&frame));
            peer.expect(Opcode::Binary, &payload);
        });
    }
    peer.send(close(1000));
    peer.expect_close(1000);
    assert_eq!(server.join().expect("no panic"), clean(1000, ""));
}

#[test]
fn bytes_that_came_behind_the_handshake_are_the_first_frames() {
    let _dog = watchdog(20, "early bytes");
    let (ours, theirs) = sockets();
    let mut peer = Peer { stream: theirs, buffer: Vec::new() };
    let all = [text("early"), text("cut in two")].concat();
    let (early, late) = all.split_at(all.len() - 5);
    let mut opening = Opening::new(Arc::new(ours), Role::Server);
    opening.early = early.to_vec();
    let mut socket = WebSocket::open(opening).expect("an open socket");
    assert_eq!(socket.receive(), Ok(said("early")));
    peer.send(late);
    assert_eq!(socket.receive(), Ok(said("cut in two")));
}

#[test]
fn a_socket_that_was_left_non_blocking_waits_all_the_same() {
    let _dog = watchdog(20, "non-blocking");
    let (ours, theirs) = sockets();
    ours.set_nonblocking(true).expect("an open socket");
    let mut socket = WebSocket::open(Opening::new(Arc::new(ours), Role::Server)).expect("open");
    let mut peer = Peer { stream: theirs, buffer: Vec::new() };
    let server = thread::spawn(move || socket.receive());
    thread::sleep(SHORT);
    peer.send(text("late"));
    assert_eq!(server.join().expect("no panic"), Ok(said("late")));
}

#[test]
fn our_client_and_our_server_understand_each_other() {
    let _dog = watchdog(20, "both roles");
    let (ours, theirs) = sockets();
    let server = WebSocket::open(Opening::new(Arc::new(ours), Role::Server)).expect("open");
    let keys: Arc<Mutex<Vec<[u8; 4]>>> = Arc::default();
    let notes = Arc::clone(&keys);
    let observer: Observer = Arc::new(move |frame: &FrameSeen| {
        if frame.direction == Direction::Out {
            notes.lock().expect("no panic").push(frame.header.key.expect("a masked frame"));
        }
    });
    let mut opening = Opening::new(Arc::new(theirs), Role::Client);
    opening.observer = Some(observer);
    let mut client = WebSocket::open(opening).expect("open");
    let server = thread::spawn(|| echo(server));
    let sender = client.sender();
    for size in [5, 5, 200_000] {
        let message = said(&"x".repeat(size));
        assert_eq!(sender.send(&message), Ok(()));
        assert_eq!(client.receive(), Ok(message));
    }
    assert_eq!(sender.post(&Prepared::new(&said("posted"))), Ok(()));
    assert_eq!(client.receive(), Ok(said("posted")));
    assert_eq!(client.close(CloseCode::NORMAL, "bye"), clean(1000, ""));
    assert_eq!(server.join().expect("no panic"), clean(1000, "bye"));
    let mut keys = keys.lock().expect("no panic").clone();
    assert_eq!(keys.len(), 5);
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 5, "each frame has a key of its own");
}

// Full duplex.

#[test]
fn both_sides_send_much_at_the_same_time() {
    let _dog = watchdog(20, "full duplex");
    let patience = Duration::from_secs(2);
    let (mut socket, mut peer) = open(Settings { write_patience: patience, ..Settings::default() });
    let (ours, theirs) = (vec![7; 8 << 20], vec![8; 8 << 20]);
    let frames = [ping(b"?"), frame(true, Opcode::Binary, &theirs)].concat();
    let (sender, message) = (socket.sender(), Message::Binary(ours.clone()));
    let mut stream = peer.stream.try_clone().expect("the same socket");
    thread::scope(|scope| {
        // The peer reads nothing before it has sent all. Our writer stands still meanwhile, and
        // our reader must not wait for it, not even with a pong.
        scope.spawn(move || assert_eq!(sender.send(&message), Ok(())));
        scope.spawn(move || {
            // First our message begins to come: a ping that is earlier would get its pong earlier.
            stream.peek(&mut [0]).expect("the beginning of a message");
            stream.write_all(&frames).expect("the server reads");
        });
        assert_eq!(socket.receive(), Ok(Message::Binary(theirs)));
        peer.expect(Opcode::Binary, ours);
        peer.expect(Opcode::Pong, "?");
    });
}

#[test]
fn frames_of_many_senders_never_mix() {
    let _dog = watchdog(20, "many senders");
    let (socket, mut peer) = open(Settings::default());
    thread::scope(|scope| {
        for letter in b'a'..b'e' {
            let sender = socket.sender();
            scope.spawn(move || {
                for round in 0..300 {
                    // A long one does not leave in one piece: the system takes what it has room for.
                    let length = if round % 100 == 0 { 500_000 } else { (round * 37) % 9000 };
                    let message = Message::Binary(vec![letter; length]);
                    match round % 3 {
                        0 => assert_eq!(sender.send(&message), Ok(())),
                        1 => assert_eq!(sender.answer(&message), Ok(())),
                        // The queue may be full for a moment.
                        _ => while sender.post(&Prepared::new(&message)) == Err(SendError::Full) {},
                    }
                }
            });
        }
        for _ in 0..4 * 300 {
            let (opcode, payload) = peer.next().expect("a frame");
            assert_eq!(opcode, Opcode::Binary);
            assert!(payload.windows(2).all(|pair| pair[0] == pair[1]), "one sender a frame");
        }
    });
    assert!(peer.is_quiet());
}

#[test]
fn the_reading_side_may_move_between_threads() {
    let _dog = watchdog(20, "poll");
    let (socket, mut peer) = open(Settings::default());
    let socket = Arc::new(Mutex::new(socket));
    peer.send(ping(b"1"));
    let shared = Arc::clone(&socket);
    // One thread computes, another one answers pings for it.
    let pump = thread::spawn(move || shared.lock().expect("no panic").poll(SHORT * 2));
    peer.expect(Opcode::Pong, "1");
    assert_eq!(pump.join().expect("no panic"), Ok(None));
    peer.send(text("now"));
    assert_eq!(socket.lock().expect("no panic").receive(), Ok(said("now")));
}

// Pings.

#[test]
fn a_ping_between_two_fragments_is_answered_at_once() {
    let _dog = watchdog(20, "ping");
    let (socket, mut peer) = open(Settings::default());
    let server = thread::spawn(|| echo(socket));
    peer.send([frame(false, Opcode::Text, b"Hel"), ping(b"now")].concat());
    peer.expect(Opcode::Pong, "now");
    peer.send(
        [frame(true, Opcode::Pong, b"unasked"), frame(true, Opcode::Continuation, b"lo")].concat(),
    );
    peer.expect(Opcode::Text, "Hello");
    drop(peer);
    assert_eq!(server.join().expect("no panic"), lost());
}

#[test]
fn silence_is_asked_and_a_sign_of_life_is_enough() {
    let _dog = watchdog(20, "ping interval");
    let (mut socket, mut peer) = open(Settings { pong_patience: SHORT * 20, ..quick() });
    let server = thread::spawn(move || socket.receive());
    let frame = [frame(true, Opcode::Pong, b""), text("x")].concat();
    // A whole frame, a part of a header, a part of a payload: somebody is there.
    for part in [&frame[..6], &frame[6..7], &frame[7..12]] {
        peer.expect(Opcode::Ping, "");
        peer.send(part);
    }
    peer.expect(Opcode::Ping, "");
    peer.send(&frame[12..]);
    assert_eq!(server.join().expect("no panic"), Ok(said("x")));
}

#[test]
fn who_does_not_answer_a_ping_is_lost() {
    let _dog = watchdog(20, "pong patience");
    let (mut socket, mut peer) = open(quick());
    let began = Instant::now();
    assert_eq!(socket.receive(), Err(lost()));
    assert!(began.elapsed() >= SHORT * 2, "{:?}", began.elapsed());
    peer.expect(Opcode::Ping, "");
    assert_eq!(peer.next(), None);
    assert_eq!(socket.receive(), Err(lost()), "and stays lost");
    assert_eq!(socket.sender().send(&said("?")), Err(SendError::Lost));
}

// Closing.

#[test]
fn a_close_is_answered_once_and_tcp_ends() {
    let _dog = watchdog(20, "close");
    for (payload, want) in [
        (b"\x03\xe8".as_slice(), clean(1000, "")),
        (b"\x0f\xa0four thousand", clean(4000, "four thousand")),
        (b"", clean(1005, "")),
    ] {
        let (socket, mut peer) = open(Settings::default());
        let server = thread::spawn(|| echo(socket));
        peer.send(frame(true, Opcode::Close, payload));
        let code = payload.get(..2).unwrap_or_default();
        peer.expect(Opcode::Close, code);
        assert_eq!(peer.next(), None, "the server ends TCP first");
        drop(peer);
        assert_eq!(server.join().expect("no panic"), want);
    }
}

#[test]
fn our_close_waits_for_its_answer() {
    let _dog = watchdog(20, "our close");
    let (mut socket, mut peer) = open(Settings::default());
    let sender = socket.sender();
    let server = thread::spawn(move || socket.close(CloseCode::POLICY, "enough"));
    peer.expect(Opcode::Close, b"\x03\xf0enough");
    assert_eq!(sender.send(&said("more")), Err(SendError::Closed));
    assert_eq!(sender.post(&Prepared::new(&said("more"))), Err(SendError::Closed));
    assert_eq!(sender.close(CloseCode::NORMAL, ""), Err(SendError::Closed));
    peer.send([text("too late to matter"), ping(b""), close(1008)].concat());
    assert_eq!(peer.next(), None, "nothing behind the close");
    drop(peer);
    assert_eq!(server.join().expect("no panic"), clean(1008, ""));
    assert_eq!(sender.send(&said("more")), Err(SendError::Lost));
}

#[test]
fn any_thread_may_close_and_the_reader_hears_the_answer() {
    let _dog = watchdog(20, "close from elsewhere");
    let (mut socket, mut peer) = open(Settings::default());
    let sender = socket.sender();
    let server = thread::spawn(move || socket.receive());
    assert_eq!(sender.close(CloseCode(2000), ""), Err(SendError::InvalidCode(CloseCode(2000))));
    assert_eq!(sender.close(CloseCode::NORMAL, ""), Ok(()));
    peer.expect(Opcode::Close, b"\x03\xe8");
    peer.send(close(1000));
    assert_eq!(server.join().expect("no panic"), Err(clean(1000, "")));
}

#[test]
fn two_closes_that_cross_are_enough() {
    let _dog = watchdog(20, "closes that cross");
    let (mut socket, mut peer) = open(Settings::default());
    peer.send(close(3001));
    assert_eq!(socket.close(CloseCode(3002), ""), clean(3001, ""));
    peer.expect_close(3002);
}

#[test]
fn a_close_that_is_never_answered_ends_all_the_same() {
    let _dog = watchdog(20, "close patience");
    let (mut socket, mut peer) = open(quick());
    assert_eq!(socket.close(CloseCode::NORMAL, ""), lost());
    peer.expect_close(1000);
}

#[test]
fn a_broken_rule_is_told_and_what_came_before_it_is_answered() {
    let _dog = watchdog(20, "broken rule");
    let (socket, mut peer) = open(quick());
    let server = thread::spawn(|| echo(socket));
    let noise = vec![b'x'; 3_000_000];
    let mut stream = peer.stream.try_clone().expect("the same socket");
    let writer = thread::spawn(move || {
        let _ = stream.write_all(&[text("good"), b"\xf1".to_vec(), noise].concat());
    });
    peer.expect(Opcode::Text, "good");
    peer.expect(Opcode::Close, b"\x03\xeaa reserved bit is set");
    assert_eq!(peer.next(), None, "an end, and no reset");
    writer.join().expect("no panic");
    drop(peer);
    let fault = Some(MessageError::Frame(FrameError::ReservedBits));
    let closed = server.join().expect("no panic");
    assert_eq!(closed, Closed { fault, ..lost() });
    assert_eq!(closed.to_string(), "closed with 1002: a reserved bit is set");
    assert_eq!(clean(1000, "bye").to_string(), "closed with 1000 \"bye\"");
    assert_eq!(lost().to_string(), "lost");
}

#[test]
fn too_long_a_message_is_refused_with_1009() {
    let _dog = watchdog(20, "1009");
    let (socket, mut peer) = open(Settings { message: 10, ..quick() });
    let server = thread::spawn(|| echo(socket));
    peer.send(text("0123456789"));
    peer.expect(Opcode::Text, "0123456789");
    peer.send(&text("0123456789a")[..6]);
    peer.expect_close(1009);
    drop(peer);
    let fault = server.join().expect("no panic").fault;
    assert_eq!(fault, Some(MessageError::TooLong { limit: 10 }));
}

#[test]
fn who_sends_all_of_it_before_it_reads_hears_the_1009_too() {
    let _dog = watchdog(60, "sends first");
    let message = frame(true, Opcode::Binary, &vec![b'x'; 20_000_000]);
    let linger = Duration::from_secs(60);
    let (socket, mut peer) = open(Settings { message: 10, linger, ..Settings::default() });
    let server = thread::spawn(|| echo(socket));
    peer.send(message);
    peer.expect_close(1009);
    drop(peer);
    server.join().expect("no panic");
}

#[test]
fn an_end_without_a_close_is_1006() {
    let _dog = watchdog(20, "1006");
    for bytes in [Vec::new(), b"\x81".to_vec(), text("Hello")[..8].to_vec()] {
        let (mut socket, mut peer) = open(Settings::default());
        peer.send(bytes);
        peer.stream.shutdown(Shutdown::Write).expect("an open socket");
        assert_eq!(socket.receive(), Err(lost()));
        assert_eq!(peer.next(), None);
    }
}

#[test]
fn a_reading_side_that_is_dropped_ends_the_conversation() {
    let _dog = watchdog(20, "drop");
    let (socket, mut peer) = open(Settings::default());
    let sender = socket.sender();
    drop(socket);
    assert_eq!(peer.next(), None);
    assert_eq!(sender.send(&said("anybody?")), Err(SendError::Lost));
}

#[test]
fn a_house_that_stops_says_1001() {
    let _dog = watchdog(20, "stop");
    for answers in [true, false] {
        let (ours, theirs) = sockets();
        let address = theirs.local_addr().expect("an address");
        let lobby = Lobby::new(Deadlines::default(), 1);
        let guest = lobby.enter(ours, address);
        let mut opening = Opening::new(Arc::clone(&guest.stream), Role::Server);
        (opening.guest, opening.settings) = (Some(Arc::clone(&guest)), quick());
        opening.settings.ping_interval = Duration::from_secs(20);
        // One that stops has less patience than one that merely closes.
        opening.settings.close_patience = Duration::from_secs(60);
        opening.settings.linger = SHORT;
        let mut socket = WebSocket::open(opening).expect("open");
        let mut peer = Peer { stream: theirs, buffer: Vec::new() };
        let server = thread::spawn(move || socket.receive());
        while guest.phase() != Phase::Staying {
            thread::yield_now();
        }
        lobby.close_idle();
        peer.expect(Opcode::Close, b"\x03\xe9the server stops");
        if answers {
            peer.send(close(1001));
        }
        assert_eq!(peer.next(), None);
        let want = if answers { clean(1001, "") } else { lost() };
        assert_eq!(server.join().expect("no panic"), Err(want));
    }
}

#[test]
fn who_never_hangs_up_is_left_after_a_moment() {
    let _dog = watchdog(20, "never hangs up");
    let (socket, mut peer) = open(Settings { linger: SHORT, ..quick() });
    let server = thread::spawn(|| echo(socket));
    peer.send(close(1000));
    peer.expect(Opcode::Close, b"\x03\xe8");
    assert_eq!(server.join().expect("no panic"), clean(1000, ""));
    drop(peer);
}

// Slow peers.

#[test]
fn who_never_reads_loses_only_itself() {
    let _dog = watchdog(20, "never reads");
    let (socket, peer) = open(quick());
    let sender = socket.sender();
    let big = Message::Binary(vec![0; 64 << 20]);
    let waiting = socket.sender();
    let second = thread::spawn(move || {
        thread::sleep(SHORT);
        waiting.send(&said("after the big one"))
    });
    assert_eq!(sender.send(&big), Err(SendError::Lost));
    assert_eq!(second.join().expect("no panic"), Err(SendError::Lost));
    let began = Instant::now();
    assert_eq!(sender.send(&said("again")), Err(SendError::Lost));
    assert!(began.elapsed() < SHORT, "all later sends fail at once");
    drop(peer);
}

#[test]
fn a_slow_reader_gets_all_of_it() {
    let _dog = watchdog(20, "slow reader");
    let (socket, mut peer) = open(Settings { write_patience: SHORT * 4, ..quick() });
    let sender = socket.sender();
    let message = Message::Binary(vec![5; 6 << 20]);
    let server = thread::spawn(move || sender.send(&message));
    let mut arrived = 0;
    while arrived < 6 << 20 {
        // Each pause is shorter than the patience, and all of them together are longer.
        if arrived % (1 << 20) == 0 {
            thread::sleep(SHORT);
        }
        let mut block = vec![0; 1 << 18];
        peer.stream.read_exact(&mut block).expect("more of the message");
        arrived += block.len();
    }
    assert_eq!(server.join().expect("no panic"), Ok(()));
}

#[test]
fn a_post_never_waits_and_says_who_is_too_slow() {
    let _dog = watchdog(20, "post");
    let settings = Settings { queue_bytes: 1 << 20, write_patience: SHORT * 50, ..quick() };
    let (socket, mut peer) = open(settings);
    let sender = socket.sender();
    let prepared = Prepared::new(&Message::Binary(vec![1; 64 * 1024]));
    let (began, mut sent) = (Instant::now(), 0);
    while sender.post(&prepared) == Ok(()) {
        sent += 1;
        assert!(sent < 10_000, "somebody must say that the queue is full");
    }
    assert_eq!(sender.post(&prepared), Err(SendError::Full));
    assert!(began.elapsed() < SHORT * 40, "nobody has waited: {:?}", began.elapsed());
    assert!(sent >= 16, "the queue has room for {sent}");
    // What was taken arrives, whole and in order, and then there is room again.
    for _ in 0..sent {
        peer.expect(Opcode::Binary, vec![1; 64 * 1024]);
    }
    while sender.post(&prepared) == Err(SendError::Full) {
        thread::yield_now();
    }
    peer.expect(Opcode::Binary, vec![1; 64 * 1024]);
    drop(socket);
}

#[test]
fn the_number_of_queued_messages_has_a_bound_too() {
    let _dog = watchdog(20, "many posts");
    let (socket, peer) = open(Settings { queue_messages: 3, ..Settings::default() });
    let sender = socket.sender();
    let big = Prepared::new(&Message::Binary(vec![1; 32 << 20]));
    let small = Prepared::new(&said("x"));
    assert_eq!(sender.post(&big), Ok(()), "one alone may be larger than the bound");
    let posted = (0..5).filter(|_| sender.post(&small) == Ok(())).count();
    assert_eq!(posted, 0, "it is over the bound of bytes now");
    drop(socket);
    let (socket, _peer) =
        open(Settings { queue_messages: 3, queue_bytes: usize::MAX >> 1, ..Settings::default() });
    let sender = socket.sender();
    assert_eq!(sender.post(&big), Ok(()));
    let posted = (0..5).filter(|_| sender.post(&small) == Ok(())).count();
    assert_eq!(posted, 2);
    drop(peer);
}

#[test]
fn pings_that_nobody_reads_the_answers_of_fill_no_memory() {
    let _dog = watchdog(20, "ping flood");
    let pongs: Arc<Mutex<usize>> = Arc::default();
    let counted = Arc::clone(&pongs);
    let observer: Observer = Arc::new(move |frame: &FrameSeen| {
        *counted.lock().expect("no panic") += usize::from(frame.direction == Direction::Out);
    });
    let (ours, theirs) = sockets();
    let mut opening = Opening::new(Arc::new(ours), Role::Server);
    (opening.settings, opening.observer) = (quick(), Some(observer));
    let mut socket = WebSocket::open(opening).expect("open");
    let server = thread::spawn(move || socket.receive());
    let flood = ping(&[b'p'; 125]).repeat(1000);
    let mut stream = &theirs;
    // It goes on until the server has lost its patience with us.
    while stream.write_all(&flood).is_ok() {}
    assert_eq!(server.join().expect("no panic"), Err(lost()));
    assert!(*pongs.lock().expect("no panic") > 1000);
}

// Writes.

#[test]
fn answers_to_messages_that_came_together_leave_together() {
    let _dog = watchdog(20, "gathered");
    let (mut socket, mut peer) = open(Settings::default());
    let sender = socket.sender();
    peer.send([text("1"), text("2"), text("3")].concat());
    for number in ["1", "2"] {
        assert_eq!(socket.receive(), Ok(said(number)));
        assert_eq!(sender.answer(&said(number)), Ok(()));
        assert!(peer.is_quiet(), "another message is there already");
    }
    assert_eq!(socket.receive(), Ok(said("3")));
    assert_eq!(sender.answer(&said("3")), Ok(()));
    let mut block = [0; 100];
    assert_eq!(peer.stream.read(&mut block).expect("bytes"), 9, "three frames in one piece");
}

#[test]
fn an_answer_waits_for_no_message_that_is_not_whole() {
    let _dog = watchdog(20, "half a message");
    let (mut socket, mut peer) = open(Settings::default());
    let sender = socket.sender();
    for behind in [&text("2")[..6], &ping(b"p"), &frame(false, Opcode::Text, b"")] {
        peer.send([text("1").as_slice(), behind].concat());
        assert_eq!(socket.receive(), Ok(said("1")));
        assert_eq!(sender.answer(&said("1")), Ok(()));
        peer.expect(Opcode::Text, "1");
        if behind == &text("2")[..6] {
            peer.send(&text("2")[6..]);
            assert_eq!(socket.receive(), Ok(said("2")));
        }
        if behind == ping(b"p") {
            assert_eq!(socket.poll(SHORT), Ok(None));
            peer.expect(Opcode::Pong, "p");
        }
    }
}

#[test]
fn what_is_kept_leaves_with_a_send_a_flush_a_wait_or_a_close() {
    let _dog = watchdog(20, "flush");
    type Push = fn(&mut WebSocket, &Sender);
    let pushes: [Push; 4] = [
        |_, sender| assert_eq!(sender.send(&said("more")), Ok(())),
        |_, sender| assert_eq!(sender.flush(), Ok(())),
        |socket, _| {
            assert_eq!(socket.receive(), Ok(said("2")));
            assert_eq!(socket.poll(SHORT), Ok(None));
        },
        |_, sender| assert_eq!(sender.close(CloseCode::NORMAL, ""), Ok(())),
    ];
    for push in pushes {
        let (mut socket, mut peer) = open(Settings::default());
        let sender = socket.sender();
        peer.send([text("1"), text("2")].concat());
        assert_eq!(socket.receive(), Ok(said("1")));
        assert_eq!(sender.answer(&said("kept")), Ok(()));
        assert!(peer.is_quiet());
        push(&mut socket, &sender);
        peer.expect(Opcode::Text, "kept");
    }
}

#[test]
fn a_pong_does_not_wait_for_the_application() {
    let _dog = watchdog(20, "pong first");
    let (mut socket, mut peer) = open(Settings::default());
    peer.send([ping(b"p"), text("1"), text("2")].concat());
    assert_eq!(socket.receive(), Ok(said("1")));
    peer.expect(Opcode::Pong, "p");
}

// All kinds of bytes.

#[test]
fn broken_sequences_are_answered_with_good_frames_and_one_close() {
    let _dog = watchdog(60, "broken sequences");
    let good = [
        text("hello"),
        frame(true, Opcode::Binary, &[7; 3000]),
        ping(b"p"),
        close(1000),
        [frame(false, Opcode::Text, b"a"), ping(b""), frame(true, Opcode::Continuation, b"b")]
            .concat(),
        text("é"),
        frame(true, Opcode::Text, b"\xff"),
        frame(true, Opcode::Continuation, b"orphan"),
    ];
    let mut mutator = Mutator::new(27);
    let mut closes = 0;
    for _ in 0..1000 {
        let mut bytes = Vec::new();
        for _ in 0..1 + mutator.below(5) {
            bytes.extend_from_slice(&good[mutator.below(good.len())]);
        }
        let bytes = mutator.mutate(&bytes);
        let (socket, mut peer) = open(quick());
        let server = thread::spawn(|| echo(socket));
        peer.send(&bytes);
        peer.stream.shutdown(Shutdown::Write).expect("an open socket");
        let mut ended = false;
        while let Some((opcode, _)) = peer.next() {
            assert!(!ended, "{opcode} behind the close: {bytes:02x?}");
            ended = opcode == Opcode::Close;
        }
        closes += usize::from(ended);
        let closed = server.join().expect("no panic");
        assert_eq!(ended, closed.clean || closed.fault.is_some(), "{closed}: {bytes:02x?}");
    }
    assert!(closes > 300, "{closes}");
}

// Exercises.

#[test]
#[ignore = "exercise 33.2"]
fn exercise_33_2_a_full_queue_forgets_its_oldest_message() {
    let _dog = watchdog(20, "exercise 33.2");
    let (socket, mut peer) =
        open(Settings { queue_messages: 3, queue_bytes: 100 << 20, ..Settings::default() });
    let sender = socket.sender();
    // The first is on its way, and too long to arrive before somebody reads.
    let long = Message::Binary(vec![1; 32 << 20]);
    assert_eq!(sender.post(&Prepared::new(&long)), Ok(()));
    for number in 1..=9 {
        assert_eq!(sender.post(&Prepared::new(&said(&number.to_string()))), Ok(()));
    }
    peer.expect(Opcode::Binary, long.payload());
    peer.expect(Opcode::Text, "8");
    peer.expect(Opcode::Text, "9");
    assert_eq!(sender.send(&said("the end")), Ok(()));
    peer.expect(Opcode::Text, "the end");
}

#[test]
fn what_has_left_makes_room_in_the_queue() {
    let _dog = watchdog(20, "room in the queue");
    let (socket, mut peer) = open(Settings { queue_messages: 2, queue_bytes: 64, ..quick() });
    let sender = socket.sender();
    for number in 0..100 {
        let text = number.to_string();
        assert_eq!(sender.post(&Prepared::new(&said(&text))), Ok(()), "{number}");
        peer.expect(Opcode::Text, text);
    }
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
