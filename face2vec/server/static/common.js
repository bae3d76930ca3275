// What all pages share: texts, calls of the API, messages, undo, and selections.

import { agree, agrees, dropAll } from "./kept.js";

const data = JSON.parse(document.getElementById("data").textContent);

agree(data.mark);
addEventListener("pageshow", (event) => { if (event.persisted && !agrees(data.mark)) location.reload(); });

const MESSAGES = 3; // at a time
const SETTLED = 1500; // milliseconds: events come once a second
const PATIENCE = 1500; // milliseconds after which the page says that an edit has to wait
let calls = 0; // changes that this page has asked for, and that are not answered yet

/** Versions of the gallery that this page shows or has made itself. */
const mine = new Set([data.version]);

/** A text in the language of the page; {name} is replaced by a value. */
export function t(key, values = {}) {
  const text = data.texts[`js.${key}`] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

export const number = (value) => value.toLocaleString(data.language);

/** A probability as the command line shows it: never more sure than 99.9 %. */
export function percent(probability) {
  return probability >= 0.9995 ? `> ${decimal(99.9, 1)} %` : `${decimal(100 * probability, 1)} %`;
}

/** A number with a fixed number of decimal places. */
export const decimal = (value, places) =>
  value.toLocaleString(data.language, { minimumFractionDigits: places, maximumFractionDigits: places });

/** An element with properties and children; text is never taken as HTML. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made && key !== "list") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Show a message for a while, with a button if an action is given; its element. */
export function message(text, action) {
  // Many of them would cover what they are about.
  const before = [...document.querySelectorAll(".message")];
  for (const [place, one] of before.entries()) {
    if (one.dataset.text === text || place <= before.length - MESSAGES) one.remove();
  }
  const shown = element("div", { className: "message", "data-text": text }, text);
  if (action) {
    shown.append(element("button", { type: "button", onclick: () => { shown.remove(); action.run(); } }, action.label));
  }
  document.getElementById("messages").append(shown);
  setTimeout(() => shown.remove(), 10000);
  return shown;
}

/** Call the API; the answer as an object. A problem becomes an Error with its words. */
export async function call(method, path, body) {
  const options = { method, headers: {} };
  if (body instanceof FormData) options.body = body;
  else if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  let answer;
  const changes = method !== "GET";
  if (changes) calls += 1;
  const slow = changes && !(body instanceof FormData) && !path.startsWith("/search")
    ? setTimeout(() => message(t("waiting")), PATIENCE) : 0;
  let found;
  try {
    answer = await fetch(`/v1${path}`, options);
    const made = answer.headers.get("face2vec-version");
    if (made) mine.add(made);
    found = await answer.json().catch(() => ({}));
  } catch {
    throw new Error(t("offline"));
  } finally {
    clearTimeout(slow);
    if (changes) calls -= 1;
  }
  if (answer.status === 401) dropAll();
  if (!answer.ok) throw Object.assign(new Error(found.words ?? found.detail ?? answer.statusText), { problem: found });
  return found;
}

export const wrong = (error) => message(t("failed", { detail: error.message }));

let offered = JSON.parse(document.getElementById("undo")?.dataset.edit ?? "null"); // the edit on the buttons that undo

/** Take back the edit on the button, if it is still the last one; what it was, in words. */
export async function takeBack() {
  if (!offered) throw new Error(t("undo_nothing"));
  try {
    const { what, made } = offered;
    document.getElementById("messages").replaceChildren(); // they say what is taken back
    return (await call("POST", `/edits/undo?language=${encodeURIComponent(data.language)}`, { what, made })).words;
  } catch (error) {
    if (error.problem?.type !== "urn:face2vec:problem:other-edit") throw error;
    const { last } = error.problem;
    offer(last);
    throw new Error(last ? t("undo_other", { what: last.words }) : t("undo_nothing"));
  }
}

let editing = false; // until the page is loaded again, so that a double click is one edit
addEventListener("pageshow", () => { editing = false; });

/** Take back the last edit, and load the page again. */
export async function undo() {
  if (editing) return;
  editing = true;
  try {
    sessionStorage.setItem("said", t("undone", { what: await takeBack() }));
    location.reload();
  } catch (error) {
    editing = false;
    wrong(error);
  }
}

/** A function that does nothing while it is still busy with an earlier call. */
export function once(work) {
  let busy = false;
  return async (...values) => {
    if (busy) return;
    busy = true;
    try {
      await work(...values);
    } finally {
      busy = false;
    }
  };
}

/** Say on all buttons that undo what they would undo now. */
export async function showUndo() {
  if (!document.getElementById("undo")) return;
  const [last] = (await call("GET", `/edits?limit=1&language=${encodeURIComponent(data.language)}`)).edits;
  offer(last);
}

/** Say on all buttons that undo which edit they would undo. */
function offer(last) {
  offered = last ?? null;
  const words = last ? t("undo_what", { what: last.words }) : t("undo_nothing");
  for (const button of document.querySelectorAll("#undo, #back")) {
    button.disabled = !last;
    button.title = words;
    button.querySelector("bdi").textContent = words;
  }
}

/** Do an edit, load the page again and offer to undo it. */
export async function edit(work, next) {
  if (editing) return;
  editing = true;
  try {
    await work();
    sessionStorage.setItem("edited", "1");
    if (next) location.assign(next);
    else location.reload();
  } catch (error) {
    editing = false;
    wrong(error);
  }
}

let taken = null; // the message that somebody has the name

/** Name a person who has the name `was`, if that is known; if somebody has the name, offer to merge the two. */
export async function rename(person, name, was) {
  taken?.remove();
  try {
    await call("PATCH", `/people/${person}`, { name: name || null, ...(was === undefined ? {} : { was: was || null }) });
    return true;
  } catch (error) {
    const { code, values } = error.problem ?? {};
    if (code !== "name-taken" && code !== "name-alike") { wrong(error); return false; }
    taken = message(code === "name-taken" ? t("same_name", { name }) : error.message, {
      label: t("merge_with", { name }),
      run: () => edit(
        () => call("POST", `/people/${values.person}/merge`, { people: [person], keep_name: true }),
        location.pathname === `/people/${person}` ? `/people/${values.person}` : undefined,
      ),
    });
    return false;
  }
}

/** Keep buttons enabled while something is selected; a function that gives the selected numbers. */
export function selection(buttons, least = 1) {
  const picks = () => [...document.querySelectorAll(".pick:checked")].map((pick) => Number(pick.value));
  const show = () => {
    const count = picks().length;
    for (const button of buttons) if (button) button.disabled = count < least;
    const told = document.getElementById("picked");
    if (told) told.textContent = count ? t("picked", { count: number(count) }) : "";
  };
  let last = null;
  document.addEventListener("click", (event) => {
    if (!event.target.matches?.(".pick")) return;
    const all = [...document.querySelectorAll(".pick")];
    const here = all.indexOf(event.target);
    if (event.shiftKey && last !== null) {
      for (const pick of all.slice(Math.min(last, here), Math.max(last, here) + 1)) pick.checked = event.target.checked;
    }
    last = here;
    show();
  });
  show();
  return picks;
}

document.getElementById("undo")?.addEventListener("click", undo);
const said = sessionStorage.getItem("said");
if (said) message(said);
if (sessionStorage.getItem("edited")) {
  message(t("done"), { label: t("undo"), run: undo });
  const heading = document.querySelector("main h1"); // the page is new, and what had the focus may be gone
  heading?.setAttribute("tabindex", "-1");
  heading?.focus({ preventScroll: true });
}
sessionStorage.removeItem("said");
sessionStorage.removeItem("edited");

// Times are shown as the clock of the reader has them, the zone in the title.
for (const time of document.querySelectorAll("time[datetime]")) {
  const when = new Date(time.dateTime);
  time.textContent = when.toLocaleString(data.language, { dateStyle: "medium", timeStyle: "short" });
  time.title = when.toLocaleString(data.language, { dateStyle: "full", timeStyle: "full" });
}

// Events of the service. A window that is not seen does not listen, because a browser allows few
// connections; when it is seen again it is told what has changed.
const listeners = {};
const LOST = 3000; // milliseconds without the service after which the page says so
const lost = document.getElementById("lost");
let source = null;
let missed = 0;

/** Say that the service does not answer, or that it does not know this window any more. */
async function sayLost() {
  missed = 0;
  if (!source || source.readyState === EventSource.OPEN) return;
  const answer = await fetch("/v1/edits?limit=1").catch(() => null);
  if (!source || source.readyState === EventSource.OPEN) return; // it is there again meanwhile
  lost.hidden = answer !== null && answer.status !== 401;
  if (answer?.status === 401) dropAll();
  if (!lost.hidden) lost.textContent = t(answer?.status === 401 ? "signed_out" : "lost");
  if (source?.readyState !== EventSource.CLOSED) return; // the browser tries again
  if (!answer) missed = setTimeout(sayLost, LOST);
  else if (answer.status !== 401) {
    source = null; // refused while the service was being started
    attend();
  }
}

/** Call a function with the data of each event of a kind. */
export function listen(kind, run) {
  (listeners[kind] ??= []).push(run);
  source?.addEventListener(kind, (event) => run(JSON.parse(event.data)));
}

function attend() {
  if (document.hidden) {
    source?.close();
    source = null;
  } else if (!source) {
    source = new EventSource("/v1/events");
    source.addEventListener("open", () => { clearTimeout(missed); missed = 0; lost.hidden = true; });
    source.addEventListener("error", () => { missed ||= setTimeout(sayLost, LOST); });
    for (const [kind, runs] of Object.entries(listeners)) {
      for (const run of runs) source.addEventListener(kind, (event) => run(JSON.parse(event.data)));
    }
  }
}

/** Called when somebody else has changed the gallery; a page that can, shows it at once. */
export const elsewhere = { run: () => { document.getElementById("changed").hidden = false; } };
let latest = data.version;
let waiting = 0;
function check() {
  waiting = 0;
  if (calls) waiting = setTimeout(check, SETTLED); // an edit of this page is on its way
  else if (!mine.has(latest)) {
    mine.add(latest);
    elsewhere.run();
  }
}
listen("gallery", (version) => {
  if (version !== latest) showUndo().catch(() => {}); // the next event asks again
  latest = version;
  if (!mine.has(version)) waiting ||= setTimeout(check, SETTLED);
});
const LEAVING = 10000; // milliseconds in which another page is expected; a download never brings one
let leaving = 0;
addEventListener("beforeunload", () => {
  clearTimeout(leaving);
  leaving = setTimeout(() => { leaving = 0; }, LEAVING);
});
/** Load the page anew, without somebody who was forgotten elsewhere. */
function leaveOut(forgotten) {
  // This page may be forgetting them, or be on its way to another, which loading it anew would stop.
  if (calls || leaving) setTimeout(() => leaveOut(forgotten), SETTLED);
  else if (forgotten !== data.forgotten) location.reload();
}
listen("forgotten", leaveOut);
document.getElementById("reload").addEventListener("click", () => location.reload());
document.addEventListener("visibilitychange", attend);
addEventListener("pagehide", () => source?.close());
addEventListener("pageshow", attend);
attend();
