//! Chapter 47: live pages. First in memory, where a visitor stays as long as the test wants it, and
//! can be slowed down at the worst moment; then on sockets.

mod support;

use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use glasshouse::gateway::asgi::{
    Application, Asgi, Emit, Event, HttpScope, Payload, Receive, Remote, Scope, State,
};
use glasshouse::gateway::wsgi::Exception;
use glasshouse::http::exchange::Exchange;
use glasshouse::http::request::{HeadLimits, HeadParser, Parse};
use glasshouse::http::response::Status;
use glasshouse::http::server::{Running, Server, Settings};
use glasshouse::site::consumers::with_consumers;
use glasshouse::site::figures::Figures;
use glasshouse::site::inspector::{Inspector, report};
use glasshouse::site::uploads::Uploads;
use glasshouse::socket::wire::Direction;
use glasshouse::web::app::App;
use glasshouse::web::upload::Spool;
use glasshouse::websocket::consumer::ProtocolRouter;
use glasshouse::websocket::conversation::Closed;
use glasshouse::websocket::frame::{FrameHeader, Opcode};
use glasshouse::websocket::message::FrameSeen;
use glasshouse::websocket::session::{SessionError, SessionObserver, SessionSettings, WebSockets};
use support::watchdog::{Watchdog, watchdog};
use support::websocket::{BINARY, Peer};

/// How long anybody may wait for what should take no time.
const SOON: Duration = Duration::from_secs(5);

/// The consumers, and the folder where their uploads arrive and stay.
struct House {
    site: Arc<ProtocolRouter>,
    folder: PathBuf,
    _dog: Watchdog,
}

impl House {
    fn new(name: &str) -> House {
        House::with(name, &Arc::new(Inspector::new(Arc::new(()))))
    }

