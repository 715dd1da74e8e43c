//! The time in which an application is ready to run while other programs have the processors. Limits on the application do not
//! count it, so that a busy machine causes no finding.

use std::fs;
use std::time::Duration;

/// How many times its limit a wait takes at most, however busy the machine is.
const LIMITS_MAX: u32 = 8;

/// A 16th of a limit, and less, is not waited for: looking how long a process was queued queues it for a moment, where both share
/// a core, so that a wait for the very rest would look again and again.
const REST_MAX: u32 = 16;

/// How long the first thread of a process has been ready to run without a processor, in all; zero where the system does not
/// say.
pub(super) fn queued(process: u32) -> Duration {
    let told = fs::read_to_string(format!("/proc/{process}/schedstat"));
    told.map_or(Duration::ZERO, |told| run_delay(&told))
}

/// The second field of `schedstat`, in nanoseconds (the kernel's Documentation/scheduler/sched-stats.rst).
fn run_delay(told: &str) -> Duration {
    let field = told.split_ascii_whitespace().nth(1).and_then(|field| field.parse().ok());
    Duration::from_nanos(field.unwrap_or(0))
}

/// How much of a limit is left after a wait in which the process was queued for part of the time.
pub(super) fn left(limit: Duration, waited: Duration, queued: Duration) -> Duration {
    if waited >= limit.saturating_mul(LIMITS_MAX) {
        return Duration::ZERO;
    }
    let left = limit.saturating_sub(waited.saturating_sub(queued));
    if left <= limit / REST_MAX { Duration::ZERO } else { left }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{left, queued, run_delay};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_time_without_a_processor_does_not_count() {
        assert_eq!(left(8 * SECOND, 8 * SECOND, Duration::ZERO), Duration::ZERO);
        assert_eq!(left(8 * SECOND, 8 * SECOND, 3 * SECOND), 3 * SECOND);
        assert_eq!(left(8 * SECOND, 11 * SECOND, 3 * SECOND), Duration::ZERO);
        // The look itself takes a moment.
        assert_eq!(left(8 * SECOND, 8 * SECOND, SECOND / 2), Duration::ZERO);
        // A wait ends on a machine that never gives it a processor, too.
        assert_eq!(left(8 * SECOND, 64 * SECOND, 64 * SECOND), Duration::ZERO);
        assert_eq!(left(Duration::MAX, SECOND, Duration::ZERO), Duration::MAX - SECOND);
    }

    #[test]
    fn the_system_tells_how_long_a_process_was_queued() {
        assert_eq!(run_delay("290615 1500000000 7\n"), SECOND + SECOND / 2);
        assert_eq!(run_delay("nothing"), Duration::ZERO);
        let (first, later) = (queued(std::process::id()), queued(std::process::id()));
        assert!(first <= later);
    }
}
