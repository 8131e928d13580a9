# laplace_t1_combine: launched on 1024 blocks of 1 warps, 3 stages.
# reads laplace_t1_sum0 float32[16, 8192, 8]
# writes t1 float32[8192, 8]
import triton
import triton.language as tl


@triton.jit
def laplace_t1_combine(laplace_t1_sum0_ptr, t1_ptr):
    """t1[8192, 8].

    Blocks: i by 8, l by 8. Loops: none.
    """
    i_start = tl.program_id(0) * 8  # 1024 blocks
    i_lane = tl.arange(0, 8)
    l_lane = tl.arange(0, 8)
    s_k_lane = tl.arange(0, 16)
    # [i, l, s_k]
    laplace_t1_sum0_at = i_lane[:, None, None] * 8 + l_lane[None, :, None] + s_k_lane[None, None, :] * 65536
    # laplace_t1_sum0[s_k, i, l]
    laplace_t1_sum0 = tl.load(laplace_t1_sum0_ptr + i_start * 8 + laplace_t1_sum0_at)
    sum = tl.sum(laplace_t1_sum0, 2)  # sum[s_k] laplace_t1_sum0[s_k, i, l]
    t1_at = i_lane[:, None] * 8 + l_lane[None, :]  # [i, l]
    # t1[i, l]
    tl.store(t1_ptr + i_start * 8 + t1_at, sum)
