//! Numbers, in the form common to all formats.

/// Writes a whole number.
pub(super) fn put_count(bytes: &mut Vec<u8>, count: u64) {
    bytes.extend_from_slice(itoa::Buffer::new().format(count).as_bytes());
}

/// Writes nanoseconds as seconds, exactly and without trailing zeros.
pub(super) fn put_seconds(bytes: &mut Vec<u8>, ns: u64) {
    const NS: u64 = 1_000_000_000;
    put_count(bytes, ns / NS);
    let mut fraction = ns % NS;
    if fraction == 0 {
        return;
    }
    let mut digits = *b".000000000";
    for digit in digits[1..].iter_mut().rev() {
        *digit += u8::try_from(fraction % 10).expect("a digit");
        fraction /= 10;
    }
    let zeros = digits.iter().rev().take_while(|&&digit| digit == b'0');
    let used = digits.len() - zeros.count();
    bytes.extend_from_slice(&digits[..used]);
}
