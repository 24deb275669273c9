// What the pages cannot do with HTML alone. All of them work without it, only less conveniently.
(() => {
  const clock = new Intl.DateTimeFormat(undefined, { weekday: "short", hour: "2-digit", minute: "2-digit" });

  // Times come in UTC with words for the time left; people read their own clock.
  const localise = (root) => {
    for (const time of root.querySelectorAll("time[datetime]:not([data-local])")) {
      const words = time.textContent;
      time.dataset.local = "";
      time.textContent = `${clock.format(new Date(time.dateTime))} (${words})`;
    }
  };

  const copy = async (button) => {
    const field = document.getElementById(button.dataset.copy);
    field.select();
    try {
      await navigator.clipboard.writeText(field.value);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Press Ctrl-C";
    }
  };

  // A link's key is after the #, which browsers never send: hand it over in a header and get a cookie for it.
  const comeBack = async () => {
    const token = location.hash.slice(1);
    if (!document.querySelector("[data-return]") || !token) return;
    const answer = await fetch(`${location.pathname}/return`, {
      method: "POST",
      headers: { Authorization: `Bearer ${token}` },
    });
    if (!answer.ok) return;
    history.replaceState(null, "", location.pathname);
    location.reload();
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
  });
  document.addEventListener("submit", (event) => {
    event.target.querySelector("[type=submit]")?.setAttribute("aria-busy", "true");
  });
  // A page that the browser kept and shows again is not busy any more.
  window.addEventListener("pageshow", () => {
    for (const button of document.querySelectorAll("[aria-busy]")) button.removeAttribute("aria-busy");
  });
  document.addEventListener("DOMContentLoaded", () => {
    localise(document);
    document.body.addEventListener("htmx:sseMessage", (event) => localise(event.target));
    comeBack();
  });
})();
