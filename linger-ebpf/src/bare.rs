//! The panic handler and the license, which every BPF object needs.

/// The programs cannot panic: the compiler has removed every panic as unreachable.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some kernel helpers are available only to programs under the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
