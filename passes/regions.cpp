#include "passes/regions.h"

#include <algorithm>

#include <ATen/core/custom_class.h>
#include <torch/csrc/jit/ir/constants.h>

#include "ops/kernels/packed_weights.h"
#include "ops/region/integers.h"
#include "passes/dead_code.h"
#include "passes/pieces.h"

namespace fusible {

namespace {

namespace prim = torch::jit::prim;

// A node that may stand in a region, its inputs as the region will read them.
struct Member {
  Node* node;
  struct Read {
    std::vector<Value*> values;  // registers
    bool is_list = false;
    std::optional<c10::IValue> constant;
    std::vector<std::int64_t> entries;  // of an int[] of which `values` are some, see Argument::integers
  };
  std::vector<Read> reads;
  bool packed = false;  // a contraction that the loop nests take
};

bool is_view(const Node* node) {
  const auto* schema = node->maybeSchema();
  if (!schema || schema->arguments().empty()) return true;
  const auto* alias = schema->returns()[0].alias_info();
  return alias && !alias->isWrite();
}

// Makes and moves nothing that anyone could notice: may stand before or behind the region it is next to.
bool is_free(Node* node) {
  static const std::unordered_set<torch::jit::Symbol> kinds{prim::Constant,      prim::GetAttr,     prim::ListConstruct, prim::TupleConstruct,
                                                            prim::DictConstruct, prim::TupleUnpack, prim::ListUnpack,    prim::TupleIndex};
  if (node->hasSideEffects() || node->isNondeterministic() || may_train(node)) return false;
  const auto* schema = node->maybeSchema();  // none: a node with blocks, or one of the kinds above
  return schema ? !schema->is_mutable() : kinds.count(node->kind()) != 0;
}

class Former {
 public:
  Former(const Model& model, MethodGraph& method, const PackedStore& packed, Regions& regions)
      : model_(model), method_(method), graph_(*method.graph), packed_(packed), regions_(regions) {}

  void visit(Block* block) {
    for (Node* node : block->nodes())
      for (Block* inner : node->blocks()) visit(inner);
    find_owners(block);
    std::vector<Node*> pending(block->nodes().begin(), block->nodes().end());  // the next one last
    std::reverse(pending.begin(), pending.end());
    while (!pending.empty()) {
      if (take(pending.back())) {
        pending.pop_back();
        continue;
      }
      // What was set aside is seen again by the next region.
      for (auto node = behind_.rbegin(); node != behind_.rend(); ++node)
        if (!only_for_members(*node)) pending.push_back(*node);
      close();
    }
    close();
  }

 private:
  // False: the node starts anew, behind the region that was closed before it.
  bool take(Node* node) {
    auto member = as_member(node);
    // What is written to in place must be made by this region: an input of it is read by others, too.
    if (member && owners_.count(node) && !made_.count(node->input(0))) member.reset();
    if (member && reads_only_ready(*member)) {
      inside_.insert(node);
      made_.insert(node->output());
      members_.push_back(std::move(*member));
      return true;
    }
    if (members_.empty()) return true;
    if (!is_free(node) || (member && member->packed)) return false;
    if (std::any_of(node->inputs().begin(), node->inputs().end(), [this](const Value* v) { return made_.count(v) || later_.count(v); })) {
      behind_.push_back(node);
      later_.insert(node->outputs().begin(), node->outputs().end());
    }
    return true;
  }

  // relu_(x) of a member's result that nothing else reads before: with later readers of x reading what relu_ returns, x is its own.
  void find_owners(Block* block) {
    for (Node* node : block->nodes()) {
      const auto* schema = node->maybeSchema();
      if (!schema || !schema->is_mutable() || !Region::takes(schema->operator_name())) continue;
      Value* x = node->input(0);
      Node* producer = x->node();
      if (producer->owningBlock() != block || !as_member(producer) || is_view(producer)) continue;
      const auto uses = x->uses();
      if (!std::all_of(uses.begin(), uses.end(), [&](const torch::jit::Use& use) { return use.user == node || node->isBefore(use.user); })) continue;
      for (const auto& use : uses)
        if (use.user != node) use.user->replaceInput(use.offset, node->output());
      owners_.insert(node);
    }
  }

  bool reads_only_ready(const Member& member) const {
    for (const auto& read : member.reads)
      for (const Value* value : read.values)
        if (later_.count(value)) return false;
    return true;
  }

  std::optional<Member> as_member(Node* node) const {
    const auto* schema = node->maybeSchema();
    if (!schema || node->outputs().size() != 1 || !node->blocks().empty() || !Region::takes(schema->operator_name())) return std::nullopt;
    if (schema->is_mutable() && !owners_.count(node)) return std::nullopt;
    if (node->output()->type()->kind() != (gives_integer(schema->operator_name()) ? c10::TypeKind::IntType : c10::TypeKind::TensorType)) return std::nullopt;
    if (node->inputs().size() != schema->arguments().size()) return std::nullopt;
    Member member{node, {}, false};
    for (std::size_t i = 0; i < node->inputs().size(); ++i) {
      auto read = read_of(node->input(i), is_integer_argument(schema->arguments()[i]), member.packed);
      if (!read) return std::nullopt;
      member.reads.push_back(std::move(*read));
    }
    return Region::takes(schema->operator_name(), constants_of(member)) ? std::optional(std::move(member)) : std::nullopt;
  }

