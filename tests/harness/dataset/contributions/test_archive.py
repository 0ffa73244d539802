"""The container of a bundle: any ZIP tool reads it, and nothing but its one form is read."""

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.dataset.contributions.archive import BadArchive, Content, read_content, read_members, write_archive

NAMES = ("bundle.json", "data/runs.parquet", "data/phases.parquet")


def written(contents: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    write_archive(out, [Content.of_bytes(name, content) for name, content in contents.items()])
    return out.getvalue()


def read(content: bytes) -> dict[str, bytes]:
    file = io.BytesIO(content)
    members = read_members(file, len(content), NAMES)
    return {member.name: b"".join(read_content(file, member)) for member in members}


CONTENTS = st.lists(st.sampled_from(NAMES), unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: st.binary(max_size=300) for name in names})
)


@given(CONTENTS)
def test_what_is_written_is_read_here_and_by_any_zip_tool(contents: dict[str, bytes]) -> None:
    content = written(contents)

    assert read(content) == contents
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        assert {name: file.read(name) for name in file.namelist()} == contents
        assert file.testzip() is None


def test_equal_contents_give_equal_bytes() -> None:
    assert written({"bundle.json": b"{}"}) == written({"bundle.json": b"{}"})


@given(contents=CONTENTS, data=st.data())
def test_any_changed_byte_is_noticed(contents: dict[str, bytes], data: st.DataObject) -> None:
    content = bytearray(written(contents))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))

    with pytest.raises(BadArchive):
        read(bytes(content))


@given(contents=CONTENTS, cut=st.integers(1, 100), extra=st.binary(min_size=1, max_size=50))
def test_what_is_cut_off_or_longer_is_refused(contents: dict[str, bytes], cut: int, extra: bytes) -> None:
    content = written(contents)
    for changed in (content[:-cut], content[cut:], content + extra, extra + content):
        with pytest.raises(BadArchive):
            read(changed)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_archive_or_a_bad_one(content: bytes) -> None:
    with pytest.raises(BadArchive):
        read(b"PK\5\6" + content)


@pytest.mark.parametrize("name", ["../bundle.json", "/bundle.json", "data/x.parquet", "Bundle.json", "bundle.json\0"])
def test_a_name_that_no_bundle_has_is_refused(name: str) -> None:
    with pytest.raises(BadArchive, match="which no bundle has"):
        read(written({name: b"{}"}))


def test_a_member_that_is_there_twice_is_refused() -> None:
    out = io.BytesIO()
    write_archive(out, [Content.of_bytes("bundle.json", b"1"), Content.of_bytes("bundle.json", b"2")])

    with pytest.raises(BadArchive, match="twice"):
        read(out.getvalue())


@pytest.mark.parametrize("extra", ["comment", "deflated", "extra field", "time", "executable", "data descriptor"])
def test_properties_that_a_bundle_does_not_have_are_refused(extra: str) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        entry = zipfile.ZipInfo("bundle.json")
        entry.create_system = 3
        entry.external_attr = (0o100755 if extra == "executable" else 0o100644) << 16
        entry.compress_type = zipfile.ZIP_DEFLATED if extra == "deflated" else zipfile.ZIP_STORED
        entry.extra = b"\x99\x99\x00\x00" if extra == "extra field" else b""
        entry.date_time = (2026, 1, 1, 0, 0, 0) if extra == "time" else (1980, 1, 1, 0, 0, 0)
        file.comment = b"x" if extra == "comment" else b""
        if extra == "data descriptor":
            with file.open(entry, "w", force_zip64=True) as member:
                member.write(b"{}")
        else:
            file.writestr(entry, b"{}")

    with pytest.raises(BadArchive):
        read(out.getvalue())


def test_a_claim_of_gigabytes_reads_kilobytes() -> None:
    class Watched(io.BytesIO):
        asked = 0

        def read(self, size: int | None = -1) -> bytes:
            self.asked += size or 0
            return super().read(size)

    content = bytearray(written({"bundle.json": b"{}"}))
    content[-22 + 12 : -22 + 16] = b"\xff\xff\xff\x7f"  # the directory has two gigabytes
    file = Watched(bytes(content))

    with pytest.raises(BadArchive):
        read_members(file, len(content), NAMES)
    assert 0 <= file.asked < 10_000
