//! Chapter 35: consumers. First in memory, with handles made by hand; then on sockets.

mod support;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use glasshouse::gateway::asgi::{
    Application, Asgi, Emit, Event, HttpScope, Payload, Receive, Remote, Scope, State,
};
use glasshouse::gateway::wsgi::Exception;
use glasshouse::http::headers::Headers;
use glasshouse::http::request::{HeadLimits, HeadParser, Parse};
use glasshouse::http::server::{Running, Server, Settings};
use glasshouse::web::app::App;
use glasshouse::websocket::consumer::{
    Channel, Connected, EchoConsumer, Group, Groups, Knock, ProtocolRouter, WebSocketConsumer,
    ws_path,
};
use glasshouse::websocket::session::{SessionError, SessionSettings, WebSockets, is_over};
use glasshouse::websocket::sha1::{Sha1, hex};
use support::watchdog::{Watchdog, watchdog};
use support::websocket::{BINARY, Peer};

/// A conversation in memory: what the client will say, and what it has been told.
#[derive(Default)]
struct Memory {
    says: VecDeque<Event>,
    hears: Arc<Heard>,
}

/// What can be said to a client, and how much of it may wait.
#[derive(Default)]
struct Heard {
    events: Mutex<Vec<Event>>,
    /// The client has gone.
    gone: AtomicUsize,
    /// `post` takes so many messages; 0 means any number.
    room: usize,
}

impl Receive for Memory {
    fn receive(&mut self) -> Result<Event, Exception> {
        Ok(self.says.pop_front().ok_or("the test says no more")?)
    }
}

impl Emit for Memory {
    fn send(&mut self, event: Event) -> Result<(), Exception> {
        self.hears.send(event)
    }

    fn share(&self) -> Option<Arc<dyn Remote>> {
        Some(Arc::clone(&self.hears) as Arc<dyn Remote>)
    }
}

impl Remote for Heard {
    fn send(&self, event: Event) -> Result<(), Exception> {
        if self.gone.load(Ordering::SeqCst) > 0 {
            return Err(io::Error::new(ErrorKind::BrokenPipe, SessionError::Over).into());
        }
        self.events.lock().expect("events").push(event);
        Ok(())
    }

    fn post(&self, event: Event) -> Result<(), Exception> {
        let waiting = self.events.lock().expect("events").len();
        if self.room > 0 && waiting >= self.room {
            return Err(io::Error::from(ErrorKind::WouldBlock).into());
        }
        self.send(event)
    }

    fn cut(&self) {
        self.gone.fetch_add(1, Ordering::SeqCst);
    }
}

fn scope(target: &str) -> HttpScope {
    let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let Ok(Parse::Complete { value, .. }) =
        HeadParser::new(HeadLimits::default()).advance(head.as_bytes())
    else {
        panic!("no head: {head}");
    };
    let address = SocketAddr::from(([127, 0, 0, 1], 8000));
    let path = value.target.path().to_string();
    HttpScope {
        head: Arc::new(value),
        path,
        root_path: String::new(),
        scheme: "ws",
        client: address,
        server: address,
        state: State::new(),
    }
}

fn text(text: &str) -> Event {
    Event::WebsocketReceive(Payload::Text(text.into()))
}

fn bytes(bytes: &[u8]) -> Event {
    Event::WebsocketReceive(Payload::Bytes(bytes.into()))
}

fn gone(code: u16) -> Event {
    Event::WebsocketDisconnect(code, String::new())
}

/// Lets a client with these subprotocols connect and say this. What it has been told, a word each,
/// and how the application has ended.
#[track_caller]
fn play(
    site: &ProtocolRouter,
    target: &str,
    subprotocols: &[&str],
    says: &[Event],
) -> (Vec<String>, Result<(), String>) {
    let mut receive = Memory::default();
    receive.says.push_back(Event::WebsocketConnect);
    receive.says.extend(says.iter().cloned());
    let mut send = Memory { says: VecDeque::new(), hears: Arc::clone(&receive.hears) };
    let subprotocols = subprotocols.iter().map(ToString::to_string).collect();
    let scope = Scope::WebSocket(scope(target), subprotocols);
    let result = site.call(&scope, &mut receive, &mut send);
    let heard = receive.hears.events.lock().expect("events").iter().map(words).collect();
    (heard, result.map_err(|error| error.to_string()))
}

