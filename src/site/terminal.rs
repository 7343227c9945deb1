//! A WebSocket in a terminal: each line that is typed is a message, each message that comes is a
//! line. RFC 6455, section 4.1, from the client's side.
//!
//! ```text
//!   standard input  ──► a thread ──► Sender ──► the server
//!   standard output ◄── this thread ◄── WebSocket ◄──┘
//! ```
//!
//! After our close nothing is delivered any more. So the end of the input is not yet the close: the
//! answers to the last lines are on their way. Nobody tells us which message is the last answer, and
//! what counts as one. We wait until it is quiet.

use std::io::{self, BufRead, BufReader, ErrorKind, IsTerminal, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::running::command_line::{Config, WebSocketUrl, say};
use crate::socket::wire::{Direction, Tap};
use crate::websocket::conversation::{Closed, Opening, Sender, WebSocket};
use crate::websocket::frame::{CloseCode, Role};
use crate::websocket::handshake::{AnswerError, check_answer, client_request, new_key};
use crate::websocket::message::{Message, show_frames};
use crate::websocket::sha1::hex;

/// How long we wait for a connection, and for the answer to the handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest head of an answer, in bytes.
const HEAD: usize = 16 * 1024;
/// How much is shown of a refusal, in bytes.
const REFUSAL: u64 = 1024;

/// Opens the WebSocket, and talks until the input ends or the other side does. The exit code is 0
/// if both sides have said goodbye.
pub fn talk(url: WebSocketUrl, config: Config) -> ExitCode {
    let talked = open(&url, &config).and_then(|socket| {
        if io::stdin().is_terminal() {
            say(&mut io::stderr(), "Each line is a message. Ctrl-D ends.\n", 0);
        }
        converse(socket, BufReader::new(io::stdin()), &mut io::stdout())
    });
    match talked {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            let address = format!("ws://{}{}", url.authority, url.target);
            say(&mut io::stderr(), &format!("{address}: {}\n", shown(problem.trim_end())), 1)
        }
    }
}

/// Opens the WebSocket.
///
/// # Errors
/// Words for whoever has typed the address.
pub fn open(url: &WebSocketUrl, config: &Config) -> Result<WebSocket, String> {
    let mut stream = connect(url).map_err(|error| {
        format!("there is no connection: {error}\nIs the server running, and is the port right?")
    })?;
    let tap = config.settings.wire_view.then(|| Arc::new(Tap::new(Box::new(io::stderr()))));
    let show = |direction, bytes: &[u8]| {
        if let Some(tap) = &tap {
            tap.show(1, direction, "handshake", bytes);
        }
    };
    let key = new_key();
    let request = client_request(&url.authority, &url.target, &key, &[])
        .map_err(|error| format!("this address fits into no request: {error}"))?;
    stream.write_all(&request).map_err(|error| format!("the handshake was not sent: {error}"))?;
    show(Direction::Out, &request);
    let (head, early) = read_head(&mut stream)?;
    show(Direction::In, &head);
    match check_answer(&head, &key, &[]) {
        Ok(_) => {}
        Err(error @ AnswerError::NotSwitched(_)) => {
            return Err(format!("{error}\n\n{}", rest(&stream, early)));
        }
        Err(error) => return Err(error.to_string()),
    }
    let mut opening = Opening::new(Arc::new(stream), Role::Client);
    opening.early = early;
    opening.settings.message = config.ws_max_message;
    opening.observer = tap.map(|tap| show_frames(tap, 1));
    WebSocket::open(opening).map_err(|error| error.to_string())
}

