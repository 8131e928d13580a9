# laplace_combine: launched on 256 blocks of 2 warps, 3 stages.
# reads laplace_sum0 float32[8, 8192, 8]
# writes out float32[8192, 8]
import triton
import triton.language as tl


@triton.jit
def laplace_combine(laplace_sum0_ptr, out_ptr):
    """out[8192, 8].

    Blocks: i by 32, l by 8. Loops: none.
    """
    i_start = tl.program_id(0) * 32  # 256 blocks
    i_lane = tl.arange(0, 32)
    l_lane = tl.arange(0, 8)
    s_k_lane = tl.arange(0, 8)
    # [i, l, s_k]
    laplace_sum0_at = i_lane[:, None, None] * 8 + l_lane[None, :, None] + s_k_lane[None, None, :] * 65536
    # laplace_sum0[s_k, i, l]
    laplace_sum0 = tl.load(laplace_sum0_ptr + i_start * 8 + laplace_sum0_at)
    sum = tl.sum(laplace_sum0, 2)  # sum[s_k] laplace_sum0[s_k, i, l]
    out_at = i_lane[:, None] * 8 + l_lane[None, :]  # [i, l]
    # out[i, l]
    tl.store(out_ptr + i_start * 8 + out_at, sum)
