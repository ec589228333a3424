// Samples: test images, uncoded above coded, at the operating point that a slider chooses.

// Points of the chosen encoder and codec with both ends of its curve, from no bits to uncoded.
function stopsOf(set) {
  const [encoder, codec] = [at("sample-encoder").value, at("sample-codec").value];
  return set.pictures.stops.filter((s) => s.encoder === encoder && ["", codec].includes(s.codec));
}

const stopText = (stop) => `${stop.codec} ${stop.name}: `.trimStart()
  + (stop.bpp === null ? "" : `${Number(stop.bpp.toPrecision(4))} bits per pixel; `)
  + Object.entries(stop.values).map(([task, value]) => `${task} ${value}`).join(", ");

// An output as an element: a picture, marks on the image, or words.
function shot(output, image, alt) {
  const parts = [];
  const picture = (src, text, name) => element("img", { src, alt: text, class: name, decoding: "sync" });
  if (output?.whole) parts.push(picture(output.whole, alt, "whole"));
  if (output?.marks) parts.push(picture(image, alt, "whole"), picture(output.marks, "", "marks"));
  const shown = parts.length ? [element("div", { class: "stack" }, ...parts)] : [];
  return element("div", { class: "shot" }, ...shown, ...(output?.text ? [element("p", {}, output.text)] : []));
}

function sampleElement(set, sample, uncoded, stop) {
  const image = set.pictures.images[sample.sample];
  const column = (title, of) => element("div", {}, element("h4", {}, title), ...[["uncoded", uncoded], ["coded", sample]]
    .filter(([, from]) => from && of(from)).flatMap(([when, from]) => [element("span", { class: "quiet" }, when),
      shot(of(from), image, `${title} of ${sample.sample}, ${when === "coded" ? stopText(stop) : when}`)]));
  const tasks = [...new Set([uncoded, sample].flatMap((from) => Object.keys(from?.outputs ?? {})))];
  return element("figure", { class: "sample" },
    element("figcaption", {}, `${sample.sample}: ${sample.bytes} bytes${uncoded ? ` of ${uncoded.bytes}` : ""}`),
    element("div", { class: "shots" },
      element("div", {}, element("h4", {}, "image"), element("span", { class: "quiet" }, "original"), shot({ whole: image }, image, `image ${sample.sample}`)),
      column("features", (from) => ({ whole: from.features })), ...tasks.map((task) => column(task, (from) => from.outputs[task]))));
}

function drawSamples(set) {
  const stops = stopsOf(set);
  const stop = stops[Number(at("stop").value)];
  const ceiling = stops.find((s) => s.name === "uncoded" && s.codec === "");
  at("stop").dataset.bpp = stop.bpp ?? "";
  at("stop").setAttribute("aria-valuetext", stopText(stop));
  at("stop-now").textContent = stopText(stop);
  at("sample-figures").replaceChildren(...stop.samples.map((sample) =>
    sampleElement(set, sample, ceiling?.samples.find((s) => s.sample === sample.sample), stop)));
}

// Sets the slider to the points of the chosen codec, at the rate nearest to the previous one.
function slide(set, bpp) {
  const stops = stopsOf(set);
  const far = stops.map((s) => Math.abs(s.bpp - bpp));
  at("stop").max = String(stops.length - 1);
  at("stop").value = String(bpp ? far.indexOf(Math.min(...far)) : Math.floor((stops.length - 1) / 2));
  drawSamples(set);
}

// Shows the section for a set of results; hides it if there are no pictures.
function showSamples(set) {
  const distinct = (key) => [...new Set(set.pictures.stops.map((s) => s[key]))].filter(Boolean);
  at("samples").hidden = at("to-samples").hidden = !set.pictures.stops.length;
  if (at("samples").hidden) return;
  at("sample-encoder").replaceChildren(...distinct("encoder").map((name) => element("option", {}, name)));
  at("sample-codec").replaceChildren(...distinct("codec").map((name) => element("option", {}, name)));
  slide(set);
  at("stop").oninput = () => drawSamples(set);
  for (const id of ["sample-encoder", "sample-codec"]) at(id).onchange = () => slide(set, at("stop").dataset.bpp);
}
