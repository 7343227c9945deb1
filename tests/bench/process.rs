//! The children: started, asked for their address and figures, and never left behind.
//!
//! A floor ends when its standard input does. A server does not look at its input, so it gets a
//! **keeper**: this program again, which starts the server, waits for the end of its own input and
//! kills it. The pipes to both close when this process ends, in whatever way it ends.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Makes this program a keeper: `--keep PROGRAM ARGUMENTS...`.
pub const KEEP_ARGUMENT: &str = "--keep";

/// A child must print its address, and end when told to, within this time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Microseconds of a tick in `/proc/PID/stat`: Linux shows programs 100 ticks a second.
const TICK: f64 = 10_000.0;

/// A command that runs this program again.
pub fn myself() -> Result<Command, String> {
    let path = std::env::current_exe();
    Ok(Command::new(path.map_err(|error| format!("this program has no path: {error}"))?))
}

/// The keeper's whole life. It tells the server's process id on standard output.
pub fn keep(arguments: &[String]) -> ExitCode {
    let mut command = Command::new(&arguments[0]);
    command.args(&arguments[1..]).stdin(Stdio::null()).stdout(Stdio::null());
    match command.spawn() {
        Ok(mut child) => {
            println!("{}", child.id());
            wait_for_end_of_input();
            let _ = child.kill();
            let _ = child.wait();
        }
        Err(error) => eprintln!("{} does not start: {error}", arguments[0]),
    }
    ExitCode::SUCCESS
}

/// Returns when the benchmark has ended, or has let this child go.
pub fn wait_for_end_of_input() {
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
}

/// A running child. To drop it is to end it, after a panic too.
pub struct Process {
    child: Child,
    /// The kept server's process id; without a keeper, the child's own is used.
    kept: Option<u32>,
    pub address: SocketAddr,
    /// From `spawn` to the line that told the address.
    pub started: Duration,
}

impl Process {
    /// Starts a server under a keeper.
    pub fn keep(program: &str, arguments: &[&str]) -> Result<Process, String> {
        let mut command = myself()?;
        command.args([KEEP_ARGUMENT, program]).args(arguments).stdout(Stdio::piped());
        let mut process = Process::start(command)?;
        let mut line = String::new();
        let told = process.child.stdout.take().map(BufReader::new);
        let read = told.map(|mut told| told.read_line(&mut line));
        process.kept = line.trim().parse().ok();
        match process.kept {
            Some(_) => Ok(process),
            None => Err(format!("{program}: the keeper told no process id: {read:?}")),
        }
    }

    /// Starts it and waits for the line of its standard error that holds its address.
    pub fn start(mut command: Command) -> Result<Process, String> {
        let begun = Instant::now();
        command.stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let (tell, lines) = mpsc::channel();
        let stderr = child.stderr.take();
        // It reads to the end: a child whose pipe is full would stop.
        thread::spawn(move || {
            for line in stderr.map(BufReader::new).into_iter().flat_map(BufRead::lines) {
                let _ = tell.send(line.unwrap_or_default());
            }
        });
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        // From here on an early return ends the child.
        let mut process = Process { child, kept: None, address, started: Duration::ZERO };
        let mut said = Vec::new();
        while let Ok(line) = lines.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) {
            if let Some(address) = address_in(&line) {
                process.address = address;
                process.started = begun.elapsed();
                return Ok(process);
            }
            said.push(line);
        }
        Err(format!("{command:?} printed no address but {said:?}"))
    }

    /// Kills a child that is no keeper and would not end by itself.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// Megabytes resident now (`VmRSS`) and at most so far (`VmHWM`); `None` without a `/proc`.
    pub fn memory(&self) -> Option<[f64; 2]> {
        let status = self.figures("status")?;
        let megabytes = |name: &str| -> Option<f64> {
            let kilobytes = status.split(name).nth(1)?.split_whitespace().next()?;
            Some(kilobytes.parse::<f64>().ok()? / 1024.0)
        };
        Some([megabytes("VmRSS:")?, megabytes("VmHWM:")?])
    }

    /// Microseconds of processor time of all its threads, ended ones too, user and kernel.
    pub fn processor_time(&self) -> Option<f64> {
        let stat = self.figures("stat")?;
        // The name, in brackets, may hold spaces; utime and stime are 12th and 13th after it.
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        let ticks = |at: usize| -> Option<f64> { fields.get(at)?.parse().ok() };
        Some((ticks(11)? + ticks(12)?) * TICK)
    }

    fn figures(&self, name: &str) -> Option<String> {
        let pid = self.kept.unwrap_or(self.child.id());
        std::fs::read_to_string(format!("/proc/{pid}/{name}")).ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let begun = Instant::now();
        // A keeper killed at once would leave behind what it keeps.
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address_in(line: &str) -> Option<SocketAddr> {
    line.split("http://").nth(1)?.split('/').next()?.parse().ok()
}

/// How many descriptors this process, and each child, may have open.
pub fn descriptor_limit() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    limits.split("Max open files").nth(1)?.split_whitespace().next()?.parse().ok()
}
