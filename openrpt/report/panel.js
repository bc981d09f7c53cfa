// All that is known of the token that is selected.

const CONTINUATION = 12;
const PREFIX = 48;

// `panel`: what is known of the token itself; `rollouts`: what was sampled there.
function showPanel(panel, rollouts, doc, i) {
  if (!doc || i < 0 || i >= doc.tokens.length) {
    panel.place = null;
    rollouts.replaceChildren();
    panel.replaceChildren(element("p", { class: "muted" },
      "Choose a token: click it, or go to the text and use the arrow keys."));
    return;
  }
  // Of the same token only the rollouts change: what has the focus, or is dragged, stays there.
  const place = `${doc.id} ${i}`;
  if (panel.place === place) return panel.redraw();
  panel.place = place;
  const groups = doc.groupsAt.get(i) ?? [];
  const part = groups.length ? groupPart(doc, i, groups) : null;
  // What stands side by side has the width of the page, below the text.
  panel.redraw = () => rollouts.parentElement.classList.toggle("across", Boolean(part?.draw()));
  panel.replaceChildren(
    element("h3", {}, chip(doc.tokens[i].bytes), " ",
      element("small", {}, `token ${tokenOf(doc, i)} · ${doc.tokens[i].kind}`)),
    facts(doc, i, groups),
    modelTable(doc, i));
  rollouts.replaceChildren(
    ...(part?.nodes ?? [element("p", { class: "muted" }, "No rollouts are stored at this position.")]));
  panel.redraw();
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
  const rows = doc.models.map((label) => [label, outcome(doc, `model:${label}`, i)])
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

// { nodes, draw() }: what was sampled here, of the step or model that is chosen; draw() returns
// whether several stand side by side, or would if none were chosen: then a choice moves nothing.
function groupPart(doc, i, groups) {
  const bar = groups.length > 1 ? groupBar(doc, groups) : null;
  const body = element("div");
  const draw = () => {
    const shown = groups.find((group) => group.view === state.group)
      ?? outcome(doc, state.view || latestView(doc), i)?.group ?? groups.at(-1);
    const compared = state.other ? outcome(doc, state.other, i)?.group : undefined;
    const models = doc.models.map((label) => groups.find((group) => group.model === label)).filter(Boolean);
    // Nothing was chosen, and models alone were here: all of them, as far as they fit.
    const chosen = state.group || state.other || state.view;
    const fit = models.length <= MOST_TOGETHER && groups.length <= FEW_GROUPS;
    const together = !chosen && shown.model && fit;
    const views = together ? models : compared && compared !== shown ? [shown, compared] : [shown];
    bar?.mark(together ? null : shown);
    body.replaceChildren(element("div", { class: views.length > 1 ? "two" : "" }, ...views.map(groupView)),
      shown.completion ? shadingLegend() : "");
    return views.length > 1 || (models.length > 1 && fit);
  };
  return { nodes: bar ? [bar.node, body] : [body], draw };
}

const MOST_TOGETHER = 4;
const FEW_GROUPS = 8; // up to so many have a button each

// { node, mark(group) }: the models and steps with rollouts here, to choose from.
function groupBar(doc, groups) {
  const models = doc.models.map((label) => groups.find((group) => group.model === label));
  const all = [...models.filter(Boolean), ...groups.filter((group) => !group.model)];
  return all.length > FEW_GROUPS ? groupSlider(all) : groupButtons(all);
}

const sayGroup = (group) => `${nameOf(group)} · ${numberRight(group)}/${group.matched.length}`;
const chooseGroup = (group) => setState({ group: group.view });

function groupButtons(all) {
  const buttons = all.map((group) =>
    element("button", { type: "button", onclick: () => chooseGroup(group) }, sayGroup(group)));
  return {
    node: element("p", { class: "steps", role: "group", "aria-label": "Rollouts of" }, ...buttons),
    mark: (shown) => buttons.forEach((button, n) =>
      button.setAttribute("aria-pressed", String(all[n] === shown))),
  };
}

// A bar a group, as high as its share of right rollouts, above a slider.
function groupSlider(all) {
  const bars = all.map((group) => element("i", { title: sayGroup(group), onclick: () => chooseGroup(group),
    style: `--share: ${numberRight(group) / group.matched.length}` }));
  const slider = element("input", { type: "range", min: 0, max: all.length - 1, "aria-label": "Rollouts of",
    oninput: () => chooseGroup(all[Number(slider.value)]) });
  const said = element("b");
  return {
    node: element("div", { class: "strip" },
      element("div", {}, element("span", { class: "muted" }, `Sampled ${all.length} times: `), said),
      element("div", { class: "bars", "aria-hidden": "true" }, ...bars), slider),
    mark: (shown) => {
      const at = all.indexOf(shown);
      bars.forEach((bar, n) => bar.classList.toggle("here", n === at));
      slider.value = at;
      slider.setAttribute("aria-valuetext", sayGroup(shown));
      said.textContent = sayGroup(shown);
    },
  };
}
