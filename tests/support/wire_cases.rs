//! Reads the requests in `tests/wire`: text files that show every byte.
//!
//! Lines that begin with `# ` are words about the case, the last of them `# expect: ...`. In the
//! lines after them `\r \n \t \0 \\ \xHH` stand for a byte, a line end of the file for nothing, and
//! every other byte for itself.

use std::fs;
use std::path::Path;

/// One request and what must become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireCase {
    /// What stands after `# expect: `.
    pub expect: String,
    /// The bytes of the request.
    pub bytes: Vec<u8>,
}

/// Reads one file; its path begins at the project's folder. A mistake in the file is a panic.
pub fn wire_case(path: &str) -> WireCase {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let file = fs::read(&full).unwrap_or_else(|error| panic!("{path}: {error}"));
    parse(&file).unwrap_or_else(|fault| panic!("{path}: {fault}"))
}

/// All cases of a folder with their file names without `.http`, in the order of the names.
pub fn wire_cases(folder: &str) -> Vec<(String, WireCase)> {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(&full).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.unwrap_or_else(|error| panic!("{folder}: {error}"));
        let file_name = entry.file_name().to_string_lossy().into_owned();
        let name = file_name
            .strip_suffix(".http")
            .unwrap_or_else(|| panic!("{folder}/{file_name} does not end in .http"));
        names.push(name.to_string());
    }
    names.sort();
    let load = |name: String| {
        let case = wire_case(&format!("{folder}/{name}.http"));
        (name, case)
    };
    names.into_iter().map(load).collect()
}

fn parse(file: &[u8]) -> Result<WireCase, String> {
    let mut expect = None;
    let mut bytes = Vec::new();
    for line in file.split(|byte| *byte == b'\n') {
        if expect.is_none() {
            let words = line.strip_prefix(b"# ").ok_or("bytes before # expect:")?;
            expect = words.strip_prefix(b"expect: ").map(<[u8]>::to_vec);
        } else {
            unescape(line, &mut bytes)?;
        }
    }
    let expect = expect.ok_or("no # expect: line")?;
    let expect = String::from_utf8(expect).map_err(|error| error.to_string())?;
    Ok(WireCase { expect, bytes })
}

fn unescape(mut line: &[u8], bytes: &mut Vec<u8>) -> Result<(), String> {
    loop {
        let (byte, rest) = match line {
            [] => return Ok(()),
            [b'\\', b'r', rest @ ..] => (b'\r', rest),
            [b'\\', b'n', rest @ ..] => (b'\n', rest),
            [b'\\', b't', rest @ ..] => (b'\t', rest),
            [b'\\', b'0', rest @ ..] => (0, rest),
            [b'\\', b'\\', rest @ ..] => (b'\\', rest),
            [b'\\', b'x', high, low, rest @ ..] => {
                let digits = String::from_utf8_lossy(&[*high, *low]).into_owned();
                let byte = u8::from_str_radix(&digits, 16).map_err(|error| error.to_string())?;
                (byte, rest)
            }
            [b'\\', ..] => return Err(format!("unknown backslash: {}", line.escape_ascii())),
            [byte, rest @ ..] => (*byte, rest),
        };
        bytes.push(byte);
        line = rest;
    }
}
