//! Chapter 42: workers. A Python process that stays, and who chooses it, watches it, replaces it.
//!
//! ```text
//!   server                                              worker: python3, one thread
//!     thread 1 ──── lane ────┐
//!     thread 2 ──── lane ────┼──► private socket ──►    reads a frame, answers it, reads the next
//!     thread 3 ──── lane ────┘
//!     watcher  ◄─── control ───── its stdin             "ready", or why it cannot start
//!                                                       ends when the other end has gone
//!
//!   a worker:    started ──► ready ──► leaving ──► buried ──► its successor is started
//!                   │          └── silent for too long, or dead ──┘
//!                   └── why it cannot start
//! ```
//!
//! This chapter needs Unix: the private socket is a file.
#![cfg(unix)]

use std::env;
use std::fmt;
use std::fs::{self, DirBuilder};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::exchange::{Exchange, Handler};
use crate::http::server::{Server, log_or_give_up, stopping};
use crate::python::lane::{Fault, Health, Keeper, Lane, Line, PREFIX, TICK, is_timeout, kind};
use crate::socket::system::{Shutdown, Signal};

/// What is hosted, by how many workers, and what is put up with.
#[derive(Debug, Clone)]
pub struct PythonSpec {
    /// `MODULE:CALLABLE`, looked up in the current folder first.
    pub application: String,
    /// The program that the worker runs. It is called with the application, the path of its
    /// socket, and [`PythonSpec::arguments`].
    pub script: &'static str,
    /// More arguments for the script.
    pub arguments: Vec<String>,
    /// The interpreter.
    pub python: PathBuf,
    /// How many workers, at least 1.
    pub workers: usize,
    /// Whether a worker answers many requests at a time, as an event loop does. Then it must also
    /// answer pings. Otherwise it answers one after the other.
    pub many_at_once: bool,
    /// How long a worker may give no sign of life while something is wanted of it: then it is
    /// killed. It is also how long a request waits for a worker.
    pub timeout: Duration,
    /// How long the import of the application may take.
    pub start_timeout: Duration,
    /// How long a worker that is to end may go on with requests that have begun.
    pub graceful_timeout: Duration,
    /// How long the place of a worker stays empty that has died young. It doubles each time.
    pub first_pause: Duration,
    /// The longest such pause.
    pub longest_pause: Duration,
    /// Bytes in one frame from a worker. Memory grows by what arrives, never by what is announced.
    pub largest_frame: usize,
}

impl PythonSpec {
    /// One worker for this application, with the interpreter of the virtual environment that is
    /// active; without one, with the `python3` that the shell would find.
    pub fn new(application: &str, script: &'static str) -> PythonSpec {
        let active = env::var_os("VIRTUAL_ENV").filter(|folder| !folder.is_empty());
        let active = active.map(|folder| Path::new(&folder).join("bin/python3"));
        PythonSpec {
            application: application.to_string(),
            script,
            arguments: Vec::new(),
            python: active.unwrap_or_else(|| PathBuf::from("python3")),
            workers: 1,
            many_at_once: false,
            timeout: Duration::from_secs(30),
            start_timeout: Duration::from_secs(60),
            graceful_timeout: Duration::from_secs(30),
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(10),
            largest_frame: 64 << 20,
        }
    }
}

/// Why a worker does not start.
#[derive(Debug)]
pub enum StartError {
    /// The interpreter cannot be run.
    Interpreter(PathBuf, io::Error),
    /// The application cannot be imported. The text is Python's own.
    Application(String),
    /// The worker has ended before it was ready.
    Ended(ExitStatus),
    /// It took too long.
    Slow(Duration),
    /// The server stops.
    Stopping,
    /// The folder of the private sockets cannot be made.
    Folder(io::Error),
    /// The sockets or a thread cannot be made.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            StartError::Interpreter(path, error) => {
                write!(f, "{} cannot be run: {error}", path.display())
            }
            StartError::Application(text) => f.write_str(text.trim_end()),
            StartError::Ended(status) => {
                write!(f, "Python ended while the application was imported: {status}")
            }
            StartError::Slow(limit) => write!(f, "the application was not ready after {limit:?}"),
            StartError::Stopping => f.write_str("the server stops"),
            StartError::Folder(error) => {
                write!(f, "a temporary folder in {}: {error}", env::temp_dir().display())
            }
            StartError::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

