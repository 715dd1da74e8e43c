//! Cases on a target of the user's own, each in the words of its service.

mod healthy;
mod translate;

use std::sync::Arc;
use std::time::Duration;

use healthy::Healthy;
pub(crate) use healthy::is_harmless;
pub use translate::{as_written, in_the_words_of, translate};

use crate::{
    case::{Case, DEFAULT_PROFILE},
    deadline::Deadline,
    explain::{Explanation, PossibleServers},
    route::{Route, RouteSource, RouteTrouble},
    run,
    service_file::ServiceFile,
    target::Target,
    verdict_rules,
};
use relapse_core::{
    client::{
        credential::{Credential, Form},
        step::{Action, DEFAULT_USER, Step},
    },
    error::{AppError, Error},
    judge::{
        classify::Exchange,
        outcome::{Class, Ending, Outcome},
        verdict::{Admission, Exercised, Frequency, HealthyClient, Reason, RunResult, Side, TrialResult, Verdict},
    },
    plan::Plan,
    record::{redact::KnownSecret, service::TargetKind},
};
use relapse_simulate::{clock::Clock, profile::Profile, recorder::Recorder};

/// How long an answer may take that only says which server answers.
const RECOGNIZING_LIMIT: Duration = Duration::from_secs(3);

/// A target of the user's own, and what is known of it.
#[derive(Debug)]
pub struct External {
    /// The target.
    pub target: Box<dyn Target + Send>,
    /// The known servers that it may be, so that its failures can be explained.
    pub kind: PossibleServers,
    /// The server in front of the app.
    pub front: Front,
    /// Its routes, as the app tells them or the user named them.
    pub routes: Vec<Route>,
    /// Routes that its code looks as if it had, unasked.
    pub guesses: Vec<Route>,
    /// The failures to learn its routes.
    pub troubles: Vec<RouteTrouble>,
}

/// The server in front of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Front {
    /// A server that a profile with this name plays.
    Profile(String),
    /// A real server that the harness starts, as `--server` names it.
    Server(String),
    /// Whatever answers behind a URL.
    Unknown,
}

/// One version of a user's service.
#[derive(Debug)]
pub enum Version {
    /// It runs.
    Running(External),
    /// The app does not load or does not start.
    NotStarted {
        /// The kind of target it would be.
        kind: TargetKind,
        /// Why.
        trouble: AppError,
    },
}

/// The versions of a service that cases are judged on.
#[derive(Debug)]
pub struct Versions {
    /// The service file of both.
    pub binding: ServiceFile,
    /// The version with the bug; `None` where only one version is looked at.
    pub before: Option<Version>,
    /// The version with the fix, or the only one.
    pub after: Version,
    /// How often each version is run; at least once.
    pub repeat: usize,
}

impl External {
    /// A target with nothing known of it.
    pub fn new(target: impl Target + Send + 'static, front: Front) -> External {
        External {
            target: Box::new(target),
            kind: PossibleServers::default(),
            front,
            routes: Vec::new(),
            guesses: Vec::new(),
            troubles: Vec::new(),
        }
    }

    /// Finds out which known server answers behind a URL: by a plain request where the service file has a path for one, and
    /// by an upgrade that every server refuses in words of its own. A server that does not answer, or may not be asked as
    /// often, stays unknown.
    pub async fn recognize(&mut self, binding: &ServiceFile, known: &[Arc<Profile>]) {
        if !self.target.kind().is_opaque() {
            return;
        }
        self.kind = PossibleServers::default();
        let authority = self.target.authority();
        let websocket = binding.paths.websocket.as_deref().unwrap_or("/");
        let mut keyless = binding.request(&authority, websocket, Credential::None);
        keyless.without = vec!["Sec-WebSocket-Key".to_owned()];
        let mut acts = vec![Action::Open(keyless)];
        if let Some(path) = binding.paths.health.first() {
            acts.push(Action::Request(binding.request(&authority, path, Credential::None)));
        }
        let mut transcripts = Vec::new();
        for act in acts {
            let step = Step::new(act, RECOGNIZING_LIMIT);
            match run::converse(&[step], Plan { seed: 1, faults: Vec::new() }, self.target.as_ref()).await {
                Ok(transcript) => transcripts.push(transcript),
                Err(_) => return,
            }
        }
        let readings: Vec<Exchange<'_>> = transcripts.iter().map(|transcript| Exchange::of(transcript, 0)).collect();
        self.kind = PossibleServers::of(known, &readings, readings.first());
    }

