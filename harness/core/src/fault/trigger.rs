//! When a fault acts.

use std::time::Duration;

/// When a fault acts: on the `nth` occasion and every `every`th one from there, at most `times` times, each with a
/// chance, from a moment of the run until another, while a client performs a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trigger {
    /// The first occasion it acts on, counted from 1.
    pub nth: u32,
    /// The distance to the next occasion; 2 makes a dependency flap.
    pub every: u32,
    /// How often it acts; `None` for every time.
    pub times: Option<u32>,
    /// How likely it acts on such an occasion, in percent from 1 to 100, decided by the seed.
    pub percent: u8,
    /// The moment it begins, since the run began.
    pub from: Duration,
    /// The moment it is over; `None` for never.
    pub until: Option<Duration>,
    /// The step that the client must be performing, counted from 1; `None` for any.
    pub step: Option<usize>,
}

impl Default for Trigger {
    fn default() -> Self {
        Trigger { nth: 1, every: 1, times: None, percent: 100, from: Duration::ZERO, until: None, step: None }
    }
}

impl Trigger {
    /// The same trigger with its times multiplied.
    pub(super) fn scaled(self, factor: f64) -> Trigger {
        Trigger { from: self.from.mul_f64(factor), until: self.until.map(|until| until.mul_f64(factor)), ..self }
    }

    /// Whether it may act on this occasion, counted from 1.
    pub fn acts_on(&self, occasion: u32) -> bool {
        let Some(since) = occasion.checked_sub(self.nth) else { return false };
        since % self.every == 0 && self.times.is_none_or(|times| since / self.every < times)
    }

    /// Whether a moment of the run lies between its beginning and its end.
    pub fn is_armed_at(&self, at: Duration) -> bool {
        at >= self.from && self.until.is_none_or(|until| at < until)
    }

    /// Whether there is no time at which it is not armed.
    pub fn is_always_armed(&self) -> bool {
        self.from.is_zero() && self.until.is_none()
    }

    /// Whether it acts on every occasion while it is armed.
    pub fn is_steady(&self) -> bool {
        self.nth == 1 && self.every == 1 && self.times.is_none() && self.percent == 100 && self.step.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;

    use super::Trigger;

    #[rstest]
    #[case::always(Trigger::default(), &[1, 2, 3, 4, 5])]
    #[case::later(Trigger { nth: 3, ..Trigger::default() }, &[3, 4, 5])]
    #[case::once(Trigger { nth: 2, times: Some(1), ..Trigger::default() }, &[2])]
    #[case::flapping(Trigger { every: 2, ..Trigger::default() }, &[1, 3, 5])]
    #[case::flapping_twice(Trigger { nth: 2, every: 2, times: Some(1), ..Trigger::default() }, &[2])]
    fn a_trigger_counts_occasions(#[case] trigger: Trigger, #[case] expected: &[u32]) {
        let acts: Vec<u32> = (1..=5).filter(|&occasion| trigger.acts_on(occasion)).collect();
        assert_eq!(acts, expected);
    }

    #[test]
    fn a_trigger_has_a_beginning_and_an_end() {
        let seconds = Duration::from_secs;
        let trigger = Trigger { from: seconds(2), until: Some(seconds(4)), ..Trigger::default() };
        let armed: Vec<u64> = (0..6).filter(|&at| trigger.is_armed_at(seconds(at))).collect();
        assert_eq!(armed, [2, 3]);
    }
}
