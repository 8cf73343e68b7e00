"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");
const LABELS = data.labels;
const ROW = 44;
const STEPS = 61;
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

/* ---- the latents of an SAE, one object each, made once ---- */
const cache = new Map();
function latentsOf(k) {
  if (cache.has(k)) return cache.get(k);
  const sae = data.saes[k], l = sae.latents, tops = new Map();
  sae.observations.forEach((o, c) => { if (known(o.latent)) tops.set(o.latent, [...(tops.get(o.latent) || []), c]); });
  const items = l.index.map((index, i) => {
    const c = l.follows[i], name = sae.names[index] || null;
    const best = c < 0 ? null : LABELS[c];
    return {
      i, index, name, best, label: c, tops: tops.get(index) || [],
      title: name ? shown(name.concept) : best || "silent",
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

/* ---- charts ---- */
function svg(width, height, alt, ...children) {
  return s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": alt }, ...children);
}
const text = (x, y, content, more = {}) => s("text", { x, y, ...more }, content);
function ticks(low, high, count = 4) {
  const raw = (high - low) / count || 1, unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * unit).find((v) => v >= raw);
  const made = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step) made.push(Math.abs(v) < step * 1e-9 ? 0 : v);
  return made;
}
// As many units as pixels on a narrow screen, so that text keeps its size.
const wide = (most) => Math.min(most, document.documentElement.clientWidth - 28);
const brief = (v) => Math.abs(v) >= 1000 ? `${(v / 1000).toPrecision(3).replace(/\.?0+$/, "")}k` : String(+v.toPrecision(3)).replace("-", "−");

function curve(points, title, alt) {
  const W = 330, H = 190, L = 46, B = 34, T = 10, R = 12;
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  let [y0, y1] = [Math.min(...ys), Math.max(...ys)];
  if (y1 - y0 < 1e-9) { y0 -= 0.5 * Math.abs(y0) || 0.5; y1 += 0.5 * Math.abs(y1) || 0.5; }
  const pad = (y1 - y0) * 0.06; y0 -= pad; y1 += pad;
  const x1 = Math.max(...xs), X = (v) => L + (W - L - R) * v / x1, Y = (v) => H - B - (H - B - T) * (v - y0) / (y1 - y0);
  const path = points.map((p, i) => `${i ? "L" : "M"}${X(p[0]).toFixed(1)} ${Y(p[1]).toFixed(1)}`).join("");
  return h("figure", {}, h("h3", {}, title), svg(W, H, alt,
    ticks(y0, y1).map((v) => [s("path", { class: "axis", d: `M${L} ${Y(v)}H${W - R}` }), text(L - 6, Y(v) + 4, brief(v), { "text-anchor": "end" })]),
    ticks(0, x1).map((v) => text(X(v), H - B + 18, brief(v), { "text-anchor": "middle" })),
    text((L + W - R) / 2, H - 2, "training step", { "text-anchor": "middle" }),
    s("path", { d: path, fill: "none", stroke: "var(--accent)", "stroke-width": 2, "stroke-linejoin": "round" }),
    points.length < 30 && points.map((p) => s("circle", { cx: X(p[0]), cy: Y(p[1]), r: 3, fill: "var(--accent)" }, s("title", {}, `step ${p[0]}: ${form(p[1], 3)}`)))));
}

function densities(sae) {
  const counts = sae.histogram, edges = data.density_edges, W = 330, H = 190, L = 46, B = 34, T = 10, R = 12;
  const top = Math.max(...counts, 1), first = Math.max(0, Math.min(counts.findIndex((v) => v > 0), 12));
  const X = (v) => L + (W - L - R) * (v - edges[first]) / (edges[edges.length - 1] - edges[first]), Y = (v) => H - B - (H - B - T) * v / top;
  const dead = sae.d_sae - counts.reduce((a, b) => a + b, 0);
  return h("figure", {}, h("h3", {}, "How often latents fire"), svg(W, H, `Histogram of the share of images on which latents fire; ${dead} of ${sae.d_sae} fire on none.`,
    ticks(0, top).map((v) => [s("path", { class: "axis", d: `M${L} ${Y(v)}H${W - R}` }), text(L - 6, Y(v) + 4, brief(v), { "text-anchor": "end" })]),
    counts.map((n, k) => k >= first && s("rect", { x: X(edges[k]) + 0.5, width: Math.max(1, X(edges[k + 1]) - X(edges[k]) - 1), y: Y(n), height: H - B - Y(n),
      fill: edges[k] >= -1 - 1e-9 ? "var(--orange)" : "var(--accent)" }, s("title", {}, `${n} latents`))),
    [-6, -5, -4, -3, -2, -1, 0].filter((v) => v >= edges[first]).map((v) => text(X(v), H - B + 18, v === 0 ? "1" : v === -1 ? "0.1" : `10${[..."−" + -v].map((c) => ({ "−": "⁻", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶" })[c]).join("")}`, { "text-anchor": "middle" })),
    text((L + W - R) / 2, H - 2, "share of images", { "text-anchor": "middle" })),
    h("p", { class: "note" }, `${dead} of ${sae.d_sae} latents fire on none of these images. Orange: on more than a tenth.`));
}

function whisker(o, n, u) {
  const W = 220, H = 22, X = (v) => 4 + (W - 8) * (Math.max(-0.2, Math.min(1, v)) + 0.2) / 1.2;
  const dot = (v, color, ring) => known(v) && s("circle", { cx: X(v), cy: H / 2, r: ring ? 3.5 : 4.5, fill: ring ? "var(--paper)" : color, stroke: color, "stroke-width": 1.6 });
  return svg(W, H, `${o.label}: r ${form(o.r)} ${ci(o.r_low, o.r_high)}; raw neurons ${form(n.r)}; untrained SAE ${form(u.r)}; chance stays under ${form(o.r_null)}.`,
    s("path", { class: "axis", d: `M${X(0)} 1V${H - 1}` }),
    known(o.r_null) && s("rect", { x: X(0), y: 4, width: Math.max(0, X(o.r_null) - X(0)), height: H - 8, fill: "var(--line)" }),
    known(o.r_low) && known(o.r_high) && s("path", { d: `M${X(o.r_low)} ${H / 2}H${X(o.r_high)}`, stroke: "var(--accent)", "stroke-width": 2.2 }),
    dot(u.r, "var(--grey)", true), dot(n.r, "var(--orange)", true), dot(o.r, "var(--accent)", false));
}

/* ---- views ---- */
const ranks = data.saes.map((x) => known(x.mean_rank) ? x.mean_rank : Infinity);
const state = { sae: ranks.indexOf(Math.min(...ranks)), query: "", sort: "r", down: true, dead: true, dense: false, label: "", top: 0, chosen: 0, overlay: true };
const tabs = [["overview", "Overview"], ["latents", "Latents"], ...(data.comparison ? [["compare", "Compare"]] : []), ["about", "About"]];
const go = (hash) => { location.hash = hash; };
const latentHash = (k, index) => `#/latent/${k}/${index}`;

function overview() {
  const sae = data.saes[state.sae], f = sae.fidelity || {}, gain = sae.gain_over_neurons || {};
  const card = (title, value, small) => h("div", { class: "card" }, h("dt", {}, title), h("dd", {}, value, h("small", {}, small || " ")));
  const history = (sae.training ? sae.training.history : []).filter((p) => known(p.explained_variance));
  const series = (key) => history.filter((p) => known(p[key])).map((p) => [p.step, p[key]]);
  const curves = history.length > 1 ? [
    curve(series("explained_variance"), "Explained variance, validation", "Explained variance on the validation split during training."),
    curve(series("l0"), "L0, validation", "Mean count of active latents on the validation split during training."),
    curve(series("dead"), "Share of dead latents, validation", "Share of latents that never fire on the validation split during training.")] : [];
  return [
    h("h1", {}, theirs(sae.name)),
    h("p", { class: "sub" }, `${sae.architecture} at `, theirs(sae.hook), ` of `, theirs(sae.encoder), `: ${sae.d_sae} latents of ${sae.d_in} dimensions. Top latents chosen on ${splitText("select")}; every figure on ${splitText("report")}.`),
    h("dl", { class: "cards" },
      card("Explained variance", form(f.explained_variance, 3), known(f.cosine) ? `cosine ${form(f.cosine, 3)}` : ""),
      card("L0", form(f.l0, 1), "active latents a row"),
      card("Dead", percent(f.dead), `dense ${percent(f.dense)}`),
      card("Mean top r", form(sae.mean_top_r), sae.mean_top_r_interval ? ci(...sae.mean_top_r_interval) : ""),
      card("Over raw neurons", known(gain.mean_top_r) ? (gain.mean_top_r > 0 ? "+" : "") + form(gain.mean_top_r, 3) : "–", ci(gain.low, gain.high)),
      card("Entropy of top latents", form(sae.mean_top_entropy), `nats, of at most ${form(Math.log(LABELS.length))}`),
      card("Monosemanticity", form(sae.mean_monosemanticity, 3), `neurons ${form(sae.neurons.mean_monosemanticity, 3)}`),
      card("Follow an observation", String(sae.significant), "latents, fdr < 0.05")),
    h("h2", {}, "What each observation's top latent knows"),
    h("p", { class: "note" }, "Pearson’s r of the latent with the observation over held-out images, with its 95 % interval over patients. Grey band: what the largest r of all latents stays under in 95 % of shuffles of patients’ labels. H: entropy over observations, in nats, low for a latent that follows one alone."),
    legend([["var(--accent)", "this SAE"], ["var(--orange)", "raw neurons", true], ["var(--grey)", "untrained SAE", true], ["var(--line)", "chance"]]),
    h("div", { class: "scroll" }, topTable(sae)),
    h("h2", {}, "Sparsity and training"),
    h("div", { class: "grid" }, densities(sae), curves),
    !curves.length && h("p", { class: "note" }, sae.training ? "The training noted too few validation points for curves." : "Training curves are left out: the SAE’s folder was not given."),
    h("h2", {}, "Beside the baselines"),
    h("div", { class: "scroll" }, baselineTable()),
  ];
}

const splitText = (role) => { const x = data.header[role]; return `${x.split} (${x.images} images, ${x.patients} patients)`; };
const legend = (items) => h("div", { class: "legend" }, items.map(([color, name, ring]) => h("span", {}, styled(h("i", { class: ring ? "ring" : "" }), ring ? { borderColor: color } : { background: color }), name)));

function topTable(sae) {
  const at = latentsOf(state.sae).at;
  return h("table", {}, h("thead", {}, h("tr", {}, ["Observation", "Latent"].map((t) => h("th", { scope: "col" }, t)), h("th", { scope: "col" }, "r"), h("th", { class: "n", scope: "col" }, "r [95 %]"),
    ["p", "AUROC", "F1", "H", "positives"].map((t) => h("th", { class: "n", scope: "col" }, t)))),
    h("tbody", {}, sae.observations.map((o, c) => {
      const item = at.get(o.latent);
      return h("tr", {}, h("th", { scope: "row" }, theirs(o.label)),
        h("td", {}, known(o.latent) ? h("a", { href: latentHash(state.sae, o.latent) }, `#${o.latent}`, item && item.name ? [" ", theirs(item.name.concept)] : "") : "–"),
        h("td", {}, whisker(o, sae.neurons.observations[c], sae.untrained.observations[c])),
        h("td", { class: "n" }, form(o.r), " ", h("span", { class: "ci" }, ci(o.r_low, o.r_high))),
        h("td", { class: "n" }, pvalue(o.p_null)), h("td", { class: "n" }, form(o.auroc)), h("td", { class: "n" }, form(o.f1)),
        h("td", { class: "n" }, form(o.entropy)), h("td", { class: "n" }, `${o.positives} / ${o.known}`));
    })));
}

function baselineTable() {
  const seen = new Set(), rows = [];
  data.saes.forEach((sae, k) => rows.push([sae, k], [sae.untrained, null]));
  data.saes.forEach((sae) => { const key = sae.encoder + sae.neurons.name; if (!seen.has(key)) { seen.add(key); rows.push([sae.neurons, null]); } });
  return h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Candidate"),
    ["explained variance", "L0", "dead", "mean top r", "same split", "top H", "mean H", "monosem.", "mean rank"].map((t) => h("th", { class: "n", scope: "col" }, t)))),
    h("tbody", {}, rows.map(([x, k]) => { const f = x.fidelity || {}; return h("tr", { class: k === state.sae ? "chosen" : "" },
      h("th", { scope: "row" }, theirs(x.name)), h("td", { class: "n" }, form(f.explained_variance, 3)), h("td", { class: "n" }, form(f.l0, 1)), h("td", { class: "n" }, percent(f.dead)),
      h("td", { class: "n" }, form(x.mean_top_r), " ", h("span", { class: "ci" }, x.mean_top_r_interval ? ci(...x.mean_top_r_interval) : "")), h("td", { class: "n" }, form(x.mean_top_r_same_split)),
      h("td", { class: "n" }, form(x.mean_top_entropy)), h("td", { class: "n" }, form(x.mean_entropy)), h("td", { class: "n" }, form(x.mean_monosemanticity, 3)), h("td", { class: "n" }, form(x.mean_rank))); })));
}

