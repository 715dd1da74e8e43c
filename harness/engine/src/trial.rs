//! A case in one environment behind one server, and what came of a run of many.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{case::Case, environment::Environment};
use relapse_core::{
    error::Error,
    judge::verdict::{Conclusion, Exercised, Reason, TrialResult, Verdict},
    record::service::TargetKind,
};
use relapse_simulate::profile::Profile;

/// A case in one environment behind one server.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The case.
    pub case: Arc<Case>,
    /// The server.
    pub profile: Arc<Profile>,
    /// The environment.
    pub environment: Environment,
}

impl Trial {
    /// The trials of these cases: each behind every server it names, or behind the given ones instead, and in each of
    /// its environments.
    pub fn of(cases: &[Arc<Case>], servers: &[Arc<Profile>], instead: Option<&[Arc<Profile>]>) -> Vec<Trial> {
        let mut trials = Vec::new();
        for case in cases {
            let named = case.profiles.as_ref().filter(|_| instead.is_none());
            let servers = instead.unwrap_or(servers).iter();
            for profile in servers.filter(|profile| named.is_none_or(|names| names.contains(&profile.name))) {
                for &environment in &case.environments {
                    trials.push(Trial { case: Arc::clone(case), profile: Arc::clone(profile), environment });
                }
            }
        }
        trials
    }

    /// The command that runs exactly this trial again, from the same directory, as arguments.
    pub fn replay(&self, seed: u64) -> Vec<String> {
        let (case, profile, environment) = (&self.case.name, &self.profile.name, self.environment.name());
        let seed = seed.to_string();
        let arguments = ["relapse", "run", case, "--profile", profile, "--environment", environment, "--seed", &seed];
        arguments.map(str::to_owned).to_vec()
    }
}

/// A target of the user's own, as the command line names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetName {
    /// The kind of target.
    pub kind: TargetKind,
    /// The version with the fix, or the only one, as `--target` names it.
    pub target: String,
    /// The version with the bug, as `--before` names it.
    pub before: Option<String>,
    /// The profile of the server that plays in front of a Python app.
    pub profile: Option<String>,
    /// The real server in front of a Python app, as `--server` names it.
    pub server: Option<String>,
    /// The arguments behind the case's name that reach it in the same way, without the seed.
    pub arguments: Vec<String>,
}

/// A case, and where it ran.
#[derive(Debug, Clone)]
pub enum Ran {
    /// On the built-in backend.
    OnBackend(Trial),
    /// On a target of the user's own.
    On(Arc<TargetName>, Arc<Case>),
}

impl Ran {
    /// The case.
    pub fn case(&self) -> &Arc<Case> {
        match self {
            Ran::OnBackend(trial) => &trial.case,
            Ran::On(_, case) => case,
        }
    }

    /// The target of the user's own.
    pub fn external(&self) -> Option<&TargetName> {
        match self {
            Ran::OnBackend(_) => None,
            Ran::On(name, _) => Some(name),
        }
    }

    /// The kind of target.
    pub fn kind(&self) -> TargetKind {
        self.external().map_or(TargetKind::Backend, |name| name.kind)
    }

    /// The profile of the server, where one plays it.
    pub fn profile(&self) -> Option<&str> {
        match self {
            Ran::OnBackend(trial) => Some(&trial.profile.name),
            Ran::On(name, _) => name.profile.as_deref(),
        }
    }

    /// The server in front: the profile that plays it, the real one, or the URL behind which one is.
    pub fn server(&self) -> &str {
        match self {
            Ran::OnBackend(trial) => &trial.profile.name,
            Ran::On(name, _) => name.profile.as_ref().or(name.server.as_ref()).unwrap_or(&name.target),
        }
    }

    /// The environment of the built-in backend.
    pub fn environment(&self) -> Option<Environment> {
        match self {
            Ran::OnBackend(trial) => Some(trial.environment),
            Ran::On(..) => None,
        }
    }

    /// The command that runs exactly this again, from the same directory, as arguments.
    pub fn replay(&self, seed: u64) -> Vec<String> {
        match self {
            Ran::OnBackend(trial) => trial.replay(seed),
            Ran::On(name, case) => {
                let mut arguments = vec!["relapse".to_owned(), "run".to_owned(), case.name.clone()];
                arguments.extend(name.arguments.iter().cloned());
                arguments.extend(["--seed".to_owned(), seed.to_string()]);
                arguments
            }
        }
    }
}