/// A name can have several addresses. The first one that answers will do.
fn connect(url: &WebSocketUrl) -> io::Result<TcpStream> {
    let mut problem = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in (url.host.as_str(), url.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

/// The head of the answer with its empty line, and what came behind it.
fn read_head(stream: &mut TcpStream) -> Result<(Vec<u8>, Vec<u8>), String> {
    let (mut head, mut block, began) = (Vec::new(), [0; 1024], Instant::now());
    loop {
        if let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let early = head.split_off(end + 4);
            return Ok((head, early));
        }
        if head.len() > HEAD {
            return Err(format!("the head of the answer is longer than {HEAD} bytes"));
        }
        // The whole head has one deadline. Sending slowly does not move it.
        let left = PATIENCE.saturating_sub(began.elapsed()).max(Duration::from_millis(1));
        match stream.set_read_timeout(Some(left)).and_then(|()| stream.read(&mut block)) {
            Ok(0) => return Err("the server hung up before it had answered".to_string()),
            Ok(count) => head.extend_from_slice(block.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(format!("no answer within {} s", PATIENCE.as_secs()));
            }
            Err(error) => return Err(format!("the connection broke: {error}")),
        }
    }
}

/// What a server says when it refuses, or the beginning of it.
fn rest(stream: &TcpStream, mut text: Vec<u8>) -> String {
    // It need not wait for another request.
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let _ = stream.take(REFUSAL).read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// What has become of the input.
#[derive(Default)]
struct Input {
    lines: AtomicU64,
    has_ended: AtomicBool,
}

/// How often we look whether the input has ended.
const GLANCE: Duration = Duration::from_millis(50);
/// So long it must be quiet after the end of the input, when there were as many messages as lines.
const QUIET: Duration = Duration::from_millis(300);
/// And so long when there were fewer.
const STILL_WAITING: Duration = Duration::from_secs(2);
/// Some servers are never quiet.
const LONGEST: Duration = Duration::from_secs(10);

/// Sends each line of `lines`, and prints each message, until the lines have ended and it is quiet,
/// or the other side closes.
///
/// # Errors
/// How it ended, if that was no good end.
pub fn converse(
    mut socket: WebSocket,
    lines: impl BufRead + Send + 'static,
    out: &mut impl Write,
) -> Result<(), String> {
    let input = Arc::new(Input::default());
    let (sender, own) = (socket.sender(), Arc::clone(&input));
    // It is not waited for: it may sit in a read that never returns.
    let typist = thread::Builder::new().spawn(move || send_lines(lines, &sender, &own));
    typist.map_err(|error| format!("no thread for the input: {error}"))?;
    let (mut heard, mut last, mut ended) = (0, Instant::now(), None);
    loop {
        match socket.poll(GLANCE) {
            Ok(Some(message)) => {
                (heard, last) = (heard + 1, Instant::now());
                if writeln!(out, "{}", line(&message)).and_then(|()| out.flush()).is_err() {
                    // Nobody reads any more: `... | head -1`.
                    return goodbye(socket.close(CloseCode::GOING_AWAY, ""), true);
                }
            }
            Ok(None) => {}
            Err(closed) => return goodbye(closed, false),
        }
        if !input.has_ended.load(Ordering::Acquire) {
            continue;
        }
        let ended = *ended.get_or_insert_with(Instant::now);
        let all = heard >= input.lines.load(Ordering::Relaxed);
        let patience = if all { QUIET } else { STILL_WAITING };
        if last.max(ended).elapsed() >= patience || ended.elapsed() >= LONGEST {
            return goodbye(socket.close(CloseCode::NORMAL, ""), true);
        }
    }
}

/// Each line is a text message. One that is no UTF-8 is sent as bytes.
fn send_lines(mut lines: impl BufRead, sender: &Sender, input: &Input) {
    loop {
        let mut line = Vec::new();
        match lines.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let message = match std::str::from_utf8(text) {
            Ok(text) => Message::Text(text.to_string()),
            Err(_) => Message::Binary(text.to_vec()),
        };
        if sender.send(&message).is_err() {
            break;
        }
        input.lines.fetch_add(1, Ordering::Relaxed);
    }
    input.has_ended.store(true, Ordering::Release);
}

/// A message as a line.
fn line(message: &Message) -> String {
    /// Bytes of a binary message that are shown.
    const SHOWN: usize = 32;
    match message {
        Message::Text(text) => shown(text),
        Message::Binary(bytes) => {
            let start = bytes.get(..SHOWN).unwrap_or(bytes);
            let more = if start.len() < bytes.len() { "..." } else { "" };
            format!("{} bytes: {}{more}", bytes.len(), hex(start))
        }
    }
}

/// Text for a terminal. A stranger's control characters could be commands to it.
fn shown(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character {
            '\n' | '\t' => out.push(character),
            _ if character.is_control() => out.extend(character.escape_default()),
            _ => out.push(character),
        }
    }
    out
}

/// How it ended. A server that closes is told about, but it is no mistake unless it says so.
fn goodbye(closed: Closed, ours: bool) -> Result<(), String> {
    let usual = [CloseCode::NORMAL, CloseCode::GOING_AWAY, CloseCode::NO_CODE];
    if !closed.clean || !(ours || usual.contains(&closed.code)) {
        return Err(closed.to_string());
    }
    if !ours {
        say(&mut io::stderr(), &format!("{}\n", shown(&closed.to_string())), 0);
    }
    Ok(())
}
