// Sets the light or dark theme, chosen here or by the system, before the page is drawn.

{
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const set = () => {
    root.dataset.theme = localStorage.getItem("theme") ?? (dark.matches ? "dark" : "light");
    document.dispatchEvent(new Event("theme"));
  };
  dark.addEventListener("change", set);
  document.addEventListener("click", ({ target }) => {
    if (target.id !== "theme") return;
    localStorage.setItem("theme", root.dataset.theme === "dark" ? "light" : "dark");
    set();
  });
  set();
}
