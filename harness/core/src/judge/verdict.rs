//! Verdicts, and the reasons for them.

use std::collections::BTreeMap;
use std::fmt;
use std::iter::Sum;
use std::ops::Add;

use serde::{Deserialize, Serialize};

use crate::{
    asgi::exception::Exception,
    judge::{
        harm::Harm,
        outcome::{Class, Ending, Outcome},
    },
    record::{timeline::Timeline, transcript::Transcript},
};

/// The verdict on one case. Only [`Verdict::Fixed`] and [`Verdict::Passed`] pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Two versions: before shows the whole claimed symptom; after is accepted, and a healthy client gets through.
    Fixed,
    /// One version: it is accepted. Whether it ever failed is not shown.
    Passed,
    /// Two versions: after is not accepted.
    StillBroken,
    /// One version: it is not accepted.
    Failed,
    /// Two versions: before does not show the claimed symptom.
    NotReproduced,
    /// The run proves nothing, because a fault never acted.
    NotExercised,
    /// The harness could not do its work.
    Inconclusive,
}

/// The conclusion of a whole result, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Conclusion {
    /// Everything passes.
    Passes,
    /// Something does not pass.
    Finding,
    /// Nothing can be concluded: the harness could not do its work.
    Nothing,
}

impl Conclusion {
    /// Passes where this holds; a finding where it does not.
    pub fn passes_if(passes: bool) -> Conclusion {
        if passes { Conclusion::Passes } else { Conclusion::Finding }
    }
}

impl Verdict {
    /// Every verdict, best first.
    pub const ALL: [Verdict; 7] = [
        Verdict::Fixed,
        Verdict::Passed,
        Verdict::StillBroken,
        Verdict::Failed,
        Verdict::NotReproduced,
        Verdict::NotExercised,
        Verdict::Inconclusive,
    ];

    /// Whether it passes.
    pub fn passes(self) -> bool {
        match self {
            Verdict::Fixed | Verdict::Passed => true,
            Verdict::StillBroken
            | Verdict::Failed
            | Verdict::NotReproduced
            | Verdict::NotExercised
            | Verdict::Inconclusive => false,
        }
    }

    /// The conclusion of a run with this verdict.
    pub fn conclusion(self) -> Conclusion {
        match self {
            Verdict::Fixed | Verdict::Passed => Conclusion::Passes,
            Verdict::StillBroken | Verdict::Failed | Verdict::NotReproduced | Verdict::NotExercised => {
                Conclusion::Finding
            }
            Verdict::Inconclusive => Conclusion::Nothing,
        }
    }

    /// The verdict's name, as the JSON document writes it.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Fixed => "fixed",
            Verdict::Passed => "passed",
            Verdict::StillBroken => "still-broken",
            Verdict::Failed => "failed",
            Verdict::NotReproduced => "not-reproduced",
            Verdict::NotExercised => "not-exercised",
            Verdict::Inconclusive => "inconclusive",
        }
    }

    /// The verdict as a table shows it.
    pub fn label(self) -> &'static str {
        match self {
            Verdict::Fixed => "FIXED",
            Verdict::Passed => "PASSED",
            Verdict::StillBroken => "STILL BROKEN",
            Verdict::Failed => "FAILED",
            Verdict::NotReproduced => "NOT REPRODUCED",
            Verdict::NotExercised => "NOT EXERCISED",
            Verdict::Inconclusive => "INCONCLUSIVE",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

/// Which version of the service a run is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The version with the bug.
    Before,
    /// The version with the fix, or the only one.
    After,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Before => "before",
            Side::After => "after",
        })
    }
}

/// A part of a claimed symptom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SymptomKey {
    /// `outcome`
    Outcome,
    /// `class`
    Class,
    /// `cause`
    Cause,
    /// `exception`
    Exception,
    /// `log`
    Log,
    /// `reason`
    Reason,
    /// `found_by`
    FoundBy,
}

