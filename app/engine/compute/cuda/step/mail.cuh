// Numbers, narrow and wide, and how blocks tell each other what they found.

__device__ __forceinline__ float low(u32 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

__device__ __forceinline__ u32 narrow(float value) {
    if (value != value) return 0x7fffu;
    u32 bits = __float_as_uint(value);
    return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

__device__ __forceinline__ u32 narrow_pair(float first, float second) { return narrow(first) | narrow(second) << 16; }

__device__ __forceinline__ float sum_of_warp(float value) {
    for (int mask = 16; mask; mask >>= 1) value += __shfl_xor_sync(0xffffffffu, value, mask);
    return value;
}

__device__ __forceinline__ float activated(float x) {
#if ACTIVATION == 1
    float inner = 1.5957691216057308f * (x + 0.044715f * x * x * x);
    return x / (1.0f + expf(-inner));
#elif ACTIVATION == 2
    return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f));
#else
    return x > 0.0f ? x : x * 0.0f;
#endif
}

// The mail of one step. Who waits too long reads what is no number from then on: the row fails instead of the device.
struct Mail {
    uint4* entries;
    u32 mark;
    int patience;

    __device__ __forceinline__ void send(int place, u32 one, u32 two, u32 three) const {
        write_entry(entries + place, make_uint4(one, two, three, mark));
    }

    // Some entries of three numbers each, by the lanes of a warp.
    __device__ __forceinline__ void send_all(int place, const float* numbers, int count) const {
        for (int entry = threadIdx.x % 32; entry < count; entry += 32) {
            const float* three = numbers + entry * 3;
            send(place + entry, __float_as_uint(three[0]), __float_as_uint(three[1]), __float_as_uint(three[2]));
        }
    }

    __device__ __forceinline__ uint4 await(int place) {
        do {
            const uint4 found = read_entry(entries + place);
            if (found.w == mark) return found;
        } while (--patience > 0);
        return make_uint4(0x7fffffffu, 0x7fffffffu, 0x7fffffffu, 0);
    }
};

// The compute threads meet; the warp that copies is none of them.
__device__ __forceinline__ void meet_all() { meet(1, THREADS); }
