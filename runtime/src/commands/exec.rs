//! `exec`: another process in a container.

use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Capability, LinuxCapabilities, Process};

use super::container::Container;
use super::context::absolute;
use super::create::{CONSOLE_SOCKET, PID_FILE, PIDFD_SOCKET, PRESERVE_FDS, preserve_fds, terminal_rule};
use super::flags::{Flag, FlagKind, Parsed};
use super::{Arity, Context, Error, Verb};
use crate::launch::{self, ExecRequest, Stdio};
use crate::spec;
use crate::state::Status;

/// A process document is part of a configuration, and bounded like one.
const PROCESS_LIMIT: u64 = spec::CONFIG_LIMIT;

pub const VERB: Verb = Verb {
    name: "exec",
    usage: "execute new process inside the container",
    arguments: "<container-id> <command> [command options]  || -p process.json <container-id>\n\nWhere \"<container-id>\" is the name for the instance of the container and\n\"<command>\" is the command to be executed in the container.\n\"<command>\" can't be empty unless a \"-p\" flag provided.",
    description: "",
    flags: &[
        CONSOLE_SOCKET,
        PIDFD_SOCKET,
        Flag::new(&["cwd"], FlagKind::Text, "current working directory in the container"),
        Flag::new(&["env", "e"], FlagKind::List, "set environment variables"),
        Flag::new(&["tty", "t"], FlagKind::Switch, "allocate a pseudo-TTY"),
        Flag::new(&["user", "u"], FlagKind::Text, "UID (format: <uid>[:<gid>])"),
        Flag::new(&["additional-gids", "g"], FlagKind::List, "additional gids"),
        Flag::new(&["process", "p"], FlagKind::Text, "path to the process.json"),
        Flag::new(&["detach", "d"], FlagKind::Switch, "detach from the container's process"),
        PID_FILE,
        Flag::new(
            &["process-label"],
            FlagKind::Text,
            "set the asm process label for the process commonly used with selinux",
        ),
        Flag::new(&["apparmor"], FlagKind::Text, "set the apparmor profile for the process"),
        Flag::new(&["no-new-privs"], FlagKind::Switch, "set the no new privileges value for the process"),
        Flag::new(&["cap", "c"], FlagKind::List, "add a capability to the bounding set for the process"),
        PRESERVE_FDS,
        Flag::new(
            &["cgroup"],
            FlagKind::List,
            "run the process in an (existing) sub-cgroup(s). Format is [<controller>:]<cgroup>.",
        ),
        Flag::new(&["ignore-paused"], FlagKind::Switch, "allow exec in a paused container"),
    ],
    arity: Arity::AtLeast(1),
    reorders: false,
    enters: true,
    failure: 255,
    run,
};

fn run(context: &Context, words: &Parsed) -> Result<u8, Error> {
    exec(context, words).map_err(|error| error.in_verb("exec"))
}

fn exec(context: &Context, words: &Parsed) -> Result<u8, Error> {
    let pid_file = words.text("pid-file").map(|path| absolute(Path::new(path))).transpose()?;
    let container = Container::load(context, &words.args[0])?;
    check_status(&container, words)?;
    let process = process(&container, words)?;
    let unknown: Vec<&str> =
        words.list("cap").iter().map(String::as_str).filter(|c| spec::capability(c).is_none()).collect();
    if !unknown.is_empty() {
        context.log.warn(&format!("ignoring unknown or unavailable capabilities: [{}]", unknown.join(" ")));
    }
    let detach = words.is_on("detach");
    terminal_rule(process.terminal().unwrap_or(false), words.text("console-socket").is_some(), detach)?;
    check_cgroups(words.list("cgroup"))?;
    let request = ExecRequest {
        id: container.record.id.clone(),
        root: context.root.clone(),
        process,
        cgroup: words.list("cgroup").to_vec(),
        console_socket: words.text("console-socket").map(PathBuf::from),
        pid_file,
        pidfd_socket: words.text("pidfd-socket").map(PathBuf::from),
        preserve_fds: preserve_fds(words, 0)?,
        detach,
        ignore_paused: words.is_on("ignore-paused"),
        rootless: context.rootless,
        stdio: Stdio::Inherit,
    };
    crate::fault::point("exec.request")?;
    let execed = launch::exec(&request)?;
    if detach {
        return Ok(0);
    }
    Ok(launch::wait_foreground(execed.into())?)
}

