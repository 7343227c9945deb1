//! `cargo run --bin wsgi`: the demo site.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use glasshouse::http::server::{Server, Settings};
use glasshouse::site::views::site;

const HELP: &str = "\
Serves the Glasshouse site.

Usage: wsgi [options]

  --host ADDRESS      address to listen on            127.0.0.1
  --port NUMBER       port; 0 means any free one      8000
  --threads NUMBER    most connections at a time      512
  --keep-alive SECS   idle time between requests      5
  --max-body BYTES    longest request body            16777216
  --wire              show every byte, with chapters
  --help              show this

Example: cargo run --bin wsgi -- --port 0 --wire
";

fn main() -> ExitCode {
    let settings = match read_flags(std::env::args().skip(1)) {
        Ok(Some(settings)) => settings,
        Ok(None) => return say(&mut io::stdout(), HELP, 0),
        Err(problem) => {
            let advice = format!("{problem}\nTry --help.\n");
            return say(&mut io::stderr(), &advice, 2);
        }
    };
    let threads = settings.threads.cap;
    let server = match Server::bind(settings) {
        Ok(server) => server,
        Err(problem) => {
            let advice = format!("{problem}\nFor another port: --port 8001\n");
            return say(&mut io::stderr(), &advice, 1);
        }
    };
    let address = server.address();
    let pid = std::process::id();
    let hello = format!(
        "Glasshouse: http://{address}/ (wsgi, up to {threads} threads, pid {pid}). Ctrl-C stops.\n"
    );
    say(&mut io::stderr(), &hello, 0);
    match server.serve_until_signal(Arc::new(site)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => say(&mut io::stderr(), &format!("{error}\n"), 1),
    }
}

/// Not `println!`, which panics when the other end of a pipe has gone.
fn say(out: &mut impl Write, text: &str, code: u8) -> ExitCode {
    let _ = out.write_all(text.as_bytes());
    ExitCode::from(code)
}

/// `None` asks for help.
fn read_flags(arguments: impl Iterator<Item = String>) -> Result<Option<Settings>, String> {
    let mut settings = Settings::default();
    let mut arguments = arguments;
    while let Some(flag) = arguments.next() {
        let (name, inline) = match flag.split_once('=') {
            Some((name, value)) => (name.to_string(), Some(value.to_string())),
            None => (flag, None),
        };
        let mut value = || {
            let value = inline.clone().or_else(|| arguments.next());
            value.ok_or(format!("{name} needs a value."))
        };
        match name.as_str() {
            "--host" => settings.host = value()?,
            "--port" => settings.port = number(&name, &value()?, 0, 65_535)? as u16,
            "--threads" => {
                settings.threads.cap = number(&name, &value()?, 1, 12_000)? as usize;
            }
            "--keep-alive" => {
                let seconds = number(&name, &value()?, 0, 86_400)?;
                settings.deadlines.keep_alive = Duration::from_secs(seconds);
            }
            "--max-body" => settings.limits.body.body = number(&name, &value()?, 0, u64::MAX)?,
            "--wire" => settings.wire_view = true,
            "--help" | "-h" => return Ok(None),
            _ => return Err(format!("{name} is no option of this program.")),
        }
    }
    Ok(Some(settings))
}

fn number(name: &str, value: &str, least: u64, most: u64) -> Result<u64, String> {
    match value.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("{name} takes a number from {least} to {most}, not '{value}'.")),
    }
}
