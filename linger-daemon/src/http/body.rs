//! The body of an answer that may be too long to be held in memory.

use std::io::{self, Write};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame};
use tokio::sync::{mpsc, oneshot};

use super::connections::RequestGuard;
use crate::metrics::ScrapeError;

/// Up to so many bytes are an answer of known length. More are sent while they are made.
const WHOLE: usize = 1024 * 1024;

/// Bytes in which the rest of a long answer is passed on, about.
const CHUNK: usize = 64 * 1024;

/// Chunks that are made ahead of the client.
const AHEAD: usize = 2;

/// Bytes of a long body that wait for the client, about.
const MADE: usize = AHEAD * CHUNK;

/// A body, as far as it is made when its answer begins.
pub(super) enum ResponseBody {
    /// All of it.
    Whole(Bytes),
    /// It is longer, and still being made: chunks, and `None` once all is made.
    Long(mpsc::Receiver<Option<Bytes>>),
}

impl ResponseBody {
    /// No body.
    pub(super) const NONE: Self = Self::Whole(Bytes::new());

    /// The body, which ends the request when it has been sent or is dropped.
    pub(super) fn of(self, request: RequestGuard) -> Either<Full<Bytes>, Stream> {
        match self {
            Self::Whole(bytes) => {
                request.begin_answer(bytes.len());
                let held = Held {
                    bytes,
                    _request: request,
                };
                Either::Left(Full::new(Bytes::from_owner(held)))
            }
            Self::Long(chunks) => {
                request.begin_answer(MADE);
                Either::Right(Stream { chunks, request })
            }
        }
    }
}

/// A whole body. It is dropped when the last of it went to the client.
struct Held {
    bytes: Bytes,
    _request: RequestGuard,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Where the body of an answer goes once it begins, or why there is none.
pub(super) type ResponseSender = oneshot::Sender<Result<ResponseBody, ScrapeError>>;

/// What makes a body writes it here, in a thread that may block.
///
/// An error means that the client is gone.
pub(super) struct Writer {
    bytes: Vec<u8>,
    client: mpsc::Sender<Option<Bytes>>,
    /// Until the answer begins.
    beginning: Option<(ResponseSender, mpsc::Receiver<Option<Bytes>>)>,
}

impl Writer {
    /// A body whose beginning goes there.
    pub(super) fn new(answer: ResponseSender) -> Self {
        let (client, chunks) = mpsc::channel(AHEAD);
        Self {
            bytes: Vec::new(),
            client,
            beginning: Some((answer, chunks)),
        }
    }

    /// Ends the body. One that is dropped instead is a failure for the client, too.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if let Some((answer, _)) = self.beginning.take() {
            let whole = ResponseBody::Whole(self.bytes.into());
            return answer.send(Ok(whole)).map_err(|_| gone());
        }
        self.pass_on()?;
        self.send(None)
    }

    /// Passes on what is gathered; the first time, the answer begins with it.
    fn pass_on(&mut self) -> io::Result<()> {
        if let Some((answer, chunks)) = self.beginning.take() {
            let long = ResponseBody::Long(chunks);
            answer.send(Ok(long)).map_err(|_| gone())?;
        }
        let bytes = mem::replace(&mut self.bytes, Vec::with_capacity(CHUNK + CHUNK / 2));
        self.send(Some(bytes.into()))
    }

    /// Waits until there is room for another chunk.
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

/// A long body on its way to the client.
pub(super) struct Stream {
    chunks: mpsc::Receiver<Option<Bytes>>,
    request: RequestGuard,
}

impl Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(match ready!(self.chunks.poll_recv(context)) {
            Some(Some(bytes)) => {
                // The client has room for it.
                self.request.made(MADE);
                Some(Ok(Frame::data(bytes)))
            }
            Some(None) => None,
            // Ends the connection: what the client has must not pass for all of it.
            None => Some(Err(gone())),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use std::pin::pin;
    use std::task::Waker;

    use http_body_util::BodyExt as _;
    use tokio::time::Instant;

    use super::*;
    use crate::http::connections::Connections;

    fn request() -> RequestGuard {
        let connections = Connections::new(1);
        let connection = pin!(connections.admit(None));
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(connection) = connection.poll(&mut context) else {
            panic!("there is room");
        };
        connection.begin(Instant::now())
    }

    /// A body that is made by `write` and has begun, being longer than a whole one.
    fn long(write: impl FnOnce(Writer) + Send + 'static) -> Stream {
        let (begins, begun) = oneshot::channel();
        thread::spawn(move || {
            let mut writer = Writer::new(begins);
            writer.write_all(&vec![b'a'; WHOLE + 1]).unwrap();
            write(writer);
        });
        let Ok(Ok(ResponseBody::Long(chunks))) = begun.blocking_recv() else {
            panic!("it is too long to be whole");
        };
        let request = request();
        Stream { chunks, request }
    }

    #[tokio::test]
    async fn a_body_that_is_not_finished_is_an_error() {
        let taken = tokio::task::spawn_blocking(|| long(drop)).await.unwrap();
        assert!(taken.collect().await.is_err());
    }

    #[tokio::test]
    async fn a_finished_body_has_all_that_was_written() {
        let written = |mut writer: Writer| {
            writer.write_all(&vec![b'b'; CHUNK + 1]).unwrap();
            writer.write_all(b"c").unwrap();
            writer.finish().unwrap();
        };
        let taken = tokio::task::spawn_blocking(move || long(written));
        let bytes = taken.await.unwrap().collect().await.unwrap().to_bytes();
        assert_eq!(bytes.len(), WHOLE + 1 + CHUNK + 1 + 1);
        assert!(bytes.ends_with(b"bc"));
    }

    #[test]
    fn no_more_is_made_than_is_taken() {
        let made = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&made);
        let (ended, end) = std::sync::mpsc::channel();
        let stalled = long(move |mut writer| {
            let chunk = vec![b'b'; CHUNK + 1];
            while writer.write_all(&chunk).is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            ended.send(()).unwrap();
        });
        // Time to make more than there should be.
        thread::sleep(Duration::from_millis(100));
        assert!(made.load(Ordering::SeqCst) <= AHEAD);
        drop(stalled);
        end.recv().unwrap();
    }
}
