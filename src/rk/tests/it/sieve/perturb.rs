//! The services between a controller and its API server: one counts calls and ends the controller at one of them, the other holds watches
//! back or breaks them off.
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use apiserver::Local;
use axum::body::{Body, Bytes};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::{Notify, watch};
use tower::Service;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Nothing,
    /// Dropped before the call reaches the server.
    CrashBefore,
    /// Dropped after the server has done it, before the answer is known.
    CrashAfter,
    /// One kind's watch is held back from right before the call on, for a while.
    Stale,
    /// Something happens while one kind's watch is held back; then the watch ends, and the next is refused as too old.
    Missed,
}

/// What happens to one controller.
pub struct Plan {
    pub how: How,
    /// Counted from 1.
    pub at: usize,
    pub calls: AtomicUsize,
    /// The moment has come.
    pub due: Notify,
    /// The watch is held back: the call may be made, and its own effect is not seen.
    pub held: Notify,
    /// It has been made.
    pub made: Notify,
    /// A watch was refused.
    pub refused: Notify,
    pub shown: Shown,
    /// What is to be done to it is done.
    pub over: watch::Sender<bool>,
}

impl Plan {
    /// `kind`: whose watches are disturbed.
    pub fn new(how: How, at: usize, kind: &'static str) -> Arc<Self> {
        let [due, held, made, refused] = std::array::from_fn(|_| Notify::new());
        let shown = Shown { kind, bytes: Mutex::default() };
        Arc::new(Self { how, at, calls: AtomicUsize::new(0), due, held, made, refused, shown, over: watch::Sender::new(false) })
    }

    /// Makes a call, and counts it.
    async fn call<B>(self: Arc<Self>, mut inner: Local, request: Request<B>) -> Result<Response<Body>, Infallible>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let is_due = self.calls.fetch_add(1, Ordering::SeqCst) + 1 == self.at;
        if is_due && self.how == How::CrashBefore {
            self.due.notify_one();
            std::future::pending::<()>().await;
        }
        if is_due && matches!(self.how, How::Stale | How::Missed) {
            self.due.notify_one();
            self.held.notified().await;
        }
        let answer = inner.call(request).await?;
        if is_due && self.how == How::CrashAfter {
            self.due.notify_one();
            std::future::pending::<()>().await;
        }
        if is_due {
            self.made.notify_one();
        }
        Ok(answer)
    }
}

/// What lists and watches of the disturbed kind have shown to the controller.
pub struct Shown {
    kind: &'static str,
    bytes: Mutex<Vec<u8>>,
}

impl Shown {
    fn add(&self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.bytes.lock().unwrap().extend_from_slice(data);
        }
    }

    /// Whether the object was among it; those of other kinds are never missed.
    pub fn has(&self, plural: &str, uid: &str) -> bool {
        let is_in = |bytes: &[u8]| bytes.windows(uid.len()).any(|part| part == uid.as_bytes());
        !uid.is_empty() && (plural != self.kind || is_in(&self.bytes.lock().unwrap()))
    }
}

/// A controller's own calls.
#[derive(Clone)]
pub struct Counted {
    pub inner: Local,
    pub plan: Arc<Plan>,
}

type Answer = BoxFuture<'static, Result<Response<Body>, Infallible>>;

fn plural(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

impl<B> Service<Request<B>> for Counted
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answer {
        let (mut inner, plan) = (self.inner.clone(), self.plan.clone());
        // Events come from a task of their own, whenever it is their time.
        if request.uri().path().contains("/events") {
            return inner.call(request);
        }
        plan.call(inner, request).boxed()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    Open,
    Held,
    /// Watches end, and are refused until it is open again.
    Broken,
}

/// The informers' calls; watches of one kind go through a gate.
#[derive(Clone)]
pub struct Gated {
    pub inner: Local,
    pub gate: watch::Receiver<Gate>,
    pub plan: Arc<Plan>,
}

impl<B> Service<Request<B>> for Gated
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answer {
        let uri = request.uri();
        let is_watch = uri.query().is_some_and(|query| query.split('&').any(|part| part == "watch=true" || part == "watch=1"));
        if *request.method() != http::Method::GET {
            // Some controllers write with the informers' client.
            return self.plan.clone().call(self.inner.clone(), request).boxed();
        }
        if plural(uri.path()) != self.plan.shown.kind {
            return self.inner.call(request);
        }
        if is_watch && *self.gate.borrow() == Gate::Broken {
            self.plan.refused.notify_one();
            let status = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"too old resource version","reason":"Expired","code":410}"#;
            let answer = Response::builder().status(410).header("content-type", "application/json").body(Body::from(status));
            return std::future::ready(Ok(answer.unwrap())).boxed();
        }
        let (mut inner, gate, plan) = (self.inner.clone(), self.gate.clone(), self.plan.clone());
        async move {
            let answer = inner.call(request).await?;
            let shown = move |frame| {
                plan.shown.add(&frame);
                frame
            };
            Ok(answer.map(|body| {
                let body = Body::new(body.map_frame(shown));
                if is_watch { Body::new(Held::new(body, gate)) } else { body }
            }))
        }
        .boxed()
    }
}

/// A watch's answer that goes on only while the gate is open.
struct Held {
    body: Body,
    gate: watch::Receiver<Gate>,
    /// Resolves at the gate's next change, to how it stands then.
    turn: BoxFuture<'static, ()>,
}

impl Held {
    fn new(body: Body, gate: watch::Receiver<Gate>) -> Self {
        let turn = next_turn(gate.clone());
        Self { body, gate, turn }
    }
}

fn next_turn(mut gate: watch::Receiver<Gate>) -> BoxFuture<'static, ()> {
    gate.borrow_and_update();
    async move {
        if gate.changed().await.is_err() {
            std::future::pending().await
        }
    }
    .boxed()
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            let now = *self.gate.borrow();
            match now {
                Gate::Broken => return Poll::Ready(None),
                Gate::Held => ready!(self.turn.poll_unpin(cx)),
                Gate::Open => match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Ready(frame) => return Poll::Ready(frame),
                    Poll::Pending => ready!(self.turn.poll_unpin(cx)),
                },
            }
            self.turn = next_turn(self.gate.clone());
        }
    }
}
