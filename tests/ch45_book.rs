//! Chapter 45: the book. Markdown in, HTML out; and the map of the first page.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Barrier};
use std::thread;

use glasshouse::site::book::{Book, Shelf, to_html};
use glasshouse::site::contents::parts;
use glasshouse::web::value::{Context, Value};
use support::mutator::Mutator;

#[test]
fn exercises_start_red() {
    support::exercises_start_red();
}

const LIB: &str = include_str!("../src/lib.rs");
const TUTORIAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/TUTORIAL.md");

fn tutorial() -> String {
    fs::read_to_string(TUTORIAL).expect("TUTORIAL.md")
}

#[test]
fn the_beginning_of_a_line_says_what_it_is() {
    for (markdown, html) in [
        ("two\nlines\n\nand one", "<p>two lines</p>\n<p>and one</p>\n"),
        (
            "# Book\n## The *Wire*\n### `a` <b>",
            "<h1 id=\"book\">Book</h1>\n<h1 id=\"the--wire-\">The <em>Wire</em></h1>\n\
             <h2 id=\"-a---b-\"><code>a</code> &lt;b&gt;</h2>\n",
        ),
        ("1. one\n2. two\nend", "<ol>\n<li>one</li>\n<li>two</li>\n</ol>\n<p>end</p>\n"),
        ("2026. A year", "<ol>\n<li>A year</li>\n</ol>\n"),
        ("Version 2. Words", "<p>Version 2. Words</p>\n"),
        (
            "<details><summary>Hint</summary>\n\nLook.\n\n</details>",
            "<details><summary>Hint</summary>\n<p>Look.</p>\n</details>\n",
        ),
        ("<details><summary>Hint</summary>", "<details><summary>Hint</summary>\n</details>\n"),
        ("</details>\nwords", "\n<p>words</p>\n"),
        (
            "| a | b |\n|---|---|\n| 1 | `2` |",
            "<div class=\"scroll\" tabindex=\"0\"><table>\n<tr><th>a</th><th>b</th></tr>\n\
             <tr><td>1</td><td><code>2</code></td></tr>\n</table></div>\n",
        ),
    ] {
        assert_eq!(to_html(markdown), html, "{markdown}");
    }
}

#[test]
fn code_is_shown_as_it_is_with_its_place_above() {
    for (fence, above) in [
        ("rust src/lib.rs", "<figcaption>src/lib.rs</figcaption>"),
        ("wire tests/wire/a.http", "<figcaption>tests/wire/a.http</figcaption>"),
        ("rust scratch", "<figcaption>src/bin/scratch.rs</figcaption>"),
        ("console", "<figcaption>in a terminal</figcaption>"),
        ("text", ""),
        ("", ""),
    ] {
        let html = to_html(&format!("```{fence}\n\n# no *heading*\n  a < b\n```\nwords"));
        let code = "<pre tabindex=\"0\">\n\n# no *heading*\n  a &lt; b\n</pre>";
        let wanted = format!("<figure class=\"code\">{above}{code}</figure>\n<p>words</p>\n");
        assert_eq!(html, wanted, "{fence}");
    }
}

#[test]
fn code_that_is_never_closed_ends_with_the_text() {
    let html = to_html("```text\none");
    assert!(html.ends_with("one\n</pre></figure>\n"), "{html}");
}

#[test]
fn words_have_marks_and_references() {
    for (markdown, html) in [
        ("**bold** and *not so*", "<strong>bold</strong> and <em>not so</em>"),
        ("`a * b` and `**`", "<code>a * b</code> and <code>**</code>"),
        ("**Exercise 1.1.** `x`", "<strong>Exercise 1.1.</strong> <code>x</code>"),
        ("**the `x` of it**", "<strong>the <code>x</code> of it</strong>"),
        ("a ` alone", "a ` alone"),
        ("a ** and a * alone", "a <strong> and a <em> alone</em></strong>"),
        ("*a **b* c** d", "<em>a <strong>b</strong></em> c<strong> d</strong>"),
        ("**a *b** c", "<strong>a <em>b</em></strong> c"),
        ("see chapter 7.", "see <a href=\"/book/7/\">chapter 7</a>."),
        ("Chapter 12 says", "<a href=\"/book/12/\">Chapter 12</a> says"),
        ("this chapter is", "this chapter is"),
        (
            "(Chapter 1, chapter 2)",
            "(<a href=\"/book/1/\">Chapter 1</a>, <a href=\"/book/2/\">chapter 2</a>)",
        ),
        ("`chapter 3`", "<code>chapter 3</code>"),
    ] {
        assert_eq!(to_html(markdown), format!("<p>{html}</p>\n"), "{markdown}");
    }
}

