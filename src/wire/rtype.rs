//! Record types by number and by mnemonic (the IANA registry of RFC 6895, 3.1).

/// A.
pub const A: u16 = 1;
/// NS.
pub const NS: u16 = 2;
/// MD.
pub const MD: u16 = 3;
/// MF.
pub const MF: u16 = 4;
/// CNAME.
pub const CNAME: u16 = 5;
/// SOA.
pub const SOA: u16 = 6;
/// MB.
pub const MB: u16 = 7;
/// MG.
pub const MG: u16 = 8;
/// MR.
pub const MR: u16 = 9;
/// NULL.
pub const NULL: u16 = 10;
/// WKS.
pub const WKS: u16 = 11;
/// PTR.
pub const PTR: u16 = 12;
/// HINFO.
pub const HINFO: u16 = 13;
/// MINFO.
pub const MINFO: u16 = 14;
/// MX.
pub const MX: u16 = 15;
/// TXT.
pub const TXT: u16 = 16;
/// RP.
pub const RP: u16 = 17;
/// AFSDB.
pub const AFSDB: u16 = 18;
/// X25.
pub const X25: u16 = 19;
/// ISDN.
pub const ISDN: u16 = 20;
/// RT.
pub const RT: u16 = 21;
/// NSAP.
pub const NSAP: u16 = 22;
/// NSAP-PTR.
pub const NSAP_PTR: u16 = 23;
/// SIG.
pub const SIG: u16 = 24;
/// KEY.
pub const KEY: u16 = 25;
/// PX.
pub const PX: u16 = 26;
/// GPOS.
pub const GPOS: u16 = 27;
/// AAAA.
pub const AAAA: u16 = 28;
/// LOC.
pub const LOC: u16 = 29;
/// NXT.
pub const NXT: u16 = 30;
/// EID.
pub const EID: u16 = 31;
/// NIMLOC.
pub const NIMLOC: u16 = 32;
/// SRV.
pub const SRV: u16 = 33;
/// ATMA.
pub const ATMA: u16 = 34;
/// NAPTR.
pub const NAPTR: u16 = 35;
/// KX.
pub const KX: u16 = 36;
/// CERT.
pub const CERT: u16 = 37;
/// A6.
pub const A6: u16 = 38;
/// DNAME.
pub const DNAME: u16 = 39;
/// SINK.
pub const SINK: u16 = 40;
/// OPT.
pub const OPT: u16 = 41;
/// APL.
pub const APL: u16 = 42;
/// DS.
pub const DS: u16 = 43;
/// SSHFP.
pub const SSHFP: u16 = 44;
/// IPSECKEY.
pub const IPSECKEY: u16 = 45;
/// RRSIG.
pub const RRSIG: u16 = 46;
/// NSEC.
pub const NSEC: u16 = 47;
/// DNSKEY.
pub const DNSKEY: u16 = 48;
/// DHCID.
pub const DHCID: u16 = 49;
/// NSEC3.
pub const NSEC3: u16 = 50;
/// NSEC3PARAM.
pub const NSEC3PARAM: u16 = 51;
/// TLSA.
pub const TLSA: u16 = 52;
/// SMIMEA.
pub const SMIMEA: u16 = 53;
/// HIP.
pub const HIP: u16 = 55;
/// NINFO.
pub const NINFO: u16 = 56;
/// RKEY.
pub const RKEY: u16 = 57;
/// TALINK.
pub const TALINK: u16 = 58;
/// CDS.
pub const CDS: u16 = 59;
/// CDNSKEY.
pub const CDNSKEY: u16 = 60;
/// OPENPGPKEY.
pub const OPENPGPKEY: u16 = 61;
/// CSYNC.
pub const CSYNC: u16 = 62;
/// ZONEMD.
pub const ZONEMD: u16 = 63;
/// SVCB.
pub const SVCB: u16 = 64;
/// HTTPS.
pub const HTTPS: u16 = 65;
/// DSYNC.
pub const DSYNC: u16 = 66;
/// SPF.
pub const SPF: u16 = 99;
/// UINFO.
pub const UINFO: u16 = 100;
/// UID.
pub const UID: u16 = 101;
/// GID.
pub const GID: u16 = 102;
/// UNSPEC.
pub const UNSPEC: u16 = 103;
/// NID.
pub const NID: u16 = 104;
/// L32.
pub const L32: u16 = 105;
/// L64.
pub const L64: u16 = 106;
/// LP.
pub const LP: u16 = 107;
/// EUI48.
pub const EUI48: u16 = 108;
/// EUI64.
pub const EUI64: u16 = 109;
/// NXNAME.
pub const NXNAME: u16 = 128;
/// TKEY.
pub const TKEY: u16 = 249;
/// TSIG.
pub const TSIG: u16 = 250;
/// IXFR.
pub const IXFR: u16 = 251;
/// AXFR.
pub const AXFR: u16 = 252;
/// MAILB.
pub const MAILB: u16 = 253;
/// MAILA.
pub const MAILA: u16 = 254;
/// ANY.
pub const ANY: u16 = 255;
/// URI.
pub const URI: u16 = 256;
/// CAA.
pub const CAA: u16 = 257;
/// AVC.
pub const AVC: u16 = 258;
/// DOA.
pub const DOA: u16 = 259;
/// AMTRELAY.
pub const AMTRELAY: u16 = 260;
/// RESINFO.
pub const RESINFO: u16 = 261;
/// WALLET.
pub const WALLET: u16 = 262;
/// TA.
pub const TA: u16 = 32768;
/// DLV.
pub const DLV: u16 = 32769;

