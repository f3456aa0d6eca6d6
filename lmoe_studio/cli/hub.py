"""`lmoe push` and `lmoe pull`: banks of the Hugging Face hub."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from lmoe_studio.cli.console import say, waiting
from lmoe_studio.cli.destination import require_new_folder

commands = typer.Typer()


@commands.command("push", epilog="Example: `lmoe push my-bank me/my-bank`")
def _push(
    bank: Annotated[str, typer.Argument(help="A bank's name, or its folder.")],
    repo_id: Annotated[str, typer.Argument(help="USER/NAME on the hub; made where it is not.")],
    private: Annotated[bool, typer.Option("--private", help="Let no one else see it.")] = False,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Ask for it to be taken in.")
    ] = False,
) -> None:
    """Put a bank on the Hugging Face hub, without its base model."""
    from lmoe_studio.hub.repository import push_bank

    with waiting() as tell:
        tell(f"Sending {bank}")
        address = push_bank(
            bank, repo_id, private=private or None, commit_message=message, create_pr=create_pr
        )
    say(f"{bank} is at {address}")


@commands.command("pull", epilog="Example: `lmoe pull me/my-bank`, then `lmoe app --bank my-bank`")
def _pull(
    repo_id: Annotated[str, typer.Argument(help="USER/NAME on the hub.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; left out, it becomes one of your banks by its name."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
) -> None:
    """Fetch a bank from the Hugging Face hub."""
    from lmoe_studio.experts.files import load_bank
    from lmoe_studio.experts.hub_cache import fetched
    from lmoe_studio.home import banks_folder
    from lmoe_studio.whole import whole_folder

    place = out or banks_folder() / repo_id.rpartition("/")[2]
    require_new_folder(place)
    with waiting() as tell:
        tell(f"Fetching {repo_id}")
        source = fetched(repo_id, revision)
        loaded = load_bank(source)  # a stranger's files are looked at first
        with whole_folder(place) as folder:
            shutil.copytree(
                source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".cache")
            )
    say(f"Wrote {place}: {len(loaded.experts)} experts for {loaded.base.id}.")
