// Jobs: start them, and follow them by server-sent events.

import { call, element, number, t, wrong } from "./common.js";

const runs = document.getElementById("runs");

function time(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

function words(job) {
  if (job.state === "running" && job.total) {
    const done = t("job_progress", { done: number(job.done), total: number(job.total), rate: number(Math.round(job.rate)) });
    return job.seconds_left === null ? done : `${done}, ${t("job_left", { time: time(job.seconds_left) })}`;
  }
  if (job.state === "running" && job.done) return t("job_count", { done: number(job.done), rate: number(Math.round(job.rate)) });
  if (job.error) return job.error;
  const made = job.result;
  const parts = [];
  if (job.kind === "index" && "photos" in made) {
    parts.push(t("result_index", { photos: number(made.photos), added: number(made.added), faces: number(made.faces), unreadable: number(made.unreadable.length) }));
  }
  const people = job.kind === "people" ? made : made.grouped;
  if (people && "people" in people) parts.push(t("result_people", { people: number(people.people), new: number(people.new) }));
  return parts.join(" · ");
}

function show(jobs) {
  if (!jobs.length) { runs.replaceChildren(element("p", {}, t("no_jobs"))); return; }
  runs.replaceChildren(...jobs.map((job) => {
    const going = job.state === "running" || job.state === "waiting";
    const bar = job.state === "running" && job.total
      ? element("progress", { max: job.total, value: job.done, ariaLabel: t(`kind.${job.kind}`) }) : null;
    return element("div", { className: "run", "data-state": job.state },
      element("strong", {}, `${t(`kind.${job.kind}`)} ${job.title}`), ` · ${t(`state.${job.state}`)} · ${time(job.seconds)}`,
      bar, element("div", {}, words(job)),
      going ? element("button", { type: "button", onclick: () => call("POST", `/jobs/${job.id}/cancel`).catch(wrong) }, t("cancel")) : null);
  }));
}

const start = (body) => call("POST", "/jobs", body).catch(wrong);
document.getElementById("index")?.addEventListener("submit", (event) => {
  event.preventDefault();
  start({ kind: "index", folders: [event.target.folder.value.trim()] });
});
document.getElementById("group")?.addEventListener("submit", (event) => {
  event.preventDefault();
  start({ kind: "people", again: event.target.again.checked });
});
document.getElementById("rebuild")?.addEventListener("click", () => start({ kind: "rebuild" }));
document.getElementById("upgrade")?.addEventListener("submit", (event) => {
  event.preventDefault();
  start({ kind: "upgrade", model: event.target.model.value });
});
new EventSource("/v1/events").addEventListener("jobs", (event) => show(JSON.parse(event.data)));
