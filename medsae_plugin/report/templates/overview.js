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
      card("Mean top r", form(sae.mean_top_r), ci(sae.mean_top_r_low, sae.mean_top_r_high)),
      card("Over raw neurons", known(gain.mean_top_r) ? (gain.mean_top_r > 0 ? "+" : "") + form(gain.mean_top_r, 3) : "–", ci(gain.low, gain.high)),
      card("Entropy of top latents", form(sae.mean_top_entropy), `nats, of at most ${form(Math.log(LABELS.length))}`),
      card("Monosemanticity", form(sae.mean_monosemanticity, 3), `neurons ${form(sae.neurons.mean_monosemanticity, 3)}`),
      card("Correlate", String(sae.significant), "latents with an observation, fdr < 0.05")),
    h("h2", {}, "Each observation’s top latent"),
    h("p", { class: "note" }, "Pearson’s r of the latent with the observation over held-out images, with its 95 % interval over patients. Grey band: what the largest r of all latents stays under in 95 % of shuffles of patients’ labels; p: how often a shuffle reaches r. Grey rows: no better than chance (p ≥ 0.05). The scale runs from −0.2 to 1, with marks at 0, 0.5 and 1; what is below stands at its left end. H: entropy over observations, in nats, low for a latent that goes with one alone."),
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

// A row is a card on a narrow screen, where its cells tell what they are: hence the roles and `data-what`.
function topTable(sae) {
  const at = latentsOf(state.sae).at;
  const figure = (what, ...content) => h("td", { class: "n", role: "cell", "data-what": what }, ...content);
  return h("table", { class: "tops", role: "table" }, h("thead", {}, h("tr", {}, ["Observation", "Latent", "r"].map((t) => h("th", { scope: "col" }, t)),
    ["r [95 %]", "p", "AUROC", "F1", "H", "positives"].map((t) => h("th", { class: "n", scope: "col" }, t)))),
    h("tbody", {}, sae.observations.map((o, c) => {
      const item = at.get(o.latent);
      return h("tr", { role: "row", class: byChance(o) ? "chance" : "" }, h("th", { scope: "row", role: "rowheader" }, theirs(o.label)),
        h("td", { role: "cell" }, known(o.latent) ? h("a", { href: latentHash(state.sae, o.latent) }, `#${o.latent}`, item && item.name ? [" ", theirs(item.name.concept)] : "") : "–"),
        h("td", { class: "scale", role: "cell" }, whisker(o, sae.neurons.observations[c], sae.untrained.observations[c])),
        figure("r", form(o.r), " ", h("span", { class: "ci" }, ci(o.r_low, o.r_high))),
        figure("p", pvalue(o.p_null)), figure("AUROC", form(o.auroc)), figure("F1", form(o.f1)),
        figure("H", form(o.entropy)), figure("positives", `${o.positives} / ${o.known}`));
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
      h("td", { class: "n" }, form(x.mean_top_r), " ", h("span", { class: "ci" }, ci(x.mean_top_r_low, x.mean_top_r_high))), h("td", { class: "n" }, form(x.mean_top_r_same_split)),
      h("td", { class: "n" }, form(x.mean_top_entropy)), h("td", { class: "n" }, form(x.mean_entropy)), h("td", { class: "n" }, form(x.mean_monosemanticity, 3)), h("td", { class: "n" }, form(x.mean_rank))); })));
}
