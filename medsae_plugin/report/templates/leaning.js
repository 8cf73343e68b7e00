/* ---- what latents lean on ---- */
const LEANING = data.leaning;
const rowsOf = (sae, item) => (sae.leaning || []).filter((x) => x.latent === item.index);
const covariateName = (name) => name === "all" ? "all at once" : name;
// Of each verdict that names a covariate behind a latent one badge; of a latent that has none, whether it holds beside all.
function leaningTags(sae, item) {
  const rows = rowsOf(sae, item), told = rows.filter((x) => x.leans && x.covariate !== "all");
  const kept = told.length ? [] : rows.filter((x) => x.covariate === "all" && x.verdict.startsWith("holds"));
  return [...told, ...kept].map((x) => h("span", { class: `tag${x.leans ? " warn" : ""}` }, theirs(x.leans ? x.verdict : `${x.label}: ${x.verdict}`)));
}
function leaningTag(sae, item) {
  const names = [...new Set(rowsOf(sae, item).filter((x) => x.leans && x.covariate !== "all").map((x) => x.covariate))];
  return names.length > 0 && [" ", h("span", { class: "tag warn" }, "leans on ", theirs(names.join(", ")))];
}
function leaningOf(sae, item) {
  const rows = rowsOf(sae, item);
  return rows.length > 0 && [h("h2", {}, "What it leans on"), LEANING.folds && h("p", { class: "note" }, "By folds: figures are of the latents that the folds chose for the observation, of which this is the most frequent."), h("div", { class: "scroll" }, leaningTable(rows, () => null))];
}

function leaning() {
  const sae = data.saes[state.sae], rows = (sae.leaning || []).filter((x) => x.top), beside = LEANING.beside.filter((x) => x.hook === sae.hook);
  const others = (sae.leaning || []).filter((x) => !x.top && x.leans && x.covariate !== "all");
  const link = (x) => h("a", { href: latentHash(state.sae, x.latent) }, `#${x.latent}`, known(x.chosen_in) ? ` (${x.chosen_in}/${LEANING.folds})` : "");
  if (!sae.leaning) return [h("h1", {}, "What latents lean on"), h("p", { class: "sub" }, "This SAE was not looked at.")];
  return [
    h("h1", {}, "What latents lean on"),
    h("p", { class: "sub" }, `Each observation’s top latent beside what is known of the patients and images of ${shown(LEANING.report.split)} (${LEANING.report.images} images, ${LEANING.report.patients} patients)${LEANING.folds ? `, by ${LEANING.folds} folds of patients; in brackets how many folds chose the latent` : ""}.`, Object.entries(LEANING.lacking).map(([name, why]) => [" ", theirs(`${name}: ${why}.`)])),
    h("h2", {}, "r with the observation, raw and adjusted"),
    h("p", { class: "note" }, `Filled: Pearson’s r, with its 95 % interval over patients. Ring: what is left of it beside ${LEANING.covariates.includes("all") ? "all covariates at once" : "the covariate"} (partial r).`),
    dumbbells(rows.filter((x) => x.covariate === LEANING.covariates[LEANING.covariates.length - 1])),
    h("h2", {}, "How much latents follow covariates"),
    h("p", { class: "note" }, "r of each top latent with its observation and with each covariate (of two categories the second by name counts 1; R, without a sign, of more, and of all at once). Outlined: the verdict says that it follows the covariate more, or is mostly explained by it."),
    h("div", { class: "scroll" }, leaningHeat(rows, link)),
    h("h2", {}, "Verdicts"),
    h("p", { class: "note" }, "Partial: r beside the covariate. Within: r within its strata. Explained: the share of r that it explains. Kept: of what AUROC is above 0.5, the share of pairs of one stratum. Worst: the stratum of the lowest AUROC."),
    h("div", { class: "scroll" }, leaningTable(rows, link)),
    others.length > 0 && [h("h2", {}, "Other latents above chance that lean"), h("div", { class: "scroll" }, leaningTable(others.slice(0, 200), link)), others.length > 200 && h("p", { class: "note" }, `200 of ${others.length}.`)],
    h("h2", {}, "Does the encoder lean more?"),
    h("p", { class: "note" }, "Kept, of the SAE’s top latents, of the raw neurons’ and of a logistic regression on all neurons."),
    h("div", { class: "scroll" }, keptTable([{ name: sae.name, rows: sae.leaning }, ...beside])),
  ];
}

