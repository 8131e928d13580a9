# qknorm_combine: launched on 16 x 32 blocks of 8 warps, 3 stages.
# reads qknorm_max0 float32[4, 32, 256], qknorm_sum1 float32[4, 32, 256], qknorm_sum2 float32[4, 32, 256, 64]
# writes out float16[32, 256, 64]
import triton
import triton.language as tl


@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def qknorm_combine(qknorm_max0_ptr, qknorm_sum1_ptr, qknorm_sum2_ptr, out_ptr):
    """out[32, 256, 64].

    Blocks: i by 2, l by 8, m by 64. Loops: none.
    """
    i_start = tl.program_id(0) * 2  # 16 blocks
    l_start = tl.program_id(1) * 8  # 32 blocks
    i_lane = tl.arange(0, 2)
    l_lane = tl.arange(0, 8)
    s_k_lane = tl.arange(0, 4)
    # [i, l, s_k]
    qknorm_max0_at = i_lane[:, None, None] * 256 + l_lane[None, :, None] + s_k_lane[None, None, :] * 8192
    # qknorm_max0[s_k, i, l]
    qknorm_max0 = tl.load(qknorm_max0_ptr + i_start * 256 + l_start + qknorm_max0_at)
    ne = qknorm_max0 != float("-inf")  # [i, l, s_k]
    # qknorm_sum1[s_k, i, l]
    qknorm_sum1 = tl.load(qknorm_sum1_ptr + i_start * 256 + l_start + qknorm_max0_at)
    m_lane = tl.arange(0, 64)
    # [i, l, m, s_k]
    qknorm_sum2_at = i_lane[:, None, None, None] * 16384 + l_lane[None, :, None, None] * 64 + m_lane[None, None, :, None] + s_k_lane[None, None, None, :] * 524288
    # qknorm_sum2[s_k, i, l, m]
    qknorm_sum2 = tl.load(qknorm_sum2_ptr + i_start * 16384 + l_start * 64 + qknorm_sum2_at)
    max = tl.reduce(qknorm_max0, 2, max_nan)  # max[s_k] qknorm_max0[s_k, i, l]
    sub = qknorm_max0 - max[:, :, None]  # [i, l, s_k]
    exp = tl.exp2(sub * 1.4426950408889634)  # [i, l, s_k]
    mul = exp * qknorm_sum1  # [i, l, s_k]
    where = tl.where(ne, mul, 0.0)  # [i, l, s_k]
    # sum[s_k] where(ne(qknorm_max0[s_k, i, l], -inf), (... * qknorm_sum1[s_k, i, l]), 0)
    sum = tl.sum(where, 2)
    div = 1.0 / sum  # [i, l]
    mul_2 = exp[:, :, None, :] * qknorm_sum2  # [i, l, m, s_k]
    where_2 = tl.where(ne[:, :, None, :], mul_2, 0.0)  # [i, l, m, s_k]
    # sum[s_k] where(ne(qknorm_max0[s_k, i, l], -inf), (... * qknorm_sum2[s_k, i, l, m]), 0)
    sum_2 = tl.sum(where_2, 3)
    mul_3 = div[:, :, None] * sum_2  # [i, l, m]
    # [i, l, m]
    out_at = i_lane[:, None, None] * 16384 + l_lane[None, :, None] * 64 + m_lane[None, None, :]
    # out[i, l, m]
    tl.store(out_ptr + i_start * 16384 + l_start * 64 + out_at, mul_3.to(tl.float16))
