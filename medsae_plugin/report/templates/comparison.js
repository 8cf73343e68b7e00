/* ---- comparison ---- */
const shortHook = (hook) => hook.replace("hook_", "");
function compare() {
  const c = data.comparison, saes = c.saes.filter((x) => x.kind === "sae");
  return [
    h("h1", {}, "Comparison"),
    h("p", { class: "sub" }, `${saes.length} SAEs over the same images. Every figure on ${splitText("report")}, with 95 % intervals over patients.`, winner(c, saes)),
    h("h2", {}, "SAEs"), h("div", { class: "scroll" }, saeTable(c)),
    h("h2", {}, "Fidelity and sparsity"), h("p", { class: "note" }, "Filled: on the Pareto front of explained variance and L0 among the SAEs of its layer."), scatter(saes),
    h("h2", {}, "Where an observation becomes visible"),
    h("p", { class: "note" }, `AUROC of a regularised linear probe at each layer, and below it r of the layer’s best latent. Outlined: the first layer with ${percent(c.thresholds.visible)} of what the best layer’s AUROC has above 0.5.`),
    h("div", { class: "scroll" }, visibility(c)),
    c.flows.length > 0 && [h("h2", {}, "What becomes of latents from layer to layer"),
      h("p", { class: "note" }, `Latents of neighbouring layers are linked where their activations over images correlate with r ≥ ${c.thresholds.link} on both splits. Heights count latents that fire often enough to be matched; ribbons join those that are linked.`),
      legend([["var(--accent)", "continues"], ["var(--yellow)", "splits"], ["var(--green)", "merges"], ["var(--sky)", "is born"], ["var(--grey)", "dies"]]), chains(c).map((chain) => h("figure", {}, h("h3", {}, theirs(`${chain[0].a} to ${chain[chain.length - 1].b}`)), h("div", { class: "scroll wide" }, flow(c, chain))))],
    c.stability.length > 0 && [h("h2", {}, "Stability across seeds"), h("p", { class: "note" }, `Latents matched one to one by correlation over images; stable from r ${c.thresholds.stable}. Cosine: the largest of a latent’s decoder direction with any of another seed’s.`), h("div", { class: "scroll" }, stability(c)),
      h("p", { class: "note" }, "Mean ± standard deviation over seeds."), h("div", { class: "scroll" }, spread(c))],
    h("h2", {}, "Likeness"), h("div", { class: "grid" },
      matrix("Linear CKA of layers (debiased)", c.layers.map((x) => (c.encoders.length > 1 ? `${x.encoder}/` : "") + shortHook(x.hook)), c.cka_debiased),
      saes.length > 1 && matrix("Mean max correlation of latents, row to column", saes.map((x) => x.name), matching(c, saes))),
    h("h2", {}, "Differences that are real"), h("p", { class: "note" }, "False discovery rate below 0.05, with 95 % intervals over patients, and over seeds where a recipe has two or more; with one seed they are of patients only, and another seed may differ by more."), h("div", { class: "scroll" }, differences(c)),
  ];
}
// On which patients the ranks, and so the best SAE, were chosen.
function winner(c, saes) {
  if (!known(c.best) || saes.length < 2) return null;
  const chosen = c.ranked_on === c.report.split ? `chosen on ${c.report.split}, where it is reported, so its figures are optimistic.` : `chosen on ${c.ranked_on}, other patients than those of ${c.report.split}.`;
  return [" Best by rank: ", theirs(c.best), `, ${chosen}`];
}
function saeTable(c) {
  const columns = metrics("comparison", "sae");
  return h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, ""), [...FIDELITY, ...columns].map((m) => h("th", { class: "n", scope: "col" }, m.words)), h("th", { class: "n", scope: "col" }, "rank"))),
    h("tbody", {}, c.saes.map((x) => h("tr", {}, h("th", { scope: "row" }, theirs(x.name), x.pareto ? " ●" : ""), FIDELITY.map((m) => h("td", { class: "n" }, figure(m, x[m.name]))),
      columns.map((m) => h("td", { class: "n" }, figure(m, x[m.name]), " ", h("span", { class: "ci" }, interval(m, x)))), h("td", { class: "n" }, form(x.mean_rank))))));
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
      td.title = `AUROC ${form(x.auroc)} ${ci(x.low, x.high)}${x.no_interval ? `no interval: ${x.no_interval}` : ""}`;
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
  return h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Seeds"), ["mean max r", "mean r one to one", "mean max |cosine|", "share stable"].map((t) => h("th", { class: "n", scope: "col" }, t)))),
    h("tbody", {}, c.stability.map((x) => h("tr", {}, h("th", { scope: "row" }, theirs(x.saes.join(", "))), h("td", { class: "n" }, form(x.mean_max_correlation)), h("td", { class: "n" }, form(x.mean_assigned_correlation)), h("td", { class: "n" }, form(x.mean_max_cosine)), h("td", { class: "n" }, percent(x.share_stable))))));
}
function spread(c) {
  const columns = [...FIDELITY, ...metrics("comparison", "sae")], of = (x, m) => (x.means || {})[m.name];
  return h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Recipe"), columns.map((m) => h("th", { class: "n", scope: "col" }, m.words)))),
    h("tbody", {}, c.stability.map((x) => h("tr", {}, h("th", { scope: "row" }, theirs(x.recipe || x.saes.join(", "))), columns.map((m) => h("td", { class: "n" }, of(x, m) ? `${form(of(x, m).mean, 3)} ± ${form(of(x, m).sd, 3)}` : "–"))))));
}
function differences(c) {
  const names = Object.fromEntries([...FIDELITY, ...data.metrics].map((m) => [m.name, m.words]));
  const real = c.differences.filter((d) => known(d.fdr) && d.fdr < 0.05), MOST = 60;
  if (!real.length) return h("p", { class: "note" }, `None of ${c.differences.length}.`);
  return [h("table", {}, h("thead", {}, h("tr", {}, ["Of", "less that of", "figure"].map((t) => h("th", { scope: "col" }, t)), ["difference", "[95 %]", "fdr", "interval of"].map((t) => h("th", { class: "n", scope: "col" }, t)))),
    h("tbody", {}, real.slice(0, MOST).map((d) => h("tr", {}, h("td", {}, theirs(d.a)), h("td", {}, theirs(d.b)), h("td", {}, names[d.figure] || d.figure), h("td", { class: "n" }, (d.difference > 0 ? "+" : "") + form(d.difference, 3)), h("td", { class: "n" }, `[${form(d.low, 3)}, ${form(d.high, 3)}]`), h("td", { class: "n" }, pvalue(d.fdr)), h("td", { class: "n" }, d.over || "patients"))))),
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

if (data.comparison) view("compare", { title: "Compare", draw: compare });
