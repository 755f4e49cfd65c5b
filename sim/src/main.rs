//! The simulator's command line: see [`command`].

mod command;

/// Replicas and messages come in small pieces that live for a moment: an allocator made for that saves a tenth.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    command::main()
}