/* ---- the list ---- */
const SORTS = { r: "r with its observation", auroc: "AUROC", entropy: "entropy", monosemanticity: "monosemanticity", density: "density", maximum: "largest activation", stability: "stability", index: "index", title: "name" };
function visible() {
  const { items } = latentsOf(state.sae), words = state.query.toLowerCase().split(/\s+/).filter(Boolean).map((w) => w.replace(/^#/, ""));
  const label = state.label === "" ? null : Number(state.label), r = label === null ? null : data.saes[state.sae].latents.r[label];
  const kept = items.filter((x) => !(state.dead && !x.density) && !(state.dense && x.density > 0.1) && words.every((w) => x.text.includes(w)));
  const value = state.sort === "r" && r ? (x) => r[x.i] : state.sort === "auroc" && r ? (x) => data.saes[state.sae].latents.auroc[label][x.i] : (x) => x[state.sort];
  const sign = state.down ? -1 : 1;
  return kept.sort((a, b) => {
    const x = value(a), y = value(b);
    if (!known(x) || !known(y)) return known(y) - known(x) || a.index - b.index;
    return (typeof x === "string" ? sign * x.localeCompare(y) : sign * (x - y)) || a.index - b.index;
  });
}

let list = null;
function latents() {
  const sae = data.saes[state.sae], l = sae.latents;
  const box = h("div", { class: "items" }), count = h("span", { class: "count", role: "status" });
  const view = h("div", { class: "window", tabindex: "0", role: "grid", "aria-label": "Latents", "aria-rowcount": 0 }, box);
  const heads = [["index", "#"], ["title", "name or observation"], ["r", "r"], ["auroc", "AUROC", true], ["entropy", "H", true], ["monosemanticity", "monosem.", true], ["density", "fires on", true]];
  const headRow = h("div", { class: "row head" });
  const order = h("select", { "aria-label": "Sort by", onchange: (e) => sortBy(e.target.value, !["entropy", "index", "title"].includes(e.target.value)) },
    Object.entries(SORTS).filter(([key]) => key !== "stability" || l.stability).map(([key, name]) => h("option", { value: key, selected: key === state.sort }, name)));
  const sortBy = (key, down) => { state.sort = key; state.down = down; state.chosen = 0; refresh(true); };
  let shownItems = [];

  function drawHead() {
    headRow.replaceChildren(...heads.map(([key, name, right]) => h("span", { class: right ? "r" : "", "aria-sort": state.sort === key ? (state.down ? "descending" : "ascending") : null },
      h("button", { type: "button", onclick: () => { sortBy(key, state.sort === key ? !state.down : !["entropy", "index", "title"].includes(key)); order.value = key; } }, name, state.sort === key ? (state.down ? " ↓" : " ↑") : ""))));
  }
  function draw() {
    const first = Math.max(0, Math.floor(view.scrollTop / ROW) - 8), last = Math.min(shownItems.length, Math.ceil((view.scrollTop + view.clientHeight) / ROW) + 8);
    const label = state.label === "" ? null : Number(state.label);
    box.replaceChildren(...shownItems.slice(first, last).map((x, k) => {
      const place = first + k, r = label === null ? x.r : l.r[label][x.i], auroc = label === null ? x.auroc : l.auroc[label][x.i];
      const e = h("a", { class: "row item", href: latentHash(state.sae, x.index), role: "row", "aria-rowindex": place + 1, "aria-selected": String(place === state.chosen), tabindex: -1 },
        h("span", { class: "id" }, `#${x.index}`),
        h("span", { class: "what" }, theirs(x.name ? x.name.concept : x.best || "silent"), x.name && x.best ? h("em", {}, ` ${x.best}`) : "", x.tops.length ? [" ", h("span", { class: "tag" }, `top of ${x.tops.length === 1 ? LABELS[x.tops[0]] : x.tops.length}`)] : ""),
        h("span", { class: "track" }, h("b", {}, styled(h("i"), { width: `${Math.max(0, r || 0) * 100}%` })), h("span", {}, form(r))),
        h("span", { class: "r" }, form(auroc)), h("span", { class: "r" }, form(x.entropy)), h("span", { class: "r" }, form(x.monosemanticity)), h("span", { class: "r" }, share(x.density)));
      e.style.transform = `translateY(${place * ROW}px)`;
      return e;
    }));
    if (!shownItems.length) box.append(h("p", { class: "empty" }, "No latent fits. Clear the search, or show dead and dense ones."));
  }
  function refresh(reset) {
    shownItems = visible();
    state.chosen = Math.max(0, Math.min(state.chosen, shownItems.length - 1));
    box.style.height = `${Math.max(shownItems.length * ROW, 80)}px`;
    view.setAttribute("aria-rowcount", shownItems.length);
    count.textContent = `${shownItems.length} of ${sae.d_sae} latents`;
    if (reset) view.scrollTop = 0;
    drawHead(); draw();
  }
  function choose(k) {
    state.chosen = Math.max(0, Math.min(k, shownItems.length - 1));
    const y = state.chosen * ROW;
    if (y < view.scrollTop) view.scrollTop = y;
    else if (y + ROW > view.scrollTop + view.clientHeight) view.scrollTop = y + ROW - view.clientHeight;
    draw();
  }
  let waiting = false;
  view.addEventListener("scroll", () => { state.top = view.scrollTop; if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; draw(); }); } });
  view.addEventListener("click", (e) => { const row = e.target.closest(".item"); if (row) state.chosen = Number(row.getAttribute("aria-rowindex")) - 1; });
  const search = h("input", { type: "search", id: "search", placeholder: "Search names, observations, #index", "aria-label": "Search latents", value: state.query, autocomplete: "off", spellcheck: "false",
    oninput: (e) => { state.query = e.target.value; state.chosen = 0; refresh(true); } });
  const check = (key, name) => h("label", {}, h("input", { type: "checkbox", id: key, checked: state[key], onchange: (e) => { state[key] = e.target.checked; state.chosen = 0; refresh(true); } }), name);
  list = { choose, items: () => shownItems, open: () => shownItems.length && go(latentHash(state.sae, shownItems[state.chosen].index)), search };
  queueMicrotask(() => { const top = state.top; refresh(false); view.scrollTop = top; draw(); });
  return [
    h("h1", {}, "Latents"),
    h("p", { class: "sub" }, theirs(sae.name), sae.left_out ? `: the ${l.index.length} that correlate most with any observation; ${sae.left_out} are left out of this file.` : `: all ${sae.d_sae}.`, " r and AUROC are with the observation that a latent follows best, or with the one chosen here."),
    h("div", { class: "tools" }, search,
      h("select", { "aria-label": "Observation", id: "label", onchange: (e) => { state.label = e.target.value; refresh(true); } }, h("option", { value: "" }, "best observation"), LABELS.map((name, c) => h("option", { value: c, selected: state.label === String(c) }, shown(name)))),
      h("label", {}, "sort", order), check("dead", "hide dead"), check("dense", "hide dense")),
    h("p", { class: "note keys" }, h("kbd", {}, "/"), " search  ", h("kbd", {}, "j"), " ", h("kbd", {}, "k"), " move  ", h("kbd", {}, "Enter"), " open  ", h("kbd", {}, "Esc"), " back"),
    h("div", { class: "list" }, headRow, view), h("p", { class: "note" }, count),
  ];
}

