//! Random programs, executed by the interpreter and with everything compiled,
//! which have to come to the same.
//!
//! A program is a chain of segments: straight code with branches forward,
//! executed as a loop, with calls, loads and stores of every alignment, also
//! over page ends and where nothing is mapped, atomics, floating point, CSRs,
//! and code that changes itself. Its trap handler mixes cause, place and value
//! into a sum and steps over. Firmware calls on the way are where the two
//! harts are compared.

use std::sync::Arc;

use engine::{Exit, Vcpu};
use engine_soft::{Compiler, SoftConfig, SoftVcpu};
use riscv::{Inst, Op};
use storage_window::StorageWindow;

use super::support::asm::*;
use super::support::{BASE, NoDevices, get, put, window};

const HANDLER: u64 = BASE + 0x2000;
const CODE: u64 = BASE + 0x3000;
/// Where the program's data are, identically mapped.
const DATA: u64 = BASE + 0x10_0000;
const ROOT: u64 = BASE + 0x18_0000;
/// Pages by turns writable, read-only and absent.
const VIRTUAL: u64 = 0x4000_0000;
const SIZE: u64 = 2 << 20;

// Registers with a purpose; the rest are the program's.
const DATA_BASE: u32 = 20;
const VIRTUAL_BASE: u32 = 21;
/// Goes on in each turn of a loop.
const POINTER: u32 = 22;
const CODE_BASE: u32 = 23;
const SCRATCH: u32 = 26;
const SUM: u32 = 27;
const COUNTER: u32 = 30;
/// For the handler alone.
const H: [u32; 3] = [28, 29, 31];

/// Numbers from a seed (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    /// A register of the program's own.
    fn register(&mut self) -> u32 {
        self.below(20) as u32
    }

    /// A double or two singles that matter.
    fn float(&mut self) -> u64 {
        const DOUBLES: [u64; 10] = [
            0,
            1 << 63,
            0x3FF0_0000_0000_0000,
            0x7FF0_0000_0000_0000,
            0xFFF0_0000_0000_0000,
            0x7FF8_0000_0000_0000,
            0x7FF0_0000_0000_0001,
            0x000F_FFFF_FFFF_FFFF,
            0x0010_0000_0000_0000,
            0x7FEF_FFFF_FFFF_FFFF,
        ];
        const SINGLES: [u64; 8] = [
            0,
            0x8000_0000,
            0x3F80_0000,
            0x7F80_0000,
            0x7FC0_0000,
            0x7F80_0001,
            0x0080_0000,
            0x7F7F_FFFF,
        ];
        match self.below(6) {
            0 => DOUBLES[self.below(10) as usize],
            1 => 0xFFFF_FFFF_0000_0000 | SINGLES[self.below(8) as usize],
            2 => 0xFFFF_FFFF_0000_0000 | self.next() >> 32,
            3 => (self.below(2000) as f64 / 8.0 - 100.0).to_bits(),
            4 => (self.below(1000) as f64 * 1.1).to_bits(),
            _ => self.next(),
        }
    }
}

/// A program: the words of its code.
struct Program {
    parcels: Vec<u16>,
}

impl Program {
    fn new(random: &mut Random) -> Self {
        let mut program = Self { parcels: Vec::new() };
        program.prologue(random);
        // Somewhere before the end of a page, so that segments reach over it.
        for _ in 0..random.below(600) {
            program.half(0x0001);
        }
        for _ in 0..1 + random.below(4) {
            program.segment(random);
        }
        for register in 0..32 {
            program.word(
                0x27 | 3 << 12
                    | DATA_BASE << 15
                    | register << 20
                    | ((register * 8) & 31) << 7
                    | ((register * 8) >> 5) << 25,
            );
        }
        program.word(csrrs(10, 0x003, ZERO));
        program.word(ecall());
        program.word(jal(ZERO, 0));
        program
    }

    fn half(&mut self, parcel: u16) {
        self.parcels.push(parcel);
    }

    fn word(&mut self, word: u32) {
        self.half(word as u16);
        self.half((word >> 16) as u16);
    }

    fn words(&mut self, words: &[u32]) {
        words.iter().for_each(|word| self.word(*word));
    }

