// Jobs: start them, and follow them by server-sent events.

import { call, element, elsewhere, listen, number, once, t, wrong } from "./common.js";

const SHOWN = 5; // missing photos that are named
const runs = document.getElementById("runs");

function time(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** What became of the photos of an index job; the numbers add up to all photos. */
function sum(made) {
  const parts = [t("result_added", { count: number(made.added) }), t("result_unchanged", { count: number(made.unchanged) })];
  const others = { [made.copies === 1 ? "copy" : "copies"]: made.copies, forgotten: made.forgotten, unreadable: made.unreadable.length };
  for (const [key, count] of Object.entries(others)) {
    if (count) parts.push(t(`result_${key}`, { count: number(count) }));
  }
  return parts;
}

/** What became of an upgrade: without all photos, the gallery keeps its model. */
function upgraded(made) {
  if (made.switched) return t("result_upgraded", { faces: number(made.faces) });
  const count = made.missing.length;
  const photos = made.missing.slice(0, SHOWN).map((one) => one.photo).join(", ") + (count > SHOWN ? " …" : "");
  return t(count === 1 ? "result_not_upgraded_one" : "result_not_upgraded", { count: number(count), photos });
}

function words(job) {
  if (job.waits_for) return t("job_waits", { detail: job.words });
  if (job.state === "running" && job.total) {
    const done = t("job_progress", { done: number(job.done), total: number(job.total), rate: number(Math.round(job.rate)) });
    return job.seconds_left === null ? done : `${done}, ${t("job_left", { time: time(job.seconds_left) })}`;
  }
  if (job.state === "running" && job.done) return t("job_count", { done: number(job.done), rate: number(Math.round(job.rate)) });
  if (job.error) return job.words;
  const made = job.result;
  const parts = [];
  if (job.kind === "index" && "photos" in made) {
    parts.push(t("result_index", { photos: number(made.photos), parts: sum(made).join(", "), faces: number(made.faces) }));
  }
  if (job.kind === "upgrade" && "switched" in made) parts.push(upgraded(made));
  const people = job.kind === "people" ? made : made.grouped;
  if (people && "people" in people) parts.push(t("result_people", { people: number(people.people), new: number(people.new) }));
  return parts.join(" · ");
}

const shown = new Map(); // what is on the page of each job, so that the focus stays where it is

function made(job) {
  const parts = {
    title: element("strong"), state: element("span"), bar: element("progress", { ariaLabel: t(`kind.${job.kind}`) }),
    words: element("div"),
    cancel: element("button", { type: "button", onclick: () => call("POST", `/jobs/${job.id}/cancel`).catch(wrong) }, t("cancel")),
  };
  parts.box = element("div", { className: "run" }, parts.title, parts.state, parts.bar, parts.words, parts.cancel);
  shown.set(job.id, parts);
  return parts;
}

let settled = null; // numbers of jobs that had ended when they were shown last

/** Show the facts about the gallery as they are now. */
async function showFacts(ended) {
  const answer = await fetch("/jobs").catch(() => null);
  if (!answer?.ok) return;
  const now = new DOMParser().parseFromString(await answer.text(), "text/html");
  const missing = !document.getElementById("facts") && now.getElementById("facts");
  if (missing && ended) location.reload(); // the first job has made the gallery
  for (const id of ["facts", "models"]) {
    const [old, made] = [document.getElementById(id), now.getElementById(id)];
    if (old && made && old.textContent !== made.textContent) old.replaceChildren(...made.children);
  }
}

function show(jobs) {
  const now = new Set(jobs.filter((job) => job.ended !== null).map((job) => job.id));
  // A short job may have ended before it is shown for the first time.
  const before = settled ?? (document.getElementById("facts") ? now : new Set());
  if ([...now].some((id) => !before.has(id))) showFacts(true);
  settled = now;
  runs.querySelector("p")?.remove();
  if (!jobs.length) runs.append(element("p", {}, t("no_jobs")));
  for (const [id, parts] of shown) {
    if (!jobs.some((job) => job.id === id)) { parts.box.remove(); shown.delete(id); }
  }
  for (const job of [...jobs].reverse()) {
    const parts = shown.get(job.id) ?? made(job);
    if (!parts.box.isConnected) runs.prepend(parts.box);
    parts.box.dataset.state = job.state;
    parts.title.textContent = `${t(`kind.${job.kind}`)} ${job.title}`;
    parts.state.textContent = ` · ${t(`state.${job.state}`)} · ${time(job.seconds)}`;
    parts.words.textContent = words(job);
    parts.bar.hidden = !(job.state === "running" && job.total);
    if (!parts.bar.hidden) { parts.bar.max = job.total; parts.bar.value = job.done; }
    parts.cancel.hidden = job.state !== "running" && job.state !== "waiting";
  }
}

let failed = null; // the message that a job could not be started

const start = once(async (body) => {
  try {
    await call("POST", "/jobs", body);
    failed?.remove();
  } catch (error) {
    failed?.remove();
    failed = wrong(error);
  }
});
elsewhere.run = () => showFacts(false); // jobs, too, change the gallery
document.getElementById("index")?.addEventListener("submit", (event) => {
  event.preventDefault();
  start({ kind: "index", folders: [event.target.folder.value.trim()], again: event.target.again.checked });
});
document.getElementById("group")?.addEventListener("submit", (event) => {
  event.preventDefault();
  start({ kind: "people", again: event.target.again.checked });
});
document.getElementById("rebuild")?.addEventListener("click", () => start({ kind: "rebuild" }));
document.getElementById("upgrade")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const model = event.target.model.value;
  if (confirm(t("confirm_upgrade", { model }))) start({ kind: "upgrade", model });
});
// Folders below the roots, to choose one from.

const picker = document.getElementById("picker");
if (picker) {
  const field = document.querySelector("#index input[name=folder]");
  const here = document.getElementById("picker-here");
  const list = document.getElementById("picker-list");
  const choose = document.getElementById("picker-choose");
  let now = null;

  const row = (name, path) => element("li", {}, element("button", { type: "button", className: "row", onclick: () => open(path) }, element("bdi", {}, name)));

  async function open(path) {
    try {
      now = await call("GET", path === null ? "/folders" : `/folders?path=${encodeURIComponent(path)}`);
    } catch (error) {
      if (path !== null) { open(null); return; } // what is in the field may be no folder
      wrong(error);
      return;
    }
    here.textContent = now.path === null ? t("folders_roots") : `${now.path} · ${t("folders_photos", { count: number(now.photos) })}`;
    choose.disabled = now.path === null;
    const up = now.path === null ? [] : [row(t("folders_up"), now.parent)];
    list.replaceChildren(...up, ...now.folders.map((one) => row(one.name, one.path)));
    if (now.more) list.append(element("li", { className: "small" }, t("folders_more")));
    if (now.path !== null && !now.folders.length) list.append(element("li", { className: "small" }, t("folders_none")));
    (list.querySelector("button") ?? choose).focus();
  }

  document.getElementById("browse").addEventListener("click", () => {
    picker.showModal();
    open(field.value.trim() || null);
  });
  choose.addEventListener("click", () => { field.value = now.path; picker.close(); field.focus(); });
  document.getElementById("picker-cancel").addEventListener("click", () => picker.close());
  picker.addEventListener("keydown", (event) => {
    const rows = [...list.querySelectorAll("button")];
    const at = rows.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (to !== undefined && rows[to]) { event.preventDefault(); rows[to].focus(); }
    if (event.key === "Backspace" && now?.path !== null) { event.preventDefault(); open(now.parent); }
  });
}
listen("jobs", show);
