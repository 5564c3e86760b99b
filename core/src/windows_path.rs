//! Paths in Windows containers.

/// The path of a file in a Windows container that a volume mounts at this absolute path.
pub fn path_on_windows(path: &str) -> String {
    ["C:", &path.replace('/', "\\")].concat()
}
