//! The accelerators of this machine that the program was built for.

use std::fmt;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::Selected;
use crate::text::numbers::bytes;

/// An accelerator.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Adapter {
    /// `cuda`, `metal`, `vulkan` or `wgpu`.
    pub kind: String,
    /// Its number among the adapters of its kind.
    pub index: usize,
    /// As it names itself.
    pub name: String,
    /// Its driver, with the version.
    pub driver: String,
    /// Bytes of device-local memory, where the driver reports them.
    pub memory: Option<usize>,
    /// Whether a driver computes on the CPU.
    pub is_software: bool,
    /// How Burn finds it.
    pub(super) place: Place,
}

/// How Burn numbers an adapter: among those of its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) enum Place {
    /// By its number alone.
    #[default]
    Cuda,
    Discrete(usize),
    Integrated(usize),
    Virtual(usize),
    Software,
}

impl fmt::Display for Adapter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.word(), self.description())
    }
}

impl Adapter {
    /// The word of `--device` that names it.
    pub fn word(&self) -> String {
        format!("{}:{}", self.kind, self.index)
    }

    /// Name, driver and memory.
    pub fn description(&self) -> String {
        let memory = self.memory.map(bytes);
        let software = self.is_software.then(|| "a software driver, slower than --device cpu".to_owned());
        let driver = (!self.driver.is_empty()).then(|| self.driver.clone());
        let parts: Vec<String> = driver.into_iter().chain(memory).chain(software).collect();
        if parts.is_empty() { self.name.clone() } else { format!("{} ({})", self.name, parts.join(", ")) }
    }

    /// The device. It is opened when it first computes.
    pub fn select(&self) -> Selected {
        Selected { device: self.device(), word: self.word(), memory: self.memory }
    }

    fn device(&self) -> Device {
        match self.kind.as_str() {
            #[cfg(feature = "cuda")]
            "cuda" => Device::cuda(self.index),
            #[cfg(feature = "metal")]
            "metal" => Device::metal(self.place.kind()),
            #[cfg(feature = "vulkan")]
            "vulkan" => Device::vulkan(self.place.kind()),
            #[cfg(feature = "wgpu")]
            "wgpu" => Device::wgpu(self.place.kind()),
            // adapters of other kinds are never listed
            _ => Device::flex(),
        }
    }
}

/// All accelerators of this machine, by kind, the fastest kind first. Asks the drivers.
pub fn adapters() -> Vec<Adapter> {
    #[allow(unused_mut)]
    let mut all = Vec::new();
    #[cfg(feature = "cuda")]
    all.extend(cuda::adapters());
    #[cfg(feature = "metal")]
    all.extend(graphics::adapters("metal", &[graphics::METAL]));
    #[cfg(feature = "vulkan")]
    all.extend(graphics::adapters("vulkan", &[graphics::VULKAN]));
    #[cfg(feature = "wgpu")]
    all.extend(graphics::adapters("wgpu", graphics::AUTOMATIC));
    all
}

#[cfg(feature = "cuda")]
mod cuda {
    use burn::tensor::DeviceType;
    use cubecl::cuda::CudaDevice;

    use super::{Adapter, Device, Place};

    pub(super) fn adapters() -> Vec<Adapter> {
        (0..Device::enumerate(DeviceType::Cuda).len()).map(adapter).collect()
    }

    fn adapter(index: usize) -> Adapter {
        let client = cubecl::Device::Cuda(CudaDevice::new(index)).client();
        let properties = client.properties();
        Adapter {
            kind: "cuda".to_owned(),
            index,
            name: properties.identity.name.clone(),
            driver: driver(),
            memory: properties.memory.max_memory().and_then(|bytes| usize::try_from(bytes).ok()),
            is_software: false,
            place: Place::Cuda,
        }
    }

    /// The version of the kernel module, which is that of the driver.
    fn driver() -> String {
        let version = std::fs::read_to_string("/sys/module/nvidia/version").unwrap_or_default();
        if version.is_empty() { "CUDA".to_owned() } else { format!("NVIDIA {}", version.trim()) }
    }
}

#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
mod graphics {
    use burn::tensor::DeviceKind;
    use cubecl::future::block_on;
    use cubecl::wgpu::wgpu::{self, Backend, DeviceType, Instance, InstanceDescriptor};

    use super::{Adapter, Place};

    #[cfg(feature = "metal")]
    pub(super) const METAL: Backend = Backend::Metal;
    #[cfg(feature = "vulkan")]
    pub(super) const VULKAN: Backend = Backend::Vulkan;

