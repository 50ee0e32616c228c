"use strict";
// Treemaps: a layer's area is what it needs itself, without the layers inside it.

// `own` is a value per layer; layers of nothing are left out unless something lies inside them.
function treemap(id, own, describe) {
  const { parent, name, role } = DATA.layers;
  const total = own.map((value) => value || 0);
  for (let row = total.length - 1; row >= 0; row -= 1) if (parent[row] >= 0) total[parent[row]] += total[row]; // parents come first
  const whole = total.reduce((sum, value, row) => sum + (parent[row] < 0 ? value : 0), 0);
  if (!(whole > 0)) { draw(id, [], {}, "no layer was measured here"); return; }
  const rows = total.map((value, row) => row).filter((row) => total[row] > 0);
  const children = new Map();
  for (const row of rows) children.set(parent[row], (children.get(parent[row]) || 0) + 1);
  const many = rows.length > 100; // then the space goes to the areas, not to frames and titles
  draw(id, [{
    type: "treemap", branchvalues: "remainder", maxdepth: many ? 3 : 4, sort: true, tiling: { pad: many ? 1 : 2 },
    ids: ["all", ...rows.map(String)],
    labels: [plotText(DATA.model, 60), ...rows.map((row) => plotText(children.get(row) ? name[row] : lastPart(name[row])))],
    parents: ["", ...rows.map((row) => (parent[row] < 0 ? "all" : String(parent[row])))],
    values: [0, ...rows.map((row) => own[row] || 0)],
    marker: { ...(many ? { pad: { t: 1, l: 1, r: 1, b: 1 } } : {}), colors: [colour("card"), ...rows.map((row) => colour(role[row]))], line: { color: colour("card"), width: 1 } },
    text: [describe(whole), ...rows.map((row) => describe(total[row]) + ", " + number((100 * total[row]) / whole) + " %")],
    textinfo: "label+text", hovertext: ["", ...rows.map((row) => plotText(DATA.layers.path[row], 90) + "<br>" + describe(total[row]) + (children.get(row) ? "<br>itself " + describe(own[row] || 0) : ""))],
    hoverinfo: "text", pathbar: { visible: true },
  }], { margin: { l: 4, r: 4, t: 24, b: 4 }, uniformtext: { minsize: 9, mode: "hide" } });
}

function lastPart(name) {
  return name.length < 200 ? name.slice(name.lastIndexOf(".", name.length - 2) + 1) : name;
}

function ownBytes() {
  const { param_bytes: params, buffer_bytes: buffers, parent } = DATA.layers;
  const own = params.map((value, row) => value + buffers[row]);
  params.forEach((value, row) => { if (parent[row] >= 0) own[parent[row]] -= value + buffers[row]; });
  return own.map((value) => Math.max(0, value));
}
