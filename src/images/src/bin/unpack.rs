//! The confined child that unpacks one layer; the `rk` binary plays the same role under the name `rk-unpack`.
fn main() -> std::process::ExitCode {
    images::unpack::main()
}
