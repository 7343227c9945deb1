//! Chapter 13: the exchange. RFC 9110, sections 7.8 and 10.1.1; RFC 9112, section 9.3.
//!
//! One request and its answer, as the application sees them:
//!
//! ```text
//!   client              exchange                            application
//!     │  head             │                                      │
//!     │──────────────────►│── handle(exchange) ─────────────────►│
//!     │  100 Continue     │                                      │
//!     │◄──────────────────│◄──────────────── read ───────────────│  only if it wants the body
//!     │  body             │                                      │
//!     │──────────────────►│─────────── bytes, or an error ──────►│
//!     │  head, body       │                                      │
//!     │◄──────────────────│◄─────────────── respond ─────────────│
//! ```
//!
//! The application may do less: ignore the body, forget the answer, fail, panic. The exchange
//! makes something correct of it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::http::body::{BodyError, BodyLimits, BodyReader, Framing};
use crate::http::headers::{EXPECT, Headers, UPGRADE};
use crate::http::refusal::Refusal;
use crate::http::request::{RequestHead, Version};
use crate::http::response::{Response, ResponseWriter, Status};
use crate::socket::lobby::{Guest, Lobby, NEVER, Phase};
use crate::socket::wire::Wire;

/// Answers requests. This is the seam between the server and all that is built on it.
pub trait Handler: Send + Sync {
    /// Called once for each request, on the thread of its connection; calls for other connections
    /// run at the same time. A panic, an error, or no answer at all becomes 500 if nothing was
    /// sent yet; otherwise the connection is cut, so that the client notices.
    ///
    /// # Errors
    /// Those of reading the body and of writing the answer may be passed on with `?`. A body that
    /// breaks a rule is then answered with the status of that rule.
    fn handle(&self, exchange: &mut Exchange) -> io::Result<()>;
}

impl<F> Handler for F
where
    F: Fn(&mut Exchange) -> io::Result<()> + Send + Sync,
{
    fn handle(&self, exchange: &mut Exchange) -> io::Result<()> {
        self(exchange)
    }
}

/// An open connection: its bytes, and its place in the lobby.
pub struct Link {
    /// Its bytes.
    pub wire: Wire,
    /// Its entry in the lobby.
    pub guest: Arc<Guest>,
    /// The lobby, with the deadlines.
    pub lobby: Arc<Lobby>,
    /// Why somebody else has shut the reading side down, if so.
    pub asked_to_leave: Option<Phase>,
}

/// How much of an unwanted body is read and thrown away so that the connection can be kept, in
/// bytes. Above it a new one is cheaper.
pub const DRAIN: u64 = 64 * 1024;

