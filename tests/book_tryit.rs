//! Every transcript of the book is replayed, chapter by chapter, and compared with what is printed now.
//!
//! `BOOK=bless cargo test --test book_tryit` writes what is printed now into TUTORIAL.md.

mod support;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use support::book::{BOOK, Chapter, Fence, Problem, Project, find_word, replace_word, report};
use support::prefix::{Workshop, programs};
use support::process::Process;
use support::server::port_in;
use support::transcript::{Action, Step, alike, kept, log_alike, steps, trimmed};

/// What one command of a transcript may take.
const LIMIT: Duration = Duration::from_secs(20);
/// A program that prints nothing for so long has said what it had to say.
const QUIET: Duration = Duration::from_millis(150);

#[test]
fn the_transcripts_are_what_is_printed_now() {
    let project = Project::load();
    let root = env!("CARGO_MANIFEST_DIR");
    let shop = Workshop::new(&project, root.as_ref(), "tryit");
    // One library for all scratch programs: `book_prefixes` compiles each against its own prefix,
    // and no earlier chapter runs differently because a later one is there.
    let library = std::cell::OnceCell::new();
    let scratch = |name: &str, text: &str| {
        let library: &Result<PathBuf, String> =
            library.get_or_init(|| shop.library(usize::MAX, true, true));
        shop.program(name, text, library.as_ref().map_err(String::clone)?)
    };
    let [curl, python] =
        ["curl", "python3"].map(|program| Command::new(program).arg("--version").output().is_ok());
    let programs = programs();
    let stage = Stage { project: &project, root, programs, scratch: &scratch, curl, python };
    let bless = std::env::var("BOOK").is_ok_and(|value| value == "bless");
    let (mut problems, mut rewrites) = (Vec::new(), Vec::new());
    for chapter in &project.book().chapters {
        let mut found = replay(&stage, chapter);
        problems.append(&mut found.problems);
        if !bless {
            problems.append(&mut found.differences);
        }
        rewrites.append(&mut found.rewrites);
        let skipped = found.skipped;
        if skipped > 0 && std::env::var_os("CI").is_some() {
            let what =
                format!("curl or python3 is missing: {skipped} transcripts were not replayed");
            problems.push(Problem::text(chapter.line, what));
        } else if skipped > 0 {
            let number = chapter.number;
            println!("chapter {number}: curl or python3 is missing, {skipped} transcripts skipped");
        }
    }
    if bless {
        let text = rewritten(project.text(BOOK).unwrap_or_default(), &rewrites);
        std::fs::write(format!("{root}/{BOOK}"), text).expect("TUTORIAL.md can be written");
        println!("{} transcripts rewritten", rewrites.len());
    }
    report(problems);
}

/// Where transcripts are replayed.
struct Stage<'a> {
    project: &'a Project,
    root: &'a str,
    programs: PathBuf,
    /// Builds a scratch program from a name and its text.
    scratch: &'a dyn Fn(&str, &str) -> Result<PathBuf, String>,
    curl: bool,
    python: bool,
}

/// New lines for the fence whose first line inside has this number.
struct Rewrite {
    line: usize,
    old: usize,
    indent: usize,
    new: Vec<String>,
}

/// A program started by `cargo run`, and the port that the text calls 8000.
struct Running {
    process: Process,
    port: u16,
}

/// One chapter's replay: what was found and what runs.
struct Replay<'a> {
    stage: &'a Stage<'a>,
    scratch: Option<&'a Fence>,
    running: Option<Running>,
    /// How many lines the running program had printed when the last console fence began.
    mark: usize,
    /// The last console fence was skipped, so its log is too.
    skipping: bool,
    skipped: usize,
    problems: Vec<Problem>,
    /// The problems that the rewrites mend.
    differences: Vec<Problem>,
    rewrites: Vec<Rewrite>,
}

