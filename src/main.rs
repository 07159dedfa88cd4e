//! The `ring53` binary: everything it does is in [`ring53::server`].

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    ring53::server::main()
}
