"use strict";
// One mark per layer: the bars in running order, the roofline, the samples of the chosen layer, the items.

const MAX_LABELS = 44;

function hover(row) {
  const figures = point().figures;
  const { path, role, class_name: kind } = DATA.layers;
  return "<b>" + plotText(path[row], 90) + "</b><br>" + plotText(kind[row]) + ", " + role[row] + "<br>self " + duration(figures.self_s[row]) +
    " (" + number((100 * figures.self_s[row]) / point().step_s) + " % of the step), all " + duration(figures.p50_s[row]) + ", p95 " + duration(figures.p95_s[row]);
}

// Labels for the rows between two positions, as many as there is room for.
function rowTicks(from, to) {
  const first = Math.max(0, Math.ceil(from)), last = Math.min(DATA.layers.name.length - 1, Math.floor(to));
  const step = Math.max(1, Math.ceil((last - first + 1) / MAX_LABELS));
  const tickvals = [];
  for (let row = first; row <= last; row += step) tickvals.push(row);
  if (last > first && tickvals.at(-1) !== last) tickvals.splice(-1, step > 1 ? 1 : 0, last); // the head is often the one to look at
  return { tickvals, ticktext: tickvals.map((row) => plotText(DATA.layers.name[row], 24)) };
}

function drawBars() {
  const figures = point().figures, metric = document.getElementById("time").value;
  const rows = figures.p50_s.map((_, row) => row).filter((row) => figures.p50_s[row] !== null);
  const num = DATA.layers.name.length;
  const target = draw("bars", [{
    type: "bar", x: rows, y: rows.map((row) => 1e3 * figures[metric][row]), marker: { color: rows.map((row) => colour(DATA.layers.role[row])), line: { width: 0 } },
    hovertext: rows.map(hover), hoverinfo: "text", customdata: rows,
  }], {
    bargap: num > 200 ? 0 : 0.15, yaxis: { title: { text: "ms" }, rangemode: "tozero" },
    xaxis: { range: [-0.7, num - 0.3], tickangle: -50, showgrid: false, ...rowTicks(0, num - 1) },
  }, rows.length ? "" : "no layer was measured at this point");
  document.getElementById("bars-note").textContent = metric === "self_s" ?
    "Own time of each layer: the bars add up to what the layers account for. Drag to zoom, double-click to return, click a bar to choose it." :
    "Time of each layer with everything inside it: layers lie inside one another, so these bars do not add up.";
  if (target && !target.dataset.wired) {
    target.dataset.wired = "1";
    target.on("plotly_click", (event) => choose(event.points[0].customdata));
    target.on("plotly_relayout", (event) => {
      const range = event["xaxis.autorange"] ? [0, num - 1] : [event["xaxis.range[0]"], event["xaxis.range[1]"]];
      if (range[0] === undefined) return;
      const ticks = rowTicks(range[0], range[1]);
      Plotly.relayout(target, { "xaxis.tickvals": ticks.tickvals, "xaxis.ticktext": ticks.ticktext });
    });
  }
}

