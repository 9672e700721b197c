//! Certificates as an administrator makes them, by openssl.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// Days from 2020 to 2020 and from 2020 to 2050, as openssl writes moments.
const LONG_AGO: [&str; 2] = ["20200101000000Z", "20200102000000Z"];
const NOW: [&str; 2] = ["20200101000000Z", "20500101000000Z"];

const CONFIG: &str = "[req]
distinguished_name=name
[name]
[ca]
default_ca=ours
[ours]
database=index
serial=serial
crlnumber=number
new_certs_dir=.
default_md=sha256
default_crl_days=3650
crl_extensions=list
policy=any
unique_subject=no
[any]
commonName=supplied
[list]
authorityKeyIdentifier=keyid:always
";

/// An authority with what it issued, `NAME.pem` and `NAME.key` each; its own are `ca.pem` and `ca.key`.
pub struct Authority {
    dir: TempDir,
}

impl Authority {
    /// A new one that nobody has heard of.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("config", CONFIG),
            ("index", ""),
            ("serial", "01\n"),
            ("number", "01\n"),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let authority = Self { dir };
        let made = "req -config config -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=ca \
                    -keyout ca.key -out ca.pem -addext basicConstraints=critical,CA:TRUE -addext subjectKeyIdentifier=hash";
        authority.openssl(made);
        authority
    }

    /// Issues a certificate for these alternative names, as in `DNS:localhost,IP:127.0.0.1`.
    pub fn issue(&self, name: &str, names: &str) {
        self.issue_for(name, names, NOW);
    }

    /// As [`Authority::issue`], for a time that is over.
    pub fn issue_expired(&self, name: &str, names: &str) {
        self.issue_for(name, names, LONG_AGO);
    }

    fn issue_for(&self, name: &str, names: &str, [from, to]: [&str; 2]) {
        let extensions = format!("basicConstraints=CA:FALSE\nsubjectAltName={names}\n");
        fs::write(self.path("extensions"), extensions).unwrap();
        self.openssl(&format!(
            "req -config config -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} \
             -keyout {name}.key -out {name}.csr"
        ));
        self.openssl(&format!(
            "ca -batch -notext -config config -cert ca.pem -keyfile ca.key -in {name}.csr -out {name}.pem \
             -startdate {from} -enddate {to} -extfile extensions"
        ));
    }

    /// Takes a certificate back.
    pub fn revoke(&self, name: &str) {
        self.openssl(&format!(
            "ca -config config -cert ca.pem -keyfile ca.key -revoke {name}.pem"
        ));
    }

    /// Writes `crl.pem`, the list of all that was taken back.
    pub fn list_revoked(&self) {
        self.openssl("ca -config config -cert ca.pem -keyfile ca.key -gencrl -out crl.pem");
    }

    /// One of its files.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Certificate and key of `name` as a client shows them.
    pub fn identity(&self, name: &str) -> reqwest::Identity {
        let read = |kind: &str| fs::read(self.path(&format!("{name}.{kind}"))).unwrap();
        reqwest::Identity::from_pem(&[read("pem"), read("key")].concat()).unwrap()
    }

    /// Its own certificate, for those who trust it.
    pub fn root(&self) -> reqwest::Certificate {
        reqwest::Certificate::from_pem(&fs::read(self.path("ca.pem")).unwrap()).unwrap()
    }

    /// The SHA-256 of a certificate, in hexadecimal as openssl writes it but for the colons, in lowercase.
    pub fn fingerprint(&self, name: &str) -> String {
        let told = self.openssl(&format!("x509 -in {name}.pem -noout -fingerprint -sha256"));
        let (_, hex) = told.trim().split_once('=').unwrap();
        hex.replace(':', "").to_lowercase()
    }

    fn openssl(&self, arguments: &str) -> String {
        run(self.dir.path(), arguments)
    }
}

fn run(dir: &Path, arguments: &str) -> String {
    let output = Command::new("openssl")
        .args(arguments.split(' ').filter(|argument| !argument.is_empty()))
        .current_dir(dir)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {said}");
    String::from_utf8(output.stdout).unwrap()
}
