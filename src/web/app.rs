//! Chapter 26: the application. All tools of this part, behind one function.
//!
//! ```text
//!   HttpRequest ──► middleware ──► middleware ──► router ──► view
//!                                                             │  text, a page, a value,
//!                                                             │  a template, an error ...
//!   HttpResponse ◄── middleware ◄── middleware ◄── IntoResponse
//! ```
//!
//! A view is a function. It returns what it has to say, and [`IntoResponse`] makes a response of
//! it. What goes wrong on the way becomes a response too. Its page is made here: in debug mode it
//! explains, to strangers it says little.
//!
//! Nothing here knows a socket. A [`TestClient`] is enough to try a whole application.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::http::body::BodyError;
use crate::http::headers::{ALLOW, CONTENT_TYPE, FieldError, FieldValue, Headers, Token};
use crate::http::refusal::Refusal;
use crate::http::request::{HeadLimits, HeadParser, Method, Parse, RequestHead, TargetForm};
use crate::http::response::{Body, Response, Status};
use crate::http::url::{Query, QueryLimits, UrlError, decoded_path};
use crate::socket::wire::chapter_of;
use crate::web::files::StaticFiles;
use crate::web::form::{
    CookieError, Cookies, FormError, FormLimits, SET_COOKIE, SetCookie, read_form, to_json,
};
use crate::web::multipart::MultipartError;
use crate::web::router::{Found, Parameters, Route, Router, path};
use crate::web::template::{TemplateEngine, TemplateError, TemplateFault};
use crate::web::upload::{FormData, Spool, UploadError, UploadLimits};
use crate::web::value::{Context, Value};

/// What a view is given. It is also the reader of the request body.
pub struct HttpRequest<'a> {
    /// Method, target, version and fields.
    pub head: &'a RequestHead,
    /// The path, decoded.
    pub path: &'a str,
    /// Who asks.
    pub peer: SocketAddr,
    /// What the route's parameters stood for.
    pub parameters: Parameters,
    /// The application, for its templates, its routes and its limits.
    pub app: &'a App,
    body: &'a mut dyn Read,
    /// What was wrong with the body, once it has been found out.
    body_failure: &'a mut Option<BodyError>,
}

impl<'a> HttpRequest<'a> {
    /// The first field of that name, if it is text.
    pub fn field(&self, name: &str) -> Option<&'a str> {
        let name = Token::new(name.as_bytes()).ok()?;
        self.head.headers.get(name)?.as_str()
    }

    /// The pairs of the query.
    ///
    /// # Errors
    /// [`WebError::Query`] if there are more than [`FormLimits::fields`].
    pub fn query(&self) -> Result<Query, WebError> {
        let limits = QueryLimits { pairs: self.app.settings.form.fields };
        Ok(Query::parse(self.head.target.query().unwrap_or_default(), &limits)?)
    }

    /// The cookies.
    pub fn cookies(&self) -> Cookies {
        Cookies::of(&self.head.headers)
    }

    /// Reads the form in the body, urlencoded or multipart. Files arrive in the spool folder, and
    /// are removed together with the value, unless they are kept.
    ///
    /// # Errors
    /// A [`WebError`]: the form breaks a rule or a limit, or the body is no form.
    pub fn form(&mut self) -> Result<FormData, WebError> {
        let settings = &self.app.settings;
        let kind = self.field("Content-Type").unwrap_or_default();
        let media_type = kind.split(';').next().unwrap_or_default().trim_matches([' ', '\t']);
        if media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            let query = read_form(self, &settings.form)?;
            let own = |(name, value): (&str, &str)| (name.to_string(), value.to_string());
            return Ok(FormData { fields: query.iter().map(own).collect(), files: Vec::new() });
        }
        if !media_type.eq_ignore_ascii_case("multipart/form-data") {
            return Err(UploadError::from(MultipartError::NotMultipart).into());
        }
        let spool = settings.spool.as_ref().ok_or(WebError::NoSpool)?;
        Ok(FormData::read(self, kind.as_bytes(), spool, &settings.upload)?)
    }
}