fn words(event: &Event) -> String {
    match event {
        Event::WebsocketAccept { subprotocol: Some(name), .. } => format!("accept {name}"),
        Event::WebsocketAccept { .. } => "accept".to_string(),
        Event::WebsocketSend(Payload::Text(text)) => text.clone(),
        Event::WebsocketSend(Payload::Bytes(bytes)) => format!("{bytes:?}"),
        Event::WebsocketClose(code, reason) => format!("close {code} {reason}"),
        Event::HttpResponseStart { status, .. } => status.to_string(),
        Event::HttpResponseBody { body, .. } => String::from_utf8_lossy(body).into_owned(),
        other => other.name().to_string(),
    }
}

fn site() -> ProtocolRouter {
    ProtocolRouter::new(App::new().get("", |_| "home"))
}

#[test]
fn an_echo_says_the_same_again() {
    let site = site().with(ws_path("ws/echo/", EchoConsumer::new));
    let says = [text("one"), bytes(&[1, 2]), text(""), gone(1000)];
    let (heard, result) = play(&site, "/ws/echo/", &[], &says);
    assert_eq!(heard, ["accept", "one", "[1, 2]", ""]);
    assert_eq!(result, Ok(()));
}

/// Writes down what happens to it.
struct Diary {
    lines: Sender<String>,
}

impl Diary {
    fn note(&self, line: impl Into<String>) {
        let _ = self.lines.send(line.into());
    }
}

impl WebSocketConsumer for Diary {
    fn connect(&mut self, knock: Knock) -> Connected {
        let query = knock.query()?.get("as").unwrap_or("nobody").to_string();
        self.note(format!("{} {query}", knock.parameters.get("room")));
        match knock.subprotocols {
            [] => knock.accept(),
            [only] if only == "none" => knock.refuse(403, "Not you."),
            [only] if only == "fail" => Err("no luck".into()),
            [first, ..] => knock.accept_with(Some(first), Headers::new()),
        }
    }

    fn receive(&mut self, text: String, channel: &Channel) -> Result<(), Exception> {
        match text.as_str() {
            "fail" => Err("no luck".into()),
            "panic" => panic!("as it was asked to"),
            "close" => channel.close(4000, "as you wish"),
            "cut" => {
                channel.cut();
                channel.send_text("too late")
            }
            _ => {
                self.note(text);
                Ok(())
            }
        }
    }

    fn disconnect(&mut self, code: u16) {
        self.note(format!("disconnect {code}"));
    }
}

impl Drop for Diary {
    fn drop(&mut self) {
        self.note("dropped");
    }
}

/// One visit to a diary: what it has noted, what the client heard, how it ended.
#[track_caller]
fn visit(subprotocols: &[&str], says: &[Event]) -> (Vec<String>, Vec<String>, Result<(), String>) {
    let (lines, noted) = channel();
    let lines = Mutex::new(lines);
    let make = move || Diary { lines: lines.lock().expect("a diary").clone() };
    let site = site().with(ws_path("ws/<str:room>/", make));
    let (heard, result) = play(&site, "/ws/blue/?as=Ada", subprotocols, says);
    drop(site);
    (noted.iter().collect(), heard, result)
}

#[test]
fn a_consumer_is_made_for_each_client_told_all_and_dropped() {
    let (noted, heard, result) = visit(&[], &[text("one"), text("two"), gone(1001)]);
    assert_eq!(noted, ["blue Ada", "one", "two", "disconnect 1001", "dropped"]);
    assert_eq!((heard, result), (vec!["accept".to_string()], Ok(())));
}

