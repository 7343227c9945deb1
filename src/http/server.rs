//! Chapter 15: the server. From the first setting to the last goodbye. RFC 9112, section 9.6.
//!
//! ```text
//!   Settings ──► bind ──► start ──► serve ......... a signal ──► stop
//!                 │         │                           │          │
//!                 │         pool, watchman              │          close the door
//!                 the longer backlog                    │          send the idle home
//!                                                       │          let the others finish
//!                            a second signal: cut all ──┘          or cut them, in the end
//! ```

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::connection::{Http, Limits, Observer};
use crate::http::exchange::{Exchange, Handler};
use crate::http::refusal::Refusal;
use crate::socket::listener::{BindError, Listener};
use crate::socket::lobby::{Deadlines, Guest, Lobby};
use crate::socket::pool::{PoolSize, ThreadPool};
use crate::socket::system::{Shutdown, Signal, descriptor_limit, lengthen_backlog};
use crate::socket::wire::Tap;

/// All that can be set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The address to listen on. `0.0.0.0` means all of this machine's.
    pub host: String,
    /// The port. 0 means any free one.
    pub port: u16,
    /// How many threads. With a cap of 1 each connection carries one request only, because a
    /// second client could not even be seen while the first stays.
    pub threads: PoolSize,
    /// How long a client may take.
    pub deadlines: Deadlines,
    /// How much a client may send.
    pub limits: Limits,
    /// How long a stop waits for requests that have begun.
    pub graceful_timeout: Duration,
    /// Whether each byte is shown on stderr.
    pub wire_view: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            host: "127.0.0.1".to_string(),
            port: 8000,
            threads: PoolSize::default(),
            deadlines: Deadlines::default(),
            limits: Limits::default(),
            graceful_timeout: Duration::from_secs(30),
            wire_view: false,
        }
    }
}

/// A server that is bound to its address and does not serve yet.
pub struct Server {
    settings: Settings,
    listener: Listener,
    observer: Arc<dyn Observer>,
}

impl Server {
    /// Binds the address.
    ///
    /// # Errors
    /// A [`BindError`] that says what to do.
    pub fn bind(settings: Settings) -> Result<Server, BindError> {
        let listener = Listener::bind(&settings.host, settings.port)?;
        // A shorter queue at the door is a pity, and no reason not to open.
        if let Err(error) = lengthen_backlog(listener.socket()) {
            log(&format!("the backlog stays short: {error}"));
        }
        Ok(Server::at(listener, settings))
    }

    /// A server at a door that somebody else has opened. Host and port are that door's own.
    pub fn at(listener: Listener, mut settings: Settings) -> Server {
        let cap = &mut settings.threads.cap;
        *cap = (*cap).clamp(1, PoolSize::LARGEST_CAP);
        Server { settings, listener, observer: Arc::new(Complaints) }
    }

    /// The same with an observer of your own. Without one, what goes wrong is written to stderr.
    pub fn observed_by(mut self, observer: Arc<dyn Observer>) -> Server {
        self.observer = observer;
        self
    }

    /// The address it is bound to.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Starts to serve, on threads of its own, until [`Running::stop`].
    pub fn start(self, handler: Arc<dyn Handler>) -> Running {
        let Server { settings, listener, observer } = self;
        let (address, stop) = (listener.address(), listener.stop());
        let http = Http {
            handler,
            observer,
            limits: settings.limits,
            keep_alive: settings.threads.cap > 1,
            stop,
            tap: settings.wire_view.then(|| Arc::new(Tap::new(Box::new(io::stderr())))),
        };
        let lobby = Arc::new(Lobby::new(settings.deadlines, settings.threads.cap));
        let pool =
            ThreadPool::start(listener, Arc::clone(&lobby), settings.threads, Arc::new(http));
        Running { address, lobby, pool, grace: settings.graceful_timeout }
    }

    /// Serves until SIGINT or SIGTERM comes, then stops gracefully. A second signal ends the wait:
    /// handlers that still compute are left behind, for the program is about to end.
    ///
    /// # Errors
    /// If the signals cannot be waited for.
    pub fn serve_until_signal(self, handler: Arc<dyn Handler>) -> io::Result<()> {
        self.serve_until(Shutdown::on_signals()?, handler);
        Ok(())
    }

