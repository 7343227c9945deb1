//! Chapter 24: uploads.

mod support;

use glasshouse::http::body::{BodyError, BodyLimits, BodyReader, Framing};
use glasshouse::http::request::Parse;
use glasshouse::web::multipart::{Event, MultipartError, MultipartLimits, MultipartParser};
use glasshouse::web::upload::{FormData, MultipartReader, Spool, UploadError, UploadLimits};
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::form_cases::{FORM, XX, file_form, named_form};
use support::mutator::Mutator;
use support::watchdog::watchdog;

// The reader.

/// A part as a test sees it: its name, the file's name, the data.
type Seen = (String, Option<String>, Vec<u8>);

/// What the parser makes of the whole body.
fn parsed(body: &[u8]) -> Result<Vec<Seen>, MultipartError> {
    let mut parser = MultipartParser::new(XX.as_bytes(), MultipartLimits::default())?;
    let mut seen: Vec<Seen> = Vec::new();
    let mut start = 0;
    while let Parse::Complete { value, used } = parser.advance(&body[start..])? {
        match value {
            Event::Part(part) => seen.push((part.name, part.file_name, Vec::new())),
            Event::Data => {
                let (_, _, data) = seen.last_mut().expect("data belongs to a part");
                data.extend_from_slice(&body[start..start + used]);
            }
            Event::Skipped | Event::PartEnd => {}
        }
        start += used;
    }
    parser.finish()?;
    Ok(seen)
}

/// A source that gives at most so many bytes at a time, and is interrupted before each.
struct Dribble<'a> {
    rest: &'a [u8],
    most: usize,
    interrupted: bool,
}

fn dribble(rest: &[u8], most: usize) -> Dribble<'_> {
    let interrupted = false;
    Dribble { rest, most, interrupted }
}

impl Read for Dribble<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(ErrorKind::Interrupted.into());
        }
        let room = self.most.min(out.len());
        self.rest.read(&mut out[..room])
    }
}

fn read_parts(source: impl Read) -> Result<Vec<Seen>, UploadError> {
    let limits = MultipartLimits::default();
    let mut reader = MultipartReader::new(source, XX.as_bytes(), limits)?;
    let mut seen = Vec::new();
    while let Some(part) = reader.next_part()? {
        let mut data = Vec::new();
        while let Some(piece) = reader.read_data()? {
            assert!(!piece.is_empty());
            data.extend_from_slice(piece);
        }
        assert_eq!(reader.read_data(), Ok(None), "the end stays the end");
        seen.push((part.name, part.file_name, data));
    }
    assert_eq!(reader.next_part(), Ok(None), "the end stays the end");
    Ok(seen)
}

/// Through the reader, in reads of several sizes, it is what the parser makes of the whole.
#[track_caller]
fn check_reads(body: &[u8], sizes: &[usize]) {
    let whole = parsed(body).map_err(UploadError::Form);
    for most in sizes {
        let read = read_parts(dribble(body, *most));
        assert_eq!(read, whole, "{most} at a time: {}", body.escape_ascii());
    }
}

#[test]
fn a_form_is_the_same_however_it_arrives() {
    let sizes = [1, 2, 3, 7, 64, 1024];
    check_reads(FORM, &sizes);
    for cut in 0..FORM.len() {
        check_reads(&FORM[..cut], &sizes);
    }
    let large = file_form(&b"\r\n--X".repeat(200_000));
    check_reads(&large, &[10_000, 1 << 20]);
    let mut mutator = Mutator::new(24);
    for _ in 0..5_000 {
        let mutant = mutator.mutate(FORM);
        check_reads(&mutant, &[1, 1 << 20]);
    }
}

#[test]
fn a_part_that_nobody_reads_is_skipped() {
    let mut reader =
        MultipartReader::new(FORM, XX.as_bytes(), MultipartLimits::default()).expect("a form");
    assert_eq!(reader.read_data(), Ok(None), "before the first part there is none");
    assert_eq!(reader.next_part().expect("a form").expect("a part").name, "who");
    assert_eq!(reader.next_part().expect("a form").expect("a part").name, "photo");
    assert!(reader.read_data().expect("a form").is_some());
    assert_eq!(reader.next_part(), Ok(None));
    let source = Fails(&FORM[..60], || Err(ErrorKind::TimedOut.into()));
    let mut reader =
        MultipartReader::new(source, XX.as_bytes(), MultipartLimits::default()).expect("a form");
    assert!(reader.next_part().expect("a form").is_some());
    assert!(reader.next_part().is_err());
    assert_eq!(reader.read_data(), Ok(None), "after an error there is none");
}

