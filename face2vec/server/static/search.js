// Search: photos are encoded by the service, faces are chosen here, and embeddings are searched.

import { call, decimal, element, message, number, percent, t, wrong } from "./common.js";
import { drop as dropKept, keep, kept } from "./kept.js";

const query = document.getElementById("query");
const queries = document.getElementById("queries");
const found = document.getElementById("found");
const list = document.getElementById("matches");
const state = document.getElementById("state");
const tools = document.getElementById("tools");
const drop = document.getElementById("drop");
const file = document.getElementById("file");
const SVG = "http://www.w3.org/2000/svg";

let photos = []; // as /v1/encode gives them, with the number of the chosen face
let extra = []; // faces of the gallery that are searched with
let without = [];
let asked = 0; // searches, of which only the last one is shown
let begun = 0; // queries, of which only the last one is shown
let here = history.state;

/** Begin another search, on a page of its own in the history if there was one. */
function begin() {
  if (photos.length || extra.length) history.pushState(null, "", "/");
  clear();
}

function clear() {
  photos = []; extra = []; without = [];
  asked += 1;
  begun += 1;
  queries.replaceChildren();
  list.replaceChildren();
  query.hidden = found.hidden = tools.hidden = true;
  drop.classList.remove("compact");
  state.textContent = "";
}

async function encode(files) {
  begin();
  const mine = begun;
  query.hidden = found.hidden = false;
  drop.classList.add("compact");
  state.textContent = t("searching");
  for (const one of files) {
    const form = new FormData();
    form.append("photo", one);
    form.append("preview", "true");
    try {
      const photo = await call("POST", "/encode", form);
      if (mine !== begun) return;
      show(photo);
    } catch (error) {
      if (mine !== begun) return;
      queries.append(element("p", { className: "note" }, error.message));
    }
  }
  found.hidden = !photos.length;
  await search();
}

/** Keep in the address what is searched for, if that are faces of the gallery alone; photos in this tab. */
function remember() {
  const before = history.state?.search;
  if (photos.length) {
    const id = before ?? `${Date.now()}-${Math.random()}`;
    history.replaceState({ search: id }, "", "/");
    keep({ id, photos, extra, without });
  } else {
    if (before) dropKept(before);
    history.replaceState(null, "", extra.length ? `/?${extra.map((face) => `face=${face}`).join("&")}` : "/");
  }
  here = history.state;
}

/** Show what the address and this tab know of the search on this page of the history. */
async function restore() {
  clear();
  here = history.state;
  const known = kept(history.state?.search);
  if (known) {
    ({ extra, without } = known);
    for (const photo of known.photos) show(photo);
  } else {
    extra = new URLSearchParams(location.search).getAll("face").map(Number).filter((id) => id > 0);
  }
  if (photos.length || extra.length) await search();
  const seen = JSON.parse(sessionStorage.getItem("seen") ?? "null");
  if (seen?.place === place()) scrollTo(0, seen.top);
}

const place = () => history.state?.search ?? location.search;
addEventListener("pagehide", () => sessionStorage.setItem("seen", JSON.stringify({ place: place(), top: scrollY })));
addEventListener("popstate", () => {
  if (location.hash && !history.state) history.replaceState(here, ""); // the link to the content
  else restore();
});
// The browser would replace this search by an empty one, because both have one address.
document.querySelector("header a[aria-current]").addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  begin();
  scrollTo(0, 0);
});
document.getElementById("clear").addEventListener("click", () => {
  clear();
  remember();
  file.focus();
});

const around = document.getElementById("around");

/** Show the photo of a match, with a box around the face. */
async function lookAround(match, label) {
  const photo = await call("GET", `/photos/${match.photo}`);
  const [left, top, right, bottom] = match.box;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${photo.width} ${photo.height}`);
  svg.setAttribute("aria-hidden", "true");
  const box = document.createElementNS(SVG, "g");
  box.setAttribute("class", "box");
  const rect = document.createElementNS(SVG, "rect");
  for (const [key, value] of Object.entries({ x: left, y: top, width: right - left, height: bottom - top })) rect.setAttribute(key, value);
  box.append(rect);
  svg.append(box);
  const image = element("img", { src: `/v1/photos/${match.photo}/picture?side=1280`, alt: t("photo_of", { name: label }), width: photo.width, height: photo.height });
  const picture = element("div", { className: "picture" }, image, svg);
  image.addEventListener("error", () => picture.replaceChildren(t("no_picture"))); // its file is gone
  document.getElementById("around-title").textContent = label;
  document.getElementById("around-path").textContent = match.path ?? "";
  document.getElementById("around-photo").replaceChildren(picture);
  document.getElementById("around-page").href = `/photos/${match.photo}`;
  around.showModal();
}
document.getElementById("around-close").addEventListener("click", () => around.close());
around.addEventListener("click", (event) => { if (event.target === around) around.close(); }); // beside it

function show(photo) {
  const place = photos.push(photo) - 1;
  const image = element("img", { src: photo.preview, alt: photo.photo });
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${photo.width} ${photo.height}`);
  svg.setAttribute("aria-hidden", "true");
  const choices = element("div", { className: "tools", role: "group", ariaLabel: photo.photo });
  const choose = (wanted) => { photos[place].chosen = wanted; mark(); search(); };
  const mark = () => {
    for (const box of svg.children) box.classList.toggle("chosen", Number(box.dataset.number) === photo.chosen);
    for (const button of choices.children) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.number) === photo.chosen));
      button.classList.toggle("strong", Number(button.dataset.number) === photo.chosen);
    }
  };
  for (const face of photo.faces) {
    const [left, top, right, bottom] = face.box;
    const box = document.createElementNS(SVG, "g");
    box.setAttribute("class", "box");
    box.dataset.number = face.number;
    const rect = document.createElementNS(SVG, "rect");
    for (const [key, value] of Object.entries({ x: left, y: top, width: right - left, height: bottom - top })) rect.setAttribute(key, value);
    const label = document.createElementNS(SVG, "text");
    label.setAttribute("x", left); label.setAttribute("y", Math.max(top - 4, photo.height / 30));
    label.setAttribute("font-size", photo.height / 25);
    label.textContent = face.number;
    box.append(rect, label);
    box.addEventListener("click", () => choose(face.number));
    svg.append(box);
    choices.append(element("button", { type: "button", "data-number": face.number, onclick: () => choose(face.number) },
      t("face_number", { number: face.number })));
  }
  const words = photo.faces.length === 0 ? t("no_face")
    : photo.faces.length === 1 ? t("one_face") : t("faces_found", { count: number(photo.faces.length) });
  queries.append(element("div", { className: "query" }, element("div", { className: "picture" }, image, svg),
    element("div", {}, element("p", {}, words), photo.faces.length > 1 ? choices : null)));
  mark();
}

