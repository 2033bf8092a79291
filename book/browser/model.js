/* The neuron browser's data and what follows from them: shards, the address, owners, the list, captions. Draws nothing.

Shards are classic scripts that call KN.add, so that the page works from a folder: a browser fetches nothing there. */
"use strict";

const KN = (() => {
  const base = document.currentScript ? document.currentScript.src.replace(/[^/]*$/, "") : "";
  const shards = {}, waiting = {};
  const world = { layer: [], unit: [], tokens: [], values: {}, exact: [], sets: {}, at: new Map() };

  /* What a shard is called with. Neurons are numbered; a group of them fills in its numbers. */
  function add(name, data) {
    shards[name] = data;
    if (name === "core") Object.assign(world, { ...data, layer: [], unit: [], tokens: [], values: {}, exact: [],
      sets: {} });
    if (data.start !== undefined) {
      data.layer.forEach((layer, i) => {
        const number = data.start + i;
        world.layer[number] = layer;
        world.unit[number] = data.unit[i];
        world.tokens[number] = data.tokens[i];
        world.at.set(layer + "." + data.unit[i], number);
      });
      for (const [measure, columns] of Object.entries(data.values)) {
        const all = (world.values[measure] ||= columns.map(() => []));
        columns.forEach((column, concept) => column.forEach((value, i) => { all[concept][data.start + i] = value; }));
      }
      for (const [concept, i, removed, patched] of data.exact) {
        (world.exact[data.start + i] ||= {})[concept] = { removed, patched };
      }
      Object.assign(world.sets, data.sets);
      for (const [measure, maps] of Object.entries(data.densities || {})) world.density[measure].maps = maps;
    }
    (waiting[name] || []).forEach((done) => done(data));
    delete waiting[name];
  }

  /* A promise of a shard; it is loaded once. One that is not there is told as null. */
  function need(name) {
    if (shards[name] !== undefined) return Promise.resolve(shards[name]);
    return new Promise((done) => {
      if (waiting[name]) return waiting[name].push(done);
      waiting[name] = [done];
      const script = document.createElement("script");
      script.src = base + name + ".js";
      script.onerror = () => { shards[name] = null; (waiting[name] || []).forEach((each) => each(null));
        delete waiting[name]; };
      document.head.append(script);
      return undefined;
    });
  }

  /* Letters of a map or strip as numbers: `most` times the square of a letter's level. */
  function decode(text, most) {
    const [levels, letters] = world.levels;
    return Array.from(text, (letter) => {
      const level = letters.indexOf(letter) - levels;
      return Math.sign(level) * most * (level / levels) ** 2;
    });
  }

  const KEYS = ["n", "c", "m", "k", "v", "o", "r", "s", "p", "w", "d", "x", "q", "E"];

  /* The state that an address says: '#n=9.200&c=bear&m=two-stage&k=80&p=...&E=two-stage,noise,80,5'. */
  function parse(hash) {
    const said = new URLSearchParams(hash.replace(/^#/, "")), state = {};
    for (const key of KEYS) if (said.get(key)) state[key] = said.get(key);
    return state;
  }

  function address(state) {
    const said = new URLSearchParams();
    for (const key of KEYS) if (state[key]) said.set(key, state[key]);
    return "#" + said.toString().replace(/%2C/g, ",").replace(/%2F/g, "/");
  }

  /* 'L9/200', 'layer 9 unit 200', '9.200' -> its number, or undefined. */
  function find(text) {
    const found = /^\s*(?:L|layer)?\s*(\d+)\s*(?:[./, ]|unit)+\s*(\d+)\s*$/i.exec(text || "");
    return found ? world.at.get(+found[1] + "." + +found[2]) : undefined;
  }

  const name = (i) => `L${world.layer[i]}/${world.unit[i]}`;

  /* Ranks of a neuron in every concept's set by a method, from 1; 0 where it is not among the first k. */
  function ranks(i, method, k) {
    const key = method + "/" + k;
    if (!world.sets[method]) return world.concepts.map(() => 0); // its shard has not come yet
    ranks.known ||= new Map();
    if (!ranks.known.has(key)) {
      const of = new Map();
      world.sets[method].forEach((set, concept) => set.slice(0, k).forEach((number, place) => {
        if (!of.has(number)) of.set(number, world.concepts.map(() => 0));
        of.get(number)[concept] = place + 1;
      }));
      ranks.known.set(key, of);
    }
    return ranks.known.get(key).get(i) || world.concepts.map(() => 0);
  }

  const owners = (i, method, k) => ranks(i, method, k).filter((rank) => rank > 0).length;

  /* A neuron's value for a concept, or its largest over all. */
  function value(i, measure, concept) {
    const of = world.values[measure];
    if (!of || !of.length) return null;
    return concept < 0 ? Math.max(...of.map((column) => column[i] ?? -Infinity)) : of[concept][i];
  }

  /* What the word loses without the neuron, of one concept or of that in which it is largest; null: not measured. */
  function removed(i, concept) {
    const known = Object.entries(world.exact[i] || {}).filter(([, one]) => one.removed !== null);
    if (concept >= 0) { const own = known.find(([of]) => +of === concept); return own ? own[1].removed : null; }
    return known.reduce((most, [, one]) => (most === null || Math.abs(one.removed) > Math.abs(most) ? one.removed
      : most), null);
  }

  /* Whether the score says that a neuron helps to say the word, and taking it out says that it hurts,
    or the reverse. */
  function disagrees(i, concept) {
    return Object.entries(world.exact[i] || {}).some(([of, one]) =>
      (concept < 0 || +of === concept) && one.removed
        && Math.sign(one.removed) !== Math.sign(world.values.gradcam[of][i]));
  }

  /* The list: neurons of the method's sets that the filters let through, the best rank first, or sorted by a column. */
  function list(state, brush) {
    const concept = world.concepts.indexOf(state.c), k = +state.k, all = world.concepts.length;
    const sets = world.sets[state.m] || [], chosen = concept < 0 ? sets : [sets[concept] || []];
    const first = new Map();
    chosen.forEach((set) => set.slice(0, k).forEach((i, place) => first.set(i,
      Math.min(place + 1, first.get(i) ?? Infinity))));
    const wanted = (state.q || "").trim().toLowerCase(), at = find(wanted);
    const rows = [];
    for (const [i, rank] of first) {
      const own = owners(i, state.m, k);
      if (state.o === "one" && own !== 1) continue;
      if (state.o === "some" && (own < 2 || own === all)) continue;
      if (state.o === "all" && own !== all) continue;
      if (state.s && !disagrees(i, concept)) continue;
      if (wanted && i !== at && !name(i).toLowerCase().startsWith(wanted)
        && !world.tokens[i].some((token) => token.trim().toLowerCase() === wanted)) continue;
      const score = value(i, state.v, concept);
      if (brush && (world.layer[i] < brush[0] || world.layer[i] > brush[1] || score < brush[2]
        || score > brush[3])) continue;
      rows.push({ i, rank, own, score });
    }
    const by = { sets: (row) => row.own, neuron: (row) => -world.layer[row.i] * world.width - world.unit[row.i],
      removed: (row) => removed(row.i, concept) ?? -Infinity }[state.r]
        || (world.values[state.r] ? (row) => value(row.i, state.r, concept) : () => 0);
    return rows.sort((a, b) => by(b) - by(a) || a.rank - b.rank || b.score - a.score);
  }

  /* Comma-separated values, text in quotes where it must be. */
  function csv(head, rows) {
    const cell = (value) => (value === null || value === undefined ? ""
      : /[",\n]/.test(value) ? `"${String(value).replace(/"/g, '""')}"` : String(value));
    return [head, ...rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
  }

  /* The list as a table of numbers, as 'copy as CSV' gives it. */
  function table(rows, concept) {
    const measures = Object.keys(world.measures);
    const head = ["layer", "unit", "sets", "rank", ...measures, "removed", "promotes"];
    return csv(head, rows.map(({ i, own, rank }) => [world.layer[i], world.unit[i], own, rank,
      ...measures.map((measure) => value(i, measure, concept)), removed(i, concept), world.tokens[i].join(" ")]));
  }

  /* Rows of `said` as objects: those of a concept's neurons on a picture. */
  function tried(concept, picture) {
    const said = shards.said, found = [];
    if (!said) return found;
    said.rows.concept.forEach((of, row) => {
      if (of !== concept || said.rows.picture[row] !== picture) return;
      found.push({
        method: said.methods[said.rows.method[row]], intervention: said.interventions[said.rows.intervention[row]],
        n: said.rows.n[row], sigma: said.rows.sigma[row], caption: said.captions[said.rows.caption[row]],
        before: said.rows.before[row], after: said.rows.after[row], kept: said.rows.kept[row],
      });
    });
    return found.sort((a, b) => a.n - b.n || (a.sigma ?? 0) - (b.sigma ?? 0));
  }

  /* Of what was tried the row that fits the wish best: the method first, then what is done, the number, the dose. */
  function nearest(rows, wish) {
    const miss = (row) => (row.method !== wish.method) * 1e6 + (row.intervention !== wish.intervention) * 1e5
      + Math.abs(Math.log((row.n || 1) / (wish.n || 1))) * 100 + Math.abs((row.sigma ?? 0) - (wish.sigma ?? 0));
    return rows.reduce((best, row) => (best === null || miss(row) < miss(best) ? row : best), null);
  }

  /* A caption in pieces [text, kind]: 'word' the concept's, 'kept' a word of the clean caption, '' another. */
  function pieces(caption, clean, concept) {
    const known = new Set(clean.toLowerCase().match(/[\p{L}\p{N}]+/gu) || []),
      small = /^(a|an|the|of|on|in|and|is|with|at|to)$/;
    const of = concept.toLowerCase().split(" ");
    return (caption.match(/[\p{L}\p{N}]+|[^\p{L}\p{N}]+/gu) || []).map((text) => {
      const word = text.toLowerCase();
      if (of.includes(word) || of.includes(word.replace(/s$/, ""))) return [text, "word"];
      return [text, known.has(word) && !small.test(word) ? "kept" : ""];
    });
  }

  return { add, need, decode, parse, address, find, name, ranks, owners, value, removed, disagrees, list, csv, table,
    tried, nearest, pieces, world, shards, base };
})();
