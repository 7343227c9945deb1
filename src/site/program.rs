//! Chapter 48: the program. It serves the site, behind one of three contracts, in one process or in
//! many, and whatever happens, it says so and cleans up.
//!
//! ```text
//!   opened, from top to bottom     closed
//!   the folder of uploads          5. last, when its value ends with `serve`
//!   the port                       1. nobody comes in any more, and who is inside may finish
//!   the log                        3. its last lines are written
//!   the spool, the site            4. with the handler that holds them
//!   the gateway, its lifespan      2. the application puts all away, and has ten seconds for it
//!   signals, the greeting
//! ```

use std::env;
use std::fs;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::gateway::asgi::{self, Asgi};
use crate::gateway::wsgi::{self, Wsgi};
use crate::http::connection::Observer;
use crate::http::exchange::Handler;
use crate::http::server::Server;
use crate::running::access_log::{AccessLog, Format, Several, wants_colour};
use crate::running::command_line::{self, Config, advice, greeting, say};
#[cfg(unix)]
use crate::running::prefork::Worker;
use crate::running::proxy::BehindProxy;
use crate::site::consumers::with_consumers;
use crate::site::figures::Figures;
use crate::site::inspector::Inspector;
use crate::site::temporary::{SPOOL, TemporaryFolder};
use crate::site::terminal::talk;
use crate::site::uploads::Uploads;
use crate::site::views::{SiteSettings, site};
use crate::socket::pool::PoolSize;
use crate::socket::system::Shutdown;
use crate::web::app::App;
use crate::web::files::StaticFiles;
use crate::web::upload::Spool;
use crate::websocket::consumer::ProtocolRouter;
use crate::websocket::conversation;
use crate::websocket::handshake::OriginPolicy;
use crate::websocket::session::{SessionObserver, SessionSettings, WebSockets};

pub use crate::running::command_line::Protocol;

/// Reads the command line, and does what it says: mostly it serves the site until a signal comes.
/// `own` is the contract of the program; without one, `SERVER_PROTOCOL` chooses.
pub fn run(own: Option<Protocol>) -> ExitCode {
    let serve = |config| match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => say(&mut io::stderr(), &format!("{}\n", problem.trim_end()), 1),
    };
    command_line::run(own, serve, talk)
}

/// Serves until a signal comes, and puts all away behind it.
///
/// # Errors
/// Why nothing is served, or what went wrong at the end, in words for the person who started it.
pub fn serve(config: Config) -> Result<(), String> {
    if let Some(application) = config.python().map(str::to_string) {
        return serve_python(&application, config);
    }
    // Templates that are missing come from the program, so a wrong name would not be noticed.
    if let Some(folder) = &config.templates {
        fs::metadata(folder.join(".")).map_err(of(folder))?;
    }
    #[cfg(unix)]
    if let Some(worker) = Worker::from_environment().map_err(|error| error.to_string())? {
        return serve_as_worker(config, worker);
    }
    let content = Content::of(&config)?;
    if config.workers > 1 {
        return serve_with_workers(config, &content);
    }
    let server = Server::bind(config.settings.clone());
    let server = server.map_err(|problem| advice(&problem, &config))?;
    let house = House::with(&content, &config, server.address(), 1)?;
    // Whoever has read the greeting may send a signal at once.
    let shutdown = Shutdown::on_signals().map_err(|error| error.to_string())?;
    greet(&config, server.address());
    let server = server.observed_by(Arc::clone(&house.observer));
    server.serve_until(shutdown, Arc::clone(&house.handler));
    house.close(Ok(()))
}

/// Says where we are, and why the first visitor may find nothing there.
fn greet(config: &Config, address: SocketAddr) {
    let mut words = greeting(config, address);
    let is_bare = |folder: &&str| !Path::new(folder).join("index.html").is_file();
    if let Some(folder) = config.folder().filter(is_bare) {
        words += &format!("{folder} has no index.html: / is not found, and /NAME is a file.\n");
    }
    say(&mut io::stderr(), &words, 0);
}

