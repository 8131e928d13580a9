# lowrank_combine: launched on 16 x 8 blocks of 4 warps, 3 stages.
# reads b float16[16, 4096], lowrank_sum0 float32[32, 16, 16]
# writes out float16[16, 4096]
import triton
import triton.language as tl


@triton.jit
def lowrank_combine(b_ptr, lowrank_sum0_ptr, out_ptr):
    """out[16, 4096].

    Blocks: k by 256, l by 2. Loops: none.
    """
    k_start = tl.program_id(0) * 256  # 16 blocks
    l_start = tl.program_id(1) * 2  # 8 blocks
    l_lane = tl.arange(0, 16)
    l_mask = l_lane < 2  # l < 16
    j_lane = tl.arange(0, 16)
    s_i_lane = tl.arange(0, 32)
    # [l, j, s_i]
    lowrank_sum0_at = l_lane[:, None, None] + j_lane[None, :, None] * 16 + s_i_lane[None, None, :] * 256
    lowrank_sum0 = tl.load(  # lowrank_sum0[s_i, j, l]
        lowrank_sum0_ptr + l_start + lowrank_sum0_at,
        mask=l_mask[:, None, None],
        other=0.0,
    )
    k_lane = tl.arange(0, 256)
    b_at = j_lane[:, None] * 4096 + k_lane[None, :]  # [j, k]
    b = tl.load(b_ptr + k_start + b_at)  # b[j, k]
    sum = tl.sum(lowrank_sum0, 2)  # sum[s_i] lowrank_sum0[s_i, j, l]
    sum_f16 = sum.to(tl.float16)  # [l, j]
    dot = tl.dot(sum_f16, b)  # sum[j] (b[j, k] * sum[s_i] lowrank_sum0[s_i, j, l])
    out_at = l_lane[:, None] * 4096 + k_lane[None, :]  # [l, k]
    # out[l, k]
    tl.store(
        out_ptr + k_start + l_start * 4096 + out_at,
        dot.to(tl.float16),
        mask=l_mask[:, None],
    )
