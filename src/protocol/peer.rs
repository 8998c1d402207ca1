//! Who is really connecting: addresses behind proxies, and pages behind origins.
//!
//! Purpose: a trusted proxy may say whose connection it passes on, by a PROXY header before the request (`proxy`) or by
//! X-Forwarded-For in it; nobody else may. [`Origins`] (in `origin`) says which web pages may connect.
//!
//! Invariants: an address that the peer could have invented is never believed: only what a trusted address appended
//! counts. IPv4-mapped IPv6 addresses are the IPv4 addresses they stand for, everywhere.
//!
//! Source: PROTOCOL §6 `trusted_proxies`, `origins`; rulings B2, B27, B28; RFC 4291 §2.5.5.2 (mapped addresses).

mod origin;
mod proxy;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

pub use origin::{Origin, Origins};
pub use proxy::{ProxyHeader, proxy_header};

/// A range of addresses in CIDR notation. A bare address is the range of that address alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    addr: IpAddr,
    /// Leading bits that count: 0–32 or 0–128.
    prefix: u8,
}

impl Network {
    /// Whether `ip` lies in the range.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.addr, ip.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                (own.to_bits() ^ ip.to_bits()).checked_shr(32 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => {
                (own.to_bits() ^ ip.to_bits()).checked_shr(128 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    /// # Errors
    /// A sentence for the operator.
    fn from_str(text: &str) -> Result<Network, String> {
        let wrong = || format!("\"{text}\" is not an address or a network such as \"10.0.0.0/8\" or \"fd00::/8\"");
        let (addr, prefix) = match text.split_once('/') {
            Some((addr, prefix)) => (addr, Some(prefix)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| wrong())?;
        let bits: u8 = if addr.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().map_err(|_| wrong())?,
            Some(_) => return Err(wrong()),
        };
        if prefix > bits {
            return Err(format!("\"{text}\": the prefix is at most {bits}"));
        }
        match addr.to_canonical() {
            mapped @ IpAddr::V4(_) if bits == 128 => match prefix.checked_sub(96) {
                Some(prefix) => Ok(Network { addr: mapped, prefix }),
                None => Err(format!("\"{text}\": write IPv4 networks as such, for example \"10.0.0.0/8\"")),
            },
            addr => Ok(Network { addr, prefix }),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

/// A set of networks, such as `trusted_proxies`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(pub Vec<Network>);

impl Networks {
    /// Whether any of them contains `ip`.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(ip))
    }
}

/// The address of the client behind `peer`: the rightmost hop that is not itself trusted, or the first hop where all
/// are. `forwarded_for` are the X-Forwarded-For lines in the order of the head.
///
/// It is `peer` where `peer` is not trusted, and where a hop that had to be read is malformed (B27); what stands left of
/// the hop that decides is never read, because anyone may have written it.
pub fn client_ip<'a>(peer: IpAddr, forwarded_for: impl Iterator<Item = &'a str>, trusted: &Networks) -> IpAddr {
    let peer = peer.to_canonical();
    if !trusted.contains(peer) {
        return peer;
    }
    let lines: Vec<&str> = forwarded_for.collect();
    let mut client = peer;
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        match hop_ip(hop.trim_matches([' ', '\t'])) {
            None => return peer,
            Some(ip) if !trusted.contains(ip) => return ip,
            Some(ip) => client = ip,
        }
    }
    client
}

/// What a per-address cap counts: the address itself, for IPv6 its /64 (B28).
pub fn cap_key(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

/// One hop: an address, bare or in brackets, some proxies add a port.
fn hop_ip(hop: &str) -> Option<IpAddr> {
    if let Ok(ip) = hop.parse::<IpAddr>() {
        return Some(ip.to_canonical());
    }
    let (ip, port): (IpAddr, &str) = match hop.strip_prefix('[') {
        Some(bracketed) => {
            let (ip, port) = bracketed.split_once(']')?;
            (ip.parse::<Ipv6Addr>().ok()?.into(), port)
        }
        None => {
            let (ip, _) = hop.split_once(':')?;
            (IpAddr::V4(ip.parse().ok()?), &hop[ip.len()..])
        }
    };
    let port_is_fine = port.is_empty() || proxy::port(port.strip_prefix(':')?).is_some();
    port_is_fine.then(|| ip.to_canonical())
}
