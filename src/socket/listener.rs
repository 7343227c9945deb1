//! Chapter 1: the door. One listening socket, and what can happen at it.
//!
//! ```text
//!   bind ──► listen ──► accept ──► a connected socket, and the address of its peer
//!    │                    │
//!    │                    ├── this connection failed    try the next one, at once
//!    │                    ├── no descriptor is free     wait a little, then try again
//!    │                    └── the door is closed        end
//!    └── the port is taken, or not ours                 say which, and what to do
//! ```
//!
//! An `accept` that gives up after an error stops the whole server, and one that tries again at
//! once uses a whole processor for nothing. This chapter does neither.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// A socket that listens on one address and hands out one connection after the other.
///
/// Several threads may wait in [`Listener::accept`] at the same time; the kernel gives each
/// connection to one of them.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    stop: Stop,
    /// How many calls of `accept` in a row found no room.
    failures: AtomicU32,
}

/// What came of one wait at the door.
#[derive(Debug)]
pub enum Arrival {
    /// A peer has connected. The address is the one `accept` reported: asking the socket later
    /// fails when the peer has already gone.
    Guest(TcpStream, SocketAddr),
    /// The system cannot give us another socket now. The pause has already been made.
    NoRoom(io::Error),
    /// The door is closed for good.
    Stopped,
}

/// The first pause when there is no room. It doubles with each failure in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// The longest pause: a descriptor that is free again is noticed this soon.
const LONGEST_PAUSE: Duration = Duration::from_millis(160);

impl Listener {
    /// Binds a host name or address and a port. Port 0 asks the system for any free port.
    ///
    /// # Errors
    /// A [`BindError`] that says what is wrong with this address and what to do about it.
    pub fn bind(host: &str, port: u16) -> Result<Listener, BindError> {
        let explain = |error: io::Error| BindError::new(host, port, &error);
        // The standard library sets SO_REUSEADDR on Unix, so a restart need not wait until the
        // old connections have left the kernel's tables.
        let socket = TcpListener::bind((host, port)).map_err(explain)?;
        Listener::from_bound(socket).map_err(explain)
    }

    /// Takes over a socket that is bound and listens already.
    ///
    /// # Errors
    /// If the socket has no local address, or the system has no descriptor left.
    pub fn from_bound(socket: TcpListener) -> io::Result<Listener> {
        let alarm = as_stream(&socket)?.map_or(Alarm::Knock, Alarm::ShutDown);
        Listener::with_alarm(socket, alarm)
    }

    /// Takes over a socket at which other processes accept too. A stop ends our own waits, and
    /// leaves the socket to the others. On Linux it takes a nap's time; elsewhere the kernel does
    /// not end a nap, and the knock may be answered by another process.
    ///
    /// # Errors
    /// If the socket has no local address, or the system has no descriptor left.
    pub fn shared(socket: TcpListener) -> io::Result<Listener> {
        let alarm = match as_stream(&socket)? {
            Some(door) => {
                door.set_read_timeout(Some(NAP))?;
                Alarm::Nap
            }
            None => Alarm::Knock,
        };
        Listener::with_alarm(socket, alarm)
    }

    fn with_alarm(socket: TcpListener, alarm: Alarm) -> io::Result<Listener> {
        let address = socket.local_addr()?;
        let stop = Stop { asked: Arc::default(), alarm: Arc::new(alarm), address };
        Ok(Listener { socket, address, stop, failures: AtomicU32::new(0) })
    }

    /// The address that was really bound, with the port the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The listening socket itself, for what only the system can set.
    pub fn socket(&self) -> &TcpListener {
        &self.socket
    }

    /// A handle that closes this door, from any thread.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Waits for the next connection. It never ends because of an error, and it never spins.
    pub fn accept(&self) -> Arrival {
        loop {
            if self.stop.is_asked() {
                self.stop.wake_acceptors();
                return Arrival::Stopped;
            }
            match self.socket.accept() {
                Ok((stream, peer)) => {
                    self.failures.store(0, Ordering::Relaxed);
                    if self.takes_naps() {
                        // The new socket has inherited the limit of our nap.
                        let _ = stream.set_read_timeout(None);
                    }
                    return Arrival::Guest(stream, peer);
                }
                Err(_) if self.stop.is_asked() => {}
                Err(error) if concerns_one_peer(error.kind()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.takes_naps() => {}
                // The socket listens no longer: somebody has shut it down, for all who share it.
                Err(error) if error.kind() == ErrorKind::InvalidInput => self.stop.ask(),
                Err(error) => {
                    self.pause();
                    return Arrival::NoRoom(error);
                }
            }
        }
    }

    fn takes_naps(&self) -> bool {
        matches!(*self.stop.alarm, Alarm::Nap)
    }

    fn pause(&self) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).min(16);
        thread::sleep((FIRST_PAUSE * 2_u32.pow(failures)).min(LONGEST_PAUSE));
    }
}

