//! Names of members that are expected, for comparing them at once.

/// A member's name as it is usually written, with its quotes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted {
    /// The first bytes.
    head: u128,
    /// Which bits of them count.
    mask: u128,
    /// Bytes with both quotes; 0 if it is never written so.
    length: u32,
}

/// Bytes that are compared at once.
const HEAD: usize = size_of::<u128>();

impl Quoted {
    /// Stands nowhere.
    pub(crate) const NEVER: Self = Self {
        head: 1,
        mask: 0,
        length: 0,
    };

    pub(crate) fn new(name: &str) -> Self {
        let must_be_escaped = |byte: u8| matches!(byte, b'"' | b'\\' | 0..0x20);
        let length = name.len() + 2;
        let Ok(counted) = u32::try_from(length) else {
            return Self::NEVER;
        };
        if name.bytes().any(must_be_escaped) {
            return Self::NEVER;
        }
        let mut head = [0; HEAD];
        let written = [b'"'].into_iter().chain(name.bytes()).chain([b'"']);
        for (byte, from) in head.iter_mut().zip(written) {
            *byte = from;
        }
        Self {
            head: u128::from_le_bytes(head),
            mask: u128::MAX >> (HEAD.saturating_sub(length) * 8),
            length: counted,
        }
    }

    /// Bytes with both quotes.
    #[inline]
    pub(super) fn length(self) -> usize {
        self.length as usize
    }

    /// Whether `bytes` begin with it. `name` gives what this was made of.
    #[inline(always)]
    pub(super) fn begins<'n>(self, bytes: &[u8], name: impl FnOnce() -> Option<&'n str>) -> bool {
        match bytes.first_chunk() {
            Some(chunk) if u128::from_le_bytes(*chunk) & self.mask != self.head => false,
            Some(_) if self.length() <= HEAD => true,
            _ => name().is_some_and(|name| self.begins_whole(bytes, name)),
        }
    }

    #[inline(never)]
    fn begins_whole(self, bytes: &[u8], name: &str) -> bool {
        matches!(bytes.get(..self.length()), Some([b'"', inner @ .., b'"']) if inner == name.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_recognized_whatever_its_length() {
        for length in 0..40 {
            let name: String = ('a'..='z').cycle().take(length).collect();
            let begins = |text: &[u8]| Quoted::new(&name).begins(text, || Some(&name));
            for behind in ["", ":", ": 1, and so on for a while"] {
                let text = format!("\"{name}\"{behind}");
                assert!(begins(text.as_bytes()), "{text}");
                assert!(!begins(format!("\"{name}x\"{behind}").as_bytes()), "{text}");
                for at in 0..length + 2 {
                    let mut other = text.clone().into_bytes();
                    other[at] ^= 1;
                    assert!(!begins(&other), "{text} {at}");
                    assert!(!begins(&text.as_bytes()[..at]), "{text} {at}");
                }
            }
        }
    }

    #[test]
    fn a_name_that_must_be_escaped_is_never_recognized() {
        for name in ["a\"b", "a\\b", "a\nb", "\0"] {
            for behind in ["", ": \"and so on for a while\""] {
                let written = format!("\"{name}\"{behind}");
                assert!(
                    !Quoted::new(name).begins(written.as_bytes(), || Some(name)),
                    "{written}"
                );
            }
        }
    }
}
