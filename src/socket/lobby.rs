//! Chapter 3: the lobby. Who is here, what each one waits for, and until when.
//!
//! ```text
//!  phase       the thread of this guest waits for      until             then
//!  Fresh       the first byte                          head deadline     close, no word
//!  Head        the rest of a request head              head deadline     408
//!  Idle        another request                         keep-alive        close, no word
//!  Body        a piece of a request body               progress          408
//!  Lingering   the end of what we no longer read       linger            close
//!  Staying     whatever its peer may say, or nothing   -                 -
//!  Busy        nothing: it computes, or it writes      -                 -
//! ```
//!
//! A thread that waits in `read` cannot watch a clock. So one other thread, the watchman, walks
//! through the lobby several times a second. Whose time is over gets its reading side shut down:
//! the `read` returns at once, and the guest's own thread does what is left to do.

use std::collections::BTreeMap;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Every time limit of the server, in one place.
#[derive(Debug, Clone)]
pub struct Deadlines {
    /// Time to receive a whole request head, from its first byte on; also the time a new
    /// connection may stay silent. A sender cannot stretch it by sending slowly.
    pub head: Duration,
    /// The longest gap inside a request body; and all the time for one that nobody wants.
    pub body: Duration,
    /// The slowest rate, in bytes a second, at which a body may come once `body` has passed.
    pub body_rate: u64,
    /// How long a connection may stay open between two requests.
    pub keep_alive: Duration,
    /// How long we wait for more after an early answer, which might be lost if we did not.
    pub linger: Duration,
    /// How long a write may make no progress at all.
    pub write: Duration,
    /// A new connection is not shown out before this: its request may be on the way.
    pub grace: Duration,
    /// How long the door of a full house may stay empty, with newcomers in front of it. After
    /// that they are turned away, until somebody leaves.
    pub queue: Duration,
    /// How often the watchman walks. No deadline is more exact than this.
    pub tick: Duration,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines {
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            body_rate: 1024,
            keep_alive: Duration::from_secs(5),
            linger: Duration::from_millis(500),
            write: Duration::from_secs(10),
            grace: Duration::from_millis(300),
            queue: Duration::from_secs(10),
            tick: Duration::from_millis(100),
        }
    }
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Its thread computes or writes. Nobody else may change this phase.
    Busy,
    /// No byte has come yet.
    Fresh,
    /// A request head has begun.
    Head,
    /// At least one request has been answered, and the next has not begun.
    Idle,
    /// A request body is awaited.
    Body,
    /// The answer has been given, and the rest of the request is thrown away.
    Lingering,
    /// It has come to stay, as in a chat: it is never late, and never shown out to make room. Only
    /// the end of the house ends this wait.
    Staying,
    /// Asked to leave, to make room for others.
    ShownOut,
    /// Its deadline has passed.
    Late,
}

const PHASES: [Phase; 9] = [
    Phase::Busy,
    Phase::Fresh,
    Phase::Head,
    Phase::Idle,
    Phase::Body,
    Phase::Lingering,
    Phase::Staying,
    Phase::ShownOut,
    Phase::Late,
];

/// One open connection, as the rest of the house sees it.
pub struct Guest {
    /// The number of this connection, from 1.
    pub number: u64,
    /// Who it is.
    pub peer: SocketAddr,
    /// Its socket, shared with the thread that serves it.
    pub stream: Arc<TcpStream>,
    /// The phase in the low byte, the deadline above it: one word, so that both change at once.
    state: AtomicU64,
}

impl Guest {
    /// Called by the guest's own thread before it waits, and by nobody else. Its phase was not a
    /// wait: nobody from outside can have changed it in between.
    pub fn begin_wait(&self, phase: Phase, deadline_ms: u64) {
        self.state.store(pack(phase, deadline_ms), Ordering::SeqCst);
    }

