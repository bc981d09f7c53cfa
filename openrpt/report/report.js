// Draws the charts in the colours of the page, and again when the reader's theme changes.
const specs = JSON.parse(document.getElementById("specs").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");

// Okabe-Ito: told apart with every kind of colour vision; in each theme those that stand out.
const LIGHT = ["#0072B2", "#D55E00", "#00805E", "#A5517F"];
const DARK = ["#56B4E9", "#E69F00", "#2FC49A", "#DD9CBF"];

function theme() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const text = { labelColor: color("--muted"), titleColor: color("--muted") };
  return {
    background: "transparent",
    font: style.fontFamily,
    view: { stroke: null },
    axis: { ...text, gridColor: color("--line"), domainColor: color("--line"),
            tickColor: color("--line"), labelFontSize: 12, titleFontSize: 12,
            titleFontWeight: "normal" },
    axisX: { grid: false },
    legend: { labelColor: color("--text"), labelFontSize: 12, symbolStrokeWidth: 2.5 },
    rule: { color: color("--muted") },
    range: { category: dark.matches ? DARK : LIGHT },
  };
}

function draw() {
  for (const [id, spec] of Object.entries(specs)) {
    const options = { config: theme(), renderer: "svg", actions: false,
                      logLevel: 1, // errors alone: the empty hover layer warns of its extent
                      tooltip: { theme: dark.matches ? "dark" : "light" } };
    window.vegaEmbed("#" + id, spec, options);
  }
}

dark.addEventListener("change", draw);
draw();

// Opens or closes every group at once.
for (const button of document.querySelectorAll("button[data-open]")) {
  button.addEventListener("click", () => {
    const open = button.dataset.open === "true";
    for (const group of document.querySelectorAll("details.group")) group.open = open;
  });
}
