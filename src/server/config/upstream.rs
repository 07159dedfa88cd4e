//! How an upstream is written.
//!
//! ```text
//!   192.0.2.1   2001:db8::1   192.0.2.1:5353   [2001:db8::1]:5353   UDP, TCP where needed
//!   tcp://192.0.2.1                                                 TCP alone
//!   tls://9.9.9.9:853#dns.quad9.net                                 the certificate's name
//!   tls://192.0.2.1?pin-sha256=BASE64&pin-sha256=BASE64             or one of these keys
//!   https://9.9.9.9/dns-query#dns.quad9.net     quic://9.9.9.9#dns.quad9.net
//! ```

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use data_encoding::BASE64;

use crate::limits::PINS_MAX;
use crate::resolver::{Carrier, Upstream};
use crate::wire::Name;

const PORT: u16 = 53;
/// RFC 7858, 3.1; RFC 9250, 4.1.1.
const PORT_TLS: u16 = 853;
const PORT_HTTPS: u16 = 443;
/// The path that nearly all servers have (RFC 8484, 4.1.1: its examples).
const PATH: &str = "/dns-query";

/// Reads one upstream. The error says what was expected, and the remedy.
pub fn parse(text: &str) -> Result<Upstream, String> {
    let (carrier, port, rest) = scheme(text)?;
    let is_private = matches!(carrier, Carrier::Tls | Carrier::Https | Carrier::Quic);
    let (rest, server_name) = match rest.split_once('#') {
        Some((rest, name)) => (rest, Some(server_name(name)?)),
        None => (rest, None),
    };
    // The way RFC 8484 writes a server: a template.
    let rest = rest.strip_suffix("{?dns}").unwrap_or(rest);
    let (rest, pins) = match rest.split_once('?') {
        Some((rest, query)) => (rest, pins(query)?),
        None => (rest, Vec::new()),
    };
    let (rest, path) = match rest.find('/') {
        Some(at) if carrier == Carrier::Https => (&rest[..at], path(&rest[at..])?),
        Some(_) => return Err("expected a path with https:// only: remove it".into()),
        None if carrier == Carrier::Https => (rest, PATH.into()),
        None => (rest, String::new()),
    };
    let address = address(rest, port)?;
    if is_private && server_name.is_none() && pins.is_empty() {
        return Err(format!(
            "expected the name that its certificate has, or a pin: {text}#dns.example.net, or \
             {text}?pin-sha256=..."
        ));
    }
    if !is_private && (server_name.is_some() || !pins.is_empty()) {
        return Err("expected a name or pins with tls://, https:// or quic:// only: without a \
                    certificate nothing shows whose answers they are"
            .into());
    }
    Ok(Upstream { address, carrier, server_name, pins, path, issuers: None })
}

/// Writes one as it can be read.
pub fn text(upstream: &Upstream) -> String {
    let (scheme, port) = match upstream.carrier {
        Carrier::Udp => ("", PORT),
        Carrier::Tcp => ("tcp://", PORT),
        Carrier::Tls => ("tls://", PORT_TLS),
        Carrier::Https => ("https://", PORT_HTTPS),
        Carrier::Quic => ("quic://", PORT_TLS),
    };
    let address = match upstream.address {
        address if address.port() != port => address.to_string(),
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    };
    let pins = upstream.pins.iter().map(|pin| format!("pin-sha256={}", BASE64.encode(pin)));
    let pins = pins.collect::<Vec<_>>().join("&");
    let pins = if pins.is_empty() { pins } else { format!("?{pins}") };
    let name = upstream.server_name.as_ref().map_or(String::new(), |name| format!("#{name}"));
    format!("{scheme}{address}{}{pins}{name}", upstream.path)
}

