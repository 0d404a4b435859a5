//! Health, readiness and metrics: one path each, HTTP/1.1, a connection per request.
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

const REQUEST_BYTES_MAX: usize = 4096;
const CONNECTIONS_MAX: usize = 16;
const PATIENCE: Duration = Duration::from_secs(5);

/// What a path answers: whether it is well, and the text.
pub(crate) type Page = Arc<dyn Fn() -> (bool, String) + Send + Sync>;

/// Serves `page` at `path` and 404 elsewhere.
pub(crate) async fn serve(listener: TcpListener, path: &'static str, page: Page) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = connections.clone().acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, or the client is gone already; connections that end make room.
            tokio::task::yield_now().await;
            continue;
        };
        let page = page.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(PATIENCE, answer(stream, path, &page)).await;
            drop(permit);
        });
    }
}

async fn answer(mut stream: TcpStream, path: &str, page: &Page) -> std::io::Result<()> {
    let mut request = Vec::with_capacity(512);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if request.len() > REQUEST_BYTES_MAX || stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let line = request.split(|b| *b == b'\r').next().unwrap_or(&[]);
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let (status, text) = match method {
        "GET" | "HEAD" if target.split('?').next() == Some(path) => match page() {
            (true, text) => ("200 OK", text),
            (false, text) => ("503 Service Unavailable", text),
        },
        "GET" | "HEAD" => ("404 Not Found", "404 page not found\n".to_owned()),
        _ => ("405 Method Not Allowed", String::new()),
    };
    let body = if method == "HEAD" { "" } else { text.as_str() };
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        text.len()
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}
