//! Every kind of credential, in every place, in every environment: accepted where every rule holds, refused elsewhere.

use relapse::{environment::Environment, target::Target as _};
use relapse_backend::{
    revision::Revision,
    target::{Embedded, Transport},
};
use relapse_core::{
    client::{
        credential::{Credential, CredentialPlace, Form},
        step::{Action, Request},
    },
    judge::{classify::Exchange, outcome::Class},
    record::transcript::Transcript,
};
use rstest::rstest;

use crate::support::{on_backend, profile, step, wait};

const ENVIRONMENTS: [Environment; 4] =
    [Environment::Development, Environment::Testing, Environment::Staging, Environment::Production];

fn upgrade(request: Request, environment: Environment) -> Transcript {
    let steps = [step(Action::Open(request)), wait("connection_established")];
    on_backend(Revision::repaired(), environment, "uvicorn-0.35", Vec::new(), &steps)
}

#[rstest]
fn a_credential_opens_a_session_or_is_refused(
    #[values(
        CredentialPlace::Header,
        CredentialPlace::LowerCaseHeader,
        CredentialPlace::Subprotocol,
        CredentialPlace::SubprotocolAlone,
        CredentialPlace::StagingSubprotocol,
        CredentialPlace::Query,
        CredentialPlace::Ticket
    )]
    place: CredentialPlace,
) {
    for kind in Credential::ALL {
        let expected = match kind {
            Credential::Valid => Class::Served,
            // It is more than the server takes.
            Credential::OverLong => Class::RefusedRequest,
            _ => Class::RefusedAuth,
        };
        for environment in ENVIRONMENTS {
            for user in ["u", "a-user-with-a-long-name"] {
                let request = Request {
                    credential: kind,
                    places: vec![place],
                    user: user.to_owned(),
                    ..Request::standard("GET", "/ws")
                };
                let transcript = upgrade(request, environment);
                let reading = Exchange::of(&transcript, 0);
                let outcome = reading.outcome();
                assert_eq!(outcome.class, expected, "{kind:?} by {place:?} in {environment} for {user}: {outcome}");
                assert_eq!(reading.is_welcomed_as_itself(), expected == Class::Served);
            }
        }
    }
}

/// A second credential must be as good as the first, and name the same user.
#[rstest]
#[case::same_user(Credential::Valid, "user-1", Class::Served)]
#[case::another_user(Credential::Valid, "user-2", Class::DisguisedError)]
#[case::expired(Credential::Expired, "user-1", Class::DisguisedError)]
#[case::garbage(Credential::Garbage, "user-1", Class::DisguisedError)]
#[case::unsigned(Credential::Unsigned, "user-1", Class::DisguisedError)]
fn two_credentials_must_agree(#[case] second: Credential, #[case] user: &str, #[case] expected: Class) {
    for environment in ENVIRONMENTS {
        let issuer = Embedded::launch(Revision::repaired(), environment, profile("uvicorn-0.35"), Transport::Memory, 2);
        let token = issuer.credential(second, user, Form::Token).text;
        let query = format!("token={token}").into_bytes();
        let transcript = upgrade(Request { query, ..Request::standard("GET", "/ws") }, environment);
        let reading = Exchange::of(&transcript, 0);
        // The classification knows of the first credential only, which is why a refusal looks like a mask to it.
        assert_eq!(reading.outcome().class, expected, "{second:?} of {user} in {environment}");
        let status = reading.response.map(|head| head.status);
        assert_eq!(status, Some(if expected == Class::Served { 101 } else { 401 }));
    }
}
