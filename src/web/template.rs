//! Chapter 19: templates. WHATWG HTML Standard, section 13.3, for what is escaped.
//!
//! A page is mostly fixed text, with a few values in it that strangers typed. Glue the two with
//! `format!`, and a stranger who calls himself `<script>` writes your page. So the text lives in a
//! file of its own, and one place decides how a value enters it: escaped, unless told otherwise.
//!
//! ```text
//!   source   <p>Hello {{ name }}{% if admin %}!{% endif %}
//!   tokens   Text      Output    Tag          T Tag
//!   nodes    Text, Output(name), If(admin: [Text])
//!   text     <p>Hello &lt;script&gt;!
//! ```
//!
//! | written | means |
//! |---|---|
//! | `{{ user.name }}` `{{ rows.0 }}` | the value, escaped; a name that is missing is nothing |
//! | `{{ title\|default:"none"\|upper }}` | the value, sent through filters |
//! | `{% if a and not b == 3 %} {% elif c %} {% else %} {% endif %}` | a choice |
//! | `{% for row in rows %} {% empty %} {% endfor %}` | a loop; it knows `forloop.counter` |
//! | `{% include "row.html" %}` | that template, here, with the same names |
//! | `{% extends "base.html" %}` `{% block title %} {% endblock %}` | base, with these blocks |
//! | `{# words #}` | nothing |
//!
//! The filters: `default:x` (x for what is not true), `upper`, `lower`, `length`, `join:", "`,
//! `floatformat:1` (digits after the point), `urlencode` (for a value inside an address), and
//! `safe`, which is the only way past escaping.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// What a template can be given.
///
/// A list inside a list, some ten thousand deep, overflows the stack when it is dropped, as every
/// tree in Rust does. So set a limit where you make values of what a stranger sent.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Value {
    /// No value.
    #[default]
    Nothing,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// Text as somebody typed it. It is escaped on its way into a page.
    Text(String),
    /// HTML that the program wrote itself. It enters a page as it is, so it must hold no byte of a
    /// stranger that was not escaped.
    Safe(String),
    /// Values in order.
    List(Vec<Value>),
    /// Values with names.
    Map(BTreeMap<String, Value>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_string())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Value {
        Value::Bool(truth)
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Value {
        Value::Integer(number.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Integer(number)
    }
}

impl From<u64> for Value {
    /// A number above `i64::MAX` becomes `i64::MAX`.
    fn from(number: u64) -> Value {
        Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Value {
        Value::from(number as u64)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Float(number)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Nothing, Into::into)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Value {
        Value::List(items.into_iter().map(Into::into).collect())
    }
}

impl From<Context> for Value {
    fn from(context: Context) -> Value {
        Value::Map(context.values)
    }
}

impl Value {
    /// Whether `{% if %}` takes it for true: everything but nothing, false, zero and the empty.
    fn is_true(&self) -> bool {
        match self {
            Value::Nothing => false,
            Value::Bool(truth) => *truth,
            Value::Integer(number) => *number != 0,
            Value::Float(number) => *number != 0.0,
            Value::Text(text) | Value::Safe(text) => !text.is_empty(),
            Value::List(items) => !items.is_empty(),
            Value::Map(map) => !map.is_empty(),
        }
    }

    /// The value as it is printed, before it is escaped.
    fn text(&self) -> Result<Cow<'_, str>, TemplateFault> {
        match self {
            Value::Nothing => Ok(Cow::Borrowed("")),
            Value::Bool(truth) => Ok(Cow::Owned(truth.to_string())),
            Value::Integer(number) => Ok(Cow::Owned(number.to_string())),
            Value::Float(number) => Ok(Cow::Owned(number.to_string())),
            Value::Text(text) | Value::Safe(text) => Ok(Cow::Borrowed(text)),
            Value::List(_) => Err(expected("text or a number", "a list")),
            Value::Map(_) => Err(expected("text or a number", "a map")),
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Value::Integer(number) => Some(*number as f64),
            Value::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// How two values stand to each other, or `None` if they cannot be compared: a number and a
    /// text, or lists and maps.
    fn compare(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Nothing, Value::Nothing) => Some(Ordering::Equal),
            (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
            (Value::Integer(left), Value::Integer(right)) => Some(left.cmp(right)),
            (Value::Text(left) | Value::Safe(left), Value::Text(right) | Value::Safe(right)) => {
                Some(left.cmp(right))
            }
            _ => self.number()?.partial_cmp(&other.number()?),
        }
    }
}

/// The names that a template may use, and their values.
///
/// As a [`Value`] it is a map, so it also builds the rows of a list:
/// `Context::new().with("rows", vec![Context::new().with("x", 1)])`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Context {
    values: BTreeMap<String, Value>,
}

impl Context {
    /// A context without names.
    pub fn new() -> Context {
        Context::default()
    }

    /// The same with one name more. A name that is there already gets the new value.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Context {
        self.set(name, value);
        self
    }

    /// Gives a name a value.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.values.insert(name.to_string(), value.into());
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }
}

/// Makes pages out of names and values.
///
/// The application calls it from many threads at once, on the thread of each request. It must not
/// panic, whatever the values are, and must end in bounded time and memory.
pub trait TemplateEngine: Send + Sync {
    /// The whole page, or what is wrong with the template.
    ///
    /// # Errors
    /// Every [`TemplateError`]. All are faults of the site, never of the visitor.
    fn render(&self, name: &str, context: &Context) -> Result<String, TemplateError>;
}

