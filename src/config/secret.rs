//! A value that may come from outside the project file and never shows itself.

mod exec;

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
};

use crate::{
    config::secret::exec::Exec,
    error::{Error, ErrorKind, Result},
};

/// Text with references in it, resolved each time it is used, so that a rotated secret counts at once.
///
/// `Debug` and `Display` print references by name and never a value.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<Part>);

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Env(String),
    File(PathBuf),
    Exec(Exec),
}

impl Secret {
    /// Reads text with `${env:NAME}`, `${file:PATH}` and `${exec:PROGRAM ARGUMENT …}` in it; `$${` stands for `${`.
    ///
    /// A program is started without a shell: its arguments are split at spaces, and nothing in them is quoted or
    /// expanded. What it prints is the value, without the trailing line end; it is kept for a minute.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an unknown or unclosed reference.
    ///
    /// ```
    /// use landfall::config::secret::Secret;
    /// let token = Secret::parse("${env:SHOP_TOKEN}")?;
    /// assert!(token.is_reference());
    /// assert_eq!(format!("{token:?}"), "Secret(${env:SHOP_TOKEN})");
    /// assert_eq!(format!("{:?}", Secret::parse("hunter2")?), "Secret(****)");
    /// # Ok::<(), landfall::error::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if at > 0 && rest.as_bytes()[at - 1] == b'$' {
                literal.push_str(&rest[..at - 1]);
                literal.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            literal.push_str(&rest[..at]);
            let Some(end) = rest[at..].find('}') else {
                return Err(Error::new(ErrorKind::Config, "read reference")
                    .with("problem", "no closing brace after ${")
                    .with("hint", "write $${ for a literal ${"));
            };
            let reference = &rest[at + 2..at + end];
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(match reference.split_once(':') {
                Some(("env", name)) if !name.is_empty() => Part::Env(name.to_owned()),
                Some(("file", path)) if !path.is_empty() => Part::File(PathBuf::from(path)),
                Some(("exec", command)) if !command.trim().is_empty() => Part::Exec(Exec::new(command)),
                _ => {
                    return Err(Error::new(ErrorKind::Config, "read reference")
                        .with("reference", format!("${{{reference}}}"))
                        .with(
                            "expected",
                            "${env:NAME}, ${file:PATH} or ${exec:PROGRAM ARGUMENT}",
                        ));
                }
            });
            rest = &rest[at + end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() || parts.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self(parts))
    }

    /// Text that is taken as it stands.
    pub fn literal(text: impl Into<String>) -> Self {
        Self(vec![Part::Literal(text.into())])
    }

    /// The same text with the relative paths of `${file:PATH}` taken from `dir` and programs run there, so that the
    /// current directory never matters.
    #[must_use]
    pub fn relative_to(mut self, dir: &Path) -> Self {
        for part in &mut self.0 {
            match part {
                Part::File(path) => *path = dir.join(&*path),
                Part::Exec(exec) => *exec = exec.relative_to(dir),
                Part::Literal(_) | Part::Env(_) => {}
            }
        }
        self
    }

    /// Lets programs run again at the next use instead of keeping what they printed: the value was refused.
    pub fn forget(&self) {
        for part in &self.0 {
            if let Part::Exec(exec) = part {
                exec.forget();
            }
        }
    }

    /// Whether any part comes from outside the file.
    pub fn is_reference(&self) -> bool {
        self.0.iter().any(|part| !matches!(part, Part::Literal(_)))
    }

    /// The value, read now. A file's trailing line end is not part of it. A program may keep the thread for up to
    /// half a minute.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the variable, file or program that cannot be read.
    pub fn reveal(&self) -> Result<String> {
        self.0.iter().map(Part::reveal).collect()
    }

    /// The values of its references alone, read now, without the text between them.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the variable, file or program that cannot be read.
    pub fn reveal_references(&self) -> Result<Vec<String>> {
        let references = self.0.iter().filter(|part| !matches!(part, Part::Literal(_)));
        references.map(Part::reveal).collect()
    }

    /// The text with every reference replaced by its number between two NUL characters, counted from 0 in the order of
    /// [`Self::reveal_references`].
    pub(crate) fn as_marked(&self) -> String {
        let mut number = 0;
        let parts = self.0.iter().map(|part| match part {
            Part::Literal(text) => text.clone(),
            _ => {
                number += 1;
                format!("\0{}\0", number - 1)
            }
        });
        parts.collect()
    }

    /// The text as it stands in the project file: references by name, literals in full. Never for a log.
    pub(crate) fn as_written(&self) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Literal(text) => text.replace("${", "$${"),
            Part::Env(name) => format!("${{env:{name}}}"),
            Part::File(path) => format!("${{file:{}}}", path.display()),
            Part::Exec(exec) => format!("${{exec:{}}}", exec.command()),
        });
        parts.collect()
    }
}

