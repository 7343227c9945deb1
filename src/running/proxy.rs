//! Chapter 39: behind a proxy. RFC 7239; RFC 9110, section 7.6.
//!
//! A proxy opens a connection of its own, so all our clients seem to live at one address, and all
//! of them seem to speak plain HTTP. What it knows it writes into the request:
//!
//! ```text
//!   198.51.100.7 ──https──► outer proxy ──http──► inner proxy ──http──► we
//!                             10.0.0.1              10.0.0.2
//!
//!   X-Forwarded-For:  203.0.113.9, 198.51.100.7, 10.0.0.1      each adds whom it has seen
//!                     a lie        the client     believed      ◄── so we read from the right
//! ```
//!
//! Anybody can write these fields. We read them only if a proxy that we know is at the other end
//! of the connection, and only as far as such proxies have written them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::http::exchange::{Exchange, Handler};
use crate::http::headers::{Headers, Token};
use crate::running::command_line::Trusted;

/// A handler that believes its proxies. Around a gateway, it sees each request first.
pub struct BehindProxy {
    inner: Arc<dyn Handler>,
    trusted: Trusted,
}

impl BehindProxy {
    /// The same handler, told of the real clients behind these proxies.
    pub fn new(inner: Arc<dyn Handler>, trusted: Trusted) -> BehindProxy {
        BehindProxy { inner, trusted }
    }
}

impl Handler for BehindProxy {
    fn handle(&self, exchange: &mut Exchange) -> io::Result<()> {
        if self.trusted.contains(exchange.link.guest.peer.ip()) {
            let said = Forwarded::read(&exchange.head.headers, &self.trusted);
            exchange.client = said.client.unwrap_or(exchange.client);
            exchange.scheme = said.scheme.unwrap_or(exchange.scheme);
            // Nobody else has seen this head yet, so it is ours to change.
            if let (Some(host), Some(head)) = (said.host, Arc::get_mut(&mut exchange.head)) {
                head.host = host;
            }
        }
        self.inner.handle(exchange)
    }
}

/// What proxies say of a request. `None`: they say nothing, or nothing that can be understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// Who has sent it. The port is 0 if it is not known.
    pub client: Option<SocketAddr>,
    /// `http` or `https`.
    pub scheme: Option<&'static str>,
    /// The host that the client has asked.
    pub host: Option<String>,
}

const X_FOR: Token = Token::constant("X-Forwarded-For");
const X_PROTO: Token = Token::constant("X-Forwarded-Proto");
const X_HOST: Token = Token::constant("X-Forwarded-Host");
const FORWARDED: Token = Token::constant("Forwarded");

impl Forwarded {
    /// Reads what the proxies have written. The one at the other end of the connection must be
    /// trusted: that has been checked.
    pub fn read(headers: &Headers, trusted: &Trusted) -> Forwarded {
        // A proxy that writes the one kind passes the other on, as the client has made it up. Most
        // write X-Forwarded-For. So where any of those is, the standard's field is not read.
        let is_old = [X_FOR, X_PROTO, X_HOST].into_iter().any(|name| headers.contains(name));
        if !is_old {
            return Forwarded::chosen(elements(headers), trusted);
        }
        let hop = |node: &str| Forwarded { client: address(node), ..Forwarded::default() };
        let hops = members(headers, X_FOR).iter().map(|node| hop(node)).collect();
        Forwarded {
            // The nearest proxy has written the last one.
            scheme: members(headers, X_PROTO).last().and_then(|word| scheme(word)),
            host: members(headers, X_HOST).last().and_then(|word| host(word)),
            ..Forwarded::chosen(hops, trusted)
        }
    }

    /// From the right: each hop was written by the one to the right of it. The first that is no
    /// proxy of ours is the client, and what is to the left of it, the client has written itself.
    /// RFC 7239, section 8.1.
    fn chosen(hops: Vec<Forwarded>, trusted: &Trusted) -> Forwarded {
        let mut chosen = Forwarded::default();
        for hop in hops.into_iter().rev() {
            chosen.scheme = hop.scheme.or(chosen.scheme);
            chosen.host = hop.host.or(chosen.host);
            // RFC 7239, section 6: a proxy may hide whom it has seen. Then nobody knows who it was.
            let Some(client) = hop.client else {
                break;
            };
            chosen.client = Some(client);
            if !trusted.contains(client.ip()) {
                break;
            }
        }
        chosen
    }
}