/// How much a template may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateLimits {
    /// Bytes of one template's source: a wrong file in the folder is not read to its end.
    pub source: usize,
    /// Tags inside each other, over all templates that include or extend each other: each level
    /// takes part of the thread's stack.
    pub depth: usize,
    /// Nodes, turns of a loop, filters and files of one page: the bound on its time.
    pub steps: usize,
    /// Bytes of the page: it is made in memory, whole.
    pub output: usize,
}

impl Default for TemplateLimits {
    fn default() -> TemplateLimits {
        TemplateLimits { source: 256 * 1024, depth: 32, steps: 1_000_000, output: 8 * 1024 * 1024 }
    }
}

/// The templates of a site: a folder of files, with templates from memory behind it.
#[derive(Debug)]
pub struct Templates {
    folder: Option<PathBuf>,
    memory: BTreeMap<String, String>,
    debug: bool,
    limits: TemplateLimits,
    parsed: RwLock<BTreeMap<String, Arc<Template>>>,
}

impl TemplateEngine for Templates {
    fn render(&self, name: &str, context: &Context) -> Result<String, TemplateError> {
        Templates::render(self, name, context)
    }
}

impl Templates {
    /// Templates from the files of a folder.
    ///
    /// Each file is read once. In debug mode it is read at each use, and parsed again when its text
    /// has changed; and there `{{ name }}` with a name that is missing is an error.
    pub fn new(folder: impl Into<PathBuf>, debug: bool) -> Templates {
        Templates { folder: Some(folder.into()), ..Templates::in_memory(debug) }
    }

    /// No folder: every template comes from [`Templates::with`].
    pub fn in_memory(debug: bool) -> Templates {
        Templates {
            folder: None,
            memory: BTreeMap::new(),
            debug,
            limits: TemplateLimits::default(),
            parsed: RwLock::default(),
        }
    }

    /// Adds a template from memory. It is used when the folder has no file of that name, so a
    /// program that holds its templates by `include_str!` also runs without the folder.
    pub fn with(mut self, name: &str, source: &str) -> Templates {
        self.memory.insert(name.to_string(), source.to_string());
        self
    }

    /// The same with other limits.
    pub fn with_limits(mut self, limits: TemplateLimits) -> Templates {
        self.limits = limits;
        self
    }

    /// Makes the page: the template of that name, filled from the context.
    ///
    /// # Errors
    /// Every [`TemplateError`].
    pub fn render(&self, name: &str, context: &Context) -> Result<String, TemplateError> {
        let mut renderer = Renderer {
            templates: self,
            context,
            loops: Vec::new(),
            steps: self.limits.steps,
            output: String::new(),
        };
        let rendered = renderer.template(name, 0);
        rendered.map_err(|error| error.at(name, 0))?;
        Ok(renderer.output)
    }

    /// The template of that name, read and parsed if that is needed.
    fn find(&self, name: &str) -> Result<Arc<Template>, TemplateError> {
        // A thread that panics cannot leave half a map, so a poisoned lock is taken all the same.
        let parsed = self.parsed.read().unwrap_or_else(PoisonError::into_inner);
        let known = parsed.get(name).cloned();
        drop(parsed);
        if let (Some(template), false) = (&known, self.debug) {
            return Ok(Arc::clone(template));
        }
        let source = self.source(name)?;
        if let Some(template) = known.filter(|template| template.source == source) {
            return Ok(template);
        }
        let template = Arc::new(Template::parse(name, &source, &self.limits)?);
        let mut parsed = self.parsed.write().unwrap_or_else(PoisonError::into_inner);
        parsed.insert(name.to_string(), Arc::clone(&template));
        Ok(template)
    }

    /// The text of a template: from the folder, or else from memory.
    fn source(&self, name: &str) -> Result<String, TemplateError> {
        let missing = TemplateFault::Missing(name.to_string());
        if !stays_inside(name) {
            return Err(missing.into());
        }
        if let Some(folder) = &self.folder {
            let source = read(&folder.join(name), self.limits.source);
            if let Some(source) = source.map_err(|fault| fault.at(name, 0))? {
                return Ok(source);
            }
        }
        self.memory.get(name).cloned().ok_or(missing.into())
    }
}

/// Whether a name can only name a file of the folder: letters, digits and `-_.` between slashes,
/// and no part begins with a dot. It says what is good, so nobody has to know all that is bad.
fn stays_inside(name: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let mut parts = name.split('/');
    parts.all(|part| !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_good))
}

/// The text of a file, or `None` if there is no such file.
fn read(path: &Path, limit: usize) -> Result<Option<String>, TemplateFault> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => return Ok(None),
            kind => return Err(TemplateFault::Unreadable(kind)),
        },
    };
    let mut bytes = Vec::new();
    let one_too_many = (limit as u64).saturating_add(1);
    let read = file.take(one_too_many).read_to_end(&mut bytes);
    read.map_err(|error| TemplateFault::Unreadable(error.kind()))?;
    if bytes.len() > limit {
        return Err(TemplateFault::TooLong(limit));
    }
    let text = String::from_utf8(bytes);
    text.map(Some).map_err(|_| TemplateFault::Unreadable(ErrorKind::InvalidData))
}

