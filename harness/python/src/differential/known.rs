//! The situations in which a server is known to do something else than its profile.

use super::program::{
    Deed, ExceptionFate, GeneratedApp, Holder, Move, Offer, ProgramAction, ProgramConnection, ProgramRequest,
};
use relapse_core::wire::close_code::CloseCode;
use relapse_simulate::profile::{Profile, SequencePrograms, Situation};

/// Whether a program can be performed by the server of a profile.
pub(super) fn is_performed(program: &GeneratedApp, profile: &Profile) -> bool {
    let mut left_out = profile.differences.iter().filter(|known| known.programs == SequencePrograms::LeftOut);
    !left_out.any(|known| is_in(program, known.situation))
}

/// Whether a program is in one of these situations.
pub(super) fn is_in_any(program: &GeneratedApp, situations: &[Situation]) -> bool {
    situations.iter().any(|situation| is_in(program, *situation))
}

/// Whether a program brings a situation about.
// Long: a question for each situation.
pub(super) fn is_in(program: &GeneratedApp, situation: Situation) -> bool {
    match situation {
        Situation::AnotherCall => acts(program).any(|(_, act)| act.holder == Holder::Other),
        Situation::TextAndBytes => acts(program).any(|(_, act)| act.deed == Deed::Both),
        Situation::RaisesAfterStart => program.connections.iter().any(|one| {
            let acts = one.segments.iter().flatten();
            let mut after = acts.skip_while(|act| !matches!(act.deed, Deed::Start(..))).skip(1);
            !one.kind.is_websocket() && after.any(may_raise)
        }),
        Situation::NotAccepted => program.connections.iter().any(|one| {
            // An accept that comes later than the first turn may come too late.
            let mut acts = one.segments.first().into_iter().flatten();
            let first = acts.find(|act| !act.deed.is_receive() && act.deed != Deed::Wait);
            // An application that receives twice waits for ever.
            let receives = one.segments.iter().flatten().take_while(|act| act.deed.is_receive()).count();
            one.kind.is_websocket() && (receives > 1 || !first.is_some_and(|act| act.deed.is_accept()))
        }),
        Situation::AfterOwnEnd => program.connections.iter().any(|one| {
            let mut all = one.segments.iter().flatten();
            all.any(|act| ends(one, act)) && all.next().is_some()
        }),
        Situation::AfterClientEnd => (0..program.connections.len()).any(|at| {
            let mut moves = program.moves.iter();
            let end = moves.position(|step| matches!(step, Move::Close(of, _) | Move::Leave(of) if *of == at));
            end.is_some_and(|end| program.moves[end..].contains(&Move::Go(at)) || waits_at(program, at, end))
        }),
        Situation::CancelledReceive => acts(program).any(|(_, act)| act.deed == Deed::ReceiveSoon),
        Situation::OtherProtocol => acts(program).any(|(one, act)| is_foreign(one, act)),
        Situation::DenialResponse => acts(program).any(|(_, act)| act.deed.is_denial()),
        Situation::DenialBodyFirst => program.connections.iter().any(|one| {
            let first = one.segments.iter().flatten().find(|act| act.deed.is_denial());
            first.is_some_and(|act| !matches!(act.deed, Deed::Deny(_)))
        }),
        Situation::UnreadMessages => program.moves.iter().any(|step| matches!(step, Move::Text(_) | Move::Bytes(_))),
        Situation::RequestLeft => program
            .moves
            .iter()
            .any(|step| matches!(step, Move::Leave(at) if !program.connections[*at].kind.is_websocket())),
        Situation::WrongLength => {
            acts(program).any(|(_, act)| matches!(act.deed, Deed::Start(204, _) | Deed::Start(_, Some(_))))
        }
        Situation::UnofferedSubprotocol => acts(program)
            .any(|(one, act)| act.deed == Deed::AcceptNamed && one.kind == ProgramRequest::Websocket(Offer::Nothing)),
        Situation::UnsendableClose => acts(program).any(|(_, act)| match act.deed {
            Deed::Close(Some(code)) => !CloseCode(code).is_sendable(),
            Deed::CloseSurrogates => true,
            Deed::CloseSaying(code, length) => !CloseCode(code).is_sendable() || length > CloseCode::REASON_BYTES_MAX,
            _ => false,
        }),
    }
}

/// Whether the application waits in a receive of a connection before a move.
fn waits_at(program: &GeneratedApp, at: usize, end: usize) -> bool {
    let before = &program.moves[..end];
    let performed = before.iter().filter(|step| **step == Move::Go(at)).count();
    let acts = program.connections[at].segments.iter().take(performed).flatten();
    let receives = acts.filter(|act| act.deed.is_receive() && act.holder == Holder::Own).count();
    let messages = before.iter().filter(|step| matches!(step, Move::Text(to) | Move::Bytes(to) if *to == at)).count();
    // The first event is the connect.
    program.connections[at].kind.is_websocket() && receives > 1 + messages
}

/// The acts of a program, each with its connection.
fn acts(program: &GeneratedApp) -> impl Iterator<Item = (&ProgramConnection, &ProgramAction)> {
    program.connections.iter().flat_map(|one| one.segments.iter().flatten().map(move |act| (one, act)))
}

/// Whether an exception may leave the application in an act.
fn may_raise(act: &ProgramAction) -> bool {
    let cannot_raise = act.deed.is_receive() || matches!(act.deed, Deed::Return | Deed::Wait);
    act.exception == ExceptionFate::Escapes && !cannot_raise
}

/// Whether an act ends a connection for the application.
fn ends(connection: &ProgramConnection, act: &ProgramAction) -> bool {
    match act.deed {
        Deed::Close(_) | Deed::CloseSaying(..) | Deed::CloseSurrogates | Deed::DenyBody(_) => {
            connection.kind.is_websocket()
        }
        Deed::Body(_) => !connection.kind.is_websocket(),
        _ => false,
    }
}

/// Whether an act sends an event that its connection does not know.
fn is_foreign(connection: &ProgramConnection, act: &ProgramAction) -> bool {
    let is_http = matches!(act.deed, Deed::Start(..) | Deed::More(_) | Deed::Body(_));
    let is_neutral = matches!(act.deed, Deed::Receive | Deed::ReceiveSoon | Deed::Raise | Deed::Return | Deed::Wait);
    !is_neutral && is_http == connection.kind.is_websocket()
}
