//! Commands to a running server, over a socket that only its owner may open.
//!
//! ```text
//!   ring53 zone status ──> state/control ──> | status\n |   one line
//!                                        <── | {...}    |   JSON, then the end
//! ```

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::timeout;

use crate::wire::Name;

use super::disk::{Disk, Real};
use super::forwarding::cache_control::{self, CacheCommand, CacheControl};
use super::forwarding::inspection::{self, Inspection, Query};
use super::report::{say, tell};
use super::zones::catalogs::Catalogs;
use super::zones::loader::Loader;
use super::zones::transfers::{Keeper, Kept};

/// The name of the socket in the directory of the state.
const SOCKET: &str = "control";
/// Octets of a command.
const COMMAND_LEN_MAX: usize = 2048;
/// How long a command may take to arrive.
const PATIENCE: Duration = Duration::from_secs(5);

/// What can be asked of a running server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// What there is to know of one zone, or of all.
    Status(Option<Name>),
    /// Ask the primaries now.
    Transfer(Name),
    /// Tell who is to be told, although nothing has changed.
    Notify(Name),
    /// Which changes are kept for IXFR.
    Journal(Name),
    /// About the cache.
    Cache(CacheCommand),
    /// What is known of those who are asked for names of others.
    Upstreams,
    /// What is known of a question to them.
    Explain(Query),
}

impl Command {
    fn to_line(&self) -> String {
        match self {
            Command::Status(None) => "status\n".into(),
            Command::Status(Some(name)) => format!("status {name}\n"),
            Command::Transfer(name) => format!("transfer {name}\n"),
            Command::Notify(name) => format!("notify {name}\n"),
            Command::Journal(name) => format!("journal {name}\n"),
            Command::Cache(command) => format!("cache {}\n", command.to_words()),
            Command::Upstreams => "upstreams\n".into(),
            Command::Explain(query) => format!("explain {}\n", query.to_words()),
        }
    }

    fn parse(line: &str) -> Option<Command> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = |word: &str| word.parse::<Name>().ok();
        match words[..] {
            ["status"] => Some(Command::Status(None)),
            ["status", of] => Some(Command::Status(Some(name(of)?))),
            ["transfer", of] => name(of).map(Command::Transfer),
            ["notify", of] => name(of).map(Command::Notify),
            ["journal", of] => name(of).map(Command::Journal),
            ["upstreams"] => Some(Command::Upstreams),
            ["explain", ref words @ ..] => Query::parse(words).map(Command::Explain),
            ["cache", ref words @ ..] => CacheCommand::parse(words).map(Command::Cache),
            _ => None,
        }
    }
}

/// Where commands are taken.
pub fn socket_path(state: &Path) -> PathBuf {
    state.join(SOCKET)
}

//----------- The server's side ----------------------------------------------

/// What commands may change, beside the keeper's zones.
#[derive(Clone, Default)]
pub struct Taken {
    /// `None`: this server has no cache.
    pub cache: Option<Arc<dyn CacheControl>>,
    /// `None`: nor does it resolve.
    pub inspection: Option<Arc<Inspection>>,
}

impl Taken {
    /// Does what takes its time; `None` if the keeper does `command`.
    async fn run(self, command: &Command) -> Option<Value> {
        let done = match command {
            // Looking for names below one takes as long as the cache is large.
            Command::Cache(command) => {
                let command = command.clone();
                spawn_blocking(move || command.run(self.cache.as_deref())).await
            }
            Command::Upstreams | Command::Explain(_) => {
                let Some(inspection) = self.inspection else {
                    return Some(json!({ "error": cache_control::NO_CACHE }));
                };
                let command = command.clone();
                let inspect = move || match command {
                    Command::Explain(query) => inspection.explain(&query),
                    _ => inspection.upstreams(),
                };
                spawn_blocking(inspect).await
            }
            _ => return None,
        };
        Some(done.unwrap_or_else(|_| json!({ "error": "the server is about to stop" })))
    }
}

/// Takes commands from now on; says so if that is not possible.
pub fn listen(state: &Path, keeper: &Rc<Keeper>, taken: Taken) {
    let path = socket_path(state);
    match open(&path) {
        Ok(listener) => {
            spawn_local(accept(listener, Rc::clone(keeper), taken));
        }
        Err(error) => say!("no commands can be given over {}: {error}", path.display()),
    }
}

