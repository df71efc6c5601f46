#!/usr/bin/env python3
"""Trims a kernel's BTF to what the tests read: the named structs, enums, functions and aliases.

usage: trim.py VMLINUX_BTF OUT NAME...

Members keep their offsets and their types; what a pointer points to becomes void, and so do the
arguments of functions.
"""
import struct, sys

KINDS = dict(INT=1, PTR=2, ARRAY=3, STRUCT=4, UNION=5, ENUM=6, FWD=7, TYPEDEF=8, VOLATILE=9,
             CONST=10, RESTRICT=11, FUNC=12, FUNC_PROTO=13, VAR=14, DATASEC=15, FLOAT=16,
             DECL_TAG=17, TYPE_TAG=18, ENUM64=19)
K = {v: k for k, v in KINDS.items()}


def parse(data):
    magic, _, _, hdr_len, type_off, type_len, str_off, str_len = struct.unpack_from('<HBBIIIII', data)
    assert magic == 0xeB9F
    strings = data[hdr_len + str_off:hdr_len + str_off + str_len]
    types, at, end = [None], hdr_len + type_off, hdr_len + type_off + type_len
    while at < end:
        name, info, size = struct.unpack_from('<III', data, at)
        at += 12
        kind, vlen = K[(info >> 24) & 31], info & 0xffff
        extra = {'INT': 4, 'ARRAY': 12, 'STRUCT': 12 * vlen, 'UNION': 12 * vlen, 'ENUM': 8 * vlen,
                 'FUNC_PROTO': 8 * vlen, 'VAR': 4, 'DATASEC': 12 * vlen, 'DECL_TAG': 4,
                 'ENUM64': 12 * vlen}.get(kind, 0)
        types.append((name, info, size, kind, vlen, data[at:at + extra]))
        at += extra
    return strings, types


def main(source, out, names):
    strings, types = parse(open(source, 'rb').read())
    text = lambda off: strings[off:strings.index(b'\0', off)]
    new_strings, offsets = bytearray(b'\0'), {b'': 0}

    def string(off):
        name = text(off)
        if name not in offsets:
            offsets[name] = len(new_strings)
            new_strings.extend(name + b'\0')
        return offsets[name]

    order, ids = [], {0: 0}

    def visit(i):
        if i in ids:
            return ids[i]
        ids[i] = len(order) + 1
        order.append(None)
        slot = ids[i] - 1
        name, info, size, kind, vlen, extra = types[i]
        if kind in ('STRUCT', 'UNION'):
            members = [struct.unpack_from('<III', extra, 12 * m) for m in range(vlen)]
            extra = b''.join(struct.pack('<III', string(n), visit(t), o) for n, t, o in members)
        elif kind in ('TYPEDEF', 'VOLATILE', 'CONST', 'RESTRICT', 'TYPE_TAG'):
            size = visit(size)
        elif kind == 'PTR':
            size = 0
        elif kind == 'ARRAY':
            elem, index, n = struct.unpack('<III', extra)
            extra = struct.pack('<III', visit(elem), visit(index), n)
        elif kind == 'ENUM':
            values = [struct.unpack_from('<II', extra, 8 * m) for m in range(vlen)]
            extra = b''.join(struct.pack('<II', string(n), v) for n, v in values)
        elif kind == 'FUNC':
            size = visit(size)
        elif kind == 'FUNC_PROTO':
            size, info, extra = 0, KINDS['FUNC_PROTO'] << 24, b''
        order[slot] = struct.pack('<III', string(name), info, size) + extra
        return ids[i]

    wanted = {name.encode() for name in names}
    for i, entry in enumerate(types[1:], 1):
        if entry[3] in ('STRUCT', 'ENUM', 'FUNC', 'TYPEDEF') and text(entry[0]) in wanted:
            visit(i)
    body = b''.join(order)
    header = struct.pack('<HBBIIIII', 0xeB9F, 1, 0, 24, 0, len(body), len(body), len(new_strings))
    open(out, 'wb').write(header + body + bytes(new_strings))


main(sys.argv[1], sys.argv[2], sys.argv[3:])
