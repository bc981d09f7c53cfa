// What the reader looks at; it stands in the address, so that a link shows another the same.

const DEFAULTS = {
  document: "", // the beginning of its id
  token: -1,
  group: "", // the step or model whose rollouts are shown
  color: "entropy",
  view: "", // the model or step that is looked at; "" = the document's latest
  other: "", // what it is compared with
  only: "",
  kind: "",
  band: "",
  find: "",
};
const state = { ...DEFAULTS };
const listeners = [];

function onState(listener) {
  listeners.push(listener);
}

function setState(changes, write = true) {
  const changed = Object.keys(changes).filter((key) => state[key] !== changes[key]);
  Object.assign(state, changes);
  // about: = inside a notebook's frame, which has no address of its own
  if (write && location.protocol !== "about:") history.replaceState(null, "", stateHash());
  for (const listener of listeners) listener(new Set(changed));
}

function stateHash(changes = {}) {
  const parameters = new URLSearchParams();
  for (const [key, value] of Object.entries({ ...state, ...changes }))
    if (value !== DEFAULTS[key]) parameters.set(key, value);
  const text = parameters.toString();
  return text ? `#${text}` : `${location.pathname}${location.search}`;
}

// What an address asks for; null where it names a section of the page or nothing. What it names
// of the lists below must be in them: an address may be of another version, or mistyped.
function readHash() {
  if (!location.hash.includes("=")) return null;
  const asked = new URLSearchParams(location.hash.slice(1));
  const read = { ...DEFAULTS };
  for (const key of Object.keys(DEFAULTS))
    if (asked.has(key)) read[key] = key === "token" ? Number(asked.get(key)) : asked.get(key);
  if (!Number.isInteger(read.token)) read.token = -1;
  const known = { color: Object.keys(QUANTITIES), only: Object.keys(FILTERS), kind: CLASSES,
                  band: Object.keys(BAND_NAMES) };
  for (const [key, names] of Object.entries(known))
    if (!names.includes(read[key])) read[key] = DEFAULTS[key];
  return read;
}
