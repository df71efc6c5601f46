//! The configuration from file, flags and environment, and what is refused.

mod accepted;
mod binary;
mod changed;
mod fixture;
mod refused;
