//! Chapter 9: the body.

mod support;

use glasshouse::http::body::{BodyError, BodyLimits, BodyReader, Framing};
use glasshouse::http::headers::FieldError;
use glasshouse::http::request::{HeadLimits, HeadParser, Parse, RequestHead};
use std::io::{self, BufRead, Read};
use support::bytes::eq_bytes;
use support::mutator::Mutator;
use support::wire_cases::wire_cases;

/// A source that gives its bytes in pieces: never a byte from both sides of a cut.
struct Pieces<'a> {
    left: &'a [u8],
    first: usize,
    then: usize,
}

impl<'a> Pieces<'a> {
    fn whole(bytes: &'a [u8]) -> Pieces<'a> {
        Pieces { left: bytes, first: usize::MAX, then: usize::MAX }
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let count = piece.len().min(out.len());
        out[..count].copy_from_slice(&piece[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Pieces<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.first == 0 {
            self.first = self.then;
        }
        Ok(&self.left[..self.first.min(self.left.len())])
    }

    fn consume(&mut self, count: usize) {
        self.left = &self.left[count..];
        self.first -= count;
    }
}

/// What became of a body.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    content: Vec<u8>,
    trailers: String,
    /// The number of bytes that were left for the next request, or the error.
    end: Result<usize, BodyError>,
}

fn read_all(framing: Framing, source: &mut Pieces, room: usize) -> Outcome {
    let mut content = Vec::new();
    let end = match BodyReader::new(framing, BodyLimits::default()) {
        Err(error) => Err(error),
        Ok(mut reader) => {
            let mut out = vec![0; room];
            loop {
                match reader.read(source, &mut out) {
                    Ok(0) => {
                        assert!(reader.is_finished());
                        assert_eq!(reader.received(), content.len() as u64);
                        let trailers = format!("{:?}", reader.trailers());
                        return Outcome { content, trailers, end: Ok(source.left.len()) };
                    }
                    Ok(count) => content.extend_from_slice(&out[..count]),
                    Err(error) => {
                        assert!(!reader.is_finished());
                        let again = reader.read(source, &mut out);
                        assert_eq!(again, Err(error.clone()), "an error stays");
                        break Err(error);
                    }
                }
            }
        }
    };
    Outcome { content, trailers: String::new(), end }
}

/// Reads the body whole, byte by byte, and in two pieces cut at every offset.
#[track_caller]
fn read_every_way(name: &str, framing: Framing, bytes: &[u8]) -> Outcome {
    let whole = read_all(framing, &mut Pieces::whole(bytes), 1024);
    let mut single = Pieces { left: bytes, first: 1, then: 1 };
    assert_eq!(whole, read_all(framing, &mut single, 1024), "{name}: byte by byte");
    let narrow = read_all(framing, &mut Pieces::whole(bytes), 1);
    assert_eq!(whole, narrow, "{name}: read byte by byte");
    for cut in 1..bytes.len() {
        let mut pieces = Pieces { left: bytes, first: cut, then: usize::MAX };
        assert_eq!(whole, read_all(framing, &mut pieces, 7), "{name}: cut at {cut}");
    }
    whole
}

fn parse_head(bytes: &[u8]) -> Option<(RequestHead, usize)> {
    match HeadParser::new(HeadLimits::default()).advance(bytes) {
        Ok(Parse::Complete { value, used }) => Some((value, used)),
        _ => None,
    }
}

/// The framing of a POST with those header lines.
#[track_caller]
fn framing(fields: &str) -> Result<Framing, BodyError> {
    let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let (head, _) = parse_head(text.as_bytes()).expect("a valid head");
    Framing::of(&head)
}

fn chunked(body: &str) -> Outcome {
    read_every_way(body, Framing::Chunked, body.as_bytes())
}

#[test]
fn the_head_says_how_the_body_ends() {
    assert_eq!(framing(""), Ok(Framing::None));
    assert_eq!(framing("Content-Length: 0\r\n"), Ok(Framing::Length(0)));
    assert_eq!(framing("content-LENGTH: \t 010 \r\n"), Ok(Framing::Length(10)));
    assert_eq!(framing("Transfer-Encoding: chunked\r\n"), Ok(Framing::Chunked));
    assert_eq!(framing("transfer-encoding:CHUNKED\r\n"), Ok(Framing::Chunked));
    let most = format!("Content-Length: {}\r\n", u64::MAX);
    assert_eq!(framing(&most), Ok(Framing::Length(u64::MAX)));
}

#[test]
fn a_field_of_a_similar_name_says_nothing() {
    let fields =
        "Content_Length: 5\r\nX-Transfer-Encoding: chunked\r\nTransfer_Encoding: chunked\r\n";
    assert_eq!(framing(fields), Ok(Framing::None));
}

#[test]
fn a_length_beside_chunked_is_refused() {
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: x\r\nContent-Length: y\r\n",
    ] {
        assert_eq!(framing(fields), Err(BodyError::BothFramings));
    }
}

#[test]
fn a_second_content_length_is_refused() {
    let fields = "Content-Length: 5\r\nContent-Length: 5\r\n";
    assert_eq!(framing(fields), Err(BodyError::ManyContentLengths));
    assert_eq!(framing("Content-Length: 5, 5\r\n"), Err(BodyError::InvalidContentLength));
}

#[test]
fn a_length_over_the_limit_is_refused_before_it_is_sent() {
    let limits = BodyLimits { body: 5, ..BodyLimits::default() };
    assert!(BodyReader::new(Framing::Length(5), limits.clone()).is_ok());
    let refused = BodyReader::new(Framing::Length(6), limits);
    assert_eq!(refused.err(), Some(BodyError::TooLarge));
    let by_default = |length| BodyReader::new(Framing::Length(length), BodyLimits::default());
    assert!(by_default(16 << 20).is_ok());
    assert_eq!(by_default((16 << 20) + 1).err(), Some(BodyError::TooLarge));
    assert_eq!(
        framing(&format!("Content-Length: {}\r\n", "9".repeat(400))),
        Err(BodyError::TooLarge)
    );
}

#[test]
fn a_body_of_a_length_ends_there() {
    let outcome = read_every_way("length", Framing::Length(5), b"helloGET /");
    eq_bytes(b"hello", &outcome.content);
    assert_eq!(outcome.end, Ok(5));
    let none = read_every_way("none", Framing::None, b"GET /");
    assert_eq!(none.end, Ok(5));
}

#[test]
fn a_chunked_body_ends_after_its_trailers() {
    let outcome = chunked("5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nX-T: v\r\n\r\nGET /");
    eq_bytes(b"hello!", &outcome.content);
    assert_eq!(outcome.trailers, r#"[("X-T", "v")]"#);
    assert_eq!(outcome.end, Ok(5));
}

#[test]
fn a_trailer_is_kept_apart_from_the_head() {
    let outcome = chunked("0\r\nHost: b\r\nTransfer-Encoding: gzip\r\n\r\n");
    assert_eq!(outcome.trailers, r#"[("Host", "b"), ("Transfer-Encoding", "gzip")]"#);
    assert_eq!(outcome.end, Ok(0));
}

#[test]
fn every_valid_case_is_read_in_every_way_and_a_cut_one_never_ends() {
    for (name, case) in wire_cases("tests/wire/valid") {
        let (head, used) = parse_head(&case.bytes).expect("a valid head");
        let framing = Framing::of(&head).unwrap_or_else(|error| panic!("{name}: {error}"));
        let body = &case.bytes[used..];
        let whole = read_every_way(&name, framing, body);
        assert_eq!(whole.end, Ok(0), "{name}");
        for cut in 0..body.len() {
            let shorter = read_all(framing, &mut Pieces::whole(&body[..cut]), 1024);
            assert_eq!(shorter.end, Err(BodyError::CutShort), "{name}: cut at {cut}");
            assert!(whole.content.starts_with(&shorter.content), "{name}: cut at {cut}");
        }
    }
}

#[test]
fn every_invalid_body_is_refused_for_its_reason_in_every_way() {
    let mut refused = 0;
    for (name, case) in wire_cases("tests/wire/invalid") {
        // What is no head was the matter of chapter 7.
        let Some((head, used)) = parse_head(&case.bytes) else {
            continue;
        };
        let error = match Framing::of(&head) {
            Err(error) => error,
            Ok(framing) => match read_every_way(&name, framing, &case.bytes[used..]).end {
                Err(error) => error,
                Ok(left) => panic!("{name}: read with {left} bytes left"),
            },
        };
        let (_, expect) = case.expect.split_once(' ').unwrap_or_default();
        assert_eq!(format!("{error:?}"), expect, "{name}");
        refused += 1;
    }
    assert!(refused >= 40, "only {refused} invalid bodies");
}

/// One of each kind of error. A new one must be added here and below.
fn every_error() -> Vec<BodyError> {
    use BodyError::*;
    let field_errors = [
        FieldError::EmptyName,
        FieldError::NameByte,
        FieldError::SpaceBeforeColon,
        FieldError::MissingColon,
        FieldError::FoldedLine,
    ];
    let mut errors: Vec<BodyError> = field_errors.into_iter().map(Trailer).collect();
    errors.extend([
        BothFramings,
        ChunkedInHttp10,
        UnknownCoding,
        ChunkedNotAlone,
        ManyContentLengths,
        InvalidContentLength,
        TooLarge,
        InvalidChunkSize,
        ChunkSizeTooLong,
        InvalidExtension,
        ChunkLineTooLong,
        ExtensionsTooLong,
        ChunkWithoutEnd,
        ChunkedBareLineFeed,
        ChunkedBareReturn,
        ChunkedControlByte,
        TrailersTooLong,
        CutShort,
        Source(io::ErrorKind::TimedOut),
    ]);
    errors
}

/// The test of an error that no file in `tests/wire/invalid` shows.
fn named_test(error: &BodyError) -> Option<&'static str> {
    use BodyError::*;
    match error {
        ExtensionsTooLong => Some("extensions_are_bounded_over_the_whole_body"),
        TrailersTooLong => Some("trailers_are_bounded"),
        CutShort => Some("every_valid_case_is_read_in_every_way_and_a_cut_one_never_ends"),
        Source(_) => Some("a_source_that_fails_fails_the_body"),
        BothFramings | ChunkedInHttp10 | UnknownCoding | ChunkedNotAlone => None,
        ManyContentLengths | InvalidContentLength | TooLarge | InvalidChunkSize => None,
        ChunkSizeTooLong | InvalidExtension | ChunkLineTooLong | ChunkWithoutEnd => None,
        ChunkedBareLineFeed | ChunkedBareReturn | ChunkedControlByte | Trailer(_) => None,
    }
}

#[test]
fn every_error_has_a_case_or_a_test() {
    let cases = wire_cases("tests/wire/invalid");
    for error in every_error() {
        let shown = match named_test(&error) {
            Some(test) => include_str!("ch09_body.rs").contains(&format!("fn {test}()")),
            None => cases.iter().any(|(_, case)| {
                let (_, name) = case.expect.split_once(' ').unwrap_or_default();
                name == format!("{error:?}")
            }),
        };
        assert!(shown, "{error:?} is never shown");
        assert!(error.rule().starts_with("RFC "), "{error:?}");
        let text = error.to_string();
        assert!(!text.is_empty() && !text.ends_with('.'), "{error:?}");
    }
}

#[test]
fn a_chunk_size_has_at_most_16_digits() {
    assert_eq!(chunked("0000000000000000\r\n\r\n").end, Ok(0));
    assert_eq!(chunked("00000000000000000\r\n\r\n").end, Err(BodyError::ChunkSizeTooLong));
}

#[test]
fn the_sum_of_the_chunks_is_bounded() {
    let limits = BodyLimits { body: 5, ..BodyLimits::default() };
    let mut out = [0; 9];
    let mut reader = BodyReader::new(Framing::Chunked, limits).expect("no length yet");
    let mut source = &b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"[..];
    assert_eq!(reader.read(&mut source, &mut out), Ok(3));
    assert_eq!(reader.read(&mut source, &mut out), Err(BodyError::TooLarge));
}

/// What becomes of a chunked body that is too long to be cut at every offset.
fn end_of(body: &str) -> Result<usize, BodyError> {
    read_all(Framing::Chunked, &mut Pieces::whole(body.as_bytes()), 99).end
}

/// A chunk of one byte whose extension has so many bytes.
fn extended(length: usize) -> String {
    format!("1;{}\r\nx\r\n", "a".repeat(length - 1))
}

#[test]
fn a_chunk_line_is_bounded() {
    let end = "0\r\n\r\n";
    assert_eq!(end_of(&(extended(255) + end)), Ok(0));
    assert_eq!(end_of(&(extended(256) + end)), Err(BodyError::ChunkLineTooLong));
}

#[test]
fn extensions_are_bounded_over_the_whole_body() {
    // Each line is within its own limit, and 64 extensions of 128 bytes are 8 KiB.
    let most = extended(128).repeat(64);
    assert_eq!(end_of(&format!("{most}0\r\n\r\n")), Ok(0));
    assert_eq!(end_of(&format!("{most}0;a\r\n\r\n")), Err(BodyError::ExtensionsTooLong));
}

#[test]
fn trailers_are_bounded() {
    let one = |length: usize| format!("0\r\nX: {}\r\n\r\n", "v".repeat(length - 3));
    assert_eq!(end_of(&one(8 * 1024)), Ok(0));
    assert_eq!(end_of(&one(8 * 1024 + 1)), Err(BodyError::TrailersTooLong));
    // Many lines count with their line ends: 1024 of 8 bytes are 8 KiB, and the end has no bytes.
    let many = |count| format!("0\r\n{}\r\n", "X: 4 5\r\n".repeat(count));
    assert_eq!(end_of(&many(1024)), Ok(0));
    assert_eq!(end_of(&many(1025)), Err(BodyError::TrailersTooLong));
}

#[test]
fn an_empty_buffer_reads_nothing() {
    let mut source = &b"hello"[..];
    let limits = BodyLimits::default();
    let mut reader = BodyReader::new(Framing::Length(5), limits).expect("a short body");
    assert_eq!((reader.read(&mut source, &mut []), source.len()), (Ok(0), 5));
    assert!(!reader.is_finished());
}

#[test]
fn only_a_length_says_how_much_is_still_to_come() {
    for (framing, body, want) in [
        (Framing::None, &b""[..], [Some(0), Some(0), Some(0)]),
        (Framing::Length(5), b"hello", [Some(5), Some(2), Some(0)]),
        (Framing::Chunked, b"5\r\nhello\r\n0\r\n\r\n", [None, None, Some(0)]),
    ] {
        let mut reader = BodyReader::new(framing, BodyLimits::default()).expect("a short body");
        let (mut source, mut out) = (body, [0; 3]);
        let before = reader.remaining();
        let _ = reader.read(&mut source, &mut out);
        let within = reader.remaining();
        while reader.read(&mut source, &mut out) != Ok(0) {}
        assert_eq!([before, within, reader.remaining()], want, "{framing:?}");
    }
}

/// A source that is interrupted at every second call and fails at its end.
struct Failing<'a> {
    left: &'a [u8],
    interrupt: bool,
}

impl Read for Failing<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut piece = self.fill_buf()?;
        let count = piece.read(out)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Failing<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.interrupt = !self.interrupt;
        match (self.interrupt, self.left) {
            (true, _) => Err(io::ErrorKind::Interrupted.into()),
            (false, []) => Err(io::ErrorKind::TimedOut.into()),
            (false, left) => Ok(left),
        }
    }

    fn consume(&mut self, count: usize) {
        self.left = &self.left[count..];
    }
}