/// The body. Its errors carry a [`BodyError`], and are remembered: a view may lose them.
impl Read for HttpRequest<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.body.read(out).map_err(|error| {
            if error.kind() == ErrorKind::Interrupted {
                return error;
            }
            let kind = error.kind();
            let failure = error.downcast().unwrap_or(BodyError::Source(kind));
            *self.body_failure = Some(failure.clone());
            failure.into()
        })
    }
}

/// What a view returns in the end: the response that the server writes.
pub type HttpResponse = Response;

/// Whatever a view may return.
pub trait IntoResponse {
    /// The response that it stands for, with the help of the application.
    fn into_response(self, app: &App) -> HttpResponse;
}

impl IntoResponse for HttpResponse {
    fn into_response(self, _: &App) -> HttpResponse {
        self
    }
}

impl IntoResponse for &'static str {
    fn into_response(self, app: &App) -> HttpResponse {
        PlainTextResponse(self).into_response(app)
    }
}

impl IntoResponse for String {
    fn into_response(self, app: &App) -> HttpResponse {
        PlainTextResponse(self).into_response(app)
    }
}

/// Another status than the usual one.
impl<T: IntoResponse> IntoResponse for (Status, T) {
    fn into_response(self, app: &App) -> HttpResponse {
        HttpResponse { status: self.0, ..self.1.into_response(app) }
    }
}

/// The same by its number: `(201, "made")`.
impl<T: IntoResponse> IntoResponse for (u16, T) {
    fn into_response(self, app: &App) -> HttpResponse {
        // Below 200 another answer would have to follow.
        match Status::new(self.0).filter(|status| status.code() >= 200) {
            Some(status) => (status, self.1).into_response(app),
            None => WebError::BadStatus(self.0).into_response(app),
        }
    }
}

impl<T: IntoResponse, E: IntoResponse> IntoResponse for Result<T, E> {
    fn into_response(self, app: &App) -> HttpResponse {
        match self {
            Ok(response) => response.into_response(app),
            Err(error) => error.into_response(app),
        }
    }
}

/// Plain text.
pub struct PlainTextResponse<T>(pub T);

impl<T: Into<Cow<'static, str>>> IntoResponse for PlainTextResponse<T> {
    fn into_response(self, _: &App) -> HttpResponse {
        HttpResponse::text(Status::OK, self.0)
    }
}

/// A page, from text that is HTML already: nothing in it is escaped here.
pub struct HtmlResponse<T>(pub T);

impl<T: Into<Cow<'static, str>>> IntoResponse for HtmlResponse<T> {
    fn into_response(self, _: &App) -> HttpResponse {
        HttpResponse::html(Status::OK, self.0)
    }
}

/// A value for a script: a [`Context`], a [`Value`], or what can become one.
pub struct JsonResponse<T>(pub T);

impl<T: Into<Value>> IntoResponse for JsonResponse<T> {
    fn into_response(self, _: &App) -> HttpResponse {
        let mut response = HttpResponse::new(Status::OK);
        response.body = Body::Whole(to_json(&self.0.into()).into_bytes().into());
        response.with(CONTENT_TYPE, FieldValue::constant("application/json"))
    }
}

/// A page from the template of this name.
pub struct TemplateResponse<T>(pub T, pub Context);

impl<T: AsRef<str>> IntoResponse for TemplateResponse<T> {
    fn into_response(self, app: &App) -> HttpResponse {
        let page = app.render(self.0.as_ref(), &self.1);
        page.map(HtmlResponse).into_response(app)
    }
}

/// 404, with words of the view's own.
pub struct NotFoundResponse<T>(pub T);

impl<T: Into<Cow<'static, str>>> IntoResponse for NotFoundResponse<T> {
    fn into_response(self, _: &App) -> HttpResponse {
        HttpResponse::text(Status::NOT_FOUND, self.0)
    }
}

