"""What compiled blocks ask of a GPU: the kernels that torch's compiler fuses, scheduled and not run.

The compiler (inductor) traces, differentiates, partitions and fuses as for real, by the rules of its Triton backend. A
node of the schedule is one launch, with the bytes that inductor counts for it; products and attention are launches of
their own. No code is generated, and results are empty tensors.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._guards import detect_fake_mode
from torch._inductor import config, ir, scheduler
from torch._inductor.compile_fx import (
    _recursive_post_grad_passes,
    _recursive_record_original_output_strides,
    compile_fx,
    view_to_reshape,
)
from torch._inductor.debug import DebugContext
from torch._inductor.graph import GraphLowering
from torch._inductor.virtualized import V
from torch.fx import GraphModule, Node
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import flop_registry

from imvideoedit.benchmark.launches import Count


class Scheduled:
    """A backend of ``torch.compile``.

    Attributes:
        graphs: that the compiler made, of forward and backward passes.
        total: costs of all runs of them.
    """

    def __init__(self) -> None:
        self.graphs, self.total = 0, Count()

    def __call__(self, graph: GraphModule, inputs: Sequence[Any]) -> Any:
        inner: Any = self._schedule
        return compile_fx(graph, inputs, inner_compile=inner)

    def _schedule(self, graph: GraphModule, inputs: Sequence[Any], **options: Any) -> Callable[[list[Any]], Any]:
        self.graphs += 1
        count = schedule(graph, inputs, **options)
        (results,) = [node.args[0] for node in graph.graph.nodes if node.op == "output"]
        shapes = [None if node is None else node.meta["val"] for node in results]

        def run(arguments: list[Any]) -> list[Any]:
            arguments.clear()
            self.total += count
            return [
                torch.empty_strided(each.shape, each.stride(), dtype=each.dtype) if isinstance(each, Tensor) else each
                for each in shapes
            ]

        run._boxed_call = True  # type: ignore[attr-defined]
        return run


def schedule(graph: GraphModule, inputs: Sequence[Any], **options: Any) -> Count:
    """Costs of a graph that inductor is about to compile."""
    inference, backward = (bool(options.get(name)) for name in ("is_inference", "is_backward"))
    with contextlib.ExitStack() as stack:
        # Where the computation runs on fake tensors, their mode is not the one that the compiler traces with.
        for each in (_disable_current_modes(), V.set_fake_mode(detect_fake_mode(inputs)), DebugContext()):
            stack.enter_context(each)
        stack.enter_context(config.patch(cpu_backend="triton"))  # fuses by a GPU's rules
        _recursive_record_original_output_strides(graph)
        view_to_reshape(graph)
        _recursive_post_grad_passes(graph, is_inference=inference)
        lowered = GraphLowering(graph, example_inputs=inputs, is_inference=inference, is_backward=backward)
        with V.set_graph_handler(lowered), V.set_extern_kernel_nodes([]):
            lowered.run(*inputs)
            lowered.init_wrapper_code()
            lowered._update_scheduler()
            nodes = [node for node in lowered.scheduler.nodes if not _is_free(node)]
            moved = sum(node.get_read_write_buffers_sizes() for node in nodes)
    return Count(len(nodes), moved, sum(map(_flops, graph.graph.nodes)))


def _is_free(node: Any) -> bool:
    """Whether a node of the schedule launches nothing: it only names a result or a place."""
    return isinstance(node, scheduler.NopKernelSchedulerNode) or isinstance(node.node, ir.MultiOutput)


def _flops(node: Any) -> int:
    packet = getattr(node.target, "overloadpacket", None)
    if packet not in flop_registry:
        return 0
    values = tree_map(_value, (node.args, node.kwargs))
    return flop_registry[packet](*values[0], **values[1], out_val=node.meta["val"])


def _value(each: Any) -> Any:
    return each.meta["val"] if isinstance(each, Node) else each
