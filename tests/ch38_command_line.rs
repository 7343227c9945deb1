//! Chapter 38: the command line. What is not understood is an error and never ignored.

mod support;

use std::collections::HashSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use glasshouse::running::access_log::Format;
use glasshouse::running::command_line::{
    Command, Config, ENVIRONMENT, FLAGS, Protocol, Takes, Trusted, UsageError, WebSocketUrl,
    advice, greeting, help, parse, say,
};
use glasshouse::socket::listener::BindError;

use Protocol::{AsgiHttp, AsgiWs, Wsgi};
use support::Gone;

/// What a program makes of this line, its words separated by spaces, in this environment.
fn outcome(
    own: Option<Protocol>,
    line: &str,
    environment: &[(&str, &str)],
) -> Result<Command, UsageError> {
    parse(own, line.split_whitespace(), |name| {
        let found = environment.iter().find(|(own, _)| *own == name);
        found.map(|(_, value)| OsString::from(value))
    })
}

#[track_caller]
fn in_environment(line: &str, environment: &[(&str, &str)]) -> Config {
    match outcome(Some(AsgiWs), line, environment) {
        Ok(Command::Serve(config)) => *config,
        other => panic!("{line}: {other:?}"),
    }
}

#[track_caller]
fn config(line: &str) -> Config {
    in_environment(line, &[])
}

/// The error's sentence.
#[track_caller]
fn error(line: &str) -> String {
    match outcome(Some(Wsgi), line, &[]) {
        Err(error) => error.to_string(),
        other => panic!("{line}: {other:?}"),
    }
}

fn same(a: &Config, b: &Config) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

// The table.

type Check = fn(&Config) -> bool;

/// A value other than the default for every flag, and where it must arrive.
const EVERY_FLAG: &[(&str, Check)] = &[
    ("--host ::", |c| c.settings.host == "::"),
    ("--port 8001", |c| c.settings.port == 8001),
    ("--threads 64", |c| c.settings.threads.cap == 64),
    ("--workers 4", |c| c.workers == 4),
    ("--keep-alive 0.5", |c| c.settings.deadlines.keep_alive == Duration::from_millis(500)),
    ("shop:make_app(a=1)", |c| c.application.as_deref() == Some("shop:make_app(a=1)")),
    ("--timeout 7", |c| c.timeout == Duration::from_secs(7)),
    ("--timeout-head 3", |c| c.settings.deadlines.head == Duration::from_secs(3)),
    ("--timeout-body 4", |c| c.settings.deadlines.body == Duration::from_secs(4)),
    ("--queue-timeout 6", |c| c.settings.deadlines.queue == Duration::from_secs(6)),
    ("--graceful-timeout 0", |c| c.settings.graceful_timeout == Duration::ZERO),
    ("--max-body 1G", |c| c.settings.limits.body.body == 1 << 30),
    ("--limit-request-line 4096", |c| c.settings.limits.head.line == 4096),
    ("--limit-request-head 32K", |c| c.settings.limits.head.head == 32 * 1024),
    ("--limit-request-fields 50", |c| c.settings.limits.head.fields == 50),
    ("--templates pages", |c| c.templates.as_deref() == Some(Path::new("pages"))),
    ("--static public", |c| c.static_files.as_deref() == Some(Path::new("public"))),
    ("--uploads /var/in", |c| c.uploads.as_deref() == Some(Path::new("/var/in"))),
    ("--access-log json", |c| c.access_log == Format::Json),
    ("--wire", |c| c.settings.wire_view),
    ("--debug", |c| c.debug),
    ("--root-path /shop", |c| c.root_path == "/shop"),
    ("--forwarded-allow-ips 10.0.0.1", |c| {
        c.forwarded_allow_ips == Trusted::These(vec![[10, 0, 0, 1].into()])
    }),
    ("--ws-max-message 64K", |c| c.ws_max_message == 64 * 1024),
    ("--ws-origin https://a.example", |c| c.ws_origins == ["https://a.example"]),
];

