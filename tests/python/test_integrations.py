"""The places that run the linter for others: their files are read, and run as far as this machine allows."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import fusible
import pytest
import yaml
from hostile_archives import RUNS, in_code, rewrite

from fusible.linting import add_lint_arguments
from fusible.pytest_plugin import assert_fused, check  # noqa: F401 (assert_fused is a fixture)
from fusible.report import Report

ROOT = Path(__file__).resolve().parents[2]
REPORT = Report.from_json((Path(__file__).parent / "reports" / "scripted.json").read_text())


def lint_commands(text: str) -> list[str]:
    return re.findall(r"fusible lint (.*)", text)


@pytest.mark.parametrize("path", [".github/actions/fusible-lint/action.yml", "integrations/gitlab-ci.yml"])
def test_every_lint_command_of_a_ci_file_is_understood(path):
    text = (ROOT / path).read_text()
    yaml.safe_load(text)
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    add_lint_arguments(parser)
    commands = [c for c in lint_commands(text) if c.startswith(("$FUSIBLE_MODELS", "${{ inputs.models }}"))]
    assert len(commands) >= 3
    for command in commands:
        words = shlex.split(re.sub(r"\$\{\{.*?\}\}", "model.pt", command.split(" >> ")[0]))
        parser.parse_args(words)


def test_the_composite_action_decides_last():
    steps = yaml.safe_load((ROOT / ".github/actions/fusible-lint/action.yml").read_text())["runs"]["steps"]
    assert all("--exit-zero" in step["run"] for step in steps[:-1] if "fusible lint" in step.get("run", ""))
    assert "--exit-zero" not in steps[-1]["run"] and all("shell" in step for step in steps if "run" in step)


def test_the_pre_commit_hook_takes_archives_and_nothing_else():
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["language"] == "system" and hook["entry"] == "fusible lint"
    names = ["a.pt", "dist/b.torchscript", "c.pts", "a.pt.txt", "a.py", "apt"]
    assert [bool(re.search(hook["files"], name)) for name in names] == [True, True, True, False, False, False]


def test_assert_fused_passes_with_what_is_allowed(assert_fused):  # noqa: F811
    assert assert_fused(REPORT, min_share=1.0, allow=["FUS2", "FUS303", "FUS108"]) is REPORT


@pytest.mark.parametrize(
    "share, allow, words", [(0.5, (), "2 findings are not allowed"), (0.9, ("FUS2", "FUS303"), "at least 90.0% was needed, found 87.5%")]
)
def test_assert_fused_fails_with_the_findings(share, allow, words):
    with pytest.raises(AssertionError, match=re.escape(words)) as failure:
        check(REPORT, share, allow)
    assert "head.norm" in str(failure.value)


def test_assert_fused_takes_a_list_of_codes_and_no_string():
    with pytest.raises(fusible.FusibleError, match=r"allow: a list of strings was needed, found one string: pass \['FUS999'\]"):
        check(REPORT, 0, "FUS999")


def test_assert_fused_trusts_an_archive_only_when_told(assert_fused, archive, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    old, new, _ = RUNS["default_argument"]
    rewrite(archive, tmp_path / "own.pt", in_code(old, new))
    with pytest.raises(fusible.FusibleError, match="trust=True"):
        assert_fused(tmp_path / "own.pt", min_share=0, allow=["FUS"])
    assert assert_fused(tmp_path / "own.pt", min_share=0, allow=["FUS"], trust=True).verdicts


@pytest.mark.parametrize("exit_code, passes", [(0, True), (1, False)])
def test_the_cmake_function_makes_a_test_of_the_exit_code(tmp_path, exit_code, passes):
    (tmp_path / "lint.py").write_text(
        f"import sys\nassert sys.argv[1:] == ['lint', '{tmp_path}/a.pt', '--color', 'never', '--min-fused', '0.95'], sys.argv\nsys.exit({exit_code})\n"
    )
    (tmp_path / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.25)\nproject(host NONE)\nenable_testing()\ninclude({ROOT}/cmake/FusibleLint.cmake)\n"
        f"set(FUSIBLE_COMMAND {sys.executable} {tmp_path}/lint.py)\nfusible_add_lint_test(model_is_fused a.pt --min-fused 0.95)\n"
        f"fusible_add_lint_test(of_elsewhere {tmp_path}/a.pt --min-fused 0.95)\n"
    )
    subprocess.run(["cmake", "-S", tmp_path, "-B", tmp_path / "b"], check=True, capture_output=True)
    result = subprocess.run(["ctest", "--test-dir", tmp_path / "b", "--output-on-failure"], capture_output=True, text=True)
    assert (result.returncode == 0) == passes and "model_is_fused" in result.stdout and "AssertionError" not in result.stdout
