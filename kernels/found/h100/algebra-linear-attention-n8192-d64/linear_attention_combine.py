# linear_attention_combine: launched on 32 x 4 blocks of 8 warps, 3 stages.
# reads q float16[8192, 64], linear_attention_sum0 float32[16, 64, 64]
# writes out float16[8192, 64]
import triton
import triton.language as tl


@triton.jit
def linear_attention_combine(q_ptr, linear_attention_sum0_ptr, out_ptr):
    """out[8192, 64].

    Blocks: k by 256, l by 16. Loops: none.
    """
    k_start = tl.program_id(0) * 256  # 32 blocks
    l_start = tl.program_id(1) * 16  # 4 blocks
    l_lane = tl.arange(0, 16)
    j_lane = tl.arange(0, 64)
    s_i_lane = tl.arange(0, 16)
    # [l, j, s_i]
    linear_attention_sum0_at = l_lane[:, None, None] + j_lane[None, :, None] * 64 + s_i_lane[None, None, :] * 4096
    linear_attention_sum0 = tl.load(  # linear_attention_sum0[s_i, j, l]
        linear_attention_sum0_ptr + l_start + linear_attention_sum0_at,
    )
    k_lane = tl.arange(0, 256)
    q_at = j_lane[:, None] + k_lane[None, :] * 64  # [j, k]
    q = tl.load(q_ptr + k_start * 64 + q_at)  # q[k, j]
    sum = tl.sum(linear_attention_sum0, 2)  # sum[s_i] linear_attention_sum0[s_i, j, l]
    sum_f16 = sum.to(tl.float16)  # [l, j]
    dot = tl.dot(sum_f16, q)  # sum[j] (q[k, j] * sum[s_i] linear_attention_sum0[s_i, j, l])
    out_at = l_lane[:, None] + k_lane[None, :] * 64  # [l, k]
    # out[k, l]
    tl.store(out_ptr + k_start * 64 + l_start + out_at, dot.to(tl.float16))
