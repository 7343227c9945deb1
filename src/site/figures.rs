//! What the server has done so far, in numbers. An observer counts; a page or a script looks.
//!
//! ```text
//!   threads of the connections ──► counters, one atomic step each ──► Snapshot ──► Context
//!                                                                                  a page, JSON
//! ```
//!
//! Nothing here takes a lock: a counter that makes requests wait would measure itself.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::http::connection::{CloseReason, Observer};
use crate::http::exchange::Exchange;
use crate::http::refusal::Refusal;
use crate::socket::lobby::Guest;
use crate::web::template::Context;

/// How many seconds a [`Snapshot`] looks back.
pub const SECONDS: usize = 60;

/// The classes of a status, by its first digit: RFC 9110, section 15.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Answers are sorted by their time: under 0.1 ms, under 0.3 ms, and so on; the last have no bound.
const BOUNDS: [(u64, &str); 9] = [
    (100, "0.1 ms"),
    (300, "0.3 ms"),
    (1_000, "1 ms"),
    (3_000, "3 ms"),
    (10_000, "10 ms"),
    (30_000, "30 ms"),
    (100_000, "0.1 s"),
    (300_000, "0.3 s"),
    (1_000_000, "1 s"),
];

/// Counts what happens on all connections.
#[derive(Debug)]
pub struct Figures {
    began: Instant,
    /// A ring. Each place holds a second in its upper half, and how many requests it had in its
    /// lower one. So one atomic step sees that a place is old, and begins it anew.
    seconds: [AtomicU64; SECONDS + 1],
    statuses: [AtomicU64; CLASSES.len()],
    times: [AtomicU64; BOUNDS.len() + 1],
    conversations: AtomicU64,
    opened: AtomicU64,
    ended: AtomicU64,
    refused: AtomicU64,
}

impl Default for Figures {
    fn default() -> Figures {
        let zeros = |_| AtomicU64::new(0);
        Figures {
            began: Instant::now(),
            seconds: std::array::from_fn(zeros),
            statuses: std::array::from_fn(zeros),
            times: std::array::from_fn(zeros),
            conversations: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }
}

impl Observer for Figures {
    fn opened(&self, _: &Guest) {
        self.opened.fetch_add(1, Relaxed);
    }

    fn exchanged(&self, exchange: &Exchange) {
        let status = exchange.status().map(|status| status.code());
        let now = Instant::now();
        let at = now.duration_since(self.began);
        match exchange.has_switched_protocols() {
            true => self.count_conversation(at, status),
            false => self.count(at, status, now.duration_since(exchange.began)),
        }
    }

    fn refused(&self, _: &Guest, _: &Refusal) {
        self.refused.fetch_add(1, Relaxed);
    }

    fn ended(&self, _: &Guest, _: CloseReason) {
        self.ended.fetch_add(1, Relaxed);
    }
}

impl Figures {
    /// Counts a request: how long after our start it ended, its status if it had an answer, and how
    /// long it took.
    pub fn count(&self, at: Duration, status: Option<u16>, took: Duration) {
        self.count_answer(at, status);
        let micros = took.as_micros();
        let fits = |(bound, _): &(u64, &str)| micros < u128::from(*bound);
        let at = BOUNDS.iter().position(fits).unwrap_or(BOUNDS.len());
        if let Some(time) = self.times.get(at) {
            time.fetch_add(1, Relaxed);
        }
    }

    /// Counts a request that became a conversation, when that has ended. How long two have talked
    /// says nothing about how quick we are.
    fn count_conversation(&self, at: Duration, status: Option<u16>) {
        self.count_answer(at, status);
        self.conversations.fetch_add(1, Relaxed);
    }

    fn count_answer(&self, at: Duration, status: Option<u16>) {
        let second = at.as_secs();
        let place = self.seconds.get(second as usize % self.seconds.len());
        if let Some(place) = place {
            let next =
                |old: u64| Some(if old >> 32 == second { old + 1 } else { second << 32 | 1 });
            let _ = place.fetch_update(Relaxed, Relaxed, next);
        }
        let class = status.and_then(|status| usize::from(status / 100).checked_sub(1));
        if let Some(class) = class.and_then(|class| self.statuses.get(class)) {
            class.fetch_add(1, Relaxed);
        }
    }

