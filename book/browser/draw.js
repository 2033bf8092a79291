/* What the neuron browser draws: SVG and small pieces of HTML from numbers. Knows nothing of the page around it. */
"use strict";

const KNDraw = (() => {
  const { W } = KN, NS = "http://www.w3.org/2000/svg";

  /* An element with attributes, and what is in it; `svg` ones by a leading colon: make(":circle", {r: 3}). */
  function make(tag, attributes = {}, ...inside) {
    const node = tag[0] === ":" ? document.createElementNS(NS, tag.slice(1)) : document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
    }
    return fill(node, ...inside);
  }

  function fill(node, ...inside) {
    node.replaceChildren(...inside.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== ""));
    return node;
  }

  const svg = (width, height, words, ...inside) => make(":svg",
    { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words, xmlns: NS }, ...inside);
  const text = (x, y, words, anchor = "middle") => make(":text", { x, y, "text-anchor": anchor }, String(words));
  const line = (kind, x1, x2, y) => make(":line", { class: `knb-${kind}`, x1, x2, y1: y, y2: y });
  const digits = (value) => (value === null || value === undefined ? "–"
    : String(Number(value.toPrecision(3))).replace("-", "−"));
  const percent = (share) => (share === null || share === undefined ? "–"
    : `${Math.round(100 * share)} %`.replace("-", "−"));
  const shade = (own) => `color-mix(in oklab, var(--knb-many) ${
    Math.round(100 * (own - 1) / Math.max(1, W.concepts.length - 1))}%, var(--knb-few))`;
  const tone = (value) => (value < 0 ? "knb-minus" : "knb-plus");

  /* Layer x score, linear near zero and logarithmic beyond `bend`: all neurons as shades, the list's as dots, each of
     which is a control for its neuron. A dragged box is told to `brush` as [layer, layer, score, score]. */
  function atlas(rows, state, chosen, narrow, brush) {
    const width = narrow ? 390 : 900, height = narrow ? 260 : 290, left = 46, right = width - 8, top = 8;
    const floor = height - 34, room = floor - top, column = (right - left) / W.layers, tall = room / W.density.bins;
    const concept = W.concepts.indexOf(state.c), { bend, low, high, maps } = W.density.measures[state.v];
    const X = ({ layer, unit }) => left + column * (layer + 0.1 + 0.8 * unit / W.width);
    const Y = (score) => floor - room * (Math.asinh(score / bend) - low) / (high - low);
    const score = (y) => bend * Math.sinh(low + (high - low) * (floor - y) / room);
    const behind = Array.from(maps[concept + 1] || maps[0], (count, i) => (count === "0" ? null : make(":rect", {
      x: left + column * Math.floor(i / W.density.bins), y: floor - (i % W.density.bins + 1) * tall,
      width: column - 0.6, height: tall, "fill-opacity": 0.05 + 0.05 * count })));
    const powers = Array.from({ length: 12 }, (_, i) => 10 ** (i - 6)).filter((power) => power >= bend);
    const ticks = [0, ...powers, ...powers.map((power) => -power)].filter((tick) => Y(tick) >= top && Y(tick) <= floor);
    const every = Math.ceil(W.layers / (narrow ? 6 : 12));
    const layers = [...Array(W.layers).keys()].filter((layer) => layer % every === 0);
    const limit = W.thresholds[state.v]?.[concept];
    const size = ({ neuron }) => Math.max(0, KN.value(neuron, "delta", concept));
    const most = Math.max(...rows.map(size), 1e-9);
    const dots = rows.map((row) => make(":circle", { "data-key": "n", value: row.neuron.n, "data-i": row.neuron.i,
      cx: X(row.neuron).toFixed(1), cy: Y(row.score).toFixed(1), r: 2.6 + 4.5 * Math.sqrt(size(row) / most),
      style: `fill:${shade(row.own)}` }, make(":title", {}, `${row.neuron.name}: in the sets of ${row.own} of ${
      W.concepts.length} concepts, ${W.measures[state.v].split(" (")[0]} ${digits(row.score)}`))).reverse();
    const box = make(":rect", { class: "knb-brush" });
    const picture = svg(width, height, `${rows.length} neurons by layer and ${W.measures[state.v]}`,
      make(":g", { class: "knb-density" }, behind),
      ticks.map((tick) => [line("grid", left, right, Y(tick)), text(left - 5, Y(tick) + 4, digits(tick), "end")]),
      layers.map((layer) => text(left + column * (layer + 0.5), floor + 15, layer)),
      text((left + right) / 2, height - 3, "layer"),
      limit === undefined ? null
        : [line("limit", left, right, Y(limit)), text(right - 2, Y(limit) - 4, "threshold", "end")],
      make(":g", { class: "knb-dots" }, dots),
      chosen ? make(":circle", { class: "knb-chosen", r: 9, cx: X(chosen),
        cy: Y(KN.value(chosen, state.v, concept)) }) : null, box);

    let from = null;
    const at = (event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse());
    const pair = (a, b) => (a < b ? [a, b] : [b, a]);
    const span = (to) => [...pair(from.x, to.x), ...pair(from.y, to.y)];
    picture.onpointerdown = (event) => {
      if (event.pointerType === "touch") return; // a finger scrolls the page
      from = at(event);
      event.preventDefault();
    };
    picture.onpointermove = (event) => {
      if (!from) return;
      const [x, end, y, under] = span(at(event));
      const sides = { x, y, width: end - x, height: under - y };
      for (const [key, length] of Object.entries(sides)) box.setAttribute(key, length);
    };
    picture.onpointerup = (event) => {
      const [x, end, y, under] = from ? span(at(event)) : [0, 0, 0, 0];
      from = null;
      const layer = (place) => Math.floor((place - left) / column);
      if (end - x + under - y > 8) brush([layer(x), layer(end), score(under), score(y)]);
    };
    return picture;
  }

  /* A table of a row a concept; `cells(i)` makes what stands beside the name. */
  const rowed = (heading, own, cells) => make("table", { class: "knb-chart" }, make("caption", {}, heading),
    make("tbody", {}, W.concepts.map((name, i) => make("tr", { class: own[i] ? "knb-own" : "" },
      make("th", { scope: "row" }, name), cells(i)))));

  const track = (more, ...inside) => make("td", {}, make("div", { class: "knb-track", ...more }, ...inside));

  /* A bar a concept, to either side of zero, a tick where its limit is; of what was not measured it says so. */
  function bars(heading, values, own, limits = []) {
    const known = [0, ...values, ...limits].filter(Number.isFinite), low = Math.min(...known);
    const share = (value) => `${(100 * (value - low) / (Math.max(...known) - low || 1)).toFixed(1)}%`;
    return rowed(heading, own, (i) => (Number.isFinite(values[i]) ? [
      track({ style: `--zero:${share(0)}` }, make("i", { class: tone(values[i]), style:
        `left:${share(Math.min(0, values[i]))};width:${share(low + Math.abs(values[i]))}` }),
        i in limits ? make("b", { style: `left:${share(limits[i])}` }) : null),
      make("td", {}, digits(values[i]))] : make("td", { colspan: 2 }, "not measured")));
  }

  /* Rows of cells, red above zero and blue below, that fill their box; `say(row, column, value)` is what one tells. */
  function cells(rows, most, say, ...over) {
    const wide = Math.max(...rows.map((row) => row.length), 1), tall = rows.length || 1;
    return make(":svg", { viewBox: `0 0 ${wide} ${tall}`, preserveAspectRatio: "none", class: "knb-cells",
      "aria-hidden": "true" },
    rows.map((row, y) => row.map((value, x) => make(":rect", { x, y, width: 1, height: 1, class: tone(value),
      "fill-opacity": (0.85 * Math.sqrt(Math.abs(value) / (most || 1))).toFixed(2) },
    make(":title", {}, say(y, x, value))))), over);
  }

  /* A row a concept: how much each picture that chose its neurons moved this one; `texts` are letters. */
  const strip = ([most, ...texts], own) => rowed("difference, picture by picture", own, (of) =>
    track({}, cells([KN.decode(texts[of], most)], most, (_, place, value) =>
      `${W.concepts[of]}, picture ${place + 1}: ${digits(value)}`)));

  /* The word's probability over the doses, a line a kind of neurons, as {kind, points: [[place, share], ...]}. */
  function curve(words, lines, labels, chosen, before) {
    const left = 38, right = 294, floor = 150, Y = (share) => floor - 140 * share;
    const X = (place) => left + 14 + (right - left - 28) * (labels.length < 2 ? 0.5 : place / (labels.length - 1));
    return svg(300, 172, words,
      [0, 0.5, 1].map((share) => [line("grid", left, right, Y(share)),
        text(left - 5, Y(share) + 4, percent(share), "end")]),
      line("limit", left, right, Y(before)), text(right, Y(before) - 4, "undisturbed", "end"),
      lines.map(({ kind, points }) => [make(":polyline", { class: `knb-line ${kind}`,
        points: points.map(([place, share]) => `${X(place)},${Y(share)}`).join(" ") }),
      points.map(([place, share]) => make(":circle", { class: `knb-point ${kind}`, cx: X(place), cy: Y(share),
        r: place === chosen && kind === "ours" ? 5.5 : 3 }))]),
      labels.map((label, place) => text(X(place), floor + 16, label)));
  }

  return { make, fill, atlas, bars, strip, cells, curve, digits, percent };
})();
