use super::registers::{Activation, Effect, Identity, QueueLayout, Registers, offset, status};

const OFFERED: u64 = 1 << 32 | 1 << 5;

fn registers() -> Registers {
    Registers::new(Identity {
        device_id: 2,
        features: OFFERED,
        queue_sizes: vec![256, 64],
        config: vec![1, 2, 3, 4, 5],
    })
}

fn load(registers: &Registers, at: u64) -> u32 {
    let mut bytes = [0; 4];
    registers.read(at, &mut bytes);
    u32::from_le_bytes(bytes)
}

fn store(registers: &mut Registers, at: u64, value: u32) -> Effect {
    registers.write(at, &value.to_le_bytes())
}

fn accept(registers: &mut Registers, features: u64) {
    store(registers, offset::STATUS, status::ACKNOWLEDGE);
    store(registers, offset::STATUS, status::ACKNOWLEDGE | status::DRIVER);
    for half in 0..2 {
        store(registers, offset::DRIVER_FEATURES_SEL, half);
        store(registers, offset::DRIVER_FEATURES, (features >> (32 * half)) as u32);
    }
    let agreed = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
    store(registers, offset::STATUS, agreed);
}

#[test]
fn a_driver_finds_the_device() {
    let mut registers = registers();
    assert_eq!(load(&registers, offset::MAGIC_VALUE), 0x7472_6976);
    assert_eq!(load(&registers, offset::VERSION), 2);
    assert_eq!(load(&registers, offset::DEVICE_ID), 2);
    assert_eq!(load(&registers, offset::DEVICE_FEATURES), 1 << 5);
    store(&mut registers, offset::DEVICE_FEATURES_SEL, 1);
    assert_eq!(load(&registers, offset::DEVICE_FEATURES), 1);
    store(&mut registers, offset::DEVICE_FEATURES_SEL, 2);
    assert_eq!(load(&registers, offset::DEVICE_FEATURES), 0);
    assert_eq!(load(&registers, offset::SHM_FIRST), u32::MAX, "no shared memory");
}

#[test]
fn queues_are_selected() {
    let mut registers = registers();
    let sizes: Vec<u32> = [0, 1, 2, u32::MAX]
        .into_iter()
        .map(|index| {
            store(&mut registers, offset::QUEUE_SEL, index);
            load(&registers, offset::QUEUE_NUM_MAX)
        })
        .collect();
    assert_eq!(sizes, [256, 64, 0, 0]);
}

#[test]
fn configuration_can_be_read_in_any_width() {
    let registers = registers();
    let mut bytes = [0; 2];
    assert!(registers.read(offset::CONFIG + 1, &mut bytes));
    assert_eq!(bytes, [2, 3]);
    let mut bytes = [9; 4];
    assert!(!registers.read(offset::CONFIG + 3, &mut bytes), "half of it is outside");
    assert_eq!(bytes, [4, 5, 0, 0]);
    assert!(!registers.read(u64::MAX, &mut bytes));
    assert_eq!(bytes, [0; 4]);
}

#[test]
fn a_change_of_the_configuration_shows_and_outlives_a_reset() {
    let mut registers = registers();
    assert!(!registers.configure(vec![6, 7, 8, 9, 10]), "there is no driver to be told");
    assert_eq!(load(&registers, offset::CONFIG_GENERATION), 1);
    accept(&mut registers, OFFERED);
    store(&mut registers, offset::STATUS, 0xf);
    assert!(registers.configure(vec![1, 1, 2, 3, 5]));
    assert_eq!(store(&mut registers, offset::STATUS, 0), Effect::Reset);
    assert_eq!(load(&registers, offset::CONFIG), 0x0302_0101);
    assert_eq!(load(&registers, offset::CONFIG_GENERATION), 2);
}

#[test]
fn registers_are_32_bits_wide() {
    let mut registers = registers();
    for width in [1, 2, 8] {
        let mut bytes = [9; 8];
        assert!(!registers.read(offset::MAGIC_VALUE, &mut bytes[..width]));
        assert_eq!(bytes[..width], [0; 8][..width]);
        assert_eq!(registers.write(offset::STATUS, &[1; 8][..width]), Effect::Nonsense);
    }
    assert_eq!(load(&registers, offset::STATUS), 0);
    assert_eq!(load(&registers, offset::MAGIC_VALUE + 2), 0, "misaligned");
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let mut registers = registers();
    accept(&mut registers, OFFERED | 1 << 40);
    assert_eq!(load(&registers, offset::STATUS) & status::FEATURES_OK, 0);
    accept(&mut registers, 1 << 5);
    assert_eq!(load(&registers, offset::STATUS) & status::FEATURES_OK, 0, "version 1 is a must");
    accept(&mut registers, OFFERED);
    assert_ne!(load(&registers, offset::STATUS) & status::FEATURES_OK, 0);
    assert_eq!(store(&mut registers, offset::DRIVER_FEATURES, 0), Effect::Nonsense, "too late");
}