/// An option with its value, as arguments. A value that begins with `-` is a part of the option's own argument.
pub fn option(name: &str, value: String) -> Vec<String> {
    match value.starts_with('-') {
        true => vec![format!("{name}={value}")],
        false => vec![name.to_owned(), value],
    }
}

/// Adds an option with its value to arguments.
pub fn add_option(arguments: &mut Vec<String>, name: &str, value: impl fmt::Display) {
    arguments.extend(option(name, value.to_string()));
}

/// Arguments as a shell takes them.
pub fn shell(arguments: &[String]) -> String {
    arguments.iter().map(|argument| quoted(argument)).collect::<Vec<_>>().join(" ")
}

/// A text as a shell takes it. Control characters are escaped in `$'…'`, as POSIX.1-2024 has it (2.2.4), so that a command
/// is one line.
pub fn quoted(text: &str) -> String {
    // zsh replaces a word that begins with `=`.
    if is_variable(text) || !text.is_empty() && !text.starts_with('=') && text.chars().all(is_plain) {
        text.to_owned()
    } else if text.chars().any(char::is_control) {
        format!("$'{}'", text.chars().map(escaped).collect::<String>())
    } else {
        shlex::try_quote(text).expect("a control character is escaped before").into_owned()
    }
}

/// Whether a shell takes a character as it stands.
fn is_plain(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-_./:=@,+".contains(character)
}

/// A character between `$'` and `'`.
fn escaped(character: char) -> String {
    match character {
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        '\\' | '\'' => format!("\\{character}"),
        other if other.is_control() => other.to_string().bytes().map(|byte| format!("\\{byte:03o}")).collect(),
        other => other.to_string(),
    }
}

/// Whether a text is `NAME="$NAME"`, which takes a secret from the environment of the shell.
fn is_variable(text: &str) -> bool {
    text.split_once("=\"$").is_some_and(|(name, rest)| {
        rest.strip_suffix('"') == Some(name) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

/// The result of a run of many trials.
#[derive(Debug)]
pub struct Report {
    /// The cases that ran, each with its judgment, in the catalogue's order.
    pub trials: Vec<(Ran, TrialResult)>,
    /// Case files that could not be read.
    pub broken: Vec<Error>,
    /// The errors in the shutdown of the user's application.
    pub shutdown: Vec<String>,
    /// The seed of every trial.
    pub seed: u64,
    /// How long it all took, in wall time.
    pub wall: Duration,
}

impl Report {
    /// How many trials got each verdict; every verdict is there.
    pub fn counts(&self) -> BTreeMap<Verdict, usize> {
        let mut counts: BTreeMap<Verdict, usize> = Verdict::ALL.iter().map(|verdict| (*verdict, 0)).collect();
        for (_, judgement) in &self.trials {
            *counts.entry(judgement.verdict).or_default() += 1;
        }
        counts
    }

    /// The requests, sessions and faults that the run exercised.
    pub fn exercised(&self) -> Exercised {
        self.trials.iter().map(|(_, judgement)| judgement.exercised()).sum()
    }

    /// The conclusion: a finding where a verdict does not pass, or an app does not stop without an error. A case that a
    /// target of the user's own cannot perform is left out, as long as another one can be performed.
    pub fn conclusion(&self) -> Conclusion {
        let judged = self.trials.iter().map(|(_, judgement)| judgement);
        let judged = judged.filter(|judgement| !matches!(judgement.reason, Some(Reason::NotForThisTarget(_))));
        let worst = judged.map(|judgement| judgement.verdict.conclusion()).max();
        match worst.filter(|_| self.broken.is_empty()) {
            Some(worst) => worst.max(Conclusion::passes_if(self.shutdown.is_empty())),
            None => Conclusion::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{quoted, shell};

    /// A shell reads the words that are meant.
    #[test]
    fn a_shell_reads_what_is_quoted() {
        let words = ["plain", "", "two words", "it's", "\"q\"", "$HOME `x` \\", "!x ^y", "=z", "*?[a]{b}~#%", "\u{e4}"];
        let words = words.map(str::to_owned);
        assert_eq!(shlex::split(&shell(&words)).unwrap(), words);
    }

    #[rstest]
    #[case::variable("TOKEN=\"$TOKEN\"", "TOKEN=\"$TOKEN\"")]
    #[case::url("http://a.test:80/b@c,d+e=f", "http://a.test:80/b@c,d+e=f")]
    #[case::spaces("asgi:raw:app @ src", "'asgi:raw:app @ src'")]
    #[case::control("a\n'\u{1b}", "$'a\\n\\'\\033'")]
    fn a_word_is_quoted_where_it_must_be(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(quoted(text), expected);
    }
}
