//! Chapter 38: the command line. POSIX.1-2017, XBD section 12.2, as far as long names allow.
//!
//! ```text
//!   --port 8001, --port=8001 ─┐ wins
//!   PORT=8001                 ├──────► one row of FLAGS ──► one field of Config
//!   the row's default: 8000  ─┘
//! ```
//!
//! All that the programs know about a flag stands in its row: the parser reads it, the help is
//! printed from it, and the errors quote it. What is not understood is an error and never ignored.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::{self, ExitCode};
use std::time::Duration;

use crate::http::server::Settings;
use crate::running::access_log::Format;
use crate::socket::listener::BindError;
use crate::socket::pool::PoolSize;

/// Which contract stands between the server and the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// One call for each request.
    Wsgi,
    /// Events, for requests.
    AsgiHttp,
    /// Events, for requests and for WebSockets.
    AsgiWs,
}

impl Protocol {
    /// All of them, the default first.
    pub const ALL: [Protocol; 3] = [Protocol::Wsgi, Protocol::AsgiHttp, Protocol::AsgiWs];

    /// The word for it, which is also the name of its program.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Wsgi => "wsgi",
            Protocol::AsgiHttp => "asgi_http",
            Protocol::AsgiWs => "asgi_ws",
        }
    }
}

/// Whose word we take for who the client is. Anybody can send `X-Forwarded-For`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trusted {
    /// The proxies at these addresses; with an empty list, nobody.
    These(Vec<IpAddr>),
    /// Everybody. Right only if nothing but a proxy can reach us.
    Everybody,
}

impl Trusted {
    /// Whether a peer with this address is believed.
    pub fn contains(&self, peer: IpAddr) -> bool {
        match self {
            // A socket of IPv6 shows a peer of IPv4 as ::ffff:10.0.0.1. RFC 4291, section 2.5.5.2.
            Trusted::These(list) => list.contains(&peer.to_canonical()),
            Trusted::Everybody => true,
        }
    }
}

/// The address of a WebSocket. RFC 6455, section 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocketUrl {
    /// Host and port as they were written: the value of the field `Host`.
    pub authority: String,
    /// The host without brackets.
    pub host: String,
    /// The port; 80 if none was written.
    pub port: u16,
    /// Path and query, from the first `/` on.
    pub target: String,
}

/// All that a command line can say about a server.
#[derive(Debug, Clone)]
pub struct Config {
    /// The contract.
    pub protocol: Protocol,
    /// What the server of one process needs.
    pub settings: Settings,
    /// The application to serve: `MODULE:CALLABLE`, or `static:DIR`. Without it, the site.
    pub application: Option<String>,
    /// How many processes.
    pub workers: usize,
    /// How long an application in another process may take to begin its answer.
    pub timeout: Duration,
    /// The folder of the templates, in place of the site's own.
    pub templates: Option<PathBuf>,
    /// A folder of files to serve as they are.
    pub static_files: Option<PathBuf>,
    /// The folder for uploaded files.
    pub uploads: Option<PathBuf>,
    /// How requests are logged.
    pub access_log: Format,
    /// Whether error pages tell what went wrong.
    pub debug: bool,
    /// The path under which a proxy shows this site. Empty, or `/shop`.
    pub root_path: String,
    /// The proxies that are believed.
    pub forwarded_allow_ips: Trusted,
    /// Bytes in one WebSocket message.
    pub ws_max_message: usize,
    /// Other origins whose pages may open a WebSocket here. RFC 6455, section 10.2.
    pub ws_origins: Vec<String>,
    /// The environment variables that have set something.
    pub from_environment: Vec<&'static str>,
    connect: Option<WebSocketUrl>,
}

impl Config {
    /// The defaults.
    pub fn new(protocol: Protocol) -> Config {
        Config {
            protocol,
            settings: Settings::default(),
            application: None,
            workers: 1,
            timeout: Duration::from_secs(30),
            templates: None,
            static_files: None,
            uploads: None,
            access_log: Format::Short,
            debug: false,
            root_path: String::new(),
            forwarded_allow_ips: Trusted::These(Vec::new()),
            ws_max_message: 16 << 20,
            ws_origins: Vec::new(),
            from_environment: Vec::new(),
            connect: None,
        }
    }

