// Review: one question at a time.

import { call, element, elsewhere, message, number, percent, showUndo, t, takeBack, wrong } from "./common.js";

const places = { first: document.getElementById("first"), second: document.getElementById("second") };
const pair = document.getElementById("pair");
const answers = document.getElementById("answers");
const left = document.getElementById("left");
const skipped = new Set(JSON.parse(sessionStorage.getItem("skipped") ?? "[]"));

let queue = [];
let answered = 0;
let busy = false;
let wanted = false; // to take back the answer that is on its way

const key = (one) => [one.first, one.second].map((side) => `${side.person ?? ""}:${side.shown.join(",")}`).join("|");

async function load() {
  try {
    const all = (await call("GET", "/suggestions?limit=200")).suggestions;
    queue = all.filter((one) => !skipped.has(key(one)));
    if (!queue.length && all.length) { skipped.clear(); queue = all; } // begin again with what was skipped
    show();
    await showUndo();
  } catch (error) {
    wrong(error);
  }
}

function side(place, one) {
  const name = one.name ?? (one.person ? t("person", { id: one.person }) : t("nobody"));
  const count = one.count === 1 ? t("one") : t("faces", { count: number(one.count) });
  const link = one.person ? element("a", { href: `/people/${one.person}` }, element("bdi", {}, name)) : name;
  place.replaceChildren(...one.shown.map((face) =>
    element("img", { src: `/v1/faces/${face}/thumbnail?side=192`, alt: name, width: 192, height: 192 })),
    element("figcaption", {}, link, ` · ${count}`));
}

function show() {
  const one = queue[0];
  pair.hidden = answers.hidden = !one;
  const done = answered ? ` · ${t("review_answered", { count: number(answered) })}` : "";
  left.textContent = one ? (queue.length === 1 ? t("review_one") : t("review_left", { count: number(queue.length) })) + done : t("review_done") + done;
  if (!one) return;
  side(places.first, one.first);
  side(places.second, one.second);
  document.getElementById("odds").textContent = t("review_probability", { percent: percent(one.probability) });
}

async function answer(same) {
  if (busy || !queue.length) return;
  busy = true;
  const one = queue[0];
  try {
    await call("POST", "/suggestions/answer", { first: one.first, second: one.second, same });
    answered += 1;
    const joins = one.first.person === null || one.second.person === null;
    message(t(same ? (joins ? "review_effect_join" : "review_effect_merge") : "review_effect_apart"));
    await load();
  } catch (error) {
    wrong(error);
    await load();
  }
  ready();
}

function skip() {
  if (!queue.length) return;
  skipped.add(key(queue.shift()));
  sessionStorage.setItem("skipped", JSON.stringify([...skipped]));
  if (queue.length) show();
  else load();
}

async function back() {
  if (wanted) return;
  if (busy) { wanted = true; return; } // an answer is on its way; it is taken back after that
  busy = true;
  try {
    const what = await takeBack();
    answered = Math.max(answered - 1, 0);
    message(t("undone", { what }));
    await load();
  } catch (error) {
    wrong(error);
  }
  busy = false;
}

/** Do what was asked for meanwhile. */
function ready() {
  busy = false;
  if (!wanted) return;
  wanted = false;
  back();
}

const buttons = { yes: () => answer(true), no: () => answer(false), skip, back };
for (const [id, run] of Object.entries(buttons)) document.getElementById(id)?.addEventListener("click", run);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea, a")) return;
  const run = { y: buttons.yes, n: buttons.no, u: back, " ": skip }[event.key.toLowerCase()];
  if (!run || !document.getElementById("yes") || (event.key === " " && event.target.matches("button"))) return;
  event.preventDefault();
  run();
});
elsewhere.run = () => { if (!busy) load(); };
load();
