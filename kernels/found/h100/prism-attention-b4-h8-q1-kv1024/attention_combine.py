# attention_combine: launched on 4 x 8 x 4 blocks of 4 warps, 3 stages.
# reads attention_max1 float32[32, 4, 8], attention_sum2 float32[32, 4, 8, 128], attention_sum3 float32[32, 4, 8]
# writes out float16[4, 8, 128]
import triton
import triton.language as tl


@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def attention_combine(attention_max1_ptr, attention_sum2_ptr, attention_sum3_ptr, out_ptr):
    """out[4, 8, 128].

    Blocks: i by 1, j by 1, m by 32. Loops: none.
    """
    i = tl.program_id(0)  # 4 blocks
    j = tl.program_id(1)  # 8 blocks
    m_start = tl.program_id(2) * 32  # 4 blocks
    s_l_lane = tl.arange(0, 32)
    attention_max1 = tl.load(  # attention_max1[s_l, i, j]
        attention_max1_ptr + i * 8 + j + s_l_lane * 32,
        eviction_policy="evict_last",
    )
    ne = attention_max1 != float("-inf")  # [s_l]
    m_lane = tl.arange(0, 32)
    attention_sum2_at = m_lane[:, None] + s_l_lane[None, :] * 4096  # [m, s_l]
    attention_sum2 = tl.load(  # attention_sum2[s_l, i, j, m]
        attention_sum2_ptr + i * 1024 + j * 128 + m_start + attention_sum2_at,
        eviction_policy="evict_first",
    )
    attention_sum3 = tl.load(  # attention_sum3[s_l, i, j]
        attention_sum3_ptr + i * 8 + j + s_l_lane * 32,
        eviction_policy="evict_last",
    )
    max = tl.reduce(attention_max1, 0, max_nan)  # max[s_l] attention_max1[s_l, i, j]
    sub = attention_max1 - max  # [s_l]
    exp = tl.exp2(sub * 1.4426950408889634)  # [s_l]
    mul = exp[None, :] * attention_sum2  # [m, s_l]
    where = tl.where(ne[None, :], mul, 0.0)  # [m, s_l]
    # sum[s_l] where(ne(attention_max1[s_l, i, j], -inf), (... * attention_sum2[s_l, i, j, m]), 0)
    sum = tl.sum(where, 1)
    mul_2 = exp * attention_sum3  # [s_l]
    where_2 = tl.where(ne, mul_2, 0.0)  # [s_l]
    # sum[s_l] where(ne(attention_max1[s_l, i, j], -inf), (... * attention_sum3[s_l, i, j]), 0)
    sum_2 = tl.sum(where_2, 0)
    div = 1.0 / sum_2  # []
    mul_3 = sum * div  # [m]
    # out[i, j, m]
    tl.store(out_ptr + i * 1024 + j * 128 + m_start + m_lane, mul_3.to(tl.float16))
