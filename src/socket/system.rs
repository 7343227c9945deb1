//! Chapter 5: the system. What the standard library does not give, in the only `unsafe` lines.
//!
//! ```text
//!   Ctrl-C, kill ──► the kernel stops some thread of ours and calls `ring`
//!                                                       │ one byte, the signal's number
//!                                                       ▼
//!                    a thread that sleeps in read ◄── a pair of sockets
//! ```
//!
//! A signal can interrupt a thread anywhere, even while it holds a lock. So a signal handler may
//! do almost nothing. Ours writes one byte. POSIX, section 2.4.3, lists what is allowed.
#![allow(unsafe_code)]

use std::io;
use std::net::TcpListener;

/// What somebody wants from this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP: the terminal has been closed. A program that has no terminal may take it for a
    /// wish to begin anew.
    Hangup,
    /// SIGINT: somebody pressed Ctrl-C.
    Interrupt,
    /// SIGTERM: a supervisor, or `kill`, wants us to end.
    Terminate,
}

/// How many connections the kernel holds for us until we accept them. The standard library asks
/// for 128, and a burst of newcomers loses those above it. The kernel may cut the number down.
pub const BACKLOG: u16 = 1024;

#[cfg(unix)]
mod unix {
    use super::Signal;
    use std::ffi::c_int;
    use std::io::{self, Read};
    use std::os::fd::{AsRawFd, IntoRawFd};
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicI32, Ordering};

    /// The same numbers on every Unix.
    const SIGHUP: c_int = 1;
    const SIGINT: c_int = 2;
    const SIGTERM: c_int = 15;

    /// A file is longer than `ulimit -f` allows. 25 on nearly every Unix; on Linux for MIPS, 31.
    const SIGXFSZ: c_int = 25;

    // Three functions of the C library, which the standard library is linked with anyway.
    unsafe extern "C" {
        fn signal(number: c_int, handler: extern "C" fn(c_int)) -> usize;
        fn write(descriptor: c_int, bytes: *const u8, count: usize) -> isize;
        fn listen(descriptor: c_int, backlog: c_int) -> c_int;
    }

    /// The descriptor that the handler writes to. It is never closed.
    static BELL: AtomicI32 = AtomicI32::new(-1);

    extern "C" fn ring(number: c_int) {
        let byte = number as u8;
        // SAFETY: `write` is on the list of functions that a handler may call. It reads one byte
        // from a variable that lives until it returns. Should it fail, nobody is told; a byte
        // always fits, unless thousands of signals are waiting already.
        unsafe { write(BELL.load(Ordering::SeqCst), &byte, 1) };
    }

    // Not SIG_IGN: programs that we start would inherit it, and a handler they do not.
    extern "C" fn do_nothing(_: c_int) {}

    /// Waits for signals.
    pub struct Shutdown {
        bell: UnixStream,
    }

    impl Shutdown {
        /// From now on SIGINT and SIGTERM no longer end the process: [`Shutdown::wait`] reports
        /// them.
        ///
        /// # Errors
        /// If the system has no descriptor left.
        pub fn on_signals() -> io::Result<Shutdown> {
            Shutdown::on(&[Signal::Interrupt, Signal::Terminate])
        }

        /// The same for a choice of signals. Call it once: a second bell takes the rope from the
        /// first. From then on a file that may not grow is an error of `write`, and no death.
        ///
        /// # Errors
        /// If the system has no descriptor left.
        pub fn on(signals: &[Signal]) -> io::Result<Shutdown> {
            let (bell, rope) = UnixStream::pair()?;
            rope.set_nonblocking(true)?;
            BELL.store(rope.into_raw_fd(), Ordering::SeqCst);
            for wanted in signals {
                // SAFETY: `ring` is a function of the right type, and lives for ever.
                unsafe { signal(number(*wanted), ring) };
            }
            // SAFETY: the same for `do_nothing`.
            unsafe { signal(SIGXFSZ, do_nothing) };
            Ok(Shutdown { bell })
        }

        /// Sleeps until one of the signals comes. Each signal is reported once.
        pub fn wait(&self) -> Signal {
            let mut byte = [0];
            loop {
                // An interrupted read is tried again; nothing else can go wrong on our own pair.
                if (&self.bell).read_exact(&mut byte).is_ok() {
                    break;
                }
            }
            match c_int::from(byte[0]) {
                SIGHUP => Signal::Hangup,
                SIGTERM => Signal::Terminate,
                _ => Signal::Interrupt,
            }
        }
    }

    fn number(signal: Signal) -> c_int {
        match signal {
            Signal::Hangup => SIGHUP,
            Signal::Interrupt => SIGINT,
            Signal::Terminate => SIGTERM,
        }
    }

    /// Asks the kernel for a longer queue of connections that wait to be accepted.
    ///
    /// # Errors
    /// Those of the system.
    pub fn lengthen_backlog(socket: &impl AsRawFd, length: u16) -> io::Result<()> {
        // SAFETY: the descriptor is open, for we hold a reference to its owner. A second `listen`
        // on a listening socket changes the length and nothing else.
        match unsafe { listen(socket.as_raw_fd(), c_int::from(length)) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(not(unix))]
mod elsewhere {
    use super::Signal;
    use std::io;
    use std::net::TcpListener;
    use std::thread;

    /// Elsewhere than on Unix Ctrl-C ends the process at once, so there is nothing to wait for.
    pub struct Shutdown;

    impl Shutdown {
        /// Does nothing here.
        ///
        /// # Errors
        /// Never.
        pub fn on_signals() -> io::Result<Shutdown> {
            Ok(Shutdown)
        }

        /// Does nothing here.
        ///
        /// # Errors
        /// Never.
        pub fn on(_signals: &[Signal]) -> io::Result<Shutdown> {
            Ok(Shutdown)
        }

        /// Never returns here.
        pub fn wait(&self) -> Signal {
            loop {
                thread::park();
            }
        }
    }

    /// Does nothing here.
    ///
    /// # Errors
    /// Never.
    pub fn lengthen_backlog(_socket: &TcpListener, _length: u16) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(not(unix))]
pub use elsewhere::Shutdown;
#[cfg(unix)]
pub use unix::Shutdown;

/// Makes the queue in front of `socket` as long as [`BACKLOG`].
///
/// # Errors
/// Those of the system.
pub fn lengthen_backlog(socket: &TcpListener) -> io::Result<()> {
    #[cfg(unix)]
    return unix::lengthen_backlog(socket, BACKLOG);
    #[cfg(not(unix))]
    return elsewhere::lengthen_backlog(socket, BACKLOG);
}

/// How many descriptors (files and sockets) this process may have open, where the system tells.
/// Each connection needs one.
pub fn descriptor_limit() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}
