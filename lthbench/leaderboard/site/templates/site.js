// What the pages can do with scripts: sort, filter, keep that in the address, copy, compare.
// Without them every page stays a page of tables.
"use strict";

(() => {
  const address = new URLSearchParams(location.search);
  const narrow = matchMedia("(max-width: 34rem)");
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];

  const keep = () => {
    const text = address.toString();
    const target = `${location.pathname}${text ? `?${text}` : ""}${location.hash}`;
    try {
      history.replaceState(null, "", target);
    } catch {
      // Some browsers keep no address of files; the page itself works on.
    }
  };

  const remember = (name, value) => {
    if (value) address.set(name, value);
    else address.delete(name);
    keep();
  };

  // Sorting. A cell's data-v is what it is sorted by, where that is not its text; cells without
  // a figure stay at the end whichever way.

  const valueOf = (cell, numeric) => {
    const text = cell.dataset.v;
    if (!numeric) return (text ?? cell.textContent).trim().toLowerCase();
    return text === undefined || text === "" ? NaN : Number(text);
  };

  // The first rows of a long table are laid out at once, the others when the browser has time.

  const SOON = 100;
  const waiting = new WeakMap();

  const settle = (table, rows) => {
    clearTimeout(waiting.get(table));
    let left = 0;
    let shown = 0;
    rows.forEach((row, index) => {
      shown += row.hidden ? 0 : 1;
      row.classList.toggle("later", shown > SOON);
      if (shown <= SOON) left = index + 1;
    });
    let next = SOON;  // doubled each time: every layout is of all that is shown by then
    const more = () => {
      for (const row of rows.slice(left, left + next)) row.classList.remove("later");
      left += next;
      next *= 2;
      if (left < rows.length) waiting.set(table, setTimeout(more, 20));
    };
    if (left < rows.length) waiting.set(table, setTimeout(more, 50));
  };

  const sort = (table, header, direction) => {
    const numeric = header.dataset.kind === "n";
    const body = table.tBodies[0];
    const index = header.cellIndex;
    const sign = direction === "desc" ? -1 : 1;
    const compare = numeric
      ? (a, b) => sign * (a - b)
      : (a, b) => sign * (a < b ? -1 : a > b ? 1 : 0);
    const rows = [...body.rows].map((row) => {
      const value = valueOf(row.cells[index], numeric);
      return { row, value, none: numeric ? Number.isNaN(value) : value === "n/a" || value === "" };
    });
    rows.sort((a, b) => a.none - b.none || (a.none ? 0 : compare(a.value, b.value)));
    const sorted = document.createDocumentFragment();
    for (const { row } of rows) sorted.append(row);
    settle(table, rows.map(({ row }) => row));
    body.append(sorted);
    for (const other of table.tHead.rows[0].cells) {
      if (other.dataset.key) other.setAttribute("aria-sort", "none");
    }
    header.setAttribute("aria-sort", direction === "desc" ? "descending" : "ascending");
  };

  const sorted = (table) => `sort.${table.id}`;

  const sortable = (table) => {
    for (const header of all("th[data-key]", table.tHead)) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      header.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const first = header.dataset.first ?? (header.dataset.kind === "n" ? "desc" : "asc");
        const now = header.getAttribute("aria-sort");
        const other = first === "asc" ? "desc" : "asc";
        const direction = now === (first === "asc" ? "ascending" : "descending") ? other : first;
        sort(table, header, direction);
        remember(sorted(table), `${header.dataset.key}.${direction}`);
      });
    }
    const [key, direction] = (address.get(sorted(table)) ?? "").split(".");
    const header = all("th[data-key]", table.tHead).find((one) => one.dataset.key === key);
    if (header) sort(table, header, direction === "desc" ? "desc" : "asc");
  };

  // Filters hold for every table of a page whose rows carry what they ask for.

  const fits = (row, wanted) => {
    const { method, division, level, tasks } = row.dataset;
    if (wanted.q && method !== undefined && !method.includes(wanted.q)) return false;
    if (wanted.division && division !== undefined && division !== wanted.division) return false;
    if (wanted.level && level !== undefined && Number(level) < Number(wanted.level)) return false;
    return !(wanted.task && tasks !== undefined && !tasks.split(" ").includes(wanted.task));
  };

  const filterable = (form) => {
    const fields = all("input, select", form);
    const count = form.querySelector(".count");
    const bodies = all("table[data-sorts] > tbody");
    const headers = all("th[data-task]");
    const columns = () => headers.map((header) => ({
      task: header.dataset.task,
      cells: [header, ...all("tr", header.closest("table").tBodies[0]).map(
        (row) => row.cells[header.cellIndex])],
    }));
    let found = null;

    const apply = () => {
      const wanted = {};
      for (const field of fields) wanted[field.name] = field.value.trim().toLowerCase();
      let shown = 0;
      let total = 0;
      const main = form.closest("section")?.querySelector("tbody") ?? bodies[0];
      const counted = form.closest("section") ? [main] : bodies;
      for (const body of bodies) {
        for (const row of body.rows) {
          row.hidden = !fits(row, wanted);
          if (counted.includes(body)) {
            total += 1;
            shown += row.hidden ? 0 : 1;
          }
        }
      }
      found ??= headers.length ? columns() : [];
      for (const { task, cells } of found) {
        const away = Boolean(wanted.task) && task !== wanted.task;
        for (const cell of cells) if (cell.hidden !== away) cell.hidden = away;
      }
      for (const section of all("section[data-tasks]")) {
        const held = section.dataset.tasks.split(" ");
        section.hidden = Boolean(wanted.task) && !section.contains(form) && !held.includes(wanted.task);
      }
      count.textContent = `${shown} of ${total} ${count.dataset.noun}`;
    };

    for (const field of fields) {
      const value = address.get(field.name);
      const offered = field.tagName !== "SELECT" || all("option", field).some((o) => o.value === value);
      if (value && offered) field.value = value;
      field.addEventListener("input", () => {
        remember(field.name, field.value.trim());
        apply();
      });
    }
    form.addEventListener("submit", (event) => event.preventDefault());
    const fold = form.querySelector("details");
    const unfold = () => { fold.open = !narrow.matches || fields.some((field) => field.value); };
    narrow.addEventListener("change", unfold);
    unfold();
    form.hidden = false;
    apply();
  };

  // Copying.

  const copyable = (box) => {
    const text = box.querySelector("pre");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-label", `Copy: ${box.querySelector(".label").textContent}`);
    const told = document.createElement("span");
    told.setAttribute("role", "status");
    button.addEventListener("click", async () => {
      let done = true;
      try {
        await navigator.clipboard.writeText(text.textContent);
      } catch {
        getSelection().selectAllChildren(text);
        done = document.execCommand("copy");
      }
      button.textContent = done ? "Copied" : "Selected: press Ctrl C";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    box.append(button, told);
  };

  for (const table of all("table[data-sorts]")) sortable(table);
  for (const form of all("form.filters")) filterable(form);
  for (const box of all(".copy")) copyable(box);
  window.lthbench = { address, remember };
  document.documentElement.dataset.ready = "";
})();
