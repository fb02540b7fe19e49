"use strict";
/* The cohort as a whole: measures over the date by scanner, and left against right. */
EPVS.cohort = (() => {
  const { el, number, sorted, quantile } = EPVS;
  const MOST_SCANNERS = 6;

  const scanners = () => {
    const names = (EPVS.column.get("scanner")?.values ?? []).map((name) => name ?? "unknown");
    const counts = new Map();
    for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
    const largest = [...counts].sort((a, b) => b[1] - a[1]).map(([name]) => name);
    const own = largest.length > MOST_SCANNERS ? largest.slice(0, MOST_SCANNERS - 1) : largest;
    return { names: own.length < largest.length ? [...own, "others"] : own, of: names.map((name) => (own.includes(name) ? name : "others")) };
  };

  /* Medians of twelve equally full parts of a scanner's scans, in the order of their dates. */
  const running = (points) => {
    const ordered = [...points].sort((a, b) => a[0] - b[0]);
    const parts = Math.min(12, Math.floor(ordered.length / 8));
    return Array.from({ length: parts }, (_, at) => {
      const part = ordered.slice(Math.round(at * ordered.length / parts), Math.round((at + 1) * ordered.length / parts));
      return [quantile(part.map(([time]) => time), 0.5), quantile(sorted(part.map(([, value]) => value)), 0.5)];
    });
  };

  /* What the chart says, for who does not see it, and for the table under it. */
  const described = (points, lines, names) => names.map((name) => {
    const values = sorted(points.filter((point) => point.group === name).map((point) => point.value));
    const line = lines.filter((point) => point.group === name);
    return { name, n: values.length, middle: quantile(values, 0.5), low: quantile(values, 0.25), high: quantile(values, 0.75),
      first: line[0]?.value ?? null, last: line[line.length - 1]?.value ?? null };
  });

  const overDates = (measure, dates, groups) => {
    const points = dates.map((time, row) => ({ row, time, value: measure.values[row], group: groups.of[row] }))
      .filter((point) => point.time !== null && point.value !== null);
    if (!points.length) return el("p", { class: "empty" }, `No scan has both a date and a value of: ${measure.title}.`);
    const lines = groups.names.flatMap((group) => running(points.filter((point) => point.group === group).map((point) => [point.time, point.value]))
      .map(([time, value]) => ({ time, value, group })));
    const rows = described(points, lines, groups.names);
    const words = rows.map((each) => `${each.name}: ${each.n} scans, median ${number(each.middle)}` +
      (each.first === null ? "" : `, ${number(each.first)} in the earliest part and ${number(each.last)} in the latest`)).join("; ");
    const heads = ["scanner", "scans", "median", "middle half", "earliest part", "latest part"];
    const chart = EPVS.charts.overDates(points, lines, { title: `${measure.title} over the date of acquisition`, words, name: EPVS.titled(measure),
      unit: measure.unit, groups: groups.names, bounds: [measure.low, measure.high] });
    const table = el("table", {}, el("caption", {}, `${EPVS.titled(measure)} by scanner, and its median at both ends of the time`),
      el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, rows.map((each) => el("tr", {}, el("th", { scope: "row" }, el("bdi", {}, each.name)), el("td", {}, number(each.n)),
        el("td", {}, number(each.middle, 3)), el("td", {}, each.n ? `${number(each.low, 3)} to ${number(each.high, 3)}` : "–"),
        el("td", {}, number(each.first, 3)), el("td", {}, number(each.last, 3))))));
    return [chart, el("figcaption", {}, "Each dot is a scan: point at it for its name, click to open it. Lines join the medians of equally many scans of one " +
      "scanner." + (EPVS.known([measure.low, measure.high]).length ? " Dashed grey: bounds." : " This measure has no bound.")),
      el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Measure by scanner" }, table)];
  };

  const dates = (place) => {
    const column = EPVS.column.get("acquisition_date");
    const times = (column?.values ?? []).map((date) => (date === null ? null : Date.parse(date))).map((time) => (Number.isNaN(time) ? null : time));
    if (!EPVS.known(times).length) {
      place.append(el("p", { class: "empty" }, "No scan's date of acquisition is known, so drift cannot be shown. DICOM and BIDS side-cars bring it, " +
        "or a column acquisition_date of the manifest."));
      return;
    }
    const groups = scanners();
    const measures = [{ name: "count", title: "count", unit: EPVS.column.get("count").unit, values: EPVS.column.get("count").values, low: null, high: null },
      ...EPVS.data.measures];
    const body = el("figure", { class: "full" });
    const key = el("ul", { class: "key" }, groups.names.map((name, at) => el("li", {}, EPVS.charts.sign(at), el("bdi", {}, name))));
    const choose = el("select", { id: "date-measure", onchange: () => draw() }, measures.map((measure, at) => el("option", { value: at }, measure.title)));
    const draw = () => body.replaceChildren(key, ...[overDates(measures[Number(choose.value)], times, groups)].flat());
    place.append(el("p", { class: "field" }, el("label", { for: "date-measure" }, "Over the date: "), choose), body);
    draw();
  };

  const sides = (place) => {
    const left = EPVS.column.get("n_left").values, right = EPVS.column.get("n_right").values;
    const gaps = left.map((n, row) => (n === null || right[row] === null ? null : n - right[row]));
    place.append(el("figure", {}, EPVS.charts.histogram(gaps, { title: "Left minus right", name: "lesions left minus right, per scan" })));
  };

  /* Drawn when it is first looked at: thousands of scans should not wait for it. */
  let shown = false;
  const show = () => {
    if (shown) return;
    shown = true;
    EPVS.mosaic.show(document.getElementById("mosaic"));
    dates(document.getElementById("dates"));
    sides(document.getElementById("sides"));
  };
  return { show };
})();
