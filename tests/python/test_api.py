"""The Python functions: what they accept, what they refuse with one clear sentence, and that nothing is changed behind the caller's back."""
import copy
import signal
import time
import warnings

import fusible
import pytest
import torch
from fusible import FusibleError
from oracle import assert_same, assert_same_bits
from torch import nn


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("form", ["scripted", "traced", "frozen", "loaded"])
def test_every_form_of_a_module_is_fused(form, scripted, model, x, archive):
    module = {"scripted": lambda: scripted, "traced": lambda: torch.jit.trace(model, x), "frozen": lambda: torch.jit.freeze(scripted),
              "loaded": lambda: torch.jit.load(archive)}[form]()
    fused = fusible.fuse(module)
    assert isinstance(fused, torch.jit.ScriptModule)
    assert_same(fused(x), module(x))
    assert fusible.report(fused).counts["fused"] >= 2


def test_an_eager_module_is_told_to_script(model):
    with pytest.raises(FusibleError, match=r"eager Small: script it with torch.jit.script\(module.eval\(\)\), or trace it"):
        fusible.fuse(model)
    with pytest.raises(FusibleError, match="found str"):
        fusible.fuse("model.pt")
    assert issubclass(FusibleError, ValueError)


def test_a_module_in_training_is_told_to_eval(model):
    with pytest.raises(FusibleError, match=r"eval\(\)"):
        fusible.fuse(torch.jit.script(model.train()))


@pytest.mark.parametrize("how", ["script", "trace"])
def test_a_function_is_wrapped(how):
    weight = torch.randn(4, 3)

    def f(x, w):
        return torch.relu(torch.nn.functional.linear(x, w))

    inputs = (torch.randn(2, 3), weight)
    function = torch.jit.script(f) if how == "script" else torch.jit.trace(f, inputs)
    assert isinstance(function, torch.jit.ScriptFunction)
    fused = fusible.fuse(function)
    assert_same(fused(*inputs), function(*inputs))
    assert fusible.lint(function).counts["candidates"] == 1


@pytest.mark.parametrize("given, says", [
    ({"example_inputs": torch.zeros(1)}, r"a tuple was needed, found Tensor: pass \(x,\)"),
    ({"example_inputs": ("text",)}, "'x' needs a Tensor, found a str"),
    ({"example_inputs": (torch.zeros(1), 2)}, "at most 1 inputs"),
    ({"target": "gpu"}, "gpu"),
    ({"methods": "forward"}, "a list of strings was needed"),
    ({"methods": ["encode"]}, "encode"),
    ({"patterns": ["nowhere.fus"]}, "nowhere.fus"),
    ({"patterns": ["activation\n  nonsense"]}, ":1:|:2:"),
])
def test_an_unusable_option_is_one_sentence(given, says, scripted):
    with pytest.raises(FusibleError, match=says):
        fusible.fuse(scripted, **given)
    with pytest.raises(FusibleError, match=says):
        fusible.lint(scripted, **given)


def test_an_unknown_option_is_a_type_error(scripted):
    with pytest.raises(TypeError, match="tagret"):
        fusible.fuse(scripted, tagret="cpu")


def test_load_shows_no_deprecation_warning(archive):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fusible.fuse(fusible.load(archive))


def test_the_original_is_not_changed(scripted, x):
    before, state = scripted(x), copy.deepcopy(scripted.state_dict())
    graph = str(scripted.graph)
    fusible.fuse(scripted, (x,))
    assert str(scripted.graph) == graph
    assert_same_bits(scripted(x), before)
    assert all(torch.equal(value, scripted.state_dict()[name]) for name, value in state.items())


def test_the_report_survives_save_and_load(scripted, tmp_path):
    fused = fusible.fuse(scripted)
    fused.save(str(tmp_path / "fused.pt"))
    assert fusible.report(torch.jit.load(tmp_path / "fused.pt")).to_json() == fusible.report(fused).to_json()
    with pytest.raises(FusibleError, match="fusible.lint"):
        fusible.report(scripted)


def test_lint_takes_a_path_and_runs_nothing(archive, tmp_path):
    assert fusible.lint(archive).model == str(archive)
    assert fusible.lint(str(archive)).counts == fusible.lint(torch.jit.load(archive)).counts


def test_progress_names_the_stages_in_order(scripted):
    seen = []
    fusible.fuse(scripted, progress=lambda stage, share: seen.append((stage, share)))
    shares = [share for _, share in seen]
    assert len(seen) >= 4 and shares == sorted(shares) and all(0 <= share <= 1 for share in shares)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupt_leaves_everything_whole(error, scripted, x):
    before = scripted(x)

    def interrupt(stage, share):
        if share > 0:
            raise error

    with pytest.raises(error):
        fusible.fuse(scripted, (x,), progress=interrupt)
    assert_same_bits(scripted(x), before)
    assert_same(fusible.fuse(scripted, (x,))(x), before)


def test_ctrl_c_is_heard_without_a_progress_callback():
    module = torch.jit.script(nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(150))).eval())
    start = time.perf_counter()
    fusible.fuse(module)
    whole = time.perf_counter() - start
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, whole / 4)
        with pytest.raises(KeyboardInterrupt):
            for _ in range(20):
                fusible.fuse(module)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_other_threads_run_during_fuse():
    """The GIL is released: a Python thread goes on counting while a large model is fused."""
    import threading

    module = torch.jit.script(nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(200))).eval())
    ticks, done = [], threading.Event()

    def count():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    shares = []
    for _ in range(3):  # a busy machine may hold the thread up once
        start = time.perf_counter()
        fusible.fuse(module)
        end = time.perf_counter()
        longest = max(later - earlier for earlier, later in zip(ticks, ticks[1:]) if start <= later <= end)
        shares.append(longest / (end - start))
    done.set()
    thread.join()
    assert min(shares) < 0.5, f"a thread stood still for {min(shares):.0%} of the time that fuse took"


def test_patterns_are_loaded_from_text_and_from_a_file(tmp_path):
    with pytest.raises(FusibleError, match=r"<text>:\d+:\d+"):
        fusible.load_patterns("activation\n  nonsense")
    (tmp_path / "bad.fus").write_text("activation\n  nonsense")
    with pytest.raises(FusibleError, match=r"bad.fus:\d+:\d+"):
        fusible.load_patterns(tmp_path / "bad.fus")


def test_a_pattern_file_that_is_not_utf_8_is_named_with_line_and_column(scripted, tmp_path):
    (tmp_path / "bad.fus").write_bytes(b"activation gelu\n  doc \"caf\xe9\"\n")
    for use in (fusible.load_patterns, lambda path: fusible.fuse(scripted, patterns=[path])):
        with pytest.raises(FusibleError, match=r"bad.fus:2:11: a pattern file in UTF-8 was needed, found the byte 0xe9"):
            use(tmp_path / "bad.fus")


def test_warmup_packs_and_runs(scripted, x):
    fused = fusible.fuse(scripted)
    fusible.warmup(fused)
    fusible.warmup(fused, (x,))
    assert_same(fused(x), scripted(x))
    with pytest.raises(FusibleError, match="a tuple was needed"):
        fusible.warmup(fused, x)