fn open(path: &Path) -> std::io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        Real.create_directory(directory)?;
    }
    // One that a process left which is no more: the port shows that there is no other.
    if let Err(error) = fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn accept(listener: UnixListener, keeper: Rc<Keeper>, taken: Taken) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(PATIENCE).await;
            continue;
        };
        let (keeper, taken) = (Rc::clone(&keeper), taken.clone());
        spawn_local(async move {
            let mut line = Vec::new();
            let read = async {
                let mut octets = [0; 256];
                while !line.contains(&b'\n') && line.len() < COMMAND_LEN_MAX {
                    match stream.read(&mut octets).await {
                        Ok(count) if count > 0 => line.extend_from_slice(&octets[..count]),
                        _ => break,
                    }
                }
            };
            let _ = timeout(PATIENCE, read).await;
            let answer = match Command::parse(&String::from_utf8_lossy(&line)) {
                Some(command) => {
                    let done = taken.run(&command).await;
                    done.unwrap_or_else(|| keeper.command(&command))
                }
                None => json!({
                    "error": "expected status, transfer, notify, journal, cache, upstreams or \
                              explain"
                }),
            };
            let _ = timeout(PATIENCE, stream.write_all(format!("{answer}\n").as_bytes())).await;
        });
    }
}

//----------- What is done ---------------------------------------------------

