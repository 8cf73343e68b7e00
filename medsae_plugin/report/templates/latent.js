/* ---- one latent ---- */
function latent(k, index) {
  const sae = data.saes[k], item = latentsOf(k).at.get(index);
  if (!item) return [h("h1", {}, `Latent ${index}`), h("p", { class: "sub" }, "This latent is not in this file."), h("a", { href: "#/latents" }, "All latents")];
  const l = sae.latents, i = item.i, step = (by) => neighbour(k, index, by);
  const back = step(-1), next = step(1);
  const tags = [item.density === 0 && "dead", item.density > 0.1 && "dense", l.origin && BEFORE[l.origin[i]], l.fate && NEXT[l.fate[i]], item.name && item.name.category, flagOf(sae, index) && flagWords(sae, index)].filter(Boolean);
  const score = item.name && item.name.score;
  return [
    h("div", { class: "crumbs" }, h("a", { href: "#/latents", id: "back" }, "← Latents"), theirs(sae.name), h("span", {},
      h("button", { type: "button", "aria-label": "Previous latent", disabled: back === null, onclick: () => go(latentHash(k, back)) }, "↑"),
      h("button", { type: "button", "aria-label": "Next latent", disabled: next === null, onclick: () => go(latentHash(k, next)) }, "↓"))),
    h("h1", {}, item.name ? theirs(item.name.concept) : `Latent ${index}`),
    h("p", { class: "sub" }, item.name ? [`Latent ${index}. `, theirs(item.name.description), known(item.name.similarity) ? ` The name is the nearest that there was, by a similarity of ${form(item.name.similarity)}.` : ""] : item.follows ? ["Follows ", theirs(item.best), ` best (${item.evidence}). It has no name.`] : item.best ? ["Follows no observation above chance (strongest: ", theirs(item.best), `, ${item.evidence}). It has no name.`] : "It is silent on these images.", score ? ` The name fits the latent with a balanced accuracy of ${form(score.balanced_accuracy)} (${shown(score.judge)}; F1 ${form(score.f1)}).` : ""),
    h("div", { class: "tags" }, item.tops.map((c) => h("span", { class: "tag" }, "top latent of ", theirs(LABELS[c]), byChance(sae.observations[c]) ? `, no better than chance (p ${pvalue(sae.observations[c].p_holm)})` : "")), tags.map((t) => h("span", { class: "tag" }, theirs(t))), leaningTags(sae, item)),
    cards([...LATENT.map((m) => card(m.words, figure(m, valueOf(sae, m, item)), m.per === "label" ? item.best && theirs(item.best) : m.unit)), ...(known(item.stability) ? [card("stability", form(item.stability), "mean r across seeds")] : [])]),
    strongestImages(sae, item),
    leaningOf(sae, item),
    whereItLooks(sae, index),
    h("div", { class: "two" },
      h("section", {}, h("h2", {}, "Correlation with each observation"),
        h("p", { class: "note" }, "r, with its 95 % interval over patients where this is an observation’s top latent. Filled: fdr < 0.05."),
        h("div", { class: "scroll wide" }, bars(sae, item))),
      h("section", {}, h("h2", {}, "Firing range"), strip(sae, item), h("h2", {}, "Nearest latents"), near(sae, k, item), partners(k, item))),
  ];
}

// Of a latent that fires outside of a region that images have, or inside: which of both, its share inside, and the region's.
const flagOf = (sae, index) => sae.localised && sae.localised.flags[index];
const flagWords = (sae, index) => { const [flag, share] = flagOf(sae, index); return `fires ${flag} ${flag === "outside" ? "of " : ""}${sae.localised.finding}: ${percent(share)} inside`; };

