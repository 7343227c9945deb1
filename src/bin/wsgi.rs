//! `cargo run --bin wsgi`: the demo site behind WSGI.

use std::process::ExitCode;

use glasshouse::site::program::{Protocol, run};

fn main() -> ExitCode {
    run(Protocol::Wsgi)
}
