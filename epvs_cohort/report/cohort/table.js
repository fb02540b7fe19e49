"use strict";
/* Every scan in a table of Tabulator: it draws only the rows in sight, so that thousands do not lag. */
EPVS.table = (() => {
  const { el, number } = EPVS;
  const WIDTHS = { scan: 190, status: 110, decision: 115, count: 115, why: 380, scanner: 160, acquisition_date: 130, age: 90, sex: 85 };
  /* On narrow screens the column of names takes its share of what is moved sideways. */
  const WIDE = 900;
  let grid = null;
  /* Settled once the table takes orders. */
  let built = null;
  let order = null;
  let said = null;
  let decided = [];

  const rows = () => EPVS.column.get("scan").values.map((_, row) => row);
  /* Values of a row that are shown now: a cohort may have a hundred columns more. */
  const record = (row) => {
    const found = { row };
    for (const column of EPVS.columns.all()) if (column.first) found[column.field] = column.get(row);
    return found;
  };
  const add = (column) => {
    for (const made of grid.getRows()) made.getData()[column.field] = column.get(made.getData().row);
    grid.addColumn(definition(column));
  };

  /* Unknown values come last whichever way the others are sorted. */
  const sorter = (column) => (one, other, _one, _other, _column, direction) => {
    if (one !== null && other !== null) return EPVS.columns.compare(column, one, other);
    if (one === other) return 0;
    return (one === null) === (direction === "asc") ? 1 : -1;
  };

  /* Cells are nodes: no text of the data is ever read as markup. */
  const formatter = (column) => (cell) => {
    const { row } = cell.getData();
    const value = cell.getValue();
    if (column.name === "scan") {
      cell.getElement().setAttribute("role", "rowheader");
      return el("a", { href: EPVS.link(row) }, el("bdi", {}, String(value)));
    }
    if (column.name === "status") return EPVS.status(row);
    if (column.kind === "number") return el("span", {}, column.name === "count" && value !== null ? value.toFixed(1) : number(value));
    return el("bdi", column.name === "why" ? { class: "clamped", title: value } : {}, value === null ? "–" : String(value));
  };

  const definition = (column) => ({
    field: column.field, title: EPVS.escaped(column.heading), sorter: sorter(column), formatter: formatter(column), cssClass: column.kind,
    hozAlign: column.kind === "number" ? "right" : "left", headerHozAlign: column.kind === "number" ? "right" : "left",
    headerSortStartingDir: column.kind === "number" ? "desc" : "asc", width: WIDTHS[column.name], minWidth: 70, maxInitialWidth: 260,
    variableHeight: true, frozen: column.name === "scan" && window.innerWidth > WIDE,
    titleFormatter: () => el("button", { type: "button", "data-column": column.name, title: column.about }, column.heading),
  });

  const tell = () => {
    order = grid.getRows("active").map((row) => row.getData().row);
    const all = rows().length;
    said.textContent = order.length === all ? `${all} scans` : `${order.length} of ${all} scans`;
  };
  const filter = () => { const passes = EPVS.filters.passing(); return ({ row }) => passes(row); };
  const decisionOf = (row) => EPVS.columns.named("decision").get(row);

  const build = () => new Promise((done) => {
    decided = rows().map(decisionOf);
    grid = new Tabulator(document.getElementById("grid"), {
      data: rows().map(record), index: "row", columns: EPVS.columns.all().filter((column) => column.first).map(definition),
      layout: "fitDataStretch", maxHeight: "72vh", nestedFieldSeparator: false, headerWordWrap: true,
      columnDefaults: { resizable: "header", headerSortTristate: false },
      initialSort: [{ column: EPVS.columns.named("scan").field, dir: "asc" }], initialFilter: filter(),
      placeholder: el("p", { class: "empty" }, "No scan passes these filters."), printAsHtml: true, printRowRange: "active", printStyled: false,
    });
    grid.on("tableBuilt", () => {
      /* What scrolls takes the focus, so it must be the group of rows itself: a grid has no other children. */
      grid.element.querySelector(".tabulator-tableholder").setAttribute("role", "rowgroup");
      grid.element.querySelector(".tabulator-table").setAttribute("role", "presentation");
      grid.element.removeAttribute("aria-owns");
      tell();
      for (const event of ["dataFiltered", "dataSorted"]) grid.on(event, () => queueMicrotask(tell));
      done();
    });
  });
  /* What is asked of the table before it is there is done when it is. */
  const once = (then) => built?.then(then);
  const refilter = () => once(() => grid.setFilter(filter()));

  /* Decisions change cells at once, but a scan that is looked at leaves no filter under the hands of who walks on. */
  const redecide = () => {
    const { field } = EPVS.columns.named("decision");
    if (!built) return;
    const changed = rows().filter((row) => decisionOf(row) !== decided[row]);
    for (const row of changed) decided[row] = decisionOf(row);
    if (changed.length) once(() => grid.updateData(changed.map((row) => ({ row, [field]: decided[row] }))));
  };

  const chooser = () => el("details", { class: "chooser" }, el("summary", {}, "Columns"),
    el("div", { class: "boxes" }, EPVS.columns.all().filter((column) => column.name !== "scan").map((column) => el("label", { title: column.about },
      el("input", { type: "checkbox", checked: column.first, onchange: (event) => {
        const { checked } = event.target;
        once(() => (checked ? add(column) : grid.deleteColumn(column.field)));
      } }), ` ${column.heading}`))));

  /* The form is there from the start, the table when it is first looked at. */
  const prepare = (place) => {
    said = el("p", { role: "status", class: "said" });
    place.append(EPVS.filters.form(refilter), chooser(), said, el("div", { id: "grid", "aria-label": "Table of scans" }));
    EPVS.decisions.watch(redecide);
  };
  const show = () => {
    if (!built) { built = build(); return; }
    refilter();
    once(() => grid.redraw());
  };

  const asNamed = () => {
    const column = EPVS.columns.named("scan");
    return rows().sort((a, b) => EPVS.columns.compare(column, column.get(a), column.get(b)));
  };
  return { prepare, show, order: () => (order ??= asNamed()) };
})();
