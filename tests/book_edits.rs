//! The exercises are checked both ways: a solution turns its test green, a planted mistake turns
//! its test red. Both are edits, in `tests/edits/7.2-solution.edit` and `tests/edits/7.3-break.edit`.

mod support;

use std::path::Path;
use std::time::Duration;
use support::book::{Chapter, Module, Problem, Project, functions, numbered, report};
use support::prefix::{Workshop, cargo_variables, in_pairs};
use support::process::Process;

#[test]
fn every_exercise_has_its_edit_and_its_test() {
    report(exercises(&Project::load()));
}

/// Builds the chapter's prefix with and without each edit, and runs its test on both.
#[test]
#[ignore = "slow: builds a prefix for each edit"]
fn slow_every_edit_changes_its_test() {
    let project = Project::load();
    let (contents, edits) = (project.contents(), edits(&project));
    let edits: Vec<Edit> =
        edits.into_iter().collect::<Result<_, _>>().unwrap_or_else(|problem| panic!("{problem}"));
    let chapters: Vec<(usize, &Module)> = numbered(&contents).collect();
    let results = in_pairs(&chapters, |(k, module)| {
        let edits: Vec<&Edit> = edits.iter().filter(|edit| edit.chapter == *k).collect();
        if edits.is_empty() { Vec::new() } else { tried(&project, module, *k, &edits) }
    });
    println!("{} edits tried", edits.len());
    report(results.into_iter().flatten().collect());
}

/// One file of `tests/edits`.
#[derive(Default)]
struct Edit {
    path: String,
    chapter: usize,
    file: String,
    /// `passes`, or `fails`: what the test does once the edit is made.
    passes: bool,
    test: String,
    blocks: Vec<(String, String)>,
}

impl Edit {
    /// The exercise: `7.2`, from the file's name.
    fn exercise(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.split('-').next().unwrap_or_default()
    }

    fn parse(path: &str, text: &str) -> Result<Edit, Problem> {
        let mut edit = Edit { path: path.to_string(), ..Edit::default() };
        let mut lines = (1..).zip(text.lines());
        while let Some((number, line)) = lines.next() {
            match line.split_once(' ').unwrap_or((line, "")) {
                ("", "") => {}
                ("chapter", value) if value.parse::<usize>().is_ok() => {
                    edit.chapter = value.parse().unwrap_or_default();
                }
                ("file", value) => edit.file = value.to_string(),
                (word @ ("passes" | "fails"), value) => {
                    edit.passes = word == "passes";
                    edit.test = value.to_string();
                }
                ("---", "replace") => {
                    let old = part(&mut lines, "--- with");
                    let new = part(&mut lines, "--- end");
                    let block = old.zip(new).filter(|(old, _)| !old.is_empty());
                    let what = "a block is `--- replace`, lines, `--- with`, lines, `--- end`";
                    edit.blocks.push(block.ok_or(Problem::new(path, number, what))?);
                }
                _ => {
                    let what = format!(
                        "not `chapter N`, `file PATH`, `passes TEST`, `fails TEST` or a block: {line}"
                    );
                    return Err(Problem::new(path, number, what));
                }
            }
        }
        if edit.file.is_empty() || edit.test.is_empty() || edit.blocks.is_empty() {
            return Err(Problem::new(
                path,
                1,
                "needs a file, a test (passes or fails) and a block",
            ));
        }
        Ok(edit)
    }

    /// The file's text with the edit made.
    fn apply(&self, text: &str) -> Result<String, Problem> {
        // Whole lines: each text begins after a line's end.
        let mut text = format!("\n{text}");
        for (old, new) in &self.blocks {
            let count = text.matches(&format!("\n{old}")).count();
            if count != 1 {
                let first = old.lines().next().unwrap_or_default().trim();
                let what = format!(
                    "the lines from `{first}` on are {count} times in {}, not once",
                    self.file
                );
                return Err(Problem::new(&self.path, 1, what));
            }
            text = text.replacen(&format!("\n{old}"), &format!("\n{new}"), 1);
        }
        Ok(text[1..].to_string())
    }
}

