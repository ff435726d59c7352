"""What loading an archive would run is found by reading, and stopped; what torch and fusible write themselves loads as ever."""
import resource
import zipfile

import fusible
import pytest
import torch
from fusible.archive import one_line, runs_code
from fusible.cli import main
from hostile_archives import MARK, RUNS, in_code, rewrite
from torch import nn


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder, in which a hostile archive would write its mark."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", RUNS)
def test_an_archive_whose_loading_runs_code_is_stopped_before_it(kind, archive, here, capsys):
    old, new, word = RUNS[kind]
    bad = here / "bad.pt"
    rewrite(archive, bad, in_code(old, new))
    with zipfile.ZipFile(bad) as file:
        assert any(new in file.read(name) for name in file.namelist()), "the corpus no longer changes the code"
    for arguments in (("lint", bad, "--isolated"), ("fuse", bad, "-o", here / "out.pt"), ("bench", bad), ("bench", bad, "--fused", archive),
                      ("bench", archive, "--fused", bad)):
        assert run(*arguments) == 2
        message = capsys.readouterr().err
        assert word in message and "--trust" in message and str(bad) in message and message.count("\n") == 1
    with pytest.raises(fusible.FusibleError, match="--trust"):
        fusible.load(bad)
    assert run("doctor", bad) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("runs on load")]
    assert word in row
    assert not (here / MARK).exists() and not (here / "out.pt").exists()


@pytest.mark.parametrize("kind", ["default_argument", "class_constant"])
def test_with_trust_it_runs(kind, archive, here):
    """Shows that the scan above stops something: torch evaluates defaults and class constants while it reads the code."""
    old, new, _ = RUNS[kind]
    rewrite(archive, here / "bad.pt", in_code(old, new))
    fusible.load(here / "bad.pt", trust=True)
    assert (here / MARK).exists()


def test_bench_runs_it_with_trust(archive, here):
    old, new, _ = RUNS["default_argument"]
    rewrite(archive, here / "bad.pt", in_code(old, new))
    assert run("bench", archive, "--fused", here / "bad.pt", "--rounds", "1", "--input", "2,3,9,9", "--trust") == 0
    assert (here / MARK).exists()


def test_what_an_archive_calls_its_classes_does_not_reach_the_terminal(archive, here, capsys):
    bad = here / "bad.pt"
    rewrite(archive, bad, lambda name, data: data.replace(b"c__torch__.conftest\nSmall\n", b"c__torch__.torch.classes.nobody\nS\x1b[2J\n")
            if name == "data.pkl" else data)
    assert run("lint", bad, "--isolated") == 2 and run("doctor", bad) == 0
    said = capsys.readouterr()
    assert all(text.replace("\n", "").isprintable() for text in said) and "nobody.S [2J" in said.err and "nobody.S [2J" in said.out
    assert one_line("left\u202eright\u2066\n") == "left right "


def test_a_c_plus_plus_class_of_another_library_needs_trust(archive, here):
    bad = here / "bad.pt"
    rewrite(archive, bad, lambda name, data: data.replace(b"c__torch__.conftest\nSmall\n", b"c__torch__.torch.classes.nobody\nSmall\n")
            if name == "data.pkl" else data)
    with pytest.raises(fusible.FusibleError, match="torch.classes.nobody.Small.*--trust"):
        fusible.load(bad)


def test_the_model_runs_only_to_verify(archive, here):
    model = here / "writes.pt"
    rewrite(archive, model, in_code(b"return ", b'print(torch.from_file("MARK", True, 4))\n    return '))
    assert run("lint", model, "--isolated") in (0, 1)
    assert run("doctor", model) == 0
    assert run("fuse", model, "-o", here / "out.pt") == 0
    assert run("fuse", model, "-o", here / "out.pt", "--input", "2,3,9,9", "--no-verify") == 0
    assert not (here / MARK).exists()
    assert run("fuse", model, "-o", here / "out.pt", "--input", "2,3,9,9") == 0
    assert (here / MARK).exists()


def test_constants_are_folded_only_when_their_result_is_small():
    graph = torch._C.parse_ir("""graph(%x : Tensor):
      %few : int[] = prim::Constant[value=[1, 2]]()
      %times : int = prim::Constant[value=40000000]()
      %many : int[] = aten::mul(%few, %times)
      %size : int = aten::len(%many)
      %one : int = prim::Constant[value=1]()
      %y : Tensor = aten::add(%x, %size, %one)
      return (%y)""")
    function = torch._C._create_function_from_graph("forward", graph)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fusible.lint(function)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "the list was made (kB)"


def quantized(model, x):
    model.qconfig = torch.ao.quantization.get_default_qconfig("fbgemm")
    prepared = torch.ao.quantization.prepare(model.eval())
    prepared(x)
    return torch.ao.quantization.convert(prepared)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 4)

    def forward(self, x):
        return self.lstm(x)[0]


def embedding():
    module = nn.EmbeddingBag(10, 4)
    module.qconfig = torch.ao.quantization.float_qparams_weight_only_qconfig
    torch.ao.quantization.prepare(module, inplace=True)
    return nn.Sequential(torch.ao.nn.quantized.EmbeddingBag.from_float(module))


def static_quantized():
    layers = nn.Sequential(torch.ao.quantization.QuantStub(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5),
                           torch.ao.quantization.DeQuantStub())
    return quantized(layers, torch.randn(2, 3, 8, 8))


PACKED = {
    "static": static_quantized,
    "dynamic": lambda: torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), {nn.Linear}),
    "half": lambda: torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear}, dtype=torch.float16),
    "recurrent": lambda: torch.ao.quantization.quantize_dynamic(Recurrent(), {nn.LSTM}),
    "embedding": embedding,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", PACKED)
def test_packed_weights_of_torch_load_without_trust(kind, here):
    path = here / "packed.pt"
    torch.jit.script(PACKED[kind]().eval()).save(str(path))
    with zipfile.ZipFile(path) as file:
        text = b"".join(file.read(name) for name in file.namelist())
    assert b"__setstate__" in text or b"torch.classes." in text
    assert runs_code(path) is None
    fusible.lint(path)


def test_packed_weights_of_fusible_load_without_trust(scripted, here):
    fusible.fuse(scripted).save(str(here / "fused.pt"))
    assert runs_code(here / "fused.pt") is None
    fusible.load(here / "fused.pt")
