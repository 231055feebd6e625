//! What the running kernel says of its own types: where fields lie, and what the values of its enumerations are called.
//! Flow: observe.
//!
//! aya-obj reads the same format, and keeps members and values to itself.

use std::{fs, io, path::Path, sync::Arc};

/// Where the kernel and its modules describe themselves.
const DIRECTORY: &str = "/sys/kernel/btf";
/// The kernel's own description.
const KERNEL: &str = "vmlinux";

/// Magic number of the format, as it reads in the right byte order.
const MAGIC: u16 = 0xeb9f;
/// Types have no deeper modifiers or members than this.
const DEPTH: u32 = 32;

/// `BTF_KIND_*` of `linux/btf.h`.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Types of the kernel or of one module.
#[derive(Debug)]
pub(super) struct Btf {
    /// The kernel's, for a module's.
    base: Option<Arc<Btf>>,
    types: Vec<u8>,
    strings: Vec<u8>,
    /// Where each type begins in `types`.
    places: Vec<usize>,
}

/// A structure; looking for one by its name takes a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct Structure(u32);

/// A field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// Where it begins, in bits.
    pub(super) bit: u32,
    /// How many bits it has, if it is a bit field; else 0.
    pub(super) bits: u32,
    kind: u32,
}

/// The fixed part of a type.
#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    count: usize,
    /// Fields carry their size in bits, or values their sign.
    flag: bool,
    /// Size or another type.
    next: u32,
    /// Where what follows begins.
    rest: usize,
}

impl Btf {
    /// Types of the running kernel.
    pub(super) fn kernel() -> io::Result<Arc<Self>> {
        read(&Path::new(DIRECTORY).join(KERNEL), None).map(Arc::new)
    }

    /// Types of every module that has a description; one that cannot be read is left out.
    pub(super) fn modules(kernel: &Arc<Self>) -> Vec<Self> {
        let entries = fs::read_dir(DIRECTORY).into_iter().flatten().flatten();
        let modules = entries.filter(|entry| entry.file_name() != KERNEL);
        modules.filter_map(|entry| read(&entry.path(), Some(Arc::clone(kernel))).ok()).collect()
    }

    /// A structure.
    pub(super) fn structure(&self, name: &str) -> Option<Structure> {
        self.find(name, &[kind::STRUCT]).map(Structure)
    }

    /// Where a field lies in a structure; a path leads into structures that are fields.
    pub(super) fn field(&self, structure: Structure, path: &[&str]) -> Option<Field> {
        let whole = Field { bit: 0, bits: 0, kind: structure.0 };
        path.iter().try_fold(whole, |field, name| {
            let inner = self.member(field.kind, name, DEPTH)?;
            Some(Field { bit: field.bit + inner.bit, ..inner })
        })
    }

    /// Names and values of an enumeration.
    pub(super) fn values(&self, enumeration: &str) -> Vec<(String, u32)> {
        let found = self.find(enumeration, &[kind::ENUM, kind::ENUM64]);
        found.map(|id| self.values_of(id)).unwrap_or_default()
    }

    /// Names and values of every enumeration described here, those of the kernel not for a module.
    pub(super) fn enumerations(&self) -> impl Iterator<Item = (String, Vec<(String, u32)>)> {
        self.own_ids().filter_map(|id| {
            let found = self.get(id)?;
            let is = matches!(found.kind, kind::ENUM | kind::ENUM64);
            is.then(|| (self.text(found.name), self.values_of(id)))
        })
    }

    /// Names of the types the arguments of a function lead to, by the name of the type that points to it.
    pub(super) fn arguments(&self, function_type: &str) -> Option<Vec<String>> {
        let pointer = self.get(self.resolve(self.find(function_type, &[kind::TYPEDEF])?)?)?;
        let function = self.get(self.resolve(pointer.next)?)?;
        if pointer.kind != kind::PTR || function.kind != kind::FUNC_PROTO {
            return None;
        }
        let arguments = (0..function.count).map(|place| {
            let mut id = self.resolve(self.word(function.rest + place * 8 + 4)?)?;
            while let Some(Type { kind: kind::PTR, next, .. }) = self.get(id) {
                id = self.resolve(next)?;
            }
            Some(self.get(id).map(|found| self.text(found.name)).unwrap_or_default())
        });
        arguments.collect()
    }

    // === types ===

    fn find(&self, name: &str, kinds: &[u32]) -> Option<u32> {
        self.own_ids().find(|id| {
            self.get(*id).is_some_and(|found| kinds.contains(&found.kind) && self.bytes(found.name) == name.as_bytes())
        })
    }