/// The lines up to `end`, which must come.
fn part<'a>(lines: &mut impl Iterator<Item = (usize, &'a str)>, end: &str) -> Option<String> {
    let mut text = String::new();
    for (_, line) in lines {
        if line == end {
            return Some(text);
        }
        if line.starts_with("--- ") {
            return None;
        }
        text.push_str(line);
        text.push('\n');
    }
    None
}

fn edits(project: &Project) -> Vec<Result<Edit, Problem>> {
    let paths = project.paths("tests/edits/", ".edit");
    paths
        .into_iter()
        .map(|path| Edit::parse(path, project.text(path).unwrap_or_default()))
        .collect()
}

/// An exercise of the text: `**Exercise 7.2 (extend).**` and all up to the next one.
struct Exercise {
    number: String,
    kind: String,
    line: usize,
    lines: Vec<String>,
}

fn exercises_of(chapter: &Chapter) -> Vec<Exercise> {
    let mut found: Vec<Exercise> = Vec::new();
    let mut last = 0;
    for line in chapter.prose.iter().filter(|line| line.under == "Exercises") {
        let block = line.line != last + 1;
        last = line.line;
        if let Some((head, _)) =
            line.text.strip_prefix("**Exercise ").and_then(|rest| rest.split_once(").**"))
        {
            let (number, kind) = head.split_once(" (").unwrap_or((head, ""));
            let (number, kind) = (number.to_string(), kind.to_string());
            found.push(Exercise { number, kind, line: line.line, lines: Vec::new() });
        }
        if let Some(exercise) = found.last_mut() {
            exercise.lines.extend(block.then(|| "(a block)".to_string()));
            exercise.lines.push(line.text.clone());
        }
    }
    found
}

fn exercises(project: &Project) -> Vec<Problem> {
    let (book, contents) = (project.book(), project.contents());
    let mut problems = Vec::new();
    let mut edits_read = Vec::new();
    for edit in edits(project) {
        match edit {
            Ok(edit) => {
                problems.extend(fits(project, &contents, &edit).err());
                edits_read.push(edit);
            }
            Err(problem) => problems.push(problem),
        }
    }
    let mut listed = Vec::new();
    for chapter in book.numbered() {
        let list = exercises_of(chapter);
        if !(2..=4).contains(&list.len()) {
            let what =
                format!("chapter {} has {} exercises, not 2 to 4", chapter.number, list.len());
            problems.push(Problem::text(chapter.line, what));
        }
        for (place, exercise) in (1..).zip(&list) {
            let expected = format!("{}.{place}", chapter.number);
            if exercise.number != expected {
                let what = format!("exercise {} stands where {expected} comes", exercise.number);
                problems.push(Problem::text(exercise.line, what));
            }
            problems.extend(told(exercise, &edits_read));
        }
        listed.extend(list);
    }
    for edit in &edits_read {
        if !listed.iter().any(|exercise| exercise.number == edit.exercise()) {
            let what = format!("TUTORIAL.md has no exercise {}", edit.exercise());
            problems.push(Problem::new(&edit.path, 1, what));
        }
    }
    problems.extend(waiting(project, &contents, &listed));
    problems
}

