//! The crate cut after any chapter is a crate: it compiles without a warning, and the chapter's
//! tests and programs need nothing that comes later.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};
use support::book::{BOOK, Book, Fence, Module, Problem, Project, contents, numbered, report};
use support::prefix::{Workshop, cargo_variables, cut, in_pairs};
use support::process::Process;

#[test]
fn the_book_up_to_each_chapter_compiles() {
    let project = Project::load();
    let shop = Workshop::new(&project, Path::new(env!("CARGO_MANIFEST_DIR")), "prefixes");
    report(prefixes(&project, &shop));
}

/// Builds and runs each chapter's tests against the crate cut after that chapter.
#[test]
#[ignore = "slow: links each prefix and runs its tests"]
fn slow_each_chapter_passes_its_tests_without_the_later_ones() {
    let project = Project::load();
    let shop = Workshop::new(&project, Path::new(env!("CARGO_MANIFEST_DIR")), "prefixes-linked");
    let contents = project.contents();
    let chapters: Vec<(usize, &Module)> = numbered(&contents).collect();
    let results = in_pairs(&chapters, |(k, module)| {
        let start = Instant::now();
        let problem = passes(&shop, *k, module).err();
        println!("chapter {k}: {:.1} s", start.elapsed().as_secs_f64());
        problem
    });
    report(results.into_iter().flatten().collect());
}

/// Compiles each prefix, and the scratch programs of each chapter against its prefix. Chapter 0 and
/// the other free pieces have the whole book.
fn prefixes(project: &Project, shop: &Workshop) -> Vec<Problem> {
    let contents = project.contents();
    let book = project.book();
    let chapters: Vec<(usize, &Module)> = numbered(&contents).collect();
    let last = chapters.iter().map(|(number, _)| *number).max();
    let results = in_pairs(&chapters, |(k, module)| {
        let library = match shop.library(*k, false, false) {
            Ok(library) => library,
            Err(error) => {
                let what = format!("the crate cut after chapter {k} does not compile:\n{error}");
                return vec![Problem::new(&module.path, 1, what)];
            }
        };
        let mut problems = Vec::new();
        for fence in scratches(&book, *k, last) {
            let name = format!("scratch_{}", fence.line);
            if let Err(error) = shop.check(&name, &fence.lines.join("\n"), &library) {
                let what =
                    format!("this program does not compile with chapters 1 to {k}:\n{error}");
                problems.push(Problem::text(fence.line, what));
            }
        }
        problems
    });
    // A fault in one chapter is in all prefixes after it: tell it once.
    let mut problems: Vec<Problem> = results.into_iter().flatten().collect();
    let mut broken = false;
    problems.retain(|problem| problem.file == BOOK || !std::mem::replace(&mut broken, true));
    problems
}

fn scratches(book: &Book, k: usize, last: Option<usize>) -> impl Iterator<Item = &Fence> {
    let mine = move |fence: &&Fence| {
        fence.is("rust scratch") && (fence.chapter == k || fence.chapter == 0 && Some(k) == last)
    };
    book.fences().filter(mine)
}

fn passes(shop: &Workshop, k: usize, module: &Module) -> Result<(), Problem> {
    let path = format!("tests/{}.rs", module.test());
    let problem = |what: String| Problem::new(&path, 1, what);
    let library = shop.library(k, true, false).map_err(problem)?;
    let test = shop.test(&module.test(), &library).map_err(|error| {
        problem(format!("does not compile with chapters 1 to {k} only:\n{error}"))
    })?;
    let mut command = Process::in_one(&test);
    cargo_variables(&mut command);
    let mut run = Process::spawn(&mut command);
    match run.finish(Duration::from_secs(120)) {
        Some(Some(0)) => Ok(()),
        Some(_) => {
            Err(problem(format!("fails with chapters 1 to {k} only:\n{}", run.lines().join("\n"))))
        }
        None => Err(problem(format!("does not end within 120 s:\n{}", run.lines().join("\n")))),
    }
}

// The checks themselves, tried on small crates.

