/* What the page does beyond links and forms: it stays up to date, searches long values, handles keys, and guards its
   buttons against clicks and keys that were meant for something else. Without this script, everything can still be read and decided. The script never
   turns untrusted text into markup. */

"use strict";

(() => {
  const KEY = "path-secret"; // in localStorage, which belongs to this origin alone: other ports can't read it
  const PATH_SECRET = /^[A-Za-z0-9_-]{16,64}$/;
  const ARMED_AFTER_MS = 1500; // longer than the pauses between the words of a sentence that somebody types
  const LOOK_MS = 200;
  const MOVED_PX = 8; // more than a hand shakes
  const SPOT = "spot"; // in sessionStorage: where this tab was clicked last
  const RECONNECT_MS = 3000;
  const MAX_FOUND = 2000;
  const YES = "button.approve";

  const { pathSecret, unpaired } = document.body.dataset;
  const main = () => document.querySelector("main");
  const yesButton = (event) => event.target instanceof Element && event.target.closest(YES);

  // --- pairing ---------------------------------------------------------------------------------------------------

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

  if (location.search) history.replaceState(null, "", location.pathname); // show the notice of `?done=` only once

  // --- messages ------------------------------------------------------------------------------------------------------

  const announce = (text) => {
    document.getElementById("news").textContent = text;
  };
  const showConnection = (text) => {
    const line = document.getElementById("connection");
    line.textContent = text;
    line.hidden = !text;
  };
  const LOST = "Not connected: nothing can be decided here. The page pauses while no question waits, and reconnects " +
    "by itself. After a restart it has a new address, so follow a new link.";
  const TOO_QUICK = "That was too quick and did not count. Read the question, then press again.";
  const UNMOVED = "That did not count: this button appeared where you clicked before. Move the pointer, then press again.";
  const TAKES_CHORD = "That did not count. With the keyboard, approve with Ctrl+Shift+Enter.";

  // --- guarding "approve" against accidents --------------------------------------------------------------------------

  // Whoever types or clicks may mean another window: silo opens a browser by itself, and a question can come up at any
  // time. So a yes is a click, or a chord that nobody types in a sentence. It counts only after this page has been in
  // front for a while, in which no other key was pressed and nothing on it moved.

  let quietSince = 0;
  let arming = 0;
  let isSent = false;
  let isEnded = false;
  let isLost = false;
  let agreed = null; // the button of the yes that passed all checks
  let press = null; // how the mouse or finger that may become a click went down
  let lastKey = -Infinity;

  const isInFront = () => !document.hidden && document.hasFocus();
  const isArmed = () => isInFront() && performance.now() - quietSince >= ARMED_AFTER_MS;

  // Without a connection nothing is sent: another program may have the port by now, and would get a typed secret.
  const updateControls = () => {
    for (const element of document.querySelectorAll(".decide button, .decide input, .decide textarea")) {
      element.disabled = isEnded || isLost;
      // Not `disabled`, which would take the focus away from a button that somebody has reached with the keyboard.
      if (element.matches(YES)) element.setAttribute("aria-disabled", String(!isArmed()));
    }
  };
  const arm = () => {
    if (isArmed()) return updateControls();
    updateControls();
    if (!isInFront()) quietSince = performance.now();
    // Looked at again and again, because a page that is loading can get the focus without an event.
    arming = setTimeout(arm, isInFront() ? quietSince + ARMED_AFTER_MS - performance.now() : LOOK_MS);
  };
  const disarm = () => {
    quietSince = performance.now();
    clearTimeout(arming);
    arm();
  };
  const refuse = (why) => {
    disarm();
    announce(why);
    document.getElementById("how")?.classList.add("refused");
  };
  disarm();
  for (const name of ["focus", "blur"]) addEventListener(name, disarm);
  document.addEventListener("visibilitychange", disarm);
  addEventListener("pageshow", (event) => {
    disarm();
    if (event.persisted) location.reload(); // a page from the browser's cache may show a question that has ended
  });
  // A button that moves may come to lie under the pointer.
  const sizes = new ResizeObserver(disarm);
  for (const element of [document.body, document.querySelector(".bar")]) sizes.observe(element);

  // The spot of the last click on the page before this one. The same spot there is no decision on what came up here.
  let spot = JSON.parse(sessionStorage.getItem(SPOT));
  const isAtSpot = ({ clientX, clientY }) => spot && Math.hypot(clientX - spot[0], clientY - spot[1]) < MOVED_PX;
  sessionStorage.removeItem(SPOT);
  document.addEventListener("pointermove", (event) => {
    if (!isAtSpot(event)) spot = null;
  }, true);
  document.addEventListener("pointerdown", (event) => {
    const isMouse = event.pointerType === "mouse"; // a finger does not rest anywhere between two taps
    press = { button: yesButton(event), isArmed: isArmed(), isUnmoved: isMouse && Boolean(isAtSpot(event)) };
  }, true);
  document.addEventListener("click", (event) => {
    if (event.isTrusted && event.detail) sessionStorage.setItem(SPOT, JSON.stringify([event.clientX, event.clientY]));
    const button = yesButton(event);
    const { button: pressed, isArmed: wasArmed, isUnmoved } = press ?? {};
    press = null;
    if (!button) return;
    // Screen readers press a button without a pointer (`detail` is 0), and so do Enter and the space bar.
    const isQuiet = event.detail ? pressed === button && wasArmed : isArmed();
    if (event.isTrusted && isQuiet && !isUnmoved) {
      agreed = button;
      return;
    }
    event.preventDefault();
    if (!event.isTrusted) return;
    const isKey = !event.detail && performance.now() - lastKey < ARMED_AFTER_MS;
    refuse(isUnmoved ? UNMOVED : isKey ? TAKES_CHORD : TOO_QUICK);
  }, true);
  document.addEventListener("submit", (event) => {
    const { submitter, target } = event;
    const isYes = submitter === null ? target.matches(".decide") : submitter.matches(YES);
    const isAgreed = submitter !== null && submitter === agreed;
    agreed = null;
    if (isSent || isLost || (isYes && !isAgreed)) return event.preventDefault();
    isSent = true; // a double click sends one answer
  });

  // --- time left -----------------------------------------------------------------------------------------------------

  const inWords = (seconds) => {
    const hours = Math.floor(seconds / 3600);
    const minutes = Math.floor((seconds % 3600) / 60);
    const rest = hours ? 0 : seconds % 60;
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

  // --- changes of the board ------------------------------------------------------------------------------------------

  let waiting = null; // the ids of the waiting questions, once they are known

  const showCount = (ids) => {
    document.getElementById("waiting-count").textContent = String(ids.length);
  };

  const refreshQueue = async () => {
    const response = await fetch(location.pathname, { redirect: "error" });
    if (!response.ok) return location.reload();
    const next = new DOMParser().parseFromString(await response.text(), "text/html");
    const before = main();
    const focused = document.activeElement?.closest("[data-question]")?.dataset.question;
    const scroll = [scrollX, scrollY];
    const done = before.querySelector(".done"); // keep this notice until the person leaves the page
    before.replaceChildren(...(done ? [done] : []), ...next.querySelector("main").childNodes);
    before.dataset.queue = next.querySelector("main").dataset.queue;
    document.title = next.title;
    if (focused) document.querySelector(`[data-question="${CSS.escape(focused)}"] a`)?.focus({ preventScroll: true });
    scrollTo(...scroll);
    tick();
  };

  const endQuestion = async () => {
    const notice = document.getElementById("gone");
    if (!notice || isEnded || isSent) return;
    // Another tab's list can be older than this page, so ask the server before disabling anything.
    const { status } = await fetch(location.pathname, { method: "HEAD" });
    if (status !== 410) return;
    notice.textContent = "This question no longer waits: it was answered elsewhere, or it expired. " +
      "The buttons below are disabled.";
    notice.hidden = false;
    isEnded = true;
    updateControls();
    document.querySelector(".head .left").hidden = true; // the time left means nothing now
  };

  const onBoard = async (ids) => {
    const isFirst = waiting === null;
    // A question may come between the server's rendering of the page and its first event; that one is news as well.
    const rendered = Number(document.getElementById("waiting-count").textContent);
    const came = isFirst ? Math.max(0, ids.length - rendered) : ids.filter((id) => !waiting.includes(id)).length;
    const isSame = !isFirst && waiting.length === ids.length && came === 0;
    waiting = ids;
    showCount(ids);
    setLost(false);
    const id = main().dataset.question;
    if (id !== undefined) {
      if (!ids.includes(id)) await endQuestion();
    } else if ("queue" in main().dataset) {
      const shown = [...document.querySelectorAll("main [data-question]")].map((element) => element.dataset.question);
      if (!isFirst || shown.length !== ids.length || ids.some((one) => !shown.includes(one))) await refreshQueue();
    }
    if (came) announce(came === 1 ? "One more question waits." : `${came} more questions wait.`);
    else if (!isFirst && !isSame && id === undefined) {
      announce(ids.length ? `${ids.length} waiting.` : "Nothing is waiting.");
    }
  };

  const setLost = (lost) => {
    showConnection(lost ? LOST : "");
    isLost = lost;
    updateControls();
  };

  // A browser opens only six connections to a server, and each stream occupies one. So one tab listens and tells the
  // others.
  const channel = new BroadcastChannel("board");
  const update = (ids) => {
    onBoard(ids).catch(() => showConnection("The list could not be loaded."));
  };
  channel.onmessage = ({ data }) => {
    if (data.ask && waiting) channel.postMessage({ waiting });
    else if (data.waiting) update(data.waiting);
    else if (data.lost) setLost(true);
  };
  const listen = () => new Promise(() => {
    const open = () => {
      const stream = new EventSource(`/s/${pathSecret}/events`);
      stream.addEventListener("board", (event) => {
        const ids = JSON.parse(event.data).waiting;
        channel.postMessage({ waiting: ids });
        update(ids);
      });
      stream.onerror = () => {
        setLost(true);
        channel.postMessage({ lost: true });
        stream.close();
        setTimeout(open, RECONNECT_MS);
        fetch(`/s/${pathSecret}/`, { method: "HEAD" }).then(
          ({ status }) => status === 404 && location.reload(), // no longer paired, and the reloaded page says so
          () => {}, // the server doesn't listen
        );
      };
      addEventListener("pagehide", () => stream.close(), { once: true });
    };
    open();
  });
  channel.postMessage({ ask: true });
  if (navigator.locks) navigator.locks.request("board", listen);
  else listen();

  // --- finding text in long values --------------------------------------------------------------------------------

  const find = (value, wanted) => {
    const nodes = [];
    const walker = document.createTreeWalker(value, NodeFilter.SHOW_TEXT);
    let text = "";
    while (walker.nextNode()) {
      nodes.push([text.length, walker.currentNode]);
      text += walker.currentNode.data;
    }
    // In lower case, some letters have another length, and positions would be wrong. Then the search respects case.
    const ignoresCase = text.toLowerCase().length === text.length && wanted.toLowerCase().length === wanted.length;
    const [hay, needle] = ignoresCase ? [text.toLowerCase(), wanted.toLowerCase()] : [text, wanted];
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
    let at = hay.indexOf(needle);
    for (; at >= 0 && found.length < MAX_FOUND; at = hay.indexOf(needle, at + needle.length)) {
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
      output.textContent = !input.value ? "" : found.length ? `${at + 1} of ${found.length}${more}` : "not found";
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

  // --- keys ----------------------------------------------------------------------------------------------------------

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

  const agree = () => {
    const { activeElement } = document;
    const button = activeElement?.matches(YES) ? activeElement : document.querySelector(YES);
    if (!button || button.disabled) return;
    if (!isArmed()) return refuse(TOO_QUICK);
    agreed = button;
    button.form.requestSubmit(button);
    agreed = null; // if a field is not valid, nothing was submitted
  };

  const isChord = ({ key, ctrlKey, shiftKey, altKey, metaKey }) =>
    key === "Enter" && ctrlKey && shiftKey && !altKey && !metaKey;

  document.addEventListener("keydown", (event) => {
    if (!event.isTrusted || ["Control", "Shift", "Alt", "Meta"].includes(event.key)) return;
    lastKey = performance.now();
    const target = event.target instanceof Element ? event.target : document.body;
    const field = target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]");
    if (isChord(event) && (!field || field.matches(".secret"))) {
      event.preventDefault();
      if (!event.repeat) agree();
      return;
    }
    if (field) {
      // In a form, Enter presses the first button, which is a yes.
      if (event.key === "Enter" && field.matches(".secret")) {
        event.preventDefault();
        refuse(TAKES_CHORD);
      }
      return; // what is typed into a field was meant for this page
    }
    const wasArmed = isArmed();
    disarm();
    if (event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    const isArrow = event.key === "ArrowDown" || event.key === "ArrowUp";
    // On a question the arrow keys scroll; only in the list do they move from question to question.
    if (isArrow && main().dataset.question !== undefined) return;
    const action = {
      j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
      d: () => {
        const target = document.querySelector('.buttons button[value="deny"]');
        if (target && !wasArmed) refuse(TOO_QUICK);
        else target?.click();
      },
      "?": () => {
        const keys = document.getElementById("keys");
        keys.open = !keys.open;
        if (keys.open) keys.querySelector("summary").focus();
      },
    }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }, true);

  for (const element of document.querySelectorAll("[data-scripted]")) element.hidden = false;
})();
