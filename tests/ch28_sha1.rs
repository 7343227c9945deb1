//! Chapter 28: SHA-1.

mod support;

use glasshouse::websocket::sha1::{Sha1, hex};
use std::io::Write;
use std::process::{Command, Stdio};
use support::mutator::Mutator;

#[track_caller]
fn check(message: &[u8], digest: &str) {
    assert_eq!(hex(&Sha1::of(message)), digest, "{} bytes", message.len());
}

#[test]
fn the_four_messages_of_the_standard_have_their_digests() {
    // RFC 3174, section 7.3
    check(b"abc", "a9993e364706816aba3e25717850c26c9cd0d89d");
    check(
        b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "84983e441c3bd26ebaae4aa1f95129e5e54670f1",
    );
    check(&[b'a'; 1_000_000], "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
    let ten_times = b"0123456701234567012345670123456701234567012345670123456701234567".repeat(10);
    check(&ten_times, "dea356a2cddd90c7a7ecedc5ebb563934f460452");
}

#[test]
fn nothing_has_a_digest_too() {
    check(b"", "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    assert_eq!(Sha1::default().finish(), Sha1::new().finish());
}

/// Computed by Python's hashlib. At 55 bytes the padding still fits into the block, at 56 not.
const AROUND_A_BLOCK: &[(usize, &str)] = &[
    (54, "b05d71c64979cb95fa74a33cdb31a40d258ae02e"),
    (55, "c1c8bbdc22796e28c0e15163d20899b65621d65a"),
    (56, "c2db330f6083854c99d4b5bfb6e8f29f201be699"),
    (57, "f08f24908d682555111be7ff6f004e78283d989a"),
    (63, "03f09f5b158a7a8cdad920bddc29b81c18a551f5"),
    (64, "0098ba824b5c16427bd7a1122a5a442a25ec644d"),
    (65, "11655326c708d70319be2610e8a57d9a5b959d3b"),
    (119, "ee971065aaa017e0632a8ca6c77bb3bf8b1dfc56"),
    (120, "f34c1488385346a55709ba056ddd08280dd4c6d6"),
];

#[test]
fn the_padding_fits_into_one_block_or_needs_another() {
    for (length, digest) in AROUND_A_BLOCK {
        check(&vec![b'a'; *length], digest);
    }
}

/// A message in which no two neighbours are alike.
fn message(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn it_makes_no_difference_where_a_message_is_cut() {
    for length in 0..=300 {
        let message = message(length);
        let whole = Sha1::of(&message);
        for cut in 0..=length {
            let (left, right) = message.split_at(cut);
            let mut sha1 = Sha1::new();
            sha1.update(left);
            sha1.update(right);
            assert_eq!(sha1.finish(), whole, "{length} bytes, cut at {cut}");
        }
    }
}

#[test]
fn pieces_of_every_size_give_the_same_digest() {
    let message = message(1_000);
    let whole = Sha1::of(&message);
    for size in 1..=130 {
        let mut sha1 = Sha1::new();
        for piece in message.chunks(size) {
            sha1.update(piece);
            sha1.update(b"");
        }
        assert_eq!(sha1.finish(), whole, "pieces of {size} bytes");
    }
}

#[test]
fn one_bit_more_or_less_changes_about_half_of_the_digest() {
    let message = message(200);
    let before = Sha1::of(&message);
    let mut changed = 0;
    for bit in 0..1_600 {
        let mut other = message.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        let after = Sha1::of(&other);
        let bits: u32 = before.iter().zip(after).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert!((40..=120).contains(&bits), "bit {bit} changed {bits} of 160");
        changed += bits;
    }
    let average = f64::from(changed) / 1_600.0;
    assert!((79.0..=81.0).contains(&average), "{average}");
}

#[test]
fn a_copy_goes_its_own_way() {
    let mut first = Sha1::new();
    first.update(b"ab");
    let mut second = first.clone();
    first.update(b"c");
    second.update(b"d");
    assert_eq!(first.finish(), Sha1::of(b"abc"));
    assert_eq!(second.finish(), Sha1::of(b"abd"));
}

#[test]
fn bytes_are_written_as_two_digits_each() {
    assert_eq!(hex(b""), "");
    assert_eq!(hex(&[0, 1, 0x0f, 0x10, 0x7f, 0x80, 0xff]), "00010f107f80ff");
}

#[test]
fn random_messages_have_the_digests_that_python_computes() {
    let script = "import sys, hashlib\n\
                  for line in sys.stdin: print(hashlib.sha1(bytes.fromhex(line)).hexdigest())";
    let python = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut python) = python else {
        println!("skipped: there is no python3 to compare with");
        return;
    };
    let mut random = Mutator::new(25);
    let (mut lines, mut own) = (String::new(), String::new());
    for _ in 0..500 {
        let message: Vec<u8> = (0..random.below(400)).map(|_| random.below(256) as u8).collect();
        lines += &format!("{}\n", hex(&message));
        own += &format!("{}\n", hex(&Sha1::of(&message)));
    }
    let mut input = python.stdin.take().expect("a pipe");
    // Python answers while it reads, so a second thread writes.
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = python.wait_with_output().expect("python3 ends");
    writer.join().expect("the writer ends").expect("python3 reads");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout).replace('\r', ""), own);
}

/// `cargo test --release --test ch28_sha1 slow_ -- --ignored --nocapture`
#[test]
#[ignore = "slow: measures"]
fn slow_two_hundred_megabytes_are_quick() {
    let block = message(256 * 1024);
    let began = std::time::Instant::now();
    let mut sha1 = Sha1::new();
    for _ in 0..800 {
        sha1.update(&block);
    }
    let digest = hex(&sha1.finish());
    let seconds = began.elapsed().as_secs_f64();
    let megabytes = 800.0 * block.len() as f64 / 1e6;
    println!("{:.0} MB/s, {digest}", megabytes / seconds);
    assert!(seconds < 60.0, "{seconds} s");
}

#[test]
#[ignore = "exercise 28.2"]
fn exercise_28_2_the_message_is_not_shown_in_a_log() {
    let mut sha1 = Sha1::new();
    sha1.update(&[123; 60]);
    let shown = format!("{sha1:?}");
    assert!(!shown.contains("123"), "{shown}");
    assert!(shown.contains("60"), "{shown}");
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
