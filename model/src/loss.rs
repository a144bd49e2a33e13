//! The captioning loss: cross-entropy over the tokens of the captions.

use burn::tensor::activation::log_softmax;
use burn::tensor::{FloatDType, Int, Tensor};

use crate::host::is_host_f32;
use crate::host::log_probabilities::log_probabilities;
use crate::layers::cast;

/// Target token ids and their mask.
#[derive(Debug, Clone)]
pub struct Targets {
    /// `[b, t]`; padding may hold any id.
    pub ids: Tensor<2, Int>,
    /// `[b, t]`, 1 where the token counts and 0 elsewhere (label -100 in PyTorch).
    pub mask: Tensor<2>,
}

/// Log-probability of each target token.
///
/// # Shapes
/// - logits: `[b, t, v]`
/// - ids: `[b, t]`
/// - output: `[b, t]`, in f32
pub fn token_log_probabilities(logits: Tensor<3>, ids: Tensor<2, Int>) -> Tensor<2> {
    let [b, t, v] = logits.dims();
    smoothed(logits.reshape([b * t, v]), ids.reshape([b * t]), 0.0).reshape([b, t])
}

/// Mean negative log-probability of the tokens that count, with PyTorch's label smoothing.
///
/// # Shapes
/// - logits: `[b, t, v]`
/// - output: `[1]`
pub fn cross_entropy(logits: Tensor<3>, targets: &Targets, smoothing: f64) -> Tensor<1> {
    let [b, t, v] = logits.dims();
    let loss = smoothed(logits.reshape([b * t, v]), targets.ids.clone().reshape([b * t]), smoothing);
    let mask = targets.mask.clone().reshape([b * t]);
    (loss * mask.clone()).sum().neg() / mask.sum().clamp_min(1.0)
}

/// `(1 - smoothing) · log p(id) + smoothing · mean(log p)` of each row, in f32.
fn smoothed(logits: Tensor<2>, ids: Tensor<1, Int>, smoothing: f64) -> Tensor<1> {
    let logits = cast(logits, FloatDType::F32);
    if is_host_f32(&logits) {
        return log_probabilities(logits, ids, smoothing);
    }
    let [n, _] = logits.dims();
    let all = log_softmax(logits, 1);
    let chosen = all.clone().gather(1, ids.reshape([n, 1])).reshape([n]);
    if smoothing == 0.0 {
        chosen
    } else {
        chosen * (1.0 - smoothing) + all.mean_dim(1).reshape([n]) * smoothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tolerance};

    fn example() -> (Tensor<3>, Targets) {
        let device = Device::flex();
        let logits =
            Tensor::<3>::from_floats([[[2.0, 0.0, -1.0], [0.5, 0.5, 0.5], [9.0, 9.0, -9.0]]], &device);
        let ids = Tensor::<2, Int>::from_ints([[0, 2, 1]], &device);
        (logits, Targets { ids, mask: Tensor::from_floats([[1.0, 1.0, 0.0]], &device) })
    }

    /// Expected by hand from the definition that `torch.nn.functional.cross_entropy` documents, with and
    /// without `label_smoothing = 0.1`.
    #[test]
    fn equals_pytorchs_on_the_tokens_that_count() {
        let (logits, targets) = example();
        let plain = cross_entropy(logits.clone(), &targets, 0.0);
        let nll0 = ((2f64).exp() + 1.0 + (-1f64).exp()).ln() - 2.0;
        let expected = (nll0 + 3f64.ln()) / 2.0;
        plain.into_data().assert_approx_eq::<f32>(
            &Tensor::<1>::from_floats([expected as f32], &Device::flex()).into_data(),
            Tolerance::absolute(1e-6),
        );
        let smooth = cross_entropy(logits, &targets, 0.1);
        let total = ((2f64).exp() + 1.0 + (-1f64).exp()).ln();
        let uniform0 = total - (2.0 + 0.0 - 1.0) / 3.0;
        let expected = (0.9 * nll0 + 0.1 * uniform0 + 3f64.ln()) / 2.0;
        smooth.into_data().assert_approx_eq::<f32>(
            &Tensor::<1>::from_floats([expected as f32], &Device::flex()).into_data(),
            Tolerance::absolute(1e-6),
        );
    }

    #[test]
    fn a_batch_without_a_counting_token_has_loss_zero() {
        let (logits, targets) = example();
        let targets = Targets { mask: targets.mask * 0.0, ..targets };
        assert_eq!(cross_entropy(logits, &targets, 0.0).into_scalar::<f32>(), 0.0);
    }
}
