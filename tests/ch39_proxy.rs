//! Chapter 39: behind a proxy.

mod support;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use glasshouse::gateway::asgi::{Asgi, Emit, Event, Receive, Scope};
use glasshouse::gateway::wsgi::{Chunks, Environ, Exception, StartResponse, Wsgi};
use glasshouse::http::exchange::Handler;
use glasshouse::http::headers::Headers;
use glasshouse::http::server::{Running, Server, Settings};
use glasshouse::running::command_line::Trusted;
use glasshouse::running::proxy::{BehindProxy, Forwarded};
use support::client::Client;
use support::watchdog::watchdog;

fn trusted(addresses: &[&str]) -> Trusted {
    let ip = |text: &&str| text.parse::<IpAddr>().expect("an address");
    Trusted::These(addresses.iter().map(ip).collect())
}

fn headers(fields: &[(&str, &str)]) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in fields {
        headers.try_push(name, value).expect("a field");
    }
    headers
}

/// What is read from these fields, when 10.0.0.1 and 10.0.0.2 are our proxies: client, scheme and
/// host, with a dash for each that is not known.
fn read(fields: &[(&str, &str)]) -> String {
    let said = Forwarded::read(&headers(fields), &trusted(&["10.0.0.1", "10.0.0.2"]));
    let client = said.client.map_or("-".to_string(), |client| client.to_string());
    format!("{client} {} {}", said.scheme.unwrap_or("-"), said.host.as_deref().unwrap_or("-"))
}

#[test]
fn the_client_is_the_rightmost_address_that_is_no_proxy() {
    for (list, want) in [
        ("198.51.100.7", "198.51.100.7:0"),
        ("198.51.100.7, 10.0.0.1", "198.51.100.7:0"),
        ("203.0.113.9, 198.51.100.7, 10.0.0.1, 10.0.0.2", "198.51.100.7:0"),
        ("10.0.0.1, 198.51.100.7", "198.51.100.7:0"),
        // All are ours: the first of them has asked by itself.
        ("10.0.0.2,10.0.0.1", "10.0.0.2:0"),
        ("2001:db8::17", "[2001:db8::17]:0"),
        ("[2001:db8::17]:4711", "[2001:db8::17]:4711"),
        ("198.51.100.7:80", "198.51.100.7:80"),
        // Nothing between two commas is no element.
        (",203.0.113.9,, 198.51.100.7 ,\t, 10.0.0.1,", "198.51.100.7:0"),
    ] {
        let want = format!("{want} - -");
        assert_eq!(read(&[("X-Forwarded-For", list)]), want, "{list}");
        let node = |node: &str| match node.trim() {
            "" => node.to_string(),
            node if node.contains(':') && !node.contains("[") && node.contains("::") => {
                format!("for=\"[{node}]\"")
            }
            node => format!("For = \"{node}\""),
        };
        let standard: Vec<String> = list.split(',').map(node).collect();
        assert_eq!(read(&[("Forwarded", &standard.join(" , "))]), want, "{standard:?}");
    }
}

#[test]
fn several_lines_are_one_list() {
    let lines = [("X-Forwarded-For", "203.0.113.9"), ("x-forwarded-for", "198.51.100.7, 10.0.0.1")];
    assert_eq!(read(&lines), "198.51.100.7:0 - -");
    let lines = [("Forwarded", "for=203.0.113.9"), ("Forwarded", "for=198.51.100.7;proto=HTTPS")];
    assert_eq!(read(&lines), "198.51.100.7:0 https -");
}

// RFC 7239, section 6.3
#[test]
fn a_hidden_port_hides_no_address() {
    assert_eq!(read(&[("Forwarded", "for=\"203.0.113.9:_port\"")]), "203.0.113.9:0 - -");
    assert_eq!(read(&[("Forwarded", "for=\"[2001:db8::9]:_\"")]), "[2001:db8::9]:0 - -");
}

#[test]
fn what_is_no_address_ends_the_chain() {
    for (list, want) in [
        ("unknown", "-"),
        ("_hidden:_hidden", "-"),
        ("203.0.113.9, unknown", "-"),
        ("203.0.113.9, _hidden, 10.0.0.1", "10.0.0.1:0"),
        ("203.0.113.9, 999.1.1.1, 10.0.0.2", "10.0.0.2:0"),
        ("\"203.0.113.9\"", "-"),
        ("203.0.113.9\u{e9}", "-"),
        (",", "-"),
        ("", "-"),
    ] {
        assert_eq!(read(&[("X-Forwarded-For", list)]), format!("{want} - -"), "{list}");
    }
}

