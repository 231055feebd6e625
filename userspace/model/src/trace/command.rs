//! Read-only commands that show by hand what a hop or a finding says.
//!
//! The words come from the host and may be hostile: whatever is not a plain word is quoted for a shell.

use crate::{fact::NameKind, id::NetnsId, inventory::Inventory};

/// A command as an operator would type it to run it in a namespace.
pub(crate) fn in_netns(inventory: &Inventory<'_>, netns: NetnsId, command: &str) -> String {
    if Some(netns) == inventory.host {
        return command.to_owned();
    }
    let Some(namespace) = inventory.namespace(netns) else { return format!("# in {netns}: {command}") };
    let named = namespace.names.iter().filter_map(|name| {
        let file = name.path.strip_prefix("/run/netns/").or_else(|| name.path.strip_prefix("/var/run/netns/"))?;
        // The 64 digits nova-docker names a namespace by are a worse handle than a pid.
        (name.kind == NameKind::Mount).then(|| format!("ip netns exec {} {command}", quote(file)))
    });
    let by_pid = || namespace.processes.first().map(|process| format!("nsenter -n -t {} {command}", process.pid));
    let by_path = || namespace.names.first().map(|name| format!("nsenter --net={} {command}", quote(&name.path)));
    named.into_iter().next().or_else(by_pid).or_else(by_path).unwrap_or_else(|| format!("# in {netns}: {command}"))
}

/// A word for a shell: itself if it is plain, in single quotes otherwise.
pub(crate) fn quote(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn a_hostile_word_cannot_leave_its_quotes() {
        assert_eq!(quote("tap1a2b3c4d-5e"), "tap1a2b3c4d-5e");
        assert_eq!(quote("a; rm -rf /"), "'a; rm -rf /'");
        assert_eq!(quote("it's $(id)"), r"'it'\''s $(id)'");
        assert_eq!(quote(""), "''");
    }
}