impl fmt::Display for SymptomKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SymptomKey::Outcome => "outcome",
            SymptomKey::Class => "class",
            SymptomKey::Cause => "cause",
            SymptomKey::Exception => "exception",
            SymptomKey::Log => "log",
            SymptomKey::Reason => "reason",
            SymptomKey::FoundBy => "found_by",
        })
    }
}

/// A part of the claimed symptom that before does not show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which part.
    pub key: SymptomKey,
    /// The claim.
    pub claimed: String,
    /// The observation in its place.
    pub observed: String,
}

impl Difference {
    /// A part of a symptom that a run does not show.
    pub fn new(key: SymptomKey, claimed: impl fmt::Display, observed: String) -> Difference {
        Difference { key, claimed: claimed.to_string(), observed }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: claimed `{}`, observed {}", self.key, self.claimed, self.observed)
    }
}

/// Why a verdict does not pass.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// Before does not show the whole claimed symptom.
    NotShown(Vec<Difference>),
    /// Before shows the claimed symptom and is accepted all the same, so that nothing tells it from a fix.
    BeforeIsAccepted(Outcome),
    /// Two versions are compared, and the case claims no symptom. What before shows, as a symptom would say it.
    NoClaim {
        /// The outcome that before shows.
        shown: Outcome,
    },
    /// A fault never acted.
    FaultNeverActed {
        /// Where.
        side: Side,
        /// The fault.
        fault: String,
    },
    /// No client came once a fault was over.
    NothingAfterFault {
        /// Where.
        side: Side,
        /// The fault.
        fault: String,
    },
    /// An exchange ended in a way that the case does not accept.
    NotAccepted {
        /// The exchange, counted from 1.
        connection: usize,
        /// How it ended.
        outcome: Outcome,
    },
    /// A client cannot read a text that it has to.
    NotSaid {
        /// The exchange, counted from 1.
        connection: usize,
        /// The text.
        text: String,
    },
    /// A step waited for something that never came.
    ExpectationUnmet {
        /// The exchange, counted from 1.
        connection: usize,
        /// The thing that it waited for.
        waiting_for: String,
    },
    /// A step expected something of the server's process that did not come.
    ServerExpectationUnmet {
        /// The thing that it waited for, and what it saw instead.
        waiting_for: String,
    },
    /// The client sent a message, and the session ended without any answer to it.
    Unanswered {
        /// The exchange, counted from 1.
        connection: usize,
        /// How it ended.
        outcome: Outcome,
    },
    /// The reported exception is still raised.
    StillRaised {
        /// The exception.
        exception: Exception,
        /// Why it counts.
        how: StillRaised,
    },
    /// The app has no route any more for the request of the case.
    RouteGone {
        /// The exchange, counted from 1.
        connection: usize,
        /// The refusal.
        outcome: Outcome,
    },
    /// Fewer exchanges of a class than there must be.
    TooFew {
        /// The class.
        class: Class,
        /// How many there are.
        count: usize,
        /// How many there must be.
        least: usize,
    },
    /// The healthy client does not get through.
    HealthyClient(Outcome),
    /// Every healthy client is refused, although before let one in.
    RefusesEveryone {
        /// How after refuses it.
        outcome: Outcome,
        /// The request that before let in; `None` where the case or the service file states the client.
        let_in: Option<String>,
    },
    /// A check has a finding.
    Finding(Finding),
    /// A claimed fix is accepted in place of the real one.
    ClaimedFixAccepted {
        /// The revision with the claimed fix.
        fix: String,
        /// Its verdict.
        verdict: Verdict,
    },
    /// A claimed fix shows something else than its case says.
    ClaimedFixDiffers {
        /// The revision with the claimed fix.
        fix: String,
        /// Its outcome beside the one that the case states.
        shows: String,
    },
    /// The service refuses the credential of the service file.
    CredentialRefused {
        /// Where.
        side: Side,
        /// The refusal.
        outcome: Outcome,
    },
    /// The target cannot perform the case.
    NotForThisTarget(String),
    /// The harness could not do its work.
    Harness(String),
}

