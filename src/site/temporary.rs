//! A folder for as long as the program runs. It holds what visitors upload, so nobody else may look
//! into it, and it goes away at the end. A program that is killed has no end: its folder is removed
//! when another one starts, a minute later or more.
//!
//! ```text
//!   /tmp                       everybody may write here, also a link with a name that we would use
//!   └─ glasshouse-5be1c0a7     drwx------, of ours
//!      ├─ upload-...           kept
//!      └─ .spool
//!         ├─ spool-TOKEN-1.part   arriving
//!         └─ spool-TOKEN.live     a socket: who lives here answers, and the dead do not
//! ```

use std::env;
use std::fs::{self, DirBuilder, Metadata};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::web::upload::Spool;

/// The folder inside of a folder of uploads where they arrive: to keep one is then to rename it.
pub const SPOOL: &str = ".spool";

const PREFIX: &str = "glasshouse-";
/// A folder that is younger may belong to a program that is still starting.
const YOUNG: Duration = Duration::from_secs(60);

/// The folder. It is removed when this value is dropped.
#[derive(Debug)]
pub struct TemporaryFolder {
    /// Where it is.
    pub path: PathBuf,
}

impl TemporaryFolder {
    /// Makes the folder, among the system's temporary files. POSIX.1-2017, XBD section 8.3: TMPDIR
    /// says where they are.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new() -> io::Result<TemporaryFolder> {
        TemporaryFolder::within(&env::temp_dir())
    }

    /// The same in another place.
    ///
    /// # Errors
    /// Those of the system.
    pub fn within(place: &Path) -> io::Result<TemporaryFolder> {
        // Random keys from the system; the standard library gives no other random numbers.
        let random = RandomState::new().build_hasher().finish();
        // Short, because the path of a lock is limited.
        let folder = TemporaryFolder::make(place.join(format!("{PREFIX}{:08x}", random as u32)))?;
        // What cannot be removed stays. It is no reason not to start.
        let _ = folder.remove_orphans(place);
        Ok(folder)
    }

    /// Makes this very folder, open to nobody else from its first moment on.
    ///
    /// # Errors
    /// Those of the system. One of them: something is there already. Then it may be somebody else's.
    pub fn make(path: PathBuf) -> io::Result<TemporaryFolder> {
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path)?;
        Ok(TemporaryFolder { path })
    }

    fn remove_orphans(&self, place: &Path) -> io::Result<()> {
        let own = fs::symlink_metadata(&self.path)?;
        for entry in fs::read_dir(place)? {
            let entry = entry?;
            if !is_name_of_ours(&entry.file_name().to_string_lossy()) {
                continue;
            }
            let Ok(seen) = fs::symlink_metadata(entry.path()) else { continue };
            let is_old = seen.modified()?.elapsed().is_ok_and(|age| age > YOUNG);
            // Others may make folders here too, and links to anywhere.
            if is_old && seen.is_dir() && is_like(&seen, &own) && is_dead(&entry.path()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A folder named `glasshouse-notes` is somebody's own, even if it is as private as ours.
fn is_name_of_ours(name: &str) -> bool {
    let digits = name.strip_prefix(PREFIX).unwrap_or_default();
    digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether it has the same owner, and is closed to others.
#[cfg(unix)]
fn is_like(other: &Metadata, own: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (other.uid(), other.mode()) == (own.uid(), own.mode())
}

/// Without owners there is nothing to compare, so nothing is ever removed.
#[cfg(not(unix))]
fn is_like(_: &Metadata, _: &Metadata) -> bool {
    false
}

/// A spool that is opened sweeps away the locks of the dead. If only our own is left, nobody lives
/// there.
fn is_dead(folder: &Path) -> bool {
    let place = folder.join(SPOOL);
    let Ok(_spool) = Spool::open(&place) else { return false };
    let is_lock = |name: &str| name.ends_with(".live");
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    entries.filter(|entry| is_lock(&entry.file_name().to_string_lossy())).count() == 1
}
