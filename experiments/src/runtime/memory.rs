//! Peak memory of a run.

use burn::tensor::Device;
use std::fs;

/// Measures the peak memory of the process since this value was made.
///
/// Linux records the peak and resets it on request, so that each run of a study has its own. Other systems
/// record it for the whole life of the process; nothing is reported there.
#[derive(Debug)]
pub struct PeakMemory {
    is_reset: bool,
}

impl PeakMemory {
    /// Resets the peak.
    #[must_use]
    pub fn watch() -> Self {
        // proc(5): 5 sets the peak resident set size to the present one
        Self { is_reset: fs::write("/proc/self/clear_refs", "5").is_ok() }
    }

    /// Peak physical memory since then, bytes; none where the system does not report it.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let status = self.is_reset.then(|| fs::read_to_string("/proc/self/status").ok())??;
        peak(&status)
    }
}

/// `VmHWM` of `/proc/PID/status`, in bytes.
fn peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Bytes of this machine's memory that a study may be planned for, within the limit of the program's control
/// group. What other programs hold at the moment is not subtracted, as a study takes hours.
#[must_use]
pub fn of_machine() -> usize {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let of_group = system.cgroup_limits().map(|limits| limits.total_memory);
    let total = of_group.map_or(system.total_memory(), |group| group.min(system.total_memory()));
    plannable(usize::try_from(total).unwrap_or(usize::MAX))
}

/// Bytes of a memory that a study may be planned for. A tenth is kept: system or driver need some, and
/// a plan was up to 12 % below what its run took (docs/results/rehearsal.md).
#[must_use]
pub fn plannable(total: usize) -> usize {
    total / 10 * 9
}

/// Bytes that the program's memory pools hold on a device, which is close to the peak because pools do not
/// shrink. None where the backend has no such number, as on the CPU, which [`PeakMemory`] covers.
#[must_use]
pub fn of_device(device: &Device) -> Option<u64> {
    device.memory_pool_usage().map(|usage| usage.bytes_reserved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_runs_this_has_memory() {
        assert!(of_machine() > 100_000_000);
    }

    #[test]
    fn the_peak_is_read_from_proc_status() {
        assert_eq!(peak("Name:\tx\nVmPeak:\t   99 kB\nVmHWM:\t  343736 kB\n"), Some(343_736 * 1024));
        assert_eq!(peak("VmHWM:\tmuch\n"), None);
        assert_eq!(peak(""), None);
    }
}
