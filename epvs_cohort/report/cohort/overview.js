"use strict";
/* Distribution of the counts, and whether groups of scans differ. */
EPVS.overview = (() => {
  const { el, number, sorted, quantile } = EPVS;
  const target = () => EPVS.column.get("count").unit || "lesions";

  const groupTable = (grouping, counts) => {
    const rows = grouping.names.map((name, at) => {
      const found = sorted(counts.filter((_, row) => grouping.of[row] === at));
      const mean = found.length ? found.reduce((a, b) => a + b, 0) / found.length : null;
      const low = quantile(found, 0.25), high = quantile(found, 0.75);
      return el("tr", {}, el("th", { scope: "row" }, el("bdi", {}, name)), el("td", {}, number(found.length)),
        el("td", {}, mean === null ? "–" : mean.toFixed(1)), el("td", {}, number(quantile(found, 0.5), 3)),
        el("td", {}, found.length ? `${number(low, 3)} to ${number(high, 3)}` : "–"),
        el("td", {}, number(found.filter((count) => count < 0.5).length)));
    });
    const heads = [EPVS.words(grouping.column), "scans", "mean", "median", "middle half", "count 0"];
    return el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": `Counts by ${grouping.column}` },
      el("table", {}, el("caption", {}, `Counts by ${EPVS.words(grouping.column)} (${target()} per scan)`),
        el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))), el("tbody", {}, rows)));
  };

  /* Drawn when it is first looked at. */
  let shown = false;
  const show = (place) => {
    if (shown) return;
    shown = true;
    const rejected = new Set([...EPVS.data.decisions].filter(([, decision]) => decision.verdict === "reject").map(([key]) => key));
    const counts = EPVS.column.get("count").values.map((count, row) => (rejected.has(EPVS.key(row)) ? null : count));
    const without = rejected.size ? " Scans that the report's file of decisions rejects are left out here and below." : "";
    place.append(el("figure", {}, EPVS.charts.histogram(counts, { title: "Counts of all scans", name: `count (${target()} per scan)` }),
      el("figcaption", {}, `How many scans have which count; failed scans have none.${without}`)));
    const groupings = EPVS.data.groupings;
    if (!groupings.length) {
      place.append(el("p", { class: "empty" }, "The counts cannot be compared between groups: the table has no scanner, age, sex or other " +
        "covariate with two or more groups. Columns of participants.tsv or the manifest would appear here."));
      return;
    }
    const body = el("div", {});
    const choose = el("select", { id: "group-by", onchange: () => draw() },
      groupings.map((each, at) => el("option", { value: at }, EPVS.words(each.column))));
    const draw = () => {
      const grouping = groupings[Number(choose.value)];
      body.replaceChildren(el("p", { class: "answer" }, grouping.sentence),
        el("figure", {}, EPVS.charts.groups(grouping.names, grouping.of, counts,
          { title: `Counts by ${EPVS.words(grouping.column)}`, name: `count (${target()} per scan)`, unit: target() }),
        el("figcaption", {}, "Each dot is a scan: point at it for its name, click to open it. The box holds the middle half, the line is the median.")),
        groupTable(grouping, counts));
    };
    place.append(el("p", { class: "field" }, el("label", { for: "group-by" }, "Do counts differ by "), choose), body);
    draw();
  };
  return { show };
})();
