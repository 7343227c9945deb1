//! Chapter 18: the router. RFC 9110, sections 9.3.7 and 15.5.6; RFC 3986, section 3.3.
//!
//! An application is many pages, and a request names one of them by its path. So there is a table:
//! on the left a pattern, on the right the code that answers, which is called a view.
//!
//! ```text
//!   pattern   hello/<str:name>/          a table of patterns, tried from top to bottom
//!   path     /hello/Ada/
//!             │      │
//!             │      └── a parameter: name = "Ada"
//!             └── a literal: must be equal
//!
//!   found, right method        call the view with its parameters
//!   found, wrong method        405, and Allow says which methods there are
//!   found with a slash more    301 to the path with the slash
//!   not found                  404
//! ```
//!
//! Pattern and path are compared segment by segment, and both are decoded: a pattern says `café/`,
//! and a `%2F` in a path is a slash like any other.

use std::fmt;

use crate::http::request::Method;
use crate::http::url::{percent_encode, remove_dot_segments};

/// A pattern, and what stands at its end. The router never calls the view: it hands it out.
#[derive(Debug, Clone)]
pub struct Route<V> {
    /// The pattern, as it was written.
    pub pattern: String,
    /// The name for [`Router::reverse`].
    pub name: Option<String>,
    /// The methods that it answers; empty means all.
    pub methods: Vec<Method>,
    /// The view.
    pub view: V,
    segments: Vec<Segment>,
}

/// What stands between two slashes of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Parameter(Converter, String),
}

/// What a parameter accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Converter {
    /// Any text without a slash, not empty.
    Str,
    /// Decimal digits that fit 64 bits.
    Int,
    /// Letters, digits, hyphens and underscores of ASCII.
    Slug,
    /// All the rest of the path, slashes included. It is not empty, can only be the last, and does
    /// not begin with a slash: joined to a folder, `/etc/passwd` would forget that folder.
    Path,
}

/// The names of the converters in a pattern.
const CONVERTERS: &[(&str, Converter)] = &[
    ("str", Converter::Str),
    ("int", Converter::Int),
    ("slug", Converter::Slug),
    ("path", Converter::Path),
];

impl Converter {
    fn accepts(self, text: &str) -> bool {
        let slug = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        match self {
            Converter::Str => !text.is_empty() && !text.contains('/'),
            // Rust's own reading of numbers takes a plus sign too.
            Converter::Int => !text.starts_with('+') && text.parse::<u64>().is_ok(),
            Converter::Slug => !text.is_empty() && text.bytes().all(slug),
            Converter::Path => !text.is_empty() && !text.starts_with('/'),
        }
    }
}

/// A route for all methods: `path("hello/<str:name>/", view)`.
///
/// # Panics
/// If the pattern is malformed, with the place of the caller. Patterns are written by the
/// programmer and read when the program starts; [`Route::new`] returns the error instead.
#[track_caller]
#[allow(clippy::panic)]
pub fn path<V>(pattern: &str, view: V) -> Route<V> {
    match Route::new(pattern, view) {
        Ok(route) => route,
        Err(error) => panic!("{error}"),
    }
}

impl<V> Route<V> {
    /// A route for all methods.
    ///
    /// # Errors
    /// A [`RouteError`] that says what is wrong with the pattern.
    pub fn new(pattern: &str, view: V) -> Result<Route<V>, RouteError> {
        let pattern = pattern.to_string();
        match segments(&pattern) {
            Ok(segments) => Ok(Route { pattern, name: None, methods: Vec::new(), view, segments }),
            Err(fault) => Err(RouteError { pattern, fault }),
        }
    }

    /// The same route under a name.
    pub fn named(mut self, name: &str) -> Route<V> {
        self.name = Some(name.to_string());
        self
    }

    /// The same route for this method only, or for one more.
    pub fn method(mut self, method: Method) -> Route<V> {
        self.methods.push(method);
        self
    }

    /// HEAD is answered where GET is: it is the same answer without its body.
    fn answers(&self, method: &Method) -> bool {
        let wanted = if *method == Method::Head { &Method::Get } else { method };
        self.methods.is_empty() || self.methods.contains(wanted) || self.methods.contains(method)
    }

    /// The parameters, if the path fits. `path` is decoded and has no slash in front.
    fn parameters(&self, path: &str) -> Option<Parameters> {
        let mut found = Parameters::default();
        let mut rest = Some(path);
        for segment in &self.segments {
            rest = match segment {
                Segment::Literal(literal) => after_literal(rest?, literal)?,
                Segment::Parameter(converter, name) => {
                    let (text, after) = converter.cut(rest?);
                    if !converter.accepts(text) {
                        return None;
                    }
                    found.pairs.push((name.clone(), text.to_string()));
                    after
                }
            };
        }
        rest.is_none().then_some(found)
    }

