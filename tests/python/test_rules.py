"""Every code has a page, and every page's examples do what the page says: `fires` reports the code, `silent` does not.

A block defines `model` (an nn.Module in eval mode) and `inputs`, or `make()` that returns what fusible.lint takes. Optional: `how`
("script", "freeze", "save, load", "freeze, save, load"), `options` of fusible.lint, and `door` ("lint", "fuse" with
verification, "linter" with comments honoured).
"""

from __future__ import annotations

import importlib.util
import io
import re
import sys
from pathlib import Path

import pytest

from fusible import rules

ROOT = Path(__file__).resolve().parents[2]
PREAMBLE = "import itertools\n\nimport torch\nfrom torch import nn\nfrom torch.nn import functional as F\n\nimport fusible\n\n\n"
RUNNABLE = [rule for rule in rules.all_rules().values() if not rule.unrunnable]


def blocks(rule: rules.Rule, kind: str) -> list[str]:
    return re.findall(rf"^```python {kind}\n(.*?)^```$", rule.text, re.M | re.S)


def test_the_pages_are_the_codes_of_the_table():
    table = re.findall(r'Code \w+\{"(FUS\d+)", "([\w-]+)", Severity::(\w+)\}', (ROOT / "passes" / "codes.h").read_text())
    assert [(rule.code, rule.name, rule.severity) for rule in rules.all_rules().values()] == sorted(table)


@pytest.mark.parametrize("rule", rules.all_rules().values(), ids=lambda rule: rule.code)
def test_a_page_has_its_headings_and_file_name(rule):
    assert tuple(re.findall(r"^## (.*)$", rule.text, re.M)) == rules.HEADINGS
    assert all(rule.section(heading) for heading in rules.HEADINGS)
    assert (rules.folder() / f"{rule.code}-{rule.name}.md").is_file()
    assert rule.text.startswith(f"# {rule.name} ({rule.code})\n")
    if not rule.unrunnable:
        assert len(blocks(rule, "fires")) == 1 and len(blocks(rule, "silent")) == 1


def test_the_index_in_docs_is_up_to_date():
    assert (ROOT / "docs" / "rules.md").read_text() == rules.index(), "run: python -m fusible.rules > docs/rules.md"


def test_a_rule_is_found_by_code_and_by_name():
    assert rules.find("fus201") is rules.find("second-use")
    with pytest.raises(KeyError, match="second-use|FUS201"):
        rules.find("FUS299")


def scripted(example):
    """The ScriptModule, or the path, that the example describes."""
    import torch

    if hasattr(example, "make"):
        return example.make()
    module = torch.jit.script(example.model)
    for step in getattr(example, "how", "script").split(", "):
        if step == "freeze":
            module = torch.jit.freeze(module)
        elif step == "save":
            saved = io.BytesIO(module.save_to_buffer())
        elif step == "load":
            module = torch.jit.load(saved)
        else:
            assert step == "script", step
    return module


def codes_reported(example):
    import fusible

    door, options = getattr(example, "door", "lint"), getattr(example, "options", {})
    if door == "fuse":
        report = fusible.report(fusible.fuse(scripted(example), example.inputs, **options))
    else:
        report = fusible.lint(scripted(example), **options)
    if door == "linter":
        from fusible.suppress import apply_comments

        report = apply_comments(report)
    return {d.code for d in report.diagnostics} | {v.code for v in report.verdicts}


@pytest.mark.parametrize("kind", ["fires", "silent"])
@pytest.mark.parametrize("rule", RUNNABLE, ids=lambda rule: rule.code)
def test_the_examples_of_a_page_do_what_it_says(rule, kind, tmp_path, monkeypatch):
    pytest.importorskip("fusible._C", reason="needs the built extension module")
    path = tmp_path / f"page_{rule.code}_{kind}.py"
    path.write_text(PREAMBLE + blocks(rule, kind)[0])
    spec = importlib.util.spec_from_file_location(path.stem, path)
    example = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, example)  # torch.jit.script asks inspect for the source
    spec.loader.exec_module(example)
    assert (rule.code in codes_reported(example)) == (kind == "fires")
