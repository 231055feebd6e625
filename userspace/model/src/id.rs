//! Newtypes for the numbers and names that must not be mixed up.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A network namespace: the inode of its `nsfs` file and the cookie the kernel never gives out twice.
///
/// Inodes are reused after a namespace is gone; `SO_NETNS_COOKIE` (Linux 5.14) is not. Two reads of one namespace
/// always carry the same pair, so the pair is the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NetnsId {
    /// Inode of `/proc/<pid>/ns/net`.
    pub inode: u64,
    /// Cookie of the namespace, or 0 where the kernel has none to give (before 5.14).
    pub cookie: u64,
}

impl fmt::Display for NetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}]", self.inode)
    }
}

/// Index of a link, meaningful only inside its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IfIndex(pub u32);

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A link on this host: names are hints, this is the identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LinkKey {
    /// Namespace the link lives in.
    pub netns: NetnsId,
    /// Its index there.
    pub ifindex: IfIndex,
}

/// A MAC address; prints in lower case with colons, parses with `:` or `-` and in either case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, octet) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { ":" };
            write!(f, "{separator}{octet:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not six hexadecimal octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidMac;

impl fmt::Display for InvalidMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a MAC address is six hexadecimal octets, as in fa:16:3e:00:00:02")
    }
}

impl std::error::Error for InvalidMac {}

impl FromStr for Mac {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            // from_str_radix would take a sign for a digit.
            let digits = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            let part = parts.next().filter(digits).ok_or(InvalidMac)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| InvalidMac)?;
        }
        if parts.next().is_some() { Err(InvalidMac) } else { Ok(Self(octets)) }
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A UUID in its canonical lower-case text form: a Neutron port, network or router, a Nova instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Uuid(String);

impl Uuid {
    /// The 36 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first `length` characters, which is how Neutron cuts ids into device names.
    pub fn prefix(&self, length: usize) -> &str {
        &self.0[..length.min(self.0.len())]
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not a UUID of 8-4-4-4-12 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUuid;

impl fmt::Display for InvalidUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a UUID is 8-4-4-4-12 hexadecimal digits")
    }
}

impl std::error::Error for InvalidUuid {}

impl FromStr for Uuid {
    type Err = InvalidUuid;

    fn from_str(text: &str) -> Result<Self, InvalidUuid> {
        let groups = [8, 4, 4, 4, 12];
        let mut parts = text.split('-');
        for length in groups {
            let part = parts.next().ok_or(InvalidUuid)?;
            if part.len() != length || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(InvalidUuid);
            }
        }
        if parts.next().is_some() { Err(InvalidUuid) } else { Ok(Self(text.to_ascii_lowercase())) }
    }
}

impl<'de> Deserialize<'de> for Uuid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::{InvalidMac, InvalidUuid, Mac, Uuid};

    #[test]
    fn mac_prints_as_it_parses() {
        assert_eq!("FA-16-3E-00-0a-02".parse::<Mac>().unwrap().to_string(), "fa:16:3e:00:0a:02");
    }

    #[test]
    fn mac_of_the_wrong_shape_is_refused() {
        for text in [
            "",
            "fa:16:3e:00:00",
            "fa:16:3e:00:00:02:03",
            "fa:16:3e:00:00:zz",
            "fa163e000002",
            "f:a:1:6:3:e",
            "fa:16:3e:00:00:+2",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(InvalidMac), "{text}");
        }
    }

    #[test]
    fn uuid_is_kept_in_lower_case_and_cut_as_neutron_cuts_it() {
        let uuid: Uuid = "1A2B3C4D-5E6F-4a1b-8c2d-000000000001".parse().unwrap();
        assert_eq!(uuid.prefix(11), "1a2b3c4d-5e");
    }

    #[test]
    fn uuid_of_the_wrong_shape_is_refused() {
        for text in ["", "1a2b3c4d", "1a2b3c4d-5e6f-4a1b-8c2d-00000000000g", "1a2b3c4d-5e6f-4a1b-8c2d-000000000001-"] {
            assert_eq!(text.parse::<Uuid>(), Err(InvalidUuid), "{text}");
        }
    }
}
