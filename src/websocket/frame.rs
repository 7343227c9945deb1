//! Chapter 31: frames. RFC 6455, section 5.2.
//!
//! After the handshake both sides send frames. A frame is a header of 2 to 14 bytes and a payload:
//!
//! ```text
//!    byte 0            byte 1            then, if they are there
//!   ┌─┬─┬─┬─┬───────┐ ┌─┬─────────────┐ ┌─────────────────┬───────────┬───────────
//!   │F│R│R│R│opcode │ │M│ length      │ │ length          │ key       │ payload
//!   │I│S│S│S│       │ │A│ 0..125, or  │ │ 2 bytes if 126  │ 4 bytes   │
//!   │N│V│V│V│       │ │S│ 126, or 127 │ │ 8 bytes if 127  │ if MASK   │
//!   │ │1│2│3│       │ │K│             │ │                 │           │
//!   └─┴─┴─┴─┴───────┘ └─┴─────────────┘ └─────────────────┴───────────┴───────────
//!
//!   opcode  0 continuation  1 text  2 binary   │   8 close   9 ping  10 pong
//!             data frames, any length          │   control frames: FIN set, 0..125
//! ```
//!
//! Nothing here touches a socket, and all of it serves both roles: the server, which must send
//! without a mask and demand one, and the client, for whom it is the other way round.

use std::fmt;

use crate::http::request::Parse;

/// Which end of the conversation we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends without a mask, and receives with one.
    Server,
    /// Sends with a mask, and receives without one.
    Client,
}

/// What a frame is for. RFC 6455, section 11.8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// The next piece of a message that has begun.
    Continuation = 0,
    /// A text message, or its first piece.
    Text = 1,
    /// A binary message, or its first piece.
    Binary = 2,
    /// The last frame that its sender sends.
    Close = 8,
    /// Must be answered with a pong.
    Ping = 9,
    /// The answer to a ping.
    Pong = 10,
}

impl Opcode {
    /// All of them.
    pub const ALL: [Opcode; 6] = [
        Opcode::Continuation,
        Opcode::Text,
        Opcode::Binary,
        Opcode::Close,
        Opcode::Ping,
        Opcode::Pong,
    ];

    /// The opcode in the four lower bits of a first byte.
    fn of(byte: u8) -> Option<Opcode> {
        Opcode::ALL.into_iter().find(|opcode| *opcode as u8 == byte & 0x0f)
    }

    /// True for close, ping and pong. RFC 6455, section 5.5.
    pub fn is_control(self) -> bool {
        self as u8 & 0x08 != 0
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Opcode::Continuation => "continuation",
            Opcode::Text => "text",
            Opcode::Binary => "binary",
            Opcode::Close => "close",
            Opcode::Ping => "ping",
            Opcode::Pong => "pong",
        })
    }
}

/// All of a frame but its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// This is the last frame of its message.
    pub fin: bool,
    /// What the frame is for.
    pub opcode: Opcode,
    /// The masking key, if the payload is masked.
    pub key: Option<[u8; 4]>,
    /// Bytes of payload.
    pub length: u64,
}

/// The longest payload of a control frame, in bytes. RFC 6455, section 5.5.
pub const CONTROL: usize = 125;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASK: u8 = 0x80;
const LENGTH: u8 = 0x7f;
/// These two lengths say that the real one follows.
const IN_2_BYTES: u8 = 126;
const IN_8_BYTES: u8 = 127;

impl FrameHeader {
    /// The most bytes a header has.
    pub const LONGEST: usize = 14;

    /// Reads the header at the front of `input`, which has come to `role`. A broken rule is told as
    /// soon as the byte is there that breaks it: nobody need wait for a payload that has no place.
    ///
    /// # Errors
    /// All variants of [`FrameError`] but those of a close payload.
    // RFC 6455, section 5.2
    pub fn parse(input: &[u8], role: Role) -> Result<Parse<FrameHeader>, FrameError> {
        let Some(&first) = input.first() else {
            return Ok(Parse::Partial);
        };
        let opcode = check_first(first)?;
        let Some(&second) = input.get(1) else {
            return Ok(Parse::Partial);
        };
        let (masked, short) = (second & MASK != 0, second & LENGTH);
        check_second(opcode, masked, short, role)?;
        let Some((length, after)) = read_length(input, short)? else {
            return Ok(Parse::Partial);
        };
        let (key, used) = match masked {
            false => (None, after),
            true => match input.get(after..).and_then(|rest| rest.first_chunk()) {
                Some(key) => (Some(*key), after + 4),
                None => return Ok(Parse::Partial),
            },
        };
        let value = FrameHeader { fin: first & FIN != 0, opcode, key, length };
        Ok(Parse::Complete { value, used })
    }

