"""The linter's decisions on finished reports: what is shown, what is accepted, what fails. Makes no report itself and needs no torch.

add_lint_arguments(parser)
exit_code = run_lint(reports, args)      # reports: an iterable of Report, or of Unusable for a model that could not be read
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TextIO

from fusible import baseline, config
from fusible.render import FORMATS, Style, render, summary
from fusible.render.benefit import amount
from fusible.render.style import RANK, active, for_stream
from fusible.report import Diagnostic, Report, Site, Unusable
from fusible.rules import all_rules
from fusible.suppress import apply_comments, split, with_diagnostics
from fusible.whole import unwritten, write_whole

CLEAN, FINDINGS, UNUSABLE = 0, 1, 2


def _codes(text: str) -> tuple[str, ...]:
    return tuple(code.strip() for code in text.split(",") if code.strip())


def _mapping(text: str) -> tuple[str, str]:
    there, equals, here = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"PREFIX=PREFIX was needed, found {text!r}")
    return there, here


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Where results go, and how the model's source is named and shown."""
    add = parser.add_argument
    add("-o", "--output", type=Path, metavar="FILE", help="write the results there instead of to stdout")
    add("--no-source", dest="source", action="store_false", default=None, help="print no source lines")
    add("--source-root", metavar="DIR", help="where the model's Python files lie (default: .)")
    add(
        "--path-map",
        type=_mapping,
        action="append",
        metavar="THERE=HERE",
        help="prefix of paths on the exporting machine, and its place here",
    )
    add("--color", choices=("auto", "always", "never"), default="auto")


def style_of(args: argparse.Namespace, stdout: TextIO, settings: config.Settings | None = None) -> Style:
    """How `args` and, where they are silent, `settings` want results written."""
    settings = settings or config.Settings()
    source_root = args.source_root if args.source_root is not None else settings.source_root
    dumb = args.color == "auto" and os.environ.get("TERM") == "dumb" and not os.environ.get("FORCE_COLOR")
    return replace(
        for_stream(stdout, "never" if args.output is not None or dumb else args.color),
        show_fused=settings.show_fused,
        source=settings.source if args.source is None else args.source,
        source_root=Path(source_root),
        path_map=dict(args.path_map) if args.path_map else settings.path_map,
    )


def add_lint_arguments(parser: argparse.ArgumentParser) -> None:
    """What `fusible lint` takes beside the models. Nothing has a default here: what is absent comes from the settings file."""
    add = parser.add_argument
    add_output_arguments(parser)
    add("--select", type=_codes, metavar="CODES", help="report only these codes or prefixes (FUS2,FUS301)")
    add("--ignore", type=_codes, metavar="CODES", help="leave out these codes or prefixes")
    add("--error", type=_codes, metavar="CODES", help="raise these codes or prefixes to errors")
    add("--fail-on", choices=config.LEVELS, help="the least severity that makes the exit code 1 (default: warning)")
    add("--exit-zero", action="store_true", default=None, help="exit 0 whatever is found")
    add("--output-format", choices=FORMATS, help="default: full, or FUSIBLE_OUTPUT_FORMAT")
    add("--baseline", metavar="FILE", help="only findings that are not in FILE count")
    add("--write-baseline", type=Path, metavar="FILE", help="write the findings to FILE and exit 0")
    add("--statistics", action="store_true", help="print counts per code instead of findings")
    add("--show-fused", action="store_true", default=None, help="list what is fused, too")
    add("--min-fused", type=float, metavar="SHARE", help="fail when less of a model is fused (0.95)")
    add("--max-missed-bytes", metavar="SIZE", help="fail when missed fusions of a model cost more memory traffic")
    add("--config", type=Path, metavar="FILE", help="use this settings file instead of the closest one")
    add("--isolated", action="store_true", help="use no settings file")
    add("--show-settings", action="store_true", help="print the settings and exit")


