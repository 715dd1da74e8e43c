//! Anything that listens: a server of which only the wire is seen.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::through_the_edge;
use crate::{
    binding::{Binding, Tokens},
    target::{self, Capabilities, ProcessControl, Renewal, Target},
    upstream::Upstream,
};
use relapse_core::{
    client::credential::{Credential, Form, Presented},
    error::Error,
    fault::Place,
    record::transcript::{Residue, Service, TargetKind},
};
use relapse_simulate::{application::Promise, clock::Clock, link::Link, recorder::Scribe};

/// A server behind a URL.
#[derive(Debug)]
pub struct Url {
    upstream: Upstream,
    service: Service,
    tokens: Tokens,
    /// The pause between two requests.
    pause: Duration,
    budget: Mutex<Budget>,
}

impl Url {
    /// The server behind this URL, which takes this token, and gets at most `requests_max` requests, with a pause
    /// between two.
    pub fn new(upstream: Upstream, binding: &Binding, valid: String, requests_max: usize, pause: Duration) -> Url {
        let budget = Mutex::new(Budget { left: requests_max, half: requests_max / 2, next: Instant::now() });
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
struct Budget {
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

    fn budget(&self) -> target::Budget {
        let budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        if budget.left > budget.half { target::Budget::Ample } else { target::Budget::Reserve }
    }

    fn connect(&self, scribe: Scribe) -> Promise<'_, Result<Option<Link>, Error>> {
        Box::pin(async move {
            self.enter().await?;
            let server = self.upstream.connect(scribe.receiving()).await.ok();
            Ok(through_the_edge(server, scribe, |_| self.upstream.redial()))
        })
    }

    fn credential(&self, kind: Credential, user: &str, _form: Form) -> Presented {
        self.tokens.present(kind, user)
    }

    fn service(&self) -> Service {
        self.service.clone()
    }

    fn residue(&self) -> Option<Residue> {
        None
    }

    fn stop(&self) -> Promise<'_, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}
