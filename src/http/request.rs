//! Chapter 7: the request head. RFC 9112, sections 2, 3 and 5.
//!
//! A connection delivers bytes in pieces of any size. Where does the request begin, where does its
//! head end, and what was asked? The answer must be the same however the bytes were cut, and bytes
//! that are no request must be refused as soon as they show it, not after a long wait.
//!
//! ```text
//!   CR LF                                  empty lines before the head: skipped, a few of them
//!   GET /hello?name=Ada HTTP/1.1 CR LF     request line: method SP target SP version
//!   Host: example.org CR LF                field lines, as headers.rs reads them
//!   Accept: */* CR LF
//!   CR LF                                  the empty line ends the head
//! ```
//!
//! [`HeadParser`] touches no socket. It is shown the bytes that have arrived so far, again and
//! again while they grow, and remembers how far it has looked: each byte is searched for a line end
//! once, each complete line is read once.
//!
//! ```text
//!   G E T   /   H T T P / 1 . 1 CR LF H o s t : e x a m p        (more to come)
//!   begin                             line                seen
//! ```

use crate::http::headers::{FieldError, HOST, Headers, Token, field_line, find_control};
use std::fmt;
use std::net::Ipv6Addr;

/// What the client wants done. Methods are case-sensitive: `get` is [`Method::Other`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// Transfer the resource.
    Get,
    /// The same without the content.
    Head,
    /// Process the content of the request.
    Post,
    /// Store the content under the target.
    Put,
    /// Remove the resource.
    Delete,
    /// Open a tunnel; only proxies do.
    Connect,
    /// Describe what is possible.
    Options,
    /// Send the request back.
    Trace,
    /// Change a part of the resource (RFC 5789).
    Patch,
    /// Any other token. It is a valid method, but this server gives it no meaning.
    Other(String),
}

impl Method {
    /// The method as it stands in the request line.
    pub fn as_str(&self) -> &str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Connect => "CONNECT",
            Method::Options => "OPTIONS",
            Method::Trace => "TRACE",
            Method::Patch => "PATCH",
            Method::Other(name) => name,
        }
    }

    // method = token        RFC 9110, section 9.1
    fn parse(bytes: &[u8]) -> Result<Method, HeadError> {
        Ok(match bytes {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"CONNECT" => Method::Connect,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"PATCH" => Method::Patch,
            other => match Token::new(other) {
                Ok(token) => Method::Other(token.as_str().to_string()),
                Err(_) => return Err(HeadError::MethodNotToken),
            },
        })
    }
}

/// The version of HTTP the client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no chunked bodies, no `Host` needed, one request per connection.
    Http10,
    /// HTTP/1.1, and 1.2 to 1.9: a higher minor version changes nothing we rely on.
    Http11,
}

impl Version {
    // HTTP-version = HTTP-name "/" DIGIT "." DIGIT        RFC 9112, section 2.3
    fn parse(bytes: &[u8]) -> Result<Version, HeadError> {
        let Some(&[major, b'.', minor]) = bytes.strip_prefix(b"HTTP/") else {
            return Err(HeadError::MalformedVersion);
        };
        match (major, minor) {
            (b'1', b'0') => Ok(Version::Http10),
            // RFC 9110, section 2.5: a minor version is understood as the highest one we know.
            (b'1', b'1'..=b'9') => Ok(Version::Http11),
            (b'0'..=b'9', b'0'..=b'9') => Err(HeadError::UnsupportedVersion),
            _ => Err(HeadError::MalformedVersion),
        }
    }
}

/// The four ways to write a request target (RFC 9112, section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`: what a client sends to a server.
    Origin,
    /// `http://example.org/path?query`: what a client sends to a proxy; servers accept it too.
    Absolute,
    /// `example.org:443`: only with `CONNECT`.
    Authority,
    /// `*`: only with `OPTIONS`, about the server as a whole.
    Asterisk,
}

/// What the request is about, as it was sent.
///
/// The target holds visible ASCII without `#`. It is still percent-encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which of the four forms it has.
    pub form: TargetForm,
    /// All of it, unchanged.
    pub raw: String,
    /// Where the path begins in `raw`.
    path: usize,
}

impl Target {
    /// The path, still percent-encoded: `/` if an absolute form has an empty one, `*` for the
    /// asterisk form, nothing for the authority form.
    pub fn path(&self) -> &str {
        let (path, _) = self.split();
        if path.is_empty() && self.form == TargetForm::Absolute { "/" } else { path }
    }

    /// What follows the first `?`, still percent-encoded; `None` if there is no `?`.
    pub fn query(&self) -> Option<&str> {
        self.split().1
    }

