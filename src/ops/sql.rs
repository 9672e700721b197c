//! `landfall sql`: one statement over the lake.

use datafusion::execution::SendableRecordBatchStream;

use crate::{
    error::Result,
    ops::Workspace,
    query::{Session, sql_error},
};

impl Workspace {
    /// A session for reading the tables of this project.
    ///
    /// # Errors
    /// Those of [`Session::new`].
    pub fn session(&self) -> Result<Session> {
        Session::new(&self.project, &self.tables, &self.store)
    }
}

/// Starts one statement that reads, and returns its rows as they come.
///
/// # Errors
/// Those of [`Session::sql`].
pub async fn sql(workspace: &Workspace, text: &str) -> Result<SendableRecordBatchStream> {
    let frame = workspace.session()?.sql(text).await?;
    frame
        .execute_stream()
        .await
        .map_err(|source| sql_error("plan SQL", source))
}