/// Serves an application in Python. There is one process of ours then, and `--workers` of Python.
#[cfg(unix)]
fn serve_python(application: &str, mut config: Config) -> Result<(), String> {
    use crate::http::server::{most_threads, warn_about_descriptors};
    use crate::python::asgi_host::PythonAsgi;
    use crate::python::worker::{Pool, SIGNALS, StartError, serve_until};
    use crate::python::wsgi_host::PythonWsgi;

    // The client and its lane. A WebSocket needs a second end of its lane, to write while it reads.
    let each = if config.protocol == Protocol::AsgiWs { 3 } else { 2 };
    let cap = &mut config.settings.threads.cap;
    // The default gives way to what there is room for. Another number was somebody's wish.
    if *cap == PoolSize::default().cap {
        *cap = most_threads(each).min(*cap);
    }
    let is_wsgi = config.protocol == Protocol::Wsgi;
    let mut spec = match is_wsgi {
        true => PythonWsgi::spec(application),
        false => PythonAsgi::spec(application),
    };
    spec.workers = config.workers;
    spec.timeout = config.timeout;
    spec.graceful_timeout = config.settings.graceful_timeout;
    // The port first: it is not worth while to start Python for a door that does not open.
    let server = Server::bind(config.settings.clone());
    let server = server.map_err(|problem| advice(&problem, &config))?;
    let hint = where_modules_are(&spec.python);
    let is_virtual = spec.python != Path::new("python3");
    let pool = Arc::new(Pool::start(spec).map_err(|error| match error {
        StartError::Application(text) if text.contains("\nModuleNotFoundError: ") => text + &hint,
        error @ StartError::Interpreter(..) if is_virtual => {
            format!("{error}\nVIRTUAL_ENV is set in the environment, and was followed.")
        }
        error => error.to_string(),
    })?);
    let hosted = match is_wsgi {
        true => Application::Wsgi(Arc::new(PythonWsgi::new(Arc::clone(&pool)))),
        false => Application::Asgi(Arc::new(PythonAsgi::new(Arc::clone(&pool)))),
    };
    let observers = Observers::new(config.access_log)?;
    let house = House::furnish(&config, server.address(), hosted, observers)?;
    // Whoever has read the greeting may send a signal at once.
    let signals = Shutdown::on(&SIGNALS).map_err(|error| error.to_string())?;
    greet(&config, server.address());
    warn_about_descriptors(config.settings.threads.cap, each);
    let server = server.observed_by(Arc::clone(&house.observer));
    serve_until(signals, server, Arc::clone(&house.handler), &pool);
    house.close(Ok(()))
}

/// What helps when a module is missing: it is misspelt, or this is another folder, or the virtual
/// environment is not active.
#[cfg(unix)]
fn where_modules_are(python: &Path) -> String {
    let folder = env::current_dir().unwrap_or_default();
    format!(
        "Modules were looked for in {}, and among those that {} has installed.\n\
         They are named as after `import`: shop.wsgi, and not shop/wsgi.py.",
        folder.display(),
        python.display(),
    )
}

#[cfg(not(unix))]
fn serve_python(_: &str, _: Config) -> Result<(), String> {
    Err("Applications in Python need Unix, for its sockets.".to_string())
}

/// Opens the door, and lets others serve there.
#[cfg(unix)]
fn serve_with_workers(config: Config, content: &Content) -> Result<(), String> {
    use crate::http::server::warn_about_descriptors;
    use crate::running::prefork::{Staff, Supervisor};
    use crate::socket::listener::Listener;

    let settings = &config.settings;
    let listener = Listener::bind(&settings.host, settings.port);
    let listener = listener.map_err(|problem| advice(&problem, &config))?;
    let address = listener.address();
    // Nobody will ask this one. But what is wrong with the site is said here, once; and its spool
    // says that the folder of uploads has an owner, also while all workers are dead.
    let _site = Site::new(content, &config, address, 0)?;
    let staff = Staff {
        workers: config.workers,
        graceful_timeout: settings.graceful_timeout,
        ..Staff::default()
    };
    let mut supervisor = Supervisor::new(listener, staff).map_err(|error| error.to_string())?;
    if let Content::Site { uploads, temporary: Some(_) } = content {
        supervisor = supervisor.with_argument("--uploads").with_argument(uploads);
    }
    greet(&config, address);
    warn_about_descriptors(settings.threads.cap, 1);
    supervisor.run();
    Ok(())
}

#[cfg(not(unix))]
fn serve_with_workers(_: Config, _: &Content) -> Result<(), String> {
    Err("--workers needs Unix: elsewhere a socket cannot be handed down.".to_string())
}

