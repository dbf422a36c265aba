"""Where an edit keeps what it knows of the source from step to step, block by block, by what fits into memory.

A block's features are a pair that the source's own pass records, and what the block's processor prepares of that pair,
which is larger and the same at each step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Place = Literal["prepared", "recorded", "host"]
WORDS: dict[Place, str] = {
    "prepared": "keys and values of the source kept",
    "recorded": "computed anew at each step",
    "host": "computed anew from the CPU's memory",
}


@dataclass(frozen=True)
class BlockBytes:
    """Size of a block's features: of the recorded pair, and of all that is prepared of it."""

    recorded: int
    prepared: int


@dataclass(frozen=True)
class KeepPlan:
    """Where the features of each block are. All plans give the same edit.

    Attributes:
        places: of each block; ``prepared``: what was prepared is kept on the device; ``recorded``: the pair is kept
            there, of which each pass prepares anew; ``host``: the pair is kept in the CPU's memory. Empty: all
            prepared.
    """

    places: tuple[Place, ...] = ()

    def of_block(self, index: int) -> Place:
        """Where a block's features are."""
        return self.places[index] if self.places else "prepared"

    @property
    def everything(self) -> bool:
        """Whether nothing is computed twice."""
        return set(self.places) <= {"prepared"}

    def device_bytes(self, sizes: Sequence[BlockBytes]) -> int:
        """Bytes on the device, for features of these sizes."""
        total = 0
        for index, size in enumerate(sizes):
            place = self.of_block(index)
            total += 0 if place == "host" else size.recorded if place == "recorded" else size.prepared
        return total

    def describe(self, blocks: int) -> str:
        """The places with the number of their blocks, in words."""
        places = [self.of_block(index) for index in range(blocks)]
        counts = {place: places.count(place) for place in WORDS}
        return ", ".join(f"{WORDS[place]} in {count} of {blocks} blocks" for place, count in counts.items() if count)


def plan_keeping(sizes: Sequence[BlockBytes], room: float, host_room: float = 0.0, windows: int = 1) -> KeepPlan | None:
    """The plan for each of several windows that computes least; None where not even the recorded pairs fit.

    Args:
        sizes: of each block in one window.
        room: bytes on the device.
        host_room: bytes in the CPU's memory besides.
    """
    places: list[Place] = []
    # What one block prepares is there for a while, wherever its features are kept.
    left = (room - max((size.prepared for size in sizes), default=0)) / windows
    host_room /= windows
    for size in sizes:
        places.append("recorded" if size.recorded <= left else "host")
        if places[-1] == "recorded":
            left -= size.recorded
        else:
            host_room -= size.recorded
    if host_room < 0:
        return None
    for index, size in enumerate(sizes):
        more = size.prepared - size.recorded
        if places[index] == "recorded" and more <= left:
            places[index], left = "prepared", left - more
    return KeepPlan(tuple(places))
