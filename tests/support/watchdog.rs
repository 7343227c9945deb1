//! A test that hangs must say what it waited for, and end.

use super::process;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Lives as long as the test does; dropping it calls the dog off.
pub struct Watchdog {
    over: Arc<(Mutex<bool>, Condvar)>,
    states: States,
}

/// Named states of a test's connections, shared by its threads.
#[derive(Clone, Default)]
pub struct States(Arc<Mutex<Vec<(String, String)>>>);

/// After this many seconds prints what hung, with the states registered by then, and aborts.
pub fn watchdog(seconds: u64, what: &str) -> Watchdog {
    let over = Arc::new((Mutex::new(false), Condvar::new()));
    let states = States::default();
    let (watched, seen) = (Arc::clone(&over), states.clone());
    let what = what.to_string();
    std::thread::spawn(move || {
        let limit = Duration::from_secs(seconds);
        let waited = watched.1.wait_timeout_while(lock(&watched.0), limit, |over| !*over);
        if !*waited.unwrap_or_else(PoisonError::into_inner).0 {
            bark(seconds, &what, &seen);
        }
    });
    Watchdog { over, states }
}

impl Watchdog {
    /// A handle for the test's threads.
    pub fn states(&self) -> States {
        self.states.clone()
    }

    pub fn state(&self, name: &str, state: &str) {
        self.states.set(name, state);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        *lock(&self.over.0) = true;
        self.over.1.notify_all();
    }
}

impl States {
    /// Says what the connection `name` does now.
    pub fn set(&self, name: &str, state: &str) {
        let mut list = lock(&self.0);
        list.retain(|(known, _)| known != name);
        list.push((name.to_string(), state.to_string()));
    }
}

fn bark(seconds: u64, what: &str, states: &States) {
    let mut text = format!("\nwatchdog: {what}: no end after {seconds} s\n");
    for (name, state) in lock(&states.0).iter() {
        text.push_str(&format!("  {name}: {state}\n"));
    }
    // Not `eprintln!`: the test harness would capture it, and the abort would lose it.
    let _ = std::io::stderr().write_all(text.as_bytes());
    process::kill_all();
    std::process::abort();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
