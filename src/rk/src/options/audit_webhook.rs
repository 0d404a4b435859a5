//! Flags of the server that audit events are sent to, by kube-apiserver's names and with its defaults.
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

#[derive(Args, Clone, Debug)]
pub struct AuditWebhookOptions {
    /// Whom audit events are sent to: a kubeconfig
    #[arg(long, value_name = "FILE", requires = "audit_policy_file", group = "audit", help_heading = "API")]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// Audit events that wait for the webhook; more are lost
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, help_heading = "API")]
    pub audit_webhook_batch_buffer_size: usize,
    /// Audit events of one batch
    #[arg(long, value_name = "COUNT", default_value_t = 400, help_heading = "API")]
    pub audit_webhook_batch_max_size: usize,
    /// How long a batch is waited for
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = super::duration, help_heading = "API")]
    pub audit_webhook_batch_max_wait: Duration,
    /// Batches in a second
    #[arg(long, value_name = "COUNT", default_value_t = 10.0, help_heading = "API")]
    pub audit_webhook_batch_throttle_qps: f64,
    /// Batches that may follow each other at once
    #[arg(long, value_name = "COUNT", default_value_t = 15, help_heading = "API")]
    pub audit_webhook_batch_throttle_burst: u32,
    /// Before a batch is sent again the first time
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = super::duration, help_heading = "API")]
    pub audit_webhook_initial_backoff: Duration,
}

impl AuditWebhookOptions {
    pub fn webhook(&self) -> Option<apiserver::audit::WebhookOptions> {
        Some(apiserver::audit::WebhookOptions {
            kubeconfig: self.audit_webhook_config_file.clone()?,
            buffer_max: self.audit_webhook_batch_buffer_size,
            batch_max: self.audit_webhook_batch_max_size,
            wait_max: self.audit_webhook_batch_max_wait,
            batches_per_second: self.audit_webhook_batch_throttle_qps,
            burst: self.audit_webhook_batch_throttle_burst,
            backoff: self.audit_webhook_initial_backoff,
        })
    }
}
