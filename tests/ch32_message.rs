//! Chapter 32: messages.

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use glasshouse::socket::wire::{Direction, Tap, chapter_of};
use glasshouse::websocket::frame::{Close, CloseCode, FrameError, FrameHeader, Mask, Opcode, Role};
use glasshouse::websocket::message::{
    Assembler, Event, FrameSeen, Message, MessageError, Observer, show_frames,
};
use support::mutator::Mutator;

const LIMIT: usize = 1000;
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame as a client sends it.
fn frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    FrameHeader { fin, opcode, key: Some(KEY), length: payload.len() as u64 }.encode(&mut out);
    let mut payload = payload.to_vec();
    Mask::new(KEY).apply(&mut payload);
    [out, payload].concat()
}

fn text(payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(true, Opcode::Text, payload.as_ref())
}

fn first(payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(false, Opcode::Text, payload.as_ref())
}

fn next(payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(false, Opcode::Continuation, payload.as_ref())
}

fn last(payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(true, Opcode::Continuation, payload.as_ref())
}

fn ping(payload: &[u8]) -> Vec<u8> {
    frame(true, Opcode::Ping, payload)
}

fn said(text: &str) -> Event {
    Event::Message(Message::Text(text.to_string()))
}

/// All events, and the error that ended them, if one did.
type Outcome = (Vec<Event>, Option<MessageError>);

/// Feeds the bytes as they come from a socket: in `pieces`, with what was not taken before them.
fn feed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut assembler = Assembler::new(Role::Server, LIMIT, None);
    let (mut events, mut buffer) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match assembler.take(&buffer) {
                Ok((used, event)) => {
                    buffer.drain(..used);
                    let Some(event) = event else { break };
                    events.push(event);
                }
                Err(error) => return (events, Some(error)),
            }
        }
        assert!(buffer.len() < FrameHeader::LONGEST, "only a part of a header is left");
    }
    (events, None)
}

/// Feeds the bytes whole, byte by byte, and in two pieces cut at every offset.
#[track_caller]
fn events(bytes: impl AsRef<[u8]>) -> Outcome {
    let bytes = bytes.as_ref();
    let whole = feed([bytes]);
    assert_eq!(whole, feed(bytes.chunks(1)), "byte by byte");
    for cut in 0..bytes.len().min(300) {
        let (left, right) = bytes.split_at(cut);
        assert_eq!(whole, feed([left, right]), "cut at {cut}");
    }
    whole
}

#[track_caller]
fn good(bytes: impl AsRef<[u8]>) -> Vec<Event> {
    let (events, error) = events(bytes);
    assert_eq!(error, None, "after {events:?}");
    events
}

#[track_caller]
fn error(bytes: impl AsRef<[u8]>) -> MessageError {
    events(bytes).1.expect("an error")
}

// The examples of RFC 6455, section 5.7.

#[test]
fn one_frame_is_a_message() {
    assert_eq!(good(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), [said("Hello")]);
    let bytes = frame(true, Opcode::Binary, b"\x00\xff");
    assert_eq!(good(bytes), [Event::Message(Message::Binary(vec![0, 255]))]);
}

#[test]
fn two_frames_are_a_message() {
    assert_eq!(good([first("Hel"), last("lo")].concat()), [said("Hello")]);
}

#[test]
fn a_server_sends_the_same_without_a_mask() {
    let mut assembler = Assembler::new(Role::Client, LIMIT, None);
    assert_eq!(assembler.take(b"\x01\x03Hel\x80\x02lo"), Ok((9, Some(said("Hello")))));
}

// Fragments.

#[test]
fn a_message_may_have_any_number_of_frames_and_some_may_be_empty() {
    let bytes = [first(""), next("a"), next(""), next("bc"), last(""), text(""), text("d")];
    assert_eq!(good(bytes.concat()), [said("abc"), said(""), said("d")]);
}

#[test]
fn control_frames_come_between_the_frames_of_a_message() {
    let pong = frame(true, Opcode::Pong, b"");
    let bytes = [first("Hel"), ping(b"\xff"), pong, last("lo"), ping(b"")];
    let want = [Event::Ping(vec![0xff]), Event::Pong, said("Hello"), Event::Ping(Vec::new())];
    assert_eq!(good(bytes.concat()), want);
}

