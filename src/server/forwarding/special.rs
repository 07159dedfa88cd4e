//! Special-use names, loaded: zones like any other, for clients that may ask for names of others.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use crate::policy::special::{self, Special, special_zones};
use crate::wire::Name;
use crate::zone::{HashKey, LoadOptions, Source, SourceText, Text, Zone, load};

use crate::server::config::Config;

/// The zones of special-use names that `config` leaves, where zones of the names `served` are
/// served too: none without a forward.
pub fn load_all(config: &Config, served: &[Name], key: HashKey) -> Vec<(Name, Arc<Zone>)> {
    left(config, served).into_iter().map(|special| load_one(special, key)).collect()
}

/// Those of `names` that take the place of some special-use name: they are at or above it.
pub fn replacing<'a>(names: impl IntoIterator<Item = &'a Name>) -> Vec<Name> {
    static ABOVE: LazyLock<HashSet<Name>> = LazyLock::new(|| {
        let mut above = HashSet::new();
        for special in special::all() {
            let name = special.name.to_lowercase();
            let mut wire = name.as_wire();
            while let Some(len) = wire.first().filter(|len| **len > 0) {
                above.extend(Name::from_wire(wire));
                wire = &wire[1 + usize::from(*len)..];
            }
        }
        above
    });
    let is_above = |name: &&Name| ABOVE.contains(&name.to_lowercase());
    names.into_iter().filter(is_above).cloned().collect()
}

/// The longest of them that `name` is in.
pub fn covering(config: &Config, name: &Name) -> Option<Special> {
    let name = name.to_lowercase();
    let covers = |special: &Special| {
        let zone = special.name.to_lowercase();
        crate::cache::is_at_or_below(name.as_wire(), zone.as_wire())
    };
    let all = left(config, &[]).into_iter().filter(covers);
    all.max_by_key(|special| special.name.label_count())
}

fn left(config: &Config, served: &[Name]) -> Vec<Special> {
    if config.forwards.is_empty() || !config.recursion.special_names {
        return Vec::new();
    }
    let zones = config.zones.iter().map(|zone| zone.name.clone());
    let forwards = config.forwards.iter().map(|forward| forward.zone.clone());
    let configured: Vec<Name> = zones.chain(forwards).chain(served.iter().cloned()).collect();
    special_zones(&config.recursion.special_names_except, &configured)
}

fn load_one(special: Special, key: HashKey) -> (Name, Arc<Zone>) {
    let made = Made(special.text());
    let loaded = load(&special.name, special.rfc, &made, &LoadOptions::new(key, 1));
    (special.name, Arc::new(loaded.zone.expect("the tables make zones")))
}

/// A text that was made here.
struct Made(String);