/* ---- one latent ---- */
function latent(k, index) {
  const sae = data.saes[k], item = latentsOf(k).at.get(index);
  if (!item) return [h("h1", {}, `Latent ${index}`), h("p", { class: "sub" }, "This latent is not in this file."), h("a", { href: "#/latents" }, "All latents")];
  const l = sae.latents, i = item.i, step = (by) => neighbour(k, index, by);
  const back = step(-1), next = step(1);
  const tags = [item.density === 0 && "dead", item.density > 0.1 && "dense", l.origin && BEFORE[l.origin[i]], l.fate && NEXT[l.fate[i]], item.name && item.name.category].filter(Boolean);
  const score = item.name && item.name.score;
  return [
    h("div", { class: "crumbs" }, h("a", { href: "#/latents", id: "back" }, "← Latents"), theirs(sae.name), h("span", {},
      h("button", { type: "button", "aria-label": "Previous latent", disabled: back === null, onclick: () => go(latentHash(k, back)) }, "↑"),
      h("button", { type: "button", "aria-label": "Next latent", disabled: next === null, onclick: () => go(latentHash(k, next)) }, "↓"))),
    h("h1", {}, item.name ? theirs(item.name.concept) : `Latent ${index}`),
    h("p", { class: "sub" }, item.name ? [`Latent ${index}. `, theirs(item.name.description)] : item.best ? ["Follows ", theirs(item.best), " best. It has no name."] : "It is silent on these images.", score ? ` The name fits the latent with a balanced accuracy of ${form(score.balanced_accuracy)} (${shown(score.judge)}; F1 ${form(score.f1)}).` : ""),
    h("div", { class: "tags" }, item.tops.map((c) => h("span", { class: "tag" }, "top latent of ", theirs(LABELS[c]))), tags.map((t) => h("span", { class: "tag" }, theirs(t)))),
    h("dl", { class: "cards" }, [["Fires on", share(item.density), "of images"], ["Entropy", form(item.entropy), "nats"], ["Monosemanticity", form(item.monosemanticity, 3), ""], ["AUROC", form(item.auroc), item.best], ["F1", form(item.label < 0 ? null : l.f1[item.label][i]), item.best], ["Largest activation", form(item.maximum), `median ${form(l.median_positive[i])}`], ...(l.stability ? [["Stability", form(item.stability), "mean r across seeds"]] : [])]
      .map(([t, v, small]) => h("div", { class: "card" }, h("dt", {}, t), h("dd", {}, v, h("small", {}, small ? theirs(small) : " "))))),
    strongestImages(sae, item),
    h("div", { class: "two" },
      h("section", {}, h("h2", {}, "Correlation with each observation"),
        h("p", { class: "note" }, "r, with 95 % intervals: over resampled patients where this is an observation’s top latent, else Fisher’s z with n the patients. Filled: fdr < 0.05. AUROC beside."),
        bars(sae, item)),
      h("section", {}, h("h2", {}, "Firing range"), strip(sae, item), h("h2", {}, "Nearest latents"), near(sae, k, item), partners(k, item))),
  ];
}

