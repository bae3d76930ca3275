// People: names, and selections to merge or hide.

import { call, edit, message, once, rename, selection, showUndo, t } from "./common.js";

const merge = document.getElementById("merge");
const hide = document.getElementById("hide");
const picked = selection([hide]);
const picks = selection([merge], 2);

merge?.addEventListener("click", () => {
  const [first, ...others] = picks();
  if (!others.length) { message(t("select_two")); return; }
  edit(() => call("POST", `/people/${first}/merge`, { people: others }));
});
hide?.addEventListener("click", () =>
  edit(() => call("POST", "/people/hide", { people: picked(), hidden: hide.dataset.hidden === "true" })));
for (const form of document.querySelectorAll(".naming")) {
  const input = form.querySelector("input");
  let before = input.value;
  const store = once(async () => {
    const name = input.value.trim();
    if (name === before) return;
    if (!(await rename(Number(form.dataset.person), name, before))) return;
    before = name;
    form.closest(".card").querySelector("a bdi").textContent = name || t("unnamed");
    const next = form.closest(".card").nextElementSibling?.querySelector(".naming input");
    (next ?? input).focus();
    message(t("done"));
    showUndo();
  });
  form.addEventListener("submit", (event) => { event.preventDefault(); store(); });
}