/// A template that has been parsed.
#[derive(Debug)]
pub struct Template {
    name: String,
    source: String,
    /// The template that this one extends, and the line that says so.
    extends: Option<(String, usize)>,
    blocks: BTreeMap<String, Vec<Node>>,
    nodes: Vec<Node>,
}

/// A part of a template, and the line where it begins.
#[derive(Debug)]
struct Node {
    line: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Text(String),
    Output(Expression),
    If(Vec<Part>),
    For(For),
    Include(String),
    /// Its nodes are in [`Template::blocks`], where an extending template looks for them.
    Block(String),
}

/// One way through an `if`, a `for` or a `block`, and the line of its tag. The parts after `else`
/// and `empty` have no condition.
#[derive(Debug)]
struct Part {
    line: usize,
    condition: Option<Condition>,
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct For {
    name: String,
    list: Vec<String>,
    nodes: Vec<Node>,
    empty: Vec<Node>,
}

/// True if in one of the lists every test is true. `and` binds closer than `or`, and there are no
/// parentheses, so a condition has no depth.
type Condition = Vec<Vec<Test>>;

#[derive(Debug)]
struct Test {
    negated: bool,
    left: Expression,
    right: Option<(Operator, Expression)>,
}

/// Judges how the left value stands to the right one.
type Operator = fn(Option<Ordering>) -> bool;

const OPERATORS: &[(&str, Operator)] = &[
    ("==", |order| order == Some(Ordering::Equal)),
    ("!=", |order| order != Some(Ordering::Equal)),
    ("<=", |order| matches!(order, Some(Ordering::Less | Ordering::Equal))),
    (">=", |order| matches!(order, Some(Ordering::Greater | Ordering::Equal))),
    ("<", |order| order == Some(Ordering::Less)),
    (">", |order| order == Some(Ordering::Greater)),
];

/// A value and the filters that it goes through, each with its argument.
#[derive(Debug)]
struct Expression {
    source: Source,
    filters: Vec<(&'static Filter, Option<Source>)>,
}

/// Where a value comes from.
#[derive(Debug)]
enum Source {
    Literal(Value),
    Path(Vec<String>),
}

/// Its name, whether it takes an argument, and what makes a new value of the value and the
/// argument, with a text of at most so many bytes.
type Filter = (&'static str, bool, fn(&Value, &Value, usize) -> Result<Value, TemplateFault>);

// No filter but `safe` makes a safe value: what another filter does to HTML is escaped again.
const FILTERS: &[Filter] = &[
    ("default", true, |value, other, _| Ok(if value.is_true() { value } else { other }.clone())),
    ("upper", false, |value, _, _| Ok(Value::Text(value.text()?.to_uppercase()))),
    ("lower", false, |value, _, _| Ok(Value::Text(value.text()?.to_lowercase()))),
    ("length", false, |value, _, _| Ok(Value::from(length(value)))),
    ("join", true, join),
    ("floatformat", true, |value, places, _| Ok(fixed(value, places))),
    ("urlencode", false, |value, _, _| Ok(Value::Text(url_encode(&value.text()?)))),
    ("safe", false, |value, _, _| Ok(Value::Safe(value.text()?.into_owned()))),
];

/// Characters of a text, members of a list or map; 0 for all else.
fn length(value: &Value) -> usize {
    match value {
        Value::Text(text) | Value::Safe(text) => text.chars().count(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.len(),
        _ => 0,
    }
}

fn join(value: &Value, between: &Value, limit: usize) -> Result<Value, TemplateFault> {
    let Value::List(items) = value else {
        return Ok(value.clone());
    };
    let between = between.text()?;
    let mut joined = String::new();
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            joined.push_str(&between);
        }
        joined.push_str(&item.text()?);
        // Before the next round: a long separator times a long list is far more than either.
        if joined.len() > limit {
            return Err(TemplateFault::TooMuchOutput(limit));
        }
    }
    Ok(Value::Text(joined))
}

/// A number with so many digits after the point, as in the coordinates of a drawing.
fn fixed(value: &Value, places: &Value) -> Value {
    let (Some(number), Value::Integer(places)) = (value.number(), places) else {
        return Value::Nothing;
    };
    // A float has no more than 17 digits that mean something.
    let places = usize::try_from(*places).unwrap_or(0).min(17);
    Value::Text(format!("{number:.places$}"))
}

// unreserved = ALPHA / DIGIT / "-" / "." / "_" / "~"        RFC 3986, section 2.3
fn url_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

impl Template {
    /// Parses a template. The name is for errors.
    ///
    /// # Errors
    /// Those of [`TemplateError`] that a source alone can cause.
    pub fn parse(
        name: &str,
        source: &str,
        limits: &TemplateLimits,
    ) -> Result<Template, TemplateError> {
        if source.len() > limits.source {
            return Err(TemplateFault::TooLong(limits.source).at(name, 0));
        }
        let mut parser = Parser {
            tokens: Tokens::of(source),
            depth: limits.depth,
            extends: None,
            blocks: BTreeMap::new(),
            nodes: Vec::new(),
            levels: Vec::new(),
        };
        let parsed = parser.file();
        parsed.map_err(|fault| fault.at(name, parser.tokens.start))?;
        Ok(Template {
            name: name.to_string(),
            source: source.to_string(),
            extends: parser.extends,
            blocks: parser.blocks,
            nodes: parser.nodes,
        })
    }
}

enum Token<'a> {
    Text(&'a str),
    /// The words of `{{ }}`.
    Output(Vec<&'a str>),
    /// The words of `{% %}`.
    Tag(Vec<&'a str>),
    End,
}

/// Cuts a source into tokens, one after the other.
struct Tokens<'a> {
    rest: &'a str,
    /// The line where `rest` begins.
    line: usize,
    /// The line where the last token began.
    start: usize,
    /// The number of lines.
    last: usize,
}

impl<'a> Tokens<'a> {
    fn of(source: &'a str) -> Tokens<'a> {
        // Some editors put this mark before a file. In the middle of a page it is a stray byte.
        let rest = source.strip_prefix('\u{feff}').unwrap_or(source);
        Tokens { rest, line: 1, start: 1, last: source.lines().count() }
    }

    fn take(&mut self) -> Result<Token<'a>, TemplateFault> {
        self.start = self.line;
        while let Some(inner) = self.rest.strip_prefix("{#") {
            self.cut(inner, "#}")?;
            self.start = self.line;
        }
        if let Some(inner) = self.rest.strip_prefix("{{") {
            return Ok(Token::Output(words(self.cut(inner, "}}")?)?));
        }
        if let Some(inner) = self.rest.strip_prefix("{%") {
            return Ok(Token::Tag(words(self.cut(inner, "%}")?)?));
        }
        if self.rest.is_empty() {
            self.start = self.last;
            return Ok(Token::End);
        }
        let text;
        (text, self.rest) = self.rest.split_at(text_length(self.rest));
        self.line += text.matches('\n').count();
        Ok(Token::Text(text))
    }

    /// Ends a token at its closing mark. Only a comment may go over several lines: a mark that was
    /// forgotten is missed on its own line, and does not swallow half a page.
    fn cut(&mut self, inner: &'a str, close: &str) -> Result<&'a str, TemplateFault> {
        match inner.split_once(close) {
            Some((inner, rest)) if close == "#}" || !inner.contains('\n') => {
                self.rest = rest;
                self.line += inner.matches('\n').count();
                Ok(inner)
            }
            _ if close == "#}" => Err(expected(close, "the end of the file")),
            _ => Err(expected(close, "the end of the line")),
        }
    }
}

/// Bytes before the first opening mark.
fn text_length(text: &str) -> usize {
    let is_mark = |at: &usize| {
        let from = text.get(*at..).unwrap_or_default();
        ["{{", "{%", "{#"].iter().any(|mark| from.starts_with(mark))
    };
    let mut braces = text.match_indices('{').map(|(at, _)| at);
    braces.find(is_mark).unwrap_or(text.len())
}

/// Cuts the inside of a tag into names, numbers, symbols, and texts that keep their quotes. Spaces
/// matter only between two words.
fn words(inner: &str) -> Result<Vec<&str>, TemplateFault> {
    let mut words = Vec::new();
    let mut rest = inner.trim_start();
    while let Some(first) = rest.chars().next() {
        let mut symbols = OPERATORS.iter().map(|(name, _)| *name).chain(["|", ":"]);
        let length = if matches!(first, '"' | '\'') {
            let closing = rest.match_indices(first).nth(1);
            closing.ok_or_else(|| expected(first, "the end of the tag"))?.0 + 1
        } else if let Some(symbol) = symbols.find(|symbol| rest.starts_with(symbol)) {
            symbol.len()
        } else {
            let is_end = |c: char| c.is_whitespace() || "\"'|:=!<>".contains(c);
            // A lone `=` is a word of its own, which no rule knows.
            rest.find(is_end).unwrap_or(rest.len()).max(first.len_utf8())
        };
        let (word, after) = rest.split_at(length);
        words.push(word);
        rest = after.trim_start();
    }
    Ok(words)
}

/// Makes nodes of tokens. What is open is kept in a list, not on the thread's stack, so the deepest
/// template takes no more of it than a flat one.
struct Parser<'a> {
    tokens: Tokens<'a>,
    /// How many tags may be open.
    depth: usize,
    extends: Option<(String, usize)>,
    blocks: BTreeMap<String, Vec<Node>>,
    /// The nodes of the innermost level so far.
    nodes: Vec<Node>,
    /// The tags that are open, the innermost last.
    levels: Vec<Level>,
}

/// A tag that waits for its end.
struct Level {
    line: usize,
    tag: Open,
    /// Its parts; the nodes of the last one are still to come.
    parts: Vec<Part>,
    /// The nodes before it, which go on after its end.
    before: Vec<Node>,
}

enum Open {
    If,
    For(String, Vec<String>),
    Block(String),
}

const LATE: &str = "{% extends %} must come before all else";
const TWICE: &str = "this file has a block of that name already";
const OUTSIDE: &str = "a template that extends another shows its blocks only, and this is outside";

impl Parser<'_> {
    fn file(&mut self) -> Result<(), TemplateFault> {
        loop {
            let token = self.tokens.take()?;
            let line = self.tokens.start;
            match (token, self.levels.last()) {
                (Token::Text(text), _) => self.add(line, Kind::Text(text.to_string()))?,
                (Token::Output(words), _) => self.add(line, Kind::Output(expression(&words)?))?,
                (Token::Tag(words), _) => self.tag(line, &words)?,
                (Token::End, None) => return Ok(()),
                (Token::End, Some(level)) => return Err(level.not_ended("the end of the file")),
            }
        }
    }

    fn tag(&mut self, line: usize, words: &[&str]) -> Result<(), TemplateFault> {
        match words {
            ["if", words @ ..] => self.open(line, Open::If, Some(condition(words)?)),
            ["for", name, "in", list] if is_name(name) => {
                self.open(line, Open::For(name.to_string(), path(list)?), None)
            }
            ["block", name] if is_name(name) => {
                if self.blocks.insert(name.to_string(), Vec::new()).is_some() {
                    return Err(TemplateFault::Misplaced(TWICE));
                }
                self.open(line, Open::Block(name.to_string()), None)
            }
            ["elif", words @ ..] => self.next_part(line, "elif", Some(condition(words)?)),
            [name @ ("else" | "empty")] => self.next_part(line, name, None),
            ["endif" | "endfor" | "endblock"] | ["endblock", _] => self.close(words),
            ["include", name] => self.add(line, Kind::Include(template_name(name)?)),
            ["extends", name] => self.extend(line, template_name(name)?),
            other => Err(unclear(other)),
        }
    }

    fn add(&mut self, line: usize, kind: Kind) -> Result<(), TemplateFault> {
        let is_lost = !kind.is_blank() && !matches!(&kind, Kind::Block(_));
        if self.is_outside() && is_lost {
            return Err(TemplateFault::Misplaced(OUTSIDE));
        }
        self.nodes.push(Node { line, kind });
        Ok(())
    }

    fn is_outside(&self) -> bool {
        self.extends.is_some() && self.levels.is_empty()
    }

    fn extend(&mut self, line: usize, name: String) -> Result<(), TemplateFault> {
        let is_first = self.nodes.iter().all(|node| node.kind.is_blank());
        if !is_first || !self.levels.is_empty() || self.extends.is_some() {
            return Err(TemplateFault::Misplaced(LATE));
        }
        self.extends = Some((name, line));
        Ok(())
    }

    fn open(
        &mut self,
        line: usize,
        tag: Open,
        condition: Option<Condition>,
    ) -> Result<(), TemplateFault> {
        if self.levels.len() == self.depth {
            return Err(TemplateFault::TooDeep(self.depth));
        }
        if self.is_outside() && !matches!(tag, Open::Block(_)) {
            return Err(TemplateFault::Misplaced(OUTSIDE));
        }
        let parts = vec![Part { line, condition, nodes: Vec::new() }];
        self.levels.push(Level { line, tag, parts, before: mem::take(&mut self.nodes) });
        Ok(())
    }

    fn next_part(
        &mut self,
        line: usize,
        name: &str,
        condition: Option<Condition>,
    ) -> Result<(), TemplateFault> {
        let Some(level) = self.levels.last_mut() else {
            return Err(expected("the end of the file", written(&[name])));
        };
        if !level.may_have(name) {
            return Err(level.not_ended(&written(&[name])));
        }
        level.end_part(mem::take(&mut self.nodes));
        level.parts.push(Part { line, condition, nodes: Vec::new() });
        Ok(())
    }

    fn close(&mut self, words: &[&str]) -> Result<(), TemplateFault> {
        let Some(mut level) = self.levels.pop() else {
            return Err(expected("the end of the file", written(words)));
        };
        let is_end = match (words, &level.tag) {
            (["endblock", other], Open::Block(name)) => name == other,
            ([name], _) => *name == level.end(),
            _ => false,
        };
        if !is_end {
            return Err(level.not_ended(&written(words)));
        }
        level.end_part(mem::take(&mut self.nodes));
        self.nodes = level.before;
        let mut parts = level.parts.into_iter();
        let mut next_nodes = || parts.next().map(|part| part.nodes).unwrap_or_default();
        let kind = match level.tag {
            Open::If => Kind::If(parts.collect()),
            Open::For(name, list) => {
                Kind::For(For { name, list, nodes: next_nodes(), empty: next_nodes() })
            }
            Open::Block(name) => {
                self.blocks.insert(name.clone(), next_nodes());
                Kind::Block(name)
            }
        };
        self.add(level.line, kind)
    }
}

impl Kind {
    fn is_blank(&self) -> bool {
        matches!(self, Kind::Text(text) if text.trim().is_empty())
    }
}

impl Level {
    fn end(&self) -> &'static str {
        match self.tag {
            Open::If => "endif",
            Open::For(..) => "endfor",
            Open::Block(_) => "endblock",
        }
    }

