//! The faults of a call to something the service depends on.

use std::fmt;
use std::time::Duration;

use super::{
    draw::{FaultDraw, among},
    setting::{GivenSettings, SettingError, Time, WrittenSettings, faults, put},
};

/// Which calls of the application a dependency fault acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calls {
    /// The dependency.
    pub dependency: String,
    /// The operation; `None` for every one.
    pub operation: Option<String>,
}

impl Calls {
    /// The keys of these settings.
    pub const KEYS: [&str; 2] = ["dependency", "operation"];

    /// Whether a call is meant.
    pub fn include(&self, dependency: &str, operation: &str) -> bool {
        self.dependency == dependency && self.operation.as_ref().is_none_or(|meant| meant == operation)
    }

    pub(super) fn read(settings: &mut GivenSettings) -> Result<Calls, SettingError> {
        Ok(Calls { dependency: settings.take("dependency")?, operation: settings.take("operation")? })
    }

    pub(super) fn write(&self, written: &mut WrittenSettings) {
        put(written, "dependency", &self.dependency);
        put(written, "operation", &self.operation);
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.operation {
            None => f.write_str(&self.dependency),
            Some(operation) => write!(f, "{}.{operation}", self.dependency),
        }
    }
}

faults! {
    /// One fault of a dependency. An occasion is a call.
    CallFault at Dependency;
    /// fails the call with this error
    Fail "fail", weight 5 {
        /// The error's text, as the dependency's client library words it.
        error: String as "error" from among(&[(1, "connection to 10.0.3.7:5432 refused")]),
    } "fails: {error}";
    /// answers only after this delay
    Delay "delay", weight 5 {
        /// The delay.
        delay: Time as "delay_ms" from call_time,
    } "takes {delay}";
    /// never answers; the caller has to give up
    Hang "hang", weight 4 {} "never answers";
    /// answers something that is no answer
    Garbage "garbage", weight 1 {
        /// The answer of the call.
        answer: String as "answer" from among(&[(1, ""), (1, "<html>502 Bad Gateway</html>"), (1, "null"), (1, "{\"ok\":false}")]),
    } "answers {answer:?}";
    /// answers the first half of its answer
    Half "half_answer", weight 1 {} "answers half";
}

/// A time within which any answer comes, or only the patient get one.
fn call_time(draw: &FaultDraw<'_>, key: &str) -> Option<Time> {
    let choices = draw.choices.fork(key);
    let most = choices.fork("most").one(&[100_u64, 1000, 5000, 100_000]);
    Some(Time(Duration::from_millis(choices.within(1..=most))))
}

impl CallFault {
    /// Whether the caller gets any answer, a useless one too, without waiting for long.
    pub fn answers(&self) -> bool {
        !matches!(self, CallFault::Delay { .. } | CallFault::Hang {})
    }

    /// Whether the caller gets no usable answer.
    pub fn is_failure(&self) -> bool {
        !matches!(self, CallFault::Delay { .. })
    }
}
