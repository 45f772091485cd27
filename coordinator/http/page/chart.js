// One chart: lines over steps, drawn as SVG. It zooms by dragging or by keys, and reads out the figures under the
// pointer or the keyboard's cursor.
import {announce, h, renew, setAttributes, svg} from './dom.js';
import * as format from './format.js';
import {extent, logTicks, lowerBound, nearest, path, scale, smooth, thin, ticks} from './scale.js';

const LEFT = 52;
const RIGHT = 10;
const TOP = 8;
const BOTTOM = 22;
const LEAST_DRAG = 6;
const DOTS = 60;

let made = 0;

export class Chart {
  /** @param {{title: string, group: ChartGroup, wide?: boolean, plain?: boolean}} options plain: no values in the head */
  constructor({title, group, wide, plain}) {
    this.title = title;
    this.group = group;
    this.plain = plain;
    this.lines = [];
    made += 1;
    const clip = `clip-${made}`;
    this.grid = svg('g', {class: 'grid'});
    this.axis = svg('g', {class: 'axis'});
    this.plot = svg('g', {class: 'plot', 'clip-path': `url(#${clip})`});
    this.cursor = svg('g', {class: 'cursor'});
    this.selection = svg('rect', {class: 'selection', y: TOP, width: 0});
    this.clipRect = svg('rect', {x: LEFT - 4, y: 0});
    this.svg = svg('svg', {tabindex: 0, role: 'application', 'aria-roledescription': 'chart', focusable: 'true'},
      svg('defs', {}, svg('clipPath', {id: clip}, this.clipRect)), this.grid, this.axis, this.selection, this.plot, this.cursor);
    this.values = h('ul');
    this.nothing = h('p', {class: 'nothing'}, 'No figures yet');
    this.tip = h('div', {class: 'tip', hidden: true, 'aria-hidden': 'true'});
    this.node = h('figure', {class: wide ? 'chart card wide' : 'chart card'},
      h('figcaption', {class: 'chart-head'}, h('h3', {}, title), this.values), this.svg, this.nothing, this.tip);
    this.listen();
    group.charts.add(this);
    this.observer = new ResizeObserver(() => group.draw());
    this.observer.observe(this.svg);
  }

  /**
   * @param {{name: string, color: number, xs: number[], ys: number[], dots?: boolean, dashed?: boolean,
   *   rough?: boolean}[]} lines xs ascend; rough lines are smoothed as the group says
   */
  setLines(lines) {
    this.lines = lines;
    this.group.draw();
  }

  // ---- Drawing ----

  allSteps() {
    const steps = extentOfSteps(this.lines);
    return steps && steps[0] === steps[1] ? [steps[0] - 1, steps[1] + 1] : steps;
  }

  draw() {
    const box = this.svg.getBoundingClientRect();
    if (box.width < 80) return;
    this.width = box.width;
    this.height = box.height;
    const all = this.allSteps();
    this.shown = this.group.zoom ?? all;
    const weight = this.group.smoothing;
    this.drawn = this.lines.map((line) => ({...line, smooth: weight > 0 && line.rough ? smooth(line.ys, weight) : line.ys}));
    const visible = this.shown ? this.drawn.map((line) => line.ys.slice(...this.range(line.xs))) : [];
    const span = extent(visible, this.group.log);
    this.nothing.hidden = Boolean(span);
    setAttributes(this.svg, {viewBox: `0 0 ${this.width} ${this.height}`, 'aria-label': this.sentence()});
    setAttributes(this.clipRect, {width: Math.max(0, this.width - LEFT - RIGHT + 8), height: this.height - BOTTOM + 2});
    if (!span) {
      for (const part of [this.grid, this.axis, this.plot, this.cursor]) part.replaceChildren();
      this.toX = null;
      this.drawValues();
      return;
    }
    this.toX = scale(this.shown[0], this.shown[1], LEFT, this.width - RIGHT);
    this.toY = scale(span[0], span[1], this.height - BOTTOM, TOP, this.group.log);
    this.drawAxes(span);
    this.plot.replaceChildren(...this.drawn.flatMap((line) => this.shapesOf(line)));
    this.drawCursor();
  }

  /** Indices of the steps that are shown, with one more on each side. */
  range(xs) {
    return [Math.max(0, lowerBound(xs, this.shown[0]) - 1), Math.min(xs.length, lowerBound(xs, this.shown[1] + 1e-9) + 1)];
  }

