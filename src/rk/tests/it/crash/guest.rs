//! A machine whose power is cut: a Debian guest under emulation that runs the server on a disk of its own. Its end takes all with it that
//! was not written to that disk, as a machine's does.
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tokio::net::{TcpStream, UnixListener};
use tokio::task::JoinHandle;

use super::server::{FOLDER, TCP};

const PORT: u16 = 8080;
const ADDRESS: &str = "10.0.2.15";
/// What the guest does once it has unpacked its second disk (tests/conformance/guest/image.sh).
const SETUP: &str = r#"#!/bin/sh
set -eu
for link in /sys/class/net/e*; do nic=$(basename "$link"); done
ip link set lo up
ip link set "$nic" up
ip addr add ADDRESS/24 dev "$nic"
mkdir -p /data
mount /dev/vdc /data
stty -F /dev/ttyS1 -opost
systemd-run --quiet --unit=crash --property=StandardOutput=file:/dev/ttyS1 -E FOLDER=/data -E TCP=0.0.0.0:PORT \
    /usr/local/bin/crash-server --exact crash::server::child --nocapture --test-threads=1
"#;

pub struct Guest {
    /// Of the guest's kernel and system, which no run changes.
    files: PathBuf,
    folder: PathBuf,
}

fn run(command: &mut Command) {
    let status = command.stdin(Stdio::null()).status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}

impl Guest {
    /// Makes its disks in `folder`.
    pub fn prepare(folder: &Path) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
        run(&mut Command::new(root.join("tests/conformance/guest/image.sh")));
        let cache = std::env::var_os("RK_CACHE").map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/rk"), PathBuf::from);
        let sbin = folder.join("root/usr/local/sbin");
        let bin = folder.join("root/usr/local/bin");
        std::fs::create_dir_all(&sbin).unwrap();
        std::fs::create_dir_all(&bin).unwrap();
        let words = [("ADDRESS", ADDRESS), ("FOLDER", FOLDER), ("TCP", TCP), ("PORT", &PORT.to_string())];
        let setup = words.iter().fold(SETUP.to_owned(), |text, (name, value)| text.replace(name, value));
        std::fs::write(sbin.join("setup"), setup).unwrap();
        run(Command::new("chmod").arg("755").arg(sbin.join("setup")));
        run(Command::new("strip").arg("-o").arg(bin.join("crash-server")).arg(std::env::current_exe().unwrap()));
        run(Command::new("tar").arg("-C").arg(folder.join("root")).arg("-cf").arg(folder.join("files.tar")).arg("usr"));
        let data = folder.join("data.img");
        std::fs::File::create(&data).unwrap().set_len(1 << 30).unwrap();
        run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-F"]).arg(data));
        Self { files: cache.join("conformance/guest"), folder: folder.to_owned() }
    }

    /// Puts it under power; the port of this machine that leads to its server.
    pub fn boot(&self) -> (Child, u16) {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).unwrap().port();
        let drive = |path: PathBuf, more: &str| ["-drive".to_owned(), format!("file={},format=raw,if=virtio,{more}", path.display())];
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024", "-display", "none", "-no-reboot"]);
        qemu.arg("-kernel").arg(self.files.join("vmlinuz")).arg("-initrd").arg(self.files.join("initrd.img"));
        qemu.args(["-append", "root=/dev/vda rw console=ttyS0 panic=-1 net.ifnames=0"]);
        qemu.args(drive(self.files.join("disk.img"), "snapshot=on,cache=unsafe"));
        qemu.args(drive(self.folder.join("files.tar"), "readonly=on"));
        qemu.args(drive(self.folder.join("data.img"), "cache=writeback"));
        qemu.args(["-netdev", &format!("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-{ADDRESS}:{PORT}"), "-device", "virtio-net-pci,netdev=net"]);
        qemu.arg("-serial").arg(format!("file:{}", self.folder.join("console.log").display())).args(["-serial", "stdio"]);
        (qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("qemu-system-x86 is installed"), port)
    }
}

/// Leads a socket to a port, for as long as somebody answers there.
pub fn bridge(socket: PathBuf, port: u16) -> JoinHandle<()> {
    let _ = std::fs::remove_file(&socket); // of the boot before
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await {
                    let _ = far.set_nodelay(true);
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    })
}