#[test]
fn a_consumer_may_choose_a_subprotocol_or_refuse() {
    let (_, heard, _) = visit(&["chat", "superchat"], &[gone(1000)]);
    assert_eq!(heard, ["accept chat"]);
    let (noted, heard, result) = visit(&["none"], &[]);
    assert_eq!(noted, ["blue Ada", "dropped"]);
    assert_eq!((heard, result), (vec!["403".into(), "Not you.\n".into()], Ok(())));
    let (noted, heard, result) = visit(&["fail"], &[]);
    assert_eq!(noted, ["blue Ada", "dropped"]);
    assert_eq!((heard, result), (vec![], Err("no luck".into())));
}

#[test]
fn disconnect_is_called_once_whoever_ends_it() {
    let (noted, heard, result) = visit(&[], &[text("close"), gone(4000)]);
    assert_eq!(noted, ["blue Ada", "disconnect 4000", "dropped"]);
    assert_eq!(heard, ["accept", "close 4000 as you wish"]);
    assert_eq!(result, Ok(()));
    let (noted, _, result) = visit(&[], &[text("fail"), text("never seen"), gone(1000)]);
    assert_eq!(noted, ["blue Ada", "disconnect 1011", "dropped"]);
    assert_eq!(result, Err("no luck".into()));
    // A client that has gone is no failure; what it said before still counts.
    let (noted, _, result) = visit(&[], &[text("cut"), text("before"), gone(1006)]);
    assert_eq!(noted, ["blue Ada", "before", "disconnect 1006", "dropped"]);
    assert_eq!(result, Ok(()));
}

#[test]
fn what_a_consumer_does_not_expect_ends_with_1003() {
    struct Deaf;
    impl WebSocketConsumer for Deaf {}
    let site = site().with(ws_path("ws/", || Deaf));
    let (heard, _) = play(&site, "/ws/", &[], &[text("x"), gone(1003)]);
    assert_eq!(heard, ["accept", "close 1003 no text is expected here"]);
    let (heard, _) = play(&site, "/ws/", &[], &[bytes(b"x"), gone(1003)]);
    assert_eq!(heard, ["accept", "close 1003 no bytes are expected here"]);
}

#[test]
fn an_unknown_path_is_404_and_a_slash_is_missed() {
    let site = site().with(ws_path("ws/<int:room>/", EchoConsumer::new));
    for (target, words) in [
        ("/ws/blue/", "There is no WebSocket at this address.\n"),
        ("/", "There is no WebSocket at this address.\n"),
        ("/ws/7", "There is a WebSocket with a slash behind it.\n"),
    ] {
        let (heard, result) = play(&site, target, &[], &[]);
        assert_eq!((heard, result), (vec!["404".to_string(), words.to_string()], Ok(())));
    }
}

#[test]
#[should_panic(expected = "begins with a slash")]
fn a_malformed_pattern_is_found_when_the_program_starts() {
    ws_path("/ws/", EchoConsumer::new);
}

/// A channel to a client in memory, and what it hears.
fn member(room: usize) -> (Channel, Arc<Heard>) {
    let heard = Arc::new(Heard { room, ..Heard::default() });
    (Channel::new(Arc::clone(&heard) as Arc<dyn Remote>), heard)
}

fn said(heard: &Heard) -> Vec<String> {
    heard.events.lock().expect("events").iter().map(words).collect()
}

fn message(text: &str) -> Payload {
    Payload::Text(text.to_string())
}

#[test]
fn members_hear_what_is_said_while_they_are_there() {
    let group = Group::new();
    assert_eq!(group.broadcast(&message("nobody hears it")), 0);
    let ((one, first), (two, second)) = (member(0), member(0));
    group.join(&one);
    group.join(&one);
    assert_eq!(group.broadcast(&message("one")), 1);
    group.join(&two.clone());
    assert_eq!(group.broadcast(&message("both")), 2);
    group.leave(&one);
    group.leave(&one);
    assert_eq!(group.broadcast(&Payload::Bytes(vec![7])), 1);
    assert_eq!(
        (said(&first), said(&second)),
        (vec!["one".to_string(), "both".into()], vec!["both".to_string(), "[7]".into()],)
    );
}

