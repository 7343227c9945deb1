//! Chapter 45: the book. `TUTORIAL.md` as pages of the site, a chapter each.
//!
//! Markdown has many rules. The book needs few of them, so what reads it can be short. The beginning
//! of a line says what the line is; lines of one kind that follow each other belong together.
//!
//! ```text
//!   a line that begins with      becomes
//!   ```rust src/lib.rs           code, to the next ```, and the name of its file
//!   ## words                     a heading
//!   | one | two |                a row of a table; the second row is a ruler, and goes
//!   1. words                     an item of a list
//!   <details>, </details>        a fold
//!   other words                  a paragraph; in it `code`, **strong** and *stressed* words
//! ```

use std::fs;
use std::io;
use std::iter::Peekable;
use std::path::PathBuf;
use std::str::Lines;
use std::sync::{Arc, Mutex, PoisonError};

use crate::web::value::{Context, Value, escape};

/// Where the book is kept, once somebody has asked for it.
pub struct Shelf {
    file: PathBuf,
    /// Whether it is read again each time.
    is_changing: bool,
    book: Mutex<Option<Arc<Book>>>,
}

impl Shelf {
    /// For the book in this file. With `is_changing` it is read again each time.
    pub fn new(file: impl Into<PathBuf>, is_changing: bool) -> Shelf {
        Shelf { file: file.into(), is_changing, book: Mutex::default() }
    }

    /// The book.
    ///
    /// # Errors
    /// If it cannot be read: the program may have left its project.
    pub fn take(&self) -> io::Result<Arc<Book>> {
        // Locked while it is read: of many who come at once, one reads it.
        let mut kept = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(book) = kept.as_ref().filter(|_| !self.is_changing) {
            return Ok(Arc::clone(book));
        }
        let book = Arc::new(Book::parse(&fs::read_to_string(&self.file)?));
        *kept = Some(Arc::clone(&book));
        Ok(book)
    }
}

/// A text in chapters.
pub struct Book {
    preface: String,
    chapters: Vec<Chapter>,
}

struct Chapter {
    number: u64,
    title: String,
    text: String,
}

impl Book {
    /// Its chapters begin with a line of the form `## Chapter NUMBER: TITLE`.
    pub fn parse(text: &str) -> Book {
        let mut pieces = text.split("\n## Chapter ");
        let preface = pieces.next().unwrap_or_default().to_string();
        Book { preface, chapters: pieces.filter_map(Chapter::parse).collect() }
    }

    /// The first page, for a template: the preface and the list of the chapters.
    pub fn contents(&self) -> Context {
        let chapters: Vec<Context> = self.chapters.iter().map(Chapter::link).collect();
        Context::new()
            .with("preface", Value::Safe(to_html(&self.preface)))
            .with("chapters", chapters)
    }

    /// The page of a chapter, for a template.
    pub fn chapter(&self, number: u64) -> Option<Context> {
        let at = self.chapters.iter().position(|chapter| chapter.number == number)?;
        let link = |at: usize| self.chapters.get(at).map(Chapter::link);
        let chapter = self.chapters.get(at)?;
        Some(
            chapter
                .link()
                .with("text", Value::Safe(to_html(&chapter.text)))
                .with("before", at.checked_sub(1).and_then(link))
                .with("after", link(at + 1)),
        )
    }
}

impl Chapter {
    fn parse(piece: &str) -> Option<Chapter> {
        let (heading, text) = piece.split_once('\n')?;
        let (number, title) = heading.split_once(": ")?;
        Some(Chapter { number: number.parse().ok()?, title: title.into(), text: text.into() })
    }

    fn link(&self) -> Context {
        Context::new().with("number", self.number).with("title", self.title.as_str())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nothing,
    Code,
    Heading,
    Row,
    Item,
    Fold,
    Words,
}

const FENCE: &str = "```";

const BEGINNINGS: &[(&str, Kind)] = &[
    (FENCE, Kind::Code),
    ("#", Kind::Heading),
    ("|", Kind::Row),
    ("<details>", Kind::Fold),
    ("</details>", Kind::Fold),
];

impl Kind {
    fn of(line: &str) -> Kind {
        if line.trim().is_empty() {
            return Kind::Nothing;
        }
        let known = BEGINNINGS.iter().find(|(beginning, _)| line.starts_with(beginning));
        match known {
            Some((_, kind)) => *kind,
            None if item(line).is_some() => Kind::Item,
            None => Kind::Words,
        }
    }

