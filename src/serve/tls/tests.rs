use std::{fs, process::Command, sync::OnceLock};

use chrono::TimeDelta;
use rustls::{ClientConfig, pki_types::ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    identity::{Identity, SubjectName},
    *,
};

/// Certificates made once per test process: two authorities, two servers, and clients of every sort.
pub(in crate::serve) fn pki() -> &'static Path {
    static MADE: OnceLock<TempDir> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let config = "[req]\ndistinguished_name=name\n[name]\n\
            [ca]\ndefault_ca=ours\n[ours]\ndatabase=index\ncrlnumber=number\ndefault_md=sha256\n\
            default_crl_days=3650\ncrl_extensions=list\n[list]\nauthorityKeyIdentifier=keyid:always\n";
        fs::write(dir.path().join("config"), config).unwrap();
        fs::write(dir.path().join("index"), "").unwrap();
        fs::write(dir.path().join("number"), "01\n").unwrap();
        for ca in ["ca", "other"] {
            certificate(
                dir.path(),
                ca,
                None,
                &["basicConstraints=critical,CA:TRUE", "subjectKeyIdentifier=hash"],
            );
        }
        for server in ["server", "server2"] {
            certificate(dir.path(), server, Some("ca"), &["subjectAltName=DNS:localhost"]);
        }
        let names = "subjectAltName=DNS:Producer.example,URI:spiffe://example/shop,email:ops@example.com";
        certificate(dir.path(), "client", Some("ca"), &[names]);
        certificate(
            dir.path(),
            "revoked",
            Some("ca"),
            &["subjectAltName=DNS:left.example"],
        );
        certificate(dir.path(), "stranger", Some("other"), &[names]);
        certificate(dir.path(), "nameless", Some("ca"), &[]);
        let hosts = "subjectAltName=critical,IP:192.0.2.7,IP:2001:db8::7";
        certificate(dir.path(), "host", Some("ca"), &[hosts]);
        let authority = ["ca", "-config", "config", "-cert", "ca.pem", "-keyfile", "ca.key"];
        openssl(
            dir.path(),
            &[&authority[..], &["-revoke", "revoked.pem"]].concat(),
        );
        openssl(
            dir.path(),
            &[&authority[..], &["-gencrl", "-out", "crl.pem"]].concat(),
        );
        dir
    })
    .path()
}

fn certificate(dir: &Path, name: &str, issuer: Option<&str>, extensions: &[&str]) {
    let (key, pem, subject) = (
        format!("{name}.key"),
        format!("{name}.pem"),
        format!("/CN={name}"),
    );
    let mut arguments = vec![
        "req",
        "-config",
        "config",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "3650",
        "-subj",
        &subject,
        "-keyout",
        &key,
        "-out",
        &pem,
    ];
    let issued = issuer.map(|issuer| (format!("{issuer}.pem"), format!("{issuer}.key")));
    if let Some((pem, key)) = &issued {
        arguments.extend(["-CA", pem, "-CAkey", key, "-addext", "basicConstraints=CA:FALSE"]);
    }
    for extension in extensions {
        arguments.extend(["-addext", extension]);
    }
    openssl(dir, &arguments);
}

fn openssl(dir: &Path, arguments: &[&str]) {
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

pub(in crate::serve) fn options(clients: Clients) -> TlsOptions {
    TlsOptions {
        certificates: pki().join("server.pem"),
        key: pki().join("server.key"),
        clients,
    }
}

pub(in crate::serve) fn authorities(revoked: bool) -> Authorities {
    Authorities {
        roots: pki().join("ca.pem"),
        revoked: revoked.then(|| pki().join("crl.pem")),
    }
}

/// A client that shows the certificate of this name, if any.
pub(in crate::serve) fn client(name: Option<&str>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(pki().join("ca.pem")).unwrap())
        .unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    match name {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain = CertificateDer::from_pem_file(pki().join(format!("{name}.pem"))).unwrap();
            let key = PrivateKeyDer::from_pem_file(pki().join(format!("{name}.key"))).unwrap();
            builder.with_client_auth_cert(vec![chain], key).unwrap()
        }
    }
}

/// What one handshake came to: the client's identity and the server's certificate, or the server's error.
async fn shake(tls: &Tls, client: ClientConfig) -> Result<(Option<Identity>, Vec<u8>), String> {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let connector = TlsConnector::from(Arc::new(client));
    let localhost = ServerName::try_from("localhost").unwrap();
    let (server, client) = tokio::join!(
        TlsAcceptor::from(tls.config()).accept(ours),
        connector.connect(localhost, theirs)
    );
    let server = server.map_err(|error| error.to_string())?;
    let client = client.map_err(|error| error.to_string())?;
    let shown = client.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    Ok((Tls::identity(server.get_ref().1), shown))
}

