//! `create`, and the request that it shares with `run`.

use std::path::{Path, PathBuf};

use super::context::absolute;
use super::flags::{Flag, FlagKind, Parsed};
use super::notify::Notify;
use super::{Arity, Context, Error, Verb, delete};
use crate::launch::{self, CreateRequest, Stdio};
use crate::{spec, state};

pub const BUNDLE: Flag = Flag::new(
    &["bundle", "b"],
    FlagKind::Text,
    "path to the root of the bundle directory, defaults to the current directory",
);
pub const CONSOLE_SOCKET: Flag = Flag::new(
    &["console-socket"],
    FlagKind::Text,
    "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's pseudoterminal",
);
pub const PIDFD_SOCKET: Flag = Flag::new(
    &["pidfd-socket"],
    FlagKind::Text,
    "path to an AF_UNIX socket which will receive a file descriptor referencing the process",
);
pub const PID_FILE: Flag =
    Flag::new(&["pid-file"], FlagKind::Text, "specify the file to write the process id to");
pub const NO_PIVOT: Flag = Flag::new(
    &["no-pivot"],
    FlagKind::Switch,
    "do not use pivot root to jail process inside rootfs.  This should be used whenever the rootfs is on top of a ramdisk",
);
pub const NO_NEW_KEYRING: Flag = Flag::new(
    &["no-new-keyring"],
    FlagKind::Switch,
    "do not create a new session keyring for the container.  This will cause the container to inherit the calling processes session key",
);
pub const PRESERVE_FDS: Flag = Flag {
    names: &["preserve-fds"],
    kind: FlagKind::Int,
    help: "Pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)",
    default: Some("0"),
};

pub const VERB: Verb = Verb {
    name: "create",
    usage: "create a container",
    arguments: "<container-id>\n\nWhere \"<container-id>\" is your name for the instance of the container that you\nare starting. The name you provide for the container instance must be unique on\nyour host.",
    description: "The create command creates an instance of a container for a bundle. The bundle\nis a directory with a specification file named \"config.json\" and a root\nfilesystem.",
    flags: &[BUNDLE, CONSOLE_SOCKET, PIDFD_SOCKET, PID_FILE, NO_PIVOT, NO_NEW_KEYRING, PRESERVE_FDS],
    arity: Arity::Exactly(1),
    reorders: true,
    enters: true,
    failure: 1,
    run,
};

fn run(context: &Context, words: &Parsed) -> Result<u8, Error> {
    let create = || {
        let request = prepare(context, words, false)?;
        launch::create(&request)?;
        Ok(0)
    };
    create().map_err(|error: Error| error.in_verb(format!("{} create", context.name)))
}

/// Loads and validates the bundle and makes the request; reclaims what an interrupted create of the same id left.
pub fn prepare(context: &Context, words: &Parsed, foreground: bool) -> Result<CreateRequest, Error> {
    let id = words.args.first().map_or("", String::as_str);
    let pid_file = words.text("pid-file").map(|path| absolute(Path::new(path))).transpose()?;
    let bundle = enter_bundle(words.text("bundle"))?;
    let loaded = spec::load(&bundle)?;
    if id.is_empty() {
        return Err(Error::Usage("container id cannot be empty".to_owned()));
    }
    state::validate_id(id)?;
    let mut spec = loaded.spec;
    let report = spec::validate(&spec, &spec::Facts::gather(&bundle, context.rootless)).with(loaded.warnings);
    accept(context, &report)?;
    check_terminal(&spec, words.text("console-socket"), !foreground)?;
    let preserve_fds = preserve_fds(words, launch::listen_fds())?;
    delete::reclaim_half_created(context, id)?;
    if let Some(notify) = Notify::wanted(context, id) {
        notify.prepare(&mut spec)?;
    }
    crate::fault::point("create.request")?;
    Ok(CreateRequest {
        id: id.to_owned(),
        bundle,
        spec,
        root: context.root.clone(),
        cgroup_driver: context.driver(),
        console_socket: words.text("console-socket").map(PathBuf::from),
        pid_file,
        pidfd_socket: words.text("pidfd-socket").map(PathBuf::from),
        preserve_fds,
        no_pivot: words.is_on("no-pivot"),
        no_new_keyring: words.is_on("no-new-keyring"),
        rootless: context.rootless,
        foreground,
        stdio: Stdio::Inherit,
    })
}

/// The bundle becomes the working directory, as with runc: its callers give socket paths relative to it.
fn enter_bundle(given: Option<&str>) -> Result<PathBuf, Error> {
    if let Some(given) = given {
        std::env::set_current_dir(given).map_err(Error::io("chdir", given))?;
    }
    std::env::current_dir().map_err(Error::io("getcwd", "."))
}

/// Problems refuse the bundle, all of them at once; warnings are logged, and refuse it with `--strict`.
fn accept(context: &Context, report: &spec::Report) -> Result<(), Error> {
    if !report.problems.is_empty() || (context.strict && !report.warnings.is_empty()) {
        let mut all = report.problems.clone();
        if context.strict {
            all.extend(report.warnings.iter().cloned());
        }
        return Err(spec::Error::Invalid(all).into());
    }
    for warning in &report.warnings {
        context.log.warn(&warning.to_string());
    }
    Ok(())
}

fn check_terminal(
    spec: &oci_spec::runtime::Spec,
    console_socket: Option<&str>,
    detach: bool,
) -> Result<(), Error> {
    let terminal = spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal).unwrap_or(false);
    terminal_rule(terminal, console_socket.is_some(), detach)
}

/// Who takes the terminal's master: the foreground command, or the socket's other end.
pub fn terminal_rule(terminal: bool, console_socket: bool, detach: bool) -> Result<(), Error> {
    let text = match (detach, terminal, console_socket) {
        (true, true, false) => "cannot allocate tty if runc will detach without setting console socket",
        (false, _, true) | (_, false, true) => {
            "cannot use console socket if runc will not detach or allocate tty"
        }
        (true, true, true) | (_, _, false) => return Ok(()),
    };
    Err(Error::Usage(text.to_owned()))
}

/// Checks that `--preserve-fds` names open descriptors, after those of socket activation.
pub fn preserve_fds(words: &Parsed, inherited: u32) -> Result<u32, Error> {
    let count = words.int("preserve-fds").unwrap_or(0).max(0);
    let count = u32::try_from(count).map_err(|_| Error::Usage("preserve-fds is too large".to_owned()))?;
    for index in 0..count {
        let fd = 3 + inherited + index;
        if std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_err() {
            let text = format!("unable to stat preserved-fd {index} (of {count}): no such file or directory");
            return Err(Error::Usage(text));
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::terminal_rule;

    #[test]
    fn who_takes_the_terminal() {
        for (terminal, socket, detach, good) in [
            (true, true, true, true),
            (true, false, true, false),
            (false, false, true, true),
            (false, true, true, false),
            (true, false, false, true),
            (true, true, false, false),
            (false, false, false, true),
            (false, true, false, false),
        ] {
            assert_eq!(terminal_rule(terminal, socket, detach).is_ok(), good, "{terminal} {socket} {detach}");
        }
    }
}
