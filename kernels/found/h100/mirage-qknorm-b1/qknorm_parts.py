# qknorm_parts: launched on 16 x 2 x 4 blocks of 4 warps, 3 stages.
# reads q float16[2, 256, 64], k float16[2, 64, 4096], v float16[2, 4096, 64]
# writes qknorm_max0 float32[16, 2, 256], qknorm_sum1 float32[16, 2, 256], qknorm_sum2 float32[16, 2, 256, 64]
import triton
import triton.language as tl


@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def qknorm_parts(q_ptr, k_ptr, v_ptr, qknorm_max0_ptr, qknorm_sum1_ptr, qknorm_sum2_ptr):
    """qknorm_max0[16, 2, 256], qknorm_sum1[16, 2, 256], qknorm_sum2[16, 2, 256, 64].

    Blocks: s_k by 1, i by 1, l by 64. Loops: k by 128.
    """
    s_k = tl.program_id(0)  # 16 blocks
    i = tl.program_id(1)  # 2 blocks
    l_start = tl.program_id(2) * 64  # 4 blocks
    # max[k] sum[j] ((q[i, l, j] * ...) * (k[i, j, k] * ...))
    max0 = tl.full((64,), float("-inf"), tl.float32)
    sum1 = tl.zeros((64,), tl.float32)  # sum[k] where(ne(max0, -inf), exp((... - max0)), 0)
    # sum[k] (v[i, k, m] * where(ne(max0, -inf), exp(...), 0))
    sum2 = tl.zeros((64, 64), tl.float32)
    k_first = s_k * 256
    j_lane = tl.arange(0, 64)
    k_lane = tl.arange(0, 128)
    k_at = j_lane[:, None] * 4096 + k_lane[None, :]  # [j, k]
    l_lane = tl.arange(0, 64)
    q_at = l_lane[:, None] * 64 + j_lane[None, :]  # [l, j]
    q = tl.load(q_ptr + i * 16384 + l_start * 64 + q_at)  # q[i, l, j]
    q_f32 = q.to(tl.float32)  # [l, j]
    mul_4 = q_f32 * q_f32  # [l, j]
    sum_2 = tl.sum(mul_4, 1)  # sum[j] (q[i, l, j] * q[i, l, j])
    mul_5 = sum_2 * 0.015625  # [l]
    add_2 = mul_5 + 9.999999974752427e-07  # [l]
    rsqrt_2 = tl.rsqrt(add_2)  # [l]
    rsqrt_2_log2 = rsqrt_2 * 1.4426950408889634  # [l]
    m_lane = tl.arange(0, 64)
    v_at = k_lane[:, None] * 64 + m_lane[None, :]  # [k, m]
    for k_start in range(k_first, k_first + 256, 128):
        k = tl.load(k_ptr + i * 262144 + k_start + k_at)  # k[i, j, k]
        k_f32 = k.to(tl.float32)  # [j, k]
        mul = k_f32 * k_f32  # [j, k]
        sum = tl.sum(mul, 0)  # sum[j] (k[i, j, k] * k[i, j, k])
        mul_2 = sum * 0.015625  # [k]
        add = mul_2 + 9.999999974752427e-07  # [k]
        rsqrt = tl.rsqrt(add)  # [k]
        dot = tl.dot(q, k)  # sum[j] ((q[i, l, j] * k[i, j, k]) * rsqrt(...))
        mul_3 = dot * rsqrt[None, :]  # [l, k]
        max = tl.reduce(mul_3, 1, max_nan)  # max over the step
        mul_6 = max * rsqrt_2  # [l]
        max0_new = max_nan(max0, mul_6)  # [l]
        max0_live = max0 != float("-inf")  # [l]
        sub = max0 - max0_new  # [l]
        exp = tl.exp2(sub * 1.4426950408889634)  # [l]
        scale = tl.where(max0_live, exp, 0.0)  # [l]
        max0_new_log2 = max0_new * 1.4426950408889634  # [l]
        ne = max0_new != float("-inf")  # [l]
        max0_new_log2_safe = tl.where(ne, max0_new_log2, float("inf"))  # [l]
        exp_2 = tl.exp2(mul_3 * rsqrt_2_log2[:, None] - max0_new_log2_safe[:, None])  # [l, k]
        sum_3 = tl.sum(exp_2, 1)  # sum over the step
        sum1 = sum1 * scale + sum_3
        exp_2_f16 = exp_2.to(tl.float16)  # [l, k]
        v = tl.load(v_ptr + i * 262144 + k_start * 64 + v_at)  # v[i, k, m]
        sum2 = tl.dot(exp_2_f16, v, sum2 * scale[:, None])
        max0 = max0_new
    # qknorm_max0[s_k, i, l]
    tl.store(qknorm_max0_ptr + i * 256 + l_start + s_k * 512 + l_lane, max0)
    # qknorm_sum1[s_k, i, l]
    tl.store(qknorm_sum1_ptr + i * 256 + l_start + s_k * 512 + l_lane, sum1)
    qknorm_sum2_at = l_lane[:, None] * 64 + m_lane[None, :]  # [l, m]
    # qknorm_sum2[s_k, i, l, m]
    tl.store(qknorm_sum2_ptr + i * 16384 + l_start * 64 + s_k * 32768 + qknorm_sum2_at, sum2)