#[test]
fn a_continuation_needs_something_to_continue() {
    assert_eq!(error(last("x")), MessageError::NothingToContinue);
    let (events, error) = events([text("whole"), next("more")].concat());
    assert_eq!(events, [said("whole")], "what was good before is not lost");
    assert_eq!(error, Some(MessageError::NothingToContinue));
}

#[test]
fn a_message_may_not_begin_inside_another() {
    assert_eq!(error([first("a"), text("b")].concat()), MessageError::MessageInMessage);
    let binary = frame(false, Opcode::Binary, b"b");
    assert_eq!(error([first("a"), binary].concat()), MessageError::MessageInMessage);
}

#[test]
fn a_close_is_an_event_with_its_code() {
    let close = Close { code: CloseCode(1001), reason: "bye".to_string() };
    assert_eq!(good(frame(true, Opcode::Close, b"\x03\xe9bye")), [Event::Close(close)]);
    let error = error(frame(true, Opcode::Close, b"\x03"));
    assert_eq!(error, MessageError::Frame(FrameError::CloseTooShort));
}

// Text.

#[test]
fn a_character_may_be_cut_between_two_frames() {
    let text = "κόσμε €😀".as_bytes();
    for cut in 0..text.len() {
        let (left, right) = text.split_at(cut);
        let bytes = [first(left), ping(b"\xff\xfe"), last(right)].concat();
        let want = [Event::Ping(vec![0xff, 0xfe]), said("κόσμε €😀")];
        assert_eq!(feed([bytes.as_slice()]), (want.to_vec(), None), "cut at {cut}");
    }
}

#[test]
fn the_first_impossible_byte_is_refused_before_the_frame_is_complete() {
    for (begin, worse) in [
        (b"\xf4".as_slice(), b"\x90"),
        (b"\xe0", b"\x80"),
        (b"\xed", b"\xa0"),
        (b"\xc3", b"A"),
        (b"", b"\xc0"),
    ] {
        let whole = text([b"good ", begin, worse, b" and more"].concat());
        let until_worse = whole.len() - b" and more".len();
        let until_begin = until_worse - worse.len();
        assert_eq!(feed([&whole[..until_begin]]), (Vec::new(), None), "{begin:02x?} may go on");
        assert_eq!(feed([&whole[..until_worse]]), (Vec::new(), Some(MessageError::NotUtf8)));
    }
}

#[test]
fn text_may_not_end_inside_a_character() {
    assert_eq!(error(text(b"caf\xc3")), MessageError::NotUtf8);
    assert_eq!(error([first(b"\xe2\x82"), last("")].concat()), MessageError::NotUtf8);
    let bytes = frame(true, Opcode::Binary, b"caf\xc3");
    assert_eq!(good(bytes).len(), 1, "bytes are no text");
}

// Limits.

#[test]
fn a_declared_length_over_the_limit_is_refused_before_its_first_byte() {
    let whole = text("x".repeat(LIMIT));
    assert_eq!(good(whole).len(), 1);
    let over = text("x".repeat(LIMIT + 1));
    let header = &over[..over.len() - LIMIT - 1];
    assert_eq!(error(header), MessageError::TooLong { limit: LIMIT });
    let huge = [b"\x82\xff".as_slice(), &(1_u64 << 62).to_be_bytes(), &KEY].concat();
    assert_eq!(error(huge), MessageError::TooLong { limit: LIMIT });
}

#[test]
fn fragments_that_pass_the_limit_together_are_refused() {
    let half = "x".repeat(LIMIT / 2);
    assert_eq!(good([first(&half), last(&half)].concat()).len(), 1);
    let bytes = [first(&half), next("y"), next(&half)].concat();
    assert_eq!(error(bytes), MessageError::TooLong { limit: LIMIT });
    let pinged = [first(&half), ping(b"no part of it"), last(&half)].concat();
    assert_eq!(good(pinged).len(), 2);
    let mut narrow = Assembler::new(Role::Server, 5, None);
    let event = narrow.take(&ping(b"longer than a message")).expect("a good frame").1;
    assert_eq!(event, Some(Event::Ping(b"longer than a message".to_vec())));
}

