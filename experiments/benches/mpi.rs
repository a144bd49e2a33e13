//! Sums of gradients over processes, beside one call of `MPI_Allreduce` for the same values:
//! `mpirun --bind-to none -n 2 BENCH` (docs/benchmarks/mpi.md).

use std::time::Instant;

use anyhow::ensure;
use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use experiments::runtime::processes::{join, leave};
use train::processes::{Transfer, sum_gradients};

/// The CPU backend allocates many large short-lived buffers.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The trained part of BLIP-2: 107 million values, in as many matrices of a Q-Former's size.
const MATRICES: usize = 181;
const WIDTH: usize = 768;
const ROUNDS: usize = 7;

#[derive(Module, Debug)]
struct Matrices {
    all: Vec<Param<Tensor<2>>>,
}

fn main() -> anyhow::Result<()> {
    let processes = join()?;
    let group = &*processes.group;
    let device = Device::flex().autodiff();
    let matrix = || Param::from_tensor(Tensor::<2>::zeros([WIDTH, WIDTH], &device).require_grad());
    let model = Matrices { all: (0..MATRICES).map(|_| matrix()).collect() };
    let values = MATRICES * WIDTH * WIDTH;
    let gradients = || {
        let mut gradients = GradientsParams::new();
        for matrix in &model.all {
            gradients.register(matrix.id, Tensor::<2>::ones([WIDTH, WIDTH], &Device::flex()));
        }
        gradients
    };
    let mut seconds = [(); 3].map(|()| Vec::new());
    for _ in 0..ROUNDS {
        let mut raw = vec![1.0_f32; values];
        group.sum(&mut [0.0])?; // all start together
        let started = Instant::now();
        group.sum_floats(&mut raw)?;
        seconds[0].push(started.elapsed().as_secs_f64());
        ensure!(raw.iter().all(|&value| value == group.world_size() as f32), "a sum is wrong");
        drop(raw);
        for (place, transfer) in [(1, Transfer::F32), (2, Transfer::Bf16)] {
            let own = gradients();
            group.sum(&mut [0.0])?;
            let started = Instant::now();
            let summed = sum_gradients(group, &model, own, transfer)?;
            seconds[place].push(started.elapsed().as_secs_f64());
            drop(summed);
        }
    }
    if group.rank() == 0 {
        let median = |seconds: &mut Vec<f64>| {
            seconds.sort_by(f64::total_cmp);
            seconds[seconds.len() / 2]
        };
        let [raw, buckets, halves] = seconds.each_mut().map(median);
        println!("{} processes, {:.0} MB, median of {ROUNDS}", group.world_size(), 4.0 * values as f64 / 1e6);
        println!("one MPI_Allreduce  {raw:.3} s");
        println!("sum_gradients      {buckets:.3} s, {:.2} of it", buckets / raw);
        println!("the same in bf16   {halves:.3} s, {:.2} of it", halves / raw);
    }
    leave();
    Ok(())
}