/// Sends the client to another address, with 303: it asks there with GET. A tuple around it gives
/// another status, as in `(308, RedirectResponse("/new/"))`.
pub struct RedirectResponse<T>(pub T);

impl<T: AsRef<str>> IntoResponse for RedirectResponse<T> {
    fn into_response(self, app: &App) -> HttpResponse {
        // A line end in here would begin a field of a stranger's choice. The type has none.
        match FieldValue::new(self.0.as_ref().as_bytes()) {
            Ok(place) => {
                let response = HttpResponse::text(Status::OK, "It is at another address.\n");
                (303, response.with(Token::constant("Location"), place)).into_response(app)
            }
            Err(error) => WebError::Field(error).into_response(app),
        }
    }
}

/// Asks the browser to remember a cookie.
///
/// # Errors
/// If the cookie holds what a cookie cannot hold.
pub fn set_cookie(response: HttpResponse, cookie: &SetCookie) -> Result<HttpResponse, WebError> {
    let field = cookie.to_field()?;
    Ok(response.with(SET_COOKIE, FieldValue::new(field.as_bytes())?))
}

/// A view, as the router keeps it.
pub type View = Box<dyn Fn(HttpRequest) -> HttpResponse + Send + Sync>;

/// Makes a view of a function.
pub fn view<F, R>(function: F) -> View
where
    F: Fn(HttpRequest) -> R + Send + Sync + 'static,
    R: IntoResponse,
{
    Box::new(move |request: HttpRequest| {
        let app = request.app;
        function(request).into_response(app)
    })
}

/// Code around all views: it sees each request before them and each response after them.
pub type Middleware = Box<dyn Fn(HttpRequest, Next) -> HttpResponse + Send + Sync>;

/// What comes after a middleware: the next one, and after the last one the router.
pub struct Next<'a> {
    rest: &'a [Middleware],
}

impl Next<'_> {
    /// Passes the request on.
    pub fn run(self, request: HttpRequest) -> HttpResponse {
        match self.rest.split_first() {
            Some((middleware, rest)) => middleware(request, Next { rest }),
            None => request.app.route_request(request),
        }
    }
}

/// What an application can be given.
#[derive(Default)]
pub struct AppSettings {
    /// Renders templates: [`Templates`](crate::web::template::Templates), or another.
    pub templates: Option<Box<dyn TemplateEngine>>,
    /// Where uploaded files arrive. Without it there are no uploads.
    pub spool: Option<Spool>,
    /// Limits of urlencoded forms, and of queries.
    pub form: FormLimits,
    /// Limits of multipart forms.
    pub upload: UploadLimits,
    /// Whether error pages explain what happened. Never for strangers: they say too much.
    pub debug: bool,
}

/// An application: routes, middleware, tools.
///
/// ```
/// use glasshouse::web::app::{App, HttpRequest, JsonResponse, TestClient};
/// use glasshouse::web::template::Context;
///
/// let app = App::new()
///     .get("", |_| "Hello, world!")
///     .get("hello/<str:name>/", |request: HttpRequest| {
///         format!("Hello, {}!", request.parameters.get("name"))
///     })
///     .post("count/", |mut request: HttpRequest| {
///         let form = request.form()?;
///         Ok::<_, glasshouse::web::app::WebError>(JsonResponse(form.fields.len()))
///     });
/// assert_eq!(TestClient::new(&app).get("/hello/Ada/").text(), "Hello, Ada!");
/// assert_eq!(TestClient::new(&app).post("/count/", "a=1&b=2").text(), "2");
/// ```
#[derive(Default)]
pub struct App {
    /// Its tools and limits.
    pub settings: AppSettings,
    router: Router<View>,
    middleware: Vec<Middleware>,
}

impl App {
    /// An application without routes.
    pub fn new() -> App {
        App::default()
    }

    /// The same with these tools.
    pub fn with_settings(mut self, settings: AppSettings) -> App {
        self.settings = settings;
        self
    }

