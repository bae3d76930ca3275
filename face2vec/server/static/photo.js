// One photo: name its faces, mark one that was missed, or take one or the photo away.

import { call, edit, number, once, rename, t, wrong } from "./common.js";

for (const form of document.querySelectorAll(".naming-face")) {
  // A person without a name gets it, with all faces. Else it is said of this face alone.
  const store = once(async () => {
    const name = form.querySelector("input").value.trim();
    const person = Number(form.dataset.person);
    if (!name) return;
    if (!person) await edit(() => call("POST", "/people", { faces: [Number(form.dataset.face)], name }));
    else if (await rename(person, name)) await edit(async () => {});
  });
  form.addEventListener("submit", (event) => { event.preventDefault(); store(); });
}
for (const button of document.querySelectorAll(".ignore")) {
  button.addEventListener("click", () => edit(() => call("DELETE", `/faces/${button.dataset.face}`)));
}
for (const form of document.querySelectorAll(".naming-mark")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const name = form.querySelector("input").value.trim() || null;
    edit(() => call("PATCH", `/marks/${form.dataset.mark}`, { name }));
  });
}
for (const button of document.querySelectorAll(".unmark")) {
  button.addEventListener("click", () => edit(() => call("DELETE", `/marks/${button.dataset.mark}`)));
}
for (const box of document.querySelectorAll(".box[data-face]")) {
  box.addEventListener("click", () => location.assign(`/?face=${box.dataset.face}`));
}
document.getElementById("remove")?.addEventListener("click", async (event) => {
  const copies = Number(event.target.dataset.copies);
  const question = ["confirm_remove", "confirm_remove_copy"][copies] ?? "confirm_remove_copies";
  if (!confirm(t(question, { count: number(copies) }))) return;
  try {
    await call("DELETE", `/photos/${event.target.dataset.photo}`);
    location.assign("/photos");
  } catch (error) {
    wrong(error);
  }
});

// A box drawn by mouse, touch or keyboard around a face that was missed.

const draw = document.getElementById("draw");
if (draw) {
  const drawn = document.getElementById("drawn");
  const start = document.getElementById("mark");
  const add = document.getElementById("mark-add");
  const cancel = document.getElementById("mark-cancel");
  const help = document.getElementById("mark-help");
  const state = document.getElementById("mark-state");
  const { width, height } = draw.viewBox.baseVal;
  const least = 8;
  let box = null; // left, top, width, height in pixels of the photo
  let drag = null;

  const within = (value, low, high) => Math.min(Math.max(value, low), high);
  const place = (event) => {
    const shown = draw.getBoundingClientRect();
    return [
      within((event.clientX - shown.left) / shown.width, 0, 1) * width,
      within((event.clientY - shown.top) / shown.height, 0, 1) * height,
    ];
  };

  function show(made) {
    box = made;
    for (const [name, value] of Object.entries({ x: box[0], y: box[1], width: box[2], height: box[3] })) {
      drawn.setAttribute(name, value);
    }
    drawn.removeAttribute("hidden");
    add.disabled = Math.min(box[2], box[3]) < least;
    state.textContent = t("mark_place", {
      left: Math.round(box[0]), top: Math.round(box[1]), width: Math.round(box[2]), height: Math.round(box[3]),
    });
  }

  function turn(on) {
    for (const one of [add, cancel, help, state]) one.hidden = !on;
    draw.toggleAttribute("hidden", !on);
    start.hidden = on;
    start.setAttribute("aria-expanded", String(on));
    if (on) {
      const side = Math.min(width, height) / 4;
      show([(width - side) / 2, (height - side) / 2, side, side]);
      drawn.focus({ preventScroll: true });
    } else {
      start.focus();
    }
  }

  async function store() {
    if (add.disabled) return;
    add.disabled = true;
    const [left, top] = box;
    edit(async () => {
      try {
        const made = await call("POST", `/photos/${draw.dataset.photo}/faces`, {
          box: [left, top, Math.min(left + box[2], width), Math.min(top + box[3], height)],
        });
        sessionStorage.setItem("said", t(made.face === null ? "marked_without" : "marked"));
      } finally {
        add.disabled = false;
      }
    });
  }

  start.addEventListener("click", () => turn(true));
  cancel.addEventListener("click", () => turn(false));
  add.addEventListener("click", store);
  draw.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    draw.setPointerCapture(event.pointerId);
    const [x, y] = place(event);
    drag = event.target === drawn ? { dx: x - box[0], dy: y - box[1] } : { x, y };
    drawn.focus({ preventScroll: true });
  });
  draw.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const [x, y] = place(event);
    if ("dx" in drag) {
      show([within(x - drag.dx, 0, width - box[2]), within(y - drag.dy, 0, height - box[3]), box[2], box[3]]);
    } else {
      show([Math.min(x, drag.x), Math.min(y, drag.y), Math.abs(x - drag.x), Math.abs(y - drag.y)]);
    }
  });
  for (const end of ["pointerup", "pointercancel"]) draw.addEventListener(end, () => { drag = null; });
  drawn.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter") { event.preventDefault(); store(); return; }
    if (event.key === "Escape") { event.preventDefault(); turn(false); return; }
    const step = Math.max(Math.min(width, height) / 50, 1);
    const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    if (!by) return;
    event.preventDefault();
    const [left, top, wide, high] = box;
    if (event.shiftKey) {
      show([left, top, within(wide + by[0], least, width - left), within(high + by[1], least, height - top)]);
    } else {
      show([within(left + by[0], 0, width - wide), within(top + by[1], 0, height - high), wide, high]);
    }
  });
}
