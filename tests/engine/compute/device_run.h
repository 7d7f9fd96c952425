// Runs the step on so many blocks. Behind the kernel, `single_step`.

#define WHOLE (THREADS + 32)

static const Step* given_step;

static void run_fiber() {
    single_step(given_step);
    fibers[running].is_over = true;
    while (true) swapcontext(&fibers[running].context, &scheduler);
}

// Every other block has a thread go on in an order of its own: what hangs on the order shows.
extern "C" long run_step(const Step* given, u32 seed) {
    given_step = given;
    threads_of_block = WHOLE;
    switches = 0;
    blocks = std::vector<Block>(BLOCKS);
    for (Block& block : blocks) {
        block.memory.resize(sizeof(Shared) + 128);
        block.warps.resize(WARPS + 1);
        block.said.resize(WHOLE);
    }
    fibers = std::vector<Fiber>(BLOCKS * WHOLE);
    std::vector<int> order;
    for (int number = 0; number < BLOCKS * WHOLE; number++) {
        Fiber& fiber = fibers[number];
        fiber.stack.resize(32768);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        fiber.context.uc_link = &scheduler;
        makecontext(&fiber.context, run_fiber, 0);
        order.push_back(number);
    }
    bool goes_on = true;
    while (goes_on) {
        goes_on = false;
        for (int place = BLOCKS * WHOLE - 1; place > 0; place--) {
            seed = seed * 1664525u + 1013904223u;
            if (seed >> 28 == 0) std::swap(order[place], order[(seed >> 8) % (place + 1)]);
        }
        for (int number : order) {
            Fiber& fiber = fibers[number];
            if (fiber.is_over) continue;
            goes_on = true;
            if (fiber.waits && *fiber.waits == fiber.seen) continue;
            fiber.waits = nullptr;
            running = number;
            threadIdx.x = number % WHOLE, blockIdx.x = number / WHOLE;
            swapcontext(&scheduler, &fiber.context);
        }
    }
    return switches;
}
