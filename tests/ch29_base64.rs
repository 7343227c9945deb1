//! Chapter 29: Base64.

mod support;

use glasshouse::websocket::base64::{Base64Error, decode, encode};
use std::process::Command;
use support::bytes::eq_bytes;
use support::mutator::Mutator;

#[track_caller]
fn check(bytes: &[u8], text: &str) {
    assert_eq!(encode(bytes), text);
    eq_bytes(bytes, &decode(text.as_bytes()).expect(text));
}

#[track_caller]
fn refused(text: &str, error: Base64Error) {
    assert_eq!(decode(text.as_bytes()), Err(error), "{text:?}");
}

#[test]
fn the_examples_of_the_standard_are_written_and_read() {
    // RFC 4648, section 10
    check(b"", "");
    check(b"f", "Zg==");
    check(b"fo", "Zm8=");
    check(b"foo", "Zm9v");
    check(b"foob", "Zm9vYg==");
    check(b"fooba", "Zm9vYmE=");
    check(b"foobar", "Zm9vYmFy");
}

#[test]
fn every_number_has_its_character() {
    // 48 bytes with the numbers 0 to 63 in their sixes.
    let mut bytes = Vec::new();
    for n in (0..64u32).step_by(4) {
        let bits = n << 18 | (n + 1) << 12 | (n + 2) << 6 | (n + 3);
        bytes.extend_from_slice(&bits.to_be_bytes()[1..]);
    }
    check(&bytes, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
    check(&[0xff; 3], "////");
    check(&[0xfb, 0xef, 0xbe], "++++");
}

/// Bytes in which every value occurs.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 256) as u8).collect()
}

#[test]
fn bytes_of_every_length_come_back() {
    for length in 0..=600 {
        let bytes = bytes(length);
        let text = encode(&bytes);
        assert_eq!(text.len(), length.div_ceil(3) * 4);
        eq_bytes(&bytes, &decode(text.as_bytes()).expect("our own text"));
    }
}

#[test]
fn every_one_and_every_two_bytes_come_back() {
    for first in 0..=255u8 {
        eq_bytes(&[first], &decode(encode(&[first]).as_bytes()).expect("one byte"));
        for second in 0..=255u8 {
            let two = [first, second];
            eq_bytes(&two, &decode(encode(&two).as_bytes()).expect("two bytes"));
        }
    }
}

#[test]
fn a_length_that_is_no_multiple_of_four_is_refused() {
    for text in ["Z", "Zg", "Zg=", "Zm9", "Zm9vY", "Zm9vYg", "Zm9vYg=", "Zm9vYmE", "Zm9vYmFyZ"] {
        refused(text, Base64Error::Length);
    }
}

#[test]
fn padding_stands_at_the_end_only() {
    for text in ["=", "==", "====", "Z===", "=Zm9", "Zm=v", "Z=m=", "Zg==Zg==", "Zm9v====", "Zg==="]
    {
        let error = decode(text.as_bytes()).expect_err(text);
        assert!(matches!(error, Base64Error::Padding | Base64Error::Length), "{text}: {error}");
    }
    refused("Z===", Base64Error::Padding);
    refused("Zm=v", Base64Error::Padding);
    refused("Zg==Zg==", Base64Error::Padding);
}

#[test]
fn every_foreign_byte_is_refused_at_every_place() {
    let good = b"Zm9vYmFyZm9v";
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for at in 0..good.len() {
        for byte in 0..=255u8 {
            let mut text = good.to_vec();
            text[at] = byte;
            let want = match byte {
                b'=' if at == good.len() - 1 => continue, // the unused bits decide
                b'=' => Some(Base64Error::Padding),
                b'\r' | b'\n' => Some(Base64Error::LineEnd),
                _ if alphabet.contains(&byte) => None,
                _ => Some(Base64Error::ForeignCharacter),
            };
            assert_eq!(decode(&text).err(), want, "{}", text.escape_ascii());
        }
    }
}

#[test]
fn a_line_end_is_refused() {
    refused("Zm9v\nYmFy", Base64Error::LineEnd);
    refused("Zm9vYmFy\r\n", Base64Error::LineEnd);
    refused("Zm9v YmFy", Base64Error::ForeignCharacter);
}

#[test]
fn the_alphabet_for_addresses_is_another_one() {
    // RFC 4648, section 5: `-` and `_` for `+` and `/`.
    refused("-_-_", Base64Error::ForeignCharacter);
}

#[test]
fn bits_that_belong_to_no_byte_are_zero() {
    check(b"f", "Zg==");
    for text in ["Zh==", "Zi==", "Zo==", "Zv==", "Z/=="] {
        refused(text, Base64Error::UnusedBits);
    }
    check(b"fo", "Zm8=");
    for text in ["Zm9=", "Zm+=", "Zm/="] {
        refused(text, Base64Error::UnusedBits);
    }
}

#[test]
fn no_two_texts_of_four_characters_mean_the_same() {
    let characters = b"AQgw/9=";
    let mut read = std::collections::BTreeSet::new();
    for number in 0..7usize.pow(4) {
        let text: Vec<u8> = (0..4).map(|at| characters[number / 7usize.pow(at) % 7]).collect();
        if let Ok(bytes) = decode(&text) {
            eq_bytes(&text, encode(&bytes).as_bytes());
            assert!(read.insert(bytes), "{}", text.escape_ascii());
        }
    }
    // Four of the six, A, Q, g and w, end in zeros and may be last before a padding.
    assert_eq!(read.len(), 6 * 6 * 6 * 6 + 6 * 6 * 4 + 6 * 4);
}

#[test]
fn every_error_names_its_rule_in_a_sentence() {
    use Base64Error::*;
    for error in [Length, Padding, ForeignCharacter, LineEnd, UnusedBits] {
        assert!(error.rule().starts_with("RFC 4648, section 3."), "{error:?}");
        assert!(error.to_string().contains(' '), "{error:?}");
    }
}

#[test]
fn python_writes_the_same_texts() {
    let script = "import base64\n\
                  for n in range(300):\n \
                  message = bytes((at * 7 + at // 256) % 256 for at in range(n))\n \
                  print(base64.b64encode(message).decode())";
    let Ok(output) = Command::new("python3").args(["-c", script]).output() else {
        println!("skipped: there is no python3 to compare with");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let written: String = (0..300).map(|length| encode(&bytes(length)) + "\n").collect();
    assert_eq!(String::from_utf8_lossy(&output.stdout).replace('\r', ""), written);
}

#[test]
fn a_hundred_thousand_broken_texts_break_nothing() {
    let good = encode(&bytes(40));
    let mut mutator = Mutator::new(26);
    let mut read = 0;
    for _ in 0..100_000 {
        let text = mutator.mutate(good.as_bytes());
        if let Ok(bytes) = decode(&text) {
            eq_bytes(&text, encode(&bytes).as_bytes());
            read += 1;
        }
    }
    assert!(read > 1_000, "only {read} were read");
}

#[test]
#[ignore = "exercise 29.2"]
fn exercise_29_2_a_decoded_text_takes_no_byte_too_many() {
    for length in 0..100 {
        let bytes = decode(encode(&bytes(length)).as_bytes()).expect("our own text");
        assert_eq!(bytes.capacity(), bytes.len());
    }
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
