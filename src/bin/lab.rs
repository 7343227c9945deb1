//! `cargo run --bin lab -- slowloris`: attacks on your own server, told live. And `hammer`, which
//! is no attack: it counts how many requests the server can answer.

use std::io::{self, BufRead, BufReader, ErrorKind, IsTerminal, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use glasshouse::running::access_log::wants_colour;
use glasshouse::running::command_line::{nearest, say};
use glasshouse::running::lab::{ATTACKS, Attack, Lab, LabError, Verdict, own_address};

const HELP: &str = "\
Attacks a server on this machine, and nobody else, and tells what happens.
Usage: lab NAME [--flag VALUE | --flag=VALUE] ...

";

const OPTIONS: &str = "
  --target ADDRESS     which server               127.0.0.1:8000
  --connections N      hammer: connections        16
  --seconds N          hammer: how long           3
  --help               show this

The exit code is 0 if the server held, 1 if it did not or is not there.
Examples: cargo run --bin lab -- smuggle
          cargo run --bin lab -- slowloris --target 127.0.0.1:8001
          cargo run --bin lab -- hammer --connections 64 --seconds 10
";

const OTHER_SERVER: &str = "For a server at another port: --target 127.0.0.1:8001";

/// What the programs that serve call it.
const OF_SERVERS: [&str; 5] = ["--port", "--host", "--bind", "-p", "-b"];

/// What the command line asks for.
struct Asked {
    name: String,
    target: String,
    connections: u64,
    seconds: u64,
}

fn main() -> ExitCode {
    // Not `args`, which panics when one of them is no UTF-8.
    let arguments = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let asked = match read_arguments(arguments) {
        Ok(Some(asked)) => asked,
        Ok(None) => return say(&mut io::stdout(), &help(), 0),
        Err(problem) => return say(&mut io::stderr(), &format!("{problem}\nTry --help.\n"), 2),
    };
    let result = match ATTACKS.iter().find(|attack| attack.name == asked.name) {
        Some(attack) => run(&asked, attack),
        None => own_address(&asked.target).and_then(|target| hammer(&asked, target)),
    };
    match result {
        Ok(held) => ExitCode::from(u8::from(!held)),
        Err(error @ LabError::Unreachable(..)) => {
            let start = "Start a server in another terminal: cargo run --bin wsgi";
            say(&mut io::stderr(), &format!("{error}\n{start}\n{OTHER_SERVER}\n"), 1)
        }
        Err(error) => {
            let port = asked.target.trim_end_matches('/').rsplit(':').next();
            let port: u16 = port.and_then(|port| port.parse().ok()).unwrap_or(8000);
            say(&mut io::stderr(), &format!("{error}\nWrite it as 127.0.0.1:{port}.\n"), 2)
        }
    }
}

fn help() -> String {
    let mut text = HELP.to_string();
    let hammer = ("hammer", "no attack: asks as fast as it can, and counts");
    for (name, tries) in ATTACKS.iter().map(|attack| (attack.name, attack.tries)).chain([hammer]) {
        text += &format!("  {name:<14} {tries}\n");
    }
    text + OPTIONS
}

/// `None` asks for help.
fn read_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Option<Asked>, String> {
    let target = "127.0.0.1:8000".to_string();
    let mut asked = Asked { name: String::new(), target, connections: 16, seconds: 3 };
    let mut for_hammer = None;
    while let Some(argument) = arguments.next() {
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (argument.as_str(), None),
        };
        let mut value = || {
            let value = inline.clone().or_else(|| arguments.next());
            // The next flag is no value: --target --seconds forgot one.
            let value = value.filter(|value| !value.starts_with("--"));
            value.ok_or(format!("{name} needs a value."))
        };
        if ["--connections", "--seconds"].contains(&name) {
            for_hammer = Some(name.to_string());
        }
        match name {
            "--target" => asked.target = value()?,
            "--connections" => asked.connections = number(name, &value()?, 1_000)?,
            "--seconds" => asked.seconds = number(name, &value()?, 60)?,
            "--help" | "-h" => return Ok(None),
            _ if name.starts_with('-') => return Err(no_flag(name)),
            _ if is_place(name) => {
                return Err(format!("{name:?} is no attack.\n{OTHER_SERVER}"));
            }
            _ if !asked.name.is_empty() => {
                return Err(format!("{name:?} is one attack too many: one at a time."));
            }
            _ => asked.name = known(name)?,
        }
    }
    match for_hammer {
        _ if asked.name.is_empty() => Ok(None),
        Some(flag) if asked.name != "hammer" => Err(format!("{flag} is for hammer alone.")),
        _ => Ok(Some(asked)),
    }
}

