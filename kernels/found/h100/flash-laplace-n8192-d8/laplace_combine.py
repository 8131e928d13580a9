# laplace_combine: launched on 128 blocks of 4 warps, 3 stages.
# reads laplace_sum0 float32[16, 8192, 8]
# writes out float32[8192, 8]
import triton
import triton.language as tl


@triton.jit
def laplace_combine(laplace_sum0_ptr, out_ptr):
    """out[8192, 8].

    Blocks: i by 64, l by 8. Loops: none.
    """
    i_start = tl.program_id(0) * 64  # 128 blocks
    i_lane = tl.arange(0, 64)
    l_lane = tl.arange(0, 8)
    s_k_lane = tl.arange(0, 16)
    # [i, l, s_k]
    laplace_sum0_at = i_lane[:, None, None] * 8 + l_lane[None, :, None] + s_k_lane[None, None, :] * 65536
    laplace_sum0 = tl.load(  # laplace_sum0[s_k, i, l]
        laplace_sum0_ptr + i_start * 8 + laplace_sum0_at,
        eviction_policy="evict_first",
    )
    sum = tl.sum(laplace_sum0, 2)  # sum[s_k] laplace_sum0[s_k, i, l]
    out_at = i_lane[:, None] * 8 + l_lane[None, :]  # [i, l]
    # out[i, l]
    tl.store(out_ptr + i_start * 8 + out_at, sum)