#[test]
fn every_flag_arrives_in_its_own_field_and_changes_no_other() {
    for (line, arrived) in EVERY_FLAG {
        assert!(arrived(&config(line)), "{line}");
        for (other, _) in EVERY_FLAG.iter().filter(|(other, _)| other != line) {
            assert!(!arrived(&config(other)), "{other} has done what {line} does");
        }
    }
    // With an application, some of them would change nothing.
    let flags: Vec<_> = EVERY_FLAG.iter().filter(|(line, _)| line.starts_with("--")).collect();
    let all: Vec<&str> = flags.iter().map(|(line, _)| *line).collect();
    let together = config(&all.join(" "));
    assert!(flags.iter().all(|(_, arrived)| arrived(&together)));
}

#[test]
fn every_row_of_the_table_is_tried_here_and_no_name_is_there_twice() {
    let tried: HashSet<&str> =
        EVERY_FLAG.iter().filter_map(|(line, _)| line.split(' ').next()).collect();
    let elsewhere = ["--connect", "--help", "--version"];
    let mut seen = HashSet::new();
    for flag in FLAGS.iter().flat_map(|group| group.flags) {
        assert!(flag.name.starts_with("--"), "{}", flag.name);
        assert!(seen.insert(flag.name), "{} is there twice", flag.name);
        assert!(tried.contains(flag.name) || elsewhere.contains(&flag.name), "{}", flag.name);
    }
}

/// What is said of a flag that would change nothing.
const ONLY_FOR_SITE: &str = "FLAG is about the program's own site; an application has its own.";

/// What is said of a word that is nothing.
fn no_flag(word: &str, port: u16) -> String {
    format!(
        "{word:?} is no flag, such as --port {port}, and no application, which is \
         MODULE:CALLABLE or static:DIR."
    )
}

#[test]
fn the_defaults_that_the_help_shows_are_the_defaults() {
    for protocol in Protocol::ALL {
        let Ok(Command::Serve(nothing)) = outcome(Some(protocol), "", &[]) else { panic!() };
        assert!(same(&nothing, &Config::new(protocol)));
    }
    let mut shown = 0;
    for flag in FLAGS.iter().flat_map(|group| group.flags) {
        if !flag.default.is_empty() {
            let line = format!("{} {}", flag.name, flag.default);
            assert!(same(&config(&line), &Config::new(AsgiWs)), "{line}");
            shown += 1;
        }
    }
    assert!(shown >= 15, "{shown}");
}

#[test]
fn a_value_may_stand_behind_an_equals_sign() {
    for (line, _) in EVERY_FLAG {
        assert!(same(&config(&line.replace(' ', "=")), &config(line)), "{line}");
    }
    // Only the first one separates.
    assert_eq!(config("--uploads=a=b").uploads.as_deref(), Some(Path::new("a=b")));
}

#[test]
fn the_flags_of_the_first_parts_still_work() {
    let line = "--host localhost --port 0 --threads 1 --keep-alive 5 --max-body 16777216 --wire";
    let config = config(line);
    assert_eq!((config.settings.port, config.settings.threads.cap), (0, 1));
    assert_eq!(config.settings.limits.body.body, 16_777_216);
}

// The environment.

#[test]
fn a_variable_stands_for_its_flag() {
    for (name, flag) in ENVIRONMENT {
        let value = if *name == "HOST" { "0.0.0.0" } else { "3" };
        let mut by_name = in_environment("", &[(name, value)]);
        assert_eq!(by_name.from_environment, [*name]);
        by_name.from_environment.clear();
        assert!(same(&by_name, &config(&format!("{flag} {value}"))), "{name}");
        assert!(!same(&by_name, &config("")), "{name}");
    }
}

#[test]
fn a_flag_is_stronger_than_a_variable_and_a_variable_than_a_default() {
    let port = |line, variables| in_environment(line, variables).settings.port;
    assert_eq!(port("", &[]), 8000);
    assert_eq!(port("", &[("PORT", "9000")]), 9000);
    assert_eq!(port("--port 7000", &[("PORT", "9000")]), 7000);
    // A flag equal to the default is still a flag.
    assert_eq!(port("--port 8000", &[("PORT", "9000")]), 8000);
    // What is not followed is not looked at.
    let config = in_environment("--port 7000", &[("PORT", "nonsense")]);
    assert_eq!(config.from_environment, [""; 0]);
}

