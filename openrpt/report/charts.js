// Draws the charts in the colours of the page when they come into view; again when the reader
// changes the theme, the smoothing, an axis or the range.

// Okabe-Ito: told apart with every kind of colour vision; in each theme those that stand out.
const LIGHT = ["#0072B2", "#D55E00", "#00805E", "#A5517F", "#6B6100", "#5B4B9A"];
const DARK = ["#56B4E9", "#E69F00", "#2FC49A", "#DD9CBF", "#F0E442", "#B5A7F0"];
const LETTER = 7, SYMBOL = 30;  // pixels of a legend's letter, and of its symbol with the space around it
const FEW = 40; // up to so many steps each point is marked: a line through two is hard to see

// What steps can be measured by: metrics whose sum so far it is, times a factor, and the axis's unit.
const AXES = {
  step: { keys: ["step"], title: "step" },
  hours: { keys: ["time/step"], factor: 1 / 3600, title: "hours of training" },
  flops: { keys: ["flops/generate", "flops/update"], factor: 1, title: "FLOPs of training" },
  energy: { keys: ["energy/joules"], factor: 1 / 3.6e6, title: "kWh of training" },
};

// The charts' library is large: it is compiled when the first chart comes into view, or when the
// browser has nothing else to do.
let library = null;

function chartLibrary() {
  library ??= new Promise((resolve) => {
    window.addEventListener("chart-library", () => resolve(window.vegaEmbed), { once: true });
    document.body.append(element("script", { type: "module" }, document.getElementById("chart-library").textContent));
  });
  return library;
}

class Charts {
  constructor(root, data) {
    this.data = data;
    this.root = root;
    this.settings = { smooth: 0, log: false, axis: "step", from: "", to: "" };
    this.drawn = new Map();
    this.queue = Promise.resolve();
    this.offer();
    for (const control of root.querySelectorAll("[data-chart]"))
      control.addEventListener("input", () => this.set(control));
    this.part("reset").addEventListener("click", () => this.reset());
    document.addEventListener("theme", () => this.redraw());
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) this.visible(entry.target.id, entry.isIntersecting);
    }, { rootMargin: "300px" });
    this.shown = new Set();
    for (const plot of document.querySelectorAll(".plot")) seen.observe(plot);
    const idle = window.requestIdleCallback ?? ((later) => setTimeout(later, 1000)); // Safari has none
    idle(() => chartLibrary());
  }

  part(name) { return this.root.querySelector(`[data-part="${name}"]`); }

  // Only axes that the metrics know; money where the machine's price was given.
  offer() {
    const stages = Object.values(this.data.runs[0]?.stages ?? {});
    const price = Number(this.root.dataset.price || 0);
    if (price) AXES.money = { keys: ["time/step"], factor: price / 3600,
                              title: `${this.root.dataset.currency} of training` };
    const known = ([, { keys }]) => stages.some((columns) => keys.some((key) => key in columns));
    const select = this.root.querySelector('[data-chart="axis"]');
    select.replaceChildren(...Object.entries(AXES).filter(known)
      .map(([name, { title }]) => option(name, title, "step")));
  }

  set(control) {
    const name = control.dataset.chart;
    this.settings[name] = control.type === "checkbox" ? control.checked : control.value;
    if (name === "smooth") this.part("smooth-value").textContent = control.value;
    clearTimeout(this.later);
    this.later = setTimeout(() => this.redraw(), 120);
  }

  reset() {
    Object.assign(this.settings, { from: "", to: "" });
    for (const name of ["from", "to"]) this.root.querySelector(`[data-chart="${name}"]`).value = "";
    this.redraw();
  }

  redraw() {
    this.drawn.clear();
    const distance = (id) => {
      const { top, bottom } = document.getElementById(id).getBoundingClientRect();
      return Math.abs(top + bottom - innerHeight);
    };
    // What the reader looks at first.
    for (const id of [...this.shown].sort((a, b) => distance(a) - distance(b))) this.draw(id);
  }

  visible(id, now) {
    if (now) this.shown.add(id);
    else this.shown.delete(id);
    if (now && !this.drawn.has(id)) this.draw(id);
  }

  // One after another, in the order in which they come into view: the first is there at once, and
  // the page answers in between.
  draw(id) {
    const turn = {};
    this.drawn.set(id, turn);
    this.queue = this.queue.then(() => this.drawn.get(id) === turn && this.embed(id))
      .catch((error) => console.error(error))
      .then(() => new Promise((resolve) => setTimeout(resolve)));
  }

  async embed(id) {
    const chart = this.data.charts.find((one) => one.id === id);
    const spec = chart ? chartSpec(chart, this.data.runs, this.settings) : structuredClone(this.data.accuracy);
    const options = { config: chartTheme(), renderer: "canvas", actions: false,
                      logLevel: 1, // errors alone: the empty hover layer warns of its extent
                      tooltip: { theme: document.documentElement.classList.contains("dark") ? "dark" : "light" } };
    const embed = await chartLibrary();
    const plot = document.getElementById(id);
    const name = plot.getAttribute("aria-label");
    fitLegends(spec, plot.clientWidth);
    await embed(plot, spec, options);
    // The library takes the name away, and the role.
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", name);
    plot.dataset.drawn = "true";
  }
}