fn no_flag(name: &str) -> String {
    let near = nearest(name, ["--target", "--connections", "--seconds", "--help"].into_iter());
    match near {
        _ if OF_SERVERS.contains(&name) => format!("There is no flag {name:?}.\n{OTHER_SERVER}"),
        Some(near) => format!("There is no flag {name:?}. Perhaps you mean {near}?"),
        None => format!("There is no flag {name:?}."),
    }
}

/// Whether somebody means a server: a port, an address, or a host.
fn is_place(word: &str) -> bool {
    word == "localhost" || word.contains([':', '.']) || word.parse::<u16>().is_ok()
}

fn number(name: &str, value: &str, most: u64) -> Result<u64, String> {
    match value.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("{name} takes a number from 1 to {most}; not {value:?}.")),
    }
}

fn known(name: &str) -> Result<String, String> {
    let names = || ATTACKS.iter().map(|attack| attack.name).chain(["hammer"]);
    if names().any(|known| known == name) {
        return Ok(name.to_string());
    }
    match nearest(name, names()) {
        Some(near) => Err(format!("There is no attack {name:?}. Perhaps you mean {near}?")),
        None => Err(format!("There is no attack {name:?}.")),
    }
}

fn colours() -> bool {
    wants_colour(io::stdout().is_terminal(), std::env::var_os("NO_COLOR").as_deref())
}

/// True if the server has held.
fn run(asked: &Asked, attack: &Attack) -> Result<bool, LabError> {
    let mut lab = Lab::new(&asked.target, Box::new(io::stdout()))?;
    lab.colours = colours();
    Ok(lab.run(attack)? == Verdict::Held)
}

/// Keeps connections busy for some time, and counts the answers. True if all were good.
fn hammer(asked: &Asked, target: SocketAddr) -> Result<bool, LabError> {
    let (time, answers) = (Duration::from_secs(asked.seconds), Arc::new(AtomicU64::new(0)));
    let (began, mut clients) = (Instant::now(), Vec::new());
    for _ in 0..asked.connections {
        let answers = Arc::clone(&answers);
        let client = connect(target).and_then(|stream| {
            let work = move || ask_until(began + time, target, stream, &answers);
            thread::Builder::new().spawn(work)
        });
        clients.push(client.map_err(|error| LabError::Unreachable(target, error))?);
    }
    let connections = asked.connections;
    print(&format!("hammer: GET /healthz on {connections} connections, as fast as it can\n\n"));
    show_progress(began, time, &answers);
    let mut total = Tally::default();
    for client in clients {
        let tally = client.join().unwrap_or_default();
        total.times.extend(tally.times);
        total.opened_anew += tally.opened_anew;
        total.problem = total.problem.or(tally.problem);
    }
    print(&total.report(began.elapsed()));
    Ok(total.problem.is_none())
}

/// Not `print!`, which panics when the other end of a pipe has gone.
fn print(text: &str) {
    say(&mut io::stdout(), text, 0);
    let _ = io::stdout().flush();
}

