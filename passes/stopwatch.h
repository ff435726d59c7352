#pragma once

#include <chrono>
#include <map>
#include <new>
#include <string>

#include <c10/util/Exception.h>

#include "fusible/fusible.h"
#include "passes/rewrite.h"

namespace fusible {

// Follows a call from stage to stage: tells the caller, takes the time, and names the stage that failed.
class Stopwatch {
 public:
  explicit Stopwatch(const Options& options) : progress_(options.progress) {}

  void stage(const std::string& name, double share) {
    finish();
    name_ = name;
    if (progress_) progress_(name, share);
  }
  void finish() {
    const auto now = std::chrono::steady_clock::now();
    if (!name_.empty()) timings_[name_] += std::chrono::duration<double, std::milli>(now - start_).count();
    name_.clear();
    start_ = now;
  }
  const std::map<std::string, double>& timings() const { return timings_; }

  // What the passes or torch throw becomes one sentence: memory that is not there, mostly. Errors in the input and exceptions of the caller's
  // progress pass as they are.
  template <typename Action>
  auto watch(const std::string& verb, Action action) -> decltype(action()) {
    try {
      return action();
    } catch (const SequenceFailed& failed) {
      throw failure(verb, " at " + failed.sequence, failed.what());
    } catch (const c10::Error& error) {
      throw failure(verb, "", error.what_without_backtrace());
    } catch (const std::bad_alloc&) {
      throw failure(verb, "", "out of memory");
    }
  }

 private:
  Error failure(const std::string& verb, const std::string& place, const std::string& reason) const {
    return Error(verb + " failed in stage " + (name_.empty() ? "start" : name_) + place + ": " + reason.substr(0, reason.find('\n')) +
                 "; the module is as it was");
  }

  std::function<void(const std::string&, double)> progress_;
  std::string name_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::map<std::string, double> timings_;
};

}  // namespace fusible
