// Starts everything; what can't be shown says so in its own place and does not stop the rest.

async function part(id, start) {
  const root = document.getElementById(id);
  if (!root || root.querySelector("[data-empty]")) return;
  try {
    await start(root);
  } catch (error) {
    const old = typeof DecompressionStream === "undefined";
    const what = old ? "This browser is too old to unpack the data in this file: use one from 2023 or later."
      : `This part could not be shown: ${error.message}`;
    root.querySelector("h2").after(element("p", { class: "missing", role: "alert" }, what));
    console.error(error);
  }
}

document.addEventListener("DOMContentLoaded", async () => {
  document.documentElement.classList.add("scripted");
  part("curves", async (root) => new Charts(root, await block("data-curves")));
  await part("inspector", async (root) => {
    const inspector = new Inspector(root, await block("data-index"));
    const asked = readHash();
    if (asked) Object.assign(state, asked);
    await inspector.update(new Set(Object.keys(state)));
    root.dataset.ready = "true";
    if (asked) root.scrollIntoView();
    else setState({ token: inspector.firstToken() }, false);
  });
  // The table is not needed at once, and may be long.
  const root = document.getElementById("samples");
  const seen = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen.disconnect();
    part("samples", async () => new Samples(root, await block("data-index")));
  }, { rootMargin: "600px" });
  seen.observe(root);
});

window.addEventListener("hashchange", () => {
  const asked = readHash();
  if (!asked) return;
  setState(asked, false);
  document.getElementById("inspector").scrollIntoView();
});
