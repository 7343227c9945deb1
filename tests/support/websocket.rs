//! The other end of a WebSocket, by hand: it can be as rude as a test needs it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// The key of RFC 6455, section 1.3, and the value that answers it.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// One WebSocket, seen by its client.
pub struct Peer {
    pub stream: TcpStream,
    ahead: Vec<u8>,
}

/// The request for a WebSocket, with these fields more; each ends in CRLF.
pub fn handshake(target: &str, fields: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{fields}\r\n"
    )
}

/// A whole frame, masked as a client must.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=65535 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    let key = [0x37, 0xfa, 0x21, 0x3d];
    frame.extend(key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// The payload of a close frame.
pub fn close(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

impl Peer {
    /// Connects, asks for a WebSocket, and does not wait for the answer.
    #[track_caller]
    pub fn ask(address: SocketAddr, target: &str, fields: &str) -> Peer {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("an open socket");
        let limit = Some(Duration::from_secs(20));
        stream.set_read_timeout(limit).expect("an open socket");
        stream.set_write_timeout(limit).expect("an open socket");
        let mut peer = Peer { stream, ahead: Vec::new() };
        peer.raw(handshake(target, fields).as_bytes());
        peer
    }

    /// The same, and it must be opened.
    #[track_caller]
    pub fn open(address: SocketAddr, target: &str) -> Peer {
        let mut peer = Peer::ask(address, target, "");
        let head = peer.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains(&format!("\r\nSec-WebSocket-Accept: {ACCEPT}\r\n")), "{head}");
        peer
    }

    /// Sends bytes as they are. A server that has hung up is no mistake of the test's.
    pub fn raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub fn send(&mut self, opcode: u8, payload: impl AsRef<[u8]>) -> bool {
        self.raw(&frame(opcode, payload.as_ref()))
    }

    pub fn text(&mut self, text: &str) -> bool {
        self.send(TEXT, text)
    }

    /// The next head of an answer, without its `Date`.
    #[track_caller]
    pub fn head(&mut self) -> String {
        loop {
            let end = self.ahead.windows(4).position(|part| part == b"\r\n\r\n");
            if let Some(end) = end {
                let head = self.take(end + 4);
                return super::client::without_date(&String::from_utf8_lossy(&head));
            }
            assert!(self.more(), "no head but {}", self.ahead.escape_ascii());
        }
    }

    /// The next frame: its opcode and its payload. `None` at the end of the connection.
    #[track_caller]
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        while self.ahead.len() < 2 {
            if !self.more() {
                assert!(self.ahead.is_empty(), "half a frame");
                return None;
            }
        }
        let start = self.exactly(2);
        assert_eq!(start[0] & 0xf0, 0x80, "one whole frame, no reserved bit");
        let length = match start[1] {
            126 => u64::from(u16::from_be_bytes(self.exactly(2).try_into().expect("two bytes"))),
            127 => u64::from_be_bytes(self.exactly(8).try_into().expect("eight bytes")),
            length => u64::from(length),
        };
        assert!(start[1] < 128, "a server does not mask");
        let payload = self.exactly(length as usize);
        Some((start[0] & 0x0f, payload))
    }

    /// The next frame must be this text.
    #[track_caller]
    pub fn hears(&mut self, text: &str) {
        let (opcode, payload) = self.frame().expect("a frame");
        assert_eq!((opcode, String::from_utf8_lossy(&payload).as_ref()), (TEXT, text));
    }

    /// The next frame must be a close, and then the connection must end. Code and reason; 1005 if
    /// there is no code in it, 1006 if the end comes without a close. The close is answered.
    #[track_caller]
    pub fn end(&mut self) -> (u16, String) {
        let Some((opcode, payload)) = self.frame() else {
            return (1006, String::new());
        };
        assert_eq!(opcode, CLOSE, "{}", payload.escape_ascii());
        self.send(CLOSE, &payload[..payload.len().min(2)]);
        let after = self.frame();
        assert_eq!(after, None, "a frame behind the close");
        // RFC 6455, section 7.1.1: the server ends TCP first, and the client does the same then.
        self.finish();
        match payload.split_first_chunk() {
            Some((code, reason)) => {
                (u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned())
            }
            None => (1005, String::new()),
        }
    }

    /// Closes, and waits for the answer and the end. The code of the answer.
    #[track_caller]
    pub fn close(&mut self, code: u16, reason: &str) -> u16 {
        self.send(CLOSE, close(code, reason));
        self.end().0
    }

    /// Everything up to the end of the connection.
    #[track_caller]
    pub fn rest(&mut self) -> String {
        while self.more() {}
        String::from_utf8_lossy(&std::mem::take(&mut self.ahead)).into_owned()
    }

    /// Whether nothing comes within this time.
    pub fn is_quiet(&mut self, time: Duration) -> bool {
        let _ = self.stream.set_read_timeout(Some(time));
        let quiet = self.ahead.is_empty()
            && {
                let mut block = [0; 1];
                matches!(self.stream.peek(&mut block), Err(error) if error.kind() == ErrorKind::WouldBlock)
            };
        let _ = self.stream.set_read_timeout(Some(Duration::from_secs(20)));
        quiet
    }

    /// Says that nothing more will come, in the way of TCP.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    #[track_caller]
    fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.ahead.len() < count {
            assert!(self.more(), "cut {} bytes early", count - self.ahead.len());
        }
        self.take(count)
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.ahead.split_off(count);
        std::mem::replace(&mut self.ahead, rest)
    }

    /// Reads on; false at the end.
    fn more(&mut self) -> bool {
        let mut block = vec![0; 64 * 1024];
        match self.stream.read(&mut block) {
            Ok(0) => false,
            Ok(count) => {
                self.ahead.extend_from_slice(&block[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            // Somebody has stopped this process and let it go on: Ctrl-Z, or a debugger.
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) => panic!("nothing comes: {error}"),
        }
    }
}
