//! Tunnels over pipes in memory; those over TCP and TLS are in `tests/network.rs`.
mod network;

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::protocol::STREAMS_MAX;
use crate::{Handler, StreamError, Tunnels, serve};

/// Says who it is, then repeats what it hears.
fn echo(greeting: &'static str) -> Handler {
    Arc::new(move |mut pipe| {
        Box::pin(async move {
            if pipe.write_all(greeting.as_bytes()).await.is_ok() {
                let (mut from, mut to) = tokio::io::split(pipe);
                let _ = tokio::io::copy(&mut from, &mut to).await; // the peer may leave in the middle
                let _ = to.shutdown().await;
            }
        })
    })
}

/// A tunnel of `node`; the handle ends with the agent's side.
fn connect(tunnels: &Tunnels, node: &'static str, handler: Handler) -> JoinHandle<()> {
    let (server, agent) = tokio::io::duplex(64 << 10);
    let tunnels = tunnels.clone();
    tokio::spawn(async move { tunnels.run(node, server).await });
    tokio::spawn(async move { drop(serve(agent, handler).await) })
}

/// Sends `text` on a new stream and reads all that comes back.
async fn ask(tunnels: &Tunnels, node: &str, text: &str) -> String {
    let mut stream = tunnels.dial(node).await.expect("a stream");
    stream.write_all(text.as_bytes()).await.expect("written");
    stream.shutdown().await.expect("half closed");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read to the end");
    answer
}

#[tokio::test]
async fn after_the_swap_the_server_calls_and_the_agent_answers() {
    let tunnels = Tunnels::default();
    connect(&tunnels, "a", echo("a:"));
    connect(&tunnels, "b", echo("b:"));
    assert_eq!(ask(&tunnels, "a", "hello").await, "a:hello");
    assert_eq!(ask(&tunnels, "b", "hello").await, "b:hello");
}

#[tokio::test]
async fn many_streams_run_at_once_and_one_more_is_refused() {
    let tunnels = Tunnels::default();
    connect(&tunnels, "a", echo(""));
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        streams.push(tunnels.dial("a").await.expect("a stream"));
    }
    assert!(matches!(tunnels.dial("a").await.map(drop), Err(StreamError::Busy { .. })));
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&(number as u32).to_be_bytes()).await.expect("written");
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        assert_eq!(stream.read_u32().await.expect("read"), number as u32);
    }
    streams.pop();
    assert_eq!(ask(&tunnels, "a", "x").await, "x", "the place of a stream that ended is free");
}

#[tokio::test]
async fn streams_that_nobody_reads_do_not_hold_up_the_others() {
    let flood: Handler = Arc::new(|mut pipe| {
        Box::pin(async move {
            match pipe.read_u8().await {
                Ok(b'f') => while pipe.write_all(&[0; 16 << 10]).await.is_ok() {},
                _ => drop(pipe.write_all(b"dry").await),
            }
        })
    });
    let tunnels = Tunnels::default();
    connect(&tunnels, "a", flood);
    let mut stalled = Vec::new();
    for _ in 0..STREAMS_MAX - 1 {
        let mut stream = tunnels.dial("a").await.expect("a stream");
        stream.write_all(b"f").await.expect("written");
        stalled.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(300)).await; // until their windows are full
    let answer = tokio::time::timeout(Duration::from_secs(20), ask(&tunnels, "a", "?")).await;
    assert_eq!(answer.expect("the last stream has a window of its own"), "dry");
}

#[tokio::test]
async fn a_new_tunnel_replaces_the_old_whose_streams_end_in_peace() {
    let tunnels = Tunnels::default();
    connect(&tunnels, "a", echo("old:"));
    let mut stream = tunnels.dial("a").await.expect("a stream");
    let (server, agent) = tokio::io::duplex(64 << 10);
    tokio::spawn(serve(agent, echo("new:")));
    let new = tunnels.clone();
    tokio::spawn(async move { new.run("a", server).await });
    while ask(&tunnels, "a", "").await != "new:" {
        tokio::task::yield_now().await;
    }
    stream.write_all(b"x").await.expect("written");
    stream.shutdown().await.expect("half closed");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read to the end");
    assert_eq!(answer, "old:x");
    assert_eq!(tunnels.connected(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_a_moment_for_a_node_and_no_longer() {
    let tunnels = Tunnels::default();
    let error = tunnels.dial("a").await.map(drop).expect_err("nobody is there");
    assert_eq!(error.to_string(), "node \"a\" is not connected to this server");
    let later = tunnels.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        connect(&later, "a", echo("here"));
    });
    assert_eq!(ask(&tunnels, "a", "").await, "here");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_fell_silent_is_given_up() {
    let tunnels = Tunnels::default();
    // The agent's machine has lost its power: the pipe stays open, and nobody answers.
    let (server, agent) = tokio::io::duplex(64 << 10);
    let started = tokio::time::Instant::now();
    tunnels.run("a", server).await;
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    assert!(tunnels.connected().is_empty());
    drop(agent);
}

#[tokio::test]
async fn a_node_whose_tunnel_ended_is_not_connected() {
    let tunnels = Tunnels::default();
    let agent = connect(&tunnels, "a", echo(""));
    ask(&tunnels, "a", "").await;
    agent.abort();
    while !tunnels.connected().is_empty() {
        tokio::task::yield_now().await;
    }
}
