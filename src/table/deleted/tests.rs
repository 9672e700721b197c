use object_store::memory::InMemory;
use proptest::prelude::*;

use super::*;

fn marked(rows: impl IntoIterator<Item = u64>) -> Deleted {
    let mut deleted = Deleted::default();
    deleted.extend(rows);
    deleted
}

fn in_log(text: &str, size_in_bytes: i32, cardinality: i64) -> DeletionVectorDescriptor {
    DeletionVectorDescriptor {
        storage_type: StorageType::Inline,
        path_or_inline_dv: text.to_owned(),
        offset: None,
        size_in_bytes,
        cardinality,
    }
}

async fn written(store: &InMemory, sets: &[Deleted]) -> Vec<DeletionVectorDescriptor> {
    let mut writer = VectorWriter::new(store);
    let mut vectors = Vec::new();
    for set in sets {
        vectors.push(writer.add(set).await.unwrap());
    }
    writer.finish().await.unwrap();
    vectors
}

/// The example of the protocol's own text.
#[tokio::test]
async fn the_vector_in_the_protocol_is_read() {
    let text = "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L";
    let store = InMemory::new();
    let read = Deleted::load(&store, &in_log(text, 44, 6)).await.unwrap();
    assert_eq!(read, marked([3, 4, 7, 11, 18, 29]));
    assert_eq!(
        id_of(&in_log(text, 44, 6)),
        format!("i{text}"),
        "no place within a file"
    );
    for (size, count) in [(44, 5), (44, 7), (45, 6), (-1, 6), (3, 6)] {
        let error = Deleted::load(&store, &in_log(text, size, count))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{size} {count}");
    }
}

#[test]
fn files_are_named_as_the_protocol_says() {
    let vector = |storage_type, text: &str| DeletionVectorDescriptor {
        storage_type,
        path_or_inline_dv: text.to_owned(),
        offset: Some(4),
        size_in_bytes: 40,
        cardinality: 6,
    };
    let relative = |text| file_of(&vector(StorageType::UuidRelativePath, text));
    let name = |text| relative(text).unwrap().unwrap().to_string();
    assert_eq!(
        name("ab^-aqEH.-t@S}K{vb[*k^"),
        "ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin"
    );
    assert_eq!(
        name("vBn[lx{q8@P<9BNH/isA"),
        "deletion_vector_61d16c75-6994-46b7-a15b-8b538852e50e.bin"
    );
    assert!(is_vector_file(&name("vBn[lx{q8@P<9BNH/isA")));
    assert!(!is_vector_file("deletion_vector_notes.bin"));
    assert_eq!(
        id_of(&vector(StorageType::UuidRelativePath, "ab^-aqEH.-t@S}K{vb[*k^")),
        "uab^-aqEH.-t@S}K{vb[*k^@4"
    );
    for text in ["short", "é123456789012345678", "~~~~~~~~~~~~~~~~~~~~"] {
        assert_eq!(relative(text).unwrap_err().kind(), ErrorKind::Corrupt, "{text}");
    }
    let outside = file_of(&vector(StorageType::AbsolutePath, "s3://other/vector.bin"));
    assert_eq!(outside.unwrap_err().kind(), ErrorKind::Refused);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_marked_is_read_back(
        sets in prop::collection::vec(
            prop::collection::btree_set(prop_oneof![0_u64..200, 0_u64..200_000, (1_u64 << 32)..(1 << 33)], 1..600),
            1..6,
        ),
    ) {
        let sets: Vec<Deleted> = sets.into_iter().map(marked).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = InMemory::new();
            let vectors = written(&store, &sets).await;
            let ids: std::collections::HashSet<String> = vectors.iter().map(id_of).collect();
            let different: usize = (0..sets.len()).filter(|at| !sets[..*at].contains(&sets[*at])).count();
            prop_assert!(ids.len() >= different);
            for (set, vector) in sets.iter().zip(&vectors) {
                prop_assert_eq!(&Deleted::load(&store, vector).await.unwrap(), set);
                prop_assert!(vector.size_in_bytes > INLINE_BYTES_MAX as i32 || vector.offset.is_none());
            }
            Ok(())
        })?;
    }
}

#[test]
fn runs_of_rows_take_next_to_nothing() {
    let all_but_one = marked((0..1_000_000).filter(|row| *row != 777));
    assert!(all_but_one.to_bytes().unwrap().len() < INLINE_BYTES_MAX);
}

#[test]
fn live_rows_are_those_that_are_not_marked() {
    let live = marked([0, 3]).live(5).unwrap();
    assert_eq!(live.iter().collect::<Vec<_>>(), [false, true, true, false, true]);
    assert!(marked([5]).live(5).is_none(), "the file has no such row");
}

#[tokio::test]
async fn a_damaged_file_is_found_out_whatever_byte_it_is() {
    let store = InMemory::new();
    let scattered = |step: u64| marked((0..1_000).map(|row| row * step));
    let vectors = written(&store, &[scattered(3), scattered(70)]).await;
    let path = file_of(&vectors[1]).unwrap().unwrap();
    assert_eq!(file_of(&vectors[0]).unwrap().unwrap(), path, "one file for both");
    let whole = store.get(&path).await.unwrap().bytes().await.unwrap();
    let start = usize::try_from(vectors[1].offset.unwrap()).unwrap();
    assert_eq!(whole[0], FORMAT);
    for at in start..whole.len() {
        let mut damaged = whole.to_vec();
        damaged[at] ^= 0x10;
        store.put(&path, damaged.into()).await.unwrap();
        let error = Deleted::load(&store, &vectors[1]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}");
        Deleted::load(&store, &vectors[0]).await.unwrap();
    }
    let cut = whole.slice(..whole.len() - 1);
    store.put(&path, cut.into()).await.unwrap();
    let error = Deleted::load(&store, &vectors[1]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "cut");
    store.delete(&path).await.unwrap();
    let error = Deleted::load(&store, &vectors[1]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "gone");
}
