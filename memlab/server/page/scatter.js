// Marks of points on a canvas: drawn by class, moved, enlarged, found under the pointer and from one to the next.

const LARGE = 4.5; // half the size of a mark, pixels
const SMALL = 3; // of one among very many
const MANY = 4000;
const EDGE = 28; // left free around all marks
const NAMED = 15; // classes at most whose names are written
const CLOSEST = 60; // how far one can go in
const COLOURS = 6;
const SHAPES = [
  (path, r) => path.arc(0, 0, r, 0, 2 * Math.PI),
  (path, r) => path.rect(-r * 0.9, -r * 0.9, 1.8 * r, 1.8 * r),
  (path, r) => polygon(path, [[0, -1.2 * r], [1.2 * r, 0.9 * r], [-1.2 * r, 0.9 * r]]),
  (path, r) => polygon(path, [[0, -1.3 * r], [1.3 * r, 0], [0, 1.3 * r], [-1.3 * r, 0]]),
  (path, r) => cross(path, r, 0.45 * r),
];
const REST = { colour: "--class-rest", shape: 0 };

function polygon(path, corners) {
  corners.forEach(([x, y], place) => (place ? path.lineTo(x, y) : path.moveTo(x, y)));
  path.closePath();
}

function cross(path, r, half) {
  path.rect(-1.2 * r, -half, 2.4 * r, 2 * half);
  path.rect(-half, -1.2 * r, 2 * half, 2.4 * r);
}

/**
 * Marks of classes: pairs of a colour and a shape, so that they can be told apart without colours. A colour is given again
 * to the class that is farthest from those that have it; when all pairs are given, the rest are grey dots.
 * @param {Map<string, [number, number]>} centres of the classes, those that matter most first.
 */
function marksOf(centres) {
  const given = Array.from({ length: COLOURS }, () => []);
  const marks = new Map();
  for (const [name, [x, y]] of centres) {
    const free = given.map((same, colour) => [colour, same]).filter(([, same]) => same.length < SHAPES.length);
    const room = ([, same]) => least(same.map(([px, py]) => Math.hypot(px - x, py - y)));
    const best = free.reduce((one, other) => (one === null || room(other) > room(one) ? other : one), null);
    if (best === null) marks.set(name, REST);
    else {
      const [colour, same] = best;
      marks.set(name, { colour: `--class-${colour}`, shape: (colour + same.length) % SHAPES.length });
      same.push([x, y]);
    }
  }
  return marks;
}

/** Fill the mark of a class at a place of a canvas; style says what its colour is in light and dark. */
export function fillMark(context, { colour, shape }, x, y, size, style) {
  context.beginPath();
  context.translate(x, y);
  SHAPES[shape](context, size);
  context.translate(-x, -y);
  context.fillStyle = style.getPropertyValue(colour);
  context.fill();
}

/** A scatter on a canvas; points are {id, label, x, y}. */
export class Scatter {
  constructor(canvas) {
    this.canvas = canvas;
    this.points = [];
    this.centres = new Map(); // class -> the middle of its points
    this.marks = new Map(); // class -> its mark
    this.alone = null; // a class that is shown alone
    this.focused = null;
    this.view = { scale: 1, x: 0, y: 0 };
  }

  /** Show other points; what is seen of the map stays as it is if there were some. */
  set(points) {
    const first = !this.points.length;
    this.points = points;
    this.centres = centresOf(points);
    this.marks = marksOf(this.centres);
    if (!this.centres.has(this.alone)) this.alone = null;
    this.size = points.length > MANY ? SMALL : LARGE;
    this.focused = points.find((point) => point.id === this.focused?.id) || null;
    if (first) this.showAll();
    else this.draw();
  }

