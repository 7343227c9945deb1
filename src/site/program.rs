//! The program that serves the site, by one gateway or the other.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::gateway::asgi::Asgi;
use crate::gateway::wsgi::Wsgi;
use crate::http::server::{Server, Settings};
use crate::site::figures::Figures;
use crate::site::temporary::{SPOOL, TemporaryFolder};
use crate::site::views::{SiteSettings, site};
use crate::web::app::App;
use crate::web::upload::Spool;

/// Which contract stands between the server and the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// PEP 3333.
    Wsgi,
    /// ASGI 3.0, the part about requests.
    AsgiHttp,
}

impl Protocol {
    /// Its name, which is also that of the program.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Wsgi => "wsgi",
            Protocol::AsgiHttp => "asgi_http",
        }
    }
}

/// Reads the command line, and serves the site until a signal comes.
pub fn run(protocol: Protocol) -> ExitCode {
    let options = match read_flags(env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => return say(&mut io::stdout(), &HELP.replace("PROGRAM", protocol.name()), 0),
        Err(problem) => {
            return say(&mut io::stderr(), &format!("{problem}\nTry --help.\n"), 2);
        }
    };
    match serve(protocol, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => say(&mut io::stderr(), &format!("{problem}\n"), 1),
    }
}

/// Not `println!`, which panics when the other end of a pipe has gone.
fn say(out: &mut impl Write, text: &str, code: u8) -> ExitCode {
    let _ = out.write_all(text.as_bytes());
    ExitCode::from(code)
}

/// All that the command line can say.
#[derive(Debug, Default)]
struct Options {
    settings: Settings,
    templates: Option<PathBuf>,
    static_files: Option<PathBuf>,
    uploads: Option<PathBuf>,
    spool: Option<PathBuf>,
    debug: bool,
}

fn serve(protocol: Protocol, options: Options) -> Result<(), String> {
    // Templates that are missing come from the program, so a wrong name would not be noticed.
    if let Some(folder) = options.templates.as_ref().filter(|folder| !folder.is_dir()) {
        return Err(format!("{}: there is no such folder of templates.", folder.display()));
    }
    let threads = options.settings.threads.cap;
    let server = Server::bind(options.settings)
        .map_err(|problem| format!("{problem}\nFor another port: --port 8001"))?;
    let address = server.address();
    let figures = Arc::new(Figures::default());
    // It lives as long as this function, and takes what was uploaded with it.
    let (uploads, _temporary) = match options.uploads {
        Some(folder) => (folder, None),
        None => {
            let folder = TemporaryFolder::new().map_err(of("a temporary folder"))?;
            (folder.path.clone(), Some(folder))
        }
    };
    // Inside of it, so that to keep a file is to rename it.
    let spool = options.spool.unwrap_or_else(|| uploads.join(SPOOL));
    fs::create_dir_all(&uploads).map_err(of(&uploads.display().to_string()))?;
    let spool = Spool::open(&spool).map_err(of(&spool.display().to_string()))?;
    let static_files = options.static_files.unwrap_or_else(|| STATIC_FILES.into());
    let app = site(SiteSettings {
        templates: options.templates,
        static_files: static_files.clone(),
        uploads,
        spool,
        debug: options.debug,
        address,
        figures: Arc::clone(&figures),
    });
    let app = app.map_err(|error| {
        format!("{}: {error}\nName the folder with --static DIR.", static_files.display())
    })?;
    let (name, pid) = (protocol.name(), std::process::id());
    let hello = format!(
        "Glasshouse: http://{address}/ ({name}, up to {threads} threads, pid {pid}). Ctrl-C stops.\n"
    );
    say(&mut io::stderr(), &hello, 0);
    serve_by(protocol, server.observed_by(figures), app).map_err(|error| error.to_string())
}

/// The style sheet and the scripts stay in the project, where they can be changed while the server
/// runs. A program that has left its project is told where they are.
const STATIC_FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/templates/static");

fn of(place: &str) -> impl FnOnce(io::Error) -> String {
    let place = place.to_string();
    move |error| format!("{place}: {error}")
}

fn serve_by(protocol: Protocol, server: Server, app: App) -> io::Result<()> {
    let (app, address) = (Arc::new(app), server.address());
    match protocol {
        Protocol::Wsgi => server.serve_until_signal(Arc::new(Wsgi::new(app, address))),
        Protocol::AsgiHttp => {
            let gateway = Arc::new(Asgi::start(app, address).map_err(io::Error::other)?);
            server.serve_until_signal(Arc::clone(&gateway) as _)?;
            match gateway.shut_down(PATIENCE) {
                Some(problem) => Err(io::Error::other(problem)),
                None => Ok(()),
            }
        }
    }
}

/// How long the application may take to put all away.
const PATIENCE: Duration = Duration::from_secs(10);

const HELP: &str = "\
Serves the Glasshouse site.

Usage: PROGRAM [options]

  --host ADDRESS      address to listen on            127.0.0.1
  --port NUMBER       port; 0 means any free one      8000
  --threads NUMBER    most connections at a time      512
  --keep-alive SECS   idle time between requests      5
  --max-body BYTES    longest request body            16777216
  --uploads DIR       where uploads are kept          a temporary folder
  --spool DIR         where uploads arrive            .spool in that folder
  --static DIR        files behind /static/           templates/static
  --templates DIR     templates to use instead of those in the program
  --debug             explain errors, read templates again at each use
  --wire              show every byte, with chapters
  --help              show this

Example: cargo run --bin PROGRAM -- --port 0 --wire
";

/// `None` asks for help.
fn read_flags(arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options::default();
    let settings = &mut options.settings;
    let mut arguments = arguments;
    while let Some(flag) = arguments.next() {
        let (name, inline) = match flag.split_once('=') {
            Some((name, value)) => (name.to_string(), Some(value.to_string())),
            None => (flag, None),
        };
        let mut value = || {
            let value = inline.clone().or_else(|| arguments.next());
            value.ok_or(format!("{name} needs a value."))
        };
        match name.as_str() {
            "--host" => settings.host = value()?,
            "--port" => settings.port = number(&name, &value()?, 0, 65_535)? as u16,
            "--threads" => {
                settings.threads.cap = number(&name, &value()?, 1, 12_000)? as usize;
            }
            "--keep-alive" => {
                let seconds = number(&name, &value()?, 0, 86_400)?;
                settings.deadlines.keep_alive = Duration::from_secs(seconds);
            }
            "--max-body" => settings.limits.body.body = number(&name, &value()?, 0, u64::MAX)?,
            "--uploads" => options.uploads = Some(value()?.into()),
            "--spool" => options.spool = Some(value()?.into()),
            "--static" => options.static_files = Some(value()?.into()),
            "--templates" => options.templates = Some(value()?.into()),
            "--debug" => options.debug = true,
            "--wire" => settings.wire_view = true,
            "--help" | "-h" => return Ok(None),
            _ => return Err(format!("{name} is no option of this program.")),
        }
    }
    Ok(Some(options))
}

fn number(name: &str, value: &str, least: u64, most: u64) -> Result<u64, String> {
    match value.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("{name} takes a number from {least} to {most}, not '{value}'.")),
    }
}
