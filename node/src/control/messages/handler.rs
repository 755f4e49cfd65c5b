//! One connection's messages: the stream that small ones share, those of large ones, what waits for them, and what
//! was sent and not answered yet.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    futures::{
        AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, FutureExt, StreamExt,
        future::BoxFuture,
        io::WriteHalf,
        stream::{self, BoxStream, FuturesUnordered, SelectAll},
    },
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    time::{Instant, Sleep, sleep_until},
};

use super::{
    Failure, Frame, MessageId,
    frames::{self, PROTOCOL},
};
use crate::control::behaviour::DIRECT_MAX;

/// A message to be sent.
#[derive(Debug)]
pub(crate) struct Letter {
    id: MessageId,
    message: Vec<u8>,
}

/// What a connection's part tells the behaviour.
#[derive(Debug)]
pub(crate) enum Told {
    Received(Frame),
    Arrived(MessageId),
    Failed(MessageId, Failure),
}

/// What a new stream is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    Line,
    One(Letter),
}

/// One connection's part. Its queues are as long as the behaviour's user lets them be: it counts what is unanswered.
#[derive(Default)]
pub(crate) struct Handler {
    line: Line,
    /// For the line.
    small: VecDeque<Letter>,
    /// Each for a stream of its own.
    large: VecDeque<Letter>,
    large_sent: FuturesUnordered<BoxFuture<'static, (MessageId, Result<(), Failure>)>>,
    incoming: SelectAll<BoxStream<'static, Frame>>,
    pending: Pending,
    told: VecDeque<Told>,
}

/// The stream that small messages share.
#[derive(Default)]
enum Line {
    #[default]
    Closed,
    Asked,
    Open {
        outbox: Sender<Vec<u8>>,
        /// Ends when the stream breaks.
        writer: BoxFuture<'static, ()>,
        /// How many more have arrived.
        answers: BoxStream<'static, usize>,
        /// In the order in which they are answered.
        sent: VecDeque<MessageId>,
    },
}

/// Messages that are neither answered nor given up.
#[derive(Default)]
struct Pending {
    open: BTreeSet<MessageId>,
    /// When each is given up, answered ones among them.
    deadlines: VecDeque<(Instant, MessageId)>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Letter {
    pub(super) fn new(id: MessageId, message: Vec<u8>) -> Self {
        Letter { id, message }
    }
}

impl Pending {
    fn add(&mut self, id: MessageId) {
        self.open.insert(id);
        self.deadlines.push_back((Instant::now() + TIMEOUT, id));
    }

    /// False where it was given up before.
    fn remove(&mut self, id: MessageId) -> bool {
        self.open.remove(&id)
    }

    /// The next that was not answered in time.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<MessageId> {
        loop {
            while self.deadlines.front().is_some_and(|(_, id)| !self.open.contains(id)) {
                self.deadlines.pop_front();
            }
            let Some((at, id)) = self.deadlines.front().copied() else {
                self.timer = None;
                return Poll::Pending;
            };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if timer.deadline() != at {
                timer.as_mut().reset(at);
            }
            std::task::ready!(timer.as_mut().poll(cx));
            self.deadlines.pop_front();
            if self.remove(id) {
                return Poll::Ready(id);
            }
        }
    }
}

impl Line {
    fn open(stream: Stream) -> Self {
        let (reader, writer) = stream.split();
        let (outbox, letters) = channel(DIRECT_MAX);
        let answers = stream::unfold(reader, |mut reader| async {
            frames::answers(&mut reader).await.map(|count| (count, reader))
        });
        let (writer, answers) = (write(writer, letters).boxed(), answers.boxed());
        Line::Open { outbox, writer, answers, sent: VecDeque::new() }
    }

    /// Takes messages out of the queue, as many as there is room for: none while the line is not open. True where it
    /// took any.
    fn take(&mut self, queue: &mut VecDeque<Letter>) -> bool {
        let Line::Open { outbox, sent, .. } = self else { return false };
        let before = queue.len();
        while !queue.is_empty()
            && sent.len() < SENT_MAX
            && let Ok(room) = outbox.try_reserve()
            && let Some(Letter { id, message }) = queue.pop_front()
        {
            sent.push_back(id);
            room.send(message);
        }
        queue.len() < before
    }

