"""Every command answers a mistyped option with one line, and --help with its options."""

import importlib
import os
import sys

import pytest

COMMANDS = [
    "imvideoedit.app.command",
    "imvideoedit.benchmark.__main__",
    "imvideoedit.data.check",
    "imvideoedit.demo",
    "imvideoedit.edit",
    "imvideoedit.evaluation.suites.template",
    "imvideoedit.evaluation.nano.report",
    "imvideoedit.evaluation.vbench.cross_check",
    "imvideoedit.evaluation.weights.prepare",
    "data_recipes.agreement",
    "data_recipes.import_pairs",
    "data_recipes.measure",
    "data_recipes.review",
]


@pytest.mark.parametrize("module", COMMANDS)
def test_a_mistyped_option_costs_one_line(module, monkeypatch, capsys):
    main = importlib.import_module(module).main
    monkeypatch.setattr(sys, "argv", ["command", "--nonsense"])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    assert (ended.value.code, captured.out, captured.err.count("\n")) == (2, "", 1)
    assert captured.err.startswith("error: ") and captured.err.endswith("--help lists the options\n")
    monkeypatch.setattr(sys, "argv", ["command", "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0 and capsys.readouterr().out.startswith("usage: ")


@pytest.mark.parametrize(
    "module", ["imvideoedit.train", "imvideoedit.evaluate", "imvideoedit.nano.pretrain", "data_recipes.build"]
)
def test_a_setting_with_dashes_costs_one_line(module, monkeypatch, capsys):
    main = importlib.import_module(module).main
    monkeypatch.setattr(sys, "argv", ["command", "--experiment", "13k"])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    assert (ended.value.code, captured.out, captured.err.count("\n")) == (2, "", 1)
    assert captured.err.startswith("error: --experiment is no option; settings have no dashes")
    monkeypatch.setattr(sys, "argv", ["command", "nonsense=1"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and capsys.readouterr().err.count("\n") == 1
    assert "HYDRA_FULL_ERROR" not in os.environ  # a command that is called leaves its caller's environment alone