#[cfg(unix)]
fn serve_as_worker(config: Config, worker: Worker) -> Result<(), String> {
    let content = Content::of(&config)?;
    let house = House::with(&content, &config, worker.address(), worker.number())?;
    let (handler, observer) = (Arc::clone(&house.handler), Arc::clone(&house.observer));
    let served = worker.serve(config.settings, handler, observer);
    house.close(served)
}

/// What is served, if it is no application in Python.
enum Content {
    /// `static:DIR`. It takes no uploads, so it also works where nobody may write.
    Files(PathBuf),
    /// The site, and where its uploads are kept. A temporary folder lives as long as this value,
    /// and takes what was uploaded with it.
    Site { uploads: PathBuf, temporary: Option<TemporaryFolder> },
}

impl Content {
    fn of(config: &Config) -> Result<Content, String> {
        if let Some(folder) = config.folder() {
            return Ok(Content::Files(folder.into()));
        }
        if let Some(uploads) = config.uploads.clone() {
            fs::create_dir_all(&uploads).map_err(|error| {
                format!("--uploads takes a folder; {}: {error}", uploads.display())
            })?;
            return Ok(Content::Site { uploads, temporary: None });
        }
        let folder = TemporaryFolder::new().map_err(|error| {
            format!("a temporary folder in {}: {error}", env::temp_dir().display())
        })?;
        Ok(Content::Site { uploads: folder.path.clone(), temporary: Some(folder) })
    }
}

fn of(place: &Path) -> impl FnOnce(io::Error) -> String {
    let place = place.display().to_string();
    move |error| format!("{place}: {error}")
}

/// The style sheet and the scripts stay in the project, where they can be changed while the server
/// runs. A program that has left its project is told where they are.
const STATIC_FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/templates/static");

/// An application; and if it is the site, what its pages share with its consumers.
struct Site {
    app: App,
    shared: Option<(Arc<Uploads>, Arc<Figures>)>,
}

impl Site {
    /// As worker `number` shows it.
    fn new(
        content: &Content,
        config: &Config,
        address: SocketAddr,
        number: usize,
    ) -> Result<Site, String> {
        let uploads = match content {
            // The smallest application there is.
            Content::Files(folder) => {
                let files = StaticFiles::new(folder).map_err(of(folder))?;
                return Ok(Site { app: App::new().files("", files), shared: None });
            }
            Content::Site { uploads, .. } => uploads,
        };
        // Inside of the folder of uploads, so that to keep a file is to rename it.
        let spool = uploads.join(SPOOL);
        let spool = Spool::open(&spool).map_err(of(&spool))?;
        let longest = config.settings.limits.body.body;
        let uploads = Arc::new(Uploads::new(uploads.clone(), spool, longest));
        let figures = Arc::new(Figures::default());
        let static_files = config.static_files.clone().unwrap_or_else(|| STATIC_FILES.into());
        let app = site(SiteSettings {
            templates: config.templates.clone(),
            static_files: static_files.clone(),
            uploads: Arc::clone(&uploads),
            websockets: config.protocol == Protocol::AsgiWs,
            debug: config.debug,
            address,
            figures: Arc::clone(&figures),
            worker: (number, config.workers),
        });
        let app = app.map_err(|error| {
            format!("{}: {error}\nName the folder with --static DIR.", static_files.display())
        })?;
        Ok(Site { app, shared: Some((uploads, figures)) })
    }

    /// Behind this contract, and seen by whom its pages need.
    fn behind(self, protocol: Protocol, observers: &mut Observers) -> Application {
        let Site { app, shared } = self;
        if let Some((_, figures)) = &shared {
            observers.of_requests.push(Arc::clone(figures) as _);
        }
        match (protocol, shared) {
            (Protocol::Wsgi, _) => Application::Wsgi(Arc::new(app)),
            (Protocol::AsgiHttp, _) => Application::Asgi(Arc::new(app)),
            (Protocol::AsgiWs, None) => Application::Asgi(Arc::new(ProtocolRouter::new(app))),
            (Protocol::AsgiWs, Some((uploads, figures))) => {
                // It passes on what it sees, so it stands in front of whoever stood here before.
                let inspector = Arc::new(Inspector::new(Arc::clone(&observers.of_sessions)));
                observers.of_sessions = Arc::clone(&inspector) as _;
                Application::Asgi(Arc::new(with_consumers(app, &uploads, &figures, &inspector)))
            }
        }
    }
}

