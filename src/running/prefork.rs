//! Chapter 37: many processes. One listening socket, several workers, and one who watches them.
//!
//! ```text
//!                      supervisor: has opened the door, and never goes through it
//!                 ┌────────────────┼────────────────┐
//!              worker 1         worker 2         worker 3      each with all its threads
//!                 └──────── the same door ──────────┘
//!
//!   stdin of a worker     the listening socket
//!   stdout of a worker    the control socket, one end of a pair
//!                           worker says        READY, BEAT, LEAVING
//!                           supervisor says    RETIRE, or hangs up: stop
//!
//!   phase       the supervisor waits for     at most                         then
//!   Starting    READY                        start_timeout                   SIGKILL
//!   Serving     the next BEAT                patience                        SIGKILL
//!   Leaving     the end                      twice the graceful timeout      SIGKILL
//! ```
//!
//! This chapter needs Unix: elsewhere a socket cannot be handed down as standard input.
#![cfg(unix)]

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::connection::Observer;
use crate::http::exchange::Handler;
use crate::http::server::{Running, Server, Settings, log_or_give_up as log};
use crate::socket::listener::Listener;
use crate::socket::lobby::Lobby;
use crate::socket::system::{self, Signal, lengthen_backlog};

/// The variable that tells a process which worker it is, counted from 1. Only a supervisor sets it.
pub const VARIABLE: &str = "GLASSHOUSE_WORKER";

// What the two say to each other, a byte each. No text holds these bytes, so what an application
// prints can be told apart from them.
const READY: u8 = 1;
const BEAT: u8 = 2;
const LEAVING: u8 = 3;
const RETIRE: u8 = 4;

/// How often a worker says that it is alive.
const HEARTBEAT: Duration = Duration::from_millis(500);

const ALL_SIGNALS: &[Signal] = &[Signal::Hangup, Signal::Interrupt, Signal::Terminate];

/// One of many processes that serve at the same door.
pub struct Worker {
    number: usize,
    address: SocketAddr,
    door: TcpListener,
    control: UnixStream,
}

/// What a worker is told.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    /// A successor is there: let nobody in, and let everybody leave in their own time.
    Retire,
    /// End: as soon as requests that have begun are answered.
    Stop,
}

impl Worker {
    /// The worker that this process is, or `None` if no supervisor has started it.
    ///
    /// # Errors
    /// If the variable is set, and standard input is not a socket: somebody else has set it.
    pub fn from_environment() -> io::Result<Option<Worker>> {
        let Some(number) = env::var_os(VARIABLE) else {
            return Ok(None);
        };
        let door = TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
        let control = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
        let number = number.to_str().and_then(|text| text.parse().ok());
        let (Some(number), Ok(address)) = (number, door.local_addr()) else {
            let advice = "is set, but no supervisor has started this process: unset it";
            return Err(io::Error::new(ErrorKind::InvalidInput, format!("{VARIABLE} {advice}")));
        };
        Ok(Some(Worker { number, address, door, control }))
    }

    /// Which of the workers this is, from 1. Its successor will have the same number.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The address of the door.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the supervisor says stop, or is gone, or SIGTERM comes; then stops gracefully.
    /// SIGINT and SIGHUP are left to the supervisor: a terminal sends them to all of us.
    ///
    /// # Errors
    /// If the system has no descriptor left.
    pub fn serve(
        self,
        settings: Settings,
        handler: Arc<dyn Handler>,
        observer: Arc<dyn Observer>,
    ) -> io::Result<()> {
        let longest_wait = settings.deadlines.keep_alive.max(settings.deadlines.head);
        let patience = longest_wait.min(settings.graceful_timeout);
        let (tell, orders) = mpsc::channel();
        obey_signals(tell.clone())?;
        obey_supervisor(self.control.try_clone()?, tell);
        let listener = Listener::shared(self.door)?;
        let running = Server::at(listener, settings).observed_by(observer).start(handler);
        // If nobody hears it the supervisor is gone, and the order to stop is on its way.
        let say = |word| drop((&self.control).write_all(&[word]));
        say(READY);
        let order = loop {
            match orders.recv_timeout(HEARTBEAT) {
                Ok(order) => break order,
                Err(_) if is_alive(&running.lobby) => say(BEAT),
                Err(_) => {}
            }
        };
        say(LEAVING);
        if order == Order::Retire {
            retire(&running, patience, &orders);
        }
        running.stop();
        Ok(())
    }
}

