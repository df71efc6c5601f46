//! The hooks: every program translates its arguments into one call of the model.

/// Defines a program and its copies, one for each name: see [`crate::model::copies`]. Where the kernel skips no
/// programs, only the first is attached.
macro_rules! copies {
    ($(#[$attribute:meta])+ $($name:ident),+ = |$ctx:ident: $context:ident| $body:block) => {
        copies! { @ [$(#[$attribute])+] [$($name)+] $ctx $context $body }
    };
    (@ $attributes:tt [$($name:ident)+] $ctx:ident $context:ident $body:block) => {
        $(copies! { % $attributes $name $ctx $context $body })+
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
