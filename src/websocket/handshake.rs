//! Chapter 30: the opening handshake. RFC 6455, section 4.
//!
//! A WebSocket begins as a request of HTTP. If the server agrees, it answers 101, and from the
//! next byte on the connection speaks another protocol:
//!
//! ```text
//!   GET /chat HTTP/1.1                            HTTP/1.1 101 Switching Protocols
//!   Host: server.example.com                      Upgrade: websocket
//!   Upgrade: websocket                            Connection: Upgrade
//!   Connection: Upgrade                           Sec-WebSocket-Accept: s3pPLMBi...
//!   Sec-WebSocket-Key: dGhlIHNhbXBs...            Sec-WebSocket-Protocol: chat
//!   Sec-WebSocket-Version: 13
//!   Sec-WebSocket-Protocol: chat, superchat       and from here on frames, both ways
//!   Origin: http://server.example.com
//! ```
//!
//! The accept value is computed from the key. It shows that the server has read this request as a
//! handshake: one that knows nothing of WebSocket, or a cache, cannot give it.
//!
//! [`Handshake::read`] judges a head and touches no socket; whoever has the connection answers.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};

use crate::http::body::Framing;
use crate::http::headers::{
    ALLOW, CONNECTION, FieldError, FieldValue, HOST, Headers, Token, UPGRADE, field_line,
};
use crate::http::refusal::Refusal;
use crate::http::request::{Method, RequestHead, Version};
use crate::http::response::{Response, SERVER_FIELDS, Status};
use crate::websocket::base64;
use crate::websocket::sha1::Sha1;

/// What is appended to the key: a text that nobody sends by chance. RFC 6455, section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const KEY: Token<'static> = Token::constant("Sec-WebSocket-Key");
const ACCEPT: Token<'static> = Token::constant("Sec-WebSocket-Accept");
const PROTOCOL: Token<'static> = Token::constant("Sec-WebSocket-Protocol");
const VERSION: Token<'static> = Token::constant("Sec-WebSocket-Version");
const EXTENSIONS: Token<'static> = Token::constant("Sec-WebSocket-Extensions");
const ORIGIN: Token<'static> = Token::constant("Origin");

/// The version that the RFC describes. Lower numbers were drafts of it. RFC 6455, section 4.1.
const VERSION_13: FieldValue<'static> = FieldValue::constant("13");
const WEBSOCKET: FieldValue<'static> = FieldValue::constant("websocket");

/// Which pages may open a WebSocket here.
///
/// A browser says in `Origin` which site a page came from, and sends our cookies with the request,
/// whatever site that is. Pages of this server's own host are always allowed. So is a request
/// without `Origin`: it does not come from a browser, and such a program could write anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginPolicy {
    /// More origins, as browsers write them: `https://example.org`, `http://localhost:3000`, or
    /// `null` for pages that have none. `*` allows all.
    pub allowed: Vec<String>,
}

impl OriginPolicy {
    // Origin = origin-list-or-null        RFC 6454, section 7.1; browsers send one origin
    fn check(&self, head: &RequestHead) -> Result<(), HandshakeError> {
        let mut origins = head.headers.get_all(ORIGIN);
        let Some(origin) = origins.next() else {
            return Ok(());
        };
        // Two could be read by two programs in two ways.
        if origins.next().is_some() {
            return Err(HandshakeError::ManyOrigins);
        }
        let origin = String::from_utf8_lossy(origin.as_bytes()).to_ascii_lowercase();
        let listed = |entry: &String| entry == "*" || normal(entry) == origin;
        if is_own(&origin, &head.host) || self.allowed.iter().any(listed) {
            return Ok(());
        }
        // RFC 6455, section 4.2.2, step 4: not accepted means an error of HTTP, such as 403.
        Err(HandshakeError::ForeignOrigin(origin))
    }
}

