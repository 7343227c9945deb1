//! Chapter 47: live pages. RFC 6455, sections 7.4.1 and 10.4.
//!
//! What the site says over WebSockets:
//!
//! ```text
//!   address            the client sends           and hears
//!   /ws/echo/          any message                the same again
//!   /ws/upload/        "5 a.txt", then bytes      {"received": 3, ...}, at last with "sha1"
//!   /ws/chat/ROOM/     a line of text             what is said in that room
//!   /ws/trends/        nothing                    the figures, each second
//!   /ws/frames/        nothing                    frames: see inspector.rs
//! ```
//!
//! Text comes as plain words, which need no reader of JSON. What goes out is JSON, for scripts.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::gateway::asgi::Payload;
use crate::gateway::wsgi::Exception;
use crate::site::figures::Figures;
use crate::site::inspector::{FramesConsumer, Inspector};
use crate::site::uploads::{Uploads, in_words};
use crate::web::app::App;
use crate::web::form::to_json;
use crate::web::multipart::clean_file_name;
use crate::web::upload::UploadedFile;
use crate::web::value::{Context, Value};
use crate::websocket::consumer::{
    Channel, Connected, EchoConsumer, Group, Knock, ProtocolRouter, WebSocketConsumer, ws_path,
};
use crate::websocket::frame::CloseCode;
use crate::websocket::sha1::{Sha1, hex};

/// The site and its consumers, behind one address. The inspector must also be the observer of the
/// gateway, or there is nothing to see.
pub fn with_consumers(
    site: App,
    uploads: &Arc<Uploads>,
    figures: &Arc<Figures>,
    inspector: &Arc<Inspector>,
) -> ProtocolRouter {
    let (uploads, inspector) = (Arc::clone(uploads), Arc::clone(inspector));
    let rooms = Arc::new(Rooms::default());
    let trends = Arc::new(Trends {
        figures: Arc::clone(figures),
        members: Group::new(),
        has_thread: Mutex::new(false),
    });
    let chat = move || ChatConsumer { rooms: Arc::clone(&rooms), seat: None };
    let live = move || TrendsConsumer { trends: Arc::clone(&trends), channel: None };
    ProtocolRouter::new(site)
        .with(ws_path("ws/echo/", EchoConsumer::new))
        .with(ws_path("ws/upload/", move || UploadConsumer::new(&uploads)))
        .with(ws_path("ws/chat/<str:room>/", chat))
        .with(ws_path("ws/trends/", live))
        .with(ws_path("ws/frames/", move || FramesConsumer::new(&inspector)))
}

fn json(context: Context) -> String {
    to_json(&Value::from(context))
}

// Uploads.

/// One file after the other, each announced with its size and its name. Whatever ends the
/// WebSocket before the last byte of a file ends the file too: it has an owner, and that goes.
/// Nothing bounds how long the next piece may take. A client that only answers pings keeps a thread,
/// as every silent WebSocket does, and on the disk no more than if it had sent the whole file.
struct UploadConsumer {
    uploads: Arc<Uploads>,
    arriving: Option<Arriving>,
}

struct Arriving {
    disk: File,
    file: UploadedFile,
    /// The bytes that were announced.
    size: u64,
    sha1: Sha1,
}

/// Why there is no upload: a code, and words.
struct Refused(CloseCode, String);

fn refused(code: CloseCode, words: impl Into<String>) -> Refused {
    Refused(code, words.into())
}

/// Bytes of a client's file name that are kept, as in a form.
const FILE_NAME: usize = 100;

impl UploadConsumer {
    fn new(uploads: &Arc<Uploads>) -> UploadConsumer {
        UploadConsumer { uploads: Arc::clone(uploads), arriving: None }
    }

    /// `5 hello.txt`
    fn begin(&mut self, announced: &str) -> Result<(), Refused> {
        if self.arriving.is_some() {
            return Err(refused(CloseCode::POLICY, "the file before this one is not whole"));
        }
        let (digits, name) = announced.split_once(' ').unwrap_or((announced, ""));
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        let Some(size) = digits.parse().ok().filter(|_| is_number) else {
            return Err(refused(CloseCode::POLICY, "say the size in bytes, a space, and the name"));
        };
        let longest = self.uploads.longest;
        if size > longest {
            let words =
                format!("a file may have {}, and this one has {size} bytes", in_words(longest));
            // RFC 6455, section 7.4.1: for a message that is too big. This one only announces it.
            return Err(refused(CloseCode::TOO_BIG, words));
        }
        let name = clean_file_name(name, FILE_NAME);
        let created = self.uploads.spool.create(String::new(), name, String::new());
        let (disk, file) = created.map_err(|_| not_stored())?;
        self.arriving = Some(Arriving { disk, file, size, sha1: Sha1::new() });
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let Some(Arriving { disk, file, size, sha1 }) = &mut self.arriving else {
            return Err(refused(CloseCode::POLICY, "first say the size, a space, and the name"));
        };
        if bytes.len() as u64 > size.saturating_sub(file.size) {
            let words = format!("more than the {size} bytes that were announced");
            return Err(refused(CloseCode::POLICY, words));
        }
        disk.write_all(bytes).map_err(|_| not_stored())?;
        file.size += bytes.len() as u64;
        sha1.update(bytes);
        Ok(())
    }

