// The samples table: a row a group of rollouts; sorted, filtered, and given away as a file.

const ROWS_A_PAGE = 25;
const COLUMNS = [
  ["order", "of", ""],
  ["opening", "document", ""],
  ["position", "position", "number"],
  ["entropy", "entropy", "number"],
  ["truth", "true token", ""],
  ["ntp", "NTP", ""],
  ["prediction", "commonest prediction", ""],
  ["share", "right", "number"],
  ["reward", "mean reward", "number"],
];

class Samples {
  constructor(root, index) {
    this.index = index;
    this.part = (name) => root.querySelector(`[data-part="${name}"]`);
    this.rows = sampleRows(index);
    this.sort = ["order", -1];
    this.page = 0;
    this.part("head").replaceChildren(...COLUMNS.map(([name, title, kind]) =>
      element("th", { scope: "col", class: kind, "data-column": name },
        element("button", { type: "button", onclick: () => this.sortBy(name) }, title))));
    const models = [...new Set(index.samples.model)].filter(Boolean);
    this.part("of").append(...models.map((label) => option(`model:${label}`, `model: ${label}`)));
    for (const name of ["of", "outcome", "sample-band", "text", "from", "to"])
      this.part(name).addEventListener("input", () => this.filter());
    this.part("back").addEventListener("click", () => this.turn(-1));
    this.part("forward").addEventListener("click", () => this.turn(1));
    this.part("jsonl").addEventListener("click", () => this.save("jsonl"));
    this.part("csv").addEventListener("click", () => this.save("csv"));
    this.filter();
  }

  sortBy(name) {
    this.sort = [name, this.sort[0] === name ? -this.sort[1] : 1];
    this.filter();
  }

  filter() {
    const value = (name) => this.part(name).value;
    const text = value("text").toLowerCase();
    const from = value("from") === "" ? -Infinity : Number(value("from"));
    const to = value("to") === "" ? Infinity : Number(value("to"));
    const band = value("sample-band");
    const outcome = OUTCOMES[value("outcome")];
    const of = value("of");
    this.found = this.rows.filter((row) =>
      row.step >= from && row.step <= to && outcome(row) && (!of || row.of === of)
      && (!band || bandNumber(row.entropy) === Number(band))
      && (!text || row.words.includes(text)));
    const [name, direction] = this.sort;
    this.found.sort((a, b) => direction * compare(a[name], b[name]) || a.number - b.number);
    this.page = 0;
    this.draw();
  }

  turn(by) {
    this.page = Math.min(Math.max(this.page + by, 0), this.lastPage());
    this.draw();
  }

  lastPage() {
    return Math.max(0, Math.ceil(this.found.length / ROWS_A_PAGE) - 1);
  }

  draw() {
    const start = this.page * ROWS_A_PAGE;
    const rows = this.found.slice(start, start + ROWS_A_PAGE);
    this.part("body").replaceChildren(...rows.map(sampleRow));
    const end = Math.min(start + ROWS_A_PAGE, this.found.length);
    this.part("range").textContent = this.found.length
      ? `${start + 1} to ${end} of ${this.found.length.toLocaleString("en")} groups` : "no group matches";
    this.part("back").disabled = this.page === 0;
    this.part("forward").disabled = this.page === this.lastPage();
    for (const head of this.part("head").children) {
      const sorted = head.dataset.column === this.sort[0];
      head.setAttribute("aria-sort", sorted ? (this.sort[1] > 0 ? "ascending" : "descending") : "none");
    }
  }