/// Is the exercise of a known kind, with its fold and its edit?
fn told(exercise: &Exercise, edits: &[Edit]) -> Vec<Problem> {
    let number = &exercise.number;
    let mut problems = Vec::new();
    let edit = edits.iter().find(|edit| edit.exercise() == number);
    let wanted = match exercise.kind.as_str() {
        "extend" => Some(true),
        "break" => Some(false),
        "predict" | "measure" => None,
        kind => {
            let what =
                format!("exercise {number} is `{kind}`, not predict, break, extend or measure");
            return vec![Problem::text(exercise.line, what)];
        }
    };
    match (wanted, edit.map(|edit| edit.passes)) {
        (wanted, made) if wanted == made => {}
        (None, _) => {
            let what = format!(
                "exercise {number} ({}) has an edit file; only extend and break do",
                exercise.kind
            );
            problems.push(Problem::text(exercise.line, what));
        }
        (Some(passes), _) => {
            let (end, word) = if passes { ("solution", "passes") } else { ("break", "fails") };
            let what = format!(
                "exercise {number} needs tests/edits/{number}-{end}.edit with `{word} <test>`"
            );
            problems.push(Problem::text(exercise.line, what));
        }
    }
    let text = exercise.lines.join("\n");
    let folds: Vec<&str> = text.split("<details>").skip(1).collect();
    if folds.is_empty() {
        let what = format!("exercise {number} needs its answer or hint folded in <details>");
        problems.push(Problem::text(exercise.line, what));
    }
    for fold in folds {
        let inside = fold.split_once("</details>").map(|(inside, _)| inside);
        let answer =
            inside.map(|inside| inside.rsplit("</summary>").next().unwrap_or_default().trim());
        if answer.is_none_or(str::is_empty) {
            let what = format!("a fold of exercise {number} is empty or not closed");
            problems.push(Problem::text(exercise.line, what));
        }
    }
    problems
}

/// Does the edit fit its file, and is its test there?
fn fits(project: &Project, contents: &[Module], edit: &Edit) -> Result<(), Problem> {
    let problem = |what: String| Problem::new(&edit.path, 1, what);
    let module = numbered(contents).find(|(number, _)| *number == edit.chapter);
    let (_, module) =
        module.ok_or_else(|| problem(format!("src/lib.rs has no chapter {}", edit.chapter)))?;
    let own = edit.exercise().split('.').next().unwrap_or_default();
    if own != edit.chapter.to_string() {
        return Err(problem(format!(
            "its name begins with {own}, but it says chapter {}",
            edit.chapter
        )));
    }
    let text = project
        .text(&edit.file)
        .ok_or_else(|| problem(format!("there is no file {}", edit.file)))?;
    edit.apply(text)?;
    let tests = format!("tests/{}.rs", module.test());
    let known = functions(project.text(&tests).unwrap_or_default());
    if !known.iter().any(|(_, _, name)| *name == edit.test) {
        return Err(problem(format!("{tests} has no test {}", edit.test)));
    }
    let start = format!("exercise_{}_", edit.exercise().replace('.', "_"));
    if edit.test.starts_with("exercise_") != edit.passes
        || edit.passes && !edit.test.starts_with(&start)
    {
        let what =
            format!("a solution names its `{start}...` test, a break names a test that is green");
        return Err(problem(what));
    }
    Ok(())
}

/// Every `exercise_*` test waits for an extend exercise of the text, and starts red.
fn waiting(project: &Project, contents: &[Module], listed: &[Exercise]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (_, module) in numbered(contents) {
        let path = format!("tests/{}.rs", module.test());
        let text = project.text(&path).unwrap_or_default();
        let functions = functions(text);
        for (line, _, name) in functions.iter().filter(|(_, _, name)| name.starts_with("exercise_"))
        {
            let number: Vec<&str> = name.split('_').skip(1).take(2).collect();
            let number = number.join(".");
            if !listed.iter().any(|exercise| exercise.number == number && exercise.kind == "extend")
            {
                let what =
                    format!("TUTORIAL.md has no `**Exercise {number} (extend).**` for {name}");
                problems.push(Problem::new(&path, line + 1, what));
            }
            if !text.contains("support::exercises_start_red()") {
                let what =
                    "has exercises, so it needs a test that calls support::exercises_start_red()";
                problems.push(Problem::new(&path, 1, what));
            }
        }
    }
    problems
}

