"""An archive with bytes changed, cut or doubled, in the file or inside of a record, is linted, or refused with one sentence: no other end."""
import importlib.util
import pickle
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch
from fusible.archive import problem_of
from fusible.debug_records import problem_of_debug_record
from fusible.memo import problem_of_memo
from fusible.storages import problem_of_pickle
from torch import nn

LIBFUZZER = Path(__file__).parents[1] / "libfuzzer"

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
    assert (problem_of_debug_record(pickle.dumps(record)) is None) is fits


def test_a_record_of_source_ranges_runs_nothing():
    assert "os.system" in problem_of_debug_record(b"cos\nsystem\n(S'true'\ntR.") or "posix.system" in problem_of_debug_record(pickle.dumps(Path))


@pytest.mark.parametrize("data, fits", [
    (b"Nr\xff\xff\xff\x3f.", False),
    (b"Np1073741823\n.", False),
    (b"Np-1\n.", False),
    (b"X\x05\x00\x00\x00rrrrrq\x00.", True),  # a text that looks like it
    (b"X\x05\x00\x00\x00rrrrrr\xff\xff\xff\x3f.", False),
    (b"c__torch__\nrrrrrr\nq\x00.", True),
    (b"U\x01rq\x00K\x01r\x04\x00\x00\x00.", True),
    (b"Np1\nr\xff\xff\xff\x3f.", False),
    (b"\xffr\xff\xff\xff\x3f", True),  # damaged: no reader gets that far
    (pickle.dumps([str(i) for i in range(3000)] * 2, protocol=2), True),
])
def test_numbers_that_make_a_pickle_fill_the_memory_are_found_by_reading_it(data, fits):
    assert (problem_of_memo(data) is None) is fits


@pytest.mark.parametrize("record", ["data.pkl", "constants.pkl", "code/__torch__.py.debug_pkl"])
def test_a_pickle_that_would_fill_the_memory_is_refused(whole, tmp_path, record):
    path = tmp_path / "large.pt"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        records = {name.partition("/")[2]: source.read(name) for name in source.namelist()} | {record: b"\x80\x02Nr\xff\xff\xff\x3f."}
        for name, content in records.items():
            target.writestr(f"whole/{name}", content)
    assert f"record {record!r} would fill the memory" in problem_of(path)


def test_what_a_pickle_names_in_place_of_a_storage_is_not_printed():
    """Sixty lists, each twice the one before: as a text they are longer than any memory."""
    lists = [""]
    for _ in range(60):
        lists = [lists, lists]
    for identity in (("storage", lists, "0", "cpu", 1), ("storage", torch.FloatStorage, lists, "cpu", 1), (lists, torch.FloatStorage, "0", "cpu", 1)):
        class Named(pickle.Pickler):
            def persistent_id(self, item):
                return identity if item is Named else None

        file = tempfile.TemporaryFile()
        Named(file, protocol=2).dump(Named)
        file.seek(0)
        assert len(problem_of_pickle(file.read(), "data", {})) < 200


def test_names_of_an_archive_s_own_stay_on_one_line(whole, tmp_path):
    path = tmp_path / "lines.pt"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
        target.writestr(f"{source.namelist()[0].partition('/')[0]}/code/two\n\x1b[31mlines.debug_pkl", b"\x8c\x02a\n\x8c\x01b\x93.")
    assert problem_of(path).isprintable() and "two [31mlines.debug_pkl" in problem_of(path)


def test_what_coverage_guided_fuzzing_found_stays_mended():
    """The corpus of `make libfuzzer`: each file ends in one sentence, or in nothing to say."""
    spec = importlib.util.spec_from_file_location("read_archive", LIBFUZZER / "read_archive.py")
    target = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(target)
    files = sorted((LIBFUZZER / "corpus" / "read_archive").iterdir())
    assert len(files) > 5
    for file in files:
        target.read(file.read_bytes())