    /// Bytes of code so far.
    fn here(&self) -> i32 {
        self.parcels.len() as i32 * 2
    }

    fn prologue(&mut self, random: &mut Random) {
        self.words(&li(H[0], HANDLER));
        self.word(csrrw(ZERO, 0x105, H[0]));
        self.words(&li(H[0], 8 << 60 | ROOT >> 12));
        self.words(&[csrrw(ZERO, 0x180, H[0]), sfence_vma(ZERO, ZERO)]);
        // Floating point on, mostly dirty; rounding mostly to nearest even.
        let state = if random.one_in(4) { 0x2000 } else { 0x6000 };
        self.words(&li(H[0], state));
        self.word(csrrs(ZERO, 0x100, H[0]));
        for register in 0..32 {
            self.words(&li(H[0], random.float()));
            self.word(0x53 | register << 7 | H[0] << 15 | 0x79 << 25);
        }
        let rounding = if random.one_in(4) { random.below(6) << 5 } else { 0 };
        let flags = if random.one_in(2) { 1 } else { 0 };
        self.words(&li(H[0], rounding | flags));
        self.word(csrrw(ZERO, 0x003, H[0]));
        for register in 1..20 {
            let value = if random.one_in(3) { random.below(64) } else { random.next() };
            self.words(&li(register, value));
        }
        self.words(&li(DATA_BASE, DATA + 0x800));
        self.words(&li(VIRTUAL_BASE, VIRTUAL + 0x1000));
        self.words(&li(CODE_BASE, CODE));
        self.words(&li(SUM, 1));
    }

    /// A loop of some rounds.
    fn segment(&mut self, random: &mut Random) {
        self.word(addi(COUNTER, ZERO, 1 + random.below(12) as i32));
        let base = if random.one_in(3) { DATA_BASE } else { VIRTUAL_BASE };
        self.word(addi(POINTER, base, random.below(4096) as i32 - 2048));
        let start = self.here();
        for _ in 0..2 + random.below(25) {
            self.piece(random);
        }
        self.word(addi(COUNTER, COUNTER, -1));
        // A branch reaches 4 KiB; segments are shorter.
        let back = start - self.here();
        self.word(bne(COUNTER, ZERO, back));
    }

    /// An instruction or a few that belong together.
    fn piece(&mut self, random: &mut Random) {
        match random.below(28) {
            26 => self.stride(random),
            27 => self.call_far(random),
            0 => self.word(ecall()),
            1 => self.skip(random),
            2 => self.call(random),
            3 if random.one_in(3) => self.patch(random),
            4..=8 => self.access(random),
            9 => self.atomic(random),
            10 => self.csr(random),
            11..=15 => self.valid(random, &[0x53, 0x43, 0x47, 0x4B, 0x4F, 0x53, 0x53]),
            16 => self.compressed(random),
            17 if random.one_in(4) => self.word(0x0F),
            24 => self.extend(random),
            25 => self.walk(random),
            _ => self.valid(random, &[0x13, 0x33, 0x1B, 0x3B, 0x37, 0x17, 0x33]),
        }
    }

    /// A random instruction of one of the major opcodes, on own registers.
    fn valid(&mut self, random: &mut Random, opcodes: &[u32]) {
        let word = valid(random, opcodes);
        self.word(word);
    }

    fn compressed(&mut self, random: &mut Random) {
        loop {
            let bits = random.next() as u16;
            let inst = riscv::decode(bits.into());
            let computes = matches!(
                inst.op,
                Op::Addi
                    | Op::Addiw
                    | Op::Add
                    | Op::Sub
                    | Op::Xor
                    | Op::And
                    | Op::Or
                    | Op::Slli
                    | Op::Srli
                    | Op::Srai
                    | Op::Lui
                    | Op::Addw
                    | Op::Subw
            );
            if bits & 3 != 3 && computes && (inst.rd < 20 || inst.rd == Inst::SINK) {
                return self.half(bits);
            }
        }
    }

    /// A branch over some instructions.
    fn skip(&mut self, random: &mut Random) {
        let kind = [0, 1, 4, 5, 6, 7][random.below(6) as usize];
        let bodies: Vec<u32> =
            (0..1 + random.below(4)).map(|_| valid(random, &[0x13, 0x33, 0x53])).collect();
        let offset = 4 + 4 * bodies.len() as i32;
        let branch = beq(random.register(), random.register(), offset);
        self.word(branch & !(7 << 12) | kind << 12);
        self.words(&bodies);
    }

