//! Chapter 30: the opening handshake.

mod support;

use glasshouse::http::headers::{ALLOW, FieldError, Headers, Token, UPGRADE};
use glasshouse::http::refusal::Refusal;
use glasshouse::http::request::{HeadLimits, HeadParser, Method, Parse, RequestHead};
use glasshouse::http::response::{Body, ResponseWriter, Status};
use glasshouse::websocket::base64;
use glasshouse::websocket::handshake::{
    AnswerError, Handshake, HandshakeError, OriginPolicy, check_answer, client_request, new_key,
    wants_websocket,
};
use support::bytes::eq_bytes;
use support::mutator::Mutator;

/// The request of RFC 6455, section 1.2.
const EXAMPLE: &str = "GET /chat HTTP/1.1\r\n\
                       Host: server.example.com\r\n\
                       Upgrade: websocket\r\n\
                       Connection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       Origin: http://server.example.com\r\n\
                       Sec-WebSocket-Protocol: chat, superchat\r\n\
                       Sec-WebSocket-Version: 13\r\n\
                       \r\n";
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A browser that is at the page of this origin.
fn from_origin(host: &str, origin: &str) -> RequestHead {
    let host_line = format!("Host: {host}\r\n");
    let origin_line = format!("Origin: {origin}\r\n");
    head(
        &EXAMPLE
            .replace("Host: server.example.com\r\n", &host_line)
            .replace("Origin: http://server.example.com\r\n", &origin_line),
    )
}

#[track_caller]
fn head(text: &str) -> RequestHead {
    match HeadParser::new(HeadLimits::default()).advance(text.as_bytes()) {
        Ok(Parse::Complete { value, .. }) => value,
        other => panic!("{text}\n{other:?}"),
    }
}

/// The example with one of its lines replaced; an empty line is left out.
#[track_caller]
fn with(old: &str, new: &str) -> RequestHead {
    let (old, new) = (format!("{old}\r\n"), format!("{new}\r\n"));
    assert!(EXAMPLE.contains(&old), "{old}");
    head(&EXAMPLE.replace(&old, if new == "\r\n" { "" } else { &new }))
}

fn read(head: &RequestHead) -> Result<Handshake, HandshakeError> {
    Handshake::read(head, &OriginPolicy::default())
}

#[track_caller]
fn refused(head: &RequestHead, status: u16, error: HandshakeError) {
    assert_eq!(read(head), Err(error.clone()));
    assert_eq!(error.status().code(), status);
}

fn allowed(origins: &[&str]) -> OriginPolicy {
    OriginPolicy { allowed: origins.iter().map(|origin| origin.to_string()).collect() }
}

// The request.

#[test]
fn the_example_of_the_standard_is_accepted() {
    let head = head(EXAMPLE);
    assert!(wants_websocket(&head));
    let handshake = read(&head).expect("a good handshake");
    assert_eq!(handshake.accept, ACCEPT);
    assert_eq!(handshake.offered, ["chat", "superchat"]);
}

#[test]
fn the_answer_101_is_whole() {
    let head = head(EXAMPLE);
    let mut extra = Headers::new();
    extra.try_push("X-Room", "7").expect("a valid field");
    let fields = read(&head).and_then(|handshake| handshake.fields(Some("chat"), &extra));
    let mut out = Vec::new();
    let mut writer = ResponseWriter::new(&head, true);
    writer
        .start(&mut out, Status::SWITCHING_PROTOCOLS, &fields.expect("the fields"), None)
        .expect("the writer takes them");
    let text = String::from_utf8_lossy(&out);
    let lines: Vec<&str> = text.split("\r\n").filter(|line| !line.starts_with("Date: ")).collect();
    let want = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "Sec-WebSocket-Protocol: chat",
        "X-Room: 7",
        "Server: glasshouse",
        "Connection: Upgrade",
        "",
        "",
    ];
    assert_eq!(lines, want);
    // And our own client takes it.
    assert_eq!(check_answer(&out, KEY, &["chat"]), Ok(Some("chat".to_string())));
}