    /// The server in front of it, or the known server that it is like.
    pub fn described(&self) -> String {
        match &self.front {
            Front::Profile(name) => format!("played by the profile {name}"),
            Front::Server(name) => format!("the real one ({name})"),
            Front::Unknown => self.kind.to_string(),
        }
    }

    /// The profile of the server that it is most like.
    pub(crate) fn like(&self) -> &str {
        match &self.front {
            Front::Profile(name) => name,
            Front::Server(_) | Front::Unknown => {
                self.kind.profiles.first().map_or(DEFAULT_PROFILE, |profile| profile.name.as_str())
            }
        }
    }

    /// Stops it where the harness started it, and waits for its end; gives what went wrong then, without secrets.
    ///
    /// # Errors
    /// When something panicked.
    pub async fn shut_down(&self) -> Result<Vec<String>, Error> {
        let complaints = self.target.shut_down().await?;
        let service = self.target.service();
        let token = self.target.credential(Credential::Valid, DEFAULT_USER, Form::Token).text;
        let secrets = service.secrets.into_iter().chain([token]).map(KnownSecret::unnamed);
        let redactor = service.redactor.with(secrets, []);
        Ok(complaints.iter().map(|complaint| redactor.text(complaint)).collect())
    }

    /// The clock that it keeps.
    pub fn clock(&self) -> Clock {
        self.target.capabilities().clock
    }

    /// A limit as far as someone waits for it: where time is real, not as long as on a virtual clock.
    fn patience(&self, limit: Duration) -> Duration {
        match self.clock() {
            Clock::Real => limit.min(translate::PAUSE_MAX),
            Clock::Virtual => limit,
        }
    }

