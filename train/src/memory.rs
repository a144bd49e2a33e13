//! The allocator of programs that train.

use libmimalloc_sys::{mi_option_set, mi_option_t};

/// Milliseconds after which freed memory returns to the system; the crate's list has a gap here, between
/// `mi_option_eager_commit_delay` (14) and `mi_option_use_numa_nodes` (16).
const PURGE_DELAY: mi_option_t = 15;

/// Keeps memory that mimalloc, the allocator of these programs, has once taken from the system. A step frees
/// and takes as much as the step before, and the system clears every page anew: up to a third of a step.
/// Called once, before any other thread exists.
pub fn keep_freed() {
    // SAFETY: the option exists, and no other thread reads options yet.
    #[allow(unsafe_code)]
    unsafe {
        mi_option_set(PURGE_DELAY, -1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of the option is that of mimalloc 3: its default comes from a variable of this name.
    #[test]
    fn the_option_is_the_delay_of_purging() {
        if std::env::var_os("MIMALLOC_PURGE_DELAY").is_some_and(|delay| delay == "4321") {
            // SAFETY: options may be read at any time.
            #[allow(unsafe_code)]
            let delay = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
            assert_eq!(delay(), 4321);
            keep_freed();
            assert_eq!(delay(), -1);
            return;
        }
        let test = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "memory::tests::the_option_is_the_delay_of_purging"])
            .env("MIMALLOC_PURGE_DELAY", "4321")
            .output()
            .unwrap();
        assert!(test.status.success(), "{}", String::from_utf8_lossy(&test.stdout));
    }
}
