//! Chapter 46: the pages. One [`App`] that shows what this project can do. Two servers run it, one
//! through each gateway, and nobody can tell their answers apart.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use crate::http::headers::{CONTENT_TYPE, FieldValue, Token};
use crate::http::request::Method;
use crate::http::response::Status;
use crate::site::book::Shelf;
use crate::site::compare::compare;
use crate::site::contents;
use crate::site::figures::{Figures, Snapshot};
use crate::site::uploads::{self, Uploads, wants_json};
use crate::site::workshop::{echo, stream, with_workshop};
use crate::web::app::{
    App, AppSettings, HtmlResponse, HttpRequest, HttpResponse, IntoResponse, JsonResponse, Next,
    NotFoundResponse, RedirectResponse, TemplateResponse, WebError, set_cookie,
};
use crate::web::files::StaticFiles;
use crate::web::form::SetCookie;
use crate::web::serve::{request_timing, security_headers};
use crate::web::template::{Context, Templates, escape};

/// What the site needs to know of the world.
pub struct SiteSettings {
    /// A folder with templates to use instead of those in the program, file by file.
    pub templates: Option<PathBuf>,
    /// The folder behind `/static/`.
    pub static_files: PathBuf,
    /// Where uploaded files go.
    pub uploads: Arc<Uploads>,
    /// Whether there are WebSockets at `/ws/` too. Without them some pages say so.
    pub websockets: bool,
    /// Whether error pages explain themselves, and templates are read again at each use.
    pub debug: bool,
    /// The address of the server.
    pub address: SocketAddr,
    /// What the server counts.
    pub figures: Arc<Figures>,
    /// Which of the workers this is, from 1, and how many there are.
    pub worker: (usize, usize),
}

/// The templates, held by the program itself: it runs from any folder.
const TEMPLATES: &[(&str, &str)] = &[
    ("base.html", include_str!("../../templates/base.html")),
    ("book.html", include_str!("../../templates/book.html")),
    ("chapter.html", include_str!("../../templates/chapter.html")),
    ("chat.html", include_str!("../../templates/chat.html")),
    ("compare.html", include_str!("../../templates/compare.html")),
    ("forms.html", include_str!("../../templates/forms.html")),
    ("home.html", include_str!("../../templates/home.html")),
    ("no_websockets.html", include_str!("../../templates/no_websockets.html")),
    ("routes.html", include_str!("../../templates/routes.html")),
    ("shown.html", include_str!("../../templates/shown.html")),
    ("steps.html", include_str!("../../templates/steps.html")),
    ("template.html", include_str!("../../templates/template.html")),
    ("trends.html", include_str!("../../templates/trends.html")),
    ("upload.html", include_str!("../../templates/upload.html")),
    ("websocket.html", include_str!("../../templates/websocket.html")),
    ("wire.html", include_str!("../../templates/wire.html")),
];

/// Like the static files it stays in the project, where it can be changed while the server runs.
const BOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/TUTORIAL.md");