/// Whether the origin is the host that was asked. Both are compared whole: who looks for the host's
/// name inside of the origin finds it in `http://good.example.evil.example` too.
///
/// Either scheme will do. Behind a proxy that does TLS, the page came by `https`, and we cannot see
/// that.
fn is_own(origin: &str, host: &str) -> bool {
    let own = |scheme: &str| origin == normal(&format!("{scheme}{host}"));
    !host.is_empty() && (own("http://") || own("https://"))
}

/// As a browser writes it: in lower case, without a port that the scheme means anyway.
// RFC 6454, section 6.2
fn normal(origin: &str) -> String {
    let mut origin = origin.to_ascii_lowercase();
    for (scheme, port) in [("http://", ":80"), ("https://", ":443")] {
        if origin.starts_with(scheme) && origin.ends_with(port) {
            origin.truncate(origin.len() - port.len());
        }
    }
    origin
}

/// Whether a request asks for a WebSocket at all, well or badly.
///
/// RFC 9110, section 7.8: in a request of HTTP/1.0, `Upgrade` must be ignored.
pub fn wants_websocket(head: &RequestHead) -> bool {
    head.version == Version::Http11 && has_member(&head.headers, UPGRADE, WEBSOCKET)
}

/// Whether that word is in the list, in any case of its letters.
fn has_member(headers: &Headers, name: Token<'_>, word: FieldValue<'_>) -> bool {
    headers.members(name).any(|member| member.eq_ignore_ascii_case(word.as_bytes()))
}

/// A client's opening handshake that keeps all rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The value of `Sec-WebSocket-Accept`.
    pub accept: String,
    /// The subprotocols that the client offers, the one it likes best first.
    pub offered: Vec<String>,
}

impl Handshake {
    /// Judges the head of a request. Extensions that the client offers are not looked at: we have
    /// none, and whoever does not answer an offer has declined it (RFC 6455, section 9.1).
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn read(head: &RequestHead, origins: &OriginPolicy) -> Result<Handshake, HandshakeError> {
        // RFC 6455, section 4.2.1, rules 1, 3 and 4. The parser has checked the host, rule 2.
        if head.version != Version::Http11 {
            return Err(HandshakeError::OldHttp);
        }
        if !has_member(&head.headers, UPGRADE, WEBSOCKET) {
            return Err(HandshakeError::NoUpgrade);
        }
        if head.method != Method::Get {
            return Err(HandshakeError::Method);
        }
        if !has_member(&head.headers, CONNECTION, FieldValue::constant("upgrade")) {
            return Err(HandshakeError::NoConnectionOption);
        }
        // Rule 6, and section 4.4.
        let mut versions = head.headers.get_all(VERSION);
        if (versions.next(), versions.next()) != (Some(VERSION_13), None) {
            return Err(HandshakeError::UnknownVersion);
        }
        let key = key(&head.headers)?;
        // The bytes of a body would be taken for frames.
        if !matches!(Framing::of(head), Ok(Framing::None | Framing::Length(0))) {
            return Err(HandshakeError::Body);
        }
        origins.check(head)?;
        let offered = subprotocols(&head.headers)?;
        Ok(Handshake { accept: accept(key), offered })
    }

    /// The fields of the answer 101. `Connection: Upgrade` is not among them: the response writer
    /// adds it wherever there is an `Upgrade`. `extra` are the application's own fields.
    ///
    /// # Errors
    /// [`HandshakeError::NotOffered`], [`HandshakeError::ReservedField`] and
    /// [`HandshakeError::Field`]: mistakes of the application, and not of the client.
    // RFC 6455, section 4.2.2, step 5
    pub fn fields(
        &self,
        subprotocol: Option<&str>,
        extra: &Headers,
    ) -> Result<Headers, HandshakeError> {
        let mut fields = Headers::new();
        fields.push(UPGRADE, WEBSOCKET);
        fields.try_push(ACCEPT.as_str(), &self.accept).map_err(HandshakeError::Field)?;
        if let Some(chosen) = subprotocol {
            if !self.offered.iter().any(|offered| offered == chosen) {
                return Err(HandshakeError::NotOffered);
            }
            fields.try_push(PROTOCOL.as_str(), chosen).map_err(HandshakeError::Field)?;
        }
        for (name, value) in extra.iter() {
            if is_reserved(name) {
                return Err(HandshakeError::ReservedField);
            }
            fields.push(name, value);
        }
        Ok(fields)
    }
}

