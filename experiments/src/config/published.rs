//! What the paper says, which tables and plots show beside our runs: numbers (`[[published]]`) and statements
//! about training (`[[claims]]`). A summary holds both as rows of one list.

use serde::{Deserialize, Serialize};

/// One number or method of the paper, as an ablation's TOML has it under `[[published]]`, or one statement.
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
    /// The number as printed: CIDEr, BLEU, METEOR, ROUGE-L and accuracy times 100. None in a row that
    /// describes a method, and in a statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// None where the row is not about one data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_set: Option<String>,
    pub model: String,
    /// Number of video-text pairs as printed: `144.7M`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<String>,
    /// Whether the method's code is available, of the methods that a table compares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<bool>,
    /// What the method is built of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// The statement of a row of `[[claims]]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
}

/// A method's configuration, as a table of the paper prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Method {
    /// The citation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Number of image-text pairs of its pretraining; none where the table has a dash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pairs: Option<String>,
    pub vision: String,
    pub language: String,
}

/// A statement of the paper about training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claim {
    pub statement: String,
    /// The epoch of the highest validation score that it gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_epoch: Option<usize>,
    /// What the paper says elsewhere and cannot be true as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contradiction: Option<String>,
}

/// A statement as an ablation's TOML has it under `[[claims]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClaimRow {
    figure: String,
    /// The variant that it is about; none of a comparison.
    variant: Option<String>,
    statement: String,
    best_epoch: Option<usize>,
    contradiction: Option<String>,
    data_set: String,
    model: String,
}

fn cider() -> String {
    "CIDEr".to_owned()
}

impl From<ClaimRow> for Published {
    fn from(row: ClaimRow) -> Self {
        let ClaimRow { figure, variant, statement, best_epoch, contradiction, data_set, model } = row;
        Self {
            figure,
            metric: cider(),
            label: variant.clone().unwrap_or_else(|| "all".to_owned()),
            variant,
            value: None,
            data_set: Some(data_set),
            model,
            pairs: None,
            code: None,
            method: None,
            claim: Some(Claim { statement, best_epoch, contradiction }),
        }
    }
}

impl Published {
    /// Its source: the paper, test data and model.
    pub(crate) fn source(&self) -> String {
        match &self.data_set {
            Some(data_set) => format!("paper, {data_set}, {}", self.model),
            None => format!("paper, {}", self.model),
        }
    }

    /// Whether it is one of several published methods that a table compares.
    pub(crate) fn is_of_a_comparison(&self) -> bool {
        self.code.is_some()
    }

    /// What a row of an ablation's TOML lacks: a number has a data set, and a row without a number describes
    /// a method or makes a statement.
    pub(super) fn fault(&self) -> Option<String> {
        let is_number = self.value.is_some();
        let lacks = match (&self.method, &self.claim) {
            (None, None) if !is_number => "neither value nor method",
            _ if is_number && self.data_set.is_none() => "no data_set for its value",
            _ => return None,
        };
        Some(format!("published \"{}\" of {}: {lacks}", self.label, self.figure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Ablation {
        #[serde(default)]
        published: Vec<Published>,
        #[serde(default)]
        claims: Vec<ClaimRow>,
    }

    const NUMBER: &str = r#"
        [[published]]
        figure = "Fig. 2a"
        label = "Q-Former only"
        variant = "qformer_only"
        value = 73.6
        data_set = "MSR-VTT"
        model = "FLAN-T5-XL"
    "#;

    #[test]
    fn an_ablations_toml_carries_them() {
        let Ablation { published, .. } = toml::from_str(NUMBER).unwrap();
        assert_eq!((published[0].metric.as_str(), published[0].value), ("CIDEr", Some(73.6)));
        assert_eq!(published[0].source(), "paper, MSR-VTT, FLAN-T5-XL");
        assert_eq!(published[0].fault(), None);
        assert!(toml::from_str::<Ablation>(&NUMBER.replace("label", "lable")).is_err());
    }

    #[test]
    fn a_number_without_data_and_a_row_without_content_are_faults() {
        let fault = |text: &str| toml::from_str::<Ablation>(text).unwrap().published[0].fault().unwrap();
        assert!(fault(&NUMBER.replace("data_set = \"MSR-VTT\"", "")).contains("no data_set"));
        assert!(fault(&NUMBER.replace("value = 73.6", "")).contains("neither value nor method"));
    }

    #[test]
    fn a_statement_survives_a_summary() {
        let text = r#"
            [[claims]]
            figure = "Fig. 4"
            variant = "qformer_only"
            statement = "reaches its peak at epoch 14"
            best_epoch = 14
            data_set = "MSR-VTT"
            model = "FLAN-T5-XL"
        "#;
        let Ablation { mut claims, .. } = toml::from_str(text).unwrap();
        let published = Published::from(claims.remove(0));
        assert_eq!(published.claim.as_ref().unwrap().best_epoch, Some(14));
        assert_eq!(published.fault(), None);
        let json = serde_json::to_string(&published).unwrap();
        assert_eq!(serde_json::from_str::<Published>(&json).unwrap(), published);
        assert!(toml::from_str::<Ablation>(&text.replace("statement", "value")).is_err());
    }
}
