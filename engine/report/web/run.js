"use strict";
// A run's page: lines over time, one colour per worker, plan changes as vertical lines, and the events.

const DATA = JSON.parse(document.getElementById("document").textContent);
const WORKER_COLOURS = ["attention", "head", "mlp", "embedding", "norm", "accent", "other", "block"];
const SEVERITY_COLOURS = { info: "dim", ok: "mlp", WARN: "embedding", ERROR: "head" };
const PARTS = [["compute_p50_s", "compute", "attention"], ["queue_p50_s", "waiting", "embedding"], ["wire_in_p50_s", "decoding", "mlp"], ["wire_out_p50_s", "encoding", "norm"]];
const workers = [...new Set([...DATA.node_lines, ...DATA.stage_lines].map((line) => line.worker_id))].sort();

function workerColour(id) {
  return colour(WORKER_COLOURS[workers.indexOf(id) % WORKER_COLOURS.length]);
}

function phase() {
  return document.getElementById("phase").value;
}

function times(line) {
  return line.time_ms.map((ms) => new Date(ms));
}

// A line of `values`, or nothing if none of them is known.
function line(name, source, values, style, unit) {
  if (!values.some((value) => value !== null)) return [];
  return [{
    type: "scatter", mode: values.filter((v) => v !== null).length > 2 ? "lines" : "lines+markers", name: plotText(name, 28), x: times(source), y: values, connectgaps: false, line: style,
    hovertemplate: "%{y:.4g} " + unit + "<extra>" + plotText(name, 28) + "</extra>",
  }];
}

function planMarks() {
  const shapes = DATA.plans.map((plan) => ({ type: "line", x0: new Date(plan.time_ms), x1: new Date(plan.time_ms), yref: "paper", y0: 0, y1: 1, line: { color: colour("dim"), width: 1, dash: "dash" } }));
  const annotations = DATA.plans.map((plan) => ({
    x: new Date(plan.time_ms), yref: "paper", y: 1, yanchor: "bottom", xanchor: "left", showarrow: false, text: "plan #" + plotText(plan.version, 12), hovertext: plotText(plan.strategy + ": " + plan.text, 160),
    font: { size: 11, color: colour("dim") },
  }));
  return { shapes, annotations };
}

// All charts over time have the same axis, so that they can be compared.
function overTime(id, traces, unit, changes, why) {
  const end = 1e3 * (DATA.start_wall_s + DATA.duration_s);
  const xaxis = { type: "date", range: [new Date(1e3 * DATA.start_wall_s), new Date(end + 70 * DATA.duration_s)] }; // room for the last mark
  draw(id, traces, { xaxis, yaxis: { title: { text: unit }, rangemode: "tozero" }, shapes: planMarks().shapes, ...changes }, traces.length ? "" : why);
}

function drawLatency() {
  const lines = DATA.stage_lines.filter((l) => l.phase === phase());
  const traces = lines.flatMap((l) => [
    ...line(l.worker_id, l, l.compute_p50_s.map(ms), { color: workerColour(l.worker_id), width: 2 }, "ms"),
    ...(phase() === "decode" ? line(l.worker_id + " as planned", l, l.predicted_s.map(ms), { color: workerColour(l.worker_id), width: 1, dash: "dot" }, "ms") : []),
  ]);
  overTime("latency", traces, "ms", { ...planMarks(), margin: { l: 60, r: 14, t: 44, b: 40 } }, "no step of this phase was recorded");
}

function ms(seconds) {
  return seconds === null ? null : 1e3 * seconds;
}

function drawParts() {
  const stages = DATA.stages.filter((stage) => stage.phase === phase());
  const traces = PARTS.map(([name, label, tone]) => ({
    type: "bar", orientation: "h", name: label, y: stages.map((s) => plotText(s.worker_id, 24)), x: stages.map((s) => ms(s[name])), marker: { color: colour(tone) }, hovertemplate: "%{x:.4g} ms " + label + "<extra></extra>",
  }));
  draw("parts", traces, { barmode: "stack", showlegend: true, xaxis: { title: { text: "ms" } }, yaxis: { autorange: "reversed", ticksuffix: " " } }, stages.length ? "" : "no step of this phase was recorded");
}