#[test]
fn a_slow_member_is_cut_and_one_that_has_gone_is_forgotten() {
    let group = Group::new();
    let ((quick, hears), (slow, hears_little), (lost, hears_nothing)) =
        (member(0), member(2), member(0));
    [&quick, &slow, &lost].iter().for_each(|channel| group.join(channel));
    lost.cut();
    assert_eq!(group.broadcast(&message("1")), 2);
    assert_eq!(group.broadcast(&message("2")), 2);
    assert_eq!(group.broadcast(&message("3")), 1);
    assert_eq!(group.len(), 1);
    assert_eq!(said(&hears), ["1", "2", "3"]);
    assert_eq!(
        (said(&hears_little), said(&hears_nothing).len()),
        (vec!["1".into(), "2".into()], 0)
    );
    assert!(is_over(&slow.send_text("x").expect_err("it is cut")));
    assert_eq!(hears.gone.load(Ordering::SeqCst), 0);
}

#[test]
fn all_members_hear_all_broadcasts_in_the_same_order() {
    let group = Group::new();
    let members: Vec<_> = (0..10).map(|_| member(0)).collect();
    members.iter().for_each(|(channel, _)| group.join(channel));
    thread::scope(|threads| {
        for thread in 0..4 {
            let group = group.clone();
            threads.spawn(move || {
                for number in 0..100 {
                    group.broadcast(&message(&format!("{thread}.{number}")));
                }
            });
        }
    });
    let first = said(&members[0].1);
    assert_eq!(first.len(), 400);
    members.iter().for_each(|(_, heard)| assert_eq!(said(heard), first));
}

#[test]
fn groups_have_names_and_empty_ones_are_forgotten() {
    let groups = Groups::new();
    assert!(groups.is_empty());
    let ((one, first), (two, second)) = (member(0), member(0));
    groups.get("blue").join(&one);
    groups.clone().get("red").join(&two);
    groups.get("blue").broadcast(&message("blue"));
    assert_eq!((said(&first).len(), said(&second).len()), (1, 0));
    // A name that somebody holds is not forgotten, though nobody has joined yet.
    let held = groups.get("green");
    (0..1000).for_each(|number| assert!(groups.get(&number.to_string()).is_empty()));
    held.join(&two);
    assert_eq!(groups.get("green").len(), 1);
    assert_eq!(groups.len(), 3);
    groups.get("blue").leave(&one);
    groups.get("red").leave(&two);
    held.leave(&two);
    drop(held);
    groups.get("green");
    assert!(groups.len() == 1 && !groups.is_empty());
}

/// A site on a socket.
struct Site {
    running: Running,
    _dog: Watchdog,
}

impl Site {
    #[track_caller]
    fn start(site: ProtocolRouter) -> Site {
        let settings = Settings { port: 0, ..Settings::default() };
        let server = Server::bind(settings).expect("a free port");
        let asgi = Asgi::start(Arc::new(site), server.address()).expect("it starts");
        let gateway = WebSockets::new(Arc::new(asgi), SessionSettings::default());
        let running = server.start(Arc::new(gateway));
        Site { running, _dog: watchdog(60, "consumers") }
    }

    fn open(&self, target: &str) -> Peer {
        Peer::open(self.running.address, target)
    }
}

