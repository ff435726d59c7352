"""An archive with bytes changed, cut or doubled, in the file or inside of a record, is linted, or refused with one sentence: no other end."""
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fusible.debug_records import problem_of_debug_record
from torch import nn

# A process of its own: what torch's loader cannot take would end it.
TRIAL = """
import io, random, sys, warnings, zipfile
import fusible

warnings.simplefilter("ignore")
whole, damaged, first, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])


def changed(data, rng, most):
    data = bytearray(data)
    for _ in range(rng.randint(1, most) if data else 0):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def moved(data, rng):
    begin, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    at = rng.randrange(len(data) + 1)
    return rng.choice([data[:begin] + data[end:], data[:at] + data[begin:end] + data[at:]])


def damage(data, rng):
    kind = rng.randrange(4)
    if kind == 0:
        return changed(data, rng, 8)
    if kind == 1:
        return data[:rng.randrange(len(data))]
    source, out = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    victim = rng.choice(source.namelist())
    with zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            record = source.read(name)
            target.writestr(name, record if name != victim else changed(record, rng, 5) if kind == 2 else moved(record, rng))
    return out.getvalue()


data = open(whole, "rb").read()
for seed in range(first, first + count):
    print(seed, end=" ", flush=True)
    with open(damaged, "wb") as file:
        file.write(damage(data, random.Random(seed)))
    try:
        fusible.lint(fusible.load(damaged))
        print("linted")
    except fusible.FusibleError as error:
        print("refused", "in lines" if "\\n" in str(error) else "")
    except BaseException as error:
        print(type(error).__name__, error)
"""


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.scales = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), {"a": 2}

    def forward(self, x):
        y = torch.relu(self.bn(self.conv(x)))
        return y * self.scales["a"] if y.size(0) > 1 else y


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("damaged") / "whole.pt"
    torch.jit.script(Net().eval()).save(str(path))
    return path


# 160, 311, 2151, 3658 and their like: what the first thousands found.
@pytest.mark.parametrize("first", [0, 2100, 3600])
def test_damaged_archives_end_in_one_sentence(whole, tmp_path, first):
    done = subprocess.run([sys.executable, "-c", TRIAL, whole, tmp_path / "damaged.pt", str(first), "100"], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, (done.returncode, lines[-1:], done.stderr[-500:])
    ends = {line.split(" ", 1)[1].strip() for line in lines}
    assert ends == {"linted", "refused"}, [line for line in lines if line.split()[1] not in ("linted", "refused") or "in lines" in line]


GOOD = ("FORMAT_WITH_STRING_TABLE", ("", "file.py", "  y = x\n"), ((0, (([2, 0], 1, 7), 0, 8), 0),))


@pytest.mark.parametrize("record, fits", [
    (GOOD, True),
    ((GOOD[0], GOOD[1], ((0, (([0], 0, 0), 0, 1), 0),)), True),  # as torch writes for packed weights
    ((GOOD[0], GOOD[1], ((0, (([3], 1, 7), 0, 8), 0),)), False),
    ((GOOD[0], GOOD[1], ((0, (([-1], 1, 7), 0, 8), 0),)), False),
    ((GOOD[0], GOOD[1], ((0, (([2], 4, 7), 0, 8), 0),)), False),
    ((GOOD[0], GOOD[1], ((0, (([2], 1, 7), 0, 99), 0),)), False),
    ((GOOD[0], GOOD[1], ((0, (([2], 1, 7), 5, 3), 0),)), False),
    ((GOOD[0], (1, 2), GOOD[2]), False),
    ((GOOD[0], GOOD[1]), False),
    ("text", False),
])
def test_a_record_of_source_ranges_is_looked_at_before_torch_reads_it(record, fits):
    import pickle
    assert (problem_of_debug_record(pickle.dumps(record)) is None) is fits


def test_a_record_of_source_ranges_runs_nothing():
    import pickle
    assert "os.system" in problem_of_debug_record(b"cos\nsystem\n(S'true'\ntR.") or "posix.system" in problem_of_debug_record(pickle.dumps(Path))
