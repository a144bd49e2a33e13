//! Values that are read from a device, and what is reported where it fails.

use std::fmt::Debug;

use burn::tensor::Tensor;

/// The values of an f32 tensor, in the host's memory. Waits for the device.
///
/// # Errors
/// When the device failed to compute them.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, DeviceError> {
    #[cfg(test)]
    tests::READS.set(tests::READS.get() + 1);
    let data = tensor.try_into_data().map_err(DeviceError::new)?;
    data.try_to_vec::<f32>().map_err(DeviceError::new)
}

/// The device failed to compute or to return its results.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DeviceError(String);

impl DeviceError {
    /// The failure that Burn reports, or the text of a panic.
    pub fn new(error: impl Debug) -> Self {
        let text = format!("{error:?}");
        Self(out_of_memory(&text).unwrap_or_else(|| first_causes(&text)))
    }
}

/// The texts of cubecl 0.11 (`IoError` in cubecl-runtime) before the number of bytes, where memory runs out.
const FAILED_ALLOCATIONS: [&str; 2] = ["can't allocate buffer of size: ", "out of device memory allocating "];

fn out_of_memory(text: &str) -> Option<String> {
    let mut found = FAILED_ALLOCATIONS.iter().filter_map(|said| text.split_once(said));
    let (_, after) = found.next()?;
    let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    let bytes: u64 = after[..end].parse().ok()?;
    Some(format!(
        "the device cannot hold a tensor of {:.1} MB ({bytes} bytes): its memory is full, or its driver limits one \
         buffer to less. Smaller batches (train.batch_size with train.micro_batches, evaluate.batch_size) and \
         model.frozen_type=bf16 take less",
        bytes as f64 / 1e6
    ))
}

/// The text without empty lines and backtraces, in one line.
fn first_causes(text: &str) -> String {
    const NOISE: [&str; 6] =
        ["Backtrace", "No backtrace", "Asked at", "Caused by", "skipped `", "Several failures at once"];
    let lines = text.lines().map(str::trim);
    let causes = lines.filter(|line| !line.is_empty() && !NOISE.iter().any(|noise| line.starts_with(noise)));
    let causes: Vec<&str> = causes.collect();
    causes.join(": ").chars().take(1000).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// Tensors that this thread read from a device. Generation reads none in another way:
        /// `tests/tests/structure.rs` tests that.
        pub(crate) static READS: Cell<usize> = const { Cell::new(0) };
    }

    /// A debug form that is the text itself, as cubecl's errors have.
    struct Said(&'static str);

    impl Debug for Said {
        fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str(self.0)
        }
    }

    #[test]
    fn a_failed_allocation_states_its_size_and_what_takes_less() {
        for said in [
            "An error happened\nCaused by:\n  can't allocate buffer of size: 263192576\nNo backtrace available",
            "out of device memory allocating 263192576 bytes\n",
        ] {
            let message = DeviceError::new(Said(said)).to_string();
            assert!(
                message.contains("263.2 MB (263192576 bytes)") && message.contains("train.micro_batches"),
                "{message}"
            );
        }
    }

    #[test]
    fn other_failures_keep_their_causes_in_one_line() {
        let said = "An error happened\nCaused by:\n  A kernel failed\n\nBacktrace:\nNo backtrace available\n";
        assert_eq!(DeviceError::new(Said(said)).to_string(), "An error happened: A kernel failed");
        assert_eq!(DeviceError::new("plain").to_string(), "\"plain\"");
    }
}
