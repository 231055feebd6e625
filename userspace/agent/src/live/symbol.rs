//! Names of the kernel's functions by address. Flow: observe.

use std::{fs, io};

/// Where the kernel lists its symbols.
const SYMBOLS: &str = "/proc/kallsyms";

/// Functions by address.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    text: String,
    /// Address, and where the name is in `text`; in the order of addresses.
    functions: Vec<(u64, usize, usize)>,
}

impl Symbols {
    /// Those of the running kernel.
    pub(super) fn read() -> io::Result<Self> {
        Self::parse(fs::read_to_string(SYMBOLS)?)
    }

    fn parse(text: String) -> io::Result<Self> {
        let mut functions = Vec::new();
        let mut from = 0;
        for line in text.split_inclusive('\n') {
            let mut words = line.split_whitespace();
            if let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next())
                && matches!(kind, "t" | "T" | "w" | "W")
                && let Ok(address) = u64::from_str_radix(address, 16)
            {
                let place = from + (name.as_ptr().addr() - line.as_ptr().addr());
                functions.push((address, place, place + name.len()));
            }
            from += line.len();
        }
        if functions.iter().all(|(address, ..)| *address == 0) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the kernel shows no addresses"));
        }
        functions.sort_by_key(|(address, ..)| *address);
        Ok(Self { text, functions })
    }

    /// The function an address is in, with how far in it is.
    pub(super) fn name(&self, address: u64) -> Option<String> {
        let behind = self.functions.partition_point(|(begin, ..)| *begin <= address);
        let (begin, from, to) = *self.functions.get(behind.checked_sub(1)?)?;
        Some(format!("{}+{:#x}", self.text.get(from..to)?, address - begin))
    }
}

#[cfg(test)]
mod tests {
    use super::Symbols;

    #[test]
    fn an_address_is_named_by_the_function_before_it() {
        let text = "ffffffff81000100 T nf_hook_slow\nffffffff81000000 T _stext\nffffffff81000200 d data\n\
                    ffffffffc0000000 t ovs_drop\t[openvswitch]\n";
        let symbols = Symbols::parse(text.to_owned()).unwrap();
        assert_eq!(symbols.name(0xffff_ffff_8100_01cd).as_deref(), Some("nf_hook_slow+0xcd"));
        assert_eq!(symbols.name(0xffff_ffff_8100_0000).as_deref(), Some("_stext+0x0"));
        assert_eq!(symbols.name(0xffff_ffff_c000_0010).as_deref(), Some("ovs_drop+0x10"));
        assert_eq!(symbols.name(1), None);
    }

    #[test]
    fn a_kernel_that_hides_its_addresses_is_an_error_and_not_one_big_function() {
        assert!(Symbols::parse("0000000000000000 T a\n0000000000000000 T b\n".to_owned()).is_err());
    }
}
