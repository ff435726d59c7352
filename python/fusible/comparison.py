"""Two reports of one model, before and after it was exported anew: what became fused, what stopped, and why. Needs no torch.

Candidates are paired by method, module path and kind of operator, in program order within those; by their place among the operators of the kind
where either archive lost its module paths. So a pair survives another export, other value numbers and moved lines.
"""
from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from fusible.report import Diagnostic, Report, Verdict

STOPPED, ACCEPTED, BECAME, REASON, APPEARED, VANISHED = KINDS = ("stopped", "accepted", "became", "reason", "appeared", "vanished")
Key = tuple[str, str, str, int]


@dataclass(frozen=True)
class Change:
    """What became of one candidate. `why` is a finding of the new report (stopped, accepted, reason, appeared) or of the old one (became).

    stopped: fused before and not now, or by a shorter sequence while the rest is still there. accepted: the same, and its finding is suppressed.
    became: the reverse of stopped. reason: not fused before or now, for another reason. appeared, vanished: in one of the archives only.
    """

    kind: str
    old: Verdict | None
    new: Verdict | None
    why: Diagnostic | None

    @property
    def verdict(self) -> Verdict:
        """The candidate as the new archive names it, or the old one where it vanished."""
        verdict = self.new or self.old
        assert verdict is not None
        return verdict


@dataclass(frozen=True)
class Comparison:
    old: Report
    new: Report
    changes: tuple[Change, ...]  # by kind in the order of KINDS, then in the order of the graph

    def of(self, kind: str) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.kind == kind)

    @property
    def counts(self) -> dict[str, int]:
        return {kind: len(self.of(kind)) for kind in KINDS}

    @property
    def causes(self) -> tuple[Diagnostic, ...]:
        """The findings of the new report because of which something stopped, each once."""
        return tuple({c.why.fingerprint: c.why for c in self.of(STOPPED) if c.why}.values())


def family(op: str) -> str:
    """Scripting writes aten::conv2d where tracing writes aten::_convolution."""
    name = op.rpartition("::")[2]
    return "conv" if re.match(r"_?conv", name) else name


def _keyed(report: Report, by_path: bool) -> dict[Key, Verdict]:
    keyed: dict[Key, Verdict] = {}
    seen: Counter[tuple[str, str, str]] = Counter()
    for verdict in report.verdicts:
        place = (verdict.site.method, verdict.site.module_path if by_path else "", family(verdict.site.op))
        seen[place] += 1
        keyed[(*place, seen[place])] = verdict
    return keyed


def _has_paths(report: Report) -> bool:
    return any(verdict.site.module_path for verdict in report.verdicts)


def _reasons(report: Report) -> dict[int, list[Diagnostic]]:
    reasons: dict[int, list[Diagnostic]] = defaultdict(list)
    for diagnostic in report.diagnostics:
        for candidate in diagnostic.candidates:
            reasons[candidate].append(diagnostic)
    return reasons


def _why(verdict: Verdict, reasons: dict[int, list[Diagnostic]]) -> Diagnostic | None:
    """The finding that its verdict names; of a fused candidate, the one that ended its sequence."""
    found = reasons.get(verdict.candidate, [])
    if verdict.code:
        return next((d for d in found if d.code == verdict.code), None)
    return next((d for d in found if d.kind == "missed"), None)


def _fused(verdict: Verdict) -> bool:
    return verdict.status == "fused"


def _lost(old: Verdict, new: Verdict) -> bool:
    """Whether the fused sequence has fewer steps. The sequence is told by its contraction alone, not again by the batch_norm in it."""
    if old.site.op == "aten::batch_norm":
        return False
    return bool(Counter(old.pattern.split("+")) - Counter(new.pattern.split("+")))


def _pair(old: Verdict, new: Verdict, old_reasons: dict[int, list[Diagnostic]], new_reasons: dict[int, list[Diagnostic]]) -> Iterator[Change]:
    why_old, why_new = _why(old, old_reasons), _why(new, new_reasons)
    if _fused(old) and not _fused(new):
        yield Change(ACCEPTED if new.status == "suppressed" else STOPPED, old, new, why_new)
    elif _fused(new) and not _fused(old):
        yield Change(BECAME, old, new, why_old)
    elif _fused(old):
        # Steps that no finding asks for were taken out of the model.
        if _lost(old, new) and why_new:
            yield Change(ACCEPTED if why_new.suppressed else STOPPED, old, new, why_new)
        elif _lost(new, old) and why_old:
            yield Change(BECAME, old, new, why_old)
    elif old.code != new.code:
        yield Change(REASON, old, new, why_new)


def compare(old: Report, new: Report) -> Comparison:
    by_path = _has_paths(old) and _has_paths(new)
    before, after = _keyed(old, by_path), _keyed(new, by_path)
    old_reasons, new_reasons = _reasons(old), _reasons(new)
    changes = [Change(APPEARED, None, v, _why(v, new_reasons)) for key, v in after.items() if key not in before]
    changes += [Change(VANISHED, v, None, None) for key, v in before.items() if key not in after]
    for key, verdict in after.items():
        if key in before:
            changes += _pair(before[key], verdict, old_reasons, new_reasons)
    return Comparison(old, new, tuple(sorted(changes, key=lambda c: KINDS.index(c.kind))))
