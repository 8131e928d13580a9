# qk_norm_attention_combine: launched on 512 blocks of 4 warps, 3 stages.
# reads qk_norm_attention_max0 float32[4, 2, 1024], qk_norm_attention_sum1 float32[4, 2, 1024, 128], qk_norm_attention_sum2 float32[4, 2, 1024]
# writes out float16[2, 1024, 128]
import triton
import triton.language as tl


@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def qk_norm_attention_combine(qk_norm_attention_max0_ptr, qk_norm_attention_sum1_ptr, qk_norm_attention_sum2_ptr, out_ptr):
    """out[2, 1024, 128].

    Blocks: i by 2, j by 2, m by 128. Loops: none.
    """
    j_start = tl.program_id(0) * 2  # 512 blocks
    i_lane = tl.arange(0, 2)
    j_lane = tl.arange(0, 2)
    s_l_lane = tl.arange(0, 4)
    # [i, j, s_l]
    qk_norm_attention_max0_at = i_lane[:, None, None] * 1024 + j_lane[None, :, None] + s_l_lane[None, None, :] * 2048
    qk_norm_attention_max0 = tl.load(  # qk_norm_attention_max0[s_l, i, j]
        qk_norm_attention_max0_ptr + j_start + qk_norm_attention_max0_at,
    )
    ne = qk_norm_attention_max0 != float("-inf")  # [i, j, s_l]
    m_lane = tl.arange(0, 128)
    # [i, j, m, s_l]
    qk_norm_attention_sum1_at = i_lane[:, None, None, None] * 131072 + j_lane[None, :, None, None] * 128 + m_lane[None, None, :, None] + s_l_lane[None, None, None, :] * 262144
    qk_norm_attention_sum1 = tl.load(  # qk_norm_attention_sum1[s_l, i, j, m]
        qk_norm_attention_sum1_ptr + j_start * 128 + qk_norm_attention_sum1_at,
    )
    qk_norm_attention_sum2 = tl.load(  # qk_norm_attention_sum2[s_l, i, j]
        qk_norm_attention_sum2_ptr + j_start + qk_norm_attention_max0_at,
    )
    # max[s_l] qk_norm_attention_max0[s_l, i, j]
    max = tl.reduce(qk_norm_attention_max0, 2, max_nan)
    sub = qk_norm_attention_max0 - max[:, :, None]  # [i, j, s_l]
    exp = tl.exp2(sub * 1.4426950408889634)  # [i, j, s_l]
    mul = exp[:, :, None, :] * qk_norm_attention_sum1  # [i, j, m, s_l]
    where = tl.where(ne[:, :, None, :], mul, 0.0)  # [i, j, m, s_l]
    # sum[s_l] where(ne(qk_norm_attention_max0[s_l, i, j], -inf), (... * qk_norm_attention_sum1[s_l, i, j, m]), 0)
    sum = tl.sum(where, 3)
    mul_2 = exp * qk_norm_attention_sum2  # [i, j, s_l]
    where_2 = tl.where(ne, mul_2, 0.0)  # [i, j, s_l]
    # sum[s_l] where(ne(qk_norm_attention_max0[s_l, i, j], -inf), (... * qk_norm_attention_sum2[s_l, i, j]), 0)
    sum_2 = tl.sum(where_2, 2)
    div = 1.0 / sum_2  # [i, j]
    mul_3 = sum * div[:, :, None]  # [i, j, m]
    # [i, j, m]
    out_at = i_lane[:, None, None] * 131072 + j_lane[None, :, None] * 128 + m_lane[None, None, :]
    # out[i, j, m]
    tl.store(out_ptr + j_start * 128 + out_at, mul_3.to(tl.float16))
