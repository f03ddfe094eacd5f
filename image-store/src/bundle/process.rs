//! What an image's configuration asks to be run, with what the caller wants otherwise.

use std::path::Path;

use oci_spec::image::ImageConfiguration;

use super::{Error, User, user};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the caller wants otherwise than the image.
#[derive(Debug, Clone, Default)]
pub struct ProcessOptions {
    /// Instead of the image's command; the entry point stays.
    pub args: Vec<String>,
    /// Instead of the image's entry point, which also drops the image's command.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value`, over the image's.
    pub env: Vec<String>,
    /// Instead of the image's user.
    pub user: Option<String>,
    /// Instead of the image's working directory.
    pub cwd: Option<String>,
    /// Whether it gets a terminal.
    pub terminal: bool,
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// The environment.
    pub env: Vec<String>,
    /// Where.
    pub cwd: String,
    /// As whom.
    pub user: User,
    /// With a terminal.
    pub terminal: bool,
    /// How to ask it to stop, as the image has it.
    pub stop_signal: Option<String>,
}

/// Merges configuration and options; the user is looked up in the tree at `rootfs`.
pub fn process(
    config: &ImageConfiguration,
    rootfs: &Path,
    options: &ProcessOptions,
) -> Result<Process, Error> {
    let image = config.config().clone().unwrap_or_default();
    let args = command(image.entrypoint().as_deref(), image.cmd().as_deref(), options);
    if args.is_empty() {
        return Err(Error::NoProgram);
    }
    let wanted = options.user.as_deref().or(image.user().as_deref()).unwrap_or_default();
    let user = user::look_up(rootfs, wanted)?;
    let mut env = vec![PATH.to_owned()];
    if options.terminal {
        env.push("TERM=xterm".into());
    }
    for entry in image.env().iter().flatten().chain(&options.env) {
        set(&mut env, entry);
    }
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home));
    }
    let cwd = options
        .cwd
        .as_deref()
        .or(image.working_dir().as_deref())
        .filter(|cwd| !cwd.is_empty())
        .unwrap_or("/");
    let cwd = if cwd.starts_with('/') { cwd.to_owned() } else { format!("/{cwd}") };
    let stop_signal = image.stop_signal().clone();
    Ok(Process { args, env, cwd, user, terminal: options.terminal, stop_signal })
}

fn command(entrypoint: Option<&[String]>, cmd: Option<&[String]>, options: &ProcessOptions) -> Vec<String> {
    let (head, default) = match &options.entrypoint {
        Some(own) => (own.as_slice(), None),
        None => (entrypoint.unwrap_or_default(), cmd),
    };
    let tail = if options.args.is_empty() { default.unwrap_or_default() } else { &options.args };
    head.iter().chain(tail).cloned().collect()
}

fn set(env: &mut Vec<String>, entry: &str) {
    let Some((name, _)) = entry.split_once('=') else { return };
    let same = |known: &String| known.split_once('=').is_some_and(|(known, _)| known == name);
    match env.iter().position(same) {
        Some(at) => entry.clone_into(&mut env[at]),
        None => env.push(entry.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_point_and_command_combine_like_dockers() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let table = [
            ("/e", "a b", None, "", "/e a b"),
            ("/e", "a b", None, "c", "/e c"),
            ("", "a b", None, "", "a b"),
            ("", "a b", None, "c", "c"),
            ("/e", "a b", Some("/f x"), "", "/f x"),
            ("/e", "a b", Some("/f"), "c", "/f c"),
            ("/e", "a b", Some(""), "c", "c"),
        ];
        for (entrypoint, cmd, own, args, expected) in table {
            let options =
                ProcessOptions { args: words(args), entrypoint: own.map(words), ..ProcessOptions::default() };
            let got = command(Some(&words(entrypoint)), Some(&words(cmd)), &options);
            assert_eq!(got, words(expected), "{entrypoint} {cmd} {own:?} {args}");
        }
    }

    #[test]
    fn the_last_value_of_a_variable_wins() {
        let mut env = vec!["A=1".to_owned(), "B=2".into()];
        set(&mut env, "A=3=4");
        set(&mut env, "nothing");
        assert_eq!(env, ["A=3=4", "B=2"]);
    }
}