impl Part {
    fn reveal(&self) -> Result<String> {
        match self {
            Self::Literal(text) => Ok(text.clone()),
            Self::Env(name) => {
                #[expect(clippy::disallowed_methods, reason = "config reads the environment")]
                let found = env::var(name);
                found.map_err(|source| {
                    Error::new(ErrorKind::Config, "read secret from the environment")
                        .with("variable", name)
                        .caused_by(source)
                })
            }
            Self::File(path) => {
                let text = fs::read_to_string(path).map_err(|source| {
                    Error::new(ErrorKind::Config, "read secret from a file")
                        .with("path", path.display())
                        .caused_by(source)
                })?;
                Ok(text.trim_end_matches(['\n', '\r']).to_owned())
            }
            Self::Exec(exec) => exec.output(),
        }
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            match part {
                Part::Literal(_) => f.write_str("****")?,
                Part::Env(name) => write!(f, "${{env:{name}}}")?,
                Part::File(path) => write!(f, "${{file:{}}}", path.display())?,
                // An argument may be a secret of its own.
                Part::Exec(exec) => write!(f, "${{exec:{}}}", exec.program())?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r054_a_value_is_put_together_from_text_environment_and_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("token"), "s3cr3t\r\n").unwrap();
        let secret = Secret::parse("Token ${file:token} $${x}")
            .unwrap()
            .relative_to(dir.path());
        assert_eq!(secret.reveal().unwrap(), "Token s3cr3t ${x}");
        assert_eq!(secret.reveal_references().unwrap(), ["s3cr3t"]);
        let written = Secret::parse("a ${file:token} $${x}").unwrap().as_written();
        assert_eq!(written, "a ${file:token} $${x}");
        assert!(!format!("{secret} {secret:?}").contains("s3cr3t"));
        let variable = Secret::parse("${env:CARGO_PKG_NAME}").unwrap();
        assert_eq!(variable.reveal().unwrap(), "landfall");
    }

    #[test]
    fn r055_a_changed_secret_file_counts_at_the_next_use() {
        let dir = tempfile::tempdir().unwrap();
        let secret = Secret::parse("${file:token}").unwrap().relative_to(dir.path());
        fs::write(dir.path().join("token"), "old").unwrap();
        assert_eq!(secret.reveal().unwrap(), "old");
        fs::write(dir.path().join("token"), "new\n").unwrap();
        assert_eq!(secret.reveal().unwrap(), "new");
    }

    #[test]
    fn a_missing_variable_or_file_is_named() {
        let error = Secret::parse("${env:LANDFALL_NO_SUCH_VARIABLE}")
            .unwrap()
            .reveal()
            .unwrap_err();
        assert!(error.to_string().contains("LANDFALL_NO_SUCH_VARIABLE"), "{error}");
        let error = Secret::parse("${file:/no/such/file}")
            .unwrap()
            .reveal()
            .unwrap_err();
        assert!(error.to_string().contains("/no/such/file"), "{error}");
        assert!(Secret::parse("${vault:x}").is_err());
        assert!(Secret::parse("${env:X").is_err());
    }
}
