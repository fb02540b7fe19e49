"use strict";
/* Every scan in a table: sorted, filtered and searched as a whole, shown a page at a time, so that thousands do not lag. */
EPVS.table = (() => {
  const { el, number } = EPVS;
  const FIRST = ["scan", "status", "decision", "count", "why"];
  const SHOWN_TOO = ["scanner", "acquisition_date", "age", "sex"];
  const collator = new Intl.Collator("en", { numeric: true });
  const state = { sort: "scan", down: false, page: 0, size: 50, query: "", status: "", decision: "", column: "", test: "least", value: "" };
  let columns = [];
  let shown = new Set();
  let haystacks = [];
  let order = [];
  let parts = {};

  const describe = () => {
    const virtual = [
      { name: "decision", title: "decision", about: "What people decided", kind: "text", get: (row) => EPVS.decisions.of(EPVS.key(row)).decision || null },
      { name: "why", title: "why failed or flagged", about: "Reasons in words", kind: "text", get: (row) => EPVS.trouble(row) || null },
    ];
    const plain = EPVS.data.columns.map((column) => ({ name: column.name, title: EPVS.words(column.name), about: column.about,
      unit: column.unit, kind: column.kind, get: (row) => column.values[row] }));
    const measures = EPVS.data.measures.map((measure) => ({ name: `measure ${measure.name}`, title: measure.title, about: measure.about,
      unit: measure.unit, kind: "number", get: (row) => measure.values[row] }));
    const found = [...virtual, ...plain, ...measures];
    const place = (column) => { const at = FIRST.indexOf(column.name); return at < 0 ? FIRST.length : at; };
    return found.map((column, at) => [column, at]).sort((a, b) => place(a[0]) - place(b[0]) || a[1] - b[1]).map(([column]) => column);
  };

  const heading = (column) => column.title + (column.unit && !["ratio", "share", "0 or 1"].includes(column.unit) ? ` (${column.unit})` : "");

  const passes = (row, test) => {
    if (state.query && !haystacks[row].includes(state.query)) return false;
    if (state.status && EPVS.value(row, "status") !== state.status) return false;
    if (state.decision) {
      const decided = EPVS.decisions.of(EPVS.key(row)).decision || "undecided";
      if (decided !== state.decision) return false;
    }
    return test(row);
  };

  /* The one free condition: a column against a value. */
  const condition = () => {
    const column = columns.find((each) => each.name === state.column);
    if (!column || (state.value === "" && state.test !== "unknown")) return () => true;
    if (state.test === "unknown") return (row) => column.get(row) === null;
    const bound = Number(state.value);
    const text = state.value.toLowerCase();
    if (state.test === "is") return (row) => String(column.get(row) ?? "").toLowerCase() === text;
    if (state.test === "contains") return (row) => String(column.get(row) ?? "").toLowerCase().includes(text);
    const compare = column.kind === "number" ? (value) => value - bound : (value) => collator.compare(String(value), state.value);
    const sign = state.test === "least" ? 1 : -1;
    return (row) => column.get(row) !== null && sign * compare(column.get(row)) >= 0;
  };

  const arrange = () => {
    const test = condition();
    const column = columns.find((each) => each.name === state.sort);
    order = haystacks.map((_, row) => row).filter((row) => passes(row, test));
    const values = new Map(order.map((row) => [row, column.get(row)]));
    const sign = state.down ? -1 : 1;
    order.sort((a, b) => {
      const [one, other] = [values.get(a), values.get(b)];
      if (one === null || other === null) return (one === null) - (other === null) || a - b;
      return sign * (column.kind === "number" ? one - other : collator.compare(one, other)) || a - b;
    });
  };

  const cell = (column, row) => {
    const value = column.get(row);
    if (column.name === "scan") return el("th", { scope: "row" }, el("a", { href: EPVS.link(row) }, el("bdi", {}, String(value))));
    if (column.name === "status") return el("td", { class: "text" }, EPVS.status(row));
    if (column.kind === "number") return el("td", {}, column.name === "count" && value !== null ? value.toFixed(1) : number(value));
    return el("td", { class: column.name === "why" ? "text long" : "text" }, value === null ? "–" : el("bdi", {}, String(value)));
  };

  const sortBy = (name) => {
    if (state.sort === name) state.down = !state.down;
    else Object.assign(state, { sort: name, down: columns.find((each) => each.name === name).kind === "number" });
    state.page = 0;
    draw();
    parts.head.querySelector(`[data-column="${CSS.escape(name)}"]`)?.focus();
  };

  const drawHead = (visible) => {
    parts.head.replaceChildren(el("tr", {}, visible.map((column) => {
      const sorted = state.sort === column.name;
      const mark = sorted ? (state.down ? " ▼" : " ▲") : "";
      return el("th", { scope: "col", "aria-sort": sorted ? (state.down ? "descending" : "ascending") : "none", class: column.kind },
        el("button", { type: "button", "data-column": column.name, title: column.about, onclick: () => sortBy(column.name) },
          heading(column), el("span", { "aria-hidden": "true" }, mark)));
    })));
  };

  const draw = () => {
    arrange();
    const visible = columns.filter((column) => shown.has(column.name));
    const pages = Math.max(Math.ceil(order.length / state.size), 1);
    state.page = Math.min(state.page, pages - 1);
    const rows = order.slice(state.page * state.size, (state.page + 1) * state.size);
    drawHead(visible);
    parts.body.replaceChildren(...rows.map((row) => el("tr", { class: EPVS.value(row, "status") }, visible.map((column) => cell(column, row)))));
    parts.said.textContent = order.length === haystacks.length ? `${order.length} scans` : `${order.length} of ${haystacks.length} scans`;
    parts.none.hidden = order.length > 0;
    parts.where.textContent = `page ${state.page + 1} of ${pages}`;
    parts.back.disabled = state.page === 0;
    parts.on.disabled = state.page >= pages - 1;
  };

  let timer = 0;
  const change = (changes, later = false) => {
    Object.assign(state, changes, { page: 0 });
    clearTimeout(timer);
    timer = setTimeout(draw, later ? 150 : 0);
  };

  const choice = (label, id, options, then) => el("p", { class: "field" }, el("label", { for: id }, label),
    el("select", { id, onchange: (event) => then(event.target.value) }, options.map(([value, words]) => el("option", { value }, words))));

  const filters = () => {
    const count = (status) => EPVS.column.get("status").values.filter((each) => each === status).length;
    const search = el("p", { class: "field grow" }, el("label", { for: "search" }, "Search"),
      el("input", { id: "search", type: "search", placeholder: "name, path, reason, covariate",
        oninput: (event) => change({ query: event.target.value.trim().toLowerCase() }, true) }));
    const condition = el("fieldset", { class: "condition" }, el("legend", {}, "Only where"),
      el("select", { id: "where-column", "aria-label": "Column", onchange: (event) => change({ column: event.target.value }) },
        el("option", { value: "" }, "any column"), columns.map((column) => el("option", { value: column.name }, heading(column)))),
      el("select", { id: "where-test", "aria-label": "Condition", onchange: (event) => change({ test: event.target.value }) },
        [["least", "is at least"], ["most", "is at most"], ["is", "is"], ["contains", "contains"], ["unknown", "is unknown"]]
          .map(([value, words]) => el("option", { value }, words))),
      el("input", { id: "where-value", "aria-label": "Value", size: "10", oninput: (event) => change({ value: event.target.value.trim() }, true) }));
    return el("form", { class: "filters", role: "search", onsubmit: (event) => event.preventDefault(), onreset: () => {
      change({ query: "", status: "", decision: "", column: "", test: "least", value: "" });
    } },
      search,
      choice("Status", "status", [["", "any"], ...["ok", "flagged", "failed"].map((each) => [each, `${each} (${count(each)})`])], (status) => change({ status })),
      choice("Decision", "decided", [["", "any"], ["undecided", "undecided"], ...EPVS.decisions.VERDICTS.map((each) => [each, each])], (decision) => change({ decision })),
      condition, el("button", { type: "reset" }, "Clear"));
  };

  const chooser = () => el("details", { class: "chooser" }, el("summary", {}, "Columns"),
    el("div", { class: "boxes" }, columns.filter((column) => column.name !== "scan").map((column) => el("label", { title: column.about },
      el("input", { type: "checkbox", checked: shown.has(column.name), onchange: (event) => {
        if (event.target.checked) shown.add(column.name); else shown.delete(column.name);
        draw();
      } }), ` ${heading(column)}`))));

  const show = (place) => {
    columns = describe();
    const filled = (name) => EPVS.known(EPVS.column.get(name)?.values ?? []).length > 0;
    shown = new Set([...FIRST, ...SHOWN_TOO.filter(filled)]);
    const text = columns.filter((column) => column.kind === "text" && column.name !== "decision");
    haystacks = EPVS.column.get("scan").values.map((_, row) => text.map((column) => column.get(row) ?? "").join("\n").toLowerCase());
    parts = { said: el("p", { role: "status", class: "said" }), head: el("thead"), body: el("tbody"), none: el("p", { class: "empty", hidden: true }, "No scan passes these filters."),
      where: el("span"), back: el("button", { type: "button", onclick: () => { state.page -= 1; draw(); } }, "Previous page"),
      on: el("button", { type: "button", onclick: () => { state.page += 1; draw(); } }, "Next page") };
    const size = el("select", { id: "page-size", onchange: (event) => change({ size: Number(event.target.value) }) },
      [50, 100, 500].map((each) => el("option", { value: each }, each)));
    place.append(filters(), chooser(), parts.said,
      el("div", { class: "wide scans", tabindex: "0", role: "region", "aria-label": "Table of scans" }, el("table", {},
        el("caption", { class: "hidden" }, "Scans; the heads of the columns sort"), parts.head, parts.body)), parts.none,
      el("p", { class: "pages" }, parts.back, " ", parts.where, " ", parts.on, " ", el("label", { for: "page-size" }, "rows a page "), size));
    EPVS.decisions.watch(draw);
  };

  /* Show the scans of one status, whatever was asked for before. */
  const only = (status) => {
    document.querySelector(".filters").reset();
    document.getElementById("status").value = status;
    change({ status });
  };

  return { show, only, order: () => order };
})();
