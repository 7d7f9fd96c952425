// What the kernel needs of the device beyond CUDA C++: entries that tell when they were written, copies that run by
// themselves.

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define INFINITY __int_as_float(0x7f800000)

// The block's shared memory, as much as the launch asks for.
__device__ __forceinline__ unsigned char* shared_memory() {
    extern __shared__ unsigned char memory[];
    return memory;
}

// An entry of 16 bytes is read and written whole, whoever else does.
__device__ __forceinline__ uint4 read_entry(const uint4* entry) {
    u64 low, high;
    asm volatile("{\n.reg .b128 whole;\nld.relaxed.gpu.global.b128 whole, [%2];\nmov.b128 {%0, %1}, whole;\n}"
                 : "=l"(low), "=l"(high) : "l"(entry) : "memory");
    return make_uint4((u32)low, (u32)(low >> 32), (u32)high, (u32)(high >> 32));
}

__device__ __forceinline__ void write_entry(uint4* entry, uint4 value) {
    u64 low = value.x | (u64)value.y << 32, high = value.z | (u64)value.w << 32;
    asm volatile("{\n.reg .b128 whole;\nmov.b128 whole, {%1, %2};\nst.relaxed.gpu.global.b128 [%0], whole;\n}"
                 : : "l"(entry), "l"(low), "l"(high) : "memory");
}

// 16 bytes of what nobody writes while the kernel runs. Not kept in the first cache: they are read once.
__device__ __forceinline__ uint4 read_once(const void* place) {
    uint4 found;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(found.x), "=r"(found.y), "=r"(found.z), "=r"(found.w) : "l"(place));
    return found;
}

__device__ __forceinline__ u32 shared_place(const void* place) { return (u32)__cvta_generic_to_shared(place); }

// A barrier in shared memory that a thread arms with the bytes which copies are to bring.
__device__ __forceinline__ void make_barrier(u64* barrier) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" : : "r"(shared_place(barrier)) : "memory");
}

__device__ __forceinline__ void show_barriers() {
    asm volatile("fence.mbarrier_init.release.cluster;" : : : "memory");
    asm volatile("fence.proxy.async.shared::cta;" : : : "memory");
}

__device__ __forceinline__ void arm_barrier(u64* barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" : : "r"(shared_place(barrier)), "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void await_barrier(u64* barrier, u32 parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again;\n"
        "}" : : "r"(shared_place(barrier)), "r"(parity) : "memory");
}

// Both places and the number of bytes are multiples of 16.
__device__ __forceinline__ void copy_in(void* target, const void* source, u32 bytes, u64* barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 : : "r"(shared_place(target)), "l"(source), "r"(bytes), "r"(shared_place(barrier)) : "memory");
}

// Into the second cache, for whoever reads it later.
__device__ __forceinline__ void fetch_ahead(const void* source, u32 bytes) {
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" : : "l"(source), "r"(bytes) : "memory");
}

// Where `count` threads of a block meet, the first of it, while the others have gone.
__device__ __forceinline__ void meet(int number, int count) {
    asm volatile("bar.sync %0, %1;" : : "r"(number), "r"(count) : "memory");
}

__device__ __forceinline__ void pause(u32 nanoseconds) { __nanosleep(nanoseconds); }

// A word of shared memory that another warp waits for.
__device__ __forceinline__ int read_shared(const int* place) { return *(const volatile int*)place; }
__device__ __forceinline__ void write_shared(int* place, int value) { *(volatile int*)place = value; }
