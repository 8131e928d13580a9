# linear_attention_t2_combine: launched on 64 x 4 blocks of 1 warps, 3 stages.
# reads linear_attention_t2_sum0 float32[64, 64, 64]
# writes t2 float32[64, 64]
import triton
import triton.language as tl


@triton.jit
def linear_attention_t2_combine(linear_attention_t2_sum0_ptr, t2_ptr):
    """t2[64, 64].

    Blocks: j by 1, l by 16. Loops: none.
    """
    j = tl.program_id(0)  # 64 blocks
    l_start = tl.program_id(1) * 16  # 4 blocks
    l_lane = tl.arange(0, 16)
    s_i_lane = tl.arange(0, 64)
    linear_attention_t2_sum0_at = l_lane[:, None] + s_i_lane[None, :] * 4096  # [l, s_i]
    linear_attention_t2_sum0 = tl.load(  # linear_attention_t2_sum0[s_i, j, l]
        linear_attention_t2_sum0_ptr + j * 64 + l_start + linear_attention_t2_sum0_at,
    )
    sum = tl.sum(linear_attention_t2_sum0, 1)  # sum[s_i] linear_attention_t2_sum0[s_i, j, l]
    # t2[j, l]
    tl.store(t2_ptr + j * 64 + l_start + l_lane, sum)