fn scheme(text: &str) -> Result<(Carrier, u16, &str), String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok((Carrier::Udp, PORT, text));
    };
    let (carrier, port) = match scheme {
        "udp" => (Carrier::Udp, PORT),
        "tcp" => (Carrier::Tcp, PORT),
        "tls" => (Carrier::Tls, PORT_TLS),
        "https" => (Carrier::Https, PORT_HTTPS),
        "quic" => (Carrier::Quic, PORT_TLS),
        _ => {
            return Err(format!(
                "expected udp, tcp, tls, https or quic before ://, not \"{scheme}\""
            ));
        }
    };
    Ok((carrier, port, rest))
}

fn address(text: &str, port: u16) -> Result<SocketAddr, String> {
    let bracketed = || {
        let inside = text.strip_prefix('[')?.strip_suffix(']')?;
        inside.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    };
    let alone = || text.parse::<IpAddr>().ok().or_else(bracketed);
    let whole = text.parse().ok().or_else(|| Some(SocketAddr::new(alone()?, port)));
    let Some(address) = whole else {
        let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
        let is_name = host.parse::<Name>().is_ok()
            && host.contains(|letter: char| letter.is_ascii_alphabetic())
            && !host.contains([':', '[', ' ']);
        return Err(if is_name {
            format!(
                "expected an address, not the name \"{host}\": nobody could look it up; write the \
                 address, and the name behind it: tls://192.0.2.1#{host}"
            )
        } else {
            format!(
                "expected an address, such as \"192.0.2.1\", \"[2001:db8::1]:5353\" or \
                 \"tls://192.0.2.1#dns.example.net\", not \"{text}\""
            )
        });
    };
    let ip = address.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if address.port() == 0 || ip.is_unspecified() || ip.is_multicast() || broadcast {
        return Err(format!("expected the address of a server, not {address}"));
    }
    Ok(SocketAddr::new(ip, address.port()))
}

/// A name as certificates have it: letters, digits, hyphens, no dot at its end; or an address.
fn server_name(text: &str) -> Result<String, String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_host = |text: &str| {
        text.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet))
            && text.parse::<Name>().is_ok_and(|name| name.label_count() > 0)
    };
    if text.parse::<IpAddr>().is_ok() || is_host(text) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("expected the name of a host behind #, such as dns.example.net, not \"{text}\""))
}

fn path(text: &str) -> Result<String, String> {
    if text.bytes().all(|octet| octet.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&octet)) {
        return Ok(text.into());
    }
    Err(format!("expected a path such as {PATH}, not \"{text}\""))
}