    /// Adds a view for all methods. The router explains patterns.
    ///
    /// # Panics
    /// This and the next methods: if the pattern is malformed. It happens when the program starts.
    pub fn route<F, R>(self, pattern: &str, function: F) -> App
    where
        F: Fn(HttpRequest) -> R + Send + Sync + 'static,
        R: IntoResponse,
    {
        self.with_route(path(pattern, view(function)))
    }

    /// Adds a view for GET, and so for HEAD.
    pub fn get<F, R>(self, pattern: &str, function: F) -> App
    where
        F: Fn(HttpRequest) -> R + Send + Sync + 'static,
        R: IntoResponse,
    {
        self.with_route(path(pattern, view(function)).method(Method::Get))
    }

    /// Adds a view for POST.
    pub fn post<F, R>(self, pattern: &str, function: F) -> App
    where
        F: Fn(HttpRequest) -> R + Send + Sync + 'static,
        R: IntoResponse,
    {
        self.with_route(path(pattern, view(function)).method(Method::Post))
    }

    /// Adds a view for PUT.
    pub fn put<F, R>(self, pattern: &str, function: F) -> App
    where
        F: Fn(HttpRequest) -> R + Send + Sync + 'static,
        R: IntoResponse,
    {
        self.with_route(path(pattern, view(function)).method(Method::Put))
    }

    /// Adds a view for DELETE.
    pub fn delete<F, R>(self, pattern: &str, function: F) -> App
    where
        F: Fn(HttpRequest) -> R + Send + Sync + 'static,
        R: IntoResponse,
    {
        self.with_route(path(pattern, view(function)).method(Method::Delete))
    }

    /// Adds a route with all that it can have: `path("a/", view(f)).method(Method::Get).named("a")`.
    pub fn with_route(mut self, route: Route<View>) -> App {
        self.router.add(route);
        self
    }

    /// Serves the files of a folder under a prefix that ends in a slash, such as `static/`.
    pub fn files(self, prefix: &str, files: StaticFiles) -> App {
        let files = Arc::new(files);
        let root = Arc::clone(&files);
        self.get(prefix, move |request: HttpRequest| root.respond(request.head, ""))
            .get(&format!("{prefix}<path:file>"), move |request: HttpRequest| {
                files.respond(request.head, request.parameters.get("file"))
            })
    }

    /// Puts a middleware around all that is there. The last one added sees a request first.
    pub fn middleware<F>(mut self, middleware: F) -> App
    where
        F: Fn(HttpRequest, Next) -> HttpResponse + Send + Sync + 'static,
    {
        self.middleware.insert(0, Box::new(middleware));
        self
    }

    /// Renders a template.
    ///
    /// # Errors
    /// [`WebError::Template`], or [`WebError::NoTemplates`].
    pub fn render(&self, name: &str, context: &Context) -> Result<String, WebError> {
        let engine = self.settings.templates.as_ref().ok_or(WebError::NoTemplates)?;
        Ok(engine.render(name, context)?)
    }

    /// The table of routes: `router().reverse("hello", &[("name", "Ada")])`.
    pub fn router(&self) -> &Router<View> {
        &self.router
    }

    /// Answers a request. There is always an answer: a panic is 500.
    pub fn respond(
        &self,
        head: &RequestHead,
        peer: SocketAddr,
        body: &mut dyn Read,
    ) -> HttpResponse {
        let path = match decoded_path(head.target.path()) {
            Ok(path) => path,
            // No path, no route; and behind ASGI nobody would even ask us.
            Err(error) => return Refusal::from(error).response(),
        };
        let (path, parameters) = (path.as_str(), Parameters::default());
        let body_failure = &mut None;
        let request = HttpRequest { head, path, peer, parameters, app: self, body, body_failure };
        let next = Next { rest: &self.middleware };
        guarded(|| next.run(request)).into_response(self)
    }

