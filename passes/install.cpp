#include "passes/install.h"

#include <ATen/core/custom_class.h>
#include <torch/csrc/jit/api/function_impl.h>

namespace fusible {

namespace {

using c10::ClassType;
using c10::ClassTypePtr;
using c10::ivalue::Object;
using torch::jit::attr::name;
namespace prim = torch::jit::prim;

class Installer {
 public:
  Installer(Model& model, const PackedStore& store, const Regions& regions) : model_(model), store_(store), regions_(regions), cu_(model.source._ivalue()->compilation_unit()) {
    for (const auto& inner : model.source.modules())
      for (const auto& value : inner._ivalue()->slots())
        if (value.isTensor()) add_storages(value, attribute_storages_);
  }

  Module run() {
    for (auto& method : model_.methods) restore_attributes(method);
    const auto root = copy(*model_.source._ivalue());
    add_objects(*root, store_.objects());
    add_objects(*root, store_.recurrents());
    add_objects(*root, regions_);
    for (auto& method : model_.methods) add_method(method, root->type());
    add_properties(root->type());
    return Module(root);
  }

 private:
  // What only a region reads is in the region.
  template <typename T>
  void add_objects(Object& root, const std::map<std::string, c10::intrusive_ptr<T>>& objects) {
    for (const auto& [attribute, object] : objects) {
      if (!live_.count({model_.source._ivalue().get(), attribute})) continue;
      root.type()->addAttribute(attribute, c10::getCustomClassType<c10::intrusive_ptr<T>>());
      root.setAttr(attribute, c10::IValue(object));
    }
  }

  // Tensor constants that stand for attributes and are still read become attribute reads again: one copy, in state_dict and on disk.
  void restore_attributes(MethodGraph& method) {
    Graph& graph = *method.graph;
    std::map<std::vector<std::string>, Value*> modules{{{}, graph.inputs()[0]}};
    Node* last = nullptr;
    const auto get = [&](Value* owner, const std::string& attribute, const c10::TypePtr& type) {
      Node* node = graph.create(prim::GetAttr, {owner});
      node->s_(name, attribute);
      node->output()->setType(type);
      if (last) node->insertAfter(last);
      else graph.prependNode(node);
      last = node;
      return node->output();
    };
    std::vector<std::pair<std::vector<std::string>, const Value*>> ordered;
    for (const auto& [constant, attribute] : method.tensor_attributes) {
      if (!constant->hasUses()) continue;
      auto key = attribute.path;
      key.push_back(attribute.name);
      ordered.emplace_back(std::move(key), constant);
    }
    std::sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& [key, constant] : ordered) {
      const Attribute& attribute = method.tensor_attributes.at(constant);
      std::vector<std::string> path;
      Value* owner = modules.at({});
      Object* object = model_.source._ivalue().get();
      for (const auto& part : attribute.path) {
        object = object->getAttr(part).toObject().get();
        path.push_back(part);
        Value*& value = modules[path];
        if (!value) value = get(owner, part, object->type());
        owner = value;
      }
      Value* old = const_cast<Value*>(constant);
      old->replaceAllUsesWith(get(owner, attribute.name, object->type()->getAttribute(attribute.name)));
      old->node()->destroy();
    }
    for_each_node(graph.block(), [&](Node* node) {
      if (node->kind() != prim::GetAttr && node->kind() != prim::SetAttr) return;
      if (auto owner = owner_of(node->input(0))) live_.insert({owner, node->s(name)});
    });
  }

  // The object of a module value: self, or attributes of it.
  Object* owner_of(const Value* value) const {
    if (value->node()->kind() == prim::Param) {
      const bool self = value == value->owningGraph()->inputs()[0];
      return self ? model_.source._ivalue().get() : nullptr;
    }
    if (value->node()->kind() != prim::GetAttr) return nullptr;
    Object* owner = owner_of(value->node()->input(0));
    if (!owner || !owner->type()->hasAttribute(value->node()->s(name))) return nullptr;
    const auto inner = owner->getAttr(value->node()->s(name));
    return inner.isObject() ? inner.toObject().get() : nullptr;
  }

