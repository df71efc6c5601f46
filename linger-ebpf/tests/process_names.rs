//! Checks that the bytes behind the end of a process name are cleared.

use linger_ebpf::clear_after_end;

fn words(bytes: [u8; 16]) -> [u64; 2] {
    let (words, _) = bytes.as_chunks();
    [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])]
}

#[test]
fn bytes_of_an_earlier_name_are_cleared() {
    // Bytes at which a carry or a borrow begins or ends.
    let bytes = [1, 2, 0x7f, 0x80, 0x81, 0xff];
    for length in 0..=16 {
        for of_name in bytes {
            for of_rest in [0].into_iter().chain(bytes) {
                let mut name = [of_name; 16];
                name[length..].fill(0);
                let mut found = name;
                if let Some((_, rest)) = found[length..].split_first_mut() {
                    rest.fill(of_rest);
                }
                assert_eq!(clear_after_end(words(found)), words(name), "{found:x?}");
            }
        }
    }
    let renamed = words(*b"sh\0kworker-of-y\0");
    assert_eq!(
        clear_after_end(renamed),
        words(*b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
    );
}
