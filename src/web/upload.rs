//! Chapter 24: uploads. RFC 7578, section 4; RFC 4918, section 11.5.
//!
//! Somebody must bring the parser its bytes, and put what it finds somewhere: what was typed into
//! memory, and files onto the disk, piece by piece as they arrive. Each file has an owner, a value
//! of our program. When the owner goes, the file goes. And when the whole process is killed, the next
//! one must see what was left, and not take away what a living neighbour is writing.
//!
//! ```text
//!   source -> MultipartReader -> FormData.fields              in memory, counted
//!                 one buffer  -> FormData.files -> Spool      in a folder, until dropped or kept
//! ```

use crate::http::body::BodyError;
use crate::http::refusal::Refusal;
use crate::http::request::Parse;
use crate::http::response::Status;
use crate::web::multipart::{Event, MultipartError, MultipartLimits, MultipartParser, Part};
use std::collections::hash_map::RandomState;
use std::fmt;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Reads the parts of a form from a source of bytes, with one buffer for all of them.
#[derive(Debug)]
pub struct MultipartReader<R> {
    source: R,
    parser: MultipartParser,
    buffer: Vec<u8>,
    /// The bytes that the parser has not used yet.
    unused: Range<usize>,
    /// The bytes that the last event is about.
    used: Range<usize>,
    inside: bool,
}

/// The bytes that are read, and written to a file, in one step.
const BUFFER: usize = 256 * 1024;

/// Buffers that nobody uses. What a thread gives back to the allocator stays in that thread's part
/// of the heap, so forms in turn would leave one buffer in each part.
static SHELF: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// The most buffers that lie there.
const SHELF_ROOM: usize = 4;

fn take_buffer(size: usize) -> Vec<u8> {
    let found = SHELF.lock().unwrap_or_else(PoisonError::into_inner).pop();
    found.filter(|buffer| buffer.len() >= size).unwrap_or_else(|| vec![0; size])
}

impl<R> Drop for MultipartReader<R> {
    fn drop(&mut self) {
        let mut shelf = SHELF.lock().unwrap_or_else(PoisonError::into_inner);
        if shelf.len() < SHELF_ROOM && self.buffer.len() == BUFFER {
            shelf.push(mem::take(&mut self.buffer));
        }
    }
}

impl<R: Read> MultipartReader<R> {
    /// A reader of the form that comes with this `Content-Type`. Errors: as for
    /// [`MultipartParser::new`].
    pub fn new(
        source: R,
        content_type: &[u8],
        limits: MultipartLimits,
    ) -> Result<MultipartReader<R>, UploadError> {
        let parser = MultipartParser::new(content_type, limits)?;
        Ok(MultipartReader {
            source,
            // What the parser does not use at once must fit.
            buffer: take_buffer(BUFFER.max(parser.longest())),
            parser,
            unused: 0..0,
            used: 0..0,
            inside: false,
        })
    }

    /// The head of the next part. `None` after the last one, when the source has been read to its
    /// end. What is left of the part before is skipped.
    pub fn next_part(&mut self) -> Result<Option<Part>, UploadError> {
        self.inside = false;
        loop {
            match self.step()? {
                None => return Ok(None),
                Some(Event::Part(part)) => {
                    self.inside = true;
                    return Ok(Some(part));
                }
                Some(_) => {}
            }
        }
    }

    /// The next bytes of the part, or `None` at its end.
    pub fn read_data(&mut self) -> Result<Option<&[u8]>, UploadError> {
        while self.inside {
            match self.step()? {
                Some(Event::Data) => return Ok(self.buffer.get(self.used.clone())),
                Some(Event::Skipped) => {}
                _ => self.inside = false,
            }
        }
        Ok(None)
    }

    fn step(&mut self) -> Result<Option<Event>, UploadError> {
        loop {
            let unused = self.buffer.get(self.unused.clone()).unwrap_or_default();
            if let Parse::Complete { value, used } = self.parser.advance(unused)? {
                let end = self.unused.start + used;
                self.used = self.unused.start..end;
                self.unused.start = end;
                return Ok(Some(value));
            }
            if self.fill()? == 0 {
                self.parser.finish()?;
                return Ok(None);
            }
        }
    }

