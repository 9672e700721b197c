//! Where the loads of a stream go: its live tables, or others that are made beside them.

use object_store::path::Path;

use crate::{
    config::{StreamName, WriteMode},
    raw::layout::{self, SystemTable},
    table::side::Side,
};

/// The tables that loads of one stream write.
#[derive(Clone, Debug)]
pub struct Target {
    /// The main table.
    pub table: Path,
    /// Records set aside.
    pub quarantine: Side,
    /// Deletions whose rows are gone.
    pub tombstones: Side,
    /// Whether the loads are told in the drift and load tables of the lake. Those of a rebuild are not: they happened before.
    pub told: bool,
}

impl Target {
    /// The live tables of `stream`.
    pub fn live(stream: &StreamName) -> Self {
        let side = |path| Side { path, shared: false };
        Self {
            table: layout::table(stream),
            quarantine: side(layout::quarantine(stream)),
            tombstones: side(layout::tombstones(stream)),
            told: true,
        }
    }

    /// Tables of `stream` under the name `id`, beside the live ones.
    pub fn staged(stream: &StreamName, id: &str) -> Self {
        let root = layout::staging(stream, id);
        let side = |name: &str| Side {
            path: root.clone().join(name),
            shared: false,
        };
        Self {
            table: root.clone().join("table"),
            quarantine: side("quarantine"),
            tombstones: side("tombstones"),
            told: false,
        }
    }

    /// How loads write that should write by `wanted`. The files of a rebuilt table are copied into the live one, and what is
    /// marked in them would be lost: it is made with none.
    pub(super) fn write_mode(&self, wanted: WriteMode) -> WriteMode {
        if self.told { wanted } else { WriteMode::CopyOnWrite }
    }

    /// The tables that are written before the main table.
    pub(super) fn sides(&self) -> Vec<Side> {
        let mut sides = vec![self.quarantine.clone(), self.tombstones.clone()];
        if self.told {
            sides.extend([drift_side(), profiles_side(), loads_side()]);
        }
        sides
    }
}

/// The drift table of all streams.
pub fn drift_side() -> Side {
    Side {
        path: layout::system(SystemTable::Drift),
        shared: true,
    }
}

/// What the records of each load of all streams were like.
pub fn profiles_side() -> Side {
    Side {
        path: layout::system(SystemTable::Profiles),
        shared: true,
    }
}

/// The load history of all streams.
pub fn loads_side() -> Side {
    Side {
        path: layout::system(SystemTable::Loads),
        shared: true,
    }
}
