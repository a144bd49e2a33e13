//! `--device`: from a word to a device of this machine.

use anyhow::bail;
use burn::tensor::Device;

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
    let word = if word == "auto" { best_compiled() } else { word };
    let (kind, index) = match word.split_once(':') {
        Some((kind, index)) => match index.parse::<usize>() {
            Ok(index) => (kind, index),
            Err(_) => bail!("--device {word}: \"{index}\" is not a device number; expected {WORDS}"),
        },
        None => (word, 0),
    };
    let (device, burn_name) = match kind {
        "cpu" => (Device::flex(), CPU),
        "cuda" => (cuda(index)?, if index == 0 { "cuda" } else { CPU }),
        "wgpu" => (wgpu()?, "wgpu"),
        "vulkan" => (vulkan()?, "vulkan"),
        "metal" => (metal()?, "metal"),
        _ => bail!("--device {word}: unknown; expected one of {WORDS}"),
    };
    Ok(Selected { device, word: word.to_owned(), burn_name })
}

/// The fastest device that the program was built with and the machine has.
fn best_compiled() -> &'static str {
    #[cfg(feature = "cuda")]
    if has(burn::tensor::DeviceType::Cuda) {
        return "cuda";
    }
    #[cfg(feature = "metal")]
    if has(burn::tensor::DeviceType::Metal) {
        return "metal";
    }
    #[cfg(feature = "vulkan")]
    if has(burn::tensor::DeviceType::Vulkan) {
        return "vulkan";
    }
    #[cfg(feature = "wgpu")]
    if has(burn::tensor::DeviceType::Wgpu) {
        return "wgpu";
    }
    "cpu"
}

#[cfg(any(feature = "cuda", feature = "metal", feature = "vulkan", feature = "wgpu"))]
fn has(kind: burn::tensor::DeviceType) -> bool {
    !Device::enumerate(kind).is_empty()
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> anyhow::Result<Device> {
    let found = Device::enumerate(burn::tensor::DeviceType::Cuda).len();
    if index >= found {
        bail!("--device cuda:{index}: this machine has {found} CUDA devices; try --device cpu");
    }
    Ok(Device::cuda(index))
}

#[cfg(not(feature = "cuda"))]
fn cuda(_index: usize) -> anyhow::Result<Device> {
    bail!(missing("cuda"))
}

fn wgpu() -> anyhow::Result<Device> {
    #[cfg(not(feature = "wgpu"))]
    bail!(missing("wgpu"));
    #[cfg(feature = "wgpu")]
    Ok(Device::wgpu(burn::tensor::DeviceKind::default()))
}

fn vulkan() -> anyhow::Result<Device> {
    #[cfg(not(feature = "vulkan"))]
    bail!(missing("vulkan"));
    #[cfg(feature = "vulkan")]
    Ok(Device::vulkan(burn::tensor::DeviceKind::default()))
}

fn metal() -> anyhow::Result<Device> {
    #[cfg(not(feature = "metal"))]
    bail!(missing("metal"));
    #[cfg(feature = "metal")]
    Ok(Device::metal(burn::tensor::DeviceKind::default()))
}

#[cfg(not(all(feature = "cuda", feature = "wgpu", feature = "vulkan", feature = "metal")))]
fn missing(feature: &str) -> String {
    format!(
        "--device {feature}: this program was built without it; \
         build with `cargo run --features {feature} -p experiments -- ...`, or use --device cpu"
    )
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
