//! What the arguments of each hook mean: every program makes one call of the model.

/// A program under several names. All are attached where the kernel preempts, and find what the first of them
/// did; elsewhere only the first is.
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
