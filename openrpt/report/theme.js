// Before anything is drawn: dark where the reader's system is dark, until the button says otherwise.
{
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const apply = (dark) => {
    document.documentElement.classList.toggle("dark", dark);
    document.dispatchEvent(new Event("theme"));
  };
  system.addEventListener("change", () => apply(system.matches));
  apply(system.matches);
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-theme]"))
      apply(!document.documentElement.classList.contains("dark"));
  });
}
