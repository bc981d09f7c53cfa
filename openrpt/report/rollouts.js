// A group: what standard prediction and the candidates were, and every rollout of the position.

const SURPRISES = [5, 36, 92, 200]; // hundredths of a nat: probability 0.95, 0.7, 0.4, 0.14
const SURPRISE_NAMES = ["p ≥ 0.95", "≥ 0.7", "≥ 0.4", "≥ 0.14", "less"];

function groupView(group) {
  const right = numberRight(group);
  const title = group.model ? `Model: ${group.model}` : `Step ${group.step}`;
  return element("section", { class: "group-view", "aria-label": title },
    element("h4", {}, title, group.evaluated && !group.model ? " (development) " : " ",
      element("span", { class: `tally ${right ? "right" : "wrong"}` },
        `${right ? "✓" : "✗"} ${right} of ${group.matched.length} right`)),
    element("dl", {},
      element("dt", {}, "Standard prediction"),
      element("dd", {}, chip(group.ntp, group.ntp_right ? "right" : "wrong"), " ", mark(group.ntp_right)),
      ...candidateLine("Its most probable", group.top, group.top_logprobs),
      // Where the policy's own seed the thought, they are the first of those.
      ...(isBeginning(group.candidates, group.top) ? []
        : candidateLine("Candidates of the thought", group.candidates, group.candidate_logprobs))),
    rolloutTable(group, title));
}

const isBeginning = (part, whole) => Boolean(whole) && part.every((one, i) => one === whole[i]);

function candidateLine(title, candidates, logprobs) {
  if (!candidates?.length) return [];
  const items = candidates.map((candidate, i) => {
    const share = logprobs ? Math.exp(logprobs[i]) : null;
    return element("li", {}, chip(candidate),
      share === null ? "" : element("span", { class: "bar", style: `--share: ${share}`,
                                              "aria-hidden": "true" }),
      share === null ? "" : element("span", { class: "muted" }, percent(share)));
  });
  return [element("dt", {}, title), element("dd", {}, element("ol", { class: "candidates" }, ...items))];
}

function rolloutTable(group, title) {
  const rows = alike(group).map((same) => rolloutRow(group, same[0], same.length));
  const heads = [["prediction", ""], ["reward", "number"],
                 ...(group.evaluated ? [] : [["advantage", "number"]]),
                 [group.completion ? "thought and answer" : "thought", ""]];
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Rollouts, ${title}` },
    // Roles said twice: on a phone the rows are laid out as grids, by which a table loses its own.
    element("table", { class: group.evaluated ? "rollouts evaluated" : "rollouts", role: "table" },
      element("thead", { role: "rowgroup" }, element("tr", { role: "row" },
        ...heads.map(([name, kind]) =>
          element("th", { scope: "col", role: "columnheader", class: kind }, name)))),
      element("tbody", { role: "rowgroup" }, ...rows)));
}

// The right ones first, equal predictions together; then as they were drawn.
function order(group) {
  const count = new Map();
  for (const prediction of group.prediction) count.set(prediction, (count.get(prediction) ?? 0) + 1);
  const rank = (i) => [group.matched[i] > 0 ? 0 : 1, -count.get(group.prediction[i])];
  return group.prediction.map((_, i) => i).sort((a, b) => {
    const [x, y] = [rank(a), rank(b)];
    return x[0] - y[0] || x[1] - y[1]
      || String(group.prediction[a]).localeCompare(String(group.prediction[b])) || a - b;
  });
}

// Rollouts that differ in nothing stand in one row: lists of their numbers.
function alike(group) {
  const found = new Map();
  for (const i of order(group)) {
    const words = group.completion ? [group.completion[i], group.trained[i]] : [group.thought[i]];
    const key = JSON.stringify([group.prediction[i], group.reward[i], group.finish[i], ...words]);
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(i);
  }
  return [...found.values()];
}

function rolloutRow(group, i, count) {
  const length = group.matched[i];
  const upto = length === 1 ? "up to the end of token 1" : `up to the end of token ${length}`;
  const terms = Object.entries(group.terms ?? {}).filter(([name]) => name !== "prefix");
  return element("tr", { role: "row" },
    element("td", { role: "cell" },
      chip(group.prediction[i], length ? "right" : "wrong"), " ",
      element("span", { class: "tally" }, mark(length > 0), count > 1 ? element("b", {}, ` × ${count}`) : ""),
      length ? element("small", {}, upto) : "",
      group.finish[i] === "length" ? element("small", {}, "cut by its budget") : ""),
    element("td", { role: "cell", class: "number" }, number(group.reward[i]),
      ...terms.map(([name, values]) =>
        element("small", {}, `${name.replaceAll("_", " ")} ${number(values[i])}`))),
    group.evaluated ? "" : element("td", { role: "cell", class: "number" },
      group.advantage[i] === null ? "–" : signed(group.advantage[i])),
    element("td", { role: "cell", class: "thought" }, thought(group, i)));
}

const number = (value) => (value === null || value === undefined ? "–" : String(Number(value.toPrecision(3))));

// The completion token by token, where it is stored so; else the thought's bytes.
function thought(group, i) {
  if (!group.completion) return element("bdi", { class: "text" }, visible(group.thought[i]));
  const whole = element("bdi", { class: "text", dir: "auto" });
  let at = 0;
  group.lengths[i].forEach((length, t) => {
    const bytes = group.completion[i].slice(at, at + length);
    at += length;
    const forced = group.trained[i][t] === "0";
    const surprise = group.surprise[i][t];
    const place = SURPRISES.filter((bound) => surprise > bound).length;
    const said = forced ? "forced, not trained" : `p ${Math.exp(-surprise / 100).toPrecision(2)}`;
    const shown = length ? visible(bytes) : element("i", { class: "ws" }, "⟨end⟩");
    whole.append(element("span", { class: forced ? "forced" : `own amount-${place}`, title: said }, shown));
  });
  return whole;
}

function shadingLegend() {
  return element("p", { class: "legend" },
    "Tokens as the sampler drew them: ",
    ...SURPRISE_NAMES.map((name, i) => element("span", { class: `swatch amount-${i}` }, name)),
    element("span", { class: "swatch forced" }, "forced, not trained"));
}
