//! How much memory a run took at its most.

use burn::tensor::Device;
use std::fs;

/// Watches the process's memory from its making on.
///
/// Linux keeps the most memory that a process ever had, and forgets it on request, which is what lets one run of a grid be
/// told from the run before. Other systems only keep it for the process's whole life; there nothing is told.
#[derive(Debug)]
pub struct PeakMemory {
    starts_anew: bool,
}

impl PeakMemory {
    /// From now on.
    #[must_use]
    pub fn watch() -> Self {
        // proc(5): 5 sets the peak resident set size to the present one
        Self { starts_anew: fs::write("/proc/self/clear_refs", "5").is_ok() }
    }

    /// The most bytes of physical memory since then; none where the system does not tell.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let status = self.starts_anew.then(|| fs::read_to_string("/proc/self/status").ok())??;
        peak(&status)
    }
}

/// `VmHWM` of `/proc/PID/status`, in bytes.
fn peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The bytes that the program's pools hold of a device's memory: near enough the most it needed so far, as a pool keeps
/// what it has. None where the backend does not tell, as on the CPU, where [`PeakMemory`] has it all.
#[must_use]
pub fn of_device(device: &Device) -> Option<u64> {
    device.memory_pool_usage().map(|usage| usage.bytes_reserved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read_as_proc_writes_it() {
        assert_eq!(peak("Name:\tx\nVmPeak:\t   99 kB\nVmHWM:\t  343736 kB\n"), Some(343_736 * 1024));
        assert_eq!(peak("VmHWM:\tmuch\n"), None);
        assert_eq!(peak(""), None);
    }
}
