//! `cargo run --bin asgi_ws`: the demo site behind ASGI, with WebSockets.

use std::process::ExitCode;

use glasshouse::running::command_line::Protocol;
use glasshouse::site::program::run;

fn main() -> ExitCode {
    run(Some(Protocol::AsgiWs))
}
