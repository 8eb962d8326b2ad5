//! Running the system's own tools.

use std::process::Stdio;

use tokio::process::Command;

use super::error::NodeError;

/// The most of a program's output that goes into an error, in bytes.
const OUTPUT_LEN_MAX: usize = 1024;

/// A program that ended.
pub(super) struct Ended {
    /// Its exit status; `None` after a signal.
    pub(super) code: Option<i32>,
    /// What it wrote to standard output.
    pub(super) stdout: String,
    stderr: String,
}

impl Ended {
    /// The failure as an error.
    pub(super) fn failed(&self, doing: String, program: &'static str) -> NodeError {
        let mut output = format!("{} {}", self.stderr.trim(), self.stdout.trim());
        let end = (0..=OUTPUT_LEN_MAX.min(output.len()))
            .rev()
            .find(|at| output.is_char_boundary(*at));
        output.truncate(end.unwrap_or(0));
        let output = output.split_whitespace().collect::<Vec<_>>().join(" ");
        let output = match self.code {
            Some(code) => format!("exit status {code}: {output}"),
            None => format!("ended by a signal: {output}"),
        };
        NodeError::Program {
            doing,
            program,
            output,
        }
    }
}

/// Runs `program` to its end, however long its I/O waits; the volume's in-flight guard is held meanwhile.
pub(super) async fn run(
    doing: &str,
    program: &'static str,
    args: &[&str],
) -> Result<Ended, NodeError> {
    let output = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(NodeError::system(format!("{doing}: run {program}")))?;
    Ok(Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs `program`; any exit status but 0 is an error.
pub(super) async fn succeed(
    doing: &str,
    program: &'static str,
    args: &[&str],
) -> Result<(), NodeError> {
    let ended = run(doing, program, args).await?;
    match ended.code {
        Some(0) => Ok(()),
        _ => Err(ended.failed(doing.to_owned(), program)),
    }
}