#[test]
fn pages_and_consumers_live_behind_one_address() {
    let lives = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lives);
    let app = App::new().get("", |_| "home").get("ws/echo", |_| "a page");
    let requests = move |scope: &Scope, receive: &mut dyn Receive, send: &mut dyn Emit| {
        if let Scope::Lifespan = scope {
            seen.lock().expect("events").push(receive.receive()?.name());
        }
        app.call(scope, receive, send)
    };
    let site =
        Site::start(ProtocolRouter::new(requests).with(ws_path("ws/echo/", EchoConsumer::new)));
    let mut client = support::client::Client::connect(site.running.address);
    for (path, wanted) in [("/", "home"), ("/ws/echo", "a page")] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.answer().expect("an answer").text(), wanted);
    }
    // An ordinary request where only a WebSocket is.
    client.send("GET /ws/echo/ HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.answer().expect("an answer");
    assert_eq!(answer.status, 426);
    assert!(answer.says("Upgrade: websocket"), "{}", answer.head);
    client.send(support::websocket::handshake("/ws/", ""));
    let answer = client.answer().expect("an answer");
    assert_eq!(answer.status, 404);
    assert!(answer.says("Content-Type: text/plain; charset=utf-8"), "{}", answer.head);
    let mut peer = site.open("/ws/echo/");
    peer.text("Hello");
    peer.hears("Hello");
    assert_eq!(peer.close(1000, ""), 1000);
    assert_eq!(*lives.lock().expect("events"), ["lifespan.startup"]);
}

/// A room of a chat.
struct Chat {
    groups: Groups,
    room: Option<(Group, Channel)>,
}

impl Chat {
    fn say(&self, text: String) {
        if let Some((group, _)) = &self.room {
            group.broadcast(&Payload::Text(text));
        }
    }
}

impl WebSocketConsumer for Chat {
    fn connect(&mut self, knock: Knock) -> Connected {
        let group = self.groups.get(knock.parameters.get("room"));
        let channel = knock.accept()?;
        group.join(&channel);
        self.room = Some((group, channel.clone()));
        self.say("somebody has come".to_string());
        Ok(channel)
    }

    fn receive(&mut self, text: String, _: &Channel) -> Result<(), Exception> {
        self.say(text);
        Ok(())
    }

    fn disconnect(&mut self, code: u16) {
        if let Some((group, channel)) = &self.room {
            group.leave(channel);
        }
        self.say(format!("somebody has gone: {code}"));
    }
}

#[test]
fn a_chat_has_rooms() {
    let groups = Groups::new();
    let make = move || Chat { groups: groups.clone(), room: None };
    let site = Site::start(site().with(ws_path("ws/chat/<str:room>/", make)));
    let mut ada = site.open("/ws/chat/blue/");
    ada.hears("somebody has come");
    let mut ben = site.open("/ws/chat/blue/");
    let mut cleo = site.open("/ws/chat/red/");
    ada.hears("somebody has come");
    ben.hears("somebody has come");
    cleo.hears("somebody has come");
    ada.text("Hello");
    ada.hears("Hello");
    ben.hears("Hello");
    ben.close(4001, "");
    ada.hears("somebody has gone: 4001");
    cleo.text("all alone");
    cleo.hears("all alone");
}