#[test]
fn lists_are_read_as_lists_in_any_case_and_over_several_lines() {
    for connection in [
        "Connection: keep-alive, Upgrade", // Firefox
        "Connection: upgrade",
        "Connection: keep-alive,UPGRADE ,,",
        "Connection: keep-alive\r\nConnection: Upgrade",
        "connection:\tuPGRADE",
    ] {
        assert!(read(&with("Connection: Upgrade", connection)).is_ok(), "{connection}");
    }
    for upgrade in [
        "Upgrade: WebSocket", // Internet Explorer
        "Upgrade: h2c, websocket",
        "Upgrade: h2c\r\nUpgrade: websocket",
        "UPGRADE: WEBSOCKET",
    ] {
        let head = with("Upgrade: websocket", upgrade);
        assert!(wants_websocket(&head) && read(&head).is_ok(), "{upgrade}");
    }
    let split = "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: ,superchat, v2.chat";
    let handshake = read(&with("Sec-WebSocket-Protocol: chat, superchat", split));
    assert_eq!(handshake.expect("good").offered, ["chat", "superchat", "v2.chat"]);
}

#[test]
fn a_request_that_does_not_ask_is_no_handshake() {
    for upgrade in ["", "Upgrade: h2c", "Upgrade: websockets", "Upgrade: websocket/13", "Upgrade:"]
    {
        let head = with("Upgrade: websocket", upgrade);
        assert!(!wants_websocket(&head), "{upgrade}");
        refused(&head, 426, HandshakeError::NoUpgrade);
    }
}

#[test]
fn http_1_0_cannot_upgrade() {
    let head = head(&EXAMPLE.replace("HTTP/1.1", "HTTP/1.0"));
    assert!(!wants_websocket(&head));
    refused(&head, 426, HandshakeError::OldHttp);
}

#[test]
fn only_get_opens_a_websocket() {
    for method in ["HEAD", "POST", "OPTIONS", "get"] {
        let head = head(&EXAMPLE.replace("GET", method));
        assert_ne!(head.method, Method::Get);
        refused(&head, 405, HandshakeError::Method);
    }
}

#[test]
fn the_connection_must_name_upgrade() {
    for connection in ["", "Connection: keep-alive", "Connection: close, upgrades"] {
        let head = with("Connection: Upgrade", connection);
        assert!(wants_websocket(&head));
        refused(&head, 400, HandshakeError::NoConnectionOption);
    }
}

#[test]
fn another_version_is_told_ours() {
    for version in [
        "",
        "Sec-WebSocket-Version: 8",
        "Sec-WebSocket-Version: 14",
        "Sec-WebSocket-Version: 013",
        "Sec-WebSocket-Version: 13, 8",
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13",
        "Sec-WebSocket-Version:",
    ] {
        let head = with("Sec-WebSocket-Version: 13", version);
        refused(&head, 426, HandshakeError::UnknownVersion);
    }
}

#[test]
fn the_key_is_one_field_of_sixteen_bytes() {
    let field = |key: &str| format!("Sec-WebSocket-Key: {key}");
    for key in [
        "",                             // no bytes
        "dGhlIHNhbXBsZSBub25jZQ",       // no padding
        "dGhlIHNhbXBsZSBub25jZR==",     // bits that are not zero
        "dGhlIHNhbXBsZSBub25jZWU=",     // 17 bytes
        "dGhlIHNhbXBsZSBub25j",         // 15 bytes
        "dGhlIHNhbXBsZSBub25jZQ==, a",  // a list
        "dGhlIHNhbXBs ZSBub25jZQ==",    // a space
        "dGhlIHNhbXBsZSBub25jZQ\u{e9}", // no ASCII
    ] {
        refused(&with(&field(KEY), &field(key)), 400, HandshakeError::Key);
    }
    refused(&with(&field(KEY), ""), 400, HandshakeError::Key);
    let twice = [field(KEY), field(KEY)].join("\r\n");
    refused(&with(&field(KEY), &twice), 400, HandshakeError::Key);
    let spaces = field(&format!(" \t{KEY}\t "));
    assert_eq!(read(&with(&field(KEY), &spaces)).expect("trimmed").accept, ACCEPT);
}

