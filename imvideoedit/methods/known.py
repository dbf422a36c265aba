"""The methods whose adapter files this imvideoedit loads, by name."""

from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.methods.base import Method
from imvideoedit.methods.freeprop import FreeProp
from imvideoedit.methods.in_context import InContext
from imvideoedit.methods.lora_edit import LoraEdit
from imvideoedit.methods.mive import Mive
from imvideoedit.methods.parallel_2d import Parallel2D
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.methods.sama import Sama

KINDS = (PredictUpdate, AlignedUpdate, Parallel2D, FreeProp, InContext, LoraEdit, Sama, Mive)
METHODS: dict[str, type[Method]] = {kind.name: kind for kind in KINDS}
