"""Find out which heads of a backbone's self-attention are temporal (FFP-300K, Sec. 8.1):

    python -m imvideoedit.methods.freeprop_heads clips/*.mp4 --backbone FOLDER --output heads.json

A head is temporal in a video if any density rho_ij between two frames is above the lowest one within a frame, where
rho_ij is the share of attention weights from frame i to frame j above a threshold; most videos and noise levels decide.
Attention is computed for one frame's queries of one head at a time, so the whole map is never held.

Shapes: B = 1 batch, F frames, L tokens, N heads, E width of a head, P tokens of a frame.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.data.sizes import fit, make_buckets, nearest_bucket
from imvideoedit.layers.rope import apply_rotary
from imvideoedit.methods.head_masks import write_head_masks
from imvideoedit.video.reader import read_video
from imvideoedit.wan.backbone import Backbone, load_backbone
from imvideoedit.wan.forward import denoise
from imvideoedit.world.grammar import describe
from imvideoedit.world.render import render
from imvideoedit.world.scenes import sample_scene

EPSILON = 1e-6  # the paper's threshold
SIGMAS = (0.25, 0.5, 0.75)
VIDEOS = 10  # of the nano world, where no clip is given


@torch.no_grad()
def densities(query_BLNE: Tensor, key_BLNE: Tensor, frames: int, epsilon: float) -> Tensor:
    """rho of each head, ``[N, F, F]``: rows are frames of queries.

    Args:
        query_BLNE, key_BLNE: of one sample, rotated to their positions.
        epsilon: threshold of an attention weight.
    """
    tokens = query_BLNE.shape[1] // frames
    rho = torch.zeros(query_BLNE.shape[2], frames, frames)
    for head in range(query_BLNE.shape[2]):
        keys = key_BLNE[0, :, head].float().T / query_BLNE.shape[-1] ** 0.5
        for i in range(frames):
            queries = query_BLNE[0, i * tokens : (i + 1) * tokens, head].float()
            above = (queries @ keys).softmax(-1) > epsilon
            rho[head, i] = above.unflatten(-1, (frames, tokens)).float().mean((0, 2))
    return rho


def is_temporal(rho_NFF: Tensor) -> Tensor:
    """Bool ``[N]``: the largest density between frames is above the smallest within one."""
    own = torch.eye(rho_NFF.shape[-1], dtype=torch.bool)
    between = rho_NFF.masked_fill(own, -1).amax((1, 2))
    return between > rho_NFF.diagonal(dim1=1, dim2=2).amin(-1)


def classify(backbone: Backbone, videos: Sequence[tuple[np.ndarray, str]], epsilon: float) -> list[list[int]]:
    """1 for each temporal head of each block, by the majority of videos and noise levels; a tie is spatial.

    Args:
        videos: uint8 ``[F, H, W, 3]`` of at least 5 frames, and captions.
    """
    votes = torch.zeros(len(backbone.transformer.blocks), backbone.transformer.config.num_attention_heads)
    for number, (video, caption) in enumerate(videos):
        pixels = torch.from_numpy(video).permute(3, 0, 1, 2)[None].float().to(backbone.device) / 127.5 - 1
        clean = backbone.encode_video(pixels)
        text = backbone.encode_text([caption])
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(number)).to(clean)
        for sigma in SIGMAS:
            level = torch.full((1,), sigma, device=clean.device)

            def vote(block: int, query: Tensor, key: Tensor, frames: int = clean.shape[2]) -> None:
                votes[block] += is_temporal(densities(query, key, frames, epsilon)).float()

            with _attention(backbone, vote), torch.no_grad():
                denoise(backbone.transformer, clean.lerp(noise, sigma), level, text)
        print(f"{number + 1} of {len(videos)} videos")
    return (votes > len(videos) * len(SIGMAS) / 2).int().tolist()


@contextmanager
def _attention(backbone: Backbone, seen: Callable[[int, Tensor, Tensor], None]) -> Iterator[None]:
    """Inside, each block's rotated queries and keys are shown before its self-attention runs."""

    def show(index: int) -> Any:
        def hook(attention: Any, args: tuple[Any, ...]) -> None:
            query, key = (
                apply_rotary(norm(linear(args[0])).unflatten(-1, (attention.heads, -1)), *args[3])
                for norm, linear in ((attention.norm_q, attention.to_q), (attention.norm_k, attention.to_k))
            )
            seen(index, query, key)

        return hook

    blocks: list[Any] = list(backbone.transformer.blocks)
    handles = [block.attn1.register_forward_pre_hook(show(index)) for index, block in enumerate(blocks)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _clips(paths: Sequence[Path], backbone: Backbone, frames: int, max_area: int) -> list[tuple[np.ndarray, str]]:
    sizes = make_buckets(max_area, backbone.pixel_multiple)
    found = []
    for path in paths:
        clip = read_video(path, frames)[0]
        if len(clip) < frames:
            raise UserError(
                f"{path} has {len(clip)} frames, fewer than {frames}; give a longer clip, or lower --frames"
            )
        size = nearest_bucket(clip[0].shape[:2], sizes)
        found.append((np.stack([fit(frame, size) for frame in clip]), ""))
    return found


def _nano(frames: int) -> list[tuple[np.ndarray, str]]:
    scenes = [sample_scene(np.random.default_rng((7, number)), "train") for number in range(VIDEOS)]
    return [(render(scene, frames), describe(scene)) for scene in scenes]


@exit_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = CommandLine(prog="python -m imvideoedit.methods.freeprop_heads", description=__doc__)
    parser.add_argument("clips", nargs="*", type=Path, help="videos; without any, ten of the nano world")
    parser.add_argument("--backbone", default="nano", help="a name or a diffusers folder (default: nano)")
    parser.add_argument("--output", type=Path, required=True, help="the file for method.heads")
    parser.add_argument("--frames", type=int, default=17, help="of each video, 4k + 1 and at least 5 (default: 17)")
    parser.add_argument("--max-area", type=int, default=480 * 832, help="pixels of a frame of a clip")
    parser.add_argument("--epsilon", type=float, default=EPSILON, help=f"threshold (default: {EPSILON}, the paper's)")
    given = parser.parse_args(argv)
    if given.frames < 5 or given.frames % 4 != 1 or not 0 < given.epsilon < 1:
        raise UserError(
            f"--frames is {given.frames} and --epsilon {given.epsilon}; give 4k + 1 frames, at least 5, and a "
            "threshold between 0 and 1"
        )
    backbone = load_backbone(given.backbone)
    if not given.clips and not backbone.is_nano:
        raise UserError(f"no clips are given, and {backbone.name} is not of the nano world; give some videos")
    videos = _clips(given.clips, backbone, given.frames, given.max_area) if given.clips else _nano(given.frames)
    temporal = classify(backbone, videos, given.epsilon)
    how = {"epsilon": given.epsilon, "frames": given.frames, "videos": len(videos), "sigmas": list(SIGMAS)}
    write_head_masks(given.output, temporal, backbone.parameter_hash(), **how)
    count = sum(map(sum, temporal))
    print(f"{count} of {len(temporal) * len(temporal[0])} heads are temporal: {given.output}")


if __name__ == "__main__":
    main()
