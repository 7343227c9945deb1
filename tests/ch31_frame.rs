//! Chapter 31: frames.

mod support;

use glasshouse::http::request::Parse;
use glasshouse::websocket::frame::{
    CONTROL, Close, CloseCode, FrameError, FrameHeader, Mask, Opcode, Role,
};
use support::mutator::Mutator;

type Outcome = Result<Parse<FrameHeader>, FrameError>;

/// Parses the header whole, then after each byte of it, and in both must come to the same end.
#[track_caller]
fn parse(bytes: &[u8], role: Role) -> Outcome {
    let whole = FrameHeader::parse(bytes, role);
    for end in 0..=bytes.len() {
        let part = FrameHeader::parse(&bytes[..end], role);
        match part {
            Ok(Parse::Partial) if end < bytes.len() => {}
            _ => {
                assert_eq!(whole, part, "after {end} bytes of {bytes:02x?}");
                break;
            }
        }
    }
    whole
}

/// A header and nothing behind it.
#[track_caller]
fn header(bytes: &[u8], role: Role) -> FrameHeader {
    match parse(bytes, role) {
        Ok(Parse::Complete { value, used }) if used == bytes.len() => value,
        other => panic!("{bytes:02x?}: {other:?}"),
    }
}

#[track_caller]
fn error(bytes: &[u8], role: Role) -> FrameError {
    match parse(bytes, role) {
        Err(error) => error,
        other => panic!("{bytes:02x?}: {other:?}"),
    }
}

fn encoded(header: FrameHeader) -> Vec<u8> {
    let mut out = Vec::new();
    header.encode(&mut out);
    out
}

fn unmasked(opcode: Opcode, length: u64) -> FrameHeader {
    FrameHeader { fin: true, opcode, key: None, length }
}

/// The key of the examples in RFC 6455, section 5.7.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

// The examples of RFC 6455, section 5.7.

#[test]
fn an_unmasked_text_is_the_example_of_the_rfc() {
    let header = header(b"\x81\x05", Role::Client);
    assert_eq!(header, unmasked(Opcode::Text, 5));
    assert_eq!(encoded(header), b"\x81\x05");
}

#[test]
fn a_masked_text_is_the_example_of_the_rfc() {
    let header = header(b"\x81\x85\x37\xfa\x21\x3d", Role::Server);
    assert_eq!(header, FrameHeader { key: Some(KEY), ..unmasked(Opcode::Text, 5) });
    assert_eq!(encoded(header), b"\x81\x85\x37\xfa\x21\x3d");
    let mut payload = *b"\x7f\x9f\x4d\x51\x58";
    Mask::new(KEY).apply(&mut payload);
    assert_eq!(payload, *b"Hello");
}

#[test]
fn a_fragmented_text_is_the_example_of_the_rfc() {
    let first = header(b"\x01\x03", Role::Client);
    assert_eq!(first, FrameHeader { fin: false, ..unmasked(Opcode::Text, 3) });
    let second = header(b"\x80\x02", Role::Client);
    assert_eq!(second, unmasked(Opcode::Continuation, 2));
}

#[test]
fn a_ping_and_its_masked_pong_are_the_examples_of_the_rfc() {
    assert_eq!(header(b"\x89\x05", Role::Client), unmasked(Opcode::Ping, 5));
    let pong = header(b"\x8a\x85\x37\xfa\x21\x3d", Role::Server);
    assert_eq!(pong, FrameHeader { key: Some(KEY), ..unmasked(Opcode::Pong, 5) });
}

