//! Apps that try to obtain a verdict that they do not deserve.

use relapse::{
    Case, HealthyClient, Reason, Verdict,
    case::Known,
    event::{Inbound, Outbound},
    judge,
};

use crate::support::{Ends, Scripted, converse, profile};

/// A greeting that the app sends before it gets the message is no answer to it, however late the client reads it.
#[test]
fn a_greeting_is_no_answer() {
    let text = "summary = \"A question is answered.\"\nstep = [{ open = \"/\" }, { send = \"q\" }, { wait = \"close\" }]\n\
                [expect]\naccept = [\"good-open\"]\n";
    let case = Case::parse("greeting", "greeting", text, &Known::NOTHING).unwrap();
    let app = Scripted::new(|_, mut ends: Ends| async move {
        ends.receive().await?;
        ends.send(Outbound::WebsocketAccept { subprotocol: None, headers: Vec::new() }).await?;
        ends.send(Outbound::text("hello")).await?;
        while !matches!(ends.receive().await?, Inbound::WebsocketReceive { .. }) {}
        ends.send(Outbound::WebsocketClose { code: 1000, reason: String::new() }).await
    });
    let mut transcript = converse(app, &profile("uvicorn-0.54"), &case.steps);
    transcript.service = relapse::transcript::Service::unknown(relapse::TargetKind::Python);
    let result = judge::alone(&case, &judge::judge(transcript, HealthyClient::Absent));
    assert!(matches!(result, Err((Verdict::Failed, Reason::Unanswered { .. }))), "{result:?}");
}
