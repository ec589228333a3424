// The page: its controls, and the figures and tables for what is chosen.

const SETS = JSON.parse(at("data").textContent).sets;
const MANY = 12; // number of codecs that are drawn at first
let set = SETS[0];

function option(value, text = value) {
  return element("option", { value }, text);
}

function box(name, checked, mark = "") {
  const input = element("input", { type: "checkbox" });
  input.checked = checked;
  input.value = name;
  return element("label", {}, input, mark, name);
}

// A codec's marker, as in the figures.
function swatch(codec) {
  const made = (name, attributes) => {
    const shape = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
    return shape;
  };
  const svg = made("svg", { width: 24, height: 12, viewBox: "-2.4 -1.2 4.8 2.4", "aria-hidden": "true" });
  svg.append(made("line", { x1: -2.4, x2: 2.4, y1: 0, y2: 0, stroke: codec.colour, "stroke-width": 0.3,
    "stroke-dasharray": codec.dash.map((d) => d / 4).join(" ") || "none" }), made("path", { d: codec.marker, fill: codec.colour }));
  return svg;
}

const checked = (id) => new Set([...at(id).querySelectorAll("input")].filter((i) => i.checked).map((i) => i.value));

function options() {
  return { rate: at("rate").value, log: at("log").checked, metric: at("metric").value, bands: at("bands").checked,
    ends: at("ends").checked, shown: checked("codecs"), zoom: matchMedia("(hover: hover)").matches };
}

// Draws figures one after another, until the page is redrawn.
async function fill(charts) {
  for (const chart of charts) {
    if (!chart.isConnected) return;
    await chart.draw?.();
    await new Promise((next) => setTimeout(next));
  }
}

function drawPanels() {
  const [chosen, tasks, encoders] = [options(), checked("tasks"), checked("encoders")];
  const shown = set.panels.map((_, i) => i).filter((i) => tasks.has(set.panels[i].task) && encoders.has(set.panels[i].encoder));
  const panels = shown.map((i) => panelElement(set, i, chosen));
  at("panels").replaceChildren(...panels);
  fill(panels.map((p) => p.querySelector(".chart")));
  at("status").textContent = `${shown.length} of ${set.panels.length} figures, ${chosen.shown.size} of ${set.codecs.length} codecs`;
}

function drawComparison() {
  const { anchors, tables } = set.compare;
  at("compare-tables").replaceChildren(...(tables[anchors.indexOf(at("anchor").value)] ?? []).map(tableElement));
}

const paragraphs = (lines) => lines.map((line) => element("p", { class: "quiet" }, line));

function definitions(record) {
  return element("dl", {}, ...Object.entries(record).flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, value)]));
}

function show(number) {
  set = SETS[number];
  at("cautions").replaceChildren(...set.cautions.map((c) => element("p", { class: c.level }, c.text)));
  at("metric").replaceChildren(option("", "each task's primary metric"), ...set.metrics.map((m) => option(m.name, m.label)));
  for (const [id, key] of [["tasks", "task"], ["encoders", "encoder"]]) {
    at(id).replaceChildren(...[...new Set(set.panels.map((p) => p[key]))].map((name) => box(name, true)));
  }
  at("codecs").replaceChildren(...set.codecs.map((c, i) => box(c.name, i < MANY, swatch(c))));
  at("anchor").replaceChildren(...set.compare.anchors.map((a) => option(a)));
  at("compare-after").textContent = set.compare.after.join(" ");
  at("more-tables").replaceChildren(...set.more.flatMap((part) => [element("h3", {}, part.title),
    ...part.tables.map(tableElement), ...paragraphs(part.after)]));
  at("runs").replaceChildren(...paragraphs(set.machines),
    ...(set.links ?? []).map(([name, href]) => element("p", { class: "quiet" }, element("a", { href }, name))),
    ...set.runs.map((run, i) => element("details", i ? {} : { open: "" }, element("summary", {}, `Run ${i + 1}: ${run.time ?? ""}`), definitions(run))));
  drawPanels();
  showSamples(set);
  drawComparison();
}

function start() {
  at("set").replaceChildren(...SETS.map((s, i) => option(String(i), s.name)));
  at("choose-set").hidden = SETS.length < 2;
  const named = SETS.findIndex((s) => s.name === decodeURIComponent(location.hash.slice(1)));
  at("set").value = String(Math.max(named, 0));
  at("set").addEventListener("change", () => show(Number(at("set").value)));
  at("options").addEventListener("change", drawPanels);
  for (const id of ["options", "sample-options"]) at(id).addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["all", "none"]) {
    at(id).addEventListener("click", () => {
      at("codecs").querySelectorAll("input").forEach((i) => { i.checked = id === "all"; });
      drawPanels();
    });
  }
  at("anchor").addEventListener("change", drawComparison);
  at("theme").addEventListener("change", () => {
    if (at("theme").value) document.documentElement.dataset.theme = at("theme").value;
    else delete document.documentElement.dataset.theme;
  });
  let width = innerWidth;
  addEventListener("resize", () => {
    if (Math.abs(innerWidth - width) > 20) { width = innerWidth; drawPanels(); }
  });
  show(Math.max(named, 0));
}

start();
