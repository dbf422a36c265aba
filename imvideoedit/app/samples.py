"""Sample clips of the nano world for the page, rendered when it starts."""

from dataclasses import dataclass
from pathlib import Path

from imvideoedit.video.reader import write_video
from imvideoedit.world.grammar import describe
from imvideoedit.world.render import render
from imvideoedit.world.scenes import Scene, Thing

FRAMES = 17
FPS = 8


@dataclass(frozen=True)
class Sample:
    """A clip and instructions for it."""

    name: str
    scene: Scene
    instructions: tuple[str, ...]

    @property
    def prompt(self) -> str:
        """Description of the scene in the world's own words."""
        return describe(self.scene)


SAMPLES = (
    Sample(
        "red box",
        Scene("beige", "plain", (Thing("box", "red", motion="moving right", x=0.3, y=0.5, size="large"),)),
        ("remove the red box", "make the red box blue", "replace the background with a navy dotted background"),
    ),
    Sample(
        "fish",
        Scene("navy", "wavy", (Thing("fish", "orange", size="large", motion="moving left", x=0.65, y=0.45),)),
        ("remove the orange fish", "replace the background with a lavender plain background", "make it sepia style"),
    ),
    Sample(
        "star and ball",
        Scene(
            "teal",
            "checkered",
            (
                Thing("star", "yellow", motion="circling", x=0.28, y=0.3),
                Thing("ball", "pink", material="shiny", motion="bouncing", x=0.7, y=0.7),
            ),
        ),
        ("change the light to sunset light from the left", "remove the pink ball", "remove the yellow star"),
    ),
)


def render_samples(folder: Path) -> list[Path]:
    """Write every sample as an .mp4 of 64×64 pixels into ``folder``, in order.

    Raises:
        UserError: the disk refuses it.
    """
    paths = []
    for sample in SAMPLES:
        paths.append(folder / f"{sample.name.replace(' ', '_')}.mp4")
        write_video(paths[-1], render(sample.scene, FRAMES), fps=FPS)
    return paths