    /// Whether such a part may follow the last one.
    fn may_have(&self, name: &str) -> bool {
        let had_else = self.parts.last().is_some_and(|part| part.condition.is_none());
        match self.tag {
            Open::If => name != "empty" && !had_else,
            Open::For(..) => name == "empty" && self.parts.len() == 1,
            Open::Block(_) => false,
        }
    }

    fn end_part(&mut self, nodes: Vec<Node>) {
        if let Some(part) = self.parts.last_mut() {
            part.nodes = nodes;
        }
    }

    fn not_ended(&self, found: &str) -> TemplateFault {
        expected(format!("{{% {} %}} for the tag of line {}", self.end(), self.line), found)
    }
}

/// The error of a tag that is not written in one of the forms that it has.
fn unclear(words: &[&str]) -> TemplateFault {
    let name = words.first().copied().unwrap_or_default();
    let form = FORMS.iter().find(|form| form.split(' ').next() == Some(name));
    let wanted = form.map_or("a tag".to_string(), |form| format!("{{% {form} %}}"));
    expected(wanted, written(words))
}

const FORMS: &[&str] = &[
    "for NAME in LIST",
    "block NAME",
    "include \"NAME\"",
    "extends \"NAME\"",
    "else",
    "empty",
    "endif",
    "endfor",
    "endblock NAME",
];

fn written(words: &[&str]) -> String {
    format!("{{% {} %}}", words.join(" "))
}

fn template_name(word: &str) -> Result<String, TemplateFault> {
    let name = unquoted(word).map(str::to_string);
    name.ok_or_else(|| expected("the name of a template, in quotes,", word))
}

fn unquoted(word: &str) -> Option<&str> {
    let quote = word.chars().next().filter(|first| matches!(first, '"' | '\''))?;
    word.strip_prefix(quote)?.strip_suffix(quote)
}

// condition = all *( "or" all )
// all       = test *( "and" test )
fn condition(words: &[&str]) -> Result<Condition, TemplateFault> {
    let mut any = Vec::new();
    for part in words.split(|word| *word == "or") {
        let all = part.split(|word| *word == "and").map(test);
        any.push(all.collect::<Result<_, _>>()?);
    }
    Ok(any)
}

// test = *"not" expression [ operator expression ]
fn test(mut words: &[&str]) -> Result<Test, TemplateFault> {
    let mut negated = false;
    while let ["not", rest @ ..] = words {
        negated = !negated;
        words = rest;
    }
    for (name, operator) in OPERATORS {
        let at = words.iter().position(|word| word == name);
        if let Some((left, [_, right @ ..])) = at.and_then(|at| words.split_at_checked(at)) {
            let (left, right) = (expression(left)?, expression(right)?);
            return Ok(Test { negated, left, right: Some((*operator, right)) });
        }
    }
    Ok(Test { negated, left: expression(words)?, right: None })
}

// expression = source *( "|" filter [ ":" source ] )
fn expression(words: &[&str]) -> Result<Expression, TemplateFault> {
    let mut parts = words.split(|word| *word == "|");
    let source = value_source(parts.next().unwrap_or_default())?;
    let mut filters = Vec::new();
    for part in parts {
        let (name, argument) = match part {
            [name, ":", argument @ ..] => (*name, Some(value_source(argument)?)),
            [name] => (*name, None),
            other => return Err(expected("a filter", quoted(other))),
        };
        match FILTERS.iter().find(|filter| filter.0 == name) {
            Some(filter) if filter.1 == argument.is_some() => filters.push((filter, argument)),
            Some((_, true, _)) => return Err(expected(format!("`{name}:VALUE`"), quoted(part))),
            Some(_) => return Err(expected(format!("`{name}` alone"), quoted(part))),
            None => return Err(expected("a filter", quoted(part))),
        }
    }
    Ok(Expression { source, filters })
}

fn quoted(words: &[&str]) -> String {
    if words.is_empty() { "nothing".to_string() } else { format!("`{}`", words.join(" ")) }
}

// source = quoted / number / "true" / "false" / path
fn value_source(words: &[&str]) -> Result<Source, TemplateFault> {
    let [word] = words else {
        return Err(expected("one value", quoted(words)));
    };
    if let Some(text) = unquoted(word) {
        return Ok(Source::Literal(Value::from(text)));
    }
    if let Ok(truth) = word.parse::<bool>() {
        return Ok(Source::Literal(Value::Bool(truth)));
    }
    match number(word) {
        Some(number) => Ok(Source::Literal(number)),
        None => Ok(Source::Path(path(word)?)),
    }
}

// number = [ "-" ] 1*DIGIT [ "." 1*DIGIT ]
fn number(word: &str) -> Option<Value> {
    // The standard library also reads `1e9`, `inf` and `nan`.
    if !word.bytes().all(|byte| byte.is_ascii_digit() || b"-.".contains(&byte)) {
        return None;
    }
    let whole = word.parse().ok().map(Value::Integer);
    whole.or_else(|| word.parse().ok().map(Value::Float))
}

// path = name *( "." ( name / 1*DIGIT ) )
fn path(word: &str) -> Result<Vec<String>, TemplateFault> {
    let mut path: Vec<String> = Vec::new();
    for part in word.split('.') {
        let is_index = !path.is_empty() && part.parse::<usize>().is_ok();
        if !is_index && !is_name(part) {
            return Err(expected("a value", quoted(&[word])));
        }
        path.push(part.to_string());
    }
    Ok(path)
}

// name = ( ALPHA / "_" ) *( ALPHA / DIGIT / "_" )
fn is_name(word: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_reserved = matches!(word, "" | "and" | "or" | "not" | "in" | "true" | "false");
    !is_reserved && !word.starts_with(|c: char| c.is_ascii_digit()) && word.bytes().all(is_good)
}

/// Makes text of nodes: one page.
struct Renderer<'a> {
    templates: &'a Templates,
    context: &'a Context,
    /// The loops that are running, the innermost last.
    loops: Vec<Loop<'a>>,
    steps: usize,
    output: String,
}