def settings_of(args: argparse.Namespace) -> config.Settings:
    """The settings file, overruled by what was given. Raises config.ConfigError."""
    if args.isolated:
        settings = config.Settings()
    elif args.config:
        settings = config.read(args.config) or config.Settings()
    else:
        settings = config.closest(Path.cwd())
    if environment := os.environ.get("FUSIBLE_OUTPUT_FORMAT"):
        settings = replace(settings, output_format=environment)
    given = {name: getattr(args, name, None) for name in config.KEYS.values()}
    if given["path_map"]:
        given["path_map"] = dict(given["path_map"])
    if given["max_missed_bytes"] is not None:
        given["max_missed_bytes"] = config.parse_size(given["max_missed_bytes"], "--max-missed-bytes")
    settings = replace(settings, **{name: value for name, value in given.items() if value is not None})
    if settings.output_format not in FORMATS:
        raise config.ConfigError(f"output-format: one of {', '.join(FORMATS)} was needed, found {settings.output_format!r}")
    if not 0 <= settings.min_fused <= 1:
        raise config.ConfigError(f"min-fused: a share between 0 and 1 was needed, found {settings.min_fused}")
    _check_codes(settings, args)
    return settings


def _check_codes(settings: config.Settings, args: argparse.Namespace) -> None:
    prefixes = {
        f"--{name}" if getattr(args, name) is not None else f"{settings.origin}: {name}": getattr(settings, name)
        for name in ("select", "ignore", "error")
    }
    prefixes |= {f"{settings.origin}: per-module-ignores.{glob}": codes for glob, codes in settings.per_module_ignores.items()}
    if any(prefixes.values()):
        known = {*all_rules(), *(code for file in getattr(args, "patterns", None) or () for code in _codes_of(Path(file)))}
        for place, given in prefixes.items():
            config.check_prefixes(given, known, place)


def _codes_of(pattern_file: Path) -> list[str]:
    """The codes that rules of a user's file decline with; of a file that cannot be read none: who reads its patterns says why."""
    try:
        return re.findall(r"\belse\s+(\w+)", pattern_file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError):
        return []


def _selected(diagnostic: Diagnostic, settings: config.Settings) -> bool:
    return (not settings.select or diagnostic.code.startswith(settings.select)) and not diagnostic.code.startswith(
        settings.ignore or ("-",)
    )


def apply_settings(report: Report, settings: config.Settings, style: Style) -> Report:
    """Codes that are not selected and modules that are ignored become suppressed, then comments; severities are raised."""

    def ignored_module(code: str, site: Site) -> bool:
        return any(fnmatchcase(site.module_path, glob) and code.startswith(codes) for glob, codes in settings.per_module_ignores.items())

    diagnostics = []
    for d in report.diagnostics:
        if settings.error and d.code.startswith(settings.error):
            d = replace(d, severity="error")
        diagnostics += (
            [replace(d, suppressed=True)] if not _selected(d, settings) else split(d, lambda site, code=d.code: ignored_module(code, site))
        )
    commented = apply_comments(with_diagnostics(report, diagnostics), style.resolve)
    return replace(
        commented, diagnostics=tuple(d if _selected(d, settings) else replace(d, suppressed=True) for d in commented.diagnostics)
    )


def ranked(report: Report) -> Report:
    """Errors first; within a severity, what would save most; then as the passes found them."""
    order = sorted(report.diagnostics, key=lambda d: (-RANK[d.severity], -max(d.benefit.ns, 0), -max(d.benefit.bytes, 0)))
    return replace(report, diagnostics=tuple(order))


def broken_budgets(report: Report, settings: config.Settings) -> list[str]:
    broken, model = [], report.model or "model"
    if report.fused_share < settings.min_fused:
        broken.append(f"{model}: a fused share of at least {settings.min_fused:.1%} was needed, found {report.fused_share:.1%}")
    missed = [d for d in active(report) if d.kind == "missed"]
    known = sum(d.benefit.bytes for d in missed if d.benefit.bytes >= 0)
    if settings.max_missed_bytes >= 0 and known > settings.max_missed_bytes:
        broken.append(
            f"{model}: missed fusions of at most {amount(settings.max_missed_bytes)} per call were needed, "
            f"found {amount(known)}"
        )
    return broken


