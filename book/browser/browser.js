/* The neuron browser's page: its state is its address; a control changes the state, and what shows it is drawn anew. */
"use strict";

KN.start = async () => {
  const root = document.getElementById("kn-browser"), W = KN.world, { make, digits, percent } = KNDraw;
  await KN.need("core");
  if (!W.concepts) return; // the scripts are not beside the page: its tables stand
  const $ = (id) => document.getElementById("knb-" + id);
  const fill = (node, ...inside) => node.replaceChildren(...inside.flat(Infinity).filter((one) => one || one === 0));
  const THIRD = Object.keys(W.methods)[1];
  const standard = { m: "two-stage", k: String(W.budget), v: "gradcam", w: "gradcam", x: "shared" };
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
    if ("c" in change && state.c && W.pictures[picture()].concept !== concept()) {
      state.p = W.pictures.find((one) => one.concept === concept()).id;
    }
    history[keep ? "replaceState" : "pushState"](null, "", KN.address(state));
    await wanted();
    await draw();
  }

  /* The state that the address says; what it does not say is as it is at first. */
  async function read() {
    state = { ...standard, ...KN.parse(location.hash) };
    if (!W.methods[state.m]) state.m = standard.m;
    if (!W.measures[state.v]) state.v = standard.v;
    if (state.c && concept() < 0) delete state.c;
    const known = W.pictures.some((one) => one.id === state.p);
    if (!known) state.p = W.pictures.find((one) => concept() < 0 || one.concept === concept()).id;
    await wanted();
    await draw();
    if (KN.parse(location.hash).n) $("card").scrollIntoView({ block: "nearest" });
  }

  const option = (value, words, now) => make("option", { value, selected: value === now }, words);
  const chip = (group, value, words, now, change, more = {}) => make("label", { class: more.off ? "knb-off" : "" },
    make("input", { type: "radio", name: "knb-" + group, value, checked: value === now, disabled: more.off,
      onchange: () => change(value) }),
    more.colour ? make("i", { style: `--mine:${more.colour}` }) : null, words);
  const chips = (group, all, now, change, off = () => false, colours = []) => fill($(group),
    $(group).querySelector("legend"),
    all.map(([value, words], i) => chip(group, value, words, now, change, { off: off(value), colour: colours[i] })));
  const choose = (i) => go({ n: `${W.layer[i]}.${W.unit[i]}` });

  function drawBar() {
    chips("concepts", [["", "all"], ...W.concepts.map((name) => [name, name])], state.c || "", (c) => go({ c }),
      undefined, ["", ...W.colours]);
    fill($("m"), Object.entries(W.methods).map(([value, words]) => option(value, words, state.m)));
    const tops = [...new Set([5, 10, 20, 40, W.budget, +state.k])].filter((k) => k <= W.budget).sort((a, b) => a - b);
    fill($("k"), tops.map((k) => option(String(k), k, state.k)));
    fill($("v"), Object.entries(W.measures).map(([value, words]) => option(value, words, state.v)));
    const n = W.concepts.length;
    const words = { one: "one concept’s own", some: `2 to ${n - 1} concepts`, all: `all ${n} concepts` };
    for (const each of $("o").options) if (words[each.value]) each.textContent = words[each.value];
    $("o").value = state.o || ""; $("s").value = state.s || "";
    if (document.activeElement !== $("q")) $("q").value = state.q || "";
  }

  function drawAtlas() {
    const point = (i) => { hovered = i; told(); }, framed = (box) => { brush = box; draw(); };
    const on = { width: $("atlas").clientWidth, pick: choose, point, brush: framed };
    fill($("atlas"), KNDraw.atlas(W, rows, state, chosen(), on));
    const n = W.concepts.length, tone = (k) => KNDraw.shade(n > 1 ? (k - 1) / (n - 1) : 0);
    const steps = [...new Set([1, Math.ceil(n / 2), n])];
    const ramp = steps.map((k) => [make("i", { style: `background:${tone(k)}` }), `${k} `]);
    const again = brush && make("button", { type: "button", onclick: () => framed(null) }, "show all again");
    fill($("legend"), "A dot is a neuron of a set, in how many concepts’ sets: ", ramp, "; its size: the difference ",
      `the object makes. Behind: all ${(W.layers * W.width).toLocaleString("en")} neurons. Drag to choose. `, again);
    told();
  }

  /* The line over the atlas: the neuron that is pointed at, or what the filters leave. */
  function told() {
    const n = W.concepts.length, many = (k) => rows.filter((row) => row.own === k).length;
    const whose = state.c ? `“${state.c}”` : `${n} concepts`;
    let words = `${rows.length} neurons of ${whose} by ${W.methods[state.m]}: ${many(1)} in one concept’s set alone, `
      + `${many(n)} in all ${n}.`;
    if (hovered !== null) {
      const score = `${W.measures[state.v].split(" (")[0]} ${digits(KN.value(hovered, state.v, concept()))}`;
      const own = KN.owners(hovered, state.m, +state.k);
      words = `${KN.name(hovered)}: in the sets of ${own} of ${n} concepts, ${score}.`;
    }
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
      for (const part of ["owners", "facts", "charts"]) fill($(part));
      return drawPictures(undefined);
    }
    fill($("h-card"), `Layer ${W.layer[i]} · unit ${W.unit[i]}`);
    const ranks = KN.ranks(i, state.m, +state.k), bad = names.filter((_, at) => KN.disagrees(i, at));
    const warning = ` ! Score and removal disagree on whether it helps to say ${bad.join(", ")}.`;
    fill($("whose"), whose(ranks), bad.length ? make("span", { class: "knb-bad" }, warning) : "");
    fill($("owners"), names.map((name, at) => make("button", {
      type: "button", class: ranks[at] ? "knb-in" : "", style: `--mine:${W.colours[at]}`,
      "aria-pressed": String(at === concept()), onclick: () => go({ c: name }),
    }, name, make("small", {}, ranks[at] ? ` ${ranks[at]}.` : " –"))));
    const others = Object.keys(W.methods).filter((method) => method !== state.m && KN.owners(i, method, W.budget));
    const also = others.map((method) => `${W.methods[method]} (${KN.owners(i, method, W.budget)})`).join(", ");
    const visible = (token) => [make("code", {}, token.replace(/ /g, "␣").replace(/\n/g, "⏎")), " "];
    fill($("facts"), make("p", {}, "It promotes ", W.tokens[i].length ? W.tokens[i].map(visible) : "–", ". ",
      also ? `Also in sets of ${also}.` : ""));
    drawBars(i, ranks.map(Boolean));
    const shard = await KN.need("layer-" + W.layer[i]);
    if (i !== chosen()) return undefined; // another one was chosen meanwhile
    const kept = shard && shard.neurons[i];
    if (kept) {
      const [most, ...texts] = kept.strip;
      $("charts").append(KNDraw.strip(names, texts.map((text) => KN.decode(text, most)), most));
    }
    return drawPictures(kept);
  }

  function whose(ranks) {
    const own = ranks.filter(Boolean).length, n = W.concepts.length, first = W.concepts[ranks.findIndex(Boolean)];
    const strong = (words) => make("strong", {}, words);
    if (own === 0) return [`In no concept’s set by ${W.methods[state.m]}.`];
    if (own === 1) return ["Of ", strong(first), " alone: no other concept’s set holds it."];
    return own === n ? [strong("Nobody’s own"), `: the sets of all ${n} concepts hold it.`]
      : [strong(`Shared by ${own}`), ` of ${n} concepts.`];
  }

  function drawBars(i, mine) {
    const names = W.concepts, effect = (which) => names.map((_, at) => ((W.exact[i] || {})[at] || {})[which]);
    const of = (measure) => W.values[measure].map((column) => column[i]);
    fill($("charts"),
      KNDraw.bars("gradient score, stage 2", names, of("gradcam"), mine, W.thresholds.gradcam),
      KNDraw.bars("difference, stage 1", names, of("delta"), mine, W.thresholds.delta),
      KNDraw.bars("gradient, summed", names, of("gradcam-sum"), mine),
      KNDraw.bars("third stage", names, of("third"), mine),
      KNDraw.bars("taken out: the logit loses", names, effect("removed"), mine),
      KNDraw.bars("as without the object", names, effect("patched"), mine));
  }

  const image = (file, words) => make("img", { src: `${KN.base}${file}.webp`, alt: words, width: 224, height: 224 });
  const worded = (caption, clean, name) => KN.pieces(caption, clean, name)
    .map(([text, kind]) => (kind ? make(kind === "word" ? "mark" : "u", {}, text) : text));

  function drawPictures(kept) {
    const at = picture(), one = W.pictures[at], name = W.concepts[one.concept], cells = W.grid[0] * W.grid[1];
    const [most, letters] = (kept && kept[state.w]) || [1, ""], place = kept ? kept.on.indexOf(at) : -1;
    const values = place < 0 ? [] : KN.decode(letters.slice(place * cells, (place + 1) * cells), most);
    const largest = values.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a), 0);
    const said = !kept ? "No map is kept of this neuron."
      : place < 0 ? "No map of it on this picture: a concept that it is not of has one picture with a map."
        : values.length ? `Largest here: ${digits(largest)}; on all its pictures: ${digits(most)}. `
          + "Red pushes up, blue down. Point at a cell." : "";
    const read = (cell) => {
      for (const each of root.querySelectorAll(".knb-over .knb-here")) each.classList.remove("knb-here");
      if (cell === null) return fill($("read"), said);
      root.querySelector(`.knb-over [data-cell="${cell}"]`).classList.add("knb-here");
      const [row, column] = [Math.floor(cell / W.grid[1]) + 1, cell % W.grid[1] + 1];
      return fill($("read"), `Row ${row}, column ${column}: ${digits(values[cell])}`);
    };
    const fade = image(one.file + "-without", "");
    fade.className = "knb-fade";
    fade.style.opacity = $("fade").value / 100;
    for (const frame of ["with", "without", "e-picture"]) $(frame).style.aspectRatio = one.shape.join("/");
    const over = (of, point) => KNDraw.overlay(of, W.grid, most, one.outline, point);
    fill($("with"), image(one.file, `A picture of ${name}`), fade, over(values, read));
    fill($("without"), image(one.file + "-without", `The same picture without the ${name}`), over([], () => {}));
    fill($("said"), make("b", {}, `with the ${name} `), "“", worded(one.said, one.said, name), "”");
    fill($("said-without"), make("b", {}, "taken out "), "“", worded(one.without, one.said, name), "”");
    read(null);
    const maps = [["gradcam", "gradient score"], ["delta", "difference"], ["none", "none"]];
    chips("w", maps, state.w, (w) => go({ w }, true));
    fill($("thumbs"), W.pictures.map((each, i) => make("button", {
      type: "button", class: kept && !kept.on.includes(i) ? "knb-bare" : "", title: each.said,
      "aria-pressed": String(i === at), "aria-label": `${W.concepts[each.concept]}: ${each.said}`,
      onclick: () => go({ p: each.id }),
    }, make("img", { src: `${KN.base}${each.file}.webp`, alt: "", width: 40, height: 40, loading: "lazy" }))));
    return sets.disturb();
  }

  const sets = KN.sets({ $, fill, option, chips, image, worded, go, choose, picture, state: () => state });

  /* Who holds the focus keeps it, though what shows it is another element now. */
  function holder() {
    const at = document.activeElement, box = at && at.parentElement && at.parentElement.closest("[id^=knb-]");
    const place = box ? [...box.querySelectorAll("button, input")].indexOf(at) : -1;
    return () => {
      if (place < 0 || document.activeElement !== document.body) return;
      const now = box.querySelectorAll("button, input")[place];
      if (now) now.focus({ preventScroll: true });
    };
  }

  async function draw() {
    const back = holder();
    rows = KN.list(state, brush);
    if (!state.n && rows.length) state.n = `${W.layer[rows[0].i]}.${W.unit[rows[0].i]}`;
    for (const part of [drawBar, drawAtlas, drawList, sets.compare, back]) part();
    await drawCard();
    back();
  }

  const copied = async (button, words) => {
    const before = (button.dataset.words ||= button.textContent);
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
  $("csv").addEventListener("click", () => copied($("csv"), KN.table(rows, concept())));
  $("svg").addEventListener("click", () => {
    const drawn = $("atlas").querySelector("svg"), copy = drawn.cloneNode(true), from = drawn.querySelectorAll("*");
    const kept = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "font-size", "font-family"];
    copy.querySelectorAll("*").forEach((node, i) => { // no style sheet goes with it
      const style = getComputedStyle(from[i]);
      for (const key of kept) node.style.setProperty(key, style.getPropertyValue(key));
    });
    const blob = new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" });
    const file = { href: URL.createObjectURL(blob), download: `neurons-${state.c || "all"}-${state.m}.svg` };
    make("a", file).click();
    setTimeout(() => URL.revokeObjectURL(file.href), 1000);
  });
  async function step(by) {
    if (!rows.length) return;
    const at = rows.findIndex(({ i }) => i === chosen()), next = rows[Math.min(rows.length - 1, Math.max(0, at + by))];
    await go({ n: `${W.layer[next.i]}.${W.unit[next.i]}` }, true);
    const row = $("rows").querySelector("[aria-selected=true]");
    if (row) row.scrollIntoView({ block: "nearest" });
  }
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "radio";
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const by = { j: 1, k: -1 }[event.key], digit = /^\d$/.test(event.key) ? +event.key : NaN;
    if (by) step(by);
    else if (event.key === "/") $("q").focus();
    else if (digit <= W.concepts.length) go({ c: digit ? W.concepts[digit - 1] : "" });
    else return;
    event.preventDefault();
    event.stopImmediatePropagation(); // the book has a '/' of its own
  }, true);
  window.addEventListener("popstate", read);
  let width = 0;
  new ResizeObserver(() => {
    if (Math.abs($("atlas").clientWidth - width) <= 40) return;
    width = $("atlas").clientWidth;
    drawAtlas();
  }).observe($("atlas"));
  root.hidden = false;
  document.querySelectorAll("details.knb-plain").forEach((each) => { each.open = false; });
  await read();
  for (const name of ["said", "third", "rest"]) await KN.need(name);
  drawAtlas(); drawCard(); // what other methods say of the neuron, and where a concept's neurons lie, is known now
};

document.addEventListener("DOMContentLoaded", () => KN.start());
