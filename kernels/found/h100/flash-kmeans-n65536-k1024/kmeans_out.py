# kmeans_out: launched on 256 blocks of 4 warps, 3 stages.
# reads t1 float32[1024], x float32[65536, 64], c float32[1024, 64]
# writes out int32[65536]
import triton
import triton.language as tl


@triton.jit
def min_nan(a, b):
    """The smaller of two numbers; NaN if one is."""
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def round_tf32(x):
    """x plus half a unit of its tenth bit. A matrix unit cuts off what follows that bit, which
    alone would be an error twice as large and always towards zero. NaN and infinities stay.
    """
    unit = (x.to(tl.int32, bitcast=True) & -0x800000).to(tl.float32, bitcast=True)
    return x + unit * (1.0 / 2048)


@triton.jit
def kmeans_out(t1_ptr, x_ptr, c_ptr, out_ptr):
    """out[65536].

    Blocks: i by 256. Loops: k by 64.
    """
    i_start = tl.program_id(0) * 256  # 256 blocks
    argmin0 = tl.full((256,), float("inf"), tl.float32)  # argmin[k] (t1[k] - (sum[j] ... * 2))
    argmin0_at = tl.full((256,), 0, tl.int32)
    k_lane = tl.arange(0, 64)
    i_lane = tl.arange(0, 256)
    j_lane = tl.arange(0, 64)
    x_at = i_lane[:, None] * 64 + j_lane[None, :]  # [i, j]
    x = tl.load(x_ptr + i_start * 64 + x_at)  # x[i, j]
    x_tf32 = round_tf32(x)  # [i, j]
    c_at = j_lane[:, None] + k_lane[None, :] * 64  # [j, k]
    for k_start in range(0, 1024, 64):
        t1 = tl.load(t1_ptr + k_start + k_lane)  # t1[k]
        c = tl.load(c_ptr + k_start * 64 + c_at)  # c[k, j]
        c_tf32 = round_tf32(c)  # [j, k]
        dot = tl.dot(x_tf32, c_tf32, input_precision="tf32")  # sum[j] (x[i, j] * c[k, j])
        mul = dot * 2.0  # [i, k]
        sub = t1[None, :] - mul  # [i, k]
        min = tl.reduce(sub, 1, min_nan)  # min over k
        k = k_start + k_lane  # k
        place = tl.where((sub == min[:, None]) | (sub != sub), k[None, :], 2147483647)  # k of the best
        argmin = tl.min(place, 1)  # argmin over k
        argmin0_better = (min < argmin0) | ((min != min) & (argmin0 == argmin0))  # [i]
        argmin0_at = tl.where(argmin0_better, argmin, argmin0_at)
        argmin0 = tl.where(argmin0_better, min, argmin0)
    # out[i]
    tl.store(out_ptr + i_start + i_lane, argmin0_at)
