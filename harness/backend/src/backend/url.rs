//! The framework's URL object, which has the attributes of Python's `urlsplit` and no others.

use relapse_core::asgi::{exception::Exception, scope::Scope};

/// `websocket.url`.
#[derive(Debug)]
pub(super) struct RequestUrl {
    scheme: String,
    path: String,
    query: String,
}

impl RequestUrl {
    pub(super) fn of(scope: &Scope) -> Result<RequestUrl, Exception> {
        Ok(RequestUrl {
            scheme: scope.str("scheme").unwrap_or("ws").to_owned(),
            path: scope.str("path")?.to_owned(),
            query: String::from_utf8_lossy(scope.query()?).into_owned(),
        })
    }

    /// `getattr(url, name)`.
    pub(super) fn attribute(&self, name: &str) -> Result<&str, Exception> {
        match name {
            "scheme" => Ok(&self.scheme),
            "path" => Ok(&self.path),
            "query" => Ok(&self.query),
            "netloc" | "fragment" | "username" | "password" => Ok(""),
            _ => Err(Exception::attribute_error("URL", name)),
        }
    }
}
