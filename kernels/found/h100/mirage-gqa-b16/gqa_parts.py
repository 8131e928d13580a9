# gqa_parts: launched on 256 blocks of 4 warps, 3 stages.
# reads q float16[32, 256, 64], k float16[32, 64, 4096], v float16[32, 4096, 64]
# writes gqa_max0 float32[4, 32, 256], gqa_sum1 float32[4, 32, 256], gqa_sum2 float32[4, 32, 256, 64]
import triton
import triton.language as tl


@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def gqa_parts(q_ptr, k_ptr, v_ptr, gqa_max0_ptr, gqa_sum1_ptr, gqa_sum2_ptr):
    """gqa_max0[4, 32, 256], gqa_sum1[4, 32, 256], gqa_sum2[4, 32, 256, 64].

    Blocks: s_l by 1, i by 1, j by 128. Loops: l by 128.
    """
    pid = tl.program_id(0)
    within = pid % 128
    group = (within // 128) * 4
    place = within % 128
    pid_2 = pid // 128
    s_l = (group + place % 4)  # 4 blocks
    i = (place // 4)  # 32 blocks
    j_start = pid_2 * 128  # 2 blocks
    max0 = tl.full((128,), float("-inf"), tl.float32)  # max[l] sum[k] (q[i, j, k] * k[i, k, l])
    sum1 = tl.zeros((128,), tl.float32)  # sum[l] exp((sum[k] ... - max0))
    sum2 = tl.zeros((128, 64), tl.float32)  # sum[l] (v[i, l, m] * exp((... - max0)))
    l_first = s_l * 1024
    j_lane = tl.arange(0, 128)
    k_lane = tl.arange(0, 64)
    q_at = j_lane[:, None] * 64 + k_lane[None, :]  # [j, k]
    q = tl.load(q_ptr + i * 16384 + j_start * 64 + q_at)  # q[i, j, k]
    l_lane = tl.arange(0, 128)
    k_at = k_lane[:, None] * 4096 + l_lane[None, :]  # [k, l]
    m_lane = tl.arange(0, 64)
    v_at = l_lane[:, None] * 64 + m_lane[None, :]  # [l, m]
    for l_start in range(l_first, l_first + 1024, 128):
        k = tl.load(k_ptr + i * 262144 + l_start + k_at)  # k[i, k, l]
        dot = tl.dot(q, k)  # sum[k] (q[i, j, k] * k[i, k, l])
        max = tl.reduce(dot, 1, max_nan)  # max over the step
        max0_new = max_nan(max0, max)  # [j]
        max0_live = max0 != float("-inf")  # [j]
        sub = max0 - max0_new  # [j]
        exp = tl.exp2(sub * 1.4426950408889634)  # [j]
        scale = tl.where(max0_live, exp, 0.0)  # [j]
        max0_new_log2 = max0_new * 1.4426950408889634  # [j]
        exp_2 = tl.exp2(dot * 1.4426950408889634 - max0_new_log2[:, None])  # [j, l]
        sum = tl.sum(exp_2, 1)  # sum over the step
        sum1 = sum1 * scale + sum
        exp_2_f16 = exp_2.to(tl.float16)  # [j, l]
        v = tl.load(v_ptr + i * 262144 + l_start * 64 + v_at)  # v[i, l, m]
        sum2 = tl.dot(exp_2_f16, v, sum2 * scale[:, None])
        max0 = max0_new
    # gqa_max0[s_l, i, j]
    tl.store(gqa_max0_ptr + i * 256 + j_start + s_l * 8192 + j_lane, max0)
    # gqa_sum1[s_l, i, j]
    tl.store(gqa_sum1_ptr + i * 256 + j_start + s_l * 8192 + j_lane, sum1)
    gqa_sum2_at = j_lane[:, None] * 64 + m_lane[None, :]  # [j, m]
    # gqa_sum2[s_l, i, j, m]
    tl.store(gqa_sum2_ptr + i * 16384 + j_start * 64 + s_l * 524288 + gqa_sum2_at, sum2)
