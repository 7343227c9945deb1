//! Chapter 43: hosting WSGI. PEP 3333, with the application in another process.
//!
//! To the gateway a hosted application is one like any other: a call, an iterable, a close. What
//! it does is said to a worker in frames. `N` and `B` come only if the body is long, or the client
//! waits for a word before it sends one:
//!
//! ```text
//!   gateway             this file                              worker
//!     │  call             │  R  environ      B  whole body        │
//!     │──────────────────►│──────────────────────────────────────►│  application(environ, ...)
//!     │                   │  S  environ                           │
//!     │  input.read       │  N  the next piece, please            │  wsgi.input.read
//!     │◄──────────────────│◄──────────────────────────────────────│
//!     │                   │  B  piece                             │
//!     │──────────────────►│──────────────────────────────────────►│
//!     │  start_response   │  H  status and fields                 │
//!     │◄──────────────────│◄──────────────────────────────────────│  the first chunk
//!     │  next_chunk       │  D, D, ... E  pieces of the answer    │
//!     │◄──────────────────│◄──────────────────────────────────────│
//! ```
//!
//! A body is pulled, and pushed by one piece at most: two sides that both only write would wait
//! for ever.
#![cfg(unix)]

use std::borrow::Cow;
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use crate::gateway::wsgi::{
    Application, Chunks, Environ, Exception, Iterable, StartResponse, native,
};
use crate::http::headers::{CONTENT_LENGTH, EXPECT};
use crate::http::url::UrlError;
use crate::python::lane::kind::{self, BODY, DATA, END, HEAD, REQUEST, STREAMED_REQUEST, WANTS};
use crate::python::lane::{Fault, Lane, LaneWriter};
use crate::python::worker::{Pool, PythonSpec};

/// The worker's program.
const SCRIPT: &str = include_str!("wsgi_worker.py");

/// A body up to this size, in bytes, is collected before a worker is chosen: a client that sends
/// slowly then keeps a thread of ours waiting, and not a worker.
pub const COLLECTED: usize = 128 * 1024;

/// The longest piece of a body that is given to a worker, in bytes. Linux keeps 208 KB for a Unix
/// socket, so this much leaves in one go, even while the worker is busy.
const PIECE: usize = 192 * 1024;

/// How many pieces of an answer may wait for a slow client, besides the one that is being sent.
/// The worker cuts them at 64 KB, so this is 1 MB. Beyond it the worker has to wait.
const SPOOLED: usize = 16;

/// A WSGI application that lives in Python workers.
pub struct PythonWsgi {
    pool: Arc<Pool>,
}

impl PythonWsgi {
    /// The settings for an application such as `mysite.wsgi:application`.
    pub fn spec(application: &str) -> PythonSpec {
        PythonSpec::new(application, SCRIPT)
    }

    /// The application in the workers of this pool, which was started by such settings.
    pub fn new(pool: Arc<Pool>) -> PythonWsgi {
        PythonWsgi { pool }
    }
}

impl Application for PythonWsgi {
    fn call<'a>(&self, mut environ: Environ<'a>, start_response: StartResponse<'a>) -> Chunks<'a> {
        let collected = collect(&mut environ)?;
        let block = match block(&environ) {
            Ok(block) => block,
            Err(error) => return plain("400 Bad Request", &error.to_string(), &[], start_response),
        };
        let lane = match collected.deliver(&self.pool, &block) {
            Ok(lane) => lane,
            Err(fault) => return apologize(fault, start_response),
        };
        // Of a whole body nothing is left.
        let piece = collected.into_part();
        let mut answer = Answer {
            environ,
            start_response,
            waiting: piece.len(),
            piece,
            is_ahead: false,
            source: Source::Direct(lane),
            first: None,
            has_head: false,
            is_whole: false,
        };
        match answer.next() {
            Ok(first) => answer.first = first,
            Err(Failure::Worker(fault)) if !answer.has_head => {
                return apologize(fault, start_response);
            }
            Err(failure) => return Err(failure.into()),
        }
        answer.is_whole = matches!(answer.source, Source::Over);
        Ok(Box::new(answer))
    }
}

/// What has come of a request body before a worker was chosen.
pub enum Collected {
    /// All of it.
    Whole(Vec<u8>),
    /// This much. The rest is read when the application asks for it.
    Part(Vec<u8>),
}

impl Collected {
    /// Gives a request to a worker, and its body if that is whole.
    ///
    /// # Errors
    /// Those of [`Pool::deliver`].
    pub fn deliver(&self, pool: &Pool, block: &[u8]) -> Result<Lane, Fault> {
        match self {
            Collected::Whole(body) => pool.deliver(&[(REQUEST, block), (BODY, body)]),
            Collected::Part(_) => pool.deliver(&[(STREAMED_REQUEST, block)]),
        }
    }

