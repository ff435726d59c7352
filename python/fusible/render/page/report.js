"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const STATUSES = ["fused", "declined", "suppressed"];
const CHUNK = 150; // rows made at once; more come when the end of a list scrolls into view

let model, tree, chosenModule = null, chosenFinding = -1, codes = new Set(), words = "", shownFindings = [];

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "click") node.addEventListener("click", value);
    else if (value !== null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

// Appends make(item) for the first items, and the next ones whenever the list's end comes into view.
function lazily(parent, items, make) {
  let next = 0;
  const end = el("div");
  const more = () => {
    end.before(...items.slice(next, next + CHUNK).map((item, i) => make(item, next + i)));
    next += CHUNK;
    if (next >= items.length) { watcher.disconnect(); end.remove(); }
  };
  const watcher = new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && more(), { root: parent.closest("section"), rootMargin: "400px" });
  parent.append(end);
  more();
  if (end.isConnected) watcher.observe(end);
}

const shown = (file) => model.shown[file] || file;
const place = (site) => site && site.location.line ? `${shown(site.location.file)}:${site.location.line}` : "";
const short = (site) => place(site).split("/").slice(-2).join("/");
const under = (path, module) => module === "" || path === module || path.startsWith(module + ".");

function buildTree() {
  const root = { name: model.report.model.path.split("/").pop() || "model", path: "", children: new Map(), counts: { fused: 0, declined: 0, suppressed: 0 } };
  for (const verdict of model.report.verdicts) {
    let node = root, path = "";
    node.counts[verdict.status]++;
    for (const part of verdict.site.module_path ? verdict.site.module_path.split(".") : []) {
      path = path ? `${path}.${part}` : part;
      if (!node.children.has(part)) node.children.set(part, { name: part, path, children: new Map(), counts: { fused: 0, declined: 0, suppressed: 0 } });
      node = node.children.get(part);
      node.counts[verdict.status]++;
    }
  }
  return root;
}

function bar(counts, parent) {
  for (const status of STATUSES) if (counts[status]) parent.append(el("i", { class: status, style: `flex:${counts[status]}` }));
  return parent;
}

function treeRow(node, depth, open) {
  const { fused, declined } = node.counts;
  const box = el("div"), inner = el("div");
  const twist = el("span", { class: "twist" }, node.children.size ? (open ? "▾" : "▸") : "");
  let filled = false;
  const toggle = (wanted) => {
    inner.hidden = !wanted;
    twist.textContent = node.children.size ? (wanted ? "▾" : "▸") : "";
    if (wanted && !filled) { filled = true; lazily(inner, [...node.children.values()], (child) => treeRow(child, depth + 1, false)); }
  };
  const row = el("div", { class: "row" + (node.path === chosenModule ? " chosen" : ""), style: `padding-left:${8 + depth * 14}px`, "data-path": node.path, title: node.path,
    click: (event) => { if (event.target === twist) toggle(inner.hidden); else { choose(node.path); toggle(true); } } },
    twist, el("span", { class: "name" }, node.name), bar(node.counts, el("span", { class: "mini" })),
    el("span", { class: "share" }, fused + declined ? `${Math.round((100 * fused) / (fused + declined))}%` : "–"));
  box.append(row, inner);
  toggle(open);
  return box;
}

function matches(finding) {
  if (codes.size && !codes.has(finding.code)) return false;
  if (chosenModule && !finding.sites.some((site) => under(site.module_path, chosenModule))) return false;
  if (!words) return true;
  const text = [finding.code, finding.name, finding.message, finding.found, ...finding.sites.map((s) => `${s.module_path} ${s.op} ${place(s)}`)].join(" ").toLowerCase();
  return words.split(/\s+/).every((word) => text.includes(word));
}

function listFindings() {
  shownFindings = model.report.diagnostics.filter(matches);
  chosenFinding = -1;
  const list = $("findings");
  list.replaceChildren();
  if (!shownFindings.length) list.append(el("div", { class: "empty" }, model.report.diagnostics.length ? "No finding matches." : "No findings."));
  lazily(list, shownFindings, (finding, index) => el("div", { class: "finding" + (finding.suppressed ? " suppressed" : ""), "data-index": index, click: () => open(index) },
    el("div", {}, el("span", { class: `tag ${finding.severity}` }, finding.code), ` ${finding.message}`),
    el("div", { class: "place" }, [finding.sites[0] && (finding.sites[0].module_path || finding.sites[0].op), short(finding.sites[0]),
      finding.sites.length > 1 ? `${finding.sites.length} places` : "", finding.suppressed ? "suppressed" : ""].filter(Boolean).join("  ·  "))));
}

