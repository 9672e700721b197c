//! What shall be read by nobody else: secrets, and what lies in a lake.

use std::{fs, os::unix::fs::PermissionsExt as _, sync::Arc};

use aws_lc_rs::hmac;
use serde_json::json;

use crate::support::{
    api::Api,
    hooks::{hex, project, send},
    objects::holds,
    project::{ITEMS, ITEMS_CONTRACT, TestProject},
    s3,
    serving::Server,
};

#[tokio::test(flavor = "multi_thread")]
async fn r163_secrets_come_from_the_environment_a_file_or_a_program_and_are_nowhere_else() {
    const SECRETS: [(&str, &str); 4] = [
        ("of_env", "secret-of-the-environment"),
        ("of_file", "secret-of-the-file"),
        ("of_program", "secret-of-the-program"),
        ("plain", "secret-in-the-project"),
    ];
    let streams = "      hooks:
        webhook:
          scheme: github
          secrets:
            of_env: '${env:HOOK_SECRET}'
            of_file: '${file:vault/hook}'
            of_program: '${exec:./vault/print hook}'
            plain: secret-in-the-project
        table: { keys: [id] }
";
    let (mut project, token) = project(streams);
    project.env("HOOK_SECRET", SECRETS[0].1);
    project.write("vault/hook", &format!("{}\n", SECRETS[1].1));
    project.write(
        "vault/print",
        "#!/bin/sh\n[ \"$1\" = hook ] && echo secret-of-the-program\n",
    );
    let program = project.path().join("vault/print");
    let mut mode = fs::metadata(&program).unwrap().permissions();
    mode.set_mode(0o700);
    fs::set_permissions(&program, mode).unwrap();

    let server = Server::start_with(&project, &["-vv", "serve"]);
    let mut told = String::new();
    for (number, (name, secret)) in SECRETS.iter().enumerate() {
        let body = json!({"id": number}).to_string();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hex(hmac::sign(&key, body.as_bytes()).as_ref());
        let headers = [
            ("x-hub-signature-256", format!("sha256={tag}")),
            ("x-github-delivery", number.to_string()),
            ("x-github-event", "push".to_owned()),
        ];
        let (status, answer) = send(&server, "hooks", &headers, body).await;
        assert_eq!(status, 200, "{name}: {answer}");
        told += &answer.to_string();
    }
    let client = reqwest::Client::new();
    for path in [
        "/openapi.json",
        "/asyncapi.json",
        "/v1/streams",
        "/v1/streams/shop/hooks",
        "/docs",
    ] {
        let request = client
            .get(format!("{}{path}", server.producers))
            .bearer_auth(&token);
        told += &request.send().await.unwrap().text().await.unwrap();
    }
    let metrics = client.get(format!("{}/metrics", server.admin));
    told += &metrics.send().await.unwrap().text().await.unwrap();
    told += &server.stop();

    // What is in force is printed with the names of references, and with nothing in place of what is no reference.
    let explained = project.ok(&["check", "--explain"]).stdout;
    for reference in ["${env:HOOK_SECRET}", "${exec:./vault/print}", "${file:", "****"] {
        assert!(explained.contains(reference), "{reference}: {explained}");
    }
    told += &explained;
    for arguments in [
        &["check"][..],
        &["-vv", "run"],
        &["status"],
        &["schema", "reference"],
    ] {
        let ran = project.ok(arguments);
        told += &(ran.stdout + &ran.stderr);
    }
    for (name, secret) in SECRETS {
        assert!(!told.contains(secret), "{name}");
        for file in project.files("") {
            let is_its_own = file.starts_with(project.path().join("vault"))
                || (name == "plain" && file == project.path().join("landfall.yml"));
            assert!(is_its_own || !holds(&file, secret), "{name}: {}", file.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r160_every_object_of_a_lake_on_s3_asks_for_the_encryption_that_is_set() {
    let lake = Arc::new(s3::start().await);
    for (prefix, options, expected) in [
        ("plain", "", [None, None]),
        (
            "own",
            ", aws_server_side_encryption: AES256",
            [Some("AES256"), None],
        ),
        (
            "kms",
            ", aws_server_side_encryption: 'aws:kms', aws_sse_kms_key_id: 'key/of/ours'",
            [Some("aws:kms"), Some("key/of/ours")],
        ),
    ] {
        let (head, store) = (lake.lake(prefix), Arc::clone(&lake));
        let head = format!("{}{options} }}", head.strip_suffix(" }").unwrap());
        let written = tokio::task::spawn_blocking(move || {
            let records = (0..20).map(|id| json!({"id": id, "updated": id, "name": "x"}));
            let api = Api::start(records.collect());
            let project = TestProject::with_lake(&api.base_url, ITEMS, &head);
            project.write("contracts/shop.items.odcs.yaml", ITEMS_CONTRACT);
            store.take_sealed();
            for arguments in [&["run"][..], &["maintain"], &["rebuild", "shop.items"]] {
                project.ok(arguments);
            }
            store.take_sealed()
        });
        let written = written.await.unwrap();
        // Raw and its log, the table, the tables beside it, and their logs.
        assert!(written.len() > 10, "{prefix}: {}", written.len());
        for sealed in written {
            let sealed: Vec<Option<&str>> = sealed.iter().map(Option::as_deref).collect();
            assert_eq!(sealed, expected, "{prefix}");
        }
    }
}