    /// What has not been given to the worker with the request.
    pub fn into_part(self) -> Vec<u8> {
        match self {
            Collected::Whole(_) => Vec::new(),
            Collected::Part(bytes) => bytes,
        }
    }
}

fn collect(environ: &mut Environ) -> io::Result<Collected> {
    let headers = &environ.head().headers;
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.as_str()?.parse().ok());
    // RFC 9110, section 10.1.1: to read is to ask for the body, and the application may refuse.
    if headers.contains(EXPECT) || length.is_some_and(|length: usize| length > COLLECTED) {
        return Ok(Collected::Part(Vec::new()));
    }
    let mut body = Vec::new();
    (&mut environ.input).take(COLLECTED as u64 + 1).read_to_end(&mut body)?;
    Ok(if body.len() > COLLECTED { Collected::Part(body) } else { Collected::Whole(body) })
}

/// The environ as a block: `NAME NUL VALUE NUL ...`, as SCGI has it. A native string has a byte
/// for each character. PEP 3333, "Unicode Issues".
fn block(environ: &Environ) -> Result<Vec<u8>, UrlError> {
    let mut block = Vec::with_capacity(1024);
    for (name, value) in environ.variables() {
        // The rest of `wsgi.` is objects and not strings, and for the worker to say.
        if name.starts_with("wsgi.") && name != "wsgi.url_scheme" {
            continue;
        }
        // A path with %00 would begin a variable of its own.
        if value.contains('\0') {
            return Err(UrlError::Nul);
        }
        for text in [name, value] {
            match text.is_ascii() {
                true => block.extend_from_slice(text.as_bytes()),
                false => block.extend(text.chars().map(|letter| letter as u8)),
            }
            block.push(0);
        }
    }
    Ok(block)
}

/// The answer if no worker gives one.
fn apologize<'a>(fault: Fault, start_response: StartResponse<'a>) -> Chunks<'a> {
    let retry: &[(&str, &str)] = match fault {
        // RFC 9110, section 10.2.3: how many seconds.
        Fault::Busy => &[("Retry-After", "1")],
        Fault::Died | Fault::Hung => &[],
    };
    plain(fault.status(), &fault.to_string(), retry, start_response)
}

fn plain<'a>(
    status: &str,
    reason: &str,
    more: &[(&str, &str)],
    start_response: StartResponse<'a>,
) -> Chunks<'a> {
    let text = format!("{status}\n\n{reason}\n");
    let fields = [&[("Content-Type", "text/plain; charset=utf-8")], more].concat();
    start_response.call(status, &fields)?;
    Ok(Box::new(Some(text.into_bytes()).into_iter()))
}

/// The answer of a worker, as it comes.
struct Answer<'a> {
    environ: Environ<'a>,
    start_response: StartResponse<'a>,
    /// The piece of the body that was read last.
    piece: Vec<u8>,
    /// How much of it has not been given to the worker: all, or nothing.
    waiting: usize,
    /// The worker has been given a piece that it has not asked for yet.
    is_ahead: bool,
    source: Source,
    first: Option<Vec<u8>>,
    has_head: bool,
    /// The first piece is the only one.
    is_whole: bool,
}

/// Where frames come from.
enum Source {
    /// From the lane.
    Direct(Lane),
    /// From a thread that reads the lane, so that a slow client does not hold the worker.
    Spooled(Receiver<Spooled>, LaneWriter),
    /// The answer is complete.
    Over,
}

type Spooled = Result<(u8, Vec<u8>), Fault>;

/// Why there is no next piece.
enum Failure {
    /// The worker is gone.
    Worker(Fault),
    /// The application has raised an exception. Its traceback is in the log.
    Raised,
    /// The application has broken a rule, or the client's body has.
    Other(Exception),
}

impl From<Failure> for Exception {
    fn from(failure: Failure) -> Exception {
        match failure {
            Failure::Worker(fault) => fault.into(),
            Failure::Raised => "it raised an exception".into(),
            Failure::Other(exception) => exception,
        }
    }
}

impl Iterable for Answer<'_> {
    fn next_chunk(&mut self) -> Option<Result<Vec<u8>, Exception>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        self.next().map_err(Exception::from).transpose()
    }

    fn chunks(&self) -> Option<usize> {
        self.is_whole.then_some(1)
    }
}

