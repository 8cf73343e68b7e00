/* ---- frame ---- */
function route() {
  const [asked, ...parts] = (location.hash || "#/overview").slice(2).split("/"), key = views.has(asked) ? asked : "overview", chosen = views.get(key);
  let content;
  list = null;
  try { content = chosen.draw(...parts); } catch (error) {
    console.error(error);
    content = [h("h1", {}, "This view could not be drawn"), h("p", { class: "sub" }, shown(error))];
  }
  select.value = String(state.sae);
  document.getElementById("tabs").replaceChildren(...[...views].filter(([, x]) => x.title).map(([name, x]) => h("a", { href: `#/${name}`, "aria-current": name === (chosen.under || key) ? "page" : null }, x.title)));
  main.replaceChildren(...[content].flat(9).filter(Boolean));
  main.dataset.view = key;
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
