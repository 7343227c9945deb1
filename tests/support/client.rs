//! A client that sends the bytes it is given and shows the bytes it gets, with no help in between.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// One connection, seen from its other end.
pub struct Client {
    pub stream: TcpStream,
    /// What has come after the last answer that was taken.
    ahead: Vec<u8>,
}

/// One answer, taken apart no further than a test needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// The head without its `Date`, which is the only thing that differs from run to run.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// Whether one of the head's lines is this one.
    pub fn says(&self, line: &str) -> bool {
        self.head.split("\r\n").any(|own| own == line)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        Client::of(TcpStream::connect(address).expect("a connection"))
    }

    /// The answer to a request on a connection of its own.
    #[track_caller]
    pub fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
        let mut client = Client::connect(address);
        client.send(request);
        client.answer().expect("an answer")
    }

    pub fn of(stream: TcpStream) -> Client {
        stream.set_nodelay(true).expect("an open socket");
        let limit = Some(Duration::from_secs(20));
        stream.set_read_timeout(limit).expect("an open socket");
        stream.set_write_timeout(limit).expect("an open socket");
        let ahead = Vec::new();
        Client { stream, ahead }
    }

    /// Sends all of it. A server that has hung up is no mistake of the test's: what it said counts.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Says that nothing more will come.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Everything up to the end, without the values of `Date`.
    #[track_caller]
    pub fn all(&mut self) -> String {
        let mut bytes = std::mem::take(&mut self.ahead);
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("no end: {error}; so far {}", bytes.escape_ascii()),
        }
        without_date(&String::from_utf8_lossy(&bytes))
    }

    /// Everything up to this text; panics if the end comes first.
    #[track_caller]
    pub fn up_to(&mut self, mark: &str) -> String {
        let end = self.wait_for(mark.as_bytes());
        let end = end.unwrap_or_else(|| panic!("{mark:?} does not come"));
        without_date(&String::from_utf8_lossy(&self.take(end)))
    }

    /// The next answer; `None` at the end. 1xx answers are answers too.
    #[track_caller]
    pub fn answer(&mut self) -> Option<Answer> {
        self.answer_to("GET")
    }

    #[track_caller]
    pub fn answer_to(&mut self, method: &str) -> Option<Answer> {
        let Some(end) = self.wait_for(b"\r\n\r\n") else {
            let rest = self.ahead.escape_ascii().to_string();
            assert!(rest.is_empty(), "cut in its head: {rest}");
            return None;
        };
        let head = String::from_utf8_lossy(&self.take(end)).into_owned();
        let status = head.get(9..12).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {head}"));
        let bodiless = method == "HEAD" || status < 200 || status == 204 || status == 304;
        let length = field(&head, "Content-Length").and_then(|value| value.parse().ok());
        let body = match (length, field(&head, "Transfer-Encoding")) {
            _ if bodiless => Vec::new(),
            (Some(length), _) => self.exactly(length),
            (None, Some(_)) => self.chunks(),
            (None, None) => {
                self.until_end();
                std::mem::take(&mut self.ahead)
            }
        };
        let head = without_date(&head);
        Some(Answer { status, head, body })
    }

    #[track_caller]
    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let end = self.wait_for(b"\r\n").expect("a chunk size");
            let line = self.take(end);
            let digits = String::from_utf8_lossy(&line[..end - 2]).into_owned();
            let size = usize::from_str_radix(&digits, 16).expect("a chunk size");
            body.extend(self.exactly(size));
            assert_eq!(self.exactly(2), b"\r\n", "after a chunk");
            if size == 0 {
                return body;
            }
        }
    }

    #[track_caller]
    fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.ahead.len() < count {
            assert!(self.more(), "cut {} bytes early", count - self.ahead.len());
        }
        self.take(count)
    }

    /// Where the bytes behind `mark` begin, once it has come; `None` if the end comes first.
    fn wait_for(&mut self, mark: &[u8]) -> Option<usize> {
        loop {
            let found = self.ahead.windows(mark.len()).position(|part| part == mark);
            if let Some(at) = found {
                return Some(at + mark.len());
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// What has come and was not taken yet.
    pub fn take_ahead(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ahead)
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.ahead.split_off(count);
        std::mem::replace(&mut self.ahead, rest)
    }

    fn until_end(&mut self) {
        while self.more() {}
    }

    /// Reads on; false at the end.
    fn more(&mut self) -> bool {
        let mut block = [0; 4096];
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

    /// What has come until now, and comes within this time.
    pub fn within(&mut self, time: Duration) -> String {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let turn = left.max(Duration::from_millis(1));
            let _ = self.stream.set_read_timeout(Some(turn));
            let mut block = [0; 4096];
            let read = self.stream.read(&mut block);
            self.ahead.extend_from_slice(&block[..read.as_ref().map_or(0, |count| *count)]);
            let goes_on = match read {
                Ok(count) => count > 0,
                Err(error) => error.kind() == ErrorKind::Interrupted,
            };
            if left.is_zero() || !goes_on {
                break;
            }
        }
        let _ = self.stream.set_read_timeout(Some(Duration::from_secs(20)));
        without_date(&String::from_utf8_lossy(&std::mem::take(&mut self.ahead)))
    }
}

/// The value of a field of a head.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.split("\r\n").skip(1);
    let mut fields = lines.filter_map(|line| line.split_once(": "));
    fields.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// The same text without its `Date` lines; each must be 37 bytes long, line end included.
pub fn without_date(text: &str) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        if line.starts_with("Date: ") && line.len() == 37 {
            continue;
        }
        out.push_str(line);
    }
    out
}

/// Fails unless both texts are equal, and prints both in full, one above the other.
#[track_caller]
pub fn eq_text(want: &str, got: &str) {
    super::bytes::eq_bytes(want.as_bytes(), got.as_bytes());
}