    /// The graphics APIs among which cubecl chooses for `Device::wgpu`, in its order
    /// (cubecl-wgpu 0.11.3, `AutoGraphicsApi::chain`).
    #[cfg(feature = "wgpu")]
    pub(super) const AUTOMATIC: &[Backend] = if cfg!(target_os = "macos") {
        &[Backend::Metal]
    } else {
        &[Backend::Vulkan, Backend::Dx12, Backend::Gl]
    };

    impl Place {
        /// The same in Burn's words.
        pub(super) fn kind(self) -> DeviceKind {
            match self {
                Self::Discrete(number) => DeviceKind::DiscreteGpu(number),
                Self::Integrated(number) => DeviceKind::IntegratedGpu(number),
                Self::Virtual(number) => DeviceKind::VirtualGpu(number),
                Self::Software => DeviceKind::Cpu,
                Self::Cuda => DeviceKind::DefaultDevice,
            }
        }
    }

    /// The adapters of the first API that has a real one, else of the first that has any, as cubecl chooses.
    pub(super) fn adapters(kind: &str, apis: &[Backend]) -> Vec<Adapter> {
        let mut of_apis = apis.iter().map(|api| on(kind, *api)).filter(|found| !found.is_empty());
        let first = of_apis.next().unwrap_or_default();
        if first.iter().any(|adapter| !adapter.is_software) {
            return first;
        }
        of_apis.find(|found| found.iter().any(|adapter| !adapter.is_software)).unwrap_or(first)
    }

    fn on(kind: &str, api: Backend) -> Vec<Adapter> {
        let instance = Instance::new(InstanceDescriptor {
            backends: api.into(),
            ..InstanceDescriptor::new_without_display_handle()
        });
        let mut classes = [0; 3];
        let mut numbered = |class: usize| {
            classes[class] += 1;
            classes[class] - 1
        };
        let place = |class: DeviceType| match class {
            DeviceType::DiscreteGpu => Some(Place::Discrete(numbered(0))),
            DeviceType::IntegratedGpu => Some(Place::Integrated(numbered(1))),
            DeviceType::VirtualGpu => Some(Place::Virtual(numbered(2))),
            DeviceType::Cpu => Some(Place::Software),
            DeviceType::Other => None, // Burn 0.22 has no name for it
        };
        let found = block_on(instance.enumerate_adapters(api.into()));
        let places: Vec<Option<Place>> =
            found.iter().map(|found| found.get_info().device_type).map(place).collect();
        let named = found.iter().zip(places).filter_map(|(found, place)| Some((found, place?)));
        named.enumerate().map(|(index, (found, place))| adapter(kind, index, found, place)).collect()
    }

    fn adapter(kind: &str, index: usize, found: &wgpu::Adapter, place: Place) -> Adapter {
        let info = found.get_info();
        Adapter {
            kind: kind.to_owned(),
            index,
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            memory: memory(found),
            is_software: place == Place::Software,
            name: info.name,
            place,
        }
    }

    /// Bytes of the memory heaps on the adapter, which only Vulkan tells.
    fn memory(adapter: &wgpu::Adapter) -> Option<usize> {
        const DEVICE_LOCAL: u32 = 1; // VK_MEMORY_HEAP_DEVICE_LOCAL_BIT
        // SAFETY: the handles are used for one query, while the adapter lives.
        #[allow(unsafe_code)]
        let properties = unsafe {
            let vulkan = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
            let instance = vulkan.shared_instance().raw_instance();
            instance.get_physical_device_memory_properties(vulkan.raw_physical_device())
        };
        let heaps = &properties.memory_heaps[..properties.memory_heap_count as usize];
        let local = heaps.iter().filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0);
        usize::try_from(local.map(|heap| heap.size).sum::<u64>()).ok().filter(|bytes| *bytes > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_is_described_by_what_is_known_of_it() {
        let mut adapter = Adapter { kind: "wgpu".to_owned(), name: "Card".to_owned(), ..Adapter::default() };
        assert_eq!(adapter.to_string(), "wgpu:0: Card");
        adapter.memory = Some(8_000_000_000);
        adapter.driver = "radv Mesa 25".to_owned();
        assert_eq!(adapter.to_string(), "wgpu:0: Card (radv Mesa 25, 8.0 GB)");
        adapter.is_software = true;
        assert!(adapter.description().ends_with("a software driver, slower than --device cpu)"));
    }

    #[test]
    fn every_adapter_of_this_machine_has_a_word_of_its_own() {
        let words: Vec<String> = adapters().iter().map(Adapter::word).collect();
        let distinct: std::collections::BTreeSet<&String> = words.iter().collect();
        assert_eq!(distinct.len(), words.len(), "{words:?}");
    }
}
