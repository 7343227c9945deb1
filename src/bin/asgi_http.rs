//! `cargo run --bin asgi_http`: the demo site behind ASGI.

use std::process::ExitCode;

use glasshouse::running::command_line::Protocol;
use glasshouse::site::program::run;

fn main() -> ExitCode {
    run(Some(Protocol::AsgiHttp))
}
