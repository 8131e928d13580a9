# gatedmlp_parts: launched on 2 x 64 blocks of 8 warps, 3 stages.
# reads x float16[128, 4096], w1 float16[4096, 4096], w2 float16[4096, 4096]
# writes gatedmlp_sum0 float32[2, 128, 4096], gatedmlp_sum1 float32[2, 128, 4096]
import triton
import triton.language as tl


@triton.jit
def gatedmlp_parts(x_ptr, w1_ptr, w2_ptr, gatedmlp_sum0_ptr, gatedmlp_sum1_ptr):
    """gatedmlp_sum0[2, 128, 4096], gatedmlp_sum1[2, 128, 4096].

    Blocks: s_j by 1, i by 128, k by 64. Loops: j by 128.
    """
    s_j = tl.program_id(0)  # 2 blocks
    k_start = tl.program_id(1) * 64  # 64 blocks
    sum0 = tl.zeros((128, 64), tl.float32)  # sum[j] (x[i, j] * w1[j, k])
    sum1 = tl.zeros((128, 64), tl.float32)  # sum[j] (x[i, j] * w2[j, k])
    j_first = s_j * 2048
    i_lane = tl.arange(0, 128)
    j_lane = tl.arange(0, 128)
    x_at = i_lane[:, None] * 4096 + j_lane[None, :]  # [i, j]
    k_lane = tl.arange(0, 64)
    w1_at = j_lane[:, None] * 4096 + k_lane[None, :]  # [j, k]
    for j_start in range(j_first, j_first + 2048, 128):
        x = tl.load(x_ptr + j_start + x_at)  # x[i, j]
        w1 = tl.load(w1_ptr + k_start + j_start * 4096 + w1_at)  # w1[j, k]
        sum0 = tl.dot(x, w1, sum0)
        w2 = tl.load(w2_ptr + k_start + j_start * 4096 + w1_at)  # w2[j, k]
        sum1 = tl.dot(x, w2, sum1)
    gatedmlp_sum0_at = i_lane[:, None] * 4096 + k_lane[None, :]  # [i, k]
    # gatedmlp_sum0[s_j, i, k]
    tl.store(gatedmlp_sum0_ptr + k_start + s_j * 524288 + gatedmlp_sum0_at, sum0)
    # gatedmlp_sum1[s_j, i, k]
    tl.store(gatedmlp_sum1_ptr + k_start + s_j * 524288 + gatedmlp_sum0_at, sum1)
