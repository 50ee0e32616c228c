"use strict";
// A table that sorts and searches. A column is {title, cell(row) -> text, key(row) -> what it sorts by, className}.

const MAX_ROWS = 3000;

class DataTable {
  constructor(root, columns, rows, onChoose) {
    this.columns = columns; this.rows = rows; this.onChoose = onChoose;
    this.sorted = { column: 0, up: true }; this.words = []; this.chosen = null;
    this.count = root.querySelector(".count");
    this.table = el("table");
    this.head = this.table.createTHead().insertRow();
    this.body = this.table.createTBody();
    root.querySelector(".scroll").append(this.table);
    columns.forEach((column, index) => this.addHeader(column, index));
    const search = root.querySelector("input");
    search.addEventListener("input", () => { this.words = search.value.toLowerCase().split(/\s+/).filter(Boolean); this.show(); });
    this.show();
  }

  addHeader(column, index) {
    const cell = el("th", "", column.className || "");
    cell.scope = "col";
    const button = el("button", column.title);
    if (column.hint) button.title = column.hint;
    button.addEventListener("click", () => this.sortBy(index));
    cell.append(button);
    this.head.append(cell);
  }

  sortBy(index) {
    const textual = (this.columns[index].className || "").includes("text");
    const first = index === 0 || textual; // figures begin with the largest
    this.sorted = { column: index, up: this.sorted.column === index ? !this.sorted.up : first };
    this.show();
  }

  setRows(rows) { this.rows = rows; this.show(); }

  choose(id) { this.chosen = id; this.show(); }

  show() {
    const { column, up } = this.sorted;
    const key = this.columns[column].key;
    const found = this.rows.filter((row) => this.words.every((word) => row.search.includes(word)));
    found.sort((a, b) => (up ? 1 : -1) * compare(key(a), key(b)) || a.id - b.id);
    this.body.replaceChildren(...found.slice(0, MAX_ROWS).map((row) => this.line(row)));
    [...this.head.cells].forEach((cell, index) => {
      cell.setAttribute("aria-sort", index === column ? (up ? "ascending" : "descending") : "none");
      cell.firstChild.textContent = this.columns[index].title + (index === column ? (up ? " ▲" : " ▼") : "");
    });
    const cut = found.length > MAX_ROWS ? ", the first " + MAX_ROWS + " shown: search for the others" : "";
    this.count.textContent = found.length + " of " + this.rows.length + cut;
  }

  line(row) {
    const line = el("tr");
    if (row.id === this.chosen) line.className = "chosen";
    for (const column of this.columns) {
      const cell = el("td", "", column.className || "");
      if (column.swatch) {
        const box = el("span", "", "swatch");
        box.style.background = column.swatch(row);
        cell.append(box);
      }
      cell.append(column.cell(row));
      if (column.full) cell.title = column.full(row);
      line.append(cell);
    }
    line.addEventListener("click", () => this.onChoose && this.onChoose(row));
    return line;
  }
}

function compare(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return 1;
  if (b === null || b === undefined) return -1;
  return typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
}
