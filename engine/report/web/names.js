"use strict";
// Names come from a model's files and from other machines: they are shown as text, whatever they hold.

// Control characters, line ends, bidirectional overrides, invisible ones and lone surrogates, as escapes that one can see.
function visible(name) {
  return String(name).replace(
    /[\u0000-\u001f\u007f-\u00a0\u00ad\u061c\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff9-\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g,
    (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
}

// The middle gives way: layer names differ at their end.
function clip(name, length) {
  const text = visible(String(name).length > 4 * length ? String(name).slice(0, 2 * length) + "…" + String(name).slice(-2 * length) : name);
  const half = Math.floor((length - 1) / 2);
  if (!text) return "(no name)";
  return text.length <= length ? text : text.slice(0, half) + "…" + text.slice(-(length - 1 - half));
}

// Plotly reads a few HTML tags and entities in every text it draws.
function plotText(name, length = 42) {
  return clip(name, length).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function el(tag, text = "", className = "") {
  const found = document.createElement(tag);
  found.textContent = text;
  if (className) found.className = className;
  return found;
}

function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(digits - 1) : String(Number(value.toPrecision(Math.max(digits, Math.ceil(Math.log10(size))))));
}

function scaled(value, unit, step = 1000) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const prefixes = ["", "k", "M", "G", "T", "P"];
  let place = 0;
  while (Math.abs(value) >= step && place < prefixes.length - 1) { value /= step; place += 1; }
  return number(value) + " " + prefixes[place] + unit;
}

function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  const size = Math.abs(seconds);
  if (size >= 1 || size === 0) return number(seconds) + " s";
  return size >= 1e-3 ? number(1e3 * seconds) + " ms" : number(1e6 * seconds) + " µs";
}
