"use strict";
(() => {
  const words = new Intl.Collator("en", { numeric: true });

  function makeSortable(table) {
    const headings = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = heading.textContent;
      heading.replaceChildren(button);
      heading.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const descending = heading.getAttribute("aria-sort") === "ascending";
        headings.forEach((other) => other.setAttribute("aria-sort", "none"));
        heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
        sort(body, column, heading.classList.contains("number"), descending);
      });
    });
  }

  // Missing values come last in both directions; equal ones keep their order.
  function sort(body, column, numeric, descending) {
    const keyed = [...body.rows].map((row) => {
      const cell = row.cells[column];
      const text = numeric ? cell.dataset.order : cell.textContent;
      const missing = text === undefined || text === "";
      return { row, missing, key: numeric ? Number(text) : text };
    });
    const compare = numeric ? (a, b) => a - b : words.compare;
    keyed.sort((a, b) => {
      if (a.missing || b.missing) return a.missing - b.missing;
      return descending ? compare(b.key, a.key) : compare(a.key, b.key);
    });
    body.append(...keyed.map((entry) => entry.row));
  }

  function makeFilterable(block, table) {
    const tools = block.querySelector(".tools");
    const rows = [...table.tBodies[0].rows];
    if (rows.length < 2) return;
    const input = tools.querySelector("input");
    const shown = tools.querySelector(".shown");
    const texts = new Map(
      rows.map((row) => [row, [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase()]),
    );
    function filter() {
      const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const [row, text] of texts) {
        row.hidden = !wanted.every((word) => text.includes(word));
        count += !row.hidden;
      }
      shown.textContent = count === rows.length ? `${count} rows` : `${count} of ${rows.length} rows`;
    }
    input.addEventListener("input", filter);
    filter();
    tools.hidden = false;
  }

  for (const block of document.querySelectorAll("[data-table]")) {
    const table = block.querySelector("table");
    makeSortable(table);
    makeFilterable(block, table);
  }
})();
