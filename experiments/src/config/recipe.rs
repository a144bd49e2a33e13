//! Layers of settings with those of a recipe and of a data set.
//!
//! A layer is a profile, a variant, or what a variant changes in a profile. Beside its settings it may have
//! `datasets.NAME`, settings for one data set, and `recipes.released`, settings of the authors' code, with
//! `recipes.released.datasets.NAME` in it. They are merged in this order, and later layers win.

use anyhow::{Context as _, bail, ensure};
use data::datasets::DataSet;
use toml::{Table, Value};

use super::layers::merge;
use super::run::Recipe;
use super::study::choices;

const RECIPES: &str = "recipes";
const DATASETS: &str = "datasets";

/// Merges layers; `sets`, which are merged later, may name the data set.
pub(super) fn merged(layers: &[Table], recipe: Recipe, sets: &[String]) -> Table {
    let dataset = dataset(layers, sets);
    let mut table = Table::new();
    for layer in layers {
        let mut layer = layer.clone();
        let recipes = layer.remove(RECIPES);
        merge_with_dataset(&mut table, layer, dataset.as_deref());
        let own = recipes.and_then(|mut recipes| recipes.as_table_mut()?.remove(recipe.name()));
        if let Some(Value::Table(own)) = own {
            merge_with_dataset(&mut table, own, dataset.as_deref());
        }
    }
    table
}

fn merge_with_dataset(table: &mut Table, mut settings: Table, dataset: Option<&str>) {
    let datasets = settings.remove(DATASETS);
    merge(table, &settings);
    let own = dataset.zip(datasets.as_ref()).and_then(|(name, datasets)| datasets.get(name)?.as_table());
    if let Some(own) = own {
        merge(table, own);
    }
}

/// The name of the data set: that of the last setting that has one, else of the last layer. None for the tiny
/// world.
fn dataset(layers: &[Table], sets: &[String]) -> Option<String> {
    let of_set = |set: &String| {
        let (key, value) = set.split_once('=')?;
        match (key.trim(), value.trim().trim_matches('"')) {
            ("dataset", "tiny") => Some(None),
            ("dataset.name", name) => Some(Some(name.to_owned())),
            _ => None,
        }
    };
    let of_layer = |layer: &Table| Some(layer.get("dataset")?.get("name")?.as_str()?.to_owned());
    sets.iter().rev().find_map(of_set).unwrap_or_else(|| layers.iter().rev().find_map(of_layer))
}

/// Whether a layer has settings of a recipe.
pub(super) fn names_recipe(layer: &Table, recipe: Recipe) -> bool {
    layer.get(RECIPES).and_then(Value::as_table).is_some_and(|own| own.contains_key(recipe.name()))
}

/// The recipe that the last `recipe=NAME` among the settings names.
pub(super) fn chosen_recipe(sets: &[String]) -> anyhow::Result<Recipe> {
    let named = sets.iter().rev().find_map(|set| {
        let (key, value) = set.split_once('=')?;
        (key.trim() == "recipe").then(|| value.trim().trim_matches('"'))
    });
    let Some(word) = named else { return Ok(Recipe::default()) };
    let known = Recipe::ALL.map(Recipe::name);
    let unknown =
        || format!("there is no recipe \"{word}\"{}", choices(word, &known, "experiments ablation --help"));
    Recipe::ALL.into_iter().find(|recipe| recipe.name() == word).with_context(unknown)
}

/// Refuses unknown recipes and data sets in a table of settings.
pub(super) fn check_recipes(layer: &Table) -> anyhow::Result<()> {
    check_datasets(layer, "")?;
    let Some(recipes) = layer.get(RECIPES) else { return Ok(()) };
    let Some(recipes) = recipes.as_table() else { bail!("recipes must be a table of tables of settings") };
    for (name, own) in recipes {
        ensure!(
            name == Recipe::Released.name(),
            "recipes.{name}: only recipes.released may change the settings beside it, which are the paper's"
        );
        let Some(own) = own.as_table() else { bail!("recipes.{name} must be a table of settings") };
        check_datasets(own, &format!("recipes.{name}."))?;
    }
    Ok(())
}

fn check_datasets(settings: &Table, place: &str) -> anyhow::Result<()> {
    let Some(datasets) = settings.get(DATASETS) else { return Ok(()) };
    let Some(datasets) = datasets.as_table() else {
        bail!("{place}datasets must be a table of tables of settings")
    };
    let known = DataSet::ALL.map(DataSet::name);
    for (name, own) in datasets {
        ensure!(
            known.contains(&name.as_str()),
            "{place}datasets.{name}: there is no such data set{}",
            choices(name, &known, "experiments ablation --help")
        );
        ensure!(own.is_table(), "{place}datasets.{name} must be a table of settings");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_data_set_and_a_recipe_change_the_settings_beside_them_and_later_layers_win() {
        let profile = table(
            "a = 1\nb = 1\nc = 1\ndataset.name = \"msrvtt\"\ndatasets.msvd.b = 2\n\
             recipes.released.b = 3\nrecipes.released.datasets.msvd.c = 4",
        );
        let layers = [profile, table("a = 5\nrecipes.released.datasets.vatex.a = 6")];
        let merged = |recipe, sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
            let mut table = merged(&layers, recipe, &sets);
            table.remove("dataset");
            table.to_string()
        };
        assert_eq!(merged(Recipe::Paper, &[]), "a = 5\nb = 1\nc = 1\n");
        assert_eq!(merged(Recipe::Paper, &["dataset.name=msvd"]), "a = 5\nb = 2\nc = 1\n");
        assert_eq!(merged(Recipe::Released, &["dataset.name=msvd"]), "a = 5\nb = 3\nc = 4\n");
        assert_eq!(merged(Recipe::Released, &["dataset.name = \"vatex\""]), "a = 6\nb = 3\nc = 1\n");
        assert_eq!(merged(Recipe::Released, &["dataset.name=msvd", "dataset=tiny"]), "a = 5\nb = 3\nc = 1\n");
    }

    #[test]
    fn an_unknown_recipe_or_data_set_is_refused_with_its_place() {
        for (text, word) in [
            ("recipes.paper.a = 1", "only recipes.released"),
            ("recipes = 1", "a table of tables"),
            ("datasets.msvdd.a = 1", "did you mean \"msvd\"?"),
            ("recipes.released.datasets.vate.a = 1", "recipes.released.datasets.vate"),
            ("recipes.released.datasets.vatex = 1", "must be a table of settings"),
            ("datasets = 1", "a table of tables"),
        ] {
            let message = check_recipes(&table(text)).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
        check_recipes(&table("datasets.msvd.a = 1\nrecipes.released.datasets.vatex.a = 1")).unwrap();
    }
}