impl Answer<'_> {
    /// The next piece, or `None` at the end. On the way there the worker may ask for the body.
    fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            let (kind, payload) = match &mut self.source {
                Source::Direct(lane) => receive(lane).map_err(Failure::Worker)?,
                Source::Spooled(frames, _) => {
                    frames.recv().unwrap_or(Err(Fault::Died)).map_err(Failure::Worker)?
                }
                Source::Over => return Ok(None),
            };
            match kind {
                WANTS => self.give_body().map_err(|error| Failure::Other(error.into()))?,
                HEAD => self.announce(&payload).map_err(Failure::Other)?,
                DATA => {
                    self.spool();
                    return Ok(Some(payload));
                }
                END => {
                    self.end();
                    return Ok(Some(payload));
                }
                kind::FAILED => {
                    self.end();
                    return Err(Failure::Raised);
                }
                _ => return Err(Failure::Worker(Fault::Died)),
            }
        }
    }

    fn end(&mut self) {
        if let Source::Direct(lane) = std::mem::replace(&mut self.source, Source::Over) {
            // A piece that nobody has read may still lie in it.
            if !self.is_ahead {
                lane.give_back();
            }
        }
    }

    /// `H`: status and fields. Some applications name fields that are about one connection, and
    /// mean no harm; the worker has left them out.
    fn announce(&mut self, payload: &[u8]) -> Result<(), Exception> {
        let texts: Vec<Cow<'_, str>> = payload.split(|byte| *byte == 0).map(native).collect();
        let Some((status, rest)) = texts.split_first() else {
            return Err(io::Error::from(ErrorKind::InvalidData).into());
        };
        let pairs = rest.chunks_exact(2).filter_map(|pair| Some((pair.first()?, pair.get(1)?)));
        let fields: Vec<(&str, &str)> = pairs.map(|(name, value)| (&**name, &**value)).collect();
        self.start_response.call(status, &fields)?;
        self.has_head = true;
        Ok(())
    }

    /// `N`: the next piece of the body. The one after it follows unasked, if it is here already.
    fn give_body(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.is_ahead) {
            self.excuse(true);
            self.read_piece()?;
            self.excuse(false);
            self.give_piece()?;
        }
        // Elsewhere a Unix socket may not take it, and the worker may not read it.
        if self.waiting > 0 && cfg!(target_os = "linux") {
            self.is_ahead = true;
            self.give_piece()?;
        }
        Ok(())
    }

    fn give_piece(&mut self) -> io::Result<()> {
        let given = self.piece.get(..std::mem::take(&mut self.waiting)).unwrap_or_default();
        // If the worker has gone, the next read says so, and why.
        match &mut self.source {
            Source::Direct(lane) => lane.send(&[(BODY, given)]).unwrap_or(()),
            Source::Spooled(_, writer) => writer.send(&[(BODY, given)]).unwrap_or(()),
            Source::Over => {}
        }
        // The worker is busy with it. It may also be about to answer: only what is here.
        if self.environ.input.is_ready() {
            self.read_piece()?;
        }
        Ok(())
    }

    fn read_piece(&mut self) -> io::Result<()> {
        if self.waiting == 0 {
            self.piece.resize(PIECE, 0);
            self.waiting = self.environ.input.read(&mut self.piece)?;
        }
        Ok(())
    }

    fn excuse(&self, excused: bool) {
        match &self.source {
            Source::Direct(lane) => lane.excuse(excused),
            Source::Spooled(_, writer) => writer.excuse(excused),
            Source::Over => {}
        }
    }

    /// From the second piece on, a thread reads ahead. If there can be none, this one reads on.
    fn spool(&mut self) {
        let Source::Direct(lane) = &mut self.source else { return };
        let Ok(writer) = lane.writer() else { return };
        let (give, frames) = sync_channel(SPOOLED);
        let Source::Direct(lane) =
            std::mem::replace(&mut self.source, Source::Spooled(frames, writer))
        else {
            return;
        };
        let builder = thread::Builder::new().name("spool".to_string()).stack_size(64 * 1024);
        // If it cannot be started the lane is dropped, and the answer is cut.
        let _ = builder.spawn(move || read_ahead(lane, &give));
    }
}

/// When the client has gone, nobody wants the rest: the worker is told by the end of its lane.
impl Drop for Answer<'_> {
    fn drop(&mut self) {
        if let Source::Spooled(_, writer) = &self.source {
            writer.cut();
        }
    }
}

/// The life of a spooling thread.
fn read_ahead(mut lane: Lane, give: &SyncSender<Spooled>) {
    loop {
        let frame = receive(&mut lane);
        let is_last = !matches!(frame, Ok((WANTS | HEAD | DATA, _)));
        match give.try_send(frame) {
            Ok(()) => {}
            Err(TrySendError::Full(frame)) => {
                lane.excuse(true);
                if give.send(frame).is_err() {
                    return;
                }
                lane.excuse(false);
            }
            Err(TrySendError::Disconnected(_)) => return,
        }
        if is_last {
            return;
        }
    }
}

fn receive(lane: &mut Lane) -> Spooled {
    let mut payload = Vec::new();
    let kind = lane.read(&mut payload)?;
    Ok((kind, payload))
}
