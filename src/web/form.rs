//! Chapter 22: forms, cookies and JSON. WHATWG URL Standard, section 5; RFC 6265; RFC 8259.
//!
//! Three small languages in which an application and a browser exchange values:
//!
//! ```text
//!   form     name=Ada+L.&tag=a&tag=b            from the browser, in a body
//!   cookie   Cookie: theme=dark; seen=3         from the browser, with each request
//!            Set-Cookie: theme=dark; Path=/     to the browser, which remembers it
//!   JSON     {"name": "Ada L.", "tags": []}     to a script
//! ```
//!
//! Each has characters that mean something, and each is a place where a value can break out of
//! its quotes. So each is written in one place only.

use std::collections::btree_map;
use std::error::Error;
use std::fmt;
use std::io::{self, Read};
use std::slice;
use std::time::Duration;

use crate::http::headers::{FieldError, Headers, Token};
use crate::http::url::{Query, QueryLimits, UrlError};
use crate::web::value::Value;

/// How much a form may hold. Above it the answer is 413.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormLimits {
    /// Bytes of an urlencoded body: it is kept in memory, whole.
    pub bytes: usize,
    /// Number of fields: each costs memory far above the byte or two that it takes to send.
    pub fields: usize,
}

impl Default for FormLimits {
    fn default() -> FormLimits {
        FormLimits { bytes: 1024 * 1024, fields: 1_000 }
    }
}

/// Reads an urlencoded form from a request body.
///
/// It is UTF-8 whatever the `charset` of its media type says, as the Standard wants it, and bytes
/// that are none become U+FFFD. `+` is a space, and a bad `%` is a percent sign, as in a query.
///
/// # Errors
/// Every [`FormError`]. After one, the rest of the body is still in the source.
// application/x-www-form-urlencoded        WHATWG URL Standard, section 5.1
pub fn read_form(source: &mut dyn Read, limits: &FormLimits) -> Result<Query, FormError> {
    let mut body = Vec::new();
    let most = limits.bytes as u64;
    // One byte more than allowed shows that there is more than allowed.
    source.take(most.saturating_add(1)).read_to_end(&mut body).map_err(FormError::Source)?;
    if body.len() > limits.bytes {
        return Err(FormError::TooLong);
    }
    let text = String::from_utf8_lossy(&body);
    Query::parse(&text, &QueryLimits { pairs: limits.fields }).map_err(FormError::Pairs)
}

/// What is wrong with a form.
#[derive(Debug)]
pub enum FormError {
    /// It is longer than [`FormLimits::bytes`]. 413.
    TooLong,
    /// It has more fields than [`FormLimits::fields`]. 413.
    Pairs(UrlError),
    /// The body could not be read; the error is the source's own. Its status is the body's.
    Source(io::Error),
}

impl FormError {
    /// The rule that is broken.
    pub fn rule(&self) -> &'static str {
        match self {
            FormError::TooLong => "RFC 9110, section 15.5.14",
            FormError::Pairs(error) => error.rule(),
            FormError::Source(_) => "RFC 9112, section 8",
        }
    }
}

impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            FormError::TooLong => f.write_str("the form is too long"),
            FormError::Pairs(error) => error.fmt(f),
            FormError::Source(error) => write!(f, "the form could not be read: {error}"),
        }
    }
}

impl Error for FormError {}

/// The field with which a browser sends cookies back.
pub const COOKIE: Token<'static> = Token::constant("Cookie");
/// The field that asks a browser to remember one.
pub const SET_COOKIE: Token<'static> = Token::constant("Set-Cookie");

/// The cookies of a request, in the order they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cookies {
    pairs: Vec<(String, String)>,
}

impl Cookies {
    /// Number of cookies that are read; those after them are skipped. Browsers keep up to 180 for a
    /// domain, and 16 KiB of `a=;` would become half a megabyte here.
    pub const MOST: usize = 300;

    /// Reads all Cookie fields. What is not `name=value`, or not UTF-8, is skipped: cookies come
    /// from anywhere under the same domain, and one bad one must not lock a visitor out.
    // cookie-string = cookie-pair *( ";" SP cookie-pair )        RFC 6265, section 4.2.1
    pub fn of(headers: &Headers) -> Cookies {
        let fields = headers.get_all(COOKIE);
        let parts = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
        Cookies { pairs: parts.filter_map(cookie_pair).take(Cookies::MOST).collect() }
    }