    /// What the client shall hear now. After the last byte the file is kept.
    fn progress(&mut self) -> Result<String, Refused> {
        let whole = |arriving: &mut Arriving| arriving.file.size == arriving.size;
        let Some(Arriving { file, size, sha1, .. }) = self.arriving.take_if(whole) else {
            let arriving = self.arriving.as_ref();
            let (received, size) = arriving.map_or((0, 0), |one| (one.file.size, one.size));
            return Ok(json(Context::new().with("received", received).with("size", size)));
        };
        let (name, sha1) = (file.file_name.clone(), hex(&sha1.finish()));
        let stored = self.uploads.keep(file, &sha1).map_err(|_| not_stored())?;
        let context = Context::new().with("received", size).with("size", size);
        Ok(json(context.with("name", name).with("stored", stored).with("sha1", sha1)))
    }

    fn answer(&mut self, done: Result<(), Refused>, channel: &Channel) -> Result<(), Exception> {
        match done.and_then(|()| self.progress()) {
            Ok(words) => channel.send_text(words),
            Err(Refused(code, words)) => {
                self.arriving = None;
                channel.close(code.0, &words)
            }
        }
    }
}

fn not_stored() -> Refused {
    refused(CloseCode::INTERNAL_ERROR, "the file could not be stored")
}

impl WebSocketConsumer for UploadConsumer {
    fn receive(&mut self, text: String, channel: &Channel) -> Result<(), Exception> {
        let begun = self.begin(&text);
        self.answer(begun, channel)
    }

    fn receive_binary(&mut self, bytes: Vec<u8>, channel: &Channel) -> Result<(), Exception> {
        let appended = self.append(&bytes);
        self.answer(appended, channel)
    }
}

// The chat.

/// Characters of a name, of a visitor or of a room.
const NAME: usize = 30;
/// Characters of what is said at a time.
const SAID: usize = 500;
/// What a newcomer hears of what was said before.
const HISTORY: usize = 20;
/// Rooms that are known. Strangers name them, so there must be a bound; only empty ones make room.
const ROOMS: usize = 100;

#[derive(Default)]
struct Rooms {
    by_name: Mutex<BTreeMap<String, Arc<Room>>>,
}

/// Where visitors hear each other. While the history is locked nobody comes and nothing is said, so
/// that a newcomer misses no word and hears none twice.
#[derive(Default)]
struct Room {
    members: Group,
    history: Mutex<VecDeque<String>>,
}

impl Rooms {
    /// The room of that name. `None` if there is no room for one more.
    fn get(&self, name: &str) -> Option<Arc<Room>> {
        let mut rooms = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = rooms.get(name) {
            return Some(Arc::clone(room));
        }
        if rooms.len() >= ROOMS {
            // In the others somebody has a seat, or is about to take one.
            rooms.retain(|_, room| Arc::strong_count(room) > 1);
        }
        (rooms.len() < ROOMS).then(|| Arc::clone(rooms.entry(name.to_string()).or_default()))
    }
}

impl Room {
    fn join(&self, channel: &Channel, name: &str) {
        let history = self.history();
        for said in history.iter() {
            // A newcomer has room for all of it. If one has gone already, the group finds out.
            let _ = channel.post(Payload::Text(said.clone()));
        }
        self.members.join(channel);
        self.tell(format!("{name} has come. In the room now: {}.", self.members.len()));
    }

    fn leave(&self, channel: &Channel, name: &str) {
        let _history = self.history();
        self.members.leave(channel);
        self.tell(format!("{name} has gone. In the room now: {}.", self.members.len()));
    }

    fn say(&self, name: &str, text: &str) {
        let said = json(Context::new().with("name", name).with("text", text));
        let mut history = self.history();
        if history.len() == HISTORY {
            history.pop_front();
        }
        history.push_back(said.clone());
        self.members.broadcast(&Payload::Text(said));
    }

