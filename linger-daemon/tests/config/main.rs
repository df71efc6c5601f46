//! What the file, the flags and the environment come to, and what is refused.

mod accepted;
mod binary;
mod changed;
mod fixture;
mod refused;
