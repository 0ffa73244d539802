"""Text without what tells whose machine it comes from, and with everything else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.dataset.contributions.identity import Identity, Kind, this_machine
from harness.dataset.contributions.scrubbing import Scrubber
from harness.hardware import known
from harness.models.shipped import shipped_ids

IDENTITY = Identity.of(
    users=("alice", "ai"), hosts=("gpu-box.lab.example", "gpu-box"), homes=("/home/alice",), hidden=("Secret Project",)
)


def scrubbed(text: str) -> str:
    return Scrubber(IDENTITY, names=shipped_ids()).text(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CUDA error in /home/alice/run.py:12", "CUDA error in [path]"),
        ("'/home/alice/My Docs/x.py' failed", "'[path]' failed"),
        ("~/x ~bob/y ./z ../a", "[path] [path] [path] [path]"),
        ("C:\\Users\\alice\\x.txt, \\\\share\\a", "[path], [path]"),
        ("file:///data/x", "[path]"),
        ("alice@gpu-box.lab.example", "[email]"),
        ("on gpu-box.lab.example and GPU-BOX", "on [host] and [host]"),
        ("alice's run, alice_1, malice", "[user]'s run, [user]_1, malice"),
        ("the Secret Project", "the [hidden]"),
        ("10.0.0.12:22, fe80::1%eth0, ::1", "[address], [address], [address]"),
        ("aa:bb:cc:dd:ee:ff", "[address]"),
        ("GPU-b0e1c9ab-1234-5678-9abc-def012345678 fell off", "[device id] fell off"),
        ("at 00000000:3B:00.0", "at [device id]"),
        ("serial number: 1321021036482", "[serial number]"),
        ("board 1321021036482", "board [serial number]"),
        ("pid 4711 and process 12", "[process] and [process]"),
        ("hf_abcdefghijklmnop Bearer abcdefgh.ij", "[secret] [secret]"),
        ("http://user:pass@example.org/x", "http://[secret]example.org/x"),
        ("C:/Users/bob/x.py, 'D:/my data/x'", "[path], '[path]'"),
        ("PATH:/mnt/aa:/opt/bb HOME:/home/bob", "PATH:[path] HOME:[path]"),
        ("s3://bucket/key tcp://node17:29500", "[path] [path]"),
        ("board_serial=AB123 UUID b0e1c9ab123456789abcdef012345678", "board_[serial number] UUID [device id]"),
        ("password=hunter2, API_KEY: abc", "[secret], [secret]"),
    ],
)
def test_what_is_private_becomes_a_mark(text: str, expected: str) -> None:
    assert scrubbed(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("535.104.05", "92.00.45.00.05", "2.13.0+cpu", "Linux 6.18.44-fc-v657", "nvml:0 (measured); NVML's counter"),
        *("900 → 16 tokens, for the time budget", "3 J/s, tokens/s and/or", "10:15:30", "aten::mm", "c10d::allreduce_"),
        *("model.layers.*.mlp.up_proj", "void at::native::vectorized_elementwise_kernel<4, float>(int)", "cuda:0"),
        *("needs 31.2 GiB, the limit is 4.0 GiB", "meta-llama/Llama-3.1-8B", "https://huggingface.co/Qwen/Qwen3-8B"),
        *(hardware.name for hardware in known()),
        *shipped_ids(),
    ],
)
def test_what_is_not_private_stays(text: str) -> None:
    assert scrubbed(text) == text


@given(st.text(max_size=200) | st.text(alphabet="ab/.:~@-0123456789 '\"\\[]", max_size=60))
def test_scrubbing_again_changes_nothing(text: str) -> None:
    once = scrubbed(text)
    assert scrubbed(once) == once


SAFE = st.text(alphabet="xyz .,;()\n", max_size=20)


PRIVATE = st.sampled_from(["alice", "gpu-box", "/home/alice/x", "10.1.2.3", "a@b.example"])


@given(before=SAFE, after=SAFE, private=PRIVATE)
def test_a_private_word_is_found_wherever_it_stands(before: str, after: str, private: str) -> None:
    assert private not in scrubbed(f"{before} {private} {after}")


def test_a_home_with_a_space_in_it_goes_whole() -> None:
    identity = Identity.of(users=(), hosts=(), homes=("/Users/Bob Smith",), hidden=())

    assert Scrubber(identity).text("in /Users/Bob Smith/x/y.py, no") == "in [path], no"


@given(st.text(max_size=200) | st.text(alphabet="ab/.:~@-0123456789 '\"\\[]=", max_size=60))
def test_who_does_not_know_the_machine_finds_nothing_more(text: str) -> None:
    once = scrubbed(text)
    assert Scrubber(Identity(words=()), names=shipped_ids()).text(once) == once


def test_keys_that_name_something_private_are_known_in_every_spelling() -> None:
    document = {"board_serial": 1324519012345, "gpuUUID": "x", "hosts": ["a", "b"], "Password": "y", "serialNumber": 7}

    assert json.loads(Scrubber(IDENTITY).document(json.dumps(document))) == {
        "board_serial": "[serial number]",
        "gpuUUID": "[device id]",
        "hosts": "[host]",
        "Password": "[secret]",
        "serialNumber": "[serial number]",
    }


def test_a_configuration_keeps_names_of_files_and_no_folders() -> None:
    scrubber = Scrubber(IDENTITY, names=("Qwen/Qwen3-8B",), hashed=lambda text: text[::-1])
    document = {
        "calibration_file": "/home/alice/calibration.json",
        "device": "virtual:./mine/gpu.toml",
        "models": ["Qwen/Qwen3-8B", "/data/models/mine"],
        "host": "x",
        "n": [1, 2.5, None, True],
        "uuid_sha256": "abc",
    }

    assert json.loads(scrubber.document(json.dumps(document))) == {
        "calibration_file": "calibration.json",
        "device": "virtual:gpu.toml",
        "models": ["Qwen/Qwen3-8B", "mine"],
        "host": "[host]",
        "n": [1, 2.5, None, True],
        "uuid_sha256": "cba",
    }
    assert scrubber.removed[Kind.PATH] == 3


def test_a_document_without_anything_private_stays_as_it_is() -> None:
    text = '{"b": 1,  "a": [1.50]}'
    assert Scrubber(IDENTITY).document(text) == text


def test_what_should_be_a_document_and_is_none_is_scrubbed_as_text() -> None:
    assert Scrubber(IDENTITY).document("{alice") == "{[user]"


@pytest.mark.parametrize("name", ["root", "ai", "ubuntu", "nvidia", "123456"])
def test_names_that_tell_nothing_or_are_part_of_words_are_left_alone(name: str) -> None:
    identity = Identity.of(users=(name,), hosts=(name,), homes=(), hidden=())
    assert identity.words == ()


def test_this_machine_has_a_host_and_hides_what_is_asked() -> None:
    words = {private.word for private in this_machine(["codename"]).words}
    assert "codename" in words
