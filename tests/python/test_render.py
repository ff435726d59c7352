"""Each format against golden files of three reports, and against the rules of whoever reads it."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
import sarif_rules
import yaml
from golden_text import assert_golden

from fusible.render import FORMATS, Style, render
from fusible.report import Report
from fusible.rules import all_rules

NAMES = ("scripted", "frozen", "hostile")
TEXT = {name: (Path(__file__).parent / "reports" / f"{name}.json").read_text() for name in NAMES}
REPORTS = {name: Report.from_json(text) for name, text in TEXT.items()}


@pytest.fixture
def style(tmp_path):
    """A source root that holds the user's file of scripted.json, as it was when the model was exported."""
    source = [
        "import torch",
        "",
        "",
        "class Block(torch.nn.Module):",
        "",
        *[""] * 4,
        "    def forward(self, x):",
        "        y = self.conv(x)",
        "        y = self.bn(y)",
        "        return self.relu(y) + y",
    ]
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "block.py").write_text("\n".join(source) + "\n")
    return Style(source_root=tmp_path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", [f for f in FORMATS if f not in ("html", "sarif")])
def test_golden(form, name, style):
    assert_golden(f"{name}.{form}", render(form, [REPORTS[name]], style))


def test_golden_with_colour_and_what_is_fused(style):
    assert_golden(
        "scripted.full.colour", render("full", [REPORTS["scripted"]], Style(colour=True, show_fused=True, source_root=style.source_root))
    )


def test_golden_without_source(style):
    text = render("full", [REPORTS["scripted"]], Style(source=False, source_root=style.source_root))
    assert "self.relu" not in text and "models/block.py:12:13" in text


def test_source_on_disk_that_changed_since_is_not_shown(style):
    path = style.source_root / "models" / "block.py"
    path.write_text(path.read_text().replace("y = self.bn(y)", "y = self.other(y)").replace("y = self.conv(x)", "y = 1"))
    assert "self.other" not in render("full", [REPORTS["scripted"]], style)


@pytest.mark.parametrize("form", ["full", "concise"])
def test_texts_of_an_archive_cannot_steer_a_terminal_or_a_log(form):
    hostile = Report.from_json(TEXT["hostile"].replace("\\u0001", "\\u001b[2J"))
    text = render(form, [hostile])
    assert "\x1b" not in text and not any(line.startswith("::") for line in text.splitlines())


def test_json_is_the_report():
    assert Report.from_json(render("json", [REPORTS["scripted"]])) == REPORTS["scripted"]
    assert json.loads(REPORTS["scripted"].to_json()) == json.loads(TEXT["scripted"])
    assert len(json.loads(render("json", list(REPORTS.values())))) == 3


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema": 2}', "nonsense", '{"schema": 1, "torch": 3}'])
def test_text_that_is_no_report_is_one_clear_error(text):
    with pytest.raises(ValueError, match="was needed"):
        Report.from_json(text)


@pytest.mark.parametrize("name", NAMES)
def test_sarif(name, style):
    log = json.loads(render("sarif", [REPORTS[name]], style))
    assert log["version"] == "2.1.0" and log["$schema"].endswith("sarif-2.1.0.json")
    (run,) = log["runs"]
    declared = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert declared == list(all_rules()), "every code is declared, so that alerts can close"
    assert len(run["results"]) == len(REPORTS[name].diagnostics)
    for result, diagnostic in zip(run["results"], REPORTS[name].diagnostics, strict=True):
        assert declared[result["ruleIndex"]] == result["ruleId"] == diagnostic.code
        assert result["level"] in ("note", "warning", "error") and result["message"]["text"]
        assert result["partialFingerprints"]["fusible/v1"] == diagnostic.fingerprint
        assert ("suppressions" in result) == diagnostic.suppressed
        ids = [related["id"] for related in result["relatedLocations"]]
        assert len(ids) == len(set(ids)) == len(diagnostic.related) + max(len(diagnostic.sites) - 1, 0)
        for location in [*result["locations"], *result["relatedLocations"]]:
            uri, region = location["physicalLocation"]["artifactLocation"]["uri"], location["physicalLocation"]["region"]
            assert not uri.startswith("/") and region["startLine"] >= 1 and region.get("startColumn", 1) >= 1


@pytest.mark.parametrize("name", NAMES)
def test_sarif_is_as_its_schema_demands(name, style):
    assert sarif_rules.problems(json.loads(render("sarif", [REPORTS[name]], style))) == []


@pytest.mark.parametrize(
    "spoil, says",
    [
        (lambda log: log.pop("version"), "version was needed"),
        (lambda log: log["runs"][0]["results"][0].update(severity="high"), "'severity' is no property"),
        (lambda log: log["runs"][0]["results"][0].update(level="fatal"), "one of none, note"),
        (lambda log: log["runs"][0]["results"][0].update(ruleIndex=0), "is not the place of FUS201"),
        (lambda log: log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"].update(startLine=0), "integer >= 1"),
        (lambda log: log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"].update(uri="a b"), "URI reference"),
        (lambda log: log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"].update(uri="a:/b c"), "URI reference"),
        (lambda log: log["runs"][0]["results"][0]["partialFingerprints"].update(x=1), "object of strings"),
        (lambda log: log["runs"][0]["tool"]["driver"]["rules"][0].pop("id"), "id was needed"),
        (lambda log: log["runs"][0]["results"][0]["relatedLocations"].append(log["runs"][0]["results"][0]["relatedLocations"][0]), "all different"),
    ],
)
def test_a_log_that_breaks_the_schema_is_seen(spoil, says, style):
    log = json.loads(render("sarif", [REPORTS["scripted"]], style))
    spoil(log)
    assert any(says in problem for problem in sarif_rules.problems(log)), sarif_rules.problems(log)


def test_sarif_gives_models_elsewhere_as_absolute_uris(tmp_path):
    elsewhere = dataclasses.replace(REPORTS["scripted"], model=str(tmp_path / "a model.pt"))
    log = json.loads(render("sarif", [elsewhere], Style(source_root=tmp_path / "other")))
    assert sarif_rules.problems(log) == []
    uris = {result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in log["runs"][0]["results"]}
    assert f"file://{tmp_path}/a%20model.pt" in uris


def test_sarif_places_a_finding_in_the_user_file_below_the_source_root(style):
    first = json.loads(render("sarif", [REPORTS["scripted"]], style))["runs"][0]["results"][0]
    physical = first["locations"][0]["physicalLocation"]
    assert physical == {"artifactLocation": {"uri": "models/block.py"}, "region": {"startLine": 12, "startColumn": 13, "endColumn": 20}}
    assert first["locations"][0]["logicalLocations"] == [{"fullyQualifiedName": "stem.bn", "kind": "module"}]


def test_path_map_gives_files_of_another_machine_their_place(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "block.py").write_text("")
    moved = Report.from_json(TEXT["scripted"].replace('"models/block.py"', '"/build/src/models/block.py"'))
    uri = json.loads(render("sarif", [moved], Style(source_root=tmp_path, path_map={"/build/src": str(tmp_path)})))["runs"][0]["results"][
        0
    ]["locations"][0]
    assert uri["physicalLocation"]["artifactLocation"]["uri"] == "models/block.py"


def test_junit_has_a_case_per_candidate_and_counts_that_agree(style):
    for report in REPORTS.values():
        suite = ElementTree.fromstring(render("junit", [report], style)).find("testsuite")
        assert int(suite.get("tests")) == len(suite.findall("testcase")) == len(report.verdicts)
        assert int(suite.get("failures")) == len(suite.findall("testcase/failure"))
        assert int(suite.get("skipped")) == len(suite.findall("testcase/skipped"))


def test_github_commands_stay_on_their_line(style):
    lines = render("github", [REPORTS["hostile"]], style).splitlines()
    assert len(lines) == 1 and lines[0].startswith("::error ")
    assert "%0A%3A%3A" not in lines[0].split("::")[1] and lines[0].count("\n") == 0


def test_remarks_are_yaml_documents(style):
    class Remark(yaml.SafeLoader):
        pass

    for tag in ("!Missed", "!Passed", "!Analysis"):
        Remark.add_constructor(tag, lambda loader, node: (node.tag, loader.construct_mapping(node, deep=True)))
    for report in REPORTS.values():
        documents = list(yaml.load_all(render("remarks", [report], style), Remark))
        assert [tag for tag, _ in documents].count("!Passed") == len(report.fused)
        assert all(d["Pass"] == "fusible" and d["Args"] for _, d in documents)


def test_an_unknown_format_is_an_error():
    with pytest.raises(ValueError, match="sarif.*found 'yaml'"):
        render("yaml", [])


def embedded(page: str):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S).group(1))


def test_the_page_holds_the_reports_and_needs_nothing_else(style):
    page = render("html", list(REPORTS.values()), style)
    assert [model["report"] for model in embedded(page)["models"]] == [json.loads(text) for text in TEXT.values()]
    assert not re.search(
        r"(?:src|href)\s*=|url\(|@import|https?://(?!www\.w3\.org)",
        re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.S),
    )
    assert "<script>alert" not in page
    assert embedded(page)["models"][0]["sources"]["models/block.py"]["12"] == "        y = self.bn(y)"


def test_the_graph_of_a_module_shows_its_chain_and_what_blocks():
    from fusible.render.graph import graphs

    drawn = graphs(REPORTS["scripted"])
    assert set(drawn) == {"stem", "layers.0", "layers.1", "head"}
    assert re.findall(r'<g class="(\w+)">.*?<text[^>]*>([^<]*)', drawn["stem"]) == [
        ("fused", "conv2d"),
        ("fused", "batch_norm"),
        ("blocker", "add"),
    ]
    assert "declined" in drawn["head"] and "<path" not in drawn["head"]


def browser():
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def dom(page: Path, fragment: str = "", width: int = 1400) -> str:
    """The page after its script has run. Without a sandbox of its own, because tests may run as root."""
    command = [
        browser(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--virtual-time-budget=2000",
        f"--user-data-dir={page.parent / 'profile'}",
        f"--window-size={width},900",
        "--dump-dom",
        page.as_uri() + fragment,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split('<script type="application/json"')[
        0
    ]


@pytest.mark.skipif(browser() is None, reason="needs Debian's chromium")
def test_the_page_works_in_a_browser(style, tmp_path):
    page = tmp_path / "report.html"
    page.write_text(render("html", list(REPORTS.values()), style), encoding="utf-8")
    text = dom(page, "#finding=0&dark")
    assert 'class="dark"' in text and "second use: aten::add" in text and text.count('class="finding') == 3
    assert 'class="src hit"' in text and "<svg" in text and "layers" in text


DRIVE = """<script>{
const list = () => [...document.querySelectorAll("#findings .finding .tag")].map((tag) => tag.textContent).join(" ");
const press = (key, target = document.body) => target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const type = (text) => { search.value = text; search.dispatchEvent(new Event("input")); };
const chosen = () => (document.querySelector("#findings .chosen") || { dataset: {} }).dataset.index;
const search = document.getElementById("search"), button = document.querySelector("#codes button"), seen = {};
seen.all = list();
seen.code = button.textContent.split(" ")[0];
button.click(); seen.filtered = list(); seen.pressed = button.getAttribute("aria-pressed");
button.click(); seen.unfiltered = list();
press("/"); seen.focus = document.activeElement.id;
type("second use"); seen.found = list();
press("Enter", search); seen.opened = document.querySelector("#detail h2").textContent;
type("no such words"); seen.none = document.getElementById("findings").textContent;
press("Escape"); seen.cleared = list() + search.value;
press("n"); press("n"); seen.next = chosen();
press("p"); seen.previous = chosen();
document.querySelector("#tree [data-path='head']").click(); seen.module = document.querySelector("#detail h2").textContent;
const model = document.getElementById("model"); model.value = 1; model.dispatchEvent(new Event("change"));
seen.other = list();
document.body.dataset.seen = JSON.stringify(seen);
}</script></body>"""


@pytest.mark.skipif(browser() is None, reason="needs Debian's chromium")
def test_the_page_is_searched_filtered_and_read_from_the_keyboard(style, tmp_path):
    first, second = list(REPORTS.values())[:2]
    page = tmp_path / "report.html"
    page.write_text(render("html", list(REPORTS.values()), style).replace("</body>", DRIVE), encoding="utf-8")
    seen = json.loads(html.unescape(re.search(r'data-seen="([^"]*)"', dom(page)).group(1)))
    codes = [d.code for d in first.diagnostics]
    assert seen["all"].split() == seen["unfiltered"].split() == seen["cleared"].split() == codes and len(codes) == 3
    assert seen["filtered"].split() == [code for code in codes if code == seen["code"]] and seen["pressed"] == "true"
    assert seen["focus"] == "search" and seen["found"] == "FUS201" and seen["opened"].startswith("FUS201 second-use")
    assert seen["none"] == "No finding matches."
    assert (seen["next"], seen["previous"], seen["module"]) == ("1", "0", "head")
    assert seen["other"].split() == [d.code for d in second.diagnostics]


@pytest.mark.skipif(browser() is None, reason="needs Debian's chromium")
@pytest.mark.parametrize("width", [500, 900, 1600])
def test_nothing_is_cut_off_at_any_width(width, style, tmp_path):
    page = tmp_path / "report.html"
    probe = """<script>for (const id of ["tree", "findings", "detail", "counts", "search"]) {
        const box = document.getElementById(id).getBoundingClientRect();
        document.body.dataset[id] = box.width >= 150 && box.right <= innerWidth + 1 } </script></body>"""
    page.write_text(render("html", list(REPORTS.values()), style).replace("</body>", probe), encoding="utf-8")
    assert re.findall(r'data-(\w+)="(true|false)"', dom(page, "#finding=0", width)) == [
        (part, "true") for part in ("tree", "findings", "detail", "counts", "search")
    ]


@pytest.mark.skipif(browser() is None, reason="needs Debian's chromium")
def test_a_page_of_10000_verdicts_makes_few_rows(tmp_path):
    base = json.loads(TEXT["scripted"])
    verdict, finding = base["verdicts"][8], base["diagnostics"][1]
    verdicts = [
        {**verdict, "candidate": i, "site": {**verdict["site"], "module_path": f"stage{i // 500}.layer{i // 50 % 10}.block{i % 50}"}}
        for i in range(10000)
    ]
    diagnostics = [{**finding, "candidates": [i], "sites": [verdicts[i]["site"]], "fingerprint": f"{i:016x}"} for i in range(0, 10000, 7)]
    report = Report.from_json(json.dumps({**base, "verdicts": verdicts, "diagnostics": diagnostics}))
    page = tmp_path / "big.html"
    text = render("html", [report])
    page.write_text(text.replace("</body>", "<script>document.body.dataset.ready = performance.now()</script></body>"))
    ready = []
    for _ in range(3):  # the fastest: what else the machine does only adds to it
        text = dom(page)
        assert 50 < text.count('class="finding') < 1000 and text.count("<tr>") < 1000
        ready.append(float(re.search(r'data-ready="([\d.]+)"', text).group(1)))
    assert min(ready) < 1000, "milliseconds until the page can be read"