/// The names of all tags; the closing ones with their slash.
fn tags(html: &str) -> Vec<&str> {
    let names = html.split('<').skip(1);
    names.map(|rest| rest.split([' ', '>', '\n']).next().unwrap_or_default()).collect()
}

const TAGS: &[&str] = &[
    "a",
    "code",
    "details",
    "div",
    "em",
    "figcaption",
    "figure",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "li",
    "ol",
    "p",
    "pre",
    "strong",
    "summary",
    "table",
    "td",
    "th",
    "tr",
];

#[track_caller]
fn has_only_our_tags(html: &str, of: &str) {
    for tag in tags(html) {
        assert!(TAGS.contains(&tag.trim_start_matches('/')), "<{tag}> of {of}");
    }
}

#[test]
fn nothing_in_the_text_becomes_a_tag() {
    const SCRIPT: &str = "<script>alert(1)</script>";
    for markdown in [
        SCRIPT.to_string(),
        format!("`{SCRIPT}`"),
        format!("### {SCRIPT}"),
        format!("| {SCRIPT} |\n|---|\n| {SCRIPT} |"),
        format!("1. {SCRIPT}"),
        format!("```rust {SCRIPT}\n{SCRIPT}\n```"),
        format!("<details><summary>{SCRIPT}</summary>"),
        format!("<details>{SCRIPT}"),
        format!("</details>{SCRIPT}"),
        format!("chapter {SCRIPT}, chapter 1{SCRIPT}"),
        "chapter 1\" onclick=\"x".to_string(),
    ] {
        let html = to_html(&markdown);
        has_only_our_tags(&html, &markdown);
        assert!(!html.contains("\" onclick"), "{html}");
    }
}

/// Whether every tag ends, and none before those that have begun inside of it. An open one would go
/// on to the end of the page.
fn is_nested(html: &str) -> bool {
    let mut open = Vec::new();
    for tag in tags(html) {
        match tag.strip_prefix('/') {
            None => open.push(tag),
            Some(name) if open.pop() == Some(name) => {}
            Some(_) => return false,
        }
    }
    open.is_empty()
}

#[test]
fn any_text_becomes_some_page() {
    let book = tutorial();
    let start: String = book.chars().take(12_000).collect();
    let mut mutator = Mutator::new(45);
    for _ in 0..300 {
        let text = mutator.mutate(start.as_bytes());
        let text = String::from_utf8_lossy(&text);
        let html = to_html(&text);
        has_only_our_tags(&html, "a mutated chapter 0");
        assert!(is_nested(&html), "{html}");
    }
    for (end, _) in start.char_indices().step_by(61) {
        let html = to_html(&start[..end]);
        has_only_our_tags(&html, "a chapter 0 that is cut");
        assert!(is_nested(&html), "{html}");
    }
}

