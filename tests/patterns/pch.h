#pragma once
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <torch/csrc/jit/ir/ir.h>

#include <string>
#include <vector>