    /// The other way round: the path with these values, encoded, if they fit.
    fn path_with(&self, values: &[(&str, &str)]) -> Option<String> {
        let mut path = String::new();
        for segment in &self.segments {
            path.push('/');
            match segment {
                Segment::Literal(literal) => path.push_str(literal),
                Segment::Parameter(converter, name) => {
                    let (_, value) = values.iter().find(|(key, _)| key == name)?;
                    if !converter.accepts(value) {
                        return None;
                    }
                    path.push_str(value);
                }
            }
        }
        // A browser carries out dots before it asks, encoded or not, and no path may hold a NUL.
        let arrives = remove_dot_segments(&path) == path && !path.contains('\0');
        arrives.then(|| percent_encode(&path, OF_A_PATH))
    }
}

fn segments(pattern: &str) -> Result<Vec<Segment>, PatternFault> {
    if pattern.starts_with('/') {
        return Err(PatternFault::LeadingSlash);
    }
    let mut segments: Vec<Segment> = Vec::new();
    for text in pattern.split('/') {
        let segment = Segment::parse(text)?;
        match segments.last() {
            Some(Segment::Parameter(Converter::Path, _)) => return Err(PatternFault::AfterPath),
            // Only the last may be empty: it is the slash at the end.
            Some(Segment::Literal(last)) if last.is_empty() => {
                return Err(PatternFault::EmptySegment);
            }
            _ => {}
        }
        if segments.iter().any(|other| other.shares_name(&segment)) {
            return Err(PatternFault::SameName);
        }
        segments.push(segment);
    }
    Ok(segments)
}

impl Segment {
    fn parse(text: &str) -> Result<Segment, PatternFault> {
        let inside = text.strip_prefix('<').and_then(|text| text.strip_suffix('>'));
        let Some(inside) = inside else {
            return match text {
                "." | ".." => Err(PatternFault::Dots),
                _ if text.contains(['<', '>']) => Err(PatternFault::PartOfSegment),
                _ => Ok(Segment::Literal(text.to_string())),
            };
        };
        let (converter, name) = inside.split_once(':').unwrap_or(("str", inside));
        let Some((_, converter)) = CONVERTERS.iter().find(|(known, _)| *known == converter) else {
            return Err(PatternFault::UnknownConverter);
        };
        if !Converter::Slug.accepts(name) {
            return Err(PatternFault::ParameterName);
        }
        Ok(Segment::Parameter(*converter, name.to_string()))
    }

    fn shares_name(&self, other: &Segment) -> bool {
        match (self, other) {
            (Segment::Parameter(_, one), Segment::Parameter(_, another)) => one == another,
            _ => false,
        }
    }
}

/// What is behind this segment and the next slash, if the path begins so. Most patterns of a table
/// fail here, at their first letter.
fn after_literal<'p>(path: &'p str, literal: &str) -> Option<Option<&'p str>> {
    match path.strip_prefix(literal)? {
        "" => Some(None),
        after => after.strip_prefix('/').map(Some),
    }
}

impl Converter {
    /// The text that it stands against at the start of a path, and what is behind the next slash.
    fn cut(self, path: &str) -> (&str, Option<&str>) {
        match (self, path.split_once('/')) {
            (Converter::Path, _) | (_, None) => (path, None),
            (_, Some((text, after))) => (text, Some(after)),
        }
    }
}

/// The bytes that a path may hold as they are, besides letters and digits.
// pchar = unreserved / pct-encoded / sub-delims / ":" / "@"        RFC 3986, section 3.3
const OF_A_PATH: &[u8] = b"-._~/!$&'()*+,;=:@";

/// What the parameters of a pattern stood for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters {
    pairs: Vec<(String, String)>,
}

impl Parameters {
    /// The value of a parameter, or the empty text if the pattern has none of that name.
    pub fn get(&self, name: &str) -> &str {
        let found = self.pairs.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }

    /// The value of an `<int:...>` parameter, or 0 if the pattern has none of that name.
    pub fn int(&self, name: &str) -> u64 {
        self.get(name).parse().unwrap_or_default()
    }
}

/// A table of routes. They are tried in the order in which they were added, and the first that
/// fits the path and answers the method is it.
#[derive(Debug, Clone)]
pub struct Router<V> {
    routes: Vec<Route<V>>,
}

/// What the table says about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<'r, V> {
    /// This view, with these parameters.
    View(&'r V, Parameters),
    /// OPTIONS was asked, and no view answers it itself: this is the value of `Allow`. 204.
    Options(String),
    /// The path is there, but only for other methods: this is the value of `Allow`. 405.
    WrongMethod(String),
    /// GET or HEAD would find a view if the path had a slash more. 301, to the path as it was sent
    /// with a slash behind it: that never leads to another host.
    NeedsSlash,
    /// Nothing fits. 404.
    Nothing,
}

