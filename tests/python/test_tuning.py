"""fuse with tune: measured on the inputs, kept in the archive, told in the report. Which kernel wins is the machine's affair, not the tests'."""
import copy
import json

import fusible
import pytest
import torch
from fusible.cli import main
from oracle import assert_same
from torch import nn


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture
def network():
    torch.manual_seed(5)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 24, 1), nn.SiLU(), nn.Conv2d(24, 24, 3, groups=24), nn.GELU(), nn.Flatten(),
              nn.Linear(24 * 36, 10)]
    return torch.jit.script(nn.Sequential(*layers).eval())


@pytest.fixture
def image():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_tuned_module_computes_the_same_and_tells_what_was_measured(network, image, tmp_path):
    fused = fusible.fuse(network, (image,), tune=True)
    fused.save(tmp_path / "fused.pt")
    for module in (fused, torch.jit.load(tmp_path / "fused.pt"), copy.deepcopy(fused)):
        assert_same(module(image), network(image))
        report = fusible.report(module)
        assert report.tuning.threads == torch.get_num_threads() and report.tuning.rounds >= 7 and report.tuning.machine
        assert str(report.tuning).startswith("tuned for ") and str(report.tuning) in str(report)
        for verdict in report.verdicts:
            assert verdict.status == "fused" or verdict.code == "FUS601"
    again = fusible.Report.from_json(fusible.report(fused).to_json())
    assert again == fusible.report(fused) and json.loads(again.to_json())["tuning"]["machine"] == report.tuning.machine


def test_only_clear_gains_are_chosen(network, image):
    for sequence in fusible.report(fusible.fuse(network, (image,), tune=True, verify=False)).tuning.sequences:
        assert sequence.way != sequence.instead_of and sequence.gain >= sequence.low > 1.03


def test_without_tune_nothing_is_measured_and_nothing_told(network, image):
    report = fusible.report(fusible.fuse(network, (image,)))
    assert report.tuning is None and "tuned" not in str(report) and "tuning" not in json.loads(report.to_json())


def test_a_fused_module_is_tuned_again_for_this_machine(network, image):
    fused = fusible.fuse(network, (image,))
    tuned = fusible.fuse(fused, (image,), tune=True)
    assert fusible.report(fused).tuning is None and fusible.report(tuned).tuning.ratio == 0
    assert_same(tuned(image), network(image))


def test_tune_without_inputs_is_refused(network):
    with pytest.raises(fusible.FusibleError, match="tune: example_inputs for the method forward were needed"):
        fusible.fuse(network, tune=True)


def test_the_command_line_tells_the_machine(network, tmp_path, capsys):
    network.save(tmp_path / "model.pt")
    assert main(["fuse", str(tmp_path / "model.pt"), "-o", str(tmp_path / "fused.pt"), "--tune", "--input", "2,3,8,8"]) == 0
    assert "\ntuned for " in capsys.readouterr().out
    assert fusible.report(torch.jit.load(tmp_path / "fused.pt")).tuning
