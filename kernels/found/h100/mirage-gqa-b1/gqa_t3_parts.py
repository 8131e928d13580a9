# gqa_t3_parts: launched on 16 x 2 x 4 blocks of 4 warps, 3 stages.
# reads v float16[2, 4096, 64], q float16[2, 256, 64], k float16[2, 64, 4096]
# writes gqa_t3_max1 float32[16, 2, 256], gqa_t3_sum2 float32[16, 2, 256], gqa_t3_sum3 float32[16, 2, 256, 64]
import triton
import triton.language as tl


@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def gqa_t3_parts(v_ptr, q_ptr, k_ptr, gqa_t3_max1_ptr, gqa_t3_sum2_ptr, gqa_t3_sum3_ptr):
    """gqa_t3_max1[16, 2, 256], gqa_t3_sum2[16, 2, 256], gqa_t3_sum3[16, 2, 256, 64].

    Blocks: s_l by 1, i by 1, j by 64. Loops: l by 64, k by 64.
    """
    s_l = tl.program_id(0)  # 16 blocks
    i = tl.program_id(1)  # 2 blocks
    j_start = tl.program_id(2) * 64  # 4 blocks
    max1 = tl.full((64,), float("-inf"), tl.float32)  # max[l] sum0
    sum2 = tl.zeros((64,), tl.float32)  # sum[l] exp((sum0 - max1))
    sum3 = tl.zeros((64, 64), tl.float32)  # sum[l] (v[i, l, m] * exp((sum0 - max1)))
    l_first = s_l * 256
    j_lane = tl.arange(0, 64)
    k_lane = tl.arange(0, 64)
    q_at = j_lane[:, None] * 64 + k_lane[None, :]  # [j, k]
    q = tl.load(q_ptr + i * 16384 + j_start * 64 + q_at)  # q[i, j, k]
    l_lane = tl.arange(0, 64)
    k_at = k_lane[:, None] * 4096 + l_lane[None, :]  # [k, l]
    m_lane = tl.arange(0, 64)
    v_at = l_lane[:, None] * 64 + m_lane[None, :]  # [l, m]
    for l_start in range(l_first, l_first + 256, 64):
        sum0 = tl.zeros((64, 64), tl.float32)  # sum[k] (q[i, j, k] * k[i, k, l])
        k = tl.load(k_ptr + i * 262144 + l_start + k_at)  # k[i, k, l]
        sum0 = tl.dot(q, k, sum0)
        max = tl.reduce(sum0, 1, max_nan)  # max over the step
        max1_new = max_nan(max1, max)  # [j]
        max1_live = max1 != float("-inf")  # [j]
        sub = max1 - max1_new  # [j]
        exp = tl.exp2(sub * 1.4426950408889634)  # [j]
        scale = tl.where(max1_live, exp, 0.0)  # [j]
        max1_new_log2 = max1_new * 1.4426950408889634  # [j]
        exp_2 = tl.exp2(sum0 * 1.4426950408889634 - max1_new_log2[:, None])  # [j, l]
        sum = tl.sum(exp_2, 1)  # sum over the step
        sum2 = sum2 * scale + sum
        exp_2_f16 = exp_2.to(tl.float16)  # [j, l]
        v = tl.load(v_ptr + i * 262144 + l_start * 64 + v_at)  # v[i, l, m]
        sum3 = tl.dot(exp_2_f16, v, sum3 * scale[:, None])
        max1 = max1_new
    # gqa_t3_max1[s_l, i, j]
    tl.store(gqa_t3_max1_ptr + i * 256 + j_start + s_l * 512 + j_lane, max1)
    # gqa_t3_sum2[s_l, i, j]
    tl.store(gqa_t3_sum2_ptr + i * 256 + j_start + s_l * 512 + j_lane, sum2)
    gqa_t3_sum3_at = j_lane[:, None] * 64 + m_lane[None, :]  # [j, m]
    # gqa_t3_sum3[s_l, i, j, m]
    tl.store(gqa_t3_sum3_ptr + i * 16384 + j_start * 64 + s_l * 32768 + gqa_t3_sum3_at, sum3)
