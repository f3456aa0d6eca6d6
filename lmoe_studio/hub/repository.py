"""Put a bank on the Hugging Face hub."""

import tempfile
from pathlib import Path

from huggingface_hub import HfApi

from lmoe_studio.errors import HubError
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.experts.files import load_bank, read_card, write_bank_into


def push_bank(
    bank: ExpertBank | str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    commit_message: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
) -> str:
    """Put a bank on the hub, without its base model; the answer is its address.

    Args:
        bank: the bank, or its name or folder, whose own README.md goes with it.
        repo_id: user/name; made where it is not.
        private: whether others may see a new one; None leaves it to the account.
        commit_message: of the upload.
        revision: branch to put it on.
        create_pr: ask for it to be taken in instead.
        token: of the account; None takes the one of `hf auth login`.

    Raises:
        HubError: the hub cannot be reached, or does not take it.
        BankError: there is no such bank, or it is damaged.
    """
    card = None if isinstance(bank, ExpertBank) else read_card(bank)
    whole = bank if isinstance(bank, ExpertBank) else load_bank(bank)
    with tempfile.TemporaryDirectory() as made:
        write_bank_into(whole, Path(made), card=card)
        api = HfApi(token=token)
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            done = api.upload_folder(
                repo_id=repo_id, folder_path=made, revision=revision, create_pr=create_pr,
                commit_message=commit_message or f"Bank {whole.name}",
            )  # fmt: skip
        except Exception as error:  # the library, and the transport below it, have many kinds
            said = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise HubError(
                f"The bank '{whole.name}' could not be put on the hub as '{repo_id}': {said[:300]} "
                "(write user/name; `hf auth login` says who you are.)"
            ) from None
    return str(done.pr_url or f"{api.endpoint}/{repo_id}")