/// All mnemonics, in the order of their numbers.
const MNEMONICS: &[(&str, u16)] = &[
    ("A", A),
    ("NS", NS),
    ("MD", MD),
    ("MF", MF),
    ("CNAME", CNAME),
    ("SOA", SOA),
    ("MB", MB),
    ("MG", MG),
    ("MR", MR),
    ("NULL", NULL),
    ("WKS", WKS),
    ("PTR", PTR),
    ("HINFO", HINFO),
    ("MINFO", MINFO),
    ("MX", MX),
    ("TXT", TXT),
    ("RP", RP),
    ("AFSDB", AFSDB),
    ("X25", X25),
    ("ISDN", ISDN),
    ("RT", RT),
    ("NSAP", NSAP),
    ("NSAP-PTR", NSAP_PTR),
    ("SIG", SIG),
    ("KEY", KEY),
    ("PX", PX),
    ("GPOS", GPOS),
    ("AAAA", AAAA),
    ("LOC", LOC),
    ("NXT", NXT),
    ("EID", EID),
    ("NIMLOC", NIMLOC),
    ("SRV", SRV),
    ("ATMA", ATMA),
    ("NAPTR", NAPTR),
    ("KX", KX),
    ("CERT", CERT),
    ("A6", A6),
    ("DNAME", DNAME),
    ("SINK", SINK),
    ("OPT", OPT),
    ("APL", APL),
    ("DS", DS),
    ("SSHFP", SSHFP),
    ("IPSECKEY", IPSECKEY),
    ("RRSIG", RRSIG),
    ("NSEC", NSEC),
    ("DNSKEY", DNSKEY),
    ("DHCID", DHCID),
    ("NSEC3", NSEC3),
    ("NSEC3PARAM", NSEC3PARAM),
    ("TLSA", TLSA),
    ("SMIMEA", SMIMEA),
    ("HIP", HIP),
    ("NINFO", NINFO),
    ("RKEY", RKEY),
    ("TALINK", TALINK),
    ("CDS", CDS),
    ("CDNSKEY", CDNSKEY),
    ("OPENPGPKEY", OPENPGPKEY),
    ("CSYNC", CSYNC),
    ("ZONEMD", ZONEMD),
    ("SVCB", SVCB),
    ("HTTPS", HTTPS),
    ("DSYNC", DSYNC),
    ("SPF", SPF),
    ("UINFO", UINFO),
    ("UID", UID),
    ("GID", GID),
    ("UNSPEC", UNSPEC),
    ("NID", NID),
    ("L32", L32),
    ("L64", L64),
    ("LP", LP),
    ("EUI48", EUI48),
    ("EUI64", EUI64),
    ("NXNAME", NXNAME),
    ("TKEY", TKEY),
    ("TSIG", TSIG),
    ("IXFR", IXFR),
    ("AXFR", AXFR),
    ("MAILB", MAILB),
    ("MAILA", MAILA),
    ("ANY", ANY),
    ("URI", URI),
    ("CAA", CAA),
    ("AVC", AVC),
    ("DOA", DOA),
    ("AMTRELAY", AMTRELAY),
    ("RESINFO", RESINFO),
    ("WALLET", WALLET),
    ("TA", TA),
    ("DLV", DLV),
];

/// The mnemonic, or `TYPE` and the number (RFC 3597, 5).
pub fn name(rtype: u16) -> String {
    match MNEMONICS.iter().find(|(_, number)| *number == rtype) {
        Some((mnemonic, _)) => (*mnemonic).into(),
        None => format!("TYPE{rtype}"),
    }
}

/// The type that `text` names, in any letter case; `TYPE` and a number are any type.
pub fn parse(text: &[u8]) -> Option<u16> {
    // Nearly all records of nearly all zones.
    match text {
        b"A" => return Some(A),
        b"AAAA" => return Some(AAAA),
        b"NS" => return Some(NS),
        b"CNAME" => return Some(CNAME),
        b"PTR" => return Some(PTR),
        _ => {}
    }
    if let Some((prefix, number)) = text.split_at_checked(4)
        && prefix.eq_ignore_ascii_case(b"TYPE")
    {
        let digits = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
        return if digits { std::str::from_utf8(number).ok()?.parse().ok() } else { None };
    }
    let found = MNEMONICS.iter().find(|(name, _)| text.eq_ignore_ascii_case(name.as_bytes()));
    found.map(|(_, number)| *number)
}

/// Whether the type stands only in questions or in messages, never in a zone.
pub fn is_meta(rtype: u16) -> bool {
    //= RFC 6895, 3.1
    //# 128 - 255
    //# 0x0080 - 0x00FF   Assigned to Q TYPEs and Meta TYPEs
    matches!(rtype, 0 | OPT | 128..=255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for &(mnemonic, number) in MNEMONICS {
            assert_eq!(parse(mnemonic.to_lowercase().as_bytes()), Some(number));
            assert_eq!(name(number), mnemonic);
        }
        assert_eq!(parse(b"type65534"), Some(65534));
        for text in ["TYPE", "TYPE65536", "TYPE-1", "TYPE+1", "B", ""] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(name(65534), "TYPE65534");
    }
}