    fn split(&self) -> (&str, Option<&str>) {
        let rest = self.raw.get(self.path..).unwrap_or_default();
        match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        }
    }

    /// Reads the target; the second value is the host it names, if it names one.
    // request-target = origin-form / absolute-form / authority-form / asterisk-form
    //                                                        RFC 9112, section 3.2
    fn parse(raw: &[u8], method: &Method) -> Result<(Target, Option<String>), HeadError> {
        if raw.contains(&b'#') {
            return Err(HeadError::Fragment);
        }
        if !raw.iter().all(|byte| is(*byte, TARGET)) {
            return Err(HeadError::TargetByte);
        }
        // Only ASCII is left, so the conversion always succeeds.
        let text = std::str::from_utf8(raw).unwrap_or_default();
        let (form, host, path) = match (text, method) {
            (_, Method::Connect) => (TargetForm::Authority, Some(tunnel(text)?), text.len()),
            ("*", Method::Options) => (TargetForm::Asterisk, None, 0),
            ("*", _) => return Err(HeadError::AsteriskForm),
            _ if text.starts_with('/') => (TargetForm::Origin, None, 0),
            _ => {
                let (start, end) = authority_in(text)?;
                (TargetForm::Absolute, text.get(start..end), end)
            }
        };
        let host = host.map(str::to_string);
        Ok((Target { form, raw: text.to_string(), path }, host))
    }
}

// authority-form = uri-host ":" port        RFC 9112, section 3.2.3
fn tunnel(text: &str) -> Result<&str, HeadError> {
    match authority(text.as_bytes()) {
        Some(Authority { host, port: Some(port) }) if !host.is_empty() && !port.is_empty() => {
            Ok(text)
        }
        _ => Err(HeadError::AuthorityForm),
    }
}

/// Where the authority of an absolute form begins and ends.
// absolute-form = scheme "://" authority path-abempty [ "?" query ]
//                                           RFC 9112, section 3.2.2; RFC 9110, section 4.2.1
fn authority_in(text: &str) -> Result<(usize, usize), HeadError> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(HeadError::TargetForm);
    };
    if !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
        return Err(HeadError::TargetForm);
    }
    // RFC 9110, section 7.4: `https` must be refused on a connection that is not secured.
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(HeadError::ForeignScheme);
    }
    let length = rest.find(['/', '?']).unwrap_or(rest.len());
    let name = rest.as_bytes().get(..length).unwrap_or_default();
    // RFC 9110, section 4.2.4: userinfo is there to make one host look like another.
    if name.contains(&b'@') {
        return Err(HeadError::Userinfo);
    }
    match authority(name) {
        Some(Authority { host: b"", .. }) => Err(HeadError::EmptyAuthority),
        Some(_) => Ok((text.len() - rest.len(), text.len() - rest.len() + length)),
        None => Err(HeadError::InvalidHost),
    }
}

/// The two parts of `example.org:8000`.
struct Authority<'a> {
    host: &'a [u8],
    port: Option<&'a [u8]>,
}

/// Splits and checks a host with an optional port; `None` if it is neither.
// uri-host [ ":" port ]        RFC 9110, section 7.2
// uri-host = IP-literal / IPv4address / reg-name        RFC 3986, section 3.2.2
// reg-name = *( unreserved / pct-encoded / sub-delims )
fn authority(bytes: &[u8]) -> Option<Authority<'_>> {
    let host_end = match bytes.first() {
        Some(b'[') => bytes.iter().position(|byte| *byte == b']')? + 1,
        _ => bytes.iter().position(|byte| *byte == b':').unwrap_or(bytes.len()),
    };
    let (host, rest) = bytes.split_at_checked(host_end)?;
    let port = match rest {
        [] => None,
        [b':', port @ ..] if is_port(port) => Some(port),
        _ => return None,
    };
    let valid = match host {
        [b'[', address @ .., b']'] => is_ipv6(address),
        name => is_registered_name(name),
    };
    valid.then_some(Authority { host, port })
}

// port = *DIGIT        RFC 3986, section 3.2.3; TCP has no port above 65535
fn is_port(bytes: &[u8]) -> bool {
    let mut number: u32 = 0;
    for byte in bytes {
        if !byte.is_ascii_digit() || number > 65_535 {
            return false;
        }
        number = number * 10 + u32::from(byte - b'0');
    }
    number <= 65_535
}

fn is_ipv6(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

fn is_registered_name(mut bytes: &[u8]) -> bool {
    loop {
        bytes = match bytes {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest
            }
            [byte, rest @ ..] if is(*byte, NAME) => rest,
            _ => return false,
        }
    }
}

