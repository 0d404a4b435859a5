//! Loads one API server with what people bring themselves, and says how quick it was: rk's, or another that speaks the same API.
//!
//! `cargo run --release -p rk --example extensions -- KUBECONFIG PHASE [--seconds N] [--count N] [--address IP] [--label TEXT]`, one line for
//! each figure, as the example `api_load` has them; of what is done only once, its seconds. Phases: `first` (the time from a definition to its first
//! object, `--count` times), `install` (`--count` definitions that stay), `churn` (`--count` definitions that come and go), `writes` (applies,
//! custom objects with rules, an admission policy), `fill` and `lists` (`--count` custom objects beside as many of a built-in kind), `trouble`
//! (other requests' latency while webhooks hang, an aggregated server dies, long patches come, a conversion is slow; those servers listen at
//! `--address`), `turnover` (`--count` ConfigMaps and half as many Pods that come and go). `tests/bench/extensions.py` runs them against two servers in turn.
#[path = "../shared/calls.rs"]
mod calls;
mod bystanders;
mod definitions;
mod lists;
mod servers;
mod shapes;
mod trouble;
mod turnover;
mod writes;

use anyhow::bail;

use self::calls::Options;

const USAGE: &str = "usage: extensions KUBECONFIG first|install|churn|writes|fill|lists|trouble|turnover [--seconds N] [--count N] [--address IP] [--label TEXT]";
const NAMESPACE: &str = "load";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    pki::install_ring();
    let options = Options::read(USAGE, &["seconds", "count", "address", "label"])?;
    match options.phase.as_str() {
        "first" => definitions::first(&options).await,
        "install" => definitions::install(&options).await,
        "churn" => definitions::churn(&options).await,
        "writes" => writes::writes(&options).await,
        "fill" => lists::fill(&options).await,
        "lists" => lists::lists(&options).await,
        "trouble" => trouble::trouble(&options).await,
        "turnover" => turnover::turnover(&options).await,
        other => bail!("no phase is called {other}\n{USAGE}"),
    }
}
