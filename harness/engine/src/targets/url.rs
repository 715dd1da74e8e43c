//! Anything that listens: a server of which only the wire is seen.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::through_the_edge;
use crate::{
    service_file::{ServiceFile, Tokens},
    target::{self, Capabilities, ProcessControl, Renewal, Target},
    upstream::Upstream,
};
use relapse_core::{
    client::credential::{Credential, Form, Presented},
    error::Error,
    fault::Place,
    record::{
        service::{Service, TargetKind},
        transcript::Leftovers,
    },
};
use relapse_simulate::{
    application::BoxFuture,
    clock::Clock,
    link::{Link, Receiving},
    recorder::ExchangeRecorder,
};

/// A server behind a URL.
#[derive(Debug)]
pub struct Url {
    upstream: Upstream,
    service: Service,
    tokens: Tokens,
    /// The pause between two requests.
    pause: Duration,
    budget: Mutex<RequestBudget>,
}

impl Url {
    /// The server behind this URL, which takes this token, and gets at most `requests_max` requests, with a pause
    /// between two.
    pub fn new(upstream: Upstream, binding: &ServiceFile, valid: String, requests_max: usize, pause: Duration) -> Url {
        let budget = Mutex::new(RequestBudget { left: requests_max, half: requests_max / 2, next: Instant::now() });
        let tokens = Tokens::of(binding, valid);
        Url { upstream, service: binding.service(), tokens, pause, budget }
    }
}

impl Url {
    /// Makes room for another request, or says that there were enough; waits its turn.
    async fn enter(&self) -> Result<(), Error> {
        let wait = {
            let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
            if budget.left == 0 {
                return Err(Error::TooManyRequests);
            }
            budget.left -= 1;
            let now = Instant::now();
            let turn = budget.next.max(now);
            budget.next = turn + self.pause;
            turn.saturating_duration_since(now)
        };
        sleep(wait).await;
        Ok(())
    }
}

/// How many requests may still be made, and when the next one.
#[derive(Debug)]
struct RequestBudget {
    left: usize,
    /// Half of what there was.
    half: usize,
    next: Instant,
}

impl Target for Url {
    fn kind(&self) -> TargetKind {
        TargetKind::Url
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            places: &[Place::Edge],
            clock: Clock::Real,
            renewal: Renewal::None,
            process: ProcessControl::None,
        }
    }

    fn authority(&self) -> String {
        self.upstream.authority()
    }

    fn budget(&self) -> target::BudgetLeft {
        let budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        if budget.left > budget.half { target::BudgetLeft::Ample } else { target::BudgetLeft::Reserve }
    }

    fn connect(&self, scribe: ExchangeRecorder) -> BoxFuture<'_, Result<Option<Link>, Error>> {
        Box::pin(async move {
            self.enter().await?;
            let server = self.upstream.connect(scribe.receiving()).await.ok();
            Ok(through_the_edge(server, scribe, |_| self.upstream.redial()))
        })
    }

    fn reach(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { self.upstream.connect(Receiving::Usual).await.map(drop) })
    }

    fn credential(&self, kind: Credential, user: &str, _form: Form) -> Presented {
        self.tokens.present(kind, user)
    }

    fn service(&self) -> Service {
        self.service.clone()
    }

    fn residue(&self) -> Option<Leftovers> {
        None
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}
