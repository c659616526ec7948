"use strict";
// Fills in pictures that are shown more than once, and shows the cards that the form asks for. The page can be read
// without it, whole.

for (const image of document.querySelectorAll("img[data-of]"))
  image.src = document.getElementById(image.dataset.of).src;

const form = document.querySelector("form");
if (form) {
  const cards = [...document.querySelectorAll("article")].map((card) => ({
    card,
    words: [...card.querySelectorAll(".source")].map((each) => each.textContent.toLowerCase()).join("\n"),
  }));
  const status = form.querySelector("[role=status]");
  const search = form.querySelector("input[type=search]");
  const mistakes = form.querySelector("input[type=checkbox]");
  const choices = [...form.querySelectorAll("select")];
  const shown = () => cards.map(({ card }) => card).filter((card) => !card.hidden);

  const show = () => {
    const wanted = search.value.trim().toLowerCase();
    for (const { card, words } of cards)
      card.hidden = !(
        words.includes(wanted) &&
        (!mistakes || !mistakes.checked || card.classList.contains("mistake")) &&
        choices.every((choice) => !choice.value || card.getAttribute(choice.name) === choice.value)
      );
    status.textContent = `${shown().length} of ${cards.length} shown`;
  };

  const step = (by) => {
    const now = shown();
    if (!now.length) return;
    const at = now.indexOf(document.activeElement.closest("article"));
    const next = now[at < 0 ? (by > 0 ? 0 : now.length - 1) : Math.min(Math.max(at + by, 0), now.length - 1)];
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "start" });
  };

  const keys = {
    j: () => step(1),
    k: () => step(-1),
    "/": () => search.focus(),
    Escape: () => form.reset(),
    ...(mistakes && { m: () => mistakes.click() }),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key !== "Escape" && event.target.matches("input[type=search], select")) return;
    const act = Object.hasOwn(keys, event.key) && keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", show);
  form.addEventListener("reset", () => setTimeout(show)); // its values change after this
  form.hidden = false;
  show();
}
