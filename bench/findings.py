"""Writes docs/findings.md and docs/models.md: what the linter finds in torchvision and timm families, and how much of each model is fused.

    python bench/findings.py            needs torchvision and timm; some minutes

Weights are random (nothing is fetched), batch_norm statistics are measured (tests/python/zoo). Every model is exported as torchvision or timm
build it: scripted where it scripts, traced as well. What a fusion would save comes from the shapes of one call, and from measuring its sequence (as --sample does).
"""
from __future__ import annotations

import argparse
import gc
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "python"))

import torch  # noqa: E402

import fusible  # noqa: E402
from fusible.render.benefit import amount, short  # noqa: E402
from fusible.report import Diagnostic, Report  # noqa: E402
from zoo import torchvision_shim  # noqa: E402, F401
from zoo.images import images  # noqa: E402
from zoo.randomise import measure_statistics, randomise  # noqa: E402

TORCHVISION = ("alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 mnasnet1_0 mobilenet_v2 "
               "mobilenet_v3_small mobilenet_v3_large regnet_y_400mf regnet_x_400mf resnet18 resnet50 resnext50_32x4d shufflenet_v2_x1_0 squeezenet1_1 "
               "swin_t swin_v2_t vgg11_bn vit_b_16").split()
TIMM = ("cspresnet50 dla34 edgenext_xx_small efficientvit_b0 fbnetc_100 ghostnet_100 hardcorenas_a hgnet_tiny "
        "hrnet_w18_small lcnet_050 levit_128s mixer_s32_224 mobilevit_xxs mobileone_s0 pit_ti_224 poolformer_s12 repvgg_a0 res2net50_26w_4s "
        "resmlp_12_224 resnest14d rexnet_100 selecsls42b seresnet18 skresnet18 tinynet_e vovnet39a").split()
SIZES = {"inception_v3": 96, "swin_v2_t": 64, "vit_b_16": 224}
FIXED = ("mixer_", "resmlp_", "pit_", "levit_")  # built for 224
SIDE = 64


@dataclass(frozen=True)
class Subject:
    name: str
    form: str
    report: Report


def size_of(name: str) -> int:
    return SIZES.get(name, 224 if name.startswith(FIXED) else SIDE)


def build(family: str, name: str) -> torch.nn.Module:
    """In eval mode, with the same weights in every run."""
    seed = sum(map(ord, name))
    torch.manual_seed(seed)
    if family == "timm":
        import timm

        module = timm.create_model(name, pretrained=False)
    else:
        from torchvision import models

        module = models.get_model(name, weights=None, **({"init_weights": False} if name in ("googlenet", "inception_v3") else {}))
    module.eval()
    randomise(module, seed)
    measure_statistics(module, [(images(2, size_of(name), seed + 1),)])
    return module


def exports(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> Iterator[tuple[str, torch.jit.ScriptModule]]:
    for form, export in (("scripted", lambda: torch.jit.script(module)), ("traced", lambda: torch.jit.trace(module, inputs, strict=False, check_trace=False))):
        try:
            yield form, export()
        except Exception as error:  # noqa: BLE001: what torch.jit says about a model that it cannot take has any type
            print(f"  not {form}: {str(error).strip().splitlines()[0][:100]}", file=sys.stderr)


def subjects(names: list[tuple[str, str]]) -> Iterator[Subject]:
    for family, name in names:
        print(name, file=sys.stderr, flush=True)
        try:
            module = build(family, name)
        except Exception as error:  # noqa: BLE001
            print(f"  not built: {error}", file=sys.stderr)
            continue
        inputs = (images(1, size_of(name), 0),)
        with torch.no_grad():
            for form, exported in exports(module, inputs):
                yield Subject(f"{family} {name}", form, fusible.lint(exported, inputs, sample=True))
        gc.collect()


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def models_page(found: list[Subject]) -> str:
    lines = ["# Models and what is fused of them", "", "Written by `python bench/findings.py`. Candidates: convolutions, linears, matrix products and batch_norms that run in eval mode, and "
             "scripted branches that do not (FUS106, not counted in the share). Share: fused of those that could run.", "",
             "| model | export | candidates | fused | never runs | other | share | missed fusions would save per call |", "|---|---|---:|---:|---:|---:|---:|---:|"]
    for subject in found:
        verdicts = subject.report.verdicts
        dead = sum(v.code == "FUS106" for v in verdicts)
        fused = len(subject.report.fused)
        missed = [d for d in subject.report.diagnostics if d.kind == "missed"]
        known = sum(max(d.benefit.bytes, 0) for d in missed)
        share = fused / (len(verdicts) - dead) if len(verdicts) > dead else 1.0
        lines.append(f"| {subject.name} | {subject.form} | {len(verdicts)} | {fused} | {dead} | {len(verdicts) - dead - fused} | {share:.1%} | {amount(known) if missed else '–'} |")
    return "\n".join(lines) + "\n"


def findings_page(found: list[Subject]) -> str:
    # FUS206 explains what could not be otherwise: it has no benefit, and comes last.
    rows: list[tuple[Subject, Diagnostic]] = [(s, d) for s in found for d in s.report.diagnostics if d.kind == "missed" or d.code == "FUS206"]
    rows.sort(key=lambda row: (row[1].kind != "missed", -max(row[1].benefit.bytes, 0), row[0].name, row[0].form, row[1].fingerprint))
    lines = ["# Findings in real models", "", f"Written by `python bench/findings.py`: {len(rows)} findings in {len({s.name for s, _ in rows})} of "
             f"{len({s.name for s in found})} models, those first that would save most. What the fix gains: the time of one call with one image, "
             "measured with the sequence by itself where it can be run so (docs/linting.md), and its memory traffic and arithmetic, from shapes. Checked: a clone with the fix is fused.", "",
             "| model | export | finding | module | places | would save per call | help | checked |", "|---|---|---|---|---:|---|---|---|"]
    for subject, d in rows:
        lines.append(f"| {subject.name} | {subject.form} | {d.code} {_cell(d.message)} | {_cell(d.module_path)} | {len(d.sites)} | {(short(d) or 'unknown') if d.kind == 'missed' else '–'} | "
                     f"{_cell(d.help)} | {'yes' if d.fix.verified else ''} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these models, printed instead of written")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    names = [("torchvision", name) for name in TORCHVISION] + [("timm", name) for name in TIMM]
    found = list(subjects([(f, n) for f, n in names if not arguments.only or n in arguments.only]))
    unexplained = [f"{s.name} {s.form}: {v.site.op} {v.site.module_path}" for s in found for v in s.report.verdicts if v.status != "fused" and not v.code]
    if unexplained:
        raise SystemExit("candidates without a verdict:\n" + "\n".join(unexplained))
    if arguments.only:
        print(models_page(found), findings_page(found), sep="\n")
        return 0
    (ROOT / "docs" / "models.md").write_text(models_page(found))
    (ROOT / "docs" / "findings.md").write_text(findings_page(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