// Sec-WebSocket-Key = base64-value-non-empty        RFC 6455, section 4.3
fn key(headers: &Headers) -> Result<&str, HandshakeError> {
    let mut keys = headers.get_all(KEY);
    // RFC 6455, section 11.3.1: not more than one.
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err(HandshakeError::Key);
    };
    // RFC 6455, section 4.2.1, rule 5: it decodes to 16 bytes.
    match (key.as_str(), base64::decode(key.as_bytes())) {
        (Some(text), Ok(bytes)) if bytes.len() == 16 => Ok(text),
        _ => Err(HandshakeError::Key),
    }
}

/// The accept value for a key. The key is not decoded: its text is what counts.
// RFC 6455, section 4.2.2, step 5.4
fn accept(key: &str) -> String {
    let mut sha1 = Sha1::new();
    sha1.update(key.as_bytes());
    sha1.update(GUID.as_bytes());
    base64::encode(&sha1.finish())
}

// Sec-WebSocket-Protocol-Client = 1#token        RFC 6455, section 4.3
fn subprotocols(headers: &Headers) -> Result<Vec<String>, HandshakeError> {
    let mut offered = Vec::new();
    let mut seen = BTreeSet::new();
    for member in headers.members(PROTOCOL) {
        let token = Token::new(member).map_err(|_| HandshakeError::Subprotocols)?;
        // RFC 6455, section 4.1, rule 10: each of them once. `chat` and `Chat` are two.
        if !seen.insert(token.as_str()) {
            return Err(HandshakeError::Subprotocols);
        }
        offered.push(token.as_str().to_string());
    }
    Ok(offered)
}

/// The fields that make the handshake or manage the connection are ours. The ASGI specification
/// forbids `sec-websocket-protocol` among the headers of an accept; its relatives fit there no
/// better.
fn is_reserved(name: Token<'_>) -> bool {
    let lower = name.as_str().to_ascii_lowercase();
    name == UPGRADE || lower.starts_with("sec-websocket-") || SERVER_FIELDS.contains(&name)
}

/// What is wrong with a handshake, and the status that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandshakeError {
    /// The request is one of HTTP/1.0. 426.
    OldHttp,
    /// `Upgrade` does not name websocket. 426.
    NoUpgrade,
    /// The method is not `GET`. 405.
    Method,
    /// `Connection` does not name upgrade. 400.
    NoConnectionOption,
    /// `Sec-WebSocket-Version` is not 13, or is there twice or not at all. 426.
    UnknownVersion,
    /// There is not one `Sec-WebSocket-Key` that holds 16 bytes. 400.
    Key,
    /// The request has a body. 400.
    Body,
    /// There is more than one `Origin`. 400.
    ManyOrigins,
    /// The page that asks comes from another site: this one. 403.
    ForeignOrigin(String),
    /// A subprotocol is no token, or is offered twice. 400.
    Subprotocols,
    /// The application chose a subprotocol that was not offered. 500.
    NotOffered,
    /// The application set a field that belongs to the handshake. 500.
    ReservedField,
    /// A value for the answer cannot stand in a field. 500.
    Field(FieldError),
}