/// The workers of an application. They end when it is dropped.
pub struct Pool {
    house: Arc<House>,
}

struct House {
    spec: PythonSpec,
    folder: Folder,
    staff: Mutex<Staff>,
    /// A worker has been freed, or is ready; or all shall end.
    news: Condvar,
}

/// What changes, behind the one lock.
#[derive(Default)]
struct Staff {
    members: Vec<Member>,
    /// How many have been started: the next generation.
    hired: u64,
    /// How many watches have begun.
    watches: u64,
    /// For each number, from 1 on: the watch that counts. Earlier ones have a successor.
    in_force: Vec<u64>,
    /// How many threads wait for a worker.
    waiting: usize,
    /// How many threads look after workers.
    watchers: usize,
    stopping: bool,
}

/// A worker that is ready, or was.
struct Member {
    worker: Arc<Worker>,
    /// How many requests it has now.
    busy: usize,
    /// Since when it takes no more of them.
    leaving: Option<Instant>,
}

/// One process.
struct Worker {
    number: usize,
    generation: u64,
    watch: u64,
    /// Where it listens. The generation is a part of it, so nobody reaches a successor by mistake.
    path: PathBuf,
    child: Mutex<Child>,
    /// Lines that no lane uses.
    idle: Mutex<Vec<Line>>,
    health: Health,
    house: Weak<House>,
}

/// A busy worker that has shown progress within this time is given more to do: its queue keeps it
/// from falling asleep between two short requests. One that has not may be at it for long.
const BRISK: Duration = Duration::from_millis(10);

/// How long a worker may take to end, after it was told to.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// A worker that dies before this age has died young, and will probably do so again.
const YOUNG: Duration = Duration::from_secs(1);

/// How often a request is offered to a worker that turns out to be dead.
const OFFERS: usize = 3;

impl Pool {
    /// Starts all workers, and waits until they are ready.
    ///
    /// # Errors
    /// The first worker that cannot start ends them all.
    pub fn start(mut spec: PythonSpec) -> Result<Pool, StartError> {
        spec.workers = spec.workers.max(1);
        let folder = Folder::new().map_err(StartError::Folder)?;
        let staff = Staff { in_force: vec![0; spec.workers], ..Staff::default() };
        let house = House { spec, folder, staff: Mutex::new(staff), news: Condvar::new() };
        let pool = Pool { house: Arc::new(house) };
        let (report, reports) = mpsc::channel();
        for number in 1..=pool.house.spec.workers {
            pool.house.keep(number, report.clone()).map_err(StartError::System)?;
        }
        drop(report);
        // If one fails, the pool is dropped, and with it those that did start.
        reports.iter().collect::<Result<Vec<u64>, StartError>>()?;
        Ok(pool)
    }

    /// The settings.
    pub fn spec(&self) -> &PythonSpec {
        &self.house.spec
    }

