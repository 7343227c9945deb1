//! The command line. `cargo bench` adds `--bench`; the rest comes after its `--`.

use crate::{HOSTED, ROWS};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

const HELP: &str = "\
The server beside a floor that parses nothing, driven in turn.

    cargo bench --bench load -- [ROW...] [OPTIONS]
    cargo bench --bench load -- idle [--websocket] [--connections N] [--seconds S]

A row's name chooses that row; a part of names, every row that contains it. Options:
    --seconds S          length of one slice (1.0); in idle mode, how long to stay idle (5)
    --slices N           slices for each of the two (5)
    --server PATH        compare with this build of the server, not with the floor
    --against HOST:PORT  compare with what listens there; it must answer /healthz with 200
    --connections N      connections of the idle mode (9900)
    --websocket          idle WebSockets instead of idle requests
    --help               this text
Rows: get and connect ask for /healthz, form sends a small urlencoded form, multipart a file in one;
ws rows echo messages: of 32 bytes by 1, 16, 64 connections, 16 of them at once, 64 KB, 1 MB.
Python rows host an application of tests/python/ in one worker, and are skipped without python3; their
processor time is that of the server alone. --server must be the same program, wsgi, asgi_http or asgi_ws.
The exit status is 1 if an answer was missing, short or of another status.
";

/// The defaults that [`HELP`] names: slices, seconds of one, idle connections, seconds idle.
const SLICES: usize = 5;
const SLICE: f64 = 1.0;
const IDLE: usize = 9_900;
const SILENCE: f64 = 5.0;

/// What the server is compared with.
pub enum Rival {
    Floor,
    Program(String),
    Address(SocketAddr),
}

/// What to measure, and how.
pub struct Options {
    /// Parts of row names; none means every row.
    filters: Vec<String>,
    /// The connections of the idle mode, when that was chosen.
    pub idle: Option<usize>,
    /// Whether those are WebSockets.
    pub websocket: bool,
    /// The length of a slice, or of the silence.
    pub time: Duration,
    /// Slices for each of the two.
    pub slices: usize,
    pub rival: Rival,
}

impl Options {
    /// Whether the row with this name was asked for.
    pub fn wants(&self, name: &str) -> bool {
        let chosen = |filter: &String| match names().contains(&filter.as_str()) {
            true => name == filter,
            false => name.contains(filter),
        };
        self.filters.is_empty() || self.filters.iter().any(chosen)
    }
}

/// Reads the arguments, or says what is wrong with them. `--help` prints its text and exits.
pub fn parse(arguments: &[String]) -> Result<Options, String> {
    let (mut filters, mut rival, mut slices) = (Vec::new(), Rival::Floor, SLICES);
    let (mut idle, mut seconds, mut connections) = (false, None, None);
    let mut websocket = false;
    let mut words = arguments.iter().filter(|word| *word != "--bench");
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value after it"));
        match word.as_str() {
            "--help" => {
                println!("{HELP}\nRows: {}", names().join(" "));
                std::process::exit(0);
            }
            "--seconds" => seconds = Some(number(word, value()?, 0.05, 60.0)?),
            "--slices" => slices = number(word, value()?, 1.0, 100.0)? as usize,
            "--connections" => connections = Some(number(word, value()?, 1.0, 10_900.0)? as usize),
            "--server" => rival = Rival::Program(value()?.clone()),
            "--against" => rival = Rival::Address(address(value()?)?),
            "idle" => idle = true,
            "--websocket" => websocket = true,
            name => filters.push(row(name)?),
        }
    }
    let plain = filters.is_empty() && matches!(rival, Rival::Floor);
    if (idle && !plain) || (!idle && (connections.is_some() || websocket)) {
        let wrong = "idle goes with --websocket, --connections and --seconds, and only with them";
        return Err(wrong.to_string());
    }
    let idle = idle.then_some(connections.unwrap_or(IDLE));
    let time = if idle.is_some() { SILENCE } else { SLICE };
    let time = Duration::from_secs_f64(seconds.unwrap_or(time));
    Ok(Options { filters, idle, websocket, time, slices, rival })
}

fn names() -> Vec<&'static str> {
    let rows = ROWS.iter().chain(HOSTED.iter().map(|hosted| &hosted.row)).map(|row| row.name);
    rows.chain(["start", "memory"]).collect()
}

fn row(word: &str) -> Result<String, String> {
    if names().iter().any(|name| name.contains(word)) {
        return Ok(word.to_string());
    }
    let kind = if word.starts_with('-') { "option" } else { "row" };
    Err(format!("no {kind} is called {word}; --help lists options and rows"))
}

fn number(option: &str, text: &str, least: f64, most: f64) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("{option} takes a number from {least} to {most}, not {text}")),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let found = text.to_socket_addrs().ok().and_then(|mut found| found.next());
    found.ok_or(format!("--against takes HOST:PORT, such as 127.0.0.1:8080, not {text}"))
}
