//! A server that listens somewhere, named by a URL.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::tls::Tls;
use relapse_simulate::link::{Link, Receiving, Redial, dial};

/// How long a connection to the upstream may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A server that listens somewhere.
#[derive(Clone)]
pub struct Upstream {
    host: String,
    port: u16,
    tls: Option<Tls>,
}

impl Upstream {
    /// Its host.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Host and port, as a URL has them.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether it is on this machine, by its name. Where the name leads elsewhere, nothing is contacted.
    pub fn is_loopback(&self) -> bool {
        is_this_machine(&self.host)
    }

    /// Opens links to it, one after the other.
    pub fn redial(&self) -> Redial {
        let upstream = self.clone();
        Box::new(move || {
            let upstream = upstream.clone();
            Box::pin(async move { upstream.connect(Receiving::Usual).await.ok() })
        })
    }

    /// Opens a link to it.
    ///
    /// # Errors
    /// Says why there is none.
    pub async fn connect(&self, receiving: Receiving) -> Result<Link, String> {
        let connecting = async {
            let stream = self.dial(receiving).await.map_err(|error| error.to_string())?;
            let Some(tls) = &self.tls else { return Ok(Link::Tcp(stream)) };
            tls.connect(&self.host, stream).await
        };
        timeout(CONNECT_LIMIT, connecting)
            .await
            .map_err(|_| format!("no connection within {} s", CONNECT_LIMIT.as_secs()))
            .flatten()
    }
}

impl Upstream {
    /// Connects to the first of its addresses that takes the connection.
    async fn dial(&self, receiving: Receiving) -> io::Result<TcpStream> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in lookup_host((self.host.as_str(), self.port)).await? {
            if let Err(elsewhere) = self.check(address) {
                last = elsewhere;
                continue;
            }
            match dial(address, receiving).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Checks that a name of this machine leads to this machine.
    fn check(&self, address: SocketAddr) -> io::Result<()> {
        if !self.is_loopback() || address.ip().is_loopback() {
            return Ok(());
        }
        let elsewhere = format!("{} leads to {}, which is not this machine", self.host, address.ip());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, elsewhere))
    }
}

/// Whether a host is this machine, by its name or its address.
pub(crate) fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Upstream").field(&self.authority()).field(&self.tls.is_some()).finish()
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.authority())
    }
}

impl FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Upstream, String> {
        const HELP: &str = "write a URL, as in `http://127.0.0.1:8000`";
        let uri: http::Uri = text.parse().map_err(|error| format!("{error}: {HELP}"))?;
        let (is_tls, port) = match uri.scheme_str() {
            Some("http" | "ws") => (false, 80),
            Some("https" | "wss") => (true, 443),
            Some(other) => return Err(format!("the scheme `{other}` is none of http, https, ws and wss")),
            None => return Err(format!("no scheme: {HELP}")),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err("the path belongs to the client, which keeps it: name scheme, host and port only".to_owned());
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| format!("no host: {HELP}"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = if is_tls { Some(Tls::new()?) } else { None };
        Ok(Upstream { host, port: uri.port_u16().unwrap_or(port), tls })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::Upstream;

    #[rstest]
    #[case("http://127.0.0.1:8000", "http://127.0.0.1:8000", true)]
    #[case("ws://localhost", "http://localhost:80", true)]
    #[case("http://[::1]:9", "http://[::1]:9", true)]
    fn a_url_is_read(#[case] text: &str, #[case] shown: &str, #[case] is_loopback: bool) {
        let upstream: Upstream = text.parse().unwrap();
        assert_eq!((upstream.to_string().as_str(), upstream.is_loopback()), (shown, is_loopback));
    }

    #[rstest]
    #[case("http://localhost", "127.0.0.1:80", true)]
    #[case("http://localhost", "[::1]:80", true)]
    #[case("http://localhost", "192.0.2.1:80", false)]
    #[case("http://example.org", "192.0.2.1:80", true)]
    fn a_name_of_this_machine_leads_to_it(#[case] text: &str, #[case] address: &str, #[case] is_dialed: bool) {
        let upstream: Upstream = text.parse().unwrap();
        assert_eq!(upstream.check(address.parse().unwrap()).is_ok(), is_dialed);
    }

    #[cfg(feature = "tls")]
    #[test]
    fn a_url_with_tls_has_another_port() {
        a_url_is_read("wss://example.org/", "https://example.org:443", false);
    }

    #[rstest]
    #[case("127.0.0.1:8000", "scheme")]
    #[case("ftp://127.0.0.1", "`ftp`")]
    #[case("http://127.0.0.1/ws", "path belongs to the client")]
    #[case("http://", "")]
    fn what_is_none_is_refused(#[case] text: &str, #[case] why: &str) {
        let error = text.parse::<Upstream>().unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}
