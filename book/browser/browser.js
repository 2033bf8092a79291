/* The neuron browser's page: its state is its address; a control changes the state, and what shows it is drawn anew. */
"use strict";

KN.start = async () => {
  const root = document.getElementById("kn-browser"), W = KN.world, { make, digits, percent } = KNDraw;
  await KN.need("core");
  if (!W.concepts) return; // the scripts are not beside the page: its tables stand
  const $ = (id) => document.getElementById("knb-" + id), fill = (node,
    ...inside) => node.replaceChildren(...inside.flat(Infinity).filter((one) => one || one === 0));
  const THIRD = Object.keys(W.methods)[1], standard = { m: "two-stage", k: String(W.budget), v: "gradcam", w: "gradcam",
    x: "shared" };
  let state = {}, brush = null, rows = [], hovered = null;
  const concept = () => W.concepts.indexOf(state.c), chosen = () => KN.find(state.n);
  const picture = () => Math.max(0, W.pictures.findIndex((one) => one.id === state.p));

  /* What the state needs of the shards that come later. */
  async function wanted() {
    if (state.m !== "two-stage" || (state.n && chosen() === undefined) || state.E) await KN.need("third");
    if (!["two-stage", THIRD].includes(state.m) || (state.n && chosen() === undefined)) await KN.need("rest");
  }

  async function go(change, keep) {
    state = { ...state, ...change };
    if (("p" in change || "c" in change) && state.E) state.E = state.E.replace(/^[^,]*/, ""); // the picture's own set
    if ("c" in change || "m" in change) brush = null;
    if ("c" in change && state.c
      && W.pictures[picture()].concept !== concept()) state.p = W.pictures[W.pictures.findIndex((one) => one.concept === concept())].id;
    history[keep ? "replaceState" : "pushState"](null, "", KN.address(state));
    await wanted();
    draw();
  }

  /* The state that the address says; what it does not say is as it is at first. */
  async function read() {
    state = { ...standard, ...KN.parse(location.hash) };
    if (!W.methods[state.m]) state.m = standard.m;
    if (!W.measures[state.v]) state.v = standard.v;
    if (state.c && concept() < 0) delete state.c;
    const own = W.pictures.find((one) => one.id === state.p) || W.pictures.find((one) => concept() < 0
      || one.concept === concept());
    state.p = own.id;
    await wanted();
    draw();
    if (KN.parse(location.hash).n
      && root.querySelector("[aria-selected=true]")) $("card").scrollIntoView({ block: "nearest" });
  }

  const option = (value, words, now) => make("option", { value, selected: value === now }, words);
  const chip = (group, value, words, now, change, more = {}) => make("label", { class: more.off ? "knb-off" : "" },
    make("input", { type: "radio", name: "knb-" + group, value, checked: value === now, disabled: more.off,
      onchange: () => change(value) }),
    more.colour ? make("i", { style: `background:${more.colour}` }) : null, words);
  const chips = (group, all, now, change, off = () => false, colours = []) => fill($(group),
    $(group).querySelector("legend"),
    all.map(([value, words], i) => chip(group, value, words, now, change, { off: off(value), colour: colours[i] })));
  const choose = (i) => go({ n: `${W.layer[i]}.${W.unit[i]}` });

  function drawBar() {
    chips("concepts", [["", "all"], ...W.concepts.map((name) => [name, name])], state.c || "", (c) => go({ c }),
      undefined, ["", ...W.colours]);
    fill($("m"), Object.entries(W.methods).map(([value, words]) => option(value, words, state.m)));
    fill($("k"), [...new Set([5, 10, 20, 40, W.budget, +state.k].filter((k) => k <= W.budget))].sort((a,
      b) => a - b).map((k) => option(String(k), k, state.k)));
    fill($("v"), Object.entries(W.measures).map(([value, words]) => option(value, words, state.v)));
    const n = W.concepts.length, words = { one: "one concept's own", some: `2 to ${n - 1} concepts`,
      all: `all ${n} concepts` };
    for (const each of $("o").options) if (words[each.value]) each.textContent = words[each.value];
    $("o").value = state.o || ""; $("s").value = state.s || "";
    if (document.activeElement !== $("q")) $("q").value = state.q || "";
  }

  function drawAtlas() {
    const own = rows.filter((row) => row.own === 1).length,
      all = rows.filter((row) => row.own === W.concepts.length).length;
    fill($("atlas"), KNDraw.atlas(W, rows, state, chosen(), { width: $("atlas").clientWidth,
      pick: choose,
      point: (i) => { hovered = i; told(); }, brush: (box) => { brush = box; draw(); } }));
    const n = W.concepts.length, ramp = [1, Math.ceil(n / 2),
      n].map((k) => [make("i", { style: `background:${KNDraw.shade(n > 1 ? (k - 1) / (n - 1) : 0)}` }), `${k} `]);
    fill($("legend"), "A dot is a neuron of a set, in how many concepts’ sets: ", ...ramp,
      "; its size: the difference that the object makes. Behind: all ",
      (W.layers * W.width).toLocaleString("en"), " neurons. Drag to choose a part; click a dot. ",
      brush ? make("button", { type: "button", onclick: () => { brush = null; draw(); } }, "show all again") : "");
    told(own, all);
  }

  function told() {
    const own = rows.filter((row) => row.own === 1).length,
      all = rows.filter((row) => row.own === W.concepts.length).length, n = W.concepts.length;
    const words = hovered !== null
      ? `${KN.name(hovered)}: in the sets of ${KN.owners(hovered, state.m, +state.k)} of ${n} concepts, ${W.measures[state.v].split(" (")[0]} ${digits(KN.value(hovered, state.v, concept()))}.`
      : `${rows.length} neurons of ${state.c ? `“${state.c}”` : `${n} concepts`} by ${W.methods[state.m]}: ${own} in one concept’s set alone, ${all} in all ${n}.`;
    if ($("status").textContent !== words) $("status").textContent = words;
  }

  const COLUMNS = [["neuron", "neuron", "in order of layers"], ["sets", "sets", "in how many concepts’ sets"],
    ["", "rank", "best rank"], ["gradcam", "grad", "gradient score"],
    ["delta", "diff", "difference"], ["third", "3rd", "third stage’s score"],
      ["removed", "taken out", "what the word’s logit loses without it"]];

  function drawList() {
    const n = W.concepts.length;
    fill($("head"), make("tr", {}, COLUMNS.map(([r, words, title]) => make("th",
      { scope: "col", title, "aria-sort": (state.r || "") === r ? "descending" : null },
      make("button", { type: "button", onclick: () => go({ r }, true) }, words)))));
    fill($("rows"), rows.map(({ i, rank, own }) => make("tr", { "aria-selected": String(i === chosen()), "data-i": i },
      make("td", {}, make("button", { type: "button", tabindex: i === chosen() ? 0 : -1,
        onclick: () => choose(i) }, KN.name(i)),
        KN.disagrees(i, concept()) ? make("b", { class: "knb-bad", title: "its score and its removal disagree" }, "!")
          : null),
      make("td", {}, make("span", { class: "knb-share", style: `--share:${own / n}` }), `${own}/${n}`),
        make("td", {}, String(rank)),
      ["gradcam", "delta", "third"].map((measure) => make("td", {}, digits(KN.value(i, measure, concept())))),
        make("td", {}, digits(KN.removed(i, concept()))))));
    if (rows.length && !rows.some(({ i }) => i === chosen())) $("rows").querySelector("button").tabIndex = 0;
    if (!rows.length) fill($("rows"), make("tr", {}, make("td", { colspan: 7 },
      "No neuron is left by these filters.")));
  }

  async function drawCard() {
    const i = chosen(), names = W.concepts;
    if (i === undefined) {
      fill($("h-card"), state.n ? `Layer ${state.n.replace(".", " · unit ")}` : "No neuron chosen");
      fill($("whose"), state.n ? "It is among no method’s best neurons of this run, so nothing is kept of it."
        : "Choose a dot or a row.");
      fill($("owners")); fill($("facts")); fill($("charts")); drawPictures(undefined);
      return;
    }
    const bad = names.filter((_, at) => KN.disagrees(i, at));
    const ranks = KN.ranks(i, state.m, +state.k), own = ranks.filter(Boolean).length,
      alone = names[ranks.findIndex(Boolean)];
    fill($("h-card"), `Layer ${W.layer[i]} · unit ${W.unit[i]}`);
    fill($("whose"), own === 0 ? `In no concept’s set by ${W.methods[state.m]}.` : own === 1
      ? make("span", {}, "Of ", make("strong", {}, alone), " alone: no other concept’s set holds it.")
      : own === names.length ? make("span", {}, make("strong", {}, "Nobody’s own"),
        `: the sets of all ${own} concepts hold it.`) : make("span", {}, make("strong", {}, `Shared by ${own}`),
        ` of ${names.length} concepts.`),
    bad.length
      ? make("span", { class: "knb-bad" },
      ` ! Its score says that it helps to say ${bad.join(", ")}; taking it out says that it hurts, or the reverse.`)
      : "");
    fill($("owners"), names.map((name, at) => make("button", { type: "button", class: ranks[at] ? "knb-in" : "",
      style: `--mine:${W.colours[at]}`, onclick: () => go({ c: name }),
      "aria-pressed": String(at === concept()) }, name, make("small", {}, ranks[at] ? ` ${ranks[at]}.` : " –"))));
    const mine = names.map((_, at) => ranks[at] > 0), effect = names.map((_, at) => (W.exact[i] || {})[at]);
    const charts = [["gradient score, stage 2", "gradcam", W.thresholds.gradcam],
      ["difference, stage 1", "delta", W.thresholds.delta], ["gradient, summed", "gradcam-sum"],
      ["third stage", "third"]]
      .map(([words, measure, limits]) => KNDraw.bars(words, names, W.values[measure].map((column) => column[i]), mine,
        limits));
    charts.push(KNDraw.bars("taken out: the logit loses", names, effect.map((one) => (one ? one.removed : null)), mine),
      KNDraw.bars("as without the object", names, effect.map((one) => (one ? one.patched : null)), mine));
    const also = Object.keys(W.methods).filter((method) => method !== state.m).map((method) => [method,
      KN.owners(i, method, W.budget)]).filter(([, many]) => many);
    fill($("facts"), make("p", {}, "It promotes ", W.tokens[i].length
      ? W.tokens[i].map((token) => [make("code", {}, token.replace(/ /g, "␣").replace(/\n/g, "⏎")), " "]) : "–", ". ",
      also.length ? `Also in sets of ${also.map(([method, many]) => `${W.methods[method]} (${many})`).join(", ")}.`
        : ""));
    fill($("charts"), charts);
    const shard = await KN.need("layer-" + W.layer[i]);
    if (i !== chosen()) return;
    const kept = shard && shard.neurons[i];
    if (kept) $("charts").append(KNDraw.strip(names, kept.strip.slice(1).map((text) => KN.decode(text, kept.strip[0])),
      kept.strip[0]));
    drawPictures(kept);
  }

  const source = (file) => `${KN.base}${file}.webp`;
  const image = (file, words) => make("img", { src: source(file), alt: words, width: 224, height: 224 });
  const worded = (caption, clean, name) => KN.pieces(caption, clean,
    name).map(([text, kind]) => (kind ? make(kind === "word" ? "mark" : "u", {}, text) : text));

  function drawPictures(kept) {
    const at = picture(), one = W.pictures[at], name = W.concepts[one.concept], cells = W.grid[0] * W.grid[1];
    const measure = state.w === "none" ? null : kept && kept[state.w], place = kept ? kept.on.indexOf(at) : -1;
    const values = measure && place >= 0 ? KN.decode(measure[1].slice(place * cells, (place + 1) * cells), measure[0])
      : [];
    const read = (cell) => {
      document.querySelectorAll(".knb-over .knb-here").forEach((each) => each.classList.remove("knb-here"));
      document.querySelectorAll(`.knb-over [data-cell="${cell}"]`).forEach((each) => each.classList.add("knb-here"));
      fill($("read"), cell !== null && values.length
        ? `Row ${Math.floor(cell / W.grid[1]) + 1}, column ${cell % W.grid[1] + 1}: ${digits(values[cell])}`
        : !kept ? "No map is kept of this neuron." : place < 0
          ? "No map of it on this picture: a concept that it is not of has one picture with a map." : values.length
          ? `Largest here: ${digits(values.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a), 0))}; on all its pictures: ${digits(measure[0])}. Red pushes up, blue down. Point at a cell.` : "");
    };
    const draws = () => KNDraw.overlay(values.length ? values : new Array(0), W.grid, measure ? measure[0] : 1,
      one.outline, read);
    const fade = image(one.file + "-without", ""); fade.className = "knb-fade";
    fade.style.opacity = $("fade").value / 100;
    for (const frame of ["with", "without", "e-picture"]) $(frame).style.aspectRatio = one.shape.join("/");
    fill($("with"), image(one.file, `A picture of ${name}`), fade, draws());
    fill($("without"), image(one.file + "-without", `The same picture without the ${name}`),
      KNDraw.overlay([], W.grid, 1, one.outline, () => {}));
    fill($("said"), make("b", {}, `with the ${name} `), "“", worded(one.said, one.said, name), "”");
    fill($("said-without"), make("b", {}, "taken out "), "“", worded(one.without, one.said, name), "”");
    read(null);
    const words = [["gradcam", "gradient score"], ["delta", "difference"], ["none", "none"]];
    chips("w", words, state.w, (w) => go({ w }, true));
    fill($("thumbs"), W.pictures.map((each, i) => make("button",
      { type: "button", "aria-pressed": String(i === at), "aria-label": `${W.concepts[each.concept]}: ${each.said}`,
      title: each.said,
      class: kept && !kept.on.includes(i) ? "knb-bare" : "", onclick: () => go({ p: each.id }) },
        make("img", { src: source(each.file), alt: "", width: 40, height: 40, loading: "lazy" }))));
    sets.disturb();
  }

  const sets = KN.sets({ $, fill, option, chips, image, worded, go, choose, picture, state: () => state });

  function draw() {
    rows = KN.list(state, brush);
    if (!state.n && rows.length) state.n = `${W.layer[rows[0].i]}.${W.unit[rows[0].i]}`;
    drawBar(); drawAtlas(); drawList(); drawCard(); sets.compare();
  }

  const copied = async (button, words) => {
    const before = button.dataset.words ||= button.textContent;
    try { await navigator.clipboard.writeText(words); button.textContent = "copied";
      } catch { window.prompt("Copy:", words); }
    setTimeout(() => { button.textContent = before; }, 1500);
  };
  for (const key of ["m", "k", "v", "o", "s"]) $(key).addEventListener("change", () => go({ [key]: $(key).value }));
  $("q").addEventListener("input", () => { const at = KN.find($("q").value);
    go(at === undefined ? { q: $("q").value } : { q: $("q").value, n: `${W.layer[at]}.${W.unit[at]}` }, true); });
  root.querySelectorAll("form").forEach((form) => form.addEventListener("submit", (event) => event.preventDefault()));
  $("fade").addEventListener("input", () => { const fade = root.querySelector(".knb-fade");
    if (fade) fade.style.opacity = $("fade").value / 100; });
  root.querySelectorAll("[data-to]").forEach((button) => button.addEventListener("click",
    () => $(button.dataset.to).scrollIntoView({ block: "start" })));
  $("link").addEventListener("click", () => copied($("link"), location.href));
  $("csv").addEventListener("click", () => copied($("csv"), KN.table(rows, state)));
  $("svg").addEventListener("click", () => {
    const drawn = $("atlas").querySelector("svg"), copy = drawn.cloneNode(true), from = drawn.querySelectorAll("*");
    copy.querySelectorAll("*").forEach((node, i) => { const style = getComputedStyle(from[i]);
      for (const key of ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "font-size",
      "font-family"]) node.style.setProperty(key, style.getPropertyValue(key)); });
    const file = make("a", { href: URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(copy)],
      { type: "image/svg+xml" })), download: `neurons-${state.c || "all"}-${state.m}.svg` });
    file.click(); URL.revokeObjectURL(file.href);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)
      && event.target.type !== "radio") return;
    const step = { j: 1, k: -1 }[event.key];
    if (step || event.key === "/") event.stopImmediatePropagation(); // the book's own keys
    if (step && rows.length) {
      const at = rows.findIndex(({ i }) => i === chosen()), next = rows[Math.min(rows.length - 1,
        Math.max(0, at + step))].i;
      go({ n: `${W.layer[next]}.${W.unit[next]}` },
        true).then(() => { const row = $("rows").querySelector("[aria-selected=true]");
        if (row) row.scrollIntoView({ block: "nearest" }); });
    } else if (event.key === "/") { event.preventDefault(); $("q").focus(); }
    else if (/^\d$/.test(event.key) && +event.key <= W.concepts.length) go({ c: event.key === "0" ? ""
      : W.concepts[event.key - 1] });
  }, true);
  window.addEventListener("popstate", read);
  let width = 0;
  new ResizeObserver(() => { if (Math.abs($("atlas").clientWidth - width) > 40) { width = $("atlas").clientWidth;
    drawAtlas(); } }).observe($("atlas"));
  root.hidden = false;
  document.querySelectorAll("details.knb-plain").forEach((each) => { each.open = false; });
  await read();
  for (const name of ["said", "third", "rest"]) await KN.need(name);
  drawAtlas(); drawCard(); // what other methods say of the neuron, and where a concept's neurons lie, is known now
};

/* The list as a table of numbers, as 'copy as CSV' gives it. */
KN.table = (rows, state) => {
  const concept = KN.world.concepts.indexOf(state.c), measures = Object.keys(KN.world.measures);
  return KN.csv(["layer", "unit", "sets", "rank", ...measures, "removed", "promotes"],
    rows.map(({ i, own, rank }) => [KN.world.layer[i], KN.world.unit[i], own, rank,
    ...measures.map((measure) => KN.value(i, measure, concept)), KN.removed(i, concept),
      KN.world.tokens[i].join(" ")]));
};

document.addEventListener("DOMContentLoaded", () => KN.start());
