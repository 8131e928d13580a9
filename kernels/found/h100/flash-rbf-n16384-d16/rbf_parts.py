# rbf_parts: launched on 8 x 64 blocks of 4 warps, 7 stages.
# reads x float32[16384, 16], y float32[16384, 16], v float32[16384, 8]
# writes rbf_sum0 float32[8, 16384, 8]
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
def rbf_parts(x_ptr, y_ptr, v_ptr, rbf_sum0_ptr):
    """rbf_sum0[8, 16384, 8].

    Blocks: s_k by 1, i by 256, l by 8. Loops: k by 64.
    """
    s_k = tl.program_id(0)  # 8 blocks
    i_start = tl.program_id(1) * 256  # 64 blocks
    sum0 = tl.zeros((256, 16), tl.float32)  # sum[k] (exp((... - ...)) * v[k, l])
    k_first = s_k * 2048
    i_lane = tl.arange(0, 256)
    j_lane = tl.arange(0, 16)
    x_at = i_lane[:, None] * 16 + j_lane[None, :]  # [i, j]
    x = tl.load(x_ptr + i_start * 16 + x_at)  # x[i, j]
    x_tf32 = round_tf32(x)  # [i, j]
    k_lane = tl.arange(0, 64)
    y_at = j_lane[:, None] + k_lane[None, :] * 16  # [j, k]
    mul = x * x  # [i, j]
    sum = tl.sum(mul, 1)  # sum[j] (x[i, j] * x[i, j])
    mul_2 = sum * 0.5  # [i]
    l_lane = tl.arange(0, 16)
    l_mask = l_lane < 8  # l < 8
    v_at = k_lane[:, None] * 8 + l_lane[None, :]  # [k, l]
    for k_start in range(k_first, k_first + 2048, 64):
        y = tl.load(y_ptr + k_start * 16 + y_at)  # y[k, j]
        y_tf32 = round_tf32(y)  # [j, k]
        dot = tl.dot(x_tf32, y_tf32, input_precision="tf32")  # sum[j] (x[i, j] * y[k, j])
        sub = dot - mul_2[:, None]  # [i, k]
        mul_3 = y * y  # [j, k]
        sum_2 = tl.sum(mul_3, 0)  # sum[j] (y[k, j] * y[k, j])
        mul_4 = sum_2 * 0.5  # [k]
        sub_2 = sub - mul_4[None, :]  # [i, k]
        exp = tl.exp(sub_2)  # [i, k]
        exp_tf32 = round_tf32(exp)  # [i, k]
        v = tl.load(v_ptr + k_start * 8 + v_at, mask=l_mask[None, :], other=0.0)  # v[k, l]
        v_tf32 = round_tf32(v)  # [k, l]
        sum0 = tl.dot(exp_tf32, v_tf32, sum0, input_precision="tf32")
    rbf_sum0_at = i_lane[:, None] * 8 + l_lane[None, :]  # [i, l]
    # rbf_sum0[s_k, i, l]
    tl.store(
        rbf_sum0_ptr + i_start * 8 + s_k * 131072 + rbf_sum0_at,
        sum0,
        mask=l_mask[None, :],
    )