struct Loop<'a> {
    name: String,
    items: &'a [Value],
    index: usize,
}

impl Loop<'_> {
    /// A field of `forloop`.
    fn field(&self, name: &str) -> Option<Value> {
        match name {
            "counter" => Some(Value::from(self.index + 1)),
            "counter0" => Some(Value::from(self.index)),
            "first" => Some(Value::Bool(self.index == 0)),
            "last" => Some(Value::Bool(self.index + 1 == self.items.len())),
            _ => None,
        }
    }
}

/// Where the renderer is: in which template, how deep, and with which templates to look for a block
/// in, the one that extends all others first.
#[derive(Clone, Copy)]
struct Place<'p> {
    template: &'p Template,
    family: &'p [Arc<Template>],
    depth: usize,
}

impl<'a> Renderer<'a> {
    /// A template, and all that it extends.
    fn template(&mut self, name: &str, depth: usize) -> Result<(), TemplateError> {
        let mut template = self.find(name)?;
        let mut family = vec![Arc::clone(&template)];
        while let Some((parent, line)) = &template.extends {
            let parent = match family.len() > self.templates.limits.depth {
                true => Err(self.too_deep()),
                false => self.find(parent),
            };
            let parent = parent.map_err(|error| error.at(&template.name, *line))?;
            family.push(Arc::clone(&parent));
            template = parent;
        }
        let place = Place { template: &template, family: &family, depth };
        self.nodes(place, &template.nodes)
    }