impl fmt::Display for Reason {
    // Long: a sentence for each reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NotShown(differences) => {
                f.write_str("before does not show the claimed symptom: ")?;
                let differences: Vec<String> = differences.iter().map(Difference::to_string).collect();
                f.write_str(&differences.join("; "))
            }
            Reason::BeforeIsAccepted(outcome) => write!(
                f,
                "before shows the claimed symptom, and the case accepts it as it accepts the fix ({outcome}): say in \
                 `[symptom]` or `accept` what tells them apart"
            ),
            Reason::NoClaim { shown: Outcome { ending, class, cause, .. } } => write!(
                f,
                "the case claims no symptom, so nothing says what before has to show; it shows `[symptom]` outcome = \
                 \"{ending}\", class = \"{class}\", cause = \"{cause}\""
            ),
            Reason::FaultNeverActed { side, fault } => write!(f, "{side}: the fault `{fault}` never acted"),
            Reason::NothingAfterFault { side, fault } => {
                write!(f, "{side}: no client came after the fault `{fault}` was over")
            }
            Reason::NotAccepted { connection, outcome } => {
                write!(f, "after: connection {connection} gives {outcome}")?;
                detail(f, outcome)
            }
            Reason::NotSaid { connection, text } => {
                write!(f, "after: nothing that connection {connection} reads says `{text}`")
            }
            Reason::ExpectationUnmet { connection, waiting_for } => {
                write!(f, "after: connection {connection} waited in vain for {waiting_for}")
            }
            Reason::ServerExpectationUnmet { waiting_for } => write!(f, "after: {waiting_for}"),
            Reason::Unanswered { connection, outcome } => write!(
                f,
                "after: connection {connection} sent a message and got {} without an answer; if that is right, accept \
                 `{}`",
                outcome.ending, outcome.ending
            ),
            Reason::StillRaised { exception, how } => {
                write!(f, "after: the reported exception is still raised{how}: {}", exception.located())
            }
            Reason::RouteGone { connection, outcome } => write!(
                f,
                "after: connection {connection} gets {}, because the app has no route for it any more; if that is \
                 right, accept `{}`",
                outcome.ending, outcome.ending
            ),
            Reason::TooFew { class, count, least } => {
                write!(f, "after: {count} of the connections are {class}, and {least} must be")
            }
            Reason::HealthyClient(outcome) => {
                write!(f, "after: the healthy client gets {outcome}")?;
                outcome.ending.waiting_for().map_or(Ok(()), |awaited| write!(f, ", waiting for {awaited}"))
            }
            Reason::RefusesEveryone { outcome, let_in } => {
                let let_in = let_in.as_deref().map_or(String::new(), |route| format!(" for `{route}`"));
                write!(
                    f,
                    "after: the healthy client gets {outcome}, and before let it in{let_in}; if that is right, say in \
                     `[[healthy_client.step]]` what a healthy client does"
                )
            }
            Reason::Finding(finding) => write!(f, "after: {}: {}", finding.check, finding.message),
            Reason::ClaimedFixAccepted { fix, verdict } => {
                write!(f, "the claimed fix {fix} is not seen through: {verdict}")
            }
            Reason::ClaimedFixDiffers { fix, shows } => write!(f, "the claimed fix {fix} {shows}"),
            Reason::CredentialRefused { side, outcome } => {
                write!(f, "{side}: your credential was refused ({})", refusal(outcome))
            }
            Reason::NotForThisTarget(why) | Reason::Harness(why) => f.write_str(why),
        }
    }
}

/// Why an exception that is still raised counts, although the app may handle it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StillRaised {
    /// It leaves the app.
    Escapes,
    /// The app handles it, and the client gets no answer.
    Unanswered,
    /// The app handles it and answers, and logs it as an error.
    Logged,
}

impl fmt::Display for StillRaised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StillRaised::Escapes => "",
            StillRaised::Unanswered => ", and handled without an answer to the client",
            StillRaised::Logged => ", handled with an answer, and logged as an error",
        })
    }
}

