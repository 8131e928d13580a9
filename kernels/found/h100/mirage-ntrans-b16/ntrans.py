# ntrans: launched on 128 blocks of 8 warps, 3 stages.
# reads x float16[128, 4096], a float16[128, 4096], h float16[128, 4096]
# writes out float16[128, 4096]
import triton
import triton.language as tl


@triton.jit
def ntrans(x_ptr, a_ptr, h_ptr, out_ptr):
    """out[128, 4096].

    Blocks: i by 1. Loops: none.
    """
    i = tl.program_id(0)  # 128 blocks
    j_lane = tl.arange(0, 4096)
    x = tl.load(x_ptr + i * 4096 + j_lane)  # x[i, j]
    x_f32 = x.to(tl.float32)  # [j]
    a = tl.load(a_ptr + i * 4096 + j_lane)  # a[i, j]
    a_f32 = a.to(tl.float32)  # [j]
    h = tl.load(h_ptr + i * 4096 + j_lane)  # h[i, j]
    h_f32 = h.to(tl.float32)  # [j]
    mul = h_f32 * h_f32  # [j]
    sum = tl.sum(mul, 0)  # sum[j] (h[i, j] * h[i, j])
    add = sum + 9.999999974752427e-07  # []
    rsqrt = tl.rsqrt(add)  # []
    mul_2 = h_f32 * rsqrt  # [j]
    sub = mul_2 - x_f32  # [j]
    mul_3 = a_f32 * sub  # [j]
    add_2 = x_f32 + mul_3  # [j]
    mul_4 = add_2 * add_2  # [j]
    sum_2 = tl.sum(mul_4, 0)  # sum[j] ((x[i, j] + ...) * (x[i, j] + ...))
    add_3 = sum_2 + 9.999999974752427e-07  # []
    rsqrt_2 = tl.rsqrt(add_3)  # []
    mul_5 = add_2 * rsqrt_2  # [j]
    # out[i, j]
    tl.store(out_ptr + i * 4096 + j_lane, mul_5.to(tl.float16))
