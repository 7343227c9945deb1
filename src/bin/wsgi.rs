//! `cargo run --bin wsgi`: the demo site behind WSGI.

use std::process::ExitCode;

use glasshouse::running::command_line::Protocol;
use glasshouse::site::program::run;

fn main() -> ExitCode {
    run(Some(Protocol::Wsgi))
}