function leaningTable(rows, link) {
  const own = rows.some((x) => link(x));
  return h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Observation"), own && h("th", { scope: "col" }, "Latent"), h("th", { scope: "col" }, "Covariate"), ["r", "r with it", "partial [95 %]", "within", "explained", "kept", "worst"].map((t) => h("th", { class: "n", scope: "col" }, t)), h("th", { scope: "col" }, "Verdict"))),
    h("tbody", {}, rows.map((x) => h("tr", {}, h("th", { scope: "row" }, theirs(x.label)), own && h("td", {}, link(x)), h("td", {}, theirs(covariateName(x.covariate))),
      [form(x.r), form(x.with_covariate)].map((t) => h("td", { class: "n" }, t)), h("td", { class: "n" }, form(x.partial), " ", h("span", { class: "ci" }, ci(x.partial_low, x.partial_high))),
      [form(x.within), percent(x.explained), percent(x.kept)].map((t) => h("td", { class: "n" }, t)), h("td", { class: "n" }, x.worst ? [form(x.worst[1]), " ", theirs(x.worst[0])] : "–"), h("td", {}, x.leans ? h("span", { class: "tag warn" }, theirs(x.verdict)) : theirs(x.verdict))))));
}

function dumbbells(rows) {
  const W = wide(620), L = Math.min(192, W / 3), H = 24, top = 18, X = (v) => L + (W - L - 12) * (Math.max(-0.4, Math.min(1, v)) + 0.4) / 1.4;
  return svg(W, rows.length * H + top + 4, rows.map((x) => `${x.label}: r ${form(x.r)}, adjusted ${form(x.partial)}`).join("; "),
    [0, 0.5, 1].map((v) => [s("path", { class: "axis", d: `M${X(v)} ${top}V${top + rows.length * H}` }), text(X(v), 12, brief(v), { "text-anchor": "middle" })]),
    rows.map((x, k) => {
      const y = top + k * H + H / 2;
      return s("g", {}, s("title", {}, `${x.label}: r ${form(x.r)} ${ci(x.r_low, x.r_high)}, adjusted ${form(x.partial)} ${ci(x.partial_low, x.partial_high)}`),
        text(L - 10, y + 4, within(shown(x.label), L - 10), { "text-anchor": "end" }),
        known(x.r_low) && s("path", { d: `M${X(x.r_low)} ${y}H${X(x.r_high)}`, stroke: "var(--line)", "stroke-width": 6 }),
        known(x.r) && known(x.partial) && s("path", { d: `M${X(x.r)} ${y}H${X(x.partial)}`, stroke: "var(--orange)", "stroke-width": 2 }),
        known(x.r) && s("circle", { cx: X(x.r), cy: y, r: 4.5, fill: "var(--accent)" }),
        known(x.partial) && s("circle", { cx: X(x.partial), cy: y, r: 4, fill: "var(--paper)", stroke: "var(--orange)", "stroke-width": 2 }));
    }));
}

function leaningHeat(rows, link) {
  const labels = [...new Set(rows.map((x) => x.label))], cell = (value, first, title) => h("td", { class: first ? "first" : "", title }, styled(h("div", {}, form(value)), shade(known(value) ? Math.abs(value) : null)));
  return h("table", { class: "heat" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, ""), h("th", { scope: "col" }, "its observation"), LEANING.covariates.map((name) => h("th", { scope: "col" }, theirs(covariateName(name)))))),
    h("tbody", {}, labels.map((label) => {
      const own = rows.filter((x) => x.label === label);
      return h("tr", {}, h("th", { scope: "row" }, theirs(label), " ", link(own[0])), cell(own[0].r, false, null), LEANING.covariates.map((name) => { const x = own.find((y) => y.covariate === name); return x ? cell(x.with_covariate, x.leans, shown(x.verdict)) : h("td", {}); }));
    })));
}

function keptTable(units) {
  const kept = units.map((u) => new Map(u.rows.filter((x) => x.top && known(x.kept)).map((x) => [JSON.stringify([x.label, x.covariate]), x.kept])));
  const keys = [...new Set(kept.flatMap((m) => [...m.keys()]))];
  if (!keys.length) return h("p", { class: "note" }, "Of no observation is it known: no AUROC is above 0.5 by its interval.");
  return h("table", {}, h("thead", {}, h("tr", {}, ["Observation", "Covariate"].map((t) => h("th", { scope: "col" }, t)), units.map((u) => h("th", { class: "n", scope: "col" }, theirs(u.name))))),
    h("tbody", {}, keys.map((key) => { const [label, covariate] = JSON.parse(key); return h("tr", {}, h("th", { scope: "row" }, theirs(label)), h("td", {}, theirs(covariate)), kept.map((m) => h("td", { class: "n" }, percent(m.get(key))))); })));
}

if (LEANING) view("leaning", { title: "Leaning", draw: leaning });
