//! Which sandbox has which address, in memory and on disk.
//!
//! One small file per address, named by it, holding the kernel's boot id and the sandbox id. The file is written aside and
//! renamed, so that it is whole or absent, and it is there before the address is used. It is not synced: what a power cut takes,
//! it takes together with the pods, and a record of an earlier boot is void.
//!
//! Addresses are given out in turn and not the lowest first, so that one just freed rests as long as possible: other nodes may
//! still hold endpoints or connections of its last owner.
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;

use crate::error::AttachError;

const FOLDER: &str = "addresses";

#[derive(Debug)]
pub(crate) struct Addresses {
    folder: PathBuf,
    cidr: Ipv4Net,
    boot_id: String,
    by_sandbox: HashMap<String, Ipv4Addr>,
    by_address: BTreeMap<Ipv4Addr, String>,
    /// The address last given out.
    last: u32,
}

impl Addresses {
    /// Reads the records. Those of another boot or of another pod CIDR, and broken ones, are removed.
    pub(crate) fn open(state_dir: &Path, cidr: Ipv4Net, boot_id: &str) -> io::Result<Addresses> {
        let folder = state_dir.join(FOLDER);
        fs::create_dir_all(&folder)?;
        let mut addresses = Addresses {
            folder,
            cidr,
            boot_id: boot_id.to_owned(),
            by_sandbox: HashMap::new(),
            by_address: BTreeMap::new(),
            last: u32::from(cidr.network()) + 1,
        };
        for entry in fs::read_dir(&addresses.folder)? {
            let path = entry?.path();
            match addresses.parse(&path)? {
                Some((address, sandbox)) => {
                    addresses.last = addresses.last.max(u32::from(address));
                    addresses.by_sandbox.insert(sandbox.clone(), address);
                    addresses.by_address.insert(address, sandbox);
                }
                None => fs::remove_file(&path)?,
            }
        }
        Ok(addresses)
    }

    fn parse(&self, path: &Path) -> io::Result<Option<(Ipv4Addr, String)>> {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        let Ok(address) = name.parse::<Ipv4Addr>() else {
            return Ok(None);
        };
        let text = fs::read_to_string(path)?;
        let Some((boot_id, sandbox)) = text.trim_end().split_once(' ') else {
            return Ok(None);
        };
        let current = boot_id == self.boot_id && self.usable().contains(&u32::from(address));
        // Two records for one sandbox cannot come from this code; the first found wins.
        let fresh = !self.by_sandbox.contains_key(sandbox);
        Ok((current && fresh && valid_sandbox_id(sandbox)).then(|| (address, sandbox.to_owned())))
    }

    /// All but the network's own, the gateway's and the broadcast address.
    fn usable(&self) -> std::ops::Range<u32> {
        u32::from(self.cidr.network()) + 2..u32::from(self.cidr.broadcast())
    }

    pub(crate) fn get(&self, sandbox: &str) -> Option<Ipv4Addr> {
        self.by_sandbox.get(sandbox).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ipv4Addr, &str)> {
        self.by_address.iter().map(|(a, s)| (*a, s.as_str()))
    }

    pub(crate) fn contains(&self, address: Ipv4Addr) -> bool {
        self.by_address.contains_key(&address)
    }

    /// The sandbox's address: the one it has, or a free one, recorded before it is returned.
    pub(crate) fn allocate(&mut self, sandbox: &str) -> Result<Ipv4Addr, AttachError> {
        if !valid_sandbox_id(sandbox) {
            return Err(AttachError::InvalidSandboxId { sandbox_id: sandbox.to_owned() });
        }
        if let Some(address) = self.get(sandbox) {
            return Ok(address);
        }
        let address = self.free().ok_or(AttachError::AddressesExhausted { cidr: self.cidr, in_use: self.by_address.len() })?;
        self.record(address, sandbox).map_err(|source| AttachError::Record { address, path: self.folder.clone(), source })?;
        self.last = u32::from(address);
        self.by_sandbox.insert(sandbox.to_owned(), address);
        self.by_address.insert(address, sandbox.to_owned());
        Ok(address)
    }

