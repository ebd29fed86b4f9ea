// A ticker that knows its own gaps; see ticks.h.
#define _GNU_SOURCE
#include "ticks.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

static atomic_bool reset_wanted;

static struct ticks *map_ticks(const char *path) {
  if (!path) return map_memory(PAGE, MAP_SHARED);
  int file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0 || ftruncate(file, PAGE)) fail("--ticks %s", path);
  void *memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) fail("--ticks %s", path);
  close(file);
  return memory;
}

static void forget_gaps(struct ticks *ticks) {
  ticks->largest = ticks->largest_start = ticks->largest_end = 0;
  ticks->gaps_count = 0;
}

static struct ticks_gap *smallest_gap(struct ticks *ticks) {
  struct ticks_gap *smallest = &ticks->gaps[0];
  for (struct ticks_gap *gap = smallest; gap < ticks->gaps + TICKS_GAPS; gap++)
    if (gap->end - gap->start < smallest->end - smallest->start) smallest = gap;
  return smallest;
}

static void note_gap(struct ticks *ticks, uint64_t start, uint64_t end) {
  if (end - start > ticks->largest) {
    ticks->largest = end - start;
    ticks->largest_start = start;
    ticks->largest_end = end;
  }
  if (end - start > 2 * ticks->interval) {
    ticks->lost += end - start;
    ticks->lost_until = end;
  }
  if (end - start <= MILLISECOND || end - start <= 5 * ticks->interval) return;
  struct ticks_gap *place =
      ticks->gaps_count < TICKS_GAPS ? &ticks->gaps[ticks->gaps_count++] : smallest_gap(ticks);
  if (end - start > place->end - place->start || !place->end) *place = (struct ticks_gap){start, end};
}

static void tick(struct ticks *ticks) {
  uint64_t now = now_ns(), sequence = ticks->sequence;
  atomic_store_explicit(&ticks->sequence, sequence + 1, memory_order_relaxed);
  atomic_thread_fence(memory_order_release);
  if (atomic_exchange_explicit(&reset_wanted, false, memory_order_relaxed)) forget_gaps(ticks);
  if (now < ticks->last) ticks->backwards++;
  else note_gap(ticks, ticks->last, now);
  ticks->last = now;
  ticks->count++;
  atomic_store_explicit(&ticks->sequence, sequence + 2, memory_order_release);
}

static void *__attribute__((noreturn)) keep_ticking(void *argument) {
  struct ticks *ticks = argument;
  prctl(PR_SET_TIMERSLACK, 1);
  for (uint64_t next = ticks->last;;) {
    next += ticks->interval;
    sleep_until(next);
    tick(ticks);
    if (ticks->last > next + ticks->interval) next = ticks->last;  // After a gap: no burst of ticks.
  }
}

struct ticks *ticks_start(const char *path, uint64_t interval) {
  struct ticks *ticks = map_ticks(path);
  ticks->interval = interval;
  ticks->last = now_ns();
  ticks->magic = TICKS_MAGIC;
  start_thread(keep_ticking, ticks, 64 * 1024);
  return ticks;
}

void ticks_reset(void) { reset_wanted = true; }

struct ticks ticks_read(const struct ticks *ticks) {
  struct ticks copy;
  uint64_t before, after;
  do {
    before = atomic_load_explicit(&ticks->sequence, memory_order_acquire);
    copy = *ticks;
    atomic_thread_fence(memory_order_acquire);
    after = atomic_load_explicit(&ticks->sequence, memory_order_relaxed);
  } while (before != after || before % 2);
  return copy;
}

static int larger_first(const void *left, const void *right) {
  const struct ticks_gap *one = left, *other = right;
  uint64_t a = one->end - one->start, b = other->end - other->start;
  return a < b ? 1 : a > b ? -1 : 0;
}

void ticks_describe(const struct ticks *ticks, struct line *line) {
  struct ticks copy = ticks_read(ticks);
  typedef unsigned long long number;
  line_add(line, "\"ticks\":%llu,\"max_gap_us\":%.1f,\"gap_start_ns\":%llu,\"gap_end_ns\":%llu,", (number)copy.count,
           (double)copy.largest / 1000, (number)copy.largest_start, (number)copy.largest_end);
  line_add(line, "\"clock_backwards\":%llu,\"gaps\":[", (number)copy.backwards);
  qsort(copy.gaps, copy.gaps_count, sizeof *copy.gaps, larger_first);
  for (uint64_t index = 0; index < copy.gaps_count; index++) {
    struct ticks_gap gap = copy.gaps[index];
    line_add(line, "%s{\"us\":%.1f,\"start_ns\":%llu,\"end_ns\":%llu}", index ? "," : "",
             (double)(gap.end - gap.start) / 1000, (number)gap.start, (number)gap.end);
  }
  line_add(line, "]");
}
