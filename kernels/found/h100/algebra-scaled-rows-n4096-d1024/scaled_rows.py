# scaled_rows: launched on 32 x 8 blocks of 4 warps, 3 stages.
# reads x float32[4096, 1024], w float32[1024, 1024], s float32[4096, 1]
# writes out float32[4096, 1024]
import triton
import triton.language as tl


@triton.jit
def round_tf32(x):
    """x plus half a unit of its tenth bit. A matrix unit cuts off what follows that bit, which
    alone would be an error twice as large and always towards zero. NaN and infinities stay.
    """
    unit = (x.to(tl.int32, bitcast=True) & -0x800000).to(tl.float32, bitcast=True)
    return x + unit * (1.0 / 2048)


@triton.jit
def scaled_rows(x_ptr, w_ptr, s_ptr, out_ptr):
    """out[4096, 1024].

    Blocks: i by 128, k by 128. Loops: j by 32.
    """
    i_start = tl.program_id(0) * 128  # 32 blocks
    k_start = tl.program_id(1) * 128  # 8 blocks
    sum0 = tl.zeros((128, 128), tl.float32)  # sum[j] (x[i, j] * w[j, k])
    i_lane = tl.arange(0, 128)
    j_lane = tl.arange(0, 32)
    x_at = i_lane[:, None] * 1024 + j_lane[None, :]  # [i, j]
    k_lane = tl.arange(0, 128)
    w_at = j_lane[:, None] * 1024 + k_lane[None, :]  # [j, k]
    s = tl.load(s_ptr + i_start + i_lane)  # s[i, 0]
    for j_start in range(0, 1024, 32):
        x = tl.load(x_ptr + i_start * 1024 + j_start + x_at)  # x[i, j]
        x_tf32 = round_tf32(x)  # [i, j]
        w = tl.load(w_ptr + k_start + j_start * 1024 + w_at)  # w[j, k]
        w_tf32 = round_tf32(w)  # [j, k]
        sum0 = tl.dot(x_tf32, w_tf32, sum0, input_precision="tf32")
    div = sum0 / s[:, None]  # [i, k]
    out_at = i_lane[:, None] * 1024 + k_lane[None, :]  # [i, k]
    # out[i, k]
    tl.store(out_ptr + i_start * 1024 + k_start + out_at, div)
