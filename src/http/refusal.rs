//! Chapter 12: the refusal. RFC 9110, sections 15.5 and 15.6.
//!
//! The files above found out what can be wrong with a request. They return errors, and an error is
//! not yet an answer. This file holds the one table that turns each of them into a status, and
//! an answer that says what is wrong, which rule says so, and where to read about it:
//!
//! ```text
//!  HTTP/1.1 400 Bad Request
//!
//!  400 Bad Request
//!
//!  A line ends in LF without CR.
//!  The rule: RFC 9112, section 2.2.
//!  Explained in: TUTORIAL.md, ch 7 request.
//! ```

use std::fmt;
use std::io;

use crate::http::body::BodyError;
use crate::http::headers::{FieldValue, RETRY_AFTER};
use crate::http::request::HeadError;
use crate::http::response::{Response, Status};
use crate::http::url::UrlError;
use crate::socket::wire::chapter_of;

/// Why a request is not answered as the client wished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status to answer with.
    pub status: Status,
    /// What is wrong: a sentence without its full stop.
    pub problem: String,
    /// The rule, as `RFC 9112, section 6.3`.
    pub rule: &'static str,
    /// The chapter that explains it, by its module's name.
    pub module: &'static str,
}

impl From<HeadError> for Refusal {
    fn from(error: HeadError) -> Refusal {
        let status = match error {
            HeadError::RequestLineTooLong => Status::URI_TOO_LONG,
            HeadError::FieldLineTooLong | HeadError::HeadTooLong | HeadError::TooManyFields => {
                Status::FIELDS_TOO_LARGE
            }
            HeadError::UnsupportedVersion => Status::VERSION_NOT_SUPPORTED,
            _ => Status::BAD_REQUEST,
        };
        let module = if matches!(error, HeadError::Field(_)) { "headers" } else { "request" };
        Refusal { status, problem: error.to_string(), rule: error.rule(), module }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Refusal {
        let status = match error {
            BodyError::TooLarge => Status::CONTENT_TOO_LARGE,
            BodyError::TrailersTooLong => Status::FIELDS_TOO_LARGE,
            BodyError::UnknownCoding => Status::NOT_IMPLEMENTED,
            _ => Status::BAD_REQUEST,
        };
        Refusal { status, problem: error.to_string(), rule: error.rule(), module: "body" }
    }
}

impl From<UrlError> for Refusal {
    fn from(error: UrlError) -> Refusal {
        let status = Status::BAD_REQUEST;
        Refusal { status, problem: error.to_string(), rule: error.rule(), module: "url" }
    }
}

impl Refusal {
    /// The head did not arrive in time.
    pub fn slow_head() -> Refusal {
        Refusal {
            status: Status::REQUEST_TIMEOUT,
            problem: "the request head did not arrive in time".to_string(),
            rule: "RFC 9110, section 15.5.9",
            module: "lobby",
        }
    }

    /// The body came too slowly.
    pub fn slow_body() -> Refusal {
        Refusal {
            status: Status::REQUEST_TIMEOUT,
            problem: "the request body came too slowly".to_string(),
            rule: "RFC 9110, section 15.5.9",
            module: "lobby",
        }
    }

    /// All threads are busy, or others need this place more.
    pub fn full_house() -> Refusal {
        Refusal {
            status: Status::SERVICE_UNAVAILABLE,
            problem: "all threads are busy; please try again".to_string(),
            rule: "RFC 9110, section 15.6.4",
            module: "pool",
        }
    }

    /// The Expect field asks for something other than 100-continue.
    pub fn unknown_expectation() -> Refusal {
        Refusal {
            status: Status::EXPECTATION_FAILED,
            problem: "the only expectation this server knows is 100-continue".to_string(),
            rule: "RFC 9110, section 10.1.1",
            module: "exchange",
        }
    }

    /// The application failed. What exactly is wrong is not the client's business: it goes to the
    /// log, by way of `cause`.
    pub fn application_failed(cause: &str) -> Refusal {
        Refusal {
            status: Status::INTERNAL_SERVER_ERROR,
            problem: cause.to_string(),
            rule: "RFC 9110, section 15.6.1",
            module: "exchange",
        }
    }

    /// For an error that came out of a handler. Also for a timeout: it may be that of a database,
    /// and 408 would blame the client, which may then try again.
    pub fn from_handler(error: &io::Error) -> Refusal {
        Refusal::application_failed(&format!("the application failed: {error}"))
    }

    /// The answer that explains it. It is for a reader who made the request by hand.
    pub fn response(&self) -> Response {
        let mut text = format!("{}\n\n", self.status);
        if self.status == Status::INTERNAL_SERVER_ERROR {
            text += "The server could not answer this. It is not your fault; the log has more.\n";
        } else {
            text += &format!("{}.\n", capitalized(&self.problem));
        }
        let chapter = chapter_of(self.module);
        text += &format!("The rule: {}.\nExplained in: TUTORIAL.md, {chapter}.\n", self.rule);
        let response = Response::text(self.status, text);
        if self.status == Status::SERVICE_UNAVAILABLE {
            // In seconds. RFC 9110, section 10.2.3.
            return response.with(RETRY_AFTER, FieldValue::constant("2"));
        }
        response
    }
}

fn capitalized(sentence: &str) -> String {
    let mut letters = sentence.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

/// One line for the log. The words of a failed application may hold what a client has sent: a line
/// end would forge a second line, an escape byte would speak to the terminal.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let problem = self.problem.replace(char::is_control, "?");
        write!(f, "{}: {problem} ({})", self.status, self.rule)
    }
}
