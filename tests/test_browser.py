"""The pages in a real browser, at two widths and in both colour schemes.

Run by ``scripts/test --browser``. ``FACE2VEC_SCREENSHOTS=FOLDER`` keeps pictures of all pages;
``FACE2VEC_WRITE_DOCS=1`` writes those that the documentation shows.
"""

from __future__ import annotations

import base64
import io
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import pytest
from PIL import Image
from serving import READ_TOKEN, Served, add_missed, copied, drawn_gallery, served

from face2vec import Face2Vec, samples
from face2vec.gallery.gallery import Gallery

pytestmark = pytest.mark.browser

DOCS = Path(__file__).parent.parent / "docs" / "images" / "pages"
PAGES = (
    "/",
    "/people",
    "/people/{ada}",
    "/review",
    "/photos",
    "/photos/1",
    "/jobs",
    "/edits",
    "/docs",
)
SIZES = {"desktop": (1280, 900, "light"), "phone": (390, 844, "dark")}
PATIENCE = 60_000  # milliseconds, for a machine that is busy


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_gallery(tmp_path_factory.mktemp("service"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "there is no Chromium; run scripts/test --browser"
    options = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


@pytest.fixture
def service(drawn: Path, tmp_path: Path) -> Iterator[Served]:
    """A service over a copy of the gallery."""
    with served(copied(drawn, tmp_path), roots=(drawn / "photos",)) as one:
        yield one


Opening = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, service: Served) -> Iterator[Opening]:
    """Opens the service in a window that may reach nothing else, and keeps what goes wrong."""
    wrong: list[str] = []
    contexts = []

    def note(text: str, refused: int) -> None:
        if not (refused and f"status of {refused}" in text):  # logged by the browser
            wrong.append(text)

    def open_(
        size: str = "desktop", path: str = "/", token: str | None = None, refused: int = 0
    ) -> Any:
        width, height, scheme = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            has_touch=size == "phone",
            reduced_motion="reduce",
            locale="en-GB",
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        own = urlsplit(service.address).netloc

        def check(route: Any) -> None:
            address = urlsplit(route.request.url)
            if address.scheme in ("http", "https") and address.netloc != own:
                wrong.append(f"a request left the machine: {route.request.url}")
                route.abort()
            else:
                route.continue_()

        context.route("**/*", check)
        page = context.new_page()
        page.on("console", lambda one: note(one.text, refused) if one.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        first = service.address if token is None else f"{service.base}/?token={token}"
        page.goto(first)
        if path != "/":
            page.goto(service.base + path)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert wrong == []


def keep(page: Any, name: str, docs: bool = False) -> None:
    """Keep a picture of a page, if pictures are wanted."""
    folder = os.environ.get("FACE2VEC_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
    if docs and os.environ.get("FACE2VEC_WRITE_DOCS"):
        DOCS.mkdir(parents=True, exist_ok=True)
        picture = Image.open(io.BytesIO(page.screenshot()))
        picture.save(DOCS / f"{name}.webp", quality=80)


def until(page: Any, holds: Callable[[], object]) -> None:
    """Wait until something holds; the policy of the pages forbids to ask inside of them."""
    for _ in range(PATIENCE // 50):
        if holds():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it did not come to hold")


def settled(page: Any) -> None:
    """Wait until all pictures in view are shown."""
    seen = "(i) => i.complete || i.getBoundingClientRect().top > innerHeight"
    until(page, lambda: page.evaluate(f"() => [...document.images].every({seen})"))


def person(service: Served, name: str) -> dict[str, Any]:
    (found,) = service.get("/v1/people", params={"name": name})["people"]
    return dict(service.get(f"/v1/people/{found['id']}"))


def find_with(page: Any, *photos: Path) -> None:
    """Choose photos on the search page and wait for the matches."""
    page.set_input_files("#file", [str(photo) for photo in photos])
    page.wait_for_selector("#matches li")


@pytest.mark.parametrize("size", SIZES)
def test_pages_fit_and_have_no_barriers(opened: Opening, service: Served, size: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = opened(size)
    ada = person(service, "Ada")["id"]
    for path in PAGES:
        page.goto(service.base + path.format(ada=ada))
        if path == "/review":
            page.wait_for_selector("#pair img")
        if path == "/jobs":  # what the documentation shows
            page.get_by_label("Folder", exact=True).fill("/home/ada/photos")
            page.get_by_label("Folder", exact=True).blur()
        settled(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0], path
        found = Axe().run(page).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found] == [], path
        name = path.format(ada="person").strip("/").replace("/", "-") or "search"
        shown = size == "desktop" and name in ("people", "review", "photos", "jobs")
        keep(page, f"{name}-{size}" if not shown else name, docs=shown)


@pytest.mark.parametrize("size", SIZES)
def test_search_shows_boxes_and_another_face_can_be_chosen(
    opened: Opening, service: Served, size: str
) -> None:
    page = opened(size)
    find_with(page, service.photo("groups/0.jpg"))
    settled(page)
    keep(page, "search" if size == "desktop" else f"search-{size}", docs=size == "desktop")
    boxes = page.locator("svg .box")
    assert boxes.count() > 1
    chosen = page.locator("svg .box.chosen").get_attribute("data-number")
    other = next(str(n) for n in range(1, boxes.count() + 1) if str(n) != chosen)
    before = page.locator("#matches li").first.get_attribute("data-face")
    with page.expect_response("**/v1/search"):
        page.locator(f"svg .box[data-number='{other}'] rect").click()
    first = page.locator("#matches li").first
    until(page, lambda: first.get_attribute("data-face") != before)
    assert page.locator("svg .box.chosen").get_attribute("data-number") == other
    button = page.get_by_role("button", name=f"Face {other}", exact=True)
    assert button.get_attribute("aria-pressed") == "true"


def test_search_tells_the_query_photo_and_says_how_sure(opened: Opening, service: Served) -> None:
    page = opened()
    find_with(page, service.photo("person-000/0.jpg"))
    first = page.locator("#matches li").first
    assert "This is the photo you searched with" in first.inner_text()
    assert "Ada" in first.inner_text()
    assert "almost certainly the same person (> 99.9 %)" in first.inner_text()
    (found,) = service.post(
        "/v1/search/photo",
        files={"photo": service.photo("person-000/0.jpg").read_bytes()},
        data={"k": "24"},
    )["results"]
    shown = [int(one.get_attribute("data-face")) for one in page.locator("#matches li").all()]
    assert shown == [match["face"] for match in found["matches"]]


def test_search_takes_dropped_and_pasted_photos(opened: Opening, service: Served) -> None:
    page = opened()
    data = base64.b64encode(service.photo("person-001/0.jpg").read_bytes()).decode()
    make = """(data) => {
        const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], "bob.jpg", {type: "image/jpeg"}));
        return transfer;
    }"""
    for target, event, init in (
        ("#drop", "drop", "dataTransfer"),
        ("body", "paste", "clipboardData"),
    ):
        page.goto(service.base)
        transfer = page.evaluate_handle(make, data)
        page.evaluate(
            """([target, event, init, transfer]) => {
                const made = event === "drop"
                    ? new DragEvent(event, {[init]: transfer, bubbles: true, cancelable: true})
                    : new ClipboardEvent(event, {[init]: transfer, bubbles: true});
                document.querySelector(target).dispatchEvent(made);
            }""",
            [target, event, init, transfer],
        )
        page.wait_for_selector("#matches li")
        assert "Bob" in page.locator("#matches li").first.inner_text()


def test_search_with_several_photos_and_without_a_match(opened: Opening, service: Served) -> None:
    page = opened()
    find_with(page, service.photo("person-000/0.jpg"), service.photo("person-000/1.jpg"))
    assert page.locator("#queries img").count() == 2
    matches = page.locator("#matches li")
    unwanted = matches.nth(1).get_attribute("data-face")
    with page.expect_response("**/v1/search"):
        matches.nth(1).get_by_role("button", name="Not this one").click()
    page.wait_for_selector(f"#matches li[data-face='{unwanted}']", state="detached")
    picked = matches.nth(2).get_attribute("data-face")
    matches.nth(2).get_by_role("checkbox").check()
    with page.expect_request("**/v1/search") as asked:
        page.get_by_role("button", name="Search with selected too").click()
    sent = asked.value.post_data_json
    assert sent["one_person"] is True
    assert [one.get("face") for one in sent["queries"]] == [None, None, int(picked)]
    assert sent["without"] == [int(unwanted)]


def test_people_are_named_with_the_keyboard_alone(opened: Opening, service: Served) -> None:
    page = opened(path="/people")
    unnamed = [one for one in service.get("/v1/people")["people"] if one["name"] is None][:2]
    page.locator(f".naming[data-person='{unnamed[0]['id']}'] input").focus()
    page.keyboard.type("Eve")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Done.")
    page.keyboard.type("Mallory")  # the next field has the focus
    page.keyboard.press("Enter")
    until(page, lambda: "Mallory" in page.locator("#undo").inner_text())
    names = {one["id"]: one["name"] for one in service.get("/v1/people")["people"]}
    assert [names[one["id"]] for one in unnamed] == ["Eve", "Mallory"]
    until(page, lambda: page.locator(".message", has_text="Done.").count() == 1)  # not one for each


def test_first_tab_reaches_the_content(opened: Opening) -> None:
    page = opened(path="/people")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"


def test_merge_of_selected_people_is_undone(opened: Opening, service: Served) -> None:
    page = opened(path="/people")
    before = service.get("/v1/people")
    unnamed = [one for one in before["people"] if one["name"] is None][:2]
    assert page.locator("#merge").is_disabled()
    for one in unnamed:
        page.locator(f".pick[value='{one['id']}']").check()
    with page.expect_navigation():
        page.locator("#merge").click()
    merged = service.get(f"/v1/people/{unnamed[0]['id']}")
    assert merged["faces"] == sum(one["faces"] for one in unnamed)
    assert page.evaluate("document.activeElement.tagName") == "H1"
    with page.expect_navigation():
        page.locator(".message").get_by_role("button", name="Undo").click()
    page.wait_for_selector("text=Undone: merged")
    assert service.get("/v1/people") == before


def test_naming_two_people_alike_offers_to_merge_them(opened: Opening, service: Served) -> None:
    ada = person(service, "Ada")
    unnamed = next(one for one in service.get("/v1/people")["people"] if one["name"] is None)
    page = opened(path="/people", refused=422)
    page.locator(f".naming[data-person='{unnamed['id']}'] input").fill("Ada")
    page.keyboard.press("Enter")
    with page.expect_navigation():
        page.get_by_role("button", name="They are one person").click()
    assert person(service, "Ada")["faces"] == ada["faces"] + unnamed["faces"]
    before = len(service.get("/v1/edits")["edits"])
    with page.expect_navigation():
        page.locator("#undo").click()
    assert len(service.get("/v1/edits")["edits"]) == before - 1
    assert person(service, "Ada")["faces"] == ada["faces"]
    assert service.get(f"/v1/people/{unnamed['id']}")["faces"] == unnamed["faces"]


def test_offer_to_merge_goes_when_the_name_is_another(opened: Opening, service: Served) -> None:
    unnamed = next(one for one in service.get("/v1/people")["people"] if one["name"] is None)
    page = opened(path="/people", refused=422)
    field = page.locator(f".naming[data-person='{unnamed['id']}'] input")
    field.fill("Ada")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="They are one person").wait_for()
    field.fill("Cleo")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="They are one person").wait_for(state="detached")
    until(page, lambda: service.get(f"/v1/people/{unnamed['id']}")["name"] == "Cleo")
    service.post("/v1/edits/undo")
    assert service.get(f"/v1/people/{unnamed['id']}")["name"] is None


def test_hidden_people_are_shown_again(opened: Opening, service: Served) -> None:
    page = opened("phone", "/people")
    ada = person(service, "Ada")["id"]
    page.locator(f".pick[value='{ada}']").check()
    with page.expect_navigation():
        page.locator("#hide").tap()
    assert page.locator(f".card[data-person='{ada}']").count() == 0
    page.get_by_role("link", name="Hidden people (1)").tap()
    page.locator(f".pick[value='{ada}']").check()
    with page.expect_navigation():
        page.locator("#hide").tap()
    assert not service.get(f"/v1/people/{ada}")["hidden"]


def test_hiding_several_people_is_undone_at_once(opened: Opening, service: Served) -> None:
    page = opened(path="/people")
    before = service.get("/v1/people")
    some = [one["id"] for one in before["people"][-3:]]
    for one in some:
        page.locator(f".pick[value='{one}']").check()
    assert page.locator("#picked").inner_text() == "3 selected"
    with page.expect_navigation():
        page.locator("#hide").click()
    assert page.locator("#picked").inner_text() == ""
    assert page.locator("#undo").inner_text() == "Undo: hid 3 people"
    with page.expect_navigation():
        page.get_by_role("link", name="Hidden people (3)").click()
    with page.expect_navigation():
        page.locator("#undo").click()
    page.wait_for_selector("text=Undone: hid 3 people")
    assert service.get("/v1/people") == before


def test_faces_of_a_person_are_corrected(opened: Opening, service: Served) -> None:
    ada, bob = person(service, "Ada"), person(service, "Bob")
    page = opened(path=f"/people/{ada['id']}")

    def do(faces: list[int], click: Callable[[], None]) -> None:
        for face in faces:
            page.locator(f".pick[value='{face}']").check()
        with page.expect_navigation():
            click()

    first, second, third, *_ = ada["face_ids"]
    do([second], page.get_by_role("button", name="Show on the card").click)
    assert person(service, "Ada")["cover"] == second
    do([first], page.get_by_role("button", name="Not this person").click)
    assert service.get(f"/v1/faces/{first}")["person"] is None
    page.locator("#move input").fill("Bob")
    do([third], page.get_by_role("button", name="Move", exact=True).click)
    assert service.get(f"/v1/faces/{third}")["person"] == bob["id"]
    do([second], page.get_by_role("button", name="Split off as a new person").click)
    assert service.get(f"/v1/faces/{second}")["person"] not in (None, ada["id"])
    page.goto(f"{service.base}/edits")
    assert page.locator("tbody tr").count() >= 4
    for _ in range(4):
        with page.expect_navigation():
            page.locator("#undo").click()
    assert person(service, "Ada")["face_ids"] == ada["face_ids"]


@pytest.mark.parametrize("size", SIZES)
def test_undo_says_beforehand_what_it_will_undo(
    opened: Opening, service: Served, size: str
) -> None:
    page = opened(size, "/review")
    page.wait_for_selector("#pair img")
    assert page.locator("#undo").inner_text() == "Undo: named 6 faces as 2 people"
    before = page.locator("#left").inner_text()
    page.keyboard.press("n")
    until(page, lambda: page.locator("#left").inner_text() != before)
    until(page, lambda: "are different people" in page.locator("#back").inner_text())
    assert page.locator("#undo").inner_text() == page.locator("#back").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    page.keyboard.press("u")
    until(page, lambda: page.locator("#back").inner_text() == "Undo: named 6 faces as 2 people")
    for _ in range(3):
        if page.locator("#undo").is_enabled():
            with page.expect_navigation():
                page.locator("#undo").click()
    assert page.locator("#undo").is_disabled()
    assert page.locator("#undo").get_attribute("title") == "There is nothing to undo"


def test_name_given_in_another_window_is_not_overwritten(opened: Opening, service: Served) -> None:
    unnamed = next(one for one in service.get("/v1/people")["people"] if one["name"] is None)
    path, field = f"/people/{unnamed['id']}", "#rename input"
    first, second = opened(path=path), opened(path=path, refused=422)
    first.locator(field).fill("Grace")
    first.keyboard.press("Enter")
    first.wait_for_selector(".message:has-text('Done.')")
    second.locator(field).fill("Edsger")
    second.keyboard.press("Enter")
    second.wait_for_selector("text=it is “Grace” now. Nothing was changed.")
    assert service.get(f"/v1/people/{unnamed['id']}")["name"] == "Grace"


@pytest.mark.parametrize("path", ["/photos", "/review"])
def test_undo_refuses_another_edit_than_the_one_on_its_button(
    opened: Opening, service: Served, path: str
) -> None:
    page = opened(path=path, refused=409)
    # Without events, as if the other edit had been made a moment ago.
    page.add_init_script("EventSource = class { addEventListener() {} close() {} }")
    page.reload()
    if path == "/review":
        page.wait_for_selector("#pair img")
    label = page.locator("#undo")
    assert label.inner_text() == "Undo: named 6 faces as 2 people"
    with Face2Vec(service.folder / "gallery") as engine:
        engine.name("Ada", "Ada Lovelace")
    if path == "/review":
        page.keyboard.press("u")
    else:
        label.click()
    page.wait_for_selector("text=nothing was undone")
    until(page, lambda: "Ada Lovelace" in label.inner_text())
    (last,) = service.get("/v1/edits", params={"limit": 1})["edits"]
    assert "Ada Lovelace" in last["what"]


def test_undo_button_follows_what_another_process_has_edited(
    opened: Opening, service: Served
) -> None:
    page = opened(path="/photos")
    with Face2Vec(service.folder / "gallery") as engine:
        engine.name("Ada", "Ada Lovelace")
    until(page, lambda: "Ada Lovelace" in page.locator("#undo").inner_text())
    with page.expect_navigation():
        page.locator("#undo").click()
    assert person(service, "Ada")["name"] == "Ada"


def test_history_is_in_the_readers_time_and_language(browser: Any, service: Served) -> None:
    (made,) = {one["made"] for one in service.get("/v1/edits")["edits"][:1]}
    context = browser.new_context(timezone_id="Asia/Tokyo", locale="de-DE")
    page = context.new_page()
    page.goto(service.address)
    page.goto(f"{service.base}/edits")
    row = page.locator("tbody tr").first
    assert "6 Gesichter als 2 Personen benannt" in row.inner_text()
    there = datetime.fromtimestamp(made, ZoneInfo("Asia/Tokyo"))
    assert f"{there:%H:%M}" in row.locator("time").inner_text()
    assert "Japan" in row.locator("time").get_attribute("title")
    assert page.locator("#undo").inner_text() == "Rückgängig: 6 Gesichter als 2 Personen benannt"
    context.close()


WORDS = """() => {
    const found = [];
    const own = "script, style, code, bdi, datalist, .path, [lang]:not(html), #runs strong, input";
    const all = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_TEXT);
    while (all.nextNode()) {
        if (!all.currentNode.parentElement.closest(own)) found.push(all.currentNode.data);
    }
    for (const one of document.querySelectorAll("*")) {
        for (const name of ["title", "aria-label", "placeholder", "alt", "label"]) {
            if (one.hasAttribute(name) && !one.matches(".photos a, [alt]")) {
                found.push(one.getAttribute(name));
            }
        }
        if (one.matches("img[alt]") && !/[0-9/]/.test(one.alt)) found.push(one.alt);
    }
    return found;
}"""
"""The texts of a page, but names, paths and code."""


ALIKE = {"Index flat,"}
"""Words that are the same in both languages."""


def phrases(texts: list[str]) -> set[str]:
    """All two words that follow each other in a text and are no names or numbers."""
    found = set()
    for text in texts:
        words = text.split()
        for pair in itertools.pairwise(words):
            if all(word.strip(".,;:()").isalpha() for word in pair) and pair[1][0].islower():
                found.add(" ".join(pair))
    return found


def walk(page: Any, service: Served, number: int, root: Path) -> Iterator[tuple[str, list[str]]]:
    """Go over all pages and dialogs; yields each step with the texts that are shown then."""

    def seen(step: str) -> tuple[str, list[str]]:
        return step, page.evaluate(WORDS)

    yield seen("search")
    find_with(page, service.photo("groups/0.jpg"))
    yield seen("matches")
    page.locator("#matches a[href^='/photos']").first.click()
    page.locator("#around img").wait_for()
    yield seen("around")
    page.goto(service.base + "/people")
    page.locator(".naming input").last.fill("Ada")
    page.keyboard.press("Enter")
    page.wait_for_selector(".message")
    yield seen("people")
    ada = person(service, "Ada")["id"]
    page.goto(f"{service.base}/people/{ada}")
    page.locator("#forget").click()
    yield seen("person")
    page.goto(service.base + "/review")
    page.wait_for_selector("#pair img")
    before = page.locator("#back").inner_text()
    page.keyboard.press("n")
    until(page, lambda: page.locator("#back").inner_text() != before)
    yield seen("review")
    page.keyboard.press("u")
    until(page, lambda: page.locator("#back").inner_text() == before)
    yield seen("review, undone")
    for path in ("/photos", "/photos?status=unreadable", "/edits", "/docs", "/people?hidden=true"):
        page.goto(service.base + path)
        yield seen(path)
    page.goto(f"{service.base}/photos/{number}")
    page.locator("#mark").click()
    yield seen("photo")
    page.goto(service.base + "/jobs")
    page.locator("#browse").click()
    page.wait_for_selector("#picker-list button")
    yield seen("picker")
    page.locator("#picker-cancel").click()
    for folder in (root, root / "missing"):
        page.locator("#index input[name=folder]").fill(str(folder))
        page.locator("#index button:not(#browse)").click()
        page.wait_for_selector(".run[data-state='done'], .message")
    page.locator("#group button").click()
    until(page, lambda: page.locator(".run[data-state='done']").count() > 1)
    yield seen("jobs")
    for path in ("/people/99999", "/photos/99999", "/nothing"):
        page.goto(service.base + path)
        yield seen(path)
    page.context.clear_cookies()
    page.goto(service.base)
    yield seen("without a token")
    page.goto(f"{service.base}/?token={READ_TOKEN}")
    page.goto(service.base + "/jobs")
    yield seen("read only")


def test_no_english_is_on_german_pages(browser: Any, drawn: Path, tmp_path: Path) -> None:
    said: dict[str, dict[str, set[str]]] = {}
    for language in ("en-GB", "de-DE"):
        folder = copied(drawn, tmp_path / language)
        root = tmp_path / f"photos-{language}"
        samples.write(root, people=1, photos=1, groups=0, seed=5)
        (root / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
        with served(folder, roots=(root,)) as service:
            number, _ = add_missed(service, tmp_path)
            with Face2Vec(folder / "gallery") as engine:
                engine.add(root / "broken.jpg")
                engine.hide_people([engine.people()[-1], engine.people()[-2]])
            context = browser.new_context(locale=language, viewport={"width": 1280, "height": 900})
            context.set_default_timeout(PATIENCE)
            page = context.new_page()
            page.goto(service.address)
            for step, texts in walk(page, service, number, root):
                said.setdefault(step, {})[language] = phrases(texts)
            context.close()
    shared = {step: (one["en-GB"] & one["de-DE"]) - ALIKE for step, one in said.items()}
    assert {step: found for step, found in shared.items() if found} == {}
    assert len(said) == 20
    assert all(one["de-DE"] for one in said.values())


def test_german_pages_have_german_numbers_and_nouns(browser: Any, service: Served) -> None:
    context = browser.new_context(locale="de-DE")
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(service.address)
    find_with(page, service.photo("person-000/0.jpg"))
    first, *_, last = page.locator("#matches li").all()
    assert "(> 99,9 %)" in first.inner_text()
    (found,) = service.post(
        "/v1/search/photo",
        files={"photo": service.photo("person-000/0.jpg").read_bytes()},
        data={"k": "24"},
    )["results"]
    similarity = f"{found['matches'][-1]['similarity']:.3f}".replace(".", ",")
    assert f"Ähnlichkeit {similarity}" in last.inner_text().replace("\N{MINUS SIGN}", "-")
    page.goto(f"{service.base}/review")
    page.wait_for_selector("#pair img")
    asked = service.get("/v1/suggestions", params={"limit": 1})["suggestions"][0]
    for side in ("first", "second"):
        number, name = asked[side]["person"], asked[side]["name"]
        label = name or (f"Person {number}" if number else "noch keine Person")
        assert label in page.locator(f"#{side} figcaption").inner_text()
    assert any(asked[side]["person"] and not asked[side]["name"] for side in ("first", "second"))
    assert "," in page.locator("#odds").inner_text()
    context.close()


@pytest.mark.parametrize("size", SIZES)
def test_open_windows_say_that_something_has_changed_elsewhere(
    opened: Opening, service: Served, size: str
) -> None:
    page, review = opened(size, "/people"), opened(size, "/review")
    review.wait_for_selector("#pair img")
    unnamed = next(one for one in service.get("/v1/people")["people"] if one["name"] is None)
    page.locator(f".naming[data-person='{unnamed['id']}'] input").fill("Eve")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Done.")
    until(review, lambda: "Eve" in review.locator("#undo").inner_text())  # by itself
    page.wait_for_timeout(2500)
    assert page.locator("#changed").is_hidden()  # its own edit
    before = review.locator("#left").inner_text()
    review.get_by_role("button", name="No", exact=True).click()
    until(review, lambda: review.locator("#left").inner_text() != before)
    page.wait_for_selector("text=This page has changed elsewhere.")
    keep(page, f"changed-elsewhere-{size}")
    with page.expect_navigation():
        page.get_by_role("button", name="Reload").click()
    assert page.locator("#changed").is_hidden()


def test_window_notices_what_another_process_has_changed(opened: Opening, service: Served) -> None:
    page = opened(path="/people")
    with Face2Vec(service.folder / "gallery") as engine:
        engine.name("Ada", "Ada Lovelace")
    page.wait_for_selector("text=This page has changed elsewhere.")


def test_removing_a_photo_says_how_many_copies_go_with_it(
    opened: Opening, service: Served, tmp_path: Path
) -> None:
    asked: list[str] = []
    page = opened()
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    number = service.get("/v1/photos", params={"person": person(service, "Ada")["id"]})["photos"][0]
    for copies in range(3):
        if copies:
            shutil.copy(number["path"], tmp_path / f"copy-{copies}.jpg")
            with Face2Vec(service.folder / "gallery") as engine:
                assert engine.add(tmp_path / f"copy-{copies}.jpg").copies == 1
        page.goto(f"{service.base}/photos/{number['id']}")
        page.get_by_role("button", name="Remove from the gallery").click()
    assert asked == [
        "Remove this photo from the gallery? The file stays.",
        "Remove this photo and its 1 copy in another place from the gallery? The files stay.",
        "Remove this photo and its 2 copies in other places from the gallery? The files stay.",
    ]
    assert service.get(f"/v1/photos/{number['id']}")["copies"] == 2


def test_forgetting_a_person_is_asked_twice(opened: Opening, service: Served) -> None:
    ada = person(service, "Ada")["id"]
    page = opened(path=f"/people/{ada}", refused=404)  # pictures that were on their way
    page.get_by_role("button", name="Forget this person").click()
    faces = person(service, "Ada")["faces"]
    assert page.locator("#sure h2").inner_text() == f"Forget Ada, {faces} faces?"
    page.get_by_role("button", name="Keep").click()
    assert person(service, "Ada")["id"] == ada
    slow: list[Any] = []
    page.route(service.base + "/people", lambda route: slow.append(route))
    page.get_by_role("button", name="Forget this person").click()
    page.get_by_role("button", name="Forget for good").click()
    until(page, lambda: slow)
    page.wait_for_timeout(4000)  # the service says meanwhile that somebody was forgotten
    slow[0].continue_()
    page.wait_for_url("**/people")
    page.wait_for_selector("text=nothing is left in the gallery")
    assert service.http.get(f"/v1/people/{ada}").status_code == 404


def test_review_is_answered_with_keys(opened: Opening, service: Served) -> None:
    asked = service.get("/v1/suggestions", params={"limit": 200})["suggestions"]
    assert len(asked) >= 4
    page = opened(path="/review")
    page.wait_for_selector("#pair img")

    def faces() -> list[int]:
        shown = page.evaluate("() => [...document.querySelectorAll('#pair img')].map((i) => i.src)")
        return [int(urlsplit(one).path.split("/")[3]) for one in shown]

    def press(key: str) -> None:
        before = faces()
        page.keyboard.press(key)
        until(page, lambda: faces() != before)

    assert faces() == [*asked[0]["first"]["shown"], *asked[0]["second"]["shown"]]
    press("n")
    assert "1 answered" in page.locator("#left").inner_text()
    left = service.get("/v1/suggestions", params={"limit": 200})["suggestions"]
    assert asked[0] not in left
    press("u")
    assert service.get("/v1/suggestions", params={"limit": 200})["suggestions"] == asked
    press(" ")
    assert faces() == [*asked[1]["first"]["shown"], *asked[1]["second"]["shown"]]
    press("y")
    owners = {
        service.get(f"/v1/faces/{face}")["person"]
        for face in (*asked[1]["first"]["shown"], *asked[1]["second"]["shown"])
    }
    assert len(owners) == 1
    assert None not in owners
    page.reload()
    page.wait_for_selector("#pair img")
    assert faces() != [*asked[0]["first"]["shown"], *asked[0]["second"]["shown"]]  # still skipped


def test_answer_on_its_way_is_taken_back(opened: Opening, service: Served) -> None:
    page = opened(path="/review")
    page.wait_for_selector("#pair img")
    before = service.get("/v1/suggestions")
    page.keyboard.press("n")
    page.keyboard.press("u")  # before the answer has arrived
    page.wait_for_selector(".message:has-text('are different people')")
    assert service.get("/v1/suggestions") == before


def test_faces_of_a_photo_are_named(opened: Opening, service: Served) -> None:
    page = opened("phone", "/photos")
    page.get_by_label("Person").fill("Ada")
    with page.expect_navigation():
        page.get_by_role("button", name="Filter").tap()
    assert page.locator(".photos li").count() == person(service, "Ada")["faces"]
    page.locator(".photos a").first.tap()
    page.wait_for_url("**/photos/*")
    form = page.locator(".naming-face").first
    face = int(form.get_attribute("data-face"))
    form.locator("input").fill("Grace")
    with page.expect_navigation():
        form.get_by_role("button", name="Name").tap()
    assert service.get(f"/v1/faces/{face}")["name"] == "Grace"


def test_name_on_the_page_of_a_photo_is_for_all_faces_of_an_unnamed_person(
    opened: Opening, service: Served
) -> None:
    unnamed = next(one for one in service.get("/v1/people")["people"] if one["name"] is None)
    found = service.get(f"/v1/faces/{unnamed['cover']}")
    page = opened(path=f"/photos/{found['photo']}")
    form = page.locator(f".naming-face[data-face='{found['id']}']")
    form.locator("input").fill("Grace")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert person(service, "Grace")["faces"] == unnamed["faces"]
    assert page.locator("#undo").inner_text() == f"Undo: named person {unnamed['id']} Grace"


def drag(page: Any, size: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag with the mouse, or with a finger on a phone."""
    if size == "desktop":
        page.mouse.move(*start)
        page.mouse.down()
        page.mouse.move(*end, steps=4)
        page.mouse.up()
        return
    session = page.context.new_cdp_session(page)
    for kind, at in (("touchStart", start), ("touchMove", end), ("touchEnd", None)):
        points = [] if at is None else [{"x": at[0], "y": at[1]}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


@pytest.mark.parametrize("size", SIZES)
def test_missed_face_is_marked_by_hand(
    opened: Opening, service: Served, tmp_path: Path, size: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    number, box = add_missed(service, tmp_path)
    page = opened(size, f"/photos/{number}")
    settled(page)
    page.get_by_role("button", name="Mark a face that was missed").click()
    page.locator("#draw").scroll_into_view_if_needed()
    shown = page.locator("#draw").bounding_box()
    scale = shown["width"] / service.get(f"/v1/photos/{number}")["width"]
    left, top, right, bottom = (value * scale for value in box)

    def at(x: float, y: float) -> tuple[float, float]:
        return shown["x"] + x, shown["y"] + y

    drag(page, size, at(2, 2), at(2 + right - left, 2 + bottom - top))  # elsewhere, then moved
    drag(page, size, at(6, 6), at(left + 4, top + 4))
    drawn = [float(page.locator("#drawn").get_attribute(name)) for name in ("x", "y", "width")]
    assert drawn == pytest.approx([box[0], box[1], box[2] - box[0]], abs=2 / scale)
    assert Axe().run(page).response["violations"] == []
    keep(page, f"mark-{size}")
    with page.expect_navigation():
        page.get_by_role("button", name="Add this face").click()
    page.wait_for_selector("text=The face was added")
    settled(page)
    assert page.locator(".cards .card").count() == 1
    with page.expect_navigation():
        page.locator(".message").get_by_role("button", name="Undo").click()
    page.wait_for_selector("text=Undone: marked face")
    assert page.locator(".cards .card").count() == 0


def test_face_without_landmarks_is_marked_with_the_keyboard_and_named(
    opened: Opening, service: Served, tmp_path: Path
) -> None:
    number, _ = add_missed(service, tmp_path)
    page = opened(path=f"/photos/{number}")
    settled(page)
    page.locator("#mark").focus()
    page.keyboard.press("Enter")
    for key in [*["ArrowLeft", "ArrowUp"] * 40, *["Shift+ArrowLeft", "Shift+ArrowUp"] * 3]:
        page.keyboard.press(key)
    assert "0 from the left, 0 from the top" in page.locator("#mark-state").inner_text()
    with page.expect_navigation():
        page.keyboard.press("Enter")
    page.wait_for_selector("text=No landmarks were found")
    settled(page)
    card = page.locator(".card[data-mark]")
    assert "searches do not find it" in card.inner_text()
    card.locator("input").fill("Ada")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    (mark,) = service.get(f"/v1/photos/{number}")["marks"]
    assert mark["name"] == "Ada"
    page.goto(f"{service.base}/people/{mark['person']}")
    page.get_by_role("img", name="Face marked by hand").click()
    page.wait_for_url(f"**/photos/{number}")
    page.locator("#mark").click()
    page.keyboard.press("Escape")
    assert page.locator("#draw").is_hidden()
    with page.expect_navigation():
        page.get_by_role("button", name="Delete this mark").click()
    assert service.get(f"/v1/photos/{number}")["marks"] == []


@pytest.mark.parametrize("size", SIZES)
def test_photos_are_chosen_by_month(
    opened: Opening, service: Served, tmp_path: Path, size: str
) -> None:
    for month in (3, 5):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9003] = f"2024:{month:02}:01 12:00:00"
        Image.open(service.photo(f"person-000/{month % 3}.jpg")).save(
            tmp_path / f"{month}.jpg", exif=exif
        )
    with Face2Vec(service.folder / "gallery") as engine:
        engine.add(tmp_path / "3.jpg", tmp_path / "5.jpg")
    page = opened(size, "/photos")
    page.get_by_label("Order").select_option("newest first")
    with page.expect_navigation():
        page.get_by_role("button", name="Filter").click()
    assert page.locator("h2").all_inner_texts() == ["May 2024", "March 2024", "No date"]
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    keep(page, f"photos-by-date-{size}")
    page.get_by_label("Taken").select_option("March 2024 (1)")
    with page.expect_navigation():
        page.get_by_role("button", name="Filter").click()
    assert page.locator(".photos li").count() == 1
    page.locator(".photos a").click()
    assert "taken 2024-03-01 12:00" in page.locator("main").inner_text()


def test_jobs_are_seen_in_several_windows(opened: Opening, service: Served, drawn: Path) -> None:
    samples.write(drawn / "photos" / "more", people=12, photos=3, groups=0, seed=21)
    try:
        page, other = opened(path="/jobs"), opened("phone", "/jobs")
        page.get_by_label("Folder", exact=True).fill(str(drawn / "photos" / "more"))
        page.locator("#index button:not(#browse)").click()
        for window in (page, other):
            window.wait_for_selector(".run[data-state='running']")
        for window in (page, other):
            window.wait_for_selector(".run[data-state='done']")
            assert "36 photos: 36 added" in window.locator(".run").first.inner_text()
        page.locator("#index button:not(#browse)").click()
        until(page, lambda: page.locator(".run[data-state='done']").count() > 1)
        assert "36 photos: 0 added" in page.locator(".run").first.inner_text()
    finally:
        shutil.rmtree(drawn / "photos" / "more")


def test_index_job_is_told_in_full_on_the_page_that_started_it(
    opened: Opening, service: Served, drawn: Path
) -> None:
    root = drawn / "photos" / "told"
    samples.write(root, people=2, photos=2, groups=0, seed=9)
    shutil.copytree(root / "person-000", root / "copies")
    (root / "broken.jpg").write_bytes(b"no photo")
    try:
        page = opened(refused=422)
        # A message that its time does not take away.
        page.add_init_script(
            "const wait = setTimeout;"
            "setTimeout = (run, time) => (time === 10000 ? 0 : wait(run, time))"
        )
        page.goto(f"{service.base}/jobs")
        before = service.get("/v1/info")
        assert f"{before['photos']} photos, {before['faces']} faces" in page.inner_text("#facts")
        page.get_by_label("Folder", exact=True).fill(f"{root}/missing")
        page.locator("#index button:not(#browse)").click()
        page.wait_for_selector(".message:has-text('does not exist')")
        page.get_by_label("Folder", exact=True).fill(str(root))
        page.locator("#index button:not(#browse)").click()
        page.wait_for_selector(".message:has-text('does not exist')", state="detached")
        page.wait_for_selector(".run[data-state='done']")
        words = page.locator(".run").first.inner_text()
        (made,) = [job["result"] for job in service.get("/v1/jobs")["jobs"]]
        assert (made["photos"], made["added"], made["copies"]) == (7, 4, 2)
        assert "7 photos: 4 added, 0 unchanged, 2 copies, 1 unreadable" in words
        after = service.get("/v1/info")
        assert after["faces"] > before["faces"]
        counts = f"{after['photos']} photos, {after['faces']} faces"
        until(page, lambda: counts in page.inner_text("#facts"))
        page.wait_for_timeout(2500)
        assert page.locator("#changed").is_hidden()
    finally:
        shutil.rmtree(root)


def test_first_index_job_shows_the_gallery_that_it_has_made(
    browser: Any, drawn: Path, tmp_path: Path
) -> None:
    with served(tmp_path, roots=(drawn / "photos",)) as service:
        context = browser.new_context(locale="en-GB")
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(service.address)
        page.goto(f"{service.base}/jobs")
        assert page.locator("#facts").count() == 0
        page.get_by_label("Folder", exact=True).fill(str(drawn / "photos" / "person-000"))
        page.locator("#index button:not(#browse)").click()
        page.wait_for_selector("#facts")
        assert "3 photos, 3 faces" in page.inner_text("#facts")
        page.wait_for_selector(".run[data-state='done']")
        context.close()


def test_upgrade_asks_and_says_which_photos_are_missing(browser: Any, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    samples.write(photos, people=2, photos=2, groups=0, seed=9)
    with Face2Vec(tmp_path / "gallery", model="mini") as engine:
        engine.add(photos)
    missing = next(photos.rglob("*.jpg"))
    content = missing.read_bytes()
    missing.unlink()
    with served(tmp_path, roots=(photos,)) as service:
        context = browser.new_context(locale="en-GB")
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        asked: list[str] = []
        answers = iter([False, True, True])

        def answer(dialog: Any) -> None:
            asked.append(dialog.message)
            (dialog.accept if next(answers) else dialog.dismiss)()

        page.on("dialog", answer)
        page.goto(service.address)
        page.goto(f"{service.base}/jobs")
        button = page.locator("#upgrade button")
        button.click()  # no model is chosen, so the browser asks for one
        page.locator("#models").select_option("mini2")
        button.click()
        assert service.get("/v1/jobs")["jobs"] == []
        button.click()
        kept = page.locator(".run[data-state='done']")
        kept.wait_for()
        assert (
            "1 photo is missing or has changed, so the gallery keeps its model" in kept.inner_text()
        )
        assert str(missing) in kept.inner_text()
        missing.write_bytes(content)
        button.click()
        page.wait_for_selector(".run:has-text('the gallery has the new model')")
        assert len(asked) == 3
        assert "mini2" in asked[0]
        until(page, lambda: "mini2" in page.inner_text("#facts"))
        context.close()


def test_menu_and_history_wrap_on_a_phone(opened: Opening, service: Served) -> None:
    ada = person(service, "Ada")["id"]
    long = "Wolfeschlegelsteinhausen" * 8
    assert service.http.patch(f"/v1/people/{ada}", json={"name": long}).is_success
    page = opened("phone")
    for language in ("de", "en"):
        page.goto(f"{service.base}/language/{language}?back=/edits")
        assert long in page.locator("tbody").inner_text()
        for box in ("header nav", ".wide"):
            shown, whole = (
                page.locator(box).evaluate(f"(e) => e.{side}Width") for side in ("client", "scroll")
            )
            assert whole <= shown, box
        keep(page, f"edits-long-{language}")


@pytest.mark.parametrize("size", SIZES)
def test_folder_is_picked_with_mouse_and_keyboard(
    opened: Opening, service: Served, drawn: Path, size: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = opened(size, "/jobs")
    photos = str(drawn / "photos")
    page.get_by_label("Folder", exact=True).fill("")
    page.get_by_role("button", name="Browse").click()
    rows = page.locator("#picker-list button")
    until(page, lambda: rows.all_inner_texts() == [photos])
    assert page.get_by_role("button", name="Choose this folder").is_disabled()
    rows.first.click()
    until(page, lambda: rows.count() > 8)
    assert Axe().run(page).response["violations"] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    keep(page, f"picker-{size}")
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    until(page, lambda: "person-000 · 3 photos in it" in page.locator("#picker-here").inner_text())
    page.keyboard.press("Backspace")
    until(page, lambda: rows.count() > 8)
    page.get_by_role("button", name="person-001").click()
    until(page, lambda: "person-001 ·" in page.locator("#picker-here").inner_text())
    page.get_by_role("button", name="Choose this folder").click()
    assert page.get_by_label("Folder", exact=True).input_value() == f"{photos}/person-001"
    assert not page.locator("#picker").is_visible()
    page.get_by_role("button", name="Browse").click()  # begins where the field is
    until(page, lambda: "person-001 ·" in page.locator("#picker-here").inner_text())
    page.keyboard.press("Escape")
    page.locator("#index button:not(#browse)").click()
    page.wait_for_selector("text=3 photos: 0 added")


def test_job_and_edit_wait_for_another_process_with_a_word(
    opened: Opening, service: Served
) -> None:
    page, people = opened(path="/jobs"), opened(path="/people")
    unnamed = next(one for one in service.get("/v1/people")["people"] if one["name"] is None)
    with Gallery.open(service.folder / "gallery") as gallery, gallery.write():
        page.locator("#group button").click()
        page.wait_for_selector("text=Waits until another process has written")
        people.locator(f".naming[data-person='{unnamed['id']}'] input").fill("Eve")
        people.keyboard.press("Enter")
        people.wait_for_selector("text=your edit waits for it")
    people.wait_for_selector("text=Done.")
    page.wait_for_selector(".run[data-state='done']")
    assert service.get(f"/v1/people/{unnamed['id']}")["name"] == "Eve"


def test_folder_outside_the_roots_is_refused_with_words(browser: Any, service: Served) -> None:
    context = browser.new_context()
    page = context.new_page()  # the browser logs the answer 403 as an error, which is right here
    page.goto(service.address)
    page.goto(f"{service.base}/jobs")
    page.get_by_label("Folder", exact=True).fill("/etc")
    page.locator("#index button:not(#browse)").click()
    page.wait_for_selector("text=only folders below those")
    context.close()


def test_read_only_window_offers_no_edits(opened: Opening, service: Served) -> None:
    page = opened(token=READ_TOKEN)
    ada = person(service, "Ada")["id"]
    for path in ("/people", f"/people/{ada}", "/photos/1", "/jobs"):
        page.goto(service.base + path)
        assert "You can look, but not change anything" in page.locator("main").inner_text()
        buttons = page.locator("main button, header button")
        words = [one.inner_text() for one in buttons.all()]
        assert set(words) <= {"Find", "Filter", "Reload"}
    page.goto(service.base)
    find_with(page, service.photo("person-000/0.jpg"))
    assert str(service.folder) not in page.content()


def test_language_is_chosen_and_kept(opened: Opening, service: Served) -> None:
    page = opened("phone")
    page.get_by_role("link", name="Deutsch").tap()
    assert page.locator("h1").inner_text() == "Mit einem Foto suchen"
    page.get_by_role("link", name="Personen").tap()
    assert page.locator("html").get_attribute("lang") == "de"
    assert page.locator("h1").inner_text() == "Personen"


def test_double_clicks_are_one_edit_and_one_job(opened: Opening, service: Served) -> None:
    page = opened(path="/people")
    for place in (-1, -2):
        page.locator(".pick").nth(place).check()
    with page.expect_navigation():
        page.locator("#merge").dblclick()
    page.wait_for_selector("text=Done.")
    merged = service.get("/v1/edits")["edits"]
    assert [one["what"].split()[0] for one in merged].count("merge") == 1
    with page.expect_navigation():
        page.locator("#undo").dblclick()
    page.wait_for_selector("text=Undone: merged")
    assert len(service.get("/v1/edits")["edits"]) == len(merged) - 1
    name = page.locator(".naming input").last
    name.fill("Zoe")
    name.press("Enter")
    name.press("Enter")
    until(page, lambda: "Zoe" in page.locator("#undo").inner_text())
    assert len(service.get("/v1/edits")["edits"]) == len(merged)
    page.goto(service.base + "/jobs")
    page.locator("#group button").dblclick()
    until(page, lambda: page.locator("#runs .run[data-state=done]").count() >= 1)
    assert len(service.get("/v1/jobs")["jobs"]) == 1


@pytest.mark.parametrize("size", SIZES)
def test_photo_of_a_match_is_seen_without_leaving_the_results(
    opened: Opening, service: Served, size: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = opened(size)
    find_with(page, service.photo("person-000/0.jpg"))
    first = page.locator("#matches li").first
    first.locator("a").first.focus()
    page.keyboard.press("Enter")
    around = page.locator("#around")
    around.locator("img").wait_for()
    assert around.locator("h2").inner_text() == "Ada"
    assert around.locator("rect").count() == 1
    box = around.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= SIZES[size][0]
    picture, drawn = (around.locator(what).bounding_box() for what in ("img", "rect"))
    assert picture is not None
    assert drawn is not None
    assert picture["x"] <= drawn["x"]
    assert drawn["x"] + drawn["width"] <= picture["x"] + picture["width"] + 1
    assert Axe().run(page).response["violations"] == []
    page.keyboard.press("Escape")
    assert not around.is_visible()
    assert page.locator("#matches li").count() > 1
    first.locator("a").first.click()
    with page.expect_navigation():
        page.locator("#around-page").click()
    assert urlsplit(page.url).path.startswith("/photos/")


def test_search_for_a_face_of_the_gallery_is_in_the_address(
    opened: Opening, service: Served
) -> None:
    page = opened()
    find_with(page, service.photo("person-000/0.jpg"))
    second = page.locator("#matches li").nth(1)
    face = second.get_attribute("data-face")
    second.get_by_role("button", name="Search this face").click()
    page.wait_for_url(f"**/?face={face}")
    until(page, lambda: page.locator("#matches li").count() > 1)
    shown = page.locator("#matches li").first.get_attribute("data-face")
    page.goto(service.base + "/people")
    page.go_back()
    page.wait_for_selector("#matches li")
    assert page.locator("#matches li").first.get_attribute("data-face") == shown


def shown_faces(page: Any) -> list[str]:
    """The faces of the matches, in order."""
    return [one.get_attribute("data-face") for one in page.locator("#matches li").all()]


@pytest.mark.parametrize("size", SIZES)
def test_search_with_a_photo_is_there_again_after_back(
    opened: Opening, service: Served, size: str
) -> None:
    page = opened(size)
    sent: list[str] = []
    page.on("request", lambda one: sent.append(urlsplit(one.url).path))
    find_with(page, service.photo("groups/0.jpg"))
    settled(page)
    chosen = page.locator("svg .box.chosen").get_attribute("data-number")
    other = "2" if chosen == "1" else "1"
    with page.expect_response("**/v1/search"):
        page.get_by_role("button", name=f"Face {other}", exact=True).click()
    first = page.locator("#matches li").first
    with page.expect_response("**/v1/search"):
        first.get_by_role("button", name="Not this one").click()
    until(page, lambda: page.locator("#state").inner_text() == "")
    faces = shown_faces(page)
    found = page.locator("#matches a[href^='/people/']").last
    found.scroll_into_view_if_needed()
    top = page.evaluate("scrollY")
    assert top > 0
    assert sent.count("/v1/encode") == 1
    found.click()
    page.wait_for_url("**/people/*")
    page.go_back()
    page.wait_for_selector("#matches li")
    assert shown_faces(page) == faces
    assert page.locator("svg .box.chosen").get_attribute("data-number") == other
    assert page.locator("#queries img").evaluate("(i) => i.naturalWidth") > 0
    until(page, lambda: page.evaluate("scrollY") == pytest.approx(top, abs=2))
    page.reload()
    page.wait_for_selector("#matches li")
    assert shown_faces(page) == faces
    keep(page, f"search-again-{size}")
    assert sent.count("/v1/encode") == 1
    page.get_by_role("link", name="Search", exact=True).click()
    assert page.locator("#query").is_hidden()
    page.go_back()
    page.wait_for_selector("#matches li")
    assert shown_faces(page) == faces
    page.get_by_role("button", name="Clear this search").click()
    assert page.locator("#query").is_hidden()
    page.reload()
    page.wait_for_load_state()
    assert page.locator("#query").is_hidden()
    assert page.evaluate("sessionStorage.getItem('searches')") is None


def test_back_leads_from_the_search_for_a_match_to_the_photo(
    opened: Opening, service: Served
) -> None:
    page = opened()
    find_with(page, service.photo("person-000/0.jpg"))
    faces = shown_faces(page)
    page.locator("#matches li").nth(1).get_by_role("button", name="Search this face").click()
    page.wait_for_url("**/?face=*")
    until(page, lambda: shown_faces(page) not in ([], faces))
    assert page.locator("#queries img").count() == 0
    assert page.locator("#extra img").get_attribute("src").startswith("/v1/faces/")
    page.go_back()
    until(page, lambda: shown_faces(page) == faces)
    assert page.locator("#queries img").count() == 1
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/#content")
    assert shown_faces(page) == faces
    find_with(page, service.photo("person-001/0.jpg"))
    until(page, lambda: "Bob" in page.locator("#matches li").first.inner_text())
    page.go_back()
    until(page, lambda: shown_faces(page) == faces)


def test_kept_search_goes_when_somebody_is_forgotten(opened: Opening, service: Served) -> None:
    page = opened(refused=404)
    find_with(page, service.photo("person-000/0.jpg"))
    page.goto(f"{service.base}/people/{person(service, 'Ada')['id']}")
    assert page.evaluate("sessionStorage.getItem('searches')") is not None
    with Face2Vec(service.folder / "gallery") as engine:
        engine.forget("Bob")
    page.reload()
    page.wait_for_load_state()
    assert page.evaluate("sessionStorage.getItem('searches')") is None
    page.go_back()
    page.wait_for_load_state()
    assert page.locator("#query").is_hidden()


def test_open_search_leaves_out_who_is_forgotten_elsewhere(
    opened: Opening, service: Served
) -> None:
    page = opened(refused=404)
    photo = service.photo("person-001/0.jpg")
    find_with(page, photo)
    until(page, lambda: "Bob" in page.locator("#matches li").first.inner_text())
    with Face2Vec(service.folder / "gallery") as engine:
        engine.forget("Bob")
    until(page, lambda: page.locator("#query").is_hidden())
    assert not page.locator("#matches li").count()
    page.goto(service.base)  # a reload would end the next search
    find_with(page, photo)
    assert "Bob" not in page.locator("#matches").inner_text()


def test_kept_search_goes_with_the_token(opened: Opening, service: Served) -> None:
    page = opened(refused=401)
    kept = "sessionStorage.getItem('searches')"
    find_with(page, service.photo("person-000/0.jpg"))
    page.goto(f"{service.base}/?token={READ_TOKEN}")  # another token
    page.go_back()
    page.wait_for_load_state()
    assert page.locator("#query").is_hidden()
    assert page.evaluate(kept) is None
    find_with(page, service.photo("person-000/0.jpg"))
    assert page.evaluate(kept) is not None
    page.context.clear_cookies()
    page.locator("#matches button", has_text="Not this one").first.click()
    page.wait_for_selector("#state:has-text('token')")
    assert page.evaluate(kept) is None
    page.goto(f"{service.base}/?token={READ_TOKEN}")
    find_with(page, service.photo("person-000/0.jpg"))
    page.context.clear_cookies()
    page.goto(f"{service.base}/people")  # the page that asks for a token
    assert "token" in page.locator("h1").inner_text()
    assert page.evaluate("sessionStorage.length") == 0


def test_search_with_embeddings_of_another_model_is_not_shown(
    opened: Opening, service: Served
) -> None:
    page = opened()
    find_with(page, service.photo("person-000/0.jpg"))

    def other(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"model": "another"})

    page.route("**/v1/search", other)
    page.locator("#matches button", has_text="Not this one").first.click()
    page.wait_for_selector("text=The gallery has another model now")
    assert page.locator("#matches li").count() == 0
    assert page.evaluate("sessionStorage.getItem('searches')") is None


def test_photo_that_cannot_be_read_is_said_on_the_search_page(
    opened: Opening, service: Served, tmp_path: Path
) -> None:
    page = opened(refused=422)
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    page.set_input_files("#file", tmp_path / "bad.jpg")
    page.locator("#queries .note", has_text="bad.jpg: truncated").wait_for()
    assert not page.locator("#found").is_visible()


def test_page_says_when_the_service_is_away_and_when_it_is_signed_out(
    browser: Any, drawn: Path, tmp_path: Path
) -> None:
    folder = copied(drawn, tmp_path)
    context = browser.new_context(locale="de-DE", reduced_motion="reduce")
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    with served(folder) as service:
        page.goto(service.address)
        page.goto(service.base + "/people")
        port = urlsplit(service.base).port
    lost = page.locator("#lost")
    lost.filter(has_text="Der Dienst antwortet nicht").wait_for()
    with served(folder, port=port):
        lost.wait_for(state="hidden")
        with Face2Vec(folder / "gallery") as engine:
            engine.name("Ada", "Ada Lovelace")
        until(page, lambda: "Ada Lovelace" in page.locator("#undo").inner_text())
    with served(folder, port=port, token="another-0123456789abcdef"):
        lost.filter(has_text="nicht mehr angemeldet").wait_for()
    context.close()


def test_ignoring_all_faces_of_a_person_is_one_edit_and_leads_back_to_the_list(
    opened: Opening, service: Served
) -> None:
    unnamed = [one for one in service.get("/v1/people")["people"] if one["name"] is None]
    person = unnamed[-1]
    page = opened(path=f"/people/{person['id']}", refused=404)  # pictures that were on their way
    for place in range(person["faces"]):
        page.locator(".pick").nth(place).check()
    page.locator("[data-do=ignore]").click()
    page.wait_for_url("**/people")
    page.wait_for_selector("text=Done.")
    service.post("/v1/edits/undo")
    assert service.get(f"/v1/people/{person['id']}")["faces"] == person["faces"]