/// The whole site.
///
/// # Errors
/// If there is no folder of static files.
pub fn site(settings: SiteSettings) -> io::Result<App> {
    let SiteSettings {
        templates,
        static_files,
        uploads,
        websockets,
        debug,
        address,
        figures,
        worker,
    } = settings;
    let engine = match &templates {
        Some(folder) => Templates::new(folder, debug),
        None => Templates::in_memory(debug),
    };
    // The commands in our pages can be copied: they lead to this server, whatever its port is.
    let ip = Some(address.ip()).filter(|ip| !ip.is_unspecified());
    let own = SocketAddr::new(ip.unwrap_or(Ipv4Addr::LOCALHOST.into()), address.port()).to_string();
    let engine = TEMPLATES.iter().fold(engine, |engine, (name, text)| {
        engine.with(name, &text.replace("127.0.0.1:8000", &own))
    });
    let settings = AppSettings {
        templates: Some(Box::new(engine)),
        spool: Some(uploads.spool.clone()),
        debug,
        ..AppSettings::default()
    };
    let (kept, live) = (Arc::clone(&uploads), Context::new().with("websockets", websockets));
    let (chat, listed) = (live.clone(), live.clone());
    // Not before somebody asks: it would be a tenth of the time that the program takes to start.
    let parts = LazyLock::new(|| contents::to_context(&contents::parts()));
    let app = App::new()
        .with_settings(settings)
        .get("", move |_| page("home.html", "/", Context::new().with("parts", parts.clone())))
        .get("trends/", move |request: HttpRequest| trends(&request, &figures, worker, websockets))
        .get("upload/", move |request: HttpRequest| uploads::form(request, &kept, websockets))
        .post("upload/", move |request: HttpRequest| {
            uploads::receive(request, &uploads, websockets)
        })
        .get("websocket/", move |_| page("websocket.html", "/websocket/", live.clone()))
        .get("chat/", move |_| page("chat.html", "/chat/", chat.clone()))
        .get("forms/", forms)
        .post("forms/", forms)
        .post("forms/cookie/", change_cookie)
        .get("html/", html)
        .get("json/", json)
        .get("template/", move |request: HttpRequest| template(&request, templates.as_ref()))
        .get("routes/", move |request: HttpRequest| routes(&request, listed.clone()));
    let app = with_comparison(with_workshop(app), address, worker.1 > 1);
    let app = with_book(app, Shelf::new(BOOK, debug));
    let app = with_files(app, &static_files)?;
    let app = app.middleware(content_policy).middleware(security_headers);
    Ok(match debug {
        true => app.middleware(known_methods).middleware(request_timing),
        false => app.middleware(known_methods).middleware(quiet_timing),
    })
}

/// `/compare/` and what is below it: the requests are answered by a small application of their own,
/// and the page shows how.
fn with_comparison(app: App, address: SocketAddr, is_one_of_many: bool) -> App {
    let inner = App::new()
        .get("compare/", json)
        .get("compare/html/", html)
        .get("compare/stream/", |_| stream(Duration::ZERO))
        .post("compare/echo/", echo);
    let inner = Arc::new(inner);
    let view = move |mut request: HttpRequest| {
        let context = compare(&mut request, &inner, address, is_one_of_many)?;
        let context = context.with("here", "/compare/");
        Ok::<_, WebError>(TemplateResponse("compare.html", context))
    };
    app.get("compare/", view.clone())
        .post("compare/", view.clone())
        .get("compare/<path:rest>", view.clone())
        .post("compare/<path:rest>", view)
}

/// The book at `/book/`, and a page for each chapter below it.
fn with_book(app: App, shelf: Shelf) -> App {
    let shelf = Arc::new(shelf);
    let cover = Arc::clone(&shelf);
    app.get("book/", move |request: HttpRequest| book(&request, &cover, None))
        .get("book/<int:number>/", move |request: HttpRequest| {
            book(&request, &shelf, Some(request.parameters.int("number")))
        })
}

/// The folder behind `/static/`.
fn with_files(app: App, folder: &Path) -> io::Result<App> {
    let files = StaticFiles::new(folder)?;
    let icons = files.clone();
    // Browsers ask for this where an answer names no icon, as that of `/json/`.
    let icon = move |request: HttpRequest| icons.respond(request.head, "icon.svg");
    Ok(app.get("favicon.ico", icon).files("static/", files))
}

// Middleware.

/// As `request_timing`, without a line for each request.
fn quiet_timing(request: HttpRequest, next: Next) -> HttpResponse {
    let began = Instant::now();
    let response = next.run(request);
    // W3C Server Timing, section 2: in milliseconds. Whole numbers take half the time to write.
    let took = began.elapsed().as_micros() as u64;
    let timing = format!("app;dur={}.{:03}", took / 1000, took % 1000);
    match FieldValue::new(timing.as_bytes()) {
        Ok(value) => response.with(Token::constant("Server-Timing"), value),
        Err(_) => response,
    }
}

/// Pages of this site load nothing from elsewhere, and run no script that stands in the page. If a
/// value ever came in unescaped, it could still do nothing. W3C Content Security Policy, section 6.
fn content_policy(request: HttpRequest, next: Next) -> HttpResponse {
    const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'self'; \
                          frame-ancestors 'none'";
    let response = next.run(request);
    let kind = response.headers.get(CONTENT_TYPE);
    match kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/html")) {
        true => {
            let name = Token::constant("Content-Security-Policy");
            response.with(name, FieldValue::constant(POLICY))
        }
        false => response,
    }
}