  drawAxes(span) {
    const ys = this.group.log ? logTicks(...span) : ticks(...span, this.height > 230 ? 6 : 5);
    const xs = ticks(this.shown[0], this.shown[1], Math.max(2, Math.floor(this.width / 60))).filter(Number.isInteger);
    this.grid.replaceChildren(...ys.map((y) => svg('line', {x1: LEFT, x2: this.width - RIGHT, y1: this.toY(y).toFixed(1), y2: this.toY(y).toFixed(1)})));
    this.axis.replaceChildren(
      ...ys.map((y) => svg('text', {class: 'y', x: LEFT - 7, y: this.toY(y).toFixed(1)}, format.figure(y, 3))),
      ...xs.map((x) => svg('text', {class: 'x', x: this.toX(x).toFixed(1), y: this.height - 5}, format.count(x))));
  }

  shapesOf(line) {
    const [from, to] = this.range(line.xs);
    const columns = Math.floor(this.width - LEFT - RIGHT);
    const shapes = [];
    const draw = (ys, kind) => {
      const d = path(line.xs, ys, thin(ys, from, to, columns), this.toX, this.toY, this.group.log);
      if (d) shapes.push(svg('path', {d, class: [`s${line.color}`, kind, line.dashed ? 'dashed' : ''].filter(Boolean).join(' ')}));
    };
    if (line.smooth !== line.ys) draw(line.ys, 'raw');
    draw(line.smooth, 'line');
    const few = to - from <= (line.dots ? DOTS : 1);
    for (let i = from; few && i < to; i += 1) {
      if (!Number.isFinite(line.ys[i]) || (this.group.log && line.ys[i] <= 0)) continue;
      shapes.push(svg('circle', {class: `s${line.color}`, r: 2.6, cx: this.toX(line.xs[i]).toFixed(1), cy: this.toY(line.smooth[i]).toFixed(1)}));
    }
    return shapes;
  }

  /** Of each line the point at the cursor, or its last one. */
  points() {
    const at = this.group.cursor;
    return (this.drawn ?? []).map((line) => {
      const i = at === null ? line.xs.length - 1 : nearest(line.xs, at);
      return {line, i, x: line.xs[i], y: line.ys[i], drawn: line.smooth[i]};
    }).filter((point) => point.i >= 0);
  }

  drawCursor() {
    this.drawValues();
    const at = this.group.cursor;
    // A step that a zoom has left out has no place in the chart.
    if (at === null || !this.toX || at < this.shown[0] || at > this.shown[1]) {
      this.cursor.replaceChildren();
      this.tip.hidden = true;
      return;
    }
    const x = this.toX(at).toFixed(1);
    const near = this.points().filter((point) => Number.isFinite(point.drawn) && point.x >= this.shown[0] && point.x <= this.shown[1]);
    this.cursor.replaceChildren(svg('line', {x1: x, x2: x, y1: TOP, y2: this.height - BOTTOM}),
      ...near.filter((point) => !this.group.log || point.drawn > 0).map((point) =>
        svg('circle', {class: `s${point.line.color}`, r: 3.5, cx: this.toX(point.x).toFixed(1), cy: this.toY(point.drawn).toFixed(1)})));
    this.drawTip(at, near);
  }

  drawTip(at, points) {
    // Only the chart that is used shows it; the others have their cursor and the values in their heads.
    this.tip.hidden = !this.used || points.length === 0;
    if (this.tip.hidden) return;
    this.tip.replaceChildren(h('p', {}, `step ${format.count(at)}`), h('ul', {}, points.map((point) =>
      h('li', {}, h('span', {class: `swatch s${point.line.color}`}), h('span', {}, point.line.name), h('b', {}, format.figure(point.y))))));
    const x = this.toX(at);
    const width = this.tip.offsetWidth;
    this.tip.style.left = `${x + 16 + width > this.width ? Math.max(0, x - width) : x + 22}px`;
    this.tip.style.top = '52px';
  }

  drawValues() {
    if (this.plain) return;
    const points = this.points();
    const text = points.map((point) => `${point.line.name} ${point.y}`).join();
    renew(this.values, text, () => points.map((point) => h('li', {},
      h('span', {class: `swatch s${point.line.color}`}), this.lines.length > 1 ? point.line.name : null, h('b', {}, format.figure(point.y)))));
  }

  /** What a screen reader says of the chart. */
  sentence() {
    const lines = this.lines.filter((line) => line.xs.length > 0).map((line) => {
      const last = line.xs.length - 1;
      return `${line.name} from ${format.figure(line.ys[0])} at step ${line.xs[0]} to ${format.figure(line.ys[last])} at step ${line.xs[last]}`;
    });
    return `${this.title}: ${lines.join('; ') || 'no figures yet'}. Arrow keys read the figures, plus and minus zoom, Escape shows all.`;
  }