    fn nodes(&mut self, mut place: Place, nodes: &[Node]) -> Result<(), TemplateError> {
        if place.depth > self.templates.limits.depth {
            return Err(self.too_deep());
        }
        place.depth += 1;
        for node in nodes {
            let done = self.step().and_then(|()| self.node(place, &node.kind));
            done.map_err(|error| error.at(&place.template.name, node.line))?;
        }
        Ok(())
    }

    fn node(&mut self, place: Place, kind: &Kind) -> Result<(), TemplateError> {
        match kind {
            Kind::Text(text) => self.write(text),
            Kind::Output(expression) => self.print(expression),
            Kind::If(parts) => self.choice(place, parts),
            Kind::For(repetition) => self.repetition(place, repetition),
            Kind::Include(name) => self.template(name, place.depth),
            Kind::Block(name) => {
                for template in place.family {
                    if let Some(nodes) = template.blocks.get(name) {
                        return self.nodes(Place { template, ..place }, nodes);
                    }
                }
                Ok(())
            }
        }
    }

    fn print(&mut self, expression: &Expression) -> Result<(), TemplateError> {
        // A typo is shown to the template's author, and never takes a page down later.
        if self.templates.debug {
            self.must_exist(expression)?;
        }
        match self.value(expression)?.as_ref() {
            Value::Safe(html) => self.write(html),
            value => self.write(&escape(&value.text()?)),
        }
    }