fn replay<'a>(stage: &'a Stage<'a>, chapter: &'a Chapter) -> Replay<'a> {
    let mut replay = Replay {
        stage,
        scratch: None,
        running: None,
        mark: 0,
        skipping: false,
        skipped: 0,
        problems: Vec::new(),
        differences: Vec::new(),
        rewrites: Vec::new(),
    };
    for fence in &chapter.fences {
        if fence.is("rust scratch") {
            replay.scratch = Some(fence);
        } else if fence.is("console") {
            replay.console(fence);
        } else if fence.is("log") {
            replay.log(fence);
        }
    }
    replay.running = None;
    replay
}

impl Replay<'_> {
    fn console(&mut self, fence: &Fence) {
        let names_python = |fence: &Fence| fence.lines.iter().any(|line| line.contains("python"));
        self.skipping = !self.stage.python && self.scratch.is_some_and(names_python);
        if self.skipping {
            self.skipped += 1;
            return;
        }
        let steps = match steps(&fence.lines) {
            Ok(steps) => steps,
            Err(what) => return self.problems.push(Problem::text(fence.line + 1, what)),
        };
        let curl = |step: &Step| match &step.action {
            Action::Shell(line) => !find_word(line, "curl").is_empty(),
            _ => false,
        };
        self.skipping = !self.stage.curl && steps.iter().any(curl);
        self.mark = self.running.as_ref().map_or(0, |running| running.process.lines().len());
        let mut new = Vec::new();
        for step in &steps {
            let line = fence.line + 1 + step.at;
            let skip = !self.stage.curl && curl(step);
            let printed = if skip { Ok(step.shown.clone()) } else { self.play(step) };
            new.extend(step.written.iter().cloned());
            match printed {
                Ok(printed) if alike(&step.shown, &printed) => {
                    new.extend(step.shown.iter().cloned());
                }
                Ok(printed) => {
                    let what = format!(
                        "{} prints something else\n{}",
                        step.written[0],
                        both(&step.shown, &printed)
                    );
                    self.differences.push(Problem::text(line, what));
                    new.extend(kept(&step.shown, printed));
                }
                Err(what) => {
                    new.extend(step.shown.iter().cloned());
                    self.problems.push(Problem::text(line, what));
                }
            }
        }
        self.skipped += usize::from(self.skipping);
        if new != fence.lines {
            self.rewrite(fence, new);
        }
    }

    fn rewrite(&mut self, fence: &Fence, new: Vec<String>) {
        let (line, old, indent) = (fence.line + 1, fence.lines.len(), fence.indent);
        self.rewrites.push(Rewrite { line, old, indent, new });
    }

    /// Runs one step; what it printed, with 8000 for the port.
    fn play(&mut self, step: &Step) -> Result<Vec<String>, String> {
        match &step.action {
            Action::Run { variables, program, flags } => {
                let printed = self.run(variables, program.as_deref(), flags)?;
                // Without lines the text does not say what is printed at the start.
                Ok(if step.shown.is_empty() && self.running.is_some() {
                    Vec::new()
                } else {
                    printed
                })
            }
            Action::Test { file, filter } => {
                let path = format!("tests/{file}.rs");
                let text = self.stage.project.text(&path).ok_or(format!("there is no {path}"))?;
                let tests = step
                    .shown
                    .iter()
                    .filter_map(|line| line.strip_prefix("test ")?.split_once(" ... "));
                for name in filter.iter().map(String::as_str).chain(tests.map(|(name, _)| name)) {
                    if !text.contains(name) {
                        return Err(format!("{path} has no test {name}"));
                    }
                }
                Ok(step.shown.clone())
            }
            Action::Interrupt => self.interrupt(),
            Action::Reader if step.shown.is_empty() => Ok(Vec::new()),
            Action::Reader => {
                Err("is for the reader only and not replayed: show no output".to_string())
            }
            Action::Shell(line) => self.shell(line),
        }
    }

    fn shell(&mut self, line: &str) -> Result<Vec<String>, String> {
        let port = self.running.as_ref().map_or(8000, |running| running.port);
        let real = port.to_string();
        // A client at the end of a pipe: `... | cargo run --bin asgi_ws -- --connect ...`.
        let line = match line.split_once("| cargo run --bin ") {
            Some((before, after)) => {
                let (name, flags) = after.split_once(" -- ").unwrap_or((after, ""));
                format!("{before}| {} {flags}", self.stage.programs.join(name).display())
            }
            None => line.to_string(),
        };
        let mut process = Process::shell(&replace_word(&line, "8000", &real), self.stage.root);
        let ended = process.finish(LIMIT);
        let printed = said(&process.lines(), port);
        match ended {
            Some(_) => Ok(printed),
            None => Err(format!("does not end within 20 s; it printed\n{}", printed.join("\n"))),
        }
    }

    /// Starts a program, in place of the one that runs. But with `--port 8000` said while one runs,
    /// both run: it wants that very port.
    fn run(
        &mut self,
        variables: &[(String, String)],
        program: Option<&str>,
        flags: &[String],
    ) -> Result<Vec<String>, String> {
        // A client, which is told where the server is, or the start of a pipe: it ends by itself.
        if flags.iter().any(|flag| flag.contains("127.0.0.1:8000") || flag == "|") {
            let binary = self.stage.programs.join(program.unwrap_or_default());
            return self.shell(&format!("{} {}", binary.display(), flags.join(" ")));
        }
        let mut flags = flags.to_vec();
        let port_flag = flags.iter().position(|flag| flag == "--port");
        let same_port =
            self.running.as_ref().map(|running| running.port).filter(|_| port_flag.is_some());
        if let Some(at) = port_flag {
            flags.drain(at..(at + 2).min(flags.len()));
        }
        if same_port.is_none() {
            self.running = None;
        }
        let name = program.or(self.stage.project.cargo("default-run")).unwrap_or("wsgi");
        let (binary, mut port) = if name == "scratch" {
            self.build_scratch()?
        } else {
            let port = same_port.unwrap_or_else(free_port);
            flags.extend(["--port".to_string(), port.to_string()]);
            (self.stage.programs.join(name), Some(port))
        };
        if !binary.exists() {
            return Err(format!("there is no program {name}"));
        }
        let mut command = Process::in_one(&binary);
        command.args(&flags).current_dir(self.stage.root);
        let mut process = Process::spawn(command.envs(variables.iter().cloned()));
        let start = Instant::now();
        let mut listens = false;
        while !listens && !process.ended() {
            if start.elapsed() > LIMIT {
                let printed = process.lines().join("\n");
                return Err(format!(
                    "prints no address and does not end within 20 s; it printed\n{printed}"
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
            let printed = process.lines().iter().find_map(|line| port_in(line));
            port = printed.or(port);
            listens =
                if name == "scratch" { port.is_some_and(is_listening) } else { printed.is_some() };
        }
        process.quiet(QUIET);
        let lines = process.lines();
        let printed = said(&lines, port.unwrap_or(8000));
        if process.ended() {
            process.finish(LIMIT);
        } else if let Some(port) = port {
            self.mark = lines.len();
            self.running = Some(Running { process, port });
        }
        Ok(printed)
    }

    /// The scratch program above this fence. Its 8000 becomes a port that is free now.
    fn build_scratch(&self) -> Result<(PathBuf, Option<u16>), String> {
        let fence = self.scratch.ok_or("this chapter has no `rust scratch` block above")?;
        let text = fence.lines.join("\n");
        let port = free_port();
        let text_with_port = replace_word(&text, "8000", &port.to_string());
        let path = (self.stage.scratch)(&format!("scratch_{}", fence.line), &text_with_port)?;
        Ok((path, (text_with_port != text).then_some(port)))
    }

    /// Ctrl-C in the server's terminal: what it prints from then to its end.
    fn interrupt(&mut self) -> Result<Vec<String>, String> {
        let mut running = self.running.take().ok_or("^C, but nothing runs")?;
        running.process.quiet(QUIET);
        let before = running.process.lines().len();
        running.process.signal("INT");
        let ended = running.process.finish(LIMIT);
        let printed = said(&running.process.lines()[before..], running.port);
        match ended {
            Some(_) => Ok(printed),
            None => Err(format!("still runs 20 s after ^C; it printed\n{}", printed.join("\n"))),
        }
    }

    fn log(&mut self, fence: &Fence) {
        let Some(running) = self.running.as_ref().filter(|_| !self.skipping) else {
            if !self.skipping {
                self.problems.push(Problem::text(fence.line, "a log, but no program runs"));
            }
            return;
        };
        let new = |lines: &[String]| said(&lines[self.mark..], running.port);
        let fits = |lines: &[String]| log_alike(&fence.lines, &new(lines));
        running.process.until(Duration::from_secs(3), fits);
        running.process.quiet(QUIET);
        let now = new(&running.process.lines());
        if !log_alike(&fence.lines, &now) {
            let what = format!("the log has other lines\n{}", both(&fence.lines, &now));
            self.differences.push(Problem::text(fence.line, what));
            self.rewrite(fence, kept(&fence.lines, now));
        }
    }
}

/// Lines as the text has them.
fn said(lines: &[String], port: u16) -> Vec<String> {
    let port = port.to_string();
    let told = |line: &String| replace_word(line.trim_end(), &port, "8000");
    trimmed(lines.iter().map(told).collect())
}

/// A port that is free now, of four digits like 8000: a `Host` field keeps its length, and with it
/// every length that is printed.
fn free_port() -> u16 {
    let first = 8201 + std::process::id() as u16 % 700;
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (first..9999).find(free).expect("a free port above 8200")
}

fn both(text: &[String], now: &[String]) -> String {
    let side = |name: &str, lines: &[String]| {
        lines.iter().map(|line| format!("  {name} | {line}\n")).collect::<String>()
    };
    format!(
        "{}{}  (BOOK=bless cargo test --test book_tryit rewrites it)",
        side("text", text),
        side("now ", now)
    )
}

/// Asks the kernel's table, because a connection would be a guest of the program.
fn is_listening(port: u16) -> bool {
    let Ok(table) = std::fs::read_to_string("/proc/net/tcp") else {
        std::thread::sleep(Duration::from_secs(1)); // no such table here
        return true;
    };
    let six = std::fs::read_to_string("/proc/net/tcp6").unwrap_or_default();
    let local = format!(":{port:04X}");
    let mut rows =
        table.lines().chain(six.lines()).map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.any(|row| row.get(1).is_some_and(|at| at.ends_with(&local)) && row.get(3) == Some(&"0A"))
}

fn rewritten(text: &str, rewrites: &[Rewrite]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
    for new in rewrites.iter().rev() {
        let start = new.line - 1;
        let indented = new.new.iter().map(|line| format!("{}{line}", " ".repeat(new.indent)));
        lines.splice(start..start + new.old, indented);
    }
    lines.join("\n") + "\n"
}

// The replay itself, tried with programs of a few lines.

/// A program that listens nowhere but says so, logs its flags and stops politely.
const WSGI: &str = "#!/bin/sh\n\
    test \"$*\" = --help && { echo 'No help.'; exit; }\n\
    test \"$2\" = 4711 && { echo 'Port 4711 is taken.'; exit 1; }\n\
    trap 'echo stopped; exit' INT\n\
    echo 'Glass at http://127.0.0.1:4711/' >&2\n\
    sleep 0.3\n\
    echo \"flags $1 $MODE\"\n\
    echo \"peer 127.0.0.1:$$ took 0.$$ ms\"\n\
    while :; do sleep 0.02; done\n";

/// Replays a book of one chapter; its differences and problems, and the book as rewritten.
fn replayed(name: &str, book: &str, curl: bool) -> (Vec<String>, String) {
    use std::os::unix::fs::PermissionsExt;
    let root = env!("CARGO_TARGET_TMPDIR");
    let programs = PathBuf::from(format!("{root}/{name}"));
    std::fs::create_dir_all(&programs).expect("a folder to write in");
    let wsgi = programs.join("wsgi");
    std::fs::write(&wsgi, WSGI).expect("a file to write");
    std::fs::set_permissions(&wsgi, std::fs::Permissions::from_mode(0o755)).expect("our own file");
    let cargo = "default-run = \"wsgi\"\n";
    let files =
        [("Cargo.toml", cargo), ("TUTORIAL.md", book), ("tests/ch01_a.rs", "fn it_works() {}")];
    let project = Project::of(&files);
    let scratch = |_: &str, text: &str| Err(format!("rustc says no to {text}"));
    let stage = Stage { project: &project, root, programs, scratch: &scratch, curl, python: true };
    let chapters = project.book().chapters;
    let mut found = replay(&stage, &chapters[1]);
    found.problems.append(&mut found.differences);
    let problems = found.problems.iter().map(Problem::to_string).collect();
    (problems, rewritten(book, &found.rewrites))
}

#[test]
fn a_true_transcript_is_left_alone() {
    let book = "## Chapter 1: A\n```console\n$ MODE=glass cargo run -- --wire --port 8000\nGlass at http://127.0.0.1:8000/\n```\n\
                ```console\n$ echo port 8000; printf 'Date: Sun, 06 Nov 1994 08:49:37 GMT\\r\\n'\nport 8000\n\
                Date: Mon, 07 Nov 1994 08:49:37 GMT\n$ cargo test --test ch01_a it_works\n```\n\
                ```log\nflags --wire glass\npeer 127.0.0.1:1 took 0.75 ms\n```\n\
                ```console\n$ cargo run --bin wsgi -- --port 8000\nPort 8000 is taken.\n^C\nstopped\n```\n\
                ```console\n$ cargo run -- --help\nNo help.\n```\n";
    let (problems, new) = replayed("true", &book.replace("--help\nNo", "--hello\nNo"), true);
    assert_eq!(problems.len(), 1, "{problems:#?}"); // the last program prints an address, not help
    assert!(new.ends_with("--hello\nGlass at http://127.0.0.1:8000/\n```\n"), "{new}");
    let until_help = book.split("```console\n$ cargo run -- --help").next().unwrap_or_default();
    let (problems, new) = replayed("true2", until_help, true);
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(new, until_help);
}

#[test]
fn a_program_in_a_pipe_ends_by_itself() {
    let book = "## Chapter 1: A\n```console\n$ cargo run --bin wsgi -- --help | tr N n\nno help.\n\
                $ echo a | cargo run --bin wsgi -- --help\nNo help.\n```\n";
    let (problems, _) = replayed("pipe", book, true);
    assert_eq!(problems, Vec::<String>::new());
}

#[test]
fn a_false_transcript_is_found_and_rewritten() {
    let book = "## Chapter 1: A\n```console\n$ cargo run\nOther words\n$ printf 'a\\nb\\n'\na\nc\n```\n\
                  ```log\nflags none\n...\n```\n  ```console\n  $ echo new\n  ```\n";
    let (problems, new) = replayed("false", book, true);
    assert_eq!(problems.len(), 4, "{problems:#?}");
    assert!(problems[0].starts_with(
        "TUTORIAL.md:3: $ cargo run prints something else\n  text | Other words\n  now  | Glass"
    ));
    assert!(problems[1].starts_with("TUTORIAL.md:5: $ printf 'a\\nb\\n' prints something else\n  text | a\n  text | c\n  now  | a\n"));
    assert!(problems[2].starts_with("TUTORIAL.md:9: the log has other lines\n  text | flags none\n  text | ...\n  now  | flags --port"));
    let new: Vec<&str> = new.lines().collect();
    assert_eq!(new[3..7], ["Glass at http://127.0.0.1:8000/", "$ printf 'a\\nb\\n'", "a", "b"]);
    assert_eq!((new[9], new[new.len() - 2]), ("flags --port", "  new"));
}

#[test]
fn what_cannot_be_replayed_is_found() {
    let book = "## Chapter 1: A\n```console\nhello\n```\n```log\n```\n```console\n$ cargo test --test ch09_x\n\
                $ cargo test --test ch01_a\ntest it_fails ... FAILED\n$ cargo build\nDone\n^C\n$ cargo run --bin gone\n\
                $ cargo run --bin scratch\n```\n```rust scratch\nfn main() {}\n```\n```console\n$ cargo run --bin scratch\n```\n";
    let (problems, new) = replayed("not", book, true);
    let expected = [
        "TUTORIAL.md:3: a console fence begins with a `$ ` line, not \"hello\"",
        "TUTORIAL.md:5: a log, but no program runs",
        "TUTORIAL.md:8: there is no tests/ch09_x.rs",
        "TUTORIAL.md:9: tests/ch01_a.rs has no test it_fails",
        "TUTORIAL.md:11: is for the reader only and not replayed: show no output",
        "TUTORIAL.md:13: ^C, but nothing runs",
        "TUTORIAL.md:14: there is no program gone",
        "TUTORIAL.md:15: this chapter has no `rust scratch` block above",
        "TUTORIAL.md:21: rustc says no to fn main() {}",
    ];
    assert_eq!(problems, expected);
    assert_eq!(new, book);
}

#[test]
fn without_curl_its_transcripts_are_skipped() {
    let book = "## Chapter 1: A\n```console\n$ cargo run\n$ curl http://127.0.0.1:8000/\nHello\n```\n```log\nnever\n```\n";
    assert_eq!(replayed("curl", book, false), (Vec::new(), book.to_string()));
}

#[test]
fn only_what_may_differ_may_differ() {
    for (text, now, same) in [
        ("Date: Sun, 06 Nov 1994 08:49:37 GMT", "Date: Mon, 07 Nov 2025 18:49:37 GMT", true),
        (
            "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
            "Last-Modified: Mon, 07 Nov 1994 08:49:37 GMT",
            false,
        ),
        (
            "< Date: Sun, 06 Nov 1994 08:49:37 GMT\\r\\n",
            "< Date: Sun, 06 Nov 1994 08:49:38 GMT\\r\\n",
            true,
        ),
        (
            "[12:44:12] 127.0.0.1 \"GET /\" 200 42 0.75ms",
            "[12:44:13] 127.0.0.1 \"GET /\" 200 42 10.2ms",
            true,
        ),
        ("[12:44:12] 200 42 0.75ms", "[12:44:12] 200 43 0.75ms", false),
        ("from 127.0.0.1:50000", "from 127.0.0.1:50001", true),
        ("from 127.0.0.1:8000", "from 127.0.0.1:50001", false),
        ("took 1.2 s", "took 13.99 s", true),
        ("within 10 s", "within 5 s", false),
        ("HTTP/1.1 200", "HTTP/1.0 200", false),
        ("pid 12 ready", "pid 3456 ready", true),
        ("[21/Nov/2026:12:44:12 +0000] \"", "[22/Nov/2026:02:44:12 +0000] \"", true),
        ("{\"time\":\"2026-11-21T12:44:12.103Z\"", "{\"time\":\"2027-01-01T00:00:00.000Z\"", true),
        ("\"duration_ms\":0.167,", "\"duration_ms\":12.001,", true),
        ("\"bytes\":3,\"duration_ms\":0.167", "\"bytes\":4,\"duration_ms\":0.167", false),
        ("a 1.5", "a 1.6", false),
    ] {
        assert_eq!(alike(&[text.to_string()], &[now.to_string()]), same, "{text}\n{now}");
    }
}
