// What the pages cannot do with HTML alone. All of them work without it, only less conveniently.
(() => {
  const clock = new Intl.DateTimeFormat(undefined, { weekday: "short", hour: "numeric", minute: "2-digit" });

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
    const key = location.hash.slice(1);
    const notice = document.querySelector("[data-return]");
    if (!notice || !key || document.getElementById(key)) return;
    const answer = await fetch(`${location.pathname}/return`, {
      method: "POST",
      headers: { Authorization: `Bearer ${key}` },
    }).catch(() => ({ status: 0 }));
    if (answer.status !== 204 && answer.status !== 404) {
      notice.textContent = "We could not look whether the key in this link fits. Reload the page to try again.";
      return;
    }
    history.replaceState(null, "", location.pathname);
    if (answer.status === 204) location.reload();
    else notice.textContent = "The key in that link does not open this lease. Copy the link again, whole.";
  };

  // A workshop's link has its code after the #, too: it goes into its field, and out of the address and the history.
  const takeCode = () => {
    const field = document.getElementById("join_code");
    const code = new URLSearchParams(location.hash.slice(1)).get("join");
    if (!field || !code) return;
    history.replaceState(null, "", location.pathname);
    field.value = code;
    document.getElementById("code").hidden = false;
  };

  // A stream says something every few seconds (BEAT_SECONDS in allocator/subscriptions.py). One that does not is given
  // up, for it may wait for ever; after any error htmx or the browser opens another, and until it speaks the page says so.
  const SILENCE_MS = 12_000;

  const tell = (connected) => {
    const shown = document.getElementById("connection");
    if (connected) shown.replaceChildren();
    else if (!shown.hasChildNodes()) shown.innerHTML = '<p class="notice">Not connected; trying again …</p>';
  };

  htmx.createEventSource = (url) => {
    const source = new EventSource(url);
    let silence;
    const giveUp = () => {
      source.close();
      source.dispatchEvent(new Event("error"));
    };
    const hear = (connected) => {
      tell(connected);
      clearTimeout(silence);
      if (source.readyState !== EventSource.CLOSED) silence = setTimeout(giveUp, SILENCE_MS);
    };
    source.addEventListener("beat", () => hear(true));
    source.addEventListener("error", () => hear(false));
    source.addEventListener("over", () => clearTimeout(silence));
    silence = setTimeout(giveUp, SILENCE_MS);
    return source;
  };

  // What the person opened stays open when the piece of the page that it is in comes anew.
  Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name) => name !== "open";

  // What they have typed stays, too.
  Idiomorph.defaults.callbacks.beforeNodeMorphed = (before) => !(before instanceof Element && before.matches("[data-kept]"));

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
  });
  document.addEventListener("submit", (event) => {
    event.submitter?.setAttribute("aria-busy", "true");
  });
  // A page that the browser kept and shows again is not busy any more.
  window.addEventListener("pageshow", () => {
    for (const button of document.querySelectorAll("[aria-busy]")) button.removeAttribute("aria-busy");
  });
  document.addEventListener("DOMContentLoaded", () => {
    localise(document);
    document.body.addEventListener("htmx:sseMessage", (event) => localise(event.target));
    comeBack();
    takeCode();
  });
  window.addEventListener("hashchange", comeBack);
  window.addEventListener("hashchange", takeCode);
})();
