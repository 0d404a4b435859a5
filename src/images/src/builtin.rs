//! The image that rk brings along: its only program is the running binary, hard-linked, so that nothing is copied or
//! pulled and every pod made of it shares the daemon's pages.
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::digest::Digest;
use crate::index::Record;
use crate::layers::remove_tree;
use crate::{Image, ImageConfig, Images, Reference, StoreError};

impl Images {
    /// Makes or renews the image `name`, whose file `/rk` is `binary`.
    pub fn import_builtin(&self, name: &Reference, binary: &Path) -> Result<Image, StoreError> {
        let found = fs::metadata(binary).map_err(StoreError::io("read", binary))?;
        let identity = format!("{}:{}:{}:{}.{}", found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec());
        let id = Digest::of(format!("rk builtin {identity}").as_bytes());
        let layer = format!("builtin-{}", &id.hex()[..32]);
        let target = self.layers().path(&layer);
        if !target.is_dir() {
            let partial = self.layers().path(&format!(".partial-{}-builtin", std::process::id()));
            remove_tree(&partial)?;
            for directory in ["etc", "tmp", "var", "run", "proc", "sys", "dev"] {
                let path = partial.join(directory);
                fs::create_dir_all(&path).map_err(StoreError::io("create", &path))?;
            }
            let tmp = partial.join("tmp");
            fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777)).map_err(StoreError::io("set mode of", &tmp))?;
            let file = partial.join("rk");
            // Another file system cannot share the inode: a copy is the only way.
            fs::hard_link(binary, &file).or_else(|_| fs::copy(binary, &file).map(drop)).map_err(StoreError::io("link", &file))?;
            let users = partial.join("etc/passwd");
            fs::write(&users, "root:x:0:0:root:/:/rk\nnobody:x:65534:65534:nobody:/:/rk\n").map_err(StoreError::io("write", &users))?;
            fs::rename(&partial, &target).map_err(StoreError::io("rename", &partial))?;
        }
        let config = ImageConfig { entrypoint: vec!["/rk".into()], working_dir: "/".into(), env: vec!["PATH=/".into()], ..ImageConfig::default() };
        let record = Record { id, references: vec![name.to_string()], size_bytes: found.len(), config, layers: vec![layer] };
        self.add(record)
    }
}
