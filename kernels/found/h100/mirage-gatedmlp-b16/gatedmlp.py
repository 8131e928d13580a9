# gatedmlp: launched on 2 x 64 blocks of 4 warps, 5 stages.
# reads x float16[128, 4096], w1 float16[4096, 4096], w2 float16[4096, 4096]
# writes out float16[128, 4096]
import triton
import triton.language as tl


@triton.jit
def gatedmlp(x_ptr, w1_ptr, w2_ptr, out_ptr):
    """out[128, 4096].

    Blocks: i by 64, k by 64. Loops: j by 64.
    """
    i_start = tl.program_id(0) * 64  # 2 blocks
    k_start = tl.program_id(1) * 64  # 64 blocks
    sum0 = tl.zeros((64, 64), tl.float32)  # sum[j] (x[i, j] * w1[j, k])
    sum1 = tl.zeros((64, 64), tl.float32)  # sum[j] (x[i, j] * w2[j, k])
    i_lane = tl.arange(0, 64)
    j_lane = tl.arange(0, 64)
    x_at = i_lane[:, None] * 4096 + j_lane[None, :]  # [i, j]
    k_lane = tl.arange(0, 64)
    w1_at = j_lane[:, None] * 4096 + k_lane[None, :]  # [j, k]
    for j_start in range(0, 4096, 64):
        x = tl.load(x_ptr + i_start * 4096 + j_start + x_at)  # x[i, j]
        w1 = tl.load(w1_ptr + k_start + j_start * 4096 + w1_at)  # w1[j, k]
        sum0 = tl.dot(x, w1, sum0)
        w2 = tl.load(w2_ptr + k_start + j_start * 4096 + w1_at)  # w2[j, k]
        sum1 = tl.dot(x, w2, sum1)
    logistic = tl.sigmoid(sum0)  # [i, k]
    mul = sum0 * logistic  # [i, k]
    mul_2 = mul * sum1  # [i, k]
    out_at = i_lane[:, None] * 4096 + k_lane[None, :]  # [i, k]
    # out[i, k]
    tl.store(out_ptr + i_start * 4096 + k_start + out_at, mul_2.to(tl.float16))
