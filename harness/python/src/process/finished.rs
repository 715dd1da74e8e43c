//! A command that runs to its end, within limits.

use std::io::{self, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::{confinement::Confinement, group::Group};

/// The pause between checks whether the command has ended, while something that it started keeps its output open.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How long the rest of the output may take once everything that could write it has been killed.
const REST_LIMIT: Duration = Duration::from_secs(5);

/// How much of each stream is kept, in bytes. The rest is read and dropped, so that the command does not block.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// The first MiB of its standard output.
    pub output: Vec<u8>,
    /// The first MiB of its standard error.
    pub errors: Vec<u8>,
}

/// One of the two streams, whole.
enum OutputStream {
    Output(Vec<u8>),
    Errors(Vec<u8>),
}

/// Runs a command to its end; `None` where it does not end within the limit. Whatever it started ends with it. Blocks.
///
/// # Errors
/// When it cannot be started.
pub fn finish(command: &mut Command, confinement: Confinement, limit: Duration) -> io::Result<Option<Finished>> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut group = Group::spawn(command, confinement)?;
    let (Some(output), Some(errors)) = (group.child().stdout.take(), group.child().stderr.take()) else {
        unreachable!("both are piped");
    };
    let (sender, streams) = channel();
    keep(output, sender.clone(), OutputStream::Output);
    keep(errors, sender, OutputStream::Errors);
    #[expect(clippy::disallowed_methods, reason = "how long a command takes is real time, whichever clock a run keeps")]
    let start = std::time::Instant::now();
    let (mut output, mut errors, mut is_open) = (Vec::new(), Vec::new(), true);
    let status = loop {
        if let Some(status) = group.child().try_wait()? {
            break status;
        }
        let left = limit.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        match is_open.then(|| streams.recv_timeout(left.min(LOOK_AGAIN))) {
            Some(Ok(OutputStream::Output(bytes))) => output = bytes,
            Some(Ok(OutputStream::Errors(bytes))) => errors = bytes,
            Some(Err(RecvTimeoutError::Timeout)) => {}
            Some(Err(RecvTimeoutError::Disconnected)) => is_open = false,
            #[expect(
                clippy::disallowed_methods,
                reason = "a process that has closed its output sends no event at its end"
            )]
            None => std::thread::sleep(left.min(LOOK_AGAIN)),
        }
    };
    // A process that it left running would keep its output open.
    let _ = group.end();
    while let Ok(stream) = streams.recv_timeout(REST_LIMIT) {
        match stream {
            OutputStream::Output(bytes) => output = bytes,
            OutputStream::Errors(bytes) => errors = bytes,
        }
    }
    Ok(Some(Finished { status, output, errors }))
}

/// Reads a stream to its end, and keeps the beginning.
fn keep(mut from: impl Read + Send + 'static, to: Sender<OutputStream>, which: fn(Vec<u8>) -> OutputStream) {
    std::thread::spawn(move || {
        let (mut kept, mut piece) = (Vec::new(), [0; 16 * 1024]);
        while let Ok(count @ 1..) = from.read(&mut piece) {
            let room = KEPT_BYTES_MAX - kept.len();
            kept.extend_from_slice(&piece[..count.min(room)]);
        }
        let _ = to.send(which(kept));
    });
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::{Confinement, KEPT_BYTES_MAX, finish};

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_a_command_leaves_running_does_not_hold_it() {
        let ended = finish(&mut shell("sleep 60 & echo token"), Confinement::None, Duration::from_secs(30));
        let ended = ended.unwrap().expect("it ends at once");
        assert!(ended.status.success());
        assert_eq!(ended.output, b"token\n");
    }

    #[test]
    fn a_command_has_limits() {
        let late = finish(&mut shell("exec 1>&- 2>&-; sleep 60"), Confinement::None, Duration::from_millis(50));
        assert!(late.unwrap().is_none());
        let loud = finish(&mut shell("head -c 3000000 /dev/zero"), Confinement::App, Duration::from_secs(30));
        assert_eq!(loud.unwrap().unwrap().output.len(), KEPT_BYTES_MAX);
    }
}
