# qk_norm_attention_combine: launched on 4 x 8 x 4 blocks of 4 warps, 3 stages.
# reads qk_norm_attention_max0 float32[32, 4, 8], qk_norm_attention_sum1 float32[32, 4, 8, 128], qk_norm_attention_sum2 float32[32, 4, 8]
# writes out float16[4, 8, 128]
import triton
import triton.language as tl


@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def qk_norm_attention_combine(qk_norm_attention_max0_ptr, qk_norm_attention_sum1_ptr, qk_norm_attention_sum2_ptr, out_ptr):
    """out[4, 8, 128].

    Blocks: i by 1, j by 1, m by 32. Loops: none.
    """
    i = tl.program_id(0)  # 4 blocks
    j = tl.program_id(1)  # 8 blocks
    m_start = tl.program_id(2) * 32  # 4 blocks
    s_l_lane = tl.arange(0, 32)
    qk_norm_attention_max0 = tl.load(  # qk_norm_attention_max0[s_l, i, j]
        qk_norm_attention_max0_ptr + i * 8 + j + s_l_lane * 32,
        eviction_policy="evict_last",
    )
    ne = qk_norm_attention_max0 != float("-inf")  # [s_l]
    m_lane = tl.arange(0, 32)
    qk_norm_attention_sum1_at = m_lane[:, None] + s_l_lane[None, :] * 4096  # [m, s_l]
    qk_norm_attention_sum1 = tl.load(  # qk_norm_attention_sum1[s_l, i, j, m]
        qk_norm_attention_sum1_ptr + i * 1024 + j * 128 + m_start + qk_norm_attention_sum1_at,
        eviction_policy="evict_first",
    )
    qk_norm_attention_sum2 = tl.load(  # qk_norm_attention_sum2[s_l, i, j]
        qk_norm_attention_sum2_ptr + i * 8 + j + s_l_lane * 32,
        eviction_policy="evict_last",
    )
    # max[s_l] qk_norm_attention_max0[s_l, i, j]
    max = tl.reduce(qk_norm_attention_max0, 0, max_nan)
    sub = qk_norm_attention_max0 - max  # [s_l]
    exp = tl.exp2(sub * 1.4426950408889634)  # [s_l]
    mul = exp[None, :] * qk_norm_attention_sum1  # [m, s_l]
    where = tl.where(ne[None, :], mul, 0.0)  # [m, s_l]
    # sum[s_l] where(ne(qk_norm_attention_max0[s_l, i, j], -inf), (... * qk_norm_attention_sum1[s_l, i, j, m]), 0)
    sum = tl.sum(where, 1)
    mul_2 = exp * qk_norm_attention_sum2  # [s_l]
    where_2 = tl.where(ne, mul_2, 0.0)  # [s_l]
    # sum[s_l] where(ne(qk_norm_attention_max0[s_l, i, j], -inf), (... * qk_norm_attention_sum2[s_l, i, j]), 0)
    sum_2 = tl.sum(where_2, 0)
    div = 1.0 / sum_2  # []
    mul_3 = sum * div  # [m]
    # out[i, j, m]
    tl.store(out_ptr + i * 1024 + j * 128 + m_start + m_lane, mul_3.to(tl.float16))
