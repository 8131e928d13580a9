# qk_norm_attention_parts: launched on 4 x 2 x 16 blocks of 4 warps, 3 stages.
# reads q float16[2, 1024, 128], k float16[2, 128, 8192], v float16[2, 8192, 128]
# writes qk_norm_attention_max0 float32[4, 2, 1024], qk_norm_attention_sum1 float32[4, 2, 1024, 128], qk_norm_attention_sum2 float32[4, 2, 1024]
import triton
import triton.language as tl


@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def qk_norm_attention_parts(q_ptr, k_ptr, v_ptr, qk_norm_attention_max0_ptr, qk_norm_attention_sum1_ptr, qk_norm_attention_sum2_ptr):
    """qk_norm_attention_max0[4, 2, 1024], qk_norm_attention_sum1[4, 2, 1024, 128], qk_norm_attention_sum2[4, 2, 1024].

    Blocks: s_l by 1, i by 1, j by 64. Loops: l by 128.
    """
    s_l = tl.program_id(0)  # 4 blocks
    i = tl.program_id(1)  # 2 blocks
    j_start = tl.program_id(2) * 64  # 16 blocks
    # max[l] sum[k] ((q[i, j, k] * ...) * k[i, k, l])
    max0 = tl.full((64,), float("-inf"), tl.float32)
    # sum[l] (where(ne(max0, -inf), exp(...), 0) * v[i, l, m])
    sum1 = tl.zeros((64, 128), tl.float32)
    sum2 = tl.zeros((64,), tl.float32)  # sum[l] where(ne(max0, -inf), exp((... - max0)), 0)
    l_first = s_l * 2048
    j_lane = tl.arange(0, 64)
    k_lane = tl.arange(0, 128)
    q_at = j_lane[:, None] * 128 + k_lane[None, :]  # [j, k]
    # q[i, j, k]
    q = tl.load(q_ptr + i * 131072 + j_start * 128 + q_at, eviction_policy="evict_last")
    l_lane = tl.arange(0, 128)
    k_at = k_lane[:, None] * 8192 + l_lane[None, :]  # [k, l]
    q_f32 = q.to(tl.float32)  # [j, k]
    mul = q_f32 * q_f32  # [j, k]
    sum = tl.sum(mul, 1)  # sum[k] (q[i, j, k] * q[i, j, k])
    mul_2 = sum * 0.0078125  # [j]
    add = mul_2 + 9.999999974752427e-07  # [j]
    rsqrt = tl.rsqrt(add)  # [j]
    rsqrt_log2 = rsqrt * 1.4426950408889634  # [j]
    m_lane = tl.arange(0, 128)
    v_at = l_lane[:, None] * 128 + m_lane[None, :]  # [l, m]
    for l_start in range(l_first, l_first + 2048, 128):
        k = tl.load(k_ptr + i * 1048576 + l_start + k_at, eviction_policy="evict_last")  # k[i, k, l]
        dot = tl.dot(q, k)  # sum[k] (q[i, j, k] * k[i, k, l])
        max = tl.reduce(dot, 1, max_nan)  # max over the step
        mul_3 = max * rsqrt  # [j]
        max0_new = max_nan(max0, mul_3)  # [j]
        max0_live = max0 != float("-inf")  # [j]
        sub = max0 - max0_new  # [j]
        exp = tl.exp2(sub * 1.4426950408889634)  # [j]
        scale = tl.where(max0_live, exp, 0.0)  # [j]
        max0_new_log2 = max0_new * 1.4426950408889634  # [j]
        ne = max0_new != float("-inf")  # [j]
        max0_new_log2_safe = tl.where(ne, max0_new_log2, float("inf"))  # [j]
        exp_2 = tl.exp2(dot * rsqrt_log2[:, None] - max0_new_log2_safe[:, None])  # [j, l]
        exp_2_f16 = exp_2.to(tl.float16)  # [j, l]
        # v[i, l, m]
        v = tl.load(v_ptr + i * 1048576 + l_start * 128 + v_at, eviction_policy="evict_last")
        sum1 = tl.dot(exp_2_f16, v, sum1 * scale[:, None])
        sum_2 = tl.sum(exp_2, 1)  # sum over the step
        sum2 = sum2 * scale + sum_2
        max0 = max0_new
    # qk_norm_attention_max0[s_l, i, j]
    tl.store(qk_norm_attention_max0_ptr + i * 1024 + j_start + s_l * 2048 + j_lane, max0)
    qk_norm_attention_sum1_at = j_lane[:, None] * 128 + m_lane[None, :]  # [j, m]
    # qk_norm_attention_sum1[s_l, i, j, m]
    tl.store(
        qk_norm_attention_sum1_ptr + i * 131072 + j_start * 128 + s_l * 262144 + qk_norm_attention_sum1_at,
        sum1,
    )
    # qk_norm_attention_sum2[s_l, i, j]
    tl.store(qk_norm_attention_sum2_ptr + i * 1024 + j_start + s_l * 2048 + j_lane, sum2)
