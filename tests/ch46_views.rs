//! Chapter 46: the pages. The site as a value in memory, without a network; the figures also
//! behind a server.

mod support;

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glasshouse::gateway::asgi::Asgi;
use glasshouse::http::server::{Server, Settings};
use glasshouse::site::figures::{Figures, SECONDS};
use glasshouse::site::uploads::Uploads;
use glasshouse::site::views::{SiteSettings, site};
use glasshouse::web::app::{App, TestClient};
use glasshouse::web::upload::Spool;
use glasshouse::websocket::consumer::{EchoConsumer, ProtocolRouter, ws_path};
use glasshouse::websocket::session::{SessionSettings, WebSockets};
use support::client::Client;
use support::watchdog::watchdog;
use support::websocket::Peer;

#[test]
fn exercises_start_red() {
    support::exercises_start_red();
}

/// The site, with a folder of its own for uploads.
struct House {
    app: App,
    folder: PathBuf,
}

fn house(name: &str, figures: &Arc<Figures>) -> House {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("ch46-{name}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    let spool = Spool::open(&folder.join(".spool")).expect("a spool");
    let settings = SiteSettings {
        templates: None,
        static_files: concat!(env!("CARGO_MANIFEST_DIR"), "/templates/static").into(),
        uploads: Arc::new(Uploads::new(folder.clone(), spool, 1000)),
        websockets: false,
        debug: true,
        address: ([127, 0, 0, 1], 8123).into(),
        figures: Arc::clone(figures),
        worker: (1, 1),
    };
    House { app: site(settings).expect("the site"), folder }
}

impl House {
    fn text(&self, target: &str) -> String {
        let answer = TestClient::new(&self.app).get(target);
        assert_eq!(answer.status.code(), 200, "{target}: {}", answer.text());
        answer.text().into_owned()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

// Figures.

#[test]
fn figures_are_counted_by_second_by_status_and_by_time() {
    let figures = Figures::default();
    let at = Duration::from_secs;
    for (second, status, micros) in
        [(0, 200, 50), (0, 204, 99), (0, 404, 100), (59, 500, 1_000_000), (59, 301, 999)]
    {
        figures.count(at(second), Some(status), Duration::from_micros(micros));
    }
    figures.count(at(59), None, Duration::from_micros(50));
    let snapshot = figures.snapshot_at(at(59));
    assert_eq!(snapshot.seconds.len(), SECONDS);
    assert_eq!((snapshot.seconds[0], snapshot.seconds[59]), (3, 3));
    assert_eq!(snapshot.seconds.iter().sum::<u64>(), 6);
    assert_eq!(snapshot.statuses, [0, 2, 1, 1, 1]);
    assert_eq!(snapshot.times, [3, 1, 1, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(snapshot.requests(), 6);
    assert_eq!(snapshot.quantile(0.5).as_deref(), Some("under 0.1 ms"));
    assert_eq!(snapshot.quantile(0.99).as_deref(), Some("1 s or more"));
    assert_eq!(Figures::default().snapshot().quantile(0.5), None);
    // A second later the first one is out of sight. Two minutes later all of them are.
    assert_eq!(figures.snapshot_at(at(60)).seconds.iter().sum::<u64>(), 3);
    assert_eq!(figures.snapshot_at(at(179)).seconds.iter().sum::<u64>(), 0);
    // A place of the ring that is used again begins anew.
    figures.count(at(59 + 61), Some(200), Duration::ZERO);
    assert_eq!(figures.snapshot_at(at(120)).seconds, [vec![0; 59], vec![1]].concat());
}

#[test]
fn no_count_is_lost_when_many_threads_count() {
    let figures = Figures::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for at in 0..10_000 {
                    let at = Duration::from_millis(at);
                    figures.count(at, Some(200), Duration::ZERO);
                }
            });
        }
    });
    let snapshot = figures.snapshot_at(Duration::from_secs(9));
    assert_eq!((snapshot.requests(), snapshot.statuses[1]), (40_000, 40_000));
    assert_eq!(snapshot.seconds.iter().sum::<u64>(), 40_000);
}

/// Serves WebSockets and nothing else, and counts.
fn counted() -> (Arc<Figures>, glasshouse::http::server::Running) {
    let figures = Arc::new(Figures::default());
    let server = Server::bind(Settings { port: 0, ..Settings::default() }).expect("a free port");
    let application = ProtocolRouter::new(App::new()).with(ws_path("ws/", EchoConsumer::new));
    let asgi = Asgi::start(Arc::new(application), server.address()).expect("it starts");
    let gateway = WebSockets::new(Arc::new(asgi), SessionSettings::default());
    let running = server.observed_by(Arc::clone(&figures) as _).start(Arc::new(gateway));
    (figures, running)
}

/// A connection is counted by its own thread, and may end after its client.
#[track_caller]
fn wait_until(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(5), "it never is so");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_no_application_sees_is_counted_too() {
    let _dog = watchdog(20, "figures");
    let (figures, running) = counted();
    let mut client = Client::connect(running.address);
    client.send("GET /\r\n\r\n");
    assert_eq!(client.answer().map(|answer| answer.status), Some(400));
    drop(client);
    wait_until(|| figures.snapshot().opened == 1 && figures.snapshot().open == 0);
    let snapshot = figures.snapshot();
    assert_eq!((snapshot.refused, snapshot.requests()), (1, 0));
    running.stop();
}