    /// The numbers of this moment.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot_at(self.began.elapsed())
    }

    /// The numbers, as they are looked at so long after our start.
    pub fn snapshot_at(&self, at: Duration) -> Snapshot {
        let now = at.as_secs();
        let in_second = |back: usize| {
            let second = now.checked_sub(back as u64)?;
            let place = self.seconds.get(second as usize % self.seconds.len())?.load(Relaxed);
            (place >> 32 == second).then_some(place & u64::from(u32::MAX))
        };
        let backwards = (0..SECONDS).rev();
        let load = |counters: &[AtomicU64]| counters.iter().map(|one| one.load(Relaxed)).collect();
        let opened = self.opened.load(Relaxed);
        Snapshot {
            process: std::process::id(),
            up: now,
            opened,
            open: opened.saturating_sub(self.ended.load(Relaxed)),
            refused: self.refused.load(Relaxed),
            seconds: backwards.map(|back| in_second(back).unwrap_or(0)).collect(),
            statuses: load(&self.statuses),
            times: load(&self.times),
            conversations: self.conversations.load(Relaxed),
        }
    }
}

/// The numbers of one moment. They are read one after the other while others count, so a request
/// may be in one and not yet in the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The process that has counted.
    pub process: u32,
    /// Seconds since its start.
    pub up: u64,
    /// Connections so far.
    pub opened: u64,
    /// Connections now.
    pub open: u64,
    /// What could not be read as a request, or found no place.
    pub refused: u64,
    /// Requests in each of the last [`SECONDS`], the oldest first. The last has not ended yet.
    pub seconds: Vec<u64>,
    /// Answers by the first digit of their status, from 1 to 5.
    pub statuses: Vec<u64>,
    /// Requests by their time, as in [`Snapshot::time_names`].
    pub times: Vec<u64>,
    /// Requests that became a WebSocket which has ended. They are in no span of time.
    pub conversations: u64,
}

impl Snapshot {
    /// All requests so far.
    pub fn requests(&self) -> u64 {
        self.timed() + self.conversations
    }

    fn timed(&self) -> u64 {
        self.times.iter().sum()
    }

    /// Classes of statuses, in the order of [`Snapshot::statuses`].
    pub fn status_names(&self) -> Vec<String> {
        CLASSES.iter().map(|name| (*name).to_string()).collect()
    }

    /// Spans of time, in the order of [`Snapshot::times`].
    pub fn time_names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            BOUNDS.iter().map(|(_, name)| format!("under {name}")).collect();
        names.extend(BOUNDS.last().map(|(_, name)| format!("{name} or more")));
        names
    }

    /// The name of the span in which the slowest of this share of all requests ended: with 0.5 half
    /// of them were as quick. `None` before the first.
    pub fn quantile(&self, share: f64) -> Option<String> {
        let wanted = self.timed() as f64 * share;
        let mut seen = 0;
        let at = self.times.iter().position(|count| {
            seen += count;
            *count > 0 && seen as f64 >= wanted
        });
        self.time_names().into_iter().nth(at?)
    }

    /// The same for a template or a script.
    pub fn to_context(&self) -> Context {
        Context::new()
            .with("process", u64::from(self.process))
            .with("up", self.up)
            .with("requests", self.requests())
            .with("opened", self.opened)
            .with("open", self.open)
            .with("refused", self.refused)
            .with("seconds", self.seconds.clone())
            .with("statuses", named(self.status_names(), &self.statuses))
            .with("times", named(self.time_names(), &self.times))
            .with("median", self.quantile(0.5))
            .with("slowest", self.quantile(0.99))
    }
}

fn named(names: Vec<String>, counts: &[u64]) -> Vec<Context> {
    let pairs = names.into_iter().zip(counts);
    pairs.map(|(name, count)| Context::new().with("name", name).with("count", *count)).collect()
}
