"use strict";
/* What the table can show of a scan: the table of counts, covariates, quality measures, what is wrong, what people decided. */
EPVS.columns = (() => {
  const FIRST = ["scan", "status", "decision", "count", "why"];
  const SHOWN_TOO = ["scanner", "acquisition_date", "age", "sex"];
  const collator = new Intl.Collator("en", { numeric: true });
  let columns = [];

  const describe = () => {
    const virtual = [
      { name: "decision", title: "decision", about: "What people decided", kind: "text", get: (row) => EPVS.decisions.of(EPVS.key(row)).decision || null },
      { name: "why", title: "why failed or flagged", about: "Reasons in words", kind: "text", get: (row) => EPVS.trouble(row) || null },
    ];
    const plain = EPVS.data.columns.map((column) => ({ name: column.name, title: EPVS.words(column.name), about: column.about,
      unit: column.unit, kind: column.kind, get: (row) => column.values[row] }));
    const measures = EPVS.data.measures.map((measure) => ({ name: `measure ${measure.name}`, title: measure.title, about: measure.about,
      unit: measure.unit, kind: "number", get: (row) => measure.values[row] }));
    const place = (column) => { const at = FIRST.indexOf(column.name); return at < 0 ? FIRST.length : at; };
    const filled = (name) => EPVS.known(EPVS.column.get(name)?.values ?? []).length > 0;
    /* Names of fields are ours: a covariate may be called anything. */
    columns = [...virtual, ...plain, ...measures].map((column, at) => [column, at])
      .sort((a, b) => place(a[0]) - place(b[0]) || a[1] - b[1])
      .map(([column], at) => ({ ...column, field: `c${at}`, heading: EPVS.titled(column), first: FIRST.includes(column.name) ||
        (SHOWN_TOO.includes(column.name) && filled(column.name)) }));
  };

  const all = () => {
    if (!columns.length) describe();
    return columns;
  };
  const named = (name) => all().find((column) => column.name === name);
  const compare = (column, one, other) => (column.kind === "number" ? one - other : collator.compare(one, other));
  return { all, named, compare };
})();