fn check_status(container: &Container, words: &Parsed) -> Result<(), Error> {
    let text = match container.status()? {
        Status::Stopped => "cannot exec in a stopped container",
        Status::Creating => "cannot exec in a container that is being created",
        Status::Paused if !words.is_on("ignore-paused") => {
            "cannot exec in a paused container (use --ignore-paused to override)"
        }
        Status::Created | Status::Running | Status::Paused => return Ok(()),
    };
    Err(Error::Refused(text.to_owned()))
}

/// The process of `--process`, or the container's own with the flags over it.
fn process(container: &Container, words: &Parsed) -> Result<Process, Error> {
    let process = match words.text("process") {
        Some(path) => read_process(Path::new(path))?,
        None if words.args.len() < 2 => {
            return Err(Error::Usage("process args cannot be empty".to_owned()));
        }
        None => {
            let own = container.record.spec.process().clone();
            merge(own.ok_or_else(|| Error::Usage("process property must not be empty".to_owned()))?, words)?
        }
    };
    spec::validate_process(&process)?;
    Ok(process)
}

fn read_process(path: &Path) -> Result<Process, Error> {
    let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
    let mut bytes = Vec::new();
    file.take(PROCESS_LIMIT + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > PROCESS_LIMIT {
        return Err(Error::Usage(format!("{}: larger than {PROCESS_LIMIT} bytes", path.display())));
    }
    spec::parse_process(&bytes).map_err(|source| Error::Json { path: path.to_owned(), source })
}

fn merge(mut process: Process, words: &Parsed) -> Result<Process, Error> {
    process.set_args(Some(words.args[1..].to_vec()));
    if let Some(cwd) = words.text("cwd") {
        process.set_cwd(cwd.into());
    }
    if let Some(profile) = words.text("apparmor") {
        process.set_apparmor_profile(Some(profile.to_owned()));
    }
    if let Some(label) = words.text("process-label") {
        process.set_selinux_label(Some(label.to_owned()));
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend_from_slice(words.list("env"));
    process.set_env(Some(env));
    process.set_terminal(Some(words.is_on("tty")));
    if words.is_set("no-new-privs") {
        process.set_no_new_privileges(Some(words.is_on("no-new-privs")));
    }
    add_capabilities(&mut process, words.list("cap"));
    set_user(&mut process, words)?;
    Ok(process)
}

/// Unknown ones are left out, with a warning by the caller. As runc 1.2 and later: ambient only where the inheritable set is configured, since the kernel demands both.
fn add_capabilities(process: &mut Process, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let added: Vec<Capability> = names.iter().filter_map(|name| spec::capability(name)).collect();
    let mut all = process.capabilities().clone().unwrap_or_else(no_capabilities);
    let with = |set: &Option<oci_spec::runtime::Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend(added.iter().copied());
        Some(set)
    };
    all.set_bounding(with(all.bounding()));
    all.set_effective(with(all.effective()));
    all.set_permitted(with(all.permitted()));
    if all.inheritable().as_ref().is_some_and(|set| !set.is_empty()) {
        all.set_ambient(with(all.ambient()));
    }
    process.set_capabilities(Some(all));
}

/// The crate's default is a set of some capabilities, not of none.
fn no_capabilities() -> LinuxCapabilities {
    let mut none = LinuxCapabilities::default();
    none.set_bounding(None).set_effective(None).set_permitted(None).set_inheritable(None).set_ambient(None);
    none
}

fn set_user(process: &mut Process, words: &Parsed) -> Result<(), Error> {
    let mut user = process.user().clone();
    if let Some(text) = words.text("user") {
        let (uid, gid) = text.split_once(':').map_or((text, None), |(uid, gid)| (uid, Some(gid)));
        user.set_uid(parse_id("uid", uid)?);
        if let Some(gid) = gid {
            user.set_gid(parse_id("gid", gid)?);
        }
    }
    let mut gids = user.additional_gids().clone().unwrap_or_default();
    for text in words.list("additional-gids").iter().flat_map(|list| list.split(',')) {
        gids.push(parse_id("additional-gids", text)?);
    }
    if !gids.is_empty() {
        user.set_additional_gids(Some(gids));
    }
    process.set_user(user);
    Ok(())
}

fn parse_id(what: &str, text: &str) -> Result<u32, Error> {
    text.trim().parse().map_err(|_| {
        let quoted = crate::log::go_quote(text);
        Error::Usage(format!("bad {what}: strconv.Atoi: parsing {quoted}: invalid syntax"))
    })
}

/// `path` alone (v2), or `controller[,controller]:path` repeated (v1).
fn check_cgroups(list: &[String]) -> Result<(), Error> {
    let mut seen = Vec::new();
    for entry in list {
        match entry.split_once(':') {
            None if list.len() > 1 => {
                let text = format!("invalid --cgroup argument: {entry} (missing <controller>: prefix)");
                return Err(Error::Usage(text));
            }
            None => {}
            Some((controllers, _)) => {
                for controller in controllers.split(',') {
                    check_controller(entry, controller, &mut seen)?;
                }
            }
        }
    }
    Ok(())
}

fn check_controller<'a>(entry: &str, controller: &'a str, seen: &mut Vec<&'a str>) -> Result<(), Error> {
    if controller.is_empty() {
        let text = format!("invalid --cgroup argument: {entry} (empty <controller> prefix)");
        return Err(Error::Usage(text));
    }
    if seen.contains(&controller) {
        let text = format!("invalid --cgroup argument(s): controller {controller} specified multiple times");
        return Err(Error::Usage(text));
    }
    seen.push(controller);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::flags;

    fn merged(line: &str) -> Result<Process, String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let parsed = flags::parse(VERB.flags, &words).map_err(|e| e.to_string())?;
        let mut process = Process::default();
        process.set_capabilities(None).set_env(Some(vec!["A=1".to_owned()]));
        merge(process, &parsed).map_err(|e| e.to_string())
    }

    #[test]
    fn flags_lie_over_the_containers_process() {
        let process = merged("-u 1:2 -g 5 -g 6 --cwd /x -e B=2 -t --cap CAP_KILL c1 ls -l").unwrap();
        assert_eq!(process.args().as_deref().unwrap(), ["ls", "-l"]);
        assert_eq!((process.user().uid(), process.user().gid()), (1, 2));
        assert_eq!(process.user().additional_gids().as_deref().unwrap(), [5, 6]);
        assert_eq!(process.env().as_deref().unwrap(), ["A=1", "B=2"]);
        assert_eq!(process.terminal(), Some(true));
        let caps = process.capabilities().clone().unwrap();
        assert!(caps.bounding().as_ref().unwrap().contains(&Capability::Kill));
        assert!(caps.ambient().is_none());
        assert!(merged("-u x c1 ls").unwrap_err().starts_with("bad uid"));
    }

    #[test]
    fn cgroup_arguments() {
        let check =
            |list: &[&str]| check_cgroups(&list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).is_ok();
        assert!(check(&["sub"]));
        assert!(check(&["cpu,memory:a", "pids:b"]));
        assert!(!check(&["a", "b"]));
        assert!(!check(&[":a"]));
        assert!(!check(&["cpu:a", "cpu:b"]));
    }
}
