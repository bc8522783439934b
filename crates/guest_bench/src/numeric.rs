//! Programs of floating point. Only operations that IEEE 754 defines to the
//! last bit, so that checksums agree on every correct machine.

use crate::programs::mix;

/// Products of two 48 by 48 matrices of doubles.
pub(crate) fn matrix(work: u32) -> u64 {
    const N: usize = 48;
    let mut a = vec![[0.0_f64; N]; N];
    let mut b = a.clone();
    for i in 0..N {
        for j in 0..N {
            a[i][j] = (i * 7 + j * 3) as f64 / 64.0 - 2.0;
            b[i][j] = (i * 5 + j * 11) as f64 / 128.0 - 3.0;
        }
    }
    let mut sum = 1;
    for round in 0..work {
        a[0][0] = f64::from(round);
        let mut product = vec![[0.0_f64; N]; N];
        for (row, into) in a.iter().zip(&mut product) {
            for (j, cell) in into.iter_mut().enumerate() {
                for (x, other) in row.iter().zip(&b) {
                    *cell += x * other[j];
                }
            }
        }
        sum = product.iter().flatten().fold(sum, |sum, cell| mix(sum, cell.to_bits()));
    }
    sum
}

/// Position, velocity, mass.
type Body = ([f64; 3], [f64; 3], f64);

/// Five bodies that attract each other, step by step.
pub(crate) fn nbody(work: u32) -> u64 {
    let mut bodies: [Body; 5] = [
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], 39.5),
        ([4.84, -1.16, -0.10], [0.61, 2.81, -0.02], 0.037),
        ([8.34, 4.12, -0.40], [-1.01, 1.82, 0.008], 0.011),
        ([12.9, -15.1, -0.22], [1.08, 0.87, -0.01], 0.0017),
        ([15.4, -25.9, 0.18], [0.98, 0.59, -0.03], 0.002),
    ];
    for _ in 0..work * 1500 {
        step(&mut bodies, 0.01);
    }
    bodies.iter().flat_map(|body| body.0).fold(1, |sum, x| mix(sum, x.to_bits()))
}

fn step(bodies: &mut [Body; 5], dt: f64) {
    for i in 0..bodies.len() {
        let (left, right) = bodies.split_at_mut(i + 1);
        let Some(one) = left.last_mut() else { continue };
        for other in right {
            let d = [one.0[0] - other.0[0], one.0[1] - other.0[1], one.0[2] - other.0[2]];
            let square = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
            let strength = dt / (square * square.sqrt());
            for (axis, distance) in d.iter().enumerate() {
                one.1[axis] -= distance * other.2 * strength;
                other.1[axis] += distance * one.2 * strength;
            }
        }
    }
    for (position, velocity, _) in bodies {
        for (x, v) in position.iter_mut().zip(velocity) {
            *x += dt * *v;
        }
    }
}

/// A picture of the Mandelbrot set, counted.
pub(crate) fn mandelbrot(work: u32) -> u64 {
    const WIDTH: u32 = 96;
    let mut sum = 1;
    for row in 0..work {
        let y0 = f64::from(row % 64) / 32.0 - 1.0;
        for column in 0..WIDTH {
            let x0 = f64::from(column) / 38.0 - 2.0;
            let (mut x, mut y, mut count) = (0.0, 0.0, 0_u64);
            while x * x + y * y <= 4.0 && count < 1500 {
                (x, y) = (x * x - y * y + x0, 2.0 * x * y + y0);
                count += 1;
            }
            sum = mix(sum, count);
        }
    }
    sum
}
