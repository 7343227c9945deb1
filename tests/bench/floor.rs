//! The floor: the least a blocking server can do. A thread per connection, plain `read` and
//! `write_all`, and no parsing: it looks for the end of a head (CR LF CR LF) and sends an answer
//! that it was given when it started. Where a real server is slower than this, it pays for parsing,
//! deadlines and safety; where it is faster, it waits in a better way.
//!
//! It serves our own client only: method, target and fields are not read.

use crate::client::{BLOCK, BODY, Work};
use crate::process::{Process, myself, wait_for_end_of_input};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

/// Makes this program a floor: `--floor MODE ANSWER`.
pub const ARGUMENT: &str = "--floor";

/// Room for the heads on their way: at most 16 from our client, about 100 bytes each.
const HEADS: usize = 4096;

/// Starts a floor that sends `answer`, learned from the server: both move the same bytes.
pub fn start(work: Work, answer: &[u8]) -> Result<Process, String> {
    let mode = match work {
        Work::Get { .. } => "keep",
        Work::Connect => "close",
        Work::Upload => "upload",
        Work::Download => "download",
    };
    let mut command = myself()?;
    command.args([ARGUMENT, mode, &String::from_utf8_lossy(answer)]);
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
        "upload" => upload,
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

/// A connection per request.
fn close(mut stream: TcpStream, answer: &[u8]) -> io::Result<()> {
    read_head(&mut stream, &mut vec![0; HEADS])?;
    stream.write_all(answer)
}

/// Reads the declared number of body bytes, then answers.
fn upload(mut stream: TcpStream, answer: &[u8]) -> io::Result<()> {
    let mut buffer = vec![0; BLOCK];
    let (head, filled) = read_head(&mut stream, &mut buffer)?;
    let text = String::from_utf8_lossy(&buffer[..head]);
    let declared = text.split("Content-Length: ").nth(1).unwrap_or_default();
    let length: usize = declared.lines().next().unwrap_or_default().parse().unwrap_or(0);
    let mut left = length.saturating_sub(filled - head);
    while left > 0 {
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => left = left.saturating_sub(read),
        }
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
