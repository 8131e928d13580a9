# gqa_combine: launched on 128 blocks of 4 warps, 3 stages.
# reads gqa_max1 float32[16, 2, 256], gqa_sum2 float32[16, 2, 256, 64], gqa_sum3 float32[16, 2, 256]
# writes out float16[2, 256, 64]
import triton
import triton.language as tl


@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def gqa_combine(gqa_max1_ptr, gqa_sum2_ptr, gqa_sum3_ptr, out_ptr):
    """out[2, 256, 64].

    Blocks: i by 2, j by 2, m by 64. Loops: none.
    """
    j_start = tl.program_id(0) * 2  # 128 blocks
    i_lane = tl.arange(0, 2)
    j_lane = tl.arange(0, 2)
    s_l_lane = tl.arange(0, 16)
    # [i, j, s_l]
    gqa_max1_at = i_lane[:, None, None] * 256 + j_lane[None, :, None] + s_l_lane[None, None, :] * 512
    gqa_max1 = tl.load(gqa_max1_ptr + j_start + gqa_max1_at)  # gqa_max1[s_l, i, j]
    ne = gqa_max1 != float("-inf")  # [i, j, s_l]
    m_lane = tl.arange(0, 64)
    # [i, j, m, s_l]
    gqa_sum2_at = i_lane[:, None, None, None] * 16384 + j_lane[None, :, None, None] * 64 + m_lane[None, None, :, None] + s_l_lane[None, None, None, :] * 32768
    gqa_sum2 = tl.load(gqa_sum2_ptr + j_start * 64 + gqa_sum2_at)  # gqa_sum2[s_l, i, j, m]
    gqa_sum3 = tl.load(gqa_sum3_ptr + j_start + gqa_max1_at)  # gqa_sum3[s_l, i, j]
    max = tl.reduce(gqa_max1, 2, max_nan)  # max[s_l] gqa_max1[s_l, i, j]
    sub = gqa_max1 - max[:, :, None]  # [i, j, s_l]
    exp = tl.exp2(sub * 1.4426950408889634)  # [i, j, s_l]
    mul = exp[:, :, None, :] * gqa_sum2  # [i, j, m, s_l]
    where = tl.where(ne[:, :, None, :], mul, 0.0)  # [i, j, m, s_l]
    # sum[s_l] where(ne(gqa_max1[s_l, i, j], -inf), (... * gqa_sum2[s_l, i, j, m]), 0)
    sum = tl.sum(where, 3)
    mul_2 = exp * gqa_sum3  # [i, j, s_l]
    where_2 = tl.where(ne, mul_2, 0.0)  # [i, j, s_l]
    # sum[s_l] where(ne(gqa_max1[s_l, i, j], -inf), (... * gqa_sum3[s_l, i, j]), 0)
    sum_2 = tl.sum(where_2, 2)
    div = 1.0 / sum_2  # [i, j]
    mul_3 = sum * div[:, :, None]  # [i, j, m]
    # [i, j, m]
    out_at = i_lane[:, None, None] * 16384 + j_lane[None, :, None] * 64 + m_lane[None, None, :]
    # out[i, j, m]
    tl.store(out_ptr + j_start * 64 + out_at, mul_3.to(tl.float16))
