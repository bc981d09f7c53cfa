// Bytes made visible. Whatever a corpus or a model wrote goes into the page as text, never as HTML.

const SIGNS = { " ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍" };
// Controls, and characters that reorder or hide text: named. (Joiners are kept: scripts need them.)
const HIDDEN = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u00a0\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/;

// element("td", { class: "number" }, "text", node, …)
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

// Bytes → [{ at, size, text }] a character; text is null for a byte that is none.
function characters(bytes) {
  const found = [];
  for (let at = 0; at < bytes.length; ) {
    const lead = bytes[at];
    const size = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    let text = null;
    if (size === 1) text = String.fromCharCode(lead);
    else if (lead >= 0xc2) {
      try {
        text = strict.decode(bytes.subarray(at, at + size));
      } catch { text = null; }
      if (text !== null && [...text].length !== 1) text = null;
    }
    const taken = text === null ? 1 : size;
    found.push({ at, size: taken, text });
    at += taken;
  }
  return found;
}

const hex = (byte) => `⟨${byte.toString(16).toUpperCase().padStart(2, "0")}⟩`;
const codePoint = (text) => `⟨U+${text.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;

// A character → [what is shown, whether it is a sign of ours].
function shownCharacter(text, byte) {
  if (text === null) return [hex(byte), true];
  if (text in SIGNS) return [SIGNS[text], true];
  return HIDDEN.test(text) ? [codePoint(text), true] : [text, false];
}

// A string of bytes → nodes in which nothing is hidden: for tokens, predictions, thoughts.
function visible(string) {
  const bytes = bytesOf(string);
  const runs = [];
  for (const { at, text } of characters(bytes)) {
    const [shown, sign] = shownCharacter(text, bytes[at]);
    if (runs.length && runs.at(-1).sign === sign) runs.at(-1).text += shown;
    else runs.push({ text: shown, sign });
  }
  const nodes = document.createDocumentFragment();
  for (const { text, sign } of runs)
    nodes.append(sign ? element("i", { class: "ws" }, text) : text);
  return nodes;
}

// A string of bytes → text for files and searches; what is no character as \xff.
function plain(string) {
  const bytes = bytesOf(string);
  return characters(bytes)
    .map(({ at, text }) => text ?? `\\x${bytes[at].toString(16).padStart(2, "0")}`)
    .join("");
}

// A token, set apart from its neighbours: its direction is its own.
function chip(string, kind = "") {
  if (string === null) return element("span", { class: "muted" }, "no prediction");
  return element("bdi", { class: `token ${kind}` }, visible(string));
}

function mark(right) {
  const [kind, text] = right ? ["right", "✓ right"] : ["wrong", "✗ wrong"];
  return element("span", { class: `mark ${kind}` }, text);
}

const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
const signed = (value, digits = 2) =>
  `${value > 0 ? "+" : value < 0 ? "−" : ""}${Math.abs(value).toFixed(digits)}`;

function option(value, text, selected) {
  return element("option", { value, selected: String(value) === String(selected) }, text);
}
