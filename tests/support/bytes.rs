//! Comparing bytes so that a difference can be seen.

/// Fails unless both are equal; prints both in full, escaped, one above the other.
#[track_caller]
pub fn eq_bytes(want: &[u8], got: &[u8]) {
    if want != got {
        panic!("\nwant: {}\ngot:  {}\n", want.escape_ascii(), got.escape_ascii());
    }
}
