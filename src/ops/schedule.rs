//! Which streams are to run, and when.

use std::collections::BTreeSet;

use crate::{
    clock::Timestamp,
    config::{Name, Project, StreamName, schedule::Schedule},
    ops::heard::ears::Call,
};

/// The streams that run by themselves, each with its next moment.
///
/// A source runs one thing at a time, so that its budget is counted in one place and no stream runs beside itself. What
/// comes while it runs waits, and however often it came it is run once.
#[derive(Debug)]
pub struct Timetable {
    lines: Vec<Line>,
    running: BTreeSet<Name>,
}

#[derive(Debug)]
struct Line {
    stream: StreamName,
    /// None for one that only runs when it is called.
    schedule: Option<Schedule>,
    next: Option<Timestamp>,
    /// Why it is to run before that.
    called: Option<Call>,
}

/// What is to run of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The source.
    pub source: Name,
    /// Its streams.
    pub streams: Vec<StreamName>,
    /// Those of them that only fetch what events name.
    pub only_events: Vec<StreamName>,
}

impl Timetable {
    /// Those of `streams` that have a schedule, or may be [called](Self::call); the first moments are the first after `now`.
    pub fn new(project: &Project, streams: &[StreamName], now: Timestamp) -> Self {
        let lines = project.streams().filter_map(|(_, stream)| {
            let is_called = stream.gaps.is_some() || stream.hydrate.is_some();
            let is_meant = streams.contains(&stream.name) && (stream.schedule.is_some() || is_called);
            is_meant.then(|| Line {
                stream: stream.name.clone(),
                next: stream.schedule.as_ref().and_then(|schedule| schedule.after(now)),
                schedule: stream.schedule.clone(),
                called: None,
            })
        });
        Self {
            lines: lines.collect(),
            running: BTreeSet::new(),
        }
    }

    /// Whether there is nothing to run, ever.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// What is to run at `now`, by source. Its sources count as running until [`Self::ended`].
    pub fn due(&mut self, now: Timestamp) -> Vec<Due> {
        let mut all: Vec<Due> = Vec::new();
        for line in &mut self.lines {
            let source = &line.stream.source;
            let is_time = line.next.is_some_and(|next| next <= now);
            if !is_time && line.called.is_none() || self.running.contains(source) {
                continue;
            }
            let call = line.called.take();
            if is_time {
                // Whatever was missed is in this run; the next is the first that is still to come.
                line.next = line.schedule.as_ref().and_then(|schedule| schedule.after(now));
            }
            let place = all.iter().position(|due| due.source == *source);
            let place = place.unwrap_or_else(|| {
                all.push(Due {
                    source: source.clone(),
                    streams: Vec::new(),
                    only_events: Vec::new(),
                });
                all.len() - 1
            });
            let due = &mut all[place];
            due.streams.push(line.stream.clone());
            if !is_time && call == Some(Call::Events) {
                due.only_events.push(line.stream.clone());
            }
        }
        self.running.extend(all.iter().map(|due| due.source.clone()));
        all
    }

    /// Has `stream` run before its time, unless its source is running: that run may bring what it is called for.
    pub fn call(&mut self, stream: &StreamName, call: Call) {
        if self.is_running(&stream.source) {
            return;
        }
        if let Some(line) = self.lines.iter_mut().find(|line| line.stream == *stream) {
            line.called = Some(call);
        }
    }

    /// Whether a run of `source` has not ended.
    pub fn is_running(&self, source: &Name) -> bool {
        self.running.contains(source)
    }

    /// The run of `source` has ended.
    pub fn ended(&mut self, source: &Name) {
        self.running.remove(source);
    }

    /// When to look again, if nothing ends before.
    pub fn next(&self) -> Option<Timestamp> {
        let idle = self
            .lines
            .iter()
            .filter(|line| !self.running.contains(&line.stream.source));
        idle.filter_map(|line| line.next).min()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{parse_timestamp, read::parse};

    fn timetable(now: &str) -> Timetable {
        let text = "
lake: ./lake
sources:
  a:
    base_url: https://a.example
    streams:
      quarter: { request: { path: /q }, table: { keys: [id] }, schedule: '*/15 * * * *' }
      hour: { request: { path: /h }, table: { keys: [id] }, schedule: 1h }
      never: { request: { path: /n }, table: { keys: [id] } }
  b:
    base_url: https://b.example
    streams:
      quarter: { request: { path: /q }, table: { keys: [id] }, schedule: 15m }
";
        let project = parse(text, Path::new("/srv/shop")).unwrap().project;
        let streams: Vec<StreamName> = project.streams().map(|(_, stream)| stream.name.clone()).collect();
        Timetable::new(&project, &streams, at(now))
    }

    fn at(text: &str) -> Timestamp {
        parse_timestamp(&format!("2026-11-22T{text}Z")).unwrap()
    }

    fn due(timetable: &mut Timetable, now: &str) -> String {
        let due = timetable.due(at(now)).into_iter().flat_map(|due| due.streams);
        due.map(|stream| stream.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_stream_that_is_called_runs_at_once_and_keeps_its_times() {
        let mut timetable = timetable("10:07:00");
        let stream = |name: &str| StreamName::parse(name).unwrap();
        let a = Name::new("a").unwrap();
        timetable.call(&stream("a.hour"), Call::Missing);
        timetable.call(&stream("a.never"), Call::Missing);
        assert_eq!(due(&mut timetable, "10:08:00"), "a.hour");
        // What it is called for while it runs may come with this run.
        timetable.call(&stream("a.hour"), Call::Missing);
        timetable.ended(&a);
        assert_eq!(due(&mut timetable, "10:09:01"), "");
        assert_eq!(timetable.next(), Some(at("10:15:00")));

        timetable.call(&stream("a.hour"), Call::Events);
        timetable.call(&stream("a.quarter"), Call::Events);
        let due = timetable.due(at("10:15:00")).swap_remove(0);
        assert_eq!(due.streams, [stream("a.quarter"), stream("a.hour")]);
        // It is time for the other one anyhow.
        assert_eq!(due.only_events, [stream("a.hour")]);
        timetable.ended(&a);
        timetable.call(&stream("a.hour"), Call::Missing);
        assert_eq!(timetable.due(at("10:16:00"))[0].only_events, []);
    }

    #[test]
    fn r013_streams_run_at_their_times_once_and_not_beside_themselves() {
        let mut timetable = timetable("10:07:00");
        assert_eq!(timetable.next(), Some(at("10:15:00")));
        assert_eq!(due(&mut timetable, "10:14:59"), "");
        assert_eq!(due(&mut timetable, "10:15:00"), "a.quarter b.quarter");
        assert_eq!(due(&mut timetable, "10:15:00"), "");
        timetable.ended(&Name::new("b").unwrap());
        assert_eq!(timetable.next(), Some(at("10:30:00")));
        // Source a is still running: three quarters and the hour wait for it, and are one run each.
        assert_eq!(due(&mut timetable, "11:00:30"), "b.quarter");
        timetable.ended(&Name::new("a").unwrap());
        assert_eq!(timetable.next(), Some(at("10:30:00")));
        assert_eq!(due(&mut timetable, "11:00:31"), "a.quarter a.hour");
        timetable.ended(&Name::new("a").unwrap());
        assert_eq!(timetable.next(), Some(at("11:15:00")));
        assert_eq!(due(&mut timetable, "11:00:32"), "");
    }
}
