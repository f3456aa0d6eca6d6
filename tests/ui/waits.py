"""Waiting for what only a finished act can show.

An answer of the Studio reaches a page as a whole: who sees one part of it sees the others too.
"""

from contextlib import contextmanager

from job_processes import until


@contextmanager
def one_run(page, button="#generate"):
    """What happens inside asks for a run; afterwards it has begun and ended, and its end is shown.

    Also to the page's own stream of answers, which closes a moment after it gave the last one: until
    then the page drops a further press of the button, and complains of a reload.
    """
    page.evaluate("document.querySelector('#status .status').dataset.before = 1")
    closed = []

    def note(request):
        if "/queue/data" in request.url:
            closed.append(request)

    events = "requestfinished", "requestfailed"
    for event in events:
        page.on(event, note)
    try:
        yield
        page.wait_for_selector("#status .status:not([data-before], .loading)")
        page.wait_for_selector(f"{button}:not([disabled])")
        until(lambda: closed or page.wait_for_timeout(20))
    finally:
        for event in events:
            page.remove_listener(event, note)


@contextmanager
def keeping(page, *names):
    """What happens inside changes what the browser keeps by these names; afterwards it is kept."""
    keys = [f"lmoe-studio-{name}" for name in names]
    look = "keys => keys.map((key) => localStorage.getItem(key))"
    before = page.evaluate(look, keys)
    yield
    page.wait_for_function(
        f"([keys, before]) => ({look})(keys).every((now, at) => now !== before[at])",
        arg=[keys, before],
    )


def at_rest(page):
    """Nothing scrolls or moves any more: ten frames are alike."""
    page.evaluate(
        """async () => {
          const place = () => document.querySelector('#tabs').getBoundingClientRect().top;
          for (let alike = 0, last = NaN; alike < 10; ) {
            await new Promise(requestAnimationFrame);
            alike = place() === last ? alike + 1 : 0;
            last = place();
          }
        }"""
    )
