#pragma once
// Foreign headers only. ccache compares what the preprocessor leaves, gcc knows a `#pragma once` header by all of its text: where a comment
// alone has changed, the first hands out a precompiled header in which the second does not find the file, and defines everything twice.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/custom_class.h>
