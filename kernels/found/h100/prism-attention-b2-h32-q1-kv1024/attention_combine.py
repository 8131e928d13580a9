# attention_combine: launched on 2 x 16 x 4 blocks of 4 warps, 3 stages.
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

    Blocks: i by 1, j by 2, m by 32. Loops: none.
    """
    i = tl.program_id(0)  # 2 blocks
    j_start = tl.program_id(1) * 2  # 16 blocks
    m_start = tl.program_id(2) * 32  # 4 blocks
    j_lane = tl.arange(0, 2)
    s_l_lane = tl.arange(0, 64)
    attention_max1_at = j_lane[:, None] + s_l_lane[None, :] * 64  # [j, s_l]
    attention_max1 = tl.load(  # attention_max1[s_l, i, j]
        attention_max1_ptr + i * 32 + j_start + attention_max1_at,
        eviction_policy="evict_last",
    )
    ne = attention_max1 != float("-inf")  # [j, s_l]
    attention_sum2 = tl.load(  # attention_sum2[s_l, i, j]
        attention_sum2_ptr + i * 32 + j_start + attention_max1_at,
        eviction_policy="evict_last",
    )
    m_lane = tl.arange(0, 32)
    # [j, m, s_l]
    attention_sum3_at = j_lane[:, None, None] * 128 + m_lane[None, :, None] + s_l_lane[None, None, :] * 8192
    attention_sum3 = tl.load(  # attention_sum3[s_l, i, j, m]
        attention_sum3_ptr + i * 4096 + j_start * 128 + m_start + attention_sum3_at,
        eviction_policy="evict_first",
    )
    max = tl.reduce(attention_max1, 1, max_nan)  # max[s_l] attention_max1[s_l, i, j]
    sub = attention_max1 - max[:, None]  # [j, s_l]
    exp = tl.exp2(sub * 1.4426950408889634)  # [j, s_l]
    mul = exp * attention_sum2  # [j, s_l]
    where = tl.where(ne, mul, 0.0)  # [j, s_l]
    # sum[s_l] where(ne(attention_max1[s_l, i, j], -inf), (... * attention_sum2[s_l, i, j]), 0)
    sum = tl.sum(where, 1)
    div = 1.0 / sum  # [j]
    mul_2 = exp[:, None, :] * attention_sum3  # [j, m, s_l]
    where_2 = tl.where(ne[:, None, :], mul_2, 0.0)  # [j, m, s_l]
    # sum[s_l] where(ne(attention_max1[s_l, i, j], -inf), (... * attention_sum3[s_l, i, j, m]), 0)
    sum_2 = tl.sum(where_2, 2)
    mul_3 = div[:, None] * sum_2  # [j, m]
    out_at = j_lane[:, None] * 128 + m_lane[None, :]  # [j, m]
    # out[i, j, m]
    tl.store(out_ptr + i * 4096 + j_start * 128 + m_start + out_at, mul_3.to(tl.float16))
