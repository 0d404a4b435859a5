//! Node ports of a Service, and that of its health check.
//!
//! Models pkg/registry/core/service/storage/alloc.go `initNodePorts`, `updateNodePorts`, `allocHealthCheckNodePort`, and
//! pkg/registry/core/service/portallocator, v1.37.
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::MutexGuard;

use api::field_error::FieldError;
use api::meta;
use api::tree::Tree;

use super::pool::Pool;
use super::service::{health_check_port, may_have_node_ports, needs_health_check_port, needs_node_ports, node_port};
use super::{Reservation, Services};
use crate::status::Status;

#[derive(Debug, thiserror::Error)]
enum PortError {
    #[error("provided port is already allocated")]
    Allocated,
    #[error("provided port is not in the valid range. The range of valid ports is {0}-{1}")]
    NotInRange(u16, u16),
    #[error("range is full")]
    Full,
}

/// What one request takes of the pool.
struct Taking<'a> {
    pool: MutexGuard<'a, Pool<u16>>,
    range: RangeInclusive<u16>,
    /// Where the search begins: the same Service begins at the same place.
    start: u32,
    dry_run: bool,
    chosen: Vec<i64>,
    reservation: &'a mut Reservation,
}

impl Taking<'_> {
    fn take(&mut self, number: i64) -> Result<(), PortError> {
        let known = u16::try_from(number).ok().filter(|number| self.range.contains(number));
        if known.is_some_and(|known| !self.pool.is_free(known)) || self.chosen.contains(&number) {
            return Err(PortError::Allocated);
        }
        // A dry run asks who else has the port, and no more (upstream's does not, either).
        if !self.dry_run {
            let known = known.ok_or(PortError::NotInRange(*self.range.start(), *self.range.end()))?;
            self.pool.reserve(known);
            self.reservation.ports.push(known);
        }
        self.chosen.push(number);
        Ok(())
    }

    fn take_any(&mut self) -> Result<i64, PortError> {
        let start = self.start.wrapping_add(self.chosen.len() as u32 * 7919);
        let is_free = |number: &u16| self.pool.is_free(*number) && !self.chosen.contains(&i64::from(*number));
        let number = port_candidates(&self.range, start).find(is_free).ok_or(PortError::Full)?;
        self.take(i64::from(number))?;
        Ok(i64::from(number))
    }
}

/// Takes what `service` needs and did not have, and writes it into it; `invalid` makes the answer of what is wrong with a field.
pub fn reserve(
    services: &Services,
    service: &mut Tree,
    old: Option<&Tree>,
    dry_run: bool,
    reservation: &mut Reservation,
    invalid: impl Fn(Vec<FieldError>) -> Status,
) -> Result<(), Status> {
    let (range, start) = (services.0.node_ports.clone(), hash(service));
    let mut taking = Taking { pool: services.lock(), range, start, dry_run, chosen: Vec::new(), reservation };
    if may_have_node_ports(service) {
        let may_choose = needs_node_ports(service);
        if let Some(ports) = service.at_mut(&["spec", "ports"]).and_then(Tree::as_array_mut) {
            match old {
                None => new_ports(&mut taking, ports, may_choose, invalid)?,
                Some(old) => changed_ports(&mut taking, ports, old, may_choose, invalid)?,
            }
        }
    }
    if needs_health_check_port(service) && !old.is_some_and(needs_health_check_port) {
        match health_check_port(service) {
            0 => {
                let found = taking.take_any();
                let number = found.map_err(|error| Status::internal(format!("failed to allocate a HealthCheck NodePort 0: {error}")))?;
                service.set(&["spec", "healthCheckNodePort"], number);
            }
            asked => taking
                .take(asked)
                .map_err(|error| Status::internal(format!("failed to allocate requested HealthCheck NodePort {asked}: {error}")))?,
        }
    }
    Ok(())
}

fn wrong(i: usize, number: i64, error: &PortError) -> Vec<FieldError> {
    vec![FieldError::invalid(format!("spec.ports[{i}].nodePort"), number, error.to_string())]
}

fn none_left(error: &PortError) -> Status {
    Status::internal(format!("failed to allocate a nodePort: {error}"))
}

