//! A case in one environment behind one server, and what came of a run of many.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::{
    case::Case,
    environment::Environment,
    error::Error,
    profile::Profile,
    verdict::{Judgement, Verdict},
};

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
    /// The trials of these cases on something that is not ours, by the name that `--target` has for it. `like` stands for
    /// what is not known of it.
    pub fn behind(url: &str, cases: &[Arc<Case>], like: &Profile) -> Vec<Trial> {
        let profile = Arc::new(Profile { name: url.to_owned(), ..like.clone() });
        let trial = |case: &Arc<Case>| Trial {
            case: Arc::clone(case),
            profile: Arc::clone(&profile),
            environment: case.environments.first().copied().unwrap_or(Environment::Staging),
        };
        cases.iter().map(trial).collect()
    }

    /// The trials of these cases: each behind every server it names, or behind the given ones instead, and in each of
    /// its environments.
    pub fn of(cases: &[Arc<Case>], servers: &[Arc<Profile>], instead: Option<&[Arc<Profile>]>) -> Vec<Trial> {
        let mut trials = Vec::new();
        for case in cases {
            let names = |profile: &&Arc<Profile>| {
                instead.is_some() || case.profiles.as_ref().is_none_or(|names| names.contains(&profile.name))
            };
            for profile in instead.unwrap_or(servers).iter().filter(names) {
                for &environment in &case.environments {
                    trials.push(Trial { case: Arc::clone(case), profile: Arc::clone(profile), environment });
                }
            }
        }
        trials
    }

    /// Whether it runs on a server that is not ours.
    pub fn is_foreign(&self) -> bool {
        self.profile.name.contains(':')
    }

    /// The command that runs exactly this trial again, from the same directory.
    pub fn replay(&self, seed: u64) -> String {
        let (case, profile, environment) = (&self.case.name, &self.profile.name, self.environment);
        if self.is_foreign() {
            return format!("relapse run {case} --target {profile} --seed {seed}, with --binding and --before as here");
        }
        format!("relapse run {case} --profile {profile} --environment {environment} --seed {seed}")
    }
}

/// What came of a run of many trials.
#[derive(Debug)]
pub struct Report {
    /// The trials with what was judged, in the catalogue's order.
    pub trials: Vec<(Trial, Judgement)>,
    /// Case files that could not be read.
    pub broken: Vec<Error>,
    /// What was wrong with the end of an application that is not ours, when it was told to stop.
    pub shutdown: Vec<String>,
    /// The seed of every trial.
    pub seed: u64,
    /// How long it all took, in wall time.
    pub wall: Duration,
}

/// What a run exercised. A run that exercised nothing proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exercised {
    /// Requests sent.
    pub requests: usize,
    /// Upgrades that were accepted.
    pub sessions: usize,
    /// Times a fault acted.
    pub faults: usize,
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

    /// What the run exercised.
    pub fn exercised(&self) -> Exercised {
        let mut exercised = Exercised::default();
        for judged in self.trials.iter().flat_map(|(_, judgement)| [&judgement.before, &judgement.after]).flatten() {
            exercised.requests += judged.transcript.exchanges();
            exercised.sessions += judged.transcript.sessions();
            exercised.faults += judged.transcript.fired.iter().map(|&count| count as usize).sum::<usize>();
        }
        exercised
    }

    /// The exit code: 0 when every verdict passes, 1 when one does not or an application does not end
    /// in good order, 2 when the harness could not do its work. What
    /// cannot be said to a server that is not ours is left out, as long as anything can.
    pub fn exit_code(&self) -> u8 {
        let is_open = |judgement: &Judgement| judgement.verdict == Verdict::Inconclusive;
        let conclusive = self.trials.iter().filter(|(trial, judgement)| !(trial.is_foreign() && is_open(judgement)));
        let verdicts: Vec<Verdict> = conclusive.map(|(_, judgement)| judgement.verdict).collect();
        if !self.broken.is_empty() || verdicts.is_empty() || verdicts.contains(&Verdict::Inconclusive) {
            2
        } else {
            u8::from(verdicts.iter().any(|verdict| *verdict != Verdict::Fixed) || !self.shutdown.is_empty())
        }
    }
}
