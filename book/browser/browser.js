/* The neuron browser's page. Its state is its address; its controls, written by the run, are one form whose fields have
   the state's names: a control changes the state, and what shows it is drawn anew. */
"use strict";

KN.start = async () => {
  const { W } = KN, { make, fill, digits, percent } = KNDraw, root = document.getElementById("kn-browser");
  if (!W.concepts) return; // the scripts are not beside the page: its tables stand
  const $ = (id) => document.getElementById(`knb-${id}`), fields = root.elements, later = ["said", "third", "rest"];
  const standard = Object.fromEntries(new FormData(root));
  let state = { ...standard }, brush = null, rows = [], loaded = false;
  const concept = () => W.concepts.indexOf(state.c), chosen = () => KN.find(state.n);
  const picture = () => W.pictures.findIndex((one) => one.id === state.p);

  /* Take over what is said, as far as the form has it; the picture follows the concept, and the rival steps aside. */
  async function settle(said) {
    state = { ...state, ...said };
    if (!loaded && (state.n || !W.sets[state.m])) await Promise.all(later.map(KN.need));
    for (const [key, first] of Object.entries(standard)) {
      fields[key].value = state[key];
      const known = fields[key].value === state[key] && fields[key].validity?.valid !== false;
      if (!known) fields[key].value = state[key] = first;
    }
    if (said.c && state.c && state.p !== said.p && W.pictures[picture()].concept !== concept()) {
      fields.p.value = state.p = W.pictures.find((one) => one.concept === concept()).id;
    }
    if (state.d === state.c && !said.d) fields.d.value = state.d = W.concepts.find((name) => name !== state.c);
    if ("c" in said || "m" in said) brush = null;
    return draw();
  }

  async function go(said, quietly) {
    if ("p" in said || "c" in said) delete state.e; // the picture's own set
    history[quietly ? "replaceState" : "pushState"](null, "", KN.address({ ...state, ...said }, standard));
    await settle(said);
  }

  async function read() {
    state = { ...standard };
    await settle(KN.parse(location.hash));
    if (location.hash.includes("n=")) $("card").scrollIntoView({ block: "nearest" });
  }

  async function draw() {
    rows = KN.list(state, brush);
    state.n ||= rows[0]?.neuron.n;
    drawAtlas();
    drawList();
    compare();
    disturb();
    await drawCard();
  }

  function drawAtlas() {
    const n = W.concepts.length, many = (k) => rows.filter((row) => row.own === k).length;
    const box = $("atlas"), filter = (ends) => { brush = ends; draw(); };
    fill(box, KNDraw.atlas(rows, state, chosen(), box.clientWidth < 560, filter));
    const whose = state.c ? `“${state.c}”` : `${n} concepts`;
    $("status").textContent = `${rows.length} neurons of ${whose} by ${W.methods[state.m]}: `
      + `${many(1)} in one concept’s set alone, ${many(n)} in all ${n}.`;
    $("again").hidden = !brush;
  }

  function drawList() {
    const n = W.concepts.length, held = $("rows").contains(document.activeElement), at = chosen();
    for (const each of $("head").cells) each.ariaSort = each.firstChild.value === (state.r || "") ? "descending" : null;
    fill($("rows"), rows.map(({ neuron, rank, own }) => make("tr", { "aria-selected": neuron === at }, [
      [button("n", neuron.n, neuron.name, -1), KN.disagrees(neuron, concept()) ? make("b", { class: "knb-bad",
        title: "its score and its removal disagree" }, "!") : null],
      [make("span", { class: "knb-share", style: `--share:${own / n}` }), `${own}/${n}`], rank,
      ...["gradcam", "delta", "third", "removed"].map((measure) => digits(KN.value(neuron, measure, concept()))),
    ].map((inside) => make("td", {}, inside)))));
    if (!rows.length) fill($("rows"), make("tr", {}, make("td", {}, "No neuron is left by these filters.")));
    const row = $("rows").querySelector("[aria-selected=true] button") || $("rows").querySelector("button");
    if (row) row.tabIndex = 0;
    if (held && row) row.focus({ preventScroll: true });
  }

  /* A button that gives a key of the state a value; several are parted by '|'. */
  const button = (key, value, words, tabindex) =>
    make("button", { type: "button", "data-key": key, value, tabindex }, words);

  async function drawCard() {
    const at = chosen(), names = W.concepts;
    $("owned").hidden = !at;
    $("h-card").textContent = state.n ? `Layer ${state.n.replace(".", " · unit ")}` : "No neuron";
    if (!at) {
      fill($("whose"), state.n ? "It is among no method’s best neurons of this run: nothing is kept of it." : "");
      fill($("charts"));
      return drawPictures(null);
    }
    const ranks = KN.ranks(at, state), bad = names.filter((_, of) => KN.disagrees(at, of));
    fill($("whose"), whose(ranks), bad.length ? make("span", { class: "knb-bad" },
      ` ! Score and removal disagree on whether it helps to say ${bad.join(", ")}.`) : null);
    $("owners").querySelectorAll("button").forEach((each, of) => {
      each.classList.toggle("knb-in", ranks[of] > 0);
      each.setAttribute("aria-pressed", of === concept());
      each.lastChild.textContent = ranks[of] ? ` ${ranks[of]}.` : " –";
    });
    const also = Object.entries(W.methods).filter(([m]) => m !== state.m).map(([m, words]) =>
      [words, KN.ranks(at, { m, k: W.budget }).filter(Boolean).length]).filter(([, many]) => many);
    const visible = at.tokens.map((token) => [make("code", {}, token.replace(/ /g, "␣").replace(/\n/g, "⏎")), " "]);
    fill($("facts"), "It promotes ", visible.length ? visible : "–", ". ",
      also.length ? `Also in sets of ${also.map(([words, many]) => `${words} (${many})`).join(", ")}.` : "");
    const shard = W.mapped.includes(at.layer) ? await KN.need(`layer-${at.layer}`) : null;
    if (at !== chosen()) return undefined; // another one was chosen meanwhile
    const kept = shard?.maps[at.i], own = ranks.map(Boolean);
    const bars = Object.entries(W.charts).map(([key, words]) => KNDraw.bars(words, at[key], own, W.thresholds[key]));
    fill($("charts"), bars, kept ? KNDraw.strip(kept.strip, own) : null);
    return drawPictures(kept);
  }

  function whose(ranks) {
    const own = ranks.filter(Boolean).length, n = W.concepts.length, strong = (words) => make("strong", {}, words);
    if (!own) return `In no concept’s set by ${W.methods[state.m]}.`;
    if (own === n) return [strong("Nobody’s own"), `: the sets of all ${n} concepts hold it.`];
    return own > 1 ? [strong(`Shared by ${own}`), ` of ${n} concepts.`]
      : ["Of ", strong(W.concepts[ranks.findIndex(Boolean)]), " alone: no other concept’s set holds it."];
  }

  const image = (file, alt, more) => make("img", { src: `${KN.base}${file}.webp`, alt, ...more });
  const worded = (caption, clean, name) => (caption ? ["“", KN.pieces(caption, clean, name).map(([text, tag]) =>
    (tag ? make(tag, {}, text) : text)), "”"] : "(nothing)");

  function drawPictures(kept) {
    const place = picture(), one = W.pictures[place], name = W.concepts[one.concept], [tall, wide] = W.grid;
    const at = kept ? kept.on.indexOf(place) : -1, [most, letters] = kept?.[state.w] || [1, ""];
    const values = at < 0 ? [] : KN.decode(letters.slice(at * tall * wide, (at + 1) * tall * wide), most);
    const line = (_, row) => values.slice(row * wide, (row + 1) * wide);
    const grid = values.length ? Array.from({ length: tall }, line) : [];
    const largest = values.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a), 0);
    const read = (row, column, value) => `Row ${row + 1}, column ${column + 1}: ${digits(value)}`;
    const over = (of) => KNDraw.cells(of, most, read, ["-dark", ""].map((kind) => make(":path", { d: one.outline,
      class: `knb-outline${kind}`, transform: of.length ? `scale(${wide / 100} ${tall / 100})` : "scale(0.01)" })));
    const fade = image(`${one.file}-without`, "", { class: "knb-fade", style: `opacity:${$("fade").value / 100}` });
    fill($("with"), image(one.file, `A picture of ${name}`), fade, over(grid));
    fill($("without"), image(`${one.file}-without`, `The same picture without the ${name}`), over([]));
    fill($("said"), make("b", {}, `with the ${name} `), worded(one.said, one.said, name));
    fill($("said-without"), make("b", {}, "taken out "), worded(one.without, one.said, name));
    for (const frame of ["with", "without", "e-picture"]) $(frame).style.aspectRatio = one.shape.join("/");
    $("read").textContent = !kept ? "No map is kept of this neuron."
      : at < 0 ? "No map of it on this picture: a concept that it is not of has one picture with a map."
        : values.length ? `Largest here: ${digits(largest)}; on all its pictures: ${digits(most)}. `
          + "Red pushes up, blue down. Point at a cell." : "";
    [...fields.p].forEach((each, i) => each.parentElement.classList.toggle("knb-bare", kept && !kept.on.includes(i)));
  }

  const same = (row, other) => ["intervention", "n", "sigma"].every((key) => row[key] === other[key]);

  /* What is said with a whole set disturbed: of all that was run on this picture, what the state wishes for. */
  async function disturb() {
    const said = await KN.need("said");
    if (!said) return undefined;
    const one = W.pictures[picture()], own = W.concepts[one.concept];
    const whose = state.e || own, tried = said.rows[`${W.concepts.indexOf(whose)}/${picture()}`] || [];
    const { em = state.m, ei = W.main[0], en = W.main[1], es = W.main[2] } = state;
    const now = KN.nearest(tried, { method: em, intervention: ei, n: +en, sigma: +es });
    $("e-c").value = whose;
    const alike = tried.filter((row) => row.method === now.method), doses = alike.filter(
      (row) => row.intervention === now.intervention);
    for (const each of root.querySelectorAll("[name=em], [name=ei]")) {
      const [column, among] = each.name === "em" ? ["method", tried] : ["intervention", alike];
      each.checked = now?.[column] === each.value;
      each.disabled = !among.some((row) => row[column] === each.value);
    }
    const words = now ? `${now.n} neurons${now.sigma ? `, σ = ${now.sigma}` : ""}` : "";
    Object.assign($("e-d"), { max: doses.length - 1, value: doses.indexOf(now), disabled: doses.length < 2 });
    $("e-d").setAttribute("aria-valuetext", words);
    $("e-d").oninput = () => {
      const { n, sigma } = doses[$("e-d").value];
      go({ en: String(n), es: String(sigma ?? 0) }, true);
    };
    $("e-said").textContent = words;
    fill($("e-picture"), image(one.file, `A picture of ${own}`));
    if (!now) {
      fill($("e-out"), make("dt", {}, "not run"), make("dd", {},
        `Nothing was done to the neurons of “${whose}” on this picture; try the first picture of a concept.`));
      return fill($("e-curve"));
    }
    const random = tried.find((row) => row.method === "random" && row !== now && same(row, now));
    const told = (heading, caption, row) => [make("dt", {}, heading), make("dd", {}, worded(caption, one.said, own),
      row ? chances(row, own) : null)];
    fill($("e-out"), told("undisturbed", one.said),
      told(`${said.labels[now.method]}: ${now.intervention}, ${words}`, now.caption, now),
      random ? told("random neurons, the same dose", random.caption, random) : null,
      told("the object itself taken out", one.without));
    const points = (of) => doses.flatMap((dose, place) => tried.filter((row) => row.method === of && same(row, dose))
      .map((row) => [place, row.after]));
    const lines = [{ kind: "random", points: points("random") }, { kind: "ours", points: points(now.method) }];
    const over = `Probability of “${own}” over ${now.sigma ? "σ" : "the number of neurons"}`;
    return fill($("e-curve"), KNDraw.curve(over, now.method === "random" ? lines.slice(1) : lines,
      doses.map((row) => row.sigma ?? row.n), doses.indexOf(now), now.before),
    make("p", { class: "knb-note" }, `${over}; grey: random neurons.`));
  }

  /* How likely the picture's word was and is, and what else that is true is still said. */
  function chances(row, own) {
    const words = `“${own}” ${percent(row.before)} → ${percent(row.after)}`;
    return [make("span", { class: "knb-meter", title: words }, make("i", { style: `width:${100 * row.after}%` }),
      make("em", { style: `left:${100 * row.before}%` })), make("small", {}, words, row.kept === null ? ""
      : `; of what else is there, it says ${percent(row.kept)}`)];
  }

  function compare() {
    const k = state.k, names = W.concepts, a = Math.max(0, concept()), d = names.indexOf(state.d);
    const sets = names.map((_, at) => (W.sets[state.m]?.[at] || []).slice(0, k)), silent = W.silencing[state.m];
    const of = (x, y, held) => sets[x].filter((i) => sets[y].includes(i) === held); // x's that y holds, or does not
    const shared = state.x === "shared" || !silent;
    [...fields.x].forEach((each) => { each.disabled = each.value === "silent" && !silent; });
    $("a").value = names[a];
    $("squares").textContent = shared ? `How many of the ${k} best the sets share`
      : "Disturbing a row’s set takes so much of a column’s word (share of its probability, in %)";
    $("matrix").querySelectorAll("button").forEach((each, i) => {
      const row = Math.floor(i / names.length), column = i % names.length, many = of(row, column, true).length;
      const share = shared ? many / k : silent[row][column];
      each.textContent = shared ? many : percent(share).replace(" %", "");
      each.style.setProperty("--share", Math.max(0, share));
      each.classList.toggle("knb-deep", share > 0.64);
      each.setAttribute("aria-pressed", row === a && column === d);
      each.title = each.ariaLabel = `${names[row]}, ${names[column]}: ${each.textContent}`;
    });
    const column = (heading, set) => make("div", {}, make("h3", {}, `${heading} (${set.length})`),
      make("p", {}, set.map((i) => [button("n", W.neurons[i].n, W.neurons[i].name), " "])));
    fill($("venn"), a === d ? column(`the set of ${names[a]}`, sets[a]) : [column(`only ${names[a]}`, of(a, d, false)),
      column("both", of(a, d, true)), column(`only ${names[d]}`, of(d, a, false))]);
  }

  async function copied(at, words) {
    const before = (at.dataset.words ||= at.textContent);
    try {
      await navigator.clipboard.writeText(words);
      at.textContent = "copied";
    } catch { window.prompt("Copy:", words); }
    setTimeout(() => { at.textContent = before; }, 1500);
  }

  function save() {
    const drawn = $("atlas").firstChild, copy = drawn.cloneNode(true), from = drawn.querySelectorAll("*");
    const kept = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "font-size", "font-family"];
    copy.querySelectorAll("*").forEach((node, i) => { // no style sheet goes with it
      const style = getComputedStyle(from[i]);
      kept.forEach((key) => node.style.setProperty(key, style.getPropertyValue(key)));
    });
    const href = URL.createObjectURL(new Blob([copy.outerHTML], { type: "image/svg+xml" }));
    make("a", { href, download: `neurons-${state.c || "all"}-${state.m}.svg` }).click();
  }

  async function step(by) {
    const at = rows.findIndex(({ neuron }) => neuron === chosen()), next = rows[Math.max(0, at + by)];
    if (next) await go({ n: next.neuron.n }, true);
    $("rows").querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
  }

  const deeds = { link: () => copied($("link"), location.href), csv: () => copied($("csv"), KN.csv(rows, concept())),
    svg: save, again: () => { brush = null; draw(); } };
  root.addEventListener("click", ({ target }) => {
    const at = target.closest("button, [data-key]"), { key, to } = at?.dataset || {};
    if (to) $(to).scrollIntoView({ block: "start" });
    if (key && at.tagName !== "SELECT") {
      const values = at.getAttribute("value").split("|");
      go(Object.fromEntries(key.split("|").map((each, i) => [each, values[i]])), key === "r");
    }
    deeds[at?.id.replace("knb-", "")]?.();
  });
  root.addEventListener("change", ({ target }) => {
    const key = target.dataset.key || target.name;
    if (key && key !== "q") go({ [key]: target.value }, "wx".includes(key));
  });
  fields.q.addEventListener("input", () => {
    const n = KN.find(fields.q.value)?.n;
    go({ q: fields.q.value, ...(n && { n }) }, true);
  });
  root.addEventListener("pointerover", ({ target }) => { // a dot, a cell: it tells itself in the line of its part
    const words = target.querySelector(":scope > title")?.textContent, at = target.closest("[data-tells]");
    if (words && at) $(at.dataset.tells).textContent = words;
  });
  $("fade").addEventListener("input", () => { root.querySelector(".knb-fade").style.opacity = $("fade").value / 100; });
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "radio";
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const by = { j: 1, k: -1 }[event.key], digit = /^\d$/.test(event.key) ? +event.key : NaN;
    if (by) step(by);
    else if (event.key === "/") fields.q.focus();
    else if (digit <= W.concepts.length) go({ c: digit ? W.concepts[digit - 1] : "" });
    else return;
    event.preventDefault();
    event.stopImmediatePropagation(); // the book has a '/' of its own
  }, true);
  window.addEventListener("popstate", read);
  window.addEventListener("resize", drawAtlas);
  root.hidden = false;
  document.querySelectorAll("details.knb-plain").forEach((each) => { each.open = false; });
  await read();
  await Promise.all(later.map(KN.need));
  loaded = true;
  draw(); // what other methods say of the neuron, and where a concept's neurons lie, is known now
};

document.addEventListener("DOMContentLoaded", () => KN.start());
