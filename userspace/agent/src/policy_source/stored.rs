//! Files of the agent's own, written whole or not at all. Flow: policy.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

/// Reads a file; one that does not exist is the default.
pub(crate) fn read<T: DeserializeOwned + Default>(path: &Path) -> io::Result<T> {
    match fs::read(path) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(error),
    }
}

/// Writes a file beside the old one and puts it in its place: after a crash there is the old one or the new one.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let directory = path.parent().ok_or(io::ErrorKind::NotADirectory)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::{read, write};
    use std::fs;

    #[test]
    fn what_was_written_is_read_and_what_was_never_written_is_the_default() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.json");
        assert_eq!(read::<Vec<u32>>(&path).unwrap(), Vec::<u32>::new());
        write(&path, &vec![1, 2]).unwrap();
        write(&path, &vec![3]).unwrap();
        assert_eq!(read::<Vec<u32>>(&path).unwrap(), [3]);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_that_holds_something_else_is_an_error_and_not_the_default() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.json");
        fs::write(&path, "[1, ").unwrap();
        assert!(read::<Vec<u32>>(&path).is_err());
    }
}