#[test]
fn one_who_does_not_read_holds_nobody_up() {
    let groups = Groups::new();
    let make = move || Chat { groups: groups.clone(), room: None };
    let site = Site::start(site().with(ws_path("ws/chat/<str:room>/", make)));
    let mut sleeper = site.open("/ws/chat/blue/");
    // It has joined before anybody else comes.
    sleeper.hears("somebody has come");
    let mut ada = site.open("/ws/chat/blue/");
    ada.hears("somebody has come");
    let line = "x".repeat(64 * 1024);
    let mut slowest = Duration::ZERO;
    for _ in 0..300 {
        let began = Instant::now();
        ada.text(&line);
        loop {
            let (_, heard) = ada.frame().expect("a frame");
            if heard.len() == line.len() {
                break;
            }
            assert_eq!(heard, b"somebody has gone: 1006");
        }
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    // It was shown out, and finds what had been sent by then, and an end without a close.
    let rest = sleeper.rest();
    assert!(rest.len() < 300 * line.len(), "it has heard all");
}

/// Tells the time, so to speak, until nobody listens any more.
struct Clock {
    stopped: Sender<u32>,
}

impl WebSocketConsumer for Clock {
    fn connect(&mut self, knock: Knock) -> Connected {
        let (channel, stopped) = (knock.accept()?, self.stopped.clone());
        let own = channel.clone();
        thread::spawn(move || {
            let mut ticks = 0;
            while own.send_text(ticks.to_string()).is_ok() {
                ticks += 1;
                thread::sleep(Duration::from_millis(5));
            }
            stopped.send(ticks)
        });
        Ok(channel)
    }
}

#[test]
fn a_thread_may_send_at_any_time_and_hears_when_nobody_listens() {
    let (stopped, has_stopped) = channel();
    let stopped = Mutex::new(stopped);
    let make = move || Clock { stopped: stopped.lock().expect("a sender").clone() };
    let site = Site::start(site().with(ws_path("ws/clock/", make)));
    let mut peer = site.open("/ws/clock/");
    (0..10).for_each(|number| peer.hears(&number.to_string()));
    drop(peer);
    let ticks = has_stopped.recv_timeout(Duration::from_secs(5)).expect("it stops");
    assert!(ticks >= 10);
}

/// Takes a file in pieces, and says what has come so far.
struct Upload {
    sha1: Sha1,
    size: usize,
}

impl WebSocketConsumer for Upload {
    fn receive_binary(&mut self, bytes: Vec<u8>, channel: &Channel) -> Result<(), Exception> {
        self.sha1.update(&bytes);
        self.size += bytes.len();
        channel.send_text(self.size.to_string())
    }

    fn receive(&mut self, text: String, channel: &Channel) -> Result<(), Exception> {
        let digest = std::mem::replace(&mut self.sha1, Sha1::new()).finish();
        channel.send_text(format!("{text} {}", hex(&digest)))
    }
}

#[test]
fn each_connection_has_a_state_of_its_own() {
    let make = || Upload { sha1: Sha1::new(), size: 0 };
    let site = Site::start(site().with(ws_path("ws/upload/", make)));
    let mut peers = [site.open("/ws/upload/"), site.open("/ws/upload/")];
    for peer in &mut peers {
        peer.send(BINARY, b"a");
        peer.hears("1");
    }
    for peer in &mut peers {
        peer.send(BINARY, b"bc");
        peer.hears("3");
        peer.text("done");
        peer.hears("done a9993e364706816aba3e25717850c26c9cd0d89d");
    }
}

#[test]
fn a_consumer_that_panics_hurts_nobody_else() {
    struct Bomb(Group);
    impl WebSocketConsumer for Bomb {
        fn connect(&mut self, knock: Knock) -> Connected {
            let channel = knock.accept()?;
            self.0.join(&channel);
            Ok(channel)
        }

        fn receive(&mut self, text: String, _: &Channel) -> Result<(), Exception> {
            assert!(text != "bang", "as it was asked to");
            self.0.broadcast(&Payload::Text(text));
            Ok(())
        }
    }
    let group = Group::new();
    let own = group.clone();
    let site = Site::start(site().with(ws_path("ws/", move || Bomb(own.clone()))));
    let (mut one, mut other) = (site.open("/ws/"), site.open("/ws/"));
    one.text("bang");
    assert_eq!(one.end().0, 1011);
    other.text("still here");
    other.hears("still here");
    assert_eq!(group.len(), 1);
}

#[test]
#[ignore = "exercise 35.2"]
fn exercise_35_2_a_consumer_that_panics_is_told_of_the_end_too() {
    let (noted, _, result) = visit(&[], &[text("panic"), text("never seen")]);
    assert_eq!(noted, ["blue Ada", "disconnect 1011", "dropped"]);
    assert!(result.is_err());
}

#[test]
#[ignore = "exercise 35.4"]
fn exercise_35_4_a_404_says_which_websockets_there_are() {
    let site = site()
        .with(ws_path("ws/<int:room>/", EchoConsumer::new))
        .with(ws_path("ws/echo/", EchoConsumer::new));
    let (heard, _) = play(&site, "/ws/blue/", &[], &[]);
    assert_eq!(heard[0], "404");
    assert!(heard[1].contains("/ws/<int:room>/") && heard[1].contains("/ws/echo/"), "{}", heard[1]);
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
