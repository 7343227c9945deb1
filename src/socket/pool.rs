//! Chapter 4: the pool. A bounded number of threads that take turns at the door.
//!
//! ```text
//!            ┌────────────────────────────── come back ──────────────────────────────┐
//!            ▼                                                                        │
//!   ┌── the door ──┐   a guest!   ┌─ the last to leave? ─┐   ┌─ serve ─┐   ┌─ leave ─┐│
//!   │ accept ... zZ│ ───────────► │ then see to it that  │──►│ request │──►│ forget  ├┘
//!   │ accept ... zZ│              │ somebody stands here │   │ answer  │   │ guest   │
//!   └──────────────┘              └──────────────────────┘   └─────────┘   └─────────┘
//! ```
//!
//! There is no queue and no hand-over from one thread to another: whoever accepts a connection
//! serves it. To wake a second thread for it would cost more than many an answer.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::socket::listener::{Arrival, Listener, Stop};
use crate::socket::lobby::{Door, Guest, Lobby};

/// What the pool's threads do for a guest.
pub trait Service: Send + Sync {
    /// Serves one connection from its first byte to its last. Called once for each connection, on
    /// a pool thread. When it returns, or panics, the connection is closed and the thread goes
    /// back to the door.
    fn serve(&self, guest: &Arc<Guest>, lobby: &Arc<Lobby>);

    /// Sends one connection away, politely and soon: the house is full. Called instead of
    /// [`Service::serve`], and a panic in it does as little harm.
    fn turn_away(&self, guest: &Arc<Guest>, lobby: &Arc<Lobby>);
}

/// How large the pool may be.
#[derive(Debug, Clone, Copy)]
pub struct PoolSize {
    /// Threads at the start, and threads that stay when all is quiet.
    pub start: usize,
    /// The most threads. A guest holds one thread as long as it is connected.
    pub cap: usize,
    /// Stack of each thread, in bytes. Only what is touched costs memory.
    pub stack: usize,
}

impl PoolSize {
    /// Above some 16,000 threads the standard library ends the process when it cannot set one
    /// more up. This stays clear of it.
    pub const LARGEST_CAP: usize = 12_000;
}

impl Default for PoolSize {
    fn default() -> PoolSize {
        PoolSize { start: 8, cap: 512, stack: 256 * 1024 }
    }
}

/// A running pool, with its watchman.
pub struct ThreadPool {
    house: Arc<House>,
}

/// What all the threads share.
struct House {
    listener: Listener,
    lobby: Arc<Lobby>,
    service: Arc<dyn Service>,
    size: PoolSize,
}

impl ThreadPool {
    /// Starts the first threads and the watchman. The lobby's cap should be `size.cap`. The pool
    /// runs until [`ThreadPool::stop`], even if this handle is dropped.
    pub fn start(
        listener: Listener,
        lobby: Arc<Lobby>,
        size: PoolSize,
        service: Arc<dyn Service>,
    ) -> ThreadPool {
        let cap = size.cap.max(1);
        let size = PoolSize { start: size.start.clamp(1, cap), cap, ..size };
        let (tick, house) = (lobby.deadlines.tick, House { listener, lobby, service, size });
        let house = Arc::new(house);
        for _ in 0..size.start {
            house.add_thread(Badge::Regular);
        }
        let watched = Arc::downgrade(&house);
        let watchman = thread::Builder::new().name("watchman".into()).stack_size(size.stack);
        if watchman.spawn(move || keep_watch(&watched, tick)).is_err() {
            complain("the watchman could not be started: time limits are not enforced");
        }
        ThreadPool { house }
    }

    /// How many threads there are now, without the watchman.
    pub fn threads(&self) -> usize {
        self.house.door().threads.load(Ordering::SeqCst)
    }

    /// Closes the door, sends those home who wait between requests, and lets the others finish
    /// for at most `grace`. Then it cuts. Returns true if nobody had to be cut.
    pub fn stop(&self, grace: Duration) -> bool {
        let began = Instant::now();
        self.stop_unless(|| began.elapsed() >= grace)
    }

    /// The same, but the others may finish for as long as `is_over` does not say otherwise.
    pub fn stop_unless(&self, is_over: impl Fn() -> bool) -> bool {
        self.stopper().ask();
        if self.wait_until_empty(is_over) {
            return true;
        }
        self.house.lobby.cut_all();
        let cut = Instant::now();
        self.wait_until_empty(|| cut.elapsed() >= Duration::from_secs(1));
        false
    }

    /// The handle that closes the door of this pool.
    pub fn stopper(&self) -> Stop {
        self.house.listener.stop()
    }

    fn wait_until_empty(&self, is_over: impl Fn() -> bool) -> bool {
        while self.threads() > 0 {
            if is_over() {
                return false;
            }
            // Each time again: a thread may have begun to wait after we last looked.
            self.house.lobby.close_idle();
            thread::sleep(Duration::from_millis(2));
        }
        true
    }
}

/// Whether a thread counts against the cap.
#[derive(Clone, Copy, PartialEq)]
enum Badge {
    /// It must go if there are already enough.
    Regular,
    /// The watchman has lent it, above the cap, to look after those who wait outside.
    Lent,
}

