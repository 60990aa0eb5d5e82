"""A folder onto the Hugging Face hub, or one like it (HF_ENDPOINT)."""

import os
import re
from pathlib import Path

from foundry_core.errors import FoundryError

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_TOKEN = "HF_TOKEN"


def check_push(repository: str) -> str:
    """The token, of the environment and from nowhere else. FoundryError where there is none, and
    for what is no repository's name."""
    if not _NAME.fullmatch(repository):
        raise FoundryError(f"{repository!r} is no repository on a hub", "ORG/NAME")
    token = os.environ.get(_TOKEN, "")
    if not token:
        raise FoundryError(
            f"pushing to {repository} needs a token that may write",
            f"set {_TOKEN}; tokens that a login left on this machine are not used",
        )
    return token


def push(folder: Path, repository: str, message: str, *, private: bool = False) -> str:
    """Makes the repository where there is none and commits the folder; the commit's address.
    FoundryError for whatever the hub answers."""
    token = check_push(repository)
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True, repo_type="model")
        done = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message=message, repo_type="model"
        )
    except Exception as error:
        first = str(error).strip().partition("\n")[0].replace(token, "***")
        raise FoundryError(
            f"{repository} was not pushed: {type(error).__name__}: {first}",
            f"the folder is whole; check {_TOKEN}, its rights and HF_ENDPOINT",
        ) from None
    return str(done.commit_url)
