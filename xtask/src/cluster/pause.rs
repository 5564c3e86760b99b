//! Holds a pod's namespaces, and does nothing else. Compiled on its own into a static program for the sandbox image.

fn main() {
    loop {
        std::thread::park();
    }
}
