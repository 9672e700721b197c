use super::*;
use crate::{
    raw::BatchNumber,
    receive::ledger::receipt::{Cursor, Stage},
};

fn receipt(bench: &Bench, number: u64, stage: Stage) -> Receipt {
    // The number is in the id, so that it can be told which receipt it is.
    let mut id = ReceiptId::new(bench.hand.now()).to_bytes();
    id[8..].copy_from_slice(&number.to_be_bytes());
    let id = ReceiptId::from_bytes(id);
    let delivery = delivery(None, None, "{}", bench.hand.now(), id);
    Receipt::of(&delivery, stage)
}

fn numbers(receipts: &[Receipt]) -> Vec<u64> {
    let number = |receipt: &Receipt| u64::from_be_bytes(receipt.id.to_bytes()[8..].try_into().unwrap());
    receipts.iter().map(number).collect()
}

fn everything(limit: usize) -> Listing {
    Listing {
        updated_at_gte: None,
        after: None,
        producer: None,
        stream: None,
        limit,
    }
}

async fn all(bench: &Bench, mut listing: Listing) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for _ in 0..100 {
        let listed = bench.ledger.list(listing.clone()).await.unwrap();
        receipts.extend(listed.receipts);
        let Some(next) = listed.next else {
            return receipts;
        };
        listing.after = Some(next.to_string().parse::<Cursor>().unwrap());
    }
    panic!("the listing does not end");
}

fn landed(page: u64) -> Stage {
    let batch = BatchNumber::new(7).unwrap();
    Stage::Landed { batch, page }
}

#[tokio::test]
async fn a_receipt_is_found_as_soon_as_it_is_recorded_and_its_end_stays() {
    let mut bench = Bench::new().await;
    let spooled = receipt(&bench, 1, Stage::Spooled);
    bench.ledger.record(vec![spooled.clone()]).await.unwrap();
    let found = bench.ledger.receipt(spooled.id).await.unwrap().unwrap();
    assert_eq!(
        found,
        Receipt {
            updated_at: found.updated_at,
            ..spooled.clone()
        }
    );
    bench.hand.forward(HOUR);
    let at_end = Receipt {
        stage: landed(3),
        ..spooled.clone()
    };
    bench
        .ledger
        .record(vec![at_end.clone(), spooled.clone()])
        .await
        .unwrap();
    bench.restart().await;
    let found = bench.ledger.receipt(spooled.id).await.unwrap().unwrap();
    assert_eq!((&found.stage, found.updated_at), (&landed(3), bench.hand.now()));
    let reason = "é".repeat(Receipt::REASON_BYTES_MAX);
    let refused = receipt(&bench, 2, Stage::Refused { reason });
    bench.ledger.record(vec![refused.clone()]).await.unwrap();
    let found = bench.ledger.receipt(refused.id).await.unwrap().unwrap();
    assert!(matches!(&found.stage, Stage::Refused { reason } if reason.len() == Receipt::REASON_BYTES_MAX));
    assert_eq!(
        bench
            .ledger
            .receipt(ReceiptId::new(bench.hand.now()))
            .await
            .unwrap(),
        None
    );
    bench.hand.forward(31 * 24 * HOUR);
    assert_eq!(
        bench.ledger.receipt(spooled.id).await.unwrap(),
        None,
        "30 days after its last change"
    );
}

#[tokio::test]
async fn r098_receipts_are_listed_by_their_last_change_a_page_at_a_time() {
    let mut bench = Bench::new().await;
    let receipts: Vec<Receipt> = (0..25)
        .map(|number| receipt(&bench, number, Stage::Spooled))
        .collect();
    // All in the same microsecond: the ledger orders them nevertheless.
    bench.ledger.record(receipts.clone()).await.unwrap();
    assert_eq!(
        numbers(&all(&bench, everything(4)).await),
        (0..25).collect::<Vec<_>>()
    );

    bench.hand.forward(HOUR);
    let cut = bench.hand.now();
    let change = |number: usize| Receipt {
        stage: landed(0),
        ..receipts[number].clone()
    };
    bench.ledger.record(vec![change(20), change(3)]).await.unwrap();
    let since = Listing {
        updated_at_gte: Some(cut),
        ..everything(1)
    };
    assert_eq!(numbers(&all(&bench, since.clone()).await), [20, 3]);
    bench.restart().await;
    // The clock went back: the order does not.
    bench.hand.0.fetch_sub(HOUR.as_micros() as i64, Ordering::Relaxed);
    bench.ledger.record(vec![change(5)]).await.unwrap();
    assert_eq!(numbers(&all(&bench, since).await), [20, 3, 5]);
    let listed = all(&bench, everything(7)).await;
    assert!(
        listed
            .windows(2)
            .all(|pair| pair[0].updated_at < pair[1].updated_at)
    );
    assert_eq!(listed.len(), 25);
}

#[tokio::test]
async fn a_receipt_that_changes_while_it_is_listed_comes_again_and_none_is_left_out() {
    let bench = Bench::new().await;
    let receipts: Vec<Receipt> = (0..6)
        .map(|number| receipt(&bench, number, Stage::Spooled))
        .collect();
    bench.ledger.record(receipts.clone()).await.unwrap();
    let first = bench.ledger.list(everything(3)).await.unwrap();
    assert_eq!(numbers(&first.receipts), [0, 1, 2]);
    let change = |number: usize| Receipt {
        stage: landed(0),
        ..receipts[number].clone()
    };
    bench.ledger.record(vec![change(2), change(4)]).await.unwrap();
    let rest = Listing {
        after: first.next,
        ..everything(100)
    };
    assert_eq!(numbers(&all(&bench, rest).await), [3, 5, 2, 4]);
}

#[tokio::test]
async fn a_producer_lists_its_own_and_a_scan_that_finds_nothing_still_ends() {
    let bench = Bench::new().await;
    let mut receipts: Vec<Receipt> = (0..10)
        .map(|number| receipt(&bench, number, Stage::Spooled))
        .collect();
    for receipt in &mut receipts[5..] {
        receipt.producer = Some(Name::new("other").unwrap());
        receipt.stream = StreamName::parse("shop.refunds").unwrap();
    }
    bench.ledger.record(receipts).await.unwrap();
    let own = Listing {
        producer: Some(Name::new("till").unwrap()),
        ..everything(2)
    };
    assert_eq!(numbers(&all(&bench, own).await), [0, 1, 2, 3, 4]);
    let refunds = Listing {
        stream: Some(StreamName::parse("shop.refunds").unwrap()),
        ..everything(2)
    };
    assert_eq!(numbers(&all(&bench, refunds).await), [5, 6, 7, 8, 9]);
    let nobody = Listing {
        producer: Some(Name::new("nobody").unwrap()),
        ..everything(2)
    };
    assert_eq!(all(&bench, nobody).await, []);
}
