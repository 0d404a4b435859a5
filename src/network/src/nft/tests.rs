//! The bytes of small batches, and the bounds of large ones.
use super::batch::{Batch, Data, Element};
use crate::netlink::Messages;

fn messages(batch: &Batch) -> Vec<(u16, usize)> {
    let bytes = batch.encoded();
    let all = Messages(bytes).map(|m| (m.kind, m.body.len())).collect();
    all
}

#[test]
fn a_batch_opens_with_the_subsystem_in_network_order() {
    let batch = Batch::new();
    assert!(batch.is_empty());
    assert_eq!(batch.encoded(), [20, 0, 0, 0, 16, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10]);
}

#[test]
fn a_table_is_a_padded_name_after_the_family() {
    let mut batch = Batch::new();
    batch.add_table("rk");
    assert_eq!(&batch.encoded()[20..], [28, 0, 0, 0, 0, 10, 1, 4, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 7, 0, 1, 0, b'r', b'k', 0, 0]);
}

#[test]
fn many_elements_are_cut_into_messages_that_fit_an_attribute() {
    let mut batch = Batch::new();
    let key = [7u8; 16];
    let elements = (0..10_000).map(|_| Element { key: &key, end: None, data: Data::Value(&[1; 8]) });
    batch.add_elements("rk-proxy", "endpoints", elements);
    let all = messages(&batch);
    assert!(all.len() > 5, "{} messages", all.len());
    let bodies: usize = all.iter().map(|m| m.1).sum();
    assert!(bodies > 10_000 * 40);
    assert!(all.iter().all(|m| m.1 < 65_536));
    let covered: usize = all.iter().map(|m| m.1 + 16).sum();
    assert_eq!(covered, batch.len_bytes());
}