const NEXT = { continues: "continues in the next layer", splits: "splits in the next layer", merges: "merges in the next layer", dies: "dies before the next layer" };
const BEFORE = { continued: "continued from the layer before", "split off": "split off from the layer before", merged: "merged from the layer before", born: "born in this layer" };

function neighbour(k, index, by) {
  if (k !== state.sae) return null;
  const items = visible(), at = items.findIndex((x) => x.index === index);
  return at < 0 || !items[at + by] ? null : items[at + by].index;
}

function bars(sae, item) {
  const H = 24, W = wide(620), L = W < 500 ? 172 : 192, R = W < 500 ? 44 : 64, top = 18, l = sae.latents, X = (v) => L + (W - L - R) * (Math.max(-0.6, Math.min(1, v)) + 0.6) / 1.6;
  const told = LABELS.map((label, c) => `${label} ${form(l.r[c][item.i])}`).join(", ");
  return svg(W, LABELS.length * H + top + 4, `Correlation of latent ${item.index} with each observation: ${told}.`,
    [-0.5, 0, 0.5, 1].map((v) => [s("path", { class: "axis", d: `M${X(v)} ${top}V${top + LABELS.length * H}` }), text(X(v), 12, brief(v), { "text-anchor": "middle" })]),
    text(W, 12, "AUROC", { "text-anchor": "end" }),
    LABELS.map((label, c) => {
      const r = l.r[c][item.i], y = top + c * H + H / 2, o = sae.observations[c];
      const [low, high] = o.latent === item.index ? [o.r_low, o.r_high] : fisher(r, o.patients), sure = known(l.fdr[c][item.i]) && l.fdr[c][item.i] < 0.05;
      return s("g", {}, s("title", {}, `${label}: r ${form(r)} ${ci(low, high)}, fdr ${pvalue(l.fdr[c][item.i])}`),
        text(L - 10, y + 4, shown(label), { "text-anchor": "end", class: c === item.label ? "strong" : "" }),
        known(r) && s("rect", { x: Math.min(X(0), X(r)), width: Math.abs(X(r) - X(0)), y: y - 6, height: 12, fill: sure ? (r < 0 ? "var(--orange)" : "var(--accent)") : "var(--line)", rx: 1.5 }),
        known(low) && known(high) && s("path", { d: `M${X(low)} ${y}H${X(high)}M${X(low)} ${y - 3}v6M${X(high)} ${y - 3}v6`, stroke: "var(--ink)", "stroke-width": 1.2, fill: "none" }),
        text(W, y + 4, form(l.auroc[c][item.i]), { "text-anchor": "end" }));
    }));
}