/// What is served, as its contract wants it.
enum Application {
    Wsgi(Arc<dyn wsgi::Application>),
    Asgi(Arc<dyn asgi::Application>),
}

/// All that one process needs to serve.
struct House {
    handler: Arc<dyn Handler>,
    observer: Arc<dyn Observer>,
    log: Arc<AccessLog>,
    lifespan: Option<Arc<Asgi>>,
}

/// Who looks on while it serves.
struct Observers {
    log: Arc<AccessLog>,
    of_requests: Vec<Arc<dyn Observer>>,
    of_sessions: Arc<dyn SessionObserver>,
}

impl Observers {
    /// The log, in this format.
    fn new(format: Format) -> Result<Observers, String> {
        let log = log(format)?;
        let mut of_requests: Vec<Arc<dyn Observer>> = vec![Arc::clone(&log) as _];
        // These two have no place in their lines for what went wrong.
        if matches!(format, Format::Common | Format::Combined) {
            of_requests.push(self::log(Format::None)?);
        }
        Ok(Observers { of_requests, of_sessions: Arc::clone(&log) as _, log })
    }
}

fn log(format: Format) -> Result<Arc<AccessLog>, String> {
    let no_color = env::var_os("NO_COLOR");
    let colour = wants_colour(io::stderr().is_terminal(), no_color.as_deref());
    let log = AccessLog::new(format, colour, Box::new(io::stderr()));
    log.map(Arc::new).map_err(|error| error.to_string())
}

impl House {
    /// With this in it, as worker `number` shows it.
    fn with(
        content: &Content,
        config: &Config,
        address: SocketAddr,
        number: usize,
    ) -> Result<House, String> {
        let mut observers = Observers::new(config.access_log)?;
        let site = Site::new(content, config, address, number)?;
        let application = site.behind(config.protocol, &mut observers);
        House::furnish(config, address, application, observers)
    }

    /// Puts the contract in front of the application, the proxies in front of the contract, and the
    /// observers beside them.
    fn furnish(
        config: &Config,
        address: SocketAddr,
        application: Application,
        observers: Observers,
    ) -> Result<House, String> {
        let Observers { log, of_requests, of_sessions } = observers;
        let (gateway, lifespan) = gateway(config, address, application, of_sessions)?;
        let trusted = config.forwarded_allow_ips.clone();
        let handler = Arc::new(BehindProxy::new(gateway, trusted));
        Ok(House { handler, observer: Arc::new(Several(of_requests)), log, lifespan })
    }

    /// The last connection has ended. Says good-bye to the application, as ASGI 3.0 has it in
    /// "Lifespan", and writes the last lines.
    fn close(self, served: io::Result<()>) -> Result<(), String> {
        let problem = self.lifespan.and_then(|asgi| asgi.shut_down(PATIENCE));
        self.log.flush();
        served.map_err(|error| error.to_string())?;
        problem.map_or(Ok(()), Err)
    }
}

/// How long the application may take to put all away.
const PATIENCE: Duration = Duration::from_secs(10);

type Gateway = (Arc<dyn Handler>, Option<Arc<Asgi>>);

/// The contract between the server and the application.
fn gateway(
    config: &Config,
    address: SocketAddr,
    application: Application,
    sessions: Arc<dyn SessionObserver>,
) -> Result<Gateway, String> {
    let root_path = &config.root_path;
    let asgi = match application {
        Application::Wsgi(application) => {
            let wsgi = Wsgi::new(application, address).below(root_path);
            // PEP 3333: `wsgi.multiprocess` says whether there are others like us.
            return Ok((Arc::new(wsgi.in_many_processes(config.workers > 1)), None));
        }
        Application::Asgi(application) => Asgi::start(application, address),
    };
    let asgi = Arc::new(asgi.map_err(|error| error.to_string())?.below(root_path));
    if config.protocol == Protocol::AsgiHttp {
        return Ok((Arc::clone(&asgi) as _, Some(asgi)));
    }
    let message = config.ws_max_message;
    let settings = SessionSettings {
        origins: OriginPolicy { allowed: config.ws_origins.clone() },
        messages: conversation::Settings { message, ..Default::default() },
    };
    let sockets = WebSockets::new(Arc::clone(&asgi), settings).observed_by(sessions);
    Ok((Arc::new(sockets), Some(asgi)))
}
