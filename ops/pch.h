#pragma once
// What nearly every operator needs; compiling these takes 15 s, so it happens once.
#include <ATen/ATen.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include <optional>
#include <string>
#include <vector>
