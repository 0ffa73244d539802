"""What a trace amounts to, on traces whose answer is known."""

from pathlib import Path

import pytest

from harness.kernels import KernelKind
from harness.tracing.kineto_kinds import kind_by_name
from harness.tracing.kineto_records import Source, Why
from harness.tracing.kineto_summary import collective_groups, matching, stream_times, times_by_kind
from tests.harness.tracing.kineto_examples import HandMade, only, us

ALL_REDUCE = "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
NOTED = {
    "Collective name": "allreduce",
    "In msg nelems": 1000,
    "Out msg nelems": 1000,
    "dtype": "BFloat16",
    "Group size": 4,
    "Process Group Ranks": "[0, 2, 4, 6]",
}


def test_what_is_unmatched_is_counted_by_name_reason_and_range(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::mm", 0, 100, id=50)
    trace.call(1, 10)
    trace.kernel("gemm", 30, 5, 1, id=50)
    trace.launched("gemm", 2, call_at=50, start=60, length=5)
    trace.range("## optimizer ##", 200, 100)
    trace.launched("adam", 3, call_at=210, start=220, length=7)
    trace.launched("adam", 4, call_at=230, start=240, length=8)
    trace.launched("adam", 5, call_at=400, start=410, length=1)
    trace.kernel("lost", 500, 40)

    found = matching(trace.read(tmp_path))

    assert (found.kernels, found.with_runtime, found.with_operator) == (6, 5, 2)
    assert (found.by_external_id, found.by_nesting, found.collectives) == (1, 1, 0)
    assert found.share == pytest.approx(2 / 6)
    assert [(group.name, group.count, us(group.duration_s), group.why, group.inside) for group in found.unmatched] == [
        ("lost", 1, 40, Why.NO_CORRELATION, None),
        ("adam", 2, 15, Why.OUTSIDE, "## optimizer ##"),
        ("adam", 1, 1, Why.OUTSIDE, None),
    ]


def test_nothing_of_nothing_has_no_share(tmp_path: Path) -> None:
    trace = HandMade().read(tmp_path)

    assert matching(trace).share is None
    assert (times_by_kind(trace), collective_groups(trace), stream_times(trace)) == ((), (), ())


def test_time_is_counted_by_kind_each_kernel_for_itself(tmp_path: Path) -> None:
    trace = HandMade()
    shapes = {"Input Dims": [[8, 16], [16, 32]], "Input type": ["float", "float"]}
    trace.op("aten::mm", 0, 100, **shapes)
    trace.launched("ampere_sgemm_128x64_nn", 1, call_at=10, start=20, length=30)
    trace.launched("some_kernel_nobody_knows", 2, call_at=20, start=50, length=10)  # part of the product
    trace.op("aten::relu", 200, 10, thread=9)
    trace.launched("void elementwise_kernel<128>", 3, call_at=205, start=20, length=40, thread=9, stream=8)

    times = times_by_kind(trace.read(tmp_path))
    assert [(time.kind, time.kernels, us(time.duration_s), round(time.share or 0, 9)) for time in times] == [
        (KernelKind.GEMM, 2, 40, 0.5),
        (KernelKind.ELEMENTWISE, 1, 40, 0.5),
    ]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("void cutlass::Kernel<cutlass_80_tensorop_s1688gemm_64x64_16x6_nn_align4>", KernelKind.GEMM),
        ("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NNT", KernelKind.GEMM),
        ("sm80_xmma_fprop_implicit_gemm_indexed_tf32f32", KernelKind.GEMM),
        ("void cublasLt::splitKreduce_kernel<32, 16, int, float>", KernelKind.GEMM),
        ("cudnn_infer_ampere_scudnn_128x64_relu_xregs_large_nn_v1", KernelKind.GEMM),
        (
            "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, cutlass::bfloat16_t>>",
            KernelKind.ATTENTION,
        ),
        ("fmha_cutlassF_bf16_aligned_64x128_rf_sm80", KernelKind.ATTENTION),
        ("void vllm::paged_attention_v2_kernel<__nv_bfloat16, 128>", KernelKind.ATTENTION),
        ("void softmax_warp_forward<float, float, float, 10, true, false>", KernelKind.ACTIVATION),
        ("void vectorized_elementwise_kernel<4, at::native::tanh_kernel_cuda>", KernelKind.ACTIVATION),
        ("void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float, float>", KernelKind.NORM),
        ("void vllm::rms_norm_kernel<c10::BFloat16>", KernelKind.NORM),
        ("void cudnn::bn_fw_tr_1C11_kernel_NCHW<float, float, int, 128>", KernelKind.NORM),
        ("void fbgemm_gpu::_offsets_range_cuda_kernel<long>", KernelKind.OTHER),
        ("void fbgemm_gpu::permute_2D_lengths_kernel<int>", KernelKind.COPY),
        ("void at::native::indexSelectLargeIndex<float, long, unsigned int, 2, 2, -2, true>", KernelKind.EMBEDDING),
        ("void unrolled_elementwise_kernel<direct_copy_kernel_cuda>", KernelKind.COPY),
        ("void CatArrayBatchedCopy<float, unsigned int, 2, 128, 1>", KernelKind.COPY),
        ("Memcpy DtoD (Device -> Device)", KernelKind.COPY),
        ("Memset (Device)", KernelKind.COPY),
        ("void vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>", KernelKind.ELEMENTWISE),
        ("void at::native::reduce_kernel<512, 1, ReduceOp<float, sum_functor>>", KernelKind.ELEMENTWISE),
        ("fused_moe_kernel", KernelKind.MOE_GEMM),
        ("_chunk_scan_fwd_kernel", KernelKind.SCAN),
        ("void cub::DeviceScanKernel<cub::AgentScanPolicy<128, 15, int>>", KernelKind.OTHER),
        ("triton_red_fused__softmax_0", KernelKind.OTHER),
        ("triton_tem_fused_addmm_3", KernelKind.GEMM),
        ("ncclKernel_AllReduce_RING_LL_Sum_float(ncclWorkElem)", KernelKind.ALL_REDUCE),
        ("ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)", KernelKind.ALL_GATHER),
        ("ncclDevKernel_ReduceScatter_Sum_bf16_RING_LL", KernelKind.REDUCE_SCATTER),
        ("ncclKernel_SendRecv_RING_SIMPLE_Sum_int8_t(ncclWorkElem)", KernelKind.ALL_TO_ALL),
        ("ncclKernel_Broadcast_RING_LL_Sum_int8_t", KernelKind.OTHER),
        ("asyncClearThenAllReduce_elementwise_kernel", KernelKind.ELEMENTWISE),
        ("void vllm::cross_device_reduce_1stage<__nv_bfloat16, 2>", KernelKind.ALL_REDUCE),
        ("", KernelKind.OTHER),
    ],
)
def test_a_kernel_that_no_operator_explains_is_told_by_its_name(name: str, kind: KernelKind) -> None:
    assert kind_by_name(name) is kind