  /** Take the size of the canvas as it is laid out. */
  resize() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this.canvas;
    Object.assign(this, { width: clientWidth, height: clientHeight, ratio });
    this.canvas.width = clientWidth * ratio;
    this.canvas.height = clientHeight * ratio;
    if (this.atAll) this.showAll();
    else this.draw();
  }

  showAll() {
    if (!this.points.length || !this.width) return;
    const [xs, ys] = ["x", "y"].map((axis) => this.points.map((point) => point[axis]));
    const [left, right, low, high] = [least(xs), -least(xs.map((x) => -x)), least(ys), -least(ys.map((y) => -y))];
    const room = (pixels, extent) => (pixels - 2 * EDGE) / (extent || 1);
    const scale = Math.min(room(this.width, right - left), room(this.height, high - low));
    this.view = { scale, x: this.width / 2 - (scale * (left + right)) / 2, y: this.height / 2 + (scale * (low + high)) / 2 };
    this.least = scale;
    this.atAll = true;
    this.draw();
  }

  /** Enlarge about a place on the canvas. */
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const scale = Math.min(Math.max(this.view.scale * factor, this.least), this.least * CLOSEST);
    const grown = scale / this.view.scale;
    this.view = { scale, x: x - (x - this.view.x) * grown, y: y - (y - this.view.y) * grown };
    this.atAll = false;
    if (scale === this.least) this.showAll();
    else this.draw();
  }

  move(dx, dy) {
    this.view.x += dx;
    this.view.y += dy;
    this.atAll = false;
    this.draw();
  }

  place({ x, y }) {
    return [this.view.x + this.view.scale * x, this.view.y - this.view.scale * y];
  }

  shown(point) {
    return this.alone === null || point.label === this.alone;
  }

  /** The point nearest to a place on the canvas within some pixels; null if there is none. */
  at(x, y, within) {
    return this.best((px, py) => {
      const distance = Math.hypot(px - x, py - y);
      return distance <= within ? distance : Infinity;
    });
  }

  /** The next point in a direction: the nearest within 45 degrees, those straight ahead first. */
  towards(dx, dy) {
    if (!this.focused) return this.best((px, py) => Math.hypot(px - this.width / 2, py - this.height / 2));
    const [x, y] = this.place(this.focused);
    return this.best((px, py) => {
      const ahead = (px - x) * dx + (py - y) * dy;
      const aside = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
      return ahead > 0.5 && aside <= ahead ? ahead + 2 * aside : Infinity;
    });
  }

  best(cost) {
    let [found, lowest] = [null, Infinity];
    for (const point of this.points) {
      if (!this.shown(point)) continue;
      const own = cost(...this.place(point));
      if (own < lowest) [found, lowest] = [point, own];
    }
    return found;
  }

  /** Mark a point as the one that is looked at, and bring it into sight. */
  focus(point) {
    this.focused = point;
    if (point) {
      const [x, y] = this.place(point);
      if (x < EDGE || y < EDGE || x > this.width - EDGE || y > this.height - EDGE) {
        this.move(this.width / 2 - x, this.height / 2 - y);
        return;
      }
    }
    this.draw();
  }

  draw() {
    if (!this.width) return;
    const context = this.canvas.getContext("2d");
    const style = getComputedStyle(this.canvas);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    this.canvas.classList.toggle("zoomed", !this.atAll);
    for (const point of this.points) this.drawPoint(context, point, style);
    context.globalAlpha = 1;
    if (this.alone === null) this.drawNames(context, style);
    if (this.focused) this.drawFocus(context, style);
  }

  drawPoint(context, point, style) {
    const [x, y] = this.place(point);
    if (x < 0 || y < 0 || x > this.width || y > this.height) return;
    context.globalAlpha = this.shown(point) ? 0.85 : 0.1;
    fillMark(context, this.marks.get(point.label), x, y, this.size, style);
  }

  /** Names of the classes in the middle of their marks, while there are few. */
  drawNames(context, style) {
    if (this.centres.size > NAMED) return;
    for (const [name, [x, y]] of this.centres) {
      const words = name.length > 20 ? `${name.slice(0, 19)}…` : name;
      write(context, style, words, ...this.place({ x, y }));
    }
  }

  drawFocus(context, style) {
    const [x, y] = this.place(this.focused);
    context.lineWidth = 2.5;
    context.strokeStyle = style.getPropertyValue("--text");
    context.beginPath();
    context.arc(x, y, 3 * LARGE, 0, 2 * Math.PI);
    context.stroke();
  }
}

function write(context, style, words, x, y) {
  Object.assign(context, { textAlign: "center", textBaseline: "middle", lineJoin: "round", lineWidth: 5 });
  context.font = `700 15px ${style.fontFamily}`;
  context.strokeStyle = style.getPropertyValue("--surface");
  context.strokeText(words, x, y);
  context.fillStyle = style.getPropertyValue("--text");
  context.fillText(words, x, y);
}

/** The median of the points of each class, in each direction; classes with most points first. */
function centresOf(points) {
  const own = Map.groupBy(points, (point) => point.label);
  const bySize = [...own].sort(([one, some], [other, others]) => others.length - some.length || (one < other ? -1 : 1));
  return new Map(bySize.map(([name, some]) => [name, [median(some.map(({ x }) => x)), median(some.map(({ y }) => y))]]));
}

function least(values) {
  return values.reduce((lowest, value) => Math.min(lowest, value), Infinity);
}

function median(values) {
  const ascending = values.toSorted((one, other) => one - other);
  return ascending[Math.floor(ascending.length / 2)];
}
