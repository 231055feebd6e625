//! What the command line says of packets: options and an expression, made into one expression.

use netdiag_model::live::filter::{Wanted, parse};

use crate::{cli::live, exit::Bad};

/// What is wanted: one of what each option was given, and all of that.
pub(crate) fn read(asked: &live::Wanted) -> anyhow::Result<Wanted> {
    let live::Wanted { ip, from_ip, to_ip, port, from_port, to_port, proto, expression } = asked;
    let options = [
        ("--ip", "", "net", ip),
        ("--from-ip", "src ", "net", from_ip),
        ("--to-ip", "dst ", "net", to_ip),
        ("--port", "", "port", port),
        ("--from-port", "src ", "port", from_port),
        ("--to-port", "dst ", "port", to_port),
        ("--proto", "", "proto", proto),
    ];
    let mut all = Wanted::Any;
    for (name, side, kind, values) in options {
        let one: Vec<Wanted> =
            values.iter().map(|value| option(name, (side, kind), value)).collect::<anyhow::Result<_>>()?;
        all = match one.len() {
            0 => all,
            _ => all.and(Wanted::One(one)),
        };
    }
    let text = expression.join(" ");
    let expression = parse(&text).map_err(|mistake| Bad::usage(format!("the expression \"{text}\", {mistake}")))?;
    Ok(all.and(expression))
}

/// One value of an option, said as the expression it stands for.
fn option(name: &str, (side, kind): (&str, &str), value: &str) -> anyhow::Result<Wanted> {
    let one_word = !value.is_empty() && !value.contains(|sign: char| sign.is_whitespace() || "()!&|".contains(sign));
    let text = match kind {
        "port" if value.contains('-') => format!("{side}portrange {value}"),
        "proto" if value == "arp" => value.to_owned(),
        "proto" => format!("proto {}", if value == "icmpv6" { "icmp6" } else { value }),
        kind => format!("{side}{kind} {value}"),
    };
    let wrong = |why: String| Bad::usage(format!("{name} {value:?}: {why}"));
    if !one_word {
        return Err(wrong("one value is wanted".to_owned()));
    }
    parse(&text).map_err(|mistake| wrong(mistake.what))
}

#[cfg(test)]
mod tests {
    use netdiag_model::live::filter::{parse, words};

    use super::read;
    use crate::cli::live::Wanted;

    fn said(asked: &Wanted) -> Vec<String> {
        words(&read(asked).unwrap().compile().unwrap())
    }

    fn list(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn options_must_all_hold_and_of_one_option_any() {
        let asked = Wanted { ip: list(&["10.0.0.2", "10.0.0.3"]), to_port: list(&["443"]), ..Wanted::default() };
        assert_eq!(said(&asked), ["host 10.0.0.2 and dst port 443", "host 10.0.0.3 and dst port 443"]);
    }

    #[test]
    fn an_expression_is_added_to_the_options() {
        let asked = Wanted { proto: list(&["tcp"]), expression: list(&["not", "port", "22"]), ..Wanted::default() };
        assert_eq!(said(&asked), ["tcp and not (port 22)"]);
        assert_eq!(read(&Wanted::default()).unwrap(), parse("").unwrap());
    }

    #[test]
    fn a_mistake_names_its_option() {
        for (asked, says) in [
            (Wanted { ip: list(&["web-1"]), ..Wanted::default() }, "--ip \"web-1\""),
            (Wanted { port: list(&["9-1"]), ..Wanted::default() }, "--port \"9-1\""),
            (Wanted { proto: list(&["tcp or udp"]), ..Wanted::default() }, "--proto \"tcp or udp\""),
            (Wanted { expression: list(&["foo"]), ..Wanted::default() }, "column 1"),
        ] {
            let error = read(&asked).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
