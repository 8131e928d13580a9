# swiglu: launched on 4 x 32 blocks of 8 warps, 3 stages.
# reads x float16[8, 1024], w1 float16[1024, 1024], w2 float16[1024, 1024]
# writes out float16[8, 1024]
import triton
import triton.language as tl


@triton.jit
def swiglu(x_ptr, w1_ptr, w2_ptr, out_ptr):
    """out[8, 1024].

    Blocks: i by 2, k by 32. Loops: j by 512.
    """
    i_start = tl.program_id(0) * 2  # 4 blocks
    k_start = tl.program_id(1) * 32  # 32 blocks
    sum0 = tl.zeros((16, 32), tl.float32)  # sum[j] (x[i, j] * w1[j, k])
    sum1 = tl.zeros((16, 32), tl.float32)  # sum[j] (x[i, j] * w2[j, k])
    i_lane = tl.arange(0, 16)
    i_mask = i_lane < 2  # i < 8
    j_lane = tl.arange(0, 512)
    x_at = i_lane[:, None] * 1024 + j_lane[None, :]  # [i, j]
    k_lane = tl.arange(0, 32)
    w1_at = j_lane[:, None] * 1024 + k_lane[None, :]  # [j, k]
    for j_start in range(0, 1024, 512):
        x = tl.load(x_ptr + i_start * 1024 + j_start + x_at, mask=i_mask[:, None], other=0.0)  # x[i, j]
        w1 = tl.load(w1_ptr + k_start + j_start * 1024 + w1_at)  # w1[j, k]
        sum0 = tl.dot(x, w1, sum0)
        w2 = tl.load(w2_ptr + k_start + j_start * 1024 + w1_at)  # w2[j, k]
        sum1 = tl.dot(x, w2, sum1)
    logistic = tl.sigmoid(sum0)  # [i, k]
    mul = sum0 * logistic  # [i, k]
    mul_2 = mul * sum1  # [i, k]
    out_at = i_lane[:, None] * 1024 + k_lane[None, :]  # [i, k]
    # out[i, k]
    tl.store(
        out_ptr + i_start * 1024 + k_start + out_at,
        mul_2.to(tl.float16),
        mask=i_mask[:, None],
    )