#[test]
fn a_source_that_claims_more_than_there_is_room_for_breaks_nothing() {
    let mut claims = [usize::MAX, 0].into_iter();
    // It must not panic. What stood in the room before is anybody's form, so any result will do.
    drop(read_parts(Fails(&FORM[..60], || Ok(claims.next().unwrap_or_default()))));
}

#[test]
fn a_head_without_an_end_is_refused_before_it_fills_the_buffer() {
    let endless = [b"--XX\r\nX: ".as_slice(), &[b'h'; 1 << 20]].concat();
    let long = UploadError::Form(MultipartError::HeadTooLong);
    assert_eq!(read_parts(endless.as_slice()), Err(long));
    // A limit above the buffer's size needs a larger buffer.
    let part_head = 1 << 19;
    let limits = MultipartLimits { part_head, ..Default::default() };
    let head = format!(
        "--XX\r\nContent-Disposition: form-data; name=a\r\nX: {}\r\n\r\n1\r\n--XX--",
        "h".repeat(400_000)
    );
    let mut reader = MultipartReader::new(head.as_bytes(), XX.as_bytes(), limits).expect("a form");
    assert!(reader.next_part().expect("it fits").is_some());
}

#[test]
fn forms_in_turn_share_a_buffer_whichever_thread_reads_them() {
    const NAME: &str = "forms_in_turn_share_a_buffer_whichever_thread_reads_them";
    if std::env::var_os(CHILD).is_none() {
        // Alone, because other tests take buffers too.
        let folder = Folder::new();
        let mut alone = child(NAME, &folder.0, "");
        assert!(alone.wait().expect("a child").success());
        return;
    }
    let address = || {
        let limits = MultipartLimits::default();
        let mut reader = MultipartReader::new(FORM, XX.as_bytes(), limits).expect("a form");
        reader.next_part().expect("a form");
        reader.read_data().expect("a form").expect("data").as_ptr().addr()
    };
    let here = address();
    let there = std::thread::spawn(move || (address(), address()));
    assert_eq!(there.join().expect("no panic"), (here, here));
}

// Files.