    /// Messages that have arrived, or `Err` with those that may not have: the line is broken.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<MessageId>, Vec<MessageId>>> {
        let Line::Open { writer, answers, sent, .. } = self else { return Poll::Pending };
        // Answers first: they may have come before the break.
        let count = match answers.poll_next_unpin(cx) {
            Poll::Ready(Some(count)) if count <= sent.len() => count,
            // Ended, or more than were asked for.
            Poll::Ready(_) => return Poll::Ready(Err(self.close())),
            Poll::Pending => {
                std::task::ready!(writer.poll_unpin(cx));
                return Poll::Ready(Err(self.close()));
            }
        };
        Poll::Ready(Ok(sent.drain(..count).collect()))
    }

    fn close(&mut self) -> Vec<MessageId> {
        match std::mem::take(self) {
            Line::Open { sent, .. } => sent.into(),
            Line::Closed | Line::Asked => Vec::new(),
        }
    }
}

impl Handler {
    fn arrived(&mut self, id: MessageId) {
        if self.pending.remove(id) {
            self.told.push_back(Told::Arrived(id));
        }
    }

    fn failed(&mut self, id: MessageId, failure: Failure) {
        if self.pending.remove(id) {
            self.told.push_back(Told::Failed(id, failure));
        }
    }

    /// Streams that are to be opened.
    fn wish(&mut self) -> Option<Purpose> {
        if let Some(letter) = self.large.pop_front() {
            return Some(Purpose::One(letter));
        }
        if matches!(self.line, Line::Closed) && !self.small.is_empty() {
            self.line = Line::Asked;
            return Some(Purpose::Line);
        }
        None
    }

    /// Goes on with all streams. Pending where nothing more happens for now.
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Poll::Ready(Some(frame)) = self.incoming.poll_next_unpin(cx) {
            self.told.push_back(Told::Received(frame));
            return Poll::Ready(());
        }
        if let Poll::Ready(Some((id, result))) = self.large_sent.poll_next_unpin(cx) {
            match result {
                Ok(()) => self.arrived(id),
                Err(failure) => self.failed(id, failure),
            }
            return Poll::Ready(());
        }
        let mut line = self.line.poll(cx);
        // The writer may have made room.
        while line.is_pending() && self.line.take(&mut self.small) {
            line = self.line.poll(cx);
        }
        match line {
            Poll::Ready(Ok(arrived)) => arrived.into_iter().for_each(|id| self.arrived(id)),
            Poll::Ready(Err(lost)) => lost.into_iter().for_each(|id| self.failed(id, Failure::Lost)),
            Poll::Pending => {
                let late = std::task::ready!(self.pending.poll_late(cx));
                // Sent after all it would come twice, and these queues would have no bound.
                self.small.retain(|letter| letter.id != late);
                self.large.retain(|letter| letter.id != late);
                self.told.push_back(Told::Failed(late, Failure::TimedOut));
            }
        }
        Poll::Ready(())
    }

    /// A stream could not be opened.
    fn refused(&mut self, purpose: Purpose, failure: Failure) {
        match purpose {
            Purpose::One(letter) => self.failed(letter.id, failure),
            Purpose::Line => {
                self.line = Line::Closed;
                for letter in std::mem::take(&mut self.small) {
                    self.failed(letter.id, failure);
                }
            }
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Letter;
    type ToBehaviour = Told;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Purpose;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn on_behaviour_event(&mut self, letter: Letter) {
        self.pending.add(letter.id);
        let queue = if letter.message.len() > SMALL_MAX { &mut self.large } else { &mut self.small };
        queue.push_back(letter);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Purpose, Told>> {
        loop {
            if let Some(told) = self.told.pop_front() {
                return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(told));
            }
            if let Some(purpose) = self.wish() {
                let protocol =
                    SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), purpose).with_timeout(TIMEOUT);
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
            }
            std::task::ready!(self.advance(cx));
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Purpose>,
    ) {
        match event {
            // One too many is dropped, and the other side sees it end.
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. })
                if self.incoming.len() < INCOMING_MAX =>
            {
                self.incoming.push(frames::incoming(stream));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: purpose,
            }) => match purpose {
                Purpose::Line => self.line = Line::open(stream),
                Purpose::One(letter) => self.large_sent.push(send_one(stream, letter).boxed()),
            },
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info: purpose }) => {
                let failure = match error {
                    StreamUpgradeError::NegotiationFailed => Failure::Unsupported,
                    StreamUpgradeError::Timeout => Failure::TimedOut,
                    _ => Failure::Lost,
                };
                self.refused(purpose, failure);
            }
            _ => {}
        }
    }
}

