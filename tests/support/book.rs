//! The project as text: its files, the table of contents in `src/lib.rs`, and TUTORIAL.md taken
//! apart into chapters, prose and fences. The `book_*` tests are checks over this: each takes a
//! `Project` and returns problems, so each is tried on small projects written in its own test.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// The name of the book.
pub const BOOK: &str = "TUTORIAL.md";

/// The `###` headings of a chapter, in order.
pub const HEADINGS: [&str; 8] = [
    "The problem",
    "On the wire",
    "The code",
    "Try it",
    "What goes wrong",
    "Tests",
    "Exercises",
    "In the real world",
];

/// What is wrong, where, and what to mend.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub file: String,
    pub line: usize,
    pub what: String,
}

impl Problem {
    pub fn new(file: &str, line: usize, what: impl Into<String>) -> Problem {
        Problem { file: file.to_string(), line, what: what.into() }
    }

    /// A problem of the book's text.
    pub fn text(line: usize, what: impl Into<String>) -> Problem {
        Problem::new(BOOK, line, what)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// Fails the test with every problem on a line of its own.
pub fn report(mut problems: Vec<Problem>) {
    problems.sort();
    problems.dedup();
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    assert!(lines.is_empty(), "{} problems\n{}\n", lines.len(), lines.join("\n"));
}

/// The project's text files by path.
pub struct Project(BTreeMap<String, String>);

impl Project {
    /// A project written in a test.
    pub fn of(files: &[(&str, &str)]) -> Project {
        let owned = |(path, text): &(&str, &str)| (path.to_string(), text.to_string());
        Project(files.iter().map(owned).collect())
    }

    /// The project these tests belong to.
    pub fn load() -> Project {
        let mut project = Project(BTreeMap::new());
        project.read(Path::new(env!("CARGO_MANIFEST_DIR")), "");
        assert!(
            project.0.contains_key(BOOK),
            "{BOOK} is missing: the book belongs beside Cargo.toml, and these tests compare it with src/"
        );
        project
    }

    fn read(&mut self, directory: &Path, prefix: &str) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            if entry.path().is_dir() {
                if name != "target" && !name.starts_with('.') {
                    self.read(&entry.path(), &format!("{path}/"));
                }
            } else if let Ok(text) = std::fs::read_to_string(entry.path()) {
                self.0.insert(path, text);
            }
        }
    }

    pub fn text(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }

    /// The paths that begin and end so, in order.
    pub fn paths(&self, start: &str, end: &str) -> Vec<&str> {
        let fits = |path: &&str| path.starts_with(start) && path.ends_with(end);
        self.0.keys().map(String::as_str).filter(fits).collect()
    }

    pub fn book(&self) -> Book {
        Book::parse(self.text(BOOK).unwrap_or_default())
    }

    pub fn contents(&self) -> Vec<Module> {
        contents(self.text("src/lib.rs").unwrap_or_default())
    }

    /// The value of a plain `key = "value"` line of Cargo.toml.
    pub fn cargo(&self, key: &str) -> Option<&str> {
        self.text("Cargo.toml")?.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == key).then(|| value.trim().trim_matches('"'))
        })
    }
}

/// The part whose chapters have several files.
pub const SITE: &str = "site";

/// One `pub mod` line of the table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    pub part: String,
    pub name: String,
    /// From its `// chapter N`. A file of the site may have none: it belongs to the next one's.
    pub number: Option<usize>,
    /// It has the number itself, and gives the chapter's tests their name.
    pub leads: bool,
    /// Its file: `src/part/name.rs`.
    pub path: String,
}

impl Module {
    /// The chapter's test file without folder and ending: `ch07_request`.
    pub fn test(&self) -> String {
        format!("ch{:02}_{}", self.number.unwrap_or(0), self.name)
    }
}

