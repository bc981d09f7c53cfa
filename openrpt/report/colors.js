// What tokens are coloured by. Palettes: one hue for amounts, orange to blue for wrong to right,
// told apart with every kind of colour vision; the text's contrast on each is tested.

const QUANTITIES = {
  entropy: {
    title: "entropy of the scorer", palette: "amount", bounds: [0.5, 1, 1.5, 2.5],
    names: ["≤ 0.5 nats", "≤ 1", "≤ 1.5", "≤ 2.5", "> 2.5"],
    value: (doc, view, i) => entropyOf(doc, i),
    say: (value) => `entropy ${value.toFixed(2)} nats`,
  },
  difficulty: {
    title: "difficulty", palette: "amount", bounds: BANDS, names: ["not easy: ≤ 0.5", "easy", "medium", "hard: > 1.5"],
    value: (doc, view, i) => entropyOf(doc, i),
    say: (value) => `entropy ${value.toFixed(2)} nats`,
  },
  surprise: {
    title: "surprise: −log p of the true token", palette: "amount", bounds: [0.5, 1, 2, 4],
    names: ["≤ 0.5 nats", "≤ 1", "≤ 2", "≤ 4", "> 4"],
    value: (doc, view, i) => score(doc, "surprise", i),
    say: (value) => `the scorer gave it ${percent(Math.exp(-value))}`,
  },
  ntp: {
    title: "standard prediction (NTP) right or wrong", palette: "verdict", bounds: [0.5],
    classes: [0, 4], names: ["wrong", "right"],
    value: (doc, view, i) => {
      const own = outcome(doc, view, i)?.ntp;
      const scored = doc.ntp_right?.[i];
      return own ?? (scored === undefined || scored === "?" ? null : Number(scored));
    },
    say: (value) => `standard prediction ${value ? "right" : "wrong"}`,
  },
  rate: {
    title: "rollouts right (pass rate)", palette: "verdict", bounds: [0.001, 0.34, 0.67, 0.999],
    names: ["none right", "up to a third", "up to two thirds", "most", "all right"],
    value: (doc, view, i) => outcome(doc, view, i)?.rate ?? null,
    say: (value) => `${percent(value)} of the rollouts right`,
  },
  gain: {
    title: "information gain of the thought", palette: "verdict", bounds: [-0.5, -0.05, 0.05, 0.5],
    names: ["below −0.5 nats", "negative", "about 0", "positive", "above 0.5 nats"],
    value: (doc, view, i) => outcome(doc, view, i)?.gain ?? null,
    say: (value) => `information gain ${signed(value)} nats`,
  },
  change: {
    title: "change of the pass rate since …", palette: "verdict", bounds: [-0.5, -0.001, 0.001, 0.5],
    names: ["much worse", "worse", "the same", "better", "much better"],
    value: (doc, view, i) => {
      const now = outcome(doc, view, i)?.rate ?? null;
      const then = outcome(doc, comparedView(doc), i)?.rate ?? null;
      return now === null || then === null ? null : now - then;
    },
    say: (value) => `pass rate ${signed(100 * value, 0)} points`,
  },
};

function hasQuantity(doc, name) {
  if (name === "gain")
    return doc.groups.some((group) => group.terms?.information_gain)
      || Object.values(doc.evaluations).some((columns) => columns.information_gain);
  if (name === "surprise") return !doc.absent;
  if (name === "rate" || name === "change") return viewsOf(doc).length > 0;
  return true;
}

// Why the text is not coloured as was asked for, and what to do; "" where it is. `say`: a view → its
// title.
function colorHint(doc, name, view, say) {
  const { title, value } = QUANTITIES[name];
  if (name !== state.color)
    return `Coloured by ${title}: ` + (state.color === "change"
      ? "no two models or steps have this document, so there is no change to show."
      : `this document has no ${QUANTITIES[state.color].title}.`);
  const base = comparedView(doc);
  if (name === "change" && view === base)
    return `${say(view)} is compared with itself: choose another one under “of” or “compared with”.`;
  if (doc.tokens.some((_, i) => value(doc, view, i) !== null)) return "";
  return name === "change"
    ? `No token has rollouts of both ${say(view)} and ${say(base)}: choose others under “of” and “compared with”.`
    : `${say(view)} has no ${title} at any token: choose another one under “of”.`;
}

// The class of a token: "amount-3", "verdict-0", or "" where nothing is known.
function colorClass(quantity, value) {
  if (value === null) return "";
  const place = quantity.bounds.filter((bound) => value > bound).length;
  return `${quantity.palette}-${quantity.classes ? quantity.classes[place] : place}`;
}

function legend(quantity) {
  const items = quantity.names.map((name, place) => {
    const number = quantity.classes ? quantity.classes[place] : place;
    return element("span", { class: `swatch ${quantity.palette}-${number}` }, name);
  });
  return [...items, element("span", { class: "swatch sampled" }, "underlined: rollouts are stored")];
}
