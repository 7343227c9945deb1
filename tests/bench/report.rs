//! Samples in, table out.

use crate::Row;
use crate::client::{BODY, Client, Tally, Work};
use crate::options::{Options, Rival};
use crate::process::Process;
use std::time::{Duration, Instant};

/// One of the two servers of a row, and what is known about it so far.
pub struct Side {
    client: Client,
    /// `None`: not ours, so its processor time and memory are unknown.
    process: Option<Process>,
    /// Answers a second, one figure per slice.
    rates: Vec<f64>,
    /// The answers of all slices.
    pub tally: Tally,
    /// Its processor time before the first slice.
    before: Option<f64>,
}

impl Side {
    pub fn new(client: Client, process: Option<Process>) -> Side {
        Side { client, process, rates: Vec::new(), tally: Tally::default(), before: None }
    }

    /// A slice of which only the errors count.
    pub fn warm_up(&mut self, time: Duration) {
        let Tally { errors, reason, .. } = self.client.drive(time);
        self.tally.add(Tally { errors, reason, ..Tally::default() });
        self.before = self.processor();
    }

    pub fn slice(&mut self, time: Duration) {
        let begun = Instant::now();
        let tally = self.client.drive(time);
        self.rates.push(tally.done as f64 / begun.elapsed().as_secs_f64());
        self.tally.add(tally);
    }

    fn processor(&self) -> Option<f64> {
        self.process.as_ref()?.processor_time()
    }

    /// Processor time of one answer.
    fn cost(&self) -> String {
        let spent = self.processor().zip(self.before).map(|(now, before)| now - before);
        match spent.map(|spent| spent / self.tally.done as f64) {
            None => "-".to_string(),
            Some(cost) if cost < 1e3 => format!("{cost:.1} us"),
            Some(cost) => format!("{:.0} ms", cost / 1e3),
        }
    }

    fn memory(&self) -> String {
        let figures = self.process.as_ref().and_then(Process::memory);
        figures.map_or("-".to_string(), |[now, peak]| format!("{now:.1} / {peak:.1}"))
    }
}

/// How it is measured, then the names of the columns.
pub fn heading(options: &Options) {
    let rival = match &options.rival {
        Rival::Floor => "a floor that parses nothing",
        Rival::Program(path) => path,
        Rival::Address(address) => &address.to_string(),
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    println!("A: the server   B: {rival}   {processors} processors");
    println!("{} slices of {:?} each, A B A B ...; medians", options.slices, options.time);
    println!("ratio: A/B of the medians; range: A/B of the pairs of slices");
    println!("cpu: processor time per request or body; memory: of A, after the row / peak\n");
    table(["row", "A", "B", "ratio", "range", "cpu A / B", "memory MB", "aim"]);
}

/// One line of the table, then a line for latency and one for errors, if there are any.
pub fn row(row: &Row, sides: &[Side; 2]) {
    let [server, rival] = sides;
    let pairs = server.rates.iter().zip(&rival.rates);
    let mut ratios: Vec<f64> = pairs.map(|(server, rival)| server / rival).collect();
    ratios.sort_by(f64::total_cmp);
    let [ours, theirs] = [server, rival].map(|side| median(&mut side.rates.clone()));
    let ratio = ours / theirs;
    let aim = row.aim.map_or("-".to_string(), |aim| format!("{aim:.2} {}", mark(ratio >= aim)));
    table([
        row.name,
        &rate(row.work, ours),
        &rate(row.work, theirs),
        &format!("{ratio:.2}"),
        &format!("{:.2}-{:.2}", ratios[0], ratios[ratios.len() - 1]),
        &format!("{} / {}", server.cost(), rival.cost()),
        &server.memory(),
        &aim,
    ]);
    for (name, side) in ["A", "B"].iter().zip(sides) {
        let mut latencies = side.tally.latencies.clone();
        let alone = matches!(row.work, Work::Get { depth: 1 } | Work::Echo { depth: 1, .. });
        if alone && row.connections == 1 {
            let [middle, late] = percentiles(&mut latencies);
            println!("  latency {name}: p50 {middle:.1} us, p99 {late:.1} us");
        }
        if let Some(reason) = &side.tally.reason {
            println!("  ERRORS {name}: {}, the first: {reason}", side.tally.errors);
        }
    }
}

fn table(columns: [&str; 8]) {
    let [name, ours, theirs, ratio, range, cost, memory, aim] = columns;
    println!("{name:<14}{ours:>11}{theirs:>12}{ratio:>7}{range:>11}{cost:>19}{memory:>13}   {aim}");
}

/// A line that is no ratio.
pub fn line(name: &str, note: &str, aim: &str, reached: bool) {
    println!("{name:<14}{note:<72}   {aim} {}", mark(reached));
}

fn mark(reached: bool) -> &'static str {
    if reached { "ok" } else { "BELOW" }
}

fn rate(work: Work, per_second: f64) -> String {
    if let Work::Echo { size: size @ 1024.., .. } = work {
        return format!("{:.2} GB/s", per_second * size as f64 / 1e9);
    }
    if let Work::Upload { size } = work {
        return format!("{:.2} GB/s", per_second * size as f64 / 1e9);
    }
    if matches!(work, Work::Download | Work::Multipart) {
        return format!("{:.2} GB/s", per_second * BODY as f64 / 1e9);
    }
    format!("{:.1} k/s", per_second / 1e3)
}

/// The middle one; of an even number, the higher of the middle two. Sorts what it is given.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The latencies that a half and that 99 of 100 requests do not exceed, in microseconds.
pub fn percentiles(latencies: &mut [u64]) -> [f64; 2] {
    latencies.sort_unstable();
    [50, 99].map(|part| {
        let at = latencies.len() * part / 100;
        latencies.get(at).map_or(f64::NAN, |found| *found as f64 / 1e3)
    })
}