#[test]
fn a_source_that_fails_fails_the_body() {
    let mut source = Failing { left: b"5\r\nhel", interrupt: false };
    let mut reader = BodyReader::new(Framing::Chunked, BodyLimits::default()).expect("chunked");
    let mut out = [0; 9];
    assert_eq!(reader.read(&mut source, &mut out), Ok(3));
    let failed = Err(BodyError::Source(io::ErrorKind::TimedOut));
    assert_eq!(reader.read(&mut source, &mut out), failed);
    source.left = b"lo\r\n0\r\n\r\n";
    assert_eq!(reader.read(&mut source, &mut out), failed, "it does not recover");
}

#[test]
fn an_error_becomes_an_io_error_of_its_kind() {
    let kind = |error: BodyError| io::Error::from(error).kind();
    assert_eq!(kind(BodyError::CutShort), io::ErrorKind::UnexpectedEof);
    assert_eq!(kind(BodyError::TooLarge), io::ErrorKind::InvalidData);
    assert_eq!(kind(BodyError::Source(io::ErrorKind::TimedOut)), io::ErrorKind::TimedOut);
}

#[test]
fn a_declared_size_costs_no_memory() {
    // 4 PiB are declared; what is kept is what arrived.
    let limits = BodyLimits { body: u64::MAX, ..BodyLimits::default() };
    let mut source = &b"10000000000000\r\nhello"[..];
    let mut reader = BodyReader::new(Framing::Chunked, limits).expect("chunked");
    let mut out = [0; 9];
    assert_eq!(reader.read(&mut source, &mut out), Ok(5));
    assert_eq!(reader.read(&mut source, &mut out), Err(BodyError::CutShort));
}