    /// Whether the next line of this kind belongs to the same thing.
    fn goes_on(self) -> bool {
        matches!(self, Kind::Row | Kind::Item | Kind::Words)
    }
}

/// The words of an item such as `1. words`.
fn item(line: &str) -> Option<&str> {
    let (number, words) = line.split_once(". ")?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(words)
}

/// Markdown as HTML. Nothing in it can become a tag that is not named in this file.
pub fn to_html(markdown: &str) -> String {
    let mut out = String::new();
    let mut lines = markdown.lines().peekable();
    let mut open_folds = 0;
    while let Some(line) = lines.next() {
        let kind = Kind::of(line);
        let mut block = vec![line];
        while kind.goes_on() && lines.peek().is_some_and(|next| Kind::of(next) == kind) {
            block.extend(lines.next());
        }
        out += &match kind {
            Kind::Nothing => continue,
            Kind::Code => code(line, &mut lines),
            Kind::Heading => heading(line),
            Kind::Row => table(&block),
            Kind::Item => list(&block),
            Kind::Fold => fold(line, &mut open_folds),
            Kind::Words => format!("<p>{}</p>", inline(&block.join(" "))),
        };
        out.push('\n');
    }
    out + &"</details>\n".repeat(open_folds)
}

/// What stands above a block of code. A name of a file says it better.
const PLACES: &[(&str, &str)] = &[
    ("console", "in a terminal"),
    ("log", "in the terminal of the server"),
    ("rust scratch", "src/bin/scratch.rs"),
    ("text", ""),
];

fn code(line: &str, lines: &mut Peekable<Lines>) -> String {
    let words = line.trim_start_matches('`').trim();
    let place = match PLACES.iter().find(|(known, _)| *known == words) {
        Some((_, place)) => place,
        None => words.split_once(' ').map_or("", |(_, file)| file),
    };
    let code: Vec<&str> = lines.take_while(|line| *line != FENCE).collect();
    let above = match place {
        "" => String::new(),
        place => format!("<figcaption>{}</figcaption>", escape(place)),
    };
    // WHATWG HTML Standard, section 13.1.2.5: a line end right behind <pre> is not shown. So ours
    // stands there, or an empty first line would go. `tabindex` lets the keyboard scroll it.
    let code = escape(&code.join("\n"));
    format!("<figure class=\"code\">{above}<pre tabindex=\"0\">\n{code}\n</pre></figure>")
}

/// `### words` is below the chapter's own title, which is an `h1`.
fn heading(line: &str) -> String {
    let words = line.trim_start_matches('#');
    let level = (line.len() - words.len()).saturating_sub(1).clamp(1, 6);
    let words = words.trim();
    // So an address may end in `#the-problem`, and the browser goes there.
    let id = words.to_lowercase().replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
    format!("<h{level} id=\"{id}\">{}</h{level}>", inline(words))
}

fn table(rows: &[&str]) -> String {
    let mut out = String::new();
    for (at, row) in rows.iter().enumerate().filter(|(at, _)| *at != 1) {
        let cell = if at == 0 { "th" } else { "td" };
        out += "<tr>";
        for words in row.trim().trim_matches('|').split('|') {
            out += &format!("<{cell}>{}</{cell}>", inline(words.trim()));
        }
        out += "</tr>\n";
    }
    format!("<div class=\"scroll\" tabindex=\"0\"><table>\n{out}</table></div>")
}

fn list(items: &[&str]) -> String {
    let items = items.iter().filter_map(|line| item(line));
    let items: Vec<String> = items.map(|words| format!("<li>{}</li>\n", inline(words))).collect();
    format!("<ol>\n{}</ol>", items.concat())
}

fn fold(line: &str, open_folds: &mut usize) -> String {
    let words = line.strip_prefix("<details><summary>").and_then(|rest| rest.split_once("</"));
    if let Some((words, _)) = words {
        *open_folds += 1;
        return format!("<details><summary>{}</summary>", inline(words));
    }
    // An end without a beginning could end a fold of the page around it.
    let Some(others) = open_folds.checked_sub(1) else { return String::new() };
    *open_folds = others;
    "</details>".to_string()
}

/// The words of a line, with their marks.
fn inline(text: &str) -> String {
    let mut open = Vec::new();
    let (mut out, mut rest) = (String::new(), text);
    while let Some((words, mark)) = rest.find(['`', '*']).and_then(|at| rest.split_at_checked(at)) {
        out += &with_links(words, REFERENCES);
        let code = mark.strip_prefix('`').and_then(|after| after.split_once('`'));
        rest = if let Some((code, after)) = code {
            out += &format!("<code>{}</code>", escape(code));
            after
        } else if let Some(after) = mark.strip_prefix("**") {
            out += &turn(&mut open, "strong");
            after
        } else if let Some(after) = mark.strip_prefix('*') {
            out += &turn(&mut open, "em");
            after
        } else {
            out.push('`');
            mark.trim_start_matches('`')
        };
    }
    out += &with_links(rest, REFERENCES);
    // A mark that nothing ends. A browser would go on with it to the end of the page.
    out + &ends(&open)
}

/// A mark that begins something, or ends it, with all that has begun inside of it.
fn turn(open: &mut Vec<&'static str>, name: &'static str) -> String {
    let Some(at) = open.iter().position(|other| *other == name) else {
        open.push(name);
        return format!("<{name}>");
    };
    ends(&open.split_off(at))
}

/// The innermost one ends first.
fn ends(open: &[&str]) -> String {
    open.iter().rev().map(|name| format!("</{name}>")).collect()
}

/// Where one of these stands before a number, both lead to that chapter's page.
const REFERENCES: &[&str] = &["chapter ", "Chapter "];

fn with_links(words: &str, references: &[&str]) -> String {
    let Some((name, others)) = references.split_first() else { return escape(words) };
    let mut pieces = words.split(name);
    let mut out = with_links(pieces.next().unwrap_or_default(), others);
    for piece in pieces {
        let after = piece.trim_start_matches(|letter: char| letter.is_ascii_digit());
        out += &match piece.strip_suffix(after) {
            Some("") | None => name.to_string(),
            Some(number) => format!("<a href=\"/book/{number}/\">{name}{number}</a>"),
        };
        out += &with_links(after, others);
    }
    out
}
