"""Real models: what fuse makes of them, against the original ScriptModule."""
import threading
from collections import Counter
from types import SimpleNamespace

import fusible
import pytest
import torch

from candidates import count_candidates, nodes, raw_graph
from fusing import patterns
from oracle import assert_same, assert_same_bits, tensors
from zoo import archives
from zoo.fresh_process import FreshProcess
from zoo.models import MODELS

SUBJECTS = [(name, form) for name in MODELS for form in archives.FORMS]
WHOLE = {"resnet18", "resnet50", "vgg16_bn", "mobilenet_v2"}  # every batch_norm, activation and sum follows a convolution


def load(name, form):
    return torch.jit.load(str(archives.archive(name, form)))


@pytest.fixture(scope="module", params=SUBJECTS, ids="-".join)
def subject(request):
    """One model, fused once; pytest runs all tests of a subject before it makes the next."""
    name, form = request.param
    inputs, original = MODELS[name].inputs(), load(name, form)
    with torch.no_grad():
        expected = original(*inputs)
        fused = fusible.fuse(load(name, form))
        found = [fused(*inputs) for _ in range(3)]
    return SimpleNamespace(name=name, form=form, inputs=inputs, original=original, expected=expected, fused=fused, found=found,
                           report=fusible.report(fused))


@pytest.fixture(scope="module")
def fresh_process(tmp_path_factory):
    process = FreshProcess(tmp_path_factory.mktemp("fresh"), torch.get_num_threads())
    yield process
    process.close()


def test_every_candidate_has_one_verdict(subject):
    counts, candidates = subject.report.counts, count_candidates(subject.original, subject.report.methods)
    assert "forward" in subject.report.methods
    assert counts["candidates"] == sum(candidates.values())
    assert counts["fused"] + counts["declined"] + counts["suppressed"] == counts["candidates"]
    verdicts = Counter(verdict.site.op for verdict in subject.report.verdicts)
    assert verdicts == candidates


def test_a_declined_candidate_has_a_diagnostic(subject):
    explained = {candidate for diagnostic in subject.report.diagnostics for candidate in diagnostic.candidates}
    for verdict in subject.report.verdicts:
        if verdict.status == "fused":
            assert not verdict.code
        else:
            assert verdict.code.startswith("FUS")
            assert verdict.candidate in explained, f"{verdict.site.module_path}: {verdict.site.op} {verdict.code}"


def test_every_convolution_is_fused(subject):
    fused = [verdict for verdict in subject.report.fused if verdict.site.op.startswith(("aten::conv", "aten::_conv"))]
    assert len(fused) == MODELS[subject.name].convolutions


def test_nothing_is_left_in_a_model_of_fusible_layers(subject):
    if subject.name not in WHOLE:
        pytest.skip("this model has batch_norms, activations or sums that no contraction feeds")
    left = Counter(node.kind() for node in nodes(raw_graph(subject.fused, "forward")))
    for kind in ("batch_norm", "relu", "relu_", "hardtanh", "hardtanh_", "relu6", "add", "add_"):
        assert not left[f"aten::{kind}"], f"{left[f'aten::{kind}']} {kind} left"


POST_OPS = {f"aten::{kind}{suffix}" for suffix in ("", "_") for kind in (
    "relu", "relu6", "hardtanh", "clamp", "leaky_relu", "sigmoid", "tanh", "silu", "hardswish", "hardsigmoid", "gelu", "elu", "mish", "softplus",
    "add", "mul")} | {"aten::batch_norm", "aten::prelu"}




def test_what_is_left_behind_a_contraction_has_a_reason(subject):
    """Each post-op that still reads a fused operator's result is one place where a sequence stopped: a site of a missed diagnostic."""
    left = Counter()
    for node in nodes(raw_graph(subject.fused, "forward")):
        of_tensors = isinstance(next(node.outputs()).type(), torch._C.TensorType) if node.kind() in POST_OPS else False  # and not of sizes
        if of_tensors and any(value.node().kind().startswith("fusible::") for value in node.inputs()):
            left[node.kind()] += 1
    missed = [diagnostic for diagnostic in subject.report.diagnostics if diagnostic.kind == "missed"]
    assert left.total() <= sum(len(diagnostic.sites) for diagnostic in missed), (left, [diagnostic.message for diagnostic in missed])


def test_the_interface_is_kept(subject):
    assert set(subject.fused._c._method_names()) >= set(subject.report.methods)
    for attribute in ("training", "aux_logits", "transform_input"):
        if hasattr(subject.original, attribute):
            assert getattr(subject.fused, attribute) == getattr(subject.original, attribute)


def test_outputs_are_those_of_the_original(subject):
    for found in subject.found:
        assert_same(found, subject.expected, tolerance=1e-5)


def test_other_batch_sizes_and_image_sizes(subject):
    images = MODELS[subject.name].inputs(batch=2, seed=5)[0]
    with torch.no_grad():
        if subject.name == "vit_b_16":
            sizes = [images]
        else:
            sizes = [images, torch.nn.functional.pad(images, (0, 8, 16, 0))]
        for inputs in sizes:
            assert_same(subject.fused(inputs), subject.original(inputs), tolerance=1e-5)


def test_saved_and_loaded_where_only_the_library_is_known(subject, fresh_process, tmp_path):
    path = tmp_path / "fused.pt"
    torch.jit.save(subject.fused, str(path))
    assert_same_bits(fresh_process.run(path, subject.inputs), tensors(subject.found[-1]))
    path.unlink()


def test_two_threads_at_once(subject):
    results = [[], []]

    def run(slot):
        torch.set_num_threads(1)
        with torch.no_grad():
            results[slot] = [subject.fused(*subject.inputs) for _ in range(2)]

    threads = [threading.Thread(target=run, args=(slot,)) for slot in range(2)]
    before = torch.get_num_threads()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.set_num_threads(before)
    for found in (*results[0], *results[1]):
        assert_same_bits(found, results[0][0])
    assert_same(results[0][0], subject.expected, tolerance=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_scripted_and_traced_come_out_alike(name):
    scripted, traced = (patterns(fusible.lint(load(name, form))) for form in archives.FORMS)
    if name == "vit_b_16":  # a script also holds the linears of the path that MultiheadAttention takes where gradients are wanted
        assert traced and not traced - scripted
    else:
        assert scripted == traced
