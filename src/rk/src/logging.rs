//! Logs: one line each on standard error, levels by `--debug` or `RK_LOG`.
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

pub fn start(debug: bool) {
    let default = if debug { "debug,hyper=info,h2=info,rustls=info,tower=info" } else { "info" };
    let filter = std::env::var("RK_LOG").ok().and_then(|f| EnvFilter::try_new(f).ok()).unwrap_or_else(|| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).compact().init();
}
