//! The zones that a mix is made of or verified with: from files, from a shape, from a server.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ring53::limits::TRANSFER_OCTETS_DEFAULT;
use ring53::transfer::incoming::{Brought, Incoming, Request, request};
use ring53::wire::Name;
use ring53::zone::{HashKey, LoadOptions, Loaded, Severity, Source, SourceText, Text, Zone, load};

use crate::zones::{self, HOSTING_ZONES, Shape};

/// How long a primary may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The key of all zones here: they are asked in process, where nobody attacks the tables.
pub fn key() -> HashKey {
    HashKey::new(*b"of a mix, fixed.")
}

fn options() -> LoadOptions {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    LoadOptions::new(key(), threads)
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// The zone, or the first of what is wrong with it.
fn built(loaded: Loaded, what: &str) -> io::Result<Arc<Zone>> {
    let Loaded { zone, diagnostics } = loaded;
    zone.map(Arc::new).ok_or_else(|| {
        let errors = diagnostics.iter().filter(|found| found.severity == Severity::Error);
        let errors: Vec<String> = errors.take(3).map(ToString::to_string).collect();
        invalid(format!("{what} is no zone that can be served: {}", errors.join("; ")))
    })
}

//----------- Files ----------------------------------------------------------

struct Disk;

impl Source for Disk {
    fn read(&self, path: &str, included_from: Option<&str>) -> Result<SourceText, String> {
        let beside = included_from.and_then(|from| Path::new(from).parent());
        let path = beside.unwrap_or(Path::new("")).join(path);
        let octets = std::fs::read(&path)
            .map_err(|error| format!("a readable file, but {}: {error}", path.display()))?;
        Ok(SourceText { name: path.display().to_string(), text: Text::Bytes(octets) })
    }
}

/// Reads a zone file.
pub fn from_file(apex: &Name, path: &Path) -> io::Result<Arc<Zone>> {
    let text = path.display().to_string();
    built(load(apex, &text, &Disk, &options()), &text)
}

//----------- Shapes ---------------------------------------------------------

struct Written(Vec<u8>);

impl Source for Written {
    fn read(&self, path: &str, _: Option<&str>) -> Result<SourceText, String> {
        Ok(SourceText { name: path.into(), text: Text::Bytes(self.0.clone()) })
    }
}

/// Writes the zones of a shape to memory and reads them.
pub fn of_shape(shape: Shape, names: u64) -> io::Result<Vec<Arc<Zone>>> {
    if shape.wants_signatures() {
        return Err(invalid(
            "a signed shape is signed by a tool: sign the hosts, then say --zone FILE --do 1"
                .into(),
        ));
    }
    let read = |apex: &str, text: Vec<u8>| {
        let apex: Name = apex.parse().map_err(io::Error::other)?;
        built(load(&apex, "zone", &Written(text), &options()), "the shape")
    };
    let mut text = Vec::new();
    if shape != Shape::Hosting {
        zones::write_one(shape, names, &mut text)?;
        return Ok(vec![read(zones::apex(shape), text)?]);
    }
    let one = |zone| {
        let mut text = Vec::new();
        zones::write_hosting(zone, names, &mut text)?;
        read(&format!("z{zone}.test."), text)
    };
    (0..HOSTING_ZONES).map(one).collect()
}

//----------- Servers --------------------------------------------------------

/// Takes a zone by AXFR.
pub fn from_server(apex: &Name, server: SocketAddr) -> io::Result<Arc<Zone>> {
    let wrong = |what: &dyn std::fmt::Display| invalid(format!("{server} {what} (AXFR of {apex})"));
    let options = options();
    let asked = Request { id: 53, serial: None, octets_max: TRANSFER_OCTETS_DEFAULT };
    let query = request(asked.id, apex, None);
    let mut stream = TcpStream::connect_timeout(&server, SILENCE_MAX)
        .map_err(|error| io::Error::new(error.kind(), format!("{server}: {error}")))?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.write_all(&[&(query.len() as u16).to_be_bytes()[..], &query].concat())?;
    let mut stream = BufReader::with_capacity(1 << 17, stream);
    let mut incoming = Incoming::new(apex, asked, None, &options);
    let mut message = Vec::new();
    loop {
        let mut len = [0; 2];
        stream.read_exact(&mut len).map_err(|error| {
            let silent = matches!(error.kind(), io::ErrorKind::WouldBlock);
            wrong(&if silent { "fell silent" } else { "ended the connection early" })
        })?;
        message.resize(usize::from(u16::from_be_bytes(len)), 0);
        stream.read_exact(&mut message)?;
        if incoming.message(&message, 0).map_err(|fault| wrong(&fault))? {
            break;
        }
    }
    match incoming.finish() {
        Brought::Whole(intake) => {
            built(intake.finish(&server.to_string(), &options), &format!("{apex} of {server}"))
        }
        _ => Err(wrong(&"sent changes, not the zone")),
    }
}
