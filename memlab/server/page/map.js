// The view of all stored examples on a plane.

import { button, byId, element } from "./elements.js";
import { info, pictureOf } from "./memory.js";
import { showObject } from "./objects.js";
import { during } from "./progress.js";
import { request, withQuery } from "./server.js";
import { Scatter, fillMark } from "./scatter.js";
import { count } from "./words.js";

const POINTS = 5000;
const LISTED = 30; // classes in the legend
const REACH = { mouse: 12, pen: 16, touch: 24 }; // pixels around a mark that count as on it
const STEP = 60; // pixels that the map is moved by a key
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

let scatter;
let chosen = null; // id of the object shown beside
const pointers = new Map(); // that are down: id -> place
let moved = 0; // pixels since the first went down

/** Prepare the view, once. */
export function start() {
  const canvas = byId("canvas");
  scatter = new Scatter(canvas);
  new ResizeObserver(() => scatter.resize()).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    scatter.draw();
    drawLegend();
  });
  byId("zoom-in").addEventListener("click", () => scatter.zoom(1.6));
  byId("zoom-out").addEventListener("click", () => scatter.zoom(1 / 1.6));
  byId("zoom-all").addEventListener("click", () => scatter.showAll());
  canvas.addEventListener("wheel", wheeled, { passive: false });
  canvas.addEventListener("pointerdown", pointerDown);
  canvas.addEventListener("pointermove", pointerMoved);
  canvas.addEventListener("pointerup", pointerUp);
  canvas.addEventListener("pointercancel", (event) => pointers.delete(event.pointerId));
  canvas.addEventListener("pointerleave", () => hover(null));
  canvas.addEventListener("keydown", pressed);
  byId("map-object").addEventListener("keydown", (event) => {
    if (event.key === "Escape") canvas.focus();
  });
}

/** Show the view for the memory as it is. */
export async function show() {
  if (!info.writable) {
    byId("map-place").replaceChildren(element("p", { class: "hint" }, "This memory has one key for each class, and no examples to map."));
    return;
  }
  await during(byId("map-place"), "Laying out the map", async () => {
    const { points, shown, total } = await request("GET", withQuery("map", { limit: POINTS }));
    byId("map-shown").hidden = false;
    byId("map-lead").textContent =
      "Each mark is a stored example, and marks that are close together look alike to the memory. " +
      `${shown < total ? `${count(shown)} of ${count(total)}, drawn by lot` : `All ${count(total)}`}, by their two principal components.`;
    scatter.resize();
    scatter.set(points);
    drawLegend();
    const still = points.find((point) => point.id === chosen);
    const focus = byId("map-object").contains(document.activeElement);
    if (still) await beside(still.id, focus);
    else {
      if (focus) byId("canvas").focus();
      chosen = null;
      byId("map-object").replaceChildren(element("p", { class: "hint" }, "Choose a mark, to see the example here with those that are nearest to it."));
    }
  });
}

function drawLegend() {
  const style = getComputedStyle(byId("canvas"));
  const sizes = Map.groupBy(scatter.points, (point) => point.label);
  const names = [...scatter.marks.keys()].slice(0, LISTED).sort((one, other) => one.localeCompare(other, "en", { numeric: true }));
  const entries = names.map((name) => {
    const properties = {
      class: "chip",
      "aria-pressed": String(scatter.alone === name),
      "aria-label": `${name}, ${count(sizes.get(name).length)}`,
      "data-class": name,
    };
    const entry = button("", () => alone(scatter.alone === name ? null : name), properties);
    entry.append(swatch(scatter.marks.get(name), style), name);
    return entry;
  });
  const rest = scatter.marks.size - names.length;
  byId("legend").replaceChildren(...entries, ...(rest ? [element("span", { class: "hint" }, `and ${count(rest)} smaller classes`)] : []));
}

function swatch(mark, style) {
  const canvas = element("canvas", { width: 28, height: 28, class: "swatch", "aria-hidden": "true" });
  fillMark(canvas.getContext("2d"), mark, 14, 14, 9, style);
  return canvas;
}

function alone(name) {
  scatter.alone = name;
  scatter.draw();
  for (const entry of byId("legend").querySelectorAll("button")) {
    entry.setAttribute("aria-pressed", String(entry.dataset.class === name));
  }
}

/** Show an example beside the map. */
function beside(id, focus = true) {
  chosen = id;
  const point = scatter.points.find((each) => each.id === id);
  if (point) scatter.focus(point);
  const open = (next) => beside(next);
  return showObject(byId("map-object"), id, { open, after: () => {}, title: "map-object-title", focus });
}

function wheeled(event) {
  event.preventDefault();
  scatter.zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
}

function pointerDown(event) {
  if (!pointers.size) moved = 0;
  pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
  event.target.setPointerCapture(event.pointerId);
}

function pointerMoved(event) {
  const now = [event.offsetX, event.offsetY];
  const before = pointers.get(event.pointerId);
  if (!before) {
    hover(event);
    return;
  }
  const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
  if (other) {
    const spread = (place) => Math.hypot(place[0] - other[0], place[1] - other[1]) || 1;
    scatter.zoom(spread(now) / spread(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
  }
  const share = other ? 0.5 : 1;
  moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
  if (moved > 4) scatter.move(share * (now[0] - before[0]), share * (now[1] - before[1]));
  pointers.set(event.pointerId, now);
  hover(null);
}

function pointerUp(event) {
  pointers.delete(event.pointerId);
  if (moved > 4) return;
  const point = scatter.at(event.offsetX, event.offsetY, REACH[event.pointerType] || REACH.mouse);
  if (!point) return;
  if (event.pointerType === "touch") hover(event);
  beside(point.id);
}

/** Tell what is under the pointer. */
function hover(event) {
  const place = byId("map-hover");
  const point = event && scatter.at(event.offsetX, event.offsetY, REACH.mouse);
  place.hidden = !point;
  byId("canvas").classList.toggle("over", Boolean(point));
  if (!point || place.dataset.id === String(point.id)) return;
  place.dataset.id = point.id;
  const src = pictureOf(point.id);
  place.replaceChildren(...(src ? [element("img", { src, alt: "" })] : []), element("span", {}, point.label));
  const [x, y] = scatter.place(point);
  place.style.left = `${Math.min(x + 14, scatter.width - 90)}px`;
  place.style.top = `${Math.min(y + 14, scatter.height - 90)}px`;
}

function pressed(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const arrow = ARROWS[event.key];
  if (arrow && event.shiftKey) scatter.move(-STEP * arrow[0], -STEP * arrow[1]);
  else if (arrow) go(scatter.towards(...arrow));
  else if (event.key === "Enter" && scatter.focused) beside(scatter.focused.id);
  else if (event.key === "+" || event.key === "=") scatter.zoom(1.6);
  else if (event.key === "-") scatter.zoom(1 / 1.6);
  else if (event.key === "0") scatter.showAll();
  else return;
  event.preventDefault();
  event.stopPropagation();
}

function go(point) {
  if (!point) {
    byId("map-at").textContent = "No mark there.";
    return;
  }
  scatter.focus(point);
  byId("map-at").textContent = `Example ${point.id}, ${point.label}`;
}