async function search() {
  const chosen = photos.flatMap((photo) => photo.faces.filter((face) => face.number === photo.chosen)
    .map((face) => ({ embedding: face.embedding })));
  const sides = [...chosen, ...extra.map((face) => ({ face }))];
  const mine = ++asked;
  remember();
  query.hidden = !sides.length && !queries.children.length;
  drop.classList.toggle("compact", !query.hidden);
  document.getElementById("extra").replaceChildren(...extra.map((face) => element("li", {},
    element("img", { src: `/v1/faces/${face}/thumbnail?side=192`, alt: t("face_number", { number: face }), width: 112, height: 112 }))));
  if (!sides.length) {
    state.textContent = photos.length ? t("no_face") : "";
    list.replaceChildren();
    return;
  }
  found.hidden = false;
  state.textContent = t("searching");
  try {
    const answer = await call("POST", "/search", {
      queries: sides, one_person: sides.length > 1, k: 24, without,
      query_sha256: photos.length === 1 ? photos[0].sha256 : null,
    });
    if (mine !== asked) return; // a later search is under way
    if (photos.some((photo) => photo.model !== answer.model)) {
      // Embeddings of another model cannot be compared with those of the gallery.
      clear();
      remember();
      found.hidden = false;
      state.textContent = t("other_model");
      return;
    }
    const matches = answer.results[0].matches;
    state.textContent = matches.length ? "" : t("no_match");
    list.replaceChildren(...matches.map(card));
    tools.hidden = !matches.length;
  } catch (error) {
    if (mine !== asked) return;
    state.textContent = error.message;
    list.replaceChildren();
    tools.hidden = true;
  }
}

function likely(probability) {
  if (probability === null) return null;
  const words = probability >= 0.99 ? "almost" : probability >= 0.75 ? "likely" : probability >= 0.25 ? "maybe" : "unlikely";
  return element("span", { className: `likely${probability >= 0.75 ? " good" : ""}`, title: t("probability", { percent: percent(probability) }) },
    `${t(words)} (${percent(probability)})`);
}

/** A time in a video, such as 1:02:03.5. */
function clock(seconds) {
  const whole = Math.floor(seconds * 10 + 1e-6) / 10;
  const rest = (whole % 60).toFixed(1).padStart(4, "0");
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}:${rest}` : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
}

function card(match) {
  const label = match.name ?? (match.person ? t("person", { id: match.person }) : t("nobody"));
  const who = match.person
    ? element("a", { href: `/people/${match.person}` }, element("bdi", {}, label)) : element("span", { className: "small" }, label);
  return element("li", { "data-face": match.face },
    element("input", { type: "checkbox", className: "pick", value: match.face, ariaLabel: t("select_match", { rank: match.rank }) }),
    element("a", { href: `/photos/${match.photo}`, title: t("open_photo"), onclick: (event) => {
      if (match.time !== null || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      lookAround(match, label).catch(wrong);
    } },
      element("img", { src: `/v1/faces/${match.face}/thumbnail?side=192`, alt: label, loading: "lazy", width: 144, height: 144 })),
    who, likely(match.probability),
    element("span", { className: "small" }, t("similarity", { value: decimal(match.similarity, 3) })),
    match.reasons.length ? element("span", { className: "small" }, t("outside", { reasons: match.reasons.map((one) => one.words).join("; ") })) : null,
    match.query_photo ? element("strong", { className: "small" }, t("query_photo")) : null,
    match.time === null ? null : element("span", { className: "small" }, t("time", { time: clock(match.time) })),
    match.path ? element("bdi", { className: "small path" }, match.path.split(/[\\/]/).pop()) : null,
    element("button", { type: "button", className: "quiet", onclick: () => { begin(); extra = [match.face]; search(); } }, t("search_this")),
    element("button", { type: "button", className: "quiet", onclick: () => { without.push(match.face); search(); } }, t("not_this")));
}

tools.append(element("button", { type: "button", onclick: () => {
  const picked = [...list.querySelectorAll(".pick:checked")].map((pick) => Number(pick.value));
  if (!picked.length) { message(t("select_some")); return; }
  extra = [...new Set([...extra, ...picked])];
  search();
} }, t("more_like")));

file.addEventListener("change", () => { if (file.files.length) encode([...file.files]); file.value = ""; });
drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer.files.length) encode([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) encode(files);
});

restore();