fn text(context: &Context, name: &str) -> String {
    match context.get(name) {
        Some(Value::Text(text) | Value::Safe(text)) => text.clone(),
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn every_page_of_the_book_has_its_tags_in_pairs_and_its_links_lead_somewhere() {
    let book = Book::parse(&tutorial());
    let count = LIB.matches("; // chapter ").count() as u64;
    for number in 0..=count {
        let page = book.chapter(number).unwrap_or_else(|| panic!("no chapter {number}"));
        let html = text(&page, "text");
        has_only_our_tags(&html, &number.to_string());
        let tags = tags(&html);
        for tag in TAGS {
            let open = tags.iter().filter(|name| *name == tag).count();
            let closed = tags.iter().filter(|name| name.strip_prefix('/') == Some(tag)).count();
            assert_eq!(open, closed, "<{tag}> in chapter {number}");
        }
        // What is named there are chapters of other books.
        for words in html.split("<em>Further reading.</em>").skip(1) {
            let words = words.split("</p>").next().unwrap_or_default();
            assert!(!words.contains("<a "), "chapter {number} takes another book for this one");
        }
        let links: BTreeSet<&str> = html
            .split("href=\"/book/")
            .skip(1)
            .filter_map(|rest| rest.split_once("/\"").map(|(number, _)| number))
            .collect();
        for link in links {
            let known = link.parse().is_ok_and(|number: u64| number <= count);
            assert!(known, "chapter {number} leads to chapter {link}");
        }
    }
    assert!(book.chapter(count + 1).is_none());
}

#[test]
fn a_chapter_knows_its_neighbours() {
    let book = Book::parse("# A\nIntro.\n\n## Chapter 1: One\na\n\n## Chapter 2: Two\nb\n");
    let title = |context: &Context, side: &str| match context.get(side) {
        Some(Value::Map(other)) => other.get("title").cloned(),
        _ => None,
    };
    let (one, two) = (book.chapter(1).expect("one"), book.chapter(2).expect("two"));
    assert_eq!((title(&one, "before"), title(&one, "after")), (None, Some("Two".into())));
    assert_eq!((title(&two, "before"), title(&two, "after")), (Some("One".into()), None));
    assert_eq!(text(&one, "text"), "<p>a</p>\n");
    assert_eq!(text(&book.contents(), "preface"), "<h1 id=\"a\">A</h1>\n<p>Intro.</p>\n");
}

#[test]
fn the_book_is_read_once_and_in_debug_mode_each_time() {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("ch45-book.md");
    let _ = fs::remove_file(&file);
    let (kept, changing) = (Shelf::new(&file, false), Shelf::new(&file, true));
    assert!(kept.take().is_err() && changing.take().is_err());
    let preface = |shelf: &Shelf| text(&shelf.take().expect("a book").contents(), "preface");
    fs::write(&file, "one").expect("a file");
    assert_eq!(
        (preface(&kept), preface(&changing)),
        ("<p>one</p>\n".into(), "<p>one</p>\n".into())
    );
    fs::write(&file, "two").expect("a file");
    assert_eq!(
        (preface(&kept), preface(&changing)),
        ("<p>one</p>\n".into(), "<p>two</p>\n".into())
    );
    fs::remove_file(&file).expect("it is there");
}

#[test]
fn a_crowd_that_comes_at_once_shares_one_book() {
    let shelf = Shelf::new(TUTORIAL, false);
    let together = Barrier::new(8);
    let take = || {
        together.wait();
        shelf.take().expect("the book")
    };
    let books: Vec<Arc<Book>> = thread::scope(|scope| {
        let readers: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
        readers.into_iter().map(|reader| reader.join().expect("no panic")).collect()
    });
    assert!(books.iter().all(|book| Arc::ptr_eq(book, &books[0])));
}

#[test]
fn the_map_has_every_chapter_and_says_what_it_explains() {
    let parts = parts();
    let chapters: Vec<_> = parts.iter().flat_map(|part| &part.chapters).collect();
    assert_eq!(chapters.len(), LIB.matches("; // chapter ").count());
    for (at, chapter) in chapters.iter().enumerate() {
        assert_eq!(chapter.number, (at + 1).to_string(), "{chapter:?}");
        assert!(!chapter.explains.is_empty(), "README.md does not say: {chapter:?}");
    }
    assert!(parts.iter().all(|part| !part.title.is_empty()), "{parts:?}");
}

#[test]
#[ignore = "exercise 45.3"]
fn exercise_45_3_a_list_may_have_points_instead_of_numbers() {
    let list = "<ul>\n<li>one</li>\n<li>and <code>two</code></li>\n</ul>\n";
    assert_eq!(to_html("- one\n- and `two`"), list);
    assert_eq!(to_html("-1 is a number"), "<p>-1 is a number</p>\n");
    assert_eq!(to_html("1. one\n- two"), "<ol>\n<li>one</li>\n</ol>\n<ul>\n<li>two</li>\n</ul>\n");
    assert_eq!(to_html("```text\n- one\n```").matches("<li>").count(), 0);
}
