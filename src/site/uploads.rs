//! The upload page: a form with files, and what has become of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::http::date::HttpDate;
use crate::http::headers::{FieldValue, Token};
use crate::web::app::{
    HttpRequest, HttpResponse, IntoResponse, JsonResponse, TemplateResponse, WebError,
};
use crate::web::template::Context;
use crate::web::upload::{FormData, Spool, UploadedFile};
use crate::websocket::sha1::{Sha1, hex};

/// How many fields, how many files and how many stored files a page lists at most.
const MOST_LISTED: usize = 100;
const MOST_STORED: usize = 20;
/// Characters of a value that are shown.
const MOST_SHOWN: usize = 1_000;
/// How many entries of the folder are looked at, to find the newest among them.
const MOST_SEEN: usize = 10_000;

/// The bytes that one look at the page may hash, for files that came without their SHA-1. The next
/// look goes on from there. A file that is longer than this stays without.
const MOST_HASHED: u64 = 64 * 1024 * 1024;
/// How many digests are remembered. A page shows far fewer.
const MOST_REMEMBERED: usize = 1_000;

/// Where uploads go, and what is known of those that are there.
#[derive(Debug)]
pub struct Uploads {
    /// Where they arrive: on the same file system.
    pub spool: Spool,
    /// Bytes of the longest file that is taken by WebSocket.
    pub longest: u64,
    folder: PathBuf,
    /// The SHA-1 of files by their names. Those names are ours and never used twice, so what was
    /// true of a file once is true for ever.
    digests: Mutex<BTreeMap<String, String>>,
}

impl Uploads {
    /// Keeps files in `folder`.
    pub fn new(folder: PathBuf, spool: Spool, longest: u64) -> Uploads {
        Uploads { spool, longest, folder, digests: Mutex::default() }
    }

    /// Keeps a file whose SHA-1 was computed while it came. Returns its new name.
    ///
    /// # Errors
    /// That of the system, and the file is removed.
    pub fn keep(&self, file: UploadedFile, sha1: &str) -> io::Result<String> {
        let name = name_of(&file.keep(&self.folder)?);
        self.remember(&name, sha1);
        Ok(name)
    }

    fn remember(&self, name: &str, sha1: &str) {
        let mut digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        // What is forgotten can be computed again.
        if digests.len() >= MOST_REMEMBERED {
            digests.clear();
        }
        digests.insert(name.to_string(), sha1.to_string());
    }

    /// The SHA-1 of a file. `left` is what may still be read to find it out; without that, and for
    /// a file that cannot be read, there is none.
    fn sha1(&self, path: &Path, size: u64, left: &mut u64) -> Option<String> {
        let name = name_of(path);
        let known = self.digests.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
        if known.is_some() || size > *left {
            return known;
        }
        *left -= size;
        let sha1 = hash(path).ok()?;
        self.remember(&name, &sha1);
        Some(sha1)
    }

    /// What is in the folder, the newest first.
    fn stored(&self) -> Vec<Context> {
        let mut files: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
        // A folder that cannot be read shows nothing: the page is about the upload.
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten().take(MOST_SEEN) {
            let Ok(seen) = entry.metadata() else { continue };
            if seen.is_file() {
                let time = seen.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                files.push((time, entry.path(), seen.len()));
            }
        }
        files.sort_by(|one, other| other.cmp(one));
        files.truncate(MOST_STORED);
        let mut left = MOST_HASHED;
        let row = |(time, path, size): (SystemTime, PathBuf, u64)| {
            let sha1 = self.sha1(&path, size, &mut left);
            let date = HttpDate::from(time).to_string();
            let row = Context::new().with("name", name_of(&path)).with("size", size);
            row.with("date", date).with("sha1", sha1)
        };
        files.into_iter().map(row).collect()
    }

    fn page(&self, websockets: bool) -> Context {
        let context = Context::new().with("here", "/upload/").with("stored", self.stored());
        context.with("websockets", websockets).with("longest", in_words(self.longest))
    }
}

/// A number of bytes as people say it: `16 MiB`, and `1000 bytes` where no unit goes into it.
pub fn in_words(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit && bytes % unit == 0) {
        Some((name, unit)) => format!("{} {name}", bytes / unit),
        None => format!("{bytes} bytes"),
    }
}

fn hash(path: &Path) -> io::Result<String> {
    let (mut file, mut sha1) = (File::open(path)?, Sha1::new());
    let mut block = vec![0; 64 * 1024];
    loop {
        let count = file.read(&mut block)?;
        if count == 0 {
            return Ok(hex(&sha1.finish()));
        }
        sha1.update(block.get(..count).unwrap_or_default());
    }
}

/// The empty form, and what is stored. `websockets` tells whether files can come that way too.
pub fn form(request: HttpRequest, uploads: &Uploads, websockets: bool) -> HttpResponse {
    TemplateResponse("upload.html", uploads.page(websockets)).into_response(request.app)
}

/// Keeps the files of a form, and tells what was in it.
///
/// # Errors
/// Those of the form; or a file cannot be kept.
pub fn receive(
    mut request: HttpRequest,
    uploads: &Uploads,
    websockets: bool,
) -> Result<HttpResponse, WebError> {
    let form = request.form()?;
    let nothing = form.files.is_empty();
    let answer = keep(form, &uploads.folder)?;
    let app = request.app;
    let response = match wants_json(&request) {
        true => JsonResponse(answer).into_response(app),
        false => {
            let context = uploads.page(websockets).with("answer", answer);
            TemplateResponse("upload.html", context).into_response(app)
        }
    };
    let response = response.with(Token::constant("Vary"), FieldValue::constant("Accept"));
    // RFC 9110, section 15.5.21: the form is in order, and yet there is nothing to keep.
    Ok(if nothing { (422, response).into_response(app) } else { response })
}

/// Whether the client names JSON among what it accepts. Browsers do not.
pub fn wants_json(request: &HttpRequest) -> bool {
    let accepts = request.head.headers.members(Token::constant("Accept"));
    let name = |member: &[u8]| member.split(|byte| *byte == b';').next().map(<[u8]>::to_vec);
    let mut names = accepts.filter_map(name);
    names.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"application/json"))
}

fn keep(form: FormData, folder: &Path) -> Result<Context, WebError> {
    let (field_count, file_count) = (form.fields.len(), form.files.len());
    let mut files = Vec::new();
    for file in form.files {
        let listed = files.len() < MOST_LISTED;
        let kept = keep_file(file, folder)?;
        if listed {
            files.push(kept);
        }
    }
    let fields = form.fields.iter().take(MOST_LISTED);
    let fields: Vec<Context> = fields.map(|(name, value)| field(name, value)).collect();
    Ok(Context::new()
        .with("field_count", field_count)
        .with("file_count", file_count)
        .with("more_fields", field_count - fields.len())
        .with("more_files", file_count - files.len())
        .with("fields", fields)
        .with("files", files))
}

fn field(name: &str, value: &str) -> Context {
    let context = Context::new().with("field", shortened(name)).with("size", value.len());
    context.with("value", shortened(value))
}

fn keep_file(file: UploadedFile, folder: &Path) -> Result<Context, WebError> {
    let context = Context::new()
        .with("field", shortened(&file.field))
        .with("name", file.file_name.as_str())
        .with("type", shortened(&file.content_type))
        .with("size", file.size);
    let path = file.keep(folder)?;
    Ok(context.with("stored", name_of(&path)))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => text.get(..end).unwrap_or_default().to_string() + " ...",
        None => text.to_string(),
    }
}
