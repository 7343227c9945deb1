//! The book shows the code that runs: each quoted line is in its file, most of each file is shown,
//! and each chapter has the template's shape.
//!
//! `cargo test --test book_snippets -- --nocapture` prints what is shown of each file.

mod support;

use std::collections::BTreeMap;
use support::book::{
    Book, Chapter, Fence, HEADINGS, Problem, Project, SITE, find_word, item, report, without_code,
};

const BLOCK_LINES: usize = 25;
const PROSE_LINES: usize = 12;
/// A longer line of prose counts as two.
const PROSE_WIDTH: usize = 130;
const WORDS: std::ops::RangeInclusive<usize> = 900..=2200;
/// The least share of a file's code that the book shows, in percent.
const SHOWN: usize = 60;
/// The same for a file of the site, which uses what the book has explained.
const SHOWN_OF_SITE: usize = 25;

#[test]
fn the_book_shows_the_code_that_runs() {
    let project = Project::load();
    let (mut problems, shown) = quotes(&project);
    problems.extend(coverage(&project, &shown));
    report(problems);
}

#[test]
fn each_chapter_follows_the_template() {
    let book = Project::load().book();
    let mut problems = template(&book);
    problems.extend(terms(&book));
    report(problems);
}

/// The lines shown, counted from 0, for each file.
type Shown = BTreeMap<String, Vec<bool>>;

fn quotes(project: &Project) -> (Vec<Problem>, Shown) {
    let book = project.book();
    let (mut problems, mut shown) = (Vec::new(), Shown::new());
    let mut place: BTreeMap<&str, usize> = BTreeMap::new();
    for fence in book.fences() {
        let words: Vec<&str> = fence.words.iter().map(String::as_str).collect();
        let file = match words[..] {
            ["rust", "scratch"] | ["console" | "log" | "text"] => continue,
            [_, file] => file,
            _ => {
                let what = "no test checks this fence: name the file it quotes (```rust src/...), \
                            or make it scratch, console, log or text";
                problems.push(Problem::text(fence.line, what));
                continue;
            }
        };
        let Some(text) = project.text(file) else {
            problems.push(Problem::text(fence.line, format!("there is no file {file}")));
            continue;
        };
        let lines: Vec<&str> = text.lines().collect();
        if words[0] == "wire" {
            problems.extend(whole(fence, &lines, file));
            continue;
        }
        let place = place.entry(file).or_default();
        match find(fence, &lines, *place).or_else(|_| find(fence, &lines, 0)) {
            Ok(found) => {
                *place = found.last().map_or(0, |last| last + 1);
                let marks = shown.entry(file.to_string()).or_insert(vec![false; lines.len()]);
                found.into_iter().for_each(|at| marks[at] = true);
            }
            Err((at, there)) => {
                let quoted = fence.lines.get(at).map_or("", |line| line.trim());
                let what = format!("not in {file}: `{quoted}`; {there}");
                problems.push(Problem::text(fence.line + 1 + at, what));
            }
        }
    }
    problems.extend(book.problems);
    (problems, shown)
}

/// A wire fence is its file, whole.
fn whole(fence: &Fence, lines: &[&str], file: &str) -> Option<Problem> {
    let at = (0..fence.lines.len().max(lines.len()))
        .find(|at| fence.lines.get(*at).map(String::as_str) != lines.get(*at).copied())?;
    let there = lines.get(at).map_or("its end".to_string(), |line| format!("`{line}`"));
    let what = format!("differs from {file}, which has {there} here");
    Some(Problem::text(fence.line + 1 + at, what))
}

/// The lines of the file that the fence shows. Otherwise the line of the fence that is not there,
/// and what the file has instead.
fn find(fence: &Fence, lines: &[&str], start: usize) -> Result<Vec<usize>, (usize, String)> {
    let mut best = (0, "nothing like this block is there".to_string());
    for dedent in (0..=24).step_by(4) {
        match find_dedented(fence, lines, start, dedent) {
            Ok(found) => return Ok(found),
            Err(reached) if reached.0 > best.0 => best = reached,
            Err(_) => {}
        }
    }
    Err(best)
}

