# gatedmlp_combine: launched on 8 x 16 blocks of 1 warps, 3 stages.
# reads gatedmlp_sum0 float32[4, 16, 1024], gatedmlp_sum1 float32[4, 16, 1024]
# writes out float16[16, 1024]
import triton
import triton.language as tl


@triton.jit
def gatedmlp_combine(gatedmlp_sum0_ptr, gatedmlp_sum1_ptr, out_ptr):
    """out[16, 1024].

    Blocks: i by 2, k by 64. Loops: none.
    """
    i_start = tl.program_id(0) * 2  # 8 blocks
    k_start = tl.program_id(1) * 64  # 16 blocks
    i_lane = tl.arange(0, 2)
    k_lane = tl.arange(0, 64)
    s_j_lane = tl.arange(0, 4)
    # [i, k, s_j]
    gatedmlp_sum0_at = i_lane[:, None, None] * 1024 + k_lane[None, :, None] + s_j_lane[None, None, :] * 16384
    # gatedmlp_sum0[s_j, i, k]
    gatedmlp_sum0 = tl.load(gatedmlp_sum0_ptr + i_start * 1024 + k_start + gatedmlp_sum0_at)
    # gatedmlp_sum1[s_j, i, k]
    gatedmlp_sum1 = tl.load(gatedmlp_sum1_ptr + i_start * 1024 + k_start + gatedmlp_sum0_at)
    sum = tl.sum(gatedmlp_sum0, 2)  # sum[s_j] gatedmlp_sum0[s_j, i, k]
    logistic = tl.sigmoid(sum)  # [i, k]
    mul = sum * logistic  # [i, k]
    sum_2 = tl.sum(gatedmlp_sum1, 2)  # sum[s_j] gatedmlp_sum1[s_j, i, k]
    mul_2 = mul * sum_2  # [i, k]
    out_at = i_lane[:, None] * 1024 + k_lane[None, :]  # [i, k]
    # out[i, k]
    tl.store(out_ptr + i_start * 1024 + k_start + out_at, mul_2.to(tl.float16))
