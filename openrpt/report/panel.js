// All that is known of the token that is selected.

const CONTINUATION = 12;
const PREFIX = 48;

function showPanel(panel, doc, i) {
  if (!doc || i < 0 || i >= doc.tokens.length) {
    panel.replaceChildren(element("p", { class: "muted" },
      "Choose a token: click it, or go to the text and use the arrow keys."));
    return;
  }
  const groups = doc.groupsAt.get(i) ?? [];
  panel.replaceChildren(
    element("h3", {}, chip(doc.tokens[i].bytes), " ",
      element("small", {}, `token ${tokenOf(doc, i)} · ${doc.tokens[i].kind}`)),
    facts(doc, i, groups),
    modelTable(doc, i),
    ...groupPart(doc, i, groups));
}

function facts(doc, i, groups) {
  const stored = groups[0];
  const before = doc.absent ? stored?.prefix ?? ""
    : doc.tokens.slice(Math.max(0, i - PREFIX), i).map((token) => token.bytes).join("");
  const next = doc.absent ? stored?.continuation ?? []
    : doc.tokens.slice(i, i + CONTINUATION).map((token) => token.bytes);
  const rows = [
    ["The prefix ends", element("div", { class: "text prefix-end", dir: "auto" }, "…", running(before))],
    ["True continuation", element("span", {}, ...next.map((token) => chip(token)))],
  ];
  const entropy = entropyOf(doc, i);
  if (entropy !== null) {
    const surprise = score(doc, "surprise", i);
    rows.push(["The scorer", `entropy ${entropy.toFixed(2)} nats (${BAND_NAMES[bandOf(doc, i)]})`
      + (surprise === null ? "" : `; it gave the true token ${percent(Math.exp(-surprise))}`)]);
  }
  const verdict = doc.ntp_right?.[i];
  if (verdict === "0" || verdict === "1") {
    const word = doc.ntp_words[doc.ntp[i]];
    const said = word === null ? element("span", { class: "muted" }, "a token that is not in these texts")
      : chip(word, verdict === "1" ? "right" : "wrong");
    rows.push(["Its prediction", element("span", {}, said, " ", mark(verdict === "1"))]);
  }
  return element("dl", {}, ...rows.flatMap(([name, value]) =>
    [element("dt", {}, name), element("dd", {}, value)]));
}

// Text to be read on: line breaks are seen and break, a last space is seen.
function running(string) {
  const nodes = document.createDocumentFragment();
  const body = string.replace(/ +$/, "");
  body.split("\n").forEach((line, n) => {
    if (n) nodes.append(element("i", { class: "ws" }, "⏎"), "\n");
    line.split(" ").forEach((word, w) => nodes.append(w ? " " : "", visible(word)));
  });
  nodes.append(visible(string.slice(body.length)));
  return nodes;
}

function modelTable(doc, i) {
  const rows = Object.keys(doc.evaluations).map((label) => [label, outcome(doc, `model:${label}`, i)])
    .filter(([, result]) => result !== null);
  if (!rows.length) return "";
  const cell = (value) => element("td", {},
    value === null ? "–" : value === 0 || value === 1 ? mark(value === 1) : percent(value));
  return element("table", {},
    element("thead", {}, element("tr", {}, ...["evaluated model", "NTP", "reasoning"]
      .map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, ...rows.map(([label, result]) => element("tr", {},
      element("th", { scope: "row" }, label), cell(result.ntp), cell(result.rate)))));
}

function groupPart(doc, i, groups) {
  if (!groups.length)
    return [element("p", { class: "muted" }, "No rollouts are stored at this position.")];
  const shown = groups.find((group) => String(group.step) === state.step)
    ?? outcome(doc, state.view || latestView(doc), i)?.group ?? groups.at(-1);
  const [kind, step] = splitView(state.other);
  const compared = kind === "step"
    ? groups.findLast((group) => group.step <= Number(step) && group !== shown) : undefined;
  const parts = [stepBar(groups, shown)];
  if (shown.completion) parts.push(shadingLegend());
  const views = [groupView(shown, `Step ${shown.step}`)];
  if (compared) views.push(groupView(compared, `Step ${compared.step}`));
  parts.push(element("div", { class: views.length > 1 ? "two" : "" }, ...views));
  return parts;
}

// The steps of training at which this position was sampled.
function stepBar(groups, shown) {
  const buttons = groups.map((group) => {
    const right = group.matched.filter((length) => length > 0).length;
    return element("button", { type: "button", "aria-pressed": String(group === shown),
                               onclick: () => setState({ step: String(group.step) }) },
      `step ${group.step} · ${right}/${group.matched.length}`);
  });
  return element("p", { class: "steps", role: "group", "aria-label": "Steps at which this position was sampled" },
    "Sampled at: ", ...buttons);
}
