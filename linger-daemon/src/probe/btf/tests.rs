//! Tests with the BTF of kernels that are not running.

use std::io::Write as _;
use std::path::PathBuf;

use aya_obj::btf::BtfKind;
use aya_obj::generated::BTF_KIND_INT;
use linger_ebpf::key_field;

use super::types::{assemble, put};
use super::*;

fn file(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/btf");
    folder.join(name)
}

fn debian(name: &str) -> Kernel {
    Kernel::from_file(&file(name)).unwrap()
}

/// A row of the table.
fn field(name: &'static str, path: &'static str, shape: Shape) -> Field {
    Field {
        name,
        path,
        shape,
        key_fields: 0,
        set: |_, _| {},
        set_mask: |_, _| {},
    }
}

#[test]
fn fields_are_where_pahole_shows_them() {
    let of_6_1 = [
        ("sock.__sk_common.skc_state", 18, None),
        ("sock.sk_lingertime", 520, None),
        ("sock.sk_shutdown", 610, None),
        ("sock.sk_err", 544, None),
        ("sock.sk_socket", 624, None),
        ("sock.sk_receive_queue.qlen", 216 + 16, None),
        ("tcp_sock.write_seq", 1852, None),
        ("tcp_sock.snd_nxt", 1476, None),
        ("tcp_sock.snd_una", 1508, None),
        ("tcp_sock.copied_seq", 1468, None),
        ("tcp_sock.rcv_nxt", 1464, None),
        ("tcp_sock.repair", 1637, Some(1 << 6)),
        ("tcp_sock.linger2", 2160, None),
        ("tcp_sock.is_mptcp", 2220, None),
        ("sock.__sk_common.skc_net.net", 48, None),
        ("tcp_skb_cb.tcp_flags", 12, None),
    ];
    let of_6_12 = [
        ("sock.sk_lingertime", 576, None),
        ("sock.sk_shutdown", 571, None),
        ("sock.sk_err", 284, None),
        ("sock.sk_socket", 288, None),
        ("sock.sk_receive_queue.qlen", 168 + 16, None),
        ("tcp_sock.write_seq", 1636, None),
        ("tcp_sock.snd_una", 1720, None),
        ("tcp_sock.repair", 1519, Some(1 << 2)),
        ("tcp_sock.is_mptcp", 2272, None),
    ];
    for (file, expected) in [
        ("debian-6.1.0-56.btf", &of_6_1[..]),
        ("debian-6.12.117.btf", &of_6_12),
    ] {
        let (_, resolved) = debian(file).offsets(key_field::ALL).unwrap();
        for (field, offset, mask) in expected {
            let found = resolved.iter().find(|found| found.field == *field);
            let found = found.map(|found| (found.offset, found.mask));
            assert_eq!(found, Some((Some(*offset), *mask)), "{file}: {field}");
        }
    }
}

#[test]
fn functions_are_distinguished_from_structs() {
    let (old, new) = (debian("debian-6.1.0-56.btf"), debian("debian-6.12.117.btf"));
    assert!(old.has_function("__tcp_close") && new.has_function("__tcp_close"));
    assert!(!old.has_function("tcp_sock"));
}

#[test]
fn a_list_of_names_has_the_ids_of_the_kernel() {
    const FUNCTIONS: [&str; 2] = ["tcp_reset", "__tcp_close"];
    let name = "debian-6.12.117.btf";
    let kernel = debian(name);
    let found = FUNCTIONS.map(|name| kernel.function(name).unwrap());
    let list = minimal(
        &[
            &found[..],
            &[kernel.tracepoint("tcp_destroy_sock").unwrap()],
        ]
        .concat(),
    );
    let list = list.unwrap();
    let all = Btf::parse_file(file(name), Endianness::default()).unwrap();
    let functions = FUNCTIONS.map(|name| (name, BtfKind::Func));
    let tracepoint = ("btf_trace_tcp_destroy_sock", BtfKind::Typedef);
    for (name, kind) in functions.into_iter().chain([tracepoint]) {
        let id = |btf: &Btf| btf.id_by_type_name_kind(name, kind).unwrap();
        assert_eq!(id(&list), id(&all), "{name}");
    }
    assert!(
        list.id_by_type_name_kind("tcp_close", BtfKind::Func)
            .is_err()
    );
}

