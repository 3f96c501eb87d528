//! The operator's listener: metrics, and whether the process lives and is ready. Apart from the page, because what it
//! tells is not for everybody.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::http::header;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::observe::metrics::{CONTENT_TYPE, Metrics};
use crate::signal::http;
use crate::signal::rooms::Rooms;

/// The listener, where one is wanted, and its address.
pub(super) async fn bind(address: Option<SocketAddr>) -> anyhow::Result<Option<(TcpListener, SocketAddr)>> {
    let Some(address) = address else { return Ok(None) };
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} (--admin)"))?;
    let address = listener.local_addr()?;
    tracing::info!(admin = %address, "metrics");
    Ok(Some((listener, address)))
}

/// Until it is aborted.
pub(super) async fn serve(listener: TcpListener, rooms: Arc<Rooms>, metrics: Metrics) {
    let metrics = Arc::new(metrics);
    let scrape = move || {
        let page = metrics.text();
        async move { ([(header::CONTENT_TYPE, CONTENT_TYPE)], page) }
    };
    let router = Router::new().merge(http::health()).route("/metrics", get(scrape)).with_state(rooms);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin listener ended");
    }
}
