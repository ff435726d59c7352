#include "fusible/fusible.h"
#include "fusible/pattern.h"
#include "passes/patterns/library.h"

namespace fusible::patterns {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

Library parsed(const std::string& text) {
  Library library = *fusible::patterns::library();
  library.rules.clear();
  parse_into(library, text, "mine.fus");
  return library;
}

std::string error_of(const std::string& text) {
  try {
    parsed(text);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(Parser, ReadsAnEntry) {
  auto library = parsed(R"(
# A comment.
activation squared   # another
  doc       First line,
  doc       second line.
  algebra   y = x^2
  numerics  ulp(2)
  nan       loses
  step      hardtanh(lo, hi)
  spelling  y = aten::hardtanh(x, lo, hi=-2.5 ~1e-3);   # continued
            z = aten::mul.Tensor(y, x) commutative
  case declines FUS201 x[2, 3] const w[4, 3] v[4]+
    def f(x, w, v):
        # a comment of the case

        return x
)");
  auto* entry = library.entry("squared");
  ASSERT_NE(entry, nullptr);
  EXPECT_EQ(entry->doc, "First line, second line.");
  EXPECT_EQ(entry->numerics, "ulp(2)");
  EXPECT_FALSE(entry->onednn_keeps_nan);
  EXPECT_EQ(entry->step, "hardtanh");
  EXPECT_THAT(entry->step_args, ElementsAre("lo", "hi"));
  ASSERT_THAT(entry->spellings, SizeIs(1));
  auto& operations = entry->spellings[0].operations;
  ASSERT_THAT(operations, SizeIs(2));
  EXPECT_EQ(operations[0].args[2].name, "hi");
  EXPECT_EQ(operations[0].args[2].equals, Literal(-2.5));
  EXPECT_EQ(operations[0].args[2].tolerance, 1e-3);
  EXPECT_TRUE(operations[1].commutative);
  ASSERT_THAT(entry->cases, SizeIs(1));
  auto& one = entry->cases[0];
  EXPECT_EQ(one.code, "FUS201");
  EXPECT_EQ(one.source, "def f(x, w, v):\n    # a comment of the case\n\n    return x\n");
  ASSERT_THAT(one.arguments, SizeIs(3));
  EXPECT_FALSE(one.arguments[0].constant);
  EXPECT_TRUE(one.arguments[1].constant);
  EXPECT_TRUE(one.arguments[2].positive);
}

TEST(Parser, ReadsEveryLiteral) {
  auto library = parsed(
      "activation all\n  step relu\n  spelling y = aten::_convolution(x, none, true, 1, -2.5, \"same\", [1, -2], [], inf, false, 1e-3, "
      "_)\n");
  auto& args = library.entry("all")->spellings[0].operations[0].args;
  EXPECT_EQ(args[1].equals, Literal(std::monostate{}));
  EXPECT_EQ(args[2].equals, Literal(true));
  EXPECT_EQ(args[3].equals, Literal(std::int64_t{1}));
  EXPECT_EQ(args[4].equals, Literal(-2.5));
  EXPECT_EQ(args[5].equals, Literal(std::string("same")));
  EXPECT_EQ(args[6].equals, Literal(std::vector<std::int64_t>{1, -2}));
  EXPECT_EQ(args[7].equals, Literal(std::vector<std::int64_t>{}));
  EXPECT_EQ(args[8].equals, Literal(std::numeric_limits<double>::infinity()));
  EXPECT_EQ(args[10].equals, Literal(1e-3));
  EXPECT_FALSE(args[11].equals);
}

TEST(Parser, AStepTakesWordsAndForClampNone) {
  EXPECT_EQ(error_of("activation a\n  step gelu(approximate)  # none or tanh\n  spelling y = aten::gelu(x, approximate)\n"), "no error");
  EXPECT_EQ(error_of("activation a\n  step clamp(lo, hi)\n  spelling y = aten::clamp_min(x, lo)\n"), "no error");
  EXPECT_EQ(error_of("activation a\n  step softplus(\"1\", \"20\")\n  spelling y = aten::neg(x)\n"), "no error");
}

TEST(Parser, AKnownNameIsExtendedBySpellings) {
  auto before = library()->entry("relu")->spellings.size();
  auto grown = parsed("activation relu\n  spelling y = aten::threshold_(x, 0, 0)\n");
  EXPECT_EQ(grown.entry("relu")->spellings.size(), before + 1);
  EXPECT_EQ(error_of("activation relu\n  step relu\n"),
            "mine.fus:2:3: needed only spellings and cases, because relu.fus already describes \"relu\", found another key");
  EXPECT_EQ(error_of("binary relu\n  spelling y = aten::add(lhs, rhs, alpha)\n"),
            "mine.fus:1:8: needed a name of its own, found \"relu\", another kind of entry in relu.fus");
}

TEST(Parser, ReadsARule) {
  auto library = parsed(R"(rule conv_scale
  doc   A factor per channel moves into the weights.
  match c = conv(x, w, b, groups=1); y = aten::mul.Tensor(c, s) commutative
  need  constant(w, b, s) else FUS303
  need  rank(s, 3)
  emit  w2, b2 = fold_affine(w, b, s, none)
  emit  y = aten::conv2d(x, w2, b2, c.stride, c.padding, c.dilation, 1)
)");
  ASSERT_THAT(library.rules, SizeIs(1));
  auto& rule = library.rules[0];
  EXPECT_THAT(rule.match, SizeIs(2));
  EXPECT_EQ(rule.match[0].args[3].role, "groups");
  ASSERT_THAT(rule.needs, SizeIs(2));
  EXPECT_EQ(rule.needs[0].code, "FUS303");
  EXPECT_THAT(rule.needs[1].args, ElementsAre("s", "3"));
  EXPECT_EQ(rule.needs[1].code, find_condition("rank")->code);
  EXPECT_THAT(rule.emit[0].others, ElementsAre("b2"));
  EXPECT_EQ(rule.emit[1].args[3].name, "c.stride");
}

TEST(Parser, ReadsAPairOfTorchScriptGraphs) {
  auto library = parsed(R"(pattern swap
graph(%a, %b):
  %one : int = prim::Constant[value=1]()
  %s : int = prim::Constant[value=3]()
  %l : int[] = prim::ListConstruct(%one, %s)
  %t = aten::add(%a, %b, %one)
  %r = aten::sum(%t, %l, %one, %s)
  return (%r)
=>
graph(%p, %q):
  %a : int = prim::Constant[value=1]()
  %r = aten::add(%q, %p, %a)
  return (%r)

rule next_one
  match y = aten::relu(x)
  emit  z = aten::relu(x)
)");
  ASSERT_THAT(library.rules, SizeIs(2));
  auto& rule = library.rules[0];
  EXPECT_EQ(rule.name, "swap");
  ASSERT_THAT(rule.match, SizeIs(2));
  EXPECT_EQ(rule.match[0].op, "aten::add");
  EXPECT_EQ(rule.match[0].args[2].equals, Literal(1.0));
  EXPECT_EQ(rule.match[1].args[1].equals, Literal(std::vector<std::int64_t>{1, 3}));
  EXPECT_EQ(rule.emit[0].args[0].name, rule.match[0].args[1].name);
  EXPECT_EQ(rule.emit[0].args[1].name, rule.match[0].args[0].name);
}

struct Bad {
  const char* text;
  const char* error;
};

class ParserErrors : public ::testing::TestWithParam<Bad> {};

TEST_P(ParserErrors, NameLineAndColumn) { EXPECT_EQ(error_of(GetParam().text), std::string("mine.fus:") + GetParam().error); }

INSTANTIATE_TEST_SUITE_P(
    All, ParserErrors,
    ::testing::Values(
        Bad{"activatoin relu\n",
            "1:1: needed one of contraction, activation, binary, normalization, transparent, rule, pattern, found \"activatoin\""},
        Bad{"  doc x\n", "1:3: needed a block at the start of a line, found \"doc\""},
        Bad{"activation\n", "1:11: needed a name, found the end of the line"},
        Bad{"activation a b\n", "1:14: needed the end of the line, found \"b\""},
        Bad{"activation a\n  step relu\n", "1:12: needed at least one spelling of \"a\", found none"},
        Bad{"activation a\n  spelling y = aten::relu(x)\n", "1:12: needed a step for \"a\", found none"},
        Bad{"activation a\n  step nosuch\n  spelling y = aten::neg(x)\n", "2:8: needed a post-op step for such an entry, with its arguments (ops/post_op.h), found \"nosuch\""},
        Bad{"activation a\n  step hardtanh(lo)\n  spelling y = aten::hardtanh(x, lo, hi)\n", "2:8: needed a post-op step for such an entry, with its arguments (ops/post_op.h), found \"hardtanh(lo)\""},
        Bad{"activation a\n  step hardtanh\n  spelling y = aten::hardtanh(x, lo, hi)\n", "2:8: needed a post-op step for such an entry, with its arguments (ops/post_op.h), found \"hardtanh\""},
        Bad{"activation a\n  step relu(\"3\")\n  spelling y = aten::neg(x)\n", "2:8: needed a post-op step for such an entry, with its arguments (ops/post_op.h), found \"relu(\"3\")\""},
        Bad{"activation a\n  step gelu(\"sinh\")\n  spelling y = aten::neg(x)\n", "2:8: needed a post-op step for such an entry, with its arguments (ops/post_op.h), found \"gelu(\"sinh\")\""},
        Bad{"activation a\n  step relu_\n  spelling y = aten::neg(x)\n", "2:8: needed a post-op step for such an entry, with its arguments (ops/post_op.h), found \"relu_\""},
        Bad{"activation a\n  step add\n  spelling y = aten::neg(x)\n", "2:8: needed a post-op step for such an entry, with its arguments (ops/post_op.h), found \"add\""},
        Bad{"activation a\n  step prelu\n  spelling y = aten::neg(x)\n", "2:8: needed a post-op step for such an entry, with its arguments (ops/post_op.h), found \"prelu\""},
        Bad{"normalization a\n  step relu\n  spelling y = aten::neg(x)\n", "2:8: needed a post-op step for such an entry, with its arguments (ops/post_op.h), found \"relu\""},
        Bad{"binary a\n  step relu\n  spelling y = aten::mul(lhs, rhs)\n", "2:8: needed a post-op step for such an entry, with its arguments (ops/post_op.h), found \"relu\""},
        Bad{"binary a\n  step rsub\n  spelling y = aten::mul(lhs, rhs)\n", "2:8: needed a post-op step for such an entry, with its arguments (ops/post_op.h), found \"rsub\""},
        Bad{"binary a\n  step add(\"1\")\n  spelling y = aten::mul(lhs, rhs)\n", "2:8: needed a post-op step for such an entry, with its arguments (ops/post_op.h), found \"add(\"1\")\""},
        Bad{"activation a\n  step hardtanh(lo, hi)\n  spelling y = aten::hardtanh(x, lo, hi)\n  spelling y = aten::leaky_relu(x, lo)\n",
            "4:16: needed an argument with the role hi, without which there is no step \"hardtanh\", found none"},
        Bad{"activation leaky_relu\n  spelling y = aten::neg(x)\n",
            "2:16: needed an argument with the role slope, without which there is no step \"leaky_relu\", found none"},
        Bad{"activation a\n  colour red\n",
            "2:3: needed one of doc, algebra, gradient, onednn, numerics, nan, step, spelling, case, found \"colour\""},
        Bad{"activation a\n  numerics sloppy\n", "2:12: needed exact or ulp(n), found \"sloppy\""},
        Bad{"rule r\n  numerics sloppy\n", "2:12: needed exact or reassociates, found \"sloppy\""},
        Bad{"rule r\n  numerics exact indeed\n", "2:18: needed the end of the line, found \"indeed\""},
        Bad{"activation a\n  nan maybe\n", "2:7: needed \"keeps\" or \"loses\", found \"maybe\""},
        Bad{"activation a\n  spelling y = aten::relu{x}\n", "2:26: needed \"(\", found \"{\""},
        Bad{"activation a\n  spelling y = aten::relu(x\n", "2:28: needed \")\", found the end of the line"},
        Bad{"activation a\n  spelling y = aten::relu(x, 3)\n",
            "2:16: needed an operator with its number of arguments, found 2 (aten::relu takes 1)"},
        Bad{"activation a\n  spelling y = aten::reluu(x)\n",
            "2:16: needed an operator with its number of arguments, found \"aten::reluu\", which the running torch does not have"},
        Bad{"activation a\n  spelling y = aten::clamp.Nope(x, 0, 1)\n",
            "2:16: needed an operator with its number of arguments, found \"aten::clamp.Nope\": aten::clamp has no such overload"},
        Bad{"activation a\n  step relu\n  spelling y = rellu(x)\n",
            "3:16: needed an operator (\"aten::...\") or a name of the vocabulary, found \"rellu\""},
        Bad{"activation a\n  step relu\n  spelling y = relu(x, 3)\n", "3:16: needed at most 1 arguments of \"relu\", found 2"},
        Bad{"activation a\n  step relu\n  spelling y = relu(z=3)\n", "3:16: needed an argument with the role x, found none"},
        Bad{"activation a\n  spelling y = aten::relu(z)\n", "2:16: needed an argument with the role x, found none"},
        Bad{"binary a\n  spelling y = aten::mul(lhs, x)\n", "2:16: needed an argument with the role rhs, found none"},
        Bad{"contraction a\n  spelling y = aten::mm(x, w)\n", "2:16: needed an argument with the role weight (or weight_t), found none"},
        Bad{"activation a\n  spelling y = aten::relu(x); z = aten::relu(x)\n",
            "2:16: needed a use of \"y\" that leads to the last operation, found none"},
        Bad{"activation a\n  spelling x = aten::relu(x)\n",
            "2:16: needed a new variable for each result, before its uses, found \"x\" again"},
        Bad{"activation a\n  spelling y = aten::relu(x);\n", "3:1: needed an operation after \";\", found the end of the file"},
        Bad{"activation a\n  spelling y = aten::gelu(x, \"none)\n", "2:31: needed a closing quote, found \"none\""},
        Bad{"activation a\n  spelling y = aten::relu(x ~3)\n", "2:30: needed a number before \"~\", found \"3\""},
        Bad{"activation a\n  case fuses x[2, 2.5]\n", "2:19: needed an integer, found \"2\""},
        Bad{"activation a\n  case fuses x\n", "2:15: needed sizes in brackets, found the end of the line"},
        Bad{"activation a\n  case fuses x[2]\n  step relu\n", "2:1: needed an indented TorchScript function below the case, found none"},
        Bad{"activation a\n  step relu\n  spelling y = b(x)\nactivation b\n  step relu\n  spelling y = a(x)\n",
            "1:1: needed entries that do not spell each other in a circle, found one through \"a\""},
        Bad{"rule r\n  emit y = aten::relu(x)\n", "1:7: needed a match in rule \"r\", found none"},
        Bad{"rule r\n  match y = aten::relu(x)\n", "1:7: needed an emit in rule \"r\", found none"},
        Bad{"rule r\n  match y = aten::relu(x)\n  emit z = aten::relu(w)\n", "3:12: needed a matched or built variable, found \"w\""},
        Bad{"rule r\n  match y = aten::relu(x)\n  emit z = fold_nothing(x)\n",
            "3:12: needed an operator or a registered builder, found \"fold_nothing\""},
        Bad{"rule r\n  match y = aten::relu(x)\n  need sunny(x)\n", "3:8: needed a registered condition, found \"sunny\""},
        Bad{"rule r\n  match y = aten::relu(x)\n  need constant(w)\n  emit z = aten::relu(x)\n",
            "3:1: needed a matched variable in need constant, found none"},
        Bad{"rule r\n  match y = aten::relu(x)\n  emit z = aten::relu(x)\nrule r\n  match y = aten::relu(x)\n  emit z = aten::relu(x)\n",
            "4:6: needed a name of its own, found rule \"r\" again (the first is in mine.fus)"},
        Bad{"pattern p\ngraph(%x):\n  %y = aten::relu(%x)\n  return (%y)\n",
            "1:10: needed two graphs joined by \"=>\" in pattern \"p\", found one"}));

}  // namespace
}  // namespace fusible::patterns
