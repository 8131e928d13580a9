# gqa_combine: launched on 16 x 16 blocks of 2 warps, 3 stages.
# reads gqa_max0 float32[4, 16, 256], gqa_sum1 float32[4, 16, 256], gqa_sum2 float32[4, 16, 256, 64]
# writes out float16[16, 256, 64]
import triton
import triton.language as tl


@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def gqa_combine(gqa_max0_ptr, gqa_sum1_ptr, gqa_sum2_ptr, out_ptr):
    """out[16, 256, 64].

    Blocks: i by 1, j by 16, m by 64. Loops: none.
    """
    i = tl.program_id(0)  # 16 blocks
    j_start = tl.program_id(1) * 16  # 16 blocks
    j_lane = tl.arange(0, 16)
    s_l_lane = tl.arange(0, 4)
    gqa_max0_at = j_lane[:, None] + s_l_lane[None, :] * 4096  # [j, s_l]
    gqa_max0 = tl.load(gqa_max0_ptr + i * 256 + j_start + gqa_max0_at)  # gqa_max0[s_l, i, j]
    ne = gqa_max0 != float("-inf")  # [j, s_l]
    gqa_sum1 = tl.load(gqa_sum1_ptr + i * 256 + j_start + gqa_max0_at)  # gqa_sum1[s_l, i, j]
    m_lane = tl.arange(0, 64)
    # [j, m, s_l]
    gqa_sum2_at = j_lane[:, None, None] * 64 + m_lane[None, :, None] + s_l_lane[None, None, :] * 262144
    # gqa_sum2[s_l, i, j, m]
    gqa_sum2 = tl.load(gqa_sum2_ptr + i * 16384 + j_start * 64 + gqa_sum2_at)
    max = tl.reduce(gqa_max0, 1, max_nan)  # max[s_l] gqa_max0[s_l, i, j]
    sub = gqa_max0 - max[:, None]  # [j, s_l]
    exp = tl.exp2(sub * 1.4426950408889634)  # [j, s_l]
    mul = exp * gqa_sum1  # [j, s_l]
    where = tl.where(ne, mul, 0.0)  # [j, s_l]
    # sum[s_l] where(ne(gqa_max0[s_l, i, j], -inf), (... * gqa_sum1[s_l, i, j]), 0)
    sum = tl.sum(where, 1)
    div = 1.0 / sum  # [j]
    mul_2 = exp[:, None, :] * gqa_sum2  # [j, m, s_l]
    where_2 = tl.where(ne[:, None, :], mul_2, 0.0)  # [j, m, s_l]
    # sum[s_l] where(ne(gqa_max0[s_l, i, j], -inf), (... * gqa_sum2[s_l, i, j, m]), 0)
    sum_2 = tl.sum(where_2, 2)
    mul_3 = div[:, None] * sum_2  # [j, m]
    out_at = j_lane[:, None] * 64 + m_lane[None, :]  # [j, m]
    # out[i, j, m]
    tl.store(out_ptr + i * 16384 + j_start * 64 + out_at, mul_3.to(tl.float16))
