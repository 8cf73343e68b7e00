const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");
const LABELS = data.labels;
const ROW = 44;
const STEPS = 61;
const CHANCE = 0.05;
const DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
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

/* ---- numbers ---- */
const known = (x) => x !== null && x !== undefined;
const form = (x, digits = 2) => known(x) ? x.toFixed(digits).replace("-", "−") : "–";
const percent = (x, digits = 0) => known(x) ? `${(100 * x).toFixed(digits)} %` : "–";
const pvalue = (x) => known(x) ? (x < 0.001 ? "< .001" : x.toFixed(3)) : "–";
const ci = (low, high) => known(low) && known(high) ? `[${form(low)}, ${form(high)}]` : "";
const level = (c) => c === "-" ? null : DIGITS.indexOf(c) / STEPS;
const share = (x) => !known(x) ? "–" : x === 0 ? "0 %" : x < 0.001 ? "< 0.1 %" : percent(x, x < 0.1 ? 1 : 0);
const fisher = (r, n) => {
  if (!known(r) || n < 4 || Math.abs(r) >= 1) return [null, null];
  const z = Math.atanh(r), d = 1.96 / Math.sqrt(n - 3);
  return [Math.tanh(z - d), Math.tanh(z + d)];
};
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

// Whether an observation's top latent is no better than the best of all latents is under shuffled labels.
const byChance = (o) => known(o.p_null) && o.p_null >= CHANCE;

/* ---- the latents of an SAE, one object each, made once ---- */
const cache = new Map();
function latentsOf(k) {
  if (cache.has(k)) return cache.get(k);
  const sae = data.saes[k], l = sae.latents, tops = new Map();
  sae.observations.forEach((o, c) => { if (known(o.latent)) tops.set(o.latent, [...(tops.get(o.latent) || []), c]); });
  const items = l.index.map((index, i) => {
    const c = l.follows[i], name = sae.names[index] || null;
    const best = c < 0 ? null : LABELS[c], mine = tops.get(index) || [];
    const p = mine.includes(c) ? sae.observations[c].p_null : null, fdr = c < 0 ? null : l.fdr[c][i];
    const evidence = c < 0 ? "" : `r ${form(l.r[c][i])}, ${known(p) ? `p ${pvalue(p)}` : `fdr ${pvalue(fdr)}`}`;
    const follows = c >= 0 && l.r[c][i] > 0 && known(fdr) && fdr < CHANCE && !(known(p) && p >= CHANCE);
    return {
      i, index, name, best, label: c, tops: mine, follows, evidence,
      title: name ? shown(name.concept) : follows ? best : best ? "none above chance" : "silent",
      r: c < 0 ? null : l.r[c][i], auroc: c < 0 ? null : l.auroc[c][i],
      density: l.density[i], entropy: l.entropy[i], monosemanticity: l.monosemanticity[i], maximum: l.maximum[i],
      stability: l.stability ? l.stability[i] : null,
      text: `${index} ${name ? `${name.concept} ${name.description} ${name.category}` : ""} ${best || ""}`.toLowerCase(),
    };
  });
  const at = new Map(items.map((item) => [item.index, item]));
  const made = { items, at };
  cache.set(k, made);
  return made;
}