/// Runs each edit's test on the chapter's prefix as it is, and on a copy with the edit made.
fn tried(project: &Project, module: &Module, k: usize, edits: &[&Edit]) -> Vec<Problem> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let built = |root: &Path, name: &str| {
        let shop = Workshop::new(project, root, name);
        shop.test(&module.test(), &shop.library(k, true, true)?)
    };
    let before = match built(root, &format!("edits/chapter{k}")) {
        Ok(program) => program,
        Err(error) => return vec![Problem::new(&module.path, 1, error)],
    };
    let changes = |edit: &Edit| {
        let name = format!("edits/{}", edit.path.rsplit('/').next().unwrap_or_default());
        let copy = folder.join(&name).join("copy");
        copied(project, root, &copy, edit)
            .map_err(|error| format!("{}: {error}", copy.display()))?;
        let after = built(&copy, &name)
            .map_err(|error| format!("does not compile with this edit:\n{error}"))?;
        for (when, program, wanted) in
            [("before", &before, !edit.passes), ("after", &after, edit.passes)]
        {
            let (well, said) = ends_well(program, &edit.test)?;
            if well != wanted {
                let word = if well { "passes" } else { "fails" };
                return Err(format!(
                    "{} {word} {when} the edit, which it must not:\n{said}",
                    edit.test
                ));
            }
        }
        // What failed stays, to be looked at. All of it would be gigabytes.
        let _ = std::fs::remove_dir_all(folder.join(&name));
        Ok(())
    };
    let problem = |edit: &&Edit| Some(Problem::new(&edit.path, 1, changes(edit).err()?));
    let problems = edits.iter().filter_map(problem).collect();
    let _ = std::fs::remove_dir_all(folder.join(format!("edits/chapter{k}")));
    problems
}

/// A tree like the project's: src copied with the edit made, links to all else.
fn copied(project: &Project, root: &Path, copy: &Path, edit: &Edit) -> std::io::Result<()> {
    let _ = std::fs::remove_dir_all(copy);
    std::fs::create_dir_all(copy)?;
    for entry in std::fs::read_dir(root)?.flatten() {
        let name = entry.file_name();
        if name != "src" && name != "target" {
            std::os::unix::fs::symlink(entry.path(), copy.join(name))?;
        }
    }
    for path in project.paths("src/", "") {
        let text = project.text(path).unwrap_or_default().to_string();
        let text = if path == edit.file { edit.apply(&text).unwrap_or(text) } else { text };
        let path = copy.join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(copy))?;
        std::fs::write(path, text)?;
    }
    Ok(())
}

/// Runs one test of a test program: whether it passed, and what it printed.
fn ends_well(program: &Path, test: &str) -> Result<(bool, String), String> {
    let mut command = Process::in_one(program);
    command.args(["--exact", test, "--include-ignored"]);
    cargo_variables(&mut command);
    let mut run = Process::spawn(&mut command);
    let code = run.finish(Duration::from_secs(60));
    let said = run.lines().join("\n");
    if said.contains("running 0 tests") {
        return Err(format!("{test} is not a test:\n{said}"));
    }
    match code {
        Some(code) => Ok((code == Some(0), said)),
        None => Err(format!("{test} does not end within 60 s:\n{said}")),
    }
}

// The checks themselves, tried on small projects.

const LIB: &str = "pub mod http {\n    pub mod head; // chapter 1\n}\n";
const HEAD: &str = "//! Heads.\n\n/// Two.\npub fn two() -> u8 {\n    2\n}\n";
const TESTS: &str =
    "fn it_is_two() {}\nfn exercise_1_2_it_is_three() {}\n// support::exercises_start_red()\n";
const SOLUTION: &str = "chapter 1\nfile src/http/head.rs\npasses exercise_1_2_it_is_three\n\
                        --- replace\n    2\n--- with\n    3\n--- end\n";
const BREAK: &str = "chapter 1\nfile src/http/head.rs\nfails it_is_two\n--- replace\n    2\n--- with\n    4\n--- end\n";
const TEXT: &str = "## Chapter 1: Heads\n### Exercises\n**Exercise 1.1 (break).** Do. \
                    <details><summary>Answer</summary>It.</details>\n\
                    **Exercise 1.2 (extend).** Do.\n<details>\n<summary>Hint</summary>\n```text\nOne.\n```\n</details>\n";