    /// A call of a function that lies on the way.
    fn call(&mut self, random: &mut Random) {
        let body: Vec<u32> =
            (0..1 + random.below(3)).map(|_| valid(random, &[0x13, 0x33])).collect();
        let length = 4 * body.len() as i32;
        // Over the function, then back into it.
        self.word(jal(ZERO, length + 8));
        self.words(&body);
        self.word(jalr(ZERO, SCRATCH, 0));
        self.word(jal(SCRATCH, -length - 4));
        if random.one_in(2) {
            // By way of ra, as compilers do, and indirectly.
            self.words(&[
                auipc(SCRATCH, 0),
                addi(SCRATCH, SCRATCH, 16),
                jalr(RA, SCRATCH, 0),
                jal(ZERO, 8),
                jalr(ZERO, RA, 0),
            ]);
        }
    }

    /// A call as compilers make one of what may be far away.
    fn call_far(&mut self, random: &mut Random) {
        // The function keeps where it returns to.
        let body: Vec<u32> = (0..1 + random.below(3))
            .map(|_| valid(random, &[0x13, 0x33]))
            .filter(|word| u32::from(riscv::decode(*word).rd) != RA)
            .collect();
        let length = 4 * body.len() as i32;
        self.word(jal(ZERO, length + 8));
        self.words(&body);
        self.word(jalr(ZERO, RA, 0));
        if random.one_in(4) {
            self.half(0x0001);
            self.words(&[auipc(RA, 0), jalr(RA, RA, -length - 6)]);
        } else {
            self.words(&[auipc(RA, 0), jalr(RA, RA, -length - 4)]);
        }
    }

    /// Accesses by a pointer that is elsewhere in the next turn.
    fn stride(&mut self, random: &mut Random) {
        for _ in 0..1 + random.below(3) {
            let offset = if random.one_in(2) { 0 } else { random.below(40) as i32 - 20 };
            self.one_access(random, POINTER, offset);
        }
        let step = [8, -8, 1, 512, random.below(4096) as i32 - 2048][random.below(5) as usize];
        self.word(addi(POINTER, POINTER, step));
    }

    /// Writes an instruction into a place of its own code, mostly fences.
    fn patch(&mut self, random: &mut Random) {
        let word = valid(random, &[0x13, 0x33]);
        // An aligned word, so that it lies in one page: the slot.
        if self.here() % 4 != 0 {
            self.half(0x0001);
        }
        let slot = self.here() + 11 * 8 + 4 * 3;
        self.words(&li(H[0], word.into()));
        self.words(&li(H[1], slot as u64));
        self.words(&[add(H[1], H[1], CODE_BASE), sw(H[0], H[1], 0)]);
        self.word(if random.one_in(4) { nop() } else { fence_i() });
        self.word(addi(1, 1, 1));
    }

    /// Shifts left and back, as compilers do to extend what is narrow.
    fn extend(&mut self, random: &mut Random) {
        let (rd, rs) = (random.register(), random.register());
        let amounts = [32_u32, 48, 56, 40, 32];
        let up = amounts[random.below(5) as usize];
        let down = if random.one_in(3) { random.below(64) as u32 } else { up };
        let kind = if random.one_in(2) { 1 << 30 } else { 0 };
        self.word(slli(rd, rs, up as i32));
        if random.one_in(4) {
            self.word(addi(rs, rs, 1));
        }
        self.word(0x13 | rd << 7 | 5 << 12 | rd << 15 | down << 20 | kind);
        // Words of words.
        self.valid(random, &[0x1B, 0x3B, 0x3B]);
        self.word(0x3B | rd << 7 | rd << 15 | rs << 20);
        self.word(0x3B | rs << 7 | rd << 15 | rd << 20 | 0x20 << 25);
    }