#[test]
fn lengths_of_256_and_65536_are_the_examples_of_the_rfc() {
    let short = header(b"\x82\x7e\x01\x00", Role::Client);
    assert_eq!(short, unmasked(Opcode::Binary, 256));
    let long = header(b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", Role::Client);
    assert_eq!(long, unmasked(Opcode::Binary, 65536));
}

// Headers.

#[test]
fn every_header_is_read_as_it_was_written() {
    let lengths = [0, 1, 125, 126, 127, 128, 65535, 65536, 1 << 32, (1 << 63) - 1];
    for opcode in Opcode::ALL {
        for length in lengths {
            for (fin, masked) in [(true, true), (true, false), (false, true), (false, false)] {
                if opcode.is_control() && (!fin || length > CONTROL as u64) {
                    continue;
                }
                let key = masked.then_some(KEY);
                let role = if masked { Role::Server } else { Role::Client };
                let before = FrameHeader { fin, opcode, key, length };
                let bytes = encoded(before);
                assert!(bytes.len() <= FrameHeader::LONGEST);
                assert_eq!(header(&bytes, role), before);
            }
        }
    }
}

#[test]
fn what_stands_behind_the_header_is_not_looked_at() {
    let Ok(Parse::Complete { value, used }) = FrameHeader::parse(b"\x81\x05Hello", Role::Client)
    else {
        panic!("no header");
    };
    assert_eq!((value.length, used), (5, 2));
}

#[test]
fn a_header_can_be_read_by_a_human() {
    let header = header(b"\x81\x85\x37\xfa\x21\x3d", Role::Server);
    assert_eq!(header.to_string(), "fin text, masked 37fa213d, 5 bytes");
    let first = FrameHeader { fin: false, ..unmasked(Opcode::Binary, 3) };
    assert_eq!(first.to_string(), "binary, 3 bytes");
    assert_eq!(unmasked(Opcode::Continuation, 0).to_string(), "fin continuation, 0 bytes");
}

// The rules.

#[test]
fn a_reserved_bit_is_refused_on_the_first_byte() {
    for bits in 1..8 {
        for opcode in Opcode::ALL {
            let first = 0x80 | bits << 4 | opcode as u8;
            assert_eq!(error(&[first], Role::Server), FrameError::ReservedBits);
        }
    }
}

#[test]
fn a_reserved_opcode_is_refused_on_the_first_byte() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_eq!(error(&[0x80 | opcode], Role::Server), FrameError::ReservedOpcode(opcode));
    }
}

#[test]
fn a_fragmented_control_frame_is_refused_on_the_first_byte() {
    for opcode in [Opcode::Close, Opcode::Ping, Opcode::Pong] {
        assert_eq!(error(&[opcode as u8], Role::Server), FrameError::FragmentedControl);
    }
}

#[test]
fn the_server_refuses_a_frame_without_a_mask_and_the_client_one_with_it() {
    assert_eq!(error(b"\x81\x05", Role::Server), FrameError::NotMasked);
    assert_eq!(error(b"\x81\x85", Role::Client), FrameError::Masked);
}

#[test]
fn a_control_frame_of_126_bytes_is_refused_on_the_second_byte() {
    assert_eq!(header(b"\x89\xfd\x37\xfa\x21\x3d", Role::Server).length, 125);
    assert_eq!(error(b"\x89\xfe", Role::Server), FrameError::ControlTooLong);
    assert_eq!(error(b"\x88\xff", Role::Server), FrameError::ControlTooLong);
}

#[test]
fn a_length_in_more_bytes_than_it_needs_is_refused() {
    for length in [0, 5, 125_u16] {
        let bytes = [b"\x82\x7e", length.to_be_bytes().as_slice()].concat();
        assert_eq!(error(&bytes, Role::Client), FrameError::LengthNotMinimal);
    }
    for length in [0, 126, 65535_u64] {
        let bytes = [b"\x82\x7f", length.to_be_bytes().as_slice()].concat();
        assert_eq!(error(&bytes, Role::Client), FrameError::LengthNotMinimal);
    }
}

#[test]
fn a_length_with_its_first_bit_set_is_refused() {
    for length in [1 << 63, u64::MAX] {
        let bytes = [b"\x82\x7f", length.to_be_bytes().as_slice()].concat();
        assert_eq!(error(&bytes, Role::Client), FrameError::LengthOver63Bits);
    }
}

#[test]
fn every_error_names_its_rule_and_its_code() {
    let all = [
        FrameError::ReservedBits,
        FrameError::ReservedOpcode(3),
        FrameError::FragmentedControl,
        FrameError::ControlTooLong,
        FrameError::NotMasked,
        FrameError::Masked,
        FrameError::LengthNotMinimal,
        FrameError::LengthOver63Bits,
        FrameError::CloseTooShort,
        FrameError::InvalidCloseCode(CloseCode(1004)),
        FrameError::ReasonNotUtf8,
    ];
    for error in all {
        assert!(error.rule().starts_with("RFC 6455, section "), "{error:?}");
        let want = if error == FrameError::ReasonNotUtf8 { 1007 } else { 1002 };
        assert_eq!(error.close_code(), CloseCode(want), "{error:?}");
        assert!(Close { code: error.close_code(), reason: error.to_string() }.encode().is_ok());
    }
}

// The mask.

#[test]
fn a_mask_is_the_same_whole_or_in_pieces() {
    let plain: Vec<u8> = (0..=255).collect();
    let mut whole = plain.clone();
    Mask::new(KEY).apply(&mut whole);
    for (at, byte) in whole.iter().enumerate() {
        assert_eq!(*byte, plain[at] ^ KEY[at % 4], "octet {at}");
    }
    for size in 1..40 {
        let (mut pieces, mut mask) = (plain.clone(), Mask::new(KEY));
        pieces.chunks_mut(size).for_each(|piece| mask.apply(piece));
        assert_eq!(pieces, whole, "in pieces of {size}");
    }
    Mask::new(KEY).apply(&mut whole);
    assert_eq!(whole, plain, "masked twice");
}

