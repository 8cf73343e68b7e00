const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");
const LABELS = data.labels;
const ROW = 44;
const STEPS = 61;
const CHANCE = 0.05;
const DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const ranks = data.saes.map((x) => x.mean_rank === null ? Infinity : x.mean_rank);
const state = { sae: ranks.indexOf(Math.min(...ranks)), query: "", sort: "r", down: true, dead: true, dense: false, label: "", top: 0, chosen: 0, overlay: true };
const VIRIDIS = [[68, 1, 84], [65, 68, 135], [42, 120, 142], [34, 168, 132], [122, 209, 81], [253, 231, 37]];

/* ---- elements: text is only ever a text node ---- */
const make = (ns) => (tag, attributes = {}, ...children) => {
  const e = ns ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) e.addEventListener(key.slice(2), value);
    else e.setAttribute(key, value === true ? "" : value);
  }
  e.append(...children.flat(9).filter((c) => c !== null && c !== undefined && c !== false));
  return e;
};
const h = make(false), s = make(true);
// Marks that would turn the text around them show as what they are.
const DIRECTION = /[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]/g;
const shown = (text) => String(text).replace(DIRECTION, (c) => `[U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}]`);
const theirs = (text) => h("bdi", {}, shown(text));

/* ---- views ----
   A view is a file that calls `view`. The package's stand beside this one; those that `write_report(views=[...])` or
   `medsae report --view` name come after them, see all that they see (`data`, `h`, `svg`, `figure`, `latentsOf`, ...), and
   keep what they define to themselves:

     view("firing", { title: "Firing", draw: (...parts) => [h("h1", {}, "Firing"), h("p", {}, theirs(data.saes[0].name))] });

   key: of its address, `#/firing`. draw: returns elements, nested as they come, with false and null left out; it is given
   the rest of the address, of `#/firing/3/7` "3" and "7". title: of its tab; a view without one has no tab, and lights that
   of the view that it is `under`. A view with the key of another takes its place. Text goes through `h` (a text node) and,
   where it is from a file, through `theirs`; the page may load nothing. */
const views = new Map();
const view = (key, drawn) => views.set(key, drawn);
const go = (hash) => { location.hash = hash; };
const latentHash = (k, index) => `#/latent/${k}/${index}`;

/* ---- numbers ---- */
const known = (x) => x !== null && x !== undefined;
const form = (x, digits = 2) => known(x) ? x.toFixed(digits).replace("-", "−") : "–";
const percent = (x, digits = 0) => known(x) ? `${form(100 * x, digits)} %` : "–";
const pvalue = (x) => known(x) ? (x < 0.001 ? "< .001" : x.toFixed(3)) : "–";
const ci = (low, high, told = form) => known(low) && known(high) ? `[${told(low)}, ${told(high)}]` : "";
const level = (c) => c === "-" ? null : DIGITS.indexOf(c) / STEPS;
const share = (x) => !known(x) ? "–" : x === 0 ? "0 %" : x < 0.001 ? "< 0.1 %" : percent(x, x < 0.1 ? 1 : 0);
const viridis = (x) => {
  const at = Math.min(Math.max(x, 0), 1) * (VIRIDIS.length - 1), k = Math.min(Math.floor(at), VIRIDIS.length - 2);
  return VIRIDIS[k].map((v, i) => Math.round(v + (at - k) * (VIRIDIS[k + 1][i] - v)));
};
const shade = (x) => {
  if (!known(x)) return { background: "transparent", color: "var(--quiet)" };
  const c = viridis(x), light = (0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2]) > 140;
  return { background: `rgb(${c})`, color: light ? "#111" : "#fff" };
};
const styled = (e, style) => { Object.assign(e.style, style); return e; };

const splitText = (role) => { const x = data.header[role], of = !x.folds ? "" : role === "select" ? `all but one of ${x.folds} folds of ` : "the folds, each in turn, of "; return `${of}${x.split} (${x.images} images, ${x.patients} patients)`; };
const legend = (items) => h("div", { class: "legend" }, items.map(([color, name, ring]) => h("span", {}, styled(h("i", { class: ring ? "ring" : "" }), ring ? { borderColor: color } : { background: color }), name)));

const scorable = (o) => o.positives > 0 && o.positives < o.known;
// Whether an observation's top latent is no better than the best of all latents is under shuffled labels.
// One that cannot be scored, as it is on all of the images or on none, says nothing of its latent.
const byChance = (o) => !scorable(o) || known(o.p_holm) && o.p_holm >= CHANCE;

