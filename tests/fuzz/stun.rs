//! The checks that anybody may send, twice: the bytes as they are, and as attributes of a check that is signed
//! with the right password, so that what lies behind the password is reached too.

use std::net::SocketAddr;

use motet::transport::stun::{Key, MAX_ANSWER, Request, Response};
use stun::attributes::{AttrType, RawAttribute};
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_REQUEST, Message, Setter, TransactionId};

const PWD: &str = "a password of the server";

pub fn fuzz_stun(data: &[u8]) {
    take(data);
    take(&signed("srvr:clnt", PWD, data));
}

fn take(datagram: &[u8]) {
    let Ok(request) = Request::parse(datagram) else { return };
    let key = Key::new(PWD);
    if request.authenticate(&key).is_err() {
        return;
    }
    let remote = SocketAddr::from(([192, 0, 2, 7], 7));
    let mut out = [0; MAX_ANSWER];
    let response = request.error().unwrap_or(Response::Success(remote));
    let len = request.answer(response, &key, &mut out).expect("room for every answer");
    let mut message = Message::new();
    message.unmarshal_binary(&out[..len]).expect("the answer decodes");
    FINGERPRINT.check(&message).expect("the answer's fingerprint");
    let provider = stun::crypto::default_provider().expect("built in");
    MessageIntegrity::check(&mut message, PWD.as_bytes(), provider.crypto()).expect("the answer's integrity");
}

/// A check with `attributes` (two bytes of type, one of length, the value; and so on), rightly signed.
pub fn signed(username: &str, pwd: &str, mut attributes: &[u8]) -> Vec<u8> {
    let provider = stun::crypto::default_provider().expect("built in");
    let raw = |kind, value: &[u8]| RawAttribute { typ: AttrType(kind), length: 0, value: value.to_vec() };
    let mut setters: Vec<Box<dyn Setter + '_>> =
        vec![Box::new(BINDING_REQUEST), Box::new(TransactionId([7; 12]))];
    setters.push(Box::new(raw(0x0006, username.as_bytes())));
    while let [t0, t1, len, rest @ ..] = attributes {
        let (value, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        let kind = u16::from_be_bytes([*t0, *t1]);
        attributes = rest;
        // `rtc-stun` does not sign after these.
        if kind != 0x8028 && kind != 0x0008 {
            setters.push(Box::new(raw(kind, value)));
        }
    }
    let integrity =
        MessageIntegrity::new_short_term_integrity_with_provider(pwd.to_owned(), provider.crypto());
    setters.push(Box::new(integrity));
    setters.push(Box::new(FINGERPRINT));
    let mut message = Message::new();
    message.build(&setters).expect("builds");
    message.raw
}
