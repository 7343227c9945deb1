//! The book has one direction: no file and no chapter needs a later one, and everything has its
//! place in the table of contents.

mod support;

use support::book::{
    Chapter, HEADINGS, Module, Problem, Project, SITE, find_word, functions, numbered, report,
};

const FUNCTION_LINES: usize = 60;

#[test]
fn no_file_names_a_later_one() {
    report(code_order(&Project::load()));
}

#[test]
fn no_chapter_needs_a_later_one() {
    report(text_order(&Project::load()));
}

#[test]
fn everything_has_its_place() {
    report(places(&Project::load()));
}

#[test]
fn functions_are_short_and_rules_are_cited() {
    report(code_style(&Project::load()));
}

/// Neither a file of src nor a chapter's test names a module further down the contents.
fn code_order(project: &Project) -> Vec<Problem> {
    let contents = project.contents();
    let mut problems = Vec::new();
    for (place, module) in contents.iter().enumerate() {
        let (known, later) = contents.split_at(place + 1);
        let test = format!("tests/{}.rs", module.test());
        for path in [module.path.as_str(), test.as_str()] {
            let code = project.text(path).unwrap_or_default();
            let mut told = Vec::new();
            for (line, name) in names(code, module, &contents) {
                let same_part = |other: &Module| other.part == name[0];
                let same = |other: &Module| same_part(other) && name.get(1) == Some(&other.name);
                let new_part = later.iter().any(same_part) && !known.iter().any(same_part);
                if (new_part || later.iter().any(same)) && !told.contains(&name) {
                    let text = code.lines().nth(line - 1).unwrap_or_default().trim();
                    let after =
                        format!("comes after {}::{} in src/lib.rs", module.part, module.name);
                    let what = format!("`{text}` names {}, which {after}", name.join("::"));
                    problems.push(Problem::new(path, line, what));
                    told.push(name);
                }
            }
        }
    }
    problems
}

/// Every path of the crate in the code of `here`, `use` trees unfolded: its line and its first two
/// names. Comments count: a link to a later chapter needs it too. A path may also begin with a part,
/// after `use crate::http;`.
fn names(code: &str, here: &Module, contents: &[Module]) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut roots: Vec<&str> = contents.iter().map(|module| module.part.as_str()).collect();
    roots.dedup();
    roots.extend(["crate", "super", "glasshouse"]);
    for root in roots {
        for at in find_word(code, root) {
            let inner = code[..at].ends_with("::");
            if inner || !code[at + root.len()..].starts_with("::") {
                continue;
            }
            let mut paths = Vec::new();
            use_tree(&code[at..], &[], &mut paths);
            for path in paths {
                let up = path.iter().take_while(|name| **name == "super").count();
                let mut full = match root {
                    "super" => vec![here.part.as_str(), here.name.as_str()],
                    "crate" | "glasshouse" => vec![],
                    part => vec![part],
                };
                full.truncate(2_usize.saturating_sub(up));
                full.extend(&path[up.max(1)..]);
                let full: Vec<String> = full.iter().take(2).map(ToString::to_string).collect();
                if !full.is_empty() {
                    found.push((code[..at].matches('\n').count() + 1, full));
                }
            }
        }
    }
    found
}