/// Reads `src/lib.rs`.
pub fn contents(lib: &str) -> Vec<Module> {
    let mut part = String::new();
    let mut modules = Vec::new();
    for line in lib.lines() {
        if line == "}" {
            part.clear();
        }
        let Some(rest) = line.trim().strip_prefix("pub mod ") else {
            continue;
        };
        if let Some(name) = rest.strip_suffix('{') {
            part = name.trim().to_string();
        } else if let Some((name, comment)) = rest.split_once(';') {
            let number = comment.trim().strip_prefix("// chapter ");
            let number = number.and_then(|number| number.trim().parse().ok());
            let path = if part.is_empty() { name.to_string() } else { format!("{part}/{name}") };
            let path = format!("src/{path}.rs");
            let (part, name, leads) = (part.clone(), name.to_string(), number.is_some());
            modules.push(Module { part, name, number, leads, path });
        }
    }
    let mut next = None;
    for module in modules.iter_mut().rev() {
        module.number = module.number.or(next);
        next = module.number;
    }
    modules
}

/// The modules that give chapters their numbers.
pub fn numbered(contents: &[Module]) -> impl Iterator<Item = (usize, &Module)> {
    let leads = contents.iter().filter(|module| module.leads);
    leads.filter_map(|module| Some((module.number?, module)))
}

pub struct Book {
    pub chapters: Vec<Chapter>,
    pub problems: Vec<Problem>,
}

/// A `## Chapter N: Title`. Any other `#` or `##` heading begins a free-form piece with number 0,
/// under the same rules as chapter 0.
pub struct Chapter {
    pub number: usize,
    pub title: String,
    pub line: usize,
    pub headings: Vec<Text>,
    pub prose: Vec<Text>,
    pub fences: Vec<Fence>,
}

/// A line outside the fences.
pub struct Text {
    pub line: usize,
    pub text: String,
    /// The `###` heading above it.
    pub under: String,
}

pub struct Fence {
    /// The words after the opening backticks.
    pub words: Vec<String>,
    /// The line of the opening backticks; the first line inside is the next one.
    pub line: usize,
    pub indent: usize,
    pub lines: Vec<String>,
    pub under: String,
    pub chapter: usize,
}

impl Fence {
    pub fn is(&self, words: &str) -> bool {
        self.words.join(" ") == words
    }

    /// The file that the fence quotes: its second word, unless that is `scratch`.
    pub fn file(&self) -> Option<&str> {
        let word = self.words.get(1)?;
        (word != "scratch").then_some(word)
    }
}

impl Book {
    pub fn fences(&self) -> impl Iterator<Item = &Fence> {
        self.chapters.iter().flat_map(|chapter| &chapter.fences)
    }

    pub fn chapter(&self, number: usize) -> Option<&Chapter> {
        self.chapters.iter().find(|chapter| chapter.number == number)
    }

    /// The chapters that follow the template.
    pub fn numbered(&self) -> impl Iterator<Item = &Chapter> {
        self.chapters.iter().filter(|chapter| chapter.number > 0)
    }

    pub fn parse(text: &str) -> Book {
        let mut book = Book { chapters: vec![free("", 1)], problems: Vec::new() };
        let mut under = String::new();
        let mut open: Option<Fence> = None;
        for (line, text) in (1..).zip(text.lines()) {
            if let Some(mut fence) = open.take() {
                if text.trim() == "```" {
                    book.last().fences.push(fence);
                } else {
                    let blank = text.len() - text.trim_start_matches(' ').len();
                    fence.lines.push(text[blank.min(fence.indent)..].to_string());
                    open = Some(fence);
                }
            } else if let Some(words) = text.trim_start().strip_prefix("```") {
                open = Some(Fence {
                    words: words.split_whitespace().map(str::to_string).collect(),
                    line,
                    indent: text.len() - text.trim_start().len(),
                    lines: Vec::new(),
                    under: under.clone(),
                    chapter: book.last().number,
                });
            } else if text.starts_with("# ") || text.starts_with("## ") {
                under.clear();
                book.begin(line, text);
            } else if let Some(heading) = text.strip_prefix("### ") {
                under = heading.trim().to_string();
                let (text, under) = (under.clone(), under.clone());
                book.last().headings.push(Text { line, text, under });
            } else {
                let (text, under) = (text.to_string(), under.clone());
                book.last().prose.push(Text { line, text, under });
            }
        }
        if let Some(fence) = open {
            book.problems.push(Problem::text(fence.line, "this fence is never closed"));
        }
        book
    }

