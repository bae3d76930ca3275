// One photo: name its faces, or take one or the photo away.

import { call, edit, t, wrong } from "./common.js";

for (const form of document.querySelectorAll(".naming-face")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const name = form.querySelector("input").value.trim();
    if (name) edit(() => call("POST", "/people", { faces: [Number(form.dataset.face)], name }));
  });
}
for (const button of document.querySelectorAll(".ignore")) {
  button.addEventListener("click", () => edit(() => call("DELETE", `/faces/${button.dataset.face}`)));
}
for (const box of document.querySelectorAll(".box[data-face]")) {
  box.addEventListener("click", () => location.assign(`/?face=${box.dataset.face}`));
}
document.getElementById("remove")?.addEventListener("click", async (event) => {
  if (!confirm(t("confirm_remove"))) return;
  try {
    await call("DELETE", `/photos/${event.target.dataset.photo}`);
    location.assign("/photos");
  } catch (error) {
    wrong(error);
  }
});
