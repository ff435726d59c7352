// fusible._C: converts between Python and fusible.h, nothing more.

#include <cstring>
#include <memory>

#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/python/pybind_utils.h>
#include <torch/csrc/jit/serialization/import.h>

#include "fusible/fusible.h"

namespace py = pybind11;

namespace {

using torch::jit::Module;

// Inputs of forward (or of the first treated method) by the types that its schema names.
std::vector<c10::IValue> inputs_of(const Module& module, const py::tuple& inputs, const std::vector<std::string>& methods) {
  const auto method = module.find_method(!methods.empty() && !module.find_method("forward") ? methods[0] : "forward");
  if (!method) throw fusible::Error("example_inputs: a method forward was needed, the module has none");
  const auto& arguments = method->function().getSchema().arguments();
  if (inputs.size() + 1 > arguments.size())
    throw fusible::Error("example_inputs: at most " + std::to_string(arguments.size() - 1) + " inputs were needed, found " + std::to_string(inputs.size()));
  std::vector<c10::IValue> values;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    try {
      values.push_back(torch::jit::toIValue(inputs[i], arguments[i + 1].type()));
    } catch (const std::exception&) {
      throw fusible::Error("example_inputs: '" + arguments[i + 1].name() + "' needs a " + arguments[i + 1].type()->annotation_str() + ", found a " +
                           std::string(py::str(py::type::handle_of(inputs[i]).attr("__name__"))));
    }
  }
  return values;
}

// Ctrl-C reaches Python's handler only when someone asks: between stages, whether or not the caller wants to hear of progress.
std::function<void(const std::string&, double)> interruptible(std::function<void(const std::string&, double)> progress) {
  return [progress = std::move(progress)](const std::string& stage, double share) {
    {
      py::gil_scoped_acquire gil;
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    }
    if (progress) progress(stage, share);
  };
}

fusible::Options options_of(const Module& module, const py::dict& given) {
  fusible::Options options;
  options.methods = given["methods"].cast<std::vector<std::string>>();
  options.target = given["target"].cast<std::string>();
  options.strict = given["strict"].cast<bool>();
  options.select = given["select"].cast<std::vector<std::string>>();
  options.ignore = given["ignore"].cast<std::vector<std::string>>();
  options.patterns = given["patterns"].cast<std::vector<std::string>>();
  options.sample = given["sample"].cast<bool>();
  options.tune = given["tune"].cast<bool>();
  options.model_path = given["model_path"].cast<std::string>();
  if (!given["verify"].is_none()) options.verify = given["verify"].cast<bool>();
  if (!given["example_inputs"].is_none()) options.example_inputs = inputs_of(module, given["example_inputs"].cast<py::tuple>(), options.methods);
  if (!given["progress"].is_none()) {
    // The passes copy options without the GIL: they copy the pointer, and the last owner gives the function back with the GIL held.
    const std::shared_ptr<py::function> callback(new py::function(given["progress"].cast<py::function>()), [](py::function* function) {
      py::gil_scoped_acquire gil;
      delete function;
    });
    options.progress = [callback](const std::string& stage, double share) {
      py::gil_scoped_acquire gil;
      (*callback)(stage, share);
    };
  }
  options.progress = interruptible(std::move(options.progress));
  return options;
}

// A module whose forward is the function, with its names and defaults.
Module module_of(const torch::jit::StrongFunctionPtr& function) {
  const auto unit = std::make_shared<torch::jit::CompilationUnit>();
  const Module module("__torch__." + function.function_->name(), unit, /*shouldMangle=*/true);
  auto graph = torch::jit::toGraphFunction(*function.function_).graph()->copy();
  torch::jit::Inline(*graph);  // calls hold pointers into the function's own compilation unit
  graph->insertInput(0, "self")->setType(module.type());
  auto* forward = unit->create_function(c10::QualifiedName(*module.type()->name(), "forward"), graph);
  const auto& schema = function.function_->getSchema();
  auto arguments = schema.arguments();
  arguments.insert(arguments.begin(), c10::Argument("self", module.type()));
  forward->setSchema(schema.cloneWithArguments(std::move(arguments)).cloneWithName("forward", ""));
  module.type()->addMethod(forward);
  return module;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  if (!py::detail::get_type_handle(typeid(Module), false)) {
    throw py::import_error("fusible._C was compiled with pybind11 internals v" + std::to_string(PYBIND11_INTERNALS_VERSION) +
                           ", this torch uses another version: rebuild it with torch's own headers, `pip install --no-build-isolation .`");
  }
  static py::handle error_type;
  py::exception<fusible::Error> error(m, "FusibleError", PyExc_ValueError);
  error_type = error;
  // What an archive says may be quoted, and need not be UTF-8.
  py::register_exception_translator([](std::exception_ptr thrown) {
    const auto raise = [](py::handle type, const char* what) {
      const py::object text = py::reinterpret_steal<py::object>(PyUnicode_DecodeUTF8(what, static_cast<Py_ssize_t>(std::strlen(what)), "replace"));
      if (text) PyErr_SetObject(type.ptr(), text.ptr());
    };
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const fusible::Error& failure) {
      raise(error_type, failure.what());
    } catch (const py::builtin_exception&) {
      throw;
    } catch (const std::runtime_error& failure) {
      raise(PyExc_RuntimeError, failure.what());
    }
  });
  error.doc() = "Unusable input: what was needed, what was found, what to do. Never raised for a sequence that cannot be fused.";
  m.def("fuse", [](const Module& module, const py::dict& given) {
    const auto options = options_of(module, given);
    py::gil_scoped_release no_gil;
    return fusible::fuse(module, options).module;
  });
  m.def("lint", [](const Module& module, const py::dict& given) {
    const auto options = options_of(module, given);
    py::gil_scoped_release no_gil;
    return fusible::lint(module, options).to_json();
  });
  m.def("load", [](const std::string& path) {
    py::gil_scoped_release no_gil;
    return torch::jit::load(path, c10::Device(c10::kCPU));
  });
  m.def("module_of", &module_of);
  m.def("report", [](const Module& module) -> std::optional<std::string> {
    const auto report = fusible::report(module);
    return report ? std::make_optional(report->to_json()) : std::nullopt;
  });
  m.def("enable", &fusible::enable);
  m.def("disable", &fusible::disable);
  m.def("enabled", &fusible::enabled);
  m.def("why_not_running", [](const std::optional<Module>& module) { return fusible::why_not_running(module ? &*module : nullptr); }, py::arg("module") = py::none());
  m.def("load_patterns", &fusible::load_patterns);
  m.def("warmup", [](Module module, const py::tuple& given) {
    const auto inputs = inputs_of(module, given, {});
    py::gil_scoped_release no_gil;
    fusible::warmup(module, inputs);
  });
  m.def("weight_bytes", [](const Module& module) {
    const auto bytes = fusible::weight_bytes(module);
    return std::map<std::string, std::int64_t>{{"dense", bytes.dense}, {"packed", bytes.packed}};
  });
  m.def("version", &fusible::version);
  m.def("built_for_torch", &fusible::built_for_torch);
}
