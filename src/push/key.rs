//! Idempotency keys that follow from what is sent and where it stands: a process begun again sends the same ones.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use uuid::{Builder, Uuid};

use crate::push::target::Target;

/// The namespace of all keys: version 5 of the URL namespace (RFC 9562, section 6.6) and `landfall:push`. Never to be changed:
/// a process of a newer version would send other keys for what an older one has sent.
const NAMESPACE: Uuid = Uuid::from_u128(0x1f38_b1a8_aef9_59fd_989f_a4d5_8e92_c85f);

/// Where a body stands among those of its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// What the bodies are of: a file, a partition, a run. Two producers that may send the same at the same number have to
    /// call it differently.
    pub origin: &'a str,
    /// The number of the body in it.
    pub number: u64,
}

/// The key of `body` at `place`: a version 5 UUID, hyphenated, lowercase.
///
/// Its name is made of the stream, the origin, the number and the SHA-256 of the body as it is before packing. The same of all
/// four gives the same key on any machine in any version of this program.
///
/// ```
/// use landfall::push::key::{Place, key};
/// let target = "shop.orders".parse().unwrap();
/// let place = Place { origin: "orders.jsonl", number: 0 };
/// assert_eq!(key(&target, place, b"{\"id\":1}"), key(&target, place, b"{\"id\":1}"));
/// assert_ne!(key(&target, place, b"{\"id\":1}"), key(&target, place, b"{\"id\":2}"));
/// ```
pub fn key(target: &Target, place: Place<'_>, body: &[u8]) -> String {
    let content = digest(&SHA256, body);
    let mut name = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    name.update(NAMESPACE.as_bytes());
    for part in [target.to_string().as_bytes(), place.origin.as_bytes()] {
        // With its length before it, so that no two parts run together to the same bytes.
        name.update(&(part.len() as u64).to_be_bytes());
        name.update(part);
    }
    name.update(&place.number.to_be_bytes());
    name.update(content.as_ref());
    let hashed = name.finish();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hashed.as_ref()[..16]);
    Builder::from_sha1_bytes(bytes).into_uuid().to_string()
}
