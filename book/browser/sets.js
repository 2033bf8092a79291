/* The lower half of the neuron browser: what is said with a whole set disturbed, and concept against concept.

`page` is what `browser.js` shares: its state and `go`, its elements, and the pieces that both halves are made of. */
"use strict";

KN.sets = (page) => {
  const W = KN.world, { make, percent } = KNDraw, { $, fill, option, chips, image, worded, go } = page;
  const RANDOM = /random|uniform|direction/;

  /* The rows of one picture and set, and that which the state wishes for: 'concept,method,intervention,n,sigma', whose
     parts may be left out: the picture's own concept, the method above, the main setting. */
  function wished() {
    const one = W.pictures[page.picture()], own = W.concepts[one.concept];
    const [of, method, intervention, n, sigma] = (page.state().E || "").split(",");
    const whose = Math.max(0, W.concepts.indexOf(of || own)), tried = KN.tried(whose, page.picture());
    const wish = {
      method: method || page.state().m,
      intervention: intervention || W.main[0],
      n: +(n || W.main[1]),
      sigma: sigma ? +sigma : W.main[2],
    };
    return { one, own, whose, tried, now: KN.nearest(tried, wish) };
  }

  const same = (row, other) =>
    row.intervention === other.intervention && row.n === other.n && row.sigma === other.sigma;

  async function disturb() {
    if (!(await KN.need("said"))) return;
    const { one, own, whose, tried, now } = wished(), { methods, labels, interventions } = KN.shards.said;
    const put = (change, keep) => {
      const { of, method, intervention, n, sigma } = { of: W.concepts[whose], ...now, ...change };
      go({ E: [of, method, intervention, n, sigma ?? ""].join(",") }, keep);
    };
    fill($("e-c"), W.concepts.map((each) => option(each, each, W.concepts[whose])));
    $("e-c").onchange = () => put({ of: $("e-c").value });
    const known = Object.keys(W.methods), place = (each) => (known.indexOf(each) + 1 || 99) + RANDOM.test(each);
    const ordered = [...methods].sort((x, y) => place(x) - place(y));
    chips("e-m", ordered.map((each) => [each, labels[methods.indexOf(each)]]), now && now.method,
      (method) => put({ method }), (each) => !tried.some((row) => row.method === each));
    chips("e-i", interventions.map((each) => [each, each]), now && now.intervention,
      (intervention) => put({ intervention }),
      (each) => !tried.some((row) => now && row.method === now.method && row.intervention === each));
    if (!now) {
      const words = `Nothing was done to the neurons of “${W.concepts[whose]}” on this picture;`;
      fill($("e-out"), make("dt", {}, "not run"), make("dd", {}, words, " try the first picture of a concept."));
      fill($("e-curve"));
      fill($("e-picture"));
      return;
    }
    const doses = tried.filter((row) => row.method === now.method && row.intervention === now.intervention);
    const words = `${now.n} neurons${now.sigma ? `, σ = ${now.sigma}` : ""}`;
    Object.assign($("e-d"), { max: doses.length - 1, value: doses.indexOf(now), disabled: doses.length < 2 });
    $("e-d").setAttribute("aria-valuetext", words);
    $("e-d").oninput = () => put(doses[$("e-d").value], true);
    $("e-said").textContent = words;
    fill($("e-picture"), image(one.file, `A picture of ${own}`));
    const random = now.method === "random" ? undefined : tried.find((row) => row.method === "random" && same(row, now));
    fill($("e-out"),
      line("undisturbed", one.said, one, own),
      line(`${labels[methods.indexOf(now.method)]}: ${now.intervention}, ${words}`, now.caption, one, own, now),
      random ? line("random neurons, the same dose", random.caption, one, own, random) : [],
      line("the object itself taken out", one.without, one, own));
    drawCurve(doses, now, tried, own);
  }

  /* A caption under its heading, and how likely the word was and is, and what else that is true is still said. */
  function line(heading, caption, one, own, row) {
    const told = caption ? ["“", worded(caption, one.said, own), "”"] : "(nothing)";
    if (!row) return [make("dt", {}, heading), make("dd", {}, told)];
    const chances = `“${own}” ${percent(row.before)} → ${percent(row.after)}`;
    const meter = make("span", { class: "knb-meter", title: chances },
      make("i", { style: `width:${100 * row.after}%` }), make("em", { style: `left:${100 * row.before}%` }));
    const kept = row.kept === null ? "" : `; of what else is there, it says ${percent(row.kept)}`;
    return [make("dt", {}, heading), make("dd", {}, told, meter, make("small", {}, ` ${chances}${kept}`))];
  }

  function drawCurve(doses, now, tried, own) {
    const points = (method) => doses.flatMap((dose, i) =>
      tried.filter((row) => row.method === method && same(row, dose)).map((row) => [i, row.after]));
    const lines = [{ words: now.method, kind: "ours", points: points(now.method) }];
    if (now.method !== "random") lines.unshift({ words: "random", kind: "random", points: points("random") });
    const labels = doses.map((row) => String(row.sigma ?? row.n)), over = now.sigma ? "σ" : "the number of neurons";
    fill($("e-curve"), KNDraw.curve(lines, labels, doses.indexOf(now), now.before),
      make("p", { class: "knb-note" }, `Probability of “${own}” over ${over}; grey: random neurons.`));
  }

  function compare() {
    const state = page.state(), names = W.concepts, k = +state.k, silent = W.silencing[state.m];
    const sets = names.map((_, concept) => ((W.sets[state.m] || [])[concept] || []).slice(0, k));
    const a = Math.max(0, names.indexOf(state.c)), other = Math.min(names.length - 1, a === 0 ? 1 : 0);
    const d = names.includes(state.d) ? names.indexOf(state.d) : other;
    const both = (x, y) => sets[x].filter((i) => sets[y].includes(i));
    const alone = (x, y) => sets[x].filter((i) => !sets[y].includes(i));
    const mode = state.x === "silent" && silent ? "silent" : "shared";
    for (const [key, at, change] of [["a", a, "c"], ["d", d, "d"]]) {
      fill($(key), names.map((name) => option(name, name, names[at])));
      $(key).onchange = () => go({ [change]: $(key).value });
    }
    chips("x", [["shared", "neurons in both sets"], ["silent", "whose set takes whose word"]], mode,
      (x) => go({ x }, true), (each) => each === "silent" && !silent);
    const words = mode === "shared" ? `How many of the ${k} best the sets share`
      : "Disturbing a row’s set takes so much of a column’s word (share of its probability, in %)";
    const cell = (row, column) => {
      const share = silent ? silent[row][column] : null;
      if (mode === "silent") return { share, said: percent(share).replace(" %", "") };
      const many = both(row, column).length;
      return { share: many / k, said: String(many) };
    };
    const pick = (row, column) => go({ c: names[row], d: names[column] });
    fill($("matrix"), KNDraw.matrix(names, words, cell, [a, d], pick));
    const link = (i) => [make("button", { type: "button", onclick: () => page.choose(i) }, KN.name(i)), " "];
    const column = (heading, set) => make("div", {}, make("h3", {}, `${heading} (${set.length})`),
      make("p", {}, set.map(link)));
    fill($("venn"), a === d ? column(`the set of ${names[a]}`, sets[a])
      : [column(`only ${names[a]}`, alone(a, d)), column("both", both(a, d)), column(`only ${names[d]}`, alone(d, a))]);
  }

  return { disturb, compare };
};
