//! The benchmark: `cargo bench --bench load -- --help`.
//!
//! The problem: "90,000 requests a second" says little. Another machine, or this one an hour later,
//! gives another number. So each figure is measured beside a **floor**: the least that a blocking
//! server can do for the same bytes. Floor and server are two processes, alive at the same time and
//! driven in turn, and what counts is the ratio of their medians.
//!
//! ```text
//!   this process: client threads --+-- slice 1, 3, 5 ...  the server (src/bin/wsgi.rs)
//!                                  +-- slice 2, 4, 6 ...  the floor  (this program again)
//! ```
//!
//! Read in this order: `load.rs` (rows and method), `floor.rs`, `client.rs`, then `process.rs`
//! (children and their figures in `/proc`), `options.rs`, `report.rs`, `idle.rs`.
//!
//! The file is not called `main.rs`: cargo takes each `tests/*/main.rs` for an integration test.

mod client;
mod floor;
mod idle;
mod options;
mod process;
mod report;

use client::{BLOCK, BODY, Client, Work};
use options::{Options, Rival};
use process::Process;
use report::Side;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// One line of the table.
struct Row {
    name: &'static str,
    /// What each connection does, and how many do it at the same time.
    work: Work,
    connections: usize,
    /// Server over floor, at least.
    aim: Option<f64>,
}

/// A line with a Python application behind our server, instead of our own site.
struct Hosted {
    row: Row,
    /// The server, and the application.
    program: &'static str,
    application: &'static str,
}

const GET: Work = Work::Get { depth: 1 };
const PIPELINE: Work = Work::Get { depth: 16 };
const PING: Work = Work::Echo { size: 32, depth: 1 };
const PINGS: Work = Work::Echo { size: 32, depth: 16 };
const MIDDLE: Work = Work::Echo { size: 64 << 10, depth: 1 };
const LARGE: Work = Work::Echo { size: 1 << 20, depth: 1 };
const UPLOAD: Work = Work::Upload { size: BODY };
const UPLOAD_10MB: Work = Work::Upload { size: 10 << 20 };

/// The whole site stands behind each answer: routes, middleware, figures. Where the kernel's work is
/// most of a request, that shall cost no more than a tenth. With pipelining it is little, so those
/// rows show what the site itself costs, and have no aim.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { name: "get-1",         work: GET,             connections: 1,   aim: Some(0.9) },
    Row { name: "get-16",        work: GET,             connections: 16,  aim: Some(0.9) },
    Row { name: "get-64",        work: GET,             connections: 64,  aim: Some(0.9) },
    Row { name: "get-256",       work: GET,             connections: 256, aim: Some(0.9) },
    Row { name: "pipeline-1",    work: PIPELINE,        connections: 1,   aim: None },
    Row { name: "pipeline-16",   work: PIPELINE,        connections: 16,  aim: None },
    Row { name: "connect-16",    work: Work::Connect,   connections: 16,  aim: Some(1.0) },
    Row { name: "upload-1gb",    work: UPLOAD,          connections: 1,   aim: Some(0.95) },
    Row { name: "download-1gb",  work: Work::Download,  connections: 1,   aim: Some(0.95) },
    Row { name: "form-1",        work: Work::Form,      connections: 1,   aim: Some(0.8) },
    Row { name: "form-16",       work: Work::Form,      connections: 16,  aim: Some(0.8) },
    Row { name: "multipart-1gb", work: Work::Multipart, connections: 1,   aim: Some(0.8) },
    Row { name: "ws-ping-1",     work: PING,            connections: 1,   aim: Some(0.9) },
    Row { name: "ws-ping-16",    work: PING,            connections: 16,  aim: Some(0.9) },
    Row { name: "ws-ping-64",    work: PING,            connections: 64,  aim: Some(0.9) },
    Row { name: "ws-16-at-once", work: PINGS,           connections: 1,   aim: Some(0.9) },
    Row { name: "ws-64kb",       work: MIDDLE,          connections: 1,   aim: Some(0.8) },
    Row { name: "ws-1mb",        work: LARGE,           connections: 1,   aim: Some(0.9) },
];

/// The same path through the server, and a second process behind it. How much that costs is no aim of
/// a floor without one: it is for comparing two builds, or with another host of the application.
#[rustfmt::skip]
const HOSTED: &[Hosted] = &[
    hosted("python-wsgi-1",    GET,         1,  SERVER,      "tests.python.hello:application"),
    hosted("python-wsgi-16",   GET,         16, SERVER,      "tests.python.hello:application"),
    hosted("python-asgi-1",    GET,         1,  ASGI_SERVER, "tests.python.raw_asgi:plain"),
    hosted("python-asgi-16",   GET,         16, ASGI_SERVER, "tests.python.raw_asgi:plain"),
    hosted("python-ws-1",      PING,        1,  SOCKET_SERVER, "tests.python.raw_asgi:echo"),
    hosted("python-ws-16",     PING,        16, SOCKET_SERVER, "tests.python.raw_asgi:echo"),
    hosted("python-wsgi-10mb", UPLOAD_10MB, 4,  SERVER,      "tests.python.hello:count"),
];

const fn hosted(
    name: &'static str,
    work: Work,
    connections: usize,
    program: &'static str,
    application: &'static str,
) -> Hosted {
    Hosted { row: Row { name, work, connections, aim: None }, program, application }
}

