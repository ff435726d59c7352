"""The list of mutants (tests/mutation/check.py runs them) is true of the sources; nothing is built here."""
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def script(path):
    specification = importlib.util.spec_from_file_location(path.replace("/", "_"), ROOT / f"tests/{path}.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


mutants = script("mutation/mutants")
LISTED = mutants.listed()


def test_at_least_150():
    assert len(LISTED) >= 150


@pytest.mark.parametrize("file", sorted({mutant.file for mutant in LISTED}))
def test_each_place_is_there_once(file):
    own = [mutant for mutant in LISTED if mutant.file == file]
    text = mutants.with_mutants((ROOT / file).read_text(), own)
    for mutant in own:
        assert text.count(f"::fusible_mutant({mutant.number}u)") == 1


def test_the_page_tells_what_became_of_each():
    page = (ROOT / "docs/mutants.md").read_text()
    for file in {mutant.file for mutant in LISTED}:
        section = page.split(f"\n## {file}\n")[1].split("\n## ")[0]
        for mutant in LISTED:
            assert mutant.file != file or f"| {mutant.name} |" in section, f"run tests/mutation/check.py and table.py: {mutant.key}"


def test_a_place_that_is_gone_is_an_error(tmp_path):
    (tmp_path / "area.toml").write_text('file = "a.cpp"\n[[mutant]]\nname = "n"\nrule = "r"\noriginal = "x > 0"\nmutated = "true"\n')
    mutant, = mutants.listed(tmp_path)
    assert mutants.with_mutants("if (x > 0) y;", [mutant]).endswith(f"if ((::fusible_mutant({mutant.number}u) ? (true) : (x > 0))) y;")
    for text, count in (("if (x) y;", 0), ("if (x > 0 && x > 0) y;", 2)):
        with pytest.raises(ValueError, match=rf"area.toml: 'n': `original` was needed exactly once in a.cpp, found {count} times"):
            mutants.with_mutants(text, [mutant])
