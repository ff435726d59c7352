"""The first calls of a process that loads a fused archive and packs it: at most three times what later ones take, and 5 ms.

Times are the processor's for one thread, the least of a few processes: other work on the machine adds little to them.
"""
import json
import subprocess
import sys
import time

import fusible
import pytest
import torch
from fusible.demo.resnet50 import resnet50
from soundness import randomised
from torch import nn

HOST = """
import json, sys, time, torch
import fusible

torch.set_num_threads(1)
x, module = torch.load(sys.argv[2]), torch.jit.load(sys.argv[1])

def seconds(action):
    start = time.process_time()
    action()
    return time.process_time() - start

packing = seconds(lambda: fusible.warmup(module))
with torch.no_grad():
    calls = [seconds(lambda: module(x)) for _ in range(23)]
print(json.dumps({"packing": packing, "first": calls[:3], "later": sorted(calls[3:])[10]}))
"""


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2))
        self.classifier = nn.Sequential(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def perceptron(depth, width):
    return nn.Sequential(*[layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.ReLU())])


MODELS = {"resnet50": (resnet50, torch.randn(1, 3, 224, 224)), "lenet": (lambda: randomised(LeNet()), torch.randn(1, 1, 28, 28)),
          "perceptron": (lambda: perceptron(3, 64).eval(), torch.randn(1, 64)), "deep": (lambda: perceptron(40, 64).eval(), torch.randn(1, 64))}


@pytest.mark.parametrize("name", MODELS)
def test_first_calls_take_at_most_three_times_a_later_one_and_5_ms(name, tmp_path):
    create, x = MODELS[name]
    with torch.no_grad():
        module = torch.jit.trace(create(), x)
    fusing = []
    while len(fusing) < 3 and min(fusing, default=1) >= 1:
        start = time.process_time()
        fused = fusible.fuse(module)
        fusing.append(time.process_time() - start)
    fused.save(tmp_path / "fused.pt")
    torch.save(x, tmp_path / "x.pt")
    least = None
    for _ in range(5):
        command = [sys.executable, "-W", "ignore", "-c", HOST, str(tmp_path / "fused.pt"), str(tmp_path / "x.pt")]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        least = found if least is None else {"packing": min(least["packing"], found["packing"]), "later": min(least["later"], found["later"]),
                                             "first": [min(pair) for pair in zip(least["first"], found["first"])]}
        if max(least["first"]) <= 3 * least["later"] + 0.005 and least["packing"] < 0.5:
            break
    assert max(least["first"]) <= 3 * least["later"] + 0.005, least
    assert least["packing"] < 0.5, least
    assert min(fusing) < 1, fusing


FAKE = """
import sys, torch
import fusible
from torch._subclasses.fake_tensor import FakeTensorMode

module, x = torch.jit.load(sys.argv[1]), torch.randn(2, 16, 8, 8)
with torch.no_grad():
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        print(tuple(module(mode.from_tensor(x)).shape))
    print(module._fusible_region_0.explain([x]))
"""


def test_a_first_call_under_fake_tensors_decides_nothing_for_later_ones(tmp_path):
    module = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
    fusible.fuse(torch.jit.script(module.eval())).save(str(tmp_path / "fused.pt"))
    run = subprocess.run([sys.executable, "-c", FAKE, str(tmp_path / "fused.pt")], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["(2, 16, 8, 8)", "['loop nest', 'loop nest']"]