/// The byte may stand in a target.
const TARGET: u8 = 1;
/// The byte may stand in a registered name: unreserved / sub-delims (RFC 3986, section 2).
const NAME: u8 = 2;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte: u8 = 0;
    while byte < 128 {
        // Browsers send `"<>\^`{|}` as they are, though no URI may hold them. They do no harm.
        if byte.is_ascii_graphic() && byte != b'#' {
            table[byte as usize] |= TARGET;
        }
        if byte.is_ascii_alphanumeric() {
            table[byte as usize] |= NAME;
        }
        byte += 1;
    }
    let marks = b"-._~!$&'()*+,;=";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] |= NAME;
        at += 1;
    }
    table
}

fn is(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

/// Everything before the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// What to do.
    pub method: Method,
    /// What to do it to.
    pub target: Target,
    /// The version of the client.
    pub version: Version,
    /// The host and port the client asked: the one in the target if it names one, else the `Host`
    /// field (RFC 9112, section 3.3). Empty if a client of HTTP/1.0 sent none.
    pub host: String,
    /// The fields, in order.
    pub headers: Headers,
}

/// What a parser makes of the bytes so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parse<T> {
    /// It is all there.
    Complete {
        /// What was read.
        value: T,
        /// How many bytes of the input belong to it; what follows is not looked at.
        used: usize,
    },
    /// Nothing is wrong yet, and something is missing.
    Partial,
}

/// How long a head may be. A client must not make the server remember without end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes in one line, without its line end. RFC 9112, section 3 asks for at least 8,000.
    pub line: usize,
    /// Bytes from the request line to the last field line, without its line end: what one
    /// connection may hold in memory.
    pub head: usize,
    /// Number of fields: each costs time whenever a field is looked up.
    pub fields: usize,
    /// Bytes of empty lines before the request line. Old clients send one; a flood of them is work
    /// for nothing.
    pub empty_lines: usize,
}

impl Default for HeadLimits {
    fn default() -> HeadLimits {
        HeadLimits { line: 8 * 1024, head: 16 * 1024, fields: 100, empty_lines: 64 }
    }
}

/// Reads request heads from bytes that arrive in pieces.
#[derive(Debug)]
pub struct HeadParser {
    limits: HeadLimits,
    /// Where the request line begins: after the empty lines.
    begin: usize,
    /// Where the first unfinished line begins.
    line: usize,
    /// How far the bytes have been searched for the end of that line.
    seen: usize,
    request_line: Option<RequestLine>,
    headers: Headers,
}

#[derive(Debug)]
struct RequestLine {
    method: Method,
    target: Target,
    target_host: Option<String>,
    version: Version,
}

impl HeadParser {
    /// A parser that waits for the first byte of a head.
    pub fn new(limits: HeadLimits) -> HeadParser {
        let headers = Headers::new();
        HeadParser { limits, begin: 0, line: 0, seen: 0, request_line: None, headers }
    }

    /// Looks at the bytes that are new since the last call.
    ///
    /// `input` begins with the same byte at each call, at the first byte of the head (or of empty
    /// lines before it), and grows from call to call. After `Complete` the caller drops `used`
    /// bytes and the parser is ready for the next head. After an error the connection is beyond
    /// repair: nobody can say where the next request would begin.
    pub fn advance(&mut self, input: &[u8]) -> Result<Parse<RequestHead>, HeadError> {
        while let Some(end) = self.line_end(input)? {
            let line = input.get(self.line..end).unwrap_or_default();
            let next = end + LINE_END.len();
            match (line.is_empty(), self.request_line.is_some()) {
                (true, false) => self.skip_empty_line(next)?,
                (false, false) => self.request_line = Some(RequestLine::parse(line)?),
                (false, true) => self.push_field(line)?,
                (true, true) => return self.finish(next),
            }
            self.line = next;
            self.seen = next;
        }
        Ok(Parse::Partial)
    }