impl House {
    fn door(&self) -> &Door {
        &self.lobby.door
    }

    /// Makes one more thread. If the system refuses, the house is full, whatever its cap says.
    fn add_thread(self: &Arc<House>, badge: Badge) {
        let house = Arc::clone(self);
        let builder = thread::Builder::new().name("server".into()).stack_size(self.size.stack);
        // Not `thread::spawn`, which panics when there is no memory for a stack.
        let made = has_headroom() && builder.spawn(move || house.work(badge)).is_ok();
        if !made {
            self.door().refused.store(true, Ordering::SeqCst);
            self.lobby.show_one_out();
        }
    }

    /// The life of one thread.
    fn work(self: &Arc<House>, badge: Badge) {
        // The thread counts itself, and not the one who made it: a thread can die between the
        // two, and a count that nobody takes back would make the pool smaller for ever.
        let most = if badge == Badge::Regular { self.size.cap } else { usize::MAX };
        let Some(_counted) = Counted::new(self.door(), most) else { return };
        while self.go_to_the_door() {
            let arrival = self.listener.accept();
            let was_last = self.door().waiting.fetch_sub(1, Ordering::SeqCst) == 1;
            match arrival {
                Arrival::Guest(stream, peer) => {
                    if was_last {
                        self.send_someone_to_the_door();
                    }
                    let guest = self.lobby.enter(stream, peer);
                    self.look_after(&guest);
                    self.lobby.leave(&guest);
                }
                Arrival::NoRoom(error) => self.make_room(&error.to_string()),
                Arrival::Stopped => return,
            }
        }
    }

    /// Returns false if enough threads stand there already: then this one is not needed.
    fn go_to_the_door(&self) -> bool {
        let enough = if self.is_over_cap() { 1 } else { self.size.start };
        // Look and count in one step. A thread that was counted for a moment and went away again
        // would hide from another one that it is the last to leave.
        let come = |waiting| if waiting < enough { Some(waiting + 1) } else { None };
        self.door().waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, come).is_ok()
    }

    fn is_over_cap(&self) -> bool {
        self.door().threads.load(Ordering::SeqCst) > self.size.cap
    }

    fn send_someone_to_the_door(self: &Arc<House>) {
        if self.listener.stop().is_asked() {
            return;
        }
        if self.door().at_cap() {
            self.lobby.show_one_out();
        } else {
            self.add_thread(Badge::Regular);
        }
    }

    fn look_after(&self, guest: &Arc<Guest>) {
        let is_full = self.is_over_cap() && !self.lobby.show_one_out();
        // A panic ends this connection and nothing else. Its message is on stderr already.
        let _ = catch_unwind(AssertUnwindSafe(|| match is_full {
            true => self.service.turn_away(guest, &self.lobby),
            false => self.service.serve(guest, &self.lobby),
        }));
    }

    /// No descriptor is left for the next connection, so a present guest must give one back.
    fn make_room(&self, error: &str) {
        if !self.door().refused.swap(true, Ordering::SeqCst) {
            complain(&format!("cannot accept a connection: {error}; waiting for one to end"));
        }
        self.lobby.show_one_out();
    }
}

/// The life of the watchman. He does not own the house: when all others have left it, he goes too.
fn keep_watch(house: &Weak<House>, tick: Duration) {
    let mut empty_since = None;
    loop {
        thread::sleep(tick);
        let Some(house) = house.upgrade() else { return };
        house.lobby.end_late_waits();
        house.door().refused.store(false, Ordering::SeqCst);
        let attended = house.door().waiting.load(Ordering::SeqCst) > 0;
        if attended || house.listener.stop().is_asked() {
            empty_since = None;
            continue;
        }
        house.send_someone_to_the_door();
        let since: &mut Instant = empty_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= house.lobby.deadlines.queue {
            house.add_thread(Badge::Lent);
            empty_since = None;
        }
    }
}

/// Memory that must still be there when a thread is made, in bytes. The threads we have must be
/// able to finish: when a small allocation fails, Rust ends the process. Above 32 MiB the allocator
/// asks the system each time, so this measures what is left, and touches none of it.
const HEADROOM: usize = 40 * 1024 * 1024;

fn has_headroom() -> bool {
    let mut trial: Vec<u8> = Vec::new();
    let result = trial.try_reserve_exact(HEADROOM);
    // Without this the compiler would see that nobody uses the memory, and never ask for it.
    std::hint::black_box(&trial);
    result.is_ok()
}

/// Not `eprintln!`, which panics when nobody reads our stderr any more.
fn complain(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Counts a thread for as long as it lives, however it ends.
struct Counted<'a> {
    door: &'a Door,
}

impl Counted<'_> {
    /// `None` if there are so many already. Here too we look and count in one step: one thread too
    /// many would make the house look full for a moment, and two could send each other away.
    fn new(door: &Door, most: usize) -> Option<Counted<'_>> {
        let come = |threads| if threads < most { Some(threads + 1) } else { None };
        let counted = door.threads.fetch_update(Ordering::SeqCst, Ordering::SeqCst, come);
        counted.is_ok().then(|| Counted { door })
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.door.threads.fetch_sub(1, Ordering::SeqCst);
    }
}