// Two columns of names that are wider than the chart become one; a name is cut only where it is
// wider than the chart.
function fitLegends(spec, width) {
  for (const part of [spec, ...(spec.layer ?? [])])
    for (const { legend, scale } of Object.values(part.encoding ?? {}))
      if (legend) {
        const longest = Math.max(...scale.domain.map((name) => name.length));
        if (legend.columns * (LETTER * longest + SYMBOL) > width) legend.columns = 1;
        legend.labelLimit = width / legend.columns - SYMBOL;
      }
}

// The specification with its data, without layers that have nothing to show.
function chartSpec(chart, runs, settings) {
  const spec = structuredClone(chart.spec);
  const rows = [];
  const axis = axisOf(chart, runs[0], settings);
  const drawn = chart.stacked ? runs.slice(0, 1) : runs;
  // The first run is drawn last: over the others.
  for (let r = drawn.length - 1; r >= 0; r--) rows.push(...runRows(chart, drawn[r], r, runs.length, axis, settings));
  const warnings = warningRows(chart, runs[0], axis);
  spec.datasets = { rows, warnings };
  const { title } = AXES[axis];
  const values = rows.map((row) => row.value);
  const log = settings.log && !chart.stacked && (Math.min(...values) > 0 ? "log" : "symlog");
  const empty = {
    band: rows.every((row) => row.low === undefined),
    raw: !Number(settings.smooth),
    dots: rows.length > FEW * Object.keys(chart.series).length * runs.length,
    warnings: !warnings.length,
  };
  if (spec.layer) spec.layer = spec.layer.filter((layer) => !empty[layer.name]);
  for (const layer of spec.layer ?? [spec]) {
    const { x, y } = layer.encoding;
    if (x) {
      if (x.title !== undefined || layer.name === "line") x.title = title;
      x.axis = { ...x.axis, ...axisFormat(title) };
      const domain = domainOf(rows, settings);
      if (domain) x.scale = { ...x.scale, domain };
      if (domain && layer.mark) layer.mark = { ...layer.mark, clip: true };
    }
    if (log && y?.field) y.scale = { ...y.scale, type: log, zero: false };
    // A finger that drags scrolls the page.
    if (window.matchMedia("(pointer: coarse)").matches && layer.params)
      layer.params = layer.params.filter((param) => param.name !== "zoom");
  }
  if (spec.params && window.matchMedia("(pointer: coarse)").matches)
    spec.params = spec.params.filter((param) => param.name !== "zoom");
  return spec;
}

// The chart's own, or the reader's where the stage has recorded it.
function axisOf(chart, run, settings) {
  if (chart.axis) return chart.axis;
  const columns = run.stages[chart.stage] ?? {};
  return AXES[settings.axis].keys.some((key) => key in columns) ? settings.axis : "step";
}