impl HandshakeError {
    /// The rule that is broken.
    pub fn rule(&self) -> &'static str {
        use HandshakeError::*;
        match self {
            OldHttp | NoUpgrade | Method | NoConnectionOption => "RFC 6455, section 4.2.1",
            UnknownVersion => "RFC 6455, section 4.4",
            Key => "RFC 6455, section 4.2.1",
            Body => "RFC 9110, section 9.3.1",
            ManyOrigins => "RFC 6454, section 7.3",
            ForeignOrigin(_) => "RFC 6455, section 10.2",
            Subprotocols => "RFC 6455, section 4.1",
            NotOffered => "RFC 6455, section 4.2.2",
            ReservedField => "the ASGI specification, accept",
            Field(error) => error.rule(),
        }
    }

    /// The status to answer with.
    pub fn status(&self) -> Status {
        use HandshakeError::*;
        let code = match self {
            NoConnectionOption | Key | Body | ManyOrigins | Subprotocols => 400,
            ForeignOrigin(_) => 403,
            Method => 405,
            OldHttp | NoUpgrade | UnknownVersion => 426,
            NotOffered | ReservedField | Field(_) => 500,
        };
        Status::new(code).unwrap_or(Status::INTERNAL_SERVER_ERROR)
    }

    /// The answer that explains it, with the fields that its status demands.
    pub fn response(&self) -> Response {
        let response = Refusal::from(self.clone()).response();
        match self.status().code() {
            // RFC 9110, section 15.5.6
            405 => response.with(ALLOW, FieldValue::constant("GET")),
            // RFC 9110, section 15.5.22, and RFC 6455, section 4.4
            426 => response.with(UPGRADE, WEBSOCKET).with(VERSION, VERSION_13),
            _ => response,
        }
    }
}

impl From<HandshakeError> for Refusal {
    fn from(error: HandshakeError) -> Refusal {
        let (status, rule) = (error.status(), error.rule());
        Refusal { status, problem: error.to_string(), rule, module: "handshake" }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use HandshakeError::*;
        f.write_str(match self {
            OldHttp => "a WebSocket needs HTTP/1.1",
            NoUpgrade => "this address speaks WebSocket: Upgrade must name websocket",
            Method => "a WebSocket is opened with GET",
            NoConnectionOption => "Connection does not name upgrade",
            UnknownVersion => "this server speaks version 13 of WebSocket",
            Key => "there must be one Sec-WebSocket-Key, of 16 bytes in Base64",
            Body => "the request for a WebSocket has a body",
            ManyOrigins => "there is more than one Origin field",
            ForeignOrigin(origin) => {
                return write!(f, "pages of {origin:?} may not open a WebSocket here");
            }
            Subprotocols => "a subprotocol is not a token, or is offered twice",
            NotOffered => "the application chose a subprotocol that was not offered",
            ReservedField => "the application set a field that belongs to the handshake",
            Field(error) => return error.fmt(f),
        })
    }
}

impl std::error::Error for HandshakeError {}

// The other side: what a client writes, and how it reads the answer.

/// A new key: 16 bytes of chance, in Base64.
///
/// std has no random numbers. It has hash maps whose seeds nobody can foresee, and a hasher with
/// such a seed gives 8 bytes at a time. That is enough here, where a key must only be new:
/// RFC 6455, section 4.1, rule 7. Do not make passwords of it.
pub fn new_key() -> String {
    let mut bytes = [0; 16];
    for half in bytes.chunks_exact_mut(8) {
        let chance = RandomState::new().build_hasher().finish();
        half.copy_from_slice(&chance.to_be_bytes());
    }
    base64::encode(&bytes)
}

