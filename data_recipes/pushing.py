"""An exported data set, on the hub."""

from pathlib import Path

import huggingface_hub

from imvideoedit.common.errors import UserError


def push(folder: Path, repository: str) -> str:
    """Upload a folder to a private data set, made if there is none; returns its address.

    The token is the one that ``hf auth login`` keeps, or the environment's ``HF_TOKEN``.

    Raises:
        UserError: the hub cannot be reached, or does not let us.
    """
    try:
        huggingface_hub.create_repo(repository, repo_type="dataset", private=True, exist_ok=True)
        huggingface_hub.upload_folder(repo_id=repository, repo_type="dataset", folder_path=folder)
    except Exception as error:  # of the hub, of its HTTP library or of the system
        raise UserError(
            f"cannot push to {repository} ({error}); check export.push, HF_TOKEN and the network. "
            f"The data set itself is in {folder}"
        ) from error
    return f"https://huggingface.co/datasets/{repository}"
