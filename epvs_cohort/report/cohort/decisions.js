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

  /* Bar at the head of the page. */
  const bar = () => {
    const place = document.getElementById("review");
    const words = el("span", { role: "status" });
    const button = el("button", { type: "button", onclick: save }, "Export decisions");
    place.append(words, button);
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
