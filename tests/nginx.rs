//! Behind nginx, with the recipe of `README.md`. `cargo test --test nginx -- --ignored` starts
//! nginx from the PATH, as an ordinary user, with all its files in a temporary folder.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use glasshouse::http::exchange::Exchange;
use glasshouse::http::response::{Response, Status};
use glasshouse::http::server::{Running, Server as Library, Settings};
use glasshouse::running::command_line::Trusted;
use glasshouse::running::proxy::BehindProxy;
use support::client::{Answer, Client};
use support::process::Process;
use support::server::Server;
use support::watchdog::watchdog;
use support::websocket::{BINARY, Peer};

const RECIPE: &str = include_str!("nginx/glasshouse.conf");
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn the_readme_shows_the_recipe_that_is_tested_here() {
    let readme = include_str!("../README.md");
    let fence = format!("```nginx\n{RECIPE}```\n");
    assert!(readme.contains(&fence), "README.md does not show tests/nginx/glasshouse.conf");
}

/// What stands around the recipe: all that a package's own `nginx.conf` would say, but in a folder
/// of ours. One process, so that nothing is left when it is ended.
const FRAME: &str = "
daemon off;
master_process off;
pid nginx.pid;
error_log stderr warn;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include glasshouse.conf;
}
";

struct Nginx {
    address: SocketAddr,
    tls: Option<SocketAddr>,
    folder: PathBuf,
    process: Process,
}

impl Nginx {
    /// Starts it in front of a server at this address.
    fn start(server: &str) -> Nginx {
        Nginx::try_often(server, false)
    }

    /// The same, and it also listens at a port with TLS.
    fn start_with_tls(server: &str) -> Nginx {
        Nginx::try_often(server, true)
    }

    /// nginx cannot be told to take any free port, so somebody may be faster than we.
    fn try_often(server: &str, has_tls: bool) -> Nginx {
        for _ in 0..5 {
            let nginx = Nginx::try_once(server, has_tls);
            if nginx.answers() {
                return nginx;
            }
            let said = nginx.process.lines().join("\n");
            assert!(said.contains("Address already in use"), "nginx does not start:\n{said}");
        }
        panic!("no free port in five tries");
    }