const LOOKS = { pointing: "pointing game", iou: "IoU", dice: "Dice", average_precision: "average precision", mass: "mass inside", morans_i: "Moran’s I" };
function whereItLooks(sae, index) {
  const found = sae.localised && sae.localised.latents[index], flag = flagOf(sae, index);
  if (!found && !flag) return null;
  const { figures, maps, split, finding } = sae.localised, map = { grid: "its grid", pixels: "the pixels", gradient: "gradient times activation", occlusion: "occlusion" }[maps];
  return [h("h2", {}, "Where it looks"),
    flag && h("p", { class: "note" }, `On ${split}, ${percent(flag[1])} of its activation lies inside `, theirs(finding), `, which takes ${percent(flag[2])} of these images (false discovery rate ${pvalue(flag[3])}).`),
    found && h("p", { class: "note" }, `Maps of ${map} against regions on ${split}, of images that show the finding. In brackets the same maps with the regions of other patients with the finding.`),
    found && h("div", { class: "scroll" }, h("table", { class: "looks" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Observation"), ["images", ...figures.map((name) => LOOKS[name] || name)].map((t) => h("th", { class: "n", scope: "col" }, t)))),
      h("tbody", {}, found.map(([label, images, patients, ...cells]) => h("tr", {}, h("th", { scope: "row" }, theirs(label)), h("td", { class: "n", title: `${patients} patients` }, String(images)),
        cells.map(([mean, low, high, chance]) => h("td", { class: "n", title: ci(low, high) || null }, form(mean), known(chance) && h("span", { class: "ci" }, ` (${form(chance)})`))))))))];
}

const NEXT = { continues: "continues in the next layer", splits: "splits in the next layer", merges: "merges in the next layer", dies: "dies before the next layer" };
const BEFORE = { continued: "continued from the layer before", "split off": "split off from the layer before", merged: "merged from the layer before", born: "born in this layer" };

function neighbour(k, index, by) {
  if (k !== state.sae) return null;
  const items = visible(), at = items.findIndex((x) => x.index === index);
  return at < 0 || !items[at + by] ? null : items[at + by].index;
}

// Of every observation a bar of r with its interval, and the other figures beside; on a narrow screen below its name.
function bars(sae, item) {
  const narrow = wide(620) < 500, L = narrow ? 6 : 192, H = narrow ? 42 : 24, top = 18, l = sae.latents;
  let R = 0;  // pixels that the columns take, from the right
  const columns = LATENT.filter((m) => m.per === "label").reverse().map((m) => { const end = R; R += Math.min(Math.max(narrow ? 50 : 56, 6.4 * m.title.length + 12), 130); return [m, end]; });
  const W = Math.max(wide(620), L + R + (narrow ? 108 : 158)), X = (v) => L + (W - L - R - 8) * (Math.max(-0.6, Math.min(1, v)) + 0.6) / 1.6;
  const told = LABELS.map((label, c) => `${label} ${form(l.r[c][item.i])}`).join(", ");
  return svg(W, LABELS.length * H + top + 4, `Correlation of latent ${item.index} with each observation: ${told}.`,
    [-0.5, 0, 0.5, 1].map((v) => [s("path", { class: "axis", d: `M${X(v)} ${top}V${top + LABELS.length * H}` }), text(X(v), 12, brief(v), { "text-anchor": "middle" })]),
    columns.map(([m, end]) => text(W - end, 12, within(m.title, 124), { "text-anchor": "end" }, s("title", {}, m.words))),
    LABELS.map((label, c) => {
      const r = l.r[c][item.i], y = top + c * H + (narrow ? 30 : H / 2), o = sae.observations[c];
      const [low, high] = o.latent === item.index ? [o.r_low, o.r_high] : [null, null], sure = known(l.fdr[c][item.i]) && l.fdr[c][item.i] < 0.05;
      return s("g", {}, s("title", {}, `${label}: r ${form(r)} ${ci(low, high)}, fdr ${pvalue(l.fdr[c][item.i])}`),
        narrow ? text(0, y - 14, within(shown(label), W), { class: c === item.label ? "strong" : "" }) : text(L - 10, y + 4, within(shown(label), L - 10), { "text-anchor": "end", class: c === item.label ? "strong" : "" }),
        known(r) && s("rect", { x: Math.min(X(0), X(r)), width: Math.abs(X(r) - X(0)), y: y - 6, height: 12, fill: sure ? (r < 0 ? "var(--orange)" : "var(--accent)") : "var(--line)", rx: 1.5 }),
        known(low) && known(high) && s("path", { d: `M${X(low)} ${y}H${X(high)}M${X(low)} ${y - 3}v6M${X(high)} ${y - 3}v6`, stroke: "var(--ink)", "stroke-width": 1.2, fill: "none" }),
        columns.map(([m, end]) => text(W - end, y + 4, figure(m, valueOf(sae, m, item, c)), { "text-anchor": "end" })));
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
  if (!data.images) return [h("h2", {}, "Strongest images"), h("p", { class: "note" }, "Images are left out of this file. Make the report with --images to see them.")];
  const found = sae.latents.strongest[item.i];
  if (!found.length) return null;
  // Solid, the regions of what it follows; dashed, the region that it was seen inside or outside of.
  const its = new Set(item.tops.length ? item.tops.map((c) => LABELS[c]) : [item.best]), finding = sae.localised && sae.localised.finding, told = new Set();
  const outlined = (row) => Object.entries(data.images.outlines[row] || {}).filter(([name]) => (its.has(name) || name === finding) && told.add(name));
  const heat = sae.heat, grid = h("ul", { class: `pictures${state.overlay ? "" : " plain-heat"}` });
  found.forEach(([row, value, map], n) => {
    const picture = data.images.pictures[row], found = data.images.labels[row], labels = !found ? "" : found.map((c) => LABELS[c]).join(", ") || "no observation labelled present";
    grid.append(h("li", {}, h("figure", {}, h("div", { class: "frame" },
      picture ? h("img", { src: `data:image/webp;base64,${picture}`, width: 128, height: 128, alt: `Strongest image ${n + 1} of latent ${item.index}, activation ${form(value)}${labels ? `: ${shown(labels)}` : ""}.` }) : h("p", {}, "picture left out: it could not be read, or the file would be too large"),
      map && heat && s("svg", { viewBox: `0 0 ${heat[1]} ${heat[0]}`, preserveAspectRatio: "none", "aria-hidden": "true" }, [...map].map((c, p) => level(c) > 0.05 && s("rect", { x: p % heat[1], y: Math.floor(p / heat[1]), width: 1.02, height: 1.02, fill: "#e69f00", opacity: (0.65 * level(c)).toFixed(2) }))),
      outlined(row).map(([name, line]) => s("svg", { viewBox: "0 0 64 64", preserveAspectRatio: "none", class: "outline", "aria-hidden": "true" }, s("path", { d: line, "data-finding": name, class: its.has(name) ? "" : "dashed" })))),
      h("figcaption", {}, form(value), labels ? [" · ", theirs(labels)] : ""))));
  });
  return [h("h2", {}, "Strongest images"), h("p", { class: "note" }, heat ? [h("label", {}, h("input", { type: "checkbox", id: "overlay", checked: state.overlay, onchange: (e) => { state.overlay = e.target.checked; grid.classList.toggle("plain-heat", !state.overlay); } }), " where it fires")] : "There is no heatmap: not every position of this layer is stored, or the SAE’s folder was not given (--saes).", told.size > 0 && [" · outlined: ", theirs([...told].join(", ")), "."]), grid];
}

view("latent", { under: "latents", draw: (k, index) => {
  if (!data.saes[k]) return h("h1", {}, "There is no such SAE");
  state.sae = Number(k);
  return latent(state.sae, Number(index));
} });
