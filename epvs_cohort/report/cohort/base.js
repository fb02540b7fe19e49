"use strict";
/* The data of the page, and small tools to build it. Text enters the page as text alone, never as markup. */
const EPVS = { data: null, column: new Map() };

EPVS.receive = (data) => {
  EPVS.data = { ...data, decisions: new Map(data.decisions) };
  for (const column of data.columns) EPVS.column.set(column.name, column);
};

/* Packs of pictures and lesions come as scripts, for a page that is opened as a file may fetch nothing. */
EPVS.packs = (() => {
  const MOST_HELD = 3;
  const held = new Map();
  const waiting = new Map();

  const keep = (name, pack) => {
    held.delete(name);
    held.set(name, pack);
    while (held.size > MOST_HELD) held.delete(held.keys().next().value);
  };
  const settle = (name, settled) => {
    for (const promise of waiting.get(name) ?? []) settled(promise);
    waiting.delete(name);
  };
  const receive = (name, pack) => {
    keep(name, pack);
    settle(name, (promise) => promise.resolve(pack));
  };
  const load = (name) => {
    if (held.has(name)) {
      keep(name, held.get(name));
      return Promise.resolve(held.get(name));
    }
    const block = document.getElementById(name);
    if (block) return Promise.resolve(JSON.parse(block.textContent));
    return new Promise((resolve, reject) => {
      const first = !waiting.has(name);
      waiting.set(name, [...(waiting.get(name) ?? []), { resolve, reject }]);
      if (!first) return;
      const script = document.createElement("script");
      script.src = `${document.body.dataset.folder}/${name}.js`;
      script.addEventListener("error", () => settle(name, (promise) => promise.reject(new Error(`${name}.js cannot be read`))));
      script.addEventListener("load", () => script.remove());
      document.head.append(script);
    });
  };
  const numbered = (kind, number) => load(`${kind}-${String(number).padStart(4, "0")}`);
  return { receive, numbered };
})();
EPVS.receivePack = EPVS.packs.receive;

EPVS.fill = (element, attributes, children) => {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined) element.append(child);
  }
  return element;
};
EPVS.el = (tag, attributes = {}, ...children) => EPVS.fill(document.createElement(tag), attributes, children);
EPVS.svg = (tag, attributes = {}, ...children) =>
  EPVS.fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

/* A number as a person reads it; unknown is a dash, never 0. */
EPVS.number = (value, digits = 4) => {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (value !== 0 && Math.abs(value) < 0.0001) return value < 0 ? "> −0.0001" : "< 0.0001";
  const text = Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(digits)));
  return text.replace("-", "−");
};

EPVS.withUnit = (value, unit) => {
  const silent = EPVS.SILENT.includes(unit) || value === null;
  return EPVS.number(value) + (silent ? "" : ` ${unit.replace("mm3", "mm³")}`);
};

/* For the one place where a library takes markup. */
EPVS.escaped = (text) => text.replace(/[&<>"']/g, (sign) => `&#${sign.codePointAt(0)};`);

/* Units that say nothing beside a figure. */
EPVS.SILENT = ["", "ratio", "share", "0 or 1", null, undefined];
/* Title of a column or measure with its unit. */
EPVS.titled = ({ title, unit }) => title + (EPVS.SILENT.includes(unit) ? "" : ` (${unit.replace("mm3", "mm³")})`);

EPVS.known = (values) => values.filter((value) => value !== null && value !== undefined);
EPVS.sorted = (values) => EPVS.known(values).sort((a, b) => a - b);

/* Median of a measure of the cohort, reckoned once. */
EPVS.medians = new Map();
EPVS.median = (measure) => {
  if (!EPVS.medians.has(measure.name)) EPVS.medians.set(measure.name, EPVS.quantile(EPVS.sorted(measure.values), 0.5));
  return EPVS.medians.get(measure.name);
};

/* Quantile of sorted values, linear between them. */
EPVS.quantile = (sorted, share) => {
  if (!sorted.length) return null;
  const at = (sorted.length - 1) * share;
  const low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (sorted[high] - sorted[low]) * (at - low);
};

EPVS.value = (row, name) => EPVS.column.get(name)?.values[row] ?? null;
EPVS.key = (row) => EPVS.column.get("scan").values[row];
EPVS.link = (row) => `#scan=${encodeURIComponent(EPVS.key(row))}`;

EPVS.STATUS = { ok: "● ok", flagged: "▲ flagged", failed: "✕ failed" };
EPVS.status = (row) => {
  const status = EPVS.value(row, "status");
  return EPVS.el("span", { class: `status ${status}` }, EPVS.STATUS[status] ?? String(status));
};

/* What is wrong with a scan, in one line. */
EPVS.trouble = (row) => {
  if (EPVS.value(row, "status") !== "failed") return EPVS.data.flags[row].join("; ");
  return EPVS.value(row, "error_message") ?? EPVS.value(row, "error_kind") ?? "no message";
};

/* Headings of columns in words: underscores are for programs. */
EPVS.words = (name) => name.replaceAll("_", " ");

EPVS.warn = (text) => {
  const place = document.getElementById("trouble");
  place.textContent = text;
  place.hidden = false;
};