    /// Ids of what is described here. 0 is `void`.
    fn own_ids(&self) -> impl Iterator<Item = u32> + use<> {
        let first = self.first_id();
        first..first + u32::try_from(self.places.len()).unwrap_or(0)
    }

    fn first_id(&self) -> u32 {
        self.base.as_ref().map_or(1, |base| 1 + u32::try_from(base.places.len()).unwrap_or(0))
    }

    fn get(&self, id: u32) -> Option<Type> {
        let Some(place) = id.checked_sub(self.first_id()) else { return self.base.as_ref()?.get(id) };
        fixed(&self.types, *self.places.get(usize::try_from(place).ok()?)?)
    }

    /// A type without what only names or qualifies it.
    fn resolve(&self, id: u32) -> Option<u32> {
        let mut id = id;
        for _ in 0..DEPTH {
            match self.get(id) {
                Some(found) if is_modifier(found.kind) => id = found.next,
                _ => return Some(id),
            }
        }
        None
    }

    /// A member by its name, also one of a member without a name.
    fn member(&self, structure: u32, name: &str, depth: u32) -> Option<Field> {
        let id = self.resolve(structure)?;
        let found = self.get(id)?;
        if !matches!(found.kind, kind::STRUCT | kind::UNION) || depth == 0 {
            return None;
        }
        // What follows a type of the kernel lies in the kernel's description.
        let home = self.home(id);
        (0..found.count).find_map(|place| {
            let rest = found.rest + place * 12;
            let [named, kind, offset] = [home.word(rest)?, home.word(rest + 4)?, home.word(rest + 8)?];
            let (bit, bits) = if found.flag { (offset & 0xff_ffff, offset >> 24) } else { (offset, 0) };
            if home.bytes(named) == name.as_bytes() {
                return Some(Field { bit, bits, kind });
            }
            let inner = if named == 0 { self.member(kind, name, depth - 1) } else { None };
            inner.map(|inner| Field { bit: bit + inner.bit, ..inner })
        })
    }

    fn home(&self, id: u32) -> &Self {
        match &self.base {
            Some(base) if id < self.first_id() => base,
            _ => self,
        }
    }

    fn values_of(&self, id: u32) -> Vec<(String, u32)> {
        let (Some(found), home) = (self.get(id), self.home(id)) else { return Vec::new() };
        let size = if found.kind == kind::ENUM64 { 12 } else { 8 };
        let values = (0..found.count).filter_map(|place| {
            let rest = found.rest + place * size;
            Some((home.text(home.word(rest)?), home.word(rest + 4)?))
        });
        values.collect()
    }

    fn word(&self, place: usize) -> Option<u32> {
        word(&self.types, place)
    }

    fn text(&self, name: u32) -> String {
        String::from_utf8_lossy(self.bytes(name)).into_owned()
    }

