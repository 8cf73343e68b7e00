/* ---- charts ---- */
function svg(width, height, alt, ...children) {
  return s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": alt }, ...children);
}
const text = (x, y, content, more = {}, ...inside) => s("text", { x, y, ...more }, content, ...inside);
function ticks(low, high, count = 4) {
  const raw = (high - low) / count || 1, unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * unit).find((v) => v >= raw);
  const made = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step) made.push(Math.abs(v) < step * 1e-9 ? 0 : v);
  return made;
}
// As many units as pixels on a narrow screen, so that text keeps its size.
const wide = (most) => Math.min(most, document.documentElement.clientWidth - 28);
// A text cut to about these pixels; what draws it tells the whole in a title.
const within = (content, pixels) => content.length * 6.4 > pixels ? `${content.slice(0, Math.floor(pixels / 6.4) - 1)}…` : content;
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

// r of a top latent on a scale, with its interval, its chance, and r of what stands beside.
function whisker(o, beside) {
  const W = 220, H = 22, X = (v) => 4 + (W - 8) * (Math.max(-0.2, Math.min(1, v)) + 0.2) / 1.2;
  const dot = (v, color, ring) => known(v) && s("circle", { cx: X(v), cy: H / 2, r: ring ? 3.5 : 4.5, fill: ring ? "var(--paper)" : color, stroke: color, "stroke-width": 1.6 });
  return svg(W, H, `${o.label}: r ${form(o.r)} ${ci(o.r_low, o.r_high)}; ${beside.map(([kind, r]) => `${kindName(kind)} ${form(r)}; `).join("")}chance stays under ${form(o.r_chance)}.`,
    s("path", { class: "axis", d: `M${X(0)} 1V${H - 1}M${X(0.5)} ${H - 5}v4M${X(1)} ${H - 5}v4` }),
    known(o.r_chance) && s("rect", { x: X(0), y: 4, width: Math.max(0, X(o.r_chance) - X(0)), height: H - 8, fill: "var(--line)" }),
    known(o.r_low) && known(o.r_high) && s("path", { d: `M${X(o.r_low)} ${H / 2}H${X(o.r_high)}`, stroke: "var(--accent)", "stroke-width": 2.2 }),
    [...beside].reverse().map(([kind, r]) => dot(r, ring(kind), true)), dot(o.r, "var(--accent)", false));
}
