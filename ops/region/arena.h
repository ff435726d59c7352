#pragma once

// Memory for one call in flight: taken when a call begins, given back when it ends, so that calls of all regions share a few warm buffers.

#include <cstddef>

#include <c10/core/Allocator.h>

namespace fusible {

class Arena {
 public:
  explicit Arena(size_t bytes);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  char* data() const { return static_cast<char*>(memory_.get()); }

 private:
  c10::DataPtr memory_;
  size_t bytes_ = 0;
};

}  // namespace fusible