    /// The same for a program that waits for signals already: whoever has read its greeting may
    /// send one at once.
    pub fn serve_until(self, shutdown: Shutdown, handler: Arc<dyn Handler>) {
        warn_about_descriptors(self.settings.threads.cap, 1);
        let running = self.start(handler);
        shutdown.wait();
        running.stop_unless(stopping(shutdown));
    }
}

/// For how many threads the system gives descriptors, if each needs so many: one for its
/// connection, and those that its handler opens. The house itself needs a few too.
pub fn most_threads(each: usize) -> usize {
    const FOR_THE_HOUSE: usize = 32;
    let limit = descriptor_limit().unwrap_or(usize::MAX);
    (limit.saturating_sub(FOR_THE_HOUSE) / each.max(1)).max(1)
}

/// Says so if that is too few.
pub fn warn_about_descriptors(cap: usize, each: usize) {
    let most = most_threads(each);
    if cap > most {
        log(&format!(
            "warning: {cap} threads, but open files for {most} only: raise `ulimit -n`, or take \
             --threads {most}"
        ));
    }
}

/// A server that serves.
pub struct Running {
    /// The address it listens on.
    pub address: SocketAddr,
    /// Everybody who is connected.
    pub lobby: Arc<Lobby>,
    /// The threads.
    pub pool: ThreadPool,
    grace: Duration,
}

impl Running {
    /// Closes the door, lets requests that have begun finish, and ends all threads. Returns true
    /// if nobody had to be cut.
    pub fn stop(self) -> bool {
        self.stop_unless(|| false)
    }

    /// The same, but when `is_told_again` says so, all are cut at once, and whoever computes is left
    /// behind after a second: the program is about to end.
    pub fn stop_unless(self, is_told_again: impl Fn() -> bool) -> bool {
        let began = Instant::now();
        self.pool.stop_unless(|| {
            let passed = began.elapsed();
            let is_over = is_told_again() || passed >= self.grace;
            let cut = if is_over { self.lobby.in_a_request() } else { 0 };
            if cut > 0 {
                let passed = passed.as_secs_f64();
                log_or_give_up(&format!("unfinished requests, cut after {passed:.1} s: {cut}"));
            }
            is_over
        })
    }
}

/// Says that the program stops, and listens. The result tells whether a second signal has come
/// since. SIGHUP is no such signal: it asks for no end.
pub fn stopping(signals: Shutdown) -> impl Fn() -> bool {
    let told_again = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&told_again);
    let listen = move || {
        while signals.wait() == Signal::Hangup {}
        log_or_give_up("stopping at once");
        tell.store(true, Ordering::SeqCst);
    };
    log_or_give_up("stopping: requests that have begun may finish; once more to stop at once");
    // Not `thread::spawn`, which panics when the system has no thread to give: then a second
    // signal changes nothing, and the stop is as graceful as ever.
    let _ = thread::Builder::new().spawn(listen);
    move || told_again.load(Ordering::SeqCst)
}

/// Writes to stderr what went wrong, a line each.
pub struct Complaints;

impl Observer for Complaints {
    fn exchanged(&self, exchange: &Exchange) {
        if let Some(refusal) = exchange.failure() {
            self.refused(&exchange.link.guest, refusal);
        }
    }

    fn refused(&self, guest: &Guest, refusal: &Refusal) {
        log(&format!("{} {refusal}", guest.peer));
    }
}

/// One line, written in one piece: lines of several threads must not mix. False if nobody is there
/// to read it.
fn log(line: &str) -> bool {
    io::stderr().write_all(format!("{line}\n").as_bytes()).is_ok()
}

/// The same for those who must go on. Who should read it may have stopped to read, and not have
/// gone away: then a write waits for ever. After a second we leave the line behind, and leave out
/// all others until it has been written.
pub fn log_or_give_up(line: &str) -> bool {
    static IS_STUCK: AtomicBool = AtomicBool::new(false);
    if IS_STUCK.swap(true, Ordering::SeqCst) {
        return true;
    }
    let (tell, written) = mpsc::channel();
    let line = line.to_string();
    let print = move || {
        let is_written = log(&line);
        IS_STUCK.store(false, Ordering::SeqCst);
        let _ = tell.send(is_written);
    };
    // Again not `thread::spawn`.
    if thread::Builder::new().spawn(print).is_err() {
        IS_STUCK.store(false, Ordering::SeqCst);
    }
    written.recv_timeout(Duration::from_secs(1)).unwrap_or(true)
}
