//! Streams that must not run at the same time.

use std::collections::BTreeMap;

use tokio::sync::{Mutex, MutexGuard};

use crate::config::{Name, Project, Source, Stream};

/// One turn for each group of each source: of its streams one runs at a time.
pub(super) struct Groups(BTreeMap<(Name, Name), Mutex<()>>);

impl Groups {
    pub(super) fn of(project: &Project) -> Self {
        let groups = project.streams().filter_map(|(source, stream)| {
            let group = stream.group.clone()?;
            Some(((source.name.clone(), group), Mutex::new(())))
        });
        Self(groups.collect())
    }

    /// Waits until no other stream of the group of `stream` runs; at once if it has none.
    ///
    /// Whoever waits here must hold nothing that a stream of the group may need.
    pub(super) async fn turn(&self, source: &Source, stream: &Stream) -> Option<MutexGuard<'_, ()>> {
        let key = (source.name.clone(), stream.group.clone()?);
        Some(self.0.get(&key)?.lock().await)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use futures::FutureExt as _;

    use super::*;
    use crate::config::read::parse;

    #[tokio::test]
    async fn a_group_is_of_one_source_and_gives_one_turn_at_a_time() {
        let source = |name: &str| {
            let stream = |name: &str, group: &str| {
                format!("      {name}: {{ request: {{ path: /x }}, table: {{ keys: [id] }}{group} }}\n")
            };
            format!("  {name}:\n    base_url: http://localhost\n    streams:\n")
                + &stream("one", ", group: session")
                + &stream("two", ", group: session")
                + &stream("free", "")
        };
        let text = format!("lake: ./lake\nsources:\n{}{}", source("a"), source("b"));
        let project = parse(&text, Path::new("/p")).unwrap().project;
        let groups = Groups::of(&project);
        let turn = |source: usize, stream: usize| {
            let source = &project.sources[source];
            groups.turn(source, &source.streams[stream]).now_or_never()
        };
        let held = turn(0, 0).unwrap();
        assert!(held.is_some());
        assert!(turn(0, 1).is_none(), "the other one of the group waits");
        assert!(turn(0, 2).unwrap().is_none(), "one without a group does not");
        assert!(turn(1, 1).unwrap().is_some(), "nor does one of another source");
        drop(held);
        assert!(turn(0, 1).unwrap().is_some());
    }
}
