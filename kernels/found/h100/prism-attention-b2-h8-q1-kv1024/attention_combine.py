# attention_combine: launched on 8 x 8 blocks of 4 warps, 3 stages.
# reads attention_max1 float32[64, 2, 8], attention_sum2 float32[64, 2, 8, 128], attention_sum3 float32[64, 2, 8]
# writes out float16[2, 8, 128]
import triton
import triton.language as tl


@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def attention_combine(attention_max1_ptr, attention_sum2_ptr, attention_sum3_ptr, out_ptr):
    """out[2, 8, 128].

    Blocks: i by 2, j by 1, m by 16. Loops: none.
    """
    j = tl.program_id(0)  # 8 blocks
    m_start = tl.program_id(1) * 16  # 8 blocks
    i_lane = tl.arange(0, 2)
    s_l_lane = tl.arange(0, 64)
    attention_max1_at = i_lane[:, None] * 8 + s_l_lane[None, :] * 16  # [i, s_l]
    # attention_max1[s_l, i, j]
    attention_max1 = tl.load(attention_max1_ptr + j + attention_max1_at)
    ne = attention_max1 != float("-inf")  # [i, s_l]
    m_lane = tl.arange(0, 16)
    # [i, m, s_l]
    attention_sum2_at = i_lane[:, None, None] * 1024 + m_lane[None, :, None] + s_l_lane[None, None, :] * 2048
    # attention_sum2[s_l, i, j, m]
    attention_sum2 = tl.load(attention_sum2_ptr + j * 128 + m_start + attention_sum2_at)
    # attention_sum3[s_l, i, j]
    attention_sum3 = tl.load(attention_sum3_ptr + j + attention_max1_at)
    max = tl.reduce(attention_max1, 1, max_nan)  # max[s_l] attention_max1[s_l, i, j]
    sub = attention_max1 - max[:, None]  # [i, s_l]
    exp = tl.exp2(sub * 1.4426950408889634)  # [i, s_l]
    mul = exp[:, None, :] * attention_sum2  # [i, m, s_l]
    where = tl.where(ne[:, None, :], mul, 0.0)  # [i, m, s_l]
    # sum[s_l] where(ne(attention_max1[s_l, i, j], -inf), (... * attention_sum2[s_l, i, j, m]), 0)
    sum = tl.sum(where, 2)
    mul_2 = exp * attention_sum3  # [i, s_l]
    where_2 = tl.where(ne, mul_2, 0.0)  # [i, s_l]
    # sum[s_l] where(ne(attention_max1[s_l, i, j], -inf), (... * attention_sum3[s_l, i, j]), 0)
    sum_2 = tl.sum(where_2, 1)
    div = 1.0 / sum_2  # [i]
    mul_3 = sum * div[:, None]  # [i, m]
    out_at = i_lane[:, None] * 1024 + m_lane[None, :]  # [i, m]
    # out[i, j, m]
    tl.store(out_ptr + j * 128 + m_start + out_at, mul_3.to(tl.float16))