function drawNodes() {
  const nodes = (build) => DATA.node_lines.flatMap(build);
  const style = (l, dash) => ({ color: workerColour(l.worker_id), width: 2, dash });
  const percent = (value) => (value === null ? null : 100 * value);
  const mega = (value) => (value === null ? null : value / 1e6);
  overTime("memory", nodes((l) => [...line(l.worker_id, l, l.resident_bytes.map(mega), style(l, "solid"), "MB"), ...line(l.worker_id + " KV", l, l.kv_used_bytes.map(mega), style(l, "dot"), "MB")]), "MB", {}, "no worker sent its memory");
  overTime("use", nodes((l) => [...line(l.worker_id, l, l.cpu_utilisation.map(percent), style(l, "solid"), "%"), ...line(l.worker_id + " GPU", l, l.gpu_utilisation.map(percent), style(l, "dash"), "%")]), "%", {}, "no worker sent its load");
  overTime("queue", nodes((l) => line(l.worker_id, l, l.queue_depth, style(l, "solid"), "steps")), "steps", {}, "no worker sent its queue");
  overTime("heat", nodes((l) => [...line(l.worker_id, l, l.cpu_temperature_c, style(l, "solid"), "°C"), ...line(l.worker_id + " GPU", l, l.gpu_temperature_c, style(l, "dash"), "°C")]), "°C", {}, "no machine of this run has a sensor that can be read");
}

function drawAll() {
  drawLatency(); drawParts(); drawNodes();
  overTime("speed", line("tokens/s", DATA.cluster_lines, DATA.cluster_lines.tokens_per_s, { color: colour("accent"), width: 2 }, "tokens/s"), "tokens/s", {}, "no sample was recorded");
}

function clock(time_ms) {
  return new Date(time_ms).toISOString().slice(11, 23);
}

function showTiles() {
  const tiles = document.getElementById("tiles");
  const steps = Math.max(0, ...DATA.stages.filter((s) => s.phase === "decode").map((s) => s.num_steps));
  tile(tiles, duration(DATA.duration_s), "recorded");
  tile(tiles, String(steps), "decode steps");
  tile(tiles, String(DATA.plans.length), "plans");
  tile(tiles, String(DATA.num_events), "events");
  tile(tiles, String(DATA.events.filter((e) => e.severity === "ERROR").length), "of them errors");
  tile(tiles, String(DATA.num_lost + DATA.num_torn + DATA.num_damaged), "records lost or unreadable");
}

function start() {
  startTheme();
  document.getElementById("title").textContent = clip(DATA.run.cluster_id || "run", 80);
  const earlier = DATA.num_earlier_runs ? "; " + DATA.num_earlier_runs + " earlier runs in the same log are not shown" : "";
  document.getElementById("where").textContent = clip(DATA.run.model || "", 120) + ", from " + new Date(1e3 * DATA.start_wall_s).toISOString().replace("T", " ").slice(0, 19) + " UTC" + earlier;
  const select = document.getElementById("phase");
  const phases = new Set(DATA.stage_lines.map((l) => l.phase));
  for (const name of ["decode", ...phases].filter((p, i, all) => all.indexOf(p) === i)) { const option = el("option", clip(name, 20)); option.value = name; select.append(option); }
  for (const id of workers) {
    const entry = el("span"), box = el("i");
    box.style.background = "var(--" + WORKER_COLOURS[workers.indexOf(id) % WORKER_COLOURS.length] + ")";
    entry.append(box, clip(id, 32));
    document.getElementById("workers").append(entry);
  }
  showTiles();
  const rows = DATA.events.map((event, id) => ({ id, event, search: (event.severity + " " + event.kind + " " + event.subject + " " + event.text).toLowerCase() }));
  const column = (title, name, swatch) => ({ title, className: "text", cell: (row) => visible(row.event[name]), key: (row) => row.event[name], swatch });
  const table = new DataTable(document.getElementById("events"), [
    { title: "Time (UTC)", className: "text", cell: (row) => clock(row.event.time_ms), key: (row) => row.event.time_ms },
    column("Severity", "severity", (row) => colour(SEVERITY_COLOURS[row.event.severity] || "dim")), column("Kind", "kind"), column("Subject", "subject"),
    { title: "What happened", className: "text", cell: (row) => clip(row.event.text, 400), key: (row) => row.event.text },
  ], rows, (row) => table.choose(row.id));
  select.addEventListener("change", () => { drawLatency(); drawParts(); });
  onRedraw(() => { table.show(); drawAll(); });
  drawAll();
  document.documentElement.dataset.ready = "1"; // for whoever drives this page from outside
}

start();
