# attention_parts: launched on 64 x 2 blocks of 4 warps, 3 stages.
# reads v float16[2, 8192, 128], q float16[2, 8, 128], k float16[2, 128, 8192]
# writes attention_max1 float32[64, 2, 8], attention_sum2 float32[64, 2, 8, 128], attention_sum3 float32[64, 2, 8]
import triton
import triton.language as tl


@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def attention_parts(v_ptr, q_ptr, k_ptr, attention_max1_ptr, attention_sum2_ptr, attention_sum3_ptr):
    """attention_max1[64, 2, 8], attention_sum2[64, 2, 8, 128], attention_sum3[64, 2, 8].

    Blocks: s_l by 1, i by 1, j by 8. Loops: l by 128, k by 32.
    """
    s_l = tl.program_id(0)  # 64 blocks
    i = tl.program_id(1)  # 2 blocks
    max1 = tl.full((16,), float("-inf"), tl.float32)  # max[l] sum0
    sum2 = tl.zeros((16, 128), tl.float32)  # sum[l] (exp((sum0 - max1)) * v[i, l, m])
    sum3 = tl.zeros((16,), tl.float32)  # sum[l] exp((sum0 - max1))
    l_first = s_l * 128
    j_lane = tl.arange(0, 16)
    j_mask = j_lane < 8  # j < 8
    k_lane = tl.arange(0, 32)
    q_at = j_lane[:, None] * 128 + k_lane[None, :]  # [j, k]
    l_lane = tl.arange(0, 128)
    k_at = k_lane[:, None] * 8192 + l_lane[None, :]  # [k, l]
    m_lane = tl.arange(0, 128)
    v_at = l_lane[:, None] * 128 + m_lane[None, :]  # [l, m]
    sum0 = tl.zeros((16, 128), tl.float32)  # sum[k] (q[i, j, k] * k[i, k, l])
    for k_start in range(0, 128, 32):
        q = tl.load(  # q[i, j, k]
            q_ptr + i * 1024 + k_start + q_at,
            mask=j_mask[:, None],
            other=0.0,
            eviction_policy="evict_last",
        )
        k = tl.load(  # k[i, k, l]
            k_ptr + i * 1048576 + l_first + k_start * 8192 + k_at,
            eviction_policy="evict_last",
        )
        sum0 = tl.dot(q, k, sum0)
    max = tl.reduce(sum0, 1, max_nan)  # max over the step
    max1_new = max_nan(max1, max)  # [j]
    max1_live = max1 != float("-inf")  # [j]
    sub = max1 - max1_new  # [j]
    exp = tl.exp2(sub * 1.4426950408889634)  # [j]
    scale = tl.where(max1_live, exp, 0.0)  # [j]
    max1_new_log2 = max1_new * 1.4426950408889634  # [j]
    exp_2 = tl.exp2(sum0 * 1.4426950408889634 - max1_new_log2[:, None])  # [j, l]
    exp_2_f16 = exp_2.to(tl.float16)  # [j, l]
    # v[i, l, m]
    v = tl.load(v_ptr + i * 1048576 + l_first * 128 + v_at, eviction_policy="evict_last")
    sum2 = tl.dot(exp_2_f16, v, sum2 * scale[:, None])
    sum = tl.sum(exp_2, 1)  # sum over the step
    sum3 = sum3 * scale + sum
    max1 = max1_new
    # attention_max1[s_l, i, j]
    tl.store(attention_max1_ptr + i * 8 + s_l * 16 + j_lane, max1, mask=j_mask)
    attention_sum2_at = j_lane[:, None] * 128 + m_lane[None, :]  # [j, m]
    # attention_sum2[s_l, i, j, m]
    tl.store(
        attention_sum2_ptr + i * 1024 + s_l * 2048 + attention_sum2_at,
        sum2,
        mask=j_mask[:, None],
    )
    # attention_sum3[s_l, i, j]
    tl.store(attention_sum3_ptr + i * 8 + s_l * 16 + j_lane, sum3, mask=j_mask)
