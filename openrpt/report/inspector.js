// The inspector: chooses a document, colours its text, filters it, finds text in it.

const FILTERS = {
  "": "every token",
  sampled: "with rollouts or evaluated",
  right: "right",
  wrong: "wrong",
  "became-right": "became right",
  "became-wrong": "became wrong",
};

const FILTER_NAMES = ["only", "kind", "band", "find"];
const filtersNow = () => JSON.stringify(FILTER_NAMES.map((name) => state[name]));

class Inspector {
  constructor(root, index) {
    this.index = index;
    this.part = (name) => root.querySelector(`[data-part="${name}"]`);
    this.texts = [new RunningText(this.part("text"), "t"), new RunningText(this.part("text-other"), "u")];
    for (const text of this.texts) {
      text.onselect = (i) => setState({ token: tokenOf(this.doc, i), group: "" });
      text.next = (at, direction) => this.nextMatch(at, direction);
      text.onview = (direction) => this.view(direction);
    }
    this.fillDocuments();
    this.fill("only", Object.entries(FILTERS));
    this.fill("kind", [["", "every kind"], ...CLASSES.map((name) => [name, name])]);
    this.fill("band", [["", "every difficulty"], ...BAND_NAMES.map((name, i) => [String(i), name])]);
    for (const name of ["color", "view", "other", "only", "kind", "band"])
      this.part(name).addEventListener("change", (event) =>
        setState({ [name]: event.target.value, ...(name === "view" ? { group: "" } : {}) }));
    this.part("document").addEventListener("change", (event) => this.go(Number(event.target.value)));
    this.part("find").addEventListener("input", (event) => setState({ find: event.target.value }));
    this.part("find").addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.step(event.shiftKey ? -1 : 1);
    });
    this.part("spaces").addEventListener("change", () => { this.drawText(); this.paint(); });
    for (const [name, direction] of [["next", 1], ["previous", -1]])
      this.part(name).addEventListener("click", () => this.step(direction));
    for (const [name, direction] of [["next-document", 1], ["previous-document", -1]])
      this.part(name).addEventListener("click", () => this.neighbour(direction));
    this.part("search").addEventListener("click", () => this.searchAll());
    this.part("link").addEventListener("click", () => this.copyLink());
    onState((changed) => this.update(changed));
  }

  fill(name, options, selected = state[name]) {
    this.part(name).replaceChildren(...options.map(([value, text]) => option(value, text, selected)));
  }

  // Documents by split; `among`: only these numbers.
  fillDocuments(among = null) {
    const groups = new Map();
    this.index.documents.forEach((entry, number) => {
      if (among && !among.has(number)) return;
      if (!groups.has(entry.split)) groups.set(entry.split, []);
      const facts = entry.sampled ? `rollouts at ${entry.sampled} positions` : `${entry.tokens} tokens`;
      const opening = plain(entry.opening).replace(/\s+/g, " ").slice(0, 48);
      groups.get(entry.split).push(option(number, `${opening}… (${facts})`, this.doc?.number));
    });
    this.part("document").replaceChildren(...[...groups].map(([split, options]) =>
      element("optgroup", { label: `${split}: ${options.length}` }, ...options)));
  }

  go(number) {
    const entry = this.index.documents[number];
    setState({ document: entry.id, token: -1, group: "", view: "", other: "" });
  }

  neighbour(direction) {
    const listed = [...this.part("document").options].map((one) => Number(one.value));
    const at = listed.indexOf(this.doc.number) + direction;
    if (at >= 0 && at < listed.length) this.go(listed[at]);
  }

  async update(changed) {
    const asked = this.index.documents.findIndex((entry) => entry.id.startsWith(state.document));
    const number = state.document && asked >= 0 ? asked : this.firstDocument();
    this.part("absent").hidden = !state.document || asked >= 0;
    if (this.doc?.number !== number) {
      this.wanted = number;
      const doc = await loadDocument(number, this.index.documents[number]);
      if (this.wanted !== number) return; // another was asked for meanwhile
      this.doc = doc;
      if (this.found && !this.found.among.has(number)) this.forgetSearch(); // by a link
      this.part("document").value = String(number);
      this.part("about").textContent = `Document ${doc.id} · ${doc.entry.split}`
        + (doc.entry.source ? ` · ${doc.entry.source}` : "");
      this.fillColors();
      this.drawText();
      changed = new Set(["view", ...Object.keys(state)]);
    }
    if (changed.has("view") || changed.has("other")) this.fillViews();
    for (const name of FILTER_NAMES)
      if (this.part(name).value !== state[name]) this.part(name).value = state[name];
    const filtered = FILTER_NAMES.some((name) => changed.has(name));
    if (this.found && this.found.filters !== filtersNow()) this.forgetSearch();
    if (filtered || ["color", "view", "other"].some((name) => changed.has(name))) this.paint();
    if (filtered) this.reveal();
    this.select(changed.has("token") || changed.has("document"));
  }

  // One with rollouts of the most models, which never trained on it; where no model was evaluated,
  // one that was trained on.
  firstDocument() {
    const documents = this.index.documents;
    const most = Math.max(0, ...documents.map((entry) => entry.models));
    const wanted = [(entry) => most > 0 && entry.models === most,
      (entry) => entry.sampled > 0 && entry.split === "train", (entry) => entry.sampled > 0];
    return Math.max(0, wanted.map((fits) => documents.findIndex(fits)).find((at) => at >= 0) ?? 0);
  }

  fillViews() {
    const views = viewsOf(this.doc).map(({ id, title }) => [id, title]);
    this.fill("view", views.length ? views : [["", "the scorer"]], state.view || latestView(this.doc));
    this.fill("other", [["", "nothing"], ...views]);
    this.part("view").disabled = !views.length;
    this.part("other").disabled = views.length < 2;
  }

  // What this document knows nothing of is left out; a change needs two states, which is said.
  fillColors() {
    const several = viewsOf(this.doc).length > 1;
    const known = Object.entries(QUANTITIES).filter(([name]) => hasQuantity(this.doc, name));
    this.fill("color", known.map(([name, quantity]) =>
      [name, name !== "change" || several ? quantity.title : `${quantity.title} (nothing to compare with)`]));
    for (const one of this.part("color").options) one.disabled = one.value === "change" && !several;
  }

  // The quantity that is drawn: the chosen one, where the document has it.
  quantity() {
    const chosen = [...this.part("color").options].find((one) => one.value === state.color);
    return chosen && !chosen.disabled ? state.color : "entropy";
  }

  drawText() {
    const spaces = this.part("spaces").checked;
    for (const text of this.texts) text.show(this.doc, spaces);
  }

  paint() {
    const doc = this.doc;
    const name = this.quantity();
    const quantity = QUANTITIES[name];
    const view = state.view || latestView(doc);
    this.part("color").value = name;
    const sides = state.other && quantity !== QUANTITIES.change ? [view, state.other] : [view];
    this.match(view);
    this.part("pane-other").hidden = sides.length < 2;
    this.part("frame").classList.toggle("comparing", sides.length > 1);
    const titles = new Map(viewsOf(doc).map(({ id, title }) => [id, title]));
    sides.forEach((side, n) => {
      this.part(n ? "title-other" : "title").textContent = titles.get(side) ?? "the scorer";
      this.texts[n].paint(
        (i) => this.classes(i, colorClass(quantity, quantity.value(doc, side, i))),
        (i) => {
          const value = quantity.value(doc, side, i);
          return value === null ? `token ${i}` : `token ${i}: ${quantity.say(value)}`;
        });
    });
    this.part("title").hidden = sides.length < 2;
    const hint = colorHint(doc, name, view, (side) => titles.get(side) ?? "the scorer");
    this.part("hint").textContent = hint;
    this.part("hint").hidden = !hint;
    const since = quantity === QUANTITIES.change ? `since ${titles.get(comparedView(doc))}: ` : "";
    this.part("legend").replaceChildren(since, ...legend(quantity));
    this.part("count").textContent = this.filtered
      ? `${this.matches.length} of ${doc.tokens.length} tokens match` : "";
  }

  classes(i, color) {
    const sampled = this.doc.groupsAt.has(i) ? " sampled" : "";
    const hit = this.filtered && this.matching[i] ? " hit" : "";
    return (this.filtered && !this.matching[i] ? "" : color) + sampled + hit;
  }

  match(view) {
    this.filtered = FILTER_NAMES.some((name) => state[name]);
    this.matching = this.matchingIn(this.doc, view, comparedView(this.doc));
    this.matches = this.matching.flatMap((matches, i) => (matches ? [i] : []));
  }

  // Which tokens of a document pass the filters, find included.
  matchingIn(doc, view, other) {
    const found = state.find ? this.findText(doc, state.find) : null;
    return doc.tokens.map((token, i) =>
      (!found || found[i])
      && (!state.kind || token.kind === state.kind)
      && (!state.band || bandOf(doc, i) === Number(state.band))
      && (!state.only || this.passes(doc, view, other, i)));
  }

  // The first match comes into sight, unless what is selected is one, or was asked for by a link.
  reveal() {
    const at = placeOf(this.doc, state.token);
    if (!this.filtered || !this.matches.length || this.matching[at]) return;
    for (const text of this.texts) text.reveal(this.matches[0]);
  }

  passes(doc, view, other, i) {
    const now = outcome(doc, view, i);
    if (state.only === "sampled") return doc.groupsAt.has(i) || now !== null;
    if (now === null || now.rate === null) return false;
    if (state.only === "right") return isRight(now);
    if (state.only === "wrong") return !isRight(now);
    const then = outcome(doc, other, i);
    if (then === null || then.rate === null) return false;
    return isRight(now) === (state.only === "became-right") && isRight(then) !== isRight(now);
  }

  findText(doc, wanted) {
    const tokens = doc.tokens;
    const text = tokens.map((token) => token.text).join("").toLowerCase();
    const found = new Array(tokens.length).fill(false);
    const needle = wanted.toLowerCase();
    let i = 0;
    let start = 0; // of token i
    for (let at = text.indexOf(needle); at >= 0; at = text.indexOf(needle, at + 1)) {
      while (start + tokens[i].text.length <= at) start += tokens[i++].text.length;
      for (let n = i, from = start; n < tokens.length && from < at + needle.length; n++) {
        found[n] = true;
        from += tokens[n].text.length;
      }
    }
    return found;
  }

  // The next match of the filters, or position with rollouts where there is no filter.
  nextMatch(at, direction) {
    const places = this.filtered ? this.matches
      : [...this.doc.groupsAt.keys()].sort((a, b) => a - b);
    const next = direction > 0 ? places.find((i) => i > at) : places.findLast((i) => i < at);
    return next ?? at;
  }

  // What the model or step before or after this one made of the text.
  view(direction) {
    const views = viewsOf(this.doc).map(({ id }) => id);
    const next = views[views.indexOf(state.view || latestView(this.doc)) + direction];
    if (next !== undefined) setState({ view: next, group: "" });
  }

  // To begin with: a position whose rollouts, of one model or of several, disagree, or any that was
  // sampled.
  firstToken() {
    const places = [...this.doc.groupsAt].sort(([a], [b]) => a - b);
    const disagree = ([, groups]) => {
      const matched = groups.flatMap((group) => group.matched);
      return matched.some((n) => n > 0) && matched.some((n) => !n);
    };
    const [place] = places.find(disagree) ?? places[0] ?? [-1];
    return place < 0 ? -1 : tokenOf(this.doc, place);
  }

  step(direction) {
    const at = placeOf(this.doc, state.token);
    const next = this.nextMatch(at, direction);
    if (next !== at) setState({ token: tokenOf(this.doc, next), group: "" });
  }

  async searchAll() {
    const { only, kind, band, find } = state;
    const wanted = only || kind || band || find;
    const found = new Set();
    const search = { filters: filtersNow(), among: found };
    this.found = search;
    for (let number = 0; wanted && number < this.index.documents.length; number++) {
      const doc = await loadDocument(number, this.index.documents[number]);
      if (this.found !== search) return; // the filters have changed meanwhile
      // Another document is opened at its latest view, and compared with its earliest.
      if (this.matchingIn(doc, latestView(doc), earliestView(doc)).includes(true)) found.add(number);
      if (number % 50 === 49) this.part("found").textContent = `${number + 1} documents searched …`;
    }
    if (!wanted) this.found = null;
    this.fillDocuments(this.found?.among);
    const what = [find && `“${find}”`, (only || kind || band) && "what the filters leave"].filter(Boolean).join(" among ");
    this.part("found").textContent = wanted
      ? `${what} is in ${found.size} of ${this.index.documents.length} documents` : "all documents";
    if (wanted && found.size && !found.has(this.doc.number)) this.go([...found][0]);
  }

  // What a search has left is not what other filters leave: all documents are listed again.
  forgetSearch() {
    if (!this.found) return;
    this.found = null;
    this.fillDocuments();
    this.part("found").textContent = "all documents are listed again: search anew for these filters";
  }

  select(scroll) {
    const i = placeOf(this.doc, state.token);
    for (const text of this.texts) text.select(i, scroll);
    showPanel(this.part("panel"), this.part("rollouts"), this.doc, i);
    this.part("link").disabled = i < 0;
  }

  async copyLink() {
    const link = location.href.split("#")[0] + stateHash({ document: this.doc.id });
    try {
      await navigator.clipboard.writeText(link);
      this.part("copied").textContent = "copied";
    } catch {
      this.part("copied").textContent = link; // no leave to copy: the reader can
    }
  }
}

// Where the scored text is absent, positions are not places among the tokens that are shown.
function placeOf(doc, token) {
  return doc.absent ? doc.places.get(token) ?? -1 : token < doc.tokens.length ? token : -1;
}

function tokenOf(doc, place) {
  if (!doc.absent) return place;
  let found = -1;
  for (const [position, start] of doc.places) if (start <= place) found = position;
  return found;
}
