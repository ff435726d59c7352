#include "passes/patterns/library.h"

#include <mutex>

#include <torch/csrc/jit/ir/ir.h>

#include "passes/patterns/automaton.h"
#include "passes/patterns/views.h"

namespace fusible::patterns {

Value* View::operator[](const char* role) const {
  for (auto& [name, value] : roles) {
    if (name == role) return value;
  }
  return nullptr;
}

Value* Match::operator[](std::string_view variable) const {
  for (auto& place : reading->arguments) {
    if (place.name == variable) return nodes[place.operation]->input(place.index);
  }
  for (auto& place : reading->results) {
    if (place.name == variable) return nodes[place.operation]->outputs()[place.index];
  }
  return nullptr;
}

struct Matcher::Impl {
  std::shared_ptr<const Library> library;
  Views views;
  Automaton automaton;
};

Matcher::Matcher(std::shared_ptr<const Library> library) : impl_(new Impl{library, Views(*library), Automaton(*library)}) {}

Matcher::~Matcher() = default;

std::optional<View> Matcher::view(Node* node, const ConstantOf& constant) const { return impl_->views.find(node, constant); }

Matcher::Result Matcher::match(torch::jit::Graph& graph, const ConstantOf& constant) const {
  return impl_->automaton.match(graph, constant);
}

std::shared_ptr<const Matcher> matcher() {
  static std::mutex mutex;
  static std::shared_ptr<const Library> of;
  static std::shared_ptr<const Matcher> built;
  auto current = library();
  std::lock_guard lock(mutex);
  if (of != current) {
    built = std::make_shared<const Matcher>(current);
    of = current;
  }
  return built;
}

}  // namespace fusible::patterns