fn obey_signals(tell: Sender<Order>) -> io::Result<()> {
    let signals = system::Shutdown::on(ALL_SIGNALS)?;
    thread::spawn(move || {
        loop {
            if signals.wait() == Signal::Terminate {
                let _ = tell.send(Order::Stop);
            }
        }
    });
    Ok(())
}

fn obey_supervisor(mut control: UnixStream, tell: Sender<Order>) {
    thread::spawn(move || {
        let mut word = [0];
        // The end comes when the supervisor hangs up, and also when it dies.
        while control.read_exact(&mut word).is_ok() {
            if word == [RETIRE] {
                let _ = tell.send(Order::Retire);
            }
        }
        let _ = tell.send(Order::Stop);
    });
}

/// What a heartbeat proves: the lock of the lobby can be had, and the door is attended, or there
/// is a reason why not.
fn is_alive(lobby: &Lobby) -> bool {
    // If a thread never gives this lock back, the house stands still, and we with it.
    let _guests = lobby.len();
    lobby.door.waiting.load(Ordering::SeqCst) > 0 || lobby.door.at_cap()
}

/// Lets nobody in, and shows nobody out: whoever is between two requests may send one more, and
/// learns from its answer that it is the last. RFC 9112, section 9.6.
fn retire(running: &Running, patience: Duration, orders: &Receiver<Order>) {
    running.pool.stopper().ask();
    let began = Instant::now();
    while running.pool.threads() > 0 && began.elapsed() < patience {
        if orders.try_recv() == Ok(Order::Stop) {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// How many workers there are, and what the supervisor puts up with.
#[derive(Debug, Clone)]
pub struct Staff {
    /// How many workers, at least 1.
    pub workers: usize,
    /// Time until a new worker must have said that it is ready.
    pub start_timeout: Duration,
    /// How long a worker may go without a heartbeat. It sends two a second.
    pub patience: Duration,
    /// A worker that dies before this age has died young, and will probably do so again.
    pub young: Duration,
    /// How long the place of a worker stays empty that has died young. It doubles each time.
    pub first_pause: Duration,
    /// The longest such pause.
    pub longest_pause: Duration,
    /// How long a worker may take to stop. The same as in its [`Settings`].
    pub graceful_timeout: Duration,
}

impl Default for Staff {
    fn default() -> Staff {
        Staff {
            workers: thread::available_parallelism().map_or(1, |count| count.get()),
            start_timeout: Duration::from_secs(60),
            patience: Duration::from_secs(10),
            young: Duration::from_secs(1),
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(10),
            graceful_timeout: Duration::from_secs(30),
        }
    }
}

/// Starts workers, replaces those that die or hang, and ends them all.
pub struct Supervisor {
    listener: Listener,
    staff: Staff,
    program: PathBuf,
    arguments: Vec<OsString>,
    members: Vec<Member>,
    /// One for each worker number.
    posts: Vec<Post>,
    /// Members that shall be replaced, one after the other.
    outdated: VecDeque<u64>,
    stopping: bool,
    hired: u64,
    tell: Sender<News>,
    news: Receiver<News>,
}

/// One process that we have started, until we have buried it.
struct Member {
    id: u64,
    number: usize,
    child: Child,
    control: UnixStream,
    phase: Phase,
    born: Instant,
    /// How long it has kept us waiting in this phase, in ticks of ours.
    waited: Duration,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Starting,
    Serving,
    Leaving,
}

/// A place that should be filled.
struct Post {
    number: usize,
    /// How many in a row have died young here.
    failures: u32,
    closed_until: Instant,
}

enum News {
    Signal(Signal),
    Said(u64, u8),
    HungUp(u64),
}

/// How often the supervisor looks at its clock.
const TICK: Duration = Duration::from_millis(100);

impl Supervisor {
    /// A supervisor for this door. Its workers will run this program, with these arguments. From
    /// now on it waits for signals.
    ///
    /// # Errors
    /// If the path of this program is not known, or signals cannot be waited for.
    pub fn new(listener: Listener, mut staff: Staff) -> io::Result<Supervisor> {
        staff.workers = staff.workers.max(1);
        if let Err(error) = lengthen_backlog(listener.socket()) {
            log(&format!("the backlog stays short: {error}"));
        }
        // Asked now: later another file may lie there, which is what a reload is for.
        let program = env::current_exe()?;
        let arguments = env::args_os().skip(1).collect();
        let post = |number| Post { number, failures: 0, closed_until: Instant::now() };
        let (tell, news) = mpsc::channel();
        pass_signals_on(tell.clone())?;
        Ok(Supervisor {
            posts: (1..=staff.workers).map(post).collect(),
            members: Vec::new(),
            outdated: VecDeque::new(),
            stopping: false,
            hired: 0,
            listener,
            staff,
            program,
            arguments,
            tell,
            news,
        })
    }

    /// The same with one more argument for the workers, such as the place of a folder that all of
    /// them shall share.
    pub fn with_argument(mut self, argument: impl Into<OsString>) -> Supervisor {
        self.arguments.push(argument.into());
        self
    }

    /// Runs until SIGINT or SIGTERM has come and all workers have ended. A second signal ends them
    /// at once. SIGHUP replaces them, one by one.
    /// A worker that cannot be started is tried again.
    pub fn run(mut self) {
        let mut next_tick = Instant::now() + TICK;
        loop {
            self.fill_posts();
            self.replace_next();
            if self.stopping && self.members.is_empty() {
                return;
            }
            let rest = next_tick.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                self.tick();
                next_tick = Instant::now() + TICK;
                continue;
            }
            match self.news.recv_timeout(rest) {
                Ok(News::Signal(signal)) => self.obey(signal),
                Ok(News::Said(id, word)) => self.hear(id, word),
                Ok(News::HungUp(id)) => self.bury(id),
                Err(_) => {}
            }
        }
    }

    /// Hires for every post that has neither a worker nor a candidate.
    fn fill_posts(&mut self) {
        let now = Instant::now();
        let open = self.posts.iter().filter(|post| post.closed_until <= now);
        let open: Vec<usize> = open.map(|post| post.number).collect();
        for number in open {
            if self.stopping || self.is_staffed(number) {
                continue;
            }
            if let Err(error) = self.hire(number) {
                log(&format!("worker {number} cannot be started: {error}"));
                self.count_failure(number);
            }
        }
    }

    fn is_staffed(&self, number: usize) -> bool {
        self.members.iter().any(|member| member.number == number && !member.is_leaving())
    }

    /// Starts one process. It has our door as its stdin, and a line to us as its stdout.
    fn hire(&mut self, number: usize) -> io::Result<()> {
        let (control, theirs) = UnixStream::pair()?;
        let heard = control.try_clone()?;
        let door = OwnedFd::from(self.listener.socket().try_clone()?);
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env(VARIABLE, number.to_string());
        command.stdin(Stdio::from(door)).stdout(Stdio::from(OwnedFd::from(theirs)));
        let child = command.spawn()?;
        self.hired += 1;
        let (id, born, tell) = (self.hired, Instant::now(), self.tell.clone());
        let (phase, waited) = (Phase::Starting, Duration::ZERO);
        self.members.push(Member { id, number, child, control, phase, born, waited });
        let builder = thread::Builder::new().name(format!("worker {number}"));
        if let Err(error) = builder.spawn(move || listen_to(id, heard, &tell)) {
            self.bury(id);
            return Err(error);
        }
        Ok(())
    }

    /// Starts the next successor, if no worker is starting. Its predecessor still serves.
    fn replace_next(&mut self) {
        if self.members.iter().any(|member| member.phase == Phase::Starting) {
            return;
        }
        while let Some(id) = self.outdated.pop_front() {
            let serving = self.member(id).filter(|member| member.phase == Phase::Serving);
            let Some(number) = serving.map(|member| member.number) else {
                continue;
            };
            if let Err(error) = self.hire(number) {
                log(&format!("worker {number} cannot be replaced: {error}"));
                self.outdated.clear();
            }
            return;
        }
    }

    fn member(&mut self, id: u64) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.id == id)
    }

    fn post(&mut self, number: usize) -> Option<&mut Post> {
        self.posts.iter_mut().find(|post| post.number == number)
    }

    fn hear(&mut self, id: u64, word: u8) {
        let young = self.staff.young;
        let Some(member) = self.member(id) else {
            return;
        };
        let (number, name, phase) = (member.number, member.name(), member.phase);
        let is_grown_up = member.born.elapsed() >= young;
        match (word, phase) {
            (READY, Phase::Starting) => {
                member.enter(Phase::Serving);
                log(&format!("{name} is ready"));
                self.retire_others(number, id);
            }
            (BEAT, Phase::Serving) => {
                member.waited = Duration::ZERO;
                if let Some(post) = self.post(number).filter(|_| is_grown_up) {
                    post.failures = 0;
                }
            }
            (LEAVING, Phase::Starting | Phase::Serving) => {
                member.enter(Phase::Leaving);
                log(&format!("{name} leaves"));
            }
            _ => {}
        }
    }

    /// The successor is ready: whoever had this number before may go.
    fn retire_others(&mut self, number: usize, successor: u64) {
        for member in &mut self.members {
            if member.number == number && member.id != successor && !member.is_leaving() {
                // If it cannot be told, it is dead, which is news that is on its way to us.
                let _ = member.control.write_all(&[RETIRE]);
                member.enter(Phase::Leaving);
                log(&format!("{} leaves", member.name()));
            }
        }
    }

    fn obey(&mut self, signal: Signal) {
        if self.stopping {
            if signal != Signal::Hangup {
                log("stopping at once");
                self.bury_all(|_| true);
            }
            return;
        }
        // If nobody can read it any more, SIGHUP came from a terminal that has been closed.
        if signal == Signal::Hangup && log("replacing the workers, one by one") {
            let serving = self.members.iter().filter(|member| member.phase == Phase::Serving);
            self.outdated = serving.map(|member| member.id).collect();
            return;
        }
        log("stopping: requests that have begun may finish; once more to stop at once");
        self.stop();
    }

    /// Each worker is told, and then the door is shut for all of them.
    fn stop(&mut self) {
        self.stopping = true;
        self.outdated.clear();
        let is_starting = |member: &Member| member.phase == Phase::Starting;
        for member in self.members.iter().filter(|member| is_starting(member)) {
            // Nobody has come to it yet.
            log(&format!("{} was still starting: killed", member.name()));
        }
        self.bury_all(is_starting);
        for member in &mut self.members {
            let _ = member.control.shutdown(Shutdown::Write);
            member.enter(Phase::Leaving);
        }
        self.listener.stop().ask();
    }

    /// Looks after those who say nothing.
    fn tick(&mut self) {
        let staff = self.staff.clone();
        let mut ended = Vec::new();
        for member in &mut self.members {
            // Time counts in our own ticks. When Ctrl-Z stops us all, it stops the count too.
            member.waited += TICK;
            let (limit, what) = match member.phase {
                Phase::Starting => (staff.start_timeout, "is not ready"),
                Phase::Serving => (staff.patience, "gives no sign of life"),
                // Twice: a worker that retires waits before it stops, and its stop waits once more.
                Phase::Leaving => (staff.graceful_timeout * 2 + LAST_WORDS, "does not end"),
            };
            if member.waited >= limit {
                log(&format!("{} {what} after {limit:?}: killed", member.name()));
                ended.push(member.id);
            } else if !matches!(member.child.try_wait(), Ok(None)) {
                // It has ended, and a program that it started still holds its stdout.
                ended.push(member.id);
            }
        }
        ended.into_iter().for_each(|id| self.bury(id));
    }

    fn bury_all(&mut self, which: impl Fn(&Member) -> bool) {
        let chosen = self.members.iter().filter(|member| which(member)).map(|member| member.id);
        let chosen: Vec<u64> = chosen.collect();
        chosen.into_iter().for_each(|id| self.bury(id));
    }

    /// The end of a worker: nothing of it stays, neither a process nor a zombie nor a descriptor.
    fn bury(&mut self, id: u64) {
        let Some(place) = self.members.iter().position(|member| member.id == id) else {
            return;
        };
        let mut member = self.members.remove(place);
        // Dead already, or cut off from us. Its number belongs to nobody else before `wait`.
        let _ = member.child.kill();
        let end = member.child.wait().map_or_else(|error| error.to_string(), |end| end.to_string());
        // The thread that listens to it ends even if a grandchild holds the other end.
        let _ = member.control.shutdown(Shutdown::Both);
        log(&format!("{} has ended: {end}", member.name()));
        if member.is_leaving() || self.stopping {
            return;
        }
        let (number, never_ready) = (member.number, member.phase == Phase::Starting);
        if !self.is_staffed(number) {
            if never_ready || member.born.elapsed() < self.staff.young {
                self.count_failure(number);
            }
        } else if never_ready {
            log("the successor does not start: those who serve now stay");
            self.outdated.clear();
        }
    }

    fn count_failure(&mut self, number: usize) {
        let (first, longest) = (self.staff.first_pause, self.staff.longest_pause);
        let Some(post) = self.post(number) else {
            return;
        };
        let pause = first.saturating_mul(2_u32.saturating_pow(post.failures)).min(longest);
        post.failures += 1;
        post.closed_until = Instant::now() + pause;
        log(&format!("worker {number} died young: the next one in {pause:?}"));
    }
}

