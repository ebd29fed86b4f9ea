// What the parts of the changer share: kinds of process state, each changed and checked in turn.
#pragma once

#include <pthread.h>
#include <signal.h>

#include "support.h"
#include "ticks.h"

// One kind of state. `check` finds exactly what the last `change` set, or ends the program by calling changed().
// Process-wide kinds run on one thread, kinds of a thread on several, each with its own state.
struct kind {
  const char *name;
  bool of_thread;   // Several threads have a copy each; otherwise the process has one.
  bool by_request;  // Only if named, or with `all`.
  size_t size;      // Of its state, which starts as zeros.
  // Returns false if this kernel or these privileges do not let the kind be changed: it is then left out.
  bool (*prepare)(void *state, struct random *random);
  void (*change)(void *state, struct random *random);
  void (*check)(void *state);
  void (*spoil)(void *state);  // Changes the state behind the kind's back, to show that check notices.
  // Kinds that run in threads of their own have only this; they count their rounds with count_round.
  void (*start)(const struct kind *kind);
};

// Says what was found and ends the program.
__attribute__((format(printf, 2, 3), noreturn)) void changed(const char *kind, const char *format, ...);
// changed() unless both are equal.
void expect(const char *kind, const char *what, long long wanted, long long found);
void count_round(const struct kind *kind);
// The time this process did not run, summed up: timeouts may be late by that much.
uint64_t lost_time(void);
// When the process last went on after it had stood still for 2 ms.
uint64_t stood_still_until(void);
// Whether this kind is to be spoiled now; true once.
bool spoil_now(const struct kind *kind);

extern const char *changer_folder;  // Where files may be made.
bool make_readable_folder(const char *path);  // Whatever the umask; true if it is there.

extern const struct kind signal_kinds[], process_kinds[], file_kinds[], thread_kinds[], blocked_kinds[];

// Real-time signals in use, all blocked everywhere; the rest up to SIGRTMAX is for masks and actions.
#define SIGNAL_THREAD (SIGRTMIN + 1)
#define SIGNAL_PROCESS (SIGRTMIN + 2)
#define SIGNAL_TIMER (SIGRTMIN + 3)
#define SIGNAL_FAR (SIGRTMIN + 4)
#define SIGNAL_AWAITED (SIGRTMIN + 5)
#define SIGNAL_FREE (SIGRTMIN + 6)