    /// As a part of [`Next::run`] it would lend its stack frame to each middleware, and a thread keeps
    /// all stack that it has ever touched.
    #[inline(never)]
    fn route_request(&self, request: HttpRequest) -> HttpResponse {
        if request.head.target.form == TargetForm::Asterisk {
            // RFC 9110, section 9.3.7: OPTIONS * is about the server as a whole.
            return HttpResponse::new(Status::NO_CONTENT);
        }
        match self.router.find(&request.head.method, request.path) {
            Found::View(view, parameters) => self.call(view, HttpRequest { parameters, ..request }),
            Found::Options(allow) => with_allow(HttpResponse::new(Status::NO_CONTENT), &allow),
            Found::WrongMethod(allow) => {
                let text = format!("405 Method Not Allowed\n\nAllowed here: {allow}.\n");
                let text = self.explained(text, "src/web/router.rs");
                with_allow(HttpResponse::text(Status::METHOD_NOT_ALLOWED, text), &allow)
            }
            Found::NeedsSlash => {
                let place = with_slash(&request);
                (301, RedirectResponse(place)).into_response(self)
            }
            Found::Nothing => self.not_found(&request),
        }
    }

    /// A panic in a view ends here, so that middleware sees the answer to it. The first failure
    /// counts: a view that fails because its body was broken has not failed.
    fn call(&self, view: &View, request: HttpRequest) -> HttpResponse {
        let HttpRequest { head, path, peer, parameters, app, body, body_failure } = request;
        let seen = &mut *body_failure;
        let lent = HttpRequest { head, path, peer, parameters, app, body, body_failure: seen };
        let result = guarded(|| view(lent));
        let failed = result.as_ref().map_or(true, |response| response.status.code() >= 500);
        match body_failure.take() {
            Some(error) if failed => WebError::Body(error).into_response(self),
            _ => result.into_response(self),
        }
    }

    fn not_found(&self, request: &HttpRequest) -> HttpResponse {
        let mut text = "404 Not Found\n\nNothing is here.\n".to_string();
        if self.settings.debug {
            text += &format!("No pattern fits {:?}. These were tried, in order:\n", request.path);
            for route in self.router.routes() {
                text += &format!("  /{}\n", route.pattern);
            }
        }
        let text = self.explained(text, "src/web/router.rs");
        HttpResponse::text(Status::NOT_FOUND, text)
    }

    /// In debug mode a page of ours says where to read on.
    fn explained(&self, mut text: String, source: &str) -> String {
        if self.settings.debug {
            let file = source.rsplit('/').next().unwrap_or_default();
            let chapter = chapter_of(file.trim_end_matches(".rs"));
            text += &format!("\nExplained in: TUTORIAL.md, {chapter}.\nSource: {source}.\n");
        }
        text
    }
}

/// Where a panic happened stands in the log already. Its words are for the page of debug mode.
fn guarded(work: impl FnOnce() -> HttpResponse) -> Result<HttpResponse, WebError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let constant = payload.downcast_ref::<&str>().map(|words| (*words).to_string());
        let words = constant.or_else(|| payload.downcast_ref::<String>().cloned());
        WebError::Panic(words.unwrap_or_default())
    })
}

fn with_allow(response: HttpResponse, allow: &str) -> HttpResponse {
    match FieldValue::new(allow.as_bytes()) {
        Ok(value) => response.with(ALLOW, value),
        Err(_) => response,
    }
}

/// The same address with a slash. As in files.rs it is relative, and begins with a dot: a path
/// like `/\evil.example` would be another host to a browser.
fn with_slash(request: &HttpRequest) -> String {
    let target = &request.head.target;
    let last = target.path().rsplit('/').next().unwrap_or_default();
    let query = target.query().map_or(String::new(), |query| format!("?{query}"));
    format!("./{last}/{query}")
}

