//! The help texts, rendered from the tables in the layout of runc's.

use super::context::GLOBAL_FLAGS;
use super::flags::{Flag, FlagKind};
use super::{VERBS, Verb};

/// The help of the program.
#[must_use]
pub fn app(program: &str) -> String {
    let name = base(program);
    let width = VERBS.iter().map(|verb| verb.name.len()).max().unwrap_or(0);
    let verbs: String =
        VERBS.iter().map(|verb| format!("   {:<width$}  {}\n", verb.name, verb.usage)).collect();
    format!(
        "NAME:\n   {name} - Open Container Initiative runtime\n\n\
         {name} is a command line client for running applications packaged according to\n\
         the Open Container Initiative (OCI) format. A bundle for a container is a directory\n\
         that includes a specification file named \"config.json\" and a root filesystem.\n\n\
         To start a new instance of a container:\n\n    # {name} run [ -b bundle ] <container-id>\n\n\
         USAGE:\n   {name} [global options] command [command options] [arguments...]\n\n\
         VERSION:\n   {version}\n\nCOMMANDS:\n{verbs}   {help:<width$}  Shows a list of commands or help for one command\n\n\
         GLOBAL OPTIONS:\n{flags}   --help, -h  show help\n",
        version = env!("CARGO_PKG_VERSION"),
        help = "help, h",
        flags = options(GLOBAL_FLAGS),
    )
}

/// The help of one verb.
#[must_use]
pub fn verb(program: &str, verb: &Verb) -> String {
    let name = base(program);
    let mut text =
        format!("NAME:\n   {name} {} - {}\n\nUSAGE:\n   {name} {}", verb.name, verb.usage, verb.name);
    if !verb.flags.is_empty() {
        text.push_str(" [command options]");
    }
    if !verb.arguments.is_empty() {
        text.push(' ');
        text.push_str(verb.arguments);
    }
    text.push('\n');
    if !verb.description.is_empty() {
        text.push_str("\nDESCRIPTION:\n   ");
        text.push_str(verb.description);
        text.push('\n');
    }
    if !verb.flags.is_empty() {
        text.push_str("\nOPTIONS:\n");
        text.push_str(&options(verb.flags));
    }
    text
}

fn options(flags: &[Flag]) -> String {
    let heads: Vec<String> = flags.iter().map(head).collect();
    let width = heads.iter().map(String::len).max().unwrap_or(0);
    flags
        .iter()
        .zip(&heads)
        .map(|(flag, head)| {
            let default = flag.default.map(|value| format!(" (default: {value})")).unwrap_or_default();
            format!("   {head:<width$}  {}{default}\n", flag.help)
        })
        .collect()
}

/// `--bundle value, -b value`.
fn head(flag: &Flag) -> String {
    let value = if flag.kind == FlagKind::Switch { "" } else { " value" };
    let named =
        |name: &&str| if name.len() == 1 { format!("-{name}{value}") } else { format!("--{name}{value}") };
    flag.names.iter().map(named).collect::<Vec<_>>().join(", ")
}

fn base(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}