/// A folder of its own for one test. Short, because the path of a lock must be short.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("g24-{}-{number}", std::process::id());
        Folder(std::env::temp_dir().join(name))
    }

    fn spool(&self) -> Spool {
        Spool::open(&self.0).expect("a spool")
    }

    /// The names in it that end like this, in order.
    fn names(&self, ending: &str) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("the folder");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
            .filter(|name| name.ends_with(ending))
            .collect();
        names.sort();
        names
    }

    /// Nothing but locks is in it.
    #[track_caller]
    fn assert_empty(&self) {
        assert_eq!(self.names(""), self.names(".live"));
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn read_form(source: impl Read, spool: &Spool) -> Result<FormData, UploadError> {
    FormData::read(source, XX.as_bytes(), spool, &UploadLimits::default())
}

#[test]
fn values_go_to_memory_and_files_to_the_spool_in_the_order_sent() {
    let folder = Folder::new();
    let spool = folder.spool();
    let mut body = Vec::new();
    for (disposition, data) in [
        ("name=a", "1"),
        ("name=f; filename=x", "first"),
        ("name=a", ""),
        ("name=f; filename=x\r\nContent-Type: text/plain", "second"),
        ("name=f; filename=empty", ""),
        ("name=f; filename=\"\"", ""),
        ("name=f; filename=..", "."),
        ("name=a", "1\r\n2"),
    ] {
        let head = format!("\r\n--XX\r\nContent-Disposition: form-data; {disposition}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(data.as_bytes());
    }
    body.extend_from_slice(b"\r\n--XX--\r\n");
    for most in [1, 1000] {
        let form = read_form(dribble(&body, most), &spool).expect("a form");
        let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
        assert_eq!(form.fields, [pair("a", "1"), pair("a", ""), pair("a", "1\r\n2")]);
        let files: Vec<(&str, &str, &str, u64)> = form
            .files
            .iter()
            .map(|file| (&*file.field, &*file.file_name, &*file.content_type, file.size))
            .collect();
        let any = "application/octet-stream";
        let want = [
            ("f", "x", any, 5),
            ("f", "x", "text/plain", 6),
            ("f", "empty", any, 0),
            // The input left empty is no file; this one has data, and no name that we would show.
            ("f", "", any, 1),
        ];
        assert_eq!(files, want);
        let content = |at: usize| fs::read(form.files[at].path()).expect("the file");
        assert_eq!([content(0), content(1)], [b"first".to_vec(), b"second".to_vec()]);
        assert_eq!([content(2), content(3)], [b"".to_vec(), b".".to_vec()]);
        assert_eq!(folder.names(".part").len(), 4);
        drop(form);
        folder.assert_empty();
    }
}

#[test]
fn what_is_held_in_memory_is_bounded() {
    let folder = Folder::new();
    let spool = folder.spool();
    // Names, file names, types and values count; the data of files does not.
    let counted = "field".len() + "value".len() + "file".len() + "n".len() + "a/b".len();
    let body = b"--XX\r\nContent-Disposition: form-data; name=field\r\n\r\nvalue\r\n\
        --XX\r\nContent-Disposition: form-data; name=file; filename=n\r\nContent-Type: a/b\r\n\r\n\
        many bytes\r\n--XX--";
    let limits = |memory| UploadLimits { memory, ..Default::default() };
    let read = |limits| FormData::read(body.as_slice(), XX.as_bytes(), &spool, &limits);
    assert!(read(limits(counted)).is_ok());
    for memory in 0..counted {
        let error = read(limits(memory)).expect_err("over the limit");
        assert_eq!((error.clone(), error.status().code()), (UploadError::ValuesTooLong, 413));
    }
    for (value, fits) in [((1 << 20) - 1, true), (1 << 20, false)] {
        let value = "v".repeat(value);
        let mib =
            format!("--XX\r\nContent-Disposition: form-data; name=a\r\n\r\n{value}\r\n--XX--");
        assert_eq!(read_form(mib.as_bytes(), &spool).is_ok(), fits, "with one byte of name");
    }
    folder.assert_empty();
}

#[test]
fn a_kept_file_stays_and_has_a_name_of_ours() {
    let folder = Folder::new();
    let spool = folder.spool();
    let safe = folder.0.join("safe");
    fs::create_dir(&safe).expect("a folder");
    let body = named_form("form-data; name=f; filename=\"../../evil.php\"");
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut form = read_form(body.as_slice(), &spool).expect("a form");
        let file = form.files.pop().expect("a file");
        assert_eq!(file.file_name, "evil.php");
        let spooled = file.path().to_path_buf();
        let path = file.keep(&safe).expect("it is kept");
        assert!(!spooled.exists());
        assert_eq!(path.parent(), Some(safe.as_path()));
        assert_eq!(path.extension(), None);
        assert_eq!(fs::read(&path).expect("the file"), b"v");
        kept.push(path);
    }
    assert_ne!(kept[0], kept[1]);
    // One that cannot be kept is removed.
    let mut form = read_form(body.as_slice(), &spool).expect("a form");
    let file = form.files.pop().expect("a file");
    assert!(file.keep(&folder.0.join("nowhere")).is_err());
    assert_eq!(folder.names(".part"), [""; 0]);
    // Kept files outlive the spool, and no start sweeps them, not even in the same folder.
    let mut form = read_form(body.as_slice(), &spool).expect("a form");
    kept.push(form.files.pop().expect("a file").keep(&folder.0).expect("it is kept"));
    drop((form, spool));
    drop(folder.spool());
    assert!(kept.iter().all(|path| path.exists()));
}

/// Gives these bytes, and then fails in some way.
struct Fails<'a, F>(&'a [u8], F);

impl<F: FnMut() -> io::Result<usize>> Read for Fails<'_, F> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.0.read(out)? {
            0 => (self.1)(),
            count => Ok(count),
        }
    }
}

#[test]
fn nothing_is_left_behind_when_a_form_fails() {
    let folder = Folder::new();
    let spool = folder.spool();
    let head = b"--XX\r\nContent-Disposition: form-data; name=f; filename=n\r\n\r\nfirst\r\n";
    let body = [head, FORM].concat();
    for cut in 0..FORM.len() - 2 {
        let cut_short = read_form(&FORM[..cut], &spool).expect_err("cut short");
        assert_eq!(cut_short, UploadError::Form(MultipartError::Truncated));
        let source = Fails(&FORM[..cut], || Err(ErrorKind::TimedOut.into()));
        let timed_out = read_form(source, &spool).expect_err("too slow");
        assert_eq!(timed_out.status().code(), 408);
        let source = Fails(&FORM[..cut], || panic!("a bug in the source"));
        let quiet = std::panic::catch_unwind(AssertUnwindSafe(|| read_form(source, &spool)));
        assert!(quiet.is_err());
        folder.assert_empty();
    }
    let mut mutator = Mutator::new(210);
    for _ in 0..2_000 {
        drop(read_form(mutator.mutate(&body).as_slice(), &spool));
        folder.assert_empty();
    }
    drop(spool);
    assert_eq!(folder.names(""), [""; 0]);
}

