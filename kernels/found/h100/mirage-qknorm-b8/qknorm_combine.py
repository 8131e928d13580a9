# qknorm_combine: launched on 16 x 8 blocks of 16 warps, 3 stages.
# reads qknorm_max0 float32[8, 16, 256], qknorm_sum1 float32[8, 16, 256], qknorm_sum2 float32[8, 16, 256, 64]
# writes out float16[16, 256, 64]
import triton
import triton.language as tl


@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def qknorm_combine(qknorm_max0_ptr, qknorm_sum1_ptr, qknorm_sum2_ptr, out_ptr):
    """out[16, 256, 64].

    Blocks: i by 1, l by 32, m by 64. Loops: none.
    """
    i = tl.program_id(0)  # 16 blocks
    l_start = tl.program_id(1) * 32  # 8 blocks
    l_lane = tl.arange(0, 32)
    s_k_lane = tl.arange(0, 8)
    qknorm_max0_at = l_lane[:, None] + s_k_lane[None, :] * 4096  # [l, s_k]
    # qknorm_max0[s_k, i, l]
    qknorm_max0 = tl.load(qknorm_max0_ptr + i * 256 + l_start + qknorm_max0_at)
    ne = qknorm_max0 != float("-inf")  # [l, s_k]
    # qknorm_sum1[s_k, i, l]
    qknorm_sum1 = tl.load(qknorm_sum1_ptr + i * 256 + l_start + qknorm_max0_at)
    m_lane = tl.arange(0, 64)
    # [l, m, s_k]
    qknorm_sum2_at = l_lane[:, None, None] * 64 + m_lane[None, :, None] + s_k_lane[None, None, :] * 262144
    # qknorm_sum2[s_k, i, l, m]
    qknorm_sum2 = tl.load(qknorm_sum2_ptr + i * 16384 + l_start * 64 + qknorm_sum2_at)
    max = tl.reduce(qknorm_max0, 1, max_nan)  # max[s_k] qknorm_max0[s_k, i, l]
    sub = qknorm_max0 - max[:, None]  # [l, s_k]
    exp = tl.exp2(sub * 1.4426950408889634)  # [l, s_k]
    mul = exp * qknorm_sum1  # [l, s_k]
    where = tl.where(ne, mul, 0.0)  # [l, s_k]
    # sum[s_k] where(ne(qknorm_max0[s_k, i, l], -inf), (... * qknorm_sum1[s_k, i, l]), 0)
    sum = tl.sum(where, 1)
    div = 1.0 / sum  # [l]
    mul_2 = exp[:, None, :] * qknorm_sum2  # [l, m, s_k]
    where_2 = tl.where(ne[:, None, :], mul_2, 0.0)  # [l, m, s_k]
    # sum[s_k] where(ne(qknorm_max0[s_k, i, l], -inf), (... * qknorm_sum2[s_k, i, l, m]), 0)
    sum_2 = tl.sum(where_2, 2)
    mul_3 = div[:, None] * sum_2  # [l, m]
    out_at = l_lane[:, None] * 64 + m_lane[None, :]  # [l, m]
    # out[i, l, m]
    tl.store(out_ptr + i * 16384 + l_start * 64 + out_at, mul_3.to(tl.float16))
