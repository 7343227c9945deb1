//! Chapter 32: messages. RFC 6455, sections 5.4 to 5.6 and 8.1.
//!
//! A message is one data frame, or several. Control frames may come between them, and are no part
//! of it:
//!
//! ```text
//!   frames    text "Hel"    ping "?"    continuation "lo" FIN    close 1000
//!                 │             │              │                     │
//!   kind    None ──► Text ──────┼─────── Text ──► None               │
//!   events                    Ping("?")     Message("Hello")     Close(1000)
//! ```
//!
//! Text is UTF-8, and a frame may end in the middle of a character. Lengths are promises of a
//! stranger: nothing is stored before it has come, and nothing above the limit is waited for.

use std::fmt;
use std::sync::Arc;

use crate::http::request::Parse;
use crate::socket::wire::{Direction, Tap};
use crate::websocket::frame::{Close, CloseCode, FrameError, FrameHeader, Mask, Opcode, Role};

/// What one side says to the other: text or bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Text, which is UTF-8 on the wire too.
    Text(String),
    /// Bytes, which mean nothing to the protocol.
    Binary(Vec<u8>),
}

impl Message {
    /// The opcode of its first frame.
    pub fn opcode(&self) -> Opcode {
        match self {
            Message::Text(_) => Opcode::Text,
            Message::Binary(_) => Opcode::Binary,
        }
    }

    /// Its bytes.
    pub fn payload(&self) -> &[u8] {
        match self {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
        }
    }
}

/// What one frame, or the last of several, has brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A whole message.
    Message(Message),
    /// A ping: send this back.
    Ping(Vec<u8>),
    /// A pong.
    Pong,
    /// The last frame of the other side.
    Close(Close),
}

/// Makes messages of frames. It touches no socket: bytes go in, events come out.
pub struct Assembler {
    role: Role,
    limit: usize,
    observer: Option<Observer>,
    /// The frame whose payload is being taken in.
    frame: Option<Current>,
    /// What kind of message is under way, if one is.
    kind: Option<Opcode>,
    /// `message[..filled]` has arrived; what is behind it is room.
    message: Vec<u8>,
    filled: usize,
    /// So much of a text is known to be UTF-8.
    checked: usize,
    /// The payload of a control frame, which may come in the middle of a message.
    control: Vec<u8>,
}

struct Current {
    header: FrameHeader,
    mask: Option<Mask>,
    left: usize,
}

/// From this length on, the rest of a payload is read from the socket into its message directly.
const DIRECT: usize = 2 * 1024;

impl Assembler {
    /// An assembler for what comes to `role`, for messages of at most `limit` bytes.
    pub fn new(role: Role, limit: usize, observer: Option<Observer>) -> Assembler {
        Assembler {
            role,
            limit,
            observer,
            frame: None,
            kind: None,
            message: Vec::new(),
            filled: 0,
            checked: 0,
            control: Vec::new(),
        }
    }

