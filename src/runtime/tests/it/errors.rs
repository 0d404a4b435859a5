use runtime::{Error, Mount, Rootfs, SandboxSpec, StartError};

use crate::lab::{Lab, run};

async fn start_error(lab: &Lab, suffix: &str, argv: &[&str]) -> StartError {
    match lab.runtime.start_container(&lab.id("a"), lab.program(suffix, argv)).await {
        Err(Error::Start(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_cannot_be_executed_is_said_in_the_customary_words() {
    run(async |lab| {
        lab.sandbox("a").await;
        for (argv, message, code) in [
            (&["foo"][..], r#"exec: "foo": executable file not found in $PATH"#, 127),
            (&["/foo"], r#"exec: "/foo": stat /foo: no such file or directory"#, 127),
            (&["/bin/not-executable"], r#"exec: "/bin/not-executable": permission denied"#, 126),
            (&["not-executable"], r#"exec: "not-executable": permission denied"#, 126),
            (&["/etc"], r#"exec: "/etc": permission denied"#, 126),
            (&["/bin/garbage"], "exec /bin/garbage: exec format error", 126),
            (&["no-interpreter"], "exec no-interpreter: no such file or directory", 127),
        ] {
            let error = start_error(lab, "c", argv).await;
            assert_eq!((error.to_string().as_str(), error.exit_code()), (message, Some(code)), "{argv:?}");
        }
        assert!(lab.runtime.list().await[0].containers.is_empty(), "nothing is left of a failed start");
        // The same id starts when the mistake is mended.
        let (exit, _) = lab.run_to_end("a", "c", lab.program("c", &["true"])).await;
        assert_eq!(exit.code, 0);
    });
}

#[test]
fn errors_of_the_surroundings_name_the_step() {
    run(async |lab| {
        lab.sandbox("a").await;
        let mut spec = lab.program("m", &["true"]);
        spec.mounts.push(Mount::bind("/does/not/exist", "/data"));
        let error = lab.runtime.start_container(&lab.id("a"), spec).await.unwrap_err();
        assert_eq!(error.to_string(), "mount /data: no such file or directory");
        let mut spec = lab.program("r", &["true"]);
        spec.rootfs = Rootfs::Directory("/does/not/exist".into());
        let error = lab.runtime.start_container(&lab.id("a"), spec).await.unwrap_err();
        assert!(error.to_string().starts_with("find the root /does/not/exist"), "{error}");
        let mut spec = lab.program("p", &["true"]);
        spec.mounts.push(Mount::bind("/tmp", "/proc/sys"));
        let error = lab.runtime.start_container(&lab.id("a"), spec).await.unwrap_err();
        assert_eq!(error.to_string(), "mount /proc/sys: operation not permitted");
        let mut spec = lab.program("d", &["true"]);
        spec.cwd = "/etc/passwd".into();
        let error = lab.runtime.start_container(&lab.id("a"), spec).await.unwrap_err();
        assert!(error.to_string().starts_with("chdir to cwd"), "{error}");
        let error = lab.runtime.start_container(&lab.id("a"), lab.program("e", &[""])).await.unwrap_err();
        assert_eq!(error.to_string(), "argv: no command specified");
    });
}

#[test]
fn a_sandbox_that_fails_leaves_nothing() {
    run(async |lab| {
        let spec = SandboxSpec {
            id: lab.id("a"),
            hostname: "h".into(),
            cgroup_parent: "kubepods/x".into(),
            sysctls: [("net.does.not.exist".to_owned(), "1".to_owned())].into(),
            ..SandboxSpec::default()
        };
        let error = lab.runtime.create_sandbox(spec.clone()).await.unwrap_err();
        assert_eq!(error.to_string(), "set sysctl net.does.not.exist");
        assert!(!lab.directory.join("state").join(&spec.id).exists());
        assert!(!lab.directory.join("run").join(&spec.id).exists());
        let spec = SandboxSpec { sysctls: Default::default(), ..spec };
        lab.runtime.create_sandbox(spec.clone()).await.unwrap();
        assert!(matches!(lab.runtime.create_sandbox(spec).await, Err(Error::Exists { .. })));
        let missing = lab.runtime.start_container("absent", lab.program("c", &["true"])).await;
        assert!(matches!(missing, Err(Error::NotFound { kind: "sandbox", .. })));
        lab.runtime.remove_container("absent").await.unwrap();
    });
}
