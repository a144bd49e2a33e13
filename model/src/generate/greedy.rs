//! The most likely token at every step.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData, TensorReadError};

use super::{GenerateConfig, Generated};
use crate::lm::t5::T5;

/// Writes one sequence for each row of the encoder's output; equal scores go to the lowest id.
///
/// # Shapes
/// - encoded: `[b, s, d]`, plain (outside any graph)
///
/// # Errors
/// When the device fails to give its results back.
pub fn greedy(
    language_model: &T5,
    encoded: &Tensor<3>,
    end: u32,
    config: &GenerateConfig,
) -> Result<Vec<Generated>, TensorReadError> {
    let [b, _, _] = encoded.dims();
    let device = encoded.device();
    let mut cache = language_model.start_cache(encoded, config.max_new_tokens);
    let mut sequences = vec![Generated { ids: Vec::new(), log_probability: 0.0 }; b];
    let mut last = vec![language_model.start_token(); b];
    let mut running = vec![true; b];
    for _ in 0..config.max_new_tokens {
        let ids: Vec<i32> = last.iter().map(|&id| id as i32).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [b, 1]), &device);
        let scores = log_softmax(language_model.decode_step(ids, &mut cache), 1);
        let (scores, ids) = scores.max_dim_with_indices(1);
        let scores = scores.into_data().try_to_vec::<f32>()?;
        let ids: Vec<u32> = ids.into_data().iter::<u32>().collect();
        for row in (0..b).filter(|&row| running[row]).collect::<Vec<_>>() {
            sequences[row].ids.push(ids[row]);
            sequences[row].log_probability += scores[row];
            last[row] = ids[row];
            running[row] = ids[row] != end;
        }
        if !running.contains(&true) {
            break;
        }
    }
    Ok(sequences)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lm::t5::tests::tiny;
    use crate::loss::token_log_probabilities;
    use burn::tensor::{Device, Distribution};

    #[test]
    fn each_token_is_the_best_under_teacher_forcing_and_the_sum_is_its_log_probability() {
        let device = Device::flex();
        device.seed(31);
        let t5 = tiny().init(&device);
        let encoded = t5.encode(Tensor::random([3, 4, 16], Distribution::Normal(0.0, 1.0), &device), None);
        let config = GenerateConfig { max_new_tokens: 7 };
        for (row, sequence) in greedy(&t5, &encoded, 1, &config).unwrap().iter().enumerate() {
            let t = sequence.ids.len();
            assert!(t == 7 || sequence.ids.last() == Some(&1), "stops only at its end or at the limit");
            let ids: Vec<i32> = sequence.ids.iter().map(|&id| id as i32).collect();
            let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, t]), &device);
            let logits = t5.decode(ids.clone(), &encoded.clone().slice([row..row + 1]), None);
            let best: Vec<u32> = logits.clone().argmax(2).into_data().iter::<u32>().collect();
            assert_eq!(best, sequence.ids);
            let sum = token_log_probabilities(logits, ids).sum().into_scalar::<f32>();
            assert!((sum - sequence.log_probability).abs() < 1e-4, "{sum} {}", sequence.log_probability);
        }
    }
}
