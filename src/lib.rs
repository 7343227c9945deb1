//! Glasshouse: a web server you can see through.
//!
//! This file is the table of contents. A folder is a part, a file is a chapter, and a file imports
//! only files above it. Read it beside `TUTORIAL.md`.
#![warn(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

/// Part I. A socket that answers.
pub mod socket {
    pub mod listener; // chapter 1
    pub mod wire; // chapter 2
    pub mod lobby; // chapter 3
    pub mod pool; // chapter 4
    pub mod system; // chapter 5
}

/// Part II. HTTP/1.1.
pub mod http {
    pub mod headers; // chapter 6
    pub mod request; // chapter 7
    pub mod url; // chapter 8
    pub mod body; // chapter 9
    pub mod date; // chapter 10
    pub mod response; // chapter 11
    pub mod refusal; // chapter 12
    pub mod exchange; // chapter 13
    pub mod connection; // chapter 14
    pub mod server; // chapter 15
}

/// Part III. Between server and application.
pub mod gateway {
    pub mod wsgi; // chapter 16
    pub mod asgi; // chapter 17
}

/// Part IV. The application's toolbox.
pub mod web {
    pub mod router; // chapter 18
    pub mod value; // chapter 19
    pub mod syntax; // chapter 20
    pub mod template; // chapter 21
    pub mod form; // chapter 22
    pub mod multipart; // chapter 23
    pub mod upload; // chapter 24
    pub mod files; // chapter 25
    pub mod app; // chapter 26
    pub mod serve; // chapter 27
}

/// Part V. A conversation.
pub mod websocket {
    pub mod sha1; // chapter 28
    pub mod base64; // chapter 29
    pub mod handshake; // chapter 30
    pub mod frame; // chapter 31
    pub mod message; // chapter 32
    pub mod conversation; // chapter 33
    pub mod session; // chapter 34
    pub mod consumer; // chapter 35
}

/// Part VI. Running it.
pub mod running {
    pub mod access_log; // chapter 36
    pub mod prefork; // chapter 37
    pub mod command_line; // chapter 38
    pub mod proxy; // chapter 39
    pub mod lab; // chapter 40
}

/// Part VII. Real applications.
pub mod python {
    pub mod lane; // chapter 41
    pub mod worker; // chapter 42
    pub mod wsgi_host; // chapter 43
    pub mod asgi_host; // chapter 44
}

/// Part VIII. The site that shows it all.
// A chapter of it has several files, and the last of them says its number.
pub mod site {
    pub mod contents;
    pub mod book; // chapter 45
    pub mod figures;
    pub mod compare;
    pub mod uploads;
    pub mod workshop;
    pub mod views; // chapter 46
    pub mod inspector;
    pub mod consumers; // chapter 47
    pub mod terminal;
    pub mod temporary;
    pub mod program; // chapter 48
}

/// The example in README.md is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