#[test]
fn an_empty_variable_is_not_set() {
    for (name, _) in ENVIRONMENT {
        assert!(same(&in_environment("", &[(name, "")]), &config("")), "{name}");
    }
    let serve = outcome(None, "", &[("SERVER_PROTOCOL", "")]);
    assert!(matches!(serve, Ok(Command::Serve(config)) if config.protocol == Wsgi));
}

#[test]
fn a_wrong_variable_is_an_error_with_its_name() {
    let wrong = |name, value| match outcome(Some(Wsgi), "", &[(name, value)]) {
        Err(error) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        wrong("PORT", "http"),
        "The variable PORT takes a number from 0 to 65535; not \"http\"."
    );
    assert_eq!(
        wrong("WEB_CONCURRENCY", "auto"),
        "The variable WEB_CONCURRENCY takes a number from 1 to 512; not \"auto\"."
    );
    assert!(wrong("HOST", "a b").starts_with("The variable HOST takes a host name"));
}

#[test]
fn server_protocol_chooses_for_a_program_that_has_none_of_its_own() {
    for protocol in Protocol::ALL {
        let variables = [("SERVER_PROTOCOL", protocol.name())];
        let serve = outcome(None, "", &variables);
        assert!(matches!(serve, Ok(Command::Serve(config)) if config.protocol == protocol));
        // A program with a contract of its own does not ask.
        let serve = outcome(Some(AsgiHttp), "", &variables);
        assert!(matches!(serve, Ok(Command::Serve(config)) if config.protocol == AsgiHttp));
    }
    let serve = outcome(None, "", &[]);
    assert!(matches!(serve, Ok(Command::Serve(config)) if config.protocol == Wsgi));
    // The value that the CGI key of the same name has is not one of ours.
    let error = outcome(None, "--port 1", &[("SERVER_PROTOCOL", "HTTP/1.1")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "SERVER_PROTOCOL is one of wsgi, asgi_http, asgi_ws; not \"HTTP/1.1\"."
    );
}

// Errors.

#[test]
fn each_error_says_what_is_wrong_and_what_is_allowed() {
    for (line, expected) in [
        ("--colour", "There is no flag \"--colour\"."),
        ("--prot 80", "There is no flag \"--prot\". Perhaps you mean --port?"),
        ("--ws-origin https://a.example", "--ws-origin is a flag of asgi_ws only."),
        ("--connect ws://localhost/", "--connect is a flag of asgi_ws only."),
        ("--port", "--port needs a value: a number from 0 to 65535."),
        ("--port --wire", "--port needs a value: a number from 0 to 65535."),
        ("--wire=yes", "--wire stands alone; it cannot be \"yes\"."),
        ("--help=port", "--help stands alone; it cannot be \"port\"."),
        ("--port 80000", "--port takes a number from 0 to 65535; not \"80000\"."),
        ("--port=", "--port takes a number from 0 to 65535; not \"\"."),
        ("--threads 0", "--threads takes a number from 1 to 12000; not \"0\"."),
        (
            "--timeout-head 10s",
            "--timeout-head takes seconds from 0.1 to 86400, such as 5 or 0.5; not \"10s\".",
        ),
        ("--max-body 16MB", "--max-body takes a size, such as 65536, 64K or 16M; not \"16MB\"."),
        (
            "--limit-request-line 1",
            "--limit-request-line takes a size from 256 to 1048576, such as 8192 or 8K; not \"1\".",
        ),
        (
            "--access-log apache",
            "--access-log takes none, short, common, combined or json; not \"apache\".",
        ),
        (
            "--host localhost:80",
            "--host takes a host name or an address, without a port; not \"localhost:80\".",
        ),
        (
            "--root-path shop/",
            "--root-path takes a path such as /shop, without a slash at its end; not \"shop/\".",
        ),
        ("--uploads=", "--uploads takes a folder; not \"\"."),
        ("--port 1 --wire --port=2", "--port is there twice. Which one counts?"),
        ("--wire --wire", "--wire is there twice. Which one counts?"),
        ("shop:app blog:app", "The application is there twice. Which one counts?"),
        ("shop:app --wire --static s", &ONLY_FOR_SITE.replace("FLAG", "--static")),
        ("--uploads u static:docs", &ONLY_FOR_SITE.replace("FLAG", "--uploads")),
        ("--templates t shop:app", &ONLY_FOR_SITE.replace("FLAG", "--templates")),
        ("shop:app --debug", &ONLY_FOR_SITE.replace("FLAG", "--debug")),
        ("--wire 1", &no_flag("1", 1)),
        ("--wire one", &no_flag("one", 8000)),
        ("static:", &no_flag("static:", 8000)),
        ("8001", &no_flag("8001", 8001)),
        ("a.b:8001", &no_flag("a.b:8001", 8001)),
        ("http://a:81/", &no_flag("http://a:81/", 81)),
        ("[::1]:8001", &no_flag("[::1]:8001", 8001)),
        ("8001:", &no_flag("8001:", 8000)),
        (":app", &no_flag(":app", 8000)),
        ("-", "There is no flag \"-\"."),
        ("--", "There is no flag \"--\"."),
    ] {
        assert_eq!(error(line), expected, "{line}");
    }
}

#[test]
fn what_is_no_text_is_an_error_and_no_panic() {
    let broken = OsString::from_vec(b"caf\xe9".to_vec());
    for arguments in [vec![broken.clone()], vec!["--uploads".into(), broken.clone()]] {
        let error = parse(Some(Wsgi), arguments, |_| None).unwrap_err();
        assert_eq!(error, UsageError::NotText("caf\u{fffd}".to_string()));
        assert_eq!(error.to_string(), "\"caf\u{fffd}\" is not valid UTF-8.");
    }
    let in_host = |name: &str| (name == "HOST").then(|| broken.clone());
    assert!(matches!(parse(Some(Wsgi), [""; 0], in_host), Err(UsageError::NotText(_))));
    let in_protocol = |name: &str| (name == "SERVER_PROTOCOL").then(|| broken.clone());
    assert!(matches!(parse(None, [""; 0], in_protocol), Err(UsageError::NotText(_))));
    assert!(parse(Some(Wsgi), [""; 0], in_protocol).is_ok());
}

#[test]
fn an_error_carries_no_commands_to_the_terminal() {
    for argument in ["--\x1b[2J", "\x07", "--port=\x1b]0;title\x07", "--host=a\nb"] {
        let error = parse(Some(Wsgi), [argument], |_| None).unwrap_err().to_string();
        assert!(!error.chars().any(char::is_control), "{error:?}");
    }
}

#[test]
fn the_flag_that_was_perhaps_meant_is_named() {
    for (typed, meant) in [
        ("--prot", "--port"),
        ("--hots", "--host"),
        ("--thread", "--threads"),
        ("--PORT", "--port"),
        ("--keep_alive", "--keep-alive"),
        ("--limit_request_line", "--limit-request-line"),
        ("--keepalive", "--keep-alive"),
        ("--acces-log", "--access-log"),
        ("--forwarded", "--forwarded-allow-ips"),
        ("--bind", "--host and --port"),
        ("-w", "--workers"),
        ("--timeout-graceful-shutdown", "--graceful-timeout"),
        ("--no-access-log", "--access-log none"),
        ("--ws-max-size", "--ws-max-message"),
    ] {
        let expected = format!("There is no flag {typed:?}. Perhaps you mean {meant}?");
        assert_eq!(error(typed), expected);
    }
    for typed in ["--x", "--reload", "-q", "--ssl-keyfile", "--user"] {
        assert_eq!(error(typed), format!("There is no flag {typed:?}."));
    }
    // A mistake in any row is one that leads back to it.
    for flag in FLAGS.iter().flat_map(|group| group.flags) {
        let typed = format!("{}x", flag.name);
        assert_eq!(
            error(&typed),
            format!("There is no flag {typed:?}. Perhaps you mean {}?", flag.name)
        );
    }
}

// Values.

#[test]
fn numbers_have_a_first_and_a_last() {
    for flag in FLAGS.iter().flat_map(|group| group.flags) {
        let (range, unit) = match &flag.takes {
            Takes::Number(range, _) | Takes::Size(range, _) => (range, 1),
            Takes::Seconds(range, _) => (range, 1000),
            _ => continue,
        };
        let fits = |value: u128| {
            let decimals = if unit == 1 { String::new() } else { format!(".{:03}", value % 1000) };
            let line = format!("{} {}{decimals}", flag.name, value / unit);
            outcome(Some(AsgiWs), &line, &[]).is_ok()
        };
        let (first, last) = (u128::from(*range.start()), u128::from(*range.end()));
        assert!(fits(first) && fits(last), "{}", flag.name);
        assert!(!fits(last + 1), "{}", flag.name);
        assert!(first == 0 || !fits(first - 1), "{}", flag.name);
    }
}

#[test]
fn a_number_is_written_in_digits() {
    for value in ["+80", "-1", "8 0", "0x50", "80.", "٨٠", "1e3", "8_000", " 80"] {
        assert!(parse(Some(Wsgi), [format!("--port={value}")], |_| None).is_err(), "{value}");
    }
    assert_eq!(config("--port 00080").settings.port, 80);
}

#[test]
fn a_size_may_have_a_letter() {
    let size = |text: &str| {
        let command = outcome(Some(Wsgi), &format!("--max-body={text}"), &[]);
        command.ok().map(|command| match command {
            Command::Serve(config) => config.settings.limits.body.body,
            other => panic!("{other:?}"),
        })
    };
    for (text, expected) in [
        ("0", Some(0)),
        ("16777216", Some(16 << 20)),
        ("64K", Some(64 << 10)),
        ("16M", Some(16 << 20)),
        ("2G", Some(2 << 30)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("17179869184G", None),
        ("K", None),
        ("16k", None),
        ("16KB", None),
        ("1.5M", None),
        ("-1M", None),
    ] {
        assert_eq!(size(text), expected, "{text}");
    }
}

#[test]
fn a_time_may_have_a_point() {
    let time = |text: &str| {
        let command = outcome(Some(Wsgi), &format!("--keep-alive={text}"), &[]);
        command.ok().map(|command| match command {
            Command::Serve(config) => config.settings.deadlines.keep_alive.as_millis(),
            other => panic!("{other:?}"),
        })
    };
    for (text, expected) in [
        ("0", Some(0)),
        ("5", Some(5000)),
        ("0.5", Some(500)),
        ("0.25", Some(250)),
        ("0.005", Some(5)),
        ("1.050", Some(1050)),
        ("86400", Some(86_400_000)),
        ("86400.001", None),
        ("0.0005", None),
        (".5", None),
        ("5.", None),
        ("5,0", None),
        ("1.2.3", None),
        ("5s", None),
        ("inf", None),
        ("NaN", None),
        ("1e3", None),
        ("-0", None),
        ("99999999999999999999", None),
    ] {
        assert_eq!(time(text), expected, "{text}");
    }
}

#[test]
fn a_host_is_a_name_or_an_address_and_nothing_more() {
    for (text, expected) in [
        ("localhost", Some("localhost")),
        ("0.0.0.0", Some("0.0.0.0")),
        ("::", Some("::")),
        ("::1", Some("::1")),
        ("[::1]", Some("::1")),
        ("db-1.example", Some("db-1.example")),
        ("http://localhost", None),
        ("localhost:80", None),
        ("[::1]:80", None),
        ("[localhost]", None),
        ("a/b", None),
        ("-h", None),
        ("", None),
    ] {
        let command = parse(Some(Wsgi), [format!("--host={text}")], |_| None);
        let host = match &command {
            Ok(Command::Serve(config)) => Some(config.settings.host.as_str()),
            _ => None,
        };
        assert_eq!(host, expected, "{text}");
    }
}

#[test]
fn a_path_of_a_proxy_begins_with_a_slash_and_ends_without() {
    for (text, fits) in [
        ("/shop", true),
        ("/a/b-c_d.e~1", true),
        ("/", false),
        ("shop", false),
        ("/shop/", false),
        ("//evil.example", false),
        ("/a b", false),
        ("/a?b", false),
        ("/a\r\nX: y", false),
        ("", false),
    ] {
        let command = parse(Some(Wsgi), [format!("--root-path={text}")], |_| None);
        assert_eq!(command.is_ok(), fits, "{text:?}");
    }
}

#[test]
fn only_the_proxies_of_the_list_are_believed() {
    let trusted = |list: &str| config(&format!("--forwarded-allow-ips={list}")).forwarded_allow_ips;
    let ip = |text: &str| text.parse().expect("an address");
    let two = trusted("10.0.0.1,::1");
    assert!(two.contains(ip("10.0.0.1")) && two.contains(ip("::1")));
    assert!(!two.contains(ip("10.0.0.2")) && !two.contains(ip("127.0.0.1")));
    // The same peer, seen through a socket of IPv6; and the same the other way round.
    assert!(two.contains(ip("::ffff:10.0.0.1")));
    assert!(trusted("::ffff:10.0.0.1").contains(ip("10.0.0.1")));
    assert!(!config("").forwarded_allow_ips.contains(ip("127.0.0.1")), "nobody by default");
    assert!(trusted("*").contains(ip("203.0.113.9")));
    for list in ["", ",", "10.0.0.1,", "10.0.0.1,*", "localhost", "10.0.0.0/8", "10.0.0.256"] {
        let line = format!("--forwarded-allow-ips={list}");
        assert!(outcome(Some(Wsgi), &line, &[]).is_err(), "{list}");
    }
}

#[test]
fn an_origin_is_written_as_browsers_send_it() {
    let origins = |list: &str| match outcome(Some(AsgiWs), &format!("--ws-origin={list}"), &[]) {
        Ok(Command::Serve(config)) => config.ws_origins,
        _ => Vec::new(),
    };
    assert_eq!(
        origins("https://a.example,http://localhost:3000"),
        ["https://a.example", "http://localhost:3000"]
    );
    assert_eq!(origins("HTTPS://A.Example"), ["https://a.example"]);
    for list in ["", "null", "*", "a.example", "https://", "https://a/", "https://a,", "ws://a"] {
        assert_eq!(origins(list), [""; 0], "{list}");
    }
}

#[test]
fn connect_takes_the_address_of_a_web_socket_apart() {
    let url = |text: &str| match outcome(Some(AsgiWs), &format!("--connect {text} --wire"), &[]) {
        Ok(Command::Connect(url, config)) => {
            assert!(config.settings.wire_view, "the other flags are not lost");
            let WebSocketUrl { authority, host, port, target } = url;
            format!("{authority} {host} {port} {target}")
        }
        Ok(other) => panic!("{other:?}"),
        Err(_) => String::new(),
    };
    assert_eq!(url("ws://localhost:8000/ws/chat/"), "localhost:8000 localhost 8000 /ws/chat/");
    assert_eq!(url("ws://localhost"), "localhost localhost 80 /");
    assert_eq!(url("ws://a.example?x=1"), "a.example a.example 80 /?x=1");
    assert_eq!(url("ws://[::1]:9/a?b"), "[::1]:9 ::1 9 /a?b");
    assert_eq!(url("ws://[::1]"), "[::1] ::1 80 /");
    for text in [
        "ws://",
        "ws:///a",
        "localhost",
        "http://a/",
        "wss://a/",
        "ws://a:/",
        "ws://a:70000/",
        "ws://a:+1/",
        "ws://::1/",
        "ws://user@a/",
        "ws://a/#part",
        "ws://a/é",
    ] {
        assert_eq!(url(text), "", "{text}");
    }
}

// What is printed.

#[test]
fn the_help_fits_on_a_screen_and_has_every_flag() {
    for own in [None, Some(Wsgi), Some(AsgiHttp), Some(AsgiWs)] {
        let help = help(own);
        assert!(help.lines().count() <= 32, "{help}");
        assert!(help.is_ascii() && help.ends_with('\n'));
        for line in help.lines() {
            assert!(line.len() <= 80, "{} columns: {line}", line.len());
            assert_eq!(line, line.trim_end());
        }
        for group in FLAGS {
            let here = own.is_none() || group.only.is_none() || group.only == own;
            assert_eq!(help.contains(&format!("\n{}", group.name)), here, "{}", group.name);
            for flag in group.flags {
                let line = help.lines().find(|line| line.contains(&format!("{} ", flag.name)));
                assert_eq!(line.is_some(), here, "{}", flag.name);
                let fits = line.is_none_or(|line| {
                    line.contains(flag.help)
                        && line.ends_with(&format!("{} ", flag.default).trim_end())
                });
                assert!(fits, "{line:?}");
            }
        }
        assert!(ENVIRONMENT.iter().all(|(name, _)| help.contains(name)));
        assert!(Format::WORDS.iter().all(|(word, _)| help.contains(word)));
        assert_eq!(help.contains("SERVER_PROTOCOL"), own.is_none());
    }
}

#[test]
fn a_word_and_its_help_are_never_glued_together() {
    for flag in FLAGS.iter().flat_map(|group| group.flags) {
        let help = help(None);
        let line = help.lines().find(|line| line.contains(&format!("{} ", flag.name)));
        let line = line.expect("a line for each flag");
        let at = line.find(flag.help).expect("its help");
        assert_eq!(&line[at - 1..at], " ", "{line}");
        let rest = &line[at + flag.help.len()..];
        assert!(rest.is_empty() || rest.starts_with(' '), "{line}");
    }
}

#[test]
fn help_and_version_are_asked_for_in_passing() {
    for line in ["--help", "-h", "--wire --help", "--help --nonsense"] {
        let command = outcome(Some(AsgiHttp), line, &[("PORT", "nonsense")]);
        assert!(
            matches!(command, Ok(Command::Help(text)) if text == help(Some(AsgiHttp))),
            "{line}"
        );
    }
    let version = concat!("glasshouse ", env!("CARGO_PKG_VERSION"), "\n");
    let command = outcome(None, "--version", &[]);
    assert!(matches!(command, Ok(Command::Version(text)) if text == version));
    assert!(outcome(Some(Wsgi), "--nonsense --help", &[]).is_err());
}

#[test]
fn the_example_of_the_help_works() {
    for own in [None, Some(Wsgi), Some(AsgiHttp), Some(AsgiWs)] {
        let help = help(own);
        let examples: Vec<&str> =
            help.lines().filter_map(|line| line.split_once(" -- ")).map(|(_, line)| line).collect();
        assert_eq!(examples.len(), 1);
        for line in examples {
            assert!(matches!(outcome(own, line, &[]), Ok(Command::Serve(_))), "{line}");
        }
    }
}

#[test]
fn the_greeting_has_an_address_that_can_be_opened() {
    let greet = |line: &str, address: &str| {
        let address: SocketAddr = address.parse().expect("an address");
        greeting(&config(line), address)
    };
    let pid = std::process::id();
    assert_eq!(
        greet("", "127.0.0.1:8000"),
        format!(
            "Glasshouse: http://127.0.0.1:8000/ (asgi_ws, 1 worker, up to 512 threads, pid {pid}). \
             Ctrl-C stops.\n"
        )
    );
    assert_eq!(
        greet("--workers 2 --threads 1", "[::1]:80"),
        format!(
            "Glasshouse: http://[::1]:80/ (asgi_ws, 2 workers, up to 1 thread each, pid {pid}). \
             Ctrl-C stops.\n"
        )
    );
    for (bound, opened) in [("0.0.0.0:81", "http://127.0.0.1:81/"), ("[::]:81", "http://[::1]:81/")]
    {
        let line = greet("", bound);
        assert!(line.contains(opened) && line.contains("threads, all addresses, pid"), "{line}");
    }
}

#[test]
fn a_server_that_cannot_be_bound_says_what_to_do() {
    let taken = BindError::InUse("127.0.0.1:8000".to_string());
    let text = advice(&taken, &config(""));
    assert_eq!(text, format!("{taken}\nFor another port: --port 8001\n"));
    assert!(advice(&taken, &config("--port 8001")).contains("--port 8002"));
    let unknown = BindError::Other("x86_64-linux:8000".into(), "no such name".into());
    let text = advice(&unknown, &in_environment("", &[("HOST", "x86_64-linux")]));
    assert_eq!(text, format!("{unknown}\nHOST is set in the environment, and was followed.\n"));
}

#[test]
fn printing_into_a_pipe_that_has_gone_is_no_panic() {
    let code = format!("{:?}", say(&mut Gone, &help(None), 2));
    assert_eq!(code, format!("{:?}", std::process::ExitCode::from(2)));
    let mut out = Vec::new();
    say(&mut out, "Hello", 0);
    assert_eq!(out, b"Hello");
}

// Everything at once.

#[test]
fn a_hundred_thousand_random_command_lines_do_not_panic() {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % limit as u64) as usize
    };
    let names: Vec<&str> =
        FLAGS.iter().flat_map(|group| group.flags).map(|flag| flag.name).collect();
    let values = [
        "",
        "0",
        "1",
        "8000",
        "80000",
        "0.5",
        "16M",
        "18446744073709551615G",
        "::",
        "[",
        "[]",
        "json",
        "*",
        ",",
        "/",
        "/a",
        "ws://",
        "ws://[",
        "ws://a:b:1/",
        "https://",
        "=",
        "-",
        "--",
        "é",
        "10.0.0.1,::1",
        "99999999999999999999.9999",
        "0.",
        "ws://]:1",
    ];
    let owns = [None, Some(Wsgi), Some(AsgiHttp), Some(AsgiWs)];
    let mut counts = [0, 0];
    for _ in 0..100_000 {
        let mut arguments = Vec::new();
        for _ in 0..below(4) {
            let mut word = names[below(names.len())].as_bytes().to_vec();
            match below(5) {
                0 => word.extend(format!("={}", values[below(values.len())]).bytes()),
                1 => {
                    let at = below(word.len());
                    word[at] = below(256) as u8;
                }
                2 => word.truncate(below(word.len())),
                _ => {}
            }
            arguments.push(OsString::from_vec(word));
            if below(3) > 0 {
                arguments.push(OsString::from(values[below(values.len())]));
            }
        }
        let variable = values[below(values.len())];
        let environment = |name: &str| (name.len() > 4).then(|| OsString::from(variable));
        let outcome = parse(owns[below(4)], arguments.clone(), environment);
        counts[usize::from(outcome.is_ok())] += 1;
        if let Err(error) = outcome {
            assert!(error.to_string().ends_with(['.', '?']), "{error}");
        }
    }
    assert!(counts[0] > 1000 && counts[1] > 1000, "{counts:?}");
}

// Exercises.

#[test]
#[ignore = "exercise 38.2"]
fn exercise_38_2_the_usual_port_is_no_part_of_an_origin() {
    let origins = config("--ws-origin https://a.example:443,http://b.example:80").ws_origins;
    assert_eq!(origins, ["https://a.example", "http://b.example"]);
    let others = config("--ws-origin https://a.example:80,http://b.example:8000").ws_origins;
    assert_eq!(others, ["https://a.example:80", "http://b.example:8000"]);
}

#[test]
#[ignore = "exercise 38.4"]
fn exercise_38_4_a_new_flag_is_a_new_row() {
    let Ok(Command::Serve(config)) = outcome(Some(Wsgi), "--timeout-linger 2", &[]) else {
        panic!("there is no such flag yet");
    };
    assert_eq!(config.settings.deadlines.linger, Duration::from_secs(2));
    assert!(help(None).contains("--timeout-linger SECONDS"));
    assert!(error("--timeout-linger x").starts_with("--timeout-linger takes seconds from "));
    assert!(error("--timeout-longer 2").ends_with("Perhaps you mean --timeout-linger?"));
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
