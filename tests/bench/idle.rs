//! The idle mode: a house full of guests who say nothing. A thread that waits must cost little
//! memory, must not be shown out while there is room, and must not slow down the one who talks.

use crate::client::{Client, Work};
use crate::process::descriptor_limit;
use crate::report::{line, percentiles};
use crate::{GET, PING, SERVER, SOCKET_SERVER, server};
use std::time::Duration;

/// More threads than guests.
const FLAGS: [&str; 2] = ["--threads", "11000"];

/// Descriptors that are no guest's: standard streams, pipes, the listener, fresh clients.
const SPARE: usize = 50;

/// Opens the connections, waits, asks each again. `Ok(false)` if one of them was lost.
pub fn run(connections: usize, silence: Duration, websocket: bool) -> Result<bool, String> {
    let needed = connections + SPARE;
    if descriptor_limit().is_some_and(|limit| limit < needed) {
        let advice = format!("run `ulimit -n {needed}` first, or pass --connections");
        return Err(format!("{connections} connections need {needed} descriptors: {advice}"));
    }
    let (program, work) = if websocket { (SOCKET_SERVER, PING) } else { (SERVER, GET) };
    let process = server(program, &FLAGS)?;
    let mut guests = Client::open(process.address, work, connections)?;
    let before = process.memory();
    let opened = guests.ask_each();
    let after = process.memory();
    println!("{} of {connections} connections opened and answered once", opened.done);

    // The talkers come while the guests are silent; each has half of the time.
    let steady = Client::open(process.address, work, 1)?.drive(silence / 2);
    let comers = Client::open(process.address, Work::Connect, 1)?.drive(silence / 2);
    let again = guests.ask_each();

    let alive = format!("{} of {connections} answer again after {silence:?}", again.done);
    line("alive", &alive, "all", again.done == connections as u64);
    if let (Some([before, _]), Some([after, _])) = (before, after) {
        let each = (after - before) * 1024.0 / connections as f64;
        let note = format!("{each:.1} KB a connection: {before:.1} MB before, {after:.1} MB after");
        line("memory", &note, "20 KB", each <= 20.0);
    }
    let mut tallies = [steady, comers, opened, again];
    for (name, tally) in ["p99", "p99 new"].iter().zip(&mut tallies) {
        let [middle, late] = percentiles(&mut tally.latencies);
        let note = format!("{late:.0} us, p50 {middle:.0} us, {} requests", tally.done);
        line(name, &note, "250 us", late <= 250.0);
    }
    for reason in tallies.iter().filter_map(|tally| tally.reason.as_ref()) {
        println!("  ERRORS, the first: {reason}");
    }
    Ok(tallies.iter().all(|tally| tally.errors == 0))
}