impl<V> Default for Router<V> {
    fn default() -> Router<V> {
        Router { routes: Vec::new() }
    }
}

impl<V> Router<V> {
    /// Adds a route below the others.
    pub fn add(&mut self, route: Route<V>) {
        self.routes.push(route);
    }

    /// All routes, in order.
    pub fn routes(&self) -> &[Route<V>] {
        &self.routes
    }

    /// Looks a request up. `path` is decoded and begins with a slash, or is `*`.
    pub fn find(&self, method: &Method, path: &str) -> Found<'_, V> {
        let Some(path) = path.strip_prefix('/') else {
            return match (method, path) {
                // RFC 9110, section 9.3.7: a question about the server as a whole.
                (Method::Options, "*") => Found::Options(allow(self.routes.iter())),
                _ => Found::Nothing,
            };
        };
        let mut others = Vec::new();
        for route in &self.routes {
            match route.parameters(path) {
                Some(parameters) if route.answers(method) => {
                    return Found::View(&route.view, parameters);
                }
                Some(_) => others.push(route),
                None => {}
            }
        }
        if others.is_empty() {
            let slash = self.needs_slash(method, path);
            return if slash { Found::NeedsSlash } else { Found::Nothing };
        }
        let allow = allow(others.into_iter());
        match method {
            Method::Options => Found::Options(allow),
            _ => Found::WrongMethod(allow),
        }
    }

    /// Whether to send the browser to the same path with a slash more. Other methods than GET and
    /// HEAD bring a body, which a browser would drop on its way there.
    fn needs_slash(&self, method: &Method, path: &str) -> bool {
        // A browser reads `/\evil.example/` as `//evil.example/`, and that is another host.
        let stays_here = !path.is_empty() && !path.starts_with(['/', '\\']);
        let safe = matches!(method, Method::Get | Method::Head);
        if !safe || !stays_here || path.ends_with('/') {
            return false;
        }
        let path = format!("{path}/");
        self.routes.iter().any(|route| route.answers(method) && route.parameters(&path).is_some())
    }

    /// The path of a named route with these values, percent-encoded. Of several routes with that
    /// name, it is the first that the values fit. Values that a pattern does not name are left out.
    ///
    /// `None`: there is no such name, or a value is missing, or it does not fit its converter, or
    /// it could never come back, because browsers carry out `.` and `..` and a NUL is refused.
    pub fn reverse(&self, name: &str, values: &[(&str, &str)]) -> Option<String> {
        let mut named = self.routes.iter().filter(|route| route.name.as_deref() == Some(name));
        named.find_map(|route| route.path_with(values))
    }
}

/// The value of `Allow`: HEAD goes with GET, and OPTIONS is always answered.
// Allow = #method        RFC 9110, section 10.2.1
fn allow<'r, V: 'r>(routes: impl Iterator<Item = &'r Route<V>>) -> String {
    let mut methods = vec!["OPTIONS"];
    for method in routes.flat_map(|route| &route.methods) {
        methods.push(method.as_str());
        if *method == Method::Get {
            methods.push("HEAD");
        }
    }
    methods.sort_unstable();
    methods.dedup();
    methods.join(", ")
}

/// A pattern that cannot be used. A programmer's mistake: the program should not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteError {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub fault: PatternFault,
}

/// What is wrong with a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternFault {
    /// It begins with a slash, which is not written: every path has it.
    LeadingSlash,
    /// It has two slashes in a row.
    EmptySegment,
    /// It has a segment `.` or `..`, and browsers never send one.
    Dots,
    /// A parameter is only a part of what stands between two slashes.
    PartOfSegment,
    /// The converter is none of ours.
    UnknownConverter,
    /// The name of a parameter is not made of letters, digits, hyphens and underscores.
    ParameterName,
    /// Two parameters have the same name.
    SameName,
    /// Something follows `<path:...>`, which takes all that is left.
    AfterPath,
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let says = match self.fault {
            PatternFault::LeadingSlash => "begins with a slash, which every path has anyway",
            PatternFault::EmptySegment => "has two slashes in a row",
            PatternFault::Dots => "has a segment of dots, which browsers never send",
            PatternFault::PartOfSegment => "has a parameter that is not a whole segment",
            PatternFault::UnknownConverter => {
                "names a converter that is none of str, int, slug, path"
            }
            PatternFault::ParameterName => "has a parameter without a proper name",
            PatternFault::SameName => "has two parameters of the same name",
            PatternFault::AfterPath => "has something after a <path:...>, which takes all",
        };
        write!(f, "the pattern {:?} {says}", self.pattern)
    }
}

impl std::error::Error for RouteError {}
