//! The profiles in front of a target, one after the other.

use relapse::discover::servers_named;
use relapse::{Result, discover::servers};

use super::{PythonArgs, TargetSpec};
use crate::{
    error::{CommandResult, Failure},
    exit_code::CommandExit,
    interrupt::was_asked_to_end,
    output::{complain, note, print},
    report::formats::Printing,
};

/// The fronts that a target runs behind, one after the other: every profile that is named, as a glob too; the first known
/// one of a Python application without any; `None` of a target whose server is real.
pub(crate) fn profiles_in_front(
    target: &TargetSpec,
    python: &PythonArgs,
    names: &[String],
) -> Result<Vec<Option<String>>> {
    if !target.kind(python).is_played() {
        return Ok(vec![None]);
    }
    let profiles = match names {
        [] => vec![servers()?.swap_remove(0)],
        names => servers_named(names)?,
    };
    Ok(profiles.iter().map(|profile| Some(profile.name.clone())).collect())
}

/// The results behind several fronts, each with its front.
pub(crate) type Results<T> = Vec<(Option<String>, T)>;

/// Does the same behind each front, one after the other, until a signal asks for an end. `act` gives the exit code and the
/// result, if that is printed later. Gives the highest exit code and every result with its front. Where results are printed
/// as they come, each front is named above its own.
///
/// # Errors
/// When the work fails behind the first front. Another error is printed and makes the exit code [`CommandExit::NoResult`], so that
/// the results behind the other fronts are not lost.
pub(crate) fn behind_each<T>(
    fronts: &[Option<String>],
    printing: Printing,
    mut act: impl FnMut(Option<&str>) -> CommandResult<(CommandExit, Option<T>)>,
) -> CommandResult<(CommandExit, Results<T>)> {
    let has_headings = fronts.len() > 1 && printing == Printing::AsItComes;
    let (mut exit, mut results) = (CommandExit::Passes, Vec::new());
    for (number, front) in fronts.iter().enumerate() {
        if number > 0 && was_asked_to_end() {
            let left: Vec<&str> = fronts[number..].iter().flatten().map(String::as_str).collect();
            note(&format!("left out: behind {}", left.join(" ")));
            break;
        }
        if let Some(name) = front.as_ref().filter(|_| has_headings) {
            print(format!("behind {name}:\n"));
        }
        match act(front.as_deref()) {
            Ok((own, result)) => {
                exit = exit.max(own);
                results.extend(result.map(|result| (front.clone(), result)));
            }
            Err(failure @ Failure::Work(_)) if number == 0 => return Err(failure),
            Err(failure) => {
                complain(&failure);
                exit = exit.max(failure.exit());
            }
        }
        if has_headings {
            print("");
        }
    }
    Ok((exit, results))
}
