//! The bytes of a segment: whatever happens to them, what is read was written.

use std::{fs, path::Path as FilePath};

use proptest::{
    collection::vec,
    prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest},
    test_runner::Config,
};

use super::{Hand, OPTIONS, delivery};
use crate::{
    error::ErrorKind,
    receive::{
        Delivery,
        spool::{
            Spool,
            folder::Stored,
            recovery::Recovered,
            segment::{Frame, Head, SegmentName, Spooled, frame_start, read, scan, stamp},
        },
    },
};

/// A segment as the first release wrote it. Every later one reads it.
const SAMPLE: &[u8] = include_bytes!(
    "../../../../fixtures/spool/00000000000000000007-019ab3c4-0000-7000-8000-000000000001.segment"
);
const SAMPLE_NAME: &str = "00000000000000000007-019ab3c4-0000-7000-8000-000000000001.segment";

impl Stored for Vec<u8> {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let rest = self.get(offset as usize..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

struct Segment {
    name: SegmentName,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    deliveries: Vec<Delivery>,
}

fn segment(bodies: Vec<Vec<u8>>) -> Segment {
    let hand = Hand::new();
    let now = hand.clock().now();
    let name = SegmentName::new(7, now);
    let head = Head {
        id: name.id.to_string(),
        created_at: now,
        ended: Vec::new(),
        frames_bytes: None,
    };
    let mut bytes = head.to_bytes().unwrap();
    let mut ends = Vec::new();
    let mut deliveries = Vec::new();
    for body in bodies {
        let delivery = delivery("shop.orders", body);
        let mut start = frame_start(&delivery).unwrap();
        stamp(&mut start, &name);
        bytes.extend(start);
        bytes.extend_from_slice(&delivery.page.body);
        ends.push(bytes.len());
        deliveries.push(delivery);
    }
    Segment {
        name,
        bytes,
        ends,
        deliveries,
    }
}

fn bodies() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(vec(any::<u8>(), 0..300), 1..8)
}

fn frames(bytes: &Vec<u8>, name: &SegmentName) -> Vec<(Frame, Spooled)> {
    let mut found = Vec::new();
    scan(bytes, name, u64::MAX, &mut |frame, spooled| {
        found.push((frame, spooled))
    })
    .unwrap();
    found
}

/// The numbers of the deliveries that are found, each checked against what was written.
fn found(segment: &Segment, bytes: &Vec<u8>) -> Vec<usize> {
    let numbers = frames(bytes, &segment.name).into_iter().map(|(frame, spooled)| {
        let of = |delivery: &Delivery| delivery.receipt == spooled.receipt;
        let number = segment
            .deliveries
            .iter()
            .position(of)
            .expect("nothing is invented");
        let (given, read) = (
            &segment.deliveries[number],
            read(bytes, &segment.name, frame).unwrap(),
        );
        assert_eq!(
            (&read.page.body, &read.page.facts),
            (&given.page.body, &given.page.facts)
        );
        assert_eq!((&read.stream, &read.producer), (&given.stream, &given.producer));
        number
    });
    numbers.collect()
}

proptest! {
    #![proptest_config(Config::with_cases(64))]

    #[test]
    fn f008_a_cut_anywhere_leaves_every_frame_before_it(bodies in bodies(), cut in any::<usize>()) {
        let segment = segment(bodies);
        let cut = cut % (segment.bytes.len() + 1);
        let whole: Vec<usize> = (0..segment.ends.len()).filter(|number| segment.ends[*number] <= cut).collect();
        prop_assert_eq!(found(&segment, &segment.bytes[..cut].to_vec()), whole);
    }

    #[test]
    fn a_flipped_bit_costs_its_own_frame_and_no_other(bodies in bodies(), at in any::<usize>(), bit in 0..8_u8) {
        let segment = segment(bodies);
        let mut bytes = segment.bytes.clone();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let hit = segment.ends.iter().position(|end| at < *end).unwrap();
        let in_head = hit == 0 && at < segment.bytes.len() - segment.ends.last().unwrap() + head_end(&segment);
        let rest: Vec<usize> = (0..segment.ends.len()).filter(|number| in_head || *number != hit).collect();
        prop_assert_eq!(found(&segment, &bytes), rest);
    }

    #[test]
    fn no_bytes_are_a_delivery_by_chance(bytes in vec(any::<u8>(), 0..2000)) {
        let name = segment(Vec::new()).name;
        prop_assert!(frames(&bytes, &name).is_empty());
    }
}

fn head_end(segment: &Segment) -> usize {
    Head::read(&segment.bytes, &segment.name).unwrap().unwrap().1 as usize
}

#[test]
fn a_body_that_looks_like_a_frame_is_a_body() {
    // A segment in a segment, as a producer could send it.
    let inner = segment(vec![b"inner".to_vec()]);
    let outer = segment(vec![inner.bytes.clone(), b"after".to_vec()]);
    assert_eq!(found(&outer, &outer.bytes), [0, 1]);
    let mut bytes = outer.bytes.clone();
    let at = head_end(&outer) + 9;
    bytes[at] ^= 1;
    assert_eq!(found(&outer, &bytes), [1]);
}

#[test]
fn a_name_reads_back_in_one_spelling_only() {
    let (name, rest) = SegmentName::parse(SAMPLE_NAME).unwrap();
    assert_eq!((name.file().as_str(), name.number, rest), (SAMPLE_NAME, 7, ""));
    assert_eq!(
        SegmentName::parse(&name.beside(".corrupt")),
        Some((name, ".corrupt"))
    );
    for odd in [
        "lock",
        "",
        &SAMPLE_NAME.to_uppercase(),
        &SAMPLE_NAME[1..],
        &SAMPLE_NAME.replacen('0', "+", 1),
    ] {
        assert_eq!(SegmentName::parse(odd), None, "{odd}");
    }
}

fn open(dir: &FilePath) -> crate::error::Result<(Vec<Spooled>, Recovered)> {
    let mut found = Vec::new();
    let opened = Spool::open(dir, OPTIONS, Hand::new().clock(), &mut |spooled, _| {
        found.push(spooled)
    });
    opened.map(|(_, recovered)| (found, recovered))
}

#[test]
fn f164_a_segment_of_the_first_format_is_read_and_one_of_a_newer_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(SAMPLE_NAME), SAMPLE).unwrap();
    let (found, recovered) = open(dir.path()).unwrap();
    assert_eq!((recovered.deliveries, recovered.torn_bytes), (2, 0));
    assert_eq!(recovered.damaged, []);
    assert_eq!(
        found[0].receipt.to_string(),
        "019ab3c4-0000-7000-8000-00000000000a"
    );
    assert_eq!(found[1].stream.to_string(), "shop.customers");
    assert_eq!((found[0].body_bytes, found[1].body_bytes), (8, 0));

    let mut newer = SAMPLE.to_vec();
    newer[8] = 2;
    let crc = crc32fast::hash(&newer[..12]).to_le_bytes();
    newer[12..16].copy_from_slice(&crc);
    fs::write(dir.path().join(SAMPLE_NAME), &newer).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("start the newer version"), "{error}");
    assert_eq!(fs::read(dir.path().join(SAMPLE_NAME)).unwrap(), newer);
}

#[test]
fn damage_before_the_end_is_reported_and_a_torn_end_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(SAMPLE_NAME);
    fs::write(&path, &SAMPLE[..SAMPLE.len() - 1]).unwrap();
    let (found, recovered) = open(dir.path()).unwrap();
    assert_eq!((found.len(), recovered.damaged.len()), (1, 0));
    assert!(recovered.torn_bytes > 0);

    let mut bytes = SAMPLE.to_vec();
    let at = bytes.windows(8).position(|body| body == b"{\"id\":1}").unwrap();
    bytes[at] = b'[';
    fs::write(&path, &bytes).unwrap();
    let (found, recovered) = open(dir.path()).unwrap();
    assert_eq!((found.len(), recovered.damaged.len()), (1, 1));
    assert_eq!(recovered.damaged[0].file, SAMPLE_NAME);
    assert_eq!(
        fs::read(&path).unwrap(),
        bytes,
        "nothing is changed before it is shipped"
    );
}