#[test]
fn the_driver_is_not_ready_before_features_are_agreed_on() {
    let mut registers = registers();
    assert_eq!(store(&mut registers, offset::STATUS, status::DRIVER_OK), Effect::Nonsense);
    assert_eq!(load(&registers, offset::STATUS), 0);
}

#[test]
fn a_ready_driver_activates_the_queues_it_described() {
    let mut registers = registers();
    accept(&mut registers, OFFERED);
    store(&mut registers, offset::QUEUE_SEL, 1);
    store(&mut registers, offset::QUEUE_NUM, 8);
    store(&mut registers, offset::QUEUE_DESC_LOW, 0x8000_0000);
    store(&mut registers, offset::QUEUE_DESC_HIGH, 1);
    store(&mut registers, offset::QUEUE_DRIVER_LOW, 0x8000_1000);
    store(&mut registers, offset::QUEUE_DEVICE_LOW, 0x8000_2000);
    assert_eq!(store(&mut registers, offset::QUEUE_READY, 1), Effect::None);
    assert_eq!(load(&registers, offset::QUEUE_READY), 1);
    assert_eq!(store(&mut registers, offset::QUEUE_DESC_LOW, 0), Effect::Nonsense, "in use");
    let effect = store(&mut registers, offset::STATUS, 0xf);
    let described = QueueLayout {
        size: 8,
        ready: true,
        descriptors: 0x1_8000_0000,
        driver: 0x8000_1000,
        device: 0x8000_2000,
    };
    let untouched = QueueLayout { size: 256, ..QueueLayout::default() };
    let expected = Activation { features: OFFERED, queues: vec![untouched, described] };
    assert_eq!(effect, Effect::Activate(expected));
    assert_eq!(store(&mut registers, offset::STATUS, 0xf), Effect::None, "only once");
    assert_eq!(store(&mut registers, offset::QUEUE_READY, 0), Effect::Nonsense, "running");
}

#[test]
fn impossible_queues_do_not_become_ready() {
    for (register, value) in [
        (offset::QUEUE_NUM, 0),
        (offset::QUEUE_NUM, 3),
        (offset::QUEUE_NUM, 512),
        (offset::QUEUE_NUM, u32::MAX),
        (offset::QUEUE_DESC_LOW, 8),
        (offset::QUEUE_DRIVER_LOW, 1),
        (offset::QUEUE_DEVICE_LOW, 2),
        (offset::QUEUE_SEL, 9),
    ] {
        let mut registers = registers();
        store(&mut registers, register, value);
        assert_eq!(store(&mut registers, offset::QUEUE_READY, 1), Effect::Nonsense);
        assert_eq!(load(&registers, offset::QUEUE_READY), 0);
    }
}

#[test]
fn a_reset_forgets_everything() {
    let mut registers = registers();
    accept(&mut registers, OFFERED);
    store(&mut registers, offset::QUEUE_READY, 1);
    assert!(!registers.needs_reset(), "a driver that is not ready is not told");
    assert_ne!(load(&registers, offset::STATUS) & status::NEEDS_RESET, 0);
    assert_eq!(store(&mut registers, offset::STATUS, 0), Effect::Reset);
    assert_eq!(load(&registers, offset::STATUS), 0);
    assert_eq!(load(&registers, offset::QUEUE_READY), 0);
}

#[test]
fn a_driver_clears_no_status_bit_and_sets_none_of_the_devices() {
    let mut registers = registers();
    store(&mut registers, offset::STATUS, status::ACKNOWLEDGE);
    assert_eq!(store(&mut registers, offset::STATUS, status::DRIVER), Effect::Nonsense);
    store(&mut registers, offset::STATUS, 3 | status::NEEDS_RESET | 0x30);
    assert_eq!(load(&registers, offset::STATUS), 3);
}
