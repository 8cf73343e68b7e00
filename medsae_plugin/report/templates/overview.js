/* ---- one SAE ---- */
function overview() {
  const sae = data.saes[state.sae], f = sae.fidelity || {}, gain = sae.gain_over_neurons || {}, best = sae.headline, neurons = sae.beside.find((x) => x.kind === "neurons") || {};
  const history = (sae.training ? sae.training.history : []).filter((p) => known(p.explained_variance));
  const series = (key) => history.filter((p) => known(p[key])).map((p) => [p.step, p[key]]);
  const curves = history.length > 1 ? [
    curve(series("explained_variance"), "Explained variance, validation", "Explained variance on the validation split during training."),
    curve(series("l0"), "L0, validation", "Mean count of active latents on the validation split during training."),
    curve(series("dead"), "Share of dead latents, validation", "Share of latents that never fire on the validation split during training."),
    series("mean_top_r").length > 1 && curve(series("mean_top_r"), "Mean top r, sample of validation", "Mean over observations of the top latent's r on a sample of the validation split during training."),
    series("loss").length > 1 && curve(series("loss"), "Loss, training", "Training loss, the mean since the point before.")].filter(Boolean) : [];
  return [
    h("h1", {}, theirs(sae.name)),
    h("p", { class: "sub" }, `${sae.architecture} at `, theirs(sae.hook), ` of `, theirs(sae.encoder), `: ${sae.d_sae} latents of ${sae.d_in} dimensions. Top latents chosen on ${splitText("select")}; every figure on ${splitText("report")}.${data.header.home ? ` At home: ${splitText("home")}, of the hospital that latents were chosen at.` : ""} `, theirs(sae.held_out_from || "")),
    cards([
      card("explained variance", form(f.explained_variance, 3), known(f.cosine) ? `cosine ${form(f.cosine, 3)}` : ""),
      card("L0", form(f.l0, 1), sae.not_sparse ? `not sparse: of ${sae.d_sae} latents` : "active latents a row"),
      card("dead", percent(f.dead), `dense ${percent(f.dense)}`),
      card("over the best baseline", best ? signed(best.mean_top_r) : "–", best ? [ci(best.low, best.high), `mean top r, ${kindName(best.kind)}: as many candidates`, best.no_interval && `no interval: ${best.no_interval}`].filter(Boolean).join(" ") : "no baseline of as many candidates was scored"),
      card("over raw neurons", signed(gain.mean_top_r), [ci(gain.low, gain.high), "mean top r", known(gain.candidates) && `${gain.candidates} candidates`, gain.no_interval && `no interval: ${gain.no_interval}`].filter(Boolean).join(", ")),
      metrics("report", "sae").map((m) => card(m.words, figure(m, sae[m.name]), interval(m, sae) || [m.unit, known(neurons[m.name]) && `neurons ${figure(m, neurons[m.name])}`].filter(Boolean).join(", "))),
    ].flat()),
    h("h2", {}, "Each observation’s top latent"),
    h("p", { class: "note" }, `Pearson’s r of the latent with the observation over held-out images, with its 95 % interval over patients. Grey band: what this latent’s r stays under in 95 % of shuffles of patients’ labels; p: how often a shuffle reaches r, adjusted for the number of observations (Holm). Grey rows: no better than chance (p ≥ 0.05). The scale runs from −0.2 to 1, with marks at 0, 0.5 and 1; what is below stands at its left end. H: entropy over observations, in nats, low for a latent that goes with one alone; at most ${form(Math.log(Math.max(1, sae.observations.filter(scorable).length)))}; floor: what H would be if the latent followed its strongest observation alone. Partial: r given all other observations.`),
    legend([["var(--accent)", "this SAE"], ...KINDS.filter((kind) => sae.beside.some((x) => x.kind === kind)).map((kind) => [ring(kind), kindName(kind), true]), ["var(--line)", "chance"]]),
    h("div", { class: "scroll" }, topTable(sae)),
    withoutInterval(sae).map((told) => h("p", { class: "note" }, theirs(told))),
    h("h2", {}, "Sparsity and training"),
    h("div", { class: "grid" }, densities(sae), curves),
    !curves.length && h("p", { class: "note" }, sae.training ? "The training noted too few validation points for curves." : "Training curves are left out: the SAE’s folder was not given."),
    h("h2", {}, "Beside the baselines"),
    h("div", { class: "scroll" }, baselineTable()),
    matchedNote(sae),
    data.probes && probes(data.probes),
  ];
}

const signed = (x) => known(x) ? (x > 0 ? "+" : "") + form(x, 3) : "–";

