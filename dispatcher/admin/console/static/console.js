// The console's own script: keys, copying, the live tail, and the browser's time zone.
// Every page works without it. It evaluates nothing, and writes what comes from outside as text alone.
"use strict";

(() => {
  const root = document.documentElement;
  root.classList.add("scripted");
  const say = (text) => {
    const place = document.getElementById("said");
    if (place) place.textContent = text;
  };

  // The zone: the browser knows it, the server writes the times. What a person chose stays.
  const rememberZone = () => {
    const source = document.body.dataset.zone;
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    if (source === "set" || !zone || !/^[A-Za-z0-9_+\-/]{1,64}$/.test(zone)) return;
    const wanted = `dispatcher_zone=auto:${zone}`;
    if (document.cookie.split("; ").includes(wanted)) return;
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `${wanted}; path=/; max-age=31536000; SameSite=Lax${secure}`;
  };

  document.addEventListener("click", (event) => {
    const copies = event.target.closest("[data-copy]");
    if (copies) {
      const field = document.getElementById(copies.dataset.copy);
      field.select();
      const done = () => say(document.getElementById("said").dataset.copied);
      if (navigator.clipboard) navigator.clipboard.writeText(field.value).then(done, () => document.execCommand("copy") && done());
      else if (document.execCommand("copy")) done();
    }
    const opens = event.target.closest("[data-open]");
    if (opens) document.getElementById(opens.dataset.open).showModal();
    const tail = event.target.closest("[data-tail]");
    if (tail) toggleTail(tail);
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-submits]")) event.target.form.requestSubmit();
  });

  // Keys. `g` waits a second for the letter after it; in a field only Escape means something.
  const places = { o: "/", w: "/webhooks", d: "/deliveries", e: "/events" };
  let goes = 0;
  const rows = () => [...document.querySelectorAll("table.rows tbody tr")];
  const step = (by) => {
    const all = rows();
    if (!all.length) return;
    const now = all.findIndex((row) => row.classList.contains("at"));
    const next = all[Math.max(0, Math.min(all.length - 1, now + by))];
    all[now]?.classList.remove("at");
    next.classList.add("at");
    const link = next.querySelector("a");
    (link ?? next).focus();
    next.scrollIntoView({ block: "nearest" });
  };
  const act = (key) => {
    const found = [...document.querySelectorAll(`[data-key="${key}"]`)].at(-1);
    if (!found) return false;
    if (found.matches("form")) {
      if (!found.dataset.asks || confirm(found.dataset.asks)) {
        found.dataset.sure = "yes";
        found.requestSubmit();
      }
    } else found.click();
    return true;
  };
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.asks && form.dataset.sure !== "yes" && !confirm(form.dataset.asks)) event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const typing = event.target.closest("input:not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]");
    if (event.key === "Escape") {
      if (typing) event.target.blur();
      return;
    }
    if (typing || document.querySelector("dialog[open]")) return;
    let used = true;
    if (goes > Date.now() && places[event.key]) location.href = places[event.key];
    else if (event.key === "g") goes = Date.now() + 1000;
    else if (event.key === "/") {
      const field = document.querySelector("[data-search]");
      if (field) {
        field.focus();
        field.select();
      } else used = false;
    } else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "?") document.getElementById("keys")?.showModal();
    else if (event.key === "r" || event.key === "t") used = act(event.key);
    else used = false;
    if (used) event.preventDefault();
  });

  // The live tail: rows come as data and are put into a copy of the page's own row.
  const ROWS_MAX = 100;
  let source = null;
  const write = (row, one) => {
    const put = (name, text) => {
      const place = row.querySelector(`[data-f="${name}"]`);
      if (place) place.textContent = text ?? "";
      return place;
    };
    const link = put("at", "");
    link.setAttribute("href", one.href);
    const time = document.createElement("time");
    time.dateTime = one.machine;
    time.title = one.utc;
    time.textContent = one.at;
    link.append(time);
    for (const name of ["type", "test", "icon", "state", "code", "body", "latency", "retries"]) put(name, one[name]);
    put("next", "–");
    put("event", one.event_id).setAttribute("href", `/events/${encodeURIComponent(one.event_id)}`);
    put("endpoint", one.endpoint)?.setAttribute("href", `/webhooks/${encodeURIComponent(one.endpoint_id)}`);
    row.querySelector('[data-f="badge"]').classList.add(one.tone);
  };
  const show = (batch) => {
    const body = document.getElementById("delivery-rows");
    for (const one of batch.rows) {
      const copy = document.getElementById("tail-row").content.cloneNode(true);
      const row = copy.querySelector("tr");
      row.dataset.id = one.id;
      write(row, one);
      body.querySelector(`tr[data-id="${CSS.escape(one.id)}"]`)?.remove();
      body.prepend(row);
    }
    while (body.rows.length > ROWS_MAX) body.lastElementChild.remove();
    document.querySelector("#results .empty")?.remove();
  };
  const readAgain = async () => {
    const answer = await fetch(location.href, { credentials: "same-origin" });
    if (!answer.ok || answer.redirected) return location.reload();
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const rows = page.getElementById("delivery-rows");
    if (rows) document.getElementById("delivery-rows").replaceWith(rows);
  };
  const toggleTail = (button) => {
    const note = document.getElementById("tail-note");
    if (source) {
      source.close();
      source = null;
      note.textContent = "";
    } else {
      source = new EventSource(document.getElementById("tail").dataset.path);
      source.addEventListener("open", () => { note.textContent = note.dataset.live; });
      source.addEventListener("error", () => { note.textContent = note.dataset.lost; });
      source.addEventListener("rows", (event) => {
        const batch = JSON.parse(event.data);
        show(batch);
        note.textContent = batch.note ?? note.dataset.live;
      });
      source.addEventListener("again", () => readAgain().then(() => { note.textContent = note.dataset.again; }));
    }
    button.setAttribute("aria-pressed", String(source !== null));
    button.textContent = source ? button.dataset.tail : button.dataset.paused;
  };
  addEventListener("pagehide", () => source?.close());

  rememberZone();
  (document.getElementById("faults") ?? document.getElementById("result"))?.focus();
})();
