"""The curves of jobs as a browser draws them: whole, live, and those of the job that was chosen."""

import pytest
from job_processes import until
from playwright.sync_api import expect
from train_page import opened, started, state_is

from lmoe_studio.jobs.job import JobState
from lmoe_studio.jobs.jobs import Jobs

pytestmark = pytest.mark.slow

LATE = """() => {
  const { fetch } = window;
  let asked = 0;
  window.fetch = async (...what) => {
    const answer = await fetch(...what);
    const isLook = String(what[0]?.url ?? what[0]).includes("/run/predict");
    if (isLook) await new Promise((go) => setTimeout(go, [900, 0, 300, 1200, 100][asked++ % 5]));
    return answer;
  };
}"""
"""Answers come late, and in another order than they were asked for."""
DRAWN = """(id) => {
  const svg = document.querySelector(id + " svg");
  const box = svg.getBoundingClientRect();
  const inside = (one) => {
    const it = one.getBoundingClientRect();
    return it.top >= box.top - 1 && it.bottom <= box.bottom - 15 && it.right <= box.right + 1;
  };
  return {
    lines: [...svg.querySelectorAll("path")].filter((one) => one.getTotalLength() > 1).length,
    inside: [...svg.querySelectorAll("path")].every(inside),
    steps: [...svg.querySelectorAll("text[text-anchor=middle]")].map((one) => one.textContent),
  };
}"""
"""What stands in a plot: lines, whether they are above the axis and not cut off, marks of steps."""


def lines_are(page, count, plot="#job-loss"):
    """Waits until a plot has so many lines."""
    page.wait_for_selector(f"{plot} svg")
    page.wait_for_function(f"([plot, count]) => ({DRAWN})(plot).lines === count", arg=[plot, count])


def wander(page, *, seconds=3.5):
    """To other tabs and back, for longer than the page takes between two looks."""
    page.get_by_role("tab", name="Explore").click()
    page.wait_for_timeout(1000 * seconds)
    page.get_by_role("tab", name="Compose").click()
    page.wait_for_timeout(500)
    page.get_by_role("tab", name="Train").click()
    page.wait_for_timeout(500)


def test_a_stopped_job_is_saved_and_goes_on_and_its_curves_with_it(real, open_page, tiny_home):
    page = opened(open_page(real))
    started(page, 10_000, checkpoint_every=20)  # longer than any test looks at it
    page.wait_for_selector("#job-loss path")
    wander(page)
    page.locator("#job-loss path").nth(1).wait_for(state="attached")
    page.click("[data-act=stop]")
    state_is(page, "cancelled")
    page.wait_for_timeout(3500)  # and nothing takes the curves away again
    assert "resume it" in page.inner_text("#job-head").lower()
    assert page.evaluate(DRAWN, "#job-loss")["lines"] >= 2
    lines_are(page, 2, "#job-shares")
    before = page.get_attribute("#job-loss path", "d")
    [job] = Jobs(tiny_home).list()
    assert job.step > 0
    page.click("[data-act=resume]")
    state_is(page, "running")
    wander(page, seconds=1)
    page.wait_for_function(
        "(before) => document.querySelector('#job-loss path').getAttribute('d') !== before",
        arg=before,
    )
    until(lambda: Jobs(tiny_home).get(job.id).step > job.step)
    page.reload()
    page.click("[data-act=stop]")
    state_is(page, "cancelled")
    page.wait_for_selector("#job-loss path")


def test_curves_are_there_however_late_the_tab_is_opened(made, visit_jobs):
    made.add("aaaaa", step=30)
    page = visit_jobs(after=5000)
    page.wait_for_selector("#job-loss path")
    page.set_viewport_size({"width": 700, "height": 900})
    page.get_by_role("tab", name="Explore").click()
    page.set_viewport_size({"width": 1300, "height": 900})
    made.steps("aaaaa", 31, 60)
    page.wait_for_timeout(3500)
    page.get_by_role("tab", name="Train").click()
    page.locator("#job-head").get_by_text("step 60 of 120").wait_for()
    page.wait_for_function("document.querySelector('#job-loss').textContent.includes('100')")
    lines_are(page, 4)


def test_answers_that_come_late_leave_nothing_of_another_job(made, visit_jobs):
    for id, name, step in (("aaaaa", "first", 20), ("bbbbb", "other", 40), ("ccccc", "third", 0)):
        made.add(id, name, JobState.CANCELLED, step=step)
    page = visit_jobs()
    page.evaluate(LATE)
    for last, name, step in (("aaaaa", "first", 20), ("bbbbb", "other", 40)):
        for id in ("bbbbb", "ccccc", "aaaaa", "ccccc", last):
            page.click(f"#jobs [data-id={id}]")
        page.locator("#job-details .measured").get_by_text(f"after step {step}").wait_for()
        page.wait_for_timeout(5000)  # until every answer is there, and a look after it
        expect(page.locator("#job-head h3")).to_have_text(name)
        expect(page.locator("#jobs [aria-current=true]")).to_have_attribute("data-id", last)
        expect(page.locator("#job-head")).to_contain_text(f"step {step} of 120")
        expect(page.locator("#job-details .measured")).to_contain_text(f"after step {step}")
        lines_are(page, 4)


@pytest.mark.parametrize("width", [1400, 600])
def test_a_plot_is_whole_and_its_steps_are_steps(made, visit_jobs, width):
    shapes = {"aaaaa": (2, 2), "bbbbb": (4, 4), "ccccc": (7, 24), "ddddd": (90, 5000)}
    for id, (step, steps) in shapes.items():
        made.add(id, id, JobState.CANCELLED, step=step, steps=steps)
    page = visit_jobs(width=width)
    for id, (_, steps) in shapes.items():
        page.evaluate(f"document.querySelector('#jobs [data-id={id}]').click()")
        page.locator("#job-head h3").get_by_text(id).wait_for()
        for plot in ("#job-loss", "#job-shares"):
            page.wait_for_function(f"(plot) => ({DRAWN})(plot).inside", arg=plot)
            found = page.evaluate(DRAWN, plot)
            marks = [float(text.replace(",", "")) for text in found["steps"]]
            assert all(mark == round(mark) and 0 <= mark <= steps for mark in marks)
            assert len(set(found["steps"])) == len(marks) >= 2


def test_a_plot_says_the_values_at_the_step_that_is_pointed_at(made, visit_jobs):
    made.add("aaaaa", step=40)
    page = visit_jobs()
    plot = page.locator("#job-shares svg")
    page.wait_for_selector("#job-shares .legend .value")
    now = page.locator("#job-shares .legend .value").all_inner_texts()
    assert sum(int(text.removesuffix(" %")) for text in now) == 100
    plot.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    page.locator("#job-shares h4").get_by_text("at step 38").wait_for()
    plot.hover(position={"x": 46, "y": 80})
    page.locator("#job-shares h4").get_by_text("at step 1").wait_for()
    assert page.locator("#job-shares .legend .value").all_inner_texts() != now
    page.mouse.move(5, 5)
    page.get_by_role("tab", name="Train").focus()
    page.wait_for_function("!document.querySelector('#job-shares h4').textContent.includes('at')")
