"use strict";
/* All scans side by side at the anterior commissure, sorted by any measure: what is odd is seen at once. */
EPVS.mosaic = (() => {
  const { el, number } = EPVS;
  const ON_PAGE = 400;
  const rules = new Set();
  const state = { by: "odd", down: true, page: 0 };
  let measures = [];
  let parts = null;

  /* The farthest that a scan lies from the others in any measure, in robust standard deviations, and in which. */
  let farthest = [];
  const oddness = () => {
    farthest = EPVS.column.get("scan").values.map(() => ({ by: 0, title: "" }));
    for (const measure of EPVS.data.measures) {
      const middle = EPVS.median(measure);
      const spread = 1.4826 * EPVS.quantile(EPVS.sorted(measure.values.map((value) => (value === null ? null : Math.abs(value - middle)))), 0.5);
      if (!(spread > 0)) continue;
      measure.values.forEach((value, row) => {
        const by = value === null ? 0 : Math.abs(value - middle) / spread;
        if (by > farthest[row].by) farthest[row] = { by, title: measure.title };
      });
    }
    return farthest.map(({ by }, row) => by + EPVS.data.flags[row].length * 1000);
  };
  /* Why a scan stands where it stands. */
  const odd = (row) => {
    if (EPVS.data.flags[row].length) return EPVS.data.flags[row][0];
    return farthest[row].by >= 5 ? `${farthest[row].title}: far` : "";
  };

  const describe = () => [
    { name: "odd", title: "flagged, then farthest from the others", values: oddness() },
    { name: "count", title: "count", values: EPVS.column.get("count").values, unit: "" },
    ...["acquisition_date", "scanner", "age"].filter((name) => EPVS.known(EPVS.column.get(name)?.values ?? []).length)
      .map((name) => ({ name, title: EPVS.words(name), values: EPVS.column.get(name).values, unit: "" })),
    ...EPVS.data.measures,
  ];

  const order = () => {
    const values = measures.find((measure) => measure.name === state.by).values;
    const rows = EPVS.data.placed.map((_, row) => row).filter((row) => EPVS.data.placed[row] !== null);
    const sign = state.down ? -1 : 1;
    return rows.sort((a, b) => {
      const [one, other] = [values[a], values[b]];
      if (one === null || other === null) return (one === null) - (other === null) || a - b;
      return sign * (one < other ? -1 : one > other ? 1 : 0) || a - b;
    });
  };

  /* One rule of the style sheet a sheet of pictures: hundreds of elements share it. */
  const load = async (sheet) => {
    if (rules.has(sheet)) return;
    rules.add(sheet);
    try {
      const picture = await EPVS.packs.numbered("sheet", sheet);
      document.styleSheets[0].insertRule(`.sheet-${sheet} { background-image: url("data:image/webp;base64,${picture}"); }`);
    } catch (error) {
      EPVS.warn(`Small pictures cannot be shown: ${error.message}. They lie in the folder beside the page.`);
    }
  };

  const tile = (row, measure) => {
    const { thumb, across, down } = EPVS.data.sheet;
    const place = EPVS.data.placed[row];
    const sheet = Math.floor(place / (across * down));
    const at = place % (across * down);
    const picture = el("span", { class: `thumb sheet-${sheet}`, "aria-hidden": "true" });
    picture.style.backgroundPosition = `-${(at % across) * thumb[0]}px -${Math.floor(at / across) * thumb[1]}px`;
    const status = EPVS.value(row, "status");
    const value = measure.name === "odd" ? odd(row) : EPVS.withUnit(measure.values[row], measure.unit);
    const words = status === "flagged" ? `▲ ${value}` : value;
    return el("li", {}, el("a", { href: EPVS.link(row), class: status, title: `${EPVS.key(row)}\n${EPVS.trouble(row)}` }, picture,
      el("span", { class: "name" }, el("bdi", {}, EPVS.key(row))), el("span", { class: "value" }, words || " ")));
  };

  const draw = () => {
    const rows = order();
    const pages = Math.max(Math.ceil(rows.length / ON_PAGE), 1);
    state.page = Math.min(state.page, pages - 1);
    const shown = rows.slice(state.page * ON_PAGE, (state.page + 1) * ON_PAGE);
    const measure = measures.find((each) => each.name === state.by);
    const perSheet = EPVS.data.sheet.across * EPVS.data.sheet.down;
    for (const sheet of new Set(shown.map((row) => Math.floor(EPVS.data.placed[row] / perSheet)))) load(sheet);
    parts.list.replaceChildren(...shown.map((row) => tile(row, measure)));
    const left = EPVS.data.placed.length - rows.length;
    parts.said.textContent = `${rows.length} scans${left ? `; ${left} have no picture (failed, or not in the store)` : ""}. Page ${state.page + 1} of ${pages}.`;
    parts.back.disabled = state.page === 0;
    parts.on.disabled = state.page >= pages - 1;
  };

  const show = (place) => {
    if (!EPVS.data.placed.some((at) => at !== null)) {
      place.append(el("p", { class: "empty" }, "The store holds no picture of any scan. The report looks for it beside the table; --store names another place."));
      return;
    }
    measures = describe();
    const change = (changes) => { Object.assign(state, changes); draw(); };
    parts = { list: el("ul", { class: "mosaic" }), said: el("span", { role: "status", class: "soft" }),
      back: el("button", { type: "button", onclick: () => change({ page: state.page - 1 }) }, "Previous page"),
      on: el("button", { type: "button", onclick: () => change({ page: state.page + 1 }) }, "Next page") };
    place.append(el("p", { class: "field" }, el("label", { for: "mosaic-by" }, "Sorted by"),
      el("select", { id: "mosaic-by", onchange: (event) => change({ by: event.target.value, page: 0 }) },
        measures.map((measure) => el("option", { value: measure.name }, measure.title))),
      el("select", { "aria-label": "Order", id: "mosaic-order", onchange: (event) => change({ down: event.target.value === "down", page: 0 }) },
        el("option", { value: "down" }, "highest first"), el("option", { value: "up" }, "lowest first")), parts.back, parts.on, parts.said), parts.list);
    draw();
  };
  return { show };
})();