function strip(sae, item) {
  const l = sae.latents, levels = [...l.strip[item.i]].map(level), present = l.present ? [...l.present[item.i]].map(level) : null;
  if (!levels.length) return h("p", { class: "note" }, "It fires on none of these images.");
  const W = 420, step = W / levels.length, H = 92;
  return h("figure", {}, svg(W, H, `Activations from the strongest image to the weakest that fires, in ${levels.length} bins${present ? `, with the share of images that show ${item.best}` : ""}.`,
    levels.map((v, k) => s("rect", { x: k * step, width: step + 0.3, y: 0, height: 26, fill: `rgb(${viridis(v)})` }, s("title", {}, `activation ${form(v * item.maximum)}`))),
    text(0, 42, "strongest"), text(W, 42, "weakest", { "text-anchor": "end" }),
    present && present.map((v, k) => known(v) && s("rect", { x: k * step + 0.5, width: Math.max(1, step - 1), y: H - 42 * v, height: Math.max(0.8, 42 * v), fill: "var(--accent)" }, s("title", {}, percent(v)))),
    present && s("path", { class: "axis", d: `M0 ${H}H${W}` })),
    h("figcaption", { class: "note" }, `Positive activations in bins of as many images, up to ${form(item.maximum)}.`, present && item.best ? [" Bars: the share of each bin’s images that show ", theirs(item.best), "."] : present ? "" : " The share of images with an observation is left out: no label table was given."));
}

function near(sae, k, item) {
  const found = sae.latents.near[item.i].filter(([, r]) => known(r));
  if (!found.length) return h("p", { class: "note" }, "None: it is silent on these images.");
  const at = latentsOf(k).at;
  return h("table", {}, h("thead", { class: "hidden" }, h("tr", {}, ["latent", "follows", "r"].map((t) => h("th", {}, t)))), h("tbody", {}, found.map(([j, r]) => { const x = at.get(j); return h("tr", {}, h("td", {}, x ? h("a", { href: latentHash(k, j) }, `#${j}`) : `#${j}`), h("td", {}, theirs(x ? x.title : "")), h("td", { class: "n" }, `r ${form(r)}`)); })));
}

function partners(k, item) {
  const l = data.saes[k].latents, found = l.partners ? l.partners[item.i] : [];
  if (!found.length) return null;
  return [h("h2", {}, "In other SAEs"), h("table", {}, h("tbody", {}, found.map(([other, j, r]) => { const x = latentsOf(other).at.get(j); return h("tr", {}, h("td", {}, theirs(data.saes[other].name)), h("td", {}, x ? h("a", { href: latentHash(other, j) }, `#${j}`) : `#${j}`, " ", theirs(x ? x.title : "")), h("td", { class: "n" }, `r ${form(r)}`)); })))];
}

function strongestImages(sae, item) {
  if (!data.images) return [h("h2", {}, "Strongest images"), h("p", { class: "note" }, "Images are left out of this file. Make the report with --with-images to see them.")];
  const found = sae.latents.strongest[item.i];
  if (!found.length) return null;
  const heat = sae.heat, grid = h("ul", { class: `pictures${state.overlay ? "" : " plain-heat"}` });
  found.forEach(([row, value, map], n) => {
    const picture = data.images.pictures[row], labels = (data.images.labels[row] || []).map((c) => LABELS[c]).join(", ") || "no finding labelled";
    grid.append(h("li", {}, h("figure", {}, h("div", { class: "frame" },
      picture ? h("img", { src: `data:image/webp;base64,${picture}`, width: 128, height: 128, alt: `Strongest image ${n + 1} of latent ${item.index}, activation ${form(value)}: ${shown(labels)}.` }) : h("p", {}, "picture left out: the file would be too large"),
      map && heat && s("svg", { viewBox: `0 0 ${heat[1]} ${heat[0]}`, preserveAspectRatio: "none", "aria-hidden": "true" }, [...map].map((c, p) => level(c) > 0.05 && s("rect", { x: p % heat[1], y: Math.floor(p / heat[1]), width: 1.02, height: 1.02, fill: "#e69f00", opacity: (0.65 * level(c)).toFixed(2) })))),
      h("figcaption", {}, `${form(value)} · `, theirs(labels)))));
  });
  return [h("h2", {}, "Strongest images"), h("p", { class: "note" }, heat ? [h("label", {}, h("input", { type: "checkbox", id: "overlay", checked: state.overlay, onchange: (e) => { state.overlay = e.target.checked; grid.classList.toggle("plain-heat", !state.overlay); } }), " where it fires")] : "This layer has no stored positions, so there is no heatmap."), grid];
}