#[test]
fn a_handshake_has_no_body() {
    let version = "Sec-WebSocket-Version: 13";
    for body in ["Content-Length: 5", "Transfer-Encoding: chunked", "Content-Length: x"] {
        refused(&with(version, &format!("{version}\r\n{body}")), 400, HandshakeError::Body);
    }
    assert!(read(&with(version, &format!("{version}\r\nContent-Length: 0"))).is_ok());
}

#[test]
fn extensions_are_declined_without_a_word() {
    let version = "Sec-WebSocket-Version: 13";
    for offer in ["permessage-deflate; client_max_window_bits", "=;,;=", ""] {
        let line = format!("{version}\r\nSec-WebSocket-Extensions: {offer}");
        let handshake = read(&with(version, &line)).expect("the offer does no harm");
        let fields = handshake.fields(None, &Headers::new()).expect("fields");
        assert!(!fields.contains(Token::constant("Sec-WebSocket-Extensions")));
        assert_eq!(fields.len(), 2);
    }
}

// The origin.

#[test]
fn pages_of_the_same_host_are_allowed() {
    for (host, origin) in [
        ("server.example.com", "http://server.example.com"),
        ("server.example.com", "https://server.example.com"),
        ("Server.Example.COM", "http://server.example.com"),
        ("server.example.com", "HTTP://SERVER.example.com"),
        ("server.example.com:80", "http://server.example.com"),
        ("server.example.com:443", "https://server.example.com"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("127.0.0.1:8000", "https://127.0.0.1:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("[::1]", "http://[::1]"),
    ] {
        assert!(read(&from_origin(host, origin)).is_ok(), "{host} and {origin}");
    }
}

#[test]
fn pages_of_other_sites_are_refused() {
    for origin in [
        "http://evil.example",
        "http://good.example.evil.example", // ours in front
        "http://evilgood.example:8000",     // ours at the end
        "http://evil.example/good.example:8000",
        "http://evil.example?good.example:8000",
        "http://good.example:8000@evil.example",
        "http://evil@good.example:8000",
        "http://good.example:8000.evil.example",
        "http://good.example:8000:80",
        "http://good.example:80000",
        "http://good.example:8001",
        "http://good.example", // another port is another origin
        "http://good.example:8000/",
        "http://good.example.:8000",
        "http://www.good.example:8000",
        "http://good.example:08000",
        "http://good.example:8000 http://evil.example",
        "http://evil.example, http://good.example:8000",
        "http:/good.example:8000",
        "//good.example:8000",
        "good.example:8000",
        "ws://good.example:8000",
        "file://good.example:8000",
        "chrome-extension://good.example:8000",
        "http://g\u{f6}od.example:8000",
        "http://",
        "null",
        "",
    ] {
        let head = from_origin("good.example:8000", origin);
        refused(&head, 403, HandshakeError::ForeignOrigin(origin.to_ascii_lowercase()));
    }
}

#[test]
fn no_host_is_nobodys_own() {
    for origin in ["http://", "https://", "http://:80", "null"] {
        let error = read(&from_origin("", origin)).expect_err(origin);
        assert_eq!(error.status().code(), 403, "{origin}");
    }
}

#[test]
fn a_program_without_an_origin_is_allowed() {
    assert!(read(&with("Origin: http://server.example.com", "")).is_ok());
}

#[test]
fn two_origins_are_refused_even_if_both_are_ours() {
    let own = "Origin: http://server.example.com";
    let head = with(own, &[own, own].join("\r\n"));
    refused(&head, 400, HandshakeError::ManyOrigins);
    let all = Handshake::read(&head, &allowed(&["*"]));
    assert_eq!(all, Err(HandshakeError::ManyOrigins));
}

#[test]
fn a_listed_origin_is_allowed_and_no_other() {
    let policy = allowed(&["https://Shop.example:443", "http://localhost:3000", "null"]);
    for origin in [
        "https://shop.example",
        "http://localhost:3000",
        "null",
        "http://good.example", // its own, as ever
    ] {
        let head = from_origin("good.example", origin);
        assert!(Handshake::read(&head, &policy).is_ok(), "{origin}");
    }
    for origin in ["http://shop.example", "http://localhost", "https://shop.example.evil.example"] {
        let head = from_origin("good.example", origin);
        assert!(Handshake::read(&head, &policy).is_err(), "{origin}");
    }
    for origin in ["http://evil.example", "null", "what is this"] {
        let head = from_origin("good.example", origin);
        assert!(Handshake::read(&head, &allowed(&["*"])).is_ok(), "{origin}");
    }
}

// Subprotocols.

#[test]
fn subprotocols_are_tokens_and_each_is_offered_once() {
    let offered = |list: &str| {
        let line = format!("Sec-WebSocket-Protocol: {list}");
        read(&with("Sec-WebSocket-Protocol: chat, superchat", &line)).map(|good| good.offered)
    };
    assert_eq!(
        offered("v10.stomp, Chat, chat"),
        Ok(["v10.stomp", "Chat", "chat"].map(String::from).to_vec())
    );
    assert_eq!(offered(""), Ok(vec![]));
    assert_eq!(offered(" , "), Ok(vec![]));
    for list in ["chat, chat", "a b", "a/b", "\"chat\"", "ch\u{e9}", "a;q=1"] {
        assert_eq!(offered(list), Err(HandshakeError::Subprotocols), "{list}");
    }
}

#[test]
fn the_application_chooses_among_what_was_offered() {
    let handshake = read(&head(EXAMPLE)).expect("good");
    let protocol = Token::constant("Sec-WebSocket-Protocol");
    let none = Headers::new();
    let fields = handshake.fields(Some("superchat"), &none).expect("offered");
    assert_eq!(fields.get(protocol).and_then(|value| value.as_str()), Some("superchat"));
    assert!(!handshake.fields(None, &none).expect("no choice").contains(protocol));
    for chosen in ["Chat", "chat, superchat", "", "other"] {
        let error = handshake.fields(Some(chosen), &none).expect_err(chosen);
        assert_eq!((error.clone(), error.status().code()), (HandshakeError::NotOffered, 500));
    }
}

#[test]
fn the_fields_of_the_handshake_are_not_the_applications() {
    let handshake = read(&head(EXAMPLE)).expect("good");
    for name in [
        "sec-websocket-protocol",
        "Sec-WebSocket-Accept",
        "SEC-WEBSOCKET-EXTENSIONS",
        "Sec-WebSocket-Anything",
        "Upgrade",
        "Connection",
        "Transfer-Encoding",
    ] {
        let mut extra = Headers::new();
        extra.try_push(name, "x").expect("a valid field");
        let fields = handshake.fields(None, &extra);
        assert_eq!(fields, Err(HandshakeError::ReservedField), "{name}");
    }
    let mut extra = Headers::new();
    extra.try_push("Set-Cookie", "a=1").expect("valid");
    extra.try_push("Set-Cookie", "b=2").expect("valid");
    let fields = handshake.fields(None, &extra).expect("these are free");
    assert_eq!(fields.get_all(Token::constant("set-cookie")).count(), 2);
}

#[test]
fn an_accept_value_that_is_no_field_value_is_an_error() {
    let handshake = Handshake { accept: "x\r\ny: z".to_string(), offered: vec![] };
    let fields = handshake.fields(None, &Headers::new());
    assert_eq!(fields, Err(HandshakeError::Field(FieldError::ValueByte)));
}

// The refusals.

fn all_errors() -> Vec<HandshakeError> {
    use HandshakeError::*;
    vec![
        OldHttp,
        NoUpgrade,
        Method,
        NoConnectionOption,
        UnknownVersion,
        Key,
        Body,
        ManyOrigins,
        ForeignOrigin("http://evil.example".to_string()),
        Subprotocols,
        NotOffered,
        ReservedField,
        Field(FieldError::ValueByte),
    ]
}

#[test]
fn every_error_has_the_status_that_its_comment_names() {
    let source = include_str!("../src/websocket/handshake.rs");
    let (_, rest) = source.split_once("pub enum HandshakeError {\n").expect("the enum");
    let (variants, _) = rest.split_once("\n}\n").expect("its end");
    let documented: Vec<u16> = variants
        .lines()
        .filter_map(|line| line.strip_suffix('.')?.rsplit(' ').next()?.parse().ok())
        .collect();
    let codes: Vec<u16> = all_errors().iter().map(|error| error.status().code()).collect();
    assert_eq!(codes, documented);
}

#[test]
fn every_refusal_says_what_is_wrong_and_where_to_read() {
    for error in all_errors() {
        let refusal = Refusal::from(error.clone());
        assert_eq!((refusal.status, refusal.rule), (error.status(), error.rule()));
        assert!(error.rule().contains("section ") || error.rule().contains("specification, "));
        let Body::Whole(text) = error.response().body else { panic!("a stream") };
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.contains("handshake.\n") && text.contains(error.rule()), "{text}");
        let told = text.to_lowercase().contains(&error.to_string().to_lowercase());
        assert_eq!(told, error.status().code() != 500, "{text}");
    }
}

#[test]
fn a_refusal_carries_the_fields_that_its_status_demands() {
    for error in all_errors() {
        let fields = error.response().headers;
        let field = |name| fields.get(name).and_then(|value| value.as_str());
        let code = error.status().code();
        assert_eq!(field(UPGRADE), (code == 426).then_some("websocket"));
        let version = field(Token::constant("Sec-WebSocket-Version"));
        assert_eq!(version, (code == 426).then_some("13"));
        assert_eq!(field(ALLOW), (code == 405).then_some("GET"));
    }
}

// The client.

#[test]
fn the_clients_request_passes_the_servers_rules() {
    let key = new_key();
    let request = client_request("localhost:8000", "/chat?room=1", &key, &["a", "b"]);
    let request = request.expect("a request");
    let head = head(&String::from_utf8_lossy(&request));
    assert_eq!((head.host.as_str(), head.target.raw.as_str()), ("localhost:8000", "/chat?room=1"));
    assert_eq!(read(&head).expect("good").offered, ["a", "b"]);
    let plain = client_request("a", "/", KEY, &[]).expect("a request");
    eq_bytes(
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        &plain,
    );
}

#[test]
fn a_client_cannot_be_made_to_send_another_line() {
    for (host, target) in
        [("a\r\nX: 1", "/"), ("a", "/\r\nX: 1"), ("a", "/ HTTP/1.1"), ("a\0", "/")]
    {
        let request = client_request(host, target, KEY, &[]);
        assert_eq!(request, Err(FieldError::ValueByte), "{host:?} {target:?}");
    }
    assert_eq!(client_request("a", "/", KEY, &["x\ny"]), Err(FieldError::ValueByte));
}

#[test]
fn every_key_is_new_and_has_sixteen_bytes() {
    let mut keys = std::collections::BTreeSet::new();
    for _ in 0..1_000 {
        let key = new_key();
        assert_eq!(base64::decode(key.as_bytes()).expect("Base64").len(), 16);
        assert!(keys.insert(key));
    }
}

#[test]
fn a_client_checks_the_answer() {
    let good = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: x, upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    let check = |answer: &str| check_answer(answer.as_bytes(), KEY, &["chat"]);
    assert_eq!(check(&good), Ok(None));
    let with = |line: &str| good.replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"));
    assert_eq!(check(&with("Sec-WebSocket-Protocol: chat")), Ok(Some("chat".to_string())));
    use AnswerError::*;
    let forbidden = Status::new(403).expect("a status");
    let cases = [
        (good.replace("101 Switching Protocols", "403 Forbidden"), NotSwitched(forbidden)),
        (good.replace("WebSocket\r\n", "h2c\r\n"), NoUpgrade),
        (good.replace("upgrade", "close"), NoUpgrade),
        (good.replace("s3pP", "S3pP"), WrongAccept),
        (good.replace("Sec-WebSocket-Accept", "Accept"), WrongAccept),
        (with("Sec-WebSocket-Protocol: other"), NotAskedFor),
        (with("Sec-WebSocket-Protocol: \u{e9}"), NotAskedFor),
        (with("Sec-WebSocket-Extensions: permessage-deflate"), NotAskedFor),
        (good.replace("HTTP/1.1", "HTTP/2"), NotHttp),
        (good.replace("101", "1"), NotHttp),
        (good.replace("101", "999"), NotHttp),
        (good.replace("101", "1010"), NotHttp),
        (good.replace("101", "+101"), NotHttp),
        (good.replace("101 ", "101-"), NotHttp),
        (good.replace("Protocols", "Protocols\n"), NotHttp),
        (good.replace("\r\n\r\n", "\r\n"), NotHttp),
        (with("no colon"), NotHttp),
        (String::new(), NotHttp),
    ];
    for (answer, error) in cases {
        assert_eq!(check(&answer), Err(error.clone()), "{answer}");
        assert!(error.to_string().contains(' '));
    }
    assert_eq!(check_answer(b"HTTP/1.1 101 \xff\r\n\r\n", KEY, &[]), Err(NotHttp));
}

// Damage.

#[test]
fn a_hundred_thousand_broken_handshakes_break_nothing() {
    let mut mutator = Mutator::new(27);
    let (mut accepted, mut heads) = (0, 0);
    for _ in 0..100_000 {
        let mutant = mutator.mutate(EXAMPLE.as_bytes());
        let mut parser = HeadParser::new(HeadLimits::default());
        let Ok(Parse::Complete { value: head, .. }) = parser.advance(&mutant) else {
            continue;
        };
        heads += 1;
        let Ok(handshake) = read(&head) else {
            continue;
        };
        accepted += 1;
        assert!(wants_websocket(&head) && head.method == Method::Get);
        let keys: Vec<_> = head.headers.get_all(Token::constant("Sec-WebSocket-Key")).collect();
        assert_eq!(keys.len(), 1);
        let bytes = base64::decode(keys[0].as_bytes()).expect("the key decodes");
        assert_eq!(bytes.len(), 16);
        let accept = base64::decode(handshake.accept.as_bytes()).expect("ours decodes");
        assert_eq!(accept.len(), 20);
        handshake.fields(None, &Headers::new()).expect("an answer");
    }
    println!("{heads} heads, {accepted} handshakes");
    assert!(accepted > 1_000, "only {accepted} of {heads} were accepted");
}

#[test]
fn a_hundred_thousand_broken_answers_break_nothing() {
    let good = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    );
    let mut mutator = Mutator::new(272);
    for _ in 0..100_000 {
        let mutant = mutator.mutate(good.as_bytes());
        if check_answer(&mutant, KEY, &["chat"]).is_ok() {
            assert!(String::from_utf8_lossy(&mutant).contains(ACCEPT));
        }
    }
}