    fn try_once(server: &str, has_tls: bool) -> Nginx {
        let (plain, secret) = (free_port(), free_port());
        let folder = format!("glasshouse-nginx-{}-{plain}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir(&folder).expect("a folder of our own");
        let mut recipe = replaced(RECIPE, "127.0.0.1:8000", server);
        recipe = replaced(&recipe, "listen 80;", &format!("listen 127.0.0.1:{plain};"));
        if has_tls {
            recipe = with_tls(&recipe, &folder, secret);
        }
        fs::write(folder.join("glasshouse.conf"), recipe).expect("a file");
        fs::write(folder.join("nginx.conf"), FRAME).expect("a file");
        let mut command = Command::new("nginx");
        let process = Process::spawn(command.arg("-p").arg(&folder).args(["-c", "nginx.conf"]));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, plain));
        let tls = has_tls.then_some(SocketAddr::from((Ipv4Addr::LOCALHOST, secret)));
        Nginx { address, tls, folder, process }
    }

    fn answers(&self) -> bool {
        let began = Instant::now();
        while began.elapsed() < LIMIT && !self.process.ended() {
            if TcpStream::connect(self.address).is_ok() {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// One request on a connection of its own.
    #[track_caller]
    fn get(&self, path: &str, fields: &str) -> Answer {
        let mut client = Client::connect(self.address);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: site.example\r\n{fields}\r\n"));
        client.answer().expect("an answer")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

#[track_caller]
fn replaced(text: &str, old: &str, new: &str) -> String {
    assert_eq!(text.matches(old).count(), 1, "{old} stands once in\n{text}");
    text.replace(old, new)
}

/// The lines about TLS, which are comments in the recipe, with a certificate made for this test.
fn with_tls(recipe: &str, folder: &Path, port: u16) -> String {
    let made = Command::new("openssl")
        .args("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=site.example".split(' '))
        .args(["-keyout", "site.key", "-out", "site.crt"])
        .current_dir(folder)
        .output()
        .expect("the program openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let recipe = replaced(recipe, "# listen 443 ssl;", &format!("listen 127.0.0.1:{port} ssl;"));
    let recipe = replaced(&recipe, "# ssl_certificate  ", "ssl_certificate");
    let recipe = replaced(&recipe, "# ssl_certificate_key ", "ssl_certificate_key");
    recipe.replace("/etc/ssl/", &format!(" {}/", folder.display()))
}

/// The program with WebSockets, as the README starts it.
fn site(more: &[&str]) -> Server {
    let flags = ["--workers", "2", "--forwarded-allow-ips", "127.0.0.1"];
    let server = Server::start(env!("CARGO_BIN_EXE_asgi_ws"), &[&flags, more].concat());
    server.wait_for("worker 1 ");
    server.wait_for("worker 2 ");
    server
}

/// A server that tells what it knows of a request: who asks, how, whom, and by which connection.
fn mirror() -> (Running, String) {
    let tell = |exchange: &mut Exchange| {
        let (client, peer) = (exchange.client.ip(), exchange.link.guest.peer.port());
        let (scheme, host) = (exchange.scheme, &exchange.head.host);
        let text = format!("{client} {scheme} {host} {peer}");
        exchange.respond(Response::text(Status::OK, text))
    };
    let believed = Trusted::These(vec![Ipv4Addr::LOCALHOST.into()]);
    let handler = BehindProxy::new(Arc::new(tell), believed);
    let settings = Settings { port: 0, ..Settings::default() };
    let server = Library::bind(settings).expect("a free port");
    let address = server.address().to_string();
    (server.start(Arc::new(handler)), address)
}

#[test]
#[ignore = "needs nginx"]
fn nginx_shows_the_site() {
    let _dog = watchdog(60, "the site through nginx");
    let server = site(&[]);
    let nginx = Nginx::start(&server.address());
    for path in ["/", "/healthz", "/static/style.css", "/template/?name=Ada", "/routes/"] {
        let answer = nginx.get(path, "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.head);
        assert!(answer.says("Server: glasshouse") || answer.head.contains("\r\nServer: nginx"));
    }
    let missing = nginx.get("/nothing/", "");
    assert_eq!(missing.status, 404);
    let moved = nginx.get("/routes", "");
    assert_eq!(moved.status, 301);
    assert!(!moved.head.contains(&server.address()), "our own address: {}", moved.head);
}

#[test]
#[ignore = "needs nginx"]
fn nginx_keeps_its_connections_to_us() {
    let _dog = watchdog(60, "reuse of upstream connections");
    let (server, address) = mirror();
    let nginx = Nginx::start(&address);
    let mut ports = BTreeSet::new();
    for _ in 0..50 {
        let answer = nginx.get("/", "").text();
        ports.insert(answer.rsplit(' ').next().expect("a port").to_string());
    }
    assert_eq!(ports.len(), 1, "fifty clients came by the connections {ports:?}");
    drop(nginx);
    server.stop();
}

#[test]
#[ignore = "needs nginx"]
fn nginx_tells_us_who_asks_and_nobody_can_lie_to_us() {
    let _dog = watchdog(60, "X-Forwarded-For");
    let (server, address) = mirror();
    let nginx = Nginx::start_with_tls(&address);
    let plain = nginx.get("/", "").text();
    assert!(plain.starts_with("127.0.0.1 http site.example "), "{plain}");
    // Our client is at an address that is believed, so it may tell of another: a proxy in front of
    // nginx would. But not of the scheme, which nginx itself has seen.
    let fields = "X-Forwarded-For: 203.0.113.9, 198.51.100.7\r\nX-Forwarded-Proto: https\r\n\
                  X-Forwarded-Host: other.example\r\nForwarded: for=192.0.2.1;proto=https\r\n";
    let chain = nginx.get("/", fields).text();
    assert!(chain.starts_with("198.51.100.7 http site.example "), "{chain}");
    let secret = nginx.tls.expect("a port with TLS");
    let fetched = Command::new("curl")
        .args(["-s", "-k", &format!("https://{secret}/")])
        .output()
        .expect("the program curl");
    let text = String::from_utf8_lossy(&fetched.stdout).into_owned();
    assert!(text.starts_with(&format!("127.0.0.1 https {secret} ")), "{text}");
    drop(nginx);
    server.stop();

    let server = site(&[]);
    let nginx = Nginx::start(&server.address());
    let page = nginx.get("/compare/", "X-Forwarded-For: 198.51.100.7\r\n").text();
    assert!(page.contains("<code>REMOTE_ADDR</code> 198.51.100.7<"), "{page}");
    server.wait_for("198.51.100.7 \"GET /compare/");
}

#[test]
#[ignore = "needs nginx"]
fn nginx_lets_a_websocket_through() {
    let _dog = watchdog(60, "a WebSocket through nginx");
    let server = site(&[]);
    let nginx = Nginx::start(&server.address());
    let mut peer = Peer::open(nginx.address, "/ws/echo/");
    for text in ["one", "two", ""] {
        peer.text(text);
        peer.hears(text);
    }
    let large = vec![7; 300_000];
    peer.send(BINARY, &large);
    assert!(peer.frame() == Some((BINARY, large)), "300,000 bytes come back");
    assert_eq!(peer.close(1000, ""), 1000);
    // The page's own origin, which is nginx's, may open one; another may not.
    for (origin, status) in [("http://a", 101), ("https://a", 101), ("http://b.example", 403)] {
        let mut peer = Peer::ask(nginx.address, "/ws/echo/", &format!("Origin: {origin}\r\n"));
        let head = peer.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{origin}: {head}");
    }
}

#[test]
#[ignore = "needs nginx"]
fn nginx_passes_an_upload_on() {
    let _dog = watchdog(60, "an upload through nginx");
    let uploads = std::env::temp_dir().join(format!("glasshouse-nginx-up-{}", std::process::id()));
    fs::create_dir(&uploads).expect("a folder of our own");
    let server = site(&["--uploads", &uploads.display().to_string()]);
    let nginx = Nginx::start(&server.address());
    let file: Vec<u8> = (0..5_000_000_u32).map(|at| ((at * 31) >> 3) as u8).collect();
    let mut form =
        b"--cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n".to_vec();
    form.extend(&file);
    form.extend(b"\r\n--cut--\r\n");
    let post = |path: &str, length: usize| {
        let kind = "Content-Type: multipart/form-data; boundary=cut";
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n{kind}\r\n\
             Content-Length: {length}\r\n\r\n"
        )
    };
    let mut client = Client::connect(nginx.address);
    client.send(post("/upload/", form.len()));
    client.send(&form);
    let answer = client.answer().expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.text().contains("5000000"), "{}", answer.text());
    let stored = fs::read_dir(&uploads).expect("the folder").flatten();
    let stored: Vec<PathBuf> =
        stored.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    assert_eq!(stored.len(), 1, "{stored:?}");
    assert!(fs::read(&stored[0]).expect("the file") == file, "another file");
    // More than both let through: the answer comes before the body does.
    let mut client = Client::connect(nginx.address);
    client.send(post("/upload/", 17 << 20));
    assert_eq!(client.answer().expect("an answer").status, 413);
    drop((nginx, server));
    let _ = fs::remove_dir_all(&uploads);
}

#[test]
#[ignore = "needs nginx"]
fn nginx_passes_a_large_download_on() {
    let _dog = watchdog(60, "a download through nginx");
    let server = site(&[]);
    let nginx = Nginx::start(&server.address());
    let mut client = Client::connect(nginx.address);
    client.send("GET /bytes/200000000/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let head = client.up_to("\r\n\r\n");
    assert!(head.contains("\r\nContent-Length: 200000000\r\n"), "{head}");
    // What came with the head is part of the body.
    let mut length = client.take_ahead().len();
    let mut block = vec![0; 256 * 1024];
    loop {
        let read = client.stream.read(&mut block).expect("more of the body");
        assert!(block[..read].iter().all(|byte| *byte == b'.'), "another body");
        length += read;
        if read == 0 {
            break;
        }
    }
    assert_eq!(length, 200_000_000);
}

#[test]
#[ignore = "needs nginx"]
fn nginx_lets_a_stream_flow() {
    let _dog = watchdog(60, "a stream through nginx");
    let server = site(&[]);
    let nginx = Nginx::start(&server.address());
    let mut client = Client::connect(nginx.address);
    let began = Instant::now();
    client.send("GET /stream/ HTTP/1.1\r\nHost: a\r\n\r\n");
    client.up_to("line 1 of 5");
    let first = began.elapsed();
    client.up_to("line 5 of 5");
    assert!(began.elapsed() - first > Duration::from_secs(3), "all lines came at once");
}

/// A server that closes an idle connection at the moment at which a request comes by it makes a 502
/// of a POST, which may not be sent again. RFC 9112, section 9.5. So nginx must close first.
#[test]
#[ignore = "needs nginx"]
fn nginx_never_says_502_to_two_thousand_requests() {
    const CLIENTS: u64 = 40;
    const REQUESTS: u64 = 50;
    let _dog = watchdog(90, "2,000 requests around the end of keep-alive");
    let server = site(&["--keep-alive", "5", "--access-log", "none"]);
    let nginx = Nginx::start(&server.address());
    let address = nginx.address;
    let talk = move |number: u64| {
        let mut client = Client::connect(address);
        let mut wrong = Vec::new();
        for request in 0..REQUESTS {
            // Once each of them pauses: from 3.5 s to 5.5 s, with both ends of keep-alive between.
            if request == REQUESTS / 2 {
                thread::sleep(Duration::from_millis(3_500 + 2_000 * number / CLIENTS));
            }
            client.send("POST /count/ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
            let answer = client.answer().expect("an answer");
            if answer.status != 200 || answer.text() != "3\n" {
                wrong.push(answer.status);
            }
        }
        wrong
    };
    let clients: Vec<_> = (0..CLIENTS).map(|number| thread::spawn(move || talk(number))).collect();
    let wrong: Vec<u16> =
        clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect();
    assert_eq!(wrong, Vec::<u16>::new());
}
