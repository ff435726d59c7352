#include <map>
#include <mutex>

#include "fusible/fusible.h"
#include "fusible/pattern.h"
#include "passes/patterns/builtins.h"

namespace fusible {

namespace {

struct Registry {
  std::mutex mutex;
  std::map<std::string, RegisteredCondition> conditions;
  std::map<std::string, Builder> builders;
};

Registry& empty_registry() {
  static Registry registry;
  return registry;
}

// Built-ins enter by the same calls as everyone's.
Registry& registry() {
  static std::once_flag once;
  std::call_once(once, patterns::register_builtins, [](const std::string& name, const std::string& code, Condition check) {
    empty_registry().conditions.emplace(name, RegisteredCondition{code, std::move(check)});
  }, [](const std::string& name, Builder builder) { empty_registry().builders.emplace(name, std::move(builder)); });
  return empty_registry();
}

template <typename Map, typename Item>
void add(Map& map, const std::string& what, const std::string& name, Item item) {
  if (!map.emplace(name, std::move(item)).second)
    throw Error("needed a " + what + " name of its own, found \"" + name + "\", which is registered");
}

template <typename Map>
std::optional<typename Map::mapped_type> find(const Map& map, const std::string& name) {
  auto found = map.find(name);
  if (found == map.end()) return std::nullopt;
  return found->second;
}

}  // namespace

void register_condition(const std::string& name, const std::string& code, Condition condition) {
  auto& all = registry();
  std::lock_guard lock(all.mutex);
  add(all.conditions, "condition", name, RegisteredCondition{code, std::move(condition)});
}

void register_builder(const std::string& name, Builder builder) {
  auto& all = registry();
  std::lock_guard lock(all.mutex);
  add(all.builders, "builder", name, std::move(builder));
}

std::optional<RegisteredCondition> find_condition(const std::string& name) {
  auto& all = registry();
  std::lock_guard lock(all.mutex);
  return find(all.conditions, name);
}

std::optional<Builder> find_builder(const std::string& name) {
  auto& all = registry();
  std::lock_guard lock(all.mutex);
  return find(all.builders, name);
}

}  // namespace fusible