/// All members of a list, over all lines of that name. Bytes that are no text become letters that
/// fit nowhere.
fn members(headers: &Headers, name: Token) -> Vec<String> {
    let members = headers.members(name);
    members.map(|member| String::from_utf8_lossy(member).into_owned()).collect()
}

/// 192.0.2.43, 192.0.2.43:47011, 2001:db8::17, [2001:db8::17] or [2001:db8::17]:47011
fn address(node: &str) -> Option<SocketAddr> {
    let node = match node.rsplit_once(':') {
        // RFC 7239, section 6.3: a proxy may hide the port, which nobody needs.
        Some((host, port)) if port.starts_with('_') => host,
        _ => node,
    };
    let bare = node.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(node);
    let without_port = bare.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, 0));
    without_port.or_else(|| node.parse().ok())
}

fn scheme(word: &str) -> Option<&'static str> {
    // RFC 3986, section 3.1: a scheme is the same in capital letters.
    let is = |scheme: &&str| word.eq_ignore_ascii_case(scheme);
    ["http", "https"].into_iter().find(is)
}

/// A host, perhaps with a port: it will stand where the field `Host` stood.
fn host(word: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    (!word.is_empty() && word.bytes().all(fits)).then(|| word.to_string())
}

// Forwarded = 1#( [ forwarded-pair ] *( ";" [ forwarded-pair ] ) )        RFC 7239, section 4
fn elements(headers: &Headers) -> Vec<Forwarded> {
    let lines = headers.get_all(FORWARDED).map(|line| String::from_utf8_lossy(line.as_bytes()));
    let text = lines.collect::<Vec<_>>().join(",");
    let mut elements = Vec::new();
    let mut rest = Some(text.as_str());
    // A quotation mark that the client has left open is to the left of what our proxies have
    // written. So it hides nothing from one who comes from the right.
    while let Some(text) = rest {
        let (before, last) = split_last(text);
        // RFC 9110, section 5.6.1.2: an empty element counts for nothing.
        if !last.trim_matches([' ', '\t']).is_empty() {
            elements.push(element(last).unwrap_or_default());
        }
        rest = before;
    }
    elements.reverse();
    elements
}

/// What is behind the last comma, and what is in front of it. A comma in a quoted string is none.
fn split_last(text: &str) -> (Option<&str>, &str) {
    let mut is_quoted = false;
    for (at, mark) in text.rmatch_indices(['"', ',']) {
        let (before, after) = (text.get(..at), text.get(at + 1..));
        match mark {
            "\"" => is_quoted = !is_quoted || before.is_some_and(ends_escaping),
            _ if !is_quoted => return (before, after.unwrap_or_default()),
            _ => {}
        }
    }
    (None, text)
}

/// Whether a backslash at the end is for what follows. Of two, the second belongs to the first.
fn ends_escaping(text: &str) -> bool {
    let backslashes = text.len() - text.trim_end_matches('\\').len();
    backslashes % 2 == 1
}

// forwarded-pair = token "=" ( token / quoted-string )
/// `None` if a quoted string has no end: then nobody knows where a pair ends.
fn element(text: &str) -> Option<Forwarded> {
    let mut hop = Forwarded::default();
    for pair in pairs(text)? {
        let Some((name, value)) = pair.split_once('=') else {
            continue;
        };
        let value = unquoted(value.trim());
        match name.trim().to_ascii_lowercase().as_str() {
            "for" => hop.client = address(&value),
            "proto" => hop.scheme = scheme(&value),
            "host" => hop.host = host(&value),
            _ => {}
        }
    }
    Some(hop)
}

/// What is between the semicolons of an element that are in no quoted string.
fn pairs(element: &str) -> Option<Vec<&str>> {
    let (mut pairs, mut start) = (Vec::new(), 0);
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, letter) in element.char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ';' if !is_quoted => {
                pairs.push(element.get(start..at)?);
                start = at + 1;
            }
            _ => {}
        }
    }
    pairs.push(element.get(start..)?);
    (!is_quoted).then_some(pairs)
}

/// RFC 9110, section 5.6.4: a quoted string, without its quotation marks and backslashes.
fn unquoted(value: &str) -> String {
    let inside = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let Some(inside) = inside else {
        return value.to_string();
    };
    let mut letters = inside.chars();
    let mut text = String::new();
    while let Some(letter) = letters.next() {
        text.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    text
}
