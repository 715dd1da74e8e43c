//! Sessions of plain HTTP: a signed cookie, and the middleware that reads it. The session stands outside of the auth
//! context, which needs it.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, header};

use super::Backend;
use crate::defect::Defect;
use relapse_core::asgi::exception::Exception;

/// The cookie's name.
const COOKIE: &str = "session";

/// The purpose that begins every signed text, so that no token is ever taken for a session.
const PURPOSE: &str = "session:";

/// How long a session lasts, in seconds.
const AGE_MAX_S: u32 = 3600;

/// `request.session`.
#[derive(Debug, Clone, Default)]
pub(super) struct SessionProperty {
    /// The user who began it.
    pub(super) user: Option<String>,
}

impl Backend {
    /// The session that the middleware puts into the request; `None` if the middleware stands inside of its reader.
    pub(super) fn session(&self, headers: &HeaderMap) -> Option<SessionProperty> {
        if self.revision.has(Defect::SessionInsideAuthContext) {
            return None;
        }
        Some(SessionProperty { user: self.signed_user(headers) })
    }

    /// The auth-context middleware's look at the session, on the cloud platform only.
    pub(super) fn read_session(&self, session: Option<&SessionProperty>) -> Result<(), Exception> {
        if session.is_none() && self.environment().is_deployed() {
            // `hasattr(request, "session")` hides an AttributeError only.
            let text = "SessionMiddleware must be installed to access request.session";
            return Err(Exception::new("AssertionError", text));
        }
        Ok(())
    }

    /// The cookie that begins a session of this user; `None` while there is no key to sign it with.
    pub(super) fn session_cookie(&self, user: &str) -> Option<String> {
        let expires = self.now() + i64::from(AGE_MAX_S);
        let name = BASE64_URL_SAFE_NO_PAD.encode(format!("{PURPOSE}{expires}:{user}"));
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.key()?.sign(name.as_bytes()));
        let same_site = if self.environment().is_deployed() { "None; Secure" } else { "Lax" };
        Some(format!("{COOKIE}={name}.{signature}; Path=/; HttpOnly; Max-Age={AGE_MAX_S}; SameSite={same_site}"))
    }

    fn signed_user(&self, headers: &HeaderMap) -> Option<String> {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let value = cookies.flat_map(|line| line.split("; ")).find_map(|pair| pair.strip_prefix("session="))?;
        let (name, signature) = value.split_once('.')?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        self.key()?.verifies(name.as_bytes(), &signature).then_some(())?;
        let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(name).ok()?).ok()?;
        let (expires, user) = text.strip_prefix(PURPOSE)?.split_once(':')?;
        (expires.parse::<i64>().ok()? > self.now()).then(|| user.to_owned())
    }
}
