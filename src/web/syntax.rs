//! Chapter 20: the syntax of templates. Django's language, its grammar written as in RFC 5234.
//!
//! A page is mostly fixed text with gaps in it. To fill the gaps by replacing text goes wrong as
//! soon as a value looks like a gap, and it knows no choice and no loop. So the page is read first,
//! once, and becomes a tree. Values meet the tree later, and are never read as a template.
//!
//! ```text
//!   source   <p>Hello {{ name }}{% if admin %}!{% endif %}
//!   tokens   Text      Output    Tag          T Tag
//!   nodes    Text, Output(name), If(admin: [Text])
//! ```
//!
//! | written | means |
//! |---|---|
//! | `{{ user.name }}` `{{ rows.0 }}` | a value |
//! | `{{ title\|default:"none"\|upper }}` | a value, sent through filters |
//! | `{% if a and not b == 3 %} {% elif c %} {% else %} {% endif %}` | a choice |
//! | `{% for row in rows %} {% empty %} {% endfor %}` | a loop, and what to show without rows |
//! | `{% include "row.html" %}` | that template, here |
//! | `{% extends "base.html" %}` `{% block title %} {% endblock %}` | base, with these blocks |
//! | `{# words #}` | nothing |
//!
//! A mistake is found here, on its line, before the first visitor comes: also in the branch of an
//! `if` that is hardly ever taken.

use crate::web::value::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::mem;

/// A template that has been parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// The template that this one extends, and the line that says so.
    pub extends: Option<(String, usize)>,
    /// What stands in each block. It lies apart from the nodes, for a template that extends this
    /// one may bring its own.
    pub blocks: BTreeMap<String, Vec<Node>>,
    /// All that stands outside the blocks.
    pub nodes: Vec<Node>,
}

/// A part of a template, and the line where it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Counted from 1.
    pub line: usize,
    /// What it is.
    pub kind: Kind,
}

/// What a part of a template is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// It goes into the page as it is.
    Text(String),
    /// The place of a value.
    Output(Expression),
    /// A choice: the first part whose condition holds.
    If(Vec<Part>),
    /// A loop.
    For(For),
    /// The template of that name, here.
    Include(String),
    /// The block of that name, here.
    Block(String),
}

/// One way through an `if`, a `for` or a `block`.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The line of its tag.
    pub line: usize,
    /// When to go this way; none after `else` and `empty`.
    pub condition: Option<Condition>,
    /// What is on the way.
    pub nodes: Vec<Node>,
}

/// `{% for name in list %} nodes {% empty %} empty {% endfor %}`
#[derive(Debug, Clone, PartialEq)]
pub struct For {
    /// What a member of the list is called inside.
    pub name: String,
    /// The path to the list.
    pub list: Vec<String>,
    /// Shown for each member.
    pub nodes: Vec<Node>,
    /// Shown if there is none.
    pub empty: Vec<Node>,
}

/// True if in one of the lists every test is true. `and` binds closer than `or`, and there are no
/// parentheses, so a condition has no depth.
pub type Condition = Vec<Vec<Test>>;

/// A value that is true, or two that compare so.
#[derive(Debug, Clone, PartialEq)]
pub struct Test {
    /// After an odd number of `not`.
    pub negated: bool,
    /// The value.
    pub left: Expression,
    /// The one to compare it with, and how.
    pub right: Option<(Operator, Expression)>,
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "OPERATORS shows how each is written")]
pub enum Operator {
    Equal,
    NotEqual,
    LessOrEqual,
    GreaterOrEqual,
    Less,
    Greater,
}

// Of two that begin alike the longer one comes first.
const OPERATORS: &[(&str, Operator)] = &[
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("<", Operator::Less),
    (">", Operator::Greater),
];

/// A value and the filters that it goes through, from left to right.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    /// The value.
    pub source: Source,
    /// The filters.
    pub filters: Vec<Filter>,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// From the template: a text in quotes, `true`, `false`, or a number.
    Literal(Value),
    /// From the program: a name, and the names and numbers behind its dots.
    Path(Vec<String>),
}

/// What makes a new value of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// `default:x`: x for what is not true.
    Default(Source),
    /// `join:", "`: the members of a list, with this between them.
    Join(Source),
    /// `floatformat:1`: a number with so many digits after the point.
    FloatFormat(Source),
    /// `upper`: in capital letters.
    Upper,
    /// `lower`: in small letters.
    Lower,
    /// `length`: how many characters or members.
    Length,
    /// `urlencode`: for a value inside an address.
    UrlEncode,
    /// `safe`: it is HTML that the program made.
    Safe,
}

