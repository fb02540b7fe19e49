"use strict";
/* Charts, drawn by Observable Plot as SVG: axes with units, a description for who does not see them, colours of the style sheet. */
EPVS.charts = (() => {
  const { el, number, sorted, quantile } = EPVS;
  /* One class for all: the style element that Plot puts into a chart is then the one that the page's policy allows. */
  const CLASS = "plot";
  const AXIS = { labelAnchor: "center", labelArrow: "none", tickSize: 0 };
  const DASHED = { stroke: "var(--soft)", strokeWidth: 1.25, strokeDasharray: "5 4" };

  /* Parts of a picture are no things of their own to a screen reader: Plot's names for them become classes. */
  const named = (chart) => {
    for (const part of chart.querySelectorAll("[aria-label]")) {
      part.classList.add(part.getAttribute("aria-label").replaceAll(" ", "-"));
      part.removeAttribute("aria-label");
    }
    return chart;
  };

  /* A chart with its name and what it shows in words; `small` ones keep their text legible in a column. */
  const draw = ({ title, words, small = false, ...options }) => {
    const chart = named(Plot.plot({ className: CLASS, ...options }));
    chart.setAttribute("role", "img");
    chart.setAttribute("aria-label", `${title}. ${words}`);
    chart.removeAttribute("aria-description");
    chart.classList.add("chart", ...(small ? ["small"] : []));
    return chart;
  };
  /* Width that a chart is drawn in: text keeps its size on narrow screens. */
  const room = (most) => Math.max(Math.min(most, document.documentElement.clientWidth - 44), 300);
  const plainly = (value) => number(value);
  const empty = (title) => el("p", { class: "empty" }, `${title}: no scan has a value.`);

  /* Lowest and highest of all that is drawn; a single value gets room on both sides. */
  const extent = (values) => {
    const [low, high] = d3.extent(EPVS.known(values));
    if (low !== high) return [low, high];
    const pad = Math.max(Math.abs(low) * 0.1, 0.1);
    return [low - pad, high + pad];
  };

  /* Values in bins of a round width; whole numbers stand in the middle of their bars. */
  const binned = (values, [low, high], wanted) => {
    const whole = values.every(Number.isInteger);
    const width = Math.max(d3.tickStep(low, high, wanted), whole ? 1 : 0);
    const shift = whole ? 0.5 : 0;
    const edges = d3.range(Math.floor(low / width + 1e-9), Math.ceil(high / width - 1e-9) + 1 + shift * 2)
      .map((at) => Number((at * width - shift).toPrecision(12)));
    const bins = d3.bin().domain([edges[0], edges[edges.length - 1]]).thresholds(edges.slice(1, -1))(values);
    return { bins, domain: [edges[0], edges[edges.length - 1]] };
  };

  const barWords = (bin) => `${number(bin.x0)} to ${number(bin.x1)}: ${bin.length} scans`;

  /* How often each value comes; `mark` is the value of the scan that is looked at. */
  const histogram = (values, { title, name, mark = null, bounds = [null, null], height = 220 }) => {
    const known = EPVS.known(values);
    if (!known.length) return empty(title);
    const { bins, domain } = binned(known, extent([...known, ...bounds]), 30);
    const ordered = sorted(known);
    const words = `${known.length} scans, median ${number(quantile(ordered, 0.5))}, range ${number(ordered[0])} to ` +
      `${number(ordered[ordered.length - 1])}.` + (mark === null ? "" : ` This scan: ${number(mark)}.`);
    const most = d3.max(bins, (bin) => bin.length);
    return draw({ title, words, small: true, width: room(560), height, marginLeft: 56, marginBottom: 46, marginRight: 16, marginTop: 16,
      x: { ...AXIS, domain, label: name, tickFormat: plainly, labelOffset: 40 },
      y: { ...AXIS, label: "scans", grid: true, tickFormat: plainly, ticks: d3.ticks(0, most, 5).filter(Number.isInteger), domain: [0, most], nice: true },
      marks: [
        Plot.rectY(bins, { x1: "x0", x2: "x1", y: "length", fill: "var(--strong)", fillOpacity: 0.75, insetLeft: 0.5, insetRight: 0.5,
          title: barWords, tip: true }),
        Plot.ruleY([0], { stroke: "var(--soft)" }), Plot.ruleX(EPVS.known(bounds), DASHED),
        mark === null ? null : [Plot.ruleX([mark], { stroke: "var(--mark)", strokeWidth: 3 }),
          Plot.dotX([mark], { symbol: "triangle", rotate: 180, r: 5, fill: "var(--mark)", frameAnchor: "top", dy: -6 })],
      ] });
  };

  /* Shakes dots apart in the same way each time. */
  const shake = (at) => ((Math.sin(at * 12.9898) * 43758.5453) % 1 + 1) % 1 - 0.5;
  const short = (name, most) => (name.length > most ? `${name.slice(0, most - 1)}…` : name);

  /* Few dots are large, many leave room for one another. */
  const radius = (n) => (n < 150 ? 4 : n < 1000 ? 2.6 : 1.6);

  /* A dot that is pointed at can be clicked: it opens its scan. */
  const opens = (chart) => {
    chart.addEventListener("click", () => { if (chart.value?.row !== undefined) window.location.hash = EPVS.link(chart.value.row); });
    return chart;
  };

  /* Values of groups of scans: every scan a dot, the middle half a box, the median a line. */
  const groups = (names, of, values, { title, name, unit = "" }) => {
    const points = [];
    of.forEach((group, row) => { if (group !== null && values[row] !== null) points.push({ row, group, value: values[row] }); });
    if (!points.length) return empty(title);
    points.forEach((point, n) => { point.y = point.group + shake(n + 1) * 0.6; });
    const boxes = names.map((group, at) => {
      const ordered = sorted(points.filter((point) => point.group === at).map((point) => point.value));
      const [low, middle, high] = [0.25, 0.5, 0.75].map((share) => quantile(ordered, share));
      return { group, at, n: ordered.length, low, middle, high };
    });
    const full = boxes.filter((box) => box.n);
    const words = boxes.map((box) => `${box.group}: ${box.n} scans, median ${number(box.middle)}`).join("; ");
    const width = room(800);
    const most = width < 500 ? 14 : 32;
    const marginLeft = 24 + 7.2 * Math.max(...names.map((group) => short(group, most).length), 10);
    const box = { x1: "low", x2: "high", y1: (each) => each.at - 0.3, y2: (each) => each.at + 0.3 };
    const said = (point) => `${EPVS.key(point.row)}\n${names[point.group]}: ${EPVS.withUnit(point.value, unit)}`;
    return opens(draw({ title, words, width, height: 60 + 46 * Math.max(names.length, 2), marginLeft, marginBottom: 48, marginTop: 8,
      x: { ...AXIS, label: name, grid: true, tickFormat: plainly, labelOffset: 42, zero: true, nice: true },
      /* The first group on top, as in the table below. */
      y: { ...AXIS, domain: [-0.5, names.length - 0.5], reverse: true, label: null },
      marks: [
        Plot.axisY(d3.range(names.length), { tickSize: 0, fontSize: 13, tickFormat: (at) => `${short(names[at], most)}\n${boxes[at].n} scans` }),
        Plot.rect(full, { ...box, fill: "var(--box)" }),
        Plot.dot(points, { x: "value", y: "y", r: radius(points.length), fill: "var(--strong)", fillOpacity: points.length < 1000 ? 0.65 : 0.4, stroke: null, title: said, tip: true }),
        Plot.rect(full, { ...box, fill: "none", stroke: "var(--text)", strokeWidth: 1.5 }),
        Plot.link(full, { x1: "middle", x2: "middle", y1: (each) => each.at - 0.34, y2: (each) => each.at + 0.34, stroke: "var(--mark)", strokeWidth: 3 }),
      ] }));
  };

  /* A measure over the date: each scanner has a colour, a shape and a dash of its own. */
  const SHAPES = ["circle", "square", "triangle", "diamond", "cross", "star"];
  const DASHES = ["none", "10 4", "3 4", "14 4 3 4", "6 6", "none"];
  const sign = (at) => EPVS.fill(named(Plot.plot({ className: CLASS, width: 34, height: 14, margin: 0, x: { domain: [0, 34] }, y: { domain: [0, 14] }, axis: null, marks: [
    Plot.link([0], { x1: 0, x2: 34, y1: 7, y2: 7, stroke: `var(--g${at})`, strokeWidth: 3, strokeDasharray: DASHES[at] }),
    Plot.dot([0], { x: 17, y: 7, r: 4.5, symbol: SHAPES[at], fill: `var(--g${at})`, stroke: "var(--ground)" })] })), { "aria-hidden": "true" }, []);
  const overDates = (points, lines, { title, words, name, unit, groups: known, bounds }) => {
    const said = (point) => `${EPVS.key(point.row)}\n${point.group}\n${new Date(point.time).toISOString().slice(0, 10)}: ${EPVS.withUnit(point.value, unit)}`;
    const paths = known.map((group, at) => [lines.filter((point) => point.group === group), at]).filter(([path]) => path.length > 1);
    const line = (path, more) => Plot.line(path, { x: (point) => new Date(point.time), y: "value", ...more });
    return opens(draw({ title, words, width: room(940), height: 380, marginLeft: 68, marginBottom: 48, marginTop: 14,
      x: { ...AXIS, type: "utc", label: "date of acquisition", labelOffset: 42, grid: true },
      y: { ...AXIS, label: name, grid: true, tickFormat: plainly, nice: true, labelOffset: 56 },
      color: { domain: known, range: known.map((_, at) => `var(--g${at})`) },
      symbol: { domain: known, range: SHAPES.slice(0, known.length) },
      marks: [
        Plot.ruleY(EPVS.known(bounds), DASHED),
        Plot.dot(points, { x: (point) => new Date(point.time), y: "value", r: radius(points.length), fill: "group", symbol: "group", fillOpacity: 0.6, stroke: null, title: said, tip: true }),
        paths.map(([path, at]) => [line(path, { stroke: "var(--ground)", strokeWidth: 6 }),
          line(path, { stroke: `var(--g${at})`, strokeWidth: 3, strokeDasharray: DASHES[at] })]),
      ] }));
  };

  /* Where one value lies among all: a thin strip for a row of a table, its ends named. */
  const strips = new Map();
  const strip = (measure, mark) => {
    const bounds = EPVS.known([measure.low, measure.high]);
    if (!strips.has(measure.name)) {
      const known = EPVS.known(measure.values);
      const domain = extent([...known, ...bounds]);
      const edges = d3.range(1, 48).map((at) => domain[0] + (domain[1] - domain[0]) * at / 48);
      const bins = d3.bin().domain(domain).thresholds(edges)(known);
      strips.set(measure.name, { domain, bins: bins.map((bin) => ({ x0: bin.x0, x1: bin.x1, n: Math.sqrt(bin.length) })) });
    }
    const { domain, bins } = strips.get(measure.name);
    const chart = named(Plot.plot({ className: CLASS, width: 190, height: 38, marginLeft: 6, marginRight: 6, marginTop: 1, marginBottom: 14,
      x: { domain, axis: null }, y: { axis: null },
      marks: [
        Plot.rectY(bins, { x1: "x0", x2: "x1", y: "n", fill: "var(--strong)", fillOpacity: 0.75, insetRight: 0.5 }),
        Plot.ruleX(bounds, DASHED), Plot.ruleX([mark], { stroke: "var(--mark)", strokeWidth: 3.5 }),
        ["start", "end"].map((textAnchor, end) => Plot.text([domain[end]], { x: (value) => value, text: (value) => number(value, 3), textAnchor,
          frameAnchor: "bottom", dy: 12, fill: "var(--soft)" })),
      ] }));
    chart.setAttribute("aria-hidden", "true");
    chart.classList.add("strip");
    return chart;
  };

  return { histogram, groups, overDates, sign, strip };
})();
