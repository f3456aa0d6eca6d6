"""What tests of the Train tab do on its page."""

HOSTILE = "<img src=x onerror=window.hit=1>${window.hit=1}{{x}}</script>"
LONG = "an-uncommonly-long-name-" * 3


def opened(page):
    """The Train tab, ready to be used."""
    page.get_by_role("tab", name="Train").click()
    page.wait_for_selector("#skills .row >> visible=true")
    page.wait_for_selector("#jobs-empty .panel, #jobs [aria-current=true]", state="attached")
    return page


def set_option(page, name, value):
    """Fill a field of the form, which is folded away twice."""
    page.evaluate(
        "document.querySelectorAll('#options details').forEach((one) => (one.open = true))"
    )
    page.fill(f"#option-{name}", str(value))


def started(page, steps, **options):
    """A job of the example's texts, over the tiny model."""
    page.click("text=fill in an example")
    for name, value in ({"steps": steps, "sequence_length": 32} | options).items():
        set_option(page, name, value)
    page.click("#start")
    page.wait_for_selector("#job-head .job")


def state_is(page, state):
    page.wait_for_selector(f"#job-head .job.{state}", timeout=300_000)
