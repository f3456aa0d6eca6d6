"""Jobs in the Train tab as a browser shows them: every state, what survives, and what cannot be done."""

import pytest
from fake_studio import FakeStudio
from job_processes import until
from made_jobs import step_done
from page_server import source_of
from train_page import HOSTILE, LONG, opened

from lmoe_studio.jobs.job import JobState
from lmoe_studio.jobs.jobs import Jobs

pytestmark = pytest.mark.slow


def chosen(page, id):
    """Waits until a job is the one that is looked at."""
    page.wait_for_selector(f"#jobs [aria-current=true][data-id={id}]")


def acts(page):
    return page.locator("#job-head [data-act]").all_inner_texts()


def test_every_state_of_a_job_is_shown_with_what_can_be_done(made, visit_jobs):
    (made.home / "banks" / "good").mkdir(parents=True)
    made.add("aaaaa", "good", JobState.DONE, step=120)
    made.add(
        "bbbbb", "bad", JobState.FAILED, step=9, reason="The loss is not finite.", log=["last line"]
    )
    made.add("ccccc", "still", JobState.CANCELLED, step=50)
    made.add("ddddd", "gone", JobState.INTERRUPTED, step=31, reason="Its process is gone.")
    made.add("eeeee", "busy", step=77, health="watch")
    made.add("fffff", "next", JobState.QUEUED)
    page = visit_jobs()
    chosen(page, "fffff")
    for id, words, offered in (
        ("aaaaa", "The bank is ready", ["Load into Explore", "Remove"]),
        ("bbbbb", "The loss is not finite.", ["Resume", "Remove"]),
        ("ccccc", "stopped after step 50", ["Resume", "Remove"]),
        ("ddddd", "Its process is gone.", ["Resume", "Remove"]),
        ("eeeee", "You may close the page", ["Stop and save"]),
        ("fffff", "'busy' trains at the moment", ["Stop and save"]),
    ):
        page.click(f"#jobs [data-id={id}]")
        page.locator("#job-head .says").get_by_text(words).wait_for()
        until(lambda: acts(page) == offered)  # noqa: B023  (waited for at once)
        page.wait_for_url(f"**?job={id}")
    page.click("#jobs [data-id=bbbbb]")
    page.locator("#job-details pre").get_by_text("last line").wait_for()
    page.click("#jobs [data-id=eeeee]")
    page.wait_for_selector("#job-loss svg path")
    page.wait_for_selector("#job-shares svg path")
    page.locator("#job-details .lights li", has_text="watch").wait_for()
    lights = page.locator("#job-details .lights li")
    until(lambda: ["watch" in one for one in lights.all_inner_texts()] == [False, True, False])
    page.get_by_role("tab", name="Explore").click()
    page.wait_for_function("!location.search.includes('job')")
    loss = f"{step_done(77, 120).language_loss:.2f}"
    says = f"busy: training step 77/120 (loss {loss}) · 1 queued"
    page.locator("#training-status").get_by_text(says, exact=True).wait_for()
    page.click("#training-status button")
    page.wait_for_selector("#jobs button >> visible=true")


def test_new_steps_appear_and_the_curves_grow_where_they_stand(made, visit_jobs):
    made.add("aaaaa", step=4)
    page = visit_jobs()
    page.wait_for_selector("#job-loss svg path")
    page.evaluate("window.plot = document.querySelector('#job-loss svg')")
    before = page.locator("#job-loss svg").inner_html()
    made.steps("aaaaa", 5, 60)
    page.locator("#job-head").get_by_text("step 60 of 120").wait_for()
    page.wait_for_function(
        f"document.querySelector('#job-loss svg').innerHTML.length > {len(before)}"
    )
    assert page.evaluate("window.plot.isConnected"), "it was not drawn anew"
    page.wait_for_selector("#job-head [role=progressbar][aria-valuenow='60']")
    made.end("aaaaa", JobState.FAILED, "The loss is not finite.")
    page.locator("#job-head .says").get_by_text("not finite").wait_for()
    page.wait_for_function(
        "document.querySelector('#job-head .live').textContent.includes('failed')"
    )


