//! The floor: the least a blocking server can do. A thread per connection, plain `read` and
//! `write_all`, and no parsing: it looks for the end of a head (CR LF CR LF) and sends an answer
//! that it was given when it started. Where a real server is slower than this, it pays for parsing,
//! deadlines and safety; where it is faster, it waits in a better way.
//!
//! It serves our own client only: method, target and fields are not read.

use crate::client::{BLOCK, BODY, Work};
use crate::process::{Process, myself, wait_for_end_of_input};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

/// Makes this program a floor: `--floor MODE ANSWER`.
pub const ARGUMENT: &str = "--floor";

/// Room for the heads on their way: at most 16 from our client, about 100 bytes each.
const HEADS: usize = 4096;

/// A folder in memory, where there is one: no disk shall be measured.
pub fn memory_folder() -> PathBuf {
    let shared = PathBuf::from("/dev/shm");
    if shared.is_dir() { shared } else { std::env::temp_dir() }
}

/// Starts a floor that sends `answer`, learned from the server: both move the same bytes.
pub fn start(work: Work, answer: &[u8]) -> Result<Process, String> {
    let mode = match work {
        Work::Get { .. } => "keep",
        Work::Connect => "close",
        Work::Form => "form",
        Work::Upload { .. } => "upload",
        Work::Multipart => "store",
        Work::Download => "download",
        Work::Echo { .. } => "echo",
    };
    let mut command = myself()?;
    // An echo is no answer that was learned.
    let answer = if mode == "echo" { &[] } else { answer };
    command.args([ARGUMENT, mode, &String::from_utf8_lossy(answer)]);
    command.env("TMPDIR", memory_folder());
    Process::start(command)
}

/// Serves until its standard input ends, which happens when the benchmark does.
pub fn run(arguments: &[String]) -> ExitCode {
    let [mode, answer] = arguments else {
        return ExitCode::FAILURE;
    };
    let serve = match mode.as_str() {
        "keep" => keep,
        "close" => close,
        "form" => form,
        "upload" => upload,
        "store" => store,
        "echo" => echo,
        _ => download,
    };
    thread::spawn(|| {
        wait_for_end_of_input();
        std::process::exit(0);
    });
    match accept(serve, &Arc::from(answer.as_bytes())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the floor stopped: {error}");
            ExitCode::FAILURE
        }
    }
}

type Serve = fn(TcpStream, &[u8]) -> io::Result<()>;

fn accept(serve: Serve, answer: &Arc<[u8]>) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    eprintln!("http://{}/", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let answer = Arc::clone(answer);
        // A broken connection is the client's business: it counts what it did not get.
        let thread = thread::Builder::new().stack_size(64 << 10);
        thread.spawn(move || drop(serve(stream, &answer)))?;
    }
}

/// Keep-alive: as many answers as the buffer holds whole heads, in one write.
fn keep(mut stream: TcpStream, answer: &[u8]) -> io::Result<()> {
    let answers = answer.repeat(HEADS / 64);
    let mut buffer = vec![0; HEADS];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let (heads, used) = count_heads(&buffer[..filled]);
        stream.write_all(&answers[..heads * answer.len()])?;
        buffer.copy_within(used..filled, 0);
        filled -= used;
    }
}

/// Small bodies on a connection that stays open: a head and its body come in one read.
fn form(mut stream: TcpStream, answer: &[u8]) -> io::Result<()> {
    let mut buffer = vec![0; HEADS];
    loop {
        read_head(&mut stream, &mut buffer)?;
        stream.write_all(answer)?;
    }
}

/// WebSocket messages of one frame each: the key is taken off, and the same bytes go back. All
/// answers that are ready leave in one write.
fn echo(mut stream: TcpStream, _: &[u8]) -> io::Result<()> {
    read_head(&mut stream, &mut vec![0; HEADS])?;
    stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")?;
    let mut buffer = vec![0; HEADS];
    let (mut filled, mut answers) = (0, Vec::new());
    loop {
        match stream.read(&mut buffer[filled..])? {
            0 => return Ok(()),
            read => filled += read,
        }
        let mut at = 0;
        while let Some((head, length)) = frame_head(&buffer[at..filled]) {
            if buffer.len() < head + length {
                buffer.resize(head + length, 0);
            }
            if filled - at < head + length {
                break;
            }
            // Without the key the head is four bytes shorter: it moves towards the payload.
            let key: [u8; 4] = std::array::from_fn(|byte| buffer[at + head - 4 + byte]);
            unmask(&mut buffer[at + head..at + head + length], key);
            buffer[at + 1] &= 0x7f;
            buffer.copy_within(at..at + head - 4, at + 4);
            let answer = &buffer[at + 4..at + head + length];
            if length > HEADS {
                stream.write_all(&answers)?;
                answers.clear();
                stream.write_all(answer)?;
            } else {
                answers.extend_from_slice(answer);
            }
            at += head + length;
        }
        stream.write_all(&answers)?;
        answers.clear();
        buffer.copy_within(at..filled, 0);
        filled -= at;
    }
}