#[test]
fn a_hundred_thousand_broken_bodies_break_nothing() {
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    for (_, case) in wire_cases("tests/wire/valid") {
        let (head, used) = parse_head(&case.bytes).expect("a valid head");
        if Framing::of(&head) == Ok(Framing::Chunked) {
            bodies.push(case.bytes[used..].to_vec());
        }
    }
    let mut mutator = Mutator::new(9);
    for round in 0..100_000 {
        let mutant = mutator.mutate(&bodies[round % bodies.len()]);
        let whole = read_all(Framing::Chunked, &mut Pieces::whole(&mutant), 64);
        assert!(whole.content.len() <= mutant.len());
        if round % 20 == 0 {
            let mut single = Pieces { left: &mutant, first: 1, then: 1 };
            let again = read_all(Framing::Chunked, &mut single, 64);
            assert_eq!(whole, again, "{}", mutant.escape_ascii());
        }
    }
}

#[test]
#[ignore = "exercise 9.2"]
fn exercise_9_2_a_trailer_that_names_a_length_is_refused() {
    let outcome = chunked("0\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(outcome.end, Err(BodyError::Trailer(FieldError::NameByte)));
    assert_eq!(chunked("0\r\nContent-MD5: 5\r\n\r\n").end, Ok(0));
}

#[test]
#[ignore = "exercise 9.4"]
fn exercise_9_4_a_body_has_at_most_ten_trailers() {
    let body = |count| format!("0\r\n{}\r\n", "X: v\r\n".repeat(count));
    assert_eq!(chunked(&body(10)).end, Ok(0));
    assert_eq!(chunked(&body(11)).end, Err(BodyError::TrailersTooLong));
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
