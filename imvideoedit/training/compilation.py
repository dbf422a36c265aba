"""``torch.compile`` for each block of a transformer, which also works under gradient checkpointing."""

from diffusers import WanTransformer3DModel


def compile_blocks(transformer: WanTransformer3DModel) -> None:
    """Compile the blocks in place; all have one shape, so they share what is compiled."""
    for block in transformer.blocks:
        block.compile()