impl Template {
    /// Parses a template in which at most `depth` tags are open at once.
    ///
    /// # Errors
    /// Every [`SyntaxError`].
    pub fn parse(source: &str, depth: usize) -> Result<Template, SyntaxError> {
        let mut parser = Parser {
            tokens: Tokens::of(source),
            depth,
            extends: None,
            blocks: BTreeMap::new(),
            nodes: Vec::new(),
            levels: Vec::new(),
        };
        let parsed = parser.file();
        parsed.map_err(|fault| SyntaxError { line: parser.tokens.start, fault })?;
        Ok(Template { extends: parser.extends, blocks: parser.blocks, nodes: parser.nodes })
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

    fn take(&mut self) -> Result<Token<'a>, SyntaxFault> {
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
        let (text, rest) = self.rest.split_at(text_length(self.rest));
        self.rest = rest;
        self.line += text.matches('\n').count();
        Ok(Token::Text(text))
    }

    /// Ends a token at its closing mark. Only a comment may go over several lines: a mark that was
    /// forgotten is missed on its own line, and does not swallow half a page.
    fn cut(&mut self, inner: &'a str, close: &str) -> Result<&'a str, SyntaxFault> {
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
fn words(inner: &str) -> Result<Vec<&str>, SyntaxFault> {
    let mut words = Vec::new();
    let mut rest = inner.trim_start();
    while let Some(first) = rest.chars().next() {
        let mut operators = OPERATORS.iter().map(|(name, _)| *name);
        let length = if matches!(first, '"' | '\'') {
            let closing = rest.match_indices(first).nth(1);
            closing.ok_or_else(|| expected(first, "the end of the tag"))?.0 + 1
        } else if let Some(operator) = operators.find(|operator| rest.starts_with(operator)) {
            operator.len()
        } else {
            let is_end = |c: char| c.is_whitespace() || "\"'|:=!<>".contains(c);
            // `|` and `:` are words of their own. So is a lone `=`, which no rule knows.
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
    fn file(&mut self) -> Result<(), SyntaxFault> {
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

    fn tag(&mut self, line: usize, words: &[&str]) -> Result<(), SyntaxFault> {
        match words {
            ["if", words @ ..] => self.open(line, Open::If, Some(condition(words)?)),
            ["for", name, "in", list] if is_name(name) => {
                self.open(line, Open::For(name.to_string(), path(list)?), None)
            }
            ["block", name] if is_name(name) => {
                if self.blocks.insert(name.to_string(), Vec::new()).is_some() {
                    return Err(SyntaxFault::Misplaced(TWICE));
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

    fn add(&mut self, line: usize, kind: Kind) -> Result<(), SyntaxFault> {
        let is_lost = !kind.is_blank() && !matches!(&kind, Kind::Block(_));
        if self.is_outside() && is_lost {
            return Err(SyntaxFault::Misplaced(OUTSIDE));
        }
        self.nodes.push(Node { line, kind });
        Ok(())
    }

    fn is_outside(&self) -> bool {
        self.extends.is_some() && self.levels.is_empty()
    }

    fn extend(&mut self, line: usize, name: String) -> Result<(), SyntaxFault> {
        let is_first = self.nodes.iter().all(|node| node.kind.is_blank());
        if !is_first || !self.levels.is_empty() || self.extends.is_some() {
            return Err(SyntaxFault::Misplaced(LATE));
        }
        self.extends = Some((name, line));
        Ok(())
    }

    fn open(
        &mut self,
        line: usize,
        tag: Open,
        condition: Option<Condition>,
    ) -> Result<(), SyntaxFault> {
        if self.levels.len() == self.depth {
            return Err(SyntaxFault::TooDeep(self.depth));
        }
        if self.is_outside() && !matches!(tag, Open::Block(_)) {
            return Err(SyntaxFault::Misplaced(OUTSIDE));
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
    ) -> Result<(), SyntaxFault> {
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

    fn close(&mut self, words: &[&str]) -> Result<(), SyntaxFault> {
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

    fn not_ended(&self, found: &str) -> SyntaxFault {
        expected(format!("{{% {} %}} for the tag of line {}", self.end(), self.line), found)
    }
}

/// The error of a tag that is not written in one of the forms that it has.
fn unclear(words: &[&str]) -> SyntaxFault {
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

fn template_name(word: &str) -> Result<String, SyntaxFault> {
    let name = unquoted(word).map(str::to_string);
    name.ok_or_else(|| expected("the name of a template, in quotes,", word))
}

fn unquoted(word: &str) -> Option<&str> {
    let quote = word.chars().next().filter(|first| matches!(first, '"' | '\''))?;
    word.strip_prefix(quote)?.strip_suffix(quote)
}

// condition = all *( "or" all )
// all       = test *( "and" test )
fn condition(words: &[&str]) -> Result<Condition, SyntaxFault> {
    let mut any = Vec::new();
    for part in words.split(|word| *word == "or") {
        let all = part.split(|word| *word == "and").map(test);
        any.push(all.collect::<Result<_, _>>()?);
    }
    Ok(any)
}

// test = *"not" expression [ operator expression ]
fn test(mut words: &[&str]) -> Result<Test, SyntaxFault> {
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

// expression = source *( "|" filter )
fn expression(words: &[&str]) -> Result<Expression, SyntaxFault> {
    let mut parts = words.split(|word| *word == "|");
    let source = source(parts.next().unwrap_or_default())?;
    let filters = parts.map(filter).collect::<Result<_, _>>()?;
    Ok(Expression { source, filters })
}

// filter = name [ ":" source ]
fn filter(words: &[&str]) -> Result<Filter, SyntaxFault> {
    Ok(match words {
        ["default", ":", value @ ..] => Filter::Default(source(value)?),
        ["join", ":", value @ ..] => Filter::Join(source(value)?),
        ["floatformat", ":", value @ ..] => Filter::FloatFormat(source(value)?),
        ["upper"] => Filter::Upper,
        ["lower"] => Filter::Lower,
        ["length"] => Filter::Length,
        ["urlencode"] => Filter::UrlEncode,
        ["safe"] => Filter::Safe,
        other => return Err(expected(filter_form(other), quoted(other))),
    })
}

/// How a filter of that name is written.
fn filter_form(words: &[&str]) -> String {
    match words.first() {
        Some(name @ (&"default" | &"join" | &"floatformat")) => format!("`{name}:VALUE`"),
        Some(name @ (&"upper" | &"lower" | &"length" | &"urlencode" | &"safe")) => {
            format!("`{name}` alone")
        }
        _ => "a filter".to_string(),
    }
}

fn quoted(words: &[&str]) -> String {
    if words.is_empty() { "nothing".to_string() } else { format!("`{}`", words.join(" ")) }
}

// source = quoted / "true" / "false" / number / path
fn source(words: &[&str]) -> Result<Source, SyntaxFault> {
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
    // The standard library also reads `1e9`, `.5`, `inf` and `nan`.
    let digits = word.strip_prefix('-').unwrap_or(word);
    if !digits.split('.').all(is_digits) {
        return None;
    }
    let whole = word.parse().ok().map(Value::Integer);
    whole.or_else(|| word.parse().ok().map(Value::Float))
}

// path = name *( "." ( name / 1*DIGIT ) )
fn path(word: &str) -> Result<Vec<String>, SyntaxFault> {
    let mut path: Vec<String> = Vec::new();
    for part in word.split('.') {
        let is_index = !path.is_empty() && is_digits(part);
        if !is_index && !is_name(part) {
            return Err(expected("a value", quoted(&[word])));
        }
        path.push(part.to_string());
    }
    Ok(path)
}

fn is_digits(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

// name = ( ALPHA / "_" ) *( ALPHA / DIGIT / "_" )
fn is_name(word: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_reserved = matches!(word, "" | "and" | "or" | "not" | "in" | "true" | "false");
    !is_reserved && !word.starts_with(|c: char| c.is_ascii_digit()) && word.bytes().all(is_good)
}

/// What is wrong with a template, and on which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub fault: SyntaxFault,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.fault)
    }
}

impl std::error::Error for SyntaxError {}

/// What can be wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyntaxFault {
    /// The grammar wants one thing, and another is there.
    Expected {
        /// What should be there.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// A tag stands where it means nothing; the sentence says why.
    Misplaced(&'static str),
    /// More tags are open than are allowed.
    TooDeep(usize),
}

fn expected(wanted: impl fmt::Display, found: impl fmt::Display) -> SyntaxFault {
    // A word can be as long as its file.
    let found = found.to_string().chars().take(60).collect();
    SyntaxFault::Expected { wanted: wanted.to_string(), found }
}

impl fmt::Display for SyntaxFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyntaxFault::Expected { wanted, found } => {
                write!(f, "{wanted} was expected, but here is {found}")
            }
            SyntaxFault::Misplaced(why) => f.write_str(why),
            SyntaxFault::TooDeep(limit) => write!(f, "more than {limit} tags are open"),
        }
    }
}