    /// Called by the guest's own thread after the wait. If nobody was quicker it is busy again.
    ///
    /// # Errors
    /// [`Phase::ShownOut`] or [`Phase::Late`]: the wait ended because somebody ended it. The
    /// reading side of the socket is shut down; what had arrived by then can still be read.
    pub fn end_wait(&self) -> Result<(), Phase> {
        let seen = self.state.load(Ordering::SeqCst);
        let (phase, _) = unpack(seen);
        if matches!(phase, Phase::ShownOut | Phase::Late) {
            return Err(phase);
        }
        match self.change(seen, Phase::Busy) {
            true => Ok(()),
            false => Err(unpack(self.state.load(Ordering::SeqCst)).0),
        }
    }

    /// What it is doing now.
    pub fn phase(&self) -> Phase {
        unpack(self.state.load(Ordering::SeqCst)).0
    }

    /// Whoever wants to end a wait must win this exchange. So must the guest's own thread, which
    /// is why a guest that has become busy is never cut, and no guest is shown out twice.
    fn change(&self, seen: u64, to: Phase) -> bool {
        let new = pack(to, 0);
        self.state.compare_exchange(seen, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn end_wait_from_outside(&self, seen: u64, to: Phase) -> bool {
        let won = self.change(seen, to);
        if won {
            let _ = self.stream.shutdown(Shutdown::Read);
        }
        won
    }
}

/// The latest moment that fits beside a phase, in the lobby's milliseconds: two million years.
pub const NEVER: u64 = u64::MAX >> 8;

fn pack(phase: Phase, deadline_ms: u64) -> u64 {
    deadline_ms << 8 | phase as u64
}

fn unpack(state: u64) -> (Phase, u64) {
    let phase = PHASES.get((state & 0xff) as usize).copied().unwrap_or(Phase::Busy);
    (phase, state >> 8)
}

/// What the lobby must know about the door: is anybody there to let newcomers in?
pub struct Door {
    /// Threads that wait in `accept`.
    pub waiting: AtomicUsize,
    /// Threads in all.
    pub threads: AtomicUsize,
    /// The most threads there may be.
    pub cap: usize,
    /// The system refused a thread or a descriptor, which is as good as having reached the cap.
    pub refused: AtomicBool,
}

impl Door {
    /// True when no more threads can be made.
    pub fn at_cap(&self) -> bool {
        self.threads.load(Ordering::SeqCst) >= self.cap || self.refused.load(Ordering::SeqCst)
    }

    /// True when newcomers would have to wait until somebody leaves.
    pub fn is_crowded(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) == 0 && self.at_cap()
    }
}

/// Everybody who is connected.
pub struct Lobby {
    /// The time limits that the watchman enforces.
    pub deadlines: Deadlines,
    /// Who stands at the door.
    pub door: Door,
    guests: Mutex<BTreeMap<u64, Arc<Guest>>>,
    arrivals: AtomicU64,
    opened: Instant,
}

impl Lobby {
    /// An empty lobby for at most `cap` threads.
    pub fn new(deadlines: Deadlines, cap: usize) -> Lobby {
        let door = Door {
            waiting: AtomicUsize::new(0),
            threads: AtomicUsize::new(0),
            cap,
            refused: AtomicBool::new(false),
        };
        Lobby {
            deadlines,
            door,
            guests: Mutex::default(),
            arrivals: AtomicU64::new(0),
            opened: Instant::now(),
        }
    }

    /// Registers a connection. It starts as [`Phase::Busy`].
    pub fn enter(&self, stream: TcpStream, peer: SocketAddr) -> Arc<Guest> {
        let number = self.arrivals.fetch_add(1, Ordering::Relaxed) + 1;
        let state = AtomicU64::new(pack(Phase::Busy, 0));
        let guest = Arc::new(Guest { number, peer, stream: Arc::new(stream), state });
        self.guests().insert(number, Arc::clone(&guest));
        guest
    }

    /// Forgets a connection. Its socket closes when its thread lets go of it too.
    pub fn leave(&self, guest: &Guest) {
        self.guests().remove(&guest.number);
    }

