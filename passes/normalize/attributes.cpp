#include <string_view>
#include <unordered_map>

#include <torch/csrc/jit/ir/constants.h>

#include "passes/normalize/normalize.h"

namespace fusible {

namespace {

using torch::jit::attr::name;
namespace prim = torch::jit::prim;

bool is_module(const c10::IValue& value) { return value.isObject() && value.toObjectRef().type()->is_module(); }

// A read or an assignment of an attribute of a module object.
struct Access {
  Node* node;
  const Attribute* owner;
  c10::IValue value;  // of a read
};

struct Owner {
  Attribute place;
  std::unordered_map<std::string_view, std::size_t> slots;  // of many attributes

  // torch compares names one by one: quadratic for a Sequential of thousands.
  c10::IValue read(const std::string& attribute) {
    constexpr std::size_t kMany = 64;
    const auto type = place.owner->type();
    if (type->numAttributes() < kMany) return place.owner->getAttr(attribute);
    if (slots.empty())
      for (std::size_t i = 0; i < type->numAttributes(); ++i) slots.emplace(type->getAttributeName(i), i);
    const auto slot = slots.find(attribute);
    return slot == slots.end() ? place.owner->getAttr(attribute) : place.owner->getSlot(slot->second);  // getAttr raises
  }
};

struct Accesses {
  std::vector<Access> all;  // of one method, in program order
  std::unordered_map<const Value*, Owner> modules;
};

// Every access of a method: of self, and of what chains of GetAttr lead to from there.
Accesses accesses_of(const Model& model, const MethodGraph& method) {
  Accesses accesses;
  auto& modules = accesses.modules;
  modules[method.graph->inputs()[0]] = {{model.source._ivalue().get(), {}, ""}, {}};
  for_each_node(method.graph->block(), [&](Node* node) {
    if (node->kind() != prim::GetAttr && node->kind() != prim::SetAttr) return;
    const auto known = modules.find(node->input(0));
    if (known == modules.end()) return;
    Owner& owner = known->second;
    accesses.all.push_back({node, &owner.place, node->kind() == prim::GetAttr ? owner.read(node->s(name)) : c10::IValue()});
    if (node->kind() != prim::GetAttr) return;
    auto type = node->output()->type()->cast<c10::ClassType>();
    if (!type || !type->is_module()) return;
    Attribute inner{accesses.all.back().value.toObject().get(), owner.place.path, ""};
    inner.path.push_back(node->s(name));
    modules[node->output()] = {std::move(inner), {}};
  });
  return accesses;
}

// An interface-typed submodule runs its own methods: whatever they assign is assigned.
void collect_assignments_behind_interfaces(Model& model, const c10::ivalue::Object& object) {
  for (std::size_t i = 0; i < object.type()->numAttributes(); ++i) {
    const auto& value = object.slots()[i];
    if (is_module(value)) collect_assignments_behind_interfaces(model, value.toObjectRef());
    model.assigned.insert({&object, object.type()->getAttributeName(i)});
  }
}

void collect_assignments(Model& model, const std::vector<Accesses>& accesses) {
  for (const auto& of_method : accesses) {
    for (const auto& [node, owner, value] : of_method.all) {
      if (node->kind() == prim::SetAttr) {
        model.assigned.insert({owner->owner, node->s(name)});
      } else if (node->output()->type()->kind() == c10::TypeKind::InterfaceType) {
        if (is_module(value)) collect_assignments_behind_interfaces(model, value.toObjectRef());
      }
    }
  }
}

// Where a value goes on: what its users give, but for new tensors, the values in their blocks, and lists that it is put into.
std::vector<const Value*> handed_on(const torch::jit::Use& use) {
  const Node* user = use.user->kind() == prim::Return ? use.user->owningBlock()->owningNode() : use.user;
  if (!user) return {};
  std::vector<const Value*> values;
  const auto* schema = user->maybeSchema();
  for (std::size_t i = 0; i < user->outputs().size(); ++i) {
    const bool is_new = schema && i < schema->returns().size() && !schema->returns()[i].alias_info() &&
                        user->output(i)->type()->kind() == c10::TypeKind::TensorType;
    if (!is_new) values.push_back(user->output(i));
  }
  for (const Block* block : user->blocks()) values.insert(values.end(), block->inputs().begin(), block->inputs().end());
  for (const Value* input : user->inputs())
    if (input->type()->kind() == c10::TypeKind::ListType || input->type()->kind() == c10::TypeKind::DictType) values.push_back(input);
  return values;
}

// Assignments keep it, and methods of custom classes do not say what they write.
bool may_write(const torch::jit::Use& use) {
  if (use.user->kind() == prim::CallMethod || (use.user->kind() == prim::SetAttr && use.offset == 1)) return true;
  const auto* schema = use.user->maybeSchema();
  const auto* alias = schema && use.offset < schema->arguments().size() ? schema->arguments()[use.offset].alias_info() : nullptr;
  return alias && alias->isWrite();
}

// Whether what comes out of a list, dict, tuple or object is written.
bool is_written_through(const Value* held) {
  std::vector<const Value*> open{held};
  std::unordered_set<const Value*> seen;
  while (!open.empty()) {
    const Value* value = open.back();
    open.pop_back();
    if (!seen.insert(value).second) continue;
    for (const auto& use : value->uses()) {
      if (may_write(use)) return true;
      for (const Value* next : handed_on(use)) open.push_back(next);
    }
  }
  return false;
}

// A weight may be held by such an attribute as well, and be written there.
void collect_writes_through_containers(Model& model, const Accesses& accesses) {
  for (const auto& [node, owner, value] : accesses.all) {
    if (node->kind() != prim::GetAttr || value.isTensor() || is_module(value)) continue;
    std::unordered_set<const void*> storages;
    add_storages(value, storages);
    if (!storages.empty() && is_written_through(node->output())) model.written_storages.insert(storages.begin(), storages.end());
  }
}

bool is_plain_tensor(const c10::IValue& value) {
  return value.isTensor() && value.toTensor().defined() && value.toTensor().layout() == at::kStrided && !value.toTensor().is_quantized() &&
         !value.toTensor().is_mkldnn();
}

bool is_scalar(const c10::IValue& value) {
  return value.isNone() || value.isBool() || value.isInt() || value.isDouble() || value.isString();
}

// A list or dict attribute is a constant when every access of every method only asks it, or multiplies with it.
bool only_asked(const Value* container) {
  return std::all_of(container->uses().begin(), container->uses().end(), [](const torch::jit::Use& use) {
    const auto kind = use.user->kind();
    if (kind == torch::jit::aten::lstm || kind == torch::jit::aten::gru) return use.offset == 2;
    return use.offset == 0 && (kind == torch::jit::aten::__contains__ || kind == torch::jit::aten::__getitem__ || kind == torch::jit::aten::len);
  });
}

std::set<AttributeKey> constant_containers(const std::vector<Accesses>& accesses) {
  std::set<AttributeKey> asked, other;
  for (const auto& of_method : accesses) {
    for (const auto& [node, owner, value] : of_method.all) {
      if (node->kind() != prim::GetAttr) continue;
      const auto kind = node->output()->type()->kind();
      if (kind != c10::TypeKind::DictType && kind != c10::TypeKind::ListType) continue;
      (only_asked(node->output()) ? asked : other).insert({owner->owner, node->s(name)});
    }
  }
  std::set<AttributeKey> constant;
  for (const auto& key : asked) {
    if (!other.count(key)) constant.insert(key);
  }
  return constant;
}

using ConstantOf = std::function<Value*(const Attribute& owner, const std::string& name, const at::Tensor& tensor)>;

// self._flat_weights of torch.nn.LSTM and GRU as the list of the attributes that its tensors are; null where one is none.
Value* spelled_out(const Model& model, const Attribute& owner, Node* read, const c10::IValue& value, const ConstantOf& constant_of) {
  if (!value.isTensorList()) return nullptr;
  std::vector<std::pair<std::string, at::Tensor>> attributes;
  for (const at::Tensor& tensor : value.toTensorVector()) {
    const auto slot = is_plain_tensor(tensor) ? slot_of(*owner.owner, tensor) : std::nullopt;
    if (!slot) return nullptr;
    attributes.emplace_back(owner.owner->type()->getAttributeName(*slot), tensor);
    if (model.assigned.count({owner.owner, attributes.back().first})) return nullptr;
  }
  std::vector<Value*> elements;
  for (const auto& [attribute, tensor] : attributes) elements.push_back(constant_of(owner, attribute, tensor));
  torch::jit::WithInsertPoint here(read);
  Graph& graph = *read->owningGraph();
  return graph.insertNode(graph.createList(c10::TensorType::get(), elements))->output();
}

// `"layer1" in self.return_layers` with both known.
void answer(Graph& graph, const Value* container, const c10::IValue& value) {
  const auto uses = container->uses();
  for (const auto& use : uses) {
    if (use.offset != 0) continue;
    torch::jit::Stack stack{value};
    for (std::size_t i = 1; i < use.user->inputs().size(); ++i) {
      if (auto argument = torch::jit::toIValue(use.user->input(i))) stack.push_back(std::move(*argument));
    }
    if (stack.size() != use.user->inputs().size()) continue;
    try {
      use.user->getOperation()(stack);
    } catch (const std::exception&) {
      continue;  // a missing key raises when it is reached
    }
    if (stack.size() != 1 || !is_scalar(stack[0])) continue;
    torch::jit::WithInsertPoint here(use.user);
    use.user->output()->replaceAllUsesWith(graph.insertConstant(stack[0]));
  }
}

}  // namespace

void add_storages(const c10::IValue& value, std::unordered_set<const void*>& storages) {
  value.visit([&](const c10::IValue& held) {
    if (held.isTensor() && held.toTensor().defined() && held.toTensor().has_storage())
      storages.insert(held.toTensor().storage().unsafeGetStorageImpl());
    return false;
  });
}

std::optional<std::size_t> slot_of(const c10::ivalue::Object& owner, const at::Tensor& tensor) {
  for (std::size_t i = 0; i < owner.slots().size(); ++i) {
    if (!owner.slots()[i].isTensor()) continue;
    const at::Tensor& own = owner.slots()[i].toTensor();
    if (own.defined() && own.is_alias_of(tensor) && own.scalar_type() == tensor.scalar_type() && own.storage_offset() == tensor.storage_offset() &&
        own.sizes() == tensor.sizes() && own.strides() == tensor.strides())
      return i;
  }
  return std::nullopt;
}

void resolve_attributes(Model& model) {
  std::vector<Accesses> accesses;
  for (const auto& method : model.methods) accesses.push_back(accesses_of(model, method));
  collect_assignments(model, accesses);
  for (const auto& of_method : accesses) collect_writes_through_containers(model, of_method);
  const auto containers = constant_containers(accesses);
  for (std::size_t m = 0; m < model.methods.size(); ++m) {
    auto& method = model.methods[m];
    std::map<AttributeKey, Value*> hoisted;  // one constant per attribute and method: its writers are found by one look
    const ConstantOf constant_of = [&](const Attribute& owner, const std::string& attribute, const at::Tensor& tensor) {
      Value*& known = hoisted[{owner.owner, attribute}];
      if (known) return known;
      torch::jit::WithInsertPoint at_top(*method.graph->nodes().begin());
      known = method.graph->insertConstant(tensor.detach());
      method.tensor_attributes[known] = {owner.owner, owner.path, attribute};
      return known;
    };
    std::vector<Node*> resolved;
    for (const auto& [node, owner_of_node, value] : accesses[m].all) {
      const Attribute& owner = *owner_of_node;
      const AttributeKey key{owner.owner, node->s(name)};
      if (node->kind() != prim::GetAttr || model.assigned.count(key)) continue;
      if (containers.count(key)) {
        answer(*method.graph, node->output(), value);
        if (Value* list = spelled_out(model, owner, node, value, constant_of)) node->output()->replaceAllUsesWith(list);
        continue;
      }
      torch::jit::WithInsertPoint at_top(*method.graph->nodes().begin());
      Value* constant = nullptr;
      if (is_plain_tensor(value)) {
        constant = constant_of(owner, node->s(name), value.toTensor());
      } else if (is_scalar(value)) {
        constant = method.graph->insertConstant(value);
      } else {
        if (value.isTensor()) method.not_dense.insert(node->output());
        continue;
      }
      node->output()->replaceAllUsesWith(constant);
      resolved.push_back(node);
    }
    for (Node* node : resolved) node->destroy();
  }
}

}  // namespace fusible
