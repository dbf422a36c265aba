"""Commands composed by Hydra: where their settings are, and one line for what a user gets wrong."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from imvideoedit.common.errors import UserError, exit_cleanly

_CHECKOUT = Path(__file__).parents[2] / "conf"
CONF = str(_CHECKOUT) if (_CHECKOUT / "train.yaml").is_file() else "pkg://imvideoedit.conf"
_SECRETS = {"key", "api_key", "apikey", "token", "access_token", "secret", "password", "authorization"}
_SECRET_ADDRESS = re.compile(r"://[^/\s'\"]*@|[?&][\w-]*(key|token|secret|password|sig|signature|auth)=", re.IGNORECASE)
_TRACEBACKS_ASKED = os.environ.get("HYDRA_FULL_ERROR") == "1"


def command(config_name: str, run: Callable[[DictConfig], Any]) -> Callable[[], None]:
    """An entry point that composes ``conf/<config_name>.yaml`` with the command line and hands it to ``run``.

    What a user gets wrong ends in one line and exit code 2, unless HYDRA_FULL_ERROR=1 asks for tracebacks.
    """

    @hydra.main(config_path=CONF, config_name=config_name, version_base="1.3")
    @exit_cleanly
    def composed(config: DictConfig) -> None:
        with mistakes_in_one_line():
            run(config)

    @exit_cleanly
    def main() -> None:
        _check_options()
        with _hydra_raises(), mistakes_in_one_line():
            composed()

    return main


@contextlib.contextmanager
def _hydra_raises() -> Iterator[None]:
    """Inside, Hydra raises what it would print; afterwards the environment is as before, for further commands."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        os.environ.pop("HYDRA_FULL_ERROR")
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before


def _check_options() -> None:
    """Before Hydra does, which would answer with all its options, or take ``--experiment`` for one of its own."""
    parser = get_args_parser()
    parser.allow_abbrev = False
    known, unknown = parser.parse_known_args()
    if unknown:
        raise UserError(f"{unknown[0]} is no option; settings have no dashes, as in +experiment=13k; --help lists them")
    for override in known.overrides:
        _check_secret(override)


def _check_secret(override: str) -> None:
    """Refuse a key among the settings, before they are written into a run's folder; it is not shown."""
    name, _, value = override.partition("=")
    last = name.lstrip("+~").rpartition(".")[2].lower()
    no_name = last == "key_variable" and not re.fullmatch(r"\w+|\$\{.*\}", value.strip("'\""))
    if last in _SECRETS or no_name:
        raise UserError(
            f"{name} would be kept in the run's files; put the key into an environment variable, and name that in "
            "key_variable"
        )
    if _SECRET_ADDRESS.search(value):
        raise UserError(
            f"the address in {name} holds a user, password or key, which would be kept in the run's files; give the "
            "address alone, and the key in an environment variable"
        )


@contextlib.contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """Turn a mistake in the configuration into a ``UserError``; everything else passes."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        mistake = None if _TRACEBACKS_ASKED else _mistake(error)
        if mistake is None:
            raise
        raise mistake from error


def _mistake(error: Exception) -> UserError | None:
    """The line for a mistake in the configuration; None where the program is to blame."""
    cause: Any = error
    while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, UserError):
        return cause
    if isinstance(cause, ValueError | TypeError | ImportError | HydraException | OmegaConfBaseException):
        return UserError(f"{cause}; --help lists the settings, HYDRA_FULL_ERROR=1 shows where it failed")
    return None