/// A bar that fills on a terminal; elsewhere a line for each second.
fn show_progress(began: Instant, time: Duration, answers: &AtomicU64) {
    const WIDTH: usize = 40;
    let terminal = io::stdout().is_terminal();
    let step = Duration::from_millis(if terminal { 50 } else { 1000 });
    while began.elapsed() < time {
        thread::sleep(step.min(time.saturating_sub(began.elapsed())));
        let part = began.elapsed().as_secs_f64() / time.as_secs_f64();
        let done = ((part * WIDTH as f64) as usize).min(WIDTH);
        let (seconds, count) = (began.elapsed().as_secs_f64(), answers.load(Ordering::Relaxed));
        let now = format!("{seconds:5.1} s  {count} answers");
        let (on, off) = if colours() { ("\x1b[32m", "\x1b[0m") } else { ("", "") };
        let (full, rest) = ("#".repeat(done), ".".repeat(WIDTH - done));
        match terminal {
            true => print(&format!("\r  [{on}{full}{off}{rest}] {now}")),
            false => print(&format!("  {now}\n")),
        }
    }
    print(if terminal { "\n\n" } else { "\n" });
}

/// What one connection has seen, or all of them.
#[derive(Default)]
struct Tally {
    times: Vec<Duration>,
    opened_anew: usize,
    problem: Option<String>,
}

impl Tally {
    fn report(&mut self, time: Duration) -> String {
        self.times.sort_unstable();
        let count = self.times.len();
        let rate = count as f64 / time.as_secs_f64();
        let mut text = format!("  {count} answers, {rate:.0} a second\n");
        for (percent, name) in [(50, "half of them"), (90, "9 of 10"), (99, "99 of 100")] {
            if let Some(time) = self.times.get(count * percent / 100) {
                text += &format!("  {name:<12} within {:8.3} ms\n", time.as_secs_f64() * 1000.0);
            }
        }
        if let Some(slowest) = self.times.last() {
            text += &format!("  {:<12} within {:8.3} ms\n", "all", slowest.as_secs_f64() * 1000.0);
        }
        if self.opened_anew > 0 {
            text += &format!(
                "  {} times the server had closed between two requests\n",
                self.opened_anew
            );
        }
        if let Some(problem) = &self.problem {
            text += &format!("\nNot all was well: {problem}.\n");
        }
        text
    }
}

fn connect(target: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let patience = Duration::from_secs(10);
    let stream = TcpStream::connect_timeout(&target, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::with_capacity(1024, stream))
}

/// One connection's part, until the time is over or something goes wrong.
fn ask_until(
    end: Instant,
    target: SocketAddr,
    mut stream: BufReader<TcpStream>,
    answers: &AtomicU64,
) -> Tally {
    let (mut tally, mut used) = (Tally::default(), false);
    while Instant::now() < end {
        let began = Instant::now();
        let result = match ask_once(&mut stream) {
            // RFC 9112, section 9.3.1: a connection that was used may be closed at any time, and
            // a GET may be asked again.
            Ok(None) if used => connect(target).map(|new| {
                (stream, used) = (new, false);
                tally.opened_anew += 1;
            }),
            Ok(Some(())) => {
                tally.times.push(began.elapsed());
                answers.fetch_add(1, Ordering::Relaxed);
                used = true;
                Ok(())
            }
            Ok(None) => Err(io::Error::other("it closed a new connection without an answer")),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tally.problem = Some(error.to_string());
            return tally;
        }
    }
    tally
}

/// `None` if the server closed instead. RFC 9112, section 6.2: the head says how long the body is.
fn ask_once(stream: &mut BufReader<TcpStream>) -> io::Result<Option<()>> {
    const MOST: u64 = 1 << 20;
    let sent = stream.get_mut().write_all(b"GET /healthz HTTP/1.1\r\nHost: lab\r\n\r\n");
    let mut answer = stream.take(MOST);
    let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
    let cut = || io::Error::other("it hung up before its answer was whole");
    match sent.and_then(|()| answer.read_line(&mut first)) {
        Ok(0) => return Ok(None),
        Err(error) if hung_up(&error) => return Ok(None),
        other => other?,
    };
    while line != "\r\n" {
        line.clear();
        if answer.read_line(&mut line)? == 0 {
            return Err(cut());
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    if io::copy(&mut answer.take(length), &mut io::sink())? < length {
        return Err(cut());
    }
    match first.starts_with("HTTP/1.1 200 ") {
        true => Ok(Some(())),
        false => Err(io::Error::other(first.trim_end().escape_debug().to_string())),
    }
}

fn hung_up(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}