/// The request of a client. `host` is with its port, `target` begins with `/`.
///
/// # Errors
/// [`FieldError::ValueByte`] if a part holds a byte that would end its line, or the target a space.
// RFC 6455, section 4.1, rules 1 to 10
pub fn client_request(
    host: &str,
    target: &str,
    key: &str,
    offered: &[&str],
) -> Result<Vec<u8>, FieldError> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(FieldError::ValueByte);
    }
    let mut fields = Headers::new();
    fields.try_push(HOST.as_str(), host)?;
    fields.push(UPGRADE, WEBSOCKET);
    fields.push(CONNECTION, FieldValue::constant("Upgrade"));
    fields.try_push(KEY.as_str(), key)?;
    fields.push(VERSION, VERSION_13);
    if !offered.is_empty() {
        fields.try_push(PROTOCOL.as_str(), &offered.join(", "))?;
    }
    let mut request = format!("GET {target} HTTP/1.1\r\n").into_bytes();
    for (name, value) in fields.iter() {
        request.extend([name.as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    request.extend(b"\r\n");
    Ok(request)
}

/// Judges the answer to [`client_request`]: a head with its empty line. Gives the subprotocol that
/// the server chose.
///
/// # Errors
/// The first rule that is broken. The client must close the connection then.
// RFC 6455, section 4.1, after the list: what the client must check
pub fn check_answer(
    head: &[u8],
    key: &str,
    offered: &[&str],
) -> Result<Option<String>, AnswerError> {
    let (status, headers) = answer(head).ok_or(AnswerError::NotHttp)?;
    if status != Status::SWITCHING_PROTOCOLS {
        return Err(AnswerError::NotSwitched(status));
    }
    let upgrades = has_member(&headers, UPGRADE, WEBSOCKET);
    if !upgrades || !has_member(&headers, CONNECTION, FieldValue::constant("upgrade")) {
        return Err(AnswerError::NoUpgrade);
    }
    let accepted = headers.get(ACCEPT).and_then(FieldValue::as_str);
    if accepted != Some(accept(key).as_str()) {
        return Err(AnswerError::WrongAccept);
    }
    let chosen = headers.get(PROTOCOL).map(|value| value.as_str().unwrap_or_default().to_string());
    let was_offered = chosen.iter().all(|chosen| offered.contains(&chosen.as_str()));
    if !was_offered || headers.contains(EXTENSIONS) {
        return Err(AnswerError::NotAskedFor);
    }
    Ok(chosen)
}

/// The status and the fields of an answer, or `None` if it is none.
// status-line = HTTP-version SP status-code SP [ reason-phrase ]        RFC 9112, section 4
fn answer(head: &[u8]) -> Option<(Status, Headers)> {
    let text = std::str::from_utf8(head).ok()?.strip_suffix("\r\n\r\n")?;
    let mut lines = text.split("\r\n");
    let line = lines.next()?.strip_prefix("HTTP/1.1 ")?;
    // Some servers leave out the last space, where no words follow it.
    let (code, reason) = line.split_once(' ').unwrap_or((line, ""));
    let status = Status::new(code.parse().ok().filter(|_| code.len() == 3)?)?;
    // RFC 9112, section 4: what the words say does not matter. But a line end is none of them.
    if reason.contains(['\r', '\n']) {
        return None;
    }
    let mut headers = Headers::new();
    for line in lines {
        let (name, value) = field_line(line.as_bytes()).ok()?;
        headers.push(name, value);
    }
    Some((status, headers))
}

/// Why a client does not take the answer for a WebSocket. RFC 6455, section 4.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerError {
    /// It is no answer of HTTP/1.1.
    NotHttp,
    /// The status is another one than 101.
    NotSwitched(Status),
    /// `Upgrade` or `Connection` does not say what 101 must say.
    NoUpgrade,
    /// The accept value does not belong to the key.
    WrongAccept,
    /// It names an extension or a subprotocol that was not offered.
    NotAskedFor,
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AnswerError::NotHttp => "the answer is not one of HTTP/1.1",
            AnswerError::NotSwitched(status) => {
                return write!(f, "the server does not open a WebSocket: {status}");
            }
            AnswerError::NoUpgrade => "the answer does not name websocket",
            AnswerError::WrongAccept => "the answer does not belong to our key",
            AnswerError::NotAskedFor => "the answer names something that was not offered",
        })
    }
}

impl std::error::Error for AnswerError {}