impl Source for Made {
    fn read(&self, path: &str, included_from: Option<&str>) -> Result<SourceText, String> {
        match included_from {
            None => Ok(SourceText { name: path.into(), text: Text::Bytes(self.0.clone().into()) }),
            Some(_) => Err("no $INCLUDE in a zone that is made here".into()),
        }
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::answer::{CoreState, Counters, Exchange, Transport, Verdict, answer_batch};
    use crate::cache::expand_rdata;
    use crate::limits::DATAGRAM_BUFFER_LEN;
    use crate::snapshot::{Identity, Snapshot, ZoneState};
    use crate::wire::message::{CLASS_IN, Message, Section, Writer, header};
    use crate::wire::rtype;
    use crate::zone::text::write_rdata;

    static KEY: LazyLock<HashKey> = LazyLock::new(|| HashKey::new(*b"a secret of test"));
    const NOERROR: u16 = 0;
    const NXDOMAIN: u16 = 3;
    const REFUSED: u16 = 5;

    fn config(tables: &str) -> Config {
        let forward = "[[forward]]\nzone = \".\"\nto = [\"192.0.2.1\"]\n";
        let text = format!("version = 1\n{tables}\n{forward}");
        Config::parse("ring53.toml", &text, Path::new("")).unwrap()
    }

    struct Asked {
        snapshot: Snapshot,
        core: CoreState,
    }

    impl Asked {
        fn new(config: &Config) -> Asked {
            let zones = load_all(config, &[], *KEY);
            let states = zones.into_iter().map(|(name, zone)| (name, ZoneState::Serving(zone)));
            let snapshot = Snapshot::new(1, *KEY, Identity::default(), states.collect());
            Asked { snapshot, core: CoreState::new(Arc::new(Counters::default())) }
        }

        /// The code of the answer, and the RDATA of the records in its answer section.
        fn ask(&mut self, name: &str, qtype: u16) -> (u16, Vec<String>) {
            let mut writer = Writer::new(7, header::RD);
            writer.question(name.parse::<Name>().unwrap().as_wire(), qtype, CLASS_IN);
            let query = writer.into_octets();
            let mut buffer = vec![0; DATAGRAM_BUFFER_LEN];
            buffer[..query.len()].copy_from_slice(&query);
            let mut exchanges = [Exchange {
                buffer: &mut buffer,
                query_len: query.len(),
                transport: Transport::Datagram,
                client: 0,
                verdict: Verdict::Reply(0),
            }];
            answer_batch(&self.snapshot, Duration::ZERO, &mut self.core, &mut exchanges);
            let Verdict::Reply(len) = exchanges[0].verdict else { panic!("{name}: no reply") };
            let message = Message::new(&buffer[..len]).unwrap();
            let records = message.records().unwrap().map(Result::unwrap);
            let answers =
                records.filter(|record| record.section == Section::Answer).map(|record| {
                    // A name in RDATA may point to one before it.
                    let mut rdata = Vec::new();
                    expand_rdata(message, &record, &mut rdata).unwrap();
                    write_rdata(record.rtype, &rdata)
                });
            (message.rcode(), answers.collect())
        }
    }

    #[test]
    fn what_each_of_them_answers() {
        let mut asked = Asked::new(&config(""));
        let mut is = |name: &str, qtype, code, answers: &[&str]| {
            let expected = (code, answers.iter().map(ToString::to_string).collect());
            assert_eq!(asked.ask(name, qtype), expected, "{name} {qtype}");
        };
        for name in ["localhost.", "LocalHost.", "a.localhost.", "a.b.localhost."] {
            is(name, rtype::A, NOERROR, &["127.0.0.1"]);
            is(name, rtype::AAAA, NOERROR, &["::1"]);
            is(name, rtype::MX, NOERROR, &[]);
        }
        let loopback6 = format!("1.{}ip6.arpa.", "0.".repeat(31));
        is("1.0.0.127.in-addr.arpa.", rtype::PTR, NOERROR, &["localhost."]);
        is("2.0.0.127.in-addr.arpa.", rtype::PTR, NXDOMAIN, &[]);
        is(&loopback6, rtype::PTR, NOERROR, &["localhost."]);
        is("_dns.resolver.arpa.", rtype::SVCB, NOERROR, &[]);
        is("resolver.arpa.", rtype::SVCB, NOERROR, &[]);
        is("x.resolver.arpa.", rtype::A, NXDOMAIN, &[]);
        for name in ["example.", "www.example.", "printer.local.", "1.1.1.1.in-addr.arpa.", "arpa."]
        {
            is(name, rtype::A, REFUSED, &[]);
        }
    }

    #[test]
    fn all_of_them_are_there_and_empty_below() {
        let mut asked = Asked::new(&config(""));
        let all = special::all();
        assert_eq!(load_all(&config(""), &[], *KEY).len(), all.len());
        for special in all {
            let name = &special.name;
            let soa = asked.ask(&name.to_string(), rtype::SOA);
            assert_eq!((soa.0, soa.1.len()), (NOERROR, 1), "{name}");
            assert!(soa.1[0].contains(" nobody.invalid. 1 3600 1200 604800 10800"), "{}", soa.1[0]);
            assert_eq!(
                asked.ask(&name.to_string(), rtype::NS).1,
                [name.to_lowercase().to_string()]
            );
            let below = format!("nothing.{name}");
            let expected = if name.to_string() == "localhost." { NOERROR } else { NXDOMAIN };
            assert_eq!(asked.ask(&below, rtype::TXT).0, expected, "{below}");
            // Nothing is wrong with their text.
            let made = Made(special.text());
            let loaded = load(name, special.rfc, &made, &LoadOptions::new(*KEY, 1));
            assert!(loaded.diagnostics.is_empty(), "{name}: {:?}", loaded.diagnostics);
        }
    }

    #[test]
    fn what_is_configured_is_not_made() {
        let names = |tables: &str| load_all(&config(tables), &[], *KEY).len();
        let all = special::all().len();
        assert_eq!(names("[[zone]]\nname = \"test.\"\nfile = \"test.zone\"\n"), all - 1);
        assert_eq!(names("[[forward]]\nzone = \"ip6.arpa.\"\nto = [\"192.0.2.1\"]\n"), all - 8);
        assert_eq!(names("[recursion]\nspecial_names_except = [\"10.in-addr.arpa\"]\n"), all - 1);
        assert_eq!(names("[recursion]\nspecial_names = false\n"), 0);
        // Nor what a catalog has served.
        let members = ["a.example.", "10.in-addr.arpa.", "172.in-addr.arpa.", "TEST.", "a.test."];
        let members = members.map(|name| name.parse().unwrap());
        let served = replacing(&members);
        assert_eq!(served.len(), 3, "{served:?}");
        assert_eq!(load_all(&config(""), &served, *KEY).len(), all - 18);
        let none = Config::parse("ring53.toml", "version = 1\n", Path::new("")).unwrap();
        assert!(load_all(&none, &[], *KEY).is_empty(), "an authoritative server has none of them");
    }
}
