"""What an edit loses is said whatever the environment says of warnings."""

import warnings

import pytest

from imvideoedit.common.errors import Note, exit_cleanly


@pytest.mark.parametrize("filters", ["ignore", "error"])
def test_a_note_is_shown_where_warnings_are_off_or_errors(filters):
    @exit_cleanly
    def command():
        warnings.warn("a.mp4 does not keep: chapters", Note, stacklevel=1)

    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter(filters)  # as PYTHONWARNINGS does
        before = list(warnings.filters)
        command()
        assert warnings.filters == before
    assert [str(each.message) for each in shown] == ["a.mp4 does not keep: chapters"]
