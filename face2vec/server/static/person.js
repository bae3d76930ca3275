// One person: name, corrections of faces, hide, and forget.

import { call, edit, once, rename, selection, t, wrong } from "./common.js";

const form = document.getElementById("rename");
const move = document.getElementById("move");
const buttons = [...document.querySelectorAll("[data-do]"), move?.querySelector("button")];
const picked = selection(buttons);
const person = Number(form?.dataset.person);
const input = form?.querySelector("input");
const before = input?.defaultValue;

const store = once(async () => {
  if (await rename(person, input.value.trim(), before)) await edit(async () => {});
});
form?.addEventListener("submit", (event) => { event.preventDefault(); store(); });
document.getElementById("hide")?.addEventListener("click", (event) =>
  edit(() => call("PATCH", `/people/${person}`, { hidden: event.target.dataset.hidden === "true" })));

const actions = {
  split: () => call("POST", `/people/${person}/split`, { faces: picked() }),
  not: () => call("POST", `/people/${person}/not`, { faces: picked() }),
  cover: () => call("PATCH", `/people/${person}`, { cover: picked()[0] }),
  ignore: () => call("POST", "/faces/ignore", { faces: picked() }),
};
for (const button of document.querySelectorAll("[data-do]")) {
  button.addEventListener("click", () => {
    if (button.dataset.do === "search") {
      location.assign(`/?${picked().map((face) => `face=${face}`).join("&")}`);
      return;
    }
    // A person without a name is gone with the last of the faces.
    const all = !document.querySelector(".pager") && picked().length === document.querySelectorAll(".pick").length;
    const goes = all && button.dataset.do !== "cover" && !form.querySelector("input").defaultValue;
    edit(actions[button.dataset.do], goes ? "/people" : undefined);
  });
}
move?.addEventListener("submit", (event) => {
  event.preventDefault();
  const name = move.querySelector("input").value.trim();
  if (name) edit(() => call("POST", "/people", { faces: picked(), name }));
});

const sure = document.getElementById("sure");
document.getElementById("forget")?.addEventListener("click", () => sure.showModal());
sure?.addEventListener("close", async () => {
  if (sure.returnValue !== "forget") return;
  try {
    const done = await call("DELETE", `/people/${person}`);
    sessionStorage.setItem("said", done.left.length ? done.left.join("; ") : t("forgotten", { faces: done.faces, photos: done.photos }));
    location.assign("/people");
  } catch (error) {
    wrong(error);
  }
});
