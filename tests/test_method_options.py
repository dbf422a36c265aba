"""A wrong choice of a method's settings names the setting."""

import pytest

from imvideoedit.common.errors import UserError
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.methods.parallel_2d import Parallel2D
from imvideoedit.methods.predict_update import PredictUpdate


@pytest.mark.parametrize("kind", [PredictUpdate, Parallel2D, AlignedUpdate])
@pytest.mark.parametrize("option", ["source_stream", "adapter", "position"])
def test_unknown_choices_name_the_option(kind, option):
    with pytest.raises(UserError, match=f"method.{option} is 'other'; choose"):
        kind(**{option: "other"})
