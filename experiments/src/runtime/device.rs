//! `--device`: from a word to a device of this machine.

use anyhow::{bail, ensure};
use burn::tensor::{Device, DeviceType};

/// Every word that `--device` accepts.
pub const WORDS: &str = "auto, cpu, cuda, cuda:1, wgpu, vulkan, metal";

/// Burn's name of the CPU.
const CPU: &str = "flex";

/// A device and the names by which it is chosen.
#[derive(Debug, Clone)]
pub struct Selected {
    /// The device.
    pub device: Device,
    /// The word that names it; `auto` is replaced by what it chose.
    pub word: String,
    /// The value of `BURN_DEVICE` that makes it Burn's default device. Burn can name only the first CUDA
    /// device; for another one the default is the CPU, so that library code which asks for the default
    /// allocates nothing on the first.
    pub burn_name: &'static str,
}

/// The device of a word. It changes nothing in the process; [`Selected::burn_name`] is for `main`.
///
/// # Errors
/// When the word is unknown, the program was built without that device, or the machine has none.
pub fn select(word: &str) -> anyhow::Result<Selected> {
    let best = || BUILT.iter().find(|(_, kind, _)| !Device::enumerate(kind.clone()).is_empty());
    let word = if word == "auto" { best().map_or("cpu", |(name, ..)| name) } else { word };
    let (kind, index) = match word.split_once(':') {
        Some((kind, index)) => match index.parse::<usize>() {
            Ok(index) => (kind, index),
            Err(_) => bail!("--device {word}: \"{index}\" is not a device number; expected {WORDS}"),
        },
        None => (word, 0),
    };
    let (device, burn_name) = match kind {
        "cpu" => (Device::flex(), CPU),
        "cuda" | "wgpu" | "vulkan" | "metal" => accelerator(kind, index)?,
        _ => bail!("--device {word}: unknown; expected one of {WORDS}"),
    };
    Ok(Selected { device, word: word.to_owned(), burn_name })
}

/// Every kind of accelerator, and how many this machine has; none where the program was built without it.
pub fn accelerators() -> [(&'static str, Option<usize>); 4] {
    ["cuda", "metal", "vulkan", "wgpu"].map(|word| {
        let is_built = BUILT.iter().any(|(name, ..)| *name == word);
        (word, is_built.then(|| count(word)))
    })
}

/// How many devices this machine has of the kind that a word names; 0 of the CPU.
pub fn count(word: &str) -> usize {
    let kind = word.split(':').next().unwrap_or_default();
    let built = BUILT.iter().find(|(name, ..)| *name == kind);
    built.map_or(0, |(_, kind, _)| Device::enumerate(kind.clone()).len())
}

/// The name, the type and the constructor of an accelerator; the constructor takes the device's number.
type Accelerator = (&'static str, DeviceType, fn(usize) -> Device);

/// The accelerators that the program was built with, the fastest first.
const BUILT: &[Accelerator] = &[
    #[cfg(feature = "cuda")]
    ("cuda", DeviceType::Cuda, Device::cuda),
    #[cfg(feature = "metal")]
    ("metal", DeviceType::Metal, |_| Device::metal(burn::tensor::DeviceKind::default())),
    #[cfg(feature = "vulkan")]
    ("vulkan", DeviceType::Vulkan, |_| Device::vulkan(burn::tensor::DeviceKind::default())),
    #[cfg(feature = "wgpu")]
    ("wgpu", DeviceType::Wgpu, |_| Device::wgpu(burn::tensor::DeviceKind::default())),
];

/// An accelerator, and the value of `BURN_DEVICE` that goes with it.
fn accelerator(word: &str, index: usize) -> anyhow::Result<(Device, &'static str)> {
    let Some(&(name, ref kind, open)) = BUILT.iter().find(|(name, ..)| *name == word) else {
        bail!(
            "--device {word}: this program was built without it; \
             build with `cargo run --features {word} -p experiments -- ...`, or use --device cpu"
        )
    };
    if name != "cuda" {
        return Ok((open(index), name));
    }
    let found = Device::enumerate(kind.clone()).len();
    ensure!(index < found, "--device cuda:{index}: this machine has {found} CUDA devices; try --device cpu");
    Ok((open(index), if index == 0 { name } else { CPU }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_reported_as_the_device_that_it_chose() {
        let chosen = select("auto").unwrap();
        assert_ne!(chosen.word, "auto");
        if cfg!(not(any(feature = "cuda", feature = "wgpu", feature = "vulkan", feature = "metal"))) {
            assert_eq!((chosen.word.as_str(), chosen.burn_name), ("cpu", "flex"));
        }
    }

    #[test]
    fn unknown_words_and_devices_that_were_not_built_in_are_refused_with_the_next_step() {
        assert!(select("gpu").unwrap_err().to_string().contains("cuda:1"));
        assert!(select("cuda:x").unwrap_err().to_string().contains("device number"));
        if cfg!(not(feature = "vulkan")) {
            assert!(select("vulkan").unwrap_err().to_string().contains("--features vulkan"));
        }
    }

    #[test]
    fn choosing_a_device_changes_no_environment_variable() {
        let before = std::env::var_os("BURN_DEVICE");
        select("cpu").unwrap();
        assert_eq!(std::env::var_os("BURN_DEVICE"), before);
    }
}
