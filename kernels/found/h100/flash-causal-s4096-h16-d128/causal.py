# causal: launched on 512 blocks of 8 warps, 3 stages.
# reads q float16[1, 4096, 16, 128], k float16[1, 4096, 16, 128], v float16[1, 4096, 16, 128]
# writes out float16[1, 4096, 16, 128]
import triton
import triton.language as tl


@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def causal(q_ptr, k_ptr, v_ptr, out_ptr):
    """out[1, 4096, 16, 128].

    Blocks: i by 128, j by 1, m by 128. Loops: l by 32.
    """
    pid = tl.program_id(0)
    within = pid % 512
    group = (within // 256) * 8
    place = within % 256
    j = (group + place % 8)  # 16 blocks
    i_start = (31 - (place // 8)) * 128  # 32 blocks
    # max[l] where(ge(i, l), (sum[k] ... / 11.3125), -1e+30)
    max0 = tl.full((128,), float("-inf"), tl.float32)
    sum1 = tl.zeros((128,), tl.float32)  # sum[l] exp((where(..., ..., -1e+30) - max0))
    sum2 = tl.zeros((128, 128), tl.float32)  # sum[l] (v[0, l, j, m] * exp((... - max0)))
    l_high = tl.minimum(4096, i_start + 128)
    l_full = tl.minimum(4096, i_start)
    i_lane = tl.arange(0, 128)
    k_lane = tl.arange(0, 128)
    q_at = i_lane[:, None] * 2048 + k_lane[None, :]  # [i, k]
    q = tl.load(q_ptr + i_start * 2048 + j * 128 + q_at)  # q[0, i, j, k]
    l_lane = tl.arange(0, 32)
    k_at = k_lane[:, None] + l_lane[None, :] * 2048  # [k, l]
    m_lane = tl.arange(0, 128)
    v_at = l_lane[:, None] * 2048 + m_lane[None, :]  # [l, m]
    for l_start in range(0, l_full, 32):
        k = tl.load(k_ptr + j * 128 + l_start * 2048 + k_at)  # k[0, l, j, k]
        dot = tl.dot(q, k)  # sum[k] (q[0, i, j, k] * k[0, l, j, k])
        max = tl.reduce(dot, 1, max_nan)  # max over the step
        max_scaled = max * 0.08839779005524862  # [i]
        max0_new = max_nan(max0, max_scaled)  # [i]
        max0_live = max0 != float("-inf")  # [i]
        sub = max0 - max0_new  # [i]
        exp = tl.exp2(sub * 1.4426950408889634)  # [i]
        scale = tl.where(max0_live, exp, 0.0)  # [i]
        max0_new_log2 = max0_new * 1.4426950408889634  # [i]
        exp_2 = tl.exp2(dot * 0.1275310533382509 - max0_new_log2[:, None])  # [i, l]
        sum = tl.sum(exp_2, 1)  # sum over the step
        sum1 = sum1 * scale + sum
        exp_2_f16 = exp_2.to(tl.float16)  # [i, l]
        v = tl.load(v_ptr + j * 128 + l_start * 2048 + v_at)  # v[0, l, j, m]
        sum2 = tl.dot(exp_2_f16, v, sum2 * scale[:, None])
        max0 = max0_new
    i = i_start + i_lane  # i
    for l_start_2 in range(l_full, l_high, 32):
        l = l_start_2 + l_lane  # l
        ge = i[:, None] >= l[None, :]  # [i, l]
        k_2 = tl.load(k_ptr + j * 128 + l_start_2 * 2048 + k_at)  # k[0, l, j, k]
        dot_2 = tl.dot(q, k_2)  # sum[k] (q[0, i, j, k] * k[0, l, j, k])
        mul = dot_2 * 0.08839779005524862  # [i, l]
        where = tl.where(ge, mul, (-1e+30))  # [i, l]
        max_2 = tl.reduce(where, 1, max_nan)  # max over the step
        max0_new_2 = max_nan(max0, max_2)  # [i]
        max0_live_2 = max0 != float("-inf")  # [i]
        sub_2 = max0 - max0_new_2  # [i]
        exp_3 = tl.exp2(sub_2 * 1.4426950408889634)  # [i]
        scale_2 = tl.where(max0_live_2, exp_3, 0.0)  # [i]
        max0_new_2_log2 = max0_new_2 * 1.4426950408889634  # [i]
        max0_new_2_masked = (max0_new_2 <= -1000000000.0) & (max0_new_2 > float("-inf"))  # [i]
        max0_new_2_log2_2 = tl.where(max0_new_2_masked, max0_new_2, max0_new_2_log2)  # [i]
        slope = tl.where(max0_new_2_masked, 1.0, 1.4426950408889634)  # [i]
        exp_4 = tl.exp2(where * slope[:, None] - max0_new_2_log2_2[:, None])  # [i, l]
        sum_2 = tl.sum(exp_4, 1)  # sum over the step
        sum1 = sum1 * scale_2 + sum_2
        exp_4_f16 = exp_4.to(tl.float16)  # [i, l]
        v_2 = tl.load(v_ptr + j * 128 + l_start_2 * 2048 + v_at)  # v[0, l, j, m]
        sum2 = tl.dot(exp_4_f16, v_2, sum2 * scale_2[:, None])
        max0 = max0_new_2
    div = 1.0 / sum1  # [i]
    mul_2 = div[:, None] * sum2  # [i, m]
    out_at = i_lane[:, None] * 2048 + m_lane[None, :]  # [i, m]
    # out[0, i, j, m]
    tl.store(out_ptr + i_start * 2048 + j * 128 + out_at, mul_2.to(tl.float16))