function drawRoofline() {
  const { flops, moved_bytes: moved, flops_per_s: speed } = point().figures;
  const roof = DATA.roofline;
  const around = new Set(DATA.layers.parent.filter((row) => row >= 0));
  const rows = flops.map((_, row) => row).filter((row) => flops[row] > 0 && moved[row] > 0 && speed[row] > 0 && !around.has(row));
  const why = rows.length ? "" : "no layer of this point has counted operations";
  const at = rows.map((row) => flops[row] / moved[row]);
  const low = Math.min(...at, 0.1) / 2, high = Math.max(...at, (4 * roof.flops_per_s) / roof.bytes_per_s) * 2;
  const ridge = roof.flops_per_s / roof.bytes_per_s;
  draw("roofline", [
    { type: "scatter", mode: "lines", x: [low, ridge, high], y: [low * roof.bytes_per_s, roof.flops_per_s, roof.flops_per_s], line: { color: colour("dim"), width: 2 }, hoverinfo: "skip" },
    {
      type: "scatter", mode: "markers", x: at, y: rows.map((row) => speed[row]), customdata: rows, hoverinfo: "text",
      marker: { color: rows.map((row) => colour(DATA.layers.role[row])), size: rows.length > 200 ? 6 : 9, opacity: 0.8, line: { width: rows.map((row) => (row === chosen ? 3 : 0)), color: colour("ink") } },
      hovertext: rows.map((row, i) => hover(row) + "<br>" + number(at[i]) + " FLOP/byte, " + scaled(speed[row], "FLOP/s") + ", " + scaled(point().figures.bytes_per_s[row], "B/s") + "<br>" + plotText(point().why[row], 110)),
    },
  ], {
    xaxis: { type: "log", title: { text: "operations per byte moved" }, exponentformat: "power", dtick: 1 },
    yaxis: { type: "log", title: { text: "FLOP/s" }, exponentformat: "SI" },
  }, why);
  const left = flops.filter((value, row) => value !== null && !around.has(row)).length - rows.length;
  document.getElementById("roofline-note").textContent = "Innermost layers under what this machine reached: " + scaled(roof.flops_per_s, "FLOP/s") + " and " + scaled(roof.bytes_per_s, "B/s") +
    (left > 0 ? ". " + left + " layers without counted operations are not drawn." : ".");
}

function drawSamples() {
  const here = sampledPoint();
  const rows = [...new Set([chosen, ...slowest(4)])].filter((row) => row !== null && here.samples[row].length);
  const lines = rows.map((row, i) => ({
    type: "scatter", mode: here.samples[row].length > 2 ? "lines" : "lines+markers", name: plotText(DATA.layers.name[row], 28), y: here.samples[row].map((s) => 1e3 * s),
    line: { color: colour(DATA.layers.role[row]), width: row === chosen ? 3 : 1.5, dash: ["solid", "dash", "dot", "dashdot", "longdash"][i] },
    hovertemplate: "%{y:.4g} ms<extra>" + plotText(DATA.layers.name[row], 28) + "</extra>",
  }));
  if (here.step_samples.length) lines.push({
    type: "scatter", mode: here.step_samples.length > 2 ? "lines" : "lines+markers", name: "whole step, no hooks", y: here.step_samples.map((s) => 1e3 * s), line: { color: colour("ink"), width: 1 },
    hovertemplate: "%{y:.4g} ms<extra>whole step</extra>",
  });
  draw("samples", lines, {
    showlegend: true, xaxis: { title: { text: "sample" } }, yaxis: { title: { text: "ms" }, type: "log", exponentformat: "none" },
  }, lines.length ? "" : "this profile keeps no samples");
  document.getElementById("samples-note").textContent = "At " + here.label + ": the chosen layer and the slowest ones, with all inside them.";
}

function slowest(count) {
  const self = point().figures.self_s;
  return self.map((_, row) => row).filter((row) => self[row] !== null).sort((a, b) => self[b] - self[a]).slice(0, count);
}

function drawItems() {
  const times = point().items, names = DATA.items.map((item) => plotText(item.name, 24));
  const step = Math.max(1, Math.ceil(names.length / 20));
  const ticks = names.map((_, i) => i).filter((i) => i % step === 0);
  draw("items", [{
    type: "bar", x: names.map((_, i) => i), y: times.map((s) => (s === null ? null : 1e3 * s)), marker: { color: colour("accent") }, hoverinfo: "text",
    hovertext: names.map((name, i) => "<b>" + name + "</b><br>" + duration(times[i]) + "<br>" + scaled(DATA.items[i].weight_bytes, "B") + " of weights"),
  }], {
    yaxis: { title: { text: "ms" } }, xaxis: { tickvals: ticks, ticktext: ticks.map((i) => names[i]), tickangle: -50, showgrid: false },
  }, names.length ? "" : "this profile has no items");
}
