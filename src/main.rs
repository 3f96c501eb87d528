//! `motet`: read the settings, run the server, say where it is.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use motet::config::{Config, ConfigError};
use motet::server;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let config = match Config::load(std::env::args_os()) {
        Ok(config) => config,
        // Also help and version, which are no failures.
        Err(ConfigError::Flags(error)) => error.exit(),
        Err(error) => return fail(&error.into()),
    };
    start_log();
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

#[tokio::main]
async fn run(config: &Config) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let server = server::start(config).await?;
    // Whoever started us may have closed the pipe; calls work all the same.
    let _ = writeln!(std::io::stdout(), "Motet is ready: {}", server.url());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    server.shutdown().await;
    Ok(())
}

/// On stderr, so that stdout holds the address and nothing else. `RUST_LOG` changes what is shown.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| "motet=info,warn".into()))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}

fn fail(error: &anyhow::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "motet: {error:#}");
    ExitCode::FAILURE
}
