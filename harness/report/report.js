"use strict";
// Draws the charts, switches their views and series, sorts the tables. Plotly is the only library.

const charts = Array.from(document.querySelectorAll(".chart"), (element) => ({
  element,
  spec: JSON.parse(element.nextElementSibling.textContent),
}));

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function axisColours() {
  const line = colour("--line");
  return { gridcolor: line, zerolinecolor: line, linecolor: line, tickcolor: line, showline: true };
}

function themed(layout) {
  const font = { color: colour("--ink"), size: 12, family: getComputedStyle(document.body).fontFamily };
  return {
    ...layout,
    font,
    xaxis: { ...axisColours(), ...layout.xaxis },
    yaxis: { ...axisColours(), zerolinecolor: colour("--quiet"), ...layout.yaxis },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    hoverlabel: { align: "left", bgcolor: colour("--panel"), bordercolor: colour("--line"), font },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--quiet"), activecolor: colour("--ink") },
    margin: { l: 12, r: 14, t: 12, b: 12 },
    showlegend: false,
    // A finger that meets a chart scrolls the page.
    dragmode: matchMedia("(pointer: coarse)").matches || innerWidth < 600 ? false : "zoom",
  };
}

// An interval that is not known has no whisker; Plotly would draw null as one of no length.
function whiskers(error, style = {}) {
  return error && { ...error, ...style, array: error.array.map((width) => width ?? undefined) };
}

// Whiskers of bars lie on the bars, so they have the colour of the text.
function outlined(points) {
  const trace = { ...points, error_x: whiskers(points.error_x, { color: colour("--ink") }), error_y: whiskers(points.error_y) };
  if (trace.type === "bar") return trace;
  const line = { color: colour("--paper"), width: 1 };
  const open = String(trace.marker.symbol).endsWith("-open");
  return { ...trace, marker: { ...trace.marker, line: open ? { width: 2 } : line } };
}

function draw({ element, spec }) {
  return Plotly.react(element, spec.data.map(outlined), themed(spec.layout), {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  });
}

function drawAll() {
  return Promise.all(charts.map(draw));
}

function press(buttons, pressed) {
  for (const button of buttons) button.setAttribute("aria-pressed", String(button === pressed));
}

function showView(section, view) {
  for (const chart of charts) {
    const chosen = section.contains(chart.element) ? chart.spec.views[view] : undefined;
    if (!chosen) continue;
    chart.spec.data.forEach((trace, index) => {
      trace.x = chosen.data[index];
      if (chosen.starts?.[index]) trace.base = chosen.starts[index];
      if (chosen.errors?.[index]) trace.error_x = { ...trace.error_x, array: chosen.errors[index] };
    });
    chart.spec.layout = { ...chart.spec.layout, xaxis: chosen.axis };
    draw(chart);
  }
}

function showSeries(group, series, visible) {
  for (const chart of charts) {
    if (!group.contains(chart.element)) continue;
    for (const trace of chart.spec.data) if (trace.meta === series) trace.visible = visible;
    draw(chart);
  }
}

function cellKey(row, column) {
  const cell = row.cells[column];
  return cell.dataset.key === undefined ? cell.textContent : Number(cell.dataset.key);
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

function sortBy(heading) {
  const table = heading.closest("table");
  const falling = heading.getAttribute("aria-sort") === "ascending";
  const keyed = Array.from(table.tBodies[0].rows, (row) => ({ row, key: cellKey(row, heading.cellIndex) }));
  const unknown = keyed.filter(({ key }) => key === "–");
  const known = keyed.filter(({ key }) => key !== "–");
  known.sort((a, b) => (falling ? compare(b.key, a.key) : compare(a.key, b.key)));
  table.tBodies[0].append(...[...known, ...unknown].map(({ row }) => row));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
}

for (const views of document.querySelectorAll(".views")) {
  const buttons = Array.from(views.querySelectorAll("button"));
  for (const button of buttons) {
    button.addEventListener("click", () => {
      press(buttons, button);
      showView(views.closest("section"), Number(button.dataset.view));
    });
  }
}

for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const visible = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(visible));
    showSeries(button.closest(".group"), button.dataset.series, visible);
  });
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sortBy(button.parentElement));
}

for (const query of ["(prefers-color-scheme: dark)", "print"]) {
  matchMedia(query).addEventListener("change", drawAll);
}
drawAll().then(() => { document.documentElement.dataset.charts = String(charts.length); });