  // Every rollout of the groups that the filters leave, in the table's order; read document by
  // document, so that each is unpacked once.
  async save(kind) {
    const parts = new Array(this.found.length);
    const places = this.found.map((_, place) => place)
      .sort((a, b) => this.found[a].document - this.found[b].document);
    for (const place of places) {
      const row = this.found[place];
      const doc = await loadDocument(row.document, this.index.documents[row.document]);
      const group = doc.groups.find((one) => one.view === row.view && one.position === row.position);
      parts[place] = exportRows(doc, group);
    }
    const lines = parts.flat();
    const text = kind === "csv" ? csvText(lines) : lines.map((line) => `${JSON.stringify(line)}\n`).join("");
    const url = URL.createObjectURL(new Blob([text], { type: kind === "csv" ? "text/csv" : "application/x-ndjson" }));
    element("a", { href: url, download: `${document.title.split(" ")[0]}-rollouts.${kind}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    this.part("saved").textContent = `${lines.length.toLocaleString("en")} rollouts saved`;
  }
}

const OUTCOMES = {
  "": () => true,
  all: (row) => row.right === row.rollouts,
  none: (row) => row.right === 0,
  mixed: (row) => row.right > 0 && row.right < row.rollouts,
  "beats-ntp": (row) => row.share >= 0.5 && !row.ntp_right,
  "loses-to-ntp": (row) => row.share < 0.5 && row.ntp_right,
};

function sampleRows(index) {
  const columns = index.samples;
  return columns.step.map((_, number) => {
    const row = { number };
    for (const [name, values] of Object.entries(columns)) row[name] = values[number];
    row.share = row.right / row.rollouts;
    row.view = row.model ? `model:${row.model}` : `step:${row.step}`;
    row.of = row.model ? row.view : row.evaluated ? "development" : "training";
    row.order = row.model ? -1 : row.step; // models before the first step
    const entry = index.documents[row.document];
    row.id = entry.id;
    row.opening = plain(entry.opening).replace(/\s+/g, " ").slice(0, 28);
    const words = [row.truth, row.ntp, row.prediction ?? ""].map(plain);
    row.words = [row.opening, row.id, ...words].join("\n").toLowerCase();
    return row;
  });
}

const bandNumber = (entropy) => BANDS.filter((least) => entropy > least).length;

// Absent values stand last when rising.
function compare(a, b) {
  if (a === b) return 0;
  if (a === null) return 1;
  if (b === null) return -1;
  return a < b ? -1 : 1;
}

function sampleRow(row) {
  const link = element("a", { href: `#document=${row.id}&token=${row.position}&group=${encodeURIComponent(row.view)}` },
    row.opening, "…");
  const number = (...children) => element("td", { class: "number" }, ...children);
  return element("tr", {},
    element("td", {}, row.model || `step ${row.step}`, row.of === "development" ? " (dev)" : ""),
    element("td", {}, element("bdi", {}, link)), number(String(row.position)),
    number(row.entropy === null ? "–" : row.entropy.toFixed(2)), element("td", {}, chip(row.truth)),
    element("td", {}, chip(row.ntp, row.ntp_right ? "right" : "wrong")),
    element("td", {}, chip(row.prediction, row.prediction_right ? "right" : "wrong")),
    number(element("span", { class: row.right ? "right" : "wrong" },
      `${row.right ? "✓" : "✗"} ${row.right}/${row.rollouts}`)),
    number(row.reward === null ? "–" : String(row.reward)));
}

function exportRows(doc, group) {
  const at = group.position;
  const next = doc.absent ? group.continuation
    : doc.tokens.slice(at, at + CONTINUATION).map((token) => token.bytes);
  const before = doc.absent ? group.prefix
    : doc.tokens.slice(Math.max(0, at - PREFIX), at).map((token) => token.bytes).join("");
  return group.prediction.map((prediction, i) => ({
    step: group.model ? null : group.step, model: group.model ?? null,
    evaluated: Boolean(group.evaluated), document: doc.id, source: doc.entry.source, position: at,
    rollout: group.rollout[i], entropy: group.entropy, prefix_end: plain(before),
    continuation: next.map(plain), ntp_prediction: plain(group.ntp),
    candidates: group.candidates.map(plain), thought: plain(group.thought[i]),
    prediction: prediction === null ? null : plain(prediction),
    matched_tokens: group.matched[i], reward: group.reward[i], advantage: group.advantage[i],
    finish_reason: group.finish[i],
  }));
}

function csvText(rows) {
  if (!rows.length) return "";
  const names = Object.keys(rows[0]);
  const cell = (value) => {
    let text = value === null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
    // A spreadsheet would run a text that begins like a formula.
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [names, ...rows.map((row) => names.map((name) => row[name]))]
    .map((cells) => `${cells.map(cell).join(",")}\r\n`).join("");
}
