//! Direct messages on a libp2p stream: four bytes of length, big-endian, then one encoded
//! [`Message`]. The answer is empty and says that the message has arrived. What the bytes mean is decided
//! where they are received, so that nonsense can be counted against its sender.

use std::io;

use libp2p::{
    StreamProtocol,
    futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    request_response,
};
use waystation_proto::wire::Message;

/// The protocol's name; its version is that of the framing, the message carries its own.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/waystation/message/1");

/// Reads and writes frames.
#[derive(Clone, Debug, Default)]
pub(crate) struct FrameCodec;

/// What a stream carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// An encoded message, not looked into yet.
    Whole(Vec<u8>),
    /// Not a frame, and why. A value, because libp2p does not tell of streams that fail to read.
    Broken(String),
}

impl request_response::Codec for FrameCodec {
    type Protocol = StreamProtocol;
    type Request = Frame;
    type Response = ();

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Frame>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut length = [0; 4];
        io.read_exact(&mut length).await?;
        let length = u32::from_be_bytes(length) as usize;
        if length > Message::MAX_BYTES {
            let why = format!("frame of {length} bytes is over the limit of {}", Message::MAX_BYTES);
            return Ok(Frame::Broken(why));
        }
        // Grows with what really comes: a peer cannot reserve memory by a promise.
        let mut frame = Vec::new();
        (&mut *io).take(length as u64).read_to_end(&mut frame).await?;
        if frame.len() < length {
            return Ok(Frame::Broken(format!("frame ends after {} of {length} bytes", frame.len())));
        }
        Ok(Frame::Whole(frame))
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<()>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut ack = [0; 1];
        io.read_exact(&mut ack).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, frame: Frame) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let Frame::Whole(frame) = frame else {
            return Err(io::Error::other("a broken frame is not sent"));
        };
        let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend(frame);
        io.write_all(&bytes).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, (): ()) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        // One byte: a stream that was only closed cannot be told from one that broke.
        io.write_all(&[0]).await
    }
}

#[cfg(test)]
mod tests {
    use libp2p::{futures::io::Cursor, request_response::Codec};

    use super::*;

    #[tokio::test]
    async fn frames_round_trip_and_are_bounded() {
        let whole = Frame::Whole(vec![7; 300]);
        let mut wire = Cursor::new(Vec::new());
        FrameCodec.write_request(&PROTOCOL, &mut wire, whole.clone()).await.expect("written");
        let bytes = wire.into_inner();
        let read = FrameCodec.read_request(&PROTOCOL, &mut Cursor::new(&bytes)).await;
        assert_eq!(read.expect("read"), whole);

        let huge = (Message::MAX_BYTES as u32 + 1).to_be_bytes();
        for broken in [&bytes[..200], &huge] {
            let read = FrameCodec.read_request(&PROTOCOL, &mut Cursor::new(broken)).await;
            assert!(matches!(read, Ok(Frame::Broken(_))), "{read:?}");
        }
        assert!(FrameCodec.read_request(&PROTOCOL, &mut Cursor::new(&bytes[..3])).await.is_err());
    }
}
