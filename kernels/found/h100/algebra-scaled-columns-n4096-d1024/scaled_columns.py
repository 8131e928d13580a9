# scaled_columns: launched on 32 x 8 blocks of 4 warps, 3 stages.
# reads x float32[4096, 1024], c float32[1024], w float32[1024, 1024]
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
def scaled_columns(x_ptr, c_ptr, w_ptr, out_ptr):
    """out[4096, 1024].

    Blocks: j by 128, k by 128. Loops: i by 32.
    """
    j_start = tl.program_id(0) * 128  # 32 blocks
    k_start = tl.program_id(1) * 128  # 8 blocks
    sum0 = tl.zeros((128, 128), tl.float32)  # sum[i] ((x[j, i] * c[i]) * w[i, k])
    i_lane = tl.arange(0, 32)
    k_lane = tl.arange(0, 128)
    w_at = k_lane[:, None] + i_lane[None, :] * 1024  # [k, i]
    j_lane = tl.arange(0, 128)
    x_at = i_lane[:, None] + j_lane[None, :] * 1024  # [i, j]
    for i_start in range(0, 1024, 32):
        c = tl.load(c_ptr + i_start + i_lane)  # c[i]
        w = tl.load(w_ptr + k_start + i_start * 1024 + w_at)  # w[i, k]
        mul = c[None, :] * w  # [k, i]
        mul_tf32 = round_tf32(mul)  # [k, i]
        x = tl.load(x_ptr + j_start * 1024 + i_start + x_at)  # x[j, i]
        x_tf32 = round_tf32(x)  # [i, j]
        sum0 = tl.dot(mul_tf32, x_tf32, sum0, input_precision="tf32")
    out_at = k_lane[:, None] + j_lane[None, :] * 1024  # [k, j]
    # out[j, k]
    tl.store(out_ptr + j_start * 1024 + k_start + out_at, sum0)