    /// Moves the few bytes that are left to the front, and reads more behind them.
    fn fill(&mut self) -> Result<usize, UploadError> {
        if self.unused.start > 0 {
            self.buffer.copy_within(self.unused.clone(), 0);
            self.unused = 0..self.unused.len();
        }
        let room = self.buffer.get_mut(self.unused.end..).unwrap_or_default();
        loop {
            match self.source.read(room) {
                Ok(count) => {
                    let count = count.min(room.len());
                    self.unused.end += count;
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(UploadError::from(error)),
            }
        }
    }
}

/// How much an upload may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadLimits {
    /// What the form itself may hold.
    pub multipart: MultipartLimits,
    /// Bytes of all names, file names, types and values together: they are held in memory.
    pub memory: usize,
}

impl Default for UploadLimits {
    fn default() -> UploadLimits {
        UploadLimits { multipart: MultipartLimits::default(), memory: 1024 * 1024 }
    }
}

/// A form: what was typed, in memory, and what was uploaded, in files. Both in the order sent.
#[derive(Debug, Default)]
pub struct FormData {
    /// Name and value of each field that is no file. A name may occur more than once.
    pub fields: Vec<(String, String)>,
    /// The files. An input that was left empty, so without name and content, is not among them.
    pub files: Vec<UploadedFile>,
}

const ANY_BYTES: &str = "application/octet-stream";

impl FormData {
    /// Reads a whole form to the end of `source`. After an error nothing of it is left anywhere.
    ///
    /// Errors: every [`UploadError`].
    pub fn read(
        source: impl Read,
        content_type: &[u8],
        spool: &Spool,
        limits: &UploadLimits,
    ) -> Result<FormData, UploadError> {
        let mut reader = MultipartReader::new(source, content_type, limits.multipart.clone())?;
        let mut form = FormData::default();
        let mut memory = limits.memory;
        while let Some(part) = reader.next_part()? {
            spend(&mut memory, part.name.len())?;
            let Some(file_name) = part.file_name else {
                let mut value = Vec::new();
                while let Some(data) = reader.read_data()? {
                    spend(&mut memory, data.len())?;
                    value.extend_from_slice(data);
                }
                let value = String::from_utf8_lossy(&value).into_owned();
                form.fields.push((part.name, value));
                continue;
            };
            // RFC 7578, section 4.4: a file without a type is any bytes.
            let content_type = part.content_type.unwrap_or_else(|| ANY_BYTES.to_string());
            spend(&mut memory, file_name.len() + content_type.len())?;
            let file = spool.store(part.name, file_name, content_type, &mut reader)?;
            if file.size > 0 || !file.file_name.is_empty() {
                form.files.push(file);
            }
        }
        Ok(form)
    }
}

fn spend(memory: &mut usize, bytes: usize) -> Result<(), UploadError> {
    let left = memory.checked_sub(bytes);
    *memory = left.ok_or(UploadError::ValuesTooLong)?;
    Ok(())
}

/// A file of a form. It is removed when this value is dropped, unless it was kept.
#[derive(Debug)]
pub struct UploadedFile {
    /// The name of the form's field.
    pub field: String,
    /// The client's name for it, cleaned: text to show, never a path. May be empty.
    pub file_name: String,
    /// The client's word for what it is.
    pub content_type: String,
    /// Its length in bytes.
    pub size: u64,
    path: PathBuf,
    id: String,
    /// While there is a file, its owner is alive.
    _owner: Arc<Owner>,
}

impl UploadedFile {
    /// Where it is, for as long as this value lives.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it into `folder`, under a name of ours, and returns its new path.
    ///
    /// The name owes nothing to the client: no folder, no ending that a server would trust.
    ///
    /// Error: that of the system, and the file is removed. `folder` must be on the file system of
    /// the spool: only there does a file appear whole or not at all.
    pub fn keep(self, folder: &Path) -> io::Result<PathBuf> {
        let kept = folder.join(format!("upload-{}", self.id));
        fs::rename(&self.path, &kept)?;
        Ok(kept)
    }
}

