/* What the page does beyond links and forms: it stays current, finds text, takes keys, and guards its buttons against accidents.
   Without this script everything can still be read and decided. It makes no markup of its own from anybody's text. */

"use strict";

(() => {
  const KEY = "path-secret"; // in localStorage, which is for this origin only: not for other ports, unlike a cookie
  const PATH_SECRET = /^[A-Za-z0-9_-]{16,64}$/;
  const ARMED_AFTER_MS = 500; // nobody has read anything sooner; what comes before was meant for something else
  const AGAIN_MS = 3000;
  const MAX_FOUND = 2000;
  const YES = "button.approve";

  const { pathSecret, unpaired } = document.body.dataset;
  const main = () => document.querySelector("main");
  const button = (event) => event.target instanceof Element && event.target.closest(YES);

  // --- pairing ----------------------------------------------------------------------------------------------------

  const kept = localStorage.getItem(KEY);
  if (pathSecret) {
    localStorage.setItem(KEY, pathSecret);
  } else if (unpaired && kept === unpaired) {
    localStorage.removeItem(KEY);
  } else if (kept && PATH_SECRET.test(kept) && !unpaired && !document.querySelector("[role=alert]")) {
    const link = location.pathname.match(/^\/q\/([A-Za-z0-9_-]+)$/);
    if (link) location.replace(`/s/${kept}/follow/${link[1]}`);
    else if (location.pathname === "/") location.replace(`/s/${kept}/`);
  }
  if (!pathSecret) return;

  if (location.search) history.replaceState(null, "", location.pathname); // `?done=` was for this once

  // --- saying things --------------------------------------------------------------------------------------------------

  const say = (text) => {
    document.getElementById("news").textContent = text;
  };
  const connection = (text) => {
    const line = document.getElementById("connection");
    line.textContent = text;
    line.hidden = !text;
  };
  const LOST = "Not connected, so nothing can be decided here. The page pauses when nothing waits, and comes back by itself. " +
    "After a restart it has a new address: follow a new link.";

  // --- guarding "approve" against accidents ---------------------------------------------------------------------------

  let shownAt = 0;
  let isSent = false;
  let isShown = false; // for long enough to be read
  let isGone = false;
  let isLost = false;

  // While nobody is known to listen nothing is sent: a secret could reach another program that has the port by now.
  const lock = () => {
    for (const element of document.querySelectorAll(".decide button, .decide input, .decide textarea")) {
      element.disabled = isGone || isLost || (element.matches(YES) && !isShown);
    }
  };

  const isArmed = () => !document.hidden && performance.now() - shownAt >= ARMED_AFTER_MS;
  // Also when a window that lay over this one goes away: a second click can be lured onto what comes to light.
  const disarm = () => {
    shownAt = performance.now();
  };
  disarm();
  lock();
  const arm = () => {
    if (!isArmed()) return void setTimeout(arm, 50);
    isShown = true;
    lock();
  };
  arm();
  addEventListener("focus", disarm);
  document.addEventListener("visibilitychange", disarm);
  addEventListener("pageshow", (event) => {
    disarm();
    if (event.persisted) location.reload(); // a page from the browser's memory may show what was decided long ago
  });
  document.addEventListener("click", (event) => {
    if (button(event) && !isArmed()) {
      event.preventDefault();
      say("That was too quick to count. Look at it, then press again.");
    }
  }, true);
  document.addEventListener("submit", (event) => {
    const isYes = event.submitter?.matches(YES) ?? false;
    if (isSent || isLost || (isYes && !isArmed())) return event.preventDefault();
    isSent = true; // a double click is one answer
  });

  // --- time left ------------------------------------------------------------------------------------------------------

  const inWords = (seconds) => {
    const hours = Math.floor(seconds / 3600), minutes = Math.floor((seconds % 3600) / 60), rest = hours ? 0 : seconds % 60;
    const words = [[hours, "hour"], [minutes, "minute"], [rest, "second"]].filter(([n]) => n);
    return words.map(([n, unit]) => `${n} ${unit}${n === 1 ? "" : "s"}`).join(" ") || "0 seconds";
  };
  const tick = () => {
    for (const element of document.querySelectorAll("[data-expires]")) {
      const left = Math.max(0, Math.floor(Number(element.dataset.expires) - Date.now() / 1000));
      element.textContent = inWords(left);
    }
  };
  tick();
  setInterval(tick, 1000);

  // --- news of the board ----------------------------------------------------------------------------------------------

  let waiting = null;

  const count = (ids) => {
    document.getElementById("waiting-count").textContent = String(ids.length);
  };

  const refreshQueue = async () => {
    const answer = await fetch(location.pathname, { redirect: "error" });
    if (!answer.ok) return location.reload();
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    const before = main();
    const focused = document.activeElement?.closest("[data-question]")?.dataset.question;
    const scroll = [scrollX, scrollY];
    const done = before.querySelector(".done"); // stays until the person goes on
    before.replaceChildren(...(done ? [done] : []), ...next.querySelector("main").childNodes);
    before.dataset.queue = next.querySelector("main").dataset.queue;
    document.title = next.title;
    if (focused) document.querySelector(`[data-question="${CSS.escape(focused)}"] a`)?.focus({ preventScroll: true });
    scrollTo(...scroll);
    tick();
  };

  const retire = async () => {
    const gone = document.getElementById("gone");
    if (!gone || isGone || isSent) return;
    // Another tab's list can be older than this page; the page itself is asked before anything is taken from the person.
    const { status } = await fetch(location.pathname, { method: "HEAD" });
    if (status !== 410) return;
    gone.textContent = "This question is not waiting any more: it was answered elsewhere, or its time is over. Nothing below can be pressed.";
    gone.hidden = false;
    isGone = true;
    lock();
    document.querySelector(".head .left").hidden = true; // it has no time left, whatever was left
  };

  const onBoard = async (ids) => {
    const isFirst = waiting === null;
    const came = isFirst ? 0 : ids.filter((id) => !waiting.includes(id)).length;
    const isSame = !isFirst && waiting.length === ids.length && came === 0;
    waiting = ids;
    count(ids);
    lose(false);
    const id = main().dataset.question;
    if (id !== undefined) {
      if (!ids.includes(id)) await retire();
    } else if ("queue" in main().dataset) {
      const shown = [...document.querySelectorAll("main [data-question]")].map((element) => element.dataset.question);
      if (!isFirst || shown.length !== ids.length || ids.some((one) => !shown.includes(one))) await refreshQueue();
    }
    if (came) say(came === 1 ? "One more question waits." : `${came} more questions wait.`);
    else if (!isFirst && !isSame && id === undefined) say(ids.length ? `${ids.length} waiting.` : "Nothing is waiting.");
  };

  const lose = (lost) => {
    connection(lost ? LOST : "");
    isLost = lost;
    lock();
  };

  // A browser opens six connections to a server, and each stream takes one for good. So one tab listens, and tells the others.
  const channel = new BroadcastChannel("board");
  const tell = (ids) => {
    onBoard(ids).catch(() => connection("The list could not be loaded."));
  };
  channel.onmessage = ({ data }) => {
    if (data.ask && waiting) channel.postMessage({ waiting });
    else if (data.waiting) tell(data.waiting);
    else if (data.lost) lose(true);
  };
  const listen = () => new Promise(() => {
    const open = () => {
      const stream = new EventSource(`/s/${pathSecret}/events`);
      stream.addEventListener("board", (event) => {
        const ids = JSON.parse(event.data).waiting;
        channel.postMessage({ waiting: ids });
        tell(ids);
      });
      stream.onerror = () => {
        lose(true);
        channel.postMessage({ lost: true });
        stream.close();
        setTimeout(open, AGAIN_MS);
        fetch(`/s/${pathSecret}/`, { method: "HEAD" }).then(
          ({ status }) => status === 404 && location.reload(), // not paired any more, and that page says so
          () => {}, // nobody listens
        );
      };
      addEventListener("pagehide", () => stream.close(), { once: true });
    };
    open();
  });
  channel.postMessage({ ask: true });
  if (navigator.locks) navigator.locks.request("board", listen);
  else listen();

  // --- finding text in long values --------------------------------------------------------------------------------------

  const find = (value, wanted) => {
    const nodes = [];
    const walker = document.createTreeWalker(value, NodeFilter.SHOW_TEXT);
    let text = "";
    while (walker.nextNode()) {
      nodes.push([text.length, walker.currentNode]);
      text += walker.currentNode.data;
    }
    // Some letters change their length in lower case; then positions would be off, and case counts instead.
    const folded = text.toLowerCase().length === text.length && wanted.toLowerCase().length === wanted.length;
    const [hay, needle] = folded ? [text.toLowerCase(), wanted.toLowerCase()] : [text, wanted];
    const spot = (position) => {
      let low = 0, high = nodes.length - 1;
      while (low < high) {
        const middle = Math.ceil((low + high) / 2);
        if (nodes[middle][0] <= position) low = middle;
        else high = middle - 1;
      }
      return [nodes[low][1], position - nodes[low][0]];
    };
    const found = [];
    for (let at = hay.indexOf(needle); at >= 0 && found.length < MAX_FOUND; at = hay.indexOf(needle, at + needle.length)) {
      const range = document.createRange();
      range.setStart(...spot(at));
      const [node, offset] = spot(at + needle.length - 1);
      range.setEnd(node, offset + 1);
      found.push(range);
    }
    return found;
  };

  const paint = (found, now) => {
    if (!("highlights" in CSS)) return;
    CSS.highlights.set("found", new Highlight(...found));
    CSS.highlights.set("found-now", new Highlight(...(now ? [now] : [])));
  };

  for (const search of document.querySelectorAll(".search")) {
    const input = search.querySelector("input"), output = search.querySelector("output");
    const value = document.getElementById(input.getAttribute("aria-controls"));
    let found = [], at = 0;
    const show = () => {
      const now = found[at];
      paint(found, now);
      const more = found.length === MAX_FOUND ? "+" : "";
      output.textContent = !input.value ? "" : found.length ? `${at + 1} of ${found.length}${more}` : "not in it";
      if (!now) return;
      const box = now.getBoundingClientRect(), frame = value.getBoundingClientRect();
      value.scrollTop += box.top - frame.top - frame.height / 3;
    };
    search.hidden = false;
    input.addEventListener("input", () => {
      found = input.value ? find(value, input.value) : [];
      at = 0;
      show();
    });
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      if (found.length) at = (at + (event.shiftKey ? found.length - 1 : 1)) % found.length;
      show();
    });
  }

  // --- keys -----------------------------------------------------------------------------------------------------------

  const step = (by) => {
    const { before, after } = main().dataset;
    const target = by > 0 ? after : before;
    if (main().dataset.question !== undefined) {
      if (target) location.assign(target);
      return;
    }
    const links = [...document.querySelectorAll("main [data-question] h3 a")];
    const at = links.indexOf(document.activeElement);
    links[Math.min(links.length - 1, Math.max(0, at < 0 ? 0 : at + by))]?.focus();
  };

  const press = (choice) => {
    const target = document.querySelector(`.buttons button[value="${choice}"]`);
    if (target && choice === "approve" && (target.disabled || !isArmed())) {
      return say("That was too quick to count. Look at it, then press again.");
    }
    target?.click();
  };

  document.addEventListener("keydown", (event) => {
    if (!event.isTrusted || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    const target = event.target instanceof Element ? event.target : document.body;
    if (target.closest("input, textarea, select, [contenteditable]")) return;
    const isArrow = event.key === "ArrowDown" || event.key === "ArrowUp";
    // The arrows scroll what one reads; they walk the list only where there is nothing else to do with them.
    if (isArrow && main().dataset.question !== undefined) return;
    const action = {
      j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
      a: () => press("approve"), d: () => press("deny"),
      "?": () => {
        const keys = document.getElementById("keys");
        keys.open = !keys.open;
        if (keys.open) keys.querySelector("summary").focus();
      },
    }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
})();
