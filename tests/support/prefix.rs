//! The crate cut after chapter k, and programs built against it, by calling `rustc` directly.

use super::book::{Module, Project, contents};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// What every call of `rustc` needs to know.
pub struct Workshop {
    edition: String,
    lints: Vec<String>,
    /// The folder that holds `src`.
    root: PathBuf,
    /// Where results go.
    out: PathBuf,
}

impl Workshop {
    /// Builds the crate at `root` into a folder `name` of cargo's folder for tests.
    pub fn new(project: &Project, root: &Path, name: &str) -> Workshop {
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&out).expect("a folder below the target folder");
        let edition = project.cargo("edition").unwrap_or("2024").to_string();
        let lints = lints(project.text("Cargo.toml").unwrap_or_default());
        Workshop { edition, lints, root: root.to_path_buf(), out }
    }

    /// Compiles the crate cut after chapter `k`, all warnings denied: as metadata only (fast), or
    /// as a library to link with.
    pub fn library(&self, k: usize, link: bool, cap_lints: bool) -> Result<PathBuf, String> {
        let lib = std::fs::read_to_string(self.root.join("src/lib.rs"));
        let lib = lib.map_err(|error| format!("src/lib.rs: {error}"))?;
        let keep = |module: &Module| module.number.is_some_and(|number| number <= k);
        let source = self.out.join(format!("prefix{k:02}.rs"));
        write(&source, &cut(&lib, &self.root.join("src"), keep))?;
        let result =
            self.out.join(format!("libglasshouse_{k:02}.{}", if link { "rlib" } else { "rmeta" }));
        let mut rustc = self.rustc(&source, &result);
        rustc.args(["--crate-name=glasshouse", "--crate-type=rlib"]);
        rustc.arg(if link { "--emit=link" } else { "--emit=metadata" });
        rustc.arg("-Dwarnings").args(&self.lints);
        if cap_lints {
            rustc.arg("--cap-lints=allow");
        }
        run(&mut rustc)?;
        Ok(result)
    }

    /// Checks a program's text against a library: it compiles, without a warning.
    pub fn check(&self, name: &str, program: &str, library: &Path) -> Result<(), String> {
        let source = self.out.join(format!("{name}.rs"));
        write(&source, program)?;
        let mut rustc = self.rustc(&source, &self.out.join(format!("{name}.rmeta")));
        rustc.args(["--crate-type=bin", "--emit=metadata", "-Dwarnings"]);
        run(rustc.arg("--extern").arg(glasshouse(library)))
    }

    /// Builds a program's text.
    pub fn program(&self, name: &str, program: &str, library: &Path) -> Result<PathBuf, String> {
        let source = self.out.join(format!("{name}.rs"));
        write(&source, program)?;
        let result = self.out.join(name);
        run(self.rustc(&source, &result).arg("--extern").arg(glasshouse(library)))?;
        Ok(result)
    }

    /// Builds a test file of the project (`ch07_request`) against a library.
    pub fn test(&self, test: &str, library: &Path) -> Result<PathBuf, String> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{test}.rs"));
        let result = self.out.join(test);
        let mut rustc = self.rustc(&source, &result);
        rustc.arg("--test").arg("--extern").arg(glasshouse(library));
        cargo_variables(&mut rustc);
        run(&mut rustc)?;
        Ok(result)
    }

    fn rustc(&self, source: &Path, result: &Path) -> Command {
        let mut rustc = Command::new(Path::new(env!("CARGO")).with_file_name("rustc"));
        rustc.arg(source).arg("-o").arg(result);
        rustc.arg(format!("--edition={}", self.edition)).arg("-Cdebug-assertions=on");
        rustc
    }
}

/// What cargo would tell a test: in its environment, when it is built and when it runs.
pub fn cargo_variables(command: &mut Command) {
    command.env("CARGO", env!("CARGO"));
    command.env("CARGO_MANIFEST_DIR", env!("CARGO_MANIFEST_DIR"));
    command.env("CARGO_TARGET_TMPDIR", env!("CARGO_TARGET_TMPDIR"));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    for entry in std::fs::read_dir(programs()).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_file() && path.extension().is_none() {
            let name = entry.file_name().to_string_lossy().into_owned();
            command.env(format!("CARGO_BIN_EXE_{name}"), path);
        }
    }
}

/// The folder where cargo put the project's programs.
pub fn programs() -> PathBuf {
    let wsgi = option_env!("CARGO_BIN_EXE_wsgi").unwrap_or("target/debug/wsgi");
    Path::new(wsgi).parent().expect("a program is in a folder").to_path_buf()
}

/// lib.rs with only the modules that `keep` likes, each with the path of its file.
pub fn cut(lib: &str, src: &Path, keep: impl Fn(&Module) -> bool) -> String {
    let modules = contents(lib);
    let mut modules = modules.iter();
    let (mut out, mut waiting, mut part) = (String::new(), String::new(), None);
    for line in lib.lines() {
        let text = line.trim();
        if text.starts_with("///")
            || text.starts_with("#[")
            || (text.starts_with("//") && !text.starts_with("//!"))
        {
            waiting.push_str(&format!("{line}\n")); // belongs to the next item
        } else if text.starts_with("pub mod ") && text.ends_with('{') {
            part = Some(format!("{}{line}\n", std::mem::take(&mut waiting)));
        } else if text.starts_with("pub mod ") {
            let above = std::mem::take(&mut waiting);
            let Some(module) = modules.next().filter(|module| keep(module)) else {
                continue;
            };
            // A part is opened by its first kept chapter; parts without one are left out.
            if let Some(header) = &mut part {
                out.push_str(&std::mem::take(header));
            }
            let path = src.join(module.path.trim_start_matches("src/"));
            out.push_str(&format!("{above}    #[path = {path:?}]\n{line}\n"));
        } else if line == "}" && part.is_some() {
            if part.take().is_some_and(|header| header.is_empty()) {
                out.push_str("}\n");
            }
        } else {
            out.push_str(&format!("{}{line}\n", std::mem::take(&mut waiting)));
        }
    }
    out.replace("include_str!(\"", &format!("include_str!(\"{}/", src.display()))
}

/// `[lints.rust]` of Cargo.toml as flags for `rustc`.
fn lints(cargo: &str) -> Vec<String> {
    let section = cargo.split_once("[lints.rust]\n").unwrap_or_default().1;
    let mut flags = Vec::new();
    for line in section.lines().take_while(|line| !line.starts_with('[')) {
        if let Some((name, level)) = line.split_once(" = ") {
            flags.push(format!("--{}={name}", level.trim().trim_matches('"')));
        }
    }
    flags
}

/// Does `work` for each item, two at a time, and returns the results in order.
pub fn in_pairs<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = Mutex::new(items.iter().enumerate());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let item = next.lock().expect("no panic while held").next();
                    let Some((at, item)) = item else { return };
                    let result = work(item);
                    done.lock().expect("no panic while held").push((at, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no panic while held");
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

fn glasshouse(library: &Path) -> String {
    format!("glasshouse={}", library.display())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("rustc: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(said.trim_end().to_string()) }
}