/* ---- comparison ---- */
const shortHook = (hook) => hook.replace("hook_", "");
function compare() {
  const c = data.comparison, saes = c.saes.filter((x) => x.kind === "sae");
  return [
    h("h1", {}, "Comparison"),
    h("p", { class: "sub" }, `${saes.length} SAEs over the same images. Every figure on ${splitText("report")}, with 95 % intervals over patients.`),
    h("h2", {}, "SAEs"), h("div", { class: "scroll" }, saeTable(c)),
    h("h2", {}, "Fidelity and sparsity"), h("p", { class: "note" }, "Filled: on the Pareto front of explained variance and L0 among the SAEs of its layer."), scatter(saes),
    h("h2", {}, "Where an observation becomes visible"),
    h("p", { class: "note" }, `AUROC of a regularised linear probe at each layer, and below it r of the layer’s best latent. Outlined: the first layer with ${percent(c.thresholds.visible)} of what the best layer’s AUROC has above 0.5.`),
    h("div", { class: "scroll" }, visibility(c)),
    c.flows.length > 0 && [h("h2", {}, "What becomes of latents from layer to layer"),
      h("p", { class: "note" }, `Latents of neighbouring layers are linked where their activations over images correlate with r ≥ ${c.thresholds.link} on both splits. Heights count latents that fire often enough to be matched; ribbons join those that are linked.`),
      legend([["var(--accent)", "continues"], ["var(--yellow)", "splits"], ["var(--green)", "merges"], ["var(--sky)", "is born"], ["var(--grey)", "dies"]]), chains(c).map((chain) => h("figure", {}, h("h3", {}, theirs(`${chain[0].a} to ${chain[chain.length - 1].b}`)), h("div", { class: "scroll wide" }, flow(c, chain))))],
    c.stability.length > 0 && [h("h2", {}, "Stability across seeds"), h("p", { class: "note" }, `Latents matched one to one by correlation over images; stable from r ${c.thresholds.stable}.`), h("div", { class: "scroll" }, stability(c))],
    h("h2", {}, "Likeness"), h("div", { class: "grid" },
      matrix("Linear CKA of layers (debiased)", c.layers.map((x) => (c.encoders.length > 1 ? `${x.encoder}/` : "") + shortHook(x.hook)), c.cka_debiased),
      saes.length > 1 && matrix("Mean max correlation of latents, row to column", saes.map((x) => x.name), matching(c, saes))),
    h("h2", {}, "Differences that are real"), h("p", { class: "note" }, "Paired bootstrap over patients, false discovery rate below 0.05."), h("div", { class: "scroll" }, differences(c)),
  ];
}
function saeTable(c) {
  return h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, ""), ["explained variance", "L0", "dead", "mean top r", "top H", "monosem.", "rank"].map((t) => h("th", { class: "n", scope: "col" }, t)))),
    h("tbody", {}, c.saes.map((x) => h("tr", {}, h("th", { scope: "row" }, theirs(x.name), x.pareto ? " ●" : ""), h("td", { class: "n" }, form(x.explained_variance, 3)), h("td", { class: "n" }, form(x.l0, 1)), h("td", { class: "n" }, percent(x.dead)),
      ["mean_top_r", "mean_top_entropy"].map((key) => h("td", { class: "n" }, form(x[key]), " ", h("span", { class: "ci" }, ci(x[`${key}_low`], x[`${key}_high`])))), h("td", { class: "n" }, form(x.mean_monosemanticity, 3)), h("td", { class: "n" }, form(x.mean_rank))))));
}
const HUES = ["var(--accent)", "var(--orange)", "var(--green)", "var(--yellow)", "var(--sky)", "var(--grey)"];
const MARKS = [(x, y) => `M${x - 5} ${y}a5 5 0 1 0 10 0a5 5 0 1 0 -10 0`, (x, y) => `M${x - 4.6} ${y - 4.6}h9.2v9.2h-9.2z`, (x, y) => `M${x} ${y - 6}l5.6 10h-11.2z`, (x, y) => `M${x} ${y - 6.4}l6.4 6.4l-6.4 6.4l-6.4 -6.4z`];
function scatter(saes) {
  const told = saes.filter((x) => known(x.explained_variance) && known(x.l0));
  if (!told.length) return h("p", { class: "note" }, "No SAE has its fidelity measured.");
  const layers = [...new Set(told.map((x) => `${x.encoder}/${x.hook}`))], W = wide(620), H = 300, L = 52, B = 40, T = 12, R = 16;
  const range = (v, part) => { const a = Math.min(...v), b = Math.max(...v), d = (b - a || Math.abs(b) || 1) * part; return [a - d, b + d]; };
  const [x0, x1] = range(told.map((x) => x.l0), 0.12), [y0, y1] = range(told.map((x) => x.explained_variance), 0.12);
  const X = (v) => L + (W - L - R) * (v - x0) / (x1 - x0), Y = (v) => H - B - (H - B - T) * (v - y0) / (y1 - y0);
  return h("figure", {}, svg(W, H, `Explained variance against L0: ${told.map((x) => `${x.name} ${form(x.explained_variance, 3)} at ${form(x.l0, 1)}`).join("; ")}.`,
    ticks(y0, y1).map((v) => [s("path", { class: "axis", d: `M${L} ${Y(v)}H${W - R}` }), text(L - 6, Y(v) + 4, brief(v), { "text-anchor": "end" })]),
    ticks(x0, x1, 6).map((v) => text(X(v), H - B + 18, brief(v), { "text-anchor": "middle" })),
    text((L + W - R) / 2, H - 4, "L0: active latents a row", { "text-anchor": "middle" }), text(L, 8, "explained variance"),
    told.map((x) => { const k = layers.indexOf(`${x.encoder}/${x.hook}`), color = HUES[k % HUES.length]; return s("path", { d: MARKS[k % MARKS.length](X(x.l0), Y(x.explained_variance)), fill: x.pareto ? color : "var(--paper)", stroke: color, "stroke-width": 1.8 }, s("title", {}, `${x.name}: ${form(x.explained_variance, 3)} at L0 ${form(x.l0, 1)}`)); })),
    h("div", { class: "legend" }, layers.map((name, k) => h("span", {}, s("svg", { width: 16, height: 14, "aria-hidden": "true", style: "display:inline-block;vertical-align:-2px;margin-right:4px" }, s("path", { d: MARKS[k % MARKS.length](8, 7), fill: HUES[k % HUES.length] })), theirs(name.slice(name.indexOf("/") + 1))))));
}
function cell(value, low, high, content, first) {
  return h("td", { class: first ? "first" : "" }, styled(h("div", {}, content), shade(known(value) ? (value - low) / (high - low) : null)));
}
function visibility(c) {
  const several = c.encoders.length > 1;
  return h("table", { class: "heat" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, ""), c.layers.map((x) => h("th", { scope: "col" }, theirs((several ? `${x.encoder}/` : "") + shortHook(x.hook)))))),
    h("tbody", {}, c.visibility.map((entry) => h("tr", {}, h("th", { scope: "row" }, theirs(entry.label)), entry.layers.map((x, k) => {
      const place = data.saes.findIndex((sae) => sae.name === x.sae);
      const best = known(x.latent) && place >= 0 ? h("small", {}, h("a", { href: latentHash(place, x.latent), style: "color:inherit", "aria-label": `best latent #${x.latent}, r ${form(x.latent_r)}` }, `r ${form(x.latent_r)}`)) : h("small", {}, " ");
      const td = cell(x.auroc, 0.5, 1, [form(x.auroc), best], entry.visible_from.includes(k));
      td.title = `AUROC ${form(x.auroc)} ${ci(x.low, x.high)}`;
      return td;
    })))));
}
function matrix(title, names, values) {
  return h("figure", {}, h("h3", {}, title), h("div", { class: "scroll" }, h("table", { class: "heat" }, h("thead", {}, h("tr", {}, h("th", {}, ""), names.map((_, k) => h("th", { scope: "col" }, String(k + 1))))),
    h("tbody", {}, names.map((name, i) => h("tr", {}, h("th", { scope: "row" }, `${i + 1} `, theirs(name)), names.map((_, j) => cell(values[i][j], 0, 1, form(values[i][j])))))))));
}
function matching(c, saes) {
  const at = new Map(saes.map((x, k) => [x.name, k])), made = saes.map((_, i) => saes.map((__, j) => i === j ? 1 : null));
  for (const m of c.matching) { const a = at.get(m.a), b = at.get(m.b); made[a][b] = m.mean_max_correlation; made[b][a] = m.mean_max_correlation_back; }
  return made;
}
function stability(c) {
  return h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Seeds"), ["mean max r", "mean r one to one", "share stable"].map((t) => h("th", { class: "n", scope: "col" }, t)))),
    h("tbody", {}, c.stability.map((x) => h("tr", {}, h("th", { scope: "row" }, theirs(x.saes.join(", "))), h("td", { class: "n" }, form(x.mean_max_correlation)), h("td", { class: "n" }, form(x.mean_assigned_correlation)), h("td", { class: "n" }, percent(x.share_stable))))));
}
function differences(c) {
  const names = { mean_top_r: "mean top r", mean_top_entropy: "top entropy", explained_variance: "explained variance" };
  const real = c.differences.filter((d) => known(d.fdr) && d.fdr < 0.05), MOST = 60;
  if (!real.length) return h("p", { class: "note" }, `None of ${c.differences.length}.`);
  return [h("table", {}, h("thead", {}, h("tr", {}, ["Of", "less that of", "figure"].map((t) => h("th", { scope: "col" }, t)), ["difference", "[95 %]", "fdr"].map((t) => h("th", { class: "n", scope: "col" }, t)))),
    h("tbody", {}, real.slice(0, MOST).map((d) => h("tr", {}, h("td", {}, theirs(d.a)), h("td", {}, theirs(d.b)), h("td", {}, names[d.figure] || d.figure), h("td", { class: "n" }, (d.difference > 0 ? "+" : "") + form(d.difference, 3)), h("td", { class: "n" }, `[${form(d.low, 3)}, ${form(d.high, 3)}]`), h("td", { class: "n" }, pvalue(d.fdr)))))),
    h("p", { class: "note" }, `${real.length} of ${c.differences.length} differences${real.length > MOST ? `; the first ${MOST} are shown, all are in comparison.json` : ""}.`)];
}
function chains(c) {
  const made = [];
  for (const f of c.flows) { const chain = made.find((x) => x[x.length - 1].b === f.a); if (chain) chain.push(f); else made.push([f]); }
  return made;
}
const FATE = { continues: "var(--accent)", splits: "var(--yellow)", merges: "var(--green)", dies: "var(--grey)" };
const ORIGIN = { continued: "var(--accent)", "split off": "var(--yellow)", merged: "var(--green)", born: "var(--sky)" };
function flow(c, chain) {
  const gap = Math.max(190, 980 / chain.length), bar = 15, top = 10, height = 250, edge = 96, W = 2 * edge + chain.length * gap, columns = [chain[0].a, ...chain.map((f) => f.b)];
  const total = (counts) => Object.entries(counts).reduce((t, [key, n]) => t + (key === "silent" ? 0 : n), 0);
  const most = Math.max(...chain.flatMap((f) => [total(f.fates), total(f.origins)]), 1), Y = (n) => n * height / most;
  const stack = (counts, keys) => { let y = top; return Object.fromEntries(keys.map((key) => { const at = [y, Y(counts[key] || 0)]; y += at[1]; return [key, at]; })); };
  const told = chain.map((f) => `${f.a} to ${f.b}: ${f.fates.continues} continue, ${f.fates.splits} split, ${f.fates.merges} merge, ${f.fates.dies} die, ${f.origins.born} are born`).join("; ");
  const place = (k) => edge + k * gap;
  const hook = new Map(c.saes.map((x) => [x.name, x.hook]));
  return svg(W, height + top + 26, `Flow of latents. ${told}.`,
    chain.map((f, k) => {
      const fates = stack(f.fates, Object.keys(FATE)), origins = stack(f.origins, Object.keys(ORIGIN));
      const x0 = place(k) + bar, x1 = place(k + 1) - bar, parts = [];
      const out = {}, into = {};
      f.ribbons.forEach(([a, b, n]) => { out[a] = (out[a] || 0) + n; into[b] = (into[b] || 0) + n; });
      const done = {}, filled = {};
      for (const [a, b, n] of f.ribbons) {
        const h0 = fates[a][1] * n / out[a], h1 = origins[b][1] * n / into[b], y0 = fates[a][0] + (done[a] || 0), y1 = origins[b][0] + (filled[b] || 0), m = (x0 + x1) / 2;
        done[a] = (done[a] || 0) + h0; filled[b] = (filled[b] || 0) + h1;
        parts.push(s("path", { d: `M${x0} ${y0}C${m} ${y0} ${m} ${y1} ${x1} ${y1}v${h1}C${m} ${y1 + h1} ${m} ${y0 + h0} ${x0} ${y0 + h0}z`, fill: FATE[a], opacity: 0.32 }, s("title", {}, `${n} links: ${a} → ${b}`)));
      }
      const box = (x, [y, tall], color, name, n, side) => tall > 0 && [s("rect", { x, y, width: bar - 1, height: Math.max(tall - 0.7, 0.5), fill: color }, s("title", {}, `${n} ${name}`)),
        tall > 11 && text(side < 0 ? x - 4 : x + bar + 3, y + tall / 2 + 4, String(n), { "text-anchor": side < 0 ? "end" : "start", class: "strong" })];
      return [parts, Object.keys(FATE).map((key) => box(place(k) + 1, fates[key], FATE[key], key, f.fates[key], 1)), Object.keys(ORIGIN).map((key) => box(place(k + 1) - bar, origins[key], ORIGIN[key], key, f.origins[key], -1))];
    }),
    columns.map((name, k) => [text(place(k), top + height + 18, shown(shortHook(hook.get(name) || "")), { "text-anchor": "middle", class: "strong" })]));
}