    fn choice(&mut self, place: Place, parts: &[Part]) -> Result<(), TemplateError> {
        for part in parts {
            let holds = match &part.condition {
                Some(condition) => self.holds(condition),
                None => Ok(true),
            };
            if holds.map_err(|error| error.at(&place.template.name, part.line))? {
                return self.nodes(place, &part.nodes);
            }
        }
        Ok(())
    }

    fn repetition(&mut self, place: Place, repetition: &For) -> Result<(), TemplateError> {
        let items: &'a [Value] = match self.look_up(&repetition.list) {
            Some(Cow::Borrowed(Value::List(items))) => items,
            Some(Cow::Borrowed(Value::Nothing)) | None => &[],
            Some(_) => return Err(expected("a list", "a value that is none").into()),
        };
        if items.is_empty() {
            return self.nodes(place, &repetition.empty);
        }
        self.loops.push(Loop { name: repetition.name.clone(), items, index: 0 });
        for index in 0..items.len() {
            if let Some(inner) = self.loops.last_mut() {
                inner.index = index;
            }
            self.step()?;
            self.nodes(place, &repetition.nodes)?;
        }
        self.loops.pop();
        Ok(())
    }

    fn holds(&mut self, condition: &Condition) -> Result<bool, TemplateError> {
        for all in condition {
            let mut holds = true;
            for test in all {
                holds = holds && self.test(test)?;
            }
            if holds {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn test(&mut self, test: &Test) -> Result<bool, TemplateError> {
        let left = self.value(&test.left)?;
        let is_true = match &test.right {
            Some((operator, right)) => operator(left.compare(&*self.value(right)?)),
            None => left.is_true(),
        };
        Ok(is_true != test.negated)
    }

    /// The value of an expression; nothing for a name that is missing.
    fn value<'x>(&mut self, expression: &'x Expression) -> Result<Cow<'x, Value>, TemplateError>
    where
        'a: 'x,
    {
        let limit = self.templates.limits.output;
        let mut value = self.source(&expression.source)?;
        for ((_, _, apply), argument) in &expression.filters {
            self.step()?;
            let argument = match argument {
                Some(source) => self.source(source)?,
                None => Cow::Owned(Value::Nothing),
            };
            value = Cow::Owned(apply(&value, &argument, limit)?);
        }
        Ok(value)
    }

    fn source<'x>(&mut self, source: &'x Source) -> Result<Cow<'x, Value>, TemplateError>
    where
        'a: 'x,
    {
        self.step()?;
        Ok(match source {
            Source::Literal(value) => Cow::Borrowed(value),
            Source::Path(path) => self.look_up(path).unwrap_or_default(),
        })
    }

    /// The innermost loop's variable of that name, or else the context's.
    fn look_up(&self, path: &[String]) -> Option<Cow<'a, Value>> {
        let (name, fields) = path.split_first()?;
        if let ("forloop", Some(inner), [field]) = (name.as_str(), self.loops.last(), fields) {
            return inner.field(field).map(Cow::Owned);
        }
        let of_loop = self.loops.iter().rev().find(|one| one.name == *name);
        let mut value = match of_loop {
            Some(inner) => inner.items.get(inner.index)?,
            None => self.context.values.get(name)?,
        };
        for field in fields {
            value = match value {
                Value::Map(map) => map.get(field)?,
                Value::List(items) => items.get(field.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        Some(Cow::Borrowed(value))
    }

    fn must_exist(&self, expression: &Expression) -> Result<(), TemplateError> {
        let has_default = expression.filters.iter().any(|(filter, _)| filter.0 == "default");
        match &expression.source {
            Source::Path(path) if !has_default && self.look_up(path).is_none() => {
                Err(TemplateFault::UnknownName(path.join(".")).into())
            }
            _ => Ok(()),
        }
    }

    fn find(&mut self, name: &str) -> Result<Arc<Template>, TemplateError> {
        self.step()?;
        self.templates.find(name)
    }

    fn too_deep(&self) -> TemplateError {
        TemplateFault::TooDeep(self.templates.limits.depth).into()
    }

    fn step(&mut self) -> Result<(), TemplateError> {
        let limit = self.templates.limits.steps;
        let left = self.steps.checked_sub(1);
        self.steps = left.ok_or(TemplateFault::TooManySteps(limit))?;
        Ok(())
    }

    fn write(&mut self, text: &str) -> Result<(), TemplateError> {
        let limit = self.templates.limits.output;
        if text.len() > limit.saturating_sub(self.output.len()) {
            return Err(TemplateFault::TooMuchOutput(limit).into());
        }
        self.output.push_str(text);
        Ok(())
    }
}

/// Text as HTML that shows that text, inside an element or between the quotes of an attribute.
///
/// It is no protection inside `<script>` or `<style>`, in an attribute without quotes, or for an
/// address that may begin with `javascript:`: other languages begin there, with rules of their own.
// WHATWG HTML Standard, section 13.3, escaping a string; and `'`, for attributes quoted with it.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// What is wrong, and where. The visitor's answer is 500; the words are for the template's author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    /// The name of the template.
    pub template: String,
    /// The line, counted from 1; 0 if it is about the whole template.
    pub line: usize,
    /// What is wrong there.
    pub fault: TemplateFault,
}

impl TemplateError {
    /// Places an error that has no place yet: the innermost place is the most exact one.
    fn at(mut self, template: &str, line: usize) -> TemplateError {
        if self.template.is_empty() {
            self.template = template.to_string();
            self.line = line;
        }
        self
    }
}

impl From<TemplateFault> for TemplateError {
    fn from(fault: TemplateFault) -> TemplateError {
        TemplateError { template: String::new(), line: 0, fault }
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.template, self.fault),
            line => write!(f, "{}, line {line}: {}", self.template, self.fault),
        }
    }
}