    /// Adds the guesses that exist. Beside routes that the app tells, that is where a client is let in; without any,
    /// wherever the plainest request is not refused as a path is refused that the app does not have.
    ///
    /// # Errors
    /// When the harness could not do its work.
    pub async fn add_found(&mut self, guesses: Vec<Route>, binding: &ServiceFile, seed: u64) -> Result<(), Error> {
        let tells_routes = !self.routes.is_empty();
        for route in guesses {
            // A path may be there for one method only, or until something is put there.
            let by_method = route.methods.iter().map(|method| Route { methods: vec![method.clone()], ..route.clone() });
            let ways = if route.is_websocket { vec![route.clone()] } else { by_method.collect() };
            for way in ways {
                let outcome = self.greet(&way, binding, seed).await?;
                let is_found = match tells_routes {
                    true => outcome.class == Class::Served,
                    false => !healthy::is_unfound(&outcome),
                };
                if is_found {
                    self.routes.push(route);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Whether it serves anyone, without which nothing that is tried on it proves anything.
    ///
    /// # Errors
    /// Says what the healthy client gets instead. A failure is no error: it may be the one that was reported.
    pub async fn answers(&self, binding: &ServiceFile, seed: u64) -> Result<HealthyClient, Reason> {
        Ok(self.served(None, binding, seed).await?.client)
    }

    /// The outcome of a case's healthy client, if the service serves any client.
    async fn served(&self, case: Option<&Case>, binding: &ServiceFile, seed: u64) -> Result<Healthy, Reason> {
        let healthy = self.healthy_client(case, binding, seed).await;
        let healthy = healthy.map_err(failed)?;
        let authority = self.target.authority();
        match healthy.client.outcome().map(|outcome| &outcome.ending) {
            Some(Ending::Refused) => Err(self.unreached().await.unwrap_or_else(|| {
                let why = "it took no connection of the healthy client, and takes one now";
                Reason::Harness(format!("could not connect to {authority}: {why}"))
            })),
            Some(Ending::Http { status: 429, .. }) => {
                Err(Reason::Harness(format!("{authority} refuses further requests (429)")))
            }
            Some(
                Ending::Http { .. }
                | Ending::Close { .. }
                | Ending::Drop
                | Ending::BadHandshake { .. }
                | Ending::Hang { .. }
                | Ending::Silence { .. }
                | Ending::Parted { .. }
                | Ending::Left
                // A case may be about an app that does not start.
                | Ending::NotStarted { .. },
            )
            | None => Ok(healthy),
        }
    }

    /// Why no connection to the target can be made, where that is so.
    async fn unreached(&self) -> Option<Reason> {
        let why = self.target.reach().await.err()?;
        Some(Reason::Harness(format!("could not connect to {}: {why}", self.target.authority())))
    }

    /// Performs a case and its healthy client, and judges.
    async fn conduct(&self, case: &Case, binding: &ServiceFile, seed: u64) -> Result<RunResult, Reason> {
        self.target.start_with(&case.server_arguments).await.map_err(failed)?;
        let mut healthy = Vec::new();
        if !case.is_alone {
            healthy.push(self.served(Some(case), binding, seed).await?);
        }
        // Without a client before the trigger, a server that was never there looks like one that drops it.
        if healthy.iter().all(|healthy| healthy.client.outcome().is_none())
            && let Some(reason) = self.unreached().await
        {
            return Err(reason);
        }
        let (target, recorder) = (self.target.as_ref(), Recorder::new(case.plan(seed)));
        let transcript = run::converse_to_the_end(case.crowd, &case.steps, recorder, target).await.map_err(failed)?;
        self.target.clear().await.map_err(failed)?;
        // One that fails before the trigger is the worst already, and may have waited for a blocked app.
        if !healthy.iter().any(|healthy| healthy.client.outcome().is_some_and(|outcome| !outcome.class.is_good())) {
            healthy.push(self.healthy_client(Some(case), binding, seed).await.map_err(failed)?);
        }
        let admission = Admission {
            let_in: healthy.iter().find_map(|healthy| healthy.admission.let_in.clone()),
            refused: healthy.iter().flat_map(|healthy| healthy.admission.refused.clone()).collect(),
            is_routed: self.is_routed(case),
        };
        let control = worst(healthy.into_iter().map(|healthy| healthy.client).collect());
        Ok(RunResult { admission, ..verdict_rules::judge(transcript, control) })
    }

    /// Whether the app has a route for the first request of a case; `None` where it does not tell its routes.
    fn is_routed(&self, case: &Case) -> Option<bool> {
        let mut known = self.routes.iter().filter(|route| route.source == RouteSource::Known).peekable();
        known.peek()?;
        let act = case.steps.iter().map(|step| &step.act).find(|act| act.request().is_some())?;
        let (request, opens) = (act.request()?, matches!(act, Action::Open(_)));
        Some(known.any(|route| {
            route.is_websocket == opens && route.has_path(&request.path) && (opens || route.takes(&request.method))
        }))
    }

    /// The possible causes of the outcome of a run of this case.
    fn explain(&self, case: &Case, judged: &RunResult) -> Option<Explanation> {
        let at = judged.outcomes.iter().position(|outcome| *outcome == judged.outcome)?;
        let explanation = self.kind.explain(&verdict_rules::reading(judged, at)?, &judged.outcome.ending)?;
        // The upgrade of a healthy client arrived. That proves nothing about another path.
        match shares_path(case) && judged.control.outcome().is_some_and(is_session) {
            true => explanation.of_arrived(),
            false => Some(explanation),
        }
    }
}

/// The reason where the harness could not do its work.
fn failed(error: Error) -> Reason {
    Reason::Harness(format!("could not {error}"))
}

fn is_session(outcome: &Outcome) -> bool {
    matches!(outcome.ending, Ending::Parted { .. } | Ending::Close { .. })
}

/// Whether the healthy client of a case opens the path that the case opens.
fn shares_path(case: &Case) -> bool {
    case.control.as_ref().is_none_or(|steps| first_path(steps) == first_path(&case.steps))
}

fn first_path(steps: &[Step]) -> Option<&[u8]> {
    steps.iter().find_map(Step::opening).map(|request| request.path.as_slice())
}

/// The worst of a healthy client's attempts.
fn worst(controls: Vec<HealthyClient>) -> HealthyClient {
    let worst = controls.into_iter().min_by_key(|healthy| match healthy {
        HealthyClient::Tried(outcome) if !outcome.class.is_good() => 0,
        HealthyClient::CredentialRefused(_) => 1,
        HealthyClient::RefusedByDesign(_) => 2,
        HealthyClient::Tried(_) => 3,
        HealthyClient::Absent => 4,
    });
    worst.unwrap_or(HealthyClient::Absent)
}

impl Version {
    /// Its target, where it runs.
    pub fn running(&self) -> Option<&External> {
        match self {
            Version::Running(external) => Some(external),
            Version::NotStarted { .. } => None,
        }
    }

    /// Runs a case on it; in its own words, and what came of it.
    async fn run(&self, case: &Case, binding: &ServiceFile, seed: u64) -> Result<(Case, RunResult), Reason> {
        match self {
            Version::Running(external) => {
                let translated = translate(case, binding, external)?;
                let judged = external.conduct(&translated, binding, seed).await?;
                Ok((translated, judged))
            }
            Version::NotStarted { kind, trouble } => {
                Ok((case.clone(), verdict_rules::not_started(case, *kind, trouble)))
            }
        }
    }
}

impl Versions {
    /// Judges a case. What cannot be performed on these targets is INCONCLUSIVE.
    pub async fn judge(&self, case: &Case, seed: u64) -> TrialResult {
        match self.try_judge(case, seed).await {
            Ok(judgement) => judgement,
            Err(reason) => TrialResult::inconclusive(reason),
        }
    }

    async fn try_judge(&self, case: &Case, seed: u64) -> Result<TrialResult, Reason> {
        let repeat = self.repeat.max(1);
        let seed = case.seed.unwrap_or(seed);
        let mut afters = Vec::new();
        for _ in 0..repeat {
            afters.push(self.after.run(case, &self.binding, seed).await?);
        }
        let Some(version) = &self.before else {
            let (after, others, result) = decisive(afters, verdict_rules::alone);
            let tries = Tries { before: None, after, others };
            return Ok(self.judgement(case, tries, result.map(|()| Verdict::Passed), None));
        };
        let mut befores = Vec::new();
        for _ in 0..repeat {
            befores.push(version.run(case, &self.binding, seed).await?.1);
        }
        let like = version.running().map_or(DEFAULT_PROFILE, External::like);
        let symptom = afters.first().and_then(|(case, _)| case.symptom_behind(like));
        let showing: Vec<usize> = (0..befores.len())
            .filter(|&at| symptom.is_some_and(|symptom| verdict_rules::differences(symptom, &befores[at]).is_empty()))
            .collect();
        let in_runs = showing.len();
        let before = befores.swap_remove(showing.first().copied().unwrap_or(0));
        let others: Exercised = befores.iter().map(Exercised::by).sum();
        let (after, other_afters, result) =
            decisive(afters, |case, after| verdict_rules::compare(case, like, &before, after));
        let shown = (repeat > 1).then_some(Frequency { in_runs, of_runs: repeat });
        let tries = Tries { before: Some(before), after, others: others + other_afters };
        Ok(self.judgement(case, tries, result.map(|()| Verdict::Fixed), shown))
    }

    fn judgement(
        &self,
        case: &Case,
        Tries { before, after, others }: Tries,
        result: Result<Verdict, (Verdict, Reason)>,
        shown: Option<Frequency>,
    ) -> TrialResult {
        let judgement = TrialResult { shown, others, ..TrialResult::of(result, before, Some(after)) };
        let (looked_at, version) = match judgement.verdict {
            Verdict::NotReproduced => (&judgement.before, self.before.as_ref()),
            Verdict::Fixed
            | Verdict::Passed
            | Verdict::StillBroken
            | Verdict::Failed
            | Verdict::NotExercised
            | Verdict::Inconclusive => (&judgement.after, Some(&self.after)),
        };
        // A refusal may have its cause on the way to the app.
        let explanation = looked_at
            .as_ref()
            .filter(|run| !judgement.verdict.passes() && run.outcome.class != Class::Served)
            .and_then(|run| version.and_then(Version::running)?.explain(case, run));
        TrialResult { explanation: explanation.map(|explanation| explanation.to_string()), ..judgement }
    }

    /// Every version that runs, with its side.
    pub fn running(&self) -> impl Iterator<Item = (Side, &External)> {
        let before = self.before.iter().map(|version| (Side::Before, version));
        let all = before.chain([(Side::After, &self.after)]);
        all.filter_map(|(side, version)| Some((side, version.running()?)))
    }
}

/// The runs that a verdict rests on.
#[derive(Debug)]
struct Tries {
    before: Option<RunResult>,
    after: RunResult,
    /// The counts of the other runs of both versions.
    others: Exercised,
}

/// The first of several runs that does not pass, or the last one, the counts of the others, and the result.
fn decisive<T>(
    mut runs: Vec<(Case, RunResult)>,
    judge: impl Fn(&Case, &RunResult) -> Result<T, (Verdict, Reason)>,
) -> (RunResult, Exercised, Result<T, (Verdict, Reason)>) {
    let at = runs.iter().position(|(case, run)| judge(case, run).is_err()).unwrap_or(runs.len() - 1);
    let (case, run) = runs.swap_remove(at);
    let result = judge(&case, &run);
    let others = runs.iter().map(|(_, run)| Exercised::by(run)).sum();
    (run, others, result)
}

/// Why a trial is not judged for which there was no time.
pub fn late(deadline: Deadline) -> Reason {
    Reason::Harness(format!("not judged: {}", deadline.reason()))
}

/// Cases with their numbers, so that those for which a server is started with the same arguments stand together: those
/// without any first, the others as the first of each group comes.
fn in_groups(cases: &[Arc<Case>]) -> Vec<(usize, &Arc<Case>)> {
    let mut groups: Vec<&[String]> = vec![&[]];
    let mut numbered: Vec<(usize, &Arc<Case>)> = cases.iter().enumerate().collect();
    numbered.sort_by_key(|(_, case)| {
        let arguments = case.server_arguments.arguments.as_slice();
        groups.iter().position(|known| *known == arguments).unwrap_or_else(|| {
            groups.push(arguments);
            groups.len() - 1
        })
    });
    numbered
}

/// Judges cases one after the other, each of which is INCONCLUSIVE that does not come to its end in time. `done` is called
/// after each.
pub async fn judge_external(
    cases: &[Arc<Case>],
    versions: &Versions,
    seed: u64,
    deadline: Deadline,
    done: impl Fn(),
) -> Vec<TrialResult> {
    let mut judged: Vec<(usize, TrialResult)> = Vec::new();
    let clock = versions.running().map(|(_, external)| external.clock()).next().unwrap_or(Clock::Virtual);
    for (index, case) in in_groups(cases) {
        let judgement = deadline.bound(clock, versions.judge(case, seed)).await;
        judged.push((index, judgement.unwrap_or_else(|_| TrialResult::inconclusive(late(deadline)))));
        done();
    }
    judged.sort_by_key(|(index, _)| *index);
    judged.into_iter().map(|(_, judgement)| judgement).collect()
}