    /// A lane to the worker that has least to do. Waits for one, for as long as
    /// [`PythonSpec::timeout`].
    ///
    /// # Errors
    /// [`Fault::Busy`]. RFC 9110, section 15.6.4.
    pub fn lane(&self) -> Result<Lane, Fault> {
        let deadline = Instant::now() + self.house.spec.timeout;
        loop {
            let worker = self.house.choose(deadline)?;
            let idle = lock(&worker.idle).pop();
            let line = match idle {
                Some(line) => Ok(line),
                None => Line::open(&worker.path, self.house.spec.largest_frame),
            };
            match line {
                Ok(line) => return Ok(Lane::new(line, worker)),
                // It has died, and its watcher is about to notice. Or we have no descriptor left.
                Err(_) => worker.release(),
            }
            if Instant::now() >= deadline {
                return Err(Fault::Busy);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Gives a request to a worker, on a lane. As long as that fails, no worker has got all of it;
    /// from then on it is never sent again, for nobody knows what the first one has done.
    ///
    /// # Errors
    /// [`Fault::Busy`], or why the last worker that was tried could not take it.
    pub fn deliver(&self, frames: &[(u8, &[u8])]) -> Result<Lane, Fault> {
        let mut fault = Fault::Died;
        for _ in 0..OFFERS {
            let mut lane = self.lane()?;
            match lane.send(frames) {
                Ok(()) => return Ok(lane),
                Err(reason) => fault = reason,
            }
        }
        Err(fault)
    }

    /// Replaces all workers, one after the other: first the new one is ready, then the old one is
    /// told to leave. If a new one does not start, the others stay, and the log says why.
    pub fn replace_all(&self) {
        for number in 1..=self.house.spec.workers {
            let (report, reports) = mpsc::channel();
            let started = self.house.keep(number, report).map_err(StartError::System);
            let ready = started.and_then(|()| reports.recv().unwrap_or(Err(StartError::Stopping)));
            match ready {
                Ok(watch) => self.house.lock().puts_in_force(number, watch),
                Err(error) => {
                    log(&format!("{error}\nthe successor does not start: those who serve stay"));
                    return;
                }
            }
        }
        log("the python workers are replaced");
    }

    /// The folder of the private sockets.
    pub fn folder(&self) -> &Path {
        &self.house.folder.path
    }

    /// The process ids of those that serve.
    pub fn pids(&self) -> Vec<u32> {
        let staff = self.house.lock();
        let serving = staff.members.iter().filter(|member| member.leaving.is_none());
        serving.map(|member| lock(&member.worker.child).id()).collect()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Pool {
    /// Lets requests that have begun finish, then ends all workers and waits for their end.
    pub fn stop(&self) {
        self.stop_unless(|| false);
    }

    /// The same, but as soon as `is_over` says so, those that are still there are killed.
    pub fn stop_unless(&self, is_over: impl Fn() -> bool) {
        let mut staff = self.house.lock();
        staff.stopping = true;
        for member in &mut staff.members {
            member.leaving.get_or_insert_with(Instant::now);
        }
        self.house.news.notify_all();
        while staff.watchers > 0 {
            if is_over() {
                for member in &staff.members {
                    let _ = lock(&member.worker.child).kill();
                }
            }
            let woken = self.house.news.wait_timeout(staff, TICK);
            staff = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        let _ = fs::remove_dir_all(&self.house.folder.path);
    }
}

impl House {
    fn lock(&self) -> MutexGuard<'_, Staff> {
        lock(&self.staff)
    }

    /// The worker that has least to do, counted as one request busier.
    fn choose(&self, deadline: Instant) -> Result<Arc<Worker>, Fault> {
        let mut staff = self.lock();
        loop {
            let may_have_more = |member: &&mut Member| {
                let worker = &member.worker;
                let brisk = || self.spec.many_at_once || worker.is_brisk();
                let stays = member.leaving.is_none() && worker.health.is_trusted();
                stays && (member.busy == 0 || brisk())
            };
            let chosen = staff.members.iter_mut().filter(may_have_more).min_by_key(|m| m.busy);
            if let Some(member) = chosen {
                if member.busy == 0 {
                    member.worker.health.shows_life();
                }
                member.busy += 1;
                return Ok(Arc::clone(&member.worker));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || staff.stopping {
                return Err(Fault::Busy);
            }
            staff.waiting += 1;
            let woken = self.news.wait_timeout(staff, left.min(TICK));
            staff = woken.unwrap_or_else(PoisonError::into_inner).0;
            staff.waiting -= 1;
        }
    }

    fn free(&self, generation: u64) {
        let mut staff = self.lock();
        if let Some(member) = staff.member(generation) {
            member.busy = member.busy.saturating_sub(1);
        }
        if staff.waiting > 0 {
            self.news.notify_all();
        }
    }

    /// Starts a thread that keeps a worker with this number alive. The first start is reported;
    /// if that fails, nothing is tried again.
    fn keep(
        self: &Arc<House>,
        number: usize,
        report: Sender<Result<u64, StartError>>,
    ) -> io::Result<()> {
        let house = Arc::clone(self);
        let watch = {
            let mut staff = self.lock();
            staff.watchers += 1;
            staff.watches += 1;
            staff.watches
        };
        let builder = thread::Builder::new().name(format!("python {number}"));
        let spawned = builder.spawn(move || {
            house.look_after(number, watch, report);
            house.lock().watchers -= 1;
            house.news.notify_all();
        });
        if spawned.is_err() {
            self.lock().watchers -= 1;
        }
        spawned.map(drop)
    }

    fn look_after(
        self: &Arc<House>,
        number: usize,
        watch: u64,
        report: Sender<Result<u64, StartError>>,
    ) {
        let mut report = Some(report);
        let mut failures = 0;
        loop {
            match self.hire(number, watch) {
                Ok((worker, control)) => {
                    if let Some(report) = report.take() {
                        let _ = report.send(Ok(watch));
                    }
                    let ready = Instant::now();
                    if !self.stay_with(&worker, &control) {
                        return;
                    }
                    failures = if ready.elapsed() < YOUNG { failures + 1 } else { 0 };
                }
                Err(error) => {
                    if let Some(report) = report.take() {
                        let _ = report.send(Err(error));
                        return;
                    }
                    log(&format!("python worker {number} does not start: {error}"));
                    failures += 1;
                }
            }
            if !self.pause(failures, number, watch) {
                return;
            }
        }
    }

    /// Waits before the next start, longer after each failure. False if there shall be none.
    fn pause(&self, failures: u32, number: usize, watch: u64) -> bool {
        let factor = if failures == 0 { 0 } else { 2_u32.saturating_pow(failures - 1) };
        let pause = self.spec.first_pause.saturating_mul(factor).min(self.spec.longest_pause);
        let until = Instant::now() + pause;
        let mut staff = self.lock();
        while !staff.stopping && !staff.is_outdated(number, watch) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let woken = self.news.wait_timeout(staff, left);
            staff = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// Starts a process, and waits until it is ready. Then it is one of the members.
    fn hire(
        self: &Arc<House>,
        number: usize,
        watch: u64,
    ) -> Result<(Arc<Worker>, UnixStream), StartError> {
        let generation = {
            let mut staff = self.lock();
            staff.hired += 1;
            staff.hired
        };
        let path = self.folder.path.join(format!("{number}.{generation}"));
        let (control, theirs) = UnixStream::pair().map_err(StartError::System)?;
        let mut command = Command::new(&self.spec.python);
        command.args(["-u", "-c", self.spec.script, &self.spec.application]).arg(&path);
        command.args(&self.spec.arguments).stdin(Stdio::from(OwnedFd::from(theirs)));
        // Not of our process group: Ctrl-C in a terminal is for us, and we decide what follows.
        let child = command.process_group(0).spawn();
        // It holds the other end of the control line, which must have no other holder.
        drop(command);
        let python = || self.spec.python.clone();
        let mut child = child.map_err(|error| StartError::Interpreter(python(), error))?;
        if let Err(error) = self.wait_until_ready(&mut child, &control) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
        let worker = Arc::new(Worker {
            number,
            generation,
            path,
            watch,
            child: Mutex::new(child),
            idle: Mutex::new(Vec::new()),
            health: Health::default(),
            house: Arc::downgrade(self),
        });
        let mut staff = self.lock();
        let is_late = staff.stopping || staff.is_outdated(number, watch);
        let leaving = is_late.then(Instant::now);
        staff.members.push(Member { worker: Arc::clone(&worker), busy: 0, leaving });
        self.news.notify_all();
        Ok((worker, control))
    }

    fn wait_until_ready(&self, child: &mut Child, control: &UnixStream) -> Result<(), StartError> {
        let mut heard = Vec::new();
        let deadline = Instant::now() + self.spec.start_timeout;
        control.set_read_timeout(Some(TICK)).map_err(StartError::System)?;
        loop {
            let mut block = [0; 512];
            match (&*control).read(&mut block) {
                Ok(0) => break,
                Ok(count) => heard.extend_from_slice(block.get(..count).unwrap_or_default()),
                Err(error) if is_timeout(&error) => {}
                Err(_) => break,
            }
            if heard.first() == Some(&kind::READY) && heard.len() >= PREFIX {
                return Ok(());
            }
            if self.lock().stopping {
                return Err(StartError::Stopping);
            }
            if Instant::now() >= deadline {
                return Err(StartError::Slow(self.spec.start_timeout));
            }
        }
        if heard.first() == Some(&kind::FAILED) {
            let text = heard.get(PREFIX..).unwrap_or_default();
            return Err(StartError::Application(String::from_utf8_lossy(text).into_owned()));
        }
        let _ = child.kill();
        Err(child.wait().map_or_else(StartError::System, StartError::Ended))
    }

    /// Stays with a worker until it ends. True if it shall have a successor.
    fn stay_with(&self, worker: &Worker, control: &UnixStream) -> bool {
        let mut pulse = Pulse::default();
        loop {
            let mut byte = [0];
            match (&*control).read(&mut byte) {
                Ok(0) => break,
                Err(error) if !is_timeout(&error) => break,
                _ => {}
            }
            // A process that it has left behind may still hold the other end.
            if !matches!(lock(&worker.child).try_wait(), Ok(None)) {
                break;
            }
            if self.may_go(worker) {
                dismiss(worker);
                break;
            }
            let lives = match self.spec.many_at_once {
                true => pulse.beats(worker, self.spec.timeout),
                false => !self.is_silent_for_too_long(worker),
            };
            if !lives {
                self.kill(worker);
            }
        }
        self.bury(worker)
    }

    /// Whether it is told to end: all is answered, or has taken too long.
    fn may_go(&self, worker: &Worker) -> bool {
        let mut staff = self.lock();
        let Some(member) = staff.member(worker.generation) else { return true };
        let patience = self.spec.graceful_timeout;
        member.leaving.is_some_and(|since| member.busy == 0 || since.elapsed() >= patience)
    }

    /// Whether something is wanted of it, and it has said nothing for too long.
    fn is_silent_for_too_long(&self, worker: &Worker) -> bool {
        let mut staff = self.lock();
        let is_busy = staff.member(worker.generation).is_some_and(|member| member.busy > 0);
        is_busy && worker.health.silence().is_some_and(|silence| silence >= self.spec.timeout)
    }

    /// A worker that gives no sign of life can only be killed. Its lanes end with it.
    fn kill(&self, worker: &Worker) {
        if worker.health.end(Fault::Hung) {
            let limit = self.spec.timeout;
            log(&format!("{} gave no sign of life for {limit:?}: killed", worker.name()));
            let _ = lock(&worker.child).kill();
        }
    }

    fn bury(&self, worker: &Worker) -> bool {
        let mut child = lock(&worker.child);
        // Dead already, or cut off from us. Its number belongs to nobody else before `wait`.
        let _ = child.kill();
        let end = child.wait().map_or_else(|error| error.to_string(), |end| end.to_string());
        drop(child);
        worker.health.end(Fault::Died);
        let _ = fs::remove_file(&worker.path);
        lock(&worker.idle).clear();
        let mut staff = self.lock();
        let place = staff.members.iter().position(|m| m.worker.generation == worker.generation);
        let leaving = place.is_some_and(|place| staff.members.remove(place).leaving.is_some());
        self.news.notify_all();
        if !leaving && !staff.stopping {
            log(&format!("{} has ended: {end}", worker.name()));
        }
        !leaving && !staff.stopping
    }
}

impl Staff {
    /// From now on this watch counts for the number, and the workers of earlier ones leave. A
    /// worker that one of those is starting leaves as soon as it is ready.
    fn puts_in_force(&mut self, number: usize, watch: u64) {
        if let Some(in_force) = self.in_force.get_mut(number - 1) {
            *in_force = watch.max(*in_force);
        }
        for place in 0..self.members.len() {
            let worker = self.members.get(place).map(|member| &member.worker);
            let leaves = worker.is_some_and(|w| self.is_outdated(w.number, w.watch));
            if let Some(member) = self.members.get_mut(place).filter(|_| leaves) {
                member.leaving.get_or_insert_with(Instant::now);
            }
        }
    }

    fn is_outdated(&self, number: usize, watch: u64) -> bool {
        self.in_force.get(number - 1).is_some_and(|in_force| watch < *in_force)
    }

    fn member(&mut self, generation: u64) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.worker.generation == generation)
    }
}

impl Worker {
    fn name(&self) -> String {
        format!("python worker {} (pid {})", self.number, lock(&self.child).id())
    }

    fn is_brisk(&self) -> bool {
        self.health.silence().is_some_and(|silence| silence < BRISK)
    }
}

impl Keeper for Worker {
    fn health(&self) -> &Health {
        &self.health
    }

    fn put_away(&self, line: Line) {
        lock(&self.idle).push(line);
    }

    fn release(&self) {
        if let Some(house) = self.house.upgrade() {
            house.free(self.generation);
        }
    }
}

/// Tells a worker to end, and waits until it has, or is killed.
fn dismiss(worker: &Worker) {
    let told =
        Line::open(&worker.path, PREFIX).and_then(|mut line| line.send(&[(kind::QUIT, b"")]));
    let deadline = Instant::now() + LAST_WORDS;
    while told.is_ok() && matches!(lock(&worker.child).try_wait(), Ok(None)) {
        if Instant::now() >= deadline {
            log(&format!("{} does not end after {LAST_WORDS:?}: killed", worker.name()));
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// The pings to an event loop. An application that blocks it keeps everybody waiting.
#[derive(Default)]
struct Pulse {
    line: Option<Line>,
    asked: Option<Instant>,
    answered: Option<Instant>,
}

impl Pulse {
    /// How long nobody asks, after an answer.
    const REST: Duration = Duration::from_secs(1);

    /// Asks, or looks for the answer. False if that took too long.
    fn beats(&mut self, worker: &Worker, patience: Duration) -> bool {
        if let Some(asked) = self.asked {
            let line = self.line.as_mut();
            let answer =
                line.map(|line| line.read(Some(Duration::from_millis(1)), &mut Vec::new()));
            if matches!(answer, Some(Ok(Some(kind::PING)))) {
                (self.asked, self.answered) = (None, Some(Instant::now()));
            }
            return asked.elapsed() < patience;
        }
        if self.answered.is_some_and(|answered| answered.elapsed() < Pulse::REST) {
            return true;
        }
        self.asked = Some(Instant::now());
        if self.line.is_none() {
            self.line = Line::open(&worker.path, PREFIX).ok();
        }
        // If it cannot be sent there will be no answer, and no sign of life.
        let _ = self.line.as_mut().map(|line| line.send(&[(kind::PING, b"")]));
        true
    }
}

/// What a server that hosts an application listens to.
pub const SIGNALS: [Signal; 3] = [Signal::Hangup, Signal::Interrupt, Signal::Terminate];

/// Serves until SIGINT or SIGTERM comes, then stops gracefully: the server first, then the workers.
/// A second signal cuts off who is still there. SIGHUP replaces the workers, one by one. `signals`
/// waits for [`SIGNALS`].
pub fn serve_until(signals: Shutdown, server: Server, handler: Arc<dyn Handler>, pool: &Arc<Pool>) {
    // A worker may take long. Answers to earlier requests must not wait for it.
    let sent_first = move |exchange: &mut Exchange| {
        let _ = exchange.link.wire.flush();
        handler.handle(exchange)
    };
    let running = server.start(Arc::new(sent_first));
    // If nobody can read it any more, SIGHUP came from a terminal that has been closed.
    while signals.wait() == Signal::Hangup
        && log_or_give_up("replacing the python workers, one by one")
    {
        let pool = Arc::clone(pool);
        thread::spawn(move || pool.replace_all());
    }
    let is_told_again = stopping(signals);
    let all_could_finish = running.stop_unless(&is_told_again);
    // A worker whose client was cut off may still be busy, for nobody.
    pool.stop_unless(|| !all_could_finish || is_told_again());
}

/// A folder for the private sockets: nobody else can reach the workers. It is removed at the end.
struct Folder {
    path: PathBuf,
    /// Says that its owner lives: a socket file whose process has ended refuses connections.
    _alive: UnixDatagram,
}

const FOLDER: &str = "glasshouse_python_";
const ALIVE: &str = "alive";

impl Folder {
    fn new() -> io::Result<Folder> {
        // Random keys from the system; the standard library gives no other random numbers.
        let random = RandomState::new().build_hasher().finish();
        // Short, because the path of a socket is limited to about a hundred bytes.
        let path = env::temp_dir().join(format!("{FOLDER}{:08x}", random as u32));
        // Fails if it is there already: then it may be somebody else's.
        DirBuilder::new().mode(0o700).create(&path)?;
        let alive = UnixDatagram::bind(path.join(ALIVE))?;
        let folder = Folder { path, _alive: alive };
        // What cannot be removed stays. It is no reason not to start.
        let _ = folder.sweep();
        Ok(folder)
    }

    /// Removes the folders of servers that were killed, and so could not.
    fn sweep(&self) -> io::Result<()> {
        let own = fs::symlink_metadata(&self.path)?;
        for entry in fs::read_dir(env::temp_dir())? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with(FOLDER) {
                continue;
            }
            let Ok(seen) = fs::symlink_metadata(entry.path()) else { continue };
            let is_like = seen.is_dir() && (seen.uid(), seen.mode()) == (own.uid(), own.mode());
            // One without the socket is about to get it.
            let knock = UnixDatagram::unbound()?.connect(entry.path().join(ALIVE));
            let is_dead = knock.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
            if is_like && is_dead {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }
}

/// A thread that panicked while it held a lock has left the value behind it complete.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One line on stderr, in one piece.
fn log(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