    /// How many are connected.
    pub fn len(&self) -> usize {
        self.guests().len()
    }

    /// True when nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The moment `span` from now, in the lobby's own milliseconds.
    pub fn after(&self, span: Duration) -> u64 {
        let moment = self.opened.elapsed().saturating_add(span).as_millis();
        moment.min(u128::from(NEVER)) as u64
    }

    /// Begins a wait between two requests. When newcomers have nobody to let them in, somebody
    /// who waits must go, and it may be this guest itself.
    pub fn begin_idle(&self, guest: &Guest, deadline_ms: u64) {
        guest.begin_wait(Phase::Idle, deadline_ms);
        // First the phase, then the door. The last thread to leave the door does it the other
        // way round, so at least one of the two sees what the other has done.
        if self.door.is_crowded() {
            self.show_one_out();
        }
    }

    /// Asks the one to leave who is missed least: the longest idle; if none, the one whose head
    /// has been unfinished longest; if none, the oldest that has not said a word. Returns false
    /// if everybody is busy.
    pub fn show_one_out(&self) -> bool {
        let guests = self.guests();
        for phase in [Phase::Idle, Phase::Head, Phase::Fresh] {
            // Losing the exchange means that this one has become busy: look again.
            while let Some((guest, seen)) = self.longest_waiting(&guests, phase) {
                if guest.end_wait_from_outside(seen, Phase::ShownOut) {
                    return true;
                }
            }
        }
        false
    }

    /// All waits of one phase are equally long, so the earliest deadline began first.
    fn longest_waiting<'a>(
        &self,
        guests: &'a BTreeMap<u64, Arc<Guest>>,
        wanted: Phase,
    ) -> Option<(&'a Guest, u64)> {
        let newest = match wanted {
            Phase::Fresh => self.after(self.deadlines.head.saturating_sub(self.deadlines.grace)),
            _ => u64::MAX,
        };
        let mut found: Option<(&Guest, u64)> = None;
        for guest in guests.values() {
            let seen = guest.state.load(Ordering::SeqCst);
            let (phase, deadline) = unpack(seen);
            let fits = phase == wanted && deadline <= newest;
            if fits && found.is_none_or(|(_, best)| seen < best) {
                found = Some((guest, seen));
            }
        }
        found
    }

    /// The watchman's round: ends every wait whose deadline has passed.
    pub fn end_late_waits(&self) {
        let now = self.after(Duration::ZERO);
        for guest in self.guests().values() {
            let seen = guest.state.load(Ordering::SeqCst);
            let (phase, deadline) = unpack(seen);
            if is_wait(phase) && deadline <= now {
                guest.end_wait_from_outside(seen, Phase::Late);
            }
        }
    }

    /// How many are in the middle of a request.
    pub fn in_a_request(&self) -> usize {
        let is_in = |phase| matches!(phase, Phase::Head | Phase::Body | Phase::Busy);
        self.guests().values().filter(|guest| is_in(guest.phase())).count()
    }

    /// Asks everybody to leave who is not in the middle of a request.
    pub fn close_idle(&self) {
        for guest in self.guests().values() {
            let seen = guest.state.load(Ordering::SeqCst);
            if matches!(unpack(seen).0, Phase::Idle | Phase::Fresh | Phase::Staying) {
                guest.end_wait_from_outside(seen, Phase::ShownOut);
            }
        }
    }

    /// Cuts every connection, whatever it is doing.
    pub fn cut_all(&self) {
        for guest in self.guests().values() {
            let _ = guest.stream.shutdown(Shutdown::Both);
        }
    }

    /// A panic in another thread poisons a lock. It guards a plain map, which is never left
    /// half-changed, so we take it all the same.
    fn guests(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Guest>>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_wait(phase: Phase) -> bool {
    !matches!(phase, Phase::Busy | Phase::Staying | Phase::ShownOut | Phase::Late)
}