#[test]
fn an_error_of_the_body_comes_through_as_itself() {
    let folder = Folder::new();
    let spool = folder.spool();
    let limits = BodyLimits { body: 100, ..Default::default() };
    let cases: [(Framing, &[u8], BodyError, u16); 3] = [
        (Framing::Length(90), &FORM[..50], BodyError::CutShort, 400),
        (Framing::Chunked, b"4\r\n--XX\r\nffff\r\n", BodyError::TooLarge, 413),
        (Framing::Chunked, b"4\r\n--XX\n", BodyError::ChunkWithoutEnd, 400),
    ];
    for (framing, bytes, error, status) in cases {
        let mut body = BodyReader::new(framing, limits.clone()).expect("a body");
        let mut wire = bytes;
        let source = Fails(b"", || {
            let mut byte = [0];
            let count = body.read(&mut wire, &mut byte)?;
            Ok(count)
        });
        let failed = read_form(source, &spool).expect_err("a broken body");
        assert_eq!(failed, UploadError::Body(error));
        assert_eq!(failed.status().code(), status);
    }
    // What comes after the last boundary is read too: the body may break there.
    let source = Fails(FORM, || Err(BodyError::CutShort.into()));
    let failed = read_form(source, &spool).expect_err("a broken body");
    assert_eq!(failed, UploadError::Body(BodyError::CutShort));
    folder.assert_empty();
}

const CHILD: &str = "GLASSHOUSE_SPOOL_OF_A_CHILD";