    /// The folder of `static:DIR`.
    pub fn folder(&self) -> Option<&str> {
        self.application.as_ref()?.strip_prefix("static:")
    }

    /// The application in Python.
    pub fn python(&self) -> Option<&str> {
        self.application.as_deref().filter(|_| self.folder().is_none())
    }
}

/// What a program has been asked to do.
#[derive(Debug, Clone)]
pub enum Command {
    /// Serve.
    Serve(Box<Config>),
    /// Open this WebSocket and talk to it.
    Connect(WebSocketUrl, Box<Config>),
    /// Print this text.
    Help(String),
    /// Print this line.
    Version(String),
}

/// Why a command line cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UsageError {
    /// No program has this flag. Perhaps the other one was meant.
    UnknownFlag(String, Option<&'static str>),
    /// Another program has this flag.
    OnlyFor(&'static str, Protocol),
    /// The flag stands there alone. The text says what is allowed.
    NeedsValue(&'static str, String),
    /// The flag stands for itself, but got this value.
    TakesNoValue(&'static str, String),
    /// The flag or variable, what is allowed, and what was said.
    BadValue(&'static str, String, String),
    /// The flag is there twice. Which one counts?
    Twice(&'static str),
    /// The flag is about the site, and something else is to be served.
    OnlyForSite(&'static str),
    /// A word that is neither a flag, nor its value, nor an application.
    Positional(String),
    /// An argument or a variable with bytes that are no UTF-8.
    NotText(String),
    /// `SERVER_PROTOCOL` has another value than the three.
    UnknownProtocol(String),
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        // What was typed is shown with {:?}: it may hold anything, also commands to a terminal.
        match self {
            UsageError::UnknownFlag(flag, None) => write!(f, "There is no flag {flag:?}."),
            UsageError::UnknownFlag(flag, Some(near)) => {
                write!(f, "There is no flag {flag:?}. Perhaps you mean {near}?")
            }
            UsageError::OnlyFor(flag, only) => {
                write!(f, "{flag} is a flag of {} only.", only.name())
            }
            UsageError::NeedsValue(flag, allowed) => write!(f, "{flag} needs a value: {allowed}."),
            UsageError::TakesNoValue(flag, value) => {
                write!(f, "{flag} stands alone; it cannot be {value:?}.")
            }
            UsageError::BadValue(place, allowed, value) => {
                let kind = if place.starts_with('-') { "" } else { "The variable " };
                write!(f, "{kind}{place} takes {allowed}; not {value:?}.")
            }
            UsageError::Twice(flag) => write!(f, "{flag} is there twice. Which one counts?"),
            UsageError::OnlyForSite(flag) => {
                write!(f, "{flag} is about the program's own site; an application has its own.")
            }
            UsageError::Positional(word) => {
                // Django takes `8001` or `localhost:8001` like this.
                let end = word.trim_end_matches('/').rsplit(':').next();
                let port: u16 = end.and_then(|end| end.parse().ok()).unwrap_or(8000);
                write!(f, "{word:?} is no flag, such as --port {port}, and no application, ")?;
                write!(f, "which is MODULE:CALLABLE or static:DIR.")
            }
            UsageError::NotText(shown) => write!(f, "{shown:?} is not valid UTF-8."),
            UsageError::UnknownProtocol(word) => {
                let names = Protocol::ALL.map(Protocol::name).join(", ");
                write!(f, "SERVER_PROTOCOL is one of {names}; not {word:?}.")
            }
        }
    }
}

impl std::error::Error for UsageError {}

/// What a flag takes, what is allowed, and where it goes.
pub enum Takes {
    /// Nothing: it is there or not.
    Nothing(fn(&mut Config)),
    /// A number in this range.
    Number(RangeInclusive<u64>, fn(&mut Config, u64)),
    /// A number of bytes in this range.
    Size(RangeInclusive<u64>, fn(&mut Config, u64)),
    /// A time; the range is in milliseconds.
    Seconds(RangeInclusive<u64>, fn(&mut Config, Duration)),
    /// A text: how the help calls it, what is allowed, and a function that returns false if this
    /// one is not.
    Text(&'static str, &'static str, fn(&mut Config, &str) -> bool),
}

/// A row of the table.
pub struct Flag {
    /// Its name, with the two hyphens.
    pub name: &'static str,
    /// The value that counts without it, as one would write it. Empty: there is none.
    pub default: &'static str,
    /// What it is for. A few words, to fit on a line of the help.
    pub help: &'static str,
    /// Its value.
    pub takes: Takes,
}

/// Rows that belong together.
pub struct Group {
    /// How the help calls them.
    pub name: &'static str,
    /// The only program that has them, if it is one.
    pub only: Option<Protocol>,
    /// The rows.
    pub flags: &'static [Flag],
}

const fn flag(name: &'static str, default: &'static str, help: &'static str, takes: Takes) -> Flag {
    Flag { name, default, help, takes }
}

const DAY: u64 = 86_400_000;

/// Every flag of every program, in the order of the help.
#[rustfmt::skip] // a row is a line or two: this is a table
pub const FLAGS: &[Group] = &[
    Group { name: "Listen", only: None, flags: &[
        flag("--host", "127.0.0.1", "name or address; :: for IPv6",
            Takes::Text("ADDRESS", "a host name or an address, without a port", set_host)),
        flag("--port", "8000", "0 means any free one",
            Takes::Number(0..=65_535, |config, port| config.settings.port = port as u16)),
        flag("--threads", "512", "most connections, in each worker",
            Takes::Number(1..=PoolSize::LARGEST_CAP as u64,
                |config, count| config.settings.threads.cap = count as usize)),
        flag("--workers", "1", "processes",
            Takes::Number(1..=512, |config, count| config.workers = count as usize)),
    ] },
    Group { name: "Timeouts", only: None, flags: &[
        flag("--keep-alive", "5", "between two requests",
            Takes::Seconds(0..=DAY, |config, time| config.settings.deadlines.keep_alive = time)),
        flag("--timeout-head", "10", "for a whole request head",
            Takes::Seconds(100..=DAY, |config, time| config.settings.deadlines.head = time)),
        flag("--timeout-body", "10", "the longest gap in a body",
            Takes::Seconds(100..=DAY, |config, time| config.settings.deadlines.body = time)),
        flag("--queue-timeout", "10", "before a full house says 503",
            Takes::Seconds(100..=DAY, |config, time| config.settings.deadlines.queue = time)),
        flag("--timeout", "30", "for an answer of a Python application",
            Takes::Seconds(100..=DAY, |config, time| config.timeout = time)),
        flag("--graceful-timeout", "30", "for open requests, at the end",
            Takes::Seconds(0..=DAY, |config, time| config.settings.graceful_timeout = time)),
    ] },
    Group { name: "Limits", only: None, flags: &[
        flag("--max-body", "16M", "a request body",
            Takes::Size(0..=u64::MAX, |config, size| config.settings.limits.body.body = size)),
        // RFC 9112, section 3 recommends at least 8000 for the request line.
        flag("--limit-request-line", "8K", "a line of a request head",
            Takes::Size(256..=1 << 20,
                |config, size| config.settings.limits.head.line = size as usize)),
        flag("--limit-request-head", "16K", "a whole request head",
            Takes::Size(256..=16 << 20,
                |config, size| config.settings.limits.head.head = size as usize)),
        flag("--limit-request-fields", "100", "fields in a request head",
            Takes::Number(1..=10_000,
                |config, count| config.settings.limits.head.fields = count as usize)),
    ] },
    Group { name: "Files", only: None, flags: &[
        flag("--templates", "", "templates, not the site's own",
            Takes::Text("DIR", "a folder", |config, text| set_folder(&mut config.templates, text))),
        flag("--static", "", "files of /static/, not the site's own",
            Takes::Text("DIR", "a folder",
                |config, text| set_folder(&mut config.static_files, text))),
        flag("--uploads", "", "where uploaded files go",
            Takes::Text("DIR", "a folder", |config, text| set_folder(&mut config.uploads, text))),
    ] },
    Group { name: "Logs", only: None, flags: &[
        flag("--access-log", "short", "none, short, common, combined, json",
            Takes::Text("FORMAT", "none, short, common, combined or json", set_access_log)),
        flag("--wire", "", "show every byte, with its chapter",
            Takes::Nothing(|config| config.settings.wire_view = true)),
        flag("--debug", "", "error pages tell what went wrong",
            Takes::Nothing(|config| config.debug = true)),
    ] },
    Group { name: "Proxy", only: None, flags: &[
        flag("--root-path", "", "where a proxy shows this site",
            Takes::Text("PATH", "a path such as /shop, without a slash at its end", set_root_path)),
        flag("--forwarded-allow-ips", "", "proxies that are believed, or *",
            Takes::Text("LIST", "addresses with commas between them, or *", set_trusted)),
    ] },
    Group { name: "WebSocket", only: Some(Protocol::AsgiWs), flags: &[
        flag("--ws-max-message", "16M", "a message",
            Takes::Size(125..=1 << 30, |config, size| config.ws_max_message = size as usize)),
        flag("--ws-origin", "", "other sites that may connect",
            Takes::Text("LIST", "origins such as https://example.org, with commas between them",
                set_origins)),
        flag("--connect", "", "talk to ws://HOST:PORT/PATH",
            Takes::Text("URL", "ws://HOST:PORT/PATH (for wss, TLS is missing)", set_connect)),
    ] },
    Group { name: "More", only: None, flags: &[
        flag("--help", "", "show this", Takes::Nothing(|_| {})),
        flag("--version", "", "show the version", Takes::Nothing(|_| {})),
    ] },
];

/// A variable, and the flag it stands for. POSIX.1-2017, XBD section 8.1.
pub const ENVIRONMENT: &[(&str, &str)] =
    &[("HOST", "--host"), ("PORT", "--port"), ("WEB_CONCURRENCY", "--workers")];

/// Flags that would change nothing when an application or a folder is served.
const OF_THE_SITE: [&str; 4] = ["--templates", "--static", "--uploads", "--debug"];

/// Reads a command line. `own` is the program's contract; a program that has none of its own asks
/// the variable `SERVER_PROTOCOL`. The arguments are those after the program's name.
///
/// # Errors
/// The first thing that is not understood.
pub fn parse<A: Into<OsString>>(
    own: Option<Protocol>,
    arguments: impl IntoIterator<Item = A>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, UsageError> {
    let protocol = match own {
        Some(protocol) => protocol,
        None => chosen(variable(&environment, "SERVER_PROTOCOL")?)?,
    };
    let mut config = Config::new(protocol);
    let mut given = Vec::new();
    let mut arguments = arguments.into_iter().map(|argument| text(argument.into())).peekable();
    while let Some(argument) = arguments.next() {
        let argument = argument?;
        if !argument.starts_with('-') {
            take_application(&mut config, argument)?;
            continue;
        }
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (argument.as_str(), None),
        };
        let flag = find(name, protocol)?;
        match (flag.name, &inline) {
            ("--help", None) => return Ok(Command::Help(help(own))),
            ("--version", None) => return Ok(Command::Version(version())),
            _ => {}
        }
        if given.contains(&flag.name) {
            return Err(UsageError::Twice(flag.name));
        }
        given.push(flag.name);
        // The next argument is the value, unless it is a flag: --port --wire forgot one.
        let is_value =
            |next: &Result<String, _>| !next.as_ref().is_ok_and(|next| next.starts_with("--"));
        let value = match (&flag.takes, inline) {
            (_, Some(value)) => Some(value),
            (Takes::Nothing(_), None) => None,
            (_, None) => arguments.next_if(is_value).transpose()?,
        };
        store(flag, &mut config, flag.name, value.as_deref())?;
    }
    let of_the_site = given.iter().find(|flag| OF_THE_SITE.contains(flag));
    if let (Some(flag), Some(_)) = (of_the_site, &config.application) {
        return Err(UsageError::OnlyForSite(flag));
    }
    follow(&environment, &given, &mut config)?;
    Ok(match config.connect.take() {
        Some(url) => Command::Connect(url, Box::new(config)),
        None => Command::Serve(Box::new(config)),
    })
}

/// An argument as text. The system allows any bytes.
fn text(argument: OsString) -> Result<String, UsageError> {
    argument.into_string().map_err(|bytes| UsageError::NotText(bytes.to_string_lossy().into()))
}

/// The value of a variable. An empty one counts as not set.
fn variable(
    environment: impl Fn(&str) -> Option<OsString>,
    name: &str,
) -> Result<Option<String>, UsageError> {
    environment(name).filter(|value| !value.is_empty()).map(text).transpose()
}

fn chosen(word: Option<String>) -> Result<Protocol, UsageError> {
    let Some(word) = word else {
        return Ok(Protocol::ALL[0]);
    };
    let found = Protocol::ALL.into_iter().find(|protocol| protocol.name() == word);
    found.ok_or(UsageError::UnknownProtocol(word))
}

/// The one word that is no flag, as gunicorn and uvicorn have it.
fn take_application(config: &mut Config, word: String) -> Result<(), UsageError> {
    let (kind, name) = word.split_once(':').unwrap_or_default();
    // What is called in Python has a name: localhost:8001 is an address.
    let has_name = name.starts_with(|first: char| first.is_alphabetic() || first == '_');
    if kind.is_empty() || !(has_name || kind == "static" && !name.is_empty()) {
        return Err(UsageError::Positional(word));
    }
    match config.application.replace(word) {
        None => Ok(()),
        Some(_) => Err(UsageError::Twice("The application")),
    }
}

/// The row with this name, if this program has it.
fn find(name: &str, protocol: Protocol) -> Result<&'static Flag, UsageError> {
    let name = if name == "-h" { "--help" } else { name };
    for group in FLAGS {
        let Some(flag) = group.flags.iter().find(|flag| flag.name == name) else {
            continue;
        };
        return match group.only {
            Some(only) if only != protocol => Err(UsageError::OnlyFor(flag.name, only)),
            _ => Ok(flag),
        };
    }
    Err(UsageError::UnknownFlag(name.to_string(), similar(name)))
}

/// Checks a value and puts it where the row says. `place` is what the error names.
fn store(
    flag: &Flag,
    config: &mut Config,
    place: &'static str,
    value: Option<&str>,
) -> Result<(), UsageError> {
    let Some(value) = value else {
        let Takes::Nothing(set) = &flag.takes else {
            return Err(UsageError::NeedsValue(place, allowed(&flag.takes)));
        };
        set(config);
        return Ok(());
    };
    let in_range = |range: &RangeInclusive<u64>, n: Option<u64>| n.filter(|n| range.contains(n));
    let stored = match &flag.takes {
        Takes::Nothing(_) => return Err(UsageError::TakesNoValue(place, value.to_string())),
        Takes::Number(range, set) => in_range(range, digits(value)).map(|n| set(config, n)),
        Takes::Size(range, set) => in_range(range, size(value)).map(|n| set(config, n)),
        Takes::Seconds(range, set) => {
            in_range(range, milliseconds(value)).map(|n| set(config, Duration::from_millis(n)))
        }
        Takes::Text(_, _, set) => set(config, value).then_some(()),
    };
    stored.ok_or_else(|| UsageError::BadValue(place, allowed(&flag.takes), value.to_string()))
}

/// Only digits: the standard library would take `+5` too.
fn digits(text: &str) -> Option<u64> {
    let fits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| fits)
}

/// `4096`, `64K`, `16M` or `1G`; a K is 1024.
fn size(text: &str) -> Option<u64> {
    for (letter, bytes) in [("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30)] {
        if let Some(count) = text.strip_suffix(letter) {
            return digits(count)?.checked_mul(bytes);
        }
    }
    digits(text)
}

/// `5` or `0.5`, with at most three digits after the point.
fn milliseconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let missing = 3_usize.checked_sub(fraction.len())?;
    let thousandths = digits(fraction)? * 10_u64.pow(missing as u32);
    digits(whole)?.checked_mul(1000)?.checked_add(thousandths)
}

/// What a value may be, for an error.
fn allowed(takes: &Takes) -> String {
    match takes {
        Takes::Nothing(_) => "nothing".to_string(),
        Takes::Number(range, _) => format!("a number from {} to {}", range.start(), range.end()),
        Takes::Size(range, _) if *range.end() == u64::MAX => {
            "a size, such as 65536, 64K or 16M".to_string()
        }
        Takes::Size(range, _) => {
            format!("a size from {} to {}, such as 8192 or 8K", range.start(), range.end())
        }
        Takes::Seconds(range, _) => {
            let (least, most) = (*range.start() as f64 / 1000.0, range.end() / 1000);
            format!("seconds from {least} to {most}, such as 5 or 0.5")
        }
        Takes::Text(_, allowed, _) => allowed.to_string(),
    }
}

fn set_host(config: &mut Config, text: &str) -> bool {
    let is_v6 = text.parse::<Ipv6Addr>().is_ok();
    let host = if is_v6 { Some(text) } else { host_in_url(text) };
    config.settings.host = host.unwrap_or_default().to_string();
    host.is_some()
}

/// RFC 3986, section 3.2.2: in a URL an IPv6 address has brackets. The result has none.
fn host_in_url(text: &str) -> Option<&str> {
    if let Some(inside) = text.strip_prefix('[') {
        return inside.strip_suffix(']').filter(|inside| inside.parse::<Ipv6Addr>().is_ok());
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (!text.is_empty() && !text.starts_with('-') && text.bytes().all(fits)).then_some(text)
}

/// Whether the folder is there is found out by those who use it.
fn set_folder(folder: &mut Option<PathBuf>, text: &str) -> bool {
    *folder = Some(PathBuf::from(text));
    !text.is_empty()
}

fn set_access_log(config: &mut Config, word: &str) -> bool {
    let format = Format::parse(word);
    config.access_log = format.unwrap_or(config.access_log);
    format.is_some()
}

/// PEP 3333 calls it `SCRIPT_NAME`, ASGI 3 `root_path`: it never ends with a slash, because the
/// rest of the path begins with one.
fn set_root_path(config: &mut Config, path: &str) -> bool {
    config.root_path = path.to_string();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let has_shape = path.starts_with('/') && !path.ends_with('/') && !path.contains("//");
    has_shape && path.bytes().all(fits)
}

/// `X-Forwarded-For` is nobody's standard; RFC 7239, section 8.1 warns of its successor too.
fn set_trusted(config: &mut Config, list: &str) -> bool {
    if list == "*" {
        config.forwarded_allow_ips = Trusted::Everybody;
        return true;
    }
    let mut addresses = Vec::new();
    for member in list.split(',') {
        let Ok(address) = member.trim().parse::<IpAddr>() else {
            return false;
        };
        addresses.push(address.to_canonical());
    }
    config.forwarded_allow_ips = Trusted::These(addresses);
    true
}

/// RFC 6454, section 6.2: scheme, host, and the port if it is not the usual one. No path.
fn set_origins(config: &mut Config, list: &str) -> bool {
    config.ws_origins = list.split(',').map(|origin| origin.trim().to_lowercase()).collect();
    config.ws_origins.iter().all(|origin| {
        // A page without an origin sends `null`, and anybody can make such a page: no `null` here.
        let host = origin.strip_prefix("https://").or(origin.strip_prefix("http://"));
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        host.is_some_and(|host| !host.is_empty() && host.bytes().all(fits))
    })
}

fn set_connect(config: &mut Config, url: &str) -> bool {
    config.connect = web_socket_url(url);
    config.connect.is_some()
}

/// ws-URI = "ws:" "//" host [ ":" port ] path [ "?" query ]        RFC 6455, section 3
fn web_socket_url(url: &str) -> Option<WebSocketUrl> {
    let rest = url.strip_prefix("ws://")?;
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // The target goes into a request line as it is. RFC 3986, section 3.5: a fragment stays here.
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return None;
    }
    let (host, port) = match authority.rsplit_once(':') {
        // The last colon of [::1] is not in front of a port.
        Some((host, port)) if !port.ends_with(']') => (host, u16::try_from(digits(port)?).ok()?),
        _ => (authority, 80),
    };
    let slash = if target.starts_with('/') { "" } else { "/" };
    Some(WebSocketUrl {
        authority: authority.to_string(),
        host: host_in_url(host)?.to_string(),
        port,
        target: format!("{slash}{target}"),
    })
}

/// Follows the environment where no flag was given.
fn follow(
    environment: impl Fn(&str) -> Option<OsString>,
    given: &[&str],
    config: &mut Config,
) -> Result<(), UsageError> {
    for (name, flag) in ENVIRONMENT {
        if given.contains(flag) {
            continue;
        }
        if let Some(value) = variable(&environment, name)? {
            store(find(flag, config.protocol)?, config, name, Some(&value))?;
            config.from_environment.push(name);
        }
    }
    Ok(())
}

/// What other servers call it, and what we do.
const ELSEWHERE: &[(&str, &str)] = &[
    ("-b", "--host and --port"),
    ("--bind", "--host and --port"),
    ("-p", "--port"),
    ("-w", "--workers"),
    ("-v", "--version"),
    ("-V", "--version"),
    ("--timeout-keep-alive", "--keep-alive"),
    ("--timeout-graceful-shutdown", "--graceful-timeout"),
    ("--limit-concurrency", "--threads"),
    ("--worker-connections", "--threads"),
    ("--limit-request-field_size", "--limit-request-line"),
    ("--no-access-log", "--access-log none"),
    ("--ws-max-size", "--ws-max-message"),
];

/// The flag that was perhaps meant.
fn similar(name: &str) -> Option<&'static str> {
    if let Some((_, ours)) = ELSEWHERE.iter().find(|(theirs, _)| *theirs == name) {
        return Some(ours);
    }
    let name = name.to_ascii_lowercase();
    let names = || FLAGS.iter().flat_map(|group| group.flags).map(|flag| flag.name);
    let begins = |ours: &&str| name.len() > 4 && ours.starts_with(&name);
    nearest(&name, names()).or_else(|| names().find(begins))
}

/// The nearest of these names, if it is near enough to have been meant.
pub fn nearest(name: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    // Two mistakes at most. A name that is much longer need not be compared.
    let near = |ours: &&str| ours.len().abs_diff(name.len()) <= 2 && distance(name, ours) <= 2;
    names.filter(near).min_by_key(|ours| distance(name, ours))
}

/// How many letters must be put in, taken out, replaced, or exchanged with their neighbour, to
/// make one text of the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    // Three rows of the table: the one before the last, the last, and the one being filled.
    let (mut above, mut row) = (Vec::new(), (0..=b.len()).collect::<Vec<usize>>());
    for i in 0..a.len() {
        let mut next = vec![i + 1];
        for j in 0..b.len() {
            let replaced = row[j] + usize::from(a[i] != b[j]);
            let mut least = replaced.min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                least = least.min(above[j - 1] + 1);
            }
            next.push(least);
        }
        above = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

/// How wide a terminal is at least.
const COLUMNS: usize = 80;

/// The help, printed from the table.
pub fn help(own: Option<Protocol>) -> String {
    let (name, run) = match own {
        Some(protocol) => (protocol.name(), format!("cargo run --bin {} --", protocol.name())),
        None => ("glasshouse", "cargo run --".to_string()),
    };
    let usage = format!("Usage: {name} [APPLICATION] [--flag VALUE | --flag=VALUE] ...");
    let mut help = format!("{usage:72}default:\n");
    for group in FLAGS {
        if own.is_some() && group.only.is_some() && group.only != own {
            continue;
        }
        let mut title = group.name;
        for flag in group.flags {
            let value = match &flag.takes {
                Takes::Nothing(_) => "",
                Takes::Number(..) => "N",
                Takes::Size(..) => "SIZE",
                Takes::Seconds(..) => "SECONDS",
                Takes::Text(value, ..) => value,
            };
            let left = format!("{title:10}{:27}{}", format!("{} {value}", flag.name), flag.help);
            let room = COLUMNS.saturating_sub(left.len());
            help += &format!("{}\n", format!("{left}{:>room$}", flag.default).trim_end());
            title = "";
        }
    }
    if own.is_none() {
        help += "The variable SERVER_PROTOCOL chooses: wsgi (the default), asgi_http, asgi_ws.\n";
    }
    help += "APPLICATION: MODULE:CALLABLE of Python, or static:DIR. Without it: the site.\n";
    help += "Environment: HOST, PORT, WEB_CONCURRENCY (workers), NO_COLOR. A flag wins.\n";
    help += &format!("Example: {run} --host :: --workers 2 --wire\n");
    help
}

fn version() -> String {
    concat!("glasshouse ", env!("CARGO_PKG_VERSION"), "\n").to_string()
}

/// The main function of every program: reads its command line, prints what is to be printed, and
/// calls one of the two functions, or neither. Help and version give the exit code 0, an error 2.
pub fn run(
    own: Option<Protocol>,
    serve: impl FnOnce(Config) -> ExitCode,
    connect: impl FnOnce(WebSocketUrl, Config) -> ExitCode,
) -> ExitCode {
    match parse(own, env::args_os().skip(1), |name| env::var_os(name)) {
        Ok(Command::Serve(config)) => serve(*config),
        Ok(Command::Connect(url, config)) => connect(url, *config),
        Ok(Command::Help(text) | Command::Version(text)) => say(&mut io::stdout(), &text, 0),
        Err(error) => say(&mut io::stderr(), &format!("{error}\nTry --help.\n"), 2),
    }
}

/// Prints and gives the exit code back. Not `println!`, which panics when the other end of a pipe
/// has gone.
pub fn say(out: &mut impl Write, text: &str, code: u8) -> ExitCode {
    let _ = out.write_all(text.as_bytes());
    ExitCode::from(code)
}

/// What a server says when it is bound, and not before: the address can be clicked on.
pub fn greeting(config: &Config, address: SocketAddr) -> String {
    let (workers, threads) = (config.workers, config.settings.threads.cap);
    let plural = |count, word| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let what = [Some(config.protocol.name()), config.application.as_deref()];
    let what = what.into_iter().flatten().collect::<Vec<_>>().join(" ");
    // Nobody can go to 0.0.0.0: it means every address of this machine.
    let shown = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!(
        "Glasshouse: http://{}/ ({}, {}, up to {}{}{}, pid {}). Ctrl-C stops.\n",
        SocketAddr::new(shown, address.port()),
        what,
        plural(workers, "worker"),
        plural(threads, "thread"),
        if workers == 1 || config.python().is_some() { "" } else { " each" },
        if shown == address.ip() { "" } else { ", all addresses" },
        process::id(),
    )
}

/// What a server says when it cannot be bound. Its exit code is 1.
pub fn advice(problem: &BindError, config: &Config) -> String {
    let mut advice = format!("{problem}\n");
    for name in config.from_environment.iter().filter(|name| ["HOST", "PORT"].contains(name)) {
        advice += &format!("{name} is set in the environment, and was followed.\n");
    }
    let other = if config.settings.port == 8001 { 8002 } else { 8001 };
    if matches!(problem, BindError::InUse(_) | BindError::NotAllowed(_)) {
        advice += &format!("For another port: --port {other}\n");
    }
    advice
}
