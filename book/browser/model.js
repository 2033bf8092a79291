/* The neuron browser's data and what follows from them: shards, the address, whose a neuron is, the list, captions.

Draws nothing. Shards are classic scripts that call KN.add: a page that is opened from a folder may fetch nothing. */
"use strict";

const KN = (() => {
  const base = document.currentScript.src.replace(/[^/]*$/, "");
  const W = { neurons: [], sets: {} }, shards = {}, asked = {}, at = new Map();

  /* What a shard calls: its neurons, numbered from `start` on, methods' sets of such numbers, and what else it has. */
  function add(name, { start = 0, neurons = [], sets = {}, densities = {}, ...more }) {
    shards[name] = more;
    neurons.forEach((neuron, i) => {
      W.neurons[start + i] = neuron;
      neuron.i = start + i;
      neuron.n = `${neuron.layer}.${neuron.unit}`;
      neuron.name = `L${neuron.layer}/${neuron.unit}`;
      at.set(neuron.n, neuron);
    });
    Object.assign(W.sets, sets);
    for (const [measure, maps] of Object.entries(densities)) W.density.measures[measure].maps = maps;
    if (name === "core") Object.assign(W, more);
  }

  /* A promise of a shard, which is loaded once; of null where there is none. */
  function need(name) {
    return (asked[name] ||= new Promise((done) => {
      const script = document.createElement("script");
      script.src = `${base}${name}.js`;
      script.onload = script.onerror = () => done(shards[name] || null);
      document.head.append(script);
    }));
  }

  /* Letters of a map or strip as numbers: `most` times the square of a letter's level. */
  const decode = (text, most) => Array.from(text, (letter) => {
    const level = W.letters.indexOf(letter) / W.levels - 1;
    return most * level * Math.abs(level);
  });

  /* The state that an address says: '#n=9.200&c=bear&m=two-stage&k=80&e=dog&en=80'; and the other way about. */
  const parse = (hash) => Object.fromEntries(new URLSearchParams(hash.slice(1)));
  function address(state, standard = {}) {
    const said = Object.entries(state).filter(([key, value]) => value && value !== standard[key]);
    return `#${new URLSearchParams(said)}`.replaceAll("%2F", "/");
  }

  /* 'L9/200', 'layer 9 unit 200', '9.200' -> the neuron, or undefined. */
  function find(text) {
    const found = /^\s*(?:L|layer)?\s*(\d+)\s*(?:[./, ]|unit)+\s*(\d+)\s*$/i.exec(text || "");
    return found ? at.get(`${+found[1]}.${+found[2]}`) : undefined;
  }

  /* A neuron's rank in every concept's set by a method, from 1; 0 where it is not among the first k. */
  const ranks = ({ i }, { m, k }) => (W.sets[m] || []).map((set) => set.slice(0, k).indexOf(i) + 1);

  /* A neuron's value for a concept, or over all concepts the largest (of removals, by size); null: not measured. */
  function value(neuron, measure, concept) {
    if (concept >= 0) return neuron[measure][concept] ?? null;
    const size = measure === "removed" ? Math.abs : Number, known = neuron[measure].filter((one) => one !== null);
    return known.reduce((most, one) => (most === null || size(one) > size(most) ? one : most), null);
  }

  /* Whether the score says that a neuron helps to say the word and taking it out that it hurts, or the reverse. */
  const disagrees = ({ removed, gradcam }, concept) => removed.some((lost, of) =>
    (concept < 0 || of === concept) && lost && Math.sign(lost) !== Math.sign(gradcam[of]));

  /* The list: neurons of the method's sets that the filters let through, the best rank first, or sorted by a column. */
  function list(state, brush) {
    const concept = W.concepts.indexOf(state.c), all = W.concepts.length;
    const sets = W.sets[state.m] || [], chosen = concept < 0 ? sets : sets.slice(concept, concept + 1);
    const wanted = (state.q || "").trim().toLowerCase(), named = find(wanted);
    const owned = { one: (own) => own === 1, some: (own) => own > 1 && own < all, all: (own) => own === all }[state.o];
    const meant = (neuron) => neuron === named || neuron.name.toLowerCase().startsWith(wanted)
      || neuron.tokens.some((token) => token.trim().toLowerCase() === wanted);
    const within = (layer, score, [first, last, low, high]) =>
      layer >= first && layer <= last && score >= low && score <= high;
    const rows = [...new Set(chosen.flatMap((set) => set.slice(0, state.k)))].map((number) => {
      const neuron = W.neurons[number], places = ranks(neuron, state), held = places.filter(Boolean);
      const rank = concept < 0 ? Math.min(...held) : places[concept];
      return { neuron, rank, own: held.length, score: value(neuron, state.v, concept) };
    }).filter(({ neuron, own, score }) => (!owned || owned(own)) && (!state.s || disagrees(neuron, concept))
      && (!wanted || meant(neuron)) && (!brush || within(neuron.layer, score, brush)));
    const by = { "": (row) => -row.rank, sets: (row) => row.own,
      neuron: ({ neuron }) => -neuron.layer * W.width - neuron.unit,
    }[state.r || ""] || ((row) => value(row.neuron, state.r, concept) ?? -Infinity);
    return rows.sort((a, b) => by(b) - by(a) || a.rank - b.rank || b.score - a.score);
  }

  /* The list as comma-separated values, text in quotes where it must be. */
  function csv(rows, concept) {
    const columns = [...Object.keys(W.measures), "removed"];
    const cell = (one) => (/[",\n]/.test(one ?? "") ? `"${one.replace(/"/g, '""')}"` : one ?? "");
    const lines = rows.map(({ neuron, own, rank }) => [neuron.layer, neuron.unit, own, rank,
      ...columns.map((column) => value(neuron, column, concept)), neuron.tokens.join(" ")]);
    const head = ["layer", "unit", "sets", "rank", ...columns, "promotes"];
    return [head, ...lines].map((line) => `${line.map(cell).join(",")}\n`).join("");
  }

  /* Of what was tried the row that fits the wish best: the method first, then what is done, the number, the dose. */
  function nearest(rows, wish) {
    const miss = (row) => (row.method !== wish.method) * 1e6 + (row.intervention !== wish.intervention) * 1e5
      + Math.abs(Math.log((row.n || 1) / (wish.n || 1))) * 100 + Math.abs((row.sigma ?? 0) - (wish.sigma ?? 0));
    return rows.reduce((best, row) => (best && miss(best) <= miss(row) ? best : row), null);
  }

  /* A caption in pieces [text, tag]: 'mark' the concept's word, 'u' a longer word of the clean caption, '' another. */
  function pieces(caption, clean, concept) {
    const known = clean.toLowerCase().match(/[\p{L}\p{N}]+/gu) || [], own = concept.toLowerCase().split(" ");
    return caption.split(/([\p{L}\p{N}]+)/u).filter(Boolean).map((text) => {
      const word = text.toLowerCase();
      if (own.includes(word) || own.includes(word.replace(/s$/, ""))) return [text, "mark"];
      return [text, word.length > 3 && known.includes(word) ? "u" : ""];
    });
  }

  const deduced = { find, ranks, value, disagrees, list, csv, nearest, pieces };
  return { W, shards, base, add, need, decode, parse, address, ...deduced };
})();
