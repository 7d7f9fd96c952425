// A decode step of one row of a GPT-2 as one kernel, from the token's embedding to the best next token.
//
// Every block holds a share of each layer's weights, and is the only one on its multiprocessor. What a part of a layer
// finds it sends to all others in entries of 16 bytes: three numbers, and the step's own mark. Who needs a number reads
// its entry until the mark is there: no barrier, no fence, and one way through the second cache instead of three. A
// block sends all it found at once: a line of the cache that others wait for is slow to write, however little it gets.
// Weights do not wait for numbers: as soon as a part of a layer has been computed, the same part of the next layer is
// copied into its place in shared memory.
//
// The compiler is told BLOCKS, WIDTH, HEADS, LAYERS, POSITIONS (of the cache) and ACTIVATION (the number of
// activations.py). WIDTH is a multiple of 256, a head is 64 wide, and there are as many threads as blocks at least.

extern "C" __global__ void __launch_bounds__(THREADS + 32, 1) single_step(const Step* given) {
    Shared& s = *reinterpret_cast<Shared*>(shared_memory());
    const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32, block = blockIdx.x;
    if (thread == 0) {
        for (int part = 0; part < 4; part++) {
            make_barrier(&s.ready[part]);
            s.done[part] = 0;
        }
        show_barriers();
    }
    for (int word = thread; word < (int)(sizeof(Step) / 8); word += THREADS + 32)
        reinterpret_cast<u64*>(&s.step)[word] = reinterpret_cast<const u64*>(given)[word];
    __syncthreads();
    const long long slot = *s.step.slot;
    const int position = (int)*s.step.position;
    const long long id = min(max(*s.step.id, 0ll), s.step.vocabulary - 1);
    if (warp == WARPS) {
        if (lane == 0) copy_all(s, slot, position);
        return;
    }
    Mail mail = {s.step.mail, (u32)*s.step.mark, PATIENCE};
    const u32 token = reinterpret_cast<const u32*>(s.step.tokens + id * WIDTH)[thread];
    const u32 place = reinterpret_cast<const u32*>(s.step.places + (long long)position * WIDTH)[thread];
    s.row[2 * thread] = low(token) + low(place);
    s.row[2 * thread + 1] = high(token) + high(place);
    meet_all();
    float held[8];

    for (int layer = 0; layer < LAYERS; layer++) {
        const u32 parity = layer & 1;
        // Queries, keys and values.
        if (layer) {
            add_row(s, mail, MAIL_DOWN);
            mail.entries += MAIL;
        }
        await_barrier(&s.ready[0], parity);
        take_part(s, s.norm_read, held);
        multiply<OF_QKV>(s, s.qkv, held);
        meet_all();
        if (warp == 0) {
            const float2 moments = moments_of(s);
            for (int row = lane; row < OF_QKV; row += 32)
                s.found[row] = normed(s, moments, TAIL_QKV, PADDED(OF_QKV), row);
            __syncwarp();
            mail.send_all(MAIL_QKV + block * APART(QKV_ENTRIES), s.found, QKV_ENTRIES);
            if (lane == 0) write_shared(&s.done[0], layer + 1);
        }
        // Attention, in as many blocks as there are heads and spans; then its projection.
        if (block < HEADS * spans_of(position)) read_head(s, mail, layer, slot, position);
        for (int entry = thread; entry < HEADS * HEAD_ENTRIES; entry += THREADS) {
            const int head = entry / HEAD_ENTRIES, column = entry % HEAD_ENTRIES * 3;
            const uint4 three = mail.await(MAIL_READ + head * APART(HEAD_ENTRIES) + entry % HEAD_ENTRIES);
            const u32 numbers[3] = {three.x, three.y, three.z};
#pragma unroll
            for (int at = 0; at < 3; at++)
                if (column + at < HEAD_DIM) s.read[head * HEAD_DIM + column + at] = __uint_as_float(numbers[at]);
        }
        meet_all();
        await_barrier(&s.ready[1], parity);
#pragma unroll
        for (int at = 0; at < 8; at++) held[at] = s.read[warp % CHUNKS * 256 + lane * 8 + at];
        multiply<OF_ROW>(s, s.out, held);
        meet_all();
        if (warp == 0) send_row<CHUNKS>(s, mail, MAIL_OUT, TAIL_OUT);
        if (thread == 0) write_shared(&s.done[1], layer + 1);
        // The inner row.
        add_row(s, mail, MAIL_OUT);
        await_barrier(&s.ready[2], parity);
        take_part(s, s.norm_mlp, held);
        multiply<OF_UP>(s, s.up, held);
        meet_all();
        if (warp == 0) {
            const float2 moments = moments_of(s);
            for (int pair = lane; pair < OF_UP / 2; pair += 32) {
                const float even = activated(normed(s, moments, TAIL_UP, PADDED(OF_UP), 2 * pair));
                const float odd = activated(normed(s, moments, TAIL_UP, PADDED(OF_UP), 2 * pair + 1));
                s.found[pair] = __uint_as_float(narrow_pair(even, odd));
            }
            __syncwarp();
            mail.send_all(MAIL_UP + block * APART(UP_ENTRIES), s.found, UP_ENTRIES);
            if (lane == 0) write_shared(&s.done[2], layer + 1);
        }
        // And out of it.
        for (int entry = thread; entry < BLOCKS * UP_ENTRIES; entry += THREADS) {
            const int from = entry / UP_ENTRIES, first = entry % UP_ENTRIES * 3;
            const uint4 three = mail.await(MAIL_UP + from * APART(UP_ENTRIES) + entry % UP_ENTRIES);
            const u32 pairs[3] = {three.x, three.y, three.z};
#pragma unroll
            for (int at = 0; at < 3; at++)
                if (first + at < OF_UP / 2) s.inner[from * (OF_UP / 2) + first + at] = pairs[at];
        }
        meet_all();
        await_barrier(&s.ready[3], parity);
        multiply_inner<OF_ROW>(s);
        meet_all();
        if (warp == 0) send_row<WARPS>(s, mail, MAIL_DOWN, TAIL_DOWN);
        if (thread == 0) write_shared(&s.done[3], layer + 1);
    }
    score_all(s, mail);
    choose(s, mail, position);
}