impl std::error::Error for TemplateError {}

/// What can be wrong with a template. Each is answered with 500.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateFault {
    /// No file of the folder and nothing in memory has this name, or the name could lead out of
    /// the folder.
    Missing(String),
    /// The file cannot be read, or is not UTF-8 ([`ErrorKind::InvalidData`]).
    Unreadable(ErrorKind),
    /// The source has more bytes than [`TemplateLimits::source`].
    TooLong(usize),
    /// The grammar, or a tag or filter, wants one thing, and another is there.
    Expected {
        /// What should be there.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// A tag stands where it means nothing; the sentence says why.
    Misplaced(&'static str),
    /// In debug mode: nothing has this name.
    UnknownName(String),
    /// There are more levels of tags, includes or extends than [`TemplateLimits::depth`].
    TooDeep(usize),
    /// The page takes more than [`TemplateLimits::steps`].
    TooManySteps(usize),
    /// The page, or a text made for it, has more bytes than [`TemplateLimits::output`].
    TooMuchOutput(usize),
}

impl TemplateFault {
    fn at(self, template: &str, line: usize) -> TemplateError {
        TemplateError::from(self).at(template, line)
    }
}

fn expected(wanted: impl fmt::Display, found: impl fmt::Display) -> TemplateFault {
    // A word can be as long as its file.
    let found = found.to_string().chars().take(60).collect();
    TemplateFault::Expected { wanted: wanted.to_string(), found }
}

impl fmt::Display for TemplateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TemplateFault::Missing(name) => write!(f, "there is no template `{name}`"),
            TemplateFault::Unreadable(kind) => write!(f, "the file cannot be read: {kind}"),
            TemplateFault::TooLong(limit) => write!(f, "it is longer than {limit} bytes"),
            TemplateFault::Expected { wanted, found } => {
                write!(f, "{wanted} was expected, but here is {found}")
            }
            TemplateFault::Misplaced(why) => f.write_str(why),
            TemplateFault::UnknownName(name) => {
                write!(f, "nothing is called `{name}`; if that is right, give it a default")
            }
            TemplateFault::TooDeep(limit) => {
                write!(f, "more than {limit} levels; does a template include itself?")
            }
            TemplateFault::TooManySteps(limit) => write!(f, "the page takes over {limit} steps"),
            TemplateFault::TooMuchOutput(limit) => write!(f, "the page is over {limit} bytes"),
        }
    }
}