#[test]
fn a_head_full_of_subprotocols_is_read_in_no_time() {
    let mut text = EXAMPLE.replace("Origin: http://server.example.com\r\n", "");
    for line in 0..2 {
        let names: Vec<String> = (0..1_500).map(|n| format!("{line}{n}")).collect();
        text = text.replace(
            "Sec-WebSocket-Version",
            &format!("Sec-WebSocket-Protocol: {}\r\nSec-WebSocket-Version", names.join(",")),
        );
    }
    let head = head(&text);
    let began = std::time::Instant::now();
    assert_eq!(read(&head).expect("good").offered.len(), 3_002);
    assert!(began.elapsed().as_millis() < 500, "{:?}", began.elapsed());
}

#[test]
#[ignore = "exercise 30.2"]
fn exercise_30_2_a_star_in_front_allows_every_subdomain() {
    let policy = allowed(&["https://*.example.org"]);
    let reads = |origin: &str| Handshake::read(&from_origin("good.example", origin), &policy);
    for origin in ["https://a.example.org", "https://a.b.Example.org"] {
        assert!(reads(origin).is_ok(), "{origin}");
    }
    for origin in [
        "https://example.org",
        "http://a.example.org",
        "https://evilexample.org",
        "https://a.example.org.evil.example",
        "https://evil.example/.example.org",
        "https://evil.example?.example.org",
        "https://evil.example:80.example.org",
    ] {
        assert!(reads(origin).is_err(), "{origin}");
    }
}

#[test]
#[ignore = "exercise 30.4"]
fn exercise_30_4_more_than_sixteen_subprotocols_are_refused() {
    let offer = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("p{n}")).collect();
        let line = format!("Sec-WebSocket-Protocol: {}", names.join(","));
        read(&with("Sec-WebSocket-Protocol: chat, superchat", &line))
    };
    assert_eq!(offer(16).expect("sixteen are fine").offered.len(), 16);
    assert_eq!(offer(17), Err(HandshakeError::Subprotocols));
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
