"""GPUs by name, and the time in which one does what has been counted.

Host and device work side by side, so that a computation takes the longer of the two: the host's launches, and the
device's bytes and FLOPs, one after the other. Copies between the two run beside both, and are what it takes where they
take longest. Three constants hold for all computations and cards. They were fitted to ten figures of one H200
(:mod:`imvideoedit.benchmark.gpu_model`); that machine's processors had other work besides, so that launches are dear.
The share of the link's speed is an assumption.
"""

from dataclasses import dataclass

from imvideoedit.benchmark.launches import Count

LAUNCH = 33.5e-6  # seconds of the host for an operation from Python, with the views and modules between two
COMPILED_LAUNCH = 10e-6  # in compiled code; assumed, as no compiled step has been measured
BANDWIDTH = 0.82  # of the stated one
RATE = 0.65  # of the stated one
LINK = 0.8  # of the stated one; assumed


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        bandwidth: stated, bytes a second.
        rate: stated dense FLOP/s in bfloat16, with sums in float32.
        link: stated bytes a second to and from the host, one direction at a time.
    """

    name: str
    bandwidth: float
    rate: float
    link: float = 32e9

    def parts(self, count: Count, launch: float = LAUNCH) -> tuple[float, float, float]:
        """Seconds of the launches, of the bytes and of the FLOPs.

        Args:
            launch: seconds of one launch.
        """
        return (
            count.launches * launch,
            count.bytes / (BANDWIDTH * self.bandwidth),
            count.flops / (RATE * self.rate),
        )

    def seconds(self, count: Count, launch: float = LAUNCH) -> float:
        """What a computation should take."""
        launches, moved, computed = self.parts(count, launch)
        return max(launches, moved + computed, count.moved / (LINK * self.link))


H200 = Card("H200", 4.8e12, 989e12, 64e9)
CARDS = (
    H200,
    Card("H100", 3.35e12, 989e12, 64e9),
    Card("A100", 2.04e12, 312e12),
    Card("4090", 1.01e12, 165e12),
)
