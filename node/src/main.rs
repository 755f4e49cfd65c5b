//! Entry point: hands the command line to [`waystation::cli`].

fn main() -> std::process::ExitCode {
    waystation::cli::main()
}
