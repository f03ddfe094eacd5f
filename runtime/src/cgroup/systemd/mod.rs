//! systemd as the maker and remover of groups, over D-Bus: scopes around a process, their limits, their end.
//!
//! A scope has two calls in its life, `StartTransientUnit` and `StopUnit`; each starts a job, whose end is a signal. The
//! manager of the system is reached over the system bus, or over its own socket where no bus runs; a user's over the
//! user's bus. There is no connection longer than one command: nothing to watch, nothing to reconnect.

mod connection;
mod message;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use connection::{Connection, Refusal, refused};
use message::{Call, Received, Writer};

use super::Error;
use super::scope::{ScopePlan, Value};

const NAME: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";
/// systemd itself, without a bus; for root only.
const PRIVATE: &str = "unix:path=/run/systemd/private";

/// A container's unit and who manages it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) name: String,
    user: bool,
}

impl Unit {
    /// The unit that makes the groups `paths`: the user's where they lie below a user's manager, where no unit of the
    /// system's manager can be.
    pub(super) fn of(name: &str, paths: &BTreeMap<String, PathBuf>) -> Self {
        let is_manager = |part: &std::ffi::OsStr| {
            part.to_str().is_some_and(|part| part.starts_with("user@") && part.ends_with(".service"))
        };
        let user = paths.values().any(|path| path.iter().any(is_manager));
        Self { name: name.to_owned(), user }
    }

    pub(super) fn start(&self, plan: &ScopePlan, pid: i32) -> Result<(), Error> {
        Manager::connect(self.user)?.start_scope(plan, pid)
    }

    pub(super) fn stop(&self) -> Result<(), Error> {
        Manager::connect(self.user)?.stop(&self.name)
    }

    pub(super) fn set(&self, properties: &[(String, Value)]) -> Result<(), Error> {
        if properties.is_empty() {
            Ok(())
        } else {
            Manager::connect(self.user)?.set_properties(&self.name, properties)
        }
    }

    pub(super) fn attach(&self, pid: i32) -> Result<(), Error> {
        Manager::connect(self.user)?.attach(&self.name, pid)
    }
}

/// The group that the user's manager makes its units below.
pub(super) fn user_control_group() -> Result<PathBuf, Error> {
    let group = Manager::connect(true)?.control_group()?;
    Ok(group.strip_prefix("/").map(Path::to_owned).unwrap_or(group))
}

/// A connection to a manager.
#[derive(Debug)]
struct Manager {
    connection: Connection,
    /// Empty on systemd's own socket.
    destination: &'static str,
}