    fn free(&self) -> Option<Ipv4Addr> {
        let usable = self.usable();
        let after = (self.last + 1).clamp(usable.start, usable.end);
        (after..usable.end).chain(usable.start..after).map(Ipv4Addr::from).find(|address| !self.by_address.contains_key(address))
    }

    fn record(&self, address: Ipv4Addr, sandbox: &str) -> io::Result<()> {
        let aside = self.folder.join(".new");
        fs::write(&aside, format!("{} {sandbox}\n", self.boot_id))?;
        fs::rename(&aside, self.folder.join(address.to_string()))
    }

    pub(crate) fn release(&mut self, sandbox: &str) -> io::Result<()> {
        let Some(address) = self.get(sandbox) else {
            return Ok(());
        };
        match fs::remove_file(self.folder.join(address.to_string())) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        self.by_sandbox.remove(sandbox);
        self.by_address.remove(&address);
        Ok(())
    }

    /// Removes all records; part of the teardown.
    pub(crate) fn erase(state_dir: &Path) -> io::Result<()> {
        match fs::remove_dir_all(state_dir.join(FOLDER)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// A sandbox id becomes part of a line in a record.
fn valid_sandbox_id(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, cidr: &str, boot: &str) -> Addresses {
        Addresses::open(dir, cidr.parse().expect("a CIDR"), boot).expect("opens")
    }

    #[test]
    fn a_sandbox_keeps_its_address_over_a_restart_and_loses_it_by_a_reboot() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut first = open(dir.path(), "10.42.0.0/24", "boot-1");
        let a = first.allocate("a").expect("free");
        assert_eq!(a, Ipv4Addr::new(10, 42, 0, 2));
        assert_eq!(first.allocate("a").expect("again"), a);
        let b = first.allocate("b").expect("free");
        assert_eq!(b, Ipv4Addr::new(10, 42, 0, 3));

        let mut second = open(dir.path(), "10.42.0.0/24", "boot-1");
        assert_eq!(second.get("a"), Some(a));
        assert_eq!(second.allocate("c").expect("free"), Ipv4Addr::new(10, 42, 0, 4));

        let third = open(dir.path(), "10.42.0.0/24", "boot-2");
        assert_eq!(third.get("a"), None);
        assert_eq!(fs::read_dir(dir.path().join(FOLDER)).expect("dir").count(), 0);
    }

    #[test]
    fn freed_addresses_are_given_out_last() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut addresses = open(dir.path(), "10.42.0.0/29", "boot");
        let names = ["a", "b", "c", "d", "e"];
        for (n, name) in names.iter().enumerate() {
            let expected = Ipv4Addr::new(10, 42, 0, 2 + n as u8);
            assert_eq!(addresses.allocate(name).expect("free"), expected);
        }
        let full = addresses.allocate("f").expect_err("all in use");
        assert_eq!(full.to_string(), "no free address in 10.42.0.0/29: all 5 are in use");
        addresses.release("b").expect("released");
        addresses.release("b").expect("nothing to do");
        assert_eq!(addresses.allocate("f").expect("free"), Ipv4Addr::new(10, 42, 0, 3));
    }

    #[test]
    fn broken_records_are_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let folder = dir.path().join(FOLDER);
        fs::create_dir_all(&folder).expect("dir");
        for (name, text) in [
            (".new", "boot x\n"),
            ("10.42.0.5", ""),
            ("10.42.0.1", "boot gateway\n"),
            ("10.42.0.255", "boot broadcast\n"),
            ("10.99.0.5", "boot elsewhere\n"),
            ("10.42.0.9", "boot kept\n"),
        ] {
            fs::write(folder.join(name), text).expect("written");
        }
        let addresses = open(dir.path(), "10.42.0.0/24", "boot");
        let all: Vec<_> = addresses.iter().collect();
        assert_eq!(all, [(Ipv4Addr::new(10, 42, 0, 9), "kept")]);
        assert_eq!(fs::read_dir(&folder).expect("dir").count(), 1);
    }

    #[test]
    fn sandbox_ids_that_would_break_a_record_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut addresses = open(dir.path(), "10.42.0.0/24", "boot");
        for id in ["", "a b", "a\nb", &"x".repeat(129)] {
            assert!(addresses.allocate(id).is_err(), "{id:?}");
        }
    }
}
