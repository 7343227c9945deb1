//! The map of the book, for the first page. It is read from the table of contents and from the
//! README, so it cannot say anything else than they do.

use crate::web::template::Context;

const CONTENTS: &str = include_str!("../lib.rs");
const README: &str = include_str!("../../README.md");

/// One part of the book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its title, as above its `pub mod` in `src/lib.rs`.
    pub title: String,
    /// Its files.
    pub chapters: Vec<Chapter>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chapter {
    /// Its number.
    pub number: String,
    /// Its path in the project.
    pub file: String,
    /// What it explains, as the README says.
    pub explains: String,
    /// The specification, as the README says.
    pub specification: String,
}

/// All parts that have chapters, in the order of the book.
pub fn parts() -> Vec<Part> {
    let (mut parts, mut title, mut folder) = (Vec::<Part>::new(), "", "");
    for line in CONTENTS.lines() {
        if let Some(words) = line.strip_prefix("/// ") {
            title = words.trim_end_matches('.');
        } else if let Some(name) = line.strip_prefix("pub mod ") {
            folder = name.trim_end_matches(" {");
            parts.push(Part { title: title.to_string(), chapters: Vec::new() });
        }
        let chapter = line.trim_start().strip_prefix("pub mod ").and_then(|rest| {
            let (name, number) = rest.split_once("; // chapter ")?;
            Some(described(number.trim(), format!("src/{folder}/{name}.rs")))
        });
        if let (Some(chapter), Some(part)) = (chapter, parts.last_mut()) {
            part.chapters.push(chapter);
        }
    }
    parts.retain(|part| !part.chapters.is_empty());
    parts
}

/// The chapter, with what its row in the README's table says.
fn described(number: &str, file: String) -> Chapter {
    let wanted = format!("| `{file}` |");
    let row = README.lines().find(|line| line.contains(&wanted));
    let mut cells = row.unwrap_or_default().split('|').skip(3).map(str::trim);
    let mut cell = || cells.next().unwrap_or_default().replace('`', "");
    Chapter { number: number.to_string(), explains: cell(), specification: cell(), file }
}

/// The same for a template.
pub fn to_context(parts: &[Part]) -> Vec<Context> {
    let chapter = |chapter: &Chapter| {
        Context::new()
            .with("number", chapter.number.as_str())
            .with("file", chapter.file.as_str())
            .with("explains", chapter.explains.as_str())
            .with("specification", chapter.specification.as_str())
    };
    let part = |part: &Part| {
        let chapters: Vec<Context> = part.chapters.iter().map(chapter).collect();
        Context::new().with("title", part.title.as_str()).with("chapters", chapters)
    };
    parts.iter().map(part).collect()
}