/// What can go wrong in a view. It becomes an answer by itself.
#[derive(Debug)]
pub enum WebError {
    /// The body broke a rule, came too slowly, or its client went away. The status of that rule.
    Body(BodyError),
    /// The urlencoded form is too long or has too many fields. 413.
    Form(FormError),
    /// The multipart form, or its files. It knows its status.
    Upload(UploadError),
    /// The query has too many pairs. 400.
    Query(UrlError),
    /// No spool folder was given, so there are no uploads. 415.
    NoSpool,
    /// A field that a view wanted to set. 500.
    Field(FieldError),
    /// A cookie that a view wanted to set. 500.
    Cookie(CookieError),
    /// A view's status is not from 200 to 599. 500.
    BadStatus(u16),
    /// A template. 500.
    Template(TemplateError),
    /// No template engine was given. 500.
    NoTemplates,
    /// A view panicked, with these words. 500.
    Panic(String),
    /// Something else could not be read or written: a file, another server. 500.
    Io(io::Error),
}

impl WebError {
    /// The status that fits.
    pub fn status(&self) -> Status {
        match self {
            WebError::Body(error) => refusal(error).status,
            WebError::Form(_) => Status::CONTENT_TOO_LARGE,
            WebError::Upload(error) => error.status(),
            WebError::Query(error) => Refusal::from(error.clone()).status,
            WebError::NoSpool => MultipartError::NotMultipart.status(),
            _ => Status::INTERNAL_SERVER_ERROR,
        }
    }

    /// The file of this project whose rules were broken.
    pub fn source_file(&self) -> &'static str {
        match self {
            WebError::Body(_) => "src/http/body.rs",
            WebError::Form(_) | WebError::Cookie(_) => "src/web/form.rs",
            WebError::Upload(UploadError::Form(_)) => "src/web/multipart.rs",
            WebError::Upload(_) | WebError::NoSpool => "src/web/upload.rs",
            WebError::Query(_) => "src/http/url.rs",
            WebError::Field(_) => "src/http/headers.rs",
            WebError::BadStatus(_) => "src/http/response.rs",
            WebError::Template(TemplateError { fault: TemplateFault::Syntax(_), .. }) => {
                "src/web/syntax.rs"
            }
            WebError::Template(_) | WebError::NoTemplates => "src/web/template.rs",
            WebError::Panic(_) | WebError::Io(_) => "src/web/app.rs",
        }
    }
}

/// The page for a broken body is the same whether the server or the application finds out.
fn refusal(error: &BodyError) -> Refusal {
    match error {
        BodyError::Source(ErrorKind::TimedOut) => Refusal::slow_body(),
        _ => Refusal::from(error.clone()),
    }
}

/// The client hears what it did wrong. What we did wrong is for the log, and for debug mode.
impl IntoResponse for WebError {
    fn into_response(self, app: &App) -> HttpResponse {
        if let WebError::Body(error) = &self {
            return refusal(error).response();
        }
        let status = self.status();
        let ours = status.code() >= 500;
        if ours {
            // A line end in the words would forge a second line.
            let line = format!("{status}: {self}").replace(char::is_control, "?");
            let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
        }
        let mut text = format!("{status}\n\n");
        text += &match ours && !app.settings.debug {
            true => "The server could not answer this. It is not your fault.\n".to_string(),
            false => format!("What happened: {self}.\n"),
        };
        HttpResponse::text(status, app.explained(text, self.source_file()))
    }
}

impl IntoResponse for io::Error {
    fn into_response(self, app: &App) -> HttpResponse {
        WebError::from(self).into_response(app)
    }
}

impl fmt::Display for WebError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            WebError::Body(error) => error.fmt(f),
            WebError::Form(error) => error.fmt(f),
            WebError::Upload(error) => error.fmt(f),
            WebError::Query(error) => error.fmt(f),
            WebError::NoSpool => write!(f, "this application takes no uploads"),
            WebError::Field(error) => write!(f, "a field of the answer: {error}"),
            WebError::Cookie(error) => error.fmt(f),
            WebError::BadStatus(code) => write!(f, "{code} cannot be the status of an answer"),
            WebError::Template(error) => error.fmt(f),
            WebError::NoTemplates => write!(f, "the application has no template engine"),
            WebError::Panic(words) => write!(f, "the application panicked: {words}"),
            WebError::Io(error) => error.fmt(f),
        }
    }
}