/// True when only the connection at the head of the queue is broken: the next may be fine.
fn concerns_one_peer(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
    )
}

/// A request to stop, shared by everybody who must know about it.
#[derive(Clone)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    alarm: Arc<Alarm>,
    address: SocketAddr,
}

/// How a stop reaches those who sleep in `accept`.
enum Alarm {
    /// The listening socket once more, in a type that can be shut down. It is made at the start:
    /// when the stop is asked for, no descriptor may be free.
    ShutDown(TcpStream),
    /// A connection to ourselves wakes one thread. That thread finds the flag set, comes here,
    /// and wakes the next.
    Knock,
    /// Nobody is woken. Each sleep in `accept` ends by itself, and then the flag is looked at.
    Nap,
}

/// How long a thread sleeps in `accept` where the socket is shared. A stop waits for it.
const NAP: Duration = Duration::from_millis(250);

/// How long a connection to ourselves may take.
const KNOCK: Duration = Duration::from_millis(100);

impl Stop {
    /// Asks for the stop: no new connection is accepted from now on. Asking twice does no harm.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        self.wake_acceptors();
    }

    /// True once somebody has asked.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Wakes every thread that sleeps in `accept`.
    fn wake_acceptors(&self) {
        let _ = match &*self.alarm {
            // A second shutdown fails: the socket is closed already, which is what we want.
            Alarm::ShutDown(door) => door.shutdown(Shutdown::Both),
            Alarm::Knock => TcpStream::connect_timeout(&self.address, KNOCK).map(drop),
            Alarm::Nap => Ok(()),
        };
    }
}

/// The same socket, in the type that has `shutdown`. On Linux that wakes all who wait in `accept`,
/// and refuses those who come later. `None` where the system does not offer it.
#[cfg(target_os = "linux")]
fn as_stream(socket: &TcpListener) -> io::Result<Option<TcpStream>> {
    // The standard library has `shutdown` for connected sockets only, but the descriptor is what
    // counts, and a descriptor can change its Rust type without `unsafe`.
    let same_socket = std::os::fd::OwnedFd::from(socket.try_clone()?);
    Ok(Some(TcpStream::from(same_socket)))
}

#[cfg(not(target_os = "linux"))]
fn as_stream(_socket: &TcpListener) -> io::Result<Option<TcpStream>> {
    Ok(None)
}

/// Why an address could not be bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindError {
    /// Another program listens there.
    InUse(String),
    /// The system does not let us: on Unix, ports below 1024 belong to the administrator.
    NotAllowed(String),
    /// The address is not one of this machine's.
    NotOurs(String),
    /// Anything else, in the system's own words.
    Other(String, String),
}

impl BindError {
    fn new(host: &str, port: u16, error: &io::Error) -> BindError {
        let address =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        match error.kind() {
            ErrorKind::AddrInUse => BindError::InUse(address),
            ErrorKind::PermissionDenied => BindError::NotAllowed(address),
            ErrorKind::AddrNotAvailable => BindError::NotOurs(address),
            _ => BindError::Other(address, error.to_string()),
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            BindError::InUse(address) => write!(
                f,
                "{address} is taken: another program listens there, perhaps a second copy of \
                 this one. Stop it, or choose another port (0 means any free one)."
            ),
            BindError::NotAllowed(address) => {
                write!(f, "{address} is not allowed for this user. Choose a port of 1024 or above.")
            }
            BindError::NotOurs(address) => write!(
                f,
                "{address} is not an address of this machine. Try 127.0.0.1, or 0.0.0.0 for all."
            ),
            BindError::Other(address, cause) => write!(f, "{address} cannot be bound: {cause}."),
        }
    }
}

impl std::error::Error for BindError {}
