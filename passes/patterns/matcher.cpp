#include "passes/patterns/library.h"

#include "passes/patterns/views.h"

namespace fusible::patterns {

namespace {

Value* lookup(const std::vector<std::pair<std::string, Value*>>& bound, std::string_view name) {
  for (auto& [key, value] : bound) {
    if (key == name) return value;
  }
  return nullptr;
}

}  // namespace

Value* View::operator[](const char* role) const { return lookup(roles, role); }

Value* Match::operator[](const std::string& variable) const { return lookup(bound, variable); }

struct Matcher::Impl {
  std::shared_ptr<const Library> library;
  Views views;
};

Matcher::Matcher(std::shared_ptr<const Library> library) : impl_(new Impl{library, Views(*library)}) {}

Matcher::~Matcher() = default;

std::optional<View> Matcher::view(Node* node, const ConstantOf& constant) const { return impl_->views.find(node, constant); }

}  // namespace fusible::patterns
