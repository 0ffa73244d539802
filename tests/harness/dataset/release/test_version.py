"""Versions are semantic, and say what happened to the rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.dataset.release.version import Version, check_step
from harness.errors import UsageError

ORDERED = [
    *("0.9.0", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1"),
    *("1.0.0", "1.0.10", "1.2.0"),
]


def test_the_order_is_that_of_semver() -> None:
    versions = [Version.read(text) for text in ORDERED]

    versions.reverse()
    assert [str(version) for version in sorted(versions)] == ORDERED


@pytest.mark.parametrize(
    "text", ["1", "1.0", "v1.0.0", "01.0.0", "1.0.0+build", "1.0.0-", "1.0.0-01", "1.0.0/..", "١.0.0"]
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="semantic versioning"):
        Version.read(text)


@given(st.text(max_size=20))
def test_any_text_is_a_version_or_refused(text: str) -> None:
    try:
        version = Version.read(text)
    except UsageError:
        return
    assert str(version) == text


def test_a_version_must_follow_and_a_patch_adds_no_rows() -> None:
    old = Version.read("1.2.0")

    check_step(old, Version.read("1.2.1"), rows_added=False)
    check_step(old, Version.read("1.3.0"), rows_added=True)
    check_step(Version.read("1.3.0-rc.1"), Version.read("1.3.0"), rows_added=True)
    with pytest.raises(UsageError, match="does not follow"):
        check_step(old, Version.read("1.2.0"), rows_added=False)
    with pytest.raises(UsageError, match=r"Call it 1\.3\.0"):
        check_step(old, Version.read("1.2.1"), rows_added=True)
