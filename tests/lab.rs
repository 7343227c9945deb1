//! `cargo run --bin lab`, as its user sees it.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use support::server::Server;

/// The exit code, and what was printed on stdout and on stderr.
#[track_caller]
fn lab(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    let output = command.args(arguments).output().expect("the lab runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn help_names_every_attack_on_one_screen() {
    for arguments in [&["--help"][..], &["smuggle", "-h"], &[]] {
        let (code, out, err) = lab(arguments);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        for line in ["\n  slowloris      sends many heads", "\n  ws-bomb ", "\n  hammer "] {
            assert!(out.contains(line), "{out}");
        }
        assert!(out.lines().count() <= 24 && out.lines().all(|line| line.len() <= 80), "{out}");
    }
}

#[test]
fn a_wrong_command_line_is_answered_with_advice_and_2() {
    for (arguments, want) in [
        (&["slowlorris"][..], "There is no attack \"slowlorris\". Perhaps you mean slowloris?\n"),
        (&["smugle"], "There is no attack \"smugle\". Perhaps you mean smuggle?\n"),
        (&["ws_bomb"], "There is no attack \"ws_bomb\". Perhaps you mean ws-bomb?\n"),
        (&["hamer"], "There is no attack \"hamer\". Perhaps you mean hammer?\n"),
        (&["zzz"], "There is no attack \"zzz\".\nTry --help.\n"),
        (&["smuggle", "--sed", "1"], "There is no flag \"--sed\".\nTry --help.\n"),
        (
            &["hammer", "--second", "1"],
            "There is no flag \"--second\". Perhaps you mean --seconds?\n",
        ),
        (
            &["smuggle", "--port", "8001"],
            "There is no flag \"--port\".\nFor a server at another port: --target 127.0.0.1:8001\n",
        ),
        (
            &["smuggle", "127.0.0.1:8001"],
            "\"127.0.0.1:8001\" is no attack.\nFor a server at another port: --target ",
        ),
        (
            &["8001"],
            "\"8001\" is no attack.\nFor a server at another port: --target 127.0.0.1:8001\n",
        ),
        (&["--seconds", "5", "smuggle"], "--seconds is for hammer alone.\nTry --help.\n"),
        (&["storm", "--connections=9"], "--connections is for hammer alone.\nTry --help.\n"),
        (&["smuggle", "storm"], "\"storm\" is one attack too many: one at a time.\n"),
        (&["smuggle", "--target"], "--target needs a value.\nTry --help.\n"),
        (&["smuggle", "--target", "--seconds", "1"], "--target needs a value.\nTry --help.\n"),
        (&["hammer", "--seconds=0"], "--seconds takes a number from 1 to 60; not \"0\".\n"),
        (&["hammer", "--connections", "x"], "--connections takes a number from 1 to 1000; "),
        (&["smuggle", "--target", "192.0.2.1:80"], "192.0.2.1:80 is not this machine: "),
        (&["hammer", "--target", "192.0.2.1:80"], "192.0.2.1:80 is not this machine: "),
        (
            &["smuggle", "--target", "8001"],
            "\"8001\" is no address with a port.\nWrite it as 127.0.0.1:8001.\n",
        ),
    ] {
        let (code, out, err) = lab(arguments);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
        assert!(err.starts_with(want), "{err}");
    }
}

#[test]
#[cfg(unix)]
fn bytes_that_are_no_text_are_no_attack() {
    use std::os::unix::ffi::OsStrExt;
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    let output = command.arg(std::ffi::OsStr::from_bytes(b"\xff")).output().expect("the lab runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn without_a_server_it_says_how_to_start_one() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let free = free.expect("a port that was free").to_string();
    for name in ["silent", "hammer"] {
        let (code, out, err) = lab(&[name, "--target", &free]);
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(err.starts_with(&format!("Nobody listens at {free} (")), "{err}");
        assert!(err.contains("Start a server in another terminal: cargo run --bin wsgi"), "{err}");
        assert!(err.contains("For a server at another port: --target "), "{err}");
    }
}

#[test]
fn the_exit_code_says_whether_the_server_held() {
    let server = Server::start(env!("CARGO_BIN_EXE_wsgi"), &[]);
    let target = format!("--target=http://{}/", server.address());
    for name in ["half-request", "smuggle", "unread-413", "rst", "storm"] {
        let (code, out, err) = lab(&[name, &target]);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        assert!(out.starts_with(&format!("{name}: ")) && !out.contains('\x1b'), "{out}");
        assert!(out.contains("\nThe server held.\n"), "{out}");
    }
    // What was not attacked has not held.
    let (code, out, _) = lab(&["ws-bomb", &target]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("\nNo attack: no WebSocket at /ws/echo/; "), "{out}");
    server.stop();
    // Whoever closes every connection at once does not hold.
    let address = hangs_up_on_all();
    for name in ["silent", "storm", "ws-bomb"] {
        let (code, out, _) = lab(&[name, "--target", &address]);
        assert_eq!(code, Some(1), "{out}");
        assert!(out.contains("The server FELL: "), "{out}");
    }
}

fn hangs_up_on_all() -> String {
    let door = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = door.local_addr().expect("an address").to_string();
    std::thread::spawn(move || door.incoming().for_each(drop));
    address
}

#[test]
fn hammer_counts_the_answers() {
    let server = Server::start(env!("CARGO_BIN_EXE_wsgi"), &[]);
    let address = server.address();
    let arguments = ["hammer", "--target", &address, "--seconds", "2", "--connections", "4"];
    let (code, out, err) = lab(&arguments);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.starts_with("hammer: GET /healthz on 4 connections, "), "{out}");
    let (before, _) = out.split_once(" answers, ").expect("a sum");
    let count = before.rsplit(' ').next().and_then(|count| count.parse().ok());
    assert!(count.is_some_and(|count: u64| count > 0), "{out}");
    // Without a terminal: a line for each second, and no bar.
    let seconds = out.lines().filter(|line| line.ends_with(" answers")).count();
    assert!((1..=2).contains(&seconds), "{out}");
    assert!(
        out.contains("\n  99 of 100    within ") && !out.contains(['#', '\r', '\x1b']),
        "{out}"
    );
    server.stop();
}

#[test]
fn hammer_opens_a_connection_anew_when_the_server_has_closed_it() {
    // With one thread, a server closes after each answer.
    let server = Server::start(env!("CARGO_BIN_EXE_wsgi"), &["--threads", "1"]);
    let address = server.address();
    let arguments = ["hammer", "--target", &address, "--seconds=1", "--connections=1"];
    let (code, out, _) = lab(&arguments);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains(" times the server had closed between two requests\n"), "{out}");
    server.stop();
    // But half an answer is none.
    let (code, out, _) = lab(&["hammer", "--target", &answers_by_halves(), "--seconds=1"]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("\nNot all was well: it hung up before its answer was whole.\n"), "{out}");
    // And a connection without a single answer is no good connection.
    let (code, out, _) = lab(&["hammer", "--target", &hangs_up_on_all(), "--seconds=1"]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("\nNot all was well: "), "{out}");
}

fn answers_by_halves() -> String {
    let door = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = door.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for client in door.incoming() {
            let mut client = client.expect("a client");
            // The request first: what is unread at the end would reset the connection.
            let _ = client.read(&mut [0; 1024]);
            let _ = client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhal");
        }
    });
    address
}