/* ---- figures: those that are declared, as `data.metrics` lists them ---- */
const metrics = (place, ...per) => data.metrics.filter((m) => m.in.includes(place) && per.includes(m.per));
// Of the rows of an SAE; not declared, since they are of its reconstruction.
const FIDELITY = [["explained_variance", "explained variance", ".3f"], ["l0", "L0", ".1f"], ["dead", "dead", ".0%"]].map(([name, words, digits]) => ({ name, words, digits }));
// Python's format of a number, as far as figures are declared with it.
function figure(m, x) {
  const [, plus, places, kind] = /^(\+?).*?\.?(\d*)([a-z%]?)$/i.exec(m.digits), digits = Number(kind === "d" ? 0 : places || 6);
  if (!known(x)) return "–";
  const sign = plus && x > 0 ? "+" : "";
  if (kind === "p") return pvalue(x);
  if (kind === "%") return sign + (digits ? percent(x, digits) : share(x));
  if (kind === "e") return sign + x.toExponential(digits).replaceAll("-", "−");
  if (kind === "g") return sign + String(+x.toPrecision(digits || 1)).replaceAll("-", "−");
  return sign + form(x, digits);
}
const interval = (m, x) => ci(x[m.low || `${m.name}_low`], x[m.high || `${m.name}_high`], (v) => figure(m, v));
// A figure of a latent: its own, or its with an observation, by default the one that its r is largest with.
function valueOf(sae, m, item, c = item.label) {
  const column = m.per === "latent" ? sae.latents[m.name] : c < 0 ? null : (sae.latents[m.name] || [])[c];
  return column ? column[item.i] : null;
}
const LATENT = metrics("report", "latent", "label").filter((m) => m.name !== "r");
const listed = (words) => words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words[words.length - 1]}`;
const upper = (words) => /^[a-z]{4}/.test(words) ? words[0].toUpperCase() + words.slice(1) : words;
const card = (title, value, small) => h("div", { class: "card" }, h("dt", {}, upper(title)), h("dd", {}, value, h("small", {}, small || " ")));
// As many columns as make the rows alike, eight at most.
const cards = (items) => h("dl", { class: "cards", style: `--columns: ${Math.ceil(items.length / Math.ceil(items.length / 8))}` }, items);

/* ---- what stands beside an SAE: its hook's neurons, its baselines ---- */
const KINDS = [...new Set(data.saes.flatMap((sae) => sae.beside.map((x) => x.kind)))];
const RINGS = ["var(--orange)", "var(--grey)", "var(--sky)", "var(--yellow)", "var(--green)"];
const kindName = (kind) => ({ neurons: "raw neurons", untrained: "untrained SAE" })[kind] || kind;
const ring = (kind) => RINGS[KINDS.indexOf(kind) % RINGS.length];

/* ---- the latents of an SAE, one object each, made once ---- */
const cache = new Map();
function latentsOf(k) {
  if (cache.has(k)) return cache.get(k);
  const sae = data.saes[k], l = sae.latents, tops = new Map();
  sae.observations.forEach((o, c) => { if (known(o.latent)) tops.set(o.latent, [...(tops.get(o.latent) || []), c]); });
  const items = l.index.map((index, i) => {
    const c = l.follows[i], name = sae.names[index] || null;
    const best = c < 0 ? null : LABELS[c], mine = tops.get(index) || [];
    const p = mine.includes(c) ? sae.observations[c].p_holm : null, fdr = c < 0 ? null : l.fdr[c][i];
    const evidence = c < 0 ? "" : `r ${form(l.r[c][i])}, ${known(p) ? `p ${pvalue(p)}` : `fdr ${pvalue(fdr)}`}`;
    const follows = c >= 0 && l.r[c][i] > 0 && known(fdr) && fdr < CHANCE && !(known(p) && p >= CHANCE);
    return {
      i, index, name, best, label: c, tops: mine, follows, evidence,
      title: name ? shown(name.concept) : follows ? best : best ? "none above chance" : "silent",
      r: c < 0 ? null : l.r[c][i], density: l.density[i], maximum: l.maximum[i],
      stability: l.stability ? l.stability[i] : null,
      text: `${index} ${name ? `${name.concept} ${name.description} ${name.category}` : ""} ${best || ""}`.toLowerCase(),
    };
  });
  const at = new Map(items.map((item) => [item.index, item]));
  const made = { items, at };
  cache.set(k, made);
  return made;
}