    /// Appends the header to `out`, its length in the shortest of the three forms.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let fin = if self.fin { FIN } else { 0 };
        let mask = if self.key.is_some() { MASK } else { 0 };
        out.push(fin | self.opcode as u8);
        match (u8::try_from(self.length), u16::try_from(self.length)) {
            (Ok(length), _) if length < IN_2_BYTES => out.push(mask | length),
            (_, Ok(length)) => {
                out.push(mask | IN_2_BYTES);
                out.extend_from_slice(&length.to_be_bytes());
            }
            _ => {
                out.push(mask | IN_8_BYTES);
                out.extend_from_slice(&self.length.to_be_bytes());
            }
        }
        out.extend_from_slice(self.key.as_ref().map_or(&[], |key| key.as_slice()));
    }
}

/// "fin text, masked 37fa213d, 5 bytes"
impl fmt::Display for FrameHeader {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.fin {
            write!(f, "fin ")?;
        }
        write!(f, "{}, ", self.opcode)?;
        if let Some(key) = self.key {
            write!(f, "masked {:08x}, ", u32::from_be_bytes(key))?;
        }
        write!(f, "{} bytes", self.length)
    }
}

fn check_first(byte: u8) -> Result<Opcode, FrameError> {
    // RFC 6455, section 5.2: nonzero only if an extension gives it a meaning, and we accept none.
    if byte & RESERVED != 0 {
        return Err(FrameError::ReservedBits);
    }
    let opcode = Opcode::of(byte).ok_or(FrameError::ReservedOpcode(byte & 0x0f))?;
    // RFC 6455, section 5.4: a control frame comes between two fragments, and has none itself.
    if opcode.is_control() && byte & FIN == 0 {
        return Err(FrameError::FragmentedControl);
    }
    Ok(opcode)
}

fn check_second(opcode: Opcode, masked: bool, short: u8, role: Role) -> Result<(), FrameError> {
    // RFC 6455, section 5.1: the client masks all, the server nothing.
    match (role, masked) {
        (Role::Server, false) => return Err(FrameError::NotMasked),
        (Role::Client, true) => return Err(FrameError::Masked),
        _ => {}
    }
    if opcode.is_control() && usize::from(short) > CONTROL {
        return Err(FrameError::ControlTooLong);
    }
    Ok(())
}

/// The length, and where it ends; `None` while it is not all there.
// RFC 6455, section 5.2: "the minimal number of bytes MUST be used to encode the length"
fn read_length(input: &[u8], short: u8) -> Result<Option<(u64, usize)>, FrameError> {
    let rest = input.get(2..).unwrap_or_default();
    let (length, least, end) = match short {
        IN_2_BYTES => match rest.first_chunk() {
            Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 126, 4),
            None => return Ok(None),
        },
        IN_8_BYTES => match rest.first_chunk() {
            Some(bytes) => (u64::from_be_bytes(*bytes), 1 << 16, 10),
            None => return Ok(None),
        },
        _ => (u64::from(short), 0, 2),
    };
    // The same section: "the most significant bit MUST be 0".
    if length >> 63 != 0 {
        return Err(FrameError::LengthOver63Bits);
    }
    if length < least {
        return Err(FrameError::LengthNotMinimal);
    }
    Ok(Some((length, end)))
}

/// Masks a payload, or takes the mask off, which is the same. It remembers how far it has come, so
/// that a payload may be given to it in pieces of any size.
// transformed-octet-i = original-octet-i XOR masking-key-octet-(i MOD 4)   RFC 6455, section 5.3
#[derive(Debug, Clone, Copy)]
pub struct Mask {
    /// The key, turned so that its first byte belongs to the next byte of payload.
    key: [u8; 4],
}

impl Mask {
    /// A mask at the beginning of a payload.
    pub fn new(key: [u8; 4]) -> Mask {
        Mask { key }
    }

    /// Masks the next `bytes` of the payload.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        let [a, b, c, d] = self.key;
        let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let mut words = bytes.chunks_exact_mut(8);
        for chunk in &mut words {
            // Eight bytes in one step. The lengths always agree: the check costs nothing.
            if let Ok(eight) = <[u8; 8]>::try_from(&*chunk) {
                chunk.copy_from_slice(&(u64::from_ne_bytes(eight) ^ word).to_ne_bytes());
            }
        }
        let rest = words.into_remainder();
        for (byte, key) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
            *byte ^= key;
        }
        self.key.rotate_left(rest.len() % 4);
    }
}

