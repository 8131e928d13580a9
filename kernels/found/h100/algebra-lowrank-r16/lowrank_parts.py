# lowrank_parts: launched on 32 x 4 blocks of 4 warps, 8 stages.
# reads x float16[16, 4096], a float16[4096, 16]
# writes lowrank_sum0 float32[32, 16, 16]
import triton
import triton.language as tl


@triton.jit
def lowrank_parts(x_ptr, a_ptr, lowrank_sum0_ptr):
    """lowrank_sum0[32, 16, 16].

    Blocks: s_i by 1, l by 4. Loops: i by 128.
    """
    s_i = tl.program_id(0)  # 32 blocks
    l_start = tl.program_id(1) * 4  # 4 blocks
    sum0 = tl.zeros((16, 16), tl.float32)  # sum[i] (x[l, i] * a[i, j])
    i_first = s_i * 128
    j_lane = tl.arange(0, 16)
    i_lane = tl.arange(0, 128)
    a_at = j_lane[:, None] + i_lane[None, :] * 16  # [j, i]
    l_lane = tl.arange(0, 16)
    l_mask = l_lane < 4  # l < 16
    x_at = i_lane[:, None] + l_lane[None, :] * 4096  # [i, l]
    a = tl.load(a_ptr + i_first * 16 + a_at)  # a[i, j]
    x = tl.load(x_ptr + l_start * 4096 + i_first + x_at, mask=l_mask[None, :], other=0.0)  # x[l, i]
    sum0 = tl.dot(a, x, sum0)
    lowrank_sum0_at = j_lane[:, None] * 16 + l_lane[None, :]  # [j, l]
    # lowrank_sum0[s_i, j, l]
    tl.store(
        lowrank_sum0_ptr + l_start + s_i * 256 + lowrank_sum0_at,
        sum0,
        mask=l_mask[None, :],
    )
