//! The modes of a session. They differ in name; the rule of authentication is the same in all of them.

use relapse_core::{
    asgi::{exception::Exception, scope::Scope},
    wire::percent,
};

/// A session's mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Main,
    Factory,
    Isolated,
    Legacy,
}

impl Mode {
    const ALL: [Mode; 4] = [Mode::Main, Mode::Factory, Mode::Isolated, Mode::Legacy];

    pub(super) fn name(self) -> &'static str {
        match self {
            Mode::Main => "main",
            Mode::Factory => "factory",
            Mode::Isolated => "isolated",
            Mode::Legacy => "legacy",
        }
    }

    /// The mode of a request on `/ws`: what the query says, then what the user agent says. An unknown one is main. As the
    /// framework has it, the last parameter of a name counts, and the first header.
    pub(super) fn of(scope: &Scope) -> Result<Mode, Exception> {
        let query = scope.query()?;
        let asked = query.split(|&byte| byte == b'&').filter_map(|pair| pair.strip_prefix(b"mode=")).next_back();
        if let Some(name) = asked.map(percent::decoded) {
            let found = Mode::ALL.into_iter().find(|mode| mode.name().as_bytes() == name);
            return Ok(found.unwrap_or(Mode::Main));
        }
        let agent = scope.headers()?.into_iter().find(|(name, _)| *name == b"user-agent");
        let agent = agent.map(|(_, value)| String::from_utf8_lossy(value).to_ascii_lowercase()).unwrap_or_default();
        Ok([Mode::Factory, Mode::Isolated].into_iter().find(|mode| agent.contains(mode.name())).unwrap_or(Mode::Main))
    }
}