/// Writes what comes, until the stream breaks.
async fn write(mut stream: WriteHalf<Stream>, mut letters: Receiver<Vec<u8>>) {
    while let Some(letter) = letters.recv().await {
        let mut next = Some(letter);
        // Those that wait together go together.
        while let Some(letter) = next {
            if frames::write(&mut stream, &letter).await.is_err() {
                return;
            }
            next = letters.try_recv().ok();
        }
        if stream.flush().await.is_err() {
            return;
        }
    }
}

/// Sends a message on a stream of its own, which ends with what is waited for the answer: whoever takes none of it
/// must not have it kept for ever.
async fn send_one<T: AsyncRead + AsyncWrite + Unpin>(
    mut stream: T,
    letter: Letter,
) -> (MessageId, Result<(), Failure>) {
    let sent = async {
        frames::write(&mut stream, &letter.message).await?;
        stream.close().await?;
        match frames::answers(&mut stream).await {
            Some(_) => Ok(()),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
    };
    let sent = match tokio::time::timeout(TIMEOUT, sent).await {
        Ok(sent) => sent.map_err(|_| Failure::Lost),
        Err(_) => Err(Failure::TimedOut),
    };
    (letter.id, sent)
}

/// Larger messages have a stream of their own.
const SMALL_MAX: usize = 16 * 1024;

/// Streams of the other side: its line, its large messages, and as many that it has given up.
const INCOMING_MAX: usize = 2 * DIRECT_MAX + 32;

/// On the line at a time, and as many that were given up: who answers none of them gets no more.
const SENT_MAX: usize = 2 * DIRECT_MAX;

/// For the answer to a message, which may be 1 MiB on a thin link.
const TIMEOUT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_has_nothing_kept_for_it() {
        // Room for part of a large message; the other side reads none of it, and stays.
        let (near, _far) = tokio::io::duplex(1024);
        let sending = send_one(near.compat(), Letter::new(MessageId(1), vec![0; 100_000]));
        let sent = tokio::time::timeout(10 * TIMEOUT, sending).await;
        assert_eq!(sent.expect("it ends"), (MessageId(1), Err(Failure::TimedOut)));

        // What waits for a line that does not open, or for room on it.
        let mut handler = Handler { line: Line::Asked, ..Handler::default() };
        for (id, length) in [(2, 10), (3, SMALL_MAX + 1)] {
            handler.on_behaviour_event(Letter::new(MessageId(id), vec![0; length]));
            poll_fn(|cx| handler.advance(cx)).await;
            assert!(matches!(handler.told.pop_back(), Some(Told::Failed(_, Failure::TimedOut))));
        }
        assert_eq!((handler.small.len(), handler.large.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_is_not_answered_takes_no_more() {
        let (outbox, mut letters) = channel(DIRECT_MAX);
        let (writer, answers) = (std::future::pending().boxed(), stream::pending().boxed());
        let mut line = Line::Open { outbox, writer, answers, sent: VecDeque::new() };
        let mut queue: VecDeque<Letter> =
            (0..1000).map(|id| Letter::new(MessageId(id), Vec::new())).collect();
        for _ in 0..1000 {
            line.take(&mut queue);
            // The other side reads all of it.
            while letters.try_recv().is_ok() {}
        }
        assert_eq!(queue.len(), 1000 - SENT_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_answered_in_time_is_given_up_once_and_the_rest_is_not() {
        let begun = Instant::now();
        let mut pending = Pending::default();
        (1..=3).for_each(|id| pending.add(MessageId(id)));
        assert!(pending.remove(MessageId(1)));
        let late = poll_fn(|cx| pending.poll_late(cx)).await;
        assert_eq!((late, begun.elapsed()), (MessageId(2), TIMEOUT));
        assert!(!pending.remove(MessageId(2)), "an answer after that says nothing new");
        assert_eq!(poll_fn(|cx| pending.poll_late(cx)).await, MessageId(3));
        let more = tokio::time::timeout(2 * TIMEOUT, poll_fn(|cx| pending.poll_late(cx)));
        assert!(more.await.is_err(), "nothing is left to be given up");
        pending.add(MessageId(4));
        assert_eq!(poll_fn(|cx| pending.poll_late(cx)).await, MessageId(4));
    }
}
