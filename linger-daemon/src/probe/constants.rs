//! Writes constants into the instructions of the compiled programs, in place of their placeholders.

use std::ops::Range;

use linger_ebpf::constants::{of_displacement, of_immediate};
use linger_ebpf::{Constants, Offsets};

use super::error::AttachError;

/// An instruction, with its displacement and its immediate value, in the byte order of this machine.
///
/// kernel: v3.18.. include/uapi/linux/bpf.h: `struct bpf_insn`
type Instruction = [u8; 8];
const DISPLACEMENT: Range<usize> = 2..4;
const IMMEDIATE: Range<usize> = 4..8;

/// Instruction classes, in the lowest bits of the first byte.
const CLASS: u8 = 0x07;
const LDX: u8 = 0x01;
const ALU: u8 = 0x04;
const ALU64: u8 = 0x07;

pub(super) fn fill(code: &mut [u8], constants: &Constants) -> Result<(), AttachError> {
    let words = constants.words();
    let (instructions, _) = code.as_chunks_mut();
    instructions
        .iter_mut()
        .try_for_each(|instruction| fill_instruction(instruction, &words))
}

fn fill_instruction(
    instruction: &mut Instruction,
    words: &[u32; Constants::COUNT],
) -> Result<(), AttachError> {
    let [kind, _, low, high, immediate @ ..] = *instruction;
    match kind & CLASS {
        LDX => {
            if let Some((index, plus)) = of_displacement(i16::from_ne_bytes([low, high])) {
                // Without the field, this instruction is unreachable, as the verifier finds out.
                let offset = match words[index] {
                    Offsets::ABSENT => 0,
                    offset => offset + plus,
                };
                let offset = i16::try_from(offset).map_err(|_| {
                    AttachError::Refused(format!(
                        "a field of the kernel is {offset} bytes into its struct, more than an instruction can say"
                    ))
                })?;
                instruction[DISPLACEMENT].copy_from_slice(&offset.to_ne_bytes());
            }
        }
        ALU | ALU64 => {
            if let Some((index, plus)) = of_immediate(i32::from_ne_bytes(immediate)) {
                let value = words[index].wrapping_add(plus);
                instruction[IMMEDIATE].copy_from_slice(&value.to_ne_bytes());
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use linger_ebpf::constants::{displacement, immediate};

    use super::*;

    #[test]
    fn placeholders_are_replaced_in_loads_and_additions() {
        let mut words = [0; Constants::COUNT];
        words[1] = 520;
        let mut load = [0x79, 0, 0, 0, 1, 2, 3, 4];
        load[DISPLACEMENT].copy_from_slice(&displacement(1, 8).to_ne_bytes());
        fill_instruction(&mut load, &words).unwrap();
        assert_eq!(load[DISPLACEMENT], 528_i16.to_ne_bytes());
        assert_eq!(load[IMMEDIATE], [1, 2, 3, 4]);

        let mut add = [0x07, 0, 0, 0, 0, 0, 0, 0];
        add[IMMEDIATE].copy_from_slice(&immediate(1, 0).to_ne_bytes());
        fill_instruction(&mut add, &words).unwrap();
        assert_eq!(add[IMMEDIATE], 520_u32.to_ne_bytes());

        // A store and a jump with the same displacement stay as they are.
        for kind in [0x7b, 0x05] {
            let mut other = [kind, 0, 0, 0, 0, 0, 0, 0];
            other[DISPLACEMENT].copy_from_slice(&displacement(1, 8).to_ne_bytes());
            let before = other;
            fill_instruction(&mut other, &words).unwrap();
            assert_eq!(other, before);
        }
    }

    #[test]
    fn a_field_that_is_absent_or_too_far() {
        let mut words = [0; Constants::COUNT];
        words[1] = Offsets::ABSENT;
        words[2] = 40_000;
        let load = |index| {
            let mut load = [0x61, 0, 0, 0, 0, 0, 0, 0];
            load[DISPLACEMENT].copy_from_slice(&displacement(index, 0).to_ne_bytes());
            load
        };
        let mut absent = load(1);
        fill_instruction(&mut absent, &words).unwrap();
        assert_eq!(absent[DISPLACEMENT], [0, 0]);
        let refused = fill_instruction(&mut load(2), &words).unwrap_err();
        assert!(refused.detail().contains("40000 bytes"), "{refused}");
    }
}