#[test]
fn a_long_conversation_is_no_slow_answer() {
    let _dog = watchdog(20, "figures");
    let (figures, running) = counted();
    let mut peer = Peer::open(running.address, "/ws/");
    std::thread::sleep(Duration::from_millis(20));
    peer.close(1000, "");
    wait_until(|| figures.snapshot().conversations == 1);
    let snapshot = figures.snapshot();
    assert_eq!((snapshot.requests(), snapshot.statuses[0]), (1, 1));
    assert_eq!(snapshot.times.iter().sum::<u64>(), 0);
    assert_eq!(snapshot.quantile(0.5), None);
    running.stop();
}

#[test]
fn the_highest_second_is_as_high_as_the_drawing() {
    let figures = Arc::new(Figures::default());
    let house = house("drawing", &figures);
    let empty = house.text("/trends/");
    assert_eq!(empty.matches("height=\"0.0\"").count(), SECONDS, "{empty}");
    for _ in 0..7 {
        figures.count(Duration::ZERO, Some(200), Duration::ZERO);
    }
    let page = house.text("/trends/");
    assert_eq!(page.matches("height=\"120.0\"><title>7</title>").count(), 1, "{page}");
    assert_eq!(page.matches("height=\"0.0\"").count(), SECONDS - 1, "{page}");
}

// The pages.

#[test]
fn a_command_in_a_page_leads_to_this_server() {
    let page = house("port", &Arc::default()).text("/trends/");
    assert!(page.contains("http://127.0.0.1:8123/trends/"), "{page}");
    assert!(!page.contains("127.0.0.1:8000"), "{page}");
}

#[test]
fn a_comparison_shows_both_calls_and_one_answer() {
    let house = house("compare", &Arc::default());
    let page = house.text("/compare/?name=Ada%3Cb%3E");
    for words in [
        "GET /compare/?name=Ada%3Cb%3E HTTP/1.1\\r\\n",
        "<code>QUERY_STRING</code> name=Ada%3Cb%3E</p>",
        "<code>query_string</code> b&quot;name=Ada%3Cb%3E&quot;</p>",
        "http.response.start: status 200",
        "The two answers are the same, byte by byte.",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(!page.contains("Ada<b>"), "{page}");
    // Its chunk is one chunk, and its iterable is closed once.
    assert_eq!(page.matches(">close()<").count(), 1, "{page}");
}

#[test]
fn a_stranger_s_name_is_text_and_no_script_of_a_page_would_run() {
    let house = house("stranger", &Arc::default());
    for target in ["/html/", "/template/", "/compare/html/"] {
        let target = format!("{target}?name=%3Cscript%3Ealert(1)%3C/script%3E");
        let answer = TestClient::new(&house.app).get(&target);
        assert!(!answer.text().contains("<script>alert"), "{target}: {}", answer.text());
        let policy = answer.field("Content-Security-Policy").unwrap_or_default();
        assert!(policy.starts_with("default-src 'self';"), "{target}: {policy:?}");
    }
}

#[test]
fn an_unknown_method_is_501_and_a_known_one_405() {
    let house = house("method", &Arc::default());
    let client = TestClient::new(&house.app);
    for (method, status) in [("BREW", 501), ("TRACE", 501), ("DELETE", 405), ("HEAD", 200)] {
        assert_eq!(client.request(method, "/", &[], b"").status.code(), status, "{method}");
    }
}

#[test]
fn one_look_at_the_page_hashes_only_so_much() {
    let house = house("hashed", &Arc::default());
    fs::write(house.folder.join("short"), "abc").expect("a file");
    // No byte of it is on the disk, but to hash it would take as long as if it were.
    let long = File::create(house.folder.join("long")).expect("a file");
    long.set_len(64 * 1024 * 1024 + 1).expect("a long file");
    let page = house.text("/upload/");
    assert!(page.contains("a9993e364706816aba3e25717850c26c9cd0d89d"), "{page}");
    assert_eq!(page.matches("class=\"digest\"").count(), 1, "{page}");
    assert_eq!(page.matches("not computed").count(), 1, "{page}");
}

#[test]
#[ignore = "exercise 46.3"]
fn exercise_46_3_robots_are_told_where_not_to_go() {
    let house = house("robots", &Arc::default());
    let answer = TestClient::new(&house.app).get("/robots.txt");
    assert_eq!(answer.status.code(), 200);
    assert_eq!(answer.field("Content-Type"), Some("text/plain; charset=utf-8"));
    let text = answer.text();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("User-agent: *"), "{text}");
    let rest: Vec<&str> = lines.collect();
    for page in ["/panic/", "/sleep/", "/bytes/"] {
        assert!(rest.contains(&format!("Disallow: {page}").as_str()), "{page}: {text}");
    }
}
