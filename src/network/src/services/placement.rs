//! Which endpoint has which index, and its slot. Pure.
//!
//! Indices are dense, because the kernel draws one at random below their number. An endpoint that stays keeps its index, so that a
//! change touches few elements. A slot is an endpoint's lasting number within its frontend, never 0: clients with session
//! affinity are remembered by it. It is made from the endpoint's address, so that it survives a reload.
use std::collections::HashSet;
use std::net::SocketAddrV4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub endpoint: SocketAddrV4,
    pub slot: u32,
}

/// Slots and indices of the second list of endpoints, the local ones, have this bit.
pub(crate) const SECOND_LIST: u32 = 0x8000_0000;

/// Places all `wanted` endpoints, which are distinct; the position in the answer is the index.
pub(crate) fn place(before: &[Place], wanted: &[SocketAddrV4]) -> Vec<Place> {
    let staying: HashSet<&SocketAddrV4> = wanted.iter().collect();
    let mut places: Vec<Option<Place>> = before.iter().map(|p| staying.contains(&p.endpoint).then_some(*p)).collect();
    let mut slots: HashSet<u32> = places.iter().flatten().map(|p| p.slot).collect();
    let known: HashSet<SocketAddrV4> = places.iter().flatten().map(|p| p.endpoint).collect();
    let mut new = wanted
        .iter()
        .filter(|endpoint| !known.contains(endpoint))
        .map(|endpoint| Place { endpoint: *endpoint, slot: free_slot(*endpoint, &mut slots) });

    // New ones go into the holes of old ones, then to the end; the last ones fill the holes that remain.
    let mut index = 0;
    while index < places.len() {
        if places[index].is_none() {
            if let Some(place) = new.next() {
                places[index] = Some(place);
            } else {
                places.swap_remove(index);
                continue;
            }
        }
        index += 1;
    }
    places.into_iter().flatten().chain(new).collect()
}

fn free_slot(endpoint: SocketAddrV4, taken: &mut HashSet<u32>) -> u32 {
    // Fibonacci hashing of address and port: near addresses get far slots.
    let number = (u64::from(u32::from(*endpoint.ip())) << 16) | u64::from(endpoint.port());
    let mut slot = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as u32;
    loop {
        slot &= !SECOND_LIST;
        if slot != 0 && taken.insert(slot) {
            return slot;
        }
        slot = slot.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(hosts: &[u8]) -> Vec<SocketAddrV4> {
        let one = |host: &u8| SocketAddrV4::new([10, 42, 0, *host].into(), 80);
        hosts.iter().map(one).collect()
    }

    fn hosts(places: &[Place]) -> Vec<u8> {
        places.iter().map(|p| p.endpoint.ip().octets()[3]).collect()
    }

    #[track_caller]
    fn check(before: &[u8], wanted: &[u8], after: &[u8]) {
        let first = place(&[], &endpoints(before));
        let second = place(&first, &endpoints(wanted));
        assert_eq!(hosts(&second), after);
        for p in &second {
            let was = first.iter().find(|q| q.endpoint == p.endpoint);
            assert!(was.is_none_or(|q| q.slot == p.slot), "slots are kept");
        }
    }

    #[test]
    fn staying_endpoints_keep_their_index_where_the_indices_stay_dense() {
        check(&[], &[1, 2, 3], &[1, 2, 3]);
        check(&[1, 2, 3], &[1, 2, 3], &[1, 2, 3]);
        check(&[1, 2, 3], &[3, 2, 1], &[1, 2, 3]);
        check(&[1, 2, 3], &[1, 3, 4], &[1, 4, 3]);
        check(&[1, 2, 3], &[2, 3], &[3, 2]);
        check(&[1, 2, 3, 4], &[1, 2], &[1, 2]);
        check(&[1, 2, 3, 4], &[4], &[4]);
        check(&[1, 2], &[1, 2, 3, 4], &[1, 2, 3, 4]);
        check(&[1, 2], &[], &[]);
        check(&[1, 2], &[5, 6, 7], &[5, 6, 7]);
    }

    #[test]
    fn slots_are_distinct_and_never_zero_and_leave_the_top_bit_free() {
        let many: Vec<SocketAddrV4> = (0..20_000u32).map(|n| SocketAddrV4::new((0x0a2a_0000 + n).into(), 80)).collect();
        let places = place(&[], &many);
        let slots: HashSet<u32> = places.iter().map(|p| p.slot).collect();
        assert_eq!(slots.len(), many.len());
        assert!(slots.iter().all(|s| *s != 0 && s & SECOND_LIST == 0));
    }
}
