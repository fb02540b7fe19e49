"use strict";
/* Which part of the page is shown is told by the address behind #, so that back, forward and bookmarks work. */
EPVS.start = (() => {
  const views = () => [...document.querySelectorAll("section.view")];

  const asked = () => {
    const [hash, query] = window.location.hash.slice(1).split("?");
    if (!hash.startsWith("scan=")) {
      const known = views().some((view) => view.id === hash && hash !== "scan");
      return { view: known ? hash : "overview", status: hash === "scans" ? new URLSearchParams(query).get("status") : null };
    }
    let key = "";
    try { key = decodeURIComponent(hash.slice(5)); } catch { /* No key is written like that. */ }
    const row = EPVS.column.get("scan").values.indexOf(key);
    return row < 0 ? { view: "scans", missing: key } : { view: "scan", row };
  };

  /* A place within the part that is shown is gone to without another address: the address names the part. */
  const jump = (event) => {
    const link = event.target.closest?.("a.jump");
    if (!link) return;
    event.preventDefault();
    const heading = document.querySelector(link.hash);
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
    heading.scrollIntoView({ block: "start" });
  };

  const route = (first = false) => {
    if (window.location.hash === "#main") return;
    const { view, row, missing, status } = asked();
    if (status) EPVS.filters.only(status);
    for (const section of views()) section.hidden = section.id !== view;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.hash === `#${view === "scan" ? "scans" : view}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    EPVS.scan.hide();
    if (missing !== undefined) EPVS.warn(`There is no scan named ${missing} in this report.`);
    if (view === "scan") EPVS.scan.show(row);
    if (view === "overview") EPVS.overview.show(document.getElementById("counts"));
    if (view === "scans") EPVS.table.show();
    if (view === "cohort") EPVS.cohort.show();
    if (first === true) return;
    window.scrollTo(0, 0);
    const heading = document.querySelector(`#${view} h2`);
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  };

  const copy = () => {
    const range = document.createRange();
    range.selectNodeContents(document.getElementById("methods-text"));
    const selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    /* The newer clipboard asks for a permission that pages opened as files may not have. */
    const done = document.execCommand("copy");
    document.getElementById("copied").textContent = done ? "Copied." : "Selected: copy it with the keyboard.";
  };

  const begin = () => {
    const block = document.getElementById("data");
    if (block) EPVS.receive(JSON.parse(block.textContent));
    if (!EPVS.data) {
      EPVS.warn(`The data of this report are missing: the folder ${decodeURIComponent(document.body.dataset.folder)} belongs beside the page.`);
      return;
    }
    EPVS.decisions.open();
    EPVS.decisions.bar();
    EPVS.table.prepare(document.getElementById("table"));
    EPVS.decisions.watch(EPVS.scan.sync);
    document.getElementById("copy-methods").addEventListener("click", copy);
    document.addEventListener("keydown", EPVS.scan.key);
    document.addEventListener("click", jump);
    window.addEventListener("hashchange", route);
    route(true);
    document.documentElement.dataset.ready = "yes";
  };
  return { begin };
})();
document.addEventListener("DOMContentLoaded", EPVS.start.begin);