impl Error for WebError {}

/// An error that came from the body is told from all others by what it carries.
impl From<io::Error> for WebError {
    fn from(error: io::Error) -> WebError {
        match error.downcast() {
            Ok(error) => WebError::Body(error),
            Err(error) => WebError::Io(error),
        }
    }
}

impl From<FormError> for WebError {
    fn from(error: FormError) -> WebError {
        match error {
            FormError::Source(error) => error.into(),
            error => WebError::Form(error),
        }
    }
}

impl From<UploadError> for WebError {
    fn from(error: UploadError) -> WebError {
        match error {
            UploadError::Body(error) => WebError::Body(error),
            error => WebError::Upload(error),
        }
    }
}

impl From<UrlError> for WebError {
    fn from(error: UrlError) -> WebError {
        WebError::Query(error)
    }
}

impl From<FieldError> for WebError {
    fn from(error: FieldError) -> WebError {
        WebError::Field(error)
    }
}

impl From<CookieError> for WebError {
    fn from(error: CookieError) -> WebError {
        WebError::Cookie(error)
    }
}

impl From<TemplateError> for WebError {
    fn from(error: TemplateError) -> WebError {
        WebError::Template(error)
    }
}

/// A client without a network, for the tests of an application.
pub struct TestClient<'a> {
    app: &'a App,
}

impl<'a> TestClient<'a> {
    /// A client of this application.
    pub fn new(app: &'a App) -> TestClient<'a> {
        TestClient { app }
    }

    /// GET.
    pub fn get(&self, target: &str) -> TestResponse {
        self.request("GET", target, &[], b"")
    }

    /// POST with an urlencoded form.
    pub fn post(&self, target: &str, form: &str) -> TestResponse {
        let fields = [("Content-Type", "application/x-www-form-urlencoded")];
        self.request("POST", target, &fields, form.as_bytes())
    }

    /// Any request; `Host` and `Content-Length` are added. What cannot be read as a request is
    /// refused as the server would refuse it.
    pub fn request(
        &self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        mut body: &[u8],
    ) -> TestResponse {
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: testserver\r\n");
        for (name, value) in fields {
            text += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        text += "\r\n";
        let peer = SocketAddr::from(([127, 0, 0, 1], 0));
        let response = match HeadParser::new(HeadLimits::default()).advance(text.as_bytes()) {
            Ok(Parse::Complete { value, .. }) => self.app.respond(&value, peer, &mut body),
            Ok(Parse::Partial) => HttpResponse::new(Status::BAD_REQUEST),
            Err(error) => Refusal::from(error).response(),
        };
        TestResponse::read(response, method == "HEAD")
    }
}

/// A response with all of its body, in memory. A stream without an end would never be one.
pub struct TestResponse {
    /// Its status.
    pub status: Status,
    /// Its fields, without those that the server adds.
    pub headers: Headers,
    /// Its body; empty where none would be sent.
    pub body: Vec<u8>,
}

impl TestResponse {
    fn read(response: HttpResponse, is_head: bool) -> TestResponse {
        let mut body = Vec::new();
        match response.body {
            _ if is_head || response.status.forbids_body() => {}
            Body::Whole(bytes) => body = bytes.into_owned(),
            Body::Stream { mut source, .. } => {
                // What came before an error is what a client would have seen.
                let _ = source.read_to_end(&mut body);
            }
        }
        TestResponse { status: response.status, headers: response.headers, body }
    }

    /// The body as text.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The first field of that name, if it is text.
    pub fn field(&self, name: &str) -> Option<&str> {
        let name = Token::new(name.as_bytes()).ok()?;
        self.headers.get(name)?.as_str()
    }
}