function about() {
  const pictures = data.images ? Object.keys(data.images.pictures).length : 0, left = data.saes.reduce((t, x) => t + x.left_out, 0);
  const facts = [
    ["Images", data.images ? `Shown: ${pictures} of the ${data.images.wanted} that are among the eight strongest of a latent, at 128 pixels${pictures < data.images.wanted ? "; the rest would make the file too large, or could not be read" : ""}. This file holds images and labels of patients: share it as you would share those.` : "Left out, as is everything about a single image or patient. Make the report with --with-images to show them."],
    ["Latents", left ? `${left} are left out: the file keeps those that correlate most with any observation.` : "All latents of every SAE are here."],
    ["Raw neurons and untrained SAEs", "Only their summaries and their top figures are here; latents.parquet has a row for each."],
    ["Precision, recall, average precision, p values of each latent", "In latents.parquet. This file keeps r, AUROC, F1 and fdr, to three digits."],
    ["Names", data.saes.some((x) => Object.keys(x.names).length) ? "Proposed by a model from images that a latent fires on. A score says how well a judge could tell firing from silent images by the name." : "None were given."],
    ["Training curves", data.saes.some((x) => x.training) ? "From each SAE’s training.json." : "Left out: no SAE folder was given."],
  ];
  return [h("h1", {}, "About this file"),
    h("p", { class: "sub" }, `Made by medsae-plugin ${data.header.medsae_plugin} from activations of ${data.header.encoder.name}. An image’s activation is the ${data.header.aggregate} over its positions. It is one file, and asks no network for anything.`),
    h("h2", {}, "What is in it, and what is left out"), h("table", {}, h("tbody", {}, facts.map(([a, b]) => h("tr", {}, h("th", { scope: "row" }, a), h("td", {}, b))))),
    h("h2", {}, "Keys"), h("table", {}, h("tbody", {}, [["/", "search"], ["j, k or ↓, ↑", "next, previous latent"], ["Enter", "open the latent"], ["Esc", "back to the list"], ["t", "dark or light"]].map(([a, b]) => h("tr", {}, h("th", { scope: "row" }, h("kbd", {}, a)), h("td", {}, b)))))];
}