    fn last(&mut self) -> &mut Chapter {
        self.chapters.last_mut().expect("a book begins with its first line")
    }

    fn begin(&mut self, line: usize, heading: &str) {
        let title = heading.trim_start_matches('#').trim();
        let mut chapter = free(title, line);
        if let Some(rest) = title.strip_prefix("Chapter ") {
            let parts = rest.split_once(": ");
            match parts.and_then(|(number, title)| Some((number.parse().ok()?, title))) {
                Some((number, title)) if heading.starts_with("## ") => {
                    chapter.number = number;
                    chapter.title = title.to_string();
                }
                _ => self.problems.push(Problem::text(
                    line,
                    "a chapter's heading has the form `## Chapter 7: The request head`",
                )),
            }
        }
        if chapter.number > 0 && self.chapter(chapter.number).is_some() {
            let what = format!("chapter {} is here a second time", chapter.number);
            self.problems.push(Problem::text(line, what));
        }
        self.chapters.push(chapter);
    }
}

fn free(title: &str, line: usize) -> Chapter {
    let title = title.to_string();
    Chapter { number: 0, title, line, headings: vec![], prose: vec![], fences: vec![] }
}

/// A line without its `code spans`.
pub fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// The byte positions where `word` stands in `text` with no letter, digit or `_` at either side.
pub fn find_word(text: &str, word: &str) -> Vec<usize> {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    let alone =
        |at: &usize| !text[..*at].ends_with(inside) && !text[at + word.len()..].starts_with(inside);
    text.match_indices(word).map(|(at, _)| at).filter(alone).collect()
}

/// Replaces `word` where `find_word` finds it.
pub fn replace_word(text: &str, word: &str, with: &str) -> String {
    let mut out = text.to_string();
    for at in find_word(text, word).into_iter().rev() {
        out.replace_range(at..at + word.len(), with);
    }
    out
}

/// Where a `fn` begins and ends (first and last line, counted from 0) and its name, for code that
/// went through rustfmt. A declaration without a body is one line.
pub fn functions(code: &str) -> Vec<(usize, usize, String)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (first, line) in lines.iter().enumerate() {
        let Some(("fn", name)) = item(line) else {
            continue;
        };
        let mut last = first;
        if !line.ends_with(['}', ';']) {
            let indent = &line[..line.len() - line.trim_start().len()];
            let end = |line: &&str| {
                let rest = line.strip_prefix(indent).unwrap_or_default();
                rest == "}" || (rest.starts_with(')') && rest.ends_with(';'))
            };
            last = (first..lines.len()).find(|at| end(&lines[*at])).unwrap_or(lines.len() - 1);
        }
        found.push((first, last, name.to_string()));
    }
    found
}

/// The kind and the name of the item that begins in this line: a fn, struct, enum or trait.
pub fn item(line: &str) -> Option<(&'static str, &str)> {
    let mut rest = line.trim_start();
    loop {
        for kind in ["fn", "struct", "enum", "trait"] {
            if let Some(name) = rest.strip_prefix(kind).and_then(|rest| rest.strip_prefix(' ')) {
                let end = name.find(|c: char| !c.is_alphanumeric() && c != '_');
                return Some((kind, &name[..end.unwrap_or(name.len())]));
            }
        }
        let before = ["pub(crate) ", "pub(super) ", "pub ", "const ", "unsafe ", "extern \"C\" "];
        rest = before.iter().find_map(|word| rest.strip_prefix(word))?;
    }
}
