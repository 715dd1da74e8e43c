//! `--check-determinism`: runs each case twice and reports the first difference.

use relapse::{
    deadline::Deadline,
    determinism::Divergence,
    hunt::{Hunt, run_twice},
    trial::Ran,
};
use relapse_core::judge::verdict::{RunResult, TrialResult};
use relapse_simulate::clock::Clock;

use super::{
    error::{CommandResult, UsageError},
    exit_code::CommandExit,
    interrupt::{end_in_order, end_request, was_asked_to_end},
    output::{print_page, progress},
};

/// Checks that the clock of a target lets runs be repeated.
pub(super) fn check_clock(clock: Clock) -> Result<(), UsageError> {
    match clock {
        Clock::Virtual => Ok(()),
        Clock::Real => Err(UsageError::RealClockDiffers),
    }
}

/// Runs each case of a hunt twice; `again` gives the command that runs all up to a case again.
pub(super) fn of_hunt(hunt: &Hunt, again: impl FnOnce(u64) -> String) -> CommandResult {
    let progress = progress(usize::try_from(hunt.cases).unwrap_or(usize::MAX), "cases, each twice");
    end_in_order("stopping after the cases that run now; a second signal ends at once");
    let hunt = Hunt { deadline: Deadline::NEVER.or_when(end_request), ..hunt.clone() };
    let found = run_twice(&hunt, &|cases| {
        progress.inc(cases);
        !was_asked_to_end()
    })?;
    let checked = progress.position();
    progress.finish_and_clear();
    Ok(match found {
        None => told_same(checked),
        Some(found) => {
            let (number, seed) = (found.number, found.seed);
            told_difference(&format!("case {number} (seed {seed})"), &found.divergence, &again(number))
        }
    })
}

/// Compares the trials of two runs; `again` is the command that runs one of them alone.
pub(super) fn of_trials(
    first: &[(Ran, TrialResult)],
    second: &[(Ran, TrialResult)],
    again: impl Fn(&Ran) -> String,
) -> CommandExit {
    for ((ran, first), (_, second)) in first.iter().zip(second) {
        let pairs = [(&first.before, &second.before), (&first.after, &second.after)];
        let divergence = pairs.into_iter().find_map(|(first, second)| divergence(first.as_ref()?, second.as_ref()?));
        if let Some(divergence) = divergence {
            return told_difference(&ran.case().name, &divergence, &again(ran));
        }
    }
    told_same(first.len() as u64)
}

fn divergence(first: &RunResult, second: &RunResult) -> Option<Divergence> {
    Divergence::between(&first.transcript, &second.transcript)
}

fn told_same(cases: u64) -> CommandExit {
    print_page(&format!("deterministic: {cases} case(s), each run twice, and no difference"));
    if cases > 0 { CommandExit::Passes } else { CommandExit::NoResult }
}

fn told_difference(case: &str, divergence: &Divergence, again: &str) -> CommandExit {
    print_page(&format!("not deterministic: {case} differs when it is run again, {divergence}\nreproduce: {again}"));
    CommandExit::Finding
}
