"""The text-driven gate on the refinement (Eq. 8 and 9).

Shapes: B batch, L tokens, T text tokens, D width.
"""

import torch
from torch import Tensor, nn

from imvideoedit.layers.attention import Attention, KeysValues


class SemanticGate(nn.Module):
    """G = σ(GateProj(CrossAttn(LN(Δ), text))): how much of the refinement each token and channel keeps.

    Args:
        attention: inherits the weights of the block's cross-attention.
        norm: layer norm on Δ.
        width: D.
        hidden: inner width of the two-layer GateProj.
    """

    def __init__(self, attention: Attention, norm: nn.Module, width: int, hidden: int, device=None, dtype=None) -> None:
        super().__init__()
        self.norm = norm
        self.attention = attention
        self.projection = nn.Sequential(
            nn.Linear(width, hidden, device=device, dtype=dtype),
            nn.SiLU(),
            nn.Linear(hidden, width, device=device, dtype=dtype),
        )

    def forward(self, delta_BLD: Tensor, text: Tensor | KeysValues) -> Tensor:
        """Return the gate ``[B, L, D]``, each entry in (0, 1).

        Args:
            delta_BLD: the refinement Δ.
            text: embedded, ``[B, T, D]``, or its keys and values by ``attention``.
        """
        attended = self.attention.keys_values(text) if isinstance(text, Tensor) else text
        # Eq. 8: S = CrossAttn(query = LN(Δ), key/value = text)
        semantics_BLD = self.attention(self.norm(delta_BLD), attended)
        # Eq. 9: G = σ(GateProj(S))
        return torch.sigmoid(self.projection(semantics_BLD))
