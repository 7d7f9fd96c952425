// What is brought into shared memory while the layers run.

// Where the keys or values of a head lie in the cache, position by position.
__device__ __forceinline__ long long of_head(const Step& step, int layer, int head, long long slot) {
    return (((long long)layer * step.slots + slot) * HEADS + head) * POSITIONS * HEAD_DIM;
}

// How many blocks read a head's positions, the new one among them.
__device__ __forceinline__ int spans_of(int position) { return position / SPAN + 1; }

__device__ __forceinline__ void fetch_cache(const Step& step, int layer, long long slot, int position) {
    if (blockIdx.x >= HEADS * spans_of(position)) return;
    const int first = blockIdx.x / HEADS * SPAN, count = min(SPAN, position - first);
    if (count <= 0) return;
    const long long place = of_head(step, layer, blockIdx.x % HEADS, slot) + first * HEAD_DIM;
    fetch_ahead(step.keys + place, count * HEAD_DIM * 2);
    fetch_ahead(step.values + place, count * HEAD_DIM * 2);
}

// A block's share of a matrix with so many `inputs`, and the numbers that belong to it. Not all at once: what others
// wait for would have to wait behind it.
__device__ __forceinline__ void copy_share(
    Shared& s, int layer, int part, u16* target, const u16* matrix, int rows, int inputs, int begin, int end,
    u16* target_norm = nullptr, const u16* norm = nullptr
) {
    u64* barrier = &s.ready[part];
    const float* tail = s.step.layers[layer].tail + (long long)blockIdx.x * TAIL;
    const u32 of_matrix = rows * inputs * 2, of_tail = (end - begin) * 4, of_norm = norm ? WIDTH * 2 : 0;
    while (read_shared(&s.done[part]) < layer) pause(50);
    arm_barrier(barrier, of_matrix + of_tail + of_norm);
    if (norm) copy_in(target_norm, norm, of_norm, barrier);
    copy_in(s.tail + begin, tail + begin, of_tail, barrier);
    const u16* source = matrix + (long long)blockIdx.x * rows * inputs;
    for (u32 at = 0; at < of_matrix; at += PIECE) {
        copy_in(target + at / 2, source + at / 2, min((u32)PIECE, of_matrix - at), barrier);
        if (layer) pause(PAUSE_NS);
    }
}

// All that is copied while the layers run, by one thread.
__device__ __forceinline__ void copy_all(Shared& s, long long slot, int position) {
    for (int layer = 0; layer < LAYERS; layer++) {
        const Layer& of = s.step.layers[layer];
        copy_share(s, layer, 0, s.qkv, of.qkv, OF_QKV, WIDTH, TAIL_QKV, TAIL_OUT, s.norm_read, of.norm_read);
        fetch_cache(s.step, layer, slot, position);
        copy_share(s, layer, 1, s.out, of.out, OF_ROW, WIDTH, TAIL_OUT, TAIL_UP);
        copy_share(s, layer, 2, s.up, of.up, OF_UP, WIDTH, TAIL_UP, TAIL_DOWN, s.norm_mlp, of.norm_mlp);
        copy_share(s, layer, 3, s.down, of.down, OF_ROW, INNER, TAIL_DOWN, TAIL);
    }
    while (read_shared(&s.done[0]) < LAYERS) pause(50);
    arm_barrier(&s.ready[0], 4 * WIDTH);
    copy_in(s.last_norm, s.step.norm, 2 * WIDTH, &s.ready[0]);
    copy_in(s.last_offset, s.step.offset, 2 * WIDTH, &s.ready[0]);
}
