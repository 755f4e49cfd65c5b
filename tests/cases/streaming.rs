//! A client of a blob that is still on its way from another node reads along: what has come, as it comes, and it
//! is cut short where no more does.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::TcpStream,
    thread,
    time::Duration,
};

use crate::harness::{
    cluster::export_mesh,
    image::{Image, digest},
    node::{Node, Options, temp_dir},
    relay::Relay,
    wait::until,
};

/// Two nodes with a link between them, and an image that only the first has.
struct Far {
    holder: Node,
    here: Node,
    link: Relay,
    image: Image,
}

/// An answer that is being read.
struct Reading {
    body: BufReader<TcpStream>,
    length: u64,
}

impl Far {
    fn start() -> Self {
        let link = Relay::start();
        let extra = vec!["--advertise".to_owned(), link.address()];
        let holder = Node::start(Options { extra, ..Options::site("there") });
        link.lead_to(holder.ready("mesh_listen"));
        let folder = temp_dir("mesh");
        let mesh_file = folder.path().join("mesh.toml");
        export_mesh(&holder, &mesh_file);
        let options = Options { join: vec![link.address()], ..Options::site("here") };
        let here = Node::start(options.mesh(&mesh_file));
        let image = Image::random(1, &[BLOB]);
        holder.registry().push("app", "v1", &image);
        here.registry().wait_for_tag("app", "v1", &image);
        Far { holder, here, link, image }
    }

    fn layer(&self) -> &[u8] {
        &self.image.layers[0]
    }

    fn target(&self) -> String {
        format!("/v2/app/blobs/{}", digest(self.layer()))
    }

    /// Lets more and more over the link until this is done: less than the blob.
    fn until_there<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        self.link.let_pass(0);
        let done = thread::scope(|scope| {
            let doing = scope.spawn(what);
            let mut passed = 0;
            until("it is there with a part of the blob", || {
                if !doing.is_finished() && passed < BLOB as u64 * 3 / 4 {
                    passed += 256 * 1024;
                    self.link.let_pass(256 * 1024);
                }
                doing.is_finished().then_some(())
            });
            doing.join().unwrap()
        });
        self.link.let_pass(0);
        assert!(self.here.bytes_received() < BLOB as u64, "all of it is here, which shows nothing");
        done
    }
}

impl Reading {
    fn of(node: &Node, target: &str) -> Self {
        let mut body = BufReader::new(node.registry().http.get(target).open().unwrap());
        let (mut line, mut length) = (String::new(), 0);
        body.read_line(&mut line).unwrap();
        assert!(line.contains(" 200 "), "{line}");
        while !line.trim_end().is_empty() {
            if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = text.trim().parse().unwrap();
            }
            line.clear();
            body.read_line(&mut line).unwrap();
        }
        Reading { body, length }
    }

    fn next(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.body.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn rest(mut self) -> Vec<u8> {
        let mut bytes = vec![];
        // A connection that is reset has ended as well.
        let _ = self.body.read_to_end(&mut bytes);
        bytes
    }
}

#[test]
fn clients_read_along_and_share_one_fetch() {
    let far = Far::start();
    let (node, target) = (&far.here, far.target());
    let mut readings = far.until_there(|| {
        thread::scope(|scope| {
            let readers = [(); 2].map(|()| {
                scope.spawn(|| {
                    let mut reading = Reading::of(node, &target);
                    assert_eq!(reading.length, BLOB as u64);
                    assert!(reading.next(PART) == far.layer()[..PART], "other bytes");
                    reading
                })
            });
            readers.map(|reader| reader.join().unwrap())
        })
    });
    // What is of it here is served to whoever asks for no more than that.
    let part = node.registry().http.get(&target).header("Range", "bytes=100-65635").send().expect(206);
    assert!(part.body == far.layer()[100..65_636]);

    far.link.let_pass(u64::MAX);
    for reading in readings.iter_mut() {
        let rest = reading.next(BLOB - PART);
        assert!(rest == far.layer()[PART..], "other bytes");
    }
    let moved = node.bytes_received();
    assert!(moved as f64 <= 1.1 * BLOB as f64, "{moved} bytes were moved for {BLOB}");
    node.registry().assert_has("app", "v1", &far.image);
}

#[test]
fn a_part_in_the_middle_is_served_when_it_is_there() {
    let far = Far::start();
    // Both lanes of a transfer begin at once, the second in the middle of what is left to do.
    let (start, end) = (BLOB / 4, BLOB / 4 + 65_536);
    let (node, target) = (&far.here, far.target());
    // Somebody wants the beginning, which must not be in the way.
    let mut whole = None;
    let parts = far.until_there(|| {
        whole = Some(Reading::of(node, &target));
        let range = format!("bytes={start}-{},0-99", end - 1);
        node.registry().http.get(&target).header("Range", &range).send().expect(206)
    });
    let find = |bytes: &[u8]| parts.body.windows(bytes.len()).any(|window| window == bytes);
    assert!(find(&far.layer()[start..start + 1000]) && find(&far.layer()[..100]));
    far.link.let_pass(u64::MAX);
    assert!(whole.unwrap().next(BLOB) == far.layer(), "other bytes");
}

#[test]
fn a_client_of_what_does_not_come_any_more_is_cut_short_and_the_next_goes_on_there() {
    let mut far = Far::start();
    let (node, target) = (&far.here, far.target());
    let reading = far.until_there(|| {
        let mut reading = Reading::of(node, &target);
        assert!(reading.next(PART) == far.layer()[..PART], "other bytes");
        reading
    });
    far.holder.kill();
    reading.body.get_ref().set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let rest = reading.rest();
    assert!(rest.len() < BLOB - PART, "it ended as if it were complete");
    assert!(far.layer()[PART..].starts_with(&rest), "other bytes");

    // Nobody has it: no client waits for long, and none is answered as if it were there.
    let refused =
        far.here.registry().http.get(&target).header("Range", &format!("bytes={}-", BLOB - 1)).send();
    assert!([404, 504].contains(&refused.status), "{}", refused.status);

    far.link.let_pass(u64::MAX);
    far.holder.start_again();
    let answer = until("the holder is back", || {
        let answer = far.here.registry().http.get(&target).try_send().ok()?;
        (answer.status == 200).then_some(answer)
    });
    assert!(answer.body == far.layer(), "other bytes");
    let moved = far.here.bytes_received();
    assert!(moved < 2 * BLOB as u64 - PART as u64, "{moved} bytes: it began anew");
}

/// Pieces of such a blob are 12 MiB long, and two are fetched at a time.
const BLOB: usize = 48 << 20;
const PART: usize = 1 << 20;
