//! The hooks: every program translates its arguments into one call of the model.

/// A program under several names. Where the kernel skips programs and nothing else makes up for it, all copies are
/// attached, and notice what an earlier one has done; elsewhere only the first is attached.
macro_rules! again {
    ($(#[$attribute:meta])+ $($name:ident),+ = |$ctx:ident: $context:ident| $body:block) => {
        again! { @ [$(#[$attribute])+] [$($name)+] $ctx $context $body }
    };
    (@ $attributes:tt [$($name:ident)+] $ctx:ident $context:ident $body:block) => {
        $(again! { % $attributes $name $ctx $context $body })+
    };
    (% [$($attribute:tt)+] $name:ident $ctx:ident $context:ident $body:block) => {
        $($attribute)+
        fn $name($ctx: $context) -> i32 {
            $body;
            0
        }
    };
}

mod common;
mod fentry;
mod kprobe;
mod tracepoint;
