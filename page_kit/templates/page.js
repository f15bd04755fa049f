"use strict";
// Tables that sort, and values under the pointer. Text reaches the page as textContent only.
(() => {
  const make = (tag, text = "") => Object.assign(document.createElement(tag), { textContent: text });

  // --- tables: a column of numbers by their first number, another by its letters; dashes and blanks come last
  const NUMBER = /^[+-]?[\d,]*\.?\d+(?:e[+-]?\d+)?/i;
  const numberOf = (text) => (NUMBER.test(text) ? parseFloat(text.match(NUMBER)[0].replaceAll(",", "")) : null);

  function sort(head, place) {
    const body = head.closest("table").tBodies[0];
    const descending = head.getAttribute("aria-sort") === "ascending";
    const rows = [...body.rows].map((row) => ({ row, text: (row.cells[place]?.textContent ?? "").trim() }));
    const filled = rows.filter(({ text }) => text !== "" && !text.startsWith("–"));
    const numeric = filled.every(({ text }) => numberOf(text) !== null);
    const key = ({ text }) => (numeric ? numberOf(text) : text);
    const compare = (a, b) => (numeric ? key(a) - key(b) : key(a).localeCompare(key(b), undefined, { numeric: true }));
    filled.sort((a, b) => (descending ? -1 : 1) * compare(a, b));
    body.append(...filled.map(({ row }) => row), ...rows.filter((one) => !filled.includes(one)).map(({ row }) => row));
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  }

  for (const head of document.querySelectorAll("table.sorts thead th")) {
    if (!head.textContent.trim()) continue;
    const button = make("button", head.textContent);
    button.type = "button";
    button.addEventListener("click", () => sort(head, head.cellIndex));
    head.replaceChildren(button);
  }

  // --- charts: the step under the pointer (or under the arrow keys) in every chart of the same axis
  const SVG = "http://www.w3.org/2000/svg";
  const plots = [...document.querySelectorAll(".plot[data-plot]")].map((element) => ({ element }));

  function prepared(plot) {
    if (plot.data) return plot;
    plot.data = JSON.parse(plot.element.dataset.plot);
    plot.svg = plot.element.querySelector("svg");
    plot.readout = make("output");
    plot.readout.className = "readout";
    plot.element.append(plot.readout);
    plot.cross = document.createElementNS(SVG, "line");
    plot.cross.setAttribute("class", "cross");
    plot.steps = [...new Set(plot.data.lines.flatMap((line) => line.x))].sort((a, b) => a - b);
    return plot;
  }

  const nearest = (sorted, value) => sorted.reduce((best, one) => (Math.abs(one - value) < Math.abs(best - value) ? one : best), sorted[0]);

  // Another chart may have other steps: the next one counts where it is next to this one.
  function close(plot, x) {
    const found = nearest(plot.steps, x);
    const [from, to] = plot.data.xlim;
    return Math.abs(found - x) <= (to - from) / 100 ? found : null;
  }

  function show(plot, x) {
    const { data, cross, readout, svg } = prepared(plot);
    const [left, right, top, bottom] = data.box;
    const [from, to] = data.xlim;
    if (x === null || x < from || x > to) {
      cross.remove();
      readout.replaceChildren();
      return;
    }
    const place = left + ((x - from) / (to - from)) * (right - left);
    for (const [name, value] of [["x1", place], ["x2", place], ["y1", top], ["y2", bottom]]) cross.setAttribute(name, value);
    svg.append(cross);
    const named = data.lines.length > 1;
    const values = data.lines.map((line) => ({ line, at: line.x.indexOf(x) })).filter(({ at }) => at >= 0);
    readout.replaceChildren(make("span", `${data.xlabel} ${x}`), ...values.map(({ line, at }) => {
      const row = make("span");
      const key = make("i");
      key.className = `key ${line.colour}`;
      row.append(...(named ? [key, `${line.label} `] : []), String(line.y[at]));
      return row;
    }));
    readout.style.left = place > (left + right) / 2 ? "0" : "auto";
    readout.style.right = place > (left + right) / 2 ? "auto" : "0";
  }

  function showAll(source, x) {
    for (const plot of plots) {
      if (plot === source) show(plot, x);
      else if (x === null) { if (plot.data) show(plot, null); }
      else if (prepared(plot).data.xlabel === source.data.xlabel) show(plot, close(plot, x));
    }
  }

  for (const plot of plots) {
    const { element } = plot;
    const at = (event) => {
      const { data, svg, steps } = prepared(plot);
      const box = svg.getBoundingClientRect();
      const inside = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      const share = (inside - data.box[0]) / (data.box[1] - data.box[0]);
      plot.now = nearest(steps, data.xlim[0] + share * (data.xlim[1] - data.xlim[0]));
      showAll(plot, plot.now);
    };
    element.addEventListener("pointermove", at);
    element.addEventListener("pointerdown", at);
    element.addEventListener("pointerleave", () => showAll(plot, null));
    element.addEventListener("blur", () => showAll(plot, null));
    element.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!move) return;
      const { steps } = prepared(plot);
      const next = plot.now === undefined ? 0 : steps.indexOf(plot.now) + move;
      plot.now = steps[Math.max(0, Math.min(steps.length - 1, next))];
      showAll(plot, plot.now);
      event.preventDefault();
      event.stopPropagation();
    });
  }
})();
