"use strict";
// The profile's page: one operating point and one chosen layer at a time.

const DATA = JSON.parse(document.getElementById("document").textContent);
let chosen = null;
let table = null;

function point() {
  return DATA.points[Number(document.getElementById("point").value)];
}

// Samples are kept at the reference points only.
function sampledPoint() {
  return point().samples ? point() : DATA.points[DATA.reference[point().phase]];
}

function bottleneck() {
  return slowest(1)[0] ?? null;
}

function choose(row) {
  chosen = row;
  table.choose(row);
  drawSamples();
  if (!DATA.honesty.doubt) { drawRoofline(); drawPhases(); }
}

function showTiles() {
  const tiles = document.getElementById("tiles"), here = point(), row = bottleneck();
  tiles.replaceChildren();
  tile(tiles, duration(here.step_s), "one step at " + here.label);
  tile(tiles, number((here.batch * here.tokens) / here.step_s) + " /s", "tokens at this point");
  if (row !== null && !DATA.honesty.doubt) tile(tiles, clip(DATA.layers.name[row], 28), "slowest: " + number((100 * here.figures.self_s[row]) / here.step_s) + " % of the step");
  tile(tiles, scaled(DATA.num_parameters, ""), "parameters");
  tile(tiles, number(100 * DATA.honesty.coverage) + " %", "of the step is in the items", Math.abs(DATA.honesty.coverage - 1) > 0.03);
  tile(tiles, number(100 * DATA.honesty.overhead) + " %", "overhead of the hooks", DATA.honesty.overhead > 0.08);
  const noise = DATA.honesty.noise_cv;
  tile(tiles, noise === null ? "?" : number(100 * noise) + " %", "noise (worst variation of a step)", noise === null || noise > 0.1);
}

function tableRows() {
  const { name, path, role, class_name: kind } = DATA.layers;
  return name.map((_, row) => ({ id: row, search: (path[row] + " " + name[row] + " " + role[row] + " " + kind[row] + " " + point().bound[row]).toLowerCase() }));
}

function figure(title, name, show, hint) {
  const read = (row) => point().figures[name][row.id];
  return { title, hint, cell: (row) => show(read(row)), key: read };
}

function fixed(title, name, show, hint) {
  const read = (row) => DATA.layers[name][row.id];
  return { title, hint, cell: (row) => show(read(row)), key: read };
}

function columns() {
  const layers = DATA.layers;
  const bytes = (value) => scaled(value, "B");
  const share = (row) => DATA.honesty.doubt ? null : (100 * point().figures.self_s[row.id]) / point().step_s;
  return [
    { title: "#", cell: (row) => String(row.id), key: (row) => row.id },
    { title: "Layer", className: "text name", cell: (row) => clip(layers.name[row.id], 120), key: (row) => layers.name[row.id], full: (row) => clip(layers.path[row.id], 600) },
    { title: "Role", className: "text", cell: (row) => layers.role[row.id], key: (row) => layers.role[row.id], swatch: (row) => colour(layers.role[row.id]) },
    figure("Self", "self_s", duration, "median time without the layers inside it"),
    { title: "Share", hint: "self time of the step without hooks", cell: (row) => number(share(row)) + " %", key: share },
    figure("p50", "p50_s", duration, "median with all inside it"),
    figure("p95", "p95_s", duration),
    figure("Noise", "cv", (v) => number(v === null ? null : 100 * v) + " %", "coefficient of variation"),
    fixed("Parameters", "param_bytes", bytes, "with all inside it"),
    fixed("KV/token", "kv_bytes_per_token", bytes),
    figure("Activation", "activation_bytes", bytes, "its output tensors"),
    figure("Peak", "peak_memory_change_bytes", bytes, "highest allocation while it ran"),
    figure("Speed", "flops_per_s", (v) => scaled(v, "FLOP/s")),
    figure("Moves", "bytes_per_s", (v) => scaled(v, "B/s")),
    { title: "Bound", className: "text", cell: (row) => point().bound[row.id], key: (row) => point().bound[row.id] },
    { title: "Class", className: "text", cell: (row) => clip(layers.class_name[row.id], 40), key: (row) => layers.class_name[row.id] },
    { title: "Why", className: "text long", cell: (row) => visible(point().why[row.id]), key: (row) => point().why[row.id], full: (row) => visible(point().why[row.id]) },
    { title: "Shapes", className: "text long", cell: (row) => visible(sampledPoint().shapes[row.id]), key: (row) => sampledPoint().shapes[row.id], full: (row) => visible(sampledPoint().shapes[row.id]) },
  ];
}

// Shares and rates of figures that are noise would look like findings: only the samples and the table show what was measured.
function hideDoubtful() {
  for (const id of ["bars", "tree-time", "phases", "shares", "roofline", "items"]) document.getElementById(id).closest("section").hidden = true;
  document.getElementById("doubt").textContent = "Too noisy to use: " + visible(DATA.honesty.doubt) + ". Take the profile again when the machine is quiet.";
}

function drawAll() {
  if (DATA.honesty.doubt) { hideDoubtful(); treemap("tree-memory", ownBytes(), (value) => scaled(value, "B")); drawSamples(); return; }
  drawBars();
  treemap("tree-time", point().figures.self_s, duration);
  treemap("tree-memory", ownBytes(), (value) => scaled(value, "B"));
  drawPhases(); drawShares(); drawRoofline(); drawSamples(); drawItems();
}

function showPoint() {
  showTiles();
  chosen = chosen ?? bottleneck();
  if (table) table.setRows(tableRows());
  drawAll();
}

function start() {
  startTheme();
  document.getElementById("model").textContent = clip(DATA.model, 160);
  document.getElementById("where").textContent = visible(DATA.where);
  const select = document.getElementById("point");
  DATA.points.forEach((p, index) => { const option = el("option", p.label); option.value = index; select.append(option); });
  select.value = DATA.reference.decode ?? Object.values(DATA.reference)[0] ?? 0;
  for (const role of new Set(DATA.layers.role)) {
    const entry = el("span");
    const box = el("i");
    box.style.background = "var(--" + role + ")";
    entry.append(box, role);
    document.getElementById("roles").append(entry);
  }
  for (const [label, value] of DATA.about) document.getElementById("about").append(el("dt", visible(label)), el("dd", clip(value, 300)));
  if (!DATA.points.length) { document.getElementById("tiles").append(el("p", "This profile has no measured points.", "note")); return; }
  table = new DataTable(document.getElementById("layers"), columns(), tableRows(), (row) => choose(row.id));
  select.addEventListener("change", showPoint);
  document.getElementById("time").addEventListener("change", drawBars);
  onRedraw(() => { table.show(); drawAll(); });
  document.getElementById("tied").textContent = DATA.tied ? " The embedding and the head share one table: it stands on both." : "";
  showPoint();
  table.choose(chosen);
  document.documentElement.dataset.ready = "1"; // for whoever drives this page from outside
}

start();
