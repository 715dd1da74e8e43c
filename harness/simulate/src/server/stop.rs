//! How a connection learns that its server's process stops.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use tokio::sync::watch;

use crate::application::BoxFuture;
use crate::server::Life;

/// Tells a connection that its server's process stops: once when the process is told to, and once when it is gone.
pub(super) struct StopNotice {
    /// Gives the next change of the process, and the wait for the one after it. `None` if the process is not watched, or is gone.
    news: Option<BoxFuture<'static, (Life, watch::Receiver<Life>)>>,
}

impl StopNotice {
    pub(super) fn watching(life: Option<watch::Receiver<Life>>) -> StopNotice {
        StopNotice { news: life.map(|life| news(life, Life::Starting)) }
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Life> {
        let Some(waiting) = self.news.as_mut() else { return Poll::Pending };
        let (stands, life) = ready!(waiting.as_mut().poll(cx));
        self.news = (stands != Life::Exited).then(|| news(life, stands));
        Poll::Ready(stands)
    }

    /// Waits until the process is gone; for ever if it is not watched.
    pub(super) async fn exit(&mut self) {
        while self.next().await != Life::Exited {}
    }

    pub(super) async fn next(&mut self) -> Life {
        poll_fn(|cx| self.poll_next(cx)).await
    }
}

fn news(mut life: watch::Receiver<Life>, known: Life) -> BoxFuture<'static, (Life, watch::Receiver<Life>)> {
    Box::pin(async move {
        let changed = life.wait_for(|life| match life {
            Life::Exited => true,
            Life::Stopping => known != Life::Stopping,
            Life::Starting | Life::Listening => false,
        });
        // A process without an owner is gone.
        let stands = changed.await.map_or(Life::Exited, |stands| *stands);
        (stands, life)
    })
}
