"""The report of a fuse or a lint, as data. Needs no torch: a report that was saved as JSON is read anywhere."""
from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA = 1


@dataclass(frozen=True)
class Location:
    """A place in the model's Python source; line 0 when the archive does not know it."""

    file: str = ""
    line: int = 0
    column: int = 0
    end_column: int = 0
    function: str = ""
    excerpt: str = ""

    @property
    def known(self) -> bool:
        return self.line > 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.known else "unknown location"


@dataclass(frozen=True)
class Site:
    """A node of the model as a person names it."""

    method: str
    module_path: str
    op: str
    ordinal: int
    location: Location

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Site:
        return cls(**{**data, "location": Location(**data["location"])})


@dataclass(frozen=True)
class Verdict:
    """Exactly one per candidate: fused, declined with a code, or suppressed."""

    candidate: int
    site: Site
    status: str
    pattern: str
    emitted: str
    code: str
    absorbed: tuple[Site, ...]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Verdict:
        return cls(**{**data, "site": Site.from_dict(data["site"]), "absorbed": tuple(Site.from_dict(s) for s in data["absorbed"])})


@dataclass(frozen=True)
class Related:
    label: str
    site: Site


@dataclass(frozen=True)
class Fix:
    """`kind`: none, model_edit, call or option; `verified` when re-matching an edited clone fused the sequence."""

    kind: str = "none"
    text: str = ""
    verified: bool = False


@dataclass(frozen=True)
class Benefit:
    """What fusing would save per call; -1 where it is not known. `ns` is measured, never estimated."""

    bytes: int = -1
    flops: int = -1
    ns: float = -1.0
    basis: str = ""


@dataclass(frozen=True)
class Diagnostic:
    """One finding: one cause, and all the sites that share it. `severity`: note, warning, error; `kind`: missed or analysis."""

    code: str
    name: str
    severity: str
    kind: str
    message: str
    needed: str
    found: str
    did: str
    help: str
    pattern: str
    matched: int
    steps: int
    fix: Fix
    sites: tuple[Site, ...]
    related: tuple[Related, ...]
    candidates: tuple[int, ...]
    fingerprint: str
    benefit: Benefit
    suppressed: bool
    candidate_sites: tuple[int, ...] = ()  # per candidate the index of its site; () in a report of an older version

    @property
    def module_path(self) -> str:
        return self.sites[0].module_path if self.sites else ""

    @property
    def location(self) -> Location:
        return self.sites[0].location if self.sites else Location()

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Diagnostic:
        return cls(**{
            **data,
            "fix": Fix(**data["fix"]),
            "sites": tuple(Site.from_dict(s) for s in data["sites"]),
            "related": tuple(Related(r["label"], Site.from_dict(r["site"])) for r in data["related"]),
            "candidates": tuple(data["candidates"]),
            "candidate_sites": tuple(data.get("candidate_sites", ())),
            "benefit": Benefit(**data["benefit"]),
        })


@dataclass(frozen=True)
class TunedSequence:
    """A sequence that runs another way than the cost model would let it, for inputs of one shape."""

    site: Site
    pattern: str
    shape: str
    way: str
    instead_of: str
    gain: float
    low: float

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TunedSequence:
        return cls(**{**data, "site": Site.from_dict(data["site"])})

    def __str__(self) -> str:
        name = self.site.module_path or self.pattern
        return f"{name} {self.shape}: {self.way} instead of {self.instead_of}, {self.gain:.2f}x (10th percentile {self.low:.2f}x)"


@dataclass(frozen=True)
class Tuning:
    """What `tune` measured, and on which machine. `ratio` is original / fused of the whole model, 0 when it was not measured."""

    machine: str
    threads: int
    rounds: int
    ratio: float
    low: float
    sequences: tuple[TunedSequence, ...]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Tuning:
        return cls(**{**data, "sequences": tuple(TunedSequence.from_dict(s) for s in data["sequences"])})

    def __str__(self) -> str:
        count = len(self.sequences)
        whole = f"; the model runs at {self.ratio:.2f}x of the original (10th percentile {self.low:.2f}x)" if self.ratio else ""
        return f"tuned for {self.machine}, {self.threads} thread{'s' * (self.threads != 1)}: {count} kernel{'s' * (count != 1)} chosen by measurement{whole}"


@dataclass(frozen=True)
class Unusable:
    """Stands for the report of a model that could not be linted: the sentence that says why."""

    model: str
    message: str


@dataclass(frozen=True)
class Report:
    """What was fused, what was not, and why. ``str(report)`` is the text of ``fusible lint``."""

    torch: str
    model: str
    origin: str
    methods: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    diagnostics: tuple[Diagnostic, ...]
    timings_ms: dict[str, float] = field(repr=False)
    version: str = ""
    tuning: Tuning | None = None

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Reads schema 1. Raises ValueError for any other text."""
        try:
            data = json.loads(text)
            if isinstance(data, list):
                raise ValueError(f"one fusible report in JSON was needed, found a list of {len(data)}: give it the report of one model")
            if data["schema"] > SCHEMA:
                raise ValueError(f"a report of schema {SCHEMA} or older was needed, found {data['schema']}: update fusible")
            return cls(
                torch=data["torch"], model=data["model"]["path"], origin=data["model"]["origin"], methods=tuple(data["model"]["methods"]),
                verdicts=tuple(Verdict.from_dict(v) for v in data["verdicts"]),
                diagnostics=tuple(Diagnostic.from_dict(d) for d in data["diagnostics"]),
                timings_ms=data["timings_ms"], version=data["tool"]["version"],
                tuning=Tuning.from_dict(data["tuning"]) if "tuning" in data else None)
        except (KeyError, TypeError, RecursionError, json.JSONDecodeError) as error:
            raise ValueError(f"a fusible report in JSON was needed, found text that is none: {error}") from error

    @property
    def fused(self) -> tuple[Verdict, ...]:
        return tuple(v for v in self.verdicts if v.status == "fused")

    @property
    def counts(self) -> dict[str, int]:
        """candidates, fused, declined, suppressed: the first is the sum of the others."""
        statuses = [v.status for v in self.verdicts]
        return {"candidates": len(statuses), **{status: statuses.count(status) for status in ("fused", "declined", "suppressed")}}

    @property
    def fused_share(self) -> float:
        """Fused candidates over fused and declined ones; 1 when there are neither."""
        counted = self.counts["fused"] + self.counts["declined"]
        return self.counts["fused"] / counted if counted else 1.0

    def to_dict(self) -> dict[str, Any]:
        """The object of docs/report-schema.md."""
        return {
            "schema": SCHEMA, "tool": {"name": "fusible", "version": self.version}, "torch": self.torch,
            "model": {"path": self.model, "origin": self.origin, "methods": list(self.methods)}, "counts": self.counts,
            "verdicts": [asdict(v) for v in self.verdicts], "diagnostics": [asdict(d) for d in self.diagnostics],
            "timings_ms": self.timings_ms, **({"tuning": asdict(self.tuning)} if self.tuning else {})}

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    def to_sarif(self) -> str:
        return self._rendered("sarif")

    def to_html(self) -> str:
        return self._rendered("html")

    def __str__(self) -> str:
        text = self._rendered("full")
        return "\n".join([text.rstrip("\n"), str(self.tuning), *(f"  {s}" for s in self.tuning.sequences)]) if self.tuning else text

    def _rendered(self, name: str) -> str:
        from fusible.render import render

        return render(name, [self])
