//! Accepts HTTP connections: how many of one address, and how long one may take to say what it wants.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::observe::reason::Reason;

use super::limit::Network;
use super::rooms::Rooms;

/// Bytes of a request's head. More serves proxies that add much, less bounds what a stranger can make us keep.
const HEAD_BYTES: usize = 64 << 10;
/// After accepting failed, mostly because no more files can be opened.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Serves `router` until `stop`, then waits for the requests that are under way.
pub async fn serve(listener: TcpListener, router: Router, rooms: Arc<Rooms>, stop: impl Future<Output = ()>) {
    // Each connection holds a receiver: `stopping` is closed when all are gone.
    let (stopping, stopped) = watch::channel(false);
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let network = Network::of(peer.ip())
                        .filter(|_| !rooms.door.settings.proxies.contains(&peer.ip().to_canonical()));
                    let Some(connected) = rooms.networks.connect(network) else {
                        rooms.door.refused.count(Reason::RateLimited);
                        continue;
                    };
                    let header_within = rooms.door.settings.header_within;
                    let (router, stopped) = (router.clone(), stopped.clone());
                    tokio::spawn(async move {
                        connection(stream, peer, router, header_within, stopped).await;
                        drop(connected);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = stop => {}
    }
    drop(listener);
    drop(stopped);
    let _ = stopping.send(true);
    stopping.closed().await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    header_within: Duration,
    mut stopped: watch::Receiver<bool>,
) {
    // Messages are small and wait for nothing.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(header_within).max_header_size(HEAD_BYTES);
    let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    // How a connection ends concerns nobody: what it carried has been told.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopped.wait_for(|stopped| *stopped) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
