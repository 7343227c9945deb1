//! Chapter 21: templates. WHATWG HTML Standard, section 13.3, for what is escaped.
//!
//! The pages of a site are files in a folder. Somebody must find them, read and parse each once, put
//! them together where one includes or extends another, and fill them. And whatever stands in them,
//! a page must end: in bounded time, memory and depth.
//!
//! ```text
//!   page.html      {% extends "base.html" %} {% block title %}Hello {{ name }}{% endblock %}
//!   base.html      <h1>{% block title %}{% endblock %}</h1>
//!
//!   the family     page.html, base.html        who has a block of that name? The first one wins.
//!   the page       <h1>Hello &lt;script&gt;</h1>
//! ```
//!
//! A name that is missing is nothing. A loop knows `forloop.counter`, `counter0`, `first` and
//! `last`. The filter `safe` is the only way past escaping.

use crate::web::syntax::{Condition, Expression, Filter, For, Kind, Node, Operator, Part, Source};
use crate::web::syntax::{SyntaxFault, Template, Test};
pub use crate::web::value::{Context, Value, escape};
use crate::web::value::{Unfit, url_encode};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

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
    /// Nodes, values, turns of a loop, filters and files of one page, and the length of what the
    /// filters go through: the bound on its time.
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
    parsed: RwLock<BTreeMap<String, Arc<Loaded>>>,
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
    fn find(&self, name: &str) -> Result<Arc<Loaded>, TemplateError> {
        // A thread that panics cannot leave half a map, so a poisoned lock is taken all the same.
        let parsed = self.parsed.read().unwrap_or_else(PoisonError::into_inner);
        let known = parsed.get(name).cloned();
        drop(parsed);
        if let (Some(loaded), false) = (&known, self.debug) {
            return Ok(Arc::clone(loaded));
        }
        let source = self.source(name).map_err(|fault| match fault {
            // It is missing where somebody asks for it. All else is wrong with the file itself.
            TemplateFault::Missing(_) => TemplateError::from(fault),
            fault => TemplateError::from(fault).at(name, 0),
        })?;
        if let Some(loaded) = known.filter(|loaded| loaded.source == source) {
            return Ok(loaded);
        }
        let template = Template::parse(&source, self.limits.depth);
        let template = template.map_err(|error| {
            TemplateError::from(TemplateFault::Syntax(error.fault)).at(name, error.line)
        })?;
        let loaded = Arc::new(Loaded { name: name.to_string(), source, template });
        let mut parsed = self.parsed.write().unwrap_or_else(PoisonError::into_inner);
        parsed.insert(name.to_string(), Arc::clone(&loaded));
        Ok(loaded)
    }

    /// The text of a template: from the folder, or else from memory.
    fn source(&self, name: &str) -> Result<String, TemplateFault> {
        let missing = TemplateFault::Missing(name.to_string());
        if !stays_inside(name) {
            return Err(missing);
        }
        let limit = self.limits.source;
        let file = match &self.folder {
            Some(folder) => read(&folder.join(name), limit)?,
            None => None,
        };
        let memory = || self.memory.get(name).map(|text| text.clone().into_bytes());
        let bytes = file.or_else(memory).ok_or(missing)?;
        if bytes.len() > limit {
            return Err(TemplateFault::TooLong(limit));
        }
        let text = String::from_utf8(bytes);
        text.map_err(|_| TemplateFault::Unreadable(ErrorKind::InvalidData))
    }
}

/// Whether a name can only name a file of the folder: letters, digits and `-_.` between slashes,
/// and no part begins with a dot. It says what is good, so nobody has to know all that is bad.
fn stays_inside(name: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let mut parts = name.split('/');
    parts.all(|part| !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_good))
}

