//! How everything is asked for: the settings.

use crate::config::{
    Stream,
    paginate::Paging,
    request::{Request, TokenSlot},
};

/// How everything is asked for where that is not done as for changes: by the first pass, until it has a watermark, and
/// by every complete one.
#[derive(Clone, Debug)]
pub struct Complete {
    /// Instead of the request of the stream; the bounds are in it where its templates say so.
    pub request: Option<Request>,
    /// Instead of the pages of the stream.
    pub paginate: Option<Paging>,
}

impl Complete {
    /// The stream as it asks for everything.
    pub fn of(&self, stream: &Stream) -> Stream {
        let mut stream = stream.clone();
        if let Some(request) = &self.request {
            stream.request = request.clone();
            if let Some(incremental) = &mut stream.incremental {
                incremental.to = TokenSlot::Template;
                if let Some(until) = &mut incremental.until {
                    until.to = TokenSlot::Template;
                }
            }
        }
        if let Some(paginate) = &self.paginate {
            stream.paginate = paginate.clone();
        }
        stream
    }
}
