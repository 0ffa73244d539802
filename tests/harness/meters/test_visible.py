import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.meters.visible import order_is_certain, visible_indices, visible_slices

UUIDS = ("GPU-1a2b", "GPU-1c3d", "GPU-9e9e", "GPU-4444")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, (0, 1, 2, 3)),
        ("", ()),
        ("3,1", (3, 1)),
        (" 0 , 2 ", (0, 2)),
        ("2,-1,0", (2,)),
        ("1,7,0", (1,)),
        ("1,1", ()),
        ("NoDevFiles", ()),
        ("1gpu2,2ampere", (1, 2)),
        ("GPU-9e9e,GPU-1a2b", (2, 0)),
        ("GPU-9", (2,)),
        ("GPU-1", ()),
        ("GPU-9,GPU-nowhere,GPU-4", (2,)),
        ("GPU-9,GPU-9e", ()),
    ],
)
def test_the_value_means_what_it_means_to_cuda(value: str | None, expected: tuple[int, ...]) -> None:
    assert visible_indices(value, UUIDS) == expected


@given(st.text(alphabet="0123456789,-+ GPUMIabcdef", max_size=40))
def test_any_value_names_each_gpu_at_most_once(value: str) -> None:
    chosen = visible_indices(value, UUIDS)

    assert len(set(chosen)) == len(chosen)
    assert all(0 <= index < len(UUIDS) for index in chosen)


@given(st.permutations(range(4)).flatmap(lambda order: st.integers(0, 4).map(lambda n: tuple(order[:n]))))
def test_a_list_of_numbers_is_kept_in_its_order(order: tuple[int, ...]) -> None:
    assert visible_indices(",".join(map(str, order)), UUIDS) == order


def test_slices_end_at_the_first_entry_that_is_none_and_vanish_when_repeated() -> None:
    assert visible_slices("MIG-a,MIG-b,GPU-c,MIG-d") == ("MIG-a", "MIG-b")
    assert visible_slices("MIG-a,MIG-a") == ()
    assert visible_slices(None) == ()


def test_numbers_are_trusted_only_where_cuda_counts_as_nvml_does() -> None:
    mixed = ("NVIDIA A30", "NVIDIA L4")

    assert order_is_certain({}, ("NVIDIA A30", "NVIDIA A30"))
    assert not order_is_certain({}, mixed)
    assert not order_is_certain({"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, mixed)
    assert order_is_certain({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, mixed)
    assert order_is_certain({"CUDA_VISIBLE_DEVICES": "GPU-1a,GPU-9"}, mixed)
