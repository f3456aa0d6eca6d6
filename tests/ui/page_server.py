"""The real page on a free port, over any source of studios."""

from contextlib import contextmanager
from tempfile import TemporaryDirectory

from ports import free_port

from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.ui.serve import serve
from lmoe_studio.ui.source import StudioSource


@contextmanager
def served(source, **options):
    """Without `jobs` among the options it has a home of its own, without any."""
    port = free_port()
    with TemporaryDirectory() as home:
        app = serve(source, "127.0.0.1", port, **({"jobs": Jobs(home)} | options))
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            app.close(verbose=False)


def source_of(studio):
    source = StudioSource(lambda bank, on_progress: studio, lambda: ["demo", "other"])
    source.start("demo")
    return source