  c10::intrusive_ptr<Object> copy(const Object& old) {
    auto& known = copies_[&old];
    if (known) return known;
    const auto old_type = old.type();
    auto name = *old_type->name();
    auto type = ClassType::create(cu_->mangle(name), cu_, /*is_module=*/true);
    cu_->register_type(type);
    known = Object::create(c10::StrongTypePtr(cu_, type), 0);
    auto result = known;
    for (std::size_t i = 0; i < old_type->numConstants(); ++i) type->addConstant(old_type->getConstantName(i), old_type->getConstant(i));
    for (std::size_t i = 0; i < old_type->numAttributes(); ++i) {
      const std::string& attribute = old_type->getAttributeName(i);
      const c10::IValue value = old.getSlot(i);
      c10::TypePtr attribute_type = old_type->getAttribute(i);
      c10::IValue kept;
      if (value.isObject() && value.toObjectRef().type()->is_module()) {
        if (attribute_type->kind() == c10::TypeKind::InterfaceType) {
          kept = copy_as_is(value.toObjectRef());
        } else {
          auto inner = copy(value.toObjectRef());
          attribute_type = inner->type();
          kept = inner;
        }
      } else {
        if ((old_type->is_parameter(i) || is_list_of_parameters(old, value)) && !live_.count({&old, attribute})) continue;
        kept = copy_value(value);
      }
      const auto slot = type->addAttribute(attribute, attribute_type, old_type->is_parameter(i), old_type->is_buffer(i));
      result->setSlot(slot, std::move(kept));
    }
    return result;
  }

  // torch.nn.LSTM and GRU keep their parameters in a list beside them, _flat_weights.
  static bool is_list_of_parameters(const Object& owner, const c10::IValue& value) {
    if (!value.isTensorList() || value.toTensorList().empty()) return false;
    for (const at::Tensor& tensor : value.toTensorVector())
      if (const auto slot = slot_of(owner, tensor); !slot || !owner.type()->is_parameter(*slot)) return false;
    return true;
  }

  // Parameters are inference constants: they lose requires_grad. What a method writes is copied, so that running one module does not
  // advance the other, and so is what lists, dicts and objects hold beside the attributes.
  c10::IValue copy_value(const c10::IValue& value) {
    const c10::IValue made = copier_.copy(value);
    return made.isTensor() && made.toTensor().defined() && made.toTensor().requires_grad() ? c10::IValue(made.toTensor().detach()) : made;
  }

  bool is_shared(const at::Tensor& tensor) const {
    if (!tensor.has_storage()) return true;
    const void* storage = tensor.storage().unsafeGetStorageImpl();
    return attribute_storages_.count(storage) != 0 && model_.written_storages.count(storage) == 0;
  }

  // Same type, own slots: the submodule runs its own methods.
  c10::intrusive_ptr<Object> copy_as_is(const Object& old) {
    auto& known = copies_[&old];
    if (known) return known;
    known = Object::create(c10::StrongTypePtr(cu_, old.type()), old.type()->numAttributes());
    auto result = known;
    for (std::size_t i = 0; i < old.type()->numAttributes(); ++i) {
      const c10::IValue value = old.getSlot(i);
      if (value.isObject() && value.toObjectRef().type()->is_module()) result->setSlot(i, copy_as_is(value.toObjectRef()));
      else if (old.type()->is_parameter(i)) result->setSlot(i, value);
      else result->setSlot(i, copy_value(value));
    }
    return result;
  }

  void add_method(MethodGraph& method, const ClassTypePtr& type) {
    Graph& graph = *method.graph;
    graph.inputs()[0]->setType(type);
    for_each_node(graph.block(), [&](Node* node) {
      if (node->kind() != prim::GetAttr) return;
      auto owner = node->input(0)->type()->cast<ClassType>();
      if (owner && owner->is_module() && owner->hasAttribute(node->s(name))) node->output()->setType(owner->getAttribute(node->s(name)));
    });
    const bool is_method = method.role == MethodGraph::Role::method;
    const auto& original = is_method ? model_.source.type()->getMethod(method.name) : model_.source.type()->getHook(method.name);
    auto* function = cu_->create_function(c10::QualifiedName(*type->name(), method.name), method.graph);
    const auto& schema = original.getSchema();
    std::vector<c10::Argument> arguments = schema.arguments();
    arguments[0] = c10::Argument(arguments[0].name(), type, arguments[0].N(), arguments[0].default_value(), arguments[0].kwarg_only());
    function->setSchema(schema.cloneWithArguments(std::move(arguments)));
    if (is_method) type->addMethod(function);
    else if (method.role == MethodGraph::Role::hook) type->addForwardHook(function);
    else type->addForwardPreHook(function);
  }

