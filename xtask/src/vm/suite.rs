//! `cargo xtask vm test`: the tests that need a real kernel, in a machine.
//!
//! They are compiled here and only run there: an emulated compiler would take hours.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::{Options, prepare};
use crate::{build, command, workspace};

/// Options of `vm test`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    options: Options,
    /// Only this file of tests, as `neutron`; may be repeated
    #[arg(long = "test", value_name = "FILE")]
    files: Vec<String>,
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// Runs one program of tests after the other, those after a failure too, and lists the failures at the end. One test at a
/// time: two labs at once only wait for each other.
const LOOP: &str = r#"
failed=
for program; do
    echo "== ${program##*/}"
    "$program" --test-threads=1 $FILTER || failed="$failed ${program##*/}"
done
if [ -n "$failed" ]; then
    echo "FAILED:$failed"
    exit 1
fi
"#;

/// Compiles the tests, and runs them in a machine.
pub(super) fn run(args: Args) -> Result<ExitCode> {
    let Args { options, files, filter } = args;
    let root = workspace::root()?;
    let (machine, mut script) = prepare(options)?;
    let object = build::object(&root)?;
    let mut cargo = command::cargo(&root);
    cargo.args(["test", "--package", "netdiag-tests", "--no-run", "--locked", "--message-format", "json"]);
    if files.is_empty() {
        cargo.arg("--tests");
    }
    cargo.args(files.iter().flat_map(|file| ["--test", file]));
    let printed = command::output(cargo.env(build::OBJECT_VARIABLE, object))?;
    // A test that cannot run is no test that passed.
    script.set("NETDIAG_CI", "1");
    script.set("FILTER", filter.unwrap_or_default());
    script.run(&["cd", "tests"]);
    let mut all: Vec<OsString> = vec!["set".into(), "--".into()];
    all.extend(programs(&printed)?.into_iter().map(OsString::from));
    script.run(&all);
    script.shell(LOOP);
    machine.run(&script)
}

/// One line of what cargo prints, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Message {
    /// The program that was built, if it was one.
    executable: Option<PathBuf>,
}

/// The programs cargo has built, in the order of their names.
fn programs(printed: &str) -> Result<Vec<PathBuf>> {
    let message = |line: &str| -> Result<Message> {
        serde_json::from_str(line).with_context(|| format!("read what cargo printed: {line}"))
    };
    let messages: Vec<_> = printed.lines().map(message).collect::<Result<_>>()?;
    let mut programs: Vec<_> = messages.into_iter().filter_map(|message| message.executable).collect();
    // Cargo names them in the order in which they were ready.
    programs.sort();
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::programs;

    #[test]
    fn programs_are_told_from_libraries_and_put_in_order() {
        let printed = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
                       {\"reason\":\"compiler-artifact\",\"executable\":\"/target/neutron-1\"}\n\
                       {\"reason\":\"compiler-artifact\",\"executable\":\"/target/faults-1\"}\n\
                       {\"reason\":\"build-finished\",\"success\":true}\n";
        assert_eq!(programs(printed).unwrap(), ["/target/faults-1", "/target/neutron-1"].map(PathBuf::from));
        assert!(programs("no json").is_err());
    }
}