    /// Takes bytes from the front of `input` up to the end of the first event. Returns how many it
    /// took, and the event. Without one it took all but the beginning of a frame header: give it
    /// those bytes again, with more behind them.
    ///
    /// # Errors
    /// A [`MessageError`], as soon as the byte is there that breaks a rule. Give it no more then.
    pub fn take(&mut self, input: &[u8]) -> Result<(usize, Option<Event>), MessageError> {
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            if let Some(frame) = &self.frame {
                let count = frame.left.min(rest.len());
                self.append(rest.get(..count).unwrap_or_default());
                used += count;
                self.check_text()?;
                if self.frame.as_ref().is_some_and(|frame| frame.left > 0) {
                    return Ok((used, None));
                }
                if let Some(event) = self.end_frame()? {
                    return Ok((used, Some(event)));
                }
                continue;
            }
            match FrameHeader::parse(rest, self.role)? {
                Parse::Partial => return Ok((used, None)),
                Parse::Complete { value, used: header } => {
                    self.begin_frame(value)?;
                    used += header;
                }
            }
        }
    }

    /// Room for the rest of a long payload, so that it need not be copied. What is read into it
    /// must be told to [`Assembler::took`].
    ///
    /// The room is never larger than what has arrived, or 64 KB: a length is only a promise.
    pub fn room(&mut self) -> Option<&mut [u8]> {
        let frame = self.frame.as_ref()?;
        if frame.header.opcode.is_control() || frame.left < DIRECT {
            return None;
        }
        if self.message.len() == self.filled {
            let step = self.filled.clamp(64 * 1024, 256 * 1024).min(frame.left);
            self.message.resize(self.filled + step, 0);
        }
        let end = self.message.len().min(self.filled + frame.left);
        self.message.get_mut(self.filled..end)
    }

    /// `count` bytes have been read into [`Assembler::room`]. Now call [`Assembler::take`].
    pub fn took(&mut self, count: usize) {
        let Some(frame) = &mut self.frame else { return };
        let end = (self.filled + count.min(frame.left)).min(self.message.len());
        let new = self.message.get_mut(self.filled..end).unwrap_or_default();
        if let Some(mask) = &mut frame.mask {
            mask.apply(new);
        }
        frame.left -= new.len();
        self.filled = end;
    }

    /// RFC 6455, section 5.4: which frame may come now.
    fn begin_frame(&mut self, header: FrameHeader) -> Result<(), MessageError> {
        if !header.opcode.is_control() {
            match (self.kind, header.opcode) {
                (None, Opcode::Continuation) => return Err(MessageError::NothingToContinue),
                (None, kind) => self.kind = Some(kind),
                (Some(_), Opcode::Continuation) => {}
                (Some(_), _) => return Err(MessageError::MessageInMessage),
            }
        }
        // Decided on what is declared, before a byte of it is stored. RFC 6455, section 10.4.
        let left = match usize::try_from(header.length) {
            Ok(length) if length <= self.limit.saturating_sub(self.filled) => length,
            Ok(length) if header.opcode.is_control() => length,
            _ => return Err(MessageError::TooLong { limit: self.limit }),
        };
        self.frame = Some(Current { header, mask: header.key.map(Mask::new), left });
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let Some(frame) = &mut self.frame else { return };
        let target = match frame.header.opcode.is_control() {
            true => &mut self.control,
            false => {
                self.message.truncate(self.filled);
                &mut self.message
            }
        };
        let before = target.len();
        target.extend_from_slice(bytes);
        if let (Some(mask), Some(new)) = (&mut frame.mask, target.get_mut(before..)) {
            mask.apply(new);
        }
        frame.left -= bytes.len();
        if !frame.header.opcode.is_control() {
            self.filled = self.message.len();
        }
    }

    /// Looks at the text that is new. A character that is not all there yet is no error: the rest
    /// of it may come, even in the next frame. RFC 6455, section 8.1.
    fn check_text(&mut self) -> Result<(), MessageError> {
        if self.kind != Some(Opcode::Text) {
            return Ok(());
        }
        let new = self.message.get(self.checked..self.filled).unwrap_or_default();
        match std::str::from_utf8(new) {
            Ok(_) => self.checked = self.filled,
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(MessageError::NotUtf8),
        }
        Ok(())
    }

    fn end_frame(&mut self) -> Result<Option<Event>, MessageError> {
        let Some(Current { header, .. }) = self.frame.take() else { return Ok(None) };
        if let Some(observer) = &self.observer {
            let frame_at = self.filled.saturating_sub(header.length as usize);
            let payload = match header.opcode.is_control() {
                true => self.control.as_slice(),
                false => self.message.get(frame_at..self.filled).unwrap_or_default(),
            };
            observer(&FrameSeen::new(Direction::In, header, payload));
        }
        if header.opcode.is_control() {
            let payload = std::mem::take(&mut self.control);
            return Ok(Some(match header.opcode {
                Opcode::Close => Event::Close(Close::parse(&payload)?),
                Opcode::Ping => Event::Ping(payload),
                _ => Event::Pong,
            }));
        }
        if !header.fin {
            return Ok(None);
        }
        self.end_message().map(|message| Some(Event::Message(message)))
    }

    fn end_message(&mut self) -> Result<Message, MessageError> {
        let mut bytes = std::mem::take(&mut self.message);
        bytes.truncate(self.filled);
        (self.filled, self.checked) = (0, 0);
        match self.kind.take() {
            // Looked at a second time: only `unsafe` could use what we know already.
            Some(Opcode::Text) => match String::from_utf8(bytes) {
                Ok(text) => Ok(Message::Text(text)),
                Err(_) => Err(MessageError::NotUtf8),
            },
            _ => Ok(Message::Binary(bytes)),
        }
    }
}