fn found(solution: &str, mistake: &str, text: &str) -> Vec<String> {
    let files = [
        ("src/lib.rs", LIB),
        ("src/http/head.rs", HEAD),
        ("tests/ch01_head.rs", TESTS),
        ("tests/edits/1.1-break.edit", mistake),
        ("tests/edits/1.2-solution.edit", solution),
        ("TUTORIAL.md", text),
    ];
    exercises(&Project::of(&files)).iter().map(Problem::to_string).collect()
}

#[test]
fn exercises_with_their_edits_are_fine() {
    assert_eq!(found(SOLUTION, BREAK, TEXT), Vec::<String>::new());
}

#[test]
fn an_edit_that_does_not_fit_is_found() {
    for (from, to, expected) in [
        ("chapter 1", "chapter 8", "src/lib.rs has no chapter 8"),
        ("head.rs", "foot.rs", "there is no file src/http/foot.rs"),
        ("fails it", "passes it", "a solution names its `exercise_1_1_...` test"),
        ("it_is_two", "it_is_gone", "tests/ch01_head.rs has no test it_is_gone"),
        ("--- with", "--- into", "a block is `--- replace`, lines, `--- with`"),
        ("--- end", "--- replace\n    4\n--- end", "a block is `--- replace`, lines, `--- with`"),
        ("    2", "    9", "the lines from `9` on are 0 times in src/http/head.rs, not once"),
        (
            "fails",
            "falls",
            "not `chapter N`, `file PATH`, `passes TEST`, `fails TEST` or a block: falls it_is_two",
        ),
        ("fails it_is_two\n", "", "needs a file, a test (passes or fails) and a block"),
    ] {
        let problems = found(SOLUTION, &BREAK.replace(from, to), TEXT);
        assert!(problems[0].starts_with("tests/edits/1.1-break.edit:"), "{problems:#?}");
        assert!(problems[0].contains(expected), "{expected}\n{problems:#?}");
    }
}

#[test]
fn an_exercise_out_of_shape_is_found() {
    for (from, to, expected) in [
        (
            "1.1 (break)",
            "1.1 (guess)",
            "TUTORIAL.md:3: exercise 1.1 is `guess`, not predict, break, extend or measure",
        ),
        (
            "1.1 (break)",
            "1.1 (measure)",
            "TUTORIAL.md:3: exercise 1.1 (measure) has an edit file; only extend and break do",
        ),
        (
            "1.1 (break)",
            "1.1 (extend)",
            "TUTORIAL.md:3: exercise 1.1 needs tests/edits/1.1-solution.edit with `passes <test>`",
        ),
        ("1.1 (break)", "1.3 (break)", "TUTORIAL.md:3: exercise 1.3 stands where 1.1 comes"),
        (
            "**Exercise 1.1",
            "**Exorcise 1.1",
            "TUTORIAL.md:1: chapter 1 has 1 exercises, not 2 to 4",
        ),
        (
            "**Exercise 1.1",
            "**Exorcise 1.1",
            "tests/edits/1.1-break.edit:1: TUTORIAL.md has no exercise 1.1",
        ),
        (
            "1.2 (extend)",
            "1.2 (predict)",
            "tests/ch01_head.rs:2: TUTORIAL.md has no `**Exercise 1.2 (extend).**` for exercise_1_2_it_is_three",
        ),
        (
            "```text\nOne.\n```\n",
            "",
            "TUTORIAL.md:4: a fold of exercise 1.2 is empty or not closed",
        ),
        (
            "<details>\n",
            "",
            "TUTORIAL.md:4: exercise 1.2 needs its answer or hint folded in <details>",
        ),
    ] {
        let problems = found(SOLUTION, BREAK, &TEXT.replace(from, to));
        assert!(problems.iter().any(|problem| problem == expected), "{expected}\n{problems:#?}");
    }
}
