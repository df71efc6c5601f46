//! The body of a response that may be too long to be held in memory.

use std::io::{self, Write};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame};
use tokio::sync::{mpsc, oneshot};

use super::connections::RequestGuard;
use crate::metrics::ScrapeError;

/// Maximum size of a response of known length, bytes. A longer one is sent while it is generated.
const WHOLE: usize = 1024 * 1024;

/// Approximate size of the chunks of a long response after the first, and maximum size of its frames, bytes.
const CHUNK: usize = 64 * 1024;

/// Number of chunks that are generated ahead of the client.
const AHEAD: usize = 2;

/// Approximate size of the part of a long body that waits for the client, bytes.
const MADE: usize = AHEAD * CHUNK;

/// A body, as far as it is generated when its response begins.
pub(super) enum ResponseBody {
    /// The complete body.
    Whole(Bytes),
    /// A longer body that is still being generated: chunks, then `None` at its end.
    Long(mpsc::Receiver<Option<Bytes>>),
}

impl ResponseBody {
    /// The empty body.
    pub(super) const NONE: Self = Self::Whole(Bytes::new());

    /// Returns the body in the type that hyper sends. It ends the request when it has been sent or is dropped.
    pub(super) fn of(self, request: RequestGuard) -> Either<Full<Bytes>, Stream> {
        match self {
            Self::Whole(bytes) => {
                request.begin_answer(bytes.len(), false);
                let held = Held {
                    bytes,
                    _request: request,
                };
                Either::Left(Full::new(Bytes::from_owner(held)))
            }
            Self::Long(chunks) => {
                request.begin_answer(MADE, true);
                Either::Right(Stream::new(chunks, request))
            }
        }
    }
}

/// A complete body, dropped when the last of it has been sent to the client.
struct Held {
    bytes: Bytes,
    _request: RequestGuard,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Sends the body of a response once it begins, or the reason why there is none.
pub(super) type ResponseSender = oneshot::Sender<Result<ResponseBody, ScrapeError>>;

/// A body to be written by a thread that may block.
///
/// A write error means that the client is gone.
pub(super) struct Writer {
    bytes: Vec<u8>,
    client: mpsc::Sender<Option<Bytes>>,
    /// The channels of a response that has not begun yet.
    beginning: Option<(ResponseSender, mpsc::Receiver<Option<Bytes>>)>,
}

impl Writer {
    /// Creates a body, whose beginning is sent to `answer`.
    pub(super) fn new(answer: ResponseSender) -> Self {
        let (client, chunks) = mpsc::channel(AHEAD);
        Self {
            bytes: Vec::new(),
            client,
            beginning: Some((answer, chunks)),
        }
    }

    /// Ends the body. If it is dropped instead, the client gets an error as well.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if let Some((answer, _)) = self.beginning.take() {
            let whole = ResponseBody::Whole(self.bytes.into());
            return answer.send(Ok(whole)).map_err(|_| gone());
        }
        self.pass_on()?;
        self.send(None)
    }

    /// Passes on the gathered bytes; the first time, the response begins with them.
    fn pass_on(&mut self) -> io::Result<()> {
        if let Some((answer, chunks)) = self.beginning.take() {
            let long = ResponseBody::Long(chunks);
            answer.send(Ok(long)).map_err(|_| gone())?;
        }
        let bytes = mem::replace(&mut self.bytes, Vec::with_capacity(CHUNK + CHUNK / 2));
        self.send(Some(bytes.into()))
    }

    /// Sends a chunk; blocks while [`AHEAD`] chunks wait for the client.
    fn send(&self, chunk: Option<Bytes>) -> io::Result<()> {
        self.client.blocking_send(chunk).map_err(|_| gone())
    }
}

fn gone() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        let gathered = if self.beginning.is_some() {
            WHOLE
        } else {
            CHUNK
        };
        if self.bytes.len() > gathered {
            self.pass_on()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A long body that is being sent to the client.
pub(super) struct Stream {
    chunks: mpsc::Receiver<Option<Bytes>>,
    /// The part of the last chunk that has not been sent.
    rest: Bytes,
    request: RequestGuard,
}

impl Stream {
    fn new(chunks: mpsc::Receiver<Option<Bytes>>, request: RequestGuard) -> Self {
        Self {
            chunks,
            rest: Bytes::new(),
            request,
        }
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.rest.is_empty() {
            match ready!(self.chunks.poll_recv(context)) {
                Some(Some(bytes)) => self.rest = bytes,
                Some(None) => return Poll::Ready(None),
                // End the connection: a truncated body must not pass for a complete one.
                None => return Poll::Ready(Some(Err(gone()))),
            }
        }
        // The client is reading: its wait begins anew, also within the first chunk, which is long.
        self.request.made(MADE);
        let length = self.rest.len().min(CHUNK);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use http_body_util::BodyExt as _;
    use tokio::time::Instant;

    use super::*;
    use crate::http::connections::Connections;

    /// Returns a long body that has begun, and that `write` continues.
    async fn long(write: impl FnOnce(Writer) + Send + 'static) -> Stream {
        let (begins, begun) = oneshot::channel();
        thread::spawn(move || {
            let mut writer = Writer::new(begins);
            writer.write_all(&vec![b'a'; WHOLE + 1]).unwrap();
            write(writer);
        });
        let Ok(Ok(ResponseBody::Long(chunks))) = begun.await else {
            panic!("it is too long to be whole");
        };
        let connection = Connections::new(1).admit(None).await;
        Stream::new(chunks, connection.begin(Instant::now()))
    }

    #[tokio::test]
    async fn a_body_that_is_not_finished_is_an_error() {
        assert!(long(drop).await.collect().await.is_err());
    }

    /// Each part that the client takes shows that it reads.
    #[tokio::test]
    async fn the_first_chunk_is_sent_in_parts() {
        let mut taken = long(|writer| writer.finish().unwrap()).await;
        let mut length = 0;
        while let Some(frame) = taken.frame().await {
            let part = frame.unwrap().into_data().unwrap();
            assert!(part.len() <= CHUNK, "{} bytes", part.len());
            length += part.len();
        }
        assert_eq!(length, WHOLE + 1);
    }

    #[tokio::test]
    async fn the_writer_does_not_run_ahead_of_the_client() {
        let made = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&made);
        let (ended, end) = std::sync::mpsc::channel();
        let stalled = long(move |mut writer| {
            let chunk = vec![b'b'; CHUNK + 1];
            while writer.write_all(&chunk).is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            ended.send(()).unwrap();
        })
        .await;
        // Time to generate more than is allowed.
        thread::sleep(Duration::from_millis(100));
        assert!(made.load(Ordering::SeqCst) <= AHEAD);
        drop(stalled);
        end.recv().unwrap();
    }
}
