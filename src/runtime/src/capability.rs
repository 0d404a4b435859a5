//! Names and masks of capabilities.

use crate::spec::Capabilities;

/// In the kernel's order: the index is the number (include/uapi/linux/capability.h).
pub(crate) const NAMES: [&str; 41] = [
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
];

impl Capabilities {
    /// The fourteen that Docker and containerd give: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP,
    /// NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
    pub(crate) const DEFAULT: u64 = 0xa804_25fb;
    pub const NONE: Capabilities = Capabilities(0);
    /// All that this version knows; what the running kernel lacks is dropped at the start.
    pub const ALL: Capabilities = Capabilities((1 << NAMES.len()) - 1);

    /// The mask of `NET_ADMIN`, `CAP_NET_ADMIN` or, for every one, `ALL`.
    pub fn parse(name: &str) -> Option<Capabilities> {
        let upper = name.to_ascii_uppercase();
        if upper == "ALL" {
            return Some(Self::ALL);
        }
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        NAMES.iter().position(|known| *known == bare).map(|number| Capabilities(1 << number))
    }

    #[must_use]
    pub fn with(self, added: Capabilities) -> Capabilities {
        Capabilities(self.0 | added.0)
    }

    #[must_use]
    pub fn without(self, dropped: Capabilities) -> Capabilities {
        Capabilities(self.0 & !dropped.0)
    }

    pub fn contains(self, other: Capabilities) -> bool {
        self.0 & other.0 == other.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_is_the_fourteen_customary_ones() {
        let names = [
            "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE",
            "NET_RAW", "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP",
        ];
        let sum = names.iter().fold(Capabilities::NONE, |sum, name| sum.with(Capabilities::parse(name).unwrap()));
        assert_eq!(sum, Capabilities::default());
        assert_eq!(Capabilities::parse("cap_net_admin"), Some(Capabilities(1 << 12)));
        assert_eq!(Capabilities::parse("NOPE"), None);
    }
}
