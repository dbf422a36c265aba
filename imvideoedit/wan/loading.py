"""What goes wrong while a backbone's parts are loaded, in one line."""

import contextlib
from collections.abc import Iterator

from torch import nn

from imvideoedit.common.errors import UserError
from imvideoedit.common.tensor_file import first_not_finite
from imvideoedit.wan.locations import remedy


def check_finite(part: nn.Module, name: str) -> None:
    """See that a part of the backbone ``name`` has finite weights.

    Raises:
        UserError: it has not.
    """
    if odd := first_not_finite(dict(part.named_parameters())):
        raise UserError(f"backbone {name!r} holds NaN or infinite values at {odd}; {remedy(name)}")


@contextlib.contextmanager
def named(name: str, place: str) -> Iterator[None]:
    """Inside, whatever the libraries raise is a ``UserError`` that names the backbone and where it is."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # diffusers and transformers do not document what a damaged folder raises
        words = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"backbone {name!r} cannot be loaded from {place}: {words}; {remedy(name)}") from error