// A row is a card on a narrow screen, where its cells tell what they are: hence the roles and `data-what`.
function topTable(sae) {
  const at = latentsOf(state.sae).at, DRAWN = ["r", "r_chance"];
  const columns = metrics("report", "latent", "label", "top").filter((m) => m.in.includes("observations") && !DRAWN.includes(m.name));
  const told = (what, title, ...content) => h("td", { class: "n", role: "cell", "data-what": what, title }, ...content);
  return h("table", { class: "tops", role: "table" }, h("thead", {}, h("tr", {}, ["Observation", "Latent", "r"].map((t) => h("th", { scope: "col" }, t)),
    ["r [95 %]", ...columns.map((m) => m.title), "positives"].map((t) => h("th", { class: "n", scope: "col" }, t)))),
    h("tbody", {}, sae.observations.map((o, c) => {
      const item = at.get(o.latent);
      return h("tr", { role: "row", class: byChance(o) ? "chance" : "" }, h("th", { scope: "row", role: "rowheader" }, theirs(o.label)),
        h("td", { role: "cell" }, known(o.latent) ? h("a", { href: latentHash(state.sae, o.latent) }, `#${o.latent}`, item && item.name ? [" ", theirs(item.name.concept)] : "") : "–"),
        h("td", { class: "scale", role: "cell" }, whisker(o, sae.beside.map((x) => [x.kind, x.observations[c].r]))),
        told("r", null, form(o.r), " ", h("span", { class: "ci", title: o.no_interval || null }, ci(o.r_low, o.r_high) || (o.no_interval ? "[–]" : ""))),
        columns.map((m) => told(m.title, interval(m, o) || null, figure(m, o[m.name]))),
        told("positives", null, `${o.positives} / ${o.known}`));
    })));
}

// Of each reason why figures have no interval the observations that have none.
function withoutInterval(sae) {
  const reasons = new Map(), note = (what, why) => why && reasons.set(why, [...(reasons.get(why) || []), what]);
  sae.observations.forEach((o) => note(o.label, o.no_interval));
  note("the mean", sae.no_interval);
  return [...reasons].map(([why, labels]) => `No interval: ${labels.join(", ")} (${why}).`);
}

// What few units tell of the observations, as a share of what all neurons do.
function probes(found) {
  const heads = [...found.ks.map((k) => `k = ${k}`), "all, L1", "all neurons, rebuilt"];
  return [h("h2", {}, "Probes"), h("p", { class: "note" }, `Mean AUROC over observations on ${found.split}, of logistic regressions fitted where latents are chosen: on the k units that correlate most with each observation, on all with a penalty that leaves most out, and of all neurons’ own on what each SAE rebuilds. In brackets the share of what all neurons tell above 0.5.`),
    found.hooks.map((hook) => h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, theirs(hook.hook), `: all ${hook.d} neurons ${form(hook.all)}`), heads.map((t) => h("th", { class: "n", scope: "col" }, t)))),
      h("tbody", {}, hook.rows.map((row) => h("tr", {}, h("th", { scope: "row" }, theirs(row.name)), row.cells.map(([x, part]) => h("td", { class: "n" }, form(x), known(part) && h("span", { class: "ci" }, ` (${percent(part)})`)))))))))];
}

// Rare latents fire on images that are alike, so monosemanticity compares at like densities alone.
function matchedNote(sae) {
  const told = sae.beside.filter((x) => x.monosemanticity_matched).map((x) => { const [own, beside] = x.monosemanticity_matched; return `${kindName(x.kind)} ${form(beside, 3)}, this SAE ${form(own, 3)}`; });
  return told.length > 0 && h("p", { class: "note" }, `Monosemanticity at this SAE’s densities, within bands of half a decade that both have latents in: ${told.join("; ")}.`);
}

function baselineTable() {
  const seen = new Set(), rows = [], columns = metrics("report", "sae");
  const chosen = data.saes[state.sae], atLive = Object.fromEntries([chosen.gain_over_neurons, ...(chosen.gains || [])].filter(Boolean).map((g) => [g.over, g.at_live]));
  data.saes.forEach((sae, k) => rows.push([sae, k], ...sae.beside.filter((x) => x.kind !== "neurons").map((x) => [x])));
  data.saes.forEach((sae) => sae.beside.filter((x) => x.kind === "neurons").forEach((x) => { const key = sae.encoder + x.name; if (!seen.has(key)) { seen.add(key); rows.push([x]); } }));
  return h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Candidate"), [...FIDELITY, ...columns].map((m) => h("th", { class: "n", scope: "col" }, m.words)), ["mean r of as many as are live", "mean rank"].map((t) => h("th", { class: "n", scope: "col" }, t)))),
    h("tbody", {}, rows.map(([x, k]) => h("tr", { class: k === state.sae ? "chosen" : "" }, h("th", { scope: "row" }, theirs(x.name)),
      FIDELITY.map((m) => h("td", { class: "n" }, figure(m, (x.fidelity || {})[m.name]))),
      columns.map((m) => h("td", { class: "n" }, figure(m, x[m.name]), " ", h("span", { class: "ci" }, interval(m, x)))),
      h("td", { class: "n" }, form(atLive[x.name])), h("td", { class: "n" }, form(x.mean_rank))))));
}

view("overview", { title: "Overview", draw: overview });
