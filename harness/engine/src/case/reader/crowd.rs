//! Reads how many clients perform the steps of a case.

use std::{collections::BTreeMap, ops::Range};

use relapse_core::{
    client::step::{Concurrency, DEFAULT_USER, Step},
    error::Error,
    judge::outcome::Class,
};
use toml::Spanned;

use super::CaseReader;
use crate::case::Accepted;

impl CaseReader<'_> {
    /// Refuses steps that a crowd cannot perform.
    pub(super) fn refuse_lone_steps(
        &self,
        steps: &[Step],
        crowd: Concurrency,
        span: Range<usize>,
    ) -> Result<(), Error> {
        self.one_user_each(steps, crowd, span.clone())?;
        self.no_crowd_of_names(steps, crowd, span.clone())?;
        self.no_crowd_of_signals(steps, crowd, span)
    }

    /// How many clients perform the steps, and how often.
    pub(super) fn crowd(&self, given: [Option<Spanned<usize>>; 3]) -> Result<Concurrency, Error> {
        let mut span = 0..0;
        let [users, connections, rounds] = given.map(|count| {
            count.map_or(1, |count| {
                span = count.span();
                *count.get_ref()
            })
        });
        let crowd = Concurrency { users, connections, rounds };
        let all = users.checked_mul(connections).and_then(|clients| clients.checked_mul(rounds));
        match all {
            Some(1..=Concurrency::MAX) => Ok(crowd),
            _ => {
                let help = Some("users times connections times rounds is between 1 and 1000".to_owned());
                let what = if all == Some(0) {
                    "no client would perform the steps"
                } else {
                    "so many clients cannot be played"
                };
                Err(self.error(span, what, help))
            }
        }
    }

    /// How many exchanges of a class there must be: of one that is accepted, and no more than there can be.
    pub(super) fn at_least(
        &self,
        given: BTreeMap<Class, Spanned<usize>>,
        accepted: &[Accepted],
        crowd: Concurrency,
    ) -> Result<BTreeMap<Class, usize>, Error> {
        let most = accepted.len() * crowd.clients() * crowd.rounds;
        let mut at_least = BTreeMap::new();
        for (class, count) in given {
            if !accepted.iter().any(|accepted| accepted.classes.contains(&class)) {
                return Err(self.error(count.span(), format!("`{class}` is accepted nowhere"), None));
            }
            if !(1..=most).contains(count.get_ref()) {
                let message = format!("the steps open {most} exchange(s); so many there can be, and at least 1");
                return Err(self.error(count.span(), message, None));
            }
            at_least.insert(class, count.into_inner());
        }
        Ok(at_least)
    }

    /// In a crowd each user has a number; a step cannot name another one.
    fn one_user_each(&self, steps: &[Step], crowd: Concurrency, span: Range<usize>) -> Result<(), Error> {
        let mut requests = steps.iter().filter_map(Step::opening);
        if crowd.users > 1 && requests.any(|request| request.user != DEFAULT_USER) {
            let help = Some("the users of a crowd are user-1, user-2 and so on".to_owned());
            return Err(self.error(span, "a step names a user, and `users` names all of them", help));
        }
        Ok(())
    }

    /// Refuses named clients in a crowd: each of its clients performs all the steps.
    fn no_crowd_of_names(&self, steps: &[Step], crowd: Concurrency, span: Range<usize>) -> Result<(), Error> {
        if crowd != Concurrency::ONE && steps.iter().any(|step| step.client.is_some()) {
            let help = Some("leave `users`, `connections` and `rounds` out, or every `as`".to_owned());
            return Err(self.error(span, "named clients cannot be a crowd", help));
        }
        Ok(())
    }

    /// Refuses signals in a crowd: each of its clients performs all the steps.
    fn no_crowd_of_signals(&self, steps: &[Step], crowd: Concurrency, span: Range<usize>) -> Result<(), Error> {
        if crowd != Concurrency::ONE && steps.iter().any(|step| !step.act.is_of_client()) {
            let help = Some("leave `users`, `connections` and `rounds` out, and name clients with `as`".to_owned());
            return Err(self.error(span, "every client of the crowd would send the signal", help));
        }
        Ok(())
    }
}