/// Why the app did not start, behind the outcome that says so.
fn detail(f: &mut fmt::Formatter<'_>, outcome: &Outcome) -> fmt::Result {
    match &outcome.ending {
        Ending::NotStarted { why } => write!(f, ": {why}"),
        Ending::Http { .. }
        | Ending::Close { .. }
        | Ending::Drop
        | Ending::BadHandshake { .. }
        | Ending::Hang { .. }
        | Ending::Silence { .. }
        | Ending::Parted { .. }
        | Ending::Left
        | Ending::Refused => Ok(()),
    }
}

/// A refusal in as few words as possible: its status or its code.
fn refusal(outcome: &Outcome) -> String {
    let text = outcome.ending.to_string();
    text.strip_prefix("http ").or(text.strip_prefix("close ")).map_or(text.clone(), str::to_owned)
}

/// One violation of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check.
    pub check: &'static str,
    /// The harm of what it finds.
    #[serde(skip)]
    pub harm: Harm,
    /// The key that tells this finding from others of the same check, stable from run to run.
    pub key: String,
    /// The finding, with its evidence.
    pub message: String,
    /// The exchange that it is about, counted from 0; `None` where it is about several, or the whole run.
    #[serde(skip)]
    pub exchange: Option<usize>,
    /// The exception that it is about, where the outcome of the exchange does not tell it.
    #[serde(skip)]
    pub exception: Option<Box<Exception>>,
}

impl Finding {
    /// Its identity.
    pub fn id(&self) -> FindingKey {
        FindingKey { rule: Rule::Check(self.check), harm: self.harm, subject: Some(self.key.clone()), site: None }
    }
}

/// A rule that a run can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A check.
    Check(&'static str),
    /// No exchange is of this class.
    Class(Class),
    /// The target does not panic.
    NoPanic,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Check(name) => f.write_str(name),
            Rule::Class(class) => write!(f, "{class}"),
            Rule::NoPanic => f.write_str("panic"),
        }
    }
}

/// The identity of a finding, stable from run to run: the rule that is broken, and by what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FindingKey {
    /// The rule.
    pub rule: Rule,
    /// The harm of breaking the rule.
    pub harm: Harm,
    /// The thing that breaks it: an exception and its function, a status, a cause. `None` where the rule says it all.
    pub subject: Option<String>,
    /// Where it is broken, in a service that is known by its routes only.
    pub site: Option<FindingSite>,
}

/// Where a service breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FindingSite {
    /// The route, such as `GET /orders/{id}`; `None` where the request fits none that is known.
    pub route: Option<String>,
    /// The exception behind it, if one is seen.
    pub exception: Option<RaisedAt>,
}

/// An exception, without what differs from run to run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RaisedAt {
    /// Its type.
    pub type_name: String,
    /// The function, and its line, that raised it, if that is known.
    pub place: Option<(String, u32)>,
}

impl From<&Exception> for RaisedAt {
    fn from(exception: &Exception) -> RaisedAt {
        let place = exception.place.as_ref().map(|place| (place.function.clone(), place.line));
        RaisedAt { type_name: exception.type_name.clone(), place }
    }
}

/// Without the line, which moves with every change.
impl fmt::Display for RaisedAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some((function, _)) => write!(f, "{} in {function}", self.type_name),
            None => f.write_str(&self.type_name),
        }
    }
}

impl FindingKey {
    /// Whether another key can mean the same finding: the same exception is behind both, or the same rule is broken by the
    /// same; the route is the same, or one of the two has none.
    pub fn may_be(&self, other: &FindingKey) -> bool {
        let site = |key: &FindingKey| key.site.clone().unwrap_or(FindingSite { route: None, exception: None });
        let (own, others) = (site(self), site(other));
        let is_same_rule = (self.rule, &self.subject) == (other.rule, &other.subject);
        let is_worse = |key: &FindingKey| key.harm.is_worse_than_a_failure();
        let is_one_failure = own.exception.is_some() && !is_worse(self) && !is_worse(other);
        (is_same_rule || is_one_failure)
            && own.exception == others.exception
            && (own.route == others.route || own.route.is_none() || others.route.is_none())
    }