// The source lines of a file that `wanted` names, with what is known of each beside it.
function source(file, wanted, beside) {
  const lines = model.sources[shown(file)];
  if (!lines) return null;
  const status = {};
  for (const verdict of model.report.verdicts) {
    if (verdict.site.location.file === file) {
      const old = status[verdict.site.location.line];
      status[verdict.site.location.line] = old === "declined" ? old : verdict.status;
    }
  }
  const numbers = Object.keys(lines).map(Number).filter((n) => [...wanted].some((w) => Math.abs(w - n) <= 3));
  const pre = el("pre");
  let previous = null;
  for (const n of numbers) {
    if (previous !== null && n > previous + 1) pre.append(el("div", { class: "skip" }, "⋯"));
    pre.append(el("div", { class: "src" + (beside.has(n) ? " hit" : "") }, el("span", { class: `gutter ${status[n] || ""}` }), el("span", { class: "no" }, `${n}`),
      el("span", {}, lines[n] || " "), el("span", { class: "beside" }, (beside.get(n) || []).join("  ·  "))));
    previous = n;
  }
  return el("div", {}, el("div", { class: "file" }, shown(file)), pre);
}

function graphOf(module) {
  const svg = model.graphs[module];
  if (!svg) return [];
  const box = el("div", { class: "graph" });
  box.innerHTML = svg; // made by the writer of this page, labels escaped there
  return [el("h3", {}, "Chains"), el("div", { class: "file" }, module || "the root module"), box, el("div", { class: "legend" }, "green fused · amber declined · grey suppressed · dashed what blocks")];
}

const prose = (text) => el("div", {}, ...text.split("`").map((part, i) => (i % 2 ? el("code", {}, part) : part)));

function term(list, name, value) {
  if (value) list.append(el("dt", {}, name), el("dd", {}, value));
}

function open(index) {
  const finding = shownFindings[index];
  if (!finding) return;
  chosenFinding = index;
  const parts = [], first = finding.sites[0], list = el("dl");
  term(list, "needed", finding.needed); term(list, "found", finding.found); term(list, "did instead", finding.did); term(list, "help", finding.help);
  if (finding.steps) term(list, "matched", `${finding.matched} of ${finding.steps} steps of ${finding.pattern}`);
  term(list, "would save", model.saves[model.report.diagnostics.indexOf(finding)]);
  parts.push(el("h2", {}, el("span", { class: `tag ${finding.severity}` }, `${finding.code} ${finding.name}`), ` ${finding.message}`), list);
  if (first && first.location.line) {
    const beside = new Map([[first.location.line, [finding.related.length ? "this value" : finding.name]]]);
    for (const { label, site } of finding.related) {
      if (site.location.file === first.location.file && site.location.line) beside.set(site.location.line, [...(beside.get(site.location.line) || []), label]);
    }
    parts.push(el("h3", {}, "Source"), source(first.location.file, new Set(beside.keys()), beside) || el("div", { class: "file" }, place(first)));
  }
  const rule = data.rules[finding.code];
  if (rule) parts.push(el("h3", {}, "Why"), prose(rule.why), el("h3", {}, "When to accept"), prose(rule.accept));
  parts.push(...(first ? graphOf(first.module_path.split(".").slice(0, -1).join(".")) : []));
  if (finding.sites.length > 1) parts.push(el("h3", {}, `${finding.sites.length} places`), el("div", { class: "places" }, ...finding.sites.map((s) => el("div", {}, s.module_path || `${s.op} #${s.ordinal}`))));
  $("detail").replaceChildren(...parts.filter(Boolean));
  $("detail").scrollTop = 0;
  for (const node of $("findings").querySelectorAll(".finding")) node.classList.toggle("chosen", node.dataset.index === `${index}`);
  const row = $("findings").querySelector(`[data-index="${index}"]`);
  if (row) row.scrollIntoView({ block: "nearest" });
}

