// A document as the inspector sees it: tokens, scores, what models and training steps made of it.

const BANDS = [0.5, 1.0, 1.5]; // nats: easy, medium, hard begin above these
const BAND_NAMES = ["≤ 0.5 nats", "0.5 to 1.0", "1.0 to 1.5", "> 1.5 nats"];
const CLASSES = ["word start", "inside a word", "number", "operator", "LaTeX command",
                 "punctuation", "whitespace", "other"];
const CONTEXT = 32; // bytes before a token that are enough to tell its class

async function loadDocument(number, entry) {
  const data = await block(`data-${number}`);
  if (data.tokens) return data; // prepared before
  const absent = data.text === undefined;
  Object.assign(data, absent ? fragments(data.groups) : splitTokens(data.text, data.lengths));
  data.number = number;
  data.entry = entry;
  data.absent = absent;
  data.evaluations ??= {};
  data.groupsAt = new Map();
  for (const group of data.groups) {
    group.view = group.model ? `model:${group.model}` : `step:${group.step}`;
    const place = absent ? data.places.get(group.position) : group.position;
    if (!data.groupsAt.has(place)) data.groupsAt.set(place, []);
    data.groupsAt.get(place).push(group); // steps in order: they are stored so
  }
  data.models = [...new Set([...Object.keys(data.evaluations), ...data.groups.map((one) => one.model)])]
    .filter(Boolean);
  data.outcomes = {};
  for (const [label, columns] of Object.entries(data.evaluations))
    data.outcomes[label] = new Map(columns.position.map((position, i) => [position, i]));
  return data;
}

const CONTINUED = ""; // the part of a token that goes on with the last one's character

// Tokens with what is shown of each. A character that several tokens share is shown with the
// first; all of them are `shared`, and say their bytes on hovering.
function splitTokens(text, lengths) {
  const bytes = bytesOf(text);
  const tokens = [];
  let start = 0;
  for (const length of lengths) {
    tokens.push({ start, end: start + length, parts: [], text: "" });
    start += length;
  }
  let i = 0;
  let covered = 0; // bytes up to here are shown
  for (const character of characters(bytes)) {
    while (i < tokens.length && tokens[i].end <= character.at) i++;
    tokens[i].parts.push(character.text ?? hex(bytes[character.at]));
    covered = character.at + character.size;
    for (let next = i + 1; next < tokens.length && tokens[next].start < covered; next++) {
      tokens[next].parts.push(CONTINUED);
      tokens[i].shared = tokens[next].shared = true;
    }
  }
  for (const token of tokens) {
    token.bytes = text.slice(token.start, token.end);
    token.text = token.parts.join("");
    token.kind = tokenClass(token.bytes, text.slice(Math.max(0, token.start - CONTEXT), token.start));
  }
  return { tokens };
}

// Where the scored text is absent: each position's prefix end and continuation, one a line.
function fragments(groups) {
  const places = new Map();
  const tokens = [];
  const add = (bytes, kind) => {
    const text = plain(bytes);
    tokens.push({ bytes, text, parts: [...text], kind });
  };
  for (const group of groups) {
    if (places.has(group.position)) continue;
    add(`${tokens.length ? "\n" : ""}… ${group.prefix}`, "other");
    places.set(group.position, tokens.length);
    for (const token of group.continuation) add(token, tokenClass(token, " "));
  }
  return { tokens, places };
}

// Of a token by its first character that is not a space, and by the bytes before it. Bytes that
// are no character are of no class.
function tokenClass(bytes, leftBytes) {
  const text = characters(bytesOf(bytes)).map((one) => one.text ?? "\ufffd").join("");
  const left = characters(bytesOf(leftBytes)).map((one) => one.text ?? "").join("");
  const content = text.trimStart();
  if (!content) return text ? "whitespace" : "other";
  const before = content === text ? left : " ";
  const first = [...content][0];
  const inWord = /\p{L}$/u.test(before);
  if (first === "\\" || (/[a-z]/i.test(first) && /\\[A-Za-z]*$/.test(before))) return "LaTeX command";
  if (/\p{L}/u.test(first) || (inWord && /\p{M}/u.test(first)))
    return inWord ? "inside a word" : "word start";
  if (/['’]/.test(first) && inWord && /^.\p{L}/u.test(content)) return "inside a word";
  if (/\p{N}/u.test(first)) return "number";
  if (/[-+*/=<>^_&|~%]/.test(first) || /\p{Sm}/u.test(first)) return "operator";
  return /[\p{P}\p{Sc}\p{Sk}]/u.test(first) ? "punctuation" : "other";
}

// A score in nats, or null.
function score(doc, name, i) {
  const value = doc[name] ? doc[name][i] : -1;
  return value < 0 ? null : value / 100;
}

function entropyOf(doc, i) {
  return score(doc, "entropy", i) ?? doc.groupsAt.get(i)?.[0].entropy ?? null;
}

function bandOf(doc, i) {
  const entropy = entropyOf(doc, i);
  return entropy === null ? -1 : BANDS.filter((least) => entropy > least).length;
}

// Ways to look at a document: [{ id, title }], the last trained state last.
function viewsOf(doc) {
  const models = doc.models.map((label) => ({ id: `model:${label}`, title: `model: ${label}` }));
  // A development document is evaluated anew; of a training document each step samples a few places.
  const how = doc.groups.some((group) => !group.model && !group.evaluated) ? "training, up to step" : "evaluated at step";
  const steps = doc.entry.steps.map((step) => ({ id: `step:${step}`, title: `${how} ${step}` }));
  return [...models, ...steps];
}

const nameOf = (group) => (group.model ? group.model : `step ${group.step}`);

const latestView = (doc) => viewsOf(doc).at(-1)?.id ?? "";
const earliestView = (doc) => viewsOf(doc)[0]?.id ?? "";

// What a change is measured from.
const comparedView = (doc) => state.other || earliestView(doc);

// What a model or step made of a position: { rate, ntp, gain, group }; null where it was not there.
function outcome(doc, view, i) {
  const [kind, name] = splitView(view);
  const groups = doc.groupsAt.get(i) ?? [];
  const group = kind === "step" ? groups.findLast((one) => !one.model && one.step <= Number(name))
    : groups.find((one) => one.model === name);
  const row = kind === "model" ? doc.outcomes[name]?.get(i) : undefined;
  if (row === undefined && !group) return null;
  const at = (column) => doc.evaluations[name]?.[column]?.[row] ?? null;
  if (!group) return { rate: at("reasoning"), ntp: at("ntp"), gain: at("information_gain") };
  return { rate: numberRight(group) / group.matched.length, ntp: group.ntp_right,
           gain: at("information_gain") ?? mean(group.terms?.information_gain), group };
}

const numberRight = (group) => group.matched.filter((length) => length > 0).length;

function splitView(view) {
  const colon = view.indexOf(":");
  return [view.slice(0, colon), view.slice(colon + 1)];
}

function mean(values) {
  const known = (values ?? []).filter((value) => value !== null);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

// Whether a result counts as right: at least half of the rollouts.
const isRight = (result) => result !== null && result.rate !== null && result.rate >= 0.5;