  // ---- Pointer and keys ----

  stepAt(event) {
    const x = event.clientX - this.svg.getBoundingClientRect().left;
    const share = Math.min(1, Math.max(0, (x - LEFT) / (this.width - LEFT - RIGHT)));
    const step = this.shown[0] + share * (this.shown[1] - this.shown[0]);
    // The step nearest to it that has figures.
    let best = null;
    for (const line of this.lines) {
      const i = nearest(line.xs, step);
      if (i >= 0 && (best === null || Math.abs(line.xs[i] - step) < Math.abs(best - step))) best = line.xs[i];
    }
    return {x: Math.min(this.width - RIGHT, Math.max(LEFT, x)), step, nearest: best};
  }

  listen() {
    let start = null;
    const move = (event) => {
      if (!this.toX) return;
      const at = this.stepAt(event);
      this.used = true;
      this.group.setCursor(at.nearest);
      if (start) setAttributes(this.selection, {x: Math.min(start.x, at.x), width: Math.abs(at.x - start.x), height: this.height - BOTTOM - TOP});
    };
    const leave = () => {
      this.used = false;
      this.group.setCursor(null);
    };
    this.svg.addEventListener('pointerdown', (event) => {
      if (!this.toX || event.button !== 0) return;
      start = this.stepAt(event);
      // A finger that scrolls the page must not be held.
      if (event.pointerType === 'mouse') this.svg.setPointerCapture(event.pointerId);
      move(event);
    });
    this.svg.addEventListener('pointermove', move);
    const end = (event) => {
      const from = start;
      start = null;
      setAttributes(this.selection, {width: 0});
      if (!from || event.type === 'pointercancel') return;
      const to = this.stepAt(event);
      if (Math.abs(to.x - from.x) >= LEAST_DRAG) this.group.setZoom([Math.min(from.step, to.step), Math.max(from.step, to.step)]);
    };
    this.svg.addEventListener('pointerup', end);
    this.svg.addEventListener('pointercancel', end);
    this.svg.addEventListener('pointerleave', () => {
      if (!start) leave();
    });
    this.svg.addEventListener('dblclick', () => this.group.setZoom(null));
    this.svg.addEventListener('blur', leave);
    this.svg.addEventListener('keydown', (event) => this.onKey(event));
  }

  onKey(event) {
    if (!this.toX || event.ctrlKey || event.metaKey || event.altKey) return;
    const longest = this.lines.reduce((a, b) => (b.xs.length > a.length ? b.xs : a), []);
    const [from, to] = [lowerBound(longest, this.shown[0]), lowerBound(longest, this.shown[1] + 1e-9) - 1];
    const at = this.group.cursor === null ? to : nearest(longest, this.group.cursor);
    const stride = event.shiftKey ? Math.max(1, Math.round((to - from) / 10)) : 1;
    const moves = {ArrowLeft: at - stride, ArrowRight: at + stride, Home: from, End: to};
    if (event.key in moves) {
      const i = Math.min(to, Math.max(from, moves[event.key]));
      this.used = true;
      this.group.setCursor(longest[i]);
      announce(`Step ${longest[i]}: ${this.points().map((point) => `${point.line.name} ${format.figure(point.y)}`).join(', ')}`);
    } else if (event.key === '+' || event.key === '=' || event.key === '-') {
      this.zoomBy(event.key === '-' ? 2 : 0.5);
    } else if (event.key === 'Escape' || event.key === '0') {
      this.group.setZoom(null);
    } else {
      return;
    }
    event.preventDefault();
  }

  zoomBy(factor) {
    const all = this.allSteps();
    const [low, high] = this.shown;
    const middle = this.group.cursor ?? (low + high) / 2;
    const half = Math.max(1, (high - low) * factor / 2);
    const zoom = [Math.max(all[0], middle - half), Math.min(all[1], middle + half)];
    this.group.setZoom(zoom[0] <= all[0] && zoom[1] >= all[1] ? null : zoom);
  }
}

/** First and last step of all lines; null without figures. */
function extentOfSteps(lines) {
  const present = lines.filter((line) => line.xs.length > 0);
  if (present.length === 0) return null;
  return [Math.min(...present.map((line) => line.xs[0])), Math.max(...present.map((line) => line.xs.at(-1)))];
}
