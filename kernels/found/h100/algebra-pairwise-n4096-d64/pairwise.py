# pairwise: launched on 32 x 32 blocks of 8 warps, 3 stages.
# reads x float32[4096, 64], y float32[4096, 64]
# writes out float32[4096, 4096]
import triton
import triton.language as tl


@triton.jit
def pairwise(x_ptr, y_ptr, out_ptr):
    """out[4096, 4096].

    Blocks: i by 128, k by 128. Loops: none.
    """
    i_start = tl.program_id(0) * 128  # 32 blocks
    k_start = tl.program_id(1) * 128  # 32 blocks
    i_lane = tl.arange(0, 128)
    j_lane = tl.arange(0, 64)
    x_at = i_lane[:, None] * 64 + j_lane[None, :]  # [i, j]
    x = tl.load(x_ptr + i_start * 64 + x_at)  # x[i, j]
    mul = x * x  # [i, j]
    k_lane = tl.arange(0, 128)
    y_at = k_lane[:, None] * 64 + j_lane[None, :]  # [k, j]
    y = tl.load(y_ptr + k_start * 64 + y_at)  # y[k, j]
    sum = tl.sum(mul, 1)  # sum[j] (x[i, j] * x[i, j])
    mul_2 = y * y  # [k, j]
    sum_2 = tl.sum(mul_2, 1)  # sum[j] (y[k, j] * y[k, j])
    add = sum[:, None] + sum_2[None, :]  # [i, k]
    dot = tl.zeros((128, 128), tl.float32)  # sum[j] (x[i, j] * y[k, j])
    j_lane_2 = tl.arange(0, 16)
    x_at_2 = i_lane[:, None] * 64 + j_lane_2[None, :]  # [i, j]
    y_at_2 = j_lane_2[:, None] + k_lane[None, :] * 64  # [j, k]
    for j_start in range(0, 64, 16):
        x_2 = tl.load(x_ptr + i_start * 64 + j_start + x_at_2)  # x[i, j]
        y_2 = tl.load(y_ptr + k_start * 64 + j_start + y_at_2)  # y[k, j]
        dot = tl.dot(x_2, y_2, dot, input_precision="ieee")
    mul_3 = dot * 2.0  # [i, k]
    sub = add - mul_3  # [i, k]
    out_at = i_lane[:, None] * 4096 + k_lane[None, :]  # [i, k]
    # out[i, k]
    tl.store(out_ptr + i_start * 4096 + k_start + out_at, sub)