/// Reads `a::b::{c, d::e}` into the paths a::b::c and a::b::d::e; returns what follows.
fn use_tree<'a>(text: &'a str, above: &[&'a str], found: &mut Vec<Vec<&'a str>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = use_tree(rest, above, found);
            rest = &rest[rest.find([',', '}']).unwrap_or(rest.len())..]; // past `as name`, `*`
            match rest.strip_prefix(',') {
                Some(next) => rest = next,
                None => return rest.strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let mut path = above.to_vec();
    if !name.is_empty() {
        path.push(name);
    }
    match rest.trim_start().strip_prefix("::").filter(|_| !name.is_empty()) {
        Some(rest) => use_tree(rest, &path, found),
        None => {
            found.push(path);
            rest
        }
    }
}

/// No chapter names or quotes a file that it has not reached. Chapter 0, *In the real world* and
/// what programs print are free to.
fn text_order(project: &Project) -> Vec<Problem> {
    let contents = project.contents();
    let mut problems = Vec::new();
    for chapter in project.book().numbered() {
        let Some(place) = contents.iter().rposition(|module| module.number == Some(chapter.number))
        else {
            let what = format!("src/lib.rs has no chapter {}", chapter.number);
            problems.push(Problem::text(chapter.line, what));
            continue;
        };
        for (line, text) in lines(chapter) {
            for later in &contents[place + 1..] {
                if let Some(name) = named(text, later) {
                    let what = format!("chapter {} names {name}, a later file", chapter.number);
                    problems.push(Problem::text(line, what));
                }
            }
        }
    }
    problems
}

fn lines(chapter: &Chapter) -> Vec<(usize, &str)> {
    let mut lines = Vec::new();
    for line in &chapter.prose {
        if line.under != HEADINGS[7] && line.under != "Further reading" {
            lines.push((line.line, line.text.as_str()));
        }
    }
    for fence in &chapter.fences {
        lines.extend(fence.file().map(|file| (fence.line, file)));
        let printed =
            |line: &str| fence.is("log") || fence.is("console") && !line.starts_with("$ ");
        for (number, line) in (fence.line + 1..).zip(&fence.lines) {
            if !printed(line) && fence.under != HEADINGS[7] {
                lines.push((number, line.as_str()));
            }
        }
    }
    lines
}

/// How this text names the module, if it does.
fn named(text: &str, module: &Module) -> Option<String> {
    let file = format!("{}.rs", module.name);
    let path = format!("{}::{}", module.part, module.name);
    for name in [&module.path, &path, &module.test()] {
        if !find_word(text, name).is_empty() {
            return Some(name.clone());
        }
    }
    let bare = find_word(text, &file).into_iter().any(|at| !text[..at].ends_with('/'));
    bare.then_some(file)
}

fn places(project: &Project) -> Vec<Problem> {
    let (contents, book) = (project.contents(), project.book());
    let mut problems = book.problems;
    for path in project.paths("src/", ".rs") {
        let program = path.starts_with("src/bin/") || path == "src/main.rs" || path == "src/lib.rs";
        if !program && !contents.iter().any(|module| module.path == path) {
            let what = "is neither in the table of contents (src/lib.rs) nor a program (src/bin)";
            problems.push(Problem::new(path, 1, what));
        }
    }
    for module in contents.iter().filter(|module| project.text(&module.path).is_none()) {
        problems.push(Problem::new("src/lib.rs", 1, format!("there is no file {}", module.path)));
    }
    for module in contents.iter().filter(|module| !module.leads && module.part != SITE) {
        let what = "has no `// chapter N` on its line in src/lib.rs (rustfmt moves such comments: put \
                    #[rustfmt::skip] above the part)";
        problems.push(Problem::new(&module.path, 1, what));
    }
    for (expected, (number, module)) in (1..).zip(numbered(&contents)) {
        let path = &module.path;
        if number != expected {
            let what = format!("{path} is called chapter {number} where chapter {expected} comes");
            problems.push(Problem::new("src/lib.rs", 1, what));
        }
        let test = format!("tests/{}.rs", module.test());
        if project.text(&test).is_none() {
            problems.push(Problem::new(path, 1, format!("its tests are missing: {test}")));
        }
        if !book.chapters.iter().any(|chapter| chapter.number == number) {
            let what = format!("TUTORIAL.md has no `## Chapter {number}: ...`");
            problems.push(Problem::new(path, 1, what));
        }
    }
    let order: Vec<usize> =
        book.chapters.iter().map(|chapter| chapter.number).filter(|n| *n > 0).collect();
    if !order.is_sorted() {
        problems.push(Problem::text(1, format!("the chapters are in the order {order:?}")));
    }
    problems
}

/// Functions of at most 60 lines; every place in an RFC given in the one form; at least one rule cited
/// by each chapter after the first part, which is about the operating system and not about a text.
fn code_style(project: &Project) -> Vec<Problem> {
    let mut problems = Vec::new();
    for path in project.paths("src/", ".rs") {
        let text = project.text(path).unwrap_or_default();
        for (first, last, name) in functions(text) {
            let length = last - first + 1;
            if length > FUNCTION_LINES {
                let what = format!("fn {name} has {length} lines, over {FUNCTION_LINES}: split it");
                problems.push(Problem::new(path, first + 1, what));
            }
        }
        for (number, line) in (1..).zip(text.lines()) {
            for at in find_word(line, "RFC") {
                if badly_cited(&line[at + 3..]) {
                    let what = "cite as `RFC 9112, section 6.3`, on one line";
                    problems.push(Problem::new(path, number, what));
                }
            }
        }
    }
    problems.extend(numbers_in_comments(project));
    let contents = project.contents();
    let first = contents.first().map(|module| module.part.clone());
    for (_, module) in
        numbered(&contents).filter(|(_, module)| Some(&module.part) != first.as_ref())
    {
        let text = project.text(&module.path).unwrap_or_default();
        let count = ["RFC ", "PEP 3333", "ASGI 3", "POSIX", "WHATWG"]
            .map(|name| text.matches(name).count());
        println!(
            "{}: {} citations in {} lines",
            module.path,
            count.iter().sum::<usize>(),
            text.lines().count()
        );
        if count.iter().sum::<usize>() == 0 {
            let what = "cites no rule: say which text it obeys, as `RFC 9112, section 6.3`";
            problems.push(Problem::new(&module.path, 1, what));
        }
    }
    problems
}

/// Chapters move. So only the contents and a file's first line say a number; a comment says the name.
fn numbers_in_comments(project: &Project) -> Vec<Problem> {
    let mut problems = Vec::new();
    for path in project.paths("src/", ".rs").into_iter().filter(|path| *path != "src/lib.rs") {
        let text = project.text(path).unwrap_or_default();
        for (number, line) in (1..).zip(text.lines()) {
            let comment = line.find("//").map_or("", |at| &line[at..]).to_lowercase();
            let numbered = ["chapter ", "chapters "].iter().any(|word| {
                let mut after =
                    comment.match_indices(word).map(|(at, _)| &comment[at + word.len()..]);
                after.any(|after| after.starts_with(|c: char| c.is_ascii_digit()))
            });
            if numbered && !(number == 1 && line.starts_with("//! Chapter ")) {
                let what = "names a chapter by its number, which may change: name the file";
                problems.push(Problem::new(path, number, what));
            }
        }
    }
    problems
}

/// After `RFC`: a section told in another form, or cut off by the line's end. `RFC 9110` alone names
/// the whole text.
fn badly_cited(text: &str) -> bool {
    let digit = |c: char| c.is_ascii_digit();
    let Some(rest) = text.strip_prefix(' ') else {
        return false;
    };
    let rest = rest.trim_start_matches(digit);
    let places = [", section ", ", sections ", ", appendix "];
    if rest.len() + 1 == text.len() || places.iter().any(|place| rest.starts_with(place)) {
        return false; // no number: "the RFC says"
    }
    let after = rest.trim_start_matches([' ', ',']);
    let short = after.strip_prefix('s').unwrap_or(after);
    rest == "," || short.starts_with(digit) || after.starts_with("sec") || after.starts_with('§')
}

// The checks themselves, tried on small projects.

const LIB: &str = "/// One.\npub mod net {\n    pub mod line; // chapter 1\n    pub mod door; // chapter 2\n}\n\n\
                   pub mod http {\n    pub mod head; // chapter 3\n}\npub mod site {\n    pub mod views;\n}\n";

fn found(check: impl Fn(&Project) -> Vec<Problem>, files: &[(&str, &str)]) -> Vec<String> {
    let files: Vec<(&str, &str)> = [("src/lib.rs", LIB)].iter().chain(files).copied().collect();
    check(&Project::of(&files)).iter().map(Problem::to_string).collect()
}

#[test]
fn every_way_to_name_a_later_module_is_found() {
    for code in [
        "use crate::http::head::Head;",
        "use crate::{\n    http::{head, head::Head as H},\n};",
        "use super::super::http::head as h;",
        "fn f() { crate::http::head::read(); }",
        "/// See [`crate::http::head`].",
        "use crate::http;",
        "fn f() -> http::head::Head;",
        "use super::door::Door;",
        "use super::{door, Line};",
        "use crate::site::views;",
    ] {
        let problems = found(code_order, &[("src/net/line.rs", code)]);
        assert_eq!(problems.len(), 1, "{code}: {problems:?}");
        assert!(problems[0].starts_with("src/net/line.rs:"), "{problems:?}");
        assert!(problems[0].ends_with("comes after net::line in src/lib.rs"), "{problems:?}");
    }
    let test = found(code_order, &[("tests/ch01_line.rs", "use glasshouse::net::door;")]);
    assert!(
        test[0].starts_with("tests/ch01_line.rs:1: `use glasshouse::net::door;` names net::door")
    );
}

#[test]
fn an_earlier_module_may_be_named() {
    let fine = "use crate::net::{door::Door, line};\nuse super::Doorway;\nuse std::net::door;\nlet crates = 1;";
    assert_eq!(found(code_order, &[("src/http/head.rs", fine)]), Vec::<String>::new());
}

#[test]
fn a_chapter_that_names_a_later_file_is_found() {
    let book = "## Chapter 1: Lines\nSee head.rs and myhead.rs.\n```rust src/net/door.rs\n```\n```log\nhttp::head\n```\n\
                ```console\n$ cargo test --test ch03_head\nhead.rs\n```\n### In the real world\nAs in head.rs.\n\
                ## Chapter 9: Gone\n";
    assert_eq!(
        found(text_order, &[("TUTORIAL.md", book)]),
        [
            "TUTORIAL.md:2: chapter 1 names head.rs, a later file",
            "TUTORIAL.md:3: chapter 1 names src/net/door.rs, a later file",
            "TUTORIAL.md:9: chapter 1 names ch03_head, a later file",
            "TUTORIAL.md:14: src/lib.rs has no chapter 9",
        ]
    );
}

#[test]
fn what_has_no_place_is_found() {
    let files = [
        ("src/net/line.rs", ""),
        ("src/net/lost.rs", ""),
        ("src/bin/wsgi.rs", ""),
        ("tests/ch01_line.rs", ""),
        ("TUTORIAL.md", "## Chapter 1: Lines\n"),
    ];
    let problems = found(places, &files);
    for expected in [
        "src/net/lost.rs:1: is neither in the table of contents (src/lib.rs) nor a program (src/bin)",
        "src/lib.rs:1: there is no file src/http/head.rs",
        "src/net/door.rs:1: its tests are missing: tests/ch02_door.rs",
        "src/net/door.rs:1: TUTORIAL.md has no `## Chapter 2: ...`",
    ] {
        assert!(problems.iter().any(|problem| problem == expected), "{problems:#?}");
    }
    assert!(
        !problems.iter().any(|problem| problem.starts_with("src/net/line.rs")),
        "{problems:#?}"
    );
}

#[test]
fn a_comment_that_rustfmt_moved_is_found() {
    let lib = LIB.replace("line; // chapter 1", "line;");
    let problems = places(&Project::of(&[("src/lib.rs", &lib)]));
    let moved =
        |problem: &Problem| problem.file == "src/net/line.rs" && problem.what.contains("rustfmt");
    assert!(problems.iter().any(moved), "{problems:#?}");
}

#[test]
fn a_long_function_and_a_loose_citation_are_found() {
    let long = format!(
        "// RFC 9112, section 6\npub fn f(\n    a: u8,\n) {{\n{}}}\n",
        "    g();\n".repeat(60)
    );
    let files = [
        (
            "src/http/head.rs",
            "// RFC 9112 6.3\n// RFC 9112 has 2, RFC 850: the two\n// RFC 9112, s6 or RFC 9112,\n",
        ),
        ("src/net/line.rs", long.as_str()),
    ];
    assert_eq!(
        found(code_style, &files),
        [
            "src/http/head.rs:1: cite as `RFC 9112, section 6.3`, on one line",
            "src/http/head.rs:3: cite as `RFC 9112, section 6.3`, on one line",
            "src/http/head.rs:3: cite as `RFC 9112, section 6.3`, on one line",
            "src/net/line.rs:2: fn f has 64 lines, over 60: split it",
        ]
    );
    let text = "//! Chapter 3: heads, RFC 9112\n// as in chapter 1\nlet x = 1; // Chapters 1 and 2\n// a chapter\n";
    assert_eq!(
        found(code_style, &[("src/http/head.rs", text)]),
        [2, 3].map(|line| format!(
            "src/http/head.rs:{line}: names a chapter by its number, which may change: name the file"
        ))
    );
    let none = found(code_style, &[("src/http/head.rs", "")]);
    assert_eq!(
        none,
        ["src/http/head.rs:1: cites no rule: say which text it obeys, as `RFC 9112, section 6.3`"]
    );
}
