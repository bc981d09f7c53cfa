// A document as running text, a token an option of a list box: arrows move, Enter and click select.

const TOKENS_A_BLOCK = 400; // at least; blocks outside the view are not laid out

class RunningText {
  constructor(container, prefix) {
    this.container = container;
    this.prefix = prefix;
    container.addEventListener("click", (event) => {
      const found = event.target.closest("[data-i]");
      if (found) this.onselect(Number(found.dataset.i));
    });
    container.addEventListener("keydown", (event) => this.onkey(event));
    container.addEventListener("pointerover", (event) => {
      const found = event.target.closest("[data-i]");
      if (!found || !this.say) return;
      const i = Number(found.dataset.i);
      const token = this.doc.tokens[i];
      const own = token.shared ? `; part of a character, bytes ${[...bytesOf(token.bytes)].map(hex).join("")}` : "";
      found.title = this.say(i) + own;
    });
  }

  show(doc, spaces) {
    this.doc = doc;
    this.spans = [];
    const blocks = [];
    let block = null;
    doc.tokens.forEach((token, i) => {
      if (!block) blocks.push(block = element("span", { class: "block", role: "presentation", dir: "auto" }));
      const span = this.span(token, i, spaces);
      this.spans.push(span);
      block.append(span);
      // Only at the end of a line can the text be cut without showing it.
      if (block.childElementCount >= TOKENS_A_BLOCK && token.parts.at(-1) === "\n") block = null;
    });
    this.container.replaceChildren(...blocks);
    this.container.removeAttribute("aria-activedescendant");
  }

  span(token, i, spaces) {
    const span = element("span", { role: "option", id: `${this.prefix}${i}`, "data-i": i,
                                   "aria-selected": "false" });
    let text = "";
    const flush = () => { if (text) span.append(text); text = ""; };
    token.parts.forEach((part, place) => {
      if (part === CONTINUED) {
        flush();
        span.append(element("i", { class: "ws" }, "·"));
        return;
      }
      const hidden = part === "\n" || part === "\t" || part === "\r" || part[0] === "⟨" || HIDDEN.test(part);
      // A single space between words is a space; any other would not be seen.
      const odd = part === " " && (spaces || place > 0 || token.parts.length === 1);
      if (!hidden && !odd) { text += part; return; }
      flush();
      const sign = part in SIGNS ? SIGNS[part] : part[0] === "⟨" ? part : codePoint(part);
      span.append(element("i", { class: "ws" }, sign));
      if (part === "\n") span.append("\n");
    });
    flush();
    if (!span.hasChildNodes()) span.append(element("i", { class: "ws" }, "∅"));
    return span;
  }

  // classOf(i) → class names; say(i) → what is said on hovering.
  paint(classOf, say) {
    this.say = say;
    this.spans.forEach((span, i) => {
      span.className = classOf(i);
      span.removeAttribute("title");
    });
  }

  select(i, scroll) {
    this.container.querySelector('[aria-selected="true"]')?.setAttribute("aria-selected", "false");
    const span = this.spans[i];
    if (!span) return;
    span.setAttribute("aria-selected", "true");
    this.container.setAttribute("aria-activedescendant", span.id);
    if (scroll) this.reveal(i);
  }

  // Scrolls the text to a token, a third down from its top.
  reveal(i) {
    const span = this.spans[i];
    const box = this.container.getBoundingClientRect();
    const own = span.getBoundingClientRect();
    if (own.top < box.top + 8 || own.bottom > box.bottom - 8)
      this.container.scrollTop += own.top - box.top - box.height / 3;
  }

  onkey(event) {
    if (event.key === "," || event.key === ".") return this.onview(event.key === "," ? -1 : 1);
    const last = this.spans.length - 1;
    const at = Math.max(state.token, 0);
    const moves = {
      ArrowRight: () => at + (state.token < 0 ? 0 : 1),
      ArrowLeft: () => at - 1,
      ArrowDown: () => this.line(at, 1),
      ArrowUp: () => this.line(at, -1),
      Home: () => 0,
      End: () => last,
      PageDown: () => this.next(at, 1),
      PageUp: () => this.next(at, -1),
      Enter: () => at,
    };
    const move = moves[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.onselect(Math.min(Math.max(move(), 0), last));
  }

  // The token above or below, nearest to where this one is.
  line(at, direction) {
    const middle = (span) => span.offsetLeft + span.offsetWidth / 2;
    const from = this.spans[at];
    const height = from.getClientRects()[0];
    const tops = (span) => span.getClientRects()[0] ?? height;
    let best = at;
    let row = null;
    for (let i = at + direction; i >= 0 && i < this.spans.length; i += direction) {
      const top = tops(this.spans[i]).top;
      if (row === null && Math.abs(top - height.top) < height.height / 2) continue;
      row ??= top;
      if (Math.abs(top - row) >= height.height / 2) break;
      const distance = (span) => Math.abs(middle(span) - middle(from));
      if (best === at || distance(this.spans[i]) < distance(this.spans[best])) best = i;
    }
    return best;
  }
}