    /// The key of an outcome whose class is bad.
    pub fn of_outcome(outcome: &Outcome) -> FindingKey {
        let harm = outcome.class.harm().unwrap_or(Harm::Noise);
        FindingKey { rule: Rule::Class(outcome.class), harm, subject: Some(outcome.cause.to_string()), site: None }
    }
}

impl fmt::Display for FindingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.rule)?;
        if let Some(subject) = &self.subject {
            write!(f, ": {subject}")?;
        }
        let Some(FindingSite { route, exception }) = &self.site else { return Ok(()) };
        if let Some(route) = route {
            write!(f, " on {route}")?;
        }
        // The exception that left the app is the subject already.
        match exception.as_ref().map(ToString::to_string) {
            Some(exception) if !self.subject.as_ref().is_some_and(|subject| subject.contains(&exception)) => {
                write!(f, " by {exception}")
            }
            _ => Ok(()),
        }
    }
}

/// One run of one case on one version, judged.
#[derive(Debug, Clone, PartialEq)]
pub struct RunResult {
    /// How the case ended: its first bad exchange, or its last.
    pub outcome: Outcome,
    /// How each of its exchanges ended.
    pub outcomes: Vec<Outcome>,
    /// The checks' findings about it.
    pub findings: Vec<Finding>,
    /// Everything that happened.
    pub transcript: Transcript,
    /// The facts of the transcript.
    pub timeline: Timeline,
    /// How the healthy client fared on the same version.
    pub control: HealthyClient,
    /// The requests of healthy clients that were let in or refused.
    pub admission: Admission,
}

/// A request that a version lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LetIn {
    /// That of the case, without what makes it the trigger.
    Own(String),
    /// One to another route, where that of the case does not show whether anyone is let in.
    Other(String),
}

impl LetIn {
    /// The request.
    pub fn request(&self) -> &str {
        match self {
            LetIn::Own(request) | LetIn::Other(request) => request,
        }
    }
}

/// The requests of derived healthy clients that a version lets in or refuses, each as `GET /orders`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admission {
    /// The first that it lets in.
    pub let_in: Option<LetIn>,
    /// Those that it refuses, and how.
    pub refused: BTreeMap<String, Outcome>,
    /// Whether the app has a route for the first request of the case; `None` where it does not tell its routes.
    pub is_routed: Option<bool>,
}

/// How the healthy client fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthyClient {
    /// It was tried; the worst of its attempts.
    Tried(Outcome),
    /// It presented the credential of the service file and was refused.
    CredentialRefused(Outcome),
    /// The service refuses everyone that the harness knows to send, so the trigger is judged alone.
    RefusedByDesign(Outcome),
    /// There is none: the run belongs to no case, or the case gives none.
    Absent,
}

impl HealthyClient {
    /// How it ended, where it was tried.
    pub fn outcome(&self) -> Option<&Outcome> {
        match self {
            HealthyClient::Tried(outcome)
            | HealthyClient::CredentialRefused(outcome)
            | HealthyClient::RefusedByDesign(outcome) => Some(outcome),
            HealthyClient::Absent => None,
        }
    }

    /// In a table's cell.
    pub fn label(&self) -> String {
        match self {
            HealthyClient::Tried(outcome) => outcome.class.to_string(),
            HealthyClient::CredentialRefused(outcome) => format!("credential refused ({})", refusal(outcome)),
            HealthyClient::RefusedByDesign(_) | HealthyClient::Absent => "no healthy client".to_owned(),
        }
    }
}

/// One case on its versions, under one server profile and in one environment.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialResult {
    /// The verdict.
    pub verdict: Verdict,
    /// Why it does not pass; `None` when it does.
    pub reason: Option<Reason>,
    /// The possible causes of the outcome, where only the wire is seen.
    pub explanation: Option<String>,
    /// The version with the bug; `None` when there is none, or it could not run.
    pub before: Option<RunResult>,
    /// The version with the fix, or the only one; `None` when it could not run.
    pub after: Option<RunResult>,
    /// How often each version was run, and how often before showed the symptom.
    pub shown: Option<Frequency>,
    /// The counts of the runs that the verdict does not rest on, where each version was run several times.
    pub others: Exercised,
    /// The verdict on each claimed fix in place of the real one, in the order in which the case names them.
    pub shams: Vec<(Verdict, RunResult)>,
}

