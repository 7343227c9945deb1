//! Chapter 19: values in a page. WHATWG HTML Standard, section 13.3, for what is escaped.
//!
//! A page shows values that strangers typed. Glue them into HTML, and a stranger who calls himself
//! `<script>` writes your page. To escape by hand is forgotten in one place of a hundred. So here a
//! text remembers who wrote it, and whoever shows it can ask.
//!
//! ```text
//!   Text("<b>")     anybody wrote it         shown as &lt;b&gt;
//!   Safe("<b>")     the program wrote it     shown as <b>
//! ```

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::mem;

use crate::http::url::percent_encode;

/// What a page can be given, or a script.
///
/// To copy, compare or print (`{:?}`) a value takes stack for each level of lists and maps in it, as
/// with every tree in Rust. To render and to drop one does not.
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

impl Drop for Value {
    /// A value inside a value, and so on some 300 times, would overflow a small stack if the compiler
    /// dropped it, level by level. Here whatever is inside waits in a list.
    fn drop(&mut self) {
        let mut waiting = Vec::new();
        self.empty_into(&mut waiting);
        while let Some(mut value) = waiting.pop() {
            value.empty_into(&mut waiting);
        }
    }
}

impl Value {
    /// Moves what is inside to the end of the list.
    fn empty_into(&mut self, waiting: &mut Vec<Value>) {
        match self {
            Value::List(items) => waiting.append(items),
            Value::Map(map) => waiting.extend(mem::take(map).into_values()),
            _ => {}
        }
    }

    /// Whether it counts as true in a condition: everything but nothing, false, zero and the empty.
    pub fn is_true(&self) -> bool {
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

    /// The value as it is printed, before it is escaped. Error: it is a list or a map.
    pub fn text(&self) -> Result<Cow<'_, str>, Unfit> {
        match self {
            Value::Nothing => Ok(Cow::Borrowed("")),
            Value::Bool(truth) => Ok(Cow::Owned(truth.to_string())),
            Value::Integer(number) => Ok(Cow::Owned(number.to_string())),
            Value::Float(number) => Ok(Cow::Owned(number.to_string())),
            Value::Text(text) | Value::Safe(text) => Ok(Cow::Borrowed(text)),
            Value::List(_) => Err(Unfit { wanted: "text or a number", found: "a list" }),
            Value::Map(_) => Err(Unfit { wanted: "text or a number", found: "a map" }),
        }
    }

    /// The value as a number, if it is one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Integer(number) => Some(*number as f64),
            Value::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// How two values stand to each other, or `None` if they cannot be compared: a number and a
    /// text, or lists and maps.
    pub fn compare(&self, other: &Value) -> Option<Ordering> {
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

    /// Characters of a text, members of a list or map; 0 for all else.
    pub fn length(&self) -> usize {
        match self {
            Value::Text(text) | Value::Safe(text) => text.chars().count(),
            Value::List(items) => items.len(),
            Value::Map(map) => map.len(),
            _ => 0,
        }
    }
}

/// The names that a page may use, and their values.
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

/// A text inside an address, where `/`, `?` and `&` would mean something.
// unreserved = ALPHA / DIGIT / "-" / "." / "_" / "~"        RFC 3986, section 2.3
pub fn url_encode(text: &str) -> String {
    percent_encode(text, b"-._~")
}

/// A value of one kind where another is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// What is wanted.
    pub wanted: &'static str,
    /// What the value is.
    pub found: &'static str,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was expected, but here is {}", self.wanted, self.found)
    }
}

impl std::error::Error for Unfit {}
