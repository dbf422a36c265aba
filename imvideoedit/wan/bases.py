"""Wan's published models: their sizes, what a folder declares of its model, and which of them are used here.

An adapter goes into one ``WanTransformer3DModel``. Models of another class, and models of two, are refused before
anything is loaded: part of their weights would be ignored.
"""

import inspect
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, ConfigMixin, DiffusionPipeline, WanTransformer3DModel

from imvideoedit.common.errors import UserError
from imvideoedit.wan.image_to_video import widened_config
from imvideoedit.wan.locations import NANO_IMAGE_TO_VIDEO, WAN_1_3B_HUB, WAN_5B_HUB, WAN_14B_HUB, locate, remedy

# transformer/config.json of Wan2.1-T2V-1.3B and so on; what it leaves out is the class's default.
WAN_1_3B: dict[str, Any] = {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960}
WAN_14B: dict[str, Any] = {"num_attention_heads": 40, "num_layers": 40, "ffn_dim": 13824}
# Of Wan2.1-Fun-1.3B-InP and of Wan2.1-I2V-14B, which read noise, mask and video, and an image's tokens.
WAN_1_3B_I2V: dict[str, Any] = {**WAN_1_3B, "in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 1536}
WAN_14B_I2V: dict[str, Any] = {**WAN_14B, "in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}
WAN_5B: dict[str, Any] = {
    "num_attention_heads": 24, "num_layers": 30, "ffn_dim": 14336, "in_channels": 48, "out_channels": 48,
}  # fmt: skip
# vae/config.json of Wan2.2-TI2V-5B, but for the latents' statistics; that of all others is the class's default.
WAN_5B_AUTOENCODER: dict[str, Any] = {
    "base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "is_residual": True, "in_channels": 12, "out_channels": 12,
    "patch_size": 2, "scale_factor_spatial": 16, "latents_mean": [0.0] * 48, "latents_std": [1.0] * 48,
}  # fmt: skip
KNOWN_SIZES = {"wan_1_3b": WAN_1_3B, WAN_1_3B_HUB: WAN_1_3B, WAN_5B_HUB: WAN_5B, WAN_14B_HUB: WAN_14B}  # without files
KNOWN_AUTOENCODERS = {WAN_5B_HUB: WAN_5B_AUTOENCODER}
INSTEAD = f"take {WAN_14B_HUB} or {WAN_5B_HUB}"


class _PipelineConfig(ConfigMixin):
    config_name = DiffusionPipeline.config_name


def check_declared(name: str, source: dict[str, Any]) -> None:
    """See that a backbone is one ``WanTransformer3DModel`` by its files, of which none is loaded.

    Args:
        name: of the backbone, for the error.
        source: where diffusers loads from.

    Raises:
        UserError: it is of another class, or has two experts.
    """
    declared = _load_config(_PipelineConfig, source)
    second = declared.get("transformer_2") or (None, None)
    if second[0] is not None or (Path(source["pretrained_model_name_or_path"]) / "transformer_2").is_dir():
        boundary = declared.get("boundary_ratio")
        where = "" if boundary is None else f", boundary_ratio {boundary}"
        raise UserError(
            f"backbone {name!r} has two experts (transformer and transformer_2{where}), and an adapter goes into one "
            f"transformer; {INSTEAD}"
        )
    config = _load_config(WanTransformer3DModel, source, subfolder="transformer")
    kind = config.get("_class_name", WanTransformer3DModel.__name__)
    if kind != WanTransformer3DModel.__name__:
        channels = config.get("in_channels", "unknown")
        raise UserError(
            f"backbone {name!r} is a {kind} of {channels} input channels, which no method here goes into; {INSTEAD}"
        )


def _load_config(kind: Any, source: dict[str, Any], **options: Any) -> dict[str, Any]:
    """A config as it is written; empty where there is none, which loading then says."""
    try:
        return dict(kind.load_config(**source, **options))
    except OSError:
        return {}


def transformer_config(name: str) -> dict[str, Any]:
    """The transformer's config, from the backbone's folder; of those in ``KNOWN_SIZES``, also without one.

    Raises:
        UserError: there is none, or the backbone is none of those that adapters go into.
    """
    try:
        place, revision = locate(name)
        source = {"pretrained_model_name_or_path": place, "revision": revision}
        found = dict(WanTransformer3DModel.load_config(**source, subfolder="transformer"))
    except (UserError, OSError):
        if name not in KNOWN_SIZES:
            raise
        with torch.device("meta"):
            return dict(WanTransformer3DModel(**KNOWN_SIZES[name]).config)
    check_declared(name, source)
    return widened_config(found) if name == NANO_IMAGE_TO_VIDEO else found


def autoencoder_config(name: str) -> dict[str, Any]:
    """The autoencoder's config, with the class's defaults; from the backbone's folder, or as in ``KNOWN_SIZES``.

    Raises:
        UserError: there is none.
    """
    signature = inspect.signature(AutoencoderKLWan.__init__).parameters.values()
    defaults = {each.name: each.default for each in signature if each.name != "self"}
    defaults |= {"_class_name": AutoencoderKLWan.__name__}
    try:
        place, revision = locate(name)
        return defaults | AutoencoderKLWan.load_config(place, revision=revision, subfolder="vae")
    except (UserError, OSError) as error:
        if name in KNOWN_SIZES:
            return defaults | KNOWN_AUTOENCODERS.get(name, {})
        if isinstance(error, UserError):
            raise
        words = " ".join(str(error).split())
        raise UserError(f"backbone {name!r} has no autoencoder ({words}); {remedy(name)}") from error


def pixel_multiple_of(name: str) -> int:
    """Height and width of a video must be multiples of this, see ``Backbone.pixel_multiple``; nothing is loaded.

    Raises:
        UserError: as :func:`transformer_config` and :func:`autoencoder_config`.
    """
    return autoencoder_config(name)["scale_factor_spatial"] * max(transformer_config(name)["patch_size"][1:])


def fitting_multiple(name: str, asked: int | None) -> int:
    """``data.pixel_multiple`` as ``asked``; :func:`pixel_multiple_of` the backbone if None.

    Raises:
        UserError: the backbone does not take such sides.
    """
    own = pixel_multiple_of(name)
    if asked is not None and asked % own:
        raise UserError(
            f"data.pixel_multiple is {asked}, but backbone {name!r} takes sides that are multiples of {own}; "
            "give that, or null"
        )
    return asked or own


def meta_transformer(config: dict[str, Any] | None = None) -> WanTransformer3DModel:
    """A transformer without storage, to count and to check shapes; of Wan2.1 1.3B unless a config is given."""
    with torch.device("meta"):
        return WanTransformer3DModel(**(WAN_1_3B if config is None else config)).requires_grad_(False).eval()
