"""Runs a workflow in ComfyUI's API format by its rules: checked as a whole first, then node by node, with a cache.

Every input is checked against ``INPUT_TYPES``: required ones are there, links join like types, values are converted and
lie in their ranges or lists. A node runs when what it takes is made, in inference mode, unless a run before gave the
same class the same inputs and ``IS_CHANGED`` is the same; what a run did not use is forgotten.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from tests.comfy_host import Comfy, Interrupted

Workflow = Mapping[str, Mapping[str, Any]]
CONVERSIONS = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


class Invalid(Exception):
    """The workflow is refused before a node runs."""


@dataclass
class Run:
    """What became of a workflow: the nodes that ran, in order, what outputs show, and where and why it ended early."""

    ran: list[str] = field(default_factory=list)
    shown: dict[str, Any] = field(default_factory=dict)
    interrupted: str | None = None
    failed: str | None = None
    error: str = ""


def is_link(value: Any) -> bool:
    return isinstance(value, list)


class Executor:
    """Holds nodes, and between runs their outputs by what they were made of."""

    def __init__(self, comfy: Comfy, nodes: Mapping[str, type]) -> None:
        self.comfy, self.nodes = comfy, dict(nodes)
        self.outputs: dict[Any, tuple[Any, ...]] = {}

    def run(self, workflow: Workflow, workflow_of_page: Any = None) -> Run:
        """Run all nodes that an output needs.

        Raises:
            Invalid: the workflow breaks a rule.
        """
        self.comfy.interrupt, self.comfy.asked, run = False, 0, Run()
        wanted = [key for key, node in workflow.items() if getattr(self._class(node), "OUTPUT_NODE", False)]
        if not wanted:
            raise Invalid("the workflow has no output")
        for key in wanted:
            self._check(workflow, key)
        changed = {key: self._changed(node) for key, node in workflow.items()}
        used: set[Any] = set()
        with torch.inference_mode():
            for key in wanted:
                if not self._run(workflow, key, changed, run, used, {"workflow": workflow_of_page}):
                    break
        self.outputs = {signature: made for signature, made in self.outputs.items() if signature in used}
        return run

    def _class(self, node: Mapping[str, Any]) -> Any:
        if node["class_type"] not in self.nodes:
            raise Invalid(f"there is no node {node['class_type']}")
        return self.nodes[node["class_type"]]

    def _check(self, workflow: Workflow, key: str) -> None:
        node = workflow[key]
        types = self._class(node).INPUT_TYPES()
        for name, (kind, *options) in (types.get("required", {}) | types.get("optional", {})).items():
            if name not in node["inputs"]:
                if name in types.get("required", {}):
                    raise Invalid(f"{key}.{name} is missing")
                continue
            value = node["inputs"][name]
            if is_link(value):
                source, slot = value
                given = self._class(workflow[source]).RETURN_TYPES[slot]
                if given != kind:
                    raise Invalid(f"{key}.{name} takes {kind}, not {given}")
                self._check(workflow, source)
            else:
                self._check_value(f"{key}.{name}", value, kind, options[0] if options else {})

    def _check_value(self, where: str, value: Any, kind: Any, options: Mapping[str, Any]) -> None:
        if isinstance(kind, list):
            if value not in kind:
                raise Invalid(f"{where} is not in its list")
            return
        if kind not in CONVERSIONS:
            raise Invalid(f"{where} takes {kind}, which only a link gives")
        try:
            value = CONVERSIONS[kind](value)
        except ValueError as error:
            raise Invalid(f"{where} is no {kind}") from error
        if not options.get("min", value) <= value <= options.get("max", value):
            raise Invalid(f"{where} is out of its range")

    def _changed(self, node: Mapping[str, Any]) -> Any:
        kind = self._class(node)
        if not hasattr(kind, "IS_CHANGED"):
            return None
        return kind.IS_CHANGED(**{name: None if is_link(value) else value for name, value in node["inputs"].items()})

    def _signature(self, workflow: Workflow, key: str, changed: Mapping[str, Any]) -> Any:
        node = workflow[key]
        inputs = (
            (name, (self._signature(workflow, value[0], changed), value[1]) if is_link(value) else value)
            for name, value in sorted(node["inputs"].items())
        )
        return node["class_type"], changed[key], tuple(inputs)

    def _run(self, workflow: Workflow, key: str, changed: Any, run: Run, used: set[Any], extra: Any) -> bool:
        """Make a node's outputs; False where that, or what it needs, failed or was cancelled."""
        signature, node = self._signature(workflow, key, changed), workflow[key]
        used.add(signature)
        for value in filter(is_link, node["inputs"].values()):
            if not self._run(workflow, value[0], changed, run, used, extra):
                return False
        if signature in self.outputs:
            return True
        kind, types = self._class(node), self._class(node).INPUT_TYPES()
        hidden = {"PROMPT": workflow, "EXTRA_PNGINFO": extra}
        values = {name: self._value(workflow, name, value, types, changed) for name, value in node["inputs"].items()}
        values |= {name: hidden[what] for name, what in types.get("hidden", {}).items()}
        try:
            self.comfy.check()
            made = getattr(kind(), kind.FUNCTION)(**values)
        except Interrupted:
            run.interrupted = key
            return False
        except Exception as error:
            run.failed, run.error = key, str(error)
            return False
        run.ran.append(key)
        if isinstance(made, dict):
            run.shown[key], made = made["ui"], made.get("result", ())
        assert len(made) == len(kind.RETURN_TYPES)
        self.outputs[signature] = made
        return True

    def _value(self, workflow: Workflow, name: str, value: Any, types: Mapping[str, Any], changed: Any) -> Any:
        if is_link(value):
            return self.outputs[self._signature(workflow, value[0], changed)][value[1]]
        kind = (types.get("required", {}) | types.get("optional", {}))[name][0]
        return CONVERSIONS[kind](value) if isinstance(kind, str) else value