#[test]
fn a_missing_field_is_named() {
    let kernel = debian("debian-6.12.117.btf");
    let missing = field("sock", "__sk_common.skc_no_such", Shape::Bytes(1));
    let error = kernel.resolve(&missing).unwrap_err().to_string();
    assert!(
        error.starts_with("the kernel's sock.__sk_common.skc_no_such does not exist"),
        "{error}"
    );
    let optional = field("tcp_sock", "no_such", Shape::Optional(1));
    assert_eq!(kernel.resolve(&optional).unwrap().offset, None);
}

#[test]
fn a_missing_field_that_is_not_in_use_does_not_matter() {
    let kernel = debian("debian-6.12.117.btf");
    let missing = Field {
        key_fields: key_field::EXE,
        ..field("dentry", "no_such", Shape::Bytes(8))
    };
    let others = key_field::ALL & !key_field::EXE;
    assert_eq!(kernel.find(&missing, others).unwrap(), None);
    assert!(kernel.find(&missing, key_field::ALL).is_err());
}

#[test]
fn a_field_of_another_size_is_refused() {
    let kernel = debian("debian-6.12.117.btf");
    for shape in [Shape::Bytes(4), Shape::Bit, Shape::Array(16)] {
        let field = Field {
            shape,
            ..field("sock", "sk_lingertime", Shape::Bytes(8))
        };
        let error = kernel.resolve(&field).unwrap_err().to_string();
        assert!(
            error.contains("sock.sk_lingertime has another size (8 bytes)"),
            "{error}"
        );
    }
}

#[test]
fn fields_that_differ_between_namesakes_are_ambiguous() {
    // Two structs with the same name, which agree on `x` but not on `y`.
    let kernel = crafted(&[
        ("twin", &[("x", 0), ("y", 32)]),
        ("twin", &[("x", 0), ("y", 64)]),
    ]);
    let x = field("twin", "x", Shape::Bytes(4));
    assert_eq!(kernel.resolve(&x).unwrap().offset, Some(0));
    let y = field("twin", "y", Shape::Bytes(4));
    let error = kernel.resolve(&y).unwrap_err().to_string();
    assert!(error.contains("twin.y is ambiguous"), "{error}");
}

#[test]
fn a_file_without_btf_is_refused() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"no BTF at all, but long enough to have a header")
        .unwrap();
    let error = Kernel::from_file(file.path()).err().unwrap().to_string();
    assert!(error.contains("CONFIG_DEBUG_INFO_BTF"), "{error}");
    assert!(Kernel::from_file(Path::new("/no/such/file")).is_err());
}

#[test]
fn btf_that_is_cut_short_is_refused() {
    let whole = fs::read(file("debian-6.12.117.btf")).unwrap();
    for length in [0, 3, 23, 24, 1000, whole.len() - 1] {
        assert!(Types::new(whole[..length].to_vec()).is_err(), "{length}");
    }
    // A valid header, whose section of types ends within a type.
    let mut bytes = whole[..24 + 14].to_vec();
    for (at, size) in [(12, 14_u32), (16, 14), (20, 0)] {
        bytes[at..at + 4].copy_from_slice(&size.to_ne_bytes());
    }
    let error = Types::new(bytes).err().unwrap().to_string();
    assert!(error.starts_with("it ends within its type "), "{error}");
}

/// BTF with these structs, whose members are 4-byte integers at these bits.
fn crafted(structs: &[(&str, &[(&str, u32)])]) -> Kernel {
    let (mut types, mut strings) = (Vec::new(), vec![0]);
    let mut string = |text: &str| {
        strings.extend(text.bytes().chain([0]));
        u32::try_from(strings.len() - text.len() - 1).unwrap()
    };
    put(&mut types, &[string("int"), BTF_KIND_INT << 24, 4, 32]);
    for (name, members) in structs {
        let kind = BTF_KIND_STRUCT << 24 | u32::try_from(members.len()).unwrap();
        put(&mut types, &[string(name), kind, 16]);
        for (member, bit) in *members {
            put(&mut types, &[string(member), 1, *bit]);
        }
    }
    let types = Types::new(assemble(&types, &strings)).unwrap();
    Kernel { types }
}
