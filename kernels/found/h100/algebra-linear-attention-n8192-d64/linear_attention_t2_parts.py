# linear_attention_t2_parts: launched on 64 x 2 blocks of 4 warps, 3 stages.
# reads k float16[8192, 64], v float16[8192, 64]
# writes linear_attention_t2_sum0 float32[64, 64, 64]
import triton
import triton.language as tl


@triton.jit
def linear_attention_t2_parts(k_ptr, v_ptr, linear_attention_t2_sum0_ptr):
    """linear_attention_t2_sum0[64, 64, 64].

    Blocks: s_i by 1, j by 32, l by 64. Loops: i by 64.
    """
    s_i = tl.program_id(0)  # 64 blocks
    j_start = tl.program_id(1) * 32  # 2 blocks
    sum0 = tl.zeros((32, 64), tl.float32)  # sum[i] (k[i, j] * v[i, l])
    i_first = s_i * 128
    j_lane = tl.arange(0, 32)
    i_lane = tl.arange(0, 64)
    k_at = j_lane[:, None] + i_lane[None, :] * 64  # [j, i]
    l_lane = tl.arange(0, 64)
    v_at = i_lane[:, None] * 64 + l_lane[None, :]  # [i, l]
    for i_start in range(i_first, i_first + 128, 64):
        k = tl.load(k_ptr + j_start + i_start * 64 + k_at)  # k[i, j]
        v = tl.load(v_ptr + i_start * 64 + v_at)  # v[i, l]
        sum0 = tl.dot(k, v, sum0)
    linear_attention_t2_sum0_at = j_lane[:, None] * 64 + l_lane[None, :]  # [j, l]
    # linear_attention_t2_sum0[s_i, j, l]
    tl.store(
        linear_attention_t2_sum0_ptr + j_start * 64 + s_i * 4096 + linear_attention_t2_sum0_at,
        sum0,
    )
