//! Members that reach one another through a third.

use libp2p::futures::{AsyncReadExt, AsyncWriteExt};

use super::*;

async fn relay(mesh: &MeshFile) -> Node {
    Node::with(mesh, ControlConfig { relay: true, ..config() }).await
}

/// A node that has a slot, and the address of that.
async fn hidden(mesh: &MeshFile, relay: &mut Node) -> (Node, String) {
    let mut node = Node::with(mesh, ControlConfig { reachable: Reachable::No, ..config() }).await;
    node.dial(relay);
    let address = node
        .until(|event| match event {
            ControlEvent::Listening { relayed, .. } => relayed.into_iter().next(),
            _ => None,
        })
        .await;
    relay.until_up(node.id()).await;
    (node, address)
}

#[tokio::test]
async fn two_that_nobody_can_dial_talk_through_a_member_that_relays() {
    let mesh = mesh();
    let mut middle = relay(&mesh).await;
    let (mut a, at) = hidden(&mesh, &mut middle).await;
    let (mut b, _) = hidden(&mesh, &mut middle).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("bound");
    // Whatever its own address is to others, the relay leads there.
    assert!(b.control.dial(DialTarget::Node(a.id(), vec![nobody.to_string(), at])));
    b.until_up(a.id()).await;
    a.until_up(b.id()).await;
    assert!(b.control.send(a.id(), request(1)));
    assert_eq!(a.until_message(b.id()).await, request(1));
    assert!(a.control.send(b.id(), request(2)));
    assert_eq!(b.until_message(a.id()).await, request(2));

    // More than relays give strangers.
    let (streams, _incoming_of_a) = a.control.take_streams().expect("was not taken");
    let (_streams_of_b, mut incoming) = b.control.take_streams().expect("was not taken");
    let mut stream = streams.open(&b.id()).await.expect("opened");
    let (from, mut received) = incoming.recv().await.expect("a stream");
    assert_eq!(from, a.id());
    let bytes = vec![7; 2 * 1024 * 1024];
    let mut read = Vec::new();
    let sends = async {
        stream.write_all(&bytes).await.expect("written");
        stream.close().await.expect("written");
    };
    let (read_all, ()) = tokio::join!(received.read_to_end(&mut read), sends);
    read_all.expect("read");
    assert_eq!(read, bytes);

    // With the relay both lose it, and the address.
    middle.control.shutdown().await;
    let gone = a.until(|event| match event {
        ControlEvent::Listening { relayed, .. } => Some(relayed),
        _ => None,
    });
    assert!(gone.await.is_empty());
}

#[tokio::test]
async fn a_member_that_can_be_dialled_takes_no_slot_and_one_that_does_not_relay_gives_none() {
    let mesh = mesh();
    let (mut middle, mut plain) = (relay(&mesh).await, Node::start(&mesh).await);
    let open = Node::with(&mesh, ControlConfig { reachable: Reachable::Yes, ..config() }).await;
    let needy = Node::with(&mesh, ControlConfig { reachable: Reachable::No, ..config() }).await;
    for (mut node, other) in [(open, &mut middle), (needy, &mut plain)] {
        node.dial(other);
        node.until_up(other.id()).await;
        other.until_up(node.id()).await;
        // Both have said who they are long before this has gone back and forth.
        for byte in 0..20 {
            assert!(node.control.send(other.id(), request(byte)));
            other.until_message(node.id()).await;
        }
        let told = std::iter::from_fn(|| node.events.try_recv().ok());
        let slots = told
            .filter(|event| matches!(event, ControlEvent::Listening { relayed, .. } if !relayed.is_empty()));
        assert_eq!(slots.count(), 0);
    }
}
