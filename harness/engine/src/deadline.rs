//! The end of a piece of work in wall time, whatever clock its runs keep.

use std::time::{Duration, Instant};

use relapse_core::error::Error;
use relapse_simulate::clock::Clock;

/// When a piece of work ends at the latest, and whether its user asks for an end. It is asked before everything that may
/// take long. A copy means the same end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Deadline {
    /// When the work began, and how long it may take.
    time: Option<(Instant, Duration)>,
    /// Whether an end is asked for.
    asked: Option<fn() -> EndRequest>,
}

/// Whether a user asks for the end of a piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndRequest {
    /// Not yet.
    None,
    /// Nothing more begins. Work that is under way may end, except for what [`Deadline::bound`] runs on the real clock.
    Orderly,
    /// Work that was under way was broken off, and its result means nothing.
    Cut,
}

/// How often a wait for an end looks whether one is asked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

impl Deadline {
    /// No end.
    pub const NEVER: Deadline = Deadline { time: None, asked: None };

    /// So long from now, or without an end.
    pub fn after(limit: Option<Duration>) -> Deadline {
        Deadline { time: limit.map(|limit| (now(), limit)), asked: None }
    }

    /// The same, or earlier when a user asks for it.
    #[must_use]
    pub fn or_when(self, asked: fn() -> EndRequest) -> Deadline {
        Deadline { asked: Some(asked), ..self }
    }

    /// The same, or so long from now if that is earlier.
    #[must_use]
    pub fn within(self, limit: Duration) -> Deadline {
        match self.left() {
            Some(left) if left <= limit => self,
            Some(_) | None => Deadline { time: Some((now(), limit)), ..self },
        }
    }

    /// The same, with this part of its whole time.
    #[must_use]
    pub fn part(self, numerator: u32, denominator: u32) -> Deadline {
        let part = |limit: Duration| limit / denominator * numerator;
        Deadline { time: self.time.map(|(began, limit)| (began, part(limit))), ..self }
    }

    /// How much time is left; `None` where there is no end.
    pub fn left(&self) -> Option<Duration> {
        self.time.map(|(began, limit)| limit.saturating_sub(now().saturating_duration_since(began)))
    }

    /// The instant at which the time is over; `None` without a limit.
    pub fn end(&self) -> Option<Instant> {
        self.time.and_then(|(began, limit)| began.checked_add(limit))
    }

    /// This limit, or the time that is left if that is less.
    pub fn cap(&self, limit: Duration) -> Duration {
        self.left().map_or(limit, |left| left.min(limit))
    }

    /// Whether nothing more may begin.
    pub fn is_over(&self) -> bool {
        self.left().is_some_and(|left| left.is_zero()) || self.request() != EndRequest::None
    }

    /// Whether something that takes so long still comes to its end. An orderly end has time for it until it is cut.
    pub fn has_time_for(&self, length: Duration) -> bool {
        !self.is_cut() && self.left().is_none_or(|left| !left.is_zero() && left >= length)
    }

    /// Whether what was under way was broken off.
    pub fn is_cut(&self) -> bool {
        self.request() == EndRequest::Cut
    }

    /// The end that a user asks for.
    fn request(&self) -> EndRequest {
        self.asked.map_or(EndRequest::None, |asked| asked())
    }

    /// Why nothing more may begin, for people.
    pub fn reason(&self) -> &'static str {
        match self.request() {
            EndRequest::None => "the time was over",
            EndRequest::Orderly | EndRequest::Cut => "it was asked to end",
        }
    }

    /// Checks that something more may begin.
    ///
    /// # Errors
    /// When the time is over.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_over() { Err(Error::TimeIsOver) } else { Ok(()) }
    }

    /// The result of something that began before the end. On the real clock it is left where the end comes first; on the
    /// virtual one it comes to its own end, which no wall clock may hasten.
    ///
    /// # Errors
    /// When the time is over.
    pub async fn bound<T>(&self, clock: Clock, work: impl Future<Output = T>) -> Result<T, Error> {
        self.check()?;
        let result = match clock {
            Clock::Virtual => work.await,
            Clock::Real => tokio::select! {
                biased;
                result = work => result,
                () = self.over() => return Err(Error::TimeIsOver),
            },
        };
        if self.is_cut() { Err(Error::TimeIsOver) } else { Ok(result) }
    }

    /// Waits for the end, on the real clock.
    async fn over(&self) {
        while !self.is_over() {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the end of a piece of work is an end in wall time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use relapse_simulate::clock::{Clock, Runtime};

    use super::{Deadline, EndRequest};

    #[test]
    fn an_end_comes_when_it_is_asked_for() {
        assert!(!Deadline::NEVER.is_over() && !Deadline::NEVER.or_when(|| EndRequest::None).is_over());
        let orderly = Deadline::NEVER.or_when(|| EndRequest::Orderly);
        assert!(orderly.is_over() && !orderly.is_cut() && orderly.has_time_for(Duration::ZERO));
        let cut = Deadline::NEVER.or_when(|| EndRequest::Cut);
        assert!(cut.is_cut() && !cut.has_time_for(Duration::ZERO));
    }

    #[test]
    fn an_end_is_as_early_as_the_earlier_one() {
        let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86400));
        assert!(Deadline::after(Some(Duration::ZERO)).within(hour).is_over());
        assert!(Deadline::after(Some(day)).within(hour).left().unwrap() <= hour);
        assert!(Deadline::after(Some(hour)).within(day).left().unwrap() <= hour);
        assert!(Deadline::after(Some(hour)).part(1, 2).left().unwrap() <= hour / 2);
        assert!(Deadline::after(Some(hour)).cap(day) <= hour && Deadline::NEVER.cap(day) == day);
        assert!(!Deadline::after(Some(hour)).has_time_for(day) && Deadline::NEVER.has_time_for(day));
    }

    #[test]
    fn what_begins_before_the_end_ends_with_it_in_real_time() {
        let over = Deadline::after(Some(Duration::from_millis(10)));
        let result = Runtime::new(Clock::Real).block_on(over.bound(Clock::Real, std::future::pending::<()>()));
        assert!(result.is_err());
        let never = Runtime::new(Clock::Virtual).block_on(Deadline::NEVER.bound(Clock::Virtual, async { 7 }));
        assert_eq!(never.unwrap(), 7);
    }
}
