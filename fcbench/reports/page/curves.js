// Curves: one Vega-Lite figure per panel, and its numbers in a table below.

const POINT = ["panel", "metric", "codec", "knobs", "bpp", "bpfp", "bytes", "value", "low", "high", "seeds", "remark"];
const RATE_LABELS = { bpp: "Rate (bits per pixel)", bpfp: "Rate (bits per feature point)", bytes: "Rate (bytes per image)" };
const END_NAMES = { ceiling: "ceiling (uncoded)", floor: "floor (no bits)" };
const END_DASHES = { [END_NAMES.ceiling]: [6, 3], [END_NAMES.floor]: [1, 3] };

// Points of a panel and metric as records, in the order of codec and rate.
function pointsOf(set, panel, metric) {
  const records = set.points.map((p) => Object.fromEntries(POINT.map((name, i) => [name, p[i]])));
  return records
    .filter((r) => r.panel === panel && r.metric === metric)
    .map((r) => ({ ...r, name: set.codecs[r.codec].name, kind: set.codecs[r.codec].kind, knobs: set.knobs[r.knobs],
      interval: r.low === null ? "none" : `${r.low} to ${r.high}` }))
    .sort((a, b) => a.codec - b.codec || a.bpp - b.bpp);
}

function endsOf(set, panel, metric) {
  return set.ends.filter((e) => e[0] === panel && e[1] === metric)
    .map((e) => ({ end: END_NAMES[e[2]], value: e[3] })).filter((e) => e.value !== null);
}

function metricOf(set, panel, chosen) {
  const name = chosen || set.panels[panel].primary;
  return set.metrics.findIndex((m) => m.name === name);
}

// The Vega-Lite specification of a figure. `options`: rate, log, bands, ends, shown (names of codecs).
function figure(set, panel, metric, options, width) {
  const points = pointsOf(set, panel, metric).filter((p) => options.shown.has(p.name) && p[options.rate] !== null);
  const codecs = set.codecs.filter((c) => points.some((p) => p.name === c.name));
  const { label, up } = set.metrics[metric];
  const rates = points.map((p) => p[options.rate]);
  const room = options.log ? Math.max((Math.max(...rates) / Math.min(...rates)) ** 0.04, 1.05) : 1.04;
  const domain = [options.log ? Math.min(...rates) / room : 0, Math.max(...rates) * room];
  const by = (what) => ({ domain: codecs.map((c) => c.name), range: codecs.map((c) => c[what]) });
  const x = { field: options.rate, type: "quantitative", title: RATE_LABELS[options.rate],
    scale: { type: options.log ? "log" : "linear", domain, nice: false }, axis: { format: "~g", tickCount: 6, labelOverlap: true, labelSeparation: 6 } };
  const y = { field: "value", type: "quantitative", title: up ? label : `${label}, lower is better`, scale: { zero: false, padding: 8 } };
  const colour = { field: "name", type: "nominal", scale: by("colour"), legend: null };
  const tooltip = [["name", "codec"], ["knobs", "operating point"], ["bpp", "bits per pixel"], ["bpfp", "bits per feature point"],
    ["bytes", "bytes per image"], ["value", label], ["interval", "95 % interval"], ["seeds", "seeds"], ["remark", "remarks"]]
    .map(([field, title]) => ({ field, title, type: "nominal" }));
  const layer = [];
  for (const { end, value } of options.ends ? endsOf(set, panel, metric) : []) {
    layer.push({ data: { values: [{ end, value }] },
      mark: { type: "rule", color: "currentColor", opacity: 0.7, strokeDash: END_DASHES[end], aria: false },
      encoding: { y, tooltip: [{ field: "end", title: "end of the curves", type: "nominal" }, { field: "value", title: label, type: "nominal" }] } });
  }
  if (options.bands && points.some((p) => p.low !== null && p.kind === "coded")) {
    layer.push({ transform: [{ filter: "datum.low !== null && datum.kind === 'coded'" }], mark: { type: "area", clip: true, opacity: 0.14, aria: false },
      encoding: { x, y: { ...y, field: "low" }, y2: { field: "high" }, color: colour } });
  }
  layer.push({ mark: { type: "line", clip: true, strokeWidth: 1.6, aria: false },
    encoding: { x, y, color: colour, strokeDash: { field: "name", type: "nominal", scale: by("dash"), legend: null } } });
  layer.push({ mark: { type: "point", clip: true, filled: true, size: 46, opacity: 1 },
    params: options.zoom ? [{ name: "zoom", bind: "scales", select: { type: "interval", zoom: "wheel![event.ctrlKey]" } }] : [],
    encoding: { x, y, color: colour, tooltip, shape: { field: "name", type: "nominal", scale: by("marker"), legend: null } } });
  const plain = "currentColor";
  return { $schema: "https://vega.github.io/schema/vega-lite/v6.json", width, height: 235, autosize: { type: "fit", contains: "padding" },
    background: "transparent", padding: 4, data: { values: points }, layer,
    description: `${set.panels[panel].title}: ${label} over the rate, ${codecs.length} codecs. The numbers are in the table below.`,
    config: { axis: { labelColor: plain, titleColor: plain, domainColor: plain, tickColor: plain, gridColor: plain, gridOpacity: 0.13,
      titleFontWeight: "normal" }, view: { stroke: null }, font: "system-ui, DejaVu Sans, sans-serif" } };
}

function numbersTable(set, panel, metric, options) {
  const ends = endsOf(set, panel, metric).map((e) => [e.end, "", "", "", "", String(e.value), "", "", ""]);
  const rows = pointsOf(set, panel, metric).filter((p) => options.shown.has(p.name)).map((p) =>
    [p.name, p.knobs, p.bpp, p.bpfp, p.bytes, p.value, p.interval, p.seeds, p.remark].map((v) => (v === null ? "--" : String(v))));
  return { title: set.panels[panel].title, left: 2, notes: [], rows: [...rows, ...ends],
    header: ["codec", "operating point", "bpp", "bpfp", "bytes/image", set.metrics[metric].label, "95 % interval", "seeds", "remarks"] };
}

function panelElement(set, panel, options) {
  const metric = metricOf(set, panel, options.metric);
  const chart = element("div", { class: "chart" });
  const numbers = element("details", {}, element("summary", {}, "Numbers"));
  const box = element("section", { class: "panel", "aria-label": set.panels[panel].title },
    element("h3", {}, set.panels[panel].title), chart, numbers);
  const any = metric >= 0 && set.points.some((p) => p[0] === panel && p[1] === metric && options.shown.has(set.codecs[p[2]].name) && p[POINT.indexOf(options.rate)] !== null);
  if (!any) {
    chart.append(element("p", { class: "quiet" }, "Nothing to draw: no codec chosen here has this metric."));
    numbers.remove();
    return box;
  }
  chart.draw = () => vegaEmbed(chart, figure(set, panel, metric, options, chart.clientWidth),
    { renderer: "svg", actions: false, mode: "vega-lite", tooltip: { theme: "custom" } }).then(() => chart.setAttribute("data-drawn", ""));
  numbers.addEventListener("toggle", () => {
    if (numbers.open && !numbers.querySelector("table")) numbers.append(tableElement(numbersTable(set, panel, metric, options)));
  });
  return box;
}
