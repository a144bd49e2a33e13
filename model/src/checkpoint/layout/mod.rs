//! Checkpoints of several layouts under Hugging Face's names.
//!
//! A [`Mapped`] is a view of a [`Source`] with the names of `Blip2ForConditionalGeneration`. A [`Recipe`]
//! computes each tensor from tensors of the source. Every layout has a mapping table at the top of its file.
//! Names that are in no table are kept, and the loader reports them.

mod lavis;
mod onnx;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::source::{ElementType, Source, SourceError};

/// The origin of a checkpoint's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// transformers: the names are kept.
    HuggingFace,
    /// A `.pth` of LAVIS: `Qformer.bert.`, `visual_encoder.`, ...
    Lavis,
    /// `eva_vit_g.pth`, the ViT that LAVIS starts from: `cls_token`, `blocks.`, ...
    EvaVit,
    /// torch.onnx, either exporter.
    Onnx,
}

impl Layout {
    /// The layout of a source, from its names.
    pub fn of(source: &Source) -> Self {
        if source.graph().is_some() {
            Self::Onnx
        } else if source.names().any(lavis::is_lavis) {
            Self::Lavis
        } else if source.names().any(lavis::is_eva) {
            Self::EvaVit
        } else {
            Self::HuggingFace
        }
    }
}

/// How a tensor is computed from tensors of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// A tensor of the source.
    Tensor(String),
    /// A matrix of the source, transposed.
    Transposed(String),
    /// The first of equal entries along the first axis, as exporters save an expanded tensor.
    First(String),
    /// The biases of queries and values, with zeros for the keys between them.
    QueryValueBias {
        /// The bias of the queries.
        query: String,
        /// The bias of the values.
        value: String,
    },
}

/// A tensor of the source that the model does not need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excused {
    /// Its name in the source.
    pub name: String,
    /// Why it is not needed.
    pub reason: &'static str,
}

/// The result of a layout's table for a source.
#[derive(Debug, Default)]
struct Rules {
    recipes: BTreeMap<String, Recipe>,
    excused: Vec<Excused>,
    /// Names that two tensors of the source map to.
    doubled: Vec<String>,
}

impl Rules {
    fn add(&mut self, target: String, recipe: Recipe) {
        if self.recipes.insert(target.clone(), recipe).is_some() {
            self.doubled.push(target);
        }
    }
}

/// A source under Hugging Face's names.
#[derive(Debug)]
pub struct Mapped {
    source: Source,
    layout: Layout,
    rules: Rules,
}

impl Mapped {
    /// Maps a source by its layout.
    ///
    /// # Errors
    /// If two of its tensors map to one name, or a recipe does not fit its tensors.
    pub fn new(source: Source) -> Result<Self, SourceError> {
        let layout = Layout::of(&source);
        let names: Vec<_> = source.names().collect();
        let rules = match layout {
            Layout::HuggingFace => {
                let mut rules = Rules::default();
                for &name in &names {
                    rules.add(name.to_owned(), Recipe::Tensor(name.to_owned()));
                }
                rules
            }
            Layout::Lavis => lavis::map_lavis(&names),
            Layout::EvaVit => lavis::map_eva(&names),
            Layout::Onnx => onnx::map(&source),
        };
        if let Some(target) = rules.doubled.first() {
            return Err(fail(&source, target, "two tensors of the file map to this name"));
        }
        let mapped = Self { source, layout, rules };
        for name in mapped.rules.recipes.keys() {
            mapped.describe(name)?;
        }
        Ok(mapped)
    }

