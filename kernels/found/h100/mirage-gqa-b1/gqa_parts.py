# gqa_parts: launched on 16 x 2 x 4 blocks of 4 warps, 3 stages.
# reads v float16[2, 4096, 64], q float16[2, 256, 64], k float16[2, 64, 4096]
# writes gqa_max1 float32[16, 2, 256], gqa_sum2 float32[16, 2, 256, 64], gqa_sum3 float32[16, 2, 256]
import triton
import triton.language as tl


@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def gqa_parts(v_ptr, q_ptr, k_ptr, gqa_max1_ptr, gqa_sum2_ptr, gqa_sum3_ptr):
    """gqa_max1[16, 2, 256], gqa_sum2[16, 2, 256, 64], gqa_sum3[16, 2, 256].

    Blocks: s_l by 1, i by 1, j by 64. Loops: l by 256, k by 32.
    """
    s_l = tl.program_id(0)  # 16 blocks
    i = tl.program_id(1)  # 2 blocks
    j_start = tl.program_id(2) * 64  # 4 blocks
    max1 = tl.full((64,), float("-inf"), tl.float32)  # max[l] sum0
    sum2 = tl.zeros((64, 64), tl.float32)  # sum[l] (exp((sum0 - max1)) * v[i, l, m])
    sum3 = tl.zeros((64,), tl.float32)  # sum[l] exp((sum0 - max1))
    l_first = s_l * 256
    j_lane = tl.arange(0, 64)
    k_lane = tl.arange(0, 32)
    q_at = j_lane[:, None] * 64 + k_lane[None, :]  # [j, k]
    l_lane = tl.arange(0, 256)
    k_at = k_lane[:, None] * 4096 + l_lane[None, :]  # [k, l]
    m_lane = tl.arange(0, 64)
    v_at = l_lane[:, None] * 64 + m_lane[None, :]  # [l, m]
    sum0 = tl.zeros((64, 256), tl.float32)  # sum[k] (q[i, j, k] * k[i, k, l])
    for k_start in range(0, 64, 32):
        q = tl.load(q_ptr + i * 16384 + j_start * 64 + k_start + q_at)  # q[i, j, k]
        k = tl.load(k_ptr + i * 262144 + l_first + k_start * 4096 + k_at)  # k[i, k, l]
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
    v = tl.load(v_ptr + i * 262144 + l_first * 64 + v_at)  # v[i, l, m]
    sum2 = tl.dot(exp_2_f16, v, sum2 * scale[:, None])
    sum = tl.sum(exp_2, 1)  # sum over the step
    sum3 = sum3 * scale + sum
    max1 = max1_new
    # gqa_max1[s_l, i, j]
    tl.store(gqa_max1_ptr + i * 256 + j_start + s_l * 512 + j_lane, max1)
    gqa_sum2_at = j_lane[:, None] * 64 + m_lane[None, :]  # [j, m]
    # gqa_sum2[s_l, i, j, m]
    tl.store(gqa_sum2_ptr + i * 16384 + j_start * 64 + s_l * 32768 + gqa_sum2_at, sum2)
    # gqa_sum3[s_l, i, j]
    tl.store(gqa_sum3_ptr + i * 256 + j_start + s_l * 512 + j_lane, sum3)
