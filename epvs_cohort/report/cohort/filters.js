"use strict";
/* Which scans the table shows: by words, status, decision and one condition on a column. */
EPVS.filters = (() => {
  const { el } = EPVS;
  const NONE = { query: "", status: "", decision: "", column: "", test: "least", value: "" };
  const TESTS = [["least", "is at least"], ["most", "is at most"], ["is", "is"], ["contains", "contains"], ["unknown", "is unknown"]];
  const state = { ...NONE };
  let haystacks = null;
  let changed = () => {};

  /* The one free condition: a column against a value. */
  const condition = () => {
    const column = EPVS.columns.named(state.column);
    if (!column || (state.value === "" && state.test !== "unknown")) return () => true;
    if (state.test === "unknown") return (row) => column.get(row) === null;
    const text = state.value.toLowerCase();
    if (state.test === "is") return (row) => String(column.get(row) ?? "").toLowerCase() === text;
    if (state.test === "contains") return (row) => String(column.get(row) ?? "").toLowerCase().includes(text);
    const bound = column.kind === "number" ? Number(state.value) : state.value;
    const sign = state.test === "least" ? 1 : -1;
    return (row) => column.get(row) !== null && sign * EPVS.columns.compare(column, column.get(row), bound) >= 0;
  };

  /* All words of each scan, for the search. */
  const words = () => {
    const text = EPVS.columns.all().filter((column) => column.kind === "text" && column.name !== "decision");
    return EPVS.column.get("scan").values.map((_, row) => text.map((column) => column.get(row) ?? "").join("\n").toLowerCase());
  };

  /* Whether a scan passes what is asked for now. */
  const passing = () => {
    const test = condition();
    if (state.query) haystacks ??= words();
    return (row) => {
      if (state.query && !haystacks[row].includes(state.query)) return false;
      if (state.status && EPVS.value(row, "status") !== state.status) return false;
      if (state.decision && (EPVS.decisions.of(EPVS.key(row)).decision || "undecided") !== state.decision) return false;
      return test(row);
    };
  };

  let timer = 0;
  const change = (changes, later = false) => {
    Object.assign(state, changes);
    clearTimeout(timer);
    timer = setTimeout(() => changed(), later ? 150 : 0);
  };

  const choice = (label, id, options, then) => el("p", { class: "field" }, el("label", { for: id }, label),
    el("select", { id, onchange: (event) => then(event.target.value) }, options.map(([value, words]) => el("option", { value }, words))));

  const conditionFields = () => el("fieldset", { class: "condition" }, el("legend", {}, "Only where"),
    el("select", { id: "where-column", "aria-label": "Column", onchange: (event) => change({ column: event.target.value }) },
      el("option", { value: "" }, "any column"), EPVS.columns.all().map((column) => el("option", { value: column.name }, column.heading))),
    el("select", { id: "where-test", "aria-label": "Condition", onchange: (event) => change({ test: event.target.value }) },
      TESTS.map(([value, words]) => el("option", { value }, words))),
    el("input", { id: "where-value", "aria-label": "Value", size: "10", oninput: (event) => change({ value: event.target.value.trim() }, true) }));

  const form = (then) => {
    changed = then;
    const count = (status) => EPVS.column.get("status").values.filter((each) => each === status).length;
    const search = el("p", { class: "field grow" }, el("label", { for: "search" }, "Search"),
      el("input", { id: "search", type: "search", placeholder: "name, path, reason, covariate",
        oninput: (event) => change({ query: event.target.value.trim().toLowerCase() }, true) }));
    return el("form", { class: "filters", role: "search", onsubmit: (event) => event.preventDefault(), onreset: () => change({ ...NONE }) },
      search,
      choice("Status", "status", [["", "any"], ...["ok", "flagged", "failed"].map((each) => [each, `${each} (${count(each)})`])], (status) => change({ status })),
      choice("Decision", "decided", [["", "any"], ["undecided", "undecided"], ...EPVS.decisions.VERDICTS.map((each) => [each, each])],
        (decision) => change({ decision })),
      conditionFields(), el("button", { type: "reset" }, "Clear"));
  };

  /* Ask for the scans of one status, whatever was asked for before. */
  const only = (status) => {
    document.querySelector(".filters").reset();
    document.getElementById("status").value = status;
    change({ ...NONE, status });
  };

  return { form, passing, only };
})();
