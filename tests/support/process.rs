//! A child process whose standard error is collected line by line while it runs.
//! Nothing outlives its test: dropping a `Process` kills the child and waits for it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The children that run now. A watchdog ends them before it aborts the test program.
static ALIVE: Mutex<Vec<u32>> = Mutex::new(Vec::new());

pub struct Process {
    child: Child,
    heard: Arc<(Mutex<Heard>, Condvar)>,
    group: bool,
}

struct Heard {
    lines: Vec<String>,
    last: Instant,
    ended: bool,
}

impl Process {
    /// Starts the command; its standard error is collected, its standard output is the caller's choice.
    pub fn spawn(command: &mut Command) -> Process {
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {:?}: {error}", command.get_program()));
        lock(&ALIVE).push(child.id());
        let heard = Heard { lines: Vec::new(), last: Instant::now(), ended: false };
        let heard = Arc::new((Mutex::new(heard), Condvar::new()));
        let errors = child.stderr.take().expect("standard error was asked for");
        let listener = Arc::clone(&heard);
        std::thread::spawn(move || collect(BufReader::new(errors), &listener));
        Process { child, heard, group: false }
    }

    /// Runs one line of shell, standard output and standard error in one stream.
    /// It is its own process group, so that all of a pipeline can be ended.
    pub fn shell(line: &str, directory: &str) -> Process {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("exec 1>&2\n{line}")).current_dir(directory);
        let mut process = Process::spawn(command.process_group(0));
        process.group = true;
        process
    }

    /// A command for `program` whose two streams come in one, in order.
    pub fn in_one(program: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" 1>&2"]).arg(program);
        command
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The lines printed so far.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.heard.0).lines.clone()
    }

    /// True when the process has closed its standard error, which for ours means it has ended.
    pub fn ended(&self) -> bool {
        lock(&self.heard.0).ended
    }

    /// Waits until `done` likes the lines printed so far. False when the process ends before that
    /// or the limit passes.
    pub fn until(&self, limit: Duration, done: impl Fn(&[String]) -> bool) -> bool {
        let waiting = |heard: &mut Heard| !done(&heard.lines) && !heard.ended;
        let guard = lock(&self.heard.0);
        let waited = self.heard.1.wait_timeout_while(guard, limit, waiting);
        done(&waited.unwrap_or_else(PoisonError::into_inner).0.lines)
    }

    /// Waits until nothing was printed for this long.
    pub fn quiet(&self, pause: Duration) {
        loop {
            let (silent, ended) = {
                let heard = lock(&self.heard.0);
                (heard.last.elapsed(), heard.ended)
            };
            match pause.checked_sub(silent) {
                Some(rest) if !ended && !rest.is_zero() => std::thread::sleep(rest),
                _ => return,
            }
        }
    }

    /// Waits for the end and returns the exit code (`Some(None)`: ended by a signal); `None` when
    /// the limit has passed.
    pub fn finish(&mut self, limit: Duration) -> Option<Option<i32>> {
        let start = Instant::now();
        self.until(limit, |_| false);
        while start.elapsed() < limit {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status.code());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    }

    /// Sends a signal by its name (`TERM`, `INT`).
    pub fn signal(&self, name: &str) {
        send(name, &self.id().to_string());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.group && !self.ended() {
            send("KILL", &format!("-{}", self.id()));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        lock(&ALIVE).retain(|id| *id != self.child.id());
    }
}

/// Ends every child at once; for the moment before an abort, when no `drop` will run.
pub fn kill_all() {
    for id in lock(&ALIVE).drain(..) {
        send("KILL", &id.to_string());
    }
}

fn send(signal: &str, target: &str) {
    // The shell's own `kill`: the program of that name is not on every machine.
    let mut shell = Command::new("sh");
    shell.args(["-c", "kill -s \"$0\" -- \"$1\"", signal, target]);
    let _ = shell.stderr(Stdio::null()).status();
}

fn collect(mut errors: impl BufRead, heard: &(Mutex<Heard>, Condvar)) {
    let mut line = Vec::new();
    while errors.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']).to_string();
        let mut state = lock(&heard.0);
        state.lines.push(text);
        state.last = Instant::now();
        heard.1.notify_all();
        line.clear();
    }
    lock(&heard.0).ended = true;
    heard.1.notify_all();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