#[test]
fn a_million_small_fragments_cost_little() {
    let mut bytes = frame(false, Opcode::Binary, b"");
    let (empty, one) = (next(""), next("x"));
    for _ in 0..500_000 {
        bytes.extend_from_slice(&empty);
        bytes.extend_from_slice(&one);
    }
    bytes.extend_from_slice(&last(""));
    let mut assembler = Assembler::new(Role::Server, 1 << 20, None);
    let began = Instant::now();
    let (used, event) = assembler.take(&bytes).expect("good frames");
    assert_eq!(used, bytes.len());
    let Some(Event::Message(Message::Binary(payload))) = event else { panic!("{event:?}") };
    assert_eq!(payload.len(), 500_000);
    // Half a second. If each fragment moved what has come before it, a minute.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn room_grows_with_what_has_arrived_and_not_with_what_is_declared() {
    let length = 10 << 20;
    let mut header = Vec::new();
    FrameHeader { fin: true, opcode: Opcode::Binary, key: Some(KEY), length }.encode(&mut header);
    let mut assembler = Assembler::new(Role::Server, 16 << 20, None);
    assert_eq!(assembler.take(&header), Ok((header.len(), None)));
    let (mut arrived, mut mask) = (0, Mask::new(KEY));
    while arrived < length as usize {
        let room = assembler.room().expect("a long payload");
        assert!(room.len() <= arrived.max(64 * 1024), "{} after {arrived}", room.len());
        let count = room.len().min(30_000);
        room[..count].fill(b'x');
        mask.apply(&mut room[..count]);
        assembler.took(count);
        arrived += count;
        if arrived < length as usize {
            assert_eq!(assembler.take(b""), Ok((0, None)));
        }
    }
    let want = Message::Binary(vec![b'x'; length as usize]);
    assert_eq!(assembler.take(b""), Ok((0, Some(Event::Message(want)))));
    assert!(assembler.room().is_none(), "nothing is under way");
}

#[test]
fn bytes_may_come_by_the_buffer_and_by_the_room_in_turn() {
    let payload: Vec<u8> = (0..50_000_u32).map(|number| (number % 251) as u8).collect();
    let bytes = frame(true, Opcode::Binary, &payload);
    let mut assembler = Assembler::new(Role::Server, 1 << 20, None);
    let (mut at, mut size) = (0, 1);
    loop {
        let by_room = size % 2 == 0;
        let count = size.min(bytes.len() - at);
        let piece = &bytes[at..at + count];
        let room = assembler.room().filter(|_| by_room);
        let (used, event) = match room {
            Some(room) => {
                let count = room.len().min(count);
                room[..count].copy_from_slice(&piece[..count]);
                assembler.took(count);
                at += count;
                assembler.take(b"").expect("good frames")
            }
            None => assembler.take(piece).expect("good frames"),
        };
        at += used;
        size = size % 4000 + 7;
        if let Some(event) = event {
            assert_eq!(event, Event::Message(Message::Binary(payload)));
            return;
        }
    }
}

#[test]
fn every_error_names_its_rule_and_its_code() {
    for (error, code) in [
        (MessageError::Frame(FrameError::ReservedBits), 1002),
        (MessageError::Frame(FrameError::ReasonNotUtf8), 1007),
        (MessageError::NothingToContinue, 1002),
        (MessageError::MessageInMessage, 1002),
        (MessageError::TooLong { limit: 5 }, 1009),
        (MessageError::NotUtf8, 1007),
    ] {
        assert!(error.rule().starts_with("RFC 6455, section "), "{error:?}");
        assert_eq!(error.close_code(), CloseCode(code), "{error:?}");
        assert!(!error.to_string().is_empty());
    }
}

// Looking at frames.