    /// Accesses by way of pointers that are made from each other.
    fn walk(&mut self, random: &mut Random) {
        let base = if random.one_in(2) { DATA_BASE } else { VIRTUAL_BASE };
        let step = random.below(96) as i32 - 48;
        self.word(addi(SCRATCH, base, step));
        for _ in 0..2 + random.below(4) {
            let by = if random.one_in(3) { base } else { SCRATCH };
            let offset = random.below(64) as i32 - 32;
            self.one_access(random, by, offset);
            if random.one_in(2) {
                self.word(addi(SCRATCH, SCRATCH, random.below(32) as i32 - 8));
            }
        }
    }

    fn access(&mut self, random: &mut Random) {
        let base = [DATA_BASE, VIRTUAL_BASE, DATA_BASE, SCRATCH][random.below(4) as usize];
        if base == SCRATCH {
            // Anywhere in the first pages.
            let index = random.register();
            self.words(&[
                addi(SCRATCH, ZERO, 2047),
                0x33 | SCRATCH << 7 | 7 << 12 | SCRATCH << 15 | index << 20,
                add(SCRATCH, SCRATCH, VIRTUAL_BASE),
            ]);
        }
        let near = random.below(40) as i32 - 20;
        for _ in 0..1 + random.below(3) {
            let offset = if random.one_in(3) { random.below(4096) as i32 - 2048 } else { near };
            let offset = (offset + random.below(16) as i32).clamp(-2048, 2047);
            self.one_access(random, base, offset);
        }
    }

    fn one_access(&mut self, random: &mut Random, base: u32, offset: i32) {
        let (integer, float) = (random.register(), random.below(32) as u32);
        let load = |opcode: u32, width: u32, rd: u32| {
            opcode | rd << 7 | width << 12 | base << 15 | (offset as u32) << 20
        };
        let store = |opcode: u32, width: u32, rs2: u32| {
            let at = offset as u32;
            opcode | (at & 31) << 7 | width << 12 | base << 15 | rs2 << 20 | at >> 5 << 25
        };
        let word = match random.below(6) {
            0 | 1 => load(0x03, random.below(7) as u32, integer),
            2 | 3 => store(0x23, random.below(4) as u32, integer),
            4 => load(0x07, 2 + random.below(2) as u32, float),
            _ => store(0x27, 2 + random.below(2) as u32, float),
        };
        self.word(word);
    }

    fn atomic(&mut self, random: &mut Random) {
        let offset = random.below(64) as i32 * if random.one_in(8) { 1 } else { 8 };
        let base = if random.one_in(2) { DATA_BASE } else { VIRTUAL_BASE };
        self.word(addi(SCRATCH, base, offset));
        let width = 2 + random.below(2) as u32;
        if random.one_in(3) {
            let (old, new, failed) = (random.register(), random.register(), random.register());
            self.word(0x2F | old << 7 | width << 12 | SCRATCH << 15 | 2 << 27);
            if random.one_in(2) {
                self.word(addi(new, old, 1));
            }
            self.word(0x2F | failed << 7 | width << 12 | SCRATCH << 15 | new << 20 | 3 << 27);
        } else {
            let kind = [0, 1, 4, 8, 12, 16, 20, 24, 28][random.below(9) as usize];
            let (rd, rs2) = (random.register(), random.register());
            self.word(0x2F | rd << 7 | width << 12 | SCRATCH << 15 | rs2 << 20 | kind << 27);
        }
    }

    fn csr(&mut self, random: &mut Random) {
        let own = random.register();
        let word = match random.below(6) {
            0 => csrrs(own, 0x003, ZERO),
            1 => csrrs(own, 0xC02, ZERO),
            2 => csrrw(own, 0x140, random.register()),
            3 => csrrs(own, 0x001, ZERO),
            4 => csrrw(own, 0x001, random.register()),
            // SUM, which makes another set of translations be in force.
            _ => {
                let kind = 2 + random.below(2) as u32;
                0x73 | own << 7 | kind << 12 | H[0] << 15 | 0x100 << 20
            }
        };
        if word >> 20 == 0x100 {
            self.words(&li(H[0], 1 << 18));
        }
        self.word(word);
    }

    fn bytes(&self) -> Vec<u8> {
        self.parcels.iter().flat_map(|parcel| parcel.to_le_bytes()).collect()
    }
}

