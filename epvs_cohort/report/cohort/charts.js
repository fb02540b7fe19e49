"use strict";
/* Charts as SVG with axes, units and a description; their colours are those of the style sheet. */
EPVS.charts = (() => {
  const { svg, el, number, sorted, quantile } = EPVS;

  const niceStep = (span, wanted) => {
    const raw = span / wanted;
    const power = 10 ** Math.floor(Math.log10(raw));
    return [1, 2, 5, 10].map((nice) => nice * power).find((step) => step >= raw * (1 - 1e-9));
  };

  /* Axis that holds all values with round ticks. */
  const axis = (values, fromZero = false) => {
    const known = EPVS.known(values);
    let low = known.reduce((a, b) => Math.min(a, b), fromZero || !known.length ? 0 : Infinity);
    let high = known.reduce((a, b) => Math.max(a, b), fromZero || !known.length ? 0 : -Infinity);
    if (low === high) {
      const pad = Math.max(Math.abs(low) * 0.1, 0.1);
      [low, high] = fromZero ? [low, high + 1] : [low - pad, high + pad];
    }
    const step = niceStep(high - low, 6);
    const first = Math.floor(low / step + 1e-9);
    const last = Math.ceil(high / step - 1e-9);
    const ticks = [];
    for (let at = first; at <= last; at += 1) ticks.push(Number((at * step).toPrecision(12)));
    return { low: ticks[0], high: ticks[ticks.length - 1], ticks, step };
  };

  let made = 0;
  const frame = (title, description, width, height) => {
    made += 1;
    const id = `chart-${made}`;
    return svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-labelledby": `${id}-t ${id}-d` },
      svg("title", { id: `${id}-t` }, title), svg("desc", { id: `${id}-d` }, description));
  };
  const bottomAxis = (chart, x, scale, box, name) => {
    for (const tick of scale.ticks) {
      chart.append(
        svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: box.top, y2: box.bottom }),
        svg("text", { x: x(tick), y: box.bottom + 17, "text-anchor": "middle" }, number(tick)));
    }
    chart.append(
      svg("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
      svg("text", { class: "name", x: (box.left + box.right) / 2, y: box.bottom + 38, "text-anchor": "middle" }, name));
  };

  /* One path of short round strokes draws thousands of dots at once. */
  const dots = (points, style) =>
    svg("path", { class: `dots ${style}`, d: points.map(([x, y]) => `M${x.toFixed(1)} ${y.toFixed(1)}h.01`).join("") });

  /* How often each value comes; `mark` is the value of the scan that is looked at. */
  const histogram = (values, { title, name, mark = null, bounds = [null, null], height = 220 }) => {
    const known = EPVS.known(values);
    if (!known.length) return el("p", { class: "empty" }, `${title}: no scan has a value.`);
    const width = 560;
    const box = { left: 60, right: width - 16, top: 12, bottom: height - 50 };
    const scale = axis([...known, ...EPVS.known(bounds)]);
    const whole = known.every(Number.isInteger);
    const bin = Math.max(niceStep(scale.high - scale.low, 30), whole ? 1 : 0);
    /* Whole numbers stand in the middle of their bars. */
    if (whole) { scale.low -= 0.5; scale.high += 0.5; }
    const bins = new Array(Math.max(Math.ceil((scale.high - scale.low) / bin - 1e-9), 1)).fill(0);
    for (const value of known) bins[Math.min(Math.floor((value - scale.low) / bin + 1e-9), bins.length - 1)] += 1;
    const top = axis(bins, true);
    const x = (value) => box.left + (value - scale.low) / (scale.high - scale.low) * (box.right - box.left);
    const y = (n) => box.bottom - n / top.high * (box.bottom - box.top);
    const ordered = sorted(known);
    const chart = frame(title, `${known.length} scans, median ${number(quantile(ordered, 0.5))}, range ` +
      `${number(ordered[0])} to ${number(ordered[ordered.length - 1])}.`, width, height);
    chart.classList.add("small");
    for (const tick of top.ticks.filter(Number.isInteger)) {
      chart.append(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }),
        svg("text", { x: box.left - 8, y: y(tick) + 4.5, "text-anchor": "end" }, number(tick)));
    }
    bins.forEach((n, at) => {
      const from = x(scale.low + at * bin);
      const to = Math.min(x(scale.low + (at + 1) * bin), box.right);
      if (n) chart.append(svg("rect", { class: "bar", x: from + 0.5, width: Math.max(to - from - 1, 1), y: y(n), height: box.bottom - y(n) }));
    });
    bottomAxis(chart, x, { ticks: scale.ticks }, box, name);
    chart.append(svg("text", { class: "name", x: 14, y: (box.top + box.bottom) / 2, "text-anchor": "middle",
      transform: `rotate(-90 14 ${(box.top + box.bottom) / 2})` }, "scans"));
    for (const bound of EPVS.known(bounds)) {
      chart.append(svg("line", { class: "line guide", x1: x(bound), x2: x(bound), y1: box.top, y2: box.bottom }));
    }
    if (mark !== null) {
      chart.append(svg("line", { class: "line mark", x1: x(mark), x2: x(mark), y1: box.top, y2: box.bottom }),
        svg("path", { class: "marker", d: `M${x(mark) - 6} ${box.top - 8}h12l-6 9z` }));
    }
    return chart;
  };

  /* Shakes dots apart in the same way each time. */
  const shake = (at) => ((Math.sin(at * 12.9898) * 43758.5453) % 1 + 1) % 1 - 0.5;

  /* Values of groups of scans: every scan a dot, the middle half a box, the median a line. */
  const groups = (names, of, values, { title, name }) => {
    const members = names.map(() => []);
    of.forEach((group, row) => { if (group !== null && values[row] !== null) members[group].push(values[row]); });
    const all = members.flat();
    if (!all.length) return el("p", { class: "empty" }, `${title}: no scan has a value.`);
    const width = 800, line = 46, left = 250;
    const box = { left, right: width - 20, top: 8, bottom: 8 + line * names.length };
    const scale = axis(all, true);
    const x = (value) => box.left + (value - scale.low) / (scale.high - scale.low) * (box.right - box.left);
    const chart = frame(title, names.map((group, at) =>
      `${group}: ${members[at].length} scans, median ${number(quantile(sorted(members[at]), 0.5))}`).join("; "), width, box.bottom + 50);
    bottomAxis(chart, x, scale, box, name);
    names.forEach((group, at) => {
      const middle = box.top + line * (at + 0.5);
      const ordered = sorted(members[at]);
      const short = group.length > 30 ? `${group.slice(0, 29)}…` : group;
      chart.append(svg("text", { class: "name", x: left - 10, y: middle - 1, "text-anchor": "end" }, short, svg("title", {}, group)),
        svg("text", { x: left - 10, y: middle + 15, "text-anchor": "end" }, `${ordered.length} scans`));
      if (!ordered.length) return;
      const [low, half, high] = [0.25, 0.5, 0.75].map((share) => x(quantile(ordered, share)));
      chart.append(
        dots(members[at].map((value, n) => [x(value), middle + shake(n + 1) * 30]), ordered.length > 300 ? "strong many" : "strong"),
        svg("rect", { class: "box", x: low, width: Math.max(high - low, 1), y: middle - 13, height: 26 }),
        svg("line", { class: "line mark", x1: half, x2: half, y1: middle - 15, y2: middle + 15 }));
    });
    return chart;
  };

  /* Where one value lies among all: as a thin strip for a row of a table. */
  const strip = (values, mark, bounds) => {
    const width = 190, height = 22;
    const scale = axis([...values, ...EPVS.known(bounds)]);
    const x = (value) => 6 + (value - scale.low) / (scale.high - scale.low) * (width - 12);
    const bins = new Array(48).fill(0);
    for (const value of EPVS.known(values)) bins[Math.min(Math.floor((x(value) - 6) / (width - 12) * 48), 47)] += 1;
    const most = Math.max(...bins, 1);
    const chart = svg("svg", { class: "strip", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true", width, height });
    bins.forEach((n, at) => {
      if (n) chart.append(svg("rect", { class: "bar", x: 6 + at * (width - 12) / 48, width: (width - 12) / 48 - 0.5,
        y: height - 2 - (height - 4) * Math.sqrt(n / most), height: (height - 4) * Math.sqrt(n / most) }));
    });
    for (const bound of EPVS.known(bounds)) chart.append(svg("line", { class: "line guide", x1: x(bound), x2: x(bound), y1: 0, y2: height }));
    if (mark !== null) chart.append(svg("line", { class: "line mark thick", x1: x(mark), x2: x(mark), y1: 0, y2: height }));
    return chart;
  };

  return { histogram, groups, strip, axis, frame, bottomAxis, dots, niceStep };
})();
