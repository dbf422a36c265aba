"""Settings of an endpoint and the budget: where they come from, and what is said about mistakes in them."""

import pytest

from imvideoedit.clients.budget import Budget
from imvideoedit.clients.settings import EndpointSettings
from imvideoedit.common.errors import UserError


def test_settings_come_from_the_environment(monkeypatch, tmp_path):
    variables = {"ENDPOINT": "http://host/v1", "MODEL": "m", "KEY_VARIABLE": "K", "CACHE": str(tmp_path)}
    variables |= {"INPUT_PRICE": "0.5", "OUTPUT_PRICE": "2", "MAX_COST": "3"}
    for name, value in variables.items():
        monkeypatch.setenv(f"IMVIDEOEDIT_{name}", value)
    wanted = EndpointSettings("http://host/v1", "m", "K", tmp_path, 0.5, 2.0, 3.0)
    assert EndpointSettings() == wanted
    assert wanted.cost(1_000_000, 500_000) == 1.5
    monkeypatch.setenv("IMVIDEOEDIT_MAX_COST", "a lot")
    with pytest.raises(UserError, match="IMVIDEOEDIT_MAX_COST"):
        EndpointSettings()
    for name in variables:
        monkeypatch.delenv(f"IMVIDEOEDIT_{name}")
    assert EndpointSettings().url == "https://api.openai.com/v1" and EndpointSettings().max_cost is None


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"url": "localhost:8000"}, "localhost:8000"),
        ({"url": "http://["}, "http"),
        ({"url": "http://host:port/v1"}, "http"),
        ({"url": "https://host/v1?key=secret"}, "address"),
        ({"url": "https://me:secret@host/v1"}, "address"),
        ({"max_cost": 1.0}, "prices"),
        ({"max_cost": -1.0}, "max_cost"),
        ({"tries": 0}, "tries"),
        ({"timeout": 0}, "timeout"),
        ({"temperature": 3}, "temperature"),
        ({"backoff": float("nan")}, "backoff"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(changes, word):
    with pytest.raises(UserError) as caught:
        EndpointSettings(**changes)
    assert word in str(caught.value) and "secret" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_process_that_dies_in_a_call_leaves_it_paid(tmp_path):
    Budget(1.0, tmp_path / "spent.json").reserve(0.75)
    with pytest.raises(UserError, match="budget"):
        Budget(1.0, tmp_path / "spent.json").reserve(0.5)
    Budget(1.0, tmp_path / "spent.json").reserve(0.25)
    (tmp_path / "spent.json").write_text("?")
    with pytest.raises(UserError, match=r"spent\.json"):
        Budget(1.0, tmp_path / "spent.json").reserve(0.1)


def test_a_cache_folder_that_takes_nothing(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="IMVIDEOEDIT_CACHE"):
        Budget(None, tmp_path / "file" / "spent.json").reserve(0.0)