// Whole steps only; large sums in powers of ten.
function axisFormat(title) {
  if (title === "step")
    return { tickMinStep: 1, format: "d", labelExpr: "floor(datum.value) == datum.value ? datum.label : ''" };
  return title.startsWith("FLOPs") ? { format: ".2~e", tickCount: 4 } : { format: ".3~g", tickCount: 6 };
}

function domainOf(rows, settings) {
  if (settings.from === "" && settings.to === "") return null;
  const inside = rows.filter((row) => row.step >= Number(settings.from || -Infinity)
    && row.step <= (settings.to === "" ? Infinity : Number(settings.to)));
  if (inside.length < 2) return null;
  return [Math.min(...inside.map((row) => row.x)), Math.max(...inside.map((row) => row.x))];
}

function runRows(chart, run, r, runs, axis, settings) {
  const columns = run.stages[chart.stage];
  if (!columns) return [];
  const places = xValues(columns, axis);
  const series = Object.entries(chart.series);
  const rows = [];
  series.forEach(([metric, name], s) => {
    const values = columns[metric];
    if (!values) return;
    const smooth = smoothed(values, Number(settings.smooth));
    values.forEach((raw, i) => {
      if (raw === null) return;
      const value = chart.stacked ? raw : smooth[i];
      const line = runs === 1 ? name : series.length === 1 ? run.name : `${name}, ${run.name}`;
      const row = { step: columns.step[i], x: places[i], value, raw, series: name, run: run.name,
                    line, key: `l${r * series.length + s}` };
      if (chart.stacked) Object.assign(row, span(places, i), { place: s });
      const error = columns[`${metric}_error`]?.[i];
      // A reward may be any number, an accuracy may not.
      const [least, most] = metric.startsWith("reward/") ? [-Infinity, Infinity] : [0, 1];
      if (error) Object.assign(row, { low: Math.max(least, value - error), high: Math.min(most, value + error) });
      rows.push(row);
    });
  });
  return rows;
}

// A bar reaches half-way to its neighbours.
function span(places, i) {
  const before = i > 0 ? (places[i] - places[i - 1]) / 2 : null;
  const after = i + 1 < places.length ? (places[i + 1] - places[i]) / 2 : null;
  return { from: places[i] - (before ?? after ?? 0.5), to: places[i] + (after ?? before ?? 0.5) };
}

// Where each row of the metrics stands: at its step, or at what it took to get there.
function xValues(columns, axis) {
  if (axis === "step") return columns.step;
  const { keys, factor } = AXES[axis];
  let sum = 0;
  return columns.step.map((_, i) => {
    for (const key of keys) sum += columns[key]?.[i] ?? 0;
    return sum * factor;
  });
}

// An exponential mean, corrected for its beginning; values that are absent are passed over.
function smoothed(values, weight) {
  let sum = 0;
  let total = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

function warningRows(chart, run, axis) {
  const columns = run.stages[chart.stage];
  if (!columns) return [];
  const places = xValues(columns, axis);
  return run.warnings
    .filter((warning) => warning.stage === chart.stage && columns.step.includes(warning.step))
    .map((warning) => ({ ...warning, x: places[columns.step.indexOf(warning.step)] }));
}

function chartTheme() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const text = { labelColor: color("--muted"), titleColor: color("--muted") };
  return {
    background: "transparent",
    font: getComputedStyle(document.body).fontFamily,
    view: { stroke: null },
    axis: { ...text, gridColor: color("--line"), domainColor: color("--line"),
            tickColor: color("--line"), labelFontSize: 12, titleFontSize: 12,
            titleFontWeight: "normal" },
    axisX: { grid: false },
    legend: { labelColor: color("--text"), labelFontSize: 12, symbolStrokeWidth: 2.5,
              symbolOpacity: 1,
              // Of runs and of series: one under the other, each as wide as the chart.
              layout: { top: { direction: "vertical", anchor: "start" } } },
    rule: { color: color("--muted") },
    point: { color: color("--wrong") },
    range: { category: document.documentElement.classList.contains("dark") ? DARK : LIGHT },
  };
}