/* ---- frame ---- */
function route() {
  const parts = (location.hash || "#/overview").slice(2).split("/");
  let view = parts[0], content;
  list = null;
  if (view === "latent") {
    const k = Number(parts[1]), index = Number(parts[2]);
    if (data.saes[k]) { state.sae = k; select.value = String(k); }
    content = data.saes[k] ? latent(k, index) : [h("h1", {}, "There is no such SAE")];
  } else {
    if (!tabs.some(([key]) => key === view)) view = "overview";
    content = { overview, latents, compare, about }[view]();
  }
  document.getElementById("tabs").replaceChildren(...tabs.map(([key, name]) => h("a", { href: `#/${key}`, "aria-current": key === view || (view === "latent" && key === "latents") ? "page" : null }, name)));
  main.replaceChildren(...content.flat(9).filter(Boolean));
  main.dataset.view = view;
  window.scrollTo(0, 0);
}
const select = document.getElementById("sae");
select.append(...data.saes.map((sae, k) => h("option", { value: k, selected: k === state.sae }, shown(sae.name))));
select.parentElement.hidden = data.saes.length < 2;
select.addEventListener("change", () => {
  state.sae = Number(select.value); state.top = 0; state.chosen = 0;
  if (main.dataset.view === "latent") go("#/latents"); else route();
});

const root = document.documentElement;
const recall = () => { try { return localStorage.getItem("medsae-theme"); } catch { return null; } };
if (["dark", "light"].includes(recall())) root.dataset.theme = recall();
function flip() {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("medsae-theme", root.dataset.theme); } catch { /* a file may have no storage */ }
}
document.getElementById("theme").addEventListener("click", flip);

document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  const typing = e.target.matches("input[type=search], select"), view = main.dataset.view;
  if (e.key === "Escape") {
    if (typing) e.target.blur();
    else if (view === "latent") go("#/latents");
    else if (view === "latents" && state.query) { state.query = ""; route(); }
  } else if (e.key === "Enter" && view === "latents" && list && (typing ? e.target.id === "search" : !e.target.closest("button, a, input"))) { e.preventDefault(); list.open(); }
  else if (typing && !(e.target.id === "search" && (e.key === "ArrowDown" || e.key === "ArrowUp"))) return;
  else if (e.key === "/") { e.preventDefault(); if (view !== "latents") { go("#/latents"); setTimeout(() => list && list.search.focus(), 50); } else list.search.focus(); }
  else if (["j", "k", "ArrowDown", "ArrowUp"].includes(e.key)) {
    const by = e.key === "j" || e.key === "ArrowDown" ? 1 : -1;
    if (view === "latents" && list) { e.preventDefault(); list.choose(state.chosen + by); }
    else if (view === "latent" && (e.key === "j" || e.key === "k")) {
      const [, , k, index] = location.hash.split("/"), to = neighbour(Number(k), Number(index), by);
      if (to !== null) { state.chosen += by; go(latentHash(Number(k), to)); }
    }
  } else if (e.key === "t") flip();
});
window.addEventListener("hashchange", route);
route();
performance.mark("interactive");
root.dataset.ready = "yes";
})();
