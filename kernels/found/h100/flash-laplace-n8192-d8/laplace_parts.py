# laplace_parts: launched on 8 x 64 blocks of 2 warps, 5 stages.
# reads x float32[8192, 8], y float32[8192, 8], v float32[8192, 8]
# writes laplace_sum0 float32[8, 8192, 8]
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
def laplace_parts(x_ptr, y_ptr, v_ptr, laplace_sum0_ptr):
    """laplace_sum0[8, 8192, 8].

    Blocks: s_k by 1, i by 128, l by 8. Loops: k by 32.
    """
    s_k = tl.program_id(0)  # 8 blocks
    i_start = tl.program_id(1) * 128  # 64 blocks
    sum0 = tl.zeros((128, 16), tl.float32)  # sum[k] (exp(neg(...)) * v[k, l])
    k_first = s_k * 1024
    i_lane = tl.arange(0, 128)
    x = tl.load(x_ptr + i_start * 8 + i_lane * 8)  # x[i, j]
    k_lane = tl.arange(0, 32)
    x_2 = tl.load(x_ptr + 1 + i_start * 8 + i_lane * 8)  # x[i, j]
    x_3 = tl.load(x_ptr + 2 + i_start * 8 + i_lane * 8)  # x[i, j]
    x_4 = tl.load(x_ptr + 3 + i_start * 8 + i_lane * 8)  # x[i, j]
    x_5 = tl.load(x_ptr + 4 + i_start * 8 + i_lane * 8)  # x[i, j]
    x_6 = tl.load(x_ptr + 5 + i_start * 8 + i_lane * 8)  # x[i, j]
    x_7 = tl.load(x_ptr + 6 + i_start * 8 + i_lane * 8)  # x[i, j]
    x_8 = tl.load(x_ptr + 7 + i_start * 8 + i_lane * 8)  # x[i, j]
    l_lane = tl.arange(0, 16)
    l_mask = l_lane < 8  # l < 8
    v_at = k_lane[:, None] * 8 + l_lane[None, :]  # [k, l]
    for k_start in range(k_first, k_first + 1024, 32):
        y = tl.load(y_ptr + k_start * 8 + k_lane * 8)  # y[k, j]
        sub = x[:, None] - y[None, :]  # [i, k]
        abs = tl.abs(sub)  # [i, k]
        y_2 = tl.load(y_ptr + 1 + k_start * 8 + k_lane * 8)  # y[k, j]
        sub_2 = x_2[:, None] - y_2[None, :]  # [i, k]
        abs_2 = tl.abs(sub_2)  # [i, k]
        sum = abs + abs_2  # j up to 1
        y_3 = tl.load(y_ptr + 2 + k_start * 8 + k_lane * 8)  # y[k, j]
        sub_3 = x_3[:, None] - y_3[None, :]  # [i, k]
        abs_3 = tl.abs(sub_3)  # [i, k]
        sum_2 = sum + abs_3  # j up to 2
        y_4 = tl.load(y_ptr + 3 + k_start * 8 + k_lane * 8)  # y[k, j]
        sub_4 = x_4[:, None] - y_4[None, :]  # [i, k]
        abs_4 = tl.abs(sub_4)  # [i, k]
        sum_3 = sum_2 + abs_4  # j up to 3
        y_5 = tl.load(y_ptr + 4 + k_start * 8 + k_lane * 8)  # y[k, j]
        sub_5 = x_5[:, None] - y_5[None, :]  # [i, k]
        abs_5 = tl.abs(sub_5)  # [i, k]
        sum_4 = sum_3 + abs_5  # j up to 4
        y_6 = tl.load(y_ptr + 5 + k_start * 8 + k_lane * 8)  # y[k, j]
        sub_6 = x_6[:, None] - y_6[None, :]  # [i, k]
        abs_6 = tl.abs(sub_6)  # [i, k]
        sum_5 = sum_4 + abs_6  # j up to 5
        y_7 = tl.load(y_ptr + 6 + k_start * 8 + k_lane * 8)  # y[k, j]
        sub_7 = x_7[:, None] - y_7[None, :]  # [i, k]
        abs_7 = tl.abs(sub_7)  # [i, k]
        sum_6 = sum_5 + abs_7  # j up to 6
        y_8 = tl.load(y_ptr + 7 + k_start * 8 + k_lane * 8)  # y[k, j]
        sub_8 = x_8[:, None] - y_8[None, :]  # [i, k]
        abs_8 = tl.abs(sub_8)  # [i, k]
        sum_7 = sum_6 + abs_8  # sum[j] abs((x[i, j] - y[k, j]))
        neg = -sum_7  # [i, k]
        exp = tl.exp(neg)  # [i, k]
        exp_tf32 = round_tf32(exp)  # [i, k]
        v = tl.load(v_ptr + k_start * 8 + v_at, mask=l_mask[None, :], other=0.0)  # v[k, l]
        v_tf32 = round_tf32(v)  # [k, l]
        sum0 = tl.dot(exp_tf32, v_tf32, sum0, input_precision="tf32")
    laplace_sum0_at = i_lane[:, None] * 8 + l_lane[None, :]  # [i, l]
    # laplace_sum0[s_k, i, l]
    tl.store(
        laplace_sum0_ptr + i_start * 8 + s_k * 65536 + laplace_sum0_at,
        sum0,
        mask=l_mask[None, :],
    )