fn pins(query: &str) -> Result<Vec<[u8; 32]>, String> {
    let mut pins = Vec::new();
    for part in query.split('&') {
        let Some(pin) = part.strip_prefix("pin-sha256=") else {
            return Err(format!("expected pin-sha256= behind ?, not \"{part}\""));
        };
        let octets = BASE64.decode(pin.as_bytes()).ok().and_then(|pin| pin.try_into().ok());
        let Some(pin) = octets else {
            return Err(format!(
                "expected the SHA-256 of a public key in base64, 44 characters, not \"{pin}\"; \
                 kdig +tls prints it"
            ));
        };
        pins.push(pin);
    }
    if pins.len() > PINS_MAX {
        return Err(format!("expected at most {PINS_MAX} pins"));
    }
    Ok(pins)
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    const PIN: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn each_way_to_write_one() {
        for (text, carrier, address, name, path) in [
            ("192.0.2.1", Carrier::Udp, "192.0.2.1:53", None, ""),
            ("192.0.2.1:5353", Carrier::Udp, "192.0.2.1:5353", None, ""),
            ("2001:db8::1", Carrier::Udp, "[2001:db8::1]:53", None, ""),
            ("[2001:db8::1]", Carrier::Udp, "[2001:db8::1]:53", None, ""),
            ("[2001:db8::1]:5353", Carrier::Udp, "[2001:db8::1]:5353", None, ""),
            ("udp://::ffff:192.0.2.1", Carrier::Udp, "192.0.2.1:53", None, ""),
            ("tcp://192.0.2.1", Carrier::Tcp, "192.0.2.1:53", None, ""),
            ("tls://9.9.9.9#dns.quad9.net", Carrier::Tls, "9.9.9.9:853", Some("dns.quad9.net"), ""),
            (
                "tls://[2620:fe::fe]:8853#DNS.quad9.net.",
                Carrier::Tls,
                "[2620:fe::fe]:8853",
                Some("dns.quad9.net"),
                "",
            ),
            ("tls://1.1.1.1#1.1.1.1", Carrier::Tls, "1.1.1.1:853", Some("1.1.1.1"), ""),
            (
                "https://9.9.9.9/dns-query{?dns}#dns.quad9.net",
                Carrier::Https,
                "9.9.9.9:443",
                Some("dns.quad9.net"),
                "/dns-query",
            ),
            (
                "https://[2620:fe::fe]/q/1#a.b",
                Carrier::Https,
                "[2620:fe::fe]:443",
                Some("a.b"),
                "/q/1",
            ),
            ("https://9.9.9.9#a.b", Carrier::Https, "9.9.9.9:443", Some("a.b"), "/dns-query"),
            ("quic://9.9.9.9#a.b", Carrier::Quic, "9.9.9.9:853", Some("a.b"), ""),
        ] {
            let upstream = Upstream {
                address: address.parse().unwrap(),
                carrier,
                server_name: name.map(str::to_string),
                pins: Vec::new(),
                path: path.into(),
                issuers: None,
            };
            assert_eq!(parse(text), Ok(upstream.clone()), "{text}");
            assert_eq!(parse(&super::text(&upstream)), Ok(upstream), "{text}");
        }
    }

    #[test]
    fn pins_stand_for_a_name_or_beside_it() {
        let pin: [u8; 32] = std::array::from_fn(|i| i as u8);
        let of = |text: String| parse(&text).unwrap();
        assert_eq!(of(format!("tls://192.0.2.1?pin-sha256={PIN}")).pins, [pin]);
        let both = of(format!("https://192.0.2.1/q?pin-sha256={PIN}&pin-sha256={PIN}#a.b"));
        assert_eq!((both.pins.len(), both.path.as_str()), (2, "/q"));
        assert_eq!(both.server_name.as_deref(), Some("a.b"));
        assert_eq!(of(text(&both)), both);
    }

    #[test]
    fn errors_say_the_remedy() {
        let many = format!("tls://192.0.2.1?{}#a", vec![format!("pin-sha256={PIN}"); 9].join("&"));
        for (text, expected) in [
            (
                "dns.quad9.net",
                "write the address, and the name behind it: tls://192.0.2.1#dns.quad9.net",
            ),
            ("tls://dns.quad9.net:853#dns.quad9.net", "not the name \"dns.quad9.net\""),
            ("", "expected an address"),
            ("192.0.2.1:70000", "expected an address"),
            ("192.0.2.1:0", "expected the address of a server"),
            ("0.0.0.0", "expected the address of a server"),
            ("[ff02::fb]:5353", "expected the address of a server"),
            ("dot://192.0.2.1#a", "not \"dot\""),
            ("192.0.2.1/x", "a path with https:// only"),
            ("tls://192.0.2.1/x#a", "a path with https:// only"),
            ("192.0.2.1#dns.quad9.net", "with tls://, https:// or quic:// only"),
            ("tls://192.0.2.1", "tls://192.0.2.1#dns.example.net, or tls://192.0.2.1?pin-sha256="),
            ("tls://192.0.2.1#", "the name of a host behind #"),
            ("tls://192.0.2.1#a b", "the name of a host behind #"),
            ("tls://192.0.2.1?pin=x#a", "expected pin-sha256="),
            ("tls://192.0.2.1?pin-sha256=AAAA", "44 characters"),
            ("https://192.0.2.1/a b#a", "expected a path"),
            (&many, "at most 8 pins"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