fn open(clients: Clients) -> Tls {
    Tls::open(options(clients), Clock::system()).unwrap()
}

#[tokio::test]
async fn r157_the_identity_is_the_alternative_names_of_the_client() {
    let tls = open(Clients::Required(authorities(true)));
    let (identity, _) = shake(&tls, client(Some("client"))).await.unwrap();
    let identity = identity.unwrap();
    assert_eq!(
        identity.names,
        [
            SubjectName::Dns("producer.example".to_owned()),
            SubjectName::Uri("spiffe://example/shop".to_owned()),
            SubjectName::Email("ops@example.com".to_owned()),
        ]
    );
    assert_eq!(identity.names[1].to_string(), "uri:spiffe://example/shop");
    assert_eq!(identity.fingerprint.len(), 64);
    // The common name is no identity.
    let (nameless, _) = shake(&tls, client(Some("nameless"))).await.unwrap();
    assert!(nameless.unwrap().names.is_empty());
}

#[tokio::test]
async fn f115_bad_client_certificates_fail_the_handshake() {
    let tls = open(Clients::Required(authorities(true)));
    for (name, why) in [
        (None, "peer sent no certificates"),
        (Some("stranger"), "UnknownIssuer"),
        (Some("revoked"), "Revoked"),
    ] {
        let error = shake(&tls, client(name)).await.unwrap_err();
        assert!(error.contains(why), "{name:?}: {error}");
    }
    // Without the list the same certificate is good; the list is what refuses it.
    let unlisted = open(Clients::Required(authorities(false)));
    shake(&unlisted, client(Some("revoked"))).await.unwrap();
}

#[tokio::test]
async fn f115_an_expired_client_certificate_fails_the_handshake() {
    let system = Clock::system();
    let later = Clock::from_fn(move || system.now() + TimeDelta::days(3651));
    let tls = Tls::open(options(Clients::Required(authorities(false))), later).unwrap();
    let error = shake(&tls, client(Some("client"))).await.unwrap_err();
    assert!(error.contains("certificate expired"), "{error}");
}

#[tokio::test]
async fn f115_an_optional_certificate_may_be_absent_but_not_bad() {
    let tls = open(Clients::Optional(authorities(true)));
    assert_eq!(shake(&tls, client(None)).await.unwrap().0, None);
    assert!(shake(&tls, client(Some("client"))).await.unwrap().0.is_some());
    assert!(shake(&tls, client(Some("stranger"))).await.is_err());
    let anonymous = open(Clients::Anonymous);
    assert_eq!(shake(&anonymous, client(Some("client"))).await.unwrap().0, None);
}

#[tokio::test]
async fn r159_only_tls_1_2_and_1_3_are_spoken() {
    let tls = open(Clients::Anonymous);
    for version in [&TLS12, &TLS13] {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(pki().join("ca.pem")).unwrap())
            .unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        shake(&tls, client).await.unwrap();
    }
    // The same hello, offered as 1.2 and as 1.1.
    let (good, answer) = greet(&tls, 0x03).await;
    assert!(
        good.is_none() && answer[..3] == [0x16, 0x03, 0x03],
        "{good:?} {answer:?}"
    );
    let (error, answer) = greet(&tls, 0x02).await;
    assert!(error.is_some() && answer[0] == 0x15, "{error:?} {answer:?}");
}

/// What a ClientHello of version 3.`minor` comes to: the server's error, and the first bytes it answers.
async fn greet(tls: &Tls, minor: u8) -> (Option<String>, Vec<u8>) {
    // One suite with ECDSA, null compression, groups (secp256r1) and signature algorithms (RFC 8422 section 5.1).
    let mut body = vec![0x03, minor];
    body.extend([7; 32]);
    body.extend([0x00, 0x00, 0x02, 0xc0, 0x2b, 0x01, 0x00, 0x00, 0x16]);
    body.extend([0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x17]);
    body.extend([0x00, 0x0d, 0x00, 0x04, 0x00, 0x02, 0x04, 0x03]);
    body.extend([0x00, 0x0b, 0x00, 0x02, 0x01, 0x00]);
    let length = u8::try_from(body.len()).unwrap();
    let mut hello = vec![0x16, 0x03, 0x01, 0x00, length + 4, 0x01, 0x00, 0x00, length];
    hello.extend(body);
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    theirs.write_all(&hello).await.unwrap();
    let accepting = TlsAcceptor::from(tls.config()).accept(ours);
    // A good hello is answered and its next flight awaited; a bad one ends the handshake.
    let error = tokio::time::timeout(Duration::from_millis(200), accepting).await;
    let mut answer = vec![0; 3];
    theirs.read_exact(&mut answer).await.unwrap();
    (
        error.ok().and_then(Result::err).map(|error| error.to_string()),
        answer,
    )
}

