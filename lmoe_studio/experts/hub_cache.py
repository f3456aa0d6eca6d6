"""Banks of the Hugging Face hub: fetched once into the user's cache folder, file by file."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from lmoe_studio.errors import HubError
from lmoe_studio.home import cache_folder

_FILES = (
    "*.json",
    "router.safetensors",
    "README.md",
    "experts/*/*.json",
    "experts/*/*.safetensors",
)


def fetched(repo_id: str, revision: str | None = None) -> Path:
    """The folder of a bank of the hub.

    Args:
        repo_id: user/name.
        revision: branch, tag or commit; None is the main branch.

    Raises:
        HubError: it is not there, not allowed, or the hub cannot be reached and it was never fetched.
    """
    folder = (
        cache_folder()
        / "hub"
        / "--".join([*repo_id.split("/"), "at", *(revision or "main").split("/")])
    )
    known = f"'{repo_id}'" + (f" at '{revision}'" if revision else "")
    try:
        snapshot_download(repo_id, revision=revision, local_dir=folder, allow_patterns=list(_FILES))
    except HFValidationError:
        raise HubError(f"{known} is no id of the Hugging Face hub; write user/name.") from None
    except GatedRepoError:
        raise HubError(
            f"{known} asks for its terms to be accepted; do so on its page, then `hf auth login`."
        ) from None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise HubError(
            f"There is no {known} here as a folder, nor on the Hugging Face hub, or it is private; "
            "check the name, or `hf auth login`."
        ) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        if not (folder / "bank.json").is_file():
            raise HubError(
                f"There is no folder {known}, and the Hugging Face hub could not be reached for it "
                f"({_first_line(error)}); check the name and the network."
            ) from None
    if not (folder / "bank.json").is_file():
        raise HubError(f"{known} on the hub is no bank: it has no bank.json.")
    return folder


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
