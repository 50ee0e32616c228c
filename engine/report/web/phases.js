"use strict";
// Two phases against each other, and every point's share by role.

function drawPhases() {
  const [first, second] = ["prefill", "decode"].map((phase) => (phase in DATA.reference ? DATA.points[DATA.reference[phase]] : null));
  const note = document.getElementById("phases-note");
  if (!first || !second) {
    note.textContent = "";
    draw("phases", [], {}, "this model has one phase only");
    return;
  }
  const share = (p, row) => (100 * p.figures.self_s[row]) / p.step_s;
  const rows = DATA.layers.name.map((_, row) => row).filter((row) => first.figures.self_s[row] > 0 && second.figures.self_s[row] > 0);
  const shares = rows.flatMap((row) => [share(first, row), share(second, row)]);
  const ends = [Math.min(...shares) / 1.5, Math.max(...shares) * 1.5];
  note.textContent = "Share of the step in " + first.label + " (across) and in " + second.label + " (up); on the line both are equal.";
  const target = draw("phases", [
    { type: "scatter", mode: "lines", x: ends, y: ends, line: { color: colour("dim"), dash: "dot", width: 1 }, hoverinfo: "skip" },
    {
      type: "scatter", mode: "markers", x: rows.map((row) => share(first, row)), y: rows.map((row) => share(second, row)), customdata: rows, hoverinfo: "text",
      marker: { color: rows.map((row) => colour(DATA.layers.role[row])), size: rows.length > 200 ? 6 : 10, opacity: 0.8, line: { width: rows.map((row) => (row === chosen ? 3 : 0)), color: colour("ink") } },
      hovertext: rows.map((row) => "<b>" + plotText(DATA.layers.path[row], 90) + "</b><br>" + first.label + ": " + duration(first.figures.self_s[row]) + ", " + number(share(first, row)) + " %<br>" +
        second.label + ": " + duration(second.figures.self_s[row]) + ", " + number(share(second, row)) + " %"),
    },
  ], {
    xaxis: { type: "log", title: { text: "% of " + first.label }, exponentformat: "none" }, yaxis: { type: "log", title: { text: "% of " + second.label }, exponentformat: "none" },
  }, rows.length ? "" : "no layer was measured in both phases");
  if (target && !target.dataset.wired) {
    target.dataset.wired = "1";
    target.on("plotly_click", (event) => event.points[0].customdata !== undefined && choose(event.points[0].customdata));
  }
}

function drawShares() {
  const roles = [...new Set(DATA.layers.role)];
  const labels = DATA.points.map((p) => p.label);
  const traces = roles.map((role) => ({
    type: "bar", orientation: "h", name: role, y: labels, marker: { color: colour(role) },
    x: DATA.points.map((p) => (100 / p.step_s) * DATA.layers.role.reduce((sum, found, row) => sum + (found === role ? p.figures.self_s[row] || 0 : 0), 0)),
    hovertemplate: "%{y}: %{x:.1f} % " + role + "<extra></extra>",
  }));
  draw("shares", traces, { barmode: "stack", xaxis: { title: { text: "% of the step" }, rangemode: "tozero" }, yaxis: { autorange: "reversed", ticksuffix: " " }, margin: { l: 120, r: 14, t: 26, b: 40 } });
}
