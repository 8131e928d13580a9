# pairwise: launched on 32 x 32 blocks of 4 warps, 3 stages.
# reads x float32[4096, 64], y float32[4096, 64]
# writes out float32[4096, 4096]
import triton
import triton.language as tl


@triton.jit
def pairwise(x_ptr, y_ptr, out_ptr):
    """out[4096, 4096].

    Blocks: i by 128, k by 128. Loops: j by 16.
    """
    i_start = tl.program_id(0) * 128  # 32 blocks
    k_start = tl.program_id(1) * 128  # 32 blocks
    sum0 = tl.zeros((128, 16), tl.float32)  # sum[j] (x[i, j] * x[i, j])
    sum1 = tl.zeros((128, 16), tl.float32)  # sum[j] (y[k, j] * y[k, j])
    sum2 = tl.zeros((128, 128), tl.float32)  # sum[j] (x[i, j] * y[k, j])
    i_lane = tl.arange(0, 128)
    j_lane = tl.arange(0, 16)
    x_at = i_lane[:, None] * 64 + j_lane[None, :]  # [i, j]
    k_lane = tl.arange(0, 128)
    y_at = k_lane[:, None] * 64 + j_lane[None, :]  # [k, j]
    for j_start in range(0, 64, 16):
        x = tl.load(x_ptr + i_start * 64 + j_start + x_at)  # x[i, j]
        mul = x * x  # [i, j]
        sum0 = sum0 + mul
        y = tl.load(y_ptr + k_start * 64 + j_start + y_at)  # y[k, j]
        mul_2 = y * y  # [k, j]
        sum1 = sum1 + mul_2
        y_t = tl.permute(y, (1, 0))  # [j, k]
        sum2 = tl.dot(x, y_t, sum2, input_precision="ieee")
    sum0_all = tl.sum(sum0, 1)  # sum over the lanes
    sum1_all = tl.sum(sum1, 1)  # sum over the lanes
    add = sum0_all[:, None] + sum1_all[None, :]  # [i, k]
    mul_3 = sum2 * 2.0  # [i, k]
    sub = add - mul_3  # [i, k]
    out_at = i_lane[:, None] * 4096 + k_lane[None, :]  # [i, k]
    # out[i, k]
    tl.store(out_ptr + i_start * 4096 + k_start + out_at, sub)
