//! The catalogue of defects that the backend can be told to contain.
//!
//! Each entry has exactly one site in `harness/backend/`, and the site holds the mechanism: what the reported code
//! did, never what a client saw of it.

/// Declares the catalogue: variant, name, origin, and what the code did.
macro_rules! defects {
    ($($(#[doc = $doc:literal])* $variant:ident $name:literal, from $origin:literal;)*) => {
        /// One programming mistake of the reported service.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Defect { $($(#[doc = $doc])* $variant,)* }

        impl Defect {
            /// The whole catalogue.
            pub const ALL: &[Defect] = &[$(Defect::$variant,)*];

            /// The defect's name, as cases write it.
            pub fn name(self) -> &'static str {
                match self { $(Defect::$variant => $name,)* }
            }

            /// Where it was: issue and commit of the reported service.
            pub fn origin(self) -> &'static str {
                match self { $(Defect::$variant => $origin,)* }
            }

            /// What the code does, in one sentence.
            pub fn mechanism(self) -> &'static str {
                match self { $(Defect::$variant => concat!($($doc),*).trim_ascii_start(),)* }
            }
        }
    };
}

defects! {
    /// The endpoint of `/ws` reads the attribute `query_params` of a URL object, which has only `query`.
    QueryParamsOnUrl "query_params_on_url", from "#508, #517 (918a25156)";
    /// The readiness middleware takes every GET on a WebSocket-looking path for an upgrade and demands its headers.
    PreflightOnPlainGet "preflight_on_plain_get", from "#488, #449 (6ee882ebc)";
    /// An upgrade on an unknown path is closed before it is accepted, without a word about the path.
    UnknownRouteClosed "unknown_route_closed", from "#488 (framework default)";
    /// The endpoint accepts first and authenticates afterwards, never reads the query, and maps a missing token to 1011.
    AuthAfterAccept "auth_after_accept", from "#135 (6ac1699c1)";
    /// The endpoint selects the subprotocol `jwt-auth`, whatever the client offered.
    JwtAuthAlwaysSelected "jwt_auth_always_selected", from "#280, #342 (c719894c2)";
    /// The endpoint accepts without selecting any of the subprotocols offered.
    NoSubprotocolSelected "no_subprotocol_selected", from "#280 (before c719894c2)";
    /// The endpoint calls the message constructors with one argument where they need two.
    MessageCallArity "message_call_arity", from "#290, #405 (336b01f9d)";
    /// A middleware answers any exception of the endpoint with a close that carries the exception's text.
    ExceptionAsCloseReason "exception_as_close_reason", from "#449 (190a6628f)";
    /// A middleware refuses a WebSocket scope for keys that are none of its business, and its repair is never reached.
    ScopeKeyRefused "scope_key_refused", from "#449 (190a6628f)";
    /// The endpoint receives its first message before it accepts.
    ReceiveBeforeAccept "receive_before_accept", from "#466";
    /// The receive loop goes on after the endpoint itself has closed, because it looks at the client's state only.
    ReceiveAfterOwnClose "receive_after_own_close", from "#466, #888, #1061 (before 5065d5b91)";
    /// A message over the configured size is discarded without an answer.
    OversizeMessageDropped "oversize_message_dropped", from "message size limit of the pre-SSOT route";
    /// A middleware catches every exception of an accepted WebSocket and returns.
    ExceptionSwallowed "exception_swallowed", from "#517 (a57de9ab6)";
    /// The fallback for agent requests logs a name that is bound nowhere.
    UnboundNameInFallback "unbound_name_in_fallback", from "agent fallback handler (d40b36d88)";
    /// The legacy routes `/websocket` and `/ws/test` run a handler that authenticates nobody.
    LegacyWithoutAuth "legacy_without_auth", from "legacy mode (b12)";
    /// Outside production the authentication level is RELAXED, which makes a user of whoever could not be authenticated.
    RelaxedAuthentication "relaxed_authentication", from "permissive authentication (f1207a6de)";
    /// The path for a failed authentication reads an attribute that the result object lacks.
    RefusalLacksAttribute "refusal_lacks_attribute", from "permissive authentication (516d1070e)";
    /// Outside production a header whose name merely contains `test` or `e2e` makes the endpoint trust an unverified token.
    HeaderNameBypass "header_name_bypass", from "E2E detection (b14)";
    /// Without a credential in header or subprotocol the authenticator reads `query_string` of the WebSocket object.
    QueryStringOnWebsocket "query_string_on_websocket", from "#517 (recurrence in b17)";
    /// A diagnostic record of the accepted connection puts a state enum into JSON.
    EnumInLogRecord "enum_in_log_record", from "WebSocketState in JSON (before a0ca52663)";
    /// The registration of a connection uses a name that is bound in another function.
    UnboundStateRegistry "unbound_state_registry", from "#165, #172 (before 7ed1d10ba)";
    /// The session middleware stands inside the one that reads the session, so that reading it fails.
    SessionInsideAuthContext "session_inside_auth_context", from "#169, #1127 (e314db154)";
    /// The lookup of a user reads `is_demo_mode` as an attribute of a plain dict.
    DemoModeOnDict "demo_mode_on_dict", from "#466 (bc85b64ae)";
    /// The exception handler turns a status into an error code, and that into a status by a table with few entries.
    StatusRemapped "status_remapped", from "unified error handler (b14)";
    /// The error answer of the scope guard declares a length of 77 bytes, whatever its body.
    FixedErrorLength "fixed_error_length", from "#517 (before a57de9ab6)";
}

#[cfg(test)]
mod tests {
    use super::Defect;

    #[test]
    fn a_revision_has_room_for_every_defect() {
        assert!(Defect::ALL.len() <= 64);
    }
}