/// Why a conversation ends. RFC 6455, section 7.4, and its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// All has been said.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// The server stops, or the user leaves the page.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// The other side broke a rule of the protocol.
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// Text came where bytes were wanted, or the other way round.
    pub const UNSUPPORTED: CloseCode = CloseCode(1003);
    /// Never sent: the other side gave no code.
    pub const NO_CODE: CloseCode = CloseCode(1005);
    /// Never sent: the connection was lost without a close frame.
    pub const LOST: CloseCode = CloseCode(1006);
    /// A text message is not UTF-8.
    pub const INVALID_DATA: CloseCode = CloseCode(1007);
    /// Refused by a rule of the application.
    pub const POLICY: CloseCode = CloseCode(1008);
    /// A message is longer than we take.
    pub const TOO_BIG: CloseCode = CloseCode(1009);
    /// The server has failed.
    pub const INTERNAL_ERROR: CloseCode = CloseCode(1011);

    /// Whether a close frame may carry it. 1004 means nothing; 1005, 1006 and 1015 are for what is
    /// known without a frame; what is below 3000 and not registered is reserved.
    // RFC 6455, sections 7.4.1 and 7.4.2; 1012 to 1014 were registered later.
    pub fn may_be_sent(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a close frame says. No code at all is [`CloseCode::NO_CODE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// Why, as a number.
    pub code: CloseCode,
    /// Why, in words. Nobody needs to read them.
    pub reason: String,
}

impl Close {
    /// Reads the payload of a close frame.
    ///
    /// # Errors
    /// [`FrameError::CloseTooShort`], [`FrameError::InvalidCloseCode`] and
    /// [`FrameError::ReasonNotUtf8`].
    // RFC 6455, section 5.5.1
    pub fn parse(payload: &[u8]) -> Result<Close, FrameError> {
        let Some((code, reason)) = payload.split_first_chunk() else {
            return match payload.is_empty() {
                true => Ok(Close { code: CloseCode::NO_CODE, reason: String::new() }),
                false => Err(FrameError::CloseTooShort),
            };
        };
        let code = CloseCode(u16::from_be_bytes(*code));
        if !code.may_be_sent() {
            return Err(FrameError::InvalidCloseCode(code));
        }
        match std::str::from_utf8(reason) {
            Ok(reason) => Ok(Close { code, reason: reason.to_string() }),
            Err(_) => Err(FrameError::ReasonNotUtf8),
        }
    }

    /// The payload that says it. A reason that is too long for a control frame is cut, and never
    /// inside a character.
    ///
    /// # Errors
    /// [`FrameError::InvalidCloseCode`] if the code may not be sent.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        if self.code == CloseCode::NO_CODE {
            return Ok(Vec::new());
        }
        if !self.code.may_be_sent() {
            return Err(FrameError::InvalidCloseCode(self.code));
        }
        let mut end = self.reason.len().min(CONTROL - 2);
        while !self.reason.is_char_boundary(end) {
            end -= 1;
        }
        let mut payload = self.code.0.to_be_bytes().to_vec();
        payload.extend_from_slice(self.reason.get(..end).unwrap_or_default().as_bytes());
        Ok(payload)
    }
}

/// What is wrong with a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameError {
    /// One of the three reserved bits is set.
    ReservedBits,
    /// The opcode has no meaning.
    ReservedOpcode(u8),
    /// A control frame without FIN.
    FragmentedControl,
    /// A control frame with more than 125 bytes.
    ControlTooLong,
    /// A client sent a frame without a mask.
    NotMasked,
    /// A server sent a frame with a mask.
    Masked,
    /// A length in more bytes than it needs.
    LengthNotMinimal,
    /// A length whose first bit is set.
    LengthOver63Bits,
    /// A close frame with one byte: half a code.
    CloseTooShort,
    /// A code that no close frame may carry.
    InvalidCloseCode(CloseCode),
    /// The reason in a close frame is not UTF-8.
    ReasonNotUtf8,
}

impl FrameError {
    /// The code that tells the other side.
    // RFC 6455, section 7.4.1
    pub fn close_code(&self) -> CloseCode {
        match self {
            FrameError::ReasonNotUtf8 => CloseCode::INVALID_DATA,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }

    /// The rule that was broken.
    pub fn rule(&self) -> &'static str {
        match self {
            FrameError::ReservedBits
            | FrameError::ReservedOpcode(_)
            | FrameError::LengthNotMinimal
            | FrameError::LengthOver63Bits => "RFC 6455, section 5.2",
            FrameError::FragmentedControl | FrameError::ControlTooLong => "RFC 6455, section 5.5",
            FrameError::NotMasked | FrameError::Masked => "RFC 6455, section 5.1",
            FrameError::CloseTooShort => "RFC 6455, section 5.5.1",
            FrameError::InvalidCloseCode(_) => "RFC 6455, section 7.4",
            FrameError::ReasonNotUtf8 => "RFC 6455, section 8.1",
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            FrameError::ReservedBits => write!(f, "a reserved bit is set"),
            FrameError::ReservedOpcode(opcode) => write!(f, "opcode {opcode} has no meaning"),
            FrameError::FragmentedControl => write!(f, "a control frame is fragmented"),
            FrameError::ControlTooLong => {
                write!(f, "a control frame has more than {CONTROL} bytes")
            }
            FrameError::NotMasked => write!(f, "a frame of the client is not masked"),
            FrameError::Masked => write!(f, "a frame of the server is masked"),
            FrameError::LengthNotMinimal => write!(f, "a length has more bytes than it needs"),
            FrameError::LengthOver63Bits => write!(f, "the first bit of a length is set"),
            FrameError::CloseTooShort => write!(f, "a close frame has half a code"),
            FrameError::InvalidCloseCode(code) => write!(f, "close code {code} may not be sent"),
            FrameError::ReasonNotUtf8 => write!(f, "the reason of a close is not UTF-8"),
        }
    }
}

impl std::error::Error for FrameError {}