/// The bytes of a file, at most one more than `limit`, or `None` if there is no such file.
fn read(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, TemplateFault> {
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
    Ok(Some(bytes))
}

/// A template that has been read, and parsed.
#[derive(Debug)]
struct Loaded {
    name: String,
    source: String,
    template: Template,
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
    file: &'p Loaded,
    family: &'p [Arc<Loaded>],
    depth: usize,
}

impl<'a> Renderer<'a> {
    /// A template, and all that it extends.
    fn template(&mut self, name: &str, depth: usize) -> Result<(), TemplateError> {
        let mut file = self.find(name)?;
        let mut family = vec![Arc::clone(&file)];
        while let Some((parent, line)) = &file.template.extends {
            let parent = match family.len() > self.templates.limits.depth {
                true => Err(self.too_deep()),
                false => self.find(parent),
            };
            let parent = parent.map_err(|error| error.at(&file.name, *line))?;
            family.push(Arc::clone(&parent));
            file = parent;
        }
        let place = Place { file: &file, family: &family, depth };
        self.nodes(place, &file.template.nodes)
    }

    fn nodes(&mut self, mut place: Place, nodes: &[Node]) -> Result<(), TemplateError> {
        if place.depth > self.templates.limits.depth {
            return Err(self.too_deep());
        }
        place.depth += 1;
        for node in nodes {
            let done = self.step().and_then(|()| self.node(place, &node.kind));
            done.map_err(|error| error.at(&place.file.name, node.line))?;
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
                for file in place.family {
                    if let Some(nodes) = file.template.blocks.get(name) {
                        return self.nodes(Place { file, ..place }, nodes);
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
            if holds.map_err(|error| error.at(&place.file.name, part.line))? {
                return self.nodes(place, &part.nodes);
            }
        }
        Ok(())
    }

    fn repetition(&mut self, place: Place, repetition: &For) -> Result<(), TemplateError> {
        let items: &'a [Value] = match self.look_up(&repetition.list) {
            Some(Cow::Borrowed(Value::List(items))) => items,
            Some(Cow::Borrowed(Value::Nothing)) | None => &[],
            Some(_) => return Err(Unfit { wanted: "a list", found: "a value that is none" }.into()),
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
            Some((operator, right)) => fits(*operator, left.compare(&*self.value(right)?)),
            None => left.is_true(),
        };
        Ok(is_true != test.negated)
    }

    /// The value of an expression; nothing for a name that is missing.
    fn value<'x>(&mut self, expression: &'x Expression) -> Result<Cow<'x, Value>, TemplateError>
    where
        'a: 'x,
    {
        let mut value = self.source(&expression.source)?;
        for filter in &expression.filters {
            self.spend(steps_of(filter, &value))?;
            value = self.filtered(value, filter)?;
        }
        Ok(value)
    }

    // No filter but `safe` makes a safe value: what another filter does to HTML is escaped again.
    fn filtered<'x>(
        &mut self,
        value: Cow<'x, Value>,
        filter: &'x Filter,
    ) -> Result<Cow<'x, Value>, TemplateError>
    where
        'a: 'x,
    {
        Ok(Cow::Owned(match filter {
            Filter::Default(_) if value.is_true() => return Ok(value),
            Filter::Default(other) => return self.source(other),
            Filter::Join(between) => {
                let between = self.source(between)?;
                return joined(value, &between, self.templates.limits.output);
            }
            Filter::FloatFormat(places) => fixed(&value, &*self.source(places)?),
            Filter::Upper => Value::Text(value.text()?.to_uppercase()),
            Filter::Lower => Value::Text(value.text()?.to_lowercase()),
            Filter::Length => Value::from(value.length()),
            Filter::UrlEncode => Value::Text(url_encode(&value.text()?)),
            Filter::Safe => Value::Safe(value.text()?.into_owned()),
        }))
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
            None => self.context.get(name)?,
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
        let is_default = |filter: &Filter| matches!(filter, Filter::Default(_));
        let has_default = expression.filters.iter().any(is_default);
        match &expression.source {
            Source::Path(path) if !has_default && self.look_up(path).is_none() => {
                Err(TemplateFault::UnknownName(path.join(".")).into())
            }
            _ => Ok(()),
        }
    }

    fn find(&mut self, name: &str) -> Result<Arc<Loaded>, TemplateError> {
        self.step()?;
        self.templates.find(name)
    }

    fn too_deep(&self) -> TemplateError {
        TemplateFault::TooDeep(self.templates.limits.depth).into()
    }

    fn step(&mut self) -> Result<(), TemplateError> {
        self.spend(1)
    }

    fn spend(&mut self, steps: usize) -> Result<(), TemplateError> {
        let limit = self.templates.limits.steps;
        let left = self.steps.checked_sub(steps);
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

fn fits(operator: Operator, order: Option<Ordering>) -> bool {
    match operator {
        Operator::Equal => order == Some(Ordering::Equal),
        Operator::NotEqual => order != Some(Ordering::Equal),
        Operator::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Operator::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        Operator::Less => order == Some(Ordering::Less),
        Operator::Greater => order == Some(Ordering::Greater),
    }
}

/// Bytes of a text that a filter goes through in one step.
const BYTES_PER_STEP: usize = 256;

/// The steps that a filter takes. `urlencode` can make a text three times as long, and the next
/// `urlencode` has to go through that.
fn steps_of(filter: &Filter, value: &Value) -> usize {
    match (filter, value) {
        (Filter::Join(_), Value::List(items)) => 1 + items.len(),
        (_, Value::Text(text) | Value::Safe(text)) => 1 + text.len() / BYTES_PER_STEP,
        _ => 1,
    }
}

fn joined<'v>(
    value: Cow<'v, Value>,
    between: &Value,
    limit: usize,
) -> Result<Cow<'v, Value>, TemplateError> {
    let Value::List(items) = value.as_ref() else {
        return Ok(value);
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
            return Err(TemplateFault::TooMuchOutput(limit).into());
        }
    }
    Ok(Cow::Owned(Value::Text(joined)))
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

impl From<Unfit> for TemplateError {
    fn from(unfit: Unfit) -> TemplateError {
        TemplateFault::Unfit(unfit).into()
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
    /// It cannot be parsed.
    Syntax(SyntaxFault),
    /// A tag or a filter wants a value of one kind, and this one is of another.
    Unfit(Unfit),
    /// In debug mode: nothing has this name.
    UnknownName(String),
    /// There are more levels of tags, includes or extends than [`TemplateLimits::depth`].
    TooDeep(usize),
    /// The page takes more than [`TemplateLimits::steps`].
    TooManySteps(usize),
    /// The page, or a text made for it, has more bytes than [`TemplateLimits::output`].
    TooMuchOutput(usize),
}

impl fmt::Display for TemplateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TemplateFault::Missing(name) => write!(f, "there is no template `{name}`"),
            TemplateFault::Unreadable(kind) => write!(f, "the file cannot be read: {kind}"),
            TemplateFault::TooLong(limit) => write!(f, "it is longer than {limit} bytes"),
            TemplateFault::Syntax(fault) => fault.fmt(f),
            TemplateFault::Unfit(unfit) => unfit.fmt(f),
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
