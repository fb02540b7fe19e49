"use strict";
/* The cohort as a whole: measures over the date by scanner, and left against right. */
EPVS.cohort = (() => {
  const { el, svg, number, sorted, quantile } = EPVS;
  const MOST_SCANNERS = 6;
  const DAY = 86400000;

  const scanners = () => {
    const names = (EPVS.column.get("scanner")?.values ?? []).map((name) => name ?? "unknown");
    const counts = new Map();
    for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
    const largest = [...counts].sort((a, b) => b[1] - a[1]).map(([name]) => name);
    const own = largest.length > MOST_SCANNERS ? largest.slice(0, MOST_SCANNERS - 1) : largest;
    return { names: own.length < largest.length ? [...own, "others"] : own, of: names.map((name) => (own.includes(name) ? name : "others")) };
  };

  const ticksOfDates = (low, high) => {
    if (high - low < 250 * DAY) {
      const step = Math.max(Math.ceil((high - low) / DAY / 6), 1) * DAY;
      const first = Math.ceil(low / DAY) * DAY;
      return Array.from({ length: 7 }, (_, at) => first + at * step).filter((time) => time <= high)
        .map((time) => [time, new Date(time).toISOString().slice(0, 10)]);
    }
    const first = new Date(low).getUTCFullYear();
    const years = new Date(high).getUTCFullYear() - first + 1;
    const step = Math.ceil(years / 10);
    const ticks = [];
    for (let year = first; year <= first + years; year += step) {
      for (const month of years < 3 ? [0, 3, 6, 9] : [0]) ticks.push([Date.UTC(year, month), month ? `${year}-${String(month + 1).padStart(2, "0")}` : String(year)]);
    }
    return ticks.filter(([time]) => time >= low && time <= high);
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

  const overDates = (measure, dates, groups) => {
    const rows = dates.map((_, row) => row).filter((row) => dates[row] !== null && measure.values[row] !== null);
    const unit = measure.unit && !["ratio", "share", "0 or 1"].includes(measure.unit) ? ` (${measure.unit})` : "";
    if (!rows.length) return el("p", { class: "empty" }, `No scan has both a date and a value of: ${measure.title}.`);
    const width = 940, height = 380;
    const box = { left: 74, right: width - 16, top: 14, bottom: height - 50 };
    const scale = EPVS.charts.axis([...rows.map((row) => measure.values[row]), ...EPVS.known([measure.low, measure.high]
      .filter((bound) => bound !== null && bound !== undefined))]);
    let low = rows.reduce((least, row) => Math.min(least, dates[row]), Infinity);
    let high = rows.reduce((most, row) => Math.max(most, dates[row]), -Infinity);
    if (high - low < 30 * DAY) { low -= 15 * DAY; high += 15 * DAY; }
    const x = (time) => box.left + (time - low) / (high - low) * (box.right - box.left);
    const y = (value) => box.bottom - (value - scale.low) / (scale.high - scale.low) * (box.bottom - box.top);
    const chart = EPVS.charts.frame(`${measure.title} over the date of acquisition`, `${rows.length} scans of ${groups.names.length} scanners`, width, height);
    chart.classList.add("wide-chart");
    for (const tick of scale.ticks) {
      chart.append(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }),
        svg("text", { x: box.left - 8, y: y(tick) + 4.5, "text-anchor": "end" }, number(tick)));
    }
    for (const [time, words] of ticksOfDates(low, high)) {
      chart.append(svg("line", { class: "grid", x1: x(time), x2: x(time), y1: box.top, y2: box.bottom }),
        svg("text", { x: x(time), y: box.bottom + 17, "text-anchor": "middle" }, words));
    }
    chart.append(svg("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
      svg("text", { class: "name", x: (box.left + box.right) / 2, y: box.bottom + 38, "text-anchor": "middle" }, "date of acquisition"),
      svg("text", { class: "name", x: 16, y: (box.top + box.bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 16 ${(box.top + box.bottom) / 2})` },
        measure.title + unit));
    for (const bound of EPVS.known([measure.low, measure.high])) {
      chart.append(svg("line", { class: "line guide", x1: box.left, x2: box.right, y1: y(bound), y2: y(bound) }));
    }
    groups.names.forEach((name, at) => {
      const points = rows.filter((row) => groups.of[row] === name).map((row) => [dates[row], measure.values[row]]);
      chart.append(EPVS.charts.dots(points.map(([time, value]) => [x(time), y(value)]), `group-${at}`));
    });
    groups.names.forEach((name, at) => {
      const line = running(rows.filter((row) => groups.of[row] === name).map((row) => [dates[row], measure.values[row]]));
      if (line.length < 2) return;
      const path = line.map(([time, value], n) => `${n ? "L" : "M"}${x(time).toFixed(1)} ${y(value).toFixed(1)}`).join("");
      chart.append(svg("path", { class: "halo", d: path }), svg("path", { class: `line group-${at} dash-${at}`, d: path }));
    });
    return chart;
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
    const key = el("ul", { class: "key" }, groups.names.map((name, at) => el("li", {}, el("i", { class: `line group-${at} dash-${at}` }), el("bdi", {}, name))));
    const choose = el("select", { id: "date-measure", onchange: () => draw() }, measures.map((measure, at) => el("option", { value: at }, measure.title)));
    const draw = () => body.replaceChildren(key, overDates(measures[Number(choose.value)], times, groups), el("figcaption", {},
      "Each dot is a scan; lines join the medians of equally many scans of one scanner. Dashed grey: bounds."));
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
