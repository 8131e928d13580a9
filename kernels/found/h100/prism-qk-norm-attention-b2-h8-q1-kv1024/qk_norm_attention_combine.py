# qk_norm_attention_combine: launched on 8 x 8 blocks of 4 warps, 3 stages.
# reads qk_norm_attention_max0 float32[64, 2, 8], qk_norm_attention_sum1 float32[64, 2, 8, 128], qk_norm_attention_sum2 float32[64, 2, 8]
# writes out float16[2, 8, 128]
import triton
import triton.language as tl


@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def qk_norm_attention_combine(qk_norm_attention_max0_ptr, qk_norm_attention_sum1_ptr, qk_norm_attention_sum2_ptr, out_ptr):
    """out[2, 8, 128].

    Blocks: i by 2, j by 1, m by 16. Loops: none.
    """
    j = tl.program_id(0)  # 8 blocks
    m_start = tl.program_id(1) * 16  # 8 blocks
    i_lane = tl.arange(0, 2)
    s_l_lane = tl.arange(0, 64)
    qk_norm_attention_max0_at = i_lane[:, None] * 8 + s_l_lane[None, :] * 16  # [i, s_l]
    # qk_norm_attention_max0[s_l, i, j]
    qk_norm_attention_max0 = tl.load(qk_norm_attention_max0_ptr + j + qk_norm_attention_max0_at)
    ne = qk_norm_attention_max0 != float("-inf")  # [i, s_l]
    m_lane = tl.arange(0, 16)
    # [i, m, s_l]
    qk_norm_attention_sum1_at = i_lane[:, None, None] * 1024 + m_lane[None, :, None] + s_l_lane[None, None, :] * 2048
    qk_norm_attention_sum1 = tl.load(  # qk_norm_attention_sum1[s_l, i, j, m]
        qk_norm_attention_sum1_ptr + j * 128 + m_start + qk_norm_attention_sum1_at,
    )
    # qk_norm_attention_sum2[s_l, i, j]
    qk_norm_attention_sum2 = tl.load(qk_norm_attention_sum2_ptr + j + qk_norm_attention_max0_at)
    # max[s_l] qk_norm_attention_max0[s_l, i, j]
    max = tl.reduce(qk_norm_attention_max0, 1, max_nan)
    sub = qk_norm_attention_max0 - max[:, None]  # [i, s_l]
    exp = tl.exp2(sub * 1.4426950408889634)  # [i, s_l]
    mul = exp[:, None, :] * qk_norm_attention_sum1  # [i, m, s_l]
    where = tl.where(ne[:, None, :], mul, 0.0)  # [i, m, s_l]
    # sum[s_l] where(ne(qk_norm_attention_max0[s_l, i, j], -inf), (... * qk_norm_attention_sum1[s_l, i, j, m]), 0)
    sum = tl.sum(where, 2)
    mul_2 = exp * qk_norm_attention_sum2  # [i, s_l]
    where_2 = tl.where(ne, mul_2, 0.0)  # [i, s_l]
    # sum[s_l] where(ne(qk_norm_attention_max0[s_l, i, j], -inf), (... * qk_norm_attention_sum2[s_l, i, j]), 0)
    sum_2 = tl.sum(where_2, 1)
    div = 1.0 / sum_2  # [i]
    mul_3 = sum * div[:, None]  # [i, m]
    out_at = i_lane[:, None] * 1024 + m_lane[None, :]  # [i, m]
    # out[i, j, m]
    tl.store(out_ptr + j * 128 + m_start + out_at, mul_3.to(tl.float16))
