# gqa_t3_combine: launched on 64 blocks of 4 warps, 3 stages.
# reads gqa_t3_max1 float32[16, 2, 256], gqa_t3_sum2 float32[16, 2, 256], gqa_t3_sum3 float32[16, 2, 256, 64]
# writes t3 float16[2, 256, 64]
import triton
import triton.language as tl


@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def gqa_t3_combine(gqa_t3_max1_ptr, gqa_t3_sum2_ptr, gqa_t3_sum3_ptr, t3_ptr):
    """t3[2, 256, 64].

    Blocks: i by 2, j by 4, m by 64. Loops: none.
    """
    j_start = tl.program_id(0) * 4  # 64 blocks
    i_lane = tl.arange(0, 2)
    j_lane = tl.arange(0, 4)
    s_l_lane = tl.arange(0, 16)
    # [i, j, s_l]
    gqa_t3_max1_at = i_lane[:, None, None] * 256 + j_lane[None, :, None] + s_l_lane[None, None, :] * 512
    gqa_t3_max1 = tl.load(gqa_t3_max1_ptr + j_start + gqa_t3_max1_at)  # gqa_t3_max1[s_l, i, j]
    ne = gqa_t3_max1 != float("-inf")  # [i, j, s_l]
    gqa_t3_sum2 = tl.load(gqa_t3_sum2_ptr + j_start + gqa_t3_max1_at)  # gqa_t3_sum2[s_l, i, j]
    m_lane = tl.arange(0, 64)
    # [i, j, m, s_l]
    gqa_t3_sum3_at = i_lane[:, None, None, None] * 16384 + j_lane[None, :, None, None] * 64 + m_lane[None, None, :, None] + s_l_lane[None, None, None, :] * 32768
    # gqa_t3_sum3[s_l, i, j, m]
    gqa_t3_sum3 = tl.load(gqa_t3_sum3_ptr + j_start * 64 + gqa_t3_sum3_at)
    max = tl.reduce(gqa_t3_max1, 2, max_nan)  # max[s_l] gqa_t3_max1[s_l, i, j]
    sub = gqa_t3_max1 - max[:, :, None]  # [i, j, s_l]
    exp = tl.exp2(sub * 1.4426950408889634)  # [i, j, s_l]
    mul = exp * gqa_t3_sum2  # [i, j, s_l]
    where = tl.where(ne, mul, 0.0)  # [i, j, s_l]
    # sum[s_l] where(ne(gqa_t3_max1[s_l, i, j], -inf), (... * gqa_t3_sum2[s_l, i, j]), 0)
    sum = tl.sum(where, 2)
    div = 1.0 / sum  # [i, j]
    mul_2 = exp[:, :, None, :] * gqa_t3_sum3  # [i, j, m, s_l]
    where_2 = tl.where(ne[:, :, None, :], mul_2, 0.0)  # [i, j, m, s_l]
    # sum[s_l] where(ne(gqa_t3_max1[s_l, i, j], -inf), (... * gqa_t3_sum3[s_l, i, j, m]), 0)
    sum_2 = tl.sum(where_2, 3)
    mul_3 = div[:, :, None] * sum_2  # [i, j, m]
    # [i, j, m]
    t3_at = i_lane[:, None, None] * 16384 + j_lane[None, :, None] * 64 + m_lane[None, None, :]
    # t3[i, j, m]
    tl.store(t3_ptr + j_start * 64 + t3_at, mul_3.to(tl.float16))