fn find_dedented(
    fence: &Fence,
    lines: &[&str],
    start: usize,
    dedent: usize,
) -> Result<Vec<usize>, (usize, String)> {
    let same = |quoted: &str, line: &str| match line.split_at_checked(dedent) {
        Some((before, line)) => before.trim().is_empty() && line == quoted,
        None => line.is_empty() && quoted.is_empty(),
    };
    let (mut found, mut next, mut first) = (Vec::new(), start, 0);
    for run in fence.lines.split(|line| line.trim() == "// ...") {
        let fits = |at: usize| {
            let pairs = run.iter().zip(lines.get(at..).unwrap_or_default());
            pairs.take_while(|(quoted, line)| same(quoted, line)).count()
        };
        let Some(at) = (next..=lines.len()).find(|at| fits(*at) == run.len()) else {
            let best = (next..lines.len()).max_by_key(|at| (fits(*at), lines.len() - at));
            let best = best.filter(|at| fits(*at) > 0);
            let there = best.and_then(|at| Some((at + fits(at), lines.get(at + fits(at))?)));
            let told = there
                .map_or("it is not below the block's earlier lines".to_string(), |(at, line)| {
                    format!("line {} has `{}`", at + 1, line.trim())
                });
            return Err((first + best.map_or(0, fits), told));
        };
        found.extend(at..at + run.len());
        next = at + run.len();
        first += run.len() + 1;
    }
    Ok(found)
}

fn coverage(project: &Project, shown: &Shown) -> Vec<Problem> {
    let mut problems = Vec::new();
    for module in &project.contents() {
        let path = &module.path;
        let is_site = module.part == SITE;
        let least = if is_site { SHOWN_OF_SITE } else { SHOWN };
        let Some(text) = project.text(path) else {
            continue;
        };
        let none = Vec::new();
        let marks = shown.get(path).unwrap_or(&none);
        let is_shown = |at: usize| marks.get(at) == Some(&true);
        let (mut code, mut quoted) = (0, 0);
        for (at, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.trim().starts_with("//") {
                continue;
            }
            code += 1;
            quoted += usize::from(is_shown(at));
            let Some((kind, name)) = item(line).filter(|_| !is_site && !is_shown(at)) else {
                continue;
            };
            let what = format!("{kind} {name} is not shown in the book: quote at least this line");
            problems.push(Problem::new(path, at + 1, what));
        }
        println!("{path}: {quoted} of {code} lines of code shown");
        if quoted * 100 < code * least {
            let what = format!("the book shows {quoted} of {code} lines of code, under {least} %");
            problems.push(Problem::new(path, 1, what));
        }
    }
    problems
}

fn template(book: &Book) -> Vec<Problem> {
    let mut problems = Vec::new();
    for chapter in book.numbered() {
        problems.extend(headings(chapter));
        problems.extend(prose_runs(chapter));
        let words = |text: &str| {
            text.split_whitespace().filter(|w| w.contains(char::is_alphanumeric)).count()
        };
        let count: usize = chapter.prose.iter().map(|line| words(&line.text)).sum();
        println!("chapter {}: {count} words", chapter.number);
        if !WORDS.contains(&count) {
            let range = format!("{} to {}", WORDS.start(), WORDS.end());
            let what = format!("chapter {} has {count} words, not {range}", chapter.number);
            problems.push(Problem::text(chapter.line, what));
        }
        for fence in &chapter.fences {
            if fence.lines.len() > BLOCK_LINES {
                let what =
                    format!("a block of {} lines: split it at {BLOCK_LINES}", fence.lines.len());
                problems.push(Problem::text(fence.line, what));
            }
        }
    }
    problems
}

