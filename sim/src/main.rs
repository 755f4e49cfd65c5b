//! The simulator's command line: see [`command`].

mod command;

fn main() -> std::process::ExitCode {
    command::main()
}