/// Eight bytes at a time. RFC 6455, section 5.3.
fn unmask(payload: &mut [u8], key: [u8; 4]) {
    let key: [u8; 8] = std::array::from_fn(|at| key[at % 4]);
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        let value = u64::from_ne_bytes(word.try_into().expect("eight bytes"));
        word.copy_from_slice(&(value ^ u64::from_ne_bytes(key)).to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(key) {
        *byte ^= key;
    }
}

/// The length of a masked frame's head, and that of its payload.
fn frame_head(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes.get(1)? & 0x7f {
        126 => Some((8, u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?).into())),
        127 => Some((14, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize)),
        length => Some((6, length.into())),
    }
    .filter(|(head, _)| bytes.len() >= *head)
}

/// A connection per request.
fn close(mut stream: TcpStream, answer: &[u8]) -> io::Result<()> {
    read_head(&mut stream, &mut vec![0; HEADS])?;
    stream.write_all(answer)
}

/// Reads the declared number of body bytes, then answers.
fn upload(stream: TcpStream, answer: &[u8]) -> io::Result<()> {
    take_body(stream, answer, &mut io::sink())
}

/// The same, and all of them go to a file that has no name any more.
fn store(stream: TcpStream, answer: &[u8]) -> io::Result<()> {
    let path = std::env::temp_dir().join(format!("floor-{}", std::process::id()));
    let mut file = File::create(&path)?;
    fs::remove_file(&path)?;
    take_body(stream, answer, &mut file)
}

fn take_body(mut stream: TcpStream, answer: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let mut buffer = vec![0; BLOCK];
    let (_, filled) = read_head(&mut stream, &mut buffer)?;
    let text = String::from_utf8_lossy(&buffer[..filled]);
    // The first end, not the last: the head of a form's part ends in the same way.
    let head = text.find("\r\n\r\n").map_or(filled, |end| end + 4);
    let declared = text.split("Content-Length: ").nth(1).unwrap_or_default();
    let length: usize = declared.lines().next().unwrap_or_default().parse().unwrap_or(0);
    let mut left = length.saturating_sub(filled - head);
    out.write_all(&buffer[head..filled])?;
    while left > 0 {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out.write_all(&buffer[..read])?;
        left = left.saturating_sub(read);
    }
    stream.write_all(answer)
}

/// Sends the head it was given, then the body in large blocks.
fn download(mut stream: TcpStream, head: &[u8]) -> io::Result<()> {
    let mut block = vec![b'x'; BLOCK];
    read_head(&mut stream, &mut block)?;
    stream.write_all(head)?;
    for _ in 0..BODY / BLOCK {
        stream.write_all(&block)?;
    }
    Ok(())
}

/// Reads until a head is there: its length, and how many bytes have come in all.
fn read_head(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<(usize, usize)> {
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
        if let (1.., head) = count_heads(&buffer[..filled]) {
            return Ok((head, filled));
        }
    }
}

/// How many heads end in these bytes, and where the last one ends. It looks at the fourth byte of a
/// possible CR LF CR LF first: where that is a letter, no end is near and four bytes are skipped.
fn count_heads(bytes: &[u8]) -> (usize, usize) {
    let (mut heads, mut used, mut at) = (0, 0, 3);
    while at < bytes.len() {
        at += match bytes[at] {
            b'\n' if bytes[at - 3..at] == *b"\r\n\r" => {
                (heads, used) = (heads + 1, at + 1);
                4
            }
            b'\n' => 2,
            b'\r' => 1,
            _ => 4,
        };
    }
    (heads, used)
}