const LIB: &str = "//! Top.\n#![allow(unused_mut)]\n\n/// One.\npub mod net {\n    pub mod line; // chapter 1\n    \
                   /// Doors.\n    pub mod door; // chapter 2\n}\n\n/// Two.\npub mod http {\n    \
                   pub mod head; // chapter 3\n}\n\n/// Site.\npub mod site {\n    pub mod views;\n}\n\n\
                   #[cfg(doctest)]\n#[doc = include_str!(\"../README.md\")]\npub struct Readme;\n";

#[test]
fn the_contents_are_cut_after_a_chapter() {
    assert_eq!(contents(LIB).len(), 4);
    let text =
        cut(LIB, Path::new("/x/src"), |module| module.number.is_some_and(|number| number <= 1));
    assert_eq!(
        text.replace("\n\n", "\n").replace("\n\n", "\n"),
        "//! Top.\n#![allow(unused_mut)]\n/// One.\npub mod net {\n    #[path = \"/x/src/net/line.rs\"]\n    \
         pub mod line; // chapter 1\n}\n#[cfg(doctest)]\n#[doc = include_str!(\"/x/src/../README.md\")]\npub struct Readme;\n"
    );
}

#[test]
fn a_file_of_the_site_belongs_to_the_next_number() {
    let site = "    pub mod figures;\n    pub mod views; // chapter 4\n    pub mod program;\n";
    let lib = LIB.replace("    pub mod views;\n", site);
    let modules = contents(&lib);
    let numbers: Vec<Option<usize>> = modules.iter().map(|module| module.number).collect();
    assert_eq!(numbers, [Some(1), Some(2), Some(3), Some(4), Some(4), None]);
    let leading: Vec<&str> = numbered(&modules).map(|(_, module)| module.name.as_str()).collect();
    assert_eq!(leading, ["line", "door", "head", "views"]);
}

/// Writes a crate of the three chapters and returns the problems of its prefixes.
fn problems_of(name: &str, door: &str, scratch: &str) -> Vec<String> {
    let book = format!("## Chapter 1: Lines\n```rust scratch\n{scratch}\n```\n");
    let cargo = "edition = \"2024\"\n[lints.rust]\nmissing_docs = \"warn\"\n";
    let files = [
        ("src/lib.rs", LIB),
        (
            "src/net/line.rs",
            "//! Lines.\n/// The contents.\npub const ALL: &str = include_str!(\"../lib.rs\");\n",
        ),
        ("src/net/door.rs", door),
        ("src/http/head.rs", "//! Heads.\n"),
        ("Cargo.toml", cargo),
        ("TUTORIAL.md", &book),
    ];
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    for (path, text) in files {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder to write in");
        std::fs::write(path, text).expect("a file to write");
    }
    let project = Project::of(&files);
    let shop = Workshop::new(&project, &root, &format!("{name}/out"));
    prefixes(&project, &shop).iter().map(Problem::to_string).collect()
}

#[test]
fn a_small_book_compiles_up_to_each_chapter() {
    let scratch = "fn main() {\n    println!(\"{}\", glasshouse::net::line::ALL);\n}";
    assert_eq!(problems_of("small-book", "//! Doors.\n", scratch), Vec::<String>::new());
}

#[test]
fn a_private_helper_of_a_later_chapter_is_found() {
    let problems = problems_of("dead-helper", "//! Doors.\nfn later() {}\n", "fn main() {}");
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(
        problems[0]
            .starts_with("src/net/door.rs:1: the crate cut after chapter 2 does not compile:")
    );
    assert!(problems[0].contains("function `later` is never used"), "{}", problems[0]);
    let undocumented = problems_of("no-words", "//! Doors.\npub fn open() {}\n", "fn main() {}");
    assert!(
        undocumented[0].contains("missing documentation for a function"),
        "{}",
        undocumented[0]
    );
}

#[test]
fn a_program_that_needs_a_later_chapter_is_found() {
    let problems = problems_of(
        "early-scratch",
        "//! Doors.\n",
        "fn main() {\n    glasshouse::net::door::open();\n}",
    );
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(
        problems[0]
            .starts_with("TUTORIAL.md:2: this program does not compile with chapters 1 to 1:")
    );
}
