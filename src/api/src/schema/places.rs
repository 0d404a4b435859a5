//! Finds a struct's field by its name without comparing names on the way: a table whose slots are chosen by the name's length and three of
//! its bytes, which tell the fields of nearly every struct apart.
use super::Field;

/// Slots for each field, most of them empty, so that few names are found in a neighbour's slot.
const ROOM: usize = 2;
const EMPTY: u16 = u16::MAX;

/// The places of fields by name.
#[derive(Debug)]
pub(super) struct Places(Box<[u16]>);

impl Places {
    pub fn of(fields: &[Field]) -> Self {
        let mut slots = vec![EMPTY; (fields.len() * ROOM + 1).next_power_of_two()];
        for (place, field) in fields.iter().enumerate() {
            let mut slot = slot(field.name.as_bytes(), slots.len());
            while slots[slot] != EMPTY {
                slot = (slot + 1) % slots.len();
            }
            slots[slot] = u16::try_from(place).ok().filter(|place| *place != EMPTY).expect("structs have a few dozen fields");
        }
        Self(slots.into())
    }

    #[inline]
    pub fn find(&self, fields: &[Field], name: &[u8]) -> Option<usize> {
        let mut slot = slot(name, self.0.len());
        // There is always an empty slot: the table has more of them than fields.
        loop {
            let place = self.0[slot];
            let field = fields.get(usize::from(place))?;
            if field.name.as_bytes() == name {
                return Some(usize::from(place));
            }
            slot = (slot + 1) & (self.0.len() - 1);
        }
    }
}

#[inline]
fn slot(name: &[u8], slots: usize) -> usize {
    let at = |place: usize| name.get(place).copied().map_or(0, u32::from);
    let length = name.len();
    let mixed = length as u32 | at(0) << 8 | at(length / 2) << 16 | at(length.wrapping_sub(1)) << 24;
    (mixed.wrapping_mul(0x9e37_79b1) >> 16) as usize & (slots - 1)
}
