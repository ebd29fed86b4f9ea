// Kinds of state inside a thread: registers, thread-local variables, rseq, and threads that start and end.
#define _GNU_SOURCE
#include "changer.h"

#include <errno.h>
#include <string.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// -- Thread-local variables

static _Thread_local uint64_t local_one = 1, local_many[600];

// The barrier keeps gcc 12 from folding a constant of mix into the variable's relocation, which then overflows.
static uint64_t *locals(void) {
  uint64_t *many = local_many;
  __asm__("" : "+r"(many));
  return many;
}

static void change_locals(void *state, struct random *random) {
  local_one = *(uint64_t *)state = random_next(random);
  for (unsigned index = 0; index < 600; index++) locals()[index] = mix(local_one + index);
}
static void check_locals(void *state) {
  uint64_t seed = *(uint64_t *)state;
  expect("tls", "variable", (long long)seed, (long long)local_one);
  for (unsigned index = 0; index < 600; index++)
    expect("tls", "element", (long long)mix(seed + index), (long long)locals()[index]);
}
static void spoil_locals(void *state) { (void)state, local_many[599]++; }

// -- rseq: the library's registration must still be the kernel's

static void change_rseq(void *state, struct random *random) { (void)state, (void)random; }
static bool prepare_rseq(void *state, struct random *random) {
  (void)state, (void)random;
  return __rseq_size > 0;
}
static struct rseq *own_rseq(void) { return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset); }

// Registering the same area again is refused with EBUSY only while it is registered.
static void check_rseq(void *state) {
  (void)state;
  unsigned size = __rseq_size < 32 ? 32 : __rseq_size;
  if (!syscall(SYS_rseq, own_rseq(), size, 0, RSEQ_SIG)) changed("rseq", "was not registered");
  if (errno != EBUSY) changed("rseq", "another area is registered: %s", strerror(errno));
}
static void spoil_rseq(void *state) {
  (void)state;
  syscall(SYS_rseq, own_rseq(), __rseq_size < 32 ? 32 : __rseq_size, 1 /* unregister */, RSEQ_SIG);
}

// -- Registers held over a busy loop, in a thread of its own

#if defined(__x86_64__)
enum { SPINS = 3000000 };

static atomic_bool spoil_registers;

struct __attribute__((aligned(64))) vectors {
  uint64_t words[16][4];
};

