//! The messages of the node service and of plugin registration, written and read by hand.
//!
//! A field is a key (number and wire type), then a varint or a length and that many bytes; a map is a repeated message of key (1) and
//! value (2); what has its default is left out (protobuf.dev, encoding). Field numbers are those of csi.proto v1.12 and
//! k8s.io/kubelet pluginregistration/v1.
use std::collections::BTreeMap;

pub type Map = BTreeMap<String, String>;

/// A message on its way.
#[derive(Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u32, wire: u32) {
        self.varint(u64::from(field << 3 | wire));
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.key(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub fn text(mut self, field: u32, text: &str) -> Self {
        if !text.is_empty() {
            self.bytes(field, text.as_bytes());
        }
        self
    }

    pub fn texts<'a>(mut self, field: u32, texts: impl IntoIterator<Item = &'a String>) -> Self {
        texts.into_iter().for_each(|text| self.bytes(field, text.as_bytes()));
        self
    }

    pub fn number(mut self, field: u32, number: u64) -> Self {
        if number != 0 {
            self.key(field, 0);
            self.varint(number);
        }
        self
    }

    /// Present even when it is empty.
    pub fn message(mut self, field: u32, message: Writer) -> Self {
        self.bytes(field, &message.0);
        self
    }

    pub fn map(mut self, field: u32, map: &Map) -> Self {
        for (key, value) in map {
            let entry = Writer::default().text(1, key).text(2, value);
            self.bytes(field, &entry.0);
        }
        self
    }

    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer cannot be read")]
pub struct Unreadable;

/// The fields of a message, in order.
pub fn fields(mut bytes: &[u8]) -> Result<Vec<(u32, Value<'_>)>, Unreadable> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes)?;
        let field = u32::try_from(key >> 3).map_err(|_| Unreadable)?;
        let value = match key & 7 {
            0 => Value::Number(take_varint(&mut bytes)?),
            1 => Value::Bytes(take(&mut bytes, 8)?),
            2 => {
                let length = usize::try_from(take_varint(&mut bytes)?).map_err(|_| Unreadable)?;
                Value::Bytes(take(&mut bytes, length)?)
            }
            5 => Value::Bytes(take(&mut bytes, 4)?),
            _ => return Err(Unreadable),
        };
        out.push((field, value));
    }
    Ok(out)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Unreadable> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(Unreadable)?;
    *bytes = rest;
    Ok(taken)
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64, Unreadable> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Unreadable)
}

fn text(bytes: &[u8]) -> Result<String, Unreadable> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Unreadable)
}

/// What a registrar says of its plugin.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PluginInfo {
    pub kind: String,
    pub name: String,
    pub endpoint: String,
    pub versions: Vec<String>,
}

pub fn plugin_info(bytes: &[u8]) -> Result<PluginInfo, Unreadable> {
    let mut info = PluginInfo::default();
    for field in fields(bytes)? {
        match field {
            (1, Value::Bytes(b)) => info.kind = text(b)?,
            (2, Value::Bytes(b)) => info.name = text(b)?,
            (3, Value::Bytes(b)) => info.endpoint = text(b)?,
            (4, Value::Bytes(b)) => info.versions.push(text(b)?),
            _ => {}
        }
    }
    Ok(info)
}

/// NodeGetInfoResponse.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    pub node_id: String,
    /// 0: no limit is known.
    pub volumes_max: i64,
    pub topology: Map,
}

pub fn node_info(bytes: &[u8]) -> Result<NodeInfo, Unreadable> {
    let mut info = NodeInfo::default();
    for field in fields(bytes)? {
        match field {
            (1, Value::Bytes(b)) => info.node_id = text(b)?,
            (2, Value::Number(n)) => info.volumes_max = n as i64,
            (3, Value::Bytes(b)) => {
                for entry in fields(b)? {
                    let (1, Value::Bytes(pair)) = entry else { continue };
                    let (mut key, mut value) = (String::new(), String::new());
                    for part in fields(pair)? {
                        match part {
                            (1, Value::Bytes(b)) => key = text(b)?,
                            (2, Value::Bytes(b)) => value = text(b)?,
                            _ => {}
                        }
                    }
                    info.topology.insert(key, value);
                }
            }
            _ => {}
        }
    }
    Ok(info)
}

/// What a driver's node service can do.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    pub stages: bool,
    /// Tells one writer from several writers of one node.
    pub single_node_writers: bool,
    /// Sets the volume's group itself.
    pub sets_group: bool,
}

pub fn capabilities(bytes: &[u8]) -> Result<Capabilities, Unreadable> {
    let mut found = Capabilities::default();
    for capability in fields(bytes)? {
        let (1, Value::Bytes(capability)) = capability else { continue };
        for rpc in fields(capability)? {
            let (1, Value::Bytes(rpc)) = rpc else { continue };
            for kind in fields(rpc)? {
                match kind {
                    (1, Value::Number(1)) => found.stages = true,
                    (1, Value::Number(5)) => found.single_node_writers = true,
                    (1, Value::Number(6)) => found.sets_group = true,
                    _ => {}
                }
            }
        }
    }
    Ok(found)
}

/// A mounted volume, as a driver is asked for it.
#[derive(Debug, Default, Clone)]
pub struct Capability {
    pub fs_type: String,
    pub mount_flags: Vec<String>,
    /// For drivers that set the group themselves.
    pub group: String,
    pub access_mode: u64,
}

impl Capability {
    pub fn write(&self) -> Writer {
        let mount = Writer::default().text(1, &self.fs_type).texts(2, &self.mount_flags).text(3, &self.group);
        Writer::default().message(2, mount).message(3, Writer::default().number(1, self.access_mode))
    }
}

/// csi.proto VolumeCapability.AccessMode for the first mode that a volume allows.
pub fn access_mode(mode: &str, capabilities: Capabilities) -> u64 {
    match (mode, capabilities.single_node_writers) {
        ("ReadOnlyMany", _) => 3,
        ("ReadWriteMany", _) => 5,
        ("ReadWriteOncePod", true) => 6,
        ("ReadWriteOnce", true) => 7,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let topology = Map::from([("zone".to_owned(), "a".to_owned())]);
        let written = Writer::default().text(1, "node").number(2, 300).message(3, Writer::default().map(1, &topology)).done();
        assert_eq!(&written[..8], [0x0a, 4, b'n', b'o', b'd', b'e', 0x10, 0xac]);
        let info = node_info(&written).unwrap();
        assert_eq!(info, NodeInfo { node_id: "node".into(), volumes_max: 300, topology });
        for cut in 1..written.len() {
            // Half a message is refused or shorter, and never more than that.
            let _ = node_info(&written[..cut]);
        }
        assert_eq!(fields(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Err(Unreadable));
    }

    #[test]
    fn capabilities_and_modes_are_upstreams() {
        let rpc = |kind: u64| Writer::default().message(1, Writer::default().number(1, kind));
        let written = Writer::default().message(1, rpc(1)).message(1, rpc(6)).message(1, rpc(99)).done();
        let found = capabilities(&written).unwrap();
        assert_eq!(found, Capabilities { stages: true, single_node_writers: false, sets_group: true });
        assert_eq!((access_mode("ReadWriteOnce", found), access_mode("ReadWriteMany", found)), (1, 5));
        let precise = Capabilities { single_node_writers: true, ..found };
        assert_eq!((access_mode("ReadWriteOnce", precise), access_mode("ReadWriteOncePod", precise)), (7, 6));
    }
}