/// What is wrong with a row of frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageError {
    /// One frame is wrong by itself.
    Frame(FrameError),
    /// A continuation, and no message has begun.
    NothingToContinue,
    /// A new message, and the one before it has not ended.
    MessageInMessage,
    /// A message is longer than we take.
    TooLong {
        /// The most bytes we take.
        limit: usize,
    },
    /// A text message is not UTF-8.
    NotUtf8,
}

impl MessageError {
    /// The code that tells the other side.
    // RFC 6455, section 7.4.1
    pub fn close_code(&self) -> CloseCode {
        match self {
            MessageError::Frame(error) => error.close_code(),
            MessageError::NothingToContinue | MessageError::MessageInMessage => {
                CloseCode::PROTOCOL_ERROR
            }
            MessageError::TooLong { .. } => CloseCode::TOO_BIG,
            MessageError::NotUtf8 => CloseCode::INVALID_DATA,
        }
    }

    /// The rule that was broken.
    pub fn rule(&self) -> &'static str {
        match self {
            MessageError::Frame(error) => error.rule(),
            MessageError::NothingToContinue | MessageError::MessageInMessage => {
                "RFC 6455, section 5.4"
            }
            MessageError::TooLong { .. } => "RFC 6455, section 10.4",
            MessageError::NotUtf8 => "RFC 6455, section 8.1",
        }
    }
}

impl From<FrameError> for MessageError {
    fn from(error: FrameError) -> MessageError {
        MessageError::Frame(error)
    }
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            MessageError::Frame(error) => error.fmt(f),
            MessageError::NothingToContinue => write!(f, "there is no message to continue"),
            MessageError::MessageInMessage => write!(f, "a message begins inside another"),
            MessageError::TooLong { limit } => {
                write!(f, "a message has more than {limit} bytes")
            }
            MessageError::NotUtf8 => write!(f, "a text message is not UTF-8"),
        }
    }
}

impl std::error::Error for MessageError {}

/// One frame that has passed, for those who want to look: the wire view, and a page that explains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameSeen {
    /// Which way it went.
    pub direction: Direction,
    /// Its header; [`FrameHeader::encode`] gives the bytes of it.
    pub header: FrameHeader,
    /// The beginning of its payload, without the mask: at most [`FrameSeen::SHOWN`] bytes.
    pub payload: Vec<u8>,
}

/// Called once for each whole frame, on the thread that has read it or is about to write it. It
/// must be quick, and send nothing on the same conversation.
pub type Observer = Arc<dyn Fn(&FrameSeen) + Send + Sync>;

impl FrameSeen {
    /// How much of a payload is kept, in bytes.
    pub const SHOWN: usize = 125;

    /// What is shown of a frame with that payload, unmasked.
    pub fn new(direction: Direction, header: FrameHeader, payload: &[u8]) -> FrameSeen {
        let shown = payload.get(..FrameSeen::SHOWN).unwrap_or(payload);
        FrameSeen { direction, header, payload: shown.to_vec() }
    }

    /// The beginning of the payload as it is on the wire.
    pub fn masked(&self) -> Vec<u8> {
        let mut payload = self.payload.clone();
        if let Some(key) = self.header.key {
            Mask::new(key).apply(&mut payload);
        }
        payload
    }
}

/// An observer that prints one line for each frame: the wire view of a conversation.
pub fn show_frames(tap: Arc<Tap>, connection: u64) -> Observer {
    /// Bytes of payload in the line.
    const PREVIEW: usize = 40;
    Arc::new(move |seen: &FrameSeen| {
        let mut line = seen.header.to_string().into_bytes();
        if !seen.payload.is_empty() {
            let preview = seen.payload.get(..PREVIEW).unwrap_or(&seen.payload);
            line.extend_from_slice(b": ");
            line.extend_from_slice(preview);
            if seen.header.length > preview.len() as u64 {
                line.extend_from_slice(b"...");
            }
        }
        tap.show(connection, seen.direction, "frame", &line);
    })
}
