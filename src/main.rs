//! `cargo run`: the demo site, behind the contract that `SERVER_PROTOCOL` names.

use std::process::ExitCode;

use glasshouse::site::program::run;

fn main() -> ExitCode {
    run(None)
}
