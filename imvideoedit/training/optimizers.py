"""Muon for matrices and AdamW for the rest, as one optimizer.

``torch.optim.Muon`` takes matrices only, and Lightning's automatic optimization one optimizer only. torch's also
orthogonalizes in bfloat16 everywhere: five times faster than float32 where a processor has instructions for it, many
times slower on a CPU without.

Shapes: N matrices, R rows, C columns.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from imvideoedit.common.errors import UserError
from imvideoedit.training.precision import fast_precision


class BatchedMuon(Muon):
    """Muon batched over matrices of one shape, in bfloat16 where that is fast; updates have AdamW's RMS."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(params, lr, weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; ``closure``, if given, recomputes the loss first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        half = fast_precision() == "bf16-mixed"
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in shapes.items():
                averaged_NRC = torch.stack([self._with_momentum(p, group) for p in parameters])
                x_NRC = averaged_NRC.bfloat16() if half else averaged_NRC
                update_NRC = orthogonalized(x_NRC, group["ns_coefficients"], group["ns_steps"], group["eps"])
                rate = 0.2 * max(shape) ** 0.5 * group["lr"]
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(parameters, list(update_NRC.to(averaged_NRC.dtype)), alpha=-rate)
        return loss

    def _with_momentum(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """Nesterov momentum: the gradient mixed with its running mean."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        mean = state.setdefault("momentum_buffer", torch.zeros_like(gradient))
        mean.lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(mean, group["momentum"])


def orthogonalized(x_NRC: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Nearly orthogonal matrices with the given ones' row and column spaces, by Newton-Schulz iterations."""
    a, b, c = coefficients
    wide_NRC = x_NRC.mT if x_NRC.shape[1] > x_NRC.shape[2] else x_NRC
    wide_NRC = wide_NRC / wide_NRC.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram_NRR = wide_NRC @ wide_NRC.mT
        gram_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
        wide_NRC = torch.baddbmm(wide_NRC, gram_NRR, wide_NRC, beta=a)
    return wide_NRC.mT if x_NRC.shape[1] > x_NRC.shape[2] else wide_NRC


class MuonWithAdamW(Optimizer):
    """One optimizer of two: parameter groups and states are those of :class:`BatchedMuon` and AdamW.

    Args:
        params: to train; Muon updates those with two dimensions, AdamW the others.
        lr: learning rate of AdamW, above 0.
        muon_lr: learning rate of Muon, whose updates have the size of AdamW's at that rate; ``2 * lr`` if None.
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
            self.parts.append(BatchedMuon(matrices, rate, weight_decay))
        if others:
            self.parts.append(AdamW(others, lr, betas=(0.9, 0.98), weight_decay=weight_decay))
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._link_groups()

    def _link_groups(self) -> None:
        """Use the parts' own group dictionaries, so that a scheduler sets their learning rates."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of each part; ``closure``, if given, runs once."""
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
        self._link_groups()


def adamw_8bit(params: Iterable[nn.Parameter], **options: Any) -> Optimizer:
    """bitsandbytes' AdamW with moments in 8 bits.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise UserError(
            f"optimizer=adamw_8bit needs bitsandbytes, which cannot be imported ({error}); "
            "pip install 'imvideoedit[train]', or choose optimizer=adamw with trainer=zero2_offload"
        ) from error
    return AdamW8bit(params, **options)


def adamw(params: Iterable[nn.Parameter], **options: Any) -> Optimizer:
    """Fused AdamW, which makes no temporary copies of all weights."""
    optimizer = AdamW(params, fused=True, **options)
    # Lightning refuses to clip the gradients of an optimizer with this attribute, as it may unscale them itself;
    # bfloat16 and float32 need no scaling.
    optimizer._step_supports_amp_scaling = False
    return optimizer
