//! postStart and preStop: a command, a request, a pause.
//!
//! Models pkg/kubelet/lifecycle/handlers.go, v1.37.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use runtime::Runtime;
use tokio::net::TcpStream;

use crate::probe::attempt::{http_get, port_of};
use crate::probe::state::Outcome;

const OUTPUT_BYTES_MAX: usize = 10 * 1024;

/// Runs the hook to its end. The caller limits its time.
pub async fn run(runtime: &Runtime, container: &Container, id: &str, pod_ip: &str, hook: &LifecycleHandler) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let shown = command.join(" ");
        return match runtime.exec_sync(id, command, None, OUTPUT_BYTES_MAX).await {
            Ok(output) if output.exit.code == 0 => Ok(()),
            Ok(output) => Err(format!(
                "Exec lifecycle hook ([{shown}]) for Container {:?} failed - error: command '{shown}' exited with {}: {}, message: {:?}",
                container.name,
                output.exit.code,
                String::from_utf8_lossy(&output.stderr),
                String::from_utf8_lossy(&output.stdout)
            )),
            Err(error) => Err(format!("Exec lifecycle hook ([{shown}]) for Container {:?} failed - error: {error}", container.name)),
        };
    }
    if let Some(get) = &hook.http_get {
        return match http_get(get, pod_ip, container, "kube-lifecycle/1.37").await {
            Outcome::Success | Outcome::Warning(_) => Ok(()),
            Outcome::Failure(error) | Outcome::Unknown(error) => {
                Err(format!("HTTP lifecycle hook ({}) for Container {:?} failed - error: {error}", get.path.as_deref().unwrap_or("/"), container.name))
            }
        };
    }
    if let Some(tcp) = &hook.tcp_socket {
        // Upstream has refused it since its first release; a connection is what it asks for.
        let port = port_of(&tcp.port, container)?;
        let host: std::net::IpAddr = tcp.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_ip).parse().map_err(|e| format!("tcpSocket hook: {e}"))?;
        return TcpStream::connect((host, port)).await.map(|_| ()).map_err(|e| e.to_string());
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err(format!("invalid handler for container {}", container.name))
}
