"use strict";
/* What people decide about scans: kept in this browser at every key stroke, one entry a scan, and exported as a table. */
EPVS.decisions = (() => {
  const { el } = EPVS;
  const VERDICTS = ["accept", "doubt", "reject"];
  const FIELDS = ["decision", "reason", "initials", "comment"];
  const own = new Map();
  const watchers = [];
  let storage = null;

  const prefix = () => `epvs-cohort:decision:${EPVS.data.study}:`;
  const initialsKey = () => `epvs-cohort:initials:${EPVS.data.study}`;

  const readOwn = () => {
    own.clear();
    if (!storage) return;
    for (let at = 0; at < storage.length; at += 1) {
      const key = storage.key(at);
      if (!key.startsWith(prefix())) continue;
      try {
        own.set(key.slice(prefix().length), JSON.parse(storage.getItem(key)));
      } catch {
        EPVS.warn("A decision kept in this browser cannot be read and was passed over.");
      }
    }
  };

  const open = () => {
    try {
      const probe = "epvs-cohort:probe";
      window.localStorage.setItem(probe, "1");
      window.localStorage.removeItem(probe);
      storage = window.localStorage;
    } catch {
      EPVS.warn("This browser keeps nothing for pages opened from files: decisions are lost when the page is closed. Export them before.");
    }
    readOwn();
    window.addEventListener("storage", () => { readOwn(); tell(); });
    window.addEventListener("beforeunload", (event) => {
      if (!storage && fresh()) event.preventDefault();
    });
  };

  const ofFile = (scan) => {
    const given = EPVS.data.decisions.get(scan);
    return given === undefined ? null : { decision: given.verdict, reason: given.reason, initials: given.initials, comment: given.comment };
  };
  /* Of this browser before that of the file. */
  const of = (scan) => own.get(scan) ?? ofFile(scan) ?? { decision: "", reason: "", initials: "", comment: "" };
  const differs = (scan) => own.has(scan) && ofFile(scan) !== null && ofFile(scan).decision !== own.get(scan).decision;

  const keep = (scan, entry) => {
    own.set(scan, entry);
    if (storage) {
      try {
        storage.setItem(prefix() + scan, JSON.stringify(entry));
      } catch {
        EPVS.warn("The browser's memory for this page is full: export the decisions now.");
      }
    }
  };
  const set = (scan, changes) => {
    keep(scan, { ...of(scan), ...changes, exported: false });
    tell();
  };

  const initials = (given) => {
    if (given !== undefined && storage) storage.setItem(initialsKey(), given);
    return storage?.getItem(initialsKey()) ?? "";
  };

  const fresh = () => [...own.values()].filter((entry) => !entry.exported).length;
  const all = () => {
    const scans = new Set([...EPVS.data.decisions.keys(), ...own.keys()]);
    return [...scans].map((scan) => [scan, of(scan)]).filter(([, entry]) => VERDICTS.includes(entry.decision));
  };

  const cell = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const table = () => {
    const lines = all().sort(([a], [b]) => (a < b ? -1 : 1)).map(([scan, entry]) =>
      [scan, ...FIELDS.map((field) => String(entry[field] ?? "").replace(/\s+/g, " ").trim())].map(cell).join(","));
    return ["scan,decision,reason,initials,comment", ...lines].join("\n") + "\n";
  };
  const save = () => {
    const address = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
    el("a", { href: address, download: "decisions.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
    for (const [scan, entry] of own) keep(scan, { ...entry, exported: true });
    tell();
  };

  /* Rows of a table in commas or tabs, with quotes as spreadsheets write them. */
  const parse = (text) => {
    const separator = text.split("\n", 1)[0].includes("\t") ? "\t" : ",";
    const rows = [[""]];
    let quoted = false;
    const clean = text.replace(/^\ufeff/, "").replaceAll("\r\n", "\n");
    for (let at = 0; at < clean.length; at += 1) {
      const sign = clean[at];
      const row = rows[rows.length - 1];
      if (quoted && sign === '"' && clean[at + 1] === '"') { row[row.length - 1] += '"'; at += 1; }
      else if (sign === '"' && (quoted || row[row.length - 1] === "")) quoted = !quoted;
      else if (quoted) row[row.length - 1] += sign;
      else if (sign === separator) row.push("");
      else if (sign === "\n") rows.push([""]);
      else row[row.length - 1] += sign;
    }
    return rows.filter((row) => row.some((cell) => cell !== ""));
  };

  /* Take decisions of a file, such as another browser exported; what is decided here already stays. */
  const take = (text) => {
    const [head, ...rows] = parse(text);
    const place = new Map((head ?? []).map((name, at) => [name.trim(), at]));
    if (!place.has("scan") || !place.has("decision")) return "Nothing is read: the file has no columns scan and decision.";
    let taken = 0, kept = 0, wrong = 0;
    for (const row of rows) {
      const scan = row[place.get("scan")] ?? "";
      const entry = Object.fromEntries(FIELDS.map((field) => [field, (row[place.get(field)] ?? "").trim()]));
      entry.decision = entry.decision.toLowerCase();
      const now = of(scan);
      if (!scan || !VERDICTS.includes(entry.decision)) wrong += 1;
      else if (now.decision && FIELDS.some((field) => now[field] !== entry[field])) kept += 1;
      else if (!now.decision) { keep(scan, { ...entry, exported: true }); taken += 1; }
    }
    tell();
    return `${taken} decisions taken from the file.` + (kept ? ` ${kept} scans are decided otherwise here and stay so.` : "") +
      (wrong ? ` ${wrong} rows name no scan or no legal decision.` : "");
  };

  const reader = () => {
    const said = el("span", { role: "status", class: "soft" });
    const input = el("input", { type: "file", id: "read-decisions", accept: ".csv,.tsv,text/csv", onchange: async () => {
      if (input.files.length) said.textContent = take(await input.files[0].text());
      input.value = "";
    } });
    return el("details", { class: "reader" }, el("summary", {}, "Read decisions"),
      el("p", { class: "field" }, el("label", { for: "read-decisions" }, "File that a report exported: "), input, said));
  };

  /* Bar at the head of the page. */
  const bar = () => {
    const place = document.getElementById("review");
    const words = el("span", { role: "status" });
    const button = el("button", { type: "button", onclick: save }, "Export decisions");
    place.append(words, button, reader());
    place.hidden = false;
    watch(() => {
      const decided = all();
      const counted = VERDICTS.map((verdict) => `${decided.filter(([, entry]) => entry.decision === verdict).length} ${verdict}`);
      const waiting = fresh();
      words.textContent = decided.length ? `${decided.length} decided: ${counted.join(", ")}. ` +
        (waiting ? `${waiting} changed since the last export.` : "All exported.")
        : "No scan is decided yet: open one, and accept, doubt or reject it.";
      button.disabled = !decided.length && !waiting;
    });
  };

  const watch = (watcher) => { watchers.push(watcher); watcher(); };
  const tell = () => watchers.forEach((watcher) => watcher());
  return { VERDICTS, open, of, ofFile, differs, set, initials, table, bar, watch };
})();
