# rbf_combine: launched on 512 blocks of 1 warps, 3 stages.
# reads rbf_sum0 float32[8, 16384, 8]
# writes out float32[16384, 8]
import triton
import triton.language as tl


@triton.jit
def rbf_combine(rbf_sum0_ptr, out_ptr):
    """out[16384, 8].

    Blocks: i by 32, l by 8. Loops: none.
    """
    i_start = tl.program_id(0) * 32  # 512 blocks
    i_lane = tl.arange(0, 32)
    l_lane = tl.arange(0, 8)
    s_k_lane = tl.arange(0, 8)
    # [i, l, s_k]
    rbf_sum0_at = i_lane[:, None, None] * 8 + l_lane[None, :, None] + s_k_lane[None, None, :] * 131072
    # rbf_sum0[s_k, i, l]
    rbf_sum0 = tl.load(rbf_sum0_ptr + i_start * 8 + rbf_sum0_at, eviction_policy="evict_first")
    sum = tl.sum(rbf_sum0, 2)  # sum[s_k] rbf_sum0[s_k, i, l]
    out_at = i_lane[:, None] * 8 + l_lane[None, :]  # [i, l]
    # out[i, l]
    tl.store(out_ptr + i_start * 8 + out_at, sum)