fn valid(random: &mut Random, opcodes: &[u32]) -> u32 {
    loop {
        let opcode = opcodes[random.below(opcodes.len() as u64) as usize];
        let word = random.next() as u32 & !0x7F | opcode;
        let inst = riscv::decode(word);
        let float = writes_float(inst.op);
        let own = float || inst.rd < 20 || inst.rd == Inst::SINK;
        if inst.op != Op::Illegal && own {
            return word;
        }
    }
}

/// Whether `rd` is a floating-point register.
fn writes_float(op: Op) -> bool {
    let name = op.mnemonic();
    name.starts_with('f')
        && !name.starts_with("fence")
        && !["fcvt.w", "fcvt.l", "fmv.x", "feq", "flt", "fle", "fclass"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// Mixes what happened into the sum and steps over the instruction.
fn handler() -> Vec<u32> {
    let [a, b, c] = H;
    let mut words = Vec::new();
    for csr in [0x141, 0x142, 0x143, 0xC02] {
        words.extend([csrrs(a, csr, ZERO), add(SUM, SUM, a), slli(b, SUM, 7), xor(SUM, SUM, b)]);
    }
    let compressed = [
        csrrs(a, 0x141, ZERO),
        // lhu, andi 3, 3 gives 4 bytes.
        0x03 | b << 7 | 5 << 12 | a << 15,
        0x13 | b << 7 | 7 << 12 | b << 15 | 3 << 20,
        addi(c, b, -3),
        0x13 | c << 7 | 3 << 12 | c << 15 | 1 << 20,
        slli(c, c, 1),
        add(a, a, c),
        addi(a, a, 2),
        csrrw(ZERO, 0x141, a),
        sret(),
    ];
    words.extend(compressed);
    words
}

fn storage(program: &Program, seed: u64) -> Arc<StorageWindow> {
    let window = window(SIZE);
    put(&window, HANDLER, &bytes(&handler()));
    put(&window, CODE, &program.bytes());
    let mut random = Random(seed);
    let data: Vec<u8> = (0..1024).flat_map(|_| random.float().to_le_bytes()).collect();
    put(&window, DATA, &data);
    let store = |address: u64, value: u64| put(&window, address, &value.to_le_bytes());
    let entry = |at: u64, rights: u64| at >> 12 << 10 | rights | 1;
    store(ROOT + 8, entry(ROOT + 0x1000, 0));
    store(ROOT + 16, entry(BASE, 0xCE));
    store(ROOT + 0x1000, entry(ROOT + 0x2000, 0));
    for page in 0..8 {
        let rights = [0xC6, 0xC6, 0xC2, 0, 0xC6, 0x06, 0xC6, 0xD6][page as usize];
        store(
            ROOT + 0x2000 + 8 * page,
            if rights == 0 { 0 } else { entry(DATA + 0x4000 + page * 0x1000, rights) },
        );
    }
    window
}

fn hart(window: &Arc<StorageWindow>, compiler: Option<Arc<Compiler>>) -> SoftVcpu {
    let config = SoftConfig { compiler, ..SoftConfig::default() };
    let mut vcpu = SoftVcpu::new(0, Arc::clone(window), config);
    vcpu.riscv().start(CODE, 0);
    vcpu
}

/// Executes the program of `seed` both ways.
///
/// # Panics
/// If they differ.
pub(crate) fn check(seed: u64, compiler: &Arc<Compiler>) {
    let program = Program::new(&mut Random(seed));
    let windows = [storage(&program, seed), storage(&program, seed)];
    let mut harts = [hart(&windows[0], None), hart(&windows[1], Some(Arc::clone(compiler)))];
    let end = CODE + program.bytes().len() as u64 - 4;
    loop {
        let states = harts.each_mut().map(|hart| {
            assert_eq!(hart.run(&NoDevices), Exit::FirmwareCall, "seed {seed}");
            let hart = hart.riscv();
            let x: Vec<u64> = (0..32).map(|index| hart.x(index)).collect();
            (hart.pc(), hart.instructions_retired(), x)
        });
        assert_eq!(states[0], states[1], "seed {seed}: interpreted, compiled");
        if states[0].0 == end {
            break;
        }
    }
    for address in (BASE..BASE + SIZE).step_by(8) {
        let values = [0, 1].map(|side| get(&windows[side], address));
        assert_eq!(values[0], values[1], "seed {seed}: storage at {address:#x}");
    }
}
