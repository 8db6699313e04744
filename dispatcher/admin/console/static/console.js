// The console's own script: keys, copying, the pane, JSON, the live tail, and the browser's time zone.
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
    // A frame on another site keeps partitioned cookies only.
    const kind = "framed" in document.body.dataset ? "SameSite=None; Secure; Partitioned" : `SameSite=Lax${secure}`;
    document.cookie = `${wanted}; path=/; max-age=31536000; ${kind}`;
  };

  const copy = (field) => {
    const done = () => say(document.getElementById("said").dataset.copied);
    const text = field.value ?? field.textContent;
    const select = () => {
      if (field.select) field.select();
      else getSelection().selectAllChildren(field);
      if (document.execCommand("copy")) done();
    };
    if (field.select) field.select();
    if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, select);
    else select();
  };

  // One behaviour for each data attribute; the pages name them, and no page has a script of its own.
  const clicks = {
    copy: (button) => copy(document.getElementById(button.dataset.copy)),
    raw: (button) => showRaw(button),
    open: (button) => document.getElementById(button.dataset.open).showModal(),
    tail: (button) => toggleTail(button),
    paneClose: () => closePane(),
  };
  document.addEventListener("click", (event) => {
    const pane = event.target.closest("a[data-pane]");
    if (pane && !event.ctrlKey && !event.metaKey && !event.shiftKey && openPane(pane.getAttribute("href"))) event.preventDefault();
    const button = event.target.closest("[data-copy], [data-raw], [data-open], [data-tail], [data-pane-close]");
    if (button) for (const name of Object.keys(clicks)) if (name in button.dataset) clicks[name](button);
    for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-submits]")) event.target.form.requestSubmit();
    if (event.target.id === "drawer" && event.target.checked) document.querySelector("#side a").focus();
  });

  // The question before an action, in the page's own dialog.
  const ask = (form, submitter) => {
    const dialog = document.getElementById("ask");
    document.getElementById("ask-text").textContent = form.dataset.asks;
    document.getElementById("ask-yes").textContent = (submitter ?? form.querySelector("button")).textContent.trim();
    dialog.returnValue = "no";
    dialog.addEventListener("close", () => {
      if (dialog.returnValue !== "yes") return;
      form.dataset.sure = "yes";
      form.requestSubmit(submitter);
    }, { once: true });
    dialog.showModal();
  };
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.dataset.asks) return;
    if (form.dataset.sure === "yes") delete form.dataset.sure;
    else {
      event.preventDefault();
      event.stopPropagation();
      ask(form, event.submitter);
    }
  }, true);

  // The pane: on a wide screen a link with `data-pane` opens its page next to the list. The fragment of the
  // address names the page (`#/deliveries/wh_...`), so that the address can be shared.
  const wide = matchMedia("(min-width: 1100px)");
  const PLACE = /^(?:\/portal)?\/[a-z-]+\/[A-Za-z0-9_.~%-]{1,128}(?:\?[A-Za-z0-9_=&.%+-]{0,256})?$/;
  const pane = () => document.getElementById("pane");
  const closePane = () => {
    const place = pane();
    if (!place?.classList.contains("shown")) return false;
    place.classList.remove("shown");
    place.replaceChildren();
    history.replaceState(history.state, "", location.pathname + location.search);
    const row = document.querySelector("tr.open");
    row?.classList.remove("open");
    row?.querySelector("a[data-pane]")?.focus();
    return true;
  };
  const openPane = (href) => {
    const place = pane();
    if (!place || !wide.matches || !PLACE.test(href)) return false;
    fetch(href, { credentials: "same-origin", headers: { "HX-Request": "true" } }).then(async (answer) => {
      if (answer.status !== 200 || answer.redirected) return location.assign(href);
      const content = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("content");
      const tools = document.createElement("p");
      tools.className = "pane-tools";
      const page = document.createElement("a");
      page.className = "button quiet";
      page.href = href;
      const words = document.getElementById("said").dataset;
      page.textContent = words.page;
      const close = document.createElement("button");
      close.type = "button";
      close.className = "quiet";
      close.dataset.paneClose = "";
      close.textContent = words.close;
      tools.append(page, close);
      place.replaceChildren(tools, ...content.childNodes);
      place.classList.add("shown");
      place.scrollTop = 0;
      document.querySelector("tr.open")?.classList.remove("open");
      document.querySelector(`a[data-pane][href="${CSS.escape(href)}"]`)?.closest("tr")?.classList.add("open");
      history.replaceState(history.state, "", `${location.pathname}${location.search}#${href}`);
      htmx.process(place);
      fold(place);
      place.focus({ preventScroll: true });
    }).catch(() => say(document.getElementById("said").dataset.failed));
    return true;
  };
  const openNamed = () => {
    const href = location.hash.slice(1);
    if (pane() && PLACE.test(href) && !openPane(href)) location.replace(href);
  };

  // JSON: folded and coloured. The text is cut into tokens and never evaluated, so that numbers keep
  // their digits and members their order.
  const FOLDED_CHARACTERS_MAX = 262144;
  const FOLDED_DEPTH_MAX = 64;
  const TOKEN = /\s*(?:([{}[\],:])|("(?:[^"\\]|\\.)*")|([-+0-9.eE]+)|(true|false|null))/y;
  const span = (kind, text) => {
    const made = document.createElement("span");
    made.className = `json-${kind}`;
    made.textContent = text;
    return made;
  };
  const jsonTree = (text) => {
    TOKEN.lastIndex = 0;
    let token;
    const next = () => {
      const found = TOKEN.exec(text);
      if (!found) throw new SyntaxError("not JSON");
      token = found;
    };
    const line = (before, node, after) => {
      const made = document.createElement("div");
      made.className = "line-of";
      made.append(...before, node, after);
      return made;
    };
    const value = (before, depth) => {
      if (depth > FOLDED_DEPTH_MAX) throw new RangeError("too deep");
      const [, mark, string, number, word] = token;
      if (string !== undefined) return line(before, span("string", string), "");
      if (number !== undefined) return line(before, span("number", number), "");
      if (word !== undefined) return line(before, span("word", word), "");
      if (mark !== "{" && mark !== "[") throw new SyntaxError("not JSON");
      const end = mark === "{" ? "}" : "]";
      const details = document.createElement("details");
      details.open = depth < 3;
      const summary = document.createElement("summary");
      let count = 0;
      next();
      while (token[1] !== end) {
        let name = [];
        if (mark === "{") {
          if (token[2] === undefined) throw new SyntaxError("not JSON");
          name = [span("key", token[2]), ": "];
          next();
          if (token[1] !== ":") throw new SyntaxError("not JSON");
          next();
        }
        details.append(value(name, depth + 1));
        count += 1;
        next();
        if (token[1] === ",") next();
        else if (token[1] !== end) throw new SyntaxError("not JSON");
      }
      if (!count) return line(before, document.createTextNode(mark + end), "");
      summary.append(...before, `${mark} ${count} ${end}`);
      details.prepend(summary);
      return details;
    };
    next();
    const tree = value([], 0);
    if (text.slice(TOKEN.lastIndex).trim()) throw new SyntaxError("not JSON");
    return tree;
  };
  const fold = (within) => {
    for (const place of within.querySelectorAll("[data-json]:not(.folded)")) {
      place.classList.add("folded");
      const raw = document.getElementById(place.dataset.json);
      if (!raw || raw.textContent.length > FOLDED_CHARACTERS_MAX) continue;
      try {
        const tree = document.createElement("div");
        tree.className = "json-tree";
        tree.tabIndex = 0;
        tree.append(jsonTree(raw.textContent));
        raw.before(tree);
        raw.hidden = true;
        place.querySelector("[data-raw]").hidden = false;
      } catch {
        // The text is no JSON, or deeper than this view shows: it stays as it is.
      }
    }
  };
  const showRaw = (button) => {
    const raw = document.getElementById(button.dataset.raw);
    raw.hidden = !raw.hidden;
    raw.previousElementSibling.hidden = !raw.hidden;
    button.setAttribute("aria-pressed", String(!raw.hidden));
  };
  document.addEventListener("htmx:after:swap", () => fold(document));

  // Keys. `g` waits a second for the letter after it; in a field only Escape means something.
  const base = document.body.dataset.base ?? "";
  const places = { h: `${base}/`, w: `${base}/webhooks`, d: `${base}/deliveries`, e: `${base}/events` };
  let goes = 0;
  const rows = () => [...document.querySelectorAll("table.rows tbody tr")].filter((row) => !row.closest("#pane"));
  const step = (by) => {
    const all = rows();
    if (!all.length) return;
    const now = all.findIndex((row) => row.classList.contains("at"));
    const next = all[Math.max(0, Math.min(all.length - 1, now + by))];
    all[now]?.classList.remove("at");
    next.classList.add("at");
    const link = next.querySelector("th a") ?? next.querySelector("a");
    (link ?? next).focus();
    next.scrollIntoView({ block: "nearest" });
    if (pane()?.classList.contains("shown") && link?.matches("[data-pane]")) {
      openPane(link.getAttribute("href"));
    }
  };
  const toggleRow = () => {
    const box = document.querySelector("tr.at input[type=checkbox]");
    box?.click();
    return Boolean(box);
  };
  const act = (key) => {
    const found = [...document.querySelectorAll(`[data-key="${key}"]`)].at(-1);
    if (!found) return false;
    if (found.matches("form")) found.requestSubmit();
    else found.click();
    return true;
  };
  const leave = (typing) => {
    const menu = document.querySelector("details.menu[open]");
    const drawer = document.getElementById("drawer");
    if (menu) {
      menu.open = false;
      menu.querySelector("summary").focus();
    } else if (typing) typing.blur();
    else if (document.activeElement.closest(".search")) document.activeElement.blur();
    else if (drawer?.checked) drawer.click();
    else closePane();
  };
  // The arrows walk through the suggestions below the search field, and back to it.
  const walk = (event) => {
    const form = event.target.closest?.(".search");
    if (!form) return false;
    const stops = [form.querySelector("input"), ...form.querySelectorAll("#suggestions a")];
    const next = stops[stops.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1)];
    next?.focus();
    return true;
  };
  const focusSearch = () => {
    const field = document.querySelector("[data-search]");
    field?.focus();
    field?.select();
    return Boolean(field);
  };
  document.addEventListener("keydown", (event) => {
    if (event.isComposing || document.querySelector("dialog[open]")) return;
    if ((event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && event.key === "k") {
      if (focusSearch()) event.preventDefault();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (walk(event)) event.preventDefault();
      return;
    }
    const typing = event.target.closest("input:not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]");
    if (event.key === "Escape") return leave(typing && event.target);
    if (typing) return;
    let used = true;
    if (goes > Date.now() && places[event.key]) location.href = places[event.key];
    else if (event.key === "g") goes = Date.now() + 1000;
    else if (event.key === "/") used = focusSearch();
    else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "x") used = toggleRow();
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
    put("key", one.key).setAttribute("href", one.href);
    const time = document.createElement("time");
    time.dateTime = one.machine;
    time.title = one.utc;
    time.textContent = one.at;
    put("at", "").append(time);
    for (const name of ["type", "test", "reason", "code", "latency", "body", "retries", "next"]) put(name, one[name]);
    for (const name of ["retries", "next"]) row.querySelector(`[data-f="${name}"]`)?.classList.toggle("none", ["0", "–"].includes(one[name]));
    put("endpoint", one.endpoint)?.setAttribute("href", `${base}/webhooks/${encodeURIComponent(one.endpoint_id)}`);
    put("state", one.state).classList.add(one.tone);
    const box = row.querySelector("input[name=ids]");
    if (box) {
      box.value = one.id;
      box.setAttribute("aria-label", one.label);
    }
  };
  // A delivery that has left the filter by this attempt is updated in its row, and no new row is added for it.
  const show = (batch) => {
    const body = document.getElementById("delivery-rows");
    for (const one of batch.rows) {
      const shown = body.querySelector(`tr[data-id="${CSS.escape(one.id)}"]`);
      if (!one.fits && !shown) continue;
      const row = document.getElementById("tail-row").content.cloneNode(true).querySelector("tr");
      row.dataset.id = one.id;
      write(row, one);
      for (const name of ["open", "at"]) row.classList.toggle(name, Boolean(shown?.classList.contains(name)));
      const box = row.querySelector("input[name=ids]");
      if (box) box.checked = Boolean(shown?.querySelector("input[name=ids]")?.checked);
      if (one.fits) {
        shown?.remove();
        body.prepend(row);
      } else shown.replaceWith(row);
    }
    while (body.rows.length > ROWS_MAX) body.lastElementChild.remove();
    document.querySelector("#results .empty")?.remove();
    document.querySelector("#results .scroll")?.removeAttribute("hidden");
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

  // The link of a portal opens by itself in a frame, whose page the operator allows; in a tab a person opens it.
  const opens = document.querySelector("form[data-opens]");
  if (opens && window.top !== window) opens.requestSubmit();

  rememberZone();
  fold(document);
  addEventListener("hashchange", openNamed);
  openNamed();
  (document.getElementById("faults") ?? document.getElementById("result"))?.focus();
})();
