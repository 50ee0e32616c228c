"use strict";
// What every chart of ours has in common: colours from the page's style, no link to anywhere, light and dark.

// Plotly offers to upload a chart to its makers' server: a profile stays on this disk.
const CONFIG = {
  responsive: true, displaylogo: false, typesetMath: false, showSendToCloud: false, plotlyServerURL: "",
  modeBarButtonsToRemove: ["sendChartToCloud", "sendDataToCloud", "lasso2d", "select2d", "autoScale2d"],
};
const redraws = [];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

function layout(changes = {}) {
  const axis = { gridcolor: colour("line"), zerolinecolor: colour("line"), linecolor: colour("line"), automargin: true };
  const found = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("ink"), size: 12 },
    margin: { l: 60, r: 14, t: 26, b: 40 }, modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("dim"), activecolor: colour("accent") }, hoverlabel: { align: "left", font: { size: 12 } }, showlegend: false, dragmode: "zoom",
    legend: { orientation: "h", y: -0.26, font: { color: colour("dim") } }, ...changes,
  };
  for (const name of new Set(["xaxis", "yaxis", ...Object.keys(changes).filter((k) => /^[xy]axis/.test(k))])) {
    found[name] = { ...axis, ...(changes[name] || {}) };
  }
  return found;
}

// Draws into `id`, or says why there is nothing to draw.
function draw(id, traces, changes, why = "") {
  const target = document.getElementById(id);
  target.classList.toggle("empty", Boolean(why));
  if (why) {
    Plotly.purge(target);
    target.textContent = why;
    return null;
  }
  if (!target.classList.contains("js-plotly-plot")) target.textContent = "";
  Plotly.react(target, traces, layout(changes), CONFIG);
  return target;
}

function onRedraw(action) {
  redraws.push(action);
}

function redraw() {
  for (const action of redraws) action();
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  const button = document.getElementById("theme");
  button.textContent = name === "dark" ? "Light" : "Dark";
  button.setAttribute("aria-label", "switch to the " + (name === "dark" ? "light" : "dark") + " theme");
}

function startTheme() {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  setTheme(dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => { setTheme(dark.matches ? "dark" : "light"); redraw(); });
  document.getElementById("theme").addEventListener("click", () => {
    setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    redraw();
  });
}

function tile(parent, value, caption, doubtful = false) {
  const box = el("div", "", doubtful ? "tile doubtful" : "tile");
  box.append(el("b", value), el("span", caption));
  parent.append(box);
}