/// In how many of several runs before showed the claimed symptom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Frequency {
    /// How many did.
    pub in_runs: usize,
    /// How many there were.
    pub of_runs: usize,
}

/// Counts of the requests, sessions and faults in runs. A run without any proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exercised {
    /// Requests sent.
    pub requests: usize,
    /// Upgrades that were accepted.
    pub sessions: usize,
    /// Times a fault acted.
    pub faults: usize,
}

impl Exercised {
    /// The counts of one run.
    pub fn by(run: &RunResult) -> Exercised {
        let Transcript { fired, .. } = &run.transcript;
        Exercised {
            requests: run.transcript.exchanges(),
            sessions: run.transcript.sessions(),
            faults: fired.iter().map(|&count| count as usize).sum(),
        }
    }
}

impl Add for Exercised {
    type Output = Exercised;

    fn add(self, other: Exercised) -> Exercised {
        Exercised {
            requests: self.requests + other.requests,
            sessions: self.sessions + other.sessions,
            faults: self.faults + other.faults,
        }
    }
}

impl Sum for Exercised {
    fn sum<I: Iterator<Item = Exercised>>(all: I) -> Exercised {
        all.fold(Exercised::default(), Add::add)
    }
}

impl fmt::Display for Frequency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shown in {} of {}", self.in_runs, self.of_runs)
    }
}

impl TrialResult {
    /// The counts of all runs.
    pub fn exercised(&self) -> Exercised {
        let decisive = [&self.before, &self.after].into_iter().flatten().map(Exercised::by);
        decisive.sum::<Exercised>() + self.others
    }

    /// The judgment of one run of each version, without claimed fixes and without an explanation.
    pub fn of(
        result: Result<Verdict, (Verdict, Reason)>,
        before: Option<RunResult>,
        after: Option<RunResult>,
    ) -> TrialResult {
        let (verdict, reason) = match result {
            Ok(verdict) => (verdict, None),
            Err((verdict, reason)) => (verdict, Some(reason)),
        };
        let others = Exercised::default();
        TrialResult { verdict, reason, explanation: None, before, after, shown: None, others, shams: Vec::new() }
    }

    /// A case that could not be judged.
    pub fn inconclusive(reason: Reason) -> TrialResult {
        TrialResult::of(Err((Verdict::Inconclusive, reason)), None, None)
    }

    /// Why the verdict does not pass, in a sentence; empty when it does.
    pub fn why(&self) -> String {
        let reason = self.reason.as_ref().map(Reason::to_string);
        reason.into_iter().chain(self.explanation.clone()).collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::{Conclusion, FindingKey, FindingSite, RaisedAt, Rule, Verdict};
    use crate::judge::harm::Harm;

    /// An exception in the same exchange stands for what a check of a user's own finds, unless that harms more.
    #[test]
    fn an_exception_stands_for_what_harms_less() {
        let key = |check, harm| {
            let exception = Some(RaisedAt { type_name: "KeyError".to_owned(), place: None });
            FindingKey {
                rule: Rule::Check(check),
                harm,
                subject: None,
                site: Some(FindingSite { route: None, exception }),
            }
        };
        let exception = key("no_escaped_exception", Harm::Crash);
        for harm in Harm::ALL {
            let is_one = !matches!(harm, Harm::WrongData | Harm::Admitted | Harm::Leak);
            assert_eq!(key("of_a_user", harm).may_be(&exception), is_one, "{harm:?}");
            assert_eq!(exception.may_be(&key("of_a_user", harm)), is_one, "{harm:?}");
        }
    }

    #[test]
    fn only_a_verdict_that_passes_exits_with_zero() {
        for verdict in Verdict::ALL {
            assert_eq!(verdict.conclusion() == Conclusion::Passes, verdict.passes(), "{verdict}");
        }
        assert_eq!(Verdict::Inconclusive.conclusion(), Conclusion::Nothing, "the harness could not do its work");
    }
}
