# gqa: launched on 32 x 4 blocks of 4 warps, 4 stages.
# reads q float16[32, 256, 64], k float16[32, 64, 4096], v float16[32, 4096, 64]
# writes out float16[32, 256, 64]
import triton
import triton.language as tl


@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def gqa(q_ptr, k_ptr, v_ptr, out_ptr):
    """out[32, 256, 64].

    Blocks: i by 1, j by 64, m by 64. Loops: l by 128.
    """
    i = tl.program_id(0)  # 32 blocks
    j_start = tl.program_id(1) * 64  # 4 blocks
    max0 = tl.full((64,), float("-inf"), tl.float32)  # max[l] sum[k] (q[i, j, k] * k[i, k, l])
    sum1 = tl.zeros((64,), tl.float32)  # sum[l] exp((sum[k] ... - max0))
    sum2 = tl.zeros((64, 64), tl.float32)  # sum[l] (v[i, l, m] * exp((... - max0)))
    j_lane = tl.arange(0, 64)
    k_lane = tl.arange(0, 64)
    q_at = j_lane[:, None] * 64 + k_lane[None, :]  # [j, k]
    # q[i, j, k]
    q = tl.load(q_ptr + i * 16384 + j_start * 64 + q_at, eviction_policy="evict_first")
    l_lane = tl.arange(0, 128)
    k_at = k_lane[:, None] * 4096 + l_lane[None, :]  # [k, l]
    m_lane = tl.arange(0, 64)
    v_at = l_lane[:, None] * 64 + m_lane[None, :]  # [l, m]
    for l_start in range(0, 4096, 128):
        k = tl.load(k_ptr + i * 262144 + l_start + k_at, eviction_policy="evict_last")  # k[i, k, l]
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
        # v[i, l, m]
        v = tl.load(v_ptr + i * 262144 + l_start * 64 + v_at, eviction_policy="evict_last")
        sum2 = tl.dot(exp_2_f16, v, sum2 * scale[:, None])
        max0 = max0_new
    div = 1.0 / sum1  # [j]
    mul = div[:, None] * sum2  # [j, m]
    out_at = j_lane[:, None] * 64 + m_lane[None, :]  # [j, m]
    # out[i, j, m]
    tl.store(out_ptr + i * 16384 + j_start * 64 + out_at, mul.to(tl.float16))