/// RFC 9110, section 9.1: a method that no page of ours knows is 501, not 405.
fn known_methods(request: HttpRequest, next: Next) -> HttpResponse {
    if let Method::Other(_) | Method::Connect | Method::Trace = request.head.method {
        let text = "This server does not know that method.\n";
        return (Status::NOT_IMPLEMENTED, text).into_response(request.app);
    }
    next.run(request)
}

// The pages.

fn page(name: &'static str, here: &str, context: Context) -> TemplateResponse<&'static str> {
    TemplateResponse(name, context.with("here", here))
}

/// A chapter of the book, or its first page.
fn book(request: &HttpRequest, shelf: &Shelf, number: Option<u64>) -> HttpResponse {
    let Ok(book) = shelf.take() else {
        let words =
            "The book is not here: it is TUTORIAL.md, and this program has left its project.\n";
        return NotFoundResponse(words).into_response(request.app);
    };
    let Some(number) = number else {
        return page("book.html", "/book/", book.contents()).into_response(request.app);
    };
    match book.chapter(number) {
        Some(context) => page("chapter.html", "/book/", context).into_response(request.app),
        None => NotFoundResponse("The book has no such chapter.\n").into_response(request.app),
    }
}

/// What the server has counted. It draws itself again each second, unless `?still=1` is asked for.
fn trends(
    request: &HttpRequest,
    figures: &Figures,
    (worker, workers): (usize, usize),
    websockets: bool,
) -> Result<HttpResponse, WebError> {
    let still = request.query()?.get("still").is_some();
    let of_worker = |context: Context| context.with("worker", worker).with("workers", workers);
    let snapshot = figures.snapshot();
    let app = request.app;
    let response = match wants_json(request) {
        true => JsonResponse(of_worker(snapshot.to_context())).into_response(app),
        false => {
            let context = of_worker(drawing(&snapshot)).with("still", still);
            let context = context.with("is_one_of_many", workers > 1);
            let context = context.with("websockets", websockets);
            page("trends.html", "/trends/", context).into_response(app)
        }
    };
    let fresh = FieldValue::constant("no-store");
    let response = response.with(Token::constant("Cache-Control"), fresh);
    Ok(response.with(Token::constant("Vary"), FieldValue::constant("Accept")))
}

/// The numbers, and how long the bars are that show them: in units of a drawing 600 wide and 120
/// high for the seconds, and 100 wide for the rows of a table.
fn drawing(snapshot: &Snapshot) -> Context {
    let highest = snapshot.seconds.iter().max().copied().unwrap_or(0);
    let mut bars = Vec::new();
    for (at, count) in snapshot.seconds.iter().enumerate() {
        let height = 120.0 * *count as f64 / highest.max(1) as f64;
        let bar = Context::new().with("x", at * 10).with("y", 120.0 - height);
        bars.push(bar.with("height", height).with("count", *count));
    }
    let rows = |names: Vec<String>, counts: &[u64]| {
        let most = counts.iter().max().copied().unwrap_or(0).max(1);
        let row = |(name, count): (String, &u64)| {
            let width = 100.0 * *count as f64 / most as f64;
            Context::new().with("name", name).with("count", *count).with("width", width)
        };
        names.into_iter().zip(counts).map(row).collect::<Vec<_>>()
    };
    let statuses = rows(snapshot.status_names(), &snapshot.statuses);
    let times = rows(snapshot.time_names(), &snapshot.times);
    let context = snapshot.to_context().with("bars", bars).with("highest", highest);
    context.with("statuses", statuses).with("times", times)
}

const COOKIE: &str = "drink";
const DRINKS: &[&str] = &["tea", "coffee", "water"];

fn forms(mut request: HttpRequest) -> Result<TemplateResponse<&'static str>, WebError> {
    let pair = |name: &str, value: &str| Context::new().with("name", name).with("value", value);
    let cookies = request.cookies();
    let all: Vec<Context> = cookies.iter().map(|(name, value)| pair(name, value)).collect();
    let mut context = Context::new()
        .with("drinks", DRINKS.to_vec())
        .with("drink", cookies.get(COOKIE).unwrap_or_default())
        .with("cookies", all)
        .with("posted", request.head.method == Method::Post);
    if request.head.method == Method::Post {
        let form = request.form()?;
        let pairs = form.fields.iter().take(100).map(|(name, value)| pair(name, value));
        context.set("count", form.fields.len());
        context.set("pairs", pairs.collect::<Vec<_>>());
    }
    Ok(page("forms.html", "/forms/", context))
}