    fn tell(&self, words: String) {
        self.members.broadcast(&Payload::Text(json(Context::new().with("notice", words))));
    }

    fn history(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct ChatConsumer {
    rooms: Arc<Rooms>,
    seat: Option<Seat>,
}

/// A visitor's place in a room. Its end is that of the visit, also after a panic.
struct Seat {
    room: Arc<Room>,
    channel: Channel,
    name: String,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.room.leave(&self.channel, &self.name);
    }
}

fn is_name(name: &str) -> bool {
    let count = name.chars().count();
    (1..=NAME).contains(&count) && !name.chars().any(is_unseen)
}

/// Nobody sees these. Some make two names look like one, and some turn around what stands behind
/// them, which are the words that follow the name on all pages.
fn is_unseen(letter: char) -> bool {
    let single = ['\u{ad}', '\u{61c}', '\u{180e}', '\u{feff}'];
    let ranges = ['\u{200b}'..='\u{200f}', '\u{2028}'..='\u{202e}', '\u{2060}'..='\u{206f}'];
    letter.is_control()
        || single.contains(&letter)
        || ranges.iter().any(|range| range.contains(&letter))
}

impl WebSocketConsumer for ChatConsumer {
    fn connect(&mut self, knock: Knock) -> Connected {
        let room = knock.parameters.get("room").to_string();
        // A query with too many pairs has no name either.
        let query = knock.query().unwrap_or_default();
        let name = query.get("name").unwrap_or_default().trim().to_string();
        // A browser shows its script no refusal, but it does show why a WebSocket was closed.
        let channel = knock.accept()?;
        if !is_name(&name) || !is_name(&room) {
            let words =
                format!("a name has 1 to {NAME} visible characters, and that of a room too");
            channel.close(CloseCode::POLICY.0, &words)?;
            return Ok(channel);
        }
        let Some(room) = self.rooms.get(&room) else {
            channel.close(CloseCode::POLICY.0, "there are too many rooms now")?;
            return Ok(channel);
        };
        let seat = Seat { room, channel: channel.clone(), name };
        seat.room.join(&seat.channel, &seat.name);
        self.seat = Some(seat);
        Ok(channel)
    }

    fn receive(&mut self, text: String, channel: &Channel) -> Result<(), Exception> {
        let (Some(seat), text) = (&self.seat, text.trim()) else { return Ok(()) };
        if text.chars().count() > SAID {
            let words = format!("That was too long: {SAID} characters at a time.");
            return channel.send_text(json(Context::new().with("notice", words)));
        }
        if !text.is_empty() {
            seat.room.say(&seat.name, text);
        }
        Ok(())
    }
}

// The figures.

/// One thread tells all members, and lives only while there are some.
struct Trends {
    figures: Arc<Figures>,
    members: Group,
    /// Locked while somebody joins, and while the thread finds out whether it is still needed.
    has_thread: Mutex<bool>,
}

/// How often the figures are sent.
const SECOND: Duration = Duration::from_secs(1);

impl Trends {
    fn join(self: &Arc<Trends>, channel: &Channel) {
        let mut has_thread = self.has_thread();
        let _ = channel.post(self.figures());
        self.members.join(channel);
        if *has_thread {
            return;
        }
        let trends = Arc::clone(self);
        let thread = thread::Builder::new().name("trends".into()).stack_size(256 * 1024);
        // If the system refuses the thread, the next member asks for it again.
        *has_thread = thread.spawn(move || trends.tell()).is_ok();
    }

    fn tell(&self) {
        loop {
            thread::sleep(SECOND);
            let mut has_thread = self.has_thread();
            if self.members.broadcast(&self.figures()) == 0 {
                *has_thread = false;
                return;
            }
        }
    }

    fn figures(&self) -> Payload {
        Payload::Text(json(self.figures.snapshot().to_context()))
    }

    fn has_thread(&self) -> MutexGuard<'_, bool> {
        self.has_thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct TrendsConsumer {
    trends: Arc<Trends>,
    channel: Option<Channel>,
}

impl WebSocketConsumer for TrendsConsumer {
    fn connect(&mut self, knock: Knock) -> Connected {
        let channel = knock.accept()?;
        self.trends.join(&channel);
        self.channel = Some(channel.clone());
        Ok(channel)
    }
}

impl Drop for TrendsConsumer {
    fn drop(&mut self) {
        if let Some(channel) = &self.channel {
            self.trends.members.leave(channel);
        }
    }
}
