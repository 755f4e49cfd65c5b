//! Direct messages on a stream, one after the other: four bytes of length, big-endian, then one encoded
//! [`Message`]. For each that has arrived, one byte goes back. What the bytes mean is decided where they are
//! received, so that nonsense can be counted against its sender.

use std::{io, time::Duration};

use libp2p::{
    StreamProtocol,
    futures::{
        AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt,
        stream::{self, BoxStream, StreamExt},
    },
};
use waystation_proto::wire::Message;

/// The protocol's name; its version is that of the framing, the message carries its own.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new("/waystation/message/2");

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// An encoded message, not looked into yet.
    Whole(Vec<u8>),
    /// Not a frame, and why. Nothing comes after it.
    Broken(String),
}

/// What is left to be done on a stream.
enum Then {
    Read,
    /// One has been handed over.
    Answer,
    /// The last has.
    End,
}

/// The frames that come on a stream. Each is answered when the next is asked for.
pub(super) fn incoming<T>(io: T) -> BoxStream<'static, Frame>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let frames = stream::unfold((io, Then::Read), |(mut io, then)| async move {
        if !matches!(then, Then::Read) {
            io.write_all(&[0]).await.ok()?;
            io.flush().await.ok()?;
        }
        let frame = match then {
            Then::End => None,
            Then::Read | Then::Answer => read(&mut io).await,
        };
        match frame {
            Some(frame) => {
                let then = if matches!(frame, Frame::Broken(_)) { Then::End } else { Then::Answer };
                Some((frame, (io, then)))
            }
            None => {
                // So that the other side sees an end, not a break.
                let _ = io.close().await;
                None
            }
        }
    });
    frames.boxed()
}

/// The next frame; nothing where the other side has ended the stream.
async fn read<T: AsyncRead + Unpin>(io: &mut T) -> Option<Frame> {
    let mut length = [0; 4];
    // Between messages there is no hurry.
    let first = io.read(&mut length).await.ok().filter(|read| *read > 0)?;
    let rest = tokio::time::timeout(FRAME_TIMEOUT, read_rest(io, length, first)).await;
    Some(rest.unwrap_or_else(|_| Frame::Broken(format!("frame takes longer than {FRAME_TIMEOUT:?}"))))
}

async fn read_rest<T: AsyncRead + Unpin>(io: &mut T, mut length: [u8; 4], first: usize) -> Frame {
    if io.read_exact(&mut length[first..]).await.is_err() {
        return Frame::Broken("frame ends within its length".to_owned());
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > Message::MAX_BYTES {
        return Frame::Broken(format!("frame of {length} bytes is over the limit of {}", Message::MAX_BYTES));
    }
    // Grows with what really comes: a peer cannot reserve memory by a promise.
    let mut frame = Vec::new();
    let read = (&mut *io).take(length as u64).read_to_end(&mut frame).await;
    if read.is_err() || frame.len() < length {
        return Frame::Broken(format!("frame ends after {} of {length} bytes", frame.len()));
    }
    Frame::Whole(frame)
}

/// Writes a message; to be flushed.
pub(super) async fn write<T: AsyncWrite + Unpin>(io: &mut T, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(4 + message.len());
    frame.extend(length.to_be_bytes());
    frame.extend(message);
    io.write_all(&frame).await
}

/// How many answers came since the last time; nothing where no more will.
pub(super) async fn answers<T: AsyncRead + Unpin>(io: &mut T) -> Option<usize> {
    let mut answers = [0; 64];
    io.read(&mut answers).await.ok().filter(|read| *read > 0)
}

/// From the first byte of a frame to its last.
const FRAME_TIMEOUT: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use libp2p::futures::io::Cursor;

    use super::*;

    async fn all(bytes: &[u8]) -> Vec<Frame> {
        incoming(Cursor::new(bytes.to_vec())).collect().await
    }

    #[tokio::test]
    async fn frames_round_trip_and_are_bounded() {
        let mut wire = Cursor::new(Vec::new());
        write(&mut wire, &[7; 300]).await.expect("written");
        let bytes = wire.into_inner();
        let whole = Frame::Whole(vec![7; 300]);
        assert_eq!(read(&mut Cursor::new(&bytes)).await, Some(whole));
        let huge = (Message::MAX_BYTES as u32 + 1).to_be_bytes();
        for broken in [&bytes[..200], &huge, &bytes[..3]] {
            let frames = all(broken).await;
            assert!(matches!(frames[..], [Frame::Broken(_)]), "{frames:?}");
        }
        assert_eq!(all(&[]).await, []);
    }

    #[tokio::test]
    async fn each_frame_is_answered() {
        let (mut near, far) = tokio::io::duplex(1024);
        let mut frames = incoming(tokio_util::compat::TokioAsyncReadCompatExt::compat(far));
        for byte in [1, 2] {
            let frame = [&[0, 0, 0, 1][..], &[byte]].concat();
            tokio::io::AsyncWriteExt::write_all(&mut near, &frame).await.expect("written");
        }
        assert_eq!(frames.next().await, Some(Frame::Whole(vec![1])));
        assert_eq!(frames.next().await, Some(Frame::Whole(vec![2])));
        drop(tokio::io::AsyncWriteExt::shutdown(&mut near).await);
        assert_eq!(frames.next().await, None);
        let mut answers = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut near, &mut answers).await.expect("read");
        assert_eq!(answers, [0, 0]);
    }
}
