//! `--device`: from a word to a device of this machine, its adapters, and the test that a device computes
//! what the CPU computes.

mod adapters;
mod child;
mod self_test;

use anyhow::{bail, ensure};
use burn::tensor::Device;

pub use adapters::{Adapter, adapters};
pub use child::{Report, examine, list, open, serve_if_child};
pub use self_test::Measured;

/// Every word that `--device` accepts.
pub const WORDS: &str = "auto, cpu, cuda, wgpu, vulkan, metal, or one of several, as in cuda:1";

/// The kinds of accelerators, the fastest first, each with whether the program was built with it.
pub const KINDS: [(&str, bool); 4] = [
    ("cuda", cfg!(feature = "cuda")),
    ("metal", cfg!(feature = "metal")),
    ("vulkan", cfg!(feature = "vulkan")),
    ("wgpu", cfg!(feature = "wgpu")),
];

/// Whether the program was built with any accelerator.
fn has_accelerators() -> bool {
    KINDS.iter().any(|(_, is_built)| *is_built)
}

/// A device and the word that names it.
#[derive(Debug, Clone)]
pub struct Selected {
    /// The device.
    pub device: Device,
    /// `cpu`, or a kind and a number, as in `cuda:0`; never `auto`.
    pub word: String,
    /// Bytes of an accelerator's memory, where its driver reports them.
    pub memory: Option<usize>,
}

impl Selected {
    /// The CPU.
    pub fn cpu() -> Self {
        Self { device: Device::flex(), word: "cpu".to_owned(), memory: None }
    }
}

/// The device of a word. `auto` is an accelerator where there is one, and never a software adapter, which
/// is slower than the CPU.
///
/// # Errors
/// When the word is unknown, the program was built without that device, or the machine has none.
pub fn select(word: &str) -> anyhow::Result<Selected> {
    if is_cpu(word)? {
        return Ok(Selected::cpu());
    }
    choose(word, &adapters()).map(|adapter| adapter.map_or_else(Selected::cpu, Adapter::select))
}

/// Whether a word names the CPU: no driver has to be asked, and none can crash.
///
/// # Errors
/// When the word is unknown, or the program was built without that device.
pub fn is_cpu(word: &str) -> anyhow::Result<bool> {
    let (kind, _) = parse(word)?;
    match KINDS.into_iter().find(|(name, _)| *name == kind) {
        Some((_, true)) => Ok(false),
        Some((_, false)) => bail!(
            "--device {word}: this program was built without it; \
             build with `cargo run --features {kind} -p experiments -- ...`, or use --device cpu"
        ),
        None => Ok(kind == "cpu" || !has_accelerators()),
    }
}

/// The adapter that a word names among those of this machine; none is the CPU.
///
/// # Errors
/// When the word is unknown, or no adapter has this kind and number.
pub fn choose<'a>(word: &str, adapters: &'a [Adapter]) -> anyhow::Result<Option<&'a Adapter>> {
    let (kind, index) = parse(word)?;
    match kind {
        "cpu" => return Ok(None),
        "auto" => return Ok(adapters.iter().find(|adapter| !adapter.is_software)),
        _ => {}
    }
    let of_kind: Vec<&Adapter> = adapters.iter().filter(|adapter| adapter.kind == kind).collect();
    let chosen = match index {
        Some(index) => of_kind.iter().find(|adapter| adapter.index == index),
        // a software adapter only where there is no other
        None => of_kind.iter().find(|adapter| !adapter.is_software).or(of_kind.first()),
    };
    let found: Vec<String> = of_kind.iter().map(|adapter| adapter.to_string()).collect();
    let next = "`experiments doctor` prints the devices of this machine; try --device cpu";
    ensure!(!found.is_empty(), "--device {word}: this machine has no {kind} device; {next}");
    ensure!(
        chosen.is_some(),
        "--device {word}: this machine has {} of this kind: {}; {next}",
        found.len(),
        found.join("; ")
    );
    Ok(chosen.copied())
}

/// Kind and number of a word.
fn parse(word: &str) -> anyhow::Result<(&str, Option<usize>)> {
    let (kind, index) = match word.split_once(':') {
        Some((kind, index)) => match index.parse::<usize>() {
            Ok(index) => (kind, Some(index)),
            Err(_) => bail!("--device {word}: \"{index}\" is not a device number; expected {WORDS}"),
        },
        None => (word, None),
    };
    let is_accelerator = KINDS.iter().any(|(name, _)| *name == kind);
    let is_known = is_accelerator || (index.is_none() && ["auto", "cpu"].contains(&kind));
    ensure!(is_known, "--device {word}: unknown; expected one of {WORDS}");
    Ok((kind, index))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(kind: &str, index: usize, is_software: bool) -> Adapter {
        Adapter {
            kind: kind.to_owned(),
            index,
            is_software,
            name: format!("{kind} {index}"),
            ..Adapter::default()
        }
    }

    #[test]
    fn auto_is_reported_as_the_device_that_it_chose() {
        let chosen = select("auto").unwrap();
        assert_ne!(chosen.word, "auto");
        if !has_accelerators() {
            assert_eq!(chosen.word, "cpu");
        }
    }

    #[test]
    fn auto_never_chooses_a_software_adapter() {
        let software = adapter("wgpu", 0, true);
        assert_eq!(choose("auto", std::slice::from_ref(&software)).unwrap(), None);
        let all = [software, adapter("wgpu", 1, false)];
        assert_eq!(choose("auto", &all).unwrap(), Some(&all[1]));
    }

    #[test]
    fn a_kind_without_a_number_is_its_first_real_adapter_and_a_number_is_what_it_says() {
        let all = [adapter("wgpu", 0, true), adapter("wgpu", 1, false), adapter("vulkan", 0, true)];
        let word = |word: &str| choose(word, &all).unwrap().unwrap().word();
        assert_eq!(word("wgpu"), "wgpu:1");
        assert_eq!(word("wgpu:0"), "wgpu:0");
        assert_eq!(word("vulkan"), "vulkan:0", "named, although it is a software adapter");
        let refused = choose("wgpu:2", &all).unwrap_err().to_string();
        assert!(refused.contains("has 2 of this kind") && refused.contains("wgpu 1"), "{refused}");
        assert!(choose("metal", &all).unwrap_err().to_string().contains("no metal device"));
    }

    #[test]
    fn unknown_words_and_devices_that_were_not_built_in_are_refused_with_the_next_step() {
        for word in ["gpu", "auto:1", "cpu:0", ""] {
            assert!(select(word).unwrap_err().to_string().contains("cuda:1"), "{word}");
        }
        assert!(select("cuda:x").unwrap_err().to_string().contains("device number"));
        if cfg!(not(feature = "vulkan")) {
            assert!(select("vulkan").unwrap_err().to_string().contains("--features vulkan"));
        }
    }
}
