use std::time::Duration;

use runtime::{Capabilities, Error, ExecSpec, Signal, TerminalSize, User};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::lab::{Lab, run, within};

async fn sleeper(lab: &Lab) -> String {
    lab.sandbox("a").await;
    let mut spec = lab.program("c", &["sleep", "1000"]);
    spec.env = vec!["COLOUR=blue".into()];
    spec.cwd = "/home/user".into();
    lab.runtime.start_container(&lab.id("a"), spec).await.unwrap();
    lab.id("c")
}

fn words(argv: &[&str]) -> Vec<String> {
    argv.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn an_exec_gives_output_and_code_and_runs_inside() {
    run(async |lab| {
        let id = sleeper(lab).await;
        let script = "echo $COLOUR; pwd; hostname; test -d /proc/1 && tr '\\0' ' ' < /proc/1/cmdline; echo bad >&2; exit 5";
        let output = within(lab.runtime.exec_sync(&id, words(&["sh", "-c", script]), None, 1 << 20)).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "blue\n/home/user\npod-host\nsleep 1000 ");
        assert_eq!((output.exit.code, output.stderr.as_slice()), (5, &b"bad\n"[..]));
        let error = lab.runtime.exec_sync(&id, words(&["foo"]), None, 10).await.unwrap_err();
        assert_eq!(error.to_string(), r#"exec: "foo": executable file not found in $PATH"#);
        let killed = within(lab.runtime.exec_sync(&id, words(&["sh", "-c", "kill -9 $$"]), None, 10)).await.unwrap();
        assert_eq!((killed.exit.code, killed.exit.signal), (137, Some(9)));
    });
}

#[test]
fn an_exec_is_as_confined_as_its_container() {
    run(async |lab| {
        lab.sandbox("a").await;
        let mut spec = lab.program("c", &["sleep", "1000"]);
        spec.user = User { uid: 1000, gid: 2000, supplementary: vec![3000] };
        spec.capabilities = Capabilities::default().without(Capabilities::parse("NET_RAW").unwrap());
        spec.no_new_privileges = true;
        lab.runtime.start_container(&lab.id("a"), spec).await.unwrap();
        let script = "cat /proc/1/status /proc/1/cgroup; cat /proc/1/oom_score_adj; echo ===; cat /proc/self/status /proc/self/cgroup; cat /proc/self/oom_score_adj";
        let output = within(lab.runtime.exec_sync(&lab.id("c"), words(&["sh", "-c", script]), None, 1 << 20)).await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (init, exec) = text.split_once("===\n").unwrap();
        let interesting = |text: &str| -> Vec<String> {
            const KEYS: [&str; 10] =
                ["Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp:"];
            let keep = |line: &&str| KEYS.iter().any(|key| line.starts_with(key)) || line.contains(":/") || !line.contains(':');
            text.lines().filter(keep).map(str::to_owned).collect()
        };
        assert_eq!(interesting(init), interesting(exec));
        assert!(init.contains("Uid:\t1000\t1000\t1000\t1000") && init.contains("Seccomp:\t2"), "{init}");
    });
}

#[test]
fn input_reaches_an_exec_and_ends() {
    run(async |lab| {
        let id = sleeper(lab).await;
        let spec = ExecSpec { argv: words(&["cat"]), stdin: true, ..ExecSpec::default() };
        let mut session = within(lab.runtime.exec(&id, spec)).await.unwrap();
        let data: Vec<u8> = (0..500_000u32).map(|n| n as u8).collect();
        let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
        let mut got = Vec::new();
        within(async {
            tokio::join!(
                async {
                    stdin.write_all(&data).await.unwrap();
                    drop(stdin);
                },
                async { stdout.read_to_end(&mut got).await.unwrap() }
            );
        })
        .await;
        assert_eq!(got, data);
        assert_eq!(within(session.process.wait()).await.unwrap().code, 0);
    });
}

#[test]
fn a_terminal_has_a_size_and_hangs_up() {
    run(async |lab| {
        let id = sleeper(lab).await;
        let size = Some(TerminalSize { rows: 11, columns: 22 });
        let spec = ExecSpec { argv: words(&["sh"]), tty: true, stdin: true, size, ..ExecSpec::default() };
        let mut session = within(lab.runtime.exec(&id, spec)).await.unwrap();
        let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
        stdin.write_all(b"stty size; tty\n").await.unwrap();
        let mut text = String::new();
        let mut chunk = [0; 1024];
        while !text.contains("/dev/pts/") {
            let count = within(stdout.read(&mut chunk)).await.unwrap();
            assert_ne!(count, 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
        assert!(text.contains("11 22"), "{text}");
        session.process.resize(TerminalSize { rows: 33, columns: 44 }).unwrap();
        stdin.write_all(b"stty size; exit 9\n").await.unwrap();
        let mut rest = Vec::new();
        within(stdout.read_to_end(&mut rest)).await.unwrap();
        assert!(String::from_utf8_lossy(&rest).contains("33 44"));
        assert_eq!(within(session.process.wait()).await.unwrap().code, 9);
    });
}

#[test]
fn a_command_that_takes_too_long_is_killed() {
    run(async |lab| {
        let id = sleeper(lab).await;
        let limit = Some(Duration::from_millis(200));
        let result = within(lab.runtime.exec_sync(&id, words(&["sleep", "777"]), limit, 10)).await;
        assert!(matches!(result, Err(Error::Timeout { .. })));
        let count = words(&["sh", "-c", "ps -o args | grep -c 'sleep 77[7]'"]);
        let output = within(lab.runtime.exec_sync(&id, count, None, 100)).await.unwrap();
        assert_eq!(output.stdout, b"0\n");
        let output = within(lab.runtime.exec_sync(&id, words(&["seq", "100000"]), None, 10)).await.unwrap();
        assert_eq!(output.stdout, b"1\n2\n3\n4\n5\n", "bounded");
    });
}

#[test]
fn nothing_can_be_executed_in_what_has_ended() {
    run(async |lab| {
        let id = sleeper(lab).await;
        let spec = ExecSpec { argv: words(&["sleep", "500"]), ..ExecSpec::default() };
        let session = within(lab.runtime.exec(&id, spec)).await.unwrap();
        lab.runtime.signal(&id, Signal::KILL).await.unwrap();
        assert_eq!(within(session.process.wait()).await.unwrap().signal, Some(9), "it ends with its container");
        within(lab.runtime.wait(&id)).await.unwrap();
        let result = lab.runtime.exec_sync(&id, words(&["true"]), None, 10).await;
        assert!(matches!(result, Err(Error::NotRunning { .. })));
    });
}