    /// Where the CRLF of the current line begins, or `None` while it has not arrived.
    ///
    /// A control byte is refused where it stands. A client that speaks TLS to us sends one at once,
    /// and hears it at once.
    fn line_end(&mut self, input: &[u8]) -> Result<Option<usize>, HeadError> {
        let (limit, too_long) = self.line_limit();
        // One byte more than the limit: at the latest it must be the CR.
        let end = input.len().min(limit.saturating_add(1));
        while let Some(found) = input.get(self.seen..end).and_then(find_control) {
            self.seen += found;
            match input.get(self.seen..).unwrap_or_default() {
                [b'\r', b'\n', ..] => return Ok(Some(self.seen)),
                [b'\r'] => return Ok(None),
                // RFC 9112, section 2.2: a CR alone must never pass for a line end.
                [b'\r', ..] => return Err(HeadError::BareCarriageReturn),
                // The same section allows a server to take LF alone for a line end. We do not: the
                // next program might not, and then the two see different lines.
                [b'\n', ..] => return Err(HeadError::BareLineFeed),
                [b'\t', ..] if self.request_line.is_some() => self.seen += 1,
                // RFC 8446, section 5.1: 22 is a handshake of TLS.
                [22, ..] if self.seen == 0 => return Err(HeadError::SpeaksTls),
                _ => return Err(HeadError::ControlByte),
            }
        }
        self.seen = end;
        if input.len() > limit { Err(too_long) } else { Ok(None) }
    }

    /// Where the current line must end at the latest, and what is wrong if it does not.
    fn line_limit(&self) -> (usize, HeadError) {
        let line_limit = self.line.saturating_add(self.limits.line);
        let head_limit = self.begin.saturating_add(self.limits.head);
        // The empty line that ends the head is let through even when nothing else is.
        let head_limit = head_limit.max(self.line);
        if head_limit < line_limit {
            return (head_limit, HeadError::HeadTooLong);
        }
        match self.request_line {
            None => (line_limit, HeadError::RequestLineTooLong),
            Some(_) => (line_limit, HeadError::FieldLineTooLong),
        }
    }

    /// RFC 9112, section 2.2: a server should ignore at least one empty line before a request.
    fn skip_empty_line(&mut self, next: usize) -> Result<(), HeadError> {
        if next > self.limits.empty_lines {
            return Err(HeadError::TooManyEmptyLines);
        }
        self.begin = next;
        Ok(())
    }

    fn push_field(&mut self, line: &[u8]) -> Result<(), HeadError> {
        let (name, value) = field_line(line).map_err(HeadError::Field)?;
        if self.headers.len() == self.limits.fields {
            return Err(HeadError::TooManyFields);
        }
        self.headers.push(name, value);
        Ok(())
    }

    /// The head is complete: checks what only the whole can show, and makes ready for the next.
    fn finish(&mut self, used: usize) -> Result<Parse<RequestHead>, HeadError> {
        let field = host_field(&self.headers)?;
        let Some(line) = self.request_line.take() else {
            return Ok(Parse::Partial);
        };
        if field.is_none() && line.version == Version::Http11 {
            return Err(HeadError::MissingHost);
        }
        // RFC 9112, section 3.2.2: the host in the target wins, whatever the field says.
        let host = line.target_host.or(field).unwrap_or_default();
        let headers = std::mem::take(&mut self.headers);
        (self.begin, self.line, self.seen) = (0, 0, 0);
        let RequestLine { method, target, version, .. } = line;
        let value = RequestHead { method, target, version, host, headers };
        Ok(Parse::Complete { value, used })
    }
}

const LINE_END: &[u8] = b"\r\n";

impl RequestLine {
    // request-line = method SP request-target SP HTTP-version        RFC 9112, section 3
    fn parse(line: &[u8]) -> Result<RequestLine, HeadError> {
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(HeadError::RequestLineParts);
        };
        if method.is_empty() || target.is_empty() {
            return Err(HeadError::RequestLineParts);
        }
        let method = Method::parse(method)?;
        // The version decides what the rest means, so it is read before the target.
        let version = Version::parse(version)?;
        let (target, target_host) = Target::parse(target, &method)?;
        Ok(RequestLine { method, target, target_host, version })
    }
}

/// The value of the one `Host` field, if there is one.
fn host_field(headers: &Headers) -> Result<Option<String>, HeadError> {
    let mut values = headers.get_all(HOST);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    // RFC 9112, section 3.2: more than one, or an invalid one, must be answered with 400.
    if values.next().is_some() {
        return Err(HeadError::ManyHosts);
    }
    match (value.as_str(), authority(value.as_bytes())) {
        (Some(text), Some(Authority { host, port })) if !host.is_empty() || port.is_none() => {
            Ok(Some(text.to_string()))
        }
        _ => Err(HeadError::InvalidHost),
    }
}