/// A folder of its own with the files of `server`, and TLS over them.
fn moving(clients: Clients) -> (TempDir, Tls) {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "server");
    let options = TlsOptions {
        certificates: dir.path().join("tls.pem"),
        key: dir.path().join("tls.key"),
        clients,
    };
    let tls = Tls::open(options, Clock::system()).unwrap();
    (dir, tls)
}

fn put(dir: &Path, name: &str) {
    for end in ["pem", "key"] {
        fs::copy(
            pki().join(format!("{name}.{end}")),
            dir.join(format!("tls.{end}")),
        )
        .unwrap();
    }
}

fn leaf(name: &str) -> Vec<u8> {
    CertificateDer::from_pem_file(pki().join(format!("{name}.pem")))
        .unwrap()
        .to_vec()
}

#[tokio::test]
async fn f162_new_files_are_used_by_the_next_connection() {
    let (dir, tls) = moving(Clients::Anonymous);
    assert_eq!(shake(&tls, client(None)).await.unwrap().1, leaf("server"));
    assert_eq!(tls.reload().unwrap(), Reload::Unchanged);
    put(dir.path(), "server2");
    assert_eq!(tls.reload().unwrap(), Reload::Swapped);
    assert_eq!(tls.reload().unwrap(), Reload::Unchanged);
    assert_eq!(shake(&tls, client(None)).await.unwrap().1, leaf("server2"));
}

#[tokio::test]
async fn f162_a_half_written_or_unfitting_file_keeps_the_old_one_and_is_reported() {
    let (dir, tls) = moving(Clients::Anonymous);
    let certificate = fs::read(pki().join("server2.pem")).unwrap();
    let key = fs::read(pki().join("server2.key")).unwrap();
    let half = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
    let old_key = fs::read(pki().join("server.key")).unwrap();
    let bad = [
        (Vec::new(), old_key.clone()),
        (half(&certificate), old_key.clone()),
        (b"not PEM at all".to_vec(), old_key.clone()),
        // Between the two renames of a rotation.
        (certificate.clone(), old_key.clone()),
        (certificate.clone(), half(&key)),
        (certificate.clone(), Vec::new()),
        (key.clone(), key.clone()),
    ];
    for (number, (pem, key)) in bad.into_iter().enumerate() {
        fs::write(dir.path().join("tls.pem"), pem).unwrap();
        fs::write(dir.path().join("tls.key"), key).unwrap();
        let error = tls.reload().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{number}");
        assert!(error.chain().contains("tls."), "{error:?}");
        assert_eq!(tls.reload().unwrap(), Reload::Unchanged, "told once");
        assert_eq!(shake(&tls, client(None)).await.unwrap().1, leaf("server"));
    }
    fs::remove_file(dir.path().join("tls.key")).unwrap();
    assert!(tls.reload().is_err());
    put(dir.path(), "server2");
    assert_eq!(tls.reload().unwrap(), Reload::Swapped);
    assert_eq!(shake(&tls, client(None)).await.unwrap().1, leaf("server2"));
}

#[tokio::test]
async fn f162_a_client_revoked_by_a_new_list_cannot_resume() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("crl.pem");
    // A list of the other authority first: one that says nothing about ours, which refuses everybody.
    fs::copy(pki().join("crl.pem"), &list).unwrap();
    let empty = Authorities {
        roots: pki().join("ca.pem"),
        revoked: None,
    };
    let (_files, mut tls) = moving(Clients::Required(empty));
    let revoked = client(Some("revoked"));
    shake(&tls, revoked.clone()).await.unwrap();
    if let Clients::Required(authorities) = &mut tls.options.clients {
        authorities.revoked = Some(list);
    }
    assert_eq!(tls.reload().unwrap(), Reload::Swapped);
    assert!(shake(&tls, revoked).await.unwrap_err().contains("Revoked"));
}

#[tokio::test]
async fn f162_the_files_are_watched_until_the_shutdown() {
    let (dir, tls) = moving(Clients::Anonymous);
    let (tls, shutdown) = (Arc::new(tls), Shutdown::new());
    let watching = tokio::spawn(tls.clone().watch(Duration::from_millis(5), shutdown.clone()));
    put(dir.path(), "server2");
    let swapped = async {
        while shake(&tls, client(None)).await.unwrap().1 != leaf("server2") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), swapped)
        .await
        .unwrap();
    shutdown.stop();
    watching.await.unwrap();
}

#[test]
fn missing_files_are_named() {
    let mut options = options(Clients::Anonymous);
    options.key = pki().join("nowhere.key");
    let error = Tls::open(options, Clock::system()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("nowhere.key"));
}
