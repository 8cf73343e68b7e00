/* ---- the list ---- */
// r, and the figures that say what a latent has to do with observations; the others are on its page, and sort.
const COLUMNS = LATENT.filter((m) => m.in.includes("observations"));
const SORTS = { r: "r with its observation", ...Object.fromEntries(LATENT.map((m) => [m.name, m.words])), stability: "stability", index: "index", title: "name" };
const UPWARDS = ["index", "title", ...LATENT.filter((m) => m.less).map((m) => m.name)];
// Of each column the pixels that its figures and the longest word of its title take.
const WIDTHS = ["60px", "minmax(160px, 1fr)", "150px", ...COLUMNS.map((m) => `${Math.min(Math.max(58, ...m.title.split(" ").map((word) => 8 * word.length + 14)), 150)}px`)];
const LEAST = WIDTHS.reduce((sum, width) => sum + 12 + Number(/\d+/.exec(width)[0]), 20);
function visible() {
  const { items } = latentsOf(state.sae), words = state.query.toLowerCase().split(/\s+/).filter(Boolean).map((w) => w.replace(/^#/, ""));
  const label = state.label === "" ? null : Number(state.label), r = label === null ? null : data.saes[state.sae].latents.r[label];
  const kept = items.filter((x) => !(state.dead && !x.density) && !(state.dense && x.density > 0.1) && words.every((w) => x.text.includes(w)));
  const by = LATENT.find((m) => m.name === state.sort), sae = data.saes[state.sae];
  const value = state.sort === "r" && r ? (x) => r[x.i] : by ? (x) => valueOf(sae, by, x, label === null ? x.label : label) : (x) => x[state.sort];
  const sign = state.down ? -1 : 1;
  return kept.sort((a, b) => {
    const x = value(a), y = value(b);
    if (!known(x) || !known(y)) return known(y) - known(x) || a.index - b.index;
    return (typeof x === "string" ? sign * x.localeCompare(y) : sign * (x - y)) || a.index - b.index;
  });
}

function topTag(x, observations) {
  const told = x.tops.filter((c) => !byChance(observations[c]));
  if (!told.length) return "";
  return [" ", h("span", { class: "tag" }, "top of ", told.length === 1 ? theirs(LABELS[told[0]]) : told.length)];
}

// A badge on latents that fire outside of the region, such as the lungs.
function outsideTag(sae, x) {
  const flag = sae.localised && sae.localised.flags[x.index];
  return flag && flag[0] === "outside" ? [" ", h("span", { class: "tag", title: `${percent(flag[1])} of its activation lies inside ${sae.localised.finding}` }, "outside")] : "";
}

let list = null;
function latents() {
  const sae = data.saes[state.sae], l = sae.latents;
  const box = h("div", { class: "items" }), count = h("span", { class: "count", role: "status" });
  const view = h("div", { class: "window", tabindex: "0", role: "grid", "aria-label": "Latents", "aria-rowcount": 0 }, box);
  const heads = [["index", "#"], ["title", "name or observation"], ["r", "r"], ...COLUMNS.map((m) => [m.name, m.title, true])];
  const headRow = h("div", { class: "row head" });
  const order = h("select", { "aria-label": "Sort by", onchange: (e) => sortBy(e.target.value, !UPWARDS.includes(e.target.value)) },
    Object.entries(SORTS).filter(([key]) => key !== "stability" || (l.stability && l.stability.some(known))).map(([key, name]) => h("option", { value: key, selected: key === state.sort }, name)));
  const frame = h("div", { class: "list", style: `--widths: ${WIDTHS.join(" ")}; --least: ${LEAST}px` }, headRow, view);
  const sortBy = (key, down) => { state.sort = key; state.down = down; state.chosen = 0; refresh(true); };
  let shownItems = [];

  function drawHead() {
    frame.classList.toggle("by-figure", COLUMNS.some((m) => m.name === state.sort));
    headRow.replaceChildren(...heads.map(([key, name, right]) => h("span", { class: right ? `r${state.sort === key ? " by" : ""}` : "", "aria-sort": state.sort === key ? (state.down ? "descending" : "ascending") : null },
      h("button", { type: "button", onclick: () => { sortBy(key, state.sort === key ? !state.down : !UPWARDS.includes(key)); order.value = key; } }, name, state.sort === key ? (state.down ? " ↓" : " ↑") : ""))));
  }
  function draw() {
    const first = Math.max(0, Math.floor(view.scrollTop / ROW) - 8), last = Math.min(shownItems.length, Math.ceil((view.scrollTop + view.clientHeight) / ROW) + 8);
    const label = state.label === "" ? null : Number(state.label);
    box.replaceChildren(...shownItems.slice(first, last).map((x, k) => {
      const place = first + k, c = label === null ? x.label : label, r = c < 0 ? null : l.r[c][x.i];
      const e = h("a", { class: "row item", href: latentHash(state.sae, x.index), role: "row", "aria-rowindex": place + 1, "aria-selected": String(place === state.chosen), tabindex: -1 },
        h("span", { class: "id" }, `#${x.index}`),
        h("span", { class: "what" }, theirs(x.title), x.best && !x.follows ? h("em", {}, " strongest: ", theirs(x.best)) : x.name && x.best ? h("em", {}, " ", theirs(x.best)) : "", topTag(x, sae.observations), outsideTag(sae, x), leaningTag(sae, x)),
        h("span", { class: "track" }, h("b", {}, styled(h("i"), { width: `${Math.max(0, r || 0) * 100}%` })), h("span", {}, form(r))),
        COLUMNS.map((m) => h("span", { class: `r${state.sort === m.name ? " by" : ""}` }, figure(m, valueOf(sae, m, x, c)))));
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
    h("p", { class: "sub" }, theirs(sae.name), sae.left_out ? `: the ${l.index.length} that correlate most with any observation; ${sae.left_out} are left out of this file.` : `: all ${sae.d_sae}.`, ` r, ${listed(metrics("report", "label").filter((m) => m.name !== "r").map((m) => m.title))} are with the observation that a latent’s r is largest with, or with the one chosen here. It is said to follow that one where r is above chance (fdr and p below 0.05). H: entropy over observations, in nats.`),
    h("div", { class: "tools" }, search,
      h("select", { "aria-label": "Observation", id: "label", onchange: (e) => { state.label = e.target.value; refresh(true); } }, h("option", { value: "" }, "best observation"), LABELS.map((name, c) => h("option", { value: c, selected: state.label === String(c) }, shown(name)))),
      h("label", {}, "sort", order), check("dead", "hide dead"), check("dense", "hide dense")),
    h("p", { class: "note keys" }, h("kbd", {}, "/"), " search  ", h("kbd", {}, "j"), " ", h("kbd", {}, "k"), " move  ", h("kbd", {}, "Enter"), " open  ", h("kbd", {}, "Esc"), " back"),
    frame, h("p", { class: "note" }, count),
  ];
}

view("latents", { title: "Latents", draw: latents });
