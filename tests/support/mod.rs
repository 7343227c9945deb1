//! What the tests share: standard library only, and never `glasshouse` itself, so that every
//! chapter's tests also build against the crate cut after that chapter.
#![allow(dead_code)] // each test file uses its own part of this

pub mod book;
pub mod bytes;
pub mod client;
pub mod form_cases;
pub mod mutator;
pub mod prefix;
pub mod process;
pub mod server;
pub mod template_cases;
pub mod transcript;
pub mod watchdog;
pub mod websocket;
pub mod wire_cases;

use process::Process;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A pipe whose other end has gone, as behind `| head -1`.
pub struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// False if there is no interpreter, which is said once for each test.
pub fn has_python() -> bool {
    let mut command = Command::new("python3");
    let found = command.arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        // Not `eprintln!`: the test harness would keep it to itself.
        let _ = writeln!(std::io::stderr(), "skipped: there is no python3 here");
    }
    found
}

/// Fails when an ignored `exercise_*` test of the calling test file already passes.
///
/// The test file runs itself again, one exercise at a time, so that an exercise which hangs or
/// aborts is only one red exercise.
pub fn exercises_start_red() {
    let own = std::env::current_exe().expect("the path of this test program");
    let listed = Command::new(&own)
        .args(["--list", "--ignored"])
        .output()
        .expect("this test program lists its tests");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut green = Vec::new();
    for name in listed.lines().filter_map(|line| line.strip_suffix(": test")) {
        if !name.starts_with("exercise_") {
            continue;
        }
        let mut command = Command::new(&own);
        command.args(["--exact", name, "--ignored"]);
        let mut run = Process::spawn(command.stdout(Stdio::null()));
        if run.finish(Duration::from_secs(20)) == Some(Some(0)) {
            let number: Vec<&str> = name.split('_').skip(1).take(2).collect();
            green.push(format!(
                "exercise {} passes: well done! Now undo the change (git checkout src), or delete \
                 its ignore line and keep both ({name})",
                number.join(".")
            ));
        }
    }
    assert!(green.is_empty(), "{}", green.join("\n"));
}