  static std::vector<const c10::IValue*> constants_of(const Member& member) {
    std::vector<const c10::IValue*> constants;
    for (const auto& read : member.reads) constants.push_back(read.constant ? &*read.constant : nullptr);
    return constants;
  }

  std::optional<Member::Read> read_of(Value* input, bool integer, bool& packed) const {
    Node* node = input->node();
    const auto type = input->type()->kind();
    if (node->kind() == prim::GetAttr && type == c10::TypeKind::ClassType) {
      const std::string* const name = name_of_root_attribute(input);
      const auto found = name ? packed_.objects().find(*name) : packed_.objects().end();
      if (found == packed_.objects().end()) return std::nullopt;
      packed = kernels::PackedWeights::takes(found->second->spec());
      return Member::Read{{}, false, c10::IValue(found->second)};
    }
    if (node->kind() == prim::Constant) {
      const auto constant = torch::jit::toIValue(input);
      if (!constant) return std::nullopt;
      if (constant->isTensor() && !is_fixed(input)) return Member::Read{{input}, false, {}};
      return Member::Read{{}, false, constant};
    }
    if (node->kind() == prim::ListConstruct && input->uses().size() == 1) {
      std::vector<Value*> elements(node->inputs().begin(), node->inputs().end());
      const bool tensors = std::all_of(elements.begin(), elements.end(), [](const Value* v) { return v->type()->kind() == c10::TypeKind::TensorType; });
      if (tensors && input->type()->isSubtypeOf(*c10::ListType::ofTensors())) return Member::Read{std::move(elements), true, {}};
      if (input->type()->isSubtypeOf(*c10::ListType::ofInts())) return int_list(elements);
      return std::nullopt;
    }
    if (type == c10::TypeKind::TensorType || (integer && type == c10::TypeKind::IntType)) return Member::Read{{input}, false, {}};
    return std::nullopt;
  }

  static std::optional<Member::Read> int_list(const std::vector<Value*>& elements) {
    Member::Read read;
    for (Value* element : elements) {
      const auto constant = torch::jit::toIValue(element);
      if (constant && constant->toInt() == Argument::kHeld) return std::nullopt;
      read.entries.push_back(constant ? constant->toInt() : Argument::kHeld);
      if (!constant) read.values.push_back(element);
    }
    if (read.values.empty()) read.constant = c10::IValue(read.entries);
    return read;
  }

  // A literal of the graph, or an attribute that no method writes (facts.h takes those as constants too).
  bool is_fixed(const Value* constant) const {
    const auto found = method_.tensor_attributes.find(constant);
    if (found == method_.tensor_attributes.end()) return true;
    const auto tensor = found->second.owner->getAttr(found->second.name).toTensor();
    return tensor.defined() && tensor.has_storage() && !model_.written_storages.count(tensor.storage().unsafeGetStorageImpl());
  }

  // A list of operands that members alone read goes with them.
  bool only_for_members(const Node* node) const {
    return node->kind() == prim::ListConstruct && std::all_of(node->output()->uses().begin(), node->output()->uses().end(),
                                                              [this](const torch::jit::Use& use) { return inside_.count(use.user) != 0; });
  }

  bool escapes(const Value* value) const {
    return std::any_of(value->uses().begin(), value->uses().end(), [this](const torch::jit::Use& use) {
      return !inside_.count(use.user) && !only_for_members(use.user);
    });
  }

  void close() {
    const auto packed = std::count_if(members_.begin(), members_.end(), [](const Member& m) { return m.packed; });
    if (packed >= 2) replace();
    members_.clear();
    behind_.clear();
    inside_.clear();
    made_.clear();
    later_.clear();
  }

  void replace() {
    // A view that escapes is made again outside; what it shows escapes instead.
    std::vector<Node*> repeated;
    std::set<const Value*> escaping;
    for (auto member = members_.rbegin(); member != members_.rend(); ++member) {
      Value* output = member->node->output();
      if (!escaping.count(output) && !escapes(output)) continue;
      escaping.insert(output);
      if (!is_view(member->node)) continue;
      repeated.push_back(member->node);
      escaping.erase(output);
      for (Value* input : member->node->inputs()) {
        if (made_.count(input)) escaping.insert(input);
        if (input->node()->kind() != prim::ListConstruct) continue;
        for (Value* element : input->node()->inputs())
          if (made_.count(element)) escaping.insert(element);
      }
    }
    std::reverse(repeated.begin(), repeated.end());

    Region::Builder builder;
    std::unordered_map<const Value*, std::int64_t> registers;
    std::vector<Value*> inputs, outputs;
    for (const Member& member : members_)
      for (const auto& read : member.reads)
        for (Value* value : read.values)
          if (!made_.count(value) && !registers.count(value)) {
            registers[value] = builder.input();
            inputs.push_back(value);
          }
    for (const Member& member : members_) {
      std::vector<Argument> arguments;
      for (const auto& read : member.reads) {
        std::vector<std::int64_t> list;
        for (const Value* value : read.values) list.push_back(registers.at(value));
        arguments.push_back(read.constant            ? Argument::constant(*read.constant)
                            : !read.entries.empty() ? Argument::integers(read.entries, list)
                            : read.is_list          ? Argument::regs(list)
                                                    : Argument::reg(list[0]));
      }
      Value* output = member.node->output();
      registers[output] = builder.call(member.node->schema().operator_name(), std::move(arguments));
      if (escaping.count(output)) {
        builder.output(registers[output]);
        outputs.push_back(output);
      }
    }
    insert(builder.finish(), inputs, outputs, repeated);
  }

