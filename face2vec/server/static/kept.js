// Searches with photos of the reader. They are kept in the session storage of this tab, so that they
// are there again after "Back" and after a reload, and nowhere else. They go with the tab, with the
// token, and when somebody is forgotten.

const KEY = "searches";
const MARK = "searches-mark";
const MOST = 5;

function all() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
  } catch {
    return [];
  }
}

/** Keep a search, an object with an id; the oldest ones go if there is no room. */
export function keep(search) {
  const rest = all().filter((one) => one.id !== search.id).slice(1 - MOST);
  for (;;) {
    try {
      sessionStorage.setItem(KEY, JSON.stringify([...rest, search]));
      return;
    } catch {
      if (!rest.length) { drop(search.id); return; } // it is too large
      rest.shift();
    }
  }
}

/** The search with an id, or undefined. */
export const kept = (id) => all().find((one) => one.id === id);

export function drop(id) {
  const rest = all().filter((one) => one.id !== id);
  if (rest.length) sessionStorage.setItem(KEY, JSON.stringify(rest));
  else sessionStorage.removeItem(KEY);
}

export function dropAll() {
  sessionStorage.removeItem(KEY);
  sessionStorage.removeItem(MARK);
}

/** Whether searches were kept under a mark, which is another with another token, and after somebody was forgotten. */
export const agrees = (mark) => sessionStorage.getItem(MARK) === mark;

/** Drop what was kept under another mark. */
export function agree(mark) {
  if (!agrees(mark)) dropAll();
  sessionStorage.setItem(MARK, mark);
}
