//! `ps`: the container's processes, by `ps` of the host filtered to the container's pids.

use std::io::Write;
use std::process::Command;

use super::container::Container;
use super::flags::{Flag, FlagKind, Parsed};
use super::{Arity, Context, Error, Verb, group};

pub const VERB: Verb = Verb {
    name: "ps",
    usage: "ps displays the processes running inside a container",
    arguments: "<container-id> [ps options]",
    description: "",
    flags: &[Flag {
        names: &["format", "f"],
        kind: FlagKind::Text,
        help: "select one of: table or json",
        default: Some("\"table\""),
    }],
    arity: Arity::AtLeast(1),
    reorders: false,
    enters: false,
    failure: 1,
    run,
};

fn run(context: &Context, words: &Parsed) -> Result<u8, Error> {
    if context.rootless {
        context.log.warn("ps may fail if you don't have the full access to cgroups");
    }
    let container = Container::load(context, &words.args[0])?;
    let pids = group::pids(&container.record).map_err(Error::Group)?;
    let text = match words.text("format").unwrap_or("table") {
        "json" => json(&pids),
        "table" => filter(&ps(&words.args[1..])?, &pids)?,
        _ => return Err(Error::Usage("invalid format option".to_owned())),
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(Error::io("write", "/dev/stdout"))?;
    Ok(0)
}

/// Go prints an absent slice as null.
fn json(pids: &[i32]) -> String {
    let list: Vec<String> = pids.iter().map(ToString::to_string).collect();
    if list.is_empty() { "null\n".to_owned() } else { format!("[{}]\n", list.join(",")) }
}

fn ps(arguments: &[String]) -> Result<String, Error> {
    let mut command = Command::new("ps");
    if arguments.is_empty() {
        command.arg("-ef");
    } else {
        command.args(arguments);
    }
    let output = command.output().map_err(Error::io("exec", "ps"))?;
    if !output.status.success() {
        let code = output.status.code().unwrap_or(-1);
        let said = [output.stdout, output.stderr].concat();
        return Err(Error::Refused(format!("exit status {code}: {}", String::from_utf8_lossy(&said))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The header and the lines whose PID column is one of `pids`.
fn filter(output: &str, pids: &[i32]) -> Result<String, Error> {
    let mut lines = output.lines();
    let header = lines.next().unwrap_or_default();
    let Some(column) = header.split_whitespace().position(|title| title == "PID") else {
        return Err(Error::Refused("couldn't find PID field in ps output".to_owned()));
    };
    let mut text = format!("{header}\n");
    for line in lines.filter(|line| !line.is_empty()) {
        let pid: i32 =
            line.split_whitespace().nth(column).and_then(|field| field.parse().ok()).ok_or_else(|| {
                Error::Refused(format!("unable to parse pid: {}", crate::log::go_quote(line)))
            })?;
        if pids.contains(&pid) {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_containers_lines() {
        let output = "UID   PID CMD\nroot    1 init\nroot   12 sh -c PID\n";
        assert_eq!(filter(output, &[12]).unwrap(), "UID   PID CMD\nroot   12 sh -c PID\n");
        assert!(filter("A B\n", &[]).is_err());
        assert_eq!(json(&[]), "null\n");
        assert_eq!(json(&[1, 2]), "[1,2]\n");
    }
}
