//! The upload page: a form with files, and what has become of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::http::date::HttpDate;
use crate::http::headers::{FieldValue, Token};
use crate::web::app::{
    HttpRequest, HttpResponse, IntoResponse, JsonResponse, TemplateResponse, WebError,
};
use crate::web::template::Context;
use crate::web::upload::{FormData, UploadedFile};

/// How many fields, how many files and how many stored files a page lists at most.
const MOST_LISTED: usize = 100;
const MOST_STORED: usize = 20;
/// Characters of a value that are shown.
const MOST_SHOWN: usize = 1_000;
/// How many entries of the folder are looked at, to find the newest among them.
const MOST_SEEN: usize = 10_000;

/// The empty form, and what is stored.
pub fn form(request: HttpRequest, folder: &Path) -> HttpResponse {
    let context = Context::new().with("here", "/upload/").with("stored", stored(folder));
    TemplateResponse("upload.html", context).into_response(request.app)
}

/// Keeps the files of a form, and tells what was in it.
///
/// # Errors
/// Those of the form; or a file cannot be kept.
pub fn receive(mut request: HttpRequest, folder: &Path) -> Result<HttpResponse, WebError> {
    let form = request.form()?;
    let nothing = form.files.is_empty();
    let answer = keep(form, folder)?;
    let app = request.app;
    let response = match wants_json(&request) {
        true => JsonResponse(answer).into_response(app),
        false => {
            let context = Context::new().with("here", "/upload/").with("answer", answer);
            let context = context.with("stored", stored(folder));
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

/// What is in the folder, the newest first.
fn stored(folder: &Path) -> Vec<Context> {
    let mut files: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
    // A folder that cannot be read shows nothing: the page is about the upload.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten().take(MOST_SEEN) {
        let Ok(seen) = entry.metadata() else { continue };
        if seen.is_file() {
            files.push((
                seen.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                entry.path(),
                seen.len(),
            ));
        }
    }
    files.sort_by(|one, other| other.cmp(one));
    files.truncate(MOST_STORED);
    let row = |(time, path, size): (SystemTime, PathBuf, u64)| {
        let date = HttpDate::from(time).to_string();
        Context::new().with("name", name_of(&path)).with("size", size).with("date", date)
    };
    files.into_iter().map(row).collect()
}
