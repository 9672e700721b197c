//! How far channels are.

use super::*;
use crate::{
    raw::ChannelFact,
    receive::ledger::{
        channel::{Channel, ChannelName},
        repair::Remembered,
    },
};

fn name() -> ChannelName {
    ChannelName::new("export").unwrap()
}

fn till() -> Name {
    Name::new("till").unwrap()
}

/// The delivery that is number `number` of the channel, in epoch `epoch`.
fn appended(bench: &Bench, epoch: u64, number: u64) -> Delivery {
    let offset = format!("o{number}");
    let mut delivery = delivery(
        Some(&offset),
        None,
        "{}",
        bench.hand.now(),
        ReceiptId::new(bench.hand.now()),
    );
    delivery.page.facts.channel = Some(ChannelFact {
        name: "export".to_owned(),
        epoch,
        number,
        offset,
    });
    delivery
}

impl Bench {
    async fn hold(&self) -> Option<channel::ChannelClaim> {
        let (stream, till, name) = (stream(), till(), name());
        let held = self.ledger.hold_channel(&stream, Some(&till), &name, AT_ONCE);
        held.await.unwrap()
    }

    fn channel(&self) -> Option<Channel> {
        self.ledger.channel(&stream(), Some(&till()), &name()).unwrap()
    }

    async fn put_back(&self, deliveries: &[Delivery]) -> u64 {
        let remembered = deliveries
            .iter()
            .map(|delivery| Remembered::of(delivery, |_| Ok(answer("a"))));
        let remembered = remembered.collect::<Result<Vec<_>>>().unwrap();
        self.ledger.repair(remembered).await.unwrap().channels
    }
}

fn at(bench: &Bench, epoch: u64, number: u64) -> Channel {
    Channel {
        epoch,
        number,
        offset: Some(Key::new(&format!("o{number}")).unwrap()),
        receipt: Some(ReceiptId::new(bench.hand.now())),
        at: bench.hand.now(),
    }
}

#[tokio::test]
async fn a_channel_is_held_by_one_and_kept_through_restarts_until_its_time() {
    let mut bench = Bench::new().await;
    let first = bench.hold().await.unwrap();
    assert!(first.before().is_none() && bench.hold().await.is_none());
    drop(first);
    let second = bench.hold().await.unwrap();
    let channel = at(&bench, 1, 7);
    second.complete(channel.clone()).await.unwrap();
    // Before it is on disk, and after.
    assert_eq!(bench.channel(), Some(channel.clone()));
    assert_eq!(bench.hold().await.unwrap().before(), Some(&channel));
    bench.restart().await;
    assert_eq!(bench.channel(), Some(channel.clone()));
    let other = ChannelName::new("other").unwrap();
    assert_eq!(
        bench.ledger.channel(&stream(), Some(&till()), &other).unwrap(),
        None
    );
    assert_eq!(bench.ledger.channel(&stream(), None, &name()).unwrap(), None);

    let before = bench.ledger.gauges().bytes;
    bench.hand.forward(Kept::CHANNELS_FOR + HOUR);
    assert_eq!(bench.channel(), None);
    assert!(bench.hold().await.unwrap().before().is_none());
    assert_eq!(bench.ledger.sweep().await.unwrap().channels, 1);
    assert!(bench.ledger.gauges().bytes < before);
}

#[tokio::test]
async fn the_spool_puts_back_what_a_channel_lacks_and_never_takes_it_back() {
    let bench = Bench::new().await;
    let deliveries: Vec<_> = (1..=3).map(|number| appended(&bench, 1, number)).collect();
    assert_eq!(bench.put_back(&deliveries).await, 3);
    assert_eq!(
        bench.channel().map(|channel| (channel.epoch, channel.number)),
        Some((1, 3))
    );
    // A segment that is left although later ones are in the lake.
    bench
        .hold()
        .await
        .unwrap()
        .complete(at(&bench, 4, 9))
        .await
        .unwrap();
    assert_eq!(bench.put_back(&deliveries).await, 0);
    assert_eq!(
        bench.channel().map(|channel| (channel.epoch, channel.number)),
        Some((4, 9))
    );
    // The epoch is that of the last opening, whoever appended last.
    assert_eq!(bench.put_back(&[appended(&bench, 3, 10)]).await, 1);
    let channel = bench.channel().unwrap();
    assert_eq!((channel.epoch, channel.offset.unwrap().as_str()), (4, "o10"));
}
