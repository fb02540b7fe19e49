"use strict";
/* One scan: its count among all, what is wrong, its pictures, and the decision about it. */
EPVS.scan = (() => {
  const { el, number } = EPVS;
  const PICTURES = [
    ["roi.webp", "Outline of the basal ganglia, and the box that the network sees", "Does each outline lie on its structure?"],
    ["registration.webp", "Template over the scan", "Do its edges follow brain, white matter and ventricles?"],
    ["lesions_ac.webp", "Slice of the anterior commissure and its neighbours", "Left as scanned, right with heat and numbered lesions."],
    ["lesions_most.webp", "Slices with most lesions", "Left what the network sees, right with heat and numbered lesions."],
  ];
  const REASONS = ["motion", "wrong region outlined", "registration failed", "wrong contrast", "field of view cut", "artefact", "other disease", "lesions missed", "too many lesions"];
  let row = null;
  /* Who steers by voice or a screen reader turns them off. */
  let singleKeys = true;

  const neighbours = () => {
    const listed = EPVS.table.order();
    const order = listed.includes(row) ? listed : EPVS.column.get("scan").values.map((_, at) => at);
    return { order, at: order.indexOf(row) };
  };
  const step = (by) => {
    const { order, at } = neighbours();
    const to = order[at + by];
    if (to !== undefined) window.location.hash = EPVS.link(to);
  };

  const walk = () => {
    const { order, at } = neighbours();
    const filtered = order.length < EPVS.column.get("scan").values.length;
    return el("p", { class: "walk" },
      el("button", { type: "button", id: "previous", disabled: at <= 0, onclick: () => step(-1) }, "← Previous"), " ",
      el("button", { type: "button", id: "next", disabled: at >= order.length - 1, onclick: () => step(1) }, "Next →"), " ",
      el("strong", { id: "decided-now", role: "status" }), " ",
      el("span", { class: "soft" }, `${at + 1} of ${order.length}${filtered ? " that pass the filters" : ""}, in the order of the table`), " ",
      el("a", { href: "#scans" }, "Back to the table"), " ",
      el("label", { class: "soft" }, el("input", { type: "checkbox", id: "single-keys", checked: singleKeys,
        onchange: (event) => { singleKeys = event.target.checked; } }), " single keys: ← → a d r o h l f"));
  };

  const said = () => {
    const status = EPVS.value(row, "status");
    const parts = [el("p", {}, EPVS.status(row), " ", el("span", { class: "soft" }, el("bdi", {}, EPVS.value(row, "path") ?? "")))];
    if (status === "failed") {
      parts.push(el("p", { class: "warning" }, el("strong", {}, `Not counted (${EPVS.words(EPVS.value(row, "error_kind") ?? "unknown")}): `), EPVS.trouble(row),
        EPVS.value(row, "hint") ? ` What to do: ${EPVS.value(row, "hint")}` : ""));
    }
    const flags = EPVS.data.flags[row];
    if (flags.length) parts.push(el("ul", { class: "flags" }, flags.map((flag) => el("li", {}, flag))));
    return parts;
  };

  const count = () => {
    const values = EPVS.column.get("count").values;
    const mine = values[row];
    if (mine === null) return [];
    const known = EPVS.sorted(values);
    const below = known.filter((value) => value < mine).length;
    const unit = EPVS.column.get("count").unit || "lesions";
    const located = EPVS.value(row, "n_lesions");
    return [el("h3", {}, `Count: ${mine.toFixed(1)} ${unit}`),
      el("p", {}, `${number(located)} located (left ${number(EPVS.value(row, "n_left"))}, right ${number(EPVS.value(row, "n_right"))}; ` +
        `${number(EPVS.value(row, "n_lesions_ac"))} in the slice of the anterior commissure). ` +
        `${below} of ${known.length} counted scans have a lower count.`),
      el("figure", {}, EPVS.charts.histogram(values, { title: "Count among all scans", name: `count (${unit} per scan)`, mark: mine, height: 190 }))];
  };

  const decision = () => {
    const scan = EPVS.key(row);
    const entry = EPVS.decisions.of(scan);
    const set = (changes) => EPVS.decisions.set(scan, changes);
    const field = (label, name, attributes = {}) => el("p", { class: "field" }, el("label", { for: `decide-${name}` }, label),
      el("input", { id: `decide-${name}`, value: entry[name] ?? "", autocomplete: "off", ...attributes, oninput: (event) => {
        if (name === "initials") EPVS.decisions.initials(event.target.value);
        set({ [name]: event.target.value });
      } }));
    const choose = (verdict) => {
      const box = document.getElementById("decide-initials");
      if (!box.value) box.value = EPVS.decisions.initials();
      set({ decision: verdict, initials: box.value });
    };
    const radios = [...EPVS.decisions.VERDICTS, ""].map((verdict) => el("label", { class: "verdict" },
      el("input", { type: "radio", name: "verdict", value: verdict, checked: (entry.decision || "") === verdict, onchange: () => choose(verdict) }),
      ` ${verdict || "undecided"}`));
    const other = EPVS.decisions.differs(scan) ? el("p", { class: "warning" }, `The file of decisions that the report was made with says: ` +
      `${EPVS.decisions.ofFile(scan).decision}. What was decided in this browser goes before it.`) : null;
    return el("form", { class: "decide", onsubmit: (event) => event.preventDefault() },
      el("fieldset", {}, el("legend", {}, "Decision"), el("div", { class: "verdicts" }, radios), other,
        field("Reason", "reason", { list: "reasons" }), el("datalist", { id: "reasons" }, REASONS.map((reason) => el("option", { value: reason }))),
        field("Initials", "initials", { size: "6" }), field("Comment", "comment")));
  };

  /* What another window or a file decides about this scan is shown; a field that is being written in is left alone. */
  const sync = () => {
    const form = document.querySelector("form.decide");
    if (row === null || !form) return;
    const entry = EPVS.decisions.of(EPVS.key(row));
    document.getElementById("decided-now").textContent = entry.decision ? `Decided: ${entry.decision}` : "";
    for (const radio of form.querySelectorAll("input[name=verdict]")) radio.checked = radio.value === (entry.decision || "");
    for (const name of ["reason", "initials", "comment"]) {
      const box = document.getElementById(`decide-${name}`);
      if (box !== document.activeElement) box.value = entry[name] ?? "";
    }
  };

  const pictures = (pack) => {
    const found = pack?.pictures ?? {};
    if (pack?.layers) return EPVS.layers.show(pack.layers, found);
    const shown = PICTURES.filter(([name]) => found[name]);
    if (!shown.length) {
      const why = EPVS.value(row, "status") === "failed" ? "The scan failed before any picture of it was made." :
        "The store holds no pictures of this scan. It was not where the report looked for it (--store), or it was deleted.";
      return el("p", { class: "empty" }, why);
    }
    return el("div", { class: "pictures" }, shown.map(([name, title, question]) => el("figure", {},
      el("h3", {}, title), el("img", { src: `data:image/webp;base64,${found[name]}`, alt: `${title}. ${question}` }),
      el("figcaption", {}, question))),
      el("p", { class: "soft" }, "Radiological convention: R is the person's right. Heat runs from dark to bright. Grey outline: mask; " +
        "green: lesion; numbered circle: its centre lies within 1.5 slices."));
  };

  const lesions = (pack) => {
    const rows = pack?.lesions ?? [];
    if (!rows.length) return null;
    const heads = EPVS.data.lesion_fields.map((name) => EPVS.words(name).replace("mm3", "mm³"));
    return el("details", {}, el("summary", {}, `Table of the ${rows.length} located lesions`),
      el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Lesions" }, el("table", {},
        el("caption", {}, "Coordinates are RAS millimetres, of the scan and of MNI152; component mm³ depends on the threshold and is no lesion volume"),
        el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
        el("tbody", {}, rows.map((lesion) => el("tr", {}, lesion.map((value) => el("td", {}, number(value)))))))));
  };

  const quality = () => {
    const measures = EPVS.data.measures.filter((measure) => measure.values[row] !== null);
    if (!measures.length) return el("p", { class: "empty" }, "No quality measure is known of this scan.");
    const rank = (measure) => (measure.low !== null && measure.values[row] < measure.low) || (measure.high !== null && measure.values[row] > measure.high) ? 0 : 1;
    const bound = (measure) => {
      const low = measure.low === null ? "" : `at least ${EPVS.withUnit(measure.low, measure.unit)}`;
      const high = measure.high === null ? "" : `at most ${EPVS.withUnit(measure.high, measure.unit)}`;
      return [low, high].filter(Boolean).join(", ") || "no bound";
    };
    /* A dozen shares of the region cut off, all of them 0, say one thing. */
    const nothing = (measure) => measure.name.startsWith("roi_cut_by_") && measure.values[row] === 0;
    const cut = measures.filter(nothing).length;
    const rows = measures.filter((measure) => !nothing(measure)).sort((a, b) => rank(a) - rank(b)).map((measure) => el("tr", { class: rank(measure) ? "" : "flagged" },
      el("th", { scope: "row", title: measure.name }, measure.title), el("td", {}, EPVS.withUnit(measure.values[row], measure.unit)),
      el("td", { class: "text" }, rank(measure) ? bound(measure) : `▲ ${bound(measure)}`),
      el("td", {}, EPVS.withUnit(EPVS.median(measure), measure.unit)),
      el("td", {}, EPVS.charts.strip(measure, measure.values[row])), el("td", { class: "text soft" }, measure.about)));
    return [el("h3", {}, "Quality measures against the cohort"), el("p", { class: "soft" }, "The strip shows all scans; the thick line is this scan, dashed lines are bounds."),
      el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Quality measures" }, el("table", { class: "quality" },
        el("caption", { class: "hidden" }, "Quality measures of this scan"),
        el("thead", {}, el("tr", {}, ["measure", "this scan", "passes", "cohort's median", "among all scans", "what it says"].map((head) =>
          el("th", { scope: "col", class: ["passes", "what it says"].includes(head) ? "text" : null }, head)))),
        el("tbody", {}, rows))),
      cut ? el("p", { class: "soft" }, `Nothing of the region is cut off at ${cut} of 12 faces of the scan and of the box (0 each).`) : null];
  };

  const facts = () => {
    const named = EPVS.data.columns.filter((column) => column.values[row] !== null && !["scan", "path", "status", "error_message", "hint"].includes(column.name));
    const notes = EPVS.data.notes[row];
    return el("details", {}, el("summary", {}, "Everything in the table about this scan"),
      notes.length ? el("ul", {}, notes.map((note) => el("li", {}, note))) : null,
      el("dl", {}, named.map((column) => [el("dt", { title: column.about }, EPVS.words(column.name)),
        el("dd", {}, el("bdi", {}, EPVS.withUnit(column.values[row], column.unit)))])));
  };

  const show = async (asked) => {
    row = asked;
    EPVS.layers.stop();
    document.getElementById("scan-title").replaceChildren(el("bdi", {}, EPVS.key(row)));
    const place = el("div", { class: "loading", role: "status" }, "Loading pictures …");
    const list = el("div", {}), measures = el("div", {});
    document.getElementById("scan-body").replaceChildren(walk(),
      el("div", { class: "head" }, el("div", {}, said(), count()), decision()), place, list, measures, facts());
    sync();
    try {
      const pack = (await EPVS.packs.numbered("pack", EPVS.data.packs[asked]))[asked];
      if (row !== asked) return;
      place.replaceWith(pictures(pack));
      list.replaceChildren(lesions(pack) ?? "");
    } catch (error) {
      place.replaceWith(el("p", { class: "warning" }, `The pictures of this scan cannot be shown: ${error.message}. They lie in the folder beside the page.`));
    }
    /* After the pictures: who walks through the scans waits for no strip of any measure. */
    setTimeout(() => { if (row === asked) measures.replaceChildren(...[quality()].flat().filter(Boolean)); });
  };

  /* Keys of the view: arrows walk, letters decide; never while a field has the focus. */
  const KEYS = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), a: "accept", d: "doubt", r: "reject",
    h: () => EPVS.layers.toggle("heat"), o: () => EPVS.layers.toggle("lines"), l: () => EPVS.layers.toggle("marks"), f: () => EPVS.layers.flicker() };
  const key = (event) => {
    const busy = event.target.matches("input:not([type=radio]), select, textarea, [role=region]");
    if (row === null || !singleKeys || busy || event.altKey || event.ctrlKey || event.metaKey || !Object.hasOwn(KEYS, event.key)) return;
    const action = KEYS[event.key];
    event.preventDefault();
    if (typeof action === "function") action();
    else document.querySelector(`input[name=verdict][value=${action}]`).click();
  };
  const hide = () => { row = null; EPVS.layers.stop(); };
  return { show, hide, key, sync };
})();
