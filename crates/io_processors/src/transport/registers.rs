//! The registers of 4.2.2, but those of the interrupt.

use serde::{Deserialize, Serialize};

/// Offsets of the registers, in bytes (4.2.2, table 4.1).
pub(crate) mod offset {
    pub(crate) const MAGIC_VALUE: u64 = 0x000;
    pub(crate) const VERSION: u64 = 0x004;
    pub(crate) const DEVICE_ID: u64 = 0x008;
    pub(crate) const VENDOR_ID: u64 = 0x00c;
    pub(crate) const DEVICE_FEATURES: u64 = 0x010;
    pub(crate) const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub(crate) const DRIVER_FEATURES: u64 = 0x020;
    pub(crate) const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub(crate) const QUEUE_SEL: u64 = 0x030;
    pub(crate) const QUEUE_NUM_MAX: u64 = 0x034;
    pub(crate) const QUEUE_NUM: u64 = 0x038;
    pub(crate) const QUEUE_READY: u64 = 0x044;
    pub(crate) const QUEUE_NOTIFY: u64 = 0x050;
    pub(crate) const INTERRUPT_STATUS: u64 = 0x060;
    pub(crate) const INTERRUPT_ACK: u64 = 0x064;
    pub(crate) const STATUS: u64 = 0x070;
    pub(crate) const QUEUE_DESC_LOW: u64 = 0x080;
    pub(crate) const QUEUE_DESC_HIGH: u64 = 0x084;
    pub(crate) const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub(crate) const QUEUE_DRIVER_HIGH: u64 = 0x094;
    pub(crate) const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    pub(crate) const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    pub(crate) const SHM_SEL: u64 = 0x0ac;
    pub(crate) const SHM_FIRST: u64 = 0x0b0;
    pub(crate) const SHM_LAST: u64 = 0x0bc;
    pub(crate) const CONFIG_GENERATION: u64 = 0x0fc;
    pub(crate) const CONFIG: u64 = 0x100;
}

/// Bits of the device status (2.1).
pub(crate) mod status {
    pub(crate) const ACKNOWLEDGE: u32 = 0x01;
    pub(crate) const DRIVER: u32 = 0x02;
    pub(crate) const DRIVER_OK: u32 = 0x04;
    pub(crate) const FEATURES_OK: u32 = 0x08;
    pub(crate) const NEEDS_RESET: u32 = 0x40;
    pub(crate) const FAILED: u32 = 0x80;
    /// What a driver may set.
    pub(super) const DRIVERS: u32 = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED;
}

/// "virt" in little endian.
const MAGIC: u32 = 0x7472_6976;
/// The present interface; 1 was the legacy one.
const VERSION: u32 = 2;
/// "BRTH" in little endian.
const VENDOR: u32 = 0x4854_5242;
/// The driver understands this version of the standard (6).
const F_VERSION_1: u64 = 1 << 32;

/// The facts about a device. Only its configuration can change, and not in
/// length.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) device_id: u32,
    pub(crate) features: u64,
    pub(crate) queue_sizes: Vec<u16>,
    pub(crate) config: Vec<u8>,
}

/// A queue as the driver described it; addresses are guest physical.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueueLayout {
    pub(crate) size: u32,
    pub(crate) ready: bool,
    pub(crate) descriptors: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
}

/// What a driver has agreed on when it sets `DRIVER_OK`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Activation {
    pub(crate) features: u64,
    pub(crate) queues: Vec<QueueLayout>,
}

/// What a store to a register asks the processor to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing beyond the register.
    None,
    /// Look at this queue.
    Notify(usize),
    /// Start with these queues.
    Activate(Activation),
    /// Forget everything, interrupts too.
    Reset,
    /// The store made no sense and changed nothing.
    Nonsense,
}

/// The register file of one device.
#[derive(Debug)]
pub(crate) struct Registers {
    identity: Identity,
    /// Counts changes of the configuration, so that a driver that reads it in
    /// several pieces notices one in between (2.5.3).
    generation: u32,
    status: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    queues: Vec<QueueLayout>,
}

/// What a driver has written into the registers, and the generation of the
/// configuration it has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RegistersState {
    config: Vec<u8>,
    generation: u32,
    status: u32,
    /// Device features, driver features.
    selected: [u32; 2],
    driver_features: u64,
    queue_sel: u32,
    queues: Vec<QueueLayout>,
}