/// All eight, in order. One may be left out by a line that says why:
/// `There is no *On the wire* here: ...`
fn headings(chapter: &Chapter) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut next = 0;
    for heading in &chapter.headings {
        match HEADINGS.iter().position(|known| *known == heading.text) {
            Some(at) if at >= next => next = at + 1,
            Some(_) => {
                let what = format!("`### {}` is out of the template's order", heading.text);
                problems.push(Problem::text(heading.line, what));
            }
            None if heading.text == "Further reading" => {}
            None => {
                let what =
                    format!("`### {}` is no heading of the template: use ####", heading.text);
                problems.push(Problem::text(heading.line, what));
            }
        }
    }
    for known in HEADINGS {
        let excuse = format!("no *{known}* here: ");
        let excused = chapter.prose.iter().any(|line| line.text.contains(&excuse));
        if !excused && !chapter.headings.iter().any(|heading| heading.text == known) {
            let what = format!("chapter {} has no `### {known}`", chapter.number);
            problems.push(Problem::text(chapter.line, what));
        }
    }
    problems
}

/// A fence, a heading, a table, a fold or an exercise's first line ends a run of prose.
fn prose_runs(chapter: &Chapter) -> Vec<Problem> {
    let (mut problems, mut run, mut last) = (Vec::new(), 0, 0);
    for line in &chapter.prose {
        let text = line.text.trim();
        let breaks = ["#", "|", "<", "**Exercise "].iter().any(|start| text.starts_with(start));
        if breaks || line.line != last + 1 {
            run = 0;
        }
        last = line.line;
        let before = run;
        run += text.chars().count().div_ceil(PROSE_WIDTH);
        if before <= PROSE_LINES && run > PROSE_LINES {
            let what = format!(
                "over {PROSE_LINES} lines of prose without a block: show something, or cut"
            );
            problems.push(Problem::text(line.line, what));
        }
    }
    problems
}

/// A **bold term** is defined where it is bold: once, and not used before. A bold phrase that ends
/// in `.`, `:` or `?` is a run-in heading, no term.
fn terms(book: &Book) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut defined: BTreeMap<String, usize> = BTreeMap::new();
    let lines: Vec<(usize, String)> = book
        .numbered()
        .flat_map(|chapter| &chapter.prose)
        .filter(|line| line.under != HEADINGS[7] && line.under != "Further reading")
        .map(|line| (line.line, without_code(&line.text).to_lowercase()))
        .collect();
    for (at, (number, text)) in lines.iter().enumerate() {
        for term in text.split("**").skip(1).step_by(2) {
            if term.is_empty() || term.ends_with(['.', ':', '?']) {
                continue;
            }
            let early = lines[..at].iter().find(|line| !find_word(&line.1, term).is_empty());
            if let Some(first) = defined.get(term) {
                let what = format!("**{term}** is already defined in line {first}: write it plain");
                problems.push(Problem::text(*number, what));
            } else if let Some((early, _)) = early {
                let what = format!("`{term}` is used here but defined only in line {number}");
                problems.push(Problem::text(*early, what));
            }
            defined.entry(term.to_string()).or_insert(*number);
        }
    }
    problems
}

// The checks themselves, tried on small books.

const LIB: &str = "pub mod http {\n    pub mod head; // chapter 1\n}\n";
const HEAD: &str = "//! Heads.\n\npub struct Head;\n\nimpl Head {\n    pub fn new() -> Head {\n        Head\n    }\n}\n";

fn problems_of(book: &str) -> Vec<String> {
    let files = [
        ("src/lib.rs", LIB),
        ("src/http/head.rs", HEAD),
        ("TUTORIAL.md", book),
        ("tests/wire/a.http", "GET\n"),
    ];
    let project = Project::of(&files);
    let (mut problems, shown) = quotes(&project);
    problems.extend(coverage(&project, &shown));
    problems.iter().map(Problem::to_string).collect()
}

