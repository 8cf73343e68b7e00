/* ---- what the file holds ---- */
function about() {
  const pictures = data.images ? Object.keys(data.images.pictures).length : 0, left = data.saes.reduce((t, x) => t + x.left_out, 0);
  const facts = [
    ["Images", data.images ? `Shown: ${pictures} of the ${data.images.wanted} that are among the eight strongest of a latent, at 128 pixels${pictures < data.images.wanted ? "; the rest would make the file too large, or could not be read" : ""}. This file holds images and labels of patients: share it as you would share those.` : "Left out, as is everything about a single image or patient. Make the report with --images to show them."],
    ["Latents", left ? `${left} are left out: the file keeps those that correlate most with any observation.` : "All latents of every SAE are here."],
    [upper(listed(KINDS.map(kindName))), "Only their summaries and their top figures are here; latents.parquet has a row for each."],
    ["Other figures of each latent", `In latents.parquet. This file keeps ${listed(metrics("report", "label").map((m) => m.title))} with each observation, to three digits.`],
    ["Names", data.saes.some((x) => Object.keys(x.names).length) ? "Proposals: of a model that saw images a latent fires on, or the nearest term of a vocabulary (similarity: a cosine), or the label that goes with it (similarity: r on held-out patients). A score says how well a judge could tell firing from silent images by the name." : "None were given."],
    ["Training curves", data.saes.some((x) => x.training) ? "From each SAE’s training.json." : "Left out: no SAE folder was given."],
  ];
  return [h("h1", {}, "About this file"),
    h("p", { class: "sub" }, `Made by medsae-plugin ${data.header.medsae_plugin} from activations of ${data.header.encoder.name}. An image’s activation is the ${data.header.aggregate} over its positions. It is one file, and asks no network for anything.`),
    h("h2", {}, "What is in it, and what is left out"), h("table", {}, h("tbody", {}, facts.map(([a, b]) => h("tr", {}, h("th", { scope: "row" }, a), h("td", {}, b))))),
    h("h2", {}, "Keys"), h("table", {}, h("tbody", {}, [["/", "search"], ["j, k or ↓, ↑", "next, previous latent"], ["Enter", "open the latent"], ["Esc", "back to the list"], ["t", "dark or light"]].map(([a, b]) => h("tr", {}, h("th", { scope: "row" }, h("kbd", {}, a)), h("td", {}, b)))))];
}

view("about", { title: "About", draw: about });
