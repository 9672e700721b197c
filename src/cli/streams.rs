//! Streams on the command line.

use crate::{
    config::{Name, Project, StreamName},
    error::{Error, ErrorKind, Result},
};

/// The streams a command works on.
#[derive(Debug, clap::Args)]
pub(super) struct Streams {
    /// Streams such as shop.orders, or whole sources such as shop; all if none is named
    #[arg(value_name = "STREAM", value_parser = parse)]
    streams: Vec<Wanted>,
}

#[derive(Clone, Debug)]
enum Wanted {
    Source(Name),
    Stream(StreamName),
}

/// Reads one stream's name.
pub(super) fn name(text: &str) -> Result<StreamName> {
    StreamName::parse(text)
}

fn parse(text: &str) -> Result<Wanted> {
    if text.contains('.') {
        StreamName::parse(text).map(Wanted::Stream)
    } else {
        Name::new(text).map(Wanted::Source)
    }
}

impl Streams {
    /// The names meant, each once, in the order of the project file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for one that the project does not have.
    pub(super) fn of(&self, project: &Project) -> Result<Vec<StreamName>> {
        for wanted in &self.streams {
            match wanted {
                Wanted::Stream(name) => {
                    project.stream(name)?;
                }
                Wanted::Source(name) if project.sources.iter().any(|source| source.name == *name) => {}
                Wanted::Source(name) => {
                    let known: Vec<&str> = project
                        .sources
                        .iter()
                        .map(|source| source.name.as_str())
                        .collect();
                    return Err(Error::new(ErrorKind::Config, "find source")
                        .with("source", name)
                        .with("known", known.join(", ")));
                }
            }
        }
        let all = project.streams().map(|(_, stream)| &stream.name);
        let meant = |name: &&StreamName| {
            self.streams.is_empty()
                || self.streams.iter().any(|wanted| match wanted {
                    Wanted::Source(source) => name.source == *source,
                    Wanted::Stream(stream) => *name == stream,
                })
        };
        Ok(all.filter(meant).cloned().collect())
    }
}