/// What is wrong with a head, and the status that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadError {
    /// A line ends in LF without CR. 400.
    BareLineFeed,
    /// A CR is not followed by LF. 400.
    BareCarriageReturn,
    /// A control byte stands where text must be. 400.
    ControlByte,
    /// The client begins with TLS, as for `https`. 400.
    SpeaksTls,
    /// Too many empty lines come before the request line. 400.
    TooManyEmptyLines,
    /// The request line is longer than [`HeadLimits::line`]. 414, also if what is so long is a
    /// method without any space: we cannot know what would have followed it.
    RequestLineTooLong,
    /// The request line is not three parts with one space between them. 400.
    RequestLineParts,
    /// The method is no token. 400.
    MethodNotToken,
    /// The target holds a byte that is not visible ASCII. 400.
    TargetByte,
    /// The target has a `#`; clients keep that part for themselves. 400.
    Fragment,
    /// The target has none of the four forms, or one that needs `CONNECT`. 400.
    TargetForm,
    /// An absolute target has a scheme other than `http`. 400.
    ForeignScheme,
    /// An absolute target has a user name before the host. 400.
    Userinfo,
    /// An absolute target has an empty host. 400.
    EmptyAuthority,
    /// `*` with a method other than `OPTIONS`. 400.
    AsteriskForm,
    /// `CONNECT` with something else than a host and a port. 400.
    AuthorityForm,
    /// The version is not written `HTTP/1.1`. 400.
    MalformedVersion,
    /// A version of HTTP that is not 1.x. 505.
    UnsupportedVersion,
    /// A field line is longer than [`HeadLimits::line`]. 431.
    FieldLineTooLong,
    /// The head is longer than [`HeadLimits::head`]. 431.
    HeadTooLong,
    /// More fields than [`HeadLimits::fields`]. 431.
    TooManyFields,
    /// A field line is wrong. 400.
    Field(FieldError),
    /// A request of HTTP/1.1 has no `Host`. 400.
    MissingHost,
    /// There is more than one `Host`. 400.
    ManyHosts,
    /// The host is no host. 400.
    InvalidHost,
}

impl HeadError {
    /// The rule that is broken.
    pub fn rule(&self) -> &'static str {
        use HeadError::*;
        match self {
            BareLineFeed | BareCarriageReturn | ControlByte => "RFC 9112, section 2.2",
            SpeaksTls => "RFC 9110, section 4.2.1",
            TooManyEmptyLines => "RFC 9112, section 2.2",
            RequestLineTooLong | RequestLineParts => "RFC 9112, section 3",
            MethodNotToken => "RFC 9110, section 9.1",
            MalformedVersion => "RFC 9112, section 2.3",
            UnsupportedVersion => "RFC 9110, section 15.6.6",
            TargetByte | Fragment | TargetForm => "RFC 9112, section 3.2",
            ForeignScheme => "RFC 9110, section 7.4",
            Userinfo => "RFC 9110, section 4.2.4",
            EmptyAuthority => "RFC 9110, section 4.2.1",
            AuthorityForm => "RFC 9112, section 3.2.3",
            AsteriskForm => "RFC 9112, section 3.2.4",
            FieldLineTooLong | HeadTooLong | TooManyFields => "RFC 6585, section 5",
            Field(error) => error.rule(),
            MissingHost | ManyHosts | InvalidHost => "RFC 9112, section 3.2",
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use HeadError::*;
        f.write_str(match self {
            BareLineFeed => "a line ends in LF without CR",
            BareCarriageReturn => "a CR is not followed by LF",
            ControlByte => "a control byte stands where text must be",
            SpeaksTls => "this is http, and the client speaks TLS, as for https",
            TooManyEmptyLines => "too many empty lines before the request line",
            RequestLineTooLong => "the request line is too long",
            RequestLineParts => "the request line is not method, target and version",
            MethodNotToken => "the method is not a token",
            TargetByte => "the target holds a byte that is not visible ASCII",
            Fragment => "the target holds a fragment",
            TargetForm => "the target has a form that does not fit the method",
            ForeignScheme => "the scheme of the target is not http",
            Userinfo => "the target holds a user name",
            EmptyAuthority => "the target names an empty host",
            AsteriskForm => "the target * goes only with OPTIONS",
            AuthorityForm => "CONNECT needs a host and a port",
            MalformedVersion => "the version is not written HTTP/digit.digit",
            UnsupportedVersion => "this server speaks HTTP/1.1 and HTTP/1.0 only",
            FieldLineTooLong => "a field line is too long",
            HeadTooLong => "the head is too long",
            TooManyFields => "there are too many fields",
            Field(error) => return error.fmt(f),
            MissingHost => "a request of HTTP/1.1 needs a Host field",
            ManyHosts => "there is more than one Host field",
            InvalidHost => "the host is not a valid host name or address",
        })
    }
}

impl std::error::Error for HeadError {}
