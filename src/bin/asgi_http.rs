//! `cargo run --bin asgi_http`: the demo site behind ASGI.

use std::process::ExitCode;

use glasshouse::site::program::{Protocol, run};

fn main() -> ExitCode {
    run(Protocol::AsgiHttp)
}
