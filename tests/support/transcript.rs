//! What a `console` fence says, and what may differ when it is replayed.

/// A `$` line and the lines shown under it.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// Counted from the fence's first line.
    pub at: usize,
    /// The lines of the command as written, `$ ` included.
    pub written: Vec<String>,
    pub action: Action,
    pub shown: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// `$ cargo run --bin wsgi -- --wire`
    Run { variables: Vec<(String, String)>, program: Option<String>, flags: Vec<String> },
    /// `$ cargo test --test ch07_request a_name`
    Test { file: String, filter: Option<String> },
    /// `^C`, typed into the terminal of the server.
    Interrupt,
    /// For the reader only: other cargo commands, `git clone`, `cd`.
    Reader,
    /// Anything else, for the shell.
    Shell(String),
}

/// Takes a console fence apart. Lines above the first `$` come back as an error.
pub fn steps(lines: &[String]) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = lines.iter().enumerate();
    while let Some((at, line)) = lines.next() {
        let command = line.strip_prefix("$ ").or((line == "^C").then_some("^C"));
        let Some(first) = command else {
            let Some(step) = steps.last_mut() else {
                return Err(format!("a console fence begins with a `$ ` line, not {line:?}"));
            };
            step.shown.push(line.clone());
            continue;
        };
        let mut written = vec![line.clone()];
        let mut command = first.to_string();
        while command.ends_with('\\') {
            let Some((_, next)) = lines.next() else { break };
            written.push(next.clone());
            command = format!("{command}\n{next}");
        }
        steps.push(Step { at, written, action: action(&command), shown: Vec::new() });
    }
    for step in &mut steps {
        step.shown = trimmed(std::mem::take(&mut step.shown));
    }
    Ok(steps)
}

fn action(command: &str) -> Action {
    let mut words: Vec<&str> = command.split_whitespace().filter(|word| *word != "\\").collect();
    let mut variables = Vec::new();
    while let Some((name, value)) = words.first().and_then(|word| word.split_once('=')) {
        if !name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') {
            break;
        }
        variables.push((name.to_string(), value.to_string()));
        words.remove(0);
    }
    let end = words.iter().position(|word| *word == "--").unwrap_or(words.len());
    let (cargo, flags) = words.split_at(end);
    let flags = flags.iter().skip(1).map(|word| word.to_string()).collect();
    let after = |flag| {
        let at = cargo.iter().position(|word| *word == flag)?;
        Some(cargo.get(at + 1)?.to_string())
    };
    match cargo {
        ["^C"] => Action::Interrupt,
        ["cargo", "run", ..] => Action::Run { variables, program: after("--bin"), flags },
        ["cargo", "test", ..] => match after("--test") {
            Some(file) => {
                let filter = after(&file).filter(|word| !word.starts_with('-'));
                Action::Test { file, filter }
            }
            None => Action::Reader,
        },
        ["cargo", ..] | ["git", "clone", ..] | ["cd", ..] => Action::Reader,
        _ => Action::Shell(command.to_string()),
    }
}

/// Without the empty lines at the end.
pub fn trimmed(mut lines: Vec<String>) -> Vec<String> {
    while lines.last().is_some_and(|line| line.trim().is_empty()) {
        lines.pop();
    }
    lines
}

/// The same output for the reader: line by line the same shape.
pub fn alike(text: &[String], now: &[String]) -> bool {
    text.len() == now.len() && text.iter().zip(now).all(|(text, now)| shape(text) == shape(now))
}

/// The lines of a log, in order; a line `...` skips any number of them.
pub fn log_alike(text: &[String], now: &[String]) -> bool {
    match text.split_first() {
        None => now.is_empty(),
        Some((first, rest)) if first.trim() == "..." => {
            (0..=now.len()).any(|skipped| log_alike(rest, &now[skipped..]))
        }
        Some((first, rest)) => match now.split_first() {
            Some((line, now)) => shape(first) == shape(line) && log_alike(rest, now),
            None => false,
        },
    }
}

/// The new lines, but the old wording of each line whose shape stayed the same, so that a
/// rewritten transcript changes only where its meaning did.
pub fn kept(old: &[String], new: Vec<String>) -> Vec<String> {
    let same =
        |line: String| old.iter().find(|old| shape(old) == shape(&line)).cloned().unwrap_or(line);
    new.into_iter().map(same).collect()
}

/// What may differ: the figure `<name>`, and how it is written. In a pattern `0` is a digit, `#` one
/// or more digits, `A` a capital, `a` a small letter; everything else is itself.
const MAY_DIFFER: [(&str, &str); 20] = [
    ("Date: <date>", "Date: Aaa, 00 Aaa 0000 00:00:00 GMT"),
    ("date: <date>", "date: Aaa, 00 Aaa 0000 00:00:00 GMT"),
    ("[<clock>]", "[00:00:00]"),
    ("[<date>]", "[00/Aaa/0000:00:00:00 +0000]"),
    ("time\":\"<date>", "time\":\"0000-00-00T00:00:00.000Z"),
    ("duration_ms\":<time>", "duration_ms\":#.#"),
    ("127.0.0.1:<port>", "127.0.0.1:#"),
    ("[::1]:<port>", "[::1]:#"),
    ("localhost:<port>", "localhost:#"),
    ("pid <id>", "pid #"),
    ("process <id>", "process #"),
    ("dur=<time>", "dur=#.#"),
    ("<time> ms", "#.# ms"),
    ("<time> us", "#.# us"),
    ("<time> µs", "#.# µs"),
    ("<time> s", "#.# s"),
    ("<time>ms", "#.#ms"),
    ("<time>us", "#.#us"),
    ("<time>µs", "#.#µs"),
    ("<time>s", "#.#s"),
];

/// The line with everything replaced that may differ from one run to the next: the value of `Date`
/// and the clock or date of a log line, ports (except 8000, which stands for the server's own), process ids,
/// and elapsed times (a figure with a decimal point and a unit).
pub fn shape(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line.trim_end();
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let inside =
            before.is_alphanumeric() || before == '.' || before == '/' && first.is_ascii_digit();
        let found = MAY_DIFFER.iter().filter(|_| !inside).find_map(|(name, pattern)| {
            let length = matched(rest, pattern)?;
            let end = rest[length..].chars().next().is_some_and(char::is_alphanumeric);
            (!end && !rest[..length].ends_with(":8000")).then_some((name, length))
        });
        let length = match found {
            Some((name, length)) => {
                out.push_str(name);
                length
            }
            None => {
                out.push(first);
                first.len_utf8()
            }
        };
        before = rest[..length].chars().next_back().unwrap_or(' ');
        rest = &rest[length..];
    }
    out
}

/// The length of `text`'s start that fits the pattern.
fn matched(text: &str, pattern: &str) -> Option<usize> {
    let mut rest = text;
    for expected in pattern.chars() {
        let first = rest.chars().next()?;
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (fits, length) = match expected {
            '0' => (digits > 0, 1),
            '#' => (digits > 0, digits),
            'A' => (first.is_ascii_uppercase(), 1),
            'a' => (first.is_ascii_lowercase(), 1),
            other => (first == other, first.len_utf8()),
        };
        if !fits {
            return None;
        }
        rest = &rest[length..];
    }
    Some(text.len() - rest.len())
}
