# gatedmlp_parts: launched on 4 x 32 blocks of 4 warps, 3 stages.
# reads x float16[16, 1024], w1 float16[1024, 1024], w2 float16[1024, 1024]
# writes gatedmlp_sum0 float32[4, 16, 1024], gatedmlp_sum1 float32[4, 16, 1024]
import triton
import triton.language as tl


@triton.jit
def gatedmlp_parts(x_ptr, w1_ptr, w2_ptr, gatedmlp_sum0_ptr, gatedmlp_sum1_ptr):
    """gatedmlp_sum0[4, 16, 1024], gatedmlp_sum1[4, 16, 1024].

    Blocks: s_j by 1, i by 16, k by 32. Loops: j by 128.
    """
    s_j = tl.program_id(0)  # 4 blocks
    k_start = tl.program_id(1) * 32  # 32 blocks
    sum0 = tl.zeros((16, 32), tl.float32)  # sum[j] (x[i, j] * w1[j, k])
    sum1 = tl.zeros((16, 32), tl.float32)  # sum[j] (x[i, j] * w2[j, k])
    j_first = s_j * 256
    i_lane = tl.arange(0, 16)
    j_lane = tl.arange(0, 128)
    x_at = i_lane[:, None] * 1024 + j_lane[None, :]  # [i, j]
    k_lane = tl.arange(0, 32)
    w1_at = j_lane[:, None] * 1024 + k_lane[None, :]  # [j, k]
    for j_start in range(j_first, j_first + 256, 128):
        x = tl.load(x_ptr + j_start + x_at)  # x[i, j]
        w1 = tl.load(w1_ptr + k_start + j_start * 1024 + w1_at)  # w1[j, k]
        sum0 = tl.dot(x, w1, sum0)
        w2 = tl.load(w2_ptr + k_start + j_start * 1024 + w1_at)  # w2[j, k]
        sum1 = tl.dot(x, w2, sum1)
    gatedmlp_sum0_at = i_lane[:, None] * 1024 + k_lane[None, :]  # [i, k]
    # gatedmlp_sum0[s_j, i, k]
    tl.store(gatedmlp_sum0_ptr + k_start + s_j * 16384 + gatedmlp_sum0_at, sum0)
    # gatedmlp_sum1[s_j, i, k]
    tl.store(gatedmlp_sum1_ptr + k_start + s_j * 16384 + gatedmlp_sum0_at, sum1)
