# gatedmlp: launched on 128 blocks of 4 warps, 3 stages.
# reads x float16[64, 4096], w1 float16[4096, 4096], w2 float16[4096, 4096]
# writes out float16[64, 4096]
import triton
import triton.language as tl


@triton.jit
def gatedmlp(x_ptr, w1_ptr, w2_ptr, out_ptr):
    """out[64, 4096].

    Blocks: i by 64, k by 32. Loops: j by 256.
    """
    k_start = tl.program_id(0) * 32  # 128 blocks
    sum0 = tl.zeros((64, 32), tl.float32)  # sum[j] (x[i, j] * w1[j, k])
    sum1 = tl.zeros((64, 32), tl.float32)  # sum[j] (x[i, j] * w2[j, k])
    i_lane = tl.arange(0, 64)
    j_lane = tl.arange(0, 256)
    x_at = i_lane[:, None] * 4096 + j_lane[None, :]  # [i, j]
    k_lane = tl.arange(0, 32)
    w1_at = j_lane[:, None] * 4096 + k_lane[None, :]  # [j, k]
    for j_start in range(0, 4096, 256):
        x = tl.load(x_ptr + j_start + x_at, eviction_policy="evict_last")  # x[i, j]
        # w1[j, k]
        w1 = tl.load(w1_ptr + k_start + j_start * 4096 + w1_at, eviction_policy="evict_first")
        sum0 = tl.dot(x, w1, sum0)
        # w2[j, k]
        w2 = tl.load(w2_ptr + k_start + j_start * 4096 + w1_at, eviction_policy="evict_first")
        sum1 = tl.dot(x, w2, sum1)
    logistic = tl.sigmoid(sum0)  # [i, k]
    mul = sum0 * logistic  # [i, k]
    mul_2 = mul * sum1  # [i, k]
    out_at = i_lane[:, None] * 4096 + k_lane[None, :]  # [i, k]
    # out[i, k]
    tl.store(out_ptr + k_start + out_at, mul_2.to(tl.float16))
