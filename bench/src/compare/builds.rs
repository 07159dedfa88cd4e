//! Which programs were measured: a comparison goes on only with the same.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read};
use std::path::Path;

use super::contenders::{Contender, find_program};

/// By what was built: its version and a hash of each of its programs.
pub type Builds = BTreeMap<String, String>;

/// The contenders, what loads them, and the kernel.
pub fn of(present: &[(&'static Contender, String)]) -> io::Result<Builds> {
    let mut builds = Builds::new();
    builds.insert("kernel".into(), crate::load::kernel::machine().kernel);
    builds.insert("kxdpgun".into(), hashes(&["kxdpgun"])?);
    let own = std::env::current_exe()?;
    builds.insert("ring53-bench".into(), hash(&own)?);
    for (contender, version) in present {
        let text = format!("{version}, {}", hashes(contender.programs)?);
        builds.insert(contender.name.into(), text);
    }
    Ok(builds)
}

fn hashes(programs: &[&str]) -> io::Result<String> {
    let of = |program: &&str| match find_program(program) {
        Some(path) => Ok(format!("{program} {}", hash(&path)?)),
        None => Err(io::Error::other(format!("{program} is not installed"))),
    };
    Ok(programs.iter().map(of).collect::<io::Result<Vec<_>>>()?.join(", "))
}

/// Tells builds apart, not forgeries.
fn hash(path: &Path) -> io::Result<String> {
    let named = |error| io::Error::other(format!("{}: {error}", path.display()));
    let mut file = File::open(path).map_err(named)?;
    let (mut hasher, mut octets) = (DefaultHasher::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut octets).map_err(named)? {
            0 => return Ok(format!("{:016x}", hasher.finish())),
            len => octets[..len].iter().for_each(|&octet| hasher.write_u8(octet)),
        }
    }
}

/// Why what is here now must not be measured beside what was measured before.
pub fn differ(before: &Builds, now: &Builds) -> Option<String> {
    let names = before.keys().chain(now.keys());
    let other = names.into_iter().find(|name| before.get(*name) != now.get(*name))?;
    let text = |builds: &Builds| builds.get(other).cloned().unwrap_or("none".into());
    Some(format!(
        "{other} is another than when this comparison began ({}, now {}): put it back, or begin \
         anew without --resume",
        text(before),
        text(now)
    ))
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_build_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server");
        let built = |octets: &[u8]| {
            std::fs::write(&path, octets).unwrap();
            Builds::from([("nsd".to_string(), hash(&path).unwrap())])
        };
        let (one, other) = (built(&[7; 100_000]), built(&[[7; 99_999].as_slice(), &[8]].concat()));
        assert_eq!(differ(&one, &built(&[7; 100_000])), None);
        for (before, now) in [(&one, &other), (&one, &Builds::new()), (&Builds::new(), &one)] {
            let error = differ(before, now).unwrap();
            assert!(error.contains("nsd") && error.contains("without --resume"), "{error}");
        }
        assert!(hashes(&["no-such-nameserver"]).is_err());
    }
}