/// Sets the cookie, or removes it, and sends the browser back to the page.
fn change_cookie(mut request: HttpRequest) -> Result<HttpResponse, WebError> {
    let form = request.form()?;
    let wanted = form.fields.iter().find(|(name, _)| name == COOKIE);
    let value = wanted.map_or("", |(_, value)| value.as_str());
    // From a list of ours: a cookie cannot hold everything that can be typed.
    let drink = DRINKS.iter().find(|drink| **drink == value);
    let mut cookie = SetCookie::new(COOKIE, drink.unwrap_or(&""));
    cookie.path = "/forms/".to_string();
    cookie.max_age = Some(if drink.is_some() { DAY } else { Duration::ZERO });
    set_cookie(RedirectResponse("/forms/").into_response(request.app), &cookie)
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The name in the query, or one that everybody has.
fn visitor(request: &HttpRequest) -> Result<String, WebError> {
    let query = request.query()?;
    let name = query.get("name").filter(|name| !name.is_empty());
    Ok(name.unwrap_or("visitor").to_string())
}

fn html(request: HttpRequest) -> Result<HtmlResponse<String>, WebError> {
    let name = visitor(&request)?;
    Ok(HtmlResponse(format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Hello</title>\n<link rel=\"icon\" href=\"/static/icon.svg\">\n\
         <link rel=\"stylesheet\" href=\"/static/style.css\">\n\
         <main>\n<h1>Hello, {}!</h1>\n\
         <p>A view wrote this page, with <code>format!</code>.</p>\n\
         <p><a href=\"/\">Glasshouse</a></p>\n</main>\n</html>\n",
        escape(&name)
    )))
}

fn json(request: HttpRequest) -> Result<HttpResponse, WebError> {
    let name = visitor(&request)?;
    if request.query()?.get("error").is_some_and(|error| error == "1") {
        let context = Context::new().with("error", "You asked for this.").with("name", name);
        return Ok((500, JsonResponse(context)).into_response(request.app));
    }
    let context = Context::new().with("greeting", format!("Hello, {name}!")).with("name", name);
    Ok(JsonResponse(context).into_response(request.app))
}

/// The template language at work, and its source beside it.
fn template(
    request: &HttpRequest,
    folder: Option<&PathBuf>,
) -> Result<TemplateResponse<&'static str>, WebError> {
    const SHOWN: &str = "shown.html";
    let own = || TEMPLATES.iter().find(|(name, _)| *name == SHOWN).map(|(_, text)| (*text).into());
    let read = folder.and_then(|folder| fs::read_to_string(folder.join(SHOWN)).ok());
    let planet = |name: &str, moons: i32, days: f64| {
        Context::new().with("name", name).with("moons", moons).with("days", days)
    };
    let planets = vec![
        planet("Mercury", 0, 88.0),
        planet("Venus", 0, 224.7),
        planet("Earth", 1, 365.25),
        planet("Mars", 2, 687.0),
    ];
    let context = Context::new()
        .with("name", visitor(request)?)
        .with("planets", planets)
        .with("source", read.or_else(own));
    Ok(page("template.html", "/template/", context))
}

fn routes(request: &HttpRequest, context: Context) -> TemplateResponse<&'static str> {
    let mut rows = Vec::new();
    for route in request.app.router().routes() {
        let methods: Vec<&str> = route.methods.iter().map(Method::as_str).collect();
        // What has parameters cannot be a link, and /static/ has no first page.
        let is_page = route.methods.contains(&Method::Get)
            && !route.pattern.contains('<')
            && route.pattern != "static/";
        rows.push(
            Context::new()
                .with("pattern", route.pattern.as_str())
                .with("methods", if methods.is_empty() { vec!["all"] } else { methods })
                .with("is_page", is_page),
        );
    }
    page("routes.html", "/routes/", context.with("routes", rows))
}
