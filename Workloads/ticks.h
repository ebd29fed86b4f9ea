// A ticker: a thread that ticks into a shared page and so knows every gap in which its process did not run.
//
// A gap is worth a place in the list from 1 ms and five intervals on.
//
// The page is plain memory with a fixed layout: a migration tool or a test may map the file behind it and read the
// gaps without asking the program. All instants are CLOCK_MONOTONIC in nanoseconds, thus comparable between hosts
// only where they share that clock.
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "support.h"

enum { TICKS_GAPS = 240 };
static const uint64_t TICKS_MAGIC = 0x31736b6369745041;  // "APticks1"

struct ticks_gap {
  uint64_t start, end;
};

struct ticks {
  uint64_t magic;
  _Atomic uint64_t sequence;  // Odd while the page is being written; a reader tries again when it changed.
  uint64_t interval;
  uint64_t last;
  uint64_t count;
  uint64_t largest;               // The largest gap since the last reset, and where it was.
  uint64_t largest_start, largest_end;
  uint64_t lost;                  // The sum of all gaps above two intervals since the start; never reset.
  uint64_t backwards;             // How often the clock went backwards; never reset.
  uint64_t gaps_count;            // How many of the following are in use.
  struct ticks_gap gaps[TICKS_GAPS];  // The largest such gaps since the last reset, in no order.
  uint64_t lost_until;            // Where the last gap that counts in `lost` ended; never reset.
};

_Static_assert(sizeof(struct ticks) <= PAGE, "the ticks fit one page");

// Starts ticking, into the file if one is named, else into anonymous shared memory.
struct ticks *ticks_start(const char *path, uint64_t interval);
// Forgets the gaps so far; takes effect with the next tick.
void ticks_reset(void);
// A copy that no tick has cut in two.
struct ticks ticks_read(const struct ticks *ticks);
// Appends "ticks", "max_gap_us", the place of the largest gap, and "gaps", largest first.
void ticks_describe(const struct ticks *ticks, struct line *line);
