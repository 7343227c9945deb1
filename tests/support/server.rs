//! One of the project's programs, started for a test on a port of its own.

use super::process::Process;
use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

pub struct Server {
    /// The port it is bound to.
    pub port: u16,
    process: Process,
}

impl Server {
    /// Starts `binary` (give it `env!("CARGO_BIN_EXE_wsgi")`) with `--port 0` and the arguments,
    /// and waits for the address it prints.
    pub fn start(binary: impl AsRef<OsStr>, arguments: &[&str]) -> Server {
        let mut command = Command::new(binary);
        command.args(["--port", "0"]).args(arguments).stdout(Stdio::null());
        let process = Process::spawn(&mut command);
        process.until(LIMIT, |lines| lines.iter().any(|line| port_in(line).is_some()));
        let lines = process.lines();
        let Some(port) = lines.iter().find_map(|line| port_in(line)) else {
            panic!("no address in what the server printed:\n{}", lines.join("\n"));
        };
        Server { port, process }
    }

    /// `127.0.0.1:PORT`, as `TcpStream::connect` takes it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// What it has printed on standard error so far.
    pub fn lines(&self) -> Vec<String> {
        self.process.lines()
    }

    /// Waits for a printed line that contains `text`; panics after 20 s.
    pub fn wait_for(&self, text: &str) -> String {
        let has = |line: &&String| line.contains(text);
        self.process.until(LIMIT, |lines| lines.iter().any(|line| has(&line)));
        let lines = self.lines();
        match lines.iter().find(has) {
            Some(line) => line.clone(),
            None => panic!("the server did not print {text:?} but:\n{}", lines.join("\n")),
        }
    }

    /// Sends SIGTERM, waits for the end; the exit code (`None`: killed by a signal) and all it printed.
    pub fn stop(mut self) -> (Option<i32>, String) {
        self.process.signal("TERM");
        let Some(code) = self.process.finish(LIMIT) else {
            panic!("still running 20 s after SIGTERM:\n{}", self.lines().join("\n"));
        };
        (code, self.lines().join("\n"))
    }
}

/// The port in a line that holds `http://127.0.0.1:PORT/`.
pub fn port_in(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("http://127.0.0.1:")?;
    rest.split_once('/')?.0.parse().ok()
}