// Closing.

#[test]
fn only_codes_with_a_meaning_may_be_sent() {
    let allowed = |code: u16| match code {
        1004..=1006 | 1015 => false,
        1000..=1014 => true,
        3000..=4999 => true,
        _ => false,
    };
    for code in 0..=u16::MAX {
        assert_eq!(CloseCode(code).may_be_sent(), allowed(code), "{code}");
        let parsed = Close::parse(&code.to_be_bytes());
        assert_eq!(parsed.is_ok(), allowed(code), "{code}");
    }
    let code = CloseCode(1005);
    assert_eq!(Close::parse(b"\x03\xed"), Err(FrameError::InvalidCloseCode(code)));
}

#[test]
fn a_close_is_read_as_it_was_written() {
    let close = Close { code: CloseCode(1000), reason: "Grüße".to_string() };
    let payload = close.encode().expect("a good code");
    assert_eq!(payload, b"\x03\xe8Gr\xc3\xbc\xc3\x9fe");
    assert_eq!(Close::parse(&payload), Ok(close));
    let none = Close { code: CloseCode::NO_CODE, reason: String::new() };
    assert_eq!(none.encode(), Ok(Vec::new()));
    assert_eq!(Close::parse(b""), Ok(none));
}

#[test]
fn half_a_code_is_refused() {
    assert_eq!(Close::parse(b"\x03"), Err(FrameError::CloseTooShort));
}

#[test]
fn a_reason_must_be_utf8() {
    for reason in [b"\xff".as_slice(), b"\xe2\x82", b"\xed\xa0\x80"] {
        let payload = [b"\x03\xe8", reason].concat();
        assert_eq!(Close::parse(&payload), Err(FrameError::ReasonNotUtf8));
    }
}

#[test]
fn a_long_reason_is_cut_between_two_characters() {
    let close = Close { code: CloseCode::NORMAL, reason: "€".repeat(42) };
    let payload = close.encode().expect("a good code");
    assert_eq!(payload.len(), 2 + 41 * 3, "41 whole characters of three bytes");
    assert!(payload.len() <= CONTROL);
    assert!(Close::parse(&payload).is_ok());
    let odd = Close { code: CloseCode::NORMAL, reason: format!("x{}", "€".repeat(42)) };
    let payload = odd.encode().expect("a good code");
    assert_eq!(payload.len(), 2 + 1 + 40 * 3, "the next one would not fit");
    let exact = Close { code: CloseCode::NORMAL, reason: "x".repeat(123) };
    assert_eq!(exact.encode().map(|payload| payload.len()), Ok(CONTROL));
}

#[test]
fn a_code_that_is_never_sent_is_not_sent() {
    let lost = Close { code: CloseCode::LOST, reason: String::new() };
    assert_eq!(lost.encode(), Err(FrameError::InvalidCloseCode(CloseCode::LOST)));
}

// All kinds of bytes.

#[test]
fn no_bytes_make_the_parser_panic_or_accept_what_it_would_not_send() {
    let mut mutator = Mutator::new(6455);
    let good = [
        b"\x81\x85\x37\xfa\x21\x3d".to_vec(),
        b"\x82\xfe\x01\x00\x37\xfa\x21\x3d".to_vec(),
        b"\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00\x37\xfa\x21\x3d".to_vec(),
        b"\x88\x82\x37\xfa\x21\x3d\x34\x12".to_vec(),
    ];
    for round in 0..100_000 {
        let bytes = mutator.mutate(&good[round % good.len()]);
        if let Ok(Parse::Complete { value, used }) = parse(&bytes, Role::Server) {
            assert_eq!(encoded(value), &bytes[..used], "there is one way to write a header");
        }
        let _ = Close::parse(&bytes);
    }
}

// Exercises.

#[test]
#[ignore = "exercise 31.2"]
fn exercise_31_2_a_reason_that_is_cut_ends_in_three_dots() {
    let reason_of = |reason: String| {
        let payload = Close { code: CloseCode::NORMAL, reason }.encode().expect("a good code");
        assert!(payload.len() <= CONTROL);
        Close::parse(&payload).expect("a good close").reason
    };
    assert_eq!(reason_of("x".repeat(123)), "x".repeat(123), "nothing is missing");
    assert_eq!(reason_of("x".repeat(124)), format!("{}...", "x".repeat(120)));
    assert_eq!(reason_of("€".repeat(42)), format!("{}...", "€".repeat(40)));
    assert_eq!(reason_of(format!("x{}", "€".repeat(41))), format!("x{}...", "€".repeat(39)));
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