/// The server under test, built by cargo with the same profile as this program.
const SERVER: &str = env!("CARGO_BIN_EXE_wsgi");

/// The one for ASGI applications.
const ASGI_SERVER: &str = env!("CARGO_BIN_EXE_asgi_http");

/// The one that speaks WebSocket too.
const SOCKET_SERVER: &str = env!("CARGO_BIN_EXE_asgi_ws");

/// Long enough to open every connection and to wake the processors.
const WARM_UP: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(floor::ARGUMENT) => return floor::run(&arguments[1..]),
        Some(process::KEEP_ARGUMENT) => return process::keep(&arguments[1..]),
        _ => {}
    }
    // Only `cargo bench` passes this. `cargo test --benches` starts us too, and measures nothing.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("nothing measured: start me with `cargo bench --bench load`");
        return ExitCode::SUCCESS;
    }
    let outcome = options::parse(&arguments).and_then(|options| match options.idle {
        Some(connections) => idle::run(connections, options.time, options.websocket),
        None => load(&options),
    });
    match outcome {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => eprintln!("bench: some answers were missing or wrong"),
        Err(reason) => eprintln!("bench: {reason}"),
    }
    ExitCode::FAILURE
}

/// `Ok(false)`: some answer was missing, short or wrong. A ratio below its aim is only marked,
/// because one run on a busy machine proves little.
fn load(options: &Options) -> Result<bool, String> {
    report::heading(options);
    let mut sound = true;
    for row in ROWS.iter().filter(|row| options.wants(row.name)) {
        sound &= measure(row, None, options)?;
    }
    let hosted = HOSTED.iter().filter(|hosted| options.wants(hosted.row.name));
    for Hosted { row, program, application } in hosted {
        if has_python() {
            sound &= measure(row, Some((program, application)), options)?;
        } else {
            println!("{}: skipped, there is no python3 here", row.name);
        }
    }
    if options.wants("start") {
        start_up(options.slices)?;
    }
    if options.wants("memory") {
        let process = server(SERVER, &[])?;
        let [resident, peak] = process.memory().unwrap_or([f64::NAN; 2]);
        let note = format!("{resident:.2} MB resident at rest, {peak:.2} MB at its peak");
        report::line("memory", &note, "1 MB", resident <= 1.0);
    }
    Ok(sound)
}

fn has_python() -> bool {
    let mut python = Command::new("python3");
    python.arg("-V").stdout(Stdio::null()).stderr(Stdio::null());
    python.status().is_ok_and(|status| status.success())
}

/// One row: both servers fresh, both warm, then A B A B ... `Ok(false)`: some answer was not good.
fn measure(row: &Row, hosted: Option<(&str, &str)>, options: &Options) -> Result<bool, String> {
    let own = if let Work::Echo { .. } = row.work { SOCKET_SERVER } else { SERVER };
    let program = hosted.map_or(own, |(program, _)| program);
    let folder = Folder(floor::memory_folder().join(format!("bench-{}", std::process::id())));
    let uploads = ["--uploads", &*folder.0.to_string_lossy()];
    let application = hosted.map(|(_, application)| [application]);
    let flags = match &application {
        Some(application) => &application[..],
        None if row.work == Work::Multipart => &uploads[..],
        None => &[],
    };
    let ours = server(program, flags)?;
    let our_client = Client::open(ours.address, row.work, row.connections)?;
    let (rival, address) = match &options.rival {
        Rival::Address(address) => (None, *address),
        Rival::Program(path) => started(server(path, flags)?),
        Rival::Floor => started(floor::start(row.work, our_client.answer())?),
    };
    let rival_client = Client::open(address, row.work, row.connections)?;
    let ours = Side::new(our_client, Some(ours));
    let mut sides = [ours, Side::new(rival_client, rival)];
    for side in &mut sides {
        side.warm_up(WARM_UP);
    }
    for _ in 0..options.slices {
        for side in &mut sides {
            side.slice(options.time);
        }
    }
    report::row(row, &sides);
    Ok(sides.iter().all(|side| side.tally.errors == 0))
}

/// Where uploads arrive. A server that is killed would leave it behind.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn started(process: Process) -> (Option<Process>, std::net::SocketAddr) {
    let address = process.address;
    (Some(process), address)
}

/// Starts a server with room for the large body, and a keep-alive that outlives the run. It writes no
/// log: the floor does not, and the terminal would be measured.
fn server(program: &str, more: &[&str]) -> Result<Process, String> {
    let body = (BODY + BLOCK).to_string();
    let mut arguments =
        vec!["--port", "0", "--keep-alive", "600", "--access-log", "none", "--max-body", &body];
    arguments.extend(more);
    Process::keep(program, &arguments)
}

/// From `spawn` to the line that prints the address.
fn start_up(times: usize) -> Result<(), String> {
    let mut taken = Vec::new();
    for _ in 0..times.max(5) {
        let mut command = Command::new(SERVER);
        command.args(["--port", "0"]);
        let mut process = Process::start(command)?;
        process.kill();
        taken.push(process.started.as_secs_f64() * 1e3);
    }
    let median = report::median(&mut taken);
    let note = format!("{median:.2} ms from spawn to the printed address");
    report::line("start", &note, "2 ms", median <= 2.0);
    Ok(())
}
