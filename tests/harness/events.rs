//! A reader of a node's stream of events (server-sent events), as any client would be.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpStream,
};

use serde_json::Value;

use super::node::Node;

/// An open stream.
pub struct Stream {
    reader: BufReader<TcpStream>,
}

impl Stream {
    /// Opens it at the admin endpoint; what happens from now on is in it.
    #[track_caller]
    pub fn open(node: &Node, target: &str, last_event_id: Option<&str>) -> Self {
        let admin = node.admin();
        let mut request = admin.get(target);
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        let mut reader = BufReader::new(request.open().unwrap());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "no answer: {head}");
        }
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
        Stream { reader }
    }

    /// The next event; its id is checked to be that of the stream.
    #[track_caller]
    pub fn next(&mut self) -> Value {
        let mut id = String::new();
        loop {
            let mut line = String::new();
            assert!(self.reader.read_line(&mut line).unwrap() > 0, "the stream ended");
            if let Some(found) = line.strip_prefix("id:") {
                id = found.trim().to_owned();
            }
            if let Some(data) = line.strip_prefix("data:") {
                let event: Value = serde_json::from_str(data).unwrap();
                assert_eq!(event["id"], id.as_str());
                return event;
            }
        }
    }

    /// The next event of a type for which something is so.
    #[track_caller]
    pub fn next_of(&mut self, kind: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        loop {
            let event = self.next();
            if event["type"] == kind && is_so(&event) {
                return event;
            }
        }
    }

    /// Whether it ends; events that still come are thrown away.
    pub fn ends(&mut self) -> bool {
        let mut line = String::new();
        while self.reader.read_line(&mut line).is_ok_and(|read| read > 0) {
            line.clear();
        }
        true
    }
}
