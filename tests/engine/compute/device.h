// What the kernel in cuda/step/ needs of a device, on a CPU: every thread of every block is a fiber of one thread, which go on in turn.
// Copies are there at once. A thread that waits lets the others go on.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <vector>

using std::max;
using std::min;

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define __device__
#define __global__
#define __forceinline__ inline
#define __align__(bytes) alignas(bytes)
#define __launch_bounds__(threads, blocks)

struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) uint4 { u32 x, y, z, w; };
struct alignas(8) float2 { float x, y; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }
template <class To, class From> static inline To bits_as(From from) {
    To to;
    memcpy(&to, &from, sizeof(to));
    return to;
}
static inline float __uint_as_float(u32 bits) { return bits_as<float>(bits); }
static inline u32 __float_as_uint(float value) { return bits_as<u32>(value); }

struct Place { int x; };
static Place threadIdx, blockIdx;

struct Meeting { int come = 0; long over = 0; };
struct Block {
    std::vector<unsigned char> memory;
    Meeting all, named[3];
    std::vector<Meeting> warps;
    std::vector<u32> said;
};
static std::vector<Block> blocks;
static int threads_of_block;
static long switches;

static ucontext_t scheduler;
struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    const long* waits = nullptr;  // for this to be another number than `seen`
    long seen = 0;
    bool is_over = false;
};
static std::vector<Fiber> fibers;
static int running;

static inline void let_others() {
    Place thread = threadIdx, block = blockIdx;
    int self = running;
    switches++;
    swapcontext(&fibers[self].context, &scheduler);
    threadIdx = thread, blockIdx = block;
}

static inline void meet_at(Meeting& meeting, int count) {
    long now = meeting.over;
    if (++meeting.come == count) {
        meeting.come = 0;
        meeting.over++;
        return;
    }
    fibers[running].waits = &meeting.over, fibers[running].seen = now;
    let_others();
}

static inline void __syncthreads() { meet_at(blocks[blockIdx.x].all, threads_of_block); }
static inline void __syncwarp() { meet_at(blocks[blockIdx.x].warps[threadIdx.x / 32], 32); }
static inline void meet(int number, int count) { meet_at(blocks[blockIdx.x].named[number], count); }

template <class Number> static inline Number __shfl_xor_sync(u32, Number value, int mask) {
    Block& block = blocks[blockIdx.x];
    Meeting& warp = block.warps[threadIdx.x / 32];
    block.said[threadIdx.x] = bits_as<u32>(value);
    meet_at(warp, 32);
    Number found = bits_as<Number>(block.said[threadIdx.x ^ mask]);
    meet_at(warp, 32);
    return found;
}

template <class Number> static inline Number __shfl_sync(u32, Number value, int from) {
    Block& block = blocks[blockIdx.x];
    Meeting& warp = block.warps[threadIdx.x / 32];
    block.said[threadIdx.x] = bits_as<u32>(value);
    meet_at(warp, 32);
    Number found = bits_as<Number>(block.said[threadIdx.x / 32 * 32 + from]);
    meet_at(warp, 32);
    return found;
}

static inline unsigned char* shared_memory() {
    u64 place = (u64)blocks[blockIdx.x].memory.data();
    return (unsigned char*)((place + 127) / 128 * 128);
}

static inline uint4 read_entry(const uint4* entry) {
    let_others();
    return *entry;
}
static inline void pause(u32) { let_others(); }
static inline int read_shared(const int* place) { return *place; }
static inline void write_shared(int* place, int value) { *place = value; }
static inline void write_entry(uint4* entry, uint4 value) { *entry = value; }
static inline uint4 read_once(const void* place) {
    if ((u64)place % 16) abort();
    return *(const uint4*)place;
}
static inline void fetch_ahead(const void* source, u32 bytes) {
    if ((u64)source % 16 || bytes % 16) abort();
}

// A barrier: how often it was passed, above the bytes that are still to come.
static inline void make_barrier(u64* barrier) { *barrier = 0; }
static inline void show_barriers() {}
static inline void arm_barrier(u64* barrier, u32 bytes) { *barrier += bytes; }
static inline void copy_in(void* target, const void* source, u32 bytes, u64* barrier) {
    if ((u64)target % 16 || (u64)source % 16 || bytes % 16 || (u32)*barrier < bytes) abort();
    memcpy(target, source, bytes);
    *barrier -= bytes;
    if (!(u32)*barrier) *barrier += 1ull << 32;
}
static inline void await_barrier(u64* barrier, u32 parity) {
    while ((*barrier >> 32 & 1) == parity) let_others();
}