    /// Hugging Face's names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.recipes.keys().map(String::as_str)
    }

    /// Shape and type of a tensor; `None` if it does not exist.
    pub fn get(&self, name: &str) -> Option<(Vec<usize>, ElementType)> {
        self.describe(name).ok()
    }

    /// Reads a tensor of floating-point numbers, in row-major order.
    ///
    /// # Errors
    /// If it does not exist, or a tensor of its recipe cannot be read.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, SourceError> {
        match self.recipe_of(name)? {
            Recipe::Tensor(tensor) => self.source.read_f32(tensor),
            Recipe::Transposed(tensor) => {
                let columns = self.shape(tensor, name)?.get(1).copied().unwrap_or(0);
                Ok(transpose(&self.source.read_f32(tensor)?, columns))
            }
            Recipe::First(tensor) => {
                let mut values = self.source.read_f32(tensor)?;
                let length: usize = self.shape(tensor, name)?.iter().skip(1).product();
                let first = values.get(..length).unwrap_or_default();
                if length == 0 || values.chunks(length).any(|entry| entry != first) {
                    return Err(fail(&self.source, name, "the entries it was expanded to are not equal"));
                }
                values.truncate(length);
                Ok(values)
            }
            Recipe::QueryValueBias { query, value } => {
                let mut values = self.source.read_f32(query)?;
                values.resize(2 * values.len(), 0.0);
                values.extend(self.source.read_f32(value)?);
                Ok(values)
            }
        }
    }

    /// The recipe of a tensor; `None` if it does not exist.
    pub fn recipe(&self, name: &str) -> Option<&Recipe> {
        self.rules.recipes.get(name)
    }

    /// The source's tensors that the model does not need, and why.
    pub fn excused(&self) -> &[Excused] {
        &self.rules.excused
    }

    /// The source's layout.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The source.
    pub fn source(&self) -> &Source {
        &self.source
    }

    fn recipe_of(&self, name: &str) -> Result<&Recipe, SourceError> {
        self.recipe(name).ok_or_else(|| fail(&self.source, name, "absent"))
    }

    fn shape(&self, tensor: &str, name: &str) -> Result<&[usize], SourceError> {
        let info = self.source.get(tensor);
        Ok(info.ok_or_else(|| fail(&self.source, name, &format!("made of {tensor}, which is absent")))?.shape)
    }

    fn describe(&self, name: &str) -> Result<(Vec<usize>, ElementType), SourceError> {
        let recipe = self.recipe_of(name)?;
        let fail = |reason: String| Err(fail(&self.source, name, &reason));
        let source = match recipe {
            Recipe::Tensor(tensor) | Recipe::Transposed(tensor) | Recipe::First(tensor) => tensor,
            Recipe::QueryValueBias { query, .. } => query,
        };
        let mut shape = self.shape(source, name)?.to_vec();
        let element_type = self.source.get(source).map_or(ElementType::Other, |info| info.element_type);
        match recipe {
            Recipe::Tensor(_) => {}
            Recipe::Transposed(_) if shape.len() == 2 => shape.swap(0, 1),
            Recipe::First(_) if !shape.is_empty() => shape[0] = 1,
            Recipe::Transposed(_) | Recipe::First(_) => {
                return fail(format!("made of {source}, whose shape {shape:?} does not fit"));
            }
            Recipe::QueryValueBias { query, value } => {
                let mut length = 0usize;
                for tensor in [query, query, value] {
                    let [first, rest @ ..] = self.shape(tensor, name)? else {
                        return fail(format!("made of {tensor}, which has no axes"));
                    };
                    if shape.get(1..) != Some(rest) {
                        return fail(format!("made of {source} and {tensor}, of other shapes"));
                    }
                    length = length.saturating_add(*first);
                }
                shape[0] = length;
            }
        }
        Ok((shape, element_type))
    }
}

fn fail(source: &Source, name: &str, reason: &str) -> SourceError {
    SourceError::Tensor { name: name.to_owned(), reason: reason.to_owned(), path: source.path().to_owned() }
}

/// The transpose of a matrix with `columns` columns.
fn transpose(values: &[f32], columns: usize) -> Vec<f32> {
    const BLOCK: usize = 32; // rows and columns that the cache holds together
    let rows = values.len().checked_div(columns).unwrap_or(0);
    let mut transposed = vec![0.0; rows * columns];
    for first_row in (0..rows).step_by(BLOCK) {
        for first_column in (0..columns).step_by(BLOCK) {
            for row in first_row..rows.min(first_row + BLOCK) {
                for column in first_column..columns.min(first_column + BLOCK) {
                    transposed[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    transposed
}
