//! What makes a delivery count as received.

use crate::{
    error::Result,
    receive::{
        Delivery,
        spool::{Spool, direct::Direct, kept::Kept, level::Level},
    },
};

/// What makes a delivery count as received.
pub enum Acknowledger {
    /// That it is safe on the local disk.
    Spool(Spool),
    /// That it is in the lake.
    Lake(Direct),
}

impl Acknowledger {
    /// Keeps `delivery`: when this has returned without an error it will not be lost. What is returned is dropped when
    /// everything that has to be known of it is.
    ///
    /// # Errors
    /// Those of [`Spool::append`] or [`Direct::append`].
    pub async fn append(&self, delivery: Delivery) -> Result<Kept> {
        match self {
            Self::Spool(spool) => spool.append(delivery).await,
            Self::Lake(direct) => direct.append(delivery).await.map(|()| Kept::in_lake()),
        }
    }

    /// How much waits.
    pub fn level(&self) -> Level {
        match self {
            Self::Spool(spool) => spool.level(),
            Self::Lake(direct) => direct.level(),
        }
    }
}