#[test]
fn scheme_and_host_are_those_that_the_nearest_proxy_has_written() {
    let read = |proto, host| read(&[("X-Forwarded-Proto", proto), ("X-Forwarded-Host", host)]);
    assert_eq!(read("https", "shop.example"), "- https shop.example");
    assert_eq!(read("http, HTTPS", "evil.example, shop.example:8443"), "- https shop.example:8443");
    assert_eq!(read("", "[::1]:80"), "- - [::1]:80");
    assert_eq!(read("", "my-shop_1.example"), "- - my-shop_1.example");
    for (proto, host) in [("gopher", "a b"), ("https http", "a/b"), ("", "<script>"), ("1", "a@b")]
    {
        assert_eq!(read(proto, host), "- - -", "{proto} {host}");
    }
}

#[test]
fn the_standard_field_is_read_as_its_examples_are_written() {
    for (value, want) in [
        // RFC 7239, section 4.
        ("for=\"_gazonk\"", "- - -"),
        ("For=\"[2001:db8:cafe::17]:4711\"", "[2001:db8:cafe::17]:4711 - -"),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60:0 http -"),
        ("for=192.0.2.43, for=198.51.100.17", "198.51.100.17:0 - -"),
        // Commas and semicolons in quotation marks are no marks.
        ("for=192.0.2.43;host=\"a.example\";x=\"a,b;for=1.2.3.4\"", "192.0.2.43:0 - a.example"),
        ("for=192.0.2.43;x=\"\\\",for=1.2.3.4\"", "192.0.2.43:0 - -"),
        ("for=192.0.2.43;x=\"a,b\\\\\\\"\"", "192.0.2.43:0 - -"),
        ("for=\"1\\92.0.2.43\"", "192.0.2.43:0 - -"),
        // A pair may be empty, and outside of quotation marks a backslash is a letter.
        (";for=192.0.2.43;nonsense;x=\\;proto=http", "192.0.2.43:0 http -"),
        ("proto=https;host=a.example, for=10.0.0.1", "10.0.0.1:0 https a.example"),
        // Without an end of the quotation nobody knows what belongs to what.
        ("for=192.0.2.43;x=\"", "- - -"),
        ("for=\"192.0.2.43", "- - -"),
        ("nonsense;;,=,for", "- - -"),
        // These are not empty, and say nothing.
        ("for=198.51.100.7, ;, for=10.0.0.1", "10.0.0.1:0 - -"),
        ("for=198.51.100.7, \"\", for=10.0.0.1", "10.0.0.1:0 - -"),
        ("for=198.51.100.7, \u{a0}, for=10.0.0.1", "10.0.0.1:0 - -"),
    ] {
        assert_eq!(read(&[("Forwarded", value)]), want, "{value}");
    }
}

#[test]
fn what_a_client_leaves_open_hides_nothing_of_what_the_proxies_have_written() {
    for true_words in [
        "for=198.51.100.7;proto=https;host=a.example, for=10.0.0.1",
        "for=\"198.51.100.7\";proto=https;host=\"a.example\";x=\"a,\\\"b\\\\\", for=\"10.0.0.1\"",
    ] {
        for lie in
            ["for=\"", "for=\"192.0.2.43", "\"", "\"\\", "x=\"a\\\"", "\\\"", ",\",", "\u{e9}=\""]
        {
            let want = "198.51.100.7:0 https a.example";
            let lines = [("Forwarded", lie), ("Forwarded", true_words)];
            assert_eq!(read(&lines), want, "{lines:?}");
            let line = format!("{lie}, {true_words}");
            assert_eq!(read(&[("Forwarded", &line)]), want, "{line}");
        }
    }
}

#[test]
fn the_standard_field_is_not_read_where_there_is_one_of_the_others() {
    let standard = ("Forwarded", "for=203.0.113.9;proto=https;host=evil.example");
    assert_eq!(read(&[standard]), "203.0.113.9:0 https evil.example");
    assert_eq!(read(&[standard, ("X-Forwarded-For", "198.51.100.7")]), "198.51.100.7:0 - -");
    assert_eq!(read(&[standard, ("X-Forwarded-Proto", "http")]), "- http -");
}

#[test]
fn when_everybody_is_believed_the_client_is_the_first() {
    let list = headers(&[("X-Forwarded-For", "203.0.113.9, 198.51.100.7")]);
    let said = Forwarded::read(&list, &Trusted::Everybody);
    assert_eq!(said.client.map(|client| client.ip().to_string()), Some("203.0.113.9".to_string()));
}

#[test]
fn no_bytes_make_it_panic() {
    let pieces =
        ["for=", "\"", "\\", ",", ";", "[", "]", ":", "1.2.3.4", "::1", "=", "\u{e9}", " "];
    let mut seed = 7_u64;
    for _ in 0..20_000 {
        let mut value = String::new();
        for _ in 0..8 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            value += pieces[(seed >> 33) as usize % pieces.len()];
        }
        for name in ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"] {
            let mut headers = Headers::new();
            if headers.try_push(name, &value).is_ok() {
                let _ = Forwarded::read(&headers, &Trusted::Everybody);
            }
        }
    }
}

