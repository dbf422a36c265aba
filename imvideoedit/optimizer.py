"""Muon for matrices and AdamW for the rest, as one optimizer.

``torch.optim.Muon`` takes matrices only, and Lightning's automatic optimization takes one optimizer only.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer


class MuonWithAdamW(Optimizer):
    """Both in step: parameter groups, state and state dict are the two optimizers' own, side by side.

    Args:
        params: to train; those with two dimensions go to Muon, the others to AdamW.
        lr: learning rate of AdamW, above 0.
        muon_lr: of Muon, whose updates have the size that AdamW's would have at that rate; twice ``lr`` if None.
        weight_decay: of both.
        plain: more parameters for AdamW, whatever their shape, such as embeddings and the first and the last layer.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        muon_lr: float | None = None,
        weight_decay: float = 0.01,
        plain: Iterable[nn.Parameter] = (),
    ) -> None:
        given = list(params)
        matrices = [p for p in given if p.ndim == 2]
        others = [*(p for p in given if p.ndim != 2), *plain]
        self.parts: list[Optimizer] = []
        if matrices:
            rate = 2 * lr if muon_lr is None else muon_lr
            self.parts.append(Muon(matrices, rate, weight_decay, adjust_lr_fn="match_rms_adamw"))
        if others:
            self.parts.append(AdamW(others, lr, betas=(0.9, 0.98), weight_decay=weight_decay))
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share_groups()

    def _share_groups(self) -> None:
        """Make the groups the parts' own dictionaries, so that whoever sets a learning rate sets it there."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of each part; the closure, if any, runs once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()
