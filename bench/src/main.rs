//! `cargo xtask bench`: `coracle` beside runc, crun and the bare floor, in one run, written to docs/performance.md.
//!
//! Wall times on a shared machine are noisy, so every row is taken in turns (one round runs each candidate once) and
//! shown as median and minimum; processor time, page faults and system calls are steadier and stand beside them.

mod measure;
mod page;
mod table;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use coracle_integration::{Container, Runtime};

use measure::Sample;
use table::Row;

/// Back to back first, then with a pause in which caches and timers cool down.
const PAUSES: [(&str, Duration, usize); 2] =
    [("back to back", Duration::ZERO, 40), ("250 ms apart", Duration::from_millis(250), 15)];

fn main() -> ExitCode {
    let candidates = candidates();
    let mut rows = Vec::new();
    for (pace, pause, rounds) in PAUSES {
        rows.extend(rows_of("run", pace, pause, rounds, &candidates, run));
        rows.extend(rows_of("create, start, delete", pace, pause, rounds, &candidates, life));
        rows.extend(rows_of("exec", pace, pause, rounds, &candidates, exec));
    }
    for row in &mut rows {
        row.syscalls = syscalls(row, &candidates);
    }
    // xtask measures once more with everything on a tmpfs, for a chapter of its own.
    let text = match std::env::var("CORACLE_BENCH_CHAPTER") {
        Ok(title) => table::chapter(&title, &rows),
        Err(_) => table::head(&rows),
    };
    print!("{text}");
    let before = std::fs::read_to_string("docs/performance.md").unwrap_or_default();
    let text = page::placed(&before, &text);
    match std::fs::create_dir_all("docs").and_then(|()| std::fs::write("docs/performance.md", text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("docs/performance.md: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is compared: the floor where it applies, then the runtimes.
fn candidates() -> Vec<Runtime> {
    let ours = std::env::var("CORACLE").unwrap_or_else(|_| "target/release/coracle".to_owned());
    let ours = std::fs::canonicalize(&ours).unwrap_or_else(|_| ours.into());
    let floor = ours.with_file_name("coracle-floor");
    let named = |path: &Path| Runtime::named(&path.to_string_lossy());
    let all = [named(&floor), named(&ours), Runtime::named("crun"), Runtime::named("runc")];
    all.into_iter().filter(works).collect()
}

/// Whether the candidate runs the bundle here at all; said where it does not.
fn works(runtime: &Runtime) -> bool {
    let container = prepared(runtime, "run");
    let outcome = run(&container).map(measure::measure);
    if let Some(Err(error)) = &outcome {
        eprintln!("{} is left out: {error}", runtime.name);
    }
    matches!(outcome, Some(Ok(_)))
}

fn is_floor(runtime: &Runtime) -> bool {
    runtime.name == "coracle-floor"
}

/// The commands of one operation, in order; None where the candidate has no such operation.
type Operation = fn(&Container) -> Option<Vec<Command>>;

fn run(container: &Container) -> Option<Vec<Command>> {
    if is_floor(&container.runtime) {
        let mut floor = Command::new(&container.runtime.program);
        floor
            .arg(container.bundle.rootfs())
            .arg(&container.id)
            .arg(container.directory().join("record.json"));
        return Some(vec![floor]);
    }
    let bundle = container.bundle.path.to_string_lossy().into_owned();
    Some(vec![container.command(&["run", "--bundle", &bundle, &container.id])])
}

fn life(container: &Container) -> Option<Vec<Command>> {
    if is_floor(&container.runtime) {
        return None;
    }
    let bundle = container.bundle.path.to_string_lossy().into_owned();
    Some(vec![
        container.command(&["create", "--bundle", &bundle, &container.id]),
        container.command(&["start", &container.id]),
        container.command(&["delete", "--force", &container.id]),
    ])
}

fn exec(container: &Container) -> Option<Vec<Command>> {
    (!is_floor(&container.runtime)).then(|| vec![container.command(&["exec", &container.id, "/bin/true"])])
}

/// A container on which the operation can be repeated.
fn prepared(runtime: &Runtime, name: &str) -> Container {
    match name {
        "exec" if !is_floor(runtime) => Container::sleeping(runtime, |_| {}),
        _ => Container::edited(runtime, |bundle| {
            bundle.args(&["/bin/true"]);
        }),
    }
}

fn rows_of(
    name: &'static str,
    pace: &'static str,
    pause: Duration,
    rounds: usize,
    candidates: &[Runtime],
    operation: Operation,
) -> Vec<Row> {
    let containers: Vec<Container> = candidates.iter().map(|runtime| prepared(runtime, name)).collect();
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); candidates.len()];
    for round in 0..rounds + 2 {
        for (container, samples) in containers.iter().zip(&mut samples) {
            measure::pause(pause);
            let Some(commands) = operation(container) else { continue };
            match measure::measure(commands) {
                // The first two rounds warm caches.
                Ok(sample) if round >= 2 => samples.push(sample),
                Ok(_) => {}
                Err(error) => eprintln!("{name}: {}: {error}", container.runtime.name),
            }
        }
    }
    let rows = candidates.iter().zip(samples).filter(|(_, samples)| !samples.is_empty());
    rows.map(|(runtime, samples)| Row {
        operation: name,
        pace,
        runtime: runtime.name.clone(),
        samples,
        syscalls: None,
    })
    .collect()
}

/// System calls of one operation, all its processes together.
fn syscalls(row: &Row, candidates: &[Runtime]) -> Option<u64> {
    let runtime = candidates.iter().find(|runtime| runtime.name == row.runtime)?;
    let operation: Operation = match row.operation {
        "run" => run,
        "exec" => exec,
        _ => life,
    };
    let container = prepared(runtime, row.operation);
    let summary = container.directory().join("strace");
    let mut total = 0;
    for command in operation(&container)? {
        let mut traced = Command::new("strace");
        // A created container lives on; the trace must not wait for it.
        traced.args(["-f", "-c", "-o"]).arg(&summary).arg(command.get_program()).args(command.get_args());
        traced.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if row.operation == "create, start, delete" {
            return None;
        }
        traced.status().ok()?;
        total += measure::traced_total(&std::fs::read_to_string(&summary).ok()?)?;
    }
    Some(total)
}