impl Link {
    /// Waits for more bytes, in a phase that the watchman knows. Returns 0 at the end.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn wait(&mut self, phase: Phase, deadline_ms: u64) -> io::Result<usize> {
        // Sending may take long, and is no part of this phase.
        self.wire.flush()?;
        match phase {
            Phase::Idle => self.lobby.begin_idle(&self.guest, deadline_ms),
            _ => self.guest.begin_wait(phase, deadline_ms),
        }
        let result = self.wire.fill();
        if let Err(asked) = self.guest.end_wait() {
            self.asked_to_leave = Some(asked);
        }
        result
    }

    /// Sends all and says that nothing more will come. Then reads on for a moment: bytes that
    /// nobody reads make the kernel reset the connection, and a reset can destroy our answer
    /// before the client has read it. RFC 9112, section 9.6.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn linger(&mut self) -> io::Result<()> {
        self.wire.explain("exchange");
        self.wire.finish_sending()?;
        let end = self.lobby.after(self.lobby.deadlines.body);
        // Who goes on sending is heard out, but not for ever.
        while self.lobby.after(Duration::ZERO) < end {
            self.wire.discard();
            let deadline = self.lobby.after(self.lobby.deadlines.linger).min(end);
            if self.wait(Phase::Lingering, deadline)? == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// One request and its answer. The body is read from it, the answer is given to it.
pub struct Exchange {
    /// The request, without its body. Shared, so that it can be read while the answer is written.
    pub head: Arc<RequestHead>,
    /// The connection it came by.
    pub link: Link,
    /// Who asks: the other end of the connection, unless a proxy speaks for somebody else.
    pub client: SocketAddr,
    /// `http`, unless a proxy says that the client came to it by `https`.
    pub scheme: &'static str,
    /// When its head was complete.
    pub began: Instant,
    body: BodyReader,
    /// How long the body has been waited for. What the application does between two reads is not
    /// the client's fault, and does not count.
    body_waited: Duration,
    expects_continue: bool,
    answer: ResponseWriter,
    status: Option<Status>,
    failure: Option<Refusal>,
    client_lost: bool,
}

impl Exchange {
    /// Prepares an exchange. Reads nothing yet. If the head says something impossible about its
    /// body, there is a [`Exchange::failure`] from the start.
    pub fn new(
        mut link: Link,
        head: RequestHead,
        limits: &BodyLimits,
        keep_alive: bool,
    ) -> Exchange {
        link.wire.explain("exchange");
        let (body, failure) = match frame(&head, limits) {
            Ok(body) => (body, None),
            Err(refusal) => (BodyReader::empty(), Some(refusal)),
        };
        Exchange {
            client: link.guest.peer,
            scheme: "http",
            link,
            began: Instant::now(),
            body_waited: Duration::ZERO,
            expects_continue: head.version == Version::Http11 && head.headers.contains(EXPECT),
            answer: ResponseWriter::new(&head, keep_alive),
            status: None,
            head: Arc::new(head),
            body,
            failure,
            client_lost: false,
        }
    }

    /// Whether the whole request body has been read.
    pub fn has_read_body(&self) -> bool {
        self.body.is_finished()
    }

    /// How many bytes of the body are still to come, as far as the head tells: a hint for the size
    /// of a buffer. The largest number if only the body itself will tell.
    pub fn expected_bytes(&self) -> usize {
        let left = self.body.remaining().unwrap_or(u64::MAX);
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// The status of the answer, once it has begun.
    pub fn status(&self) -> Option<Status> {
        self.status
    }

    /// Why the request was refused, or why its answer is not whole.
    pub fn failure(&self) -> Option<&Refusal> {
        self.failure.as_ref()
    }

    /// Whether the head of the answer has been given: from then on its status cannot change.
    pub fn has_started(&self) -> bool {
        self.answer.has_started()
    }

    /// Whether the socket has failed. What the handler makes of that is nobody's fault.
    pub fn has_lost_client(&self) -> bool {
        self.client_lost || self.answer.has_lost_peer()
    }

    /// Notes that the socket has failed, for those who use it themselves.
    pub fn lose_client(&mut self) {
        self.client_lost = true;
    }

    /// How many bytes of the answer's body have been written, without the lines around chunks.
    pub fn body_sent(&self) -> u64 {
        self.answer.body_sent()
    }

    /// Whether the whole answer has been given.
    pub fn has_finished(&self) -> bool {
        self.answer.has_finished()
    }
}

/// What the head says about the body, checked.
fn frame(head: &RequestHead, limits: &BodyLimits) -> Result<BodyReader, Refusal> {
    let body = BodyReader::new(Framing::of(head)?, limits.clone())?;
    let known = |expectation: &[u8]| expectation.eq_ignore_ascii_case(b"100-continue");
    // RFC 9110, section 10.1.1: in HTTP/1.0 an expectation is ignored.
    if head.version == Version::Http11 && !head.headers.members(EXPECT).all(known) {
        return Err(Refusal::unknown_expectation());
    }
    Ok(body)
}

/// The request body. A broken body is an error, never an end of file: an application that takes
/// half an upload for a whole one loses data.
impl Read for Exchange {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.body.is_finished() || out.is_empty() {
            return Ok(0);
        }
        let result = self.while_waiting(|body, wire| body.read(wire, out))?;
        result.map_err(|error| self.body_failed(error))
    }
}

impl Exchange {
    /// Does what may take until the client has sent more, and counts the time.
    fn while_waiting<T>(
        &mut self,
        act: impl FnOnce(&mut BodyReader, &mut Wire) -> T,
    ) -> io::Result<T> {
        if let Err(error) = self.begin_body_wait() {
            self.client_lost = true;
            return Err(error);
        }
        self.link.wire.explain("body");
        let began = Instant::now();
        let result = act(&mut self.body, &mut self.link.wire);
        self.body_waited += began.elapsed();
        if let Err(asked) = self.link.guest.end_wait() {
            self.link.asked_to_leave = Some(asked);
        }
        Ok(result)
    }

    /// Begins the wait for a piece. Bytes that are here already do not spare us this: they may be
    /// half a chunk line, whose other half never comes.
    fn begin_body_wait(&mut self) -> io::Result<()> {
        let Link { wire, guest, lobby, .. } = &mut self.link;
        let nothing_here = wire.buffered().is_empty();
        // RFC 9110, section 10.1.1: a client that sends already does not wait for our word.
        let asks = std::mem::take(&mut self.expects_continue) && nothing_here;
        if asks && !self.answer.has_started() {
            wire.explain("exchange");
            wire.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if nothing_here {
            wire.flush()?;
        }
        // No gap may be too long. Nor may all of them together: a byte now and then is no progress.
        let patience = lobby.deadlines.body;
        let earned = self.body.received().saturating_mul(1000) / lobby.deadlines.body_rate.max(1);
        let allowed = patience.saturating_add(Duration::from_millis(earned));
        let left = allowed.saturating_sub(self.body_waited).min(patience);
        guest.begin_wait(Phase::Body, lobby.after(left));
        Ok(())
    }

    /// Remembers what is wrong with the body, for the answer.
    fn body_failed(&mut self, error: BodyError) -> io::Error {
        match (&error, self.link.asked_to_leave) {
            // The client did not end it: the reading side was shut down on our side.
            (BodyError::CutShort, Some(Phase::ShownOut)) => self.fail(Refusal::full_house()),
            (BodyError::CutShort, Some(_)) => {
                self.fail(Refusal::slow_body());
                return ErrorKind::TimedOut.into();
            }
            (BodyError::Source(_), _) => self.client_lost = true,
            _ => self.fail(Refusal::from(error.clone())),
        }
        io::Error::from(error)
    }

    /// Gives the whole answer.
    ///
    /// # Errors
    /// Those of [`Response::send`].
    pub fn respond(&mut self, response: Response) -> io::Result<()> {
        self.prepare_answer(response.status);
        response.send(&mut self.answer, &mut self.link.wire)?;
        Ok(())
    }

    /// Begins an answer whose body is given piece by piece, to [`Exchange::write_body`].
    ///
    /// # Errors
    /// Those of [`ResponseWriter::start`].
    pub fn start(
        &mut self,
        status: Status,
        headers: &Headers,
        length: Option<u64>,
    ) -> io::Result<()> {
        self.prepare_answer(status);
        self.answer.start(&mut self.link.wire, status, headers, length)?;
        Ok(())
    }

    /// Sends a piece of the body. It is on its way when this returns.
    ///
    /// # Errors
    /// Those of [`ResponseWriter::write`].
    pub fn write_body(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.link.wire.explain("response");
        self.answer.write(&mut self.link.wire, bytes)?;
        self.answer.flush(&mut self.link.wire)?;
        Ok(())
    }

    /// Sends the last piece of the body, and ends the answer: both leave in one write, together
    /// with the head if it still waits. If the next request has come already, they may leave with
    /// the answer to it.
    ///
    /// # Errors
    /// Those of [`ResponseWriter::write`] and [`ResponseWriter::finish`].
    pub fn finish_with(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.link.wire.explain("response");
        self.answer.write(&mut self.link.wire, bytes)?;
        self.answer.finish(&mut self.link.wire)?;
        if self.link.wire.buffered().is_empty() {
            self.answer.flush(&mut self.link.wire)?;
        }
        Ok(())
    }

    /// Waits until the client hangs up, or the server is to stop. What the client sends instead is
    /// kept for its next request; after [`DRAIN`] bytes of that we no longer wait.
    pub fn wait_for_hang_up(&mut self) {
        while (self.link.wire.buffered().len() as u64) < DRAIN {
            match self.link.wait(Phase::Staying, NEVER) {
                Ok(0) => return,
                Ok(_) => {}
                Err(_) => {
                    self.client_lost = true;
                    return;
                }
            }
        }
    }

    /// Whether the client has hung up, or nearly so: it may still read what it is sent. Does not
    /// wait to find out. Bytes that have come, for the body or the next request, say that it has
    /// not.
    pub fn has_hung_up(&mut self) -> bool {
        let Link { wire, .. } = &mut self.link;
        // What is left of the body may all be here, with the end behind it.
        let has_body = !self.body.is_finished() && !wire.buffered().is_empty();
        !has_body && matches!(wire.glance(Duration::ZERO), Ok(Some(0)) | Err(_))
    }

    /// Whether a part of the body is here, so that the next read does not wait. Of a chunked body
    /// nobody knows: what is here may be half the line before a chunk.
    pub fn has_body_here(&mut self) -> bool {
        let Link { wire, .. } = &mut self.link;
        self.body.remaining().is_some_and(|left| left > 0)
            && (!wire.buffered().is_empty() || matches!(wire.glance(Duration::ZERO), Ok(Some(1))))
    }

    /// Waits for more of the body, but not longer than this: for a handler that waits for
    /// something else too. False if nothing has come.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn wait_for_body(&mut self, limit: Duration) -> io::Result<bool> {
        let Link { wire, .. } = &mut self.link;
        let is_here = self.body.is_finished() || !wire.buffered().is_empty();
        if is_here || wire.glance(Duration::ZERO)?.is_some() {
            return Ok(true);
        }
        Ok(self.while_waiting(|_, wire| wire.glance(limit))??.is_some())
    }

    /// Ends the answer.
    ///
    /// # Errors
    /// Those of [`ResponseWriter::finish`].
    pub fn finish(&mut self) -> io::Result<()> {
        self.link.wire.explain("response");
        self.answer.finish(&mut self.link.wire)?;
        Ok(())
    }

    /// Answers 101 and lends the connection out: with all bytes that have arrived already, and for
    /// as long as the handler does not return. Then what it has written is sent, and the connection
    /// is closed. `headers` name the new protocol in `Upgrade`.
    ///
    /// # Errors
    /// Those of [`ResponseWriter::start`]; a missing `Upgrade`; a body that has not been read, whose
    /// bytes the new protocol would take for its own.
    pub fn switch_protocols(&mut self, headers: &Headers) -> io::Result<&mut Link> {
        // RFC 9110, section 7.8: a 101 answer must say what it switches to.
        if !headers.contains(UPGRADE) || !self.body.is_finished() {
            return Err(ErrorKind::InvalidInput.into());
        }
        self.start(Status::SWITCHING_PROTOCOLS, headers, None)?;
        self.finish()?;
        self.link.wire.flush()?;
        Ok(&mut self.link)
    }

    /// Whether the connection has spoken another protocol since.
    pub fn has_switched_protocols(&self) -> bool {
        self.status == Some(Status::SWITCHING_PROTOCOLS)
    }

    /// The last moment to say `Connection: close`: a body that we shall not read to its end, or
    /// that the client may never send, makes the connection unusable.
    fn prepare_answer(&mut self, status: Status) {
        self.link.wire.explain("response");
        let too_much = self.body.remaining().is_some_and(|left| left > DRAIN);
        let left_over = !self.body.is_finished() && (too_much || self.expects_continue);
        if left_over || self.failure.is_some() {
            self.answer.close_after();
        }
        if !self.answer.has_started() {
            self.status = Some(status);
        }
    }

    /// Lets the handler answer, and completes what it has left undone. Afterwards an answer has
    /// been given, as far as the client still listens.
    pub fn run(&mut self, handler: &dyn Handler) {
        if self.failure.is_none() {
            match catch_unwind(AssertUnwindSafe(|| handler.handle(self))) {
                Ok(Ok(())) => self.complete(),
                Ok(Err(error)) => self.fail(Refusal::from_handler(&error)),
                Err(_) => self.fail(Refusal::application_failed("the application panicked")),
            }
        }
        if !self.answer.has_started() {
            self.refuse();
        }
    }

    fn complete(&mut self) {
        if self.answer.has_finished() {
            return;
        }
        if !self.answer.has_started() {
            return self.fail(Refusal::application_failed("the application gave no answer"));
        }
        if let Err(error) = self.finish() {
            self.fail(Refusal::from_handler(&error));
        }
    }

    fn refuse(&mut self) {
        let Some(response) = self.failure.as_ref().map(Refusal::response) else { return };
        // If this fails the client has gone, and there is nobody to tell.
        let _ = self.respond(response);
    }

    /// The first failure counts: a body that breaks a rule is the cause of the error after it.
    fn fail(&mut self, refusal: Refusal) {
        if !self.has_lost_client() {
            self.failure.get_or_insert(refusal);
        }
    }

    /// Whether the connection can carry another request. Reads the rest of the body for it, if
    /// that is little: it would be taken for the next request.
    pub fn leaves_link_usable(&mut self) -> bool {
        let whole = self.failure.is_none() && self.answer.has_finished();
        whole && self.answer.keeps_alive() && self.drain_body()
    }

    fn drain_body(&mut self) -> bool {
        if self.body.is_finished() {
            return true;
        }
        let mut scrap = vec![0; 8 * 1024];
        let mut drained = 0;
        while drained <= DRAIN {
            match self.read(&mut scrap) {
                Ok(0) => return true,
                Ok(count) => drained += count as u64,
                Err(_) => return false,
            }
        }
        false
    }
}