/// One port under several protocols has one number. Models initNodePorts.
fn new_ports(
    taking: &mut Taking<'_>,
    ports: &mut [Tree],
    may_choose: bool,
    invalid: impl Fn(Vec<FieldError>) -> Status,
) -> Result<(), Status> {
    let mut numbers: HashMap<i64, i64> = HashMap::new();
    for i in 0..ports.len() {
        let (port, own) = (number(&ports[i], "port"), node_port(&ports[i]));
        if own == 0 && !may_choose {
            continue;
        }
        let chosen = match numbers.get(&port) {
            Some(shared) if own == 0 || own == *shared => *shared,
            Some(_) => {
                taking.take(own).map_err(|error| invalid(wrong(i, own, &error)))?;
                continue;
            }
            None => {
                let asked = ports[i..].iter().find(|other| number(other, "port") == port && node_port(other) != 0).map(node_port);
                let chosen = match asked {
                    Some(asked) => taking.take(asked).map(|()| asked).map_err(|error| invalid(wrong(i, asked, &error)))?,
                    None => taking.take_any().map_err(|error| none_left(&error))?,
                };
                numbers.insert(port, chosen);
                chosen
            }
        };
        ports[i].set(&["nodePort"], chosen);
    }
    Ok(())
}

/// Models updateNodePorts; what is no longer there is free as soon as the Service is stored.
fn changed_ports(
    taking: &mut Taking<'_>,
    ports: &mut [Tree],
    old: &Tree,
    may_choose: bool,
    invalid: impl Fn(Vec<FieldError>) -> Status,
) -> Result<(), Status> {
    let before: Vec<i64> = old.array_at(&["spec", "ports"]).iter().map(node_port).collect();
    let mut asked: Vec<i64> = Vec::new();
    let mut seen: Vec<(String, i64)> = Vec::new();
    for (i, port) in ports.iter_mut().enumerate() {
        let own = match node_port(port) {
            0 if !may_choose => continue,
            0 => {
                let chosen = taking.take_any().map_err(|error| none_left(&error))?;
                port.set(&["nodePort"], chosen);
                chosen
            }
            own => {
                if !before.contains(&own) && !asked.contains(&own) {
                    taking.take(own).map_err(|error| invalid(wrong(i, own, &error)))?;
                    asked.push(own);
                }
                own
            }
        };
        let one = (port.str_at(&["protocol"]).to_owned(), own);
        if seen.contains(&one) {
            return Err(Status::unreasoned(500, format!("duplicate nodePort: {{{} {}}}", one.0, one.1)));
        }
        seen.push(one);
    }
    Ok(())
}

fn number(port: &Tree, field: &str) -> i64 {
    port.get(field).and_then(Tree::as_i64).unwrap_or(0)
}

fn hash(service: &Tree) -> u32 {
    let text = format!("{}/{}", meta::namespace(service), meta::name(service));
    text.bytes().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Every port once, those of the band for ports that are asked for by number last (KEP-3668): min(max(16, size/32), 128) at the start.
/// Models pkg/registry/core/service/portallocator/allocator.go.
fn port_candidates(range: &RangeInclusive<u16>, start: u32) -> impl Iterator<Item = u16> + use<> {
    let (first, size) = (*range.start(), u32::from(range.end() - range.start()) + 1);
    let band = if size <= 16 { 0 } else { (size / 32).clamp(16, 128) };
    let turned = move |from: u32, count: u32| (0..count).map(move |i| first + (from + (start.wrapping_add(i)) % count) as u16);
    turned(band, size - band).chain(turned(0, band))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_the_static_band_come_last() {
        let found: Vec<u16> = port_candidates(&(30000..=32767), 5).collect();
        assert_eq!((found.len(), found[0], found[2681], found[2682]), (2768, 30091, 30090, 30005));
        assert_eq!(port_candidates(&(1..=10), 3).collect::<Vec<_>>(), [4, 5, 6, 7, 8, 9, 10, 1, 2, 3]);
        assert_eq!(port_candidates(&(1..=20), 0).next(), Some(17));
    }
}
