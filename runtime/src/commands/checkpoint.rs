//! `checkpoint` and `restore`: refused with a clear error until CRIU is driven.

use super::container::Container;
use super::flags::{Flag, FlagKind, Parsed};
use super::{Arity, Context, Error, Verb};

const UNSUPPORTED: Error =
    Error::Unsupported("checkpoint and restore are not supported by this version of coracle");

const IMAGE: Flag = Flag::new(&["image-path"], FlagKind::Text, "path for saving or loading criu image files");
const WORK: Flag = Flag::new(&["work-path"], FlagKind::Text, "path for saving work files and logs");
const TCP: Flag = Flag::new(&["tcp-established"], FlagKind::Switch, "allow open tcp connections");
const UNIX: Flag = Flag::new(&["ext-unix-sk"], FlagKind::Switch, "allow external unix sockets");
const SHELL: Flag = Flag::new(&["shell-job"], FlagKind::Switch, "allow shell jobs");
const LOCKS: Flag = Flag::new(&["file-locks"], FlagKind::Switch, "handle file locks, for safety");
const EMPTY_NS: Flag =
    Flag::new(&["empty-ns"], FlagKind::List, "create a namespace, but don't restore its properties");
const CGROUPS: Flag =
    Flag::new(&["manage-cgroups-mode"], FlagKind::Text, "cgroups mode: soft|full|strict|ignore");
const LAZY: Flag =
    Flag::new(&["lazy-pages"], FlagKind::Switch, "use userfaultfd to lazily restore memory pages");

pub const CHECKPOINT: Verb = Verb {
    name: "checkpoint",
    usage: "checkpoint a running container (not supported)",
    arguments: "<container-id>",
    description: "",
    flags: &[
        IMAGE,
        WORK,
        TCP,
        UNIX,
        SHELL,
        LOCKS,
        EMPTY_NS,
        CGROUPS,
        LAZY,
        Flag::new(&["parent-path"], FlagKind::Text, "path for previous criu image files in pre-dump"),
        Flag::new(&["leave-running"], FlagKind::Switch, "leave the process running after checkpointing"),
        Flag::new(&["status-fd"], FlagKind::Int, "criu writes \\0 to this FD once lazy-pages is ready"),
        Flag::new(&["page-server"], FlagKind::Text, "ADDRESS:PORT of the page server"),
        Flag::new(&["pre-dump"], FlagKind::Switch, "dump container's memory information only"),
        Flag::new(&["auto-dedup"], FlagKind::Switch, "enable auto deduplication of memory images"),
    ],
    arity: Arity::Exactly(1),
    reorders: true,
    enters: false,
    failure: 1,
    run: checkpoint,
};

pub const RESTORE: Verb = Verb {
    name: "restore",
    usage: "restore a container from a previous checkpoint (not supported)",
    arguments: "<container-id>",
    description: "",
    flags: &[
        IMAGE,
        WORK,
        TCP,
        UNIX,
        SHELL,
        LOCKS,
        EMPTY_NS,
        CGROUPS,
        LAZY,
        Flag::new(&["bundle", "b"], FlagKind::Text, "path to the root of the bundle directory"),
        Flag::new(&["console-socket"], FlagKind::Text, "path to an AF_UNIX socket for the console's master"),
        Flag::new(&["detach", "d"], FlagKind::Switch, "detach from the container's process"),
        Flag::new(&["pid-file"], FlagKind::Text, "specify the file to write the process id to"),
        Flag::new(&["no-subreaper"], FlagKind::Switch, "do not reap reparented processes"),
        Flag::new(&["no-pivot"], FlagKind::Switch, "do not use pivot root"),
        Flag::new(&["auto-dedup"], FlagKind::Switch, "enable auto deduplication of memory images"),
        Flag::new(&["lsm-profile"], FlagKind::Text, "specify an LSM profile to be used during restore"),
        Flag::new(&["lsm-mount-context"], FlagKind::Text, "specify an LSM mount context to be used"),
    ],
    arity: Arity::Exactly(1),
    reorders: true,
    enters: false,
    failure: 1,
    run: refuse,
};

fn refuse(_: &Context, _: &Parsed) -> Result<u8, Error> {
    Err(UNSUPPORTED)
}

fn checkpoint(context: &Context, words: &Parsed) -> Result<u8, Error> {
    Container::load(context, &words.args[0])?;
    Err(UNSUPPORTED)
}
