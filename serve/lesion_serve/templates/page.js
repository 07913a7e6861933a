{% include "report.js" %}
const ATTEMPTS = 30, AT_ONCE = 4, waiting = [];
let total = 0, answered = 0, working = 0;

function create(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function show(element, list, before = null) {
  list.insertBefore(element, before);
  list.closest("section").hidden = false;
}

function showError(name, reason) {
  const row = create("tr");
  row.append(create("td", "", name), create("td", "", reason));
  show(row, document.getElementById("errors"));
}

function showCard(name, record, images) {
  const others = Object.keys(record).filter((key) => key.startsWith("p_") && key !== "p_" + positive);
  const p = record["p_" + positive], refused = record.label === null;
  const card = create("li", "card"), frame = create("div", "frame"), image = create("div", "image");
  Object.assign(card.dataset, {p, label: record.label ?? record.status,
    other: others.reduce((a, b) => record[b] > record[a] ? b : a).slice(2)});
  if (refused) card.dataset.status = record.status;
  const thumbnail = create("img");
  thumbnail.src = images.image;
  image.append(thumbnail);
  if (images.heat) {
    const heat = create("img", "heat");
    heat.src = images.heat;
    Object.assign(heat.style, images.heat_position);
    image.append(heat);
  }
  frame.append(image);
  const caption = create("div", "caption"), label = create("p"), bar = create("div", "bar"), length = create("span");
  label.append(create("span", "label", refused ? "out of distribution" : record.label));
  length.style.width = 100 * p + "%";
  bar.append(length);
  caption.append(label, create("p", "", positive + " " + p.toFixed(3)), bar, create("p", "soft", name));
  card.append(frame, caption);
  const list = document.getElementById(refused ? "refused" : "cards");
  show(card, list, [...list.children].find((other) => +other.dataset.p < p));
}

async function ask(file) {
  for (let attempt = 1; ; attempt++) {
    const response = await fetch("card", {method: "POST", body: file});
    const busy = response.status === 429 || response.status === 503;
    if (!busy || attempt === ATTEMPTS) return response.json();
    await new Promise((resolve) => setTimeout(resolve, 1000 * (response.headers.get("Retry-After") || 1)));
  }
}

async function work() {
  for (let file; (file = waiting.shift()); answered++) {
    progress();
    try {
      const {record, images, error} = await ask(file);
      const reason = record ? record.error : error;
      if (reason) showError(file.name, reason); else showCard(file.name, record, images);
    } catch {
      showError(file.name, "it cannot be read, or the service does not answer");
    }
    document.getElementById("results").hidden = false;
    recount();
  }
}

function progress() {
  document.getElementById("progress").textContent = answered < total ? answered + " of " + total + " answered" : "";
}

async function add(files) {
  waiting.push(...files);
  total += files.length;
  const free = Math.min(AT_ONCE - working, waiting.length);
  working += free;
  await Promise.all(Array.from({length: free}, work));
  working -= free;
  progress();
}

const chosen = document.getElementById("files");
chosen.addEventListener("change", () => { add([...chosen.files]); chosen.value = ""; });
for (const [kind, over] of [["dragenter", true], ["dragover", true], ["dragleave", false], ["drop", false]])
  addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", over);
    if (kind === "drop") add([...event.dataTransfer.files]);
  });