    fn with(name: &str, inspector: &Arc<Inspector>) -> House {
        let dog = watchdog(60, name);
        let folder = std::env::temp_dir().join(format!("gh-ch47-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let spool = Spool::open(&folder).expect("a spool");
        let uploads = Arc::new(Uploads::new(folder.clone(), spool, 1000));
        let figures = Arc::new(Figures::default());
        let site = Arc::new(with_consumers(App::new(), &uploads, &figures, inspector));
        House { site, folder, _dog: dog }
    }

    /// What is in the folder, without the spool's own lock.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> =
            names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.retain(|name| !name.ends_with(".live"));
        names
    }

    fn visit(&self, target: &str) -> Visitor {
        visit(&self.site, target, [127, 0, 0, 1], Ear::new())
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A client in memory. It goes when it is dropped.
struct Visitor {
    /// What it says; `None` makes the thread that listens to it panic.
    says: Sender<Option<Event>>,
    hears: Receiver<Event>,
    ear: Arc<Ear>,
    thread: Option<thread::JoinHandle<()>>,
}

/// The way to a visitor.
struct Ear {
    told: Mutex<Sender<Event>>,
    hears: Mutex<Option<Receiver<Event>>>,
    has_gone: AtomicBool,
    posts: AtomicUsize,
    /// What happens just before one of the posts, counted from 1, reaches the visitor.
    before: Mutex<Option<(usize, Meanwhile)>>,
}

type Meanwhile = Box<dyn FnOnce() + Send>;

impl Ear {
    fn new() -> Arc<Ear> {
        let (told, hears) = channel();
        Arc::new(Ear {
            told: Mutex::new(told),
            hears: Mutex::new(Some(hears)),
            has_gone: AtomicBool::new(false),
            posts: AtomicUsize::new(0),
            before: Mutex::new(None),
        })
    }

    fn before_post(
        self: Arc<Ear>,
        number: usize,
        work: impl FnOnce() + Send + 'static,
    ) -> Arc<Ear> {
        *self.before.lock().expect("work") = Some((number, Box::new(work)));
        self
    }
}

impl Remote for Ear {
    fn send(&self, event: Event) -> Result<(), Exception> {
        if self.has_gone.load(Ordering::SeqCst) {
            return Err(io::Error::new(ErrorKind::BrokenPipe, SessionError::Over).into());
        }
        Ok(self.told.lock().expect("a sender").send(event)?)
    }

    fn post(&self, event: Event) -> Result<(), Exception> {
        let number = self.posts.fetch_add(1, Ordering::SeqCst) + 1;
        let before = self.before.lock().expect("work").take_if(|(at, _)| *at == number);
        if let Some((_, work)) = before {
            work();
        }
        self.send(event)
    }

    fn cut(&self) {
        self.has_gone.store(true, Ordering::SeqCst);
    }
}

/// The gateway's two handles.
struct Mouth(Receiver<Option<Event>>);
struct Hand(Arc<Ear>);

impl Receive for Mouth {
    fn receive(&mut self) -> Result<Event, Exception> {
        match self.0.recv() {
            Ok(event) => Ok(event.expect("a word: this visitor makes everybody panic")),
            Err(_) => Ok(Event::WebsocketDisconnect(1006, String::new())),
        }
    }
}

impl Emit for Hand {
    fn send(&mut self, event: Event) -> Result<(), Exception> {
        Remote::send(&*self.0, event)
    }

    fn share(&self) -> Option<Arc<dyn Remote>> {
        Some(Arc::clone(&self.0) as Arc<dyn Remote>)
    }
}

fn scope(target: &str, from: [u8; 4]) -> Scope {
    let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let parsed = HeadParser::new(HeadLimits::default()).advance(head.as_bytes());
    let Ok(Parse::Complete { value, .. }) = parsed else { panic!("no head: {head}") };
    let scope = HttpScope {
        path: value.target.path().to_string(),
        head: Arc::new(value),
        root_path: String::new(),
        scheme: "ws",
        client: SocketAddr::from((from, 50_000)),
        server: SocketAddr::from(([127, 0, 0, 1], 8000)),
        state: State::new(),
    };
    Scope::WebSocket(scope, Vec::new())
}

/// Somebody comes, on a thread of its own, and is let in.
#[track_caller]
fn visit(site: &Arc<ProtocolRouter>, target: &str, from: [u8; 4], ear: Arc<Ear>) -> Visitor {
    let (says, said) = channel();
    let hears = ear.hears.lock().expect("a receiver").take().expect("a new ear");
    let (site, scope, hand) = (Arc::clone(site), scope(target, from), Arc::clone(&ear));
    let thread = thread::spawn(move || {
        // Some of them are there to fail.
        let _ = site.call(&scope, &mut Mouth(said), &mut Hand(hand));
    });
    let visitor = Visitor { says, hears, ear, thread: Some(thread) };
    visitor.say(Event::WebsocketConnect);
    assert_eq!(visitor.hears(), "accept");
    visitor
}

fn words(event: Event) -> String {
    match event {
        Event::WebsocketAccept { .. } => "accept".to_string(),
        Event::WebsocketSend(Payload::Text(text)) => text,
        Event::WebsocketClose(code, reason) => format!("close {code} {reason}"),
        other => other.name().to_string(),
    }
}

fn text(text: &str) -> Event {
    Event::WebsocketReceive(Payload::Text(text.to_string()))
}

fn notice(words: &str) -> String {
    format!("{{\"notice\": \"{words}\"}}")
}

impl Visitor {
    fn say(&self, event: Event) {
        let _ = self.says.send(Some(event));
    }

    /// The next thing that it is told.
    #[track_caller]
    fn hears(&self) -> String {
        words(self.hears.recv_timeout(SOON).expect("it hears something"))
    }

    /// Whoever listens to it panics now.
    fn make_panic(self) {
        let _ = self.says.send(None);
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        // Its end of the conversation goes first, and with it the consumer's wait.
        self.says = channel().0;
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

// Uploads.

#[test]
fn a_file_half_arrived_goes_with_its_owner_also_after_a_panic() {
    let house = House::new("half");
    for panics in [false, true] {
        let visitor = house.visit("/ws/upload/");
        visitor.say(text("10 half.txt"));
        assert_eq!(visitor.hears(), "{\"received\": 0, \"size\": 10}");
        visitor.say(Event::WebsocketReceive(Payload::Bytes(b"Hello".to_vec())));
        assert_eq!(visitor.hears(), "{\"received\": 5, \"size\": 10}");
        assert_eq!(house.files().len(), 1);
        match panics {
            true => visitor.make_panic(),
            false => drop(visitor),
        }
        assert_eq!(house.files(), Vec::<String>::new(), "panics: {panics}");
    }
}

#[test]
fn the_last_byte_counts_though_its_sender_has_gone() {
    let house = House::new("last");
    let visitor = house.visit("/ws/upload/");
    visitor.say(text("5 whole.txt"));
    visitor.hears();
    visitor.ear.cut();
    visitor.say(Event::WebsocketReceive(Payload::Bytes(b"Hello".to_vec())));
    drop(visitor);
    let files = house.files();
    assert_eq!(files.len(), 1);
    assert_eq!(fs::read(house.folder.join(&files[0])).expect("a file"), b"Hello");
}

// The chat.

#[test]
fn a_newcomer_misses_no_word_and_hears_none_twice() {
    let house = House::new("newcomer");
    let ada = house.visit("/ws/chat/a/?name=Ada");
    ada.say(text("before"));
    let before = "{\"name\": \"Ada\", \"text\": \"before\"}";
    assert_eq!(
        (ada.hears(), ada.hears()),
        (notice("Ada has come. In the room now: 1."), before.into())
    );
    // While Bob is being told what was said, Ada speaks on. That must wait until he is inside.
    let says = ada.says.clone();
    let ear = Ear::new().before_post(1, move || {
        let _ = says.send(Some(text("just now")));
        thread::sleep(Duration::from_millis(200));
    });
    let bob = visit(&house.site, "/ws/chat/a/?name=Bob", [127, 0, 0, 1], ear);
    let come = notice("Bob has come. In the room now: 2.");
    let just_now = "{\"name\": \"Ada\", \"text\": \"just now\"}";
    for words in [before, come.as_str(), just_now] {
        assert_eq!(bob.hears(), words);
    }
    for words in [come.as_str(), just_now] {
        assert_eq!(ada.hears(), words);
    }
    assert!(bob.hears.try_recv().is_err());
}

#[test]
fn a_seat_is_left_also_after_a_panic() {
    let house = House::new("seat");
    let ada = house.visit("/ws/chat/a/?name=Ada");
    ada.hears();
    for panics in [false, true] {
        let bob = house.visit("/ws/chat/a/?name=Bob");
        assert_eq!(ada.hears(), notice("Bob has come. In the room now: 2."));
        match panics {
            true => bob.make_panic(),
            false => drop(bob),
        }
        assert_eq!(ada.hears(), notice("Bob has gone. In the room now: 1."));
    }
}

#[test]
fn an_empty_room_keeps_its_words_until_its_place_is_needed() {
    let house = House::new("empty");
    let said = "{\"name\": \"Ada\", \"text\": \"Hello\"}";
    let ada = house.visit("/ws/chat/a/?name=Ada");
    ada.hears();
    ada.say(text("Hello"));
    assert_eq!(ada.hears(), said);
    drop(ada);
    assert_eq!(house.visit("/ws/chat/a/?name=Bob").hears(), said);
    // The first room and these are one more than there may be.
    for number in 0..100 {
        house.visit(&format!("/ws/chat/room{number}/?name=Bob")).hears();
    }
    let cleo = house.visit("/ws/chat/a/?name=Cleo");
    assert_eq!(cleo.hears(), notice("Cleo has come. In the room now: 1."));
}

#[test]
fn a_name_has_no_letters_that_nobody_sees() {
    let house = House::new("unseen");
    // Of no width; from right to left; a hyphen that is seen at the end of a line only.
    for unseen in ["%E2%80%8B", "%E2%80%AE", "%C2%AD", "%D8%9C", "%EF%BB%BF", "%E2%81%A6", "%07"] {
        let visitor = house.visit(&format!("/ws/chat/a/?name=Ada{unseen}"));
        assert!(visitor.hears().starts_with("close 1008 "), "{unseen}");
    }
    for seen in ["%C3%84da", "%E5%AD%90", "Ada+L.", "%F0%9F%98%80"] {
        let visitor = house.visit(&format!("/ws/chat/a/?name={seen}"));
        assert!(visitor.hears().contains("has come"), "{seen}");
    }
}

// The figures.

#[test]
fn who_comes_when_the_last_one_goes_is_told_too() {
    let house = House::new("last-one");
    let (sender, came) = channel();
    let site = Arc::clone(&house.site);
    let ear = Ear::new();
    let own = Arc::clone(&ear);
    // Just when the thread wants to tell the only member, that one goes and another one comes.
    let ear = ear.before_post(2, move || {
        let _ = sender.send(visit(&site, "/ws/trends/", [127, 0, 0, 1], Ear::new()));
        thread::sleep(Duration::from_millis(200));
        own.cut();
    });
    let _first = visit(&house.site, "/ws/trends/", [127, 0, 0, 1], ear);
    let second = came.recv_timeout(SOON).expect("somebody");
    for _ in 0..3 {
        assert!(second.hears().contains("\"seconds\": ["));
    }
}

// Frames.

/// The value of a name in a line of JSON that holds texts.
fn value<'a>(json: &'a str, name: &str) -> &'a str {
    let (_, rest) = json.split_once(&format!("\"{name}\": \"")).expect("a name");
    rest.split('"').next().expect("a value")
}

#[test]
fn each_watcher_has_a_token_of_its_own() {
    let house = House::new("tokens");
    let watchers = [(); 20].map(|()| house.visit("/ws/frames/"));
    let mut tokens = watchers.map(|watcher| value(&watcher.hears(), "token").to_string());
    tokens.sort();
    for pair in tokens.windows(2) {
        assert_ne!(pair[0], pair[1]);
        assert_eq!(
            (pair[0].len(), pair[0].bytes().all(|byte| byte.is_ascii_hexdigit())),
            (16, true)
        );
    }
}

#[test]
fn a_report_has_the_bytes_of_a_frame_with_and_without_the_mask() {
    // RFC 6455, section 5.7: a masked "Hello".
    let key = Some([0x37, 0xfa, 0x21, 0x3d]);
    let header = FrameHeader { fin: true, opcode: Opcode::Text, key, length: 5 };
    assert_eq!(
        report(&FrameSeen::new(Direction::In, header, b"Hello")),
        "{\"header\": \"818537fa213d\", \"length\": 5, \"payload\": \"48656c6c6f\", \
         \"way\": \"in\", \"wire\": \"7f9f4d5158\"}"
    );
}

/// The house on a socket, with its inspector where it belongs.
struct Served {
    running: Running,
    _house: House,
}

impl Served {
    fn start(name: &str, next: Arc<dyn SessionObserver>) -> Served {
        let inspector = Arc::new(Inspector::new(next));
        let house = House::with(name, &inspector);
        let server = Server::bind(Settings { port: 0, ..Settings::default() });
        let server = server.expect("a free port");
        let asgi = Asgi::start(Arc::clone(&house.site) as _, server.address()).expect("it starts");
        let gateway = WebSockets::new(Arc::new(asgi), SessionSettings::default());
        let running = server.start(Arc::new(gateway.observed_by(inspector)));
        Served { running, _house: house }
    }

    fn open(&self, target: &str) -> Peer {
        Peer::open(self.running.address, target)
    }
}

#[test]
fn a_watcher_that_does_not_read_is_cut_and_holds_nobody_up() {
    let served = Served::start("slow-watcher", Arc::new(()));
    let mut watcher = served.open("/ws/frames/");
    let (_, greeting) = watcher.frame().expect("a frame");
    let token = value(std::str::from_utf8(&greeting).expect("text"), "token").to_string();
    let mut peer = served.open(&format!("/ws/echo/?watch={token}"));
    let mut slowest = Duration::ZERO;
    for _ in 0..20_000 {
        let began = Instant::now();
        peer.send(BINARY, [7; 125]);
        assert_eq!(peer.frame(), Some((BINARY, vec![7; 125])));
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    // It finds what had been sent by then, without a hole, and an end: nobody waits for its pongs.
    let began = Instant::now();
    let rest = watcher.rest();
    assert!(began.elapsed() < SOON, "it was not cut");
    let mut ways: Vec<&str> = rest.split("\"way\": \"").skip(1).collect();
    ways.iter_mut().for_each(|way| *way = way.split('"').next().unwrap_or_default());
    assert!((100..40_000).contains(&ways.len()), "{}", ways.len());
    assert!(ways.chunks_exact(2).all(|pair| pair == ["in", "out"]));
}

#[test]
fn an_inspector_passes_on_what_it_is_told() {
    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);
    impl Notes {
        fn note(&self, words: impl Into<String>) {
            self.0.lock().expect("notes").push(words.into());
        }
    }
    impl SessionObserver for Notes {
        fn asked(&self, _: &Exchange) {
            self.note("asked");
        }
        fn refused(&self, _: &Exchange, status: Status) {
            self.note(format!("refused {}", status.code()));
        }
        fn accepted(&self, _: &Exchange, _: Option<&str>) {
            self.note("accepted");
        }
        fn closed(&self, _: &Exchange, closed: &Closed) {
            self.note(format!("closed {}", closed.code));
        }
    }
    let notes = Arc::new(Notes::default());
    let served = Served::start("notes", Arc::clone(&notes) as _);
    let head = Peer::ask(served.running.address, "/ws/nothing/", "").head();
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    // The answer comes before the note.
    let began = Instant::now();
    while notes.0.lock().expect("notes").len() < 2 && began.elapsed() < SOON {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(served.open("/ws/echo/").close(4001, ""), 4001);
    served.running.stop();
    let notes = notes.0.lock().expect("notes");
    assert_eq!(*notes, ["asked", "refused 404", "asked", "accepted", "closed 4001"]);
}

#[test]
#[ignore = "exercise 47.4"]
fn exercise_47_4_one_address_cannot_open_all_rooms() {
    let house = House::new("founders");
    let (one, other) = ([192, 0, 2, 1], [192, 0, 2, 2]);
    let come = |room: &str, from| {
        let target = format!("/ws/chat/{room}/?name=Ada");
        let visitor = visit(&house.site, &target, from, Ear::new());
        (visitor.hears().contains("has come"), visitor)
    };
    let mut rooms: Vec<Visitor> = Vec::new();
    for number in 0..10 {
        let (is_inside, visitor) = come(&format!("room{number}"), one);
        assert!(is_inside, "room {number}");
        rooms.push(visitor);
    }
    assert!(!come("one-too-many", one).0);
    // Others have not opened any, and a room that is there is open to all.
    let (is_inside, _others) = come("another", other);
    assert!(is_inside && come("another", one).0 && come("room3", other).0);
    // What one has left is given back.
    drop(rooms.pop());
    assert!(come("one-more", one).0);
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
