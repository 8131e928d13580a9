# qk_norm_attention_combine: launched on 2 x 16 x 4 blocks of 4 warps, 3 stages.
# reads qk_norm_attention_max0 float32[64, 2, 32], qk_norm_attention_sum1 float32[64, 2, 32], qk_norm_attention_sum2 float32[64, 2, 32, 128]
# writes out float16[2, 32, 128]
import triton
import triton.language as tl


@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def qk_norm_attention_combine(qk_norm_attention_max0_ptr, qk_norm_attention_sum1_ptr, qk_norm_attention_sum2_ptr, out_ptr):
    """out[2, 32, 128].

    Blocks: i by 1, j by 2, m by 32. Loops: none.
    """
    i = tl.program_id(0)  # 2 blocks
    j_start = tl.program_id(1) * 2  # 16 blocks
    m_start = tl.program_id(2) * 32  # 4 blocks
    j_lane = tl.arange(0, 2)
    s_l_lane = tl.arange(0, 64)
    qk_norm_attention_max0_at = j_lane[:, None] + s_l_lane[None, :] * 64  # [j, s_l]
    qk_norm_attention_max0 = tl.load(  # qk_norm_attention_max0[s_l, i, j]
        qk_norm_attention_max0_ptr + i * 32 + j_start + qk_norm_attention_max0_at,
    )
    ne = qk_norm_attention_max0 != float("-inf")  # [j, s_l]
    qk_norm_attention_sum1 = tl.load(  # qk_norm_attention_sum1[s_l, i, j]
        qk_norm_attention_sum1_ptr + i * 32 + j_start + qk_norm_attention_max0_at,
    )
    m_lane = tl.arange(0, 32)
    # [j, m, s_l]
    qk_norm_attention_sum2_at = j_lane[:, None, None] * 128 + m_lane[None, :, None] + s_l_lane[None, None, :] * 8192
    qk_norm_attention_sum2 = tl.load(  # qk_norm_attention_sum2[s_l, i, j, m]
        qk_norm_attention_sum2_ptr + i * 4096 + j_start * 128 + m_start + qk_norm_attention_sum2_at,
    )
    # max[s_l] qk_norm_attention_max0[s_l, i, j]
    max = tl.reduce(qk_norm_attention_max0, 1, max_nan)
    sub = qk_norm_attention_max0 - max[:, None]  # [j, s_l]
    exp = tl.exp2(sub * 1.4426950408889634)  # [j, s_l]
    mul = exp * qk_norm_attention_sum1  # [j, s_l]
    where = tl.where(ne, mul, 0.0)  # [j, s_l]
    # sum[s_l] where(ne(qk_norm_attention_max0[s_l, i, j], -inf), (... * qk_norm_attention_sum1[s_l, i, j]), 0)
    sum = tl.sum(where, 1)
    div = 1.0 / sum  # [j]
    mul_2 = exp[:, None, :] * qk_norm_attention_sum2  # [j, m, s_l]
    where_2 = tl.where(ne[:, None, :], mul_2, 0.0)  # [j, m, s_l]
    # sum[s_l] where(ne(qk_norm_attention_max0[s_l, i, j], -inf), (... * qk_norm_attention_sum2[s_l, i, j, m]), 0)
    sum_2 = tl.sum(where_2, 2)
    mul_3 = div[:, None] * sum_2  # [j, m]
    out_at = j_lane[:, None] * 128 + m_lane[None, :]  # [j, m]
    # out[i, j, m]
    tl.store(out_ptr + i * 4096 + j_start * 128 + m_start + out_at, mul_3.to(tl.float16))
