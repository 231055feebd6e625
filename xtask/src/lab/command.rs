//! Runs commands and says what went wrong: the command line, its exit code, and what it printed on standard error.

use std::{
    ffi::OsStr,
    io::Write as _,
    process::{Command, Output, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail};

/// Runs a program to its end and returns what it printed.
pub(crate) fn run<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    finish(&mut command, "")
}

/// Runs a program with `input` as its standard input and returns what it printed.
pub(crate) fn feed<A: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = A>,
    input: &str,
) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    finish(&mut command, input)
}

/// Runs a prepared command to its end and returns what it printed.
pub(crate) fn finish(command: &mut Command, input: &str) -> Result<String> {
    let output = collect(command, input)?;
    if !output.status.success() {
        bail!("{}", failure(command, &output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a prepared command to its end, whatever its exit code.
pub(crate) fn collect(command: &mut Command, input: &str) -> Result<Output> {
    let shown = line(command);
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{shown}`"))?;
    let stdin = child.stdin.take();
    thread::scope(|scope| {
        let writer = stdin.map(|mut stdin| scope.spawn(move || stdin.write_all(input.as_bytes())));
        let output = child.wait_with_output().with_context(|| format!("wait for `{shown}`"));
        if let Some(writer) = writer {
            // A program that ends before it has read everything says why with its exit code.
            drop(writer.join());
        }
        output
    })
}

/// The command line as an operator would type it, cut to what fits an error message.
pub(crate) fn line(command: &Command) -> String {
    const LONGEST: usize = 300;
    let words: Vec<_> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(OsStr::to_string_lossy).collect();
    let mut text = words.join(" ");
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Why a command that ended failed.
pub(crate) fn failure(command: &Command, output: &Output) -> String {
    let mut text = format!("`{}` failed with {}", line(command), output.status);
    for stream in [&output.stderr, &output.stdout] {
        let said = String::from_utf8_lossy(stream);
        if !said.trim().is_empty() {
            text.push_str(":\n");
            text.push_str(said.trim_end());
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{feed, run};

    #[test]
    fn failure_names_the_command_its_exit_code_and_its_words() {
        let error = run("sh", ["-c", "echo broken >&2; exit 3"]).unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.contains("exit status: 3") && error.contains("broken"), "{error}");
    }

    #[test]
    fn program_that_does_not_exist_is_named() {
        let error = format!("{:#}", run("netdiag-no-such-program", [""; 0]).unwrap_err());
        assert!(error.contains("netdiag-no-such-program"), "{error}");
    }

    #[test]
    fn input_larger_than_a_pipe_comes_back_whole() {
        let text = "0123456789abcdef".repeat(20_000);
        assert_eq!(feed("cat", [""; 0], &text).unwrap(), text);
    }
}