def test_what_torch_notes_with_the_kernel_is_believed_first(tmp_path: Path) -> None:
    trace = HandMade(distributedInfo={"rank": 2, "world_size": 8})
    trace.op("record_param_comms", 0, 100, **(NOTED | {"In msg nelems": 5}))
    trace.call(1, 50)
    trace.kernel(ALL_REDUCE, 60, 5, 1, **NOTED)

    found = trace.read(tmp_path)
    collective = only(found).collective

    assert (found.rank, found.world_size) == (2, 8)
    assert collective is not None
    assert (collective.name, collective.kind) == ("allreduce", KernelKind.ALL_REDUCE)
    assert (collective.size_bytes, collective.bytes_source) == (2000, Source.KERNEL)
    assert (collective.ranks, collective.members, collective.ranks_source) == (4, (0, 2, 4, 6), Source.KERNEL)
    assert only(found).kind is KernelKind.ALL_REDUCE


def test_what_torch_notes_with_the_operator_serves_as_well(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("c10d::allreduce_", 0, 100)
    trace.op("record_param_comms", 10, 80, **(NOTED | {"Process Group Ranks": "[0, 1, 2, ..., 31]"}))
    trace.launched(ALL_REDUCE, 1, call_at=50, start=60, length=5)

    collective = only(trace.read(tmp_path)).collective

    assert collective is not None
    assert (collective.size_bytes, collective.bytes_source) == (2000, Source.OPERATOR)
    assert (collective.ranks, collective.members, collective.ranks_source) == (4, None, Source.OPERATOR)


def test_old_traces_tell_by_the_inputs_of_a_range_and_the_world_size(tmp_path: Path) -> None:
    trace = HandMade(distributedInfo={"backend": "nccl", "rank": 3, "world_size": 8})
    trace.op("record_param_comms", 0, 100)
    trace.range("nccl:all_to_all", 10, 80, **{"Input Dims": [[10, 7]], "Input type": ["int"]})
    trace.launched("ncclKernel_SendRecv_RING_SIMPLE_Sum_int8_t(ncclWorkElem)", 1, call_at=50, start=60, length=5)

    collective = only(trace.read(tmp_path)).collective

    assert collective is not None
    assert (collective.name, collective.kind) == ("all_to_all", KernelKind.ALL_TO_ALL)
    assert (collective.size_bytes, collective.bytes_source) == (280, Source.RANGE)
    assert (collective.ranks, collective.ranks_source) == (8, Source.WORLD)


def test_what_no_source_tells_is_not_known(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("c10d::allreduce_", 0, 100)
    trace.launched(ALL_REDUCE, 1, call_at=50, start=60, length=5)

    found = trace.read(tmp_path)
    collective = only(found).collective
    (group,) = collective_groups(found)

    assert collective is not None
    assert (collective.size_bytes, collective.bytes_source) == (None, None)
    assert (collective.ranks, collective.ranks_source, collective.dtype) == (None, None, None)
    assert (group.count, group.with_bytes, group.size_bytes, group.bus_bytes_per_s) == (1, 0, None, None)


def test_a_coalesced_collective_states_no_elements_and_has_no_bytes(tmp_path: Path) -> None:
    trace = HandMade()
    trace.kernel(ALL_REDUCE, 60, 5, **(NOTED | {"In msg nelems": 0, "Out msg nelems": 0}))

    collective = only(trace.read(tmp_path)).collective

    assert collective is not None
    assert (collective.given_elements, collective.size_bytes, collective.ranks) == (None, None, 4)


def test_copies_inside_a_collective_are_none(tmp_path: Path) -> None:
    trace = HandMade()
    trace.range("nccl:all_gather", 0, 100)
    trace.call(1, 50, name="cudaMemcpyAsync")
    trace.kernel("Memcpy DtoD (Device -> Device)", 60, 5, 1, category="gpu_memcpy", **NOTED)

    assert only(trace.read(tmp_path)).collective is None


# Bytes and bandwidth as nccl-tests computes them (doc/PERFORMANCE.md): S is the input of an all-reduce,
# reduce-scatter or all-to-all and the output of an all-gather.
@pytest.mark.parametrize(
    ("name", "given", "received", "size_bytes", "bus_bytes"),
    [
        ("allreduce", 1000, 1000, 4000, 2 * 3 / 4 * 4000),
        ("_allgather_base", 250, 1000, 4000, 3 / 4 * 4000),
        ("_reduce_scatter_base", 1000, 250, 4000, 3 / 4 * 4000),
        ("all_to_all", 1000, 1000, 4000, 3 / 4 * 4000),
        ("broadcast", 1000, 1000, 4000, 4000),
    ],
)
def test_bus_bandwidth_is_that_of_nccl_tests(
    tmp_path: Path, name: str, given: int, received: int, size_bytes: int, bus_bytes: float
) -> None:
    trace = HandMade()
    noted = NOTED | {"Collective name": name, "In msg nelems": given, "Out msg nelems": received, "dtype": "Float"}
    for turn in range(3):
        trace.kernel("ncclDevKernel_Generic", 100 * turn, 20, **noted)

    (group,) = collective_groups(trace.read(tmp_path))

    assert (group.name, group.ranks, group.count, group.with_bytes) == (name, 4, 3, 3)
    assert group.size_bytes == 3 * size_bytes
    assert group.bus_bytes_per_s == pytest.approx(bus_bytes / 20e-6)


def test_communication_is_hidden_while_a_kernel_of_the_same_device_computes(tmp_path: Path) -> None:
    trace = HandMade()
    trace.kernel(ALL_REDUCE, 0, 100, stream=20)
    trace.kernel("gemm", 10, 20, stream=7)
    trace.kernel("gemm", 25, 10, stream=8)  # beside the first for 5 µs
    trace.kernel("Memcpy HtoD", 50, 10, stream=7, category="gpu_memcpy")  # no computation
    trace.kernel("gemm", 90, 40, stream=7)
    trace.kernel("gemm", 0, 100, stream=7, device=1)  # of another device

    whole, compute, second, communication, other, _ = stream_times(trace.read(tmp_path))

    assert (whole.device, whole.stream, whole.kernels) == (0, None, 5)
    assert (us(whole.busy_s), us(whole.communication_s), us(whole.hidden_s)) == (130, 100, 35)
    assert (compute.stream, us(compute.busy_s), compute.communication_s) == (7, 70, 0)
    assert (second.stream, us(second.busy_s)) == (8, 10)
    assert (communication.stream, us(communication.busy_s), us(communication.hidden_s)) == (20, 100, 35)
    assert (other.device, other.stream, us(other.busy_s), other.hidden_s) == (1, None, 100, 0)
