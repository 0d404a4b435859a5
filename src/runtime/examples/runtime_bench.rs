//! How long a container start and an exec take, beside a bare clone and exec of the same program on the same machine.
//!
//! `cargo run -p runtime --example runtime_bench -- [rounds] [pause between rounds in ms]`; needs root and a static busybox.
//! A start is counted until its program has been executed, an exec until its exit is known.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runtime::{Config, ContainerSpec, Rootfs, Runtime, SandboxSpec, ShimProgram};

/// This program is its own shim.
#[used]
#[unsafe(link_section = ".init_array")]
static ROLE: extern "C" fn() = {
    extern "C" fn choose() {
        if std::env::args_os().next().is_some_and(|name| name == "rk-shim") {
            let code = runtime::shim::main();
            std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
        }
    }
    choose
};

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1000.0;
    println!("{name:<28} p50 {:7.2} ms   p90 {:7.2} ms   max {:7.2} ms", at(50), at(90), at(100));
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>().expect("a number"));
    let rounds = arguments.next().unwrap_or(50);
    let pause = Duration::from_millis(arguments.next().unwrap_or(0));
    let busybox = ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|p| Path::new(p).exists()).expect("busybox-static");
    let name = format!("rk-bench-{}", std::process::id());
    let directory = std::env::temp_dir().join(&name);
    std::fs::create_dir_all(directory.join("lower/bin")).expect("make a root");
    std::fs::copy(busybox, directory.join("lower/bin/busybox")).expect("copy busybox");
    let shim = match std::env::var_os("RK_SHIM") {
        Some(path) => ShimProgram::Image(Box::leak(std::fs::read(path).expect("read RK_SHIM").into_boxed_slice())),
        None => ShimProgram::SelfExe,
    };
    let config =
        Config { state_dir: directory.join("state"), run_dir: directory.join("run"), shim, cgroup_root: name.clone() };
    let runtime = Runtime::open(config).await.expect("open");
    let (mut bare, mut create, mut start, mut exec, mut remove) = (vec![], vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        tokio::time::sleep(pause).await;
        let begin = Instant::now();
        let mut child = std::process::Command::new(busybox).arg("true").spawn().expect("spawn");
        child.wait().expect("wait");
        bare.push(begin.elapsed());

        let sandbox = format!("{name}-{round}");
        let begin = Instant::now();
        let spec = SandboxSpec {
            id: sandbox.clone(),
            hostname: "bench".into(),
            cgroup_parent: format!("kubepods/{round}"),
            log_dir: Some(directory.join("logs").join(&sandbox)),
            ..SandboxSpec::default()
        };
        runtime.create_sandbox(spec).await.expect("create");
        create.push(begin.elapsed());
        let layers = directory.join("layers").join(&sandbox);
        let (upper, work): (PathBuf, PathBuf) = (layers.join("upper"), layers.join("work"));
        std::fs::create_dir_all(&upper).expect("make layers");
        std::fs::create_dir_all(&work).expect("make layers");
        let rootfs = Rootfs::Overlay { lower: vec![directory.join("lower")], upper, work };
        let container = format!("{sandbox}-c");
        let mut spec = ContainerSpec::new(&container, rootfs, vec!["/bin/busybox".into(), "sleep".into(), "100".into()]);
        spec.log_path = Some("c.log".into());
        let begin = Instant::now();
        runtime.start_container(&sandbox, spec).await.expect("start");
        start.push(begin.elapsed());
        tokio::time::sleep(pause).await;
        let begin = Instant::now();
        let argv = vec!["/bin/busybox".into(), "true".into()];
        let output = runtime.exec_sync(&container, argv, None, 100).await.expect("exec");
        assert_eq!(output.exit.code, 0);
        exec.push(begin.elapsed());
        let begin = Instant::now();
        runtime.remove_sandbox(&sandbox).await.expect("remove");
        remove.push(begin.elapsed());
    }
    report("bare clone, exec, wait", bare);
    report("create a sandbox", create);
    report("start a container", start);
    report("exec to its exit", exec);
    report("remove both", remove);
    runtime.teardown_all().await.expect("tear down");
    std::fs::remove_dir_all(&directory).expect("remove the directory");
}
