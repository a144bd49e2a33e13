//! Parameters of a module by name: listing, counting, freezing.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};

/// One parameter, without its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Path of fields joined by dots: `qformer.layers.0.attention.query.weight`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl Parameter {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it holds no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The current path of a visitor or mapper: fields joined by dots. Variants of an enum are not part of it:
/// `language_model.shared` is the name of the embedding in the variant T5 of `language_model`.
#[derive(Debug, Clone, Default)]
pub struct FieldPath(Vec<Option<String>>);

impl FieldPath {
    /// To be called from `enter_module` with its arguments.
    pub fn enter(&mut self, name: &str, container: &str) {
        self.0.push((!container.starts_with("Enum:")).then(|| name.to_owned()));
    }

    /// To be called from `exit_module`.
    pub fn exit(&mut self) {
        self.0.pop();
    }

    /// The path so far.
    pub fn name(&self) -> String {
        self.0.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(".")
    }
}

/// The methods of a visitor or mapper that keep its field `path` current.
macro_rules! track_path {
    () => {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
    };
}
pub(crate) use track_path;

/// Lists a module's parameters in the order of its fields, allocating none.
pub fn list<M: Module>(module: &M) -> Vec<Parameter> {
    let mut visitor = Lister::default();
    module.visit(&mut visitor);
    visitor.parameters
}

/// The names alone.
pub fn names<M: Module>(module: &M) -> Vec<String> {
    list(module).into_iter().map(|parameter| parameter.name).collect()
}

/// Number of values in the parameters whose name is chosen.
pub fn count<M: Module>(module: &M, choose: impl Fn(&str) -> bool) -> usize {
    list(module).iter().filter(|parameter| choose(&parameter.name)).map(Parameter::len).sum()
}

/// Whether no parameter of the module is trainable, as in every module on a plain device.
pub fn is_frozen<M: Module>(module: &M) -> bool {
    let mut visitor = AnyTrained(false);
    module.visit(&mut visitor);
    !visitor.0
}

/// Makes exactly the parameters trainable whose name is chosen. It takes the module by value, because copies
/// of a module share the flags of parameters that are not initialised yet.
pub fn set_trainable<M: Module>(module: M, choose: impl Fn(&str) -> bool) -> M {
    module.map(&mut Setter { path: FieldPath::default(), choose })
}

/// Initialises all parameters in the order of the module's fields, so that their values depend only on the
/// device's seed.
pub fn draw<M: Module>(module: &M) {
    module.visit(&mut Drawer);
}

/// The gradient of the parameter of this name, row by row, and its shape; `None` if it has none or does not
/// exist.
pub fn gradient<M: Module>(module: &M, name: &str, gradients: &Gradients) -> Option<(Vec<f32>, Vec<usize>)> {
    let mut finder = GradientFinder { path: FieldPath::default(), name, gradients, found: None };
    module.visit(&mut finder);
    finder.found
}

struct GradientFinder<'a> {
    path: FieldPath,
    name: &'a str,
    gradients: &'a Gradients,
    found: Option<(Vec<f32>, Vec<usize>)>,
}

impl ModuleVisitor for GradientFinder<'_> {
    track_path!();

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if self.path.name() != self.name {
            return;
        }
        if let Some(gradient) = parameter.val().grad(self.gradients) {
            let shape = gradient.dims().to_vec();
            self.found = gradient.into_data().try_to_vec::<f32>().ok().map(|values| (values, shape));
        }
    }
}

#[derive(Default)]
struct Lister {
    path: FieldPath,
    parameters: Vec<Parameter>,
}

impl ModuleVisitor for Lister {
    track_path!();

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        self.parameters.push(Parameter { name: self.path.name(), shape: parameter.lazy_shape().to_vec() });
    }
}

struct AnyTrained(bool);

impl ModuleVisitor for AnyTrained {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        self.0 |= parameter.is_require_grad();
    }
}

struct Setter<F> {
    path: FieldPath,
    choose: F,
}

impl<F: Fn(&str) -> bool> ModuleMapper for Setter<F> {
    track_path!();

    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let is_chosen = (self.choose)(&self.path.name());
        parameter.set_require_grad(is_chosen)
    }
}

struct Drawer;

impl ModuleVisitor for Drawer {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        parameter.val();
    }
}