#[test]
fn an_observer_sees_each_frame_with_and_without_its_mask() {
    let seen: Arc<Mutex<Vec<FrameSeen>>> = Arc::default();
    let notes = Arc::clone(&seen);
    let observer: Observer =
        Arc::new(move |frame| notes.lock().expect("no panic").push(frame.clone()));
    let mut assembler = Assembler::new(Role::Server, LIMIT, Some(observer));
    let bytes = [first("Hel"), ping(b"?"), last("lo")].concat();
    let mut at = 0;
    while at < bytes.len() {
        at += assembler.take(&bytes[at..]).expect("good frames").0;
    }
    let seen = seen.lock().expect("no panic");
    let payloads: Vec<&[u8]> = seen.iter().map(|frame| frame.payload.as_slice()).collect();
    assert_eq!(payloads, [b"Hel".as_slice(), b"?", b"lo"]);
    assert!(seen.iter().all(|frame| frame.direction == Direction::In));
    assert_eq!(seen[0].masked(), b"\x7f\x9f\x4d");
    assert_eq!(seen[1].header.opcode, Opcode::Ping);
}

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);
impl std::io::Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What the wire view prints of these frames.
fn printed<const N: usize>(frames: [Vec<u8>; N]) -> String {
    let page = Page::default();
    let tap = Arc::new(Tap::new(Box::new(page.clone())));
    let mut assembler = Assembler::new(Role::Server, LIMIT, Some(show_frames(tap, 7)));
    for bytes in frames {
        assert!(assembler.take(&bytes).is_ok());
    }
    String::from_utf8(page.0.lock().expect("no panic").clone()).expect("text")
}

#[test]
fn the_wire_view_shows_a_line_for_each_frame() {
    let printed = printed([text("Hello"), text("x".repeat(50)), ping(b"")]);
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines[0].starts_with(&format!("#7 <- {}", chapter_of("frame"))), "{printed}");
    assert!(lines[0].ends_with("fin text, masked 37fa213d, 5 bytes: Hello"), "{printed}");
    let begin = format!("50 bytes: {}...", "x".repeat(40));
    assert!(lines[1].ends_with(&begin), "{printed}");
    assert!(lines[2].ends_with("fin ping, masked 37fa213d, 0 bytes"), "{printed}");
}

// All kinds of bytes.

#[test]
fn a_hundred_thousand_broken_sequences_keep_the_promises() {
    let good = [
        text("hello"),
        frame(true, Opcode::Binary, &[7; 200]),
        ping(b"p"),
        frame(true, Opcode::Close, b"\x03\xe8bye"),
        [first("a"), ping(b""), next("é".as_bytes()), last("b")].concat(),
        [first(&"é".as_bytes()[..1]), last(&"é".as_bytes()[1..])].concat(),
        text([b'z'; LIMIT]),
        text(b"\xff\xfe"),
        last("orphan"),
    ];
    let mut mutator = Mutator::new(6455);
    let (mut messages, mut errors) = (0, 0);
    for _ in 0..100_000 {
        let mut bytes = Vec::new();
        for _ in 0..1 + mutator.below(4) {
            bytes.extend_from_slice(&good[mutator.below(good.len())]);
        }
        let bytes = mutator.mutate(&bytes);
        let whole = feed([bytes.as_slice()]);
        let size = 1 + mutator.below(bytes.len());
        assert_eq!(whole, feed(bytes.chunks(size)), "in pieces of {size}: {bytes:02x?}");
        errors += usize::from(whole.1.is_some());
        for event in whole.0 {
            match event {
                Event::Message(message) => {
                    assert!(message.payload().len() <= LIMIT);
                    messages += 1;
                }
                Event::Ping(payload) => assert!(payload.len() <= 125),
                Event::Close(close) => assert!(close.encode().is_ok()),
                Event::Pong => {}
            }
        }
    }
    assert!(messages > 10_000 && errors > 10_000, "{messages} messages, {errors} errors");
}

// Exercises.

#[test]
#[ignore = "exercise 32.2"]
fn exercise_32_2_the_wire_view_shows_the_code_of_a_close_as_a_number() {
    let close = |payload: &[u8]| frame(true, Opcode::Close, payload);
    let printed =
        printed([close(b"\x03\xe8bye"), close(b"\x0f\xa0"), close(b""), ping(b"\x03\xe8")]);
    let ends = ["5 bytes: 1000 bye", "2 bytes: 4000", "0 bytes", "2 bytes: \\x03\\xe8"];
    for (line, end) in printed.lines().zip(ends) {
        assert!(line.ends_with(end), "{line}");
    }
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
