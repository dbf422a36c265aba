"""Where the files lie that the package brings: nano backbones, an adapter, which of its heads are temporal, SigLIP."""

from pathlib import Path

_NANO = Path(__file__).parents[1] / "nano"
WEIGHTS = _NANO / "weights"
ADAPTER = _NANO / "adapter.safetensors"
HEADS = _NANO / "heads.json"
IMAGE_TO_VIDEO = _NANO / "image_to_video.safetensors"  # what makes the nano backbone an image-to-video one
SIGLIP = _NANO / "siglip"


def adapter_path(adapter: Path | str) -> Path:
    """The file of an adapter; ``bundled`` names the one in the package."""
    return ADAPTER if adapter == "bundled" else Path(adapter)


def heads_path(heads: Path | str) -> Path:
    """The file of head masks; ``bundled`` names the one in the package."""
    return HEADS if heads == "bundled" else Path(heads)


def siglip_path(siglip: str) -> str:
    """The folder or hub id of a SigLIP; ``bundled`` names the one in the package."""
    return str(SIGLIP) if siglip == "bundled" else siglip
