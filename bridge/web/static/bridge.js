// What pages do besides htmx: hidden tabs are quiet, logs stay at their end, times go on. Everything works without.
"use strict";

(() => {
  const aheadSeconds = Date.now() / 1000 - Number(document.body.dataset.now);
  const now = () => Date.now() / 1000 - aheadSeconds;
  const isAtEnd = (log) => log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  const toEnd = (log) => { log.scrollTop = log.scrollHeight; };
  let openBefore = new Map();

  // A poll is one of an element that was told to be asked for again; a form is not.
  const isPoll = (element) => !element.matches("form");

  document.addEventListener("htmx:beforeRequest", (event) => {
    const element = event.detail.elt;
    if (!isPoll(element)) return;
    const folded = element.closest("details:not([open])");
    if (document.hidden || (folded && element.matches(".follower"))) event.preventDefault();
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) htmx.trigger(document.body, "shown");
  });

  // The address of a list holds only what filters.
  document.addEventListener("htmx:configRequest", (event) => {
    if (!event.detail.elt.matches(".filters")) return;
    const given = event.detail.formData;
    for (const [name, value] of [...given.entries()]) if (value === "") given.delete(name);
  });

  document.addEventListener("htmx:beforeSwap", (event) => {
    const target = event.detail.target;
    const log = target.closest(".log");
    if (log) log.dataset.follows = String(isAtEnd(log) || !log.dataset.follows);
    openBefore = new Map([...target.querySelectorAll("details[id]")].map((one) => [one.id, one.open]));
  });
  document.addEventListener("htmx:afterSwap", () => {
    for (const log of document.querySelectorAll('.log[data-follows="true"]')) toEnd(log);
    for (const [id, open] of openBefore) {
      const details = document.getElementById(id);
      if (details) details.open = open;
    }
    tick();
  });

  const offline = document.getElementById("offline");
  const tellOffline = () => { offline.hidden = false; };
  document.addEventListener("htmx:sendError", tellOffline);
  document.addEventListener("htmx:timeout", tellOffline);
  document.addEventListener("htmx:responseError", (event) => {
    // The session has ended: the page itself asks who looks, and comes back.
    if (event.detail.xhr.status === 401) location.reload();
    // It was swept away: the page itself says so.
    else if (event.detail.xhr.status === 404 && event.detail.elt.id === "run") location.reload();
    else tellOffline();
  });
  document.addEventListener("htmx:afterRequest", (event) => { if (event.detail.successful) offline.hidden = true; });

  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-to-end]");
    const log = link && document.getElementById(link.dataset.toEnd)?.closest(".log");
    if (!log) return;
    event.preventDefault();
    toEnd(log);
    log.focus({ preventScroll: true });
  });

  // As bridge/web/wording.py says them.
  const took = (seconds) => {
    const whole = Math.max(0, Math.floor(seconds));
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
    if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
    return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
  };
  const ago = (seconds, at) => {
    if (seconds < 10) return "just now";
    if (seconds < 60) return `${Math.floor(seconds)} s ago`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
    if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
    const days = Math.floor(seconds / 86400);
    return days <= 7 ? `${days} d ago` : at.slice(0, 10);
  };
  const put = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  const tick = () => {
    if (document.hidden) return;
    for (const one of document.querySelectorAll("[data-since]")) put(one, took(now() - Number(one.dataset.since)));
    for (const one of document.querySelectorAll("time[data-ago]")) {
      put(one, ago(now() - Date.parse(one.dateTime) / 1000, one.dateTime));
    }
  };
  setInterval(tick, 1000);

  // What went wrong stands at the end.
  for (const log of document.querySelectorAll(".log-pane .log, .log:has(.follower)")) toEnd(log);
  document.addEventListener("toggle", (event) => {
    const log = event.target.open && event.target.querySelector(":scope > .log");
    if (log) toEnd(log);
  }, true);
})();
