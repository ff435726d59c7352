#pragma once

// Which codes of rules/ each step or contraction can be left by: the cells of the histogram that a run has to fill.

#include <string>
#include <vector>

namespace fuzz {

struct Cell {
  std::string step, code;
};

const std::vector<Cell>& cells();

}  // namespace fuzz