impl Drop for UploadedFile {
    fn drop(&mut self) {
        // One that was kept is not here any more.
        let _ = fs::remove_file(&self.path);
    }
}

/// A folder for files that are arriving. Several processes may share it. Its clones are the same.
///
/// ```text
///   spool-5f3a90cc12de7b04.live      our lock: a socket that this process has bound
///   spool-5f3a90cc12de7b04-17.part   our 17th file
///   spool-90b2cc07714ea3d5-2.part    of another process: its lock tells whether it is alive
///   spool-3c1d07e29ab4f586.new       a lock that is about to get its name, or never got it
/// ```
#[derive(Debug, Clone)]
pub struct Spool(Arc<Owner>);

/// One user of a spool folder.
#[derive(Debug)]
struct Owner {
    folder: PathBuf,
    token: String,
    files: AtomicU64,
    _lock: lock::Lock,
}

impl Spool {
    /// Opens the folder, makes it if need be, and removes what dead processes have left in it.
    ///
    /// Error: that of the system. A path of more than about 75 bytes is too long for a lock.
    pub fn open(folder: &Path) -> io::Result<Spool> {
        fs::create_dir_all(folder)?;
        // Random keys from the system; the standard library gives no other random numbers.
        let token = format!("{:016x}", RandomState::new().build_hasher().finish());
        // No sweeper may see a lock before it is held, so it gets its name afterwards.
        let unnamed = folder.join(format!("spool-{token}.new"));
        let lock = loop {
            let lock = lock::take(&unnamed)?;
            match fs::rename(&unnamed, lock_path(folder, &token)) {
                Ok(()) => break lock,
                // A sweeper was faster. It cannot know that we are alive.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        };
        let owner =
            Owner { folder: folder.to_path_buf(), token, files: AtomicU64::new(1), _lock: lock };
        sweep(folder)?;
        Ok(Spool(Arc::new(owner)))
    }

    /// A new file, empty so far, and its owner, with whom it goes. Whoever writes to it counts the
    /// bytes in the owner's `size`.
    ///
    /// Error: that of the system.
    pub fn create(
        &self,
        field: String,
        file_name: String,
        content_type: String,
    ) -> io::Result<(File, UploadedFile)> {
        let number = self.0.files.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number}", self.0.token);
        let path = self.0.folder.join(format!("spool-{id}.part"));
        // `create_new`: what is there already is not ours.
        let disk = File::create_new(&path)?;
        let _owner = Arc::clone(&self.0);
        Ok((disk, UploadedFile { field, file_name, content_type, size: 0, path, id, _owner }))
    }

    /// Writes the rest of a part into a new file, piece by piece as it arrives.
    fn store<R: Read>(
        &self,
        field: String,
        file_name: String,
        content_type: String,
        reader: &mut MultipartReader<R>,
    ) -> Result<UploadedFile, UploadError> {
        let failed = |error: io::Error| UploadError::Spool(error.kind());
        // From here on it is removed, whatever happens.
        let (mut disk, mut file) = self.create(field, file_name, content_type).map_err(failed)?;
        while let Some(data) = reader.read_data()? {
            disk.write_all(data).map_err(failed)?;
            file.size = file.size.saturating_add(data.len() as u64);
        }
        Ok(file)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = fs::remove_file(lock_path(&self.folder, &self.token));
    }
}

fn lock_path(folder: &Path, token: &str) -> PathBuf {
    folder.join(format!("spool-{token}.live"))
}

/// Removes every file with a name of ours whose owner is dead.
///
/// A process has its lock before its first file and until after its last one, so the order here,
/// first the file's name and then the lock, never meets a living owner without a lock. A lock that
/// has no name yet goes too: its owner, if there is one, takes another.
fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(token) = name.to_str().and_then(owner_of) else {
            continue;
        };
        if !lock::is_held(&lock_path(folder, token)) {
            // It may be gone: others sweep too.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// The token in `spool-TOKEN.live`, `.new` or `-NUMBER.part`; `None` for a name not of ours.
fn owner_of(name: &str) -> Option<&str> {
    let (token, rest) = name.strip_prefix("spool-")?.split_at_checked(16)?;
    let is_token = token.bytes().all(|byte| byte.is_ascii_hexdigit());
    let middle = rest.strip_suffix(".part").unwrap_or_default();
    let number = middle.strip_prefix('-').unwrap_or_default();
    let is_part = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_token && (is_part || rest == ".live" || rest == ".new")).then_some(token)
}

/// A lock that the kernel opens when its process dies, whatever it dies of.
///
/// A process id in the file's name would not do: ids are used again, and in a container each start
/// has the same one.
#[cfg(unix)]
mod lock {
    use std::io::{self, ErrorKind};
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;

