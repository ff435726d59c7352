"""Arguments of the wrong kind are one sentence of FusibleError, whichever they are; an error of a pattern file names the file, line and column."""

from __future__ import annotations

import logging
from pathlib import Path

import fusible
import pytest
import torch
from fusible import FusibleError

BAD = "activation mine\n  step nosuch\n  spelling y = aten::neg(x)\n"


@pytest.mark.parametrize(
    "given, says",
    [
        ({"target": None}, "target: one of cpu, aten was needed, found None"),
        ({"target": ["cpu"]}, r"target: one of cpu, aten was needed, found \['cpu'\]"),
        ({"strict": "x"}, "strict: True or False was needed, found 'x'"),
        ({"verify": 1}, "verify: True or False was needed, found 1"),
        ({"methods": [1]}, "methods: a list of strings was needed, found one that holds 1"),
        ({"methods": ["\udcff"]}, "\ufffd"),
        ({"select": [1]}, "select: a list of strings was needed, found one that holds 1"),
        ({"select": b"conv"}, "select: a list of strings was needed, found bytes"),
        ({"ignore": 3}, "ignore: a list of strings was needed, found int"),
        ({"ignore": Path("conv")}, "ignore: a list of strings was needed, found one path"),
        ({"patterns": [5]}, "a path was needed, found int"),
        ({"patterns": 5}, "patterns: a list of files or texts was needed, found int"),
        ({"patterns": Path("a.fus")}, "patterns: a list of files or texts was needed, found one path"),
        ({"patterns": ["x" * 300]}, "a pattern file was needed"),
        ({"progress": 3}, r"progress: a function of \(stage, share\) was needed, found int"),
    ],
)
@pytest.mark.parametrize("level", [logging.WARNING, logging.DEBUG])
def test_an_argument_of_another_kind_is_one_sentence(given, says, level, scripted, caplog):
    with caplog.at_level(level, "fusible"):
        for verb in (fusible.fuse, fusible.lint):
            with pytest.raises(FusibleError, match=says) as caught:
                verb(scripted, **given)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda module: fusible.load(3),
        lambda module: fusible.load("m.pt", trust="no"),
        lambda module: fusible.lint("m.pt", trust="no"),
        lambda module: fusible.lint(3),
        lambda module: fusible.save(module, 3),
        lambda module: fusible.load_patterns(3),
        lambda module: fusible.fuse(module, (torch.zeros(2, 3, 9, 9),), tune="x"),
        lambda module: fusible.lint(module, sample="x"),
    ],
)
def test_so_it_is_for_the_other_functions(call, scripted):
    with pytest.raises(FusibleError, match="needed, found"):
        call(scripted)


def uses(scripted):
    return (
        lambda path: fusible.fuse(scripted, patterns=[path]),
        lambda path: fusible.lint(scripted, patterns=["activation fine\n  step relu\n  spelling y = aten::neg(x)\n", path]),
        fusible.load_patterns,
    )


@pytest.mark.parametrize("kind", [str, Path])
def test_an_error_of_a_pattern_file_names_it(scripted, tmp_path, kind):
    (tmp_path / "mine.fus").write_text(BAD)
    for use in uses(scripted):
        with pytest.raises(FusibleError, match=r"mine\.fus:2:8: needed a post-op step"):
            use(kind(tmp_path / "mine.fus"))


def test_an_error_of_a_text_counts_the_texts(scripted, tmp_path):
    (tmp_path / "fine.fus").write_text("activation fine\n  step relu\n  spelling y = aten::neg(x)\n")
    with pytest.raises(FusibleError, match=r"^patterns\[1\]:2:8: needed"):
        fusible.fuse(scripted, patterns=[tmp_path / "fine.fus", BAD])


def test_a_mark_at_the_beginning_of_a_file_is_no_text(scripted, tmp_path):
    (tmp_path / "mine.fus").write_bytes(b"\xef\xbb\xbf" + BAD.replace("nosuch", "relu").encode())
    fusible.fuse(scripted, patterns=[tmp_path / "mine.fus"])
    (tmp_path / "mine.fus").write_bytes(b"\xef\xbb\xbf" + BAD.encode())
    with pytest.raises(FusibleError, match=r"mine\.fus:2:8: needed a post-op step"):
        fusible.fuse(scripted, patterns=[tmp_path / "mine.fus"])


def test_a_nul_character_is_named_with_its_place(scripted, tmp_path):
    (tmp_path / "mine.fus").write_text(BAD.replace("nosuch", "no\0such"))
    for use in uses(scripted):
        with pytest.raises(FusibleError, match=r"mine\.fus:2:10: a pattern in plain text was needed, found a NUL character: take it out"):
            use(tmp_path / "mine.fus")
    with pytest.raises(FusibleError, match=r"^patterns\[0\]:2:10: "):
        fusible.fuse(scripted, patterns=[BAD.replace("nosuch", "no\0such")])
