//! The parameters of torch.onnx exports.
//!
//! Exporters keep the name of an unchanged parameter. They transpose weights of linear layers and fold
//! constants; both become anonymous (`onnx::MatMul_123`, `val_7`). The operation that uses an anonymous
//! tensor shows its module: its name contains the module's path with the TorchScript exporter
//! (`/encoder/layers.0/mlp/fc1/MatMul`), and the newer exporter stores the module's full name.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::source::{Node, Source, without_wrappers};
use super::{Excused, Recipe, Rules};

/// The parameter of an anonymous tensor, by the operation that uses it: operator, last name of the module
/// (any if empty), index among the inputs (any if `None`), number of axes of the tensor.
const USES: &[(&str, &str, Option<usize>, usize, Use)] = &[
    ("MatMul", "", Some(1), 2, Use::Transposed("weight")),
    ("Gather", "", Some(0), 2, Use::Whole("weight")),
    ("Add", "embeddings", None, 3, Use::Whole("position_embedding")),
    ("Concat", "embeddings", Some(0), 3, Use::First("class_embedding")),
];

#[derive(Clone, Copy)]
enum Use {
    /// The module's parameter of this name.
    Whole(&'static str),
    /// The same, transposed.
    Transposed(&'static str),
    /// The same, expanded along its first axis to the size of a batch.
    First(&'static str),
}

/// One name of each part of BLIP-2, and Hugging Face's prefix of the part. The prefix in the export (none, or
/// that of a wrapper) is replaced by it. The first matching row applies.
const PARTS: &[(&str, &str)] = &[
    ("embeddings.patch_embedding.weight", "vision_model."),
    ("encoder.layer.0.attention.attention.query.weight", "qformer."),
    ("encoder.block.0.layer.0.SelfAttention.q.weight", "language_model."),
    ("decoder.block.0.layer.0.SelfAttention.q.weight", "language_model."),
    ("block.0.layer.1.EncDecAttention.q.weight", "language_model.decoder."),
    ("block.0.layer.0.SelfAttention.q.weight", "language_model.encoder."),
    ("model.decoder.layers.0.self_attn.q_proj.weight", "language_model."),
    ("decoder.layers.0.self_attn.q_proj.weight", "language_model.model."),
    ("model.layers.0.self_attn.q_proj.weight", "language_model."),
    ("layers.0.self_attn.q_proj.weight", "language_model.model."),
];

/// Tied parameters: an exporter keeps one of the names; the second column is needed.
const TIED: &[(&str, &str)] = &[
    ("language_model.encoder.embed_tokens.weight", "language_model.shared.weight"),
    ("language_model.decoder.embed_tokens.weight", "language_model.shared.weight"),
];

/// Names of parameters outside of modules. Other names without a dot are made by the exporter.
const TOP_LEVEL: &[&str] = &["query_tokens"];

/// Buffers of an export: endings of names, and the reason to leave them out.
const EXCUSED: &[(&str, &str)] = &[
    (".rotary_emb.inv_freq", "follows from the configuration"),
    (".rotary_emb.original_inv_freq", "follows from the configuration"),
    (".position_ids", "a buffer of counting numbers"),
];

/// Maximum length of a module path, as the search is quadratic in it.
const MAX_PATH: usize = 1024;

/// Maximum number of parts, as every name is compared with each.
const MAX_PARTS: usize = 16;

const FOLDED: &str = "a constant of the graph";

pub(super) fn map(source: &Source) -> Rules {
    let nodes = source.graph().unwrap_or_default();
    let aliases = aliases(source, nodes);

    let mut parameters: BTreeMap<String, Recipe> = BTreeMap::new();
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for name in source.names().filter(|name| is_parameter(name)) {
        parameters.insert(name.to_owned(), Recipe::Tensor(name.to_owned()));
        used.insert(name);
    }
    for node in nodes {
        for (place, input) in node.inputs.iter().enumerate() {
            let Some(info) = source.get(input) else { continue };
            if !info.element_type.is_float() {
                continue;
            }
            let Some((name, recipe)) = parameter(node, place, input, info.shape.len(), &aliases) else {
                continue;
            };
            used.insert(input);
            // an explicit name has precedence
            parameters.entry(name).or_insert(recipe);
        }
    }
    let mut rules = Rules::default();
    parameters.retain(|name, _| {
        let excuse = EXCUSED.iter().find(|(end, _)| name.ends_with(end));
        rules.excused.extend(excuse.map(|(_, reason)| Excused { name: name.clone(), reason }));
        excuse.is_none()
    });
    let unwrapped = parameters.into_iter().map(|(name, recipe)| (without_wrappers(&name), recipe));
    let parameters: BTreeMap<String, Recipe> = unwrapped.collect();
    let prefixes = prefixes(&parameters);
    for (name, recipe) in parameters {
        rules.add(replace_prefix(&name, &prefixes), recipe);
    }
    for (from, to) in TIED {
        if let Some(recipe) = rules.recipes.get(*from).cloned() {
            rules.recipes.entry((*to).to_owned()).or_insert(recipe);
        }
    }
    let unused = source.names().filter(|name| !used.contains(name));
    rules.excused.extend(unused.map(|name| Excused { name: name.to_owned(), reason: FOLDED }));
    rules
}

/// Whether a tensor's name is that of a PyTorch parameter.
fn is_parameter(name: &str) -> bool {
    TOP_LEVEL.contains(&name) || (name.contains('.') && !name.contains(['/', ':']))
}

/// The parameter of a node's input, and its recipe.
fn parameter(
    node: &Node,
    place: usize,
    input: &str,
    axes: usize,
    aliases: &HashMap<String, String>,
) -> Option<(String, Recipe)> {
    let module = resolve(&module_of(node)?, aliases);
    let last = module.rsplit('.').next().unwrap_or_default();
    let (.., found) = USES.iter().find(|(operator, wanted, wanted_place, wanted_axes, _)| {
        *operator == node.operator
            && (wanted.is_empty() || *wanted == last)
            && wanted_place.is_none_or(|wanted| wanted == place)
            && *wanted_axes == axes
    })?;
    // a second module may use a tensor with a parameter's name, but only unchanged
    let input = input.to_owned();
    let (name, recipe) = match *found {
        Use::Whole(name) => (name, Recipe::Tensor(input)),
        Use::Transposed(_) | Use::First(_) if is_parameter(&input) => return None,
        Use::Transposed(name) => (name, Recipe::Transposed(input)),
        Use::First(name) => (name, Recipe::First(input)),
    };
    Some((format!("{module}.{name}"), recipe))
}

/// The path of a node's module, with dots.
fn module_of(node: &Node) -> Option<String> {
    // The newer exporter: modules, outermost first, then the operation's own name.
    if let [modules @ .., _operation] = &node.scopes[..] {
        return modules.last().filter(|module| !module.is_empty()).cloned();
    }
    let path = node.name.strip_prefix('/').filter(|path| path.len() <= MAX_PATH)?;
    Some(path.rsplit_once('/')?.0.replace('/', "."))
}

/// Differences between the paths of the TorchScript exporter and the names of modules.
///
/// Its paths follow the calls: if a module calls its grandchild, the child's name is absent, and
/// `/model/decoder/layers.0` is `model.model.decoder.layers.0`. Operations with a named parameter show both.
///
/// Each is from the path up to the first segment of the common ending, to the module's name up to it.
fn aliases(source: &Source, nodes: &[Node]) -> HashMap<String, String> {
    let mut prefixes = HashMap::new();
    for node in nodes.iter().filter(|node| node.scopes.is_empty()) {
        let Some(path) = module_of(node) else { continue };
        for input in node.inputs.iter().filter(|input| is_parameter(input) && source.get(input).is_some()) {
            let Some((module, _)) = input.rsplit_once('.') else { continue };
            let (path, module): (Vec<_>, Vec<_>) = (path.split('.').collect(), module.split('.').collect());
            let common = path.iter().rev().zip(module.iter().rev()).take_while(|(a, b)| a == b).count();
            // in `model.model.decoder` the path may lack either `model`: keep the first, which may have
            // other children (`model.lm_head`)
            let common = common.min(path.len() - 1);
            if common == 0 || path == module {
                continue;
            }
            let (path_end, module_end) = (path.len() - common + 1, module.len() - common + 1);
            prefixes.insert(path[..path_end].join("."), module[..module_end].join("."));
        }
    }
    prefixes
}

fn resolve(path: &str, aliases: &HashMap<String, String>) -> String {
    let ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
    let longest = ends.filter_map(|end| Some((end, aliases.get(&path[..end])?))).max_by_key(|(end, _)| *end);
    match longest {
        Some((end, module)) => format!("{module}{}", &path[end..]),
        None => path.to_owned(),
    }
}

/// The prefixes of the parts, longest first, each with the replacement.
fn prefixes(parameters: &BTreeMap<String, Recipe>) -> Vec<(String, &'static str)> {
    let mut found: Vec<(String, &'static str)> = Vec::new();
    for (anchor, part) in PARTS {
        for name in parameters.keys() {
            let Some(prefix) = name.strip_suffix(anchor) else { continue };
            let is_whole = prefix.is_empty() || prefix.ends_with('.');
            // a prefix that an earlier row has matched
            let is_known = found.iter().any(|(known, _)| prefix.starts_with(known.as_str()));
            if is_whole && !is_known && found.len() < MAX_PARTS {
                found.push((prefix.to_owned(), part));
            }
        }
    }
    found.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
    found
}

fn replace_prefix(name: &str, prefixes: &[(String, &'static str)]) -> String {
    match prefixes.iter().find(|(prefix, _)| name.starts_with(prefix.as_str())) {
        Some((prefix, part)) => format!("{part}{}", &name[prefix.len()..]),
        None => name.to_owned(),
    }
}