  void insert(c10::intrusive_ptr<Region> region, const std::vector<Value*>& inputs, const std::vector<Value*>& outputs,
              const std::vector<Node*>& repeated) {
    Node* const last = members_.back().node;
    Node* cursor = last;
    const auto place = [&](Node* node) {
      node->insertAfter(cursor);
      node->copyMetadata(last);
      cursor = node;
      return node;
    };
    // An integer goes in and out as a tensor.
    std::vector<Value*> given;
    for (Value* input : inputs)
      given.push_back(is_integer(input) ? place(graph_.createNumToTensor(input))->output() : input);
    Node* list = place(graph_.createList(c10::TensorType::get(), given));
    Node* call = place(graph_.create(c10::Symbol::fromQualString("fusible::region"), {list->output(), attribute(std::move(region))}));
    call->output()->setType(c10::ListType::ofTensors());
    Node* unpack = place(graph_.create(prim::ListUnpack, {call->output()}, outputs.size()));
    std::unordered_map<const Value*, Value*> outside;
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      Value* const output = unpack->outputs()[i]->setType(c10::TensorType::get());
      outside[outputs[i]] = is_integer(outputs[i]) ? place(graph_.create(torch::jit::aten::Int, {output}))->output()->setType(c10::IntType::get()) : output;
    }
    const auto seen_outside = [&](Value* v) { return outside.count(v) ? outside.at(v) : v; };
    const auto read_outside = [&](Value* v) {
      Node* const node = v->node();
      const bool holds_made = node->kind() == prim::ListConstruct &&
                              std::any_of(node->inputs().begin(), node->inputs().end(), [&](Value* e) { return outside.count(e) != 0; });
      return holds_made ? place(graph_.createClone(node, seen_outside))->output() : seen_outside(v);
    };
    for (Node* view : repeated) {
      Node* const again = graph_.createClone(view, read_outside);
      outside[view->output()] = place(again)->output();
    }
    for (Node* node : behind_) {
      if (only_for_members(node) || !node->isBefore(last)) continue;
      node->moveAfter(cursor);
      cursor = node;
    }
    for (const auto& [inner, outer] : outside) {
      const auto uses = inner->uses();
      for (const auto& use : uses)
        if (!inside_.count(use.user) && !only_for_members(use.user)) use.user->replaceInput(use.offset, outer);
    }
    remove_members();
  }

  static bool is_integer(const Value* value) { return value->type()->kind() == c10::TypeKind::IntType; }

  void remove_members() {
    for (auto member = members_.rbegin(); member != members_.rend(); ++member) {
      const std::vector<Value*> inputs(member->node->inputs().begin(), member->node->inputs().end());
      member->node->destroy();
      for (Value* input : inputs)
        if (input->node()->kind() == prim::ListConstruct && !input->hasUses()) input->node()->destroy();
    }
  }

  Value* attribute(c10::intrusive_ptr<Region> region) {
    const std::string name = "_fusible_region_" + std::to_string(regions_.size());
    regions_[name] = std::move(region);
    return root_attribute(graph_, name, c10::getCustomClassType<c10::intrusive_ptr<Region>>());
  }

  const Model& model_;
  MethodGraph& method_;
  Graph& graph_;
  const PackedStore& packed_;
  Regions& regions_;
  std::unordered_set<const Node*> owners_;  // write to a result that is read by nothing else

  std::vector<Member> members_;
  std::vector<Node*> behind_;  // read what members make and are not members: moved behind the region
  std::unordered_set<const Node*> inside_;
  std::unordered_set<const Value*> made_, later_;  // by members, by nodes behind
};

}  // namespace

void form_regions(const Model& model, MethodGraph& method, const PackedStore& packed, Regions& regions) {
  const auto before = regions.size();
  static const auto ours = c10::Symbol::fromQualString("namespaces::fusible");
  int fused = 0;
  for_each_node(method.graph->block(), [&](const Node* node) { fused += node->kind().ns() == ours; });
  if (fused < 2) return;  // no region: chunk stays one operator
  spell_out_pieces(method.graph->block());
  Former(model, method, packed, regions).visit(method.graph->block());
  if (regions.size() > before) eliminate_dead_code(method.graph);  // weights that only a region reads are in the region
}

}  // namespace fusible
