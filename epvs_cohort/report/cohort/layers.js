"use strict";
/* Pictures of a scan in layers: heat, outlines and numbered lesions that are turned on and off, and a flicker of the template's edges. */
EPVS.layers = (() => {
  const { el, svg } = EPVS;
  const FLICKER_MS = 600;
  const SWITCHES = [["lines", "Outlines", "o"], ["heat", "Heat", "h"], ["marks", "Lesions", "l"]];
  /* Kept from scan to scan: who looks without heat wants the next one without it too. */
  const on = { lines: true, heat: true, marks: true };
  let place = null;
  let timer = 0;

  const source = (found, name) => `data:image/webp;base64,${found[name]}`;
  const over = (found, name, kind) => (name && found[name] ? el("img", { class: `layer ${kind}`, src: source(found, name), alt: "" }) : null);

  /* Marks keep their size on the screen whatever the size of the frame. */
  const marks = (view, radius) => svg("svg", { class: "layer marks", viewBox: `0 0 ${view.size[0]} ${view.size[1]}`, "aria-hidden": "true" },
    view.lesions.map(([number, x, y]) => [svg("circle", { cx: x, cy: y, r: radius, "stroke-width": radius / 6 }),
      svg("text", { x: x + radius, y: y - radius * 0.6, "font-size": radius * 1.6 }, String(number))]));

  const stack = (view, found, words, radius) => el("div", { class: "stack" },
    el("img", { src: source(found, view.under), alt: words }), over(found, view.outline, "lines"), over(found, view.heat, "heat"),
    view.outline ? null : over(found, view.lines, "lines"), marks(view, radius));

  const sliceFigure = (view, found) => {
    const listed = view.lesions.length ? `lesions ${view.lesions.map(([number]) => number).join(", ")}` : "no lesion";
    return el("figure", { class: "slice" }, stack(view, found, `Axial slice ${view.slice}, ${view.title}: ${listed} marked`, 5),
      el("figcaption", {}, el("b", {}, view.title), `, slice ${view.slice} of the grid: ${listed}`));
  };

  const paint = () => {
    for (const [name] of SWITCHES) place?.classList.toggle(`no-${name}`, !on[name]);
    for (const box of place?.querySelectorAll("input[data-layer]") ?? []) box.checked = on[box.dataset.layer];
  };
  const toggle = (name) => { on[name] = !on[name]; paint(); };

  const stop = () => {
    clearInterval(timer);
    timer = 0;
    const button = place?.querySelector("#flicker");
    if (button) button.setAttribute("aria-pressed", "false");
    place?.querySelector(".registration")?.classList.remove("plain");
  };
  const flicker = () => {
    const figure = place?.querySelector(".registration");
    if (!figure) return;
    if (timer) { stop(); return; }
    place.querySelector("#flicker").setAttribute("aria-pressed", "true");
    timer = setInterval(() => figure.classList.toggle("plain"), FLICKER_MS);
  };

  const registration = (found) => {
    if (!found["registration.webp"]) return null;
    const plain = found["registration_plain.webp"];
    return el("figure", { class: "registration" }, el("h3", {}, "Registration: the template's edges on the scan"),
      el("div", { class: "stack" }, plain ? el("img", { src: source(found, "registration_plain.webp"), alt: "" }) : null,
        el("img", { class: plain ? "layer edges" : null, src: source(found, "registration.webp"),
          alt: "Sagittal, coronal and axial plane with edges of brain, white matter and ventricles of the template" })),
      el("figcaption", {}, "Do the edges follow brain, white matter and ventricles? ",
        plain ? el("button", { type: "button", id: "flicker", "aria-pressed": "false", onclick: flicker }, "Flicker (f)") : null));
  };

  const show = (layers, found) => {
    const boxes = SWITCHES.map(([name, words, key]) => el("label", {}, el("input", { type: "checkbox", "data-layer": name,
      onchange: () => toggle(name) }), ` ${words} (${key})`));
    place = el("div", { class: "layers" },
      el("fieldset", { class: "switches" }, el("legend", {}, "Shown on the pictures"), boxes),
      el("h3", {}, "Slice of the anterior commissure with its neighbours, and slices with most lesions"),
      el("div", { class: "slices" }, layers.slices.map((view) => sliceFigure(view, found))),
      el("p", { class: "soft" }, "Radiological convention: the person's right is on the left. Heat runs from dark to bright. Grey outline: mask; green: " +
        "lesion; numbered circle: its centre lies within 1.5 slices of the grid. Slices beside the AC are as the network sees them."),
      el("div", { class: "pictures" },
        layers.planes ? el("figure", {}, el("h3", {}, "Three planes through the region"),
          stack(layers.planes, found, "Sagittal, coronal and axial plane through the basal ganglia", 9),
          el("figcaption", {}, "Does each outline lie on its structure? Vermilion: what the network sees. Lesions within 3 mm of a plane are marked.")) : null,
        registration(found)));
    paint();
    return place;
  };

  return { show, toggle, flicker, stop };
})();
