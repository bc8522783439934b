//! Programs of integers and branches.

use std::hint::black_box;

use crate::programs::{Random, mix};

/// A linked list reversed and searched, a small integer matrix product and a
/// state machine over text, in turns.
pub(crate) fn mixed(work: u32) -> u64 {
    let mut list: Vec<(u16, u16)> = (0..64_u16).map(|i| (i + 1, i.wrapping_mul(2477))).collect();
    let mut sum = 1;
    for round in 0..work * 1000 {
        reverse(&mut list);
        sum = mix(sum, u64::from(find(&list, (round % 64) as u16)));
        sum = mix(sum, product(round));
        sum =
            mix(sum, u64::from(numbers_in(b"5012,+17.5,-0.3e9,0x7f,1e+4,T0.3e-1F,abc,99,", round)));
    }
    sum
}

/// Reverses the list whose entries name the next one; 0 is first, 64 the end.
fn reverse(list: &mut [(u16, u16)]) {
    let (mut at, mut before) = (list[0].0, 64);
    while usize::from(at) < list.len() {
        let next = list[usize::from(at)].0;
        list[usize::from(at)].0 = before;
        before = at;
        at = next;
    }
    list[0].0 = before;
}

fn find(list: &[(u16, u16)], steps: u16) -> u16 {
    let (mut at, mut found) = (0, 0);
    for _ in 0..steps {
        let Some(entry) = list.get(usize::from(at)) else { break };
        found ^= entry.1;
        at = entry.0;
    }
    found
}

fn product(seed: u32) -> u64 {
    const N: usize = 8;
    let (mut a, mut b) = ([[0_i32; N]; N], [[0_i32; N]; N]);
    for i in 0..N {
        for j in 0..N {
            a[i][j] = (seed as i32).wrapping_add((i * 3 + j) as i32) & 0xff;
            b[i][j] = (seed as i32).wrapping_mul((i + j * 5) as i32) & 0xff;
        }
    }
    let mut sum = 0_i32;
    for row in &a {
        for j in 0..N {
            let dot = row.iter().zip(&b).map(|(x, column)| x * column[j]).sum::<i32>();
            sum = sum.wrapping_mul(31).wrapping_add((dot >> 2) & 0x7f);
        }
    }
    u64::from(sum as u32)
}

#[derive(Clone, Copy)]
enum State {
    Start,
    Sign,
    Digits,
    Fraction,
    Exponent,
    Bad,
}

/// Counts the fields of `text` by the kind of number they are.
fn numbers_in(text: &[u8], seed: u32) -> u32 {
    let (mut state, mut counts) = (State::Start, [0_u32; 6]);
    for &byte in text.iter().cycle().skip(seed as usize % text.len()).take(text.len() * 2) {
        state = match (state, byte) {
            (_, b',') => {
                counts[state as usize] += 1;
                State::Start
            }
            (State::Start, b'+' | b'-') => State::Sign,
            (State::Start | State::Sign | State::Digits, b'0'..=b'9') => State::Digits,
            (State::Start | State::Sign | State::Digits, b'.') => State::Fraction,
            (State::Digits | State::Fraction, b'e') => State::Exponent,
            (State::Fraction, b'0'..=b'9') => State::Fraction,
            (State::Exponent, b'0'..=b'9' | b'+' | b'-') => State::Exponent,
            _ => State::Bad,
        };
    }
    counts.iter().fold(0, |sum, count| sum * 7 + count)
}

#[derive(Clone, PartialEq)]
struct Record {
    kind: u32,
    number: i32,
    text: [u8; 30],
    next: Option<usize>,
}

/// Records copied, strings compared, procedures called: in the manner of
/// Dhrystone.
pub(crate) fn records(work: u32) -> u64 {
    let blank = Record { kind: 0, number: 0, text: *b"DHRYSTONE PROGRAM, SOME STRING", next: None };
    let mut store = [blank.clone(), blank];
    let (mut sum, mut array) = (1, [0_i32; 50]);
    for round in 0..work * 11_000 {
        let (from, to) = ((round & 1) as usize, (round & 1 ^ 1) as usize);
        store[from].number = black_box(round as i32);
        store[from].next = Some(to);
        store[to] = store[from].clone();
        store[to].text[28] = b'1' + (round % 9) as u8;
        let same = black_box(&store[to].text) == black_box(&store[from].text);
        store[to].kind = classify(u32::from(same) + round % 5, store[from].kind);
        let place = (round % 50) as usize;
        array[place] = array[place].wrapping_add(store[to].number / 3 - store[from].number % 7);
        sum = mix(sum, u64::from(store[to].kind) + u64::from(array[place] as u32));
    }
    sum
}