function showModule(module) {
  const verdicts = model.report.verdicts.filter((v) => under(v.site.module_path, module));
  const files = new Map();
  for (const v of verdicts.slice(0, 400)) {
    const { file, line } = v.site.location;
    if (!line) continue;
    if (!files.has(file)) files.set(file, new Map());
    const note = v.status === "declined" ? v.code : null;
    const notes = files.get(file).get(line) || new Set();
    if (note) notes.add(note);
    files.get(file).set(line, notes);
  }
  const body = el("tbody"), detail = $("detail");
  detail.replaceChildren(el("h2", {}, module || "All modules"), el("div", { class: "file" }, module ? `${verdicts.length} candidates` : model.summary));
  for (const [file, lines] of files) {
    const beside = new Map([...lines].filter(([, notes]) => notes.size).map(([line, notes]) => [line, [...notes]]));
    const part = source(file, new Set(lines.keys()), beside);
    if (part) detail.append(part);
  }
  detail.append(...graphOf(module), el("h3", {}, "Verdicts"),
    el("table", {}, el("thead", {}, el("tr", {}, ...["", "module", "pattern", "became", "place"].map((t) => el("th", {}, t)))), body));
  lazily(body, verdicts, (v) => el("tr", {}, el("td", {}, el("span", { class: `tag ${v.status}` }, v.code || v.status)), el("td", {}, v.site.module_path || `${v.site.op} #${v.site.ordinal}`),
    el("td", {}, v.pattern), el("td", {}, v.emitted), el("td", {}, place(v.site))));
  detail.scrollTop = 0;
}

function choose(module) {
  chosenModule = module || null;
  for (const row of $("tree").querySelectorAll(".row")) row.classList.toggle("chosen", row.dataset.path === module);
  listFindings();
  showModule(module);
}

function show(index) {
  model = data.models[index];
  codes = new Set();
  const counts = model.report.counts;
  $("bar").replaceChildren();
  bar(counts, $("bar"));
  $("bar").setAttribute("aria-label", model.summary);
  $("counts").replaceChildren(...STATUSES.flatMap((s) => [el("b", { class: s }, `${counts[s]}`), ` ${s}  `]), `of ${counts.candidates}`);
  const perCode = new Map();
  for (const d of model.report.diagnostics) perCode.set(d.code, (perCode.get(d.code) || 0) + Math.max(d.sites.length, 1));
  $("codes").replaceChildren(...[...perCode].sort((a, b) => b[1] - a[1]).map(([code, n]) => el("button", { "aria-pressed": "false", title: (data.rules[code] || {}).summary || "",
    click: (event) => {
      if (!codes.delete(code)) codes.add(code);
      event.currentTarget.setAttribute("aria-pressed", `${codes.has(code)}`);
      listFindings();
    } }, `${code} ${n}`)));
  tree = buildTree();
  $("tree").replaceChildren(treeRow(tree, 0, true));
  choose("");
}

$("model").append(...data.models.map((m, i) => el("option", { value: i }, m.report.model.path || "model")));
$("model").addEventListener("change", () => show(Number($("model").value)));
$("search").addEventListener("input", () => { words = $("search").value.trim().toLowerCase(); listFindings(); });
const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
document.documentElement.classList.toggle("dark", dark);
$("theme").addEventListener("click", () => document.documentElement.classList.toggle("dark"));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") { $("search").value = ""; words = ""; $("search").blur(); choose(""); return; }
  if (event.target === $("search")) { if (event.key === "Enter") { $("search").blur(); open(0); } return; }
  if (event.key === "/") { event.preventDefault(); $("search").focus(); }
  else if (event.key === "n") open(Math.min(chosenFinding + 1, shownFindings.length - 1));
  else if (event.key === "p") open(Math.max(chosenFinding - 1, 0));
});
const asked = new URLSearchParams(location.hash.slice(1)); // #dark&finding=2 opens the page as a screenshot or a link wants it
if (asked.has("dark")) document.documentElement.classList.add("dark");
show(0);
if (asked.has("finding")) open(Number(asked.get("finding")));