def test_a_reload_and_a_second_visitor_see_the_same_job(made, visit_jobs, browser):
    made.add("aaaaa", "first", JobState.FAILED, step=20)
    made.add("bbbbb", "second", step=30)
    page = visit_jobs()
    page.click("#jobs [data-id=aaaaa]")
    page.wait_for_url("**?job=aaaaa")
    page.reload()
    page.wait_for_selector("#jobs button")
    chosen(page, "aaaaa")
    other = visit_jobs(context=browser.new_context())
    chosen(other, "bbbbb")
    assert other.inner_text("#jobs .list") == page.inner_text("#jobs .list")
    gone = visit_jobs("/?job=zzzzz")
    chosen(gone, "bbbbb")


def test_a_job_is_removed_only_after_asking(made, visit_jobs):
    made.add("aaaaa", "old", JobState.CANCELLED, step=20)
    made.add("bbbbb", "new", JobState.FAILED, step=30)
    page = visit_jobs()
    page.click("[data-act=remove]")
    page.get_by_role("button", name="Keep").click()
    assert len(made.jobs.list()) == 2
    page.locator("[data-act=remove]").press("Enter")
    page.keyboard.press("Enter")  # the question has the focus
    page.wait_for_selector("#jobs [data-id=bbbbb]", state="detached")
    assert [job.id for job in made.jobs.list()] == ["aaaaa"]
    chosen(page, "aaaaa")
    page.locator("#job-head h3").get_by_text("old").wait_for()
    page.click("[data-act=remove]")
    page.locator(".acts").get_by_role("button", name="Remove").click()
    page.get_by_text("No job yet").wait_for()


def test_what_cannot_be_done_says_why_and_the_buttons_come_back(made, visit_jobs):
    made.add("aaaaa", "mine", JobState.CANCELLED, step=20)
    page = visit_jobs()
    for file in made.store.folder("aaaaa").glob("config.json"):
        file.unlink()
    page.click("[data-act=resume]")
    page.locator("#jobs-notice .panel").get_by_text("folder is gone").wait_for()
    page.wait_for_selector("[data-act=resume]:not([disabled])")


def test_hostile_texts_of_a_job_are_shown_as_they_are(made, visit_jobs):
    made.add(
        "aaaaa", "x", JobState.FAILED, step=9, reason=HOSTILE, log=[HOSTILE], dropped={HOSTILE: 2}
    )
    page = visit_jobs()
    for place in ("#job-head .says", "#job-details pre", "#job-details table"):
        assert HOSTILE in page.inner_text(place)
    assert page.evaluate("window.hit") is None


def test_jobs_that_cannot_be_read_say_why(open_page, serving, tmp_path):
    (tmp_path / "jobs.sqlite").write_bytes(b"no database" * 1000)
    page = opened(open_page(serving(source_of(FakeStudio()), jobs=Jobs(tmp_path))))
    page.locator("#jobs-empty .problem").get_by_text("is damaged").wait_for()
    page.click("text=fill in an example")


@pytest.mark.parametrize("width", [1400, 800, 390])
def test_the_tab_fits_its_window(made, visit_jobs, width):
    twelve = tuple(f"{letter}-{LONG}"[:80] for letter in "abcdefghijkl")
    made.add("aaaaa", LONG, step=40, experts=twelve, health="collapsed", reason=LONG * 3)
    page = visit_jobs(width=width)
    page.wait_for_selector("#job-loss svg path")
    page.click("#new-bank > .label-wrap")
    page.wait_for_selector("#skills .row >> visible=true")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_an_idle_page_is_told_little(made, visit_jobs):
    """Looks come about once a second while a job runs, and carry nothing that the page has."""
    made.add("aaaaa", step=100)
    page = visit_jobs()
    page.wait_for_selector("#job-loss svg path")
    page.wait_for_timeout(1500)
    sizes = []
    page.on("response", lambda r: sizes.append(len(r.body())) if "/run/predict" in r.url else None)
    page.wait_for_timeout(4000)
    while not sizes:
        page.wait_for_timeout(500)
    assert len(sizes) <= 12
    assert max(sizes) < 4_000
