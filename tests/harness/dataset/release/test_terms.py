"""Words for what is released only under its name."""

import pytest

from harness.dataset.release.terms import MEANINGS, Inclusion, in_order, phrase, read_inclusions, suffix
from harness.errors import UsageError


def test_words_are_read_whatever_their_order_and_written_in_one() -> None:
    found = read_inclusions(" quick,simulated ,failed")

    assert found == {Inclusion.QUICK, Inclusion.SIMULATED, Inclusion.FAILED}
    assert in_order(found) == (Inclusion.SIMULATED, Inclusion.QUICK, Inclusion.FAILED)
    assert suffix(found) == "-simulated-quick-failed"
    assert phrase(found) == "with simulated, quick and failed runs"
    assert phrase({Inclusion.QUICK}) == "with quick runs"


@pytest.mark.parametrize("text", ["", ",", "invalid", "quick;estimated", "QUICK"])
def test_a_word_that_is_none_is_refused_with_those_that_are(text: str) -> None:
    with pytest.raises(UsageError, match="simulated, estimated, unlicensed, quick, failed"):
        read_inclusions(text)


def test_every_word_has_a_meaning() -> None:
    assert set(MEANINGS) == set(Inclusion)
