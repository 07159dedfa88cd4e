use super::*;
use crate::wire::message::{CLASS_IN, Writer, header, opcode};
use crate::wire::rcode::NOTAUTH;
use crate::wire::{Name, rtype};

const NOW: u64 = 1_700_000_000;

fn key(secret: &[u8]) -> Key {
    Key::new(&"Key.example.".parse::<Name>().unwrap(), Algorithm::HmacSha256, secret)
}

fn request() -> Vec<u8> {
    let mut writer = Writer::new(7, Writer::flags_of(opcode::QUERY));
    writer.question(b"\x07example\0", rtype::AXFR, CLASS_IN);
    writer.into_octets()
}

fn reply(id: u16) -> Vec<u8> {
    let mut writer = Writer::new(id, header::QR);
    writer.question(b"\x07example\0", rtype::AXFR, CLASS_IN);
    writer.into_octets()
}

fn verify(keys: &Keys, octets: &[u8], now: u64) -> Verified {
    verify_request(keys, Message::new(octets).unwrap(), now).0
}

fn refusal(verified: Verified) -> (u16, u16) {
    match verified {
        Verified::Refused(refusal) => (refusal.rcode, refusal.error),
        Verified::Unsigned => (0, 1),
        Verified::Signed(_) => (0, 0),
    }
}

#[test]
fn a_request_and_a_stream_of_replies() {
    let keys = Keys::new(vec![key(b"secret")]);
    let mut octets = request();
    let mut client = Session::request(&key(b"secret"), &mut octets, NOW);
    let Verified::Signed(mut server) = verify(&keys, &octets, NOW + 300) else { panic!() };
    // The first is signed, then some are not, then one is.
    for (number, signed) in [true, false, false, true, true].into_iter().enumerate() {
        let mut octets = reply(number as u16);
        if signed {
            let len = octets.len();
            server.sign(&mut octets, NOW);
            assert_eq!(octets.len() - len, server.signature_len());
        } else {
            server.context.update(&octets);
        }
        let checked = client.check(Message::new(&octets).unwrap(), NOW);
        assert_eq!(checked, Ok(signed), "{number}");
    }
}

#[test]
fn what_does_not_hold_is_refused_as_the_rfc_says() {
    let keys = Keys::new(vec![key(b"secret")]);
    let mut octets = request();
    let mut client = Session::request(&key(b"secret"), &mut octets, NOW);
    assert_eq!(refusal(verify(&keys, &octets, NOW + 301)), (NOTAUTH, error::BADTIME));
    assert_eq!(refusal(verify(&Keys::default(), &octets, NOW)), (NOTAUTH, error::BADKEY));
    let others = Keys::new(vec![key(b"another")]);
    assert_eq!(refusal(verify(&others, &octets, NOW)), (NOTAUTH, error::BADSIG));
    let mut changed = octets.clone();
    changed[14] ^= 1;
    assert_eq!(refusal(verify(&keys, &changed, NOW)), (NOTAUTH, error::BADSIG));
    // Whoever relays a message may change its ID.
    changed.clone_from(&octets);
    changed[1] ^= 1;
    assert_eq!(refusal(verify(&keys, &changed, NOW)), (0, 0));
    // The reply to BADTIME is signed and tells the time.
    let Verified::Refused(late) = verify(&keys, &octets, NOW + 301) else { panic!() };
    let mut told = reply(7);
    late.sign(&mut told, NOW + 301);
    let signature = Signature::find(Message::new(&told).unwrap()).unwrap().unwrap();
    assert_eq!(signature.other, &(NOW + 301).to_be_bytes()[2..]);
    assert_eq!(signature.time, NOW, "the client's own");
    let checked = client.check(Message::new(&told).unwrap(), NOW);
    assert_eq!(checked, Err(Fault::Told(error::BADTIME)));
}

#[test]
fn no_octet_of_a_signed_message_can_change() {
    let mut octets = request();
    Session::request(&key(b"secret"), &mut octets, NOW);
    let keys = Keys::new(vec![key(b"secret")]);
    for at in 2..octets.len() {
        let mut changed = octets.clone();
        changed[at] ^= 0x40;
        let holds = matches!(verify(&keys, &changed, NOW), Verified::Signed(_));
        // Letters of the two names are the same in both cases: bit 0x20, not this one.
        assert!(!holds, "octet {at}");
    }
    for len in 12..octets.len() {
        let holds = matches!(verify(&keys, &octets[..len], NOW), Verified::Signed(_));
        assert!(!holds, "{len} octets");
    }
}

#[test]
fn unsigned_messages_are_limited_and_never_first() {
    let mut octets = request();
    let mut client = Session::request(&key(b"secret"), &mut octets, NOW);
    let plain = reply(7);
    assert_eq!(client.check(Message::new(&plain).unwrap(), NOW), Err(Fault::Missing));
    let keys = Keys::new(vec![key(b"secret")]);
    let mut octets = request();
    let mut client = Session::request(&key(b"secret"), &mut octets, NOW);
    let Verified::Signed(mut server) = verify(&keys, &octets, NOW) else { panic!() };
    let mut first = reply(7);
    server.sign(&mut first, NOW);
    assert_eq!(client.check(Message::new(&first).unwrap(), NOW), Ok(true));
    for _ in 0..TSIG_UNSIGNED_MAX {
        assert_eq!(client.check(Message::new(&plain).unwrap(), NOW), Ok(false));
    }
    assert_eq!(client.check(Message::new(&plain).unwrap(), NOW), Err(Fault::Missing));
}
