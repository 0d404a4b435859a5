//! Imports of archives made on the spot, through the real confined child. Needs root (chroot, mknod); says so and
//! passes over the tests without it.
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use images::{Config, Digest, Images, Registries};

fn open(root: &Path) -> Option<Images> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return None;
    }
    let unpacker = env!("CARGO_BIN_EXE_rk-unpack").into();
    Some(Images::open(Config { root: root.to_owned(), registries: Registries::default(), unpacker }).unwrap())
}

enum Item<'a> {
    File(&'a str, &'a [u8], u32),
    Directory(&'a str),
    Link(&'a str, &'a str),
    Hard(&'a str, &'a str),
}

fn layer(items: &[Item]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_ustar();
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_mtime(1_700_000_000);
        header.set_mode(0o755);
        let (path, link, data, kind): (_, _, &[u8], _) = match item {
            Item::File(path, data, mode) => {
                header.set_mode(*mode);
                (path, "", *data, tar::EntryType::Regular)
            }
            Item::Directory(path) => (path, "", b"", tar::EntryType::Directory),
            Item::Link(path, target) => (path, *target, b"", tar::EntryType::Symlink),
            Item::Hard(path, target) => (path, *target, b"", tar::EntryType::Link),
        };
        // The name is written raw: the builder would refuse the hostile ones.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// An OCI image layout of these layers (plain tar streams, stored gzipped).
fn archive(layers: &[Vec<u8>], architecture: &str, damage: bool) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut put = |name: String, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, name, data).unwrap();
    };
    let digest = |data: &[u8]| {
        use std::io::Write;
        let mut child = std::process::Command::new("sha256sum").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(data).unwrap();
        format!("sha256:{}", &String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()[..64])
    };
    let mut descriptors = Vec::new();
    for plain in layers {
        let mut data = gzip(plain);
        let name = digest(&data);
        if damage {
            *data.last_mut().unwrap() ^= 1;
        }
        descriptors.push(serde_json::json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": name, "size": data.len()}));
        put(format!("blobs/sha256/{}", &name[7..]), &data);
    }
    let diff_ids: Vec<_> = layers.iter().map(|l| digest(l)).collect();
    let config = serde_json::json!({"architecture": architecture, "os": "linux", "config": {"Entrypoint": ["/a"], "User": "7"}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}).to_string();
    let config_digest = digest(config.as_bytes());
    put(format!("blobs/sha256/{}", &config_digest[7..]), config.as_bytes());
    let manifest = serde_json::json!({"schemaVersion": 2, "config": {"digest": config_digest, "size": config.len()}, "layers": descriptors}).to_string();
    let manifest_digest = digest(manifest.as_bytes());
    put(format!("blobs/sha256/{}", &manifest_digest[7..]), manifest.as_bytes());
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{"digest": manifest_digest, "size": manifest.len(), "annotations": {"io.containerd.image.name": "example.test/app:1"}}]}).to_string();
    put("index.json".into(), index.as_bytes());
    builder.into_inner().unwrap()
}

#[test]
fn layers_keep_owners_links_and_whiteouts() {
    let root = tempfile::tempdir().unwrap();
    let Some(images) = open(root.path()) else { return };
    let base = layer(&[
        Item::Directory("bin/"),
        Item::File("bin/tool", b"one", 0o4755),
        Item::Hard("bin/same", "bin/tool"),
        Item::Link("lib", "/../../../../etc"),
        Item::File("gone", b"x", 0o600),
        Item::Directory("dir"),
    ]);
    let top = layer(&[Item::File(".wh.gone", b"", 0), Item::Directory("dir"), Item::File("dir/.wh..wh..opq", b"", 0), Item::File("lib/passwd", b"inside", 0o644)]);
    let loaded = images.import(&archive(&[base, top], "amd64", false)[..], None).unwrap();
    assert_eq!(loaded[0].tags, ["example.test/app:1"]);
    assert_eq!(loaded[0].config.user, "7");
    let (top, base) = (&loaded[0].layers[0], &loaded[0].layers[1]);
    let tool = fs::metadata(base.join("bin/tool")).unwrap();
    assert_eq!((tool.mode() & 0o7777, tool.uid(), tool.mtime()), (0o4755, 1000, 1_700_000_000));
    assert_eq!(tool.ino(), fs::metadata(base.join("bin/same")).unwrap().ino());
    assert!(fs::symlink_metadata(top.join("gone")).unwrap().file_type().is_char_device());
    let mut value = [0u8; 8];
    assert_eq!(rustix::fs::getxattr(top.join("dir"), "trusted.overlay.opaque", &mut value), Ok(1));
    assert_eq!(fs::read(top.join("lib/passwd")).unwrap(), b"inside");

    let image = images.resolve("example.test/app:1").unwrap().unwrap();
    let snapshot = images.prepare("c1", &image).unwrap();
    assert_eq!(snapshot, images.prepare("c1", &image).unwrap());
    images.remove("example.test/app:1").unwrap();
    assert!(top.is_dir(), "in use by a container");
    images.release("c1").unwrap();
    images.collect_garbage().unwrap();
    assert!(!top.exists() && images.list().unwrap().is_empty());
}

#[test]
fn a_link_out_of_the_layer_stays_inside() {
    let root = tempfile::tempdir().unwrap();
    let Some(images) = open(root.path()) else { return };
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let hostile = layer(&[Item::Link("out", target), Item::File("out/written", b"x", 0o644)]);
    // The link's target does not exist inside, so the write fails; above all it does not happen outside.
    assert!(images.import(&archive(&[hostile], "amd64", false)[..], None).is_err());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    let dots = layer(&[Item::File("a/../../b", b"x", 0o644)]);
    let error = images.import(&archive(&[dots], "amd64", false)[..], None).unwrap_err().to_string();
    assert!(error.contains("path leads out of the layer"), "{error}");
}

#[test]
fn damaged_and_foreign_images_are_refused_and_leave_nothing() {
    let root = tempfile::tempdir().unwrap();
    let Some(images) = open(root.path()) else { return };
    let plain = layer(&[Item::File("a", b"x", 0o644)]);
    let error = images.import(&archive(&[plain.clone()], "amd64", true)[..], None).unwrap_err().to_string();
    assert!(error.starts_with("corrupt image: expected sha256:"), "{error}");
    let error = images.import(&archive(&[plain], "riscv64", false)[..], None).unwrap_err().to_string();
    assert!(error.contains("linux/riscv64"), "{error}");
    assert!(images.import(&b"not a tar"[..], None).is_err());
    assert!(images.list().unwrap().is_empty());
    assert_eq!(fs::read_dir(root.path().join("layers")).unwrap().count(), 0);
}

#[test]
fn the_builtin_image_shares_the_binary() {
    let root = tempfile::tempdir().unwrap();
    let Some(images) = open(root.path()) else { return };
    let binary = root.path().join("program");
    fs::write(&binary, b"ELF").unwrap();
    let name = "rk.local/rk:1".parse().unwrap();
    let image = images.import_builtin(&name, &binary).unwrap();
    assert_eq!(fs::metadata(image.layers[0].join("rk")).unwrap().ino(), fs::metadata(&binary).unwrap().ino());
    assert_eq!(images.import_builtin(&name, &binary).unwrap().id, image.id);
    assert!(images.resolve(image.id.as_str()).unwrap().is_some());
    assert!("sha256:0".parse::<Digest>().is_err());
}
