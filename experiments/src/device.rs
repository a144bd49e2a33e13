//! `--device`: words to devices that are there.

use anyhow::bail;
use burn::tensor::Device;

/// Every word that `--device` takes.
pub const WORDS: &str = "auto, cpu, cuda, cuda:1, wgpu, vulkan, metal";

/// The device of that name.
///
/// Library code asks for Burn's default device here and there, so that default is set to the same one; call this
/// before any tensor or thread is made.
///
/// # Errors
/// When the word is unknown, the program was built without that device, or the machine has none.
pub fn select(word: &str) -> anyhow::Result<Device> {
    let (kind, index) = match word.split_once(':') {
        Some((kind, index)) => match index.parse::<usize>() {
            Ok(index) => (kind, index),
            Err(_) => bail!("--device {word}: \"{index}\" is not a device number; expected {WORDS}"),
        },
        None => (word, 0),
    };
    let (device, burn_name) = match kind {
        "auto" => return select(resolve(word)),
        "cpu" => (Device::flex(), "flex"),
        "cuda" => (cuda(index)?, "cuda"),
        "wgpu" => (wgpu()?, "wgpu"),
        "vulkan" => (vulkan()?, "vulkan"),
        "metal" => (metal()?, "metal"),
        _ => bail!("--device {word}: unknown; expected one of {WORDS}"),
    };
    // SAFETY: called once at the program's start, before any other thread exists.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("BURN_DEVICE", burn_name);
    }
    Ok(device)
}

/// The word for what a word chooses on this machine: that of the device behind `auto`, any other word itself.
pub fn resolve(word: &str) -> &str {
    if word == "auto" { best_compiled() } else { word }
}

fn best_compiled() -> &'static str {
    #[cfg(feature = "cuda")]
    if !Device::enumerate(burn::tensor::DeviceType::Cuda).is_empty() {
        return "cuda";
    }
    if cfg!(feature = "metal") {
        "metal"
    } else if cfg!(feature = "vulkan") {
        "vulkan"
    } else if cfg!(feature = "wgpu") {
        "wgpu"
    } else {
        "cpu"
    }
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

#[cfg(feature = "wgpu")]
fn wgpu() -> anyhow::Result<Device> {
    Ok(Device::wgpu(burn::tensor::DeviceKind::default()))
}

#[cfg(not(feature = "wgpu"))]
fn wgpu() -> anyhow::Result<Device> {
    bail!(missing("wgpu"))
}

#[cfg(feature = "vulkan")]
fn vulkan() -> anyhow::Result<Device> {
    Ok(Device::vulkan(burn::tensor::DeviceKind::default()))
}

#[cfg(not(feature = "vulkan"))]
fn vulkan() -> anyhow::Result<Device> {
    bail!(missing("vulkan"))
}

#[cfg(feature = "metal")]
fn metal() -> anyhow::Result<Device> {
    Ok(Device::metal(burn::tensor::DeviceKind::default()))
}

#[cfg(not(feature = "metal"))]
fn metal() -> anyhow::Result<Device> {
    bail!(missing("metal"))
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
    fn auto_is_told_as_what_it_chose() {
        assert_ne!(resolve("auto"), "auto");
        assert_eq!(resolve("cuda:1"), "cuda:1");
        if cfg!(not(any(feature = "cuda", feature = "wgpu", feature = "vulkan", feature = "metal"))) {
            assert_eq!(resolve("auto"), "cpu");
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
}
