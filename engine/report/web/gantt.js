"use strict";
// A simulation's page: bars of computing per stage over virtual time, and what the run came to.

const DATA = JSON.parse(document.getElementById("document").textContent);
const COLOURS = ["attention", "mlp", "embedding", "norm", "head", "accent", "block", "other"];
const stages = DATA.stages.map((stage) => plotText(stage.name, 36));
const sessions = [...new Set(DATA.spans.session)];

function sessionColour(session) {
  return colour(COLOURS[sessions.indexOf(session) % COLOURS.length]);
}

function stageColour(index) {
  return colour(COLOURS[index % COLOURS.length]);
}

function drawGantt() {
  const spans = DATA.spans, length = spans.stage.map((_, k) => 1e3 * (spans.stop_s[k] - spans.start_s[k]));
  const bars = {
    type: "bar", orientation: "h", y: spans.stage.map((s) => stages[s]), base: spans.start_s.map((s) => 1e3 * s), x: length,
    marker: { color: spans.session.map(sessionColour), line: { color: colour("ink"), width: spans.is_prompt.map((p) => (p ? 1.5 : 0)) } },
    customdata: spans.label.map((label, k) => [plotText(label, 80), spans.is_prompt[k] ? "prompt" : "decode", length[k]]),
    hovertemplate: "%{customdata[1]} of %{customdata[0]}<br>from %{base:.3f} ms for %{customdata[2]:.3f} ms<extra></extra>",
  };
  draw("gantt", [bars], {
    barmode: "overlay", bargap: 0.25, xaxis: { title: { text: "virtual time, ms" } },
    yaxis: { categoryorder: "array", categoryarray: [...stages].reverse(), fixedrange: true },
  }, spans.stage.length ? "" : "nothing was computed");
}

function drawUse() {
  const percent = (key) => DATA.stages.map((stage) => 100 * stage[key]);
  draw("use", [
    { type: "bar", name: "computing", x: stages, y: percent("utilisation"), marker: { color: colour("mlp") } },
    { type: "bar", name: "bubbles", x: stages, y: percent("bubble_share"), marker: { color: colour("embedding") } },
  ], { showlegend: true, yaxis: { title: { text: "%" }, rangemode: "tozero" } });
}

function drawKv() {
  const lines = DATA.stages.map((stage, k) => ({
    type: "scatter", mode: "lines", name: stages[k], x: stage.kv_time_s, y: stage.kv_bytes.map((b) => b / 1e6), line: { color: stageColour(k), shape: "hv" },
  }));
  const any = DATA.stages.some((stage) => stage.kv_bytes.some((b) => b > 0));
  draw("kv", lines, { showlegend: true, xaxis: { title: { text: "virtual time, s" } }, yaxis: { title: { text: "MB" }, rangemode: "tozero" } }, any ? "" : "the items hold no keys and values");
}

function drawLinks() {
  draw("links", [{
    type: "bar", x: DATA.links.map((link) => plotText(link.name, 40)), y: DATA.links.map((link) => link.num_bytes / 1e6), marker: { color: colour("attention") },
  }], { yaxis: { title: { text: "MB" }, rangemode: "tozero" } });
}

document.getElementById("title").textContent = visible(DATA.title);
document.getElementById("shown").textContent = DATA.spans.stage.length < DATA.num_steps
  ? "the first " + DATA.spans.stage.length + " of " + DATA.num_steps + " steps are drawn" : "all " + DATA.num_steps + " steps are drawn";
for (const [value, caption] of DATA.tiles) tile(document.getElementById("tiles"), value, caption);
for (const action of [drawGantt, drawUse, drawKv, drawLinks]) onRedraw(action);
startTheme();
redraw();
document.documentElement.dataset.ready = "1";