/// This test program once more, running only that test, which sees [`CHILD`] and plays a part.
fn child(test: &str, folder: &Path, shell: &str) -> Child {
    let own = std::env::current_exe().expect("the path of this test program");
    let line = format!("{shell} exec \"$0\" --exact {test} --nocapture");
    Command::new("sh")
        .args(["-c", &line])
        .arg(own)
        .env(CHILD, folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child")
}

/// The names that are there once the child has done its part.
fn wait_for_a_file(folder: &Folder, foreign: &[&str]) -> Vec<String> {
    loop {
        let names = folder.names("");
        let of_child = |name: &String| name.ends_with(".part") && !foreign.contains(&name.as_str());
        if names.iter().any(of_child) {
            return names;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_a_killed_process_left_is_swept_and_what_a_living_one_holds_is_not() {
    if let Some(folder) = std::env::var_os(CHILD) {
        let spool = Spool::open(Path::new(&folder)).expect("a spool");
        let stall = Fails(&FORM[..FORM.len() - 12], || io::stdin().read(&mut [0]));
        let _ = read_form(stall, &spool);
        return;
    }
    let _dog = watchdog(60, "a child that stops in an upload");
    let folder = Folder::new();
    fs::create_dir(&folder.0).expect("a folder");
    let foreign = [
        "spool-0123456789abcdeg.live",
        "spool-0123456789abcdef-1.part.txt",
        "spool-0123456789abcdef-1f.part",
        "spool-1.part",
        "x.part",
    ];
    for name in foreign {
        fs::write(folder.0.join(name), "not ours").expect("a file");
    }
    let name = "what_a_killed_process_left_is_swept_and_what_a_living_one_holds_is_not";
    let mut other = child(name, &folder.0, "");
    let held = wait_for_a_file(&folder, &foreign);
    let spool = folder.spool();
    let ours = folder.names("");
    assert!(held.iter().all(|name| ours.contains(name)), "of a living process: {ours:?}");
    assert_eq!(ours.len(), held.len() + 1, "our lock");
    drop(spool);
    other.kill().expect("the child is there");
    other.wait().expect("the child is ours");
    assert_eq!(folder.names(""), held, "nobody has swept yet");
    let spool = folder.spool();
    let mut left = folder.names("");
    left.retain(|name| !foreign.contains(&name.as_str()));
    assert_eq!(left.len(), 1, "our lock: {left:?}");
    drop(spool);
    assert_eq!(folder.names("").len(), foreign.len());
}

#[test]
fn a_lock_that_never_got_its_name_is_swept() {
    let folder = Folder::new();
    fs::create_dir(&folder.0).expect("a folder");
    fs::write(folder.0.join("spool-0123456789abcdef.new"), "of a killed process").expect("a file");
    let spool = folder.spool();
    assert_eq!(folder.names(".new"), [""; 0]);
    drop(spool);
    assert_eq!(folder.names(""), [""; 0]);
}

#[test]
fn a_path_that_is_too_long_is_an_error_with_advice() {
    let folder = Folder::new();
    let error = Spool::open(&folder.0.join("x".repeat(100))).expect_err("too long");
    assert!(error.to_string().starts_with("the path is too long for a lock"), "{error}");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_full_disk_is_an_error_that_leaves_nothing() {
    if let Some(folder) = std::env::var_os(CHILD) {
        let spool = Spool::open(Path::new(&folder)).expect("a spool");
        let large = file_form(&[b'd'; 1 << 20]);
        let error = read_form(large.as_slice(), &spool).expect_err("no room");
        assert_eq!(error, UploadError::Spool(ErrorKind::FileTooLarge));
        assert_eq!(error.status().code(), 507);
        assert!(read_form(file_form(b"small").as_slice(), &spool).is_ok());
        return;
    }
    let _dog = watchdog(60, "a child with little room");
    let folder = Folder::new();
    // A limit on the length of files stands in for a full disk: 100 blocks of 512 bytes.
    let limited = "trap '' XFSZ; ulimit -f 100;";
    let child = child("a_full_disk_is_an_error_that_leaves_nothing", &folder.0, limited);
    let output = child.wait_with_output().expect("the child is ours");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(folder.names(""), [""; 0]);
}

#[test]
fn two_spools_may_share_a_folder() {
    let folder = Folder::new();
    let first = folder.spool();
    let form = read_form(FORM, &first).expect("a form");
    let second = folder.spool();
    let other = read_form(FORM, &second).expect("a form");
    assert_eq!((folder.names(".live").len(), folder.names(".part").len()), (2, 2));
    // A file holds on to its lock: the spool may go first.
    drop((first, second));
    drop(folder.spool());
    assert!(form.files[0].path().exists() && other.files[0].path().exists());
    drop((form, other));
    assert_eq!(folder.names(""), [""; 0]);
}

#[test]
fn many_may_open_a_spool_at_the_same_time() {
    let folder = Folder::new();
    let open = || (0..50).map(|_| folder.spool()).collect::<Vec<_>>();
    let spools: Vec<Spool> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        let opened = threads.into_iter().map(|thread| thread.join().expect("it opens"));
        opened.flatten().collect()
    });
    // Nobody has swept away the lock of another one that was about to begin.
    assert_eq!(folder.names(".live").len(), spools.len());
    drop(spools);
    assert_eq!(folder.names(""), [""; 0]);
}

#[test]
fn every_error_names_its_rule_and_its_status() {
    use UploadError::*;
    let errors = [
        (Form(MultipartError::NotMultipart), 415),
        (Form(MultipartError::TooManyFiles), 413),
        (Form(MultipartError::Truncated), 400),
        (ValuesTooLong, 413),
        (Body(BodyError::TooLarge), 413),
        (Body(BodyError::Source(ErrorKind::TimedOut)), 408),
        (Spool(ErrorKind::StorageFull), 507),
        (Spool(ErrorKind::QuotaExceeded), 507),
        (Spool(ErrorKind::FileTooLarge), 507),
        (Spool(ErrorKind::PermissionDenied), 500),
    ];
    for (error, status) in errors {
        assert_eq!(error.status().code(), status, "{error:?}");
        assert!(error.rule().starts_with("RFC "), "{error:?}");
        let says = error.to_string();
        assert!(says.contains(' ') && !says.ends_with('.'), "{error:?}");
    }
}

#[test]
#[ignore = "exercise 24.2"]
fn exercise_24_2_a_file_may_have_at_most_so_many_bytes() {
    let folder = Folder::new();
    let spool = folder.spool();
    let largest = 8 * 1024 * 1024;
    let fits = file_form(&vec![b'd'; largest]);
    assert!(read_form(fits.as_slice(), &spool).is_ok());
    let over = file_form(&vec![b'd'; largest + 1]);
    let error = read_form(over.as_slice(), &spool).expect_err("one byte too many");
    assert_eq!(error, UploadError::Spool(ErrorKind::FileTooLarge));
    folder.assert_empty();
}

#[test]
#[ignore = "exercise 24.4"]
fn exercise_24_4_nobody_else_may_read_what_is_arriving() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let spool = folder.spool();
    let form = read_form(FORM, &spool).expect("a form");
    let metadata = fs::metadata(form.files[0].path()).expect("the file");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