  void add_properties(const ClassTypePtr& type) {
    for (const auto& property : model_.source.type()->properties()) {
      auto* getter = type->findMethod(property.getter->name());
      auto* setter = property.setter ? type->findMethod(property.setter->name()) : nullptr;
      if (getter) type->addProperty(property.name, getter, setter);
    }
  }

  Model& model_;
  const PackedStore& store_;
  const Regions& regions_;
  std::shared_ptr<torch::jit::CompilationUnit> cu_;
  std::set<AttributeKey> live_;
  std::map<const Object*, c10::intrusive_ptr<Object>> copies_;
  std::unordered_set<const void*> attribute_storages_;
  Copier copier_{[this](const at::Tensor& tensor) { return is_shared(tensor); }};
};

}  // namespace

Module install(Model& model, const PackedStore& store, const Regions& regions) { return Installer(model, store, regions).run(); }

namespace {

// torch's clone makes types anew, and leaves out the hooks of each.
void copy_hooks(const Module& from, const Module& to) {
  const auto originals = from.modules(), copies = to.modules();
  std::unordered_map<c10::TypePtr, c10::TypePtr> copied;
  for (auto original = originals.begin(), copy = copies.begin(); original != originals.end(); ++original, ++copy) copied[(*original).type()] = (*copy).type();
  const auto remapped = [&](const c10::TypePtr& type) {
    const auto found = copied.find(type);
    return found == copied.end() ? type : found->second;
  };
  const auto copy_of = [&](const torch::jit::Function* hook, const c10::TypePtr& type) {
    auto graph = torch::jit::toGraphFunction(*const_cast<torch::jit::Function*>(hook)).graph()->copy();
    graph->remapTypes(remapped);
    auto* function = to._ivalue()->compilation_unit()->create_function(c10::QualifiedName(*type->expectRef<ClassType>().name(), hook->name()), std::move(graph), /*shouldMangle=*/true);
    function->setSchema(hook->getSchema().cloneWithRemappedTypes(remapped));
    return function;
  };
  for (const auto& [type, copy] : copied) {
    auto& there = copy->expectRef<ClassType>();
    if (!there.getForwardHooks().empty() || !there.getForwardPreHooks().empty()) continue;
    for (const auto* hook : type->expectRef<ClassType>().getForwardPreHooks()) there.addForwardPreHook(copy_of(hook, copy));
    for (const auto* hook : type->expectRef<ClassType>().getForwardHooks()) there.addForwardHook(copy_of(hook, copy));
  }
}

}  // namespace

Module copy_whole(const Module& module, Copier copier) {
  Module copied = module.clone(/*inplace=*/true);
  copy_hooks(module, copied);
  std::set<const Object*> seen;
  for (const auto& inner : copied.modules()) {
    if (!seen.insert(inner._ivalue().get()).second) continue;
    for (std::size_t i = 0; i < inner.type()->numAttributes(); ++i) inner._ivalue()->setSlot(i, copier.copy(inner._ivalue()->getSlot(i)));
  }
  return copied;
}

Module copy_with_its_parameters(const Module& module) {
  std::unordered_set<const void*> parameters;
  for (const at::Tensor& parameter : module.parameters()) add_storages(parameter, parameters);
  return copy_whole(module, Copier([&](const at::Tensor& tensor) {
    return tensor.has_storage() && parameters.count(tensor.storage().unsafeGetStorageImpl()) != 0;
  }));
}

void set_report(Module& module, const std::string& json) {
  if (module.hasattr(kReportAttribute)) {
    module.setattr(kReportAttribute, json);
    return;
  }
  module.type()->addAttribute(kReportAttribute, c10::StringType::get());
  module._ivalue()->setAttr(kReportAttribute, json);
}

}  // namespace fusible