    /// The value of the first cookie of that name: browsers send the most specific path first.
    /// Upper and lower case differ.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.pairs.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// All of them, name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

// cookie-pair  = cookie-name "=" cookie-value        RFC 6265, section 4.1.1
// cookie-value = *cookie-octet / ( DQUOTE *cookie-octet DQUOTE )
fn cookie_pair(pair: &[u8]) -> Option<(String, String)> {
    let (name, value) = std::str::from_utf8(pair).ok()?.split_once('=')?;
    // Spaces and tabs only. For a browser, U+2000 in front of `__Host-a` makes another name, which
    // any subdomain may set.
    let (name, value) = (name.trim_matches([' ', '\t']), value.trim_matches([' ', '\t']));
    if name.is_empty() {
        return None;
    }
    let inside = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    Some((name.to_string(), inside.unwrap_or(value).to_string()))
}

/// A cookie for the browser to remember. The defaults are the careful ones: it ends with the
/// browser, no script can read it, and the forms of other sites do not send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetCookie {
    /// Its name: a token. `__Secure-` and `__Host-` in front are promises that are checked.
    pub name: String,
    /// Its value: visible ASCII without quote, comma, semicolon and backslash. Encode the rest.
    pub value: String,
    /// How long to remember it; zero forgets it; `None` is until the browser ends. More than 400
    /// days are written as 400 days, where browsers stop.
    pub max_age: Option<Duration>,
    /// Paths under which it is sent: this one, and all that continue it after a slash.
    pub path: String,
    /// Domain whose subdomains get it too; `None` is this host only.
    pub domain: Option<String>,
    /// Send it over encrypted connections only.
    pub secure: bool,
    /// Keep it from scripts.
    pub http_only: bool,
    /// Which requests from other sites carry it.
    pub same_site: SameSite,
}

/// The attribute SameSite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    /// None of them.
    Strict,
    /// Links, but not forms and scripts.
    Lax,
    /// All. It needs `secure`.
    None,
}

impl SetCookie {
    /// A cookie with the careful defaults.
    pub fn new(name: &str, value: &str) -> SetCookie {
        SetCookie {
            name: name.to_string(),
            value: value.to_string(),
            max_age: None,
            path: "/".to_string(),
            domain: None,
            secure: false,
            http_only: true,
            same_site: SameSite::Lax,
        }
    }

    /// The value of the field Set-Cookie.
    ///
    /// # Errors
    /// Every [`CookieError`]: it would break the field, or browsers would drop it without a word.
    // set-cookie-string = cookie-pair *( ";" SP cookie-av )        RFC 6265, section 4.1.1
    pub fn to_field(&self) -> Result<String, CookieError> {
        self.check_text()?;
        self.check_promises()?;
        let mut field = format!("{}={}; Path={}", self.name, self.value, self.path);
        match self.max_age {
            // Max-Age has no zero in the grammar; a date in the past is how a server forgets.
            Some(Duration::ZERO) => field += "; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
            Some(age) => {
                // Half a second is one, for 0 would forget the cookie.
                let seconds = age.as_secs().clamp(1, LONGEST_AGE);
                field += &format!("; Max-Age={seconds}");
            }
            None => {}
        }
        if let Some(domain) = &self.domain {
            field += &format!("; Domain={domain}");
        }
        for (wanted, word) in [(self.secure, "; Secure"), (self.http_only, "; HttpOnly")] {
            field += if wanted { word } else { "" };
        }
        field += match self.same_site {
            SameSite::Strict => "; SameSite=Strict",
            SameSite::Lax => "; SameSite=Lax",
            SameSite::None => "; SameSite=None",
        };
        Ok(field)
    }

    /// No text may end its part of the field early.
    fn check_text(&self) -> Result<(), CookieError> {
        Token::new(self.name.as_bytes()).map_err(CookieError::Name)?;
        if !self.value.bytes().all(is_cookie_octet) {
            return Err(CookieError::Value);
        }
        if self.name.len() + self.value.len() > MOST_BYTES {
            return Err(CookieError::TooLong);
        }
        // A browser ignores a path without a slash in front, and takes the page's own folder.
        if !self.path.starts_with('/') || !self.path.bytes().all(is_attribute_octet) {
            return Err(CookieError::Path);
        }
        match &self.domain {
            Some(domain) if domain.is_empty() || !domain.bytes().all(is_domain_octet) => {
                Err(CookieError::Domain)
            }
            _ => Ok(()),
        }
    }

    /// What browsers demand of some cookies, and drop them otherwise.
    fn check_promises(&self) -> Result<(), CookieError> {
        let begins_with = |prefix: &str| {
            let start = self.name.get(..prefix.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        let host_only = begins_with("__Host-");
        if host_only && (self.domain.is_some() || self.path != "/") {
            return Err(CookieError::HostPrefix);
        }
        let needs_secure =
            host_only || begins_with("__Secure-") || self.same_site == SameSite::None;
        if needs_secure && !self.secure {
            return Err(CookieError::NotSecure);
        }
        Ok(())
    }
}

/// 400 days in seconds.
const LONGEST_AGE: u64 = 400 * 24 * 3600;
/// Bytes of name and value together: browsers need not keep more. RFC 6265, section 6.1.
const MOST_BYTES: usize = 4096;

// cookie-octet = %x21 / %x23-2B / %x2D-3A / %x3C-5B / %x5D-7E        RFC 6265, section 4.1.1
fn is_cookie_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\",;\\".contains(&byte)
}

// av-octet = any CHAR except CTLs or ";"        RFC 6265, section 4.1.1, with erratum 3444
fn is_attribute_octet(byte: u8) -> bool {
    (byte.is_ascii_graphic() || byte == b' ') && byte != b';'
}

// A host name, and the underscore that some have.        RFC 6265, section 4.1.2.3
fn is_domain_octet(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_".contains(&byte)
}

/// Why a cookie cannot be set. A programmer's mistake, so 500.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CookieError {
    /// The name is no token.
    Name(FieldError),
    /// The value holds a character that cookies cannot hold. Encode it first.
    Value,
    /// Name and value are longer than 4,096 bytes together.
    TooLong,
    /// The path does not begin with a slash, or holds a semicolon or what is not visible ASCII.
    Path,
    /// The domain is empty, or holds what a host name cannot hold.
    Domain,
    /// `__Host-` in the name promises the path `/` and no domain.
    HostPrefix,
    /// `__Host-`, `__Secure-` and [`SameSite::None`] need `secure`.
    NotSecure,
}

