//! What this machine is called in images: as OCI, and Go, name platforms.

/// The architecture, such as `amd64`.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// The whole name, such as `linux/arm64`.
pub fn this_platform() -> String {
    format!("linux/{}", architecture())
}
