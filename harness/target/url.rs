//! Anything that listens: a server of which only the wire is seen.

use crate::{
    application::Promise,
    binding::Binding,
    credential::{Credential, Form, Presented},
    edge,
    error::Error,
    fault::Place,
    link::Link,
    recorder::Scribe,
    running::Running,
    transcript::{Residue, Service},
    upstream::Upstream,
};

/// A server behind a URL.
#[derive(Debug)]
pub struct Url {
    upstream: Upstream,
    service: Service,
    /// A token that it takes; empty where it needs none.
    valid: String,
    /// A token that it must refuse.
    invalid: String,
}

impl Url {
    /// The server behind this URL, which takes this token.
    pub fn new(upstream: Upstream, binding: &Binding, valid: String) -> Url {
        let service = Service { secrets: Vec::new(), ..binding.service() };
        Url { upstream, service, valid, invalid: binding.credential.invalid.clone() }
    }
}

impl Running for Url {
    fn connect(&self, scribe: Scribe) -> Promise<'_, Result<Option<Link>, Error>> {
        Box::pin(async move {
            let server = self.upstream.connect().await.ok();
            if !scribe.has_faults_at(Place::Edge) {
                return Ok(server);
            }
            let (client, near) = Link::pair();
            tokio::spawn(edge::relay(near, server, scribe, None));
            Ok(Some(client))
        })
    }

    fn restart(&self, _scribe: Scribe) -> Promise<'_, Result<(), Error>> {
        let fault = "anything on the process of a server behind a URL".to_owned();
        Box::pin(async move { Err(Error::NoSuchPlace { fault }) })
    }

    fn credential(&self, kind: Credential, user: &str, _form: Form) -> Presented {
        let text = if kind == Credential::Valid { &self.valid } else { &self.invalid };
        Presented { kind, text: text.clone(), subject: user.to_owned() }
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