impl CookieError {
    /// The rule that is broken.
    pub fn rule(&self) -> &'static str {
        match self {
            CookieError::Name(_) | CookieError::Value => "RFC 6265, section 4.1.1",
            CookieError::Path => "RFC 6265, section 5.2.4",
            CookieError::Domain => "RFC 6265, section 4.1.2.3",
            CookieError::TooLong => "RFC 6265, section 6.1",
            CookieError::HostPrefix => "draft-ietf-httpbis-rfc6265bis, section 4.1.3",
            CookieError::NotSecure => "RFC 6265, section 4.1.2.5",
        }
    }
}

impl fmt::Display for CookieError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            CookieError::Name(_) => "the name of a cookie is not a token",
            CookieError::Value => "the value of a cookie holds what it cannot hold",
            CookieError::TooLong => "a cookie is longer than browsers keep",
            CookieError::Path => "the path of a cookie holds what it cannot hold",
            CookieError::Domain => "the domain of a cookie is no host name",
            CookieError::HostPrefix => "a __Host- cookie has a domain or a path other than /",
            CookieError::NotSecure => "a cookie that must be secure is not",
        })
    }
}

impl Error for CookieError {}

/// A value as JSON, in one line. RFC 8259.
///
/// A page may embed it in a script: `<`, `>` and `&` are written as escapes, so that `</script>`
/// inside a text does not end the script around it. A [`Value::Safe`] is a text like any other.
/// Infinity and "not a number" become `null`. JavaScript rounds integers above 2^53.
///
/// However deep the value is, it takes the same few bytes of stack: what is open is kept in a list.
pub fn to_json(value: &Value) -> String {
    let mut json = String::new();
    let mut open: Vec<Open> = begin(&mut json, value).into_iter().collect();
    while let Some(innermost) = open.last_mut() {
        let Some((name, item)) = innermost.next() else {
            json.push(innermost.bracket());
            open.pop();
            continue;
        };
        // A text ends with a quote, so a bracket at the end is one that was opened right now.
        if !json.ends_with(['[', '{']) {
            json.push_str(", ");
        }
        if let Some(name) = name {
            push_text(&mut json, name);
            json.push_str(": ");
        }
        open.extend(begin(&mut json, item));
    }
    json
}

/// A list or a map, and what of it is still to be written.
enum Open<'v> {
    List(slice::Iter<'v, Value>),
    Map(btree_map::Iter<'v, String, Value>),
}

impl<'v> Open<'v> {
    /// The next item, and its name if it has one.
    fn next(&mut self) -> Option<(Option<&'v str>, &'v Value)> {
        match self {
            Open::List(items) => items.next().map(|item| (None, item)),
            Open::Map(items) => items.next().map(|(name, item)| (Some(name.as_str()), item)),
        }
    }

    fn bracket(&self) -> char {
        match self {
            Open::List(_) => ']',
            Open::Map(_) => '}',
        }
    }
}

/// Writes a value that has nothing inside. Of a list or a map it writes the bracket, and returns
/// what comes next.
fn begin<'v>(json: &mut String, value: &'v Value) -> Option<Open<'v>> {
    match value {
        Value::Nothing => json.push_str("null"),
        Value::Bool(truth) => json.push_str(if *truth { "true" } else { "false" }),
        Value::Integer(number) => json.push_str(&number.to_string()),
        // As Rust's code writes it: 1.0, 1e300. The other form has 300 zeros.
        Value::Float(number) if number.is_finite() => json.push_str(&format!("{number:?}")),
        // RFC 8259, section 6: infinity and "not a number" are not permitted.
        Value::Float(_) => json.push_str("null"),
        Value::Text(text) | Value::Safe(text) => push_text(json, text),
        Value::List(items) => {
            json.push('[');
            return Some(Open::List(items.iter()));
        }
        Value::Map(map) => {
            json.push('{');
            return Some(Open::Map(map.iter()));
        }
    }
    None
}

// string = quotation-mark *char quotation-mark        RFC 8259, section 7
fn push_text(json: &mut String, text: &str) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            // The last two were line ends of JavaScript, and may not stand in its older strings.
            '\0'..='\x1f' | '<' | '>' | '&' | '\u{7f}' | '\u{2028}' | '\u{2029}' => {
                json.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            _ => json.push(character),
        }
    }
    json.push('"');
}
