//! Which streams are to run, and when.

use std::collections::BTreeSet;

use crate::{
    clock::Timestamp,
    config::{Name, Project, StreamName, schedule::Schedule},
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
    pub fn due(&mut self, now: Timestamp) -> Vec<(Name, Vec<StreamName>)> {
        let mut due: Vec<(Name, Vec<StreamName>)> = Vec::new();
        for line in &mut self.lines {
            let source = &line.stream.source;
            if line.next.is_none_or(|next| next > now) || self.running.contains(source) {
                continue;
            }
            // Whatever was missed is in this run; the next is the first that is still to come.
            line.next = line.schedule.as_ref().and_then(|schedule| schedule.after(now));
            match due.iter_mut().find(|(known, _)| known == source) {
                Some((_, streams)) => streams.push(line.stream.clone()),
                None => due.push((source.clone(), vec![line.stream.clone()])),
            }
        }
        self.running.extend(due.iter().map(|(source, _)| source.clone()));
        due
    }

    /// Has `stream` run at `now`, before its time.
    pub fn call(&mut self, stream: &StreamName, now: Timestamp) {
        if let Some(line) = self.lines.iter_mut().find(|line| line.stream == *stream) {
            line.next = line.next.map_or(Some(now), |next| Some(next.min(now)));
        }
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
        let due = timetable
            .due(at(now))
            .into_iter()
            .flat_map(|(_, streams)| streams);
        due.map(|stream| stream.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_stream_that_is_called_runs_at_once_and_keeps_its_times() {
        let mut timetable = timetable("10:07:00");
        let hour = StreamName::parse("a.hour").unwrap();
        timetable.call(&hour, at("10:08:00"));
        timetable.call(&StreamName::parse("a.never").unwrap(), at("10:08:00"));
        assert_eq!(timetable.next(), Some(at("10:08:00")));
        assert_eq!(due(&mut timetable, "10:08:00"), "a.hour");
        // Called while it runs, it runs once more.
        timetable.call(&hour, at("10:09:00"));
        assert_eq!(due(&mut timetable, "10:09:00"), "");
        timetable.ended(&Name::new("a").unwrap());
        assert_eq!(due(&mut timetable, "10:09:01"), "a.hour");
        timetable.ended(&Name::new("a").unwrap());
        assert_eq!(timetable.next(), Some(at("10:15:00")));
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