#[test]
fn a_quote_may_be_dedented_and_may_skip_lines() {
    let whole = "```rust src/http/head.rs\npub struct Head;\n// ...\nimpl Head {\n```\n\
                 ```rust src/http/head.rs\npub fn new() -> Head {\n    // ...\n}\n```\n";
    assert_eq!(problems_of(whole), Vec::<String>::new());
}

#[test]
fn a_quote_that_differs_is_found_with_its_line() {
    let wrong = "```rust src/http/head.rs\nimpl Head {\n    pub fn old() -> Head {\n```\n";
    assert_eq!(
        problems_of(wrong)[0],
        "TUTORIAL.md:3: not in src/http/head.rs: `pub fn old() -> Head {`; line 6 has `pub fn new() -> Head {`"
    );
    let order = "```rust src/http/head.rs\nimpl Head {\n// ...\npub struct Head;\n```\n";
    assert!(
        problems_of(order)[0]
            .starts_with("TUTORIAL.md:4: not in src/http/head.rs: `pub struct Head;`")
    );
    let uneven = "```rust src/http/head.rs\nimpl Head {\npub fn new() -> Head {\n```\n";
    assert!(problems_of(uneven)[0].starts_with("TUTORIAL.md:3: "));
}

#[test]
fn what_the_book_does_not_show_is_found() {
    let some = problems_of("```rust src/http/head.rs\npub struct Head;\n```\n");
    assert_eq!(
        some[0],
        "src/http/head.rs:6: fn new is not shown in the book: quote at least this line"
    );
    assert_eq!(some[1], "src/http/head.rs:1: the book shows 1 of 6 lines of code, under 60 %");
}

#[test]
fn a_fence_that_nothing_checks_is_found() {
    let fences =
        "```rust\n```\n```rust src/gone.rs\n```\n```wire tests/wire/a.http\nPUT\n```\n```text\n";
    let problems = problems_of(fences);
    assert!(problems[0].starts_with("TUTORIAL.md:1: no test checks this fence"));
    assert_eq!(problems[1], "TUTORIAL.md:3: there is no file src/gone.rs");
    assert_eq!(problems[2], "TUTORIAL.md:6: differs from tests/wire/a.http, which has `GET` here");
    assert_eq!(problems[3], "TUTORIAL.md:8: this fence is never closed");
}

#[test]
fn a_chapter_out_of_shape_is_found() {
    let mut text = "## Chapter 1: Heads\n### The code\n### The problem\n### Fun\n".to_string();
    text.push_str(&"A line of prose.\n".repeat(13));
    text.push_str(&format!(
        "There is no *Tests* here: it has none.\n```text\n{}```\n",
        "x\n".repeat(26)
    ));
    let problems: Vec<String> =
        template(&Book::parse(&text)).iter().map(Problem::to_string).collect();
    let all = problems.join("\n");
    for expected in [
        "TUTORIAL.md:3: `### The problem` is out of the template's order",
        "TUTORIAL.md:4: `### Fun` is no heading of the template: use ####",
        "TUTORIAL.md:1: chapter 1 has no `### On the wire`",
        "TUTORIAL.md:17: over 12 lines of prose without a block: show something, or cut",
        "TUTORIAL.md:1: chapter 1 has 60 words, not 900 to 2200",
        "TUTORIAL.md:19: a block of 26 lines: split it at 25",
    ] {
        assert!(problems.iter().any(|problem| problem == expected), "{expected}\nis not in\n{all}");
    }
    assert!(!all.contains("no `### Tests`"));
}

#[test]
fn a_term_is_defined_once_and_before_its_use() {
    let text = "## Chapter 1: Heads\nEvery body counts.\nA `**x**` **body** is bytes.\n**Note.** A **body** again.\n";
    let problems: Vec<String> = terms(&Book::parse(text)).iter().map(Problem::to_string).collect();
    assert_eq!(problems[0], "TUTORIAL.md:2: `body` is used here but defined only in line 3");
    assert_eq!(problems[1], "TUTORIAL.md:4: **body** is already defined in line 3: write it plain");
    assert_eq!(problems.len(), 2);
}