/// What there is to know of the catalog `name`, or of the one that lists the zone `name`.
fn catalog(catalogs: &Catalogs, name: &Name) -> (Value, Value) {
    let told = catalogs.tell(name).map(|told| {
        json!({
            "members": told.members,
            "broken": told.broken,
            "ignored": told.refused.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    });
    (told.unwrap_or_default(), catalogs.owner(name).map(ToString::to_string).into())
}

impl Kept {
    fn status(&self, now: Duration, (catalog, member_of): (Value, Value)) -> Value {
        let (config, zone, refresh) =
            (self.config.borrow(), self.zone.borrow(), self.refresh.borrow());
        let seconds = |time: Duration| time.saturating_sub(now).as_secs();
        let state = match (&*zone, self.is_expired.get()) {
            (Some(_), false) => "serving",
            (Some(_), true) => "expired",
            (None, _) => "not loaded",
        };
        json!({
            "zone": config.name.to_string(),
            "role": if refresh.is_some() { "secondary" } else { "primary" },
            "catalog": catalog,
            "member_of": member_of,
            "state": state,
            "serial": zone.as_ref().map(|zone| zone.serial()),
            "names": zone.as_ref().map(|zone| zone.name_count()),
            "names_since_built": zone.as_ref().map(|zone| zone.overlaid_count()),
            "primaries": config.primaries.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "next_seconds": refresh.as_ref().map(|refresh| seconds(refresh.next())),
            "expires_seconds":
                refresh.as_ref().and_then(|refresh| refresh.expires()).map(seconds),
            "last": self.last.borrow().as_deref(),
            "refused": config.check.as_ref().and_then(|check| check.refused(&config.name)),
        })
    }
}

impl Keeper {
    /// Does what somebody on this machine asks for.
    fn command(self: &Rc<Keeper>, command: &Command) -> Value {
        let zones = self.zones.borrow();
        let loader = self.loader.try_lock().ok();
        // While zones are being loaded nobody knows.
        let catalog = |name: &Name| {
            loader.as_ref().map(|loader| catalog(loader.zones.catalogs(), name)).unwrap_or_default()
        };
        let find = |name: &Name| {
            let kept = zones.get(name).cloned();
            kept.ok_or_else(|| json!({ "error": format!("zone {name} is not configured") }))
        };
        let done = match command {
            Command::Status(None) => {
                let mut names: Vec<&Name> = zones.keys().collect();
                names.sort_by_key(|name| name.to_string());
                let all =
                    names.into_iter().map(|name| zones[name].status(self.now(), catalog(name)));
                Ok(json!({ "zones": all.collect::<Vec<_>>() }))
            }
            Command::Status(Some(name)) => {
                let status = |kept: Rc<Kept>| kept.status(self.now(), catalog(name));
                find(name).map(|kept| json!({ "zones": [status(kept)] }))
            }
            Command::Transfer(name) => find(name).and_then(|kept| {
                if kept.refresh.borrow().is_none() {
                    return Err(json!({ "error": format!("zone {name} has no primaries") }));
                }
                self.notified(name, None);
                Ok(json!({ "done": format!("zone {name}: its primaries are asked") }))
            }),
            Command::Notify(name) => find(name).and_then(|kept| self.notify_again(name, &kept)),
            Command::Journal(name) => find(name).map(|_| match &loader {
                Some(loader) => journal(loader, name),
                None => json!({ "error": "zones are being loaded: ask again" }),
            }),
            // They are not the keeper's: `Taken` has them run elsewhere.
            Command::Cache(_) | Command::Upstreams | Command::Explain(_) => {
                Err(json!({ "error": cache_control::NO_CACHE }))
            }
        };
        done.unwrap_or_else(|error| error)
    }

    fn notify_again(self: &Rc<Keeper>, name: &Name, kept: &Kept) -> Result<Value, Value> {
        let Some(zone) = kept.zone.borrow().clone() else {
            return Err(json!({ "error": format!("zone {name} is not loaded") }));
        };
        let count = self.notify_all(kept, &zone);
        Ok(json!({ "done": format!("zone {name}: {count} servers are told") }))
    }
}

fn journal(loader: &Loader, name: &Name) -> Value {
    let journal = loader.zones.journal(name);
    let changes = journal.iter().flat_map(|journal| journal.changes());
    let changes = changes.map(|change| {
        json!({
            "from": change.from,
            "to": change.to,
            "deleted": change.deleted.len(),
            "added": change.added.len(),
        })
    });
    json!({ "changes": changes.collect::<Vec<_>>() })
}

//----------- The command line's side ----------------------------------------

/// Gives `command` to the server whose state is in `state`, and prints what it says.
pub fn give(state: &Path, command: &Command, json: bool) -> Result<ExitCode, String> {
    let answer = ask(state, command)?;
    if json {
        tell!("{answer}");
    } else {
        print(&answer);
    }
    Ok(if answer.get("error").is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Gives `command` to the server whose state is in `state`: what it says.
pub fn ask(state: &Path, command: &Command) -> Result<Value, String> {
    let path = socket_path(state);
    let failed = |error: std::io::Error| {
        format!(
            "{}: {error}: is ring53 running with this configuration, and are you its user?",
            path.display()
        )
    };
    let mut stream = UnixStream::connect(&path).map_err(failed)?;
    stream.write_all(command.to_line().as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    serde_json::from_str(&answer)
        .map_err(|error| format!("{}: an answer that is none: {error}", path.display()))
}

fn print(answer: &Value) {
    if let Some(error) = answer.get("error").and_then(Value::as_str) {
        tell!("{error}");
    }
    if let Some(done) = answer.get("done").and_then(Value::as_str) {
        tell!("{done}");
    }
    if let Some(stats) = answer.get("cache") {
        cache_control::print(stats);
    }
    if let Some(upstreams) = answer.get("upstreams") {
        inspection::upstream_lines(upstreams).iter().for_each(|line| tell!("{line}"));
    }
    for zone in answer.get("zones").and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| zone[key].as_str().unwrap_or("").to_string();
        let serial = zone["serial"].as_u64().map_or("no".into(), |serial| serial.to_string());
        tell!("{}  {}, {}, serial {serial}", text("zone"), text("role"), text("state"));
        if let (Some(next), Some(expires)) =
            (zone["next_seconds"].as_u64(), zone["expires_seconds"].as_u64())
        {
            tell!("    asks its primaries in {next} s, expires in {expires} s");
        }
        if let Some(catalog) = zone["member_of"].as_str() {
            tell!("    a member of the catalog {catalog}");
        }
        if let Some(members) = zone["catalog"]["members"].as_u64() {
            tell!("    a catalog of {members} members");
        }
        if let Some(broken) = zone["catalog"]["broken"].as_str() {
            tell!("    broken: {broken}; its members stay as they are");
        }
        for ignored in zone["catalog"]["ignored"].as_array().into_iter().flatten() {
            tell!("    ignored: {}: the name is taken", ignored.as_str().unwrap_or(""));
        }
        if let Some(last) = zone["last"].as_str() {
            tell!("    {last}");
        }
        if let Some(reason) = zone["refused"].as_str() {
            tell!("    the last new version was refused: {reason}");
        }
    }
    for change in answer.get("changes").and_then(Value::as_array).into_iter().flatten() {
        tell!(
            "{} -> {}: {} records deleted, {} added",
            change["from"],
            change["to"],
            change["deleted"],
            change["added"]
        );
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_back_from_their_lines() {
        let name: Name = "Example.".parse().unwrap();
        for command in [
            Command::Status(None),
            Command::Status(Some(name.clone())),
            Command::Transfer(name.clone()),
            Command::Notify(name.clone()),
            Command::Journal(name.clone()),
            Command::Cache(CacheCommand::FlushName(name.clone())),
            Command::Cache(CacheCommand::FlushBelow(name.clone())),
            Command::Explain(Query { name, qtype: 28, dnssec: true, asks: true }),
            Command::Upstreams,
            Command::Cache(CacheCommand::FlushAll),
            Command::Cache(CacheCommand::Stats),
        ] {
            assert_eq!(Command::parse(&command.to_line()), Some(command));
        }
        let wrong = ["cache", "cache flush", "cache flush a..b", "cache flush-all a", "cache stat"];
        let others =
            ["", "status a b", "transfer", "stop", "transfer a..b", "upstreams a", "explain a"];
        for line in others.into_iter().chain(wrong) {
            assert_eq!(Command::parse(line), None, "{line}");
        }
    }
}