impl RegistersState {
    /// What the driver agreed on.
    pub(crate) fn activation(&self) -> Activation {
        Activation { features: self.driver_features, queues: self.queues.clone() }
    }
}

impl Registers {
    pub(crate) fn save(&self) -> RegistersState {
        RegistersState {
            config: self.identity.config.clone(),
            generation: self.generation,
            status: self.status,
            selected: [self.device_features_sel, self.driver_features_sel],
            driver_features: self.driver_features,
            queue_sel: self.queue_sel,
            queues: self.queues.clone(),
        }
    }

    /// Whether `state` is one of such a device.
    pub(crate) fn fits(&self, state: &RegistersState) -> bool {
        state.queues.len() == self.queues.len()
            && state.config.len() == self.identity.config.len()
            && state.driver_features & !self.identity.features == 0
    }

    pub(crate) fn restore(&mut self, state: &RegistersState) {
        let [device_features_sel, driver_features_sel] = state.selected;
        *self = Self {
            identity: Identity { config: state.config.clone(), ..self.identity.clone() },
            generation: state.generation,
            status: state.status,
            device_features_sel,
            driver_features_sel,
            driver_features: state.driver_features,
            queue_sel: state.queue_sel,
            queues: state.queues.clone(),
        };
    }

    pub(crate) fn new(identity: Identity) -> Self {
        let queues = initial_queues(&identity);
        Self {
            identity,
            generation: 0,
            status: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            queues,
        }
    }

    /// The device can do no more until it is reset (2.1.1). Whether the driver
    /// is to be told, which it is once it said `DRIVER_OK`.
    pub(crate) fn needs_reset(&mut self) -> bool {
        self.status |= status::NEEDS_RESET;
        self.status & status::DRIVER_OK != 0
    }

    /// The device is configured otherwise from now on. Whether there is a
    /// driver that can be told.
    pub(crate) fn configure(&mut self, config: Vec<u8>) -> bool {
        self.identity.config = config;
        self.generation = self.generation.wrapping_add(1);
        self.status & status::DRIVER_OK != 0
    }

    /// A load of `data.len()` bytes; `false` if nothing answers it, `data` is
    /// zero then. The interrupt's registers are not here.
    pub(crate) fn read(&self, at: u64, data: &mut [u8]) -> bool {
        data.fill(0);
        if at >= offset::CONFIG {
            return self.read_config(at - offset::CONFIG, data);
        }
        // 4.2.2.2: 32 bits wide and aligned accesses only.
        let (Some(value), Ok(data)) = (self.register(at), <&mut [u8; 4]>::try_from(data)) else {
            return false;
        };
        *data = value.to_le_bytes();
        true
    }

    fn read_config(&self, at: u64, data: &mut [u8]) -> bool {
        let Ok(at) = usize::try_from(at) else { return false };
        let Some(bytes) = self.identity.config.get(at..) else { return false };
        let count = bytes.len().min(data.len());
        data[..count].copy_from_slice(&bytes[..count]);
        count == data.len()
    }

    fn register(&self, at: u64) -> Option<u32> {
        let queue = self.queue();
        Some(match at {
            offset::MAGIC_VALUE => MAGIC,
            offset::VERSION => VERSION,
            offset::DEVICE_ID => self.identity.device_id,
            offset::VENDOR_ID => VENDOR,
            offset::DEVICE_FEATURES => half(self.identity.features, self.device_features_sel),
            offset::QUEUE_NUM_MAX => queue
                .and_then(|_| self.identity.queue_sizes.get(self.queue_sel as usize))
                .map_or(0, |size| u32::from(*size)),
            offset::QUEUE_READY => u32::from(queue.is_some_and(|queue| queue.ready)),
            offset::STATUS => self.status,
            offset::CONFIG_GENERATION => self.generation,
            // No shared memory: all bits of length and base are ones.
            at if (offset::SHM_FIRST..=offset::SHM_LAST).contains(&at) && at % 4 == 0 => u32::MAX,
            _ => return None,
        })
    }

    fn queue(&self) -> Option<&QueueLayout> {
        self.queues.get(self.queue_sel as usize)
    }

