"use strict";
const positive = {{ positive_class|tojson }}, threshold = {{ threshold|tojson }}, cards = document.getElementsByClassName("card");
const slider = document.getElementById("threshold"), value = document.getElementById("value");
let limit = threshold;
function recount() {
  const counts = new Map();
  for (const card of cards) {
    let label = card.dataset.label;
    if (limit !== null && !card.dataset.status)
      label = +card.dataset.p >= limit ? positive : card.dataset.other;
    card.classList.toggle("positive", label === positive);
    if (!card.dataset.status) card.querySelector(".label").textContent = label;
    counts.set(label, (counts.get(label) || 0) + 1);
  }
  document.getElementById("counts").textContent = [...counts].map(([label, n]) => n + " " + label).join(", ");
  value.textContent = limit === null ? "most probable class" : limit.toFixed(3);
}
slider.addEventListener("input", () => { limit = +slider.value; recount(); });
document.getElementById("reset").addEventListener("click", reset);
document.getElementById("heat").addEventListener("change", (event) =>
  document.body.classList.toggle("plain", !event.target.checked));
function reset() {
  limit = threshold;
  slider.value = threshold ?? 0.5;
  recount();
}
reset();