    pub type Lock = UnixDatagram;

    pub fn take(path: &Path) -> io::Result<Lock> {
        UnixDatagram::bind(path).map_err(|error| match error.kind() {
            // The system's own words are about the name of a constant.
            ErrorKind::InvalidInput => {
                io::Error::new(error.kind(), "the path is too long for a lock; try a relative one")
            }
            _ => error,
        })
    }

    /// Nobody answers at the socket of a dead process. In doubt it is held.
    pub fn is_held(path: &Path) -> bool {
        let answer = UnixDatagram::unbound().and_then(|socket| socket.connect(path));
        !matches!(
            answer.map_err(|error| error.kind()),
            Err(ErrorKind::ConnectionRefused | ErrorKind::NotFound)
        )
    }
}

/// Without such sockets nothing is ever swept.
#[cfg(not(unix))]
mod lock {
    pub type Lock = std::fs::File;

    pub fn take(path: &std::path::Path) -> std::io::Result<Lock> {
        Lock::create(path)
    }

    pub fn is_held(_path: &std::path::Path) -> bool {
        true
    }
}

/// What is wrong with an upload, and the status that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadError {
    /// The form breaks a rule. The status of that error.
    Form(MultipartError),
    /// Names and values are longer than [`UploadLimits::memory`]. 413.
    ValuesTooLong,
    /// The body itself broke off or broke a rule. The status of that error.
    Body(BodyError),
    /// A file could not be written. 507 if the disk is full, else 500.
    Spool(ErrorKind),
}

impl From<MultipartError> for UploadError {
    fn from(error: MultipartError) -> UploadError {
        UploadError::Form(error)
    }
}

impl From<io::Error> for UploadError {
    /// An error of the source. The body's reader puts its own into an `io::Error`, and here it comes
    /// out again.
    fn from(error: io::Error) -> UploadError {
        UploadError::Body(match error.downcast::<BodyError>() {
            Ok(error) => error,
            Err(error) => BodyError::Source(error.kind()),
        })
    }
}

impl UploadError {
    /// The rule that is broken.
    pub fn rule(&self) -> &'static str {
        match self {
            UploadError::Form(error) => error.rule(),
            UploadError::ValuesTooLong => "RFC 9110, section 15.5.14",
            UploadError::Body(error) => error.rule(),
            UploadError::Spool(_) => "RFC 4918, section 11.5",
        }
    }

    /// The status to answer with.
    pub fn status(&self) -> Status {
        let code = match self {
            UploadError::Form(error) => return error.status(),
            UploadError::ValuesTooLong => 413,
            UploadError::Body(BodyError::Source(ErrorKind::TimedOut)) => 408,
            UploadError::Body(error) => return Refusal::from(error.clone()).status,
            UploadError::Spool(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => 507,
            // The system lets no file of ours grow so long.
            UploadError::Spool(ErrorKind::FileTooLarge) => 507,
            UploadError::Spool(_) => 500,
        };
        Status::new(code).unwrap_or(Status::INTERNAL_SERVER_ERROR)
    }
}

impl fmt::Display for UploadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UploadError::Form(error) => error.fmt(f),
            UploadError::ValuesTooLong => {
                f.write_str("the names and values of the form are too long in all")
            }
            UploadError::Body(error) => error.fmt(f),
            UploadError::Spool(kind) => write!(f, "an uploaded file could not be stored: {kind}"),
        }
    }
}

impl std::error::Error for UploadError {}
