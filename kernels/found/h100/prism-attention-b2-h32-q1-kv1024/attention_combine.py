# attention_combine: launched on 2 x 32 x 2 blocks of 4 warps, 3 stages.
# reads attention_max1 float32[64, 2, 32], attention_sum2 float32[64, 2, 32], attention_sum3 float32[64, 2, 32, 128]
# writes out float16[2, 32, 128]
import triton
import triton.language as tl


@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def attention_combine(attention_max1_ptr, attention_sum2_ptr, attention_sum3_ptr, out_ptr):
    """out[2, 32, 128].

    Blocks: i by 1, j by 1, m by 64. Loops: none.
    """
    i = tl.program_id(0)  # 2 blocks
    j = tl.program_id(1)  # 32 blocks
    m_start = tl.program_id(2) * 64  # 2 blocks
    s_l_lane = tl.arange(0, 64)
    # attention_max1[s_l, i, j]
    attention_max1 = tl.load(attention_max1_ptr + i * 32 + j + s_l_lane * 64)
    ne = attention_max1 != float("-inf")  # [s_l]
    # attention_sum2[s_l, i, j]
    attention_sum2 = tl.load(attention_sum2_ptr + i * 32 + j + s_l_lane * 64)
    m_lane = tl.arange(0, 64)
    attention_sum3_at = m_lane[:, None] + s_l_lane[None, :] * 8192  # [m, s_l]
    attention_sum3 = tl.load(  # attention_sum3[s_l, i, j, m]
        attention_sum3_ptr + i * 4096 + j * 128 + m_start + attention_sum3_at,
    )
    max = tl.reduce(attention_max1, 0, max_nan)  # max[s_l] attention_max1[s_l, i, j]
    sub = attention_max1 - max  # [s_l]
    exp = tl.exp(sub)  # [s_l]
    mul = exp * attention_sum2  # [s_l]
    where = tl.where(ne, mul, 0.0)  # [s_l]
    # sum[s_l] where(ne(attention_max1[s_l, i, j], -inf), (... * attention_sum2[s_l, i, j]), 0)
    sum = tl.sum(where, 0)
    div = 1.0 / sum  # []
    mul_2 = exp[None, :] * attention_sum3  # [m, s_l]
    where_2 = tl.where(ne[None, :], mul_2, 0.0)  # [m, s_l]
    # sum[s_l] where(ne(attention_max1[s_l, i, j], -inf), (... * attention_sum3[s_l, i, j, m]), 0)
    sum_2 = tl.sum(where_2, 1)
    mul_3 = div * sum_2  # [m]
    # out[i, j, m]
    tl.store(out_ptr + i * 4096 + j * 128 + m_start + m_lane, mul_3.to(tl.float16))