#[inline(never)]
fn classify(kind: u32, before: u32) -> u32 {
    match kind {
        0 => before + 1,
        1 if before > 100 => 0,
        1 => 3,
        2 => before ^ 1,
        3 => 2,
        _ => before / 2,
    }
}

/// Primes below 200,000, again and again.
pub(crate) fn sieve(work: u32) -> u64 {
    const LIMIT: usize = 200_000;
    let mut sum = 1;
    for round in 0..work {
        let mut composite = vec![false; LIMIT];
        let mut primes = 0;
        for number in 2 + (round as usize & 1)..LIMIT {
            if composite[number] {
                continue;
            }
            primes += 1;
            for multiple in (number * 2..LIMIT).step_by(number) {
                composite[multiple] = true;
            }
        }
        sum = mix(sum, primes);
    }
    sum
}

/// Sorts 10,000 numbers per hundredth, by hand.
pub(crate) fn quicksort(work: u32) -> u64 {
    let mut random = Random(12345);
    let mut numbers: Vec<u32> = (0..work * 10_000).map(|_| random.next() as u32).collect();
    sort(&mut numbers);
    numbers.iter().step_by(97).fold(1, |sum, number| mix(sum, u64::from(*number)))
}

fn sort(numbers: &mut [u32]) {
    if numbers.len() < 2 {
        return;
    }
    let pivot = numbers[numbers.len() / 2];
    let (mut low, mut high) = (0, numbers.len() - 1);
    loop {
        while numbers[low] < pivot {
            low += 1;
        }
        while numbers[high] > pivot {
            high -= 1;
        }
        if low >= high {
            break;
        }
        numbers.swap(low, high);
        low += 1;
        high -= 1;
    }
    let (left, right) = numbers.split_at_mut(low);
    sort(left);
    sort(right);
}

/// Fibonacci numbers the long way: calls and returns.
pub(crate) fn calls(work: u32) -> u64 {
    (0..work * 5).fold(1, |sum, round| mix(sum, fibonacci(black_box(19 + round % 4))))
}

#[inline(never)]
fn fibonacci(n: u32) -> u64 {
    if n < 2 { u64::from(n) } else { fibonacci(n - 1) + fibonacci(n - 2) }
}

#[derive(Clone, Copy)]
enum Op {
    Push(i64),
    Add,
    Multiply,
    Xor,
    Load(usize),
    Store(usize),
    JumpIfNot(usize),
    Jump(usize),
    Less,
    Halt,
}

/// An interpreter in the interpreter: a stack machine runs a loop.
pub(crate) fn bytecode(work: u32) -> u64 {
    use Op::{Add, Halt, Jump, JumpIfNot, Less, Load, Multiply, Push, Store, Xor};
    let program = [
        Push(0),
        Store(0),
        Push(1),
        Store(1),
        Load(0),
        Push(i64::from(work) * 4_000),
        Less,
        JumpIfNot(21),
        Load(1),
        Push(6_364_136_223_846_793_005),
        Multiply,
        Load(0),
        Add,
        Store(1),
        Load(1),
        Load(2),
        Xor,
        Store(2),
        Load(0),
        Push(1),
        Jump(22),
        Halt,
        Add,
        Store(0),
        Jump(4),
    ];
    interpret(black_box(&program))
}

fn interpret(program: &[Op]) -> u64 {
    let (mut stack, mut variables, mut at) = (Vec::with_capacity(16), [0_i64; 4], 0);
    while let Some(op) = program.get(at) {
        at += 1;
        let mut pop = || stack.pop().unwrap_or(0_i64);
        let value = match *op {
            Op::Push(value) => value,
            Op::Load(from) => variables[from & 3],
            Op::Add => pop().wrapping_add(pop()),
            Op::Multiply => pop().wrapping_mul(pop()),
            Op::Xor => pop() ^ pop(),
            Op::Less => i64::from(pop() > pop()),
            Op::Store(to) => {
                variables[to & 3] = pop();
                continue;
            }
            Op::JumpIfNot(to) => {
                if pop() == 0 {
                    at = to;
                }
                continue;
            }
            Op::Jump(to) => {
                at = to;
                continue;
            }
            Op::Halt => break,
        };
        stack.push(value);
    }
    mix(variables[1] as u64, variables[2] as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sort_sorts() {
        let mut random = Random(5);
        for length in [0, 1, 2, 3, 10, 1000] {
            let mut numbers: Vec<u32> = (0..length).map(|_| random.next() as u32 % 100).collect();
            let mut expected = numbers.clone();
            expected.sort_unstable();
            sort(&mut numbers);
            assert_eq!(numbers, expected);
        }
    }

    #[test]
    fn fibonacci_is_right() {
        assert_eq!(fibonacci(20), 6765);
    }
}
