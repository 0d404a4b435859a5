use runtime::{ContainerSpec, TerminalSize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::lab::{run, within};

#[test]
fn several_clients_see_the_output_and_give_input() {
    run(async |lab| {
        let sandbox = lab.sandbox("a").await;
        let mut spec = lab.shell("c", "while read line; do echo \"got $line\"; done; echo end");
        spec.stdin = true;
        lab.runtime.start_container(&sandbox.id, spec).await.unwrap();
        let mut one = within(lab.runtime.attach(&lab.id("c"))).await.unwrap();
        let mut two = within(lab.runtime.attach(&lab.id("c"))).await.unwrap();
        one.stdin.as_mut().unwrap().write_all(b"first\n").await.unwrap();
        let mut buffer = [0; 64];
        for session in [&mut one, &mut two] {
            let count = within(session.stdout.as_mut().unwrap().read(&mut buffer)).await.unwrap();
            assert_eq!(&buffer[..count], b"got first\n");
        }
        drop(one);
        two.stdin.as_mut().unwrap().write_all(b"second\n").await.unwrap();
        let count = within(two.stdout.as_mut().unwrap().read(&mut buffer)).await.unwrap();
        assert_eq!(&buffer[..count], b"got second\n");
        lab.runtime.kill(&lab.id("c")).await.unwrap();
        let mut rest = Vec::new();
        within(two.stdout.take().unwrap().read_to_end(&mut rest)).await.unwrap();
        assert_eq!(lab.log("a", "c"), ["stdout F got first", "stdout F got second"]);
    });
}

#[test]
fn input_once_ends_with_the_first_client() {
    run(async |lab| {
        let sandbox = lab.sandbox("a").await;
        let mut spec = lab.shell("c", "cat; echo end");
        (spec.stdin, spec.stdin_once) = (true, true);
        lab.runtime.start_container(&sandbox.id, spec).await.unwrap();
        let mut session = within(lab.runtime.attach(&lab.id("c"))).await.unwrap();
        let mut stdin = session.stdin.take().unwrap();
        stdin.write_all(b"hello\n").await.unwrap();
        drop(stdin);
        let mut text = String::new();
        within(session.stdout.take().unwrap().read_to_string(&mut text)).await.unwrap();
        assert_eq!(text, "hello\nend\n");
        assert_eq!(within(lab.runtime.wait(&lab.id("c"))).await.unwrap().code, 0);
    });
}

#[test]
fn a_container_may_have_a_terminal() {
    run(async |lab| {
        let sandbox = lab.sandbox("a").await;
        let mut spec = lab.shell("c", "read x; tty; stty size; stat -c %t,%T /dev/console; test -t 0 && echo terminal; exit 4");
        (spec.tty, spec.stdin) = (true, true);
        lab.runtime.start_container(&sandbox.id, spec).await.unwrap();
        let mut session = within(lab.runtime.attach(&lab.id("c"))).await.unwrap();
        assert!(session.tty && session.stderr.is_none());
        session.resize(TerminalSize { rows: 10, columns: 20 }).unwrap();
        session.stdin.as_mut().unwrap().write_all(b"\n").await.unwrap();
        let mut text = String::new();
        within(session.stdout.take().unwrap().read_to_string(&mut text)).await.unwrap();
        for expected in ["/dev/pts/0", "10 20", "88,0", "terminal"] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert_eq!(within(lab.runtime.wait(&lab.id("c"))).await.unwrap().code, 4);
    });
}

#[test]
fn a_reader_that_does_not_read_holds_up_nobody_for_good() {
    run(async |lab| {
        let sandbox = lab.sandbox("a").await;
        let mut spec = lab.shell("c", "read x; seq 100000; echo end");
        spec.stdin = true;
        lab.runtime.start_container(&sandbox.id, spec).await.unwrap();
        let mut lazy = within(lab.runtime.attach(&lab.id("c"))).await.unwrap();
        lazy.stdin.as_mut().unwrap().write_all(b"\n").await.unwrap();
        let exit = within(lab.runtime.wait(&lab.id("c"))).await.unwrap();
        assert_eq!(exit.code, 0);
        let log = lab.log("a", "c");
        assert_eq!((log.len(), log.last().unwrap().as_str()), (100_001, "stdout F end"), "no line is lost");
    });
}

#[test]
fn no_line_is_lost_and_rotation_opens_a_new_file() {
    run(async |lab| {
        let sandbox = lab.sandbox("a").await;
        let spec: ContainerSpec = lab.shell("big", "seq 200000; head -c 40000 /dev/zero | tr '\\0' x; echo");
        let (_, log) = lab.run_to_end("a", "big", spec).await;
        assert_eq!(log.len(), 200_003);
        assert!((0..200_000).all(|n| log[n] == format!("stdout F {}", n + 1)));
        assert_eq!((&log[200_000][..9], log[200_000].len()), ("stdout P ", 9 + 16384));
        assert!(log[200_002].starts_with("stdout F x"));

        let mut spec = lab.shell("rotated", "echo one; read x; echo two");
        spec.stdin = true;
        let id = spec.id.clone();
        lab.runtime.start_container(&sandbox.id, spec).await.unwrap();
        let mut session = within(lab.runtime.attach(&id)).await.unwrap();
        let path = lab.directory.join("logs/a/rotated.log");
        within(async {
            while std::fs::metadata(&path).unwrap().len() == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        })
        .await;
        std::fs::rename(&path, path.with_extension("old")).unwrap();
        lab.runtime.reopen_log(&id).await.unwrap();
        session.stdin.as_mut().unwrap().write_all(b"\n").await.unwrap();
        within(lab.runtime.wait(&id)).await.unwrap();
        assert_eq!(lab.log("a", "rotated"), ["stdout F two"]);
        assert!(std::fs::read_to_string(path.with_extension("old")).unwrap().contains("stdout F one"));
    });
}

#[test]
fn a_pods_loopback_can_be_dialled() {
    run(async |lab| {
        let sandbox = lab.sandbox("a").await;
        // The network is another crate's work: here the pod's own loopback is enough.
        let up = std::process::Command::new("nsenter")
            .arg(format!("--net={}", sandbox.netns_path.as_ref().unwrap().display()))
            .args(["ip", "link", "set", "lo", "up"])
            .status()
            .unwrap();
        assert!(up.success());
        let spec = lab.shell("c", "echo hello | nc -l -p 8080");
        lab.runtime.start_container(&sandbox.id, spec).await.unwrap();
        let mut stream = within(async {
            loop {
                match lab.runtime.dial(&sandbox.id, 8080).await {
                    Ok(stream) => return stream,
                    Err(_not_yet) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                }
            }
        })
        .await;
        let mut text = String::new();
        within(stream.read_to_string(&mut text)).await.unwrap();
        assert_eq!(text, "hello\n");
        assert!(lab.runtime.dial(&sandbox.id, 8081).await.is_err());
    });
}