impl Manager {
    /// The system's manager, or the user's.
    fn connect(user: bool) -> Result<Self, Error> {
        if user {
            return Self::over_bus(&user_bus()?);
        }
        let bus = std::env::var("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(|_| SYSTEM_BUS.to_owned());
        Self::over_bus(&bus).or_else(|error| {
            let connection = Connection::open(PRIVATE).map_err(|_| error)?;
            Ok(Self { connection, destination: "" })
        })
    }

    fn over_bus(address: &str) -> Result<Self, Error> {
        let mut connection = Connection::open(address)?;
        let hello = Call {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member: "Hello",
            signature: "",
            flags: 0,
        };
        accepted("Hello", connection.call(hello, &[])?)?;
        let mut rule = Writer::default();
        rule.text(&format!("type='signal',sender='{NAME}',interface='{MANAGER}',member='JobRemoved'"));
        // The bus handles our messages in order: the match holds before any later call arrives.
        connection.tell(Call { member: "AddMatch", signature: "s", ..hello }, &rule.bytes)?;
        Ok(Self { connection, destination: NAME })
    }

    /// Makes the scope with `pid` in it. What an earlier scope of that name left is cleared first.
    fn start_scope(&mut self, plan: &ScopePlan, pid: i32) -> Result<(), Error> {
        let mut properties = plan.properties.clone();
        // A slice is made empty.
        if !plan.is_slice() {
            properties.push(("PIDs".to_owned(), Value::Numbers(vec![pid.unsigned_abs()])));
        }
        let mut body = Writer::default();
        body.text(&plan.unit);
        body.text("replace");
        body.properties(&properties);
        body.array(8, |_| {});
        let call = self.manager("StartTransientUnit", "ssa(sv)a(sa(sv))");
        let mut answer = self.connection.call(call, &body.bytes)?;
        if answer.as_ref().is_err_and(|refusal| refusal.name.ends_with(".UnitExists")) {
            self.reset_failed(&plan.unit)?;
            answer =
                self.connection.call(self.manager("StartTransientUnit", "ssa(sv)a(sa(sv))"), &body.bytes)?;
        }
        let job = job(&accepted("StartTransientUnit", answer)?)?;
        match self.job_result(&job)?.as_str() {
            "done" => Ok(()),
            result => Err(refused(&format!("start {}", plan.unit), &format!("the job ended as {result}"))),
        }
    }

    /// Stops the unit and forgets how it ended; a unit that is gone is fine.
    fn stop(&mut self, unit: &str) -> Result<(), Error> {
        let mut body = Writer::default();
        body.text(unit);
        body.text("replace");
        match self.connection.call(self.manager("StopUnit", "ss"), &body.bytes)? {
            Ok(answer) => drop(self.job_result(&job(&answer)?)?),
            Err(refusal) if refusal.name.ends_with(".NoSuchUnit") => return Ok(()),
            Err(refusal) => return accepted("StopUnit", Err(refusal)).map(drop),
        }
        self.reset_failed(unit)
    }

    /// Changes limits until the unit's end.
    fn set_properties(&mut self, unit: &str, properties: &[(String, Value)]) -> Result<(), Error> {
        let mut body = Writer::default();
        body.text(unit);
        body.u32(1);
        body.properties(properties);
        let answer = self.connection.call(self.manager("SetUnitProperties", "sba(sv)"), &body.bytes)?;
        accepted("SetUnitProperties", answer).map(drop)
    }

    /// Moves a process that only the manager may move: between groups of a user's session and of its manager.
    fn attach(&mut self, unit: &str, pid: i32) -> Result<(), Error> {
        let mut body = Writer::default();
        body.text(unit);
        body.text("");
        body.array(4, |array| array.u32(pid.unsigned_abs()));
        let answer = self.connection.call(self.manager("AttachProcessesToUnit", "ssau"), &body.bytes)?;
        accepted("AttachProcessesToUnit", answer).map(drop)
    }

    /// The group that the manager's own units lie below.
    fn control_group(&mut self) -> Result<PathBuf, Error> {
        let mut body = Writer::default();
        body.text(MANAGER);
        body.text("ControlGroup");
        let call = Call {
            interface: "org.freedesktop.DBus.Properties",
            signature: "ss",
            ..self.manager("Get", "ss")
        };
        let answer = accepted("Get ControlGroup", self.connection.call(call, &body.bytes)?)?;
        let mut reader = answer.reader();
        let text =
            reader.signature().and_then(|_| reader.text()).map_err(|e| refused("Get ControlGroup", &e))?;
        Ok(Path::new(&text).to_owned())
    }

    fn reset_failed(&mut self, unit: &str) -> Result<(), Error> {
        let mut body = Writer::default();
        body.text(unit);
        // It is refused for a unit that has not failed and so is gone.
        self.connection.call(self.manager("ResetFailedUnit", "s"), &body.bytes).map(drop)
    }

    fn job_result(&mut self, job: &str) -> Result<String, Error> {
        self.connection.signal(&format!("wait for {job}"), |signal| {
            let mut reader = signal.reader();
            let removed = signal.member == "JobRemoved"
                && reader.u32().is_ok()
                && reader.text().is_ok_and(|p| p == job);
            // Then the unit and the result.
            (removed && reader.text().is_ok()).then(|| reader.text().ok()).flatten()
        })
    }

    const fn manager<'a>(&self, member: &'a str, signature: &'a str) -> Call<'a> {
        Call { destination: self.destination, path: OBJECT, interface: MANAGER, member, signature, flags: 0 }
    }
}

fn accepted(call: &str, answer: Result<Received, Refusal>) -> Result<Received, Error> {
    answer.map_err(|refusal| {
        let text = if refusal.text.is_empty() { refusal.name } else { refusal.text };
        refused(call, &text)
    })
}

/// The path of the job that a call started.
fn job(answer: &Received) -> Result<String, Error> {
    answer.reader().text().map_err(|error| refused("read the job's path", &error))
}

/// The address of the user's bus, as sd-bus finds it.
fn user_bus() -> Result<String, Error> {
    if let Ok(address) = std::env::var("DBUS_SESSION_BUS_ADDRESS")
        && !address.is_empty()
    {
        return Ok(address);
    }
    let directory = std::env::var("XDG_RUNTIME_DIR").ok().filter(|directory| !directory.is_empty());
    let directory = directory.unwrap_or_else(|| format!("/run/user/{}", rustix::process::geteuid().as_raw()));
    let bus = Path::new(&directory).join("bus");
    if bus.exists() {
        return Ok(format!("unix:path={}", bus.display()));
    }
    let missing = "no user bus: neither DBUS_SESSION_BUS_ADDRESS nor a bus in XDG_RUNTIME_DIR";
    Err(refused("connect to the user's manager", &missing))
}
