//! The numbers of the paper, which tables and plots show beside the numbers of our runs.

use serde::{Deserialize, Serialize};

/// One number, as an ablation's TOML has it under `[[published]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Published {
    /// Figure or table of the paper: `Fig. 2a`, `Table 1`.
    pub figure: String,
    /// Name of the metric.
    #[serde(default = "cider")]
    pub metric: String,
    /// The paper's name of the setting.
    pub label: String,
    /// Our variant with this setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The number as printed: CIDEr, BLEU, METEOR, ROUGE-L and accuracy times 100.
    pub value: f64,
    pub data_set: String,
    pub model: String,
}

fn cider() -> String {
    "CIDEr".to_owned()
}

impl Published {
    /// Its source: the paper, test data and model.
    pub(crate) fn source(&self) -> String {
        format!("paper, {}, {}", self.data_set, self.model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ablations_toml_carries_them() {
        #[derive(Deserialize)]
        struct Ablation {
            published: Vec<Published>,
        }
        let text = r#"
            [[published]]
            figure = "Fig. 2a"
            label = "Q-Former only"
            variant = "qformer_only"
            value = 73.6
            data_set = "MSR-VTT"
            model = "FLAN-T5-XL"
        "#;
        let Ablation { published } = toml::from_str(text).unwrap();
        assert_eq!((published[0].metric.as_str(), published[0].value), ("CIDEr", 73.6));
        assert_eq!(published[0].source(), "paper, MSR-VTT, FLAN-T5-XL");
        assert!(toml::from_str::<Ablation>(&text.replace("label", "lable")).is_err());
    }
}