/// Begins before the greeting: whoever has read that may send a signal at once.
fn pass_signals_on(tell: Sender<News>) -> io::Result<()> {
    let signals = system::Shutdown::on(ALL_SIGNALS)?;
    thread::spawn(move || {
        loop {
            let _ = tell.send(News::Signal(signals.wait()));
        }
    });
    Ok(())
}

/// What a worker may take to end, besides the time that it gives its guests.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Member {
    fn name(&self) -> String {
        format!("worker {} (pid {})", self.number, self.child.id())
    }

    fn is_leaving(&self) -> bool {
        self.phase == Phase::Leaving
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.waited = Duration::ZERO;
    }
}

/// The life of a thread of the supervisor: one for each worker. Bytes that are not ours were
/// printed by the application, and go where it would have printed them.
fn listen_to(id: u64, mut control: UnixStream, tell: &Sender<News>) {
    let mut block = [0; 512];
    loop {
        let count = match control.read(&mut block) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let heard = block.get(..count).unwrap_or_default();
        let (words, printed): (Vec<u8>, Vec<u8>) =
            heard.iter().partition(|byte| [READY, BEAT, LEAVING].contains(byte));
        for word in words {
            let _ = tell.send(News::Said(id, word));
        }
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(&printed).and_then(|()| stdout.flush());
    }
    let _ = tell.send(News::HungUp(id));
}
