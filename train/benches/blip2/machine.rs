//! What this machine can do at most: multiplications in registers, products of the shapes in use, and copies
//! between memory and processor.

use std::hint::black_box;
use std::time::Instant;

use gemm::Parallelism;
use pulp::{Simd, WithSimd};

/// Shapes `[rows, inner, columns]` of the products of a training step: attention's projections and the MLP of
/// a ViT of width 384 for four clips of eight frames of 65 tokens, their gradients, and the vocabulary.
pub(crate) const SHAPES: [[usize; 3]; 6] = [
    [2080, 384, 1152],
    [2080, 384, 1536],
    [2080, 1536, 384],
    [1152, 2080, 384],
    [1536, 2080, 384],
    [48, 256, 8000],
];

/// Rates of a machine, all cores together.
pub(crate) struct Machine {
    /// Operations per second in registers.
    pub(crate) registers: f64,
    /// Operations per second of the products of [`SHAPES`].
    pub(crate) products: Vec<f64>,
    /// Bytes per second that are read and written by a copy of 256 MB.
    pub(crate) copies: f64,
}

impl Machine {
    /// Measures for some seconds, on `threads` threads.
    pub(crate) fn measure(threads: usize) -> Self {
        Self {
            registers: on_all(threads, || {
                let operations = pulp::Arch::new().dispatch(Registers);
                move || {
                    black_box(pulp::Arch::new().dispatch(Registers));
                    operations
                }
            }),
            products: SHAPES.iter().map(|&shape| product(shape, threads)).collect(),
            copies: on_all(threads, || {
                let from = vec![1.0f32; (64 << 20) / threads];
                let mut to = vec![0.0f32; from.len()];
                move || {
                    black_box(&mut to).copy_from_slice(black_box(&from));
                    8.0 * from.len() as f64
                }
            }),
        }
    }

    /// Prints the rates.
    pub(crate) fn print(&self) {
        println!("multiplications and additions in registers: {:.0} GFLOP/s", self.registers / 1e9);
        for (shape, rate) in SHAPES.iter().zip(&self.products) {
            let [rows, inner, columns] = shape;
            let share = 100.0 * rate / self.registers;
            println!(
                "product [{rows}, {inner}] x [{inner}, {columns}]: {:.0} GFLOP/s, {share:.0} %",
                rate / 1e9
            );
        }
        println!("copies: {:.1} GB/s read and written", self.copies / 1e9);
    }
}

/// Work per second of copies of a task on all threads: the best of five rounds of 0.2 seconds.
fn on_all<T: FnMut() -> f64 + Send>(threads: usize, task: impl Fn() -> T + Sync) -> f64 {
    let round = || {
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| {
                        let mut task = task();
                        task();
                        let (start, mut work) = (Instant::now(), 0.0);
                        while start.elapsed().as_secs_f64() < 0.2 {
                            work += task();
                        }
                        work / start.elapsed().as_secs_f64()
                    })
                })
                .collect();
            running.into_iter().filter_map(|thread| thread.join().ok()).sum::<f64>()
        })
    };
    (0..5).map(|_| round()).fold(0.0, f64::max)
}

/// Operations per second of a row-major product on `threads` threads of rayon's pool.
fn product([rows, inner, columns]: [usize; 3], threads: usize) -> f64 {
    let (left, right) = (vec![0.5f32; rows * inner], vec![0.25f32; columns * inner]);
    let mut output = vec![0.0f32; rows * columns];
    let parallelism = if threads == 1 { Parallelism::None } else { Parallelism::Rayon(threads) };
    let mut seconds = f64::INFINITY;
    for _ in 0..30 {
        let start = Instant::now();
        // SAFETY: the sizes of the three matrices are those of the arguments.
        #[allow(unsafe_code)]
        unsafe {
            gemm::gemm(
                rows,
                columns,
                inner,
                output.as_mut_ptr(),
                1,
                columns as isize,
                false,
                left.as_ptr(),
                1,
                inner as isize,
                right.as_ptr(),
                inner as isize,
                1,
                0.0,
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        }
        black_box(&output);
        seconds = seconds.min(start.elapsed().as_secs_f64());
    }
    2.0 * (rows * inner * columns) as f64 / seconds
}

/// Fused multiplications and additions on sixteen independent vectors. The number of its operations is the
/// output.
struct Registers;

impl WithSimd for Registers {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        const ROUNDS: usize = 1 << 16;
        let mut sums = [simd.splat_f32s(0.1); 16];
        let (factor, term) = (simd.splat_f32s(black_box(0.999)), simd.splat_f32s(black_box(0.001)));
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, factor, term);
            }
        }
        black_box(sums.map(|sum| simd.reduce_sum_f32s(sum)));
        (2 * ROUNDS * 16 * S::F32_LANES) as f64
    }
}
