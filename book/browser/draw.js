/* What the neuron browser draws: SVG and small pieces of HTML from numbers. Knows nothing of the page around it. */
"use strict";

const KNDraw = (() => {
  const NS = "http://www.w3.org/2000/svg";
  let serial = 0;

  /* An element with attributes, and what is in it; `svg` ones by a leading colon: make(":circle", {r: 3}). */
  function make(tag, attributes = {}, ...inside) {
    const node = tag[0] === ":" ? document.createElementNS(NS, tag.slice(1)) : document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...inside.flat(Infinity).filter((one) => one !== null && one !== undefined));
    return node;
  }

  function svg(width, height, words, ...inside) {
    const id = "knb-t" + ++serial;
    return make(":svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-labelledby": id, xmlns: NS },
      make(":title", { id }, words), ...inside);
  }

  const text = (x, y, words, more = {}) => make(":text", { x, y, ...more }, String(words));
  const digits = (value) => (value === null || value === undefined ? "–"
    : Number(value.toPrecision(3)).toString().replace("-", "−"));
  const percent = (share) => (share === null || share === undefined ? "–"
    : `${Math.round(100 * share)} %`.replace("-", "−"));
  const shade = (share) => `color-mix(in oklab, var(--knb-many) ${Math.round(100 * share)}%, var(--knb-few))`;

  /* Linear near zero, logarithmic beyond `bend`: 0 to 1 within the scale's ends. */
  const bent = (scale) => (value) => (Math.asinh(value / scale.bend) - scale.low) / (scale.high - scale.low);
  const straight = (scale) => (share) => scale.bend * Math.sinh(scale.low + share * (scale.high - scale.low));

  /* Layer x score: all neurons as shades,
    the list's as dots. `pick(i)`, `brush([layers, scores] or null)`, `point(i)`. */
  function atlas(world, rows, state, chosen, on) {
    const narrow = on.width < 560, W = narrow ? 390 : 900, H = narrow ? 260 : 290, left = 46, bottom = 34, top = 8;
    const scale = world.density[state.v], y01 = bent(scale), L = world.layers,
      concept = world.concepts.indexOf(state.c);
    const column = (W - left - 8) / L, X = (layer, unit) => left + column * (layer + 0.1 + 0.8 * unit / world.width);
    const Y = (value) => top + (1 - y01(value)) * (H - top - bottom);
    const picture = svg(W, H, `${rows.length} neurons by layer and ${world.measures[state.v]}`);
    const tall = (H - top - bottom) / scale.bins, map = scale.maps[concept + 1] || scale.maps[0],
      behind = make(":g", { class: "knb-density" });
    for (let layer = 0; layer < L; layer++) for (let bin = 0; bin < scale.bins; bin++) {
      const count = +map[layer * scale.bins + bin];
      if (count) behind.append(make(":rect", { x: left + column * layer, y: H - bottom - (bin + 1) * tall,
        width: column - 0.6,
        height: tall, "fill-opacity": 0.05 + 0.05 * count }));
    }
    picture.append(behind);
    const ticks = [0];
    for (let power = Math.ceil(Math.log10(scale.bend)); power < 6; power++) ticks.push(10 ** power, -(10 ** power));
    for (const tick of ticks.filter((value) => y01(value) >= 0 && y01(value) <= 1)) {
      picture.append(make(":line", { class: "knb-grid", x1: left, x2: W - 8, y1: Y(tick), y2: Y(tick) }),
        text(left - 5, Y(tick) + 4, digits(tick), { "text-anchor": "end" }));
    }
    for (let layer = 0; layer < L; layer += Math.ceil(L / (narrow ? 6 : 12))) {
      picture.append(text(left + column * (layer + 0.5), H - bottom + 15, layer, { "text-anchor": "middle" }));
    }
    picture.append(text((left + W) / 2, H - 3, "layer", { "text-anchor": "middle" }));
    const limit = concept >= 0 && world.thresholds[state.v] ? world.thresholds[state.v][concept] : null;
    if (limit !== null) picture.append(make(":line", { class: "knb-limit", x1: left, x2: W - 8, y1: Y(limit),
      y2: Y(limit) }),
      text(W - 10, Y(limit) - 4, "threshold", { "text-anchor": "end" }));
    const most = Math.max(...rows.map(({ i }) => KN.value(i, "delta", concept)), 1e-9), n = world.concepts.length;
    const dots = make(":g", { class: "knb-dots" });
    for (const { i, own, score } of [...rows].reverse()) {
      const r = 2.6 + 4.5 * Math.sqrt(Math.max(0, KN.value(i, "delta", concept)) / most);
      dots.append(make(":circle", { cx: X(world.layer[i], world.unit[i]).toFixed(1), cy: Y(score).toFixed(1),
        r: r.toFixed(1),
        "data-i": i, style: `fill:${shade(n > 1 ? (own - 1) / (n - 1) : 0)}` },
          make(":title", {}, `${KN.name(i)}, in ${own} of ${n} sets`)));
    }
    picture.append(dots);
    if (chosen !== undefined && world.layer[chosen] !== undefined && KN.value(chosen, state.v, concept) !== null) {
      picture.append(make(":circle", { class: "knb-chosen", r: 9, cx: X(world.layer[chosen], world.unit[chosen]),
        cy: Y(KN.value(chosen, state.v, concept)) }));
    }
    let from = null, box = null;
    const at = (event) => { const r = picture.getBoundingClientRect();
      return [(event.clientX - r.left) * W / r.width, (event.clientY - r.top) * H / r.height]; };
    picture.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "touch") return; // a finger scrolls the page
      from = at(event);
      event.preventDefault();
    });
    picture.addEventListener("pointermove", (event) => {
      const dot = event.target.closest("[data-i]");
      on.point(dot ? +dot.dataset.i : null);
      if (!from) return;
      const to = at(event), ends = [0, 1].map((axis) => [from[axis], to[axis]].sort((a, b) => a - b));
      if (!box && Math.hypot(to[0] - from[0], to[1] - from[1]) > 6) {
        box = make(":rect", { class: "knb-brush" });
        picture.append(box);
      }
      if (!box) return;
      const [[x, right], [y, under]] = ends, size = { x, y, width: right - x, height: under - y };
      for (const [key, value] of Object.entries(size)) box.setAttribute(key, value);
    });
    picture.addEventListener("pointerup", (event) => {
      const to = at(event), dot = event.target.closest("[data-i]"), back = straight(scale);
      const score = (y) => back(1 - (y - top) / (H - top - bottom)), layer = (x) => Math.floor((x - left) / column);
      if (box) {
        const [first, last] = [layer(from[0]), layer(to[0])].sort((a, b) => a - b);
        on.brush([first, last, ...[score(from[1]), score(to[1])].sort((a, b) => a - b)]);
      } else if (dot) on.pick(+dot.dataset.i);
      from = box = null;
    });
    return picture;
  }

  /* A bar a concept, to either side of zero, a tick where its limit is; of what was not measured it says so. */
  function bars(heading, names, values, marked, limits) {
    const W = 240, tall = 15, left = 62, room = W - left - 44, known = values.map((value) => value ?? 0);
    const low = Math.min(0, ...known), high = Math.max(0, ...known, ...(limits || [])), unit = room / (high - low || 1);
    const zero = left - low * unit;
    const words = names.map((name, i) => `${name} ${digits(values[i])}`).join(", ");
    const picture = svg(W, tall * names.length + 2, `${heading}: ${words}`);
    names.forEach((name, i) => {
      const y = tall * i, value = values[i], tick = limits ? zero + limits[i] * unit : zero;
      picture.append(text(left - 6, y + 11, name, { "text-anchor": "end", class: marked[i] ? "knb-own" : "" }));
      if (value === null || value === undefined) {
        picture.append(text(zero + 3, y + 11, "not measured", { class: "knb-faint" }));
        return;
      }
      const width = Math.max(1, Math.abs(value) * unit), tone = value < 0 ? "knb-minus" : "knb-plus";
      const x = value < 0 ? zero - width : zero, end = Math.max(zero, zero + value * unit, tick);
      picture.append(make(":rect", { x, y: y + 2, width, height: tall - 5, rx: 1.5, class: tone }),
        text(end + 4, y + 11, digits(value)));
      if (limits) picture.append(make(":line", { class: "knb-tick", x1: tick, x2: tick, y1: y + 1, y2: y + tall - 2 }));
    });
    picture.append(make(":line", { class: "knb-zero", x1: zero, x2: zero, y1: 0, y2: tall * names.length }));
    return make("div", { class: "knb-bars" }, make("h3", {}, heading), picture);
  }

  /* A cell a picture and a row a concept: how much each picture that chose the neurons moved this one. */
  function strip(names, rows, most) {
    const W = 240, tall = 15, left = 62, wide = Math.min(17, (W - left) / Math.max(...rows.map((row) => row.length)));
    const picture = svg(W, tall * names.length, "Difference on each picture that chose neurons, a row a concept");
    rows.forEach((row, i) => {
      picture.append(text(left - 6, tall * i + 11, names[i], { "text-anchor": "end" }));
      row.forEach((value, j) => picture.append(make(":rect", {
        x: left + wide * j, y: tall * i + 1, width: wide - 1.5, height: tall - 3, rx: 1.5,
        class: value < 0 ? "knb-minus" : "knb-plus",
        "fill-opacity": (0.06 + 0.94 * Math.abs(value) / (most || 1)).toFixed(2),
      }, make(":title", {}, `${names[i]}, picture ${j + 1}: ${digits(value)}`))));
    });
    return make("div", { class: "knb-bars" }, make("h3", {}, "difference, picture by picture"), picture);
  }

  /* A map of rows x columns over a picture, with the object's outline; `point(cell or null)`. */
  function overlay(values, grid, most, outline, point) {
    const [rows, columns] = grid, box = { viewBox: "0 0 100 100", preserveAspectRatio: "none" };
    const picture = make(":svg", { ...box, class: "knb-over", "aria-hidden": "true" });
    values.forEach((value, cell) => picture.append(make(":rect", {
      x: (cell % columns) * 100 / columns, y: Math.floor(cell / columns) * 100 / rows,
      width: 100 / columns, height: 100 / rows, class: value < 0 ? "knb-minus" : "knb-plus",
      "fill-opacity": (0.8 * Math.sqrt(Math.abs(value) / (most || 1))).toFixed(2), "data-cell": cell,
    })));
    if (outline) picture.append(make(":path", { d: outline, class: "knb-outline-dark" }),
      make(":path", { d: outline, class: "knb-outline" }));
    picture.addEventListener("pointermove", (event) => { const cell = event.target.closest("[data-cell]");
      point(cell ? +cell.dataset.cell : null); });
    picture.addEventListener("pointerleave", () => point(null));
    return picture;
  }

  /* Concept x concept; `cell(row, column)` is {share, words, said}, `pick(row, column)`. */
  function matrix(names, words, cell, chosen, pick) {
    const n = names.length;
    const table = make("table", { class: "knb-squares" }, make("caption", {}, words));
    table.append(make("thead", {}, make("tr", {}, make("td"),
      names.map((name) => make("th", { scope: "col" }, make("span", {}, name))))));
    const body = make("tbody");
    for (let row = 0; row < n; row++) {
      body.append(make("tr", {}, make("th", { scope: "row" }, names[row]), names.map((name, column) => {
        const { share, said } = cell(row, column), is = row === chosen[0] && column === chosen[1];
        return make("td", {}, make("button", { type: "button", "aria-pressed": String(is), class: share > 0.64
          ? "knb-deep" : "",
          style: `--share:${Math.max(0, share || 0).toFixed(3)}`, title: `${names[row]}, ${name}: ${said}`,
          "aria-label": `${names[row]}, ${name}: ${said}`, onclick: () => pick(row, column) }, said));
      })));
    }
    table.append(body);
    return table;
  }

  /* The word's probability over the dose, a line a kind of neurons. `lines` are {words, kind, points: [[place, y]]}. */
  function curve(lines, labels, chosen, before) {
    const W = 300, H = 190, left = 38, bottom = 38;
    const X = (i) => left + 12 + (W - left - 30) * (labels.length < 2 ? 0.5 : i / (labels.length - 1));
    const Y = (y) => 10 + (1 - y) * (H - 10 - bottom);
    const told = ({ words, points }) => `${words}: ${points.map(([i, y]) => `${labels[i]} ${percent(y)}`).join(", ")}`;
    const picture = svg(W, H, `Probability of the word over the dose: ${lines.map(told).join("; ")}`);
    for (const y of [0, 0.5, 1]) picture.append(make(":line",
      { class: "knb-grid", x1: left, x2: W - 6, y1: Y(y), y2: Y(y) }),
      text(left - 5, Y(y) + 4, percent(y), { "text-anchor": "end" }));
    if (before !== null) picture.append(make(":line", { class: "knb-limit", x1: left, x2: W - 6, y1: Y(before),
      y2: Y(before) }), text(W - 8, Y(before) - 4, "undisturbed", { "text-anchor": "end" }));
    for (const { kind, points } of lines) {
      picture.append(make(":polyline", { class: "knb-line " + kind,
        points: points.map(([i, y]) => `${X(i)},${Y(y)}`).join(" ") }));
      for (const [i, y] of points) picture.append(make(":circle",
        { class: "knb-point " + kind, cx: X(i), cy: Y(y), r: i === chosen && kind === "ours" ? 5.5 : 3 }));
    }
    labels.forEach((label, i) => picture.append(text(X(i), H - bottom + 16, label, { "text-anchor": "middle" })));
    return picture;
  }

  return { make, svg, atlas, bars, strip, overlay, matrix, curve, digits, percent, shade, bent, straight };
})();
