//! In a separate process: other tests' memory would count.

use experiments::runtime::memory::PeakMemory;

#[test]
fn the_peak_is_that_since_the_watch_began() {
    let before = {
        let watch = PeakMemory::watch();
        let block = vec![1u8; 256 << 20];
        assert_eq!(block.iter().map(|&byte| u64::from(byte)).sum::<u64>(), 256 << 20);
        watch.bytes()
    };
    let after = PeakMemory::watch().bytes();
    match (before, after) {
        (Some(before), Some(after)) => {
            assert!(before > 256 << 20, "{before}");
            assert!(after + (128 << 20) < before, "the block is forgotten: {after} after {before}");
        }
        peaks => assert_eq!((peaks, cfg!(target_os = "linux")), ((None, None), false), "Linux reports it"),
    }
}
