//! What can only be seen from a process of its own: its files and its memory.

use std::{fs, io::Write as _, process::Command};

use super::*;

/// Open files allowed in the process of its own; an odd number, by which it knows itself.
const FILES_MAX: &str = "61";

/// Whether this is the process of its own. If not, the test of this name is run in one, and has to succeed.
fn is_alone(test: &str) -> bool {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    if files.split_whitespace().nth(3) == Some(FILES_MAX) {
        return true;
    }
    let child = Command::new("sh")
        .args(["-c", &format!("ulimit -Sn {FILES_MAX} && exec \"$@\""), "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && words.contains("1 passed"), "{words}");
    false
}

/// The most memory this process ever had, in bytes.
fn peak_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

#[tokio::test]
async fn f103_without_files_left_the_server_waits_and_recovers() {
    if !is_alone("serve::listen::tests::alone::f103_without_files_left_the_server_waits_and_recovers") {
        return;
    }
    let server = start(QUIET).await;
    let mut held = Vec::new();
    // Both ends of a connection are files of this process: the last accepts fail.
    while let Ok(stream) = TcpStream::connect(server.address).await {
        held.push(stream);
    }
    assert!(held.len() > 20);
    // Lets the server accept until it cannot.
    assert!(is_silent(&mut held[0]).await);
    assert!(TcpStream::connect(server.address).await.is_err());
    held.clear();
    let well = async {
        while TcpStream::connect(server.address).await.is_err() {
            tokio::task::yield_now().await;
        }
        server.is_well().await;
    };
    timeout(PATIENCE, well).await.unwrap();
}

#[tokio::test]
async fn f096_f097_memory_stays_flat_under_endless_bodies_and_bombs() {
    if !is_alone("serve::listen::tests::alone::f096_f097_memory_stays_flat_under_endless_bodies_and_bombs") {
        return;
    }
    let server = start(QUIET).await;
    server.is_well().await;
    let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    member.write_all(&vec![b' '; 4 << 20]).unwrap();
    let bomb = member.finish().unwrap().repeat(64);
    let before = peak_bytes();
    for _ in 0..2 {
        let endless = (0..6).map(|_| async {
            let head = b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n";
            let chunked = b"POST /unpacked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
            assert!(server.exchange(head).await.starts_with("HTTP/1.1 413"));
            let mut stream = server.send(chunked).await;
            let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
            while stream.write_all(&chunk).await.is_ok() {}
        });
        let bombs = (0..6).map(|_| async {
            let head = format!(
                "POST /unpacked HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
                bomb.len()
            );
            let answer = server.exchange(&[head.as_bytes(), &bomb].concat()).await;
            assert!(answer.starts_with("HTTP/1.1 413") || answer.starts_with("HTTP/1.1 503"), "{answer}");
        });
        let all = async {
            tokio::join!(
                futures::future::join_all(endless),
                futures::future::join_all(bombs)
            )
        };
        timeout(PATIENCE, all).await.unwrap();
    }
    let grown = peak_bytes() - before;
    // The budget of 8 MiB, the buffers of a dozen connections and of their clients; each bomb is 256 MiB unpacked.
    assert!(grown < 32 << 20, "{grown} bytes");
}