def unknown_costs(report: Report, settings: config.Settings) -> str:
    """What the budget of missed bytes cannot see; "" when it sees everything or there is none."""
    unknown = sum(d.kind == "missed" and d.benefit.bytes < 0 for d in active(report))
    if settings.max_missed_bytes < 0 or not unknown:
        return ""
    return f"{report.model or 'model'}: the cost of {summary.plural(unknown, 'missed fusion')} is unknown and not in max-missed-bytes: give --input"


def statistics(reports: list[Report]) -> str:
    """One line per code: places, code, name; the most frequent first."""
    counts: dict[tuple[str, str], int] = {}
    for d in (d for r in reports for d in active(r)):
        counts[(d.code, d.name)] = counts.get((d.code, d.name), 0) + max(len(d.sites), 1)
    return "".join(f"{n:>6}  {code}  {name}\n" for (code, name), n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _accept_baseline(reports: list[Report], path: Path, log: TextIO) -> list[Report]:
    entries = baseline.read(path)
    accepted = baseline.accepted(entries)
    for entry in baseline.stale(entries, reports):
        print(
            f"note: {path}: {entry.code} in {entry.model} ({entry.module_path or 'root'}) is found no more; write the baseline again",
            file=log,
        )
    return [
        with_diagnostics(r, [d if d.suppressed or baseline.is_new(r, d, accepted) else replace(d, suppressed=True) for d in r.diagnostics])
        for r in reports
    ]


def write(text: str, output: Path | None, stdout: TextIO) -> None:
    """To the file `output`, whose folder is made, or to `stdout`. Raises OSError with one sentence."""
    if output is not None:
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"--output: a file in a folder was needed, found {output}, whose folder cannot be made: {error.strerror}") from error
        write_whole(output, text)
        return
    try:
        stdout.write(text)
        stdout.flush()
    except BrokenPipeError:
        pass  # the reader went away (`| head`): the gate decides all the same
    except OSError as error:
        raise unwritten("stdout", error) from error


def _fails(reports: list[Report], settings: config.Settings, broken: list[str], log: TextIO) -> bool:
    for text in broken:
        print(f"error: {text}", file=log)
    found = settings.fail_on != "never" and any(RANK[d.severity] >= RANK[settings.fail_on] for r in reports for d in active(r))
    return bool(broken) or found


def _several(args: argparse.Namespace) -> bool:
    """A folder or a glob may hold more than one model, today or tomorrow."""
    models = getattr(args, "models", None) or []
    return len(models) > 1 or any(not Path(model).is_file() for model in models)


def run_lint(
    reports: Iterable[Report | Unusable], args: argparse.Namespace, stdout: TextIO | None = None, log: TextIO | None = None
) -> int:
    """0 clean, 1 findings or a broken budget, 2 a model or settings that cannot be used. Settings are read before the first report is asked
    for; results go to `stdout` (or --output), everything else to `log`."""
    stdout, log = stdout or sys.stdout, log or sys.stderr
    try:
        settings = settings_of(args)
        if args.show_settings:
            stdout.write(config.show(settings))
            return CLEAN
        style = style_of(args, stdout, settings)
        unusable, done = [], []
        for report in reports:
            if isinstance(report, Unusable):
                print(f"error: {report.message}", file=log)
                unusable.append(report)
            else:
                done.append(ranked(apply_settings(report, settings, style)))
        if args.write_baseline:
            print(f"{args.write_baseline}: {summary.plural(baseline.write(args.write_baseline, done), 'finding')} accepted", file=log)
            return UNUSABLE if unusable else CLEAN
        broken = [text for r in done for text in broken_budgets(r, settings)]
        for text in filter(None, (unknown_costs(r, settings) for r in done)):
            print(f"note: {text}", file=log)
        if settings.baseline:
            done = _accept_baseline(done, Path(settings.baseline), log)
        text = statistics(done) if args.statistics else render(settings.output_format, done, style, unusable, _several(args))
        write(text, args.output, stdout)
    except (config.ConfigError, baseline.BaselineError) as error:
        print(f"error: {error}", file=log)
        return UNUSABLE
    if unusable:
        return UNUSABLE
    return FINDINGS if _fails(done, settings, broken, log) and not settings.exit_zero else CLEAN