    /// A string. Those of a module begin where the kernel's end.
    fn bytes(&self, name: u32) -> &[u8] {
        let place = usize::try_from(name).unwrap_or(usize::MAX);
        let before = self.base.as_ref().map_or(0, |base| base.strings.len());
        let from = match (&self.base, place.checked_sub(before)) {
            (Some(base), None) => return base.bytes(name),
            (_, own) => own.and_then(|own| self.strings.get(own..)).unwrap_or_default(),
        };
        from.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

const fn is_modifier(kind: u32) -> bool {
    matches!(kind, kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG)
}

// === bytes ===

fn read(path: &Path, base: Option<Arc<Btf>>) -> io::Result<Btf> {
    parse(&fs::read(path)?, base).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a BTF description"))
}

fn parse(bytes: &[u8], base: Option<Arc<Btf>>) -> Option<Btf> {
    let magic = u16::from_ne_bytes(*bytes.first_chunk()?);
    let header = place(bytes, 4)?;
    let section = |offset: usize| {
        let from = header.checked_add(place(bytes, offset)?)?;
        bytes.get(from..from.checked_add(place(bytes, offset + 4)?)?)
    };
    let (types, strings) = (section(8)?.to_vec(), section(16)?.to_vec());
    let places = places(&types)?;
    (magic == MAGIC).then_some(Btf { base, types, strings, places })
}

/// Where each type begins.
fn places(types: &[u8]) -> Option<Vec<usize>> {
    let (mut places, mut place) = (Vec::new(), 0);
    while place < types.len() {
        let found = fixed(types, place)?;
        places.push(place);
        place = found.rest + following(&found);
    }
    Some(places)
}

fn fixed(types: &[u8], place: usize) -> Option<Type> {
    let info = word(types, place + 4)?;
    Some(Type {
        name: word(types, place)?,
        kind: info >> 24 & 0x1f,
        count: usize::try_from(info & 0xffff).ok()?,
        flag: info >> 31 != 0,
        next: word(types, place + 8)?,
        rest: place + 12,
    })
}

/// Bytes that follow the fixed part of a type.
const fn following(found: &Type) -> usize {
    match found.kind {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => found.count * 12,
        kind::ENUM | kind::FUNC_PROTO => found.count * 8,
        _ => 0,
    }
}

fn word(bytes: &[u8], place: usize) -> Option<u32> {
    bytes.get(place..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

fn place(bytes: &[u8], offset: usize) -> Option<usize> {
    usize::try_from(word(bytes, offset)?).ok()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, sync::Arc};

    use super::{Btf, parse};

    /// The description a kernel of this machine has of itself; none where it has none.
    fn kernel() -> Option<Arc<Btf>> {
        Path::new("/sys/kernel/btf/vmlinux").exists().then(|| Btf::kernel().unwrap())
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn described(types: &[u32], strings: &[u8]) -> Vec<u8> {
        let types = words(types);
        let (types_length, strings_length) =
            (u32::try_from(types.len()).unwrap(), u32::try_from(strings.len()).unwrap());
        let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        bytes.extend(words(&[24, 0, types_length, types_length, strings_length]));
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    /// `struct a { int x; union { int y; struct b *z; }; unsigned f:3; }; enum e { V = 7 }`
    fn small() -> Arc<Btf> {
        let strings = b"\0a\0x\0y\0z\0f\0e\0V\0int\0";
        let types = [
            &[15, 1 << 24, 4, 0x0100_0020][..],
            &[0, 2 << 24, 3],
            &[1, 0x8000_0000 | 4 << 24 | 3, 24, 3, 1, 0, 0, 4, 64, 9, 1, 3 << 24 | 128],
            &[0, 5 << 24 | 2, 8, 5, 1, 0, 7, 2, 0],
            &[11, 6 << 24 | 1, 4, 13, 7],
        ];
        Arc::new(parse(&described(&types.concat(), strings), None).unwrap())
    }

    #[test]
    fn a_member_of_a_member_without_a_name_is_found_at_its_own_place() {
        let btf = small();
        let place = |name| btf.field(btf.structure("a").unwrap(), &[name]).map(|field| (field.bit, field.bits));
        assert_eq!(place("x"), Some((0, 0)));
        assert_eq!(place("y"), Some((64, 0)));
        assert_eq!(place("f"), Some((128, 3)));
        assert_eq!(place("nothing"), None);
    }

    #[test]
    fn a_module_has_its_own_names_and_values_behind_the_kernels() {
        let kernel = small();
        assert_eq!(kernel.values("e"), [("V".to_owned(), 7)]);
        let base = u32::try_from(kernel.strings.len()).unwrap();
        let types = [base + 1, 6 << 24 | 1, 4, base + 3, 9];
        let module = parse(&described(&types, b"\0m\0OWN\0"), Some(kernel)).unwrap();
        let all: Vec<_> = module.enumerations().collect();
        assert_eq!(all, [("m".to_owned(), vec![("OWN".to_owned(), 9)])]);
        assert_eq!(module.text(11), "e", "a name of the kernel's");
    }

    #[test]
    fn what_is_cut_short_is_refused_and_never_a_panic() {
        let strings = b"\0a\0";
        let whole = described(&[1, 4 << 24 | 1, 4, 1, 0, 0], strings);
        assert!(parse(&whole, None).is_some());
        for length in 0..whole.len() {
            assert!(parse(&whole[..length], None).is_none(), "{length}");
        }
    }

    #[test]
    fn the_running_kernel_says_where_the_device_of_a_packet_is() {
        let Some(kernel) = kernel() else { return };
        let device = kernel.field(kernel.structure("sk_buff").unwrap(), &["dev"]).unwrap();
        assert_eq!((device.bit % 64, device.bits), (0, 0));
        assert!(kernel.field(kernel.structure("net").unwrap(), &["ns", "inum"]).is_some());
        assert!(kernel.values("skb_drop_reason").iter().any(|(name, _)| name == "SKB_DROP_REASON_NO_SOCKET"));
        let size = fs::metadata("/sys/kernel/btf/vmlinux").unwrap().len();
        assert!(u64::try_from(kernel.types.len() + kernel.strings.len()).unwrap() < size);
    }
}
