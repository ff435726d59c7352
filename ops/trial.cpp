#include "ops/trial.h"

#include <utility>

namespace fusible {
namespace {

thread_local Trial* current_trial = nullptr;

}  // namespace

Trial::Trial(std::optional<Way> way) : asked(way), outer_(std::exchange(current_trial, this)) {}

Trial::~Trial() { current_trial = outer_; }

Trial* Trial::current() { return current_trial; }

}  // namespace fusible