    /// A store of `data`.
    pub(crate) fn write(&mut self, at: u64, data: &[u8]) -> Effect {
        let Ok(value) = <[u8; 4]>::try_from(data).map(u32::from_le_bytes) else {
            return Effect::Nonsense;
        };
        match at {
            offset::DEVICE_FEATURES_SEL => self.device_features_sel = value,
            offset::DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            offset::DRIVER_FEATURES => return self.accept_features(value),
            offset::QUEUE_SEL => self.queue_sel = value,
            offset::SHM_SEL => {}
            offset::STATUS => return self.write_status(value),
            offset::QUEUE_NOTIFY => {
                let index = value as usize;
                let known = index < self.queues.len();
                return if known { Effect::Notify(index) } else { Effect::Nonsense };
            }
            _ => return self.write_queue(at, value),
        }
        Effect::None
    }

    fn accept_features(&mut self, value: u32) -> Effect {
        // 3.1.1: fixed once FEATURES_OK stands.
        if self.status & status::FEATURES_OK != 0 || self.driver_features_sel > 1 {
            return Effect::Nonsense;
        }
        replace_half(&mut self.driver_features, value, self.driver_features_sel == 1);
        Effect::None
    }

    fn write_queue(&mut self, at: u64, value: u32) -> Effect {
        let live = self.status & status::DRIVER_OK != 0;
        let max = self.identity.queue_sizes.get(self.queue_sel as usize).copied();
        let Some(queue) = self.queues.get_mut(self.queue_sel as usize) else {
            return Effect::Nonsense;
        };
        // A queue in use keeps its place until the device is reset.
        if live || (queue.ready && at != offset::QUEUE_READY) {
            return Effect::Nonsense;
        }
        match at {
            offset::QUEUE_NUM => queue.size = value,
            offset::QUEUE_READY if value == 0 => queue.ready = false,
            offset::QUEUE_READY => {
                queue.ready = value == 1 && queue.is_sensible(max.unwrap_or(0));
                if !queue.ready {
                    return Effect::Nonsense;
                }
            }
            offset::QUEUE_DESC_LOW => replace_half(&mut queue.descriptors, value, false),
            offset::QUEUE_DESC_HIGH => replace_half(&mut queue.descriptors, value, true),
            offset::QUEUE_DRIVER_LOW => replace_half(&mut queue.driver, value, false),
            offset::QUEUE_DRIVER_HIGH => replace_half(&mut queue.driver, value, true),
            offset::QUEUE_DEVICE_LOW => replace_half(&mut queue.device, value, false),
            offset::QUEUE_DEVICE_HIGH => replace_half(&mut queue.device, value, true),
            _ => return Effect::Nonsense,
        }
        Effect::None
    }

    fn write_status(&mut self, value: u32) -> Effect {
        if value == 0 {
            *self = Self { generation: self.generation, ..Self::new(self.identity.clone()) };
            return Effect::Reset;
        }
        let mut added = value & status::DRIVERS & !self.status;
        // 2.1.2: a driver clears no bit but by a reset.
        let mut sensible = self.status & !value & status::DRIVERS == 0;
        if added & status::FEATURES_OK != 0 && !self.features_acceptable() {
            // The driver reads back that the bit did not stick (3.1.1, step 6).
            added &= !status::FEATURES_OK;
        }
        let agreed = (self.status | added) & status::FEATURES_OK != 0;
        if added & status::DRIVER_OK != 0 && !agreed {
            added &= !status::DRIVER_OK;
            sensible = false;
        }
        self.status |= added;
        if added & status::DRIVER_OK != 0 {
            let (features, queues) = (self.driver_features, self.queues.clone());
            return Effect::Activate(Activation { features, queues });
        }
        if sensible { Effect::None } else { Effect::Nonsense }
    }

    fn features_acceptable(&self) -> bool {
        self.driver_features & !self.identity.features == 0
            && self.driver_features & F_VERSION_1 != 0
    }
}

impl QueueLayout {
    /// Size and alignments of 2.7; whether the rings are storage is seen when
    /// they are used.
    fn is_sensible(&self, max: u16) -> bool {
        self.size.is_power_of_two()
            && self.size <= u32::from(max)
            && self.descriptors % 16 == 0
            && self.driver % 2 == 0
            && self.device % 4 == 0
    }
}

fn initial_queues(identity: &Identity) -> Vec<QueueLayout> {
    let queue = |size: &u16| QueueLayout { size: u32::from(*size), ..QueueLayout::default() };
    identity.queue_sizes.iter().map(queue).collect()
}

fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => (value & 0xffff_ffff) as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

fn replace_half(value: &mut u64, half: u32, high: bool) {
    *value = if high {
        *value & 0xffff_ffff | u64::from(half) << 32
    } else {
        *value & !0xffff_ffff | u64::from(half)
    };
}
