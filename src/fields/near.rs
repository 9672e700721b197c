//! What comes close to a valid field value, and what is as long as no field should be.

use std::time::{Duration, Instant};

use proptest::{prelude::*, sample::Index};

/// Bytes of the longest value that parsers are shown.
const LONG_BYTES: usize = 64 << 10;

/// What a parser may take for one of those. One pass takes a millisecond, a pass for each byte far more than this.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is done to a value, in places of it.
#[derive(Clone, Debug)]
enum Edit {
    Put(Index, u8),
    Drop(Index),
    Insert(Index, u8),
    Cut(Index),
    Twice(Index),
    Case(Index),
}

/// Values of which most are nearly one of `valid`, some are one, and some are of any bytes.
pub(crate) fn near(valid: &[&str]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let valid: Vec<Vec<u8>> = valid.iter().map(|text| text.as_bytes().to_vec()).collect();
    let edited = (prop::sample::select(valid), prop::collection::vec(edit(), 0..4))
        .prop_map(|(valid, edits)| edits.iter().fold(valid, |value, edit| edit.of(value)));
    prop_oneof![
        8 => edited,
        1 => prop::collection::vec(any::<u8>(), 0..200),
        1 => "[\"\\\\,;:=<>()*/ \tW?0-9a-z+-]{0,60}".prop_map(String::into_bytes),
    ]
}

/// Shows `parse` values of 64 KiB, each of one of `pieces` again and again, with a letter or a quote before it or nothing,
/// and fails if one takes more than a parser may.
pub(crate) fn each_long(pieces: &[&str], mut parse: impl FnMut(Vec<u8>)) {
    for piece in pieces {
        for before in ["", "a", "\"", "<"] {
            let mut value = before.as_bytes().to_vec();
            while value.len() + piece.len() <= LONG_BYTES {
                value.extend_from_slice(piece.as_bytes());
            }
            let began = Instant::now();
            parse(value);
            assert!(
                began.elapsed() < PATIENCE,
                "{before}{piece}: {:?}",
                began.elapsed()
            );
        }
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    let byte = prop_oneof![
        any::<u8>(),
        prop::sample::select(b"\",;=\\ \t<>*/:.+-Ww0159afAF".to_vec()),
    ];
    prop_oneof![
        (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Edit::Put(at, byte)),
        any::<Index>().prop_map(Edit::Drop),
        (any::<Index>(), byte).prop_map(|(at, byte)| Edit::Insert(at, byte)),
        any::<Index>().prop_map(Edit::Cut),
        any::<Index>().prop_map(Edit::Twice),
        any::<Index>().prop_map(Edit::Case),
    ]
}

impl Edit {
    fn of(&self, mut value: Vec<u8>) -> Vec<u8> {
        let end = value.len();
        match self {
            _ if end == 0 => {}
            Self::Put(at, byte) => value[at.index(end)] = *byte,
            Self::Drop(at) => drop(value.remove(at.index(end))),
            Self::Insert(at, byte) => value.insert(at.index(end + 1), *byte),
            Self::Cut(at) => value.truncate(at.index(end)),
            Self::Twice(at) => value.extend_from_within(at.index(end)..),
            Self::Case(at) => {
                let byte = &mut value[at.index(end)];
                *byte ^= if byte.is_ascii_alphabetic() { 0x20 } else { 0 };
            }
        }
        value
    }
}
