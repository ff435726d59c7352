"""The torchvision classification families that the zoo has no model of: no candidate is left without a verdict and a finding that explains it.

`python bench/findings.py` holds the same for all models of docs/models.md, scripted and traced.
"""

from __future__ import annotations

import fusible
import pytest
from candidates import count_candidates
from zoo import archives, torchvision_shim  # noqa: F401
from torchvision import models

FAMILIES = ("mnasnet0_5", "regnet_x_400mf", "regnet_y_400mf", "squeezenet1_1", "swin_t", "swin_v2_t", "resnext50_32x4d")


@pytest.mark.parametrize("name", FAMILIES)
def test_no_candidate_is_unexplained(name):
    module = archives.script(models.get_model(name, weights=None).eval())
    report = fusible.lint(module)
    explained = {(c, d.code) for d in report.diagnostics for c in d.candidates}
    assert report.counts["candidates"] == sum(count_candidates(module, report.methods).values()) > 0
    unexplained = [v.site.module_path for v in report.verdicts if v.status != "fused" and (v.candidate, v.code) not in explained]
    assert unexplained == []
