//! Policy files: every `*.yaml`, `*.yml` and `*.json` of a directory. Flow: policy.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use netdiag_model::policy::wire::{Document, Mistake};

/// Where the texts of the files are kept that had no mistake.
pub(super) const GOOD: &str = "files.json";

/// What names of policy files end in.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];
/// The largest file read, in bytes.
const LIMIT: u64 = 64 << 20;

/// What is wrong with a directory whose files are all gone.
const EMPTY: &str =
    "holds no policy file any more, and what they asked for stays; to ask for nothing, leave a file that does: {}";

/// Reads all files, in the order of their names. `expected` says that there were some.
///
/// # Errors
/// Each file that cannot be read; the directory where it is gone or empty although there were files in it, which is rather a mount
/// that is missing than a wish to enforce nothing.
pub(super) fn read(directory: &Path, expected: bool) -> Result<Vec<Document>, Vec<Mistake>> {
    let paths = match list(directory) {
        Ok(paths) => paths,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !expected => return Ok(Vec::new()),
        Err(error) => return Err(vec![mistake(directory.display().to_string(), format!("cannot be listed: {error}"))]),
    };
    if paths.is_empty() && expected {
        return Err(vec![mistake(directory.display().to_string(), EMPTY.to_owned())]);
    }
    let (mut documents, mut mistakes) = (Vec::new(), Vec::new());
    for path in paths {
        let name = path.display().to_string();
        match text(&path) {
            Ok(text) => documents.push(Document { name, text }),
            // It went between the listing and here.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {}
            Err(error) => mistakes.push(mistake(name, format!("cannot be read: {error}"))),
        }
    }
    if mistakes.is_empty() { Ok(documents) } else { Err(mistakes) }
}

/// What is wrong with a file as a whole.
pub(super) fn mistake(file: String, why: String) -> Mistake {
    Mistake { file, line: 1, object: String::new(), field: String::new(), why, valid: Box::default() }
}

fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let ending = path.extension().and_then(|ending| ending.to_str());
        if !hidden && ending.is_some_and(|ending| ENDINGS.contains(&ending)) {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

fn text(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
    }
    let mut text = String::new();
    file.take(LIMIT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LIMIT {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {LIMIT} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::read;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn files_are_read_by_ending_in_the_order_of_their_names() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b.yml", "a.json", "c.yaml", ".c.yaml.swp", ".hidden.yaml", "README", "d.yaml~", "e.yaml.bak"] {
            fs::write(directory.path().join(name), name).unwrap();
        }
        let texts: Vec<_> = read(directory.path(), true).unwrap().into_iter().map(|document| document.text).collect();
        assert_eq!(texts, ["a.json", "b.yml", "c.yaml"]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_mistake_and_names_itself() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a.yaml"), "good").unwrap();
        fs::write(directory.path().join("b.yaml"), [0xff, 0xfe]).unwrap();
        symlink("nowhere", directory.path().join("c.yaml")).unwrap();
        fs::create_dir(directory.path().join("d.yaml")).unwrap();
        let mistakes = read(directory.path(), true).unwrap_err();
        let names: Vec<_> = mistakes.iter().map(|mistake| &mistake.file[mistake.file.len() - 6..]).collect();
        assert_eq!(names, ["b.yaml", "c.yaml", "d.yaml"]);
    }

    #[test]
    fn a_directory_that_never_was_holds_nothing_and_one_that_is_gone_or_emptied_is_a_mistake() {
        let directory = tempfile::tempdir().unwrap();
        let none = directory.path().join("policy.d");
        assert_eq!(read(&none, false).unwrap(), Vec::new());
        assert_eq!(read(&none, true).unwrap_err().len(), 1);
        assert_eq!(read(directory.path(), false).unwrap(), Vec::new());
        assert_eq!(read(directory.path(), true).unwrap_err().len(), 1);
        fs::write(directory.path().join("nothing.yaml"), "{}").unwrap();
        assert_eq!(read(directory.path(), true).unwrap().len(), 1);
    }
}
