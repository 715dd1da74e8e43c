//! The catalogue of defects that the backend can be told to contain.
//!
//! Each entry has exactly one site in `harness/backend/`, and the site holds the mechanism: what the reported code
//! did, never what a client saw of it.

use relapse::defects::DefectEntry;

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

            /// The whole catalogue, as cases and reports use it.
            pub const ENTRIES: &[DefectEntry] = &[$(DefectEntry {
                name: $name,
                origin: $origin,
                mechanism: concat!($($doc),*).trim_ascii_start(),
            },)*];

            /// The mechanism in the code, in one sentence.
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
    /// The receive loop takes whatever `receive` raises for something that passes, pauses, and goes on.
    LoopGoesOn "loop_goes_on", from "#888, #1061 (before 5065d5b91)";
    /// A message over the configured size is discarded without an answer.
    OversizeMessageDropped "oversize_message_dropped", from "message size limit of the pre-SSOT route";
    /// A middleware catches every exception of an accepted WebSocket and returns.
    ExceptionSwallowed "exception_swallowed", from "#517 (a57de9ab6)";
    /// The fallback for agent requests logs a name that is bound nowhere.
    UnboundNameInFallback "unbound_name_in_fallback", from "agent fallback handler (d40b36d88)";
    /// The legacy routes `/websocket` and `/ws/test` run a handler that authenticates no user.
    LegacyWithoutAuth "legacy_without_auth", from "legacy mode (b12)";
    /// Outside production the authentication level is RELAXED, which makes a user of a client that could not be authenticated.
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
    /// The imports at the top of the application's module let one name go unbound, and a class body uses it.
    NameErrorAtImport "name_error_at_import", from "#517 (before 2bb6304ee)";
    /// The application's module has an f-string with the same quotes inside, which this Python cannot read.
    SyntaxErrorAtBoot "syntax_error_at_boot", from "#488 (125ee4140)";
    /// The lifespan gives up as soon as one dependency does not answer during the start.
    StartupGivesUp "startup_gives_up", from "deterministic startup of the reported service";
    /// The lifespan says that it has started only when every phase is over, however long that takes.
    ListensWhenStarted "listens_when_started", from "deterministic startup of the reported service";
    /// An upgrade during the first phases waits, is put into a queue, and its endpoint returns.
    QueuedBeforeStartup "queued_before_startup", from "#586, #919 (fc6b4755a)";
    /// The process listens on another port than clients are told.
    ListensElsewhere "listens_elsewhere", from "#860 (environment)";
    /// Without a configured secret the token check raises, once for every request.
    SecretReadPerRequest "secret_read_per_request", from "#466 (before 087dab0ce)";
    /// Without a configured secret every process makes up its own.
    RandomSecret "random_secret", from "#466 (jwt_staging_configuration_fix of 087dab0ce)";
    /// The registry of agents is made without a language model and logs a warning.
    RegistryWithoutModel "registry_without_model", from "#135 (0cc7e74ce)";
    /// The retries of an event's delivery are decided by `ENVIRONMENT` alone, not by the one resolver.
    EnvironmentRulesDisagree "environment_rules_disagree", from "#135 (b7180f8bf)";
    /// The readiness guard logs that something is not ready, and lets the upgrade through.
    ReadinessFailOpen "readiness_fail_open", from "#135, #586 (b12)";
    /// In staging whatever is not ready is overridden to ready.
    StagingReadyOverride "staging_ready_override", from "#488 (a6dfbdc37)";
    /// The health routes answer a constant.
    HealthConstant "health_constant", from "#488 (b17)";
    /// A component that is not ready is reported by a close code of its own, after the accept.
    ComponentCloseCodes "component_close_codes", from "#135 (6ac1699c1)";
    /// An upgrade that cannot be served is accepted, and its endpoint returns.
    ConnectionMaintained "connection_maintained", from "#135 (6ac1699c1)";
    /// The readiness check calls `is_connected`, which is a property, and catches what that raises.
    RedisPropertyCalled "redis_property_called", from "#334 (before e51615fe9)";
    /// Upgrades hold one lock while they ask their dependencies.
    UpgradesWaitInLine "upgrades_wait_in_line", from "#135 (cold start)";
    /// The manager's factory imports a name that its module does not have.
    ImportInFactory "import_in_factory", from "#135 (before 6ac1699c1)";
    /// The statistics read an attribute that the metrics object lacks.
    MetricsLackAttribute "metrics_lack_attribute", from "#135 (6ac1699c1)";
    /// The auth breaker counts refused credentials as failures of the auth service.
    BreakerCountsClients "breaker_counts_clients", from "permissive authentication (f1207a6de)";
    /// Without `DEMO_MODE` the authentication level is DEMO, which makes every client the demo user and is forbidden in
    /// production.
    DemoByDefault "demo_by_default", from "demo mode (3f0496595)";
    /// A cache of authenticated users is keyed without the user's identity.
    UserCacheWithoutIdentity "user_cache_without_identity", from "concurrent-token cache (b14)";
    /// Limits on connections are keyed by the client's host and port.
    LimitsKeyedByPort "limits_keyed_by_port", from "#135 (b7180f8bf)";
    /// The manager of a closed connection stays in the registry.
    ManagersLeak "managers_leak", from "#108 (before bdda41252)";
    /// An agent run keeps its user and its thread where every run of the process does.
    SharedRunContext "shared_run_context", from "multi-user isolation";
    /// The events of a run are addressed to the thread of the run that began last.
    SharedThread "shared_thread", from "multi-user isolation";
    /// Factory mode passes a parameter that the extractor does not have.
    FactoryUnknownParameter "factory_unknown_parameter", from "factory mode (336b01f9d)";
    /// Isolated mode calls its context manager without arguments.
    IsolatedScopeArguments "isolated_scope_arguments", from "isolated mode (b14)";
    /// Isolated mode refuses with the whole error text as the close reason, and catches what that raises.
    IsolatedRefusalTooLong "isolated_refusal_too_long", from "isolated mode (b14)";
    /// The list of negotiable subprotocols lacks forms that the token extractor understands.
    FormsNotNegotiable "forms_not_negotiable", from "#886 (before 173303e69)";
    /// A plain function is registered where the router expects an object with `can_handle`.
    HandlerIsAFunction "handler_is_a_function", from "handler protocol (before 7f6ba9220)";
    /// A message of an unknown type raises while the message object is made.
    UnknownTypeRaises "unknown_type_raises", from "message types (b14)";
    /// A middleware turns a plain request that carries upgrade headers into a WebSocket scope.
    HttpScopeRewritten "http_scope_rewritten", from "#449 (58d5990a5)";
    /// The auth middleware compares the paths it excludes by substring, and `/` is among them.
    AuthExcludesEverything "auth_excludes_everything", from "HTTP auth middleware (b14)";
    /// A guard around the HTTP routes answers every exception with 400, 401 or 426, chosen by words in its text.
    RelabellingGuard "relabelling_guard", from "#517 (a57de9ab6)";
    /// A guard answers an exception before the accept by running the application again.
    GuardRunsTwice "guard_runs_twice", from "#517 (a57de9ab6)";
    /// A guard closes a WebSocket normally whatever its endpoint raised.
    ExceptionClosedNormally "exception_closed_normally", from "#135 (cleanup of b11)";
    /// The error answer of the scope guard declares a length of 77 bytes, whatever its body.
    FixedErrorLength "fixed_error_length", from "#517 (before a57de9ab6)";
}

#[cfg(test)]
mod tests {
    use super::Defect;

    #[test]
    fn a_revision_has_room_for_every_defect() {
        assert!(Defect::ALL.len() <= 128);
    }
}
