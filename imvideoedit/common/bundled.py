"""Where the files lie that the package brings: the nano backbone and its adapter."""

from pathlib import Path

_NANO = Path(__file__).parents[1] / "nano"
WEIGHTS = _NANO / "weights"
ADAPTER = _NANO / "adapter.safetensors"


def adapter_path(adapter: Path | str) -> Path:
    """The file of an adapter; ``bundled`` names the one in the package."""
    return ADAPTER if adapter == "bundled" else Path(adapter)
