"use strict";
// Shows one kernel in the drawing, the Roofline plot, the table and the details at once. Arrow keys go from one to the next.

for (const phase of document.querySelectorAll(".phase")) {
  const nodes = Array.from(phase.querySelectorAll(".graph .kernel"));
  const table = phase.querySelector("table");
  const details = phase.querySelector(".details");
  const titles = Array.from(table.tHead.rows[0].cells, (cell) => cell.textContent.trim());

  function element(name, text) {
    const made = document.createElement(name);
    made.textContent = text;
    return made;
  }

  function describe(row) {
    const list = document.createElement("dl");
    titles.forEach((title, column) => {
      const text = row.cells[column].textContent;
      if (text !== "–") list.append(element("dt", title), element("dd", text));
    });
    details.replaceChildren(list);
    details.hidden = false;
  }

  function choose(kernel) {
    for (const old of phase.querySelectorAll(".chosen")) old.classList.remove("chosen");
    for (const own of phase.querySelectorAll(`[data-kernel="${kernel}"]`)) own.classList.add("chosen");
    for (const edge of phase.querySelectorAll(`[data-source="${kernel}"], [data-target="${kernel}"]`)) {
      edge.classList.add("chosen");
    }
    for (const node of nodes) node.setAttribute("tabindex", node.dataset.kernel === kernel ? "0" : "-1");
    describe(table.querySelector(`tr[data-kernel="${kernel}"]`));
  }

  for (const part of phase.querySelectorAll("[data-kernel]")) {
    part.addEventListener("pointerenter", () => choose(part.dataset.kernel));
    part.addEventListener("focus", () => choose(part.dataset.kernel));
    if (!nodes.includes(part)) part.addEventListener("click", () => nodes[Number(part.dataset.kernel)].focus());
  }

  phase.querySelector(".graph").addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    const next = step && nodes[nodes.indexOf(document.activeElement) + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
  });

  nodes.forEach((node, index) => node.setAttribute("tabindex", index === 0 ? "0" : "-1"));
}
document.documentElement.dataset.graphs = String(document.querySelectorAll(".graph").length);
