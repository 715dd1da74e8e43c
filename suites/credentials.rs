//! Every kind of credential, in every place, in every environment: accepted where every rule holds, refused elsewhere.

use std::time::Duration;

use relapse::{
    Class, Environment, Plan, Revision,
    classify::Reading,
    clock::{Clock, Runtime},
    credential::{Credential, CredentialPlace},
    run,
    running::Running,
    step::{Act, Awaited, Request, Step},
    target::{Embedded, Transport},
};
use rstest::rstest;

use crate::support::profile;

#[rstest]
#[case(Credential::Valid, Class::GoodOpen)]
#[case(Credential::None, Class::GoodAuthRefusal)]
#[case(Credential::Empty, Class::GoodAuthRefusal)]
#[case(Credential::Garbage, Class::GoodAuthRefusal)]
#[case(Credential::Expired, Class::GoodAuthRefusal)]
#[case(Credential::NotYetValid, Class::GoodAuthRefusal)]
#[case(Credential::WrongSignature, Class::GoodAuthRefusal)]
#[case(Credential::WrongIssuer, Class::GoodAuthRefusal)]
#[case(Credential::WrongAudience, Class::GoodAuthRefusal)]
#[case(Credential::MissingSubject, Class::GoodAuthRefusal)]
#[case(Credential::Unsigned, Class::GoodAuthRefusal)]
#[case(Credential::TwoSegments, Class::GoodAuthRefusal)]
fn a_credential_opens_a_session_or_is_refused(#[case] kind: Credential, #[case] expected: Class) {
    let places = [
        CredentialPlace::Header,
        CredentialPlace::Subprotocol,
        CredentialPlace::SubprotocolAlone,
        CredentialPlace::Query,
    ];
    let environments = [Environment::Development, Environment::Testing, Environment::Staging, Environment::Production];
    for place in places {
        for environment in environments {
            for user in ["u", "user-1", "a-user-with-a-long-name"] {
                let request = Request {
                    credential: kind,
                    places: vec![place],
                    user: user.to_owned(),
                    ..Request::standard("GET", "/ws")
                };
                let step = |act| Step { act, limit: Duration::from_secs(2) };
                let welcome = Awaited::Message("connection_established".to_owned());
                let steps = [step(Act::Open(request)), step(Act::Wait(welcome))];
                let transcript = Runtime::new(Clock::Virtual).block_on(async {
                    let profile = profile("uvicorn-0.35");
                    let target = Embedded::launch(Revision::repaired(), environment, profile, Transport::Memory, 1);
                    let transcript = run::converse(&steps, Plan::default(), &target).await.unwrap();
                    target.stop().await.unwrap();
                    transcript
                });
                let reading = Reading::of(&transcript, 0);
                let outcome = reading.outcome();
                assert_eq!(outcome.class, expected, "{kind:?} by {place:?} in {environment} for {user}: {outcome}");
                assert_eq!(reading.is_welcomed_as_itself(), expected == Class::GoodOpen);
            }
        }
    }
}
