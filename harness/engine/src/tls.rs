//! TLS on the way to a server, with the feature `tls`.

#[cfg(not(feature = "tls"))]
pub(crate) use absent::Tls;
#[cfg(feature = "tls")]
pub(crate) use present::Tls;

#[cfg(feature = "tls")]
mod present {
    use std::io;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use relapse_simulate::link::{Link, Secured};
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
    use tokio::net::TcpStream;
    use tokio_rustls::{
        TlsConnector,
        client::TlsStream,
        rustls::{ClientConfig, RootCertStore, pki_types::ServerName},
    };

    /// TLS as browsers have it: with the certificates of the public authorities.
    #[derive(Clone)]
    pub(crate) struct Tls(TlsConnector);

    impl Tls {
        /// TLS for new connections.
        ///
        /// # Errors
        /// Never in a build with the feature `tls`.
        pub(crate) fn new() -> Result<Tls, String> {
            let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
            let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
            Ok(Tls(TlsConnector::from(Arc::new(config))))
        }

        /// Shakes hands with a host over an open connection.
        ///
        /// # Errors
        /// Says why the handshake failed.
        pub(crate) async fn connect(&self, host: &str, stream: TcpStream) -> Result<Link, String> {
            let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
            let stream = self.0.connect(name, stream).await.map_err(|error| error.to_string())?;
            Ok(Link::Secured(Box::new(Stream(stream))))
        }
    }

    /// A stream of TLS over a socket.
    #[derive(Debug)]
    struct Stream(TlsStream<TcpStream>);

    impl Secured for Stream {
        fn socket(&self) -> &TcpStream {
            self.0.get_ref().0
        }
    }

    impl AsyncRead for Stream {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Stream {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }
}

#[cfg(not(feature = "tls"))]
mod absent {
    use relapse_simulate::link::Link;
    use tokio::net::TcpStream;

    /// TLS, which this build does not have.
    #[derive(Clone)]
    pub(crate) enum Tls {}

    impl Tls {
        /// TLS for new connections.
        ///
        /// # Errors
        /// Always in a build without the feature `tls`.
        pub(crate) fn new() -> Result<Tls, String> {
            Err("this build of `relapse` has no TLS: enable its feature `tls`, or name an http URL".to_owned())
        }

        /// Shakes hands with a host over an open connection.
        ///
        /// # Errors
        /// There is no such connection.
        pub(crate) async fn connect(&self, _host: &str, _stream: TcpStream) -> Result<Link, String> {
            match *self {}
        }
    }
}