// Loads the vector registers, x87 stack and control words, spins, and stores all again: no memory is touched between.
#define HOLD(width, move, vector)                                                                                  \
  static void hold_##width(const struct vectors *in, struct vectors *out, const uint64_t *real, uint64_t *real_out, \
                           uint64_t spins) {                                                                       \
    __asm__ volatile(                                                                                              \
        "fninit; fildll 0(%[real]); fildll 8(%[real]); fildll 16(%[real])\n"                                       \
        LOAD(move, vector, 0, 4) "1: dec %[spins]; jnz 1b\n" STORE(move, vector, 0, 4)                             \
        "fistpll 16(%[back]); fistpll 8(%[back]); fistpll 0(%[back])\n"                                            \
        : [spins] "+r"(spins)                                                                                      \
        : [in] "r"(in), [out] "r"(out), [real] "r"(real), [back] "r"(real_out)                                     \
        : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
          "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "st", "st(1)", "st(2)");                                    \
  }
#define EACH(one)                                                                                       \
  one(0) one(1) one(2) one(3) one(4) one(5) one(6) one(7) one(8) one(9) one(10) one(11) one(12) one(13) \
      one(14) one(15)
#define LOAD_XMM(n) "movups " #n "*32(%[in]), %%xmm" #n "\n"
#define STORE_XMM(n) "movups %%xmm" #n ", " #n "*32(%[out])\n"
#define LOAD_YMM(n) "vmovups " #n "*32(%[in]), %%ymm" #n "\n"
#define STORE_YMM(n) "vmovups %%ymm" #n ", " #n "*32(%[out])\n"
#define LOAD(move, vector, a, b) EACH(LOAD_##vector)
#define STORE(move, vector, a, b) EACH(STORE_##vector)
HOLD(sse, movups, XMM)
HOLD(avx, vmovups, YMM)

// General registers, of which the compiler may hold back one.
static uint64_t hold_general(uint64_t seed, uint64_t spins) {
  uint64_t sum;
  __asm__ volatile(
      "lea 1(%[seed]), %%r8; lea 2(%[seed]), %%r9; lea 3(%[seed]), %%r10; lea 4(%[seed]), %%r11\n"
      "lea 5(%[seed]), %%r12; lea 6(%[seed]), %%r13; lea 7(%[seed]), %%r14; lea 8(%[seed]), %%r15\n"
      "1: dec %[spins]; jnz 1b\n"
      "xor %%r9, %%r8; rol $7, %%r8; xor %%r10, %%r8; rol $7, %%r8; xor %%r11, %%r8; rol $7, %%r8; xor %%r12, %%r8\n"
      "rol $7, %%r8; xor %%r13, %%r8; rol $7, %%r8; xor %%r14, %%r8; rol $7, %%r8; xor %%r15, %%r8; mov %%r8, %[sum]\n"
      : [sum] "=&r"(sum), [spins] "+r"(spins)
      : [seed] "r"(seed)
      : "cc", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15");
  return sum;
}

static void check_control_words(struct random *random, uint64_t spins) {
  uint32_t modes[] = {0x1f80, 0x3f80, 0x5f80, 0x7f80}, mode = modes[random_below(random, 4)], found = 0, kept = 0x1f80;
  uint16_t words[] = {0x37f, 0x77f, 0xb7f, 0xf7f}, word = words[random_below(random, 4)], word_found = 0;
  __asm__ volatile("ldmxcsr %2; fldcw %3; 1: dec %4; jnz 1b; stmxcsr %0; fnstcw %1; fninit; ldmxcsr %5"
                   : "=m"(found), "=m"(word_found)
                   : "m"(mode), "m"(word), "r"(spins), "m"(kept)
                   : "cc");
  expect("registers", "MXCSR", mode, found & ~0x3f);
  expect("registers", "x87 control word", word, word_found);
}

static void check_vectors(struct random *random, bool avx) {
  struct vectors in, out = {0};
  uint64_t real[3], real_out[3] = {0};
  for (int index = 0; index < 64; index++) in.words[index / 4][index % 4] = random_next(random);
  for (int index = 0; index < 3; index++) real[index] = random_next(random) >> 2;
  if (avx) hold_avx(&in, &out, real, real_out, SPINS);
  else hold_sse(&in, &out, real, real_out, SPINS);
  if (spoil_registers) out.words[3][1]++;
  for (int index = 0; index < 64; index++)
    if (index % 4 < (avx ? 4 : 2))
      expect("registers", avx ? "AVX" : "SSE", (long long)in.words[index / 4][index % 4],
             (long long)out.words[index / 4][index % 4]);
  for (int index = 0; index < 3; index++) expect("registers", "x87", (long long)real[index], (long long)real_out[index]);
}

static void *__attribute__((noreturn)) keep_registers(void *argument) {
  struct random random = {1};
  bool avx = __builtin_cpu_supports("avx");
  for (;;) {
    if (spoil_now(argument)) spoil_registers = true;
    check_vectors(&random, avx && random_below(&random, 2));
    check_control_words(&random, SPINS);
    uint64_t seed = random_next(&random), once = hold_general(seed, 1);
    expect("registers", "general", (long long)once, (long long)hold_general(seed, SPINS));
    count_round(argument);
    sleep_until(now_ns() + 5 * MILLISECOND);  // Leaves processor time to others.
  }
}

static void start_registers(const struct kind *kind) { start_thread(keep_registers, (void *)kind, 128 * 1024); }

// -- The base of the GS segment, which the library leaves to programs

enum { SET_GS = 0x1001, GET_GS = 0x1004 };

static void change_gs(void *state, struct random *random) {
  *(uint64_t *)state = random_next(random) >> 18;
  syscall(SYS_arch_prctl, SET_GS, *(uint64_t *)state);
}
static void check_gs(void *state) {
  uint64_t found = 0;
  syscall(SYS_arch_prctl, GET_GS, &found);
  expect("gs-base", "base", (long long)*(uint64_t *)state, (long long)found);
}
static void spoil_gs(void *state) { syscall(SYS_arch_prctl, SET_GS, *(uint64_t *)state + 8); }
#endif

// -- Threads that start and end: each gets a value and returns what follows from it, and has a timer of its own

static void *be_short(void *argument) {
  uint64_t value = (uint64_t)(uintptr_t)argument;
  local_one = value;
  struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGNAL_FAR};
  event._sigev_un._tid = gettid();
  timer_t timer;
  struct itimerspec set = {.it_value.tv_sec = 1000}, left;
  if (timer_create(CLOCK_MONOTONIC, &event, &timer)) changed("churn", "making a timer: %s", strerror(errno));
  timer_settime(timer, 0, &set, NULL);
  sleep_until(now_ns() + value % (4 * MILLISECOND));
  if (timer_gettime(timer, &left)) changed("churn", "its timer is gone: %s", strerror(errno));
  if (left.it_value.tv_sec < 900) changed("churn", "its timer has %ld s left", (long)left.it_value.tv_sec);
  timer_delete(timer);
  return (void *)(uintptr_t)mix(local_one);
}

static void *__attribute__((noreturn)) churn(void *argument) {
  enum { AT_ONCE = 3 };
  struct random random = {2};
  for (;;) {
    pthread_t threads[AT_ONCE];
    uint64_t values[AT_ONCE];
    for (int index = 0; index < AT_ONCE; index++) {
      values[index] = random_next(&random);
      int reason = pthread_create(&threads[index], NULL, be_short, (void *)(uintptr_t)values[index]);
      if (reason) changed("churn", "starting a thread: %s", strerror(reason));
    }
    for (int index = 0; index < AT_ONCE; index++) {
      void *found = NULL;
      pthread_join(threads[index], &found);
      if (spoil_now(argument)) found = NULL;
      expect("churn", "result of a thread", (long long)mix(values[index]), (long long)(uintptr_t)found);
    }
    count_round(argument);
    sleep_until(now_ns() + 2 * MILLISECOND);
  }
}

static void start_churn(const struct kind *kind) { start_thread(churn, (void *)kind, 128 * 1024); }

const struct kind thread_kinds[] = {
    {.name = "tls", .of_thread = true, .size = 8, .change = change_locals, .check = check_locals, .spoil = spoil_locals},
    {.name = "rseq", .of_thread = true, .size = 8, .prepare = prepare_rseq, .change = change_rseq, .check = check_rseq,
     .spoil = spoil_rseq},
#if defined(__x86_64__)
    {.name = "gs-base", .of_thread = true, .size = 8, .change = change_gs, .check = check_gs, .spoil = spoil_gs},
    {.name = "registers", .start = start_registers},
#endif
    {.name = "churn", .start = start_churn},
    {0}};
