"""Train: make a bank of one's own, of texts or of adapters, and watch how its jobs go."""

from lmoe_studio.ui.page import Follower, Page
from lmoe_studio.ui.tabs import imported_bank, new_bank, training_jobs

TITLE = "Train"


def build(page: Page) -> Follower:
    """Lay out the tab: above what to train or import, below what trains and has trained."""
    form = new_bank.lay_out()
    adapters = imported_bank.lay_out()
    jobs = training_jobs.lay_out()
    training_jobs.wire(page, jobs)
    new_bank.wire(page, form, jobs)
    imported_bank.wire(page, adapters)

    return Follower([], lambda _: [])