// Through the gateways.

const WANTED: [&str; 6] =
    ["REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme", "HTTP_HOST", "SCRIPT_NAME", "PATH_INFO"];

fn environ<'a>(environ: Environ<'a>, start_response: StartResponse<'a>) -> Chunks<'a> {
    start_response.call("200 OK", &[])?;
    let value = |name: &str| environ.get(name).unwrap_or_default().into_owned();
    let values: Vec<String> = WANTED.iter().map(|name| value(name)).collect();
    Ok(Box::new(vec![values.join(" ").into_bytes()].into_iter()))
}

fn scope(scope: &Scope, _: &mut dyn Receive, send: &mut dyn Emit) -> Result<(), Exception> {
    let Scope::Http(scope) = scope else {
        return Err("no lifespan".into());
    };
    let host = scope.headers().into_iter().find(|(name, _)| name == "host");
    let host = host.map(|(_, value)| String::from_utf8_lossy(value).into_owned());
    let body = format!(
        "{} {} {} {} {} {}",
        scope.client.ip(),
        scope.client.port(),
        scope.scheme,
        host.unwrap_or_default(),
        scope.root_path,
        scope.path,
    );
    send.send(Event::HttpResponseStart { status: 200, headers: Headers::new() })?;
    send.send(Event::HttpResponseBody { body: body.into_bytes(), more_body: false })
}

/// Both gateways behind the same proxies.
fn both(trusted: &Trusted) -> [Running; 2] {
    let server = || Server::bind(Settings { port: 0, ..Settings::default() }).expect("a free port");
    let start = |server: Server, gateway: Arc<dyn Handler>| {
        server.start(Arc::new(BehindProxy::new(gateway, trusted.clone())))
    };
    let (one, other) = (server(), server());
    let wsgi = Wsgi::new(Arc::new(environ), one.address()).below("/shop");
    let asgi = Asgi::start(Arc::new(scope), other.address()).expect("an application");
    [start(one, Arc::new(wsgi)), start(other, Arc::new(asgi.below("/shop")))]
}

fn ask(address: SocketAddr, fields: &str) -> String {
    let mut client = Client::connect(address);
    client.send(format!("GET /a/ HTTP/1.1\r\nHost: inner\r\n{fields}Connection: close\r\n\r\n"));
    client.answer().expect("an answer").text()
}

const FIELDS: &str = "X-Forwarded-For: 203.0.113.9, 198.51.100.7\r\n\
                      X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\n";

#[test]
fn both_gateways_tell_the_application_of_the_real_client() {
    let _dog = watchdog(30, "a trusted proxy");
    let [wsgi, asgi] = both(&trusted(&["127.0.0.1"]));
    let want = "198.51.100.7 0 https shop.example /shop";
    assert_eq!(ask(wsgi.address, FIELDS), format!("{want} /a/"));
    // In ASGI the path is the one that the client sees.
    assert_eq!(ask(asgi.address, FIELDS), format!("{want} /shop/a/"));
    assert!(wsgi.stop() && asgi.stop());
}

#[test]
fn a_peer_that_is_no_proxy_of_ours_speaks_for_itself_only() {
    let _dog = watchdog(30, "no proxy");
    for trusted in [trusted(&[]), trusted(&["192.0.2.1"])] {
        let [wsgi, asgi] = both(&trusted);
        for (server, path) in [(wsgi, "/a/"), (asgi, "/shop/a/")] {
            for fields in [FIELDS, "Forwarded: for=203.0.113.9;proto=https;host=x\r\n"] {
                let answer = ask(server.address, fields);
                assert!(answer.starts_with("127.0.0.1 "), "{answer}");
                assert!(answer.ends_with(&format!(" http inner /shop {path}")), "{answer}");
            }
            assert!(server.stop());
        }
    }
}

#[test]
fn a_request_without_these_fields_is_the_proxy_s_own() {
    let _dog = watchdog(30, "no fields");
    let [wsgi, asgi] = both(&trusted(&["127.0.0.1"]));
    for server in [wsgi, asgi] {
        let answer = ask(server.address, "");
        assert!(answer.starts_with("127.0.0.1 ") && answer.contains(" http inner "), "{answer}");
        assert!(server.stop());
    }
}

// Exercises.

#[test]
#[ignore = "exercise 39.3"]
fn exercise_39_3_a_forwarded_port_is_added_to_the_host() {
    let read = |host, port| read(&[("X-Forwarded-Host", host), ("X-Forwarded-Port", port)]);
    assert_eq!(read("shop.example", "8443"), "- - shop.example:8443");
    assert_eq!(read("shop.example:80", "8443"), "- - shop.example:80");
    assert_eq!(read("shop.example", "1, 8443"), "- - shop.example:8443");
    assert_eq!(read("shop.example", "x"), "- - shop.example");
    assert_eq!(read("shop.example", "70000"), "- - shop.example");
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
